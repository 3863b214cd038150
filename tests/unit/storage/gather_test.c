/* What sealed segments become: runs of their own where a partition has much, one upload where many
 * segments wait, and nothing is put twice or lost on the way. */
#include "engine_rig.h"

#include "../../../storage/uploader_int.h"

#define RUN_MIN (MIB / 10)
#define LARGE 20000u

static int setup(void **state)
{
    engine_setup(state);
    engine_set("store.run_bytes", "1m");
    engine_set("store.merge_rate", "0");
    return 0;
}

static u64 metric(enum metric_id id)
{
    return metric_get(eng->shard.metrics, id);
}

static u32 stored(const char *prefix)
{
    u32 n = 0;
    assert_int_equal(
        fault_store_below->driver->list(fault_store_below, prefix, engine_count_one, &n), ERR_NONE);
    return n;
}

static bool clean_store(void)
{
    return stored("b/") == engine_keys("b/") && stored("r/") == engine_keys("r/") &&
           engine_keys("d/") == 0;
}

/* A seventh of the bytes are of small partitions. */
static void fill(u32 large_batches)
{
    for (u32 i = 0; i < large_batches; i++) {
        engine_put(0, 1, LARGE);
        engine_put(1 + i % (ENGINE_PARTS - 1), 1, LARGE / 6);
    }
}

static void check(void)
{
    engine_check_all();
    engine_evict_all();
    engine_check_all();
}

static void what_a_partition_has_much_of_is_a_run(void **state)
{
    (void)state;
    engine_start();
    fill(RUN_MIN / LARGE + 2);
    engine_seal_all();
    assert_int_equal(engine_keys("b/"), 1);
    assert_int_equal(engine_keys("r/"), 1);
    assert_int_equal(eng->parts[0].p->blocks[0].bundle >> 63, 1);
    for (u32 i = 1; i < ENGINE_PARTS; i++)
        assert_int_equal(eng->parts[i].p->blocks[0].bundle >> 63, 0);
    check();
    fill(RUN_MIN / LARGE - 2); /* too little of it */
    engine_seal_all();
    assert_int_equal(engine_keys("b/"), 2);
    assert_int_equal(engine_keys("r/"), 1);
    check();
    engine_stop();
    engine_start();
    check();
}

static void what_is_of_one_partition_makes_no_bundle(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 200; i++)
        engine_put(3, 1, LARGE);
    engine_seal_all();
    assert_int_equal(engine_keys("b/") > 1, 0); /* the last segment may be small */
    assert_true(engine_keys("r/") >= 3);
    assert_in_range(metric(M_upload_run_data_bytes) * 100 / metric(M_upload_data_bytes), 90, 100);
    assert_in_range(metric(M_store_amplification), 100, 120);
    check();
    /* It is put once: merging leaves it alone. */
    eng->cfg.values[CFG_store_merge_delay_ms] = eng->cfg.values[CFG_store_merge_age_ms] = 0;
    eng->cfg.values[CFG_store_merge_rate] = GIB;
    u32 runs = engine_keys("r/"), bundles = engine_keys("b/");
    engine_stop();
    engine_start();
    ENGINE_UNTIL(engine_keys("b/") == 0);
    assert_int_equal(engine_keys("r/"), runs + bundles);
    check();
}

static void bundles_between_runs_are_merged(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 4; i++) {
        fill(i % 2 == 0 ? RUN_MIN / LARGE + 2 : 4);
        engine_seal_all();
    }
    assert_int_equal(engine_keys("r/"), 2);
    eng->cfg.values[CFG_store_merge_delay_ms] = 0;
    eng->cfg.values[CFG_store_merge_rate] = GIB;
    engine_stop();
    engine_start();
    const struct pindex *p = eng->parts[0].p;
    ENGINE_UNTIL(metric(M_merge_runs) == 1); /* what can't grow any more */
    assert_true(object_is_run(p->blocks[p->block_head + 4].bundle));
    assert_false(object_is_run(p->blocks[p->block_end - 1].bundle)); /* this can */
    check();
    eng->cfg.values[CFG_store_merge_age_ms] = 0;
    engine_stop();
    engine_start();
    ENGINE_UNTIL(engine_keys("b/") == 0 && clean_store());
    check();
}

static void segments_that_wait_are_uploaded_together(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    fill(500);
    wal_seal(eng->st);
    u32 sealed = eng->st->sealed_unregistered;
    assert_true(sealed >= 8);
    u32 alone = uploader_slots(eng->st);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    engine_seal_all();
    assert_int_equal(metric(M_upload_segments), sealed);
    assert_true(engine_keys("b/") < sealed - alone);
    assert_true(engine_keys("b/") >= alone + (sealed - alone) / GATHER_SEGMENTS_MAX);
    assert_int_equal(engine_keys("s/"), ENGINE_PARTS);
    assert_int_equal(eng->st->wal.trimmed_seq, eng->st->wal.registered_seq);
    check();
    engine_stop();
    engine_start();
    assert_int_equal(eng->recovered, 0);
    check();
}

/* Where what is awaited fills the link, merging would take it away from that. */
static void on_a_busy_link_half_a_block_is_a_run(void **state)
{
    (void)state;
    eng->remote = true;
    engine_start();
    fill(2 * RUN_MIN / LARGE - 2); /* below a fifth of a run */
    engine_seal_all();
    assert_int_equal(engine_keys("r/"), 0);
    u64 now_ns = clock_mono_ns();
    flow_put(&eng->store.flow, 20 * GIB, true, now_ns - 10 * NS_PER_S, now_ns + 10 * NS_PER_S);
    fill(2 * RUN_MIN / LARGE - 2);
    engine_seal_all();
    assert_int_equal(engine_keys("r/"), 1);
    assert_int_equal(engine_keys("b/"), 2); /* what is less goes together */
    check();
}

/* Segments that could be uploaded at once are not kept waiting for others. */
static void a_free_slot_takes_one_segment(void **state)
{
    (void)state;
    engine_set("store.uploads", "64");
    engine_start();
    fill(200);
    engine_seal_all();
    assert_true(metric(M_upload_segments) >= 4);
    assert_int_equal(engine_keys("b/"), metric(M_upload_segments));
    check();
}

static void what_is_stored_is_not_put_again(void **state)
{
    (void)state;
    engine_start();
    fault.pass_puts = 1;
    fault.fail_puts = 3;
    fill(RUN_MIN / LARGE + 2);
    engine_seal_all();
    assert_int_equal(FAULT_SEEN(fail_puts), 0);
    assert_int_equal(FAULT_SEEN(puts), 2 + 3);
    assert_int_equal(metric(M_store_puts), 2 + 3);
    assert_int_equal(metric(M_store_errors), 3);
    assert_true(clean_store());
    check();
}

/* The bundle is there, the run is not: nothing of both is registered, and the log keeps it all. */
static void half_of_an_upload_is_nothing(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.pass_puts, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    fill(RUN_MIN / LARGE + 2);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(puts) > 3);
    assert_int_equal(stored("b/"), 1);
    assert_int_equal(engine_keys("b/"), 0);
    assert_int_equal(eng->st->wal.registered_seq, 0);
    engine_stop();
    fault.fail_puts = 0;
    engine_start();
    assert_true(eng->recovered > 0);
    engine_seal_all();
    assert_int_equal(engine_keys("r/"), 1);
    ENGINE_UNTIL(clean_store()); /* the orphan goes */
    check();
}

static void runs_never_registered_are_removed_by_the_next_life(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_commits, UINT32_MAX, __ATOMIC_RELEASE);
    fill(RUN_MIN / LARGE + 2);
    wal_seal(eng->st);
    ENGINE_UNTIL(stored("r/") == 1);
    assert_int_equal(engine_keys("r/"), 0);
    engine_stop();
    fault.fail_commits = 0;
    engine_start();
    engine_seal_all();
    ENGINE_UNTIL(clean_store());
    assert_int_equal(engine_keys("r/"), 1);
    check();
}

static void start_moved(struct pindex_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

/* Between the put and the registration: a run no one wants is discarded, one of which some is
 * wanted holds what is left. */
static void what_is_deleted_meanwhile_is_left_out(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    fill(4);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(commits) > 0); /* later uploads wait for it */
    for (u32 i = 0; i < 24; i++)
        engine_put(i % 2, 1, LARGE);
    wal_seal(eng->st);
    ENGINE_UNTIL(stored("r/") == 2);
    pindex_drop(eng->parts[1].p);
    eng->unknown = 1u << 1;
    struct pindex_op op = { 0 };
    pindex_set_start(eng->parts[0].p, eng->parts[0].next - 6, &op, start_moved);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    engine_seal_all();
    ENGINE_UNTIL(clean_store());
    assert_int_equal(engine_keys("r/"), 1);
    check();
    engine_stop();
    engine_start();
    check();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(what_a_partition_has_much_of_is_a_run),
        T(what_is_of_one_partition_makes_no_bundle),
        T(bundles_between_runs_are_merged),
        T(segments_that_wait_are_uploaded_together),
        T(on_a_busy_link_half_a_block_is_a_run),
        T(a_free_slot_takes_one_segment),
        T(what_is_stored_is_not_put_again),
        T(half_of_an_upload_is_nothing),
        T(runs_never_registered_are_removed_by_the_next_life),
        T(what_is_deleted_meanwhile_is_left_out),
    };
    return cmocka_run_group_tests_name("gather", tests, NULL, NULL);
}
