/* The uploader: sealed segments → objects → registrations, oldest first.
 *
 *   segments DURABLE ─► slot: LOAD ─► PUT ─► PLACED ─► COMMIT ─► segments REGISTERED
 *                                     │ ▲              │
 *                                     ▼ │              └─ a failed commit goes back to PLACED
 *                                   FAILED, for a pause
 *
 *   LOAD    the segments' bytes: their images, or read back from the WAL file
 *   PUT     their objects, a bundle b/<wal>/<seq>-<epoch> and runs r/… (gather.c says which), each
 *           by a job of its own; store.uploads slots side by side, and while acknowledgements wait
 *           a few objects of each
 *   PLACED  the objects are complete; waits until all older segments are registered
 *   COMMIT  one metadata transaction, for all that are placed: b/ and r/ keys (every block), s/
 *           keys (snapshots), w/ key
 *
 *  1. Registrations are strictly in order of segments: the w/ key says "all below are registered".
 *  2. A segment becomes REGISTERED, and its WAL slot free, only after its transaction is durable,
 *     and that names all objects of its upload.
 *  3. The blocks enter the index before segment_registered, in the same step: a reader finds each
 *     batch in the WAL or in a block at every moment.
 *  4. Objects that no transaction refers to (a crash between PUT and COMMIT) are harmless: their
 *     name holds the WAL epoch of that life, so no later life writes it again, and scrub.c
 *     finds it.
 *  5. A put that failed may be there all the same, or get there later. So an upload once begun
 *     stays what it is: FAILED keeps its objects, and a name never gets other bytes. What is stored
 *     is not put again. The image of a single segment is let go of meanwhile, and read back if need
 *     be; of gathered ones they stay, which are not many (gather.c).
 *  6. Failures are repeated for ever with growing pauses, except while stopping: then one is
 *     enough, for the WAL holds everything; and after another life has begun (ERR_FENCED).
 *
 * Partitions may be dropped at any moment: slots hold keys, no pointers, and look them up again.
 */
#include "clock.h"
#include "outage.h"
#include "plant.h"
#include "uploader_int.h"

#define UPLOADER_MAGIC 0x0b10ad01u
#define UPLOAD_STEPS(X) \
    X(IDLE, "idle")     \
    X(LOAD, "load")     \
    X(PUT, "put")       \
    X(FAILED, "failed") \
    X(PLACED, "placed") \
    X(COMMIT, "commit")
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
#define AWAITED_PACE_MIN (256 * KIB)
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

struct uploader {
    u32 magic;
    struct storage *st;
    u32 slot_count, busy;
    struct upload *slots;
    struct timer retry_timer, watch_timer;
    struct timer pace_timer; /* armed while busy */
    bool log_rests;          /* no write to the WAL in the last tick: nothing to give way to */
    u64 seen_writes;
    struct outage outage;
    bool gave_up; /* stopping and something failed, or fenced */
    bool kicking;
};

static void observe_since(struct storage *st, enum metric_hist_id id, u64 since_ns)
{
    if (st->shard->metrics != NULL)
        metric_observe(st->shard->metrics, id, (clock_mono_ns() - since_ns) / NS_PER_US);
}

/* Do acknowledgements wait for it? Also for one without such batches before one with them:
 * registrations are in order. */
static bool is_awaited(const struct upload *u)
{
    bool awaited = !list_empty(&u->st->wal.registering);
    for (u32 i = 0; i < u->seg_count; i++)
        awaited |= u->segs[i]->object_since_ns != 0;
    return awaited;
}

static void upload_set_step(struct upload *u, enum upload_step to)
{
    enum upload_step from = u->step;
    static const u8 allowed[] = {
        [UPLOAD_IDLE] = 1 << UPLOAD_LOAD,
        [UPLOAD_LOAD] = 1 << UPLOAD_PUT | 1 << UPLOAD_PLACED | 1 << UPLOAD_FAILED,
        [UPLOAD_PUT] = 1 << UPLOAD_PLACED | 1 << UPLOAD_FAILED,
        [UPLOAD_FAILED] = 1 << UPLOAD_PUT | 1 << UPLOAD_LOAD,
        [UPLOAD_PLACED] = 1 << UPLOAD_COMMIT,
        [UPLOAD_COMMIT] = 1 << UPLOAD_PLACED,
    };
    CHECK(to == UPLOAD_IDLE || allowed[from] >> to & 1);
    u->step = to;
}

static const char *upload_name(const struct upload *u)
{
    for (u32 i = 0; i < u->object_count; i++)
        if (!u->objects[i].stored)
            return u->objects[i].name;
    return u->object_count > 0 ? u->objects[0].name : "";
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
        arena_init(&up->slots[i].arena, 16 * KIB, REGISTRATION_BYTES_MAX);
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
        n += up->slots[i].puts;
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
        LOG(WARN, upload_slow, "shard=%u object=%s step=%s seconds=%" PRIu64, s->index,
            upload_name(u), upload_step_names[u->step], (s->now_ns - u->started_ns) / NS_PER_S);
    }
    if (up->busy > 0)
        timer_start(&s->timers, t, s->now_ns + UPLOAD_SLOW_NS, watch_fire);
}

/* ---- one upload ---- */

static void upload_unload(struct upload *u)
{
    for (u32 i = 0; i < u->seg_count; i++)
        segment_load_end(u->st, &u->loads[i]);
}

/* The images are not needed now. */
static void upload_unhold(struct upload *u)
{
    upload_unload(u);
    for (u32 i = 0; i < u->seg_count; i++)
        if (u->segs[i]->state == SEG_UPLOADING)
            segment_upload_failed(u->st, u->segs[i]);
}

static void upload_release(struct upload *u)
{
    struct uploader *up = u->st->uploader;
    CHECK(up->busy > 0);
    CHECK(!u->job.busy && u->puts == 0);
    gather_free(u);
    arena_reset(&u->arena);
    for (u32 i = 0; i < u->seg_count; i++)
        u->segs[i]->upload = NULL;
    u->seg_count = 0;
    upload_set_step(u, UPLOAD_IDLE);
    up->busy--;
}

/* Its segments wait again. */
static void upload_undo(struct upload *u)
{
    upload_unhold(u);
    upload_release(u);
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
        if (u->step == UPLOAD_PLACED || u->step == UPLOAD_FAILED)
            upload_undo(u);
    }
}

/* Pauses the whole uploader: what fails is the store or the metadata, not one segment. */
static void upload_pause(struct uploader *up, const struct upload *u, const char *what, err e)
{
    struct storage *st = up->st;
    st->upload_failures++;
    st->upload_error = e;
    storage_count(st, M_upload_retries, 1);
    u64 first = config_u64(st->env->cfg, CFG_store_retry_ms) * NS_PER_MS;
    u64 pause = first << MIN(st->upload_failures - 1, 5u);
    pause = MIN(pause, first * RETRY_FACTOR_MAX);
    pause = pause / 2 + rng_below(&st->shard->rng, pause / 2 + 1);
    if (outage_failed(&up->outage, st->shard->now_ns, e))
        LOG(WARN, upload_failed,
            "shard=%u what=\"%s\" object=%s error=%s text=\"%s\" failures=%u seconds=%" PRIu64
            " waiting_segments=%u retry_ms=%" PRIu64 " remedy=\"%s\"",
            st->shard->index, what, upload_name(u), err_name(e), err_text(e), st->upload_failures,
            outage_seconds(&up->outage, st->shard->now_ns), st->sealed_unregistered,
            st->stopping ? 0 : pause / NS_PER_MS, failure_remedy(e));
    if (st->shard->metrics != NULL)
        metric_set(st->shard->metrics, M_upload_retry_time,
                   (u64)(st->shard->now_ms + (i64)(pause / NS_PER_MS)) / 1000);
    if (!st->stopping)
        timer_start(&st->shard->timers, &up->retry_timer, st->shard->now_ns + pause, retry_fire);
}

/* Of reading the log: nothing is put yet. */
static void upload_load_failed(struct upload *u, err e)
{
    struct uploader *up = u->st->uploader;
    upload_pause(up, u, "read the segment from the WAL", e);
    upload_undo(u);
    if (u->st->stopping)
        give_up(up);
    else
        uploader_kick(u->st);
}

static void pace_fire(struct timer *t);
static void upload_load_done(struct segment_load *l);
static void upload_loaded(struct upload *u);

/* False: no memory for it now. */
static bool upload_load(struct upload *u)
{
    bool ready = true;
    upload_set_step(u, UPLOAD_LOAD);
    for (u32 i = u->seg_count; i-- > 0;) {
        segment_set_state(u->segs[i], SEG_UPLOADING);
        ready = segment_load_begin(u->st, &u->loads[i], u->segs[i], upload_load_done);
        CHECK(ready || i == 0); /* gathered ones are in memory */
    }
    if (ready)
        upload_loaded(u);
    return ready || u->loads[0].err == ERR_NONE;
}

static void timers_start(struct uploader *up)
{
    struct shard *s = up->st->shard;
    if (!timer_armed(&up->watch_timer))
        timer_start(&s->timers, &up->watch_timer, s->now_ns + UPLOAD_SLOW_NS, watch_fire);
    if (!timer_armed(&up->pace_timer))
        timer_start(&s->timers, &up->pace_timer, s->now_ns + PACE_TICK_NS, pace_fire);
}

/* `count` segments from this one on; all but the first are in memory. False: no memory for it
 * now. */
static bool upload_start(struct uploader *up, struct upload *u, struct segment *seg, u32 count)
{
    struct storage *st = up->st;
    CHECK(u->step == UPLOAD_IDLE && u->seg_count == 0);
    up->busy++;
    u->started_ns = st->shard->now_ns;
    for (u32 i = 0; i < count; i++, seg = segment_next(st, seg)) {
        CHECK(seg->state == SEG_DURABLE && seg->upload == NULL);
        seg->upload = u;
        u->segs[u->seg_count++] = seg;
    }
    timers_start(up);
    if (upload_load(u))
        return true;
    upload_undo(u);
    return false;
}

static void upload_load_done(struct segment_load *l)
{
    struct upload *u = l->seg->upload;
    CHECK(u->step == UPLOAD_LOAD && l == &u->loads[0]);
    if (l->err == ERR_NONE)
        upload_loaded(u);
    else
        upload_load_failed(u, l->err);
}

static err object_put(struct upload_object *o)
{
    const struct upload *u = o->upload;
    struct store *store = u->st->env->store;
    if (o->builder.own == NULL)
        bundle_builder_seal(&o->builder);
    struct store_object object = { .name = o->name,
                                   .parts = o->builder.parts,
                                   .part_count = o->builder.part_count,
                                   .awaited = u->awaited,
                                   .pace = &u->pace };
    u64 began_ns = clock_mono_ns();
    err e = store->driver->put(store, &object);
    u64 ended_ns = clock_mono_ns();
    o->put_ns = ended_ns - began_ns;
    o->stored = e == ERR_NONE;
    if (o->stored)
        flow_put(&store->flow, o->builder.bytes, u->awaited, began_ns, ended_ns);
    return e;
}

static void object_run(struct bg_job *j)
{
    struct upload_object *o = container_of(j, struct upload_object, job);
    struct upload *u = o->upload;
    o->err = ERR_NONE;
    if (!u->checked) {
        o->err = segment_load_check(u->st, &u->loads[0]);
        u->checked = o->err == ERR_NONE;
    }
    if (o->err == ERR_NONE)
        o->err = object_put(o);
}

static void object_done(struct bg_job *j);

/* While acknowledgements wait, one put after another would be a round trip more for them. Otherwise
 * it is enough that uploads go side by side. */
static void puts_begin(struct upload *u)
{
    u32 side_by_side = u->awaited && u->checked ? BG_AWAITED_JOBS : 1;
    enum bg_lane lane = u->awaited ? BG_AWAITED : BG_PUT;
    for (u32 i = 0; i < u->object_count && u->puts < side_by_side; i++) {
        struct upload_object *o = &u->objects[i];
        if (o->stored || o->job.busy)
            continue;
        u->puts++;
        bg_submit(u->st->shard, &o->job, lane, object_run, object_done);
    }
}

static void upload_put(struct upload *u)
{
    CHECK(u->puts == 0);
    upload_set_step(u, UPLOAD_PUT);
    u->awaited = is_awaited(u);
    u->err = ERR_NONE;
    puts_begin(u);
}

static void upload_placed(struct upload *u)
{
    struct uploader *up = u->st->uploader;
    upload_unload(u);
    upload_set_step(u, UPLOAD_PLACED);
    if (up->gave_up)
        give_up(up);
    else
        uploader_kick(u->st);
}

static void upload_loaded(struct upload *u)
{
    u->checked = !u->loads[0].spare;
    if (u->object_count == 0)
        gather_build(u);
    else
        gather_moved(u);
    if (u->object_count > 0)
        upload_put(u);
    else
        upload_placed(u); /* all of it was deleted: nothing to keep */
}

static void upload_put_failed(struct upload *u)
{
    struct storage *st = u->st;
    upload_pause(st->uploader, u, "write the object", u->err);
    upload_set_step(u, UPLOAD_FAILED);
    if (u->seg_count == 1)
        upload_unhold(u);
    if (st->stopping || st->uploader->gave_up)
        give_up(st->uploader);
    else
        uploader_kick(st);
}

static void count_put(struct storage *st, const struct upload_object *o)
{
    storage_count(st, M_store_puts, 1);
    if (st->shard->metrics != NULL)
        metric_observe(st->shard->metrics, H_store_put, o->put_ns / NS_PER_US);
    if (o->stored)
        storage_count(st, object_is_run(o->id) ? M_put_fresh_bytes : M_put_bundle_bytes,
                      o->builder.bytes);
    else
        storage_count(st, M_store_errors, 1);
}

/* After a failure no further put begins; those on their way are waited for. */
static void object_done(struct bg_job *j)
{
    struct upload_object *o = container_of(j, struct upload_object, job);
    struct upload *u = o->upload;
    CHECK(u->step == UPLOAD_PUT && u->puts > 0);
    u->puts--;
    if (!u->checked) {
        CHECK(u->puts == 0);
        segment_load_tell(u->st, &u->loads[0], o->err);
        upload_load_failed(u, o->err);
        return;
    }
    count_put(u->st, o);
    u->err = u->err != ERR_NONE ? u->err : o->err;
    if (u->err == ERR_NONE)
        puts_begin(u);
    if (u->puts > 0)
        return;
    if (u->err == ERR_NONE || (PLANTED(PLANT_FIRST_OBJECT_IS_ALL) && u->objects[0].stored))
        upload_placed(u);
    else
        upload_put_failed(u);
}

/* ---- the registration ---- */

static void commit_run(struct bg_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    u->err = wal_meta_fence(u->st, u->st->wal.epoch, &u->txn.compares[0], &u->arena);
    if (u->err == ERR_NONE)
        u->err = meta_commit(u->st->env->meta, &u->txn);
}

static void upload_commit_done(struct bg_job *j);

/* Oldest first. */
static void upload_commit(struct uploader *up, struct upload **v, u32 count)
{
    struct storage *st = up->st;
    struct upload *first = v[0];
    for (u32 i = 0; i < count; i++) {
        upload_set_step(v[i], UPLOAD_COMMIT);
        v[i]->next = i + 1 < count ? v[i + 1] : NULL;
    }
    registration_build(st, v, count);
    first->job_ns = clock_mono_ns();
    storage_count(st, M_meta_commits, 1);
    bg_submit(st->shard, &first->job, BG_META, commit_run, upload_commit_done);
}

static void upload_finish(struct upload *u)
{
    struct storage *st = u->st;
    struct segment *segs[GATHER_SEGMENTS_MAX];
    u32 count = u->seg_count;
    u64 bytes = 0, data_bytes = 0;
    registration_apply(u);
    for (u32 i = 0; i < u->object_count; i++)
        bytes += u->objects[i].builder.bytes;
    for (u32 i = 0; i < count; i++) {
        segs[i] = u->segs[i];
        data_bytes += segs[i]->data_bytes;
    }
    storage_count(st, M_uploads, u->object_count);
    storage_count(st, M_upload_segments, count);
    storage_count(st, M_upload_bytes, bytes);
    storage_count(st, M_upload_data_bytes, data_bytes);
    storage_count(st, M_upload_run_data_bytes, u->run_data_bytes);
    merge_uploaded(st, bytes);
    observe_since(st, H_upload, u->started_ns);
    upload_release(u);
    for (u32 i = 0; i < count; i++)
        segment_registered(st, segs[i]);
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
    struct outage was;
    if (outage_over(&up->outage, &was))
        LOG(INFO, upload_recovered,
            "shard=%u failures=%" PRIu64 " seconds=%" PRIu64 " waiting_segments=%u",
            st->shard->index, was.failures, outage_seconds(&was, st->shard->now_ns),
            st->sealed_unregistered);
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

/* Acknowledgements wait for it: as fast as it goes, but for when merging can't hold its bound
 * beside such uploads. Then they have half of the way to the store, all of the node's together. */
static u64 awaited_pace(const struct storage *st)
{
    if (!merge_presses(st))
        return 0;
    u64 half = flow_best(&st->env->store->flow, clock_mono_ns()) / 2;
    u32 puts = MAX(uploader_puts(st), 1u) * MAX(st->env->shard_count, 1);
    return MAX(half / puts, AWAITED_PACE_MIN);
}

/* 0: as fast as it goes. */
static u64 upload_pace(const struct uploader *up, const struct upload *u)
{
    const struct storage *st = up->st;
    const struct segment *first = u->segs[0], *last = u->segs[u->seg_count - 1];
    u32 waiting = waiting_percent(st);
    bool alone = up->log_rests || !st->env->store->driver->local;
    u64 used = 0;
    for (u32 i = 0; i < u->seg_count; i++)
        used += u->segs[i]->used;
    if (is_awaited(u) && !st->stopping)
        return awaited_pace(st);
    if (st->stopping || alone || waiting >= HURRIED)
        return 0;
    u32 ease = EASE_MIN;
    if (waiting > UPLOADS_RELAXED)
        ease += (EASE_MAX - EASE_MIN) * (waiting - UPLOADS_RELAXED) / (HURRIED - UPLOADS_RELAXED);
    u64 fill_ns = MAX(last->sealed_ns - first->opened_ns, NS_PER_MS);
    u64 all = MAX(used * ease / 100 * NS_PER_S / fill_ns, PACE_MIN);
    return MAX(all / up->busy, 1u);
}

static void pace_all(struct uploader *up)
{
    for (u32 i = 0; i < up->slot_count; i++)
        if (up->slots[i].seg_count > 0)
            __atomic_store_n(&up->slots[i].pace, upload_pace(up, &up->slots[i]), __ATOMIC_RELAXED);
}

static void pace_fire(struct timer *t)
{
    struct uploader *up = container_of(t, struct uploader, pace_timer);
    rest_update(up);
    pace_all(up);
    if (up->busy > 0)
        timer_start(&up->st->shard->timers, t, up->st->shard->now_ns + PACE_TICK_NS, pace_fire);
}

/* Segments that no upload has yet. */
static u32 segments_waiting(struct storage *st, const struct segment *seg)
{
    u32 n = 0;
    for (; seg != NULL && seg->state >= SEG_DURABLE; seg = segment_next(st, seg))
        n += seg->upload == NULL;
    return n;
}

static u32 segments_held(const struct uploader *up)
{
    u32 n = 0;
    for (u32 i = 0; i < up->slot_count; i++)
        n += up->slots[i].seg_count;
    return n;
}

static void load_later(struct uploader *up)
{
    struct shard *s = up->st->shard;
    if (!timer_armed(&up->retry_timer))
        timer_start(&s->timers, &up->retry_timer, s->now_ns + LOAD_RETRY_NS, retry_fire);
}

static void start_next(struct uploader *up)
{
    struct storage *st = up->st;
    struct segment *seg = segment_first_unregistered(st);
    u32 waiting = segments_waiting(st, seg);
    for (; waiting > 0 && up->busy < up->slot_count; seg = segment_next(st, seg)) {
        CHECK(seg != NULL && seg->state >= SEG_DURABLE);
        if (seg->upload != NULL)
            continue;
        u32 slots = up->slot_count - up->busy;
        u32 share = (waiting + slots - 1) / slots;
        u32 count = gather_count(st, seg, share, segments_held(up));
        if (!upload_start(up, slot_free(up), seg, count)) {
            load_later(up);
            break;
        }
        waiting -= count;
    }
}

/* The puts that failed before the pause. */
static void put_again(struct uploader *up)
{
    for (u32 i = 0; i < up->slot_count; i++) {
        struct upload *u = &up->slots[i];
        if (u->step != UPLOAD_FAILED)
            continue;
        if (u->seg_count > 1) {
            upload_put(u);
        } else if (!upload_load(u)) {
            upload_unhold(u);
            upload_set_step(u, UPLOAD_FAILED);
            load_later(up);
        }
    }
}

/* All that are placed, from the oldest unregistered segment on, in one transaction: while one is
 * on its way, others become placed, and a slow disk of the metadata delays none twice. */
static void commit_next(struct uploader *up)
{
    struct upload *v[UPLOADS_MAX];
    u32 count = 0;
    struct segment *seg = segment_first_unregistered(up->st);
    while (seg != NULL && count < UPLOADS_MAX) {
        struct upload *u = seg->upload;
        if (u == NULL || u->step != UPLOAD_PLACED)
            break;
        CHECK(seg == u->segs[0]);
        v[count++] = u;
        seg = segment_next(up->st, u->segs[u->seg_count - 1]);
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
    put_again(up);
    start_next(up);
    pace_all(up);
    commit_next(up);
    up->kicking = false;
}
