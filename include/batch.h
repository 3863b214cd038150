/* Record batch v2 (magic 2): the only record format Leat stores and speaks.
 *
 *    0  base offset         i64   assigned by the partition   (not covered by the CRC)
 *    8  batch length        i32   bytes after this field
 *   12  leader epoch        i32   assigned by the partition   (not covered by the CRC)
 *   16  magic               i8    2
 *   17  crc                 u32   CRC-32C of bytes 21..end
 *   21  attributes          i16   0-2 codec, 3 timestamp type, 4 transactional, 5 control,
 *                                 6 base timestamp is the delete horizon
 *   23  last offset delta   i32
 *   27  base timestamp      i64   ms
 *   35  max timestamp       i64   ms
 *   43  producer id         i64   -1: none
 *   51  producer epoch      i16
 *   53  base sequence       i32   -1: none
 *   57  record count        i32
 *   61  records             compressed as a whole when the codec is not none
 *
 *   record: varint length · i8 attributes · varlong timestamp delta · varint offset delta ·
 *           varint key length (-1 null) · key · varint value length (-1 null) · value ·
 *           varint header count · { varint key length · key · varint value length · value }
 *
 * Views point into the bytes they were made from and own nothing. Every reader here survives
 * any input. Nothing allocates except through the compressor, builder or arena that is passed.
 * Any thread; objects with state (compressor, builder) belong to one thread at a time.
 */
#ifndef LEAT_BATCH_H
#define LEAT_BATCH_H

#include "bytes.h"
#include "compress.h"
#include "err.h"
#include "mem.h"

enum batch_field {
    BATCH_AT_BASE_OFFSET = 0,
    BATCH_AT_LENGTH = 8,
    BATCH_PREFIX_BYTES = 12, /* what the length field does not count */
    BATCH_AT_LEADER_EPOCH = 12,
    BATCH_AT_MAGIC = 16,
    BATCH_AT_CRC = 17,
    BATCH_AT_ATTRIBUTES = 21, /* the CRC covers from here */
    BATCH_AT_LAST_OFFSET_DELTA = 23,
    BATCH_AT_BASE_TIMESTAMP = 27,
    BATCH_AT_MAX_TIMESTAMP = 35,
    BATCH_AT_PRODUCER_ID = 43,
    BATCH_AT_PRODUCER_EPOCH = 51,
    BATCH_AT_BASE_SEQUENCE = 53,
    BATCH_AT_RECORD_COUNT = 57,
    BATCH_HEADER_BYTES = 61,
};

#define BATCH_MAGIC 2
#define BATCH_ATTR_CODEC 0x07
#define BATCH_ATTR_LOG_APPEND_TIME 0x08
#define BATCH_ATTR_TRANSACTIONAL 0x10
#define BATCH_ATTR_CONTROL 0x20
#define BATCH_ATTR_DELETE_HORIZON 0x40
#define BATCH_NO_TIMESTAMP ((i64)-1)
#define BATCH_NO_PRODUCER_ID ((i64)-1)
#define BATCH_NO_SEQUENCE (-1)
#define BATCH_NO_LEADER_EPOCH (-1)

/* A batch's header, decoded, and where its bytes are. */
struct batch {
    const u8 *data; /* of the whole batch */
    u32 bytes;      /* of the whole batch */
    u32 crc;
    i64 base_offset;
    i64 base_timestamp;
    i64 max_timestamp;
    i64 producer_id;
    i32 leader_epoch;
    i32 last_offset_delta;
    i32 base_sequence;
    i32 record_count;
    i16 producer_epoch;
    i16 attributes;
};

static inline i64 batch_last_offset(const struct batch *b)
{
    return (i64)((u64)b->base_offset + (u64)(i64)b->last_offset_delta);
}
static inline u32 batch_codec_bits(const struct batch *b)
{
    return (u32)b->attributes & BATCH_ATTR_CODEC;
}
static inline enum codec batch_codec(const struct batch *b)
{
    return (enum codec)batch_codec_bits(b);
}
static inline bool batch_is_log_append_time(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_LOG_APPEND_TIME;
}
static inline bool batch_is_transactional(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_TRANSACTIONAL;
}
static inline bool batch_is_control(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_CONTROL;
}
static inline bool batch_has_delete_horizon(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_DELETE_HORIZON;
}
static inline bool batch_has_producer(const struct batch *b)
{
    return b->producer_id >= 0;
}
/* The bytes after the header, compressed or not. */
static inline struct bytes batch_payload(const struct batch *b)
{
    return bytes_of(b->data + BATCH_HEADER_BYTES, b->bytes - BATCH_HEADER_BYTES);
}
/* Sequences wrap from INT32_MAX to 0. */
static inline i32 batch_sequence_add(i32 sequence, i32 increment)
{
    return (i32)(((u32)sequence + (u32)increment) & 0x7fffffffu);
}
static inline i32 batch_last_sequence(const struct batch *b)
{
    return b->base_sequence < 0 ? BATCH_NO_SEQUENCE
                                : batch_sequence_add(b->base_sequence, b->last_offset_delta);
}

/* Getters on raw bytes that passed batch_parse once. */
static inline i64 batch_raw_base_offset(const u8 *p)
{
    return (i64)get_be64(p + BATCH_AT_BASE_OFFSET);
}
static inline i64 batch_raw_last_offset(const u8 *p)
{
    return batch_raw_base_offset(p) + (i32)get_be32(p + BATCH_AT_LAST_OFFSET_DELTA);
}
static inline u32 batch_raw_bytes(const u8 *p)
{
    return get_be32(p + BATCH_AT_LENGTH) + BATCH_PREFIX_BYTES;
}

/* ---- reading batches ---- */

/* Decodes the header at the start of `in`, which may go on behind it. Structure only, no CRC.
 * ERR_TRUNCATED: the bytes end before the batch does. ERR_CORRUPT_MESSAGE: a length too small
 * for its format, or an unknown magic. ERR_INVALID_RECORD: magic 0 or 1, or a negative record
 * count or last offset delta. */
err batch_parse(struct bytes in, struct batch *out) MUST_USE;
/* The batch at the start of *rest, which moves behind it. ERR_NOT_FOUND: *rest is empty.
 * Else as batch_parse; *rest does not move then. */
err batch_next(struct bytes *rest, struct batch *out) MUST_USE;
/* The records of one partition in a Produce request (v3 and later): exactly one batch.
 * ERR_INVALID_RECORD: none, several, or an old magic. An incomplete batch at the end is as good
 * as absent, as in Kafka; out->bytes says how much counts. */
err batch_parse_produce(struct bytes in, struct batch *out) MUST_USE;
/* ERR_CORRUPT_MESSAGE when the stored CRC is not that of the bytes. */
err batch_check_crc(const struct batch *b) MUST_USE;
/* Copies the batch to dst (b->bytes of room) and checks the CRC in the same pass: what the way
 * in uses. The copy is complete either way. */
err batch_copy_check_crc(u8 *dst, const struct batch *b) MUST_USE;

/* ---- changing a batch in place ---- */

/* Not covered by the CRC: two stores. */
void batch_patch(u8 *data, i64 base_offset, i32 leader_epoch);
/* Sets timestamp type and max timestamp and corrects the CRC, by arithmetic on the change
 * alone: the records are not read, and a CRC that was wrong stays wrong. `data` passed
 * batch_parse. */
void batch_patch_timestamps(u8 *data, bool log_append_time, i64 max_timestamp);

/* ---- records ---- */

struct record {
    i64 offset;
    i64 timestamp; /* ms; the batch's max timestamp when that is the log append time */
    struct bytes key;
    struct bytes value;
    struct bytes headers; /* raw, checked; for header_iter */
    i32 header_count;
    i32 offset_delta;
    struct bytes raw; /* the whole record with its length prefix */
};

struct record_iter {
    const u8 *p, *end;
    i64 base_offset;
    i64 base_timestamp;
    i64 log_append_time; /* valid when has_log_append_time */
    bool has_log_append_time;
    i32 left; /* records not yet read, by the header's count */
};

/* `plain` = the decoded payload (batch_payload of an uncompressed batch). */
void record_iter_init(struct record_iter *it, const struct batch *b, struct bytes plain);
/* ERR_NOT_FOUND after the last record, when all bytes are used up. ERR_INVALID_RECORD: broken
 * structure, or bytes left behind the last record; the iterator must not be used further. */
err record_next(struct record_iter *it, struct record *r) MUST_USE;

struct header {
    struct bytes key;
    struct bytes value; /* may be null */
};
struct header_iter {
    const u8 *p, *end;
    i32 left;
};
/* The headers of a record that record_next gave: header_next then only ends by count. */
void header_iter_init(struct header_iter *it, const struct record *r);
bool header_next(struct header_iter *it, struct header *h);

/* Decoded payload of a batch: batch_payload itself, or a view into the compressor's buffer.
 * Errors as compress_decode. */
err batch_decode(struct compressor *c, const struct batch *b, u64 max_bytes,
                 struct bytes *plain) MUST_USE;

/* The first record with timestamp >= `target`. ERR_NOT_FOUND: none. `c` may be NULL for an
 * uncompressed batch. Other errors as record_next and compress_decode. */
err batch_find_timestamp(struct compressor *c, const struct batch *b, i64 target,
                         u64 max_decoded_bytes, i64 *offset, i64 *timestamp) MUST_USE;
/* The first record among those with the largest timestamp. ERR_NOT_FOUND: an empty batch. */
err batch_find_max_timestamp(struct compressor *c, const struct batch *b, u64 max_decoded_bytes,
                             i64 *offset, i64 *timestamp) MUST_USE;

/* ---- validation on the leader ---- */

#define BATCH_CODEC_PRODUCER (-1)
/* Default bound on what one compressed batch may decode to. */
#define BATCH_DECODED_BYTES_MAX (128 * MIB)

struct batch_rules {
    i32 codec;            /* compression.type: an enum codec, or BATCH_CODEC_PRODUCER */
    i32 level;            /* for recompression; COMPRESS_LEVEL_DEFAULT is fine */
    bool log_append_time; /* message.timestamp.type */
    bool compacted;       /* every record needs a key */
    /* Decode compressed batches and check their records, as Kafka always does. When false, a
     * batch that stays in its codec is taken after the header checks alone: see
     * batch_validate. */
    bool deep;
    bool crc_checked; /* the caller checks the CRC itself (batch_copy_check_crc) */
    i64 now_ms;
    i64 before_max_ms; /* message.timestamp.before.max.ms, INT64_MAX: no bound */
    i64 after_max_ms;  /* message.timestamp.after.max.ms */
    u32 max_message_bytes;
    u64 max_decoded_bytes; /* 0 means BATCH_DECODED_BYTES_MAX */
};

#define BATCH_RECORD_ERRORS_MAX 16
struct batch_record_error {
    i32 index; /* of the record in the batch */
    err code;  /* ERR_INVALID_RECORD or ERR_INVALID_TIMESTAMP */
};

struct batch_verdict {
    i64 max_timestamp;  /* what the stored header must say */
    bool retime;        /* type or max timestamp differ: call batch_patch_timestamps */
    bool rebuild;       /* other codec or broken offset deltas: call batch_rebuild instead */
    bool deep;          /* the records were looked at */
    u32 decoded_bytes;  /* of the records, 0 when not looked at */
    const char *reason; /* for the response's error message; static; NULL when accepted */
    u32 error_count;    /* records refused one by one; errors[] holds the first of them */
    struct batch_record_error errors[BATCH_RECORD_ERRORS_MAX];
};

/* The checks that need the header only (and the CRC, unless rules->crc_checked): size, base
 * offset 0, count = offset range > 0, codec known, no control batch, sequence with producer id.
 * ERR_MESSAGE_TOO_LARGE, ERR_CORRUPT_MESSAGE, ERR_INVALID_RECORD,
 * ERR_UNSUPPORTED_COMPRESSION_TYPE, ERR_INVALID_TIMESTAMP. */
err batch_validate_shallow(const struct batch *b, const struct batch_rules *rules,
                           struct batch_verdict *v) MUST_USE;
/* What Kafka's leader checks of a client's batch: the shallow checks, then the records'
 * structure, keys, timestamps, count. The records are skipped only when all of these hold:
 * rules->deep is false, the batch is compressed, it keeps its codec, and the topic is not
 * compacted; then the header's timestamps stand for those of the records.
 * Also ERR_INVALID_RECORD for a payload that does not decode (the CRC says the client meant it,
 * so a retry is pointless). Errors of single records are collected in v->errors. */
err batch_validate(struct compressor *c, const struct batch *b, const struct batch_rules *rules,
                   struct batch_verdict *v) MUST_USE;
/* The batch anew, in the arena: offset deltas 0..n-1, the target codec, timestamps as the
 * verdict says; producer fields, transactional bit kept; base offset 0. For batches that
 * batch_validate accepted with `rebuild`. ERR_MESSAGE_TOO_LARGE: the result passes
 * max_message_bytes or the arena's limit. */
err batch_rebuild(struct compressor *c, const struct batch *b, const struct batch_rules *rules,
                  const struct batch_verdict *v, struct arena *a, struct bytes *out) MUST_USE;

/* ---- building ---- */

/* Zero-initialise the struct through batch_builder_init; set the header fields; add records;
 * finish. The buffers stay for the next batch after batch_builder_reset. */
struct batch_builder {
    /* Header fields the user sets between init/reset and finish. */
    i64 base_offset;
    i64 producer_id;
    i32 leader_epoch;
    i32 base_sequence;
    i16 producer_epoch;
    i16 flags; /* BATCH_ATTR_* without the codec bits */
    enum codec codec;
    i32 level;
    /* Kept by the builder; readable. */
    i64 base_timestamp;
    i64 max_timestamp;
    i32 record_count;
    i32 last_offset_delta;
    u32 used_bytes; /* header and records, before compression */
    u32 limit_bytes;
    u8 *data;
    u32 room_bytes;
    u8 *packed; /* compressed result */
    u32 packed_room_bytes;
};

/* No memory is taken until the first record. limit_bytes bounds the uncompressed batch. */
void batch_builder_init(struct batch_builder *b, u32 limit_bytes);
/* Ready for another batch: header fields at their defaults (no producer, codec none). */
void batch_builder_reset(struct batch_builder *b);
void batch_builder_free(struct batch_builder *b);
/* Offset delta = one more than the last record's. ERR_MESSAGE_TOO_LARGE: limit_bytes would be
 * passed; the builder is as before. */
err batch_builder_add(struct batch_builder *b, i64 timestamp, struct bytes key, struct bytes value,
                      const struct header *headers, u32 header_count) MUST_USE;
/* With a given offset delta (≥ 0, larger than the last): compaction leaves holes. */
err batch_builder_add_at(struct batch_builder *b, i32 offset_delta, i64 timestamp, struct bytes key,
                         struct bytes value, const struct header *headers,
                         u32 header_count) MUST_USE;
/* Compaction: a batch like `from` that will hold some of its records. After a reset: takes all
 * header fields, without the delete horizon. Then batch_builder_keep for each record that stays,
 * ascending, and batch_builder_end_at so that the offset range is what it was. */
void batch_builder_like(struct batch_builder *b, const struct batch *from);
err batch_builder_keep(struct batch_builder *b, const struct record *r) MUST_USE;
void batch_builder_end_at(struct batch_builder *b, i32 last_offset_delta);
/* Before the first record: marks the batch with the time from which on its tombstones may go, which
 * takes the base timestamp's place (KIP-534). */
void batch_builder_set_horizon(struct batch_builder *b, i64 ms);
/* The bytes a record would add at most, before compression. */
u64 batch_builder_record_bytes(struct bytes key, struct bytes value, const struct header *headers,
                               u32 header_count);
/* Writes header and CRC. The view is the builder's, valid until reset or free; bytes may be
 * patched in place. `c` may be NULL when the codec is none. An empty batch is allowed. */
err batch_builder_finish(struct batch_builder *b, struct compressor *c, struct bytes *out) MUST_USE;

/* ---- control records ---- */

#define BATCH_MARKER_BYTES 78

/* The batch that ends a transaction in a partition, BATCH_MARKER_BYTES into `out`. */
void batch_build_marker(u8 *out, bool commit, i64 base_offset, i32 leader_epoch, i64 producer_id,
                        i16 producer_epoch, i32 coordinator_epoch, i64 timestamp);
/* ERR_INVALID_RECORD: not a control batch with one commit or abort record. */
err batch_parse_marker(const struct batch *b, bool *commit, i32 *coordinator_epoch) MUST_USE;

#endif
