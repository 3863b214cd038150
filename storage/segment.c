/* Segments and their images.
 *
 * A segment is wal.segment_bytes of the log; its image, while it has one, is the same bytes in
 * memory: write buffer of the WAL, source of uploads, what tail readers are sent from.
 *
 * Invariants
 *  1. live[] is dense by sequence: live[i] has seq live_first + i, or is gone (NULL).
 *  2. An image belongs to at most one segment and is in exactly one place: the free list, the
 *     list of sealed images (oldest first), the open segment, or a spare of a load.
 *  3. Only an image with no references whose segment is REGISTERED, or DURABLE (then reads and
 *     the upload go to the WAL file), may be taken away. OPEN and SEALED ones are still being
 *     written from. Without a file (wal.path=none) only REGISTERED ones.
 *  4. A segment object lives until it is registered, its slot is free (seq < trimmed_seq), and it
 *     has neither image nor pins.
 *
 * Memory: at most image_max images plus spare_max for uploads of evicted segments. What is uploaded
 * and no longer wanted is used again first. The first few images are waited for; more are made at a
 * pace while uploads are behind, because a first touch costs up to 1.7 s of CPU a GiB (measured),
 * and meanwhile what waits for its upload gives way, the youngest first: it is read back later for
 * 0.15 s a GiB and the disk's time. What was of no use for memory.keep goes back to the system. */
#include <stdio.h>

#include "batch.h"
#include "storage_int.h"

#define SNAP_BLOCK_BYTES 4096u
#define SNAP_BYTES_MAX GIB
/* Tailing readers are rarely later than this. */
#define IMAGE_KEEP_NS NS_PER_S
/* So many images a shard are there as soon as they are needed; the node takes one more this often:
 * while their memory is touched for the first time they cost more than they save. */
#define IMAGES_FEW 16u
#define IMAGE_GROW_NS (100 * NS_PER_MS)
/* Giving memory back: so often, so many images a turn. */
#define GIVE_BACK_NS NS_PER_S
#define GIVE_BACK_MAX 8u

/* ---- references ---- */

void ref_get(struct ref *r)
{
    MAGIC_CHECK(r, REF_MAGIC);
    r->count++;
}

void ref_put(struct ref *r)
{
    MAGIC_CHECK(r, REF_MAGIC);
    CHECK(r->count > 0);
    if (--r->count == 0 && r->released)
        r->released(r);
}

/* ---- images ---- */

static void image_released(struct ref *r)
{
    struct image *im = container_of(r, struct image, ref);
    /* An append may have been refused because every image was held. */
    if (im->seg && !list_empty(&im->st->room_waiters))
        storage_room_made(im->st);
}

static u8 *image_memory(const struct storage *st)
{
    return mem_map(st->wal.segment_bytes, config_bool(st->env->cfg, CFG_memory_huge_pages));
}

static struct image *image_of(struct storage *st, u8 *p)
{
    if (!p)
        return NULL;
    struct image *im = MEM_NEW(struct image);
    ref_init(&im->ref, image_released);
    im->bytes = p;
    im->st = st;
    list_init(&im->link);
    return im;
}

static void image_unmap(struct storage *st, struct image *im)
{
    CHECK(im->ref.count == 0);
    mem_unmap(im->bytes, st->wal.segment_bytes);
    MAGIC_POISON(&im->ref);
    mem_free(im);
}

static void image_detach(struct storage *st, struct image *im)
{
    struct segment *seg = im->seg;
    CHECK(im->ref.count == 0);
    CHECK(seg->state == SEG_REGISTERED || seg->state == SEG_DURABLE);
    list_remove(&im->link);
    im->seg = NULL;
    im->free_ns = seg->sealed_ns; /* what its memory was last of use for */
    seg->image = NULL;
    list_push_front(&st->free_images, &im->link); /* the one most likely still in a cache */
    MEM_POISON(im->bytes, st->wal.segment_bytes);
    if (seg->state != SEG_REGISTERED)
        return;
    for (u32 i = 0; i < seg->part_count; i++)
        if (seg->parts[i])
            pindex_trim_entries(seg->parts[i]);
}

/* Frees one image that nobody uses and that is older than keep_ns. Of those that are uploaded the
 * oldest; of those that are only durable the youngest, and never the one that is uploaded next: it
 * would have to be read back at once. */
static bool image_evict(struct storage *st, enum segment_state state, u64 keep_ns)
{
    if (state == SEG_DURABLE && st->wal.memory)
        return false; /* the image is the log */
    bool oldest = state == SEG_REGISTERED;
    struct list *head = &st->sealed_images;
    for (struct list *it = oldest ? head->next : head->prev; it != head;
         it = oldest ? it->next : it->prev) {
        struct image *im = list_entry(it, struct image, link);
        if (im->ref.count > 0 || im->seg->state != state ||
            im->seg->seq == st->wal.registered_seq ||
            st->shard->now_ns - im->seg->sealed_ns < keep_ns)
            continue;
        image_detach(st, im);
        return true;
    }
    return false;
}

bool image_evict_one(struct storage *st)
{
    if (image_evict(st, SEG_REGISTERED, 0) || image_evict(st, SEG_DURABLE, 0))
        return true;
    struct segment *next = segment_first_unregistered(st);
    if (!next || st->wal.memory || next->state != SEG_DURABLE || !next->image ||
        next->image->ref.count > 0)
        return false;
    image_detach(st, next->image);
    return true;
}

/* ---- memory that is given back ---- */

static void image_remove(struct storage *st, struct image *im)
{
    u32 i = 0;
    while (st->images[i] != im)
        i++;
    st->images[i] = st->images[--st->image_count];
    list_remove(&im->link);
    io_unregister_region(st->shard->io, im->bytes);
    image_unmap(st, im);
}

/* One image that nothing was written to for keep_ns, out of the free ones or the uploaded ones. */
static bool image_give_back(struct storage *st, u64 keep_ns)
{
    if (list_empty(&st->free_images) && !image_evict(st, SEG_REGISTERED, keep_ns))
        return false;
    struct image *im = list_entry(st->free_images.prev, struct image, link);
    if (st->shard->now_ns - im->free_ns < keep_ns)
        return false;
    image_remove(st, im);
    return true;
}

static void images_give_back(struct timer *t)
{
    struct storage *st = container_of(t, struct storage, image_timer);
    i64 keep_ms = config_i64(st->env->cfg, CFG_memory_keep_ms);
    u32 n = 0;
    while (keep_ms >= 0 && n < GIVE_BACK_MAX && st->image_count > 1 &&
           image_give_back(st, (u64)keep_ms * NS_PER_MS))
        n++;
    if (st->image_count > 1)
        timer_start(&st->shard->timers, t, st->shard->now_ns + GIVE_BACK_NS, images_give_back);
}

bool image_evict_registered(struct storage *st)
{
    return image_evict(st, SEG_REGISTERED, 0);
}

static bool image_add(struct storage *st, u8 *memory)
{
    struct image *im = image_of(st, memory);
    if (!im)
        return false;
    /* Best effort: unregistered memory works, it only costs page pinning per write. */
    (void)io_register_region(st->shard->io, im->bytes, st->wal.segment_bytes);
    st->images = mem_realloc(st->images, (st->image_count + 1) * sizeof(struct image *));
    st->images[st->image_count++] = im;
    im->free_ns = st->shard->now_ns;
    list_push_front(&st->free_images, &im->link);
    if (st->image_count > 1 && !timer_armed(&st->image_timer) && !st->stopping)
        timer_start(&st->shard->timers, &st->image_timer, st->shard->now_ns + GIVE_BACK_NS,
                    images_give_back);
    return true;
}

/* storage.env and wal.segment_bytes do not change after start. */
static void image_job_run(struct bg_job *j)
{
    struct storage *st = container_of(j, struct storage, image_job);
    st->image_bytes = image_memory(st);
    if (st->image_bytes)
        mem_touch(st->image_bytes, st->wal.segment_bytes);
}

static void image_job_done(struct bg_job *j)
{
    struct storage *st = container_of(j, struct storage, image_job);
    st->job_count--;
    if (!image_add(st, st->image_bytes)) {
        LOG(WARN, segment_memory_refused,
            "shard=%u bytes=%u images=%u effect=\"no more are asked for\" remedy=\"lower "
            "memory.budget, or give the process more\"",
            st->shard->index, st->wal.segment_bytes, st->image_count);
        st->image_max = st->image_count;
    }
    storage_room_made(st);
}

/* The stall of touching new memory, some 25 ms an image, is not the shard's. */
static void image_prepare(struct storage *st)
{
    if (st->image_job.busy || st->stopping || st->image_count >= st->image_max)
        return;
    st->job_count++;
    st->image_grow_ns = st->shard->now_ns + IMAGE_GROW_NS * st->shard->group->count;
    bg_submit(st->shard, &st->image_job, BG_PUT, image_job_run, image_job_done);
}

static bool image_registered_any(const struct storage *st)
{
    list_for(it, &st->sealed_images) {
        const struct segment *seg = list_entry(it, struct image, link)->seg;
        CHECK(seg != NULL);
        if (seg->state == SEG_REGISTERED)
            return true;
    }
    return false;
}

/* More memory: the first few images whenever there is none to use again, so that no segment has to
 * wait for its own; more at a pace while what waits for its upload fills a good part of them. */
static void images_grow(struct storage *st)
{
    bool behind = (u64)st->sealed_unregistered * 100 > (u64)st->image_count * UPLOADS_RELAXED;
    if (st->image_count < IMAGES_FEW ? !image_registered_any(st)
                                     : behind && st->shard->now_ns >= st->image_grow_ns)
        image_prepare(st);
}

/* False: none now; room is told when there is one. */
static bool image_find(struct storage *st)
{
    if (!list_empty(&st->free_images) || image_evict(st, SEG_REGISTERED, IMAGE_KEEP_NS))
        return true;
    if (st->image_count == 0 && image_add(st, image_memory(st)))
        return true;
    if (st->image_count < IMAGES_FEW)
        image_prepare(st);
    if (image_evict(st, SEG_REGISTERED, 0))
        return true;
    /* Later, the log does not wait for memory: one segment read back costs less than producers that
     * stand still. */
    if (st->image_count >= IMAGES_FEW && image_evict(st, SEG_DURABLE, 0))
        return true;
    image_prepare(st);
    return !st->image_job.busy && image_evict_one(st);
}

static struct image *image_acquire(struct storage *st)
{
    if (!image_find(st))
        return NULL;
    struct list *l = list_pop_front(&st->free_images);
    CHECK(l != NULL);
    /* The next one is made ready while this one fills. */
    if (list_empty(&st->free_images))
        images_grow(st);
    struct image *im = list_entry(l, struct image, link);
    MEM_UNPOISON(im->bytes, st->wal.segment_bytes);
    return im;
}

/* ---- segments ---- */

const char *segment_state_name(enum segment_state s)
{
    switch (s) {
    case SEG_OPEN:
        return "open";
    case SEG_SEALED:
        return "sealed";
    case SEG_DURABLE:
        return "durable";
    case SEG_UPLOADING:
        return "uploading";
    case SEG_REGISTERED:
        return "registered";
    }
    return "?";
}

static bool segment_may_become(enum segment_state from, enum segment_state to)
{
    switch (from) {
    case SEG_OPEN:
        return to == SEG_SEALED;
    case SEG_SEALED:
        return to == SEG_DURABLE;
    case SEG_DURABLE:
        return to == SEG_UPLOADING;
    case SEG_UPLOADING:
        return to == SEG_REGISTERED || to == SEG_DURABLE;
    case SEG_REGISTERED:
        return false;
    }
    return false;
}

void segment_set_state(struct segment *seg, enum segment_state to)
{
    MAGIC_CHECK(seg, SEGMENT_MAGIC);
    CHECK(segment_may_become(seg->state, to));
    seg->state = to;
}

struct segment *segment_find(struct storage *st, u64 seq)
{
    if (seq < st->live_first || seq - st->live_first >= st->live_count)
        return NULL;
    return st->live[seq - st->live_first];
}

struct segment *segment_next(struct storage *st, const struct segment *seg)
{
    return segment_find(st, seg->seq + 1);
}

struct segment *segment_first_unregistered(struct storage *st)
{
    return segment_find(st, st->wal.registered_seq);
}

static void live_add(struct storage *st, struct segment *seg)
{
    if (st->live_count == 0)
        st->live_first = seg->seq;
    CHECK(seg->seq == st->live_first + st->live_count);
    if (st->live_count == st->live_cap) {
        st->live_cap = MAX(16u, st->live_cap * 2);
        st->live = mem_realloc(st->live, st->live_cap * sizeof(struct segment *));
    }
    st->live[st->live_count++] = seg;
}

struct segment *segment_new(struct storage *st, u64 seq, bool with_image)
{
    struct image *im = with_image ? image_acquire(st) : NULL;
    if (with_image && !im)
        return NULL;
    struct segment *seg = MEM_NEW(struct segment);
    MAGIC_INIT(seg, SEGMENT_MAGIC);
    seg->state = SEG_OPEN;
    seg->seq = seq;
    seg->image = im;
    seg->opened_ns = st->shard->now_ns;
    arena_init(&seg->snap_arena, SNAP_BLOCK_BYTES, SNAP_BYTES_MAX);
    if (im)
        im->seg = seg;
    live_add(st, seg);
    return seg;
}

void segment_add_part(struct segment *seg, struct pindex *p)
{
    if (p->last_seq == (i64)seg->seq)
        return;
    CHECK(p->last_seq < (i64)seg->seq);
    p->last_seq = (i64)seg->seq;
    if (seg->part_count == seg->part_cap) {
        seg->part_cap = MAX(4u, seg->part_cap * 2);
        seg->parts = mem_realloc(seg->parts, seg->part_cap * sizeof(struct pindex *));
    }
    seg->parts[seg->part_count++] = p;
}

void segment_forget_part(struct storage *st, struct pindex *p)
{
    for (u32 i = 0; i < st->live_count; i++) {
        struct segment *seg = st->live[i];
        for (u32 k = 0; seg && k < seg->part_count; k++)
            if (seg->parts[k] == p)
                seg->parts[k] = NULL;
        for (u32 k = 0; seg && k < seg->snap_count; k++)
            if (seg->snaps[k].p == p)
                seg->snaps[k].p = NULL;
    }
}

static void segment_free(struct segment *seg)
{
    MAGIC_CHECK(seg, SEGMENT_MAGIC);
    CHECK(seg->pins == 0);
    CHECK(seg->upload == NULL);
    arena_free(&seg->snap_arena);
    mem_free(seg->snaps);
    mem_free(seg->parts);
    MAGIC_POISON(seg);
    mem_free(seg);
}

void segments_sweep(struct storage *st)
{
    for (u32 i = 0; i < st->live_count; i++) {
        struct segment *seg = st->live[i];
        if (!seg || seg->state != SEG_REGISTERED || seg->image || seg->pins > 0 ||
            seg->seq >= st->wal.trimmed_seq)
            continue;
        st->live[i] = NULL;
        segment_free(seg);
    }
    u32 gone = 0;
    while (gone < st->live_count && !st->live[gone])
        gone++;
    if (gone == 0)
        return;
    st->live_count -= gone;
    st->live_first += gone;
    memmove(st->live, st->live + gone, st->live_count * sizeof(struct segment *));
}

void segments_free(struct storage *st)
{
    timer_stop(&st->shard->timers, &st->image_timer);
    for (u32 i = 0; i < st->live_count; i++)
        if (st->live[i])
            segment_free(st->live[i]);
    mem_free(st->live);
    st->live = NULL;
    st->live_count = st->live_cap = 0;
    for (u32 i = 0; i < st->image_count; i++) {
        io_unregister_region(st->shard->io, st->images[i]->bytes);
        image_unmap(st, st->images[i]);
    }
    mem_free(st->images);
    st->images = NULL;
    st->image_count = 0;
    for (struct list *l; (l = list_pop_front(&st->spares));)
        image_unmap(st, list_entry(l, struct image, link));
}

/* ---- snapshots ---- */

/* Value of an s/ key: u8 version 1, 15 bytes 0, the broker's bytes. */
static struct bytes snapshot_wrap(struct arena *a, struct bytes body)
{
    u8 *v = arena_alloc(a, SNAPSHOT_HEAD_BYTES + (u64)body.len);
    if (!v)
        return (struct bytes){ NULL, 0 };
    v[0] = SNAPSHOT_VERSION;
    if (body.len)
        memcpy(v + SNAPSHOT_HEAD_BYTES, body.data, body.len);
    return bytes_of(v, SNAPSHOT_HEAD_BYTES + body.len);
}

void segment_take_snapshots(struct storage *st, struct segment *seg)
{
    CHECK(seg->snaps == NULL);
    if (seg->part_count == 0)
        return;
    seg->snaps = mem_alloc(seg->part_count * sizeof(struct segment_snapshot));
    for (u32 i = 0; i < seg->part_count; i++) {
        struct pindex *p = seg->parts[i];
        if (!p)
            continue;
        struct bytes v = st->env->ops->snapshot(st, p, &seg->snap_arena);
        if (v.data)
            v = snapshot_wrap(&seg->snap_arena, v);
        if (v.data)
            seg->snaps[seg->snap_count++] = (struct segment_snapshot){ p, v };
    }
}

/* ---- registration ---- */

void segment_registered(struct storage *st, struct segment *seg)
{
    struct wal *w = &st->wal;
    CHECK(seg->seq == w->registered_seq);
    segment_set_state(seg, SEG_REGISTERED);
    CHECK(st->sealed_unregistered > 0);
    st->sealed_unregistered--;
    w->registered_seq++;
    seg->snap_count = 0;
    arena_free(&seg->snap_arena);
    if (!seg->image)
        for (u32 i = 0; i < seg->part_count; i++)
            if (seg->parts[i])
                pindex_trim_entries(seg->parts[i]);
    ack_registered(st);
    for (u32 i = 0; i < seg->part_count; i++)
        if (seg->parts[i] && seg->parts[i]->advanced) {
            seg->parts[i]->advanced = false;
            if (st->env->ops->durable)
                st->env->ops->durable(st, seg->parts[i]);
        }
    wal_trim(st);
}

void segment_upload_failed(struct storage *st, struct segment *seg)
{
    (void)st;
    segment_set_state(seg, SEG_DURABLE);
}

void segment_unpin(struct storage *st, struct segment *seg)
{
    MAGIC_CHECK(seg, SEGMENT_MAGIC);
    CHECK(seg->pins > 0);
    if (--seg->pins == 0)
        wal_trim(st);
}

/* ---- loading an evicted segment for its upload ---- */

err segment_load_check(const struct storage *st, const struct segment_load *l)
{
    const struct wal *w = &st->wal;
    const struct segment *seg = l->seg;
    u64 base = seg->seq * w->segment_bytes;
    struct wal_cursor c;
    wal_cursor_init(&c, l->image->bytes, w->segment_bytes, base, seg->used, w->tag, seg->epoch);
    struct frame f;
    while (wal_cursor_next(&c, &f))
        ;
    return c.at >= seg->used ? ERR_NONE : ERR_CORRUPT;
}

void segment_load_tell(const struct storage *st, const struct segment_load *l, err e)
{
    const struct wal *w = &st->wal;
    LOG(ERROR, wal_segment_unreadable,
        "shard=%u file=%s offset=%" PRIu64 " error=%s remedy=\"the data in this segment can not be "
        "read back as it was written; inspect it with leat-show\"",
        st->shard->index, w->path, wal_file_offset(w, l->seg->seq * w->segment_bytes), err_name(e));
}

static void segment_load_release(struct storage *st, struct segment_load *l)
{
    st->spare_used--;
    list_push_front(&st->spares, &l->image->link);
    l->image = NULL;
    segment_unpin(st, l->seg);
}

static void segment_load_done(struct io_op *op)
{
    struct segment_load *l = container_of(op, struct segment_load, op);
    struct storage *st = l->image->st;
    l->err = op->err;
    if (l->err == ERR_NONE && op->result < (i64)l->read_bytes)
        l->err = ERR_TRUNCATED;
    if (l->err != ERR_NONE) {
        segment_load_tell(st, l, l->err);
        l->image->ref.count = 0;
        segment_load_release(st, l);
    }
    l->done(l);
}

bool segment_load_begin(struct storage *st, struct segment_load *l, struct segment *seg,
                        void (*done)(struct segment_load *l))
{
    MAGIC_CHECK(seg, SEGMENT_MAGIC);
    struct wal *w = &st->wal;
    *l = (struct segment_load){ .seg = seg, .image = seg->image, .done = done };
    if (l->image) {
        ref_get(&l->image->ref);
        return true;
    }
    struct image *im = NULL;
    if (!list_empty(&st->spares))
        im = list_entry(list_pop_front(&st->spares), struct image, link);
    else if (st->spare_used < st->spare_max)
        im = image_of(st, image_memory(st));
    if (!im) {
        l->err = ERR_BUSY;
        return false;
    }
    st->spare_used++;
    im->ref.count = 1;
    l->image = im;
    l->spare = true;
    l->read_bytes = (u32)MIN(align_up(seg->used, WAL_BLOCK_BYTES), (u64)w->segment_bytes);
    segment_pin(seg);
    io_read(st->shard->io, &l->op, w->fd, im->bytes, l->read_bytes,
            wal_file_offset(w, seg->seq * w->segment_bytes), segment_load_done);
    return false;
}

void segment_load_end(struct storage *st, struct segment_load *l)
{
    if (!l->image)
        return;
    if (!l->spare) {
        ref_put(&l->image->ref);
        l->image = NULL;
        return;
    }
    CHECK(l->image->ref.count == 1);
    l->image->ref.count = 0;
    segment_load_release(st, l);
}
