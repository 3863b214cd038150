/* One call over the partitions of several shards; see broker.h. The parts live in the call's
 * arena, which nobody frees before every part is home. An owner allocates from its part's own
 * arena: several owners work at the same time. */
#include "broker.h"
#include "check.h"

#define PART_ARENA_BLOCK 8192u

struct scatter *scatter_new(struct call *c, part_fn run, void (*done)(struct scatter *s))
{
    struct scatter *s = arena_alloc(c->arena, sizeof *s);
    if (!s)
        return NULL;
    *s = (struct scatter){ .call = c, .home = c->at, .run = run, .done = done };
    s->parts = arena_alloc(c->arena, s->home->shard.group->count * sizeof(struct part *));
    if (!s->parts)
        return NULL;
    s->next = c->scatters;
    c->scatters = s;
    return s;
}

void scatter_free_all(struct call *c)
{
    for (struct scatter *s = c->scatters; s; s = s->next)
        for (u32 i = 0; i < s->home->shard.group->count; i++)
            if (s->parts[i])
                arena_free(&s->parts[i]->arena);
    c->scatters = NULL;
}

static struct part *scatter_part(struct scatter *s, u32 shard)
{
    if (!s->parts[shard]) {
        struct part *p = arena_alloc(s->call->arena, sizeof *p);
        if (p) {
            p->scatter = s;
            arena_init(&p->arena, PART_ARENA_BLOCK, s->call->arena->limit_bytes);
        }
        s->parts[shard] = p;
    }
    return s->parts[shard];
}

bool scatter_add(struct scatter *s, u32 shard, void *item)
{
    CHECK(shard < s->home->shard.group->count);
    struct part *p = scatter_part(s, shard);
    if (!p)
        return false;
    if (p->item_count == p->item_cap) {
        u32 cap = p->item_cap ? 2 * p->item_cap : 8;
        void **items = arena_alloc(s->call->arena, cap * sizeof(void *));
        if (!items)
            return false;
        if (p->item_count)
            memcpy(items, p->items, p->item_count * sizeof(void *));
        p->items = items;
        p->item_cap = cap;
    }
    p->items[p->item_count++] = item;
    return true;
}

static void part_arrived(struct shard *at, struct msg *m)
{
    struct part *p = container_of(m, struct part, msg);
    p->at = broker_of(at);
    p->scatter->run(p);
}

static void scatter_take(struct part *p)
{
    if (p->scatter->arrived)
        p->scatter->arrived(p);
}

static void scatter_gather(struct scatter *s)
{
    CHECK(s->outstanding > 0);
    if (--s->outstanding == 0)
        s->done(s);
}

static void part_home(struct shard *at, struct msg *m)
{
    (void)at;
    struct part *p = container_of(m, struct part, msg);
    scatter_take(p);
    scatter_gather(p->scatter);
}

void scatter_start(struct scatter *s)
{
    u32 own = s->home->shard.index, count = s->home->shard.group->count;
    s->outstanding = 1; /* held until every part is on its way */
    for (u32 i = 0; i < count; i++)
        s->outstanding += s->parts[i] != NULL;
    for (u32 i = 0; i < count; i++)
        if (s->parts[i] && i != own)
            shard_send(&s->home->shard, i, &s->parts[i]->msg, part_arrived);
    if (s->parts[own])
        part_arrived(&s->home->shard, &s->parts[own]->msg);
    scatter_gather(s);
}

void scatter_start_or_refuse(struct scatter *s, struct call *c, bool fits)
{
    if (fits)
        scatter_start(s);
    else
        call_malformed(c, "request memory limit");
}

void scatter_answer(struct scatter *s)
{
    call_done(s->call);
}

void part_done(struct part *p)
{
    struct scatter *s = p->scatter;
    if (p->at == s->home) {
        scatter_take(p);
        scatter_gather(s);
    } else {
        shard_send(&p->at->shard, s->home->shard.index, &p->msg, part_home);
    }
}
