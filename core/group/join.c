/* JoinGroup, SyncGroup, Heartbeat, LeaveGroup of the classic protocol (KIP-345 static members,
 * KIP-394 member ids before joining, KIP-814 static leader without a rebalance). */
#include <stdio.h>

#include "group_int.h"

/* ---- JoinGroup ---- */

static void join_fail(struct call *c, err e, struct bytes member_id)
{
    struct join_group_response *resp = CALL_RESP(c, join_group_response);
    resp->error_code = (i16)e;
    resp->member_id = member_id;
    resp->protocol_name =
        c->header.request_api_version >= 7 ? (struct bytes){ NULL, 0 } : bytes_str("");
    call_done(c);
}

/* Assignors that one member offers. They are compared with those of all others; clients have a
 * handful. Kafka has no bound, and hash sets. */
#define PROTOCOLS_MAX 256

static bool join_protocols_fit(struct group *g, const struct join_group_request *q)
{
    if (q->protocol_type.len == 0 || q->protocols.n <= 0 || q->protocols.n > PROTOCOLS_MAX)
        return false;
    if (!g || !g->members)
        return true;
    if (!bytes_eq(g->members->protocol_type, q->protocol_type))
        return false;
    for (i32 i = 0; i < q->protocols.n; i++) {
        bool all = true;
        struct member *m, *next;
        HASH_ITER(hh, g->members, m, next) {
            bool has = false;
            for (u32 j = 0; j < m->protocol_count && !has; j++)
                has = bytes_eq(m->protocols[j].name, q->protocols.v[i].name);
            all = all && has;
        }
        if (all)
            return true;
    }
    return false;
}

/* "<client or instance id>-<uuid>", as Kafka makes them. */
static struct bytes join_make_id(struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct uuid u = rng_uuid(&c->at->shard.rng);
    struct bytes prefix = q->group_instance_id.data ? q->group_instance_id : c->header.client_id;
    char *s = arena_printf(
        c->arena, "%.*s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
        (int)prefix.len, prefix.len ? (const char *)prefix.data : "", u.b[0], u.b[1], u.b[2],
        u.b[3], u.b[4], u.b[5], u.b[6], u.b[7], u.b[8], u.b[9], u.b[10], u.b[11], u.b[12], u.b[13],
        u.b[14], u.b[15]);
    return s ? bytes_str(s) : bytes_str("");
}

/* The member waits for the end of the join phase with this call. */
static void member_wait_join(struct member *m, struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct call *before = m->join;
    m->join = NULL;
    if (before)
        join_fail(before, ERR_UNKNOWN_MEMBER_ID, arena_copy(before->arena, m->id));
    member_session_stop(m);
    m->join = c;
    m->session_ms = q->session_timeout_ms;
    m->rebalance_ms =
        q->rebalance_timeout_ms >= 0 ? q->rebalance_timeout_ms : q->session_timeout_ms;
    bytes_set(&m->protocol_type, q->protocol_type);
    bytes_set(&m->client_id, c->header.client_id.data ? c->header.client_id : bytes_str(""));
    char host[80];
    snprintf(host, sizeof host, "/%s", conn_peer(c->request->conn));
    char *colon = strrchr(host, ':');
    if (colon)
        *colon = 0;
    bytes_set(&m->client_host, bytes_str(host));
    member_recount(m);
}

static void join_add(struct group *g, struct call *c, struct bytes id)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct member *m = member_add(g, id, q->group_instance_id);
    member_set_protocols(m, q);
    member_wait_join(m, c);
    group_rebalance(g, "a member joined");
}

/* The current generation, without a new rebalance. */
static void join_current(struct member *m, struct call *c)
{
    member_wait_join(m, c);
    member_answer_join(m);
}

struct static_write { /* a replaced static member is persisted before it is answered */
    struct group_write write;
};

static void static_written(struct group_write *w)
{
    mem_free(container_of(w, struct static_write, write));
}

static void join_replace_static(struct group *g, struct member *m, struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct call *waiting = m->join;
    m->join = NULL;
    if (waiting)
        join_fail(waiting, ERR_FENCED_INSTANCE_ID, arena_copy(waiting->arena, m->id));
    member_answer_sync(m, ERR_FENCED_INSTANCE_ID);
    struct bytes old_id = arena_copy(c->arena, m->id);
    member_rename(m, join_make_id(c));
    bool changed = member_set_protocols(m, q);
    if (g->state != GROUP_STABLE || changed) {
        member_wait_join(m, c);
        group_rebalance(g, "a static member came back");
        return;
    }
    struct static_write *w = MEM_NEW(struct static_write);
    group_write_begin(g->coordinator);
    err e = record_group(g->coordinator, g);
    CHECK(e == ERR_NONE);
    group_write_end(g->partition, &w->write, static_written);
    struct join_group_response *resp = CALL_RESP(c, join_group_response);
    bool leads = bytes_eq(g->leader, m->id), skip = c->header.request_api_version >= 9;
    resp->skip_assignment = leads && skip;
    join_current(m, c);
    if (leads && !skip) {
        /* An older client that sees itself as leader would assign anew: it is told the old id. */
        resp->leader = old_id;
        resp->members.n = 0;
    }
}

static void join_new(struct group *g, struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct member *same = member_find_static(g, q->group_instance_id);
    if (same) {
        join_replace_static(g, same, c);
        return;
    }
    struct bytes id = join_make_id(c);
    if (q->group_instance_id.data || c->header.request_api_version < 4) {
        join_add(g, c, id);
        return;
    }
    pending_add(g, id, q->session_timeout_ms);
    join_fail(c, ERR_MEMBER_ID_REQUIRED, id);
}

static void join_known(struct group *g, struct member *m, struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    bool leads = bytes_eq(g->leader, m->id);
    switch (g->state) {
    case GROUP_PREPARING:
        member_set_protocols(m, q);
        member_wait_join(m, c);
        group_try_complete_join(g);
        break;
    case GROUP_COMPLETING:
        if (member_set_protocols(m, q)) {
            member_wait_join(m, c);
            group_rebalance(g, "a member changed its subscription");
        } else {
            join_current(m, c);
        }
        break;
    case GROUP_STABLE:
        if (member_set_protocols(m, q) || leads) {
            member_wait_join(m, c);
            group_rebalance(g, leads ? "the leader joined again"
                                     : "a member changed its subscription");
        } else {
            join_current(m, c);
        }
        break;
    case GROUP_EMPTY:
    case GROUP_DEAD:
        join_fail(c, ERR_UNKNOWN_MEMBER_ID, q->member_id);
        break;
    }
}

/* A request that names its member: fenced, unknown, or fine (ERR_NONE). */
static err member_check(struct group *g, struct bytes id, struct bytes instance_id,
                        struct member **out)
{
    *out = member_find(g, id);
    if (instance_id.data) {
        struct member *s = member_find_static(g, instance_id);
        if (!s)
            return ERR_UNKNOWN_MEMBER_ID;
        if (!bytes_eq(s->id, id))
            return ERR_FENCED_INSTANCE_ID;
    }
    return *out ? ERR_NONE : ERR_UNKNOWN_MEMBER_ID;
}

/* group.max.size, as Kafka's acceptJoiningMember; a static member that comes back takes the place
 * it had. */
static bool join_accepted(struct group *g, const struct join_group_request *q, u64 max)
{
    if (!g || g->state == GROUP_EMPTY || g->state == GROUP_DEAD)
        return true;
    const struct member *m = member_find(g, q->member_id), *next;
    if (!m)
        m = member_find_static(g, q->group_instance_id);
    if (g->state != GROUP_PREPARING)
        return m || group_size(g) < max;
    if (m && m->join)
        return true;
    u64 joined = 0;
    HASH_ITER(hh, g->members, m, next)
        joined += m->join != NULL;
    return joined < max;
}

static bool join_fits(struct call *c, struct group *g)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    u64 more = member_memory_of(q, c->header.client_id);
    if (!g)
        more += group_memory_of_new(q->group_id);
    const struct member *m = g ? member_find(g, q->member_id) : NULL;
    if (g && !m)
        m = member_find_static(g, q->group_instance_id);
    if (m)
        more = more > m->counted + 256 ? more - m->counted : 0; /* it changes little, or grows */
    return group_memory_fits(c->at->coordinator, more);
}

static err join_check(struct call *c, struct group_partition **gp, struct group **g)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    const struct config *cfg = c->at->node->cfg;
    err e;
    if (q->group_id.len == 0)
        return ERR_INVALID_GROUP_ID;
    *gp = group_partition_of(c->at, q->group_id, &e);
    if (!*gp)
        return e;
    if (q->session_timeout_ms < config_i64(cfg, CFG_group_min_session_timeout_ms) ||
        q->session_timeout_ms > config_i64(cfg, CFG_group_max_session_timeout_ms))
        return ERR_INVALID_SESSION_TIMEOUT;
    *g = group_find(c->at, q->group_id);
    if (!*g && q->member_id.len)
        return ERR_UNKNOWN_MEMBER_ID;
    if (!join_protocols_fit(*g, q))
        return ERR_INCONSISTENT_GROUP_PROTOCOL;
    if (!join_accepted(*g, q, (u64)config_i64(cfg, CFG_group_max_size)))
        return ERR_GROUP_MAX_SIZE_REACHED;
    if (!join_fits(c, *g))
        return ERR_COORDINATOR_NOT_AVAILABLE;
    return ERR_NONE;
}

/* The id it was given is not waited for any more. */
static void join_turn_away(struct group *g, struct bytes member_id)
{
    struct pending_member *p = pending_find(g, member_id);
    if (!p)
        return;
    pending_remove(p);
    group_try_complete_join(g);
}

void handle_join_group(struct call *c)
{
    const struct join_group_request *q = CALL_REQ(c, join_group_request);
    struct group_partition *gp;
    struct group *g = NULL;
    err e = join_check(c, &gp, &g);
    if (e == ERR_GROUP_MAX_SIZE_REACHED)
        join_turn_away(g, q->member_id);
    if (e != ERR_NONE) {
        join_fail(c, e, q->member_id);
        return;
    }
    if (!g)
        g = group_create(gp, q->group_id);
    if (q->member_id.len == 0) {
        join_new(g, c);
        return;
    }
    struct pending_member *p = pending_find(g, q->member_id);
    if (p) {
        struct bytes id = arena_copy(c->arena, p->id);
        pending_remove(p);
        join_add(g, c, id);
        return;
    }
    struct member *m;
    e = member_check(g, q->member_id, q->group_instance_id, &m);
    if (e != ERR_NONE)
        join_fail(c, e, q->member_id);
    else
        join_known(g, m, c);
}

/* ---- SyncGroup ---- */

static void sync_fail(struct call *c, err e)
{
    CALL_RESP(c, sync_group_response)->error_code = (i16)e;
    call_done(c);
}

struct sync_write {
    struct group_write write;
    struct coordinator *coordinator;
    struct bytes group_id; /* owned: the group may be gone when the record is durable */
    i32 generation;
};

static void sync_written(struct group_write *w)
{
    struct sync_write *sw = container_of(w, struct sync_write, write);
    struct group *g = group_find(sw->coordinator->broker, sw->group_id);
    if (g && g->state == GROUP_COMPLETING && g->generation == sw->generation) {
        struct member *m, *next;
        g->writing = false;
        if (w->err == ERR_NONE) {
            timer_stop(&sw->coordinator->broker->shard.timers, &g->rebalance);
            group_set_state(g, GROUP_STABLE);
        }
        HASH_ITER(hh, g->members, m, next)
            member_answer_sync(m, w->err == ERR_NONE ? ERR_NONE : ERR_COORDINATOR_NOT_AVAILABLE);
        if (w->err != ERR_NONE)
            group_rebalance(g, "the assignment could not be written");
    }
    bytes_set(&sw->group_id, (struct bytes){ NULL, 0 });
    mem_free(sw);
}

static void sync_assign(struct group *g, const struct sync_group_request *q)
{
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next) {
        struct bytes a = bytes_str("");
        for (i32 i = 0; i < q->assignments.n; i++)
            if (bytes_eq(q->assignments.v[i].member_id, m->id))
                a = q->assignments.v[i].assignment;
        bytes_set(&m->assignment, a);
        member_recount(m);
    }
    struct sync_write *sw = MEM_NEW(struct sync_write);
    sw->coordinator = g->coordinator;
    sw->generation = g->generation;
    bytes_set(&sw->group_id, g->id);
    g->writing = true;
    group_write_begin(g->coordinator);
    err e = record_group(g->coordinator, g);
    if (e != ERR_NONE)
        LOG(ERROR, group_record_too_large, "group=%.*s members=%u", (int)g->id.len,
            (const char *)g->id.data, group_size(g));
    group_write_end(g->partition, &sw->write, sync_written);
}

/* The assignments that a leader brings. */
static bool sync_fits(struct call *c)
{
    const struct sync_group_request *q = CALL_REQ(c, sync_group_request);
    u64 more = 0;
    for (i32 i = 0; i < q->assignments.n; i++)
        more += q->assignments.v[i].assignment.len;
    return group_memory_fits(c->at->coordinator, more);
}

static err sync_check(struct call *c, struct group **g, struct member **m)
{
    const struct sync_group_request *q = CALL_REQ(c, sync_group_request);
    err e;
    if (q->group_id.len == 0)
        return ERR_INVALID_GROUP_ID;
    if (!group_partition_of(c->at, q->group_id, &e))
        return e == ERR_COORDINATOR_LOAD_IN_PROGRESS ? ERR_REBALANCE_IN_PROGRESS : e;
    *g = group_find(c->at, q->group_id);
    if (!*g)
        return ERR_UNKNOWN_MEMBER_ID;
    e = member_check(*g, q->member_id, q->group_instance_id, m);
    if (e != ERR_NONE)
        return e;
    if (q->generation_id != (*g)->generation)
        return ERR_ILLEGAL_GENERATION;
    /* KIP-559: from version 5 on both must be told. */
    bool told = q->protocol_type.data && q->protocol_name.data;
    if (c->header.request_api_version >= 5 && !told)
        return ERR_INCONSISTENT_GROUP_PROTOCOL;
    if ((q->protocol_type.data && !bytes_eq(q->protocol_type, (*g)->protocol_type)) ||
        (q->protocol_name.data && !bytes_eq(q->protocol_name, (*g)->protocol)))
        return ERR_INCONSISTENT_GROUP_PROTOCOL;
    if ((*g)->state == GROUP_EMPTY || (*g)->state == GROUP_DEAD)
        return ERR_UNKNOWN_MEMBER_ID;
    if ((*g)->state == GROUP_PREPARING)
        return ERR_REBALANCE_IN_PROGRESS;
    if ((*g)->state == GROUP_COMPLETING && bytes_eq((*g)->leader, (*m)->id) && !sync_fits(c))
        return ERR_COORDINATOR_NOT_AVAILABLE;
    return ERR_NONE;
}

void handle_sync_group(struct call *c)
{
    struct group *g = NULL;
    struct member *m = NULL;
    err e = sync_check(c, &g, &m);
    if (e != ERR_NONE) {
        sync_fail(c, e);
        return;
    }
    CHECK(g != NULL && m != NULL);
    member_answer_sync(m, ERR_REBALANCE_IN_PROGRESS); /* an older one of the same member */
    m->sync = c;
    member_session_stop(m);
    if (g->state == GROUP_STABLE)
        member_answer_sync(m, ERR_NONE);
    else if (bytes_eq(g->leader, m->id) && !g->writing)
        sync_assign(g, CALL_REQ(c, sync_group_request));
}

/* ---- Heartbeat ---- */

static err heartbeat(struct call *c)
{
    const struct heartbeat_request *q = CALL_REQ(c, heartbeat_request);
    err e;
    if (q->group_id.len == 0)
        return ERR_INVALID_GROUP_ID;
    if (!group_partition_of(c->at, q->group_id, &e))
        return e == ERR_COORDINATOR_LOAD_IN_PROGRESS ? ERR_NONE
                                                     : e; /* the member is not to blame */
    struct group *g = group_find(c->at, q->group_id);
    struct member *m;
    if (!g)
        return ERR_UNKNOWN_MEMBER_ID;
    e = member_check(g, q->member_id, q->group_instance_id, &m);
    if (e != ERR_NONE)
        return e;
    if (g->state == GROUP_EMPTY || g->state == GROUP_DEAD)
        return ERR_UNKNOWN_MEMBER_ID;
    if (q->generation_id != g->generation)
        return ERR_ILLEGAL_GENERATION;
    member_session_restart(m);
    return g->state == GROUP_PREPARING ? ERR_REBALANCE_IN_PROGRESS : ERR_NONE;
}

void handle_heartbeat(struct call *c)
{
    CALL_RESP(c, heartbeat_response)->error_code = (i16)heartbeat(c);
    call_done(c);
}

/* ---- LeaveGroup ---- */

static err leave_one(struct group *g, struct bytes id, struct bytes instance_id)
{
    struct member *m;
    if (instance_id.data) {
        m = member_find_static(g, instance_id);
        if (!m)
            return ERR_UNKNOWN_MEMBER_ID;
        if (id.len && !bytes_eq(m->id, id))
            return ERR_FENCED_INSTANCE_ID;
    } else {
        struct pending_member *p = pending_find(g, id);
        if (p) {
            pending_remove(p);
            return ERR_NONE;
        }
        m = member_find(g, id);
        if (!m)
            return ERR_UNKNOWN_MEMBER_ID;
    }
    member_remove(m, ERR_UNKNOWN_MEMBER_ID);
    return ERR_NONE;
}

/* `g` NULL: nobody knows the members, which from version 3 on is said of each. */
static err leave_members(struct call *c, struct group *g)
{
    const struct leave_group_request *q = CALL_REQ(c, leave_group_request);
    struct leave_group_response *resp = CALL_RESP(c, leave_group_response);
    err e = ERR_NONE;
    if (c->header.request_api_version < 3) {
        e = g ? leave_one(g, q->member_id, (struct bytes){ NULL, 0 }) : ERR_UNKNOWN_MEMBER_ID;
    } else {
        i32 n = MAX(q->members.n, 0);
        resp->members.v = CALL_ARRAY(c, struct leave_group_response_member_response, n);
        resp->members.n = resp->members.v ? n : 0;
        for (i32 i = 0; i < resp->members.n; i++) {
            struct leave_group_response_member_response *r = &resp->members.v[i];
            leave_group_response_member_response_init(r);
            r->member_id = q->members.v[i].member_id;
            r->group_instance_id = q->members.v[i].group_instance_id;
            r->error_code =
                g ? (i16)leave_one(g, r->member_id, r->group_instance_id) : ERR_UNKNOWN_MEMBER_ID;
        }
    }
    if (g)
        group_members_gone(g);
    return e;
}

void handle_leave_group(struct call *c)
{
    const struct leave_group_request *q = CALL_REQ(c, leave_group_request);
    struct leave_group_response *resp = CALL_RESP(c, leave_group_response);
    err e = ERR_INVALID_GROUP_ID;
    if (q->group_id.len && group_partition_of(c->at, q->group_id, &e))
        e = leave_members(c, group_find(c->at, q->group_id));
    resp->error_code = (i16)e;
    call_done(c);
}

/* ---- clients that are gone ---- */

/* What the client asked to wait for may take as long as it said, weeks: the wait must not outlive
 * it, or it holds memory and keeps a node that stops from stopping. */
void coordinator_call_gone(struct broker *b, struct bytes group, const struct call *call,
                           u64 serial)
{
    struct group *g = b->coordinator ? group_find(b, group) : NULL;
    struct member *m, *next;
    if (!g)
        return;
    HASH_ITER(hh, g->members, m, next) {
        if (m->sync == call && call->serial == serial) {
            member_answer_sync(m, ERR_REBALANCE_IN_PROGRESS);
        } else if (m->join == call && call->serial == serial) {
            m->join = NULL;
            join_fail((struct call *)(uintptr_t)call, ERR_REBALANCE_IN_PROGRESS,
                      (struct bytes){ NULL, 0 });
            member_session_restart(m);
        }
    }
}
