/* The index of a partition: where offsets and times are found while segments come and go. */
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
    rig_crash();
    rig_free();
    return 0;
}

static void keys_are_ordered_and_parse_back(void **s)
{
    (void)s;
    char a[META_KEY_SIZE], b[META_KEY_SIZE];
    struct partition_key k = rig_key(0x1f), out;
    struct bytes key = meta_key_partition(a, 'p', &k);
    assert_true(bytes_eq_str(key, "p/01020300000000000000000000000000/0000001f"));
    assert_true(meta_key_partition_parse(key, &out));
    assert_memory_equal(&out, &k, sizeof k);
    k.partition = 0x100;
    assert_true(bytes_cmp(key, meta_key_partition(b, 'p', &k)) < 0);
    for (u32 cut = 0; cut < key.len; cut++)
        assert_false(meta_key_partition_parse(bytes_of(key.data, cut), &out));
    u64 id;
    key = meta_key_bundle(a, bundle_id(3, 0x1234));
    assert_true(bytes_eq_str(key, "b/0003/0000000000001234"));
    assert_true(meta_key_bundle_parse(key, &id));
    assert_int_equal(bundle_wal(id), 3);
    assert_int_equal(bundle_seq(id), 0x1234);
    assert_false(meta_key_bundle_parse(bytes_str("b/0003/00000000000012g4"), &id));
    assert_true(bytes_eq_str(meta_key_wal(a, 255), "w/00ff"));
}

static void shards_share_partitions_evenly(void **s)
{
    (void)s;
    u32 count[8] = { 0 };
    for (u32 i = 0; i < 8000; i++) {
        struct partition_key k = rig_key(i);
        count[storage_shard_of(&k, 8)]++;
    }
    for (u32 i = 0; i < 8; i++)
        assert_true(count[i] > 850 && count[i] < 1150);
}

static void empty_partition_has_nothing(void **s)
{
    (void)s;
    struct place at;
    struct pindex *p = rig_part(0);
    assert_int_equal(pindex_bytes(p), 0);
    assert_int_equal(pindex_max_timestamp(p), -1);
    assert_false(pindex_place(p, 0, &at));
    assert_false(pindex_place_time(p, 0, &at));
    assert_false(pindex_place_max_time(p, &at));
    assert_ptr_equal(pindex_open(rig->st, pindex_key(p)), p);
    pindex_set_user(p, rig);
    assert_ptr_equal(pindex_user(p), rig);
}

/* Every offset is found, in a batch that holds it, whatever lies where. */
static void expect_all_found(struct pindex *p)
{
    struct place at;
    i64 o = p->start_offset;
    while (o < p->durable_offset) {
        assert_true(pindex_place(p, o, &at));
        assert_true((at.entry != NULL) != (at.block != NULL));
        i64 base = at.entry ? at.entry->base_offset : at.block->base_offset;
        assert_true(base <= o);
        assert_true(place_next_offset(&at) > o);
        if (at.entry)
            assert_true(at.seg->image || at.seg->state != SEG_REGISTERED);
        o++;
    }
    assert_int_equal(o, p->durable_offset);
    assert_false(pindex_place(p, o, &at));
}

static u64 live_bytes(struct pindex *p)
{
    u64 n = 0;
    for (u32 i = p->block_head; i < p->block_end; i++)
        n += p->blocks[i].data_bytes;
    for (u32 i = p->entry_head; i < p->entry_end; i++)
        if (p->entries[i].base_offset >= p->registered_end)
            n += p->entries[i].bytes;
    return n;
}

static void all_offsets_are_found_through_evictions(void **s)
{
    (void)s;
    u64 put = 0;
    for (u32 i = 0; i < 200; i++) {
        u64 before = pindex_bytes(rig_part(0));
        rig_put(0, 1 + i % 3, 60000);
        put += pindex_bytes(rig_part(0)) - before;
        if (i % 40 == 39) {
            (void)rig_register(true);
            (void)rig_register(true);
            (void)image_evict_one(rig->st);
        }
        if (i % 20 == 0)
            expect_all_found(rig_part(0));
    }
    while (image_evict_one(rig->st))
        ;
    expect_all_found(rig_part(0));
    assert_int_equal(pindex_bytes(rig_part(0)), put);
    assert_int_equal(live_bytes(rig_part(0)), put);
    while (rig_register(true))
        ;
    while (image_evict_one(rig->st))
        ;
    expect_all_found(rig_part(0));
    assert_int_equal(pindex_bytes(rig_part(0)), put);
    /* Only the open segment's entries are left. */
    assert_true(rig_part(0)->entry_end - rig_part(0)->entry_head < 20);
}

static struct pindex_op op;
static void op_done(struct pindex_op *o)
{
    (void)o;
}
static void set_start(i64 offset)
{
    pindex_set_start(rig_part(0), offset, &op, op_done);
    while (rig->st->job_count > 0)
        rig_turn();
    assert_int_equal(op.err, ERR_NONE);
}

static void log_start_drops_blocks_and_entries(void **s)
{
    (void)s;
    rig_blocks_gone = 0;
    for (u32 i = 0; i < 60; i++)
        rig_put(0, 2, 100000);
    for (u32 i = 0; i < 3; i++)
        assert_true(rig_register(true));
    u32 blocks = rig_part(0)->block_end - rig_part(0)->block_head;
    assert_int_equal(blocks, 3);
    i64 middle = rig_part(0)->blocks[1].base_offset + 1;
    set_start(middle);
    assert_int_equal(rig_blocks_gone, 1);
    assert_int_equal(pindex_bytes(rig_part(0)), live_bytes(rig_part(0)));
    expect_all_found(rig_part(0));
    set_start(5); /* never back */
    assert_int_equal(pindex_start_offset(rig_part(0)), middle);
    set_start(rig_part(0)->registered_end + 3);
    assert_int_equal(rig_blocks_gone, 3);
    assert_int_equal(pindex_bytes(rig_part(0)), live_bytes(rig_part(0)));
    expect_all_found(rig_part(0));
    set_start(INT64_MAX);
    assert_int_equal(pindex_start_offset(rig_part(0)), 120);
    assert_int_equal(pindex_bytes(rig_part(0)), 0);
    /* What is registered later lies below the log start at once. */
    while (rig_register(true))
        ;
    assert_int_equal(pindex_bytes(rig_part(0)), 0);
    rig_put(0, 1, 10);
    expect_all_found(rig_part(0));
}

static void failed_start_move_changes_nothing(void **s)
{
    (void)s;
    rig_put(0, 10, 100);
    rig->meta.fail = ERR_DISK_FULL;
    pindex_set_start(rig_part(0), 5, &op, op_done);
    while (rig->st->job_count > 0)
        rig_turn();
    assert_int_equal(op.err, ERR_DISK_FULL);
    assert_int_equal(pindex_start_offset(rig_part(0)), 0);
    rig->meta.fail = ERR_NONE;
    set_start(3);
    assert_int_equal(pindex_start_offset(rig_part(0)), 3);
}

static void times_are_found(void **s)
{
    (void)s;
    for (u32 i = 0; i < 40; i++)
        rig_put(0, 3, 60000);
    assert_true(rig_register(true));
    struct pindex *p = rig_part(0);
    i64 max = pindex_max_timestamp(p);
    struct place at;
    assert_true(pindex_place_max_time(p, &at));
    assert_int_equal(at.entry ? at.entry->max_timestamp : at.block->max_timestamp, max);
    assert_true(pindex_place_time(p, max, &at));
    assert_int_equal(at.entry ? at.entry->max_timestamp : at.block->max_timestamp, max);
    assert_false(pindex_place_time(p, max + 1, &at));
    assert_true(pindex_place_time(p, 0, &at));
    assert_int_equal(at.block->base_offset, 0);
}

static void ten_thousand_empty_partitions_are_small(void **s)
{
    (void)s;
    u64 before = mem_used();
    for (u32 i = 0; i < 10000; i++)
        (void)rig_part(i);
    u64 each = (mem_used() - before) / 10000;
    print_message("bytes for an empty partition: %u\n", (unsigned)each);
    assert_true(each <= 512);
}

static u64 arrays_bytes(void)
{
    u64 bytes = 0;
    struct pindex *p, *next;
    HASH_ITER(hh, rig->st->parts, p, next)
        bytes += p->entry_cap * sizeof *p->entries + p->block_cap * sizeof *p->blocks;
    return bytes;
}

/* Memory for the next segment may be on its way (a thread touches it): then it is waited for. */
static err append_small(u32 part)
{
    static struct rig_append appends[8192];
    static u32 used;
    for (;;) {
        bool memory_comes = rig->st->image_job.busy;
        err e = rig_append_one(rig_part(part), 1, 10, &appends[used++ % 8192]);
        rig_settle();
        if (e == ERR_NONE || rig->st->index_full || !(memory_comes || rig->st->image_job.busy))
            return e;
        rig_turn();
    }
}

/* Batches of segments that are not registered, then blocks: both are counted, and make room
 * again. */
static void the_index_has_a_bound(void **s)
{
    (void)s;
    u32 taken = 0;
    rig->cfg.values[CFG_index_memory] = 64 * 1024;
    while (append_small(taken % 3) == ERR_NONE)
        taken++;
    assert_true(rig->st->index_full && !index_fits(rig->st, 0));
    assert_int_equal(rig->st->index_bytes, arrays_bytes());
    assert_true(taken * sizeof(struct entry) <= 64 * 1024);
    assert_true(taken * sizeof(struct entry) > 64 * 1024 / 3);
    for (u32 i = 0; i < 3; i++)
        expect_all_found(rig_part(i));
    /* Uploaded: their images go, and with them what they were found by. */
    wal_seal(rig->st);
    rig_settle();
    while (segment_first_unregistered(rig->st))
        if (!rig_register(true))
            rig_turn();
    assert_int_equal(append_small(0), ERR_NONE);
    assert_false(rig->st->index_full);
    assert_int_equal(rig->st->index_bytes, arrays_bytes());
    assert_true(rig->st->index_bytes < 64 * 1024 / 2);
    for (u32 i = 0; i < 3; i++)
        expect_all_found(rig_part(i));
    pindex_drop(rig_part(1));
    while (rig->st->job_count > 0)
        rig_turn();
    assert_int_equal(rig->st->index_bytes, arrays_bytes());
}

/* Room that retention made is given back when it is needed, not before. */
static void arrays_give_back_what_they_do_not_need(void **s)
{
    (void)s;
    struct pindex *p = rig_part(0);
    for (u32 i = 0; i < 1000; i++)
        pindex_add_block(p, &(struct block){ .bundle = bundle_id(0, i),
                                             .base_offset = i,
                                             .last_offset = i,
                                             .data_bytes = 1 });
    u64 full = rig->st->index_bytes;
    assert_true(full >= 1000 * sizeof(struct block) && full == arrays_bytes());
    set_start(990);
    assert_int_equal(rig->st->index_bytes, full);
    rig->cfg.values[CFG_index_memory] = 64 * 1024;
    rig->st->index_bytes += 64 * 1024; /* of somebody else */
    assert_false(index_room(rig->st));
    rig->st->index_bytes -= 64 * 1024;
    assert_true(rig->st->index_bytes < 64 * sizeof(struct block));
    assert_int_equal(rig->st->index_bytes, arrays_bytes());
    assert_int_equal(p->block_end - p->block_head, 10);
    assert_int_equal(p->blocks[p->block_head].base_offset, 990);
    assert_true(index_room(rig->st));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(keys_are_ordered_and_parse_back),
        T(shards_share_partitions_evenly),
        T(empty_partition_has_nothing),
        T(all_offsets_are_found_through_evictions),
        T(log_start_drops_blocks_and_entries),
        T(failed_start_move_changes_nothing),
        T(times_are_found),
        T(ten_thousand_empty_partitions_are_small),
        T(the_index_has_a_bound),
        T(arrays_give_back_what_they_do_not_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
