/* A worker thread: its share of partitions as flows and feeds, and the epoll loop. */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "err.h"

#define WORKER_EVENTS 256
#define WORKER_WAIT_MAX_NS (100 * NS_PER_MS)
#define WORKER_PAUSED_WAIT_NS (2 * NS_PER_MS)
#define WORKER_SPIN_NS 3000 /* not worth a sleep */

/* The share of `total` that worker `index` of `threads` has; at least one. */
static u32 worker_share(u32 total, u32 threads, u32 index)
{
    u32 n = total / threads + (index < total % threads);
    return MAX(n, 1u);
}
u32 worker_ranks(const struct options *o, u32 partitions)
{
    u32 own = worker_share(partitions, o->threads, o->threads - 1);
    return worker_share(o->connections, o->threads, 0) / own + 1;
}
/* Partitions are dealt to workers in turn, and within a worker to the lanes of their leader. More
 * lanes than partitions: several flows write one partition, each as a producer of its own. */
static void plan_flows(struct worker *w, const u32 *own, u32 own_count)
{
    u32 lanes = worker_share(w->o->connections, w->o->threads, w->index);
    w->flow_count = MAX(own_count, lanes);
    w->flows = mem_alloc(sizeof *w->flows * w->flow_count);
    w->retry_cap = w->o->inflight * 2;
    for (u32 i = 0; i < w->flow_count; i++) {
        struct flow *f = &w->flows[i];
        f->partition = own[i % own_count];
        f->rank = i / own_count;
        f->lane = i % lanes;
        f->template_next = i % w->shared->templates->count;
        f->retry = mem_alloc(sizeof *f->retry * w->retry_cap);
        f->paused = true; /* the first routing is like one after a failure */
        w->paused_count++;
    }
}
static void plan_feeds(struct worker *w, const u32 *own, u32 own_count)
{
    u32 lanes = worker_share(w->o->consumers, w->o->threads, w->index);
    w->feed_count = MAX(own_count, lanes);
    w->feeds = mem_alloc(sizeof *w->feeds * w->feed_count);
    for (u32 i = 0; i < w->feed_count; i++)
        w->feeds[i] = (struct feed){ own[i % own_count], i % lanes, -1, false };
}
static void worker_epoll_wake(struct worker *w)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(w->epoll >= 0 && w->wake >= 0);
    CHECK(epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &e) == 0);
}
void worker_init(struct worker *w, struct shared *s, u32 index)
{
    w->shared = s;
    w->o = s->o;
    w->index = index;
    w->now = now_ns();
    w->wall_offset_ns = (i64)now_wall_ns() - (i64)w->now;
    w->cluster = s->cluster;
    worker_epoll_wake(w);
    u32 own_count = 0, *own = mem_alloc(sizeof *own * (s->cluster->partition_count + 1));
    for (u32 p = index; p < s->cluster->partition_count; p += s->o->threads)
        own[own_count++] = p;
    CHECK(own_count > 0); /* main allows no more threads than partitions */
    if (options_produces(s->o))
        plan_flows(w, own, own_count);
    if (options_consumes(s->o))
        plan_feeds(w, own, own_count);
    mem_free(own);
}
void worker_want_refresh(struct worker *w)
{
    u64 one = 1;
    if (__atomic_exchange_n(&w->shared->refresh_wanted, true, __ATOMIC_ACQ_REL))
        return;
    count(&w->stats.c.refreshes, 1);
    CHECK(write(w->shared->wake_main, &one, sizeof one) == sizeof one);
}
void worker_error(struct worker *w, i16 code, const char *where)
{
    u64 *seen = &w->stats.errors[code >= 0 && code < ERROR_CODES - 1 ? code : ERROR_CODES - 1];
    if (*seen == 0 && !w->o->quiet)
        fprintf(stderr, "leat-bench: %s: %d %s\n", where, code, err_name((err)code));
    count(seen, 1);
}

static void worker_look_around(struct worker *w)
{
    struct shared *s = w->shared;
    u64 version = __atomic_load_n(&s->cluster_version, __ATOMIC_ACQUIRE);
    if (version != w->cluster_version) {
        bool first = w->cluster_version == 0;
        w->cluster_version = version;
        w->cluster = __atomic_load_n(&s->cluster, __ATOMIC_ACQUIRE);
        for (u32 i = 0; first && i < w->feed_count; i++)
            consume_route(w, &w->feeds[i]);
    }
    if (!w->started && __atomic_load_n(&s->started, __ATOMIC_ACQUIRE)) {
        produce_start(w);
        for (u32 i = 0; i < w->conn_count; i++)
            if (!w->conns[i]->consumer)
                produce_pump(w->conns[i]);
    }
    if (w->paused_count > 0)
        produce_resume(w);
}
/* Sends what is due, retries connections of consumers; when to wake up at the latest. */
static u64 worker_due(struct worker *w)
{
    u64 next = w->now + WORKER_WAIT_MAX_NS;
    bool tick = w->now >= w->tick_ns;
    if (tick)
        w->tick_ns = w->now + NS_PER_S;
    if (w->paused_count > 0)
        next = w->now + WORKER_PAUSED_WAIT_NS;
    for (u32 i = 0; i < w->conn_count; i++) {
        struct conn *c = w->conns[i];
        if (c->consumer) {
            if (c->state == CONN_CLOSED && c->feed_count > 0)
                conn_open(c);
            else if (c->waiting == WAITING_NOTHING)
                consume_pump(c);
            if (c->state == CONN_CLOSED || c->pause_until_ns > w->now)
                next = MIN(next, w->now + WORKER_PAUSED_WAIT_NS);
            continue;
        }
        if (tick)
            produce_check_timeout(c);
        if (w->started && w->o->rate_unit != RATE_NONE) {
            if (produce_next_ns(c) <= w->now)
                produce_pump(c);
            next = MIN(next, produce_next_ns(c));
        }
    }
    return next;
}
static void worker_wait(struct worker *w, u64 until)
{
    struct epoll_event events[WORKER_EVENTS];
    u64 wait = until > w->now + WORKER_SPIN_NS ? until - w->now : 0, drained;
    struct timespec t = { (time_t)(wait / NS_PER_S), (long)(wait % NS_PER_S) };
    int n = epoll_pwait2(w->epoll, events, WORKER_EVENTS, &t, NULL);
    CHECK(n >= 0 || errno == EINTR);
    w->now = now_ns();
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            conn_event(events[i].data.ptr, events[i].events);
        else if (read(w->wake, &drained, sizeof drained) < 0)
            CHECK(errno == EAGAIN);
    }
}
void *worker_run(void *arg)
{
    struct worker *w = arg;
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* the open loop's schedule is in µs */
    while (!__atomic_load_n(&w->shared->stopped, __ATOMIC_ACQUIRE)) {
        worker_look_around(w);
        worker_wait(w, worker_due(w));
    }
    for (u32 i = 0; i < w->conn_count; i++)
        if (w->conns[i]->fd >= 0)
            close(w->conns[i]->fd);
    return NULL;
}
