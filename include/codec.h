/* Every message of Kafka 4.4 as C structs, with decoders, encoders, sizes, printers, random
 * generators and a table of types. All of it expands from one list, net/messages/all.def.
 *
 * Names. ProduceRequest is `struct produce_request`; a struct TopicProduceData inside it is
 * `struct produce_request_topic_produce_data`; fields are snake_case (topicId → topic_id), with
 * a trailing _ where C has that word.
 *
 * Types. Integers as they are (bool for boolean, u16 for uint16, f64 for float64), struct uuid;
 * string, bytes and records are struct bytes (data NULL = null); an array is `{ T *v; i32 n; }`
 * (n -1 = null); a struct that may be null is a pointer; tagged fields are plain members.
 *
 * Defaults. Zeroed memory is not always Kafka's default (-1, null and empty strings differ):
 * start with X_init, also for the structs you put into arrays. A field that a version does not
 * carry gets its default when decoding and is skipped when encoding, silently: an encoder never
 * fails because a field does not exist in an old version. Records default to empty.
 *
 * For each struct X of the list:
 *     void X_init(struct X *)                     sets every member to its default
 * For each message X, `version` within what the message type says:
 *     err X_decode(r, version, arena, out)
 *         Views point into the input, which must outlive `out`; arrays and nullable structs lie in
 *         the arena. ERR_MALFORMED: the bytes break the format (also: null where it must not be,
 *         a count beyond the bytes left, a tagged field with a wrong length). ERR_NO_MEMORY: the
 *         arena's limit. ERR_UNSUPPORTED_VERSION: no such version. Then `out` is to be ignored.
 *         Unknown tagged fields are skipped. Bytes after the message stay in the reader.
 *     u32 X_size(version, m, scatter)
 *         Bytes X_encode writes; with `scatter`, without the bytes of `records` fields (for a
 *         writer with refs). UINT32_MAX when they would be more than INT32_MAX.
 *     void X_encode(w, version, m)
 *         Sets w->bad when the buffer or refs are too small or a string is longer than 32767.
 *         Null where null is not allowed is written as empty. `version` must be valid (CHECK).
 *     u32 X_print(version, m, buf, cap)
 *         One line of JSON-like text, NUL-terminated and cut to cap (> 0); returns the whole
 *         length. Bytes are shown in hex, strings escaped.
 *     bool X_random(rng, version, arena, out)
 *         Random content for tests; false when the arena is exhausted.
 * All are pure functions of their arguments: any thread. */
#ifndef LEAT_CODEC_H
#define LEAT_CODEC_H

#include "err.h"
#include "mem.h"
#include "rng.h"
#include "wire.h"

#define CODEC_VERSION_NEVER 32767

/* ---- structs ---- */

#define CODEC_C_boolean bool
#define CODEC_C_i8 i8
#define CODEC_C_i16 i16
#define CODEC_C_u16 u16
#define CODEC_C_i32 i32
#define CODEC_C_u32 u32
#define CODEC_C_i64 i64
#define CODEC_C_f64 f64
#define CODEC_C_uuid struct uuid
#define CODEC_MEMBER_value(type, name) CODEC_C_##type name;
#define CODEC_MEMBER_string(type, name) struct bytes name;
#define CODEC_MEMBER_string16(type, name) struct bytes name;
#define CODEC_MEMBER_bytes(type, name) struct bytes name;
#define CODEC_MEMBER_records(type, name) struct bytes name;
#define CODEC_MEMBER_struct(type, name) struct type name;
#define CODEC_MEMBER_nullable(type, name) struct type *name;
#define CODEC_MEMBER_optional(type, name) struct type *name;
#define CODEC_MEMBER_values(type, name) \
    struct {                            \
        CODEC_C_##type *v;              \
        i32 n;                          \
    } name;
#define CODEC_MEMBER_strings(type, name) \
    struct {                             \
        struct bytes *v;                 \
        i32 n;                           \
    } name;
#define CODEC_MEMBER_structs(type, name) \
    struct {                             \
        struct type *v;                  \
        i32 n;                           \
    } name;

#define BEGIN(x, flexible_from) struct x {
#define FIELD(kind, type, name, from, to, null_from, dflt) CODEC_MEMBER_##kind(type, name)
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) CODEC_MEMBER_##kind(type, name)
/* clang-format off */
#define END(x) };
/* clang-format on */
#include "all.def"

/* ---- functions ---- */

#define BEGIN(x, flexible_from) void x##_init(struct x *m);
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability)                          \
    err x##_decode(struct wire_reader *r, i16 version, struct arena *a, struct x *out) MUST_USE; \
    u32 x##_size(i16 version, const struct x *m, bool scatter);                                  \
    void x##_encode(struct wire_writer *w, i16 version, const struct x *m);                      \
    u32 x##_print(i16 version, const struct x *m, char *buf, u32 cap);                           \
    bool x##_random(struct rng *rng, i16 version, struct arena *a, struct x *out);
#include "all.def"

/* ---- the table ---- */

enum message_id {
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability) MSG_##x,
#include "all.def"
    MSG_COUNT
};

struct message_type {
    const char *name;     /* Kafka's: "ProduceRequest" */
    i16 api_key;          /* for records of the group coordinator their type; else -1 */
    i16 min, max;         /* versions that exist */
    i16 flexible_from;    /* CODEC_VERSION_NEVER if none is flexible */
    bool latest_unstable; /* not to be advertised: `max` */
    u32 struct_bytes;
    err (*decode)(struct wire_reader *r, i16 version, struct arena *a, void *out);
    void (*encode)(struct wire_writer *w, i16 version, const void *m);
    u32 (*size)(i16 version, const void *m, bool scatter);
    u32 (*print)(i16 version, const void *m, char *buf, u32 cap);
    bool (*random)(struct rng *rng, i16 version, struct arena *a, void *out);
    void (*init)(void *m);
};

/* Never NULL; id < MSG_COUNT. */
const struct message_type *message_type(enum message_id id);
/* NULL for a key Kafka 4.4 does not know. */
const struct message_type *message_request_type(i16 api_key);
const struct message_type *message_response_type(i16 api_key);

#ifdef LEAT_FUZZ
/* What X_random likes to choose for strings, records and ids, so that random requests name things
 * that exist. The views stay. */
extern struct codec_random_words {
    const struct bytes *texts, *records;
    const struct uuid *ids;
    u32 text_count, record_count, id_count;
} codec_random_words;
#endif

/* Version of the header in front of a request (1 or 2) or response (0 or 1). For unknown keys the
 * older one. `version` may be one that does not exist (a client newer than us): ApiVersions must
 * be answered even then. The response header of ApiVersions is always 0. */
i16 request_header_version(i16 api_key, i16 version);
i16 response_header_version(i16 api_key, i16 version);

#endif
