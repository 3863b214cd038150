/* Recovery from the store: the checks, and the metadata from its backup; see recovery.h.
 *
 *   target empty? ─► nobody lives there? ─► claim ─► newest sound snapshot + changes ─► forward
 *       ─► whose it is, a new snapshot ─► the mark of an unfinished recovery goes
 *
 *  1. From the first key on until all is done, `meta` holds RECOVERY_KEY: a crash leaves something
 *     that no node starts with, and that the next recovery clears away.
 *  2. The claim comes before the snapshot is read. A node that lives although it was said to be
 *     dead finds it and stops writing; what it sent before is read.
 *  3. A snapshot that is damaged, or whose changes are, is passed over for the one before it, and
 *     that is told. Changes of that one go on into the newer one's time: as a rule nothing is lost.
 *  4. The new snapshot is there before the recovery is called done: from then on objects that were
 *     not taken (behind a gap) can't be mistaken for newer ones.
 */
#include "recovery.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "clock.h"
#include "log.h"
#include "plant.h"
#include "recovery_int.h"

/* A node that lives shows it again within this many of its intervals. */
#define ALIVE_WAIT_PERCENT 250u
#define ALIVE_LOOKS 10u
#define ALIVE_INTERVAL_MAX_MS (10 * 60 * 1000u)
#define PRODUCER_ID_KEY "n/producer-id" /* producer_ids.c */
/* Ids that were handed out and not yet in the backup must not come again. */
#define PRODUCER_ID_LEAP ((i64)1 << 32)

err recovery_fail(char *why, size_t why_size, err e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_size, fmt, ap);
    va_end(ap);
    return e;
}

static err put_key(struct meta *m, const char *key, struct bytes value)
{
    struct meta_op op = { META_PUT, bytes_str(key), value };
    struct meta_txn t = { NULL, &op, 0, 1 };
    return meta_commit(m, &t);
}

static err delete_key(struct meta *m, const char *key)
{
    struct meta_op op = { META_DELETE, bytes_str(key), { NULL, 0 } };
    struct meta_txn t = { NULL, &op, 0, 1 };
    return meta_commit(m, &t);
}

/* ---- what is there already ---- */

static err any_key(void *arg, const struct meta_kv *kv)
{
    bool *any = arg;
    (void)kv;
    *any = true;
    return ERR_CANCELED;
}

static err target_check(struct recovery *r, bool *metadata_there, char *why, size_t why_size)
{
    struct arena a;
    struct meta_kv kv;
    arena_init(&a, 1024, MIB);
    bool any = false;
    err e = meta_range(r->meta, (struct bytes){ NULL, 0 }, any_key, &any);
    if (e == ERR_CANCELED)
        e = ERR_NONE;
    bool unfinished =
        e == ERR_NONE && meta_get(r->meta, bytes_str(RECOVERY_KEY), &a, &kv) == ERR_NONE;
    arena_free(&a);
    *metadata_there = any && !unfinished;
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e, "the metadata at %s can't be read: %s",
                             config_str(r->cfg, CFG_meta_url), err_text(e));
    if (!r->log_there)
        return ERR_NONE;
    return recovery_fail(
        why, why_size, ERR_EXISTS,
        "--recover-from needs an empty data directory, and %s holds a write-ahead log, which may "
        "have records that the store does not have: start leat without --recover-from to go on "
        "with it, or move it away (and %s), or give -w node.data_dir=NEW",
        config_str(r->cfg, CFG_wal_path), config_str(r->cfg, CFG_meta_url));
}

static err op_delete_all(void *arg, const struct meta_kv *kv)
{
    struct backup_buf *b = arg;
    struct meta_op op = { META_DELETE, kv->key, { NULL, 0 } };
    if (!bytes_eq_str(kv->key, RECOVERY_KEY))
        backup_buf_add(b, &op);
    return b->used > 4 * MIB ? ERR_CANCELED : ERR_NONE;
}

static err commit_ops(struct meta *m, struct bytes ops, u32 count)
{
    struct meta_op *v = mem_alloc((count + 1) * sizeof *v);
    u32 n = 0;
    while (n < count && backup_op_next(&ops, &v[n]))
        /* Those are this recovery's own. */
        n += !bytes_eq_str(v[n].key, RECOVERY_KEY) && !bytes_eq_str(v[n].key, BACKUP_KEY);
    struct meta_txn t = { NULL, v, 0, n };
    err e = n > 0 ? meta_commit(m, &t) : ERR_NONE;
    mem_free(v);
    return e;
}

/* Only the mark is left. */
static err target_clear(struct recovery *r)
{
    err e = put_key(r->meta, RECOVERY_KEY, bytes_str("1"));
    bool more = e == ERR_NONE;
    while (more) {
        struct backup_buf b = { 0 };
        e = meta_range(r->meta, (struct bytes){ NULL, 0 }, op_delete_all, &b);
        more = e == ERR_CANCELED;
        if (b.op_count > 0 && (e == ERR_NONE || more)) {
            err put = commit_ops(
                r->meta, bytes_of(b.data + BACKUP_HEAD_BYTES, (u32)b.used - BACKUP_HEAD_BYTES),
                b.op_count);
            more = more && put == ERR_NONE;
            e = put;
        }
        backup_buf_free(&b);
    }
    return e;
}

/* ---- does a node live there? ---- */

static err alive_read(struct recovery *r, u32 epoch, struct backup_head *h)
{
    u8 *raw = NULL;
    struct bytes ops;
    err e = backup_read(r->store, (struct backup_name){ .kind = BACKUP_ALIVE, .epoch = epoch },
                        &raw, h, &ops);
    mem_free(raw);
    return e;
}

/* Clocks of two machines are not compared: a node that lives changes its sign of life. */
static err nobody_lives(struct recovery *r, const struct backup_claims *c, char *why,
                        size_t why_size)
{
    struct backup_head h, now;
    if (r->force || c->newest_alive == 0)
        return ERR_NONE;
    err e = alive_read(r, c->newest_alive, &h);
    if (e == ERR_CORRUPT || e == ERR_NOT_FOUND || (e == ERR_NONE && h.part == BACKUP_STOPPED))
        return ERR_NONE;
    u64 wait_ms = MIN(h.through, (u64)ALIVE_INTERVAL_MAX_MS) * ALIVE_WAIT_PERCENT / 100;
    if (e == ERR_NONE)
        LOG(INFO, recovery_waits,
            "node=\"%s\" at_most_ms=%" PRIu64
            " why=\"whether the node that wrote here still lives\" "
            "remedy=\"--force when it is known to be dead\"",
            c->node, wait_ms);
    log_flush();
    for (u32 i = 0; i < ALIVE_LOOKS && e == ERR_NONE; i++) {
        r->pause(wait_ms * NS_PER_MS / ALIVE_LOOKS + 1);
        e = alive_read(r, c->newest_alive, &now);
        if (e == ERR_NONE && (now.seq != h.seq || now.time_ms != h.time_ms))
            return now.part == BACKUP_STOPPED
                       ? ERR_NONE
                       : recovery_fail(why, why_size, ERR_BUSY,
                                       "a living node (%s) uses %s: stop it first; or, if its disk "
                                       "is lost all the same, add --force: it stops writing there "
                                       "then",
                                       c->node, r->url);
    }
    return e == ERR_NONE ? ERR_NONE
                         : recovery_fail(why, why_size, e, "reading from %s: %s; check the store",
                                         r->url, err_text(e));
}

/* ---- snapshots ---- */

struct snapshot {
    u32 epoch;
    u64 seq;
};
struct snapshots {
    struct snapshot *v;
    u32 count, cap;
    struct snapshot newest_change; /* of the epoch that is being loaded */
};

static err snapshots_see(void *arg, const char *name, u64 bytes)
{
    struct snapshots *s = arg;
    struct backup_name n;
    (void)bytes;
    if (!backup_name_parse(name, &n) || n.kind != BACKUP_END)
        return ERR_NONE;
    if (s->count == s->cap) {
        s->cap = MAX(16u, s->cap * 2);
        s->v = mem_realloc(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->count++] = (struct snapshot){ n.epoch, n.seq };
    return ERR_NONE;
}

static int snapshot_newer(const void *x, const void *y)
{
    const struct snapshot *a = x, *b = y;
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? 1 : -1;
    return (a->seq < b->seq) - (a->seq > b->seq);
}

static err changes_see(void *arg, const char *name, u64 bytes)
{
    struct snapshot *newest = arg;
    struct backup_name n;
    (void)bytes;
    if (backup_name_parse(name, &n) && n.kind == BACKUP_CHANGES && n.epoch == newest->epoch)
        newest->seq = MAX(newest->seq, n.seq + 1);
    return ERR_NONE;
}

static err object_apply(struct recovery *r, struct backup_name n, u8 **raw)
{
    struct backup_head h;
    struct bytes ops;
    err e = backup_read(r->store, n, raw, &h, &ops);
    return e == ERR_NONE ? commit_ops(r->meta, ops, h.op_count) : e;
}

static bool damage(err e)
{
    return e == ERR_CORRUPT || e == ERR_NOT_FOUND || e == ERR_TRUNCATED || e == ERR_UNSUPPORTED;
}

/* `end` of the changes of this epoch: behind the newest there is. */
static err changes_apply(struct recovery *r, const struct snapshot *s, u64 through, u64 end,
                         u8 **raw)
{
    u64 seq = s->seq;
    err e = ERR_NONE;
    for (; seq < end && e == ERR_NONE; seq += e == ERR_NONE) {
        if (PLANTED(PLANT_RECOVER_SKIPS) && seq + 1 == end)
            break;
        e = object_apply(r, (struct backup_name){ BACKUP_CHANGES, s->epoch, 0, seq }, raw);
    }
    r->change_sets = seq - s->seq;
    r->changes_lost = end - seq;
    if (e == ERR_NONE || !damage(e) || seq < through)
        return e;
    LOG(WARN, changes_damaged,
        "epoch=%u seq=%" PRIu64 " error=%s lost=%" PRIu64
        " effect=\"metadata is as of before this change set\"",
        s->epoch, seq, err_name(e), r->changes_lost);
    return ERR_NONE;
}

static err snapshot_load(struct recovery *r, const struct snapshot *s)
{
    u8 *raw = NULL;
    struct backup_head end;
    struct bytes ops;
    struct snapshot newest = { s->epoch, 0 };
    char prefix[16];
    err e = target_clear(r);
    if (e == ERR_NONE)
        e = backup_read(r->store, (struct backup_name){ BACKUP_END, s->epoch, 0, s->seq }, &raw,
                        &end, &ops);
    for (u32 i = 0; e == ERR_NONE && i < end.part; i++)
        e = object_apply(r, (struct backup_name){ BACKUP_PART, s->epoch, i, s->seq }, &raw);
    snprintf(prefix, sizeof prefix, "m/%08x/d-", s->epoch);
    if (e == ERR_NONE)
        e = r->store->driver->list(r->store, prefix, changes_see, &newest);
    if (e == ERR_NONE && newest.seq < end.through)
        e = ERR_NOT_FOUND;
    if (e == ERR_NONE)
        e = changes_apply(r, s, end.through, newest.seq, &raw);
    mem_free(raw);
    r->epoch = s->epoch;
    if (e == ERR_NONE)
        r->snapshot_ms = end.time_ms;
    return e;
}

/* The newest that is sound. */
static err metadata_load(struct recovery *r, char *why, size_t why_size)
{
    struct snapshots all = { 0 };
    err e = r->store->driver->list(r->store, "m/", snapshots_see, &all);
    bool found = false;
    if (all.count > 0)
        qsort(all.v, all.count, sizeof *all.v, snapshot_newer);
    for (u32 i = 0; i < all.count && e == ERR_NONE && !found; i++) {
        e = snapshot_load(r, &all.v[i]);
        found = e == ERR_NONE;
        if (!damage(e))
            continue;
        LOG(WARN, snapshot_damaged,
            "epoch=%u seq=%" PRIu64 " error=%s effect=\"the one before it is used\"",
            all.v[i].epoch, all.v[i].seq, err_name(e));
        r->snapshots_damaged++;
        e = ERR_NONE;
    }
    mem_free(all.v);
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e,
                             "rebuilding the metadata: %s; check the store %s and the disk of %s, "
                             "then do it again",
                             err_text(e), r->url, config_str(r->cfg, CFG_meta_url));
    if (found)
        return ERR_NONE;
    if (r->snapshots_damaged > 0)
        return recovery_fail(
            why, why_size, ERR_CORRUPT,
            "none of the %u snapshots of metadata below m/ at %s is sound: put back "
            "older versions of these objects, if the store keeps versions",
            r->snapshots_damaged, r->url);
    return recovery_fail(
        why, why_size, ERR_NOT_FOUND,
        "%s holds no snapshot of a node's metadata (objects below m/): check bucket "
        "and prefix; they are those of store.url of the node that was lost",
        r->url);
}

/* ---- in order ---- */

static err producer_ids_leap(struct recovery *r)
{
    struct arena a;
    struct meta_kv kv = { 0 };
    arena_init(&a, 1024, MIB);
    i64 next = 0;
    err e = meta_get(r->meta, bytes_str(PRODUCER_ID_KEY), &a, &kv);
    if (e == ERR_NONE && kv.value.len == 9)
        next = (i64)get_le64(kv.value.data + 1);
    arena_free(&a);
    if (e != ERR_NONE && e != ERR_NOT_FOUND)
        return e;
    u8 v[9] = { 1 };
    put_le64(v + 1, (u64)(MIN(next, INT64_MAX / 2) + PRODUCER_ID_LEAP));
    return put_key(r->meta, PRODUCER_ID_KEY, bytes_of(v, sizeof v));
}

/* Whose it is from now on, and a snapshot that says so. The metadata is closed. */
static err take_over(struct recovery *r, const struct backup_owner *o, char *why, size_t why_size)
{
    struct backup *b;
    err e = backup_owner_write(r->meta, o);
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e, "writing the metadata: %s", err_text(e));
    e = backup_open(r->meta, r->store, r->cfg, r->rng, &b, why, why_size);
    if (e != ERR_NONE)
        return e;
    e = backup_send_all(b, why, why_size);
    if (e == ERR_NONE && !PLANTED(PLANT_RECOVERY_MARK)) {
        e = delete_key(backup_meta(b), RECOVERY_KEY);
        if (e != ERR_NONE)
            (void)recovery_fail(why, why_size, e, "writing the metadata: %s", err_text(e));
    }
    if (e == ERR_NONE) {
        backup_close(b);
        r->meta = NULL;
    } else {
        r->meta = backup_release(b);
    }
    return e;
}

static err claim_place(struct recovery *r, const struct backup_claims *c, struct backup_owner *o,
                       char *why, size_t why_size)
{
    *o = (struct backup_owner){ c->newest + 1, rng_uuid(r->rng) };
    if (config_bool(r->cfg, CFG_store_readonly))
        return ERR_NONE;
    struct uuid life = rng_uuid(r->rng);
    err e = backup_claim(r->store, r->cfg, o->epoch, &o->lineage, &life);
    if (e == ERR_CONFLICT)
        return recovery_fail(why, why_size, e,
                             "another recovery from %s began at this moment: one is enough",
                             r->url);
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e,
                             "writing to %s: %s; check the store; to look only, add -w "
                             "store.readonly=true",
                             r->url, err_text(e));
    return ERR_NONE;
}

/* Nothing is left but the store. */
static err rebuild(struct recovery *r, const struct backup_claims *c, char *why, size_t why_size)
{
    struct backup_owner o;
    bool readonly = config_bool(r->cfg, CFG_store_readonly);
    err e = claim_place(r, c, &o, why, why_size);
    if (e == ERR_NONE)
        e = metadata_load(r, why, why_size);
    if (e == ERR_NONE)
        e = recovery_forward(r, why, why_size);
    if (e != ERR_NONE)
        return e;
    e = producer_ids_leap(r);
    if (e == ERR_NONE && readonly)
        e = delete_key(r->meta, RECOVERY_KEY);
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e, "writing the metadata: %s", err_text(e));
    if (!readonly)
        return take_over(r, &o, why, why_size);
    meta_close(r->meta);
    r->meta = NULL;
    return ERR_NONE;
}

/* The metadata is there, the log is not. */
static err only_the_log(struct recovery *r, const struct backup_claims *c, char *why,
                        size_t why_size)
{
    struct backup_owner o;
    r->metadata_kept = true;
    err e = backup_owner_read(r->meta, &o);
    if (e != ERR_NONE && e != ERR_NOT_FOUND)
        return recovery_fail(why, why_size, e, "reading the metadata: %s", err_text(e));
    bool other = c->newest > 0 && (e == ERR_NOT_FOUND || !uuid_eq(o.lineage, c->lineage));
    if (other || (c->newest == 0 && o.epoch > 0))
        return recovery_fail(why, why_size, ERR_CONFLICT,
                             "the metadata at %s does not belong to %s (%s writes there): move it "
                             "away to rebuild everything from the store, or give the store that it "
                             "belongs to",
                             config_str(r->cfg, CFG_meta_url), r->url,
                             c->newest > 0 ? c->node : "nobody");
    e = recovery_forward(r, why, why_size);
    if (e == ERR_NONE) {
        meta_close(r->meta);
        r->meta = NULL;
    }
    return e;
}

err recovery_run(struct recovery *r, char *why, size_t why_size)
{
    struct backup_claims c;
    bool metadata_there;
    err e = target_check(r, &metadata_there, why, why_size);
    if (e != ERR_NONE)
        return e;
    e = backup_claims_read(r->store, 0, &c);
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e, "reading whose %s is: %s; check the store", r->url,
                             err_text(e));
    if (!config_bool(r->cfg, CFG_store_readonly))
        e = nobody_lives(r, &c, why, why_size);
    if (e != ERR_NONE)
        return e;
    return metadata_there ? only_the_log(r, &c, why, why_size) : rebuild(r, &c, why, why_size);
}
