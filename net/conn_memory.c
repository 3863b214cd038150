/* Memory of connections: receive buffers, requests, frames and send batches, from free lists that
 * belong to the shard; the accounting that back-pressure rests on (invariants 3, 4 of conn.c). */
#include "check.h"
#include "conn_int.h"

#define ARENA_BLOCK 4096u
#define ARENA_LIMIT (64 * MIB) /* of one request; its frame's bytes come on top */
/* What the free lists keep; beyond it memory goes back. */
#define FREE_REQUESTS_MAX 512u
#define FREE_RX_MAX 4096u
#define FREE_BATCHES_MAX 64u

struct rx_buf *conn_rx_take(struct conn *c)
{
    struct net *n = c->net;
    struct list *l = list_pop_front(&n->free_rx);
    struct rx_buf *rx = l ? list_entry(l, struct rx_buf, link) : MEM_NEW(struct rx_buf);
    n->free_rx_count -= l != NULL;
    list_init(&rx->link);
    rx->conn = c;
    rx->refs = 1;
    return rx;
}

void conn_rx_unref(struct net *n, struct rx_buf *rx)
{
    CHECK(rx->refs > 0 && io_op_idle(&rx->op));
    if (--rx->refs > 0)
        return;
    if (rx->op.buf) {
        io_buf_release(n->shard->io, &rx->op);
        n->released = true;
    }
    rx->conn = NULL;
    if (n->free_rx_count >= FREE_RX_MAX) {
        mem_free(rx);
        return;
    }
    list_push_front(&n->free_rx, &rx->link);
    n->free_rx_count++;
}

struct request *conn_request_take(struct conn *c, u32 frame_len)
{
    struct net *n = c->net;
    struct list *l = list_pop_front(&n->free_requests);
    struct request *r;
    if (l) {
        r = list_entry(l, struct request, link);
        n->free_request_count--;
        struct arena arena = r->arena;
        *r = (struct request){ .arena = arena };
    } else {
        r = MEM_NEW(struct request);
        arena_init(&r->arena, ARENA_BLOCK, 0);
    }
    r->arena.limit_bytes = ARENA_LIMIT + frame_len;
    MAGIC_INIT(r, REQUEST_MAGIC);
    r->conn = c;
    r->shard = n->shard;
    r->arrived_ns = n->shard->now_ns;
    list_init(&r->link);
    return r;
}

u64 request_answer_bytes(const struct request *r)
{
    u64 sum = r->out_len;
    for (u32 i = 0; i < r->ext_count; i++)
        sum += r->ext[i].bytes.len;
    return sum;
}

void net_frame_drop(struct net *n, u8 *buf, u32 cap)
{
    CHECK(n->request_bytes >= cap);
    n->request_bytes -= cap;
    n->released = true;
    frame_pool_give(&n->frames, buf, cap);
}

/* The request was sent, or nobody listens any more. */
void conn_request_free(struct conn *c, struct request *r)
{
    struct net *n = c->net;
    CHECK(r->ready && c->inflight > 0);
    if (!r->no_response) {
        CHECK(n->response_bytes >= r->out_len);
        n->response_bytes -= r->out_len;
        n->released = true;
        c->out_bytes -= request_answer_bytes(r);
    }
    if (r->release)
        r->release(r);
    list_remove(&r->link);
    c->inflight--;
    n->inflight--;
    if (r->pooled) {
        n->pool_held--;
        n->request_bytes -= n->buf_bytes;
        conn_rx_unref(n, container_of(r->recv_hold, struct rx_buf, op));
    }
    if (r->frame_buf)
        net_frame_drop(n, r->frame_buf, r->frame_cap);
    MAGIC_POISON(r);
    if (n->free_request_count >= FREE_REQUESTS_MAX) {
        arena_free(&r->arena);
        mem_free(r);
        return;
    }
    arena_reset(&r->arena);
    list_push_front(&n->free_requests, &r->link);
    n->free_request_count++;
}

/* Is there memory for `bytes` more, and is nobody before us? A frame larger than the whole bound
 * is taken when at most half is in use. */
bool conn_memory_allows(const struct net *n, const struct conn *c, u64 bytes)
{
    if (!list_empty(&n->starved) && n->starved.next != &c->starved_link)
        return false;
    if (n->response_bytes >= n->response_bytes_max)
        return false;
    return n->request_bytes + bytes <= n->request_bytes_max ||
           n->request_bytes <= n->request_bytes_max / 2;
}

struct send_batch *conn_batch_take(struct conn *c)
{
    struct net *n = c->net;
    struct list *l = list_pop_front(&n->free_batches);
    n->free_batch_count -= l != NULL;
    return l ? list_entry(l, struct send_batch, link) : MEM_NEW(struct send_batch);
}

void conn_batch_drop(struct conn *c)
{
    struct net *n = c->net;
    if (!c->batch)
        return;
    if (n->free_batch_count < FREE_BATCHES_MAX) {
        list_push_front(&n->free_batches, &c->batch->link);
        n->free_batch_count++;
    } else {
        mem_free(c->batch);
    }
    c->batch = NULL;
}

void net_pools_free(struct net *n)
{
    struct list *l;
    while ((l = list_pop_front(&n->free_requests)) != NULL) {
        struct request *r = list_entry(l, struct request, link);
        arena_free(&r->arena);
        mem_free(r);
    }
    while ((l = list_pop_front(&n->free_rx)) != NULL)
        mem_free(list_entry(l, struct rx_buf, link));
    while ((l = list_pop_front(&n->free_batches)) != NULL)
        mem_free(list_entry(l, struct send_batch, link));
}
