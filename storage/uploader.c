/* The uploader: sealed segments → objects → registrations, oldest first.
 *
 *   segment DURABLE ─► slot: LOAD ─► PUT ─► PLACED ─► COMMIT ─► segment REGISTERED
 *                             ▲       │                 │
 *                             └─ pause┴──── failure ────┘ (a failed commit goes back to PLACED)
 *
 *   LOAD    the segment's bytes: its image, or read back from the WAL file
 *   PUT     one object b/<wal>/<seq>-<epoch>; store.uploads of them side by side
 *   PLACED  the object is complete; waits until all older segments are registered
 *   COMMIT  one metadata transaction, for all that are placed: b/ keys (every block), s/ keys
 *           (snapshots), w/ key
 *
 *  1. Registrations are strictly in order of segments: the w/ key says "all below are registered".
 *  2. A segment becomes REGISTERED, and its WAL slot free, only after its transaction is durable.
 *  3. The blocks enter the index before segment_registered, in the same step: a reader finds each
 *     batch in the WAL or in a block at every moment.
 *  4. Objects that no transaction refers to (a crash between PUT and COMMIT) are harmless: their
 *     name holds the WAL epoch of that life, so no later life writes it again, and scrub.c
 *     finds it. A repeated PUT in the same life replaces the object as a whole.
 *  5. Failures are repeated for ever with growing pauses, except while stopping: then one is
 *     enough, for the WAL holds everything; and after another life has begun (ERR_FENCED).
 *
 * Partitions may be dropped at any moment: slots hold keys, no pointers, and look them up again.
 */
#include "clock.h"
#include "discard.h"

#define UPLOADER_MAGIC 0x0b10ad01u
#define UPLOAD_STEPS(X) \
    X(IDLE, "idle") X(LOAD, "load") X(PUT, "put") X(PLACED, "placed") X(COMMIT, "commit")
/* store.retry doubles up to this many times itself (config.def says so). */
#define RETRY_FACTOR_MAX 20u
/* No spare image was free: another upload is about to give one back. */
#define LOAD_RETRY_NS (20 * NS_PER_MS)
/* An upload this old is told, and again after as long. */
#define UPLOAD_SLOW_NS (30 * NS_PER_S)
/* Uploads are background work: the disk is shared with the WAL, whose flushes wait for everything
 * that was written before them. What is not uploaded yet decides how fast they go, as a part of
 * what the log and the images there are can hold: up to UPLOADS_RELAXED percent at EASE_MIN percent
 * of the rate at which their segment was filled, so that a burst has the disk to itself; from there
 * on faster, up to EASE_MAX, while images grow; so a steady load settles where uploads keep up with
 * it. From HURRIED percent on they are not paced at all, because a full log stops all producers,
 * and an image that has to go before its upload is read back. Nor while producers wait for them
 * (ack.c). Never less than PACE_MIN bytes/s. */
#define EASE_MAX 150u
#define EASE_MIN 20u
#define PACE_MIN (8 * MIB)
#define PACE_TICK_NS (50 * NS_PER_MS)
#define HURRIED 85u
#define COMMIT_BYTES_MAX (1 * GIB)
#define UPLOADS_MAX 64u /* of store.uploads: config.def */

enum upload_step {
#define X(id, name) UPLOAD_##id,
    UPLOAD_STEPS(X)
#undef X
};
static const char *const upload_step_names[] = {
#define X(id, name) name,
    UPLOAD_STEPS(X)
#undef X
};

struct upload {
    enum upload_step step;
    struct storage *st;
    struct segment *seg;
    struct segment_load load;
    struct bundle_builder builder;
    u8 *registered; /* per entry: is in the b/ value */
    char name[BUNDLE_NAME_SIZE];
    struct bg_job job;
    struct arena arena; /* of the commit */
    struct meta_txn txn;
    struct upload *next;      /* registered by the same transaction */
    struct discard_note note; /* nothing of the object is wanted any more */
    err err;
    u64 started_ns, job_ns;
    u64 pace; /* atomic, the job reads it: bytes/s, 0 = as fast as it goes */
    bool awaited;
};

struct uploader {
    u32 magic;
    struct storage *st;
    u32 slot_count, busy;
    struct upload *slots;
    struct timer retry_timer, watch_timer;
    struct timer pace_timer; /* armed while busy */
    bool log_rests;          /* no write to the WAL in the last tick: nothing to give way to */
    u64 seen_writes;
    u64 failing_since_ns;
    bool gave_up; /* stopping and something failed, or fenced */
    bool kicking;
    u64 txn_number;
};

static void observe_since(struct storage *st, enum metric_hist_id id, u64 since_ns)
{
    if (st->shard->metrics != NULL)
        metric_observe(st->shard->metrics, id, (clock_mono_ns() - since_ns) / NS_PER_US);
}

/* Do acknowledgements wait for it? Also for one without such batches before one with them:
 * registrations are in order. */
static bool is_awaited(const struct storage *st, const struct segment *seg)
{
    return seg->object_since_ns != 0 || !list_empty(&st->wal.registering);
}

static void upload_set_step(struct upload *u, enum upload_step to)
{
    enum upload_step from = u->step;
    bool allowed = (from == UPLOAD_IDLE && to == UPLOAD_LOAD) ||
                   (from == UPLOAD_LOAD && (to == UPLOAD_PUT || to == UPLOAD_PLACED)) ||
                   (from == UPLOAD_PUT && to == UPLOAD_PLACED) ||
                   (from == UPLOAD_PLACED && to == UPLOAD_COMMIT) ||
                   (from == UPLOAD_COMMIT && to == UPLOAD_PLACED) || to == UPLOAD_IDLE;
    CHECK(allowed);
    u->step = to;
}

/* ---- life ---- */

err uploader_create(struct storage *st)
{
    struct uploader *up = MEM_NEW(struct uploader);
    MAGIC_INIT(up, UPLOADER_MAGIC);
    up->st = st;
    up->slot_count = (u32)config_u64(st->env->cfg, CFG_store_uploads);
    CHECK(up->slot_count <= UPLOADS_MAX);
    up->slots = mem_alloc(up->slot_count * sizeof *up->slots);
    for (u32 i = 0; i < up->slot_count; i++) {
        up->slots[i].st = st;
        arena_init(&up->slots[i].arena, 16 * KIB, COMMIT_BYTES_MAX);
    }
    st->uploader = up;
    return ERR_NONE;
}

u32 uploader_slots(const struct storage *st)
{
    return st->uploader->slot_count;
}

u32 uploader_puts(const struct storage *st)
{
    const struct uploader *up = st->uploader;
    u32 n = 0;
    for (u32 i = 0; i < up->slot_count; i++)
        n += up->slots[i].step == UPLOAD_PUT;
    return n;
}

bool uploader_idle(const struct storage *st)
{
    const struct uploader *up = st->uploader;
    return up == NULL || (up->busy == 0 && !timer_armed(&up->retry_timer));
}

void uploader_free(struct storage *st)
{
    struct uploader *up = st->uploader;
    if (up == NULL)
        return;
    MAGIC_CHECK(up, UPLOADER_MAGIC);
    CHECK(up->busy == 0);
    timer_stop(&st->shard->timers, &up->retry_timer);
    timer_stop(&st->shard->timers, &up->watch_timer);
    timer_stop(&st->shard->timers, &up->pace_timer);
    for (u32 i = 0; i < up->slot_count; i++)
        arena_free(&up->slots[i].arena);
    mem_free(up->slots);
    MAGIC_POISON(up);
    mem_free(up);
    st->uploader = NULL;
}

/* Told, not acted upon: a slow store is waited for. */
static void watch_fire(struct timer *t)
{
    struct uploader *up = container_of(t, struct uploader, watch_timer);
    struct shard *s = up->st->shard;
    for (u32 i = 0; i < up->slot_count; i++) {
        const struct upload *u = &up->slots[i];
        if (u->step == UPLOAD_IDLE || s->now_ns - u->started_ns < UPLOAD_SLOW_NS)
            continue;
        LOG(WARN, upload_slow, "shard=%u object=%s step=%s seconds=%" PRIu64, s->index, u->name,
            upload_step_names[u->step], (s->now_ns - u->started_ns) / NS_PER_S);
    }
    if (up->busy > 0)
        timer_start(&s->timers, t, s->now_ns + UPLOAD_SLOW_NS, watch_fire);
}

/* ---- one upload ---- */

static void upload_release(struct upload *u)
{
    struct uploader *up = u->st->uploader;
    CHECK(up->busy > 0);
    CHECK(!u->job.busy);
    bundle_builder_free(&u->builder);
    mem_free(u->registered);
    u->registered = NULL;
    arena_reset(&u->arena);
    u->seg->upload = NULL;
    u->seg = NULL;
    upload_set_step(u, UPLOAD_IDLE);
    up->busy--;
}

static const char *failure_remedy(err e)
{
    switch ((int)e) {
    case ERR_DISK_FULL:
        return "free space where store.url and meta.url point";
    case ERR_DENIED:
        return "let the user of leat write where store.url and meta.url point";
    case ERR_CONFLICT:
    case ERR_FENCED:
        return "another process wrote this node's metadata: stop it, then restart this node";
    case ERR_CORRUPT:
        return "the WAL or the metadata fails its checksum: see the error before this one";
    default:
        return "check the object store and the disk (kernel log)";
    }
}

static void retry_fire(struct timer *t)
{
    struct uploader *up = container_of(t, struct uploader, retry_timer);
    uploader_kick(up->st);
}

/* Takes back what waits for its turn: while stopping, what is before it will not get through; after
 * another life has begun, nothing will. */
static void give_up(struct uploader *up)
{
    up->gave_up = up->st->uploads_gave_up = true;
    for (u32 i = 0; i < up->slot_count; i++) {
        struct upload *u = &up->slots[i];
        if (u->step != UPLOAD_PLACED)
            continue;
        segment_upload_failed(up->st, u->seg);
        upload_release(u);
    }
}

/* Pauses the whole uploader: what fails is the store or the metadata, not one segment. */
static void upload_pause(struct uploader *up, const struct upload *u, const char *what, err e)
{
    struct storage *st = up->st;
    if (st->upload_failures == 0)
        up->failing_since_ns = st->shard->now_ns;
    st->upload_failures++;
    st->upload_error = e;
    storage_count(st, M_upload_retries, 1);
    u64 first = config_u64(st->env->cfg, CFG_store_retry_ms) * NS_PER_MS;
    u64 pause = first << MIN(st->upload_failures - 1, 5u);
    pause = MIN(pause, first * RETRY_FACTOR_MAX);
    pause = pause / 2 + rng_below(&st->shard->rng, pause / 2 + 1);
    LOG(WARN, upload_failed,
        "shard=%u what=\"%s\" object=%s error=%s text=\"%s\" failures=%u retry_ms=%" PRIu64
        " remedy=\"%s\"",
        st->shard->index, what, u->name, err_name(e), err_text(e), st->upload_failures,
        st->stopping ? 0 : pause / NS_PER_MS, failure_remedy(e));
    if (st->shard->metrics != NULL)
        metric_set(st->shard->metrics, M_upload_retry_time,
                   (u64)(st->shard->now_ms + (i64)(pause / NS_PER_MS)) / 1000);
    if (!st->stopping)
        timer_start(&st->shard->timers, &up->retry_timer, st->shard->now_ns + pause, retry_fire);
}

static void upload_failed(struct upload *u, const char *what, err e)
{
    struct uploader *up = u->st->uploader;
    upload_pause(up, u, what, e);
    segment_upload_failed(u->st, u->seg);
    upload_release(u);
    if (u->st->stopping)
        give_up(up);
    else
        uploader_kick(u->st);
}

static void pace_fire(struct timer *t);
static void upload_load_done(struct segment_load *l);
static void upload_build(struct upload *u);

/* False: no memory for it now. */
static bool upload_start(struct uploader *up, struct upload *u, struct segment *seg)
{
    struct storage *st = up->st;
    CHECK(u->step == UPLOAD_IDLE && u->seg == NULL);
    CHECK(seg->state == SEG_DURABLE);
    segment_set_state(seg, SEG_UPLOADING);
    seg->upload = u;
    u->seg = seg;
    u->err = ERR_NONE;
    u->started_ns = st->shard->now_ns;
    bundle_name(u->name, bundle_id(st->wal.index, seg->seq), st->wal.epoch);
    up->busy++;
    if (!timer_armed(&up->watch_timer))
        timer_start(&st->shard->timers, &up->watch_timer, st->shard->now_ns + UPLOAD_SLOW_NS,
                    watch_fire);
    if (!timer_armed(&up->pace_timer))
        timer_start(&st->shard->timers, &up->pace_timer, st->shard->now_ns + PACE_TICK_NS,
                    pace_fire);
    upload_set_step(u, UPLOAD_LOAD);
    if (segment_load_begin(st, &u->load, seg, upload_load_done)) {
        upload_build(u);
        return true;
    }
    if (u->load.err == ERR_NONE)
        return true;
    segment_upload_failed(st, seg);
    upload_release(u);
    return false;
}

static void upload_load_done(struct segment_load *l)
{
    struct upload *u = container_of(l, struct upload, load);
    CHECK(u->step == UPLOAD_LOAD);
    if (l->err == ERR_NONE)
        upload_build(u);
    else
        upload_failed(u, "read the segment from the WAL", l->err);
}

static void upload_add_part(struct upload *u, struct pindex *p)
{
    struct storage *st = u->st;
    const struct entry *e;
    u32 n = pindex_segment_entries(p, st, u->seg->seq, &e);
    for (u32 i = 0; i < n; i++, e++) {
        if (entry_last_offset(e) < p->start_offset)
            continue; /* deleted already */
        u32 at = (u32)(entry_lsn(e) % st->wal.segment_bytes);
        CHECK((u64)at + e->bytes <= u->seg->used);
        bundle_builder_add(&u->builder, &p->key, e->base_offset, entry_last_offset(e),
                           e->max_timestamp, bytes_of(u->load.image->bytes + at, e->bytes));
    }
}

static void upload_run(struct bg_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    struct store *store = u->st->env->store;
    u->err = u->load.spare ? segment_load_check(u->st, &u->load) : ERR_NONE;
    if (u->err != ERR_NONE)
        return;
    bundle_builder_seal(&u->builder);
    struct store_object o = { .name = u->name,
                              .parts = u->builder.parts,
                              .part_count = u->builder.part_count,
                              .awaited = u->awaited,
                              .pace = &u->pace };
    u->err = store->driver->put(store, &o);
}

static void upload_put_done(struct bg_job *j);

static void upload_build(struct upload *u)
{
    struct storage *st = u->st;
    struct segment *seg = u->seg;
    CHECK(u->step == UPLOAD_LOAD && u->load.image != NULL);
    bundle_builder_init(&u->builder, st->wal.index, seg->seq, st->wal.epoch,
                        (u32)config_u64(st->env->cfg, CFG_store_block_bytes));
    for (u32 i = 0; i < seg->part_count; i++)
        if (seg->parts[i] != NULL)
            upload_add_part(u, seg->parts[i]);
    if (u->builder.entry_count == 0) { /* all of it was deleted: nothing to keep */
        segment_load_end(st, &u->load);
        upload_set_step(u, UPLOAD_PLACED);
        uploader_kick(st);
        return;
    }
    upload_set_step(u, UPLOAD_PUT);
    u->awaited = is_awaited(st, seg);
    u->job_ns = clock_mono_ns();
    storage_count(st, M_store_puts, 1);
    bg_submit(st->shard, &u->job, BG_PUT, upload_run, upload_put_done);
}

static void upload_put_done(struct bg_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    struct storage *st = u->st;
    CHECK(u->step == UPLOAD_PUT);
    if (u->err == ERR_CORRUPT && u->load.spare)
        segment_load_tell(st, &u->load, u->err);
    segment_load_end(st, &u->load);
    observe_since(st, H_store_put, u->job_ns);
    if (u->err != ERR_NONE) {
        storage_count(st, M_store_errors, 1);
        upload_failed(u, "write the object", u->err);
        return;
    }
    storage_count(st, M_put_bundle_bytes, u->builder.bytes);
    upload_set_step(u, UPLOAD_PLACED);
    if (st->uploader->gave_up)
        give_up(st->uploader);
    else
        uploader_kick(st);
}

/* ---- the registration ---- */

static struct block block_of(const struct upload *u, const struct bundle_entry *e)
{
    return (struct block){ .bundle = bundle_id(u->builder.wal, u->builder.seq),
                           .base_offset = e->base_offset,
                           .last_offset = e->last_offset,
                           .max_timestamp = e->max_timestamp,
                           .pos = e->pos,
                           .bytes = bundle_block_bytes(e),
                           .data_bytes = e->data_bytes };
}

/* The partition of an entry, if its block is still wanted. */
static struct pindex *entry_partition(const struct upload *u, const struct bundle_entry *e)
{
    struct pindex *p = pindex_find(u->st, &e->key);
    return p != NULL && e->last_offset >= p->start_offset ? p : NULL;
}

/* The b/ value with the blocks that are still wanted; no data when there are none. */
static struct bytes commit_registration(struct upload *u)
{
    const struct bundle_builder *b = &u->builder;
    struct bundle_reg reg = { .epoch = b->epoch,
                              .object_bytes = b->bytes,
                              .created_ms = u->st->shard->now_ms };
    u->registered = mem_realloc(u->registered, MAX(b->entry_count, 1));
    for (u32 i = 0; i < b->entry_count; i++) {
        u->registered[i] = entry_partition(u, &b->entries[i]) != NULL;
        reg.block_count += u->registered[i];
    }
    if (reg.block_count == 0)
        return (struct bytes){ NULL, 0 };
    u8 *raw;
    struct bytes value = bundle_reg_begin(&u->arena, &reg, &raw);
    CHECK(raw != NULL); /* COMMIT_BYTES_MAX is far above a segment's worth of blocks */
    u32 n = 0;
    for (u32 i = 0; i < b->entry_count; i++) {
        struct block block = block_of(u, &b->entries[i]);
        if (u->registered[i])
            bundle_reg_set(raw, n++, &b->entries[i].key, &block);
    }
    bundle_reg_end(raw, value.len);
    return value;
}

static void commit_run(struct bg_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    u->err = wal_meta_fence(u->st, u->st->wal.epoch, &u->txn.compares[0], &u->arena);
    if (u->err == ERR_NONE)
        u->err = meta_commit(u->st->env->meta, &u->txn);
}

static void upload_commit_done(struct bg_job *j);

static void commit_add(struct meta_txn *t, struct arena *a, struct bytes key, struct bytes value)
{
    t->ops[t->op_count++] = (struct meta_op){ META_PUT, arena_copy(a, key), value };
}

/* The blocks of one, and the snapshots taken with its segment but those that a newer one of the
 * same transaction replaces. */
static void commit_add_upload(struct upload *u, struct meta_txn *t)
{
    struct storage *st = u->st;
    struct segment *seg = u->seg;
    char buf[META_KEY_SIZE];
    struct bytes value = commit_registration(u);
    if (value.data != NULL) {
        commit_add(t, &u->arena, meta_key_bundle(buf, bundle_id(st->wal.index, seg->seq)), value);
        t->compares[t->compare_count++] =
            (struct meta_compare){ .key = t->ops[t->op_count - 1].key, .revision = 0 };
    } else if (u->builder.entry_count > 0) {
        struct discarded object = { bundle_id(st->wal.index, seg->seq), st->wal.epoch,
                                    u->builder.bytes, discard_now_ms(st) };
        t->ops[t->op_count++] = discard_op(&u->note, &object);
    }
    for (u32 i = 0; i < seg->snap_count; i++) {
        const struct segment_snapshot *s = &seg->snaps[i];
        if (s->p == NULL || s->p->snap_txn == st->uploader->txn_number)
            continue; /* dropped, or there is a newer one */
        s->p->snap_txn = st->uploader->txn_number;
        /* A copy: a drop may free the partition, and the segment its arena, before the job ran. */
        commit_add(t, &u->arena, meta_key_partition(buf, 's', &s->p->key),
                   arena_copy(&u->arena, s->value));
    }
}

/* Oldest first. */
static void upload_commit(struct uploader *up, struct upload **v, u32 count)
{
    struct storage *st = up->st;
    struct upload *first = v[0];
    struct arena *a = &first->arena;
    u64 end_seq = first->seg->seq + count;
    u32 ops = 1;
    for (u32 i = 0; i < count; i++) {
        upload_set_step(v[i], UPLOAD_COMMIT);
        arena_reset(&v[i]->arena);
        v[i]->next = i + 1 < count ? v[i + 1] : NULL;
        ops += 1 + v[i]->seg->snap_count;
    }
    struct meta_txn *t = &first->txn;
    *t = (struct meta_txn){ .compares = arena_alloc(a, (count + 1) * sizeof *t->compares),
                            .ops = arena_alloc(a, ops * sizeof *t->ops) };
    CHECK(t->compares != NULL && t->ops != NULL);
    char buf[META_KEY_SIZE];
    commit_add(t, a, meta_key_wal(buf, st->wal.index), wal_meta_value(&st->wal, end_seq, false, a));
    t->compares[t->compare_count++] = (struct meta_compare){ .key = t->ops[0].key };
    up->txn_number++;
    for (u32 i = count; i-- > 0;)
        commit_add_upload(v[i], t);
    first->job_ns = clock_mono_ns();
    storage_count(st, M_meta_commits, 1);
    bg_submit(st->shard, &first->job, BG_META, commit_run, upload_commit_done);
}

static void upload_finish(struct upload *u)
{
    struct storage *st = u->st;
    const struct bundle_builder *b = &u->builder;
    u64 id = bundle_id(b->wal, b->seq);
    u32 registered = 0, live = 0;
    for (u32 i = 0; i < b->entry_count; i++) {
        if (!u->registered[i])
            continue;
        registered++;
        /* What was dropped or deleted during the commit is registered, but nobody will say it is
         * gone. */
        u->registered[i] = entry_partition(u, &b->entries[i]) != NULL;
        live += u->registered[i];
    }
    struct bundle_reg reg = { .epoch = b->epoch,
                              .object_bytes = b->bytes,
                              .created_ms = st->shard->now_ms };
    if (registered > 0)
        retention_bundle_add(st, id, &reg, live, false);
    for (u32 i = 0; i < b->entry_count; i++) {
        struct block block = block_of(u, &b->entries[i]);
        if (u->registered[i])
            pindex_add_block(pindex_find(st, &b->entries[i].key), &block);
    }
    storage_count(st, M_uploads, 1);
    storage_count(st, M_upload_bytes, b->bytes);
    storage_count(st, M_upload_data_bytes, u->seg->data_bytes);
    merge_uploaded(st, b->bytes);
    observe_since(st, H_upload, u->started_ns);
    struct segment *seg = u->seg;
    upload_release(u);
    segment_registered(st, seg);
}

static void upload_commit_done(struct bg_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    struct storage *st = u->st;
    struct uploader *up = st->uploader;
    CHECK(u->step == UPLOAD_COMMIT);
    observe_since(st, H_meta_commit, u->job_ns);
    if (u->err != ERR_NONE) {
        if (u->err == ERR_CONFLICT || u->err == ERR_FENCED)
            storage_count(st, M_meta_conflicts, 1);
        for (struct upload *one = u; one != NULL; one = one->next)
            upload_set_step(one, UPLOAD_PLACED);
        upload_pause(up, u, "register the object", u->err);
        if (u->err == ERR_FENCED)
            wal_fenced(st);
        if (st->stopping || u->err == ERR_FENCED)
            give_up(up);
        return;
    }
    if (st->upload_failures > 0)
        LOG(INFO, upload_recovered, "shard=%u failures=%u seconds=%" PRIu64, st->shard->index,
            st->upload_failures, (st->shard->now_ns - up->failing_since_ns) / NS_PER_S);
    st->upload_failures = 0;
    st->upload_error = ERR_NONE;
    for (struct upload *next; u != NULL; u = next) {
        next = u->next;
        upload_finish(u);
    }
    if (st->shard->metrics != NULL)
        metric_set(st->shard->metrics, M_upload_time, (u64)(st->shard->now_ms / 1000));
    uploader_kick(st);
}

/* ---- choosing ---- */

static struct upload *slot_free(struct uploader *up)
{
    for (u32 i = 0; i < up->slot_count; i++)
        if (up->slots[i].step == UPLOAD_IDLE)
            return &up->slots[i];
    return NULL;
}

/* Looks at the WAL's writes since the last tick. */
static void rest_update(struct uploader *up)
{
    const struct wal *w = &up->st->wal;
    u64 writes = w->write_total - w->write_count;
    up->log_rests = writes == up->seen_writes && w->write_count == 0;
    up->seen_writes = writes;
}

/* What waits, in percent of what log and images can hold. */
static u32 waiting_percent(const struct storage *st)
{
    u32 room = MIN(st->wal.slot_count, MAX(st->image_count, 1u));
    return (u32)((u64)st->sealed_unregistered * 100 / room);
}

bool uploader_behind(const struct storage *st)
{
    return st->upload_failures > 0 || waiting_percent(st) >= UPLOADS_RELAXED;
}

/* 0: as fast as it goes. */
static u64 upload_pace(const struct uploader *up, const struct segment *seg)
{
    const struct storage *st = up->st;
    u32 waiting = waiting_percent(st);
    bool alone = up->log_rests || !st->env->store->driver->local;
    if (st->stopping || alone || is_awaited(st, seg) || waiting >= HURRIED)
        return 0;
    u32 ease = EASE_MIN;
    if (waiting > UPLOADS_RELAXED)
        ease += (EASE_MAX - EASE_MIN) * (waiting - UPLOADS_RELAXED) / (HURRIED - UPLOADS_RELAXED);
    u64 fill_ns = MAX(seg->sealed_ns - seg->opened_ns, NS_PER_MS);
    u64 all = MAX((u64)seg->used * ease / 100 * NS_PER_S / fill_ns, PACE_MIN);
    return MAX(all / up->busy, 1u);
}

static void pace_all(struct uploader *up)
{
    for (u32 i = 0; i < up->slot_count; i++)
        if (up->slots[i].seg)
            __atomic_store_n(&up->slots[i].pace, upload_pace(up, up->slots[i].seg),
                             __ATOMIC_RELAXED);
}

static void pace_fire(struct timer *t)
{
    struct uploader *up = container_of(t, struct uploader, pace_timer);
    rest_update(up);
    pace_all(up);
    if (up->busy > 0)
        timer_start(&up->st->shard->timers, t, up->st->shard->now_ns + PACE_TICK_NS, pace_fire);
}

static void start_next(struct uploader *up)
{
    struct storage *st = up->st;
    struct segment *seg = segment_first_unregistered(st);
    struct upload *u = slot_free(up);
    for (; seg != NULL && u != NULL; seg = segment_next(st, seg)) {
        if (seg->state == SEG_UPLOADING)
            continue;
        if (seg->state != SEG_DURABLE)
            break;
        if (!upload_start(up, u, seg)) {
            if (!timer_armed(&up->retry_timer))
                timer_start(&st->shard->timers, &up->retry_timer, st->shard->now_ns + LOAD_RETRY_NS,
                            retry_fire);
            break;
        }
        u = slot_free(up);
    }
}

/* All that are placed, from the oldest unregistered segment on, in one transaction: while one is
 * on its way, others become placed, and a slow disk of the metadata delays none twice. */
static void commit_next(struct uploader *up)
{
    struct upload *v[UPLOADS_MAX];
    u32 count = 0;
    struct segment *seg = segment_first_unregistered(up->st);
    for (; seg != NULL && count < UPLOADS_MAX; seg = segment_next(up->st, seg)) {
        struct upload *u = seg->upload;
        if (u == NULL || u->step != UPLOAD_PLACED)
            break;
        v[count++] = u;
    }
    if (count > 0)
        upload_commit(up, v, count);
}

void uploader_kick(struct storage *st)
{
    struct uploader *up = st->uploader;
    MAGIC_CHECK(up, UPLOADER_MAGIC);
    if (storage_readonly(st)) { /* what is appended stays in the log */
        st->uploads_gave_up = st->stopping;
        return;
    }
    if (st->stopping)
        timer_stop(&st->shard->timers, &up->retry_timer); /* once more at once, then never */
    bool pausing = timer_armed(&up->retry_timer) && st->upload_failures > 0;
    if (up->kicking || up->gave_up || pausing)
        return;
    up->kicking = true; /* starting may end at once and call back here */
    commit_next(up);
    start_next(up);
    pace_all(up);
    commit_next(up);
    up->kicking = false;
}
