/* Which partition is compacted next: Kafka's log cleaner manager, for the partitions of one shard.
 *
 * Every log.cleaner.backoff.ms the dirtiest of the partitions that are due gets a round (storage: a
 * struct clean_op), then the next, until none is due. A partition is due when its topic has the
 * policy `compact` and
 *   - the share of its bytes that is not compacted yet is above min.cleanable.dirty.ratio, or
 *   - a record waits for longer than max.compaction.lag.ms,
 * where what is newer than min.compaction.lag.ms, or not in the object store yet, does not count.
 * Kafka spares the active segment; here that is what the log has not uploaded.
 *
 * A round that fails is told and the partition rests, longer from failure to failure; others go on.
 */
#include "broker_int.h"
#include "log.h"

#define RETRY_NS (5 * NS_PER_S)
#define RETRY_DOUBLES_MAX 8u
/* Blocks, partitions and topics looked at in a turn. */
#define LOOKS_A_TURN 8192u

/* A look over all partitions, which may take several turns. Topics may come and go meanwhile: it
 * knows them by id. */
struct clean_look {
    bool going_on;
    struct uuid topic; /* being looked at */
    i32 index;         /* its partition */
    struct clean_walk walk;
    struct uuid best_topic;
    i32 best_index;
    i64 best_dirt; /* -1: none is due */
    i64 most_dirt;
    struct clean_bounds best;
};

struct cleaner {
    struct broker *broker;
    struct timer timer;
    struct clean_look look;
    struct clean_op op; /* op.p != NULL: a round is going on */
    u64 began_ns;
};

static void cleaner_tick(struct timer *t);

static void cleaner_later(struct cleaner *c, u64 ns)
{
    struct shard *s = &c->broker->shard;
    if (!s->stopping)
        timer_start(&s->timers, &c->timer, s->now_ns + ns, cleaner_tick);
}

/* ---- choosing ---- */

static void walk_begin(struct clean_look *l, const struct partition *p)
{
    i64 lag = p->topic->config.min_compaction_lag_ms;
    l->walk =
        (struct clean_walk){ .end_offset = partition_high_watermark(p),
                             .newest_ms = lag > 0 ? p->broker->shard.now_ms - lag : INT64_MAX };
}

/* The walk over it is over: is it due, and the best so far? */
static void partition_judge(struct clean_look *l, const struct partition *p)
{
    const struct topic_config *tc = &p->topic->config;
    const struct clean_bounds *b = &l->walk.bounds;
    if (b->cleanable_bytes == 0)
        return;
    /* Share of its bytes that may be compacted and are not. */
    i64 dirt = (i64)(b->cleanable_bytes * CONFIG_RATIO_ONE / (b->clean_bytes + b->cleanable_bytes));
    l->most_dirt = MAX(l->most_dirt, dirt);
    bool overdue = b->oldest_time_ms < p->broker->shard.now_ms - tc->max_compaction_lag_ms;
    bool due = overdue || dirt > tc->min_cleanable_dirty_ratio;
    if (!due || dirt <= l->best_dirt || p->clean_retry_ns > p->broker->shard.now_ns)
        return;
    l->best_topic = p->topic->id;
    l->best_index = p->index;
    l->best_dirt = dirt;
    l->best = *b;
}

/* The topic's partitions from l->index on. False: the turn's looks are used up. */
static bool look_topic(struct clean_look *l, const struct topic_entry *e, u32 *budget)
{
    bool compacted = e->topic->config.cleanup_policy & CLEANUP_COMPACT;
    for (; compacted && l->index < e->topic->partition_count; l->index++) {
        struct partition *p = e->partitions[l->index];
        if (*budget == 0)
            return false;
        --*budget;
        if (!p)
            continue;
        if (!l->walk.begun)
            walk_begin(l, p);
        if (!pindex_clean_walk(p->pindex, &l->walk, budget))
            return false;
        partition_judge(l, p);
        l->walk.begun = false;
    }
    return true;
}

/* False: it goes on in another turn. A topic that went while it was looked at: from the start. */
static bool look_on(struct broker *b, struct clean_look *l)
{
    u32 budget = LOOKS_A_TURN;
    struct topic_entry *e = l->going_on ? catalog_by_id(b, l->topic) : NULL;
    if (!e) {
        *l = (struct clean_look){ .best_dirt = -1 };
        e = b->topics_by_name;
    }
    for (; e; e = e->hh_name.next, l->index = 0) {
        if (budget == 0 || !look_topic(l, e, &budget)) {
            l->topic = e->topic->id;
            l->going_on = true;
            return false;
        }
        budget -= budget > 0;
    }
    l->going_on = false;
    metric_set(b->shard.metrics, M_compaction_dirty_percent,
               (u64)(l->most_dirt * 100 / CONFIG_RATIO_ONE));
    return true;
}

/* What the look found, if it is still there. */
static struct partition *look_result(struct broker *b, const struct clean_look *l)
{
    struct topic_entry *e = l->best_dirt >= 0 ? catalog_by_id(b, l->best_topic) : NULL;
    return e && l->best_index < e->topic->partition_count ? e->partitions[l->best_index] : NULL;
}

/* ---- a round ---- */

static void clean_failed(struct partition *p, const struct clean_op *op)
{
    struct shard *s = &p->broker->shard;
    u64 pause = RETRY_NS << MIN(p->clean_tries, RETRY_DOUBLES_MAX);
    p->clean_tries++;
    p->clean_retry_ns = s->now_ns + pause;
    metric_add(s->metrics, M_compactions_failed, 1);
    LOG(WARN, compaction_failed,
        "topic=%.*s partition=%d what=\"%s\" object=%s error=%s text=\"%s\" tries=%u "
        "retry_ms=%" PRIu64 " effect=\"old records stay\" remedy=\"%s\"",
        (int)p->topic->name.len, (const char *)p->topic->name.data, p->index, op->what, op->object,
        err_name(op->err), err_text(op->err), p->clean_tries, pause / NS_PER_MS,
        op->err == ERR_CORRUPT ? "an object fails its checksum: restore it from a copy"
                               : "check the object store and the metadata store");
}

static void clean_succeeded(struct partition *p, const struct clean_op *op, u64 began_ns)
{
    struct shard *s = &p->broker->shard;
    p->clean_tries = 0;
    p->clean_retry_ns = 0;
    metric_add(s->metrics, M_compactions, 1);
    LOG(INFO, compacted,
        "topic=%.*s partition=%d from=%" PRId64 " to=%" PRId64 " complete=%s records=%" PRIu64
        " removed=%" PRIu64 " read_bytes=%" PRIu64 " written_bytes=%" PRIu64 " runs=%u ms=%" PRIu64,
        (int)p->topic->name.len, (const char *)p->topic->name.data, p->index, op->from, op->to,
        op->to < op->end ? "false" : "true", op->records, op->records_removed, op->read_bytes,
        op->written_bytes, op->runs, (s->now_ns - began_ns) / NS_PER_MS);
}

static u64 backoff_ns(const struct cleaner *c)
{
    return MAX(config_u64(c->broker->node->cfg, CFG_log_cleaner_backoff_ms), 1) * NS_PER_MS;
}

static void clean_done(struct clean_op *op)
{
    struct cleaner *c = container_of(op, struct cleaner, op);
    struct partition *p = pindex_user(op->p); /* NULL: dropped meanwhile */
    bool moved = op->err != ERR_NONE || op->to > op->from;
    op->p = NULL;
    if (p && op->err == ERR_NONE)
        clean_succeeded(p, op, c->began_ns);
    else if (p && op->err != ERR_CANCELED)
        clean_failed(p, op);
    /* A round that got nowhere would be chosen again at once. */
    cleaner_later(c, moved ? 0 : backoff_ns(c));
}

static void cleaner_tick(struct timer *t)
{
    struct cleaner *c = container_of(t, struct cleaner, timer);
    struct broker *b = c->broker;
    bool enabled = config_i64(b->node->cfg, CFG_log_cleaner_enable);
    if (enabled && !look_on(b, &c->look)) {
        cleaner_later(c, 0);
        return;
    }
    struct partition *p = enabled ? look_result(b, &c->look) : NULL;
    if (p) {
        c->began_ns = b->shard.now_ns;
        c->op = (struct clean_op){ .p = p->pindex,
                                   .end = c->look.best.end,
                                   .cleanable_bytes = c->look.best.cleanable_bytes,
                                   .delete_retention_ms = p->topic->config.delete_retention_ms };
        if (pindex_clean(&c->op, clean_done))
            return;
        c->op.p = NULL;
    }
    cleaner_later(c, backoff_ns(c));
}

void cleaner_start(struct broker *b)
{
    struct cleaner *c = MEM_NEW(struct cleaner);
    c->broker = b;
    b->cleaner = c;
    cleaner_later(c, backoff_ns(c));
}

void cleaner_free(struct broker *b)
{
    struct cleaner *c = b->cleaner;
    if (!c)
        return;
    timer_stop(&b->shard.timers, &c->timer);
    mem_free(c);
    b->cleaner = NULL;
}
