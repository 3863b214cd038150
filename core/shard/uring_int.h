/* The ring of one shard: what io_uring.c (running) and uring_setup.c (start-up) share. */
#ifndef LEAT_URING_INT_H
#define LEAT_URING_INT_H

#include <sys/socket.h>

#include "io.h"
#include "uring_compat.h"

#define IO_MAGIC 0x10c0ffeeu

/* user_data of completions that belong to no op. Ops are aligned, so no address is this small. */
enum uring_tag { TAG_IGNORE, TAG_EVENT, TAG_WAKE, TAG_LAST };

/* Set in a ring's address: the message to that ring failed, ring the other way. */
#define TAG_BIT_WAKE_FAILED 1u

/* Is the shard's thread asleep in the kernel? See io_wake. */
enum uring_sleep { AWAKE, ASLEEP, NOTIFIED };

enum uring_kind { KIND_ACCEPT = 1, KIND_RECV_POOLED, KIND_RECV, KIND_SEND, KIND_WRITE, KIND_READ };

enum uring_op_flags {
    OP_CANCELED = 1, /* io_cancel was called: no retry of a short transfer */
    OP_ALL = 2,      /* receive everything asked for */
    OP_DURABLE = 4,
    OP_SUBMITTED = 8, /* sends: the kernel owes the result (notifications are counted apart) */
    OP_ZERO_COPY = 16,
};

#define REGIONS_MAX 64u
#define REGION_BYTES_MAX GIB /* the kernel's limit for one registered buffer */

struct region {
    u8 *start; /* NULL: slot is free */
    u64 bytes;
    u8 *owner; /* the `p` it was registered by: a long region takes several slots */
};

struct backlog_cqe {
    u64 user_data;
    i32 res;
    u32 flags;
};

struct io {
    u32 magic;
    u32 index;
    struct io_uring ring;
    u32 enter_flags; /* REGISTERED_RING, NO_IOWAIT: where the kernel has them */
    u32 enter_fd;
    bool has_msg_ring, has_sendmsg_zc, has_zc_report;
    bool dispatching; /* completions are being run: the only time `done` may be called */
    u32 inflight;     /* ops that are not idle */
    u64 spin_ns;
    const struct config *cfg;
    struct msghdr *msghdrs;      /* one per SQE slot: the kernel copies it at submission */
    struct backlog_cqe *backlog; /* completions taken out of a full CQ; run before it */
    u32 backlog_head, backlog_tail, backlog_cap;

    /* Pool of receive buffers. The kernel gets a few at a time and takes them in order; the rest
     * is a stack, so that as few pages as possible are ever touched. */
    struct io_uring_buf_ring *buf_ring;
    u64 buf_ring_bytes;
    u8 *bufs;
    u32 buf_bytes, buf_count;
    u16 *buf_free;
    u32 buf_free_count;
    u32 buf_ring_count;  /* in the kernel's hands */
    u32 buf_ring_target; /* how many to leave there; grows when they ran out in one turn */
    u16 buf_ring_tail;

    struct region regions[REGIONS_MAX];
    u32 region_slots; /* 0: the table could not be registered */
    bool region_refusal_told;
    u32 region_last; /* where the last lookup hit */

    int event_fd; /* wakes from threads without a ring */
    u64 event_value;
    struct io_features features;
    _Alignas(CACHE_LINE) u32 sleep; /* enum uring_sleep; atomic, any thread */
};

/* The next free SQE; submits when the queue is full. Never NULL. */
struct io_uring_sqe *uring_sqe(struct io *io);
/* (Re)arms the read of the event descriptor. */
void uring_event_arm(struct io *io);
/* Moves free buffers to the kernel's ring up to its target. */
void uring_bufs_refill(struct io *io);
/* Prepares the teardown: submits what is queued, best effort. */
void uring_flush_last(struct io *io);

#endif
