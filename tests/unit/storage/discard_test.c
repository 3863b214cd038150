/* Two-step deletion, and the pass over the store that finds what nothing names. */
#include "engine_rig.h"

#include "../../../storage/discard.h"

#define PAGES_OF_ORPHANS 2300u

static int setup(void **state)
{
    (void)state;
    engine_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (eng->st)
        engine_stop();
    engine_free();
    return 0;
}

static void restart(const char *delete_delay)
{
    engine_stop();
    engine_set("store.delete_delay", delete_delay);
    engine_start();
}

static void drop_all(void)
{
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        pindex_drop(eng->parts[i].p);
    eng->unknown = UINT32_MAX;
}

static void object_make(u64 id, u32 epoch)
{
    char name[BUNDLE_NAME_SIZE];
    struct bytes part = bytes_str("not an object");
    struct store_object o = { .name = bundle_name(name, id, epoch),
                              .parts = &part,
                              .part_count = 1 };
    assert_int_equal(fault_store_below->driver->put(fault_store_below, &o), ERR_NONE);
}

static u64 object_size(u64 id, u32 epoch)
{
    char name[BUNDLE_NAME_SIZE];
    u64 bytes = 0;
    err e =
        fault_store_below->driver->size(fault_store_below, bundle_name(name, id, epoch), &bytes);
    assert_true(e == ERR_NONE || e == ERR_NOT_FOUND);
    return bytes;
}

/* Of objects id, id + 1, … of a log. */
static void notes_put(u64 id, u32 count, u32 epoch, i64 since_ms)
{
    struct discard_note notes[16];
    struct meta_op ops[16];
    for (u32 i = 0; i < count; i++) {
        struct discarded d = { id + i, epoch, 13, since_ms };
        ops[i] = discard_op(&notes[i], &d);
    }
    struct meta_txn t = { NULL, ops, 0, count };
    assert_int_equal(meta_commit(fault_meta_below, &t), ERR_NONE);
}

static void a_note_says_what_was_written(void **state)
{
    (void)state;
    struct discard_note note;
    struct discarded d = { run_id(3, 7, 9), 7, 1 << 20, 1700000000123 }, back;
    struct meta_op op = discard_op(&note, &d);
    struct meta_kv kv = { op.key, op.value, 1 };
    assert_int_equal(discard_decode(&kv, &back), ERR_NONE);
    assert_true(back.id == d.id && back.epoch == d.epoch);
    assert_true(back.bytes == d.bytes && back.since_ms == d.since_ms);
    note.value[0]++;
    assert_int_equal(discard_decode(&kv, &back), ERR_UNSUPPORTED);
    note.value[0]--;
    kv.value.len--;
    assert_int_equal(discard_decode(&kv, &back), ERR_MALFORMED);
    kv.value.len++;
    kv.key.len--;
    assert_int_equal(discard_decode(&kv, &back), ERR_MALFORMED);
    kv.key.len++;
    note.key[0] = 'b';
    assert_int_equal(discard_decode(&kv, &back), ERR_MALFORMED);
}

static void objects_outlive_their_registration_by_the_grace_time(void **state)
{
    (void)state;
    engine_set("store.delete_delay", "1h");
    engine_start();
    engine_fill(3 * MIB);
    engine_seal_all();
    u32 objects = engine_objects();
    assert_true(objects > 1);
    drop_all();
    ENGINE_UNTIL(engine_keys("b/") == 0);
    assert_int_equal(engine_keys("d/"), objects);
    assert_int_equal(engine_objects(), objects);
    /* A later life knows, and its grace time counts. */
    restart("1h");
    for (u32 i = 0; i < 100; i++)
        engine_turn();
    assert_int_equal(engine_objects(), objects);
    assert_int_equal(metric_get(eng->shard.metrics, M_discarded_objects), objects);
    assert_true(metric_get(eng->shard.metrics, M_discarded_bytes) > 3 * MIB);
    restart("10ms");
    ENGINE_UNTIL(engine_objects() == 0);
    ENGINE_UNTIL(engine_keys("d/") == 0);
    ENGINE_UNTIL(metric_get(eng->shard.metrics, M_discarded_objects) == 0);
    assert_int_equal(metric_get(eng->shard.metrics, M_retention_objects), objects);
}

static void a_registered_object_is_never_deleted(void **state)
{
    (void)state;
    engine_start();
    engine_fill(MIB);
    engine_seal_all();
    u32 objects = engine_objects();
    notes_put(bundle_id(0, 0), objects, eng->st->wal.epoch, 0);
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_int_equal(engine_objects(), objects);
    engine_evict_all();
    engine_check_all();
}

static void what_can_not_be_deleted_is_tried_again_alone(void **state)
{
    (void)state;
    engine_start();
    object_make(bundle_id(0, 100), 77);
    object_make(bundle_id(0, 101), 77);
    fault.fail_removes = 3; /* both together, then the first of them alone */
    notes_put(bundle_id(0, 100), 2, 77, 0);
    ENGINE_UNTIL(engine_keys("d/") == 1);
    assert_int_equal(object_size(bundle_id(0, 101), 77), 0);
    assert_true(object_size(bundle_id(0, 100), 77) > 0);
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_int_equal(object_size(bundle_id(0, 100), 77), 0);
}

/* The clock was ahead when it was written: the life that knows better counts from its own start. */
static void notes_from_the_future_wait_a_grace_time(void **state)
{
    (void)state;
    engine_set("store.delete_delay", "300ms");
    engine_start();
    object_make(bundle_id(0, 100), 77);
    notes_put(bundle_id(0, 100), 1, 77, clock_wall_ms() + 86400000);
    u64 began = clock_mono_ns();
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_int_equal(object_size(bundle_id(0, 100), 77), 0);
    assert_true(clock_mono_ns() - began > 100 * NS_PER_MS);
}

static void orphans_go_and_all_else_stays(void **state)
{
    (void)state;
    engine_set("store.scrub_interval", "50ms");
    engine_start();
    engine_fill(2 * MIB);
    engine_seal_all();
    u32 registered = engine_objects();
    engine_stop();
    engine_start();
    u32 epoch = eng->st->wal.epoch;
    for (u32 i = 0; i < PAGES_OF_ORPHANS; i++)
        object_make(bundle_id(0, 1000 + i), 0); /* older lives */
    object_make(run_id(0, 0, 5), 0);
    object_make(bundle_id(9, 3), 12);                /* of a log that is no more */
    object_make(bundle_id(0, 77), epoch);            /* this life may register it yet */
    object_make(run_id(0, epoch + 1, 5), epoch + 1); /* and so may a later one */
    ENGINE_UNTIL(metric_get(eng->shard.metrics, M_orphans) == PAGES_OF_ORPHANS + 2);
    ENGINE_UNTIL(engine_objects() == registered + 1);
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_true(object_size(bundle_id(0, 77), epoch) > 0);
    assert_true(object_size(run_id(0, epoch + 1, 5), epoch + 1) > 0);
    engine_evict_all();
    engine_check_all();
    ENGINE_UNTIL(metric_get(eng->shard.metrics, M_scrub_objects) == registered + 2);
}

/* What a life stored and does not want any more goes without a restart. */
static void what_was_stored_for_nothing_is_discarded(void **state)
{
    (void)state;
    engine_start();
    fault.delay_put_us = 100000;
    engine_fill(MIB / 2);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(puts) == 1);
    drop_all();
    ENGINE_UNTIL(eng->st->sealed_unregistered == 0);
    assert_int_equal(engine_keys("b/"), 0);
    ENGINE_UNTIL(engine_objects() == 0);
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_int_equal(metric_get(eng->shard.metrics, M_retention_objects), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_note_says_what_was_written),
        T(objects_outlive_their_registration_by_the_grace_time),
        T(a_registered_object_is_never_deleted),
        T(what_can_not_be_deleted_is_tried_again_alone),
        T(notes_from_the_future_wait_a_grace_time),
        T(orphans_go_and_all_else_stays),
        T(what_was_stored_for_nothing_is_discarded),
    };
    return cmocka_run_group_tests_name("discard", tests, NULL, NULL);
}
