/* The course of a seed: what the node is, what goes wrong, how often it dies, and the quiet end in
 * which every promise must be kept. */
#include <stdio.h>
#include <string.h>

#include "../../storage/storage_int.h"
#include "hash.h"
#include "load.h"
#include "sim_run.h"

#define QUIET_NS (180 * NS_PER_S)
#define LOOK_EVERY_NS (50 * NS_PER_MS) /* at the whole store */

static u64 life_deadline;
static enum { PHASE_FAULTS, PHASE_DRAIN, PHASE_VERIFY, PHASE_AGAIN } phase;
static u64 phase_deadline;

/* ---- the node ---- */

static void set(enum config_key k, i64 v)
{
    sim.cfg->values[k] = v; /* smaller than an operator may choose: more happens in less time */
}

static void node_configure(void)
{
    static struct config cfg;
    sim_configure(&cfg, "offsets.topic.num.partitions=3");
    i64 segment = (i64)(64 * KIB) << rnd(2);
    set(CFG_wal_segment_bytes, segment);
    set(CFG_wal_size, segment * (i64)rnd_between(4, 8) * sim.shards);
    set(CFG_memory_budget, segment * (i64)rnd_between(4, 8) * sim.shards);
    set(CFG_memory_keep_ms, (i64)(sim.seed % 4) * 1000 - 1); /* no draw: seeds keep their course */
    set(CFG_wal_seal_age_ms, (i64)rnd_log(10, 3000));
    set(CFG_wal_inflight_writes, (i64)rnd_between(1, 6));
    set(CFG_wal_max_write_bytes, (i64)(4 * KIB) << rnd(5));
    set(CFG_message_max_bytes, segment - 4096);
    set(CFG_store_cache_bytes, one_in(3) ? 0 : (i64)rnd_log(4 * KIB, MIB));
    set(CFG_store_block_bytes, (i64)(4 * KIB) << rnd(5));
    set(CFG_store_uploads, (i64)rnd_between(1, 3));
    set(CFG_store_reads, (i64)rnd_between(1, 4));
    set(CFG_store_catchup_bytes, one_in(3) ? 0 : (i64)rnd_log(4 * KIB, MIB));
    set(CFG_store_catchup_reads, (i64)rnd_between(1, 4));
    set(CFG_store_readahead_bytes, one_in(3) ? 0 : (i64)rnd_log(4 * KIB, MIB));
    set(CFG_store_tail_bytes, one_in(2) ? 0 : (i64)rnd_log(4 * KIB, MIB));
    set(CFG_store_retry_ms, (i64)rnd_log(1, 500));
    set(CFG_store_delete_delay_ms, (i64)rnd_log(1, 20000));
    set(CFG_store_scrub_interval_ms, (i64)rnd_log(10, 20000));
    set(CFG_bg_threads, (i64)rnd_between(1, 4));
    set(CFG_net_recv_buffers, (i64)16 << rnd(3));
    set(CFG_net_recv_buffer_bytes, (i64)1024 << rnd(5));
    set(CFG_net_inflight_per_connection, (i64)rnd_between(1, 16));
    set(CFG_net_request_memory, (i64)MIB * (i64)rnd_between(1, 4) * sim.shards);
    set(CFG_net_response_memory, (i64)MIB * (i64)rnd_between(1, 4) * sim.shards);
    set(CFG_log_retention_check_interval_ms, (i64)rnd_log(100, 10000));
    set(CFG_fetch_sessions, (i64)rnd_between(0, 4));
    set(CFG_log_cleaner_backoff_ms, (i64)rnd_log(1, 3000));
    set(CFG_log_cleaner_dedupe_bytes, one_in(3) ? (i64)rnd_log(1, 4096) : (i64)MIB);
    set(CFG_log_cleaner_io_max_bytes, one_in(3) ? (i64)rnd_log(100000, 10000000) : (i64)GIB);
    set(CFG_store_snapshot_interval_ms, (i64)rnd_log(10, 5000));
    set(CFG_store_heartbeat_ms, (i64)rnd_log(10, 20000));
    set(CFG_store_run_bytes, (i64)rnd_log(2000, 500000));
    /* From the seed itself: seeds that failed once keep their course. */
    if (sim.seed % 4 == 1)
        set(CFG_index_memory, (i64)(512 << sim.seed / 4 % 6) * sim.shards);
    set(CFG_store_merge_rate, one_in(4) ? (i64)rnd_log(100000, 10000000) : (i64)GIB);
    set(CFG_store_merge_delay_ms, one_in(2) ? 0 : (i64)rnd_log(1, 5000));
    set(CFG_store_merge_age_ms, (i64)rnd_log(1, 20000));
}

/* Ages for lives of minutes: each mechanism at work several times in ten of them, and nothing that
 * looks for work much more often than it comes. */
static void node_ages(void)
{
    set(CFG_memory_keep_ms, one_in(4) ? -1 : (i64)rnd_log(1000, 60000));
    set(CFG_wal_seal_age_ms, (i64)rnd_log(500, 20000));
    set(CFG_store_retry_ms, (i64)rnd_log(50, 500));
    set(CFG_store_delete_delay_ms, (i64)rnd_log(500, 30000));
    set(CFG_store_scrub_interval_ms, (i64)rnd_log(5000, 60000));
    set(CFG_log_retention_check_interval_ms, (i64)rnd_log(2000, 30000));
    set(CFG_log_cleaner_backoff_ms, (i64)rnd_log(500, 15000));
    set(CFG_store_snapshot_interval_ms, (i64)rnd_log(500, 30000));
    set(CFG_store_heartbeat_ms, (i64)rnd_log(2000, 60000));
    set(CFG_store_merge_delay_ms, one_in(2) ? 0 : (i64)rnd_log(100, 20000));
    set(CFG_store_merge_age_ms, (i64)rnd_log(500, 60000));
}

/* ---- durability ---- */

/* By a hash of the seed, so that courses without it stay what they were. */
static enum {
    DURABILITY_IS_LOCAL,
    DURABILITY_IS_MIXED,  /* one topic's is object */
    DURABILITY_IS_OBJECT, /* all topics'; the WAL is on a disk that may be lost */
    DURABILITY_IN_MEMORY, /* the same, and the WAL is in memory, or was in the life before */
} durability;

static void wal_path_set(const char *path)
{
    sim.cfg->strings[CFG_wal_path] = mem_strndup(bytes_str(path));
}

static void durability_choose(u64 seed)
{
    u64 h = hash_bytes(&seed, sizeof seed);
    durability = h % 10 < 5 ? DURABILITY_IS_LOCAL : (int)(1 + h % 10 % 3);
    set(CFG_object_linger_ms, 1 << (h >> 8) % 9);
    set(CFG_object_batch_bytes, (i64)(4 * KIB) << (h >> 16) % 5);
    set(CFG_store_merge_wait_ms, (i64)1 << (h >> 24) % 16);
    topics[0].in_store = durability == DURABILITY_IS_MIXED;
    if (durability < DURABILITY_IS_OBJECT)
        return;
    set(CFG_leat_durability, DURABILITY_OBJECT);
    if (durability == DURABILITY_IN_MEMORY)
        wal_path_set("none");
}

/* The disk is replaced. Nothing that was acknowledged may have been on it only. */
static void disk_lost(void)
{
    if (durability < DURABILITY_IS_OBJECT)
        return;
    if (durability == DURABILITY_IN_MEMORY && one_in(4))
        wal_path_set(one_in(2) ? "none" : "sim/wal");
    if (!one_in(2))
        return;
    TRACE("the disk is lost");
    STAT(wals_lost);
    disk_forget();
}

/* ---- the disk cache ---- */

/* By another hash of the seed, for the same reason. */
static void disk_cache_choose(u64 seed)
{
    u64 h = hash_bytes_seeded(&seed, sizeof seed, 1);
    if (h % 3 != 0)
        return;
    set(CFG_store_disk_cache_bytes, (i64)(32 * KIB << (h >> 8) % 6) * sim.shards);
    /* Little memory, so that it has to be looked into. */
    set(CFG_store_cache_bytes, (i64)(8 * KIB << (h >> 16) % 5));
    sim.faults.disk_lies = (h >> 24) % 2 ? 20u << (h >> 32) % 8 : 0;
}

/* ---- faults and load ---- */

static u32 some(u32 max)
{
    return one_in(3) ? 1 + (u32)rnd(max) : 0;
}

static void faults_choose(void)
{
    struct sim_faults *f = &sim.faults;
    *f = (struct sim_faults){
        .disk_slow = some(300),
        .disk_eio = one_in(4) ? some(20) : 0,
        .disk_full = one_in(4) ? some(20) : 0,
        .net_reset = some(50),
        .net_slow = some(100),
        .store_fail = some(2000),
        .store_slow = some(1000),
        .store_flip = some(500),
        .store_outage = some(200),
        .store_full = some(1000),
        .meta_fail = some(1000),
        .meta_slow = some(300),
        .shard_pause = some(20),
        .clock_jump = some(10),
        .power = 5000,
        .rot = one_in(4) ? 5000 : 0,
    };
}

static void load_choose(void)
{
    load_plan = (struct load_plan){
        .producers = (u32)rnd_between(1, 3),
        .consumers = (u32)rnd_between(1, 2),
        .batches = (u32)rnd_between(10, 120),
        .value_bytes_max = (u32)rnd_log(200, 30000),
        .think_ns = rnd_log(100 * NS_PER_US, 100 * NS_PER_MS),
        .compress = one_in(2),
        .deletes = one_in(3),
        .commits = one_in(2),
        .plain = one_in(3),
        .churn = one_in(3),
        .group = one_in(4),
        .compact = one_in(2),
        .clone = one_in(2),
    };
    topic_count = (u32)rnd_between(1, 2);
    for (u32 i = 0; i < topic_count; i++) {
        struct mtopic *t = &topics[i];
        u64 expires_in = sim.long_lived ? 1 : 3;
        snprintf(t->name, sizeof t->name, "topic-%u", i);
        t->partitions = (i32)rnd_between(1, 4);
        t->log_append_time = one_in(4);
        t->retention_bytes = i == 1 && one_in(expires_in) ? (i64)rnd_log(100, 100000) : 0;
        for (i32 k = 0; k < t->partitions; k++)
            parts[part_count++] = (struct mpart){
                .topic = t, .index = k, .delete_asked = t->retention_bytes ? INT64_MAX : 0
            };
    }
}

/* ---- when a life ends ---- */

static void faults_end(void);

/* Nothing of the log is left to upload, and its space is free. */
static bool wal_is_trimmed(void)
{
    for (u32 i = 0; i < sim.shards; i++) {
        const struct storage *st = sim.node->brokers[i]->storage;
        const struct wal *w = &st->wal;
        if (st->sealed_unregistered > 0 || (w->open && w->open->data_bytes > 0) ||
            w->trimmed_seq != w->registered_seq)
            return false;
    }
    return true;
}

/* Nothing that is due for compaction is left, of what the keeper wrote. */
static bool compaction_is_done(void)
{
    for (u32 i = 0; i < sim.shards; i++) {
        struct broker *b = sim.node->brokers[i];
        struct topic_entry *t = catalog_by_name(b, bytes_str("compacted"));
        if (b->storage->cleaning)
            return false;
        for (i32 k = 0; t && k < t->topic->partition_count; k++) {
            struct clean_walk w = { .end_offset = INT64_MAX, .newest_ms = INT64_MAX };
            u32 all = UINT32_MAX;
            if (!t->partitions[k])
                continue;
            CHECK(pindex_clean_walk(t->partitions[k]->pindex, &w, &all));
            if (w.bounds.cleanable_bytes * 90 > w.bounds.clean_bytes + w.bounds.cleanable_bytes)
                return false;
        }
    }
    return true;
}

/* At the very end nothing is in the store but what is registered. Not in the life before: objects
 * that were given up in it are found by the next. */
static bool collected(void)
{
    static u64 looked_ns;
    char why[200];
    if (phase != PHASE_AGAIN)
        return true;
    if (sim.now_ns < looked_ns + LOOK_EVERY_NS && sim.now_ns < phase_deadline)
        return false;
    looked_ns = sim.now_ns;
    bool clean = store_is_clean(why, sizeof why);
    if (!clean && sim.now_ns >= phase_deadline)
        sim_fail("liveness: the store holds what nobody refers to after %" PRIu64
                 " s without faults: "
                 "%s",
                 QUIET_NS / NS_PER_S, why);
    return clean;
}

static bool deadline_passed(const char *what)
{
    if (sim.now_ns < phase_deadline)
        return false;
    char text[2048], wal[512];
    load_describe(text, sizeof text);
    storage_status(sim.node->brokers[0]->storage, wal, sizeof wal);
    sim_fail("liveness: %s after %" PRIu64 " s without faults: %s; shard 0: %s", what,
             QUIET_NS / NS_PER_S, text, wal);
}

static bool tail_frozen;
static void tail_freeze(void);

/* There is never another node: who thinks so stops working for nothing. */
static void place_check(void)
{
    const struct metrics *m = sim.node->brokers[0]->shard.metrics;
    if (metric_get(m, M_backup_error) == (u64)-ERR_CONFLICT)
        sim_fail("backup: the node believes that another took its place in the store");
}

static bool wants_stop(void)
{
    place_check();
    tail_freeze();
    switch (phase) {
    case PHASE_FAULTS:
        store_jobs_sometimes();
        return sim.now_ns >= life_deadline;
    case PHASE_DRAIN:
        if (sim.now_ns >= life_deadline && !load_quiet) {
            load_quiet = true;
            faults_end();
        }
        if (load_quiet && producers_idle() && admin_idle() && group_stable() && compact_idle() &&
            cloner_idle()) {
            phase = PHASE_VERIFY;
            verify_begin();
            compact_verify_begin();
            cloner_verify_begin();
            return false;
        }
        (void)deadline_passed("clients still wait");
        return false;
    case PHASE_VERIFY:
    case PHASE_AGAIN:
        if (verify_done() && wal_is_trimmed() && compaction_is_done() && compact_verified() &&
            cloner_verified() && collected() && (phase == PHASE_VERIFY || store_is_verified())) {
            if (tail_frozen && phase == PHASE_VERIFY)
                sim_kill("the machine is lost");
            return true;
        }
        (void)deadline_passed(!verify_done()          ? "the verifier still reads"
                              : !wal_is_trimmed()     ? "the WAL is not uploaded"
                              : !compaction_is_done() ? "the log is not compacted"
                              : !compact_verified()   ? "the scanner still reads"
                              : !cloner_verified()    ? "the clone is still read"
                                                      : "the store is not verified");
        return false;
    }
    return false;
}

static void time_passes(u64 ns)
{
    u64 until = sim.now_ns + ns;
    for (;;) {
        u64 next = sim_next_event();
        if (next > until)
            break;
        sim.now_ns = MAX(sim.now_ns, next);
        sim_run_events();
    }
    sim.now_ns = until;
}

/* ---- lives ---- */

/* Mostly at a step; else at any effect, or when the time is over, or not at all. */
static void long_kill_plan(void)
{
    sim.kill_at = 0;
    sim.kill_step = STEP_none;
    life_deadline = sim.now_ns + rnd_log(5 * NS_PER_S, 240 * NS_PER_S);
    if (one_in(8))
        return;
    if (one_in(4)) {
        sim.kill_at = one_in(4) ? 1 + rnd(60) : rnd_log(20, 20000);
        return;
    }
    sim.kill_step = (enum sim_step)rnd_between(1, STEP_recover - 1);
    sim.kill_side = (enum sim_side)rnd(STEP_SIDES);
    sim.kill_count = rnd_log(1, 15);
}

static void kill_plan(void)
{
    sim.kill_allowed = true;
    if (sim.long_lived) {
        long_kill_plan();
        return;
    }
    sim.kill_at = one_in(5) ? 0 : one_in(4) ? 1 + rnd(60) : rnd_log(20, 4000);
    life_deadline = sim.now_ns + rnd_log(50 * NS_PER_MS, 20 * NS_PER_S);
}

static void node_died(void)
{
    bool power = fault(sim.faults.power);
    STAT(kills);
    STAT_ADD(power_cuts, power);
    TRACE("the %s", power ? "power fails" : "process is killed");
    disk_crash(power);
    disk_lost();
}

/* Storage must notice, or not be hurt. */
static void rot_life(void)
{
    char why[1200];
    if (!fault(sim.faults.rot) || !disk_rot())
        return;
    kill_plan();
    enum life_end end = life_run(wants_stop, why, sizeof why);
    TRACE("after rot: %s", end == LIFE_REFUSED ? why : "it started");
    if (end == LIFE_KILLED)
        node_died();
    else if (end == LIFE_REFUSED)
        disk_crash(false); /* another shard may have begun to write */
    STAT_ADD(rots_refused, end == LIFE_REFUSED);
    disk_rot_undo(); /* the operator puts an intact copy back */
}

static void shards_change(void)
{
    if (!one_in(4))
        return;
    u32 was = sim.shards;
    STAT(shard_changes);
    sim.shards = (u32)rnd_between(1, 3);
    set(CFG_wal_size, config_i64(sim.cfg, CFG_wal_size) / was * sim.shards);
    set(CFG_memory_budget, config_i64(sim.cfg, CFG_memory_budget) / was * sim.shards);
}

/* ---- the data directory is lost ---- */

/* A life without faults that stops cleanly: then all that was acknowledged is in the store. */
static bool calm_life(void)
{
    char why[1200];
    struct sim_faults faults = sim.faults;
    weather_hold(true);
    memset(&sim.faults, 0, sizeof sim.faults);
    store_outage_end();
    sim.kill_allowed = false;
    life_deadline = sim.now_ns + rnd_log(50 * NS_PER_MS, 5 * NS_PER_S);
    enum life_end end = life_run(wants_stop, why, sizeof why);
    weather_hold(false);
    sim.faults = faults;
    if (end == LIFE_REFUSED)
        sim_fail("start: without faults the node refuses to start: %s", why);
    return end == LIFE_STOPPED;
}

static void recover_store_faults(void)
{
    struct sim_faults *f = &sim.faults;
    *f = (struct sim_faults){ .store_fail = some(300),
                              .store_flip = some(500),
                              .meta_fail = some(100) };
}

/* The machine burns down; another one takes over, at the third or fourth try for certain. */
static void data_lost(bool metadata_too)
{
    char why[1200];
    struct sim_faults faults = sim.faults;
    weather_hold(true);
    disk_forget();
    if (metadata_too)
        meta_forget();
    TRACE("the disk is lost%s", metadata_too ? ", with the metadata" : "");
    enum life_end end = LIFE_KILLED;
    for (u32 i = 0; end != LIFE_STOPPED; i++) {
        bool calm = i >= 3;
        memset(&sim.faults, 0, sizeof sim.faults);
        store_outage_end();
        if (!calm)
            recover_store_faults();
        sim.kill_allowed = !calm;
        sim.kill_at = rnd_log(1, 200);
        if (sim.long_lived && one_in(2)) {
            sim.kill_at = 0;
            sim.kill_step = STEP_recover;
            sim.kill_side = (enum sim_side)rnd(STEP_SIDES);
            sim.kill_count = rnd_log(1, 15);
        }
        u32 hit = sim.faults_hit;
        end = recover_run(time_passes, false, why, sizeof why);
        if (end == LIFE_REFUSED && sim.faults_hit == hit)
            sim_fail("recovery from the store refuses: %s", why);
        TRACE("recovery %s", end == LIFE_STOPPED ? "is through" : *why ? why : "was killed");
    }
    weather_hold(false);
    sim.faults = faults;
}

/* Once all is quiet, nothing more is sent but objects: the last ones are in no backup. */
static bool tail_wanted;

static void tail_freeze(void)
{
    struct backup *b = sim.node->env.backup;
    bool topics_made =
        !load_plan.compact || catalog_by_name(sim.node->brokers[0], bytes_str("compacted"));
    if (!topics_made || !tail_wanted || tail_frozen || !load_quiet || !producers_idle() ||
        !admin_idle() || !group_stable() || !compact_idle() || !cloner_idle() ||
        !backup_holds(b, backup_mark(b)))
        return;
    TRACE("from now on the backup of the metadata stands still");
    tail_frozen = true;
    set(CFG_store_snapshot_interval_ms, 3600000);
    set(CFG_store_heartbeat_ms, 30000);
}

static void faulty_life(void)
{
    char why[1200];
    kill_plan();
    u32 hit = sim.faults_hit;
    enum life_end end = life_run(wants_stop, why, sizeof why);
    if (end == LIFE_REFUSED && (sim.faults_hit == hit || strstr(why, "taken over by another node")))
        sim_fail("start: the node refuses to start: %s", why);
    STAT_ADD(refused_starts, end == LIFE_REFUSED);
    STAT_ADD(clean_stops, end == LIFE_STOPPED);
    if (end == LIFE_REFUSED)
        TRACE("start refused: %s", why);
    if (end != LIFE_STOPPED)
        node_died();
    time_passes(rnd_log(NS_PER_MS, 2 * NS_PER_S));
    if (end != LIFE_STOPPED)
        rot_life();
    shards_change();
    if (one_in(8) && calm_life())
        data_lost(!one_in(4));
}

/* A seed of sim-long: the same lives for ten minutes and longer, under changing weather. */
static void long_lives(void)
{
    u64 until = sim.now_ns + SIM_LONG_NS + rnd(30 * NS_PER_S);
    node_ages();
    tide_begin();
    weather_begin();
    while (sim.now_ns < until)
        faulty_life();
    weather_end();
}

static void faults_end(void)
{
    TRACE("faults end");
    sim.faults = (struct sim_faults){ .disk_lies = sim.faults.disk_lies };
    set(CFG_index_memory, (i64)GIB); /* the operator raised it */
    store_outage_end();
    phase_deadline = sim.now_ns + QUIET_NS;
}

/* `heals`: faults go on for a while, and end while the node runs. Without those of the disk, after
 * which only a start helps. */
static enum life_end quiet_life(int begin, bool heals)
{
    char why[1200];
    phase = (int)begin;
    sim.faults.disk_eio = sim.faults.disk_full = 0;
    sim.kill_allowed = false;
    sim.kill_step = STEP_none;
    life_deadline = sim.now_ns + rnd_log(50 * NS_PER_MS, 2 * NS_PER_S);
    if (!heals)
        faults_end();
    else
        phase_deadline = life_deadline + QUIET_NS;
    if (phase == PHASE_AGAIN) {
        verify_begin();
        compact_verify_begin();
        cloner_verify_begin();
    }
    enum life_end end = life_run(wants_stop, why, sizeof why);
    if (end == LIFE_REFUSED && !heals)
        sim_fail("start: without faults the node refuses to start: %s", why);
    if (end == LIFE_REFUSED)
        disk_crash(false);
    return end;
}

void seed_run(u64 seed)
{
    sim.seed = seed;
    rng_init(&sim.rng, seed);
    sim.wall_base_ms = 1700000000000;
    sim.shards = (u32)rnd_between(1, 3);
    store_install();
    meta_install();
    node_configure();
    faults_choose();
    load_choose();
    durability_choose(seed);
    disk_cache_choose(seed);
    load_start();
    phase = PHASE_FAULTS;
    if (sim.long_lived)
        long_lives();
    else
        for (u64 i = rnd_between(0, 5); i > 0; i--)
            faulty_life();
    /* What is deleted while the backup stands still would come back. */
    tail_wanted =
        one_in(2) && !load_plan.deletes && !load_plan.churn && topics[1].retention_bytes == 0;
    if (quiet_life(PHASE_DRAIN, one_in(2)) == LIFE_REFUSED)
        (void)quiet_life(PHASE_DRAIN, false);
    if (tail_frozen || one_in(3))
        data_lost(tail_frozen || !one_in(4));
    tail_wanted = tail_frozen = false;
    set(CFG_store_snapshot_interval_ms, (i64)rnd_log(10, 5000));
    set(CFG_store_heartbeat_ms, (i64)rnd_log(10, 20000));
    (void)quiet_life(PHASE_AGAIN, false);
}
