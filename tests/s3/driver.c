/* What the s3:// driver promises, held against a real server, or one behind the fault proxy.
 *
 *   s3-driver URL [-w KEY=VALUE]... CASE...     each case prints "ok CASE" or "FAIL CASE: …"
 *   s3-driver URL [-w KEY=VALUE]... open        prints the sentence a failed start tells
 *   s3-driver URL bench THREADS BYTES COUNT     puts, then gets, and how long they took
 *
 * `faults` is for a server that fails now and then: a call may fail, but must never give wrong
 * bytes, and what was put stays. The last line is "N passed, N failed".
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "clock.h"
#include "config.h"
#include "driver.h"
#include "log.h"

#define THREADS_MAX 64
#define LIST_OBJECTS 1100

static struct config cfg;
struct store *store;
const char *current;
static u32 passed, failed;

static u8 byte_of(u64 seed, u64 i)
{
    u64 v = (seed + 1) * 0x9e3779b97f4a7c15u ^ (i >> 3) * 0xbf58476d1ce4e5b9u;
    v ^= v >> 29;
    v *= 0x94d049bb133111ebu;
    return (u8)(v >> (i & 7) * 8);
}

u8 *data_make(u64 seed, u32 bytes)
{
    u8 *p = mem_alloc(bytes + 1);
    for (u32 i = 0; i < bytes; i++)
        p[i] = byte_of(seed, i);
    return p;
}

static bool data_is(const u8 *p, u64 seed, u64 from, u32 len)
{
    for (u32 i = 0; i < len; i++)
        if (p[i] != byte_of(seed, from + i))
            return false;
    return true;
}

static err put_bytes(const char *name, const u8 *data, u32 len, bool if_absent)
{
    /* In three parts, one empty, as bundles are. */
    struct bytes parts[] = { bytes_of(data, len / 3), bytes_of(data, 0),
                             bytes_of(data + len / 3, len - len / 3) };
    struct store_object o = {
        .name = name, .parts = parts, .part_count = 3, .if_absent = if_absent
    };
    return store->driver->put(store, &o);
}

err put_seed(const char *name, u64 seed, u32 len, bool if_absent)
{
    u8 *data = data_make(seed, len);
    err e = put_bytes(name, data, len, if_absent);
    mem_free(data);
    return e;
}

err get_seed(const char *name, u64 seed, u64 from, u32 len)
{
    u8 *data = mem_alloc(len + 1);
    err e = store->driver->get_range(store, name, from, data, len);
    if (e == ERR_NONE && !data_is(data, seed, from, len))
        e = ERR_CORRUPT_MESSAGE;
    mem_free(data);
    return e;
}

/* ---- cases ---- */

static bool case_basic(void)
{
    u64 size;
    NEED_ERR(put_seed("b/one", 1, 100000, false), ERR_NONE);
    NEED_ERR(get_seed("b/one", 1, 0, 100000), ERR_NONE);
    NEED_ERR(get_seed("b/one", 1, 1, 1), ERR_NONE);
    NEED_ERR(get_seed("b/one", 1, 99999, 1), ERR_NONE);
    NEED_ERR(get_seed("b/one", 1, 40000, 50000), ERR_NONE);
    NEED_ERR(get_seed("b/one", 1, 99999, 2), ERR_TRUNCATED);
    NEED_ERR(get_seed("b/one", 1, 100000, 1), ERR_TRUNCATED);
    NEED_ERR(get_seed("b/one", 1, 500000, 10), ERR_TRUNCATED);
    NEED_ERR(get_seed("b/one", 1, 0, 0), ERR_NONE);
    NEED_ERR(store->driver->size(store, "b/one", &size), ERR_NONE);
    NEED(size == 100000, "size %" PRIu64, size);
    NEED_ERR(store->driver->size(store, "b/none", &size), ERR_NOT_FOUND);
    NEED_ERR(get_seed("b/none", 1, 0, 1), ERR_NOT_FOUND);
    NEED_ERR(get_seed("b/none", 1, 0, 0), ERR_NOT_FOUND);
    NEED_ERR(put_seed("b/one", 2, 5000, false), ERR_NONE);
    NEED_ERR(get_seed("b/one", 2, 0, 5000), ERR_NONE);
    NEED_ERR(put_seed("b/empty", 2, 0, false), ERR_NONE);
    NEED_ERR(store->driver->size(store, "b/empty", &size), ERR_NONE);
    NEED(size == 0, "size of the empty object %" PRIu64, size);
    NEED_ERR(store->driver->remove(store, "b/one"), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "b/one"), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "b/empty"), ERR_NONE);
    NEED_ERR(get_seed("b/one", 2, 0, 5000), ERR_NOT_FOUND);
    return true;
}

static bool case_names(void)
{
    static const char *const names[] = {
        "a", "0", "a.b", "a--b", "d/b.c/d-e", "x/0123456789abcdefghijklmnopqrstuvwxyz.-", "a..b/c",
    };
    char longest[STORE_NAME_MAX + 1];
    memset(longest, 'n', sizeof longest - 1);
    longest[STORE_NAME_MAX] = '\0';
    longest[127] = '/';
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        NEED_ERR(put_seed(names[i], i, 100, false), ERR_NONE);
        NEED_ERR(get_seed(names[i], i, 0, 100), ERR_NONE);
    }
    NEED_ERR(put_seed(longest, 77, 100, false), ERR_NONE);
    NEED_ERR(get_seed(longest, 77, 50, 50), ERR_NONE);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        NEED_ERR(get_seed(names[i], i, 0, 100), ERR_NONE);
        NEED_ERR(store->driver->remove(store, names[i]), ERR_NONE);
    }
    NEED_ERR(store->driver->remove(store, longest), ERR_NONE);
    return true;
}

static bool case_conditional(void)
{
    NEED_ERR(store->driver->remove(store, "c/one"), ERR_NONE);
    NEED_ERR(put_seed("c/one", 1, 1000, true), ERR_NONE);
    NEED_ERR(put_seed("c/one", 2, 1000, true), ERR_EXISTS);
    NEED_ERR(get_seed("c/one", 1, 0, 1000), ERR_NONE);
    NEED_ERR(put_seed("c/one", 3, 1000, false), ERR_NONE);
    NEED_ERR(get_seed("c/one", 3, 0, 1000), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "c/one"), ERR_NONE);
    return true;
}

static u32 race_bytes;

static void *race_run(void *arg)
{
    err *out = arg;
    *out = put_seed("c/race", 9, race_bytes, true);
    return NULL;
}

static bool race_has_one_winner(u32 bytes)
{
    enum { RACERS = 8 };
    race_bytes = bytes;
    pthread_t threads[RACERS];
    err results[RACERS];
    u32 won = 0;
    NEED_ERR(store->driver->remove(store, "c/race"), ERR_NONE);
    for (u32 i = 0; i < RACERS; i++)
        pthread_create(&threads[i], NULL, race_run, &results[i]);
    for (u32 i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    for (u32 i = 0; i < RACERS; i++) {
        won += results[i] == ERR_NONE;
        NEED(results[i] == ERR_NONE || results[i] == ERR_EXISTS, "a racer got %s",
             err_name(results[i]));
    }
    NEED(won == 1, "%u racers won", won);
    NEED_ERR(get_seed("c/race", 9, 0, bytes), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "c/race"), ERR_NONE);
    return true;
}

static bool case_race(void)
{
    return race_has_one_winner(20000);
}

/* With store.s3.part_bytes=5m: three parts. */
static bool case_race_parts(void)
{
    return race_has_one_winner(11 * 1024 * 1024);
}

/* With store.s3.part_bytes=5m: three parts. */
static bool case_multipart(void)
{
    enum { BYTES = 12 * 1024 * 1024 + 12345 };
    u64 size;
    NEED_ERR(put_seed("m/one", 5, BYTES, false), ERR_NONE);
    NEED_ERR(store->driver->size(store, "m/one", &size), ERR_NONE);
    NEED(size == BYTES, "size %" PRIu64, size);
    NEED_ERR(get_seed("m/one", 5, 0, BYTES), ERR_NONE);
    NEED_ERR(get_seed("m/one", 5, 5 * 1024 * 1024 - 10, 20), ERR_NONE);
    NEED_ERR(put_seed("m/one", 6, BYTES, true), ERR_EXISTS);
    NEED_ERR(get_seed("m/one", 5, 0, 1000), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "m/one"), ERR_NONE);
    NEED_ERR(put_seed("m/one", 6, BYTES, true), ERR_NONE);
    NEED_ERR(get_seed("m/one", 6, BYTES - 1000, 1000), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "m/one"), ERR_NONE);
    return true;
}

/* ---- lists ---- */

struct worker {
    pthread_t thread;
    u32 from, step, count;
    err err;
    u64 seed, bytes;
};

static void list_name(char *out, size_t size, u32 i)
{
    snprintf(out, size, "l/%02x/%08x", i % 7, i);
}

static void *list_put(void *arg)
{
    struct worker *w = arg;
    char name[64];
    for (u32 i = w->from; i < w->count && w->err == ERR_NONE; i += w->step) {
        list_name(name, sizeof name, i);
        w->err = put_seed(name, i, i % 50, false);
    }
    return NULL;
}

static err listed_add(void *arg, const char *name, u64 bytes)
{
    struct listed *l = arg;
    l->ordered &= strcmp(l->last, name) < 0;
    snprintf(l->last, sizeof l->last, "%s", name);
    l->count++;
    l->bytes += bytes;
    return l->count == l->stop_at ? ERR_BUSY : ERR_NONE;
}

struct listed listed_of(const char *prefix, u64 stop_at, err *e)
{
    struct listed l = { .stop_at = stop_at, .ordered = true };
    *e = store->driver->list(store, prefix, listed_add, &l);
    return l;
}

/* All of it in pages, each of which begins behind the last name of the one before. */
static struct listed paged_of(const char *prefix, u32 max, err *e)
{
    struct listed l = { .ordered = true };
    u64 before;
    do {
        char after[sizeof l.last];
        memcpy(after, l.last, sizeof after);
        before = l.count;
        *e = store_list_page(store, prefix, after, max, listed_add, &l);
        l.ordered &= l.count - before <= max;
    } while (*e == ERR_NONE && l.count > before);
    return l;
}

static bool case_list(void)
{
    enum { PUTTERS = 8 };
    struct worker w[PUTTERS];
    u64 bytes = 0;
    err e;
    for (u32 i = 0; i < LIST_OBJECTS; i++)
        bytes += i % 50;
    for (u32 i = 0; i < PUTTERS; i++) {
        w[i] = (struct worker){ .from = i, .step = PUTTERS, .count = LIST_OBJECTS };
        pthread_create(&w[i].thread, NULL, list_put, &w[i]);
    }
    for (u32 i = 0; i < PUTTERS; i++)
        pthread_join(w[i].thread, NULL);
    for (u32 i = 0; i < PUTTERS; i++)
        NEED(w[i].err == ERR_NONE, "a put gave %s", err_name(w[i].err));
    struct listed l = listed_of("l/", 0, &e);
    NEED(e == ERR_NONE && l.count == LIST_OBJECTS, "%s, %" PRIu64 " listed", err_name(e), l.count);
    NEED(l.bytes == bytes, "%" PRIu64 " bytes listed, not %" PRIu64, l.bytes, bytes);
    NEED(l.ordered, "the list is not in order");
    l = listed_of("l/03/", 0, &e);
    NEED(e == ERR_NONE && l.count == LIST_OBJECTS / 7, "%" PRIu64 " below l/03/", l.count);
    l = listed_of("l/0", 0, &e);
    NEED(e == ERR_NONE && l.count == LIST_OBJECTS, "%" PRIu64 " below l/0", l.count);
    l = listed_of("l/none", 0, &e);
    NEED(e == ERR_NONE && l.count == 0, "%" PRIu64 " below l/none", l.count);
    l = listed_of("l/", 10, &e);
    NEED(e == ERR_BUSY && l.count == 10, "the list does not stop when asked to");
    l = paged_of("l/", 300, &e);
    NEED(e == ERR_NONE && l.count == LIST_OBJECTS && l.ordered, "%s, %" PRIu64 " listed in pages",
         err_name(e), l.count);
    l = paged_of("l/03/", 64, &e);
    NEED(e == ERR_NONE && l.count == LIST_OBJECTS / 7 && l.ordered,
         "%s, %" PRIu64 " below l/03/ in pages", err_name(e), l.count);
    return true;
}

/* After list: what it left. */
static bool case_remove_many(void)
{
    char(*names)[64] = mem_alloc(LIST_OBJECTS * sizeof *names);
    const char **list = mem_alloc((LIST_OBJECTS + 1) * sizeof *list);
    err e;
    for (u32 i = 0; i < LIST_OBJECTS; i++) {
        list_name(names[i], sizeof names[i], i);
        list[i] = names[i];
    }
    list[LIST_OBJECTS] = "l/never/there";
    NEED_ERR(store_remove_many(store, list, LIST_OBJECTS + 1), ERR_NONE);
    struct listed l = listed_of("l/", 0, &e);
    NEED(e == ERR_NONE && l.count == 0, "%s, %" PRIu64 " left", err_name(e), l.count);
    mem_free(names);
    mem_free(list);
    return true;
}

/* ---- many at once, pace ---- */

static void *busy_run(void *arg)
{
    struct worker *w = arg;
    char name[64];
    for (u32 i = 0; i < w->count && w->err == ERR_NONE; i++) {
        u32 len = 1000 + (u32)(byte_of(w->from, i) * 3000u);
        snprintf(name, sizeof name, "t/%u/%u", w->from, i);
        w->err = put_seed(name, w->from * 1000 + i, len, i % 2 != 0);
        if (w->err == ERR_NONE)
            w->err = get_seed(name, w->from * 1000 + i, len / 4, len / 2);
        if (w->err == ERR_NONE)
            w->err = store->driver->remove(store, name);
    }
    return NULL;
}

static bool case_threads(void)
{
    enum { BUSY = 16 };
    struct worker w[BUSY];
    for (u32 i = 0; i < BUSY; i++) {
        w[i] = (struct worker){ .from = i, .count = 20 };
        pthread_create(&w[i].thread, NULL, busy_run, &w[i]);
    }
    for (u32 i = 0; i < BUSY; i++)
        pthread_join(w[i].thread, NULL);
    for (u32 i = 0; i < BUSY; i++)
        NEED(w[i].err == ERR_NONE, "thread %u: %s", i, err_name(w[i].err));
    return true;
}

static bool case_pace(void)
{
    u64 pace = 2 * MIB, from = clock_mono_ns();
    u8 *data = data_make(3, (u32)MIB);
    struct bytes part = bytes_of(data, (u32)MIB);
    struct store_object o = { .name = "p/one", .parts = &part, .part_count = 1, .pace = &pace };
    err e = store->driver->put(store, &o);
    u64 ms = (clock_mono_ns() - from) / NS_PER_MS;
    mem_free(data);
    NEED(e == ERR_NONE, "%s", err_name(e));
    NEED(ms > 400 && ms < 2000, "1 MiB at 2 MiB/s took %" PRIu64 " ms", ms);
    NEED_ERR(get_seed("p/one", 3, 0, (u32)MIB), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "p/one"), ERR_NONE);
    return true;
}

/* ---- a server that fails ---- */

static bool fault_round(u32 i, u32 *errors)
{
    char name[64];
    u32 len = 50000 + i * 1000;
    snprintf(name, sizeof name, "f/%u", i);
    err e = put_seed(name, i, len, true);
    /* The repeated put of one whose answer was lost is told from another's. */
    NEED(e != ERR_EXISTS, "put of a new object says EXISTS");
    *errors += e != ERR_NONE;
    bool there = e == ERR_NONE;
    for (u32 k = 0; k < 4; k++) {
        e = get_seed(name, i, k * 1000, len / 2);
        NEED(e != ERR_CORRUPT_MESSAGE || getenv("S3_CORRUPT"), "other bytes than were put");
        NEED(!(there && e == ERR_NOT_FOUND), "an object that was put is gone");
        *errors += e != ERR_NONE;
    }
    return true;
}

static bool case_faults(void)
{
    enum { ROUNDS = 12 };
    u32 errors = 0;
    err e;
    u64 from = clock_mono_ns();
    for (u32 i = 0; i < ROUNDS; i++)
        if (!fault_round(i, &errors))
            return false;
    struct listed l = listed_of("f/", 0, &e);
    errors += e != ERR_NONE;
    printf("   %u of %u calls failed, %" PRIu64 " listed (%s), %" PRIu64 " ms\n", errors,
           ROUNDS * 5 + 1, l.count, err_name(e), (clock_mono_ns() - from) / NS_PER_MS);
    const char *most = getenv("S3_ERRORS_MAX");
    NEED(errors <= (u32)(most ? strtoul(most, NULL, 10) : 0), "%u calls failed", errors);
    for (u32 i = 0; i < ROUNDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "f/%u", i);
        (void)!store->driver->remove(store, name);
    }
    return true;
}

/* Enough reads to know what is slow. */
static bool case_hedge(void)
{
    NEED_ERR(put_seed("h/one", 8, 100000, false), ERR_NONE);
    for (u32 i = 0; i < 300; i++)
        NEED_ERR(get_seed("h/one", 8, i, 50000), ERR_NONE);
    NEED_ERR(store->driver->remove(store, "h/one"), ERR_NONE);
    return true;
}

/* ---- classes ---- */

struct reader {
    pthread_t thread;
    enum store_class class;
    u32 count; /* of reads; 0: until told to stop */
    u64 ns_max;
    err err;
};
static bool readers_stop; /* atomic */

static void *reader_run(void *arg)
{
    struct reader *r = arg;
    struct store *s = store_for(store, r->class);
    u8 got[50000];
    for (u32 i = 0; (r->count == 0 || i < r->count) && r->err == ERR_NONE; i++) {
        if (r->count == 0 && __atomic_load_n(&readers_stop, __ATOMIC_RELAXED))
            break;
        u64 from = clock_mono_ns();
        r->err = s->driver->get_range(s, "k/one", i, got, sizeof got);
        r->ns_max = MAX(r->ns_max, clock_mono_ns() - from);
    }
    return NULL;
}

/* The longest read of four consumers while many others read as `class`; 0: a read failed. */
static u64 tail_ms_beside(enum store_class class)
{
    enum { OTHERS = 24, TAILS = 4 };
    struct reader r[OTHERS + TAILS];
    u64 ns = 0;
    err e = ERR_NONE;
    __atomic_store_n(&readers_stop, false, __ATOMIC_RELAXED);
    for (u32 i = 0; i < OTHERS + TAILS; i++) {
        r[i] = (struct reader){ .class = i < OTHERS ? class : STORE_TAIL,
                                .count = i < OTHERS ? 0 : 3 };
        if (i == OTHERS)
            usleep(200000); /* the others come first */
        pthread_create(&r[i].thread, NULL, reader_run, &r[i]);
    }
    for (u32 i = OTHERS; i < OTHERS + TAILS; i++) {
        pthread_join(r[i].thread, NULL);
        ns = MAX(ns, r[i].ns_max);
    }
    __atomic_store_n(&readers_stop, true, __ATOMIC_RELAXED);
    for (u32 i = 0; i < OTHERS; i++)
        pthread_join(r[i].thread, NULL);
    for (u32 i = 0; i < OTHERS + TAILS; i++)
        e = e == ERR_NONE ? r[i].err : e;
    return e == ERR_NONE ? ns / NS_PER_MS : 0;
}

/* With store.s3.connections=8, and a store that takes half a second for a read. */
static bool case_classes(void)
{
    NEED_ERR(put_seed("k/one", 8, 100000, false), ERR_NONE);
    u64 beside = tail_ms_beside(STORE_COMPACT), among = tail_ms_beside(STORE_TAIL);
    printf("   a read takes at most %" PRIu64 " ms beside compaction, %" PRIu64
           " ms among its like\n",
           beside, among);
    NEED(beside > 0 && among > 0, "a read failed");
    /* One half second for the place of a request that is on its way, one for itself. */
    NEED(beside < 1400, "compaction holds up a consumer for %" PRIu64 " ms", beside);
    NEED(among > beside, "classes make no difference");
    return true;
}

static bool case_class_connections(void)
{
    enum { READERS = 4 };
    struct reader r[READERS];
    u64 from = clock_mono_ns();
    NEED_ERR(put_seed("k/one", 8, 100000, false), ERR_NONE);
    for (u32 i = 0; i < READERS; i++) {
        r[i] = (struct reader){ .class = STORE_CATCHUP, .count = 1 };
        pthread_create(&r[i].thread, NULL, reader_run, &r[i]);
    }
    for (u32 i = 0; i < READERS; i++)
        pthread_join(r[i].thread, NULL);
    u64 ms = (clock_mono_ns() - from) / NS_PER_MS;
    NEED(ms >= READERS * 500, "%u reads one by one took %" PRIu64 " ms", READERS, ms);
    return true;
}

static bool class_time(enum store_class class, bool read, u64 *ms)
{
    enum { BYTES = 3 * 1024 * 1024 };
    struct store *s = store_for(store, class);
    u8 *data = data_make(4, BYTES);
    struct bytes part = bytes_of(data, BYTES);
    struct store_object o = { .name = "k/rate", .parts = &part, .part_count = 1 };
    u64 from = clock_mono_ns();
    err e = read ? s->driver->get_range(s, "k/rate", 0, data, BYTES) : s->driver->put(s, &o);
    *ms = (clock_mono_ns() - from) / NS_PER_MS;
    mem_free(data);
    NEED(e == ERR_NONE, "%s", err_name(e));
    return true;
}

/* With store.s3.class.compact.rate=2m. */
static bool case_class_rate(void)
{
    for (u32 read = 0; read < 2; read++) {
        u64 slow, quick;
        if (!class_time(STORE_COMPACT, read, &slow) || !class_time(STORE_ANY, read, &quick))
            return false;
        NEED(slow > 1200 && slow < 4000, "3 MiB at 2 MiB/s took %" PRIu64 " ms", slow);
        NEED(quick < 1000, "the rate of another class holds: %" PRIu64 " ms", quick);
    }
    return true;
}

/* ---- bench ---- */

static u32 bench_bytes;
static bool bench_get;

static void *bench_run(void *arg)
{
    struct worker *w = arg;
    u8 *data = data_make(1, bench_bytes);
    char name[64];
    for (u32 i = w->from; i < w->count && w->err == ERR_NONE; i += w->step) {
        snprintf(name, sizeof name, "x/%u", i);
        w->err = bench_get ? store->driver->get_range(store, name, 0, data, bench_bytes)
                           : put_bytes(name, data, bench_bytes, false);
    }
    mem_free(data);
    return NULL;
}

static int bench(u32 threads, u32 bytes, u32 count)
{
    struct worker w[THREADS_MAX];
    bench_bytes = bytes;
    threads = MIN(threads, (u32)THREADS_MAX);
    for (u32 pass = 0; pass < 2; pass++) {
        u64 from = clock_mono_ns();
        bench_get = pass == 1;
        for (u32 i = 0; i < threads; i++) {
            w[i] = (struct worker){ .from = i, .step = threads, .count = count };
            pthread_create(&w[i].thread, NULL, bench_run, &w[i]);
        }
        err e = ERR_NONE;
        for (u32 i = 0; i < threads; i++) {
            pthread_join(w[i].thread, NULL);
            e = e == ERR_NONE ? w[i].err : e;
        }
        f64 s = (f64)(clock_mono_ns() - from) / 1e9;
        printf("%s threads=%u bytes=%u count=%u: %.0f/s %.1f MiB/s mean %.2f ms %s\n",
               bench_get ? "get" : "put", threads, bytes, count, count / s,
               (f64)count * bytes / s / 1048576, s * 1000 * threads / count, err_name(e));
    }
    return 0;
}

/* ---- main ---- */

static const struct {
    const char *name;
    bool (*fn)(void);
} cases[] = {
    { "basic", case_basic },
    { "names", case_names },
    { "conditional", case_conditional },
    { "race", case_race },
    { "race_parts", case_race_parts },
    { "multipart", case_multipart },
    { "list", case_list },
    { "remove_many", case_remove_many },
    { "threads", case_threads },
    { "pace", case_pace },
    { "faults", case_faults },
    { "hedge", case_hedge },
    { "hedge_put", case_hedge_put },
    { "parts", case_parts },
    { "abandon", case_abandon },
    { "sweep", case_sweep },
    { "classes", case_classes },
    { "class_connections", case_class_connections },
    { "class_rate", case_class_rate },
};

static void case_run(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        if (strcmp(cases[i].name, name) != 0)
            continue;
        current = name;
        bool ok = cases[i].fn();
        passed += ok;
        failed += !ok;
        if (ok)
            printf("ok %s\n", name);
        return;
    }
    failed++;
    printf("FAIL %s: no such case\n", name);
}

int main(int argc, char **argv)
{
    char why[2048];
    int at = 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* Nothing here may ask the metadata service of the machine it runs on. */
    if (!getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"))
        setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    config_init(&cfg);
    log_threshold = getenv("S3_LOG") ? LOG_DEBUG : LOG_ERROR;
    for (; at + 1 < argc && strcmp(argv[at], "-w") == 0; at += 2)
        if (config_set_pair(&cfg, argv[at + 1], CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE) {
            printf("FAIL %s\n", why);
            return 2;
        }
    if (at >= argc || config_validate(&cfg, why, sizeof why) != ERR_NONE) {
        printf("usage: s3-driver URL [-w KEY=VALUE]... CASE...\n");
        return 2;
    }
    err e = store_open(argv[1], &cfg, &store, why, sizeof why);
    if (e != ERR_NONE) {
        printf("FAIL open: %s: %s\n0 passed, 1 failed\n", err_name(e), why);
        return 1;
    }
    if (strcmp(argv[at], "open") == 0) {
        printf("ok open\n");
        passed++;
    } else if (strcmp(argv[at], "bench") == 0 && at + 3 < argc) {
        bench((u32)strtoul(argv[at + 1], NULL, 10), (u32)strtoul(argv[at + 2], NULL, 10),
              (u32)strtoul(argv[at + 3], NULL, 10));
    } else {
        for (; at < argc; at++)
            case_run(argv[at]);
    }
    if (getenv("S3_METRICS")) {
        struct metric_text t = { 0 };
        store->driver->metrics(store, &t);
        fputs(t.data, stdout);
        metric_text_free(&t);
    }
    store->driver->close(store);
    config_free(&cfg);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
