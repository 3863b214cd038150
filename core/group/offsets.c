/* Committed offsets of a group: OffsetCommit, OffsetFetch, OffsetDelete and their expiry.
 *
 * A commit takes effect when its records are durable; of two commits of one partition the later
 * one in the log wins, as after a restart.
 */
#include <stdlib.h>
#include <string.h>

#include "group_int.h"

/* ---- the table ---- */

#define OFFSET_KEY_MAX (4 + 32767)

static u32 offset_key_make(u8 *buf, struct bytes topic, i32 partition)
{
    put_be32(buf, (u32)partition);
    if (topic.len)
        memcpy(buf + 4, topic.data, topic.len);
    return 4 + topic.len;
}

struct bytes offset_topic(const struct offset *o)
{
    return bytes_of(o->key.data + 4, o->key.len - 4);
}

i32 offset_partition(const struct offset *o)
{
    return (i32)get_be32(o->key.data);
}

struct offset *offset_find(struct group *g, struct bytes topic, i32 partition)
{
    u8 buf[4 + 256];
    struct offset *o = NULL;
    if (topic.len > sizeof buf - 4)
        return NULL; /* no topic has such a name */
    u32 len = offset_key_make(buf, topic, partition);
    HASH_FIND(hh, g->offsets, buf, len, o);
    return o;
}

struct offset *offset_put(struct group *g, struct bytes topic, i32 partition)
{
    struct offset *o = offset_find(g, topic, partition);
    if (o)
        return o;
    o = MEM_NEW(struct offset);
    u8 *key = mem_alloc(4 + topic.len);
    o->key = bytes_of(key, offset_key_make(key, topic, partition));
    o->expire_ms = -1;
    HASH_ADD_KEYPTR(hh, g->offsets, o->key.data, o->key.len, o);
    return o;
}

void offset_remove(struct group *g, struct offset *o)
{
    HASH_DELETE(hh, g->offsets, o);
    group_memory_count(g->coordinator, &o->counted, 0);
    bytes_set(&o->metadata, (struct bytes){ NULL, 0 });
    mem_free((void *)(uintptr_t)o->key.data);
    mem_free(o);
}

/* Its topic was deleted; one of the same name that was made since is another one. */
static bool offset_stale(struct broker *b, const struct offset *o)
{
    const struct topic_entry *e = catalog_by_name(b, offset_topic(o));
    return !e || (!uuid_is_zero(o->topic_id) && !uuid_eq(o->topic_id, e->topic->id));
}

/* ---- OffsetCommit ---- */

typedef struct offset_commit_request_offset_commit_request_partition commit_req;
typedef struct offset_commit_response_offset_commit_response_partition commit_result;

struct commit_item {
    struct bytes topic;
    struct uuid topic_id;
    const commit_req *q;
    commit_result *r;
};

struct commit_op {
    struct group_write write;
    struct call *call;
    struct commit_item *items;
    u32 item_count;
    u64 reserved; /* bytes of group memory */
};

/* Who may commit, as Kafka's ClassicGroup.validateOffsetCommit. */
static err commit_check(struct call *c, struct group *g)
{
    const struct offset_commit_request *q = CALL_REQ(c, offset_commit_request);
    i32 generation = q->generation_id_or_member_epoch;
    bool anonymous = generation < 0 && q->member_id.len == 0 && !q->group_instance_id.data;
    if (!g)
        return generation < 0 ? ERR_NONE : ERR_ILLEGAL_GENERATION;
    if (generation < 0 && g->state == GROUP_EMPTY)
        return ERR_NONE;
    if (anonymous)
        return ERR_UNKNOWN_MEMBER_ID; /* the group is managed by its members */
    struct member *m = member_find(g, q->member_id);
    if (q->group_instance_id.data) {
        struct member *s = member_find_static(g, q->group_instance_id);
        if (!s)
            return ERR_UNKNOWN_MEMBER_ID;
        if (s != m)
            return ERR_FENCED_INSTANCE_ID;
    }
    if (!m)
        return ERR_UNKNOWN_MEMBER_ID;
    if (generation != g->generation)
        return ERR_ILLEGAL_GENERATION;
    if (g->state == GROUP_COMPLETING)
        return ERR_REBALANCE_IN_PROGRESS;
    member_session_restart(m);
    return ERR_NONE;
}

static void commit_apply(struct commit_op *op, struct group *g)
{
    const struct offset_commit_request *q = CALL_REQ(op->call, offset_commit_request);
    i64 now = op->call->at->shard.now_ms;
    for (u32 i = 0; i < op->item_count; i++) {
        const struct commit_item *it = &op->items[i];
        struct offset *o = offset_put(g, it->topic, it->q->partition_index);
        o->value = it->q->committed_offset;
        o->leader_epoch = it->q->committed_leader_epoch;
        o->commit_ms = now;
        o->expire_ms = q->retention_time_ms >= 0 ? now + q->retention_time_ms : -1;
        o->topic_id = it->topic_id;
        bytes_set(&o->metadata, it->q->committed_metadata);
        offset_recount(g, o);
    }
    metric_add(op->call->at->shard.metrics, M_offset_commits, op->item_count);
}

static void commit_written(struct group_write *w)
{
    struct commit_op *op = container_of(w, struct commit_op, write);
    const struct offset_commit_request *q = CALL_REQ(op->call, offset_commit_request);
    err e = w->err == ERR_NONE ? ERR_NONE : ERR_COORDINATOR_NOT_AVAILABLE;
    struct group *g = group_find(op->call->at, q->group_id);
    group_memory_release(w->coordinator, op->reserved);
    if (e == ERR_NONE && !g) {
        struct group_partition *gp = group_partition_of(op->call->at, q->group_id, &e);
        g = gp ? group_create(gp, q->group_id) : NULL;
    }
    if (e == ERR_NONE)
        commit_apply(op, g);
    for (u32 i = 0; i < op->item_count; i++)
        op->items[i].r->error_code = (i16)e;
    call_done(op->call);
}

/* The value as it will be; encoded through a temporary offset on the stack. */
static err commit_record(struct coordinator *c, const struct group *g, const struct commit_item *it,
                         i64 now, i64 retention_ms)
{
    u8 key[OFFSET_KEY_MAX];
    struct offset o = {
        .key = bytes_of(key, offset_key_make(key, it->topic, it->q->partition_index)),
        .value = it->q->committed_offset,
        .leader_epoch = it->q->committed_leader_epoch,
        .commit_ms = now,
        .expire_ms = retention_ms >= 0 ? now + retention_ms : -1,
        .metadata = it->q->committed_metadata,
        .topic_id = it->topic_id,
    };
    return record_offset(c, g, &o);
}

/* What the group's table will grow by. */
static u64 commit_memory(const struct commit_op *op)
{
    struct bytes id = CALL_REQ(op->call, offset_commit_request)->group_id;
    struct group *g = group_find(op->call->at, id);
    u64 bytes = g ? 0 : group_memory_of_new(id);
    for (u32 i = 0; i < op->item_count; i++) {
        const struct commit_item *it = &op->items[i];
        struct offset *o = g ? offset_find(g, it->topic, it->q->partition_index) : NULL;
        u64 after = offset_memory_of(it->topic, it->q->committed_metadata);
        u64 before = o ? o->counted : 0;
        bytes += after > before ? after - before : 0;
    }
    return bytes;
}

static void commit_refuse(struct commit_op *op, err e)
{
    for (u32 i = 0; i < op->item_count; i++)
        op->items[i].r->error_code = (i16)e;
    call_done(op->call);
}

static void commit_write(struct commit_op *op, struct group_partition *gp)
{
    struct call *c = op->call;
    const struct offset_commit_request *q = CALL_REQ(c, offset_commit_request);
    struct group named = { .id = q->group_id };
    CHECK(gp != NULL);
    op->reserved = commit_memory(op);
    if (!group_memory_fits(gp->coordinator, op->reserved)) {
        commit_refuse(op, ERR_COORDINATOR_NOT_AVAILABLE);
        return;
    }
    group_write_begin(gp->coordinator);
    u32 kept = 0;
    for (u32 i = 0; i < op->item_count; i++) {
        struct commit_item *it = &op->items[i];
        if (commit_record(gp->coordinator, &named, it, c->at->shard.now_ms, q->retention_time_ms) ==
            ERR_NONE)
            op->items[kept++] = *it;
        else
            it->r->error_code = ERR_INVALID_COMMIT_OFFSET_SIZE;
    }
    op->item_count = kept;
    if (kept == 0) {
        call_done(c);
        return;
    }
    group_memory_reserve(gp->coordinator, op->reserved);
    group_write_end(gp, &op->write, commit_written);
}

static err commit_item_check(struct call *c, struct topic_entry *t, bool by_id, const commit_req *q)
{
    if (!t)
        return by_id ? ERR_UNKNOWN_TOPIC_ID : ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (q->partition_index < 0 || q->partition_index >= t->topic->partition_count)
        return ERR_UNKNOWN_TOPIC_OR_PARTITION;
    i64 limit = config_i64(c->at->node->cfg, CFG_offset_metadata_max_bytes);
    return q->committed_metadata.len > limit ? ERR_OFFSET_METADATA_TOO_LARGE : ERR_NONE;
}

/* Response rows for all; items for what may be written. `whole` != NONE refuses everything. */
static bool commit_rows(struct commit_op *op, err whole)
{
    struct call *c = op->call;
    const struct offset_commit_request *q = CALL_REQ(c, offset_commit_request);
    struct offset_commit_response *resp = CALL_RESP(c, offset_commit_response);
    i32 n = MAX(q->topics.n, 0), total = 0;
    for (i32 i = 0; i < n; i++)
        total += MAX(q->topics.v[i].partitions.n, 0);
    resp->topics.v = CALL_ARRAY(c, struct offset_commit_response_offset_commit_response_topic, n);
    commit_result *r = CALL_ARRAY(c, commit_result, total);
    op->items = CALL_ARRAY(c, struct commit_item, total);
    if (!resp->topics.v || !r || !op->items)
        return false;
    resp->topics.n = n;
    bool by_id = c->header.request_api_version >= 10;
    for (i32 i = 0; i < n; i++) {
        struct offset_commit_response_offset_commit_response_topic *t = &resp->topics.v[i];
        offset_commit_response_offset_commit_response_topic_init(t);
        t->name = q->topics.v[i].name;
        t->topic_id = q->topics.v[i].topic_id;
        t->partitions.v = r;
        t->partitions.n = MAX(q->topics.v[i].partitions.n, 0);
        struct topic_entry *e =
            by_id ? catalog_by_id(c->at, t->topic_id) : catalog_by_name(c->at, t->name);
        for (i32 j = 0; j < t->partitions.n; j++, r++) {
            const commit_req *p = &q->topics.v[i].partitions.v[j];
            offset_commit_response_offset_commit_response_partition_init(r);
            r->partition_index = p->partition_index;
            r->error_code = (i16)(whole != ERR_NONE ? whole : commit_item_check(c, e, by_id, p));
            if (r->error_code == ERR_NONE)
                op->items[op->item_count++] =
                    (struct commit_item){ arena_copy(c->arena, e->topic->name), e->topic->id, p,
                                          r };
        }
    }
    return true;
}

void handle_offset_commit(struct call *c)
{
    const struct offset_commit_request *q = CALL_REQ(c, offset_commit_request);
    struct commit_op *op = arena_alloc(c->arena, sizeof *op);
    err e = ERR_INVALID_GROUP_ID;
    struct group_partition *gp =
        q->group_id.data ? group_partition_of(c->at, q->group_id, &e) : NULL;
    if (gp)
        e = commit_check(c, group_find(c->at, q->group_id));
    if (op)
        op->call = c;
    if (!op || !commit_rows(op, e))
        call_malformed(c, "request memory limit");
    else if (op->item_count == 0)
        call_done(c);
    else
        commit_write(op, gp);
}

/* ---- OffsetFetch: several groups, each at its coordinator ---- */

typedef struct offset_fetch_response_offset_fetch_response_group fetch_group;
typedef struct offset_fetch_response_offset_fetch_response_topics fetch_topic;
typedef struct offset_fetch_response_offset_fetch_response_partitions fetch_row;
typedef struct offset_fetch_request_offset_fetch_request_topics fetch_topic_req;

struct fetch_group_item {
    struct bytes group_id;
    const fetch_topic_req *topics;
    i32 topic_count; /* -1 = all */
    bool by_id;
    fetch_group *r;
};

static void fetch_row_fill(struct arena *a, fetch_row *r, i32 partition, const struct offset *o)
{
    offset_fetch_response_offset_fetch_response_partitions_init(r);
    r->partition_index = partition;
    r->committed_offset = o ? o->value : -1;
    r->committed_leader_epoch = o ? o->leader_epoch : -1;
    r->metadata = o && o->metadata.data ? arena_copy(a, o->metadata) : bytes_str("");
}

static bool fetch_asked(struct broker *b, struct arena *a, struct fetch_group_item *it,
                        struct group *g)
{
    fetch_group *r = it->r;
    r->topics.v = arena_alloc(a, (u64)it->topic_count * sizeof *r->topics.v);
    r->topics.n = 0;
    if (!r->topics.v)
        return false;
    for (i32 i = 0; i < it->topic_count; i++) {
        const fetch_topic_req *q = &it->topics[i];
        fetch_topic *t = &r->topics.v[r->topics.n++];
        offset_fetch_response_offset_fetch_response_topics_init(t);
        t->name = q->name;
        t->topic_id = q->topic_id;
        struct topic_entry *e = it->by_id ? catalog_by_id(b, q->topic_id) : NULL;
        struct bytes name = e ? e->topic->name : q->name;
        i32 n = MAX(q->partition_indexes.n, 0);
        t->partitions.v = arena_alloc(a, (u64)n * sizeof *t->partitions.v);
        t->partitions.n = t->partitions.v ? n : 0;
        for (i32 j = 0; j < t->partitions.n; j++) {
            i32 index = q->partition_indexes.v[j];
            struct offset *o = g ? offset_find(g, name, index) : NULL;
            if (o && offset_stale(b, o))
                o = NULL;
            fetch_row_fill(a, &t->partitions.v[j], index, o);
            if (it->by_id && !e)
                t->partitions.v[j].error_code = ERR_UNKNOWN_TOPIC_ID;
        }
    }
    return true;
}

static int offset_order(const void *a, const void *b)
{
    const struct offset *x = *(const struct offset *const *)a,
                        *y = *(const struct offset *const *)b;
    i32 p = offset_partition(x), q = offset_partition(y);
    int order = bytes_cmp(offset_topic(x), offset_topic(y));
    return order ? order : (p > q) - (p < q);
}

u32 offsets_sorted(struct broker *b, const struct group *g, struct offset **out)
{
    u32 n = 0;
    struct offset *o, *next;
    HASH_ITER(hh, g->offsets, o, next)
        if (!offset_stale(b, o))
            out[n++] = o;
    qsort(out, n, sizeof *out, offset_order);
    return n;
}

static bool fetch_all(struct broker *b, struct arena *a, struct fetch_group_item *it,
                      struct group *g)
{
    fetch_group *r = it->r;
    u32 count = g ? HASH_COUNT(g->offsets) : 0;
    r->topics.v = arena_alloc(a, count * sizeof *r->topics.v);
    fetch_row *rows = arena_alloc(a, count * sizeof *rows);
    struct offset **sorted = arena_alloc(a, count * sizeof *sorted);
    r->topics.n = 0;
    if (!r->topics.v || !rows || !sorted)
        return false;
    u32 n = g ? offsets_sorted(b, g, sorted) : 0;
    fetch_topic *t = NULL;
    for (u32 i = 0; i < n; i++, rows++) {
        struct bytes name = offset_topic(sorted[i]);
        if (!t || !bytes_eq(t->name, name)) {
            t = &r->topics.v[r->topics.n++];
            offset_fetch_response_offset_fetch_response_topics_init(t);
            t->name = arena_copy(a, name);
            if (!t->name.data)
                return false;
            t->topic_id = catalog_by_name(b, name)->topic->id;
            t->partitions.v = rows;
        }
        fetch_row_fill(a, rows, offset_partition(sorted[i]), sorted[i]);
        t->partitions.n++;
    }
    return true;
}

static void fetch_group_run(struct part *p)
{
    struct arena *a = &p->arena;
    for (u32 i = 0; i < p->item_count; i++) {
        struct fetch_group_item *it = p->items[i];
        err e;
        if (!group_partition_of(p->at, it->group_id, &e)) {
            it->r->error_code = (i16)e;
            continue;
        }
        struct group *g = group_find(p->at, it->group_id);
        bool fits = it->topic_count < 0 ? fetch_all(p->at, a, it, g) : fetch_asked(p->at, a, it, g);
        if (!fits)
            it->r->error_code = ERR_UNKNOWN_SERVER_ERROR;
    }
    part_done(p);
}

/* Versions up to 7 have one group and its fields at the top. */
static void fetch_flatten(struct call *c, const fetch_group *g)
{
    struct offset_fetch_response *resp = CALL_RESP(c, offset_fetch_response);
    const struct offset_fetch_request *q = CALL_REQ(c, offset_fetch_request);
    resp->error_code = g->error_code;
    bool failed = g->error_code != ERR_NONE && c->header.request_api_version < 2;
    i32 n = failed ? MAX(q->topics.n, 0) : g->topics.n;
    resp->topics.v = CALL_ARRAY(c, struct offset_fetch_response_offset_fetch_response_topic, n);
    resp->topics.n = resp->topics.v ? n : 0;
    for (i32 i = 0; i < resp->topics.n; i++) {
        struct offset_fetch_response_offset_fetch_response_topic *t = &resp->topics.v[i];
        offset_fetch_response_offset_fetch_response_topic_init(t);
        t->name = failed ? q->topics.v[i].name : g->topics.v[i].name;
        i32 m = failed ? q->topics.v[i].partition_indexes.n : g->topics.v[i].partitions.n;
        t->partitions.v =
            CALL_ARRAY(c, struct offset_fetch_response_offset_fetch_response_partition, m);
        t->partitions.n = t->partitions.v ? m : 0;
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct offset_fetch_response_offset_fetch_response_partition *r = &t->partitions.v[j];
            offset_fetch_response_offset_fetch_response_partition_init(r);
            if (failed) {
                r->partition_index = q->topics.v[i].partition_indexes.v[j];
                r->committed_offset = -1;
                r->error_code = g->error_code;
                continue;
            }
            const fetch_row *row = &g->topics.v[i].partitions.v[j];
            r->partition_index = row->partition_index;
            r->committed_offset = row->committed_offset;
            r->committed_leader_epoch = row->committed_leader_epoch;
            r->metadata = row->metadata;
            r->error_code = row->error_code;
        }
    }
}

static void fetch_groups_done(struct scatter *s)
{
    struct call *c = s->call;
    if (c->header.request_api_version < 8)
        fetch_flatten(c, c->user);
    call_done(c);
}

static bool fetch_group_add(struct scatter *s, struct fetch_group_item *it, fetch_group *r)
{
    u32 shard;
    offset_fetch_response_offset_fetch_response_group_init(r);
    r->group_id = it->group_id;
    it->r = r;
    err e = coordinator_shard(s->home, it->group_id, &shard);
    if (e != ERR_NONE) {
        r->error_code = (i16)e;
        return true;
    }
    return scatter_add(s, shard, it);
}

/* The one group of an old request, in the newer form. */
static bool fetch_old_form(struct call *c, struct fetch_group_item *it)
{
    const struct offset_fetch_request *q = CALL_REQ(c, offset_fetch_request);
    it->group_id = q->group_id;
    it->topic_count = q->topics.n;
    if (q->topics.n < 0)
        return true;
    fetch_topic_req *t = CALL_ARRAY(c, fetch_topic_req, q->topics.n);
    for (i32 i = 0; t && i < q->topics.n; i++) {
        t[i].name = q->topics.v[i].name;
        t[i].partition_indexes.v = q->topics.v[i].partition_indexes.v;
        t[i].partition_indexes.n = q->topics.v[i].partition_indexes.n;
    }
    it->topics = t;
    return t != NULL;
}

void handle_offset_fetch(struct call *c)
{
    const struct offset_fetch_request *q = CALL_REQ(c, offset_fetch_request);
    struct offset_fetch_response *resp = CALL_RESP(c, offset_fetch_response);
    bool old = c->header.request_api_version < 8;
    i32 n = old ? 1 : MAX(q->groups.n, 0);
    struct scatter *s = scatter_new(c, fetch_group_run, fetch_groups_done);
    struct fetch_group_item *items = CALL_ARRAY(c, struct fetch_group_item, n);
    fetch_group *results = CALL_ARRAY(c, fetch_group, n);
    bool fits = s && items && results;
    for (i32 i = 0; fits && i < n; i++) {
        if (old) {
            fits = fetch_old_form(c, &items[i]);
        } else {
            items[i].group_id = q->groups.v[i].group_id;
            items[i].topics = q->groups.v[i].topics.v;
            items[i].topic_count = q->groups.v[i].topics.n;
            items[i].by_id = c->header.request_api_version >= 10;
        }
        fits = fits && fetch_group_add(s, &items[i], &results[i]);
    }
    if (!fits) {
        call_malformed(c, "request memory limit");
        return;
    }
    c->user = results;
    if (!old) {
        resp->groups.v = results;
        resp->groups.n = n;
    }
    scatter_start(s);
}

/* ---- OffsetDelete ---- */

struct offsets_gone { /* tombstones on their way */
    struct group_write write;
    struct call *call; /* NULL: expiry, nobody waits */
};

static void offsets_gone_written(struct group_write *w)
{
    struct offsets_gone *og = container_of(w, struct offsets_gone, write);
    if (og->call) {
        if (w->err != ERR_NONE)
            CALL_RESP(og->call, offset_delete_response)->error_code = ERR_COORDINATOR_NOT_AVAILABLE;
        call_done(og->call);
    }
    mem_free(og);
}

static err delete_whole_check(const struct group *g)
{
    if (!g)
        return ERR_GROUP_ID_NOT_FOUND;
    if (g->state == GROUP_EMPTY)
        return ERR_NONE;
    bool consumers = g->protocol_type.data && bytes_eq_str(g->protocol_type, "consumer");
    return consumers ? ERR_NONE : ERR_NON_EMPTY_GROUP;
}

static u32 delete_rows(struct call *c, struct group *g, const struct subscriptions *read)
{
    const struct offset_delete_request *q = CALL_REQ(c, offset_delete_request);
    struct offset_delete_response *resp = CALL_RESP(c, offset_delete_response);
    u32 gone = 0;
    i32 n = MAX(q->topics.n, 0);
    resp->topics.v = CALL_ARRAY(c, struct offset_delete_response_offset_delete_response_topic, n);
    resp->topics.n = resp->topics.v ? n : 0;
    for (i32 i = 0; i < resp->topics.n; i++) {
        struct offset_delete_response_offset_delete_response_topic *t = &resp->topics.v[i];
        offset_delete_response_offset_delete_response_topic_init(t);
        t->name = q->topics.v[i].name;
        i32 m = MAX(q->topics.v[i].partitions.n, 0);
        t->partitions.v =
            CALL_ARRAY(c, struct offset_delete_response_offset_delete_response_partition, m);
        t->partitions.n = t->partitions.v ? m : 0;
        bool used = subscriptions_name(read, t->name);
        const struct topic_entry *e = catalog_by_name(c->at, t->name);
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct offset_delete_response_offset_delete_response_partition *r = &t->partitions.v[j];
            offset_delete_response_offset_delete_response_partition_init(r);
            r->partition_index = q->topics.v[i].partitions.v[j].partition_index;
            struct offset *o = offset_find(g, t->name, r->partition_index);
            if (!e || r->partition_index < 0 || r->partition_index >= e->topic->partition_count) {
                r->error_code = ERR_UNKNOWN_TOPIC_OR_PARTITION;
            } else if (used) {
                r->error_code = ERR_GROUP_SUBSCRIBED_TO_TOPIC;
            } else if (o && record_offset_tombstone(g->coordinator, g, o) == ERR_NONE) {
                offset_remove(g, o);
                gone++;
            }
        }
    }
    return gone;
}

void handle_offset_delete(struct call *c)
{
    const struct offset_delete_request *q = CALL_REQ(c, offset_delete_request);
    err e;
    struct group_partition *gp = group_partition_of(c->at, q->group_id, &e);
    struct group *g = gp ? group_find(c->at, q->group_id) : NULL;
    if (q->group_id.len == 0)
        e = ERR_INVALID_GROUP_ID;
    else if (gp)
        e = delete_whole_check(g);
    if (e != ERR_NONE) {
        CALL_RESP(c, offset_delete_response)->error_code = (i16)e;
        call_done(c);
        return;
    }
    CHECK(gp != NULL && g != NULL);
    struct subscriptions read;
    subscriptions_read(&read, g);
    group_write_begin(gp->coordinator);
    u32 gone = delete_rows(c, g, &read);
    subscriptions_free(&read);
    if (gone == 0) {
        call_done(c);
        return;
    }
    struct offsets_gone *og = MEM_NEW(struct offsets_gone);
    og->call = c;
    group_write_end(gp, &og->write, offsets_gone_written);
}

/* ---- expiry ---- */

#define EXPIRE_BATCH 1000   /* tombstones of one group at a time: bounds the batch */
#define EXPIRE_SLICE 10000u /* offsets looked at in one step: about a millisecond */

bool group_idle(const struct group *g)
{
    return g->state == GROUP_EMPTY && !g->members && !g->pending && !g->offsets;
}

static bool group_consumes(const struct group *g)
{
    return g->protocol_type.data && bytes_eq_str(g->protocol_type, "consumer");
}

/* Kafka's rules (ClassicGroup.offsetExpirationCondition). A group that never had members (its
 * offsets were committed by standalone consumers) counts from the commit; one that lost them counts
 * from then on. One with members keeps its offsets, but those of topics that its subscription does
 * not name any more. Other than Kafka, an offset that was set while the group was empty (a reset by
 * the tools) is kept for the whole time too. */
bool offset_expired(const struct group *g, const struct subscriptions *read, const struct offset *o)
{
    struct broker *b = g->coordinator->broker;
    i64 now = b->shard.now_ms;
    i64 keep = config_i64(b->node->cfg, CFG_offsets_retention_minutes) * 60000;
    i64 from = o->commit_ms;
    if (offset_stale(b, o))
        return true;
    if (g->state == GROUP_EMPTY && g->protocol_type.data)
        from = MAX(from, g->state_ms);
    else if (g->state != GROUP_EMPTY && (g->state != GROUP_STABLE || !group_consumes(g) ||
                                         subscriptions_name(read, offset_topic(o))))
        return false;
    return now >= (o->expire_ms >= 0 ? o->expire_ms : from + keep);
}

/* Returns how many offsets were looked at; *more: not all that are expired are gone yet. */
static u32 group_expire(struct group *g, bool *more)
{
    u32 gone = 0, seen = HASH_COUNT(g->offsets);
    struct offset *o, *next;
    struct subscriptions read = { NULL, 0, 0 };
    if (seen > 0 && g->state == GROUP_STABLE && group_consumes(g))
        subscriptions_read(&read, g);
    group_write_begin(g->coordinator);
    HASH_ITER(hh, g->offsets, o, next) {
        if (!offset_expired(g, &read, o))
            continue;
        *more = gone == EXPIRE_BATCH;
        if (*more || record_offset_tombstone(g->coordinator, g, o) != ERR_NONE)
            break;
        offset_remove(g, o);
        gone++;
    }
    subscriptions_free(&read);
    u32 records = gone;
    bool idle = group_idle(g);
    if (idle && record_group_tombstone(g->coordinator, g) == ERR_NONE)
        records++;
    if (records) {
        LOG(INFO, offsets_expired, "group=%.*s offsets=%u group_deleted=%s", (int)g->id.len,
            (const char *)g->id.data, gone, idle ? "yes" : "no");
        struct offsets_gone *og = MEM_NEW(struct offsets_gone);
        group_write_end(g->partition, &og->write, offsets_gone_written);
    }
    if (idle)
        group_free(g);
    return seen;
}

bool offsets_expire(struct coordinator *c)
{
    if (!c->expire_at)
        c->expire_at = c->groups;
    for (u32 seen = 0; c->expire_at && seen < EXPIRE_SLICE; seen++) {
        struct group *g = c->expire_at;
        bool more = false;
        c->expire_at = g->hh.next; /* before g may be freed */
        if (g->partition->load == LOAD_DONE)
            seen += group_expire(g, &more);
        if (more) {
            c->expire_at = g;
            break;
        }
    }
    return c->expire_at != NULL;
}
