/* See clone.h.
 *
 * Value of k/<topic id>/<partition>, little-endian: u8 version 1 · 3 bytes 0 · u32 blocks, n ·
 * u64 XXH3-64 of the value, with this field 0 · n × { u64 object · the block as in a registration
 * (bundle.c), whose topic id is the one in the object }.
 *
 * A block of a clone carries its `origin`: the topic whose id its header in the object has. Blocks
 * that the clone rewrites (compaction) become its own. */
#include "clone.h"

#include "bundle_int.h"
#include "clone_int.h"
#include "hash.h"
#include "plant.h"

#define CLONE_VERSION 1u
#define CLONE_HEAD_BYTES 16u
#define CLONE_BLOCK_BYTES (8u + BUNDLE_REG_BLOCK_BYTES)
#define CLONE_BYTES_MAX ((u64)512 * MIB)

struct clone_block {
    struct uuid origin;
    struct block block;
};

/* ---- origins: a block knows its topic by a small number ---- */

u32 origin_of(struct storage *st, struct uuid topic_id)
{
    for (u32 i = 0; i < st->origin_count; i++)
        if (uuid_eq(st->origins[i], topic_id))
            return i + 1;
    st->origins = mem_realloc(st->origins, (st->origin_count + 1) * sizeof *st->origins);
    st->origins[st->origin_count++] = topic_id;
    return st->origin_count;
}

struct partition_key block_key(const struct pindex *p, const struct block *b)
{
    struct partition_key key = p->key;
    CHECK(b->origin <= p->st->origin_count);
    if (b->origin > 0)
        key.topic_id = p->st->origins[b->origin - 1];
    return key;
}

struct uuid clone_topic_id(struct uuid source, struct rng *rng)
{
    struct uuid id = rng_uuid(rng);
    memcpy(id.b, source.b, STORAGE_FAMILY_BYTES);
    return id;
}

/* ---- gathering ---- */

void clone_seal(struct storage *st)
{
    if (st->wal.open != NULL && st->wal.open->data_bytes > 0)
        wal_seal(st);
}

i64 clone_shared_end(struct storage *st, const struct partition_key *source)
{
    const struct pindex *p = pindex_find(st, source);
    return p == NULL ? -1 : MAX(p->registered_end, p->start_offset);
}

u64 clone_index_bytes(const struct clone_part *part)
{
    return part->count * sizeof(struct block);
}

static bool block_fits(const struct clone_part *part, const struct block *b)
{
    return b->last_offset < part->end_offset;
}

err clone_gather(struct storage *st, struct clone_part *part, u64 more)
{
    const struct pindex *p = pindex_find(st, &part->source);
    if (p == NULL)
        return ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (p->swaps > 0)
        return ERR_BUSY;
    u32 n = 0;
    while (p->block_head + n < p->block_end && block_fits(part, &p->blocks[p->block_head + n]))
        n++;
    if (!index_fits(st, more + n * sizeof *p->blocks))
        return ERR_NO_MEMORY;
    part->start = part->end = p->start_offset;
    part->leader_epoch = p->leader_epoch;
    part->count = n;
    part->bytes = 0;
    part->blocks = mem_alloc((n + 1) * sizeof *part->blocks);
    for (u32 i = 0; i < n; i++) {
        const struct block *b = &p->blocks[p->block_head + i];
        part->blocks[i] = (struct clone_block){ block_key(p, b).topic_id, *b };
        part->bytes += b->data_bytes;
        part->end = b->last_offset + 1;
        if (!PLANTED(PLANT_CLONE_UNCOUNTED) && !retention_block_more(st, b->bundle))
            CHECK(!"a live block's object is known");
    }
    return ERR_NONE;
}

void clone_release(struct storage *st, struct clone_part *part)
{
    for (u32 i = 0; i < part->count; i++)
        retention_block_gone(st, part->blocks[i].block.bundle);
    part->count = 0;
}

void clone_install(struct storage *st, struct clone_part *part, bool object)
{
    struct pindex *p = pindex_open(st, &part->target);
    CHECK(p->block_head == p->block_end && p->next_offset == 0);
    pindex_set_object(p, object);
    p->leader_epoch = part->leader_epoch;
    p->start_offset = p->start_target = p->durable_offset = p->next_offset = part->start;
    for (u32 i = 0; i < part->count; i++) {
        struct block b = part->blocks[i].block;
        b.origin = origin_of(st, part->blocks[i].origin);
        pindex_add_block(p, &b);
    }
    part->count = 0;
}

void clone_free(struct clone_part *part)
{
    mem_free(part->blocks);
    part->blocks = NULL;
}

/* ---- the keys ---- */

static struct bytes clone_value(const struct clone_part *part, struct arena *a)
{
    u32 len = CLONE_HEAD_BYTES + part->count * CLONE_BLOCK_BYTES;
    u8 *raw = arena_alloc(a, len);
    if (raw == NULL)
        return (struct bytes){ NULL, 0 };
    memset(raw, 0, CLONE_HEAD_BYTES);
    raw[0] = CLONE_VERSION;
    put_le32(raw + 4, part->count);
    for (u32 i = 0; i < part->count; i++) {
        const struct clone_block *c = &part->blocks[i];
        struct partition_key key = { c->origin, part->source.partition };
        u8 *at = raw + CLONE_HEAD_BYTES + i * CLONE_BLOCK_BYTES;
        put_le64(at, c->block.bundle);
        bundle_reg_block_put(at + 8, &key, &c->block);
    }
    put_le64(raw + 8, hash_bytes(raw, len));
    return bytes_of(raw, len);
}

err clone_write(struct meta *m, const struct clone_part *parts, u32 count)
{
    struct arena a;
    arena_init(&a, 64 * KIB, CLONE_BYTES_MAX);
    struct meta_op *ops = mem_alloc(2 * count * sizeof *ops);
    char(*keys)[META_KEY_SIZE] = mem_alloc(2 * count * sizeof *keys);
    u8(*starts)[PART_META_BYTES] = mem_alloc(count * sizeof *starts);
    struct meta_txn t = { NULL, ops, 0, 2 * count };
    err e = ERR_NONE;
    for (u32 i = 0; i < count && e == ERR_NONE; i++) {
        struct bytes value = clone_value(&parts[i], &a);
        e = value.data == NULL ? ERR_NO_MEMORY : ERR_NONE;
        part_meta_encode(starts[i], parts[i].leader_epoch, parts[i].start);
        ops[2 * i] =
            (struct meta_op){ META_PUT, meta_key_partition(keys[2 * i], 'k', &parts[i].target),
                              value };
        ops[2 * i + 1] =
            (struct meta_op){ META_PUT, meta_key_partition(keys[2 * i + 1], 'p', &parts[i].target),
                              bytes_of(starts[i], PART_META_BYTES) };
    }
    if (e == ERR_NONE)
        e = meta_commit(m, &t);
    mem_free(ops);
    mem_free(keys);
    mem_free(starts);
    arena_free(&a);
    return e;
}

err clone_decode(struct bytes value, u32 *count)
{
    if (value.len < CLONE_HEAD_BYTES)
        return ERR_CORRUPT;
    if (value.data[0] > CLONE_VERSION)
        return ERR_UNSUPPORTED;
    *count = get_le32(value.data + 4);
    if (value.data[0] != CLONE_VERSION ||
        value.len != CLONE_HEAD_BYTES + (u64)*count * CLONE_BLOCK_BYTES)
        return ERR_CORRUPT;
    static const u8 zeros[8];
    struct hash_stream h;
    hash_stream_init(&h, 0);
    hash_stream_update(&h, value.data, 8);
    hash_stream_update(&h, zeros, sizeof zeros);
    hash_stream_update(&h, value.data + CLONE_HEAD_BYTES, value.len - CLONE_HEAD_BYTES);
    return hash_stream_value(&h) == get_le64(value.data + 8) ? ERR_NONE : ERR_CORRUPT;
}

err clone_decode_kv(const struct meta_kv *kv, struct partition_key *key, u32 *count)
{
    bool good =
        meta_key_partition_parse(kv->key, key) && clone_decode(kv->value, count) == ERR_NONE;
    return good ? ERR_NONE : ERR_CORRUPT;
}

void clone_decode_block(struct bytes value, u32 i, struct partition_key *origin, struct block *b)
{
    const u8 *at = value.data + CLONE_HEAD_BYTES + i * CLONE_BLOCK_BYTES;
    bundle_reg_block_get(at + 8, get_le64(at), origin, b);
}

struct bytes clone_value_without(struct bytes value, bool (*gone)(void *arg, u64 object), void *arg,
                                 struct arena *a)
{
    u8 *raw = arena_alloc(a, value.len);
    if (raw == NULL)
        return (struct bytes){ NULL, 0 };
    memcpy(raw, value.data, value.len);
    u32 count = get_le32(value.data + 4), n = 0;
    for (u32 i = 0; i < count; i++) {
        u8 *at = raw + CLONE_HEAD_BYTES + i * CLONE_BLOCK_BYTES;
        if (!gone(arg, get_le64(at)))
            memmove(raw + CLONE_HEAD_BYTES + n++ * CLONE_BLOCK_BYTES, at, CLONE_BLOCK_BYTES);
    }
    u32 len = CLONE_HEAD_BYTES + n * CLONE_BLOCK_BYTES;
    put_le32(raw + 4, n);
    put_le64(raw + 8, 0);
    put_le64(raw + 8, hash_bytes(raw, len));
    return bytes_of(raw, len);
}
