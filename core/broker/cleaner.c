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

struct cleaner {
    struct broker *broker;
    struct timer timer;
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

/* Share of its bytes that may be compacted and are not, in CONFIG_RATIO_ONE. */
static i64 partition_dirt(const struct partition *p, struct clean_bounds *b, bool *due)
{
    const struct topic_config *tc = &p->topic->config;
    i64 now = p->broker->shard.now_ms;
    i64 newest = tc->min_compaction_lag_ms > 0 ? now - tc->min_compaction_lag_ms : INT64_MAX;
    pindex_clean_bounds(p->pindex, partition_high_watermark(p), newest, b);
    *due = false;
    if (b->cleanable_bytes == 0)
        return 0;
    i64 dirt = (i64)(b->cleanable_bytes * CONFIG_RATIO_ONE / (b->clean_bytes + b->cleanable_bytes));
    bool overdue = b->oldest_time_ms < now - tc->max_compaction_lag_ms;
    *due = overdue || dirt > tc->min_cleanable_dirty_ratio;
    return dirt;
}

static struct partition *partition_choose(struct broker *b, struct clean_bounds *bounds)
{
    struct topic_entry *e, *next;
    struct partition *best = NULL;
    i64 best_dirt = -1, most = 0;
    HASH_ITER(hh_name, b->topics_by_name, e, next) {
        if (!(e->topic->config.cleanup_policy & CLEANUP_COMPACT))
            continue;
        for (i32 i = 0; i < e->topic->partition_count; i++) {
            struct partition *p = e->partitions[i];
            struct clean_bounds its;
            bool due;
            if (!p)
                continue;
            i64 dirt = partition_dirt(p, &its, &due);
            most = MAX(most, dirt);
            if (due && dirt > best_dirt && p->clean_retry_ns <= b->shard.now_ns) {
                best = p;
                best_dirt = dirt;
                *bounds = its;
            }
        }
    }
    metric_set(b->shard.metrics, M_compaction_dirty_percent, (u64)(most * 100 / CONFIG_RATIO_ONE));
    return best;
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
    const struct config *cfg = b->node->cfg;
    struct clean_bounds bounds = { .end = 0 }; /* gcc 14 does not see that a choice sets it */
    struct partition *p = NULL;
    if (config_i64(cfg, CFG_log_cleaner_enable))
        p = partition_choose(b, &bounds);
    if (p) {
        c->began_ns = b->shard.now_ns;
        c->op = (struct clean_op){ .p = p->pindex,
                                   .end = bounds.end,
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
