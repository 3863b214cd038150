/* Connections of a worker: non-blocking sockets in its epoll set.
 *
 * A connection belongs to one node and one lane and is kept for the whole run; when it breaks it
 * is closed, its work is given back (produce_closed, consume_closed), and it is opened again when
 * something is routed to it and its pause is over.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench.h"

#define CONN_RX_BYTES (64 * 1024)
#define CONN_PAUSE_NS (50 * NS_PER_MS)
#define CONN_FRAME_MAX (16 * MIB)

struct conn *conn_get(struct worker *w, i32 node, u32 lane, bool consumer)
{
    for (u32 i = 0; i < w->conn_count; i++) {
        struct conn *c = w->conns[i];
        if (c->node == node && c->lane == lane && c->consumer == consumer)
            return c;
    }
    struct conn *c = MEM_NEW(struct conn);
    c->worker = w;
    c->node = node;
    c->lane = lane;
    c->consumer = consumer;
    c->fd = -1;
    c->rx_cap = CONN_RX_BYTES;
    c->rx = mem_alloc(c->rx_cap);
    if (!consumer)
        produce_init(c);
    if (w->conn_count == w->conn_cap) {
        w->conn_cap = w->conn_cap * 2 + 16;
        w->conns = mem_realloc(w->conns, sizeof(struct conn *) * w->conn_cap);
    }
    w->conns[w->conn_count++] = c;
    return c;
}

static void conn_epoll(struct conn *c, int op, u32 events)
{
    struct epoll_event e = { .events = events, .data.ptr = c };
    CHECK(epoll_ctl(c->worker->epoll, op, c->fd, &e) == 0);
}
void conn_want_write(struct conn *c, bool want)
{
    if (c->want_write == want)
        return;
    c->want_write = want;
    conn_epoll(c, EPOLL_CTL_MOD, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}
static int conn_start(const struct node *n)
{
    char service[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
    struct addrinfo *a = NULL;
    snprintf(service, sizeof service, "%u", n->port);
    if (getaddrinfo(n->host, service, &hints, &a) != 0) {
        hints.ai_flags = 0;
        if (getaddrinfo(n->host, service, &hints, &a) != 0)
            return -1;
    }
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(a);
    return fd;
}
void conn_open(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->state != CONN_CLOSED || w->now < c->retry_ns)
        return;
    for (u32 i = 0; i < w->cluster->node_count; i++)
        if (w->cluster->nodes[i].id == c->node)
            c->fd = conn_start(&w->cluster->nodes[i]);
    c->retry_ns = w->now + CONN_PAUSE_NS;
    if (c->fd < 0) {
        conn_close(c, "cannot connect");
        return;
    }
    c->state = CONN_CONNECTING;
    c->want_write = true;
    conn_epoll(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}
void conn_close(struct conn *c, const char *why)
{
    struct worker *w = c->worker;
    u64 before = w->stats.c.disconnects;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = CONN_CLOSED;
    c->want_write = false;
    c->rx_begin = c->rx_end = 0;
    c->retry_ns = w->now + CONN_PAUSE_NS;
    count(&w->stats.c.disconnects, 1);
    if (before < 3)
        fprintf(stderr, "leat-bench: connection to node %d closed: %s\n", c->node, why);
    if (c->consumer)
        consume_closed(c);
    else
        produce_closed(c);
    worker_want_refresh(w);
}
void conn_flush(struct conn *c)
{
    if (c->state != CONN_OPEN)
        return;
    bool done = c->consumer ? consume_flush(c) : produce_flush(c);
    if (c->state == CONN_OPEN)
        conn_want_write(c, !done);
}

/* Complete answers in rx go to produce_answer; what is left moves to the front. */
static void conn_frames(struct conn *c)
{
    while (c->rx_end - c->rx_begin >= 4) {
        u32 len = get_be32(c->rx + c->rx_begin);
        if (len > CONN_FRAME_MAX) {
            conn_close(c, "an answer is absurdly long");
            return;
        }
        if (c->rx_end - c->rx_begin - 4 < len) {
            if (len + 4 > c->rx_cap) {
                c->rx = mem_realloc(c->rx, len + 4);
                c->rx_cap = len + 4;
            }
            break;
        }
        struct rbuf r = { c->rx + c->rx_begin + 4, c->rx + c->rx_begin + 4 + len, false };
        c->rx_begin += 4 + len;
        if (!produce_answer(c, &r)) {
            conn_close(c, "an answer cannot be understood");
            return;
        }
    }
    memmove(c->rx, c->rx + c->rx_begin, c->rx_end - c->rx_begin);
    c->rx_end -= c->rx_begin;
    c->rx_begin = 0;
}
static void conn_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->rx + c->rx_end, c->rx_cap - c->rx_end, 0);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            conn_close(c, n == 0 ? "by the broker" : strerror(errno));
        return;
    }
    c->rx_end += (u32)n;
    conn_frames(c);
}
static void conn_connected(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        conn_close(c, strerror(error));
        return;
    }
    c->state = CONN_OPEN;
    conn_want_write(c, false);
}
void conn_event(struct conn *c, u32 events)
{
    if (c->state == CONN_CLOSED)
        return;
    c->worker->now = now_ns();
    if (c->state == CONN_CONNECTING)
        conn_connected(c);
    else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        if (c->consumer)
            consume_readable(c);
        else
            conn_readable(c);
    }
    if (c->state != CONN_OPEN)
        return;
    if (c->consumer)
        consume_pump(c);
    else
        produce_pump(c);
}
