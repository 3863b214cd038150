/* batch: what real clients wrote, parsing of broken bytes, patching, iteration, building. */
#include "batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "golden_batches.h"
#include "rng.h"

static struct compressor *comp;

static int set_up(void **state)
{
    (void)state;
    comp = compressor_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    compressor_free(comp);
    return 0;
}

static struct bytes from_hex(const char *hex)
{
    u32 len = (u32)strlen(hex) / 2;
    u8 *p = mem_alloc(len);
    for (u32 i = 0; i < len; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        p[i] = (u8)v;
    }
    return bytes_of(p, len);
}

static struct bytes golden(const char *name)
{
    for (u32 i = 0; i < ARRAY_COUNT(golden_batches); i++)
        if (strcmp(golden_batches[i].name, name) == 0)
            return from_hex(golden_batches[i].hex);
    fail();
    return (struct bytes){ NULL, 0 };
}

static void release(struct bytes b)
{
    mem_free((void *)(uintptr_t)b.data);
}

/* ---- golden ---- */

static const char *const line_keys[] = { "alpha", "beta", "gamma", "delta", "alpha" };
static const char *const line_values[] = {
    "The first record of the batch, the first record of the batch.",
    "{\"id\":2,\"name\":\"two\",\"tags\":[\"a\",\"b\",\"c\"],\"text\":\"the the the the the the\"}",
    "",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "again the first key",
};

/* Record `index` of the java-* and rd-* goldens. */
static void check_line(const char *name, const struct record *r, u32 index)
{
    struct header_iter hi;
    struct header h;
    assert_true(index < ARRAY_COUNT(line_keys));
    assert_int_equal(r->offset, index);
    assert_true(bytes_eq_str(r->key, line_keys[index]));
    assert_true(bytes_eq_str(r->value, line_values[index]));
    assert_true(r->timestamp > 1500000000000);
    header_iter_init(&hi, r);
    if (strncmp(name, "rd", 2) == 0) {
        assert_int_equal(r->header_count, 2);
        assert_true(header_next(&hi, &h));
        assert_true(bytes_eq_str(h.key, "h1") && bytes_eq_str(h.value, "v1"));
        assert_true(header_next(&hi, &h));
        assert_true(bytes_eq_str(h.key, "h2") && h.value.len == 0);
    }
    assert_false(header_next(&hi, &h));
}

static void real_batches_are_read(void **state)
{
    (void)state;
    for (u32 i = 0; i < ARRAY_COUNT(golden_batches); i++) {
        const char *name = golden_batches[i].name;
        struct bytes all = from_hex(golden_batches[i].hex), rest = all, plain;
        struct batch b;
        u32 count = 0;
        err e;
        while ((e = batch_next(&rest, &b)) == ERR_NONE) {
            struct record_iter it;
            struct record r;
            i64 max_timestamp = -1;
            assert_int_equal(batch_check_crc(&b), ERR_NONE);
            assert_int_equal(b.base_offset, count);
            assert_int_equal(batch_raw_base_offset(b.data), count);
            assert_int_equal(batch_raw_bytes(b.data), b.bytes);
            assert_int_equal(batch_decode(comp, &b, MIB, &plain), ERR_NONE);
            record_iter_init(&it, &b, plain);
            while ((e = record_next(&it, &r)) == ERR_NONE) {
                if (name[0] == 'j' || name[1] == 'd')
                    check_line(name, &r, count);
                max_timestamp = MAX(max_timestamp, r.timestamp);
                count++;
            }
            assert_int_equal(e, ERR_NOT_FOUND);
            assert_int_equal(max_timestamp, b.max_timestamp);
            assert_int_equal(batch_last_offset(&b), count - 1);
            assert_int_equal(batch_raw_last_offset(b.data), count - 1);
        }
        assert_int_equal(e, ERR_NOT_FOUND);
        assert_int_equal(count, strncmp(name, "py", 2) && strcmp(name, "txn") ? 5 : 4);
        release(all);
    }
}

static void real_transaction_markers(void **state)
{
    (void)state;
    struct bytes all = golden("txn"), rest = all;
    struct batch data, marker;
    for (u32 i = 0; i < 2; i++) {
        bool commit;
        i32 epoch;
        u8 built[BATCH_MARKER_BYTES];
        assert_int_equal(batch_next(&rest, &data), ERR_NONE);
        assert_true(batch_is_transactional(&data) && !batch_is_control(&data));
        assert_int_equal(batch_parse_marker(&data, &commit, &epoch), ERR_INVALID_RECORD);
        assert_int_equal(batch_next(&rest, &marker), ERR_NONE);
        assert_true(batch_is_control(&marker));
        assert_int_equal(batch_parse_marker(&marker, &commit, &epoch), ERR_NONE);
        assert_int_equal(commit, i == 0);
        assert_int_equal(marker.producer_id, data.producer_id);
        batch_build_marker(built, commit, marker.base_offset, marker.leader_epoch,
                           marker.producer_id, marker.producer_epoch, epoch, marker.max_timestamp);
        assert_int_equal(marker.bytes, BATCH_MARKER_BYTES);
        assert_memory_equal(built, marker.data, BATCH_MARKER_BYTES);
    }
    release(all);
}

/* Kafka set the bit and the time and computed the CRC over everything: from the bytes as a
 * client sends them, batch_patch_timestamps must give the same. */
static void patched_timestamps_equal_kafkas(void **state)
{
    (void)state;
    struct bytes all = golden("lat");
    struct batch b, back;
    u8 *copy = mem_dup(all.data, all.len);
    assert_int_equal(batch_parse(all, &b), ERR_NONE);
    assert_true(batch_is_log_append_time(&b));
    batch_patch_timestamps(copy, false, 1700000000004);
    assert_int_equal(batch_parse(bytes_of(copy, all.len), &back), ERR_NONE);
    assert_false(batch_is_log_append_time(&back));
    assert_int_equal(back.max_timestamp, 1700000000004);
    assert_int_not_equal(back.crc, b.crc);
    assert_int_equal(batch_check_crc(&back), ERR_NONE);
    batch_patch_timestamps(copy, true, b.max_timestamp);
    assert_memory_equal(copy, all.data, all.len);
    mem_free(copy);
    release(all);
}

static void our_batches_equal_the_clients(void **state)
{
    (void)state;
    struct bytes all = golden("java-none"), out;
    struct batch b;
    struct batch_builder built;
    struct record_iter it;
    struct record r;
    assert_int_equal(batch_parse(all, &b), ERR_NONE);
    batch_builder_init(&built, MIB);
    record_iter_init(&it, &b, batch_payload(&b));
    while (record_next(&it, &r) == ERR_NONE)
        assert_int_equal(batch_builder_add(&built, r.timestamp, r.key, r.value, NULL, 0), ERR_NONE);
    built.leader_epoch = b.leader_epoch;
    built.producer_id = b.producer_id;
    built.producer_epoch = b.producer_epoch;
    built.base_sequence = b.base_sequence;
    assert_int_equal(batch_builder_finish(&built, NULL, &out), ERR_NONE);
    assert_int_equal(out.len, all.len);
    assert_memory_equal(out.data, all.data, all.len);
    batch_builder_free(&built);
    release(all);
}

/* ---- broken bytes ---- */

static void every_truncation_is_seen(void **state)
{
    (void)state;
    struct bytes all = golden("rd-none");
    struct batch b, first;
    assert_int_equal(batch_parse(all, &first), ERR_NONE);
    for (u32 n = 0; n < first.bytes; n++) {
        u8 *exact = mem_dup(all.data, n);
        assert_int_equal(batch_parse(bytes_of(exact, n), &b), ERR_TRUNCATED);
        assert_int_equal(batch_parse_produce(bytes_of(exact, n), &b), ERR_INVALID_RECORD);
        mem_free(exact);
    }
    /* Kafka takes one batch and ignores an incomplete one behind it; two are refused. */
    for (u32 n = first.bytes; n < all.len; n++)
        assert_int_equal(batch_parse_produce(bytes_of(all.data, n), &b), ERR_NONE);
    assert_int_equal(batch_parse_produce(all, &b), ERR_INVALID_RECORD);
    release(all);
}

static void every_flipped_bit_is_seen(void **state)
{
    (void)state;
    struct bytes all = golden("py-zstd");
    u8 *copy = mem_dup(all.data, all.len);
    u8 *moved = mem_alloc(all.len);
    struct batch b;
    for (u32 bit = BATCH_AT_CRC * 8; bit < all.len * 8; bit++) {
        copy[bit / 8] ^= (u8)(1u << bit % 8);
        err e = batch_parse(bytes_of(copy, all.len), &b);
        if (e == ERR_NONE) {
            assert_int_equal(batch_check_crc(&b), ERR_CORRUPT_MESSAGE);
            assert_int_equal(batch_copy_check_crc(moved, &b), ERR_CORRUPT_MESSAGE);
        } else {
            assert_int_equal(e, ERR_INVALID_RECORD); /* a negative count or delta */
        }
        copy[bit / 8] ^= (u8)(1u << bit % 8);
    }
    assert_int_equal(batch_parse(all, &b), ERR_NONE);
    assert_int_equal(batch_copy_check_crc(moved, &b), ERR_NONE);
    assert_memory_equal(moved, all.data, all.len);
    mem_free(moved);
    mem_free(copy);
    release(all);
}

static void header_limits(void **state)
{
    (void)state;
    u8 p[BATCH_HEADER_BYTES] = { 0 };
    struct bytes in = bytes_of(p, sizeof p);
    struct batch b;
    p[BATCH_AT_MAGIC] = 2;
    put_be32(p + BATCH_AT_LENGTH, BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES);
    assert_int_equal(batch_parse(in, &b), ERR_NONE);
    put_be32(p + BATCH_AT_LENGTH, BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES - 1);
    assert_int_equal(batch_parse(in, &b), ERR_CORRUPT_MESSAGE);
    static const u32 bad[] = { 0, 13, 0x7fffffff, 0x80000000, 0xffffffff, 0x7ffffff5 };
    for (u32 i = 0; i < ARRAY_COUNT(bad); i++) {
        put_be32(p + BATCH_AT_LENGTH, bad[i]);
        assert_int_not_equal(batch_parse(in, &b), ERR_NONE);
    }
    put_be32(p + BATCH_AT_LENGTH, BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES);
    p[BATCH_AT_MAGIC] = 3;
    assert_int_equal(batch_parse(in, &b), ERR_CORRUPT_MESSAGE);
    p[BATCH_AT_MAGIC] = 1;
    assert_int_equal(batch_parse(in, &b), ERR_INVALID_RECORD);
    assert_int_equal(batch_parse_produce(in, &b), ERR_INVALID_RECORD);
}

/* Random damage inside the records: any error or none, never a read outside. */
static void damaged_records_never_escape(void **state)
{
    (void)state;
    struct bytes all = golden("rd-snappy"), plain;
    struct batch b;
    struct rng rng;
    u32 refused = 0;
    rng_init(&rng, 1);
    assert_int_equal(batch_parse(all, &b), ERR_NONE);
    assert_int_equal(batch_decode(comp, &b, MIB, &plain), ERR_NONE);
    for (u32 i = 0; i < 20000; i++) {
        u32 len = i % 3 ? plain.len : (u32)rng_below(&rng, plain.len + 1);
        u8 *bad = mem_dup(plain.data, len);
        for (u64 k = 0; len && k <= rng_below(&rng, 3); k++)
            bad[rng_below(&rng, len)] = (u8)rng_next(&rng);
        struct record_iter it;
        struct record r;
        struct header_iter hi;
        struct header h;
        u64 sum = 0;
        err e;
        record_iter_init(&it, &b, bytes_of(bad, len));
        while ((e = record_next(&it, &r)) == ERR_NONE) {
            for (u32 k = 0; k < r.value.len; k++)
                sum += r.value.data[k];
            header_iter_init(&hi, &r);
            while (header_next(&hi, &h))
                sum += h.key.len ? h.key.data[h.key.len - 1] : 0;
        }
        assert_true(e == ERR_NOT_FOUND || e == ERR_INVALID_RECORD);
        refused += e == ERR_INVALID_RECORD;
        mem_free(bad);
        assert_true(sum < UINT64_MAX);
    }
    assert_true(refused > 5000);
    release(all);
}

/* ---- patching ---- */

static void patching_offsets_leaves_the_crc(void **state)
{
    (void)state;
    struct bytes all = golden("java-lz4");
    u8 *copy = mem_dup(all.data, all.len);
    struct batch b;
    batch_patch(copy, 0x123456789abcdef, 77);
    assert_int_equal(batch_parse(bytes_of(copy, all.len), &b), ERR_NONE);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    assert_int_equal(b.base_offset, 0x123456789abcdef);
    assert_int_equal(b.leader_epoch, 77);
    assert_int_equal(batch_last_offset(&b), 0x123456789abcdef + 4);
    /* A CRC that was wrong stays wrong. */
    copy[all.len - 1] ^= 1;
    batch_patch_timestamps(copy, true, 12345);
    assert_int_equal(batch_parse(bytes_of(copy, all.len), &b), ERR_NONE);
    assert_int_equal(batch_check_crc(&b), ERR_CORRUPT_MESSAGE);
    mem_free(copy);
    release(all);
}

/* ---- building ---- */

static void built_batches_round_trip(void **state)
{
    (void)state;
    struct rng rng;
    struct batch_builder built;
    static u8 noise[3000];
    rng_init(&rng, 9);
    for (u32 i = 0; i < sizeof noise; i++)
        noise[i] = (u8)rng_below(&rng, 20);
    batch_builder_init(&built, MIB);
    for (u32 round = 0; round < 300; round++) {
        struct bytes keys[40], values[40], out, plain;
        i64 times[40];
        i32 deltas[40], delta = -1;
        u32 count = (u32)rng_below(&rng, 40);
        struct header headers[2] = { { bytes_str("name"), bytes_str("value") },
                                     { bytes_str(""), { NULL, 0 } } };
        batch_builder_reset(&built);
        built.codec = (enum codec)(round % CODEC_COUNT);
        built.base_offset = (i64)rng_below(&rng, 1ull << 50);
        built.producer_id = 5;
        built.base_sequence = INT32_MAX - 3;
        built.flags = BATCH_ATTR_TRANSACTIONAL;
        for (u32 i = 0; i < count; i++) {
            keys[i] = rng_below(&rng, 3) ? bytes_of(noise, (u32)rng_below(&rng, 200))
                                         : (struct bytes){ NULL, 0 };
            values[i] = rng_below(&rng, 9) ? bytes_of(noise, (u32)rng_below(&rng, sizeof noise))
                                           : (struct bytes){ NULL, 0 };
            times[i] = (i64)rng_next(&rng) >> rng_below(&rng, 64);
            delta += 1 + (i32)rng_below(&rng, round % 2 ? 1 : 1000);
            deltas[i] = delta;
            assert_int_equal(
                batch_builder_add_at(&built, delta, times[i], keys[i], values[i], headers, i % 3),
                ERR_NONE);
        }
        assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
        struct batch b;
        assert_int_equal(batch_parse(out, &b), ERR_NONE);
        assert_int_equal(batch_check_crc(&b), ERR_NONE);
        assert_int_equal(b.record_count, count);
        assert_true(batch_is_transactional(&b));
        assert_int_equal(batch_last_sequence(&b), batch_sequence_add(INT32_MAX - 3, MAX(delta, 0)));
        assert_int_equal(batch_decode(comp, &b, MIB, &plain), ERR_NONE);
        struct record_iter it;
        struct record r;
        record_iter_init(&it, &b, plain);
        for (u32 i = 0; i < count; i++) {
            assert_int_equal(record_next(&it, &r), ERR_NONE);
            assert_true(bytes_eq(r.key, keys[i]) && !r.key.data == !keys[i].data);
            assert_true(bytes_eq(r.value, values[i]) && !r.value.data == !values[i].data);
            assert_true(r.timestamp == times[i]);
            assert_true(r.offset == built.base_offset + deltas[i]);
            assert_int_equal(r.header_count, i % 3);
        }
        assert_int_equal(record_next(&it, &r), ERR_NOT_FOUND);
    }
    batch_builder_free(&built);
}

static void the_builders_limit_holds(void **state)
{
    (void)state;
    struct batch_builder built;
    struct bytes out, value = bytes_str("0123456789");
    u32 count = 0;
    batch_builder_init(&built, 1000);
    while (batch_builder_add(&built, 1, value, value, NULL, 0) == ERR_NONE)
        count++;
    assert_in_range(count, 30, 40);
    assert_int_equal(batch_builder_finish(&built, NULL, &out), ERR_NONE);
    assert_true(out.len <= 1000);
    assert_true(1000 - out.len < batch_builder_record_bytes(value, value, NULL, 0));
    batch_builder_free(&built);
    assert_int_equal(batch_sequence_add(INT32_MAX, 1), 0);
    assert_int_equal(batch_sequence_add(INT32_MAX - 1, 5), 3);
}

/* ---- by time ---- */

static void times_are_found(void **state)
{
    (void)state;
    static const i64 times[] = { 100, 300, 200, 300, 50 };
    struct batch_builder built;
    struct bytes out;
    struct batch b;
    i64 offset = -1, timestamp = -1;
    batch_builder_init(&built, MIB);
    built.base_offset = 1000;
    built.codec = CODEC_LZ4;
    for (u32 i = 0; i < ARRAY_COUNT(times); i++)
        assert_int_equal(
            batch_builder_add(&built, times[i], bytes_str("k"), bytes_str("v"), NULL, 0), ERR_NONE);
    assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
    assert_int_equal(batch_parse(out, &b), ERR_NONE);
    assert_int_equal(b.max_timestamp, 300);
    static const i64 probes[][2] = { { -5, 1000 }, { 100, 1000 }, { 101, 1001 }, { 300, 1001 } };
    for (u32 i = 0; i < ARRAY_COUNT(probes); i++) {
        assert_int_equal(batch_find_timestamp(comp, &b, probes[i][0], MIB, &offset, &timestamp),
                         ERR_NONE);
        assert_int_equal(offset, probes[i][1]);
    }
    assert_int_equal(batch_find_timestamp(comp, &b, 301, MIB, &offset, &timestamp), ERR_NOT_FOUND);
    assert_int_equal(batch_find_max_timestamp(comp, &b, MIB, &offset, &timestamp), ERR_NONE);
    assert_int_equal(offset, 1001);
    assert_int_equal(timestamp, 300);
    assert_int_equal(batch_find_max_timestamp(comp, &b, 3, &offset, &timestamp),
                     ERR_MESSAGE_TOO_LARGE);
    batch_builder_reset(&built);
    assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
    assert_int_equal(batch_parse(out, &b), ERR_NONE);
    assert_int_equal(batch_find_max_timestamp(comp, &b, MIB, &offset, &timestamp), ERR_NOT_FOUND);
    batch_builder_free(&built);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_batches_are_read),
        cmocka_unit_test(real_transaction_markers),
        cmocka_unit_test(patched_timestamps_equal_kafkas),
        cmocka_unit_test(our_batches_equal_the_clients),
        cmocka_unit_test(every_truncation_is_seen),
        cmocka_unit_test(every_flipped_bit_is_seen),
        cmocka_unit_test(header_limits),
        cmocka_unit_test(damaged_records_never_escape),
        cmocka_unit_test(patching_offsets_leaves_the_crc),
        cmocka_unit_test(built_batches_round_trip),
        cmocka_unit_test(the_builders_limit_holds),
        cmocka_unit_test(times_are_found),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
