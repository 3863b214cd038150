/* Connections over real sockets: order, fragmentation, bounds, back-pressure, time-outs, many at
 * once. The server runs on a shard's thread and answers by the first byte of each frame:
 *   e echo now · d echo after 5 ms · n no answer · x echo in pieces that are not copied
 *   c echo and close · m malformed · b answer with 1 MiB · g the same for all, when all have asked
 *   w echo in an hour, or when nobody waits
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../shard/shard_fixture.h"
#include "bytes.h"
#include "conn.h"
#include "log.h"

static struct fixture fix;
static struct net *net;
static struct shard_hook after_net;
static u32 bulk_total, bulk_peak;             /* atomics: bytes sent in bulk, most in one turn */
static u32 opened, closed, released, handled; /* atomics: read by the test's thread */

#define COUNT(v) __atomic_fetch_add(&(v), 1, __ATOMIC_SEQ_CST)
#define READ(v) __atomic_load_n(&(v), __ATOMIC_SEQ_CST)

struct delayed {
    struct timer timer;
    struct request *r;
};

static void on_release(struct request *r)
{
    (void)r;
    COUNT(released);
}

static void echo(struct request *r)
{
    r->out = arena_alloc(&r->arena, 4 + (u64)r->frame.len);
    memcpy(r->out + 4, r->frame.data, r->frame.len);
    r->out_len = 4 + r->frame.len;
    request_respond(r);
}

/* Odd bytes of the frame from `out`, even ones from where they lie; many pieces. */
static void echo_pieces(struct request *r)
{
    u32 len = r->frame.len;
    r->ext = arena_alloc(&r->arena, len * sizeof *r->ext);
    r->out = arena_alloc(&r->arena, 4 + (u64)len);
    u32 out = 4;
    for (u32 i = 0; i < len; i++) {
        if (i % 2)
            r->out[out++] = r->frame.data[i];
        else
            r->ext[r->ext_count++] = (struct request_ext){ out, bytes_of(r->frame.data + i, 1) };
    }
    r->out_len = out;
    request_respond(r);
}

static void echo_later(struct timer *t)
{
    struct delayed *d = container_of(t, struct delayed, timer);
    echo(d->r);
}

static void nobody_waits(struct request *r)
{
    struct delayed *d = (struct delayed *)(void *)r->call;
    timer_start(&r->shard->timers, &d->timer, r->shard->now_ns, echo_later);
}

static void wait_long(struct request *r)
{
    struct delayed *d = arena_alloc(&r->arena, sizeof *d);
    d->r = r;
    r->call = (struct call *)(void *)d;
    r->gone = nobody_waits;
    timer_start(&r->shard->timers, &d->timer, r->shard->now_ns + 3600 * NS_PER_S, echo_later);
}

static void answer_long(struct request *r)
{
    r->out = arena_alloc(&r->arena, 4 + MIB);
    memset(r->out, 0, 4 + MIB);
    r->out_len = 4 + (u32)MIB;
    request_respond(r);
}

#define GATHERED 12u
static void gather(struct request *r)
{
    static struct request *all[GATHERED];
    static u32 count;
    all[count++] = r;
    if (count < GATHERED)
        return;
    while (count > 0)
        answer_long(all[--count]);
}

static void on_request(struct request *r)
{
    COUNT(handled);
    r->release = on_release;
    switch (r->frame.data[0]) {
    case 'd': {
        struct delayed *d = arena_alloc(&r->arena, sizeof *d);
        d->r = r;
        timer_start(&r->shard->timers, &d->timer, r->shard->now_ns + 5 * NS_PER_MS, echo_later);
        return;
    }
    case 'w':
        wait_long(r);
        return;
    case 'n':
        r->no_response = true;
        request_respond(r);
        return;
    case 'x':
        echo_pieces(r);
        return;
    case 'm':
        request_malformed(r, "test");
        return;
    case 'b':
        answer_long(r);
        return;
    case 'g':
        gather(r);
        return;
    case 'c':
        r->close_after = true;
        echo(r);
        return;
    default:
        echo(r);
    }
}

static void on_opened(struct conn *c)
{
    CHECK(conn_id(c) != 0 &&
          (memcmp(conn_peer(c), "127.0.0.1:", 10) == 0 || strcmp(conn_peer(c), "gone:0") == 0));
    *conn_user(c) = c;
    COUNT(opened);
}

static void on_closed(struct conn *c)
{
    CHECK(*conn_user(c) == c);
    COUNT(closed);
}

static void bulk_looked_at(struct shard_hook *h)
{
    u32 bytes = fix.shards[0].bulk[BULK_SEND];
    (void)h;
    __atomic_fetch_add(&bulk_total, bytes, __ATOMIC_SEQ_CST);
    if (bytes > READ(bulk_peak))
        __atomic_store_n(&bulk_peak, bytes, __ATOMIC_SEQ_CST);
}

static err server_start_shard(struct shard *s)
{
    static const struct net_handler handler = { on_request, on_opened, on_closed };
    char why[256];
    err e = net_start(s, &handler, &net, why, sizeof why);
    shard_add_hook(s, &after_net, bulk_looked_at);
    return e;
}

static bool server_drained(struct shard *s)
{
    (void)s;
    if (net)
        net_stop(net);
    if (net && !net_stopped(net))
        return false;
    if (net)
        net_free(net);
    net = NULL;
    return true;
}

static u16 server_start(const char *const *pairs)
{
    char why[512] = "";
    opened = closed = released = handled = 0;
    fixture_init(&fix, 1, pairs);
    if (shard_threads_start(&fix.group, server_start_shard, server_drained, why, sizeof why) !=
        ERR_NONE)
        fail_msg("%s", why);
    return net_port(net);
}

static void server_stop(void)
{
    shard_threads_stop(&fix.group);
    shard_threads_join(&fix.group);
    assert_int_equal(opened, closed);
    assert_int_equal(handled, released);
    fixture_free(&fix);
}

/* ---- the client's side: blocking sockets with a time-out ---- */

static int dial(u16 port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval tv = { 10, 0 };
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
    return fd;
}

static void put_all(int fd, const u8 *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        assert_true(k > 0);
        p += k;
        n -= (size_t)k;
    }
}

static bool get_all(int fd, u8 *p, size_t n)
{
    while (n > 0) {
        ssize_t k = recv(fd, p, n, 0);
        if (k <= 0)
            return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static bool at_end(int fd)
{
    u8 b;
    ssize_t n = recv(fd, &b, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* A frame of `len` bytes: the code, then bytes that depend on the seed. */
static u8 *frame_make(char code, u32 len, u32 seed)
{
    u8 *f = mem_alloc(4 + (size_t)len);
    put_be32(f, len);
    for (u32 i = 0; i < len; i++)
        f[4 + i] = (u8)(i * 31 + seed + (i >> 8));
    f[4] = (u8)code;
    return f;
}

static void send_frame(int fd, char code, u32 len, u32 seed)
{
    u8 *f = frame_make(code, len, seed);
    put_all(fd, f, 4 + (size_t)len);
    mem_free(f);
}

static void expect_frame(int fd, char code, u32 len, u32 seed)
{
    u8 *want = frame_make(code, len, seed), *got = mem_alloc(4 + (size_t)len);
    assert_true(get_all(fd, got, 4 + (size_t)len));
    assert_memory_equal(want, got, 4 + (size_t)len);
    mem_free(want);
    mem_free(got);
}

#define WAIT_FOR(cond)                      \
    do {                                    \
        for (u32 ms_ = 0; !(cond); ms_++) { \
            assert_true(ms_ < 10000);       \
            usleep(1000);                   \
        }                                   \
    } while (0)

/* The shard's thread reads it at any time. */
static void quiet(enum log_level level)
{
    __atomic_store_n(&log_threshold, (int)level, __ATOMIC_RELAXED);
}

static const char *const plain[] = { "net.listen=127.0.0.1:0", NULL };

/* ---- tests ---- */

static void frames_of_all_sizes_come_back(void **state)
{
    (void)state;
    static const u32 sizes[] = { 1,       3,       100,     1023,  1024,  1025,  4095,  4096,
                                 5000,    16379,   16380,   16381, 16384, 20000, 65536, 70000,
                                 1048576, 3000000, 6000000, 10,    20000, 300 };
    u16 port = server_start(plain);
    int fd = dial(port);
    for (u32 i = 0; i < ARRAY_COUNT(sizes); i++) {
        send_frame(fd, 'e', sizes[i], i);
        expect_frame(fd, 'e', sizes[i], i);
    }
    for (u32 i = 0; i < 10; i++) {
        send_frame(fd, 'x', sizes[i], i); /* thousands of pieces: several sendmsg */
        expect_frame(fd, 'x', sizes[i], i);
    }
    close(fd);
    server_stop();
}

static void answers_keep_the_order_of_requests(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    int fd = dial(port);
    static const char codes[] = "dednxeednxde";
    u32 sent = 0;
    for (u32 round = 0; round < 30; round++) {
        for (u32 i = 0; i < sizeof codes - 1; i++)
            send_frame(fd, codes[i], 1 + (sent * 37) % 3000, sent), sent++;
        sent -= (u32)(sizeof codes - 1);
        for (u32 i = 0; i < sizeof codes - 1; i++, sent++)
            if (codes[i] != 'n')
                expect_frame(fd, codes[i], 1 + (sent * 37) % 3000, sent);
    }
    close(fd);
    server_stop();
}

static void frames_may_come_byte_by_byte(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    int fd = dial(port);
    int one = 1;
    CHECK(setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one) == 0);
    for (u32 f = 0; f < 4; f++) {
        u8 *frame = frame_make('e', 300, f);
        for (u32 i = 0; i < 304; i++) {
            put_all(fd, frame + i, 1);
            if (f == 0)
                usleep(200); /* one receive each; later ones fall together at random */
        }
        mem_free(frame);
        expect_frame(fd, 'e', 300, f);
    }
    close(fd);
    server_stop();
}

static void bad_lengths_close_after_earlier_answers(void **state)
{
    (void)state;
    static const char *const small[] = { "net.listen=127.0.0.1:0", "net.max_request_bytes=64k",
                                         "message.max.bytes=32k", NULL };
    static const u32 lengths[] = { 0, 0x80000000u, 0xffffffffu, 65537, 0x7fffffffu };
    u16 port = server_start(small);
    quiet(LOG_ERROR);
    for (u32 i = 0; i < ARRAY_COUNT(lengths); i++) {
        int fd = dial(port);
        u8 head[4];
        send_frame(fd, 'd', 50, i);
        put_be32(head, lengths[i]);
        put_all(fd, head, 4);
        expect_frame(fd, 'd', 50, i);
        assert_true(at_end(fd));
        close(fd);
    }
    int fd = dial(port);
    send_frame(fd, 'e', 65536, 1); /* the bound itself is allowed */
    expect_frame(fd, 'e', 65536, 1);
    send_frame(fd, 'd', 20, 2);
    send_frame(fd, 'm', 20, 3);
    send_frame(fd, 'e', 20, 4);
    expect_frame(fd, 'd', 20, 2);
    assert_true(at_end(fd));
    close(fd);
    fd = dial(port);
    send_frame(fd, 'c', 20, 5);
    expect_frame(fd, 'c', 20, 5);
    assert_true(at_end(fd));
    close(fd);
    quiet(LOG_WARN);
    server_stop();
}

static void peers_may_vanish_at_any_moment(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    for (u32 i = 0; i < 300; i++) {
        int fd = dial(port);
        if (i % 3 == 0)
            for (u32 k = 0; k < 10; k++)
                send_frame(fd, "deb"[k % 3], 500 + k, k);
        if (i % 3 == 1) {
            u8 *f = frame_make('e', 50000, i);
            put_all(fd, f, 1 + i * 100);
            mem_free(f);
        }
        if (i % 2) {
            struct linger l = { 1, 0 };
            CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
        }
        close(fd);
    }
    WAIT_FOR(READ(opened) == 300 && READ(closed) == 300);
    server_stop();
}

static void nothing_waits_for_a_peer_that_is_gone(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    quiet(LOG_ERROR);
    for (u32 i = 0; i < 100; i++) {
        int fd = dial(port);
        send_frame(fd, 'w', 50, i);
        send_frame(fd, 'w', 500, i);
        close(fd);
    }
    WAIT_FOR(READ(opened) == 100 && READ(closed) == 100 && READ(released) == 200);
    /* Behind a bad request it is not read any more, so nobody would see it leave. */
    int fd = dial(port);
    send_frame(fd, 'w', 50, 1);
    send_frame(fd, 'm', 50, 2);
    expect_frame(fd, 'w', 50, 1);
    assert_true(at_end(fd));
    close(fd);
    fd = dial(port);
    send_frame(fd, 'w', 50, 3);
    put_all(fd, (const u8 *)"\xff\xff\xff\xff", 4);
    expect_frame(fd, 'w', 50, 3);
    assert_true(at_end(fd));
    close(fd);
    quiet(LOG_WARN);
    server_stop();
}

/* Memory for four large frames; twelve peers send eight each, some of them slowly. */
static void frames_wait_for_memory_and_all_get_it(void **state)
{
    (void)state;
    static const char *const tight[] = { "net.listen=127.0.0.1:0",
                                         "net.request_memory=1m",
                                         "net.max_request_bytes=1m",
                                         "message.max.bytes=500k",
                                         "net.recv_buffers=16",
                                         "net.inflight_per_connection=4",
                                         NULL };
    enum { PEERS = 12, FRAMES = 8, LEN = 250000 };
    u16 port = server_start(tight);
    int fds[PEERS];
    size_t at[PEERS] = { 0 };
    u8 *all = mem_alloc((size_t)FRAMES * (4 + LEN));
    for (u32 i = 0; i < FRAMES; i++) {
        u8 *f = frame_make('d', LEN, i);
        memcpy(all + i * (4 + LEN), f, 4 + LEN);
        mem_free(f);
    }
    for (u32 i = 0; i < PEERS; i++)
        fds[i] = dial(port);
    u8 *sink = mem_alloc(MIB);
    size_t got[PEERS] = { 0 }, total = (size_t)FRAMES * (4 + LEN);
    for (bool busy = true; busy;) {
        busy = false;
        for (u32 i = 0; i < PEERS; i++) {
            size_t part = MIN(total - at[i], (size_t)(i < 2 ? 20011 : 100000));
            ssize_t k = part ? send(fds[i], all + at[i], part, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
            at[i] += k > 0 ? (size_t)k : 0;
            k = got[i] < total ? recv(fds[i], sink, MIB, MSG_DONTWAIT) : 0;
            assert_true(k != 0 || got[i] == total);
            if (k > 0) {
                assert_memory_equal(sink, all + got[i], (size_t)k);
                got[i] += (size_t)k;
            }
            busy |= got[i] < total;
        }
    }
    for (u32 i = 0; i < PEERS; i++)
        close(fds[i]);
    assert_true(metric_get(fix.shards[0].metrics, M_backpressure) > 0);
    mem_free(sink);
    mem_free(all);
    server_stop();
}

static void a_peer_that_does_not_read_is_not_read(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    int fd = dial(port), other = dial(port);
    for (u32 i = 0; i < 200; i++)
        send_frame(fd, 'b', 10, i); /* 200 MiB of answers asked for */
    for (u32 i = 0; i < 20; i++) {
        send_frame(other, 'e', 10, i);
        expect_frame(other, 'e', 10, i);
    }
    usleep(50000);
    assert_true(READ(handled) < 100);
    u8 *sink = mem_alloc(MIB + 4);
    for (u32 i = 0; i < 200; i++)
        assert_true(get_all(fd, sink, MIB + 4));
    mem_free(sink);
    close(fd);
    close(other);
    server_stop();
}

/* All long answers are ready in one turn: it sends its share, later ones the rest. */
static void long_answers_share_a_turn(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    u8 *sink = mem_alloc(MIB + 4);
    bulk_total = bulk_peak = 0;
    for (u32 round = 0; round < 2; round++) {
        int fds[GATHERED];
        for (u32 i = 0; i < GATHERED; i++) {
            fds[i] = dial(port);
            send_frame(fds[i], 'g', 10, i);
        }
        WAIT_FOR(READ(handled) == (round + 1) * GATHERED);
        for (u32 i = 0; round == 1 && i < GATHERED / 2; i++)
            close(fds[i]); /* those in the line leave it */
        for (u32 i = round * GATHERED / 2; i < GATHERED; i++) {
            assert_true(get_all(fds[i], sink, MIB + 4));
            close(fds[i]);
        }
        if (round == 0)
            assert_int_equal(READ(bulk_total), GATHERED * (MIB + 4));
    }
    assert_true(READ(bulk_peak) >= TURN_BULK_BYTES / 2);
    assert_true(READ(bulk_peak) < TURN_BULK_BYTES + 256 * KIB);
    assert_true(metric_get(fix.shards[0].metrics, M_sends_deferred) > GATHERED);
    int fd = dial(port);
    u32 before = READ(bulk_total);
    send_frame(fd, 'e', 5000, 1); /* short: no bulk */
    expect_frame(fd, 'e', 5000, 1);
    assert_int_equal(READ(bulk_total), before);
    close(fd);
    mem_free(sink);
    server_stop();
}

static void idle_and_half_sent_are_closed(void **state)
{
    (void)state;
    static const char *const quick[] = { "net.listen=127.0.0.1:0", "net.idle_timeout=1500ms",
                                         "net.frame_timeout=1s", NULL };
    u16 port = server_start(quick);
    int idle = dial(port), half = dial(port), head = dial(port);
    u8 *f = frame_make('e', 5000, 1);
    put_all(half, f, 1000);
    put_all(head, f, 2);
    assert_true(at_end(half));
    assert_true(at_end(head));
    assert_true(at_end(idle));
    assert_int_equal(metric_get(fix.shards[0].metrics, M_connections_idle_closed), 3);
    close(half);
    close(head);
    close(idle);
    mem_free(f);
    server_stop();
}

static void too_many_connections_are_refused(void **state)
{
    (void)state;
    static const char *const few[] = { "net.listen=127.0.0.1:0", "net.max_connections_per_ip=5",
                                       NULL };
    u16 port = server_start(few);
    quiet(LOG_ERROR);
    int fds[8];
    for (u32 i = 0; i < 8; i++)
        fds[i] = dial(port);
    for (u32 i = 5; i < 8; i++)
        assert_true(at_end(fds[i]));
    send_frame(fds[4], 'e', 10, 1);
    expect_frame(fds[4], 'e', 10, 1);
    for (u32 i = 0; i < 8; i++)
        close(fds[i]);
    WAIT_FOR(READ(closed) == 5);
    int fd = dial(port); /* room again */
    send_frame(fd, 'e', 10, 1);
    expect_frame(fd, 'e', 10, 1);
    close(fd);
    quiet(LOG_WARN);
    server_stop();
}

static u64 resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size = 0, rss = 0;
    CHECK(f && fscanf(f, "%lu %lu", &size, &rss) == 2);
    fclose(f);
    return rss * 4096;
}

static void thousands_of_connections_cost_little(void **state)
{
    (void)state;
    struct rlimit lim;
    CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
    lim.rlim_cur = lim.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
    u32 count = (u32)MIN(lim.rlim_cur / 2 - 200, (u64)5000);
    u16 port = server_start(plain);
    int *fds = mem_alloc(count * sizeof *fds);
    u64 before = resident_bytes();
    for (u32 i = 0; i < count; i++)
        fds[i] = dial(port);
    WAIT_FOR(READ(opened) == count);
    u64 idle = resident_bytes();
    for (u32 i = 0; i < count; i++)
        send_frame(fds[i], 'd', 200, i);
    for (u32 i = 0; i < count; i++)
        expect_frame(fds[i], 'd', 200, i);
    u64 after = resident_bytes();
    print_message("%u connections: %" PRIu64 " bytes each idle, %" PRIu64
                  " after one request each\n",
                  count, (idle - before) / count, (after - before) / count);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true((idle - before) / count < 2048);
#endif
    for (u32 i = 0; i < count; i++)
        close(fds[i]);
    WAIT_FOR(READ(closed) == count);
    mem_free(fds);
    server_stop();
}

static void stopping_answers_what_is_in_flight(void **state)
{
    (void)state;
    u16 port = server_start(plain);
    int fd = dial(port), idle = dial(port);
    for (u32 i = 0; i < 10; i++)
        send_frame(fd, 'd', 100, i);
    WAIT_FOR(READ(handled) == 10);
    server_stop();
    for (u32 i = 0; i < 10; i++)
        expect_frame(fd, 'd', 100, i);
    assert_true(at_end(fd));
    assert_true(at_end(idle));
    close(fd);
    close(idle);
}

/* ---- several shards ---- */

static struct net *nets[3];
static u16 ports[3];

static err many_start(struct shard *s)
{
    static const struct net_handler handler = { .request = on_request };
    char why[256];
    err e = net_start(s, &handler, &nets[s->index], why, sizeof why);
    ports[s->index] = e == ERR_NONE ? net_port(nets[s->index]) : 0;
    return e;
}

static bool many_drained(struct shard *s)
{
    struct net *n = nets[s->index];
    if (!n)
        return true;
    net_stop(n);
    if (!net_stopped(n))
        return false;
    net_free(n);
    nets[s->index] = NULL;
    return true;
}

/* Three ports in a row that are free now, below the range that connections take theirs from. */
static u16 free_ports(void)
{
    char why[256];
    for (u16 base = (u16)(12000 + getpid() % 9000 * 2);; base += 3) {
        u16 i = 0;
        while (i < 3 && io_listen_probe("127.0.0.1", (u16)(base + i), why, sizeof why) == ERR_NONE)
            i++;
        if (i == 3)
            return base;
    }
}

static void shards_share_a_port_or_have_their_own(void **state)
{
    (void)state;
    for (u32 own = 0; own < 2; own++) {
        char listen[64], why[512] = "";
        u16 base = free_ports();
        snprintf(listen, sizeof listen, "net.listen=127.0.0.1:%u", base);
        const char *const pairs[] = { listen, own ? "net.advertise=shard" : "net.advertise=node",
                                      NULL };
        fixture_init(&fix, 3, pairs);
        if (shard_threads_start(&fix.group, many_start, many_drained, why, sizeof why) != ERR_NONE)
            fail_msg("%s", why);
        int fds[60];
        for (u32 i = 0; i < 60; i++) {
            fds[i] = dial((u16)(own ? base + i % 3 : base));
            send_frame(fds[i], 'e', 10, i);
            expect_frame(fds[i], 'e', 10, i);
        }
        for (u32 i = 0; i < 3; i++) {
            assert_int_equal(ports[i], own ? base + i : base);
            u64 here = metric_get(fix.shards[i].metrics, M_connections_opened);
            assert_true(own ? here == 20 : here > 0 && here < 60);
        }
        for (u32 i = 0; i < 60; i++)
            close(fds[i]);
        shard_threads_stop(&fix.group);
        shard_threads_join(&fix.group);
        fixture_free(&fix);
    }
}

static void addresses_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        u16 port;
        bool good;
    } cases[] = {
        { "127.0.0.1:9092", "127.0.0.1", 9092, true },
        { "localhost", "localhost", 9092, true },
        { "[::1]:1234", "::1", 1234, true },
        { "[::1]", "::1", 9092, true },
        { "::1", "::1", 9092, true },
        { ":9093", "", 9093, true },
        { "*:1", "*", 1, true },
        { "a:b", "", 0, false },
        { "a:70000", "", 0, false },
        { "a:", "", 0, false },
        { "[::1", "", 0, false },
        { "[::1]9", "", 0, false },
        { "a:-1", "", 0, false },
    };
    for (u32 i = 0; i < ARRAY_COUNT(cases); i++) {
        struct config cfg;
        char why[256], host[64];
        u16 port = 0;
        config_init(&cfg);
        assert_int_equal(
            config_set(&cfg, "net.listen", cases[i].text, CONFIG_FILE, why, sizeof why), ERR_NONE);
        err e = net_listen_address(&cfg, host, sizeof host, &port, why, sizeof why);
        assert_int_equal(e == ERR_NONE, cases[i].good);
        if (cases[i].good) {
            assert_string_equal(host, cases[i].host);
            assert_int_equal(port, cases[i].port);
        }
        config_free(&cfg);
    }
}

int main(void)
{
    log_threshold = LOG_WARN;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_split),
        cmocka_unit_test(frames_of_all_sizes_come_back),
        cmocka_unit_test(answers_keep_the_order_of_requests),
        cmocka_unit_test(frames_may_come_byte_by_byte),
        cmocka_unit_test(bad_lengths_close_after_earlier_answers),
        cmocka_unit_test(peers_may_vanish_at_any_moment),
        cmocka_unit_test(nothing_waits_for_a_peer_that_is_gone),
        cmocka_unit_test(frames_wait_for_memory_and_all_get_it),
        cmocka_unit_test(a_peer_that_does_not_read_is_not_read),
        cmocka_unit_test(long_answers_share_a_turn),
        cmocka_unit_test(idle_and_half_sent_are_closed),
        cmocka_unit_test(too_many_connections_are_refused),
        cmocka_unit_test(thousands_of_connections_cost_little),
        cmocka_unit_test(shards_share_a_port_or_have_their_own),
        cmocka_unit_test(stopping_answers_what_is_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
