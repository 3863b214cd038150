/* Sizes and encoders of all messages, expanded from messages/all.def. codec_encode_1.c to _3.c
 * compile a part of the list each.
 *
 * For each struct: `x_is_default` (decides whether a tagged struct is sent), `x_bytes` (exact size)
 * and `x_write`. The two last walk the same fields under the same conditions, which the tests hold
 * against each other for every message and version. A struct never has 128 tagged fields, so their
 * count is one byte, put before they are known and counted up as they are written.
 *
 * A tagged field is sent when it differs from its default. Null where the version does not know
 * null is written as empty (a count of 0, a length of 0). */
#ifndef LEAT_CODEC_ENCODE_INT_H
#define LEAT_CODEC_ENCODE_INT_H

#include "check.h"
#include "codec_int.h"

/* ---- is a member its default? ---- */

#define SAME_boolean(m, value) ((m) == (value))
#define SAME_i8(m, value) ((m) == (value))
#define SAME_i16(m, value) ((m) == (value))
#define SAME_u16(m, value) ((m) == (value))
#define SAME_i32(m, value) ((m) == (value))
#define SAME_u32(m, value) ((m) == (value))
#define SAME_i64(m, value) ((m) == (value))
#define SAME_f64(m, value) ((m) == (value))
#define SAME_uuid(m, value) uuid_is_zero(m)
#define SAME_BYTES_EMPTY(b, null) ((b).len == 0 && ((b).data != NULL || !(null)))
#define SAME_BYTES_NIL(b, null) ((b).data == NULL)
#define SAME_COUNT_EMPTY(n, null) ((n) == 0 || ((n) < 0 && !(null)))
#define SAME_COUNT_NIL(n, null) ((n) < 0)
#define DEFAULT_value(type, name, null, dflt) SAME_##type(m->name, dflt)
#define DEFAULT_string(type, name, null, dflt) SAME_BYTES_##dflt(m->name, null)
#define DEFAULT_string16(type, name, null, dflt) SAME_BYTES_##dflt(m->name, null)
#define DEFAULT_bytes(type, name, null, dflt) SAME_BYTES_##dflt(m->name, null)
#define DEFAULT_records(type, name, null, dflt) SAME_BYTES_##dflt(m->name, null)
#define DEFAULT_struct(type, name, null, dflt) type##_is_default(v, &m->name)
#define DEFAULT_nullable(type, name, null, dflt) (m->name == NULL)
#define DEFAULT_optional(type, name, null, dflt) false
#define DEFAULT_values(type, name, null, dflt) SAME_COUNT_##dflt(m->name.n, null)
#define DEFAULT_strings(type, name, null, dflt) SAME_COUNT_##dflt(m->name.n, null)
#define DEFAULT_structs(type, name, null, dflt) SAME_COUNT_##dflt(m->name.n, null)

#define BEGIN(x, flexible_from)                                      \
    CODEC_STATIC bool x##_is_default(const int v, const struct x *m) \
    {                                                                \
        (void)v;                                                     \
        (void)m;
#define FIELD(kind, type, name, from, to, null_from, dflt)               \
    if (!DEFAULT_##kind(type, name, CODEC_NULLABLE(v, null_from), dflt)) \
        return false;
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    FIELD(kind, type, name, from, to, null_from, dflt)
#define END(x)   \
    return true; \
    }
#include "all.def"

/* ---- size ---- */

#define BYTES_PLAIN(name, compact, prefix, null)                                                 \
    ((u64)wire_size_length((m->name.data || !(null)) ? (i64)m->name.len : -1, compact, prefix) + \
     m->name.len)
#define BYTES_value(type, name, null) ((u64)sizeof(CODEC_C_##type))
#define BYTES_string(type, name, null) BYTES_PLAIN(name, flexible, 2, null)
#define BYTES_string16(type, name, null) BYTES_PLAIN(name, false, 2, null)
#define BYTES_bytes(type, name, null) BYTES_PLAIN(name, flexible, 4, null)
#define BYTES_records(type, name, null) \
    (BYTES_PLAIN(name, flexible, 4, null) - (scatter ? m->name.len : 0))
#define BYTES_struct(type, name, null) type##_bytes(v, &m->name, scatter)
#define BYTES_nullable(type, name, null) (1 + (m->name ? type##_bytes(v, m->name, scatter) : 0))
#define BYTES_optional(type, name, null) BYTES_nullable(type, name, null)
#define BYTES_COUNT(name, null) \
    ((u64)wire_size_length(m->name.n >= 0 || !(null) ? MAX(m->name.n, 0) : -1, flexible, 4))
#define BYTES_values(type, name, null) \
    (BYTES_COUNT(name, null) + (u64)MAX(m->name.n, 0) * sizeof(CODEC_C_##type))
#define BYTES_strings(type, name, null) \
    (BYTES_COUNT(name, null) + strings_bytes(m->name.v, m->name.n, flexible))
#define BYTES_structs(type, name, null) \
    (BYTES_COUNT(name, null) + type##_bytes_all(v, m->name.v, m->name.n, scatter))

CODEC_STATIC u64 strings_bytes(const struct bytes *s, i32 n, bool flexible)
{
    u64 bytes = 0;
    for (i32 i = 0; i < n; i++)
        bytes += (u64)wire_size_length(s[i].len, flexible, 2) + s[i].len;
    return bytes;
}

#define BEGIN(x, flexible_from)                                        \
    static u64 x##_bytes(const int v, const struct x *m, bool scatter) \
    {                                                                  \
        const bool flexible = CODEC_FLEXIBLE(v, flexible_from);        \
        u64 bytes = 0;                                                 \
        (void)m;                                                       \
        (void)scatter;
#define FIELD(kind, type, name, from, to, null_from, dflt) \
    if (CODEC_IN(v, from, to))                             \
        bytes += BYTES_##kind(type, name, CODEC_NULLABLE(v, null_from));
#define TAGS(x)       \
    if (!flexible)    \
        return bytes; \
    bytes++;
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt)                 \
    if (CODEC_IN(v, from, to) &&                                                 \
        !DEFAULT_##kind(type, name, CODEC_NULLABLE(v, null_from), dflt)) {       \
        u64 value = BYTES_##kind(type, name, CODEC_NULLABLE(v, null_from));      \
        bytes += wire_size_uvarint(tag) + wire_size_uvarint((u32)value) + value; \
    }
#define END(x)                                                                          \
    return bytes;                                                                       \
    }                                                                                   \
    CODEC_STATIC u64 x##_bytes_all(const int v, const struct x *m, i32 n, bool scatter) \
    {                                                                                   \
        u64 bytes = 0;                                                                  \
        for (i32 i = 0; i < n; i++)                                                     \
            bytes += x##_bytes(v, &m[i], scatter);                                      \
        return bytes;                                                                   \
    }
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability) \
    u32 x##_size(i16 version, const struct x *m, bool scatter)          \
    {                                                                   \
        CHECK(version >= (min) && version <= (max));                    \
        u64 bytes = x##_bytes(version, m, scatter);                     \
        return bytes > INT32_MAX ? UINT32_MAX : (u32)bytes;             \
    }
#include "all.def"

/* ---- encode ---- */

#define WRITE_value(type, name, null) wire_put_##type(w, m->name);
#define WRITE_string(type, name, null) wire_put_string(w, m->name, flexible, null);
#define WRITE_string16(type, name, null) wire_put_string(w, m->name, false, null);
#define WRITE_bytes(type, name, null) wire_put_bytes(w, m->name, flexible, null);
#define WRITE_records(type, name, null) wire_put_records(w, m->name, flexible, null);
#define WRITE_struct(type, name, null) type##_write(w, v, &m->name);
#define WRITE_POINTER(type, name, absent)       \
    {                                           \
        wire_put_i8(w, m->name ? 1 : (absent)); \
        if (m->name)                            \
            type##_write(w, v, m->name);        \
    }
#define WRITE_nullable(type, name, null) WRITE_POINTER(type, name, -1)
#define WRITE_optional(type, name, null) WRITE_POINTER(type, name, 0)
#define WRITE_ARRAY(name, null, WRITE_ELEMENT)         \
    {                                                  \
        wire_put_count(w, m->name.n, flexible, null);  \
        for (i32 i = 0; i < m->name.n && !w->bad; i++) \
            WRITE_ELEMENT;                             \
    }
#define WRITE_values(type, name, null) WRITE_ARRAY(name, null, wire_put_##type(w, m->name.v[i]))
#define WRITE_strings(type, name, null) \
    WRITE_ARRAY(name, null, wire_put_string(w, m->name.v[i], flexible, false))
#define WRITE_structs(type, name, null) WRITE_ARRAY(name, null, type##_write(w, v, &m->name.v[i]))

#define BEGIN(x, flexible_from)                                                  \
    static void x##_write(struct wire_writer *w, const int v, const struct x *m) \
    {                                                                            \
        const bool flexible = CODEC_FLEXIBLE(v, flexible_from);                  \
        (void)m;
#define FIELD(kind, type, name, from, to, null_from, dflt)     \
    if (CODEC_IN(v, from, to)) {                               \
        WRITE_##kind(type, name, CODEC_NULLABLE(v, null_from)) \
    }
#define TAGS(x)                                   \
    u8 *tags = flexible ? wire_room(w, 1) : NULL; \
    if (!tags)                                    \
        return;                                   \
    *tags = 0;
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt)                          \
    if (CODEC_IN(v, from, to) &&                                                          \
        !DEFAULT_##kind(type, name, CODEC_NULLABLE(v, null_from), dflt)) {                \
        const bool scatter = w->refs != NULL;                                             \
        (void)scatter;                                                                    \
        ++*tags;                                                                          \
        wire_put_uvarint(w, tag);                                                         \
        wire_put_uvarint(w, (u32)BYTES_##kind(type, name, CODEC_NULLABLE(v, null_from))); \
        WRITE_##kind(type, name, CODEC_NULLABLE(v, null_from))                            \
    }
#define END(x) }
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability)    \
    void x##_encode(struct wire_writer *w, i16 version, const struct x *m) \
    {                                                                      \
        CHECK(version >= (min) && version <= (max));                       \
        x##_write(w, version, m);                                          \
    }
#include "all.def"

#endif
