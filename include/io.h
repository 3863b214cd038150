/* All input and output of a shard, behind one set of calls with two implementations chosen at
 * link time: io_uring (core/shard/io_uring.c) and the simulator (tests/sim/sim_io.c).
 * (An epoll + threads one may follow: core.io.) No vtable: this is the hot path.
 *
 * A wait is a `struct io_op` that is a field of its owner. Starting an operation sets
 * op->done; it runs later from io_turn, on the same shard, never inside the starting call.
 * When it runs, op->err and op->result are set, the op is idle again and may be restarted
 * from inside the callback. An op in flight must stay where it is: its owner may be freed only
 * when io_op_idle(op). io_cancel asks for an early end; `done` still runs exactly once.
 *
 * errno becomes `err` here and nowhere else.
 *
 * Threads: everything on the owning shard's thread, but io_wake, and what says otherwise.
 */
#ifndef LEAT_IO_H
#define LEAT_IO_H

#include <sys/uio.h>

#include "err.h"
#include "list.h"

struct io;
struct io_op;
struct config;

typedef i32 io_fd; /* a socket or file of this implementation; -1 is none */
typedef void (*io_done)(struct io_op *op);

struct io_op {
    io_done done; /* NULL = idle */
    err err;      /* ERR_NONE, or why it failed; ERR_CANCELED after io_cancel */
    i64 result;   /* bytes moved, or the accepted io_fd */
    u8 *buf;      /* io_recv_pooled: the bytes; give back by io_buf_release */
    /* Hints, which an implementation may ignore. len_max: set before io_recv_pooled, receives at
     * most so many bytes (0: a buffer full). more: set by a receive when more bytes are there
     * already; carried over by the owner to the next receive on the same socket. */
    u32 len_max;
    bool more;
    /* io_send: set by the implementation when a zero-copy send was copied after all (loopback, a
     * device without scatter-gather), or by the owner who knows: later sends by this op copy
     * at once, which is cheaper then. zero_copy: the last send was not copied. */
    bool copies, zero_copy;
    /* Private to the implementation. */
    struct io *io;
    struct list link;
    struct iovec *iov;
    u64 arg[4];
    u32 iov_count;
    i32 fd;
    u16 buf_id;
    u8 kind, flags, notif_pending;
};

static inline bool io_op_idle(const struct io_op *op)
{
    return op->done == NULL;
}

/* What was found at start, for the log and `leatctl status`. */
struct io_features {
    char text[512]; /* "single_issuer=yes multishot_accept=yes … kernel=6.1.0" */
};

/* ---- life ---- */

/* Probes features and sets up the ring; `index` is the shard's. On failure *out is untouched and
 * `why` (of why_size) names cause and remedy, e.g. a seccomp profile that forbids io_uring.
 * Where locked memory is short it tries for 3 s: the kernel frees rings of ended processes late.
 * Called on the shard's own thread (SINGLE_ISSUER). */
err io_create(const struct config *cfg, u32 index, struct io **out, char *why,
              size_t why_size) MUST_USE;
/* All ops must be idle. */
void io_destroy(struct io *io);
const struct io_features *io_features(const struct io *io);
/* Submits what was started, waits until something completes or `timeout_ns` is over (0 = don't
 * wait), runs at most `budget` completions. Returns how many ran. */
u32 io_turn(struct io *io, u64 timeout_ns, u32 budget);
/* Makes a waiting io_turn of `to` return soon. Any thread. `from` is the caller's own ring or
 * NULL when the caller is no shard (background thread). Coalesced: cheap when repeated. */
void io_wake(struct io *from, struct io *to);
/* Asks for the end of an operation in flight; done runs later. Idle ops are left alone. */
void io_cancel(struct io *io, struct io_op *op);

/* ---- sockets ---- */

/* Start-up. Listens with SO_REUSEPORT on host:port (host may be a name, "*" or an IPv6 address
 * without brackets; port 0 = any). *bound_port gets the port. `why` explains failure. */
err io_listen(struct io *io, const char *host, u16 port, io_fd *out, u16 *bound_port, char *why,
              size_t why_size) MUST_USE;
/* Start-up of the real node, any thread, before io_listen: fails when somebody listens there
 * already.
 * (With SO_REUSEPORT a second node would bind as well and take half of the connections.) */
err io_listen_probe(const char *host, u16 port, char *why, size_t why_size) MUST_USE;
/* Accepts connections until cancelled or failed: `done` runs once per connection with
 * op->result = the io_fd (already non-blocking, TCP_NODELAY). While it goes on, io_op_idle is
 * false inside done; after an error it is idle and may be restarted. */
void io_accept(struct io *io, struct io_op *op, io_fd listener, io_done done);
/* Receives into a buffer the implementation picks when bytes are there, so that an idle
 * connection holds no memory. result = bytes (0 = peer closed), buf = where. ERR_NO_MEMORY when
 * the pool is empty: retry after io_buf_release of another. */
void io_recv_pooled(struct io *io, struct io_op *op, io_fd fd, io_done done);
/* Gives back op->buf after io_recv_pooled. */
void io_buf_release(struct io *io, struct io_op *op);
/* Size of a pooled buffer. */
u32 io_buf_bytes(const struct io *io);
/* Receives up to len bytes into buf; `all` waits for all of them (or end, or error). */
void io_recv(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, bool all, io_done done);
/* Sends all of iov (the array and the bytes stay valid until done). Zero copy is used above the
 * configured size where the kernel has it; done runs only when the bytes may be reused. */
void io_send(struct io *io, struct io_op *op, io_fd fd, struct iovec *iov, u32 iov_count,
             io_done done);
/* Closes; pending ops on it end with an error. Returns at once. */
void io_close(struct io *io, io_fd fd);
/* Text of the peer's address, "" when unknown. */
void io_peer_name(struct io *io, io_fd fd, char *buf, size_t size);

/* ---- files ---- */

enum io_file_flags {
    IO_FILE_CREATE = 1, /* create when missing, allocate `bytes`, fsync file and folder */
    IO_FILE_DIRECT = 2, /* O_DIRECT: buffer, length and offset aligned to 4096 */
    IO_FILE_EMPTY = 4,  /* what was in it before is of no use: `bytes` exactly, of anything */
};
/* Start-up (blocking). *bytes: in: wanted size with IO_FILE_CREATE, out: real size. */
err io_file_open(struct io *io, const char *path, u32 flags, u64 *bytes, io_fd *out) MUST_USE;
void io_file_close(struct io *io, io_fd fd);
/* Start-up (blocking). What earlier writes, also of an earlier process, left in caches is on stable
 * media when it returns ERR_NONE. */
err io_file_sync(struct io *io, io_fd fd) MUST_USE;
/* Writes all; `durable` = on stable media when done runs (RWF_DSYNC). A failed durable write
 * must never be retried over the same bytes by the caller: see wal.c. */
void io_write(struct io *io, struct io_op *op, io_fd fd, const u8 *buf, u32 len, u64 offset,
              bool durable, io_done done);
/* Reads up to len; fewer only at the end of the file. */
void io_read(struct io *io, struct io_op *op, io_fd fd, u8 *buf, u32 len, u64 offset, io_done done);
/* Registers a long-lived region so that reads and writes inside it skip page pinning. Best
 * effort: false when the limit (memlock) does not allow; everything works without. */
bool io_register_region(struct io *io, void *p, u64 bytes);
void io_unregister_region(struct io *io, void *p);

#endif
