/* Another number of shards: every WAL becomes bundles before the shards start, and nothing is
 * lost. */
#include "engine_rig.h"

/* As kill -9, but what was given to the disk or the background completes. */
static void crash(void)
{
    struct storage *st = eng->st;
    st->wal.zero_end_seq = 0;
    timer_stop(&eng->shard.timers, &st->wal.mark_timer);
    st->stopping = true;
    st->stop_step = 3; /* STOP_DONE */
    ENGINE_UNTIL(storage_stopped(st));
    engine_down();
}

static err prepare(u32 shards)
{
    engine_open_below();
    eng->shard_count = shards;
    struct storage_env env = { .cfg = &eng->cfg,
                               .meta = &eng->meta,
                               .store = &eng->store,
                               .ops = &engine_ops,
                               .replay_ops = &engine_ops,
                               .shard_count = shards };
    err e = storage_prepare(&env);
    eng->env = env;
    fault_store_below->driver->close(fault_store_below);
    meta_close(fault_meta_below);
    return e;
}

static u32 owned_by(u32 index, u32 *batches)
{
    u32 n = 0;
    *batches = 0;
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        struct partition_key k = engine_key(i);
        if (storage_shard_of(&k, eng->shard_count) != index)
            continue;
        n++;
        *batches += eng->parts[i].count;
    }
    return n;
}

/* Starts each shard in turn and compares what it owns. */
static void check_each_shard(bool replays)
{
    for (u32 s = 0; s < eng->shard_count; s++) {
        u32 batches, n = owned_by(s, &batches);
        eng->index = s;
        engine_start();
        if (replays) { /* everything is in bundles, and the snapshots cover it */
            assert_int_equal(eng->recovered, 0);
            assert_int_equal(eng->restored, n);
        }
        for (u32 i = 0; i < ENGINE_PARTS; i++) {
            struct partition_key k = engine_key(i);
            if (storage_shard_of(&k, eng->shard_count) != s)
                continue;
            assert_int_equal(pindex_next_offset(eng->parts[i].p), eng->parts[i].next);
            engine_check_part(i, 0, 100000);
            engine_put(i, 2, 300);
        }
        assert_true(n <= ENGINE_PARTS);
        engine_stop();
    }
}

static void more_and_fewer_shards_keep_everything(void **state)
{
    (void)state;
    assert_int_equal(prepare(1), ERR_NONE);
    engine_start();
    fault.fail_puts = UINT32_MAX; /* everything stays in the WAL */
    engine_fill(5 * MIB);
    crash();
    fault.fail_puts = 0;
    if (prepare(3) != ERR_NONE)
        fail_msg("%s", eng->env.error);
    check_each_shard(true);
    /* Clean stops left nothing to replay. */
    assert_int_equal(prepare(2), ERR_NONE);
    check_each_shard(false);
    assert_int_equal(prepare(2), ERR_NONE);
    check_each_shard(false);
    eng->index = 0;
    eng->shard_count = 1;
    assert_int_equal(prepare(1), ERR_NONE);
    engine_start();
    engine_check_all();
}

static void shards_set(u8 version, u32 count)
{
    u8 v[8] = { version };
    put_le32(v + 4, count);
    struct meta_op op = { META_PUT, bytes_str("n/shards"), bytes_of(v, sizeof v) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    engine_open_below();
    assert_int_equal(meta_commit(fault_meta_below, &t), ERR_NONE);
    fault_store_below->driver->close(fault_store_below);
    meta_close(fault_meta_below);
}

/* The same number of shards, but another one may own a partition now. */
static void an_older_rule_of_who_owns_what_is_replayed(void **state)
{
    (void)state;
    assert_int_equal(prepare(1), ERR_NONE);
    engine_start();
    fault.fail_puts = UINT32_MAX;
    engine_fill(2 * MIB);
    crash();
    fault.fail_puts = 0;
    shards_set(1, 1);
    assert_int_equal(prepare(1), ERR_NONE);
    check_each_shard(true);
    shards_set(99, 1);
    assert_int_equal(prepare(1), ERR_CORRUPT);
    assert_non_null(strstr(eng->env.error, "newer version"));
    eng->st = NULL;
}

static void a_store_that_fails_is_named(void **state)
{
    (void)state;
    assert_int_equal(prepare(1), ERR_NONE);
    engine_start();
    fault.fail_puts = UINT32_MAX;
    engine_fill(1 * MIB);
    crash();
    engine_set("store.retry", "1ms");
    assert_int_equal(prepare(2), ERR_BUSY);
    assert_non_null(strstr(eng->env.error, "core.shards changed"));
    /* The old number still works. */
    fault.fail_puts = 0;
    assert_int_equal(prepare(1), ERR_NONE);
    engine_start();
    engine_check_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(more_and_fewer_shards_keep_everything, engine_setup,
                                        engine_teardown),
        cmocka_unit_test_setup_teardown(an_older_rule_of_who_owns_what_is_replayed, engine_setup,
                                        engine_teardown),
        cmocka_unit_test_setup_teardown(a_store_that_fails_is_named, engine_setup, engine_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
