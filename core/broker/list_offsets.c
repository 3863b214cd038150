/* ListOffsets and OffsetForLeaderEpoch: positions in partitions, asked of their owners. */
#include "broker_int.h"
#include "check.h"

/* Special timestamps and the first version that knows them. */
enum {
    LATEST = -1,
    EARLIEST = -2,
    MAX_TIMESTAMP = -3,
    EARLIEST_LOCAL = -4,
    LATEST_TIERED = -5,
    EARLIEST_PENDING_UPLOAD = -6,
};

typedef struct list_offsets_response_list_offsets_partition_response offset_result;

struct offset_item {
    struct lookup_op lookup;
    struct part *part;
    struct bytes topic;
    const struct list_offsets_request_list_offsets_partition *q;
    offset_result *r;
};

static err special_check(const struct call *c, i64 timestamp)
{
    static const i16 since[] = { 0, 0, 0, 7, 8, 9, 11 };
    i16 v = c->header.request_api_version;
    if (timestamp >= 0)
        return ERR_NONE;
    return timestamp >= EARLIEST_PENDING_UPLOAD && v >= since[-timestamp] ? ERR_NONE
                                                                          : ERR_UNSUPPORTED_VERSION;
}

static void offset_found(struct offset_item *it, i64 offset, i64 timestamp, i32 epoch)
{
    it->r->offset = offset;
    it->r->timestamp = timestamp;
    it->r->leader_epoch = offset >= 0 ? epoch : -1;
}

static void offset_part_release(struct part *p)
{
    if (--p->outstanding == 0)
        part_done(p);
}

static void offset_looked_up(struct lookup_op *op)
{
    struct offset_item *it = container_of(op, struct offset_item, lookup);
    if (op->err != ERR_NONE)
        it->r->error_code = (i16)err_to_kafka(op->err);
    else
        offset_found(it, op->offset, op->found_timestamp, 0);
}

static void offset_lookup_done(struct lookup_op *op)
{
    struct offset_item *it = container_of(op, struct offset_item, lookup);
    offset_looked_up(op);
    offset_part_release(it->part);
}

static void offset_lookup(struct offset_item *it, struct partition *p)
{
    it->lookup.p = p->pindex;
    it->lookup.timestamp = it->q->timestamp;
    if (storage_lookup(&it->lookup, offset_lookup_done) == READ_DONE)
        offset_looked_up(&it->lookup);
    else
        it->part->outstanding++;
}

/* The special timestamps of tiered storage, for topics that have it enabled in Kafka's sense; the
 * others have one log, local from its start, and nothing tiered. docs/tiered.md */
static i64 offset_tiered(const struct partition *p, i64 timestamp)
{
    i64 end = pindex_tiered_end(p->pindex);
    if (!p->topic->config.remote_storage_enable)
        return timestamp == EARLIEST_LOCAL ? partition_start(p) : -1;
    if (timestamp == EARLIEST_LOCAL)
        return MIN(pindex_local_start(p->pindex), partition_high_watermark(p));
    if (timestamp == LATEST_TIERED)
        return end - 1;
    CHECK(timestamp == EARLIEST_PENDING_UPLOAD);
    return MAX(end, partition_start(p));
}

static void offset_item_run(struct part *part, struct offset_item *it)
{
    err e;
    it->part = part;
    struct partition *p =
        partition_find(part->at, catalog_by_name(part->at, it->topic), it->q->partition_index, &e);
    if (p)
        e = partition_check_epoch(p, it->q->current_leader_epoch);
    if (e != ERR_NONE) {
        it->r->error_code = (i16)e;
        return;
    }
    CHECK(p != NULL);
    switch (it->q->timestamp) {
    case LATEST:
        offset_found(it, partition_high_watermark(p), -1, p->leader_epoch);
        break;
    case EARLIEST:
        offset_found(it, partition_start(p), -1, p->leader_epoch);
        break;
    case EARLIEST_LOCAL:
    case LATEST_TIERED:
    case EARLIEST_PENDING_UPLOAD:
        offset_found(it, offset_tiered(p, it->q->timestamp), -1, p->leader_epoch);
        break;
    default:
        offset_lookup(it, p);
    }
}

static void offset_part_run(struct part *p)
{
    p->outstanding = 1;
    for (u32 i = 0; i < p->item_count; i++)
        offset_item_run(p, p->items[i]);
    offset_part_release(p);
}

static bool offset_add(struct scatter *s, struct bytes topic,
                       const struct list_offsets_request_list_offsets_partition *q, bool once,
                       offset_result *r)
{
    struct call *c = s->call;
    list_offsets_response_list_offsets_partition_response_init(r);
    r->partition_index = q->partition_index;
    err e = once ? special_check(c, q->timestamp) : ERR_INVALID_REQUEST;
    struct topic_entry *entry = catalog_by_name(s->home, topic);
    if (e == ERR_NONE &&
        (!entry || q->partition_index < 0 || q->partition_index >= entry->topic->partition_count))
        e = ERR_UNKNOWN_TOPIC_OR_PARTITION;
    r->error_code = (i16)e;
    if (e != ERR_NONE)
        return true;
    struct offset_item *it = arena_alloc(c->arena, sizeof *it);
    if (!it)
        return false;
    it->topic = topic;
    it->q = q;
    it->r = r;
    return scatter_add(s, partition_shard(s->home, entry->topic, q->partition_index), it);
}

static const struct named_shape offsets_shape =
    NAMED_SHAPE(list_offsets_request_list_offsets_topic, name, NAMED_NO_ID, partitions,
                list_offsets_request_list_offsets_partition, partition_index);

void handle_list_offsets(struct call *c)
{
    const struct list_offsets_request *q = CALL_REQ(c, list_offsets_request);
    struct list_offsets_response *resp = CALL_RESP(c, list_offsets_response);
    struct scatter *s = scatter_new(c, offset_part_run, scatter_answer);
    const u8 *twice = named_merge(c, &offsets_shape, &q->topics);
    i32 n = q->topics.n;
    resp->topics.v = CALL_ARRAY(c, struct list_offsets_response_list_offsets_topic_response, n);
    resp->topics.n = n;
    bool fits = s && twice && resp->topics.v;
    for (i32 i = 0; fits && i < n; i++) {
        struct list_offsets_response_list_offsets_topic_response *t = &resp->topics.v[i];
        i32 m = q->topics.v[i].partitions.n;
        list_offsets_response_list_offsets_topic_response_init(t);
        t->name = q->topics.v[i].name;
        t->partitions.v = CALL_ARRAY(c, offset_result, m);
        t->partitions.n = m;
        fits = t->partitions.v != NULL;
        for (i32 j = 0; fits && j < m; j++)
            fits = offset_add(s, t->name, &q->topics.v[i].partitions.v[j], !*twice++,
                              &t->partitions.v[j]);
    }
    scatter_start_or_refuse(s, c, fits);
}

/* ---- OffsetForLeaderEpoch ---- */

typedef struct offset_for_leader_epoch_request_offset_for_leader_partition epoch_req;
typedef struct offset_for_leader_epoch_response_epoch_end_offset epoch_result;

struct epoch_item {
    struct bytes topic;
    const epoch_req *q;
    epoch_result *r;
};

static void epoch_part_run(struct part *part)
{
    for (u32 i = 0; i < part->item_count; i++) {
        struct epoch_item *it = part->items[i];
        err e;
        struct partition *p =
            partition_find(part->at, catalog_by_name(part->at, it->topic), it->q->partition, &e);
        if (p)
            e = partition_check_epoch(p, it->q->current_leader_epoch);
        it->r->error_code = (i16)e;
        if (p && e == ERR_NONE && it->q->leader_epoch == p->leader_epoch) {
            it->r->leader_epoch = p->leader_epoch;
            it->r->end_offset = partition_high_watermark(p);
        }
    }
    part_done(part);
}

static bool epoch_add(struct scatter *s, struct bytes topic, const epoch_req *q, epoch_result *r)
{
    offset_for_leader_epoch_response_epoch_end_offset_init(r);
    r->partition = q->partition;
    struct topic_entry *t = catalog_by_name(s->home, topic);
    if (!t || q->partition < 0 || q->partition >= t->topic->partition_count) {
        r->error_code = ERR_UNKNOWN_TOPIC_OR_PARTITION;
        return true;
    }
    struct epoch_item *it = arena_alloc(s->call->arena, sizeof *it);
    if (!it)
        return false;
    *it = (struct epoch_item){ topic, q, r };
    return scatter_add(s, partition_shard(s->home, t->topic, q->partition), it);
}

void handle_offset_for_leader_epoch(struct call *c)
{
    const struct offset_for_leader_epoch_request *q = CALL_REQ(c, offset_for_leader_epoch_request);
    struct offset_for_leader_epoch_response *resp = CALL_RESP(c, offset_for_leader_epoch_response);
    struct scatter *s = scatter_new(c, epoch_part_run, scatter_answer);
    i32 n = MAX(q->topics.n, 0);
    resp->topics.v =
        CALL_ARRAY(c, struct offset_for_leader_epoch_response_offset_for_leader_topic_result, n);
    resp->topics.n = n;
    bool fits = s && resp->topics.v;
    for (i32 i = 0; fits && i < n; i++) {
        struct offset_for_leader_epoch_response_offset_for_leader_topic_result *t =
            &resp->topics.v[i];
        i32 m = MAX(q->topics.v[i].partitions.n, 0);
        offset_for_leader_epoch_response_offset_for_leader_topic_result_init(t);
        t->topic = q->topics.v[i].topic;
        t->partitions.v = CALL_ARRAY(c, epoch_result, m);
        t->partitions.n = m;
        fits = t->partitions.v != NULL;
        for (i32 j = 0; fits && j < m; j++)
            fits = epoch_add(s, t->topic, &q->topics.v[i].partitions.v[j], &t->partitions.v[j]);
    }
    scatter_start_or_refuse(s, c, fits);
}
