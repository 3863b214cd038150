/* Sealed segments become registered objects, whatever fails on the way. */
#include "engine_rig.h"

static void sealed_segments_become_registered_objects(void **state)
{
    (void)state;
    engine_start();
    engine_fill(5 * MIB);
    engine_seal_all();
    u32 n = engine_objects();
    assert_true(n >= 5);
    assert_int_equal(engine_keys("b/"), n);
    assert_int_equal(engine_keys("s/"), ENGINE_PARTS);
    assert_int_equal(eng->st->wal.trimmed_seq, eng->st->wal.registered_seq);
    engine_check_all();
    engine_evict_all();
    engine_check_all();
}

static void restart_finds_everything_in_objects(void **state)
{
    (void)state;
    engine_start();
    engine_fill(3 * MIB);
    engine_stop();
    engine_start();
    assert_int_equal(eng->recovered, 0);
    assert_int_equal(eng->restored, ENGINE_PARTS);
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        assert_int_equal(pindex_next_offset(eng->parts[i].p), eng->parts[i].next);
    engine_check_all();
    engine_fill(2 * MIB);
    engine_check_all();
}

static void failing_puts_are_repeated_until_they_succeed(void **state)
{
    (void)state;
    engine_start();
    fault.error = ERR_DISK_FULL;
    fault.fail_puts = 7;
    engine_fill(4 * MIB);
    engine_seal_all();
    assert_int_equal(FAULT_SEEN(fail_puts), 0);
    assert_int_equal(engine_keys("b/"), engine_objects());
    engine_evict_all();
    engine_check_all();
}

static void failing_commits_do_not_put_again(void **state)
{
    (void)state;
    engine_start();
    fault.fail_commits = 5;
    engine_fill(2 * MIB);
    engine_seal_all();
    assert_int_equal(FAULT_SEEN(fail_commits), 0);
    assert_int_equal(FAULT_SEEN(puts), engine_objects());
    engine_check_all();
}

static void evicted_segments_are_uploaded_from_the_wal(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    engine_fill(4 * MIB);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(puts) > 6);
    /* Images go while nothing holds them, in the pauses between the tries. */
    ENGINE_UNTIL(image_evict_one(eng->st) || list_empty(&eng->st->sealed_images));
    engine_evict_all();
    engine_check_all(); /* reads from the WAL file */
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    engine_seal_all();
    engine_evict_all();
    engine_check_all(); /* and from the objects */
}

/* A crash: the engine goes down with what it has, without a last upload. */
static void stop_with_broken_store_leaves_all_in_the_wal(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    engine_fill(3 * MIB);
    u64 begin = clock_mono_ns();
    engine_stop();
    assert_true(clock_mono_ns() - begin < 10 * NS_PER_S);
    fault.fail_puts = 0;
    engine_start();
    assert_true(eng->recovered > 0);
    engine_check_all();
    engine_seal_all();
    engine_evict_all();
    engine_check_all();
}

static void objects_never_registered_are_removed_by_the_next_life(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_commits, UINT32_MAX, __ATOMIC_RELEASE);
    engine_fill(3 * MIB);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(puts) >= 2 && eng->st->uploader != NULL && engine_objects() >= 2);
    u32 left = engine_objects();
    assert_int_equal(engine_keys("b/"), 0);
    engine_stop();
    fault.fail_commits = 0;
    u32 removes = FAULT_SEEN(removes);
    engine_start();
    engine_seal_all();
    ENGINE_UNTIL(FAULT_SEEN(removes) - removes >= left);
    ENGINE_UNTIL(engine_objects() == engine_keys("b/"));
    engine_evict_all();
    engine_check_all();
}

static void dropped_partition_is_left_out(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 40; i++)
        engine_put(i % 2, 1, 20000);
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(commits) > 0);
    pindex_drop(eng->parts[1].p);
    eng->unknown = 1u << 1;
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    engine_seal_all();
    engine_evict_all();
    engine_check_part(0, 0, 50000);
    ENGINE_UNTIL(engine_keys("s/") == 1);
    engine_stop();
    engine_start();
    engine_check_part(0, 0, 50000);
    assert_int_equal(engine_keys("b/"), 1);
}

static void start_moved(struct pindex_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

static void bundles_without_wanted_blocks_are_deleted(void **state)
{
    (void)state;
    engine_start();
    engine_fill(3 * MIB);
    engine_seal_all();
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        struct model_part *m = &eng->parts[i];
        i64 keep = m->batches[m->count / 2].base;
        struct pindex_op op = { 0 };
        pindex_set_start(m->p, keep, &op, start_moved);
        ENGINE_UNTIL(pindex_start_offset(m->p) == keep);
    }
    u32 before = engine_objects();
    ENGINE_UNTIL(engine_objects() < before);
    ENGINE_UNTIL(engine_objects() == engine_keys("b/"));
    assert_true(engine_objects() > 0);
    engine_evict_all();
    engine_check_all();
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        pindex_drop(eng->parts[i].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(engine_objects() == 0);
    assert_int_equal(engine_keys("b/"), 0);
}
static void bundles_of_topics_deleted_while_down_are_collected_at_start(void **state)
{
    (void)state;
    engine_start();
    engine_fill(2 * MIB);
    engine_seal_all();
    assert_true(engine_objects() > 0);
    engine_stop();
    eng->unknown = UINT32_MAX;
    engine_start();
    ENGINE_UNTIL(engine_objects() == 0);
    assert_int_equal(engine_keys("b/"), 0);
}

/* Made by one shard, wanted by two: each takes its blocks out, the last deletes. */
static void bundles_of_another_shard_count_are_shared(void **state)
{
    (void)state;
    engine_start();
    engine_fill(2 * MIB);
    engine_seal_all();
    u32 made = engine_objects();
    engine_stop();
    eng->shard_count = 2;
    u32 mine = 0;
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        struct partition_key k = engine_key(i);
        mine |= (u32)(storage_shard_of(&k, 2) == 0) << i;
    }
    assert_true(mine != 0 && mine != (1u << ENGINE_PARTS) - 1);
    eng->unknown = ~mine; /* what is the other shard's is not looked at */
    engine_start();
    engine_check_all();
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        if (mine >> i & 1)
            pindex_drop(eng->parts[i].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(retention_idle(eng->st) && eng->st->retention != NULL && engine_keys("s/") > 0);
    for (u32 i = 0; i < 50; i++)
        engine_turn();
    assert_int_equal(engine_keys("b/"), made);
    assert_int_equal(engine_objects(), made);
    engine_stop();
    eng->index = 1;
    eng->unknown = mine;
    engine_start();
    engine_check_all();
    engine_evict_all();
    assert_int_equal(engine_objects(), made);
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        if (!(mine >> i & 1))
            pindex_drop(eng->parts[i].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(engine_keys("b/") == 0);
    assert_int_equal(engine_keys("d/"), made);
    engine_stop();
    eng->index = 0; /* whose collector is the node's */
    engine_start();
    ENGINE_UNTIL(engine_objects() == 0);
    ENGINE_UNTIL(engine_keys("d/") == 0);
}

static void retention_offset_counts_whole_blocks(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 60; i++)
        engine_put(0, 1, 20000); /* blocks of 64 KiB hold three */
    engine_seal_all();
    struct pindex *p = eng->parts[0].p;
    u64 total = pindex_bytes(p);
    assert_int_equal(pindex_retention_offset(p, -1, -1), 0);
    assert_int_equal(pindex_retention_offset(p, (i64)total, -1), 0);
    i64 to = pindex_retention_offset(p, (i64)total / 2, -1);
    assert_true(to > 20 && to <= 30 && to % 3 == 0);
    assert_int_equal(pindex_retention_offset(p, 0, -1), 60);
    /* Timestamps are offset · 10: the block 0..2 is older than 21. */
    assert_int_equal(pindex_retention_offset(p, -1, 20), 0);
    assert_int_equal(pindex_retention_offset(p, -1, 21), 3);
    assert_int_equal(pindex_retention_offset(p, -1, 1000000), 60);
}

static void damaged_registration_refuses_to_start(void **state)
{
    (void)state;
    engine_start();
    engine_fill(MIB);
    engine_stop();
    engine_open_below();
    char buf[META_KEY_SIZE];
    struct meta_op op = { META_PUT, meta_key_bundle(buf, bundle_id(0, 0)), bytes_str("garbage") };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(fault_meta_below, &t), ERR_NONE);
    fault_store_below->driver->close(fault_store_below);
    meta_close(fault_meta_below);
    assert_int_equal(engine_try_start(), ERR_CORRUPT);
    assert_non_null(strstr(eng->env.error, "b/0000/0000000000000000"));
    assert_non_null(strstr(eng->env.error, "restore"));
    engine_refused();
}

/* Another process has begun with this log's metadata: its epoch is in the w/ key. */
static void what_another_life_follows_registers_nothing(void **state)
{
    (void)state;
    engine_start();
    engine_fill(MIB);
    struct arena a;
    char buf[META_KEY_SIZE];
    struct meta_kv kv;
    arena_init(&a, 4096, MIB);
    struct bytes key = meta_key_wal(buf, 0);
    assert_int_equal(meta_get(fault_meta_below, key, &a, &kv), ERR_NONE);
    u32 epoch = wal_meta_epoch(kv.value);
    assert_int_equal(epoch, eng->st->wal.epoch);
    u8 *next = mem_dup(kv.value.data, kv.value.len);
    put_le32(next + kv.value.len - 24, epoch + 1);
    struct meta_op op = { META_PUT, key, bytes_of(next, kv.value.len) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    u32 registered = engine_keys("b/");
    assert_int_equal(meta_commit(fault_meta_below, &t), ERR_NONE);
    wal_seal(eng->st);
    ENGINE_UNTIL(eng->st->wal.failed != ERR_NONE);
    assert_int_equal(eng->st->wal.failed, ERR_FENCED);
    struct engine_append ea = { 0 };
    struct bytes one = batch_make(0, 1, 100, 0);
    struct batch b;
    assert_int_equal(batch_parse(one, &b), ERR_NONE);
    assert_int_equal(storage_append(eng->parts[0].p, &b, 1, true, -1, &ea.a, engine_append_done),
                     ERR_FENCED);
    assert_int_equal(err_to_kafka(ERR_FENCED), ERR_NOT_LEADER_OR_FOLLOWER);
    engine_check_all(); /* reads go on */
    engine_stop();
    engine_open_below();
    assert_int_equal(meta_get(fault_meta_below, key, &a, &kv), ERR_NONE);
    assert_int_equal(wal_meta_epoch(kv.value), epoch + 1);
    assert_false(wal_meta_is_clean(kv.value));
    assert_int_equal(engine_keys("b/"), registered);
    fault_store_below->driver->close(fault_store_below);
    meta_close(fault_meta_below);
    batch_drop(one);
    mem_free(next);
    arena_free(&a);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(sealed_segments_become_registered_objects),
        T(restart_finds_everything_in_objects),
        T(failing_puts_are_repeated_until_they_succeed),
        T(failing_commits_do_not_put_again),
        T(evicted_segments_are_uploaded_from_the_wal),
        T(stop_with_broken_store_leaves_all_in_the_wal),
        T(objects_never_registered_are_removed_by_the_next_life),
        T(dropped_partition_is_left_out),
        T(bundles_without_wanted_blocks_are_deleted),
        T(bundles_of_topics_deleted_while_down_are_collected_at_start),
        T(bundles_of_another_shard_count_are_shared),
        T(retention_offset_counts_whole_blocks),
        T(damaged_registration_refuses_to_start),
        T(what_another_life_follows_registers_nothing),
    };
    return cmocka_run_group_tests_name("uploader", tests, NULL, NULL);
}
