/* Groups and members: the rebalance state machine of the classic protocol and its timers.
 *
 * Invariants:
 *  1. A member has a session timer running, or a join or a sync waiting, never both.
 *  2. In PREPARING the rebalance timer runs; a join phase completes when every member has joined
 *     and no handed-out id is pending, or at the timer; who has not joined by then is removed
 *     (static members stay).
 *  3. In COMPLETING the rebalance timer runs: who has not synced at its end is removed.
 *  4. The generation grows at each completed join phase, and in no other place.
 */
#include "group_int.h"

void bytes_set(struct bytes *field, struct bytes value)
{
    struct bytes old = *field;
    *field = value.data ? bytes_of(mem_dup(value.data, value.len), value.len)
                        : (struct bytes){ NULL, 0 };
    mem_free((void *)(uintptr_t)old.data);
}

static void bytes_drop(struct bytes *field)
{
    bytes_set(field, (struct bytes){ NULL, 0 });
}

static struct broker *group_broker(const struct group *g)
{
    return g->coordinator->broker;
}

static struct timers *group_timers(const struct group *g)
{
    return &group_broker(g)->shard.timers;
}

static u64 group_now(const struct group *g)
{
    return group_broker(g)->shard.now_ns;
}

const char *group_state_name(enum group_state s)
{
    static const char *const names[] = { "Empty", "PreparingRebalance", "CompletingRebalance",
                                         "Stable", "Dead" };
    return names[s];
}

void group_set_state(struct group *g, enum group_state to)
{
    static const u8 from[] = {
        [GROUP_EMPTY] = 1 << GROUP_PREPARING | 1 << GROUP_EMPTY,
        [GROUP_PREPARING] = 1 << GROUP_EMPTY | 1 << GROUP_COMPLETING | 1 << GROUP_STABLE,
        [GROUP_COMPLETING] = 1 << GROUP_PREPARING,
        [GROUP_STABLE] = 1 << GROUP_COMPLETING,
        [GROUP_DEAD] =
            1 << GROUP_EMPTY | 1 << GROUP_PREPARING | 1 << GROUP_STABLE | 1 << GROUP_COMPLETING,
    };
    CHECK(from[to] >> g->state & 1);
    g->state = to;
    g->state_ms = group_broker(g)->shard.now_ms;
    group_recount(g);
}

u32 group_size(const struct group *g)
{
    return HASH_COUNT(g->members);
}

/* ---- life ---- */

struct group *group_create(struct group_partition *gp, struct bytes id)
{
    struct group *g = MEM_NEW(struct group);
    MAGIC_INIT(g, GROUP_MAGIC);
    g->coordinator = gp->coordinator;
    g->partition = gp;
    g->state = GROUP_EMPTY;
    g->state_ms = gp->coordinator->broker->shard.now_ms;
    bytes_set(&g->id, id);
    HASH_ADD_KEYPTR(hh, g->coordinator->groups, g->id.data, g->id.len, g);
    metric_add(group_broker(g)->shard.metrics, M_groups, 1);
    group_recount(g);
    return g;
}

void group_free(struct group *g)
{
    MAGIC_CHECK(g, GROUP_MAGIC);
    struct member *m, *m_next;
    HASH_ITER(hh, g->members, m, m_next)
        member_remove(m, ERR_NOT_COORDINATOR);
    struct pending_member *p, *p_next;
    HASH_ITER(hh, g->pending, p, p_next)
        pending_remove(p);
    struct offset *o, *o_next;
    HASH_ITER(hh, g->offsets, o, o_next)
        offset_remove(g, o);
    timer_stop(group_timers(g), &g->rebalance);
    if (g->coordinator->expire_at == g)
        g->coordinator->expire_at = g->hh.next;
    HASH_DELETE(hh, g->coordinator->groups, g);
    group_memory_count(g->coordinator, &g->counted, 0);
    metric_sub(group_broker(g)->shard.metrics, M_groups, 1);
    bytes_drop(&g->protocol_type);
    bytes_drop(&g->protocol);
    bytes_drop(&g->leader);
    bytes_drop(&g->id);
    MAGIC_POISON(g);
    mem_free(g);
}

/* ---- members ---- */

struct member *member_find(struct group *g, struct bytes id)
{
    struct member *m = NULL;
    if (id.len)
        HASH_FIND(hh, g->members, id.data, id.len, m);
    return m;
}

struct member *member_find_static(struct group *g, struct bytes instance_id)
{
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        if (instance_id.data && m->instance_id.data && bytes_eq(m->instance_id, instance_id))
            return m;
    return NULL;
}

struct member *member_add(struct group *g, struct bytes id, struct bytes instance_id)
{
    struct member *m = MEM_NEW(struct member);
    MAGIC_INIT(m, MEMBER_MAGIC);
    m->group = g;
    m->is_new = true;
    bytes_set(&m->id, id);
    bytes_set(&m->instance_id, instance_id);
    HASH_ADD_KEYPTR(hh, g->members, m->id.data, m->id.len, m);
    if (!g->leader.data)
        bytes_set(&g->leader, id);
    metric_add(group_broker(g)->shard.metrics, M_group_members, 1);
    return m;
}

static void member_drop_protocols(struct member *m)
{
    for (u32 i = 0; i < m->protocol_count; i++) {
        bytes_drop(&m->protocols[i].name);
        bytes_drop(&m->protocols[i].metadata);
    }
    mem_free(m->protocols);
    m->protocols = NULL;
    m->protocol_count = 0;
}

static void member_fail_join(struct member *m, err why)
{
    struct call *c = m->join;
    if (!c)
        return;
    m->join = NULL;
    struct join_group_response *resp = CALL_RESP(c, join_group_response);
    resp->error_code = (i16)why;
    resp->member_id = arena_copy(c->arena, m->id);
    resp->protocol_name =
        c->header.request_api_version >= 7 ? (struct bytes){ NULL, 0 } : bytes_str("");
    call_done(c);
}

void member_remove(struct member *m, err why)
{
    MAGIC_CHECK(m, MEMBER_MAGIC);
    struct group *g = m->group;
    member_fail_join(m, why);
    member_answer_sync(m, why);
    member_session_stop(m); /* the answers armed it */
    HASH_DELETE(hh, g->members, m);
    group_memory_count(g->coordinator, &m->counted, 0);
    metric_sub(group_broker(g)->shard.metrics, M_group_members, 1);
    if (bytes_eq(g->leader, m->id))
        bytes_set(&g->leader, g->members ? g->members->id : (struct bytes){ NULL, 0 });
    member_drop_protocols(m);
    bytes_drop(&m->instance_id);
    bytes_drop(&m->client_id);
    bytes_drop(&m->client_host);
    bytes_drop(&m->protocol_type);
    bytes_drop(&m->assignment);
    bytes_drop(&m->id);
    MAGIC_POISON(m);
    mem_free(m);
}

void member_rename(struct member *m, struct bytes new_id)
{
    struct group *g = m->group;
    bool leads = bytes_eq(g->leader, m->id);
    HASH_DELETE(hh, g->members, m);
    bytes_set(&m->id, new_id);
    HASH_ADD_KEYPTR(hh, g->members, m->id.data, m->id.len, m);
    if (leads)
        bytes_set(&g->leader, new_id);
}

static bool member_has_protocols(const struct member *m, const struct join_group_request *q)
{
    if (m->protocol_count != (u32)q->protocols.n)
        return false;
    for (u32 i = 0; i < m->protocol_count; i++)
        if (!bytes_eq(m->protocols[i].name, q->protocols.v[i].name) ||
            !bytes_eq(m->protocols[i].metadata, q->protocols.v[i].metadata))
            return false;
    return true;
}

/* True when they differ from what the member had. */
bool member_set_protocols(struct member *m, const struct join_group_request *q)
{
    if (m->protocols && member_has_protocols(m, q))
        return false;
    member_drop_protocols(m);
    m->protocol_count = (u32)q->protocols.n;
    m->protocols = mem_alloc((m->protocol_count + 1) * sizeof *m->protocols);
    for (u32 i = 0; i < m->protocol_count; i++) {
        bytes_set(&m->protocols[i].name, q->protocols.v[i].name);
        bytes_set(&m->protocols[i].metadata, q->protocols.v[i].metadata);
    }
    return true;
}

/* ---- sessions ---- */

static void member_expired(struct timer *t)
{
    struct member *m = container_of(t, struct member, session);
    struct group *g = m->group;
    LOG(INFO, group_member_timed_out, "group=%.*s member=%.*s session_ms=%d", (int)g->id.len,
        (const char *)g->id.data, (int)m->id.len, (const char *)m->id.data, m->session_ms);
    metric_add(group_broker(g)->shard.metrics, M_group_evictions, 1);
    member_remove(m, ERR_UNKNOWN_MEMBER_ID);
    group_members_gone(g);
}

void member_session_restart(struct member *m)
{
    struct group *g = m->group;
    if (m->join || m->sync)
        return;
    timer_start(group_timers(g), &m->session, group_now(g) + (u64)MAX(m->session_ms, 1) * NS_PER_MS,
                member_expired);
}

void member_session_stop(struct member *m)
{
    timer_stop(group_timers(m->group), &m->session);
}

struct pending_member *pending_find(struct group *g, struct bytes id)
{
    struct pending_member *p = NULL;
    if (id.len)
        HASH_FIND(hh, g->pending, id.data, id.len, p);
    return p;
}

void pending_remove(struct pending_member *p)
{
    timer_stop(group_timers(p->group), &p->expiry);
    group_memory_count(p->group->coordinator, &p->counted, 0);
    HASH_DELETE(hh, p->group->pending, p);
    bytes_drop(&p->id);
    mem_free(p);
}

static void pending_expired(struct timer *t)
{
    struct pending_member *p = container_of(t, struct pending_member, expiry);
    struct group *g = p->group;
    pending_remove(p);
    group_try_complete_join(g);
    /* Ids are handed out to whoever asks: what was never used leaves nothing behind. */
    if (g->generation == 0 && group_idle(g))
        group_free(g);
}

void pending_add(struct group *g, struct bytes id, i32 session_ms)
{
    struct pending_member *p = MEM_NEW(struct pending_member);
    p->group = g;
    bytes_set(&p->id, id);
    HASH_ADD_KEYPTR(hh, g->pending, p->id.data, p->id.len, p);
    pending_recount(p);
    timer_start(group_timers(g), &p->expiry, group_now(g) + (u64)session_ms * NS_PER_MS,
                pending_expired);
}

/* ---- answers ---- */

static struct bytes member_metadata(const struct member *m, struct bytes protocol)
{
    for (u32 i = 0; i < m->protocol_count; i++)
        if (bytes_eq(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return bytes_str("");
}

/* The leader is told of all members, so that it can assign. */
static void join_fill_members(struct group *g, struct call *c, struct join_group_response *resp)
{
    resp->members.v =
        CALL_ARRAY(c, struct join_group_response_join_group_response_member, group_size(g));
    resp->members.n = 0;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next) {
        if (!resp->members.v)
            return;
        struct join_group_response_join_group_response_member *o =
            &resp->members.v[resp->members.n++];
        join_group_response_join_group_response_member_init(o);
        o->member_id = arena_copy(c->arena, m->id);
        o->group_instance_id = arena_copy(c->arena, m->instance_id);
        o->metadata = arena_copy(c->arena, member_metadata(m, g->protocol));
    }
}

void member_answer_join(struct member *m)
{
    struct call *c = m->join;
    struct group *g = m->group;
    if (!c)
        return;
    m->join = NULL;
    m->is_new = false;
    struct join_group_response *resp = CALL_RESP(c, join_group_response);
    resp->generation_id = g->generation;
    resp->protocol_type = arena_copy(c->arena, g->protocol_type);
    resp->protocol_name = arena_copy(c->arena, g->protocol);
    resp->leader = arena_copy(c->arena, g->leader);
    resp->member_id = arena_copy(c->arena, m->id);
    if (bytes_eq(g->leader, m->id))
        join_fill_members(g, c, resp);
    member_session_restart(m);
    call_done(c);
}

void member_answer_sync(struct member *m, err e)
{
    struct call *c = m->sync;
    struct group *g = m->group;
    if (!c)
        return;
    m->sync = NULL;
    struct sync_group_response *resp = CALL_RESP(c, sync_group_response);
    resp->error_code = (i16)e;
    if (e == ERR_NONE) {
        resp->protocol_type = arena_copy(c->arena, g->protocol_type);
        resp->protocol_name = arena_copy(c->arena, g->protocol);
        if (m->assignment.len)
            resp->assignment = arena_copy(c->arena, m->assignment);
    }
    member_session_restart(m);
    call_done(c);
}

/* ---- rebalance ---- */

static i32 group_rebalance_ms(const struct group *g)
{
    i32 ms = 0;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        ms = MAX(ms, m->rebalance_ms);
    return ms;
}

static bool protocol_of_all(const struct group *g, struct bytes name)
{
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next) {
        bool has = false;
        for (u32 i = 0; i < m->protocol_count && !has; i++)
            has = bytes_eq(m->protocols[i].name, name);
        if (!has)
            return false;
    }
    return true;
}

/* The place of the first of m's protocols among the first member's that all know; -1: none. */
static i32 member_vote(const struct member *m, const struct member *first, const bool *of_all)
{
    for (u32 i = 0; i < m->protocol_count; i++)
        for (u32 j = 0; j < first->protocol_count; j++)
            if (of_all[j] && bytes_eq(m->protocols[i].name, first->protocols[j].name))
                return (i32)j;
    return -1;
}

/* Every member votes; of equal ones the earlier member's. */
static struct bytes group_elect_protocol(const struct group *g)
{
    const struct member *first = g->members;
    struct member *m, *next;
    u32 count = first->protocol_count;
    bool *of_all = mem_alloc(count + 1);
    u32 *votes = mem_alloc((count + 1) * sizeof *votes);
    i32 *chosen = mem_alloc(group_size(g) * sizeof *chosen), best = -1;
    u32 n = 0;
    for (u32 j = 0; j < count; j++)
        of_all[j] = protocol_of_all(g, first->protocols[j].name);
    HASH_ITER(hh, g->members, m, next) {
        chosen[n] = member_vote(m, first, of_all);
        if (chosen[n] >= 0)
            votes[chosen[n]]++;
        n++;
    }
    for (u32 i = 0; i < n; i++)
        if (chosen[i] >= 0 && (best < 0 || votes[chosen[i]] > votes[best]))
            best = chosen[i];
    mem_free(of_all);
    mem_free(votes);
    mem_free(chosen);
    return best >= 0 ? first->protocols[best].name : (struct bytes){ NULL, 0 };
}

static void sync_phase_over(struct timer *t)
{
    struct group *g = container_of(t, struct group, rebalance);
    bool removed = false;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        if (!m->sync) {
            member_remove(m, ERR_UNKNOWN_MEMBER_ID);
            removed = true;
        }
    if (removed || g->state == GROUP_COMPLETING)
        group_members_gone(g);
}

/* An empty group's state is kept too, so that its generation goes on after a restart. */
struct group_empty_write {
    struct group_write write;
};

static void empty_written(struct group_write *w)
{
    mem_free(container_of(w, struct group_empty_write, write));
}

static void group_write_empty(struct group *g)
{
    struct group_empty_write *w = MEM_NEW(struct group_empty_write);
    group_write_begin(g->coordinator);
    err e = record_group(g->coordinator, g);
    CHECK(e == ERR_NONE);
    group_write_end(g->partition, &w->write, empty_written);
}

static void group_next_generation(struct group *g)
{
    timer_stop(group_timers(g), &g->rebalance);
    g->generation = g->generation == INT32_MAX ? 1 : g->generation + 1;
    g->writing = false;
    if (!g->members) {
        bytes_drop(&g->protocol);
        bytes_drop(&g->leader);
        group_set_state(g, GROUP_EMPTY);
        group_write_empty(g);
        return;
    }
    bytes_set(&g->protocol, group_elect_protocol(g));
    bytes_set(&g->protocol_type, g->members->protocol_type);
    group_set_state(g, GROUP_COMPLETING);
    metric_add(group_broker(g)->shard.metrics, M_group_rebalances, 1);
    LOG(INFO, group_rebalanced, "group=%.*s generation=%d members=%u protocol=%.*s", (int)g->id.len,
        (const char *)g->id.data, g->generation, group_size(g), (int)g->protocol.len,
        (const char *)g->protocol.data);
    timer_start(group_timers(g), &g->rebalance,
                group_now(g) + (u64)group_rebalance_ms(g) * NS_PER_MS, sync_phase_over);
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        member_answer_join(m);
}

static void join_phase_over(struct timer *t);

/* The next look at static members that did not come back: a client may have given no time. */
#define JOIN_AGAIN_MS_MIN 100

/* The leader must be among those who joined. False: nobody joined (only static members left). */
static bool group_elect_leader(struct group *g)
{
    struct member *m = member_find(g, g->leader), *next;
    if (m && m->join)
        return true;
    HASH_ITER(hh, g->members, m, next)
        if (m->join) {
            bytes_set(&g->leader, m->id);
            return true;
        }
    return false;
}

static void group_complete_join(struct group *g)
{
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        if (!m->join && !m->instance_id.data)
            member_remove(m, ERR_UNKNOWN_MEMBER_ID);
    if (g->members && !group_elect_leader(g)) {
        u64 ms = MAX((u64)group_rebalance_ms(g), (u64)JOIN_AGAIN_MS_MIN);
        timer_start(group_timers(g), &g->rebalance, group_now(g) + ms * NS_PER_MS, join_phase_over);
        return;
    }
    group_next_generation(g);
}

static u64 initial_delay_ns(const struct group *g)
{
    return config_u64(group_broker(g)->node->cfg, CFG_group_initial_rebalance_delay_ms) * NS_PER_MS;
}

static void join_phase_over(struct timer *t)
{
    struct group *g = container_of(t, struct group, rebalance);
    u64 now = group_now(g);
    if (g->initial_delay && g->member_added && now < g->rebalance_end_ns) {
        g->member_added = false;
        timer_start(group_timers(g), t, MIN(now + initial_delay_ns(g), g->rebalance_end_ns),
                    join_phase_over);
        return;
    }
    g->initial_delay = false;
    group_complete_join(g);
}

void group_try_complete_join(struct group *g)
{
    if (g->state != GROUP_PREPARING || g->initial_delay || g->pending)
        return;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        if (!m->join)
            return;
    group_complete_join(g);
}

void group_rebalance(struct group *g, const char *reason)
{
    if (g->state == GROUP_PREPARING) {
        g->member_added = true;
        group_try_complete_join(g);
        return;
    }
    LOG(INFO, group_rebalancing, "group=%.*s generation=%d state=%s reason=\"%s\"", (int)g->id.len,
        (const char *)g->id.data, g->generation, group_state_name(g->state), reason);
    struct member *m, *next;
    if (g->state == GROUP_COMPLETING)
        HASH_ITER(hh, g->members, m, next) {
            bytes_drop(&m->assignment);
            member_recount(m);
            member_answer_sync(m, ERR_REBALANCE_IN_PROGRESS);
        }
    g->initial_delay = g->state == GROUP_EMPTY && initial_delay_ns(g) > 0;
    g->member_added = false;
    u64 now = group_now(g), longest = (u64)group_rebalance_ms(g) * NS_PER_MS;
    g->rebalance_end_ns = now + longest;
    group_set_state(g, GROUP_PREPARING);
    u64 first = g->initial_delay ? MIN(longest, initial_delay_ns(g)) : longest;
    timer_start(group_timers(g), &g->rebalance, now + first, join_phase_over);
    group_try_complete_join(g);
}

void group_members_gone(struct group *g)
{
    if (g->state == GROUP_STABLE || g->state == GROUP_COMPLETING)
        group_rebalance(g, "a member left or failed");
    else
        group_try_complete_join(g);
}
