/* The WAL's readers on any bytes: superblock, frames, the walk of a segment, what leat-show prints.
 * Byte 0 chooses: bit 0 = take the bytes as a superblock; bit 1 = first make the hash right of
 * whatever has a frame's magic, or nothing would get past it. The walk must end at the limit or
 * say bad, never leave the segment, and give only frames that stand where they say. */
#include <stdlib.h>

#include "batch.h"
#include "check.h"
#include "crc32c.h"
#include "hash.h"
#include "../../storage/show_int.h"
#include "../../storage/wal_format.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define SEGMENT ((u32)(64 * KIB))
#define TAG 0x01020304u
#define EPOCH 7u

/* Makes magic, version, tag, epoch and hash right at every 8 bytes where `data` put a kind. */
static void repair(u8 *bytes, u64 base)
{
    u32 at = 0;
    while (at + FRAME_BYTES <= SEGMENT) {
        u8 *p = bytes + at;
        u32 kind = p[FRAME_AT_KIND] % 4u;
        u32 payload = get_le32(p + FRAME_AT_PAYLOAD_BYTES) % 5000u;
        if (kind == 0)
            return;
        if (kind == FRAME_MARK)
            payload = 0;
        if (kind == FRAME_PAD)
            payload &= ~7u;
        u32 skip = kind == FRAME_BATCH ? get_le16(p + FRAME_AT_SKIP) % (FRAME_SKIP_MAX + 1) : 0;
        if (p[FRAME_AT_SKIP] & 1) /* sometimes to the end of the block */
            payload = (u32)(align_up(at + FRAME_BYTES, WAL_BLOCK_BYTES) - at - FRAME_BYTES);
        if (at + FRAME_BYTES + skip + payload > SEGMENT)
            return;
        struct frame f = { .kind = (enum frame_kind)kind,
                           .epoch = EPOCH,
                           .payload_bytes = payload,
                           .skip = skip,
                           .wal_tag = TAG,
                           .lsn = base + at,
                           .durable_lsn = MIN(get_le64(p + FRAME_AT_DURABLE_LSN), base + at) };
        if (kind == FRAME_BATCH) {
            if (payload < BATCH_HEADER_BYTES)
                return;
            u8 *b = p + frame_payload_at(&f);
            put_be32(b + BATCH_AT_LENGTH, payload - BATCH_PREFIX_BYTES);
            put_be32(b + BATCH_AT_CRC,
                     crc32c(0, b + BATCH_AT_ATTRIBUTES, payload - BATCH_AT_ATTRIBUTES));
        }
        frame_encode(p, &f);
        at += (u32)frame_total_bytes(&f);
    }
}

static void walk(const u8 *bytes, u32 limit, u64 base)
{
    struct wal_cursor c;
    struct frame f;
    u64 next = base;
    wal_cursor_init(&c, bytes, SEGMENT, base, limit, TAG, EPOCH);
    while (wal_cursor_next(&c, &f)) {
        CHECK(f.lsn >= next && f.lsn < base + limit);
        CHECK(f.epoch == EPOCH && f.wal_tag == TAG);
        CHECK(f.lsn + frame_total_bytes(&f) <= base + SEGMENT);
        next = f.lsn + frame_total_bytes(&f);
        struct batch b;
        const u8 *payload = bytes + (f.lsn - base) + frame_payload_at(&f);
        if (f.kind == FRAME_BATCH)
            (void)!batch_parse(bytes_of(payload, f.payload_bytes), &b);
    }
    CHECK(c.bad ? c.at < limit : c.at >= limit);
    CHECK(c.at <= SEGMENT);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size < 2)
        return 0;
    u8 how = data[0];
    data++, size--;
    if (how & 1) {
        u8 block[WAL_SUPER_BYTES] = { 0 };
        struct wal_super s;
        memcpy(block, data, MIN(size, sizeof block));
        if (how & 2)
            put_le64(block + 72, hash_bytes(block, 72));
        if (wal_super_decode(block, &s) == ERR_NONE) {
            u8 again[WAL_SUPER_BYTES];
            struct wal_super t;
            wal_super_encode(&s, again);
            CHECK(wal_super_decode(again, &t) == ERR_NONE && uuid_eq(s.uuid, t.uuid));
        }
        return 0;
    }
    /* Exactly the segment on the heap, so that the sanitizer sees one byte too far. */
    u8 *bytes = mem_alloc(SEGMENT);
    memcpy(bytes, data, MIN(size, (size_t)SEGMENT));
    u64 base = (u64)SEGMENT * 5;
    if (how & 2)
        repair(bytes, base);
    walk(bytes, SEGMENT, base);
    walk(bytes, (u32)(how >> 2) * 1000u, base);
    struct wal_super s = { WAL_FORMAT_VERSION, 8, SEGMENT, 0, { { 4, 3, 2, 1 } }, { { 0 } } };
    FILE *null = fopen("/dev/null", "w");
    (void)show_wal_slot(null, &s, 5, bytes, true);
    fclose(null);
    mem_free(bytes);
    return 0;
}
