/* The primitive readers and writers: known bytes, limits, and reads past the end. */
#include "wire.h"

#include <string.h>

#include "../unit.h"

#define READER(...)                     \
    const u8 input[] = { __VA_ARGS__ }; \
    struct wire_reader r = wire_reader_of(bytes_of(input, sizeof input))

static void integers_are_big_endian(void **state)
{
    (void)state;
    u8 buf[64];
    struct wire_writer w = wire_writer_of(buf, sizeof buf);
    wire_put_i8(&w, -2);
    wire_put_boolean(&w, true);
    wire_put_i16(&w, -2);
    wire_put_u16(&w, 0xfffe);
    wire_put_i32(&w, 0x01020304);
    wire_put_u32(&w, 0xfffffffe);
    wire_put_i64(&w, INT64_MIN);
    wire_put_f64(&w, 1.5);
    wire_put_uuid(&w, (struct uuid){ { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } });
    assert_int_equal(w.len, 1 + 1 + 2 + 2 + 4 + 4 + 8 + 8 + 16);
    assert_memory_equal(buf + 6, "\x01\x02\x03\x04", 4);
    struct wire_reader r = wire_reader_of(bytes_of(buf, w.len));
    assert_int_equal(wire_get_i8(&r), -2);
    assert_true(wire_get_boolean(&r));
    assert_int_equal(wire_get_i16(&r), -2);
    assert_int_equal(wire_get_u16(&r), 0xfffe);
    assert_int_equal(wire_get_i32(&r), 0x01020304);
    assert_int_equal(wire_get_u32(&r), 0xfffffffe);
    assert_true(wire_get_i64(&r) == INT64_MIN);
    assert_true(wire_get_f64(&r) == 1.5);
    assert_int_equal(wire_get_uuid(&r).b[15], 16);
    assert_false(r.bad);
    assert_int_equal(wire_left(&r), 0);
}

static void check_varint(i64 v, u32 bytes)
{
    u8 buf[16];
    struct wire_writer w = wire_writer_of(buf, sizeof buf);
    wire_put_varlong(&w, v);
    assert_int_equal(w.len, bytes);
    assert_int_equal(wire_size_varlong(v), bytes);
    struct wire_reader r = wire_reader_of(bytes_of(buf, w.len));
    assert_true(wire_get_varlong(&r) == v);
    assert_false(r.bad);
    if (v < INT32_MIN || v > INT32_MAX)
        return;
    struct wire_writer w32 = wire_writer_of(buf, sizeof buf);
    wire_put_varint(&w32, (i32)v);
    assert_int_equal(w32.len, wire_size_varint((i32)v));
    r = wire_reader_of(bytes_of(buf, w32.len));
    assert_int_equal(wire_get_varint(&r), v);
    assert_false(r.bad);
}

static void varints_are_zigzag_of_seven_bits(void **state)
{
    (void)state;
    READER(0x00, 0x01, 0x02, 0xac, 0x02);
    assert_int_equal(wire_get_varint(&r), 0);
    assert_int_equal(wire_get_varint(&r), -1);
    assert_int_equal(wire_get_varint(&r), 1);
    assert_int_equal(wire_get_varint(&r), 150);
    check_varint(0, 1);
    check_varint(-64, 1);
    check_varint(64, 2);
    check_varint(INT32_MAX, 5);
    check_varint(INT32_MIN, 5);
    check_varint(INT64_MAX, 10);
    check_varint(INT64_MIN, 10);
    for (u32 bit = 0; bit < 32; bit++) {
        u8 buf[8];
        u32 v = (u32)1 << bit;
        struct wire_writer w = wire_writer_of(buf, sizeof buf);
        wire_put_uvarint(&w, v);
        assert_int_equal(w.len, wire_size_uvarint(v));
        struct wire_reader back = wire_reader_of(bytes_of(buf, w.len));
        assert_int_equal(wire_get_uvarint(&back), v);
    }
    assert_int_equal(wire_size_uvarint(0), 1);
    assert_int_equal(wire_size_uvarint(127), 1);
    assert_int_equal(wire_size_uvarint(128), 2);
}

static void overlong_varints_are_refused(void **state)
{
    (void)state;
    {
        READER(0xff, 0xff, 0xff, 0xff, 0x0f);
        assert_int_equal(wire_get_uvarint(&r), UINT32_MAX);
        assert_false(r.bad);
    }
    {
        READER(0xff, 0xff, 0xff, 0xff, 0x1f); /* the 33rd bit */
        assert_int_equal(wire_get_uvarint(&r), 0);
        assert_true(r.bad);
    }
    {
        READER(0x80, 0x80, 0x80, 0x80, 0x80, 0x00);
        assert_int_equal(wire_get_uvarint(&r), 0);
        assert_true(r.bad);
    }
    {
        READER(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02);
        assert_true(wire_get_varlong(&r) == 0);
        assert_true(r.bad);
    }
    {
        READER(0x80);
        assert_int_equal(wire_get_uvarint(&r), 0);
        assert_true(r.bad);
    }
}

static void reads_past_the_end_yield_zeros_for_ever(void **state)
{
    (void)state;
    READER(0x7f, 0x7f, 0x7f);
    assert_int_equal(wire_get_i32(&r), 0);
    assert_true(r.bad);
    assert_int_equal(wire_get_i8(&r), 0);
    assert_int_equal(wire_get_i16(&r), 0);
    assert_true(wire_get_i64(&r) == 0);
    assert_true(uuid_is_zero(wire_get_uuid(&r)));
    assert_int_equal(wire_get_string(&r, true, true).len, 0);
    assert_null(wire_get_bytes(&r, false, true).data);
    assert_int_equal(wire_get_count(&r, false, true, 1), 0);
    assert_ptr_equal(r.pos, r.end);
    struct wire_reader none = wire_reader_of((struct bytes){ NULL, 0 });
    assert_int_equal(wire_get_u8(&none), 0);
    assert_true(none.bad);
}

static void strings_in_both_forms(void **state)
{
    (void)state;
    for (u32 compact = 0; compact < 2; compact++) {
        u8 buf[32];
        struct wire_writer w = wire_writer_of(buf, sizeof buf);
        wire_put_string(&w, bytes_str("leat"), compact, false);
        wire_put_string(&w, (struct bytes){ NULL, 0 }, compact, true);
        wire_put_string(&w, (struct bytes){ NULL, 0 }, compact, false);
        assert_int_equal(w.len, compact ? 5 + 1 + 1 : 6 + 2 + 2);
        assert_int_equal(wire_size_string(bytes_str("leat"), compact), compact ? 5 : 6);
        struct wire_reader r = wire_reader_of(bytes_of(buf, w.len));
        assert_true(bytes_eq_str(wire_get_string(&r, compact, false), "leat"));
        assert_null(wire_get_string(&r, compact, true).data);
        struct bytes empty = wire_get_string(&r, compact, false);
        assert_non_null(empty.data);
        assert_int_equal(empty.len, 0);
        assert_false(r.bad);
        /* Null where it must not be. */
        r = wire_reader_of(bytes_of(buf, w.len));
        wire_get_string(&r, compact, false);
        wire_get_string(&r, compact, false);
        assert_true(r.bad);
    }
}

static void lengths_beyond_the_input_are_refused(void **state)
{
    (void)state;
    {
        READER(0x00, 0x03, 'a', 'b');
        assert_int_equal(wire_get_string(&r, false, true).len, 0);
        assert_true(r.bad);
    }
    {
        READER(0x7f, 0xff, 0xff, 0xff, 'a');
        assert_int_equal(wire_get_bytes(&r, false, true).len, 0);
        assert_true(r.bad);
    }
    {
        READER(0xff, 0xff, 0xff, 0xff, 0x0f, 'a');
        assert_int_equal(wire_get_bytes(&r, true, true).len, 0);
        assert_true(r.bad);
    }
    {
        READER(0x00, 0x00, 0x00, 0x02, 1, 2, 3, 4, 5, 6, 7);
        assert_int_equal(wire_get_count(&r, false, false, 4), 0);
        assert_true(r.bad);
    }
    {
        READER(0x00, 0x00, 0x00, 0x02, 1, 2, 3, 4, 5, 6, 7, 8);
        assert_int_equal(wire_get_count(&r, false, false, 4), 2);
        assert_false(r.bad);
    }
}

static void writing_beyond_the_buffer_sets_bad(void **state)
{
    (void)state;
    u8 buf[4] = { 0 };
    struct wire_writer w = wire_writer_of(buf, 3);
    wire_put_i32(&w, -1);
    assert_true(w.bad);
    assert_int_equal(w.len, 0);
    wire_put_raw(&w, "abc", 3);
    wire_put_i8(&w, 1);
    assert_int_equal(w.len, 3);
    assert_int_equal(buf[3], 0);
}

static void records_are_copied_or_noted(void **state)
{
    (void)state;
    u8 buf[32];
    struct wire_ref refs[1];
    struct wire_writer w = wire_writer_of(buf, sizeof buf);
    wire_put_records(&w, bytes_str("xyz"), true, true);
    assert_int_equal(w.len, 4);
    w = wire_writer_of(buf, sizeof buf);
    w.refs = refs;
    w.refs_cap = 1;
    wire_put_records(&w, bytes_of((const u8 *)16, 300), true, true);
    wire_put_records(&w, (struct bytes){ NULL, 0 }, true, true);
    wire_put_i8(&w, 7);
    assert_false(w.bad);
    assert_int_equal(w.len, 2 + 1 + 1);
    assert_int_equal(w.refs_count, 1);
    assert_int_equal(refs[0].at, 2);
    assert_int_equal(refs[0].bytes.len, 300);
    wire_put_records(&w, bytes_str("x"), true, true);
    assert_true(w.bad);
}

static void a_tagged_field_ends_where_it_says(void **state)
{
    (void)state;
    READER(5, 2, 0x00, 0x09, 0x7f);
    u32 tag;
    const u8 *end = wire_tag_begin(&r, &tag);
    assert_int_equal(tag, 5);
    assert_int_equal(wire_left(&r), 2);
    assert_int_equal(wire_get_i16(&r), 9);
    wire_tag_end(&r, end);
    assert_false(r.bad);
    assert_int_equal(wire_get_i8(&r), 0x7f);
    {
        struct wire_reader again = wire_reader_of(bytes_of(input, sizeof input));
        end = wire_tag_begin(&again, &tag);
        (void)wire_get_i8(&again);
        wire_tag_end(&again, end);
        assert_true(again.bad);
        assert_ptr_equal(again.pos, again.end);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_big_endian),
        cmocka_unit_test(varints_are_zigzag_of_seven_bits),
        cmocka_unit_test(overlong_varints_are_refused),
        cmocka_unit_test(reads_past_the_end_yield_zeros_for_ever),
        cmocka_unit_test(strings_in_both_forms),
        cmocka_unit_test(lengths_beyond_the_input_are_refused),
        cmocka_unit_test(writing_beyond_the_buffer_sets_bad),
        cmocka_unit_test(records_are_copied_or_noted),
        cmocka_unit_test(a_tagged_field_ends_where_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
