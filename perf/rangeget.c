/* leat-rangeget: what a store gives to somebody who does nothing but read it, as the measure of
 * what consumers that catch up get through a node (perf/isolation).
 *
 *   leat-rangeget [-w KEY=VALUE]... [-d] URL PREFIX THREADS RANGE_BYTES SECONDS
 *
 * Threads take range after range of the objects below PREFIX, over and over, through the store's
 * own driver. With -d each sends what it took through a TCP connection of its own over loopback to
 * a thread that drops it: the least that must be done where consumers and node share a machine.
 * Prints one JSON object. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "mem.h"
#include "store.h"

struct range {
    char name[STORE_NAME_MAX + 1];
    u64 at;
    u32 bytes;
};
struct run {
    struct store *store;
    struct range *ranges;
    u32 count, cap;
    u32 range_bytes;
    bool deliver;
    u64 next, bytes, failures; /* atomic */
    bool over;                 /* atomic */
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "leat-rangeget: %s: %s\n", what, why);
    exit(2);
}

static err add_object(void *arg, const char *name, u64 bytes)
{
    struct run *r = arg;
    for (u64 at = 0; at < bytes; at += r->range_bytes) {
        if (r->count == r->cap) {
            r->cap = r->cap * 2 + 64;
            r->ranges = mem_realloc(r->ranges, r->cap * sizeof *r->ranges);
        }
        struct range *g = &r->ranges[r->count++];
        snprintf(g->name, sizeof g->name, "%s", name);
        g->at = at;
        g->bytes = (u32)MIN(bytes - at, (u64)r->range_bytes);
    }
    return ERR_NONE;
}

/* ---- to somebody who wants it ---- */

#define SINK_BYTES (256 * KIB)

static void *sink(void *arg)
{
    int fd = *(int *)arg;
    u8 *buf = mem_alloc(SINK_BYTES);
    while (recv(fd, buf, SINK_BYTES, 0) > 0)
        ;
    mem_free(buf);
    close(fd);
    return NULL;
}

/* Both ends of a TCP connection. */
static void connection(int ends[2])
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l < 0 || ends[0] < 0 || bind(l, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(l, 1) != 0 || getsockname(l, (struct sockaddr *)&a, &len) != 0 ||
        connect(ends[0], (struct sockaddr *)&a, sizeof a) != 0)
        die("sockets", strerror(errno));
    ends[1] = accept(l, NULL, NULL);
    if (ends[1] < 0)
        die("sockets", strerror(errno));
    close(l);
}

static void deliver(int fd, const u8 *data, u32 len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            die("send", strerror(errno));
        data += n;
        len -= (u32)n;
    }
}

/* ---- ranges ---- */

static void *reader(void *arg)
{
    struct run *r = arg;
    u8 *buf = mem_alloc(r->range_bytes);
    int ends[2] = { -1, -1 };
    pthread_t other = 0; /* of `deliver` */
    if (r->deliver) {
        connection(ends);
        if (pthread_create(&other, NULL, sink, &ends[1]) != 0)
            die("threads", "cannot start one");
    }
    while (!__atomic_load_n(&r->over, __ATOMIC_RELAXED)) {
        const struct range *g =
            &r->ranges[__atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED) % r->count];
        err e = r->store->driver->get_range(r->store, g->name, g->at, buf, g->bytes);
        if (e == ERR_NONE && r->deliver)
            deliver(ends[0], buf, g->bytes);
        if (e == ERR_NONE)
            __atomic_fetch_add(&r->bytes, g->bytes, __ATOMIC_RELAXED);
        else if (e != ERR_NOT_FOUND) /* compaction replaced it meanwhile */
            __atomic_fetch_add(&r->failures, 1, __ATOMIC_RELAXED);
    }
    if (r->deliver) {
        close(ends[0]);
        pthread_join(other, NULL);
    }
    mem_free(buf);
    return NULL;
}

static f64 now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (f64)t.tv_sec + (f64)t.tv_nsec / 1e9;
}

static void measure(struct run *r, u32 threads, f64 seconds)
{
    pthread_t *all = mem_alloc(threads * sizeof *all);
    f64 began = now_s();
    for (u32 i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, reader, r) != 0)
            die("threads", "cannot start one");
    struct timespec t = { (time_t)seconds, (long)((seconds - (f64)(time_t)seconds) * 1e9) };
    nanosleep(&t, NULL);
    __atomic_store_n(&r->over, true, __ATOMIC_RELAXED);
    f64 took = now_s() - began;
    u64 bytes = __atomic_load_n(&r->bytes, __ATOMIC_RELAXED);
    for (u32 i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
    printf("{\"bytes_per_s\":%.0f,\"ranges\":%u,\"failures\":%llu}\n", (f64)bytes / took, r->count,
           (unsigned long long)r->failures);
    mem_free(all);
}

int main(int argc, char **argv)
{
    struct config cfg;
    char why[1024];
    config_init(&cfg);
    int at = 1;
    for (; at + 1 < argc && strcmp(argv[at], "-w") == 0; at += 2)
        if (config_set_pair(&cfg, argv[at + 1], CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE)
            die(argv[at + 1], why);
    struct run r = { .deliver = at < argc && strcmp(argv[at], "-d") == 0 };
    at += r.deliver;
    if (argc - at != 5)
        die("use", "leat-rangeget [-w KEY=VALUE]... [-d] URL PREFIX THREADS RANGE_BYTES SECONDS");
    r.range_bytes = (u32)strtoul(argv[at + 3], NULL, 10);
    u32 threads = (u32)strtoul(argv[at + 2], NULL, 10);
    f64 seconds = strtod(argv[at + 4], NULL);
    if (r.range_bytes == 0 || threads == 0 || threads > 1024 || seconds <= 0)
        die("use", "threads, range and seconds are above 0");
    if (store_open(argv[at], &cfg, &r.store, why, sizeof why) != ERR_NONE)
        die(argv[at], why);
    err e = r.store->driver->list(r.store, argv[at + 1], add_object, &r);
    if (e != ERR_NONE || r.count == 0)
        die(argv[at + 1], e != ERR_NONE ? err_text(e) : "there are no objects");
    measure(&r, threads, seconds);
    r.store->driver->close(r.store);
    mem_free(r.ranges);
    config_free(&cfg);
    return r.failures > 0 ? 3 : 0;
}
