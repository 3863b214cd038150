/* What the expansions of the schema (codec_*.c) share. Private to them. */
#ifndef LEAT_CODEC_INT_H
#define LEAT_CODEC_INT_H

#include "codec.h"

/* Is `v` in from..to? 0 and 32767 stand for "from the first" and "to the last": those halves fold
 * away, because callers have checked that v is a version of the message. */
#define CODEC_IN(v, from, to) (((from) == 0 || (v) >= (from)) && ((to) == 32767 || (v) <= (to)))
/* May a field be null in version v? */
#define CODEC_NULLABLE(v, null_from) \
    ((null_from) == 0 || ((null_from) != 32767 && (v) >= (null_from)))
#define CODEC_FLEXIBLE(v, flexible_from) ((flexible_from) != 32767 && (v) >= (flexible_from))

/* Not every struct of the list needs every function that is expanded for it. */
#define CODEC_STATIC static __attribute__((unused))

/* The non-null empty view: its pointer is never read through. */
extern const u8 codec_empty[1];

/* Sets a member to its default. */
#define CODEC_BYTES_EMPTY ((struct bytes){ codec_empty, 0 })
#define CODEC_BYTES_NIL ((struct bytes){ NULL, 0 })
#define CODEC_COUNT_EMPTY 0
#define CODEC_COUNT_NIL (-1)
#define CODEC_SET_boolean(member, value) (member) = (value)
#define CODEC_SET_i8(member, value) (member) = (value)
#define CODEC_SET_i16(member, value) (member) = (value)
#define CODEC_SET_u16(member, value) (member) = (value)
#define CODEC_SET_i32(member, value) (member) = (value)
#define CODEC_SET_u32(member, value) (member) = (value)
#define CODEC_SET_i64(member, value) (member) = (value)
#define CODEC_SET_f64(member, value) (member) = (value)
#define CODEC_SET_uuid(member, value) \
    (member) = (struct uuid)          \
    {                                 \
        {                             \
            value                     \
        }                             \
    }
#define CODEC_INIT_value(m, type, name, dflt) CODEC_SET_##type((m)->name, dflt);
#define CODEC_INIT_string(m, type, name, dflt) (m)->name = CODEC_BYTES_##dflt;
#define CODEC_INIT_string16(m, type, name, dflt) (m)->name = CODEC_BYTES_##dflt;
#define CODEC_INIT_bytes(m, type, name, dflt) (m)->name = CODEC_BYTES_##dflt;
#define CODEC_INIT_records(m, type, name, dflt) (m)->name = CODEC_BYTES_##dflt;
#define CODEC_INIT_struct(m, type, name, dflt) type##_init(&(m)->name);
#define CODEC_INIT_nullable(m, type, name, dflt) (m)->name = NULL;
#define CODEC_INIT_optional(m, type, name, dflt) (m)->name = NULL;
#define CODEC_INIT_values(m, type, name, dflt) \
    {                                          \
        (m)->name.v = NULL;                    \
        (m)->name.n = CODEC_COUNT_##dflt;      \
    }
#define CODEC_INIT_strings(m, type, name, dflt) CODEC_INIT_values(m, type, name, dflt)
#define CODEC_INIT_structs(m, type, name, dflt) CODEC_INIT_values(m, type, name, dflt)

#endif
