/* Retention: where a partition's log may start, and objects that nobody refers to any more.
 *
 * Every bundle and run with blocks of this shard's partitions has a bundle_info that counts the
 * blocks still in an index. At 0 it is collected:
 *
 *   live 0 ─► UNREGISTER (metadata) ─► GRACE (store.delete_delay) ─► REMOVE (object) ─► gone
 *
 *  1. The object is deleted only after the transaction that unregisters it is durable and in the
 *     backup, and after a pause longer than a reader holds on to a block it has looked up.
 *  2. A bundle may hold blocks of other shards, if it was made under another shard count: then this
 *     shard takes its blocks out of the registration, and the one that takes the last deletes it.
 *  3. Anything that fails or is cut off by a stop is done again at the next start: a registration
 *     without live blocks is loaded with live 0, an object without registration is an orphan
 *     (uploader.c). So nothing here has to be remembered.
 */
#include "bundle_int.h"

#include <stdio.h>

#define RETENTION_MAGIC 0x5e7e0001u
#define RETRY_NS (5 * NS_PER_S)
#define REG_BYTES_MAX GIB
/* Jobs given to the background at a time: a deleted topic may free thousands of bundles. */
#define COLLECTS_RUNNING_MAX 4u

struct retention {
    u32 magic;
    struct storage *st;
    struct bundle_info *bundles; /* uthash by id */
    u32 bundle_count;
    struct list waiting; /* collects whose job has not begun */
    struct list resting; /* in GRACE or before a retry */
    u32 running;
    bool started; /* the shard turns: jobs may run */
    struct timer start_timer;
};

struct collect {
    struct bg_job job;
    struct timer timer;
    struct list link;
    struct storage *st;
    u64 id;
    u32 epoch;
    bool foreign, unregistered, keep_object;
    u64 mark; /* of the transaction that unregistered it: backup_holds */
    u32 tries;
    err err;
};

static void collects_begin(struct retention *r);

/* Not from within a start that may yet fail and take everything down again. */
static void start_fire(struct timer *t)
{
    struct retention *r = container_of(t, struct retention, start_timer);
    r->started = true;
    collects_begin(r);
}

err retention_create(struct storage *st)
{
    struct retention *r = MEM_NEW(struct retention);
    MAGIC_INIT(r, RETENTION_MAGIC);
    r->st = st;
    list_init(&r->waiting);
    list_init(&r->resting);
    st->retention = r;
    timer_start(&st->shard->timers, &r->start_timer, st->shard->now_ns, start_fire);
    return ERR_NONE;
}

bool retention_idle(const struct storage *st)
{
    return st->retention == NULL || st->retention->running == 0;
}

static void collects_free(struct storage *st, struct list *l)
{
    struct list *it;
    while ((it = list_pop_front(l)) != NULL) {
        struct collect *c = list_entry(it, struct collect, link);
        timer_stop(&st->shard->timers, &c->timer);
        mem_free(c);
    }
}

void retention_free(struct storage *st)
{
    struct retention *r = st->retention;
    if (r == NULL)
        return;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    CHECK(r->running == 0);
    timer_stop(&st->shard->timers, &r->start_timer);
    collects_free(st, &r->waiting);
    collects_free(st, &r->resting);
    struct bundle_info *b, *next;
    HASH_ITER(hh, r->bundles, b, next) {
        HASH_DEL(r->bundles, b);
        mem_free(b);
    }
    MAGIC_POISON(r);
    mem_free(r);
    st->retention = NULL;
}

/* ---- what may go ---- */

/* The time that counts for a block: batches without timestamps are as old as their object. */
static i64 block_age_ms(const struct storage *st, const struct block *b)
{
    if (b->max_timestamp >= 0)
        return b->max_timestamp;
    const struct bundle_info *info = retention_bundle(st, b->bundle);
    return info != NULL ? info->created_ms : INT64_MAX;
}

i64 pindex_retention_offset(const struct pindex *p, i64 bytes, i64 min_timestamp)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    i64 start = p->start_offset;
    u64 left = pindex_bytes(p);
    for (u32 i = p->block_head; i < p->block_end; i++) {
        const struct block *b = &p->blocks[i];
        u64 without = left - MIN(left, (u64)b->data_bytes);
        bool large = bytes >= 0 && without >= (u64)bytes;
        bool old = min_timestamp >= 0 && block_age_ms(p->st, b) < min_timestamp;
        if (!large && !old)
            break;
        left = without;
        start = MAX(start, b->last_offset + 1);
    }
    return MIN(start, p->durable_offset);
}

/* ---- collecting ---- */

static void collect_unregister_run(struct bg_job *j);
static void collect_unregister_done(struct bg_job *j);
static void collect_remove_run(struct bg_job *j);
static void collect_remove_done(struct bg_job *j);

static void collects_begin(struct retention *r)
{
    struct storage *st = r->st;
    if (!r->started)
        return;
    while (r->running < COLLECTS_RUNNING_MAX && !list_empty(&r->waiting) && !st->stopping) {
        struct collect *c = list_entry(list_pop_front(&r->waiting), struct collect, link);
        r->running++;
        if (c->unregistered)
            bg_submit(st->shard, &c->job, BG_MISC, collect_remove_run, collect_remove_done);
        else
            bg_submit(st->shard, &c->job, BG_META, collect_unregister_run, collect_unregister_done);
    }
}

static void collect_rest(struct collect *c, u64 ns);

static void collect_rested(struct timer *t)
{
    struct collect *c = container_of(t, struct collect, timer);
    struct retention *r = c->st->retention;
    list_remove(&c->link);
    if (c->unregistered && !backup_holds(c->st->env->backup, c->mark)) {
        collect_rest(c, RETRY_NS);
        return;
    }
    list_push_back(&r->waiting, &c->link);
    collects_begin(r);
}

static void collect_rest(struct collect *c, u64 ns)
{
    list_push_back(&c->st->retention->resting, &c->link);
    timer_start(&c->st->shard->timers, &c->timer, c->st->shard->now_ns + ns, collect_rested);
}

static void collect_failed(struct collect *c, const char *what)
{
    char name[BUNDLE_NAME_SIZE];
    LOG(WARN, bundle_not_deleted,
        "shard=%u object=%s what=\"%s\" error=%s text=\"%s\" tries=%u effect=\"it takes up space "
        "until a later try\"",
        c->st->shard->index, bundle_name(name, c->id, c->epoch), what, err_name(c->err),
        err_text(c->err), c->tries + 1);
    collect_rest(c, RETRY_NS << MIN(c->tries, 6u));
    c->tries++;
}

/* The registration without this shard's blocks. No data: nobody else's are in it. */
static struct bytes reg_without_mine(struct storage *st, const struct bundle_reg *reg, u64 id,
                                     struct arena *a)
{
    struct bundle_reg rest = *reg;
    struct partition_key key;
    struct block b;
    rest.block_count = 0;
    for (u32 i = 0; i < reg->block_count; i++) {
        bundle_reg_get(reg, i, id, &key, &b);
        rest.block_count += storage_shard_of(&key, st->env->shard_count) != st->shard->index;
    }
    if (rest.block_count == 0)
        return (struct bytes){ NULL, 0 };
    u8 *raw;
    struct bytes value = bundle_reg_begin(a, &rest, &raw);
    u32 n = 0;
    for (u32 i = 0; raw != NULL && i < reg->block_count; i++) {
        bundle_reg_get(reg, i, id, &key, &b);
        if (storage_shard_of(&key, st->env->shard_count) != st->shard->index)
            bundle_reg_set(raw, n++, &key, &b);
    }
    if (raw != NULL)
        bundle_reg_end(raw, value.len);
    return value;
}

/* Conditional on the registration as read: another shard may take its blocks out meanwhile. */
static err unregister_shared(struct collect *c, struct bytes key, struct arena *a)
{
    struct meta *m = c->st->env->meta;
    struct meta_kv kv;
    struct bundle_reg reg;
    err e = meta_get(m, key, a, &kv);
    if (e != ERR_NONE)
        return e == ERR_NOT_FOUND ? ERR_NONE : e;
    e = bundle_reg_decode(kv.value, &reg);
    if (e != ERR_NONE)
        return e;
    struct bytes rest = reg_without_mine(c->st, &reg, c->id, a);
    c->keep_object = rest.data != NULL;
    struct meta_compare compare = { .key = key, .revision = kv.revision };
    struct meta_op op = { rest.data != NULL ? META_PUT : META_DELETE, key, rest };
    struct meta_txn t = { &compare, &op, 1, 1 };
    return meta_commit(m, &t);
}

static void objects_tell(const struct retention *r)
{
    if (r->st->shard->metrics != NULL)
        metric_set(r->st->shard->metrics, M_store_objects, r->bundle_count);
}

static void info_forget(struct retention *r, struct bundle_info *info)
{
    HASH_DEL(r->bundles, info);
    r->bundle_count--;
    objects_tell(r);
    mem_free(info);
}

static void collect_unregister_run(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    char buf[META_KEY_SIZE];
    struct bytes key = meta_key_bundle(buf, c->id);
    if (c->foreign) {
        struct arena a;
        arena_init(&a, 64 * KIB, REG_BYTES_MAX);
        c->err = unregister_shared(c, key, &a);
        arena_free(&a);
        return;
    }
    struct meta_op op = { META_DELETE, key, { NULL, 0 } };
    struct meta_txn t = { NULL, &op, 0, 1 };
    c->err = meta_commit(c->st->env->meta, &t);
}

static void collect_unregister_done(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    struct storage *st = c->st;
    struct retention *r = st->retention;
    r->running--;
    if (c->err != ERR_NONE) {
        collect_failed(c, "unregister");
    } else {
        struct bundle_info *info = retention_bundle(st, c->id);
        if (info != NULL)
            info_forget(r, info);
        c->unregistered = true;
        c->mark = backup_mark(st->env->backup);
        c->tries = 0;
        if (c->keep_object)
            mem_free(c);
        else
            collect_rest(c, config_u64(st->env->cfg, CFG_store_delete_delay_ms) * NS_PER_MS);
    }
    collects_begin(r);
}

static void collect_remove_run(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    struct store *store = c->st->env->store;
    char name[BUNDLE_NAME_SIZE];
    c->err = store->driver->remove(store, bundle_name(name, c->id, c->epoch));
}

static void collect_remove_done(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    struct storage *st = c->st;
    st->retention->running--;
    if (st->shard->metrics != NULL) {
        metric_add(st->shard->metrics, M_store_deletes, 1);
        metric_add(st->shard->metrics, c->err == ERR_NONE ? M_retention_objects : M_store_errors,
                   1);
    }
    if (c->err != ERR_NONE)
        collect_failed(c, "delete the object");
    else
        mem_free(c);
    collects_begin(st->retention);
}

static struct collect *collect_new(struct retention *r, u64 id, u32 epoch)
{
    struct collect *c = MEM_NEW(struct collect);
    c->st = r->st;
    c->id = id;
    c->epoch = epoch;
    list_init(&c->link);
    return c;
}

static void bundle_collect(struct retention *r, struct bundle_info *info)
{
    CHECK(info->live == 0);
    if (info->collecting || r->st->replaying || storage_readonly(r->st))
        return;
    info->collecting = true;
    struct collect *c = collect_new(r, info->id, info->epoch);
    c->foreign = info->foreign;
    list_push_back(&r->waiting, &c->link);
    collects_begin(r);
}

void retention_run_replaced(struct storage *st, u64 run)
{
    struct retention *r = st->retention;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    CHECK(object_is_run(run));
    struct bundle_info *info = retention_bundle(st, run);
    if (info == NULL || info->collecting)
        return; /* the log start passed it meanwhile */
    u32 epoch = info->epoch;
    info_forget(r, info);
    retention_discard(st, run, epoch);
}

void retention_discard(struct storage *st, u64 object, u32 epoch)
{
    struct collect *c = collect_new(st->retention, object, epoch);
    c->unregistered = true;
    c->mark = backup_mark(st->env->backup);
    collect_rest(c, config_u64(st->env->cfg, CFG_store_delete_delay_ms) * NS_PER_MS);
}

/* ---- the count ---- */

struct bundle_info *retention_bundle(const struct storage *st, u64 bundle)
{
    struct bundle_info *b;
    HASH_FIND(hh, st->retention->bundles, &bundle, sizeof bundle, b);
    return b;
}

void retention_bundle_add(struct storage *st, u64 bundle, const struct bundle_reg *reg, u32 live,
                          bool foreign)
{
    struct retention *r = st->retention;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    CHECK(retention_bundle(st, bundle) == NULL);
    struct bundle_info *b = MEM_NEW(struct bundle_info);
    b->id = bundle;
    b->epoch = reg->epoch;
    b->created_ms = reg->created_ms;
    b->live = live;
    b->foreign = foreign;
    b->cover_from = reg->cover_from;
    HASH_ADD(hh, r->bundles, id, sizeof b->id, b);
    r->bundle_count++;
    objects_tell(r);
    if (live == 0)
        bundle_collect(r, b);
}

void retention_block_gone(struct storage *st, u64 bundle)
{
    struct retention *r = st->retention;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    struct bundle_info *b = retention_bundle(st, bundle);
    CHECK(b != NULL);
    CHECK(b->live > 0);
    if (--b->live == 0)
        bundle_collect(r, b);
}
