/* One who makes a topic, writes to it, reads it, deletes it, and makes it again under the same
 * name: nothing of an earlier topic may be seen in a later one. One request at a time. Now and then
 * the topic is compacted, so that it may be deleted while it is. */
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "load.h"
#include "requests.h"

#define NAME "ephemeral"

static struct client churner;
static enum { CHURN_CREATE, CHURN_IDENTIFY, CHURN_USE, CHURN_DELETE } step;
static struct uuid id;     /* of the topic as it is; zero: not known */
static i64 sent, acked;    /* records, of this topic */
static u32 value_tag;      /* in the values: which topic they were sent to */
static bool maybe_deleted; /* a request to delete it may have worked */

static void go(void *arg, u64 x);

static void later(void)
{
    load_after(rnd_log(NS_PER_MS, 300 * NS_PER_MS), go, NULL, 0);
}

static bool passing(err e)
{
    return e == ERR_KAFKA_STORAGE_ERROR || e == ERR_REQUEST_TIMED_OUT ||
           e == ERR_UNKNOWN_SERVER_ERROR;
}

static bool gone(err e)
{
    return e == ERR_UNKNOWN_TOPIC_OR_PARTITION || e == ERR_UNKNOWN_TOPIC_ID;
}

/* The topic is not there: may that be? */
static void went_away(const char *what)
{
    if (!maybe_deleted)
        sim_fail("durability: topic " NAME " was made, not deleted, and is gone (%s)", what);
    step = CHURN_CREATE;
}

/* ---- create ---- */

static void created(struct rpc *r, const void *answer)
{
    const struct create_topics_response *resp = answer;
    (void)r;
    if (resp) {
        err e = (err)resp->topics.v[0].error_code;
        TRACE("churner: create: %s", err_name(e));
        if (e == ERR_NONE || e == ERR_TOPIC_ALREADY_EXISTS)
            step = CHURN_IDENTIFY;
        else if (!passing(e))
            sim_fail("create topic: " NAME ": %s", err_name(e));
    }
    later();
}

static void create(void)
{
    struct create_topics_request q;
    struct create_topics_request_creatable_topic t;
    create_topics_request_init(&q);
    create_topics_request_creatable_topic_init(&t);
    q.topics.v = &t;
    q.topics.n = 1;
    t.name = bytes_str(NAME);
    t.num_partitions = (i32)rnd_between(1, 3);
    t.replication_factor = 1;
    struct create_topics_request_creatable_topic_config c[2] = {
        { bytes_str("cleanup.policy"), bytes_str("compact") },
        { bytes_str("min.cleanable.dirty.ratio"), bytes_str("0.01") },
    };
    t.configs.v = c;
    t.configs.n = one_in(3) ? ARRAY_COUNT(c) : 0;
    client_call(&churner, 19, (i16)rnd_between(2, 7), &q, created, NULL);
}

static void identified(struct rpc *r, const void *answer)
{
    const struct metadata_response *resp = answer;
    (void)r;
    if (resp) {
        const struct metadata_response_metadata_response_topic *t = &resp->topics.v[0];
        if (gone((err)t->error_code)) {
            went_away("metadata"); /* an answer that was lost deleted it later than it looked */
        } else if (t->error_code == ERR_NONE) {
            if (!uuid_eq(id, t->topic_id)) {
                sent = acked = 0;
                value_tag++;
                maybe_deleted = false;
            }
            id = t->topic_id;
            step = CHURN_USE;
        } else if (!passing((err)t->error_code)) {
            sim_fail("metadata: " NAME ": %s", err_name((err)t->error_code));
        }
    }
    later();
}

static void identify(void)
{
    struct metadata_one m;
    client_call(&churner, 3, (i16)rnd_between(10, 13), metadata_one(&m, NAME), identified, NULL);
}

/* ---- use ---- */

static void produced(struct rpc *r, const void *answer)
{
    const struct produce_response *resp = answer;
    (void)r;
    if (resp) {
        const struct produce_response_partition_produce_response *p =
            &resp->responses.v[0].partition_responses.v[0];
        err e = (err)p->error_code;
        TRACE("churner: produce: %s at %" PRId64, err_name(e), p->base_offset);
        if (e == ERR_NONE) {
            if (p->base_offset < acked || p->base_offset >= sent)
                sim_fail("offsets: a new topic " NAME " gives offset %" PRId64 ", %" PRId64
                         " were sent, %" PRId64 " acknowledged",
                         p->base_offset, sent, acked);
            acked = p->base_offset + 1;
        } else if (gone(e)) {
            went_away("produce");
        } else if (!passing(e)) {
            sim_fail("produce to " NAME ": %s", err_name(e));
        }
    }
    later();
}

static struct topic_named churned(void)
{
    return (struct topic_named){ "", id };
}

static void produce(void)
{
    struct produce_one m;
    struct batch_builder b;
    struct bytes records;
    u8 value[8];
    batch_builder_init(&b, 64 * 1024);
    batch_builder_reset(&b);
    put_le64(value, value_tag);
    i64 ms = sim.wall_base_ms + (i64)(sim.now_ns / NS_PER_MS);
    u8 key = (u8)rnd(4); /* the topic may be compacted */
    err e = batch_builder_add(&b, ms, bytes_of(&key, 1), bytes_of(value, 8), NULL, 0);
    CHECK(e == ERR_NONE);
    e = batch_builder_finish(&b, NULL, &records);
    CHECK(e == ERR_NONE);
    sent++;
    client_call(&churner, 0, 13, produce_one(&m, churned(), 0, records), produced, NULL);
    batch_builder_free(&b);
}

static void records_check(struct bytes rest)
{
    struct batch b;
    while (rest.len > 0 && batch_next(&rest, &b) == ERR_NONE) {
        struct record_iter it;
        struct record r;
        record_iter_init(&it, &b, batch_payload(&b));
        while (record_next(&it, &r) == ERR_NONE)
            if (r.value.len != 8 || get_le64(r.value.data) != value_tag)
                sim_fail("data: topic " NAME
                         " (number %u) holds a record of another topic at %" PRId64,
                         value_tag, r.offset);
    }
}

static void fetched(struct rpc *r, const void *answer)
{
    const struct fetch_response *resp = answer;
    (void)r;
    if (resp && resp->responses.n > 0) {
        const struct fetch_response_partition_data *p = &resp->responses.v[0].partitions.v[0];
        if (gone((err)p->error_code)) {
            went_away("fetch");
        } else if (p->error_code == ERR_NONE) {
            if (p->high_watermark > sent || p->high_watermark < acked)
                sim_fail("watermarks: " NAME " has %" PRId64 " records, %" PRId64
                         " were sent, %" PRId64 " acknowledged",
                         p->high_watermark, sent, acked);
            records_check(p->records);
        }
    }
    later();
}

static void fetch(void)
{
    struct fetch_one m;
    struct fetch_request *q = fetch_one(&m, churned(), 0, 0);
    q->max_wait_ms = (i32)rnd(100);
    client_call(&churner, 1, (i16)rnd_between(13, 17), q, fetched, NULL);
}

/* ---- delete ---- */

static void deleted(struct rpc *r, const void *answer)
{
    const struct delete_topics_response *resp = answer;
    (void)r;
    if (resp) {
        err e = (err)resp->responses.v[0].error_code;
        TRACE("churner: delete: %s", err_name(e));
        if (e == ERR_NONE || gone(e)) {
            STAT(topics_deleted);
            step = CHURN_CREATE;
        } else if (!passing(e)) {
            sim_fail("delete topic: " NAME ": %s", err_name(e));
        }
    }
    later();
}

static void delete (void)
{
    struct delete_topic_one m;
    maybe_deleted = true;
    client_call(&churner, 20, 6, delete_topic_one(&m, id), deleted, NULL);
}

static void go(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!churner.up || churner.pending > 0)
        return;
    if (step == CHURN_USE && one_in(8))
        step = CHURN_DELETE;
    if (load_quiet && step != CHURN_USE)
        return;
    switch (step) {
    case CHURN_CREATE:
        create();
        break;
    case CHURN_IDENTIFY:
        identify();
        break;
    case CHURN_USE:
        if (one_in(2) && !load_quiet)
            produce();
        else
            fetch();
        break;
    case CHURN_DELETE:
        delete ();
        break;
    }
}

static void ready(struct client *c)
{
    (void)c;
    go(NULL, 0);
}

static void lost(struct client *c)
{
    (void)c;
}

void churner_start(void)
{
    client_init(&churner, "churner", &churner, ready, lost);
    client_connect(&churner);
}
