/* Metadata: a small ordered key-value store with compare-and-put transactions (design §8).
 * Blocking calls: start-up, or inside a bg job (lane BG_META); never on a shard. Drivers:
 * lmdb:// (embedded, meta_lmdb.c); the simulator's (tests/sim/sim_meta.c); etcd:// later.
 *
 * Keys (ASCII, '/' separates; numbers as fixed-width lower-case hex so that order is numeric):
 *   cluster                      cluster id, format version
 *   t/<name>                     topic: id, partition count, config overrides   (topics.c)
 *   p/<topic-id>/<n:8>           partition: log start, leader epoch             (storage)
 *   s/<topic-id>/<n:8>           snapshot of the partition's producers   (storage, by broker)
 *   b/<wal:4>/<seq:16>           bundle registration: object, blocks            (uploader.c)
 *   r/<wal:4>/<id:16>            run registration, the same, of compaction    (rewrite.c)
 *   d/<object>                   an object to be deleted                    (discard.c)
 *   k/<topic-id>/<n:8>           blocks that a clone shares                 (clone.c)
 *   w/<wal:4>                    WAL: epoch, first segment not yet registered   (wal.c, uploader.c)
 *   n/<name>                     counters: next producer id, …; whose bucket it is (backup.c)
 *   c/<type>/<name>              dynamic configs of brokers, groups, client metrics
 * Values are little-endian structs with a leading version byte, written by their owner file.
 */
#ifndef LEAT_META_H
#define LEAT_META_H

#include "err.h"
#include "mem.h"

struct meta;

struct meta_kv {
    struct bytes key, value;
    u64 revision; /* of the last change of this key; 0 = absent */
};

enum meta_op_kind { META_PUT, META_DELETE, META_DELETE_PREFIX };
struct meta_op {
    enum meta_op_kind kind;
    struct bytes key, value;
};
struct meta_compare { /* holds when the key's revision is `revision` (0 = must be absent) */
    struct bytes key;
    u64 revision;
};
struct meta_txn {
    struct meta_compare *compares;
    struct meta_op *ops;
    u32 compare_count, op_count;
};

struct meta_driver {
    const char *scheme;
    err (*open)(const char *url, struct meta **out, char *why, size_t why_size);
    void (*close)(struct meta *m);
    /* Value copied into the arena. ERR_NOT_FOUND. */
    err (*get)(struct meta *m, struct bytes key, struct arena *a, struct meta_kv *out);
    /* Calls each(ctx-carrying object) for keys with the prefix that come behind `after` (empty: all
     * of them), ascending; stops on an error from `each` and returns it. Views are valid only
     * during the call. */
    err (*range)(struct meta *m, struct bytes prefix, struct bytes after,
                 err (*each)(void *arg, const struct meta_kv *kv), void *arg);
    /* All or nothing and durable when it returns ERR_NONE; ERR_CONFLICT when a compare fails;
     * ERR_DISK_FULL and ERR_IO change nothing. */
    err (*commit)(struct meta *m, const struct meta_txn *t);
};

struct meta {
    const struct meta_driver *driver;
};

/* Chooses the driver by scheme. `why` names cause and remedy. */
err meta_open(const char *url, struct meta **out, char *why, size_t why_size) MUST_USE;
static inline void meta_close(struct meta *m)
{
    m->driver->close(m);
}
static inline err meta_get(struct meta *m, struct bytes key, struct arena *a, struct meta_kv *out)
{
    return m->driver->get(m, key, a, out);
}
static inline err meta_range(struct meta *m, struct bytes prefix,
                             err (*each)(void *, const struct meta_kv *), void *arg)
{
    return m->driver->range(m, prefix, (struct bytes){ NULL, 0 }, each, arg);
}
static inline err meta_commit(struct meta *m, const struct meta_txn *t)
{
    return m->driver->commit(m, t);
}
/* lmdb://path (meta_lmdb.c). The URL may end in "?map=BYTES": the bound of the address space,
 * 16 GiB unless given. One process at a time: a second open fails and says so. */
extern const struct meta_driver meta_lmdb_driver;
#define META_KEY_MAX 511 /* bytes; longer keys are ERR_MALFORMED */
/* The simulator (and later etcd) adds its driver before meta_open. */
void meta_register(const struct meta_driver *d);

#endif
