/* leat-bench: what its files share. A load generator for any Kafka-compatible broker.
 *
 * Threads: main is the control thread (set-up, metadata, progress, report); each worker thread
 * owns its connections, flows and feeds and runs one epoll loop. Between them: counters and
 * histograms that only the worker writes (relaxed atomics), the published cluster snapshot, and
 * two eventfds. Nothing else is shared.
 *
 * Words: a *flow* is one producer's stream of batches into one partition; a *feed* is one
 * consumer's position in one partition; a *slot* is one produce request in flight; a *template*
 * is a record batch built once, of which only the first bytes (the head) differ per send.
 */
#ifndef LEAT_BENCH_H
#define LEAT_BENCH_H

#include <sys/uio.h>

#include "base.h"
#include "bytes.h"
#include "check.h"
#include "mem.h"

/* ---- options (bench_options.c) ---- */
enum mode { MODE_PRODUCE, MODE_CONSUME, MODE_BOTH, MODE_E2E, MODE_IDLE };
enum compression { COMPRESS_NONE, COMPRESS_GZIP, COMPRESS_SNAPPY, COMPRESS_LZ4, COMPRESS_ZSTD };
enum fill { FILL_TEXT, FILL_RANDOM, FILL_ZERO };
enum rate_unit { RATE_NONE, RATE_RECORDS, RATE_BYTES, RATE_REQUESTS };

struct options {
    const char *brokers; /* host:port[,host:port] */
    const char *topic;
    enum mode mode;
    u32 partitions;
    bool create, delete_after;
    i16 replication;
    const char *topic_config;                     /* k=v[,k=v] for --create */
    u32 record_bytes, batch_bytes, batch_records; /* batch_records 0: from batch_bytes */
    u32 request_batches;
    enum compression compression;
    enum fill fill;
    const char *payload; /* file of lines; NULL: generated */
    bool record_bytes_given;
    i16 acks;
    bool idempotent;
    u32 connections, inflight, threads;
    enum rate_unit rate_unit;
    f64 rate; /* in rate_unit per second, all threads together */
    u32 consumers;
    u32 fetch_min_bytes, fetch_max_bytes, fetch_partition_bytes, fetch_max_wait_ms;
    bool from_earliest, loop, verify;
    u32 idle_connections;
    f64 duration_s, warmup_s;
    bool json, quiet;
    i32 pid; /* 0: none */
    u32 timeout_ms;
};

/* Fills `o` from the command line; prints the reason and exits on a wrong one. */
void options_parse(struct options *o, int argc, char **argv);
static inline bool options_produces(const struct options *o)
{
    return o->mode == MODE_PRODUCE || o->mode == MODE_BOTH || o->mode == MODE_E2E;
}
static inline bool options_consumes(const struct options *o)
{
    return o->mode == MODE_CONSUME || o->mode == MODE_BOTH || o->mode == MODE_E2E;
}

/* ---- histogram (bench_hist.c): log-linear, 128 steps per power of two, error < 0.8 % ---- */
#define HIST_STEPS 128
#define HIST_POWERS 34 /* up to 2^41 ns: 36 minutes */
#define HIST_BUCKETS (HIST_STEPS * HIST_POWERS)
struct hist {
    u64 count;
    u64 buckets[HIST_BUCKETS];
};
/* One writer; readers on other threads may copy at any time. */
void hist_record(struct hist *h, u64 ns);
/* to += from, read with relaxed atomics. */
void hist_add(struct hist *to, const struct hist *from);
/* to -= from; `from` is an earlier copy. */
void hist_subtract(struct hist *to, const struct hist *from);
/* The value not exceeded by `percent` of the samples, in ns; 0 when empty. 100 is the maximum. */
u64 hist_percentile(const struct hist *h, f64 percent);
f64 hist_mean(const struct hist *h);

/* ---- time (bench_proc.c) ---- */
u64 now_ns(void);      /* monotonic */
u64 now_wall_ns(void); /* since 1970 */
/* CPU seconds of a process (0: this one), all threads; negative when it is gone. */
f64 proc_cpu_s(i32 pid);
struct proc_stat {
    f64 user_s, system_s;
    u64 rss_bytes, rss_max_bytes, threads;
};
/* From /proc; false when the process is gone. */
bool proc_read(i32 pid, struct proc_stat *out);

/* ---- wire (bench_wire.c) ---- */
enum api {
    API_PRODUCE = 0,
    API_FETCH = 1,
    API_LIST_OFFSETS = 2,
    API_METADATA = 3,
    API_VERSIONS = 18,
    API_CREATE_TOPICS = 19,
    API_DELETE_TOPICS = 20,
    API_INIT_PRODUCER_ID = 22,
    API_COUNT = 32,
};
/* A growing buffer to write a request into. */
struct wbuf {
    u8 *data;
    u32 len, cap;
};
/* A bounded reader: reading past the end sets `bad` and yields zeros. */
struct rbuf {
    const u8 *p, *end;
    bool bad;
};
struct node {
    i32 id;
    u16 port;
    char host[256];
};
struct cluster { /* immutable once published; mem_alloc zeroes, so nodes compare as bytes */
    struct cluster *older; /* published before; kept, since a worker may still read it */
    u32 node_count;
    struct node *nodes;
    u32 partition_count;
    i32 *leaders; /* by partition; -1: none now */
    i16 topic_error;
};
struct producer_id {
    i64 id;
    i16 epoch;
};

void wire_i8(struct wbuf *w, i8 v);
void wire_i16(struct wbuf *w, i16 v);
void wire_i32(struct wbuf *w, i32 v);
void wire_i64(struct wbuf *w, i64 v);
void wire_uvarint(struct wbuf *w, u32 v);
void wire_varint(struct wbuf *w, i64 v); /* zigzag */
void wire_raw(struct wbuf *w, const void *p, u32 len);
/* Makes room for n more bytes and returns them; valid until the next write. */
u8 *wire_space(struct wbuf *w, u32 n);
/* A string or NULL; compact when `flexible`. */
void wire_string(struct wbuf *w, bool flexible, const char *s);
/* The count in front of an array. */
void wire_array(struct wbuf *w, bool flexible, u32 count);
/* No tagged fields. Writes nothing when not flexible. */
void wire_tags(struct wbuf *w, bool flexible);
void wire_free(struct wbuf *w);

i8 read_i8(struct rbuf *r);
i16 read_i16(struct rbuf *r);
i32 read_i32(struct rbuf *r);
i64 read_i64(struct rbuf *r);
u64 read_uvarint(struct rbuf *r);
i64 read_varint(struct rbuf *r);
struct bytes read_string(struct rbuf *r, bool flexible);
/* Elements; a null array is 0. Never more than the bytes left, so that loops are bounded. */
u32 read_array(struct rbuf *r, bool flexible);
/* Length of a byte string; null is 0. */
u32 read_length(struct rbuf *r, bool flexible);
void read_skip(struct rbuf *r, u64 n);
void read_tags(struct rbuf *r, bool flexible);
static inline u32 read_left(const struct rbuf *r)
{
    return (u32)(r->end - r->p);
}

/* The version in use per API, chosen from the broker's ApiVersions answer. */
struct versions {
    i16 v[API_COUNT];
};
bool wire_flexible(enum api api, i16 version);
/* Starts a request: size (patched by wire_end), header v1 or v2. */
void wire_begin(struct wbuf *w, const struct versions *vs, enum api api, u32 correlation);
void wire_end(struct wbuf *w);
/* Reads the ApiVersions v0 answer; false, with a message, when the broker lacks one we need. */
bool wire_choose_versions(struct rbuf *r, struct versions *out);
void wire_metadata_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                           const char *topic);
/* A new snapshot, or NULL when malformed. Owned by the caller. */
struct cluster *wire_metadata_parse(struct rbuf *r, const struct versions *vs);
void wire_cluster_free(struct cluster *c);
bool wire_cluster_same(const struct cluster *a, const struct cluster *b);
void wire_create_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                         const struct options *o);
void wire_delete_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                         const char *topic);
/* Kafka's error of a CreateTopics or DeleteTopics answer. */
i16 wire_topics_parse(struct rbuf *r, bool has_message);
void wire_producer_id_request(struct wbuf *w, const struct versions *vs, u32 correlation);
i16 wire_producer_id_parse(struct rbuf *r, struct producer_id *out);

/* ---- templates (bench_template.c) ---- */
#define BATCH_HEAD_BYTES 61 /* of a v2 record batch, before its records */
#define STAMP_CHARS 16      /* send time in ns, as hex text, at the start of the first value */
struct template
{
    u8 *data;
    u32 len;      /* whole batch */
    u32 head_len; /* bytes that are copied and patched per send */
    u32 stamp_at; /* where the stamp is; 0: none (compressed, or records too short) */
    u32 records;
    u64 value_bytes;
    u32 tail_crc; /* CRC32C of data[head_len..len) */
};
struct templates {
    struct template *list;
    u32 count;
    u32 len_max;
};
void templates_build(struct templates *t, const struct options *o);
void templates_free(struct templates *t);
/* Writes the head into `out` (t->head_len bytes) with times, producer fields and CRC. */
void template_head(const struct template *t, u8 *out, u64 wall_ns, struct producer_id pid,
                   i32 sequence);
/* The stamp in the first bytes of a batch, or its base timestamp, as ns since 1970. */
u64 template_stamp(const u8 *batch, u32 len);

/* ---- control (bench_control.c): blocking calls of the main thread ---- */
struct control {
    const struct options *o;
    struct versions versions;
    int fd;
    u32 correlation;
    u8 *rx;
    u32 rx_cap;
    const struct cluster *latest; /* to try its nodes when the connection is gone */
};
/* A connected socket or -1. Blocking, with `timeout_ms` on everything. */
int control_connect(const char *host, u16 port, u32 timeout_ms);
/* Tries the bootstrap brokers in turn, asks ApiVersions. */
bool control_open(struct control *c, const struct options *o);
/* Sends one request, waits for the answer; the reader is past the response header. */
bool control_call(struct control *c, const struct wbuf *request, bool flexible,
                  struct rbuf *answer);
/* A fresh snapshot, the caller's, or NULL. */
struct cluster *control_metadata(struct control *c);
/* 0, or Kafka's error code; -2: no connection. */
i16 control_create_topic(struct control *c);
i16 control_delete_topic(struct control *c);
bool control_producer_id(struct control *c, struct producer_id *out);
void control_close(struct control *c);

/* ---- worker ---- */
struct worker;
struct conn;
struct counters { /* written by one worker, read by main; relaxed */
    u64 sent_requests;
    u64 acked_requests, acked_batches, acked_records, acked_bytes;
    u64 retries, failures, disconnects, refreshes;
    u64 read_responses, read_batches, read_records, read_bytes;
    u64 offset_gaps, bad_crc;
    u64 ready_feeds;
};
#define ERROR_CODES 256
struct stats {
    struct counters c;
    u64 errors[ERROR_CODES]; /* by Kafka's code; unknown ones at the last */
    struct hist produce, fetch, e2e;
};
static inline void count(u64 *counter, u64 n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

struct part { /* one batch in flight or waiting for its retry */
    struct flow *flow;
    u32 template_index;
    i32 sequence;
    u64 intended_ns;
};
struct flow {
    u32 partition;
    u32 rank; /* which producer id; 0 unless connections outnumber partitions */
    u32 lane; /* which of the worker's connections to a node */
    struct conn *conn;
    u32 template_next;
    i32 sequence_next;
    u32 inflight;
    bool paused; /* has failed batches; not in its connection's heap */
    bool proven; /* a batch of it was acknowledged */
    bool held;   /* idempotent and not proven: waits for its only batch in flight */
    u64 key;     /* order in the heap: intended time, or turn number in closed loop */
    u64 due_ns;  /* open loop: next intended time */
    u64 resume_ns;
    u64 pause_version; /* snapshot version when it was paused */
    struct part *retry;
    u32 retry_begin, retry_end; /* a queue; retry_cap entries suffice for all in flight */
};
struct slot {
    u8 *buf; /* everything of the request that is not a template's tail */
    u32 buf_cap;
    struct iovec *iov;
    u32 iov_count, iov_next;
    u32 correlation;
    u64 started_ns;
    struct part *parts;
    u32 part_count;
};
struct feed {
    u32 partition;
    u32 lane;
    i64 position; /* next offset to read; -1: not known yet */
    bool ready;
};

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_OPEN };
enum conn_waiting { WAITING_NOTHING, WAITING_OFFSETS, WAITING_FETCH };
enum fetch_state {
    FETCH_HEAD,
    FETCH_TOPIC,
    FETCH_PARTITION,
    FETCH_BATCH,
    FETCH_SKIP,
    FETCH_PARTITION_END,
    FETCH_TOPIC_END,
    FETCH_END
};
struct conn {
    struct worker *worker;
    i32 node;
    u32 lane;
    bool consumer;
    enum conn_state state;
    bool want_write;
    int fd;
    u64 retry_ns; /* closed: when to connect again */
    u8 *rx;
    u32 rx_begin, rx_end, rx_cap;
    /* producer */
    struct slot *slots;                    /* ring of o->inflight */
    u64 slot_head, slot_unsent, slot_tail; /* answered | written | built */
    struct flow **heap;
    u32 heap_count, heap_cap;
    /* consumer: one request in flight */
    struct feed **feeds;
    u32 feed_count, feed_cap;
    struct wbuf tx;
    u32 tx_sent;
    enum conn_waiting waiting;
    u32 correlation;
    u64 started_ns;
    u64 pause_until_ns;
    /* a fetch answer is read piece by piece, so that record bytes are never copied */
    enum fetch_state fetch_state;
    u32 frame_left; /* bytes of the answer not yet consumed */
    u32 topics_left, partitions_left, records_left, skip_left, batch_bytes_last;
    struct feed *fetch_feed;
    i64 fetch_hw, fetch_start;
    u64 fetch_bytes;
    bool fetch_failed;
};

struct shared { /* main's; workers read it */
    const struct options *o;
    const struct versions *versions;
    const struct templates *templates;
    const struct producer_id *pids; /* by worker * ranks + rank */
    u32 ranks;
    struct cluster *cluster; /* atomic */
    u64 cluster_version;     /* atomic */
    bool started, stopped;   /* atomic: producers may send; all stop */
    u64 start_ns;            /* set before `started` */
    u32 flow_total;          /* of all workers */
    int wake_main;           /* eventfd */
    bool refresh_wanted;     /* atomic */
};
struct worker {
    struct shared *shared;
    const struct options *o;
    u32 index;
    int epoll, wake;
    struct conn **conns;
    u32 conn_count, conn_cap;
    struct flow *flows;
    u32 flow_count;
    struct feed *feeds;
    u32 feed_count;
    u32 retry_cap;
    u32 paused_count;
    u64 interval_ns; /* open loop: between two batches of one flow */
    u64 turn;        /* closed loop: order of flows */
    u32 correlation;
    struct cluster *cluster;
    u64 cluster_version;
    bool started;
    u64 now; /* of this loop turn */
    i64 wall_offset_ns;
    u64 tick_ns;
    struct stats stats;
};
/* Plans flows and feeds from the first snapshot. */
void worker_init(struct worker *w, struct shared *s, u32 index);
void *worker_run(void *worker);
u32 worker_ranks(const struct options *o, u32 partitions);
void worker_want_refresh(struct worker *w);
/* Counts an error; says it on stderr the first time. */
void worker_error(struct worker *w, i16 code, const char *where);

/* conn (bench_conn.c) */
struct conn *conn_get(struct worker *w, i32 node, u32 lane, bool consumer);
void conn_open(struct conn *c);
void conn_close(struct conn *c, const char *why);
void conn_event(struct conn *c, u32 events);
void conn_flush(struct conn *c);
void conn_want_write(struct conn *c, bool want);
/* produce (bench_produce.c) */
void produce_init(struct conn *c);
void produce_pump(struct conn *c);
bool produce_flush(struct conn *c); /* true: everything written */
bool produce_answer(struct conn *c, struct rbuf *r);
void produce_closed(struct conn *c);
void produce_resume(struct worker *w);
void produce_start(struct worker *w);
u64 produce_next_ns(const struct conn *c);
void produce_check_timeout(struct conn *c);
/* consume (bench_consume.c) */
void consume_pump(struct conn *c);
bool consume_flush(struct conn *c);
void consume_readable(struct conn *c);
void consume_closed(struct conn *c);
void consume_route(struct worker *w, struct feed *f);

/* ---- report (bench_report.c) ---- */
struct snapshot { /* at one moment, all workers together */
    u64 ns;
    struct stats stats;
    f64 bench_cpu_s, broker_cpu_s;
    struct proc_stat broker;
};
void snapshot_take(struct snapshot *s, struct worker *const *workers, u32 count,
                   const struct options *o);
void report_progress(const struct snapshot *before, const struct snapshot *now, f64 at_s,
                     const struct options *o);
struct idle_report {
    u32 wanted, opened, alive;
    u64 rss_before_bytes, rss_after_bytes;
};
void report_print(const struct snapshot *begin, const struct snapshot *end,
                  const struct templates *t, const struct idle_report *idle,
                  const struct options *o);

#endif
