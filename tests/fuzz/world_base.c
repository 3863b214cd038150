/* What a node holds that was used for a while: one client's story, told request by request, and
 * the images that a kill at three moments of it leaves. */
#include <string.h>

#include "batch.h"
#include "world.h"
#include "../sim/requests.h"

const struct world_image *world_bases[BASE_COUNT];
struct uuid world_topic_ids[2];

#define MEMBER_ID_MAX 100

static struct story {
    struct client c;
    u32 step;
    bool busy;
    bool over;
    u64 after_ns; /* nothing before this moment */
    i64 producer_id;
    i32 sequence[3]; /* by partition of a */
    i32 generation;
    char member[MEMBER_ID_MAX];
    u32 member_len;
} story;

static struct batch_builder builder;

/* ---- batches ---- */

static struct bytes batch(u32 records, u32 value_bytes, i64 producer_id, i32 sequence)
{
    static u8 value[4096];
    struct bytes out;
    batch_builder_reset(&builder);
    builder.producer_id = producer_id;
    builder.producer_epoch = producer_id < 0 ? -1 : 0;
    builder.base_sequence = producer_id < 0 ? -1 : sequence;
    for (u32 i = 0; i < records; i++) {
        memset(value, (int)('a' + (sequence + (i32)i) % 26), sizeof value);
        struct header h = { bytes_str("h"), bytes_str("1") };
        err e = batch_builder_add(&builder, 1700000000000 + sequence + (i64)i, bytes_str("key"),
                                  bytes_of(value, value_bytes), &h, i == 0);
        CHECK(e == ERR_NONE);
    }
    err e = batch_builder_finish(&builder, NULL, &out);
    CHECK(e == ERR_NONE);
    return out;
}

static struct bytes plain_batch;

struct bytes world_batch(void)
{
    return plain_batch;
}

/* ---- requests ---- */

static void answered(struct rpc *r, const void *resp)
{
    CHECK(resp != NULL);
    struct story *s = r->user;
    if (r->api == 19) {
        const struct create_topics_response *a = resp;
        for (i32 i = 0; i < a->topics.n; i++) {
            CHECK(a->topics.v[i].error_code == 0);
            world_topic_ids[i] = a->topics.v[i].topic_id;
        }
    } else if (r->api == 22) {
        const struct init_producer_id_response *a = resp;
        CHECK(a->error_code == 0);
        s->producer_id = a->producer_id;
    } else if (r->api == 0) {
        const struct produce_response *a = resp;
        i16 code = a->responses.v[0].partition_responses.v[0].error_code;
        if (code != 0)
            sim_fail("step %u: produce: %s", s->step, err_name((err)code));
    } else if (r->api == 11) {
        const struct join_group_response *a = resp;
        CHECK(a->member_id.len < MEMBER_ID_MAX);
        s->member_len = a->member_id.len;
        memcpy(s->member, a->member_id.data, a->member_id.len);
        s->generation = a->generation_id;
    }
    s->busy = false;
}

static void call(i16 api, i16 version, const void *q)
{
    story.busy = true;
    client_call(&story.c, api, version, q, answered, &story);
}

static void create_topics(void)
{
    struct create_topics_request q;
    struct create_topics_request_creatable_topic t[2];
    struct create_topics_request_creatable_topic_config config[2] = {
        { bytes_str("cleanup.policy"), bytes_str("compact") },
        { bytes_str("max.message.bytes"), bytes_str("50000") },
    };
    create_topics_request_init(&q);
    q.topics.v = t;
    q.topics.n = 2;
    for (u32 i = 0; i < 2; i++) {
        create_topics_request_creatable_topic_init(&t[i]);
        t[i].name = bytes_str(i ? "b" : "a");
        t[i].num_partitions = i ? 1 : 3;
        t[i].replication_factor = 1;
    }
    t[1].configs.v = config;
    t[1].configs.n = 2;
    call(19, 7, &q);
}

static void produce(const char *topic, i32 partition, u32 records, u32 value_bytes, bool idempotent)
{
    struct produce_one m;
    struct bytes b =
        batch(records, value_bytes, idempotent ? story.producer_id : -1, story.sequence[partition]);
    if (idempotent)
        story.sequence[partition] += (i32)records;
    call(0, 12, produce_one(&m, (struct topic_named){ .name = topic }, partition, b));
}

static void init_producer(void)
{
    struct init_producer_id_request q = init_producer_any();
    call(22, 5, &q);
}

static void find_coordinator(void)
{
    struct find_coordinator_request q;
    find_coordinator_request_init(&q);
    q.key = bytes_str("g");
    call(10, 3, &q);
}

static void join(void)
{
    struct join_group_request q;
    struct join_group_request_join_group_request_protocol p = { .name = bytes_str("range"),
                                                                .metadata = bytes_str("meta") };
    join_group_request_init(&q);
    q.group_id = bytes_str("g");
    q.session_timeout_ms = 30000;
    q.rebalance_timeout_ms = 30000;
    q.member_id = bytes_of(story.member, story.member_len);
    q.protocol_type = bytes_str("consumer");
    q.protocols.v = &p;
    q.protocols.n = 1;
    call(11, 9, &q);
}

static void sync_group(void)
{
    struct sync_group_request q;
    struct sync_group_request_sync_group_request_assignment a;
    sync_group_request_init(&q);
    sync_group_request_sync_group_request_assignment_init(&a);
    a.member_id = q.member_id = bytes_of(story.member, story.member_len);
    a.assignment = bytes_str("assigned");
    q.group_id = bytes_str("g");
    q.generation_id = story.generation;
    q.protocol_type = bytes_str("consumer");
    q.protocol_name = bytes_str("range");
    q.assignments.v = &a;
    q.assignments.n = 1;
    call(14, 5, &q);
}

static void commit(const char *group, bool member)
{
    struct offset_commit_one m;
    struct offset_commit_request *q =
        offset_commit_one(&m, group, (struct topic_named){ .name = "a" }, 2);
    if (member) {
        q->generation_id_or_member_epoch = story.generation;
        q->member_id = bytes_of(story.member, story.member_len);
    }
    m.p.committed_metadata = bytes_str("note");
    call(8, 9, q);
}

static void alter_broker(void)
{
    struct incremental_alter_configs_request q;
    struct incremental_alter_configs_request_alter_configs_resource r;
    struct incremental_alter_configs_request_alterable_config c[2];
    incremental_alter_configs_request_init(&q);
    incremental_alter_configs_request_alter_configs_resource_init(&r);
    for (u32 i = 0; i < 2; i++)
        incremental_alter_configs_request_alterable_config_init(&c[i]);
    q.resources.v = &r;
    q.resources.n = 1;
    r.resource_type = 4;
    r.resource_name = bytes_str("0");
    r.configs.v = c;
    r.configs.n = 2;
    c[0].name = bytes_str("log.retention.bytes");
    c[0].value = bytes_str("100000000");
    c[1].name = bytes_str("nobody.knows");
    c[1].value = bytes_str("it");
    call(44, 1, &q);
}

static void delete_records(void)
{
    struct delete_records_one m;
    call(21, 2, delete_records_one(&m, "a", 0, 3));
}

/* ---- the story ---- */

static void more_data(u32 i)
{
    if (i % 2)
        produce("a", (i32)(i / 2 % 3), 2, 30 + 40 * i, i % 4 == 1);
    else
        produce("b", 0, 1, 60, false);
}

static void tell(void)
{
    switch (story.step++) {
    case 0:
        create_topics();
        return;
    case 1:
        init_producer();
        return;
    case 2:
        find_coordinator();
        story.after_ns = sim.now_ns + NS_PER_S; /* the topic of offsets is made behind it */
        return;
    case 3:
    case 4: /* the first only hands out an id */
        join();
        return;
    case 5:
        sync_group();
        return;
    case 6:
        commit("g", true);
        return;
    case 7:
        commit("h", false);
        return;
    case 8:
        alter_broker();
        return;
    case 15:
        delete_records();
        return;
    case 20:
        world_bases[BASE_LOG] = world_save();
        story.after_ns = sim.now_ns + 5 * NS_PER_S; /* uploads */
        return;
    case 26:
        world_bases[BASE_BUNDLES] = world_save();
        story.over = true;
        return;
    default:
        more_data(story.step);
    }
}

static bool story_over(void)
{
    if (story.c.up && !story.busy && !story.over && sim.now_ns >= story.after_ns)
        tell();
    if (!story.over)
        return false;
    if (story.c.conn)
        client_drop(&story.c, false);
    return true;
}

static void ready(struct client *c)
{
    (void)c;
}

static void told(struct client *c)
{
    (void)c;
}

/* The log is not to be uploaded before the first image, which ends the configuration's choice. */
void world_bases_make(void)
{
    world_begin(1, 1);
    sim.cfg->values[CFG_wal_seal_age_ms] = 3000;
    batch_builder_init(&builder, (u32)MIB);
    client_init(&story.c, "story", &story, ready, told);
    client_connect(&story.c);
    enum life_end end = world_run(story_over);
    CHECK(end == LIFE_STOPPED);
    world_bases[BASE_STOPPED] = world_save();
    mem_free(story.c.in);
    story.c.in = NULL;
    world_end(false); /* the builder's memory, too */
    batch_builder_init(&builder, (u32)MIB);
    plain_batch = batch(3, 20, -1, 0);
}
