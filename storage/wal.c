/* The write-ahead log of a shard while it runs: group commit, the durable watermark, sealing,
 * marks, failure, trimming. Recovery is in wal_recover.c, bytes in wal_format.c.
 *
 *    trimmed ≤ registered ≤ durable ≤ flushed ≤ appended          (lsn, wal_check)
 *                            |        |         |
 *                            |        |         end of the frames in images
 *                            |        end of what was given to the disk (always a whole block)
 *                            end of the unbroken row of completed writes
 *
 * Group commit: a hook at the end of each turn (wal_flush) gives [flushed, appended) to the disk as
 * one durable write when none is in flight; otherwise frames gather until it completes, or until
 * they are worth a further write beside it (at most write_max): flushes cost the disk more than
 * bytes do. A flush that ends inside a block is closed by a PAD frame, and the next frame starts
 * in the next block.
 *
 * Invariants
 *  1. Each block of the file is written at most once per lap of the ring: writes never overlap, so
 *     a torn or failed write can not hurt acknowledged data.
 *  2. Writes lie inside one segment; they complete in any order, durable moves in lsn order.
 *  3. A frame is acknowledged only when durable has reached its end, or later (ack.c).
 *  4. After a failed durable write nothing is appended, acknowledged or written any more: what the
 *     disk holds of it is unknown until the next start reads it.
 *  5. At most UNDURABLE_SEGMENTS segments lie between durable and appended. Recovery relies on it
 *     when it looks behind a bad frame for proof of damage.
 *     Without a file (wal.path=none, every append waits for the store) the image is the log: a
 *     write is done a turn after it was begun, and there is no recovery.
 *  6. A slot is reused only when its segment is registered and no read of it is in flight.
 */
#include <stdio.h>

#include "clock.h"
#include "plant.h"
#include "storage_int.h"

/* After this much silence a MARK frame tells the durable end, so that damage to the last
 * acknowledged frames is provable. A trade of one 4 KiB write against how long a quiet log's last
 * frames can rot unnoticed. */
#define MARK_DELAY_NS (20 * NS_PER_MS)
/* Bytes gathered, for each write in flight, that start one more beside it. */
#define GATHER_BYTES (256 * KIB)

static u64 segment_base(const struct wal *w, const struct segment *seg)
{
    return seg->seq * w->segment_bytes;
}

void wal_check(const struct wal *w)
{
    CHECK(w->durable <= w->flushed);
    CHECK(w->flushed <= w->appended);
    CHECK(w->trimmed_seq <= w->registered_seq || PLANTED(PLANT_TRIM_BEFORE_REGISTER));
    CHECK(w->registered_seq * w->segment_bytes <= w->durable);
    CHECK(w->flushed % WAL_BLOCK_BYTES == 0);
    CHECK(w->next_seq - w->trimmed_seq <= w->slot_count);
}

static void segments_made_durable(struct storage *st)
{
    struct wal *w = &st->wal;
    bool any = false;
    for (u64 seq = w->registered_seq; seq < w->next_seq; seq++) {
        struct segment *seg = segment_find(st, seq);
        if (!seg || segment_base(w, seg) + w->segment_bytes > w->durable)
            break;
        if (seg->state != SEG_SEALED)
            continue;
        segment_set_state(seg, SEG_DURABLE);
        any = true;
    }
    if (any)
        uploader_kick(st);
}

/* ---- durable ---- */

static void mark_fire(struct timer *t);

static void durable_advance(struct storage *st, u64 to)
{
    struct wal *w = &st->wal;
    CHECK(to >= w->durable && to <= w->flushed);
    w->durable = to;
    segments_made_durable(st);
    ack_durable(st);
    if (w->durable == w->appended && w->data_end > w->marked && !st->stopping && !w->memory)
        timer_start(&st->shard->timers, &w->mark_timer, st->shard->now_ns + MARK_DELAY_NS,
                    mark_fire);
    if (!list_empty(&st->room_waiters))
        storage_room_made(st);
}

/* ---- failing ---- */

/* Appends are over for this life. */
static void wal_end(struct storage *st, err e)
{
    struct wal *w = &st->wal;
    w->failed = e;
    timer_stop(&st->shard->timers, &w->mark_timer);
    timer_stop(&st->shard->timers, &w->age_timer);
    ack_failed(st);
    storage_room_made(st);
}

static void wal_fail(struct storage *st, const struct wal_write *wr)
{
    struct wal *w = &st->wal;
    if (w->failed != ERR_NONE)
        return;
    err e = wr->err == ERR_DISK_FULL ? ERR_DISK_FULL : ERR_IO;
    w->failed_lsn = wr->begin;
    LOG(ERROR, wal_failed,
        "shard=%u file=%s offset=%" PRIu64 " bytes=%" PRIu64 " error=%s effect=\"this shard is "
        "read-only: producers get a retriable error, consumers go on\" remedy=\"check the disk "
        "(%s), then restart the node\"",
        st->shard->index, w->path, wal_file_offset(w, wr->begin), wr->end - wr->begin,
        err_name(wr->err),
        e == ERR_DISK_FULL ? "free space on the file system of wal.path" : "kernel log, SMART");
    if (st->shard->metrics)
        metric_add(st->shard->metrics, M_wal_errors, 1);
    wal_end(st, e);
}

void wal_fenced(struct storage *st)
{
    struct wal *w = &st->wal;
    if (w->failed != ERR_NONE)
        return;
    LOG(ERROR, wal_fenced,
        "shard=%u epoch=%u effect=\"this shard acknowledges nothing any more\" remedy=\"another "
        "process has begun with this node's metadata: stop one of the two\"",
        st->shard->index, w->epoch);
    wal_end(st, ERR_FENCED);
}

/* ---- writing ---- */

/* Those that are done, as far as the row is unbroken. */
static void writes_retire(struct storage *st)
{
    struct wal *w = &st->wal;
    u64 to = w->durable;
    while (w->write_count > 0 && w->writes[w->write_head].done) {
        struct wal_write *first = &w->writes[w->write_head];
        first->used = false;
        w->write_head = (w->write_head + 1) % WAL_WRITES_MAX;
        w->write_count--;
        if (w->failed == ERR_NONE)
            to = first->end;
    }
    if (to > w->durable)
        durable_advance(st, to);
    wal_check(w);
}

static void write_done(struct io_op *op)
{
    struct wal_write *wr = container_of(op, struct wal_write, op);
    struct storage *st = wr->st;
    MAGIC_CHECK(st, STORAGE_MAGIC);
    CHECK(wr->used && !wr->done);
    wr->done = true;
    wr->err = op->err;
    u64 took = st->shard->now_ns - wr->started_ns;
    st->wal.sync_ns_total += took;
    if (st->shard->metrics)
        metric_observe(st->shard->metrics, H_wal_write, took / NS_PER_US);
    if (wr->err != ERR_NONE)
        wal_fail(st, wr);
    writes_retire(st);
}

static void write_start(struct storage *st, struct segment *seg, u32 bytes, u64 end)
{
    struct wal *w = &st->wal;
    struct wal_write *wr = &w->writes[(w->write_head + w->write_count) % WAL_WRITES_MAX];
    CHECK(!wr->used && bytes > 0 && bytes % WAL_BLOCK_BYTES == 0);
    CHECK(end % WAL_BLOCK_BYTES == 0 && end >= w->flushed + bytes);
    u32 at = (u32)(w->flushed - segment_base(w, seg));
    CHECK(at + bytes <= w->segment_bytes);
    wr->st = st;
    wr->begin = w->flushed;
    wr->end = end;
    wr->used = true;
    wr->done = false;
    wr->started_ns = st->shard->now_ns;
    w->write_count++;
    w->write_total++;
    u64 offset = wal_file_offset(w, w->flushed);
    w->flushed = end;
    if (w->memory) { /* the image is all there is; told by the next turn, as a disk's would be */
        wr->done = true;
        wr->err = ERR_NONE;
        st->shard->turn_again = true;
        return;
    }
    if (st->shard->metrics) {
        metric_add(st->shard->metrics, M_wal_writes, 1);
        metric_add(st->shard->metrics, M_wal_write_bytes, bytes);
    }
    io_write(st->shard->io, &wr->op, w->fd, seg->image->bytes + at, bytes, offset,
             !PLANTED(PLANT_ACK_BEFORE_FLUSH), write_done);
}

void wal_written(struct storage *st)
{
    if (st->wal.memory && st->wal.write_count > 0)
        writes_retire(st);
}

/* A header-only frame at the end of the open segment's frames. */
static void frame_add(struct storage *st, struct segment *seg, enum frame_kind kind, u32 payload)
{
    struct wal *w = &st->wal;
    struct frame f = {
        .kind = kind,
        .epoch = w->epoch,
        .payload_bytes = payload,
        .wal_tag = w->tag,
        .lsn = segment_base(w, seg) + seg->used,
        .durable_lsn = MIN(wal_told(w), segment_base(w, seg) + seg->used),
    };
    CHECK(seg->used + FRAME_BYTES <= w->segment_bytes);
    frame_encode(seg->image->bytes + seg->used, &f);
    seg->used += FRAME_BYTES;
    w->marked = MAX(w->marked, f.durable_lsn);
}

/* Closes the block in which the frames end: what follows starts in the next one. Returns the
 * padded end inside the segment. */
static u32 pad_block(struct storage *st, struct segment *seg)
{
    u32 end = (u32)align_up(seg->used, WAL_BLOCK_BYTES);
    u32 rest = end - seg->used;
    if (rest == 0)
        return end;
    u32 from = seg->used;
    if (rest >= FRAME_BYTES) {
        frame_add(st, seg, FRAME_PAD, rest - FRAME_BYTES);
        from = seg->used;
    }
    memset(seg->image->bytes + from, 0, end - from);
    if (st->shard->metrics)
        metric_add(st->shard->metrics, M_wal_padding_bytes, rest);
    return end;
}

/* One write of at most write_bytes_max from the segment at `flushed`. */
static void flush_once(struct storage *st)
{
    struct wal *w = &st->wal;
    struct segment *seg = segment_find(st, wal_seq(w, w->flushed));
    CHECK(seg && seg->image);
    u32 at = (u32)(w->flushed - segment_base(w, seg));
    u32 end = (u32)align_up(seg->used, WAL_BLOCK_BYTES);
    CHECK(end > at);
    if (end - at > w->write_bytes_max) {
        write_start(st, seg, w->write_bytes_max, w->flushed + w->write_bytes_max);
        return;
    }
    if (seg->state == SEG_OPEN) {
        end = pad_block(st, seg);
        seg->used = end;
        w->appended = segment_base(w, seg) + end;
        write_start(st, seg, end - at, w->appended);
        return;
    }
    /* The last write of a sealed segment stands for the unused rest of it, too. */
    memset(seg->image->bytes + seg->used, 0, end - seg->used);
    write_start(st, seg, end - at, segment_base(w, seg) + w->segment_bytes);
}

void wal_flush(struct storage *st)
{
    struct wal *w = &st->wal;
    while (w->flushed < w->appended && w->write_count < w->write_max && w->failed == ERR_NONE &&
           (w->write_count == 0 || w->open == NULL ||
            w->appended - w->flushed >= w->write_count * GATHER_BYTES))
        flush_once(st);
}

/* ---- segments of the log ---- */

static void age_fire(struct timer *t);

static bool wal_open_next(struct storage *st)
{
    struct wal *w = &st->wal;
    CHECK(w->open == NULL);
    if (w->next_seq - w->trimmed_seq >= w->slot_count || wal_zero_holds(st, w->next_seq))
        return false;
    struct segment *seg = segment_new(st, w->next_seq, true);
    if (!seg)
        return false;
    CHECK(w->appended == segment_base(w, seg));
    seg->epoch = w->epoch;
    w->open = seg;
    w->next_seq++;
    segments_sweep(st);
    return true;
}

void wal_seal(struct storage *st)
{
    struct wal *w = &st->wal;
    struct segment *seg = w->open;
    if (!seg || seg->used == 0)
        return;
    u32 rest = w->segment_bytes - seg->used;
    if (rest >= FRAME_BYTES) {
        frame_add(st, seg, FRAME_PAD, rest - FRAME_BYTES);
    } else if (rest > 0) {
        memset(seg->image->bytes + seg->used, 0, rest);
        seg->used = w->segment_bytes;
    }
    w->open = NULL;
    w->appended = segment_base(w, seg) + w->segment_bytes;
    segment_set_state(seg, SEG_SEALED);
    st->sealed_unregistered++;
    seg->sealed_ns = st->shard->now_ns;
    list_push_back(&st->sealed_images, &seg->image->link);
    timer_stop(&st->shard->timers, &w->age_timer);
    if (w->failed != ERR_NONE)
        return;
    segment_take_snapshots(st, seg);
    if (st->shard->metrics)
        metric_add(st->shard->metrics, M_seals, 1);
    if (w->flushed == w->appended) { /* every byte is on its way already */
        if (w->durable == w->flushed)
            segments_made_durable(st);
        return;
    }
    if (!st->shard->hooks_ahead)
        st->shard->turn_again = true;
}

err wal_room(struct storage *st, u64 total)
{
    struct wal *w = &st->wal;
    CHECK(w->failed == ERR_NONE && total <= w->segment_bytes);
    /* Invariant 5. An append may close a segment and then fill up to a whole one. */
    if (w->appended + total - w->durable > UNDURABLE_SEGMENTS * (u64)w->segment_bytes)
        return ERR_BUSY;
    if (w->open && w->segment_bytes - w->open->used >= total)
        return ERR_NONE;
    if (w->open) {
        u64 end = segment_base(w, w->open) + w->segment_bytes;
        if (end + total - w->durable > UNDURABLE_SEGMENTS * (u64)w->segment_bytes)
            return ERR_BUSY;
        wal_seal(st);
    }
    st->no_room = !wal_open_next(st);
    if (!st->no_room)
        return ERR_NONE;
    if (st->shard->metrics)
        metric_add(st->shard->metrics, M_wal_full, 1);
    return ERR_BUSY;
}

void wal_appended(struct storage *st, u64 lsn_end)
{
    struct wal *w = &st->wal;
    struct segment *seg = w->open;
    CHECK(lsn_end > w->appended && lsn_end <= segment_base(w, seg) + w->segment_bytes);
    w->append_count++;
    w->append_bytes += lsn_end - w->appended;
    w->appended = lsn_end;
    if (seg->used == 0 || !timer_armed(&w->age_timer)) {
        seg->opened_ns = st->shard->now_ns;
        timer_start(&st->shard->timers, &w->age_timer,
                    seg->opened_ns + config_u64(st->shard->cfg, CFG_wal_seal_age_ms) * NS_PER_MS,
                    age_fire);
    }
    seg->used = (u32)(lsn_end - segment_base(w, seg));
    if (st->shard->metrics)
        metric_add(st->shard->metrics, M_wal_frames, 1);
    if (!st->shard->hooks_ahead)
        st->shard->turn_again = true;
}

/* ---- timers ---- */

static void age_fire(struct timer *t)
{
    struct wal *w = container_of(t, struct wal, age_timer);
    struct storage *st = container_of(w, struct storage, wal);
    if (w->failed == ERR_NONE)
        wal_seal(st);
}

static void mark_fire(struct timer *t)
{
    struct wal *w = container_of(t, struct wal, mark_timer);
    struct storage *st = container_of(w, struct storage, wal);
    struct segment *seg = w->open;
    /* Any frame behind the last acknowledged one says the same. */
    if (w->failed != ERR_NONE || w->durable != w->appended || w->data_end <= w->marked || !seg)
        return;
    if (w->segment_bytes - seg->used < FRAME_BYTES)
        return;
    frame_add(st, seg, FRAME_MARK, 0);
    w->appended += FRAME_BYTES;
    wal_flush(st);
}

void wal_start_timers(struct storage *st)
{
    st->wal.mark_timer = (struct timer){ 0 };
    st->wal.age_timer = (struct timer){ 0 };
}

/* ---- trimming ---- */

void wal_trim(struct storage *st)
{
    struct wal *w = &st->wal;
    u64 before = w->trimmed_seq;
    u64 limit = w->registered_seq;
    if (PLANTED(PLANT_TRIM_BEFORE_REGISTER))
        limit = wal_seq(w, w->durable);
    while (w->trimmed_seq < limit) {
        struct segment *seg = segment_find(st, w->trimmed_seq);
        if (seg && seg->pins > 0)
            break;
        w->trimmed_seq++;
    }
    if (w->trimmed_seq == before)
        return;
    segments_sweep(st);
    wal_check(w);
    if (!list_empty(&st->room_waiters))
        storage_room_made(st);
}

/* ---- stop ---- */

/* No append comes any more. What is gathered is flushed and sealed by the turns that follow. */
void wal_stop(struct storage *st)
{
    struct wal *w = &st->wal;
    timer_stop(&st->shard->timers, &w->mark_timer);
    if (w->failed == ERR_NONE)
        wal_seal(st);
    timer_stop(&st->shard->timers, &w->age_timer);
}

void wal_close(struct storage *st)
{
    struct wal *w = &st->wal;
    CHECK(w->write_count == 0 && wal_zero_idle(w));
    if (w->zero_bytes)
        mem_unmap(w->zero_bytes, MIB);
    w->zero_bytes = NULL;
    timer_stop(&st->shard->timers, &w->mark_timer);
    timer_stop(&st->shard->timers, &w->age_timer);
    timer_stop(&st->shard->timers, &w->zero_timer);
    if (w->fd >= 0)
        io_file_close(st->shard->io, w->fd);
    w->fd = -1;
    mem_free(w->epochs);
    w->epochs = NULL;
}
