/* The block cache: blocks of bundles in memory, loaded from the object store on background
 * threads, counted by readers, bounded by store.cache_bytes (this shard's share).
 *
 * States, and who moves them:
 *   QUEUED ──cache_pump──► LOADING ──load_done──► READY ──evicted──► gone
 *                                        └──────► FAILED: waiters are told, gone
 *
 *  1. A block is in the table from creation to eviction or failure; one load per block, however
 *     many wait for it.
 *  2. used_bytes counts LOADING and READY blocks. It passes the limit only by what somebody waits
 *     for while readers hold everything else: one load at a time, because a fetch may hold one
 *     block while it waits for the next, and nobody would ever let go. What is above the limit
 *     goes as soon as its readers let go.
 *  3. READY blocks nobody refers to stand in `age`, the first to go first. Blocks that a reader
 *     went through to the end (a scan will not come back) and failed guesses of read-ahead go in
 *     at the front, others at the back.
 *  4. A block with references is never evicted; a waiter gets its reference before it runs.
 *  5. Reads that somebody waits for start before read-ahead, which only takes free room.
 */
#include "bundle_int.h"

#include "clock.h"
#include "hash.h"

#define CACHE_MAGIC 0xcac4e001u

struct cache {
    u32 magic;
    struct storage *st;
    struct cache_block *blocks; /* uthash by key */
    u64 used_bytes, limit_bytes;
    u32 loading, loading_max;
    struct list queue; /* QUEUED, somebody waits */
    struct list age;   /* READY without references */
    bool pumping;
};

static void cache_check(const struct cache *c)
{
    MAGIC_CHECK(c, CACHE_MAGIC);
    CHECK(c->loading <= c->loading_max);
}

err cache_create(struct storage *st)
{
    const struct config *cfg = st->env->cfg;
    struct cache *c = MEM_NEW(struct cache);
    MAGIC_INIT(c, CACHE_MAGIC);
    c->st = st;
    c->limit_bytes = config_u64(cfg, CFG_store_cache_bytes) / MAX(st->env->shard_count, 1);
    c->loading_max = (u32)config_u64(cfg, CFG_store_reads);
    list_init(&c->queue);
    list_init(&c->age);
    st->cache = c;
    return ERR_NONE;
}

static void block_free(struct cache *c, struct cache_block *b)
{
    CHECK(b->ref.count == 0);
    CHECK(!b->job.busy);
    CHECK(list_empty(&b->waiters));
    CHECK(!list_linked(&b->link));
    if (b->state == CACHE_READY || b->state == CACHE_LOADING) {
        CHECK(c->used_bytes >= b->key.bytes);
        c->used_bytes -= b->key.bytes;
        metric_set(c->st->shard->metrics, M_cache_bytes, c->used_bytes);
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): b is in the table, so there is one */
    HASH_DEL(c->blocks, b);
    mem_free(b->raw);
    MAGIC_POISON(b);
    mem_free(b);
}

/* Nothing loads and nobody waits. */
bool cache_idle(const struct storage *st)
{
    const struct cache *c = st->cache;
    return c == NULL || (c->loading == 0 && list_empty(&c->queue));
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
    MAGIC_POISON(c);
    mem_free(c);
    st->cache = NULL;
}

u64 cache_ahead_bytes(const struct storage *st)
{
    return st->cache->limit_bytes / 8;
}

/* ---- references and eviction ---- */

static void block_take(struct cache_block *b)
{
    CHECK(b->state == CACHE_READY);
    list_remove(&b->link);
    b->ahead = false;
    ref_get(&b->ref);
}

static bool evict_one(struct cache *c)
{
    struct list *l = list_pop_front(&c->age);
    if (l == NULL)
        return false;
    block_free(c, list_entry(l, struct cache_block, link));
    metric_add(c->st->shard->metrics, M_cache_evictions, 1);
    return true;
}

static void block_released(struct ref *r)
{
    struct cache_block *b = container_of(r, struct cache_block, ref);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    CHECK(b->state == CACHE_READY);
    CHECK(!list_linked(&b->link));
    if (b->cold)
        list_push_front(&b->cache->age, &b->link);
    else
        list_push_back(&b->cache->age, &b->link);
    struct cache *c = b->cache;
    while (c->used_bytes > c->limit_bytes && evict_one(c)) /* may free b */
        ;
    if (!list_empty(&c->queue))
        cache_pump(c->st);
}

/* Makes room for `bytes`; false when what is there is in use. */
static bool make_room(struct cache *c, u64 bytes)
{
    while (c->used_bytes + bytes > c->limit_bytes)
        if (!evict_one(c))
            return false;
    return true;
}

/* ---- loading ---- */

static void load_run(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    b->raw = mem_realloc(NULL, b->key.bytes); /* not zeroed: read in full or not looked at */
    b->err = b->store->driver->get_range(b->store, b->name, b->key.pos, b->raw, b->key.bytes);
    if (b->err != ERR_NONE)
        return;
    struct bundle_entry e;
    b->err = bundle_block_decode(bytes_of(b->raw, b->key.bytes), &e, &b->data);
    if (b->err != ERR_NONE)
        return;
    bool expected = e.base_offset == b->base_offset && e.last_offset == b->last_offset &&
                    e.key.partition == b->part.partition &&
                    uuid_eq(e.key.topic_id, b->part.topic_id);
    if (!expected)
        b->err = ERR_CORRUPT;
}

static void load_tell(const struct cache_block *b)
{
    if (b->err == ERR_CORRUPT || b->err == ERR_TRUNCATED)
        LOG(ERROR, object_corrupt,
            "object=%s offset=%u bytes=%u error=%s remedy=\"restore the object from a copy; the "
            "batches in this block cannot be served\"",
            b->name, b->key.pos, b->key.bytes, err_name(b->err));
    else
        LOG(WARN, object_read_failed, "object=%s offset=%u bytes=%u error=%s text=\"%s\"", b->name,
            b->key.pos, b->key.bytes, err_name(b->err), err_text(b->err));
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

static void load_done(struct bg_job *j)
{
    struct cache_block *b = container_of(j, struct cache_block, job);
    MAGIC_CHECK(b, CACHE_BLOCK_MAGIC);
    struct cache *c = b->cache;
    struct storage *st = c->st;
    cache_check(c);
    CHECK(b->state == CACHE_LOADING);
    CHECK(c->loading > 0);
    c->loading--;
    metric_observe(st->shard->metrics, H_store_get, (clock_mono_ns() - b->started_ns) / NS_PER_US);
    if (b->err == ERR_NONE) {
        metric_add(st->shard->metrics, M_store_read_bytes, b->key.bytes);
        b->state = CACHE_READY;
        list_push_back(&c->age, &b->link);
        /* Held while waking: the last waiter's release must not meet its own eviction. */
        block_take(b);
        block_wake(b);
        ref_put(&b->ref);
    } else {
        metric_add(st->shard->metrics, M_store_errors, 1);
        load_tell(b);
        c->used_bytes -= b->key.bytes;
        b->state = CACHE_FAILED;
        block_wake(b);
        block_free(c, b);
    }
    cache_pump(st);
}

static void load_begin(struct cache *c, struct cache_block *b)
{
    CHECK(b->state == CACHE_QUEUED);
    b->state = CACHE_LOADING;
    b->started_ns = clock_mono_ns();
    c->loading++;
    c->used_bytes += b->key.bytes;
    metric_set(c->st->shard->metrics, M_cache_bytes, c->used_bytes);
    metric_add(c->st->shard->metrics, M_store_gets, 1);
    bg_submit(c->st->shard, &b->job, BG_READ, load_run, load_done);
}

void cache_pump(struct storage *st)
{
    struct cache *c = st->cache;
    cache_check(c);
    if (c->pumping)
        return;
    c->pumping = true;
    while (c->loading < c->loading_max && !list_empty(&c->queue)) {
        struct cache_block *b = list_entry(c->queue.next, struct cache_block, link);
        /* Readers may hold all there is and wait for this very block: one load always goes. */
        if (!make_room(c, b->key.bytes) && c->loading > 0)
            break;
        list_remove(&b->link);
        load_begin(c, b);
    }
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
static struct cache_block *block_new(struct cache *c, const struct pindex *p, const struct block *b)
{
    const struct bundle_info *info = retention_bundle(c->st, b->bundle);
    if (info == NULL)
        return NULL;
    struct cache_block *n = MEM_NEW(struct cache_block);
    MAGIC_INIT(n, CACHE_BLOCK_MAGIC);
    ref_init(&n->ref, block_released);
    n->state = CACHE_QUEUED;
    n->cache = c;
    n->store = c->st->env->store;
    n->key = (struct cache_key){ .bundle = b->bundle, .pos = b->pos, .bytes = b->bytes };
    n->base_offset = b->base_offset;
    n->last_offset = b->last_offset;
    n->part = p->key;
    bundle_name(n->name, b->bundle, info->epoch);
    list_init(&n->link);
    list_init(&n->waiters);
    HASH_ADD(hh, c->blocks, key, sizeof n->key, n);
    return n;
}

struct cache_block *cache_get(struct storage *st, const struct block *b)
{
    struct cache *c = st->cache;
    cache_check(c);
    struct cache_block *found = block_find(c, b);
    bool hit = found != NULL && found->state == CACHE_READY;
    metric_add(st->shard->metrics, hit ? M_cache_hits : M_cache_misses, 1);
    if (!hit)
        return NULL;
    block_take(found);
    return found;
}

err cache_load(struct storage *st, const struct pindex *p, const struct block *b,
               struct cache_wait *w)
{
    struct cache *c = st->cache;
    cache_check(c);
    struct cache_block *found = block_find(c, b);
    if (found == NULL) {
        found = block_new(c, p, b);
        if (found == NULL)
            return ERR_NOT_FOUND;
        list_push_back(&c->queue, &found->link);
    }
    CHECK(found->state == CACHE_QUEUED || found->state == CACHE_LOADING);
    found->ahead = false;
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

bool cache_ahead(struct storage *st, const struct pindex *p, const struct block *b)
{
    struct cache *c = st->cache;
    cache_check(c);
    if (c->loading >= c->loading_max || !list_empty(&c->queue))
        return false;
    if (block_find(c, b) != NULL)
        return true;
    if (b->bytes > c->limit_bytes || !make_room(c, b->bytes))
        return false;
    struct cache_block *n = block_new(c, p, b);
    if (n == NULL)
        return false;
    n->ahead = true;
    load_begin(c, n);
    return true;
}
