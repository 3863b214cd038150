/* Cost of the network half alone: an echo server on net/conn.c with one shard against a client
 * thread of plain sockets, and the CPU time of the shard's thread for each request and GiB.
 *
 *   micro_echo CONNECTIONS DEPTH REQUEST_BYTES RESPONSE_BYTES SECONDS [key=value …]
 *
 * With the pair server=epoll the server is a bare loop of epoll, read and write instead, which only
 * counts frames: the unavoidable work, for comparison.
 *
 * Answers beyond 4 KiB are sent from where they lie (request_ext), as fetch answers are. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "config.h"
#include "conn.h"
#include "log.h"
#include "mem.h"

#define EXT_ABOVE 4096u

static struct config cfg;
static struct shard_group group = { .count = 1 };
static struct shard shard;
static struct net *net;
static pthread_t shard_thread;
static u32 response_bytes;
static u8 *response;

static void on_request(struct request *r)
{
    u32 inlined = response_bytes > EXT_ABOVE ? 64 : response_bytes;
    r->out = arena_alloc(&r->arena, 4 + (u64)inlined);
    r->out_len = 4 + inlined;
    if (inlined < response_bytes) {
        r->ext = arena_alloc(&r->arena, sizeof *r->ext);
        r->ext[0] =
            (struct request_ext){ 4 + inlined, bytes_of(response, response_bytes - inlined) };
        r->ext_count = 1;
    }
    request_respond(r);
}

static err server_start(struct shard *s)
{
    static const struct net_handler handler = { .request = on_request };
    char why[256];
    shard_thread = pthread_self();
    err e = net_start(s, &handler, &net, why, sizeof why);
    if (e != ERR_NONE)
        fprintf(stderr, "%s\n", why);
    return e;
}

static bool server_drained(struct shard *s)
{
    (void)s;
    net_stop(net);
    return net_stopped(net);
}

/* ---- the bare server ---- */

static u32 epoll_request_len;
static int epoll_listener;
static u16 epoll_port;

struct epoll_conn {
    int fd;
    u64 received;
};

static void epoll_serve(struct epoll_conn *c, u8 *buf)
{
    ssize_t k = read(c->fd, buf, MIB);
    if (k <= 0) {
        close(c->fd);
        mem_free(c);
        return;
    }
    u64 frame = 4 + (u64)epoll_request_len, before = c->received / frame;
    c->received += (u64)k;
    size_t len = 4 + (size_t)response_bytes;
    for (u64 a = c->received / frame - before; a > 0; a--)
        for (size_t at = 0; at < len && k > 0; at += (size_t)MAX(k, 0))
            k = send(c->fd, response + at, len - at, MSG_NOSIGNAL);
}

static void *epoll_server(void *arg)
{
    (void)arg;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, epoll_listener, &ev) == 0);
    u8 *buf = mem_alloc(MIB);
    for (;;) {
        struct epoll_event evs[64];
        int n = epoll_wait(ep, evs, 64, -1);
        for (int i = 0; i < n; i++) {
            if (evs[i].data.ptr) {
                epoll_serve(evs[i].data.ptr, buf);
                continue;
            }
            struct epoll_conn *c = MEM_NEW(struct epoll_conn);
            int one = 1;
            c->fd = accept(epoll_listener, NULL, NULL);
            CHECK(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
            ev.data.ptr = c;
            CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) == 0);
        }
    }
    return NULL;
}

static void epoll_server_start(u32 request_len)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    epoll_request_len = request_len;
    put_be32(response, response_bytes);
    epoll_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(epoll_listener, (struct sockaddr *)&a, len) == 0 &&
          listen(epoll_listener, 1024) == 0);
    CHECK(getsockname(epoll_listener, (struct sockaddr *)&a, &len) == 0);
    epoll_port = ntohs(a.sin_port);
    CHECK(pthread_create(&shard_thread, NULL, epoll_server, NULL) == 0);
}

static int dial(u16 port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    return fd;
}

static void put_all(int fd, const u8 *p, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        CHECK(k > 0);
        p += k;
        n -= (size_t)k;
    }
}

static u64 thread_cpu_ns(pthread_t t)
{
    clockid_t id;
    struct timespec ts;
    CHECK(pthread_getcpuclockid(t, &id) == 0 && clock_gettime(id, &ts) == 0);
    return (u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec;
}

struct peer {
    int fd;
    u64 received;
};

/* Keeps DEPTH requests in flight on each connection until the time is over. */
static u64 client_run(u16 port, u32 conns, u32 depth, u32 request_len, double seconds)
{
    u8 *frame = mem_alloc(4 + (size_t)request_len), *sink = mem_alloc(MIB);
    put_be32(frame, request_len);
    struct peer *peers = mem_alloc(conns * sizeof *peers);
    int ep = epoll_create1(EPOLL_CLOEXEC);
    for (u32 i = 0; i < conns; i++) {
        peers[i].fd = dial(port);
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &peers[i] };
        CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, peers[i].fd, &ev) == 0);
        for (u32 d = 0; d < depth; d++)
            put_all(peers[i].fd, frame, 4 + (size_t)request_len);
    }
    u64 end = clock_mono_ns() + (u64)(seconds * 1e9), done = 0, answer = 4 + (u64)response_bytes;
    while (clock_mono_ns() < end) {
        struct epoll_event evs[64];
        int n = epoll_wait(ep, evs, 64, 100);
        for (int i = 0; i < n; i++) {
            struct peer *p = evs[i].data.ptr;
            ssize_t k = read(p->fd, sink, MIB);
            CHECK(k > 0);
            u64 before = p->received / answer;
            p->received += (u64)k;
            for (u64 a = p->received / answer - before; a > 0; a--, done++)
                put_all(p->fd, frame, 4 + (size_t)request_len);
        }
    }
    for (u32 i = 0; i < conns; i++)
        close(peers[i].fd);
    close(ep);
    mem_free(peers);
    mem_free(sink);
    mem_free(frame);
    return done;
}

int main(int argc, char **argv)
{
    char why[512] = "";
    if (argc < 6) {
        fprintf(stderr, "usage: micro_echo CONNECTIONS DEPTH REQUEST_BYTES RESPONSE_BYTES SECONDS "
                        "[key=value ...]\n");
        return 2;
    }
    u32 conns = (u32)atoi(argv[1]), depth = (u32)atoi(argv[2]), request_len = (u32)atoi(argv[3]);
    response_bytes = (u32)atoi(argv[4]);
    response = mem_alloc(response_bytes + 4);
    bool bare = argc > 6 && strcmp(argv[6], "server=epoll") == 0;
    log_threshold = LOG_WARN;
    config_init(&cfg);
    CHECK(config_set(&cfg, "net.listen", "127.0.0.1:0", CONFIG_COMMAND_LINE, why, sizeof why) ==
          ERR_NONE);
    for (int i = bare ? argc : 6; i < argc; i++)
        if (config_set_pair(&cfg, argv[i], CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE)
            FATAL("%s", why);
    CHECK(config_validate(&cfg, why, sizeof why) == ERR_NONE);
    shard_init(&shard, &group, 0, &cfg, metrics_create(), 1);
    if (bare)
        epoll_server_start(request_len);
    else if (shard_threads_start(&group, server_start, server_drained, why, sizeof why) != ERR_NONE)
        FATAL("%s", why);
    u16 port = bare ? epoll_port : net_port(net);
    (void)client_run(port, conns, depth, request_len, 0.3); /* warm up */
    u64 cpu = thread_cpu_ns(shard_thread), wall = clock_mono_ns();
    u64 turns = metric_get(shard.metrics, M_turns);
    u64 done = client_run(port, conns, depth, request_len, atof(argv[5]));
    cpu = thread_cpu_ns(shard_thread) - cpu;
    wall = clock_mono_ns() - wall;
    turns = metric_get(shard.metrics, M_turns) - turns;
    double gib = (double)done * (request_len + response_bytes) / (double)GIB;
    printf("connections=%u depth=%u request=%u response=%u rate=%.0f/s cpu_us_per_request=%.2f "
           "cpu_s_per_GiB=%.3f busy=%.2f requests_per_turn=%.1f\n",
           conns, depth, request_len, response_bytes, (double)done * 1e9 / (double)wall,
           (double)cpu / 1e3 / (double)done, (double)cpu / 1e9 / gib, (double)cpu / (double)wall,
           (double)done / (double)MAX(turns, (u64)1));
    if (bare)
        return 0;
    shard_threads_stop(&group);
    shard_threads_join(&group);
    return 0;
}
