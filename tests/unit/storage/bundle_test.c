/* The object format: what is written is read back; what is damaged is refused. */
#include "../unit.h"

#include "../../../storage/bundle_int.h"
#include "batches.h"
#include "rng.h"

#define BATCHES 40u

struct object {
    u8 *bytes;
    u32 len;
    struct bytes batches[BATCHES];
    struct partition_key keys[4];
};

static struct partition_key key_make(u8 topic, u32 partition)
{
    struct partition_key k = { .partition = partition };
    memset(k.topic_id.b, topic, 16);
    return k;
}

/* Four partitions of ten batches each, blocks of at most `block_bytes`. */
static void object_make(struct object *o, u32 block_bytes)
{
    struct bundle_builder b;
    bundle_builder_init(&b, 3, 77, 5, block_bytes);
    for (u32 i = 0; i < BATCHES; i++) {
        u32 k = i / 10;
        o->keys[k] = key_make((u8)(1 + k / 2), k % 2);
        i64 base = 100 + (i % 10) * 5;
        o->batches[i] = batch_make(base, 5, 50 + i, 1000 + base);
        bundle_builder_add(&b, &o->keys[k], base, base + 4, 1000 + base + 4, o->batches[i]);
    }
    bundle_builder_seal(&b);
    o->bytes = mem_alloc(b.bytes);
    o->len = 0;
    for (u32 i = 0; i < b.part_count; i++) {
        memcpy(o->bytes + o->len, b.parts[i].data, b.parts[i].len);
        o->len += b.parts[i].len;
    }
    assert_int_equal(o->len, b.bytes);
    bundle_builder_free(&b);
}

static void object_free(struct object *o)
{
    for (u32 i = 0; i < BATCHES; i++)
        batch_drop(o->batches[i]);
    mem_free(o->bytes);
}

/* Reads all of an object the way a tool would. */
static err object_check(const u8 *bytes, u32 len, u32 *blocks, u32 *batches)
{
    struct bundle_footer f;
    u32 wal;
    u64 seq;
    *blocks = *batches = 0;
    if (len < BUNDLE_HEADER_BYTES + BUNDLE_FOOTER_BYTES)
        return ERR_TRUNCATED;
    err e = bundle_header_decode(bytes_of(bytes, BUNDLE_HEADER_BYTES), &wal, &seq);
    if (e != ERR_NONE)
        return e;
    e = bundle_footer_decode(bytes_of(bytes + len - BUNDLE_FOOTER_BYTES, BUNDLE_FOOTER_BYTES), len,
                             &f);
    if (e != ERR_NONE)
        return e;
    struct bytes index = bytes_of(bytes + f.index_pos, f.entry_count * BUNDLE_ENTRY_BYTES);
    e = bundle_index_check(index, &f);
    for (u32 i = 0; i < f.entry_count && e == ERR_NONE; i++) {
        struct bundle_entry entry, header;
        struct bytes data;
        bundle_index_entry(index, i, &entry);
        e = bundle_block_decode(bytes_of(bytes + entry.pos, bundle_block_bytes(&entry)), &header,
                                &data);
        if (e == ERR_NONE && header.hash != entry.hash)
            e = ERR_CORRUPT;
        if (e == ERR_NONE)
            e = bundle_data_check(data, &entry);
        (*blocks)++;
        *batches += entry.batch_count;
    }
    if (e == ERR_NONE && (f.wal != wal || f.seq != seq))
        e = ERR_CORRUPT;
    return e;
}

static void object_reads_back(void **state)
{
    (void)state;
    struct object o;
    u32 blocks, batches;
    object_make(&o, 1 << 20);
    assert_int_equal(object_check(o.bytes, o.len, &blocks, &batches), ERR_NONE);
    assert_int_equal(blocks, 4);
    assert_int_equal(batches, BATCHES);
    struct bundle_footer f;
    assert_int_equal(
        bundle_footer_decode(bytes_of(o.bytes + o.len - BUNDLE_FOOTER_BYTES, BUNDLE_FOOTER_BYTES),
                             o.len, &f),
        ERR_NONE);
    assert_int_equal(f.wal, 3);
    assert_int_equal(f.seq, 77);
    assert_int_equal(f.epoch, 5);
    struct bytes index = bytes_of(o.bytes + f.index_pos, f.entry_count * BUNDLE_ENTRY_BYTES);
    struct bundle_entry e;
    bundle_index_entry(index, 2, &e);
    assert_true(uuid_eq(e.key.topic_id, o.keys[2].topic_id));
    assert_int_equal(e.key.partition, 0);
    assert_int_equal(e.base_offset, 100);
    assert_int_equal(e.last_offset, 149);
    assert_int_equal(e.max_timestamp, 1149);
    assert_memory_equal(o.bytes + e.pos + BUNDLE_BLOCK_HEADER_BYTES, o.batches[20].data,
                        o.batches[20].len);
    object_free(&o);
}

static void blocks_split_between_batches(void **state)
{
    (void)state;
    struct object o;
    u32 blocks, batches;
    object_make(&o, 1000);
    assert_int_equal(object_check(o.bytes, o.len, &blocks, &batches), ERR_NONE);
    assert_true(blocks > 10 && blocks < BATCHES);
    object_free(&o);
    object_make(&o, 1); /* smaller than any batch: one each */
    assert_int_equal(object_check(o.bytes, o.len, &blocks, &batches), ERR_NONE);
    assert_int_equal(blocks, BATCHES);
    object_free(&o);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct object o;
    u32 blocks, batches;
    object_make(&o, 2000);
    for (u32 i = 0; i < o.len; i++) {
        o.bytes[i] ^= (u8)(1u << (i % 8));
        assert_int_not_equal(object_check(o.bytes, o.len, &blocks, &batches), ERR_NONE);
        o.bytes[i] ^= (u8)(1u << (i % 8));
    }
    assert_int_equal(object_check(o.bytes, o.len, &blocks, &batches), ERR_NONE);
    object_free(&o);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct object o;
    u32 blocks, batches;
    object_make(&o, 2000);
    for (u32 len = 0; len < o.len; len++) {
        u8 *cut = mem_dup(o.bytes, len); /* exact size: a sanitizer sees a read beyond */
        assert_int_not_equal(object_check(cut, len, &blocks, &batches), ERR_NONE);
        mem_free(cut);
    }
    object_free(&o);
}

static void find_gives_the_batch_that_holds_the_offset(void **state)
{
    (void)state;
    struct object o;
    object_make(&o, 1 << 20);
    struct bundle_footer f;
    assert_int_equal(
        bundle_footer_decode(bytes_of(o.bytes + o.len - BUNDLE_FOOTER_BYTES, BUNDLE_FOOTER_BYTES),
                             o.len, &f),
        ERR_NONE);
    struct bundle_entry e;
    bundle_index_entry(bytes_of(o.bytes + f.index_pos, f.entry_count * BUNDLE_ENTRY_BYTES), 0, &e);
    struct bytes data = bytes_of(o.bytes + e.pos + BUNDLE_BLOCK_HEADER_BYTES, e.data_bytes);
    for (i64 offset = 90; offset < 160; offset++) {
        u32 pos, want = 0;
        i64 i = offset < 100 ? 0 : (offset - 100) / 5;
        for (u32 k = 0; k < i && k < 10; k++)
            want += o.batches[k].len;
        assert_int_equal(bundle_data_find(data, offset, &pos), ERR_NONE);
        assert_int_equal(pos, want);
    }
    u32 pos;
    assert_int_equal(bundle_data_find(bytes_of(data.data, 30), 100, &pos), ERR_CORRUPT);
    object_free(&o);
}

static void names_round_trip(void **state)
{
    (void)state;
    char buf[BUNDLE_NAME_SIZE];
    u64 id;
    u32 epoch;
    bundle_name(buf, bundle_id(0x1f, 0x123456789abc), 0xdeadbeef);
    assert_string_equal(buf, "b/001f/0000123456789abc-deadbeef");
    assert_true(store_name_valid(buf));
    assert_true(bundle_name_parse(buf, &id, &epoch));
    assert_int_equal(bundle_wal(id), 0x1f);
    assert_int_equal(bundle_seq(id), 0x123456789abc);
    assert_int_equal(epoch, 0xdeadbeef);
    assert_false(bundle_name_parse("b/001f/0000123456789abc-deadbee", &id, &epoch));
    assert_false(bundle_name_parse("b/001f/0001123456789abc-deadbeef", &id, &epoch));
    assert_false(bundle_name_parse("q/001f/0000123456789abc-deadbeef", &id, &epoch));
    assert_false(bundle_name_parse("b/001F/0000123456789abc-deadbeef", &id, &epoch));
}

static void names_of_runs_are_their_own(void **state)
{
    (void)state;
    char buf[BUNDLE_NAME_SIZE], key[META_KEY_SIZE];
    u64 id, run = run_id(0x1f, 0x12345, 0x6789abc);
    u32 epoch;
    assert_true(object_is_run(run));
    assert_false(object_is_run(bundle_id(SHARDS_MAX, UINT64_MAX >> 16)));
    assert_int_equal(bundle_wal(run), 0x1f);
    assert_string_equal(bundle_name(buf, run, 0x12345), "r/001f/0000123456789abc-00012345");
    assert_true(store_name_valid(buf));
    assert_true(bundle_name_parse(buf, &id, &epoch));
    assert_true(id == run);
    assert_int_equal(epoch, 0x12345);
    struct bytes k = meta_key_bundle(key, run);
    assert_true(bytes_eq_str(k, "r/001f/0000123456789abc"));
    assert_true(meta_key_bundle_parse(k, &id));
    assert_true(id == run);
    /* The bit is not the name's to give. */
    assert_false(bundle_name_parse("b/801f/0000123456789abc-00012345", &id, &epoch));
    assert_false(meta_key_bundle_parse(bytes_str("b/801f/0000123456789abc"), &id));
}

static void run_registration_round_trips(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096, MIB);
    struct bundle_reg good = { .epoch = 9,
                               .object_bytes = 5000,
                               .created_ms = 123,
                               .block_count = 2,
                               .run = true,
                               .cover_from = 5,
                               .cover_to = 30,
                               .clean_to = 17 };
    for (u32 what = 0; what < 6; what++) {
        struct bundle_reg reg = good, got;
        struct partition_key k = key_make(1, 1), other = key_make(1, 2);
        reg.cover_from = what == 1 ? 11 : 5; /* behind its first block */
        reg.cover_to = what == 2 ? 31 : 30;  /* not where the last one ends */
        reg.clean_to = what == 3 ? 31 : 17;  /* beyond its end */
        u8 *raw;
        struct bytes v = bundle_reg_begin(&a, &reg, &raw);
        for (u32 i = 0; i < 2; i++) {
            struct block b = { .pos = 32 + i * 200,
                               .bytes = 200,
                               .data_bytes = 120,
                               .base_offset = what == 4 ? 10 : 10 + i * 10,
                               .last_offset = 19 + i * 10 };
            bundle_reg_set(raw, i, what == 5 && i == 1 ? &other : &k, &b);
        }
        bundle_reg_end(raw, v.len);
        assert_int_equal(bundle_reg_decode(v, &got), what == 0 ? ERR_NONE : ERR_CORRUPT);
        if (what > 0)
            continue;
        assert_true(got.run);
        assert_int_equal(got.cover_from, 5);
        assert_int_equal(got.cover_to, 30);
        assert_int_equal(got.clean_to, 17);
        struct block b;
        bundle_reg_get(&got, 1, 42, &k, &b);
        assert_int_equal(b.base_offset, 20);
        for (u32 len = 0; len < v.len; len++)
            assert_int_not_equal(bundle_reg_decode(bytes_of(v.data, len), &got), ERR_NONE);
    }
    arena_free(&a);
}

static void registration_round_trips_and_damage_is_noticed(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096, MIB);
    struct bundle_reg reg = {
        .epoch = 9, .object_bytes = 5000, .created_ms = 123, .block_count = 3
    };
    u8 *raw;
    struct bytes v = bundle_reg_begin(&a, &reg, &raw);
    for (u32 i = 0; i < 3; i++) {
        struct partition_key k = key_make((u8)i, i);
        struct block b = { .pos = 32 + i * 200,
                           .bytes = 200,
                           .data_bytes = 120,
                           .base_offset = i * 10,
                           .last_offset = i * 10 + 9,
                           .max_timestamp = -1 };
        bundle_reg_set(raw, i, &k, &b);
    }
    bundle_reg_end(raw, v.len);
    struct bundle_reg got;
    assert_int_equal(bundle_reg_decode(v, &got), ERR_NONE);
    assert_int_equal(got.block_count, 3);
    assert_int_equal(got.epoch, 9);
    assert_int_equal(got.created_ms, 123);
    struct partition_key k;
    struct block b;
    bundle_reg_get(&got, 2, 42, &k, &b);
    assert_int_equal(b.bundle, 42);
    assert_int_equal(b.base_offset, 20);
    assert_int_equal(b.pos, 432);
    assert_int_equal(k.partition, 2);
    for (u32 i = 0; i < v.len; i++) {
        raw[i] ^= 0x10;
        assert_int_not_equal(bundle_reg_decode(v, &got), ERR_NONE);
        raw[i] ^= 0x10;
        assert_int_not_equal(bundle_reg_decode(bytes_of(v.data, i), &got), ERR_NONE);
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(object_reads_back),
        cmocka_unit_test(blocks_split_between_batches),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(find_gives_the_batch_that_holds_the_offset),
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(names_of_runs_are_their_own),
        cmocka_unit_test(run_registration_round_trips),
        cmocka_unit_test(registration_round_trips_and_damage_is_noticed),
    };
    return cmocka_run_group_tests_name("bundle", tests, NULL, NULL);
}
