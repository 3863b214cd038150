/* Decoders of all messages, expanded from messages/all.def: straight-line code per struct, no
 * interpreter. codec_decode_1.c to _3.c compile a part of the list each.
 *
 * How it works. For each struct `x_read` reads the fields in the order of the list; those a version
 * does not carry get their default. Reads never fault (wire.h); only loops look at r->bad, so that
 * bad input ends them. The first problem sticks in r->bad and x_decode turns it into an error.
 *
 * Bounds. A count is checked against the bytes left before memory is taken for it, and memory
 * comes from the caller's arena, which has a limit. Nesting is as deep as the schema, which has
 * no cycles.
 *
 * Invariants:
 *  1. r->pos <= r->end at all times; inside a tagged field r->end is that field's end.
 *  2. A known tagged field that does not use exactly its bytes is malformed.
 *  3. After an error the out struct holds views and pointers that are valid or NULL, but its
 *     content is meaningless. */
#ifndef LEAT_CODEC_DECODE_INT_H
#define LEAT_CODEC_DECODE_INT_H

#include "codec_int.h"
#include "plant.h"

/* Memory for an array whose count comes next in the input; *n is its count, -1 for null. */
CODEC_STATIC void *read_array(struct wire_reader *r, struct arena *a, bool compact, bool nullable,
                              u32 wire_bytes_min, size_t element_bytes, i32 *n)
{
    *n = wire_get_count(r, compact, nullable, wire_bytes_min);
    if (PLANTED(PLANT_ARRAY_SHORT) && *n > 1)
        *n -= 1;
    if (*n <= 0)
        return NULL;
    void *v = arena_alloc(a, (u64)*n * element_bytes);
    if (unlikely(!v)) {
        r->no_memory = true;
        wire_fail(r);
        *n = 0;
    }
    return v;
}

/* The struct behind a presence byte: `absent` means null. NULL when null or on error. */
CODEC_STATIC void *read_nullable(struct wire_reader *r, struct arena *a, i8 absent, size_t bytes)
{
    i8 present = wire_get_i8(r);
    if (r->bad || present == absent)
        return NULL;
    if (present != 1) {
        wire_fail(r);
        return NULL;
    }
    void *p = arena_alloc(a, bytes);
    if (unlikely(!p)) {
        r->no_memory = true;
        wire_fail(r);
    }
    return p;
}

#define READ_value(type, name, null) out->name = wire_get_##type(r);
#define READ_string(type, name, null) out->name = wire_get_string(r, flexible, null);
#define READ_string16(type, name, null) out->name = wire_get_string(r, false, null);
#define READ_bytes(type, name, null) out->name = wire_get_bytes(r, flexible, null);
#define READ_records(type, name, null) out->name = wire_get_bytes(r, flexible, null);
#define READ_struct(type, name, null) type##_read(r, v, a, &out->name);
#define READ_POINTER(type, name, absent)                            \
    {                                                               \
        out->name = read_nullable(r, a, absent, sizeof *out->name); \
        if (out->name)                                              \
            type##_read(r, v, a, out->name);                        \
    }
#define READ_nullable(type, name, null) READ_POINTER(type, name, -1)
#define READ_optional(type, name, null) READ_POINTER(type, name, 0)
#define READ_ARRAY(name, null, wire_bytes_min, READ_ELEMENT)                                     \
    {                                                                                            \
        out->name.v =                                                                            \
            read_array(r, a, flexible, null, wire_bytes_min, sizeof *out->name.v, &out->name.n); \
        for (i32 i = 0; i < out->name.n && !r->bad; i++)                                         \
            READ_ELEMENT;                                                                        \
    }
#define WIRE_BYTES(type) ((u32)sizeof(CODEC_C_##type))
#define READ_values(type, name, null) \
    READ_ARRAY(name, null, WIRE_BYTES(type), out->name.v[i] = wire_get_##type(r))
#define READ_strings(type, name, null) \
    READ_ARRAY(name, null, 1, out->name.v[i] = wire_get_string(r, flexible, false))
#define READ_structs(type, name, null) \
    READ_ARRAY(name, null, 1, type##_read(r, v, a, &out->name.v[i]))

/* Tagged fields may be missing, so they start as their defaults. */
#define BEGIN(x, flexible_from)                      \
    CODEC_STATIC void x##_init_tagged(struct x *out) \
    {                                                \
        (void)out;
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    CODEC_INIT_##kind(out, type, name, dflt)
#define END(x) }
#include "all.def"

#define BEGIN(x, flexible_from)                                                              \
    static void x##_read(struct wire_reader *r, const int v, struct arena *a, struct x *out) \
    {                                                                                        \
        const bool flexible = CODEC_FLEXIBLE(v, flexible_from);                              \
        (void)a;                                                                             \
        (void)out;
#define FIELD(kind, type, name, from, to, null_from, dflt)    \
    if (CODEC_IN(v, from, to)) {                              \
        READ_##kind(type, name, CODEC_NULLABLE(v, null_from)) \
    } else {                                                  \
        CODEC_INIT_##kind(out, type, name, dflt)              \
    }
/* Braces that open in one macro close in another. */
/* clang-format off */
#define TAGS(x)                                  \
    x##_init_tagged(out);                        \
    if (!flexible)                               \
        return;                                  \
    u32 tags = wire_get_uvarint(r);              \
    while (tags-- > 0 && !r->bad) {              \
        u32 tag;                                 \
        const u8 *end = wire_tag_begin(r, &tag); \
        switch (tag) {
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt)  \
    case tag:                                                     \
        if (CODEC_IN(v, from, to)) {                              \
            READ_##kind(type, name, CODEC_NULLABLE(v, null_from)) \
        } else {                                                  \
            r->pos = r->end;                                      \
        }                                                         \
        break;
#define END(x)                    \
        default:                  \
            r->pos = r->end;      \
            break;                \
        }                         \
        wire_tag_end(r, end);     \
    }                             \
    }
/* clang-format on */
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability)                \
    err x##_decode(struct wire_reader *r, i16 version, struct arena *a, struct x *out) \
    {                                                                                  \
        if (unlikely(version < (min) || version > (max)))                              \
            return ERR_UNSUPPORTED_VERSION;                                            \
        x##_read(r, version, a, out);                                                  \
        if (unlikely(r->bad))                                                          \
            return r->no_memory ? ERR_NO_MEMORY : ERR_MALFORMED;                       \
        return ERR_NONE;                                                               \
    }
#include "all.def"

#endif
