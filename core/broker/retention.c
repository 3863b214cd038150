/* Retention by size and time, and expiry of idle producers: walks the partitions of this shard
 * at log.retention.check.interval.ms. Whole blocks go; the open segment is never touched. */
#include "broker_int.h"
#include "log.h"

struct retention_op {
    struct pindex_op op;
    i64 from;
};

static void retention_done(struct pindex_op *p)
{
    struct retention_op *r = container_of(p, struct retention_op, op);
    if (p->err != ERR_NONE)
        LOG(WARN, retention_failed, "err=%s", err_name(p->err));
    mem_free(r);
}

static void retention_partition(struct partition *p)
{
    const struct topic_config *tc = &p->topic->config;
    producers_expire(p, p->broker->shard.now_ms -
                            config_i64(p->broker->node->cfg, CFG_producer_id_expiration_ms));
    if (!(tc->cleanup_policy & CLEANUP_DELETE))
        return;
    i64 oldest = tc->retention_ms < 0 ? -1 : p->broker->shard.now_ms - tc->retention_ms;
    i64 to = pindex_retention_offset(p->pindex, tc->retention_bytes, oldest);
    i64 from = partition_start(p);
    if (to <= from)
        return;
    struct retention_op *r = MEM_NEW(struct retention_op);
    r->from = from;
    metric_add(p->broker->shard.metrics, M_retention_records, (u64)(to - from));
    LOG(INFO, retention, "topic=%.*s partition=%d from=%" PRId64 " to=%" PRId64,
        (int)p->topic->name.len, (const char *)p->topic->name.data, p->index, from, to);
    pindex_set_start(p->pindex, to, &r->op, retention_done);
}

void retention_run(struct broker *b)
{
    struct topic_entry *e, *next;
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        for (i32 i = 0; i < e->topic->partition_count; i++)
            if (e->partitions[i])
                retention_partition(e->partitions[i]);
}
