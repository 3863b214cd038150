/* The index of a partition: where its batches are.
 *
 * Two ascending arrays. `entries`: one per batch that lies in a WAL segment whose image is in
 * memory or that is not registered. `blocks`: spans of batches in bundles. A registered segment's
 * batches are in both until its image goes: then the entries go too.
 *
 *     start_offset          registered_end            durable_offset   next_offset
 *     |  blocks ............|                         |                |
 *               |  entries .......................................... |
 *
 * Invariants (pindex_check)
 *  1. start_offset ≤ durable_offset ≤ next_offset; registered_end ≤ durable_offset.
 *  2. Entries are consecutive: each base is one more than the last offset before it.
 *  3. Blocks ascend and do not overlap; the last one ends below registered_end.
 *  4. No live block or entry lies wholly below start_offset.
 *  5. block_bytes and tail_bytes count every live batch once.
 *  6. Blocks may leave gaps where batches were compacted away, but the last block of a rewritten
 *     range ends where the range did: registered_end never goes back.
 *  7. What compaction took away is not found in an image either: such a swap drops the entries
 *     below its end. Else a reader would see an old value in an image and no tombstone behind it.
 *
 * An empty partition costs sizeof(struct pindex); arrays grow by halves and shrink when they are
 * mostly empty. Their memory is counted and bounded: index_memory.c.
 */
#include <stdio.h>

#include "storage_int.h"

_Static_assert(sizeof(struct pindex) <= 320, "10,000 partitions must stay small");
_Static_assert(sizeof(struct entry) == 32, "entries are many");
_Static_assert(sizeof(struct block) == 48, "blocks are many");

/* ---- keys ---- */

static const char hex_digits[] = "0123456789abcdef";

static char *put_hex(char *p, u64 v, u32 digits)
{
    for (u32 i = 0; i < digits; i++)
        p[i] = hex_digits[v >> (4 * (digits - 1 - i)) & 15];
    return p + digits;
}

static bool get_hex(struct bytes *b, u32 digits, u64 *out)
{
    if (b->len < digits)
        return false;
    u64 v = 0;
    for (u32 i = 0; i < digits; i++) {
        u8 c = b->data[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (u64)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (u64)(c - 'a' + 10);
        else
            return false;
    }
    *b = bytes_of(b->data + digits, b->len - digits);
    *out = v;
    return true;
}

static bool get_char(struct bytes *b, char c)
{
    if (b->len == 0 || b->data[0] != (u8)c)
        return false;
    *b = bytes_of(b->data + 1, b->len - 1);
    return true;
}

struct bytes meta_key_partition(char *buf, char kind, const struct partition_key *k)
{
    char *p = buf;
    *p++ = kind;
    *p++ = '/';
    for (u32 i = 0; i < 16; i++)
        p = put_hex(p, k->topic_id.b[i], 2);
    *p++ = '/';
    p = put_hex(p, k->partition, 8);
    return bytes_of(buf, (u32)(p - buf));
}

bool meta_key_partition_parse(struct bytes key, struct partition_key *out)
{
    u64 v;
    if (key.len < 2 || key.data[1] != '/')
        return false;
    key = bytes_of(key.data + 2, key.len - 2);
    struct partition_key k = { 0 };
    for (u32 i = 0; i < 16; i++) {
        if (!get_hex(&key, 2, &v))
            return false;
        k.topic_id.b[i] = (u8)v;
    }
    if (!get_char(&key, '/') || !get_hex(&key, 8, &v) || key.len != 0)
        return false;
    k.partition = (u32)v;
    *out = k;
    return true;
}

struct bytes meta_key_bundle(char *buf, u64 bundle)
{
    char *p = buf;
    *p++ = object_is_run(bundle) ? 'r' : 'b';
    *p++ = '/';
    p = put_hex(p, bundle_wal(bundle), 4);
    *p++ = '/';
    p = put_hex(p, bundle_seq(bundle), 16);
    return bytes_of(buf, (u32)(p - buf));
}

bool meta_key_bundle_parse(struct bytes key, u64 *bundle)
{
    u64 wal, seq;
    bool run = get_char(&key, 'r');
    if ((!run && !get_char(&key, 'b')) || !get_char(&key, '/') || !get_hex(&key, 4, &wal) ||
        !get_char(&key, '/') || !get_hex(&key, 16, &seq) || key.len != 0)
        return false;
    if (seq >> 48 || wal >= RUN_WAL)
        return false;
    *bundle = bundle_id((u32)wal | (run ? RUN_WAL : 0), seq);
    return true;
}

struct bytes meta_key_wal(char *buf, u32 wal)
{
    char *p = buf;
    *p++ = 'w';
    *p++ = '/';
    p = put_hex(p, wal, 4);
    return bytes_of(buf, (u32)(p - buf));
}

/* ---- life ---- */

static void pindex_check(const struct pindex *p)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    CHECK(p->start_offset <= p->durable_offset);
    CHECK(p->durable_offset <= p->next_offset);
    CHECK(p->registered_end <= p->durable_offset);
    CHECK(p->registered_end <= p->next_offset);
    CHECK(p->entry_head <= p->entry_end && p->block_head <= p->block_end);
}

struct pindex *pindex_find(struct storage *st, const struct partition_key *key)
{
    struct pindex *p;
    HASH_FIND(hh, st->parts, key, sizeof *key, p);
    return p;
}

struct pindex *pindex_open(struct storage *st, const struct partition_key *key)
{
    MAGIC_CHECK(st, STORAGE_MAGIC);
    struct pindex *p = pindex_find(st, key);
    if (p)
        return p;
    p = MEM_NEW(struct pindex);
    MAGIC_INIT(p, PINDEX_MAGIC);
    p->key = *key;
    p->st = st;
    p->last_seq = -1;
    p->object = st->wal.memory || (st->env->ops->object && st->env->ops->object(st, key));
    list_init(&p->reads);
    list_init(&p->merge_link);
    HASH_ADD(hh, st->parts, key, sizeof p->key, p);
    return p;
}

void pindex_set_user(struct pindex *p, void *user)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    p->user = user;
    /* A clone has blocks before its topic is known. */
    if (user != NULL && p->block_head < p->block_end)
        merge_note(p);
}

void *pindex_user(const struct pindex *p)
{
    return p->user;
}

const struct partition_key *pindex_key(const struct pindex *p)
{
    return &p->key;
}

i64 pindex_start_offset(const struct pindex *p)
{
    return p->start_offset;
}

i64 pindex_next_offset(const struct pindex *p)
{
    return p->next_offset;
}

i64 pindex_durable_offset(const struct pindex *p)
{
    return p->durable_offset;
}

u64 pindex_bytes(const struct pindex *p)
{
    return p->block_bytes + p->tail_bytes;
}

static void pindex_free(struct pindex *p)
{
    CHECK(p->holds == 0 && list_empty(&p->reads));
    (void)index_array(p, p->entries, &p->entry_cap, 0, sizeof *p->entries);
    (void)index_array(p, p->blocks, &p->block_cap, 0, sizeof *p->blocks);
    MAGIC_POISON(p);
    mem_free(p);
}

void pindex_hold(struct pindex *p)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    p->holds++;
}

void pindex_release(struct pindex *p)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    CHECK(p->holds > 0);
    if (--p->holds == 0 && p->dropped)
        pindex_free(p);
}

void index_free(struct storage *st)
{
    struct pindex *p, *next;
    HASH_ITER(hh, st->parts, p, next) {
        HASH_DEL(st->parts, p);
        if (st->replaying && p->user && st->env->ops->forget)
            st->env->ops->forget(st, p);
        pindex_free(p);
    }
    mem_free(st->origins);
    st->origins = NULL;
    st->origin_count = 0;
}

/* ---- changing ---- */

void pindex_add_entry(struct pindex *p, const struct entry *e)
{
    CHECK(e->base_offset == p->next_offset || p->entry_head == p->entry_end);
    if (p->entry_end == p->entry_cap) {
        u32 live = p->entry_end - p->entry_head;
        if (p->entry_head > 0)
            memmove(p->entries, p->entries + p->entry_head, live * sizeof *e);
        p->entry_head = 0;
        p->entry_end = live;
        /* Room for half as many again; shrinks after a burst. */
        u32 cap = MAX(4u, live + live / 2 + 2);
        if (cap > p->entry_cap || cap < p->entry_cap / 4)
            p->entries = index_array(p, p->entries, &p->entry_cap, cap, sizeof *e);
    }
    p->entries[p->entry_end++] = *e;
    p->tail_bytes += e->bytes;
    p->next_offset = entry_last_offset(e) + 1;
}

/* Entry leaves the array: count it off unless a block counts its bytes. */
static void entry_gone(struct pindex *p, const struct entry *e)
{
    if (e->base_offset >= p->registered_end)
        p->tail_bytes -= e->bytes;
}

static void entries_release_empty(struct pindex *p)
{
    if (p->entry_head != p->entry_end)
        return;
    p->entry_head = p->entry_end = 0;
    if (p->entry_cap > 64)
        p->entries = index_array(p, p->entries, &p->entry_cap, 0, sizeof *p->entries);
}

/* Wholly below the log start, or registered and not in memory any more. */
static bool entry_useless(const struct pindex *p, const struct entry *e)
{
    if (entry_last_offset(e) < p->start_offset)
        return true;
    struct segment *seg = segment_find(p->st, wal_seq(&p->st->wal, entry_lsn(e)));
    return !seg || (seg->state == SEG_REGISTERED && !seg->image);
}

void pindex_trim_entries(struct pindex *p)
{
    while (p->entry_head < p->entry_end && entry_useless(p, &p->entries[p->entry_head]))
        entry_gone(p, &p->entries[p->entry_head++]);
    entries_release_empty(p);
}

static void blocks_trim(struct pindex *p)
{
    while (p->block_head < p->block_end && p->blocks[p->block_head].last_offset < p->start_offset) {
        struct block b = p->blocks[p->block_head++];
        p->block_bytes -= b.data_bytes;
        retention_block_gone(p->st, b.bundle);
    }
    if (p->block_head == p->block_end)
        p->block_head = p->block_end = 0;
}

/* Entries in [from, to) are counted by a block from now on. */
static void tail_bytes_move(struct pindex *p, i64 to)
{
    for (u32 i = p->entry_head; i < p->entry_end; i++) {
        const struct entry *e = &p->entries[i];
        if (e->base_offset >= to)
            break;
        if (e->base_offset >= p->registered_end)
            p->tail_bytes -= e->bytes;
    }
    p->registered_end = to;
}

void pindex_add_block(struct pindex *p, const struct block *b)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    CHECK(b->base_offset <= b->last_offset);
    CHECK(p->block_head == p->block_end ||
          p->blocks[p->block_end - 1].last_offset < b->base_offset);
    CHECK(!p->dropped);
    if (b->last_offset + 1 > p->next_offset) {
        /* At load only: the WAL's entries come later. */
        CHECK(p->entry_head == p->entry_end);
        p->next_offset = p->durable_offset = b->last_offset + 1;
    } else if (b->last_offset + 1 > p->durable_offset) {
        p->durable_offset = b->last_offset + 1;
        p->advanced = true;
    }
    tail_bytes_move(p, b->last_offset + 1);
    if (p->block_end == p->block_cap) {
        u32 live = p->block_end - p->block_head;
        if (p->block_head > 0)
            memmove(p->blocks, p->blocks + p->block_head, live * sizeof *b);
        p->block_head = 0;
        p->block_end = live;
        u32 cap = MAX(4u, live + live / 2 + 2);
        if (cap > p->block_cap)
            p->blocks = index_array(p, p->blocks, &p->block_cap, cap, sizeof *b);
    }
    bool run = object_is_run(b->bundle);
    if (run &&
        (p->block_head == p->block_end || p->blocks[p->block_end - 1].base_offset < p->runs_end))
        p->runs_end = b->last_offset + 1;
    p->blocks[p->block_end++] = *b;
    p->block_bytes += b->data_bytes;
    blocks_trim(p);
    pindex_check(p);
    if (!run)
        merge_note(p);
}

/* Entries below `to` lie in blocks: they are not needed. */
static void entries_drop_below(struct pindex *p, i64 to)
{
    CHECK(to <= p->registered_end);
    while (p->entry_head < p->entry_end && entry_last_offset(&p->entries[p->entry_head]) < to)
        p->entry_head++;
    entries_release_empty(p);
}

static void blocks_splice(struct pindex *p, u32 at, u32 old_count, const struct block *b, u32 count)
{
    u32 behind = p->block_end - at - old_count;
    u32 end = at + count + behind;
    if (end > p->block_cap)
        p->blocks = index_array(p, p->blocks, &p->block_cap, end + 2, sizeof *b);
    if (behind > 0)
        memmove(p->blocks + at + count, p->blocks + at + old_count, behind * sizeof *b);
    if (count > 0)
        memcpy(p->blocks + at, b, count * sizeof *b);
    p->block_end = end;
}

void pindex_swap_blocks(struct pindex *p, i64 from, i64 to, const struct block *blocks, u32 count,
                        bool same)
{
    pindex_check(p);
    CHECK(!p->dropped);
    CHECK(from < to && to <= p->registered_end);
    u32 at = pindex_block_at(p, from), end = at;
    while (end < p->block_end && p->blocks[end].base_offset < to) {
        const struct block *b = &p->blocks[end++];
        CHECK(b->base_offset >= from && b->last_offset < to);
        p->block_bytes -= b->data_bytes;
        if (!object_is_run(b->bundle) || b->origin > 0)
            retention_block_gone(p->st, b->bundle);
    }
    for (u32 i = 0; i < count; i++) {
        CHECK(blocks[i].base_offset >= from && blocks[i].last_offset < to);
        p->block_bytes += blocks[i].data_bytes;
    }
    blocks_splice(p, at, end - at, blocks, count);
    if (!same)
        entries_drop_below(p, to);
    pindex_check(p);
}

/* ---- searching ---- */

/* First live entry whose last offset is ≥ offset; entry_end when none. */
static u32 entry_search(const struct pindex *p, i64 offset)
{
    u32 lo = p->entry_head, hi = p->entry_end;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (entry_last_offset(&p->entries[mid]) < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

u32 pindex_block_at(const struct pindex *p, i64 offset)
{
    u32 lo = p->block_head, hi = p->block_end;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (p->blocks[mid].last_offset < offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool place_entry(struct pindex *p, const struct entry *e, struct place *out)
{
    if (entry_last_offset(e) >= p->durable_offset)
        return false;
    struct segment *seg = segment_find(p->st, wal_seq(&p->st->wal, entry_lsn(e)));
    if (!seg || (seg->state == SEG_REGISTERED && !seg->image))
        return false;
    *out = (struct place){ e, seg, NULL };
    return true;
}

bool pindex_place(struct pindex *p, i64 offset, struct place *out)
{
    pindex_check(p);
    offset = MAX(offset, p->start_offset);
    u32 ei = entry_search(p, offset);
    bool have = ei < p->entry_end;
    if (have && p->entries[ei].base_offset <= offset && place_entry(p, &p->entries[ei], out))
        return true;
    u32 bi = pindex_block_at(p, offset);
    if (bi < p->block_end) {
        *out = (struct place){ NULL, NULL, &p->blocks[bi] };
        return true;
    }
    return have && place_entry(p, &p->entries[ei], out);
}

i64 place_next_offset(const struct place *pl)
{
    return (pl->entry ? entry_last_offset(pl->entry) : pl->block->last_offset) + 1;
}

/* Batches only in entries: blocks cover everything below registered_end. */
static u32 entry_tail(const struct pindex *p)
{
    return entry_search(p, MAX(p->registered_end, p->start_offset));
}

bool pindex_place_time(struct pindex *p, i64 ts, struct place *out)
{
    pindex_check(p);
    for (u32 i = p->block_head; i < p->block_end; i++) {
        if (p->blocks[i].max_timestamp < ts)
            continue;
        *out = (struct place){ NULL, NULL, &p->blocks[i] };
        return true;
    }
    for (u32 i = entry_tail(p); i < p->entry_end; i++)
        if (p->entries[i].max_timestamp >= ts)
            return place_entry(p, &p->entries[i], out);
    return false;
}

bool pindex_place_max_time(struct pindex *p, struct place *out)
{
    pindex_check(p);
    i64 best = -1;
    bool found = false;
    for (u32 i = p->block_head; i < p->block_end; i++) {
        if (p->blocks[i].max_timestamp <= best)
            continue;
        best = p->blocks[i].max_timestamp;
        *out = (struct place){ NULL, NULL, &p->blocks[i] };
        found = true;
    }
    for (u32 i = entry_tail(p); i < p->entry_end; i++) {
        struct place at;
        if (p->entries[i].max_timestamp <= best || !place_entry(p, &p->entries[i], &at))
            continue;
        best = p->entries[i].max_timestamp;
        *out = at;
        found = true;
    }
    return found;
}

i64 pindex_max_timestamp(const struct pindex *p)
{
    i64 best = -1;
    for (u32 i = p->block_head; i < p->block_end; i++)
        best = MAX(best, p->blocks[i].max_timestamp);
    for (u32 i = entry_tail(p); i < p->entry_end; i++)
        if (entry_last_offset(&p->entries[i]) < p->durable_offset)
            best = MAX(best, p->entries[i].max_timestamp);
    return best;
}

u32 pindex_segment_entries(const struct pindex *p, const struct storage *st, u64 seq,
                           const struct entry **first)
{
    u64 from = seq * st->wal.segment_bytes, to = from + st->wal.segment_bytes;
    u32 lo = p->entry_head, hi = p->entry_end;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (entry_lsn(&p->entries[mid]) < from)
            lo = mid + 1;
        else
            hi = mid;
    }
    u32 end = lo;
    while (end < p->entry_end && entry_lsn(&p->entries[end]) < to)
        end++;
    *first = end > lo ? &p->entries[lo] : NULL;
    return end - lo;
}

/* ---- the log start ---- */

void part_meta_encode(u8 *v, i32 leader_epoch, i64 start)
{
    memset(v, 0, PART_META_BYTES);
    v[0] = 1;
    put_le32(v + 4, (u32)leader_epoch);
    put_le64(v + 8, (u64)start);
}

static void set_start_run(struct bg_job *j)
{
    struct pindex_op *op = container_of(j, struct pindex_op, job);
    u8 value[PART_META_BYTES];
    char key[META_KEY_SIZE];
    part_meta_encode(value, op->p->leader_epoch, op->offset);
    struct meta_op put = { META_PUT, meta_key_partition(key, 'p', &op->p->key),
                           bytes_of(value, sizeof value) };
    struct meta_txn t = { NULL, &put, 0, 1 };
    op->err = meta_commit(op->p->st->env->meta, &t);
}

static void set_start_done(struct bg_job *j)
{
    struct pindex_op *op = container_of(j, struct pindex_op, job);
    struct pindex *p = op->p;
    p->st->job_count--;
    if (p->dropped) {
        op->err = ERR_UNKNOWN_TOPIC_OR_PARTITION;
    } else if (op->err == ERR_NONE && op->offset > p->start_offset) {
        p->start_offset = op->offset;
        pindex_trim_entries(p);
        blocks_trim(p);
        pindex_check(p);
    }
    if (op->err != ERR_NONE)
        p->start_target = p->start_offset;
    pindex_release(p);
    op->done(op);
}

void pindex_set_start(struct pindex *p, i64 offset, struct pindex_op *op,
                      void (*done)(struct pindex_op *op))
{
    pindex_check(p);
    CHECK(!p->dropped);
    /* Transactions run in order, so what is written last must be the largest. */
    offset = MIN(offset, p->durable_offset);
    p->start_target = MAX(MAX(p->start_target, p->start_offset), offset);
    op->p = p;
    op->offset = p->start_target;
    op->done = done;
    pindex_hold(p);
    p->st->job_count++;
    bg_submit(p->st->shard, &op->job, BG_META, set_start_run, set_start_done);
}

static err index_load_one(void *arg, const struct meta_kv *kv)
{
    struct storage *st = arg;
    struct partition_key key;
    if (!meta_key_partition_parse(kv->key, &key) || kv->value.len != PART_META_BYTES ||
        kv->value.data[0] != 1) {
        storage_explain(st, "metadata key %.*s has an unknown form (written by a newer version?)",
                        (int)MIN(kv->key.len, 100u), (const char *)kv->key.data);
        return ERR_CORRUPT;
    }
    i64 start = (i64)get_le64(kv->value.data + 8);
    if (start < 0 || start > OFFSET_MAX) {
        storage_explain(st, "metadata key %.*s says that the log begins at %" PRId64,
                        (int)MIN(kv->key.len, 100u), (const char *)kv->key.data, start);
        return ERR_CORRUPT;
    }
    if (!storage_owns(st, &key))
        return ERR_NONE;
    struct pindex *p = pindex_open(st, &key);
    p->leader_epoch = (i32)get_le32(kv->value.data + 4);
    p->start_offset = p->start_target = p->durable_offset = p->next_offset = start;
    return ERR_NONE;
}

err index_load(struct storage *st)
{
    return meta_range(st->env->meta, bytes_str("p/"), index_load_one, st);
}

/* ---- drop ---- */

struct drop_job {
    struct bg_job job;
    struct storage *st;
    struct partition_key key;
    err err;
};

static void drop_run(struct bg_job *j)
{
    struct drop_job *d = container_of(j, struct drop_job, job);
    static const char kinds[] = { 'p', 's', 'k' };
    char keys[ARRAY_COUNT(kinds)][META_KEY_SIZE];
    struct meta_op ops[ARRAY_COUNT(kinds)];
    for (u32 i = 0; i < ARRAY_COUNT(kinds); i++)
        ops[i] = (struct meta_op){ META_DELETE,
                                   meta_key_partition(keys[i], kinds[i], &d->key),
                                   { NULL, 0 } };
    struct meta_txn t = { NULL, ops, 0, ARRAY_COUNT(kinds) };
    d->err = meta_commit(d->st->env->meta, &t);
}

static void drop_done(struct bg_job *j)
{
    struct drop_job *d = container_of(j, struct drop_job, job);
    d->st->job_count--;
    /* Left-over keys of an unknown topic are ignored at start; they only cost their bytes. */
    if (d->err != ERR_NONE)
        LOG(WARN, partition_keys_left, "shard=%u error=%s", d->st->shard->index, err_name(d->err));
    mem_free(d);
}

void pindex_drop(struct pindex *p)
{
    pindex_check(p);
    CHECK(!p->dropped);
    struct storage *st = p->st;
    HASH_DEL(st->parts, p);
    p->dropped = true;
    p->user = NULL;
    merge_forget(p);
    pindex_hold(p);
    segment_forget_part(st, p);
    for (u32 i = p->block_head; i < p->block_end; i++)
        retention_block_gone(st, p->blocks[i].bundle);
    p->entry_head = p->entry_end = p->block_head = p->block_end = 0;
    p->block_bytes = p->tail_bytes = 0;
    reader_dropped(p);
    struct drop_job *d = MEM_NEW(struct drop_job);
    d->st = st;
    d->key = p->key;
    st->job_count++;
    bg_submit(st->shard, &d->job, BG_META, drop_run, drop_done);
    pindex_release(p);
}
