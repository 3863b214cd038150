/* Rounds of compaction over a whole engine: what is left, where it lies, and what failures, drops,
 * moves of the log start, restarts and readers do to it. */
#include "engine_rig.h"

#define KEYS_MAX 64u

struct seen {
    i64 newest[KEYS_MAX]; /* offset of what is read last; -1 */
    u32 records, batches;
    i64 end;
};
static i64 written[ENGINE_PARTS][KEYS_MAX]; /* offset of the newest value; -1: none */
static u32 written_records[ENGINE_PARTS];

static int setup(void **state)
{
    engine_setup(state);
    engine_set("store.block_bytes", "16k");
    memset(written, 0xff, sizeof written);
    memset(written_records, 0, sizeof written_records);
    return 0;
}

/* One batch of records with keys key, key + step, …; null values when `tombstone`. Durable. */
static void put_keys(u32 part, u32 key, u32 count, u32 value_bytes, bool tombstone)
{
    struct model_part *m = &eng->parts[part];
    struct batch_builder b;
    struct bytes bytes;
    struct batch parsed;
    u8 *value = mem_alloc(value_bytes + 1);
    batch_builder_init(&b, 8 * MIB);
    for (u32 i = 0; i < count; i++) {
        u32 k = (key + i) % KEYS_MAX;
        struct bytes v = tombstone ? (struct bytes){ NULL, 0 } : bytes_of(value, value_bytes);
        assert_int_equal(
            batch_builder_add(&b, (m->next + i) * 10, bytes_of(&k, sizeof k), v, NULL, 0),
            ERR_NONE);
        written[part][k] = tombstone ? -1 : m->next + i;
    }
    assert_int_equal(batch_builder_finish(&b, NULL, &bytes), ERR_NONE);
    assert_int_equal(batch_parse(bytes, &parsed), ERR_NONE);
    struct engine_append ea = { 0 };
    err e;
    while ((e = storage_append(m->p, &parsed, 1, true, -1, &ea.a, engine_append_done)) == ERR_BUSY)
        engine_turn();
    assert_int_equal(e, ERR_NONE);
    ENGINE_UNTIL(ea.done);
    m->next += count;
    written_records[part] += count;
    batch_builder_free(&b);
    mem_free(value);
}

static void fill(u32 part, u32 batches)
{
    for (u32 i = 0; i < batches; i++)
        put_keys(part, (u32)engine_rand(KEYS_MAX), 1 + (u32)engine_rand(8), 2000, false);
}

static void batch_seen(struct seen *s, const struct batch *b, i64 from)
{
    struct record_iter it;
    struct record r;
    assert_true(batch_last_offset(b) >= from);
    assert_int_equal(batch_check_crc(b), ERR_NONE);
    record_iter_init(&it, b, batch_payload(b));
    while (record_next(&it, &r) == ERR_NONE) {
        u32 k;
        assert_int_equal(r.key.len, sizeof k);
        memcpy(&k, r.key.data, sizeof k);
        if (r.offset >= from)
            s->newest[k] = r.value.data ? r.offset : -1;
        s->records++;
    }
    s->batches++;
    s->end = batch_last_offset(b) + 1;
}

static void read_all(u32 part, struct seen *s)
{
    struct model_part *m = &eng->parts[part];
    *s = (struct seen){ .end = pindex_start_offset(m->p) };
    memset(s->newest, 0xff, sizeof s->newest);
    while (s->end < m->next) {
        struct engine_read r;
        engine_read_begin(&r, part, s->end, m->next, 30000, true);
        ENGINE_UNTIL(r.done);
        if (r.op.err != ERR_NONE)
            fail_msg("%s", err_name(r.op.err));
        i64 from = s->end;
        assert_true(r.op.extent_count > 0);
        for (u32 i = 0; i < r.op.extent_count; i++) {
            struct bytes rest = r.op.extents[i].bytes;
            struct batch b;
            while (batch_next(&rest, &b) == ERR_NONE)
                batch_seen(s, &b, from);
        }
        engine_read_end(&r);
    }
    assert_int_equal(s->end, m->next);
    assert_int_equal(pindex_next_offset(m->p), m->next);
}

/* Reading it all ends with the newest of each key. Returns the records read. */
static u32 check(u32 part)
{
    struct seen s;
    read_all(part, &s);
    for (u32 k = 0; k < KEYS_MAX; k++)
        if (written[part][k] < 0 || written[part][k] >= pindex_start_offset(eng->parts[part].p))
            assert_int_equal(s.newest[k], written[part][k]);
    return s.records;
}

/* Records that compaction leaves. */
static u32 left(u32 part)
{
    u32 n = 0;
    for (u32 k = 0; k < KEYS_MAX; k++)
        n += written[part][k] >= 0;
    return n;
}

/* ---- rounds ---- */

static struct clean_op op;
static bool op_over;

static void cleaned(struct clean_op *o)
{
    (void)o;
    op_over = true;
}

/* In steps of a few blocks. */
static struct clean_bounds bounds(u32 part, i64 end_offset, i64 newest_ms)
{
    struct clean_walk w = { .end_offset = end_offset, .newest_ms = newest_ms };
    u32 budget, steps = 0;
    do {
        budget = 3;
        steps++;
    } while (!pindex_clean_walk(eng->parts[part].p, &w, &budget));
    assert_true(steps >= (w.bounds.clean_bytes + w.bounds.cleanable_bytes) / (3 * 16384));
    return w.bounds;
}

static void clean_begin(u32 part)
{
    struct clean_bounds b = bounds(part, INT64_MAX, INT64_MAX);
    op = (struct clean_op){ .p = eng->parts[part].p,
                            .end = b.end,
                            .cleanable_bytes = b.cleanable_bytes,
                            .delete_retention_ms = 0 };
    op_over = false;
    assert_true(pindex_clean(&op, cleaned));
    assert_false(op_over);
}

static err clean(u32 part)
{
    clean_begin(part);
    ENGINE_UNTIL(op_over);
    return op.err;
}

static u32 store_count(const char *prefix)
{
    u32 n = 0;
    assert_int_equal(
        fault_store_below->driver->list(fault_store_below, prefix, engine_count_one, &n), ERR_NONE);
    return n;
}

static void restart(void)
{
    engine_stop();
    engine_start();
}

static void old_values_go_and_bundles_with_them(void **state)
{
    (void)state;
    engine_start();
    fill(0, 150);
    engine_seal_all();
    u64 before = pindex_bytes(eng->parts[0].p);
    assert_int_equal(clean(0), ERR_NONE);
    assert_int_equal(op.from, 0);
    assert_int_equal(op.to, eng->parts[0].next);
    assert_int_equal(op.records_removed, written_records[0] - left(0));
    assert_int_equal(check(0), left(0));
    assert_true(pindex_bytes(eng->parts[0].p) < before / 5);
    assert_int_equal(engine_keys("r/"), op.runs);
    ENGINE_UNTIL(engine_keys("b/") == 0 && engine_objects() == 0);
    restart();
    assert_int_equal(check(0), left(0));
    struct clean_bounds b = bounds(0, INT64_MAX, INT64_MAX);
    assert_int_equal(b.cleanable_bytes, 0);
    /* Images may still hold what was taken away: they must not be asked. */
    fill(0, 50);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    assert_int_equal(check(0), left(0));
    ENGINE_UNTIL(store_count("r/") == engine_keys("r/"));
    restart();
    assert_int_equal(check(0), left(0));
}

static void a_shared_bundle_stays_superseded(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 150; i++)
        put_keys(i % 2, (u32)engine_rand(KEYS_MAX), 4, 1000, false);
    engine_seal_all();
    u32 bundles = engine_keys("b/");
    /* Twice, so that the second run has to take over what the first stood for. */
    assert_int_equal(clean(0), ERR_NONE);
    put_keys(0, 0, KEYS_MAX, 10, true);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    put_keys(0, 0, 1, 10, false);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE); /* and the tombstones go, too */
    assert_true(engine_keys("b/") >= bundles);
    struct seen s;
    for (u32 round = 0; round < 2; round++) {
        read_all(0, &s);
        assert_int_equal(s.records, 1);
        assert_int_equal(s.newest[0], written[0][0]);
        assert_int_equal(check(1), written_records[1]);
        restart();
    }
    pindex_drop(eng->parts[1].p);
    eng->unknown = 2;
    ENGINE_UNTIL(engine_keys("b/") == 0);
}

static void a_small_map_and_small_pieces_get_there(void **state)
{
    (void)state;
    engine_set("log.cleaner.dedupe.buffer.size", "64k");
    engine_set("store.run_bytes", "1m");
    engine_start();
    eng->cfg.values[CFG_log_cleaner_dedupe_bytes] = 24 * 20;
    eng->cfg.values[CFG_store_run_bytes] = 30000;
    fill(0, 120);
    engine_seal_all();
    u32 rounds = 0;
    i64 at = 0;
    do {
        assert_int_equal(clean(0), ERR_NONE);
        assert_true(op.to > at);
        at = op.to;
        if (rounds++ % 5 == 0) {
            check(0);
            restart();
        }
    } while (op.to < op.end);
    assert_true(rounds > 5);
    assert_int_equal(check(0), left(0));
    restart();
    assert_int_equal(check(0), left(0));
}

static void failures_lose_nothing(void **state)
{
    (void)state;
    engine_start();
    eng->cfg.values[CFG_store_retry_ms] = 1;
    for (u32 k = 0; k < 12; k++) {
        fill(0, 40);
        engine_seal_all();
        u32 *fails = k % 3 == 0   ? &fault.fail_gets
                     : k % 3 == 1 ? &fault.fail_puts
                                  : &fault.fail_commits;
        __atomic_store_n(fails, k % 3 == 2 ? UINT32_MAX : 1 + k / 3, __ATOMIC_RELEASE);
        assert_int_equal(clean(0), ERR_IO);
        assert_true(strlen(op.what) > 0);
        __atomic_store_n(fails, 0, __ATOMIC_RELEASE);
        check(0);
        if (k % 4 == 3)
            restart();
    }
    assert_int_equal(clean(0), ERR_NONE);
    assert_int_equal(check(0), left(0));
    restart(); /* objects that were never registered are orphans */
    ENGINE_UNTIL(store_count("r/") == engine_keys("r/"));
    assert_int_equal(check(0), left(0));
}

static void a_commit_that_fails_twice_is_repeated(void **state)
{
    (void)state;
    engine_start();
    fill(0, 40);
    engine_seal_all();
    u32 puts = FAULT_SEEN(puts);
    fault.fail_commits = 2;
    assert_int_equal(clean(0), ERR_NONE);
    assert_int_equal(FAULT_SEEN(puts), puts + 1);
    assert_int_equal(check(0), left(0));
}

static void a_drop_ends_a_round(void **state)
{
    (void)state;
    engine_start();
    for (u32 k = 0; k < 3; k++) {
        fill(k, 60);
        engine_seal_all();
        u32 *hold = k == 0 ? &fault.hold_gets : &fault.hold_commits;
        if (k < 2)
            __atomic_store_n(hold, 1, __ATOMIC_RELEASE);
        u32 commits = FAULT_SEEN(commits);
        clean_begin(k);
        if (k == 1) /* dropped while the run is being registered */
            ENGINE_UNTIL(FAULT_SEEN(commits) > commits);
        pindex_drop(eng->parts[k].p);
        eng->unknown |= 1u << k;
        __atomic_store_n(hold, 0, __ATOMIC_RELEASE);
        ENGINE_UNTIL(op_over);
        ENGINE_UNTIL(engine_keys("b/") == 0 && engine_keys("r/") == 0);
    }
    engine_stop();
    engine_start();
    ENGINE_UNTIL(store_count("r/") == 0);
}

static void moved(struct pindex_op *o)
{
    assert_int_equal(o->err, ERR_NONE);
}
static void move_start(u32 part, i64 to)
{
    struct pindex_op mv = { 0 };
    pindex_set_start(eng->parts[part].p, to, &mv, moved);
    ENGINE_UNTIL(pindex_start_offset(eng->parts[part].p) == to);
}

static void the_log_start_moves_into_and_over_runs(void **state)
{
    (void)state;
    engine_start();
    eng->cfg.values[CFG_store_run_bytes] = 50000;
    fill(0, 120);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    assert_true(op.runs > 1);
    struct seen s;
    read_all(0, &s);
    i64 middle = s.newest[7];
    move_start(0, middle);
    check(0);
    restart();
    check(0);
    fill(0, 40);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    check(0);
    restart();
    check(0);
    /* During a round, beyond everything it works on. */
    fill(0, 40);
    engine_seal_all();
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    u32 commits = FAULT_SEEN(commits);
    clean_begin(0);
    ENGINE_UNTIL(FAULT_SEEN(commits) > commits);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    move_start(0, eng->parts[0].next);
    ENGINE_UNTIL(op_over);
    assert_int_equal(op.err, ERR_NONE);
    ENGINE_UNTIL(engine_keys("b/") == 0 && engine_keys("r/") == 0);
    restart();
    assert_int_equal(pindex_next_offset(eng->parts[0].p), eng->parts[0].next);
    assert_int_equal(pindex_start_offset(eng->parts[0].p), eng->parts[0].next);
}

/* The end stays known when nothing before it is left. */
static void the_end_of_an_emptied_partition_stays(void **state)
{
    (void)state;
    engine_start();
    put_keys(0, 0, 10, 100, false);
    put_keys(0, 0, 10, 100, true);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    put_keys(0, 20, 1, 100, true);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    put_keys(0, 20, 1, 100, true);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    put_keys(0, 20, 1, 100, true);
    engine_seal_all();
    for (u32 i = 0; i < 2; i++) {
        struct seen s;
        read_all(0, &s);
        assert_true(s.records <= 3);
        restart();
        assert_int_equal(pindex_next_offset(eng->parts[0].p), 23);
    }
    put_keys(0, 1, 1, 100, false);
    assert_int_equal(written[0][1], 23);
    check(0);
}

/* A read waits for a block whose object is replaced, and deleted, meanwhile. */
static void a_waiting_read_finds_the_run(void **state)
{
    (void)state;
    engine_set("store.cache_bytes", "0");
    engine_start();
    eng->cfg.values[CFG_store_delete_delay_ms] = 0;
    fill(0, 40);
    engine_seal_all();
    engine_evict_all();
    assert_int_equal(clean(0), ERR_NONE);
    fill(0, 40);
    engine_seal_all();
    engine_evict_all();
    clean_begin(0);
    u32 commits = FAULT_SEEN(commits);
    __atomic_store_n(&fault.hold_commits, 1, __ATOMIC_RELEASE);
    ENGINE_UNTIL(FAULT_SEEN(commits) > commits);
    __atomic_store_n(&fault.hold_gets, 1, __ATOMIC_RELEASE);
    struct engine_read r;
    engine_read_begin(&r, 0, 0, eng->parts[0].next, 1000, true);
    assert_false(r.done);
    engine_turn();
    u32 removes = FAULT_SEEN(removes);
    __atomic_store_n(&fault.hold_commits, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(op_over && FAULT_SEEN(removes) > removes);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_NONE);
    assert_true(r.op.extent_count > 0);
    engine_read_end(&r);
    check(0);
}

static bool looked;
static void look_done(struct lookup_op *o)
{
    (void)o;
    looked = true;
}
static i64 look(i64 timestamp)
{
    struct lookup_op l = { .p = eng->parts[0].p, .timestamp = timestamp };
    looked = storage_lookup(&l, look_done) == READ_DONE;
    ENGINE_UNTIL(looked);
    assert_int_equal(l.err, ERR_NONE);
    return l.offset;
}

/* Timestamps are offsets · 10. */
static void lookups_by_time_find_what_is_left(void **state)
{
    (void)state;
    engine_start();
    fill(0, 100);
    put_keys(0, 3, 1, 10, false);
    engine_seal_all();
    assert_int_equal(clean(0), ERR_NONE);
    struct seen s;
    read_all(0, &s);
    for (i64 t = 0; t < eng->parts[0].next; t += 17) {
        i64 want = -1;
        for (u32 k = 0; k < KEYS_MAX; k++)
            if (s.newest[k] >= t && (want < 0 || s.newest[k] < want))
                want = s.newest[k];
        assert_int_equal(look(t * 10), want);
    }
    assert_int_equal(look(-3), written[0][3]);
    assert_int_equal(pindex_max_timestamp(eng->parts[0].p), written[0][3] * 10);
}

static void a_stop_ends_a_round(void **state)
{
    (void)state;
    engine_start();
    fill(0, 100);
    engine_seal_all();
    clean_begin(0);
    engine_turn();
    engine_stop();
    assert_true(op_over);
    engine_start();
    check(0);
    assert_int_equal(clean(0), ERR_NONE);
    assert_int_equal(check(0), left(0));
}

static void bounds_keep_what_is_new(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 10; i++)
        put_keys(0, i, 1, 10000, false);
    engine_seal_all();
    struct clean_bounds b;
    struct pindex *p = eng->parts[0].p;
    b = bounds(0, INT64_MAX, INT64_MAX);
    assert_int_equal(b.end, 10);
    assert_int_equal(b.clean_bytes, 0);
    assert_int_equal(b.cleanable_bytes, pindex_bytes(p));
    b = bounds(0, INT64_MAX, 45); /* of timestamps 0, 10, … */
    assert_int_equal(b.end, 5);
    b = bounds(0, 3, INT64_MAX);
    assert_int_equal(b.end, 3);
    put_keys(0, 0, 1, 10, false); /* not uploaded: not there */
    b = bounds(0, INT64_MAX, INT64_MAX);
    assert_int_equal(b.end, 10);
    assert_int_equal(clean(0), ERR_NONE);
    b = bounds(0, INT64_MAX, INT64_MAX);
    assert_int_equal(b.cleanable_bytes, 0);
    assert_true(b.clean_bytes > 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(old_values_go_and_bundles_with_them),
        T(a_shared_bundle_stays_superseded),
        T(a_small_map_and_small_pieces_get_there),
        T(failures_lose_nothing),
        T(a_commit_that_fails_twice_is_repeated),
        T(a_drop_ends_a_round),
        T(the_log_start_moves_into_and_over_runs),
        T(the_end_of_an_emptied_partition_stays),
        T(a_waiting_read_finds_the_run),
        T(lookups_by_time_find_what_is_left),
        T(a_stop_ends_a_round),
        T(bounds_keep_what_is_new),
    };
    return cmocka_run_group_tests_name("cleaner", tests, NULL, NULL);
}
