/* Cases of the s3:// driver's test program: puts that are sent twice, and large objects. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "clock.h"
#include "driver.h"

/* ---- awaited puts, a part of them slow ---- */

#define AWAITED_THREADS 8
#define AWAITED_PUTS 60
/* Of each thread: enough for the driver to know what is slow. */
#define AWAITED_FIRST 12

struct awaiting {
    pthread_t thread;
    u32 number, late;
    u64 ns_max; /* behind the first ones */
    err err;
};

static void awaited_name(char *out, size_t size, u32 thread, u32 i)
{
    snprintf(out, size, "h/put/%u/%u", thread, i);
}

static void *awaiting_run(void *arg)
{
    struct awaiting *w = arg;
    char name[64];
    for (u32 i = 0; i < AWAITED_PUTS && w->err == ERR_NONE; i++) {
        u32 seed = w->number * 1000 + i;
        u8 *data = data_make(seed, 20000);
        struct bytes part = bytes_of(data, 20000);
        awaited_name(name, sizeof name, w->number, i);
        struct store_object o = {
            .name = name, .parts = &part, .part_count = 1, .if_absent = i % 2, .awaited = true
        };
        u64 from = clock_mono_ns();
        w->err = store->driver->put(store, &o);
        u64 ns = clock_mono_ns() - from;
        mem_free(data);
        if (i < AWAITED_FIRST)
            continue;
        w->ns_max = MAX(w->ns_max, ns);
        w->late += ns > 1500 * NS_PER_MS;
    }
    return NULL;
}

static bool awaited_objects_are(void)
{
    char name[64];
    for (u32 t = 0; t < AWAITED_THREADS; t++)
        for (u32 i = 0; i < AWAITED_PUTS; i++) {
            awaited_name(name, sizeof name, t, i);
            NEED_ERR(get_seed(name, t * 1000 + i, 0, 20000), ERR_NONE);
        }
    return true;
}

/* A put in 50 takes two seconds; which requests a put was sent as shows in nothing but time. */
bool case_hedge_put(void)
{
    struct awaiting w[AWAITED_THREADS];
    u32 late = 0;
    u64 ns = 0;
    err e;
    for (u32 i = 0; i < AWAITED_THREADS; i++) {
        w[i] = (struct awaiting){ .number = i };
        pthread_create(&w[i].thread, NULL, awaiting_run, &w[i]);
    }
    for (u32 i = 0; i < AWAITED_THREADS; i++)
        pthread_join(w[i].thread, NULL);
    for (u32 i = 0; i < AWAITED_THREADS; i++) {
        NEED(w[i].err == ERR_NONE, "a put gave %s", err_name(w[i].err));
        late += w[i].late;
        ns = MAX(ns, w[i].ns_max);
    }
    printf("   %u of %u puts were late, the longest took %" PRIu64 " ms\n", late,
           AWAITED_THREADS * (AWAITED_PUTS - AWAITED_FIRST), ns / NS_PER_MS);
    usleep(2500000); /* until those that were broken off have taken effect too */
    struct listed l = listed_of("h/put/", 0, &e);
    NEED(e == ERR_NONE && l.count == AWAITED_THREADS * AWAITED_PUTS, "%s, %" PRIu64 " objects",
         err_name(e), l.count);
    return awaited_objects_are();
}

/* ---- large objects ---- */

#define LARGE_BYTES (40u * 1024 * 1024 + 12345)

/* With store.s3.part_bytes=5m: nine parts. */
bool case_parts(void)
{
    u64 from = clock_mono_ns();
    NEED_ERR(put_seed("m/parts", 7, LARGE_BYTES, true), ERR_NONE);
    printf("   nine parts took %" PRIu64 " ms\n", (clock_mono_ns() - from) / NS_PER_MS);
    NEED_ERR(get_seed("m/parts", 7, 0, LARGE_BYTES), ERR_NONE);
    NEED_ERR(put_seed("m/parts", 8, LARGE_BYTES, true), ERR_EXISTS);
    NEED_ERR(put_seed("m/more-parts", 8, LARGE_BYTES, true), ERR_NONE);
    NEED_ERR(get_seed("m/more-parts", 8, LARGE_BYTES - 9000, 9000), ERR_NONE);
    NEED_ERR(get_seed("m/parts", 7, LARGE_BYTES - 9000, 9000), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "m/parts"), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "m/more-parts"), ERR_NONE);
    return true;
}

/* Behind a proxy where no upload of m/abandon can be completed: it fails, and is aborted. */
bool case_abandon(void)
{
    err e = put_seed("m/abandon", 7, LARGE_BYTES / 2, true);
    NEED(e != ERR_NONE && e != ERR_EXISTS, "the put says %s", err_name(e));
    NEED_ERR(get_seed("m/abandon", 7, 0, 1), ERR_NOT_FOUND);
    return true;
}

static void *slow_run(void *arg)
{
    static const u64 pace = 2 * MIB;
    u8 *data = data_make(9, LARGE_BYTES / 2);
    struct bytes part = bytes_of(data, LARGE_BYTES / 2);
    struct store_object o = { .name = "m/slow", .parts = &part, .part_count = 1, .pace = &pace };
    err *out = arg;
    *out = store->driver->put(store, &o);
    mem_free(data);
    return NULL;
}

static bool sweep_finds_what_is_old(void)
{
    u32 swept;
    NEED_ERR(store_sweep(store, "m/", 0, &swept), ERR_NONE);
    NEED(swept == 0, "%u uploads were swept that are too young", swept);
    usleep(5500000); /* times are told in whole seconds */
    NEED_ERR(store_sweep(store, "x/", 0, &swept), ERR_NONE);
    NEED(swept == 0, "%u uploads elsewhere were swept", swept);
    NEED_ERR(store_sweep(store, "m/", 0, &swept), ERR_NONE);
    NEED(swept == 1, "%u uploads were swept", swept);
    NEED_ERR(store_sweep(store, "m/", 0, &swept), ERR_NONE);
    NEED(swept == 0, "%u uploads were swept twice", swept);
    return true;
}

/* As abandon, where the abort does not get through either. With store.s3.timeout=2s: what is older
 * than four seconds is swept, but for what goes on. */
bool case_sweep(void)
{
    pthread_t slow;
    err slow_err = ERR_IO;
    u64 from = clock_mono_ns();
    pthread_create(&slow, NULL, slow_run, &slow_err);
    bool ok = case_abandon() && sweep_finds_what_is_old();
    u64 swept_ns = clock_mono_ns() - from;
    pthread_join(slow, NULL);
    NEED(slow_err == ERR_NONE, "the upload that went on says %s", err_name(slow_err));
    NEED(clock_mono_ns() - from > swept_ns + NS_PER_S, "no upload went on during the sweep");
    NEED_ERR(get_seed("m/slow", 9, 0, LARGE_BYTES / 2), ERR_NONE);
    return ok;
}
