/* The way in: one pass over the batch's bytes, from the request into the segment image. */
#include "batch.h"
#include "bundle_int.h"

/* What the append would have said after a longer wait is decided by wal_room. */
static err append_admit(struct storage *st, const struct batch *b)
{
    const struct wal *w = &st->wal;
    if (w->failed != ERR_NONE)
        return w->failed;
    if (st->stopping)
        return ERR_CANCELED;
    if (align_up((u64)FRAME_BYTES + b->bytes, WAL_ALIGN) > w->segment_bytes)
        return ERR_RECORD_LIST_TOO_LARGE;
    return ERR_NONE;
}

/* Room in the segment that a frame may need: any skip, if it has one. */
static u64 append_room(const struct wal *w, u32 bytes)
{
    u64 plain = align_up((u64)FRAME_BYTES + bytes, WAL_ALIGN);
    u64 placed = align_up((u64)FRAME_BYTES + FRAME_SKIP_MAX + bytes, WAL_ALIGN);
    return bytes >= BUNDLE_LARGE_BATCH && placed <= w->segment_bytes ? placed : plain;
}

/* What the frame skips, so that a large batch lies in its sectors as it will in its bundle
 * (bundle_int.h). *fill = the bundle's block with it. */
static u32 append_skip(const struct storage *st, const struct pindex *p, u32 bytes,
                       struct bundle_fill *fill)
{
    const struct wal *w = &st->wal;
    u32 at;
    *fill = p->last_seq == (i64)w->open->seq ? p->fill : (struct bundle_fill){ 0 };
    (void)bundle_fill_add(fill, bytes, (u32)config_u64(st->shard->cfg, CFG_store_block_bytes), &at);
    if (bytes < BUNDLE_LARGE_BATCH || !fill->aligned ||
        append_room(w, bytes) < (u64)FRAME_BYTES + FRAME_SKIP_MAX + bytes)
        return 0;
    return (at - (u32)(w->appended + FRAME_BYTES)) % BUNDLE_SECTOR_BYTES;
}

static void append_frame(struct storage *st, struct pindex *p, u8 *at, u32 bytes, u32 skip)
{
    struct wal *w = &st->wal;
    struct frame f = {
        .kind = FRAME_BATCH,
        .epoch = w->epoch,
        .payload_bytes = bytes,
        .skip = skip,
        .wal_tag = w->tag,
        .lsn = w->appended,
        .durable_lsn = wal_told(w),
        .key = p->key,
    };
    memset(at + FRAME_BYTES, 0, skip);
    frame_encode(at, &f);
    u64 total = frame_total_bytes(&f);
    u32 used = frame_payload_at(&f) + bytes;
    memset(at + used, 0, total - used);
    w->marked = f.durable_lsn;
    w->data_end = w->appended + total;
    wal_appended(st, w->appended + total);
}

err storage_append(struct pindex *p, const struct batch *batch, i32 leader_epoch, bool check_crc,
                   i64 log_append_ms, struct append *a, append_done done)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    struct storage *st = p->st;
    struct wal *w = &st->wal;
    CHECK(!p->dropped && batch->last_offset_delta >= 0 && batch->bytes >= BATCH_HEADER_BYTES);
    err e = append_admit(st, batch);
    if (e == ERR_NONE && !index_room(st))
        e = ERR_BUSY;
    if (e == ERR_NONE)
        e = wal_room(st, append_room(w, batch->bytes));
    if (e != ERR_NONE)
        return e;

    struct segment *seg = w->open;
    u8 *at = seg->image->bytes + seg->used;
    struct bundle_fill fill;
    u32 skip = append_skip(st, p, batch->bytes, &fill);
    u8 *copy = at + FRAME_BYTES + skip;
    /* Until `appended` moves, nothing in the image counts: a bad CRC leaves no trace. */
    if (check_crc)
        e = batch_copy_check_crc(copy, batch);
    else
        memcpy(copy, batch->data, batch->bytes);
    if (e != ERR_NONE)
        return e;
    /* The frame relies on it: docs/decisions/0003-frame-checksum.md. */
    DCHECK(check_crc || batch_check_crc(batch) == ERR_NONE);
    i64 max_timestamp = batch->max_timestamp;
    if (log_append_ms >= 0) {
        batch_patch_timestamps(copy, true, log_append_ms);
        max_timestamp = log_append_ms;
    }
    batch_patch(copy, p->next_offset, leader_epoch);

    a->p = p;
    a->done = done;
    a->err = ERR_NONE;
    a->began_ns = st->shard->now_ns;
    a->base_offset = p->next_offset;
    a->last_offset = p->next_offset + batch->last_offset_delta;
    segment_add_part(seg, p);
    p->fill = fill;
    struct entry entry = entry_make(a->base_offset, (u32)batch->last_offset_delta, max_timestamp,
                                    w->appended, skip, batch->bytes);
    pindex_add_entry(p, &entry);
    seg->data_bytes += batch->bytes;
    seg->batch_count++;
    append_frame(st, p, at, batch->bytes, skip);
    a->lsn_end = w->appended;
    pindex_hold(p);
    list_push_back(&w->pending, &a->link);
    if (p->object)
        batch_appended(st, seg);
    return ERR_NONE;
}
