/* Integers to and from bytes, and views. be = big-endian (Kafka wire), le = little-endian
 * (our disk formats). All functions are unaligned-safe and never fail; bounds are the
 * caller's duty. Inline: they are one or two instructions on every path. */
#ifndef LEAT_BYTES_H
#define LEAT_BYTES_H

#include <string.h>

#include "base.h"

#define BYTES_ACCESS(bits, order, swap)                      \
    static inline u##bits get_##order##bits(const void *p)   \
    {                                                        \
        u##bits v;                                           \
        memcpy(&v, p, sizeof v);                             \
        return swap(v);                                      \
    }                                                        \
    static inline void put_##order##bits(void *p, u##bits v) \
    {                                                        \
        v = swap(v);                                         \
        memcpy(p, &v, sizeof v);                             \
    }
#define BYTES_SAME(v) (v)
BYTES_ACCESS(16, be, __builtin_bswap16)
BYTES_ACCESS(32, be, __builtin_bswap32)
BYTES_ACCESS(64, be, __builtin_bswap64)
BYTES_ACCESS(16, le, BYTES_SAME)
BYTES_ACCESS(32, le, BYTES_SAME)
BYTES_ACCESS(64, le, BYTES_SAME)
#undef BYTES_ACCESS
#undef BYTES_SAME

/* The view of a C string, without its NUL. */
static inline struct bytes bytes_str(const char *s)
{
    return (struct bytes){ (const u8 *)s, (u32)strlen(s) };
}
static inline struct bytes bytes_of(const void *p, u32 len)
{
    return (struct bytes){ (const u8 *)p, len };
}
static inline bool bytes_eq(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
static inline bool bytes_eq_str(struct bytes a, const char *s)
{
    return bytes_eq(a, bytes_str(s));
}
/* memcmp order, the shorter first. */
static inline int bytes_cmp(struct bytes a, struct bytes b)
{
    u32 n = MIN(a.len, b.len);
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}
static inline bool uuid_eq(struct uuid a, struct uuid b)
{
    return memcmp(a.b, b.b, 16) == 0;
}
static inline bool uuid_is_zero(struct uuid a)
{
    static const struct uuid zero;
    return uuid_eq(a, zero);
}

#endif
