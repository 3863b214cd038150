/* Connections: framing, order of answers, back-pressure. Contract in conn.h.
 *
 *   recv_pooled ─► rx buffer ─┬─ whole frame, small ── copied into the request's arena
 *                             ├─ whole frame, large ── decoded where it lies; buffer counted
 *                             └─ tail of a frame ───── copied to frame_buf, then a direct recv of
 *                                                      exactly the rest
 *   request ─► handler->request ─► … request_respond ─► turn's hook: one sendmsg with all answers
 *                                                      that are next in order
 *
 * conn_advance() is the only driver of the receiving half: it takes frames out of what has come
 * and starts the next receive, until something stands in the way; whoever removes that obstacle
 * calls it again:
 *     too many requests in flight, or too much unsent     send_done
 *     muted                                               the mute timer
 *     no request or response memory, no pooled buffer     starved list, from the hook
 *
 * Invariants
 * 1. Answers leave in the order of arrival: only a prefix of c->requests that is ready is sent.
 * 2. A connection has at most one receive and one send in flight. It is freed only when it is
 *    closed, both are idle and its list of requests is empty.
 * 3. rx->refs = 1 for the connection while it is c->rx, + 1 for each request whose frame lies in
 *    its buffer. The buffer goes back when nothing refers to it.
 * 4. n->starved is served first come first served: when it is not empty nobody else starts
 *    to receive a new frame. A frame that has been begun never needs more memory, so those in
 *    front always get theirs.
 * 5. Nothing is freed inside calls of the upper layer (request_respond, request_malformed,
 *    conn_mute): only from completions and the hook.
 *
 * Small frames are copied because they may stay long (a consumer's long poll) and would pin
 * 16 KiB each; large ones (produce) are answered soon.
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "conn_int.h"
#include "log.h"

#define LENGTH_BYTES 4u
#define COPY_TO_ARENA 1024u     /* frames up to here are copied into the arena */
#define COPY_SMALL 4096u        /* up to here into a small buffer of the frame pool */
#define BIG_FRAME_PEEK 512u     /* after a large frame: only the head of the next one is copied */
#define OUT_BYTES_MAX (2 * MIB) /* unsent answers of one connection beyond which it is not read */
#define RESUME_BATCH 64u        /* starved connections that go on in one turn */
#define DIRECT_MAX MIB          /* one direct receive; longer frames show their progress */

static void conn_advance(struct conn *c);
static void conn_recv_done(struct io_op *op);
static void conn_direct_done(struct io_op *op);
static void conn_send_done(struct io_op *op);

static void conn_mark_dirty(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    list_push_back(&c->net->dirty, &c->dirty_link);
    if (!c->net->shard->hooks_ahead && !c->net->in_hook)
        c->net->shard->turn_again = true;
}

void conn_touch(struct conn *c)
{
    c->active_ns = c->net->shard->now_ns;
    list_remove(&c->link);
    list_push_back(&c->net->conns, &c->link);
}

/* The connection has looked at all bytes of its buffer. */
static void conn_rx_consumed(struct conn *c)
{
    struct rx_buf *rx = c->rx;
    c->rx_pos = c->rx_len = 0;
    if (rx->refs > 1) { /* requests lie in it: it is theirs */
        rx->conn = NULL;
        rx->refs--;
        c->rx = NULL;
    } else if (rx->op.buf) {
        io_buf_release(c->net->shard->io, &rx->op);
        c->net->released = true;
    }
}

/* ---- life of a connection ---- */

/* NOLINTNEXTLINE(readability-function-size): uthash's macros are long */
static struct peer_ip *peer_ip_find(struct net *n, const char *peer)
{
    char host[PEER_SIZE];
    snprintf(host, sizeof host, "%s", peer);
    char *colon = strrchr(host, ':');
    if (colon)
        *colon = '\0';
    struct peer_ip *ip;
    HASH_FIND_STR(n->ips, host, ip);
    if (!ip) {
        ip = MEM_NEW(struct peer_ip);
        memcpy(ip->host, host, sizeof host);
        HASH_ADD_STR(n->ips, host, ip);
    }
    return ip;
}

static void peer_ip_drop(struct net *n, struct peer_ip *ip)
{
    if (--ip->count > 0)
        return;
    HASH_DEL(n->ips, ip);
    mem_free(ip);
}

/* NULL, or why one more connection is not taken. Bounds of the node are split over its shards. */
static const char *conn_refuse(const struct net *n, const struct peer_ip *ip)
{
    const struct config *cfg = n->shard->cfg;
    u64 shards = n->shard->group->count;
    if (n->stopping)
        return "stopping";
    if (n->conn_count >= (config_u64(cfg, CFG_net_max_connections) + shards - 1) / shards)
        return "net.max_connections";
    if (ip->count > (config_u64(cfg, CFG_net_max_connections_per_ip) + shards - 1) / shards)
        return "net.max_connections_per_ip";
    return NULL;
}

void conn_open(struct net *n, io_fd fd)
{
    char peer[PEER_SIZE];
    io_peer_name(n->shard->io, fd, peer, sizeof peer);
    if (peer[0] == '\0') /* reset already; the first receive will tell */
        snprintf(peer, sizeof peer, "gone:0");
    struct peer_ip *ip = peer_ip_find(n, peer);
    ip->count++;
    const char *refused = conn_refuse(n, ip);
    if (refused) {
        LOG(WARN, connection_refused, "shard=%u peer=\"%s\" bound=\"%s\" connections=%u",
            n->shard->index, peer, refused, n->conn_count);
        metric_add(n->shard->metrics, M_connections_refused, 1);
        peer_ip_drop(n, ip);
        io_close(n->shard->io, fd);
        return;
    }
    struct conn *c = MEM_NEW(struct conn);
    MAGIC_INIT(c, CONN_MAGIC);
    c->net = n;
    c->fd = fd;
    c->ip = ip;
    c->id = ++n->next_id;
    memcpy(c->peer, peer, sizeof peer);
    /* Zero copy on loopback is a copy and a notification: measured 1.7 to 2.4 times the CPU. */
    c->send.copies = strncmp(peer, "127.", 4) == 0 || strncmp(peer, "[::1]", 5) == 0;
    struct list *links[] = { &c->requests,     &c->link,         &c->dirty_link, &c->starved_link,
                             &c->partial_link, &c->sending_link, &c->bulk_link };
    for (u32 i = 0; i < ARRAY_COUNT(links); i++)
        list_init(links[i]);
    n->conn_count++;
    metric_add(n->shard->metrics, M_connections_opened, 1);
    metric_set(n->shard->metrics, M_connections, n->conn_count);
    conn_touch(c);
    net_sweep_start(n);
    if (n->handler.opened)
        n->handler.opened(c);
    c->more = true; /* many clients send with the handshake's last packet: try at once */
    conn_advance(c);
}

static void conn_frame_buf_drop(struct conn *c)
{
    if (c->frame_buf)
        net_frame_drop(c->net, c->frame_buf, c->frame_cap);
    c->frame_buf = NULL;
}

/* Nobody will listen any more: what waits is not to wait for as long as it was asked to. */
static void conn_hurry(struct conn *c)
{
    list_for(it, &c->requests) {
        struct request *r = list_entry(it, struct request, link);
        if (!r->ready && r->gone)
            r->gone(r);
    }
}

/* Closes the descriptor; memory goes when the last op and request have ended. `why` is for the
 * debug log. */
void conn_close(struct conn *c, const char *why)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    struct net *n = c->net;
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_CLOSED;
    LOG(DEBUG, connection_closed, "shard=%u peer=\"%s\" why=\"%s\"", n->shard->index, c->peer, why);
    list_remove(&c->starved_link);
    list_remove(&c->partial_link);
    list_remove(&c->sending_link);
    list_remove(&c->bulk_link);
    list_remove(&c->link);
    list_push_back(&n->closed, &c->link);
    timer_stop(&n->shard->timers, &c->mute);
    peer_ip_drop(n, c->ip);
    c->ip = NULL;
    n->conn_count--;
    metric_add(n->shard->metrics, M_connections_closed, 1);
    metric_set(n->shard->metrics, M_connections, n->conn_count);
    conn_hurry(c);
    if (n->handler.closed)
        n->handler.closed(c);
    io_close(n->shard->io, c->fd);
    conn_mark_dirty(c);
}

/* Frees what a closed connection still has, as far as ops in flight and the upper layer allow. */
static void conn_reap(struct conn *c)
{
    struct net *n = c->net;
    if (!io_op_idle(&c->send)) /* it reads from the requests' memory */
        return;
    list_for_safe(it, &c->requests) {
        struct request *r = list_entry(it, struct request, link);
        if (r->ready)
            conn_request_free(c, r);
    }
    if (c->rx && !io_op_idle(&c->rx->op)) /* it may write into frame_buf */
        return;
    conn_frame_buf_drop(c);
    if (c->rx) {
        conn_rx_unref(n, c->rx);
        c->rx = NULL;
    }
    if (!list_empty(&c->requests))
        return;
    CHECK(c->inflight == 0 && c->out_bytes == 0 && !c->batch);
    list_remove(&c->link);
    list_remove(&c->dirty_link);
    MAGIC_POISON(c);
    mem_free(c);
}

/* ---- bytes in ---- */

static void conn_starve(struct conn *c)
{
    metric_add(c->net->shard->metrics, M_backpressure, 1);
    list_remove(&c->partial_link); /* now the time is ours */
    if (!list_linked(&c->starved_link))
        list_push_back(&c->net->starved, &c->starved_link);
}

static void partial_begin(struct conn *c)
{
    if (list_linked(&c->partial_link))
        return;
    c->partial_since_ns = c->net->shard->now_ns;
    list_push_back(&c->net->partials, &c->partial_link);
}

/* What can't be a frame: closes when what came before it has been answered. */
static void conn_refuse_frame(struct conn *c, i32 len)
{
    struct net *n = c->net;
    bool large = len > 0;
    metric_add(n->shard->metrics, large ? M_requests_too_large : M_requests_malformed, 1);
    LOG(WARN, frame_refused, "shard=%u peer=\"%s\" frame_bytes=%d bound_bytes=%u why=\"%s\"",
        n->shard->index, c->peer, len, n->frame_bytes_max,
        large ? "larger than net.max_request_bytes" : "not a Kafka request");
    c->reading_stopped = true;
    if (c->inflight == 0)
        conn_close(c, "bad frame length");
    else
        c->close_when_empty = true;
    conn_hurry(c);
}

static void conn_dispatch(struct conn *c, struct request *r)
{
    struct net *n = c->net;
    list_push_back(&c->requests, &r->link);
    c->inflight++;
    n->inflight++;
    conn_touch(c);
    n->handler.request(r);
}

/* A whole frame lies at `data` in the pooled buffer. */
static void conn_frame_pooled(struct conn *c, const u8 *data, u32 len)
{
    struct net *n = c->net;
    struct request *r = conn_request_take(c, len);
    if (len <= COPY_TO_ARENA) {
        r->frame = arena_copy(&r->arena, bytes_of(data, len));
        CHECK(r->frame.data != NULL);
    } else if (len <= COPY_SMALL || n->pool_held >= n->pool_held_max) {
        r->frame_buf = frame_pool_take(&n->frames, len, &r->frame_cap);
        n->request_bytes += r->frame_cap;
        memcpy(r->frame_buf, data, len);
        r->frame = bytes_of(r->frame_buf, len);
    } else {
        r->pooled = true;
        r->recv_hold = &c->rx->op;
        c->rx->refs++;
        n->pool_held++;
        n->request_bytes += n->buf_bytes;
        r->frame = bytes_of(data, len);
    }
    c->big_frames = false;
    conn_dispatch(c, r);
}

/* frame_buf is complete. */
static void conn_frame_direct(struct conn *c)
{
    struct request *r = conn_request_take(c, c->frame_len);
    r->frame_buf = c->frame_buf;
    r->frame_cap = c->frame_cap;
    r->frame = bytes_of(c->frame_buf, c->frame_len);
    c->frame_buf = NULL;
    list_remove(&c->partial_link);
    c->big_frames = c->frame_len > c->net->buf_bytes;
    conn_dispatch(c, r);
}

/* Takes what is there of a frame of `len` bytes into a buffer of its own. False: no memory. */
static bool conn_frame_begin(struct conn *c, u32 len)
{
    struct net *n = c->net;
    if (!conn_memory_allows(n, c, frame_pool_cap(len))) {
        conn_starve(c);
        return false;
    }
    list_remove(&c->starved_link);
    c->frame_buf = frame_pool_take(&n->frames, len, &c->frame_cap);
    n->request_bytes += c->frame_cap;
    c->frame_len = len;
    u32 have = c->rx_len - c->rx_pos;
    CHECK(have <= len);
    if (have > 0)
        memcpy(c->frame_buf, c->rx->op.buf + c->rx_pos, have);
    c->frame_have = have;
    c->head_len = 0;
    return true;
}

/* One step over the bytes in the pooled buffer: completes the length prefix, then hands over one
 * frame. False: nothing more can be done now. */
static bool conn_parse(struct conn *c)
{
    const u8 *p = c->rx->op.buf + c->rx_pos;
    u32 left = c->rx_len - c->rx_pos;
    if (c->head_len < LENGTH_BYTES) {
        u32 n = MIN(LENGTH_BYTES - c->head_len, left);
        memcpy(c->head + c->head_len, p, n);
        c->head_len = (u8)(c->head_len + n);
        c->rx_pos += n;
        left -= n;
        p += n;
    }
    if (c->head_len < LENGTH_BYTES) {
        conn_rx_consumed(c);
        partial_begin(c);
        return true;
    }
    i32 len = (i32)get_be32(c->head);
    if (len <= 0 || (u32)len > c->net->frame_bytes_max) {
        conn_refuse_frame(c, len);
        return false;
    }
    if (left >= (u32)len) {
        list_remove(&c->partial_link);
        c->head_len = 0;
        c->rx_pos += (u32)len;
        conn_frame_pooled(c, p, (u32)len);
    } else if (!conn_frame_begin(c, (u32)len)) {
        return false;
    } else {
        c->rx_pos = c->rx_len;
    }
    if (c->state == CONN_OPEN && c->rx_pos == c->rx_len)
        conn_rx_consumed(c);
    return true;
}

static void conn_recv_pooled(struct conn *c)
{
    struct net *n = c->net;
    if (!conn_memory_allows(n, c, n->buf_bytes)) {
        conn_starve(c);
        return;
    }
    list_remove(&c->starved_link);
    if (!c->rx)
        c->rx = conn_rx_take(c);
    c->rx->op.more = c->more;
    c->rx->op.len_max = c->big_frames ? BIG_FRAME_PEEK : 0;
    io_recv_pooled(n->shard->io, &c->rx->op, c->fd, conn_recv_done);
}

static void conn_recv_direct(struct conn *c)
{
    if (!c->rx)
        c->rx = conn_rx_take(c);
    partial_begin(c);
    c->rx->op.more = true; /* most often the rest is on its heels */
    io_recv(c->net->shard->io, &c->rx->op, c->fd, c->frame_buf + c->frame_have,
            (u32)MIN(c->frame_len - c->frame_have, DIRECT_MAX), true, conn_direct_done);
}

static void mute_ended(struct timer *t)
{
    conn_advance(container_of(t, struct conn, mute));
}

/* True when something other than memory forbids to read on now. */
static bool conn_must_wait(struct conn *c)
{
    struct net *n = c->net;
    if (c->reading_stopped || (c->rx && !io_op_idle(&c->rx->op)))
        return true;
    if (n->stopping) {
        if (c->inflight == 0)
            conn_close(c, "stopping");
        return true;
    }
    if (c->muted_until_ns > n->shard->now_ns) {
        timer_start(&n->shard->timers, &c->mute, c->muted_until_ns, mute_ended);
        return true;
    }
    return c->inflight >= n->inflight_max || c->out_bytes > OUT_BYTES_MAX;
}

static void conn_advance(struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    for (;;) {
        if (c->state == CONN_CLOSED)
            return;
        if (conn_must_wait(c)) {
            list_remove(&c->starved_link); /* it must not hold up those behind it */
            return;
        }
        if (c->frame_buf && c->frame_have < c->frame_len) {
            conn_recv_direct(c);
            return;
        }
        if (c->frame_buf) {
            conn_frame_direct(c);
        } else if (c->rx_pos < c->rx_len || c->head_len == LENGTH_BYTES) {
            if (!conn_parse(c))
                return;
        } else {
            conn_recv_pooled(c);
            return;
        }
    }
}

/* After the end of a receive: true when its bytes are to be looked at. */
static bool conn_recv_ended(struct conn *c, const struct io_op *op)
{
    if (c->state == CONN_CLOSED) {
        conn_mark_dirty(c); /* the hook reaps it */
        return false;
    }
    if (op->err == ERR_NO_MEMORY && !c->frame_buf) {
        conn_starve(c);
        return false;
    }
    if (op->err != ERR_NONE || op->result == 0) {
        conn_close(c, op->err != ERR_NONE ? err_name(op->err) : "closed by peer");
        return false;
    }
    metric_add(c->net->shard->metrics, M_bytes_in, (u64)op->result);
    c->more = op->more;
    return true;
}

static void conn_recv_done(struct io_op *op)
{
    struct conn *c = container_of(op, struct rx_buf, op)->conn;
    MAGIC_CHECK(c, CONN_MAGIC);
    if (!conn_recv_ended(c, op))
        return;
    c->rx_pos = 0;
    c->rx_len = (u32)op->result;
    conn_advance(c);
}

static void conn_direct_done(struct io_op *op)
{
    struct conn *c = container_of(op, struct rx_buf, op)->conn;
    MAGIC_CHECK(c, CONN_MAGIC);
    op->buf = NULL; /* it was not a pooled one */
    if (!conn_recv_ended(c, op))
        return;
    u32 wanted = (u32)MIN(c->frame_len - c->frame_have, DIRECT_MAX);
    c->frame_have += (u32)op->result;
    if ((u64)op->result < wanted) {
        conn_close(c, "closed by peer inside a frame");
        return;
    }
    conn_advance(c);
}

void conn_mute(struct conn *c, u64 until_ns)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    c->muted_until_ns = MAX(c->muted_until_ns, until_ns);
}

/* ---- bytes out ---- */

void request_respond(struct request *r)
{
    MAGIC_CHECK(r, REQUEST_MAGIC);
    CHECK(!r->ready);
    struct conn *c = r->conn;
    r->ready = true;
    if (!r->no_response) {
        u64 bytes = request_answer_bytes(r);
        CHECK(r->out && r->out_len >= LENGTH_BYTES && bytes - LENGTH_BYTES <= INT32_MAX);
        put_be32(r->out, (u32)(bytes - LENGTH_BYTES));
        c->net->response_bytes += r->out_len;
        c->out_bytes += bytes;
    }
    conn_mark_dirty(c);
}

void request_malformed(struct request *r, const char *why)
{
    MAGIC_CHECK(r, REQUEST_MAGIC);
    struct conn *c = r->conn;
    metric_add(c->net->shard->metrics, M_requests_malformed, 1);
    LOG(WARN, request_malformed, "shard=%u peer=\"%s\" api=%d version=%d bytes=%u why=\"%s\"",
        c->net->shard->index, c->peer, r->api_key, r->api_version, r->frame.len, why);
    c->reading_stopped = true;
    r->no_response = true;
    r->close_after = true;
    request_respond(r);
    conn_hurry(c); /* it is not read any more: that the peer leaves would not be seen */
}

bool request_dead(const struct request *r)
{
    MAGIC_CHECK(r, REQUEST_MAGIC);
    return r->conn->state == CONN_CLOSED;
}

struct pieces {
    struct iovec *iov;
    u32 count, max;
    u32 room; /* bytes */
};

/* How many of the bytes have found room. */
static u32 piece_add(struct pieces *ps, const u8 *data, u32 len)
{
    u32 n = ps->count < ps->max ? MIN(len, ps->room) : 0;
    if (n == 0)
        return 0;
    ps->iov[ps->count++] = (struct iovec){ (u8 *)(uintptr_t)data, n };
    ps->room -= n;
    return n;
}

/* Adds what is left of r's answer from the cursor on. False: no room for all of it. */
static bool pieces_of(struct conn *c, const struct request *r, struct pieces *ps)
{
    for (;;) {
        bool last = c->next_ext == r->ext_count;
        u32 at = last ? r->out_len : r->ext[c->next_ext].at;
        CHECK(at >= c->next_out && at <= r->out_len);
        c->next_out += piece_add(ps, r->out + c->next_out, at - c->next_out);
        if (c->next_out < at)
            return false;
        if (last)
            return true;
        struct bytes b = r->ext[c->next_ext].bytes;
        c->next_in += piece_add(ps, b.data + c->next_in, b.len - c->next_in);
        if (c->next_in < b.len)
            return false;
        c->next_in = 0;
        c->next_ext++;
    }
}

/* Frees the first `count` requests: their answers were sent or are not wanted. */
static void conn_requests_sent(struct conn *c, u32 count)
{
    for (u32 i = 0; i < count; i++)
        conn_request_free(c, list_entry(c->requests.next, struct request, link));
}

/* Collects the pieces of all answers that are next in order; counts in c->sending those requests
 * that the pieces complete. */
static void conn_gather(struct conn *c, struct pieces *ps)
{
    c->sending = 0;
    list_for(it, &c->requests) {
        struct request *r = list_entry(it, struct request, link);
        if (!r->ready)
            return;
        if (!r->no_response && !pieces_of(c, r, ps))
            return;
        c->next_out = c->next_ext = 0;
        c->sending++;
        if (r->close_after) {
            c->reading_stopped = true;
            c->close_now = true;
            return;
        }
    }
}

/* The common case, one ready answer in one piece, needs no batch. */
static bool conn_one_piece(const struct conn *c)
{
    const struct request *first = list_entry(c->requests.next, struct request, link);
    if (first->no_response || first->ext_count > 0 || c->next_out > 0)
        return false;
    if (first->link.next == &c->requests)
        return true;
    return !list_entry(first->link.next, struct request, link)->ready;
}

static bool conn_first_ready(const struct conn *c)
{
    return !list_empty(&c->requests) && list_entry(c->requests.next, struct request, link)->ready;
}

/* What the last send (or a silent turn in the order) completed is done with. */
static void conn_sent(struct conn *c)
{
    conn_requests_sent(c, c->sending);
    c->sending = 0;
    if (c->close_now || (c->close_when_empty && c->inflight == 0))
        conn_close(c, "asked to");
}

static void conn_send_start(struct conn *c, struct pieces *ps)
{
    struct net *n = c->net;
    c->send_since_ns = n->shard->now_ns;
    list_push_back(&n->sending, &c->sending_link);
    io_send(n->shard->io, &c->send, c->fd, ps->iov, ps->count, conn_send_done);
}

/* Is it to wait for a later turn? A turn's long sends are bounded together; short ones go at
 * once. */
static bool conn_bulk_waits(struct conn *c)
{
    struct net *n = c->net;
    if (list_linked(&c->bulk_link))
        return true;
    if (c->out_bytes <= SEND_BULK_BYTES || !shard_bulk_spent(n->shard, BULK_SEND))
        return false;
    list_push_back(&n->bulk, &c->bulk_link);
    metric_add(n->shard->metrics, M_sends_deferred, 1);
    return true;
}

/* From the hook: sends what is ready, or reaps, or reads on. */
static void conn_flush(struct conn *c)
{
    if (c->state == CONN_CLOSED) {
        conn_reap(c);
        return;
    }
    if (!io_op_idle(&c->send))
        return;
    if (conn_first_ready(c) && conn_bulk_waits(c))
        return;
    if (conn_first_ready(c)) {
        struct pieces ps = { &c->one, 0, 1, SEND_BYTES_MAX };
        if (!conn_one_piece(c)) {
            c->batch = conn_batch_take(c);
            ps = (struct pieces){ c->batch->iov, 0, BATCH_IOVS, SEND_BYTES_MAX };
        }
        conn_gather(c, &ps);
        if (c->out_bytes > SEND_BULK_BYTES)
            shard_bulk_done(c->net->shard, BULK_SEND, SEND_BYTES_MAX - ps.room);
        if (ps.count > 0) {
            conn_send_start(c, &ps);
            return;
        }
        conn_batch_drop(c);
        conn_sent(c);
    }
    conn_advance(c);
}

static void conn_send_done(struct io_op *op)
{
    struct conn *c = container_of(op, struct conn, send);
    MAGIC_CHECK(c, CONN_MAGIC);
    list_remove(&c->sending_link);
    conn_batch_drop(c);
    metric_add(c->net->shard->metrics, M_bytes_out, (u64)op->result);
    metric_add(c->net->shard->metrics, op->zero_copy ? M_sends_zc : M_sends_copied, 1);
    if (c->state == CONN_CLOSED) {
        conn_mark_dirty(c);
        return;
    }
    if (op->err != ERR_NONE) {
        conn_close(c, err_name(op->err));
        return;
    }
    conn_touch(c);
    conn_sent(c);
    if (conn_first_ready(c))
        conn_mark_dirty(c);
    conn_advance(c);
}

/* ---- once a turn ---- */

/* Lets those that wait for memory go on, in order, until the first that still can't. */
static void starved_resume(struct net *n)
{
    for (u32 i = 0; i < RESUME_BATCH; i++) {
        if (list_empty(&n->starved)) {
            n->released = false;
            return;
        }
        struct list *first = n->starved.next;
        conn_advance(list_entry(first, struct conn, starved_link));
        if (n->starved.next == first) {
            n->released = false;
            return;
        }
    }
    n->shard->turn_again = true;
}

void net_hook(struct shard_hook *h)
{
    struct net *n = container_of(h, struct net, hook);
    n->in_hook = true;
    while (!list_empty(&n->bulk) && !shard_bulk_spent(n->shard, BULK_SEND))
        conn_flush(list_entry(list_pop_front(&n->bulk), struct conn, bulk_link));
    for (u32 round = 0; round < 2; round++) {
        struct list *l;
        while ((l = list_pop_front(&n->dirty)) != NULL) {
            struct conn *c = list_entry(l, struct conn, dirty_link);
            c->dirty = false;
            conn_flush(c);
        }
        if (round == 0 && n->released)
            starved_resume(n);
    }
    if (!list_empty(&n->bulk))
        n->shard->turn_again = true;
    n->in_hook = false;
    struct metrics *m = n->shard->metrics;
    metric_set(m, M_requests_inflight, n->inflight);
    metric_set(m, M_request_memory_bytes, n->request_bytes);
    metric_set(m, M_response_memory_bytes, n->response_bytes);
}

/* ---- the end ---- */

void conns_stop(struct net *n)
{
    list_for_safe(it, &n->conns) {
        struct conn *c = list_entry(it, struct conn, link);
        if (c->inflight == 0)
            conn_close(c, "stopping");
        else
            c->close_when_empty = true;
    }
}

u64 conn_id(const struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    return c->id;
}

const char *conn_peer(const struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    return c->peer;
}

void **conn_user(struct conn *c)
{
    MAGIC_CHECK(c, CONN_MAGIC);
    return &c->user;
}
