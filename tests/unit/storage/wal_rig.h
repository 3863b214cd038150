/* What the WAL's tests stand on: one shard with the real ring, a metadata store in memory, and an
 * object store that is only a bookkeeper: rig_register plays the uploader. */
#ifndef LEAT_WAL_RIG_H
#define LEAT_WAL_RIG_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "batch.h"
#include "clock.h"
#include "config.h"
#include "../../../storage/storage_int.h"

/* ---- metadata in memory, kept sorted ---- */

#define RIG_KEYS 256
struct rig_meta {
    struct meta base;
    struct rig_pair {
        char key[64];
        u8 value[4096];
        u32 key_len, len;
    } pairs[RIG_KEYS];
    u32 count;
    u32 commits;
    err fail;
};

static inline u32 rig_meta_at(struct rig_meta *m, struct bytes key, bool *found)
{
    u32 i = 0;
    int c = -1;
    while (i < m->count && (c = bytes_cmp(bytes_of(m->pairs[i].key, m->pairs[i].key_len), key)) < 0)
        i++;
    *found = i < m->count && c == 0;
    return i;
}

static inline err rig_meta_get(struct meta *base, struct bytes key, struct arena *a,
                               struct meta_kv *out)
{
    struct rig_meta *m = container_of(base, struct rig_meta, base);
    bool found;
    u32 i = rig_meta_at(m, key, &found);
    if (!found)
        return ERR_NOT_FOUND;
    *out = (struct meta_kv){ key, arena_copy(a, bytes_of(m->pairs[i].value, m->pairs[i].len)), 1 };
    return ERR_NONE;
}

static inline err rig_meta_range(struct meta *base, struct bytes prefix, struct bytes after,
                                 err (*each)(void *, const struct meta_kv *), void *arg)
{
    CHECK(after.len == 0);
    struct rig_meta *m = container_of(base, struct rig_meta, base);
    for (u32 i = 0; i < m->count; i++) {
        struct rig_pair *p = &m->pairs[i];
        if (p->key_len < prefix.len || memcmp(p->key, prefix.data, prefix.len) != 0)
            continue;
        struct meta_kv kv = { bytes_of(p->key, p->key_len), bytes_of(p->value, p->len), 1 };
        err e = each(arg, &kv);
        if (e != ERR_NONE)
            return e;
    }
    return ERR_NONE;
}

static inline void rig_meta_put(struct rig_meta *m, const struct meta_op *op)
{
    bool found;
    u32 i = rig_meta_at(m, op->key, &found);
    if (found) {
        memmove(&m->pairs[i], &m->pairs[i + 1], (m->count - i - 1) * sizeof m->pairs[0]);
        m->count--;
    }
    if (op->kind != META_PUT)
        return;
    CHECK(m->count < RIG_KEYS && op->key.len < 64 && op->value.len <= 4096);
    memmove(&m->pairs[i + 1], &m->pairs[i], (m->count - i) * sizeof m->pairs[0]);
    m->count++;
    memcpy(m->pairs[i].key, op->key.data, op->key.len);
    m->pairs[i].key_len = op->key.len;
    memcpy(m->pairs[i].value, op->value.data, op->value.len);
    m->pairs[i].len = op->value.len;
}

static inline err rig_meta_commit(struct meta *base, const struct meta_txn *t)
{
    struct rig_meta *m = container_of(base, struct rig_meta, base);
    if (m->fail != ERR_NONE)
        return m->fail;
    m->commits++;
    for (u32 i = 0; i < t->op_count; i++)
        rig_meta_put(m, &t->ops[i]);
    return ERR_NONE;
}

static inline void rig_meta_close(struct meta *m)
{
    (void)m;
}

static const struct meta_driver rig_meta_driver = { "rig",        NULL,           rig_meta_close,
                                                    rig_meta_get, rig_meta_range, rig_meta_commit };

/* ---- the parts of the layer that these tests replace ---- */

static u32 rig_kicks, rig_blocks_gone;

err uploader_create(struct storage *st)
{
    (void)st;
    return ERR_NONE;
}
/* A b/ value of the rig: structs rig_block as they lie in memory. */
struct rig_block {
    struct partition_key key;
    struct block block;
};
static err rig_load_one(void *arg, const struct meta_kv *kv)
{
    for (u32 at = 0; at < kv->value.len; at += (u32)sizeof(struct rig_block)) {
        struct rig_block b;
        memcpy(&b, kv->value.data + at, sizeof b);
        pindex_add_block(pindex_open(arg, &b.key), &b.block);
    }
    return ERR_NONE;
}
err uploader_load(struct storage *st)
{
    return meta_range(st->env->meta, bytes_str("b/"), rig_load_one, st);
}
void uploader_kick(struct storage *st)
{
    (void)st;
    rig_kicks++;
}
u32 uploader_slots(const struct storage *st)
{
    (void)st;
    return 2;
}
u32 uploader_puts(const struct storage *st)
{
    (void)st;
    return 0;
}
bool uploader_idle(const struct storage *st)
{
    (void)st;
    return true;
}
void uploader_free(struct storage *st)
{
    (void)st;
}
err reader_create(struct storage *st)
{
    (void)st;
    return ERR_NONE;
}
bool reader_idle(const struct storage *st)
{
    (void)st;
    return true;
}
void reader_free(struct storage *st)
{
    (void)st;
}
void reader_dropped(struct pindex *p)
{
    (void)p;
}
bool cleaner_idle(const struct storage *st)
{
    (void)st;
    return true;
}
void cleaner_stop(struct storage *st)
{
    (void)st;
}
err merge_create(struct storage *st)
{
    (void)st;
    return ERR_NONE;
}
bool merge_idle(const struct storage *st)
{
    (void)st;
    return true;
}
void merge_stop(struct storage *st)
{
    (void)st;
}
void merge_free(struct storage *st)
{
    (void)st;
}
void merge_note(struct pindex *p)
{
    (void)p;
}
void merge_forget(struct pindex *p)
{
    (void)p;
}
err retention_create(struct storage *st)
{
    (void)st;
    return ERR_NONE;
}
bool retention_idle(const struct storage *st)
{
    (void)st;
    return true;
}
void retention_free(struct storage *st)
{
    (void)st;
}
void retention_block_gone(struct storage *st, u64 bundle)
{
    (void)st, (void)bundle;
    rig_blocks_gone++;
}

/* ---- the rig ---- */

struct rig_append {
    struct append a;
    u32 order;
    bool done;
};

struct rig {
    char dir[64];
    struct config cfg;
    struct rig_meta meta;
    struct storage_env env;
    struct shard_group group;
    struct shard shard;
    struct storage *st;
    u64 recovered_count;
    u64 recovered_hash; /* of offsets and bytes, in order */
    u32 known_limit;    /* partitions below exist */
    struct rig_append *appends;
    u32 append_count, done_count;
    u64 rand;
};

static struct rig *rig; /* the one of the running test */

static inline u64 rig_mix(u64 h, const void *p, size_t n)
{
    const u8 *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

static inline void rig_recovered(struct storage *st, struct pindex *p, struct bytes batch)
{
    (void)st;
    rig->recovered_count++;
    rig->recovered_hash = rig_mix(rig->recovered_hash, batch.data, batch.len);
    (void)p;
}

static inline void rig_restored(struct storage *st, struct pindex *p, struct bytes snapshot)
{
    (void)st, (void)p, (void)snapshot;
}

static inline struct bytes rig_snapshot(struct storage *st, struct pindex *p, struct arena *a)
{
    (void)st;
    u8 *b = arena_alloc(a, 8);
    put_le64(b, (u64)pindex_next_offset(p));
    return bytes_of(b, 8);
}

static inline void rig_durable(struct storage *st, struct pindex *p)
{
    (void)st, (void)p;
}

static const struct storage_ops rig_ops = { .recovered = rig_recovered,
                                            .restored = rig_restored,
                                            .snapshot = rig_snapshot,
                                            .durable = rig_durable };

static inline bool rig_known(struct storage *st, const struct partition_key *k)
{
    (void)st;
    return k->partition < rig->known_limit;
}

static inline void rig_set(const char *key, const char *value)
{
    char why[256];
    if (config_set(&rig->cfg, key, value, CONFIG_COMMAND_LINE, why, sizeof why) != ERR_NONE)
        fail_msg("%s", why);
}

static inline void rig_new(void)
{
    rig = MEM_NEW(struct rig);
    char templ[] = "/var/tmp/leat-wal-XXXXXX";
    assert_non_null(mkdtemp(templ));
    snprintf(rig->dir, sizeof rig->dir, "%s", templ);
    config_init(&rig->cfg);
    rig_set("wal.path", rig->dir);
    rig_set("wal.size", "16m");
    rig_set("wal.segment_bytes", "1m");
    rig_set("memory.budget", "32m");
    rig->meta.base.driver = &rig_meta_driver;
    rig->known_limit = UINT32_MAX;
    rig->rand = 12345;
    rig->recovered_hash = 7;
}

static inline err rig_try_start(void)
{
    struct rig *r = rig;
    char why[512];
    r->env = (struct storage_env){
        .cfg = &r->cfg, .meta = &r->meta.base, .ops = &rig_ops, .shard_count = 1
    };
    r->group = (struct shard_group){ .count = 1 };
    shard_init(&r->shard, &r->group, 0, &r->cfg, metrics_create(), 99);
    assert_int_equal(io_create(&r->cfg, 0, &r->shard.io, why, sizeof why), ERR_NONE);
    r->group.bg = bg_create(&r->group, &r->cfg);
    err e = storage_start(&r->shard, &r->env, rig_known, &r->st);
    if (e != ERR_NONE)
        r->st = NULL;
    return e;
}

static inline void rig_start(void)
{
    err e = rig_try_start();
    if (e != ERR_NONE)
        fail_msg("%s: %s", err_name(e), rig->env.error);
}

static inline void rig_turn(void)
{
    shard_turn(&rig->shard, NS_PER_MS);
}

static inline void rig_down(void)
{
    struct rig *r = rig;
    bg_quiesce(r->group.bg);
    bg_destroy(r->group.bg);
    io_destroy(r->shard.io);
    r->shard.io = NULL;
    struct metrics *m = r->shard.metrics;
    shard_free(&r->shard);
    metrics_destroy(m);
    r->st = NULL;
}

/* As kill -9: nothing is sealed or told any more. What was given to the disk completes. */
static inline void rig_crash(void)
{
    if (rig->st) {
        timer_stop(&rig->shard.timers, &rig->st->wal.mark_timer);
        rig->st->wal.zero_end_seq = 0;
        while (rig->st->wal.write_count > 0 || rig->st->job_count > 0 ||
               !wal_zero_idle(&rig->st->wal))
            rig_turn();
        list_for_safe(it, &rig->st->wal.pending)
            pindex_release(list_entry(it, struct append, link)->p);
        rig->st->stopping = true;
        rig->st->stop_step = 3; /* STOP_DONE */
        storage_free(rig->st);
    }
    rig_down();
}

static inline void rig_free(void)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", rig->dir);
    if (system(cmd) != 0)
        fail_msg("%s", cmd);
    config_free(&rig->cfg);
    mem_free(rig->appends);
    mem_free(rig);
    rig = NULL;
}

static inline u64 rig_rand(u64 bound)
{
    rig->rand = rig->rand * 6364136223846793005u + 1442695040888963407u;
    return (rig->rand >> 33) % bound;
}

/* A batch of `count` records with `bytes` of value in all. */
static inline struct batch rig_batch(struct batch_builder *b, u32 count, u32 bytes)
{
    static u8 value[1 << 21];
    batch_builder_reset(b);
    for (u32 i = 0; i < count; i++) {
        u32 n = bytes / count;
        for (u32 k = 0; k < n; k += 8)
            put_le64(value + k, rig_rand(UINT32_MAX));
        assert_int_equal(batch_builder_add(b, 1000 + (i64)rig_rand(1000), bytes_str("k"),
                                           bytes_of(value, n), NULL, 0),
                         ERR_NONE);
    }
    struct bytes out;
    struct batch batch;
    assert_int_equal(batch_builder_finish(b, NULL, &out), ERR_NONE);
    assert_int_equal(batch_parse(out, &batch), ERR_NONE);
    return batch;
}

static inline struct partition_key rig_key(u32 n)
{
    return (struct partition_key){ { { 1, 2, 3 } }, n };
}

static inline struct pindex *rig_part(u32 n)
{
    struct partition_key k = rig_key(n);
    return pindex_open(rig->st, &k);
}

static inline void rig_append_done(struct append *a)
{
    struct rig_append *ra = container_of(a, struct rig_append, a);
    ra->done = true;
    ra->order = rig->done_count++;
}

/* One batch; the append is kept. Its error. */
static inline err rig_append_one(struct pindex *p, u32 count, u32 bytes, struct rig_append *ra)
{
    struct batch_builder b;
    batch_builder_init(&b, 1 << 22);
    struct batch batch = rig_batch(&b, count, bytes);
    *ra = (struct rig_append){ 0 };
    err e = storage_append(p, &batch, 5, true, -1, &ra->a, rig_append_done);
    batch_builder_free(&b);
    return e;
}

static inline void rig_settle(void)
{
    for (u32 i = 0; i < 10000 && !list_empty(&rig->st->wal.pending); i++)
        rig_turn();
    assert_true(list_empty(&rig->st->wal.pending));
}

/* Appends and waits until durable. */
static inline void rig_put(u32 part, u32 count, u32 bytes)
{
    struct rig_append ra;
    err e;
    while ((e = rig_append_one(rig_part(part), count, bytes, &ra)) == ERR_BUSY)
        rig_turn();
    assert_int_equal(e, ERR_NONE);
    while (!ra.done)
        rig_turn();
    assert_int_equal(ra.a.err, ERR_NONE);
}

/* Plays the uploader: registers the oldest segment when it is durable. */
static inline bool rig_register(bool with_blocks)
{
    struct storage *st = rig->st;
    struct segment *seg = segment_first_unregistered(st);
    if (!seg || seg->state != SEG_DURABLE)
        return false;
    segment_set_state(seg, SEG_UPLOADING);
    struct rig_block blocks[16];
    u32 block_count = 0;
    for (u32 i = 0; i < seg->part_count && with_blocks; i++) {
        const struct entry *e;
        u32 n = pindex_segment_entries(seg->parts[i], st, seg->seq, &e);
        if (n == 0)
            continue;
        struct block b = { .bundle = bundle_id(0, seg->seq),
                           .base_offset = e[0].base_offset,
                           .last_offset = entry_last_offset(&e[n - 1]) };
        for (u32 k = 0; k < n; k++) {
            b.data_bytes += e[k].bytes;
            b.max_timestamp = MAX(b.max_timestamp, e[k].max_timestamp);
        }
        pindex_add_block(seg->parts[i], &b);
        CHECK(block_count < 16);
        memset(&blocks[block_count], 0, sizeof blocks[0]);
        blocks[block_count].key = seg->parts[i]->key;
        blocks[block_count++].block = b;
    }
    struct arena a;
    arena_init(&a, 4096, MIB);
    char key[META_KEY_SIZE], bkey[META_KEY_SIZE];
    struct meta_op ops[2] = {
        { META_PUT, meta_key_wal(key, 0), wal_meta_value(&st->wal, seg->seq + 1, false, &a) },
        { META_PUT, meta_key_bundle(bkey, bundle_id(0, seg->seq)),
          bytes_of(blocks, block_count * (u32)sizeof blocks[0]) },
    };
    struct meta_txn t = { NULL, ops, 0, 2 };
    assert_int_equal(meta_commit(&rig->meta.base, &t), ERR_NONE);
    arena_free(&a);
    segment_registered(st, seg);
    return true;
}

static inline int rig_file(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/0000.wal", rig->dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

/* Turns one byte of the log over, behind the file's back. */
static inline void rig_damage(const struct wal *geometry, u64 lsn)
{
    int fd = rig_file();
    u8 b;
    off_t at = (off_t)wal_file_offset(geometry, lsn);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= 0x40;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    fsync(fd);
    close(fd);
}

#endif
