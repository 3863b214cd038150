/* The bytes of a WAL file: superblock, frames. All integers little-endian; docs/formats/wal.md
 * is the same for people. Pure functions over memory; every reader survives any input.
 *
 * A WAL file is a superblock area of 4 KiB and then `slot_count` slots of `segment_bytes` each:
 * a ring. LSN = position in the infinite log, segment = lsn / segment_bytes, which lies in slot
 * segment % slot_count. Frames start at multiples of 8 and never cross a segment.
 */
#ifndef LEAT_WAL_FORMAT_H
#define LEAT_WAL_FORMAT_H

#include "bytes.h"
#include "err.h"
#include "storage.h"

#define WAL_BLOCK_BYTES 4096u /* unit of writes; a block with acknowledged data is written once */
#define WAL_SUPER_BYTES 4096u
#define WAL_SUPER_USED_BYTES 80u
#define WAL_FORMAT_VERSION 1u
#define WAL_ALIGN 8u

#define FRAME_BYTES 64u         /* of the header; skip, then the payload follow */
#define FRAME_SKIP_MAX 511u     /* so that a payload may begin at any position in a sector */
#define FRAME_MAGIC 0x4d52464cu /* "LFRM" */
#define FRAME_VERSION 1u

enum frame_kind {
    FRAME_BATCH = 1, /* payload: one record batch as it is served */
    FRAME_PAD = 2,   /* nothing; payload_bytes are skipped, not written, not hashed */
    FRAME_MARK = 3,  /* nothing; says durable_lsn when the log is idle */
};

enum frame_field {
    FRAME_AT_HASH =
        0, /* XXH3-64 of the rest of the header and, in FRAME_BATCH, of the batch's header */
    FRAME_AT_MAGIC = 8,
    FRAME_AT_VERSION = 12,
    FRAME_AT_KIND = 13,
    FRAME_AT_SKIP = 14, /* u16 */
    FRAME_AT_EPOCH = 16,
    FRAME_AT_PAYLOAD_BYTES = 20,
    FRAME_AT_LSN = 24,
    FRAME_AT_DURABLE_LSN = 32,
    FRAME_AT_TOPIC_ID = 40,
    FRAME_AT_PARTITION = 56,
    FRAME_AT_WAL_TAG = 60,
};

struct frame {
    enum frame_kind kind;
    u32 epoch;
    u32 payload_bytes;
    u32 skip;        /* bytes between header and payload, zeros; FRAME_BATCH only, else 0 */
    u32 wal_tag;     /* first 4 bytes of the WAL's uuid: frames of an earlier file never verify */
    u64 lsn;         /* of the header's first byte */
    u64 durable_lsn; /* everything below was durable when the frame was made */
    struct partition_key key; /* FRAME_BATCH; else zero */
};

struct wal_super {
    u32 version;
    u32 slot_count;
    u32 segment_bytes;
    u32 shard; /* its number when the file was made */
    struct uuid uuid;
    struct uuid cluster_id;
};

void wal_super_encode(const struct wal_super *s, u8 out[WAL_SUPER_BYTES]);
/* ERR_MALFORMED: not a WAL file. ERR_UNSUPPORTED: another version. ERR_CORRUPT: checksum or
 * impossible numbers. */
err wal_super_decode(const u8 in[WAL_SUPER_BYTES], struct wal_super *out) MUST_USE;

/* Writes the header at p; for FRAME_BATCH the payload already lies at its place. The records are
 * covered by the batch's own CRC-32C, which must be right: it lies in the hashed header. */
void frame_encode(u8 *p, const struct frame *f);
/* Reads and verifies the frame at p with `room` bytes up to the end of its segment. When hash, CRC
 * and structure hold: ERR_NONE. ERR_NOT_FOUND: no frame magic. ERR_CORRUPT: anything else.
 * Positions and epochs are the caller's to compare. */
err frame_decode(const u8 *p, u64 room, struct frame *out) MUST_USE;
/* From the header to the payload. */
static inline u32 frame_payload_at(const struct frame *f)
{
    return FRAME_BYTES + f->skip;
}
/* Bytes from the header to where the next frame may start. */
static inline u64 frame_total_bytes(const struct frame *f)
{
    return align_up((u64)FRAME_BYTES + f->skip + f->payload_bytes, WAL_ALIGN);
}

/* Walks the frames of one segment in order, over its bytes in memory. Survives any bytes. */
struct wal_cursor {
    const u8 *bytes;
    u64 base;          /* lsn of bytes[0] */
    u32 segment_bytes; /* where the segment ends */
    u32 limit;         /* frames at or behind this offset are not looked at */
    u32 at;            /* offset of the next frame */
    u32 tag, epoch;    /* what frames must carry */
    bool bad;          /* stopped at `at`, which holds no valid frame */
};
void wal_cursor_init(struct wal_cursor *c, const u8 *bytes, u32 segment_bytes, u64 base, u32 limit,
                     u32 tag, u32 epoch);
/* The next frame of any kind, verified, at bytes + (out->lsn - base). false: the limit is reached
 * or the bytes at c->at are no frame of this log (c->bad). */
bool wal_cursor_next(struct wal_cursor *c, struct frame *out);

const char *frame_kind_name(enum frame_kind k);

#endif
