/* Listening, accepting, and the life of a shard's network half. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "conn_int.h"
#include "log.h"

#define HOST_SIZE 256u
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS) /* after running out of descriptors or memory */
#define STOP_WAIT_NS (10 * NS_PER_S)      /* then connections are closed unanswered */
#define DEFAULT_PORT 9092

err net_listen_address(const struct config *cfg, char *host, size_t host_size, u16 *port, char *why,
                       size_t why_size)
{
    const char *text = config_str(cfg, CFG_net_listen);
    const char *start = text, *end, *colon;
    if (text[0] == '[') { /* [IPv6]:port */
        start = text + 1;
        end = strchr(start, ']');
        colon = end && end[1] == ':' ? end + 1 : NULL;
        if (!end || (end[1] != '\0' && !colon))
            goto bad;
    } else {
        colon = strrchr(text, ':');
        if (colon && strchr(text, ':') != colon)
            colon = NULL; /* an IPv6 address without a port */
        end = colon ? colon : text + strlen(text);
    }
    if ((size_t)(end - start) >= host_size)
        goto bad;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    *port = DEFAULT_PORT;
    if (!colon)
        return ERR_NONE;
    char *rest;
    unsigned long v = strtoul(colon + 1, &rest, 10);
    if (colon[1] < '0' || colon[1] > '9' || *rest != '\0' || v > UINT16_MAX)
        goto bad;
    *port = (u16)v;
    return ERR_NONE;
bad:
    snprintf(why, why_size, "net.listen: \"%s\" is no address; use HOST:PORT or [IPV6]:PORT", text);
    return ERR_INVALID_CONFIG;
}

/* ---- accepting ---- */

static void accept_start(struct net *n);

static void accept_resumes(struct timer *t)
{
    accept_start(container_of(t, struct net, accept_again));
}

static void accept_done(struct io_op *op)
{
    struct net *n = container_of(op, struct net, accept);
    if (op->err == ERR_NONE) {
        conn_open(n, (io_fd)op->result);
        return;
    }
    if (n->stopping)
        return;
    if (op->err == ERR_CLOSED || op->err == ERR_TIMED_OUT) { /* that one peer gave up */
        accept_start(n);
        return;
    }
    LOG(WARN, accept_failed, "shard=%u err=%s connections=%u remedy=\"%s\"", n->shard->index,
        err_name(op->err), n->conn_count,
        op->err == ERR_BUSY ? "raise the limit of open files (ulimit -n, LimitNOFILE=)" : "-");
    timer_start(&n->shard->timers, &n->accept_again, n->shard->now_ns + ACCEPT_PAUSE_NS,
                accept_resumes);
}

static void accept_start(struct net *n)
{
    if (!n->stopping)
        io_accept(n->shard->io, &n->accept, n->listener, accept_done);
}

/* ---- life ---- */

static void net_limits(struct net *n)
{
    const struct config *cfg = n->shard->cfg;
    u32 shards = n->shard->group->count;
    n->request_bytes_max = config_u64(cfg, CFG_net_request_memory) / shards;
    n->response_bytes_max = config_u64(cfg, CFG_net_response_memory) / shards;
    n->inflight_max = (u32)config_u64(cfg, CFG_net_inflight_per_connection);
    n->frame_bytes_max = (u32)config_u64(cfg, CFG_net_max_request_bytes);
    n->pool_held_max = (u32)config_u64(cfg, CFG_net_recv_buffers) / 2;
    n->buf_bytes = io_buf_bytes(n->shard->io);
}

err net_start(struct shard *s, const struct net_handler *h, struct net **out, char *why,
              size_t why_size)
{
    char host[HOST_SIZE];
    u16 port;
    err e = net_listen_address(s->cfg, host, sizeof host, &port, why, why_size);
    if (e != ERR_NONE)
        return e;
    bool own_port = config_is(s->cfg, CFG_net_advertise, "shard");
    if (own_port && port != 0) {
        if (port + s->index > UINT16_MAX) {
            snprintf(why, why_size, "net.listen: port %u leaves no ports for all shards", port);
            return ERR_INVALID_CONFIG;
        }
        port = (u16)(port + s->index);
    }
    struct net *n = MEM_NEW(struct net);
    MAGIC_INIT(n, NET_MAGIC);
    n->shard = s;
    n->handler = *h;
    e = io_listen(s->io, host, port, &n->listener, &n->port, why, why_size);
    if (e != ERR_NONE) {
        mem_free(n);
        return e;
    }
    struct list *lists[] = { &n->conns,        &n->closed,  &n->dirty,         &n->starved,
                             &n->partials,     &n->sending, &n->free_requests, &n->free_rx,
                             &n->free_batches, &n->bulk };
    for (u32 i = 0; i < ARRAY_COUNT(lists); i++)
        list_init(lists[i]);
    net_limits(n);
    frame_pool_init(&n->frames, MIN(n->request_bytes_max / 4, 64 * MIB));
    shard_add_hook(s, &n->hook, net_hook);
    accept_start(n);
    LOG(INFO, listening, "shard=%u host=\"%s\" port=%u", s->index, host, n->port);
    *out = n;
    return ERR_NONE;
}

void net_stop(struct net *n)
{
    MAGIC_CHECK(n, NET_MAGIC);
    if (n->stopping)
        return;
    n->stopping = true;
    n->stop_deadline_ns = n->shard->now_ns + STOP_WAIT_NS;
    timer_stop(&n->shard->timers, &n->accept_again);
    io_cancel(n->shard->io, &n->accept);
    io_close(n->shard->io, n->listener);
    conns_stop(n);
}

bool net_stopped(const struct net *n)
{
    MAGIC_CHECK(n, NET_MAGIC);
    return n->stopping && list_empty(&n->conns) && list_empty(&n->closed) && io_op_idle(&n->accept);
}

void net_free(struct net *n)
{
    CHECK(net_stopped(n) && n->inflight == 0 && n->request_bytes == 0 && n->response_bytes == 0);
    timer_stop(&n->shard->timers, &n->sweep);
    list_remove(&n->hook.link);
    net_pools_free(n);
    frame_pool_destroy(&n->frames);
    MAGIC_POISON(n);
    mem_free(n);
}

u16 net_port(const struct net *n)
{
    return n->port;
}

u32 net_conn_count(const struct net *n)
{
    return n->conn_count;
}
