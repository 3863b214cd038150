/* Time, events, randomness, and one life of a node.
 *
 * Only one thing runs at a time: a turn of one shard, or an event. Events are what happens outside
 * the shards: a disk write ends, a packet comes, a background job runs, a client acts. Shards are
 * picked at random among those that have something to do, so every interleaving of shards is
 * possible. Time advances when nobody has anything to do, and a little with every turn.
 *
 * A kill is a longjmp out of whatever the node was doing, at one of the points where something of
 * it becomes visible outside (sim_effect). Its memory is left behind; a process runs few lives.
 */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "../../core/shard/mailbox_int.h"
#include "clock.h"
#include "log.h"
#include "sim.h"

struct sim sim;
void (*sim_failed)(void);
static struct sim_stats no_stats;
struct sim_stats *sim_stats = &no_stats;

/* ---- reports ---- */

void sim_fail(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr,
            "sim: VIOLATED at %" PRIu64 ".%06" PRIu64 " s, life %u: ", sim.now_ns / NS_PER_S,
            sim.now_ns % NS_PER_S / NS_PER_US, sim.life);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    fflush(stderr);
    if (sim_failed)
        sim_failed();
    _exit(1);
}

void sim_trace(const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "[%3" PRIu64 ".%06" PRIu64 " %u] ", sim.now_ns / NS_PER_S,
            sim.now_ns % NS_PER_S / NS_PER_US, sim.life);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* ---- randomness and time ---- */

u64 rnd_log(u64 lo, u64 hi)
{
    CHECK(lo > 0 && lo <= hi);
    u32 low = 63 - (u32)__builtin_clzll(lo), high = 63 - (u32)__builtin_clzll(hi);
    u32 bits = (u32)rnd_between(low, high);
    u64 v = ((u64)1 << bits) + rnd((u64)1 << bits);
    return MIN(MAX(v, lo), hi);
}

u64 clock_mono_ns(void)
{
    return NS_PER_S + sim.now_ns;
}

i64 clock_wall_ms(void)
{
    return sim.wall_base_ms + (i64)(sim.now_ns / NS_PER_MS);
}

/* ---- events: a binary heap, ties in order of making ---- */

struct event {
    u64 at, number;
    sim_fn fn;
    void *arg;
    u64 x;
    u32 life; /* 0: survives kills */
};
static struct event *heap;
static u32 heap_count, heap_cap;
static u64 event_number;

static bool event_before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->number < b->number);
}

static void event_add(u64 delay_ns, sim_fn fn, void *arg, u64 x, u32 life)
{
    if (heap_count == heap_cap) {
        heap_cap = MAX(256, heap_cap * 2);
        heap = mem_realloc(heap, heap_cap * sizeof *heap);
    }
    struct event e = { sim.now_ns + delay_ns, event_number++, fn, arg, x, life };
    u32 i = heap_count++;
    while (i > 0 && event_before(&e, &heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = e;
}

static struct event event_take(void)
{
    struct event top = heap[0], e = heap[--heap_count];
    u32 i = 0;
    for (;;) {
        u32 c = 2 * i + 1;
        if (c >= heap_count)
            break;
        if (c + 1 < heap_count && event_before(&heap[c + 1], &heap[c]))
            c++;
        if (!event_before(&heap[c], &e))
            break;
        heap[i] = heap[c];
        i = c;
    }
    heap[i] = e;
    return top;
}

void sim_after(u64 delay_ns, sim_fn fn, void *arg, u64 x)
{
    event_add(delay_ns, fn, arg, x, 0);
}

void sim_after_in_life(u64 delay_ns, sim_fn fn, void *arg, u64 x)
{
    event_add(delay_ns, fn, arg, x, sim.life);
}

void events_forget(void)
{
    mem_free(heap);
    heap = NULL;
    heap_count = heap_cap = 0;
    event_number = 0;
}

u64 sim_next_event(void)
{
    while (heap_count > 0 && heap[0].life != 0 && heap[0].life != sim.life)
        (void)event_take();
    return heap_count > 0 ? heap[0].at : UINT64_MAX;
}

void sim_run_events(void)
{
    while (sim_next_event() <= sim.now_ns) {
        struct event e = event_take();
        sim.steps++;
        e.fn(e.arg, e.x);
    }
}

void sim_kill(const char *what)
{
    TRACE("kill at effect %" PRIu64 ": %s", sim.effects, what);
    longjmp(sim.kill, 1);
}

void sim_effect(const char *what)
{
    if (!sim.running || !sim.kill_allowed)
        return;
    sim.effects++;
    if (sim.kill_at == 0 || sim.effects < sim.kill_at)
        return;
    sim_kill(what);
}

/* ---- a life ---- */

static bool shard_has_work(const struct shard *s)
{
    return s->turn_again || io_has_work(s->io) || mailboxes_pending(s) ||
           timers_next(&s->timers) <= clock_mono_ns();
}

static struct shard *shard_pick(bool *drained, u64 *next_ns)
{
    struct shard *busy[SIM_SHARDS_MAX];
    u32 n = 0;
    *next_ns = sim_next_event();
    for (u32 i = 0; i < sim.shards; i++) {
        struct shard *s = &sim.node->brokers[i]->shard;
        if (sim.paused_until[i] > sim.now_ns) {
            *next_ns = MIN(*next_ns, sim.paused_until[i]);
            continue;
        }
        if (shard_has_work(s)) {
            busy[n++] = s;
            continue;
        }
        u64 timer = timers_next(&s->timers);
        if (timer != UINT64_MAX)
            *next_ns = MIN(*next_ns, timer - NS_PER_S); /* clock_mono_ns is a second ahead */
        if (s->stopping && !drained[i])
            *next_ns = MIN(*next_ns, sim.now_ns + 5 * NS_PER_MS);
    }
    return n ? busy[rnd(n)] : NULL;
}

static void stop_all(bool *stopping)
{
    *stopping = true;
    TRACE("clean stop");
    for (u32 i = 0; i < sim.shards; i++)
        sim.node->brokers[i]->shard.stopping = true;
}

static void turn_one(struct shard *s)
{
    if (fault(sim.faults.shard_pause))
        sim.paused_until[s->index] = sim.now_ns + rnd_log(NS_PER_MS, NS_PER_S);
    if (fault(sim.faults.clock_jump))
        sim.wall_base_ms += (i64)rnd(4000) - 2000;
    shard_turn(s, 0);
    sim.turns++;
    sim.now_ns += rnd_between(500, 20000);
}

static bool drain_step(bool *drained)
{
    bool all = true;
    for (u32 i = 0; i < sim.shards; i++) {
        struct shard *s = &sim.node->brokers[i]->shard;
        if (!drained[i])
            drained[i] = broker_drained(s);
        all &= drained[i];
    }
    return all;
}

/* Until everything is drained. */
static void life_turns(bool (*wants_stop)(void))
{
    bool drained[SIM_SHARDS_MAX] = { false };
    bool stopping = false;
    u64 stop_began = 0;
    for (;;) {
        sim_run_events();
        if (!stopping && wants_stop()) {
            stop_all(&stopping);
            stop_began = sim.now_ns;
        }
        if (stopping && drain_step(drained))
            return;
        if (stopping && sim.now_ns - stop_began > 120 * NS_PER_S)
            sim_fail("liveness: a clean stop is not through after 120 s");
        u64 next_ns;
        struct shard *s = shard_pick(drained, &next_ns);
        if (s) {
            turn_one(s);
        } else {
            if (next_ns == UINT64_MAX)
                sim_fail("liveness: nothing will ever happen again");
            sim.now_ns = MAX(sim.now_ns, next_ns);
        }
    }
}

static enum life_end life_start(char *why, size_t why_size)
{
    struct node *n = NULL;
    if (node_open(sim.cfg, sim.shards, &n, why, why_size) != ERR_NONE)
        return LIFE_REFUSED;
    sim.node = n;
    for (u32 i = 0; i < sim.shards; i++) {
        struct shard *s = &n->brokers[i]->shard;
        err e = io_create(sim.cfg, i, &s->io, why, why_size);
        CHECK(e == ERR_NONE);
        e = broker_start(s);
        if (e == ERR_NONE)
            continue;
        snprintf(why, why_size, "shard %u: %s: %s", i, err_name(e), n->brokers[i]->env.error);
        return LIFE_REFUSED;
    }
    return LIFE_STOPPED;
}

static void stats_take(void)
{
    for (u32 i = 0; sim.node && i < sim.shards; i++) {
        const struct metrics *m = sim.node->brokers[i] ? sim.node->brokers[i]->shard.metrics : NULL;
        if (!m)
            continue;
        STAT_ADD(wal_full, metric_get(m, M_wal_full));
        STAT_ADD(index_full, metric_get(m, M_index_waits));
        STAT_ADD(uploads, metric_get(m, M_uploads));
        STAT_ADD(cache_loads, metric_get(m, M_store_gets));
        STAT_ADD(coalesced, metric_get(m, M_cache_coalesced));
        STAT_ADD(ahead_used, metric_get(m, M_readahead_used) + metric_get(m, M_readahead_late));
        STAT_ADD(ahead_wasted, metric_get(m, M_readahead_wasted));
        STAT_ADD(deferred, metric_get(m, M_catchup_deferred));
        STAT_ADD(sends_deferred, metric_get(m, M_sends_deferred));
        STAT_ADD(compactions, metric_get(m, M_compactions));
        STAT_ADD(runs, metric_get(m, M_compaction_runs));
        STAT_ADD(merges, metric_get(m, M_merge_runs));
        STAT_ADD(merges_failed, metric_get(m, M_merges_failed));
        STAT_ADD(merges_deferred, metric_get(m, M_merges_deferred));
        STAT_ADD(orphans, metric_get(m, M_orphans));
        STAT_ADD(records_removed, metric_get(m, M_compaction_records));
        STAT_ADD(object_batches, metric_get(m, M_object_batches));
        STAT_ADD(disk_hits, metric_get(m, M_disk_cache_hits));
        STAT_ADD(disk_refused, metric_get(m, M_disk_cache_refused));
        STAT_ADD(disk_evictions, metric_get(m, M_disk_cache_evictions));
        STAT_ADD(disk_bad, metric_get(m, M_disk_cache_bad));
        STAT_ADD(disk_offs, metric_get(m, M_disk_cache_errors));
    }
}

static void life_over(void)
{
    sim.running = sim.recovering = false;
    sim.lane = BG_LANES;
    sim.node = NULL;
    io_crash();
    sim.life++;
    memset(sim.paused_until, 0, sizeof sim.paused_until);
}

enum life_end life_run(bool (*wants_stop)(void), char *why, size_t why_size)
{
    static enum life_end end; /* static: outlives the jump */
    sim.life++;
    STAT(lives);
    sim.effects = 0;
    sim.running = true;
    why[0] = 0;
    if (setjmp(sim.kill) != 0) {
        stats_take();
        life_over();
        net_crash();
        if (sim.long_lived)
            os_unmap_all(); /* dozens of lives: only the small memory of each is left behind */
        return LIFE_KILLED;
    }
    end = life_start(why, why_size);
    if (end == LIFE_REFUSED) {
        life_over();
        net_crash();
        return end;
    }
    TRACE("serving, shards=%u", sim.shards);
    life_turns(wants_stop);
    stats_take();
    for (u32 i = 0; i < sim.shards; i++) {
        struct shard *s = &sim.node->brokers[i]->shard;
        io_destroy(s->io);
        s->io = NULL;
    }
    node_close(sim.node);
    life_over();
    net_crash();
    TRACE("stopped");
    return LIFE_STOPPED;
}

enum life_end recover_run(void (*pause)(u64 ns), bool force, char *why, size_t why_size)
{
    struct recovery r = { .pause = pause, .force = force };
    sim.life++;
    sim.effects = 0;
    sim.running = sim.recovering = true;
    why[0] = 0;
    if (setjmp(sim.kill) != 0) {
        life_over();
        return LIFE_KILLED;
    }
    err e = node_recover(sim.cfg, &r, why, why_size);
    life_over();
    if (e != ERR_NONE)
        return LIFE_REFUSED;
    TRACE("recovered: epoch=%u change_sets=%" PRIu64 " objects=%" PRIu64 " forward=%" PRIu64
          " beyond=%" PRIu64 " unknown=%" PRIu64,
          r.epoch, r.change_sets, r.objects, r.forward_objects, r.blocks_beyond, r.blocks_unknown);
    STAT(recoveries);
    STAT_ADD(forward_objects, r.forward_objects);
    return LIFE_STOPPED;
}

/* ---- configuration ---- */

void sim_configure(struct config *cfg, const char *more)
{
    char why[512];
    const char *pairs[] = {
        "node.data_dir=sim/data",
        "wal.path=sim/wal",
        "store.url=sim://store",
        "meta.url=sim://meta",
        "admin.listen=",
        "net.listen=127.0.0.1:9092",
        "log.retention.hours=-1",
        "core.pin=false",
        more,
        "group.initial.rebalance.delay.ms=0",
    };
    config_init(cfg);
    for (u32 i = 0; i < ARRAY_COUNT(pairs); i++)
        if (config_set_pair(cfg, pairs[i], CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE)
            sim_fail("simulator: %s", why);
    if (config_validate(cfg, why, sizeof why) != ERR_NONE)
        sim_fail("simulator: %s", why);
    sim.cfg = cfg;
}
