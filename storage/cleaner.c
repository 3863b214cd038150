/* A round of key compaction over one partition (compact.c says what stays, rewrite.c how it is
 * swapped).
 *
 *   pindex_clean ─► MAP: a background job for each dirty block, until `end` or until the map is
 *   full
 *                    │
 *                    ▼
 *                  REWRITE: pieces of store.run_bytes, ascending from the log start to map_end
 *                    │
 *                    ▼
 *                  done
 *
 *  1. Pieces are committed one by one, in ascending order; a round that is cut short leaves a log
 *     in which fewer old records were removed, and the dirty start where it was or behind a piece:
 *     the records that supersede lie behind the pieces that lost the superseded ones.
 *  2. Memory: the map (this shard's share of log.cleaner.dedupe.buffer.size), one piece being
 *     written (about store.run_bytes), one block being read, one decoded batch.
 *  3. One job at a time, resting as long as it worked, and not above this shard's share of
 *     log.cleaner.io.max.bytes.per.second; all shards share one thread (rewrite.c). Blocks do not
 *     go through the cache: what consumers read stays there.
 *  4. Between jobs the partition may be dropped, its log start may move, blocks may be added: every
 *     step looks the index up again.
 */
#include "clock.h"
#include "clone_int.h"
#include "compact_int.h"

#define CLEAN_MAGIC 0xc1ea0001u
_Static_assert(sizeof(((struct clean_op *)0)->object) == BUNDLE_NAME_SIZE, "storage.h");

struct clean {
    u32 magic;
    struct storage *st;
    struct clean_op *op;
    struct compaction compaction;
    struct rewrite rewrite;
    u64 rate;     /* of reading: this shard's share, bytes/s */
    u64 put_rate; /* objects are written one at a time in the whole node */
    i64 at;       /* next piece begins here */
    i64 piece_end;
    /* MAP */
    struct bg_job job;
    struct timer timer;
    struct block block;
    struct partition_key key; /* as its object says */
    char name[BUNDLE_NAME_SIZE];
    u8 *raw;
    u64 job_ns;
    err err;
};

bool cleaner_idle(const struct storage *st)
{
    return st->cleaning == NULL;
}

/* ---- what is there to do ---- */

/* A block's age: batches without timestamps are as old as their object. */
static i64 block_time_ms(const struct storage *st, const struct block *b)
{
    const struct bundle_info *info = retention_bundle(st, b->bundle);
    if (b->max_timestamp >= 0 || info == NULL)
        return b->max_timestamp;
    return info->created_ms;
}

/* False: a dirty block that ends the walk. */
static bool walk_block(const struct pindex *p, struct clean_walk *w, const struct block *b)
{
    struct clean_bounds *out = &w->bounds;
    if (b->last_offset < MAX(p->clean_end, p->start_offset)) {
        out->clean_bytes += b->data_bytes;
        return true;
    }
    i64 ms = block_time_ms(p->st, b);
    bool takes = b->last_offset < w->end_offset && ms <= w->newest_ms;
    out->oldest_time_ms = MIN(out->oldest_time_ms, ms);
    if (!takes)
        return false;
    out->cleanable_bytes += b->data_bytes;
    out->end = b->last_offset + 1;
    return true;
}

bool pindex_clean_walk(const struct pindex *p, struct clean_walk *w, u32 *budget)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    if (!w->begun)
        w->bounds = (struct clean_bounds){ .end = MAX(p->clean_end, p->start_offset),
                                           .oldest_time_ms = INT64_MAX };
    w->begun = true;
    u32 i = pindex_block_at(p, w->at);
    for (; i<p->block_end && * budget> 0; i++, --*budget) {
        w->at = p->blocks[i].last_offset + 1;
        if (!walk_block(p, w, &p->blocks[i]))
            return true;
    }
    return i == p->block_end;
}

/* ---- the end ---- */

static void clean_finish(struct clean *c, err e, const char *what)
{
    struct storage *st = c->st;
    struct clean_op *op = c->op;
    struct pindex *p = op->p;
    CHECK(st->cleaning == c);
    CHECK(!c->job.busy && !timer_armed(&c->timer) && c->rewrite.step == REWRITE_IDLE);
    op->err = e;
    op->what = what;
    memcpy(op->object, c->name, sizeof op->object);
    op->to = c->compaction.map_end;
    op->records = c->compaction.records;
    op->records_removed = c->compaction.records_removed;
    storage_count(st, M_compaction_records, op->records_removed);
    st->cleaning = NULL;
    p->rewriting = false;
    compaction_free(&c->compaction);
    mem_free(c->raw);
    MAGIC_POISON(c);
    mem_free(c);
    op->done(op);
    pindex_release(p);
}

static bool gone(const struct clean *c)
{
    return c->st->stopping || c->op->p->dropped;
}

void cleaner_stop(struct storage *st)
{
    struct clean *c = st->cleaning;
    if (c == NULL)
        return;
    MAGIC_CHECK(c, CLEAN_MAGIC);
    if (timer_armed(&c->timer)) {
        timer_stop(&st->shard->timers, &c->timer);
        clean_finish(c, ERR_CANCELED, "");
    } else if (c->rewrite.step != REWRITE_IDLE) {
        rewrite_stop(&c->rewrite);
    }
}

/* ---- second pass ---- */

static void piece_done(struct rewrite *r);

static void piece_next(struct clean *c)
{
    struct compaction *k = &c->compaction;
    u64 bytes = config_u64(c->st->env->cfg, CFG_store_run_bytes);
    i64 from = c->at;
    if (gone(c) || !rewrite_numbers_left(c->st)) {
        clean_finish(c, ERR_CANCELED, "");
        return;
    }
    c->rewrite.st = c->st;
    c->rewrite.p = c->op->p;
    c->rewrite.filter = &k->filter;
    c->rewrite.clean_to = MAX(k->map_end, c->op->p->clean_end);
    c->rewrite.read_rate = c->rate;
    c->rewrite.put_rate = c->put_rate;
    c->rewrite.done = piece_done;
    c->at = rewrite_begin(&c->rewrite, from, k->map_end, bytes);
    if (c->at <= from)
        clean_finish(c, ERR_NONE, "");
}

static void piece_done(struct rewrite *r)
{
    struct clean *c = container_of(r, struct clean, rewrite);
    c->op->read_bytes += r->read_bytes;
    c->op->written_bytes += r->written_bytes;
    c->op->runs += r->written;
    memcpy(c->name, r->name, sizeof c->name);
    if (r->err != ERR_NONE)
        clean_finish(c, r->err, r->what);
    else
        piece_next(c);
}

/* ---- first pass ---- */

static void map_run(struct bg_job *j)
{
    struct clean *c = container_of(j, struct clean, job);
    struct bytes data;
    c->err = rewrite_read_block(c->st->env->store, c->name, &c->key, &c->block, &c->raw, &data);
    if (c->err == ERR_NONE)
        c->err = compaction_map(&c->compaction, data);
}

static void map_done(struct bg_job *j);

/* The next dirty block; when there is none the second pass begins. */
static void map_next(struct clean *c)
{
    const struct pindex *p = c->op->p;
    if (gone(c)) {
        clean_finish(c, ERR_CANCELED, "");
        return;
    }
    u32 i = pindex_block_at(p, MAX(c->compaction.map_end, p->start_offset));
    const struct bundle_info *info =
        i < p->block_end ? retention_bundle(c->st, p->blocks[i].bundle) : NULL;
    if (info == NULL || p->blocks[i].last_offset >= c->op->end) {
        c->at = p->start_offset;
        piece_next(c);
        return;
    }
    c->block = p->blocks[i];
    c->key = block_key(p, &c->block);
    bundle_name(c->name, c->block.bundle, info->epoch);
    c->job_ns = clock_mono_ns();
    storage_count(c->st, M_store_gets, 1);
    bg_submit(c->st->shard, &c->job, BG_MISC, map_run, map_done);
}

static void map_rested(struct timer *t)
{
    map_next(container_of(t, struct clean, timer));
}

static void map_done(struct bg_job *j)
{
    struct clean *c = container_of(j, struct clean, job);
    MAGIC_CHECK(c, CLEAN_MAGIC);
    u64 took = clock_mono_ns() - c->job_ns;
    c->op->read_bytes += c->block.bytes;
    storage_count(c->st, M_compaction_read_bytes, c->block.bytes);
    if (gone(c)) {
        clean_finish(c, ERR_CANCELED, "");
    } else if (c->err == ERR_BUSY) { /* the map is full: this far, and the rest next time */
        c->at = c->op->p->start_offset;
        piece_next(c);
    } else if (c->err != ERR_NONE && c->block.last_offset >= c->op->p->start_offset) {
        clean_finish(c, c->err, "read a block");
    } else {
        u64 ns = rewrite_rest_ns(took, c->block.bytes, c->rate);
        timer_start(&c->st->shard->timers, &c->timer, c->st->shard->now_ns + ns, map_rested);
    }
}

bool pindex_clean(struct clean_op *op, void (*done)(struct clean_op *op))
{
    struct pindex *p = op->p;
    struct storage *st = p->st;
    CHECK(!p->dropped);
    if (st->cleaning != NULL || st->stopping || p->rewriting || !rewrite_numbers_left(st))
        return false;
    const struct config *cfg = st->env->cfg;
    struct clean *c = MEM_NEW(struct clean);
    MAGIC_INIT(c, CLEAN_MAGIC);
    c->st = st;
    c->op = op;
    op->done = done;
    op->from = MAX(p->clean_end, p->start_offset);
    op->runs = 0;
    op->read_bytes = op->written_bytes = 0;
    u32 shards = MAX(st->env->shard_count, 1);
    c->put_rate = config_u64(cfg, CFG_log_cleaner_io_max_bytes);
    c->rate = MAX(c->put_rate / shards, 1);
    compaction_init(&c->compaction, op->from, st->shard->now_ms, op->delete_retention_ms);
    pindex_hold(p);
    st->cleaning = c;
    /* A record with a key has 8 bytes at least; compressed ones may have less: the map is then full
     * sooner. */
    err e = key_map_init(&c->compaction.map, config_u64(cfg, CFG_log_cleaner_dedupe_bytes) / shards,
                         op->cleanable_bytes / 8, rng_next(&st->shard->rng));
    if (e == ERR_NONE) {
        p->rewriting = true;
        timer_start(&st->shard->timers, &c->timer, st->shard->now_ns, map_rested);
        return true;
    }
    st->cleaning = NULL;
    compaction_free(&c->compaction);
    mem_free(c);
    pindex_release(p);
    return false;
}
