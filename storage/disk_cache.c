/* Blocks of objects in a file. See disk_cache.h.
 *
 * The file is a ring of pages. Blocks are written one behind the other, each from the beginning
 * of a page on; positions count on for ever (`at`), the place in the file is the position modulo
 * its pages. A block does not go round the end: what is left there is skipped.
 *
 *          tail: entry `first`                    head: next block goes here
 *   ───────────┤ E │ E │ . │ E │ E │ E │ W │ W ├──────────
 *
 * An entry for each block, oldest first, in an array of fixed size that is a ring, too, and one
 * chain a bucket of those that can be found. So memory is bounded whatever is written.
 *
 *   WRITING ──disk_write_ended──► HELD ──bad, or the oldest──► GONE
 *   The pages of one that is GONE are free when it is the oldest.
 *
 *  1. The file begins empty: nothing is believed that this life did not write. So a key needs no
 *     epoch, nothing has to be flushed, and a kill can't hurt.
 *  2. HELD entries are those in the chains; entries between first and next are in the order of
 *     their positions, and their pages do not overlap.
 *  3. An entry knows the hash in its block's header, which covers the header and those of all
 *     batches. What is read must have it, besides all that a block from the store must have:
 *     a write that never arrived leaves a good block there, of another time.
 *  4. Pages that are being written or read are not given away: then the block that wants them is
 *     not kept.
 *  5. While there is room, or the oldest block is of an object that is gone, every block is
 *     kept. Later, one that was asked for twice: the second time within as many blocks as the
 *     array has room for, roughly (`seen` is a table of hashes, each forgets another). Thus one
 *     scan of everything does not sweep it out. A block that was read here is as good as asked
 *     for again when it goes.
 *  6. Writes are no work that anybody waits for: what waits to be written (`offered`) is a block in
 *     memory without a reference, and is forgotten when memory lets go of it.
 *  7. Any error of the disk turns it off until the next start. Reads that wait are told, and go on
 *     to the store.
 */
#include "disk_cache.h"

#include <stdio.h>

#include "hash.h"
#include "place.h"
#include "rooms.h"

#define DISK_CACHE_MAGIC 0xd15c0001u
#define PAGE ROOM_PAGE
/* Of one shard at a time. A disk gives most of what it has to a few large ones, and the log may be
 * on the same. */
#define READS_MAX 4u
#define WRITES_MAX 2u
/* An entry for so many bytes of the file: when blocks are smaller, less of the file is used. */
#ifndef DISK_CACHE_BLOCK_BYTES /* the simulator's blocks are smaller */
#define DISK_CACHE_BLOCK_BYTES ((u64)(64 * KIB))
#endif
#define ENTRIES_MIN 16u
#define PART_MAX 4u /* no block may have more than this part of the file */

enum entry_state { ENTRY_GONE, ENTRY_WRITING, ENTRY_HELD };
struct disk_entry {
    struct cache_key key;
    u64 at;   /* in pages */
    u64 hash; /* of the block's header */
    u32 next; /* in the chain: index + 1; 0: none */
    u8 state;
    bool reading, hit;
};
_Static_assert(sizeof(struct disk_entry) == 40, "docs/bounds.md says so");

struct disk_write {
    struct io_op op;
    struct disk_cache *dc;
    struct cache_block *block; /* NULL: free */
    u64 number;                /* of the entry */
};

struct disk_cache {
    u32 magic;
    bool off;
    struct storage *st;
    io_fd fd;
    char path[512];
    u64 pages;
    struct disk_entry *entries; /* by number modulo entry_cap */
    u32 entry_cap, bucket_mask;
    u32 *buckets;    /* index + 1 of the first in the chain; 0: none */
    u32 *seen;       /* entry_cap of them */
    u64 first, next; /* numbers of entries */
    u64 head;        /* in pages */
    u64 held_bytes;
    u32 reads, writes;                 /* in flight */
    struct list waiting[READ_CLASSES]; /* disk_read.link */
    struct list offered;               /* cache_block.offered */
    struct disk_write writers[WRITES_MAX];
};

static void dc_check(const struct disk_cache *dc)
{
    MAGIC_CHECK(dc, DISK_CACHE_MAGIC);
    CHECK(dc->next - dc->first <= dc->entry_cap);
    CHECK(dc->reads <= READS_MAX);
    CHECK(dc->writes <= WRITES_MAX);
}

static void count_up(const struct disk_cache *dc, enum metric_id id, u64 n)
{
    storage_count(dc->st, id, n);
}

static u64 pages_of(u32 bytes)
{
    return (bytes + (u64)PAGE - 1) / PAGE;
}

static struct disk_entry *entry_of(const struct disk_cache *dc, u64 number)
{
    CHECK(number >= dc->first && number < dc->next);
    return &dc->entries[number % dc->entry_cap];
}

/* ---- which blocks can be found ---- */

static u64 key_hash(const struct cache_key *key)
{
    return hash_bytes(key, sizeof *key);
}

static u32 *chain_of(const struct disk_cache *dc, const struct cache_key *key)
{
    return &dc->buckets[key_hash(key) & dc->bucket_mask];
}

/* The link that leads to its entry, or NULL. */
static u32 *entry_link(const struct disk_cache *dc, const struct cache_key *key)
{
    u32 *link = chain_of(dc, key);
    while (*link != 0) {
        struct disk_entry *e = &dc->entries[*link - 1];
        CHECK(e->state == ENTRY_HELD);
        if (e->key.bundle == key->bundle && e->key.pos == key->pos && e->key.bytes == key->bytes)
            return link;
        link = &e->next;
    }
    return NULL;
}

static void held_add(struct disk_cache *dc, i64 bytes)
{
    dc->held_bytes = (u64)((i64)dc->held_bytes + bytes);
    if (dc->st->shard->metrics != NULL)
        metric_set(dc->st->shard->metrics, M_disk_cache_bytes, dc->held_bytes);
}

static void entry_hold(struct disk_cache *dc, struct disk_entry *e)
{
    CHECK(e->state == ENTRY_WRITING);
    u32 *head = chain_of(dc, &e->key);
    e->state = ENTRY_HELD;
    e->next = *head;
    *head = (u32)(e - dc->entries) + 1;
    held_add(dc, e->key.bytes);
}

static void entry_forget(struct disk_cache *dc, struct disk_entry *e)
{
    CHECK(e->state == ENTRY_HELD);
    u32 *link = entry_link(dc, &e->key);
    CHECK(link != NULL && &dc->entries[*link - 1] == e);
    *link = e->next;
    e->state = ENTRY_GONE;
    held_add(dc, -(i64)e->key.bytes);
}

/* ---- off ---- */

static const char *remedy_of(err e)
{
    if (e == ERR_DISK_FULL)
        return "make room on the disk, or lower store.disk_cache.bytes";
    if (e == ERR_NO_MEMORY)
        return "lower store.disk_cache.bytes";
    return "check the disk and store.disk_cache.path, or set store.disk_cache.bytes=0";
}

static void off_tell(const struct disk_cache *dc, const char *what, err e)
{
    LOG(ERROR, disk_cache_off,
        "shard=%u path=%s what=\"%s\" error=%s text=\"%s\" effect=\"blocks come from the object "
        "store\" remedy=\"%s; then restart\"",
        dc->st->shard->index, dc->path, what, err_name(e), err_text(e), remedy_of(e));
}

static void turn_off(struct disk_cache *dc, const char *what, err e)
{
    count_up(dc, M_disk_cache_errors, 1);
    if (dc->off)
        return;
    dc->off = true;
    off_tell(dc, what, e);
    held_add(dc, -(i64)dc->held_bytes);
    while (list_pop_front(&dc->offered) != NULL)
        ;
    for (u32 i = 0; i < READ_CLASSES; i++) {
        struct list *l;
        while ((l = list_pop_front(&dc->waiting[i])) != NULL) {
            struct disk_read *r = list_entry(l, struct disk_read, link);
            r->err = ERR_CANCELED;
            r->done(r);
        }
    }
}

/* ---- reading ---- */

static void reads_pump(struct disk_cache *dc);

static void disk_read_ended(struct io_op *op)
{
    struct disk_read *r = container_of(op, struct disk_read, op);
    struct disk_cache *dc = r->dc;
    dc_check(dc);
    CHECK(dc->reads > 0);
    dc->reads--;
    r->err = op->err;
    if (r->err == ERR_NONE && op->result != (i64)(pages_of(r->bytes) * PAGE))
        r->err = ERR_TRUNCATED;
    struct disk_entry *e = entry_of(dc, r->number);
    CHECK(e->reading);
    e->reading = false;
    if (r->err != ERR_NONE)
        turn_off(dc, "read", r->err);
    else
        count_up(dc, M_disk_cache_read_bytes, r->bytes);
    reads_pump(dc);
    r->done(r);
}

static void reads_pump(struct disk_cache *dc)
{
    while (dc->reads < READS_MAX) {
        struct list *l = list_pop_front(&dc->waiting[READ_TAIL]);
        if (l == NULL)
            l = list_pop_front(&dc->waiting[READ_CATCHUP]);
        if (l == NULL)
            return;
        struct disk_read *r = list_entry(l, struct disk_read, link);
        dc->reads++;
        io_read(dc->st->shard->io, &r->op, dc->fd, r->room, (u32)(pages_of(r->bytes) * PAGE),
                entry_of(dc, r->number)->at % dc->pages * PAGE, disk_read_ended);
    }
}

bool disk_cache_read(struct storage *st, const struct cache_key *key, u8 *room,
                     enum read_class class, struct disk_read *r, void (*done)(struct disk_read *r))
{
    struct disk_cache *dc = st->disk_cache;
    if (dc == NULL || dc->off)
        return false;
    dc_check(dc);
    const u32 *link = entry_link(dc, key);
    count_up(dc, link != NULL ? M_disk_cache_hits : M_disk_cache_misses, 1);
    if (link == NULL)
        return false;
    u32 index = *link - 1;
    struct disk_entry *e = &dc->entries[index];
    CHECK(!e->reading); /* one load a block: cache.c */
    e->reading = e->hit = true;
    u64 number = dc->first + (index + dc->entry_cap - dc->first % dc->entry_cap) % dc->entry_cap;
    r->dc = dc;
    r->room = room;
    r->bytes = key->bytes;
    r->number = number;
    r->hash = e->hash;
    r->done = done;
    list_init(&r->link);
    list_push_back(&dc->waiting[class], &r->link);
    reads_pump(dc);
    return true;
}

void disk_cache_bad(struct storage *st, const struct cache_key *key)
{
    struct disk_cache *dc = st->disk_cache;
    dc_check(dc);
    count_up(dc, M_disk_cache_bad, 1);
    u32 *link = dc->off ? NULL : entry_link(dc, key);
    if (link != NULL) /* it may have gone since it was read */
        entry_forget(dc, &dc->entries[*link - 1]);
}

/* ---- room ---- */

static bool key_seen(struct disk_cache *dc, const struct cache_key *key, bool mark)
{
    u64 h = key_hash(key);
    u32 *at = &dc->seen[h % dc->entry_cap], print = (u32)(h >> 32) | 1;
    bool was = *at == print;
    if (mark)
        *at = print;
    return was;
}

/* The oldest entry and its pages; false: they are in use, or it is not to go for `key`. */
static bool oldest_goes(struct disk_cache *dc, bool wanted)
{
    struct disk_entry *e = entry_of(dc, dc->first);
    if (e->state == ENTRY_WRITING || e->reading)
        return false;
    if (e->state == ENTRY_HELD) {
        bool dead = retention_bundle(dc->st, e->key.bundle) == NULL;
        if (!dead && !wanted)
            return false;
        if (!dead && e->hit)
            (void)key_seen(dc, &e->key, true);
        count_up(dc, M_disk_cache_evictions, 1);
        entry_forget(dc, e);
    }
    dc->first++;
    return true;
}

/* Where its pages begin: it becomes an entry. False: there is no room for it now. */
static bool entry_place(struct disk_cache *dc, const struct cache_block *b, u64 *number)
{
    u64 n = pages_of(b->key.bytes);
    u64 at = dc->head;
    if (at % dc->pages + n > dc->pages)
        at += dc->pages - at % dc->pages;
    bool wanted = key_seen(dc, &b->key, false);
    while (dc->next > dc->first && (dc->next - dc->first == dc->entry_cap ||
                                    at + n - entry_of(dc, dc->first)->at > dc->pages))
        if (!oldest_goes(dc, wanted)) {
            (void)key_seen(dc, &b->key, true);
            return false;
        }
    *number = dc->next++;
    *entry_of(dc, *number) =
        (struct disk_entry){ .key = b->key, .at = at, .hash = b->hash, .state = ENTRY_WRITING };
    dc->head = at + n;
    return true;
}

/* ---- writing ---- */

static void writes_pump(struct disk_cache *dc);

static void disk_write_ended(struct io_op *op)
{
    struct disk_write *w = container_of(op, struct disk_write, op);
    struct disk_cache *dc = w->dc;
    struct cache_block *b = w->block;
    dc_check(dc);
    CHECK(dc->writes > 0 && b != NULL);
    dc->writes--;
    w->block = NULL;
    struct disk_entry *e = entry_of(dc, w->number);
    if (op->err != ERR_NONE) {
        turn_off(dc, "write", op->err);
    } else if (!dc->off) {
        count_up(dc, M_disk_cache_written_bytes, b->key.bytes);
        entry_hold(dc, e);
    }
    if (dc->off)
        e->state = ENTRY_GONE;
    writes_pump(dc);
    ref_put(&b->ref);
}

static void write_begin(struct disk_cache *dc, struct cache_block *b)
{
    u64 number;
    if (entry_link(dc, &b->key) != NULL)
        return;
    if (!entry_place(dc, b, &number)) {
        count_up(dc, M_disk_cache_refused, 1);
        return;
    }
    struct disk_write *w = dc->writers;
    while (w->block != NULL)
        w++;
    CHECK(w < dc->writers + WRITES_MAX);
    dc->writes++;
    w->dc = dc;
    w->block = b;
    w->number = number;
    cache_hold(b);
    io_write(dc->st->shard->io, &w->op, dc->fd, b->raw, (u32)(pages_of(b->key.bytes) * PAGE),
             entry_of(dc, number)->at % dc->pages * PAGE, false, disk_write_ended);
}

static void writes_pump(struct disk_cache *dc)
{
    while (!dc->off && !dc->st->stopping && dc->writes < WRITES_MAX) {
        struct list *l = list_pop_front(&dc->offered);
        if (l == NULL)
            return;
        write_begin(dc, list_entry(l, struct cache_block, offered));
    }
}

void disk_cache_offer(struct storage *st, struct cache_block *b)
{
    struct disk_cache *dc = st->disk_cache;
    if (dc == NULL || dc->off || st->stopping)
        return;
    dc_check(dc);
    CHECK(b->state == CACHE_READY);
    /* Smaller ones have no pages of their own in memory. */
    if (b->key.bytes < PAGE || pages_of(b->key.bytes) > dc->pages / PART_MAX)
        return;
    list_push_back(&dc->offered, &b->offered);
    writes_pump(dc);
}

bool disk_cache_idle(const struct storage *st)
{
    const struct disk_cache *dc = st->disk_cache;
    return dc == NULL || (dc->reads == 0 && dc->writes == 0);
}

/* ---- life ---- */

static u64 table_bytes(const struct disk_cache *dc)
{
    return (u64)dc->entry_cap * (sizeof *dc->entries + sizeof *dc->seen) +
           ((u64)dc->bucket_mask + 1) * sizeof *dc->buckets;
}

/* Zero pages, touched as entries come. */
static bool tables_make(struct disk_cache *dc)
{
    u64 cap = MAX(dc->pages * PAGE / DISK_CACHE_BLOCK_BYTES, (u64)ENTRIES_MIN);
    dc->entry_cap = (u32)MIN(cap, (u64)1 << 30);
    u32 buckets = 1;
    while (buckets < dc->entry_cap)
        buckets *= 2;
    dc->bucket_mask = buckets - 1;
    u8 *tables = mem_map(table_bytes(dc), false);
    if (tables == NULL)
        return false;
    dc->entries = (struct disk_entry *)(void *)tables;
    dc->seen = (u32 *)(void *)(tables + dc->entry_cap * sizeof *dc->entries);
    dc->buckets = dc->seen + dc->entry_cap;
    return true;
}

static err file_make(struct disk_cache *dc, u64 bytes)
{
    const char *folder = config_str(dc->st->env->cfg, CFG_store_disk_cache_path);
    snprintf(dc->path, sizeof dc->path, "%s/%04x.cache", folder, dc->st->shard->index);
    (void)place_make_folders(folder, 0750); /* what fails here shows when the file is made */
    err e = io_file_open(dc->st->shard->io, dc->path,
                         IO_FILE_CREATE | IO_FILE_DIRECT | IO_FILE_EMPTY, &bytes, &dc->fd);
    if (e == ERR_NONE)
        dc->pages = bytes / PAGE;
    return e;
}

void disk_cache_open(struct storage *st)
{
    u64 bytes = config_u64(st->env->cfg, CFG_store_disk_cache_bytes) /
                MAX(st->env->shard_count, 1) / PAGE * PAGE;
    if (bytes == 0 || st->replaying)
        return;
    struct disk_cache *dc = MEM_NEW(struct disk_cache);
    MAGIC_INIT(dc, DISK_CACHE_MAGIC);
    dc->st = st;
    dc->fd = -1;
    list_init(&dc->offered);
    for (u32 i = 0; i < READ_CLASSES; i++)
        list_init(&dc->waiting[i]);
    st->disk_cache = dc;
    err e = file_make(dc, bytes);
    if (e == ERR_NONE && !tables_make(dc))
        e = ERR_NO_MEMORY;
    if (e != ERR_NONE) {
        count_up(dc, M_disk_cache_errors, 1);
        off_tell(dc, "making the file", e);
        disk_cache_close(st);
        return;
    }
    LOG(INFO, disk_cache_ready,
        "shard=%u path=%s bytes=%" PRIu64 " blocks_max=%u index_bytes=%" PRIu64, st->shard->index,
        dc->path, dc->pages * PAGE, dc->entry_cap, table_bytes(dc));
}

void disk_cache_close(struct storage *st)
{
    struct disk_cache *dc = st->disk_cache;
    if (dc == NULL)
        return;
    CHECK(disk_cache_idle(st));
    CHECK(list_empty(&dc->offered));
    if (dc->fd >= 0)
        io_file_close(st->shard->io, dc->fd);
    if (dc->entries != NULL)
        mem_unmap(dc->entries, table_bytes(dc));
    MAGIC_POISON(dc);
    mem_free(dc);
    st->disk_cache = NULL;
}
