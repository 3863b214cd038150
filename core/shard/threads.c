/* The threads of the real node: one for each shard, pinned when there are CPUs enough. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bg.h"
#include "check.h"
#include "config.h"
#include "log.h"
#include "mem.h"
#include "shard.h"

#define TURN_WAIT_NS NS_PER_S
/* While stopping, drained() is asked this often even when nothing happens. */
#define STOP_WAIT_NS (5 * NS_PER_MS)
#define STACK_BYTES (1 * MIB)

struct shard_thread {
    struct shard *shard;
    struct shard_threads *all;
    struct msg stop;
    pthread_t thread;
    err result;
    char why[1100];
};

struct shard_threads {
    struct shard_group *group;
    err (*start)(struct shard *s);
    bool (*drained)(struct shard *s);
    pthread_mutex_t lock; /* start-up only: guards the two counts */
    pthread_cond_t changed;
    u32 started; /* threads whose start() has returned, or that failed */
    bool go;     /* all did well: turn */
    bool failed; /* some did not: end */
    bool stop_sent;
    u32 drained_count; /* threads that have nothing left to do; atomic */
    cpu_set_t cpus;    /* that the process may use */
    struct shard_thread threads[];
};

/* Pins to the index-th CPU of the process, when every shard gets one of its own. */
static void thread_pin(struct shard_thread *t)
{
    const struct shard_threads *all = t->all;
    if (!config_bool(t->shard->cfg, CFG_core_pin) || (u32)CPU_COUNT(&all->cpus) < all->group->count)
        return;
    u32 nth = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all->cpus) || nth++ != t->shard->index)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) != 0)
            LOG(WARN, shard_pin_failed, "shard=%u cpu=%d", t->shard->index, cpu);
        return;
    }
}

/* Tells the starter, and waits for its word. True: turn; false: another shard failed. */
static bool thread_started(struct shard_thread *t, err result)
{
    struct shard_threads *all = t->all;
    t->result = result;
    pthread_mutex_lock(&all->lock);
    all->started++;
    all->failed |= result != ERR_NONE;
    pthread_cond_broadcast(&all->changed);
    while (!all->go && !all->failed)
        pthread_cond_wait(&all->changed, &all->lock);
    bool go = !all->failed;
    pthread_mutex_unlock(&all->lock);
    return go;
}

/* A drained shard goes on turning until all are, because others may still need its answers. */
static void thread_turn(struct shard_thread *t)
{
    struct shard *s = t->shard;
    struct shard_threads *all = t->all;
    while (!s->stopping || !all->drained(s))
        shard_turn(s, s->stopping ? STOP_WAIT_NS : TURN_WAIT_NS);
    u32 drained = __atomic_add_fetch(&all->drained_count, 1, __ATOMIC_ACQ_REL);
    for (; drained < all->group->count;
         drained = __atomic_load_n(&all->drained_count, __ATOMIC_ACQUIRE))
        shard_turn(s, STOP_WAIT_NS);
    (void)io_turn(s->io, 0, 0); /* submits what is left, such as closes */
}

static void thread_io_destroy(struct shard *s)
{
    struct io *io = s->io;
    __atomic_store_n(&s->io, NULL, __ATOMIC_RELEASE);
    io_destroy(io);
}

/* A shard whose start() failed, or that started beside one that did: what start() has begun is
 * stopped the way a running shard is. */
static void thread_abandon(struct shard_thread *t)
{
    t->shard->stopping = true;
    if (t->result == ERR_NONE)
        thread_turn(t);
    else
        __atomic_add_fetch(&t->all->drained_count, 1, __ATOMIC_ACQ_REL);
}

static void *thread_main(void *arg)
{
    struct shard_thread *t = arg;
    struct shard *s = t->shard;
    char name[16];
    snprintf(name, sizeof name, "shard-%u", s->index % 1000u);
    pthread_setname_np(pthread_self(), name);
    thread_pin(t);
    struct io *io = NULL;
    err e = io_create(s->cfg, s->index, &io, t->why, sizeof t->why);
    if (e != ERR_NONE) {
        (void)thread_started(t, e);
        thread_abandon(t);
        return NULL;
    }
    __atomic_store_n(&s->io, io, __ATOMIC_RELEASE);
    LOG(INFO, shard_io, "shard=%u %s", s->index, io_features(io)->text);
    e = t->all->start(s);
    if (e != ERR_NONE)
        snprintf(t->why, sizeof t->why, "shard %u did not start: %s", s->index,
                 *s->start_error ? s->start_error : err_text(e));
    if (thread_started(t, e))
        thread_turn(t);
    else
        thread_abandon(t);
    /* The ring lives until join: other shards and background threads may still wake it. */
    return NULL;
}

static err threads_create(struct shard_threads *all, u32 *created, char *why, size_t why_size)
{
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, &before); /* signals go to the main thread */
    pthread_attr_t attr;
    CHECK(pthread_attr_init(&attr) == 0);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    err e = ERR_NONE;
    for (*created = 0; *created < all->group->count; (*created)++) {
        struct shard_thread *t = &all->threads[*created];
        t->all = all;
        t->shard = all->group->shards[*created];
        int rc = pthread_create(&t->thread, &attr, thread_main, t);
        if (rc != 0) {
            snprintf(why, why_size,
                     "can't start the thread of shard %u: %s. Raise the limit of "
                     "processes (ulimit -u, TasksMax=) or lower core.shards",
                     *created, strerror(rc));
            t->shard = NULL;
            e = err_from_errno(rc);
            break;
        }
    }
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

err shard_threads_start(struct shard_group *g, err (*start)(struct shard *s),
                        bool (*drained)(struct shard *s), char *why, size_t why_size)
{
    CHECK(g->threads == NULL && g->count > 0);
    struct shard_threads *all = mem_alloc(sizeof *all + g->count * sizeof all->threads[0]);
    all->group = g;
    all->start = start;
    all->drained = drained;
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, NULL);
    CPU_ZERO(&all->cpus);
    (void)sched_getaffinity(0, sizeof all->cpus, &all->cpus);
    g->threads = all;
    u32 created;
    err e = threads_create(all, &created, why, why_size);
    pthread_mutex_lock(&all->lock);
    all->failed |= e != ERR_NONE;
    pthread_cond_broadcast(&all->changed);
    while (all->started < created)
        pthread_cond_wait(&all->changed, &all->lock);
    all->go = !all->failed;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    if (!all->failed)
        return ERR_NONE;
    for (u32 i = 0; i < created && e == ERR_NONE; i++) {
        e = all->threads[i].result;
        if (e != ERR_NONE)
            snprintf(why, why_size, "%s", all->threads[i].why);
    }
    __atomic_add_fetch(&all->drained_count, g->count - created, __ATOMIC_ACQ_REL);
    shard_threads_join(g);
    return e;
}

static void stop_arrived(struct shard *at, struct msg *m)
{
    (void)m;
    at->stopping = true;
}

void shard_threads_stop(struct shard_group *g)
{
    struct shard_threads *all = g->threads;
    if (!all || __atomic_exchange_n(&all->stop_sent, true, __ATOMIC_ACQ_REL))
        return;
    for (u32 i = 0; i < g->count; i++)
        shard_post(g, i, &all->threads[i].stop, stop_arrived);
}

/* Rings are SINGLE_ISSUER, but to tear one down is allowed on any thread. */
void shard_threads_join(struct shard_group *g)
{
    struct shard_threads *all = g->threads;
    if (!all)
        return;
    for (u32 i = 0; i < g->count; i++)
        if (all->threads[i].shard)
            pthread_join(all->threads[i].thread, NULL);
    if (g->bg)
        bg_quiesce(g->bg);
    for (u32 i = 0; i < g->count; i++)
        if (g->shards[i]->io)
            thread_io_destroy(g->shards[i]);
    pthread_cond_destroy(&all->changed);
    pthread_mutex_destroy(&all->lock);
    g->threads = NULL;
    mem_free(all);
}
