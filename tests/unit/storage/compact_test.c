/* The filter of key compaction: which records stay, and what their batches look like then. */
#include "../unit.h"

#include "../../../storage/compact_int.h"
#include "batches.h"

static struct compaction c;
static struct compressor *comp;

static int setup(void **state)
{
    (void)state;
    comp = compressor_new();
    compaction_init(&c, 0, 1000, 500);
    assert_int_equal(key_map_init(&c.map, MIB, 1000, 7), ERR_NONE);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    compaction_free(&c);
    compressor_free(comp);
    return 0;
}

/* Records "k", "K" (value; upper case: tombstone of the lower-case key), "." for no key; a space
 * leaves an offset out. Timestamps are offsets · 10. */
static struct bytes make(i64 base, const char *keys, enum codec codec, i16 flags)
{
    struct batch_builder b;
    struct bytes out;
    batch_builder_init(&b, MIB);
    b.base_offset = base;
    b.codec = codec;
    b.flags = flags;
    b.producer_id = 77;
    b.producer_epoch = 3;
    b.base_sequence = 1234;
    b.leader_epoch = 5;
    i32 n = (i32)strlen(keys);
    for (i32 i = 0; i < n; i++) {
        u8 key = (u8)(keys[i] | 0x20);
        bool tombstone = keys[i] >= 'A' && keys[i] <= 'Z';
        struct header h = { bytes_str("from"), bytes_of(&key, 1) };
        struct bytes value = bytes_str("some value that compresses compresses compresses");
        if (keys[i] == ' ')
            continue;
        assert_int_equal(
            batch_builder_add_at(&b, i, (base + i) * 10,
                                 keys[i] == '.' ? (struct bytes){ NULL, 0 } : bytes_of(&key, 1),
                                 tombstone ? (struct bytes){ NULL, 0 } : value, &h, 1),
            ERR_NONE);
    }
    batch_builder_end_at(&b, n - 1);
    assert_int_equal(batch_builder_finish(&b, comp, &out), ERR_NONE);
    out.data = mem_dup(out.data, out.len);
    batch_builder_free(&b);
    return out;
}

/* The keys of a batch as make writes them. */
static void keys_of(struct bytes in, char *keys)
{
    struct batch b;
    struct bytes plain;
    struct record_iter it;
    struct record r;
    assert_int_equal(batch_parse(in, &b), ERR_NONE);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    memset(keys, ' ', (size_t)b.last_offset_delta + 1);
    keys[b.last_offset_delta + 1] = 0;
    assert_int_equal(batch_decode(comp, &b, MIB, &plain), ERR_NONE);
    record_iter_init(&it, &b, plain);
    err e;
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        char k = r.key.data ? (char)r.key.data[0] : '.';
        keys[r.offset_delta] = r.value.data ? k : (char)(k & ~0x20);
        if (!batch_is_log_append_time(&b))
            assert_int_equal(r.timestamp, r.offset * 10);
        struct header_iter hi;
        struct header h;
        header_iter_init(&hi, &r);
        assert_true(header_next(&hi, &h));
        assert_true(bytes_eq_str(h.key, "from"));
        assert_int_equal(h.value.data[0], k == '.' ? '.' | 0x20 : k);
    }
    assert_int_equal(e, ERR_NOT_FOUND);
}

static void map(struct bytes batch)
{
    assert_int_equal(compaction_map(&c, batch), ERR_NONE);
}

static struct bytes filter(struct bytes in, bool keep)
{
    struct batch b;
    struct bytes out;
    assert_int_equal(batch_parse(in, &b), ERR_NONE);
    assert_int_equal(c.filter.batch(&c.filter, &b, keep, &out), ERR_NONE);
    return out;
}

static void expect(struct bytes in, bool keep, const char *want)
{
    char keys[64];
    struct bytes out = filter(in, keep);
    if (!want) {
        assert_int_equal(out.len, 0);
        return;
    }
    keys_of(out, keys);
    assert_string_equal(keys, want);
}

static void newest_of_each_key_stays(void **state)
{
    (void)state;
    for (enum codec codec = CODEC_NONE; (int)codec < CODEC_COUNT; codec++) {
        key_map_free(&c.map);
        assert_int_equal(key_map_init(&c.map, MIB, 1000, codec), ERR_NONE);
        c.map_end = 0;
        struct bytes one = make(0, "abcaba", codec, 0), two = make(6, "bxd", codec, 0);
        map(one);
        map(two);
        assert_int_equal(c.map_end, 9);
        expect(one, false, "  c  a");
        expect(two, false, "bxd");
        assert_ptr_equal(filter(two, false).data, two.data); /* as it was */
        struct batch was, now;
        assert_int_equal(batch_parse(one, &was), ERR_NONE);
        assert_int_equal(batch_parse(filter(one, false), &now), ERR_NONE);
        assert_int_equal(now.base_offset, 0);
        assert_int_equal(now.last_offset_delta, 5);
        assert_int_equal(now.attributes, was.attributes);
        assert_int_equal(now.producer_id, 77);
        assert_int_equal(now.producer_epoch, 3);
        assert_int_equal(now.base_sequence, 1234);
        assert_int_equal(now.leader_epoch, 5);
        assert_int_equal(now.max_timestamp, 50);
        assert_int_equal(batch_last_sequence(&now), batch_last_sequence(&was));
        batch_drop(one);
        batch_drop(two);
    }
}

static void what_is_behind_the_map_stays(void **state)
{
    (void)state;
    struct bytes one = make(0, "aabb", CODEC_NONE, 0), two = make(4, "aab", CODEC_NONE, 0);
    map(one);
    expect(one, false, " a b");
    expect(two, false, "aab");
    c.map_end = 3; /* full in the middle of a batch */
    expect(one, false, " a b");
    batch_drop(one);
    batch_drop(two);
}

static void a_batch_without_records_goes_unless_it_ends_the_range(void **state)
{
    (void)state;
    struct bytes one = make(0, "ab", CODEC_LZ4, 0), two = make(2, "ab", CODEC_NONE, 0);
    map(one);
    map(two);
    expect(one, false, NULL);
    struct batch b;
    struct bytes empty = filter(one, true);
    assert_int_equal(batch_parse(empty, &b), ERR_NONE);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    assert_int_equal(b.record_count, 0);
    assert_int_equal(b.bytes, BATCH_HEADER_BYTES);
    assert_int_equal(b.base_offset, 0);
    assert_int_equal(batch_last_offset(&b), 1);
    assert_int_equal(b.producer_id, 77);
    assert_int_equal(b.base_sequence, 1234);
    assert_int_equal(b.max_timestamp, -1);
    /* In the next round it stays as it is while it ends the range, then goes. */
    u8 *copy = mem_dup(empty.data, empty.len);
    struct bytes again = bytes_of(copy, empty.len);
    map(again);
    assert_ptr_equal(filter(again, true).data, copy);
    expect(again, false, NULL);
    mem_free(copy);
    batch_drop(one);
    batch_drop(two);
}

static void records_without_a_key_go(void **state)
{
    (void)state;
    struct bytes one = make(0, "a.b", CODEC_NONE, 0);
    map(one);
    expect(one, false, "a b");
    batch_drop(one);
}

static void tombstones_get_a_horizon_and_go_behind_it(void **state)
{
    (void)state;
    for (enum codec codec = CODEC_NONE; (int)codec < CODEC_COUNT; codec++) {
        key_map_free(&c.map);
        assert_int_equal(key_map_init(&c.map, MIB, 1000, codec), ERR_NONE);
        c.map_end = 0;
        c.now_ms = 1000;
        struct bytes old = make(0, "abx", codec, 0), one = make(3, "cAB", codec, 0);
        map(old);
        map(one);
        expect(old, false, "  x");
        expect(one, false, "cAB");
        struct batch b;
        struct bytes marked = filter(one, false);
        assert_int_equal(batch_parse(marked, &b), ERR_NONE);
        assert_true(batch_has_delete_horizon(&b));
        assert_int_equal(b.base_timestamp, 1500);
        assert_int_equal(b.max_timestamp, 50);
        marked.data = mem_dup(marked.data, marked.len);
        /* A later round, whose dirty part does not know these keys. */
        key_map_free(&c.map);
        assert_int_equal(key_map_init(&c.map, MIB, 1000, 1), ERR_NONE);
        c.now_ms = 1499;
        assert_ptr_equal(filter(marked, false).data, marked.data);
        c.now_ms = 1500;
        expect(marked, false, "c  ");
        assert_int_equal(batch_parse(filter(marked, false), &b), ERR_NONE);
        assert_int_equal(b.base_timestamp, 1500); /* keeps its horizon, as in Kafka */
        batch_drop(marked);
        batch_drop(old);
        batch_drop(one);
    }
}

static void control_batches_and_transactions_supersede_nothing(void **state)
{
    (void)state;
    u8 marker[BATCH_MARKER_BYTES];
    batch_build_marker(marker, true, 10, 5, 77, 3, 1, 100);
    struct bytes control = bytes_of(marker, sizeof marker);
    struct bytes plain = make(0, "ab", CODEC_NONE, 0);
    struct bytes txn = make(2, "aB", CODEC_NONE, BATCH_ATTR_TRANSACTIONAL);
    map(plain);
    map(txn);
    map(control);
    assert_int_equal(c.map_end, 11);
    expect(plain, false, "ab"); /* the transaction may have been aborted */
    c.now_ms = INT64_MAX;
    assert_ptr_equal(filter(txn, false).data, txn.data);
    assert_ptr_equal(filter(control, false).data, control.data);
    /* A newer record outside of transactions does, whatever became of it. */
    struct bytes newer = make(11, "ab", CODEC_NONE, 0);
    map(newer);
    expect(plain, false, NULL);
    expect(txn, false, NULL);
    assert_ptr_equal(filter(control, false).data, control.data);
    batch_drop(plain);
    batch_drop(txn);
    batch_drop(newer);
}

static void log_append_time_is_kept(void **state)
{
    (void)state;
    struct bytes one = make(0, "aba", CODEC_NONE, 0);
    u8 *bytes = mem_dup(one.data, one.len);
    batch_patch_timestamps(bytes, true, 9999);
    struct bytes in = bytes_of(bytes, one.len);
    map(in);
    expect(in, false, " ba");
    struct batch b;
    assert_int_equal(batch_parse(filter(in, false), &b), ERR_NONE);
    assert_true(batch_is_log_append_time(&b));
    assert_int_equal(b.max_timestamp, 9999);
    mem_free(bytes);
    batch_drop(one);
}

static void damage_is_told(void **state)
{
    (void)state;
    struct bytes one = make(0, "abcabc", CODEC_ZSTD, 0);
    u8 *bad = mem_dup(one.data, one.len);
    bad[BATCH_HEADER_BYTES + 2] ^= 0xff;
    assert_int_equal(compaction_map(&c, bytes_of(bad, one.len)), ERR_CORRUPT);
    assert_int_equal(compaction_map(&c, bytes_of(one.data, one.len - 1)), ERR_CORRUPT);
    mem_free(bad);
    batch_drop(one);
}

static void a_full_map_says_where(void **state)
{
    (void)state;
    key_map_free(&c.map);
    assert_int_equal(key_map_init(&c.map, 0, 0, 7), ERR_NONE);
    u32 room = (u32)c.map.used_max;
    struct bytes one = make(0, "abcdefghijklmnopqrstuvwxyz", CODEC_NONE, 0);
    assert_true(room >= 8 && room < 26);
    assert_int_equal(compaction_map(&c, one), ERR_BUSY);
    assert_int_equal(c.map_end, room);
    expect(one, false, "abcdefghijklmnopqrstuvwxyz");
    batch_drop(one);
    /* Keys that are there need no room. */
    struct bytes two = make(26, "abcabc", CODEC_NONE, 0);
    c.map_end = 26;
    map(two);
    assert_int_equal(c.map_end, 32);
    batch_drop(two);
}

static void the_map_holds_many_keys(void **state)
{
    (void)state;
    struct key_map m;
    assert_int_equal(key_map_init(&m, 64 * MIB, 100000, 42), ERR_NONE);
    for (u32 round = 0; round < 2; round++)
        for (u32 i = 0; i < 100000; i++)
            assert_true(key_map_put(&m, bytes_of(&i, sizeof i), i * 2 + round));
    assert_int_equal(m.used, 100000);
    for (u32 i = 0; i < 100000; i++)
        assert_int_equal(key_map_get(&m, bytes_of(&i, sizeof i)), i * 2 + 1);
    for (u32 i = 100000; i < 101000; i++)
        assert_int_equal(key_map_get(&m, bytes_of(&i, sizeof i)), -1);
    assert_int_equal(key_map_get(&m, bytes_str("")), -1);
    assert_true(key_map_put(&m, bytes_str(""), 5));
    assert_int_equal(key_map_get(&m, bytes_str("")), 5);
    key_map_free(&m);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(newest_of_each_key_stays),
        T(what_is_behind_the_map_stays),
        T(a_batch_without_records_goes_unless_it_ends_the_range),
        T(records_without_a_key_go),
        T(tombstones_get_a_horizon_and_go_behind_it),
        T(control_batches_and_transactions_supersede_nothing),
        T(log_append_time_is_kept),
        T(damage_is_told),
        T(a_full_map_says_where),
        T(the_map_holds_many_keys),
    };
    return cmocka_run_group_tests_name("compact", tests, NULL, NULL);
}
