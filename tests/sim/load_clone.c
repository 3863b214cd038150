/* One who clones a topic, reads the clone again and again while its source is written to, trimmed
 * and the node dies, deletes it, and clones anew. Nobody writes to the clone: each of its offsets
 * holds what the source held there, up to where it was told to end, and its bounds never move (but
 * by retention, which it inherits). */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "load.h"
#include "requests.h"
#include "topic_clone.h"

static struct client cloner;
static enum { CLONE_MAKE, CLONE_MAKING, CLONE_IDENTIFY, CLONE_READ, CLONE_DELETE } step;
static struct topic_clone *job; /* of the life; its memory goes with it */
static u32 job_life, serial;
static char name[32];
static struct mtopic *source;
static struct uuid id;
static bool made;          /* it was said to be there */
static bool maybe_deleted; /* a request to delete it may have worked */
static i64 until;          /* where it was told to end; -1: by time */
static struct clone_pos {
    i64 next, start, end; /* end -1: not known yet */
    i64 must;             /* of its source was acknowledged when it was asked for */
    bool whole;           /* read to its end since the last reset */
    bool below;           /* next is below the log start */
} pos[PARTS_MAX];
static i32 reading;
static u64 turn; /* answers to what was asked in an earlier turn are ignored */

static void go(void *arg, u64 x);

static void later(void)
{
    sim_after(rnd_log(NS_PER_MS, 200 * NS_PER_MS), go, NULL, 0);
}

static struct mpart *source_part(i32 partition)
{
    return model_part(bytes_str(source->name), source->id, partition);
}

static void reset(void)
{
    for (i32 i = 0; i < PARTS_MAX; i++) {
        pos[i].next = 0;
        pos[i].whole = false;
    }
    reading = 0;
    turn++;
}

static void away(const char *what)
{
    if (made && !maybe_deleted)
        sim_fail("durability: the clone %s was made, not deleted, and is gone (%s)", name, what);
    step = CLONE_MAKE;
}

static bool passing(err e)
{
    return e == ERR_KAFKA_STORAGE_ERROR || e == ERR_REQUEST_TIMED_OUT ||
           e == ERR_UNKNOWN_SERVER_ERROR || e == ERR_CORRUPT_MESSAGE;
}

static bool gone(err e)
{
    return e == ERR_UNKNOWN_TOPIC_OR_PARTITION || e == ERR_UNKNOWN_TOPIC_ID;
}

/* ---- cloning ---- */

static bool node_serves(void)
{
    for (u32 i = 0; sim.running && sim.node && i < sim.shards; i++)
        if (!sim.node->brokers[i] || !sim.node->brokers[i]->serving)
            return false;
    return sim.running && sim.node;
}

static void make(void)
{
    struct topic_clone_request q = { .end_offset = one_in(4) ? (i64)rnd(500) : INT64_MAX,
                                     .end_ms = INT64_MAX };
    if (q.end_offset == INT64_MAX && one_in(4))
        q.end_ms = clock_wall_ms() - (i64)rnd_log(1, 20000);
    until = q.end_ms == INT64_MAX ? q.end_offset : -1;
    source = &topics[rnd(topic_count)];
    snprintf(name, sizeof name, "clone.%u", ++serial);
    snprintf(q.source, sizeof q.source, "%s", source->name);
    snprintf(q.target, sizeof q.target, "%s", name);
    job = topic_clone_create(sim.node);
    job_life = sim.life;
    made = maybe_deleted = false;
    for (i32 i = 0; i < PARTS_MAX; i++)
        pos[i] =
            (struct clone_pos){ .end = -1,
                                .must = i < source->partitions ? source_part(i)->acked_end : 0 };
    reset();
    if (!topic_clone_start(job, &q))
        sim_fail("clone: a new one is under way already");
    step = CLONE_MAKING;
}

static void making(void)
{
    if (job_life != sim.life) { /* nobody knows what became of it */
        step = CLONE_IDENTIFY;
        return;
    }
    struct metric_text t = { 0 };
    topic_clone_show(job, &t);
    if (strstr(t.data, "\"done\"")) {
        TRACE("cloner: %s is made of %s: %s", name, source->name, t.data);
        made = true;
        STAT(clones);
        step = CLONE_IDENTIFY;
    } else if (strstr(t.data, "\"failed\"")) {
        TRACE("cloner: %s", t.data);
        /* Everything may fail it but what is known. */
        bool known = strstr(t.data, "UNKNOWN_TOPIC") || strstr(t.data, "EXISTS") ||
                     strstr(t.data, "INVALID_TOPIC") || strstr(t.data, "POLICY");
        if (known)
            sim_fail("clone: %s of %s: %s", name, source->name, t.data);
        step = CLONE_MAKE;
    }
    metric_text_free(&t);
}

static void identified(struct rpc *r, const void *answer)
{
    const struct metadata_response *resp = answer;
    (void)r;
    if (resp) {
        const struct metadata_response_metadata_response_topic *t = &resp->topics.v[0];
        if (gone((err)t->error_code)) {
            away("metadata");
        } else if (t->error_code == ERR_NONE) {
            if (t->partitions.n != source->partitions)
                sim_fail("clone: %s has %d partitions, its source %d", name, t->partitions.n,
                         source->partitions);
            id = t->topic_id;
            made = true;
            step = CLONE_READ;
        } else if (!passing((err)t->error_code)) {
            sim_fail("metadata: %s: %s", name, err_name((err)t->error_code));
        }
    }
    later();
}

static void identify(void)
{
    struct metadata_one m;
    client_call(&cloner, 3, (i16)rnd_between(10, 13), metadata_one(&m, name), identified, NULL);
}

/* ---- reading ---- */

static void bounds_check(struct clone_pos *p, i64 start, i64 end)
{
    bool retention = source->retention_bytes > 0;
    if (p->end >= 0 && (end != p->end || start < p->start || (start != p->start && !retention)))
        sim_fail("clone: %s-%d was [%" PRId64 ", %" PRId64 ") and is [%" PRId64 ", %" PRId64 ")",
                 name, reading, p->start, p->end, start, end);
    if (p->end < 0 && until >= 0 && (end > MAX(until, start) || end < MIN(until, p->must)))
        sim_fail("clone: %s-%d ends at %" PRId64 ", was told %" PRId64
                 "; acknowledged up to %" PRId64,
                 name, reading, end, until, p->must);
    p->start = start;
    p->end = end;
}

static void fetched(struct rpc *r, const void *answer)
{
    const struct fetch_response *resp = answer;
    struct clone_pos *p = &pos[reading];
    if (resp && resp->responses.n > 0 && r->user == (void *)(uintptr_t)turn) {
        const struct fetch_response_partition_data *d = &resp->responses.v[0].partitions.v[0];
        err e = (err)d->error_code;
        TRACE("cloner: fetch %s-%d at %" PRId64 ": %s, [%" PRId64 ", %" PRId64 ")", name, reading,
              p->next, err_name(e), d->log_start_offset, d->high_watermark);
        if (gone(e)) {
            away("fetch");
        } else if (e == ERR_OFFSET_OUT_OF_RANGE) {
            p->below = true; /* its start is behind 0, which says nothing about where */
        } else if (e == ERR_NONE) {
            bounds_check(p, d->log_start_offset, d->high_watermark);
            model_fetched(source_part(reading), d->records, &p->next, d->high_watermark);
        } else if (!passing(e)) {
            sim_fail("fetch: %s-%d at %" PRId64 ": %s", name, reading, p->next, err_name(e));
        }
        if (p->end >= 0 && p->next >= p->end) {
            p->whole = true;
            reading = (reading + 1) % source->partitions;
            if (!load_quiet)
                pos[reading].next = 0;
        }
    }
    later();
}

static void fetch(void)
{
    struct fetch_request q;
    struct fetch_request_fetch_topic t;
    struct fetch_request_fetch_partition p;
    fetch_request_init(&q);
    fetch_request_fetch_topic_init(&t);
    fetch_request_fetch_partition_init(&p);
    q.replica_id = -1;
    q.max_bytes = 1 << 20;
    q.topics.v = &t;
    q.topics.n = 1;
    t.topic_id = id;
    t.partitions.v = &p;
    t.partitions.n = 1;
    p.partition = reading;
    p.fetch_offset = pos[reading].next;
    p.partition_max_bytes = 1 << 20;
    client_call(&cloner, 1, (i16)rnd_between(13, 17), &q, fetched, (void *)(uintptr_t)turn);
}

static void listed(struct rpc *r, const void *answer)
{
    const struct list_offsets_response *resp = answer;
    if (resp && r->user == (void *)(uintptr_t)turn) {
        const struct list_offsets_response_list_offsets_partition_response *p =
            &resp->topics.v[0].partitions.v[0];
        if (gone((err)p->error_code)) {
            away("list offsets");
        } else if (p->error_code == ERR_NONE) {
            pos[reading].next = MAX(pos[reading].next, p->offset);
            pos[reading].below = false;
        }
    }
    later();
}

static void list_start(void)
{
    struct list_offsets_request q;
    struct list_offsets_request_list_offsets_topic t;
    struct list_offsets_request_list_offsets_partition p;
    list_offsets_request_init(&q);
    list_offsets_request_list_offsets_topic_init(&t);
    list_offsets_request_list_offsets_partition_init(&p);
    q.replica_id = -1;
    q.topics.v = &t;
    q.topics.n = 1;
    t.name = bytes_str(name);
    t.partitions.v = &p;
    t.partitions.n = 1;
    p.partition_index = reading;
    p.timestamp = -2;
    client_call(&cloner, 2, (i16)rnd_between(1, 11), &q, listed, (void *)(uintptr_t)turn);
}

/* ---- deleting ---- */

static void deleted(struct rpc *r, const void *answer)
{
    const struct delete_topics_response *resp = answer;
    (void)r;
    if (resp) {
        err e = (err)resp->responses.v[0].error_code;
        if (e == ERR_NONE || gone(e))
            step = CLONE_MAKE;
        else if (!passing(e))
            sim_fail("delete topic: %s: %s", name, err_name(e));
    }
    later();
}

static void delete (void)
{
    struct delete_topic_one m;
    maybe_deleted = true;
    client_call(&cloner, 20, 6, delete_topic_one(&m, id), deleted, NULL);
}

static void go(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!cloner.up || cloner.pending > 0)
        return;
    if (step == CLONE_READ && !load_quiet && one_in(20))
        step = CLONE_DELETE;
    if (step == CLONE_MAKE && topics_ready && !load_quiet && node_serves())
        make();
    if (step == CLONE_MAKING)
        making();
    switch (step) {
    case CLONE_MAKE:
    case CLONE_MAKING:
        later();
        break;
    case CLONE_IDENTIFY:
        identify();
        break;
    case CLONE_READ:
        pos[reading].below ? list_start() : fetch();
        break;
    case CLONE_DELETE:
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

void cloner_start(void)
{
    client_init(&cloner, "cloner", &cloner, ready, lost);
    client_connect(&cloner);
}

bool cloner_idle(void)
{
    return !load_plan.clone || step == CLONE_MAKE || step == CLONE_READ;
}

void cloner_verify_begin(void)
{
    reset();
}

bool cloner_verified(void)
{
    bool whole = step == CLONE_MAKE || !load_plan.clone;
    if (step != CLONE_READ)
        return whole;
    for (i32 i = 0; i < source->partitions; i++)
        if (!pos[i].whole)
            return false;
    return true;
}
