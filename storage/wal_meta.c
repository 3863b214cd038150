/* The w/ key of a write-ahead log: which segments are not registered, the epochs of the lives that
 * wrote it, and by them the fence between lives.
 *
 * Every transaction that makes something part of the log (a start, a registration, a run, the mark
 * of a clean stop) holds only if the newest epoch in the key is the writer's own and the key does
 * not change meanwhile. An epoch is begun by such a transaction, too, so two lives never have the
 * same, and one that was followed by another can register nothing any more, however late it wakes
 * up. Its objects carry its epoch in their names: nobody reads them, and they are collected.
 */
#include "storage_int.h"

#define WAL_META_HEAD_BYTES 40u
#define WAL_META_EPOCH_BYTES 24u
#define WAL_META_CLEAN 1u
#define WAL_META_MEMORY 2u

struct bytes wal_meta_value(const struct wal *w, u64 first_unregistered, bool clean,
                            struct arena *a)
{
    u32 skip = 0;
    while (skip + 1 < w->epoch_count &&
           w->epochs[skip].end_lsn <= first_unregistered * w->segment_bytes)
        skip++;
    u32 count = w->epoch_count - skip;
    u32 len = WAL_META_HEAD_BYTES + count * WAL_META_EPOCH_BYTES;
    u8 *v = arena_alloc(a, len);
    CHECK(v != NULL);
    v[0] = 1;
    v[1] = (u8)((clean ? WAL_META_CLEAN : 0) | (w->memory ? WAL_META_MEMORY : 0));
    put_le32(v + 4, w->segment_bytes);
    memcpy(v + 8, w->super.uuid.b, 16);
    put_le64(v + 24, first_unregistered);
    put_le32(v + 32, count);
    u8 *at = v + WAL_META_HEAD_BYTES;
    for (u32 i = skip; i < w->epoch_count; i++, at += WAL_META_EPOCH_BYTES) {
        put_le32(at, w->epochs[i].epoch);
        put_le64(at + 8, w->epochs[i].first_seq);
        put_le64(at + 16, w->epochs[i].end_lsn);
    }
    return bytes_of(v, len);
}

/* The value has no checksum of its own; what would lead the recovery astray is refused: positions
 * that wrap around, epochs that overlap, a clean end before the last epoch began. */
static bool wal_meta_sound(const struct wal_meta *m)
{
    u64 seq_max = UINT64_MAX / 4 / m->segment_bytes;
    const struct wal_epoch *last = &m->epochs[m->epoch_count - 1];
    if (m->segment_bytes > GIB || m->first_unregistered > seq_max || last->first_seq > seq_max ||
        last->epoch > UINT32_MAX - 2 || (m->clean && last->first_seq > m->first_unregistered))
        return false;
    for (u32 i = 0; i + 1 < m->epoch_count; i++) {
        const struct wal_epoch *ep = &m->epochs[i], *next = &m->epochs[i + 1];
        if (next->first_seq <= ep->first_seq || next->epoch <= ep->epoch ||
            ep->end_lsn > next->first_seq * m->segment_bytes)
            return false;
    }
    return true;
}

bool wal_meta_parse(struct bytes b, struct arena *a, struct wal_meta *out)
{
    if (b.len < WAL_META_HEAD_BYTES || b.data[0] != 1)
        return false;
    *out = (struct wal_meta){
        .clean = b.data[1] & WAL_META_CLEAN,
        .memory = b.data[1] & WAL_META_MEMORY,
        .segment_bytes = get_le32(b.data + 4),
        .first_unregistered = get_le64(b.data + 24),
        .epoch_count = get_le32(b.data + 32),
    };
    memcpy(out->uuid.b, b.data + 8, 16);
    u64 want = WAL_META_HEAD_BYTES + (u64)out->epoch_count * WAL_META_EPOCH_BYTES;
    if (want != b.len || out->epoch_count == 0 || out->segment_bytes == 0)
        return false;
    out->epochs = arena_alloc(a, out->epoch_count * sizeof(struct wal_epoch));
    CHECK(out->epochs != NULL);
    const u8 *at = b.data + WAL_META_HEAD_BYTES;
    for (u32 i = 0; i < out->epoch_count; i++, at += WAL_META_EPOCH_BYTES)
        out->epochs[i] = (struct wal_epoch){ get_le32(at), get_le64(at + 8), get_le64(at + 16) };
    return wal_meta_sound(out);
}

u32 wal_meta_epoch(struct bytes b)
{
    if (b.len < WAL_META_HEAD_BYTES + WAL_META_EPOCH_BYTES || b.data[0] != 1)
        return 0;
    return get_le32(b.data + b.len - WAL_META_EPOCH_BYTES);
}

bool wal_meta_is_clean(struct bytes value)
{
    return value.len >= WAL_META_HEAD_BYTES && (value.data[1] & (WAL_META_CLEAN | WAL_META_MEMORY));
}

bool wal_meta_state(struct bytes b, struct wal_meta_state *out)
{
    struct wal_meta m;
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    bool sound = wal_meta_parse(b, &a, &m);
    if (sound)
        *out = (struct wal_meta_state){ m.first_unregistered, m.segment_bytes, m.epochs[0].epoch,
                                        m.epochs[m.epoch_count - 1].epoch };
    arena_free(&a);
    return sound;
}

struct bytes wal_meta_fresh_value(u64 first, u32 epoch, u32 segment_bytes, struct arena *a)
{
    struct wal_epoch ended = { epoch, first, first * segment_bytes };
    struct wal w = { .segment_bytes = segment_bytes, .epochs = &ended, .epoch_count = 1 };
    return wal_meta_value(&w, first, true, a);
}

/* ---- the fence ---- */

err wal_meta_fence(const struct storage *st, u32 epoch, struct meta_compare *c, struct arena *a)
{
    struct meta_kv kv;
    err e = meta_get(st->env->meta, c->key, a, &kv);
    if (e != ERR_NONE && e != ERR_NOT_FOUND)
        return e;
    bool absent = e == ERR_NOT_FOUND;
    c->revision = absent ? 0 : kv.revision;
    return (absent ? 0 : wal_meta_epoch(kv.value)) == epoch ? ERR_NONE : ERR_FENCED;
}

err wal_meta_commit(const struct storage *st, u32 epoch, struct bytes value)
{
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    char key[META_KEY_SIZE];
    struct meta_compare fence = { .key = meta_key_wal(key, st->wal.index) };
    struct meta_op put = { META_PUT, fence.key, value };
    struct meta_txn t = { &fence, &put, 1, 1 };
    err e = wal_meta_fence(st, epoch, &fence, &a);
    if (e == ERR_NONE)
        e = meta_commit(st->env->meta, &t);
    arena_free(&a);
    return e;
}
