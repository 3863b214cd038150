/* Building record batches: internal topics, transaction markers, compaction, tools and tests.
 *
 * The builder keeps one buffer, header space first, records behind it:
 *
 *     data  | 61 bytes | record | record | … | free |      packed | 61 bytes | compressed |
 *                                        ^ used_bytes
 *
 * Timestamps are stored relative to the first record's. Offset deltas only grow. finish writes
 * the header into `data` (codec none) or compresses into `packed`; it may be repeated after more
 * records, e.g. to look at the size.
 */
#include "batch_int.h"

#include "check.h"
#include "crc32c.h"
#include "varint.h"

#define BUILDER_ROOM_MIN 4096

void batch_seal(u8 *data, u32 bytes, const struct batch *fields)
{
    CHECK(bytes >= BATCH_HEADER_BYTES);
    CHECK(bytes <= INT32_MAX);
    put_be64(data + BATCH_AT_BASE_OFFSET, (u64)fields->base_offset);
    put_be32(data + BATCH_AT_LENGTH, bytes - BATCH_PREFIX_BYTES);
    put_be32(data + BATCH_AT_LEADER_EPOCH, (u32)fields->leader_epoch);
    data[BATCH_AT_MAGIC] = BATCH_MAGIC;
    put_be16(data + BATCH_AT_ATTRIBUTES, (u16)fields->attributes);
    put_be32(data + BATCH_AT_LAST_OFFSET_DELTA, (u32)fields->last_offset_delta);
    put_be64(data + BATCH_AT_BASE_TIMESTAMP, (u64)fields->base_timestamp);
    put_be64(data + BATCH_AT_MAX_TIMESTAMP, (u64)fields->max_timestamp);
    put_be64(data + BATCH_AT_PRODUCER_ID, (u64)fields->producer_id);
    put_be16(data + BATCH_AT_PRODUCER_EPOCH, (u16)fields->producer_epoch);
    put_be32(data + BATCH_AT_BASE_SEQUENCE, (u32)fields->base_sequence);
    put_be32(data + BATCH_AT_RECORD_COUNT, (u32)fields->record_count);
    put_be32(data + BATCH_AT_CRC,
             crc32c(0, data + BATCH_AT_ATTRIBUTES, bytes - BATCH_AT_ATTRIBUTES));
}

/* ---- life ---- */

void batch_builder_init(struct batch_builder *b, u32 limit_bytes)
{
    CHECK(limit_bytes >= BATCH_HEADER_BYTES);
    *b = (struct batch_builder){ .limit_bytes = MIN(limit_bytes, (u32)GIB) };
    batch_builder_reset(b);
}

void batch_builder_reset(struct batch_builder *b)
{
    *b = (struct batch_builder){
        .producer_id = BATCH_NO_PRODUCER_ID,
        .leader_epoch = BATCH_NO_LEADER_EPOCH,
        .base_sequence = BATCH_NO_SEQUENCE,
        .producer_epoch = -1,
        .level = COMPRESS_LEVEL_DEFAULT,
        .base_timestamp = BATCH_NO_TIMESTAMP,
        .max_timestamp = BATCH_NO_TIMESTAMP,
        .last_offset_delta = -1,
        .used_bytes = BATCH_HEADER_BYTES,
        .limit_bytes = b->limit_bytes,
        .data = b->data,
        .room_bytes = b->room_bytes,
        .packed = b->packed,
        .packed_room_bytes = b->packed_room_bytes,
    };
}

void batch_builder_free(struct batch_builder *b)
{
    mem_free(b->data);
    mem_free(b->packed);
    b->data = b->packed = NULL;
    b->room_bytes = b->packed_room_bytes = 0;
}

/* ---- adding ---- */

static u64 field_bytes(struct bytes f)
{
    return f.data ? (u64)varint_size_i32((i32)f.len) + f.len : 1;
}

static u8 *put_field(u8 *p, struct bytes f)
{
    if (!f.data)
        return varint_put_i32(p, -1);
    p = varint_put_i32(p, (i32)f.len);
    if (f.len)
        memcpy(p, f.data, f.len);
    return p + f.len;
}

static u64 headers_bytes(const struct header *headers, u32 count)
{
    u64 bytes = 0;
    for (u32 i = 0; i < count; i++)
        bytes += field_bytes(headers[i].key) + field_bytes(headers[i].value);
    return bytes;
}

u64 batch_builder_record_bytes(struct bytes key, struct bytes value, const struct header *headers,
                               u32 header_count)
{
    return VARINT_BYTES_MAX + 1 + VARLONG_BYTES_MAX + VARINT_BYTES_MAX + field_bytes(key) +
           field_bytes(value) + VARINT_BYTES_MAX + headers_bytes(headers, header_count);
}

/* Room for `more` bytes; false when the limit would be passed. */
static bool builder_reserve(struct batch_builder *b, u64 more)
{
    u64 want = (u64)b->used_bytes + more;
    if (want > b->limit_bytes)
        return false;
    if (want > b->room_bytes || !b->data) {
        u64 room = MAX(MAX((u64)b->room_bytes * 2, want), (u64)BUILDER_ROOM_MIN);
        b->data = mem_realloc(b->data, MIN(room, MAX((u64)b->limit_bytes, want)));
        b->room_bytes = (u32)MIN(room, MAX((u64)b->limit_bytes, want));
    }
    return true;
}

/* All of a record but its headers, whose place is returned; NULL at the limit. */
static u8 *builder_put_record(struct batch_builder *b, i32 offset_delta, i64 timestamp,
                              struct bytes key, struct bytes value, u64 header_bytes,
                              i32 header_count)
{
    CHECK(offset_delta > b->last_offset_delta);
    CHECK(b->record_count < INT32_MAX);
    if (b->record_count == 0 && !(b->flags & BATCH_ATTR_DELETE_HORIZON))
        b->base_timestamp = timestamp;
    i64 timestamp_delta = (i64)((u64)timestamp - (u64)b->base_timestamp);
    u64 body = 1 + varint_size_i64(timestamp_delta) + varint_size_i32(offset_delta) +
               field_bytes(key) + field_bytes(value) + varint_size_i32(header_count) + header_bytes;
    if (body > b->limit_bytes || !builder_reserve(b, varint_size_i32((i32)body) + body))
        return NULL;
    u8 *p = varint_put_i32(b->data + b->used_bytes, (i32)body);
    u8 *end = p + body;
    *p++ = 0; /* record attributes: none exist */
    p = varint_put_i64(p, timestamp_delta);
    p = varint_put_i32(p, offset_delta);
    p = put_field(p, key);
    p = put_field(p, value);
    p = varint_put_i32(p, header_count);
    CHECK(p + header_bytes == end);
    b->used_bytes = (u32)(end - b->data);
    b->max_timestamp = b->record_count ? MAX(b->max_timestamp, timestamp) : timestamp;
    b->last_offset_delta = offset_delta;
    b->record_count++;
    return p;
}

err batch_builder_put(struct batch_builder *b, i32 offset_delta, i64 timestamp, struct bytes key,
                      struct bytes value, struct bytes raw_headers, i32 header_count)
{
    u8 *p =
        builder_put_record(b, offset_delta, timestamp, key, value, raw_headers.len, header_count);
    if (!p)
        return ERR_MESSAGE_TOO_LARGE;
    if (raw_headers.len)
        memcpy(p, raw_headers.data, raw_headers.len);
    return ERR_NONE;
}

err batch_builder_add_at(struct batch_builder *b, i32 offset_delta, i64 timestamp, struct bytes key,
                         struct bytes value, const struct header *headers, u32 header_count)
{
    CHECK(header_count <= INT32_MAX);
    u8 *p = builder_put_record(b, offset_delta, timestamp, key, value,
                               headers_bytes(headers, header_count), (i32)header_count);
    if (!p)
        return ERR_MESSAGE_TOO_LARGE;
    for (u32 i = 0; i < header_count; i++) {
        CHECK(headers[i].key.data != NULL);
        p = put_field(p, headers[i].key);
        p = put_field(p, headers[i].value);
    }
    return ERR_NONE;
}

err batch_builder_add(struct batch_builder *b, i64 timestamp, struct bytes key, struct bytes value,
                      const struct header *headers, u32 header_count)
{
    CHECK(b->last_offset_delta < INT32_MAX);
    return batch_builder_add_at(b, b->last_offset_delta + 1, timestamp, key, value, headers,
                                header_count);
}

/* ---- rewriting ---- */

void batch_builder_like(struct batch_builder *b, const struct batch *from)
{
    CHECK(b->record_count == 0);
    b->base_offset = from->base_offset;
    b->producer_id = from->producer_id;
    b->leader_epoch = from->leader_epoch;
    b->base_sequence = from->base_sequence;
    b->producer_epoch = from->producer_epoch;
    b->flags = (i16)(from->attributes & ~(BATCH_ATTR_CODEC | BATCH_ATTR_DELETE_HORIZON));
    b->codec = batch_codec(from);
}

err batch_builder_keep(struct batch_builder *b, const struct record *r)
{
    return batch_builder_put(b, r->offset_delta, r->timestamp, r->key, r->value, r->headers,
                             r->header_count);
}

void batch_builder_end_at(struct batch_builder *b, i32 last_offset_delta)
{
    CHECK(last_offset_delta >= b->last_offset_delta);
    b->last_offset_delta = last_offset_delta;
}

void batch_builder_set_horizon(struct batch_builder *b, i64 ms)
{
    CHECK(b->record_count == 0);
    b->flags |= BATCH_ATTR_DELETE_HORIZON;
    b->base_timestamp = ms;
}

/* ---- finishing ---- */

static err builder_pack(struct batch_builder *b, struct compressor *c, struct bytes *out)
{
    struct bytes packed;
    struct bytes plain = bytes_of(b->data + BATCH_HEADER_BYTES, b->used_bytes - BATCH_HEADER_BYTES);
    CHECK(c != NULL);
    err e = compress_encode(c, b->codec, b->level, plain, &packed);
    if (e)
        return e;
    if (packed.len > (u32)INT32_MAX - BATCH_HEADER_BYTES)
        return ERR_MESSAGE_TOO_LARGE;
    u32 bytes = BATCH_HEADER_BYTES + packed.len;
    if (bytes > b->packed_room_bytes) {
        b->packed = mem_realloc(b->packed, bytes);
        b->packed_room_bytes = bytes;
    }
    memcpy(b->packed + BATCH_HEADER_BYTES, packed.data, packed.len);
    *out = bytes_of(b->packed, bytes);
    return ERR_NONE;
}

err batch_builder_finish(struct batch_builder *b, struct compressor *c, struct bytes *out)
{
    CHECK((b->flags & BATCH_ATTR_CODEC) == 0);
    /* An empty batch holds nothing to compress. */
    enum codec codec = b->record_count ? b->codec : CODEC_NONE;
    CHECK(builder_reserve(b, 0)); /* an empty builder has no buffer yet */
    *out = bytes_of(b->data, b->used_bytes);
    if (codec != CODEC_NONE) {
        err e = builder_pack(b, c, out);
        if (e)
            return e;
    }
    struct batch fields = {
        .base_offset = b->base_offset,
        .base_timestamp = b->base_timestamp,
        .max_timestamp = b->max_timestamp,
        .producer_id = b->producer_id,
        .leader_epoch = b->leader_epoch,
        .last_offset_delta = MAX(b->last_offset_delta, 0),
        .base_sequence = b->base_sequence,
        .record_count = b->record_count,
        .producer_epoch = b->producer_epoch,
        .attributes = (i16)(b->flags | (i16)codec),
    };
    batch_seal(codec == CODEC_NONE ? b->data : b->packed, out->len, &fields);
    return ERR_NONE;
}

/* ---- control records ----
 *
 * key: i16 version 0, i16 type (0 abort, 1 commit); value: i16 version 0, i32 coordinator epoch.
 */

#define MARKER_RECORD_BYTES 17

void batch_build_marker(u8 *out, bool commit, i64 base_offset, i32 leader_epoch, i64 producer_id,
                        i16 producer_epoch, i32 coordinator_epoch, i64 timestamp)
{
    _Static_assert(BATCH_MARKER_BYTES == BATCH_HEADER_BYTES + MARKER_RECORD_BYTES, "marker size");
    u8 *p = varint_put_i32(out + BATCH_HEADER_BYTES, MARKER_RECORD_BYTES - 1);
    memset(p, 0, 3); /* attributes, timestamp delta, offset delta */
    p = varint_put_i32(p + 3, 4);
    put_be16(p, 0);
    put_be16(p + 2, commit ? 1 : 0);
    p = varint_put_i32(p + 4, 6);
    put_be16(p, 0);
    put_be32(p + 2, (u32)coordinator_epoch);
    p = varint_put_i32(p + 6, 0); /* headers */
    CHECK(p == out + BATCH_MARKER_BYTES);
    struct batch fields = {
        .base_offset = base_offset,
        .base_timestamp = timestamp,
        .max_timestamp = timestamp,
        .producer_id = producer_id,
        .leader_epoch = leader_epoch,
        .base_sequence = BATCH_NO_SEQUENCE,
        .record_count = 1,
        .producer_epoch = producer_epoch,
        .attributes = BATCH_ATTR_CONTROL | BATCH_ATTR_TRANSACTIONAL,
    };
    batch_seal(out, BATCH_MARKER_BYTES, &fields);
}

err batch_parse_marker(const struct batch *b, bool *commit, i32 *coordinator_epoch)
{
    struct record_iter it;
    struct record r;
    if (!batch_is_control(b) || b->record_count != 1 || batch_codec_bits(b) != CODEC_NONE)
        return ERR_INVALID_RECORD;
    record_iter_init(&it, b, batch_payload(b));
    err e = record_next(&it, &r);
    if (e)
        return e;
    /* Newer versions only append fields. */
    if (r.key.len < 4 || r.value.len < 6)
        return ERR_INVALID_RECORD;
    u16 type = get_be16(r.key.data + 2);
    if ((i16)get_be16(r.key.data) < 0 || (i16)get_be16(r.value.data) < 0 || type > 1)
        return ERR_INVALID_RECORD;
    *commit = type == 1;
    *coordinator_epoch = (i32)get_be32(r.value.data + 2);
    return ERR_NONE;
}
