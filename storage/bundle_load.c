/* Start-up: registrations from the metadata into the indexes of this shard's partitions. No object
 * is read to start.
 *
 * Runs first: each says which offsets of its partition it stands for. Blocks of bundles inside are
 * superseded; they are not taken into the index and do not count as live, so that a bundle of which
 * nothing else is left gets collected. A block lies in a run's range as a whole or not at all. */
#include "bundle_int.h"
#include "clone_int.h"

#include <stdio.h>
#include <stdlib.h>

struct loaded_block {
    struct pindex *p;
    struct block block;
    i64 gap_from; /* offsets from here to the block were compacted away */
};

struct cover { /* of a run */
    const struct pindex *p;
    i64 from, to;
};

struct load {
    struct storage *st;
    struct loaded_block *blocks;
    struct cover *covers; /* sorted before bundles are loaded */
    u32 count, cap;
    u32 cover_count, cover_cap;
    u64 objects;
    struct partition_key *strays; /* k/ keys of clones that were not made in the end */
    u32 stray_count;
};

static err load_error(struct storage *st, struct bytes key, const char *what)
{
    snprintf(st->env->error, sizeof st->env->error,
             "metadata key %.*s: %s; restore the metadata folder from a copy",
             (int)MIN(key.len, 64u), (const char *)key.data, what);
    return ERR_CORRUPT;
}

static void load_push(struct load *l, struct pindex *p, const struct block *b, i64 gap_from)
{
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 256;
        l->blocks = mem_realloc(l->blocks, l->cap * sizeof *l->blocks);
    }
    l->blocks[l->count++] = (struct loaded_block){ p, *b, gap_from };
}

static void cover_push(struct load *l, const struct pindex *p, const struct bundle_reg *reg)
{
    if (l->cover_count == l->cover_cap) {
        l->cover_cap = l->cover_cap ? l->cover_cap * 2 : 64;
        l->covers = mem_realloc(l->covers, l->cover_cap * sizeof *l->covers);
    }
    l->covers[l->cover_count++] = (struct cover){ p, reg->cover_from, reg->cover_to };
}

/* By what they are, not by where they lie in memory: seeds of the simulator can be played again. */
static int partition_compare(const struct pindex *a, const struct pindex *b)
{
    const struct partition_key *x = &a->key, *y = &b->key;
    int c = memcmp(x->topic_id.b, y->topic_id.b, sizeof x->topic_id.b);
    return c != 0 ? c : (x->partition > y->partition) - (x->partition < y->partition);
}

static int cover_compare(const void *x, const void *y)
{
    const struct cover *a = x, *b = y;
    int c = partition_compare(a->p, b->p);
    if (c != 0)
        return c;
    return (a->from > b->from) - (a->from < b->from);
}

/* Does a run stand for the block? One that reaches only into it does not: that can't be, and
 * load_add_all will find that both hold the same offsets. */
static bool covered(const struct load *l, const struct pindex *p, const struct block *b)
{
    u32 lo = 0, hi = l->cover_count;
    while (lo < hi) { /* the first that ends behind the block's begin */
        u32 mid = lo + (hi - lo) / 2;
        const struct cover *c = &l->covers[mid];
        bool before = c->p == p ? c->to <= b->base_offset : partition_compare(c->p, p) < 0;
        if (before)
            lo = mid + 1;
        else
            hi = mid;
    }
    const struct cover *c = lo < l->cover_count ? &l->covers[lo] : NULL;
    return c != NULL && c->p == p && c->from <= b->base_offset && b->last_offset < c->to;
}

/* False: superseded, or below the log start. */
static bool load_block(struct load *l, struct pindex *p, const struct bundle_reg *reg, u32 i,
                       const struct block *b)
{
    if (reg->run) {
        if (i == 0) {
            cover_push(l, p, reg);
            p->clean_end = MAX(p->clean_end, reg->clean_to);
        }
    } else if (covered(l, p, b)) {
        return false;
    }
    if (b->last_offset < p->start_offset)
        return false;
    load_push(l, p, b, reg->run ? reg->cover_from : b->base_offset);
    return true;
}

static err load_reg(struct load *l, const struct meta_kv *kv, u64 *id, struct bundle_reg *reg)
{
    struct storage *st = l->st;
    if (!meta_key_bundle_parse(kv->key, id))
        return load_error(st, kv->key, "not the key of a bundle or run");
    err e = bundle_reg_decode(kv->value, reg);
    if (e == ERR_UNSUPPORTED)
        return load_error(st, kv->key, "written by a newer version: start that one");
    if (e != ERR_NONE || reg->run != object_is_run(*id))
        return load_error(st, kv->key, "fails its checksum");
    return ERR_NONE;
}

static err load_one(void *arg, const struct meta_kv *kv)
{
    struct load *l = arg;
    struct storage *st = l->st;
    u64 id;
    struct bundle_reg reg;
    err e = load_reg(l, kv, &id, &reg);
    if (e != ERR_NONE)
        return e;
    u32 mine = 0, live = 0;
    for (u32 i = 0; i < reg.block_count; i++) {
        struct partition_key key;
        struct block b;
        bundle_reg_get(&reg, i, id, &key, &b);
        if (!st->replaying && storage_shard_of(&key, st->env->shard_count) != st->shard->index)
            continue;
        mine++;
        if (!storage_owns(st, &key))
            continue; /* its topic was deleted */
        live += !reg.retired && load_block(l, pindex_open(st, &key), &reg, i, &b);
    }
    l->objects++;
    bool ours = bundle_wal(id) % st->env->shard_count == st->shard->index;
    if (mine > 0 || (reg.block_count == 0 && ours))
        retention_bundle_add(st, id, &reg, live, mine < reg.block_count);
    return ERR_NONE;
}

/* ---- clones ---- */

static err load_clone_blocks(struct load *l, struct pindex *p, const struct meta_kv *kv)
{
    struct storage *st = l->st;
    struct partition_key origin;
    struct block b;
    u32 count;
    err e = clone_decode(kv->value, &count);
    if (e != ERR_NONE)
        return load_error(st, kv->key,
                          e == ERR_UNSUPPORTED ? "written by a newer version: start that one"
                                               : "fails its checksum");
    for (u32 i = 0; i < count; i++) {
        clone_decode_block(kv->value, i, &origin, &b);
        if (b.last_offset < p->start_offset || covered(l, p, &b))
            continue;
        if (!retention_block_more(st, b.bundle))
            return load_error(st, kv->key, "names an object that is not registered");
        b.origin = origin_of(st, origin.topic_id);
        load_push(l, p, &b, object_is_run(b.bundle) ? 0 : b.base_offset);
    }
    return ERR_NONE;
}

static err load_clone(void *arg, const struct meta_kv *kv)
{
    struct load *l = arg;
    struct storage *st = l->st;
    struct partition_key key;
    if (!meta_key_partition_parse(kv->key, &key))
        return load_error(st, kv->key, "not the key of a clone's partition");
    if (storage_owns(st, &key))
        return load_clone_blocks(l, pindex_open(st, &key), kv);
    bool mine = storage_shard_of(&key, st->env->shard_count) == st->shard->index;
    if (!mine || st->replaying || storage_readonly(st))
        return ERR_NONE;
    l->strays = mem_realloc(l->strays, (l->stray_count + 1) * sizeof *l->strays);
    l->strays[l->stray_count++] = key;
    return ERR_NONE;
}

/* They cost their bytes only, so a failure does not matter: the next start tries it again. */
static void strays_delete(const struct load *l)
{
    u32 count = 2 * l->stray_count;
    if (count == 0)
        return;
    struct meta_op *ops = mem_alloc(count * sizeof *ops);
    char(*keys)[META_KEY_SIZE] = mem_alloc(count * sizeof *keys);
    for (u32 i = 0; i < count; i++)
        ops[i] = (struct meta_op){ META_DELETE,
                                   meta_key_partition(keys[i], "kp"[i % 2], &l -> strays[i / 2]),
                                   { NULL, 0 } };
    struct meta_txn t = { NULL, ops, 0, count };
    err e = meta_commit(l->st->env->meta, &t);
    LOG(INFO, clone_keys_deleted, "shard=%u partitions=%u error=%s", l->st->shard->index,
        l->stray_count, err_name(e));
    mem_free(ops);
    mem_free(keys);
}

static int loaded_compare(const void *x, const void *y)
{
    const struct loaded_block *a = x, *b = y;
    int c = partition_compare(a->p, b->p);
    if (c != 0)
        return c;
    if (a->block.base_offset != b->block.base_offset)
        return a->block.base_offset < b->block.base_offset ? -1 : 1;
    return 0;
}

/* WALs of several shard counts hold parts of one partition: the key order is not the offset
 * order. */
static err load_add_all(struct load *l)
{
    struct storage *st = l->st;
    if (l->count > 0)
        qsort(l->blocks, l->count, sizeof *l->blocks, loaded_compare);
    for (u32 i = 0; i < l->count; i++) {
        struct pindex *p = l->blocks[i].p;
        const struct block *b = &l->blocks[i].block;
        bool first = i == 0 || l->blocks[i - 1].p != p;
        i64 expected = first ? MAX(p->start_offset, 0) : l->blocks[i - 1].block.last_offset + 1;
        if (!first && b->base_offset < expected) {
            snprintf(st->env->error, sizeof st->env->error,
                     "two registered objects hold offset %" PRId64 " of partition %u: %04x/%" PRIx64
                     "; restore the metadata folder from a copy",
                     b->base_offset, p->key.partition, bundle_wal(b->bundle),
                     bundle_seq(b->bundle));
            return ERR_CORRUPT;
        }
        if (l->blocks[i].gap_from > expected)
            LOG(ERROR, index_gap,
                "shard=%u partition=%u from_offset=%" PRId64 " to_offset=%" PRId64
                " effect=\"no registered bundle holds these offsets\"",
                st->shard->index, p->key.partition, expected, b->base_offset);
        pindex_add_block(p, b);
    }
    return ERR_NONE;
}

err uploader_load(struct storage *st)
{
    struct load l = { .st = st };
    st->env->error[0] = '\0';
    err e = meta_range(st->env->meta, bytes_str("r/"), load_one, &l);
    if (l.cover_count > 0)
        qsort(l.covers, l.cover_count, sizeof *l.covers, cover_compare);
    if (e == ERR_NONE)
        e = meta_range(st->env->meta, bytes_str("b/"), load_one, &l);
    if (e == ERR_NONE)
        e = meta_range(st->env->meta, bytes_str("k/"), load_clone, &l);
    if (e == ERR_NONE)
        e = load_add_all(&l);
    if (e != ERR_NONE && st->env->error[0] == '\0')
        snprintf(st->env->error, sizeof st->env->error,
                 "the registrations of objects can't be read: %s; check the metadata folder and "
                 "the disk",
                 err_text(e));
    if (e == ERR_NONE && l.objects > 0)
        LOG(INFO, bundles_loaded, "shard=%u objects=%" PRIu64 " runs=%u blocks=%u",
            st->shard->index, l.objects, l.cover_count, l.count);
    if (e == ERR_NONE)
        strays_delete(&l);
    mem_free(l.blocks);
    mem_free(l.covers);
    mem_free(l.strays);
    return e;
}
