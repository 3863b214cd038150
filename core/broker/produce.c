/* Produce: split by owning shard, appended in the order of the request, answered when every
 * partition's batch is durable (acks 1 and -1) or appended (acks 0: no answer at all).
 *
 * Order: parts reach an owner in the order their requests came on a connection, and a part that
 * finds no room (ERR_BUSY) keeps all later ones behind it in `stalled`, so two requests of one
 * connection never overtake each other on a partition. A stalled part waits until room comes, or
 * until its request's timeout or wal.full_wait is over; what is left of it then fails with
 * REQUEST_TIMED_OUT, which clients retry. The connection stops reading by its own bounds meanwhile
 * (P5).
 *
 * A partition that is named more than once gets the records it is named with last, and one answer:
 * to Kafka, too, a request is a map.
 *
 * A part whose batches wait for the object store (leat.durability=object) is in `awaited`. When its
 * request's timeout is over it is answered with REQUEST_TIMED_OUT, too; the batches stay in the
 * log, as Kafka's do that too few replicas have, and an idempotent producer's retry is a duplicate.
 */
#include "broker_int.h"
#include "check.h"

typedef struct produce_response_partition_produce_response produce_result;

struct produce_item { /* one partition of the request */
    struct partition_append pa;
    struct part *part;
    struct bytes topic_name;
    struct uuid topic_id;
    struct bytes records;
    i32 index;
    bool waits; /* appended, not done */
    produce_result *result;
};

enum { PART_NEXT = 0 }; /* part->user[]: index of the next item to append */

#define STALL_TICK_NS (50 * NS_PER_MS)

static u32 part_next(const struct part *p)
{
    return (u32)(uintptr_t)p->user[PART_NEXT];
}

/* ---- at the owner ---- */

static void produce_fail(struct produce_item *it, err e, const char *reason)
{
    produce_result *r = it->result;
    r->error_code = (i16)err_to_kafka(e);
    r->base_offset = -1;
    r->log_append_time_ms = -1;
    r->log_start_offset = -1;
    if (reason)
        r->error_message = bytes_str(reason);
    metric_add(it->part->at->shard.metrics, M_produce_rejected, 1);
}

static void produce_part_release(struct part *p)
{
    CHECK(p->outstanding > 0);
    if (--p->outstanding > 0)
        return;
    list_remove(&p->link); /* of awaited */
    part_done(p);
}

static void produce_appended(struct partition_append *pa)
{
    struct produce_item *it = container_of(pa, struct produce_item, pa);
    it->waits = false;
    if (pa->err != ERR_NONE) {
        produce_fail(it, pa->err, NULL);
    } else {
        it->result->base_offset = pa->base_offset;
        it->result->log_append_time_ms = pa->log_append_ms;
        it->result->log_start_offset = partition_start(pa->partition);
    }
    produce_part_release(it->part);
}

/* Zstd came with Produce 7 (KIP-110): an older client could not read it back. */
static bool produce_codec_known(const struct call *c, struct bytes records)
{
    if (c->header.request_api_version >= 7 || records.len < BATCH_HEADER_BYTES)
        return true;
    return (get_be16(records.data + BATCH_AT_ATTRIBUTES) & BATCH_ATTR_CODEC) != CODEC_ZSTD;
}

/* ERR_BUSY: try again later; everything else is dealt with. */
static err produce_item_append(struct part *part, struct produce_item *it)
{
    err why;
    it->part = part;
    if (config_bool(part->at->node->cfg, CFG_store_readonly)) {
        produce_fail(it, ERR_POLICY_VIOLATION,
                     "This node only looks at its object store "
                     "(store.readonly): it takes no records");
        return ERR_NONE;
    }
    struct topic_entry *t = catalog_find(part->at, it->topic_name, it->topic_id);
    struct partition *p = partition_find(part->at, t, it->index, &why);
    if (!p) {
        produce_fail(it, why, NULL);
        return ERR_NONE;
    }
    struct call *c = part->scatter->call;
    err e = ERR_UNSUPPORTED_COMPRESSION_TYPE;
    it->pa.append.early = CALL_REQ(c, produce_request)->acks == 0;
    if (produce_codec_known(c, it->records))
        e = partition_append(p, it->records, true, &part->arena, &it->pa, produce_appended);
    else
        it->pa.reason = NULL;
    if (e == ERR_BUSY)
        return e;
    it->waits = e == ERR_NONE;
    if (it->waits)
        part->outstanding++;
    else
        produce_fail(it, e, it->pa.reason);
    return ERR_NONE;
}

static void produce_tick(struct timer *t);

static void produce_tick_arm(struct broker *b)
{
    if (!timer_armed(&b->stalled_timer))
        timer_start(&b->shard.timers, &b->stalled_timer, b->shard.now_ns + STALL_TICK_NS,
                    produce_tick);
}

/* Every item was tried, or given up. */
static void produce_part_tried(struct part *p)
{
    p->user[PART_NEXT] = (void *)(uintptr_t)p->item_count;
    bool in_store = false;
    for (u32 i = 0; i < p->item_count; i++) {
        const struct produce_item *it = p->items[i];
        in_store |= it->waits && partition_in_store(it->pa.partition);
    }
    if (in_store) {
        list_push_back(&p->at->awaited, &p->link);
        produce_tick_arm(p->at);
    }
    produce_part_release(p);
}

/* Appends what is left of the part; false when there is no room now. */
static bool produce_part_go(struct part *p)
{
    for (u32 i = part_next(p); i < p->item_count; i++) {
        p->user[PART_NEXT] = (void *)(uintptr_t)i;
        if (produce_item_append(p, p->items[i]) == ERR_BUSY)
            return false;
    }
    produce_part_tried(p);
    return true;
}

static u64 part_deadline_ns(const struct part *p)
{
    const struct call *c = p->scatter->call;
    i64 ms = CALL_REQ(c, produce_request)->timeout_ms;
    ms = MIN(MAX(ms, 0), config_i64(p->at->node->cfg, CFG_wal_full_wait_ms));
    return c->request->arrived_ns + (u64)ms * NS_PER_MS;
}

/* See producers_refused. */
static void produce_item_refused(struct part *part, const struct produce_item *it)
{
    err why;
    struct batch b;
    struct topic_entry *t = catalog_find(part->at, it->topic_name, it->topic_id);
    struct partition *p = partition_find(part->at, t, it->index, &why);
    if (p && batch_parse_produce(it->records, &b) == ERR_NONE && batch_has_producer(&b))
        producers_refused(p, &b, part->at->shard.now_ms);
}

static void produce_part_expire(struct part *p)
{
    for (u32 i = part_next(p); i < p->item_count; i++) {
        struct produce_item *it = p->items[i];
        it->part = p;
        produce_item_refused(p, it);
        produce_fail(it, ERR_REQUEST_TIMED_OUT,
                     "The write-ahead log is full: the object store does "
                     "not take data fast enough, or its disk is full.");
    }
    produce_part_tried(p);
}

/* What the object store does not have in time. */
static void produce_awaited_expire(struct part *p)
{
    u32 over = 0;
    for (u32 i = 0; i < p->item_count; i++) {
        struct produce_item *it = p->items[i];
        if (!it->waits || !partition_append_abandon(&it->pa))
            continue;
        it->waits = false;
        over++;
        produce_fail(it, ERR_REQUEST_TIMED_OUT,
                     "The object store did not take the records in time; they stay in the log.");
    }
    while (over-- > 0)
        produce_part_release(p);
}

static void produce_room(struct room_wait *w)
{
    produce_resume(container_of(w, struct broker, room));
}

static void produce_tick(struct timer *t)
{
    struct broker *b = container_of(t, struct broker, stalled_timer);
    list_for_safe(l, &b->stalled) {
        struct part *p = list_entry(l, struct part, link);
        if (part_deadline_ns(p) <= b->shard.now_ns) {
            list_remove(&p->link);
            produce_part_expire(p);
        }
    }
    list_for_safe(l, &b->awaited) {
        struct part *p = list_entry(l, struct part, link);
        if (part_deadline_ns(p) <= b->shard.now_ns)
            produce_awaited_expire(p);
    }
    if (!list_empty(&b->awaited))
        produce_tick_arm(b);
    produce_resume(b);
}

static void produce_stall(struct broker *b)
{
    if (!list_linked(&b->room.link))
        storage_wait_room(b->storage, &b->room, produce_room);
    produce_tick_arm(b);
}

void produce_resume(struct broker *b)
{
    struct list *l;
    while ((l = list_pop_front(&b->stalled))) {
        struct part *p = list_entry(l, struct part, link);
        if (!produce_part_go(p)) {
            list_push_front(&b->stalled, &p->link);
            produce_stall(b);
            return;
        }
    }
}

static void produce_part_run(struct part *p)
{
    struct broker *b = p->at;
    p->outstanding = 1; /* until every item was tried */
    list_init(&p->link);
    if (list_empty(&b->stalled) && produce_part_go(p))
        return;
    list_push_back(&b->stalled, &p->link);
    metric_add(b->shard.metrics, M_backpressure, 1);
    produce_stall(b);
}

/* ---- at home ---- */

static void produce_gathered(struct scatter *s)
{
    struct call *c = s->call;
    if (CALL_REQ(c, produce_request)->acks != 0) {
        call_done(c);
        return;
    }
    /* acks=0: nobody reads an answer; Kafka tells of an error by closing the connection. */
    const struct produce_response *resp = CALL_RESP(c, produce_response);
    c->no_response = true;
    for (i32 i = 0; i < resp->responses.n; i++)
        for (i32 j = 0; j < resp->responses.v[i].partition_responses.n; j++)
            if (resp->responses.v[i].partition_responses.v[j].error_code != ERR_NONE)
                c->close_after = true;
    call_done(c);
}

/* Before any shard is asked: what the home shard can refuse by itself. */
static err produce_item_check(const struct call *c, const struct topic_entry *t,
                              const struct produce_item *it)
{
    i16 acks = CALL_REQ(c, produce_request)->acks;
    if (acks < -1 || acks > 1)
        return ERR_INVALID_REQUIRED_ACKS;
    if (!t)
        return uuid_is_zero(it->topic_id) ? ERR_UNKNOWN_TOPIC_OR_PARTITION : ERR_UNKNOWN_TOPIC_ID;
    if (it->index < 0 || it->index >= t->topic->partition_count)
        return ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (t->topic->internal && !bytes_eq_str(c->header.client_id, "__admin_client"))
        return ERR_INVALID_TOPIC_EXCEPTION;
    return ERR_NONE;
}

static bool produce_partition(struct scatter *s, const struct topic_entry *t,
                              const struct produce_request_topic_produce_data *td,
                              const struct produce_request_partition_produce_data *pd,
                              produce_result *r)
{
    struct produce_item *it = arena_alloc(s->call->arena, sizeof *it);
    if (!it)
        return false;
    produce_response_partition_produce_response_init(r);
    r->index = it->index = pd->index;
    r->error_message = (struct bytes){ NULL, 0 };
    it->topic_name = td->name;
    it->topic_id = td->topic_id;
    it->records = pd->records;
    it->result = r;
    err e = produce_item_check(s->call, t, it);
    if (e == ERR_NONE)
        return scatter_add(s, partition_shard(s->home, t->topic, pd->index), it);
    r->error_code = (i16)e;
    r->base_offset = -1;
    return true;
}

static bool produce_topic(struct scatter *s, const struct produce_request_topic_produce_data *td,
                          struct produce_response_topic_produce_response *tr)
{
    struct call *c = s->call;
    i32 n = MAX(td->partition_data.n, 0);
    produce_response_topic_produce_response_init(tr);
    tr->name = td->name;
    tr->topic_id = td->topic_id;
    tr->partition_responses.v = CALL_ARRAY(c, produce_result, n);
    tr->partition_responses.n = n;
    if (!tr->partition_responses.v)
        return false;
    struct topic_entry *t = catalog_find(s->home, td->name, td->topic_id);
    for (i32 i = 0; i < n; i++)
        if (!produce_partition(s, t, td, &td->partition_data.v[i], &tr->partition_responses.v[i]))
            return false;
    return true;
}

static const struct named_shape produce_shape =
    NAMED_SHAPE(produce_request_topic_produce_data, name,
                offsetof(struct produce_request_topic_produce_data, topic_id), partition_data,
                produce_request_partition_produce_data, index);

void handle_produce(struct call *c)
{
    const struct produce_request *q = CALL_REQ(c, produce_request);
    struct produce_response *resp = CALL_RESP(c, produce_response);
    struct scatter *s = scatter_new(c, produce_part_run, produce_gathered);
    bool fits = s && named_merge(c, &produce_shape, &q->topic_data);
    i32 n = MAX(q->topic_data.n, 0);
    resp->responses.v = CALL_ARRAY(c, struct produce_response_topic_produce_response, n);
    resp->responses.n = n;
    fits = fits && resp->responses.v;
    for (i32 i = 0; fits && i < n; i++)
        fits = produce_topic(s, &q->topic_data.v[i], &resp->responses.v[i]);
    scatter_start_or_refuse(s, c, fits);
}
