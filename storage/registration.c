/* The registration of uploads: one metadata transaction, and what the index learns when it is
 * durable.
 *
 *   w/<wal>        all segments below this are registered; on condition of this life's epoch
 *   b/… and r/…    each object with the blocks of it that somebody still wants; on condition that
 *                  the key is absent. Of an object without any: d/…, so that it is collected
 *   s/…            of each partition the newest snapshot that was taken with these segments
 *
 *  1. What is wanted is looked up twice: when the transaction is built, and when it is durable.
 *     What went in between is registered; its blocks do not enter the index, nor count as live.
 *  2. All bytes of the transaction are in the arenas of the uploads, which live until it is done: a
 *     partition may be dropped meanwhile.
 */
#include "plant.h"
#include "uploader_int.h"

/* The partition of an entry, if its block is still wanted. */
static struct pindex *entry_partition(struct storage *st, const struct bundle_entry *e)
{
    struct pindex *p = pindex_find(st, &e->key);
    return p != NULL && e->last_offset >= p->start_offset ? p : NULL;
}

/* With the entries that are registered. */
static struct bundle_reg reg_of(const struct storage *st, const struct upload_object *o)
{
    const struct bundle_builder *b = &o->builder;
    struct bundle_reg reg = { .epoch = b->epoch,
                              .object_bytes = b->bytes,
                              .created_ms = st->shard->now_ms,
                              .run = object_is_run(o->id) };
    for (u32 i = 0; i < b->entry_count; i++) {
        if (!o->registered[i])
            continue;
        if (reg.block_count++ == 0 && reg.run)
            reg.cover_from = b->entries[i].base_offset;
        if (reg.run)
            reg.cover_to = b->entries[i].last_offset + 1;
    }
    return reg;
}

/* The b/ or r/ value with the blocks that are still wanted; no data when there are none. */
static struct bytes object_value(struct upload *u, struct upload_object *o)
{
    const struct bundle_builder *b = &o->builder;
    o->registered = mem_realloc(o->registered, b->entry_count);
    for (u32 i = 0; i < b->entry_count; i++)
        o->registered[i] = entry_partition(u->st, &b->entries[i]) != NULL;
    struct bundle_reg reg = reg_of(u->st, o);
    if (reg.block_count == 0)
        return (struct bytes){ NULL, 0 };
    u8 *raw;
    struct bytes value = bundle_reg_begin(&u->arena, &reg, &raw);
    CHECK(raw != NULL); /* REGISTRATION_BYTES_MAX is far above an upload's worth of blocks */
    u32 n = 0;
    for (u32 i = 0; i < b->entry_count; i++) {
        struct block block = bundle_entry_block(o->id, &b->entries[i]);
        if (o->registered[i])
            bundle_reg_set(raw, n++, &b->entries[i].key, &block);
    }
    bundle_reg_end(raw, value.len);
    return value;
}

static void add(struct meta_txn *t, struct arena *a, struct bytes key, struct bytes value)
{
    t->ops[t->op_count++] = (struct meta_op){ META_PUT, arena_copy(a, key), value };
}

static void add_object(struct upload *u, struct upload_object *o, struct meta_txn *t)
{
    char buf[META_KEY_SIZE];
    struct bytes value = object_value(u, o);
    if (value.data == NULL) {
        struct discarded object = { o->id, o->builder.epoch, o->builder.bytes,
                                    discard_now_ms(u->st) };
        t->ops[t->op_count++] = discard_op(&o->note, &object);
        return;
    }
    if (PLANTED(PLANT_UPLOAD_LEAVES_RUNS) && o != u->objects)
        return;
    add(t, &u->arena, meta_key_bundle(buf, o->id), value);
    t->compares[t->compare_count++] =
        (struct meta_compare){ .key = t->ops[t->op_count - 1].key, .revision = 0 };
}

/* Those taken with the segment but those that a newer one of the same transaction replaces. */
static void add_snapshots(struct upload *u, const struct segment *seg, struct meta_txn *t)
{
    struct storage *st = u->st;
    char buf[META_KEY_SIZE];
    for (u32 i = 0; i < seg->snap_count; i++) {
        const struct segment_snapshot *s = &seg->snaps[i];
        if (s->p == NULL || s->p->snap_txn == st->registration_number)
            continue; /* dropped, or there is a newer one */
        s->p->snap_txn = st->registration_number;
        /* A copy: a drop may free the partition, and the segment its arena, before the job ran. */
        add(t, &u->arena, meta_key_partition(buf, 's', &s->p->key),
            arena_copy(&u->arena, s->value));
    }
}

static u32 upload_ops(const struct upload *u)
{
    u32 n = u->object_count;
    for (u32 i = 0; i < u->seg_count; i++)
        n += u->segs[i]->snap_count;
    return n;
}

void registration_build(struct storage *st, struct upload **v, u32 count)
{
    struct arena *a = &v[0]->arena;
    const struct upload *last = v[count - 1];
    u64 end_seq = last->segs[last->seg_count - 1]->seq + 1;
    u32 ops = 1, objects = 0;
    for (u32 i = 0; i < count; i++) {
        arena_reset(&v[i]->arena);
        ops += upload_ops(v[i]);
        objects += v[i]->object_count;
    }
    struct meta_txn *t = &v[0]->txn;
    *t = (struct meta_txn){ .compares = arena_alloc(a, (objects + 1) * sizeof *t->compares),
                            .ops = arena_alloc(a, ops * sizeof *t->ops) };
    CHECK(t->compares != NULL && t->ops != NULL);
    char buf[META_KEY_SIZE];
    add(t, a, meta_key_wal(buf, st->wal.index), wal_meta_value(&st->wal, end_seq, false, a));
    t->compares[t->compare_count++] = (struct meta_compare){ .key = t->ops[0].key };
    st->registration_number++;
    for (u32 i = count; i-- > 0;) {
        for (u32 k = 0; k < v[i]->object_count; k++)
            add_object(v[i], &v[i]->objects[k], t);
        for (u32 k = v[i]->seg_count; k-- > 0;)
            add_snapshots(v[i], v[i]->segs[k], t);
    }
}

/* ---- it is durable ---- */

/* Its blocks enter the index. */
static void apply_object(struct storage *st, struct upload_object *o)
{
    const struct bundle_builder *b = &o->builder;
    struct bundle_reg reg = reg_of(st, o);
    u32 live = 0;
    for (u32 i = 0; i < b->entry_count; i++) {
        /* What was dropped or deleted during the commit is registered, but nobody will say it is
         * gone. */
        o->registered[i] &= entry_partition(st, &b->entries[i]) != NULL;
        live += o->registered[i];
    }
    if (reg.block_count > 0)
        retention_bundle_add(st, o->id, &reg, live, false);
    for (u32 i = 0; i < b->entry_count; i++) {
        struct block block = bundle_entry_block(o->id, &b->entries[i]);
        if (o->registered[i])
            pindex_add_block(pindex_find(st, &b->entries[i].key), &block);
    }
}

void registration_apply(struct upload *u)
{
    for (u32 i = 0; i < u->object_count; i++)
        apply_object(u->st, &u->objects[i]);
}
