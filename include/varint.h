/* Variable-length integers of the Kafka protocol: seven bits a byte, least significant first,
 * the top bit says "more". Signed ones are zigzag-coded. Inline: one record costs six of them,
 * nearly always of one byte.
 *
 * Readers take [p, end) and give the position behind the number, or NULL when the bytes end
 * before the number does or it is longer than its type allows (5 bytes, 10 bytes). Surplus bits
 * of the last byte are dropped, as the Java client does. Passing NULL as p gives NULL, so a
 * chain of reads needs one check at its end. Writers need 5 or 10 bytes of room.
 */
#ifndef LEAT_VARINT_H
#define LEAT_VARINT_H

#include "base.h"

#define VARINT_BYTES_MAX 5
#define VARLONG_BYTES_MAX 10

static inline u32 zigzag_from_i32(i32 v)
{
    return ((u32)v << 1) ^ (v < 0 ? UINT32_MAX : 0);
}
static inline i32 zigzag_to_i32(u32 v)
{
    return (i32)((v >> 1) ^ (0u - (v & 1)));
}
static inline u64 zigzag_from_i64(i64 v)
{
    return ((u64)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}
static inline i64 zigzag_to_i64(u64 v)
{
    return (i64)((v >> 1) ^ ((u64)0 - (v & 1)));
}

/* At most `bits` bits' worth of bytes, rounded up to whole groups of seven. */
static inline const u8 *varint_get_long(const u8 *p, const u8 *end, u32 bits, u64 *out)
{
    u64 v = 0;
    for (u32 shift = 0; shift < bits && p < end; shift += 7) {
        u8 byte = *p++;
        v |= (u64)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return p;
        }
    }
    return NULL;
}

static inline const u8 *varint_get_u64(const u8 *p, const u8 *end, u64 *out)
{
    *out = 0;
    if (unlikely(!p))
        return NULL;
    if (likely(p < end && *p < 0x80)) {
        *out = *p;
        return p + 1;
    }
    return varint_get_long(p, end, 64, out);
}
static inline const u8 *varint_get_u32(const u8 *p, const u8 *end, u32 *out)
{
    u64 v = 0;
    *out = 0;
    if (unlikely(!p))
        return NULL;
    if (likely(p < end && *p < 0x80)) {
        *out = *p;
        return p + 1;
    }
    p = varint_get_long(p, end, 32, &v);
    *out = (u32)v;
    return p;
}
static inline const u8 *varint_get_i32(const u8 *p, const u8 *end, i32 *out)
{
    u32 v;
    p = varint_get_u32(p, end, &v);
    *out = zigzag_to_i32(v);
    return p;
}
static inline const u8 *varint_get_i64(const u8 *p, const u8 *end, i64 *out)
{
    u64 v;
    p = varint_get_u64(p, end, &v);
    *out = zigzag_to_i64(v);
    return p;
}

static inline u8 *varint_put_u64(u8 *p, u64 v)
{
    while (v >= 0x80) {
        *p++ = (u8)(v | 0x80);
        v >>= 7;
    }
    *p++ = (u8)v;
    return p;
}
static inline u8 *varint_put_u32(u8 *p, u32 v)
{
    return varint_put_u64(p, v);
}
static inline u8 *varint_put_i32(u8 *p, i32 v)
{
    return varint_put_u64(p, zigzag_from_i32(v));
}
static inline u8 *varint_put_i64(u8 *p, i64 v)
{
    return varint_put_u64(p, zigzag_from_i64(v));
}

static inline u32 varint_size_u64(u64 v)
{
    return (u32)(63 - __builtin_clzll(v | 1)) / 7 + 1;
}
static inline u32 varint_size_u32(u32 v)
{
    return varint_size_u64(v);
}
static inline u32 varint_size_i32(i32 v)
{
    return varint_size_u64(zigzag_from_i32(v));
}
static inline u32 varint_size_i64(i64 v)
{
    return varint_size_u64(zigzag_from_i64(v));
}

#endif
