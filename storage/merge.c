/* Merging: blocks that lie in bundles go into runs, unchanged, and small runs into larger ones.
 * Bundles hold a little of many partitions; who reads one of them, or deletes one, wants few
 * objects with nothing else in them. rewrite.c does the work, this chooses.
 *
 *   runs, oldest first                          blocks of bundles, and runs from the log
 *   [ 32 MiB ][ 32 MiB ][ 9 ][ 2 ][ 1 ][ 1 ]    . . . . . [ 8 MiB ][ 30 MiB ] . . . . | too young
 *                             └──── along ─────────┘
 *
 *  1. Blocks of bundles are taken when they fill a run (store.run_bytes); when a run follows, for
 *     then no more is coming; or, however little it is, when the oldest has been there for
 *     store.merge_age. Nothing younger than store.merge_delay is touched: what is read at the tail
 *     lies in images and the cache, and what is deleted soon need not be written again.
 *  2. Runs before them are taken along while that makes each of them MERGE_GROWTH times larger at
 *     least. So a byte is rewritten once to get into a run, and after that a number of times that
 *     is the logarithm of how much too small that run was. A run of a quarter of store.run_bytes
 *     stays what it is.
 *  3. A second rewrite is paid from an allowance: AGAIN_PERCENT of what is uploaded. Bytes put ÷
 *     bytes produced therefore stays below 1 (uploads) + 1 (runs, of what was in bundles) + 0.1 +
 *     what headers take, whatever the partitions are like.
 *  4. Work per look: pindex.runs_end leads to the first block of a bundle, or near it, over runs
 *     that came since; then what would make a run. The partitions with something to look at form a
 *     ring; a turn looks at LOOKS_MAX of them. A partition leaves the ring when there is nothing
 *     more to do for it until it gets a block in a bundle.
 *  5. One at a time in a shard when the store is local; else a few, for a read of the store is
 *     waiting then, but no more than make RUNS_IN_MEMORY full runs together: that is the memory it
 *     takes. A key round (cleaner.c) of another partition may go on beside it.
 *  6. Uploads that acknowledgements wait for go first, where the store is not local: while they
 *     take more than half of what the store takes at best (flow.h), nothing begins but what has
 *     waited for store.merge_wait. More than half, because merging writes each byte once more:
 *     below that there is room for both, above it merging could not keep up anyway. What is
 *     unmerged is so bounded by time, as is what is too young (rule 1), and by the index's memory:
 *     from half of index.memory on nothing waits. Where merging can't hold that beside such
 *     uploads, they give way to it (merge_presses).
 *
 * All is found again from the index after a restart: nothing is remembered, also not the allowance,
 * which begins at 0.
 */
#include "merge_int.h"

#include "clock.h"
#include "compact_int.h"

#define MERGE_MAGIC 0x3e49e001u
#define AGAIN_PERCENT 10u
#define LOOKS_MAX 64u
#define MERGES_MAX 4u
#define RUNS_IN_MEMORY 2u
#define PUT_RATE_MIN (64 * KIB) /* bytes/s */
#define PRESSES 2               /* times store.merge_wait */
/* Between rounds over the ring, when there was nothing to do. */
#define PAUSE_NS_MAX (5 * NS_PER_S)
#define PAUSE_NS_MIN (100 * NS_PER_MS)
#define RETRY_DOUBLES_MAX 8u /* of store.retry */

struct merge;
struct merge_slot {
    struct merge *merge;
    struct rewrite rewrite;
    struct merge_range range;
    i64 due_ms;       /* since when it could have been merged */
    struct pindex *p; /* whose; held. NULL: the slot is free */
};

struct merge {
    u32 magic;
    struct storage *st;
    struct list ring; /* pindex.merge_link */
    u32 ring_count;
    u32 looks_left; /* of this round */
    struct timer timer;
    struct merge_slot slots[MERGES_MAX];
    u32 slot_count, busy;
    u64 busy_bytes; /* of what is being merged */
    u64 allowance;  /* bytes */
    /* The longest that something due has waited: in this round, and in the last whole one. */
    i64 round_waited_ms, waited_ms;
    u32 failures;
    u64 retry_ns; /* not before, after a failure */
};

/* ---- the choice ---- */

u32 merge_tail(const struct block *b, u32 from, u32 count)
{
    u32 i = from, end = from + MIN(count - from, MERGE_BLOCKS_MAX);
    while (i < end && object_is_run(b[i].bundle))
        i++;
    return i;
}

/* Takes as much of [out->first, end) as makes a run. True: it is full. */
static bool fill(const struct block *b, u32 end, u64 run_bytes, struct merge_range *out)
{
    u32 i = out->first;
    while (i < end && out->count < MERGE_BLOCKS_MAX && !object_is_run(b[i].bundle)) {
        if (out->count > 0 && out->bytes + b[i].data_bytes > run_bytes)
            return true;
        out->bytes += b[i++].data_bytes;
        out->count++;
    }
    return out->count == MERGE_BLOCKS_MAX || out->bytes >= run_bytes;
}

/* The blocks of the run that ends before block `end`; 0: none does. */
static u32 run_before(const struct block *b, u32 end, u32 count_max, u64 *bytes)
{
    u32 n = 0;
    u64 id = end > 0 ? b[end - 1].bundle : 0;
    *bytes = 0;
    if (!object_is_run(id))
        return 0;
    while (n < end && b[end - 1 - n].bundle == id) {
        if (n == count_max)
            return 0;
        *bytes += b[end - 1 - n++].data_bytes;
    }
    return n;
}

/* Older runs join, as many as all grow enough by it. */
static void take_along(const struct block *b, const struct merge_rule *rule,
                       struct merge_range *out)
{
    struct merge_range r = *out;
    u64 largest = 0, bytes;
    u32 n;
    while ((n = run_before(b, r.first, MERGE_BLOCKS_MAX - r.count, &bytes)) > 0) {
        r.first -= n;
        r.count += n;
        r.bytes += bytes;
        r.again_bytes += bytes;
        largest = MAX(largest, bytes);
        if (r.bytes > rule->run_bytes || r.again_bytes > rule->again_bytes)
            break;
        if (largest * MERGE_GROWTH <= r.bytes)
            *out = r;
    }
}

bool merge_choose(const struct block *b, u32 tail, u32 end, const struct merge_rule *rule,
                  struct merge_range *out)
{
    *out = (struct merge_range){ .first = tail };
    if (fill(b, end, rule->run_bytes, out))
        return true;
    u32 behind = tail + out->count;
    bool closed = behind < end && object_is_run(b[behind].bundle);
    if (out->count == 0 || (!rule->old && !closed))
        return false;
    take_along(b, rule, out);
    return true;
}

/* ---- looking ---- */

static i64 created_ms(const struct storage *st, const struct block *b)
{
    const struct bundle_info *info = retention_bundle(st, b->bundle);
    CHECK(info != NULL);
    return info->created_ms;
}

/* The first of blocks [tail, count) that was registered after `newest_ms`. */
static u32 settled(const struct pindex *p, const struct block *b, u32 tail, u32 count,
                   i64 newest_ms)
{
    u32 lo = tail, hi = count;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (created_ms(p->st, &b[mid]) <= newest_ms)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static i64 ms_before(const struct storage *st, enum config_key key)
{
    return st->shard->now_ms - config_i64(st->env->cfg, key);
}

/* Since when [tail, end of the range) could have been merged. */
static i64 due_ms(const struct storage *st, const struct block *b, u32 tail,
                  const struct merge_range *range, bool old)
{
    const struct config *cfg = st->env->cfg;
    const struct block *last = &b[range->first + range->count - 1];
    i64 settled_ms = created_ms(st, last) + config_i64(cfg, CFG_store_merge_delay_ms);
    i64 aged_ms = created_ms(st, &b[tail]) + config_i64(cfg, CFG_store_merge_age_ms);
    return old ? MIN(settled_ms, aged_ms) : settled_ms;
}

static bool is_overdue(const struct storage *st, i64 waited_ms)
{
    return waited_ms >= config_i64(st->env->cfg, CFG_store_merge_wait_ms) ||
           !index_fits(st, st->index_bytes);
}

static bool gives_way(const struct storage *st, i64 waited_ms)
{
    struct store *store = st->env->store;
    u64 now_ns = clock_mono_ns();
    return !store->driver->local && !is_overdue(st, waited_ms) &&
           flow_awaited(&store->flow, now_ns) > flow_best(&store->flow, now_ns) / 2;
}

enum look { LOOK_NOTHING, LOOK_LATER, LOOK_NOW };

/* LOOK_NOW: *out is to be merged, and could have been for *waited_ms. */
static enum look look_at(struct merge *m, struct pindex *p, struct merge_range *out, i64 *waited_ms)
{
    struct storage *st = m->st;
    const struct block *b = p->blocks + p->block_head;
    u32 count = p->block_end - p->block_head;
    u32 tail = merge_tail(b, pindex_block_at(p, p->runs_end) - p->block_head, count);
    if (tail > 0)
        p->runs_end = MAX(p->runs_end, b[tail - 1].last_offset + 1);
    if (tail == count || (st->env->ops->mergeable && !st->env->ops->mergeable(st, p)))
        return LOOK_NOTHING;
    if (p->rewriting || object_is_run(b[tail].bundle))
        return LOOK_LATER;
    u32 end = settled(p, b, tail, count, ms_before(st, CFG_store_merge_delay_ms));
    struct merge_rule rule = { .run_bytes = config_u64(st->env->cfg, CFG_store_run_bytes),
                               .again_bytes = m->allowance };
    rule.old = created_ms(st, &b[tail]) <= ms_before(st, CFG_store_merge_age_ms);
    if (!merge_choose(b, tail, end, &rule, out))
        return LOOK_LATER;
    *waited_ms = MAX(st->shard->now_ms - due_ms(st, b, tail, out, rule.old), 0);
    m->round_waited_ms = MAX(m->round_waited_ms, *waited_ms);
    if (!gives_way(st, *waited_ms))
        return LOOK_NOW;
    storage_count(st, M_merges_deferred, 1);
    return LOOK_LATER;
}

/* ---- a merge ---- */

static void merge_tick(struct timer *t);

static void merge_later(struct merge *m, u64 ns)
{
    struct shard *s = m->st->shard;
    if (!m->st->stopping)
        timer_start(&s->timers, &m->timer, s->now_ns + ns, merge_tick);
}

static u64 pause_ns(const struct merge *m)
{
    const struct config *cfg = m->st->env->cfg;
    u64 ms =
        MIN(config_u64(cfg, CFG_store_merge_age_ms), config_u64(cfg, CFG_store_merge_delay_ms));
    u64 ns = MIN(ms, PAUSE_NS_MAX / NS_PER_MS) * NS_PER_MS / 4;
    return MAX(ns, PAUSE_NS_MIN);
}

static u64 percent(const struct metrics *m, enum metric_id put, enum metric_id of)
{
    u64 bytes = metric_get(m, of);
    return bytes > 0 ? metric_get(m, put) * 100 / bytes : 0;
}

/* Uploads and merges each by itself: after a start runs are made of what an earlier life uploaded.
 * What did not go into bundles is not going to be merged. */
static void amplification_tell(const struct merge *m)
{
    struct metrics *t = m->st->shard->metrics;
    if (t == NULL)
        return;
    u64 merged = percent(t, M_put_run_bytes, M_merge_first_bytes);
    u64 to_merge = 100 - MIN(percent(t, M_upload_run_data_bytes, M_upload_data_bytes), 100u);
    metric_set(t, M_store_amplification,
               percent(t, M_upload_bytes, M_upload_data_bytes) + merged * to_merge / 100);
}

static void merge_failed(struct merge *m, const struct rewrite *r)
{
    struct pindex *p = r->p;
    u64 pause = config_u64(m->st->env->cfg, CFG_store_retry_ms) * NS_PER_MS
                << MIN(m->failures, RETRY_DOUBLES_MAX);
    m->failures++;
    m->retry_ns = m->st->shard->now_ns + pause;
    if (r->err == ERR_CORRUPT)
        merge_forget(p); /* until it gets another block */
    storage_count(m->st, M_merges_failed, 1);
    LOG(WARN, merge_failed,
        "shard=%u partition=%u what=\"%s\" object=%s error=%s text=\"%s\" failures=%u "
        "retry_ms=%" PRIu64 " effect=\"data stays where it is\" remedy=\"%s\"",
        m->st->shard->index, p->key.partition, r->what, r->name, err_name(r->err), err_text(r->err),
        m->failures, pause / NS_PER_MS,
        r->err == ERR_CORRUPT ? "an object fails its checksum: restore it from a copy"
                              : "check the object store and the metadata store");
}

static void merge_done(struct rewrite *r)
{
    struct merge_slot *slot = container_of(r, struct merge_slot, rewrite);
    struct merge *m = slot->merge;
    struct pindex *p = slot->p;
    const struct merge_range *range = &slot->range;
    CHECK(p != NULL && p->rewriting);
    CHECK(m->busy > 0 && m->busy_bytes >= range->bytes);
    p->rewriting = false;
    slot->p = NULL;
    m->busy--;
    m->busy_bytes -= range->bytes;
    if (r->written) {
        m->failures = 0;
        storage_count(m->st, M_merge_first_bytes, range->bytes - range->again_bytes);
        storage_count(m->st, M_merge_again_bytes, range->again_bytes);
        LOG(DEBUG, merged,
            "shard=%u partition=%u object=%s blocks=%u bytes=%" PRIu64 " again_bytes=%" PRIu64,
            m->st->shard->index, p->key.partition, r->name, range->count, range->bytes,
            range->again_bytes);
    }
    amplification_tell(m);
    /* ERR_NOT_FOUND: the log start passed a block while it was on its way to be read. */
    if (r->err != ERR_NONE && r->err != ERR_CANCELED && r->err != ERR_NOT_FOUND)
        merge_failed(m, r);
    merge_later(m, 0);
    pindex_release(p);
}

static struct merge_slot *slot_free(struct merge *m)
{
    for (u32 i = 0; i < m->slot_count; i++)
        if (m->slots[i].p == NULL)
            return &m->slots[i];
    return NULL;
}

/* What is not overdue leaves at least half of the way to awaited uploads, so that they can show
 * how much of it they need. */
static u64 put_rate(const struct merge *m, u64 share, i64 waited_ms)
{
    struct storage *st = m->st;
    struct flow *flow = &st->env->store->flow;
    u64 now_ns = clock_mono_ns();
    if (is_overdue(st, waited_ms) || flow_awaited(flow, now_ns) == 0)
        return share;
    u64 half = flow_best(flow, now_ns) / 2;
    return MIN(share, MAX(half / (MAX(st->env->shard_count, 1) * RUNS_IN_MEMORY), PUT_RATE_MIN));
}

static void merge_begin(struct merge *m, struct pindex *p, const struct merge_range *range,
                        i64 waited_ms)
{
    struct storage *st = m->st;
    struct merge_slot *slot = slot_free(m);
    const struct block *first = p->blocks + p->block_head + range->first;
    i64 to = first[range->count - 1].last_offset + 1;
    u64 rate = config_u64(st->env->cfg, CFG_store_merge_rate);
    u64 share = MAX(rate / (MAX(st->env->shard_count, 1) * m->slot_count), 1);
    CHECK(slot != NULL && !p->rewriting);
    pindex_hold(p);
    p->rewriting = true;
    slot->p = p;
    slot->range = *range;
    slot->due_ms = st->shard->now_ms - waited_ms;
    m->busy++;
    m->busy_bytes += range->bytes;
    m->allowance -= range->again_bytes;
    slot->rewrite.st = st;
    slot->rewrite.p = p;
    slot->rewrite.filter = NULL;
    slot->rewrite.clean_to = p->clean_end;
    slot->rewrite.read_rate = share;
    slot->rewrite.put_rate = st->env->store->driver->local ? rate : put_rate(m, share, waited_ms);
    slot->rewrite.done = merge_done;
    i64 end = rewrite_begin(&slot->rewrite, first->base_offset, to, UINT64_MAX);
    CHECK(end == to);
}

static bool fits(const struct merge *m, u64 bytes)
{
    u64 most = RUNS_IN_MEMORY * config_u64(m->st->env->cfg, CFG_store_run_bytes);
    return m->busy == 0 || m->busy_bytes + bytes <= most;
}

static void ring_add(struct merge *m, struct pindex *p)
{
    list_push_back(&m->ring, &p->merge_link);
    m->ring_count++;
}

void merge_forget(struct pindex *p)
{
    if (!list_linked(&p->merge_link))
        return;
    list_remove(&p->merge_link);
    p->st->merge->ring_count--;
}

/* Looks at some partitions, until one has something to do. False: none of them has. */
static bool merge_look(struct merge *m)
{
    struct merge_range range;
    i64 waited_ms = 0;
    for (u32 i = 0; i < LOOKS_MAX && m->looks_left > 0; i++, m->looks_left--) {
        if (list_empty(&m->ring))
            return false;
        struct pindex *p = list_entry(m->ring.next, struct pindex, merge_link);
        enum look look = look_at(m, p, &range, &waited_ms);
        if (look == LOOK_NOW && !fits(m, range.bytes))
            return true; /* it is the next when there is room */
        merge_forget(p);
        if (look != LOOK_NOTHING)
            ring_add(m, p);
        if (look == LOOK_NOW) {
            merge_begin(m, p, &range, waited_ms);
            merge_later(m, 0);
            return true;
        }
    }
    return false;
}

static void round_begin(struct merge *m)
{
    struct metrics *t = m->st->shard->metrics;
    m->looks_left = m->ring_count;
    m->waited_ms = m->round_waited_ms;
    for (u32 i = 0; i < m->slot_count; i++)
        if (m->slots[i].p != NULL)
            m->waited_ms = MAX(m->waited_ms, m->st->shard->now_ms - m->slots[i].due_ms);
    m->round_waited_ms = 0;
    if (t == NULL)
        return;
    metric_set(t, M_merge_waiting, (u64)m->waited_ms / 1000);
    if (m->st->shard->index > 0)
        return;
    struct flow *flow = &m->st->env->store->flow;
    metric_set(t, M_put_rate_awaited, flow_awaited(flow, clock_mono_ns()));
    metric_set(t, M_put_rate_best, flow_best(flow, clock_mono_ns()));
}

static void merge_tick(struct timer *t)
{
    struct merge *m = container_of(t, struct merge, timer);
    MAGIC_CHECK(m, MERGE_MAGIC);
    u64 now_ns = m->st->shard->now_ns;
    if (m->busy == m->slot_count)
        return; /* until one is done */
    if (m->retry_ns > now_ns) {
        merge_later(m, m->retry_ns - now_ns);
        return;
    }
    if (m->looks_left == 0)
        round_begin(m);
    if (config_u64(m->st->env->cfg, CFG_store_merge_rate) == 0 || !rewrite_numbers_left(m->st)) {
        merge_later(m, PAUSE_NS_MAX);
        return;
    }
    if (merge_look(m))
        return;
    if (list_empty(&m->ring)) {
        round_begin(m); /* an empty one: the next block begins another */
        return;
    }
    merge_later(m, m->looks_left > 0 ? 0 : pause_ns(m));
}

/* ---- life ---- */

void merge_note(struct pindex *p)
{
    struct merge *m = p->st->merge;
    if (p->st->replaying || list_linked(&p->merge_link))
        return;
    ring_add(m, p);
    if (!timer_armed(&m->timer))
        merge_later(m, pause_ns(m));
}

bool merge_presses(const struct storage *st)
{
    const struct merge *m = st->merge;
    if (st->env->store->driver->local ||
        m->waited_ms / PRESSES <= config_i64(st->env->cfg, CFG_store_merge_wait_ms))
        return false;
    for (u32 i = 0; i < m->slot_count; i++)
        if (m->slots[i].p != NULL && m->slots[i].rewrite.step == REWRITE_PUT)
            return true;
    return false;
}

void merge_uploaded(struct storage *st, u64 bytes)
{
    struct merge *m = st->merge;
    m->allowance += bytes * AGAIN_PERCENT / 100;
    amplification_tell(m);
}

err merge_create(struct storage *st)
{
    struct merge *m = MEM_NEW(struct merge);
    MAGIC_INIT(m, MERGE_MAGIC);
    m->st = st;
    m->slot_count = st->env->store->driver->local ? 1 : MERGES_MAX;
    for (u32 i = 0; i < m->slot_count; i++)
        m->slots[i].merge = m;
    list_init(&m->ring);
    st->merge = m;
    return ERR_NONE;
}

bool merge_idle(const struct storage *st)
{
    return st->merge == NULL || st->merge->busy == 0;
}

void merge_stop(struct storage *st)
{
    struct merge *m = st->merge;
    MAGIC_CHECK(m, MERGE_MAGIC);
    timer_stop(&st->shard->timers, &m->timer);
    for (u32 i = 0; i < m->slot_count; i++)
        if (m->slots[i].p != NULL)
            rewrite_stop(&m->slots[i].rewrite);
}

void merge_free(struct storage *st)
{
    struct merge *m = st->merge;
    if (m == NULL)
        return;
    MAGIC_CHECK(m, MERGE_MAGIC);
    CHECK(m->busy == 0);
    timer_stop(&st->shard->timers, &m->timer);
    while (!list_empty(&m->ring))
        merge_forget(list_entry(m->ring.next, struct pindex, merge_link));
    MAGIC_POISON(m);
    mem_free(m);
    st->merge = NULL;
}
