/* The collector of discarded objects; see discard.h.
 *
 *   REST ─► SCAN (the notes) ─► HOLD ─► CHECK ─► REMOVE (the objects) ─► FORGET (their notes)
 *    ▲                                                                            │
 *    └────────────────────────────────────────────────────────────────────────────┘
 *
 *  1. The notes are all there is to remember: a pass that is cut off anywhere is done again, also
 *     by a later life. Deleting what is not there is no error.
 *  2. An object goes only when its note is older than the grace time by discard_now_ms. A note from
 *     the future was written by a life whose clock was ahead: that life is over, so it is due when
 *     this one is older than the grace time.
 *  3. An object that is registered is not deleted, whatever a note says: the note goes, and an
 *     error is logged. The two are always changed in one transaction, so this can't be.
 *  4. A pass reads all notes (they are counted) and takes DISCARD_BATCH of those that are due.
 *  5. HOLD waits until the backup of the metadata has the notes of the pass, and so what took the
 *     registrations away, in whichever life that was: a recovery from the store never looks for
 *     an object that is gone.
 *
 * One collector a node: notes name objects of every shard, and a store deletes many objects in one
 * request. */
#include "discard.h"

#include <stdio.h>

#include "clock.h"
#include "plant.h"

#define DISCARD_BATCH 1000u /* also of names in a request of S3 */
#define HOLD_NS (50 * NS_PER_MS)
#define REST_NS_MIN (50 * NS_PER_MS)
#define REST_NS_MAX (10 * NS_PER_S)
#define RETRY_NS (5 * NS_PER_S)
#define RETRY_DOUBLINGS_MAX 3u
#define KEY_PREFIX "d/"

enum discard_step {
    DISCARD_REST,
    DISCARD_SCAN,
    DISCARD_HOLD,
    DISCARD_CHECK,
    DISCARD_REMOVE,
    DISCARD_FORGET
};

struct due {
    struct discarded object;
    bool gone; /* the object; its note may go */
};

struct discard {
    struct storage *st;
    enum discard_step step;
    struct bg_job job;
    struct timer timer;
    i64 born_ms;
    /* Of the pass. */
    i64 now_ms, grace_ms;
    i64 next_ms; /* when the next note that is not due will be; INT64_MAX: none */
    u64 objects, bytes;
    struct due *due;
    u32 count, gone;
    u64 mark; /* of the notes: backup_holds */
    err err;
    const char *what;
    u32 tries;
};

/* ---- notes ---- */

struct bytes discard_key(char *buf, u64 id, u32 epoch)
{
    memcpy(buf, KEY_PREFIX, sizeof KEY_PREFIX);
    _Static_assert(sizeof KEY_PREFIX + BUNDLE_NAME_SIZE <= META_KEY_SIZE, "a note's key fits");
    bundle_name(buf + sizeof KEY_PREFIX - 1, id, epoch);
    return bytes_str(buf);
}

struct meta_op discard_op(struct discard_note *n, const struct discarded *d)
{
    memset(n->value, 0, sizeof n->value);
    n->value[0] = DISCARD_VERSION;
    put_le64(n->value + 8, (u64)d->since_ms);
    put_le64(n->value + 16, d->bytes);
    return (struct meta_op){ META_PUT, discard_key(n->key, d->id, d->epoch),
                             bytes_of(n->value, sizeof n->value) };
}

err discard_decode(const struct meta_kv *kv, struct discarded *out)
{
    char name[BUNDLE_NAME_SIZE];
    size_t skip = sizeof KEY_PREFIX - 1;
    if (kv->key.len < skip || memcmp(kv->key.data, KEY_PREFIX, skip) != 0 ||
        kv->key.len - skip >= sizeof name || kv->value.len < 1)
        return ERR_MALFORMED;
    memcpy(name, kv->key.data + skip, kv->key.len - skip);
    name[kv->key.len - skip] = '\0';
    if (kv->value.data[0] > DISCARD_VERSION)
        return ERR_UNSUPPORTED;
    if (!bundle_name_parse(name, &out->id, &out->epoch) || kv->value.data[0] != DISCARD_VERSION ||
        kv->value.len != DISCARD_VALUE_BYTES)
        return ERR_MALFORMED;
    out->since_ms = (i64)get_le64(kv->value.data + 8);
    out->bytes = get_le64(kv->value.data + 16);
    return ERR_NONE;
}

err discard_is_registered(struct meta *m, u64 id, u32 epoch, bool *yes)
{
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    struct bundle_reg reg;
    struct arena a;
    arena_init(&a, 4 * KIB, GIB);
    err e = meta_get(m, meta_key_bundle(key, id), &a, &kv);
    /* What can't be read is left alone. */
    *yes = e == ERR_NONE && (bundle_reg_decode(kv.value, &reg) != ERR_NONE || reg.epoch == epoch);
    arena_free(&a);
    return e == ERR_NOT_FOUND ? ERR_NONE : e;
}

i64 discard_now_ms(const struct storage *st)
{
    return st->steady_base_ms + (i64)(st->shard->now_ns / NS_PER_MS);
}

/* ---- one object, without a transaction of its own ---- */

struct lone {
    struct bg_job job;
    struct storage *st;
    struct discarded object;
    err err;
};

static void lone_run(struct bg_job *j)
{
    struct lone *l = container_of(j, struct lone, job);
    struct discard_note note;
    struct meta_op op = discard_op(&note, &l->object);
    struct meta_txn t = { NULL, &op, 0, 1 };
    l->err = meta_commit(l->st->env->meta, &t);
}

static void lone_done(struct bg_job *j)
{
    struct lone *l = container_of(j, struct lone, job);
    char name[BUNDLE_NAME_SIZE];
    l->st->job_count--;
    if (l->err != ERR_NONE)
        LOG(WARN, object_left,
            "shard=%u object=%s error=%s effect=\"it takes up space until it is found as an "
            "orphan\"",
            l->st->shard->index, bundle_name(name, l->object.id, l->object.epoch),
            err_name(l->err));
    mem_free(l);
}

void discard_unregistered(struct storage *st, u64 id, u32 epoch, u64 bytes)
{
    struct lone *l = MEM_NEW(struct lone);
    l->st = st;
    l->object = (struct discarded){ id, epoch, bytes, discard_now_ms(st) };
    st->job_count++;
    bg_submit(st->shard, &l->job, BG_META, lone_run, lone_done);
}

/* ---- a pass ---- */

static void scan_done(struct bg_job *j);
static void check_run(struct bg_job *j);
static void check_done(struct bg_job *j);
static void remove_run(struct bg_job *j);
static void remove_done(struct bg_job *j);
static void forget_done(struct bg_job *j);

static bool is_due(const struct discard *d, i64 since_ms, i64 *when)
{
    i64 from = since_ms > d->now_ms ? d->born_ms : since_ms;
    *when = d->grace_ms > INT64_MAX / 2 ? INT64_MAX : from + d->grace_ms;
    return *when <= d->now_ms;
}

static err scan_one(void *arg, const struct meta_kv *kv)
{
    struct discard *d = arg;
    struct discarded object;
    if (discard_decode(kv, &object) != ERR_NONE)
        return ERR_NONE; /* of a newer version: its business */
    i64 when;
    bool due = is_due(d, object.since_ms, &when);
    d->objects++;
    d->bytes += object.bytes;
    if (!due)
        d->next_ms = MIN(d->next_ms, when);
    else if (d->count < DISCARD_BATCH)
        d->due[d->count++].object = object;
    return ERR_NONE;
}

static void scan_run(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    d->err = meta_range(d->st->env->meta, bytes_str(KEY_PREFIX), scan_one, d);
}

static void begin(struct discard *d)
{
    d->step = DISCARD_SCAN;
    d->now_ms = discard_now_ms(d->st);
    d->grace_ms = config_i64(d->st->env->cfg, CFG_store_delete_delay_ms);
    d->next_ms = INT64_MAX;
    d->objects = d->bytes = 0;
    d->count = d->gone = 0;
    d->due = mem_alloc(DISCARD_BATCH * sizeof *d->due);
    bg_submit(d->st->shard, &d->job, BG_META, scan_run, scan_done);
}

static void fire(struct timer *t);

static void hold(struct discard *d)
{
    struct storage *st = d->st;
    if (!backup_holds(st->env->backup, d->mark)) {
        d->step = DISCARD_HOLD;
        timer_start(&st->shard->timers, &d->timer, st->shard->now_ns + HOLD_NS, fire);
        return;
    }
    d->step = DISCARD_CHECK;
    bg_submit(st->shard, &d->job, BG_META, check_run, check_done);
}

static void fire(struct timer *t)
{
    struct discard *d = container_of(t, struct discard, timer);
    if (d->st->stopping)
        return;
    if (d->step == DISCARD_HOLD)
        hold(d);
    else
        begin(d);
}

static void rest(struct discard *d, u64 ns)
{
    mem_free(d->due);
    d->due = NULL;
    d->step = DISCARD_REST;
    timer_start(&d->st->shard->timers, &d->timer, d->st->shard->now_ns + ns, fire);
}

/* Until the next note is due; notes that come meanwhile are due a grace time from now at the
 * earliest. */
static void rest_until_due(struct discard *d)
{
    i64 wait_ms = MIN(d->next_ms - MIN(d->now_ms, d->next_ms), d->grace_ms);
    u64 ns = (u64)MIN(wait_ms, (i64)(REST_NS_MAX / NS_PER_MS)) * NS_PER_MS;
    rest(d, MAX(ns, REST_NS_MIN));
}

static void failed(struct discard *d)
{
    char name[BUNDLE_NAME_SIZE] = "";
    for (u32 i = 0; i < d->count && !*name; i++)
        if (!d->due[i].gone)
            bundle_name(name, d->due[i].object.id, d->due[i].object.epoch);
    LOG(WARN, objects_not_deleted,
        "shard=%u what=\"%s\" object=%s error=%s text=\"%s\" tries=%u effect=\"it takes up space "
        "until a later try\"",
        d->st->shard->index, d->what, name, err_name(d->err), err_text(d->err), d->tries + 1);
    rest(d, RETRY_NS << MIN(d->tries, RETRY_DOUBLINGS_MAX));
    d->tries++;
}

static void remove_one_by_one(struct discard *d, struct store *store, const char *const *names,
                              const u32 *which, u32 n)
{
    for (u32 i = 0; i < n; i++) {
        err e = store->driver->remove(store, names[i]);
        d->due[which[i]].gone = e == ERR_NONE;
        d->err = e != ERR_NONE ? e : d->err;
    }
}

/* Registered objects stay, and their notes go. */
static void remove_run(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    struct store *store = store_for(d->st->env->store, STORE_GC);
    char(*text)[BUNDLE_NAME_SIZE] = mem_alloc(d->count * sizeof *text);
    const char **names = mem_alloc(d->count * sizeof *names);
    u32 *which = mem_alloc(d->count * sizeof *which), n = 0;
    for (u32 i = 0; i < d->count; i++) {
        if (d->due[i].gone)
            continue;
        names[n] = bundle_name(text[n], d->due[i].object.id, d->due[i].object.epoch);
        which[n++] = i;
    }
    d->err = n > 0 ? store_remove_many(store, names, n) : ERR_NONE;
    if (d->err != ERR_NONE) {
        d->err = ERR_NONE;
        remove_one_by_one(d, store, names, which, n); /* which of them it was */
    } else {
        for (u32 i = 0; i < n; i++)
            d->due[which[i]].gone = true;
    }
    d->gone = n;
    mem_free(text);
    mem_free(names);
    mem_free(which);
}

/* Invariant 3. In the lane of transactions, so nothing is registered meanwhile. */
static void check_run(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    for (u32 i = 0; i < d->count && d->err == ERR_NONE; i++) {
        struct due *due = &d->due[i];
        bool registered = false;
        d->err =
            discard_is_registered(d->st->env->meta, due->object.id, due->object.epoch, &registered);
        if (!registered || PLANTED(PLANT_DISCARD_LIVE))
            continue;
        char name[BUNDLE_NAME_SIZE];
        due->gone = true;
        LOG(ERROR, discarded_but_registered,
            "object=%s effect=\"it stays\" remedy=\"report this as a bug\"",
            bundle_name(name, due->object.id, due->object.epoch));
    }
}

static void check_done(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    d->what = "read the metadata";
    if (d->err != ERR_NONE || d->st->stopping) {
        d->err != ERR_NONE ? failed(d) : rest(d, REST_NS_MAX);
        return;
    }
    d->step = DISCARD_REMOVE;
    bg_submit(d->st->shard, &d->job, BG_MISC, remove_run, remove_done);
}

static void scan_done(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    struct metrics *m = d->st->shard->metrics;
    d->what = "read the metadata";
    if (m != NULL) {
        metric_set(m, M_discarded_objects, d->objects);
        metric_set(m, M_discarded_bytes, d->bytes);
    }
    d->mark = backup_mark(d->st->env->backup);
    if (d->err != ERR_NONE)
        failed(d);
    else if (d->count == 0 || d->st->stopping)
        rest_until_due(d);
    else
        hold(d);
}

static void forget_run(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    char(*keys)[META_KEY_SIZE] = mem_alloc(d->count * sizeof *keys);
    struct meta_op *ops = mem_alloc(d->count * sizeof *ops);
    struct meta_txn t = { NULL, ops, 0, 0 };
    for (u32 i = 0; i < d->count; i++) {
        const struct discarded *o = &d->due[i].object;
        if (d->due[i].gone)
            ops[t.op_count] = (struct meta_op){ META_DELETE,
                                                discard_key(keys[t.op_count], o->id, o->epoch),
                                                { NULL, 0 } };
        t.op_count += d->due[i].gone;
    }
    err e = t.op_count > 0 ? meta_commit(d->st->env->meta, &t) : ERR_NONE;
    if (e != ERR_NONE) {
        d->what = "forget deleted objects";
        d->err = e;
    }
    mem_free(keys);
    mem_free(ops);
}

static void remove_done(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    u32 gone = 0;
    for (u32 i = 0; i < d->count; i++)
        gone += d->due[i].gone;
    storage_count(d->st, M_store_deletes, d->gone);
    storage_count(d->st, M_retention_objects, gone);
    storage_count(d->st, M_store_errors, d->err != ERR_NONE);
    d->what = "delete objects";
    d->step = DISCARD_FORGET;
    bg_submit(d->st->shard, &d->job, BG_META, forget_run, forget_done);
}

static void forget_done(struct bg_job *j)
{
    struct discard *d = container_of(j, struct discard, job);
    bool more = d->count == DISCARD_BATCH && !d->st->stopping;
    if (d->err != ERR_NONE) {
        failed(d);
        return;
    }
    d->tries = 0;
    rest(d, more ? 0 : REST_NS_MIN);
}

/* ---- life ---- */

err discard_create(struct storage *st)
{
    st->steady_base_ms = clock_wall_ms() - (i64)(clock_mono_ns() / NS_PER_MS);
    if (st->shard->index != 0 || st->replaying || storage_readonly(st))
        return ERR_NONE;
    struct discard *d = MEM_NEW(struct discard);
    d->st = st;
    d->born_ms = clock_wall_ms();
    st->discard = d;
    timer_start(&st->shard->timers, &d->timer, st->shard->now_ns + REST_NS_MIN, fire);
    return ERR_NONE;
}

bool discard_idle(const struct storage *st)
{
    return st->discard == NULL || st->discard->step == DISCARD_REST ||
           st->discard->step == DISCARD_HOLD;
}

void discard_free(struct storage *st)
{
    struct discard *d = st->discard;
    if (d == NULL)
        return;
    CHECK(discard_idle(st));
    timer_stop(&st->shard->timers, &d->timer);
    mem_free(d->due);
    mem_free(d);
    st->discard = NULL;
}
