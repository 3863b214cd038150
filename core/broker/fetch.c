/* Fetch: gather from every owning shard; when there is too little, watch and gather again until
 * there is enough, an error, or the time is over (long poll).
 *
 *   handle_fetch → gather ──enough/error/deadline──► answer → (sent) → references go home
 *                    ▲  └─too little─► watch ──poke or deadline──┐
 *                    └────────────────────────────────────────────┘
 *
 * The parts of the scatter are used again in each round. While watching, a part stays at its
 * owner; the first poke (or the deadline) recalls the others. A recall travels as a message of its
 * own and comes back, so the request's memory outlives every message about it.
 *
 * Gathering waits for the object store only while there is nothing else to say. Of the reads that
 * wait, those are left out (storage_read_leave: what they asked for is there next time) that
 *   - others make up for: the part, or the parts at home together, have min_bytes, or an error;
 *   - take longer than max_wait_ms, when there is anything to answer;
 *   - take longer than STORE_WAIT_MS, too.
 * An owner whose part waits says so at home (a note), and is told there when it has waited enough
 * (a recall with what must be at hand to stop: `least`).
 *
 * Bytes: each owner may read up to the whole limit; at home what exceeds it in request order is
 * dropped again (references only, nothing was copied). The first batch is given even when it is
 * larger than the limits, so that a consumer always gets on (KIP-74).
 */
#include "check.h"
#include "clock.h"
#include "fetch_int.h"
#include "plant.h"

/* A client that fills its connection with requests is not read any more, and that it leaves is not
 * seen before an answer is sent: so none takes longer. An early answer without data is allowed. */
#define WAIT_MS_MAX (5 * 60 * 1000)
/* A consumer that asks for short waits would else be told nothing until the store was quicker. */
#define STORE_WAIT_MS 500

struct fetch_op;

struct fetch_read {
    struct fetch_item *item;
    struct read_op op;
};

struct fetch_item {
    struct fetch_op *op;
    struct part *part;
    struct fetch_partition *fp;
    err err;
    i64 high_watermark, log_start;
    i32 leader_epoch;
    u32 bytes;            /* of what is answered */
    struct read_op *read; /* made when there is something to read */
    bool reading;
    struct partition_watch watch;
    bool watching;
};

struct fetch_recall {
    struct msg msg;
    struct fetch_op *op;
    struct part *part;
    u64 least;  /* of bytes at hand, to stop a part that gathers */
    bool out;   /* on its way there or back */
    bool waits; /* the part: it watches, or waits for the store */
};

/* What an owner knows of its part while it gathers; part->user[PART_GATHERING]. */
struct fetch_gathering {
    struct msg note;
    struct part *part;
    u64 bytes, least;
    bool left; /* the reads that wait were left */
};

struct fetch_op {
    struct call *call;
    struct fetch_context context;
    struct scatter *scatter;
    struct fetch_item *items;
    struct timer deadline_timer;
    u64 deadline_ns, store_deadline_ns;
    u32 max_bytes;
    bool gathering; /* else it watches */
    u32 out;        /* what is not home: the scatter, or watching parts; and recalls */
    u64 home_bytes; /* of the parts that are home, while it gathers */
    bool home_error;
    u64 least;                    /* the least that was said to parts that wait */
    struct fetch_recall *recalls; /* per shard */
};

enum { PART_WATCHING, PART_GATHERING }; /* part->user[] */

static void fetch_round(struct fetch_op *op);
static void fetch_noted(struct shard *at, struct msg *m);

static const struct fetch_request *fetch_req(const struct fetch_op *op)
{
    return CALL_REQ(op->call, fetch_request);
}

/* ---- gather, at the owner ---- */

static void item_read_done(struct read_op *r);

static struct fetch_gathering *part_gathering(const struct part *p)
{
    return p->user[PART_GATHERING];
}

/* Of a read that failed for now. Kafka's consumer asks again after KAFKA_STORAGE_ERROR; to it the
 * errors that say "later" to a producer are a bug in the broker, and it throws. */
static err read_error(err e)
{
    err k = err_to_kafka(e);
    return k == ERR_REQUEST_TIMED_OUT || k == ERR_INVALID_REQUEST ? ERR_KAFKA_STORAGE_ERROR : k;
}

static void item_take(struct fetch_item *it)
{
    struct fetch_gathering *g = part_gathering(it->part);
    it->reading = false;
    it->bytes = it->read->bytes;
    if (it->read->err == ERR_CANCELED) {
        metric_add(it->part->at->shard.metrics, M_fetch_left_out, 1);
    } else if (it->read->err != ERR_NONE) {
        it->err = read_error(it->read->err);
        it->bytes = 0;
        g->least = 0; /* it is answered at once */
    }
    g->bytes += it->bytes;
}

static void part_release(struct part *p)
{
    CHECK(p->outstanding > 0);
    if (--p->outstanding == 0)
        part_done(p);
}

/* Enough is at hand: the part goes home without what it waits for. */
static void part_check(struct part *p)
{
    struct fetch_gathering *g = part_gathering(p);
    if (g->left || g->bytes < g->least)
        return;
    g->left = true;
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_item *it = p->items[i];
        if (it->reading)
            storage_read_leave(it->read);
    }
}

/* What the reads of a part may still give: those that have something now, those that wait. Counted
 * apart, or one that waits would leave nothing for those that have. */
struct fetch_room {
    u32 now, later;
    bool first_now, first_later; /* none gave, or will give, anything yet */
};

/* Starts a read when there is something below the high watermark. */
static void item_read(struct part *part, struct fetch_item *it, struct partition *p,
                      struct fetch_room *room)
{
    if (it->fp->fetch_offset >= it->high_watermark || (room->now == 0 && !room->first_now))
        return;
    if (!it->read) {
        struct fetch_read *fr = arena_alloc(&part->arena, sizeof *fr);
        if (!fr) {
            it->err = ERR_UNKNOWN_SERVER_ERROR;
            return;
        }
        fr->item = it;
        it->read = &fr->op;
        list_init(&it->read->link);
    }
    struct read_op *r = it->read;
    r->p = p->pindex;
    r->offset = it->fp->fetch_offset;
    r->end_offset = it->high_watermark;
    r->max_bytes = MIN((u32)it->fp->max_bytes, room->now);
    r->at_least_one = room->first_now;
    r->at_hand = room->later == 0 && !room->first_later;
    r->err = ERR_NONE;
    r->extent_count = r->bytes = 0;
    r->canceled = false;
    if (storage_read(r, item_read_done) == READ_DONE) {
        item_take(it);
        room->now -= MIN(room->now, it->bytes);
        room->first_now &= it->bytes == 0;
        return;
    }
    it->reading = true;
    part->outstanding++;
    room->later -= MIN(room->later, (u32)it->fp->max_bytes);
    room->first_later = false;
}

static void item_read_done(struct read_op *r)
{
    struct fetch_item *it = container_of(r, struct fetch_read, op)->item;
    item_take(it);
    part_check(it->part);
    part_release(it->part);
}

/* Everything but the bytes. NULL = an error was set. */
static struct partition *item_look(struct part *part, struct fetch_item *it)
{
    struct bytes name = bytes_of(it->fp->key.name, it->fp->name_len);
    struct topic_entry *t = catalog_find(part->at, name, it->fp->key.topic_id);
    err e;
    struct partition *p = partition_find(part->at, t, it->fp->key.partition, &e);
    if (!p) {
        it->err = !t && !uuid_is_zero(it->fp->key.topic_id) ? ERR_UNKNOWN_TOPIC_ID : e;
        return NULL;
    }
    it->leader_epoch = p->leader_epoch;
    it->high_watermark = partition_high_watermark(p);
    it->log_start = partition_start(p);
    it->err = partition_check_epoch(p, it->fp->current_leader_epoch);
    i64 offset = it->fp->fetch_offset;
    if (it->err == ERR_NONE && (offset < it->log_start || offset > pindex_next_offset(p->pindex)))
        it->err = ERR_OFFSET_OUT_OF_RANGE;
    return it->err == ERR_NONE ? p : NULL;
}

/* Bytes that make waiting for the store needless. */
static u64 fetch_least(const struct fetch_op *op)
{
    return (u64)MAX(fetch_req(op)->min_bytes, 1);
}

static void part_out_of_memory(struct part *part)
{
    for (u32 i = 0; i < part->item_count; i++) {
        struct fetch_item *it = part->items[i];
        it->bytes = 0;
        it->err = ERR_UNKNOWN_SERVER_ERROR;
    }
    part_done(part);
}

/* Tells home that the part waits. Behind the note comes the part; at home itself, where parts do
 * not travel, it must not come later. */
static void part_note(struct part *part)
{
    struct fetch_gathering *g = part_gathering(part);
    if (g->left)
        return;
    if (part->at == part->scatter->home)
        fetch_noted(&part->at->shard, &g->note);
    else
        shard_send(&part->at->shard, part->scatter->home->shard.index, &g->note, fetch_noted);
}

static void fetch_part_gather(struct part *part)
{
    const struct fetch_op *op = ((struct fetch_item *)part->items[0])->op;
    struct fetch_gathering *g = part_gathering(part);
    if (!g)
        part->user[PART_GATHERING] = g = arena_alloc(&part->arena, sizeof *g);
    if (!g) {
        part_out_of_memory(part);
        return;
    }
    *g = (struct fetch_gathering){ .part = part, .least = fetch_least(op) };
    part->outstanding = 1;
    struct fetch_room room = { op->max_bytes, op->max_bytes, true, true };
    for (u32 i = 0; i < part->item_count; i++) {
        struct fetch_item *it = part->items[i];
        it->part = part;
        it->bytes = 0;
        it->high_watermark = it->log_start = -1;
        struct partition *p = item_look(part, it);
        if (p)
            item_read(part, it, p, &room);
        if (it->err != ERR_NONE)
            g->least = 0;
    }
    if (part->outstanding > 1) {
        part_check(part);
        part_note(part);
    }
    part_release(part);
}

/* ---- references ---- */

static void item_drop(struct fetch_item *it)
{
    for (u32 i = 0; it->read && i < it->read->extent_count; i++)
        ref_put(it->read->extents[i].ref);
    if (it->read)
        it->read->extent_count = it->read->bytes = 0;
    it->bytes = 0;
}

struct ref_return { /* outlives the request */
    struct msg msg;
    u32 count;
    struct ref *refs[];
};

static void refs_returned(struct shard *at, struct msg *m)
{
    (void)at;
    struct ref_return *rr = container_of(m, struct ref_return, msg);
    for (u32 i = 0; i < rr->count; i++)
        ref_put(rr->refs[i]);
    mem_free(rr);
}

/* Gives back what the items of a part hold; from home, to the owner. */
static void part_return_refs(struct fetch_op *op, u32 shard, struct part *p)
{
    struct broker *home = op->call->home;
    u32 count = 0;
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_item *it = p->items[i];
        if (shard == home->shard.index)
            item_drop(it);
        else
            count += it->read ? it->read->extent_count : 0;
    }
    if (!count)
        return;
    struct ref_return *rr = mem_alloc(sizeof *rr + count * sizeof(struct ref *));
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_item *it = p->items[i];
        for (u32 j = 0; it->read && j < it->read->extent_count; j++)
            rr->refs[rr->count++] = it->read->extents[j].ref;
        if (it->read)
            it->read->extent_count = 0;
    }
    shard_send(&home->shard, shard, &rr->msg, refs_returned);
}

static void fetch_return_refs(struct fetch_op *op)
{
    for (u32 i = 0; op->scatter && i < op->call->home->shard.group->count; i++)
        if (op->scatter->parts[i])
            part_return_refs(op, i, op->scatter->parts[i]);
}

/* ---- the answer ---- */

static void fetch_release(struct call *c)
{
    fetch_return_refs(c->user);
}

static bool fetch_expand(struct call *c, const struct wire_ref *refs, u32 count)
{
    u64 total = 0;
    for (u32 i = 0; i < count; i++)
        if (refs[i].bytes.len)
            total +=
                ((const struct fetch_item *)(const void *)refs[i].bytes.data)->read->extent_count;
    struct request_ext *ext = arena_alloc(c->arena, total * sizeof *ext);
    if (!ext)
        return false;
    u32 n = 0;
    for (u32 i = 0; i < count; i++) {
        if (!refs[i].bytes.len)
            continue;
        const struct fetch_item *it = (const void *)refs[i].bytes.data;
        for (u32 j = 0; j < it->read->extent_count; j++)
            ext[n++] = (struct request_ext){ refs[i].at, it->read->extents[j].bytes };
    }
    c->request->ext = ext;
    c->request->ext_count = n;
    return true;
}

/* Is there something the consumer was not told? */
static bool item_news(const struct fetch_op *op, const struct fetch_item *it)
{
    const struct fetch_partition *fp = it->fp;
    return !op->context.incremental || it->bytes > 0 || it->err != ERR_NONE ||
           fp->told_error != it->err || it->high_watermark != fp->told_high_watermark ||
           it->log_start != fp->told_log_start;
}

static void item_answer(struct fetch_op *op, struct fetch_item *it,
                        struct fetch_response_partition_data *r)
{
    fetch_response_partition_data_init(r);
    struct fetch_partition *fp = it->fp;
    r->partition_index = fp->key.partition;
    r->error_code = (i16)it->err;
    r->high_watermark = r->last_stable_offset = it->err == ERR_NONE ? it->high_watermark : -1;
    r->log_start_offset = it->err == ERR_NONE ? it->log_start : -1;
    bool committed = fetch_req(op)->isolation_level == 1;
    r->aborted_transactions.n = committed ? 0 : -1;
    /* Opaque to the codec: fetch_expand turns it into the extents. */
    r->records = bytes_of(it->bytes ? (const void *)it : (const void *)"", it->bytes);
    fp->told_error = (i16)it->err;
    fp->told_high_watermark = it->high_watermark;
    fp->told_log_start = it->log_start;
}

/* Request order decides who is dropped when the shards together read more than was asked for. */
static void fetch_trim(struct fetch_op *op)
{
    u32 room = op->max_bytes;
    bool first = true;
    for (u32 i = 0; i < op->context.count; i++) {
        struct fetch_item *it = &op->items[i];
        if (it->bytes > room && !first)
            it->bytes = 0; /* its references go back with the rest */
        if (it->bytes) {
            room -= MIN(room, it->bytes);
            first = false;
        }
    }
}

static bool fetch_fill(struct fetch_op *op, struct fetch_response *resp)
{
    struct call *c = op->call;
    u32 count = op->context.count;
    struct fetch_response_partition_data *pd =
        CALL_ARRAY(c, struct fetch_response_partition_data, count);
    resp->responses.v = CALL_ARRAY(c, struct fetch_response_fetchable_topic_response, count);
    if (!pd || !resp->responses.v)
        return false;
    struct fetch_response_fetchable_topic_response *t = NULL;
    struct fetch_key *last = NULL;
    for (u32 i = 0; i < count; i++) {
        struct fetch_item *it = &op->items[i];
        if (!item_news(op, it))
            continue;
        struct fetch_key *k = &it->fp->key;
        if (!last || !uuid_eq(last->topic_id, k->topic_id) || strcmp(last->name, k->name) != 0) {
            t = &resp->responses.v[resp->responses.n++];
            fetch_response_fetchable_topic_response_init(t);
            t->topic = arena_copy(c->arena, bytes_of(k->name, it->fp->name_len));
            t->topic_id = k->topic_id;
            t->partitions.v = pd;
            last = k;
        }
        item_answer(op, it, pd++);
        t->partitions.n++;
        c->ref_cap++;
    }
    return true;
}

/* Partitions that gave data are served last next time. */
static void fetch_rotate(struct fetch_op *op)
{
    for (u32 i = 0; op->context.session && i < op->context.count; i++)
        if (op->items[i].bytes) {
            list_remove(&op->items[i].fp->link);
            list_push_back(op->context.partitions, &op->items[i].fp->link);
        }
}

static void fetch_answer(struct fetch_op *op)
{
    struct call *c = op->call;
    timer_stop(&c->home->shard.timers, &op->deadline_timer);
    fetch_trim(op);
    struct fetch_response *resp = CALL_RESP(c, fetch_response);
    resp->session_id = op->context.session_id;
    bool fits = fetch_fill(op, resp);
    fetch_rotate(op);
    fetch_context_close(c->home, &op->context);
    if (!fits) {
        fetch_return_refs(op);
        call_malformed(c, "request memory limit");
        return;
    }
    u64 total = 0;
    for (u32 i = 0; i < op->context.count; i++)
        total += op->items[i].bytes;
    metric_add(c->home->shard.metrics, M_fetch_bytes, total);
    c->ref_cap++; /* records are scattered also when none has any */
    c->expand = fetch_expand;
    c->release = fetch_release;
    c->user = op;
    call_done(c);
}

/* ---- watch ---- */

static void fetch_watch_home(struct shard *at, struct msg *m);

static void part_unwatch(struct part *p)
{
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_item *it = p->items[i];
        if (it->watching)
            partition_unwatch(&it->watch);
        it->watching = false;
    }
}

/* At the owner: the part goes home, once. */
static void part_poke(struct part *p)
{
    if (!p->user[PART_WATCHING])
        return;
    p->user[PART_WATCHING] = NULL;
    part_unwatch(p);
    shard_send(&p->at->shard, p->scatter->home->shard.index, &p->msg, fetch_watch_home);
}

static void item_poked(struct partition_watch *w)
{
    struct fetch_item *it = container_of(w, struct fetch_item, watch);
    it->watching = false;
    part_poke(it->part);
}

static void fetch_part_watch(struct shard *at, struct msg *m)
{
    struct part *p = container_of(m, struct part, msg);
    p->at = broker_of(at);
    p->user[PART_WATCHING] = p;
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_item *it = p->items[i];
        struct bytes name = bytes_of(it->fp->key.name, it->fp->name_len);
        err e;
        struct partition *q = partition_find(p->at, catalog_find(p->at, name, it->fp->key.topic_id),
                                             it->fp->key.partition, &e);
        if (!q || partition_high_watermark(q) != it->high_watermark) {
            part_poke(p);
            return;
        }
        partition_watch(q, &it->watch, item_poked);
        it->watching = true;
    }
}

/* ---- recall ---- */

static void fetch_recall_home(struct shard *at, struct msg *m);

static struct fetch_recall *part_recall(const struct part *p)
{
    struct fetch_op *op = ((struct fetch_item *)p->items[0])->op;
    return &op->recalls[p->at->shard.index];
}

/* At the owner, if the part is still there. */
static void fetch_recall_run(struct shard *at, struct msg *m)
{
    struct fetch_recall *r = container_of(m, struct fetch_recall, msg);
    struct part *p = r->part;
    part_poke(p);
    if (p->outstanding > 0) {
        part_gathering(p)->least = MIN(part_gathering(p)->least, r->least);
        part_check(p);
    }
    shard_send(at, r->op->call->home->shard.index, m, fetch_recall_home);
}

/* Parts that wait need not go on once they have `least` bytes at hand. */
static void fetch_recall_all(struct fetch_op *op, u64 least)
{
    struct shard *home = &op->call->home->shard;
    op->least = MIN(op->least, least);
    for (u32 i = 0; i < home->group->count; i++) {
        struct fetch_recall *r = &op->recalls[i];
        if (!r->waits || r->out || r->least <= op->least)
            continue;
        r->op = op;
        r->part = op->scatter->parts[i];
        r->least = op->least;
        r->out = true;
        op->out++;
        shard_send(home, i, &r->msg, fetch_recall_run);
    }
}

static void fetch_recalls_reset(struct fetch_op *op)
{
    op->least = UINT64_MAX;
    for (u32 i = 0; i < op->call->home->shard.group->count; i++) {
        CHECK(!op->recalls[i].out);
        op->recalls[i] = (struct fetch_recall){ .least = UINT64_MAX };
    }
}

static void fetch_gathered(struct fetch_op *op);

static void fetch_home(struct fetch_op *op)
{
    CHECK(op->out > 0);
    if (--op->out > 0)
        return;
    if (op->gathering) {
        fetch_gathered(op);
        return;
    }
    timer_stop(&op->call->home->shard.timers, &op->deadline_timer);
    metric_sub(op->call->home->shard.metrics, M_fetch_waiting, 1);
    fetch_round(op);
}

static void fetch_recall_home(struct shard *at, struct msg *m)
{
    (void)at;
    struct fetch_recall *r = container_of(m, struct fetch_recall, msg);
    struct fetch_op *op = r->op;
    r->out = false;
    if (r->waits && r->least > op->least) /* it was to hear more meanwhile */
        fetch_recall_all(op, op->least);
    fetch_home(op);
}

static void fetch_watch_home(struct shard *at, struct msg *m)
{
    (void)at;
    struct part *p = container_of(m, struct part, msg);
    struct fetch_op *op = ((struct fetch_item *)p->items[0])->op;
    part_recall(p)->waits = false;
    if (op->out > 1)
        fetch_recall_all(op, 0);
    fetch_home(op);
}

/* At home: is what the parts there have enough for those that wait for the store? */
static void fetch_enough(struct fetch_op *op)
{
    bool late = op->call->home->shard.now_ns >= op->deadline_ns;
    if (op->home_bytes >= fetch_least(op) || (late && op->home_bytes > 0) || op->home_error)
        fetch_recall_all(op, 0);
    else if (op->least != UINT64_MAX)
        fetch_recall_all(op, op->least);
}

/* A part waits for the store. Comes before the part does. */
static void fetch_noted(struct shard *at, struct msg *m)
{
    (void)at;
    struct part *p = container_of(m, struct fetch_gathering, note)->part;
    part_recall(p)->waits = true;
    fetch_enough(((struct fetch_item *)p->items[0])->op);
}

static void fetch_part_home(struct part *p)
{
    struct fetch_op *op = ((struct fetch_item *)p->items[0])->op;
    part_recall(p)->waits = false;
    for (u32 i = 0; i < p->item_count; i++) {
        const struct fetch_item *it = p->items[i];
        op->home_bytes += it->bytes;
        op->home_error |= it->err != ERR_NONE;
    }
    fetch_enough(op);
}

static void fetch_deadline(struct timer *t)
{
    struct fetch_op *op = container_of(t, struct fetch_op, deadline_timer);
    struct shard *home = &op->call->home->shard;
    if (op->gathering && home->now_ns < op->store_deadline_ns) {
        fetch_recall_all(op, op->home_bytes > 0 ? 0 : 1);
        timer_start(&home->timers, t, op->store_deadline_ns, fetch_deadline);
    } else {
        fetch_recall_all(op, 0);
    }
}

/* A session without partitions: only the time ends it. */
static void fetch_deadline_empty(struct timer *t)
{
    fetch_home(container_of(t, struct fetch_op, deadline_timer));
}

static void fetch_watch(struct fetch_op *op)
{
    struct shard *home = &op->call->home->shard;
    op->gathering = false;
    CHECK(op->out == 0);
    fetch_recalls_reset(op);
    for (u32 i = 0; i < home->group->count; i++) {
        op->recalls[i].waits = op->scatter->parts[i] != NULL;
        op->out += op->recalls[i].waits;
    }
    metric_add(home->metrics, M_fetch_waits, 1);
    metric_add(home->metrics, M_fetch_waiting, 1);
    if (op->out == 0) {
        op->out = 1;
        timer_start(&home->timers, &op->deadline_timer, op->deadline_ns, fetch_deadline_empty);
        return;
    }
    if (!timer_armed(&op->deadline_timer))
        timer_start(&home->timers, &op->deadline_timer, op->deadline_ns, fetch_deadline);
    for (u32 i = 0; i < home->group->count; i++)
        if (op->scatter->parts[i])
            shard_send(home, i, &op->scatter->parts[i]->msg, fetch_part_watch);
}

/* ---- rounds ---- */

static void fetch_gathered(struct fetch_op *op)
{
    u64 bytes = 0;
    bool error = false;
    for (u32 i = 0; i < op->context.count; i++) {
        bytes += op->items[i].bytes;
        error |= op->items[i].err != ERR_NONE;
    }
    bool enough = bytes >= (u64)MAX(fetch_req(op)->min_bytes, 0);
    if (error || enough || clock_mono_ns() >= op->deadline_ns || request_dead(op->call->request)) {
        fetch_answer(op);
        return;
    }
    fetch_return_refs(op);
    fetch_watch(op);
}

static void fetch_scattered(struct scatter *s)
{
    fetch_home(s->call->user);
}

static void fetch_round(struct fetch_op *op)
{
    struct shard *home = &op->call->home->shard;
    op->gathering = true;
    op->home_bytes = 0;
    op->home_error = false;
    fetch_recalls_reset(op);
    CHECK(op->out == 0);
    op->out = 1;
    timer_start(&home->timers, &op->deadline_timer, op->deadline_ns, fetch_deadline);
    scatter_start(op->scatter);
}

static bool fetch_add_items(struct fetch_op *op)
{
    struct broker *b = op->call->at;
    u32 n = 0;
    list_for(l, op->context.partitions) {
        struct fetch_item *it = &op->items[n++];
        it->op = op;
        it->fp = list_entry(l, struct fetch_partition, link);
        it->high_watermark = it->log_start = -1;
        it->leader_epoch = -1;
        struct bytes name = bytes_of(it->fp->key.name, it->fp->name_len);
        struct topic_entry *t = catalog_find(b, name, it->fp->key.topic_id);
        i32 index = it->fp->key.partition;
        if (!t || index < 0 || index >= t->topic->partition_count) {
            it->err = t || uuid_is_zero(it->fp->key.topic_id) ? ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                              : ERR_UNKNOWN_TOPIC_ID;
            continue;
        }
        if (!scatter_add(op->scatter, partition_shard(b, t->topic, index), it))
            return false;
    }
    CHECK(n == op->context.count);
    return true;
}

/* The client is gone: the time is over now, however long it wanted to wait. Else its memory would
 * be held for that long, and a node that stops would wait for it. */
static void fetch_gone(struct request *r)
{
    struct fetch_op *op = r->call->user;
    struct shard *home = &op->call->home->shard;
    if (PLANTED(PLANT_LONG_POLL_STAYS))
        return;
    op->deadline_ns = op->store_deadline_ns = home->now_ns;
    if (timer_armed(&op->deadline_timer))
        timer_start(&home->timers, &op->deadline_timer, home->now_ns, op->deadline_timer.fn);
}

void handle_fetch(struct call *c)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    struct fetch_op *op = arena_alloc(c->arena, sizeof *op);
    if (!op) {
        call_malformed(c, "request memory limit");
        return;
    }
    op->call = c;
    c->user = op;
    c->request->gone = fetch_gone;
    err e = fetch_context_open(c, &op->context);
    if (e != ERR_NONE) {
        CALL_RESP(c, fetch_response)->error_code = (i16)e;
        call_done(c);
        return;
    }
    i64 limit = config_i64(c->at->node->cfg, CFG_fetch_max_bytes);
    op->max_bytes = (u32)MIN((i64)MAX(q->max_bytes, 0), limit);
    i32 wait_ms = MIN(MAX(q->max_wait_ms, 0), WAIT_MS_MAX);
    op->deadline_ns = c->request->arrived_ns + (u64)wait_ms * NS_PER_MS;
    op->store_deadline_ns =
        c->request->arrived_ns + MAX((u64)wait_ms, (u64)STORE_WAIT_MS) * NS_PER_MS;
    op->items = CALL_ARRAY(c, struct fetch_item, op->context.count);
    op->recalls = CALL_ARRAY(c, struct fetch_recall, c->at->shard.group->count);
    op->scatter = scatter_new(c, fetch_part_gather, fetch_scattered);
    if (!op->items || !op->recalls || !op->scatter || !fetch_add_items(op)) {
        fetch_context_close(c->at, &op->context);
        call_malformed(c, "request memory limit");
        return;
    }
    op->scatter->arrived = fetch_part_home;
    fetch_round(op);
}
