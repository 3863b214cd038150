/* When an append is acknowledged: on this node's stable media, or, in partitions with
 * leat.durability=object, in the object store.
 *
 *   append ─► pending ──durable──► done            local
 *                         └──────► registering ──segment registered──► done            object
 *
 * Frames of both kinds go one way, through the log; only what is waited for differs. So that the
 * wait is short, an open segment in which such frames wait is a batch: it is sealed when the first
 * of them is object.linger old or it holds object.batch_bytes, if an upload can begin at once.
 * While all uploads are busy it goes on filling: the slower the store, the larger the objects. That
 * is decided at the end of a turn, never inside an append: the snapshots that are taken with the
 * seal cover an append only when the broker has seen its result.
 *
 * Invariants
 *  1. Within each list `done` runs in order of appends.
 *  2. In a partition of the second kind the durable offset, which bounds what is read, moves only
 *     by pindex_add_block: with a registration. So does it at a start, for what the log still
 *     holds: until it is registered again it could be lost with this disk.
 *  3. An append whose wait was given up (storage_append_abandon) stays in the log and counts when
 *     its segment is registered.
 *  4. Sealing early keeps wal.c's invariant 5.
 *
 * When the log failed, what is in whole durable segments can still be registered and is waited for;
 * the rest fails in its turn.
 */
#include "plant.h"
#include "storage_int.h"

static void append_finish(struct append *a, err e)
{
    struct pindex *p = a->p;
    list_remove(&a->link);
    a->err = p->dropped ? ERR_UNKNOWN_TOPIC_OR_PARTITION : e;
    pindex_release(p);
    a->done(a);
}

static bool waits_for_store(const struct append *a)
{
    return a->p->object && !a->early && !a->p->dropped && !PLANTED(PLANT_ACK_BEFORE_REGISTER);
}

/* ---- durable on this node ---- */

void ack_durable(struct storage *st)
{
    struct wal *w = &st->wal;
    /* `done` may append again; those appends end beyond durable. */
    while (!list_empty(&w->pending)) {
        struct append *a = list_entry(w->pending.next, struct append, link);
        if (a->lsn_end > w->durable)
            return;
        w->acked = a->lsn_end;
        if (waits_for_store(a)) {
            list_remove(&a->link);
            list_push_back(&w->registering, &a->link);
            w->registering_count++;
            continue;
        }
        if (!a->p->dropped && (!a->p->object || PLANTED(PLANT_ACK_BEFORE_REGISTER)))
            a->p->durable_offset = MAX(a->p->durable_offset, a->last_offset + 1);
        append_finish(a, ERR_NONE);
    }
}

/* ---- registered ---- */

/* Its segment will never be registered, in this life. */
static bool is_lost(struct storage *st, const struct append *a)
{
    const struct wal *w = &st->wal;
    if (st->acks_over || w->failed == ERR_FENCED)
        return true;
    const struct segment *seg = segment_find(st, wal_seq(w, a->lsn_end - 1));
    return w->failed != ERR_NONE && (seg->state == SEG_OPEN || seg->state == SEG_SEALED);
}

static void registering_finish(struct storage *st, struct append *a, err e)
{
    st->wal.registering_count--;
    if (e == ERR_NONE && st->shard->metrics)
        metric_observe(st->shard->metrics, H_object_commit,
                       (st->shard->now_ns - a->began_ns) / NS_PER_US);
    append_finish(a, e);
}

void ack_registered(struct storage *st)
{
    struct wal *w = &st->wal;
    u64 end = w->registered_seq * w->segment_bytes;
    while (!list_empty(&w->registering)) {
        struct append *a = list_entry(w->registering.next, struct append, link);
        bool there = a->lsn_end <= end;
        if (!there && !is_lost(st, a))
            return;
        registering_finish(st, a,
                           there                   ? ERR_NONE
                           : w->failed != ERR_NONE ? w->failed
                                                   : ERR_CANCELED);
    }
}

void ack_failed(struct storage *st)
{
    struct wal *w = &st->wal;
    while (!list_empty(&w->pending)) {
        struct append *a = list_entry(w->pending.next, struct append, link);
        w->acked = a->lsn_end;
        append_finish(a, w->failed);
    }
    ack_registered(st);
}

void ack_end(struct storage *st)
{
    st->acks_over = true;
    ack_registered(st);
}

bool storage_append_abandon(struct append *a)
{
    struct storage *st = a->p->st;
    if (a->lsn_end > st->wal.acked)
        return false;
    CHECK(list_linked(&a->link));
    st->wal.registering_count--;
    list_remove(&a->link);
    pindex_release(a->p);
    return true;
}

/* ---- batches ---- */

static bool batch_due(struct storage *st)
{
    const struct wal *w = &st->wal;
    const struct segment *seg = w->open;
    if (!seg || seg->object_since_ns == 0 || w->failed != ERR_NONE)
        return false;
    u64 end = (seg->seq + 1) * w->segment_bytes;
    if (end - w->durable > UNDURABLE_SEGMENTS * (u64)w->segment_bytes ||
        st->sealed_unregistered >= uploader_slots(st))
        return false;
    const struct config *cfg = st->shard->cfg;
    return seg->data_bytes >= config_u64(cfg, CFG_object_batch_bytes) ||
           st->shard->now_ns - seg->object_since_ns >=
               config_u64(cfg, CFG_object_linger_ms) * NS_PER_MS;
}

void batch_check(struct storage *st)
{
    if (!batch_due(st))
        return;
    storage_count(st, M_object_batches, 1);
    storage_count(st, M_object_batch_bytes, st->wal.open->data_bytes);
    wal_seal(st);
}

/* The hook at the end of this turn looks. */
static void linger_fire(struct timer *t)
{
    (void)t;
}

void batch_appended(struct storage *st, struct segment *seg)
{
    if (seg->object_since_ns != 0)
        return;
    seg->object_since_ns = st->shard->now_ns;
    timer_start(&st->shard->timers, &st->linger_timer,
                st->shard->now_ns + config_u64(st->shard->cfg, CFG_object_linger_ms) * NS_PER_MS,
                linger_fire);
}

bool pindex_is_object(const struct pindex *p)
{
    return p->object;
}

void pindex_set_object(struct pindex *p, bool object)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    struct storage *st = p->st;
    struct segment *seg = st->wal.open;
    p->object = object || st->wal.memory;
    /* What was appended just before waits, too. */
    if (p->object && seg && p->last_seq == (i64)seg->seq)
        batch_appended(st, seg);
}
