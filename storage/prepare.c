/* Before the shards start: the WAL folder, and the change of their number.
 *
 * A WAL belongs to a shard number, and which partitions a shard owns follows from the number of
 * shards. When that changed, every WAL that still holds unregistered data is opened here once
 * more, as the shard it was, with no broker above it; a clean stop then turns it into bundles. The
 * snapshots of producers come from env->replay_ops, which need no broker.
 *
 * n/shards (u8 version of the rule that says who owns what, 3 bytes 0, u32 count) is written last,
 * so a crash repeats the work. An older rule is like another number of shards.
 */
#include <stdio.h>

#include "clock.h"
#include "place.h"
#include "storage_int.h"

#define OWNER_RULE 2u /* storage_shard_of; 1 took all bytes of a topic's id */
#define REPLAY_TOLD_NS (2 * NS_PER_S)

static void explain(struct storage_env *env, const char *what, err e)
{
    if (!env->error[0])
        snprintf(env->error, sizeof env->error, "%s: %s", what, err_text(e));
}

/* ---- what the metadata says ---- */

struct wal_list {
    u32 count; /* highest WAL number + 1 */
    bool dirty[SHARDS_MAX];
};

static err wal_list_one(void *arg, const struct meta_kv *kv)
{
    struct wal_list *l = arg;
    char text[8] = { 0 };
    if (kv->key.len != 6)
        return ERR_NONE;
    memcpy(text, kv->key.data + 2, 4);
    unsigned index = SHARDS_MAX;
    if (sscanf(text, "%4x", &index) != 1 || index >= SHARDS_MAX)
        return ERR_NONE;
    l->count = MAX(l->count, index + 1);
    l->dirty[index] = !wal_meta_is_clean(kv->value);
    return ERR_NONE;
}

static err shards_read(struct storage_env *env, u32 *out, bool *same_rule)
{
    struct arena a;
    struct meta_kv kv = { 0 };
    arena_init(&a, 1024, MIB);
    err e = meta_get(env->meta, bytes_str("n/shards"), &a, &kv);
    *out = 0;
    if (e == ERR_NONE &&
        (kv.value.len != 8 || kv.value.data[0] == 0 || kv.value.data[0] > OWNER_RULE))
        e = ERR_CORRUPT;
    if (e == ERR_NONE) {
        *out = get_le32(kv.value.data + 4);
        *same_rule = kv.value.data[0] == OWNER_RULE;
    }
    arena_free(&a);
    if (e == ERR_NONE && (*out == 0 || *out > SHARDS_MAX))
        e = ERR_CORRUPT;
    if (e == ERR_CORRUPT)
        snprintf(env->error, sizeof env->error,
                 "the metadata key n/shards has an unknown form (written by a newer version?)");
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

static err shards_write(struct storage_env *env)
{
    u8 v[8] = { OWNER_RULE };
    put_le32(v + 4, env->shard_count);
    struct meta_op put = { META_PUT, bytes_str("n/shards"), bytes_of(v, sizeof v) };
    struct meta_txn t = { NULL, &put, 0, 1 };
    return meta_commit(env->meta, &t);
}

/* ---- replay ---- */

static void replay_batch(struct storage *st, struct pindex *p, struct bytes b)
{
    (void)st, (void)p, (void)b;
}

static struct bytes replay_snapshot(struct storage *st, struct pindex *p, struct arena *a)
{
    (void)st, (void)p, (void)a;
    return (struct bytes){ NULL, 0 };
}

static const struct storage_ops no_ops = { .recovered = replay_batch,
                                           .restored = replay_batch,
                                           .snapshot = replay_snapshot };

static bool replay_known(struct storage *st, const struct partition_key *k)
{
    return !st->env->exists || st->env->exists(st->env->exists_arg, k);
}

static err replay_one(struct storage_env *env, struct shard *s)
{
    struct storage *st;
    err e = storage_start_replay(s, env, replay_known, &st);
    if (e != ERR_NONE)
        return e;
    u64 told = clock_mono_ns();
    storage_stop(st);
    while (!storage_stopped(st)) {
        shard_turn(s, 100 * NS_PER_MS);
        if (clock_mono_ns() - told < REPLAY_TOLD_NS)
            continue;
        told = clock_mono_ns();
        LOG(INFO, wal_replaying, "wal=%u segments_left=%u", s->index, st->sealed_unregistered);
    }
    bool all = st->sealed_unregistered == 0;
    storage_free(st);
    if (!all) {
        snprintf(
            env->error, sizeof env->error,
            "core.shards changed, but the WAL of shard %u can not be moved to the object store "
            "now; make the store work, or start with the old number of shards",
            s->index);
        return ERR_BUSY;
    }
    return ERR_NONE;
}

static err replay_wal(struct storage_env *env, struct shard_group *g, u32 index)
{
    struct shard *s = MEM_NEW(struct shard);
    struct metrics *m = metrics_create();
    shard_init(s, g, index, env->cfg, m, rng_seed_os());
    err e = io_create(env->cfg, index, &s->io, env->error, sizeof env->error);
    if (e == ERR_NONE) {
        e = replay_one(env, s);
        io_destroy(s->io);
        s->io = NULL;
    }
    shard_free(s);
    metrics_destroy(m);
    mem_free(s);
    return e;
}

static err replay_all(struct storage_env *env, const struct wal_list *l, u32 old_count)
{
    u32 dirty = 0;
    for (u32 i = 0; i < l->count; i++)
        dirty += l->dirty[i];
    LOG(INFO, wal_shards_changed, "from=%u to=%u wals_to_move=%u", old_count, env->shard_count,
        dirty);
    if (dirty == 0)
        return ERR_NONE;
    struct storage_env old = *env;
    old.ops = env->replay_ops ? env->replay_ops : &no_ops;
    old.shard_count = MAX(old_count, l->count);
    struct shard_group g = { .count = old.shard_count };
    g.bg = bg_create(&g, env->cfg);
    err e = ERR_NONE;
    for (u32 i = 0; i < l->count && e == ERR_NONE; i++)
        if (l->dirty[i])
            e = replay_wal(&old, &g, i);
    bg_quiesce(g.bg);
    bg_destroy(g.bg);
    if (e != ERR_NONE)
        memcpy(env->error, old.error, sizeof env->error);
    return e;
}

err storage_prepare(struct storage_env *env)
{
    CHECK(env->shard_count > 0 && env->shard_count <= SHARDS_MAX);
    env->error[0] = 0;
    /* What fails here shows when the file is made. */
    const char *folder = config_str(env->cfg, CFG_wal_path);
    int rc = config_wal_in_memory(env->cfg) ? 0 : place_make_folders(folder, 0750);
    if (rc != 0)
        LOG(WARN, wal_folder, "path=%s errno=%d", folder, rc);
    struct wal_list l = { 0 };
    u32 old_count = 0;
    bool same_rule = true;
    err e = meta_range(env->meta, bytes_str("w/"), wal_list_one, &l);
    if (e == ERR_NONE)
        e = shards_read(env, &old_count, &same_rule);
    if (e == ERR_NONE && (old_count != env->shard_count || !same_rule)) {
        if (l.count > 0)
            e = replay_all(env, &l, old_count);
        if (e == ERR_NONE)
            e = shards_write(env);
    }
    if (e != ERR_NONE)
        explain(env, "preparing the WALs", e);
    return e;
}
