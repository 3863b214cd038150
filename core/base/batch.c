/* Record batch v2: reading, walking, patching in place. Layout and contracts: batch.h.
 * Validation and rebuilding: batch_validate.c. Building: batch_build.c.
 *
 * Invariants of a `struct batch` that batch_parse gave:
 *   1. bytes >= BATCH_HEADER_BYTES and data[0..bytes) is readable;
 *   2. record_count >= 0 and last_offset_delta >= 0 (their relation is validation's business:
 *      compaction leaves fewer records than offsets);
 *   3. nothing else: codec bits, timestamps, offsets, records and CRC are as they came.
 *
 * A record is read in one pass with the position as the only state; a NULL position, from any
 * number that ran out, carries through to the single check at the end. Record lengths are
 * checked against what is left before anything is read, and headers are walked to their end, so
 * that who iterates over them later needs no checks.
 */
#include "batch.h"

#include "check.h"
#include "crc32c.h"
#include "plant.h"
#include "varint.h"

/* The smallest length field of any format: what a v0 message holds. */
#define BATCH_LENGTH_MIN 14

/* ---- header ---- */

static void batch_read_header(const u8 *p, u32 bytes, struct batch *b)
{
    *b = (struct batch){
        .data = p,
        .bytes = bytes,
        .crc = get_be32(p + BATCH_AT_CRC),
        .base_offset = (i64)get_be64(p + BATCH_AT_BASE_OFFSET),
        .base_timestamp = (i64)get_be64(p + BATCH_AT_BASE_TIMESTAMP),
        .max_timestamp = (i64)get_be64(p + BATCH_AT_MAX_TIMESTAMP),
        .producer_id = (i64)get_be64(p + BATCH_AT_PRODUCER_ID),
        .leader_epoch = (i32)get_be32(p + BATCH_AT_LEADER_EPOCH),
        .last_offset_delta = (i32)get_be32(p + BATCH_AT_LAST_OFFSET_DELTA),
        .base_sequence = (i32)get_be32(p + BATCH_AT_BASE_SEQUENCE),
        .record_count = (i32)get_be32(p + BATCH_AT_RECORD_COUNT),
        .producer_epoch = (i16)get_be16(p + BATCH_AT_PRODUCER_EPOCH),
        .attributes = (i16)get_be16(p + BATCH_AT_ATTRIBUTES),
    };
}

/* Length and magic, without needing more than they need. */
static err batch_frame(struct bytes in, u32 *bytes, u8 *magic)
{
    if (in.len < BATCH_PREFIX_BYTES)
        return ERR_TRUNCATED;
    u32 length = get_be32(in.data + BATCH_AT_LENGTH);
    if (length < BATCH_LENGTH_MIN || length > (u32)INT32_MAX - BATCH_PREFIX_BYTES)
        return ERR_CORRUPT_MESSAGE;
    if (in.len <= BATCH_AT_MAGIC)
        return ERR_TRUNCATED;
    *magic = in.data[BATCH_AT_MAGIC];
    if (*magic > BATCH_MAGIC)
        return ERR_CORRUPT_MESSAGE;
    if (*magic == BATCH_MAGIC && length < BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES)
        return ERR_CORRUPT_MESSAGE;
    *bytes = length + BATCH_PREFIX_BYTES;
    return *bytes > in.len ? ERR_TRUNCATED : ERR_NONE;
}

err batch_parse(struct bytes in, struct batch *out)
{
    u32 bytes = 0;
    u8 magic = 0;
    err e = batch_frame(in, &bytes, &magic);
    if (e)
        return e;
    if (magic != BATCH_MAGIC)
        return ERR_INVALID_RECORD;
    batch_read_header(in.data, bytes, out);
    if (out->record_count < 0 || out->last_offset_delta < 0)
        return ERR_INVALID_RECORD;
    return ERR_NONE;
}

err batch_next(struct bytes *rest, struct batch *out)
{
    if (rest->len == 0)
        return ERR_NOT_FOUND;
    err e = batch_parse(*rest, out);
    if (e)
        return e;
    CHECK(out->bytes <= rest->len);
    rest->data += out->bytes;
    rest->len -= out->bytes;
    return ERR_NONE;
}

err batch_parse_produce(struct bytes in, struct batch *out)
{
    err e = batch_parse(in, out);
    if (e)
        return e == ERR_TRUNCATED ? ERR_INVALID_RECORD : e;
    struct bytes rest = bytes_of(in.data + out->bytes, in.len - out->bytes);
    u32 bytes = 0;
    u8 magic = 0;
    e = batch_frame(rest, &bytes, &magic);
    if (e == ERR_TRUNCATED)
        return ERR_NONE;
    return e ? e : ERR_INVALID_RECORD;
}

err batch_check_crc(const struct batch *b)
{
    u32 crc = crc32c(0, b->data + BATCH_AT_ATTRIBUTES, b->bytes - BATCH_AT_ATTRIBUTES);
    return crc == b->crc ? ERR_NONE : ERR_CORRUPT_MESSAGE;
}

err batch_copy_check_crc(u8 *dst, const struct batch *b)
{
    CHECK(b->bytes >= BATCH_HEADER_BYTES);
    memcpy(dst, b->data, BATCH_AT_ATTRIBUTES);
    u32 crc = crc32c_copy(0, dst + BATCH_AT_ATTRIBUTES, b->data + BATCH_AT_ATTRIBUTES,
                          b->bytes - BATCH_AT_ATTRIBUTES);
    return crc == b->crc ? ERR_NONE : ERR_CORRUPT_MESSAGE;
}

/* ---- in place ---- */

void batch_patch(u8 *data, i64 base_offset, i32 leader_epoch)
{
    CHECK(base_offset >= 0);
    CHECK(data[BATCH_AT_MAGIC] == BATCH_MAGIC);
    put_be64(data + BATCH_AT_BASE_OFFSET, (u64)base_offset);
    put_be32(data + BATCH_AT_LEADER_EPOCH, (u32)leader_epoch);
}

/* A CRC is linear: crc(new) = crc(old) ^ crc0(old ^ new), crc0 being the CRC without its
 * inversions. The difference is zero but for the span from attributes to max timestamp, so it is
 * the CRC of that short span moved over the bytes behind it. */
void batch_patch_timestamps(u8 *data, bool log_append_time, i64 max_timestamp)
{
    enum { SPAN = BATCH_AT_PRODUCER_ID - BATCH_AT_ATTRIBUTES };
    static const u8 zeros[SPAN];
    u8 change[SPAN];
    CHECK(data[BATCH_AT_MAGIC] == BATCH_MAGIC);
    u32 bytes = batch_raw_bytes(data);
    CHECK(bytes >= BATCH_HEADER_BYTES);
    memcpy(change, data + BATCH_AT_ATTRIBUTES, SPAN);
    u32 attributes = get_be16(data + BATCH_AT_ATTRIBUTES);
    attributes &= ~(u32)BATCH_ATTR_LOG_APPEND_TIME;
    attributes |= log_append_time ? BATCH_ATTR_LOG_APPEND_TIME : 0;
    put_be16(data + BATCH_AT_ATTRIBUTES, (u16)attributes);
    put_be64(data + BATCH_AT_MAX_TIMESTAMP, (u64)max_timestamp);
    for (u32 i = 0; i < SPAN; i++)
        change[i] ^= data[BATCH_AT_ATTRIBUTES + i];
    u32 span_crc = crc32c(0, change, SPAN) ^ crc32c(0, zeros, SPAN); /* inversions cancel */
    u32 crc_change = crc32c_combine(span_crc, 0, bytes - BATCH_AT_PRODUCER_ID);
    put_be32(data + BATCH_AT_CRC, get_be32(data + BATCH_AT_CRC) ^ crc_change);
}

/* ---- records ---- */

void record_iter_init(struct record_iter *it, const struct batch *b, struct bytes plain)
{
    *it = (struct record_iter){
        .p = plain.data,
        .end = plain.data ? plain.data + plain.len : NULL,
        .base_offset = b->base_offset,
        .base_timestamp = b->base_timestamp,
        .log_append_time = b->max_timestamp,
        .has_log_append_time = batch_is_log_append_time(b),
        .left = b->record_count,
    };
}

/* A length and that many bytes; a negative length is null. */
static inline const u8 *record_get_bytes(const u8 *p, const u8 *end, struct bytes *out)
{
    i32 len;
    p = varint_get_i32(p, end, &len);
    *out = (struct bytes){ NULL, 0 };
    if (unlikely(!p) || len < 0)
        return p;
    if (unlikely(len > end - p))
        return NULL;
    *out = bytes_of(p, (u32)len);
    return p + len;
}

static const u8 *record_skip_headers(const u8 *p, const u8 *end, i32 count)
{
    struct bytes key, value;
    for (i32 i = 0; i < count && p; i++) {
        p = record_get_bytes(p, end, &key);
        if (unlikely(!key.data))
            return NULL; /* a header's key can't be null */
        p = record_get_bytes(p, end, &value);
    }
    return p;
}

/* The body of one record, exactly [p, end). */
static bool record_read(const u8 *p, const u8 *end, const struct record_iter *it, struct record *r)
{
    i64 timestamp_delta;
    if (unlikely(p == end))
        return false;
    p++; /* attributes: no bit is in use */
    p = varint_get_i64(p, end, &timestamp_delta);
    p = varint_get_i32(p, end, &r->offset_delta);
    p = record_get_bytes(p, end, &r->key);
    p = record_get_bytes(p, end, &r->value);
    p = varint_get_i32(p, end, &r->header_count);
    if (unlikely(!p || r->header_count < 0 || r->header_count > end - p))
        return false;
    r->headers = bytes_of(p, (u32)(end - p));
    if (r->header_count > 0)
        p = record_skip_headers(p, end, r->header_count);
    r->offset = (i64)((u64)it->base_offset + (u64)(i64)r->offset_delta);
    r->timestamp = it->has_log_append_time ? it->log_append_time
                                           : (i64)((u64)it->base_timestamp + (u64)timestamp_delta);
    return p == end;
}

err record_next(struct record_iter *it, struct record *r)
{
    const u8 *start = it->p;
    i32 len;
    if (it->left <= 0)
        return it->p == it->end ? ERR_NOT_FOUND : ERR_INVALID_RECORD;
    const u8 *body = varint_get_i32(start, it->end, &len);
    if (unlikely(!body || len < 0 || (len > it->end - body && !PLANTED(PLANT_RECORD_BOUND))))
        return ERR_INVALID_RECORD;
    if (unlikely(!record_read(body, body + len, it, r)))
        return ERR_INVALID_RECORD;
    it->p = body + len;
    it->left--;
    r->raw = bytes_of(start, (u32)(it->p - start));
    return ERR_NONE;
}

void header_iter_init(struct header_iter *it, const struct record *r)
{
    *it = (struct header_iter){
        .p = r->headers.data,
        .end = r->headers.data + r->headers.len,
        .left = r->header_count,
    };
}

bool header_next(struct header_iter *it, struct header *h)
{
    if (it->left <= 0)
        return false;
    it->left--;
    it->p = record_get_bytes(it->p, it->end, &h->key);
    it->p = record_get_bytes(it->p, it->end, &h->value);
    CHECK(it->p != NULL); /* record_next walked them */
    return true;
}

/* ---- looking inside ---- */

err batch_decode(struct compressor *c, const struct batch *b, u64 max_bytes, struct bytes *plain)
{
    u32 codec = batch_codec_bits(b);
    if (codec == CODEC_NONE) {
        *plain = batch_payload(b);
        return ERR_NONE;
    }
    if (codec >= CODEC_COUNT)
        return ERR_UNSUPPORTED_COMPRESSION_TYPE;
    CHECK(c != NULL);
    return compress_decode(c, (enum codec)codec, batch_payload(b), max_bytes, plain);
}

err batch_find_timestamp(struct compressor *c, const struct batch *b, i64 target,
                         u64 max_decoded_bytes, i64 *offset, i64 *timestamp)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    if (b->max_timestamp < target)
        return ERR_NOT_FOUND;
    err e = batch_decode(c, b, max_decoded_bytes, &plain);
    if (e)
        return e;
    record_iter_init(&it, b, plain);
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (r.timestamp >= target) {
            *offset = r.offset;
            *timestamp = r.timestamp;
            return ERR_NONE;
        }
    }
    return e;
}

err batch_find_max_timestamp(struct compressor *c, const struct batch *b, u64 max_decoded_bytes,
                             i64 *offset, i64 *timestamp)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    bool found = false;
    err e = batch_decode(c, b, max_decoded_bytes, &plain);
    if (e)
        return e;
    record_iter_init(&it, b, plain);
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (found && r.timestamp <= *timestamp)
            continue;
        *offset = r.offset;
        *timestamp = r.timestamp;
        found = true;
    }
    return e == ERR_NOT_FOUND && found ? ERR_NONE : e;
}
