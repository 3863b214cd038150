/* The end of a clone that lies within a block of its source: batches are copied, through the log
 * like any append, record for record up to the offset that was asked for.
 *
 *  1. Offsets stay what they are: where the source has a gap (it was compacted once), a batch
 *     without records fills it; a batch that goes beyond the end, or began below the log start, is
 *     built anew from the records inside.
 *  2. Batches lose their producer: the clone has none, and whoever writes to it begins anew.
 *  3. How far it is, the target's log end says. So whatever makes it wait, it looks there and reads
 *     on. */
#include "clone.h"

#include "bundle_int.h"
#include "clone_int.h"
#include "crc32c.h"

#define COPY_READ_BYTES ((u32)MIB)
#define COPY_AGAIN_NS (5 * NS_PER_MS)

struct copied {
    struct append append;
    struct clone_copy *copy;
};

static void copy_fire(struct timer *t);

static void copy_later(struct clone_copy *c, u64 ns)
{
    struct shard *s = c->source->st->shard;
    timer_start(&s->timers, &c->timer, s->now_ns + ns, copy_fire);
}

/* False, with the error, when it has waited long enough. */
static bool copy_wait(struct clone_copy *c)
{
    const struct shard *s = c->source->st->shard;
    bool may = s->now_ns < c->deadline_ns && !s->stopping;
    if (may)
        copy_later(c, COPY_AGAIN_NS);
    else
        c->err = s->stopping ? ERR_CANCELED : ERR_TIMED_OUT;
    return may;
}

/* With leat.durability=object what was copied must get into the store yet. */
static void copy_end_if_over(struct clone_copy *c)
{
    if (!c->over || c->inflight > 0)
        return;
    bool waits = c->err == ERR_NONE && c->target->durable_offset < c->target->next_offset;
    if (waits && copy_wait(c))
        return;
    batch_builder_free(&c->builder);
    mem_free(c->raw);
    c->raw = NULL;
    c->done(c);
}

static void copied(struct append *a)
{
    struct copied *k = container_of(a, struct copied, append);
    struct clone_copy *c = k->copy;
    if (c->err == ERR_NONE)
        c->err = a->err;
    mem_free(k);
    c->inflight--;
    copy_end_if_over(c);
}

static err copy_append(struct clone_copy *c, struct bytes batch)
{
    struct batch b;
    err e = batch_parse(batch, &b);
    CHECK(e == ERR_NONE);
    struct copied *k = MEM_NEW(struct copied);
    k->copy = c;
    k->append.early = true;
    e = storage_append(c->target, &b, c->target->leader_epoch, false, -1, &k->append, copied);
    if (e == ERR_NONE)
        c->inflight++;
    else
        mem_free(k);
    return e;
}

/* As it is, but without its producer. */
static err copy_whole(struct clone_copy *c, const struct batch *b)
{
    c->raw = mem_realloc(c->raw, b->bytes);
    memcpy(c->raw, b->data, b->bytes);
    put_be64(c->raw + BATCH_AT_PRODUCER_ID, (u64)BATCH_NO_PRODUCER_ID);
    put_be16(c->raw + BATCH_AT_PRODUCER_EPOCH, (u16)-1);
    put_be32(c->raw + BATCH_AT_BASE_SEQUENCE, (u32)BATCH_NO_SEQUENCE);
    put_be32(c->raw + BATCH_AT_CRC,
             crc32c(0, c->raw + BATCH_AT_ATTRIBUTES, b->bytes - BATCH_AT_ATTRIBUTES));
    return copy_append(c, bytes_of(c->raw, b->bytes));
}

static err records_keep(struct clone_copy *c, const struct batch *b, i64 from, i64 to)
{
    struct compressor *z = reader_compressor(c->source->st);
    struct bytes plain;
    struct record_iter it;
    struct record r;
    err e = batch_decode(z, b, BATCH_DECODED_BYTES_MAX, &plain);
    if (e != ERR_NONE)
        return e;
    record_iter_init(&it, b, plain);
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (r.offset < from || r.offset >= to)
            continue;
        r.offset_delta = (i32)(r.offset - from);
        e = batch_builder_keep(&c->builder, &r);
        if (e != ERR_NONE)
            return e;
    }
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

/* Offsets [from, to), with those of the batch's records that have them. */
static err copy_part(struct clone_copy *c, const struct batch *b, i64 from, i64 to)
{
    struct batch_builder *bb = &c->builder;
    struct bytes out;
    to = MIN(to, from + INT32_MAX);
    batch_builder_reset(bb);
    batch_builder_like(bb, b);
    bb->base_offset = from;
    bb->producer_id = BATCH_NO_PRODUCER_ID;
    bb->producer_epoch = -1;
    bb->base_sequence = BATCH_NO_SEQUENCE;
    bool any = b->record_count > 0 && b->base_offset < to;
    err e = any ? records_keep(c, b, from, to) : ERR_NONE;
    if (e != ERR_NONE)
        return e == ERR_BUSY ? e : ERR_CORRUPT;
    batch_builder_end_at(bb, (i32)(to - 1 - from));
    e = batch_builder_finish(bb, reader_compressor(c->source->st), &out);
    return e == ERR_NONE ? copy_append(c, out) : e;
}

static err copy_batch(struct clone_copy *c, const struct batch *b)
{
    const struct pindex *target = c->target;
    i64 end = batch_last_offset(b) + 1;
    err e = ERR_NONE;
    if (b->base_offset >= c->end_offset)
        return ERR_NONE;
    while (e == ERR_NONE && target->next_offset < b->base_offset)
        e = copy_part(c, b, target->next_offset, b->base_offset);
    if (e != ERR_NONE || target->next_offset >= end)
        return e;
    if (b->base_offset == target->next_offset && end <= c->end_offset)
        return copy_whole(c, b);
    return copy_part(c, b, target->next_offset, MIN(end, c->end_offset));
}

static err copy_extent(struct clone_copy *c, struct bytes data)
{
    err e = ERR_NONE;
    struct batch b;
    while (e == ERR_NONE && data.len > 0) {
        e = batch_next(&data, &b) == ERR_NONE ? ERR_NONE : ERR_CORRUPT;
        if (e == ERR_NONE)
            e = copy_batch(c, &b);
    }
    return e;
}

/* False: it is over, or waits. */
static bool copy_took(struct clone_copy *c)
{
    err e = c->read.err;
    for (u32 i = 0; i < c->read.extent_count; i++) {
        if (e == ERR_NONE)
            e = copy_extent(c, c->read.extents[i].bytes);
        ref_put(c->read.extents[i].ref);
    }
    if (e == ERR_BUSY && c->err == ERR_NONE && copy_wait(c))
        return false;
    if (c->err == ERR_NONE)
        c->err = e;
    c->over = c->err != ERR_NONE || c->read.extent_count == 0;
    return !c->over;
}

static void copy_read_done(struct read_op *op);

static void copy_go(struct clone_copy *c)
{
    do {
        c->read = (struct read_op){ .p = c->source,
                                    .offset = c->target->next_offset,
                                    .end_offset = c->end_offset,
                                    .max_bytes = COPY_READ_BYTES,
                                    .at_least_one = true };
        if (c->target->next_offset < c->end_offset &&
            storage_read(&c->read, copy_read_done) == READ_WAIT)
            return;
    } while (copy_took(c));
    copy_end_if_over(c);
}

static void copy_read_done(struct read_op *op)
{
    struct clone_copy *c = container_of(op, struct clone_copy, read);
    if (copy_took(c))
        copy_go(c);
    else
        copy_end_if_over(c);
}

static void copy_fire(struct timer *t)
{
    struct clone_copy *c = container_of(t, struct clone_copy, timer);
    if (c->over)
        copy_end_if_over(c);
    else
        copy_go(c);
}

void clone_copy_start(struct clone_copy *c, void (*done)(struct clone_copy *c))
{
    CHECK(c->source->st == c->target->st && !c->target->dropped);
    c->done = done;
    c->err = ERR_NONE;
    c->over = false;
    c->inflight = 0;
    c->raw = NULL;
    batch_builder_init(&c->builder, (u32)GIB);
    copy_later(c, 0);
}
