/* Read-ahead. A stream is a reader as the store sees it: reads of a partition's blocks, each of
 * which begins where the one before ended. Which client, connection or fetch session they come from
 * does not matter.
 *
 *   read [a, b) ─► stream at a? ──yes: it goes on──► window: as it was, or twice as far when the
 *        │                                             read had to wait for the store
 *        └─no─► stream at b? joins it, else a new one ─► window 0; from the log start: a block
 *   then: the blocks of [b, b + window) that are not there are loaded (cache_ahead)
 *
 *  1. The window grows only while readers wait: a slow reader has one block before it, a fast one
 *     what the store's latency takes, at most store.readahead_bytes.
 *  2. A block that was loaded and went unread halves its stream's window.
 *  3. All windows together fit into the cache's part for guesses (cache_ahead_bytes): each stream
 *     that scans has an equal share. When that is less than a block nothing is read ahead: so many
 *     readers keep the store busy by themselves.
 *  4. Two readers at one place are one stream, and blocks between two streams of a partition are
 *     kept for the one behind.
 *  5. A stream nobody read from for STREAM_IDLE_NS is over, and what was read ahead for it goes
 *     first.
 *
 * A read tails when it is behind what memory holds by little (store.tail_bytes) and by little time
 * (store.tail_age): memory was short and dropped what it was about to read. Else it catches up.
 *
 * Only speed depends on anything here: a stream whose partition was dropped is over by and by.
 */
#include "ahead_int.h"

#define AHEAD_MAGIC 0xaead0001u
#define STREAMS 256u
#define STREAM_IDLE_NS (10 * NS_PER_S)
#define AHEAD_WALK 64u /* blocks looked at by one read */
#define TAIL_BLOCKS_MAX 64u
#define EXPECTED_REACH 32 /* blocks a stream may be behind another for which they are kept */

/* By name, not by address: a new partition's index may lie where a dropped one's was. Hashed by its
 * bytes, so there are none between the fields. */
struct stream_key {
    struct partition_key of;
    u32 zero;
    i64 next;
};
_Static_assert(sizeof(struct stream_key) == 32, "no padding");
struct stream {
    struct stream_key key;
    u64 window;  /* bytes; 0: not known to be a scan */
    bool shared; /* by several readers, at one time at least */
    u64 used_ns;
    u32 generation;
    struct list link; /* by last use, or free */
    UT_hash_handle hh;
};

struct ahead {
    u32 magic;
    struct stream *at; /* uthash by key */
    struct list used;  /* longest ago first */
    struct list free;
    u32 scans; /* streams with a window */
    u64 window_max, tail_bytes;
    i64 tail_age_ms;
    struct stream streams[STREAMS];
};

err ahead_create(struct storage *st)
{
    struct ahead *a = MEM_NEW(struct ahead);
    MAGIC_INIT(a, AHEAD_MAGIC);
    list_init(&a->used);
    list_init(&a->free);
    for (u32 i = 0; i < STREAMS; i++)
        list_push_back(&a->free, &a->streams[i].link);
    a->window_max = config_u64(st->env->cfg, CFG_store_readahead_bytes);
    a->tail_bytes = config_u64(st->env->cfg, CFG_store_tail_bytes);
    a->tail_age_ms = config_i64(st->env->cfg, CFG_store_tail_age_ms);
    st->ahead = a;
    return ERR_NONE;
}

void ahead_free(struct storage *st)
{
    struct ahead *a = st->ahead;
    if (a == NULL)
        return;
    MAGIC_CHECK(a, AHEAD_MAGIC);
    HASH_CLEAR(hh, a->at);
    MAGIC_POISON(a);
    mem_free(a);
    st->ahead = NULL;
}

/* ---- streams ---- */

static struct stream *stream_at(struct ahead *a, struct stream_key key)
{
    struct stream *s;
    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): uthash reads by bytes */
    HASH_FIND(hh, a->at, &key, sizeof key, s);
    return s;
}

static struct stream *stream_find(struct ahead *a, const struct pindex *p, i64 next)
{
    return stream_at(a, (struct stream_key){ p->key, 0, next });
}

static void stream_set_window(struct storage *st, struct stream *s, u64 window)
{
    struct ahead *a = st->ahead;
    if (s->window == 0 && window > 0)
        a->scans++;
    else if (s->window > 0 && window == 0)
        a->scans--;
    CHECK(a->scans <= STREAMS);
    s->window = window;
    if (st->shard->metrics != NULL)
        metric_set(st->shard->metrics, M_readahead_scans, a->scans);
}

static void stream_end(struct storage *st, struct stream *s)
{
    struct ahead *a = st->ahead;
    stream_set_window(st, s, 0);
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): s is in the table, so there is one */
    HASH_DEL(a->at, s);
    list_remove(&s->link);
    list_push_front(&a->free, &s->link);
    s->generation++;
}

static void streams_expire(struct storage *st)
{
    struct ahead *a = st->ahead;
    while (!list_empty(&a->used)) {
        struct stream *s = list_entry(a->used.next, struct stream, link);
        if (s->used_ns + STREAM_IDLE_NS > st->shard->now_ns)
            return;
        stream_end(st, s);
    }
}

static void stream_touch(struct storage *st, struct stream *s)
{
    s->used_ns = st->shard->now_ns;
    list_remove(&s->link);
    list_push_back(&st->ahead->used, &s->link);
}

static struct stream *stream_new(struct storage *st, const struct pindex *p, i64 next)
{
    struct ahead *a = st->ahead;
    if (list_empty(&a->free))
        stream_end(st, list_entry(a->used.next, struct stream, link));
    struct stream *s = list_entry(list_pop_front(&a->free), struct stream, link);
    s->key = (struct stream_key){ p->key, 0, next };
    s->shared = false;
    HASH_ADD(hh, a->at, key, sizeof s->key, s);
    stream_touch(st, s);
    return s;
}

/* A stream goes on to `next`. Where another one is already, they are one. */
static struct stream *stream_move(struct storage *st, struct stream *s, i64 next)
{
    struct ahead *a = st->ahead;
    struct stream *other = stream_at(a, (struct stream_key){ s->key.of, 0, next });
    if (other != NULL && other != s) {
        stream_set_window(st, other, MAX(other->window, s->window));
        stream_end(st, s);
        s = other;
        s->shared = true;
    } else if (other == NULL) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): as above */
        HASH_DEL(a->at, s);
        s->key.next = next;
        HASH_ADD(hh, a->at, key, sizeof s->key, s);
    }
    stream_touch(st, s);
    return s;
}

static struct ahead_mark stream_mark(const struct storage *st, const struct stream *s)
{
    return (struct ahead_mark){ (u32)(s - st->ahead->streams), s->generation };
}

bool ahead_alive(const struct storage *st, struct ahead_mark mark)
{
    CHECK(mark.stream < STREAMS);
    const struct stream *s = &st->ahead->streams[mark.stream];
    return s->generation == mark.generation && s->used_ns + STREAM_IDLE_NS > st->shard->now_ns;
}

void ahead_wasted(struct storage *st, struct ahead_mark mark)
{
    if (!ahead_alive(st, mark))
        return;
    struct stream *s = &st->ahead->streams[mark.stream];
    stream_set_window(st, s, MAX(s->window / 2, 1));
}

bool ahead_expected(const struct storage *st, const struct read_op *op, i64 next)
{
    const struct pindex *p = op->p;
    u32 at = pindex_block_at(p, next - 1);
    u32 first = at - MIN(at - p->block_head, EXPECTED_REACH);
    i64 reach = first < p->block_end ? p->blocks[first].base_offset : op->offset;
    list_for(l, &st->ahead->used) {
        const struct stream *s = list_entry(l, struct stream, link);
        bool own = s->key.next == op->offset && !s->shared;
        if (partition_key_eq(&s->key.of, &p->key) && s->window > 0 && !own &&
            s->key.next >= reach && s->key.next < next)
            return true;
    }
    return false;
}

struct ahead_mark ahead_comes_back(struct storage *st, const struct read_op *op)
{
    struct stream *s = stream_find(st->ahead, op->p, op->offset);
    if (s == NULL)
        s = stream_new(st, op->p, op->offset);
    else
        stream_touch(st, s);
    return stream_mark(st, s);
}

/* ---- the window ---- */

/* What a read that did not begin where another ended says about the one to come. */
static struct stream *stream_first_read(struct storage *st, const struct read_op *op, i64 next)
{
    struct stream *s = stream_find(st->ahead, op->p, next);
    if (s != NULL) {
        s->shared = true;
        stream_touch(st, s);
        return s;
    }
    s = stream_new(st, op->p, next);
    if (op->offset <= op->p->start_offset) /* from the beginning: most likely a scan */
        stream_set_window(st, s, 1);
    return s;
}

static struct stream *stream_follow(struct storage *st, struct stream *s, i64 next, bool waited)
{
    s = stream_move(st, s, next);
    if (s->window == 0)
        stream_set_window(st, s, 1);
    else if (waited)
        stream_set_window(st, s, s->window * 2);
    return s;
}

/* Loads the blocks from `next` on that the window reaches into; `share` is for all of them. */
static void window_fill(struct storage *st, const struct read_op *op, const struct stream *s,
                        i64 next, u64 share)
{
    struct pindex *p = op->p;
    u64 left = MIN(s->window, share);
    u32 end = MIN(p->block_end, pindex_block_at(p, next) + AHEAD_WALK);
    for (u32 i = pindex_block_at(p, next); i < end && left > 0; i++) {
        const struct block *b = &p->blocks[i];
        struct place pl;
        if (b->base_offset >= op->end_offset || b->bytes > share)
            return;
        /* What is in memory needs no block, nor does what comes behind it. */
        if (!pindex_place(p, MAX(b->base_offset, next), &pl) || pl.block != b)
            return;
        if (!cache_ahead(st, p, b, stream_mark(st, s)))
            return;
        left -= MIN(left, b->bytes);
    }
}

void ahead_read(struct storage *st, const struct read_op *op, i64 next, bool waited)
{
    struct ahead *a = st->ahead;
    MAGIC_CHECK(a, AHEAD_MAGIC);
    streams_expire(st);
    struct stream *s = stream_find(a, op->p, op->offset);
    s = s != NULL ? stream_follow(st, s, next, waited) : stream_first_read(st, op, next);
    if (s->window == 0)
        return;
    u64 window = MAX(s->window, config_u64(st->env->cfg, CFG_store_block_bytes));
    stream_set_window(st, s, MAX(MIN(window, a->window_max), 1));
    if (a->window_max > 0)
        window_fill(st, op, s, next, MIN(a->window_max, cache_ahead_bytes(st) / a->scans));
}

/* ---- tailing or catching up ---- */

enum read_class ahead_class(const struct storage *st, const struct pindex *p, const struct block *b)
{
    const struct ahead *a = st->ahead;
    const struct bundle_info *info = retention_bundle(st, b->bundle);
    if (info == NULL || info->created_ms + a->tail_age_ms < st->shard->now_ms)
        return READ_CATCHUP;
    bool memory = p->entry_head < p->entry_end;
    i64 memory_from = memory ? p->entries[p->entry_head].base_offset : p->next_offset;
    const struct block *end = p->blocks + p->block_end;
    u64 behind = 0;
    for (u32 n = 0; b < end && b->base_offset < memory_from; b++, n++) {
        behind += b->data_bytes;
        if (behind > a->tail_bytes || n == TAIL_BLOCKS_MAX)
            return READ_CATCHUP;
    }
    return READ_TAIL;
}
