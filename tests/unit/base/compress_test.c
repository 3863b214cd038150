/* compress: round trips, what clients send, hostile input, bounds. */
#include "compress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"
#include "mem.h"
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

/* Half words, half noise. */
static u8 *make_text(u32 len, u64 seed)
{
    struct rng r;
    u8 *p = mem_alloc(len + 64);
    rng_init(&r, seed);
    for (u32 i = 0; i < len; i += 16) {
        if (rng_below(&r, 2))
            memcpy(p + i, "a word or two.. ", 16);
        else
            for (u32 k = 0; k < 16; k++)
                p[i + k] = (u8)rng_next(&r);
    }
    return p;
}

static void every_codec_and_level_round_trips(void **state)
{
    (void)state;
    static const u32 sizes[] = { 0, 1, 15, 4096, 32767, 32768, 32769, 65536, 300000 };
    u8 *text = make_text(300000, 1);
    for (u32 c = 0; c < CODEC_COUNT; c++) {
        for (u32 i = 0; i < ARRAY_COUNT(sizes); i++) {
            for (i32 level = -7; level <= 22; level += 1 + (sizes[i] > 5000) * 6) {
                bool fine = compress_level_valid((enum codec)c, level);
                i32 use = fine ? level : COMPRESS_LEVEL_DEFAULT;
                struct bytes packed, plain, in = bytes_of(text, sizes[i]);
                assert_int_equal(compress_encode(comp, (enum codec)c, use, in, &packed), ERR_NONE);
                assert_int_equal(compress_decode(comp, (enum codec)c, packed, sizes[i], &plain),
                                 ERR_NONE);
                assert_true(bytes_eq(plain, in));
                if (sizes[i] == 0)
                    continue;
                assert_int_equal(compress_decode(comp, (enum codec)c, packed, sizes[i] - 1, &plain),
                                 ERR_MESSAGE_TOO_LARGE);
            }
        }
    }
    mem_free(text);
}

static void levels_are_those_of_kafka(void **state)
{
    (void)state;
    assert_true(compress_level_valid(CODEC_GZIP, -1));
    assert_false(compress_level_valid(CODEC_GZIP, 0));
    assert_true(compress_level_valid(CODEC_GZIP, 9));
    assert_false(compress_level_valid(CODEC_GZIP, 10));
    assert_false(compress_level_valid(CODEC_LZ4, 0));
    assert_true(compress_level_valid(CODEC_LZ4, 17));
    assert_true(compress_level_valid(CODEC_ZSTD, -131072));
    assert_false(compress_level_valid(CODEC_ZSTD, -131073));
    assert_false(compress_level_valid(CODEC_ZSTD, 23));
    assert_false(compress_level_valid(CODEC_SNAPPY, 1));
    for (u32 c = 0; c < CODEC_COUNT; c++) {
        enum codec back = CODEC_NONE;
        assert_true(compress_level_valid((enum codec)c, compress_level_default((enum codec)c)));
        assert_true(codec_from_name(bytes_str(codec_name((enum codec)c)), &back));
        assert_int_equal(back, c);
    }
    enum codec none;
    assert_false(codec_from_name(bytes_str("producer"), &none));
}

/* What other writers make: raw snappy; two gzip members and zero padding; two lz4 frames around a
 * skippable one, with content size and checksums; zstd without content size. */
static void foreign_forms_are_read(void **state)
{
    (void)state;
    static const u8 raw_snappy[] = { 5, 4 << 2, 'h', 'e', 'l', 'l', 'o' };
    struct bytes plain, packed;
    assert_int_equal(compress_decode(comp, CODEC_SNAPPY, bytes_of(raw_snappy, 7), 100, &plain),
                     ERR_NONE);
    assert_true(bytes_eq_str(plain, "hello"));
    for (u32 c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        u8 buf[400];
        u32 len = 0;
        for (u32 i = 0; i < 2; i++) {
            assert_int_equal(compress_encode(comp, (enum codec)c, COMPRESS_LEVEL_DEFAULT,
                                             bytes_str(i ? "world" : "hello "), &packed),
                             ERR_NONE);
            memcpy(buf + len, packed.data, packed.len);
            len += packed.len;
            if (i == 0 && (c == CODEC_LZ4 || c == CODEC_ZSTD)) {
                static const u8 skip[] = { 0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3 };
                memcpy(buf + len, skip, sizeof skip);
                len += (u32)sizeof skip;
            }
        }
        if (c == CODEC_GZIP || c == CODEC_LZ4) {
            memset(buf + len, 0, 9);
            len += 9;
        }
        assert_int_equal(compress_decode(comp, (enum codec)c, bytes_of(buf, len), 100, &plain),
                         ERR_NONE);
        assert_true(bytes_eq_str(plain, "hello world"));
    }
}

/* liblz4 keeps the bytes still due of a broken frame that stated its size, even over a reset: one
 * bad batch must not spoil the good ones after it. */
static void a_broken_sized_lz4_frame_leaves_no_trace(void **state)
{
    (void)state;
    static const u8 sized[] = {
        0x04, 0x22, 0x4d, 0x18, 0x68, 0x40, 5,   0,   0,   0,   0, 0, 0, 0,
        0,    5,    0,    0,    0x80, 'h',  'e', 'l', 'l', 'o', 0, 0, 0, 0
    };
    u8 frame[sizeof sized];
    struct bytes plain, packed;
    bool broken = false;
    memcpy(frame, sized, sizeof sized);
    for (u32 sum = 0; sum < 256; sum++) { /* whichever header checksum is right */
        frame[14] = (u8)sum;
        if (compress_decode(comp, CODEC_LZ4, bytes_of(frame, 28), 100, &plain) == ERR_NONE)
            break;
    }
    assert_true(bytes_eq_str(plain, "hello"));
    for (u32 n = 0; n < 28; n++) {
        broken |= compress_decode(comp, CODEC_LZ4, bytes_of(frame, n), 100, &plain) != ERR_NONE;
        assert_int_equal(compress_encode(comp, CODEC_LZ4, 9, bytes_str("hello"), &packed),
                         ERR_NONE);
        assert_int_equal(compress_decode(comp, CODEC_LZ4, packed, 100, &plain), ERR_NONE);
        assert_true(bytes_eq_str(plain, "hello"));
    }
    assert_true(broken);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    u8 *text = make_text(3000, 2);
    for (u32 c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct bytes packed, plain;
        assert_int_equal(compress_encode(comp, (enum codec)c, COMPRESS_LEVEL_DEFAULT,
                                         bytes_of(text, 3000), &packed),
                         ERR_NONE);
        for (u32 n = 0; n < packed.len; n++) {
            u8 *exact = mem_dup(packed.data, n);
            err e = compress_decode(comp, (enum codec)c, bytes_of(exact, n), 1 << 20, &plain);
            /* snappy-java's framing has no end: a cut between chunks can't be seen here. */
            if (c == CODEC_SNAPPY && n == 16)
                assert_int_equal(plain.len, 0);
            else
                assert_int_equal(e, ERR_CORRUPT_MESSAGE);
            mem_free(exact);
        }
    }
    mem_free(text);
}

static void damage_never_passes_the_limit(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3);
    u8 *text = make_text(20000, 4);
    for (u32 c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct bytes packed, plain;
        assert_int_equal(compress_encode(comp, (enum codec)c, COMPRESS_LEVEL_DEFAULT,
                                         bytes_of(text, 20000), &packed),
                         ERR_NONE);
        for (u32 i = 0; i < 3000; i++) {
            u8 *bad = mem_dup(packed.data, packed.len);
            for (u64 k = 0; k <= rng_below(&r, 4); k++)
                bad[rng_below(&r, i % 2 ? 40 : packed.len)] ^= (u8)(1 << rng_below(&r, 8));
            err e = compress_decode(comp, (enum codec)c, bytes_of(bad, packed.len), 30000, &plain);
            assert_true(e == ERR_NONE || e == ERR_CORRUPT_MESSAGE || e == ERR_MESSAGE_TOO_LARGE);
            assert_true(plain.len <= 30000);
            mem_free(bad);
        }
    }
    mem_free(text);
}

static void bombs_are_bounded(void **state)
{
    (void)state;
    u32 len = 64 * 1024 * 1024;
    u8 *zeros = mem_map(len, false);
    for (u32 c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct bytes packed, plain;
        assert_int_equal(compress_encode(comp, (enum codec)c, COMPRESS_LEVEL_DEFAULT,
                                         bytes_of(zeros, len), &packed),
                         ERR_NONE);
        u8 *kept = mem_dup(packed.data, packed.len);
        u32 kept_len = packed.len;
        compressor_free(comp);
        comp = compressor_new();
        u64 before = mem_used();
        struct bytes bomb = bytes_of(kept, kept_len);
        assert_int_equal(compress_decode(comp, (enum codec)c, bomb, MIB, &plain),
                         ERR_MESSAGE_TOO_LARGE);
        assert_true(mem_used() - before <= MIB + 64 * KIB);
        mem_free(kept);
    }
    mem_unmap(zeros, len);
    /* Snappy that claims 4 GiB in five bytes, zstd that claims 8 GiB. */
    static const u8 liar[] = { 0xff, 0xff, 0xff, 0xff, 0x0f, 0 };
    static const u8 zstd_liar[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0 };
    struct bytes plain;
    u64 before = mem_used();
    assert_int_equal(compress_decode(comp, CODEC_SNAPPY, bytes_of(liar, 6), 1 << 30, &plain),
                     ERR_CORRUPT_MESSAGE);
    struct bytes lie = bytes_of(zstd_liar, sizeof zstd_liar);
    assert_int_not_equal(compress_decode(comp, CODEC_ZSTD, lie, 1 << 30, &plain), ERR_NONE);
    assert_true(mem_used() <= before + MIB);
}

static void unknown_codecs_and_empty_input(void **state)
{
    (void)state;
    struct bytes plain;
    for (u32 c = 5; c < 8; c++)
        assert_int_equal(compress_decode(comp, (enum codec)c, bytes_str("x"), 10, &plain),
                         ERR_UNSUPPORTED_COMPRESSION_TYPE);
    for (u32 c = CODEC_GZIP; c < CODEC_COUNT; c++)
        assert_int_equal(compress_decode(comp, (enum codec)c, (struct bytes){ 0 }, 10, &plain),
                         ERR_CORRUPT_MESSAGE);
    assert_int_equal(compress_decode(comp, CODEC_NONE, bytes_str("xyz"), 2, &plain),
                     ERR_MESSAGE_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_codec_and_level_round_trips),
        cmocka_unit_test(levels_are_those_of_kafka),
        cmocka_unit_test(foreign_forms_are_read),
        cmocka_unit_test(a_broken_sized_lz4_frame_leaves_no_trace),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(damage_never_passes_the_limit),
        cmocka_unit_test(bombs_are_bounded),
        cmocka_unit_test(unknown_codecs_and_empty_input),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
