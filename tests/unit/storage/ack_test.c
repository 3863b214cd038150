/* Appends that wait for the object store: when they are done, what is readable, and when a segment
 * is sealed for them. */
#include "engine_rig.h"

static struct bytes made[64];
static struct engine_append waits[64];
static u32 made_count;

/* One batch, not waited for. */
static struct engine_append *put(u32 part, u32 value_bytes)
{
    struct model_part *m = &eng->parts[part];
    struct engine_append *ea = &waits[made_count];
    struct bytes b = made[made_count++] = batch_make(0, 1, value_bytes, m->next * 10);
    struct batch parsed;
    assert_int_equal(batch_parse(b, &parsed), ERR_NONE);
    *ea = (struct engine_append){ 0 };
    err e;
    while ((e = storage_append(m->p, &parsed, 1, true, -1, &ea->a, engine_append_done)) == ERR_BUSY)
        engine_turn();
    assert_int_equal(e, ERR_NONE);
    m->next++;
    return ea;
}

static void turns(u64 ms)
{
    u64 until = clock_mono_ns() + ms * NS_PER_MS;
    while (clock_mono_ns() < until)
        engine_turn();
}

static int setup(void **state)
{
    (void)engine_setup(state);
    eng->object = 1; /* partition 0 */
    engine_set("object.linger", "20ms");
    engine_set("store.uploads", "2");
    made_count = 0;
    return 0;
}

static int teardown(void **state)
{
    int rc = engine_teardown(state);
    for (u32 i = 0; i < made_count; i++)
        batch_drop(made[i]);
    return rc;
}

static void done_and_readable_when_registered(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    u64 begin = eng->shard.now_ns;
    struct engine_append *object = put(0, 100), *local = put(1, 100);
    ENGINE_UNTIL(local->done);
    assert_int_equal(pindex_durable_offset(eng->parts[1].p), 1);
    ENGINE_UNTIL(FAULT_SEEN(puts) == 1);
    assert_true(clock_mono_ns() - begin >= 20 * NS_PER_MS);
    turns(50);
    assert_false(object->done);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 0);
    struct place at;
    assert_false(pindex_place(eng->parts[0].p, 0, &at));
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(object->done);
    assert_int_equal(object->a.err, ERR_NONE);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 1);
    assert_int_equal(eng->told[0], 1);
    assert_int_equal(eng->told[1], 0);
    assert_true(pindex_place(eng->parts[0].p, 0, &at));
    assert_int_equal(engine_keys("b/"), 1);
    assert_int_equal(metric_get(eng->shard.metrics, M_object_batches), 1);
}

static void size_seals_before_the_linger(void **state)
{
    (void)state;
    engine_set("object.linger", "60s");
    engine_set("object.batch_bytes", "100k");
    engine_start();
    struct engine_append *first = put(0, 60000);
    turns(30);
    assert_int_equal(FAULT_SEEN(puts), 0);
    put(0, 60000);
    ENGINE_UNTIL(first->done);
    assert_int_equal(engine_objects(), 1);
}

/* Two uploads at a time: the third batch gathers until one of them is registered. */
static void busy_uploads_let_the_batch_grow(void **state)
{
    (void)state;
    engine_set("object.linger", "1ms");
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 20; i++) {
        put(0, 100);
        turns(5);
    }
    assert_int_equal(FAULT_SEEN(puts), 2);
    assert_int_equal(eng->st->sealed_unregistered, 2);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 20; i++)
        ENGINE_UNTIL(waits[i].done);
    assert_int_equal(FAULT_SEEN(puts), 3);
}

/* While one registration is on its way to the disk, the next ones gather. */
static void what_is_placed_is_registered_together(void **state)
{
    (void)state;
    engine_set("object.linger", "1ms");
    engine_set("store.uploads", "8");
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    u32 before = FAULT_SEEN(commits);
    put(0, 100);
    ENGINE_UNTIL(FAULT_SEEN(commits) == before + 1);
    for (u32 i = 0; i < 5; i++) {
        put(0, 100);
        u32 objects = engine_objects();
        ENGINE_UNTIL(engine_objects() == objects + 1);
    }
    turns(5);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 6; i++)
        ENGINE_UNTIL(waits[i].done);
    assert_int_equal(FAULT_SEEN(commits), before + 2);
    assert_int_equal(engine_keys("b/"), 6);
    assert_int_equal(engine_keys("s/"), 1);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 6);
    engine_stop();
    engine_start();
    assert_int_equal(eng->restored, 1);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 6);
}

static void order_holds_when_puts_overtake(void **state)
{
    (void)state;
    engine_set("object.linger", "1ms");
    engine_start();
    fault.fail_puts = 1; /* the first segment's is repeated, the second's goes through */
    struct engine_append *first = put(0, 100);
    turns(4);
    struct engine_append *second = put(0, 100);
    while (!second->done) {
        engine_turn();
        assert_true(first->done || !second->done);
    }
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 2);
}

static void a_wait_that_is_given_up_counts_when_it_is_registered(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    struct engine_append *ea = put(0, 100);
    assert_false(storage_append_abandon(&ea->a)); /* not on this disk yet */
    ENGINE_UNTIL(FAULT_SEEN(puts) > 2);
    assert_int_equal(eng->st->wal.registering_count, 1);
    assert_true(storage_append_abandon(&ea->a));
    assert_int_equal(eng->st->wal.registering_count, 0);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 0);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(eng->told[0] == 1);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 1);
    assert_false(ea->done);
}

static void early_ones_wait_for_the_disk_only(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    struct engine_append *ea = put(0, 100);
    ea->a.early = true;
    ENGINE_UNTIL(ea->done);
    assert_int_equal(ea->a.err, ERR_NONE);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 0);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(eng->told[0] == 1);
}

/* After a crash the log holds what was not registered: readable once it is. */
static void recovered_batches_are_readable_when_registered(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    struct engine_append *object = put(0, 100), *local = put(1, 100);
    ENGINE_UNTIL(local->done && FAULT_SEEN(puts) > 0);
    engine_stop(); /* the store is away: as a crash */
    assert_true(object->done);
    assert_int_equal(object->a.err, ERR_CANCELED);
    memset(eng->told, 0, sizeof eng->told);
    engine_start();
    assert_int_equal(pindex_next_offset(eng->parts[0].p), 1);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 0);
    assert_int_equal(pindex_durable_offset(eng->parts[1].p), 1);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(eng->told[0] == 1);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), 1);
}

static void a_failed_log_ends_what_can_not_be_registered(void **state)
{
    (void)state;
    engine_set("object.linger", "1ms");
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    struct engine_append *first = put(0, 100);
    ENGINE_UNTIL(FAULT_SEEN(puts) == 1);
    engine_set("object.linger", "60s");
    struct engine_append *second = put(0, 100);
    ENGINE_UNTIL(eng->st->wal.registering_count == 2);
    int real = eng->st->wal.fd;
    eng->st->wal.fd = open("/dev/full", O_RDWR);
    struct engine_append *third = put(0, 100);
    ENGINE_UNTIL(third->done);
    assert_int_equal(third->a.err, ERR_DISK_FULL);
    assert_false(first->done);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(first->done && second->done);
    assert_int_equal(first->a.err, ERR_NONE);
    assert_int_equal(second->a.err, ERR_DISK_FULL);
    close(eng->st->wal.fd);
    eng->st->wal.fd = real;
}

static void the_mode_may_change(void **state)
{
    (void)state;
    engine_start();
    struct engine_append *ea = put(1, 100);
    pindex_set_object(eng->parts[1].p, true); /* not durable yet: it waits for the store now */
    assert_true(pindex_is_object(eng->parts[1].p));
    turns(5);
    assert_false(ea->done);
    ENGINE_UNTIL(ea->done);
    assert_int_equal(engine_keys("b/"), 1);
    fault.fail_puts = UINT32_MAX;
    struct engine_append *before = put(1, 100);
    ENGINE_UNTIL(eng->st->wal.registering_count == 1);
    pindex_set_object(eng->parts[1].p, false);
    struct engine_append *after = put(1, 100);
    ENGINE_UNTIL(after->done);
    assert_int_equal(pindex_durable_offset(eng->parts[1].p), 3);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(before->done);
    assert_int_equal(before->a.err, ERR_NONE);
    assert_int_equal(pindex_durable_offset(eng->parts[1].p), 3);
}

static void a_put_is_awaited_when_acknowledgements_wait_for_it(void **state)
{
    (void)state;
    engine_start();
    engine_put(1, 1, 100);
    engine_seal_all();
    assert_int_equal(FAULT_SEEN(puts), 1);
    assert_int_equal(FAULT_SEEN(awaited_puts), 0);
    struct engine_append *object = put(0, 100);
    ENGINE_UNTIL(object->done);
    assert_int_equal(FAULT_SEEN(puts), 2);
    assert_int_equal(FAULT_SEEN(awaited_puts), 1);
}

/* ---- an upload of several objects ---- */

static void all_done(void)
{
    for (u32 i = 0; i < made_count; i++) {
        ENGINE_UNTIL(waits[i].done);
        assert_int_equal(waits[i].a.err, ERR_NONE);
    }
}

/* Of three partitions in a segment two have enough for a run. */
static void put_for_runs(void)
{
    engine_set("store.run_bytes", "1m");
    eng->object = 7;
    engine_start();
    for (u32 i = 0; i < 4; i++)
        put(i % 2, 60000);
    put(2, 100);
}

static void objects_that_are_awaited_are_put_side_by_side(void **state)
{
    (void)state;
    __atomic_store_n(&fault.hold_puts, 1, __ATOMIC_RELEASE);
    put_for_runs();
    ENGINE_UNTIL(FAULT_SEEN(puts) == 3);
    assert_int_equal(uploader_puts(eng->st), 3);
    __atomic_store_n(&fault.hold_puts, 0, __ATOMIC_RELEASE);
    all_done();
    assert_int_equal(FAULT_SEEN(awaited_puts), 3);
    assert_int_equal(engine_keys("b/"), 1);
    assert_int_equal(engine_keys("r/"), 2);
}

static void nothing_counts_before_all_objects_are_there(void **state)
{
    (void)state;
    fault.pass_puts = 2;
    fault.fail_puts = UINT32_MAX;
    put_for_runs();
    ENGINE_UNTIL(FAULT_SEEN(puts) == 6); /* one is missing, again and again */
    for (u32 i = 0; i < made_count; i++)
        assert_false(waits[i].done);
    for (u32 i = 0; i < 3; i++)
        assert_int_equal(pindex_durable_offset(eng->parts[i].p), 0);
    assert_int_equal(engine_keys("b/") + engine_keys("r/"), 0);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    all_done();
    const struct metrics *m = eng->shard.metrics;
    assert_int_equal(metric_get(m, M_store_puts) - metric_get(m, M_store_errors), 3);
    assert_int_equal(engine_keys("b/") + engine_keys("r/"), 3);
}

/* Those that would wait for a slot share one; so what goes into a run is more. */
static void full_segments_that_wait_go_together(void **state)
{
    (void)state;
    engine_set("store.run_bytes", "4m");
    engine_start();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    while (made_count < 30)
        put(0, 300000);
    u32 sealed = eng->st->sealed_unregistered;
    assert_true(sealed >= 8);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    all_done();
    u64 segments = metric_get(eng->shard.metrics, M_upload_segments);
    assert_true(segments >= sealed);
    assert_true(FAULT_SEEN(puts) + 2 <= segments);
    assert_int_equal(engine_keys("s/"), 1);
}

static void a_segment_with_a_free_slot_waits_for_no_other(void **state)
{
    (void)state;
    engine_set("store.uploads", "64");
    engine_start();
    while (made_count < 30)
        put(0, 300000);
    all_done();
    assert_true(FAULT_SEEN(puts) >= 8);
    assert_int_equal(metric_get(eng->shard.metrics, M_upload_segments), FAULT_SEEN(puts));
}

static void a_dropped_partition_ends_its_waits(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    struct engine_append *ea = put(0, 100);
    ENGINE_UNTIL(eng->st->wal.registering_count == 1);
    pindex_drop(eng->parts[0].p);
    eng->unknown = 1;
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(ea->done);
    assert_int_equal(ea->a.err, ERR_UNKNOWN_TOPIC_OR_PARTITION);
}

/* ---- without a disk ---- */

static void in_memory(void)
{
    engine_set("leat.durability", "object");
    engine_set("wal.path", "none");
    eng->object = 0;
}

static u64 log_files(void)
{
    char path[600];
    struct stat s;
    snprintf(path, sizeof path, "%s/wal/0000.wal", eng->dir.path);
    return stat(path, &s) == 0 ? (u64)s.st_size : 0;
}

static void lose_the_disk(void)
{
    char path[600];
    snprintf(path, sizeof path, "%s/wal/0000.wal", eng->dir.path);
    assert_int_equal(unlink(path), 0);
}

static void a_log_in_memory_begins_from_what_is_registered(void **state)
{
    (void)state;
    in_memory();
    engine_start();
    assert_true(pindex_is_object(eng->parts[3].p)); /* whatever the topic says */
    for (u32 i = 0; i < 6; i++)
        engine_put(i % 2, 2, 5000);
    assert_int_equal(log_files(), 0);
    fault.fail_puts = UINT32_MAX;
    struct engine_append *ea = put(0, 100);
    ENGINE_UNTIL(FAULT_SEEN(fail_puts) < UINT32_MAX);
    engine_stop(); /* the store is away: as a crash */
    assert_int_equal(ea->a.err, ERR_CANCELED);
    fault.fail_puts = 0;
    eng->parts[0].next--;
    engine_start();
    assert_int_equal(pindex_next_offset(eng->parts[0].p), 6);
    assert_int_equal(eng->restored, 2);
    engine_put(0, 1, 100);
    engine_check_all();
    engine_stop();
    engine_start();
    engine_check_all();
}

/* Images are the log: none goes before it is registered. */
static void a_log_in_memory_is_bounded_by_it(void **state)
{
    (void)state;
    in_memory();
    engine_set("memory.budget", "32m");
    engine_set("wal.segment_bytes", "4m");
    engine_start();
    assert_int_equal(eng->st->wal.slot_count, 8);
    fault.fail_puts = UINT32_MAX;
    struct bytes b = batch_make(0, 1, 500000, 0);
    struct batch parsed;
    assert_int_equal(batch_parse(b, &parsed), ERR_NONE);
    struct engine_append *many = mem_alloc(200 * sizeof *many);
    u32 n = 0, refused = 0;
    while (refused < 1000 && n < 200) {
        err e =
            storage_append(eng->parts[0].p, &parsed, 1, true, -1, &many[n].a, engine_append_done);
        n += e == ERR_NONE;
        refused = e == ERR_BUSY ? refused + 1 : 0;
        engine_turn();
    }
    assert_true(n >= 48 && n < 70);
    assert_false(image_evict_one(eng->st));
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(many[n - 1].done);
    for (u32 i = 0; i < n; i++)
        assert_int_equal(many[i].a.err, ERR_NONE);
    assert_int_equal(pindex_durable_offset(eng->parts[0].p), n);
    mem_free(many);
    batch_drop(b);
}

static void a_lost_disk_is_missed_unless_all_is_in_the_store(void **state)
{
    (void)state;
    engine_start();
    engine_put(0, 1, 100); /* in the store when it returns */
    fault.fail_puts = UINT32_MAX;
    engine_put(1, 1, 100); /* not */
    engine_stop();
    fault.fail_puts = 0;
    lose_the_disk();
    assert_int_equal(engine_try_start(), ERR_CORRUPT);
    assert_non_null(strstr(eng->env.error, "wal.missing"));
    engine_refused();
    eng->all_object = true;
    engine_start();
    assert_int_equal(pindex_next_offset(eng->parts[0].p), 1);
    assert_int_equal(pindex_next_offset(eng->parts[1].p), 0);
    eng->parts[1].next = 0;
    batch_drop(eng->parts[1].batches[--eng->parts[1].count].bytes);
    engine_check_all();
    engine_put(0, 1, 100);
}

static void the_operator_may_accept_the_loss(void **state)
{
    (void)state;
    engine_start();
    fault.fail_puts = UINT32_MAX;
    engine_put(1, 1, 100);
    engine_stop();
    fault.fail_puts = 0;
    lose_the_disk();
    engine_set("wal.missing", "accept");
    engine_start();
    assert_int_equal(pindex_next_offset(eng->parts[1].p), 0);
    eng->parts[1].next = 0;
    engine_put(1, 1, 100);
}

/* A file that comes back after the log began anew without it is not taken for the log. */
static void disk_and_memory_follow_each_other(void **state)
{
    (void)state;
    char path[600];
    snprintf(path, sizeof path, "%s/wal", eng->dir.path);
    engine_start();
    fault.fail_puts = UINT32_MAX;
    engine_put(1, 1, 100); /* on the disk only */
    engine_stop();
    fault.fail_puts = 0;
    engine_set("leat.durability", "object");
    engine_set("wal.path", "none");
    assert_int_equal(engine_try_start(), ERR_CORRUPT);
    assert_non_null(strstr(eng->env.error, "wal.path = none"));
    engine_refused();
    engine_set("wal.path", path);
    engine_start(); /* as the message says */
    engine_seal_all();
    engine_stop();
    engine_set("wal.path", "none");
    engine_start();
    engine_put(1, 1, 100);
    fault.fail_puts = UINT32_MAX;
    struct engine_append *ea = put(1, 100);
    ENGINE_UNTIL(FAULT_SEEN(fail_puts) < UINT32_MAX);
    engine_stop();
    assert_int_equal(ea->a.err, ERR_CANCELED);
    fault.fail_puts = 0;
    eng->parts[1].next--;
    engine_set("wal.path", path);
    engine_start();
    assert_int_equal(pindex_next_offset(eng->parts[1].p), 2);
    engine_check_all();
    engine_put(1, 1, 100);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(done_and_readable_when_registered),
        T(size_seals_before_the_linger),
        T(busy_uploads_let_the_batch_grow),
        T(what_is_placed_is_registered_together),
        T(order_holds_when_puts_overtake),
        T(a_wait_that_is_given_up_counts_when_it_is_registered),
        T(early_ones_wait_for_the_disk_only),
        T(recovered_batches_are_readable_when_registered),
        T(a_failed_log_ends_what_can_not_be_registered),
        T(the_mode_may_change),
        T(a_put_is_awaited_when_acknowledgements_wait_for_it),
        T(objects_that_are_awaited_are_put_side_by_side),
        T(nothing_counts_before_all_objects_are_there),
        T(full_segments_that_wait_go_together),
        T(a_segment_with_a_free_slot_waits_for_no_other),
        T(a_dropped_partition_ends_its_waits),
        T(a_log_in_memory_begins_from_what_is_registered),
        T(a_log_in_memory_is_bounded_by_it),
        T(a_lost_disk_is_missed_unless_all_is_in_the_store),
        T(the_operator_may_accept_the_loss),
        T(disk_and_memory_follow_each_other),
    };
    return cmocka_run_group_tests_name("ack", tests, NULL, NULL);
}
