/* The block cache: blocks of objects in memory, loaded from the object store on background
 * threads, or from a local disk that has what was loaded before (disk_cache.c); counted by readers,
 * bounded by store.cache_bytes (this shard's share).
 *
 * States, and who moves them:
 *   QUEUED ──cache_pump──► LOADING ──load_end──► READY ──evicted──► gone
 *                                       └──────► FAILED: waiters are told, gone
 *   A load: what the disk has is read from there and checked as what comes from the store is
 *   (block_check); when it can't be read or does not hold, it is loaded from the store.
 *
 *  1. A block is in the table from creation to eviction or failure; one load per block,
 *     however many wait for it.
 *  2. Each class of readers has a pool: a part of the memory, and loads of its own on threads
 *     of its own. used_bytes counts LOADING and READY blocks, in the pool and in all. A pool
 *     may use what the other leaves, but whoever needs room takes it from the pool that is
 *     above its part: so scans of any length take nothing away from the tail, and the tail
 *     leaves catch-up its part.
 *  3. What can't be evicted (busy_bytes: LOADING, or a reader refers to it) of the catch-up
 *     pool stays within its part, or slow readers would hold what they borrowed.
 *  4. Bounds are passed only by what somebody waits for while readers hold everything else:
 *     one load of a pool at a time, because a fetch may hold one block while it waits for the
 *     next, and nobody would ever let go. What is above the limit goes as soon as its readers
 *     let go.
 *  5. READY blocks nobody refers to stand in their pool's `idle`, the first to go first.
 *     Blocks that a scan went through to the end, with no other on its way, go in at the
 *     front, others at the back. What was read ahead and not asked for yet stands in `unread`
 *     and goes last.
 *  6. A block with references is never evicted; a waiter gets its reference before it runs.
 *  7. Reads that somebody waits for start before read-ahead, which is for the catch-up pool,
 *     takes half of it at most, and evicts what was read ahead only when its stream is over.
 *  8. A block is its pool's until a tailing reader asks for one of catch-up: then it is the
 *     tail's. What nobody waits for any more, and is to be loaded all the same, is catch-up's.
 */
#include "ahead_int.h"
#include "clone_int.h"
#include "disk_cache.h"

#include "clock.h"
#include "hash.h"
#include "outage.h"
#include "plant.h"
#include "rooms.h"

#define CACHE_MAGIC 0xcac4e001u
/* Loads of a shard for catch-up from a store that shares a disk with the log. Sixteen at a time
 * made a write of the log wait for a second (p99); two still get most of what a disk gives. */
#define LOCAL_CATCHUP_READS 2u
#define LEFT_MAX 64u /* blocks that are to be loaded though nobody waits */

struct pool {
    enum bg_lane lane;
    u64 part_bytes; /* of the limit */
    u64 used_bytes, busy_bytes;
    u32 loading, loading_max;
    struct list queue; /* QUEUED, somebody waits, or did (cache_leave) */
    struct list idle;  /* READY without references */
};

struct cache {
    u32 magic;
    bool pumping;
    struct storage *st;
    struct cache_block *blocks; /* uthash by key */
    u64 used_bytes, limit_bytes;
    struct rooms rooms; /* free memory of blocks; with what is used within the limit */
    u64 ahead_bytes;    /* of blocks read ahead: LOADING or unread */
    u32 left;           /* QUEUED, and nobody waits any more */
    struct list unread; /* READY, read ahead, never referred to */
    struct pool pools[READ_CLASSES];
    struct outage outage; /* of reads from the store */
};

static void cache_check(const struct cache *c)
{
    MAGIC_CHECK(c, CACHE_MAGIC);
    const struct pool *tail = &c->pools[READ_TAIL], *catchup = &c->pools[READ_CATCHUP];
    CHECK(tail->loading <= tail->loading_max);
    CHECK(catchup->loading <= catchup->loading_max);
    CHECK(tail->used_bytes + catchup->used_bytes == c->used_bytes);
    CHECK(c->ahead_bytes <= catchup->used_bytes);
}

static void count_up(const struct cache *c, enum metric_id id)
{
    metric_add(c->st->shard->metrics, id, 1);
}

static void pool_init(struct pool *p, enum bg_lane lane, u64 part_bytes, u64 loading_max)
{
    p->lane = lane;
    p->part_bytes = part_bytes;
    p->loading_max = (u32)loading_max;
    list_init(&p->queue);
    list_init(&p->idle);
}

err cache_create(struct storage *st)
{
    const struct config *cfg = st->env->cfg;
    struct cache *c = MEM_NEW(struct cache);
    u32 shards = MAX(st->env->shard_count, 1);
    MAGIC_INIT(c, CACHE_MAGIC);
    c->st = st;
    c->limit_bytes = config_u64(cfg, CFG_store_cache_bytes) / shards;
    u64 catchup =
        MIN(config_u64(cfg, CFG_store_catchup_bytes) / shards, c->limit_bytes - c->limit_bytes / 4);
    pool_init(&c->pools[READ_TAIL], BG_READ, c->limit_bytes - catchup,
              config_u64(cfg, CFG_store_reads));
    u64 reads = config_u64(cfg, CFG_store_catchup_reads);
    if (st->env->store->driver->local)
        reads = MIN(reads, (u64)LOCAL_CATCHUP_READS);
    pool_init(&c->pools[READ_CATCHUP], BG_CATCHUP, catchup, reads);
    list_init(&c->unread);
    rooms_init(&c->rooms);
    st->cache = c;
    disk_cache_open(st);
    return ERR_NONE;
}

static void bytes_told(const struct cache *c)
{
    metric_set(c->st->shard->metrics, M_cache_bytes, c->used_bytes);
    metric_set(c->st->shard->metrics, M_cache_catchup_bytes, c->pools[READ_CATCHUP].used_bytes);
    metric_set(c->st->shard->metrics, M_readahead_bytes, c->ahead_bytes);
}

static void block_use(struct cache_block *b)
{
    struct cache *c = b->cache;
    c->used_bytes += b->key.bytes;
    c->pools[b->class].used_bytes += b->key.bytes;
    bytes_told(c);
}

static void block_unuse(struct cache_block *b)
{
    struct cache *c = b->cache;
    CHECK(c->pools[b->class].used_bytes >= b->key.bytes);
    c->used_bytes -= b->key.bytes;
    c->pools[b->class].used_bytes -= b->key.bytes;
    bytes_told(c);
}

static void block_set_busy(struct cache_block *b, bool busy)
{
    u64 *bytes = &b->cache->pools[b->class].busy_bytes;
    if (busy && !b->busy) {
        *bytes += b->key.bytes;
    } else if (!busy && b->busy) {
        CHECK(*bytes >= b->key.bytes);
        *bytes -= b->key.bytes;
    }
    b->busy = busy;
}

/* It was asked for, went or failed: no guess any more. */
static void block_unguess(struct cache_block *b, enum metric_id became)
{
    struct cache *c = b->cache;
    if (!b->ahead)
        return;
    b->ahead = false;
    if (b->state == CACHE_QUEUED) {
        CHECK(c->left > 0);
        c->left--;
        return;
    }
    CHECK(c->ahead_bytes >= b->key.bytes);
    c->ahead_bytes -= b->key.bytes;
    count_up(c, became);
    bytes_told(c);
    if (became == M_readahead_wasted)
        ahead_wasted(c->st, b->mark);
}

static void rooms_fit(struct cache *c)
{
    rooms_trim(&c->rooms, c->limit_bytes - MIN(c->used_bytes, c->limit_bytes));
}

static void block_free(struct cache *c, struct cache_block *b)
{
    CHECK(b->ref.count == 0);
    CHECK(!b->job.busy);
    CHECK(io_op_idle(&b->disk.op));
    CHECK(list_empty(&b->waiters));
    CHECK(!list_linked(&b->link));
    list_remove(&b->offered);
    block_unguess(b, M_readahead_wasted);
    block_set_busy(b, false);
    if (b->state != CACHE_QUEUED)
        block_unuse(b);
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): b is in the table, so there is one */
    HASH_DEL(c->blocks, b);
    rooms_give(&c->rooms, b->raw, b->key.bytes);
    rooms_fit(c);
    MAGIC_POISON(b);
    mem_free(b);
}

/* Nothing loads, nobody waits, nothing is written to the disk. */
bool cache_idle(const struct storage *st)
{
    const struct cache *c = st->cache;
    if (!disk_cache_idle(st))
        return false;
    for (u32 i = 0; c != NULL && i < READ_CLASSES; i++)
        if (c->pools[i].loading > 0 || !list_empty(&c->pools[i].queue))
            return false;
    return true;
}

void cache_free(struct storage *st)
{
    struct cache *c = st->cache;
    if (c == NULL)
        return;
    cache_check(c);
    CHECK(cache_idle(st));
    struct cache_block *b, *next;
    HASH_ITER(hh, c->blocks, b, next) {
        CHECK(b->ref.count == 0);
        list_remove(&b->link);
        block_free(c, b);
    }
    disk_cache_close(st);
    rooms_trim(&c->rooms, 0);
    MAGIC_POISON(c);
    mem_free(c);
    st->cache = NULL;
}

u64 cache_ahead_bytes(const struct storage *st)
{
    return st->cache->pools[READ_CATCHUP].part_bytes / 2;
}

/* ---- references and eviction ---- */

void cache_hold(struct cache_block *b)
{
    CHECK(b->state == CACHE_READY);
    list_remove(&b->link);
    block_set_busy(b, true);
    ref_get(&b->ref);
}

/* For a reader. */
static void block_take(struct cache_block *b)
{
    block_unguess(b, M_readahead_used);
    cache_hold(b);
}

static void block_set_class(struct cache_block *b, enum read_class class)
{
    bool busy = b->busy;
    block_set_busy(b, false);
    if (b->state != CACHE_QUEUED)
        block_unuse(b);
    b->class = class;
    if (b->state != CACHE_QUEUED)
        block_use(b);
    block_set_busy(b, busy);
}

static void evict(struct cache *c, struct list *l)
{
    list_remove(l);
    block_free(c, list_entry(l, struct cache_block, link));
    count_up(c, M_cache_evictions);
}

static bool evict_one(struct cache *c, enum read_class class, bool unread)
{
    struct list *from = &c->pools[class].idle;
    if (list_empty(from) && unread && class == READ_CATCHUP)
        from = &c->unread;
    if (list_empty(from))
        return false;
    evict(c, from->next);
    return true;
}

/* From the pool that is above its part, were `bytes` more in that of `class`. */
static bool evict_for(struct cache *c, enum read_class class, u64 bytes, bool unread)
{
    const struct pool *p = &c->pools[READ_CATCHUP];
    u64 more = class == READ_CATCHUP ? bytes : 0;
    enum read_class above = p->used_bytes + more > p->part_bytes ? READ_CATCHUP : READ_TAIL;
    return evict_one(c, above, unread) || (above != class && evict_one(c, class, unread));
}

static void block_released(struct ref *r)
{
    struct cache_block *b = container_of(r, struct cache_block, ref);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    CHECK(b->state == CACHE_READY);
    CHECK(!list_linked(&b->link));
    struct cache *c = b->cache;
    struct pool *p = &c->pools[b->class];
    block_set_busy(b, false);
    if (b->ahead)
        list_push_back(&c->unread, &b->link);
    else if (b->cold)
        list_push_front(&p->idle, &b->link);
    else
        list_push_back(&p->idle, &b->link);
    while (c->used_bytes > c->limit_bytes && evict_for(c, READ_TAIL, 0, true)) /* may free b */
        ;
    cache_pump(c->st);
}

/* Makes room for `bytes`; false when what is there is in use. Read-ahead spares what was read
 * ahead. */
static bool make_room(struct cache *c, enum read_class class, u64 bytes, bool unread)
{
    while (c->used_bytes + bytes > c->limit_bytes)
        if (!evict_for(c, class, bytes, unread))
            return false;
    return true;
}

/* ---- loading ---- */

/* The one rule for what may be served, wherever it was read. */
static err block_check(struct cache_block *b)
{
    struct bundle_entry e;
    if (b->from_disk && PLANTED(PLANT_DISK_UNCHECKED)) {
        b->data =
            bytes_of(b->raw + BUNDLE_BLOCK_HEADER_BYTES, b->key.bytes - BUNDLE_BLOCK_HEADER_BYTES);
        return ERR_NONE;
    }
    err decoded = bundle_block_decode(bytes_of(b->raw, b->key.bytes), &e, &b->data);
    if (decoded != ERR_NONE)
        return decoded;
    bool expected = e.base_offset == b->base_offset && e.last_offset == b->last_offset &&
                    partition_key_eq(&e.key, &b->part) && (!b->from_disk || e.hash == b->disk.hash);
    b->hash = e.hash;
    return expected ? ERR_NONE : ERR_CORRUPT;
}

static void store_run(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    struct store *store =
        store_for(b->store, b->load_class == READ_CATCHUP ? STORE_CATCHUP : STORE_TAIL);
    b->err = store->driver->get_range(store, b->name, b->key.pos, b->raw, b->key.bytes);
    if (b->err != ERR_NONE)
        return;
    rooms_pad(b->raw, b->key.bytes);
    b->err = block_check(b);
}

static void disk_run(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    b->err = block_check(b);
}

static void load_tell(const struct cache_block *b)
{
    struct outage *o = &b->cache->outage, was;
    u64 now = b->cache->st->shard->now_ns;
    if (b->err == ERR_NONE) {
        if (!b->from_disk && outage_over(o, &was))
            LOG(INFO, objects_read_again, "shard=%u failures=%" PRIu64 " seconds=%" PRIu64,
                b->cache->st->shard->index, was.failures, outage_seconds(&was, now));
    } else if (b->err == ERR_CORRUPT || b->err == ERR_TRUNCATED) {
        LOG(ERROR, object_corrupt,
            "object=%s offset=%u bytes=%u error=%s remedy=\"restore the object from a copy; the "
            "batches in this block cannot be served\"",
            b->name, b->key.pos, b->key.bytes, err_name(b->err));
    } else if (b->err == ERR_NOT_FOUND || outage_failed(o, now, b->err)) {
        LOG(WARN, object_read_failed,
            "shard=%u object=%s offset=%u bytes=%u error=%s text=\"%s\" failures=%" PRIu64
            " seconds=%" PRIu64 " remedy=\"%s\"",
            b->cache->st->shard->index, b->name, b->key.pos, b->key.bytes, err_name(b->err),
            err_text(b->err), o->failures, outage_seconds(o, now),
            b->err == ERR_NOT_FOUND ? "bring the object back from a copy"
                                    : "check the object store; readers go on by themselves then");
    }
}

/* Hands the result to everyone who waits; each may do anything in its fn. */
static void block_wake(struct cache_block *b)
{
    struct list woken;
    list_init(&woken);
    list_splice_back(&woken, &b->waiters);
    err e = b->err;
    struct list *l;
    while ((l = list_pop_front(&woken)) != NULL) {
        struct cache_wait *w = list_entry(l, struct cache_wait, link);
        if (e == ERR_NONE)
            block_take(b);
        w->fn(w, e);
    }
}

static void load_end(struct cache_block *b)
{
    struct cache *c = b->cache;
    struct storage *st = c->st;
    cache_check(c);
    CHECK(b->state == CACHE_LOADING);
    CHECK(c->pools[b->load_class].loading > 0);
    c->pools[b->load_class].loading--;
    load_tell(b);
    if (b->err == ERR_NONE) {
        b->state = CACHE_READY;
        /* Held while waking: the last waiter's release must not meet its own eviction. */
        ref_get(&b->ref);
        if (!b->from_disk)
            disk_cache_offer(st, b);
        block_wake(b);
        ref_put(&b->ref);
    } else {
        b->state = CACHE_FAILED;
        block_wake(b);
        block_free(c, b);
    }
    cache_pump(st);
}

static void store_done(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    struct metrics *m = b->cache->st->shard->metrics;
    metric_observe(m, H_store_get, (clock_mono_ns() - b->started_ns) / NS_PER_US);
    if (b->err == ERR_NONE)
        metric_add(m, M_store_read_bytes, b->key.bytes);
    else
        metric_add(m, M_store_errors, 1);
    load_end(b);
}

static void store_begin(struct cache_block *b)
{
    struct cache *c = b->cache;
    b->from_disk = false;
    b->started_ns = clock_mono_ns();
    count_up(c, M_store_gets);
    bg_submit(c->st->shard, &b->job, c->pools[b->load_class].lane, store_run, store_done);
}

static void disk_done(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    if (b->err == ERR_NONE) {
        load_end(b);
        return;
    }
    LOG(WARN, disk_cache_bad,
        "shard=%u object=%s offset=%u bytes=%u error=%s effect=\"it is read from the object "
        "store\" remedy=\"if there are more, check the disk that store.disk_cache.path is on\"",
        b->cache->st->shard->index, b->name, b->key.pos, b->key.bytes, err_name(b->err));
    disk_cache_bad(b->cache->st, &b->key);
    store_begin(b);
}

static void disk_read_done(struct disk_read *r)
{
    struct cache_block *b = container_of(r, struct cache_block, disk);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    struct cache *c = b->cache;
    if (r->err == ERR_NONE)
        bg_submit(c->st->shard, &b->job, c->pools[b->load_class].lane, disk_run, disk_done);
    else
        store_begin(b);
}

static void load_begin(struct cache *c, struct cache_block *b)
{
    CHECK(b->state == CACHE_QUEUED);
    b->state = CACHE_LOADING;
    b->load_class = b->class;
    c->pools[b->class].loading++;
    block_use(b);
    block_set_busy(b, true);
    b->raw = rooms_take(&c->rooms, b->key.bytes); /* read in full or not looked at */
    rooms_fit(c);
    if (b->ahead) {
        c->ahead_bytes += b->key.bytes;
        count_up(c, M_readahead_issued);
        bytes_told(c);
    }
    b->from_disk = disk_cache_read(c->st, &b->key, b->raw, b->class, &b->disk, disk_read_done);
    if (!b->from_disk)
        store_begin(b);
}

static void pool_pump(struct cache *c, enum read_class class)
{
    struct pool *p = &c->pools[class];
    while (p->loading < p->loading_max && !list_empty(&p->queue)) {
        struct cache_block *b = list_entry(p->queue.next, struct cache_block, link);
        u64 bytes = b->key.bytes;
        bool within = class == READ_TAIL || p->busy_bytes + bytes <= p->part_bytes;
        /* Readers may hold all there is and wait for this very block: one load always goes. */
        if (!within && p->loading > 0)
            return;
        if (!make_room(c, class, bytes, true) && p->loading > 0)
            return;
        list_remove(&b->link);
        if (b->ahead)
            c->left--;
        load_begin(c, b);
    }
}

void cache_pump(struct storage *st)
{
    struct cache *c = st->cache;
    cache_check(c);
    if (c->pumping)
        return;
    c->pumping = true;
    pool_pump(c, READ_TAIL);
    pool_pump(c, READ_CATCHUP);
    c->pumping = false;
}

static struct cache_block *block_find(struct cache *c, const struct block *b)
{
    struct cache_key key = { .bundle = b->bundle, .pos = b->pos, .bytes = b->bytes };
    struct cache_block *found;
    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): uthash reads by bytes */
    HASH_FIND(hh, c->blocks, &key, sizeof key, found);
    return found;
}

/* NULL: the bundle is not registered (any more). */
static struct cache_block *block_new(struct cache *c, const struct pindex *p, const struct block *b,
                                     enum read_class class)
{
    const struct bundle_info *info = retention_bundle(c->st, b->bundle);
    if (info == NULL)
        return NULL;
    struct cache_block *n = MEM_NEW(struct cache_block);
    MAGIC_INIT(n, CACHE_BLOCK_MAGIC);
    ref_init(&n->ref, block_released);
    n->state = CACHE_QUEUED;
    n->class = class;
    n->cache = c;
    n->store = c->st->env->store;
    n->key = (struct cache_key){ .bundle = b->bundle, .pos = b->pos, .bytes = b->bytes };
    n->base_offset = b->base_offset;
    n->last_offset = b->last_offset;
    n->part = block_key(p, b);
    bundle_name(n->name, b->bundle, info->epoch);
    list_init(&n->link);
    list_init(&n->offered);
    list_init(&n->waiters);
    HASH_ADD(hh, c->blocks, key, sizeof n->key, n);
    return n;
}

/* A tailing reader asks for it. */
static void block_promote(struct cache *c, struct cache_block *b, enum read_class class)
{
    if (class != READ_TAIL || b->class == READ_TAIL)
        return;
    block_unguess(b, b->state == CACHE_READY ? M_readahead_used : M_readahead_late);
    if (b->state == CACHE_QUEUED) {
        list_remove(&b->link);
        list_push_back(&c->pools[READ_TAIL].queue, &b->link);
    }
    block_set_class(b, READ_TAIL);
}

struct cache_block *cache_get(struct storage *st, const struct block *b, enum read_class class)
{
    struct cache *c = st->cache;
    cache_check(c);
    struct cache_block *found = block_find(c, b);
    bool hit = found != NULL && found->state == CACHE_READY;
    count_up(c, hit ? M_cache_hits : M_cache_misses);
    if (!hit)
        return NULL;
    block_promote(c, found, class);
    block_take(found);
    return found;
}

err cache_load(struct storage *st, const struct pindex *p, const struct block *b,
               enum read_class class, struct cache_wait *w)
{
    struct cache *c = st->cache;
    cache_check(c);
    struct cache_block *found = block_find(c, b);
    if (found == NULL) {
        found = block_new(c, p, b, class);
        if (found == NULL)
            return ERR_NOT_FOUND;
        list_push_back(&c->pools[class].queue, &found->link);
    } else {
        CHECK(found->state == CACHE_QUEUED || found->state == CACHE_LOADING);
        count_up(c, M_cache_coalesced);
        block_promote(c, found, class);
        block_unguess(found, M_readahead_late);
    }
    w->block = found;
    list_push_back(&found->waiters, &w->link);
    cache_pump(st);
    return ERR_NONE;
}

void cache_unwait(struct cache_wait *w)
{
    struct cache_block *b = w->block;
    list_remove(&w->link);
    /* Nobody wants it any more, and it has not begun. */
    if (b->state == CACHE_QUEUED && list_empty(&b->waiters)) {
        list_remove(&b->link);
        block_free(b->cache, b);
    }
}

void cache_leave(struct cache_wait *w, struct ahead_mark mark)
{
    struct cache_block *b = w->block;
    struct cache *c = b->cache;
    bool queued = b->state == CACHE_QUEUED;
    bool last = w->link.next == w->link.prev;
    if (!last || (queued && c->left >= LEFT_MAX)) {
        cache_unwait(w);
        return;
    }
    list_remove(&w->link);
    if (queued && b->class == READ_TAIL) {
        list_remove(&b->link);
        b->class = READ_CATCHUP;
        list_push_back(&c->pools[READ_CATCHUP].queue, &b->link);
    }
    if (b->class == READ_TAIL)
        return;
    b->ahead = true;
    b->mark = mark;
    if (queued) {
        c->left++;
        return;
    }
    c->ahead_bytes += b->key.bytes;
    count_up(c, M_readahead_issued);
    bytes_told(c);
}

/* ---- read-ahead ---- */

/* Of streams that are over: nobody will ask for it. */
static void evict_abandoned(struct cache *c)
{
    while (!list_empty(&c->unread)) {
        struct cache_block *b = list_entry(c->unread.next, struct cache_block, link);
        if (ahead_alive(c->st, b->mark))
            return;
        evict(c, &b->link);
    }
}

bool cache_ahead(struct storage *st, const struct pindex *p, const struct block *b,
                 struct ahead_mark mark)
{
    struct cache *c = st->cache;
    cache_check(c);
    struct pool *pool = &c->pools[READ_CATCHUP];
    struct cache_block *found = block_find(c, b);
    if (found != NULL) {
        found->mark = mark; /* of whoever is on the way to it now */
        return true;
    }
    if (pool->loading >= pool->loading_max || !list_empty(&pool->queue))
        return false;
    evict_abandoned(c);
    if (c->ahead_bytes + b->bytes > cache_ahead_bytes(st) ||
        pool->busy_bytes + b->bytes > pool->part_bytes ||
        !make_room(c, READ_CATCHUP, b->bytes, false))
        return false;
    struct cache_block *n = block_new(c, p, b, READ_CATCHUP);
    if (n == NULL)
        return false;
    n->ahead = true;
    n->mark = mark;
    load_begin(c, n);
    return true;
}
