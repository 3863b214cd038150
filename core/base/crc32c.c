/* CRC-32C kernels.
 *
 * Fast (x86-64, SSE4.2 + PCLMULQDQ): four 128-bit accumulators hold 64 bytes of the message; each
 * step moves them 64 bytes on by carry-less multiplication and adds the next 64 bytes. What is
 * left at the end, 64 bytes with the same remainder as everything before, goes through the crc32
 * instruction, as does a tail below 64 bytes.
 *
 *     | acc0 | acc1 | acc2 | acc3 | next 64 bytes …    acc = lo(acc)·x^576 ^ hi(acc)·x^512 ^ next
 *
 * Wide (AVX-512 with VPCLMULQDQ): the same with four times 512 bits, 256 bytes a step; the 256
 * bytes at the end go through the fast kernel. A large copy bypasses the caches on its way out:
 * what is copied here goes to segment images, of which there is far more than any cache holds, and
 * else each line would first be read from memory only to be overwritten.
 *
 * All values are bit-reflected: bit 31 of a word is x^0. The product of a 64-bit word and a 32-bit
 * constant, read as a 128-bit word, carries a factor x^33 too much, and so does the crc32 of a
 * product of two 32-bit words: hence constants of the form x^(8n-33), n the bytes to move.
 * crc_shift holds them for n = 2^i, so that any length is a product of rows (crc32c_combine).
 *
 * Measured on a shared 2.8 GHz Zen 1, GB/s, crc32c / crc32c_copy: 64 B 4.8/3.9, 1 KiB 10.0/9.3,
 * 64 KiB 11.1/10.1, 1 MiB 9.8/9.8; the portable twin 0.31; crc32c_combine 70 ns.
 * Copies of 64 KiB from a warm buffer into 1 GiB of memory on a virtual Xeon of 2023, seconds a
 * GiB: fast 0.21, past the caches 0.11, wide 0.23, wide past the caches 0.07 (memcpy alone 0.14).
 * The usual three interleaved streams of crc32 instructions were tried first: 6.8 and 6.2, because
 * this core starts a 64-bit crc32 only every three cycles.
 *
 * The portable twin is byte-wise by table; it exists for other machines and to test against.
 */
#include "crc32c.h"

#include <string.h>

#include "bytes.h"

/* crc_shift[i] = x^(8·2^i - 33) mod P. */
static const u32 crc_shift[32] = {
    0xbf818109, 0x780d5a4d, 0x05ec76f1, 0x00000001, 0x493c7d27, 0xba4fc28e, 0x9e4addf8, 0x0d3b6092,
    0xb9e02b86, 0xdd7e3b0c, 0x170076fa, 0xa51b6135, 0x82f89c77, 0x54a86326, 0x1dc403cc, 0x5ae703ab,
    0xc5013a36, 0xac2ac6dd, 0x9b4615a9, 0x688d1c61, 0xf6af14e6, 0xb6ffe386, 0xb717425b, 0x478b0d30,
    0x54cc62e5, 0x7b2102ee, 0x8a99adef, 0xa7568c8f, 0xd610d67e, 0x6b086b3f, 0xd94f3c0b, 0xbf818109,
};

/* crc_table[i] = i·x^32 mod P, for a byte i. */
static const u32 crc_table[256] = {
    0x00000000, 0xf26b8303, 0xe13b70f7, 0x1350f3f4, 0xc79a971f, 0x35f1141c, 0x26a1e7e8, 0xd4ca64eb,
    0x8ad958cf, 0x78b2dbcc, 0x6be22838, 0x9989ab3b, 0x4d43cfd0, 0xbf284cd3, 0xac78bf27, 0x5e133c24,
    0x105ec76f, 0xe235446c, 0xf165b798, 0x030e349b, 0xd7c45070, 0x25afd373, 0x36ff2087, 0xc494a384,
    0x9a879fa0, 0x68ec1ca3, 0x7bbcef57, 0x89d76c54, 0x5d1d08bf, 0xaf768bbc, 0xbc267848, 0x4e4dfb4b,
    0x20bd8ede, 0xd2d60ddd, 0xc186fe29, 0x33ed7d2a, 0xe72719c1, 0x154c9ac2, 0x061c6936, 0xf477ea35,
    0xaa64d611, 0x580f5512, 0x4b5fa6e6, 0xb93425e5, 0x6dfe410e, 0x9f95c20d, 0x8cc531f9, 0x7eaeb2fa,
    0x30e349b1, 0xc288cab2, 0xd1d83946, 0x23b3ba45, 0xf779deae, 0x05125dad, 0x1642ae59, 0xe4292d5a,
    0xba3a117e, 0x4851927d, 0x5b016189, 0xa96ae28a, 0x7da08661, 0x8fcb0562, 0x9c9bf696, 0x6ef07595,
    0x417b1dbc, 0xb3109ebf, 0xa0406d4b, 0x522bee48, 0x86e18aa3, 0x748a09a0, 0x67dafa54, 0x95b17957,
    0xcba24573, 0x39c9c670, 0x2a993584, 0xd8f2b687, 0x0c38d26c, 0xfe53516f, 0xed03a29b, 0x1f682198,
    0x5125dad3, 0xa34e59d0, 0xb01eaa24, 0x42752927, 0x96bf4dcc, 0x64d4cecf, 0x77843d3b, 0x85efbe38,
    0xdbfc821c, 0x2997011f, 0x3ac7f2eb, 0xc8ac71e8, 0x1c661503, 0xee0d9600, 0xfd5d65f4, 0x0f36e6f7,
    0x61c69362, 0x93ad1061, 0x80fde395, 0x72966096, 0xa65c047d, 0x5437877e, 0x4767748a, 0xb50cf789,
    0xeb1fcbad, 0x197448ae, 0x0a24bb5a, 0xf84f3859, 0x2c855cb2, 0xdeeedfb1, 0xcdbe2c45, 0x3fd5af46,
    0x7198540d, 0x83f3d70e, 0x90a324fa, 0x62c8a7f9, 0xb602c312, 0x44694011, 0x5739b3e5, 0xa55230e6,
    0xfb410cc2, 0x092a8fc1, 0x1a7a7c35, 0xe811ff36, 0x3cdb9bdd, 0xceb018de, 0xdde0eb2a, 0x2f8b6829,
    0x82f63b78, 0x709db87b, 0x63cd4b8f, 0x91a6c88c, 0x456cac67, 0xb7072f64, 0xa457dc90, 0x563c5f93,
    0x082f63b7, 0xfa44e0b4, 0xe9141340, 0x1b7f9043, 0xcfb5f4a8, 0x3dde77ab, 0x2e8e845f, 0xdce5075c,
    0x92a8fc17, 0x60c37f14, 0x73938ce0, 0x81f80fe3, 0x55326b08, 0xa759e80b, 0xb4091bff, 0x466298fc,
    0x1871a4d8, 0xea1a27db, 0xf94ad42f, 0x0b21572c, 0xdfeb33c7, 0x2d80b0c4, 0x3ed04330, 0xccbbc033,
    0xa24bb5a6, 0x502036a5, 0x4370c551, 0xb11b4652, 0x65d122b9, 0x97baa1ba, 0x84ea524e, 0x7681d14d,
    0x2892ed69, 0xdaf96e6a, 0xc9a99d9e, 0x3bc21e9d, 0xef087a76, 0x1d63f975, 0x0e330a81, 0xfc588982,
    0xb21572c9, 0x407ef1ca, 0x532e023e, 0xa145813d, 0x758fe5d6, 0x87e466d5, 0x94b49521, 0x66df1622,
    0x38cc2a06, 0xcaa7a905, 0xd9f75af1, 0x2b9cd9f2, 0xff56bd19, 0x0d3d3e1a, 0x1e6dcdee, 0xec064eed,
    0xc38d26c4, 0x31e6a5c7, 0x22b65633, 0xd0ddd530, 0x0417b1db, 0xf67c32d8, 0xe52cc12c, 0x1747422f,
    0x49547e0b, 0xbb3ffd08, 0xa86f0efc, 0x5a048dff, 0x8ecee914, 0x7ca56a17, 0x6ff599e3, 0x9d9e1ae0,
    0xd3d3e1ab, 0x21b862a8, 0x32e8915c, 0xc083125f, 0x144976b4, 0xe622f5b7, 0xf5720643, 0x07198540,
    0x590ab964, 0xab613a67, 0xb831c993, 0x4a5a4a90, 0x9e902e7b, 0x6cfbad78, 0x7fab5e8c, 0x8dc0dd8f,
    0xe330a81a, 0x115b2b19, 0x020bd8ed, 0xf0605bee, 0x24aa3f05, 0xd6c1bc06, 0xc5914ff2, 0x37faccf1,
    0x69e9f0d5, 0x9b8273d6, 0x88d28022, 0x7ab90321, 0xae7367ca, 0x5c18e4c9, 0x4f48173d, 0xbd23943e,
    0xf36e6f75, 0x0105ec76, 0x12551f82, 0xe03e9c81, 0x34f4f86a, 0xc69f7b69, 0xd5cf889d, 0x27a40b9e,
    0x79b737ba, 0x8bdcb4b9, 0x988c474d, 0x6ae7c44e, 0xbe2da0a5, 0x4c4623a6, 0x5f16d052, 0xad7d5351,
};

/* ---- portable ---- */

u32 crc32c_soft(u32 crc, const void *p, size_t n)
{
    const u8 *s = p;
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = (crc >> 8) ^ crc_table[(crc ^ s[i]) & 0xff];
    return ~crc;
}

u32 crc32c_copy_soft(u32 crc, void *dst, const void *src, size_t n)
{
    if (n)
        memcpy(dst, src, n);
    return crc32c_soft(crc, dst, n);
}

/* a·b mod P. */
static u32 crc_multiply(u32 a, u32 b)
{
    u32 product = 0;
    for (u32 bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = (b >> 1) ^ (b & 1 ? 0x82f63b78u : 0);
    }
    return product;
}

u32 crc32c_combine_soft(u32 crc_a, u32 crc_b, u64 len_b)
{
    u32 power = 1u << 23; /* x^8: one byte */
    for (; len_b; len_b >>= 1) {
        if (len_b & 1)
            crc_a = crc_multiply(crc_a, power);
        power = crc_multiply(power, power);
    }
    return crc_a ^ crc_b;
}

/* ---- x86-64 ---- */

#if defined(__x86_64__)
#include <immintrin.h>

#define CRC_FAST __attribute__((target("sse4.2,pclmul")))
#define CRC_WIDE __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))
#define CRC_FOLD_BYTES 64
#define CRC_WIDE_FOLD_BYTES 256
#define CRC_MOVE_72 0x740eef02u  /* x^(8·72 - 33) mod P */
#define CRC_MOVE_264 0xdcb17aa4u /* x^(8·264 - 33) mod P */
/* From here on the wide kernel is worth its start, and a copy goes past the caches. */
#define CRC_WIDE_MIN (4 * CRC_WIDE_FOLD_BYTES)
#define CRC_STREAM_MIN (16 * 1024)

static enum crc32c_kernel kernel;

static __attribute__((constructor)) void crc_choose(void)
{
    crc32c_use(CRC32C_WIDE);
}

enum crc32c_kernel crc32c_use(enum crc32c_kernel at_most)
{
    __builtin_cpu_init();
    kernel = CRC32C_SOFT;
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
        kernel = CRC32C_FAST;
    if (kernel && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"))
        kernel = CRC32C_WIDE;
    kernel = MIN(kernel, at_most);
    return kernel;
}

/* a·k·x^33 mod P: moves a by the bytes that k stands for. */
CRC_FAST static inline u32 crc_move(u32 a, u32 k)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)k), 0);
    return (u32)_mm_crc32_u64(0, (u64)_mm_cvtsi128_si64(product));
}

/* acc moved on by 64 bytes; `k` = rows for the high and the low half. */
CRC_FAST static inline __m128i crc_fold(__m128i acc, __m128i k, __m128i next)
{
    __m128i lo = _mm_clmulepi64_si128(acc, k, 0x00);
    __m128i hi = _mm_clmulepi64_si128(acc, k, 0x11);
    return _mm_xor_si128(_mm_xor_si128(lo, hi), next);
}

/* Where what is read goes. Known at every call, so that each kernel compiles to straight loops. */
enum crc_out { CRC_NOWHERE, CRC_COPY, CRC_STREAM };

/* 16 bytes at index i of s, put at the same index of d, which is a line's start to CRC_STREAM. */
CRC_FAST static inline __m128i crc_take(u8 *d, const u8 *s, size_t i, enum crc_out out)
{
    __m128i v = _mm_loadu_si128((const __m128i_u *)(const void *)s + i);
    if (out == CRC_COPY)
        _mm_storeu_si128((__m128i_u *)(void *)d + i, v);
    if (out == CRC_STREAM)
        _mm_stream_si128((__m128i *)(void *)d + i, v);
    return v;
}

CRC_FAST static inline u64 crc_finish(__m128i acc, u64 crc)
{
    crc = _mm_crc32_u64(crc, (u64)_mm_cvtsi128_si64(acc));
    return _mm_crc32_u64(crc, (u64)_mm_extract_epi64(acc, 1));
}

#define CRC_KERNEL static inline __attribute__((always_inline)) u32

/* All whole blocks of 64 bytes of n ≥ 64. */
CRC_FAST CRC_KERNEL crc_blocks(u32 crc, u8 *d, const u8 *s, size_t n, enum crc_out out)
{
    const __m128i k = _mm_set_epi64x(crc_shift[6], CRC_MOVE_72);
    __m128i a0 = _mm_xor_si128(crc_take(d, s, 0, out), _mm_cvtsi32_si128((int)crc));
    __m128i a1 = crc_take(d, s, 1, out);
    __m128i a2 = crc_take(d, s, 2, out);
    __m128i a3 = crc_take(d, s, 3, out);
    for (n -= CRC_FOLD_BYTES; n >= CRC_FOLD_BYTES; n -= CRC_FOLD_BYTES) {
        s += CRC_FOLD_BYTES;
        d = out ? d + CRC_FOLD_BYTES : NULL;
        a0 = crc_fold(a0, k, crc_take(d, s, 0, out));
        a1 = crc_fold(a1, k, crc_take(d, s, 1, out));
        a2 = crc_fold(a2, k, crc_take(d, s, 2, out));
        a3 = crc_fold(a3, k, crc_take(d, s, 3, out));
    }
    return (u32)crc_finish(a3, crc_finish(a2, crc_finish(a1, crc_finish(a0, 0))));
}

CRC_WIDE static inline __m512i crc_wide_fold(__m512i acc, __m512i k, __m512i next)
{
    __m512i lo = _mm512_clmulepi64_epi128(acc, k, 0x00);
    __m512i hi = _mm512_clmulepi64_epi128(acc, k, 0x11);
    return _mm512_xor_si512(_mm512_xor_si512(lo, hi), next);
}

CRC_WIDE static inline __m512i crc_wide_take(u8 *d, const u8 *s, size_t i, enum crc_out out)
{
    __m512i v = _mm512_loadu_si512(s + 64 * i);
    if (out == CRC_COPY)
        _mm512_storeu_si512(d + 64 * i, v);
    if (out == CRC_STREAM)
        _mm512_stream_si512((void *)(d + 64 * i), v);
    return v;
}

/* All whole blocks of 256 bytes of n ≥ 256. */
CRC_WIDE CRC_KERNEL crc_wide_blocks(u32 crc, u8 *d, const u8 *s, size_t n, enum crc_out out)
{
    const __m512i k = _mm512_broadcast_i32x4(_mm_set_epi64x(crc_shift[8], CRC_MOVE_264));
    __m512i first = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc));
    __m512i a0 = _mm512_xor_si512(crc_wide_take(d, s, 0, out), first);
    __m512i a1 = crc_wide_take(d, s, 1, out);
    __m512i a2 = crc_wide_take(d, s, 2, out);
    __m512i a3 = crc_wide_take(d, s, 3, out);
    for (n -= CRC_WIDE_FOLD_BYTES; n >= CRC_WIDE_FOLD_BYTES; n -= CRC_WIDE_FOLD_BYTES) {
        s += CRC_WIDE_FOLD_BYTES;
        d = out ? d + CRC_WIDE_FOLD_BYTES : NULL;
        a0 = crc_wide_fold(a0, k, crc_wide_take(d, s, 0, out));
        a1 = crc_wide_fold(a1, k, crc_wide_take(d, s, 1, out));
        a2 = crc_wide_fold(a2, k, crc_wide_take(d, s, 2, out));
        a3 = crc_wide_fold(a3, k, crc_wide_take(d, s, 3, out));
    }
    u8 rest[CRC_WIDE_FOLD_BYTES];
    _mm512_storeu_si512(rest, a0);
    _mm512_storeu_si512(rest + 64, a1);
    _mm512_storeu_si512(rest + 128, a2);
    _mm512_storeu_si512(rest + 192, a3);
    return crc_blocks(0, NULL, rest, sizeof rest, CRC_NOWHERE);
}

/* Less than a block, without the inversions at the ends. */
CRC_FAST CRC_KERNEL crc_few(u32 crc, u8 *d, const u8 *s, size_t n, enum crc_out out)
{
    u64 wide = crc;
    for (; n >= 8; n -= 8, s += 8) {
        u64 w = get_le64(s);
        wide = _mm_crc32_u64(wide, w);
        if (out) {
            put_le64(d, w);
            d += 8;
        }
    }
    crc = (u32)wide;
    for (; n; n--, s++) {
        crc = _mm_crc32_u8(crc, *s);
        if (out)
            *d++ = *s;
    }
    return crc;
}

/* The body of a kernel: whole blocks of `unit` bytes by `blocks`; what is before them, so that a
 * stream begins with a line, and what is left, a few bytes at a time. */
#define CRC_RUN(blocks, unit)                                   \
    crc = ~crc;                                                 \
    size_t before = out == CRC_STREAM ? -(uintptr_t)d & 63 : 0; \
    crc = crc_few(crc, d, s, before, out);                      \
    size_t whole = (n - before) / (unit) * (unit);              \
    u8 *to = out ? d + before : NULL;                           \
    if (whole)                                                  \
        crc = blocks(crc, to, s + before, whole, out);          \
    size_t end = before + whole;                                \
    if (out == CRC_STREAM)                                      \
        _mm_sfence();                                           \
    return ~crc_few(crc, out ? d + end : NULL, s + end, n - end, out)

CRC_FAST CRC_KERNEL crc_run(u32 crc, u8 *d, const u8 *s, size_t n, enum crc_out out)
{
    CRC_RUN(crc_blocks, CRC_FOLD_BYTES);
}

CRC_WIDE CRC_KERNEL crc_wide_run(u32 crc, u8 *d, const u8 *s, size_t n, enum crc_out out)
{
    CRC_RUN(crc_wide_blocks, CRC_WIDE_FOLD_BYTES);
}

CRC_FAST static u32 crc_fast(u32 crc, const u8 *s, size_t n)
{
    return crc_run(crc, NULL, s, n, CRC_NOWHERE);
}

CRC_WIDE static u32 crc_wide(u32 crc, const u8 *s, size_t n)
{
    return crc_wide_run(crc, NULL, s, n, CRC_NOWHERE);
}

CRC_FAST static u32 crc_copy_fast(u32 crc, u8 *d, const u8 *s, size_t n)
{
    return n >= CRC_STREAM_MIN ? crc_run(crc, d, s, n, CRC_STREAM)
                               : crc_run(crc, d, s, n, CRC_COPY);
}

CRC_WIDE static u32 crc_copy_wide(u32 crc, u8 *d, const u8 *s, size_t n)
{
    return crc_wide_run(crc, d, s, n, CRC_STREAM);
}

CRC_FAST static u32 crc_combine_fast(u32 crc_a, u32 crc_b, u64 len_b)
{
    /* x has order 2^31 - 1, so row 31 equals row 0: longer lengths wrap around. */
    for (u32 i = 0; len_b; len_b >>= 1, i = i == 30 ? 0 : i + 1)
        if (len_b & 1)
            crc_a = crc_move(crc_a, crc_shift[i]);
    return crc_a ^ crc_b;
}

u32 crc32c(u32 crc, const void *p, size_t n)
{
    if (n >= CRC_WIDE_MIN && kernel == CRC32C_WIDE)
        return crc_wide(crc, p, n);
    return likely(kernel) ? crc_fast(crc, p, n) : crc32c_soft(crc, p, n);
}

u32 crc32c_copy(u32 crc, void *dst, const void *src, size_t n)
{
    if (n == 0)
        return crc;
    if (n >= CRC_STREAM_MIN && kernel == CRC32C_WIDE)
        return crc_copy_wide(crc, dst, src, n);
    return likely(kernel) ? crc_copy_fast(crc, dst, src, n) : crc32c_copy_soft(crc, dst, src, n);
}

u32 crc32c_combine(u32 crc_a, u32 crc_b, u64 len_b)
{
    return likely(kernel) ? crc_combine_fast(crc_a, crc_b, len_b)
                          : crc32c_combine_soft(crc_a, crc_b, len_b);
}

#else

enum crc32c_kernel crc32c_use(enum crc32c_kernel at_most)
{
    (void)at_most;
    return CRC32C_SOFT;
}

u32 crc32c(u32 crc, const void *p, size_t n)
{
    return crc32c_soft(crc, p, n);
}

u32 crc32c_copy(u32 crc, void *dst, const void *src, size_t n)
{
    return crc32c_copy_soft(crc, dst, src, n);
}

u32 crc32c_combine(u32 crc_a, u32 crc_b, u64 len_b)
{
    return crc32c_combine_soft(crc_a, crc_b, len_b);
}
#endif
