/* Rewriting: a range of blocks of a partition, through a filter, into a run: an object with the
 * data of one partition that takes their place.
 *
 *   IDLE ─► READ ─► REST ─► READ … ─► PUT ─► COMMIT ─► IDLE, done
 *             │                        │       │ ▲
 *             └────── failure ─────────┘       └─┴ REST and again, COMMIT_TRIES times
 *
 *   READ    a background job for each block: read, verify, filter; what stays is copied together
 *   PUT     one object r/<wal>/<epoch and number>-<epoch>, in the form of a bundle
 *   COMMIT  one metadata transaction: the new r/ key, and the r/ keys of the runs it replaces go
 *   REST    so that this takes a part of a background thread and of the disk, never all
 *
 * All of it but the transaction runs in threads of its own kind: neither an upload, which producers
 * wait for, nor a read of a consumer waits for a thread because of compaction. On a local store it
 * is one for all shards, and a rest is as long as the job before it; on others a job is waiting for
 * the most part: there are several, and only the rate makes them rest. While uploads are behind it
 * goes on at a part of its speed.
 *
 *  1. A source is a whole run (what is live of it) or a block of a bundle. The new run stands for
 *     all offsets from the first source's begin to the last one's end, and for everything the
 *     replaced runs stood for: the blocks that those once superseded may still be in registrations
 *     of bundles that other partitions need, and must stay superseded at the next start
 *     (bundle_load.c).
 *  2. The last batch of the range always stays (without records, if need be), so a run ends where
 *     its sources did, and a partition's end never goes back.
 *  3. The object is complete before the transaction, and the index changes after it, in one step
 *     with the counts of objects (retention.c). The transaction also writes down the replaced runs
 *     as discarded (discard.c). A crash before it leaves an object nobody refers to, whose name no
 *     later life writes: an orphan (scrub.c).
 *  4. The transaction fails when the w/ key says that another life of this WAL began: a run must
 *     not be registered by a process that was taken for dead.
 *  5. Meanwhile the log start may pass some or all of the range, or the partition may be dropped:
 *     what is not wanted any more then does not enter the index; a run without a wanted block is
 *     collected like any other object.
 *  6. When the filter changes nothing and the only source is one run, nothing is written, unless
 *     the log becomes clean to a higher offset by it: that is written down in registrations.
 *  7. Without a filter the run holds what its sources held: images in memory may go on to serve it.
 *  8. An object that was put, or may have been, and is not going to be registered is discarded.
 *     Once its registration was tried it is left alone, whatever the answer: an orphan of the next
 *     life then.
 *
 * The number of a run is used up when it begins.
 */
#include "clock.h"
#include "clone_int.h"
#include "compact_int.h"
#include "plant.h"

#define CHUNK_BYTES ((u32)MIB)
#define COMMIT_BYTES_MAX (64 * MIB)
#define COMMIT_TRIES 6u
#define REST_NS_MAX NS_PER_S
/* While uploads are behind: rests are so many times as long, writes so many times slower. */
#define BEHIND_FACTOR 4u

static void set_step(struct rewrite *r, enum rewrite_step to)
{
    static const u8 allowed[] = {
        [REWRITE_IDLE] = 1 << REWRITE_READ,
        [REWRITE_READ] = 1 << REWRITE_REST | 1 << REWRITE_PUT | 1 << REWRITE_IDLE,
        [REWRITE_REST] = 1 << REWRITE_READ | 1 << REWRITE_COMMIT | 1 << REWRITE_IDLE,
        [REWRITE_PUT] = 1 << REWRITE_COMMIT | 1 << REWRITE_IDLE,
        [REWRITE_COMMIT] = 1 << REWRITE_REST | 1 << REWRITE_IDLE,
    };
    CHECK(allowed[r->step] >> to & 1);
    r->step = to;
}

/* ---- choosing sources ---- */

/* Blocks of the source that begins at block i. */
static u32 source_blocks(const struct pindex *p, u32 i)
{
    u32 n = 1;
    if (object_is_run(p->blocks[i].bundle))
        while (i + n < p->block_end && p->blocks[i + n].bundle == p->blocks[i].bundle)
            n++;
    return n;
}

static void source_add(struct rewrite *r, const struct block *b, u32 count)
{
    const struct bundle_info *info = retention_bundle(r->st, b->bundle);
    CHECK(info != NULL);
    r->blocks = mem_realloc(r->blocks, (r->block_count + count) * sizeof *b);
    memcpy(r->blocks + r->block_count, b, count * sizeof *b);
    r->block_count += count;
    r->created_ms = MAX(r->created_ms, info->created_ms);
    if (object_is_run(b->bundle) && !PLANTED(PLANT_RUN_FORGETS_COVER))
        r->cover_from = MIN(r->cover_from, info->cover_from);
    if (!object_is_run(b->bundle) || b->origin > 0) { /* a clone's source keeps its run */
        r->bundle_count++;
        return;
    }
    r->runs = mem_realloc(r->runs, (r->run_count + 1) * sizeof *r->runs);
    r->runs[r->run_count++] = (struct rewrite_run){
        .object = { .id = info->id, .epoch = info->epoch, .bytes = info->bytes }
    };
}

static u64 source_bytes(const struct block *b, u32 count)
{
    u64 bytes = 0;
    for (u32 i = 0; i < count; i++)
        bytes += b[i].data_bytes;
    return bytes;
}

static void sources_choose(struct rewrite *r, i64 from, i64 to, u64 bytes_max)
{
    const struct pindex *p = r->p;
    u64 bytes = 0;
    u32 i = pindex_block_at(p, from);
    r->cover_from = INT64_MAX;
    while (i < p->block_end && p->blocks[i].base_offset < to) {
        u32 n = source_blocks(p, i);
        u64 more = source_bytes(&p->blocks[i], n);
        if (r->block_count > 0 && bytes + more > bytes_max)
            break;
        if (r->block_count == 0)
            r->from = r->cover_from = p->blocks[i].base_offset;
        source_add(r, &p->blocks[i], n);
        bytes += more;
        i += n;
    }
    if (r->block_count > 0)
        r->to = r->blocks[r->block_count - 1].last_offset + 1;
}

/* ---- the end ---- */

static void chunks_free(struct rewrite *r)
{
    struct rewrite_chunk *c, *next;
    for (c = r->chunks; c != NULL; c = next) {
        next = c->next;
        mem_free(c);
    }
    r->chunks = NULL;
}

static void finish(struct rewrite *r, err e, const char *what)
{
    CHECK(!r->job.busy && !timer_armed(&r->timer));
    bundle_builder_free(&r->builder);
    chunks_free(r);
    arena_free(&r->arena);
    mem_free(r->blocks);
    mem_free(r->runs);
    mem_free(r->raw);
    r->blocks = NULL;
    r->runs = NULL;
    r->raw = NULL;
    r->err = e;
    r->what = what;
    set_step(r, REWRITE_IDLE);
    r->done(r);
}

/* Nobody wants the result: the partition is gone, the log start is behind it, or a stop. */
static bool given_up(const struct rewrite *r)
{
    return r->st->stopping || r->p->dropped || r->p->start_offset >= r->to;
}

static void count(struct rewrite *r, enum metric_id of_filter, enum metric_id of_merge, u64 n)
{
    storage_count(r->st, r->filter != NULL ? of_filter : of_merge, n);
}

static void give_up(struct rewrite *r)
{
    finish(r, r->st->stopping || r->p->dropped ? ERR_CANCELED : ERR_NONE, "");
}

/* ---- reading ---- */

err rewrite_read_block(struct store *store, const char *name, const struct partition_key *key,
                       const struct block *b, u8 **raw, struct bytes *data)
{
    *raw = mem_realloc(*raw, b->bytes);
    store = store_for(store, STORE_COMPACT);
    err e = store->driver->get_range(store, name, b->pos, *raw, b->bytes);
    if (e != ERR_NONE)
        return e;
    struct bundle_entry entry;
    e = bundle_block_decode(bytes_of(*raw, b->bytes), &entry, data);
    if (e != ERR_NONE)
        return e;
    bool expected = entry.base_offset == b->base_offset && entry.last_offset == b->last_offset &&
                    partition_key_eq(&entry.key, key);
    return expected ? ERR_NONE : ERR_CORRUPT;
}

u64 rewrite_rest_ns(u64 took_ns, u64 bytes, u64 rate)
{
    u64 at_rate = bytes * NS_PER_S / MAX(rate, 1);
    u64 rest = MAX(took_ns, at_rate > took_ns ? at_rate - took_ns : 0);
    return MIN(rest, REST_NS_MAX);
}

static u8 *chunk_take(struct rewrite *r, u32 bytes)
{
    struct rewrite_chunk *c = r->chunks;
    if (c == NULL || c->cap - c->used < bytes) {
        u32 cap = MAX(CHUNK_BYTES, bytes);
        c = mem_realloc(NULL, sizeof *c + cap); /* not zeroed: all is written */
        *c = (struct rewrite_chunk){ .next = r->chunks, .cap = cap };
        r->chunks = c;
    }
    u8 *p = c->bytes + c->used;
    c->used += bytes;
    return p;
}

static err batch_filter(struct rewrite *r, const struct batch *b, bool keep)
{
    struct bytes out = bytes_of(b->data, b->bytes);
    struct batch left;
    err e = r->filter != NULL ? r->filter->batch(r->filter, b, keep, &out) : ERR_NONE;
    if (e != ERR_NONE)
        return e;
    if (!keep && batch_last_offset(b) < r->start)
        out.len = 0; /* below the log start as a whole */
    r->changed |= out.data != b->data || out.len == 0;
    if (out.len == 0)
        return ERR_NONE;
    e = batch_parse(out, &left);
    CHECK(e == ERR_NONE);
    CHECK(left.base_offset == b->base_offset);
    CHECK(left.last_offset_delta == b->last_offset_delta);
    u8 *copy = chunk_take(r, out.len);
    memcpy(copy, out.data, out.len);
    bundle_builder_add(&r->builder, &r->p->key, left.base_offset, batch_last_offset(&left),
                       left.max_timestamp, bytes_of(copy, out.len));
    return ERR_NONE;
}

static void block_run(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    const struct block *block = &r->blocks[r->block_at];
    struct bytes data;
    struct batch b;
    r->err = rewrite_read_block(r->st->env->store, r->name, &r->key, block, &r->raw, &data);
    if (PLANTED(PLANT_MERGE_LOSES_BLOCK) && r->filter == NULL && r->block_at == 1 &&
        r->block_count > 2)
        data.len = 0;
    while (r->err == ERR_NONE && data.len > 0) {
        if (batch_next(&data, &b) != ERR_NONE) {
            r->err = ERR_CORRUPT;
            break;
        }
        r->err = batch_filter(r, &b, data.len == 0 && r->block_at + 1 == r->block_count);
    }
}

static enum bg_lane lane(const struct storage *st)
{
    return st->env->store->driver->local ? BG_MISC : BG_BULK;
}

static void block_done(struct bg_job *j);

static void block_next(struct rewrite *r)
{
    const struct block *b = &r->blocks[r->block_at];
    const struct bundle_info *info = retention_bundle(r->st, b->bundle);
    set_step(r, REWRITE_READ);
    r->start = r->p->start_offset;
    if (info == NULL) { /* the log start passed it, and its object is on the way out */
        finish(r, ERR_NOT_FOUND, "find an object");
        return;
    }
    bundle_name(r->name, b->bundle, info->epoch);
    r->key = block_key(r->p, b);
    r->job_ns = clock_mono_ns();
    storage_count(r->st, M_store_gets, 1);
    bg_submit(r->st->shard, &r->job, lane(r->st), block_run, block_done);
}

/* ---- resting ---- */

static void commit(struct rewrite *r);

static void rested(struct timer *t)
{
    struct rewrite *r = container_of(t, struct rewrite, timer);
    if (given_up(r))
        give_up(r);
    else if (r->resume == REWRITE_READ)
        block_next(r);
    else
        commit(r);
}

static void rest(struct rewrite *r, enum rewrite_step resume, u64 ns)
{
    set_step(r, REWRITE_REST);
    r->resume = resume;
    if (uploader_behind(r->st))
        ns *= BEHIND_FACTOR;
    timer_start(&r->st->shard->timers, &r->timer, r->st->shard->now_ns + ns, rested);
}

void rewrite_stop(struct rewrite *r)
{
    if (r->step != REWRITE_REST)
        return; /* a job is on its way: it sees the stop */
    timer_stop(&r->st->shard->timers, &r->timer);
    finish(r, ERR_CANCELED, "");
}

/* ---- writing ---- */

static bool is_as_before(const struct rewrite *r)
{
    bool one_run = r->run_count == 1 && r->bundle_count == 0;
    return one_run && !r->changed && MIN(r->clean_to, r->to) <= r->p->clean_end;
}

static err object_put(struct rewrite *r)
{
    struct store *store = store_for(r->st->env->store, STORE_COMPACT);
    struct store_object o = { .name = r->name,
                              .parts = r->builder.parts,
                              .part_count = r->builder.part_count,
                              .pace = &r->put_pace };
    u64 began_ns = clock_mono_ns();
    err e = store->driver->put(store, &o);
    if (e == ERR_NONE)
        flow_put(&r->st->env->store->flow, r->builder.bytes, false, began_ns, clock_mono_ns());
    return e;
}

static void put_run(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    bundle_builder_seal(&r->builder);
    if (!PLANTED(PLANT_RUN_BEFORE_OBJECT))
        r->err = object_put(r);
}

static void put_done(struct bg_job *j);

static void put(struct rewrite *r)
{
    struct storage *st = r->st;
    set_step(r, REWRITE_PUT);
    bundle_name(r->name, r->id, st->wal.epoch);
    r->put_pace = MAX(uploader_behind(st) ? r->put_rate / BEHIND_FACTOR : r->put_rate, 1);
    storage_count(st, M_store_puts, 1);
    bg_submit(st->shard, &r->job, lane(st), put_run, put_done);
}

static void block_done(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    const struct block *b = &r->blocks[r->block_at];
    CHECK(r->step == REWRITE_READ);
    if (r->err == ERR_NONE) {
        r->read_bytes += b->bytes;
        count(r, M_compaction_read_bytes, M_merge_read_bytes, b->bytes);
    }
    if (given_up(r)) {
        give_up(r);
        return;
    }
    if (r->err != ERR_NONE) {
        storage_count(r->st, M_store_errors, r->err != ERR_CORRUPT);
        finish(r, r->err, "read a block");
        return;
    }
    u64 took = r->st->env->store->driver->local ? clock_mono_ns() - r->job_ns : 0;
    r->block_at++;
    if (r->block_at < r->block_count)
        rest(r, REWRITE_READ, rewrite_rest_ns(took, b->bytes, r->read_rate));
    else if (is_as_before(r))
        finish(r, ERR_NONE, "");
    else
        put(r);
}

static void put_done(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    CHECK(r->step == REWRITE_PUT);
    if (r->err == ERR_NONE)
        count(r, M_put_compacted_bytes, M_put_run_bytes, r->builder.bytes);
    if (r->err == ERR_NONE && !given_up(r)) {
        commit(r);
        return;
    }
    storage_count(r->st, M_store_errors, r->err != ERR_NONE);
    discard_unregistered(r->st, r->id, r->st->wal.epoch, r->builder.bytes);
    if (given_up(r))
        give_up(r);
    else
        finish(r, r->err, "write the object");
}

/* ---- the swap ---- */

static struct bundle_reg reg_of(const struct rewrite *r)
{
    return (struct bundle_reg){ .epoch = r->builder.epoch,
                                .object_bytes = r->builder.bytes,
                                .created_ms = r->created_ms,
                                .block_count = r->builder.entry_count,
                                .run = true,
                                .cover_from = r->cover_from,
                                .cover_to = r->to,
                                .clean_to = MIN(r->clean_to, r->to) };
}

static struct bytes reg_value(struct rewrite *r)
{
    u8 *raw;
    struct bundle_reg reg = reg_of(r);
    struct bytes value = bundle_reg_begin(&r->arena, &reg, &raw);
    CHECK(raw != NULL);
    for (u32 i = 0; i < reg.block_count; i++) {
        struct block b = bundle_entry_block(r->id, &r->builder.entries[i]);
        bundle_reg_set(raw, i, &r->p->key, &b);
    }
    bundle_reg_end(raw, value.len);
    return value;
}

/* A replaced run's registration goes, and the run is discarded; or it is retired. */
static void run_replace(struct meta_txn *t, const struct rewrite_run *run, struct bytes key,
                        struct meta_kv *kv, struct discard_note *note)
{
    if (run->retired && kv != NULL) {
        u8 *raw = (u8 *)(uintptr_t)kv->value.data; /* the copy in the arena */
        bundle_reg_retire(raw, kv->value.len);
        t->ops[t->op_count++] = (struct meta_op){ META_PUT, key, kv->value };
        return;
    }
    t->ops[t->op_count++] = (struct meta_op){ META_DELETE, key, { NULL, 0 } };
    t->ops[t->op_count++] = discard_op(note, &run->object);
}

/* The w/ key must be this life's, and the replaced runs' keys as they are now. */
static err commit_conditions(struct rewrite *r, struct meta_txn *t, char *keys,
                             struct discard_note *notes)
{
    struct meta *m = r->st->env->meta;
    struct meta_kv kv;
    err e = wal_meta_fence(r->st, r->st->wal.epoch, &t->compares[0], &r->arena);
    if (e != ERR_NONE)
        return e;
    t->compare_count = 2; /* the second: the run's own key is absent */
    for (u32 i = 0; i < r->run_count; i++) {
        struct bytes key = meta_key_bundle(keys + i * META_KEY_SIZE, r->runs[i].object.id);
        e = meta_get(m, key, &r->arena, &kv);
        if (e != ERR_NONE && e != ERR_NOT_FOUND)
            return e;
        t->compares[t->compare_count++] =
            (struct meta_compare){ key, e == ERR_NONE ? kv.revision : 0 };
        run_replace(t, &r->runs[i], key, e == ERR_NONE ? &kv : NULL, &notes[i]);
    }
    return ERR_NONE;
}

/* Only as PLANT_REMOVE_BEFORE_COMMIT: objects of which no block will be left. */
static void sources_remove(const struct rewrite *r)
{
    struct store *store = r->st->env->store;
    char name[BUNDLE_NAME_SIZE];
    for (u32 i = 0, same; i < r->block_count; i += same) {
        const struct bundle_info *info = retention_bundle(r->st, r->blocks[i].bundle);
        for (same = 1; i + same < r->block_count; same++)
            if (r->blocks[i + same].bundle != r->blocks[i].bundle)
                break;
        if (info != NULL && info->live == same)
            (void)store->driver->remove(store, bundle_name(name, info->id, info->epoch));
    }
}

static void commit_run(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    u32 n = r->run_count;
    if (PLANTED(PLANT_REMOVE_BEFORE_COMMIT) && r->filter == NULL)
        sources_remove(r);
    arena_reset(&r->arena);
    struct meta_op *ops = arena_alloc(&r->arena, (2 * n + 1) * sizeof *ops);
    struct meta_compare *compares = arena_alloc(&r->arena, (n + 2) * sizeof *compares);
    char *keys = arena_alloc(&r->arena, (n + 2) * META_KEY_SIZE);
    struct discard_note *notes = arena_alloc(&r->arena, (n + 1) * sizeof *notes);
    CHECK(ops != NULL && compares != NULL && keys != NULL && notes != NULL);
    struct meta_txn t = { compares, ops, 0, 1 };
    ops[0] = (struct meta_op){ META_PUT, meta_key_bundle(keys, r->id), reg_value(r) };
    compares[0].key = meta_key_wal(keys + (n + 1) * META_KEY_SIZE, r->st->wal.index);
    compares[1] = (struct meta_compare){ ops[0].key, 0 };
    r->err = commit_conditions(r, &t, keys + META_KEY_SIZE, notes);
    if (r->err == ERR_NONE)
        r->err = meta_commit(r->st->env->meta, &t);
    if (PLANTED(PLANT_RUN_BEFORE_OBJECT) && r->err == ERR_NONE)
        (void)object_put(r);
}

static void commit_done(struct bg_job *j);

/* Of the partition's blocks, how many lead into the run as its own. */
static u32 own_blocks(const struct rewrite *r, u64 run)
{
    const struct pindex *p = r->p;
    u32 n = 0;
    for (u32 i = p->dropped ? p->block_end : pindex_block_at(p, r->from);
         i < p->block_end && p->blocks[i].base_offset < r->to; i++)
        n += p->blocks[i].bundle == run && p->blocks[i].origin == 0;
    return n;
}

static void commit(struct rewrite *r)
{
    struct storage *st = r->st;
    set_step(r, REWRITE_COMMIT);
    r->tries++;
    r->p->swaps++;
    for (u32 i = 0; i < r->run_count; i++) {
        const struct bundle_info *info = retention_bundle(st, r->runs[i].object.id);
        r->runs[i].object.since_ms = discard_now_ms(st);
        r->runs[i].retired = info != NULL && info->live > own_blocks(r, info->id);
    }
    storage_count(st, M_meta_commits, 1);
    bg_submit(st->shard, &r->job, BG_META, commit_run, commit_done);
}

/* The run is registered: everything here changes to it at once. */
static void swap(struct rewrite *r)
{
    struct storage *st = r->st;
    struct pindex *p = r->p;
    struct bundle_reg reg = reg_of(r);
    u32 first = 0, blocks_count = reg.block_count;
    while (first < blocks_count &&
           (p->dropped || r->builder.entries[first].last_offset < p->start_offset))
        first++;
    retention_bundle_add(st, r->id, &reg, blocks_count - first, false);
    u32 *own = mem_alloc((r->run_count + 1) * sizeof *own);
    for (u32 i = 0; i < r->run_count; i++)
        own[i] = own_blocks(r, r->runs[i].object.id);
    struct block *blocks = mem_alloc((blocks_count + 1) * sizeof *blocks);
    for (u32 i = first; i < blocks_count; i++)
        blocks[i] = bundle_entry_block(r->id, &r->builder.entries[i]);
    if (!p->dropped) {
        pindex_swap_blocks(p, r->from, r->to, blocks + first, blocks_count - first,
                           r->filter == NULL);
        p->clean_end = MAX(p->clean_end, reg.clean_to);
    }
    mem_free(blocks);
    for (u32 i = 0; i < r->run_count; i++)
        retention_run_replaced(st, r->runs[i].object.id, r->runs[i].retired, own[i]);
    mem_free(own);
    r->written = true;
    r->written_bytes = reg.object_bytes;
    count(r, M_compaction_runs, M_merge_runs, 1);
    count(r, M_compaction_written_bytes, M_merge_written_bytes, reg.object_bytes);
}

static void commit_done(struct bg_job *j)
{
    struct rewrite *r = container_of(j, struct rewrite, job);
    CHECK(r->step == REWRITE_COMMIT);
    r->p->swaps--;
    if (r->err == ERR_NONE) {
        swap(r);
        finish(r, ERR_NONE, "");
        return;
    }
    if (r->err == ERR_CONFLICT || r->err == ERR_FENCED)
        storage_count(r->st, M_meta_conflicts, 1);
    if (given_up(r))
        give_up(r);
    else if (r->err == ERR_CONFLICT || r->err == ERR_FENCED || r->tries == COMMIT_TRIES)
        finish(r, r->err, "register the object");
    else
        rest(r, REWRITE_COMMIT,
             config_u64(r->st->env->cfg, CFG_store_retry_ms) * NS_PER_MS << r->tries);
}

bool rewrite_numbers_left(const struct storage *st)
{
    bool left = st->wal.epoch <= RUN_EPOCH_MAX && st->run_number < RUN_NUMBER_MAX;
    if (!left)
        LOG(WARN, compaction_out_of_numbers,
            "shard=%u epoch=%u number=%u effect=\"nothing is compacted\" remedy=\"restart the "
            "node; "
            "an epoch above %u needs a new data directory\"",
            st->shard->index, st->wal.epoch, st->run_number, RUN_EPOCH_MAX);
    return left;
}

i64 rewrite_begin(struct rewrite *r, i64 from, i64 to, u64 bytes)
{
    struct storage *st = r->st;
    CHECK(r->step == REWRITE_IDLE && !r->job.busy);
    CHECK(r->p->holds > 0);
    *r = (struct rewrite){ .st = st,
                           .p = r->p,
                           .filter = r->filter,
                           .clean_to = r->clean_to,
                           .read_rate = r->read_rate,
                           .put_rate = r->put_rate,
                           .done = r->done,
                           .created_ms = -1 };
    sources_choose(r, from, to, bytes);
    if (r->block_count == 0)
        return from;
    arena_init(&r->arena, 16 * KIB, COMMIT_BYTES_MAX);
    r->id = run_id(st->wal.index, st->wal.epoch, st->run_number++);
    bundle_builder_init(&r->builder, RUN_WAL | st->wal.index, bundle_seq(r->id), st->wal.epoch,
                        (u32)config_u64(st->env->cfg, CFG_store_block_bytes));
    block_next(r);
    return r->to;
}
