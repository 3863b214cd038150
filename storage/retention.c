/* Retention: where a partition's log may start, and objects that nobody refers to any more.
 *
 * Every bundle and run with blocks of this shard's partitions has a bundle_info that counts the
 * blocks still in an index. At 0 one transaction takes its registration away and writes it down as
 * discarded; discard.c does the rest.
 *
 *  1. A bundle may hold blocks of other shards, if it was made under another shard count: then this
 *     shard takes its blocks out of the registration, and the one that takes the last deletes it.
 *  2. Anything that fails or is cut off by a stop is done again at the next start: a registration
 *     without live blocks is loaded with live 0. So nothing here has to be remembered.
 */
#include <stdio.h>

#include "discard.h"
#include "plant.h"
#include "scrub.h"

#define RETENTION_MAGIC 0x5e7e0001u
#define RETRY_NS (5 * NS_PER_S)
#define REG_BYTES_MAX GIB
/* Jobs given to the background at a time: a deleted topic may free thousands of bundles. */
#define COLLECTS_RUNNING_MAX 4u

struct retention {
    u32 magic;
    struct storage *st;
    struct bundle_info *bundles; /* uthash by id */
    struct object_sum {
        u32 count;
        u64 bytes;
    } bundle_sum, run_sum; /* of them */
    struct list waiting;   /* collects whose job has not begun */
    struct list resting;   /* before a retry */
    u32 running;
    bool started; /* the shard turns: jobs may run */
    struct timer start_timer;
};

struct collect {
    struct bg_job job;
    struct timer timer;
    struct list link;
    struct storage *st;
    bool foreign;
    struct discarded object;
    u32 tries;
    err err;
};

static void collects_begin(struct retention *r);
static void bundle_collect(struct retention *r, struct bundle_info *info);

static void gauges_set(const struct retention *r)
{
    struct metrics *m = r->st->shard->metrics;
    if (m == NULL)
        return;
    metric_set(m, M_registered_objects, r->bundle_sum.count + r->run_sum.count);
    metric_set(m, M_registered_bytes, r->bundle_sum.bytes + r->run_sum.bytes);
    metric_set(m, M_registered_bundles, r->bundle_sum.count);
    metric_set(m, M_registered_bundle_bytes, r->bundle_sum.bytes);
}

static void sum_add(struct retention *r, const struct bundle_info *b, bool more)
{
    struct object_sum *sum = object_is_run(b->id) ? &r->run_sum : &r->bundle_sum;
    sum->count = more ? sum->count + 1 : sum->count - 1;
    sum->bytes = more ? sum->bytes + b->bytes : sum->bytes - b->bytes;
    gauges_set(r);
}

/* Not from within a start that may yet fail and take everything down again. */
static void start_fire(struct timer *t)
{
    struct retention *r = container_of(t, struct retention, start_timer);
    struct bundle_info *b, *next;
    r->started = true;
    HASH_ITER(hh, r->bundles, b, next)
        if (b->live == 0)
            bundle_collect(r, b);
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
    err e = discard_create(st);
    return e != ERR_NONE ? e : scrub_create(st);
}

bool retention_idle(const struct storage *st)
{
    return st->retention == NULL ||
           (st->retention->running == 0 && discard_idle(st) && scrub_idle(st));
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
    discard_free(st);
    scrub_free(st);
    store_jobs_stop(st);
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

static void collects_begin(struct retention *r)
{
    struct storage *st = r->st;
    if (!r->started)
        return;
    while (r->running < COLLECTS_RUNNING_MAX && !list_empty(&r->waiting) && !st->stopping) {
        struct collect *c = list_entry(list_pop_front(&r->waiting), struct collect, link);
        r->running++;
        c->object.since_ms = discard_now_ms(st);
        bg_submit(st->shard, &c->job, BG_META, collect_unregister_run, collect_unregister_done);
    }
}

static void collect_rested(struct timer *t)
{
    struct collect *c = container_of(t, struct collect, timer);
    struct retention *r = c->st->retention;
    list_remove(&c->link);
    list_push_back(&r->waiting, &c->link);
    collects_begin(r);
}

static void collect_failed(struct collect *c)
{
    char name[BUNDLE_NAME_SIZE];
    struct shard *s = c->st->shard;
    LOG(WARN, object_not_unregistered,
        "shard=%u object=%s error=%s text=\"%s\" tries=%u effect=\"it takes up space until a "
        "later try\"",
        s->index, bundle_name(name, c->object.id, c->object.epoch), err_name(c->err),
        err_text(c->err), c->tries + 1);
    list_push_back(&c->st->retention->resting, &c->link);
    timer_start(&s->timers, &c->timer, s->now_ns + (RETRY_NS << MIN(c->tries, 6u)), collect_rested);
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
    struct bytes rest = reg_without_mine(c->st, &reg, c->object.id, a);
    struct meta_compare compare = { .key = key, .revision = kv.revision };
    struct discard_note note;
    struct meta_op ops[2] = { { rest.data != NULL ? META_PUT : META_DELETE, key, rest },
                              discard_op(&note, &c->object) };
    struct meta_txn t = { &compare, ops, 1, rest.data != NULL ? 1 : 2 };
    return meta_commit(m, &t);
}

static void info_forget(struct retention *r, struct bundle_info *info)
{
    HASH_DEL(r->bundles, info);
    sum_add(r, info, false);
    mem_free(info);
}

static void collect_unregister_run(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    char buf[META_KEY_SIZE];
    struct bytes key = meta_key_bundle(buf, c->object.id);
    if (c->foreign) {
        struct arena a;
        arena_init(&a, 64 * KIB, REG_BYTES_MAX);
        c->err = unregister_shared(c, key, &a);
        arena_free(&a);
        return;
    }
    struct discard_note note;
    struct meta_op ops[2] = { { META_DELETE, key, { NULL, 0 } }, discard_op(&note, &c->object) };
    struct meta_txn t = { NULL, ops, 0, 2 };
    c->err = meta_commit(c->st->env->meta, &t);
}

static void collect_unregister_done(struct bg_job *j)
{
    struct collect *c = container_of(j, struct collect, job);
    struct retention *r = c->st->retention;
    r->running--;
    if (c->err != ERR_NONE) {
        collect_failed(c);
    } else {
        struct bundle_info *info = retention_bundle(c->st, c->object.id);
        if (info != NULL)
            info_forget(r, info);
        mem_free(c);
    }
    collects_begin(r);
}

static void bundle_collect(struct retention *r, struct bundle_info *info)
{
    CHECK(info->live == 0);
    if (info->collecting || r->st->replaying || storage_readonly(r->st))
        return;
    info->collecting = true;
    struct collect *c = MEM_NEW(struct collect);
    c->st = r->st;
    c->foreign = info->foreign;
    c->object = (struct discarded){ .id = info->id, .epoch = info->epoch, .bytes = info->bytes };
    list_init(&c->link);
    list_push_back(&r->waiting, &c->link);
    collects_begin(r);
}

void retention_run_replaced(struct storage *st, u64 run, bool retired, u32 own)
{
    struct retention *r = st->retention;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    CHECK(object_is_run(run));
    for (u32 i = 0; retired && i < own; i++)
        retention_block_gone(st, run);
    struct bundle_info *info = retention_bundle(st, run);
    if (!retired && info != NULL && !info->collecting) /* else the log start passed it meanwhile */
        info_forget(r, info);
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
    b->bytes = reg->object_bytes;
    b->live = live;
    b->foreign = foreign;
    b->cover_from = reg->cover_from;
    HASH_ADD(hh, r->bundles, id, sizeof b->id, b);
    sum_add(r, b, true);
    if (live == 0 && r->started) /* at load clones are still to come */
        bundle_collect(r, b);
}

bool retention_block_more(struct storage *st, u64 bundle)
{
    struct bundle_info *b = retention_bundle(st, bundle);
    if (b == NULL)
        return false;
    CHECK(!b->collecting);
    b->live++;
    return true;
}

void retention_block_gone(struct storage *st, u64 bundle)
{
    struct retention *r = st->retention;
    MAGIC_CHECK(r, RETENTION_MAGIC);
    struct bundle_info *b = retention_bundle(st, bundle);
    CHECK(b != NULL);
    CHECK(b->live > 0);
    if (PLANTED(PLANT_DISCARD_LIVE) && b->live == 2)
        discard_unregistered(st, b->id, b->epoch, b->bytes);
    if (--b->live == 0)
        bundle_collect(r, b);
}
