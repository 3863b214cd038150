/* Once a second: connections that are idle, frames that don't get complete, peers that don't read
 * their answers while memory is short; the end of a graceful stop; unused buffers. */
#include "conn_int.h"

#define SWEEP_NS NS_PER_S
/* When others wait for memory: who holds a frame's buffer longer than the grace must fill it at
 * least at this rate, and who does not take its answers for the longer grace is closed. */
#define STARVED_GRACE_NS (2 * NS_PER_S)
#define STARVED_SEND_GRACE_NS (10 * NS_PER_S)
#define STARVED_RATE (64 * KIB) /* bytes a second */
#define FRAME_RATE MIB          /* large frames have this much more time: a second for each */

static void sweep_close(struct conn *c, const char *why)
{
    metric_add(c->net->shard->metrics, M_connections_idle_closed, 1);
    conn_close(c, why);
}

static void sweep_idle(struct net *n, u64 now)
{
    i64 timeout_ms = config_i64(n->shard->cfg, CFG_net_idle_timeout_ms);
    if (timeout_ms < 0)
        return;
    while (!list_empty(&n->conns)) {
        struct conn *c = list_entry(n->conns.next, struct conn, link);
        if ((now - c->active_ns) / NS_PER_MS <= (u64)timeout_ms)
            return;
        if (c->inflight > 0 && io_op_idle(&c->send))
            conn_touch(c); /* it waits for us */
        else
            sweep_close(c, "net.idle_timeout");
    }
}

static void sweep_partials(struct net *n, u64 now)
{
    u64 timeout_ns = config_u64(n->shard->cfg, CFG_net_frame_timeout_ms) * NS_PER_MS;
    bool pressure = !list_empty(&n->starved);
    list_for_safe(it, &n->partials) {
        struct conn *c = list_entry(it, struct conn, partial_link);
        u64 age = now - c->partial_since_ns;
        u64 frame_len = c->frame_buf ? c->frame_len : 0;
        if (age > timeout_ns + frame_len * NS_PER_S / FRAME_RATE)
            sweep_close(c, "net.frame_timeout");
        else if (pressure && age > STARVED_GRACE_NS + c->frame_have * NS_PER_S / STARVED_RATE)
            sweep_close(c, "slow while memory is short");
    }
}

static void sweep_sending(struct net *n, u64 now)
{
    if (n->response_bytes < n->response_bytes_max)
        return;
    list_for_safe(it, &n->sending) {
        struct conn *c = list_entry(it, struct conn, sending_link);
        if (now - c->send_since_ns <= STARVED_SEND_GRACE_NS)
            return;
        sweep_close(c, "does not read its answers while memory is short");
    }
}

static void sweep(struct timer *t)
{
    struct net *n = container_of(t, struct net, sweep);
    u64 now = n->shard->now_ns;
    sweep_idle(n, now);
    sweep_partials(n, now);
    sweep_sending(n, now);
    if (n->stopping && now > n->stop_deadline_ns)
        while (!list_empty(&n->conns))
            conn_close(list_entry(n->conns.next, struct conn, link), "stopping");
    frame_pool_trim(&n->frames);
    n->released |= !list_empty(&n->starved);
    net_sweep_start(n);
}

void net_sweep_start(struct net *n)
{
    bool wanted = !list_empty(&n->conns) || !list_empty(&n->closed) || n->frames.free_bytes > 0;
    if (wanted && !timer_armed(&n->sweep))
        timer_start(&n->shard->timers, &n->sweep, n->shard->now_ns + SWEEP_NS, sweep);
}
