/* The storage engine of one shard, as the broker sees it: append record batches to partitions,
 * be told when they are durable, read them back, move the log start. Inside: a WAL on NVMe
 * (wal.c), segment images in memory (segment.c), sealing and uploading to the object store
 * (uploader.c, bundle.c), the per-partition index (index.c), reads (reader.c, cache.c),
 * retention (retention.c). One storage path for everything (P3).
 *
 * Watermarks of a shard's WAL, ordered and monotonic (checked in wal_check):
 *   appended ≥ durable ≥ registered ≥ trimmed.
 * An append is done when it is durable, or, in a partition with leat.durability=object, registered:
 * ack.c.
 * The image of a segment IS the WAL's write buffer and the readers' send buffer: a frame is
 * copied once, from the request into the image, with its CRC32C computed in that pass.
 *
 * Everything runs on the owning shard unless said otherwise.
 */
#ifndef LEAT_STORAGE_H
#define LEAT_STORAGE_H

#include "backup.h"
#include "batch.h"
#include "bg.h"
#include "meta.h"
#include "shard.h"
#include "store.h"

struct storage;
struct pindex; /* a partition's index: where its batches are */

/* Which partition. The key of frames, objects and metadata. */
struct partition_key {
    struct uuid topic_id;
    u32 partition;
};

static inline bool partition_key_eq(const struct partition_key *a, const struct partition_key *b)
{
    return a->partition == b->partition && uuid_eq(a->topic_id, b->topic_id);
}

/* ---- what the broker gives at start ---- */

struct storage_ops {
    /* Recovery: a batch of `p` is in the log (ascending offsets; from the WAL beyond what was
     * registered). `batch` is the whole record batch and only valid during the call. */
    void (*recovered)(struct storage *st, struct pindex *p, struct bytes batch);
    /* Recovery: the snapshot that the last registered bundle's transaction held, before any
     * `recovered` of the same partition. */
    void (*restored)(struct storage *st, struct pindex *p, struct bytes snapshot);
    /* At seal: the partition's opaque snapshot covering everything appended so far (producer
     * state); written in the same metadata transaction that registers the segment. Return bytes
     * in `a`; {NULL,0} = unchanged, write nothing. */
    struct bytes (*snapshot)(struct storage *st, struct pindex *p, struct arena *a);
    /* storage_prepare only, may be NULL: the partition's user object is to be freed. */
    void (*forget)(struct storage *st, struct pindex *p);
    /* May its blocks be merged into runs as they are? False where compaction by key does that.
     * NULL: all may. Asked when the partition got a block, and until it has nothing to merge. */
    bool (*mergeable)(struct storage *st, struct pindex *p);
    /* Are its appends done, and readable, only when they are in the object store? Asked once, when
     * the partition is opened; later pindex_set_object tells. NULL: no. */
    bool (*object)(struct storage *st, const struct partition_key *k);
    /* A registration moved the durable offset. After `done` of the appends it covers. May be NULL.
     */
    void (*durable)(struct storage *st, struct pindex *p);
};

/* Shared by all shards of a node; made once at start. */
struct storage_env {
    const struct config *cfg;
    struct meta *meta;
    struct store *store;
    struct backup *backup; /* of `meta` in `store`, which is what `meta` is then; NULL: none */
    const struct storage_ops *ops;
    /* The same for storage_prepare, when no broker is there yet; NULL: nothing is kept. */
    const struct storage_ops *replay_ops;
    u32 shard_count;
    /* Every topic has leat.durability=object: nothing acknowledged is in a WAL only. */
    bool all_object;
    /* For storage_prepare: does the partition exist? Frames of deleted topics may be in a WAL.
     * NULL: all do. */
    bool (*exists)(void *arg, const struct partition_key *key);
    void *exists_arg;
    char error[1024]; /* why the last start call failed */
};

/* ---- life ---- */

/* Which shard owns a partition: the one rule (until moves are recorded): hash of the topic plus the
 * partition's number, so that the partitions of a topic go round the shards. Any thread. */
u32 storage_shard_of(const struct partition_key *key, u32 shard_count);
/* So many bytes of the topic's id decide; clones have them in common with their source. */
#define STORAGE_FAMILY_BYTES 8

/* Before the shards start, on the main thread: opens or makes the WAL folder, and when it was
 * written by another number of shards, replays every WAL into bundles first so that the shards
 * start with empty ones. Messages of progress when it takes long. */
err storage_prepare(struct storage_env *env) MUST_USE;
/* On the shard's thread, blocking, at start. Loads bundle registrations of the partitions this
 * shard owns, opens and recovers its WAL (calls ops->restored / recovered), starts a fresh segment.
 * `known(st, key)` says whether the partition still exists (its topic may be deleted): frames of
 * unknown partitions are dropped. ERR_CORRUPT with env->error naming file, offset, remedy. */
err storage_start(struct shard *s, struct storage_env *env,
                  bool (*known)(struct storage *st, const struct partition_key *k),
                  struct storage **out) MUST_USE;
struct shard *storage_shard(const struct storage *st);
/* Flushes and seals; uploads what is sealed; done when storage_stopped. Appends are refused. */
void storage_stop(struct storage *st);
bool storage_stopped(const struct storage *st);
void storage_free(struct storage *st);
/* One-line state for leatctl and logs (wal used, segments by state, cache). */
void storage_status(const struct storage *st, char *buf, size_t size);

/* ---- partitions ---- */

/* Makes (or finds) the index of a partition. After recovery it holds what was found. `user` is
 * the broker's partition object (pindex_user). */
struct pindex *pindex_open(struct storage *st, const struct partition_key *key);
struct pindex *pindex_find(struct storage *st, const struct partition_key *key);
void pindex_set_user(struct pindex *p, void *user);
void *pindex_user(const struct pindex *p);
const struct partition_key *pindex_key(const struct pindex *p);
/* The topic was deleted: forgets everything; its bundles are collected in the background. The
 * caller has removed the partition's metadata keys (p/, s/) itself or leaves it to this. Reads in
 * flight end with ERR_UNKNOWN_TOPIC_OR_PARTITION. */
void pindex_drop(struct pindex *p);

i64 pindex_start_offset(const struct pindex *p); /* log start */
i64 pindex_next_offset(const struct pindex *p);  /* log end (LEO), durable or not */
/* Everything below is on stable media, or, with pindex_set_object, in the object store. */
i64 pindex_durable_offset(const struct pindex *p);
/* leat.durability=object, or not any more: for what is not durable on this node yet. */
void pindex_set_object(struct pindex *p, bool object);
bool pindex_is_object(const struct pindex *p);
u64 pindex_bytes(const struct pindex *p); /* of the batches from log start to the end */
/* For ListOffsets -4 and -5. From the first on reads need no object store (the log end when nothing
 * is in memory); below the second everything is in the object store (0: nothing ever was). */
i64 pindex_local_start(const struct pindex *p);
i64 pindex_tiered_end(const struct pindex *p);
/* Largest max-timestamp below the durable end and its batch: for ListOffsets -3. -1 when empty. */
i64 pindex_max_timestamp(const struct pindex *p);

/* Moves the log start (DeleteRecords, retention), never back. `done` when it is durable. */
struct pindex_op {
    struct bg_job job; /* private */
    struct pindex *p;
    i64 offset;
    err err;
    void (*done)(struct pindex_op *op);
};
void pindex_set_start(struct pindex *p, i64 offset, struct pindex_op *op,
                      void (*done)(struct pindex_op *op));
/* Retention: the offset up to which whole blocks may go so that at most `bytes` (-1 = no limit)
 * stay and everything with max timestamp < `min_timestamp` (-1 = no limit) goes; never beyond the
 * durable end, never inside a block or open segment. Returns the new start (≥ the old one). */
i64 pindex_retention_offset(const struct pindex *p, i64 bytes, i64 min_timestamp);

/* ---- compaction by key ---- */

/* What a partition has to be cleaned. Its blocks in the object store, from the log start on: clean
 * ones, then dirty ones, of which a round takes those before `end`. */
struct clean_bounds {
    u64 clean_bytes, cleanable_bytes;
    i64 end;            /* behind the last block that may be taken; the dirty start when none */
    i64 oldest_time_ms; /* of a dirty block's newest record; INT64_MAX: nothing is dirty */
};
/* A walk over the blocks, some at a time. Begins zeroed, but for what is in. */
struct clean_walk {
    i64 end_offset;             /* in: not beyond it, */
    i64 newest_ms;              /* in: nor from the first dirty block on that holds a record newer
                                 * than this (INT64_MAX: no such bound) */
    struct clean_bounds bounds; /* out, when it is over */
    i64 at;                     /* private */
    bool begun;                 /* private */
};
/* Looks at as many blocks as *budget has left, and takes them off it. True: it is over. */
bool pindex_clean_walk(const struct pindex *p, struct clean_walk *w, u32 *budget) MUST_USE;

/* A round: removes records that a newer one of the same key, below `end`, supersedes. What is read
 * by others meanwhile is either the old or the new state of a stretch. One round of a shard at a
 * time. */
struct clean_op {
    struct pindex *p;
    i64 end;                 /* in: from a clean_walk, */
    u64 cleanable_bytes;     /* in: as well; how large a map is worth it */
    i64 delete_retention_ms; /* in */
    /* out. ERR_CANCELED: the shard stops, or the partition was dropped. Whatever it is, what was
     * done stays done, and nothing is lost. */
    err err;
    const char *what; /* failed */
    char object[48];  /* and with which one, or the last one that was worked on */
    i64 from, to;     /* dirty offsets that were taken in; to < end: the map was full */
    u32 runs;         /* objects written */
    u64 read_bytes, written_bytes;
    u64 records, records_removed;
    void (*done)(struct clean_op *op);
};
/* False: a round is going on (done never runs). */
bool pindex_clean(struct clean_op *op, void (*done)(struct clean_op *op));

/* ---- append ---- */

struct append; /* a field of its owner */
typedef void (*append_done)(struct append *a);
struct append {
    struct list link; /* private: FIFO until durable */
    u64 lsn_end;      /* private */
    u64 began_ns;     /* private */
    bool early;       /* in: done when it is durable on this node, whatever the partition's mode */
    struct pindex *p;
    append_done done;
    /* when done runs: ERR_NONE = durable; ERR_IO: the WAL failed, shard is read-only */
    err err;
    i64 base_offset, last_offset;
};

/* Copies one validated v2 record batch into the log in one pass (copy + CRC32C),
 * giving it base_offset = pindex_next_offset and `leader_epoch`; `batch->last_offset_delta` says
 * how many offsets it takes. When `check_crc`, a CRC mismatch appends nothing: ERR_CORRUPT_MESSAGE;
 * without, the caller knows that it is right: recovery takes a frame with a wrong one for damage.
 * When `log_append_ms` ≥ 0 the timestamp type is set to LogAppendTime with that time (CRC redone).
 * ERR_NONE: offsets are assigned and a->done runs later, in order of appends, never inside this
 * call. ERR_BUSY: no room now (image memory or WAL full): use storage_wait_room and try again.
 * ERR_DISK_FULL / ERR_IO: the WAL is failed or its disk full; retriable for clients.
 * ERR_RECORD_LIST_TOO_LARGE: longer than a segment can hold. */
err storage_append(struct pindex *p, const struct batch *batch, i32 leader_epoch, bool check_crc,
                   i64 log_append_ms, struct append *a, append_done done) MUST_USE;

/* The owner no longer waits, and `done` never runs: true. The batch stays in the log and becomes
 * readable like any other. False: it waits for this node's disk still, so it must be waited for.
 * Only for an append that is not done. */
bool storage_append_abandon(struct append *a) MUST_USE;

/* Told once when appending may work again; a list of waiters in FIFO order, each a field of its
 * owner. */
struct room_wait {
    struct list link;
    void (*fn)(struct room_wait *w);
};
void storage_wait_room(struct storage *st, struct room_wait *w, void (*fn)(struct room_wait *w));
void storage_unwait_room(struct room_wait *w);

/* ---- read ---- */

/* A counted holder of bytes (a segment image or a cache block); belongs to one shard. */
struct ref;
struct extent {
    struct bytes bytes; /* whole record batches, consecutive offsets */
    struct ref *ref;
};
/* Gives one reference back. Owner shard only (others send it home by message). */
void ref_put(struct ref *r);
void ref_get(struct ref *r);

#define READ_EXTENTS_MAX 64
struct read_op;
typedef void (*read_done)(struct read_op *op);
struct read_op {
    struct list link; /* private */
    struct pindex *p;
    i64 offset;        /* in: first wanted; the batch that holds it is returned whole */
    i64 end_offset;    /* in: return batches whose base offset is below this (HW or LSO) */
    u32 max_bytes;     /* in: stop before passing it, but … */
    bool at_least_one; /* … return one batch even when it is larger */
    bool at_hand;      /* in: rather nothing than wait */
    /* out: ERR_OFFSET_OUT_OF_RANGE, ERR_CORRUPT, ERR_IO, ERR_UNKNOWN_TOPIC_OR_PARTITION */
    err err;
    u32 extent_count;                        /* out */
    u32 bytes;                               /* out: sum */
    struct extent extents[READ_EXTENTS_MAX]; /* out: the caller owns one reference each */
    read_done done;                          /* set when waiting */
    void *user;                              /* the owner's */
    void *load[4];                           /* private */
    bool canceled;                           /* private */
};
enum read_next { READ_DONE, READ_WAIT };

/* READ_DONE: the result is in op now and `done` never runs. READ_WAIT: it must be loaded from the
 * WAL file or the object store; done runs later. Batches come back as stored, from log order, never
 * beyond the durable end. Empty result (no error) when offset == end. */
enum read_next storage_read(struct read_op *op, read_done done);
/* A waiting read is to end soon; done still runs (ERR_CANCELED), unless it was READ_DONE. */
void storage_read_cancel(struct read_op *op);
/* The same for one that waits for the object store, or for its turn; but what it waited for is
 * loaded all the same and kept for a while, for whoever reads there next. Others go on. */
void storage_read_leave(struct read_op *op);

/* ---- lookup by time ---- */

struct lookup_op {
    struct read_op read; /* private */
    struct pindex *p;
    i64 timestamp; /* in: first record with timestamp ≥ this; -3 (max timestamp) is allowed */
    err err;
    i64 offset;          /* out: -1 when there is none */
    i64 found_timestamp; /* out */
    void (*done)(struct lookup_op *op);
    u64 private_[8];
};
enum read_next storage_lookup(struct lookup_op *op, void (*done)(struct lookup_op *op));

#endif
