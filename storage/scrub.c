/* See scrub.h.
 *
 *   REST ─► LIST (a page of the store) ─► CHECK (against the metadata, notes) ─► PAUSE ─► LIST …
 *
 * A pass begins with what puts that never ended left behind (store_sweep), of every kind of object
 * there is. What goes wrong there is the driver's to tell and stops nothing.
 *
 * Bounded: SCRUB_PAGE names are held at a time, and a page is followed by a pause as long as it
 * took. A pass that fails or is cut off has done what it has done; the next one begins anew.
 *
 * What is an orphan. The name says which log (b/<wal>/…, r/<wal>/…) an object belongs to, and which
 * life of it, its epoch. An object is left alone when
 *   - its name is of another form: not ours
 *   - it is of the newest epoch that the metadata knows of its log (key w/), or a newer one: that
 *     life may be about to register it. What a life does not want any more it discards by itself.
 *     (While a log is still being recovered the newest known epoch is that of the life before.)
 *   - it is registered, or written down as discarded.
 * Logs of an earlier, larger number of shards have no life any more. */
#include "scrub.h"

#include <stdio.h>

#include "clock.h"
#include "discard.h"
#include "plant.h"

#define SCRUB_PAGE 1000u
#define START_NS (2 * NS_PER_S)
#define RETRY_NS (30 * NS_PER_S)
#define RETRY_DOUBLINGS_MAX 1u

enum scrub_step { SCRUB_REST, SCRUB_LIST, SCRUB_CHECK, SCRUB_PAUSE };
static const char *const kinds[] = { "b/", "r/" };

struct found {
    u64 id;
    u32 epoch;
    u64 bytes;
};

struct scrub {
    struct storage *st;
    enum scrub_step step;
    struct bg_job job;
    struct timer timer;
    u32 tries;
    /* Of the pass. */
    u32 kind;
    u64 objects, bytes, orphans, orphan_bytes;
    /* Of the page. */
    u64 began_ns;
    struct found *found;
    u32 count, listed, page_orphans;
    char after[STORE_NAME_MAX + 1];
    i64 now_ms;
    err err;
    const char *what;
};

static void list_done(struct bg_job *j);
static void check_done(struct bg_job *j);

/* ---- a page of the store ---- */

static err list_one(void *arg, const char *name, u64 bytes)
{
    struct scrub *s = arg;
    struct found *f = &s->found[s->count];
    CHECK(s->listed < SCRUB_PAGE);
    s->listed++;
    snprintf(s->after, sizeof s->after, "%s", name);
    f->bytes = bytes;
    bool ours = bundle_name_parse(name, &f->id, &f->epoch);
    s->count += ours && !(PLANTED(PLANT_ORPHAN_RUNS_STAY) && object_is_run(f->id));
    return ERR_NONE;
}

static void sweep(struct scrub *s, struct store *store)
{
    static const char *const kinds_put[] = { "b/", "r/", "m/" };
    u64 age_ms = config_u64(s->st->env->cfg, CFG_store_delete_delay_ms);
    u32 swept;
    err e = ERR_NONE;
    for (size_t i = 0; i < ARRAY_COUNT(kinds_put) && e == ERR_NONE; i++)
        e = store_sweep(store, kinds_put[i], age_ms, &swept);
}

static void list_run(struct bg_job *j)
{
    struct scrub *s = container_of(j, struct scrub, job);
    char after[sizeof s->after];
    memcpy(after, s->after, sizeof after);
    struct store *store = store_for(s->st->env->store, STORE_GC);
    if (s->kind == 0 && !*after)
        sweep(s, store);
    s->err = store_list_page(store, kinds[s->kind], after, SCRUB_PAGE, list_one, s);
}

static void page(struct scrub *s)
{
    struct storage *st = s->st;
    s->step = SCRUB_LIST;
    s->count = s->listed = s->page_orphans = 0;
    s->began_ns = clock_mono_ns();
    storage_count(st, M_store_lists, 1);
    bg_submit(st->shard, &s->job, BG_MISC, list_run, list_done);
}

static void fire(struct timer *t)
{
    struct scrub *s = container_of(t, struct scrub, timer);
    if (s->st->stopping)
        return;
    if (s->step == SCRUB_REST) {
        s->found = mem_alloc(SCRUB_PAGE * sizeof *s->found);
        s->kind = 0;
        s->after[0] = '\0';
        s->objects = s->bytes = s->orphans = s->orphan_bytes = 0;
    }
    page(s);
}

/* ---- the end of a pass ---- */

static void rest(struct scrub *s, u64 ns)
{
    mem_free(s->found);
    s->found = NULL;
    s->step = SCRUB_REST;
    if (ns > 0 && !s->st->stopping)
        timer_start(&s->st->shard->timers, &s->timer, s->st->shard->now_ns + ns, fire);
}

static void failed(struct scrub *s)
{
    u64 wait = RETRY_NS << MIN(s->tries, RETRY_DOUBLINGS_MAX);
    LOG(WARN, store_not_scrubbed,
        "shard=%u what=\"%s\" error=%s text=\"%s\" retry_s=%" PRIu64
        " effect=\"objects that nothing names stay until a later try\"",
        s->st->shard->index, s->what, err_name(s->err), err_text(s->err), wait / NS_PER_S);
    s->tries++;
    rest(s, wait);
}

static void pass_done(struct scrub *s)
{
    struct metrics *m = s->st->shard->metrics;
    if (m != NULL) {
        metric_set(m, M_scrub_objects, s->objects);
        metric_set(m, M_scrub_bytes, s->bytes);
        metric_set(m, M_scrub_time, (u64)(clock_wall_ms() / 1000));
    }
    s->tries = 0;
    if (s->orphans > 0)
        LOG(INFO, orphans_found,
            "shard=%u objects=%" PRIu64 " bytes=%" PRIu64 " of_objects=%" PRIu64
            " effect=\"they are deleted after store.delete_delay\"",
            s->st->shard->index, s->orphans, s->orphan_bytes, s->objects);
    u64 ms = config_u64(s->st->env->cfg, CFG_store_scrub_interval_ms);
    rest(s, MIN(ms, UINT64_MAX / 2 / NS_PER_MS) * NS_PER_MS);
}

/* ---- against the metadata ---- */

static err newest_epoch(struct meta *m, u32 wal, struct scrub_lives *l)
{
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    if (l->known && l->wal == wal)
        return ERR_NONE;
    struct arena a;
    arena_init(&a, 4 * KIB, MIB);
    err e = meta_get(m, meta_key_wal(key, wal), &a, &kv);
    *l = (struct scrub_lives){ wal, e == ERR_NONE ? wal_meta_epoch(kv.value) : 0, true };
    arena_free(&a);
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

static err is_discarded(struct meta *m, u64 id, u32 epoch, bool *yes)
{
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    struct arena a;
    arena_init(&a, KIB, MIB);
    err e = meta_get(m, discard_key(key, id, epoch), &a, &kv);
    arena_free(&a);
    *yes = e == ERR_NONE;
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

err scrub_classify(struct storage *st, u64 id, u32 epoch, struct scrub_lives *lives,
                   enum scrub_found *out)
{
    struct meta *m = st->env->meta;
    u32 wal = bundle_wal(id);
    bool registered = false, discarded = false;
    err e = discard_is_registered(m, id, epoch, &registered);
    if (e == ERR_NONE && !registered)
        e = is_discarded(m, id, epoch, &discarded);
    if (e == ERR_NONE && wal < st->env->shard_count)
        e = newest_epoch(m, wal, lives);
    bool over = wal >= st->env->shard_count || epoch < lives->epoch;
    *out = registered  ? OBJECT_REGISTERED
           : discarded ? OBJECT_DISCARDED
           : over      ? OBJECT_ORPHAN
                       : OBJECT_RECENT;
    return e;
}

/* Leaves the orphans at the front. */
static void check_run(struct bg_job *j)
{
    struct scrub *s = container_of(j, struct scrub, job);
    struct discard_note *notes = mem_alloc(SCRUB_PAGE * sizeof *notes);
    struct meta_op *ops = mem_alloc(SCRUB_PAGE * sizeof *ops);
    struct scrub_lives lives = { 0 };
    u32 n = 0;
    for (u32 i = 0; i < s->count && s->err == ERR_NONE; i++) {
        const struct found f = s->found[i];
        enum scrub_found what = OBJECT_RECENT;
        s->err = scrub_classify(s->st, f.id, f.epoch, &lives, &what);
        if (s->err != ERR_NONE || what != OBJECT_ORPHAN)
            continue;
        struct discarded d = { f.id, f.epoch, f.bytes, s->now_ms };
        ops[n] = discard_op(&notes[n], &d);
        s->found[n++] = f;
    }
    struct meta_txn t = { NULL, ops, 0, n };
    if (s->err == ERR_NONE && n > 0)
        s->err = meta_commit(s->st->env->meta, &t);
    s->page_orphans = n;
    mem_free(notes);
    mem_free(ops);
}

static void list_done(struct bg_job *j)
{
    struct scrub *s = container_of(j, struct scrub, job);
    s->what = "list the store";
    if (s->st->stopping) {
        rest(s, 0);
        return;
    }
    if (s->err != ERR_NONE) {
        storage_count(s->st, M_store_errors, 1);
        failed(s);
        return;
    }
    s->step = SCRUB_CHECK;
    s->now_ms = discard_now_ms(s->st);
    for (u32 i = 0; i < s->count; i++)
        s->bytes += s->found[i].bytes;
    s->objects += s->count;
    bg_submit(s->st->shard, &s->job, BG_META, check_run, check_done);
}

static void check_done(struct bg_job *j)
{
    struct scrub *s = container_of(j, struct scrub, job);
    s->what = "read the metadata";
    if (s->err != ERR_NONE) {
        failed(s);
        return;
    }
    for (u32 i = 0; i < s->page_orphans; i++)
        s->orphan_bytes += s->found[i].bytes;
    s->orphans += s->page_orphans;
    storage_count(s->st, M_orphans, s->page_orphans);
    if (s->listed == 0) {
        s->kind++;
        s->after[0] = '\0';
    }
    if (s->st->stopping) {
        rest(s, 0);
        return;
    }
    if (s->kind == ARRAY_COUNT(kinds)) {
        pass_done(s);
        return;
    }
    s->step = SCRUB_PAUSE;
    u64 took = clock_mono_ns() - s->began_ns;
    timer_start(&s->st->shard->timers, &s->timer, s->st->shard->now_ns + took, fire);
}

/* ---- life ---- */

err scrub_create(struct storage *st)
{
    if (st->shard->index != 0 || st->replaying || storage_readonly(st))
        return ERR_NONE;
    struct scrub *s = MEM_NEW(struct scrub);
    s->st = st;
    st->scrub = s;
    timer_start(&st->shard->timers, &s->timer, st->shard->now_ns + START_NS, fire);
    return ERR_NONE;
}

bool scrub_idle(const struct storage *st)
{
    return st->scrub == NULL || st->scrub->step == SCRUB_REST || st->scrub->step == SCRUB_PAUSE;
}

void scrub_free(struct storage *st)
{
    struct scrub *s = st->scrub;
    if (s == NULL)
        return;
    CHECK(scrub_idle(st));
    timer_stop(&st->shard->timers, &s->timer);
    mem_free(s->found);
    mem_free(s);
    st->scrub = NULL;
}
