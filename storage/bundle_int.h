/* The object format "bundle" and its registration in the metadata; docs/formats/bundle.md and
 * docs/formats/metadata.md are the same for people. All integers little-endian.
 *
 *   header 32 · block* · index (entry 72)* · footer 64
 *   block = block header 80 + whole record batches of one partition, ascending offsets
 *
 * A block whose first batch is large begins at a multiple of BUNDLE_SECTOR_BYTES, and
 * storage_append gives each large batch of it a place in the segment image that has the same
 * remainder as its later place in the object: a driver that writes whole sectors past the page
 * cache (O_DIRECT) can write all but its first and last sector from where it lies. Only speed
 * depends on it.
 *
 * struct block (storage_int.h): pos = of the block header in the object, bytes = header and
 * batches, data_bytes = batches only.
 *
 * Pure functions over memory; every reader survives any input. Any thread.
 */
#ifndef LEAT_BUNDLE_INT_H
#define LEAT_BUNDLE_INT_H

#include "storage_int.h"

#define BUNDLE_MAGIC 0x4c444e425441454cull /* "LEATBNDL" */
#define BUNDLE_BLOCK_MAGIC 0x4b4c424cu     /* "LBLK" */
#define BUNDLE_FORMAT_VERSION 1u
#define BUNDLE_HEADER_BYTES 32u
#define BUNDLE_BLOCK_HEADER_BYTES 80u
#define BUNDLE_ENTRY_BYTES 72u
#define BUNDLE_FOOTER_BYTES 64u
#define BUNDLE_SECTOR_BYTES 512u
#ifndef BUNDLE_LARGE_BATCH /* the simulator's batches are smaller */
#define BUNDLE_LARGE_BATCH ((u32)(16 * KIB))
#endif

/* One block as the index and its own header describe it. */
struct bundle_entry {
    struct partition_key key;
    i64 base_offset, last_offset; /* inclusive */
    i64 max_timestamp;
    u32 pos; /* of the block header */
    u32 data_bytes;
    u32 batch_count;
    u64 hash; /* XXH3-64 of the block's header (hash 0) and of the headers of its batches */
};
static inline u32 bundle_block_bytes(const struct bundle_entry *e)
{
    return e->data_bytes + BUNDLE_BLOCK_HEADER_BYTES;
}
/* The entry of object `id` as the index has it. */
static inline struct block bundle_entry_block(u64 id, const struct bundle_entry *e)
{
    return (struct block){ .bundle = id,
                           .base_offset = e->base_offset,
                           .last_offset = e->last_offset,
                           .max_timestamp = e->max_timestamp,
                           .pos = e->pos,
                           .bytes = bundle_block_bytes(e),
                           .data_bytes = e->data_bytes };
}

/* The next batch of a partition: true when it opens a block. *at = its place behind the beginning
 * of the block's header. */
static inline bool bundle_fill_add(struct bundle_fill *f, u32 bytes, u32 block_bytes, u32 *at)
{
    bool opens = f->data_bytes == 0 || (u64)f->data_bytes + bytes > block_bytes;
    if (opens)
        *f = (struct bundle_fill){ .aligned = bytes >= BUNDLE_LARGE_BATCH };
    *at = BUNDLE_BLOCK_HEADER_BYTES + f->data_bytes;
    f->data_bytes += bytes;
    return opens;
}

struct bundle_footer {
    u32 wal;
    u64 seq;
    u32 epoch;
    u32 entry_count;
    u64 index_pos;
    u64 index_hash;
};

/* ---- writing ---- */

/* Builds an object without copying batches. init, add…, seal, use parts, free. */
struct bundle_builder {
    u32 wal, epoch;
    u64 seq;
    u32 block_bytes;         /* a block is closed when it would pass this */
    u64 bytes;               /* of the object so far; all of it after seal */
    struct bundle_fill fill; /* of the last entry's block */
    struct bytes *parts;
    u32 part_count, part_cap;
    struct bundle_entry *entries;
    u32 *first_part; /* per entry: index in parts of its block header */
    u32 entry_count, entry_cap;
    u8 *own; /* header, block headers, index, footer */
};
void bundle_builder_init(struct bundle_builder *b, u32 wal, u64 seq, u32 epoch, u32 block_bytes);
/* The next batch: all of one partition one after the other, offsets ascending. `batch` must stay
 * until the parts are no longer used; it is not read before seal. */
void bundle_builder_add(struct bundle_builder *b, const struct partition_key *key, i64 base_offset,
                        i64 last_offset, i64 max_timestamp, struct bytes batch);
/* The next batch opens a block. */
void bundle_builder_break(struct bundle_builder *b);
/* Hashes headers, which touches all of a segment: for a background thread. Then b->parts is the
 * object. Once. */
void bundle_builder_seal(struct bundle_builder *b);
void bundle_builder_free(struct bundle_builder *b);

/* ---- reading ---- */

/* The last BUNDLE_FOOTER_BYTES of an object of `object_bytes`. ERR_CORRUPT, ERR_UNSUPPORTED. */
err bundle_footer_decode(struct bytes tail, u64 object_bytes, struct bundle_footer *out) MUST_USE;
err bundle_header_decode(struct bytes head, u32 *wal, u64 *seq) MUST_USE;
/* The index's bytes against the footer: hash, and every entry's numbers. */
err bundle_index_check(struct bytes index, const struct bundle_footer *f) MUST_USE;
/* Entry i of a checked index. */
void bundle_index_entry(struct bytes index, u32 i, struct bundle_entry *out);
/* The hash a block (header and data) should have; false when its data is not batch after batch.
 * Needs BUNDLE_BLOCK_HEADER_BYTES at least. */
bool bundle_block_hash(struct bytes block, u64 *hash) MUST_USE;
/* A block's bytes (header and data): structure of the header, the hash, the CRC of each batch.
 * `out` is what the header says; pos is 0. Reads all bytes: for a background thread. */
err bundle_block_decode(struct bytes block, struct bundle_entry *out, struct bytes *data) MUST_USE;
/* Walks the batches: each parses, offsets ascend and agree with the entry. Slow; for tools. */
err bundle_data_check(struct bytes data, const struct bundle_entry *e) MUST_USE;
/* Position of the first batch with last offset >= `offset`; data.len when there is none.
 * ERR_CORRUPT when a batch on the way does not parse. */
err bundle_data_find(struct bytes data, i64 offset, u32 *pos) MUST_USE;

/* ---- names and registrations ---- */

#define BUNDLE_NAME_SIZE 48
/* "b/<wal:4>/<seq:16>-<epoch:8>", "r/…" of a run; buf of BUNDLE_NAME_SIZE. Returns buf. */
char *bundle_name(char *buf, u64 bundle, u32 epoch);
/* False when it is the name of neither bundle nor run. */
bool bundle_name_parse(const char *name, u64 *bundle, u32 *epoch);

/* Value of a b/ key, and, with a longer head, of an r/ key. */
#define BUNDLE_REG_VERSION 1u
#define BUNDLE_REG_RUN_VERSION 2u
#define BUNDLE_REG_HEAD_BYTES 40u
#define BUNDLE_REG_RUN_HEAD_BYTES 64u
#define BUNDLE_REG_BLOCK_BYTES 56u
struct bundle_reg {
    u32 epoch;
    u64 object_bytes;
    i64 created_ms;
    u32 block_count;
    bool run;
    /* Of a run: another one took its place, and clones still read it. Its blocks are not their
     * partition's any more, and it covers nothing. */
    bool retired;
    /* Of a run: the offsets it stands for, [from, to): blocks of bundles inside are superseded. And
     * up to where the log was clean once it was in place; 0: not known. */
    i64 cover_from, cover_to, clean_to;
    const u8 *blocks; /* raw */
};
/* Room for `block_count` blocks, to be filled with bundle_reg_set and ended by bundle_reg_end. In
 * the arena; NULL data at its limit. */
struct bytes bundle_reg_begin(struct arena *a, const struct bundle_reg *reg, u8 **raw);
void bundle_reg_set(u8 *raw, u32 i, const struct partition_key *key, const struct block *b);
void bundle_reg_block_put(u8 *at, const struct partition_key *key, const struct block *b);
void bundle_reg_block_get(const u8 *at, u64 bundle, struct partition_key *key, struct block *b);
void bundle_reg_end(u8 *raw, u32 len);
/* Changes a run's registration: see bundle_reg.retired. */
void bundle_reg_retire(u8 *raw, u32 len);
err bundle_reg_decode(struct bytes value, struct bundle_reg *out) MUST_USE;
/* b->bundle is set to `bundle`. */
void bundle_reg_get(const struct bundle_reg *reg, u32 i, u64 bundle, struct partition_key *key,
                    struct block *b);

/* ---- the objects this shard has to do with: retention.c ---- */

struct bundle_info { /* of a bundle or run */
    u64 id;
    i64 created_ms;
    u64 bytes; /* of the object */
    u32 epoch;
    u32 live;     /* blocks of this shard's partitions that are still wanted */
    bool foreign; /* other shards have blocks in it, too (made under another shard count) */
    bool collecting;
    i64 cover_from; /* of a run */
    UT_hash_handle hh;
};
struct bundle_info *retention_bundle(const struct storage *st, u64 bundle); /* NULL: unknown */
/* `live` blocks were given to pindexes. When 0: collected at once. */
void retention_bundle_add(struct storage *st, u64 bundle, const struct bundle_reg *reg, u32 live,
                          bool foreign);

/* Another run took this one's place. Its registration is gone, and in the same transaction it was
 * written down as discarded; or, when `retired`, clones still read it: then the `own` blocks of its
 * partition do not lead into it any more. */
void retention_run_replaced(struct storage *st, u64 run, bool retired, u32 own);

/* ---- cached blocks: cache.c ---- */

/* Whom a block is for. Each has memory, loads and threads of its own. */
enum read_class {
    READ_TAIL,    /* consumers at the end of the log, and lookups there */
    READ_CATCHUP, /* the others */
    READ_CLASSES
};
/* A stream (ahead.c), to be told what became of a guess. */
struct ahead_mark {
    u32 stream, generation;
};
enum cache_state { CACHE_QUEUED, CACHE_LOADING, CACHE_READY, CACHE_FAILED };
struct cache_wait { /* field of a waiting read; linked while it waits */
    struct list link;
    void (*fn)(struct cache_wait *w,
               err e); /* the block is READY and one reference is the waiter's,
                                              * or failed: e */
    struct cache_block *block;
};
struct cache_key {
    u64 bundle;
    u32 pos;
    u32 bytes;
};
/* A read of a block from the local disk: disk_cache.h. */
struct disk_read {
    struct io_op op;
    struct list link;
    struct disk_cache *dc;
    u8 *room;
    u32 bytes;
    u64 number; /* of the entry */
    u64 hash;   /* which block was written */
    err err;
    void (*done)(struct disk_read *r);
};
#define CACHE_BLOCK_MAGIC 0xcac40001u
struct cache_block {
    struct ref ref; /* READY: readers */
    struct bg_job job;
    u32 magic;
    enum cache_state state;
    struct cache_key key;
    struct cache *cache;
    struct store *store;
    enum read_class class;
    enum read_class load_class; /* when its load began */
    char name[BUNDLE_NAME_SIZE];
    i64 base_offset, last_offset; /* expected; checked at load */
    struct partition_key part;
    u8 *raw;           /* key.bytes of them: rooms.h */
    struct bytes data; /* READY: the batches */
    u64 hash;          /* in the block's header, when it came from the store */
    err err;
    bool from_disk; /* it is, or was last, loaded from there */
    bool cold;      /* read to its end, and nobody else is on the way: first to go */
    bool ahead;     /* read-ahead, nobody has asked yet */
    bool busy;      /* LOADING or referred to: cannot be evicted */
    struct ahead_mark mark;
    u64 started_ns;
    struct list link; /* queue, or age order of unreferenced READY ones */
    struct list waiters;
    struct disk_read disk;
    struct list offered; /* READY: waits to be written to the disk */
    UT_hash_handle hh;
};
err cache_create(struct storage *st) MUST_USE;
void cache_free(struct storage *st);
bool cache_idle(const struct storage *st);
/* READY block with one reference for the caller, or NULL. */
struct cache_block *cache_get(struct storage *st, const struct block *b, enum read_class class);
/* Starts or joins the load; w->fn runs later. ERR_NOT_FOUND: the bundle is not registered. */
err cache_load(struct storage *st, const struct pindex *p, const struct block *b,
               enum read_class class, struct cache_wait *w) MUST_USE;
/* One reference of a READY block, for who is no reader. */
void cache_hold(struct cache_block *b);
/* Leaves the queue of waiters; w->fn will not run. */
void cache_unwait(struct cache_wait *w);
/* The same, but the block is loaded all the same, as if read ahead for the stream; unless too many
 * are. */
void cache_leave(struct cache_wait *w, struct ahead_mark mark);
/* Read-ahead for a stream: loads when there is room to spare. False: no room, don't try further. */
bool cache_ahead(struct storage *st, const struct pindex *p, const struct block *b,
                 struct ahead_mark mark);
/* Bytes of the cache for what was read ahead and not asked for yet. */
u64 cache_ahead_bytes(const struct storage *st);
/* Loads not begun for want of memory or a free reader begin now. */
void cache_pump(struct storage *st);

/* ---- reader.c ---- */

/* For looking into batches on the shard. */
struct compressor *reader_compressor(struct storage *st);

#endif
