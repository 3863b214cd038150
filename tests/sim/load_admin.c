/* Administrators: make the topics, learn their ids, delete records, commit offsets of a group. */
#include <stdio.h>
#include <string.h>

#include "load.h"
#include "requests.h"

#define GROUP "group-1"

struct load_plan load_plan;
bool load_quiet, topics_ready;

static struct client admin, committer;
static i64 commit_sent, commit_acked;
static bool coordinator_known;

static void admin_go(void *arg, u64 x);
static void committer_go(void *arg, u64 x);

/* ---- topics ---- */

static void admin_later(u64 max_ns)
{
    load_after(rnd_log(NS_PER_MS, max_ns), admin_go, NULL, 0);
}

static bool error_is_passing(err e)
{
    return e == ERR_KAFKA_STORAGE_ERROR || e == ERR_REQUEST_TIMED_OUT || e == ERR_NOT_CONTROLLER ||
           e == ERR_UNKNOWN_SERVER_ERROR || e == ERR_COORDINATOR_NOT_AVAILABLE ||
           e == ERR_NOT_COORDINATOR || e == ERR_COORDINATOR_LOAD_IN_PROGRESS;
}

static struct mtopic *topic_find(struct bytes name)
{
    for (u32 i = 0; i < topic_count; i++)
        if (bytes_eq_str(name, topics[i].name))
            return &topics[i];
    sim_fail("protocol: an answer names a topic nobody asked for");
}

static void created(struct rpc *r, const void *answer)
{
    const struct create_topics_response *resp = answer;
    (void)r;
    for (i32 i = 0; resp && i < resp->topics.n; i++) {
        struct mtopic *t = topic_find(resp->topics.v[i].name);
        err e = (err)resp->topics.v[i].error_code;
        TRACE("create %s: %s", t->name, err_name(e));
        if (e == ERR_NONE || e == ERR_TOPIC_ALREADY_EXISTS)
            t->created = true;
        else if (!error_is_passing(e))
            sim_fail("create topic: %s: %s", t->name, err_name(e));
    }
    admin_later(20 * NS_PER_MS);
}

static void create_topics(void)
{
    struct create_topics_request q;
    struct create_topics_request_creatable_topic ct[TOPICS_MAX];
    struct create_topics_request_creatable_topic_config cc[TOPICS_MAX][3];
    char bytes[TOPICS_MAX][24];
    create_topics_request_init(&q);
    q.topics.v = ct;
    for (u32 i = 0; i < topic_count; i++) {
        if (topics[i].created)
            continue;
        struct create_topics_request_creatable_topic *t = &ct[q.topics.n++];
        create_topics_request_creatable_topic_init(t);
        t->name = bytes_str(topics[i].name);
        t->num_partitions = topics[i].partitions;
        t->replication_factor = -1;
        t->configs.v = cc[i];
        if (topics[i].log_append_time)
            cc[i][t->configs.n++] = (struct create_topics_request_creatable_topic_config){
                bytes_str("message.timestamp.type"), bytes_str("LogAppendTime")
            };
        if (topics[i].in_store)
            cc[i][t->configs.n++] =
                (struct create_topics_request_creatable_topic_config){ bytes_str("leat.durability"),
                                                                       bytes_str("object") };
        snprintf(bytes[i], sizeof bytes[i], "%" PRId64, topics[i].retention_bytes);
        if (topics[i].retention_bytes > 0)
            cc[i][t->configs.n++] =
                (struct create_topics_request_creatable_topic_config){ bytes_str("retention.bytes"),
                                                                       bytes_str(bytes[i]) };
    }
    client_call(&admin, 19, (i16)rnd_between(4, 7), &q, created, NULL);
}

static void described(struct rpc *r, const void *answer)
{
    const struct metadata_response *resp = answer;
    (void)r;
    for (i32 i = 0; resp && i < resp->topics.n; i++) {
        const struct metadata_response_metadata_response_topic *m = &resp->topics.v[i];
        struct mtopic *t = topic_find(m->name);
        if (m->error_code != ERR_NONE)
            sim_fail("metadata: topic %s was made and is now %s", t->name,
                     err_name((err)m->error_code));
        if (m->partitions.n != t->partitions)
            sim_fail("metadata: topic %s has %d partitions instead of %d", t->name, m->partitions.n,
                     t->partitions);
        if (!uuid_is_zero(t->id) && !uuid_eq(t->id, m->topic_id))
            sim_fail("metadata: topic %s has another id than before", t->name);
        t->id = m->topic_id;
    }
    if (resp && !topics_ready)
        TRACE("topics are ready");
    topics_ready |= resp != NULL;
    admin_later(20 * NS_PER_MS);
}

static void describe_topics(void)
{
    struct metadata_request q;
    struct metadata_request_metadata_request_topic mt[TOPICS_MAX];
    metadata_request_init(&q);
    q.topics.v = mt;
    q.allow_auto_topic_creation = false;
    for (u32 i = 0; i < topic_count; i++) {
        metadata_request_metadata_request_topic_init(&mt[i]);
        mt[i].name = bytes_str(topics[i].name);
        q.topics.n++;
    }
    client_call(&admin, 3, (i16)rnd_between(10, 13), &q, described, NULL);
}

/* ---- deleting records ---- */

static void deleted(struct rpc *r, const void *answer)
{
    const struct delete_records_response *resp = answer;
    (void)r;
    for (i32 i = 0; resp && i < resp->topics.n; i++)
        for (i32 j = 0; j < resp->topics.v[i].partitions.n; j++) {
            const struct delete_records_response_delete_records_partition_result *d =
                &resp->topics.v[i].partitions.v[j];
            struct mpart *p =
                model_part(resp->topics.v[i].name, (struct uuid){ { 0 } }, d->partition_index);
            TRACE("delete records of %s-%d: %s, low watermark %" PRId64, p->topic->name, p->index,
                  err_name((err)d->error_code), d->low_watermark);
            STAT(deletes);
            if (d->error_code == ERR_NONE)
                p->delete_acked = MAX(p->delete_acked, d->low_watermark);
            else if (!error_is_passing((err)d->error_code) &&
                     d->error_code != ERR_OFFSET_OUT_OF_RANGE)
                sim_fail("delete records: %s-%d: %s", p->topic->name, p->index,
                         err_name((err)d->error_code));
            if (d->error_code == ERR_NONE && d->low_watermark > p->delete_asked)
                sim_fail("log start: %s-%d is at %" PRId64 ", asked was %" PRId64, p->topic->name,
                         p->index, d->low_watermark, p->delete_asked);
        }
    admin_later(NS_PER_S);
}

static void delete_records(void)
{
    struct mpart *p = &parts[rnd(part_count)];
    struct delete_records_one m;
    i64 offset = (i64)rnd((u64)MAX(p->acked_end, p->seen_end) + 1);
    p->delete_asked = MAX(p->delete_asked, offset);
    client_call(&admin, 21, (i16)rnd_between(0, 2),
                delete_records_one(&m, p->topic->name, p->index, offset), deleted, NULL);
}

static void admin_go(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!admin.up || admin.pending > 0)
        return;
    bool all = true;
    for (u32 i = 0; i < topic_count; i++)
        all &= topics[i].created;
    if (!all)
        create_topics();
    else if (!topics_ready || one_in(4))
        describe_topics();
    else if (load_plan.deletes && !load_quiet)
        delete_records();
    else
        admin_later(NS_PER_S);
}

static void admin_ready(struct client *c)
{
    (void)c;
    admin_go(NULL, 0);
}

/* ---- offsets of a group ---- */

static void committer_later(void)
{
    load_after(rnd_log(NS_PER_MS, 200 * NS_PER_MS), committer_go, NULL, 0);
}

static void coordinator_found(struct rpc *r, const void *answer)
{
    const struct find_coordinator_response *resp = answer;
    (void)r;
    for (i32 i = 0; resp && i < resp->coordinators.n; i++) {
        err e = (err)resp->coordinators.v[i].error_code;
        if (e != ERR_NONE && !error_is_passing(e))
            sim_fail("find coordinator: %s", err_name(e));
        coordinator_known = e == ERR_NONE;
    }
    committer_later();
}

static void find_coordinator(void)
{
    struct find_coordinator_request q;
    struct bytes key = bytes_str(GROUP);
    find_coordinator_request_init(&q);
    q.coordinator_keys.v = &key;
    q.coordinator_keys.n = 1;
    client_call(&committer, 10, (i16)rnd_between(4, 6), &q, coordinator_found, NULL);
}

static void committed(struct rpc *r, const void *answer)
{
    const struct offset_commit_response *resp = answer;
    for (i32 i = 0; resp && i < resp->topics.n; i++)
        for (i32 j = 0; j < resp->topics.v[i].partitions.n; j++) {
            err e = (err)resp->topics.v[i].partitions.v[j].error_code;
            TRACE("commit of %" PRId64 ": %s", (i64)(intptr_t)r->user, err_name(e));
            STAT(commits);
            if (e == ERR_NONE)
                commit_acked = (i64)(intptr_t)r->user;
            else if (!error_is_passing(e))
                sim_fail("offset commit: %s", err_name(e));
        }
    committer_later();
}

static void commit(void)
{
    struct offset_commit_one m;
    const struct offset_commit_request *q = offset_commit_one(
        &m, GROUP, (struct topic_named){ topics[0].name, topics[0].id }, ++commit_sent);
    client_call(&committer, 8, (i16)rnd_between(5, 9), q, committed, (void *)(intptr_t)commit_sent);
}

static void offsets_fetched(struct rpc *r, const void *answer)
{
    const struct offset_fetch_response *resp = answer;
    (void)r;
    for (i32 i = 0; resp && i < resp->groups.n; i++) {
        err e = (err)resp->groups.v[i].error_code;
        if (e != ERR_NONE && !error_is_passing(e))
            sim_fail("offset fetch: %s", err_name(e));
        for (i32 j = 0; e == ERR_NONE && j < resp->groups.v[i].topics.n; j++) {
            i64 v = resp->groups.v[i].topics.v[j].partitions.v[0].committed_offset;
            TRACE("group's offset is %" PRId64 ", acked %" PRId64 ", sent %" PRId64, v,
                  commit_acked, commit_sent);
            if ((commit_acked > 0 && v < commit_acked) || v > commit_sent)
                sim_fail("durability: the group's offset is %" PRId64 ", acknowledged was %" PRId64
                         ", last sent %" PRId64,
                         v, commit_acked, commit_sent);
        }
    }
    committer_later();
}

static void fetch_offsets(void)
{
    struct offset_fetch_request q;
    struct offset_fetch_request_offset_fetch_request_group g;
    struct offset_fetch_request_offset_fetch_request_topics t;
    i32 index = 0;
    offset_fetch_request_init(&q);
    offset_fetch_request_offset_fetch_request_group_init(&g);
    offset_fetch_request_offset_fetch_request_topics_init(&t);
    q.groups.v = &g;
    q.groups.n = 1;
    g.group_id = bytes_str(GROUP);
    g.topics.v = &t;
    g.topics.n = 1;
    t.name = bytes_str(topics[0].name);
    t.topic_id = topics[0].id;
    t.partition_indexes.v = &index;
    t.partition_indexes.n = 1;
    client_call(&committer, 9, (i16)rnd_between(8, 9), &q, offsets_fetched, NULL);
}

static void committer_go(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!committer.up || committer.pending > 0)
        return;
    if (!topics_ready)
        committer_later();
    else if (!coordinator_known)
        find_coordinator();
    else if (load_quiet || one_in(3))
        fetch_offsets();
    else
        commit();
}

static void committer_ready(struct client *c)
{
    (void)c;
    coordinator_known = false;
    committer_go(NULL, 0);
}

static void nothing(struct client *c)
{
    (void)c;
}

/* ---- all ---- */

void admin_start(void)
{
    client_init(&admin, "admin", &admin, admin_ready, nothing);
    client_connect(&admin);
    client_init(&committer, "committer", &committer, committer_ready, nothing);
    if (load_plan.commits)
        client_connect(&committer);
}

bool admin_idle(void)
{
    return topics_ready && admin.pending == 0;
}

void load_start(void)
{
    admin_start();
    producers_start();
    consumers_start();
    if (load_plan.group)
        group_start();
    if (load_plan.churn)
        churner_start();
    if (load_plan.compact)
        compact_start();
    if (load_plan.clone)
        cloner_start();
}

void load_describe(char *buf, size_t size)
{
    snprintf(buf, size, "topics %s, admin waits for %u answers;",
             topics_ready ? "ready" : "not ready", admin.pending);
    producers_describe(buf, size);
    group_describe(buf, size);
    compact_describe(buf, size);
}
