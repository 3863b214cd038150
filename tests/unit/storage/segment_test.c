/* Segments and images: what may be taken away, and when. */
#include "../../../storage/bundle_int.h"
#include "wal_rig.h"

static int setup(void **s)
{
    (void)s;
    rig_new();
    rig_set("wal.size", "64m");
    rig_start(); /* images: 32 of 1 MiB */
    return 0;
}

static int teardown(void **s)
{
    (void)s;
    rig_crash();
    rig_free();
    return 0;
}

static void fill(u32 segments)
{
    for (u32 i = 0; i < segments * 10; i++)
        rig_put(0, 1, 100000);
}

static void registered_images_stay_until_needed(void **s)
{
    (void)s;
    fill(5);
    while (rig_register(true))
        ;
    struct place at;
    assert_true(pindex_place(rig_part(0), 0, &at));
    assert_non_null(at.entry); /* served from memory although it is in a bundle */
    assert_true(image_evict_one(rig->st));
    assert_true(pindex_place(rig_part(0), 0, &at));
    assert_non_null(at.block);
    assert_true(image_evict_one(rig->st));
}

static void images_are_bounded_and_unregistered_ones_give_way(void **s)
{
    (void)s;
    fill(45); /* nothing is registered: the store is away */
    assert_true(rig->st->image_count <= rig->st->image_max);
    struct segment *seg = segment_first_unregistered(rig->st);
    assert_non_null(seg->image); /* uploaded next */
    while (seg->image)
        seg = segment_next(rig->st, seg);
    assert_int_equal(seg->state, SEG_DURABLE);
    const struct entry *e;
    struct place at;
    assert_true(pindex_segment_entries(rig_part(0), rig->st, seg->seq, &e) > 0);
    assert_true(pindex_place(rig_part(0), e->base_offset, &at));
    assert_non_null(at.entry); /* the reader goes to the WAL file */
    assert_null(at.seg->image);
}

/* A log that is written now and then goes on with the memory it has. */
static void a_trickle_takes_little_memory(void **s)
{
    (void)s;
    struct storage *st = rig->st;
    for (u32 i = 0; i < 6; i++) {
        fill(1);
        while (rig_register(true))
            ;
        u64 until = st->shard->now_ns + NS_PER_S + NS_PER_S / 10;
        while (st->shard->now_ns < until)
            rig_turn();
    }
    assert_in_range(st->image_count, 1, 4);
}

/* Of what waits for its upload nothing goes, and what is written next gets memory again. */
static void idle_memory_is_given_back(void **s)
{
    (void)s;
    struct storage *st = rig->st;
    fill(5);
    u32 before = st->image_count;
    assert_true(before > 2);
    rig_set("memory.keep", "0");
    u64 deadline = st->shard->now_ns + 2 * NS_PER_S;
    while (st->shard->now_ns < deadline)
        rig_turn();
    for (u32 i = 0; i < st->sealed_unregistered; i++)
        assert_non_null(segment_find(st, st->wal.registered_seq + i)->image);
    while (rig_register(true))
        ;
    deadline = st->shard->now_ns + 20 * NS_PER_S;
    while (st->image_count > 1 && st->shard->now_ns < deadline)
        rig_turn();
    assert_int_equal(st->image_count, 1);
    fill(5);
    assert_true(st->image_count > 2);
}

/* Large batches lie in their sectors as they will in the bundle. */
static void large_batches_lie_as_in_their_bundle(void **s)
{
    (void)s;
    for (u32 i = 0; i < 60; i++)
        rig_put(i % 3, 1, i % 7 == 3 ? 500 : 20000 + 37 * i);
    struct segment *seg = segment_first_unregistered(rig->st);
    struct bundle_builder b;
    bundle_builder_init(&b, 0, 0, 1, (u32)config_u64(rig->st->env->cfg, CFG_store_block_bytes));
    for (u32 i = 0; i < seg->part_count; i++) {
        const struct entry *e;
        u32 n = pindex_segment_entries(seg->parts[i], rig->st, seg->seq, &e);
        for (u32 k = 0; k < n; k++)
            bundle_builder_add(
                &b, &seg->parts[i]->key, e[k].base_offset, entry_last_offset(&e[k]), 0,
                bytes_of(seg->image->bytes + entry_lsn(&e[k]) % rig->st->wal.segment_bytes,
                         e[k].bytes));
    }
    bundle_builder_seal(&b);
    u64 pos = 0;
    u32 large = 0;
    for (u32 i = 0; i < b.part_count; i++) {
        if (b.parts[i].len >= BUNDLE_LARGE_BATCH && i + 1 < b.part_count) {
            assert_int_equal((uintptr_t)b.parts[i].data % 512, pos % 512);
            large++;
        }
        pos += b.parts[i].len;
    }
    assert_int_equal(pos, b.bytes);
    assert_true(large > 20);
    bundle_builder_free(&b);
}

static void referenced_images_stay(void **s)
{
    (void)s;
    fill(3);
    struct segment *seg = segment_first_unregistered(rig->st);
    ref_get(&seg->image->ref);
    struct image *im = seg->image;
    u8 first = im->bytes[FRAME_AT_MAGIC];
    while (rig_register(true))
        ;
    while (image_evict_one(rig->st))
        ;
    fill(40);
    while (rig_register(true))
        ;
    while (image_evict_one(rig->st))
        ;
    assert_ptr_equal(im->seg, seg);
    assert_int_equal(im->bytes[FRAME_AT_MAGIC], first);
    ref_put(&im->ref);
    assert_true(image_evict_one(rig->st));
}

static void pinned_slots_are_not_reused(void **s)
{
    (void)s;
    fill(2);
    struct segment *seg = segment_first_unregistered(rig->st);
    u64 seq = seg->seq;
    segment_pin(seg);
    struct rig_append ra;
    err e = ERR_NONE;
    for (u32 i = 0; i < 1000 && e == ERR_NONE; i++) {
        e = rig_append_one(rig_part(0), 1, 100000, &ra);
        if (e == ERR_NONE)
            rig_settle();
        while (rig_register(true))
            ;
    }
    assert_int_equal(e, ERR_BUSY);
    assert_int_equal(rig->st->wal.trimmed_seq, seq);
    segment_unpin(rig->st, seg);
    rig_put(0, 1, 100000);
}

static void dropped_partition_leaves_segments(void **s)
{
    (void)s;
    fill(2);
    struct segment *seg = segment_first_unregistered(rig->st);
    assert_int_equal(seg->part_count, 1);
    pindex_drop(rig_part(0));
    assert_null(seg->parts[0]);
    assert_null(seg->snaps[0].p);
    while (rig->st->job_count > 0)
        rig_turn();
    rig_put(0, 1, 10); /* made anew */
    assert_int_equal(pindex_next_offset(rig_part(0)), 1);
}

static void failed_upload_is_durable_again(void **s)
{
    (void)s;
    fill(2);
    struct segment *seg = segment_first_unregistered(rig->st);
    segment_set_state(seg, SEG_UPLOADING);
    segment_upload_failed(rig->st, seg);
    assert_int_equal(seg->state, SEG_DURABLE);
    assert_true(rig_register(true));
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(registered_images_stay_until_needed),
        T(images_are_bounded_and_unregistered_ones_give_way),
        T(a_trickle_takes_little_memory),
        T(idle_memory_is_given_back),
        T(large_batches_lie_as_in_their_bundle),
        T(referenced_images_stay),
        T(pinned_slots_are_not_reused),
        T(dropped_partition_leaves_segments),
        T(failed_upload_is_durable_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
