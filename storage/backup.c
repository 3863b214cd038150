/* The backup of the metadata in the store: what is sent, in which order; see backup.h.
 *
 *   commit ──► inner store ──► pending ──► flight ──► object m/<epoch>/d-<seq>
 *
 *  1. A change set holds the transactions since the one before it, whole and in their order. There
 *     are no gaps in an epoch: when `pending` grows beyond its bound, because the store is away, it
 *     is dropped and a new epoch begins, with a snapshot.
 *  2. A snapshot is read while transactions go on, part after part. Changes from its `seq` on are
 *     applied over it, which is right for those it may hold already too: they set and delete keys,
 *     they don't add. It is whole only when the changes up to its last part are in the store; the
 *     end object is put after these, and says so.
 *  3. What an epoch's objects are called nobody else calls his: the epoch is claimed first. A put
 *     whose answer was lost is repeated with the same bytes (`flight`); parts of a snapshot that
 *     was not finished are replaced.
 *  4. `held` moves only when a whole snapshot and all changes behind it are in the store: an object
 *     that nothing refers to any more is deleted after that (backup_holds).
 *  5. Old ones go in two steps. Kept are the snapshot before the newest and everything behind it
 *     (or, when there is none in this epoch, the newest older epoch that has one), so that a
 *     damaged snapshot costs nothing. The rest is deleted store.delete_delay later: somebody may be
 *     reading it.
 *
 * The work is one background job at a time, given by a timer of shard 0. Its state is touched by
 * nobody else; what commits touch is under `lock`.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "backup_int.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "outage.h"
#include "plant.h"

#define BACKUP_MAGIC_OBJECT 0xbac00001u
#define PENDING_MAX (32 * MIB)
#define PART_BYTES (4 * MIB)
#define SNAPSHOT_BYTES_MIN (4 * MIB) /* change sets may grow to this, however small the snapshot */
#define CHANGE_SETS_MAX 1000u        /* then a snapshot: a recovery reads them one by one */
#define REMOVE_BATCH 256u

struct backup {
    struct meta base;
    u32 magic;
    struct meta *inner;
    struct store *store;
    const struct config *cfg;
    struct uuid lineage;

    pthread_mutex_t lock;
    struct backup_buf pending;
    u64 commits;    /* transactions so far */
    u64 pending_ns; /* when the oldest pending one was committed */
    bool recording; /* the epoch is ours: changes are kept until they are sent */
    bool fenced;    /* another took the place */
    u64 held;       /* atomic: see backup_holds */

    /* the job's */
    struct bg_job job;
    struct backup_buf flight;
    u64 flight_commits, sent;
    struct uuid life; /* this process */
    u32 epoch;        /* claimed; 0: none yet */
    u32 known;        /* a claim of ours that is in the store: this life's or an earlier one's */
    bool claimed;
    u64 seq;       /* of the next change set */
    u32 snapshots; /* whole ones in this epoch */
    u64 snapshot_seq;
    u64 snapshot_bytes, change_bytes;
    u32 change_sets;
    u32 older_whole; /* the newest older epoch with a whole snapshot; 0: none */
    u64 alive_ns, alive_count;
    struct backup_name keep; /* what is older may go, */
    u64 remove_ns;           /* at this time; 0: nothing */
    err err;
    const char *what;
    struct outage outage;

    struct shard *shard;
    struct timer timer;
    bool sends;    /* from now on, until it is closed */
    bool stopping; /* atomic */
};

static const struct meta_driver backup_driver;

static struct backup *backup_of(struct meta *m)
{
    struct backup *b = container_of(m, struct backup, base);
    MAGIC_CHECK(b, BACKUP_MAGIC_OBJECT);
    return b;
}

/* ---- the metadata, seen from above ---- */

static err backup_get(struct meta *m, struct bytes key, struct arena *a, struct meta_kv *out)
{
    return meta_get(backup_of(m)->inner, key, a, out);
}

static err backup_range(struct meta *m, struct bytes prefix, struct bytes after,
                        err (*each)(void *arg, const struct meta_kv *kv), void *arg)
{
    struct meta *inner = backup_of(m)->inner;
    return inner->driver->range(inner, prefix, after, each, arg);
}

/* Under the lock. */
static void record(struct backup *b, const struct meta_txn *t)
{
    u64 bytes = b->pending.used;
    for (u32 i = 0; i < t->op_count; i++)
        bytes += backup_op_size(&t->ops[i]);
    if (bytes > PENDING_MAX) {
        b->recording = false; /* a new epoch, and a snapshot, once the store takes it */
        backup_buf_free(&b->pending);
        return;
    }
    if (b->pending.used == 0)
        b->pending_ns = clock_mono_ns();
    for (u32 i = 0; i < t->op_count; i++)
        backup_buf_add(&b->pending, &t->ops[i]);
}

static err backup_commit(struct meta *m, const struct meta_txn *t)
{
    struct backup *b = backup_of(m);
    pthread_mutex_lock(&b->lock);
    err e = b->fenced ? ERR_CONFLICT : meta_commit(b->inner, t);
    if (e == ERR_NONE) {
        b->commits++;
        if (b->recording)
            record(b, t);
    }
    pthread_mutex_unlock(&b->lock);
    return e;
}

static void backup_free(struct backup *b)
{
    pthread_mutex_destroy(&b->lock);
    backup_buf_free(&b->pending);
    backup_buf_free(&b->flight);
    MAGIC_POISON(b);
    mem_free(b);
}

static void backup_meta_close(struct meta *m)
{
    backup_close(backup_of(m));
}

static const struct meta_driver backup_driver = {
    .scheme = "backup",
    .close = backup_meta_close,
    .get = backup_get,
    .range = backup_range,
    .commit = backup_commit,
};

struct meta *backup_meta(struct backup *b)
{
    return &b->base;
}

u64 backup_mark(struct backup *b)
{
    if (b == NULL)
        return 0;
    pthread_mutex_lock(&b->lock);
    u64 mark = b->commits;
    pthread_mutex_unlock(&b->lock);
    return mark;
}

bool backup_holds(struct backup *b, u64 mark)
{
    return b == NULL || __atomic_load_n(&b->held, __ATOMIC_ACQUIRE) > mark;
}

/* `held` is one more than the number of transactions, so that 0 means: nothing yet. */
static void held_moves(struct backup *b)
{
    if (b->snapshots > 0)
        __atomic_store_n(&b->held, b->sent + 1, __ATOMIC_RELEASE);
}

/* ---- an epoch begins ---- */

static err fenced(struct backup *b, const struct backup_claims *c)
{
    pthread_mutex_lock(&b->lock);
    bool told = b->fenced;
    b->fenced = true;
    b->recording = false;
    backup_buf_free(&b->pending);
    pthread_mutex_unlock(&b->lock);
    char node[100];
    if (!told)
        LOG(ERROR, store_taken_over,
            "epoch=%u by_epoch=%u by=%s effect=\"nothing is uploaded, registered or deleted any "
            "more\" remedy=\"another node was recovered from this store: stop this one\"",
            b->epoch, c->newest, log_quote(node, sizeof node, bytes_str(c->node)));
    return ERR_CONFLICT;
}

/* Ours, or nobody's? Once this process has claimed the place, no newer claim is ours but those that
 * it put itself, whatever the answer was; until then those of our lineage are of earlier lives. */
static bool place_is_ours(const struct backup *b, const struct backup_claims *c)
{
    if (c->newest == 0)
        return true;
    bool before_us = b->epoch == 0 || c->newest <= b->epoch || uuid_eq(c->life, b->life);
    return before_us && uuid_eq(c->lineage, b->lineage);
}

static err claim_next(struct backup *b)
{
    struct backup_claims c;
    err e = backup_claims_read(b->store, b->known, &c);
    if (e != ERR_NONE)
        return e;
    if (c.unreadable)
        return ERR_CORRUPT; /* asked again later */
    if (!place_is_ours(b, &c))
        return fenced(b, &c);
    u32 epoch = c.newest + 1;
    e = backup_claim(b->store, b->cfg, epoch, &b->lineage, &b->life);
    if (e == ERR_CONFLICT) {
        if (backup_claims_read(b->store, epoch, &c) != ERR_NONE || c.unreadable)
            return ERR_IO;
        if (!place_is_ours(b, &c))
            return fenced(b, &c);
        b->known = c.newest; /* the listing did not show it */
        return ERR_BUSY;
    }
    if (e != ERR_NONE)
        return e;
    struct backup_owner o = { epoch, b->lineage };
    e = backup_owner_write(b->inner, &o);
    if (e != ERR_NONE)
        return e;
    b->epoch = b->known = epoch;
    b->older_whole = c.newest_whole;
    b->claimed = true;
    return ERR_NONE;
}

static err epoch_begin(struct backup *b)
{
    b->what = "claim the place";
    err e = b->claimed ? ERR_NONE : claim_next(b);
    if (e != ERR_NONE)
        return e;
    b->claimed = false; /* for this epoch only */
    b->seq = 0;
    b->snapshots = b->change_sets = 0;
    b->snapshot_bytes = b->change_bytes = 0;
    b->remove_ns = 0;
    b->alive_count = 0;
    backup_buf_free(&b->flight);
    pthread_mutex_lock(&b->lock);
    CHECK(b->pending.used == 0);
    b->recording = true;
    b->sent = b->commits;
    pthread_mutex_unlock(&b->lock);
    return ERR_NONE;
}

/* ---- change sets ---- */

/* Everything committed so far. */
static err changes_send(struct backup *b)
{
    b->what = "send changes";
    for (;;) {
        if (b->flight.used == 0) {
            pthread_mutex_lock(&b->lock);
            bool recording = b->recording;
            b->flight = b->pending;
            b->pending = (struct backup_buf){ 0 };
            b->flight_commits = b->commits;
            pthread_mutex_unlock(&b->lock);
            if (!recording)
                return ERR_BUSY;
            if (b->flight.used == 0)
                return ERR_NONE;
        }
        struct backup_head h = {
            .kind = BACKUP_CHANGES, .epoch = b->epoch, .seq = b->seq, .time_ms = clock_wall_ms()
        };
        struct backup_name n = { .kind = BACKUP_CHANGES, .epoch = b->epoch, .seq = b->seq };
        struct bytes object = backup_buf_end(&b->flight, h);
        err e = backup_write(b->store, n, false, object);
        if (e != ERR_NONE)
            return e;
        b->seq++;
        b->change_sets++;
        b->change_bytes += object.len;
        b->sent = b->flight_commits;
        backup_buf_free(&b->flight);
        held_moves(b);
    }
}

/* ---- a snapshot ---- */

struct part_fill {
    struct backup_buf *buf;
    char last[META_KEY_MAX];
    u32 last_len;
};

static err part_add(void *arg, const struct meta_kv *kv)
{
    struct part_fill *f = arg;
    struct meta_op put = { META_PUT, kv->key, kv->value };
    backup_buf_add(f->buf, &put);
    memcpy(f->last, kv->key.data, kv->key.len);
    f->last_len = kv->key.len;
    return f->buf->used >= PART_BYTES ? ERR_CANCELED : ERR_NONE; /* to be gone on with */
}

/* Every key, in parts; *count of them, and their bytes. */
static err parts_send(struct backup *b, u64 seq, u32 *count, u64 *bytes)
{
    struct backup_buf buf = { 0 };
    struct part_fill f = { .buf = &buf };
    err e = ERR_CANCELED;
    while (e == ERR_CANCELED && !__atomic_load_n(&b->stopping, __ATOMIC_RELAXED)) {
        e = b->inner->driver->range(b->inner, (struct bytes){ NULL, 0 },
                                    bytes_of(f.last, f.last_len), part_add, &f);
        if (e != ERR_NONE && e != ERR_CANCELED)
            break;
        struct backup_head h = { .kind = BACKUP_PART,
                                 .epoch = b->epoch,
                                 .part = *count,
                                 .seq = seq,
                                 .time_ms = clock_wall_ms() };
        struct backup_name n = { BACKUP_PART, b->epoch, *count, seq };
        struct bytes object = backup_buf_end(&buf, h);
        err put = backup_write(b->store, n, false, object);
        *bytes += object.len;
        (*count)++;
        backup_buf_free(&buf);
        if (put != ERR_NONE)
            e = put;
    }
    backup_buf_free(&buf);
    return e;
}

static void old_ones_may_go(struct backup *b, u64 before_seq)
{
    b->keep = (struct backup_name){ .epoch = b->epoch, .seq = before_seq };
    if (b->snapshots == 1) /* the one before is an older epoch's */
        b->keep = (struct backup_name){ .epoch = b->older_whole ? b->older_whole : b->epoch };
    b->remove_ns = clock_mono_ns() + config_u64(b->cfg, CFG_store_delete_delay_ms) * NS_PER_MS + 1;
}

static err snapshot_send(struct backup *b)
{
    u32 parts = 0;
    u64 bytes = 0;
    err e = changes_send(b);
    u64 seq = b->seq;
    if (e == ERR_NONE) {
        b->what = "send a snapshot";
        e = parts_send(b, seq, &parts, &bytes);
    }
    if (e == ERR_NONE)
        e = changes_send(b);
    if (e != ERR_NONE)
        return e;
    b->what = "end a snapshot";
    struct backup_buf buf = { 0 };
    struct backup_head h = { .kind = BACKUP_END,
                             .epoch = b->epoch,
                             .part = parts,
                             .seq = seq,
                             .through = b->seq,
                             .time_ms = clock_wall_ms() };
    struct backup_name n = { .kind = BACKUP_END, .epoch = b->epoch, .seq = seq };
    e = backup_write(b->store, n, false, backup_buf_end(&buf, h));
    backup_buf_free(&buf);
    if (e != ERR_NONE)
        return e;
    b->snapshots++;
    old_ones_may_go(b, b->snapshot_seq);
    b->snapshot_seq = seq;
    b->snapshot_bytes = bytes;
    b->change_bytes = 0;
    b->change_sets = 0;
    held_moves(b);
    LOG(INFO, metadata_snapshot, "epoch=%u seq=%" PRIu64 " parts=%u bytes=%" PRIu64, b->epoch, seq,
        parts, bytes);
    return ERR_NONE;
}

static bool snapshot_due(const struct backup *b)
{
    return b->snapshots == 0 || b->change_sets >= CHANGE_SETS_MAX ||
           b->change_bytes > MAX(b->snapshot_bytes, SNAPSHOT_BYTES_MIN);
}

/* ---- signs of life ---- */

static err alive_send(struct backup *b, u32 state)
{
    char next[BACKUP_NAME_SIZE];
    u64 bytes;
    struct backup_claims c;
    b->what = "look for another node";
    backup_name(next, (struct backup_name){ .kind = BACKUP_CLAIM, .epoch = b->epoch + 1 });
    err e = b->store->driver->size(b->store, next, &bytes);
    if (e == ERR_NONE)
        return backup_claims_read(b->store, b->epoch + 1, &c) == ERR_NONE ? fenced(b, &c) : ERR_IO;
    if (e != ERR_NOT_FOUND)
        return e;
    b->what = "send a sign of life";
    struct backup_buf buf = { 0 };
    struct backup_head h = { .kind = BACKUP_ALIVE,
                             .epoch = b->epoch,
                             .part = state,
                             .seq = ++b->alive_count,
                             .through = config_u64(b->cfg, CFG_store_heartbeat_ms),
                             .time_ms = clock_wall_ms() };
    struct backup_name n = { .kind = BACKUP_ALIVE, .epoch = b->epoch };
    e = backup_write(b->store, n, false, backup_buf_end(&buf, h));
    backup_buf_free(&buf);
    if (e == ERR_NONE)
        b->alive_ns = clock_mono_ns();
    return e;
}

static bool alive_due(const struct backup *b)
{
    u64 every = config_u64(b->cfg, CFG_store_heartbeat_ms) * NS_PER_MS;
    return b->alive_count == 0 || clock_mono_ns() - b->alive_ns >= every;
}

/* ---- old ones go ---- */

struct old_list {
    const struct backup *b;
    char after[STORE_NAME_MAX + 1]; /* the last name that was looked at */
    char names[REMOVE_BATCH][BACKUP_NAME_SIZE];
    u32 seen, count;
};

static err old_see(void *arg, const char *name, u64 bytes)
{
    struct old_list *l = arg;
    const struct backup *b = l->b;
    struct backup_name n;
    (void)bytes;
    l->seen++;
    snprintf(l->after, sizeof l->after, "%s", name);
    if (!backup_name_parse(name, &n))
        return ERR_NONE;
    bool counted = n.kind >= BACKUP_PART;
    bool old =
        n.epoch < b->keep.epoch || (counted && n.epoch == b->keep.epoch && n.seq < b->keep.seq);
    if (old)
        snprintf(l->names[l->count++], BACKUP_NAME_SIZE, "%s", name);
    return ERR_NONE;
}

/* From page to page, each name once: a store may go on listing what was deleted. */
static err old_remove(struct backup *b)
{
    struct old_list *l = MEM_NEW(struct old_list);
    const char *names[REMOVE_BATCH];
    u32 removed = 0;
    err e;
    b->what = "delete old snapshots";
    l->b = b;
    do {
        l->seen = l->count = 0;
        e = store_list_page(b->store, "m/", l->after, REMOVE_BATCH, old_see, l);
        for (u32 i = 0; i < l->count; i++)
            names[i] = l->names[i];
        if (e == ERR_NONE && l->count > 0) {
            e = store_remove_many(b->store, names, l->count);
            removed += l->count;
            if (PLANTED(PLANT_OLD_LISTED_AGAIN))
                l->after[0] = '\0';
        }
    } while (e == ERR_NONE && l->seen > 0 && !__atomic_load_n(&b->stopping, __ATOMIC_RELAXED));
    if (e == ERR_NONE && l->seen == 0)
        b->remove_ns = 0;
    mem_free(l);
    if (removed > 0)
        LOG(DEBUG, old_snapshots_removed, "objects=%u", removed);
    return e;
}

static bool remove_due(const struct backup *b)
{
    return b->remove_ns != 0 && clock_mono_ns() >= b->remove_ns;
}

/* ---- the job ---- */

static err send_due(struct backup *b)
{
    pthread_mutex_lock(&b->lock);
    bool recording = b->recording;
    pthread_mutex_unlock(&b->lock);
    err e = recording ? ERR_NONE : epoch_begin(b);
    if (e == ERR_NONE)
        e = snapshot_due(b) ? snapshot_send(b) : changes_send(b);
    return e;
}

static void work_run(struct bg_job *j)
{
    struct backup *b = container_of(j, struct backup, job);
    err e = send_due(b);
    if (e == ERR_NONE && alive_due(b))
        e = alive_send(b, BACKUP_RUNNING);
    if (e == ERR_NONE && remove_due(b))
        e = old_remove(b);
    b->err = e;
}

static const char *remedy(err e)
{
    switch ((int)e) {
    case ERR_DISK_FULL:
        return "free space where store.url points";
    case ERR_DENIED:
        return "let this node put, list and delete below m/ of store.url";
    case ERR_BUSY:
        return "more metadata changed than is kept while the store is away: a new snapshot follows";
    default:
        return "check the object store; it goes on by itself then";
    }
}

static void work_done(struct bg_job *j)
{
    struct backup *b = container_of(j, struct backup, job);
    struct metrics *m = b->shard->metrics;
    struct outage was;
    u64 now = clock_mono_ns();
    if (b->err == ERR_CONFLICT || b->err == ERR_CANCELED)
        return; /* told already; stopping */
    if (b->err != ERR_NONE) {
        if (m != NULL)
            metric_add(m, M_backup_errors, 1);
        if (outage_failed(&b->outage, now, b->err))
            LOG(WARN, metadata_not_sent,
                "what=\"%s\" error=%s text=\"%s\" failures=%" PRIu64 " seconds=%" PRIu64
                " effect=\"a recovery from the store would find older metadata\" remedy=\"%s\"",
                b->what, err_name(b->err), err_text(b->err), b->outage.failures,
                outage_seconds(&b->outage, now), remedy(b->err));
    } else if (outage_over(&b->outage, &was)) {
        LOG(INFO, metadata_sent_again, "failures=%" PRIu64 " seconds=%" PRIu64, was.failures,
            outage_seconds(&was, now));
    }
}

static void gauges_set(struct backup *b, bool *pending, bool *recording, bool *is_fenced)
{
    struct metrics *m = b->shard->metrics;
    pthread_mutex_lock(&b->lock);
    *pending = b->pending.used > 0 || b->flight.used > 0;
    *recording = b->recording;
    *is_fenced = b->fenced;
    u64 commits = b->commits, since = b->pending_ns;
    pthread_mutex_unlock(&b->lock);
    bool behind = __atomic_load_n(&b->held, __ATOMIC_RELAXED) <= commits;
    if (m == NULL)
        return;
    u64 now = clock_mono_ns();
    metric_set(m, M_backup_age_s, behind && now > since ? (now - since) / NS_PER_S : 0);
    metric_set(m, M_backup_bytes, b->snapshot_bytes + b->change_bytes);
    metric_set(m, M_backup_epoch, b->epoch);
    metric_set(m, M_backup_error, *is_fenced ? (u64)-ERR_CONFLICT : (u64)-b->err);
}

static void tick(struct timer *t)
{
    struct backup *b = container_of(t, struct backup, timer);
    struct shard *s = b->shard;
    bool pending, recording, is_fenced;
    if (!b->job.busy) {
        gauges_set(b, &pending, &recording, &is_fenced);
        bool due = pending || !recording || snapshot_due(b) || alive_due(b) || remove_due(b);
        if (due && !is_fenced)
            bg_submit(s, &b->job, BG_PUT, work_run, work_done);
    }
    u64 ms = MIN(config_u64(b->cfg, CFG_store_snapshot_interval_ms),
                 config_u64(b->cfg, CFG_store_heartbeat_ms));
    timer_start(&s->timers, t, s->now_ns + ms * NS_PER_MS, tick);
}

/* ---- life ---- */

static err refuse(char *why, size_t why_size, const char *fmt, ...) PRINTF_LIKE(3, 4);
static err refuse(char *why, size_t why_size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_size, fmt, ap);
    va_end(ap);
    return ERR_CONFLICT;
}

/* This metadata never had a place in a store. */
static err place_take(struct backup *b, struct rng *rng, const struct backup_claims *c, char *why,
                      size_t why_size)
{
    const char *url = config_str(b->cfg, CFG_store_url);
    if (c->newest > 0)
        return refuse(
            why, why_size,
            "%s holds the data of another node or of an earlier data directory (%s), and "
            "node.data_dir is new: to go on with that data use leat --recover-from %s; to "
            "begin with nothing give store.url another place",
            url, c->node, url);
    struct backup_owner o = { 0, rng_uuid(rng) };
    b->lineage = o.lineage;
    err e = backup_owner_write(b->inner, &o);
    if (e == ERR_NONE)
        e = claim_next(b);
    if (e == ERR_CONFLICT)
        return refuse(why, why_size,
                      "another node began to use %s at this moment: give each node a store.url of "
                      "its own",
                      url);
    if (e != ERR_NONE)
        snprintf(why, why_size, "taking %s for this node, whose metadata is in %s: %s; %s", url,
                 config_str(b->cfg, CFG_meta_url), err_text(e),
                 e == ERR_DISK_FULL ? "free space there" : "check both");
    return e;
}

static err place_check(struct backup *b, const struct backup_owner *o,
                       const struct backup_claims *c, char *why, size_t why_size)
{
    const char *url = config_str(b->cfg, CFG_store_url);
    b->lineage = o->lineage;
    b->known = o->epoch;
    if (c->newest == 0 && o->epoch > 0)
        return refuse(why, why_size,
                      "%s is not the store that node.data_dir belongs to: nothing of this node is "
                      "there; set store.url as it was before",
                      url);
    if (!place_is_ours(b, c))
        return refuse(why, why_size,
                      "%s was taken over by another node (%s), which was recovered from it: this "
                      "one must not write there any more; use that one, or start with an empty "
                      "node.data_dir and --recover-from",
                      url, c->node);
    return ERR_NONE;
}

err backup_open(struct meta *inner, struct store *store, const struct config *cfg, struct rng *rng,
                struct backup **out, char *why, size_t why_size)
{
    struct backup *b = MEM_NEW(struct backup);
    struct backup_owner o;
    struct backup_claims c;
    MAGIC_INIT(b, BACKUP_MAGIC_OBJECT);
    b->base.driver = &backup_driver;
    b->inner = inner;
    b->store = store;
    b->cfg = cfg;
    b->life = rng_uuid(rng);
    pthread_mutex_init(&b->lock, NULL);
    err known = backup_owner_read(inner, &o);
    err e = known == ERR_NOT_FOUND ? ERR_NONE : known;
    if (e != ERR_NONE)
        snprintf(why, why_size,
                 "the metadata key " BACKUP_KEY " can't be read: %s; restore the "
                 "metadata from a copy",
                 err_text(e));
    err seen = e == ERR_NONE ? backup_claims_read(store, known == ERR_NONE ? o.epoch : 0, &c) : e;
    if (seen == ERR_NONE && known == ERR_NONE && c.unreadable)
        seen = ERR_CORRUPT;
    if (e == ERR_NONE && known == ERR_NONE && seen != ERR_NONE) {
        b->lineage = o.lineage;
        b->known = o.epoch;
        LOG(WARN, store_not_asked,
            "error=%s effect=\"whether this node still owns its store is found out later\"",
            err_name(seen));
    } else if (e == ERR_NONE && seen != ERR_NONE) {
        e = seen;
        snprintf(why, why_size, "reading whose %s is: %s; check the store",
                 config_str(cfg, CFG_store_url), err_text(e));
    } else if (e == ERR_NONE) {
        e = known == ERR_NONE ? place_check(b, &o, &c, why, why_size)
                              : place_take(b, rng, &c, why, why_size);
    }
    if (e != ERR_NONE) {
        backup_free(b);
        return e;
    }
    *out = b;
    return ERR_NONE;
}

void backup_start(struct backup *b, struct shard *s)
{
    MAGIC_CHECK(b, BACKUP_MAGIC_OBJECT);
    b->shard = s;
    b->sends = true;
    timer_start(&s->timers, &b->timer, s->now_ns, tick);
}

void backup_stop(struct backup *b)
{
    MAGIC_CHECK(b, BACKUP_MAGIC_OBJECT);
    __atomic_store_n(&b->stopping, true, __ATOMIC_RELAXED);
    timer_stop(&b->shard->timers, &b->timer);
}

bool backup_stopped(const struct backup *b)
{
    return !b->job.busy;
}

struct meta *backup_release(struct backup *b)
{
    struct meta *inner = b->inner;
    CHECK(!b->job.busy);
    backup_free(b);
    return inner;
}

void backup_close(struct backup *b)
{
    MAGIC_CHECK(b, BACKUP_MAGIC_OBJECT);
    CHECK(!b->job.busy);
    if (b->sends && !b->fenced) {
        b->stopping = false;
        err e = send_due(b);
        if (e == ERR_NONE)
            e = alive_send(b, BACKUP_STOPPED);
        if (e != ERR_NONE)
            LOG(WARN, metadata_not_sent_at_stop, "what=\"%s\" error=%s text=\"%s\"", b->what,
                err_name(e), err_text(e));
    }
    meta_close(b->inner);
    backup_free(b);
}

err backup_send_all(struct backup *b, char *why, size_t why_size)
{
    MAGIC_CHECK(b, BACKUP_MAGIC_OBJECT);
    b->sends = true;
    b->err = send_due(b);
    if (b->err != ERR_NONE)
        snprintf(why, why_size, "can't %s at %s: %s", b->what, config_str(b->cfg, CFG_store_url),
                 err_text(b->err));
    return b->err;
}
