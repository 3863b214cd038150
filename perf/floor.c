/* leat-floor: the bare program under every claim about speed.
 *
 * It does only what no durable broker can leave out — receive, find the record batches, copy them
 * once while checking their CRC32C, write them with O_DIRECT|O_DSYNC, answer — and nothing of
 * Kafka beyond that: no offsets, no index, no reads, no recovery. What it reaches is the ceiling
 * on this machine; leat-bench drives it like any broker.
 *
 * One thread per core, each with its own ring, listener (SO_REUSEPORT), connections and file.
 *
 *   recv → frame → copy + CRC into the open group → end of the turn: write → done: answer
 *
 * Group commit: what one turn of the loop gathered is one write, padded to 4 KiB; up to --depth
 * writes are in flight, and while they are, the next group grows. The file is written full of
 * zeros first, because a write into preallocated but unwritten space costs a journal commit.
 *
 * Invariants: 1. a group is filled, then written, then its answers are sent; never two at once.
 * 2. An answer is given to its connection only after its group's write and all earlier ones are
 * complete. 3. A connection is freed when it is closed and nothing refers to it (refs == 0).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"
#include "bytes.h"
#include "check.h"
#include "crc32c.h"
#include "mem.h"

#define FLOOR_BLOCK 4096u
#define FLOOR_GROUP_BYTES (4u * 1024 * 1024)
#define FLOOR_GROUPS_MAX 34u
#define FLOOR_RX_BYTES (512u * 1024)
#define FLOOR_FRAME_MAX (8u * 1024 * 1024)
#define FLOOR_RING 4096u

struct floor_options {
    const char *dir;
    u16 port;
    u32 threads, depth;
    u64 file_bytes;
    bool no_dsync, no_write;
};
static struct floor_options opt = {
    .dir = "leat-floor-data", .port = 9092, .threads = 1, .depth = 4, .file_bytes = 512 * MIB
};
static u32 topic_partitions = 16; /* of the last CreateTopics; relaxed atomic */

struct out { /* bytes on their way to a connection */
    u8 *data;
    u32 len, cap;
};
struct conn {
    int fd;
    u32 refs; /* recv, send, and answers in groups */
    bool closed, sending;
    bool drained; /* the socket was empty after the last recv */
    u8 *rx;
    u32 begin, end, cap;
    struct out out, sent; /* collecting; being sent */
    u32 sent_at;
    struct conn *next_starved;
};
struct answer {
    struct conn *conn;
    u32 len;
};
struct group {
    u8 *data;
    u32 len, index;
    bool busy;    /* being written */
    bool written; /* done, but an earlier write is not */
    struct out answers;
    struct answer *list;
    u32 count, cap;
};
struct floor {
    struct io_uring ring;
    u32 index;
    int listener, file;
    u64 file_at;
    struct group groups[FLOOR_GROUPS_MAX];
    u32 group_count;
    struct group *open;                    /* NULL: all are busy */
    struct group *order[FLOOR_GROUPS_MAX]; /* ring of the groups being written, oldest first */
    u32 order_begin, order_end;
    struct conn *starved; /* wait for a group */
};
enum op { OP_ACCEPT = 1, OP_RECV, OP_SEND, OP_WRITE, OP_MASK = 7 };

/* ---- bytes out ---- */
static u8 *out_space(struct out *o, u32 n)
{
    if (o->cap - o->len < n) {
        o->cap = MAX(o->cap * 2, o->len + n + 512);
        o->data = mem_realloc(o->data, o->cap);
    }
    o->len += n;
    return o->data + o->len - n;
}
static void out_u8(struct out *o, u32 v)
{
    *out_space(o, 1) = (u8)v;
}
static void out_be16(struct out *o, i32 v)
{
    put_be16(out_space(o, 2), (u16)v);
}
static void out_be32(struct out *o, i32 v)
{
    put_be32(out_space(o, 4), (u32)v);
}
static void out_be64(struct out *o, i64 v)
{
    put_be64(out_space(o, 8), (u64)v);
}
static void out_raw(struct out *o, const void *p, u32 len)
{
    if (len)
        memcpy(out_space(o, len), p, len);
}
static void out_uvarint(struct out *o, u32 v)
{
    for (; v >= 0x80; v >>= 7)
        out_u8(o, v | 0x80);
    out_u8(o, v);
}
/* Returns where the frame began, for out_frame_end. */
static u32 out_frame(struct out *o, u32 correlation)
{
    u32 at = o->len;
    out_be32(o, 0);
    out_be32(o, (i32)correlation);
    return at;
}
static void out_frame_end(struct out *o, u32 at)
{
    put_be32(o->data + at, o->len - at - 4);
}

/* ---- bytes in ---- */
struct in {
    const u8 *p, *end;
    bool bad;
};
static const u8 *in_take(struct in *r, u64 n)
{
    static const u8 zeros[8];
    if (r->bad || (u64)(r->end - r->p) < n) {
        r->bad = true;
        return zeros;
    }
    r->p += n;
    return r->p - n;
}
static u32 in_be16(struct in *r)
{
    return get_be16(in_take(r, 2));
}
static u32 in_be32(struct in *r)
{
    return get_be32(in_take(r, 4));
}
static u32 in_uvarint(struct in *r)
{
    u32 v = 0;
    for (u32 shift = 0; shift < 32; shift += 7) {
        u8 b = *in_take(r, 1);
        v |= (u32)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}
/* Length, then so many bytes, in compact form; null is empty. */
static struct bytes in_compact(struct in *r)
{
    u32 n = in_uvarint(r);
    u32 len = n ? n - 1 : 0;
    const u8 *p = len <= (u64)(r->end - r->p) ? in_take(r, len) : NULL;
    r->bad |= p == NULL;
    return r->bad ? (struct bytes){ 0 } : bytes_of(p, len);
}
static struct bytes in_string(struct in *r)
{
    u32 len = in_be16(r);
    if (len == 0xffff)
        len = 0;
    const u8 *p = len <= (u64)(r->end - r->p) ? in_take(r, len) : NULL;
    r->bad |= p == NULL;
    return r->bad ? (struct bytes){ 0 } : bytes_of(p, len);
}

/* ---- canned answers ---- */
static void answer_versions(struct out *o, u32 correlation)
{
    static const i16 rows[][3] = { { 0, 9, 12 }, { 3, 9, 9 },  { 18, 0, 0 },
                                   { 19, 2, 4 }, { 20, 1, 3 }, { 22, 0, 1 } };
    u32 at = out_frame(o, correlation);
    out_be16(o, 0);
    out_be32(o, ARRAY_COUNT(rows));
    for (u32 i = 0; i < ARRAY_COUNT(rows); i++)
        for (u32 k = 0; k < 3; k++)
            out_be16(o, rows[i][k]);
    out_frame_end(o, at);
}
static void answer_metadata(struct out *o, struct in *r, u32 correlation)
{
    u32 topics = in_uvarint(r), at = out_frame(o, correlation);
    struct bytes name = topics > 1 ? in_compact(r) : bytes_str("none");
    u32 partitions = __atomic_load_n(&topic_partitions, __ATOMIC_RELAXED);
    out_u8(o, 0);
    out_be32(o, 0);
    out_uvarint(o, 2); /* one node */
    out_be32(o, 0);
    out_uvarint(o, 10);
    out_raw(o, "127.0.0.1", 9);
    out_be32(o, opt.port);
    out_u8(o, 0);
    out_u8(o, 0);
    out_u8(o, 0); /* cluster id */
    out_be32(o, 0);
    out_uvarint(o, 2); /* one topic */
    out_be16(o, 0);
    out_uvarint(o, name.len + 1);
    out_raw(o, name.data, name.len);
    out_u8(o, 0);
    out_uvarint(o, partitions + 1);
    for (u32 i = 0; i < partitions; i++) {
        out_be16(o, 0);
        out_be32(o, (i32)i);
        out_be32(o, 0);    /* leader */
        out_be32(o, 0);    /* its epoch */
        out_uvarint(o, 2); /* replicas */
        out_be32(o, 0);
        out_uvarint(o, 2);
        out_be32(o, 0);
        out_u8(o, 1); /* none offline */
        out_u8(o, 0);
    }
    out_be32(o, INT32_MIN); /* authorised operations: not asked */
    out_u8(o, 0);
    out_be32(o, INT32_MIN);
    out_u8(o, 0);
    out_frame_end(o, at);
}
static void answer_topics(struct out *o, struct in *r, u32 correlation, bool create)
{
    u32 at = out_frame(o, correlation);
    u32 n = in_be32(r);
    struct bytes name = in_string(r);
    u32 partitions = create ? in_be32(r) : 0;
    if (create && n == 1 && partitions > 0 && partitions < 100000 && !r->bad)
        __atomic_store_n(&topic_partitions, partitions, __ATOMIC_RELAXED);
    out_be32(o, 0);
    out_be32(o, 1);
    out_be16(o, (i32)name.len);
    out_raw(o, name.data, name.len);
    out_be16(o, 0);
    if (create)
        out_be16(o, -1); /* no message */
    out_frame_end(o, at);
}
static void answer_producer_id(struct out *o, u32 correlation)
{
    static u32 last;
    u32 at = out_frame(o, correlation);
    out_be32(o, 0);
    out_be16(o, 0);
    out_be64(o, __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED));
    out_be16(o, 0);
    out_frame_end(o, at);
}

/* ---- submissions ---- */
static struct io_uring_sqe *floor_sqe(struct floor *f, void *object, enum op op)
{
    struct io_uring_sqe *s = io_uring_get_sqe(&f->ring);
    if (!s) {
        io_uring_submit(&f->ring);
        s = io_uring_get_sqe(&f->ring);
    }
    CHECK(s != NULL);
    s->user_data = (u64)(uintptr_t)object | op;
    return s;
}
/* prep functions clear user_data, so it is set afterwards. */
static void floor_tag(struct io_uring_sqe *s, void *object, enum op op)
{
    s->user_data = (u64)(uintptr_t)object | op;
}
static void conn_release(struct conn *c)
{
    if (--c->refs > 0 || !c->closed)
        return;
    close(c->fd);
    mem_free(c->rx);
    mem_free(c->out.data);
    mem_free(c->sent.data);
    mem_free(c);
}
static void conn_recv(struct floor *f, struct conn *c)
{
    u32 need = FLOOR_RX_BYTES / 4;
    if (c->begin == c->end)
        c->begin = c->end = 0;
    if (c->end - c->begin >= 4)
        need = get_be32(c->rx + c->begin) + 4 - (c->end - c->begin);
    if (c->cap - c->end < need) { /* move rarely: only when the frame does not fit behind */
        memmove(c->rx, c->rx + c->begin, c->end - c->begin);
        c->end -= c->begin;
        c->begin = 0;
    }
    if (c->cap - c->end < need) {
        c->cap = c->end + need;
        c->rx = mem_realloc(c->rx, c->cap);
    }
    struct io_uring_sqe *s = floor_sqe(f, c, OP_RECV);
    io_uring_prep_recv(s, c->fd, c->rx + c->end, c->cap - c->end, 0);
    if (c->drained)
        s->ioprio |= IORING_RECVSEND_POLL_FIRST; /* spares a try that finds nothing */
    floor_tag(s, c, OP_RECV);
    c->refs++;
}
static void conn_send(struct floor *f, struct conn *c)
{
    if (c->sending || c->closed || (c->out.len == 0 && c->sent.len == 0))
        return;
    if (c->sent_at == c->sent.len) {
        struct out done = c->sent;
        c->sent = c->out;
        c->out = (struct out){ done.data, 0, done.cap };
        c->sent_at = 0;
        if (c->sent.len == 0)
            return;
    }
    struct io_uring_sqe *s = floor_sqe(f, c, OP_SEND);
    io_uring_prep_send(s, c->fd, c->sent.data + c->sent_at, c->sent.len - c->sent_at, MSG_NOSIGNAL);
    floor_tag(s, c, OP_SEND);
    c->sending = true;
    c->refs++;
}
static void group_answer(struct floor *f, struct group *g)
{
    u32 at = 0;
    for (u32 i = 0; i < g->count; i++) {
        struct conn *c = g->list[i].conn;
        out_raw(&c->out, g->answers.data + at, g->list[i].len);
        at += g->list[i].len;
    }
    for (u32 i = 0; i < g->count; i++) { /* after all: one send for several answers */
        conn_send(f, g->list[i].conn);
        conn_release(g->list[i].conn);
    }
    g->count = g->len = g->answers.len = 0;
    g->busy = g->written = false;
    if (!f->open)
        f->open = g;
}
/* Writes complete in any order; answers go in the order of the log, as a log must have it. */
static void group_written(struct floor *f, struct group *g)
{
    g->written = true;
    while (f->order_begin != f->order_end && f->order[f->order_begin % FLOOR_GROUPS_MAX]->written)
        group_answer(f, f->order[f->order_begin++ % FLOOR_GROUPS_MAX]);
}
static struct group *group_free(struct floor *f)
{
    for (u32 i = 0; i < f->group_count; i++)
        if (!f->groups[i].busy && f->groups[i].count == 0)
            return &f->groups[i];
    return NULL;
}
static void group_write(struct floor *f)
{
    struct group *g = f->open;
    if (!g || g->count == 0 || f->order_end - f->order_begin == opt.depth)
        return;
    if (opt.no_write) {
        group_answer(f, g);
        return;
    }
    u32 len = (u32)align_up(g->len, FLOOR_BLOCK);
    memset(g->data + g->len, 0, len - g->len);
    if (f->file_at + len > opt.file_bytes)
        f->file_at = 0;
    struct io_uring_sqe *s = floor_sqe(f, g, OP_WRITE);
    io_uring_prep_write_fixed(s, 0, g->data, len, f->file_at, (int)g->index);
    s->flags |= IOSQE_FIXED_FILE;
    floor_tag(s, g, OP_WRITE);
    f->file_at += len;
    g->busy = true;
    f->order[f->order_end++ % FLOOR_GROUPS_MAX] = g;
    f->open = group_free(f);
}

/* ---- requests ---- */
/* One pass over each batch: copy and CRC. False when a batch is wrong. */
static bool records_copy(struct group *g, struct bytes records)
{
    for (u32 at = 0; at < records.len;) {
        const u8 *batch = records.data + at;
        u64 len = records.len - at < 61 ? 0 : (u64)get_be32(batch + 8) + 12;
        if (len < 61 || len > records.len - at)
            return false;
        memcpy(g->data + g->len, batch, 21);
        u32 crc = crc32c_copy(0, g->data + g->len + 21, batch + 21, len - 21);
        if (crc != get_be32(batch + 17))
            return false;
        g->len += (u32)len;
        at += (u32)len;
    }
    return true;
}
static bool produce(struct group *g, struct conn *c, struct in *r, u32 correlation)
{
    struct out *o = &g->answers;
    u32 at = out_frame(o, correlation);
    in_compact(r);
    bool acks = in_be16(r) != 0;
    in_be32(r);
    u32 topics = in_uvarint(r);
    out_u8(o, 0);
    out_uvarint(o, topics);
    for (; topics > 1 && !r->bad; topics--) {
        struct bytes name = in_compact(r);
        u32 n = in_uvarint(r);
        out_uvarint(o, name.len + 1);
        out_raw(o, name.data, name.len);
        out_uvarint(o, n);
        for (; n > 1 && !r->bad; n--) {
            u32 partition = in_be32(r);
            bool good = records_copy(g, in_compact(r));
            in_uvarint(r);
            out_be32(o, (i32)partition);
            out_be16(o, good ? 0 : 2);
            out_be64(o, 0);  /* base offset */
            out_be64(o, -1); /* append time */
            out_be64(o, 0);  /* log start */
            out_u8(o, 1);    /* no record errors */
            out_u8(o, 0);    /* no message */
            out_u8(o, 0);
        }
        in_uvarint(r);
        out_u8(o, 0);
    }
    out_be32(o, 0);
    out_u8(o, 0);
    out_frame_end(o, at);
    if (r->bad || !acks)
        o->len = at;
    if (r->bad)
        return false;
    if (g->count == g->cap) {
        g->cap = g->cap * 2 + 64;
        g->list = mem_realloc(g->list, sizeof *g->list * g->cap);
    }
    g->list[g->count++] = (struct answer){ c, o->len - at };
    c->refs++;
    return true;
}
enum handled { HANDLED, HANDLED_BAD, HANDLED_LATER };
static enum handled conn_handle(struct floor *f, struct conn *c, struct in r)
{
    u32 len = (u32)(r.end - r.p);
    u32 key = in_be16(&r), version = in_be16(&r), correlation = in_be32(&r);
    in_string(&r); /* client id */
    bool flexible = (key == 0 && version >= 9) || (key == 3 && version >= 9);
    if (flexible)
        in_uvarint(&r);
    if (key == 0) {
        if (!flexible || len > FLOOR_GROUP_BYTES)
            return HANDLED_BAD;
        if (f->open && f->open->len + len > FLOOR_GROUP_BYTES) {
            group_write(f);
            if (f->open && f->open->count > 0) /* depth reached: it stays open, but is full */
                return HANDLED_LATER;
        }
        if (!f->open)
            return HANDLED_LATER;
        return produce(f->open, c, &r, correlation) ? HANDLED : HANDLED_BAD;
    }
    if (key == 18)
        answer_versions(&c->out, correlation);
    else if (key == 3)
        answer_metadata(&c->out, &r, correlation);
    else if (key == 19 || key == 20)
        answer_topics(&c->out, &r, correlation, key == 19);
    else if (key == 22)
        answer_producer_id(&c->out, correlation);
    else
        return HANDLED_BAD;
    conn_send(f, c);
    return r.bad ? HANDLED_BAD : HANDLED;
}
/* Handles the complete frames, then receives on, unless the groups are full. */
static void conn_frames(struct floor *f, struct conn *c)
{
    while (c->end - c->begin >= 4 && !c->closed) {
        const u8 *p = c->rx + c->begin;
        u32 len = get_be32(p);
        if (len > FLOOR_FRAME_MAX) {
            c->closed = true;
            break;
        }
        if (c->end - c->begin - 4 < len)
            break;
        enum handled h = conn_handle(f, c, (struct in){ p + 4, p + 4 + len, false });
        if (h == HANDLED_LATER) {
            c->next_starved = f->starved;
            f->starved = c;
            c->refs++;
            return;
        }
        c->closed |= h == HANDLED_BAD;
        c->begin += 4 + len;
    }
    if (c->closed)
        shutdown(c->fd, SHUT_RDWR);
    else
        conn_recv(f, c);
}
static void floor_feed_starved(struct floor *f)
{
    struct conn *list = f->starved;
    f->starved = NULL;
    while (list) {
        struct conn *c = list;
        list = c->next_starved;
        conn_frames(f, c);
        conn_release(c);
    }
}

/* ---- loop ---- */
static void floor_accept(struct floor *f)
{
    struct io_uring_sqe *s = floor_sqe(f, NULL, OP_ACCEPT);
    io_uring_prep_multishot_accept(s, f->listener, NULL, NULL, SOCK_CLOEXEC);
    floor_tag(s, NULL, OP_ACCEPT);
}
static void floor_accepted(struct floor *f, i32 fd, u32 flags)
{
    int one = 1;
    if (!(flags & IORING_CQE_F_MORE))
        floor_accept(f);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct conn *c = MEM_NEW(struct conn);
    c->fd = fd;
    c->cap = FLOOR_RX_BYTES;
    c->rx = mem_realloc(NULL, c->cap);
    conn_recv(f, c);
}
static void floor_complete(struct floor *f, u64 data, i32 result, u32 flags)
{
    void *object = (void *)(uintptr_t)(data & ~(u64)OP_MASK);
    struct conn *c = object;
    switch (data & OP_MASK) {
    case OP_ACCEPT:
        floor_accepted(f, result, flags);
        break;
    case OP_RECV:
        if (result > 0) {
            c->end += (u32)result;
            c->drained = !(flags & IORING_CQE_F_SOCK_NONEMPTY);
            conn_frames(f, c);
        } else {
            c->closed = true;
        }
        conn_release(c);
        break;
    case OP_SEND:
        c->sending = false;
        if (result > 0)
            c->sent_at += (u32)result;
        else
            c->closed = true;
        conn_send(f, c);
        conn_release(c);
        break;
    default:
        if (result < 0)
            FATAL("write to the file in %s failed: %s", opt.dir, strerror(-result));
        group_written(f, object);
        break;
    }
}
static void *floor_run(void *arg)
{
    struct floor *f = arg;
    struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                          IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
                                 .cq_entries = FLOOR_RING * 4 };
    int r = io_uring_queue_init_params(FLOOR_RING, &f->ring, &p);
    if (r < 0)
        FATAL("io_uring cannot be set up: %s", strerror(-r));
    struct iovec iov[FLOOR_GROUPS_MAX];
    f->group_count = opt.depth + 2;
    for (u32 i = 0; i < f->group_count; i++) {
        f->groups[i].index = i;
        f->groups[i].data = mem_map(FLOOR_GROUP_BYTES, true);
        CHECK(f->groups[i].data != NULL);
        iov[i] = (struct iovec){ f->groups[i].data, FLOOR_GROUP_BYTES };
    }
    CHECK(io_uring_register_buffers(&f->ring, iov, f->group_count) == 0);
    CHECK(io_uring_register_files(&f->ring, &f->file, 1) == 0);
    f->open = &f->groups[0];
    floor_accept(f);
    for (;;) {
        struct io_uring_cqe *cqes[256];
        r = io_uring_submit_and_wait(&f->ring, 1);
        CHECK(r >= 0 || r == -EINTR);
        u32 n = io_uring_peek_batch_cqe(&f->ring, cqes, ARRAY_COUNT(cqes));
        for (u32 i = 0; i < n; i++)
            floor_complete(f, cqes[i]->user_data, cqes[i]->res, cqes[i]->flags);
        io_uring_cq_advance(&f->ring, n);
        if (f->starved && f->open)
            floor_feed_starved(f);
        group_write(f);
    }
    return NULL;
}

/* ---- start ---- */
static int floor_listen(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(opt.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 4096) != 0)
        FATAL("cannot listen on port %u: %s", opt.port, strerror(errno));
    return fd;
}
static int floor_file(u32 index)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/floor-%u", opt.dir, index);
    int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT;
    int fd = open(path, flags, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        FATAL("cannot open %s with O_DIRECT: %s", path, strerror(errno));
    u8 *zeros = mem_map(FLOOR_GROUP_BYTES, false);
    CHECK(zeros != NULL);
    for (u64 at = 0; (u64)st.st_size < opt.file_bytes && at < opt.file_bytes;
         at += FLOOR_GROUP_BYTES)
        if (pwrite(fd, zeros, FLOOR_GROUP_BYTES, (off_t)at) != (ssize_t)FLOOR_GROUP_BYTES)
            FATAL("cannot fill %s: %s", path, strerror(errno));
    mem_unmap(zeros, FLOOR_GROUP_BYTES);
    if (fsync(fd) != 0)
        FATAL("cannot flush %s: %s", path, strerror(errno));
    close(fd);
    fd = open(path, flags | (opt.no_dsync ? 0 : O_DSYNC), 0600);
    CHECK(fd >= 0);
    return fd;
}
static void floor_options(int argc, char **argv)
{
    static const struct option longs[] = { { "port", required_argument, NULL, 'p' },
                                           { "dir", required_argument, NULL, 'd' },
                                           { "threads", required_argument, NULL, 't' },
                                           { "depth", required_argument, NULL, 'q' },
                                           { "file-mib", required_argument, NULL, 'f' },
                                           { "no-dsync", no_argument, NULL, 'n' },
                                           { "no-write", no_argument, NULL, 'w' },
                                           { "help", no_argument, NULL, 'h' },
                                           { 0 } };
    for (int c; (c = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        switch (c) {
        case 'p':
            opt.port = (u16)atoi(optarg);
            break;
        case 'd':
            opt.dir = optarg;
            break;
        case 't':
            opt.threads = (u32)atoi(optarg);
            break;
        case 'q':
            opt.depth = (u32)atoi(optarg);
            break;
        case 'f':
            opt.file_bytes = align_up((u64)atoi(optarg) * MIB, FLOOR_GROUP_BYTES);
            break;
        case 'n':
            opt.no_dsync = true;
            break;
        case 'w':
            opt.no_write = true;
            break;
        default:
            printf("leat-floor: receive, CRC32C, durable write, answer; nothing else\n"
                   "  --port P --dir D --threads N --depth N --file-mib N --no-dsync --no-write\n");
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (opt.threads == 0 || opt.threads > 256 || opt.depth == 0 ||
        opt.depth > FLOOR_GROUPS_MAX - 2 || opt.file_bytes < 4 * FLOOR_GROUP_BYTES) {
        fprintf(stderr, "leat-floor: 1..256 threads, depth 1..%u, at least 16 MiB of file\n",
                FLOOR_GROUPS_MAX - 2);
        exit(2);
    }
}
int main(int argc, char **argv)
{
    floor_options(argc, argv);
    mkdir(opt.dir, 0700);
    pthread_t *threads = mem_alloc(sizeof *threads * opt.threads);
    struct floor *floors = mem_alloc(sizeof *floors * opt.threads);
    for (u32 i = 0; i < opt.threads; i++) {
        floors[i].index = i;
        floors[i].file = floor_file(i);
        floors[i].listener = floor_listen();
    }
    for (u32 i = 0; i < opt.threads; i++)
        CHECK(pthread_create(&threads[i], NULL, floor_run, &floors[i]) == 0);
    fprintf(stderr, "leat-floor: ready on 127.0.0.1:%u, %u threads, %u writes in flight\n",
            opt.port, opt.threads, opt.depth);
    for (u32 i = 0; i < opt.threads; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
