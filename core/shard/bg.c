/* The background pool: lanes, each a queue with threads of its own, so that a slow upload never
 * holds up a metadata transaction. A job goes back to its shard by shard_post.
 *
 *   shard: push on `incoming` (compare and swap), post the semaphore
 *   worker: wait for the semaphore; under the workers' own lock take the oldest of `ready`, after
 *           turning what has come in over into it when it is empty
 *
 * A shard takes no lock: a worker that was descheduled must never hold one up (P4). The semaphore
 * counts queued jobs, so a worker that passed it finds one; without any it is told to stop. */
#include "bg.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "mem.h"

/* libcurl's resolver and LMDB need more than the smallest stack; pages are touched on use. */
#define STACK_BYTES (1 * MIB)
#define SEVERAL_MAX 256u
/* SEVERAL_MAX in four lanes, store.catchup_reads, one each for the rest. */
#define THREADS_MAX (4 * SEVERAL_MAX + 320)
#define CATCHUP_NICE 19
/* Of linux/ioprio.h: a thread, the idle class. Block schedulers that know classes let the log's
 * writes go first. */
#define IOPRIO_THREAD 1
#define IOPRIO_IDLE (3 << 13)

struct lane {
    struct bg_job *incoming; /* atomic; newest first */
    sem_t queued;
    pthread_mutex_t lock; /* of the workers, for what follows */
    struct bg_job *ready; /* oldest first */
    const char *name;
    int nice;
    u32 threads;
};

struct bg {
    struct shard_group *group;
    struct lane lanes[BG_LANES];
    u32 returning; /* workers between shard_post and its end; atomic */
    u32 thread_count;
    pthread_t threads[THREADS_MAX];
};

struct worker {
    struct bg *bg;
    struct lane *lane;
};

static void job_returns(struct shard *at, struct msg *m)
{
    struct bg_job *j = container_of(m, struct bg_job, msg);
    CHECK(j->busy && j->shard == at->index);
    bg_fn done = j->done;
    j->busy = false; /* idle again before done, which may submit it anew */
    done(j);
}

static struct bg_job *lane_take(struct lane *l)
{
    while (sem_wait(&l->queued) != 0)
        CHECK(errno == EINTR);
    pthread_mutex_lock(&l->lock);
    if (!l->ready) {
        struct bg_job *j = __atomic_exchange_n(&l->incoming, NULL, __ATOMIC_ACQUIRE);
        while (j) {
            struct bg_job *older = j->next;
            j->next = l->ready;
            l->ready = j;
            j = older;
        }
    }
    struct bg_job *j = l->ready;
    if (j) {
        l->ready = j->next;
        j->next = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    return j;
}

static void *worker_main(void *arg)
{
    struct worker w = *(struct worker *)arg;
    mem_free(arg);
    pthread_setname_np(pthread_self(), w.lane->name);
    /* On Linux it is the thread's, and lowering oneself is always allowed. */
    (void)setpriority(PRIO_PROCESS, 0, w.lane->nice);
    if (w.lane->nice == CATCHUP_NICE)
        (void)syscall(SYS_ioprio_set, IOPRIO_THREAD, 0, IOPRIO_IDLE);
    struct bg_job *j;
    while ((j = lane_take(w.lane)) != NULL) {
        j->run(j);
        __atomic_fetch_add(&w.bg->returning, 1, __ATOMIC_ACQ_REL);
        shard_post(w.bg->group, j->shard, &j->msg, job_returns);
        __atomic_fetch_sub(&w.bg->returning, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void lane_start(struct bg *bg, struct lane *l, const char *name, u32 threads, int nice,
                       const pthread_attr_t *attr)
{
    pthread_mutex_init(&l->lock, NULL);
    CHECK(sem_init(&l->queued, 0, 0) == 0);
    l->name = name;
    l->nice = nice;
    for (u32 i = 0; i < threads; i++) {
        struct worker *w = MEM_NEW(struct worker);
        *w = (struct worker){ bg, l };
        CHECK(bg->thread_count < THREADS_MAX);
        int rc = pthread_create(&bg->threads[bg->thread_count], attr, worker_main, w);
        if (rc == 0) {
            bg->thread_count++;
            l->threads++;
            continue;
        }
        mem_free(w);
        if (i == 0)
            FATAL("what=\"can't start a background thread\" errno=%d "
                  "remedy=\"raise the limit of processes (ulimit -u, TasksMax=)\"",
                  rc);
        return; /* fewer threads work as well, only slower */
    }
}

struct bg *bg_create(struct shard_group *g, const struct config *cfg)
{
    struct bg *bg = MEM_NEW(struct bg);
    bg->group = g;
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, &before);
    pthread_attr_t attr;
    CHECK(pthread_attr_init(&attr) == 0);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    u32 several = (u32)MIN(config_u64(cfg, CFG_bg_threads), (u64)SEVERAL_MAX);
    int nice = (int)config_u64(cfg, CFG_bg_nice);
    lane_start(bg, &bg->lanes[BG_META], "bg-meta", 1, 0, &attr);
    lane_start(bg, &bg->lanes[BG_PUT], "bg-put", several, nice, &attr);
    lane_start(bg, &bg->lanes[BG_AWAITED], "bg-awaited",
               MIN(several * BG_AWAITED_JOBS, SEVERAL_MAX), nice, &attr);
    lane_start(bg, &bg->lanes[BG_READ], "bg-read", several, nice, &attr);
    lane_start(bg, &bg->lanes[BG_CATCHUP], "bg-catchup",
               (u32)config_u64(cfg, CFG_store_catchup_reads), CATCHUP_NICE, &attr);
    lane_start(bg, &bg->lanes[BG_MISC], "bg-misc", 1, nice, &attr);
    lane_start(bg, &bg->lanes[BG_BULK], "bg-bulk", several, nice, &attr);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return bg;
}

void bg_quiesce(struct bg *bg)
{
    while (__atomic_load_n(&bg->returning, __ATOMIC_ACQUIRE) > 0)
        sched_yield();
}

void bg_destroy(struct bg *bg)
{
    for (u32 i = 0; i < BG_LANES; i++) {
        struct lane *l = &bg->lanes[i];
        CHECK(!__atomic_load_n(&l->incoming, __ATOMIC_ACQUIRE));
        for (u32 k = 0; k < l->threads; k++)
            CHECK(sem_post(&l->queued) == 0);
    }
    for (u32 i = 0; i < bg->thread_count; i++)
        pthread_join(bg->threads[i], NULL);
    for (u32 i = 0; i < BG_LANES; i++) {
        CHECK(bg->lanes[i].ready == NULL);
        CHECK(sem_destroy(&bg->lanes[i].queued) == 0);
        pthread_mutex_destroy(&bg->lanes[i].lock);
    }
    mem_free(bg);
}

void bg_submit(struct shard *s, struct bg_job *j, enum bg_lane lane, bg_fn run, bg_fn done)
{
    CHECK((u32)lane < BG_LANES && !j->busy && run && done);
    j->busy = true;
    j->run = run;
    j->done = done;
    j->shard = s->index;
    j->lane = lane;
    struct lane *l = &s->group->bg->lanes[lane];
    j->next = __atomic_load_n(&l->incoming, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&l->incoming, &j->next, j, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
    CHECK(sem_post(&l->queued) == 0);
}
