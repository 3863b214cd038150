/* What goes into an upload: which segments together, and into which objects.
 *
 *   segments   [A B c d A][A B B e  ][A A c B  ]      waiting, and no slot is free for each
 *                   └─────────┴───────────┘
 *   objects    b/ c c · d · e      r/ A A A A A      r/ B B B B
 *
 *  1. A segment that can be uploaded at once in a slot of its own is not gathered: what is
 *     uploaded is safe from the loss of this disk. When more segments wait than there are free
 *     slots, each slot takes its share. So the further uploads are behind, the larger the objects,
 *     and the fewer.
 *  2. What a partition has in all of them is put together. From a part of a run on (RUN_PERCENT) it
 *     is an object of its own, a run, which merging leaves alone (merge.c): its bytes are put once.
 *     The rest is a bundle.
 *     RUN_PERCENT: an object more costs a PUT, merging later the GETs and a part of a PUT. At list
 *     prices of S3 both are the same at 9 MiB, not counting the bytes themselves; a full segment of
 *     one partition (8 MiB) is to be enough. On a local store requests are not billed, and bytes
 *     are what there is too little of: half of that. Where uploads that producers wait for need
 *     much of what the store takes (flow.h), what merging carries is taken from them, and half a
 *     block (store.block_bytes) is enough.
 *  3. Memory: images of gathered segments can't be given away until they are put, however long the
 *     store is away. They are the oldest that wait, which would be the last to go anyway; at most
 *     half of what there is is held (HELD_PART), and only what is in memory is gathered: nothing is
 *     read back for it.
 *  4. All of an upload is registered at once and frees its part of the log at once. It is bounded
 *     by bytes (GATHER_RUNS), segments, and batches, since a turn of the shard walks over them.
 *  5. Segments that producers wait for (ack.c) are no exception: they are gathered only where they
 *     would have to wait for a slot anyway, and their objects are put side by side (uploader.c).
 *     What went into a bundle would cross the link to the store a second time, and what they get of
 *     a link that is full would be half.
 *
 * Large batches lie in the segment so that they can be written from there without a copy, as long
 * as their block begins where storage_append thought (bundle_int.h): with each segment. So on a
 * disk a block of large batches ends with its segment; elsewhere it goes on. */
#include <stdint.h>

#include "clock.h"
#include "compact_int.h"
#include "uploader_int.h"

#define RUN_PERCENT 20u
#define RUN_PERCENT_LOCAL 10u
#define GATHER_RUNS 4u
#define GATHER_BYTES_MAX (512 * MIB)
#define GATHER_BATCHES_MAX 16384u
#define HELD_PART 2u

struct gather_part { /* a partition with batches in the upload */
    struct pindex *p;
    u64 bytes;
    bool run;
};

struct gather {
    struct upload *u;
    struct gather_part *parts; /* in order of their first batch */
    u32 part_count;
    u64 run_bytes, run_min;
};

static u64 run_bytes(const struct storage *st)
{
    return config_u64(st->env->cfg, CFG_store_run_bytes);
}

static u64 run_bytes_min(const struct storage *st)
{
    struct store *store = st->env->store;
    if (store->driver->local)
        return run_bytes(st) * RUN_PERCENT_LOCAL / 100;
    u64 bytes = run_bytes(st) * RUN_PERCENT / 100;
    bool busy = flow_is_busy(&store->flow, clock_mono_ns());
    return busy ? MIN(bytes, config_u64(st->env->cfg, CFG_store_block_bytes) / 2) : bytes;
}

/* ---- segments ---- */

u32 gather_count(struct storage *st, struct segment *first, u32 share, u32 held)
{
    u32 room = MIN(st->wal.slot_count, st->image_count) / HELD_PART;
    u64 bytes_max = MIN(GATHER_RUNS * run_bytes(st), GATHER_BYTES_MAX);
    u64 bytes = first->used;
    u32 batches = first->batch_count, n = 1;
    struct segment *seg = segment_next(st, first);
    for (; n < MIN(share, GATHER_SEGMENTS_MAX); n++, seg = segment_next(st, seg)) {
        if (seg == NULL || seg->state != SEG_DURABLE || seg->upload != NULL || seg->image == NULL ||
            held + n >= room)
            break;
        bytes += seg->used;
        batches += seg->batch_count;
        if (bytes > bytes_max || batches > GATHER_BATCHES_MAX)
            break;
    }
    return n;
}

/* ---- partitions ---- */

static u64 bytes_in(const struct storage *st, const struct pindex *p, const struct segment *seg)
{
    const struct entry *e;
    u64 bytes = 0;
    for (u32 n = pindex_segment_entries(p, st, seg->seq, &e); n > 0; n--, e++)
        if (entry_last_offset(e) >= p->start_offset)
            bytes += e->bytes;
    return bytes;
}

static void parts_find(struct gather *g)
{
    struct upload *u = g->u;
    struct storage *st = u->st;
    u32 most = 0;
    for (u32 i = 0; i < u->seg_count; i++)
        most += u->segs[i]->part_count;
    g->parts = mem_alloc(MAX(most, 1u) * sizeof *g->parts);
    st->gather_number++;
    for (u32 i = 0; i < u->seg_count; i++)
        for (u32 k = 0; k < u->segs[i]->part_count; k++) {
            struct pindex *p = u->segs[i]->parts[k];
            if (p == NULL)
                continue;
            if (p->gather_number != st->gather_number) {
                p->gather_number = st->gather_number;
                p->gather_at = g->part_count;
                g->parts[g->part_count++] = (struct gather_part){ .p = p };
            }
            g->parts[p->gather_at].bytes += bytes_in(st, p, u->segs[i]);
        }
}

/* Which of them become runs. Returns for how many objects there must be room. */
static u32 parts_choose(struct gather *g)
{
    struct storage *st = g->u->st;
    u64 objects = 1;
    if (!rewrite_numbers_left(st))
        return 1;
    for (u32 i = 0; i < g->part_count; i++) {
        struct gather_part *part = &g->parts[i];
        u64 more = part->bytes / g->run_bytes + 1;
        if (part->bytes < g->run_min || objects + more > UPLOAD_OBJECTS_MAX ||
            (st->env->ops->mergeable && !st->env->ops->mergeable(st, part->p)))
            continue;
        part->run = true;
        objects += more;
    }
    return (u32)objects;
}

/* ---- objects ---- */

static struct upload_object *object_add(struct upload *u, u64 id)
{
    struct storage *st = u->st;
    struct upload_object *o = &u->objects[u->object_count++];
    u32 wal = st->wal.index | (object_is_run(id) ? RUN_WAL : 0);
    *o = (struct upload_object){ .id = id, .upload = u };
    bundle_name(o->name, id, st->wal.epoch);
    bundle_builder_init(&o->builder, wal, bundle_seq(id), st->wal.epoch,
                        (u32)config_u64(st->env->cfg, CFG_store_block_bytes));
    return o;
}

/* What the partition has in segment i. */
static void part_add(struct upload *u, struct upload_object *o, const struct pindex *p, u32 i)
{
    const struct storage *st = u->st;
    const struct segment *seg = u->segs[i];
    const struct entry *e;
    bool first = st->env->store->driver->local;
    for (u32 n = pindex_segment_entries(p, st, seg->seq, &e); n > 0; n--, e++) {
        u32 at = (u32)(entry_lsn(e) % st->wal.segment_bytes);
        CHECK((u64)at + e->bytes <= seg->used);
        if (entry_last_offset(e) < p->start_offset)
            continue; /* deleted already */
        if (first && e->bytes >= BUNDLE_LARGE_BATCH)
            bundle_builder_break(&o->builder);
        first = false;
        bundle_builder_add(&o->builder, &p->key, e->base_offset, entry_last_offset(e),
                           e->max_timestamp, bytes_of(u->loads[i].image->bytes + at, e->bytes));
    }
}

static void run_add(struct gather *g, const struct gather_part *part)
{
    struct upload *u = g->u;
    struct storage *st = u->st;
    struct upload_object *o = NULL;
    u64 left = part->bytes, in = 0; /* of this run */
    for (u32 i = 0; i < u->seg_count; i++) {
        u64 bytes = bytes_in(st, part->p, u->segs[i]);
        if (bytes == 0)
            continue;
        if (o == NULL || (in >= g->run_bytes && left >= g->run_min)) {
            o = object_add(u, run_id(st->wal.index, st->wal.epoch, RUN_FRESH | st->run_number++));
            in = 0;
        }
        part_add(u, o, part->p, i);
        in += bytes;
        left -= bytes;
    }
    u->run_data_bytes += part->bytes;
}

static void bundle_add(struct gather *g)
{
    struct upload *u = g->u;
    struct upload_object *o = NULL;
    for (u32 i = 0; i < g->part_count; i++) {
        if (g->parts[i].run || g->parts[i].bytes == 0)
            continue;
        if (o == NULL)
            o = object_add(u, bundle_id(u->st->wal.index, u->segs[0]->seq));
        for (u32 k = 0; k < u->seg_count; k++)
            part_add(u, o, g->parts[i].p, k);
    }
}

void gather_build(struct upload *u)
{
    struct gather g = { .u = u, .run_bytes = run_bytes(u->st), .run_min = run_bytes_min(u->st) };
    CHECK(u->objects == NULL && u->object_count == 0);
    u->bytes = u->loads[0].image->bytes;
    parts_find(&g);
    u32 room = parts_choose(&g);
    u->objects = mem_alloc(room * sizeof *u->objects);
    u->run_data_bytes = 0;
    bundle_add(&g);
    for (u32 i = 0; i < g.part_count; i++)
        if (g.parts[i].run)
            run_add(&g, &g.parts[i]);
    CHECK(u->object_count <= room);
    mem_free(g.parts);
}

void gather_moved(struct upload *u)
{
    const u8 *from = u->bytes, *to = u->loads[0].image->bytes;
    CHECK(u->seg_count == 1);
    for (u32 i = 0; i < u->object_count && to != from; i++) {
        struct bundle_builder *b = &u->objects[i].builder;
        for (u32 k = 0; k < b->part_count; k++) {
            uintptr_t at = (uintptr_t)b->parts[k].data - (uintptr_t)from;
            if (at < u->st->wal.segment_bytes)
                b->parts[k].data = to + at;
        }
    }
    u->bytes = to;
}

void gather_free(struct upload *u)
{
    for (u32 i = 0; i < u->object_count; i++) {
        bundle_builder_free(&u->objects[i].builder);
        mem_free(u->objects[i].registered);
    }
    mem_free(u->objects);
    u->objects = NULL;
    u->object_count = 0;
}
