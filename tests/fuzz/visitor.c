/* A visitor who looks at everything; see visitor.h. */
#include "visitor.h"

#include <stdio.h>
#include <string.h>

#include "../../core/broker/broker_int.h"
#include "batch.h"
#include "world.h"
#include "../sim/requests.h"

#define TOPICS_SEEN 8
#define PARTITIONS_SEEN 4
#define FETCHES_MAX 40

static struct visitor {
    struct client c;
    bool busy, over;
    u32 step;
    char topics[TOPICS_SEEN][256];
    u32 partitions[TOPICS_SEEN], topic_count;
    u32 topic, partition, fetches; /* the one being read */
    i64 offset;
    char groups[8][256];
    u32 group_count;
} v;

static void visited(struct rpc *r, const void *resp)
{
    if (!resp) {
        if (!v.over)
            sim_fail("api %d is not answered", r->api);
        return;
    }
    v.busy = false;
}

static void call(i16 api, i16 version, const void *q, rpc_done done)
{
    v.busy = true;
    client_call(&v.c, api, version, q, done, NULL);
}

static void metadata_seen(struct rpc *r, const void *resp)
{
    const struct metadata_response *m = resp;
    for (i32 i = 0; m && i < m->topics.n && v.topic_count < TOPICS_SEEN; i++) {
        struct bytes name = m->topics.v[i].name;
        snprintf(v.topics[v.topic_count], sizeof v.topics[0], "%.*s", (int)name.len,
                 (const char *)name.data);
        v.partitions[v.topic_count++] = MIN((u32)m->topics.v[i].partitions.n, PARTITIONS_SEEN);
    }
    visited(r, resp);
}

static void fetched(struct rpc *r, const void *resp)
{
    const struct fetch_response *f = resp;
    visited(r, resp);
    bool next = true;
    if (f && f->responses.n == 1 && f->responses.v[0].partitions.n == 1) {
        const struct fetch_response_partition_data *p = &f->responses.v[0].partitions.v[0];
        struct bytes rest = p->records;
        struct batch b;
        i64 was = v.offset;
        while (p->error_code == 0 && batch_next(&rest, &b) == ERR_NONE)
            v.offset = MAX(v.offset, batch_last_offset(&b) + 1);
        if (p->error_code == ERR_OFFSET_OUT_OF_RANGE && p->log_start_offset > v.offset)
            v.offset = p->log_start_offset;
        next = v.offset == was || v.offset >= p->high_watermark;
    }
    if (!next && ++v.fetches < FETCHES_MAX)
        return;
    v.offset = v.fetches = 0;
    if (++v.partition >= v.partitions[v.topic]) {
        v.partition = 0;
        v.topic++;
    }
}

static void fetch(void)
{
    struct fetch_one m;
    struct fetch_request *q = fetch_one(&m, (struct topic_named){ .name = v.topics[v.topic] },
                                        (i32)v.partition, v.offset);
    q->max_wait_ms = 10;
    q->min_bytes = 1;
    m.p.partition_max_bytes = 20000;
    call(1, 12, q, fetched);
}

static void groups_seen(struct rpc *r, const void *resp)
{
    const struct list_groups_response *g = resp;
    for (i32 i = 0; g && i < g->groups.n && v.group_count < ARRAY_COUNT(v.groups); i++) {
        struct bytes id = g->groups.v[i].group_id;
        snprintf(v.groups[v.group_count++], sizeof v.groups[0], "%.*s", (int)id.len,
                 (const char *)id.data);
    }
    visited(r, resp);
}

static void describe_groups(void)
{
    struct describe_groups_request q;
    struct bytes ids[ARRAY_COUNT(v.groups)];
    describe_groups_request_init(&q);
    for (u32 i = 0; i < v.group_count; i++)
        ids[i] = bytes_str(v.groups[i]);
    q.groups.v = ids;
    q.groups.n = (i32)v.group_count;
    call(15, 5, &q, visited);
}

static void fetch_offsets(void)
{
    struct offset_fetch_request q;
    struct offset_fetch_request_offset_fetch_request_group g[ARRAY_COUNT(v.groups)];
    offset_fetch_request_init(&q);
    for (u32 i = 0; i < v.group_count; i++) {
        offset_fetch_request_offset_fetch_request_group_init(&g[i]);
        g[i].group_id = bytes_str(v.groups[i]);
        g[i].topics.n = -1;
    }
    q.groups.v = g;
    q.groups.n = (i32)v.group_count;
    call(9, 8, &q, visited);
}

static void join(void)
{
    struct join_group_request q;
    struct join_group_request_join_group_request_protocol p = { .name = bytes_str("range"),
                                                                .metadata = bytes_str("meta") };
    join_group_request_init(&q);
    q.group_id = bytes_str(v.group_count ? v.groups[0] : "new");
    q.session_timeout_ms = 6000;
    q.rebalance_timeout_ms = 1000;
    q.protocol_type = bytes_str("consumer");
    q.protocols.v = &p;
    q.protocols.n = 1;
    call(11, 9, &q, visited);
}

static void produce(void)
{
    struct produce_one m;
    const char *topic = v.topic_count ? v.topics[0] : "a";
    call(0, 12, produce_one(&m, (struct topic_named){ .name = topic }, 0, world_batch()), visited);
}

static void describe_producers(void)
{
    struct describe_producers_request q;
    struct describe_producers_request_topic_request t;
    i32 all[] = { 0, 1, 2 };
    describe_producers_request_init(&q);
    describe_producers_request_topic_request_init(&t);
    q.topics.v = &t;
    q.topics.n = 1;
    t.name = bytes_str("a");
    t.partition_indexes.v = all;
    t.partition_indexes.n = 3;
    call(61, 0, &q, visited);
}

static void describe_configs(void)
{
    struct describe_configs_request q;
    struct describe_configs_request_describe_configs_resource r[2];
    describe_configs_request_init(&q);
    for (u32 i = 0; i < 2; i++) {
        describe_configs_request_describe_configs_resource_init(&r[i]);
        r[i].resource_type = i ? 2 : 4;
        r[i].resource_name = bytes_str(i ? "b" : "0");
        r[i].configuration_keys.n = -1;
    }
    q.resources.v = r;
    q.resources.n = 2;
    call(32, 4, &q, visited);
}

static void look(void)
{
    struct metadata_request md;
    struct list_groups_request lg;
    struct init_producer_id_request ip;
    if (v.step == 1 && v.topic < v.topic_count && v.partitions[v.topic] > 0) {
        fetch();
        return;
    }
    switch (v.step++) {
    case 0:
        metadata_request_init(&md);
        md.topics.n = -1;
        call(3, 9, &md, metadata_seen);
        return;
    case 1:
        list_groups_request_init(&lg);
        call(16, 4, &lg, groups_seen);
        return;
    case 2:
        describe_groups();
        return;
    case 3:
        fetch_offsets();
        return;
    case 4:
        join();
        return;
    case 5:
        describe_producers();
        return;
    case 6:
        describe_configs();
        return;
    case 7:
        ip = init_producer_any();
        call(22, 5, &ip, visited);
        return;
    case 8:
        produce();
        return;
    default:
        v.over = true;
    }
}

static bool wants_stop(void)
{
    if (v.c.up && !v.busy && !v.over)
        look();
    if (!v.over)
        return false;
    if (v.c.conn)
        client_drop(&v.c, false);
    return true;
}

static void ready(struct client *c)
{
    (void)c;
}

static void lost(struct client *c)
{
    (void)c;
}

bool visitor_life(void)
{
    events_forget(); /* of the last life: its client is not there any more */
    net_forget();
    mem_free(v.c.in);
    memset(&v, 0, sizeof v);
    client_init(&v.c, "visitor", NULL, ready, lost);
    v.c.timeout_ns = 30 * NS_PER_S;
    client_connect(&v.c);
    return world_run(wants_stop) == LIFE_STOPPED;
}

void visitor_forget(void)
{
    mem_free(v.c.in);
    v.c.in = NULL;
}
