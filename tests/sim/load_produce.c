/* Producers. Idempotent ones work as Kafka's client does: up to five batches of a partition in
 * flight, numbered; after an error or a lost connection everything not acknowledged is sent
 * again, in order, until it is. Plain ones send each batch once and forget. */
#include <stdio.h>
#include <string.h>

#include "load.h"
#include "requests.h"

#define PRODUCERS_MAX 4
#define WINDOW 5u

struct out_batch {
    u64 first_id;
    u32 count;
    u8 *bytes;
    u32 len;
    bool done;
};
struct stream { /* of a producer to a partition */
    struct producer *owner;
    struct lane *lane;
    struct out_batch
        q[WINDOW]; /* ring, oldest at head; the first `sent` of them are in flight or done */
    u32 head, count, sent, inflight;
    i32 next_sequence;
    bool recovering; /* an error: nothing is sent before all in flight came back */
    u64 retry_ns;    /* nor before that time */
};
struct producer {
    struct client c;
    bool idempotent, asking;
    i16 acks;
    i64 id;
    i16 epoch;
    u32 left; /* batches still to be made */
    struct tide_mark tide;
    struct stream streams[PARTS_MAX];
    struct batch_builder builder;
    bool ticking;
};
static struct producer producers[PRODUCERS_MAX];
static struct compressor *compressor;

struct sent { /* user of a produce rpc */
    struct producer *p;
    u32 count;
    struct {
        struct stream *s;
        u64 first_id;
    } items[PARTS_MAX];
};

static void pump(struct producer *p);

/* ---- making batches ---- */

static struct bytes build(struct producer *p, const struct stream *s, u64 first_id, u32 count,
                          u32 value_max)
{
    static u8 value[128 * 1024];
    struct batch_builder *b = &p->builder;
    batch_builder_reset(b);
    if (p->idempotent) {
        b->producer_id = p->id;
        b->producer_epoch = p->epoch;
        b->base_sequence = s->next_sequence;
    }
    if (load_plan.compress && one_in(2))
        b->codec = (enum codec)rnd(CODEC_COUNT);
    i64 ms = sim.wall_base_ms + (i64)(sim.now_ns / NS_PER_MS);
    for (u32 i = 0; i < count; i++) {
        u32 len = (u32)rnd_between(VALUE_BYTES_MIN, value_max);
        value_fill(value, len, first_id + i);
        struct bytes key = one_in(2) ? bytes_of(value, 8) : (struct bytes){ NULL, 0 };
        err e = batch_builder_add(b, ms - (i64)rnd(100), key, bytes_of(value, len), NULL, 0);
        CHECK(e == ERR_NONE);
    }
    struct bytes out;
    err e = batch_builder_finish(b, compressor, &out);
    CHECK(e == ERR_NONE);
    return out;
}

static void batch_make(struct producer *p, struct stream *s)
{
    u32 count = one_in(8) ? (u32)rnd_between(1, 30) : (u32)rnd_between(1, 4);
    u32 value_max = one_in(4) ? load_plan.value_bytes_max : 200;
    value_max = MIN(value_max, (u32)(config_i64(sim.cfg, CFG_message_max_bytes) - 4096) / count);
    struct out_batch *ob = &s->q[(s->head + s->count++) % WINDOW];
    u64 first = model_new_id(s->lane);
    for (u32 i = 1; i < count; i++)
        (void)model_new_id(s->lane);
    struct bytes b = build(p, s, first, count, value_max);
    *ob = (struct out_batch){ first, count, mem_dup(b.data, b.len), b.len, false };
    s->next_sequence = batch_sequence_add(s->next_sequence, (i32)count);
    p->left--;
}

/* ---- answers ---- */

static struct out_batch *batch_find(struct stream *s, u64 first_id)
{
    for (u32 i = 0; i < s->count; i++)
        if (s->q[(s->head + i) % WINDOW].first_id == first_id)
            return &s->q[(s->head + i) % WINDOW];
    return NULL;
}

static void pop_done(struct stream *s)
{
    while (s->count > 0 && s->q[s->head].done) {
        mem_free(s->q[s->head].bytes);
        s->head = (s->head + 1) % WINDOW;
        s->count--;
        if (s->sent > 0)
            s->sent--;
    }
    if (s->inflight == 0) {
        s->recovering = false;
        s->sent = 0;
    }
}

/* Errors after which Kafka's producer tries again. */
static bool may_retry(i16 code)
{
    return code == ERR_KAFKA_STORAGE_ERROR || code == ERR_REQUEST_TIMED_OUT ||
           code == ERR_NOT_LEADER_OR_FOLLOWER || code == ERR_NOT_ENOUGH_REPLICAS ||
           code == ERR_NETWORK_EXCEPTION;
}

static void batch_refused(struct stream *s, struct out_batch *ob, i16 code)
{
    struct producer *p = s->owner;
    TRACE("%s: %s-%d batch of record %u: %s", p->c.name, s->lane->part->topic->name,
          s->lane->part->index, (u32)ob->first_id, err_name((err)code));
    if (!p->idempotent) {
        if (!may_retry(code))
            sim_fail("produce: %s to %s-%d: %s", p->c.name, s->lane->part->topic->name,
                     s->lane->part->index, err_name((err)code));
        ob->done = true;
        return;
    }
    STAT(retried_batches);
    bool first = ob == &s->q[s->head];
    if (code == ERR_OUT_OF_ORDER_SEQUENCE_NUMBER && first)
        sim_fail("once: %s-%d: the next batch (record %u of lane %u) is refused as out of order: "
                 "what was "
                 "acknowledged before it is forgotten",
                 s->lane->part->topic->name, s->lane->part->index, (u32)ob->first_id,
                 s->lane->index);
    if (!may_retry(code) && code != ERR_OUT_OF_ORDER_SEQUENCE_NUMBER)
        sim_fail("produce: %s to %s-%d: %s", p->c.name, s->lane->part->topic->name,
                 s->lane->part->index, err_name((err)code));
    s->recovering = true;
    s->retry_ns = sim.now_ns + rnd_log(NS_PER_MS, 200 * NS_PER_MS);
}

static void batch_answered(struct stream *s, u64 first_id,
                           const struct produce_response_partition_produce_response *r)
{
    struct out_batch *ob = batch_find(s, first_id);
    CHECK(ob && s->inflight > 0);
    s->inflight--;
    if (r->error_code != ERR_NONE) {
        batch_refused(s, ob, r->error_code);
        return;
    }
    TRACE("%s: %s-%d records %u+%u acked at %" PRId64, s->owner->c.name, s->lane->part->topic->name,
          s->lane->part->index, (u32)first_id, ob->count, r->base_offset);
    STAT(acked_batches);
    model_acked(s->lane, first_id, ob->count, r->base_offset);
    ob->done = true;
}

static void produced(struct rpc *r, const void *answer)
{
    const struct produce_response *resp = answer;
    struct sent *t = r->user;
    struct producer *p = t->p;
    u32 seen = 0;
    for (i32 i = 0; resp && i < resp->responses.n; i++) {
        const struct produce_response_topic_produce_response *tr = &resp->responses.v[i];
        for (i32 j = 0; j < tr->partition_responses.n; j++) {
            struct mpart *part =
                model_part(tr->name, tr->topic_id, tr->partition_responses.v[j].index);
            for (u32 k = 0; k < t->count; k++)
                if (t->items[k].s->lane->part == part) {
                    batch_answered(t->items[k].s, t->items[k].first_id,
                                   &tr->partition_responses.v[j]);
                    seen++;
                }
        }
    }
    if (resp && seen != t->count)
        sim_fail("protocol: a produce of %u partitions is answered for %u", t->count, seen);
    for (u32 k = 0; k < t->count; k++) {
        struct stream *s = t->items[k].s;
        if (!resp)
            s->inflight--;
        struct out_batch *ob = batch_find(s, t->items[k].first_id);
        if (!resp && !p->idempotent && ob)
            ob->done = true; /* nobody knows */
        pop_done(s);
    }
    mem_free(t);
    if (resp)
        pump(p);
}

/* ---- sending ---- */

static bool stream_ready(struct stream *s)
{
    while (s->sent < s->count && s->q[(s->head + s->sent) % WINDOW].done)
        s->sent++; /* an earlier attempt was acknowledged late */
    bool waits = (s->recovering && s->inflight > 0) || s->retry_ns > sim.now_ns;
    return s->lane && s->sent < s->count && !waits;
}

static bool topic_add(struct produce_request_topic_produce_data *td, struct stream *s,
                      const struct out_batch *ob)
{
    struct produce_request_partition_produce_data *pd =
        &td->partition_data.v[td->partition_data.n++];
    produce_request_partition_produce_data_init(pd);
    pd->index = s->lane->part->index;
    pd->records = bytes_of(ob->bytes, ob->len);
    return true;
}

static bool send_request(struct producer *p)
{
    struct produce_request q;
    struct produce_request_topic_produce_data td[TOPICS_MAX];
    struct produce_request_partition_produce_data pd[TOPICS_MAX][PARTS_MAX];
    struct sent *t = MEM_NEW(struct sent);
    i16 version = (i16)rnd_between(load_plan.compress ? 7 : 3, 13); /* zstd came with 7 */
    t->p = p;
    produce_request_init(&q);
    q.acks = p->acks;
    q.timeout_ms = (i32)rnd_between(500, 8000);
    q.topic_data.v = td;
    for (u32 k = 0; k < topic_count; k++) {
        struct produce_request_topic_produce_data *d = &td[q.topic_data.n];
        produce_request_topic_produce_data_init(d);
        d->name = bytes_str(topics[k].name);
        d->topic_id = topics[k].id;
        d->partition_data.v = pd[k];
        for (u32 i = 0; i < part_count; i++) {
            struct stream *s = &p->streams[i];
            if (parts[i].topic != &topics[k] || !stream_ready(s) || (t->count > 0 && one_in(3)))
                continue;
            struct out_batch *ob = &s->q[(s->head + s->sent) % WINDOW];
            topic_add(d, s, ob);
            s->sent++;
            s->inflight++;
            t->items[t->count].s = s;
            t->items[t->count++].first_id = ob->first_id;
        }
        q.topic_data.n += d->partition_data.n > 0;
    }
    if (t->count == 0) {
        mem_free(t);
        return false;
    }
    client_call(&p->c, 0, version, &q, p->acks == 0 ? NULL : produced, t);
    if (p->acks != 0)
        return true;
    for (u32 k = 0; k < t->count; k++) { /* nobody will ever know */
        struct stream *s = t->items[k].s;
        s->inflight--;
        batch_find(s, t->items[k].first_id)->done = true;
        pop_done(s);
    }
    mem_free(t);
    return true;
}

static void got_id(struct rpc *r, const void *answer)
{
    const struct init_producer_id_response *resp = answer;
    struct producer *p = r->user;
    p->asking = false;
    if (resp && resp->error_code == ERR_NONE) {
        for (u32 i = 0; i < PRODUCERS_MAX; i++)
            if (&producers[i] != p && producers[i].id == resp->producer_id &&
                producers[i].idempotent)
                sim_fail("once: producer id %" PRId64 " is given out twice", resp->producer_id);
        p->id = resp->producer_id;
        p->epoch = resp->producer_epoch;
        TRACE("%s: producer id %" PRId64, p->c.name, p->id);
    }
    if (resp)
        pump(p);
}

static void ask_id(struct producer *p)
{
    struct init_producer_id_request q = init_producer_any();
    p->asking = true;
    client_call(&p->c, 22, (i16)rnd_between(0, 5), &q, got_id, p);
}

static void tick(void *arg, u64 x)
{
    (void)x;
    struct producer *p = arg;
    p->ticking = false;
    pump(p);
}

/* Makes and sends what it can; comes back later while there is more to do. */
static void pump(struct producer *p)
{
    if (!p->ticking && (p->left > 0 || p->c.up)) {
        p->ticking = true;
        load_after(1 + rnd(2 * load_plan.think_ns), tick, p, 0);
    }
    if (!p->c.up || !topics_ready || p->asking)
        return;
    if (p->idempotent && p->id < 0) {
        ask_id(p);
        return;
    }
    tide_refill(&p->tide, &p->left);
    for (u32 i = 0; i < part_count; i++) {
        struct stream *s = &p->streams[i];
        if (p->left > 0 && !load_quiet && s->count < WINDOW && one_in(3)) {
            if (!s->lane)
                s->lane = model_lane(&parts[i], p->idempotent);
            if (s->lane)
                batch_make(p, s);
        }
    }
    while (p->c.pending < WINDOW && send_request(p))
        ;
}

static void ready(struct client *c)
{
    pump(c->user);
}

static void lost(struct client *c)
{
    struct producer *p = c->user;
    for (u32 i = 0; i < part_count; i++) {
        struct stream *s = &p->streams[i];
        CHECK(s->inflight == 0);
        if (s->count)
            pop_done(s);
        s->sent = 0;
        s->recovering = false;
    }
}

void producers_start(void)
{
    compressor = compressor_new();
    for (u32 i = 0; i < load_plan.producers; i++) {
        struct producer *p = &producers[i];
        char name[32];
        p->idempotent = !(load_plan.plain && i == 0);
        p->acks = p->idempotent ? -1 : (i16)((i16)rnd(3) - 1);
        p->id = -1;
        p->left = load_plan.batches;
        snprintf(name, sizeof name, "producer-%u", i);
        client_init(&p->c, name, p, ready, lost);
        batch_builder_init(&p->builder, MIB);
        for (u32 k = 0; k < PARTS_MAX; k++)
            p->streams[k].owner = p;
        client_connect(&p->c);
    }
}

bool producers_idle(void)
{
    for (u32 i = 0; i < load_plan.producers; i++) {
        const struct producer *p = &producers[i];
        if (p->left > 0 && !load_quiet)
            return false;
        for (u32 k = 0; k < part_count; k++)
            if (p->streams[k].count > 0)
                return false;
    }
    return true;
}

void producers_describe(char *buf, size_t size)
{
    size_t at = strlen(buf);
    for (u32 i = 0; i < load_plan.producers && at < size; i++)
        for (u32 k = 0; k < part_count; k++) {
            const struct stream *s = &producers[i].streams[k];
            if (s->count > 0 && at < size)
                at += (size_t)snprintf(
                    buf + at, size - at, " %s waits for %s-%d (%u batches, %u in flight, %s)",
                    producers[i].c.name, parts[k].topic->name, parts[k].index, s->count,
                    s->inflight, producers[i].c.up ? "connected" : "not connected");
        }
}
