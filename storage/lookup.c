/* Offsets by time (ListOffsets). The index leads to the first batch or block whose max timestamp
 * is late enough; its batches are read and looked into, as Kafka does:
 *
 *   timestamp ≥ 0   the first record with that timestamp or a later one, in offset order
 *   -3              the first of the records with the largest timestamp
 *
 * A header may promise a timestamp that no record has (it is not checked on the way in for
 * compressed batches): then the search goes on behind it.
 *
 * The state of a waiting lookup is in op->private_: next_offset where to go on, end_offset behind
 * what the present place covers, best_* for -3.
 */
#include "bundle_int.h"

#define LOOKUP_MAX_TIMESTAMP (-3)

i64 pindex_local_start(const struct pindex *p)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    bool any = p->entry_head < p->entry_end;
    i64 first = any ? p->entries[p->entry_head].base_offset : p->next_offset;
    return MAX(first, p->start_offset);
}

i64 pindex_tiered_end(const struct pindex *p)
{
    MAGIC_CHECK(p, PINDEX_MAGIC);
    return p->registered_end;
}

struct lookup_state {
    i64 next_offset; /* look at places from here on; -1: ask the index by time */
    i64 end_offset;
};
_Static_assert(sizeof(struct lookup_state) <= sizeof(((struct lookup_op *)0)->private_),
               "storage.h");

static struct lookup_state *state_of(struct lookup_op *op)
{
    return (struct lookup_state *)(void *)op->private_;
}

static enum read_next lookup_go(struct lookup_op *op);

static i64 place_base(const struct place *pl)
{
    return pl->entry != NULL ? pl->entry->base_offset : pl->block->base_offset;
}
static u32 place_bytes(const struct place *pl)
{
    return pl->entry != NULL ? pl->entry->bytes : pl->block->data_bytes;
}
static i64 place_max_timestamp(const struct place *pl)
{
    return pl->entry != NULL ? pl->entry->max_timestamp : pl->block->max_timestamp;
}

/* The next place worth looking into. */
static bool lookup_place(struct lookup_op *op, struct place *pl)
{
    struct lookup_state *s = state_of(op);
    if (op->timestamp == LOOKUP_MAX_TIMESTAMP)
        return s->next_offset < 0 && pindex_place_max_time(op->p, pl);
    if (s->next_offset < 0)
        return pindex_place_time(op->p, op->timestamp, pl);
    while (pindex_place(op->p, s->next_offset, pl)) {
        if (place_max_timestamp(pl) >= op->timestamp)
            return true;
        s->next_offset = place_next_offset(pl);
    }
    return false;
}

/* The batch the log start lies in: its records below it are gone. */
static err first_batch_look(struct lookup_op *op, const struct batch *b)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    err e = batch_decode(reader_compressor(op->p->st), b, BATCH_DECODED_BYTES_MAX, &plain);
    if (e != ERR_NONE)
        return e;
    record_iter_init(&it, b, plain);
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (r.offset < op->p->start_offset || r.timestamp < op->timestamp)
            continue;
        op->offset = r.offset;
        op->found_timestamp = r.timestamp;
        return ERR_NONE;
    }
    return e;
}

/* ERR_NOT_FOUND: not in this batch. */
static err batch_look(struct lookup_op *op, const struct batch *b)
{
    struct storage *st = op->p->st;
    i64 offset, timestamp;
    if (b->max_timestamp < op->timestamp || batch_last_offset(b) < op->p->start_offset)
        return ERR_NOT_FOUND;
    if (b->base_offset < op->p->start_offset)
        return first_batch_look(op, b);
    struct compressor *c = reader_compressor(st);
    err e = batch_find_timestamp(c, b, op->timestamp, BATCH_DECODED_BYTES_MAX, &offset, &timestamp);
    if (e != ERR_NONE)
        return e;
    op->offset = offset;
    op->found_timestamp = timestamp;
    return ERR_NONE;
}

static err batch_look_max(struct lookup_op *op, const struct batch *b)
{
    i64 offset, timestamp;
    bool better = op->offset < 0 || b->max_timestamp > op->found_timestamp;
    if (!better || batch_last_offset(b) < op->p->start_offset)
        return ERR_NOT_FOUND;
    err e = batch_find_max_timestamp(reader_compressor(op->p->st), b, BATCH_DECODED_BYTES_MAX,
                                     &offset, &timestamp);
    if (e != ERR_NONE)
        return e;
    if (op->offset >= 0 && timestamp <= op->found_timestamp)
        return ERR_NOT_FOUND;
    op->offset = MAX(offset, op->p->start_offset);
    op->found_timestamp = timestamp;
    return ERR_NOT_FOUND; /* go on: a later batch may hold a larger one */
}

/* Looks into what was read. ERR_NONE: found; ERR_NOT_FOUND. */
static err lookup_search(struct lookup_op *op)
{
    struct lookup_state *s = state_of(op);
    err e = ERR_NOT_FOUND;
    i64 last = s->next_offset;
    for (u32 i = 0; i < op->read.extent_count && e == ERR_NOT_FOUND; i++) {
        struct bytes rest = op->read.extents[i].bytes;
        struct batch b;
        while (e == ERR_NOT_FOUND && rest.len > 0) {
            if (batch_next(&rest, &b) != ERR_NONE)
                return ERR_CORRUPT;
            if (b.base_offset >= s->end_offset)
                break;
            last = batch_last_offset(&b) + 1;
            e = op->timestamp == LOOKUP_MAX_TIMESTAMP ? batch_look_max(op, &b) : batch_look(op, &b);
        }
    }
    s->next_offset = last;
    if (op->timestamp == LOOKUP_MAX_TIMESTAMP && e == ERR_NOT_FOUND && last >= s->end_offset)
        e = op->offset >= 0 ? ERR_NONE : ERR_NOT_FOUND;
    return e;
}

static void lookup_read_done(struct read_op *read)
{
    struct lookup_op *op = container_of(read, struct lookup_op, read);
    if (lookup_go(op) == READ_DONE)
        op->done(op);
}

/* Begins the read of [from, end of the place). */
static enum read_next lookup_read(struct lookup_op *op, i64 from, u32 bytes)
{
    op->read = (struct read_op){ .p = op->p,
                                 .offset = MAX(from, op->p->start_offset),
                                 .end_offset = state_of(op)->end_offset,
                                 .max_bytes = bytes,
                                 .at_least_one = true };
    return storage_read(&op->read, lookup_read_done);
}

/* What a finished read means. True: the lookup is over. Else it begins again where it is; without
 * any batch, compaction or the log start took away what the index led to: from the beginning. */
static bool lookup_took(struct lookup_op *op)
{
    struct lookup_state *s = state_of(op);
    op->err = op->read.err;
    if (op->err == ERR_NONE) {
        i64 before = s->next_offset;
        err e = lookup_search(op);
        for (u32 i = 0; i < op->read.extent_count; i++)
            ref_put(op->read.extents[i].ref);
        if (op->read.extent_count == 0 && op->read.offset < s->end_offset) {
            op->err = ERR_OFFSET_OUT_OF_RANGE;
            return false;
        }
        if (e == ERR_NOT_FOUND && op->read.extent_count > 0 && s->next_offset > before)
            return false;
        if (e != ERR_NOT_FOUND)
            op->err = e;
        return true;
    }
    /* The log start moved meanwhile: what was there is gone, begin again behind it. */
    return op->err != ERR_OFFSET_OUT_OF_RANGE || op->p->dropped;
}

/* Entered at the start (read.done == NULL) and when a read is over. */
static enum read_next lookup_go(struct lookup_op *op)
{
    struct lookup_state *s = state_of(op);
    bool have = op->read.done != NULL;
    for (;;) {
        if (have && lookup_took(op))
            return READ_DONE;
        if (have && op->err == ERR_OFFSET_OUT_OF_RANGE) {
            *s = (struct lookup_state){ .next_offset = -1 };
            op->offset = op->found_timestamp = -1;
        }
        op->err = ERR_NONE;
        i64 from = s->next_offset;
        u32 bytes = UINT32_MAX;
        if (op->timestamp != LOOKUP_MAX_TIMESTAMP || from < 0) {
            struct place pl;
            if (!lookup_place(op, &pl))
                return READ_DONE;
            from = MAX(place_base(&pl), s->next_offset);
            s->end_offset = place_next_offset(&pl);
            bytes = place_bytes(&pl);
        }
        if (lookup_read(op, from, bytes) == READ_WAIT)
            return READ_WAIT;
        have = true;
    }
}

enum read_next storage_lookup(struct lookup_op *op, void (*done)(struct lookup_op *op))
{
    MAGIC_CHECK(op->p, PINDEX_MAGIC);
    op->done = done;
    op->err = ERR_NONE;
    op->offset = op->found_timestamp = -1;
    op->read = (struct read_op){ .p = op->p };
    *state_of(op) = (struct lookup_state){ .next_offset = -1 };
    if (op->p->dropped) {
        op->err = ERR_UNKNOWN_TOPIC_OR_PARTITION;
        return READ_DONE;
    }
    return lookup_go(op);
}
