/* A whole storage engine of one shard for tests: real ring, real files, LMDB; the object store and
 * the metadata can be told to fail. A model remembers every batch, to compare reads with. */
#ifndef LEAT_ENGINE_RIG_H
#define LEAT_ENGINE_RIG_H

#include "../unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "../../../storage/bundle_int.h"
#include "batches.h"
#include "clock.h"
#include "tmpdir.h"

#define ENGINE_PARTS 8u

/* ---- drivers that can be told to fail ---- */

struct fault {
    u32 puts, gets, removes, commits, awaited_puts;       /* calls; atomic */
    u32 fail_puts, fail_gets, fail_removes, fail_commits; /* so many of the next calls fail */
    u32 pass_puts;                                        /* so many go through before that */
    err error;
    u32 hold_puts;    /* puts wait until it is 0 */
    u32 hold_gets;    /* reads */
    u32 hold_catchup; /* those of the catch-up lane */
    u32 hold_commits;
    u32 delay_put_us, delay_get_us;
};
static struct fault fault;
#define FAULT_SEEN(field) __atomic_load_n(&fault.field, __ATOMIC_ACQUIRE)
static struct store *fault_store_below;
static struct meta *fault_meta_below;

static inline bool fault_take(u32 *left)
{
    u32 v = __atomic_load_n(left, __ATOMIC_ACQUIRE);
    while (v > 0)
        if (__atomic_compare_exchange_n(left, &v, v - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return true;
    return false;
}
static inline void fault_hold(const u32 *flag)
{
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE))
        usleep(200);
}
static inline err fault_put(struct store *s, const struct store_object *o)
{
    (void)s;
    __atomic_fetch_add(&fault.awaited_puts, o->awaited, __ATOMIC_RELAXED);
    __atomic_fetch_add(&fault.puts, 1, __ATOMIC_RELAXED);
    fault_hold(&fault.hold_puts);
    if (fault.delay_put_us)
        usleep(fault.delay_put_us);
    if (!fault_take(&fault.pass_puts) && fault_take(&fault.fail_puts))
        return fault.error;
    return fault_store_below->driver->put(fault_store_below, o);
}
static inline err fault_get(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    (void)s;
    __atomic_fetch_add(&fault.gets, 1, __ATOMIC_RELAXED);
    fault_hold(&fault.hold_gets);
    char thread[16];
    if (pthread_getname_np(pthread_self(), thread, sizeof thread) == 0 &&
        strcmp(thread, "bg-catchup") == 0)
        fault_hold(&fault.hold_catchup);
    if (fault.delay_get_us)
        usleep(fault.delay_get_us);
    if (fault_take(&fault.fail_gets))
        return fault.error;
    return fault_store_below->driver->get_range(fault_store_below, name, offset, buf, len);
}
static inline err fault_size(struct store *s, const char *name, u64 *out)
{
    (void)s;
    return fault_store_below->driver->size(fault_store_below, name, out);
}
static inline err fault_remove(struct store *s, const char *name)
{
    (void)s;
    __atomic_fetch_add(&fault.removes, 1, __ATOMIC_RELAXED);
    if (fault_take(&fault.fail_removes))
        return fault.error;
    return fault_store_below->driver->remove(fault_store_below, name);
}
static inline err fault_list(struct store *s, const char *prefix,
                             err (*each)(void *, const char *, u64), void *arg)
{
    (void)s;
    return fault_store_below->driver->list(fault_store_below, prefix, each, arg);
}
#define FAULT_STORE_CALLS                                                            \
    .scheme = "fault", .put = fault_put, .get_range = fault_get, .size = fault_size, \
    .remove = fault_remove, .list = fault_list
static const struct store_driver fault_store_driver = { FAULT_STORE_CALLS, .local = true };
static const struct store_driver fault_remote_driver = { FAULT_STORE_CALLS };
static inline err fault_meta_get(struct meta *m, struct bytes key, struct arena *a,
                                 struct meta_kv *out)
{
    (void)m;
    return meta_get(fault_meta_below, key, a, out);
}
static inline err fault_meta_range(struct meta *m, struct bytes prefix, struct bytes after,
                                   err (*each)(void *, const struct meta_kv *), void *arg)
{
    (void)m;
    return fault_meta_below->driver->range(fault_meta_below, prefix, after, each, arg);
}
static inline err fault_meta_commit(struct meta *m, const struct meta_txn *t)
{
    (void)m;
    /* Not what only writes or deletes notes: the collector does so whenever it likes. */
    if (t->op_count > 0 && memcmp(t->ops[0].key.data, "d/", 2) == 0)
        return meta_commit(fault_meta_below, t);
    __atomic_fetch_add(&fault.commits, 1, __ATOMIC_RELAXED);
    fault_hold(&fault.hold_commits);
    if (fault_take(&fault.fail_commits))
        return fault.error;
    return meta_commit(fault_meta_below, t);
}
static const struct meta_driver fault_meta_driver = {
    "fault", NULL, NULL, fault_meta_get, fault_meta_range, fault_meta_commit
};

/* ---- the rig ---- */

struct model_batch {
    struct bytes bytes;
    i64 base, last, max_timestamp;
};
struct model_part {
    struct model_batch *batches;
    u32 count;
    i64 next;
    struct pindex *p;
};

struct engine {
    struct tmpdir dir;
    struct config cfg;
    struct store store;
    struct meta meta;
    struct storage_env env;
    struct shard_group group;
    struct shard shard;
    struct storage *st;
    struct model_part parts[ENGINE_PARTS];
    u32 restored, recovered, snapshots;
    u32 shard_count, index;
    bool remote; /* the store is on no disk of this machine */
    u32 unknown; /* bit i: partition i does not exist any more */
    bool all_object;
    u32 object;             /* bit i: partition i's appends wait for the store */
    i64 told[ENGINE_PARTS]; /* durable offsets that registrations moved */
    u64 rand;
};
static struct engine *eng;

struct engine_append {
    struct append a;
    bool done;
};

static inline u64 engine_rand(u64 bound)
{
    eng->rand = eng->rand * 6364136223846793005u + 1442695040888963407u;
    return (eng->rand >> 33) % bound;
}
static inline struct partition_key engine_key(u32 i)
{
    return (struct partition_key){ { { 9, 8, 7 } }, i };
}
static inline bool engine_known(struct storage *st, const struct partition_key *k)
{
    (void)st;
    return !(eng->unknown >> k->partition & 1);
}
static inline void engine_recovered(struct storage *st, struct pindex *p, struct bytes batch)
{
    (void)st;
    (void)p;
    (void)batch;
    eng->recovered++;
}
static inline void engine_restored(struct storage *st, struct pindex *p, struct bytes snapshot)
{
    (void)st;
    assert_int_equal(get_le32(snapshot.data), pindex_key(p)->partition);
    eng->restored++;
}
static inline struct bytes engine_snapshot(struct storage *st, struct pindex *p, struct arena *a)
{
    (void)st;
    u8 *v = arena_alloc(a, 4);
    put_le32(v, pindex_key(p)->partition);
    eng->snapshots++;
    return bytes_of(v, 4);
}
static inline bool engine_object(struct storage *st, const struct partition_key *k)
{
    (void)st;
    return eng->object >> k->partition & 1;
}
static inline void engine_durable(struct storage *st, struct pindex *p)
{
    (void)st;
    eng->told[pindex_key(p)->partition] = pindex_durable_offset(p);
}
static const struct storage_ops engine_ops = { .recovered = engine_recovered,
                                               .restored = engine_restored,
                                               .snapshot = engine_snapshot,
                                               .object = engine_object,
                                               .durable = engine_durable };

static inline void engine_set(const char *key, const char *value)
{
    char why[256];
    if (config_set(&eng->cfg, key, value, CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE)
        fail_msg("%s", why);
}

static inline void engine_new(void)
{
    fault = (struct fault){ .error = ERR_IO };
    eng = MEM_NEW(struct engine);
    tmpdir_make(&eng->dir);
    eng->rand = 4711;
    eng->shard_count = 1;
    config_init(&eng->cfg);
    char path[512];
    snprintf(path, sizeof path, "%s/wal", eng->dir.path);
    engine_set("node.data_dir", eng->dir.path);
    engine_set("wal.path", path);
    engine_set("wal.size", "64m");
    engine_set("wal.segment_bytes", "1m");
    engine_set("wal.seal_age", "60s");
    engine_set("memory.budget", "64m");
    engine_set("store.retry", "5ms");
    engine_set("store.block_bytes", "64k");
    engine_set("store.delete_delay", "10ms");
    engine_set("store.cache_bytes", "4m");
    mkdir(path, 0755);
}

static inline void engine_open_below(void)
{
    char url[512], why[512];
    snprintf(url, sizeof url, "file://%s/store", eng->dir.path);
    if (store_open(url, NULL, &fault_store_below, why, sizeof why) != ERR_NONE)
        fail_msg("%s", why);
    snprintf(url, sizeof url, "lmdb://%s/meta", eng->dir.path);
    if (meta_open(url, &fault_meta_below, why, sizeof why) != ERR_NONE)
        fail_msg("%s", why);
    eng->store.driver = eng->remote ? &fault_remote_driver : &fault_store_driver;
    eng->meta.driver = &fault_meta_driver;
}

static inline err engine_try_start(void)
{
    char why[512];
    engine_open_below();
    eng->restored = eng->recovered = 0;
    eng->env = (struct storage_env){ .cfg = &eng->cfg,
                                     .meta = &eng->meta,
                                     .store = &eng->store,
                                     .ops = &engine_ops,
                                     .shard_count = eng->shard_count,
                                     .all_object = eng->all_object };
    eng->group = (struct shard_group){ .count = eng->shard_count };
    shard_init(&eng->shard, &eng->group, eng->index, &eng->cfg, metrics_create(), 99);
    assert_int_equal(io_create(&eng->cfg, eng->index, &eng->shard.io, why, sizeof why), ERR_NONE);
    eng->group.bg = bg_create(&eng->group, &eng->cfg);
    return storage_start(&eng->shard, &eng->env, engine_known, &eng->st);
}

static inline void engine_start(void)
{
    err e = engine_try_start();
    if (e != ERR_NONE)
        fail_msg("%s: %s", err_name(e), eng->env.error);
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        struct partition_key k = engine_key(i);
        if (engine_known(eng->st, &k))
            eng->parts[i].p = pindex_open(eng->st, &k);
    }
}

static inline void engine_turn(void)
{
    shard_turn(&eng->shard, NS_PER_MS);
}
#define ENGINE_UNTIL(cond)                            \
    do {                                              \
        u64 until_ = clock_mono_ns() + 20 * NS_PER_S; \
        while (!(cond)) {                             \
            if (clock_mono_ns() > until_)             \
                fail_msg("never: " #cond);            \
            engine_turn();                            \
        }                                             \
    } while (0)

/* What engine_try_start began, when storage refused. */
static inline void engine_refused(void)
{
    eng->st = NULL;
    bg_quiesce(eng->group.bg);
    bg_destroy(eng->group.bg);
    io_destroy(eng->shard.io);
    eng->shard.io = NULL;
    struct metrics *m = eng->shard.metrics;
    shard_free(&eng->shard);
    metrics_destroy(m);
    fault_store_below->driver->close(fault_store_below);
    meta_close(fault_meta_below);
}

static inline void engine_down(void)
{
    storage_free(eng->st);
    engine_refused();
}

static inline void engine_stop(void)
{
    storage_stop(eng->st);
    ENGINE_UNTIL(storage_stopped(eng->st));
    engine_down();
}

static inline void engine_free(void)
{
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        for (u32 k = 0; k < eng->parts[i].count; k++)
            batch_drop(eng->parts[i].batches[k].bytes);
        mem_free(eng->parts[i].batches);
    }
    config_free(&eng->cfg);
    tmpdir_remove(&eng->dir);
    mem_free(eng);
    eng = NULL;
}

/* ---- appending ---- */

static inline void engine_append_done(struct append *a)
{
    container_of(a, struct engine_append, a)->done = true;
}

/* One batch, durable when it returns. Timestamps: base offset · 10. */
static inline void engine_put(u32 part, u32 records, u32 value_bytes)
{
    struct model_part *m = &eng->parts[part];
    struct bytes b = batch_make(0, records, value_bytes, m->next * 10);
    struct batch parsed;
    assert_int_equal(batch_parse(b, &parsed), ERR_NONE);
    struct engine_append ea = { 0 };
    err e;
    while ((e = storage_append(m->p, &parsed, 1, true, -1, &ea.a, engine_append_done)) == ERR_BUSY)
        engine_turn();
    assert_int_equal(e, ERR_NONE);
    ENGINE_UNTIL(ea.done);
    assert_int_equal(ea.a.err, ERR_NONE);
    assert_int_equal(ea.a.base_offset, m->next);
    u8 *copy = mem_dup(b.data, b.len);
    batch_drop(b);
    batch_patch(copy, m->next, 1);
    m->batches = mem_realloc(m->batches, (m->count + 1) * sizeof *m->batches);
    m->batches[m->count++] = (struct model_batch){ bytes_of(copy, b.len), m->next,
                                                   m->next + records - 1, parsed.max_timestamp };
    m->next += records;
}

/* About `bytes` of batches over all partitions. */
static inline void engine_fill(u64 bytes)
{
    u64 sum = 0;
    while (sum < bytes) {
        u32 records = 1 + (u32)engine_rand(5);
        u32 value = engine_rand(10) == 0 ? 20000 : 100 + (u32)engine_rand(5000);
        engine_put((u32)engine_rand(ENGINE_PARTS), records, value);
        sum += (u64)records * value;
    }
}

static inline void engine_seal_all(void)
{
    wal_seal(eng->st);
    ENGINE_UNTIL(eng->st->sealed_unregistered == 0);
}

static inline void engine_evict_all(void)
{
    while (image_evict_one(eng->st))
        ;
}

/* ---- reading ---- */

struct engine_read {
    struct read_op op;
    bool done;
};
static inline void engine_read_done(struct read_op *op)
{
    container_of(op, struct engine_read, op)->done = true;
}
static inline void engine_read_begin(struct engine_read *r, u32 part, i64 offset, i64 end, u32 max,
                                     bool one)
{
    *r = (struct engine_read){ .op = { .p = eng->parts[part].p,
                                       .offset = offset,
                                       .end_offset = end,
                                       .max_bytes = max,
                                       .at_least_one = one } };
    r->done = storage_read(&r->op, engine_read_done) == READ_DONE;
}
static inline void engine_read_end(struct engine_read *r)
{
    for (u32 i = 0; i < r->op.extent_count; i++)
        ref_put(r->op.extents[i].ref);
}

/* The extents are batches first, first+1, … of the model; returns how many. */
static inline u32 engine_compare(const struct read_op *op, const struct model_part *m, u32 first)
{
    u32 n = 0, sum = 0;
    for (u32 i = 0; i < op->extent_count; i++) {
        struct bytes rest = op->extents[i].bytes;
        sum += rest.len;
        while (rest.len > 0) {
            assert_true(first + n < m->count);
            struct bytes want = m->batches[first + n].bytes;
            assert_true(rest.len >= want.len);
            assert_memory_equal(rest.data, want.data, want.len);
            rest = bytes_of(rest.data + want.len, rest.len - want.len);
            n++;
        }
    }
    assert_int_equal(sum, op->bytes);
    return n;
}

/* Reads a partition from `from` to its end. */
static inline void engine_check_part(u32 part, i64 from, u32 max)
{
    struct model_part *m = &eng->parts[part];
    u32 first = 0;
    while (first < m->count && m->batches[first].last < from)
        first++;
    while (first < m->count) {
        struct engine_read r;
        engine_read_begin(&r, part, MAX(from, m->batches[first].base), m->next, max, true);
        ENGINE_UNTIL(r.done);
        if (r.op.err != ERR_NONE)
            fail_msg("%s", err_name(r.op.err));
        u32 n = engine_compare(&r.op, m, first);
        assert_true(n > 0);
        first += n;
        engine_read_end(&r);
    }
}
static inline void engine_check_all(void)
{
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        if (!(eng->unknown >> i & 1))
            engine_check_part(i, pindex_start_offset(eng->parts[i].p), 100000);
}

/* ---- the store ---- */

static inline err engine_count_one(void *arg, const char *name, u64 bytes)
{
    (void)name;
    (void)bytes;
    ++*(u32 *)arg;
    return ERR_NONE;
}
static inline u32 engine_objects(void)
{
    u32 n = 0;
    assert_int_equal(fault_store_below->driver->list(fault_store_below, "b/", engine_count_one, &n),
                     ERR_NONE);
    return n;
}
static inline err engine_count_key(void *arg, const struct meta_kv *kv)
{
    (void)kv;
    ++*(u32 *)arg;
    return ERR_NONE;
}
static inline u32 engine_keys(const char *prefix)
{
    u32 n = 0;
    assert_int_equal(meta_range(fault_meta_below, bytes_str(prefix), engine_count_key, &n),
                     ERR_NONE);
    return n;
}

static inline int engine_setup(void **state)
{
    (void)state;
    engine_new();
    return 0;
}
static inline int engine_teardown(void **state)
{
    (void)state;
    if (eng->st)
        engine_stop();
    engine_free();
    return 0;
}

#endif
