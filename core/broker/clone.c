/* See topic_clone.h.
 *
 *   CHECK names, limits ─► LOOK (each shard: where each partition ends now; by time, where to end)
 *     ─► GATHER (each shard: blocks of its partitions, counted once more; waits until they hold
 *        what was acknowledged)
 *     ─► WRITE (keys k/ and p/ of all partitions, one transaction)
 *     ─► INSTALL (each shard: indexes; what lies in a block that is not shared is copied)
 *     ─► the topic's own change: its key t/ and publication ─► end
 *
 *  1. The clone is there when its key t/ is. A kill before that leaves keys and batches of a topic
 *     nobody knows: the next start drops them; every object still has its other blocks.
 *  2. From GATHER on each block is counted, so no object goes meanwhile. Whatever fails gives them
 *     back.
 *  3. It is one task of the controller: the source is neither deleted nor changed meanwhile.
 *  4. In the clone is what was acknowledged when it began, up to where it was told to end; without
 *     an end perhaps some of what came after.
 *
 * How long it takes: an upload, if the newest records are not in the store yet; a copy of 64 bytes
 * a block in memory, and one transaction with them; and where a partition ends within a block, a
 * read of that block. No other object is read or written. */
#include "topic_clone.h"

#include <stdarg.h>
#include <stdio.h>

#include "../../storage/clone.h"
#include "broker_int.h"
#include "check.h"
#include "clock.h"
#include "controller_int.h"
#include "log.h"

#define POLL_NS (5 * NS_PER_MS)
#define WAIT_NS (10 * NS_PER_S)
#define TURN_BLOCKS 20000u

enum clone_state { CLONE_NEVER, CLONE_RUNNING, CLONE_DONE, CLONE_FAILED };

struct clone_shard {
    struct msg msg;
    struct timer timer;
    struct topic_clone *clone;
    struct shard *shard;
    i32 at; /* partition */
    u64 deadline_ns;
    bool seal_asked;
    u64 index_bytes; /* of its parts so far */
    struct lookup_op lookup;
    struct clone_copy copy;
    err err;
};

struct topic_clone {
    struct node *node;
    u32 state; /* atomic, enum clone_state; what follows belongs to shard 0 while it runs */
    struct topic_clone_request request;
    struct msg msg;
    struct controller_task task;
    struct topic_change change;
    struct bg_job job;
    struct broker *broker;
    struct topic *topic; /* the change takes it */
    i32 count;           /* partitions */
    struct clone_part *parts;
    i64 *ends; /* by partition: of what was acknowledged when it began */
    struct clone_shard *shards;
    u32 shards_missing;
    err err;
    u64 began_ns, took_ns, bytes, blocks, copied;
    char why[512];
};

/* ---- the end ---- */

static void finish(struct topic_clone *c)
{
    struct broker *b = c->broker;
    for (i32 i = 0; c->parts != NULL && i < c->count; i++)
        clone_free(&c->parts[i]);
    topic_free(c->topic);
    mem_free(c->parts);
    mem_free(c->ends);
    mem_free(c->shards);
    c->parts = NULL;
    c->ends = NULL;
    c->shards = NULL;
    c->topic = NULL;
    c->took_ns = clock_mono_ns() - c->began_ns;
    if (c->err == ERR_NONE) {
        metric_add(b->shard.metrics, M_topic_clones, 1);
        LOG(INFO, topic_cloned,
            "topic=%s source=%s partitions=%d blocks=%" PRIu64 " bytes=%" PRIu64
            " copied_records=%" PRIu64 " us=%" PRIu64,
            c->request.target, c->request.source, c->count, c->blocks, c->bytes, c->copied,
            c->took_ns / NS_PER_US);
    }
    __atomic_store_n(&c->state, c->err == ERR_NONE ? CLONE_DONE : CLONE_FAILED, __ATOMIC_RELEASE);
    controller_next(b);
}

static void refuse(struct topic_clone *c, err e, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void refuse(struct topic_clone *c, err e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->why, sizeof c->why, fmt, ap);
    va_end(ap);
    c->err = e;
}

/* ---- a step on every shard ---- */

static void all_shards(struct topic_clone *c, msg_fn fn)
{
    struct shard *s = &c->broker->shard;
    c->shards_missing = s->group->count;
    for (u32 i = 0; i < s->group->count; i++) {
        struct clone_shard *cs = &c->shards[i];
        *cs = (struct clone_shard){ .clone = c };
        shard_send(s, i, &cs->msg, fn);
    }
}

/* The last one of a step: true. */
static bool shard_back(struct clone_shard *cs)
{
    struct topic_clone *c = cs->clone;
    if (c->err == ERR_NONE)
        c->err = cs->err;
    return --c->shards_missing == 0;
}

static void why_failed(struct topic_clone *c)
{
    const char *from = c->request.source;
    if (c->err == ERR_TIMED_OUT)
        refuse(c, c->err,
               "the newest records of %s did not get into the store, or into the log, within "
               "%" PRIu64 " s: see leatctl store, and try again; an earlier end (--at) needs no "
               "upload",
               from, WAIT_NS / NS_PER_S);
    else if (c->err == ERR_NO_MEMORY)
        refuse(c, c->err,
               "%s has more blocks than there is room for: raise index.memory, or clone when "
               "retention or merging has made them fewer",
               from);
    else if (c->err == ERR_OFFSET_OUT_OF_RANGE)
        refuse(c, c->err, "records of %s were deleted while it was cloned: try again", from);
    else if (c->err == ERR_CANCELED)
        refuse(c, c->err, "the node stops: try again when it runs");
    else
        refuse(c, c->err, "%s can't be read, or the log not written: %s; see the node's log", from,
               err_text(c->err));
}

static void shard_begin(struct clone_shard *cs, struct shard *at)
{
    cs->shard = at;
    cs->deadline_ns = at->now_ns + WAIT_NS;
}

static bool is_mine(const struct clone_shard *cs, i32 partition)
{
    const struct partition_key *target = &cs->clone->parts[partition].target;
    return storage_shard_of(target, cs->shard->group->count) == cs->shard->index;
}

static void released(struct shard *at, struct msg *m)
{
    (void)at;
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    if (shard_back(cs))
        finish(cs->clone);
}

static void release(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    struct storage *st = broker_of(at)->storage;
    cs->shard = at;
    for (i32 i = 0; i < cs->clone->count; i++)
        if (is_mine(cs, i))
            clone_release(st, &cs->clone->parts[i]);
    shard_send(at, CONTROLLER_SHARD, m, released);
}

/* ---- the topic's own change ---- */

static void uninstall(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    cs->shard = at;
    for (i32 i = 0; i < cs->clone->count; i++)
        if (is_mine(cs, i))
            pindex_drop(pindex_find(broker_of(at)->storage, &cs->clone->parts[i].target));
    shard_send(at, CONTROLLER_SHARD, m, released);
}

static void changed(struct topic_change *tc)
{
    struct topic_clone *c = container_of(tc, struct topic_clone, change);
    if (tc->err == ERR_NONE) {
        finish(c);
        return;
    }
    refuse(c, tc->err, "the metadata can't be written: %s", err_text(tc->err));
    all_shards(c, uninstall);
}

static void installed(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    struct topic_clone *c = cs->clone;
    (void)at;
    if (!shard_back(cs))
        return;
    if (c->err != ERR_NONE) {
        why_failed(c);
        all_shards(c, uninstall);
        return;
    }
    struct topic *t = c->topic;
    c->topic = NULL;
    topic_change_start(c->broker, &c->change, NULL, t, changed);
}

static void copy_next(struct clone_shard *cs);

static void copy_done(struct clone_copy *copy)
{
    struct clone_shard *cs = container_of(copy, struct clone_shard, copy);
    cs->err = copy->err;
    cs->at++;
    copy_next(cs);
}

/* What ends within a block. */
static void copy_next(struct clone_shard *cs)
{
    struct topic_clone *c = cs->clone;
    struct storage *st = broker_of(cs->shard)->storage;
    for (; cs->at < c->count && cs->err == ERR_NONE; cs->at++) {
        const struct clone_part *part = &c->parts[cs->at];
        i64 end = MIN(part->end_offset, c->ends[cs->at]);
        if (!is_mine(cs, cs->at) || part->end >= end)
            continue;
        cs->copy.source = pindex_find(st, &part->source);
        cs->copy.target = pindex_find(st, &part->target);
        cs->copy.end_offset = end;
        cs->copy.deadline_ns = cs->deadline_ns;
        clone_copy_start(&cs->copy, copy_done);
        return;
    }
    shard_send(cs->shard, CONTROLLER_SHARD, &cs->msg, installed);
}

static void install(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    bool object = cs->clone->topic->config.durability == DURABILITY_OBJECT;
    shard_begin(cs, at);
    for (i32 i = 0; i < cs->clone->count; i++)
        if (is_mine(cs, i))
            clone_install(broker_of(at)->storage, &cs->clone->parts[i], object);
    copy_next(cs);
}

/* ---- the keys ---- */

static void written(struct bg_job *j)
{
    struct topic_clone *c = container_of(j, struct topic_clone, job);
    if (c->err != ERR_NONE)
        refuse(c, c->err, "the metadata can't be written: %s", err_text(c->err));
    all_shards(c, c->err != ERR_NONE ? release : install);
}

static void write_run(struct bg_job *j)
{
    struct topic_clone *c = container_of(j, struct topic_clone, job);
    c->err = clone_write(c->broker->node->env.meta, c->parts, (u32)c->count);
}

/* ---- gathering ---- */

static void gathered(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    struct topic_clone *c = cs->clone;
    if (!shard_back(cs))
        return;
    if (c->err != ERR_NONE) {
        why_failed(c);
        all_shards(c, release);
        return;
    }
    for (i32 i = 0; i < c->count; i++) {
        const struct clone_part *part = &c->parts[i];
        c->bytes += part->bytes;
        c->blocks += part->count;
        c->copied += (u64)MAX(MIN(part->end_offset, c->ends[i]) - part->end, 0);
    }
    bg_submit(at, &c->job, BG_META, write_run, written);
}

/* Is what was acknowledged in the store? Asks for it once. */
static bool is_stored(struct clone_shard *cs, struct storage *st, i32 partition)
{
    const struct clone_part *part = &cs->clone->parts[partition];
    i64 wanted = MIN(cs->clone->ends[partition], part->end_offset);
    if (clone_shared_end(st, &part->source) >= wanted)
        return true;
    if (!cs->seal_asked)
        clone_seal(st);
    cs->seal_asked = true;
    return false;
}

/* ERR_BUSY: later. */
static err gather_one(struct clone_shard *cs, i32 partition)
{
    struct storage *st = broker_of(cs->shard)->storage;
    struct clone_part *part = &cs->clone->parts[partition];
    if (cs->shard->stopping)
        return ERR_CANCELED;
    err e = is_stored(cs, st, partition) ? clone_gather(st, part, cs->index_bytes) : ERR_BUSY;
    if (e == ERR_NONE)
        cs->index_bytes += clone_index_bytes(part);
    return e == ERR_BUSY && cs->shard->now_ns >= cs->deadline_ns ? ERR_TIMED_OUT : e;
}

static void gather_step(struct timer *t)
{
    struct clone_shard *cs = container_of(t, struct clone_shard, timer);
    const struct topic_clone *c = cs->clone;
    u32 blocks = 0;
    for (; cs->at < c->count && blocks < TURN_BLOCKS && cs->err == ERR_NONE; cs->at++) {
        if (!is_mine(cs, cs->at))
            continue;
        cs->err = gather_one(cs, cs->at);
        if (cs->err == ERR_BUSY)
            break;
        blocks += c->parts[cs->at].count;
    }
    bool busy = cs->err == ERR_BUSY;
    if (busy)
        cs->err = ERR_NONE;
    if (cs->err != ERR_NONE || cs->at == c->count)
        shard_send(cs->shard, CONTROLLER_SHARD, &cs->msg, gathered);
    else
        timer_start(&cs->shard->timers, t, cs->shard->now_ns + (busy ? POLL_NS : 0), gather_step);
}

static void gather(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    shard_begin(cs, at);
    timer_start(&at->timers, &cs->timer, at->now_ns, gather_step);
}

/* ---- looking ---- */

static void bounds_check(struct topic_clone *c)
{
    i64 start = INT64_MAX, end = 0;
    bool any = false, by_time = c->request.end_ms != INT64_MAX;
    for (i32 i = 0; i < c->count; i++) {
        start = MIN(start, c->parts[i].start);
        end = MAX(end, c->ends[i]);
        any |= c->parts[i].start < MIN(c->ends[i], c->parts[i].end_offset);
    }
    if (!by_time && c->request.end_offset != INT64_MAX && c->request.end_offset > end)
        refuse(c, ERR_OFFSET_OUT_OF_RANGE,
               "offset %" PRId64 " is beyond the end of %s, whose longest partition ends at "
               "%" PRId64 ": give that or less, or no --at for all of it",
               c->request.end_offset, c->request.source, end);
    else if (by_time && !any)
        refuse(c, ERR_OFFSET_OUT_OF_RANGE,
               "%s holds nothing from before that time: give a later one", c->request.source);
    else if (c->request.end_offset != INT64_MAX && !any)
        refuse(c, ERR_OFFSET_OUT_OF_RANGE,
               "%s holds nothing below offset %" PRId64 ": its logs begin at %" PRId64
               " or later: give a larger one",
               c->request.source, c->request.end_offset, start);
}

static void looked(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    struct topic_clone *c = cs->clone;
    (void)at;
    if (!shard_back(cs))
        return;
    if (c->err == ERR_NONE)
        bounds_check(c);
    else
        why_failed(c);
    if (c->err == ERR_NONE)
        all_shards(c, gather);
    else
        finish(c);
}

static void look_next(struct clone_shard *cs);

static void look_took(struct clone_shard *cs)
{
    struct clone_part *part = &cs->clone->parts[cs->at++];
    cs->err = cs->lookup.err;
    if (cs->lookup.offset >= 0)
        part->end_offset = cs->lookup.offset;
}

static void look_done(struct lookup_op *op)
{
    struct clone_shard *cs = container_of(op, struct clone_shard, lookup);
    look_took(cs);
    look_next(cs);
}

static void look_next(struct clone_shard *cs)
{
    struct topic_clone *c = cs->clone;
    while (cs->at < c->count && cs->err == ERR_NONE) {
        struct clone_part *part = &c->parts[cs->at];
        if (!is_mine(cs, cs->at)) {
            cs->at++;
            continue;
        }
        struct pindex *p = pindex_find(broker_of(cs->shard)->storage, &part->source);
        CHECK(p != NULL); /* the topic is known, and is not deleted meanwhile */
        part->start = pindex_start_offset(p);
        c->ends[cs->at] = pindex_durable_offset(p);
        cs->lookup = (struct lookup_op){ .p = p, .timestamp = c->request.end_ms, .offset = -1 };
        if (c->request.end_ms != INT64_MAX && storage_lookup(&cs->lookup, look_done) == READ_WAIT)
            return;
        look_took(cs);
    }
    shard_send(cs->shard, CONTROLLER_SHARD, &cs->msg, looked);
}

static void look(struct shard *at, struct msg *m)
{
    struct clone_shard *cs = container_of(m, struct clone_shard, msg);
    shard_begin(cs, at);
    look_next(cs);
}

/* ---- checks ---- */

static void check(struct topic_clone *c, const struct topic *source)
{
    struct broker *b = c->broker;
    const char *from = c->request.source, *to = c->request.target;
    struct bytes target = bytes_str(to);
    if (source == NULL)
        refuse(c, ERR_UNKNOWN_TOPIC_OR_PARTITION,
               "there is no topic %s: leatctl store du names them", from);
    else if (source->internal)
        refuse(c, ERR_INVALID_TOPIC_EXCEPTION, "%s is internal to the broker", from);
    else if (source->config.cleanup_policy & CLEANUP_COMPACT)
        refuse(c, ERR_POLICY_VIOLATION,
               "%s has cleanup.policy=compact: only topics that keep all records can be cloned",
               from);
    else if (!topic_name_valid(target))
        refuse(c, ERR_INVALID_TOPIC_EXCEPTION,
               "%s is no name for a topic: 1 to 249 of letters, digits, '.', '_' and '-'", to);
    else if (catalog_by_name(b, target))
        refuse(c, ERR_TOPIC_ALREADY_EXISTS,
               "there is a topic %s already: give another name, or delete it", to);
    else if (topic_name_collides(b, target))
        refuse(c, ERR_INVALID_TOPIC_EXCEPTION,
               "%s differs from an existing topic only in '.' and '_': give another name", to);
    else if (!topic_partitions_fit(b, (u64)source->partition_count))
        refuse(
            c, ERR_POLICY_VIOLATION,
            "topics.max_partitions does not allow %d partitions more: raise it, or delete topics",
            source->partition_count);
    else if (config_bool(b->node->cfg, CFG_store_readonly))
        refuse(c, ERR_POLICY_VIOLATION,
               "nothing may change in the store (store.readonly): clone on the node that writes");
    else if (c->request.end_ms != INT64_MAX && c->request.end_ms > clock_wall_ms())
        refuse(c, ERR_INVALID_REQUEST,
               "--at is in the future: give a time that is past (in UTC), or none for all of it");
}

static void run(struct controller_task *task)
{
    struct topic_clone *c = container_of(task, struct topic_clone, task);
    struct broker *b = c->broker;
    const struct topic_entry *e = catalog_by_name(b, bytes_str(c->request.source));
    const struct topic *source = e != NULL ? e->topic : NULL;
    check(c, source);
    if (c->err != ERR_NONE || source == NULL) {
        finish(c);
        return;
    }
    c->count = source->partition_count;
    c->topic = topic_make(b, bytes_str(c->request.target), c->count);
    c->topic->id = clone_topic_id(source->id, &b->shard.rng);
    topic_config_free(&c->topic->config);
    topic_config_copy(&c->topic->config, &source->config);
    c->parts = mem_alloc((u32)c->count * sizeof *c->parts);
    c->ends = mem_alloc((u32)c->count * sizeof *c->ends);
    c->shards = mem_alloc(b->shard.group->count * sizeof *c->shards);
    for (i32 i = 0; i < c->count; i++) {
        c->parts[i].source = (struct partition_key){ source->id, (u32)i };
        c->parts[i].target = (struct partition_key){ c->topic->id, (u32)i };
        c->parts[i].end_offset = c->request.end_offset;
    }
    all_shards(c, look);
}

static void arrived(struct shard *at, struct msg *m)
{
    struct topic_clone *c = container_of(m, struct topic_clone, msg);
    c->broker = broker_of(at);
    c->began_ns = clock_mono_ns();
    c->err = ERR_NONE;
    c->bytes = c->blocks = c->copied = 0;
    if (at->stopping) {
        refuse(c, ERR_CANCELED, "the node stops");
        __atomic_store_n(&c->state, CLONE_FAILED, __ATOMIC_RELEASE);
        return;
    }
    controller_enter(c->broker, &c->task, run);
}

/* ---- from outside ---- */

struct topic_clone *topic_clone_create(struct node *n)
{
    struct topic_clone *c = MEM_NEW(struct topic_clone);
    c->node = n;
    return c;
}

void topic_clone_free(struct topic_clone *c)
{
    mem_free(c);
}

bool topic_clone_start(struct topic_clone *c, const struct topic_clone_request *r)
{
    if (__atomic_load_n(&c->state, __ATOMIC_ACQUIRE) == CLONE_RUNNING)
        return false;
    c->request = *r;
    __atomic_store_n(&c->state, CLONE_RUNNING, __ATOMIC_RELEASE);
    shard_post(&c->node->group, CONTROLLER_SHARD, &c->msg, arrived);
    return true;
}

void topic_clone_show(struct topic_clone *c, struct metric_text *out)
{
    u32 state = __atomic_load_n(&c->state, __ATOMIC_ACQUIRE);
    if (state == CLONE_NEVER || state == CLONE_RUNNING)
        metric_text_add(out, "{\"state\":\"%s\"}\n", state == CLONE_NEVER ? "never" : "running");
    else if (state == CLONE_FAILED)
        metric_text_add(out, "{\"state\":\"failed\",\"code\":\"%s\",\"error\":\"%s\"}\n",
                        err_name(c->err), c->why);
    else
        metric_text_add(out,
                        "{\"state\":\"done\",\"source\":\"%s\",\"target\":\"%s\",\"partitions\":%d,"
                        "\"blocks\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"copied_records\":%" PRIu64
                        ",\"us\":%" PRIu64 "}\n",
                        c->request.source, c->request.target, c->count, c->blocks, c->bytes,
                        c->copied, c->took_ns / NS_PER_US);
}
