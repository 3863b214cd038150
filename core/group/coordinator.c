/* Which groups are here: owned partitions of __consumer_offsets, their loading at start, the
 * writing of records, and FindCoordinator.
 *
 * Loading reads the partition from its log start to its end at that moment, one megabyte at a
 * time, and applies the records; what is above the high watermark (with leat.durability=object,
 * what the last life had not registered yet) is waited for. Until it is done every request is
 * answered with COORDINATOR_LOAD_IN_PROGRESS, which clients retry.
 */
#include <stdio.h>

#include "group_int.h"

#define LOAD_CHUNK_BYTES ((u32)MIB)
#define WRITE_BATCH_BYTES ((u32)(8 * MIB))
#define LOAD_RETRY_NS NS_PER_S
#define WRITE_RETRY_NS (20 * NS_PER_MS)
#define EXPIRY_FIRST_NS (60 * NS_PER_S)
#define EXPIRY_SLICE_MS 10 /* between the slices of one round */

/* ---- where a group lives ---- */

/* Java's String.hashCode over the UTF-16 units of the id, as Kafka chooses the partition. */
static i32 java_hash(struct bytes s)
{
    u32 h = 0;
    for (u32 i = 0; i < s.len;) {
        u8 c = s.data[i];
        u32 n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        u32 code = n == 1 ? c : c & (0xffu >> (n + 1));
        for (u32 j = 1; j < n; j++)
            code = code << 6 | (i + j < s.len ? s.data[i + j] & 0x3fu : 0);
        if (code >= 0x10000) {
            code -= 0x10000;
            h = 31 * h + (0xd800 + (code >> 10));
            code = 0xdc00 + (code & 0x3ff);
        }
        h = 31 * h + code;
        i += n;
    }
    return (i32)h;
}

static struct topic_entry *offsets_topic(const struct broker *b)
{
    return catalog_by_name((struct broker *)(uintptr_t)b, bytes_str(OFFSETS_TOPIC));
}

i32 coordinator_partition(const struct broker *b, struct bytes group)
{
    struct topic_entry *t = offsets_topic(b);
    if (!t)
        return -1;
    /* Kafka's Utils.abs: the sign bit is cleared. */
    return (i32)((u32)java_hash(group) & 0x7fffffffu) % t->topic->partition_count;
}

err coordinator_shard(const struct broker *b, struct bytes group, u32 *shard)
{
    i32 p = coordinator_partition(b, group);
    if (p < 0)
        return ERR_COORDINATOR_NOT_AVAILABLE;
    *shard = partition_shard(b, offsets_topic(b)->topic, p);
    return ERR_NONE;
}

struct group_partition *group_partition_of(struct broker *b, struct bytes group, err *why)
{
    i32 index = coordinator_partition(b, group);
    struct group_partition *gp = NULL;
    *why = index < 0 ? ERR_COORDINATOR_NOT_AVAILABLE : ERR_NOT_COORDINATOR;
    HASH_FIND_INT(b->coordinator->partitions, &index, gp);
    if (!gp)
        return NULL;
    *why = gp->load == LOAD_RUNNING ? ERR_COORDINATOR_LOAD_IN_PROGRESS : ERR_NONE;
    return gp->load == LOAD_DONE ? gp : NULL;
}

struct group *group_find(struct broker *b, struct bytes id)
{
    struct group *g = NULL;
    HASH_FIND(hh, b->coordinator->groups, id.data, id.len, g);
    return g;
}

/* ---- loading ---- */

static void load_next(struct group_partition *gp);

static void load_batch(struct group_partition *gp, const struct batch *b)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    gp->load_offset = batch_last_offset(b) + 1;
    if (batch_is_control(b))
        return;
    if (batch_decode(gp->coordinator->broker->compressor, b, BATCH_DECODED_BYTES_MAX, &plain) !=
        ERR_NONE) {
        LOG(WARN, group_record_unreadable, "partition=%d offset=%" PRId64, gp->index,
            b->base_offset);
        return;
    }
    record_iter_init(&it, b, plain);
    while (record_next(&it, &r) == ERR_NONE)
        record_apply(gp, &r);
}

/* False: nothing of what was read is a batch, and it would not be when it is read again. */
static bool load_take(struct group_partition *gp)
{
    struct read_op *op = gp->read;
    i64 before = gp->load_offset;
    for (u32 i = 0; i < op->extent_count; i++) {
        struct bytes rest = op->extents[i].bytes;
        struct batch b;
        while (batch_next(&rest, &b) == ERR_NONE)
            load_batch(gp, &b);
        ref_put(op->extents[i].ref);
    }
    return gp->load_offset > before;
}

static void load_again(struct timer *t)
{
    load_next(container_of(t, struct group_partition, load_timer));
}

/* What was read stays; no session runs and nothing is written before all is there. */
static void load_failed(struct group_partition *gp, err e)
{
    struct shard *s = &gp->coordinator->broker->shard;
    LOG(ERROR, group_load_failed,
        "partition=%d offset=%" PRId64 " err=%s effect=\"its groups wait\" retry_s=1", gp->index,
        gp->load_offset, err_name(e));
    if (!s->stopping)
        timer_start(&s->timers, &gp->load_timer, s->now_ns + LOAD_RETRY_NS, load_again);
}

static void load_finish(struct group_partition *gp)
{
    gp->load = LOAD_DONE;
    mem_free(gp->read);
    gp->read = NULL;
    struct group *g, *next;
    u32 count = 0;
    HASH_ITER(hh, gp->coordinator->groups, g, next) {
        if (g->partition != gp)
            continue;
        count++;
        struct member *m, *m_next;
        HASH_ITER(hh, g->members, m, m_next)
            member_session_restart(m);
    }
    if (count)
        LOG(INFO, groups_loaded, "partition=%d groups=%u", gp->index, count);
}

static void group_partition_free(struct group_partition *gp)
{
    mem_free(gp->read);
    mem_free(gp);
}

static void load_read_done(struct read_op *op)
{
    struct group_partition *gp = op->user;
    if (gp->closed) {
        for (u32 i = 0; i < op->extent_count; i++)
            ref_put(op->extents[i].ref);
        group_partition_free(gp);
        return;
    }
    if (op->err != ERR_NONE) {
        load_failed(gp, op->err);
        return;
    }
    if (op->extent_count == 0 || load_take(gp))
        load_next(gp);
    else
        load_failed(gp, ERR_CORRUPT);
}

static void load_moved(struct partition_watch *w)
{
    load_next(container_of(w, struct group_partition, load_watch));
}

static void load_next(struct group_partition *gp)
{
    while (gp->load_offset < gp->load_end) {
        i64 readable = MIN(gp->load_end, partition_high_watermark(gp->partition));
        if (gp->load_offset >= readable) {
            partition_watch(gp->partition, &gp->load_watch, load_moved);
            return;
        }
        struct read_op *op = gp->read;
        memset(op, 0, sizeof *op);
        list_init(&op->link);
        op->user = gp;
        op->p = gp->partition->pindex;
        op->offset = gp->load_offset;
        op->end_offset = readable;
        op->max_bytes = LOAD_CHUNK_BYTES;
        op->at_least_one = true;
        if (storage_read(op, load_read_done) == READ_WAIT)
            return;
        if (op->err == ERR_NONE && op->extent_count == 0) {
            gp->load_offset = readable; /* compaction took away what was left below */
            continue;
        }
        if (op->err != ERR_NONE || !load_take(gp)) {
            load_failed(gp, op->err != ERR_NONE ? op->err : ERR_CORRUPT);
            return;
        }
    }
    load_finish(gp);
}

void coordinator_partition_added(struct broker *b, struct partition *p)
{
    if (!bytes_eq_str(p->topic->name, OFFSETS_TOPIC))
        return;
    struct coordinator *c = b->coordinator;
    struct group_partition *gp = MEM_NEW(struct group_partition);
    gp->index = p->index;
    gp->partition = p;
    gp->coordinator = c;
    gp->load = LOAD_RUNNING;
    gp->load_offset = partition_start(p);
    gp->load_end = pindex_next_offset(p->pindex);
    list_init(&gp->load_watch.link);
    HASH_ADD_INT(c->partitions, index, gp);
    gp->read = MEM_NEW(struct read_op);
    load_next(gp);
}

void coordinator_partition_removed(struct broker *b, struct partition *p)
{
    struct coordinator *c = b->coordinator;
    if (!bytes_eq_str(p->topic->name, OFFSETS_TOPIC))
        return;
    struct group_partition *gp = NULL;
    HASH_FIND_INT(c->partitions, &p->index, gp);
    if (!gp)
        return;
    struct group *g, *next;
    HASH_ITER(hh, c->groups, g, next)
        if (g->partition == gp)
            group_free(g);
    list_for(l, &c->retry) {
        struct group_write *w = list_entry(l, struct group_write, link);
        if (w->partition == gp)
            w->partition = NULL;
    }
    HASH_DELETE(hh, c->partitions, gp);
    gp->partition = NULL;
    gp->closed = true;
    bool reading = gp->load == LOAD_RUNNING && !timer_armed(&gp->load_timer) &&
                   !list_linked(&gp->load_watch.link);
    partition_unwatch(&gp->load_watch);
    timer_stop(&b->shard.timers, &gp->load_timer);
    if (!reading)
        group_partition_free(gp);
}

/* ---- writing ---- */

void group_write_begin(struct coordinator *c)
{
    batch_builder_reset(&c->builder);
}

err group_write_add(struct coordinator *c, struct bytes key, struct bytes value)
{
    return batch_builder_add(&c->builder, c->broker->shard.now_ms, key, value, NULL, 0);
}

static void write_finish(struct group_write *w, err e)
{
    group_memory_count(w->coordinator, &w->counted, 0);
    mem_free(w->batch);
    w->batch = NULL;
    w->err = e;
    w->done(w);
}

static void write_appended(struct partition_append *pa)
{
    struct group_write *w = container_of(pa, struct group_write, append);
    write_finish(w, pa->err);
}

/* ERR_BUSY = try again later. */
static err write_try(struct group_write *w)
{
    struct partition *p = w->partition ? w->partition->partition : NULL;
    if (!p)
        return ERR_NOT_COORDINATOR;
    w->append.append.early = false;
    return partition_append(p, bytes_of(w->batch, w->batch_len), false, NULL, &w->append,
                            write_appended);
}

/* In order: a write that waits keeps those behind it waiting, so that a newer record is never
 * written before an older one. */
static void write_retry(struct timer *t)
{
    struct coordinator *c = container_of(t, struct coordinator, retry_timer);
    struct list *l;
    while ((l = list_pop_front(&c->retry))) {
        struct group_write *w = list_entry(l, struct group_write, link);
        err e = write_try(w);
        if (e == ERR_BUSY && c->broker->shard.now_ns < w->deadline_ns) {
            list_push_front(&c->retry, &w->link);
            break;
        }
        if (e != ERR_NONE)
            write_finish(w, e == ERR_BUSY ? ERR_COORDINATOR_NOT_AVAILABLE : e);
    }
    if (!list_empty(&c->retry))
        timer_start(&c->broker->shard.timers, t, c->broker->shard.now_ns + WRITE_RETRY_NS,
                    write_retry);
}

void group_write_end(struct group_partition *gp, struct group_write *w, group_write_done done)
{
    struct coordinator *c = gp->coordinator;
    struct bytes batch;
    err e = batch_builder_finish(&c->builder, NULL, &batch);
    CHECK(e == ERR_NONE);
    w->coordinator = c;
    w->partition = gp;
    w->done = done;
    w->batch = mem_dup(batch.data, batch.len);
    w->batch_len = batch.len;
    w->counted = 0;
    group_memory_count(c, &w->counted, sizeof *w + batch.len);
    w->deadline_ns = c->broker->shard.now_ns +
                     config_u64(c->broker->node->cfg, CFG_offsets_commit_timeout_ms) * NS_PER_MS;
    list_init(&w->link);
    if (list_empty(&c->retry) && write_try(w) == ERR_NONE)
        return;
    /* No room, or an error: told from the timer, so that done never runs inside. */
    list_push_back(&c->retry, &w->link);
    if (!timer_armed(&c->retry_timer))
        timer_start(&c->broker->shard.timers, &c->retry_timer, c->broker->shard.now_ns + NS_PER_MS,
                    write_retry);
}

/* ---- life ---- */

static void expiry_tick(struct timer *t)
{
    struct coordinator *c = container_of(t, struct coordinator, expiry);
    u64 ms = config_u64(c->broker->node->cfg, CFG_offsets_retention_check_interval_ms);
    if (offsets_expire(c))
        ms = EXPIRY_SLICE_MS;
    timer_start(&c->broker->shard.timers, t, c->broker->shard.now_ns + ms * NS_PER_MS, expiry_tick);
}

void coordinator_start(struct broker *b)
{
    struct coordinator *c = MEM_NEW(struct coordinator);
    c->broker = b;
    b->coordinator = c;
    list_init(&c->retry);
    batch_builder_init(&c->builder, WRITE_BATCH_BYTES);
    u64 every = config_u64(b->node->cfg, CFG_offsets_retention_check_interval_ms) * NS_PER_MS;
    timer_start(&b->shard.timers, &c->expiry, b->shard.now_ns + MIN(every, EXPIRY_FIRST_NS),
                expiry_tick);
}

void coordinator_free(struct broker *b)
{
    struct coordinator *c = b->coordinator;
    if (!c)
        return;
    /* Records of the groups' own (requests have been answered) that found no room in time. */
    for (struct list *l; (l = list_pop_front(&c->retry));)
        write_finish(list_entry(l, struct group_write, link), ERR_COORDINATOR_NOT_AVAILABLE);
    struct group *g, *next;
    HASH_ITER(hh, c->groups, g, next)
        group_free(g);
    struct group_partition *gp, *gp_next;
    HASH_ITER(hh, c->partitions, gp, gp_next) {
        HASH_DELETE(hh, c->partitions, gp);
        timer_stop(&b->shard.timers, &gp->load_timer);
        partition_unwatch(&gp->load_watch);
        group_partition_free(gp);
    }
    timer_stop(&b->shard.timers, &c->expiry);
    timer_stop(&b->shard.timers, &c->retry_timer);
    batch_builder_free(&c->builder);
    mem_free(c);
    b->coordinator = NULL;
}

/* ---- FindCoordinator ---- */

enum { KEY_GROUP = 0, KEY_TRANSACTION = 1, KEY_SHARE = 2 };

typedef struct find_coordinator_response_coordinator found;

static void find_one(struct call *c, struct bytes key, i8 type, err unavailable, found *f)
{
    u32 shard;
    find_coordinator_response_coordinator_init(f);
    f->key = key;
    f->node_id = f->port = -1;
    f->error_message = bytes_str(c->header.request_api_version < 4 ? "NONE" : "");
    err e = unavailable;
    if (type != KEY_GROUP) {
        e = ERR_INVALID_REQUEST;
        f->error_message = bytes_str("Transactions and share groups are not served here.");
    } else if (e == ERR_NONE) { /* "" too: standalone consumers of old commit under it */
        e = coordinator_shard(c->at, key, &shard);
    }
    f->error_code = (i16)e;
    if (e != ERR_NONE) {
        if (type == KEY_GROUP)
            f->error_message = bytes_str(err_text(e));
        return;
    }
    f->node_id = broker_id_of_shard(c->at, shard);
    f->host = bytes_str(c->at->node->host);
    f->port = c->at->node->ports[shard];
}

static void find_answer(struct call *c, err unavailable)
{
    const struct find_coordinator_request *q = CALL_REQ(c, find_coordinator_request);
    struct find_coordinator_response *resp = CALL_RESP(c, find_coordinator_response);
    if (c->header.request_api_version < 4) {
        found f;
        find_one(c, q->key, q->key_type, unavailable, &f);
        resp->error_code = f.error_code;
        resp->error_message = f.error_message;
        resp->node_id = f.node_id;
        resp->host = f.host;
        resp->port = f.port;
        call_done(c);
        return;
    }
    i32 n = MAX(q->coordinator_keys.n, 0);
    resp->coordinators.v = CALL_ARRAY(c, found, n);
    resp->coordinators.n = resp->coordinators.v ? n : 0;
    for (i32 i = 0; i < resp->coordinators.n; i++)
        find_one(c, q->coordinator_keys.v[i], q->key_type, unavailable, &resp->coordinators.v[i]);
    call_done(c);
}

static void find_ensured(struct topic_ensure *te)
{
    struct call *c = te->user;
    find_answer(c, te->err == ERR_NONE ? ERR_NONE : ERR_COORDINATOR_NOT_AVAILABLE);
}

void handle_find_coordinator(struct call *c)
{
    const struct find_coordinator_request *q = CALL_REQ(c, find_coordinator_request);
    if (q->key_type != KEY_GROUP || offsets_topic(c->at)) {
        find_answer(c, ERR_NONE);
        return;
    }
    struct topic_ensure *te = arena_alloc(c->arena, sizeof *te);
    if (!te) {
        call_malformed(c, "request memory limit");
        return;
    }
    topic_ensure(c->at, te, bytes_str(OFFSETS_TOPIC), find_ensured);
    te->user = c;
}
