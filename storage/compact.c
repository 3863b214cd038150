/* Key compaction as Kafka's log cleaner does it: which records of a partition stay.
 *
 * A round has two passes. The first puts the keys of the dirty part (from where the last round
 * ended to map_end) into a map, key → newest offset. The second filters everything below map_end,
 * ascending:
 *
 *   record older than the map says                     goes
 *   record without a key                               goes (Kafka's rule; such topics were not
 *                                                      compacted before)
 *   tombstone, newest, batch has a delete horizon      goes from that time on
 *   anything else                                      stays
 *
 *  1. A tombstone goes only when nothing older with its key is left. The round that meets it first
 *     takes those away and writes the batch's delete horizon (now + delete.retention.ms, KIP-534:
 *     it stands in the base timestamp, attribute bit 6); a later round takes the tombstone. Because
 *     pieces are rewritten in ascending order, older ones are gone for good by then, wherever a
 *     round was cut short.
 *  2. A batch keeps its offset range, producer, sequence, codec and timestamps; only records leave.
 *     One that is left empty goes, unless it ends the range that is rewritten: then it stays
 *     without records, so that the partition's end is known.
 *  3. Control batches stay as they are. Records of transactions do not enter the map, since they
 *     may have been aborted: they supersede nothing, and their tombstones stay. They go when a
 *     record outside of transactions with their key is newer, which holds for either outcome.
 *  4. Kafka also keeps the last batch of each producer, because it rebuilds producers from the
 *     log. Here their state is in the s/ key of the partition: nothing needs to be kept.
 *
 * Keys are told apart by 128 bits of XXH3 under a seed that is new for every round: equal hashes of
 * different keys would lose one of them, and nobody can look for such a pair without the seed.
 */
#include "compact_int.h"

#include "plant.h"

/* ---- the map ---- */

/* Of a full table; beyond it probing gets slow. Kafka's log.cleaner.io.buffer.load.factor. */
#define MAP_LOAD_PERCENT 90u
#define MAP_SLOTS_MIN 16u

err key_map_init(struct key_map *m, u64 bytes, u64 keys_max, u64 seed)
{
    u64 wanted = keys_max + keys_max / 4 + MAP_SLOTS_MIN;
    u64 slots = MAX(MIN(bytes / sizeof(struct key_slot), wanted), MAP_SLOTS_MIN);
    *m = (struct key_map){ .slot_count = slots,
                           .used_max = slots * MAP_LOAD_PERCENT / 100,
                           .seed = seed };
    m->slots = mem_map(slots * sizeof *m->slots, false);
    return m->slots != NULL ? ERR_NONE : ERR_NO_MEMORY;
}

void key_map_free(struct key_map *m)
{
    if (m->slots != NULL)
        mem_unmap(m->slots, m->slot_count * sizeof *m->slots);
    m->slots = NULL;
}

/* The key's slot, or the free one where it would go. There is always a free one. */
static struct key_slot *slot_of(const struct key_map *m, struct bytes key, struct hash128 *hash)
{
    *hash = hash_bytes_128(key.data, key.len, m->seed);
    u64 i = hash->lo % m->slot_count;
    for (;;) {
        struct key_slot *s = &m->slots[i];
        if (s->offset_after == 0 || (s->key.lo == hash->lo && s->key.hi == hash->hi))
            return s;
        i = i + 1 < m->slot_count ? i + 1 : 0;
    }
}

bool key_map_put(struct key_map *m, struct bytes key, i64 offset)
{
    CHECK(offset >= 0 && offset < INT64_MAX);
    struct hash128 hash;
    struct key_slot *s = slot_of(m, key, &hash);
    if (s->offset_after == 0) {
        if (m->used == m->used_max)
            return false;
        m->used++;
        s->key = hash;
    }
    s->offset_after = MAX(s->offset_after, offset + 1);
    return true;
}

i64 key_map_get(const struct key_map *m, struct bytes key)
{
    struct hash128 hash;
    return slot_of(m, key, &hash)->offset_after - 1;
}

/* ---- a round ---- */

static err compaction_batch(struct rewrite_filter *f, const struct batch *b, bool keep,
                            struct bytes *out);

void compaction_init(struct compaction *c, i64 dirty_start, i64 now_ms, i64 delete_retention_ms)
{
    *c = (struct compaction){ .filter = { compaction_batch },
                              .map_end = dirty_start,
                              .now_ms = now_ms,
                              .delete_retention_ms = delete_retention_ms };
    c->compressor = compressor_new();
    batch_builder_init(&c->builder, (u32)GIB);
}

void compaction_free(struct compaction *c)
{
    key_map_free(&c->map);
    batch_builder_free(&c->builder);
    compressor_free(c->compressor);
    c->compressor = NULL;
}

/* ---- first pass ---- */

static err decode(struct compaction *c, const struct batch *b, struct record_iter *it)
{
    struct bytes plain;
    if (b->record_count == 0) {
        *it = (struct record_iter){ .left = 0 };
        return ERR_NONE;
    }
    err e = batch_decode(c->compressor, b, BATCH_DECODED_BYTES_MAX, &plain);
    if (e == ERR_NONE)
        record_iter_init(it, b, plain);
    return e == ERR_NONE ? ERR_NONE : ERR_CORRUPT;
}

/* The next record; ERR_NOT_FOUND behind the last. Offsets ascend within the batch's range: the
 * leader saw to that, so anything else is damage. `last` is the delta before, -1 at first. */
static err next_record(struct record_iter *it, const struct batch *b, struct record *r, i32 *last)
{
    err e = record_next(it, r);
    if (e == ERR_NOT_FOUND)
        return e;
    if (e != ERR_NONE || r->offset_delta <= *last || r->offset_delta > b->last_offset_delta)
        return ERR_CORRUPT;
    *last = r->offset_delta;
    return ERR_NONE;
}

static err map_batch(struct compaction *c, const struct batch *b)
{
    struct record_iter it;
    struct record r;
    i32 last = -1;
    err e = decode(c, b, &it);
    if (e != ERR_NONE)
        return e;
    while ((e = next_record(&it, b, &r, &last)) == ERR_NONE) {
        if (r.offset < c->map_end || r.key.data == NULL)
            continue;
        if (!key_map_put(&c->map, r.key, r.offset)) {
            c->map_end = r.offset;
            return ERR_BUSY;
        }
    }
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

err compaction_map(struct compaction *c, struct bytes data)
{
    struct batch b;
    while (data.len > 0) {
        if (batch_next(&data, &b) != ERR_NONE || b.base_offset < 0 ||
            b.base_offset > INT64_MAX - 1 - b.last_offset_delta)
            return ERR_CORRUPT;
        if (batch_last_offset(&b) < c->map_end)
            continue;
        err e = ERR_NONE;
        if (!batch_is_control(&b) && !batch_is_transactional(&b))
            e = map_batch(c, &b);
        if (e != ERR_NONE)
            return e;
        c->map_end = batch_last_offset(&b) + 1;
    }
    return ERR_NONE;
}

/* ---- second pass ---- */

static bool horizon_passed(const struct compaction *c, const struct batch *b)
{
    return batch_has_delete_horizon(b) && c->now_ms >= b->base_timestamp;
}

static bool record_stays(const struct compaction *c, const struct batch *b, const struct record *r)
{
    if (r->offset >= c->map_end)
        return true;
    if (PLANTED(PLANT_CLEAN_DROPS_LAST) && r->offset == c->map_end - 1)
        return false;
    if (r->key.data == NULL || r->offset < key_map_get(&c->map, r->key))
        return false;
    return r->value.data != NULL || batch_is_transactional(b) || !horizon_passed(c, b);
}

/* What is found about a batch before anything is built: most stay as they are. */
struct verdict {
    u32 stay, go;
    bool tombstones; /* among those that stay, which get a horizon */
};

static err batch_judge(struct compaction *c, const struct batch *b, struct verdict *v)
{
    struct record_iter it;
    struct record r;
    i32 last = -1;
    *v = (struct verdict){ 0 };
    err e = decode(c, b, &it);
    if (e != ERR_NONE)
        return e;
    while ((e = next_record(&it, b, &r, &last)) == ERR_NONE) {
        bool stays = record_stays(c, b, &r);
        v->stay += stays;
        v->go += !stays;
        v->tombstones |= stays && r.value.data == NULL && r.offset < c->map_end;
    }
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

/* From when on tombstones may go that are seen now. "Never" is a long retention. */
static i64 horizon_from_now(const struct compaction *c)
{
    i64 room = INT64_MAX - MAX(c->now_ms, 0);
    return c->now_ms + MIN(c->delete_retention_ms, room);
}

static err batch_shrink(struct compaction *c, const struct batch *b, bool set_horizon,
                        struct bytes *out)
{
    struct record_iter it;
    struct record r;
    struct batch_builder *bb = &c->builder;
    batch_builder_reset(bb);
    batch_builder_like(bb, b);
    if (batch_has_delete_horizon(b))
        batch_builder_set_horizon(bb, b->base_timestamp);
    else if (set_horizon)
        batch_builder_set_horizon(bb, horizon_from_now(c));
    err e = decode(c, b, &it);
    if (e != ERR_NONE)
        return e;
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (!record_stays(c, b, &r))
            continue;
        e = batch_builder_keep(bb, &r);
        if (e != ERR_NONE)
            return e;
    }
    if (e != ERR_NOT_FOUND)
        return ERR_CORRUPT;
    batch_builder_end_at(bb, b->last_offset_delta);
    return batch_builder_finish(bb, c->compressor, out);
}

/* No records, the same offsets and sequences. Without a timestamp, because no record has one. */
static err batch_empty(struct compaction *c, const struct batch *b, struct bytes *out)
{
    batch_builder_reset(&c->builder);
    batch_builder_like(&c->builder, b);
    batch_builder_end_at(&c->builder, b->last_offset_delta);
    return batch_builder_finish(&c->builder, c->compressor, out);
}

static err compaction_batch(struct rewrite_filter *f, const struct batch *b, bool keep,
                            struct bytes *out)
{
    struct compaction *c = container_of(f, struct compaction, filter);
    *out = bytes_of(b->data, b->bytes);
    if (batch_is_control(b) || b->base_offset >= c->map_end)
        return ERR_NONE;
    struct verdict v;
    err e = batch_judge(c, b, &v);
    if (e != ERR_NONE)
        return e;
    c->records += (u64)v.stay + v.go;
    c->records_removed += v.go;
    bool set_horizon = v.tombstones && !batch_has_delete_horizon(b) && !batch_is_transactional(b);
    if (v.stay > 0)
        return v.go > 0 || set_horizon ? batch_shrink(c, b, set_horizon, out) : ERR_NONE;
    if (!keep)
        *out = (struct bytes){ NULL, 0 };
    else if (v.go > 0)
        return batch_empty(c, b, out);
    return ERR_NONE; /* kept, and empty already */
}
