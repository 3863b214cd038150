/* Producers: flows, the order in which a connection serves them, and requests in flight.
 *
 * A connection keeps its flows in a heap by `key`: in open loop the time the next batch is meant
 * to go (so a backlog is served oldest first and its latency counts from that time), in closed
 * loop a turn number (so all partitions get their turn). Slots form a ring: head ≤ unsent ≤ tail,
 * answered in order, as Kafka's protocol promises.
 *
 * A batch that fails in a way clients retry goes to its flow's queue and the flow is paused: out
 * of the heap until nothing of it is in flight and newer metadata is there. Then what failed goes
 * first, with the same sequence numbers, so idempotent producers stay in order. Until its first
 * batch is through, an idempotent flow is *held* to one in flight: a broker that knows nothing of
 * a producer yet takes any first sequence number, so a refused first batch could be overtaken.
 */
#include <errno.h>
#include <sys/socket.h>

#include "bench.h"
#include "err.h"

#define PRODUCE_IOV_MAX 64
#define PRODUCE_ROUNDS_MAX 64
#define PRODUCE_PAUSE_NS (20 * NS_PER_MS)
#define PRODUCE_PAUSE_MAX_NS (500 * NS_PER_MS)

void produce_init(struct conn *c)
{
    const struct options *o = c->worker->o;
    c->slots = mem_alloc(sizeof *c->slots * o->inflight);
    for (u32 i = 0; i < o->inflight; i++) {
        c->slots[i].iov = mem_alloc(sizeof(struct iovec) * (2 * o->request_batches + 1));
        c->slots[i].parts = mem_alloc(sizeof(struct part) * o->request_batches);
    }
}

/* ---- heap of flows ---- */
static void heap_put(struct conn *c, u32 at, struct flow *f)
{
    for (; at > 0 && c->heap[(at - 1) / 2]->key > f->key; at = (at - 1) / 2)
        c->heap[at] = c->heap[(at - 1) / 2];
    c->heap[at] = f;
}
static void heap_push(struct conn *c, struct flow *f)
{
    if (c->heap_count == c->heap_cap) {
        c->heap_cap = c->heap_cap * 2 + 16;
        c->heap = mem_realloc(c->heap, sizeof(struct flow *) * c->heap_cap);
    }
    heap_put(c, c->heap_count++, f);
}
static void heap_remove(struct conn *c, u32 at)
{
    struct flow *last = c->heap[--c->heap_count];
    if (at == c->heap_count)
        return;
    for (u32 child = 2 * at + 1; child < c->heap_count; child = 2 * at + 1) {
        if (child + 1 < c->heap_count && c->heap[child + 1]->key < c->heap[child]->key)
            child++;
        if (last->key <= c->heap[child]->key)
            break;
        c->heap[at] = c->heap[child];
        at = child;
    }
    heap_put(c, at, last);
}
static void flow_set_key(struct flow *f, struct worker *w)
{
    bool open_loop = w->o->rate_unit != RATE_NONE;
    if (f->retry_begin != f->retry_end)
        f->key = 0;
    else
        f->key = open_loop ? f->due_ns : ++w->turn;
}

/* ---- flows that failed ---- */
static void flow_pause(struct flow *f, struct worker *w)
{
    if (f->paused)
        return;
    for (u32 i = 0; f->conn && i < f->conn->heap_count; i++)
        if (f->conn->heap[i] == f) {
            heap_remove(f->conn, i);
            break;
        }
    f->paused = true;
    f->resume_ns = w->now + PRODUCE_PAUSE_NS;
    f->pause_version = w->cluster_version;
    w->paused_count++;
    worker_want_refresh(w);
}
static void part_retry(struct part *p, struct worker *w)
{
    struct flow *f = p->flow;
    CHECK(f->retry_end - f->retry_begin < w->retry_cap);
    f->retry[f->retry_end++ % w->retry_cap] = *p;
    count(&w->stats.c.retries, 1);
    flow_pause(f, w);
}
void produce_closed(struct conn *c)
{
    struct worker *w = c->worker;
    for (u64 i = c->slot_head; i < c->slot_tail; i++) {
        struct slot *s = &c->slots[i % w->o->inflight];
        for (u32 k = 0; k < s->part_count; k++) {
            s->parts[k].flow->inflight--;
            part_retry(&s->parts[k], w);
        }
    }
    c->slot_head = c->slot_unsent = c->slot_tail;
    while (c->heap_count > 0)
        flow_pause(c->heap[0], w);
}
static void flow_route(struct worker *w, struct flow *f)
{
    i32 leader = w->cluster->leaders[f->partition];
    if (leader < 0) {
        f->resume_ns = w->now + PRODUCE_PAUSE_NS;
        f->pause_version = w->cluster_version;
        worker_want_refresh(w);
        return;
    }
    f->conn = conn_get(w, leader, f->lane, false);
    if (f->conn->state == CONN_CLOSED && w->now < f->conn->retry_ns)
        return; /* stays paused until the connection may be tried again */
    f->paused = false;
    w->paused_count--;
    flow_set_key(f, w);
    heap_push(f->conn, f);
    conn_open(f->conn);
}
/* Flows whose pause is over go back to the connection of their leader. */
void produce_resume(struct worker *w)
{
    for (u32 i = 0; i < w->flow_count && w->paused_count > 0; i++) {
        struct flow *f = &w->flows[i];
        if (!f->paused || f->inflight > 0 || w->now < f->resume_ns)
            continue;
        bool newer = w->cluster_version > f->pause_version;
        if (newer || w->now >= f->resume_ns + PRODUCE_PAUSE_MAX_NS)
            flow_route(w, f);
    }
}

/* The measured time begins: all flows get their first turn, spread over one interval. */
void produce_start(struct worker *w)
{
    u32 group = w->o->request_batches, total = w->shared->flow_total;
    w->started = true;
    for (u32 i = 0; i < w->conn_count; i++)
        w->conns[i]->heap_count = 0;
    for (u32 i = 0; i < w->flow_count; i++) {
        struct flow *f = &w->flows[i];
        u64 place = ((u64)(i / group) * w->o->threads + w->index) * group % total;
        f->due_ns = w->shared->start_ns + w->interval_ns * place / total;
        flow_set_key(f, w);
        if (!f->paused)
            heap_push(f->conn, f);
    }
}

/* ---- requests ---- */
static void part_next(struct worker *w, struct flow *f, struct part *p)
{
    if (f->retry_begin != f->retry_end) {
        *p = f->retry[f->retry_begin++ % w->retry_cap];
    } else {
        const struct templates *t = w->shared->templates;
        bool open_loop = w->o->rate_unit != RATE_NONE;
        p->flow = f;
        p->template_index = f->template_next;
        p->sequence = f->sequence_next;
        p->intended_ns = open_loop ? f->due_ns : w->now;
        f->template_next = (f->template_next + 1) % t->count;
        /* Sequence numbers go from the largest i32 to 0. */
        f->sequence_next =
            (i32)(((u32)f->sequence_next + t->list[p->template_index].records) & INT32_MAX);
        f->due_ns += w->interval_ns;
    }
    f->inflight++;
}
/* Pops the flows whose turn it is; each flow at most once a request. */
static void slot_take(struct conn *c, struct slot *s, u64 limit)
{
    struct worker *w = c->worker;
    s->part_count = 0;
    while (s->part_count < w->o->request_batches && c->heap_count > 0 && c->heap[0]->key <= limit) {
        struct flow *f = c->heap[0];
        heap_remove(c, 0);
        part_next(w, f, &s->parts[s->part_count++]);
    }
    for (u32 i = 0; i < s->part_count; i++) {
        struct flow *f = s->parts[i].flow;
        f->held = w->o->idempotent && !f->proven;
        if (f->held)
            continue;
        flow_set_key(f, w);
        heap_push(c, f);
    }
}
static void slot_part(struct conn *c, struct wbuf *b, const struct part *p, u64 wall_ns,
                      bool flexible)
{
    const struct worker *w = c->worker;
    const struct template *t = &w->shared->templates->list[p->template_index];
    struct producer_id pid = { -1, -1 };
    if (w->o->idempotent)
        pid = w->shared->pids[w->index * w->shared->ranks + p->flow->rank];
    wire_i32(b, (i32)p->flow->partition);
    if (flexible)
        wire_uvarint(b, t->len + 1);
    else
        wire_i32(b, (i32)t->len);
    template_head(t, wire_space(b, t->head_len), wall_ns, pid, w->o->idempotent ? p->sequence : -1);
}
static void slot_encode(struct conn *c, struct slot *s)
{
    struct worker *w = c->worker;
    const struct versions *vs = w->shared->versions;
    bool flexible = wire_flexible(API_PRODUCE, vs->v[API_PRODUCE]);
    struct wbuf b = { s->buf, 0, s->buf_cap };
    u32 ends[64], tails = 0;
    const u32 parts = s->part_count;
    s->correlation = ++w->correlation;
    wire_begin(&b, vs, API_PRODUCE, s->correlation);
    wire_string(&b, flexible, NULL); /* transactional id */
    wire_i16(&b, w->o->acks);
    wire_i32(&b, (i32)w->o->timeout_ms);
    wire_array(&b, flexible, 1);
    wire_string(&b, flexible, w->o->topic);
    wire_array(&b, flexible, parts);
    for (u32 i = 0; i < parts; i++) {
        const struct template *t = &w->shared->templates->list[s->parts[i].template_index];
        /* Stamped with the intended time: end to end latency counts from it, too. */
        slot_part(c, &b, &s->parts[i], s->parts[i].intended_ns + (u64)w->wall_offset_ns, flexible);
        ends[i] = b.len;
        tails += t->len - t->head_len;
        wire_tags(&b, flexible);
    }
    wire_tags(&b, flexible);
    wire_tags(&b, flexible);
    put_be32(b.data, b.len - 4 + tails);
    s->buf = b.data;
    s->buf_cap = b.cap;
    s->iov_count = s->iov_next = 0;
    u32 from = 0;
    for (u32 i = 0; i < parts; i++) {
        const struct template *t = &w->shared->templates->list[s->parts[i].template_index];
        s->iov[s->iov_count++] = (struct iovec){ s->buf + from, ends[i] - from };
        s->iov[s->iov_count++] = (struct iovec){ t->data + t->head_len, t->len - t->head_len };
        from = ends[i];
    }
    if (b.len > from)
        s->iov[s->iov_count++] = (struct iovec){ s->buf + from, b.len - from };
}
/* When the next batch of this connection is due; UINT64_MAX when only an event can tell. */
u64 produce_next_ns(const struct conn *c)
{
    bool room = c->slot_tail - c->slot_head < c->worker->o->inflight;
    return c->state == CONN_OPEN && room && c->heap_count > 0 ? c->heap[0]->key : UINT64_MAX;
}
void produce_pump(struct conn *c)
{
    struct worker *w = c->worker;
    u64 limit = w->o->rate_unit == RATE_NONE ? UINT64_MAX - 1 : w->now;
    if (!w->started || c->state != CONN_OPEN)
        return;
    for (u32 round = 0; c->state == CONN_OPEN; round++) {
        while (produce_next_ns(c) <= limit) {
            struct slot *s = &c->slots[c->slot_tail % w->o->inflight];
            slot_take(c, s, limit);
            slot_encode(c, s);
            s->started_ns = w->now;
            c->slot_tail++;
            count(&w->stats.c.sent_requests, 1);
        }
        conn_flush(c);
        /* Without acks the slots are free again at once; go on until the socket is full. */
        if (w->o->acks != 0 || c->want_write || produce_next_ns(c) > limit)
            return;
        if (round == PRODUCE_ROUNDS_MAX) {
            conn_want_write(c, true); /* let the others have their turn */
            return;
        }
    }
}
/* ---- answers ---- */
static void part_done(struct conn *c, struct part *p, i16 error)
{
    struct worker *w = c->worker;
    struct flow *f = p->flow;
    const struct template *t = &w->shared->templates->list[p->template_index];
    f->inflight--;
    if (error == ERR_NONE || error == ERR_DUPLICATE_SEQUENCE_NUMBER) {
        count(&w->stats.c.acked_batches, 1);
        count(&w->stats.c.acked_records, t->records);
        count(&w->stats.c.acked_bytes, t->len);
        hist_record(&w->stats.produce, w->now > p->intended_ns ? w->now - p->intended_ns : 0);
        f->proven = true;
        if (f->held && !f->paused) {
            flow_set_key(f, w);
            heap_push(c, f);
        }
        f->held = false;
        return;
    }
    worker_error(w, error, "Produce");
    /* After a failed batch the later ones of an idempotent flow are out of order, no more. */
    bool behind = error == ERR_OUT_OF_ORDER_SEQUENCE_NUMBER && f->retry_begin != f->retry_end;
    if (err_retriable((err)error) || behind)
        part_retry(p, w);
    else
        count(&w->stats.c.failures, 1);
}
static void answer_partition(struct conn *c, struct slot *s, struct rbuf *r, i16 v, u64 *answered)
{
    bool flexible = wire_flexible(API_PRODUCE, v);
    i32 index = read_i32(r);
    i16 error = read_i16(r);
    read_i64(r); /* base offset */
    read_i64(r); /* log append time */
    if (v >= 5)
        read_i64(r); /* log start */
    if (v >= 8) {
        for (u32 n = read_array(r, flexible); n > 0 && !r->bad; n--) {
            read_i32(r);
            read_string(r, flexible);
            read_tags(r, flexible);
        }
        read_string(r, flexible);
    }
    read_tags(r, flexible);
    for (u32 i = 0; i < s->part_count && !r->bad; i++)
        if ((i32)s->parts[i].flow->partition == index && !(*answered >> i & 1)) {
            *answered |= (u64)1 << i;
            part_done(c, &s->parts[i], error);
            return;
        }
    r->bad = true;
}
bool produce_answer(struct conn *c, struct rbuf *r)
{
    struct worker *w = c->worker;
    i16 v = w->shared->versions->v[API_PRODUCE];
    bool flexible = wire_flexible(API_PRODUCE, v);
    struct slot *s = &c->slots[c->slot_head % w->o->inflight];
    if (c->slot_head == c->slot_unsent || (u32)read_i32(r) != s->correlation)
        return false;
    read_tags(r, flexible);
    u64 answered = 0;
    for (u32 topics = read_array(r, flexible); topics > 0 && !r->bad; topics--) {
        read_string(r, flexible);
        for (u32 n = read_array(r, flexible); n > 0 && !r->bad; n--)
            answer_partition(c, s, r, v, &answered);
        read_tags(r, flexible);
    }
    for (u32 i = 0; i < s->part_count; i++)
        if (!(answered >> i & 1)) /* a broker that leaves one out; so it is tried again */
            part_done(c, &s->parts[i], ERR_NETWORK_EXCEPTION);
    c->slot_head++;
    count(&w->stats.c.acked_requests, 1);
    return !r->bad;
}
static void slot_sent(struct conn *c)
{
    struct slot *s = &c->slots[c->slot_unsent++ % c->worker->o->inflight];
    if (c->worker->o->acks != 0)
        return;
    for (u32 i = 0; i < s->part_count; i++) /* no answer will come */
        part_done(c, &s->parts[i], ERR_NONE);
    c->slot_head++;
    count(&c->worker->stats.c.acked_requests, 1);
}
/* Takes n written bytes off the unsent slots. */
static void slots_advance(struct conn *c, size_t n)
{
    while (n > 0) {
        struct slot *s = &c->slots[c->slot_unsent % c->worker->o->inflight];
        struct iovec *v = &s->iov[s->iov_next];
        size_t take = MIN(n, v->iov_len);
        v->iov_base = (u8 *)v->iov_base + take;
        v->iov_len -= take;
        n -= take;
        if (v->iov_len == 0 && ++s->iov_next == s->iov_count)
            slot_sent(c);
    }
}
bool produce_flush(struct conn *c)
{
    const struct options *o = c->worker->o;
    while (c->slot_unsent < c->slot_tail) {
        struct iovec iov[PRODUCE_IOV_MAX];
        size_t n = 0, want = 0;
        for (u64 i = c->slot_unsent; i < c->slot_tail; i++) {
            const struct slot *s = &c->slots[i % o->inflight];
            for (u32 k = s->iov_next; k < s->iov_count && n < PRODUCE_IOV_MAX; k++) {
                iov[n] = s->iov[k];
                want += iov[n++].iov_len;
            }
        }
        struct msghdr m = { .msg_iov = iov, .msg_iovlen = n };
        ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return false;
        if (sent < 0) {
            conn_close(c, strerror(errno));
            return true;
        }
        slots_advance(c, (size_t)sent);
        if ((size_t)sent < want)
            return false;
    }
    return true;
}
void produce_check_timeout(struct conn *c)
{
    const struct worker *w = c->worker;
    const struct slot *s = &c->slots[c->slot_head % w->o->inflight];
    u64 limit = (u64)w->o->timeout_ms * NS_PER_MS;
    if (c->slot_head < c->slot_tail && w->now > s->started_ns + limit)
        conn_close(c, "no answer in time");
}
