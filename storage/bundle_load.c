/* Start-up: bundle registrations from the metadata into the indexes of this shard's partitions,
 * and blocking reads of single blocks. No object is read to start. */
#include "bundle_int.h"

#include <stdio.h>
#include <stdlib.h>

struct loaded_block {
    struct pindex *p;
    struct block block;
};

struct load {
    struct storage *st;
    struct loaded_block *blocks;
    u32 count, cap;
    u64 bundles;
};

static err load_error(struct storage *st, struct bytes key, const char *what)
{
    snprintf(st->env->error, sizeof st->env->error,
             "metadata key %.*s: %s; restore the metadata folder from a copy",
             (int)MIN(key.len, 64u), (const char *)key.data, what);
    return ERR_CORRUPT;
}

static void load_push(struct load *l, struct pindex *p, const struct block *b)
{
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 256;
        l->blocks = mem_realloc(l->blocks, l->cap * sizeof *l->blocks);
    }
    l->blocks[l->count++] = (struct loaded_block){ p, *b };
}

static err load_one(void *arg, const struct meta_kv *kv)
{
    struct load *l = arg;
    struct storage *st = l->st;
    u64 id;
    struct bundle_reg reg;
    if (!meta_key_bundle_parse(kv->key, &id))
        return load_error(st, kv->key, "not the key of a bundle");
    err e = bundle_reg_decode(kv->value, &reg);
    if (e == ERR_UNSUPPORTED)
        return load_error(st, kv->key, "written by a newer version: start that one");
    if (e != ERR_NONE)
        return load_error(st, kv->key, "fails its checksum");
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
        struct pindex *p = pindex_open(st, &key);
        if (b.last_offset < p->start_offset)
            continue;
        load_push(l, p, &b);
        live++;
    }
    l->bundles++;
    bool ours = bundle_wal(id) % st->env->shard_count == st->shard->index;
    if (mine > 0 || (reg.block_count == 0 && ours))
        retention_bundle_add(st, id, &reg, live, mine < reg.block_count);
    return ERR_NONE;
}

static int loaded_compare(const void *x, const void *y)
{
    const struct loaded_block *a = x, *b = y;
    if (a->p != b->p)
        return (uintptr_t)a->p < (uintptr_t)b->p ? -1 : 1;
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
                     "two registered bundles hold offset %" PRId64
                     " of partition %u: bundle %04x/%" PRIx64
                     "; restore the metadata folder from a copy",
                     b->base_offset, p->key.partition, bundle_wal(b->bundle),
                     bundle_seq(b->bundle));
            return ERR_CORRUPT;
        }
        if (b->base_offset > expected)
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
    err e = meta_range(st->env->meta, bytes_str("b/"), load_one, &l);
    if (e == ERR_NONE)
        e = load_add_all(&l);
    if (e != ERR_NONE && st->env->error[0] == '\0')
        snprintf(st->env->error, sizeof st->env->error,
                 "the registrations of bundles can't be read: %s; check the metadata folder and "
                 "the disk",
                 err_text(e));
    if (e == ERR_NONE && l.bundles > 0)
        LOG(INFO, bundles_loaded, "shard=%u bundles=%" PRIu64 " blocks=%u", st->shard->index,
            l.bundles, l.count);
    mem_free(l.blocks);
    return e;
}
