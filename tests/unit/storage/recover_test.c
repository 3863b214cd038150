/* Start after a crash: everything acknowledged comes back, the end is found once, damage before it
 * is never skipped. */
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
    if (rig->shard.io)
        rig_crash();
    rig_free();
    return 0;
}

/* Start counting anew and start. */
static void restart(void)
{
    rig->recovered_count = 0;
    rig->recovered_hash = 7;
    rig_start();
}

static void expect_refusal(const char *words)
{
    rig->recovered_count = 0;
    err e = rig_try_start();
    assert_int_equal(e, ERR_CORRUPT);
    if (!strstr(rig->env.error, words))
        fail_msg("no \"%s\" in: %s", words, rig->env.error);
    rig_down();
}

/* Hash of all that the WAL holds, as the image has it: what recovery must hand over. */
static u64 expected_hash(u32 *count)
{
    u64 h = 7;
    *count = 0;
    struct wal *w = &rig->st->wal;
    for (u64 seq = w->registered_seq; seq < w->next_seq; seq++) {
        struct segment *seg = segment_find(rig->st, seq);
        struct wal_cursor c;
        struct frame f;
        wal_cursor_init(&c, seg->image->bytes, w->segment_bytes, seq * w->segment_bytes, seg->used,
                        w->tag, w->epoch);
        while (wal_cursor_next(&c, &f)) {
            if (f.kind != FRAME_BATCH)
                continue;
            const u8 *payload = seg->image->bytes + (f.lsn - c.base) + frame_payload_at(&f);
            h = rig_mix(h, payload, f.payload_bytes);
            ++*count;
        }
        assert_false(c.bad);
    }
    return h;
}

static void batches_come_back_in_order(void **s)
{
    (void)s;
    struct rig_append ra[400];
    for (u32 i = 0; i < 400; i++) {
        u32 bytes = (u32)rig_rand(i % 10 == 0 ? 100000 : 3000);
        err e;
        while ((e = rig_append_one(rig_part(i % 5), 1 + i % 7, bytes, &ra[i])) == ERR_BUSY)
            rig_turn();
        assert_int_equal(e, ERR_NONE);
        if (i % 9 == 0)
            rig_turn();
    }
    rig_settle();
    u32 count;
    u64 hash = expected_hash(&count);
    i64 next[5];
    u64 bytes[5];
    for (u32 i = 0; i < 5; i++) {
        next[i] = pindex_next_offset(rig_part(i));
        bytes[i] = pindex_bytes(rig_part(i));
    }
    rig_crash();
    for (u32 round = 0; round < 3; round++) {
        restart();
        assert_int_equal(rig->recovered_count, 400);
        assert_true(rig->recovered_hash == hash);
        for (u32 i = 0; i < 5; i++) {
            assert_int_equal(pindex_next_offset(rig_part(i)), next[i]);
            assert_int_equal(pindex_durable_offset(rig_part(i)), next[i]);
            assert_int_equal(pindex_bytes(rig_part(i)), bytes[i]);
        }
        assert_int_equal(rig->st->wal.epoch, round + 2);
        rig_crash();
    }
}

static void many_lives_add_up(void **s)
{
    (void)s;
    u32 total = 0;
    for (u32 life = 0; life < 10; life++) {
        u32 n = (u32)rig_rand(12);
        for (u32 i = 0; i < n; i++)
            rig_put((u32)rig_rand(3), 1 + (u32)rig_rand(3), (u32)rig_rand(20000));
        total += n;
        rig_crash();
        restart();
        assert_int_equal(rig->recovered_count, total);
    }
    /* Registered ones do not come back. */
    while (rig_register(true))
        ;
    rig_crash();
    restart();
    assert_int_equal(rig->recovered_count, 0);
}

static bool loaded;
static void load_done(struct segment_load *l)
{
    assert_int_equal(l->err, ERR_NONE);
    loaded = true;
}

static void recovered_segments_load_and_register(void **s)
{
    (void)s;
    for (u32 i = 0; i < 40; i++)
        rig_put(i % 2, 2, 60000);
    rig_crash();
    restart();
    struct segment *seg = segment_first_unregistered(rig->st);
    assert_int_equal(seg->state, SEG_DURABLE);
    assert_null(seg->image);
    assert_int_equal(seg->snap_count, 2);
    static struct segment_load l, second;
    rig->st->spare_max = 1;
    loaded = false;
    assert_false(segment_load_begin(rig->st, &l, seg, load_done));
    assert_int_equal(l.err, ERR_NONE);
    assert_false(segment_load_begin(rig->st, &second, seg, load_done));
    assert_int_equal(second.err, ERR_BUSY);
    while (!loaded)
        rig_turn();
    const struct entry *e;
    u32 n = pindex_segment_entries(rig_part(0), rig->st, seg->seq, &e);
    assert_true(n > 3);
    struct batch b;
    u32 off = (u32)(entry_lsn(&e[1]) % rig->st->wal.segment_bytes);
    assert_int_equal(batch_parse(bytes_of(l.image->bytes + off, e[1].bytes), &b), ERR_NONE);
    assert_int_equal(b.base_offset, e[1].base_offset);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    segment_load_end(rig->st, &l);
    assert_int_equal(seg->pins, 0);
    while (rig_register(true))
        ;
    rig_put(0, 1, 1000);
}

static void torn_end_is_the_end(void **s)
{
    (void)s;
    for (u32 i = 0; i < 10; i++)
        rig_put(0, 1, 3000);
    struct wal w = rig->st->wal;
    u64 last = w.data_end - 1500;
    rig_crash();
    rig_damage(&w, last); /* the last frame: nothing behind it proves that it was durable */
    restart();
    assert_int_equal(rig->recovered_count, 9);
    assert_int_equal(pindex_next_offset(rig_part(0)), 9);
    rig_put(0, 1, 3000);
    assert_int_equal(pindex_next_offset(rig_part(0)), 10);
    rig_crash();
    restart();
    assert_int_equal(rig->recovered_count, 10);
}

static void marked_end_cannot_vanish(void **s)
{
    (void)s;
    for (u32 i = 0; i < 10; i++)
        rig_put(0, 1, 3000);
    u64 stop = clock_mono_ns() + 100 * NS_PER_MS;
    while (clock_mono_ns() < stop)
        rig_turn();
    struct wal w = rig->st->wal;
    rig_crash();
    rig_damage(&w, w.data_end - 1500);
    expect_refusal("damaged frame");
    expect_refusal("0000.wal");
}

static void damage_in_the_middle_is_refused(void **s)
{
    (void)s;
    for (u32 i = 0; i < 60; i++)
        rig_put(i % 3, 1, 50000);
    struct wal w = rig->st->wal;
    rig_crash();
    for (u32 k = 0; k < 12; k++) {
        u64 at = rig_rand(w.durable - 200000);
        /* Padding behind a seal is neither written nor hashed. */
        if (at % w.segment_bytes > w.segment_bytes - 60000)
            continue;
        rig_damage(&w, at);
        rig->recovered_count = 0;
        err e = rig_try_start();
        if (e == ERR_NONE) { /* padding inside a block */
            assert_int_equal(rig->recovered_count, 60);
            rig_crash();
        } else {
            assert_int_equal(e, ERR_CORRUPT);
            rig_down();
        }
        rig_damage(&w, at); /* back */
    }
    restart();
    assert_int_equal(rig->recovered_count, 60);
}

static void damage_in_a_closed_epoch_is_refused(void **s)
{
    (void)s;
    rig_put(0, 1, 3000);
    rig_put(0, 1, 3000);
    struct wal w = rig->st->wal;
    rig_crash();
    restart();
    rig_crash();
    /* Even the last frame: the metadata knows the end. */
    rig_damage(&w, w.data_end - 1500);
    expect_refusal("damaged frame");
    rig_damage(&w, w.data_end - 1500);
    restart();
    assert_int_equal(rig->recovered_count, 2);
}

/* A frame and the pad behind it, in one block: says that nothing from `durable` on was durable. */
static void block_forget_durable(u8 *block, u64 durable)
{
    struct frame f;
    assert_int_equal(frame_decode(block, WAL_BLOCK_BYTES, &f), ERR_NONE);
    u32 pad_at = (u32)frame_total_bytes(&f);
    f.durable_lsn = MIN(f.durable_lsn, durable);
    frame_encode(block, &f);
    assert_int_equal(frame_decode(block + pad_at, WAL_BLOCK_BYTES - pad_at, &f), ERR_NONE);
    f.durable_lsn = MIN(f.durable_lsn, durable);
    frame_encode(block + pad_at, &f);
}

static void frames_behind_a_found_end_stay_away(void **s)
{
    (void)s;
    for (u32 i = 0; i < 6; i++)
        rig_put(0, 1, 3000); /* one block each */
    struct wal w = rig->st->wal;
    rig_crash();
    /* As a crash that tore frame 4 while frame 5 reached the disk: neither was durable. */
    int fd = rig_file();
    u8 block[WAL_BLOCK_BYTES];
    u64 lsn4 = w.durable - 2 * WAL_BLOCK_BYTES;
    for (u32 i = 0; i < 2; i++) {
        off_t at = (off_t)wal_file_offset(&w, lsn4 + i * WAL_BLOCK_BYTES);
        assert_int_equal(pread(fd, block, sizeof block, at), (int)sizeof block);
        block_forget_durable(block, lsn4);
        assert_int_equal(pwrite(fd, block, sizeof block, at), (int)sizeof block);
    }
    fsync(fd);
    close(fd);
    rig_damage(&w, lsn4 + 100);
    restart();
    assert_int_equal(rig->recovered_count, 4);
    rig_crash();
    /* Now frame 4 heals: it must stay dead, the end was decided. */
    rig_damage(&w, lsn4 + 100);
    restart();
    assert_int_equal(rig->recovered_count, 4);
    rig_put(0, 1, 100);
    rig_crash();
    restart();
    assert_int_equal(rig->recovered_count, 5);
}

static void missing_file_is_refused(void **s)
{
    (void)s;
    rig_put(0, 1, 3000);
    rig_crash();
    char path[128], away[160];
    snprintf(path, sizeof path, "%s/0000.wal", rig->dir);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    expect_refusal("is missing");
    assert_int_equal(rename(away, path), 0);
    restart();
    assert_int_equal(rig->recovered_count, 1);
}

static void lost_metadata_is_refused(void **s)
{
    (void)s;
    rig_put(0, 1, 3000);
    rig_crash();
    struct rig_meta *copy = MEM_NEW(struct rig_meta);
    *copy = rig->meta;
    rig->meta.count = 0;
    expect_refusal("metadata store");
    rig->meta = *copy;
    mem_free(copy);
    restart();
}

/* The w/ key without its own checksum: numbers that can't be. */
static void impossible_metadata_is_refused(void **s)
{
    (void)s;
    static const struct {
        u32 at;
        u64 value;
    } lies[] = {
        { 24, UINT64_MAX },     { 24, UINT64_MAX / 4096 }, /* first unregistered segment */
        { 40 + 8, UINT64_MAX }, { 40 + 8, 1ull << 60 },    /* the epoch's first segment */
        { 40 + 8, 1000 },                                  /* behind what is not registered */
        { 40, UINT32_MAX },                                /* no epoch can follow */
    };
    rig_put(0, 1, 3000);
    rig_crash();
    struct rig_meta *copy = MEM_NEW(struct rig_meta);
    *copy = rig->meta;
    for (u32 i = 0; i < ARRAY_COUNT(lies); i++) {
        bool found;
        u8 *value = rig->meta.pairs[rig_meta_at(&rig->meta, bytes_str("w/0000"), &found)].value;
        assert_true(found);
        put_le64(value + lies[i].at, lies[i].value);
        expect_refusal(lies[i].value == 1000 ? "gap in the epochs" : "unknown form");
        rig->meta = *copy;
    }
    mem_free(copy);
    restart();
    assert_int_equal(rig->recovered_count, 1);
}

static void unknown_partitions_are_dropped(void **s)
{
    (void)s;
    rig_put(0, 1, 100);
    rig_put(1, 1, 100);
    rig_crash();
    rig->known_limit = 1;
    restart();
    assert_int_equal(rig->recovered_count, 1);
    struct partition_key k = rig_key(1);
    assert_null(pindex_find(rig->st, &k));
}

static void on_start(struct pindex_op *op)
{
    (void)op;
}

static void log_start_outlives_its_data(void **s)
{
    (void)s;
    static struct pindex_op op;
    for (u32 i = 0; i < 5; i++)
        rig_put(0, 10, 100);
    pindex_set_start(rig_part(0), 25, &op, on_start);
    while (rig->st->job_count > 0)
        rig_turn();
    assert_int_equal(op.err, ERR_NONE);
    assert_int_equal(pindex_start_offset(rig_part(0)), 25);
    rig_crash();
    restart();
    assert_int_equal(pindex_start_offset(rig_part(0)), 25);
    assert_int_equal(pindex_next_offset(rig_part(0)), 50);
    struct place at;
    assert_true(pindex_place(rig_part(0), 0, &at));
    assert_int_equal(at.entry->base_offset, 20);
    pindex_set_start(rig_part(0), 1000, &op, on_start);
    while (rig->st->job_count > 0)
        rig_turn();
    rig_crash();
    restart();
    assert_int_equal(pindex_start_offset(rig_part(0)), 50);
    assert_int_equal(pindex_next_offset(rig_part(0)), 50);
    assert_false(pindex_place(rig_part(0), 0, &at));
    rig_put(0, 1, 10);
    assert_int_equal(pindex_next_offset(rig_part(0)), 51);
}
static void another_size_takes_effect_when_empty(void **s)
{
    (void)s;
    rig_put(0, 1, 100);
    rig_crash();
    rig_set("wal.segment_bytes", "2m");
    restart();
    assert_int_equal(rig->st->wal.segment_bytes, MIB);
    assert_true(rig_register(true));
    u64 seq = rig->st->wal.next_seq;
    rig_crash();
    restart();
    assert_int_equal(rig->st->wal.segment_bytes, 2 * MIB);
    assert_int_equal(rig->st->wal.next_seq, seq);
    rig_put(1, 1, 100);
    rig_crash();
    restart();
    assert_int_equal(rig->recovered_count, 1);
}

static void ring_laps(void **s)
{
    (void)s;
    for (u32 round = 0; round < 6; round++) {
        i64 next = pindex_next_offset(rig_part(0));
        for (u32 i = 0; i < 60; i++) {
            rig_put(0, 1, 100000);
            while (rig->st->wal.next_seq - rig->st->wal.registered_seq > 4 && rig_register(true))
                ;
        }
        rig_crash();
        restart();
        assert_int_equal(pindex_next_offset(rig_part(0)), next + 60);
        assert_true(rig->recovered_count > 0 && rig->recovered_count < 60);
    }
    assert_true(rig->st->wal.next_seq > 2 * (u64)rig->st->wal.slot_count);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(batches_come_back_in_order),
        T(many_lives_add_up),
        T(recovered_segments_load_and_register),
        T(torn_end_is_the_end),
        T(marked_end_cannot_vanish),
        T(damage_in_the_middle_is_refused),
        T(damage_in_a_closed_epoch_is_refused),
        T(frames_behind_a_found_end_stay_away),
        T(missing_file_is_refused),
        T(lost_metadata_is_refused),
        T(impossible_metadata_is_refused),
        T(unknown_partitions_are_dropped),
        T(log_start_outlives_its_data),
        T(another_size_takes_effect_when_empty),
        T(ring_laps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
