/* Memory of the groups of one shard: each object is counted with what it owns, and the sum is held
 * below the shard's part of group.memory.
 *
 * What a request would add is asked for first (group_memory_fits); where it does not fit the
 * request is refused with COORDINATOR_NOT_AVAILABLE, which every client repeats after a pause. What
 * is there already is never refused or dropped: members stay, offsets are kept until they expire,
 * and a log that holds more than the bound (it was lowered) is loaded as it is. The tables'
 * overhead is counted as a constant, so the sum is near the truth, not equal to it.
 *
 * Not counted, because bounded elsewhere: requests that wait for a rebalance (net.request_memory).
 */
#include "group_int.h"

/* uthash's table with its first buckets; a group has up to three, and each offset or member adds a
 * share of a bucket. */
#define TABLE_BYTES 600u
#define BLOCK_BYTES 16u /* the allocator's, for each block */

static u64 owned(struct bytes b)
{
    return b.data ? b.len + BLOCK_BYTES : 0;
}

void group_memory_count(struct coordinator *c, u64 *counted, u64 bytes)
{
    CHECK(c->memory >= *counted);
    c->memory = c->memory - *counted + bytes;
    *counted = bytes;
    metric_set(c->broker->shard.metrics, M_group_memory_bytes, c->memory + c->reserved);
}

bool group_memory_fits(struct coordinator *c, u64 more)
{
    const struct broker *b = c->broker;
    u64 bound = config_u64(b->node->cfg, CFG_group_memory) / b->shard.group->count;
    if (more == 0 || c->memory + c->reserved + more <= bound)
        return true;
    metric_add(b->shard.metrics, M_group_refused, 1);
    LOG(WARN, group_memory_full,
        "shard=%u bytes=%" PRIu64 " more=%" PRIu64 " bound=%" PRIu64
        " effect=\"joins and commits that need more are refused\" remedy=\"raise group.memory\"",
        b->shard.index, c->memory + c->reserved, more, bound);
    return false;
}

void group_memory_reserve(struct coordinator *c, u64 bytes)
{
    c->reserved += bytes;
    metric_set(c->broker->shard.metrics, M_group_memory_bytes, c->memory + c->reserved);
}

void group_memory_release(struct coordinator *c, u64 bytes)
{
    CHECK(c->reserved >= bytes);
    c->reserved -= bytes;
    metric_set(c->broker->shard.metrics, M_group_memory_bytes, c->memory + c->reserved);
}

/* ---- objects ---- */

u64 group_memory_of_new(struct bytes id)
{
    return sizeof(struct group) + 3 * TABLE_BYTES + owned(id);
}

void group_recount(struct group *g)
{
    group_memory_count(g->coordinator, &g->counted,
                       group_memory_of_new(g->id) + owned(g->protocol_type) + owned(g->protocol) +
                           owned(g->leader));
}

void member_recount(struct member *m)
{
    u64 bytes = sizeof *m + owned(m->id) + owned(m->instance_id) + owned(m->client_id) +
                owned(m->client_host) + owned(m->protocol_type) + owned(m->assignment);
    for (u32 i = 0; i < m->protocol_count; i++)
        bytes +=
            sizeof m->protocols[i] + owned(m->protocols[i].name) + owned(m->protocols[i].metadata);
    group_memory_count(m->group->coordinator, &m->counted, bytes);
}

/* What a member will be counted with; a little more when its id is not made yet. */
u64 member_memory_of(const struct join_group_request *q, struct bytes client_id)
{
    u64 bytes = sizeof(struct member) + 8 * BLOCK_BYTES + 2 * client_id.len +
                2 * q->group_instance_id.len + q->protocol_type.len + 128;
    for (i32 i = 0; i < q->protocols.n; i++)
        bytes += sizeof(struct protocol) + owned(q->protocols.v[i].name) +
                 owned(q->protocols.v[i].metadata);
    return bytes;
}

void pending_recount(struct pending_member *p)
{
    group_memory_count(p->group->coordinator, &p->counted, sizeof *p + owned(p->id));
}

u64 offset_memory_of(struct bytes topic, struct bytes metadata)
{
    return sizeof(struct offset) + sizeof(u32) + topic.len + BLOCK_BYTES + owned(metadata);
}

void offset_recount(struct group *g, struct offset *o)
{
    group_memory_count(g->coordinator, &o->counted, offset_memory_of(offset_topic(o), o->metadata));
}
