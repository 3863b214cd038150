/* Primitive readers and writers of the Kafka wire: big-endian integers, (zigzag) varints, and
 * strings, bytes and counts in their plain and their compact (flexible) form.
 *
 * Reader: a cursor over bytes somebody else owns. Whatever the bytes are, no call faults: a read
 * past the end, an impossible length or an overlong varint sets `bad`, moves the cursor to the end
 * and yields zeros from then on, so callers may check once, at the end. Views point into the input.
 * Writer: a cursor over a buffer of the caller. What does not fit is not written and sets `bad`.
 *
 * Record bytes need not be copied: with `refs` set, wire_put_records writes the length prefix only
 * and notes in refs[] at which position the bytes belong (gather them when sending).
 *
 * Inline, because this is the inside of every decoder and encoder. No function here allocates,
 * blocks or logs; a reader or writer has one owner at a time. */
#ifndef LEAT_WIRE_H
#define LEAT_WIRE_H

#include "bytes.h"

#define WIRE_STRING_BYTES_MAX 32767u

struct wire_reader {
    const u8 *pos, *end;
    bool bad;       /* the input is malformed, or memory ran out */
    bool no_memory; /* the arena was exhausted (then bad is set as well) */
};

/* Bytes that belong in front of buf[at] and were left out of the buffer. `bytes.data` is opaque
 * here: it is handed back as it was given. */
struct wire_ref {
    u32 at;
    struct bytes bytes;
};

struct wire_writer {
    u8 *buf;
    u32 len, cap; /* bytes written, bytes there are */
    bool bad;
    struct wire_ref *refs; /* NULL: record bytes are copied into buf */
    u32 refs_count, refs_cap;
};

/* ---- reading ---- */

static inline struct wire_reader wire_reader_of(struct bytes b)
{
    return (struct wire_reader){ .pos = b.data, .end = b.len ? b.data + b.len : b.data };
}
static inline u32 wire_left(const struct wire_reader *r)
{
    return (u32)(r->end - r->pos);
}
static inline void wire_fail(struct wire_reader *r)
{
    r->bad = true;
    r->pos = r->end;
}
/* The next `len` bytes, or NULL (and bad). */
static inline const u8 *wire_take(struct wire_reader *r, u64 len)
{
    if (unlikely(len > (u64)(r->end - r->pos))) {
        wire_fail(r);
        return NULL;
    }
    const u8 *p = r->pos;
    r->pos += len;
    return p;
}
static inline u8 wire_get_u8(struct wire_reader *r)
{
    const u8 *p = wire_take(r, 1);
    return likely(p != NULL) ? *p : 0;
}
static inline i8 wire_get_i8(struct wire_reader *r)
{
    return (i8)wire_get_u8(r);
}
static inline bool wire_get_boolean(struct wire_reader *r)
{
    return wire_get_u8(r) != 0;
}
static inline u16 wire_get_u16(struct wire_reader *r)
{
    const u8 *p = wire_take(r, 2);
    return likely(p != NULL) ? get_be16(p) : 0;
}
static inline i16 wire_get_i16(struct wire_reader *r)
{
    return (i16)wire_get_u16(r);
}
static inline u32 wire_get_u32(struct wire_reader *r)
{
    const u8 *p = wire_take(r, 4);
    return likely(p != NULL) ? get_be32(p) : 0;
}
static inline i32 wire_get_i32(struct wire_reader *r)
{
    return (i32)wire_get_u32(r);
}
static inline u64 wire_get_u64(struct wire_reader *r)
{
    const u8 *p = wire_take(r, 8);
    return likely(p != NULL) ? get_be64(p) : 0;
}
static inline i64 wire_get_i64(struct wire_reader *r)
{
    return (i64)wire_get_u64(r);
}
static inline f64 wire_get_f64(struct wire_reader *r)
{
    u64 bits = wire_get_u64(r);
    f64 v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
static inline struct uuid wire_get_uuid(struct wire_reader *r)
{
    struct uuid v = { { 0 } };
    const u8 *p = wire_take(r, sizeof v.b);
    if (likely(p != NULL))
        memcpy(v.b, p, sizeof v.b);
    return v;
}
/* Up to ten bytes, 7 bits each, the lowest first. */
static inline u64 wire_get_uvarlong_rest(struct wire_reader *r, u32 bits_max)
{
    u64 v = 0;
    for (u32 shift = 0; shift < bits_max; shift += 7) {
        u8 byte = wire_get_u8(r);
        u32 room = bits_max - shift;
        if (unlikely(room < 7 && (byte & 0x7f) >> room != 0))
            break;
        v |= (u64)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return r->bad ? 0 : v;
    }
    wire_fail(r);
    return 0;
}
/* Unsigned, 32 bits, at most 5 bytes. */
static inline u32 wire_get_uvarint(struct wire_reader *r)
{
    if (likely(r->pos < r->end && *r->pos < 0x80))
        return *r->pos++;
    return (u32)wire_get_uvarlong_rest(r, 32);
}
/* Zigzag, 32 bits. */
static inline i32 wire_get_varint(struct wire_reader *r)
{
    u32 v = wire_get_uvarint(r);
    return (i32)(v >> 1) ^ -(i32)(v & 1);
}
/* Zigzag, 64 bits, at most 10 bytes. */
static inline i64 wire_get_varlong(struct wire_reader *r)
{
    u64 v = wire_get_uvarlong_rest(r, 64);
    return (i64)(v >> 1) ^ -(i64)(v & 1);
}
/* A view of `len` bytes; len -1 is null and allowed only if `nullable`. */
static inline struct bytes wire_get_view(struct wire_reader *r, i64 len, bool nullable)
{
    if (unlikely(len < 0)) {
        if (len != -1 || !nullable)
            wire_fail(r);
        return (struct bytes){ NULL, 0 };
    }
    const u8 *p = wire_take(r, (u64)len);
    return (struct bytes){ p, likely(p != NULL) ? (u32)len : 0 };
}
/* int16 length, or uvarint of length + 1 when compact. At most 32767 bytes in both forms, as in
 * Kafka. The text is not checked to be UTF-8. */
static inline struct bytes wire_get_string(struct wire_reader *r, bool compact, bool nullable)
{
    i64 len = compact ? (i64)wire_get_uvarint(r) - 1 : (i64)wire_get_i16(r);
    if (unlikely(len > WIRE_STRING_BYTES_MAX || r->bad)) {
        wire_fail(r);
        return (struct bytes){ NULL, 0 };
    }
    return wire_get_view(r, len, nullable);
}
/* int32 length, or uvarint of length + 1 when compact. */
static inline struct bytes wire_get_bytes(struct wire_reader *r, bool compact, bool nullable)
{
    i64 len = compact ? (i64)wire_get_uvarint(r) - 1 : (i64)wire_get_i32(r);
    if (unlikely(r->bad))
        return (struct bytes){ NULL, 0 };
    return wire_get_view(r, len, nullable);
}
/* Elements of an array, -1 = null. Never more than the bytes left could hold, each element
 * taking at least `element_bytes_min` (≥ 1). */
static inline i32 wire_get_count(struct wire_reader *r, bool compact, bool nullable,
                                 u32 element_bytes_min)
{
    i64 n = compact ? (i64)wire_get_uvarint(r) - 1 : (i64)wire_get_i32(r);
    if (unlikely(n < 0 && (n != -1 || !nullable || r->bad)))
        goto bad;
    if (unlikely(n > 0 && (u64)n * element_bytes_min > wire_left(r)))
        goto bad;
    return (i32)n;
bad:
    wire_fail(r);
    return 0;
}
/* Enters a tagged field: gives its tag and narrows the reader to its bytes. Returns the old end,
 * which wire_tag_end needs. Between the two the cursor must reach r->end. */
static inline const u8 *wire_tag_begin(struct wire_reader *r, u32 *tag)
{
    const u8 *end = r->end;
    *tag = wire_get_uvarint(r);
    u32 len = wire_get_uvarint(r);
    if (unlikely(len > wire_left(r)))
        wire_fail(r);
    else
        r->end = r->pos + len;
    return end;
}
static inline void wire_tag_end(struct wire_reader *r, const u8 *end)
{
    bool whole = r->pos == r->end && !r->bad;
    r->end = end;
    if (unlikely(!whole))
        wire_fail(r);
}

/* ---- sizes ---- */

static inline u32 wire_size_uvarint(u32 v)
{
    return (u32)(38 - __builtin_clz(v | 1)) / 7;
}
static inline u32 wire_size_varlong(i64 v)
{
    u64 z = ((u64)v << 1) ^ (u64)(v >> 63);
    return (u32)(70 - __builtin_clzll(z | 1)) / 7;
}
static inline u32 wire_size_varint(i32 v)
{
    return wire_size_uvarint(((u32)v << 1) ^ (u32)(v >> 31));
}
/* Of the length prefix alone; `len` -1 is null. */
static inline u32 wire_size_length(i64 len, bool compact, u32 plain_bytes)
{
    return compact ? wire_size_uvarint((u32)(len + 1)) : plain_bytes;
}
static inline u64 wire_size_string(struct bytes b, bool compact)
{
    return (u64)wire_size_length(b.data ? (i64)b.len : -1, compact, 2) + b.len;
}
static inline u64 wire_size_bytes(struct bytes b, bool compact)
{
    return (u64)wire_size_length(b.data ? (i64)b.len : -1, compact, 4) + b.len;
}

/* ---- writing ---- */

static inline struct wire_writer wire_writer_of(u8 *buf, u32 cap)
{
    return (struct wire_writer){ .buf = buf, .cap = cap };
}
/* Room for `len` bytes, or NULL (and bad). */
static inline u8 *wire_room(struct wire_writer *w, u32 len)
{
    if (unlikely(len > w->cap - w->len)) {
        w->bad = true;
        return NULL;
    }
    u8 *p = w->buf + w->len;
    w->len += len;
    return p;
}
static inline void wire_put_u8(struct wire_writer *w, u8 v)
{
    u8 *p = wire_room(w, 1);
    if (likely(p != NULL))
        *p = v;
}
static inline void wire_put_i8(struct wire_writer *w, i8 v)
{
    wire_put_u8(w, (u8)v);
}
static inline void wire_put_boolean(struct wire_writer *w, bool v)
{
    wire_put_u8(w, v ? 1 : 0);
}
static inline void wire_put_u16(struct wire_writer *w, u16 v)
{
    u8 *p = wire_room(w, 2);
    if (likely(p != NULL))
        put_be16(p, v);
}
static inline void wire_put_i16(struct wire_writer *w, i16 v)
{
    wire_put_u16(w, (u16)v);
}
static inline void wire_put_u32(struct wire_writer *w, u32 v)
{
    u8 *p = wire_room(w, 4);
    if (likely(p != NULL))
        put_be32(p, v);
}
static inline void wire_put_i32(struct wire_writer *w, i32 v)
{
    wire_put_u32(w, (u32)v);
}
static inline void wire_put_u64(struct wire_writer *w, u64 v)
{
    u8 *p = wire_room(w, 8);
    if (likely(p != NULL))
        put_be64(p, v);
}
static inline void wire_put_i64(struct wire_writer *w, i64 v)
{
    wire_put_u64(w, (u64)v);
}
static inline void wire_put_f64(struct wire_writer *w, f64 v)
{
    u64 bits;
    memcpy(&bits, &v, sizeof bits);
    wire_put_u64(w, bits);
}
static inline void wire_put_uuid(struct wire_writer *w, struct uuid v)
{
    u8 *p = wire_room(w, sizeof v.b);
    if (likely(p != NULL))
        memcpy(p, v.b, sizeof v.b);
}
static inline void wire_put_raw(struct wire_writer *w, const void *data, u32 len)
{
    u8 *p = wire_room(w, len);
    if (likely(p != NULL && len > 0))
        memcpy(p, data, len);
}
static inline void wire_put_uvarlong(struct wire_writer *w, u64 v)
{
    for (; v >= 0x80; v >>= 7)
        wire_put_u8(w, (u8)(v | 0x80));
    wire_put_u8(w, (u8)v);
}
static inline void wire_put_uvarint(struct wire_writer *w, u32 v)
{
    if (likely(v < 0x80))
        wire_put_u8(w, (u8)v);
    else
        wire_put_uvarlong(w, v);
}
static inline void wire_put_varint(struct wire_writer *w, i32 v)
{
    wire_put_uvarint(w, ((u32)v << 1) ^ (u32)(v >> 31));
}
static inline void wire_put_varlong(struct wire_writer *w, i64 v)
{
    wire_put_uvarlong(w, ((u64)v << 1) ^ (u64)(v >> 63));
}
/* Null where null is not allowed is written as empty. */
static inline void wire_put_string(struct wire_writer *w, struct bytes b, bool compact,
                                   bool nullable)
{
    bool null = !b.data && nullable;
    if (unlikely(b.len > WIRE_STRING_BYTES_MAX))
        w->bad = true;
    if (compact)
        wire_put_uvarint(w, null ? 0 : b.len + 1);
    else
        wire_put_i16(w, (i16)(null ? -1 : (i32)b.len));
    wire_put_raw(w, b.data, b.len);
}
static inline void wire_put_bytes_length(struct wire_writer *w, struct bytes b, bool compact,
                                         bool nullable)
{
    bool null = !b.data && nullable;
    if (unlikely(b.len > INT32_MAX))
        w->bad = true;
    if (compact)
        wire_put_uvarint(w, null ? 0 : b.len + 1);
    else
        wire_put_i32(w, null ? -1 : (i32)b.len);
}
static inline void wire_put_bytes(struct wire_writer *w, struct bytes b, bool compact,
                                  bool nullable)
{
    wire_put_bytes_length(w, b, compact, nullable);
    wire_put_raw(w, b.data, b.len);
}
/* As bytes, but with w->refs set the bytes are only noted. */
static inline void wire_put_records(struct wire_writer *w, struct bytes b, bool compact,
                                    bool nullable)
{
    if (!w->refs) {
        wire_put_bytes(w, b, compact, nullable);
        return;
    }
    wire_put_bytes_length(w, b, compact, nullable);
    if (b.len == 0)
        return;
    if (unlikely(w->refs_count == w->refs_cap)) {
        w->bad = true;
        return;
    }
    w->refs[w->refs_count++] = (struct wire_ref){ w->len, b };
}
/* Elements of an array; -1 = null, written as 0 where null is not allowed. */
static inline void wire_put_count(struct wire_writer *w, i32 n, bool compact, bool nullable)
{
    if (n < 0)
        n = nullable ? -1 : 0;
    if (compact)
        wire_put_uvarint(w, (u32)(n + 1));
    else
        wire_put_i32(w, n);
}

#endif
