/* DeleteRecords, DescribeProducers, DescribeLogDirs: asked of the partitions' owners. */
#include <sys/statvfs.h>

#include "broker_int.h"
#include "check.h"

/* ---- DeleteRecords ---- */

typedef struct delete_records_response_delete_records_partition_result delete_result;

struct delete_item {
    struct pindex_op op;
    struct part *part;
    struct bytes topic;
    const struct delete_records_request_delete_records_partition *q;
    delete_result *r;
    struct partition_key key;
};

static void delete_part_release(struct part *p)
{
    if (--p->outstanding == 0)
        part_done(p);
}

static void delete_moved(struct pindex_op *op)
{
    struct delete_item *it = container_of(op, struct delete_item, op);
    it->r->error_code = (i16)err_to_kafka(op->err);
    it->r->low_watermark = op->err == ERR_NONE ? op->offset : -1;
    delete_part_release(it->part);
}

static err delete_check(const struct partition *p, i64 *offset)
{
    if (p->topic->internal)
        return ERR_INVALID_TOPIC_EXCEPTION;
    if (!(p->topic->config.cleanup_policy & CLEANUP_DELETE))
        return ERR_POLICY_VIOLATION;
    i64 end = partition_high_watermark(p);
    if (*offset == -1)
        *offset = end;
    return *offset < 0 || *offset > end ? ERR_OFFSET_OUT_OF_RANGE : ERR_NONE;
}

static void delete_item_run(struct part *part, struct delete_item *it)
{
    err e;
    i64 offset = it->q->offset;
    it->part = part;
    struct partition *p =
        partition_find(part->at, catalog_by_name(part->at, it->topic), it->q->partition_index, &e);
    if (p)
        e = delete_check(p, &offset);
    it->r->low_watermark = -1;
    it->r->error_code = (i16)e;
    if (e != ERR_NONE)
        return;
    CHECK(p != NULL);
    if (offset <= partition_start(p)) {
        it->r->low_watermark = partition_start(p);
        return;
    }
    part->outstanding++;
    pindex_set_start(p->pindex, offset, &it->op, delete_moved);
}

static void delete_part_run(struct part *p)
{
    p->outstanding = 1;
    for (u32 i = 0; i < p->item_count; i++)
        delete_item_run(p, p->items[i]);
    delete_part_release(p);
}

static bool delete_add(struct scatter *s, struct bytes topic,
                       const struct delete_records_request_delete_records_partition *q,
                       delete_result *r)
{
    delete_records_response_delete_records_partition_result_init(r);
    r->partition_index = q->partition_index;
    struct topic_entry *t = catalog_by_name(s->home, topic);
    if (!t || q->partition_index < 0 || q->partition_index >= t->topic->partition_count) {
        r->error_code = ERR_UNKNOWN_TOPIC_OR_PARTITION;
        r->low_watermark = -1;
        return true;
    }
    struct delete_item *it = arena_alloc(s->call->arena, sizeof *it);
    if (!it)
        return false;
    it->topic = topic;
    it->q = q;
    it->r = r;
    return scatter_add(s, partition_shard(s->home, t->topic, q->partition_index), it);
}

static const struct named_shape delete_shape =
    NAMED_SHAPE(delete_records_request_delete_records_topic, name, NAMED_NO_ID, partitions,
                delete_records_request_delete_records_partition, partition_index);

void handle_delete_records(struct call *c)
{
    const struct delete_records_request *q = CALL_REQ(c, delete_records_request);
    struct delete_records_response *resp = CALL_RESP(c, delete_records_response);
    struct scatter *s = scatter_new(c, delete_part_run, scatter_answer);
    const u8 *merged = named_merge(c, &delete_shape, &q->topics);
    i32 n = q->topics.n;
    resp->topics.v = CALL_ARRAY(c, struct delete_records_response_delete_records_topic_result, n);
    resp->topics.n = n;
    bool fits = s && merged && resp->topics.v;
    for (i32 i = 0; fits && i < n; i++) {
        struct delete_records_response_delete_records_topic_result *t = &resp->topics.v[i];
        i32 m = q->topics.v[i].partitions.n;
        delete_records_response_delete_records_topic_result_init(t);
        t->name = q->topics.v[i].name;
        t->partitions.v = CALL_ARRAY(c, delete_result, m);
        t->partitions.n = m;
        fits = t->partitions.v != NULL;
        for (i32 j = 0; fits && j < m; j++)
            fits = delete_add(s, t->name, &q->topics.v[i].partitions.v[j], &t->partitions.v[j]);
    }
    scatter_start_or_refuse(s, c, fits);
}

/* ---- DescribeProducers ---- */

typedef struct describe_producers_response_partition_response producers_result;

struct producers_item {
    struct bytes topic;
    producers_result *r;
};

static void producers_item_run(struct part *part, struct producers_item *it)
{
    err e;
    producers_result *r = it->r;
    struct partition *p =
        partition_find(part->at, catalog_by_name(part->at, it->topic), r->partition_index, &e);
    r->error_code = (i16)e;
    if (!p)
        return;
    r->active_producers.v =
        arena_alloc(&part->arena, p->producer_count * sizeof *r->active_producers.v);
    if (!r->active_producers.v) {
        r->error_code = ERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    struct producer *m, *next;
    HASH_ITER(hh, p->producers, m, next) {
        struct describe_producers_response_producer_state *o =
            &r->active_producers.v[r->active_producers.n++];
        describe_producers_response_producer_state_init(o);
        const struct producer_batch *last = m->batch_count ? &m->batches[m->batch_count - 1] : NULL;
        o->producer_id = m->id;
        o->producer_epoch = m->epoch;
        o->last_sequence = last ? last->last_sequence : -1;
        o->last_timestamp = last ? last->timestamp : m->last_ms;
        o->coordinator_epoch = m->coordinator_epoch;
        o->current_txn_start_offset = -1;
    }
}

static void producers_part_run(struct part *p)
{
    for (u32 i = 0; i < p->item_count; i++)
        producers_item_run(p, p->items[i]);
    part_done(p);
}

static bool producers_add(struct scatter *s, struct bytes topic, i32 index, producers_result *r)
{
    describe_producers_response_partition_response_init(r);
    r->partition_index = index;
    r->error_message = (struct bytes){ NULL, 0 };
    r->active_producers.n = 0;
    struct topic_entry *t = catalog_by_name(s->home, topic);
    if (!t || index < 0 || index >= t->topic->partition_count) {
        r->error_code =
            topic_name_valid(topic) ? ERR_UNKNOWN_TOPIC_OR_PARTITION : ERR_INVALID_TOPIC_EXCEPTION;
        r->error_message = bytes_str(err_text(r->error_code));
        return true;
    }
    struct producers_item *it = arena_alloc(s->call->arena, sizeof *it);
    if (!it)
        return false;
    *it = (struct producers_item){ topic, r };
    return scatter_add(s, partition_shard(s->home, t->topic, index), it);
}

void handle_describe_producers(struct call *c)
{
    const struct describe_producers_request *q = CALL_REQ(c, describe_producers_request);
    struct describe_producers_response *resp = CALL_RESP(c, describe_producers_response);
    struct scatter *s = scatter_new(c, producers_part_run, scatter_answer);
    i32 n = MAX(q->topics.n, 0);
    resp->topics.v = CALL_ARRAY(c, struct describe_producers_response_topic_response, n);
    resp->topics.n = n;
    bool fits = s && resp->topics.v;
    for (i32 i = 0; fits && i < n; i++) {
        struct describe_producers_response_topic_response *t = &resp->topics.v[i];
        i32 m = MAX(q->topics.v[i].partition_indexes.n, 0);
        describe_producers_response_topic_response_init(t);
        t->name = q->topics.v[i].name;
        t->partitions.v = CALL_ARRAY(c, producers_result, m);
        t->partitions.n = m;
        fits = t->partitions.v != NULL;
        for (i32 j = 0; fits && j < m; j++)
            fits = producers_add(s, t->name, q->topics.v[i].partition_indexes.v[j],
                                 &t->partitions.v[j]);
    }
    scatter_start_or_refuse(s, c, fits);
}

/* ---- DescribeLogDirs: one directory, the data directory ---- */

typedef struct describe_log_dirs_response_describe_log_dirs_partition dir_partition;
typedef struct describe_log_dirs_response_describe_log_dirs_topic dir_topic;

struct dir_item {
    struct bytes topic;
    dir_partition *r;
};

struct dir_op { /* the disk's size is asked for in the background: statvfs may block */
    struct bg_job job;
    struct call *call;
    i64 total_bytes, usable_bytes;
};

static void dir_part_run(struct part *part)
{
    for (u32 i = 0; i < part->item_count; i++) {
        struct dir_item *it = part->items[i];
        err e;
        struct partition *p = partition_find(part->at, catalog_by_name(part->at, it->topic),
                                             it->r->partition_index, &e);
        it->r->partition_size = p ? (i64)pindex_bytes(p->pindex) : 0;
    }
    part_done(part);
}

static void dir_stat(struct bg_job *j)
{
    struct dir_op *op = container_of(j, struct dir_op, job);
    struct statvfs v;
    op->total_bytes = op->usable_bytes = -1;
    if (statvfs(config_str(op->call->at->node->cfg, CFG_node_data_dir), &v) == 0) {
        op->total_bytes = (i64)(v.f_blocks * v.f_frsize);
        op->usable_bytes = (i64)(v.f_bavail * v.f_frsize);
    }
}

static void dir_stat_done(struct bg_job *j)
{
    struct dir_op *op = container_of(j, struct dir_op, job);
    struct describe_log_dirs_response *resp = CALL_RESP(op->call, describe_log_dirs_response);
    resp->results.v[0].total_bytes = op->total_bytes;
    resp->results.v[0].usable_bytes = op->usable_bytes;
    call_done(op->call);
}

static void dir_gathered(struct scatter *s)
{
    struct dir_op *op = s->call->user;
    bg_submit(&s->home->shard, &op->job, BG_MISC, dir_stat, dir_stat_done);
}

static bool dir_add(struct scatter *s, const struct topic *t, i32 index, dir_topic *r)
{
    if (index < 0 || index >= t->partition_count)
        return true;
    struct dir_item *it = arena_alloc(s->call->arena, sizeof *it);
    if (!it)
        return false;
    dir_partition *p = &r->partitions.v[r->partitions.n++];
    describe_log_dirs_response_describe_log_dirs_partition_init(p);
    p->partition_index = index;
    *it = (struct dir_item){ r->name, p };
    return scatter_add(s, partition_shard(s->home, t, index), it);
}

/* `asked`: the partitions that are named; NULL: all. A topic without any is left out. */
static bool dir_add_topic(struct scatter *s, const struct topic *t,
                          const struct describe_log_dirs_request_describable_log_dir_topic *asked,
                          struct describe_log_dirs_response_describe_log_dirs_result *dir)
{
    struct call *c = s->call;
    dir_topic *r = &dir->topics.v[dir->topics.n];
    i32 n = asked ? asked->partitions.n : t->partition_count;
    describe_log_dirs_response_describe_log_dirs_topic_init(r);
    r->name = arena_copy(c->arena, t->name);
    r->partitions.v = CALL_ARRAY(c, dir_partition, n);
    r->partitions.n = 0;
    bool fits = r->partitions.v && r->name.data;
    for (i32 i = 0; fits && i < n; i++)
        fits = dir_add(s, t, asked ? asked->partitions.v[i] : i, r);
    dir->topics.n += r->partitions.n > 0;
    return fits;
}

static const struct named_shape dir_shape = {
    sizeof(struct describe_log_dirs_request_describable_log_dir_topic),
    offsetof(struct describe_log_dirs_request_describable_log_dir_topic, topic),
    NAMED_NO_ID,
    offsetof(struct describe_log_dirs_request_describable_log_dir_topic, partitions),
    sizeof(i32),
    0,
};

static bool dir_add_topics(struct scatter *s,
                           struct describe_log_dirs_response_describe_log_dirs_result *dir)
{
    struct call *c = s->call;
    const struct describe_log_dirs_request *q = CALL_REQ(c, describe_log_dirs_request);
    bool all = q->topics.n < 0, fits = all || named_merge(c, &dir_shape, &q->topics);
    u32 n = all ? HASH_CNT(hh_name, c->at->topics_by_name) : (u32)q->topics.n;
    struct topic_entry *e, *next;
    dir->topics.v = CALL_ARRAY(c, dir_topic, n);
    dir->topics.n = 0;
    fits = fits && dir->topics.v;
    for (u32 i = 0; fits && !all && i < n; i++)
        if ((e = catalog_by_name(c->at, q->topics.v[i].topic)))
            fits = dir_add_topic(s, e->topic, &q->topics.v[i], dir);
    if (all)
        HASH_ITER(hh_name, c->at->topics_by_name, e, next)
            fits = fits && dir_add_topic(s, e->topic, NULL, dir);
    return fits;
}

void handle_describe_log_dirs(struct call *c)
{
    struct describe_log_dirs_response *resp = CALL_RESP(c, describe_log_dirs_response);
    struct scatter *s = scatter_new(c, dir_part_run, dir_gathered);
    struct dir_op *op = arena_alloc(c->arena, sizeof *op);
    resp->results.v = CALL_ARRAY(c, struct describe_log_dirs_response_describe_log_dirs_result, 1);
    bool fits = s && op && resp->results.v;
    if (fits) {
        resp->results.n = 1;
        describe_log_dirs_response_describe_log_dirs_result_init(&resp->results.v[0]);
        resp->results.v[0].log_dir = bytes_str(config_str(c->at->node->cfg, CFG_node_data_dir));
        op->call = c;
        c->user = op;
        fits = dir_add_topics(s, &resp->results.v[0]);
    }
    scatter_start_or_refuse(s, c, fits);
}
