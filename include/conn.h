/* Connections: bytes in → request frames out; responses in correlation (arrival) order → bytes
 * out. Knows Kafka's framing (4-byte length) and nothing of its APIs.
 *
 * A connection reads ahead up to net.inflight_per_connection requests; beyond it, or when the
 * shard's request memory (net.request_memory / shards) is used up, it stops receiving: TCP's window
 * is the back-pressure. A frame that fits the pooled receive buffer is decoded where it lies
 * (one recv, no copy); a longer one is received into a buffer of its own from size-classed
 * free lists. A frame length < 0 or > net.max_request_bytes closes the connection.
 *
 * Life of a request: handler->request(r) on the connection's shard; the upper layer fills
 * r->out / r->ext and calls request_respond(r) now or later, on the same shard; when its turn in
 * the order comes it is sent; then r->release (when set) runs, exactly once, also when the
 * connection died first, and the request's memory is gone. The upper layer must answer every
 * request, also of a dead connection (request_dead(r) tells, to skip work).
 */
#ifndef LEAT_CONN_H
#define LEAT_CONN_H

#include "mem.h"
#include "shard.h"

struct conn;
struct request;
struct net; /* the network half of one shard */

/* Bytes that are sent without being copied, inserted at `at` of r->out. */
struct request_ext {
    u32 at; /* position in r->out.data where these bytes go; ascending */
    struct bytes bytes;
};

#define REQUEST_MAGIC 0x5a4d0002u
struct request {
    u32 magic;
    struct conn *conn;
    struct shard *shard;
    struct list link;   /* conn's queue, arrival order */
    struct bytes frame; /* without the length prefix; valid until release */
    struct arena arena; /* for decode and the handler's own state; freed with the request */
    u64 arrived_ns;
    /* The answer. `out` starts with room for the 4-byte length, which conn.c fills in. */
    u8 *out; /* in the arena, or mem_alloc'ed by the handler inside the arena's life */
    u32 out_len;
    struct request_ext *ext; /* in the arena */
    u32 ext_count;
    void (*release)(struct request *r); /* drops what ext points to; may be NULL */
    bool no_response;                   /* acks=0: the turn in the order passes silently */
    bool close_after;                   /* close the connection once this was sent */
    struct call *call;                  /* of the upper layer, while it works on the request */
    /* May be set while the answer waits for what can take long: the connection is gone or about to
     * be closed. Only called before request_respond, maybe twice. Must not answer inside. */
    void (*gone)(struct request *r);
    /* Private to conn.c */
    bool ready;
    bool pooled;
    struct io_op *recv_hold;
    u8 *frame_buf;
    u32 frame_cap;
    /* For the handler: which API this is, for metrics. */
    i16 api_key, api_version;
};

struct net_handler {
    void (*request)(struct request *r); /* a whole frame has come */
    void (*opened)(struct conn *c);     /* may be NULL */
    void (*closed)(struct conn *c); /* before the conn is freed; requests may be pending still */
};

/* Start-up, on the shard's thread: listens on net.listen (with
 * net.advertise=shard each shard on a port of its own: port + shard). */
err net_start(struct shard *s, const struct net_handler *h, struct net **out, char *why,
              size_t why_size) MUST_USE;
/* Stops accepting and, after what is in flight was answered, closes; net_stopped tells when. */
void net_stop(struct net *n);
bool net_stopped(const struct net *n);
void net_free(struct net *n);
/* Splits net.listen into host ("" or "*": any) and port. `why` explains a malformed one. */
err net_listen_address(const struct config *cfg, char *host, size_t host_size, u16 *port, char *why,
                       size_t why_size) MUST_USE;
/* The port this shard listens on (the shared one, or with net.advertise=shard its own). */
u16 net_port(const struct net *n);
u32 net_conn_count(const struct net *n);

/* The answer in r->out/ext (or no_response) is complete. */
void request_respond(struct request *r);
/* The frame was malformed: counts, logs (rate-limited) with `why`, closes the connection. The
 * request counts as answered. */
void request_malformed(struct request *r, const char *why);
/* The connection is gone: answer quickly, nobody listens. */
bool request_dead(const struct request *r);
/* A number unique on this shard, never 0; text of the peer ("127.0.0.1:50312"). */
u64 conn_id(const struct conn *c);
const char *conn_peer(const struct conn *c);
/* Room for what the upper layer remembers per connection (client software name, SASL state). The
 * pointer is freed by the handler's `closed`. */
void **conn_user(struct conn *c);
/* No receive until the time is over (quota throttling, KIP-219). */
void conn_mute(struct conn *c, u64 until_ns);

#endif
