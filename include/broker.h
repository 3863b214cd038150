/* The broker half of a shard: APIs over partitions, and how a request finds the shard that owns
 * what it asks for.
 *
 * A request becomes a `struct call` in its own arena. The home shard (where the connection is)
 * decodes it, then runs the API's handler there, on shard 0 (the controller: the only writer of
 * topics and configs) or on the shard that coordinates the group named in it; the call travels by
 * message and comes home to be encoded and answered. A request about partitions of several shards
 * is split by `scatter`: one part per owning shard, gathered at home again. Nothing is shared:
 * whoever holds the call or part may touch its memory, and gives it away by sending it.
 *
 * Errors are Kafka's, in the response. Every handler ends in exactly one call_done.
 */
#ifndef LEAT_BROKER_H
#define LEAT_BROKER_H

#include "codec.h"
#include "conn.h"
#include "hmap.h"
#include "storage.h"
#include "topic_config.h"

struct node;
struct broker;
struct call;
struct topic;
struct partition;
struct coordinator;    /* core/group: the groups of one shard */
struct fetch_sessions; /* fetch_session.c */
struct topic_defaults; /* topic_defaults.c */

#define CONTROLLER_SHARD 0
#define NODE_SHARD_IDS 1024 /* net.advertise=shard: broker id = node.id * 1024 + shard */

/* ---- node: what all shards see; written before they start, read-only after ---- */

struct node {
    struct config *cfg;
    struct shard_group group;
    struct storage_env env;
    struct broker *brokers[SHARDS_MAX];
    char cluster_id[32]; /* Kafka's form: base64 of a uuid, 22 characters */
    char host[256];      /* advertised */
    i32 id;
    bool advertise_shards;
    u16 ports[SHARDS_MAX];
    u64 seed;
    int lock_fd;           /* of the data directory */
    struct topic **topics; /* as loaded at start; each shard has put them into its tables */
    u32 topic_count, topic_cap;
    struct topic_defaults *defaults;
};

/* ---- topics ---- */

/* Immutable once published; replaced whole by the controller (topics.c). A pointer is valid
 * within one turn; across a wait look it up again by id. */
struct topic {
    struct uuid id;
    struct bytes name; /* NUL-terminated too */
    i32 partition_count;
    bool internal;
    struct topic_config config;
    i64 created_ms;
};

/* No topic has more, whatever topics.max_partitions says: a stored count beyond it is damage. 8
 * bytes of each shard's table a partition, and some 500 at its owner. */
#ifndef TOPIC_PARTITIONS_MAX /* fuzzing needs less memory */
#define TOPIC_PARTITIONS_MAX 1000000
#endif

/* One shard's view of a topic: its tables are its own. */
struct topic_entry {
    UT_hash_handle hh_name, hh_id;
    const struct topic *topic;
    struct partition **partitions; /* partition_count pointers; NULL where another shard owns it */
};

/* By name / id; NULL when unknown. */
struct topic_entry *catalog_by_name(struct broker *b, struct bytes name);
struct topic_entry *catalog_by_id(struct broker *b, struct uuid id);
/* Either: the id when it is not zero, else the name. */
struct topic_entry *catalog_find(struct broker *b, struct bytes name, struct uuid id);
/* Kafka's rules: 1-249 of [a-zA-Z0-9._-], not "." or "..". */
bool topic_name_valid(struct bytes name);
u32 partition_shard(const struct broker *b, const struct topic *t, i32 partition);
/* The broker id that is advertised as the leader of what `shard` owns. */
i32 broker_id_of_shard(const struct broker *b, u32 shard);

/* ---- a shard's broker ---- */

#define BROKER_MAGIC 0x5a4d0010u
struct broker {
    u32 magic;
    struct shard shard; /* container_of(shard) */
    struct node *node;
    struct storage *storage;
    struct net *net;
    struct topic_entry *topics_by_name, *topics_by_id;
    u64 partition_total; /* of all topics */
    struct list stalled; /* produce parts that wait for room, FIFO */
    struct list awaited; /* produce parts, appended, that wait for the object store */
    struct room_wait room;
    struct timer stalled_timer;
    struct timer housekeeping; /* retention and expiry, every few seconds */
    struct list producers;     /* struct producer.lru: of all partitions, longest unused first */
    u32 producer_count;
    struct fetch_sessions *sessions;
    struct cleaner *cleaner; /* compaction */
    struct coordinator *coordinator;
    struct controller *controller; /* shard 0 only */
    struct compressor *compressor; /* scratch of this shard */
    struct storage_env env;        /* node's, with this shard's error text */
    enum { STOP_NET, STOP_NET_WAIT, STOP_STORAGE_WAIT, STOP_DONE } stop_step;
    u64 stop_late_ns; /* then what is in flight is not waited for any longer */
    bool serving;     /* started, and has connections or may get some; other shards look */
    u64 call_count;
};

static inline struct broker *broker_of(struct shard *s)
{
    return container_of(s, struct broker, shard);
}

/* ---- calls ---- */

enum call_where { CALL_HOME, CALL_CONTROLLER, CALL_COORDINATOR };

struct api { /* one row per served API (dispatch.c, from apis_served.def) */
    i16 key;
    i16 min, max;
    const char *name;
    enum call_where where;
    void (*handle)(struct call *c);
    /* CALL_COORDINATOR: the group (or other key) whose coordinator must handle it. */
    struct bytes (*coordinator_key)(const struct call *c);
};

#define CALL_MAGIC 0x5a4d0011u
struct call {
    u32 magic;
    struct msg msg;
    struct request *request;
    struct broker *home, *at; /* `at`: the shard that holds the call now */
    const struct api *api;
    struct request_header header;
    const void *req;     /* the decoded body: struct x_request */
    void *resp;          /* struct x_response, initialised to its defaults, in the arena */
    struct arena *arena; /* the request's */
    /* For responses with records that are sent from where they lie (fetch): room for that many
     * references (0: records are copied) and what turns them into request_ext, at home. */
    u32 ref_cap;
    bool (*expand)(struct call *c, const struct wire_ref *refs, u32 count);
    void (*release)(
        struct call *c);      /* at home, after the response was sent or dropped; NULL = none */
    void *user;               /* the handler's */
    struct scatter *scatters; /* of this call; their parts' arenas end with it */
    const char *failed;       /* set by call_malformed */
    u64 serial;               /* of this home's calls */
    u32 sent_to;              /* the shard of its handler */
    bool no_response;         /* produce with acks=0 */
    bool close_after;
};

/* From the shard that holds it: the response is complete. Goes home, is encoded and answered. */
void call_done(struct call *c);
/* The arena of the call is at its limit or the request contradicts itself: closes the connection.
 * */
void call_malformed(struct call *c, const char *why);
/* Shorthands: typed views of request and response. */
#define CALL_REQ(c, type) ((const struct type *)(c)->req)
#define CALL_RESP(c, type) ((struct type *)(c)->resp)
/* Array of n zeroed items in the call's arena; NULL (and n > 0) = arena limit: the caller ends
 * the call with call_malformed. */
#define CALL_ARRAY(c, type, n) ((type *)arena_alloc((c)->arena, (u64)(n) * sizeof(type)))

/* The part of the reference page (Markdown) about configs of groups and client metrics. */
void kept_configs_print_reference(FILE *out);

/* ---- scatter: one call over the partitions of several shards ---- */

struct scatter;
struct part;
typedef void (*part_fn)(struct part *p);

/* The share of one shard. `run` executes at the owner and ends in part_done(p), then or later. */
struct part {
    struct msg msg;
    struct list link; /* for the owner's use while it holds the part */
    struct scatter *scatter;
    struct broker *at;  /* the owner */
    struct arena arena; /* the owner's; the call's serves one shard at a time, that is home */
    void **items;       /* pointers the caller added, in order of adding */
    u32 item_count, item_cap;
    u32 outstanding; /* for run's own use: asynchronous items */
    void *user[4];   /* for run's own use */
};

struct scatter {
    struct call *call;
    struct broker *home;
    part_fn run;
    void (*done)(struct scatter *s); /* at home, when all parts are back */
    part_fn arrived;                 /* NULL, or at home, when this part is back; before done */
    u32 outstanding;
    struct part **parts;  /* per shard, NULL = none */
    struct scatter *next; /* of the same call */
};

/* In the call's arena. */
struct scatter *scatter_new(struct call *c, part_fn run, void (*done)(struct scatter *s));
/* Adds an item for `shard`; false at the arena's limit. */
bool scatter_add(struct scatter *s, u32 shard, void *item);
/* Sends the parts (that of the own shard runs before this returns); with no item done runs now. */
void scatter_start(struct scatter *s);
/* The same, or refuses the call when its parts did not fit into its memory. */
void scatter_start_or_refuse(struct scatter *s, struct call *c, bool fits);
/* A `done` with nothing left to gather: answers the call. */
void scatter_answer(struct scatter *s);
/* At the owner: this part is finished. */
void part_done(struct part *p);
/* At home, when the call ends: frees what the owners allocated. */
void scatter_free_all(struct call *c);

/* ---- partitions ---- */

struct partition_watch; /* a long poll's interest, partition.c */
typedef void (*watch_fn)(struct partition_watch *w);
struct partition_watch {
    struct list link;
    watch_fn fn; /* the high watermark moved (or the partition is going away); already unlinked */
};

struct producer; /* producers.c */

#define PARTITION_MAGIC 0x5a4d0012u
struct partition {
    u32 magic;
    i32 index;
    i32 leader_epoch;
    bool dropped;
    struct broker *broker;
    const struct topic *topic; /* replaced with the catalog */
    struct pindex *pindex;
    struct list watches;
    struct list duplicates; /* partition_append.link: wait until their original is durable */
    u32 inflight;           /* appends not yet done */
    err failed;             /* of the last append: the log is over, what is not durable never is */
    struct producer *producers; /* hash by producer id */
    u32 producer_count;
    bool producers_changed; /* since the last snapshot */
    u32 clean_tries;        /* failures of compaction in a row */
    u64 clean_retry_ns;     /* not before */
};

/* The partition owned by this shard, else NULL with *why = ERR_UNKNOWN_TOPIC_OR_PARTITION or
 * ERR_NOT_LEADER_OR_FOLLOWER. */
struct partition *partition_find(struct broker *b, const struct topic_entry *t, i32 index,
                                 err *why);
/* Consumers see offsets below this: everything durable. */
i64 partition_high_watermark(const struct partition *p);
/* Its appends are done when they are in the object store. */
bool partition_in_store(const struct partition *p);
i64 partition_start(const struct partition *p);
/* Fires once, when the high watermark is above `offset` (not inside this call, even if it is
 * now). */
void partition_watch(struct partition *p, struct partition_watch *w, watch_fn fn);
void partition_unwatch(struct partition_watch *w);
/* Kafka's check of a client's view: ERR_NONE, FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH. -1 =
 * no view. */
err partition_check_epoch(const struct partition *p, i32 current_leader_epoch);

/* Appends one validated record batch (also for coordinators: internal topics). Idempotence is
 * checked
 * here, exactly as Kafka: a duplicate of one of the producer's last five batches succeeds with
 * the offsets it had, and is done when that original is durable.
 * ERR_NONE: pa->done runs later, never inside. Else nothing was appended; ERR_BUSY: no room now. */
struct partition_append;
typedef void (*partition_append_done)(struct partition_append *pa);
struct partition_append {
    struct append append; /* in: early */
    struct partition *partition;
    partition_append_done done;
    err err;
    i64 base_offset, last_offset, log_append_ms; /* log_append_ms -1 unless LogAppendTime */
    const char *reason; /* static text for the response when it was refused; may be NULL */
    struct list link;   /* private */
    struct msg msg;     /* private */
};
err partition_append(struct partition *p, struct bytes batch_bytes, bool from_client,
                     struct arena *scratch, struct partition_append *pa,
                     partition_append_done done) MUST_USE;

/* Its owner no longer waits for it (it was not done): true, and `done` never runs. The batch stays
 * in the log; a repeated one of an idempotent producer is known. False: it will be done soon. */
bool partition_append_abandon(struct partition_append *pa) MUST_USE;

/* ---- the controller (shard 0 only; topics.c) ---- */

/* The controller runs one task at a time, in order, so a task sees the catalog as the tasks before
 * it left it. `run` ends, then or later, in controller_next. A field of its owner. */
struct controller_task {
    struct list link;
    void (*run)(struct controller_task *t);
};
void controller_enter(struct broker *controller, struct controller_task *t,
                      void (*run)(struct controller_task *t));
/* The running task is finished (its memory may be gone): the next one starts. */
void controller_next(struct broker *controller);

/* A change of the catalog: made durable in the metadata store, then published to every shard; only
 * then done runs. Inside a task; a field of its owner. */
struct topic_change {
    struct bg_job job;
    struct broker *broker;
    struct topic *next;      /* NULL = delete; given away, freed when it fails */
    const struct topic *old; /* NULL = create */
    struct topic_publish *publish;
    u32 acks_missing;
    u32 value_len;
    u8 *value;
    err err;
    void (*done)(struct topic_change *tc);
};
void topic_change_start(struct broker *controller, struct topic_change *tc, const struct topic *old,
                        struct topic *next, void (*done)(struct topic_change *tc));
/* A topic with no overrides and a new random id; mem_alloc'ed. Controller shard. */
struct topic *topic_make(struct broker *b, struct bytes name, i32 partitions);
/* A copy to be changed and published. */
struct topic *topic_copy(const struct topic *t);
void topic_free(struct topic *t);

/* Auto-creation with the node's defaults (internal topics with theirs): done runs later, on the
 * asking shard, with ERR_NONE also when the topic is there already. */
struct topic_ensure {
    struct msg msg;
    struct controller_task task;
    struct topic_change change;
    struct broker *from, *controller;
    char name[256];
    u32 name_len;
    err err;
    void *user; /* the asker's; topic_ensure clears it, set it afterwards */
    void (*done)(struct topic_ensure *te);
};
void topic_ensure(struct broker *from, struct topic_ensure *te, struct bytes name,
                  void (*done)(struct topic_ensure *te));

/* ---- coordinators (core/group) ---- */

/* Bits of AclOperation: what may be done with a cluster, topic, group, which without ACLs is
 * everything there is. Answered when a request asks for authorized operations. */
enum { OPERATIONS_OF_CLUSTER = 8096, OPERATIONS_OF_TOPIC = 3576, OPERATIONS_OF_GROUP = 3400 };

#define OFFSETS_TOPIC "__consumer_offsets"
/* Java's String.hashCode based: the partition of __consumer_offsets that holds a group. */
i32 coordinator_partition(const struct broker *b, struct bytes group);
/* The shard that coordinates `group`; ERR_COORDINATOR_NOT_AVAILABLE while the offsets topic is
 * missing. */
err coordinator_shard(const struct broker *b, struct bytes group, u32 *shard);
void coordinator_start(struct broker *b);
/* The catalog gained or lost a partition this shard owns (called for every topic): the coordinator
 * loads or unloads groups of __consumer_offsets, drops offsets of deleted topics. */
void coordinator_partition_added(struct broker *b, struct partition *p);
void coordinator_partition_removed(struct broker *b, struct partition *p);
void coordinator_free(struct broker *b);
/* The client of a call is gone. If it still waits here (a join, a sync), it ends, and its member
 * lives on until its session does. `call` may be freed: it is only compared. */
void coordinator_call_gone(struct broker *b, struct bytes group, const struct call *call,
                           u64 serial);

/* ---- handlers, one per served API (rows in core/broker/apis_served.def) ---- */
#define SERVED(name, where, key_fn) void handle_##name(struct call *c);
#include "../core/broker/apis_served.def"
#undef SERVED
/* coordinator keys of the group APIs */
struct bytes call_group_id(const struct call *c);

#endif
