/* The simulated network. What it may do:
 *
 *  1. A connection is two streams of bytes, each in order and without loss while it lives.
 *  2. Bytes arrive after any delay, cut into any pieces.
 *  3. A connection may be reset at any time: what was not received by then is lost, on both sides,
 *     and nobody learns how much the other side got.
 *  4. When the node dies its peers learn it sooner or later.
 *  5. A send reads the caller's bytes at any time until it is done (as zero copy does).
 *  6. A new connection comes to any shard that listens.
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "config.h"
#include "sim.h"

#define SOCKS_MAX 8192
#define FD_BASE 1000
#define LISTENER_FD 500
#define WINDOW (256 * 1024u)

struct stream {
    u8 *data;
    u32 cap, len; /* bytes put in */
    u32 arrived;  /* of them at the other end's socket */
    u32 pos;      /* of them taken out by the receiver */
    bool moving;  /* an event will go on with it */
    bool fin;     /* nothing comes behind len */
};

struct sim_conn {
    struct list link; /* io->accepted */
    u32 number;
    struct io *io; /* NULL: not accepted, or the node is gone */
    const struct sim_conn_user *fns;
    void *user;       /* NULL: the client is gone */
    struct stream in; /* client to node */
    struct stream out;
    struct io_op *recv, *send;
    bool send_moving;
    bool dead; /* reset, or one side has closed both ways */
    bool node_closed;
};
static struct sim_conn *socks[SOCKS_MAX];
static u32 sock_count;
static struct io *listeners[SIM_SHARDS_MAX];
static u32 listener_count;

static void in_move(void *arg, u64 x);
static void out_move(void *arg, u64 x);

static u64 net_delay(void)
{
    return fault(sim.faults.net_slow) ? rnd_log(NS_PER_MS, 3 * NS_PER_S)
                                      : rnd_between(5 * NS_PER_US, 200 * NS_PER_US);
}

static void stream_put(struct stream *s, const u8 *data, u32 len)
{
    if (s->pos == s->len)
        s->len = s->arrived = s->pos = 0;
    if (s->len + len > s->cap) {
        s->cap = MAX(4096, (s->len + len) * 2);
        s->data = mem_realloc(s->data, s->cap);
    }
    if (len > 0)
        memcpy(s->data + s->len, data, len);
    s->len += len;
}

/* Some of what is under way arrives. */
static void stream_arrive(struct stream *s)
{
    u32 rest = s->len - s->arrived;
    u32 n = rest;
    if (rest > 1 && one_in(3))
        n = 1 + (u32)rnd(one_in(2) ? MIN(rest, 16) : rest);
    s->arrived += MIN(n, rest);
}

static void client_over(struct sim_conn *c)
{
    void *user = c->user;
    c->user = NULL;
    if (user)
        c->fns->closed(c, user);
}

/* ---- ends ---- */

static void ops_fail(struct sim_conn *c, err e)
{
    struct io_op *recv = c->recv, *send = c->send;
    c->recv = c->send = NULL;
    if (recv && recv->kind == OP_RECV_ALL && recv->arg[0] > 0)
        op_ready(recv, ERR_NONE, (i64)recv->arg[0]); /* what came before the end */
    else if (recv)
        op_ready(recv, e, 0);
    if (send)
        op_ready(send, e, 0);
}

static void sock_reset(struct sim_conn *c)
{
    if (c->dead)
        return;
    TRACE("connection %u is reset", c->number);
    STAT(resets);
    c->dead = true;
    ops_fail(c, ERR_CLOSED);
    client_over(c);
}

static void late_reset(void *arg, u64 x)
{
    (void)x;
    client_over(arg);
}

void net_crash(void)
{
    for (u32 i = 0; i < sock_count; i++) {
        struct sim_conn *c = socks[i];
        if (c->io || !c->dead)
            sim_after(rnd_log(NS_PER_US, 500 * NS_PER_MS), late_reset, c, 0);
        c->dead = true;
        c->io = NULL;
        c->recv = c->send = NULL;
        list_init(&c->link);
    }
    listener_count = 0;
}

void net_forget(void)
{
    for (u32 i = 0; i < sock_count; i++) {
        mem_free(socks[i]->in.data);
        mem_free(socks[i]->out.data);
        mem_free(socks[i]);
    }
    sock_count = listener_count = 0;
}

/* ---- the client's side ---- */

static void connect_arrives(void *arg, u64 x)
{
    (void)x;
    struct sim_conn *c = arg;
    if (!c->user || c->dead)
        return;
    if (listener_count == 0) {
        c->dead = true;
        client_over(c);
        return;
    }
    c->io = listeners[rnd(listener_count)];
    list_push_back(&c->io->accepted, &c->link);
    c->fns->opened(c, c->user);
}

struct sim_conn *net_connect(const struct sim_conn_user *fns, void *user)
{
    CHECK(user != NULL);
    if (sock_count == SOCKS_MAX)
        sim_fail("simulator: out of sockets");
    struct sim_conn *c = MEM_NEW(struct sim_conn);
    list_init(&c->link);
    c->number = sock_count;
    c->fns = fns;
    c->user = user;
    socks[sock_count++] = c;
    sim_after(net_delay(), connect_arrives, c, 0);
    return c;
}

void net_send(struct sim_conn *c, const u8 *data, u32 len)
{
    if (c->dead)
        return;
    stream_put(&c->in, data, len);
    if (!c->in.moving) {
        c->in.moving = true;
        sim_after(net_delay(), in_move, c, 0);
    }
}

void net_hangup(struct sim_conn *c, bool reset)
{
    c->user = NULL;
    if (c->dead)
        return;
    if (reset || !c->io) {
        sock_reset(c);
        return;
    }
    c->in.fin = true;
    if (!c->in.moving) {
        c->in.moving = true;
        sim_after(net_delay(), in_move, c, 0);
    }
}

/* ---- client to node ---- */

static u32 recv_bytes(struct sim_conn *c, u32 room)
{
    u32 n = MIN(room, c->in.arrived - c->in.pos);
    return n > 1 && one_in(4) ? 1 + (u32)rnd(n) : n;
}

static void recv_pooled(struct sim_conn *c)
{
    struct io *io = c->io;
    struct io_op *op = c->recv;
    c->recv = NULL;
    if (io->buf_free == 0) {
        op_ready(op, ERR_NO_MEMORY, 0);
        return;
    }
    op->buf_id = io->free_bufs[--io->buf_free];
    op->buf = io->bufs + (u64)op->buf_id * io->buf_bytes;
    u32 room = op->len_max && one_in(2) ? MIN(op->len_max, io->buf_bytes) : io->buf_bytes;
    u32 n = recv_bytes(c, room);
    memcpy(op->buf, c->in.data + c->in.pos, n);
    c->in.pos += n;
    op->more = c->in.pos < c->in.arrived;
    op_ready(op, ERR_NONE, n);
}

static void recv_direct(struct sim_conn *c)
{
    struct io_op *op = c->recv;
    bool all = op->kind == OP_RECV_ALL;
    u32 want = (u32)(op->arg[1] - op->arg[0]);
    u32 n = all ? MIN(want, c->in.arrived - c->in.pos) : recv_bytes(c, want);
    memcpy(op->buf + op->arg[0], c->in.data + c->in.pos, n);
    c->in.pos += n;
    op->arg[0] += n;
    if (all && op->arg[0] < op->arg[1])
        return;
    c->recv = NULL;
    op->more = c->in.pos < c->in.arrived;
    op_ready(op, ERR_NONE, (i64)op->arg[0]);
}

static void recv_try(struct sim_conn *c)
{
    if (!c->recv)
        return;
    if (c->in.pos < c->in.arrived) {
        if (c->recv->kind == OP_RECV_POOLED)
            recv_pooled(c);
        else
            recv_direct(c);
        return;
    }
    if (c->in.fin && c->in.arrived == c->in.len) {
        struct io_op *op = c->recv;
        c->recv = NULL;
        op_ready(op, ERR_NONE, (i64)op->arg[0]);
    }
}

static void in_move(void *arg, u64 x)
{
    (void)x;
    struct sim_conn *c = arg;
    c->in.moving = false;
    if (c->dead)
        return;
    if (fault(sim.faults.net_reset)) {
        sock_reset(c);
        return;
    }
    stream_arrive(&c->in);
    recv_try(c);
    if (c->in.arrived < c->in.len) {
        c->in.moving = true;
        sim_after(net_delay(), in_move, c, 0);
    }
}

/* ---- node to client ---- */

static void send_move(void *arg, u64 x);

/* Copies some bytes out of the caller's memory. */
static void send_some(struct sim_conn *c)
{
    struct io_op *op = c->send;
    u64 at = op->arg[0], total = op->arg[1], skipped = 0;
    u64 n = total - at;
    if (n > 1 && one_in(3))
        n = 1 + rnd(n);
    op->arg[0] += n;
    for (u32 i = 0; i < op->iov_count && n > 0; i++) {
        u64 len = op->iov[i].iov_len;
        if (at < skipped + len) {
            u64 from = at - skipped, part = MIN(n, len - from);
            stream_put(&c->out, (const u8 *)op->iov[i].iov_base + from, (u32)part);
            at += part;
            n -= part;
        }
        skipped += len;
    }
}

static void out_kick(struct sim_conn *c)
{
    if (c->out.moving)
        return;
    c->out.moving = true;
    sim_after(net_delay(), out_move, c, 0);
}

static void send_move(void *arg, u64 x)
{
    (void)x;
    struct sim_conn *c = arg;
    c->send_moving = false;
    if (!c->send || c->dead)
        return;
    if (c->out.len - c->out.pos < WINDOW)
        send_some(c);
    out_kick(c);
    struct io_op *op = c->send;
    if (op->arg[0] == op->arg[1]) {
        c->send = NULL;
        op_ready(op, ERR_NONE, (i64)op->arg[1]);
        return;
    }
    c->send_moving = true;
    sim_after_in_life(net_delay(), send_move, c, 0);
}

static void out_move(void *arg, u64 x)
{
    (void)x;
    struct sim_conn *c = arg;
    c->out.moving = false;
    if (c->dead || !c->user)
        return;
    if (fault(sim.faults.net_reset)) {
        sock_reset(c);
        return;
    }
    stream_arrive(&c->out);
    if (c->out.arrived > c->out.pos) {
        u32 from = c->out.pos;
        c->out.pos = c->out.arrived;
        c->fns->received(c, c->user, c->out.data + from, c->out.arrived - from);
    }
    if (c->out.arrived < c->out.len) {
        out_kick(c);
    } else if (c->node_closed && !c->dead) {
        c->dead = true;
        client_over(c);
    }
}

/* ---- io.h: sockets ---- */

static struct sim_conn *sock_of(io_fd fd)
{
    CHECK(fd >= FD_BASE && (u32)(fd - FD_BASE) < sock_count);
    struct sim_conn *c = socks[fd - FD_BASE];
    if (c->node_closed)
        sim_fail("io: connection %u is used after io_close", c->number);
    return c;
}

err io_listen(struct io *io, const char *host, u16 port, io_fd *out, u16 *bound_port, char *why,
              size_t why_size)
{
    (void)host, (void)why, (void)why_size;
    CHECK(listener_count < SIM_SHARDS_MAX);
    listeners[listener_count++] = io;
    io->listener = LISTENER_FD + (io_fd)io->index;
    *out = io->listener;
    *bound_port = port ? port : 9092;
    return ERR_NONE;
}

void io_accept(struct io *io, struct io_op *op, io_fd listener, io_done done)
{
    CHECK(!io->accept && listener == io->listener);
    op_begin(io, op, OP_ACCEPT, listener, done);
    io->accept = op;
}

bool net_run_accepted(struct io *io)
{
    if (!io->accept || list_empty(&io->accepted))
        return false;
    struct sim_conn *c = list_entry(list_pop_front(&io->accepted), struct sim_conn, link);
    TRACE("shard %u accepts connection %u", io->index, c->number);
    io->accept->err = ERR_NONE;
    io->accept->result = FD_BASE + (io_fd)c->number;
    io->accept->done(io->accept);
    return true;
}

static void listener_close(struct io *io)
{
    u32 n = 0;
    for (u32 i = 0; i < listener_count; i++)
        if (listeners[i] != io)
            listeners[n++] = listeners[i];
    listener_count = n;
    for (struct list *l; (l = list_pop_front(&io->accepted));)
        sock_reset(list_entry(l, struct sim_conn, link));
}

void net_io_destroy(struct io *io)
{
    for (u32 i = 0; i < sock_count; i++)
        if (socks[i]->io == io && !socks[i]->node_closed && !socks[i]->dead)
            sim_fail("io: connection %u was never closed", i);
    listener_close(io);
}

void net_cancel(struct io_op *op)
{
    if (op->kind == OP_ACCEPT) {
        op->io->accept = NULL;
        op_ready(op, ERR_CANCELED, 0);
        return;
    }
    struct sim_conn *c = sock_of(op->fd);
    if (c->recv == op)
        c->recv = NULL;
    else if (c->send == op)
        c->send = NULL;
    else
        return; /* about to end by itself */
    op_ready(op, ERR_CANCELED, 0);
}

static void recv_event(void *arg, u64 x)
{
    (void)x;
    struct sim_conn *c = arg;
    if (c->recv && c->dead)
        ops_fail(c, ERR_CLOSED);
    else
        recv_try(c);
}

static void recv_begin(struct io *io, struct io_op *op, io_fd fd, enum op_kind kind, io_done done)
{
    struct sim_conn *c = sock_of(fd);
    CHECK(!c->recv);
    op_begin(io, op, kind, fd, done);
    c->recv = op;
    if (c->dead || c->in.pos < c->in.arrived || c->in.fin)
        sim_after_in_life(rnd_between(100, 5 * NS_PER_US), recv_event, c, 0);
}

void io_recv_pooled(struct io *io, struct io_op *op, io_fd fd, io_done done)
{
    op->buf = NULL;
    recv_begin(io, op, fd, OP_RECV_POOLED, done);
}

void io_recv(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, bool all, io_done done)
{
    CHECK(len > 0);
    recv_begin(io, op, fd, all ? OP_RECV_ALL : OP_RECV, done);
    op->buf = buf;
    op->arg[1] = len;
}

static void send_event(void *arg, u64 x)
{
    struct sim_conn *c = arg;
    if (c->send && c->dead) {
        struct io_op *op = c->send;
        c->send = NULL;
        op_ready(op, ERR_CLOSED, 0);
        return;
    }
    send_move(arg, x);
}

void io_send(struct io *io, struct io_op *op, io_fd fd, struct iovec *iov, u32 iov_count,
             io_done done)
{
    struct sim_conn *c = sock_of(fd);
    CHECK(!c->send && iov_count > 0);
    op_begin(io, op, OP_SEND, fd, done);
    op->iov = iov;
    op->iov_count = iov_count;
    for (u32 i = 0; i < iov_count; i++)
        op->arg[1] += iov[i].iov_len;
    c->send = op;
    sim_effect("send");
    if (!c->send_moving) {
        c->send_moving = true;
        sim_after_in_life(rnd_between(100, 20 * NS_PER_US), send_event, c, 0);
    }
}

void io_close(struct io *io, io_fd fd)
{
    if (fd == io->listener) {
        listener_close(io);
        io->listener = -1;
        return;
    }
    struct sim_conn *c = sock_of(fd);
    ops_fail(c, ERR_CLOSED);
    c->node_closed = true;
    if (c->dead)
        return;
    /* Closing with unread bytes makes a kernel reset: answers under way may be lost. */
    bool unread = c->in.pos < c->in.len && one_in(2);
    if (unread || !c->user) {
        c->dead = true;
        sim_after(net_delay(), late_reset, c, 0);
    } else {
        out_kick(c);
    }
}

void io_peer_name(struct io *io, io_fd fd, char *buf, size_t size)
{
    (void)io;
    snprintf(buf, size, "10.0.0.1:%u", sock_of(fd)->number);
}
