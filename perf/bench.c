/* leat-bench: sets the run up, then is the control thread: metadata, progress, report. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"
#include "err.h"

#define SETUP_WAIT_NS (20 * NS_PER_S)
#define REFRESH_GAP_NS (20 * NS_PER_MS)

struct run {
    struct options o;
    struct control control;
    struct shared shared;
    struct templates templates;
    struct worker **workers;
    pthread_t *threads;
    int *idle;
    struct idle_report idle_report;
    u64 refreshed_ns;
    struct snapshot begin, end, previous, current;
};

_Noreturn static void give_up(const char *what, i16 error)
{
    if (error)
        fprintf(stderr, "leat-bench: %s: %s\n", what,
                error == -2 ? "no connection" : err_name((err)error));
    else
        fprintf(stderr, "leat-bench: %s\n", what);
    exit(2);
}
static void nap(void)
{
    usleep(50000);
}

/* ---- set-up ---- */
/* Brokers delete in the background, so creating again may have to wait. */
static void topic_create(struct run *r)
{
    u64 deadline = now_ns() + SETUP_WAIT_NS;
    for (;;) {
        i16 error = control_create_topic(&r->control);
        if (error == ERR_NONE)
            return;
        if (error == ERR_TOPIC_ALREADY_EXISTS)
            (void)control_delete_topic(&r->control);
        else if (!err_retriable((err)error))
            give_up("creating the topic", error);
        if (now_ns() > deadline)
            give_up("creating the topic", error);
        nap();
    }
}
static bool cluster_complete(const struct cluster *c)
{
    if (!c || c->topic_error || c->partition_count == 0)
        return false;
    for (u32 i = 0; i < c->partition_count; i++)
        if (c->leaders[i] < 0)
            return false;
    return true;
}
static struct cluster *cluster_wait(struct run *r)
{
    u64 deadline = now_ns() + SETUP_WAIT_NS;
    for (;;) {
        struct cluster *c = control_metadata(&r->control);
        bool enough =
            cluster_complete(c) && (!r->o.create || c->partition_count == r->o.partitions);
        if (enough)
            return c;
        if (now_ns() > deadline)
            give_up(c && c->topic_error ? "the topic's metadata"
                                        : "not all partitions have a leader",
                    c ? c->topic_error : (i16)0);
        wire_cluster_free(c);
        nap();
    }
}
static void producer_ids(struct run *r, u32 partitions)
{
    struct shared *s = &r->shared;
    s->ranks = worker_ranks(&r->o, partitions);
    if (!r->o.idempotent)
        return;
    u32 n = s->ranks * r->o.threads;
    struct producer_id *ids = mem_alloc(sizeof *ids * n);
    for (u32 i = 0; i < n; i++) {
        u64 deadline = now_ns() + SETUP_WAIT_NS;
        while (!control_producer_id(&r->control, &ids[i])) {
            if (now_ns() > deadline)
                give_up("the broker gives no producer id", 0);
            nap();
        }
    }
    s->pids = ids;
}
static u64 broker_rss(const struct options *o)
{
    struct proc_stat p = { 0 };
    return o->pid && proc_read(o->pid, &p) ? p.rss_bytes : 0;
}
/* Each has spoken once, like a client that connected and went quiet. */
static void idle_open(struct run *r)
{
    struct idle_report *i = &r->idle_report;
    i->wanted = r->o.idle_connections;
    i->rss_before_bytes = broker_rss(&r->o);
    r->idle = mem_alloc(sizeof(int) * (i->wanted + 1));
    for (; i->opened < i->wanted; i->opened++) {
        struct control c = { .fd = -1 };
        if (!control_open(&c, &r->o))
            break;
        r->idle[i->opened] = c.fd;
        mem_free(c.rx);
    }
    if (i->opened < i->wanted)
        fprintf(stderr, "leat-bench: only %u of %u idle connections: %s\n", i->opened, i->wanted,
                strerror(errno));
}
static void idle_check(struct run *r)
{
    struct idle_report *i = &r->idle_report;
    u8 byte;
    for (u32 k = 0; k < i->opened; k++)
        i->alive += recv(r->idle[k], &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    i->rss_after_bytes = broker_rss(&r->o);
}
static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l);
    }
}

/* ---- control loop ---- */
static void wake_workers(struct run *r)
{
    u64 one = 1;
    for (u32 i = 0; i < r->o.threads; i++)
        CHECK(write(r->workers[i]->wake, &one, sizeof one) == sizeof one);
}
/* A worker waits for news, so the version moves even when nothing changed. */
static void publish(struct run *r, struct cluster *c)
{
    struct cluster *old = r->shared.cluster;
    if (old && wire_cluster_same(old, c)) {
        wire_cluster_free(c);
    } else {
        c->older = old;
        r->control.latest = c;
        __atomic_store_n(&r->shared.cluster, c, __ATOMIC_RELEASE);
    }
    __atomic_add_fetch(&r->shared.cluster_version, 1, __ATOMIC_RELEASE);
}
static void refresh(struct run *r)
{
    __atomic_store_n(&r->shared.refresh_wanted, false, __ATOMIC_RELEASE);
    r->refreshed_ns = now_ns();
    struct cluster *c = control_metadata(&r->control);
    bool usable = c && !c->topic_error && c->node_count > 0 &&
                  c->partition_count >= r->shared.cluster->partition_count;
    if (usable) {
        publish(r, c);
        wake_workers(r);
    } else {
        wire_cluster_free(c);
    }
}
/* Sleeps until then, refreshing metadata whenever a worker asks. */
static void control_until(struct run *r, u64 until)
{
    for (u64 now = now_ns(); now < until; now = now_ns()) {
        u64 earliest = r->refreshed_ns + REFRESH_GAP_NS, drained;
        bool wanted = __atomic_load_n(&r->shared.refresh_wanted, __ATOMIC_ACQUIRE);
        if (wanted && now >= earliest) {
            refresh(r);
            continue;
        }
        u64 to = wanted ? MIN(until, earliest) : until;
        struct pollfd p = { .fd = wanted ? -1 : r->shared.wake_main, .events = POLLIN };
        int wait_ms = (int)((to - now + NS_PER_MS - 1) / NS_PER_MS);
        if (poll(&p, 1, wait_ms) > 0 && read(p.fd, &drained, sizeof drained) < 0)
            CHECK(errno == EAGAIN);
    }
}
static void workers_start(struct run *r)
{
    struct shared *s = &r->shared;
    r->workers = mem_alloc(sizeof(struct worker *) * r->o.threads);
    r->threads = mem_alloc(sizeof(pthread_t) * r->o.threads);
    for (u32 i = 0; i < r->o.threads; i++) {
        r->workers[i] = MEM_NEW(struct worker);
        worker_init(r->workers[i], s, i);
        s->flow_total += r->workers[i]->flow_count;
    }
    f64 batches_per_s = r->o.rate;
    if (r->o.rate_unit == RATE_RECORDS)
        batches_per_s /= (f64)r->templates.list[0].records;
    else if (r->o.rate_unit == RATE_BYTES)
        batches_per_s /= (f64)r->templates.list[0].len;
    else
        batches_per_s *= (f64)r->o.request_batches;
    for (u32 i = 0; i < r->o.threads; i++) {
        if (r->o.rate_unit != RATE_NONE)
            r->workers[i]->interval_ns = (u64)(1e9 * (f64)s->flow_total / batches_per_s);
        CHECK(pthread_create(&r->threads[i], NULL, worker_run, r->workers[i]) == 0);
    }
}
static void feeds_wait(struct run *r)
{
    u64 deadline = now_ns() + SETUP_WAIT_NS;
    for (;;) {
        u64 ready = 0, all = 0;
        for (u32 i = 0; i < r->o.threads; i++) {
            ready += __atomic_load_n(&r->workers[i]->stats.c.ready_feeds, __ATOMIC_RELAXED);
            all += r->workers[i]->feed_count;
        }
        if (ready == all)
            return;
        if (now_ns() > deadline)
            give_up("the consumers do not get their offsets", 0);
        control_until(r, now_ns() + 5 * NS_PER_MS);
    }
}
static void measure(struct run *r)
{
    u64 start = now_ns(), begin = start + (u64)(r->o.warmup_s * 1e9);
    u64 end = begin + (u64)(r->o.duration_s * 1e9);
    bool begun = false;
    r->shared.start_ns = start + NS_PER_MS;
    __atomic_store_n(&r->shared.started, true, __ATOMIC_RELEASE);
    wake_workers(r);
    snapshot_take(&r->previous, r->workers, r->o.threads, &r->o);
    for (u64 at = start, next = start + NS_PER_S; at < end; at = now_ns()) {
        u64 to = MIN(next, end);
        control_until(r, begun ? to : MIN(to, begin));
        if (!begun && now_ns() >= begin) {
            snapshot_take(&r->begin, r->workers, r->o.threads, &r->o);
            begun = true;
        }
        if (now_ns() < next && now_ns() < end)
            continue;
        snapshot_take(&r->current, r->workers, r->o.threads, &r->o);
        if (!r->o.quiet)
            report_progress(&r->previous, &r->current, (f64)(r->current.ns - start) / 1e9, &r->o);
        r->previous = r->current;
        next += NS_PER_S;
    }
    snapshot_take(&r->end, r->workers, r->o.threads, &r->o);
}
static void setup(struct run *r)
{
    raise_file_limit();
    if (options_produces(&r->o))
        templates_build(&r->templates, &r->o);
    r->control.fd = -1;
    if (!control_open(&r->control, &r->o))
        give_up("no broker answers at --brokers", 0);
    if (r->o.idle_connections)
        idle_open(r);
    if (r->o.mode == MODE_IDLE) {
        r->o.threads = 0;
        return;
    }
    if (r->o.create)
        topic_create(r);
    publish(r, cluster_wait(r));
    r->o.threads = MIN(r->o.threads, r->shared.cluster->partition_count);
    bool no_fetch =
        r->control.versions.v[API_FETCH] < 0 || r->control.versions.v[API_LIST_OFFSETS] < 0;
    if (options_consumes(&r->o) && no_fetch)
        give_up("the broker offers no usable version of Fetch or ListOffsets", 0);
    producer_ids(r, r->shared.cluster->partition_count);
}
int main(int argc, char **argv)
{
    static struct run r; /* histograms: some hundred KiB */
    options_parse(&r.o, argc, argv);
    setup(&r);
    r.shared.o = &r.o;
    r.shared.versions = &r.control.versions;
    r.shared.templates = &r.templates;
    r.shared.wake_main = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r.o.threads)
        workers_start(&r);
    feeds_wait(&r);
    measure(&r);
    idle_check(&r);
    __atomic_store_n(&r.shared.stopped, true, __ATOMIC_RELEASE);
    wake_workers(&r);
    for (u32 i = 0; i < r.o.threads; i++)
        pthread_join(r.threads[i], NULL);
    report_print(&r.begin, &r.end, &r.templates, &r.idle_report, &r.o);
    if (r.o.delete_after)
        (void)control_delete_topic(&r.control);
    control_close(&r.control);
    const struct counters *c = &r.end.stats.c;
    return c->failures || c->offset_gaps || c->bad_crc ? 3 : 0;
}
