/* The way in: one pass over the batch's bytes, from the request into the segment image. */
#include "batch.h"
#include "storage_int.h"

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

static void append_frame(struct storage *st, struct pindex *p, u8 *at, u32 bytes)
{
    struct wal *w = &st->wal;
    struct frame f = {
        .kind = FRAME_BATCH,
        .epoch = w->epoch,
        .payload_bytes = bytes,
        .wal_tag = w->tag,
        .lsn = w->appended,
        .durable_lsn = wal_told(w),
        .key = p->key,
    };
    frame_encode(at, &f);
    u64 total = frame_total_bytes(&f);
    memset(at + FRAME_BYTES + bytes, 0, total - FRAME_BYTES - bytes);
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
    if (e == ERR_NONE)
        e = wal_room(st, align_up((u64)FRAME_BYTES + batch->bytes, WAL_ALIGN));
    if (e != ERR_NONE)
        return e;

    struct segment *seg = w->open;
    u8 *at = seg->image->bytes + seg->used;
    u8 *copy = at + FRAME_BYTES;
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
    a->base_offset = p->next_offset;
    a->last_offset = p->next_offset + batch->last_offset_delta;
    segment_add_part(seg, p);
    struct entry entry = { a->base_offset, max_timestamp, w->appended + FRAME_BYTES, batch->bytes,
                           (u32)batch->last_offset_delta };
    pindex_add_entry(p, &entry);
    seg->data_bytes += batch->bytes;
    append_frame(st, p, at, batch->bytes);
    a->lsn_end = w->appended;
    pindex_hold(p);
    list_push_back(&w->pending, &a->link);
    return ERR_NONE;
}
