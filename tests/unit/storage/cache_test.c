/* The block cache: one load per block, a bound that holds, read-ahead within it. */
#include "engine_rig.h"

static void many_readers_of_a_block_cause_one_load(void **state)
{
    (void)state;
    engine_start();
    engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[50];
    for (u32 i = 0; i < 50; i++)
        engine_read_begin(&r[i], 0, 0, 1, 100000, true);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 50; i++) {
        ENGINE_UNTIL(r[i].done);
        assert_int_equal(r[i].op.err, ERR_NONE);
        assert_int_equal(r[i].op.extent_count, 1);
        assert_ptr_equal(r[i].op.extents[0].ref, r[0].op.extents[0].ref);
    }
    assert_int_equal(FAULT_SEEN(gets), 1);
    for (u32 i = 0; i < 50; i++)
        engine_read_end(&r[i]);
    engine_read_begin(&r[0], 0, 0, 1, 100000, true);
    assert_true(r[0].done); /* cached */
    engine_read_end(&r[0]);
    assert_int_equal(FAULT_SEEN(gets), 1);
}

static u64 cache_bytes(void)
{
    return metric_get(eng->shard.metrics, M_cache_bytes);
}

static void bound_holds_for_what_readers_let_go(void **state)
{
    (void)state;
    engine_set("store.cache_bytes", "300k");
    engine_start();
    for (u32 i = 0; i < 60; i++)
        engine_put(0, 1, 20000); /* 20 blocks of about 60 KB */
    engine_seal_all();
    engine_evict_all();
    /* Readers that let go at once never take it beyond the bound … */
    for (u32 i = 0; i < 20; i++) {
        struct engine_read r;
        engine_read_begin(&r, 0, i * 3, 60, 1, true);
        ENGINE_UNTIL(r.done);
        assert_int_equal(engine_compare(&r.op, &eng->parts[0], i * 3), 1);
        engine_read_end(&r);
        assert_true(cache_bytes() <= 300 * KIB);
    }
    ENGINE_UNTIL(cache_idle(eng->st));
    /* … and those that hold on to their blocks still get on, one load at a time. */
    struct engine_read r[20];
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 20; i++)
        engine_read_begin(&r[i], 0, i * 3, 60, 1, true);
    assert_true(cache_bytes() <= 300 * KIB);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 20; i++)
        ENGINE_UNTIL(r[i].done);
    for (u32 i = 0; i < 20; i++) {
        assert_int_equal(engine_compare(&r[i].op, &eng->parts[0], i * 3), 1);
        engine_read_end(&r[i]);
    }
    assert_true(cache_bytes() <= 300 * KIB);
}

static void block_larger_than_the_cache_is_served(void **state)
{
    (void)state;
    engine_set("store.cache_bytes", "0");
    engine_start();
    engine_fill(2 * MIB);
    engine_seal_all();
    engine_evict_all();
    engine_check_all();
}

static void scan_is_read_ahead(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 200; i++)
        engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
    u32 waits = 0;
    for (i64 at = 0; at < 200;) {
        struct engine_read r;
        engine_read_begin(&r, 0, at, 200, 60000, true);
        waits += !r.done;
        ENGINE_UNTIL(r.done);
        u32 n = engine_compare(&r.op, &eng->parts[0], (u32)at);
        assert_true(n > 0);
        at += n;
        engine_read_end(&r);
        for (u32 k = 0; k < 5; k++) { /* a client's round trip */
            usleep(300);
            engine_turn();
        }
    }
    assert_true(waits < 15);            /* of about 67 blocks */
    assert_true(FAULT_SEEN(gets) < 80); /* and hardly anything is read twice */
}

static void waiting_loads_go_when_nobody_waits_any_more(void **state)
{
    (void)state;
    engine_set("store.reads", "1");
    engine_set("store.catchup_reads", "1");
    engine_start();
    engine_fill(2 * MIB);
    engine_seal_all();
    engine_evict_all();
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[ENGINE_PARTS];
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        engine_read_begin(&r[i], i, 0, 100000, 1, true);
    for (u32 i = 1; i < ENGINE_PARTS; i++)
        storage_read_cancel(&r[i].op);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        ENGINE_UNTIL(r[i].done);
    ENGINE_UNTIL(cache_idle(eng->st));
    assert_true(FAULT_SEEN(gets) <= 2); /* the wanted one, perhaps one ahead */
    engine_read_end(&r[0]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(many_readers_of_a_block_cause_one_load),      T(bound_holds_for_what_readers_let_go),
        T(block_larger_than_the_cache_is_served),       T(scan_is_read_ahead),
        T(waiting_loads_go_when_nobody_waits_any_more),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
