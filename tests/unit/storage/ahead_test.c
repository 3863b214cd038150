/* Read-ahead by need, blocks that other readers are on their way to, and what catching up may not
 * take from tailing: memory, loads, turns. */
#include "engine_rig.h"

#define BATCHES 300u /* of 20 kB; three to a block */

static int remote_setup(void **state)
{
    int failed = engine_setup(state);
    eng->remote = true;
    return failed;
}

static u64 count_of(enum metric_id id)
{
    return metric_get(eng->shard.metrics, id);
}

static void some_turns(u32 n)
{
    for (u32 i = 0; i < n; i++) {
        usleep(200);
        engine_turn();
    }
}

/* Partition 0 has BATCHES in blocks that are no longer in memory. Everyone catches up. */
static void fill(const char *cache, const char *catchup)
{
    engine_set("store.cache_bytes", cache);
    engine_set("store.catchup_bytes", catchup);
    engine_set("store.tail_bytes", "0");
    engine_start();
    for (u32 i = 0; i < BATCHES; i++)
        engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
}

/* A block further; true when it had to wait. */
static bool scan_step(i64 *at, u32 turns)
{
    struct engine_read r;
    engine_read_begin(&r, 0, *at, BATCHES, 61000, true);
    bool waited = !r.done;
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_NONE);
    u32 n = engine_compare(&r.op, &eng->parts[0], (u32)*at);
    assert_true(n > 0);
    *at += n;
    engine_read_end(&r);
    some_turns(turns);
    return waited;
}

static void window_grows_only_while_the_reader_waits(void **state)
{
    (void)state;
    fill("8m", "6m");
    i64 at = 0;
    for (u32 i = 0; i < 20; i++) { /* slow: what is ahead is there in time */
        (void)scan_step(&at, 10);
        ENGINE_UNTIL(cache_idle(eng->st));
    }
    u64 slow = count_of(M_readahead_bytes);
    assert_true(slow > 0 && slow <= 2 * 64 * KIB);
    fault.delay_get_us = 3000; /* the store is slow now, and the reader fast */
    u32 waits = 0;
    for (u32 i = 0; i < 40; i++)
        waits += scan_step(&at, 1);
    assert_true(count_of(M_readahead_bytes) > 2 * slow);
    assert_true(waits < 30);
    assert_true(count_of(M_readahead_used) + count_of(M_readahead_late) > 50);
    assert_int_equal(count_of(M_readahead_wasted), 0);
}

static void readahead_can_be_turned_off_and_is_bounded(void **state)
{
    (void)state;
    engine_set("store.readahead_bytes", "0");
    fill("8m", "6m");
    i64 at = 0;
    while (at < 100)
        (void)scan_step(&at, 0);
    assert_int_equal(count_of(M_readahead_issued), 0);
    engine_stop();
    engine_set("store.readahead_bytes", "1g");
    engine_set("store.cache_bytes", "2m");
    engine_set("store.catchup_bytes", "1m");
    engine_start();
    fault.delay_get_us = 1000;
    for (at = 0; at < 200;) {
        (void)scan_step(&at, 0);
        assert_true(count_of(M_readahead_bytes) <= 512 * KIB);
        assert_true(count_of(M_cache_bytes) <= 2 * MIB);
    }
    assert_true(count_of(M_readahead_issued) > 0);
}

static void random_reads_are_not_read_ahead(void **state)
{
    (void)state;
    fill("8m", "6m");
    for (u32 i = 0; i < 50; i++) {
        i64 at = 1 + (i64)engine_rand(BATCHES - 10);
        (void)scan_step(&at, 0);
    }
    /* By chance one begins where another ended. */
    assert_true(count_of(M_readahead_issued) <= 8);
}

static void guesses_of_a_reader_that_left_make_room(void **state)
{
    (void)state;
    fill("2m", "512k");
    fault.delay_get_us = 500;
    i64 at = 0;
    while (at < 60)
        (void)scan_step(&at, 0);
    ENGINE_UNTIL(cache_idle(eng->st));
    u64 left = count_of(M_readahead_bytes);
    assert_true(left > 0);
    for (at = 200; at < 206;) /* cached now */
        (void)scan_step(&at, 0);
    ENGINE_UNTIL(cache_idle(eng->st));
    /* The first never comes back; the clock goes on. */
    u64 wasted = count_of(M_readahead_wasted);
    eng->shard.now_ns += 60 * NS_PER_S; /* until the next turn */
    for (at = 200; at < 206; at += 3) {
        struct engine_read r;
        engine_read_begin(&r, 0, at, BATCHES, 61000, true);
        assert_true(r.done);
        engine_read_end(&r);
    }
    assert_true(count_of(M_readahead_wasted) > wasted);
    assert_true(count_of(M_readahead_bytes) < left);
}

static void blocks_are_kept_for_the_reader_behind(void **state)
{
    (void)state;
    engine_set("store.readahead_bytes", "64k");
    fill("3m", "2m");
    i64 first = 0, second = 0;
    for (u32 i = 0; i < 10; i++) /* 600 kB before the other */
        (void)scan_step(&first, 2);
    while (first < (i64)BATCHES) {
        (void)scan_step(&second, 1);
        (void)scan_step(&first, 1);
    }
    while (second < (i64)BATCHES)
        (void)scan_step(&second, 1);
    /* 100 blocks, read by both: hardly one is loaded twice, though a third of them fits. */
    assert_true(FAULT_SEEN(gets) <= 104);
}

static void scans_evict_nothing_of_the_tail(void **state)
{
    (void)state;
    engine_set("store.cache_bytes", "3m");
    engine_set("store.catchup_bytes", "1m");
    engine_set("store.tail_bytes", "600k");
    engine_start();
    for (u32 i = 0; i < BATCHES; i++)
        engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
    for (i64 at = BATCHES - 27; at < BATCHES;)
        (void)scan_step(&at, 2);
    u32 gets = FAULT_SEEN(gets);
    u64 tail = count_of(M_cache_bytes) - count_of(M_cache_catchup_bytes);
    assert_true(tail >= 500 * KIB);
    for (u32 round = 0; round < 2; round++)
        for (i64 at = 0; at < (i64)BATCHES - 40;)
            (void)scan_step(&at, 0);
    assert_true(FAULT_SEEN(gets) > gets + 80);
    gets = FAULT_SEEN(gets);
    for (i64 at = BATCHES - 27; at < BATCHES;)
        assert_false(scan_step(&at, 0)); /* still there */
    assert_int_equal(FAULT_SEEN(gets), gets);
    assert_true(count_of(M_cache_bytes) <= 3 * MIB);
}

/* The tail's reads have threads of their own: one that catches up and hangs does not hold them. */
static void tail_loads_while_catch_up_hangs(void **state)
{
    (void)state;
    engine_set("store.catchup_reads", "2");
    engine_set("store.tail_bytes", "600k");
    engine_start();
    for (u32 i = 0; i < BATCHES; i++)
        engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
    __atomic_store_n(&fault.hold_catchup, 1, __ATOMIC_RELEASE);
    struct engine_read r[6];
    for (u32 i = 0; i < 6; i++)
        engine_read_begin(&r[i], 0, i * 30, BATCHES, 61000, true);
    i64 at = BATCHES - 6;
    (void)scan_step(&at, 0);
    for (u32 i = 0; i < 6; i++)
        assert_false(r[i].done);
    __atomic_store_n(&fault.hold_catchup, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 6; i++) {
        ENGINE_UNTIL(r[i].done);
        engine_read_end(&r[i]);
    }
}

static void a_turn_gives_catch_up_a_bounded_share(void **state)
{
    (void)state;
    fill("12m", "9m");
    for (i64 at = 0; at < (i64)BATCHES;)
        (void)scan_step(&at, 0);
    ENGINE_UNTIL(cache_idle(eng->st));
    /* All of it is in memory, but for what exceeds a turn's share one has to wait. */
    struct engine_read r[BATCHES / 3];
    u32 at_once = 0;
    engine_turn();
    for (u32 i = 0; i < BATCHES / 3; i++) {
        engine_read_begin(&r[i], 0, i * 3, BATCHES, 61000, true);
        at_once += r[i].done ? r[i].op.bytes : 0;
    }
    assert_true(at_once >= TURN_BULK_BYTES && at_once < TURN_BULK_BYTES + 64 * KIB);
    storage_read_cancel(&r[BATCHES / 3 - 1].op);
    engine_turn();
    assert_true(r[BATCHES / 3 - 1].done); /* does not stand in the line */
    assert_int_equal(r[BATCHES / 3 - 1].op.err, ERR_CANCELED);
    for (u32 i = 0; i < BATCHES / 3; i++) {
        ENGINE_UNTIL(r[i].done);
        engine_read_end(&r[i]);
    }
    assert_true(count_of(M_catchup_deferred) > 0);
}

static void what_was_left_is_there_next_time(void **state)
{
    (void)state;
    engine_set("store.catchup_reads", "2");
    fill("8m", "6m");
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[90];
    for (u32 i = 0; i < 90; i++)
        engine_read_begin(&r[i], 0, i * 3, BATCHES, 61000, true);
    for (u32 i = 0; i < 90; i++) {
        assert_false(r[i].done);
        storage_read_leave(&r[i].op);
        storage_read_leave(&r[i].op);
        assert_false(r[i].done); /* never inside the call */
    }
    for (u32 i = 0; i < 90; i++) {
        ENGINE_UNTIL(r[i].done); /* though the store does not answer */
        assert_int_equal(r[i].op.err, ERR_CANCELED);
        assert_int_equal(r[i].op.extent_count, 0);
    }
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(cache_idle(eng->st));
    assert_int_equal(FAULT_SEEN(gets), 66); /* two were loading, 64 in the queue; no more */
    engine_turn();
    for (u32 i = 0; i < 8; i++) { /* within a turn's share */
        engine_read_begin(&r[i], 0, i * 3, BATCHES, 61000, true);
        assert_true(r[i].done);
        assert_int_equal(r[i].op.err, ERR_NONE);
        engine_read_end(&r[i]);
    }
}

static void a_read_of_what_is_at_hand_never_waits(void **state)
{
    (void)state;
    fill("8m", "6m");
    struct engine_read r = { .op = { .p = eng->parts[0].p,
                                     .end_offset = BATCHES,
                                     .max_bytes = 61000,
                                     .at_least_one = true,
                                     .at_hand = true } };
    assert_int_equal(storage_read(&r.op, engine_read_done), READ_DONE);
    assert_int_equal(r.op.err, ERR_NONE);
    assert_int_equal(r.op.extent_count, 0);
    i64 at = 0;
    (void)scan_step(&at, 0);
    assert_int_equal(storage_read(&r.op, engine_read_done), READ_DONE);
    assert_int_equal(engine_compare(&r.op, &eng->parts[0], 0), 3);
    engine_read_end(&r);
}

static void a_disk_that_the_log_may_share_is_asked_for_two_at_a_time(void **state)
{
    (void)state;
    eng->remote = false;
    fill("8m", "6m");
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[10];
    for (u32 i = 0; i < 10; i++)
        engine_read_begin(&r[i], 0, i * 3, BATCHES, 61000, true);
    some_turns(50);
    assert_int_equal(FAULT_SEEN(gets), 2);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 10; i++) {
        ENGINE_UNTIL(r[i].done);
        engine_read_end(&r[i]);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, remote_setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(window_grows_only_while_the_reader_waits),
        T(readahead_can_be_turned_off_and_is_bounded),
        T(random_reads_are_not_read_ahead),
        T(guesses_of_a_reader_that_left_make_room),
        T(blocks_are_kept_for_the_reader_behind),
        T(scans_evict_nothing_of_the_tail),
        T(tail_loads_while_catch_up_hangs),
        T(a_turn_gives_catch_up_a_bounded_share),
        T(what_was_left_is_there_next_time),
        T(a_read_of_what_is_at_hand_never_waits),
        T(a_disk_that_the_log_may_share_is_asked_for_two_at_a_time),
    };
    return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
