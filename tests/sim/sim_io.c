/* io.h of the simulator: files and turns. Sockets are in sim_net.c.
 *
 * An operation is under way from the call that starts it; an event ends it (op_ready), and the
 * owner hears of it in a later turn of its shard. Nothing completes inside the starting call. */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "config.h"
#include "sim.h"

#define FDS_MAX 64
static struct { /* descriptors of files; those of sockets are above (sim_net.c) */
    struct sim_file *file;
    bool direct;
} fds[FDS_MAX];
static u32 fd_count;

void io_crash(void)
{
    memset(fds, 0, sizeof fds);
    fd_count = 0;
}

/* ---- operations ---- */

void op_begin(struct io *io, struct io_op *op, enum op_kind kind, io_fd fd, io_done done)
{
    CHECK(io_op_idle(op) && done != NULL && fd >= 0);
    op->done = done;
    op->err = ERR_NONE;
    op->result = 0;
    op->io = io;
    op->kind = (u8)kind;
    op->flags = 0;
    op->fd = fd;
    memset(op->arg, 0, sizeof op->arg);
    io->inflight++;
}

void op_ready(struct io_op *op, err e, i64 result)
{
    CHECK(!io_op_idle(op) && !(op->flags & OP_READY));
    op->flags |= OP_READY;
    op->err = e;
    op->result = result;
    list_push_back(&op->io->ready, &op->link);
}

bool io_has_work(const struct io *io)
{
    return !list_empty(&io->ready) || (io->accept && !list_empty(&io->accepted));
}

static u32 run_ready(struct io *io, u32 budget)
{
    u32 ran = 0;
    while (ran < budget && net_run_accepted(io))
        ran++;
    for (struct list *l; ran < budget && (l = list_pop_front(&io->ready)); ran++) {
        struct io_op *op = list_entry(l, struct io_op, link);
        io_done done = op->done;
        op->done = NULL;
        op->flags = 0;
        CHECK(io->inflight > 0);
        io->inflight--;
        done(op);
    }
    return ran;
}

/* Waiting happens only while a node starts: then the world goes on without its shards. */
u32 io_turn(struct io *io, u64 timeout_ns, u32 budget)
{
    u64 deadline = sim.now_ns + timeout_ns;
    while (!io_has_work(io) && sim.now_ns < deadline) {
        u64 next = sim_next_event();
        sim.now_ns = MAX(sim.now_ns, MIN(next, deadline));
        sim_run_events();
    }
    return run_ready(io, budget);
}

void io_cancel(struct io *io, struct io_op *op)
{
    (void)io;
    if (io_op_idle(op) || (op->flags & (OP_CANCELED | OP_READY)))
        return;
    op->flags |= OP_CANCELED;
    if (op->kind != OP_WRITE && op->kind != OP_READ) /* disks don't cancel */
        net_cancel(op);
}

void io_wake(struct io *from, struct io *to)
{
    (void)from, (void)to; /* the scheduler sees the message */
}

/* ---- life ---- */

err io_create(const struct config *cfg, u32 index, struct io **out, char *why, size_t why_size)
{
    (void)why, (void)why_size;
    struct io *io = MEM_NEW(struct io);
    io->index = index;
    io->listener = -1;
    list_init(&io->ready);
    list_init(&io->accepted);
    io->buf_bytes = (u32)config_u64(cfg, CFG_net_recv_buffer_bytes);
    io->buf_count = io->buf_free = (u32)config_u64(cfg, CFG_net_recv_buffers);
    io->bufs = mem_map((u64)io->buf_bytes * io->buf_count, false);
    io->free_bufs = mem_alloc(io->buf_count * sizeof(u16));
    for (u32 i = 0; i < io->buf_count; i++)
        io->free_bufs[i] = (u16)i;
    snprintf(io->features.text, sizeof io->features.text, "simulated=yes");
    *out = io;
    return ERR_NONE;
}

void io_destroy(struct io *io)
{
    if (io->inflight != 0)
        sim_fail("io: the ring ends with %u operations in flight", io->inflight);
    CHECK(list_empty(&io->ready));
    if (io->buf_free != io->buf_count)
        sim_fail("io: %u receive buffers were not given back", io->buf_count - io->buf_free);
    net_io_destroy(io);
    mem_unmap(io->bufs, (u64)io->buf_bytes * io->buf_count);
    mem_free(io->free_bufs);
    mem_free(io);
}

const struct io_features *io_features(const struct io *io)
{
    return &io->features;
}

u32 io_buf_bytes(const struct io *io)
{
    return io->buf_bytes;
}

void io_buf_release(struct io *io, struct io_op *op)
{
    CHECK(op->buf == io->bufs + (u64)op->buf_id * io->buf_bytes);
    CHECK(io->buf_free < io->buf_count);
    memset(op->buf, 0xdd, io->buf_bytes); /* whoever still looks at it shall notice */
    io->free_bufs[io->buf_free++] = op->buf_id;
    op->buf = NULL;
}

bool io_register_region(struct io *io, void *p, u64 bytes)
{
    (void)io, (void)p, (void)bytes;
    return true;
}

void io_unregister_region(struct io *io, void *p)
{
    (void)io, (void)p;
}

/* ---- files ---- */

err io_file_open(struct io *io, const char *path, u32 flags, u64 *bytes, io_fd *out)
{
    (void)io;
    err e;
    sim_effect("file open");
    struct sim_file *f = disk_open(path, flags & IO_FILE_CREATE, flags & IO_FILE_EMPTY, *bytes, &e);
    if (!f)
        return e;
    u32 fd = 0;
    while (fd < fd_count && fds[fd].file)
        fd++;
    CHECK(fd < FDS_MAX);
    fd_count = MAX(fd_count, fd + 1);
    fds[fd].file = f;
    fds[fd].direct = flags & IO_FILE_DIRECT;
    *bytes = disk_bytes(f);
    *out = (io_fd)fd;
    return ERR_NONE;
}

static struct sim_file *file_of(io_fd fd)
{
    CHECK(fd >= 0 && (u32)fd < fd_count && fds[fd].file);
    return fds[fd].file;
}

void io_file_close(struct io *io, io_fd fd)
{
    (void)io;
    (void)file_of(fd);
    fds[fd].file = NULL;
}

err io_file_sync(struct io *io, io_fd fd)
{
    (void)io;
    if (fault(sim.faults.disk_eio)) {
        sim.faults_hit++;
        return ERR_IO;
    }
    sim_effect("before file sync");
    disk_sync(file_of(fd));
    sim_effect("file sync");
    return ERR_NONE;
}

static u64 disk_delay(void)
{
    return fault(sim.faults.disk_slow) ? rnd_log(10 * NS_PER_MS, 2 * NS_PER_S)
                                       : rnd_between(10 * NS_PER_US, 300 * NS_PER_US);
}

static void write_ends(void *arg, u64 x)
{
    struct io_op *op = arg;
    struct sim_write *w = (struct sim_write *)(uintptr_t)x;
    err e = disk_write_end(w);
    TRACE("write ends: %s", err_name(e));
    op_ready(op, e, e == ERR_NONE ? (i64)op->arg[0] : 0);
    sim_effect("write completed");
}

void io_write(struct io *io, struct io_op *op, io_fd fd, const u8 *buf, u32 len, u64 offset,
              bool durable, io_done done)
{
    op_begin(io, op, OP_WRITE, fd, done);
    sim_effect("before write");
    enum sim_step step = disk_step(file_of(fd), buf, offset);
    sim_step(step, STEP_BEFORE);
    struct sim_write *w = disk_write_begin(file_of(fd), buf, len, offset, durable);
    TRACE("shard %u writes %u at %" PRIu64, io->index, len, offset);
    op->arg[0] = len;
    sim_after_in_life(disk_delay(), write_ends, op, (u64)(uintptr_t)w);
    sim_effect("write begun");
    sim_step(step, STEP_AFTER);
}

static void read_ends(void *arg, u64 x)
{
    (void)x;
    struct io_op *op = arg;
    struct sim_file *f = (struct sim_file *)(uintptr_t)op->arg[2];
    if (disk_fails(f)) {
        sim.faults_hit++;
        op_ready(op, ERR_IO, 0);
        return;
    }
    u64 bytes = disk_bytes(f), offset = op->arg[1];
    u32 len = offset >= bytes ? 0 : (u32)MIN(op->arg[0], bytes - offset);
    disk_read(f, op->buf, len, offset);
    op_ready(op, ERR_NONE, len);
}

void io_read(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, u64 offset, io_done done)
{
    op_begin(io, op, OP_READ, fd, done);
    if (fds[fd].direct && (len % 4096 || offset % 4096 || (uintptr_t)buf % 4096))
        sim_fail("disk: unaligned read of %u bytes at %" PRIu64, len, offset);
    op->buf = buf;
    op->arg[0] = len;
    op->arg[1] = offset;
    op->arg[2] = (u64)(uintptr_t)file_of(fd);
    sim_after_in_life(disk_delay(), read_ends, op, 0);
}
