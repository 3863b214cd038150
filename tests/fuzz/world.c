/* Lives of a node without end; see world.h.
 *
 * A life that is refused or ends in FATAL leaves its memory behind, as the process would. Here that
 * must be found again: the allocator's hooks keep a table of what is alive since world_begin, and
 * world_end frees it. After an orderly stop, and after the simulator has forgotten its own state,
 * the table must be empty: what is in it is a leak.
 */
#include "world.h"

#include <sanitizer/allocator_interface.h>
#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "log.h"

char world_why[1200];
static struct config cfg;

/* A disk of four segments and its head fit the allocator's ordinary sizes: no mmap for each. */
#define SEGMENT (32 * KIB)

const char *__asan_default_options(void);

/* Small: the pages of disks and images are used again. Leaks are looked for here. */
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:malloc_context_size=12:detect_leaks=0";
}

/* ---- what is alive ---- */

#define LIVE_SLOTS (1u << 18)
static const void *live[LIVE_SLOTS];
static u32 live_count;
static bool watching;
/* The thread that lives the lives. libFuzzer has another one, which allocates when it starts: at
 * any moment of the first life. */
static _Thread_local bool watched;

static u32 live_home(const void *p)
{
    return (u32)(((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15u >> 40) % LIVE_SLOTS;
}

static void on_malloc(const volatile void *p, size_t size)
{
    (void)size;
    if (!watching || !watched || !p)
        return;
    if (live_count > LIVE_SLOTS / 2)
        abort();
    u32 i = live_home((const void *)p);
    while (live[i])
        i = (i + 1) % LIVE_SLOTS;
    live[i] = (const void *)p;
    live_count++;
}

/* Those behind the hole move up when their way from home leads past it. */
static void live_fill(u32 hole)
{
    for (u32 i = (hole + 1) % LIVE_SLOTS; live[i]; i = (i + 1) % LIVE_SLOTS) {
        u32 from_home = (i - live_home(live[i])) % LIVE_SLOTS;
        u32 from_hole = (i - hole) % LIVE_SLOTS;
        if (from_home < from_hole)
            continue;
        live[hole] = live[i];
        hole = i;
    }
    live[hole] = NULL;
}

static void on_free(const volatile void *p)
{
    if (live_count == 0 || !watched || !p)
        return;
    u32 i = live_home((const void *)p);
    while (live[i] && live[i] != (const void *)p)
        i = (i + 1) % LIVE_SLOTS;
    if (!live[i])
        return;
    live_fill(i);
    live_count--;
}

static void live_report(void)
{
    for (u32 i = 0, told = 0; i < LIVE_SLOTS && told < 5; i++)
        if (live[i]) {
            fprintf(stderr, "world: not freed by an orderly stop:\n");
            __asan_describe_address((void *)(uintptr_t)live[i]);
            told++;
        }
    abort();
}

static void live_free(void)
{
    for (u32 i = 0; live_count > 0 && i < LIVE_SLOTS; i++)
        while (live[i])
            mem_free((void *)(uintptr_t)live[i]); /* on_free takes it out of the table */
}

/* ---- the end of a process that is none ---- */

void __wrap_fatal(const char *file, int line, const char *fmt, ...);

/* FATAL is an answer to what can't be, if it says what to do; running out of memory is not: the
 * amount came from the input. */
void __wrap_fatal(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(world_why, sizeof world_why, fmt, ap);
    va_end(ap);
    if (!sim.running || strstr(world_why, "out of memory") || !strstr(world_why, "remedy")) {
        fprintf(stderr, "%s:%d: FATAL %s\n", file, line, world_why);
        abort();
    }
    longjmp(sim.kill, 1);
}

/* ---- lives ---- */

static void set(enum config_key k, i64 v)
{
    cfg.values[k] = v; /* smaller than an operator may choose */
}

static void configure(u32 shards)
{
    sim_configure(&cfg, "offsets.topic.num.partitions=2");
    set(CFG_wal_segment_bytes, (i64)SEGMENT);
    set(CFG_wal_size, (i64)(4 * SEGMENT) * shards);
    set(CFG_memory_budget, (i64)(4 * SEGMENT) * shards);
    set(CFG_wal_seal_age_ms, 200);
    set(CFG_message_max_bytes, (i64)(SEGMENT - 4096));
    set(CFG_store_cache_bytes, (i64)(64 * KIB));
    set(CFG_store_block_bytes, (i64)(16 * KIB));
    set(CFG_store_retry_ms, 50);
    set(CFG_bg_threads, 2);
    set(CFG_net_recv_buffers, 16);
    set(CFG_net_recv_buffer_bytes, 4096);
    set(CFG_net_max_request_bytes, (i64)(256 * KIB));
    set(CFG_net_request_memory, (i64)MIB * shards);
    set(CFG_net_response_memory, (i64)MIB * shards);
    set(CFG_fetch_sessions, 4);
    set(CFG_topics_max_partitions, 64);
}

void world_init(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    watched = true;
    log_threshold = LOG_ERROR + 1;
    sim_failed = abort;
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    world_bases_make();
}

void world_begin(u64 seed, u32 shards)
{
    sim = (struct sim){ .seed = seed, .shards = shards, .wall_base_ms = 1700000000000 };
    rng_init(&sim.rng, seed);
    store_install();
    meta_install();
    configure(shards);
    watching = true;
}

enum life_end world_run(bool (*wants_stop)(void))
{
    char why[1200];
    world_why[0] = 0;
    enum life_end end = life_run(wants_stop, why, sizeof why);
    if (end == LIFE_REFUSED)
        memcpy(world_why, why, sizeof why);
    CHECK((end == LIFE_STOPPED) == (world_why[0] == 0));
    return end;
}

void world_end(bool leaks)
{
    events_forget();
    net_forget();
    disk_forget();
    meta_forget();
    store_forget();
    os_unmap_all();
    config_free(&cfg);
    watching = false;
    if (leaks && live_count > 0)
        live_report();
    live_free();
}

/* ---- images ---- */

struct world_image {
    struct image_file {
        char path[128];
        u8 *media;
        u64 bytes;
    } files[SIM_SHARDS_MAX];
    u32 file_count;
    struct {
        struct bytes key, value;
    } pairs[64];
    u32 pair_count;
    struct {
        char name[64];
        struct bytes data;
    } objects[64];
    u32 object_count;
};

static struct bytes kept(struct bytes b)
{
    return bytes_of(mem_dup(b.data, b.len), b.len);
}

struct world_image *world_save(void)
{
    const char *text;
    u8 *media;
    u64 bytes;
    struct bytes key, value;
    disk_settle();
    watching = false;
    struct world_image *w = MEM_NEW(struct world_image);
    for (u32 i = 0; disk_file_at(i, &text, &media, &bytes); i++) {
        CHECK(w->file_count < ARRAY_COUNT(w->files));
        struct image_file *f = &w->files[w->file_count++];
        snprintf(f->path, sizeof f->path, "%s", text);
        f->media = mem_dup(media, bytes);
        f->bytes = bytes;
    }
    for (u32 i = 0; meta_pair_at(i, &key, &value); i++) {
        CHECK(w->pair_count < ARRAY_COUNT(w->pairs));
        w->pairs[w->pair_count].key = kept(key);
        w->pairs[w->pair_count++].value = kept(value);
    }
    for (u32 i = 0; store_object_at(i, &text, &value); i++) {
        CHECK(w->object_count < ARRAY_COUNT(w->objects));
        snprintf(w->objects[i].name, sizeof w->objects[i].name, "%s", text);
        w->objects[w->object_count++].data = kept(value);
    }
    watching = true;
    return w;
}

void world_put(const struct world_image *w)
{
    for (u32 i = 0; i < w->file_count; i++)
        disk_file_put(w->files[i].path, w->files[i].media, w->files[i].bytes);
    for (u32 i = 0; i < w->pair_count; i++)
        meta_pair_put(w->pairs[i].key, w->pairs[i].value);
    for (u32 i = 0; i < w->object_count; i++)
        store_object_put(w->objects[i].name, w->objects[i].data);
}
