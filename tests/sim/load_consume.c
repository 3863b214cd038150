/* Consumers: fetch sessions or not, long polls, from the start or where they left off; and the
 * verifier, which reads everything once. */
#include <stdio.h>
#include <string.h>

#include "load.h"

#define CONSUMERS_MAX 3

struct position {
    bool wanted;
    i64 next;
    i64 told;                      /* offset the session knows; -1 none */
    i64 high_watermark, log_start; /* last seen on this connection */
    i64 start, until;              /* verifier: where it began, where to end */
    i64 must;                      /* what was promised when it asked for the end */
    bool reset, done;
};
struct consumer {
    struct client c;
    bool verifier;
    i16 version;
    bool use_session;
    i32 session_id, session_epoch;
    struct position pos[PARTS_MAX];
    u32 asked;
    i64 time; /* verifier: asks for it */
    bool done;
};
static struct consumer consumers[CONSUMERS_MAX];
static struct consumer verifier;

static void consumer_go(struct consumer *k);

/* ---- where the log begins and ends ---- */

static void listed(struct rpc *r, const void *answer)
{
    const struct list_offsets_response *resp = answer;
    struct consumer *k = r->user;
    if (!resp)
        return;
    for (i32 i = 0; i < resp->topics.n; i++) {
        for (i32 j = 0; j < resp->topics.v[i].partitions.n; j++) {
            const struct list_offsets_response_list_offsets_partition_response *pr =
                &resp->topics.v[i].partitions.v[j];
            struct mpart *p =
                model_part(resp->topics.v[i].name, (struct uuid){ { 0 } }, pr->partition_index);
            struct position *pos = &k->pos[p - parts];
            if (pr->error_code != ERR_NONE)
                sim_fail("list offsets: %s-%d: %s", p->topic->name, p->index,
                         err_name((err)pr->error_code));
            if (k->asked >= 2) {
                i64 want = model_offset_of_time(p, pos->start, pos->until, k->time);
                /* Retention may have moved the start, and acks=0 the end, since they were asked. */
                bool moved = p->topic->retention_bytes > 0 || pr->offset >= pos->until;
                if (pr->offset != want && !moved)
                    sim_fail("list offsets: %s-%d [%" PRId64 ", %" PRId64
                             "): the first record from time %" PRId64 " on is %" PRId64
                             ", the answer is %" PRId64,
                             p->topic->name, p->index, pos->start, pos->until, k->time, want,
                             pr->offset);
            } else if (k->asked == 0) {
                pos->next = pos->start = pr->offset;
                pos->reset = false;
                if (k->verifier)
                    model_start(p, pr->offset);
                p->seen_end = MAX(p->seen_end, pr->offset);
            } else {
                pos->until = pr->offset;
                if (pos->until < pos->next)
                    sim_fail("watermarks: %s-%d ends at %" PRId64 ", before its start %" PRId64,
                             p->topic->name, p->index, pos->until, pos->next);
            }
        }
    }
    k->asked++;
    consumer_go(k);
}

static void list_offsets(struct consumer *k, i64 timestamp)
{
    struct list_offsets_request q;
    struct list_offsets_request_list_offsets_topic t[TOPICS_MAX];
    struct list_offsets_request_list_offsets_partition lp[TOPICS_MAX][PARTS_MAX];
    list_offsets_request_init(&q);
    q.replica_id = -1;
    q.topics.v = t;
    for (u32 n = 0; n < topic_count; n++) {
        struct list_offsets_request_list_offsets_topic *lt = &t[q.topics.n];
        list_offsets_request_list_offsets_topic_init(lt);
        lt->name = bytes_str(topics[n].name);
        lt->partitions.v = lp[n];
        for (u32 i = 0; i < part_count; i++) {
            if (parts[i].topic != &topics[n] || !(k->verifier || k->pos[i].reset))
                continue;
            struct list_offsets_request_list_offsets_partition *x = &lp[n][lt->partitions.n++];
            list_offsets_request_list_offsets_partition_init(x);
            x->partition_index = parts[i].index;
            x->timestamp = timestamp;
            if (timestamp == -1)
                k->pos[i].must = MAX(parts[i].acked_end, parts[i].seen_end);
        }
        q.topics.n += lt->partitions.n > 0;
    }
    client_call(&k->c, 2, (i16)rnd_between(1, 11), &q, listed, k);
}

/* ---- fetch ---- */

static void out_of_range(struct consumer *k, struct mpart *p, struct position *pos)
{
    if (pos->next >= p->delete_asked && pos->next <= p->seen_end)
        sim_fail("durability: %s-%d: offset %" PRId64
                 " is out of range; the end was seen at %" PRId64 ", deletion asked up to %" PRId64,
                 p->topic->name, p->index, pos->next, p->seen_end, p->delete_asked);
    pos->reset = true;
    k->asked = 0;
}

static void partition_fetched(struct consumer *k, struct mpart *p,
                              const struct fetch_response_partition_data *r)
{
    struct position *pos = &k->pos[p - parts];
    err e = (err)r->error_code;
    if (e == ERR_OFFSET_OUT_OF_RANGE) {
        out_of_range(k, p, pos);
        return;
    }
    if (e == ERR_KAFKA_STORAGE_ERROR || (e == ERR_CORRUPT_MESSAGE && sim.faults.store_flip)) {
        TRACE("%s: %s-%d at %" PRId64 ": %s", k->c.name, p->topic->name, p->index, pos->next,
              err_name(e));
        return;
    }
    if (e != ERR_NONE)
        sim_fail("fetch: %s: %s-%d at %" PRId64 ": %s", k->c.name, p->topic->name, p->index,
                 pos->next, err_name(e));
    if (r->high_watermark < pos->high_watermark || r->log_start_offset < pos->log_start)
        sim_fail("watermarks: %s-%d: high watermark %" PRId64 " after %" PRId64
                 ", log start %" PRId64 " after %" PRId64,
                 p->topic->name, p->index, r->high_watermark, pos->high_watermark,
                 r->log_start_offset, pos->log_start);
    pos->high_watermark = r->high_watermark;
    if (r->log_start_offset >= 0) {
        pos->log_start = r->log_start_offset;
        model_watermarks(p, r->log_start_offset, r->high_watermark);
    }
    if (r->records.len > 0)
        TRACE("%s: %s-%d from %" PRId64 ": %u bytes, hw %" PRId64, k->c.name, p->topic->name,
              p->index, pos->next, r->records.len, r->high_watermark);
    model_fetched(p, r->records, &pos->next, r->high_watermark);
    if (!k->verifier && pos->next == r->high_watermark && one_in(30))
        pos->next =
            (i64)rnd_between((u64)p->start_seen, (u64)pos->next); /* reads some of it again */
}

static void again(void *arg, u64 x)
{
    struct consumer *k = arg;
    if (k->c.up && k->c.pending == 0 && k->c.answered == x)
        consumer_go(k);
}

static void fetched(struct rpc *r, const void *answer)
{
    const struct fetch_response *resp = answer;
    struct consumer *k = r->user;
    if (!resp)
        return;
    if (resp->error_code == ERR_FETCH_SESSION_ID_NOT_FOUND ||
        resp->error_code == ERR_INVALID_FETCH_SESSION_EPOCH) {
        k->session_id = k->session_epoch = 0;
    } else if (resp->error_code != ERR_NONE) {
        sim_fail("fetch: %s: %s", k->c.name, err_name((err)resp->error_code));
    } else {
        for (i32 i = 0; i < resp->responses.n; i++)
            for (i32 j = 0; j < resp->responses.v[i].partitions.n; j++)
                partition_fetched(k,
                                  model_part(resp->responses.v[i].topic,
                                             resp->responses.v[i].topic_id,
                                             resp->responses.v[i].partitions.v[j].partition_index),
                                  &resp->responses.v[i].partitions.v[j]);
        if (k->use_session) {
            k->session_id = resp->session_id;
            k->session_epoch = resp->session_id ? k->session_epoch + 1 : 0;
        }
    }
    load_after(k->verifier ? NS_PER_MS : rnd_log(NS_PER_US, load_plan.think_ns + NS_PER_US), again,
               k, k->c.answered);
}

static void fetch_limits(struct consumer *k, struct fetch_request *q)
{
    q->replica_id = -1;
    q->max_wait_ms = k->verifier ? 10 : (i32)rnd(500);
    q->min_bytes = one_in(3) ? (i32)rnd_log(1, 10000) : 1;
    q->max_bytes = one_in(3) ? (i32)rnd_log(1, 100000) : 1 << 20;
    q->session_epoch = k->use_session ? k->session_epoch : -1;
    q->session_id = k->use_session ? k->session_id : 0;
}

static void fetch(struct consumer *k)
{
    struct fetch_request q;
    struct fetch_request_fetch_topic ft[TOPICS_MAX];
    struct fetch_request_fetch_partition fp[TOPICS_MAX][PARTS_MAX];
    fetch_request_init(&q);
    fetch_limits(k, &q);
    q.topics.v = ft;
    bool full = !k->use_session || k->session_epoch == 0;
    for (u32 n = 0; n < topic_count; n++) {
        struct fetch_request_fetch_topic *t = &ft[q.topics.n];
        fetch_request_fetch_topic_init(t);
        t->topic = bytes_str(topics[n].name);
        t->topic_id = topics[n].id;
        t->partitions.v = fp[n];
        for (u32 i = 0; i < part_count; i++) {
            struct position *pos = &k->pos[i];
            if (parts[i].topic != &topics[n] || !pos->wanted || pos->done ||
                (!full && pos->told == pos->next))
                continue;
            struct fetch_request_fetch_partition *x = &fp[n][t->partitions.n++];
            fetch_request_fetch_partition_init(x);
            x->partition = parts[i].index;
            x->fetch_offset = pos->told = pos->next;
            x->partition_max_bytes = one_in(3) ? (i32)rnd_log(1, 100000) : 1 << 20;
        }
        q.topics.n += t->partitions.n > 0;
    }
    client_call(&k->c, 1, k->version, &q, fetched, k);
}

/* ---- what next ---- */

#define TIMES 3 /* lookups by time, when all was read */

/* A time near that of some record. */
static i64 some_time(void)
{
    const struct mpart *p = &parts[rnd(part_count)];
    i64 o = p->seen_end > 0 ? (i64)rnd((u64)p->seen_end) : 0;
    i64 t = o < p->cap && p->times[o] ? p->times[o] : sim.wall_base_ms;
    return t + (i64)rnd(3) - 1;
}

/* True when it asked for something. */
static bool verifier_asks(struct consumer *k)
{
    if (k->asked < 2) {
        list_offsets(k, k->asked == 0 ? -2 : -1);
        return true;
    }
    bool all = true;
    for (u32 i = 0; i < part_count; i++) {
        struct position *pos = &k->pos[i];
        if (!pos->done && pos->next >= pos->until) {
            pos->done = true;
            model_verify(&parts[i], pos->start, pos->until, pos->must);
            TRACE("verified %s-%d up to %" PRId64, parts[i].topic->name, parts[i].index,
                  pos->until);
        }
        all &= pos->done;
    }
    k->done = all && k->asked >= 2 + TIMES;
    if (all && !k->done) {
        k->time = some_time();
        list_offsets(k, k->time);
    }
    return all;
}

static void consumer_go(struct consumer *k)
{
    if (!k->c.up || k->c.pending > 0)
        return;
    if (!topics_ready) {
        load_after(10 * NS_PER_MS, again, k, k->c.answered);
        return;
    }
    if (k->verifier) {
        if (!verifier_asks(k))
            fetch(k);
        return;
    }
    for (u32 i = 0; i < part_count; i++)
        if (k->pos[i].reset) {
            k->asked = 0;
            list_offsets(k, -2);
            return;
        }
    if (!load_quiet)
        fetch(k);
    else
        load_after(100 * NS_PER_MS, again, k, k->c.answered);
}

static void ready(struct client *c)
{
    struct consumer *k = c->user;
    k->version = (i16)rnd_between(4, 18);
    k->use_session = !k->verifier && k->version >= 7 && !one_in(3);
    k->session_id = k->session_epoch = 0;
    k->asked = 0;
    k->done = false;
    bool restart = one_in(3);
    for (u32 i = 0; i < PARTS_MAX; i++) {
        struct position *pos = &k->pos[i];
        pos->told = pos->high_watermark = pos->log_start = -1;
        pos->done = false;
        pos->reset = restart && pos->wanted;
    }
    consumer_go(k);
}

static void lost(struct client *c)
{
    (void)c;
}

void consumers_start(void)
{
    for (u32 i = 0; i < load_plan.consumers; i++) {
        char name[32];
        snprintf(name, sizeof name, "consumer-%u", i);
        client_init(&consumers[i].c, name, &consumers[i], ready, lost);
        for (u32 k = 0; k < PARTS_MAX; k++)
            consumers[i].pos[k].wanted = i == 0 || one_in(2);
        client_connect(&consumers[i].c);
    }
}

void verify_begin(void)
{
    if (verifier.c.conn)
        client_drop(&verifier.c, false);
    memset(&verifier, 0, sizeof verifier);
    client_init(&verifier.c, "verifier", &verifier, ready, lost);
    verifier.verifier = true;
    for (u32 k = 0; k < PARTS_MAX; k++)
        verifier.pos[k].wanted = true;
    client_connect(&verifier.c);
}

bool verify_done(void)
{
    return verifier.done;
}
