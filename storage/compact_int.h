/* Compaction, inside: rewriting blocks of a partition into a run, and the filter that leaves the
 * newest record of each key. rewrite.c knows nothing about keys: any filter will do, and without
 * one everything is kept (merge.c). */
#ifndef LEAT_COMPACT_INT_H
#define LEAT_COMPACT_INT_H

#include "discard.h"
#include "hash.h"

/* ---- rewrite.c: the mechanism ---- */

struct rewrite_filter;
/* What becomes of a batch. *out: the batch's own bytes (it stays), other bytes that hold the same
 * offset range and stay valid until the next call, or none (it goes). With `keep` it must stay, be
 * it without records: it is the last of its range. Background thread. */
typedef err (*rewrite_batch)(struct rewrite_filter *f, const struct batch *b, bool keep,
                             struct bytes *out);
struct rewrite_filter {
    rewrite_batch batch;
};

enum rewrite_step { REWRITE_IDLE, REWRITE_READ, REWRITE_REST, REWRITE_PUT, REWRITE_COMMIT };

struct rewrite_chunk { /* memory of batches that stay */
    struct rewrite_chunk *next;
    u32 used, cap;
    u8 bytes[];
};

struct rewrite {
    /* Set by the owner before rewrite_begin. */
    struct storage *st;
    struct pindex *p;
    struct rewrite_filter *filter; /* NULL: all batches stay as they are */
    i64 clean_to;  /* when it is in place the log is clean up to here (at most its end) */
    u64 read_rate; /* bytes/s */
    u64 put_rate;  /* bytes/s; a local store gets one object at a time from the whole node */
    void (*done)(struct rewrite *r);
    /* When done runs. */
    err err;
    const char *what; /* failed */
    bool written;     /* a run is in place; else nothing changed, or it failed */
    u64 read_bytes, written_bytes;
    /* Private. */
    enum rewrite_step step;
    enum rewrite_step resume; /* behind REST */
    i64 from, to, start;      /* range of blocks; log start when a read began */
    i64 cover_from;           /* and what the new run stands for before it */
    struct block *blocks;
    u32 block_count, block_at;
    struct rewrite_run { /* among the sources: their registrations go, or are retired */
        struct discarded object;
        bool retired; /* clones read it */
    } * runs;
    u32 run_count, bundle_count;
    i64 created_ms;
    bool changed;
    char name[BUNDLE_NAME_SIZE];
    u64 id;
    struct partition_key key; /* of the block, as its object says */
    u8 *raw;
    struct rewrite_chunk *chunks;
    struct bundle_builder builder;
    struct bg_job job;
    struct timer timer;
    struct arena arena;
    u64 job_ns;
    u64 put_pace; /* see store_object */
    u32 tries;
};

/* Are there ids left for runs? When not, it is told. */
bool rewrite_numbers_left(const struct storage *st);
/* Takes whole sources (runs, blocks of bundles) from offset `from` on, before `to`, as many as have
 * `bytes` of data together, at least one. Returns the offset behind them; `from` or less: there is
 * none. done runs later, never inside; before that the range's blocks change only by the log start
 * and by a drop. The partition must be held. */
i64 rewrite_begin(struct rewrite *r, i64 from, i64 to, u64 bytes);
void rewrite_stop(struct rewrite *r); /* done soon, ERR_CANCELED unless it was too late */

/* Reads and verifies a block: blocking. `raw` is its memory, grown as needed. */
err rewrite_read_block(struct store *store, const char *name, const struct partition_key *key,
                       const struct block *b, u8 **raw, struct bytes *data) MUST_USE;
/* How long to rest behind a background job that took `took_ns` for `bytes`. */
u64 rewrite_rest_ns(u64 took_ns, u64 bytes, u64 rate);

/* ---- compact.c: newest record of each key ---- */

/* Hash of a key → offset of its newest record. Open addressing, fixed size, no deletion. */
struct key_slot {
    struct hash128 key;
    i64 offset_after; /* offset + 1; 0: free */
};
struct key_map {
    struct key_slot *slots;
    u64 slot_count, used, used_max;
    u64 seed;
};
/* At most `bytes`, less when `keys_max` do not need them. ERR_NO_MEMORY. */
err key_map_init(struct key_map *m, u64 bytes, u64 keys_max, u64 seed) MUST_USE;
void key_map_free(struct key_map *m);
bool key_map_put(struct key_map *m, struct bytes key, i64 offset); /* false: full */
i64 key_map_get(const struct key_map *m, struct bytes key);        /* -1: none */

/* One round over a partition. */
struct compaction {
    struct rewrite_filter filter;
    struct key_map map;
    i64 map_end; /* all records from the dirty start to here are in the map */
    i64 now_ms, delete_retention_ms;
    struct compressor *compressor;
    struct batch_builder builder;
    u64 records, records_removed; /* seen by the filter */
};
void compaction_init(struct compaction *c, i64 dirty_start, i64 now_ms, i64 delete_retention_ms);
void compaction_free(struct compaction *c);
/* Adds the records at or beyond map_end of these batches, and moves map_end. ERR_BUSY: the map is
 * full, map_end is where. ERR_CORRUPT. */
err compaction_map(struct compaction *c, struct bytes data) MUST_USE;

#endif
