/* Embedded metadata on LMDB: lmdb:///folder.
 *
 * One database; key = the metadata key, value = u64 revision (little-endian) + the caller's bytes.
 * The revision of a change is the number of its LMDB transaction: durable, growing, never given
 * twice, so "deleted and made again" differs from "unchanged".
 *
 *  1. A commit that returned ERR_NONE is on stable media (LMDB flushes data, then its root page).
 *  2. Any other result changed nothing.
 *  3. One process: the folder's file `owner` is held by flock from open to close.
 *  4. The map (address space) starts small and doubles when full, up to the bound of the URL.
 *     Growing needs that no transaction is open in this process: hence map_lock, held shared by
 *     readers and alone by commits.
 *
 * Calls block; any background thread. A failed flush of the root page leaves LMDB unable to go
 * on (MDB_PANIC): that ends the process, since a restart finds the last durable state.
 */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "log.h"
#include "meta.h"
#include "place.h"

#define META_LMDB_MAGIC 0x1d3b0001u
#define MAP_BYTES_FIRST (64 * MIB)
#define MAP_BYTES_DEFAULT (16 * GIB)
#define REVISION_BYTES 8
#define LOCK_FILE_BYTES 8192 /* what LMDB makes it for its default of 126 readers */

struct meta_lmdb {
    struct meta base;
    u32 magic;
    int owner_fd;
    MDB_env *env;
    MDB_dbi dbi;
    u64 map_bytes, map_bytes_max; /* map_bytes is under map_lock */
    pthread_rwlock_t map_lock;
    char *path;
};

static struct meta_lmdb *meta_lmdb_of(struct meta *m)
{
    struct meta_lmdb *l = container_of(m, struct meta_lmdb, base);
    MAGIC_CHECK(l, META_LMDB_MAGIC);
    return l;
}

static MDB_val val_of(struct bytes b)
{
    union {
        const u8 *in;
        void *out;
    } p = { .in = b.data }; /* LMDB only reads keys and values it is given */
    return (MDB_val){ .mv_size = b.len, .mv_data = p.out };
}

static bool key_fits(struct bytes key)
{
    return key.len > 0 && key.len <= META_KEY_MAX;
}

/* LMDB's results: 0, errno values (> 0), or its own (< 0). */
static err err_from_mdb(struct meta_lmdb *l, int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return ERR_NONE;
    case MDB_NOTFOUND:
        return ERR_NOT_FOUND;
    case MDB_MAP_FULL:
        return ERR_DISK_FULL;
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
        return ERR_BUSY;
    case MDB_PANIC:
        FATAL(
            "metadata %s: a flush of its root page failed and its state on disk is unknown; check "
            "the disk (kernel log), then start again: the last durable state will be used",
            l->path);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
        LOG(ERROR, meta_corrupt, "path=%s reason=\"%s\" remedy=\"restore the folder from a copy\"",
            l->path, mdb_strerror(rc));
        return ERR_CORRUPT;
    default:
        return rc > 0 ? err_from_errno(rc) : ERR_IO;
    }
}

/* ---- open ---- */

static void lmdb_free(struct meta_lmdb *l)
{
    if (l->env != NULL)
        mdb_env_close(l->env);
    if (l->owner_fd >= 0)
        close(l->owner_fd);
    pthread_rwlock_destroy(&l->map_lock);
    mem_free(l->path);
    MAGIC_POISON(l);
    mem_free(l);
}

static err open_failed(struct meta_lmdb *l, const char *what, int rc, char *why, size_t why_size)
{
    const char *remedy = "check the path and the disk, or change meta.url";
    err e = rc > 0 ? err_from_errno(rc) : ERR_IO;
    if (e == ERR_DENIED)
        remedy = "give the user that runs leat write permission there, or change meta.url";
    if (e == ERR_DISK_FULL)
        remedy = "free some space on that file system";
    if (rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_VERSION_MISMATCH) {
        remedy = "data.mdb there is no metadata of leat or is damaged: restore it from a copy";
        e = ERR_CORRUPT;
    }
    if (rc == ENOMEM)
        remedy = "the address space is limited (ulimit -v): raise it, or give meta.url a "
                 "smaller ?map=BYTES";
    snprintf(why, why_size, "metadata %s: can't %s: %s; %s", l->path, what, mdb_strerror(rc),
             remedy);
    lmdb_free(l);
    return e;
}

static void url_parse(struct meta_lmdb *l, const char *url)
{
    l->path = place_path(url);
    l->map_bytes_max = MAP_BYTES_DEFAULT;
    const char *map = place_option(url, "map");
    if (map != NULL)
        l->map_bytes_max = MAX(strtoull(map, NULL, 10), MIB);
    l->map_bytes_max = align_up(l->map_bytes_max, 64 * KIB);
    l->map_bytes = MIN(MAP_BYTES_FIRST, l->map_bytes_max);
}

/* Takes the folder for this process. 0 or errno; EWOULDBLOCK: another one has it. */
static int take_owner(struct meta_lmdb *l)
{
    char file[4096];
    int n = snprintf(file, sizeof file, "%s/owner", l->path);
    if (n < 0 || (size_t)n >= sizeof file)
        return ENAMETOOLONG;
    l->owner_fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (l->owner_fd < 0)
        return errno;
    return flock(l->owner_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
}

/* LMDB writes to its lock file through a map: a page for which the disk has no room would end the
 * process (SIGBUS) at some later moment. 0 or errno. */
static int lock_allocate(const struct meta_lmdb *l)
{
    char file[4096];
    int n = snprintf(file, sizeof file, "%s/lock.mdb", l->path);
    if (n < 0 || (size_t)n >= sizeof file)
        return ENAMETOOLONG;
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return errno;
    int rc = posix_fallocate(fd, 0, LOCK_FILE_BYTES);
    close(fd);
    return rc;
}

static int env_open(struct meta_lmdb *l)
{
    int rc = lock_allocate(l);
    if (rc == 0)
        rc = mdb_env_create(&l->env);
    if (rc != 0)
        return rc;
    /* A database that outgrew the first size already: the map must hold it. */
    char file[4096];
    struct stat st;
    snprintf(file, sizeof file, "%s/data.mdb", l->path);
    while (stat(file, &st) == 0 && (u64)st.st_size > l->map_bytes)
        l->map_bytes *= 2;
    l->map_bytes_max = MAX(l->map_bytes_max, l->map_bytes);
    rc = mdb_env_set_mapsize(l->env, l->map_bytes);
    /* NOTLS: a reader's slot belongs to its transaction, not to the thread. */
    if (rc == 0)
        rc = mdb_env_open(l->env, l->path, MDB_NOTLS | MDB_NORDAHEAD, 0644);
    MDB_txn *txn = NULL;
    if (rc == 0)
        rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc == 0)
        rc = mdb_dbi_open(txn, NULL, 0, &l->dbi);
    if (rc == 0)
        return mdb_txn_commit(txn);
    if (txn != NULL)
        mdb_txn_abort(txn);
    return rc;
}

static err lmdb_open(const char *url, struct meta **out, char *why, size_t why_size)
{
    struct meta_lmdb *l = MEM_NEW(struct meta_lmdb);
    MAGIC_INIT(l, META_LMDB_MAGIC);
    l->base.driver = &meta_lmdb_driver;
    l->owner_fd = -1;
    pthread_rwlock_init(&l->map_lock, NULL);
    url_parse(l, url);
    if (l->path[0] == '\0')
        return open_failed(l, "use an empty path", EINVAL, why, why_size);
    int rc = place_make_folders(l->path, 0755);
    if (rc != 0)
        return open_failed(l, "make the folder", rc, why, why_size);
    rc = take_owner(l);
    if (rc == EWOULDBLOCK) {
        snprintf(why, why_size,
                 "metadata %s: another process uses it: stop the other leat, or give this one "
                 "a node.data_dir of its own",
                 l->path);
        lmdb_free(l);
        return ERR_BUSY;
    }
    if (rc != 0)
        return open_failed(l, "lock the file 'owner' in it", rc, why, why_size);
    rc = env_open(l);
    if (rc != 0)
        return open_failed(l, "open the database in it", rc, why, why_size);
    *out = &l->base;
    return ERR_NONE;
}

static void lmdb_close(struct meta *m)
{
    lmdb_free(meta_lmdb_of(m));
}

/* ---- read ---- */

/* Splits a stored value. False when it is shorter than its revision. */
static bool value_split(MDB_val v, struct meta_kv *kv)
{
    if (v.mv_size < REVISION_BYTES || v.mv_size > UINT32_MAX)
        return false;
    kv->revision = get_le64(v.mv_data);
    kv->value = bytes_of((const u8 *)v.mv_data + REVISION_BYTES, (u32)(v.mv_size - REVISION_BYTES));
    return true;
}

static err lmdb_get(struct meta *m, struct bytes key, struct arena *a, struct meta_kv *out)
{
    struct meta_lmdb *l = meta_lmdb_of(m);
    *out = (struct meta_kv){ .key = key };
    if (!key_fits(key))
        return ERR_MALFORMED;
    pthread_rwlock_rdlock(&l->map_lock);
    MDB_txn *txn;
    MDB_val k = val_of(key), v;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    err e = err_from_mdb(l, rc);
    if (rc == 0) {
        rc = mdb_get(txn, l->dbi, &k, &v);
        e = err_from_mdb(l, rc);
        struct meta_kv stored;
        if (rc == 0 && !value_split(v, &stored)) {
            e = ERR_CORRUPT;
        } else if (rc == 0) {
            out->revision = stored.revision;
            out->value = arena_copy(a, stored.value);
            if (out->value.data == NULL && stored.value.len > 0)
                e = ERR_NO_MEMORY;
        }
        mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&l->map_lock);
    return e;
}

static err range_walk(struct meta_lmdb *l, MDB_cursor *cursor, struct bytes prefix,
                      struct bytes after, err (*each)(void *arg, const struct meta_kv *kv),
                      void *arg)
{
    struct bytes from = bytes_cmp(after, prefix) > 0 ? after : prefix;
    MDB_val k = val_of(from), v;
    int rc = mdb_cursor_get(cursor, &k, &v, from.len > 0 ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && after.len > 0 && bytes_eq(bytes_of(k.mv_data, (u32)k.mv_size), after))
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    while (rc == 0) {
        struct meta_kv kv = { .key = bytes_of(k.mv_data, (u32)k.mv_size) };
        if (kv.key.len < prefix.len ||
            (prefix.len > 0 && memcmp(kv.key.data, prefix.data, prefix.len) != 0))
            return ERR_NONE;
        if (!value_split(v, &kv))
            return ERR_CORRUPT;
        err e = each(arg, &kv);
        if (e != ERR_NONE)
            return e;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? ERR_NONE : err_from_mdb(l, rc);
}

static err lmdb_range(struct meta *m, struct bytes prefix, struct bytes after,
                      err (*each)(void *arg, const struct meta_kv *kv), void *arg)
{
    struct meta_lmdb *l = meta_lmdb_of(m);
    if (prefix.len > META_KEY_MAX || after.len > META_KEY_MAX)
        return ERR_MALFORMED;
    pthread_rwlock_rdlock(&l->map_lock);
    MDB_txn *txn;
    MDB_cursor *cursor;
    err e = err_from_mdb(l, mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn));
    if (e == ERR_NONE) {
        e = err_from_mdb(l, mdb_cursor_open(txn, l->dbi, &cursor));
        if (e == ERR_NONE) {
            e = range_walk(l, cursor, prefix, after, each, arg);
            mdb_cursor_close(cursor);
        }
        mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&l->map_lock);
    return e;
}

/* ---- commit ---- */

static int compare_holds(struct meta_lmdb *l, MDB_txn *txn, const struct meta_compare *c,
                         bool *holds)
{
    MDB_val k = val_of(c->key), v;
    int rc = mdb_get(txn, l->dbi, &k, &v);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    struct meta_kv kv = { .revision = 0 };
    if (rc == 0 && !value_split(v, &kv))
        return MDB_CORRUPTED;
    *holds = kv.revision == c->revision;
    return 0;
}

static int op_put(struct meta_lmdb *l, MDB_txn *txn, const struct meta_op *op)
{
    MDB_val k = val_of(op->key);
    MDB_val v = { .mv_size = (size_t)op->value.len + REVISION_BYTES };
    int rc = mdb_put(txn, l->dbi, &k, &v, MDB_RESERVE);
    if (rc != 0)
        return rc;
    put_le64(v.mv_data, mdb_txn_id(txn));
    if (op->value.len > 0)
        memcpy((u8 *)v.mv_data + REVISION_BYTES, op->value.data, op->value.len);
    return 0;
}

static int op_delete_prefix(struct meta_lmdb *l, MDB_txn *txn, struct bytes prefix)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, l->dbi, &cursor);
    if (rc != 0)
        return rc;
    for (;;) {
        MDB_val k = val_of(prefix), v;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
        if (rc != 0 || k.mv_size < prefix.len || memcmp(k.mv_data, prefix.data, prefix.len) != 0)
            break;
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0)
            break;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int op_apply(struct meta_lmdb *l, MDB_txn *txn, const struct meta_op *op)
{
    MDB_val k = val_of(op->key);
    int rc;
    switch (op->kind) {
    case META_PUT:
        return op_put(l, txn, op);
    case META_DELETE:
        rc = mdb_del(txn, l->dbi, &k, NULL);
        return rc == MDB_NOTFOUND ? 0 : rc;
    case META_DELETE_PREFIX:
        return op_delete_prefix(l, txn, op->key);
    }
    CHECK(!"op kind");
    return EINVAL;
}

/* One try. 0 = committed; *conflict = a compare failed. Nothing changed unless 0. */
static int commit_once(struct meta_lmdb *l, const struct meta_txn *t, bool *conflict)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    bool holds = true;
    for (u32 i = 0; rc == 0 && holds && i < t->compare_count; i++)
        rc = compare_holds(l, txn, &t->compares[i], &holds);
    for (u32 i = 0; rc == 0 && holds && i < t->op_count; i++)
        rc = op_apply(l, txn, &t->ops[i]);
    *conflict = !holds;
    if (rc == 0 && holds)
        return mdb_txn_commit(txn); /* frees txn, whatever comes out */
    mdb_txn_abort(txn);
    return rc;
}

/* False at the bound. Caller holds map_lock alone and no transaction is open. */
static bool map_grow(struct meta_lmdb *l)
{
    if (l->map_bytes >= l->map_bytes_max)
        return false;
    u64 bytes = MIN(l->map_bytes * 2, l->map_bytes_max);
    if (mdb_env_set_mapsize(l->env, bytes) != 0)
        return false;
    l->map_bytes = bytes;
    LOG(INFO, meta_map_grown, "path=%s map_bytes=%" PRIu64, l->path, bytes);
    return true;
}

static err lmdb_commit(struct meta *m, const struct meta_txn *t)
{
    struct meta_lmdb *l = meta_lmdb_of(m);
    for (u32 i = 0; i < t->compare_count; i++)
        if (!key_fits(t->compares[i].key))
            return ERR_MALFORMED;
    for (u32 i = 0; i < t->op_count; i++) {
        if (!key_fits(t->ops[i].key))
            return ERR_MALFORMED;
        if (t->ops[i].kind == META_PUT && t->ops[i].value.len > UINT32_MAX - REVISION_BYTES)
            return ERR_MALFORMED;
    }
    bool conflict = false;
    pthread_rwlock_wrlock(&l->map_lock);
    int rc = commit_once(l, t, &conflict);
    while (rc == MDB_MAP_FULL && map_grow(l))
        rc = commit_once(l, t, &conflict);
    if (rc == MDB_MAP_FULL)
        LOG(ERROR, meta_map_full,
            "path=%s map_bytes=%" PRIu64 " remedy=\"give meta.url a larger ?map=BYTES\"", l->path,
            l->map_bytes);
    pthread_rwlock_unlock(&l->map_lock);
    return rc == 0 && conflict ? ERR_CONFLICT : err_from_mdb(l, rc);
}

const struct meta_driver meta_lmdb_driver = {
    .scheme = "lmdb",
    .open = lmdb_open,
    .close = lmdb_close,
    .get = lmdb_get,
    .range = lmdb_range,
    .commit = lmdb_commit,
};
