/* batch_validate: each rule refuses with Kafka's code, and what is rebuilt is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "crc32c.h"
#include "golden_batches.h"

#define NOW 1700000000000

static struct compressor *comp;
static struct batch_builder built;
static struct arena arena;
static u8 bytes_now[100000];

static const struct batch_rules rules_default = {
    .codec = BATCH_CODEC_PRODUCER,
    .level = COMPRESS_LEVEL_DEFAULT,
    .deep = true,
    .now_ms = NOW,
    .before_max_ms = INT64_MAX,
    .after_max_ms = 3600000,
    .max_message_bytes = 1048588,
};

static int set_up(void **state)
{
    (void)state;
    comp = compressor_new();
    batch_builder_init(&built, MIB);
    arena_init(&arena, 4096, MIB);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    compressor_free(comp);
    batch_builder_free(&built);
    arena_free(&arena);
    return 0;
}

/* Three records at NOW, NOW+5, NOW+1 with keys, in bytes_now. */
static struct batch make(enum codec codec)
{
    static const i64 at[] = { 0, 5, 1 };
    struct bytes out;
    struct batch b;
    batch_builder_reset(&built);
    built.codec = codec;
    for (u32 i = 0; i < 3; i++)
        assert_int_equal(batch_builder_add(&built, NOW + at[i], bytes_str("key"),
                                           bytes_str("value value value value value"), NULL, 0),
                         ERR_NONE);
    assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
    memcpy(bytes_now, out.data, out.len);
    assert_int_equal(batch_parse(bytes_of(bytes_now, out.len), &b), ERR_NONE);
    return b;
}

/* bytes_now with a good CRC, parsed again. */
static struct batch reseal(u32 len)
{
    struct batch b;
    put_be32(bytes_now + BATCH_AT_CRC,
             crc32c(0, bytes_now + BATCH_AT_ATTRIBUTES, len - BATCH_AT_ATTRIBUTES));
    put_be32(bytes_now + BATCH_AT_LENGTH, len - BATCH_PREFIX_BYTES);
    assert_int_equal(batch_parse(bytes_of(bytes_now, len), &b), ERR_NONE);
    return b;
}

static err validate(struct batch b, struct batch_rules rules, struct batch_verdict *v)
{
    err e = batch_validate(comp, &b, &rules, v);
    assert_true((e == ERR_NONE) == (v->reason == NULL));
    return e;
}

static void good_batches_stay_as_they_are(void **state)
{
    (void)state;
    struct batch_verdict v;
    for (u32 c = 0; c < CODEC_COUNT; c++) {
        struct batch b = make((enum codec)c);
        struct batch_rules rules = rules_default;
        for (u32 i = 0; i < 2; i++) {
            assert_int_equal(validate(b, rules, &v), ERR_NONE);
            assert_false(v.retime);
            assert_false(v.rebuild);
            assert_true(v.deep);
            assert_true(v.decoded_bytes > 100);
            assert_int_equal(v.max_timestamp, NOW + 5);
            rules.codec = (i32)c; /* naming the same codec changes nothing */
        }
        rules.deep = false;
        assert_int_equal(validate(b, rules, &v), ERR_NONE);
        assert_int_equal(v.deep, c == CODEC_NONE);
        rules.compacted = true;
        assert_int_equal(validate(b, rules, &v), ERR_NONE);
        assert_true(v.deep);
    }
}

static void headers_are_refused_with_kafkas_codes(void **state)
{
    (void)state;
    struct batch_verdict v;
    struct batch_rules rules = rules_default;
    struct batch b = make(CODEC_NONE);
    rules.max_message_bytes = b.bytes;
    assert_int_equal(validate(b, rules, &v), ERR_NONE);
    rules.max_message_bytes = b.bytes - 1;
    assert_int_equal(validate(b, rules, &v), ERR_MESSAGE_TOO_LARGE);
    bytes_now[70] ^= 1;
    assert_int_equal(validate(b, rules_default, &v), ERR_CORRUPT_MESSAGE);
    bytes_now[70] ^= 1;
    static const struct {
        u32 at, bytes;
        i64 value;
        err want;
    } cases[] = {
        { BATCH_AT_BASE_OFFSET, 8, 1, ERR_INVALID_RECORD },
        { BATCH_AT_RECORD_COUNT, 4, 2, ERR_INVALID_RECORD },
        { BATCH_AT_RECORD_COUNT, 4, 0, ERR_INVALID_RECORD },
        { BATCH_AT_LAST_OFFSET_DELTA, 4, 3, ERR_INVALID_RECORD },
        { BATCH_AT_LAST_OFFSET_DELTA, 4, INT32_MAX, ERR_INVALID_RECORD },
        { BATCH_AT_ATTRIBUTES, 2, BATCH_ATTR_CONTROL, ERR_INVALID_RECORD },
        { BATCH_AT_ATTRIBUTES, 2, 5, ERR_UNSUPPORTED_COMPRESSION_TYPE },
        { BATCH_AT_ATTRIBUTES, 2, CODEC_LZ4, ERR_INVALID_RECORD }, /* does not decode */
        { BATCH_AT_PRODUCER_ID, 8, 9, ERR_INVALID_RECORD },        /* no sequence */
    };
    for (u32 i = 0; i < ARRAY_COUNT(cases); i++) {
        b = make(CODEC_NONE);
        for (u32 k = 0; k < cases[i].bytes; k++)
            bytes_now[cases[i].at + k] = (u8)(cases[i].value >> 8 * (cases[i].bytes - 1 - k));
        assert_int_equal(validate(reseal(b.bytes), rules_default, &v), cases[i].want);
    }
    /* Count and range agree with each other, not with the records. */
    b = make(CODEC_NONE);
    put_be32(bytes_now + BATCH_AT_RECORD_COUNT, 4);
    put_be32(bytes_now + BATCH_AT_LAST_OFFSET_DELTA, 3);
    assert_int_equal(validate(reseal(b.bytes), rules_default, &v), ERR_INVALID_RECORD);
    put_be32(bytes_now + BATCH_AT_RECORD_COUNT, 2);
    put_be32(bytes_now + BATCH_AT_LAST_OFFSET_DELTA, 1);
    assert_int_equal(validate(reseal(b.bytes), rules_default, &v), ERR_INVALID_RECORD);
}

static void timestamps_are_bounded(void **state)
{
    (void)state;
    struct batch_verdict v;
    struct batch_rules rules = rules_default;
    struct batch b = make(CODEC_GZIP);
    rules.after_max_ms = 5;
    assert_int_equal(validate(b, rules, &v), ERR_NONE);
    rules.after_max_ms = 4;
    assert_int_equal(validate(b, rules, &v), ERR_INVALID_TIMESTAMP);
    assert_int_equal(v.error_count, 1);
    assert_int_equal(v.errors[0].index, 1);
    assert_int_equal(v.errors[0].code, ERR_INVALID_TIMESTAMP);
    rules.deep = false; /* the header alone says it, too */
    assert_int_equal(validate(b, rules, &v), ERR_INVALID_TIMESTAMP);
    rules.log_append_time = true; /* the client's times do not count */
    assert_int_equal(validate(b, rules, &v), ERR_NONE);
    rules = rules_default;
    rules.now_ms = NOW + 100;
    rules.before_max_ms = 98;
    assert_int_equal(validate(b, rules, &v), ERR_INVALID_TIMESTAMP);
    assert_int_equal(v.error_count, 2);
    rules.before_max_ms = 100;
    assert_int_equal(validate(b, rules, &v), ERR_NONE);
    /* "No timestamp" is always fine; extremes do not overflow. */
    static const i64 extremes[] = { -1, INT64_MIN, INT64_MAX, 0 };
    for (u32 i = 0; i < ARRAY_COUNT(extremes); i++) {
        struct bytes out;
        batch_builder_reset(&built);
        assert_int_equal(
            batch_builder_add(&built, extremes[i], bytes_str("k"), bytes_str("v"), NULL, 0),
            ERR_NONE);
        assert_int_equal(batch_builder_finish(&built, NULL, &out), ERR_NONE);
        assert_int_equal(batch_parse(out, &b), ERR_NONE);
        rules = rules_default;
        rules.before_max_ms = 1000;
        assert_int_equal(validate(b, rules, &v), i == 0 ? ERR_NONE : ERR_INVALID_TIMESTAMP);
    }
}

static void compacted_topics_need_keys(void **state)
{
    (void)state;
    struct batch_verdict v;
    struct batch_rules rules = rules_default;
    struct bytes out;
    struct batch b;
    rules.compacted = true;
    batch_builder_reset(&built);
    built.codec = CODEC_SNAPPY;
    for (u32 i = 0; i < 60; i++)
        assert_int_equal(batch_builder_add(&built, NOW, i % 2 ? bytes_str("") : (struct bytes){ 0 },
                                           bytes_str("v"), NULL, 0),
                         ERR_NONE);
    assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
    assert_int_equal(batch_parse(out, &b), ERR_NONE);
    assert_int_equal(validate(b, rules_default, &v), ERR_NONE);
    assert_int_equal(validate(b, rules, &v), ERR_INVALID_RECORD);
    assert_int_equal(v.error_count, 30);
    assert_int_equal(v.errors[BATCH_RECORD_ERRORS_MAX - 1].index, 30);
}

static void headers_that_lie_about_time_are_corrected(void **state)
{
    (void)state;
    struct batch_verdict v;
    struct batch b = make(CODEC_ZSTD);
    put_be64(bytes_now + BATCH_AT_MAX_TIMESTAMP, NOW + 1000);
    put_be16(bytes_now + BATCH_AT_ATTRIBUTES, CODEC_ZSTD | BATCH_ATTR_LOG_APPEND_TIME);
    b = reseal(b.bytes);
    assert_int_equal(validate(b, rules_default, &v), ERR_NONE);
    assert_true(v.retime);
    assert_int_equal(v.max_timestamp, NOW + 5);
    batch_patch_timestamps(bytes_now, false, v.max_timestamp);
    assert_int_equal(batch_parse(bytes_of(bytes_now, b.bytes), &b), ERR_NONE);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    assert_int_equal(validate(b, rules_default, &v), ERR_NONE);
    assert_false(v.retime);
    struct batch_rules rules = rules_default;
    rules.log_append_time = true;
    assert_int_equal(validate(b, rules, &v), ERR_NONE);
    assert_true(v.retime);
    assert_int_equal(v.max_timestamp, NOW);
}

/* Records of `b` against those of the builder's last batch. */
static void check_rebuilt(struct bytes out, enum codec codec, bool log_append_time)
{
    struct batch b;
    struct bytes plain;
    struct record_iter it;
    struct record r;
    static const i64 at[] = { 0, 5, 1 };
    assert_int_equal(batch_parse(out, &b), ERR_NONE);
    assert_int_equal(b.bytes, out.len);
    assert_int_equal(batch_check_crc(&b), ERR_NONE);
    assert_int_equal(batch_codec_bits(&b), codec);
    assert_int_equal(batch_is_log_append_time(&b), log_append_time);
    assert_int_equal(b.record_count, 3);
    assert_int_equal(b.last_offset_delta, 2);
    assert_int_equal(b.producer_id, 77);
    assert_int_equal(b.base_sequence, 5);
    assert_int_equal(b.producer_epoch, 3);
    assert_int_equal(batch_decode(comp, &b, MIB, &plain), ERR_NONE);
    record_iter_init(&it, &b, plain);
    for (u32 i = 0; i < 3; i++) {
        assert_int_equal(record_next(&it, &r), ERR_NONE);
        assert_int_equal(r.offset_delta, i);
        assert_int_equal(r.timestamp, log_append_time ? NOW : NOW + at[i]);
        assert_true(bytes_eq_str(r.value, "value value value value value"));
    }
    assert_int_equal(record_next(&it, &r), ERR_NOT_FOUND);
}

static struct batch with_producer(struct batch b)
{
    put_be64(bytes_now + BATCH_AT_PRODUCER_ID, 77);
    put_be16(bytes_now + BATCH_AT_PRODUCER_EPOCH, 3);
    put_be32(bytes_now + BATCH_AT_BASE_SEQUENCE, 5);
    return reseal(b.bytes);
}

static void every_codec_becomes_every_other(void **state)
{
    (void)state;
    for (u32 from = 0; from < CODEC_COUNT; from++) {
        for (u32 to = 0; to < CODEC_COUNT; to++) {
            for (u32 lat = 0; lat < 2; lat++) {
                struct batch_verdict v;
                struct batch_rules rules = rules_default;
                struct bytes out;
                struct batch b = with_producer(make((enum codec)from));
                rules.codec = (i32)to;
                rules.log_append_time = lat;
                rules.level = to == CODEC_LZ4 ? 12 : COMPRESS_LEVEL_DEFAULT;
                assert_int_equal(validate(b, rules, &v), ERR_NONE);
                assert_int_equal(v.rebuild, from != to);
                if (from == to)
                    continue;
                assert_int_equal(batch_rebuild(comp, &b, &rules, &v, &arena, &out), ERR_NONE);
                check_rebuilt(out, (enum codec)to, lat);
                rules.max_message_bytes = out.len - 1;
                assert_int_equal(batch_rebuild(comp, &b, &rules, &v, &arena, &out),
                                 ERR_MESSAGE_TOO_LARGE);
                arena_reset(&arena);
            }
        }
    }
}

static void broken_offset_deltas_are_renumbered(void **state)
{
    (void)state;
    for (u32 c = 0; c < CODEC_COUNT; c++) {
        struct batch_verdict v;
        struct bytes out;
        struct batch b;
        static const i64 at[] = { 0, 5, 1 };
        batch_builder_reset(&built);
        built.codec = (enum codec)c;
        for (i32 i = 0; i < 3; i++)
            assert_int_equal(batch_builder_add_at(&built, i * 1000, NOW + at[i], bytes_str("key"),
                                                  bytes_str("value value value value value"), NULL,
                                                  0),
                             ERR_NONE);
        assert_int_equal(batch_builder_finish(&built, comp, &out), ERR_NONE);
        memcpy(bytes_now, out.data, out.len);
        put_be32(bytes_now + BATCH_AT_LAST_OFFSET_DELTA, 2);
        b = with_producer(reseal(out.len));
        struct batch_rules rules = rules_default;
        assert_int_equal(validate(b, rules, &v), ERR_NONE);
        assert_true(v.rebuild);
        assert_int_equal(batch_rebuild(comp, &b, &rules, &v, &arena, &out), ERR_NONE);
        check_rebuilt(out, (enum codec)c, false);
    }
}

static struct bytes golden(const char *name, u8 *p)
{
    for (u32 i = 0; i < ARRAY_COUNT(golden_batches); i++) {
        const char *hex = golden_batches[i].hex;
        u32 len = (u32)strlen(hex) / 2;
        if (strcmp(golden_batches[i].name, name))
            continue;
        for (u32 k = 0; k < len; k++) {
            unsigned v;
            assert_int_equal(sscanf(hex + 2 * k, "%2x", &v), 1);
            p[k] = (u8)v;
        }
        return bytes_of(p, len);
    }
    fail();
    return (struct bytes){ NULL, 0 };
}

/* Kafka was sent lz4 and stored zstd: headers of our rebuilt batch must be the same, and so must
 * the records. */
static void rebuilt_headers_equal_kafkas(void **state)
{
    (void)state;
    u8 kafkas_bytes[1000], source_bytes[1000];
    struct bytes kafkas = golden("recomp", kafkas_bytes), out, plain;
    struct batch want, source, got;
    struct batch_verdict v;
    struct batch_rules rules = rules_default;
    assert_int_equal(batch_parse(kafkas, &want), ERR_NONE);
    assert_int_equal(batch_decode(comp, &want, MIB, &plain), ERR_NONE);
    struct bytes kept = arena_copy(&arena, plain);
    /* Back to lz4, as the client sent it, then forward again. */
    rules.codec = CODEC_LZ4;
    assert_int_equal(validate(want, rules, &v), ERR_NONE);
    assert_int_equal(batch_rebuild(comp, &want, &rules, &v, &arena, &out), ERR_NONE);
    memcpy(source_bytes, out.data, out.len);
    assert_int_equal(batch_parse(bytes_of(source_bytes, out.len), &source), ERR_NONE);
    rules.codec = CODEC_ZSTD;
    assert_int_equal(validate(source, rules, &v), ERR_NONE);
    assert_int_equal(batch_rebuild(comp, &source, &rules, &v, &arena, &out), ERR_NONE);
    assert_int_equal(batch_parse(out, &got), ERR_NONE);
    assert_int_equal(got.attributes, want.attributes);
    assert_int_equal(got.last_offset_delta, want.last_offset_delta);
    assert_int_equal(got.base_timestamp, want.base_timestamp);
    assert_int_equal(got.max_timestamp, want.max_timestamp);
    assert_int_equal(got.producer_id, want.producer_id);
    assert_int_equal(got.producer_epoch, want.producer_epoch);
    assert_int_equal(got.base_sequence, want.base_sequence);
    assert_int_equal(got.record_count, want.record_count);
    assert_int_equal(batch_decode(comp, &got, MIB, &plain), ERR_NONE);
    assert_true(bytes_eq(plain, kept));
}

static void real_clients_pass(void **state)
{
    (void)state;
    u8 p[1000];
    for (u32 i = 0; i < ARRAY_COUNT(golden_batches); i++) {
        struct batch b;
        struct batch_verdict v;
        struct bytes rest = golden(golden_batches[i].name, p);
        while (rest.len) {
            struct batch_rules rules = rules_default;
            u8 *at = (u8 *)(uintptr_t)rest.data;
            put_be64(at + BATCH_AT_BASE_OFFSET, 0);
            assert_int_equal(batch_next(&rest, &b), ERR_NONE);
            rules.now_ms = b.max_timestamp;
            rules.log_append_time = batch_is_log_append_time(&b);
            assert_int_equal(batch_validate(comp, &b, &rules, &v),
                             batch_is_control(&b) ? ERR_INVALID_RECORD : ERR_NONE);
            if (!batch_is_control(&b))
                assert_false(v.retime || v.rebuild);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_batches_stay_as_they_are),
        cmocka_unit_test(headers_are_refused_with_kafkas_codes),
        cmocka_unit_test(timestamps_are_bounded),
        cmocka_unit_test(compacted_topics_need_keys),
        cmocka_unit_test(headers_that_lie_about_time_are_corrected),
        cmocka_unit_test(every_codec_becomes_every_other),
        cmocka_unit_test(broken_offset_deltas_are_renumbered),
        cmocka_unit_test(rebuilt_headers_equal_kafkas),
        cmocka_unit_test(real_clients_pass),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
