/* The network half of one shard: what listener.c and conn.c share. */
#ifndef LEAT_CONN_INT_H
#define LEAT_CONN_INT_H

#include "conn.h"
#include "frame_pool.h"
#include "hmap.h"

#define NET_MAGIC 0x5a4d0003u
#define CONN_MAGIC 0x5a4d0004u
#define PEER_SIZE 56u /* "[8 groups of IPv6]:65535" */
#define BATCH_IOVS 128u
#ifndef SEND_BYTES_MAX /* the simulator's answers are smaller */
/* Of one send. The kernel copies what fits into the socket's buffer, megabytes, while the shard
 * waits: with a few connections that read much, turns of 30 ms were seen. */
#define SEND_BYTES_MAX (256 * (u32)KIB)
#endif
/* A connection with more unsent answers than this sends in bulk (shard.h). */
#define SEND_BULK_BYTES (SEND_BYTES_MAX / 4)

/* A receive in flight, then the owner of a pooled buffer, shared by the requests that lie in it. */
struct rx_buf {
    struct io_op op;
    struct conn *conn; /* while it is conn->rx */
    struct list link;  /* n->free_rx */
    u32 refs;          /* the connection's, and one of each request in the buffer */
};

/* The pieces of one sendmsg, while it is in flight. */
struct send_batch {
    struct list link; /* n->free_batches */
    struct iovec iov[BATCH_IOVS];
};

/* Connections from one address. */
struct peer_ip {
    UT_hash_handle hh;
    u32 count;
    char host[PEER_SIZE];
};

enum conn_state {
    CONN_OPEN,
    CONN_CLOSED, /* descriptor gone; waits for its ops to end and its requests to be answered */
};

struct conn {
    u32 magic;
    u8 state;              /* enum conn_state */
    bool reading_stopped;  /* malformed input or close_after: nothing more is read, ever */
    bool close_now;        /* the send in flight carries an answer that is the last one */
    bool close_when_empty; /* close when all that came was answered */
    bool dirty;            /* in n->dirty: the hook must look at it */
    bool more;             /* the socket had more bytes at the last receive */
    bool big_frames;       /* the last frame was large: look at the head of the next one only */
    u8 head_len;
    u8 head[4]; /* a length prefix that has come in part */
    io_fd fd;
    struct net *net;

    /* Bytes in: at most one of these is in use. rx: a pooled buffer with bytes rx_pos … rx_len not
     * looked at yet. frame_buf: a frame that is being completed by a direct receive. */
    struct rx_buf *rx; /* NULL when its requests took it over */
    u32 rx_pos, rx_len;
    u8 *frame_buf;
    u32 frame_cap, frame_len, frame_have;
    u64 partial_since_ns;

    /* Bytes out. */
    struct list requests; /* all unanswered and unsent ones, in order of arrival */
    u32 inflight;         /* their number */
    u32 sending;          /* the first so many are complete with the send in flight */
    u32 next_out, next_ext,
        next_in;   /* where the next send goes on inside the first not complete one */
    u64 out_bytes; /* answered, not sent yet */
    struct io_op send;
    struct iovec one; /* for a send of one piece */
    struct send_batch *batch;
    u64 send_since_ns;

    struct list link;         /* n->conns: least recently active first */
    struct list dirty_link;   /* n->dirty */
    struct list starved_link; /* n->starved */
    struct list partial_link; /* n->partials */
    struct list sending_link; /* n->sending */
    struct list bulk_link;    /* n->bulk */
    u64 active_ns;
    u64 muted_until_ns;
    struct timer mute;
    u64 id;
    void *user;
    struct peer_ip *ip;
    char peer[PEER_SIZE];
};

struct net {
    u32 magic;
    struct shard *shard;
    struct net_handler handler;
    struct shard_hook hook;
    struct list conns;  /* open ones, least recently active first */
    struct list closed; /* closed, not freed yet */
    struct list dirty;
    struct list starved;  /* wait for memory, first come first served */
    struct list partials; /* a frame has begun; oldest first */
    struct list bulk;     /* ready to send much, no send in flight; first come first served */
    struct list sending;  /* a send is in flight; oldest first */
    struct list free_requests, free_rx, free_batches;
    u32 free_request_count, free_rx_count, free_batch_count;
    u32 conn_count; /* open */
    u32 inflight;
    u32 pool_held;     /* pooled buffers that requests lie in */
    u32 pool_held_max; /* above it frames are copied out, so that receiving goes on */
    u64 request_bytes, request_bytes_max;   /* frames */
    u64 response_bytes, response_bytes_max; /* answers built, not sent */
    u32 inflight_max, frame_bytes_max, buf_bytes;
    u64 next_id;
    struct frame_pool frames;
    struct peer_ip *ips;
    struct timer sweep;
    bool in_hook;
    bool released; /* memory came free since the starved were looked at */
    bool stopping;
    u64 stop_deadline_ns;

    /* listener.c */
    io_fd listener;
    u16 port;
    struct io_op accept;
    struct timer accept_again;
};

/* ---- conn.c ---- */
void conn_open(struct net *n, io_fd fd);
void conn_close(struct conn *c, const char *why);
void conns_stop(struct net *n);
void net_hook(struct shard_hook *h);
/* Something happened on it that shows a living peer. */
void conn_touch(struct conn *c);

/* ---- conn_memory.c ---- */
struct rx_buf *conn_rx_take(struct conn *c);
/* Drops a reference; the last one gives the pooled buffer back. */
void conn_rx_unref(struct net *n, struct rx_buf *rx);
struct request *conn_request_take(struct conn *c, u32 frame_len);
/* The request was sent, or nobody listens any more: runs its release and forgets it. */
void conn_request_free(struct conn *c, struct request *r);
/* Bytes of the answer with its length prefix. */
u64 request_answer_bytes(const struct request *r);
void net_frame_drop(struct net *n, u8 *buf, u32 cap);
bool conn_memory_allows(const struct net *n, const struct conn *c, u64 bytes);
struct send_batch *conn_batch_take(struct conn *c);
void conn_batch_drop(struct conn *c);
void net_pools_free(struct net *n);

/* ---- conn_sweep.c ---- */
/* Arms the sweep when there is something to look after. */
void net_sweep_start(struct net *n);

#endif
