/* Consumers: feeds, fetch requests without a session, and answers read piece by piece.
 *
 * One request is in flight per connection, as real consumers have it. An answer is never kept
 * whole: a step per piece (head, topic, partition, batch head, …) runs as soon as the piece is in
 * the buffer, and the rest of each large batch is thrown away inside the kernel (MSG_TRUNC), so
 * that reading costs the generator less than it costs a broker to send with sendfile. --verify
 * keeps batches whole to check their CRC.
 *
 *   HEAD → TOPIC → PARTITION → BATCH ⇄ SKIP → PARTITION_END → … TOPIC_END → … END
 *
 * Invariant: frame_left is what of the answer lies beyond rx_begin; a step that finds the piece
 * incomplete changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "bench.h"
#include "crc32c.h"
#include "err.h"

#define CONSUME_PAUSE_NS (20 * NS_PER_MS)
#define CONSUME_SKIP_MIN 4096u  /* below that a copy is cheaper than a call */
#define CONSUME_SMALL_READ 512u /* heads only, when batches are large */
#define CONSUME_LARGE_BATCH 8192u
#define CONSUME_RX_MAX (64 * MIB)
#define CONSUME_PEEK 128u /* of a batch: its head and first record's, for the stamp */

/* ---- routing ---- */
void consume_route(struct worker *w, struct feed *f)
{
    i32 leader = w->cluster->leaders[f->partition];
    struct conn *c = conn_get(w, leader >= 0 ? leader : w->cluster->nodes[0].id, f->lane, true);
    if (c->feed_count == c->feed_cap) {
        c->feed_cap = c->feed_cap * 2 + 16;
        c->feeds = mem_realloc(c->feeds, sizeof(struct feed *) * c->feed_cap);
    }
    c->feeds[c->feed_count++] = f;
    conn_open(c);
    if (c->state == CONN_OPEN && c->waiting == WAITING_NOTHING)
        consume_pump(c);
}
static void consume_move_away(struct conn *c)
{
    struct worker *w = c->worker;
    for (u32 i = 0; i < c->feed_count;) {
        struct feed *f = c->feeds[i];
        i32 leader = w->cluster->leaders[f->partition];
        if (leader < 0 || leader == c->node) {
            i++;
            continue;
        }
        c->feeds[i] = c->feeds[--c->feed_count];
        consume_route(w, f);
    }
}
void consume_closed(struct conn *c)
{
    c->waiting = WAITING_NOTHING;
    c->fetch_state = FETCH_HEAD;
    c->frame_left = c->skip_left = 0;
    c->tx.len = c->tx_sent = 0;
}

/* ---- requests ---- */
static void offsets_request(struct conn *c)
{
    struct worker *w = c->worker;
    const struct versions *vs = w->shared->versions;
    i16 v = vs->v[API_LIST_OFFSETS];
    bool flexible = wire_flexible(API_LIST_OFFSETS, v);
    u32 unknown = 0;
    for (u32 i = 0; i < c->feed_count; i++)
        unknown += c->feeds[i]->position < 0;
    wire_begin(&c->tx, vs, API_LIST_OFFSETS, c->correlation);
    wire_i32(&c->tx, -1);
    if (v >= 2)
        wire_i8(&c->tx, 0);
    wire_array(&c->tx, flexible, 1);
    wire_string(&c->tx, flexible, w->o->topic);
    wire_array(&c->tx, flexible, unknown);
    for (u32 i = 0; i < c->feed_count; i++) {
        if (c->feeds[i]->position >= 0)
            continue;
        wire_i32(&c->tx, (i32)c->feeds[i]->partition);
        if (v >= 4)
            wire_i32(&c->tx, -1);
        wire_i64(&c->tx, w->o->from_earliest ? -2 : -1);
        wire_tags(&c->tx, flexible);
    }
    wire_tags(&c->tx, flexible);
    wire_tags(&c->tx, flexible);
    wire_end(&c->tx);
    c->waiting = WAITING_OFFSETS;
}
static void fetch_request(struct conn *c)
{
    struct worker *w = c->worker;
    const struct options *o = w->o;
    const struct versions *vs = w->shared->versions;
    i16 v = vs->v[API_FETCH];
    bool flexible = wire_flexible(API_FETCH, v);
    struct wbuf *b = &c->tx;
    wire_begin(b, vs, API_FETCH, c->correlation);
    wire_i32(b, -1);
    wire_i32(b, (i32)o->fetch_max_wait_ms);
    wire_i32(b, (i32)o->fetch_min_bytes);
    wire_i32(b, (i32)o->fetch_max_bytes);
    wire_i8(b, 0);
    if (v >= 7) {
        wire_i32(b, 0);
        wire_i32(b, -1); /* no session */
    }
    wire_array(b, flexible, 1);
    wire_string(b, flexible, o->topic);
    wire_array(b, flexible, c->feed_count);
    u32 first = c->correlation % c->feed_count; /* each partition is first in its turn */
    for (u32 i = 0; i < c->feed_count; i++) {
        const struct feed *f = c->feeds[(first + i) % c->feed_count];
        wire_i32(b, (i32)f->partition);
        if (v >= 9)
            wire_i32(b, -1);
        wire_i64(b, f->position);
        if (v >= 12)
            wire_i32(b, -1);
        if (v >= 5)
            wire_i64(b, -1);
        wire_i32(b, (i32)o->fetch_partition_bytes);
        wire_tags(b, flexible);
    }
    wire_tags(b, flexible);
    if (v >= 7)
        wire_array(b, flexible, 0);
    if (v >= 11)
        wire_string(b, flexible, "");
    wire_tags(b, flexible);
    wire_end(b);
    c->waiting = WAITING_FETCH;
}
void consume_pump(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->state != CONN_OPEN || c->waiting != WAITING_NOTHING || w->now < c->pause_until_ns)
        return;
    consume_move_away(c);
    if (c->feed_count == 0)
        return;
    bool unknown = false;
    for (u32 i = 0; i < c->feed_count; i++)
        unknown |= c->feeds[i]->position < 0;
    c->correlation = ++w->correlation;
    c->started_ns = w->now;
    c->tx_sent = 0;
    c->fetch_failed = false;
    if (unknown)
        offsets_request(c);
    else
        fetch_request(c);
    conn_flush(c);
}
bool consume_flush(struct conn *c)
{
    while (c->tx_sent < c->tx.len) {
        ssize_t n = send(c->fd, c->tx.data + c->tx_sent, c->tx.len - c->tx_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) {
            conn_close(c, strerror(errno));
            return true;
        }
        c->tx_sent += (u32)n;
    }
    return true;
}

/* ---- answers: one step a piece; false in r->bad when the piece is incomplete ---- */
static struct feed *feed_find(const struct conn *c, i32 partition)
{
    for (u32 i = 0; i < c->feed_count; i++)
        if ((i32)c->feeds[i]->partition == partition)
            return c->feeds[i];
    return NULL;
}
static void feed_error(struct conn *c, struct feed *f, i16 error, const char *where)
{
    struct worker *w = c->worker;
    worker_error(w, error, where);
    if (error == ERR_OFFSET_OUT_OF_RANGE) {
        f->position = -1;
        return;
    }
    c->fetch_failed = true;
}
static void step_offsets(struct conn *c, struct rbuf *r)
{
    struct worker *w = c->worker;
    i16 v = w->shared->versions->v[API_LIST_OFFSETS];
    bool flexible = wire_flexible(API_LIST_OFFSETS, v);
    if (v >= 2)
        read_i32(r);
    for (u32 topics = read_array(r, flexible); topics > 0 && !r->bad; topics--) {
        read_string(r, flexible);
        for (u32 n = read_array(r, flexible); n > 0 && !r->bad; n--) {
            struct feed *f = feed_find(c, read_i32(r));
            i16 error = read_i16(r);
            read_i64(r);
            i64 offset = read_i64(r);
            if (v >= 4)
                read_i32(r);
            read_tags(r, flexible);
            if (r->bad || !f)
                continue;
            if (error) {
                feed_error(c, f, error, "ListOffsets");
                continue;
            }
            f->position = offset;
            if (!f->ready)
                count(&w->stats.c.ready_feeds, 1);
            f->ready = true;
        }
        read_tags(r, flexible);
    }
    read_tags(r, flexible);
    c->fetch_state = FETCH_END;
}
static void step_head(struct conn *c, struct rbuf *r)
{
    i16 v = c->worker->shared->versions->v[API_FETCH];
    bool flexible = wire_flexible(API_FETCH, v);
    read_i32(r); /* throttle */
    if (v >= 7) {
        i16 error = read_i16(r);
        read_i32(r);
        if (error && !r->bad) {
            worker_error(c->worker, error, "Fetch");
            c->fetch_failed = true;
        }
    }
    c->topics_left = read_length(r, flexible);
    c->fetch_state = c->topics_left ? FETCH_TOPIC : FETCH_END;
}
static void step_topic(struct conn *c, struct rbuf *r, bool flexible)
{
    read_string(r, flexible);
    c->partitions_left = read_length(r, flexible);
    c->fetch_state = c->partitions_left ? FETCH_PARTITION : FETCH_TOPIC_END;
}
static void step_partition(struct conn *c, struct rbuf *r, i16 v)
{
    bool flexible = wire_flexible(API_FETCH, v);
    struct feed *f = feed_find(c, read_i32(r));
    i16 error = read_i16(r);
    c->fetch_hw = read_i64(r);
    read_i64(r); /* last stable offset */
    c->fetch_start = v >= 5 ? read_i64(r) : 0;
    for (u32 n = read_array(r, flexible); n > 0 && !r->bad; n--) { /* aborted transactions */
        read_i64(r);
        read_i64(r);
        read_tags(r, flexible);
    }
    if (v >= 11)
        read_i32(r); /* preferred replica */
    c->records_left = read_length(r, flexible);
    c->fetch_feed = f;
    c->fetch_state = c->records_left ? FETCH_BATCH : FETCH_PARTITION_END;
    if (error && f && !r->bad)
        feed_error(c, f, error, "Fetch");
}
static void batch_seen(struct conn *c, const u8 *head, u32 head_len, u32 len)
{
    struct worker *w = c->worker;
    struct feed *f = c->fetch_feed;
    i64 base = (i64)get_be64(head);
    i64 next = base + (i32)get_be32(head + 23) + 1;
    count(&w->stats.c.read_batches, 1);
    count(&w->stats.c.read_bytes, len);
    if (!f || next <= f->position)
        return; /* lies before what was asked for */
    if (base > f->position) {
        if (w->stats.c.offset_gaps == 0)
            fprintf(stderr,
                    "leat-bench: gap in partition %u: after %" PRId64 " came %" PRId64
                    " (log start %" PRId64 ", high watermark %" PRId64 ")\n",
                    f->partition, f->position, base, c->fetch_start, c->fetch_hw);
        count(&w->stats.c.offset_gaps, (u64)(base - f->position));
    }
    f->position = next;
    count(&w->stats.c.read_records, get_be32(head + 57));
    if (w->o->mode != MODE_CONSUME) {
        u64 sent = template_stamp(head, head_len), now = w->now + (u64)w->wall_offset_ns;
        hist_record(&w->stats.e2e, now > sent ? now - sent : 0);
    }
}
static void step_batch(struct conn *c, struct rbuf *r)
{
    struct worker *w = c->worker;
    const u8 *head = r->p;
    u32 peek = MIN(c->records_left, CONSUME_PEEK), have = read_left(r);
    c->fetch_state = FETCH_SKIP;
    if (c->records_left < BATCH_HEAD_BYTES) { /* the cut-off start of a batch */
        c->skip_left = c->records_left;
        c->records_left = 0;
        return;
    }
    if (have < peek) {
        r->bad = true;
        return;
    }
    u64 len = (u64)get_be32(head + 8) + 12;
    if (len < BATCH_HEAD_BYTES || len > c->records_left) {
        c->skip_left = c->records_left;
        c->records_left = 0;
        return;
    }
    if (w->o->verify) {
        if (have < len) {
            r->bad = true;
            return;
        }
        if (get_be32(head + 17) != crc32c(0, head + 21, len - 21))
            count(&w->stats.c.bad_crc, 1);
    }
    batch_seen(c, head, MIN(have, (u32)len), (u32)len);
    c->batch_bytes_last = (u32)len;
    c->records_left -= (u32)len;
    c->skip_left = (u32)len;
}
static void step_partition_end(struct conn *c, struct rbuf *r, bool flexible)
{
    struct feed *f = c->fetch_feed;
    read_tags(r, flexible);
    if (r->bad)
        return;
    if (c->worker->o->loop && f && f->position >= c->fetch_hw && c->fetch_hw > c->fetch_start)
        f->position = c->fetch_start;
    c->fetch_state = --c->partitions_left ? FETCH_PARTITION : FETCH_TOPIC_END;
}
static void answer_begin(struct conn *c, struct rbuf *r)
{
    const struct versions *vs = c->worker->shared->versions;
    enum api api = c->waiting == WAITING_OFFSETS ? API_LIST_OFFSETS : API_FETCH;
    u32 correlation = (u32)read_i32(r);
    read_tags(r, wire_flexible(api, vs->v[api]));
    if (c->waiting == WAITING_OFFSETS)
        step_offsets(c, r);
    else
        step_head(c, r);
    if (!r->bad && correlation != c->correlation)
        conn_close(c, "an answer to another request");
}
static void answer_end(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->waiting == WAITING_FETCH) {
        count(&w->stats.c.read_responses, 1);
        hist_record(&w->stats.fetch, w->now - c->started_ns);
    }
    if (c->fetch_failed) {
        c->pause_until_ns = w->now + CONSUME_PAUSE_NS;
        worker_want_refresh(w);
    }
    c->waiting = WAITING_NOTHING;
    c->fetch_state = FETCH_HEAD;
    consume_pump(c);
}
/* One step over what is in the buffer; false when more bytes are needed or all is done. */
static bool consume_step(struct conn *c)
{
    i16 v = c->worker->shared->versions->v[API_FETCH];
    bool flexible = wire_flexible(API_FETCH, v);
    u32 have = c->rx_end - c->rx_begin;
    if (c->fetch_state == FETCH_HEAD && c->frame_left == 0) {
        if (have < 4)
            return false;
        c->frame_left = get_be32(c->rx + c->rx_begin);
        c->rx_begin += 4;
        if (c->waiting == WAITING_NOTHING || c->frame_left < 4 || c->frame_left > INT32_MAX) {
            conn_close(c, "an answer cannot be understood");
            return false;
        }
        have -= 4;
    }
    u32 in_frame = MIN(have, c->frame_left);
    struct rbuf r = { c->rx + c->rx_begin, c->rx + c->rx_begin + in_frame, false };
    enum fetch_state before = c->fetch_state;
    switch (before) {
    case FETCH_HEAD:
        answer_begin(c, &r);
        break;
    case FETCH_TOPIC:
        step_topic(c, &r, flexible);
        break;
    case FETCH_PARTITION:
        step_partition(c, &r, v);
        break;
    case FETCH_BATCH:
        step_batch(c, &r);
        break;
    case FETCH_SKIP: {
        u32 n = MIN(in_frame, c->skip_left);
        read_skip(&r, n);
        c->skip_left -= n;
        if (c->skip_left == 0)
            c->fetch_state = c->records_left ? FETCH_BATCH : FETCH_PARTITION_END;
        break;
    }
    case FETCH_PARTITION_END:
        step_partition_end(c, &r, flexible);
        break;
    case FETCH_TOPIC_END:
        read_tags(&r, flexible);
        if (!r.bad)
            c->fetch_state = --c->topics_left ? FETCH_TOPIC : FETCH_END;
        break;
    case FETCH_END: /* tags, if any, are dropped with the rest of the frame */
        read_skip(&r, in_frame);
        break;
    }
    if (c->state != CONN_OPEN)
        return false;
    if (r.bad) {
        c->fetch_state = before;
        if (in_frame == c->frame_left)
            conn_close(c, "an answer cannot be understood");
        return false;
    }
    u32 used = in_frame - read_left(&r);
    c->rx_begin += used;
    c->frame_left -= used;
    if (c->fetch_state == FETCH_END && c->frame_left == 0) {
        answer_end(c);
        return c->state == CONN_OPEN;
    }
    return used > 0 || c->fetch_state != before;
}
/* Throws away the rest of a large batch where it is; false when the socket is empty for now. */
static bool consume_drop(struct conn *c)
{
    u32 want = c->skip_left;
    ssize_t n = recv(c->fd, c->rx, want, MSG_TRUNC | MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            conn_close(c, n == 0 ? "by the broker" : strerror(errno));
        return false;
    }
    c->skip_left -= (u32)n;
    c->frame_left -= (u32)n;
    return (u32)n == want;
}
static u32 consume_room(struct conn *c)
{
    memmove(c->rx, c->rx + c->rx_begin, c->rx_end - c->rx_begin);
    c->rx_end -= c->rx_begin;
    c->rx_begin = 0;
    if (c->rx_end == c->rx_cap && c->rx_cap < CONSUME_RX_MAX) {
        c->rx_cap *= 2;
        c->rx = mem_realloc(c->rx, c->rx_cap);
    }
    u32 room = c->rx_cap - c->rx_end;
    bool heads = c->batch_bytes_last >= CONSUME_LARGE_BATCH && !c->worker->o->verify;
    return heads ? MIN(room, CONSUME_SMALL_READ) : room;
}
void consume_readable(struct conn *c)
{
    for (u32 turn = 0; turn < 64 && c->state == CONN_OPEN; turn++) {
        bool empty = c->rx_begin == c->rx_end;
        if (c->fetch_state == FETCH_SKIP && empty && c->skip_left >= CONSUME_SKIP_MIN) {
            bool more = consume_drop(c);
            while (c->state == CONN_OPEN && c->skip_left == 0 && consume_step(c))
                ;
            if (!more)
                return;
            continue;
        }
        u32 want = consume_room(c);
        if (want == 0) {
            conn_close(c, "a piece of an answer is absurdly long");
            return;
        }
        ssize_t n = recv(c->fd, c->rx + c->rx_end, want, MSG_DONTWAIT);
        if (n <= 0) {
            if (n == 0 || (errno != EAGAIN && errno != EINTR))
                conn_close(c, n == 0 ? "by the broker" : strerror(errno));
            return;
        }
        c->rx_end += (u32)n;
        c->worker->now = now_ns();
        while (consume_step(c))
            ;
        if ((u32)n < want)
            return;
    }
}
