/* Encoding and verification of superblocks and frames: wal_format.h, docs/formats/wal.md. */
#include "wal_format.h"

#include "batch.h"
#include "check.h"
#include "crc32c.h"
#include "hash.h"
#include "plant.h"

enum super_field {
    SUPER_AT_MAGIC = 0, /* 8 bytes */
    SUPER_AT_VERSION = 8,
    SUPER_AT_SLOT_COUNT = 12,
    SUPER_AT_SEGMENT_BYTES = 16,
    SUPER_AT_SHARD = 20,
    SUPER_AT_UUID = 24,
    SUPER_AT_CLUSTER_ID = 40,
    SUPER_AT_ZERO = 56, /* 16 bytes */
    SUPER_AT_HASH = 72, /* XXH3-64 of the 72 bytes before */
};
_Static_assert(SUPER_AT_HASH + 8 == WAL_SUPER_USED_BYTES, "superblock layout");
_Static_assert(FRAME_AT_WAL_TAG + 4 == FRAME_BYTES, "frame layout");

static const u8 super_magic[8] = { 'L', 'E', 'A', 'T', 'W', 'A', 'L', '\n' };

void wal_super_encode(const struct wal_super *s, u8 out[WAL_SUPER_BYTES])
{
    memset(out, 0, WAL_SUPER_BYTES);
    memcpy(out + SUPER_AT_MAGIC, super_magic, sizeof super_magic);
    put_le32(out + SUPER_AT_VERSION, s->version);
    put_le32(out + SUPER_AT_SLOT_COUNT, s->slot_count);
    put_le32(out + SUPER_AT_SEGMENT_BYTES, s->segment_bytes);
    put_le32(out + SUPER_AT_SHARD, s->shard);
    memcpy(out + SUPER_AT_UUID, s->uuid.b, 16);
    memcpy(out + SUPER_AT_CLUSTER_ID, s->cluster_id.b, 16);
    put_le64(out + SUPER_AT_HASH, hash_bytes(out, SUPER_AT_HASH));
}

err wal_super_decode(const u8 in[WAL_SUPER_BYTES], struct wal_super *out)
{
    if (memcmp(in, super_magic, sizeof super_magic) != 0)
        return ERR_MALFORMED;
    struct wal_super s = {
        .version = get_le32(in + SUPER_AT_VERSION),
        .slot_count = get_le32(in + SUPER_AT_SLOT_COUNT),
        .segment_bytes = get_le32(in + SUPER_AT_SEGMENT_BYTES),
        .shard = get_le32(in + SUPER_AT_SHARD),
    };
    memcpy(s.uuid.b, in + SUPER_AT_UUID, 16);
    memcpy(s.cluster_id.b, in + SUPER_AT_CLUSTER_ID, 16);
    if (get_le64(in + SUPER_AT_HASH) != hash_bytes(in, SUPER_AT_HASH))
        return ERR_CORRUPT;
    if (s.version != WAL_FORMAT_VERSION)
        return ERR_UNSUPPORTED;
    if (s.slot_count == 0 || s.segment_bytes == 0 || s.segment_bytes % WAL_BLOCK_BYTES != 0 ||
        s.segment_bytes > GIB)
        return ERR_CORRUPT;
    *out = s;
    return ERR_NONE;
}

/* The header, and in FRAME_BATCH what is skipped and the batch's header, which holds the CRC of its
 * records (docs/decisions/0003-frame-checksum.md). */
static u64 frame_hash(const u8 *p, const struct frame *f)
{
    u32 end = f->kind == FRAME_BATCH ? frame_payload_at(f) + BATCH_HEADER_BYTES : FRAME_BYTES;
    return hash_bytes(p + FRAME_AT_MAGIC, end - FRAME_AT_MAGIC);
}

void frame_encode(u8 *p, const struct frame *f)
{
    CHECK(f->lsn % WAL_ALIGN == 0);
    CHECK(f->skip <= FRAME_SKIP_MAX && (f->skip == 0 || f->kind == FRAME_BATCH));
    put_le32(p + FRAME_AT_MAGIC, FRAME_MAGIC);
    p[FRAME_AT_VERSION] = FRAME_VERSION;
    p[FRAME_AT_KIND] = (u8)f->kind;
    put_le16(p + FRAME_AT_SKIP, (u16)f->skip);
    put_le32(p + FRAME_AT_EPOCH, f->epoch);
    put_le32(p + FRAME_AT_PAYLOAD_BYTES, f->payload_bytes);
    put_le64(p + FRAME_AT_LSN, f->lsn);
    put_le64(p + FRAME_AT_DURABLE_LSN, f->durable_lsn);
    memcpy(p + FRAME_AT_TOPIC_ID, f->key.topic_id.b, 16);
    put_le32(p + FRAME_AT_PARTITION, f->key.partition);
    put_le32(p + FRAME_AT_WAL_TAG, f->wal_tag);
    put_le64(p + FRAME_AT_HASH, frame_hash(p, f));
}

/* What must hold before the hash may be computed. */
static err frame_check_shape(const u8 *p, u64 room, const struct frame *f)
{
    if (p[FRAME_AT_VERSION] != FRAME_VERSION || f->skip > FRAME_SKIP_MAX)
        return ERR_CORRUPT;
    if ((u64)f->skip + f->payload_bytes > room - FRAME_BYTES || f->lsn % WAL_ALIGN != 0 ||
        f->durable_lsn > f->lsn)
        return ERR_CORRUPT;
    switch (f->kind) {
    case FRAME_BATCH:
        return f->payload_bytes >= BATCH_HEADER_BYTES ? ERR_NONE : ERR_CORRUPT;
    case FRAME_PAD:
        return f->payload_bytes % WAL_ALIGN == 0 && f->skip == 0 ? ERR_NONE : ERR_CORRUPT;
    case FRAME_MARK:
        return f->payload_bytes == 0 && f->skip == 0 ? ERR_NONE : ERR_CORRUPT;
    default:
        return ERR_CORRUPT;
    }
}

static err frame_check_batch(const u8 *batch, u32 bytes)
{
    u32 crc = crc32c(0, batch + BATCH_AT_ATTRIBUTES, bytes - BATCH_AT_ATTRIBUTES);
    if (batch_raw_bytes(batch) != bytes || get_be32(batch + BATCH_AT_CRC) != crc)
        return ERR_CORRUPT;
    return ERR_NONE;
}

err frame_decode(const u8 *p, u64 room, struct frame *out)
{
    if (room < FRAME_BYTES || get_le32(p + FRAME_AT_MAGIC) != FRAME_MAGIC)
        return ERR_NOT_FOUND;
    struct frame f = {
        .kind = (enum frame_kind)p[FRAME_AT_KIND],
        .epoch = get_le32(p + FRAME_AT_EPOCH),
        .payload_bytes = get_le32(p + FRAME_AT_PAYLOAD_BYTES),
        .skip = get_le16(p + FRAME_AT_SKIP),
        .wal_tag = get_le32(p + FRAME_AT_WAL_TAG),
        .lsn = get_le64(p + FRAME_AT_LSN),
        .durable_lsn = get_le64(p + FRAME_AT_DURABLE_LSN),
        .key.partition = get_le32(p + FRAME_AT_PARTITION),
    };
    memcpy(f.key.topic_id.b, p + FRAME_AT_TOPIC_ID, 16);
    err e = frame_check_shape(p, room, &f);
    if (e != ERR_NONE)
        return e;
    if (get_le64(p + FRAME_AT_HASH) != frame_hash(p, &f))
        return ERR_CORRUPT;
    if (f.kind == FRAME_BATCH)
        e = frame_check_batch(p + frame_payload_at(&f), f.payload_bytes);
    if (e != ERR_NONE)
        return e;
    *out = f;
    return ERR_NONE;
}

const char *frame_kind_name(enum frame_kind k)
{
    switch (k) {
    case FRAME_BATCH:
        return "batch";
    case FRAME_PAD:
        return "pad";
    case FRAME_MARK:
        return "mark";
    }
    return "?";
}

void wal_cursor_init(struct wal_cursor *c, const u8 *bytes, u32 segment_bytes, u64 base, u32 limit,
                     u32 tag, u32 epoch)
{
    CHECK(limit <= segment_bytes);
    *c = (struct wal_cursor){ bytes, base, segment_bytes, limit, 0, tag, epoch, false };
}

/* Where a flush ended with less than a header's room in its block, the rest of the block is zero.
 * */
static bool cursor_skip_zeros(struct wal_cursor *c)
{
    u32 rest = (u32)(align_up(c->at + 1, WAL_BLOCK_BYTES) - c->at);
    if (rest >= FRAME_BYTES || c->at + rest > c->segment_bytes)
        return false;
    for (u32 i = 0; i < rest; i++)
        if (c->bytes[c->at + i] != 0)
            return false;
    c->at += rest;
    return true;
}

bool wal_cursor_next(struct wal_cursor *c, struct frame *out)
{
    while (c->at < c->limit + (PLANTED(PLANT_CURSOR_LIMIT) ? FRAME_BYTES : 0)) {
        struct frame f;
        err e = frame_decode(c->bytes + c->at, c->segment_bytes - c->at, &f);
        if (e != ERR_NONE) {
            if (cursor_skip_zeros(c))
                continue;
            c->bad = true;
            return false;
        }
        u64 end = c->at + frame_total_bytes(&f);
        bool ours = f.wal_tag == c->tag && f.epoch == c->epoch && f.lsn == c->base + c->at;
        if (!ours || end > c->segment_bytes ||
            (f.kind == FRAME_PAD && end % WAL_BLOCK_BYTES != 0)) {
            c->bad = true;
            return false;
        }
        c->at = (u32)end;
        *out = f;
        return true;
    }
    return false;
}
