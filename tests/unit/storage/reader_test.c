/* Reads and lookups against a model that remembers every batch. */
#include "engine_rig.h"

#include <dirent.h>

/* Random reads: every bound is kept, every batch is the model's. */
static void check_random_reads(u32 rounds)
{
    for (u32 i = 0; i < rounds; i++) {
        u32 part = (u32)engine_rand(ENGINE_PARTS);
        struct model_part *m = &eng->parts[part];
        if (m->count == 0)
            continue;
        i64 offset = (i64)engine_rand((u64)m->next + 1);
        i64 end = (i64)engine_rand((u64)m->next + 20);
        u32 max = (u32)engine_rand(200000);
        bool one = engine_rand(2);
        struct engine_read r;
        engine_read_begin(&r, part, offset, end, max, one);
        ENGINE_UNTIL(r.done);
        assert_int_equal(r.op.err, ERR_NONE);
        u32 first = 0;
        while (first < m->count && m->batches[first].last < offset)
            first++;
        u32 n = engine_compare(&r.op, m, first);
        bool possible = first < m->count && m->batches[first].base < end && offset < end;
        if (!possible)
            assert_int_equal(n, 0);
        else if (m->batches[first].bytes.len <= max || one)
            assert_true(n > 0);
        else
            assert_int_equal(n, 0);
        if (n > 0)
            assert_true(m->batches[first + n - 1].base < end);
        if (n > 1 || !one)
            assert_true(r.op.bytes <= max);
        engine_read_end(&r);
    }
}

static void random_reads_from_images(void **state)
{
    (void)state;
    engine_start();
    engine_fill(3 * MIB);
    check_random_reads(2000);
}

static void random_reads_from_the_wal_file(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    engine_fill(4 * MIB);
    wal_seal(eng->st);
    ENGINE_UNTIL(FAULT_SEEN(puts) > 2);
    for (u32 i = 0; i < 20; i++) {
        engine_evict_all();
        check_random_reads(50);
        engine_turn();
    }
}

static void random_reads_from_blocks(void **state)
{
    (void)state;
    engine_start();
    engine_fill(8 * MIB); /* twice the cache */
    engine_seal_all();
    engine_evict_all();
    check_random_reads(1500);
    assert_true(FAULT_SEEN(gets) > 0);
    assert_true(metric_get(eng->shard.metrics, M_cache_bytes) <= 4 * MIB);
    assert_true(metric_get(eng->shard.metrics, M_cache_evictions) > 0);
}

static void random_reads_while_everything_moves(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 40; i++) {
        engine_fill(200000);
        if (i % 7 == 3)
            wal_seal(eng->st);
        if (i % 3 == 0)
            (void)image_evict_one(eng->st);
        if (i % 10 == 9) {
            engine_stop();
            engine_start();
        }
        check_random_reads(100);
    }
}

static void small_batches_come_in_few_extents(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 200; i++) /* each fills a block of the log: one segment */
        engine_put(0, 1, 50);
    struct engine_read r;
    engine_read_begin(&r, 0, 0, 200, 1 << 20, true);
    assert_true(r.done);
    assert_int_equal(engine_compare(&r.op, &eng->parts[0], 0), 200);
    assert_int_equal(r.op.extent_count, 1);
    engine_read_end(&r);
    engine_read_begin(&r, 0, 199, 200, 1 << 20, true); /* one alone is not copied */
    assert_true(r.done);
    assert_int_equal(r.op.extent_count, 1);
    assert_ptr_equal(r.op.extents[0].ref, &eng->st->wal.open->image->ref);
    engine_read_end(&r);
}

static void offsets_outside_are_told(void **state)
{
    (void)state;
    engine_start();
    engine_put(0, 3, 10);
    struct engine_read r;
    engine_read_begin(&r, 0, 4, 100, 1000, true);
    assert_true(r.done);
    assert_int_equal(r.op.err, ERR_OFFSET_OUT_OF_RANGE);
    engine_read_begin(&r, 0, -1, 100, 1000, true);
    assert_int_equal(r.op.err, ERR_OFFSET_OUT_OF_RANGE);
    engine_read_begin(&r, 0, 3, 100, 1000, true);
    assert_int_equal(r.op.err, ERR_NONE);
    assert_int_equal(r.op.extent_count, 0);
}

static void start_moved(struct pindex_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

static void fill_and_evict(void)
{
    engine_fill(3 * MIB);
    engine_seal_all();
    engine_evict_all();
}

static void canceled_reads_end_with_that(void **state)
{
    (void)state;
    engine_start();
    fill_and_evict();
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[20];
    for (u32 i = 0; i < 20; i++) {
        engine_read_begin(&r[i], i % ENGINE_PARTS, 0, 1000000, 1000, true);
        assert_false(r[i].done);
    }
    for (u32 i = 0; i < 20; i += 2) {
        storage_read_cancel(&r[i].op);
        storage_read_cancel(&r[i].op); /* twice is as good as once */
        assert_false(r[i].done);
    }
    ENGINE_UNTIL(r[0].done && r[18].done);
    for (u32 i = 0; i < 20; i += 2)
        assert_int_equal(r[i].op.err, ERR_CANCELED);
    assert_false(r[1].done);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    for (u32 i = 1; i < 20; i += 2) {
        ENGINE_UNTIL(r[i].done);
        assert_int_equal(r[i].op.err, ERR_NONE);
        assert_int_equal(engine_compare(&r[i].op, &eng->parts[i % ENGINE_PARTS], 0), 1);
        engine_read_end(&r[i]);
    }
}

static void drop_ends_waiting_reads(void **state)
{
    (void)state;
    engine_start();
    fill_and_evict();
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r[3];
    for (u32 i = 0; i < 3; i++)
        engine_read_begin(&r[i], i / 2, 0, 1000000, 1000, true);
    pindex_drop(eng->parts[0].p);
    eng->unknown = 1;
    assert_false(r[0].done);
    ENGINE_UNTIL(r[0].done && r[1].done);
    assert_int_equal(r[0].op.err, ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(r[1].op.err, ERR_UNKNOWN_TOPIC_OR_PARTITION);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(r[2].done);
    assert_int_equal(r[2].op.err, ERR_NONE);
    engine_read_end(&r[2]);
}

static void start_that_moves_under_a_read_is_told(void **state)
{
    (void)state;
    engine_start();
    fill_and_evict();
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r;
    engine_read_begin(&r, 0, 0, 1000000, 1000, true);
    struct pindex_op op = { 0 };
    pindex_set_start(eng->parts[0].p, eng->parts[0].next, &op, start_moved);
    ENGINE_UNTIL(pindex_start_offset(eng->parts[0].p) == eng->parts[0].next);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_OFFSET_OUT_OF_RANGE);
}

/* In the first block of an object, wherever that begins. */
#define DAMAGE_AT (BUNDLE_SECTOR_BYTES + 200)

/* Turns a byte over in every object. */
static void damage_objects(bool truncate_them)
{
    char dir[512], path[1024];
    snprintf(dir, sizeof dir, "%s/store/b/0000", eng->dir.path);
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        u8 b;
        assert_int_equal(pread(fd, &b, 1, DAMAGE_AT), 1);
        b ^= 1;
        if (truncate_them)
            assert_int_equal(ftruncate(fd, 20), 0);
        else
            assert_int_equal(pwrite(fd, &b, 1, DAMAGE_AT), 1);
        close(fd);
    }
    closedir(d);
}

static void damaged_objects_are_never_served(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 20; i++)
        engine_put(0, 1, 20000);
    engine_seal_all();
    engine_evict_all();
    for (u32 how = 0; how < 2; how++) {
        damage_objects(how == 1);
        struct engine_read r;
        engine_read_begin(&r, 0, 0, 20, 100000, true);
        ENGINE_UNTIL(r.done);
        assert_int_equal(r.op.err, ERR_CORRUPT);
        assert_int_equal(r.op.extent_count, 0);
    }
}

static void failing_reads_are_told_and_do_not_stick(void **state)
{
    (void)state;
    engine_start();
    fill_and_evict();
    fault.error = ERR_TIMED_OUT;
    __atomic_store_n(&fault.fail_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r;
    engine_read_begin(&r, 0, 0, 1000000, 1000, true);
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_TIMED_OUT);
    engine_check_all();
}

/* Reads that wait for their turn at the WAL file, and need it no more when it comes. */
static void reads_that_queue_for_the_wal_all_end(void **state)
{
    (void)state;
    engine_start();
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    for (u32 i = 0; i < 10; i++)
        engine_put(0, 1, 1000);
    wal_seal(eng->st);
    ENGINE_UNTIL(eng->st->wal.durable == eng->st->wal.appended);
    ENGINE_UNTIL(image_evict_one(eng->st)); /* an upload may hold it for a moment */
    static struct engine_read r[40];        /* far more than may read at a time, twice */
    for (u32 i = 0; i < ARRAY_COUNT(r); i++) {
        engine_read_begin(&r[i], 0, 0, 10, 1000, true);
        assert_false(r[i].done);
    }
    eng->parts[0].p->start_offset = 5;
    for (u32 i = 0; i < ARRAY_COUNT(r); i++) {
        ENGINE_UNTIL(r[i].done);
        assert_true(r[i].op.err == ERR_NONE || r[i].op.err == ERR_OFFSET_OUT_OF_RANGE);
        engine_read_end(&r[i]);
    }
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
}

/* ---- lookups ---- */

struct engine_lookup {
    struct lookup_op op;
    bool done;
};
static void lookup_done(struct lookup_op *op)
{
    container_of(op, struct engine_lookup, op)->done = true;
}
static struct lookup_op lookup(u32 part, i64 timestamp)
{
    struct engine_lookup l = { .op = { .p = eng->parts[part].p, .timestamp = timestamp } };
    l.done = storage_lookup(&l.op, lookup_done) == READ_DONE;
    ENGINE_UNTIL(l.done);
    return l.op;
}

/* Record k of a batch with base b has timestamp b · 10 + k. */
static void check_lookups(u32 rounds)
{
    for (u32 i = 0; i < rounds; i++) {
        u32 part = (u32)engine_rand(ENGINE_PARTS);
        struct model_part *m = &eng->parts[part];
        i64 ts = (i64)engine_rand((u64)m->next * 10 + 20);
        i64 want = -1, want_ts = -1;
        for (u32 k = 0; k < m->count && want < 0; k++)
            for (i64 o = m->batches[k].base; o <= m->batches[k].last && want < 0; o++)
                if (m->batches[k].base * 10 + (o - m->batches[k].base) >= ts) {
                    want = o;
                    want_ts = m->batches[k].base * 10 + (o - m->batches[k].base);
                }
        struct lookup_op op = lookup(part, ts);
        assert_int_equal(op.err, ERR_NONE);
        assert_int_equal(op.offset, want);
        assert_int_equal(op.found_timestamp, want_ts);
        op = lookup(part, -3);
        assert_int_equal(op.err, ERR_NONE);
        assert_int_equal(op.offset, m->next - 1);
    }
}

static void lookups_find_the_first_record_from_any_place(void **state)
{
    (void)state;
    engine_start();
    assert_int_equal(lookup(0, 5).offset, -1); /* empty */
    assert_int_equal(lookup(0, -3).offset, -1);
    engine_fill(3 * MIB);
    check_lookups(200);
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    wal_seal(eng->st);
    ENGINE_UNTIL(eng->st->wal.durable == eng->st->wal.appended);
    engine_evict_all();
    check_lookups(100); /* partly from the WAL file */
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    engine_seal_all();
    engine_evict_all();
    check_lookups(200);
    engine_fill(MIB);
    check_lookups(200);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, engine_setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(random_reads_from_images),
        T(random_reads_from_the_wal_file),
        T(random_reads_from_blocks),
        T(random_reads_while_everything_moves),
        T(small_batches_come_in_few_extents),
        T(offsets_outside_are_told),
        T(canceled_reads_end_with_that),
        T(drop_ends_waiting_reads),
        T(start_that_moves_under_a_read_is_told),
        T(damaged_objects_are_never_served),
        T(failing_reads_are_told_and_do_not_stick),
        T(reads_that_queue_for_the_wal_all_end),
        T(lookups_find_the_first_record_from_any_place),
    };
    return cmocka_run_group_tests_name("reader", tests, NULL, NULL);
}
