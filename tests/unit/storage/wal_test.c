/* The WAL while it runs: order, group commit, sealing, bounds, failure. */
#include "wal_rig.h"

static int setup(void **s)
{
    (void)s;
    rig_new();
    rig_start();
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    if (rig->st)
        rig_crash();
    rig_free();
    return 0;
}

static void appends_become_durable_in_order(void **s)
{
    (void)s;
    struct rig_append ra[50];
    for (u32 i = 0; i < 50; i++) {
        struct pindex *p = rig_part(i % 3);
        i64 next = pindex_next_offset(p);
        assert_int_equal(rig_append_one(p, 1 + i % 4, 100 * i, &ra[i]), ERR_NONE);
        assert_int_equal(ra[i].a.base_offset, next);
        assert_int_equal(pindex_next_offset(p), next + 1 + i % 4);
        assert_false(ra[i].done);
        assert_true(pindex_durable_offset(p) <= next);
    }
    rig_settle();
    for (u32 i = 0; i < 50; i++) {
        assert_true(ra[i].done);
        assert_int_equal(ra[i].order, i);
        assert_int_equal(ra[i].a.err, ERR_NONE);
    }
    for (u32 i = 0; i < 3; i++)
        assert_int_equal(pindex_durable_offset(rig_part(i)), pindex_next_offset(rig_part(i)));
}

static void one_turn_is_one_write(void **s)
{
    (void)s;
    struct rig_append ra[100];
    rig_put(0, 1, 10);
    u64 before = rig->st->wal.write_total;
    for (u32 i = 0; i < 100; i++)
        assert_int_equal(rig_append_one(rig_part(0), 1, 1000, &ra[i]), ERR_NONE);
    rig_settle();
    assert_int_equal(rig->st->wal.write_total - before, 1);
    assert_int_equal(rig->st->wal.flushed % WAL_BLOCK_BYTES, 0);
}

static void stored_batch_is_patched_and_whole(void **s)
{
    (void)s;
    rig_put(7, 3, 300);
    rig_put(7, 2, 5000);
    struct place at;
    assert_true(pindex_place(rig_part(7), 4, &at));
    assert_non_null(at.entry);
    assert_int_equal(at.entry->base_offset, 3);
    struct batch b;
    u32 off = (u32)(entry_lsn(at.entry) % rig->st->wal.segment_bytes);
    assert_int_equal(batch_parse(bytes_of(at.seg->image->bytes + off, at.entry->bytes), &b),
                     ERR_NONE);
    assert_int_equal(b.base_offset, 3);
    assert_int_equal(b.leader_epoch, 5);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    assert_int_equal(pindex_max_timestamp(rig_part(7)) >= 1000, 1);
}

static void wrong_crc_leaves_no_trace(void **s)
{
    (void)s;
    struct batch_builder b;
    batch_builder_init(&b, 1 << 20);
    struct batch batch = rig_batch(&b, 2, 500);
    u8 *copy = mem_dup(batch.data, batch.bytes);
    copy[batch.bytes - 3] ^= 1;
    batch.data = copy;
    struct rig_append ra = { 0 };
    u64 appended = rig->st->wal.appended;
    assert_int_equal(storage_append(rig_part(1), &batch, 0, true, -1, &ra.a, rig_append_done),
                     ERR_CORRUPT_MESSAGE);
    assert_int_equal(rig->st->wal.appended, appended);
    assert_int_equal(pindex_next_offset(rig_part(1)), 0);
    copy[batch.bytes - 3] ^= 1;
    assert_int_equal(storage_append(rig_part(1), &batch, 0, false, 77, &ra.a, rig_append_done),
                     ERR_NONE);
    rig_settle();
    /* The log append time was put in, and the CRC made right for it. */
    assert_int_equal(pindex_max_timestamp(rig_part(1)), 77);
    rig_crash();
    rig_start();
    assert_int_equal(rig->recovered_count, 1);
    assert_int_equal(pindex_max_timestamp(rig_part(1)), 77);
    mem_free(copy);
    batch_builder_free(&b);
}

static void too_large_is_refused(void **s)
{
    (void)s;
    struct rig_append ra;
    assert_int_equal(rig_append_one(rig_part(0), 1, 1100000, &ra), ERR_RECORD_LIST_TOO_LARGE);
    rig_put(0, 1, 1000000);
    rig_put(0, 1, 1000000);
}

static void full_segment_is_sealed_and_kicked(void **s)
{
    (void)s;
    rig_kicks = 0;
    for (u32 i = 0; i < 30; i++)
        rig_put(i % 2, 1, 100000);
    struct segment *seg = segment_first_unregistered(rig->st);
    assert_int_equal(seg->state, SEG_DURABLE);
    assert_int_equal(seg->part_count, 2);
    assert_int_equal(seg->snap_count, 2);
    assert_true(rig_kicks > 0);
    assert_true(rig->st->wal.appended > 3 * (u64)rig->st->wal.segment_bytes - 500000);
}

static u32 woken;
static void wake(struct room_wait *w)
{
    (void)w;
    woken++;
}

static void full_ring_is_busy_until_registered(void **s)
{
    (void)s;
    struct rig_append ra;
    struct room_wait w;
    err e = ERR_NONE;
    u32 n = 0;
    woken = 0;
    while (rig->st->wal.zero_bytes) /* a segment whose zeros are in flight is no room either */
        rig_turn();
    /* Images of durable segments give way, so only the ring bounds this. */
    for (; e == ERR_NONE && n < 10000; n++) {
        e = rig_append_one(rig_part(0), 1, 200000, &ra);
        for (; e == ERR_BUSY && rig->st->image_job.busy; rig_turn())
            ; /* memory of an image is on its way */
        if (e == ERR_BUSY)
            e = rig_append_one(rig_part(0), 1, 200000, &ra);
        if (e == ERR_NONE)
            rig_settle();
    }
    assert_int_equal(e, ERR_BUSY);
    assert_true(n > 16 * 4);
    storage_wait_room(rig->st, &w, wake);
    for (u32 i = 0; i < 20; i++)
        rig_turn();
    assert_int_equal(woken, 0);
    assert_true(rig_register(true));
    rig_turn();
    rig_turn();
    assert_int_equal(woken, 1);
    rig_put(0, 1, 200000);
    while (rig_register(true))
        ;
    for (u32 i = 0; i < 200; i++) {
        rig_put(0, 1, 200000);
        while (rig_register(true))
            ;
    }
    assert_int_equal(pindex_next_offset(rig_part(0)), n + 200);
}

static void undurable_bytes_are_bounded(void **s)
{
    (void)s;
    struct rig_append *ra = mem_alloc(100 * sizeof *ra);
    u32 n = 0;
    while (n < 100 && rig_append_one(rig_part(0), 1, 100000, &ra[n]) == ERR_NONE)
        n++;
    assert_true(n >= 10 && n < 25);
    rig_settle();
    assert_int_equal(rig->done_count, n);
    mem_free(ra);
}

static void quiet_log_gets_one_mark(void **s)
{
    (void)s;
    rig_put(0, 1, 10);
    u64 end = rig->st->wal.appended;
    u64 stop = clock_mono_ns() + 120 * NS_PER_MS;
    while (clock_mono_ns() < stop)
        rig_turn();
    assert_int_equal(rig->st->wal.appended, end + WAL_BLOCK_BYTES);
    assert_int_equal(rig->st->wal.marked, end);
}

static void age_seals(void **s)
{
    (void)s;
    rig_set("wal.seal_age", "30ms");
    rig_put(0, 1, 10);
    u64 stop = clock_mono_ns() + 100 * NS_PER_MS;
    while (clock_mono_ns() < stop)
        rig_turn();
    assert_int_equal(segment_first_unregistered(rig->st)->state, SEG_DURABLE);
    assert_null(rig->st->wal.open);
    rig_put(0, 1, 10);
}

static void failed_write_makes_it_read_only(void **s)
{
    (void)s;
    rig_put(0, 1, 10);
    i64 durable = pindex_durable_offset(rig_part(0));
    int real = rig->st->wal.fd;
    rig->st->wal.fd = open("/dev/full", O_RDWR);
    struct rig_append ra[3];
    for (u32 i = 0; i < 3; i++)
        assert_int_equal(rig_append_one(rig_part(0), 1, 10, &ra[i]), ERR_NONE);
    rig_settle();
    for (u32 i = 0; i < 3; i++) {
        assert_true(ra[i].done);
        assert_int_equal(ra[i].a.err, ERR_DISK_FULL);
    }
    assert_int_equal(pindex_durable_offset(rig_part(0)), durable);
    struct rig_append again;
    assert_int_equal(rig_append_one(rig_part(0), 1, 10, &again), ERR_DISK_FULL);
    struct place at;
    assert_true(pindex_place(rig_part(0), 0, &at));
    assert_false(pindex_place(rig_part(0), durable, &at));
    storage_stop(rig->st);
    while (!storage_stopped(rig->st))
        rig_turn();
    close(rig->st->wal.fd);
    rig->st->wal.fd = real;
}

static void dropped_partition_ends_its_appends(void **s)
{
    (void)s;
    struct rig_append ra;
    assert_int_equal(rig_append_one(rig_part(3), 1, 10, &ra), ERR_NONE);
    pindex_drop(rig_part(3));
    rig_settle();
    assert_true(ra.done);
    assert_int_equal(ra.a.err, ERR_UNKNOWN_TOPIC_OR_PARTITION);
    struct partition_key k = rig_key(3);
    assert_null(pindex_find(rig->st, &k));
    while (rig->st->job_count > 0)
        rig_turn();
}

static void stop_waits_for_registration(void **s)
{
    (void)s;
    rig_put(0, 1, 1000);
    storage_stop(rig->st);
    struct rig_append ra;
    assert_int_equal(rig_append_one(rig_part(0), 1, 10, &ra), ERR_CANCELED);
    for (u32 i = 0; i < 50; i++)
        rig_turn();
    assert_false(storage_stopped(rig->st));
    assert_true(rig_register(true));
    for (u32 i = 0; i < 1000 && !storage_stopped(rig->st); i++)
        rig_turn();
    assert_true(storage_stopped(rig->st));
    storage_free(rig->st);
    rig->st = NULL;
    rig_down();
    /* A clean stop needs no file. */
    char path[128];
    snprintf(path, sizeof path, "%s/0000.wal", rig->dir);
    assert_int_equal(unlink(path), 0);
    rig_start();
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(appends_become_durable_in_order),
        T(one_turn_is_one_write),
        T(stored_batch_is_patched_and_whole),
        T(wrong_crc_leaves_no_trace),
        T(too_large_is_refused),
        T(full_segment_is_sealed_and_kicked),
        T(full_ring_is_busy_until_registered),
        T(undurable_bytes_are_bounded),
        T(quiet_log_gets_one_mark),
        T(age_seals),
        T(failed_write_makes_it_read_only),
        T(dropped_partition_ends_its_appends),
        T(stop_waits_for_registration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
