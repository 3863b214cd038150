/* Opening a WAL: superblock, epochs, the scan of what is not registered.
 *
 * The metadata key w/<wal> tells for every life of the process (epoch) since the oldest
 * unregistered segment where it began and, for all but the last, where its frames end:
 *
 *     epoch 4: segments 17 … end 147,456,000 | epoch 5: segments 18 … end … | epoch 6: 21 … open
 *
 * So the end has to be found only for the last epoch, and only once: it is written into the
 * metadata before the next epoch appends anything. A frame must carry its segment's epoch, its own
 * position and the tag of this file; therefore frames of earlier laps, of earlier files, and frames
 * that an earlier life wrote behind the end that was then decided on never come back.
 *
 * Where the last epoch stops verifying (L), either the log ends (a crash tore what was in flight)
 * or acknowledged bytes are damaged. It is damage when any frame of the epoch behind L says that
 * the durable end had passed L when it was written. Such a frame lies within UNDURABLE_SEGMENTS + 1
 * segments behind L (wal.c, invariant 5), else at the head of a later segment; these are searched.
 * In closed epochs any frame that does not verify is damage.
 *
 * Damage is never skipped: ERR_CORRUPT with file, offset and remedy.
 *
 * Crash cases: before the metadata commit nothing was changed, the next start repeats it; after it
 * the end is fixed. A crash while the file is made leaves a file that the metadata does not know
 * (no w/ key, or a clean one): made anew. Frames read here may still be in a volatile cache of the
 * device, so the file is flushed before anything of it is shown to readers.
 *
 * What it does not do: repair. `leat-show wal` prints what is there.
 */
#include <stdio.h>

#include "batch.h"
#include "clock.h"
#include "plant.h"
#include "storage_int.h"

#ifndef SCAN_READ_BYTES /* the simulator reads less at a time */
#define SCAN_READ_BYTES ((u32)MIB)
#endif
#define SCAN_READS 8u
#ifndef WAL_SEGMENT_BYTES_MIN /* the simulator fills smaller ones */
#define WAL_SEGMENT_BYTES_MIN MIB
#endif
#define SEGMENT_BYTES_MIN ((u32)WAL_SEGMENT_BYTES_MIN)
#define SLOTS_MIN 4u

/* ---- the file ---- */

struct wal_geometry {
    u32 segment_bytes, slot_count;
};

/* At least SLOTS_MIN segments in each shard's share of wal.size, and as many images in its share
 * of the memory budget. */
static struct wal_geometry geometry_wanted(const struct config *cfg, u32 shards)
{
    u64 share = config_u64(cfg, CFG_wal_size) / shards;
    u64 memory = config_u64(cfg, CFG_memory_budget) / shards;
    if (config_wal_in_memory(cfg))
        share = MIN(share, memory);
    u64 seg = MIN(config_u64(cfg, CFG_wal_segment_bytes), GIB);
    seg = MIN(seg, MIN(share, memory) / SLOTS_MIN);
    seg = MAX(seg & ~(u64)(WAL_BLOCK_BYTES - 1), (u64)SEGMENT_BYTES_MIN);
    return (struct wal_geometry){ (u32)seg, (u32)MAX(share / seg, (u64)SLOTS_MIN) };
}

static void io_op_finished(struct io_op *op)
{
    (void)op;
}

/* At start only: nothing else of the shard runs. */
static void io_wait(struct storage *st, struct io_op *op)
{
    while (!io_op_idle(op))
        (void)io_turn(st->shard->io, NS_PER_S, 64);
}

static err file_read(struct storage *st, u8 *buf, u32 len, u64 offset)
{
    struct io_op op = { 0 };
    io_read(st->shard->io, &op, st->wal.fd, buf, len, offset, io_op_finished);
    io_wait(st, &op);
    if (op.err == ERR_NONE && op.result != (i64)len)
        return ERR_TRUNCATED;
    return op.err;
}

/* For people who find the file; zero when the cluster has no id yet. */
static struct uuid cluster_id(struct storage *st)
{
    struct uuid id = { { 0 } };
    struct meta_kv kv = { 0 };
    struct arena a;
    arena_init(&a, 256, MIB);
    if (meta_get(st->env->meta, bytes_str("cluster"), &a, &kv) == ERR_NONE && kv.value.len == 17)
        memcpy(id.b, kv.value.data + 1, 16);
    arena_free(&a);
    return id;
}

static err file_create(struct storage *st)
{
    struct wal *w = &st->wal;
    struct wal_geometry g = geometry_wanted(st->shard->cfg, st->env->shard_count);
    w->super =
        (struct wal_super){ WAL_FORMAT_VERSION,        g.slot_count,  g.segment_bytes, w->index,
                            rng_uuid(&st->shard->rng), cluster_id(st) };
    w->file_bytes = WAL_SUPER_BYTES + (u64)g.slot_count * g.segment_bytes;
    if (w->memory) {
        w->file_bytes = 0;
        return ERR_NONE;
    }
    u64 want = w->file_bytes;
    err e = io_file_open(st->shard->io, w->path, IO_FILE_CREATE | IO_FILE_DIRECT, &w->file_bytes,
                         &w->fd);
    if (e != ERR_NONE) {
        w->fd = -1;
        storage_explain(st,
                        "cannot make the WAL file %s of %" PRIu64
                        " MiB: %s; give the file system of "
                        "wal.path more room, or lower wal.size",
                        w->path, want / MIB, err_text(e));
        return e;
    }
    u8 *block = mem_map(WAL_SUPER_BYTES, false);
    CHECK(block != NULL);
    wal_super_encode(&w->super, block);
    struct io_op op = { 0 };
    io_write(st->shard->io, &op, w->fd, block, WAL_SUPER_BYTES, 0, true, io_op_finished);
    io_wait(st, &op);
    mem_unmap(block, WAL_SUPER_BYTES);
    if (op.err != ERR_NONE)
        storage_explain(st, "cannot write the WAL file %s: %s", w->path, err_text(op.err));
    LOG(INFO, wal_created, "shard=%u file=%s segments=%u segment_bytes=%u", st->shard->index,
        w->path, g.slot_count, g.segment_bytes);
    return op.err;
}

/* Could there be a log in a file whose first block is not usable? Frames begin some blocks. */
static bool file_has_frames(struct storage *st)
{
    u8 *buf = mem_map(SCAN_READ_BYTES, false);
    CHECK(buf != NULL);
    bool found = false;
    for (u64 at = 0; at < st->wal.file_bytes && !found; at += SCAN_READ_BYTES) {
        u32 len = (u32)MIN((u64)SCAN_READ_BYTES, st->wal.file_bytes - at) & ~(WAL_BLOCK_BYTES - 1);
        found = len > 0 && file_read(st, buf, len, at) != ERR_NONE;
        for (u32 i = 0; i < len && !found; i += WAL_BLOCK_BYTES)
            found = get_le32(buf + i + FRAME_AT_MAGIC) == FRAME_MAGIC;
    }
    mem_unmap(buf, SCAN_READ_BYTES);
    return found;
}

static bool super_unusable(err e)
{
    return e == ERR_MALFORMED || e == ERR_CORRUPT || e == ERR_TRUNCATED;
}

/* Opens what is there. ERR_NOT_FOUND: no file, or one that was never finished (a crash may tear the
 * first block, too; then no frame is in it, and the metadata does not know it: `may_be_new`). */
static err file_open(struct storage *st, bool may_be_new)
{
    struct wal *w = &st->wal;
    w->file_bytes = 0;
    if (w->memory)
        return ERR_NOT_FOUND;
    err e = io_file_open(st->shard->io, w->path, IO_FILE_DIRECT, &w->file_bytes, &w->fd);
    if (e != ERR_NONE) {
        w->fd = -1;
        if (e != ERR_NOT_FOUND)
            storage_explain(st, "cannot open the WAL file %s: %s", w->path, err_text(e));
        return e;
    }
    u8 *block = mem_map(WAL_SUPER_BYTES, false);
    CHECK(block != NULL);
    e = w->file_bytes < WAL_SUPER_BYTES ? ERR_TRUNCATED : file_read(st, block, WAL_SUPER_BYTES, 0);
    bool empty = true;
    for (u32 i = 0; i < WAL_SUPER_BYTES && e == ERR_NONE; i++)
        empty = empty && block[i] == 0;
    if (e == ERR_NONE)
        e = empty ? ERR_NOT_FOUND : wal_super_decode(block, &w->super);
    mem_unmap(block, WAL_SUPER_BYTES);
    if (e == ERR_NONE &&
        w->file_bytes < WAL_SUPER_BYTES + (u64)w->super.slot_count * w->super.segment_bytes)
        e = ERR_TRUNCATED;
    if (e == ERR_NONE)
        return ERR_NONE;
    if (super_unusable(e) && may_be_new && !file_has_frames(st))
        e = ERR_NOT_FOUND;
    io_file_close(st->shard->io, w->fd);
    w->fd = -1;
    storage_explain(st, "the first block of the WAL file %s is not usable: %s", w->path,
                    err_text(e));
    return e;
}

static void wal_adopt_super(struct storage *st)
{
    struct wal *w = &st->wal;
    w->segment_bytes = w->super.segment_bytes;
    w->slot_count = w->super.slot_count;
    w->tag = get_le32(w->super.uuid.b);
    w->write_bytes_max =
        (u32)MIN(config_u64(st->shard->cfg, CFG_wal_max_write_bytes), (u64)w->segment_bytes) &
        ~(WAL_BLOCK_BYTES - 1);
    u64 budget = config_u64(st->shard->cfg, CFG_memory_budget) / st->env->shard_count;
    st->image_max = (u32)MAX(budget / w->segment_bytes, (u64)SLOTS_MIN);
    st->spare_max = (u32)config_u64(st->shard->cfg, CFG_store_uploads);
}

/* ---- reading ahead ---- */

struct scan_read {
    struct io_op op;
    u64 seq;
    u32 offset, len;
};

/* The scan's view of the file: two segment buffers, filled by reads that run ahead. */
struct scan {
    struct storage *st;
    struct wal_meta meta;
    u8 *buf[2];
    u64 seq;                            /* being looked at, in buf[seq & 1] */
    u32 have;                           /* bytes of it that are there */
    u64 end_seq;                        /* first segment that cannot be in the ring */
    struct scan_read reads[SCAN_READS]; /* ring in order */
    u32 head, count, window;
    u64 next_seq; /* next read to start */
    u32 next_offset;
    u64 read_bytes, frames, batches, planted;
    err err;
};

static void scan_ahead(struct scan *s)
{
    struct wal *w = &s->st->wal;
    while (s->count < s->window && s->next_seq < s->end_seq && s->next_seq <= s->seq + 1) {
        struct scan_read *r = &s->reads[(s->head + s->count++) % SCAN_READS];
        r->seq = s->next_seq;
        r->offset = s->next_offset;
        r->len = MIN(SCAN_READ_BYTES, w->segment_bytes - s->next_offset);
        io_read(s->st->shard->io, &r->op, w->fd, s->buf[r->seq & 1] + r->offset, r->len,
                wal_file_offset(w, r->seq * w->segment_bytes + r->offset), io_op_finished);
        s->next_offset += r->len;
        if (s->next_offset == w->segment_bytes) {
            s->next_offset = 0;
            s->next_seq++;
        }
    }
}

static void scan_failed(struct scan *s, err e, u64 offset)
{
    s->err = e;
    storage_explain(s->st,
                    "reading the WAL file %s at offset %" PRIu64 " failed: %s; check the disk",
                    s->st->wal.path, offset, err_text(e));
}

/* Waits until `bytes` of the current segment are there. */
static bool scan_need(struct scan *s, u32 bytes)
{
    CHECK(bytes <= s->st->wal.segment_bytes);
    while (s->have < bytes && s->err == ERR_NONE) {
        scan_ahead(s);
        CHECK(s->count > 0);
        struct scan_read *r = &s->reads[s->head];
        io_wait(s->st, &r->op);
        s->head = (s->head + 1) % SCAN_READS;
        s->count--;
        s->window = MIN(s->window + 1, SCAN_READS);
        CHECK(r->seq == s->seq && r->offset == s->have);
        if (r->op.err != ERR_NONE || r->op.result != (i64)r->len)
            scan_failed(s, r->op.err != ERR_NONE ? r->op.err : ERR_TRUNCATED,
                        wal_file_offset(&s->st->wal, r->seq * s->st->wal.segment_bytes) +
                            r->offset);
        s->have += r->len;
        s->read_bytes += r->len;
        scan_ahead(s);
    }
    return s->err == ERR_NONE;
}

/* On to the next segment; the rest of the current one is not needed. */
static void scan_next_segment(struct scan *s)
{
    (void)scan_need(s, s->st->wal.segment_bytes);
    s->seq++;
    s->have = 0;
}

static void scan_drain(struct scan *s)
{
    while (s->count > 0) {
        io_wait(s->st, &s->reads[s->head].op);
        s->head = (s->head + 1) % SCAN_READS;
        s->count--;
    }
}

/* ---- frames ---- */

static err scan_corrupt(struct scan *s, u64 lsn, const char *what)
{
    struct wal *w = &s->st->wal;
    storage_explain(
        s->st,
        "%s at offset %" PRIu64 " of the WAL file %s (lsn %" PRIu64 "), before the end of what "
        "was acknowledged; nothing was changed. Inspect it with: leat-show wal %s. Remedy: put "
        "back an intact copy of the file, or give up what it holds beyond the object store by "
        "moving the file away and starting with wal.missing = accept",
        what, wal_file_offset(w, lsn), w->path, lsn, w->path);
    s->err = ERR_CORRUPT;
    return ERR_CORRUPT;
}

static err scan_batch(struct scan *s, struct segment *seg, const struct frame *f, const u8 *payload)
{
    struct storage *st = s->st;
    struct batch b;
    struct bytes bytes = bytes_of(payload, f->payload_bytes);
    if (batch_parse(bytes, &b) != ERR_NONE || b.bytes != f->payload_bytes)
        return scan_corrupt(s, f->lsn, "a frame without a whole record batch");
    s->batches++;
    if (!storage_owns(st, &f->key))
        return ERR_NONE;
    if (PLANTED(PLANT_SKIP_FRAME) && s->batches == 3)
        return ERR_NONE;
    struct pindex *p = pindex_open(st, &f->key);
    i64 last = batch_last_offset(&b);
    bool empty = p->entry_head == p->entry_end;
    if (PLANTED(PLANT_SKIP_FRAME) && b.base_offset > p->next_offset)
        p->next_offset = b.base_offset;
    if (b.base_offset > p->next_offset || (b.base_offset < p->next_offset && !empty))
        return scan_corrupt(s, f->lsn, "a batch whose offsets do not follow those before it");
    if (last >= p->next_offset) {
        struct entry e = entry_make(b.base_offset, (u32)b.last_offset_delta, b.max_timestamp,
                                    f->lsn, f->skip, b.bytes);
        pindex_add_entry(p, &e);
        if (!p->object || PLANTED(PLANT_ACK_BEFORE_REGISTER))
            p->durable_offset = p->next_offset;
        seg->data_bytes += b.bytes;
        seg->batch_count++;
    }
    segment_add_part(seg, p); /* also when its records are deleted: the snapshot covers them */
    st->env->ops->recovered(st, p, bytes);
    return ERR_NONE;
}

/* The bytes a frame at `at` would need. */
static bool scan_need_one(struct scan *s, u32 at)
{
    u32 seg = s->st->wal.segment_bytes;
    u32 block_end = (u32)MIN(align_up((u64)at + FRAME_BYTES, WAL_BLOCK_BYTES), (u64)seg);
    if (!scan_need(s, block_end))
        return false;
    if (seg - at < FRAME_BYTES)
        return true;
    const u8 *p = s->buf[s->seq & 1] + at;
    if (get_le32(p + FRAME_AT_MAGIC) != FRAME_MAGIC || p[FRAME_AT_KIND] != FRAME_BATCH)
        return true;
    u64 need =
        (u64)at + FRAME_BYTES + get_le16(p + FRAME_AT_SKIP) + get_le32(p + FRAME_AT_PAYLOAD_BYTES);
    return scan_need(s, (u32)MIN(need, (u64)seg));
}

/* So that the cursor never looks at what is not read yet: where too little of a block is left for a
 * header it may pass over zeros to the frame in the next one. */
static bool scan_need_frame(struct scan *s, u32 at)
{
    u32 next = (u32)align_up((u64)at + 1, WAL_BLOCK_BYTES);
    if (!scan_need_one(s, at))
        return false;
    return next - at >= FRAME_BYTES || next >= s->st->wal.segment_bytes || scan_need_one(s, next);
}

/* Takes the frames of the current segment up to `limit` or the first that does not verify;
 * *end = where it stopped. Makes the segment object unless nothing is there. */
static err scan_segment(struct scan *s, u32 epoch, u32 limit, u32 *end)
{
    struct storage *st = s->st;
    struct wal *w = &st->wal;
    const u8 *bytes = s->buf[s->seq & 1];
    struct wal_cursor c;
    struct frame f;
    wal_cursor_init(&c, bytes, w->segment_bytes, s->seq * w->segment_bytes, limit, w->tag, epoch);
    struct segment *seg = NULL;
    while (c.at < limit && scan_need_frame(s, c.at) && wal_cursor_next(&c, &f)) {
        s->frames++;
        if (!seg) {
            seg = segment_new(st, s->seq, false);
            seg->epoch = epoch;
        }
        if (f.kind != FRAME_BATCH)
            continue;
        err e = scan_batch(s, seg, &f, bytes + (f.lsn - c.base) + frame_payload_at(&f));
        if (e != ERR_NONE)
            return e;
    }
    *end = c.at;
    if (!seg)
        return s->err;
    seg->used = MIN(c.at, w->segment_bytes);
    segment_set_state(seg, SEG_SEALED);
    segment_set_state(seg, SEG_DURABLE);
    st->sealed_unregistered++;
    segment_take_snapshots(st, seg);
    return s->err;
}

/* ---- damage or end? ---- */

/* Looks at block starts of the current segment from `at` for frames of the epoch, and at what
 * follows each, for one that proves the log was durable beyond `lsn`. */
static bool scan_segment_proves(struct scan *s, u32 epoch, u32 at, u64 lsn)
{
    struct wal *w = &s->st->wal;
    const u8 *bytes = s->buf[s->seq & 1];
    u64 base = s->seq * w->segment_bytes;
    if (!scan_need(s, w->segment_bytes))
        return false;
    at = (u32)align_up(at, WAL_BLOCK_BYTES);
    while (at + FRAME_BYTES <= w->segment_bytes) {
        struct wal_cursor c;
        struct frame f;
        /* Cheap tests first: most blocks hold record data or frames of an earlier lap. */
        if (get_le32(bytes + at + FRAME_AT_MAGIC) == FRAME_MAGIC &&
            get_le64(bytes + at + FRAME_AT_LSN) == base + at) {
            wal_cursor_init(&c, bytes, w->segment_bytes, base, w->segment_bytes, w->tag, epoch);
            c.at = at;
            while (wal_cursor_next(&c, &f))
                if (f.durable_lsn > lsn)
                    return true;
            if (c.at > at)
                at = (c.at - 1) & ~(WAL_BLOCK_BYTES - 1);
        }
        at += WAL_BLOCK_BYTES;
    }
    return false;
}

/* The first frame of a later segment. */
static bool scan_head_proves(struct scan *s, u64 seq, u32 epoch, u64 lsn)
{
    struct wal *w = &s->st->wal;
    u8 *buf = s->buf[0];
    u64 offset = wal_file_offset(w, seq * w->segment_bytes);
    err e = file_read(s->st, buf, WAL_BLOCK_BYTES, offset);
    if (e != ERR_NONE) {
        scan_failed(s, e, offset);
        return false;
    }
    if (get_le32(buf + FRAME_AT_MAGIC) != FRAME_MAGIC ||
        get_le64(buf + FRAME_AT_LSN) != seq * w->segment_bytes ||
        get_le32(buf + FRAME_AT_EPOCH) != epoch || get_le64(buf + FRAME_AT_DURABLE_LSN) <= lsn)
        return false;
    u64 total = align_up((u64)FRAME_BYTES + get_le16(buf + FRAME_AT_SKIP) +
                             get_le32(buf + FRAME_AT_PAYLOAD_BYTES),
                         WAL_BLOCK_BYTES);
    total = MIN(total, (u64)w->segment_bytes);
    if (file_read(s->st, buf, (u32)total, offset) != ERR_NONE)
        return false;
    struct frame f;
    return frame_decode(buf, total, &f) == ERR_NONE && f.wal_tag == w->tag;
}

/* The last epoch stopped verifying at `lsn`, in the current segment. */
static err scan_judge_end(struct scan *s, u32 epoch, u64 lsn)
{
    struct wal *w = &s->st->wal;
    u64 first = wal_seq(w, lsn);
    u64 near = MIN(first + UNDURABLE_SEGMENTS + 2, s->end_seq);
    bool proof = false;
    if (PLANTED(PLANT_SKIP_FRAME))
        return ERR_NONE;
    while (s->seq < near && !proof && s->err == ERR_NONE) {
        u64 base = s->seq * w->segment_bytes;
        proof = scan_segment_proves(s, epoch, lsn > base ? (u32)(lsn - base) : 0, lsn);
        if (s->err == ERR_NONE)
            scan_next_segment(s);
    }
    scan_drain(s);
    for (u64 seq = near; seq < s->end_seq && !proof && s->err == ERR_NONE; seq++)
        proof = scan_head_proves(s, seq, epoch, lsn);
    if (s->err == ERR_NONE && proof)
        return scan_corrupt(s, lsn, "a damaged frame");
    return s->err;
}

/* ---- the whole log ---- */

/* Walks every epoch. *end_lsn: where the last one's frames end. */
static err scan_log(struct scan *s, u64 *end_lsn)
{
    struct wal *w = &s->st->wal;
    for (u32 i = 0; i < s->meta.epoch_count; i++) {
        const struct wal_epoch *ep = &s->meta.epochs[i];
        bool last = i + 1 == s->meta.epoch_count;
        u64 to_lsn = last ? UINT64_MAX : ep->end_lsn;
        u64 lsn = MAX(ep->first_seq, s->meta.first_unregistered) * w->segment_bytes;
        bool bad = false;
        if (to_lsn > lsn && wal_seq(w, lsn) != s->seq)
            return scan_corrupt(s, lsn, "a gap in the epochs that the metadata gives");
        while (lsn < to_lsn && s->seq < s->end_seq && !bad) {
            u64 base = s->seq * w->segment_bytes;
            u32 limit = (u32)MIN(to_lsn - base, (u64)w->segment_bytes), end = 0;
            err e = scan_segment(s, ep->epoch, limit, &end);
            if (e != ERR_NONE)
                return e;
            lsn = base + end;
            bad = end < limit;
            if (!bad)
                scan_next_segment(s);
        }
        if (!last && lsn != to_lsn && lsn < to_lsn)
            return scan_corrupt(s, lsn, "a damaged frame");
        *end_lsn = lsn;
        if (last && bad)
            return scan_judge_end(s, ep->epoch, lsn);
    }
    return s->err;
}

static err wal_scan(struct storage *st, const struct wal_meta *meta, u64 *end_lsn)
{
    struct wal *w = &st->wal;
    u64 began = clock_mono_ns();
    struct scan *s = MEM_NEW(struct scan);
    *s = (struct scan){ .st = st, .meta = *meta, .seq = meta->first_unregistered, .window = 2 };
    s->next_seq = s->seq;
    s->end_seq = s->seq + w->slot_count;
    for (u32 i = 0; i < 2; i++) {
        s->buf[i] = mem_map(w->segment_bytes, true);
        CHECK(s->buf[i] != NULL);
    }
    *end_lsn = s->seq * w->segment_bytes;
    err e = scan_log(s, end_lsn);
    scan_drain(s);
    if (e == ERR_NONE && s->frames > 0)
        LOG(INFO, wal_recovered,
            "shard=%u file=%s frames=%" PRIu64 " batches=%" PRIu64 " read_bytes=%" PRIu64
            " end_lsn=%" PRIu64 " ms=%" PRIu64,
            st->shard->index, w->path, s->frames, s->batches, s->read_bytes, *end_lsn,
            (clock_mono_ns() - began) / NS_PER_MS);
    for (u32 i = 0; i < 2; i++)
        mem_unmap(s->buf[i], w->segment_bytes);
    mem_free(s);
    return e;
}

/* ---- epochs ---- */

/* Closes the last epoch at end_lsn and begins the next in the first segment it has not touched. */
static void epoch_begin(struct wal *w, const struct wal_meta *meta, u64 end_lsn)
{
    u32 count = meta->epoch_count;
    w->epochs = mem_alloc((count + 1) * sizeof(struct wal_epoch));
    memcpy(w->epochs, meta->epochs, count * sizeof(struct wal_epoch));
    struct wal_epoch *last = &w->epochs[count - 1];
    u64 first_seq = align_up(end_lsn, 1) / w->segment_bytes;
    if (end_lsn % w->segment_bytes != 0)
        first_seq++;
    u32 epoch = last->epoch + 1;
    last->end_lsn = end_lsn;
    /* An epoch without a frame leaves its segment to the next one. */
    if (last->first_seq * w->segment_bytes >= end_lsn)
        count--;
    w->epochs[count] = (struct wal_epoch){ epoch, first_seq, UINT64_MAX };
    w->epoch_count = count + 1;
    w->epoch = epoch;
}

static void wal_position(struct storage *st, u64 first_unregistered)
{
    struct wal *w = &st->wal;
    w->next_seq = w->epochs[w->epoch_count - 1].first_seq;
    w->appended = w->next_seq * w->segment_bytes;
    w->flushed = w->durable = w->acked = w->marked = w->data_end = w->appended;
    w->registered_seq = w->trimmed_seq = first_unregistered;
    /* Segments that hold nothing are not in the list: count them as registered. */
    if (!segment_find(st, first_unregistered))
        w->registered_seq = w->trimmed_seq = w->next_seq;
    w->open = NULL;
    w->failed = ERR_NONE;
}

/* ---- cases at start ---- */

/* Conditional on the epoch that this start found. */
static err wal_begin(struct storage *st, u64 first_unregistered, bool clean)
{
    struct wal *w = &st->wal;
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    err e = wal_meta_commit(st, w->meta_epoch, wal_meta_value(w, first_unregistered, clean, &a));
    arena_free(&a);
    if (e == ERR_NONE)
        w->meta_epoch = w->epoch;
    else
        storage_explain(st, "the metadata store does not take the key of WAL %04x: %s", w->index,
                        err_text(e));
    return e;
}

static err wal_start_fresh(struct storage *st, u32 epoch, u64 first_seq, bool fresh_file)
{
    struct wal *w = &st->wal;
    w->fresh_file = fresh_file && !w->memory;
    err e = file_create(st);
    if (e != ERR_NONE)
        return e;
    wal_adopt_super(st);
    w->epochs = MEM_NEW(struct wal_epoch);
    *w->epochs = (struct wal_epoch){ epoch, first_seq, UINT64_MAX };
    w->epoch_count = 1;
    w->epoch = epoch;
    wal_position(st, first_seq);
    return wal_begin(st, first_seq, false);
}

/* A file that the metadata does not know: only one without frames may be taken. */
static err wal_check_unknown(struct storage *st)
{
    struct wal *w = &st->wal;
    struct wal_super s = w->super;
    u8 *buf = mem_map(WAL_BLOCK_BYTES, false);
    CHECK(buf != NULL);
    bool frames = false;
    err e = ERR_NONE;
    for (u32 slot = 0; slot < s.slot_count && e == ERR_NONE && !frames; slot++) {
        e = file_read(st, buf, WAL_BLOCK_BYTES, WAL_SUPER_BYTES + (u64)slot * s.segment_bytes);
        frames = get_le32(buf + FRAME_AT_MAGIC) == FRAME_MAGIC &&
                 get_le32(buf + FRAME_AT_WAL_TAG) == get_le32(s.uuid.b);
    }
    mem_unmap(buf, WAL_BLOCK_BYTES);
    if (e == ERR_NONE && frames) {
        storage_explain(
            st,
            "the WAL file %s holds data, but the metadata store (meta.url) does not know it; "
            "put back the metadata that belongs to it, or move the file away to give up its "
            "data",
            w->path);
        return ERR_CORRUPT;
    }
    return e;
}

/* The metadata says that acknowledged data may be only in this file. */
static err wal_refuse(struct storage *st, const char *what)
{
    storage_explain(
        st,
        "the WAL file %s %s, and the metadata store says that it held data not yet in the "
        "object store; put the file back%s, or give up that data with wal.missing = accept",
        st->wal.path, what, st->wal.memory ? " (wal.path) and stop the node in order once" : "");
    return ERR_CORRUPT;
}

/* May the log begin anew without what was not registered? */
static bool wal_is_dispensable(const struct storage *st, const struct wal_meta *m)
{
    return m->clean || m->memory || st->env->all_object ||
           config_is(st->shard->cfg, CFG_wal_missing, "accept");
}

static void wal_missing_tell(const struct storage *st, const struct wal_meta *m)
{
    if (m->clean || m->memory)
        return;
    LOG(WARN, wal_missing,
        "shard=%u file=%s first_unregistered=%" PRIu64 " effect=\"the log begins anew behind what "
        "is in the object store: %s\"",
        st->shard->index, st->wal.path, m->first_unregistered,
        st->env->all_object ? "nothing that was acknowledged is missing (leat.durability=object)"
                            : "topics with leat.durability=local lose what they had beyond "
                              "(wal.missing=accept)");
}

static err wal_flush_device(struct storage *st)
{
    err e = io_file_sync(st->shard->io, st->wal.fd);
    if (e != ERR_NONE)
        storage_explain(st, "flushing the WAL file %s failed: %s", st->wal.path, err_text(e));
    return e;
}

/* Nothing is left in the log and its file has another size than configured: make it anew. The
 * clean mark allows any file; so a crash in between is harmless. */
static err wal_remake(struct storage *st, u32 epoch, u64 seq)
{
    struct wal *w = &st->wal;
    err e = wal_begin(st, seq, true);
    if (e != ERR_NONE)
        return e;
    io_file_close(st->shard->io, w->fd);
    w->fd = -1;
    mem_free(w->epochs);
    w->epochs = NULL;
    return wal_start_fresh(st, epoch, seq, false);
}

static err wal_resume(struct storage *st, const struct wal_meta *meta)
{
    struct wal *w = &st->wal;
    u64 end_lsn = meta->first_unregistered * w->segment_bytes;
    err e = meta->clean ? ERR_NONE : wal_scan(st, meta, &end_lsn);
    if (e == ERR_NONE && !meta->clean)
        e = wal_flush_device(st);
    if (e != ERR_NONE)
        return e;
    epoch_begin(w, meta, end_lsn);
    wal_position(st, meta->first_unregistered);
    struct wal_geometry g = geometry_wanted(st->shard->cfg, st->env->shard_count);
    if (st->live_count == 0 && !st->replaying &&
        (g.segment_bytes != w->segment_bytes || g.slot_count != w->slot_count))
        return wal_remake(st, w->epoch, w->next_seq);
    return wal_begin(st, w->registered_seq, false);
}

err wal_recover(struct storage *st)
{
    struct wal *w = &st->wal;
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    char key[META_KEY_SIZE];
    struct meta_kv kv = { 0 };
    struct wal_meta meta = { 0 };
    err e = meta_get(st->env->meta, meta_key_wal(key, w->index), &a, &kv);
    bool known = e == ERR_NONE;
    if (e != ERR_NONE && e != ERR_NOT_FOUND) {
        storage_explain(st, "reading the metadata key of WAL %04x: %s", w->index, err_text(e));
        goto out;
    }
    if (known && !wal_meta_parse(kv.value, &a, &meta)) {
        storage_explain(st, "the metadata key of WAL %04x has an unknown form", w->index);
        e = ERR_CORRUPT;
        goto out;
    }
    if (known)
        w->meta_epoch = meta.epochs[meta.epoch_count - 1].epoch;
    bool dispensable = known && wal_is_dispensable(st, &meta);
    e = file_open(st, !known || dispensable);
    if (e == ERR_NONE)
        wal_adopt_super(st);
    else if (super_unusable(e) && known && (meta.clean || meta.memory))
        e = ERR_NOT_FOUND; /* a crash while it was made anew */
    if (!known) {
        bool fresh_file = e == ERR_NOT_FOUND;
        if (e == ERR_NONE) {
            e = wal_check_unknown(st);
            io_file_close(st->shard->io, w->fd);
            w->fd = -1;
        } else if (e == ERR_NOT_FOUND) {
            e = ERR_NONE;
        }
        if (e == ERR_NONE)
            e = wal_start_fresh(st, 1, 0, fresh_file);
        goto out;
    }
    u32 next_epoch = w->meta_epoch + 1;
    if (e == ERR_NOT_FOUND && dispensable) {
        wal_missing_tell(st, &meta);
        e = wal_start_fresh(st, next_epoch, meta.first_unregistered, true);
        goto out;
    }
    if (e == ERR_NOT_FOUND) {
        e = wal_refuse(st, w->memory ? "is not used (wal.path = none)" : "is missing");
        goto out;
    }
    if (e != ERR_NONE)
        goto out;
    bool same = uuid_eq(meta.uuid, w->super.uuid) && meta.segment_bytes == w->segment_bytes;
    if (same) {
        e = wal_resume(st, &meta);
    } else if (meta.clean || meta.memory || (dispensable && wal_check_unknown(st) == ERR_NONE)) {
        /* Of another time; or, when it has no frame, made by a start that was cut short. */
        wal_missing_tell(st, &meta);
        io_file_close(st->shard->io, w->fd);
        w->fd = -1;
        e = wal_start_fresh(st, next_epoch, meta.first_unregistered, false);
    } else {
        e = wal_refuse(st, "is another one than the one that was used");
    }
out:
    arena_free(&a);
    return e;
}
