#include "repair.h"

#include "../../storage/backup_format.h"
#include "../../storage/bundle_int.h"
#include "../../storage/wal_format.h"
#include "batch.h"
#include "crc32c.h"
#include "hash.h"

void repair_batches(u8 *p, u32 len)
{
    for (u32 at = 0; len - at >= BATCH_HEADER_BYTES;) {
        u64 bytes = (u64)get_be32(p + at + BATCH_AT_LENGTH) + BATCH_PREFIX_BYTES;
        if (bytes < BATCH_HEADER_BYTES || bytes > len - at)
            return;
        put_be32(p + at + BATCH_AT_CRC,
                 crc32c(0, p + at + BATCH_AT_ATTRIBUTES, (u32)bytes - BATCH_AT_ATTRIBUTES));
        at += (u32)bytes;
    }
}

void repair_block(u8 *p, u32 len)
{
    u64 hash;
    if (len < BUNDLE_BLOCK_HEADER_BYTES)
        return;
    repair_batches(p + BUNDLE_BLOCK_HEADER_BYTES, len - BUNDLE_BLOCK_HEADER_BYTES);
    if (bundle_block_hash(bytes_of(p, len), &hash))
        put_le64(p + 72, hash);
}

void repair_bundle(u8 *p, u32 len)
{
    struct bundle_footer f;
    if (len < BUNDLE_FOOTER_BYTES)
        return;
    u8 *footer = p + len - BUNDLE_FOOTER_BYTES;
    put_le64(footer, BUNDLE_MAGIC);
    put_le32(footer + 8, BUNDLE_FORMAT_VERSION);
    u64 pos = get_le64(footer + 16), bytes = (u64)get_le32(footer + 12) * BUNDLE_ENTRY_BYTES;
    if (pos < len && bytes <= len - pos)
        put_le64(footer + 32, hash_bytes(p + pos, bytes));
    put_le64(footer + 56, hash_bytes(footer, 56));
    if (bundle_footer_decode(bytes_of(footer, BUNDLE_FOOTER_BYTES), len, &f) != ERR_NONE)
        return;
    struct bytes index = bytes_of(p + f.index_pos, f.entry_count * BUNDLE_ENTRY_BYTES);
    if (bundle_index_check(index, &f) != ERR_NONE)
        return;
    for (u32 i = 0; i < f.entry_count; i++) {
        struct bundle_entry e;
        bundle_index_entry(index, i, &e);
        repair_block(p + e.pos, bundle_block_bytes(&e));
    }
}

void repair_registration(u8 *p, u32 len)
{
    if (len < BUNDLE_REG_HEAD_BYTES)
        return;
    put_le64(p + 32, 0);
    put_le64(p + 32, hash_bytes(p, len));
}

void repair_backup(u8 *p, u32 len)
{
    if (len < BACKUP_HEAD_BYTES)
        return;
    put_le64(p, BACKUP_MAGIC);
    put_le64(p + 56, 0);
    put_le64(p + 56, hash_bytes(p, len));
}

void repair_super(u8 *p, u32 len)
{
    if (len >= WAL_SUPER_BYTES)
        put_le64(p + 72, hash_bytes(p, 72));
}

void repair_frame(u8 *p, u64 room)
{
    u32 payload = room < FRAME_BYTES ? UINT32_MAX : get_le32(p + FRAME_AT_PAYLOAD_BYTES);
    if (payload > room - FRAME_BYTES)
        return;
    u32 kind = p[FRAME_AT_KIND];
    if (kind == FRAME_BATCH && payload < BATCH_HEADER_BYTES)
        return;
    if (kind == FRAME_BATCH)
        repair_batches(p + FRAME_BYTES, payload);
    u32 hashed = kind == FRAME_BATCH ? FRAME_BYTES + BATCH_HEADER_BYTES : FRAME_BYTES;
    put_le64(p + FRAME_AT_HASH, hash_bytes(p + FRAME_AT_MAGIC, hashed - FRAME_AT_MAGIC));
}
