/* The parts of leat-bench whose mistakes would falsify results without being noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../../perf/bench.h"
#include "batch.h"

static u64 test_random(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}
static int compare_u64(const void *a, const void *b)
{
    u64 x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void percentiles_are_exact_to_one_percent(void **state)
{
    (void)state;
    static struct hist h;
    static u64 values[100000];
    static const f64 percents[] = { 1, 50, 90, 99, 99.9, 99.99, 100 };
    u64 seed = 42;
    for (u32 i = 0; i < ARRAY_COUNT(values); i++) {
        values[i] = test_random(&seed) >> (24 + test_random(&seed) % 40);
        hist_record(&h, values[i]);
    }
    qsort(values, ARRAY_COUNT(values), sizeof values[0], compare_u64);
    for (u32 i = 0; i < ARRAY_COUNT(percents); i++) {
        u64 rank = (u64)((f64)ARRAY_COUNT(values) * percents[i] / 100.0 + 0.999999);
        u64 exact = values[rank - 1], got = hist_percentile(&h, percents[i]);
        assert_true(got >= exact);
        assert_true(got - exact <= exact / 100);
    }
}
static void an_empty_histogram_has_no_percentiles(void **state)
{
    (void)state;
    static struct hist h;
    assert_int_equal(hist_percentile(&h, 99), 0);
}
static void a_window_is_the_difference_of_two_copies(void **state)
{
    (void)state;
    static struct hist live, before, after;
    for (u64 i = 0; i < 100; i++)
        hist_record(&live, 1000000);
    hist_add(&before, &live);
    hist_record(&live, 5);
    hist_add(&after, &live);
    hist_subtract(&after, &before);
    assert_int_equal(after.count, 1);
    assert_int_equal(hist_percentile(&after, 50), 5);
}

static struct options test_options(enum compression c, u32 record_bytes)
{
    return (struct options){
        .record_bytes = record_bytes, .batch_bytes = 16384, .compression = c, .fill = FILL_TEXT
    };
}
/* As the broker sees it: the head of one send, the tail that never changes. */
static u8 *test_send(const struct template *t, u64 wall_ns, i32 sequence)
{
    u8 *whole = mem_dup(t->data, t->len);
    template_head(t, whole, wall_ns, (struct producer_id){ 77, 3 }, sequence);
    return whole;
}
static void every_send_is_a_valid_batch(void **state)
{
    (void)state;
    for (u32 c = COMPRESS_NONE; c <= COMPRESS_ZSTD; c++) {
        struct options o = test_options((enum compression)c, 200);
        struct templates t = { 0 };
        templates_build(&t, &o);
        for (u32 i = 0; i < t.count; i++) {
            u64 wall_ns = 1700000000123456789u + i;
            u8 *whole = test_send(&t.list[i], wall_ns, 1000);
            struct batch b;
            assert_int_equal(batch_parse_produce(bytes_of(whole, t.list[i].len), &b), ERR_NONE);
            assert_int_equal(batch_check_crc(&b), ERR_NONE);
            assert_int_equal(b.bytes, t.list[i].len);
            assert_int_equal(b.producer_id, 77);
            assert_int_equal(b.producer_epoch, 3);
            assert_int_equal(b.base_sequence, 1000);
            assert_int_equal(b.record_count, t.list[i].records);
            assert_int_equal(b.last_offset_delta, t.list[i].records - 1);
            assert_int_equal(b.base_timestamp, 1700000000123);
            u64 stamp = template_stamp(whole, MIN(t.list[i].len, 128u));
            assert_int_equal(stamp, c == COMPRESS_NONE ? wall_ns : 1700000000123000000u);
            mem_free(whole);
        }
        templates_free(&t);
    }
}
static void every_record_has_the_wanted_size(void **state)
{
    (void)state;
    struct options o = test_options(COMPRESS_NONE, 1024);
    struct templates t = { 0 };
    templates_build(&t, &o);
    struct batch b;
    struct record_iter it;
    struct record r;
    u8 *whole = test_send(&t.list[0], 1700000000123456789u, 0);
    assert_int_equal(batch_parse_produce(bytes_of(whole, t.list[0].len), &b), ERR_NONE);
    u32 n = 0;
    for (record_iter_init(&it, &b, batch_payload(&b)); record_next(&it, &r) == ERR_NONE; n++)
        assert_int_equal(r.value.len, 1024);
    assert_int_equal(n, t.list[0].records);
    assert_int_equal(n, 15);
    mem_free(whole);
    templates_free(&t);
}
static void records_too_short_for_a_stamp_keep_the_timestamp(void **state)
{
    (void)state;
    struct options o = test_options(COMPRESS_NONE, 10);
    struct templates t = { 0 };
    templates_build(&t, &o);
    u8 *whole = test_send(&t.list[0], 1700000000123456789u, 0);
    assert_int_equal(template_stamp(whole, 128), 1700000000123000000u);
    mem_free(whole);
    templates_free(&t);
}

static void test_metadata(struct wbuf *w, const struct versions *vs)
{
    bool flexible = wire_flexible(API_METADATA, vs->v[API_METADATA]);
    wire_i32(w, 0);
    wire_array(w, flexible, 1);
    wire_i32(w, 5);
    wire_string(w, flexible, "host");
    wire_i32(w, 9092);
    wire_string(w, flexible, NULL);
    wire_tags(w, flexible);
    wire_string(w, flexible, NULL);
    wire_i32(w, 5);
    wire_array(w, flexible, 1);
    wire_i16(w, 0);
    wire_string(w, flexible, "t");
    wire_i8(w, 0);
    wire_array(w, flexible, 1);
    wire_i16(w, 0);
    wire_i32(w, 0);
    wire_i32(w, 5);
    if (vs->v[API_METADATA] >= 7)
        wire_i32(w, 0);
    for (u32 i = 0; i < (vs->v[API_METADATA] >= 5 ? 3u : 2u); i++) {
        wire_array(w, flexible, 1);
        wire_i32(w, 5);
    }
    wire_tags(w, flexible);
}
static void metadata_of_every_version_is_understood(void **state)
{
    (void)state;
    for (i16 v = 4; v <= 9; v++) {
        struct versions vs = { .v[API_METADATA] = v };
        struct wbuf w = { 0 };
        test_metadata(&w, &vs);
        struct rbuf r = { w.data, w.data + w.len, false };
        struct cluster *c = wire_metadata_parse(&r, &vs);
        assert_non_null(c);
        assert_int_equal(c->node_count, 1);
        assert_string_equal(c->nodes[0].host, "host");
        assert_int_equal(c->nodes[0].port, 9092);
        assert_int_equal(c->partition_count, 1);
        assert_int_equal(c->leaders[0], 5);
        wire_cluster_free(c);
        for (u32 cut = 0; cut < w.len - (v >= 9); cut++) {
            u8 *exact = mem_dup(w.data, cut); /* so that reading past the end is seen */
            r = (struct rbuf){ exact, exact + cut, false };
            assert_null(wire_metadata_parse(&r, &vs));
            mem_free(exact);
        }
        wire_free(&w);
    }
}
static void random_metadata_does_no_harm(void **state)
{
    (void)state;
    u64 seed = 7;
    for (u32 i = 0; i < 20000; i++) {
        struct versions vs = { .v[API_METADATA] = (i16)(4 + i % 6) };
        u8 bytes[128];
        u32 len = (u32)(test_random(&seed) % sizeof bytes);
        for (u32 k = 0; k < len; k++)
            bytes[k] =
                test_random(&seed) & 1 ? (u8)(test_random(&seed) % 6) : (u8)test_random(&seed);
        struct rbuf r = { bytes, bytes + len, false };
        wire_cluster_free(wire_metadata_parse(&r, &vs));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_exact_to_one_percent),
        cmocka_unit_test(an_empty_histogram_has_no_percentiles),
        cmocka_unit_test(a_window_is_the_difference_of_two_copies),
        cmocka_unit_test(every_send_is_a_valid_batch),
        cmocka_unit_test(every_record_has_the_wanted_size),
        cmocka_unit_test(records_too_short_for_a_stamp_keep_the_timestamp),
        cmocka_unit_test(metadata_of_every_version_is_understood),
        cmocka_unit_test(random_metadata_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
