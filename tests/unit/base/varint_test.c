/* varint: every length, the edges, what must be refused. */
#include "varint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rng.h"

static void numbers_round_trip(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (u32 i = 0; i < 100000; i++) {
        u64 v = rng_next(&r) >> (i % 64), back;
        if (i < 4)
            v = (u64[]){ 0, UINT64_MAX, INT64_MAX, (u64)INT64_MIN }[i];
        u8 b[VARLONG_BYTES_MAX];
        i64 s;
        i32 n;
        u32 u;
        u8 *end = varint_put_u64(b, v);
        assert_int_equal(end - b, varint_size_u64(v));
        assert_ptr_equal(varint_get_u64(b, end, &back), end);
        assert_true(back == v);
        assert_null(varint_get_u64(b, end - 1, &back));
        end = varint_put_i64(b, (i64)v);
        assert_int_equal(end - b, varint_size_i64((i64)v));
        assert_ptr_equal(varint_get_i64(b, end, &s), end);
        assert_true(s == (i64)v);
        end = varint_put_i32(b, (i32)v);
        assert_int_equal(end - b, varint_size_i32((i32)v));
        assert_true(end - b <= VARINT_BYTES_MAX);
        assert_ptr_equal(varint_get_i32(b, end, &n), end);
        assert_int_equal(n, (i32)v);
        end = varint_put_u32(b, (u32)v);
        assert_int_equal(end - b, varint_size_u32((u32)v));
        assert_ptr_equal(varint_get_u32(b, end, &u), end);
        assert_int_equal(u, (u32)v);
    }
}

static void known_encodings(void **state)
{
    (void)state;
    static const struct {
        i32 v;
        u8 len, b[5];
    } known[] = {
        { 0, 1, { 0 } },           { -1, 1, { 1 } },
        { 63, 1, { 0x7e } },       { -64, 1, { 0x7f } },
        { 64, 2, { 0x80, 0x01 } }, { INT32_MIN, 5, { 0xff, 0xff, 0xff, 0xff, 0x0f } },
    };
    for (u32 i = 0; i < ARRAY_COUNT(known); i++) {
        u8 b[5];
        assert_int_equal(varint_put_i32(b, known[i].v) - b, known[i].len);
        assert_memory_equal(b, known[i].b, known[i].len);
    }
}

static void overlong_and_empty_are_refused(void **state)
{
    (void)state;
    static const u8 ones[12] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                 0x80, 0x80, 0x80, 0x80, 0x01, 0x01 };
    u64 v;
    u32 u;
    i32 n;
    i64 s;
    assert_null(varint_get_u64(ones, ones + 12, &v));
    assert_null(varint_get_u32(ones, ones + 12, &u));
    assert_non_null(varint_get_u64(ones + 1, ones + 12, &v));
    assert_null(varint_get_u32(ones + 5, ones + 12, &u)); /* six bytes */
    assert_non_null(varint_get_u32(ones + 6, ones + 12, &u));
    assert_null(varint_get_u32(ones, ones, &u));
    assert_null(varint_get_i32(NULL, ones + 12, &n));
    assert_null(varint_get_i64(NULL, NULL, &s));
    assert_int_equal(n, 0);
    assert_int_equal(s, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_round_trip),
        cmocka_unit_test(known_encodings),
        cmocka_unit_test(overlong_and_empty_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
