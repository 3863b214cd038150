/* The members of a consumer group, by the classic protocol: join, sync, heartbeats, now and then a
 * leave or a commit. What must hold: a generation has one leader; everyone gets the assignment its
 * own generation's leader made for it; a commit of an older generation is refused. */
#include <stdio.h>
#include <string.h>

#include "load.h"
#include "requests.h"

#define GROUP "group-2"
#define MEMBERS 3
#define ID_MAX 96
#define GENERATIONS_MAX 4096

enum member_step { MEMBER_FIND, MEMBER_JOIN, MEMBER_SYNC, MEMBER_STABLE };

struct gmember {
    struct client c;
    enum member_step step;
    char id[ID_MAX]; /* given by the coordinator */
    i32 generation;
    bool leader;
    bool outdated; /* the commit under way is of an older generation */
    u32 known;     /* leader: members of the generation */
    char others[MEMBERS * 4][ID_MAX];
};
static struct gmember members[MEMBERS];
static i32 newest; /* generation that somebody has an assignment of */

/* A coordinator keeps a generation when its assignments are written: one that a kill cut short
 * before may come again, with another leader. */
static struct generation {
    char leader[ID_MAX]; /* "" unknown */
    u32 life;            /* of the node that told it */
    bool assigned;
} generations[GENERATIONS_MAX];

static void go(void *arg, u64 x);

static void later(struct gmember *m, u64 max_ns)
{
    /* Heartbeats go on at low tide: a group without members and offsets is forgotten. */
    u64 ns = tide_is_low() ? rnd_between(NS_PER_S, 3 * NS_PER_S) : rnd_log(NS_PER_MS, max_ns);
    sim_after(ns, go, m, m->c.answered);
}

/* What every answer may say. True: it did, and the member knows what to do. */
static bool usual(struct gmember *m, err e)
{
    switch ((int)e) {
    case ERR_UNKNOWN_MEMBER_ID:
        m->id[0] = 0;
        m->step = MEMBER_JOIN;
        return true;
    case ERR_ILLEGAL_GENERATION:
    case ERR_REBALANCE_IN_PROGRESS:
        m->step = MEMBER_JOIN;
        return true;
    case ERR_COORDINATOR_NOT_AVAILABLE:
    case ERR_NOT_COORDINATOR:
        m->step = MEMBER_FIND;
        return true;
    case ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case ERR_KAFKA_STORAGE_ERROR:
    case ERR_REQUEST_TIMED_OUT:
    case ERR_UNKNOWN_SERVER_ERROR:
        return true;
    default:
        return false;
    }
}

static void unexpected(const struct gmember *m, const char *what, err e)
{
    sim_fail("group: %s: %s is answered with %s", m->c.name, what, err_name(e));
}

/* ---- find ---- */

static void found(struct rpc *r, const void *answer)
{
    const struct find_coordinator_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    if (resp->error_code == ERR_NONE)
        m->step = MEMBER_JOIN;
    later(m, 100 * NS_PER_MS);
}

static void find(struct gmember *m)
{
    struct find_coordinator_request q;
    find_coordinator_request_init(&q);
    q.key = bytes_str(GROUP);
    client_call(&m->c, 10, (i16)rnd_between(0, 3), &q, found, m);
}

/* ---- join ---- */

static void id_copy(char *to, struct bytes id)
{
    if (id.len >= ID_MAX)
        sim_fail("group: a member id of %u bytes", id.len);
    snprintf(to, ID_MAX, "%.*s", (int)id.len, (const char *)id.data);
}

static void generation_seen(struct gmember *m, const struct join_group_response *resp)
{
    char leader[ID_MAX];
    id_copy(leader, resp->leader);
    m->generation = resp->generation_id;
    if (m->generation < 0 || m->generation >= GENERATIONS_MAX)
        sim_fail("group: generation %d", m->generation);
    struct generation *g = &generations[m->generation];
    if (*g->leader && (g->assigned || g->life == sim.life) && strcmp(g->leader, leader) != 0)
        sim_fail("group: generation %d has two leaders, %s and %s", m->generation, g->leader,
                 leader);
    memcpy(g->leader, leader, sizeof leader);
    g->life = sim.life;
    m->leader = strcmp(leader, m->id) == 0;
    if (m->leader != (resp->members.n > 0))
        sim_fail("group: %s of generation %d is told of %d members",
                 m->leader ? "the leader" : "a follower", m->generation, resp->members.n);
    m->known = 0;
    for (i32 i = 0; i < resp->members.n && m->known < ARRAY_COUNT(m->others); i++)
        id_copy(m->others[m->known++], resp->members.v[i].member_id);
}

static void joined(struct rpc *r, const void *answer)
{
    const struct join_group_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    err e = (err)resp->error_code;
    TRACE("%s: join: %s generation %d", m->c.name, err_name(e), resp->generation_id);
    if (e == ERR_NONE || e == ERR_MEMBER_ID_REQUIRED)
        id_copy(m->id, resp->member_id);
    if (e == ERR_NONE) {
        generation_seen(m, resp);
        m->step = MEMBER_SYNC;
    } else if (e != ERR_MEMBER_ID_REQUIRED && !usual(m, e)) {
        unexpected(m, "join", e);
    }
    later(m, 20 * NS_PER_MS);
}

static void join(struct gmember *m)
{
    struct join_group_request q;
    struct join_group_request_join_group_request_protocol p = { .name = bytes_str("range"),
                                                                .metadata = bytes_str("m") };
    join_group_request_init(&q);
    q.group_id = bytes_str(GROUP);
    q.session_timeout_ms = 6000;
    q.rebalance_timeout_ms = 5000;
    q.member_id = bytes_str(m->id);
    q.protocol_type = bytes_str("consumer");
    q.protocols.v = &p;
    q.protocols.n = 1;
    client_call(&m->c, 11, (i16)rnd_between(2, 9), &q, joined, m);
}

/* ---- sync ---- */

static void assignment_of(char *buf, size_t size, i32 generation, const char *id)
{
    snprintf(buf, size, "%d %s", generation, id);
}

static void synced(struct rpc *r, const void *answer)
{
    const struct sync_group_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    err e = (err)resp->error_code;
    TRACE("%s: sync: %s", m->c.name, err_name(e));
    if (e == ERR_NONE) {
        char want[ID_MAX + 16];
        assignment_of(want, sizeof want, m->generation, m->id);
        if (!bytes_eq_str(resp->assignment, want))
            sim_fail("group: %s gets \"%.*s\" instead of \"%s\"", m->c.name,
                     (int)resp->assignment.len, (const char *)resp->assignment.data, want);
        m->step = MEMBER_STABLE;
        newest = MAX(newest, m->generation);
        generations[m->generation].assigned = true;
    } else if (!usual(m, e)) {
        unexpected(m, "sync", e);
    }
    later(m, 100 * NS_PER_MS);
}

static void sync_group(struct gmember *m)
{
    struct sync_group_request q;
    struct sync_group_request_sync_group_request_assignment a[ARRAY_COUNT(m->others)];
    static char text[ARRAY_COUNT(m->others)][ID_MAX + 16];
    sync_group_request_init(&q);
    q.group_id = bytes_str(GROUP);
    q.generation_id = m->generation;
    q.member_id = bytes_str(m->id);
    q.protocol_type = bytes_str("consumer");
    q.protocol_name = bytes_str("range");
    q.assignments.v = a;
    for (u32 i = 0; m->leader && i < m->known; i++) {
        sync_group_request_sync_group_request_assignment_init(&a[i]);
        assignment_of(text[i], sizeof text[i], m->generation, m->others[i]);
        a[i].member_id = bytes_str(m->others[i]);
        a[i].assignment = bytes_str(text[i]);
        q.assignments.n++;
    }
    client_call(&m->c, 14, (i16)rnd_between(0, 5), &q, synced, m);
}

/* ---- stable ---- */

static void beat(struct rpc *r, const void *answer)
{
    const struct heartbeat_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    err e = (err)resp->error_code;
    if (e != ERR_NONE && !usual(m, e))
        unexpected(m, "heartbeat", e);
    later(m, NS_PER_S);
}

static void heartbeat(struct gmember *m)
{
    struct heartbeat_request q;
    heartbeat_request_init(&q);
    q.group_id = bytes_str(GROUP);
    q.generation_id = m->generation;
    q.member_id = bytes_str(m->id);
    client_call(&m->c, 12, (i16)rnd_between(0, 4), &q, beat, m);
}

static void committed(struct rpc *r, const void *answer)
{
    const struct offset_commit_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    err e = (err)resp->topics.v[0].partitions.v[0].error_code;
    if (e != ERR_NONE && !usual(m, e))
        unexpected(m, "commit", e);
    if (e == ERR_NONE && m->outdated) /* a newer generation was told before this was sent */
        sim_fail("group: a commit of generation %d is taken, although there is %d", m->generation,
                 newest);
    m->outdated = false;
    later(m, NS_PER_S);
}

static void commit(struct gmember *m)
{
    struct offset_commit_one one;
    struct offset_commit_request *q =
        offset_commit_one(&one, GROUP, (struct topic_named){ topics[0].name, topics[0].id }, 1);
    q->generation_id_or_member_epoch = m->generation;
    q->member_id = bytes_str(m->id);
    m->outdated = m->generation < newest;
    client_call(&m->c, 8, (i16)rnd_between(5, 9), q, committed, m);
}

static void left(struct rpc *r, const void *answer)
{
    const struct leave_group_response *resp = answer;
    struct gmember *m = r->user;
    if (!resp)
        return;
    m->id[0] = 0;
    m->step = MEMBER_JOIN;
    later(m, NS_PER_S);
}

static void leave(struct gmember *m)
{
    struct leave_group_request q;
    struct leave_group_request_member_identity who;
    leave_group_request_init(&q);
    leave_group_request_member_identity_init(&who);
    q.group_id = bytes_str(GROUP);
    q.member_id = bytes_str(m->id);
    who.member_id = bytes_str(m->id);
    q.members.v = &who;
    q.members.n = 1;
    client_call(&m->c, 13, (i16)rnd_between(0, 5), &q, left, m);
}

static void go(void *arg, u64 x)
{
    struct gmember *m = arg;
    if (!m->c.up || m->c.pending > 0 || m->c.answered != x)
        return;
    if (!topics_ready) {
        later(m, 100 * NS_PER_MS);
        return;
    }
    switch (m->step) {
    case MEMBER_FIND:
        find(m);
        break;
    case MEMBER_JOIN:
        join(m);
        break;
    case MEMBER_SYNC:
        sync_group(m);
        break;
    case MEMBER_STABLE:
        if (one_in(20) && !load_quiet)
            leave(m);
        else if (one_in(3) && !load_quiet)
            commit(m);
        else
            heartbeat(m);
        break;
    }
}

static void ready(struct client *c)
{
    struct gmember *m = c->user;
    if (m->step != MEMBER_STABLE)
        m->step = MEMBER_FIND;
    later(m, 10 * NS_PER_MS);
}

static void lost(struct client *c)
{
    (void)c;
}

void group_start(void)
{
    for (u32 i = 0; i < MEMBERS; i++) {
        char name[32];
        snprintf(name, sizeof name, "member-%u", i);
        client_init(&members[i].c, name, &members[i], ready, lost);
        members[i].c.timeout_ns = 30 * NS_PER_S; /* a join waits for the others */
        client_connect(&members[i].c);
    }
}

/* All know the same generation, and have for a while. */
bool group_stable(void)
{
    for (u32 i = 0; load_plan.group && i < MEMBERS; i++)
        if (members[i].step != MEMBER_STABLE || members[i].generation != members[0].generation)
            return false;
    return true;
}

void group_describe(char *buf, size_t size)
{
    static const char *const names[] = { "find", "join", "sync", "stable" };
    size_t at = strlen(buf);
    for (u32 i = 0; load_plan.group && i < MEMBERS && at < size; i++)
        at +=
            (size_t)snprintf(buf + at, size - at, " member-%u: %s %d%s", i, names[members[i].step],
                             members[i].generation, members[i].c.pending ? ", waits" : "");
}
