/* Idempotence of one partition: what each producer wrote last (KIP-98, KIP-360).
 *
 * Rules, as Apache Kafka's ProducerStateManager has them for a leader:
 *  1. A batch equal in epoch, first and last sequence to one of the producer's last five is a
 *     duplicate: it succeeds with the offsets it had.
 *  2. An older epoch is refused with INVALID_PRODUCER_EPOCH.
 *  3. A new epoch must start at sequence 0, unless the producer was not known.
 *  4. In the same epoch the sequence must follow the last one, wrapping from 2^31-1 to 0; a
 *     producer that is not known (expired, or its records were deleted) may start anywhere, but
 *     not behind a batch of its own that just found no room (producers_refused).
 *
 * Bounded: a producer is forgotten after producer.id.expiration.ms, and beyond producer.ids.max (of
 * all partitions, split over shards) the one of this shard that wrote nothing for the longest time.
 *
 * The state is rebuilt at start from the last snapshot and the batches after it.
 * Snapshot (little-endian): u8 version 1, u32 count, then per producer: i64 id, i64 last_ms,
 * i16 epoch, i32 coordinator epoch, u8 batches, then per batch i32 first, i32 last sequence,
 * i64 last offset, i64 timestamp.
 */
#include "broker_int.h"
#include "check.h"
#include "log.h"
#include "plant.h"

enum {
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_HEAD_BYTES = 5,
    SNAPSHOT_PRODUCER_BYTES = 23,
    SNAPSHOT_BATCH_BYTES = 24,
    PRODUCERS_MAX = 100000, /* of one partition: beyond it the oldest go */
};

static struct producer *producer_find(const struct partition *p, i64 id)
{
    struct producer *e = NULL;
    HASH_FIND(hh, p->producers, &id, sizeof id, e);
    return e;
}

static bool sequence_follows(i32 last, i32 first)
{
    return first == batch_sequence_add(last, 1);
}

static const struct producer_batch *producer_last(const struct producer *e)
{
    return e->batch_count ? &e->batches[e->batch_count - 1] : NULL;
}

err producers_check(const struct partition *p, const struct batch *b,
                    const struct producer_batch **dup)
{
    const struct producer *e = producer_find(p, b->producer_id);
    if (!e)
        return ERR_NONE;
    if (b->producer_epoch < e->epoch)
        return ERR_INVALID_PRODUCER_EPOCH;
    if (b->producer_epoch > e->epoch)
        return b->base_sequence == 0 ? ERR_NONE : ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    i32 last = batch_last_sequence(b);
    for (u32 i = 0; i < e->batch_count; i++)
        if (e->batches[i].first_sequence == b->base_sequence &&
            e->batches[i].last_sequence == last) {
            *dup = &e->batches[i];
            return ERR_DUPLICATE_SEQUENCE_NUMBER;
        }
    const struct producer_batch *newest = producer_last(e);
    if (newest && !sequence_follows(newest->last_sequence, b->base_sequence))
        return ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    if (!newest && e->awaited && b->base_sequence > e->first_sequence)
        return ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    return ERR_NONE;
}

/* Partitions that are replayed for another number of shards have no broker, and are not for
 * long. */
static void shard_count(struct broker *b, i32 change)
{
    b->producer_count += (u32)change;
    if (b->shard.metrics)
        metric_set(b->shard.metrics, M_producers, b->producer_count);
}

static void producer_remove(struct partition *p, struct producer *e)
{
    CHECK(e->partition == p);
    HASH_DELETE(hh, p->producers, e);
    p->producer_count--;
    list_remove(&e->lru);
    if (p->broker)
        shard_count(p->broker, -1);
    mem_free(e);
}

static void producer_touch(struct producer *e)
{
    struct broker *b = e->partition->broker;
    if (!b)
        return;
    list_remove(&e->lru);
    list_push_back(&b->producers, &e->lru);
}

/* Room for one more of this shard. */
static void producers_make_room(struct broker *b)
{
    u64 max = MAX(config_u64(b->node->cfg, CFG_producer_ids_max) / b->shard.group->count, 1);
    while (b->producer_count >= max) {
        struct producer *e = list_entry(b->producers.next, struct producer, lru);
        struct partition *p = e->partition;
        LOG(WARN, producer_evicted,
            "shard=%u producer=%" PRId64 " topic=%.*s partition=%d "
            "remedy=\"raise producer.ids.max, or lower producer.id.expiration.ms\"",
            b->shard.index, e->id, (int)p->topic->name.len, (const char *)p->topic->name.data,
            p->index);
        if (b->shard.metrics)
            metric_add(b->shard.metrics, M_producers_evicted, 1);
        p->producers_changed = true;
        producer_remove(p, e);
    }
}

static struct producer *producer_add(struct partition *p, i64 id)
{
    if (p->producer_count >= PRODUCERS_MAX)
        producer_remove(p, p->producers); /* uthash keeps insertion order: the oldest */
    if (p->broker)
        producers_make_room(p->broker);
    struct producer *e = MEM_NEW(struct producer);
    e->id = id;
    e->epoch = -1;
    e->partition = p;
    list_init(&e->lru);
    HASH_ADD(hh, p->producers, id, sizeof e->id, e);
    p->producer_count++;
    if (p->broker) {
        list_push_back(&p->broker->producers, &e->lru);
        shard_count(p->broker, 1);
    }
    return e;
}

void producers_append(struct partition *p, const struct batch *b, i64 last_offset, i64 now_ms)
{
    struct producer *e = producer_find(p, b->producer_id);
    if (!e)
        e = producer_add(p, b->producer_id);
    if (e->epoch != b->producer_epoch) {
        e->epoch = b->producer_epoch;
        e->batch_count = 0;
    }
    producer_touch(e);
    p->producers_changed = true;
    e->last_ms = now_ms;
    e->awaited = false;
    if (batch_is_control(b))
        return;
    if (e->batch_count == PRODUCER_BATCHES)
        memmove(e->batches, e->batches + 1, sizeof e->batches[0] * --e->batch_count);
    e->batches[e->batch_count++] =
        (struct producer_batch){ b->base_sequence, batch_last_sequence(b), last_offset,
                                 b->max_timestamp };
}

void producers_refused(struct partition *p, const struct batch *b, i64 now_ms)
{
    struct producer *e = producer_find(p, b->producer_id);
    if (e && (e->batch_count > 0 || e->epoch != b->producer_epoch))
        return;
    if (!e) {
        e = producer_add(p, b->producer_id);
        e->epoch = b->producer_epoch;
    }
    if (!e->awaited) {
        e->awaited = true;
        e->first_sequence = b->base_sequence;
    }
    e->last_ms = now_ms;
    e->first_sequence = MIN(e->first_sequence, b->base_sequence);
}

void producers_expire(struct partition *p, i64 before_ms)
{
    struct producer *e, *next;
    HASH_ITER(hh, p->producers, e, next) {
        if (e->last_ms < before_ms) {
            producer_remove(p, e);
            p->producers_changed = true;
        }
    }
}

void producers_free(struct partition *p)
{
    struct producer *e, *next;
    HASH_ITER(hh, p->producers, e, next)
        producer_remove(p, e);
}

struct bytes producers_snapshot(struct partition *p, struct arena *a)
{
    if (!p->producers_changed)
        return (struct bytes){ NULL, 0 };
    u32 room = SNAPSHOT_HEAD_BYTES + p->producer_count * (SNAPSHOT_PRODUCER_BYTES +
                                                          PRODUCER_BATCHES * SNAPSHOT_BATCH_BYTES);
    u8 *out = arena_alloc(a, room), *q = out;
    if (!out)
        return (struct bytes){ NULL, 0 };
    *q = SNAPSHOT_VERSION;
    put_le32(q + 1, p->producer_count);
    q += SNAPSHOT_HEAD_BYTES;
    struct producer *e, *next;
    HASH_ITER(hh, p->producers, e, next) {
        put_le64(q, (u64)e->id);
        put_le64(q + 8, (u64)e->last_ms);
        put_le16(q + 16, (u16)e->epoch);
        put_le32(q + 18, (u32)e->coordinator_epoch);
        q[22] = e->batch_count;
        q += SNAPSHOT_PRODUCER_BYTES;
        for (u32 i = 0; i < e->batch_count; i++, q += SNAPSHOT_BATCH_BYTES) {
            put_le32(q, (u32)e->batches[i].first_sequence);
            put_le32(q + 4, (u32)e->batches[i].last_sequence);
            put_le64(q + 8, (u64)e->batches[i].last_offset);
            put_le64(q + 16, (u64)e->batches[i].timestamp);
        }
    }
    CHECK(q <= out + room);
    p->producers_changed = false;
    return bytes_of(out, (u32)(q - out));
}

/* One producer at *q, bounds checked; NULL when the bytes end or lie. */
static const u8 *producer_restore(struct partition *p, const u8 *q, const u8 *end)
{
    if (end - q < SNAPSHOT_PRODUCER_BYTES ||
        (q[22] > PRODUCER_BATCHES && !PLANTED(PLANT_PRODUCER_BATCHES)) ||
        end - q - SNAPSHOT_PRODUCER_BYTES < q[22] * SNAPSHOT_BATCH_BYTES)
        return NULL;
    i64 id = (i64)get_le64(q);
    struct producer *e = producer_find(p, id);
    if (!e)
        e = producer_add(p, id);
    e->last_ms = (i64)get_le64(q + 8);
    e->epoch = (i16)get_le16(q + 16);
    e->coordinator_epoch = (i32)get_le32(q + 18);
    e->batch_count = q[22];
    q += SNAPSHOT_PRODUCER_BYTES;
    for (u32 i = 0; i < e->batch_count; i++, q += SNAPSHOT_BATCH_BYTES)
        e->batches[i] = (struct producer_batch){ (i32)get_le32(q), (i32)get_le32(q + 4),
                                                 (i64)get_le64(q + 8), (i64)get_le64(q + 16) };
    return q;
}

err producers_restore(struct partition *p, struct bytes snapshot)
{
    const u8 *q = snapshot.data, *end = q + snapshot.len;
    if (snapshot.len < SNAPSHOT_HEAD_BYTES || q[0] != SNAPSHOT_VERSION)
        return ERR_CORRUPT;
    u32 count = get_le32(q + 1);
    q += SNAPSHOT_HEAD_BYTES;
    for (u32 i = 0; i < count; i++) {
        q = producer_restore(p, q, end);
        if (!q)
            return ERR_CORRUPT;
    }
    return q == end ? ERR_NONE : ERR_CORRUPT;
}
