/* io.h on io_uring: operations and the turn. Start-up and probing are in uring_setup.c.
 *
 *   start (io_recv, io_write …) → SQE ─┐            one io_uring_enter a turn submits all SQEs,
 *                                      ▼            waits, and lets the kernel run its task work
 *   io_turn: enter(submit, wait) → CQEs → dispatch → op_end → op->done(op)
 *
 * Invariants
 * 1. `done` is called from op_end only, and op_end only while io->dispatching: never inside a
 *    starting call, whatever the state of the queues.
 * 2. One op has at most one SQE in flight, but for zero-copy sends, whose buffer
 *    notifications are counted in notif_pending; the op ends when result and notifications are in.
 * 3. Short transfers are resubmitted here (sends, `all` receives, files), so that callers see
 *    everything or an error. A canceled op is not resubmitted.
 * 4. A full SQ is submitted at once without waiting; a CQ that overflows meanwhile is moved to
 *    `backlog`, which io_turn runs first.
 * 5. A buffer id is in exactly one place: the free stack, the kernel's ring, or an op's buf_id.
 *
 * The SQ index array is the identity (or absent: NO_SQARRAY), and we publish the tail and enter
 * ourselves: liburing 2.3 would rewrite the array at each submission.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "config.h"
#include "mem.h"
#include "uring_int.h"

/* ---- entering the kernel ---- */

static u32 sq_pending(const struct io *io)
{
    return io->ring.sq.sqe_tail - io_uring_smp_load_acquire(io->ring.sq.khead);
}

static u32 cq_ready(const struct io *io)
{
    return io_uring_smp_load_acquire(io->ring.cq.ktail) - *io->ring.cq.khead;
}

static u32 sq_kflags(const struct io *io)
{
    return IO_URING_READ_ONCE(*io->ring.sq.kflags);
}

/* Returns what the kernel took, or -errno of those errors that may happen. */
static int ring_enter(struct io *io, u32 wait_count, u32 flags, u64 timeout_ns)
{
    u32 submit = sq_pending(io);
    io_uring_smp_store_release(io->ring.sq.ktail, io->ring.sq.sqe_tail);
    struct __kernel_timespec ts = { .tv_sec = (i64)(timeout_ns / NS_PER_S),
                                    .tv_nsec = (i64)(timeout_ns % NS_PER_S) };
    struct io_uring_getevents_arg arg = { .ts = (u64)(uintptr_t)&ts };
    flags |= io->enter_flags;
    int rc =
        wait_count > 0
            ? io_uring_enter2(io->enter_fd, submit, wait_count, flags | IORING_ENTER_EXT_ARG,
                              (sigset_t *)(void *)&arg, sizeof arg)
            : io_uring_enter2(io->enter_fd, submit, 0, flags & ~URING_ENTER_NO_IOWAIT, NULL, 0);
    if (likely(rc >= 0))
        return rc;
    switch (-rc) {
    case ETIME: /* the wait is over */
    case EINTR:
    case EAGAIN: /* no memory for requests just now: completions give some back */
    case EBUSY:  /* completions overflow: run some first */
        return rc;
    default:
        FATAL("what=\"io_uring_enter failed\" shard=%u errno=%d (%s) submit=%u flags=%#x",
              io->index, -rc, strerror(-rc), submit, flags);
    }
}

static void backlog_add(struct io *io, const struct io_uring_cqe *cqe)
{
    if (io->backlog_tail == io->backlog_cap) {
        io->backlog_cap = io->backlog_cap ? io->backlog_cap * 2 : 256;
        io->backlog = mem_realloc(io->backlog, io->backlog_cap * sizeof *io->backlog);
    }
    io->backlog[io->backlog_tail++] = (struct backlog_cqe){ cqe->user_data, cqe->res, cqe->flags };
}

static void cq_to_backlog(struct io *io)
{
    u32 head = *io->ring.cq.khead;
    u32 tail = io_uring_smp_load_acquire(io->ring.cq.ktail);
    for (; head != tail; head++)
        backlog_add(io, &io->ring.cq.cqes[head & io->ring.cq.ring_mask]);
    io_uring_smp_store_release(io->ring.cq.khead, head);
}

static void sq_submit_full(struct io *io)
{
    while (sq_pending(io) == io->ring.sq.ring_entries) {
        int rc = ring_enter(io, 0, 0, 0);
        if (rc == -EBUSY || rc == -EAGAIN) {
            cq_to_backlog(io);
            (void)ring_enter(io, 0, IORING_ENTER_GETEVENTS, 0);
        }
    }
}

struct io_uring_sqe *uring_sqe(struct io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    if (unlikely(!sqe)) {
        sq_submit_full(io);
        sqe = io_uring_get_sqe(&io->ring);
        CHECK(sqe != NULL);
    }
    return sqe;
}

void uring_flush_last(struct io *io)
{
    u32 submit = sq_pending(io);
    io_uring_smp_store_release(io->ring.sq.ktail, io->ring.sq.sqe_tail);
    if (submit > 0) /* on another thread than the shard's this fails: then nothing was owed */
        (void)io_uring_enter2((u32)io->ring.ring_fd, submit, 0, 0, NULL, 0);
}

/* ---- ops ---- */

static void op_begin(struct io *io, struct io_op *op, enum uring_kind kind, io_fd fd, io_done done)
{
    CHECK(io_op_idle(op) && done != NULL && fd >= 0);
    op->done = done;
    op->err = ERR_NONE;
    op->result = 0;
    op->io = io;
    op->kind = (u8)kind;
    op->flags = 0;
    op->notif_pending = 0;
    op->fd = fd;
    io->inflight++;
}

static void op_end(struct io *io, struct io_op *op, int errno_value, i64 result)
{
    CHECK(io->dispatching);
    io_done done = op->done;
    op->done = NULL;
    op->err = errno_value ? err_from_errno(errno_value) : ERR_NONE;
    op->result = result;
    io->inflight--;
    done(op);
}

void io_cancel(struct io *io, struct io_op *op)
{
    if (io_op_idle(op) || (op->flags & OP_CANCELED))
        return;
    op->flags |= OP_CANCELED;
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_cancel64(sqe, (u64)(uintptr_t)op, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(sqe, TAG_IGNORE);
}

/* ---- accept ---- */

static void accept_submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data(sqe, op);
}

void io_accept(struct io *io, struct io_op *op, io_fd listener, io_done done)
{
    op_begin(io, op, KIND_ACCEPT, listener, done);
    accept_submit(io, op);
}

static void accept_complete(struct io *io, struct io_op *op, i32 res, u32 flags)
{
    if (res < 0) {
        op_end(io, op, -res, 0);
        return;
    }
    /* The kernel ends a multishot when the CQ overflows; for the caller it goes on. */
    if (!(flags & IORING_CQE_F_MORE) && !(op->flags & OP_CANCELED))
        accept_submit(io, op);
    bool last = !(flags & IORING_CQE_F_MORE) && (op->flags & OP_CANCELED);
    op->err = ERR_NONE;
    op->result = res;
    op->done(op);
    if (last) /* this one came instead of the cancellation's own completion */
        op_end(io, op, ECANCELED, 0);
}

/* ---- receive ---- */

static void recv_pooled_submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_recv(sqe, op->fd, NULL, op->len_max, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
    sqe->buf_group = 0;
    /* Without word of more bytes the socket is most likely empty: spare the futile attempt. */
    if (!op->more)
        sqe->ioprio |= URING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data(sqe, op);
}

void io_recv_pooled(struct io *io, struct io_op *op, io_fd fd, io_done done)
{
    op_begin(io, op, KIND_RECV_POOLED, fd, done);
    op->buf = NULL;
    recv_pooled_submit(io, op);
}

static void buf_push_free(struct io *io, u32 id)
{
    CHECK(id < io->buf_count && io->buf_free_count < io->buf_count);
    io->buf_free[io->buf_free_count++] = (u16)id;
    MEM_POISON(io->bufs + (u64)id * io->buf_bytes, io->buf_bytes);
}

static void recv_pooled_complete(struct io *io, struct io_op *op, i32 res, u32 flags)
{
    op->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
    if (flags & IORING_CQE_F_BUFFER) {
        u32 id = flags >> IORING_CQE_BUFFER_SHIFT;
        CHECK(id < io->buf_count && io->buf_ring_count > 0);
        io->buf_ring_count--;
        if (res > 0) {
            op->buf_id = (u16)id;
            op->buf = io->bufs + (u64)id * io->buf_bytes;
            MEM_UNPOISON(op->buf, (u32)res);
        } else {
            buf_push_free(io, id);
        }
    }
    if (res == -ENOBUFS && !(op->flags & OP_CANCELED) && io->buf_free_count > 0) {
        /* Only this turn's share ran out. */
        io->buf_ring_target = MIN(io->buf_ring_target * 2, io->buf_count);
        uring_bufs_refill(io);
        op->more = true;
        recv_pooled_submit(io, op);
        return;
    }
    op_end(io, op, res < 0 ? -res : 0, res < 0 ? 0 : res);
}

void io_buf_release(struct io *io, struct io_op *op)
{
    CHECK(op->buf == io->bufs + (u64)op->buf_id * io->buf_bytes);
    buf_push_free(io, op->buf_id);
    op->buf = NULL;
}

u32 io_buf_bytes(const struct io *io)
{
    return io->buf_bytes;
}

void uring_bufs_refill(struct io *io)
{
    u16 added = 0;
    u16 mask = (u16)(io->buf_count - 1);
    while (io->buf_ring_count < io->buf_ring_target && io->buf_free_count > 0) {
        u16 id = io->buf_free[--io->buf_free_count];
        struct io_uring_buf *b = &io->buf_ring->bufs[(io->buf_ring_tail + added) & mask];
        b->addr = (u64)(uintptr_t)(io->bufs + (u64)id * io->buf_bytes);
        b->len = io->buf_bytes;
        b->bid = id;
        added++;
        io->buf_ring_count++;
    }
    if (added == 0)
        return;
    io->buf_ring_tail = (u16)(io->buf_ring_tail + added);
    io_uring_smp_store_release(&io->buf_ring->tail, io->buf_ring_tail);
}

/* arg[0] bytes so far, arg[1] bytes wanted; op->buf start. */
static void recv_submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_recv(sqe, op->fd, op->buf + op->arg[0], op->arg[1] - op->arg[0],
                       op->flags & OP_ALL ? MSG_WAITALL : 0);
    if (!op->more)
        sqe->ioprio |= URING_RECVSEND_POLL_FIRST;
    io_uring_sqe_set_data(sqe, op);
}

void io_recv(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, bool all, io_done done)
{
    CHECK(len > 0);
    op_begin(io, op, KIND_RECV, fd, done);
    op->buf = buf;
    op->arg[0] = 0;
    op->arg[1] = len;
    if (all)
        op->flags |= OP_ALL;
    recv_submit(io, op);
}

static void recv_complete(struct io *io, struct io_op *op, i32 res, u32 flags)
{
    op->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
    if (res > 0)
        op->arg[0] += (u32)res;
    if (res > 0 && (op->flags & OP_ALL) && op->arg[0] < op->arg[1]) {
        if (!(op->flags & OP_CANCELED)) {
            recv_submit(io, op);
            return;
        }
        res = -ECANCELED;
    }
    op_end(io, op, res < 0 ? -res : 0, (i64)op->arg[0]);
}

/* ---- send ---- */

static u64 iov_bytes(const struct iovec *iov, u32 count)
{
    u64 sum = 0;
    for (u32 i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* arg[0] bytes sent, arg[1] bytes wanted. op->iov points at the first piece not fully sent. */
static void send_submit(struct io *io, struct io_op *op)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    int flags = MSG_NOSIGNAL | MSG_WAITALL;
    bool zc = op->flags & OP_ZERO_COPY;
    if (op->iov_count == 1) {
        struct iovec *v = op->iov;
        if (zc)
            io_uring_prep_send_zc(sqe, op->fd, v->iov_base, v->iov_len, flags, 0);
        else
            io_uring_prep_send(sqe, op->fd, v->iov_base, v->iov_len, flags);
    } else {
        struct msghdr *m = &io->msghdrs[sqe - io->ring.sq.sqes];
        *m = (struct msghdr){ .msg_iov = op->iov, .msg_iovlen = op->iov_count };
        if (zc)
            io_uring_prep_sendmsg_zc(sqe, op->fd, m, (u32)flags);
        else
            io_uring_prep_sendmsg(sqe, op->fd, m, (u32)flags);
    }
    if (zc && io->has_zc_report)
        sqe->ioprio |= URING_SEND_ZC_REPORT_USAGE;
    op->flags |= OP_SUBMITTED;
    io_uring_sqe_set_data(sqe, op);
}

void io_send(struct io *io, struct io_op *op, io_fd fd, struct iovec *iov, u32 iov_count,
             io_done done)
{
    CHECK(iov_count > 0 && iov_count <= IOV_MAX);
    op_begin(io, op, KIND_SEND, fd, done);
    op->iov = iov;
    op->iov_count = iov_count;
    op->arg[0] = 0;
    op->arg[1] = iov_bytes(iov, iov_count);
    CHECK(op->arg[1] > 0);
    u64 zc_min = config_u64(io->cfg, CFG_net_send_zc_min_bytes);
    op->zero_copy = io->has_sendmsg_zc && !op->copies && zc_min > 0 && op->arg[1] >= zc_min;
    if (op->zero_copy)
        op->flags |= OP_ZERO_COPY;
    send_submit(io, op);
}

static void send_advance(struct io_op *op, u64 n)
{
    op->arg[0] += n;
    while (op->iov_count > 0 && n >= op->iov->iov_len) {
        n -= op->iov->iov_len;
        op->iov++;
        op->iov_count--;
    }
    CHECK(op->iov_count > 0 || n == 0);
    if (n > 0) {
        op->iov->iov_base = (u8 *)op->iov->iov_base + n;
        op->iov->iov_len -= n;
    }
}

static void send_complete(struct io *io, struct io_op *op, i32 res, u32 flags)
{
    if (flags & IORING_CQE_F_NOTIF) {
        CHECK(op->notif_pending > 0);
        op->notif_pending--;
        if (io->has_zc_report && ((u32)res & URING_NOTIF_USAGE_ZC_COPIED)) {
            op->copies = true;
            op->zero_copy = false;
        }
    } else {
        CHECK(op->flags & OP_SUBMITTED);
        op->flags &= (u8)~OP_SUBMITTED;
        if (flags & IORING_CQE_F_MORE)
            op->notif_pending++;
        if (res > 0)
            send_advance(op, (u64)res);
        /* Pages of a zero-copy send count as locked memory, which an ordinary user lacks. */
        bool unpinned = (res == -ENOMEM || res == -ENOBUFS) && (op->flags & OP_ZERO_COPY);
        if (unpinned) {
            op->flags &= (u8)~OP_ZERO_COPY;
            op->zero_copy = false;
        }
        if (op->arg[0] < op->arg[1]) {
            if ((res > 0 || unpinned) && op->notif_pending < UINT8_MAX &&
                !(op->flags & OP_CANCELED)) {
                send_submit(io, op);
                return;
            }
            op->arg[2] = res < 0 ? (u64)-res : res == 0 ? EPIPE : ECANCELED;
        } else {
            op->arg[2] = 0;
        }
    }
    if (!(op->flags & OP_SUBMITTED) && op->notif_pending == 0)
        op_end(io, op, (int)op->arg[2], (i64)op->arg[0]);
}

/* Shutting down first ends what is in flight on it; the descriptor's number stays taken until
 * the close runs, behind all SQEs that name it. */
void io_close(struct io *io, io_fd fd)
{
    CHECK(fd >= 0);
    (void)shutdown(fd, SHUT_RDWR);
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_close(sqe, fd);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(sqe, TAG_IGNORE);
}

/* ---- files ---- */

/* The registered slot that holds all of [buf, buf+len), or -1. */
static int region_find(struct io *io, const u8 *buf, u64 len)
{
    for (u32 k = 0; k < io->region_slots; k++) {
        u32 i = (io->region_last + k) % io->region_slots;
        const struct region *r = &io->regions[i];
        if (r->start && buf >= r->start && len <= r->bytes &&
            (u64)(buf - r->start) <= r->bytes - len) {
            io->region_last = i;
            return (int)i;
        }
    }
    return -1;
}

/* arg[0] bytes done, arg[1] bytes wanted, arg[2] file offset; op->buf start. */
static void file_submit(struct io *io, struct io_op *op)
{
    u8 *buf = op->buf + op->arg[0];
    u32 len = (u32)(op->arg[1] - op->arg[0]);
    u64 offset = op->arg[2] + op->arg[0];
    int slot = io->region_slots ? region_find(io, buf, len) : -1;
    struct io_uring_sqe *sqe = uring_sqe(io);
    if (op->kind == KIND_WRITE) {
        if (slot >= 0)
            io_uring_prep_write_fixed(sqe, op->fd, buf, len, offset, slot);
        else
            io_uring_prep_write(sqe, op->fd, buf, len, offset);
        if (op->flags & OP_DURABLE)
            sqe->rw_flags = RWF_DSYNC;
    } else {
        if (slot >= 0)
            io_uring_prep_read_fixed(sqe, op->fd, buf, len, offset, slot);
        else
            io_uring_prep_read(sqe, op->fd, buf, len, offset);
    }
    io_uring_sqe_set_data(sqe, op);
}

static void file_begin(struct io *io, struct io_op *op, enum uring_kind kind, io_fd fd, u8 *buf,
                       u32 len, u64 offset, io_done done)
{
    CHECK(len > 0 && len <= INT32_MAX);
    op_begin(io, op, kind, fd, done);
    op->buf = buf;
    op->arg[0] = 0;
    op->arg[1] = len;
    op->arg[2] = offset;
}

void io_write(struct io *io, struct io_op *op, io_fd fd, const u8 *buf, u32 len, u64 offset,
              bool durable, io_done done)
{
    /* The same field serves reads; a write never writes through it. */
    file_begin(io, op, KIND_WRITE, fd, (u8 *)(uintptr_t)buf, len, offset, done);
    if (durable)
        op->flags |= OP_DURABLE;
    file_submit(io, op);
}

void io_read(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, u64 offset, io_done done)
{
    file_begin(io, op, KIND_READ, fd, buf, len, offset, done);
    file_submit(io, op);
}

static void file_complete(struct io *io, struct io_op *op, i32 res)
{
    bool again = res == -EAGAIN || res == -EINTR;
    if (res > 0) {
        op->arg[0] += (u32)res;
        again = op->arg[0] < op->arg[1];
        /* A direct read that stops inside a block stopped at the end of the file. */
        if (op->kind == KIND_READ && op->arg[0] % 512 != 0)
            again = false;
    }
    if (again && !(op->flags & OP_CANCELED)) {
        file_submit(io, op);
        return;
    }
    if (res == 0 && op->kind == KIND_WRITE)
        res = -ENOSPC;
    op_end(io, op, res < 0 ? -res : 0, (i64)op->arg[0]);
}

/* ---- waking ---- */

void uring_event_arm(struct io *io)
{
    struct io_uring_sqe *sqe = uring_sqe(io);
    io_uring_prep_read(sqe, io->event_fd, &io->event_value, sizeof io->event_value, 0);
    io_uring_sqe_set_data64(sqe, TAG_EVENT);
}

static void event_ring(const struct io *to)
{
    u64 one = 1;
    ssize_t n = write(to->event_fd, &one, sizeof one);
    CHECK(n == (ssize_t)sizeof one);
}

/* AWAKE → ASLEEP by the shard before it waits, → AWAKE when it returns; anyone → NOTIFIED. Who
 * changes ASLEEP to NOTIFIED must ring; a shard that finds NOTIFIED does not sleep. */
void io_wake(struct io *from, struct io *to)
{
    if (__atomic_exchange_n(&to->sleep, NOTIFIED, __ATOMIC_SEQ_CST) != ASLEEP)
        return;
    if (from && from->has_msg_ring) {
        struct io_uring_sqe *sqe = uring_sqe(from);
        io_uring_prep_msg_ring(sqe, to->ring.ring_fd, 0, TAG_WAKE, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
        io_uring_sqe_set_data64(sqe, (u64)(uintptr_t)to | TAG_BIT_WAKE_FAILED);
        return;
    }
    event_ring(to);
}

/* ---- the turn ---- */

/* Returns whether an op's callback may have run. */
static bool dispatch(struct io *io, u64 user_data, i32 res, u32 flags)
{
    if (unlikely(user_data < TAG_LAST)) {
        if (user_data == TAG_EVENT && res != -ECANCELED)
            uring_event_arm(io);
        return false;
    }
    if (unlikely(user_data & TAG_BIT_WAKE_FAILED)) {
        event_ring((const struct io *)(uintptr_t)(user_data & ~(u64)TAG_BIT_WAKE_FAILED));
        return false;
    }
    struct io_op *op = (struct io_op *)(uintptr_t)user_data;
    CHECK(op->io == io && !io_op_idle(op));
    switch (op->kind) {
    case KIND_ACCEPT:
        accept_complete(io, op, res, flags);
        break;
    case KIND_RECV_POOLED:
        recv_pooled_complete(io, op, res, flags);
        break;
    case KIND_RECV:
        recv_complete(io, op, res, flags);
        break;
    case KIND_SEND:
        send_complete(io, op, res, flags);
        break;
    case KIND_WRITE:
    case KIND_READ:
        file_complete(io, op, res);
        break;
    default:
        CHECK(!"known kind of op");
    }
    return true;
}

static u32 run_backlog(struct io *io, u32 budget)
{
    u32 ran = 0;
    while (ran < budget && io->backlog_head < io->backlog_tail) {
        struct backlog_cqe c = io->backlog[io->backlog_head++];
        ran += dispatch(io, c.user_data, c.res, c.flags);
    }
    if (io->backlog_head == io->backlog_tail)
        io->backlog_head = io->backlog_tail = 0;
    return ran;
}

static u32 run_completions(struct io *io, u32 budget)
{
    io->dispatching = true;
    u32 ran = run_backlog(io, budget);
    while (ran < budget && io->backlog_tail == 0 && cq_ready(io) > 0) {
        u32 head = *io->ring.cq.khead;
        struct io_uring_cqe c = io->ring.cq.cqes[head & io->ring.cq.ring_mask];
        io_uring_smp_store_release(io->ring.cq.khead, head + 1);
        ran += dispatch(io, c.user_data, c.res, c.flags);
    }
    io->dispatching = false;
    return ran;
}

/* Polls for a moment before sleeping (core.spin). True when something came. */
static bool turn_spin(struct io *io)
{
    u64 end = clock_mono_ns() + io->spin_ns;
    if (sq_pending(io) > 0)
        (void)ring_enter(io, 0, IORING_ENTER_GETEVENTS, 0);
    do {
        if (cq_ready(io) > 0 || (sq_kflags(io) & IORING_SQ_TASKRUN) ||
            __atomic_load_n(&io->sleep, __ATOMIC_RELAXED) == NOTIFIED)
            return true;
        __builtin_ia32_pause();
    } while (clock_mono_ns() < end);
    return false;
}

static void turn_sleep(struct io *io, u64 timeout_ns)
{
    u32 awake = AWAKE;
    if (__atomic_compare_exchange_n(&io->sleep, &awake, ASLEEP, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
        (void)ring_enter(io, 1, IORING_ENTER_GETEVENTS, timeout_ns);
    else
        (void)ring_enter(io, 0, IORING_ENTER_GETEVENTS, 0);
}

u32 io_turn(struct io *io, u64 timeout_ns, u32 budget)
{
    MAGIC_CHECK(io, IO_MAGIC);
    CHECK(!io->dispatching);
    uring_bufs_refill(io);
    bool ready = cq_ready(io) > 0 || io->backlog_tail > 0;
    if (timeout_ns > 0 && !ready) {
        io->spin_ns = config_u64(io->cfg, CFG_core_spin_us) * NS_PER_US;
        if (io->spin_ns == 0 || !turn_spin(io))
            turn_sleep(io, timeout_ns);
    } else if (sq_pending(io) > 0 ||
               (!ready && (sq_kflags(io) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))) {
        (void)ring_enter(io, 0, IORING_ENTER_GETEVENTS, 0);
    }
    /* From here on a sender sees us awake; the shard looks into its mailboxes after this. */
    if (__atomic_load_n(&io->sleep, __ATOMIC_RELAXED) != AWAKE)
        __atomic_exchange_n(&io->sleep, AWAKE, __ATOMIC_SEQ_CST);
    return budget > 0 ? run_completions(io, budget) : 0;
}
