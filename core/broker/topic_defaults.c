/* The broker's topic defaults changed on the running node (log.retention.ms, message.max.bytes, …):
 * topics that do not override them follow.
 *
 *   any thread: topic_defaults_changed ──post──► controller: one task
 *     ─► all topics, CHUNK at a time: those whose values differ get a new version
 *     ─► each shard puts the chunk into its tables ─► all acknowledged: the old versions are freed
 *
 * Topics are immutable once published and shared by all shards, so their values can not simply be
 * written: a reader would see half a change. Nothing is stored: the overrides are what they were.
 * A change that comes while a round is under way starts another one after it.
 */
#include <pthread.h>

#include "broker_int.h"
#include "check.h"
#include "controller_int.h"
#include "log.h"

#define CHUNK 256u /* topics of one step: well below a millisecond on every shard */

struct topic_swap {
    const struct topic *old;
    struct topic *next;
};

struct topic_swaps { /* on its way to one shard */
    struct msg msg;
    struct topic_defaults *d;
};

struct topic_defaults {
    struct node *node;
    pthread_mutex_t lock; /* among outsiders: nobody posts any more once `closed` is set */
    bool closed;
    bool posted; /* atomic: msg is on its way to the controller */
    struct msg msg;
    /* the controller's */
    struct controller_task task;
    bool running, again;
    const struct topic **topics; /* of this round */
    u32 topic_count, at, changed;
    struct topic_swap swaps[CHUNK];
    u32 swap_count;
    struct topic_swaps *out; /* one per shard */
    u32 acks_missing;
};

static struct broker *controller_of(const struct topic_defaults *d)
{
    return d->node->brokers[CONTROLLER_SHARD];
}

void topic_defaults_open(struct node *n)
{
    struct topic_defaults *d = MEM_NEW(struct topic_defaults);
    d->node = n;
    pthread_mutex_init(&d->lock, NULL);
    d->out = mem_alloc(n->group.count * sizeof *d->out);
    n->defaults = d;
}

void topic_defaults_free(struct node *n)
{
    struct topic_defaults *d = n->defaults;
    if (!d)
        return;
    CHECK(!d->running);
    pthread_mutex_destroy(&d->lock);
    mem_free(d->out);
    mem_free(d);
    n->defaults = NULL;
}

/* ---- the round ---- */

static void chunk_step(struct topic_defaults *d);
static void round_run(struct controller_task *task);

static void round_end(struct topic_defaults *d)
{
    struct broker *b = controller_of(d);
    LOG(INFO, topic_defaults_applied, "topics=%u changed=%u", d->topic_count, d->changed);
    mem_free(d->topics);
    d->topics = NULL;
    d->running = d->again && !b->shard.stopping;
    if (d->running)
        controller_enter(b, &d->task, round_run); /* behind the tasks that wait already */
    controller_next(b);
}

static void chunk_acked(struct shard *at, struct msg *m)
{
    (void)at;
    struct topic_defaults *d = container_of(m, struct topic_swaps, msg)->d;
    CHECK(d->acks_missing > 0);
    if (--d->acks_missing > 0)
        return;
    for (u32 i = 0; i < d->swap_count; i++)
        topic_free((struct topic *)(uintptr_t)d->swaps[i].old);
    chunk_step(d);
}

static void chunk_apply(struct shard *at, struct msg *m)
{
    const struct topic_defaults *d = container_of(m, struct topic_swaps, msg)->d;
    for (u32 i = 0; i < d->swap_count; i++)
        catalog_apply(broker_of(at), d->swaps[i].old, d->swaps[i].next);
    shard_send(at, CONTROLLER_SHARD, m, chunk_acked);
}

static void chunk_publish(struct topic_defaults *d)
{
    struct shard *s = &controller_of(d)->shard;
    d->acks_missing = s->group->count;
    d->changed += d->swap_count;
    for (u32 i = 0; i < s->group->count; i++) {
        d->out[i].d = d;
        shard_send(s, i, &d->out[i].msg, chunk_apply);
    }
}

static void chunk_step(struct topic_defaults *d)
{
    const struct config *cfg = d->node->cfg;
    d->swap_count = 0;
    while (d->at < d->topic_count && d->swap_count < CHUNK) {
        const struct topic *t = d->topics[d->at++];
        if (topic_config_follows(&t->config, cfg))
            continue;
        struct topic *next = topic_copy(t);
        topic_config_refresh(&next->config, cfg);
        d->swaps[d->swap_count++] = (struct topic_swap){ t, next };
    }
    if (d->swap_count > 0)
        chunk_publish(d);
    else
        round_end(d);
}

/* A controller task: no other change of the catalog comes in between. */
static void round_run(struct controller_task *task)
{
    struct topic_defaults *d = container_of(task, struct topic_defaults, task);
    struct broker *b = controller_of(d);
    struct topic_entry *e, *next;
    d->again = false; /* what was changed until now is seen by this round */
    d->at = d->changed = d->topic_count = 0;
    d->topics = mem_alloc((HASH_CNT(hh_name, b->topics_by_name) + 1) * sizeof *d->topics);
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        d->topics[d->topic_count++] = e->topic;
    chunk_step(d);
}

static void change_arrived(struct shard *at, struct msg *m)
{
    struct topic_defaults *d = container_of(m, struct topic_defaults, msg);
    /* Before the values are read: who changes one after this posts again. */
    (void)__atomic_exchange_n(&d->posted, false, __ATOMIC_ACQ_REL);
    if (at->stopping)
        return;
    if (d->running) {
        d->again = true;
        return;
    }
    d->running = true;
    controller_enter(controller_of(d), &d->task, round_run);
}

/* ---- outside ---- */

void topic_defaults_changed(struct node *n)
{
    struct topic_defaults *d = n->defaults;
    pthread_mutex_lock(&d->lock);
    if (!d->closed && !__atomic_exchange_n(&d->posted, true, __ATOMIC_ACQ_REL))
        shard_post(&n->group, CONTROLLER_SHARD, &d->msg, change_arrived);
    pthread_mutex_unlock(&d->lock);
}

void topic_defaults_close(struct node *n)
{
    pthread_mutex_lock(&n->defaults->lock);
    n->defaults->closed = true;
    pthread_mutex_unlock(&n->defaults->lock);
}
