/* crc32c: known vectors, fast kernels against the portable twins, chaining, combining. */
#include "crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rng.h"

static u8 source[70000];
static u8 target[70000];

static void fill(u64 seed)
{
    struct rng r;
    rng_init(&r, seed);
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (u8)rng_next(&r);
}

/* Vectors of RFC 3720, B.4. */
static void known_vectors(void **state)
{
    (void)state;
    u8 b[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c_soft(0, "123456789", 9), 0xe3069283u);
    memset(b, 0, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x8a9136aau);
    memset(b, 0xff, sizeof b);
    assert_int_equal(crc32c(0, b, sizeof b), 0x62a8ab43u);
    for (u32 i = 0; i < 32; i++)
        b[i] = (u8)i;
    assert_int_equal(crc32c(0, b, sizeof b), 0x46dd794eu);
    assert_int_equal(crc32c(0, NULL, 0), 0);
}

static void twins_agree_on_every_length_and_alignment(void **state)
{
    (void)state;
    fill(1);
    for (u32 at = 0; at < 17; at++)
        for (u32 n = 0; n < 700; n++)
            assert_int_equal(crc32c(n * 77, source + at, n), crc32c_soft(n * 77, source + at, n));
    struct rng r;
    rng_init(&r, 2);
    for (u32 i = 0; i < 300; i++) {
        size_t at = rng_below(&r, 64), n = rng_below(&r, sizeof source - 64);
        u32 start = (u32)rng_next(&r);
        assert_int_equal(crc32c(start, source + at, n), crc32c_soft(start, source + at, n));
    }
}

static void copy_copies_exactly_and_sums(void **state)
{
    (void)state;
    fill(3);
    for (u32 i = 0; i < 1200; i++) {
        size_t n = i < 900 ? i : i * 50, at = i % 19, to = 16 + i % 65;
        memset(target, 0xaa, n + 128);
        assert_int_equal(crc32c_copy(i, target + to, source + at, n),
                         crc32c_soft(i, source + at, n));
        assert_memory_equal(target + to, source + at, n);
        for (u32 k = 0; k < 16; k++) {
            assert_int_equal(target[to - 1 - k], 0xaa);
            assert_int_equal(target[to + n + k], 0xaa);
        }
        memset(target, 0, n);
        assert_int_equal(crc32c_copy_soft(i, target, source, n), crc32c(i, source, n));
        assert_memory_equal(target, source, n);
    }
}

static void pieces_chain_and_combine(void **state)
{
    (void)state;
    fill(4);
    struct rng r;
    rng_init(&r, 5);
    for (u32 i = 0; i < 200; i++) {
        size_t n = 1 + rng_below(&r, 60000), cut = rng_below(&r, n + 1);
        u32 whole = crc32c(0, source, n);
        u32 a = crc32c(0, source, cut), b = crc32c(0, source + cut, n - cut);
        assert_int_equal(crc32c(a, source + cut, n - cut), whole);
        assert_int_equal(crc32c_combine(a, b, n - cut), whole);
        assert_int_equal(crc32c_combine_soft(a, b, n - cut), whole);
    }
    for (u32 i = 0; i < 64; i++) {
        u64 len = rng_next(&r) >> i;
        assert_int_equal(crc32c_combine(0x1234567, 0, len), crc32c_combine_soft(0x1234567, 0, len));
    }
}

/* Lesser kernels are those of other machines. */
static int run(enum crc32c_kernel k)
{
    if (crc32c_use(k) != k) {
        print_message("crc32c: this machine has no kernels of level %d\n", k);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(twins_agree_on_every_length_and_alignment),
        cmocka_unit_test(copy_copies_exactly_and_sums),
        cmocka_unit_test(pieces_chain_and_combine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run(CRC32C_SOFT) + run(CRC32C_FAST) + run(CRC32C_WIDE);
}
