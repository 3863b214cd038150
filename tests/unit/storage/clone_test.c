/* A partition that shares its blocks with another one: whatever happens to one of them, the other
 * stays as it was, and an object goes when neither needs it. */
#include "engine_rig.h"

#include "../../../storage/clone.h"
#include "../../../storage/clone_int.h"
#include "hash.h"

static struct partition_key target;

static int setup(void **state)
{
    (void)state;
    engine_new();
    engine_start();
    struct rng r;
    rng_init(&r, 7);
    target = engine_key(2);
    target.topic_id = clone_topic_id(target.topic_id, &r);
    return 0;
}

static struct pindex *clone_index(void)
{
    return pindex_find(eng->st, &target);
}

static err copy_err;
static bool copy_over;
static u64 copy_deadline_ns = UINT64_MAX;

static void copied(struct clone_copy *c)
{
    copy_err = c->err;
    copy_over = true;
}

static err copy_until(i64 end_offset)
{
    static struct clone_copy c;
    c = (struct clone_copy){ .source = eng->parts[2].p,
                             .target = clone_index(),
                             .end_offset = end_offset,
                             .deadline_ns = copy_deadline_ns };
    copy_over = false;
    clone_copy_start(&c, copied);
    ENGINE_UNTIL(copy_over);
    return copy_err;
}

static err clone_try(i64 end_offset)
{
    struct clone_part part = { .source = engine_key(2),
                               .target = target,
                               .end_offset = end_offset };
    err e = clone_gather(eng->st, &part, 0);
    if (e != ERR_NONE)
        return e;
    assert_int_equal(clone_write(fault_meta_below, &part, 1), ERR_NONE);
    clone_install(eng->st, &part, false);
    clone_free(&part);
    return ERR_NONE;
}

static void clone_make(void)
{
    assert_int_equal(clone_try(INT64_MAX), ERR_NONE);
}

/* The clone holds the source's batches [first, count), read from the store. */
static void clone_holds(u32 first, u32 count)
{
    struct model_part *m = &eng->parts[2];
    struct pindex *source = m->p;
    struct model_part whole = *m;
    engine_evict_all();
    assert_non_null(clone_index());
    assert_int_equal(pindex_next_offset(clone_index()), m->batches[count - 1].last + 1);
    m->p = clone_index();
    m->count = count;
    m->next = m->batches[count - 1].last + 1;
    engine_check_part(2, m->batches[first].base, 60000);
    *m = whole;
    m->p = source;
}

static void start_moved(struct pindex_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

static void start_set(struct pindex *p, i64 offset)
{
    struct pindex_op op = { 0 };
    pindex_set_start(p, offset, &op, start_moved);
    ENGINE_UNTIL(pindex_start_offset(p) == offset);
}

static void drop(struct pindex *p)
{
    pindex_drop(p);
    for (u32 i = 0; i < 20; i++)
        engine_turn();
}

static void restart(void)
{
    engine_stop();
    engine_start();
}

static void put_some(u32 batches)
{
    for (u32 i = 0; i < batches; i++)
        engine_put(2, 3, 20000);
    engine_seal_all();
}

static void topic_ids_of_a_family_are_on_one_shard(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3);
    struct partition_key a = { rng_uuid(&r), 0 }, b = a;
    b.topic_id = clone_topic_id(clone_topic_id(a.topic_id, &r), &r);
    assert_false(uuid_eq(a.topic_id, b.topic_id));
    for (u32 shards = 1; shards < 50; shards++)
        for (a.partition = b.partition = 0; a.partition < 5; b.partition = ++a.partition)
            assert_int_equal(storage_shard_of(&a, shards), storage_shard_of(&b, shards));
}

static void a_clone_reads_the_same_and_survives_a_restart(void **state)
{
    (void)state;
    put_some(40);
    u32 objects = engine_objects();
    clone_make();
    clone_holds(0, 40);
    assert_int_equal(engine_objects(), objects);
    restart();
    clone_holds(0, 40);
    engine_check_all();
}

/* What is appended to either is its own. */
static void a_clone_goes_its_own_way(void **state)
{
    (void)state;
    put_some(10);
    clone_make();
    struct model_part *m = &eng->parts[2];
    put_some(5);
    clone_holds(0, 10);
    struct model_part grown = *m;
    *m = (struct model_part){ .count = 10, .next = grown.batches[9].last + 1 };
    m->batches = mem_alloc(10 * sizeof *m->batches);
    for (u32 i = 0; i < 10; i++) {
        m->batches[i] = grown.batches[i];
        struct bytes b = grown.batches[i].bytes;
        m->batches[i].bytes = bytes_of(mem_dup(b.data, b.len), b.len);
    }
    m->p = clone_index(); /* which is written to */
    put_some(7);
    engine_evict_all();
    engine_check_part(2, 0, 60000);
    for (u32 i = 0; i < m->count; i++)
        batch_drop(m->batches[i].bytes);
    mem_free(m->batches);
    *m = grown;
    engine_check_part(2, 0, 60000);
}

static void neither_log_start_hurts_the_other(void **state)
{
    (void)state;
    put_some(100);
    assert_true(engine_objects() >= 4);
    clone_make();
    start_set(eng->parts[2].p, eng->parts[2].batches[90].base);
    restart();
    clone_holds(0, 100);
    start_set(clone_index(), eng->parts[2].batches[50].base);
    ENGINE_UNTIL(engine_objects() == engine_keys("b/") && engine_keys("d/") == 0);
    restart();
    clone_holds(50, 100);
    engine_check_all();
    drop(clone_index());
    start_set(eng->parts[2].p, eng->parts[2].batches[99].base);
    ENGINE_UNTIL(engine_objects() == 1);
    engine_check_all();
}

static void objects_go_with_the_last_who_needs_them(void **state)
{
    (void)state;
    put_some(60);
    u32 objects = engine_objects();
    clone_make();
    drop(eng->parts[2].p);
    restart(); /* pindex_open of the rig makes an empty partition in its place */
    ENGINE_UNTIL(engine_keys("d/") == 0);
    assert_int_equal(engine_objects(), objects);
    clone_holds(0, 60);
    drop(clone_index());
    drop(eng->parts[2].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(engine_objects() == 0);
    assert_int_equal(engine_keys("b/"), 0);
    restart(); /* the key k/ of a deleted clone is ignored */
}

/* The records of [from, to) as a reader gets them, one hash over all. */
static u64 records_hash(struct pindex *p, i64 from, i64 to, u32 *count)
{
    struct model_part rig = eng->parts[2];
    u64 hash = 0;
    *count = 0;
    eng->parts[2].p = p;
    for (i64 at = from; at < to;) {
        struct engine_read r;
        engine_read_begin(&r, 2, at, to, 1000000, true);
        ENGINE_UNTIL(r.done);
        assert_int_equal(r.op.err, ERR_NONE);
        assert_true(r.op.extent_count > 0);
        for (u32 i = 0; i < r.op.extent_count; i++) {
            struct bytes data = r.op.extents[i].bytes;
            struct batch b;
            while (batch_next(&data, &b) == ERR_NONE) {
                struct record_iter it;
                struct record k;
                assert_int_equal(batch_check_crc(&b), ERR_NONE);
                record_iter_init(&it, &b, batch_payload(&b));
                while (record_next(&it, &k) == ERR_NONE) {
                    if (k.offset < from || k.offset >= to)
                        continue;
                    struct hash_stream h;
                    hash_stream_init(&h, hash);
                    hash_stream_update(&h, (u8 *)&k.offset, sizeof k.offset);
                    hash_stream_update(&h, (u8 *)&k.timestamp, sizeof k.timestamp);
                    hash_stream_update(&h, k.value.data, k.value.len);
                    hash = hash_stream_value(&h);
                    ++*count;
                }
                at = batch_last_offset(&b) + 1;
            }
        }
        engine_read_end(&r);
    }
    eng->parts[2] = rig;
    return hash;
}

static void ends_at(i64 start, i64 end)
{
    u32 of_source, of_clone;
    assert_int_equal(pindex_start_offset(clone_index()), start);
    assert_int_equal(pindex_next_offset(clone_index()), end);
    assert_int_equal(pindex_durable_offset(clone_index()), end);
    u64 want = records_hash(eng->parts[2].p, start, end, &of_source);
    assert_int_equal(records_hash(clone_index(), start, end, &of_clone), want);
    assert_int_equal(of_clone, of_source);
}

/* Blocks below are shared; the rest of the last one is copied, to the record. */
static void a_clone_ends_where_it_was_told(void **state)
{
    (void)state;
    put_some(60);
    for (i64 end = 9; end < 15; end++) {
        assert_int_equal(clone_try(end), ERR_NONE);
        assert_int_equal(pindex_next_offset(clone_index()), end / 3 * 3); /* a block is a batch */
        assert_int_equal(copy_until(end), ERR_NONE);
        ends_at(0, end);
        restart();
        ends_at(0, end);
        target.topic_id.b[15]++;
    }
    assert_int_equal(clone_try(0), ERR_NONE); /* nothing */
    assert_int_equal(copy_until(0), ERR_NONE);
    assert_int_equal(pindex_next_offset(clone_index()), 0);
}

/* The log start lies within a batch, and so does the end, of the same one even. */
static void a_clone_of_a_few_records(void **state)
{
    (void)state;
    put_some(10);
    i64 base = eng->parts[2].batches[4].base;
    start_set(eng->parts[2].p, base + 1);
    assert_int_equal(clone_try(base + 2), ERR_NONE);
    assert_int_equal(copy_until(base + 2), ERR_NONE);
    ends_at(base + 1, base + 2);
    restart();
    ends_at(base + 1, base + 2);
    target.topic_id.b[15]++;
    assert_int_equal(clone_try(base + 7), ERR_NONE);
    start_set(eng->parts[2].p, base + 7);
    assert_int_equal(copy_until(base + 7), ERR_OFFSET_OUT_OF_RANGE);
}

/* leat.durability=object: what is copied counts when it is in the store. */
static void a_copy_waits_for_the_store(void **state)
{
    (void)state;
    put_some(10);
    assert_int_equal(clone_try(14), ERR_NONE);
    pindex_set_object(clone_index(), true);
    __atomic_store_n(&fault.fail_puts, UINT32_MAX, __ATOMIC_RELEASE);
    fault.error = ERR_IO;
    copy_deadline_ns = eng->shard.now_ns + 50 * NS_PER_MS;
    assert_int_equal(copy_until(14), ERR_TIMED_OUT);
    assert_int_equal(pindex_durable_offset(clone_index()), 12);
    __atomic_store_n(&fault.fail_puts, 0, __ATOMIC_RELEASE);
    copy_deadline_ns = UINT64_MAX;
    assert_int_equal(copy_until(14), ERR_NONE);
    assert_int_equal(pindex_tiered_end(clone_index()), 14);
    ends_at(0, 14);
}

static void there_is_no_room(void **state)
{
    (void)state;
    put_some(60);
    engine_set("index.memory", "1m");
    struct clone_part part = { .source = engine_key(2), .target = target, .end_offset = INT64_MAX };
    assert_int_equal(clone_gather(eng->st, &part, 2 * MIB), ERR_NO_MEMORY);
    assert_int_equal(clone_try(INT64_MAX), ERR_NONE);
    assert_true(clone_index_bytes(&part) == 0);
}

static void a_clone_of_a_clone(void **state)
{
    (void)state;
    put_some(30);
    clone_make();
    struct partition_key first = target;
    target.topic_id.b[15]++;
    struct clone_part part = { .source = first, .target = target, .end_offset = INT64_MAX };
    assert_int_equal(clone_gather(eng->st, &part, 0), ERR_NONE);
    assert_int_equal(clone_write(fault_meta_below, &part, 1), ERR_NONE);
    clone_install(eng->st, &part, false);
    clone_free(&part);
    drop(pindex_find(eng->st, &first));
    drop(eng->parts[2].p);
    restart();
    clone_holds(0, 30);
}

static void what_is_given_back_is_not_counted(void **state)
{
    (void)state;
    put_some(20);
    struct clone_part part = { .source = engine_key(2), .target = target, .end_offset = INT64_MAX };
    assert_int_equal(clone_gather(eng->st, &part, 0), ERR_NONE);
    clone_release(eng->st, &part);
    clone_free(&part);
    part.source.partition = 77;
    assert_int_equal(clone_gather(eng->st, &part, 0), ERR_UNKNOWN_TOPIC_OR_PARTITION);
    drop(eng->parts[2].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(engine_objects() == 0);
}

/* ---- compaction of the source ---- */

static void cleaned(struct clean_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

/* A round over a partition without keys takes all records away but the empty end. */
static void round_of(struct pindex *p)
{
    struct clean_walk w = { .end_offset = INT64_MAX, .newest_ms = INT64_MAX };
    u32 all = UINT32_MAX;
    assert_true(pindex_clean_walk(p, &w, &all));
    struct clean_op op = { .p = p, .end = w.bounds.end };
    assert_true(pindex_clean(&op, cleaned));
    ENGINE_UNTIL(eng->st->cleaning == NULL);
}

static err count_run(void *arg, const struct meta_kv *kv)
{
    struct bundle_reg reg;
    assert_int_equal(bundle_reg_decode(kv->value, &reg), ERR_NONE);
    ((u32 *)arg)[reg.retired]++;
    return ERR_NONE;
}

static void a_run_that_is_replaced_stays_for_its_clone(void **state)
{
    (void)state;
    u32 runs[2] = { 0, 0 };
    put_some(20);
    round_of(eng->parts[2].p);
    assert_true(engine_keys("r/") >= 1);
    clone_make();
    u32 blocks = clone_index()->block_end - clone_index()->block_head;
    u64 bytes = pindex_bytes(clone_index());
    put_some(20);
    engine_set("store.run_bytes", "64m");
    round_of(eng->parts[2].p);
    assert_int_equal(meta_range(fault_meta_below, bytes_str("r/"), count_run, runs), ERR_NONE);
    assert_true(runs[0] >= 1 && runs[1] >= 1);
    restart();
    assert_int_equal(pindex_bytes(clone_index()), bytes);
    assert_int_equal(clone_index()->block_end - clone_index()->block_head, blocks);
    struct engine_read r;
    struct model_part rig = eng->parts[2];
    eng->parts[2].p = clone_index();
    engine_read_begin(&r, 2, 0, pindex_next_offset(clone_index()), 1000000, true);
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_NONE);
    assert_true(r.op.bytes > 0);
    engine_read_end(&r);
    eng->parts[2] = rig;
    drop(clone_index());
    ENGINE_UNTIL(engine_keys("d/") == 0 && engine_keys("r/") == runs[0]);
}

/* The clone's own rounds leave the source's run alone. */
static void a_clone_that_is_rewritten_leaves_its_source(void **state)
{
    (void)state;
    put_some(20);
    round_of(eng->parts[2].p);
    u64 bytes = pindex_bytes(eng->parts[2].p);
    clone_make();
    round_of(clone_index());
    restart();
    assert_int_equal(pindex_bytes(eng->parts[2].p), bytes);
    drop(clone_index());
    ENGINE_UNTIL(engine_keys("d/") == 0);
    restart();
    assert_int_equal(pindex_bytes(eng->parts[2].p), bytes);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topic_ids_of_a_family_are_on_one_shard),
        T(a_clone_reads_the_same_and_survives_a_restart),
        T(a_clone_goes_its_own_way),
        T(neither_log_start_hurts_the_other),
        T(objects_go_with_the_last_who_needs_them),
        T(a_clone_ends_where_it_was_told),
        T(a_clone_of_a_few_records),
        T(a_copy_waits_for_the_store),
        T(there_is_no_room),
        T(a_clone_of_a_clone),
        T(what_is_given_back_is_not_counted),
        T(a_run_that_is_replaced_stays_for_its_clone),
        T(a_clone_that_is_rewritten_leaves_its_source),
    };
    return cmocka_run_group_tests_name("clone", tests, NULL, NULL);
}
