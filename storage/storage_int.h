/* Inside of the storage engine: the objects its files share. Everything on the owning shard.
 *
 * Who writes what
 *   storage.c      life, status, stop; room waiters
 *   append.c       storage_append
 *   ack.c          when it is done: durable here, or in the store
 *   wal.c          the WAL file: group commit, durable watermark, marks, failure, trim
 *   wal_recover.c  start: superblock, scan, epochs
 *   wal_meta.c     the w/ key, and the fence between lives
 *   segment.c      segments, their images, sealing, snapshots, references
 *   index.c        pindex: entries and blocks, start offset, drop;  index_memory.c: their memory
 *   uploader.c     sealed segments → objects → registration;  gather.c: what goes into which;
 *                  registration.c: the transaction
 *   bundle_load.c  registrations into the index at start
 *   bundle.c       the object format
 *   reader.c       storage_read;  lookup.c: storage_lookup
 *   cache.c        blocks in memory;  ahead.c: which of them are loaded before they are asked for
 *   disk_cache.c   blocks on a local disk
 *   retention.c    pindex_retention_offset, registrations of objects nobody refers to
 *   clone.c        partitions that share blocks with another
 *   discard.c      deletes what is unregistered, after the grace time;  scrub.c: orphans
 *   rewrite.c      blocks of a partition → a run (an object of one partition) in their place
 *   compact.c      the filter of key compaction;  cleaner.c: a round of it over a partition
 *   merge.c        which blocks of bundles and small runs become a larger run, and when
 *
 * A segment's life (who moves it):
 *   OPEN ──wal_seal──► SEALED ──durable reached its end (wal.c)──► DURABLE ──uploader──►
 *   UPLOADING ──uploader: segment_registered──► REGISTERED ──slot trimmed and image dropped──►
 * freed
 *   An upload that fails goes UPLOADING → DURABLE (segment_upload_failed).
 *
 * Watermarks (lsn): appended ≥ flushed ≥ durable ≥ registered ≥ trimmed (wal_check).
 */
#ifndef LEAT_STORAGE_INT_H
#define LEAT_STORAGE_INT_H

#include "check.h"
#include "hmap.h"
#include "log.h"
#include "storage.h"
#include "wal_format.h"

/* No log comes as far: a stored offset beyond it is damage. One more than INT64_MAX would be
 * negative. */
#define OFFSET_MAX (INT64_MAX / 2)

/* ---- references ---- */

#define REF_MAGIC 0x5ef00001u
/* Counted holder of bytes: base of `struct image` and of the cache's blocks. */
struct ref {
    u32 magic;
    u32 count;
    void (*released)(struct ref *r); /* count went to 0 */
};
static inline void ref_init(struct ref *r, void (*released)(struct ref *r))
{
    r->magic = REF_MAGIC;
    r->count = 0;
    r->released = released;
}

/* ---- segments and images ---- */

/* Memory of one segment; image->bytes[i] is byte i of the segment. Not zeroed between uses: only
 * bytes below the segment's `used` mean something. */
struct image {
    struct ref ref;      /* readers, uploads; > 0: stays */
    u8 *bytes;           /* storage.wal.segment_bytes of them, page aligned */
    struct segment *seg; /* whose bytes these are; NULL = free */
    struct list link;    /* free list, or age order of sealed images */
    u64 free_ns;         /* while free: since when its memory is of no use */
    struct storage *st;
};

enum segment_state { SEG_OPEN, SEG_SEALED, SEG_DURABLE, SEG_UPLOADING, SEG_REGISTERED };

struct segment_snapshot {
    struct pindex *p;   /* NULL when it was dropped meanwhile: write nothing */
    struct bytes value; /* of the s/ key, complete */
};

#define SEGMENT_MAGIC 0x5e600001u
struct segment {
    u32 magic;
    enum segment_state state;
    u64 seq;
    u32 epoch;           /* of the WAL, when its frames were written */
    u32 used;            /* bytes of frames; the rest of the segment holds nothing */
    u32 pins;            /* reads of its WAL slot in flight: the slot is not reused while > 0 */
    struct image *image; /* NULL: not in memory (evicted, or recovered) */
    u64 opened_ns, sealed_ns;
    u64 object_since_ns; /* of the first batch that waits for the store; 0: none does */
    u64 data_bytes;      /* of batches */
    u32 batch_count;
    struct pindex *
        *parts; /* partitions with batches here, in order of first batch; NULL = dropped */
    u32 part_count, part_cap;
    struct segment_snapshot *snaps; /* taken at seal; values in snap_arena */
    u32 snap_count;
    struct arena snap_arena;
    void *upload; /* uploader.c's */
};

static inline const struct ref *image_ref(const struct image *i)
{
    return &i->ref;
}

/* By sequence number; NULL when it is gone. */
struct segment *segment_find(struct storage *st, u64 seq);
/* Oldest segment that is not registered (any state); NULL when none. For the uploader: take
 * DURABLE ones in ascending seq; register strictly in ascending seq. */
struct segment *segment_first_unregistered(struct storage *st);
struct segment *segment_next(struct storage *st, const struct segment *seg); /* seq + 1, or NULL */
void segment_set_state(struct segment *seg, enum segment_state to); /* checks the transition */
const char *segment_state_name(enum segment_state s);

/* Bytes of a segment for a while: the image when there is one (then *ready without waiting), else
 * read from the WAL file into a spare image, verified by the caller. */
struct segment_load {
    struct io_op op;
    struct segment *seg;
    struct image *image; /* result; one reference, give back by segment_load_end */
    bool spare;          /* it was read: segment_load_check before its bytes are believed */
    err err;
    u32 read_bytes;
    void (*done)(struct segment_load *l);
};
/* true: l->image is set now and done never runs. false: done runs later (l->err); or, when
 * l->err is ERR_BUSY on return, no spare image is free: try again later, done never runs. */
bool segment_load_begin(struct storage *st, struct segment_load *l, struct segment *seg,
                        void (*done)(struct segment_load *l));
void segment_load_end(struct storage *st, struct segment_load *l);
/* Every frame must still verify: it was acknowledged. ERR_CORRUPT. For the background thread that
 * uses the bytes: it reads all of them. */
err segment_load_check(const struct storage *st, const struct segment_load *l) MUST_USE;
/* Says so in the log. */
void segment_load_tell(const struct storage *st, const struct segment_load *l, err e);

/* The registration transaction is durable: the uploader has called pindex_add_block for every
 * block before. Moves first_unregistered, frees the slot, drops entries without image. */
void segment_registered(struct storage *st, struct segment *seg);
/* Back to DURABLE; the uploader decides when to try again. */
void segment_upload_failed(struct storage *st, struct segment *seg);

/* Private to segment.c, wal.c, append.c, wal_recover.c. */
struct segment *segment_new(struct storage *st, u64 seq, bool with_image); /* NULL: no image now */
void segment_add_part(struct segment *seg, struct pindex *p);
void segment_take_snapshots(struct storage *st, struct segment *seg);
void segment_forget_part(struct storage *st, struct pindex *p); /* dropped: from all segments */
void segments_sweep(struct storage *st); /* frees what is registered, trimmed and without image */
void segments_free(struct storage *st);
bool image_evict_one(struct storage *st);        /* makes an image free; false: none can go */
bool image_evict_registered(struct storage *st); /* the same, of a registered segment only */

/* Value of an s/ key: head, then what ops->snapshot gave (segment.c). */
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_HEAD_BYTES 16u

/* ---- the index ---- */

/* A batch in a WAL segment. */
struct entry {
    i64 base_offset;
    i64 max_timestamp;
    u64 frame_units : 55; /* lsn of the frame's header in units of WAL_ALIGN */
    u64 skip : 9;         /* the frame's */
    u32 bytes;            /* of the batch */
    u32 last_offset_delta;
};
static inline u64 entry_frame_lsn(const struct entry *e)
{
    return (u64)e->frame_units * WAL_ALIGN;
}
static inline struct entry entry_make(i64 base_offset, u32 last_offset_delta, i64 max_timestamp,
                                      u64 frame_lsn, u32 skip, u32 bytes)
{
    return (struct entry){
        base_offset,           max_timestamp, frame_lsn / WAL_ALIGN & ((1ull << 55) - 1),
        skip & FRAME_SKIP_MAX, bytes,         last_offset_delta
    };
}
/* Of the batch. */
static inline u64 entry_lsn(const struct entry *e)
{
    return entry_frame_lsn(e) + FRAME_BYTES + e->skip;
}

/* Which object. A bundle: WAL number and segment it was made from; also its place in the b/ keys. A
 * run: the same with the highest bit set, and for a segment the epoch of the life that wrote it
 * and a number counted in that life, so that no id is given twice, whatever becomes of the object.
 * */
#define RUN_WAL 0x8000u
#define RUN_NUMBER_BITS 28u
#define RUN_EPOCH_MAX ((1u << (48 - RUN_NUMBER_BITS)) - 1)
/* In the number of a run that was uploaded from the log: it holds what nothing else in the store
 * does, and recovery takes it for that. */
#define RUN_FRESH (1u << (RUN_NUMBER_BITS - 1))
#define RUN_NUMBER_MAX (RUN_FRESH - 1)
_Static_assert(SHARDS_MAX <= RUN_WAL, "the number of a WAL leaves room for the bit of runs");
static inline u64 bundle_id(u32 wal, u64 seq)
{
    return (u64)wal << 48 | seq;
}
static inline u64 run_id(u32 wal, u32 epoch, u32 number)
{
    return bundle_id(RUN_WAL | wal, (u64)epoch << RUN_NUMBER_BITS | number);
}
static inline bool object_is_run(u64 id)
{
    return id >> 63;
}
static inline bool object_is_fresh(u64 id) /* a bundle, or a run from the log */
{
    return !object_is_run(id) || id & RUN_FRESH;
}
static inline u32 bundle_wal(u64 id)
{
    return (u32)(id >> 48) & ~RUN_WAL;
}
static inline u64 bundle_seq(u64 id)
{
    return id & 0xffffffffffffu;
}

/* A span of consecutive batches of one partition in a bundle or run. */
struct block {
    u64 bundle;                   /* id of the object */
    i64 base_offset, last_offset; /* inclusive */
    i64 max_timestamp;
    u32 pos, bytes; /* in the object; as bundle.c defines */
    u32 data_bytes; /* of the batches inside */
    u32 origin;     /* whose the object says it is: clone_int.h; 0: the partition's own */
};

/* Where the next batch of a partition will lie in its bundle; bundle_fill_add (bundle_int.h). */
struct bundle_fill {
    u32 data_bytes; /* of the block so far; 0 = none is open */
    bool aligned;   /* the block begins with a sector */
};

#define PINDEX_MAGIC 0x51d00001u
struct pindex {
    u32 magic;
    struct partition_key key;
    struct storage *st;
    void *user;
    i64 start_offset, next_offset, durable_offset;
    i64 start_target;            /* start_offset when all queued moves are durable */
    i64 registered_end;          /* offsets below lie in blocks (or are gone) */
    i64 clean_end;               /* of each key at most the newest record is left below */
    i64 runs_end;                /* merge.c: blocks that begin below lie in runs */
    u64 block_bytes, tail_bytes; /* of live blocks; of live entries at or beyond registered_end */
    i64 last_seq;                /* newest segment whose `parts` holds this; -1 */
    struct bundle_fill fill;     /* the block that last_seq's bundle will have open */
    struct entry *entries;       /* ascending; live ones are [entry_head, entry_end) */
    struct block *blocks;        /* ascending; live ones are [block_head, block_end) */
    u32 entry_head, entry_end, entry_cap;
    u32 block_head, block_end, block_cap;
    u32 holds;         /* appends, reads, jobs that point here */
    u32 swaps;         /* transactions in flight that put runs in the place of blocks */
    bool dropped;      /* out of the table; freed when holds == 0 */
    bool object;       /* appends are done, and readable, when they are registered: ack.c */
    bool advanced;     /* a registration moved durable_offset: to be told */
    bool rewriting;    /* cleaner.c or merge.c is changing its blocks */
    u64 snap_txn;      /* registration.c: number of the transaction that holds its snapshot */
    u64 gather_number; /* gather.c: of the upload that has it at gather_at */
    u32 gather_at;
    i32 leader_epoch;       /* kept in the p/ key */
    struct list reads;      /* struct read_op.link of waiting reads: reader.c */
    struct list merge_link; /* merge.c */
    UT_hash_handle hh;
};

/* Where the batch with an offset is. Prefer the entry when its segment has an image or is not
 * registered yet; else the block. */
struct place {
    const struct entry *entry; /* valid until the next append or turn; NULL: see block */
    struct segment *seg;       /* of the entry */
    const struct block *block; /* valid until the next change of the index */
};
/* First batch with last offset ≥ offset, at or beyond the log start, below durable_offset.
 * false: there is none. */
bool pindex_place(struct pindex *p, i64 offset, struct place *out);
/* First batch (entry) or block with max timestamp ≥ ts at or beyond the log start and durable. */
bool pindex_place_time(struct pindex *p, i64 ts, struct place *out);
/* The batch or block that holds the largest max timestamp (the first such). */
bool pindex_place_max_time(struct pindex *p, struct place *out);
/* First offset behind what `place` covers. */
i64 place_next_offset(const struct place *pl);
static inline i64 entry_last_offset(const struct entry *e)
{
    return e->base_offset + e->last_offset_delta;
}
/* The entries of p inside segment seq: a run in the array; valid until the next append. */
u32 pindex_segment_entries(const struct pindex *p, const struct storage *st, u64 seq,
                           const struct entry **first);
/* Adds a block behind the last one (offsets ascending; gaps allowed where batches were below the
 * log start). At load and at registration. At load also moves next and durable. */
void pindex_add_block(struct pindex *p, const struct block *b);
/* The live blocks within [from, to) give way to the `count` given ones, which hold the `same`
 * batches, or fewer: those below `to` are then found in blocks only from now on. The caller has
 * made the same change durable, and looks after the objects of runs; bundles are told. */
void pindex_swap_blocks(struct pindex *p, i64 from, i64 to, const struct block *blocks, u32 count,
                        bool same);
/* First live block with last offset >= `offset`; block_end: none. */
u32 pindex_block_at(const struct pindex *p, i64 offset);
void pindex_hold(struct pindex *p);
void pindex_release(struct pindex *p); /* may free p */
/* Value of a p/ key: u8 version 1, 3 bytes 0, i32 leader epoch, i64 log start. */
#define PART_META_BYTES 16u
void part_meta_encode(u8 *v, i32 leader_epoch, i64 start);
/* Private. */
void pindex_add_entry(struct pindex *p, const struct entry *e); /* moves next_offset */
void pindex_trim_entries(struct pindex *p);  /* drops leading ones nobody needs */
err index_load(struct storage *st) MUST_USE; /* p/ keys */
void index_free(struct storage *st);

/* Meta keys; buf of META_KEY_SIZE; returns the view. */
#define META_KEY_SIZE 64
struct bytes meta_key_partition(char *buf, char kind,
                                const struct partition_key *k); /* 'p' or 's' */
bool meta_key_partition_parse(struct bytes key, struct partition_key *out);
struct bytes meta_key_bundle(char *buf, u64 bundle); /* b/…, or r/… of a run */
bool meta_key_bundle_parse(struct bytes key, u64 *bundle);
struct bytes meta_key_wal(char *buf, u32 wal);

/* ---- the WAL ---- */

struct wal_write { /* one write in flight */
    struct io_op op;
    struct storage *st;
    u64 begin, end; /* lsn; end may lie beyond the written bytes when it closes a segment */
    bool used, done;
    err err;
    u64 started_ns;
};
#define WAL_WRITES_MAX 64
#define UNDURABLE_SEGMENTS 2 /* bound of appended - durable: wal.c, invariant 5 */

/* A span of segments written by one life of the process. All but the last have an end. */
struct wal_epoch {
    u32 epoch;
    u64 first_seq;
    u64 end_lsn; /* exact end of its frames; UINT64_MAX: open */
};

struct wal {
    io_fd fd;
    char path[512];
    bool memory; /* wal.path=none: there is no file */
    u64 file_bytes;
    struct wal_super super;
    u32 index;         /* number of the file = shard */
    u32 segment_bytes; /* = super's */
    u32 slot_count;
    u32 tag;
    u32 epoch;
    u32 meta_epoch;           /* newest in the w/ key, as this life knows it; 0: none */
    struct wal_epoch *epochs; /* ascending; those with unregistered data, and the open one */
    u32 epoch_count;
    u64 appended, flushed, durable;          /* lsn */
    u64 acked;                               /* end of the last append whose done ran */
    u64 registered_seq;                      /* first segment not registered */
    u64 trimmed_seq;                         /* all below have free slots */
    u64 marked;                              /* largest durable_lsn a frame tells */
    u64 data_end;                            /* end of the last FRAME_BATCH */
    struct segment *open;                    /* NULL: no room, or failed, or stopping */
    u64 next_seq;                            /* of the next segment to open */
    struct wal_write writes[WAL_WRITES_MAX]; /* ring in lsn order */
    u32 write_head, write_count, write_max;
    u32 write_bytes_max;
    err failed; /* ERR_NONE, or why appends are over */
    u64 failed_lsn;
    struct list pending;     /* struct append.link, FIFO: not durable yet */
    struct list registering; /* the same: durable, and wait for the store */
    u32 registering_count;
    struct timer mark_timer, age_timer;
    struct io_op zero_op; /* wal_zero.c */
    struct timer zero_timer;
    u8 *zero_bytes;
    u64 zero_seq, zero_end_seq; /* next segment whose slot gets zeros; where they end */
    u32 zero_at;
    bool zero_yield, fresh_file;
    u64 zero_append_count; /* append_count at the last write of zeros */
    u64 append_count, append_bytes, write_total, sync_ns_total; /* statistics */
};

/* Position in the file of a byte of the log. */
static inline u64 wal_file_offset(const struct wal *w, u64 lsn)
{
    u64 seq = lsn / w->segment_bytes;
    return WAL_SUPER_BYTES + seq % w->slot_count * w->segment_bytes + lsn % w->segment_bytes;
}
/* The durable end as a frame tells it: never inside a frame, which may lie in several writes.
 * Recovery takes a bad frame below it for damage. */
static inline u64 wal_told(const struct wal *w)
{
    return list_empty(&w->pending) ? w->durable : MIN(w->acked, w->durable);
}
static inline u64 wal_seq(const struct wal *w, u64 lsn)
{
    return lsn / w->segment_bytes;
}
/* ---- wal_meta.c: the w/ key ---- */
struct wal_meta {
    bool clean;  /* nothing is unregistered */
    bool memory; /* what is unregistered was in memory only, and not acknowledged */
    u32 segment_bytes;
    struct uuid uuid;
    u64 first_unregistered;
    struct wal_epoch *epochs; /* in the arena */
    u32 epoch_count;
};
/* False: not a value of a w/ key, or one that contradicts itself. */
bool wal_meta_parse(struct bytes value, struct arena *a, struct wal_meta *out);
/* When segments below `first_unregistered` are registered. In `a`. */
struct bytes wal_meta_value(const struct wal *w, u64 first_unregistered, bool clean,
                            struct arena *a);
bool wal_meta_is_clean(struct bytes value); /* nothing is to be read from the WAL */
u32 wal_meta_epoch(struct bytes value);     /* newest one; 0: not a value of a w/ key */
/* c->key is that of this WAL; c then holds while `epoch` is its newest (0: it has none). Blocking.
 * ERR_FENCED: another life has begun. */
err wal_meta_fence(const struct storage *st, u32 epoch, struct meta_compare *c,
                   struct arena *a) MUST_USE;
/* The key becomes `value` if `epoch` is the newest in it. Blocking. */
err wal_meta_commit(const struct storage *st, u32 epoch, struct bytes value) MUST_USE;
struct wal_meta_state {
    u64 first_unregistered;
    u32 segment_bytes;
    u32 oldest_epoch, epoch; /* of those that may have unregistered segments */
};
/* False: not a sound value of a w/ key. */
bool wal_meta_state(struct bytes value, struct wal_meta_state *out);
/* Of a log whose file is not there: it begins with segment `first` in the epoch after this one. */
struct bytes wal_meta_fresh_value(u64 first, u32 epoch, u32 segment_bytes, struct arena *a);

void wal_check(const struct wal *w);
/* Room for a frame of `total` bytes in the open segment; seals and opens as needed. */
err wal_room(struct storage *st, u64 total) MUST_USE;
void wal_appended(struct storage *st, u64 lsn_end); /* bytes up to lsn_end are in the image */
void wal_seal(struct storage *st);    /* closes the open segment; nothing when it is empty */
void wal_written(struct storage *st); /* in memory: the last turn's writes are done */
void wal_flush(struct storage *st);   /* the turn's group commit */
void wal_trim(struct storage *st);    /* after registration or when a pin is gone */
void wal_start_timers(struct storage *st);
void wal_zero_start(struct storage *st); /* the file is new */
/* A write of zeros to this segment's slot is in flight; room is told when it is done. */
bool wal_zero_holds(struct storage *st, u64 seq);
bool wal_zero_idle(const struct wal *w);
/* Another life has begun: nothing is appended or acknowledged any more. */
void wal_fenced(struct storage *st);
void wal_stop(struct storage *st);
err wal_recover(struct storage *st) MUST_USE; /* error text in env->error */
void wal_close(struct storage *st);
/* While a read of segment's slot in the file is in flight. */
static inline void segment_pin(struct segment *seg)
{
    seg->pins++;
}
void segment_unpin(struct storage *st, struct segment *seg);

/* ---- ack.c ---- */
void ack_durable(struct storage *st);    /* wal.durable moved */
void ack_registered(struct storage *st); /* wal.registered_seq moved, or some never will be */
void ack_failed(struct storage *st);     /* wal.failed was set */
void ack_end(struct storage *st);        /* stopping, and nothing is registered any more */
/* At the end of a turn: seals the open segment when it is a batch that is due. */
void batch_check(struct storage *st);
/* A batch that waits for the store was appended to the open segment. */
void batch_appended(struct storage *st, struct segment *seg);

/* ---- by uploader.c, reader.c, retention.c ---- */

err uploader_create(struct storage *st) MUST_USE; /* fills st->uploader */
/* At start, blocking: every b/ key; blocks of partitions this shard owns and st->known accepts go
 * to pindex_add_block. `env->error` on failure. */
err uploader_load(struct storage *st) MUST_USE;
/* Up to so many percent of the images that wait for their upload, uploads give way. */
#define UPLOADS_RELAXED 50u
void uploader_kick(struct storage *st);       /* something is DURABLE, or the shard is stopping */
u32 uploader_slots(const struct storage *st); /* uploads at a time */
u32 uploader_puts(const struct storage *st);  /* puts in flight */
bool uploader_idle(const struct storage *st); /* nothing in flight (also deletes): may be freed */
/* So much waits for its upload, or uploads fail: other work on the store is to slow down. */
bool uploader_behind(const struct storage *st);
void uploader_free(struct storage *st);
err reader_create(struct storage *st) MUST_USE;
bool reader_idle(const struct storage *st);
void reader_free(struct storage *st);
/* The partition was dropped: waiting reads (p->reads) are to end with
 * ERR_UNKNOWN_TOPIC_OR_PARTITION. */
void reader_dropped(struct pindex *p);
err retention_create(struct storage *st) MUST_USE;
bool retention_idle(const struct storage *st);
void retention_free(struct storage *st);
/* One block less refers to the bundle: behind the log start, or its partition was dropped. */
void retention_block_gone(struct storage *st, u64 bundle);
/* One more: of a clone. False: the bundle is not known here. */
bool retention_block_more(struct storage *st, u64 bundle);

/* store_job.c: those that run end. Nothing of them may be in the background. */
void store_jobs_stop(struct storage *st);

/* cleaner.c: a round is going on; the engine may not be freed. A stop ends it soon. */
bool cleaner_idle(const struct storage *st);
void cleaner_stop(struct storage *st);

/* merge.c */
err merge_create(struct storage *st) MUST_USE;
void merge_free(struct storage *st);
bool merge_idle(const struct storage *st);
void merge_stop(struct storage *st);
void merge_note(struct pindex *p);   /* it got a block */
void merge_forget(struct pindex *p); /* it is dropped */
/* What is due waits much too long although merging does what it can, and a run is being written:
 * awaited uploads are to leave it half of the way to the store. */
bool merge_presses(const struct storage *st);
/* So many bytes of bundles are registered: a part of as much may be written once more. */
void merge_uploaded(struct storage *st, u64 bytes);

/* ---- the engine of a shard ---- */

#define STORAGE_MAGIC 0x57040001u
struct storage {
    u32 magic;
    bool stopping;
    bool no_room;    /* the last append found no segment to open */
    bool index_full; /* the last append found no room in index.memory */
    bool room_told;  /* room waiters are woken by the next hook */
    bool replaying;  /* storage_prepare replays a WAL of another shard count: no broker above */
    struct shard *shard;
    struct storage_env *env;
    bool (*known)(struct storage *st, const struct partition_key *k);
    struct pindex *parts; /* uthash by key */
    u64 index_bytes;      /* of their arrays, by index_array */
    struct shard_hook hook;
    struct list room_waiters;
    struct timer linger_timer; /* of the batch in the open segment */
    bool acks_over;            /* stopping: what is not registered now is not waited for */
    struct wal wal;
    /* Segments by sequence: live[i] is seq live_first + i; NULL = gone. */
    struct segment **live;
    u64 live_first;
    u32 live_count, live_cap;
    /* Images. */
    struct list free_images, sealed_images; /* sealed: oldest first */
    struct list spares;                     /* mapped, not in use */
    struct image **images;
    u32 image_count, image_max, spare_max, spare_used;
    struct bg_job image_job;  /* maps and touches the memory of one more image */
    u8 *image_bytes;          /* what it mapped */
    u64 image_grow_ns;        /* not before this */
    struct timer image_timer; /* gives memory back; armed while there is more than one image */
    u32 sealed_unregistered;  /* SEALED … UPLOADING */
    u32 job_count;            /* bg jobs of index.c, segment.c and storage.c in flight */
    struct bg_job clean_job;  /* the last commit of a clean stop */
    struct bytes clean_value;
    struct arena clean_arena;
    u64 stop_deadline_ns;
    u8 stop_step;
    bool uploads_gave_up; /* set by uploader.c: stopping and something fails, or fenced */
    u32 upload_failures;  /* by uploader.c, for the status: in a row, and the last error */
    err upload_error;
    /* Owned by their files. */
    struct uploader *uploader;
    struct reader *reader;
    struct cache *cache;
    struct disk_cache *disk_cache;
    struct ahead *ahead;
    struct retention *retention;
    struct discard *discard; /* of the node, on shard 0; else NULL, as the next */
    struct scrub *scrub;
    struct store_job *store_jobs[2]; /* that run, by kind */
    struct uuid *origins;            /* clone_int.h: block.origin - 1 leads here */
    u32 origin_count;
    i64 steady_base_ms;     /* see discard_now_ms */
    struct clean *cleaning; /* the round of this shard; NULL: none */
    struct merge *merge;
    u32 run_number;          /* of the next run of this life */
    u64 gather_number;       /* uploads gathered */
    u64 registration_number; /* transactions of them, see pindex.snap_txn */
};

/* ---- index_memory.c ---- */
/* Gives an array of p's another capacity (0: frees it), counted. Returns where it is now. */
void *index_array(struct pindex *p, void *v, u32 *cap, u32 to, size_t item_bytes);
/* Is the index below its bound, with so many bytes more? index_room makes room first, where it can,
 * and tells when there is none; as an append it may move every array. */
bool index_fits(const struct storage *st, u64 more);
bool index_room(struct storage *st);

/* Nothing may change in the store. */
static inline bool storage_readonly(const struct storage *st)
{
    return config_i64(st->env->cfg, CFG_store_readonly);
}
/* Tests may run without metrics. */
static inline void storage_count(struct storage *st, enum metric_id id, u64 n)
{
    if (st->shard->metrics != NULL)
        metric_add(st->shard->metrics, id, n);
}
/* Wakes room waiters, if there is room; in a later step of the turn it is safe to append. */
void storage_room_made(struct storage *st);
/* As storage_start, for storage_prepare: every partition of the WAL is taken, whoever owns it
 * now. */
err storage_start_replay(struct shard *s, struct storage_env *env,
                         bool (*known)(struct storage *st, const struct partition_key *k),
                         struct storage **out) MUST_USE;
/* Why a start call fails, for env->error. */
void storage_explain(struct storage *st, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Does this shard own it and does it exist? */
bool storage_owns(struct storage *st, const struct partition_key *k);

#endif
