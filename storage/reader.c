/* Reads of partitions: segment image, WAL file, block cache, in the order the index gives.
 *
 *   storage_read ─► read_try ─┬─ image or cached block: extents, READ_DONE
 *                             ├─ block not cached: wait for the cache ──┐
 *                             └─ evicted, unregistered: io_read of WAL ─┤
 *   reader_turn (hook) ◄── finish list ◄────────────────────────────────┘
 *     cancelled / dropped / failed: tell; WAL bytes: hand out; block: read_try again
 *
 *  1. A read never waits when it has something to give: what is at hand is returned, and what
 *     comes next is loaded meanwhile.
 *  2. Batches come back in offset order, without holes beyond those of the log, each with base
 *     offset < end_offset and below the durable end.
 *  3. Every extent holds its own reference; a read that ends with an error holds none.
 *  4. A waiting read stands in p->reads and holds its partition; one struct read_wait is its wait.
 *     `done` runs from the hook only, so never inside storage_read or storage_read_cancel.
 *  5. After a wait everything is looked up again: the batch may have moved from WAL to bundle or
 *     from bundle to run, the log start may have passed it, the partition may be gone. A load that
 *     failed is looked up again, too, when its block is not in the index any more: its object was
 *     replaced.
 *
 * Small batches: below about 1 KiB a piece of a send costs more than copying it does; above, a read
 * would run out of extents before it has much. So runs of small batches are copied into one buffer
 * (measured: docs/decisions/0004-small-batches.md).
 *
 * Reads for those that catch up are bulk (shard.h); what finds the turn's share spent waits in
 * `later` with its block, first come first served.
 * Who wakes from waiting for the store goes there, too; a read that was canceled or failed does
 * not.
 */
#include "ahead_int.h"

#include "clock.h"
#include "hash.h"

#define READER_MAGIC 0x5ead0001u
#define COPY_BATCH_BYTES 4096u /* smaller ones are copied, when they are many … */
#define COPY_BATCH_COUNT 16u   /* … that is, more than this */
#define COPY_TINY_BYTES 1024u  /* or smaller than this on average, and more than two */
#define COPY_BUF_BYTES (256 * (u32)KIB)
#define COPY_BYTES_MAX (64 * MIB)     /* held by copies per shard; beyond it extents are made */
#define WAL_READ_BYTES (1 * (u32)MIB) /* span of one read of the WAL file, at least one batch */
#define WAL_READS_MAX 8u
#define FINISH_BUDGET 64u

struct reader {
    u32 magic;
    struct storage *st;
    struct shard_hook hook;
    struct list finish;    /* read_wait.link: to be ended in the next hook */
    struct list later;     /* read_wait.link: catch-up reads that wait for a turn */
    struct list wal_queue; /* read_wait.link: too many WAL reads in flight */
    u32 waiting, wal_reads;
    u64 copy_bytes;
    struct compressor *compressor;
};

/* Memory of copies and WAL reads. */
struct read_buf {
    struct ref ref;
    struct reader *reader;
    u32 charged; /* bytes in reader->copy_bytes */
    u8 *bytes;
    u8 room[];
};

enum wait_state { WAIT_BLOCK, WAIT_WAL, WAIT_WAL_QUEUE, WAIT_TURN, WAIT_FINISH };
struct read_wait {
    enum wait_state state;
    bool filled; /* the op has its extents already */
    struct read_op *op;
    struct storage *st;
    struct cache_wait cache;
    bool loaded;               /* it had to wait for the store */
    struct cache_block *block; /* one reference, while TURN or FINISH */
    u64 wanted;                /* object waited for, while BLOCK, TURN and FINISH; no id: none */
    struct list link;
    err err;
    /* WAIT_WAL */
    struct io_op io;
    struct segment *seg;
    struct read_buf *buf;
    u64 lsn_begin; /* of the first frame's header */
    u32 lead;      /* bytes read before it, for alignment */
    u32 bytes;     /* from lsn_begin on */
    u32 io_bytes;
};

static void count_up(struct storage *st, enum metric_id id, u64 n)
{
    if (st->shard->metrics != NULL)
        metric_add(st->shard->metrics, id, n);
}

/* ---- life ---- */

static void reader_turn(struct shard_hook *h);

err reader_create(struct storage *st)
{
    struct reader *r = MEM_NEW(struct reader);
    MAGIC_INIT(r, READER_MAGIC);
    r->st = st;
    list_init(&r->finish);
    list_init(&r->later);
    list_init(&r->wal_queue);
    list_init(&r->hook.link);
    st->reader = r;
    shard_add_hook(st->shard, &r->hook, reader_turn);
    err e = ahead_create(st);
    return e == ERR_NONE ? cache_create(st) : e;
}

bool reader_idle(const struct storage *st)
{
    return st->reader == NULL || (st->reader->waiting == 0 && cache_idle(st));
}

void reader_free(struct storage *st)
{
    struct reader *r = st->reader;
    if (r == NULL)
        return;
    MAGIC_CHECK(r, READER_MAGIC);
    CHECK(r->waiting == 0);
    cache_free(st);
    ahead_free(st);
    list_remove(&r->hook.link);
    compressor_free(r->compressor);
    MAGIC_POISON(r);
    mem_free(r);
    st->reader = NULL;
}

struct compressor *reader_compressor(struct storage *st)
{
    struct reader *r = st->reader;
    if (r->compressor == NULL)
        r->compressor = compressor_new();
    return r->compressor;
}

/* ---- buffers ---- */

static void buf_released(struct ref *ref)
{
    struct read_buf *b = container_of(ref, struct read_buf, ref);
    CHECK(b->reader->copy_bytes >= b->charged);
    b->reader->copy_bytes -= b->charged;
    MAGIC_POISON(ref);
    mem_free(b);
}

/* One reference, aligned to `align`. */
static struct read_buf *buf_new(struct reader *r, u32 bytes, u32 align)
{
    struct read_buf *b =
        mem_realloc(NULL, sizeof *b + bytes + align); /* not zeroed: all is written */
    ref_init(&b->ref, buf_released);
    b->ref.count = 1;
    b->reader = r;
    b->charged = bytes;
    b->bytes = (u8 *)align_up((u64)(uintptr_t)b->room, align);
    r->copy_bytes += bytes;
    return b;
}

/* ---- results ---- */

static bool op_full(const struct read_op *op, u64 bytes)
{
    if (op->extent_count == READ_EXTENTS_MAX)
        return true;
    if (op->bytes + bytes <= op->max_bytes)
        return false;
    return !(op->at_least_one && op->bytes == 0);
}

static void op_add(struct read_op *op, struct ref *ref, const u8 *data, u32 bytes)
{
    CHECK(op->extent_count < READ_EXTENTS_MAX);
    CHECK(bytes > 0);
    ref_get(ref);
    op->extents[op->extent_count++] = (struct extent){ bytes_of(data, bytes), ref };
    op->bytes += bytes;
}

static void op_fail(struct read_op *op, err e)
{
    for (u32 i = 0; i < op->extent_count; i++)
        ref_put(op->extents[i].ref);
    op->extent_count = 0;
    op->bytes = 0;
    op->err = e;
}

/* ---- from images ---- */

static bool entry_wanted(const struct read_op *op, const struct entry *e)
{
    return e->base_offset < op->end_offset && entry_last_offset(e) < op->p->durable_offset;
}

/* How many of the entries from `e` on are small and fit; *bytes is their sum. */
static u32 small_run(const struct read_op *op, const struct entry *e, const struct entry *end,
                     u64 lsn_end, u32 *bytes)
{
    u32 n = 0;
    *bytes = 0;
    for (; e < end && entry_lsn(e) < lsn_end; e++, n++) {
        u64 with = (u64)*bytes + e->bytes;
        if (e->bytes >= COPY_BATCH_BYTES || with > COPY_BUF_BYTES || !entry_wanted(op, e))
            break;
        if (n > 0 && op->bytes + with > op->max_bytes)
            break;
        *bytes = (u32)with;
    }
    return n;
}

static void copy_run(struct storage *st, struct read_op *op, const struct entry *e, u32 n,
                     u32 bytes, const struct image *im)
{
    struct read_buf *b = buf_new(st->reader, bytes, 16);
    u32 at = 0;
    for (u32 i = 0; i < n; i++) {
        memcpy(b->bytes + at, im->bytes + entry_lsn(&e[i]) % st->wal.segment_bytes, e[i].bytes);
        at += e[i].bytes;
    }
    CHECK(at == bytes);
    op_add(op, &b->ref, b->bytes, bytes);
    ref_put(&b->ref);
}

/* Batches of one segment's image. Returns the offset behind the last one added; `from` when the
 * read is full. */
static i64 read_image(struct storage *st, struct read_op *op, const struct place *pl, i64 from)
{
    const struct pindex *p = op->p;
    struct image *im = pl->seg->image;
    const struct entry *e = pl->entry, *end = p->entries + p->entry_end;
    u64 lsn_end = (pl->seg->seq + 1) * st->wal.segment_bytes;
    while (e < end && entry_lsn(e) < lsn_end && entry_wanted(op, e) && !op_full(op, e->bytes)) {
        u32 bytes;
        u32 n = e->bytes < COPY_BATCH_BYTES ? small_run(op, e, end, lsn_end, &bytes) : 0;
        bool copy = n > COPY_BATCH_COUNT || (n > 2 && bytes / n < COPY_TINY_BYTES);
        if (copy && st->reader->copy_bytes + bytes <= COPY_BYTES_MAX) {
            copy_run(st, op, e, n, bytes, im);
            e += n;
        } else {
            op_add(op, &im->ref, im->bytes + entry_lsn(e) % st->wal.segment_bytes, e->bytes);
            e++;
        }
        from = entry_last_offset(e - 1) + 1;
    }
    return from;
}

/* ---- from blocks ---- */

/* The stretch of wanted batches in a block, from the one that holds `from`. */
static err block_stretch(const struct read_op *op, struct bytes data, i64 from, u32 *begin,
                         u32 *end, i64 *next)
{
    err e = bundle_data_find(data, from, begin);
    if (e != ERR_NONE)
        return e;
    u32 at = *begin;
    *next = from;
    while (at < data.len) {
        const u8 *p = data.data + at;
        u32 unused;
        /* Checks the batch here: it parses, and it ends inside the block. */
        e = bundle_data_find(bytes_of(p, data.len - at), *next, &unused);
        if (e != ERR_NONE || unused != 0)
            return ERR_CORRUPT;
        u32 bytes = batch_raw_bytes(p);
        u64 sum = (u64)op->bytes + (at - *begin) + bytes;
        bool first = op->bytes == 0 && at == *begin;
        if (batch_raw_base_offset(p) >= op->end_offset)
            break;
        if (sum > op->max_bytes && !(first && op->at_least_one))
            break;
        *next = batch_raw_last_offset(p) + 1;
        at += bytes;
    }
    *end = at;
    return ERR_NONE;
}

static err read_block(struct storage *st, struct read_op *op, struct cache_block *b, i64 from,
                      i64 *next)
{
    u32 begin, end;
    err e = block_stretch(op, b->data, from, &begin, &end, next);
    if (e != ERR_NONE) {
        LOG(ERROR, object_batch_bad,
            "object=%s offset=%u text=\"a batch in a block whose checksum holds does not parse\"",
            b->name, b->key.pos);
        return e;
    }
    if (end > begin)
        op_add(op, &b->ref, b->data.data + begin, end - begin);
    else
        *next = from;
    b->cold = b->class == READ_CATCHUP && end == b->data.len && !ahead_expected(st, op, *next);
    if (b->class == READ_CATCHUP)
        shard_bulk_done(st->shard, BULK_READ, end - begin);
    return ERR_NONE;
}

/* ---- waiting ---- */

static struct read_wait *wait_of(const struct read_op *op)
{
    return op->load[0];
}

static struct read_wait *wait_begin(struct storage *st, struct read_op *op, enum wait_state state)
{
    struct read_wait *w = wait_of(op);
    if (w == NULL) {
        w = MEM_NEW(struct read_wait);
        w->op = op;
        w->st = st;
        list_init(&w->link);
        list_init(&w->cache.link);
        op->load[0] = w;
        list_init(&op->link);
        list_push_back(&op->p->reads, &op->link);
        pindex_hold(op->p);
        st->reader->waiting++;
    }
    w->state = state;
    w->filled = false;
    w->wanted = UINT64_MAX;
    w->err = ERR_NONE;
    return w;
}

/* Goes on in the next hook. */
static void wait_goes_on(struct read_wait *w, enum wait_state state, struct list *list)
{
    CHECK(!list_linked(&w->link));
    w->state = state;
    list_push_back(list, &w->link);
    if (!w->st->shard->hooks_ahead)
        w->st->shard->turn_again = true;
}
static void wait_finish(struct read_wait *w)
{
    wait_goes_on(w, WAIT_FINISH, &w->st->reader->finish);
}
static void wait_turn(struct read_wait *w)
{
    wait_goes_on(w, WAIT_TURN, &w->st->reader->later);
}

static void wait_cache_done(struct cache_wait *cw, err e)
{
    struct read_wait *w = container_of(cw, struct read_wait, cache);
    CHECK(w->state == WAIT_BLOCK);
    w->err = e;
    if (e == ERR_NONE)
        w->block = cw->block;
    if (e == ERR_NONE && w->block->class == READ_CATCHUP)
        wait_turn(w);
    else
        wait_finish(w);
}

static enum read_next wait_block(struct storage *st, struct read_op *op, const struct block *b,
                                 enum read_class class)
{
    struct read_wait *w = wait_begin(st, op, WAIT_BLOCK);
    w->wanted = b->bundle;
    w->loaded = true;
    w->cache.fn = wait_cache_done;
    err e = cache_load(st, op->p, b, class, &w->cache);
    if (e != ERR_NONE) {
        w->err = e;
        wait_finish(w);
    }
    return READ_WAIT;
}

/* The block is there, but this turn's bytes are not. */
static enum read_next wait_later(struct storage *st, struct read_op *op, struct cache_block *b)
{
    struct read_wait *w = wait_begin(st, op, WAIT_TURN);
    w->wanted = b->key.bundle;
    w->block = b;
    count_up(st, M_catchup_deferred, 1);
    wait_turn(w);
    return READ_WAIT;
}

static bool turn_is_spent(const struct reader *r)
{
    return shard_bulk_spent(r->st->shard, BULK_READ);
}

/* ---- from the WAL file ---- */

/* The span of frames to read: consecutive batches of the partition, up to WAL_READ_BYTES. */
static void wal_span(struct storage *st, const struct read_op *op, const struct place *pl,
                     struct read_wait *w)
{
    const struct entry *e = pl->entry, *end = op->p->entries + op->p->entry_end;
    u64 lsn_end = (pl->seg->seq + 1) * st->wal.segment_bytes;
    u64 sum = 0;
    w->lsn_begin = entry_frame_lsn(e);
    u64 to = entry_lsn(e);
    for (bool first = true; e < end && entry_lsn(e) < lsn_end && entry_wanted(op, e); e++) {
        sum += e->bytes;
        u64 span = entry_lsn(e) + e->bytes - w->lsn_begin;
        if (!first && (span > WAL_READ_BYTES || sum > op->max_bytes))
            break;
        to = entry_lsn(e) + e->bytes;
        first = false;
    }
    w->bytes = (u32)(to - w->lsn_begin);
}

static void wal_read_done(struct io_op *io);

static enum read_next wait_wal(struct storage *st, struct read_op *op, const struct place *pl)
{
    struct reader *r = st->reader;
    if (r->wal_reads >= WAL_READS_MAX) {
        struct read_wait *w = wait_begin(st, op, WAIT_WAL_QUEUE);
        list_push_back(&r->wal_queue, &w->link);
        return READ_WAIT;
    }
    struct read_wait *w = wait_begin(st, op, WAIT_WAL);
    wal_span(st, op, pl, w);
    w->seg = pl->seg;
    u64 offset = wal_file_offset(&st->wal, w->lsn_begin);
    w->lead = (u32)(offset % WAL_BLOCK_BYTES);
    w->io_bytes = (u32)align_up((u64)w->lead + w->bytes, WAL_BLOCK_BYTES);
    w->buf = buf_new(r, w->io_bytes, WAL_BLOCK_BYTES);
    segment_pin(w->seg);
    r->wal_reads++;
    io_read(st->shard->io, &w->io, st->wal.fd, w->buf->bytes, w->io_bytes, offset - w->lead,
            wal_read_done);
    return READ_WAIT;
}

/* Verifies the frames and moves this partition's batches together, to the buffer's front. */
static err wal_extract(struct read_wait *w, u32 *out_bytes)
{
    const struct partition_key *key = &w->op->p->key;
    struct wal_cursor c;
    wal_cursor_init(&c, w->buf->bytes, w->io_bytes, w->lsn_begin - w->lead, w->lead + w->bytes,
                    w->st->wal.tag, w->seg->epoch);
    c.at = w->lead;
    struct frame f;
    u32 out = 0;
    while (wal_cursor_next(&c, &f)) {
        if (f.kind != FRAME_BATCH || !partition_key_eq(&f.key, key))
            continue;
        u64 at = f.lsn - c.base + frame_payload_at(&f);
        CHECK(at + f.payload_bytes <= w->io_bytes && out < at);
        memmove(w->buf->bytes + out, w->buf->bytes + at, f.payload_bytes);
        out += f.payload_bytes;
    }
    *out_bytes = out;
    return c.bad ? ERR_CORRUPT : ERR_NONE;
}

static void wal_read_take(struct read_wait *w)
{
    struct storage *st = w->st;
    struct read_op *op = w->op;
    if (w->err == ERR_NONE && w->io.result < (i64)w->io_bytes)
        w->err = ERR_TRUNCATED;
    u32 bytes = 0;
    if (w->err == ERR_NONE)
        w->err = wal_extract(w, &bytes);
    if (w->err == ERR_NONE && bytes == 0)
        w->err = ERR_CORRUPT;
    if (w->err == ERR_NONE) {
        op_add(op, &w->buf->ref, w->buf->bytes, bytes);
        w->filled = true;
        return;
    }
    if (w->err != ERR_CANCELED)
        LOG(ERROR, wal_read_failed,
            "shard=%u file=%s offset=%" PRIu64 " bytes=%u error=%s remedy=\"check the disk (kernel "
            "log); leat-show prints the frames\"",
            st->shard->index, st->wal.path, wal_file_offset(&st->wal, w->lsn_begin), w->bytes,
            err_name(w->err));
}

static void wal_read_done(struct io_op *io)
{
    struct read_wait *w = container_of(io, struct read_wait, io);
    struct storage *st = w->st;
    struct reader *r = st->reader;
    CHECK(w->state == WAIT_WAL);
    CHECK(r->wal_reads > 0);
    w->err = io->err;
    wal_read_take(w);
    ref_put(&w->buf->ref);
    w->buf = NULL;
    r->wal_reads--;
    struct segment *seg = w->seg;
    w->seg = NULL;
    wait_finish(w);         /* and the hook lets queued ones go on */
    segment_unpin(st, seg); /* may free the segment */
}

/* ---- the read ---- */

static err read_check(const struct read_op *op)
{
    const struct pindex *p = op->p;
    if (p->dropped)
        return ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (op->offset < p->start_offset || op->offset > p->next_offset)
        return ERR_OFFSET_OUT_OF_RANGE;
    return ERR_NONE;
}

static bool was_loaded(const struct read_op *op)
{
    return wait_of(op) != NULL && wait_of(op)->loaded;
}

static void count_source(struct storage *st, const struct place *pl, bool waited)
{
    if (pl->entry != NULL)
        count_up(st, M_reads_tail, 1);
    else
        count_up(st, waited ? M_reads_store : M_reads_cache, 1);
}

/* What can be said of a place in a block. NULL: nothing now. *wait: and there is nothing in op yet,
 * which waits therefore. */
static struct cache_block *block_at_hand(struct storage *st, struct read_op *op,
                                         const struct block *pb, bool *wait)
{
    *wait = false;
    if (op_full(op, 1) || pb->base_offset >= op->end_offset)
        return NULL;
    enum read_class class = ahead_class(st, op->p, pb);
    struct cache_block *b = cache_get(st, pb, class);
    bool later = b != NULL && b->class == READ_CATCHUP && turn_is_spent(st->reader);
    if (b != NULL && !later)
        return b;
    *wait = op->extent_count == 0 && !op->at_hand;
    if (*wait && later)
        (void)wait_later(st, op, b);
    else if (*wait)
        (void)wait_block(st, op, pb, class);
    else if (later)
        ref_put(&b->ref);
    return NULL;
}

/* READ_DONE: the result (or error) is in op. READ_WAIT: wait_of(op) is waiting. */
static enum read_next read_try(struct storage *st, struct read_op *op)
{
    op->extent_count = 0;
    op->bytes = 0;
    op->err = read_check(op);
    i64 at = op->offset;
    bool blocks = false, wait = false;
    struct place pl;
    while (op->err == ERR_NONE && at < op->end_offset && pindex_place(op->p, at, &pl)) {
        i64 next = at;
        if (op->extent_count == 0 && pl.entry != NULL && pl.seg->image == NULL)
            return entry_wanted(op, pl.entry) && !op_full(op, pl.entry->bytes) && !op->at_hand
                       ? wait_wal(st, op, &pl)
                       : READ_DONE;
        if (pl.entry != NULL && pl.seg->image == NULL)
            break;
        if (pl.entry != NULL) {
            next = read_image(st, op, &pl, at);
        } else {
            struct cache_block *b = block_at_hand(st, op, pl.block, &wait);
            if (wait)
                return READ_WAIT;
            if (b == NULL)
                break;
            blocks = true;
            err e = read_block(st, op, b, at, &next);
            ref_put(&b->ref);
            if (e != ERR_NONE)
                op_fail(op, e);
        }
        if (next == at)
            break;
        if (at == op->offset)
            count_source(st, &pl, was_loaded(op));
        at = next;
    }
    if (blocks && op->err == ERR_NONE)
        ahead_read(st, op, at, was_loaded(op));
    return READ_DONE;
}

enum read_next storage_read(struct read_op *op, read_done done)
{
    struct pindex *p = op->p;
    MAGIC_CHECK(p, PINDEX_MAGIC);
    op->done = done;
    op->canceled = false;
    memset(op->load, 0, sizeof op->load);
    list_init(&op->link);
    return read_try(p->st, op);
}

void storage_read_cancel(struct read_op *op)
{
    struct read_wait *w = wait_of(op);
    if (w == NULL || op->canceled)
        return;
    op->canceled = true;
    struct storage *st = w->st;
    switch (w->state) {
    case WAIT_BLOCK:
        cache_unwait(&w->cache);
        wait_finish(w);
        break;
    case WAIT_WAL:
        io_cancel(st->shard->io, &w->io); /* its completion goes on */
        break;
    case WAIT_WAL_QUEUE:
    case WAIT_TURN:
        list_remove(&w->link);
        wait_finish(w);
        break;
    case WAIT_FINISH:
        break;
    }
}

void storage_read_leave(struct read_op *op)
{
    struct read_wait *w = wait_of(op);
    if (w == NULL || op->canceled)
        return;
    if (w->state == WAIT_TURN) {
        storage_read_cancel(op);
    } else if (w->state == WAIT_BLOCK) {
        op->canceled = true;
        cache_leave(&w->cache, ahead_comes_back(w->st, op));
        wait_finish(w);
    }
}

void reader_dropped(struct pindex *p)
{
    list_for_safe(it, &p->reads) {
        struct read_op *op = list_entry(it, struct read_op, link);
        bool was = op->canceled;
        storage_read_cancel(op); /* wakes it; p->dropped decides what it is told */
        op->canceled = was;
    }
}

/* ---- finishing ---- */

static void wait_end(struct read_wait *w)
{
    struct storage *st = w->st;
    struct read_op *op = w->op;
    struct pindex *p = op->p;
    op->load[0] = NULL;
    list_remove(&op->link);
    CHECK(st->reader->waiting > 0);
    st->reader->waiting--;
    mem_free(w);
    pindex_release(p);
    op->done(op);
}

/* What was waited for is not where the log is any more: compaction replaced the object. */
static bool was_replaced(const struct read_wait *w)
{
    struct place pl;
    if (w->wanted == UINT64_MAX || w->op->p->dropped)
        return false;
    return pindex_place(w->op->p, w->op->offset, &pl) &&
           (pl.block == NULL || pl.block->bundle != w->wanted);
}

static void finish_one(struct read_wait *w)
{
    struct read_op *op = w->op;
    struct cache_block *block = w->block;
    w->block = NULL;
    err e = w->err != ERR_NONE && was_replaced(w) ? ERR_NONE : w->err;
    if (op->p->dropped)
        e = ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (op->canceled)
        e = ERR_CANCELED;
    if (e == ERR_NOT_FOUND || e == ERR_TRUNCATED)
        e = ERR_CORRUPT; /* an object that is missing or short, and was told in the log */
    /* The log start may have passed what could not be read: then that is the answer. */
    if (e != ERR_NONE && read_check(op) == ERR_OFFSET_OUT_OF_RANGE && !op->canceled)
        e = ERR_OFFSET_OUT_OF_RANGE;
    bool ends = true;
    if (e != ERR_NONE)
        op_fail(op, e);
    else if (!w->filled)
        ends = read_try(w->st, op) == READ_DONE;
    if (block != NULL)
        ref_put(&block->ref);
    if (ends)
        wait_end(w);
}

static struct read_wait *wait_pop(struct list *list)
{
    return list_entry(list_pop_front(list), struct read_wait, link);
}

static void reader_turn(struct shard_hook *h)
{
    struct reader *r = container_of(h, struct reader, hook);
    MAGIC_CHECK(r, READER_MAGIC);
    for (u32 i = 0; i < FINISH_BUDGET && !list_empty(&r->finish); i++) {
        struct read_wait *w = wait_pop(&r->finish);
        CHECK(w->state == WAIT_FINISH);
        finish_one(w);
    }
    for (u32 i = 0; i < FINISH_BUDGET && !list_empty(&r->later) && !turn_is_spent(r); i++) {
        struct read_wait *w = wait_pop(&r->later);
        CHECK(w->state == WAIT_TURN);
        finish_one(w);
    }
    /* One that goes on need not read the WAL any more (its segment was registered meanwhile), and
     * then no completion would call the next: as many go on as reads are free, every turn. */
    for (u32 n = r->wal_reads; n < WAL_READS_MAX && !list_empty(&r->wal_queue); n++)
        wait_finish(wait_pop(&r->wal_queue));
    if (!list_empty(&r->finish) || !list_empty(&r->later))
        r->st->shard->turn_again = true;
}
