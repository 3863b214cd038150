/* DescribeTopicPartitions (KIP-966): topics in order of name, partition by partition, in pages. */
#include <stdlib.h>

#include "broker_int.h"
#include "check.h"

typedef struct describe_topic_partitions_response_describe_topic_partitions_response_topic
    page_topic;
typedef struct describe_topic_partitions_response_describe_topic_partitions_response_partition
    page_partition;

#define PAGE_PARTITIONS_MAX 2000 /* Kafka's max.request.partition.size.limit */

struct page {
    struct call *call;
    struct bytes *names; /* sorted, without duplicates */
    u32 name_count;
    i32 room; /* partitions that still fit */
};

static int names_order(const void *a, const void *b)
{
    return bytes_cmp(*(const struct bytes *)a, *(const struct bytes *)b);
}

static bool page_names(struct page *pg)
{
    struct call *c = pg->call;
    const struct describe_topic_partitions_request *q =
        CALL_REQ(c, describe_topic_partitions_request);
    struct broker *b = c->at;
    u32 cap = q->topics.n > 0 ? (u32)q->topics.n : HASH_CNT(hh_name, b->topics_by_name);
    pg->names = CALL_ARRAY(c, struct bytes, cap);
    if (!pg->names)
        return false;
    if (q->topics.n > 0) {
        for (i32 i = 0; i < q->topics.n; i++)
            pg->names[pg->name_count++] = q->topics.v[i].name;
    } else {
        struct topic_entry *e, *next;
        HASH_ITER(hh_name, b->topics_by_name, e, next)
            pg->names[pg->name_count++] = e->topic->name;
    }
    qsort(pg->names, pg->name_count, sizeof *pg->names, names_order);
    u32 n = 0;
    for (u32 i = 0; i < pg->name_count; i++)
        if (n == 0 || !bytes_eq(pg->names[n - 1], pg->names[i]))
            pg->names[n++] = pg->names[i];
    pg->name_count = n;
    return true;
}

/* From partition `from`; returns the first partition that did not fit, -1 = all fitted,
 * -2 = out of memory. */
static i32 page_fill(struct page *pg, const struct topic *t, i32 from, page_topic *r)
{
    struct call *c = pg->call;
    r->name = arena_copy(c->arena, t->name);
    r->topic_id = t->id;
    r->is_internal = t->internal;
    i32 n = MIN(MAX(t->partition_count - from, 0), pg->room);
    r->partitions.v = CALL_ARRAY(c, page_partition, n);
    i32 *leaders = CALL_ARRAY(c, i32, n);
    if (!r->partitions.v || !leaders || !r->name.data)
        return -2;
    r->partitions.n = n;
    for (i32 i = 0; i < n; i++) {
        page_partition *p = &r->partitions.v[i];
        describe_topic_partitions_response_describe_topic_partitions_response_partition_init(p);
        leaders[i] = broker_id_of_shard(c->at, partition_shard(c->at, t, from + i));
        p->partition_index = from + i;
        p->leader_id = leaders[i];
        p->leader_epoch = 0;
        p->replica_nodes.v = p->isr_nodes.v = &leaders[i];
        p->replica_nodes.n = p->isr_nodes.n = 1;
        p->eligible_leader_replicas.n = p->last_known_elr.n = 0;
    }
    r->topic_authorized_operations = OPERATIONS_OF_TOPIC;
    pg->room -= n;
    return from + n < t->partition_count ? from + n : -1;
}

static bool page_cursor(struct call *c, struct bytes name, i32 partition)
{
    struct describe_topic_partitions_response *resp =
        CALL_RESP(c, describe_topic_partitions_response);
    resp->next_cursor = arena_alloc(c->arena, sizeof *resp->next_cursor);
    if (!resp->next_cursor)
        return false;
    describe_topic_partitions_response_cursor_init(resp->next_cursor);
    resp->next_cursor->topic_name = arena_copy(c->arena, name);
    resp->next_cursor->partition_index = partition;
    return true;
}

/* A cursor must name a partition of a topic that is asked for; else every topic is refused. */
static bool page_cursor_known(const struct page *pg)
{
    const struct describe_topic_partitions_request *q =
        CALL_REQ(pg->call, describe_topic_partitions_request);
    if (!q->cursor)
        return true;
    bool named = q->topics.n <= 0;
    for (u32 i = 0; i < pg->name_count && !named; i++)
        named = bytes_eq(pg->names[i], q->cursor->topic_name);
    return named && q->cursor->partition_index >= 0;
}

static bool page_refuse(struct page *pg)
{
    struct call *c = pg->call;
    struct describe_topic_partitions_response *resp =
        CALL_RESP(c, describe_topic_partitions_response);
    resp->topics.v = CALL_ARRAY(c, page_topic, pg->name_count);
    resp->topics.n = 0;
    for (u32 i = 0; resp->topics.v && i < pg->name_count; i++) {
        page_topic *r = &resp->topics.v[resp->topics.n++];
        describe_topic_partitions_response_describe_topic_partitions_response_topic_init(r);
        r->name = arena_copy(c->arena, pg->names[i]);
        r->error_code = ERR_INVALID_REQUEST;
    }
    return resp->topics.v != NULL;
}

static bool page_run(struct page *pg)
{
    struct call *c = pg->call;
    const struct describe_topic_partitions_request *q =
        CALL_REQ(c, describe_topic_partitions_request);
    struct describe_topic_partitions_response *resp =
        CALL_RESP(c, describe_topic_partitions_response);
    resp->topics.v = CALL_ARRAY(c, page_topic, pg->name_count);
    resp->topics.n = 0;
    if (!resp->topics.v)
        return false;
    for (u32 i = 0; i < pg->name_count; i++) {
        struct bytes name = pg->names[i];
        int order = q->cursor ? bytes_cmp(name, q->cursor->topic_name) : 1;
        if (order < 0)
            continue;
        i32 from = order == 0 ? MAX(q->cursor->partition_index, 0) : 0;
        if (pg->room == 0)
            return page_cursor(c, name, from);
        page_topic *r = &resp->topics.v[resp->topics.n];
        describe_topic_partitions_response_describe_topic_partitions_response_topic_init(r);
        struct topic_entry *e = catalog_by_name(c->at, name);
        if (!e) {
            r->name = name;
            r->error_code = topic_name_valid(name) ? ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                   : ERR_INVALID_TOPIC_EXCEPTION;
            resp->topics.n++;
            continue;
        }
        i32 next = page_fill(pg, e->topic, from, r);
        if (next == -2)
            return false;
        resp->topics.n++;
        if (next >= 0)
            return page_cursor(c, name, next);
    }
    return true;
}

void handle_describe_topic_partitions(struct call *c)
{
    const struct describe_topic_partitions_request *q =
        CALL_REQ(c, describe_topic_partitions_request);
    struct page pg = { .call = c };
    pg.room = MIN(MAX(q->response_partition_limit, 1), PAGE_PARTITIONS_MAX);
    if (page_names(&pg) && (page_cursor_known(&pg) ? page_run(&pg) : page_refuse(&pg)))
        call_done(c);
    else
        call_malformed(c, "request memory limit");
}
