/* The memory of the index: the arrays of every partition's entries and blocks.
 *
 * What grows it is appends: 32 bytes for each batch that lies in an image or is not registered yet,
 * 48 for each block of an object that retention keeps. index.memory bounds the sum over all shards,
 * each has its even share. Reached, an append
 *  1. lets go of images whose segments are registered: their batches are found in blocks,
 *  2. gives back what arrays have beyond their need,
 *  3. seals the open segment, so that it becomes blocks,
 *  4. finds no room (ERR_BUSY), as with a full log: producers wait, consumers go on.
 * What is in the log already still gets its blocks, compaction still swaps them, and a start loads
 * all there is: the sum may be somewhat above the bound, and nothing is lost for want of room.
 * Retention, DeleteRecords, deleted topics and compaction make room, and a larger index.memory.
 */
#include "storage_int.h"

void *index_array(struct pindex *p, void *v, u32 *cap, u32 to, size_t item_bytes)
{
    struct storage *st = p->st;
    CHECK(st->index_bytes >= (u64)*cap * item_bytes);
    bool less = to < *cap;
    st->index_bytes += (u64)to * item_bytes;
    st->index_bytes -= (u64)*cap * item_bytes;
    *cap = to;
    if (to > 0) {
        v = mem_realloc(v, to * item_bytes);
    } else {
        mem_free(v);
        v = NULL;
    }
    if (less && st->index_full)
        storage_room_made(st);
    return v;
}

static u64 index_share(const struct storage *st)
{
    return config_u64(st->shard->cfg, CFG_index_memory) / st->shard->group->count;
}

bool index_fits(const struct storage *st, u64 more)
{
    return st->index_bytes + more < index_share(st);
}

/* Moves the live ones to the front and gives back what a quarter of the array does not need. */
static void *array_pack(struct pindex *p, void *v, u32 *head, u32 *end, u32 *cap, size_t item_bytes)
{
    u32 live = *end - *head;
    if (live >= *cap / 4)
        return v;
    if (live > 0)
        memmove(v, (u8 *)v + *head * item_bytes, live * item_bytes);
    *head = 0;
    *end = live;
    return index_array(p, v, cap, live > 0 ? live + live / 2 + 2 : 0, item_bytes);
}

static void index_pack(struct storage *st)
{
    struct pindex *p, *next;
    HASH_ITER(hh, st->parts, p, next) {
        p->entries = array_pack(p, p->entries, &p->entry_head, &p->entry_end, &p->entry_cap,
                                sizeof *p->entries);
        p->blocks = array_pack(p, p->blocks, &p->block_head, &p->block_end, &p->block_cap,
                               sizeof *p->blocks);
    }
}

bool index_room(struct storage *st)
{
    bool evicted = !index_fits(st, 0) && image_evict_registered(st);
    while (evicted && !index_fits(st, 0))
        evicted = image_evict_registered(st);
    if (!index_fits(st, 0))
        index_pack(st);
    bool full = !index_fits(st, 0);
    if (full && st->wal.open && st->wal.open->used > 0)
        wal_seal(st); /* uploaded, its batches are blocks */
    if (full && !st->index_full)
        LOG(WARN, index_full,
            "shard=%u bytes=%" PRIu64 " bound=%" PRIu64
            " effect=\"producers wait, consumers go on\" remedy=\"raise index.memory, or keep less "
            "(retention)\"",
            st->shard->index, st->index_bytes, index_share(st));
    st->index_full = full;
    if (full)
        storage_count(st, M_index_waits, 1);
    return !full;
}
