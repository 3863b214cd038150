/* ListGroups, DescribeGroups, DeleteGroups: over the groups of every shard. */
#include "group_int.h"
#include "named.h"

static void gathered_done(struct scatter *s)
{
    call_done(s->call);
}

/* ---- ListGroups ---- */

typedef struct list_groups_response_listed_group listed;

struct list_item { /* one per shard */
    listed *rows;
    u32 count;
    err err;
};

static bool filter_has(const struct bytes *v, i32 n, const char *word)
{
    if (n <= 0)
        return true;
    for (i32 i = 0; i < n; i++) {
        if (v[i].len != strlen(word))
            continue;
        u32 k = 0;
        while (k < v[i].len && (v[i].data[k] | 0x20) == ((u8)word[k] | 0x20))
            k++;
        if (k == v[i].len)
            return true;
    }
    return false;
}

static void list_part_run(struct part *p)
{
    struct call *c = p->scatter->call;
    struct list_item *it = p->items[0];
    const struct list_groups_request *q = CALL_REQ(c, list_groups_request);
    struct coordinator *k = p->at->coordinator;
    struct group_partition *gp, *gp_next;
    HASH_ITER(hh, k->partitions, gp, gp_next)
        if (gp->load == LOAD_RUNNING)
            it->err = ERR_COORDINATOR_LOAD_IN_PROGRESS;
    it->rows = arena_alloc(&p->arena, HASH_COUNT(k->groups) * sizeof *it->rows);
    struct group *g, *next;
    HASH_ITER(hh, k->groups, g, next) {
        if (!it->rows ||
            !filter_has(q->states_filter.v, q->states_filter.n, group_state_name(g->state)) ||
            !filter_has(q->types_filter.v, q->types_filter.n, "classic"))
            continue;
        listed *r = &it->rows[it->count++];
        list_groups_response_listed_group_init(r);
        r->group_id = arena_copy(&p->arena, g->id);
        r->protocol_type =
            g->protocol_type.data ? arena_copy(&p->arena, g->protocol_type) : bytes_str("");
        r->group_state = bytes_str(group_state_name(g->state));
        r->group_type = bytes_str("classic");
    }
    part_done(p);
}

static void list_gathered(struct scatter *s)
{
    struct call *c = s->call;
    struct list_item *items = c->user;
    struct list_groups_response *resp = CALL_RESP(c, list_groups_response);
    u32 shards = s->home->shard.group->count, total = 0;
    for (u32 i = 0; i < shards; i++)
        total += items[i].count;
    resp->groups.v = CALL_ARRAY(c, listed, total);
    resp->groups.n = 0;
    for (u32 i = 0; i < shards; i++) {
        if (items[i].err != ERR_NONE)
            resp->error_code = (i16)items[i].err;
        for (u32 j = 0; resp->groups.v && j < items[i].count; j++)
            resp->groups.v[resp->groups.n++] = items[i].rows[j];
    }
    call_done(c);
}

void handle_list_groups(struct call *c)
{
    u32 shards = c->at->shard.group->count;
    struct scatter *s = scatter_new(c, list_part_run, list_gathered);
    struct list_item *items = CALL_ARRAY(c, struct list_item, shards);
    bool fits = s && items;
    for (u32 i = 0; fits && i < shards; i++)
        fits = scatter_add(s, i, &items[i]);
    c->user = items;
    if (fits)
        scatter_start(s);
    else
        call_malformed(c, "request memory limit");
}

/* ---- DescribeGroups ---- */

typedef struct describe_groups_response_described_group described;
typedef struct describe_groups_response_described_group_member described_member;

static void describe_members(struct arena *a, const struct group *g, described *r)
{
    r->members.v = arena_alloc(a, (u64)group_size(g) * sizeof *r->members.v);
    r->members.n = 0;
    bool stable = g->state == GROUP_STABLE;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next) {
        if (!r->members.v)
            return;
        described_member *o = &r->members.v[r->members.n++];
        describe_groups_response_described_group_member_init(o);
        o->member_id = arena_copy(a, m->id);
        o->group_instance_id = arena_copy(a, m->instance_id);
        o->client_id = arena_copy(a, m->client_id);
        o->client_host = arena_copy(a, m->client_host);
        for (u32 i = 0; stable && i < m->protocol_count; i++)
            if (bytes_eq(m->protocols[i].name, g->protocol))
                o->member_metadata = arena_copy(a, m->protocols[i].metadata);
        if (stable && m->assignment.data)
            o->member_assignment = arena_copy(a, m->assignment);
    }
}

static void describe_one(struct part *p, described *r)
{
    struct arena *a = &p->arena;
    const struct call *call = p->scatter->call;
    err e;
    struct group_partition *gp = group_partition_of(p->at, r->group_id, &e);
    struct group *g = gp ? group_find(p->at, r->group_id) : NULL;
    if (CALL_REQ(call, describe_groups_request)->include_authorized_operations && gp)
        r->authorized_operations = OPERATIONS_OF_GROUP;
    if (!g) {
        bool newer = call->header.request_api_version >= 6;
        r->error_code = (i16)(gp ? newer ? ERR_GROUP_ID_NOT_FOUND : ERR_NONE : e);
        r->group_state = bytes_str(gp ? "Dead" : "");
        if (gp && newer) {
            r->error_message = bytes_str("The group does not exist.");
            r->authorized_operations = INT32_MIN;
        }
        return;
    }
    r->group_state = bytes_str(group_state_name(g->state));
    r->protocol_type = g->protocol_type.data ? arena_copy(a, g->protocol_type) : bytes_str("");
    if (g->state == GROUP_STABLE)
        r->protocol_data = arena_copy(a, g->protocol);
    describe_members(a, g, r);
}

static void describe_part_run(struct part *p)
{
    for (u32 i = 0; i < p->item_count; i++)
        describe_one(p, p->items[i]);
    part_done(p);
}

void handle_describe_groups(struct call *c)
{
    const struct describe_groups_request *q = CALL_REQ(c, describe_groups_request);
    struct describe_groups_response *resp = CALL_RESP(c, describe_groups_response);
    i32 n = MAX(q->groups.n, 0);
    struct scatter *s = scatter_new(c, describe_part_run, gathered_done);
    resp->groups.v = CALL_ARRAY(c, described, n);
    resp->groups.n = n;
    bool fits = s && resp->groups.v;
    for (i32 i = 0; fits && i < n; i++) {
        described *r = &resp->groups.v[i];
        u32 shard;
        describe_groups_response_described_group_init(r);
        r->group_id = q->groups.v[i];
        r->error_message = (struct bytes){ NULL, 0 };
        err e = coordinator_shard(c->at, r->group_id, &shard);
        r->error_code = (i16)e;
        if (e == ERR_NONE)
            fits = scatter_add(s, shard, r);
    }
    if (fits)
        scatter_start(s);
    else
        call_malformed(c, "request memory limit");
}

/* ---- DeleteGroups ---- */

typedef struct delete_groups_response_deletable_group_result deleted;

struct delete_write {
    struct group_write write;
    struct part *part;
    struct broker *at;
    struct bytes group_id; /* a view into the request */
    deleted *r;
};

static void delete_part_release(struct part *p)
{
    if (--p->outstanding == 0)
        part_done(p);
}

static void delete_written(struct group_write *w)
{
    struct delete_write *dw = container_of(w, struct delete_write, write);
    if (w->err != ERR_NONE)
        dw->r->error_code = ERR_COORDINATOR_NOT_AVAILABLE;
    struct part *p = dw->part;
    delete_part_release(p);
}

static err delete_check(struct broker *at, struct bytes id, struct group **g)
{
    err e;
    if (!group_partition_of(at, id, &e))
        return e;
    *g = group_find(at, id);
    if (!*g)
        return ERR_GROUP_ID_NOT_FOUND;
    return (*g)->state == GROUP_EMPTY ? ERR_NONE : ERR_NON_EMPTY_GROUP;
}

static void delete_one(struct part *p, deleted *r)
{
    struct group *g = NULL;
    err e = delete_check(p->at, r->group_id, &g);
    r->error_code = (i16)e;
    if (e != ERR_NONE) {
        r->error_message = bytes_str(err_text(e));
        return;
    }
    CHECK(g != NULL);
    struct delete_write *dw = arena_alloc(&p->arena, sizeof *dw);
    if (!dw) {
        r->error_code = ERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    *dw = (struct delete_write){ .part = p, .at = p->at, .group_id = r->group_id, .r = r };
    struct group_partition *gp = g->partition;
    struct offset *o, *next;
    group_write_begin(gp->coordinator);
    HASH_ITER(hh, g->offsets, o, next)
        e = e == ERR_NONE ? record_offset_tombstone(gp->coordinator, g, o) : e;
    if (e == ERR_NONE)
        e = record_group_tombstone(gp->coordinator, g);
    if (e != ERR_NONE) {
        r->error_code = ERR_GROUP_DELETION_FAILED;
        return;
    }
    LOG(INFO, group_deleted, "group=%.*s", (int)g->id.len, (const char *)g->id.data);
    group_free(g);
    p->outstanding++;
    group_write_end(gp, &dw->write, delete_written);
}

static void delete_part_run(struct part *p)
{
    p->outstanding = 1;
    for (u32 i = 0; i < p->item_count; i++)
        delete_one(p, p->items[i]);
    delete_part_release(p);
}

void handle_delete_groups(struct call *c)
{
    const struct delete_groups_request *q = CALL_REQ(c, delete_groups_request);
    struct delete_groups_response *resp = CALL_RESP(c, delete_groups_response);
    i32 n = MAX(q->groups_names.n, 0);
    struct scatter *s = scatter_new(c, delete_part_run, gathered_done);
    resp->results.v = CALL_ARRAY(c, deleted, n);
    resp->results.n = 0;
    struct named *names = CALL_ARRAY(c, struct named, n);
    for (i32 i = 0; names && i < n; i++)
        names[i] = (struct named){ q->groups_names.v[i], 0, i };
    const u8 *marks = names ? named_marks(c, names, n) : NULL;
    bool fits = s && resp->results.v && marks;
    for (i32 i = 0; fits && i < n; i++) {
        if (marks[i] & NAMED_BEFORE)
            continue; /* one answer a group */
        deleted *r = &resp->results.v[resp->results.n++];
        u32 shard;
        delete_groups_response_deletable_group_result_init(r);
        r->group_id = q->groups_names.v[i];
        r->error_message = (struct bytes){ NULL, 0 };
        err e = coordinator_shard(c->at, r->group_id, &shard);
        r->error_code = (i16)e;
        if (e == ERR_NONE)
            fits = scatter_add(s, shard, r);
    }
    scatter_start_or_refuse(s, c, fits);
}
