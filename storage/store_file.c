/* Object store in a folder: file:///path. One object is one file; '/' in names makes folders.
 *
 *   root/.tmp/<n>         being written; removed at open
 *   root/b/0000/…         complete objects
 *
 * A put writes a temporary file, flushes it, renames it into place and flushes the folder. So:
 *  1. A name that exists is a complete object; a crash or a full disk leaves a temporary file at
 *     most, which the failing put or the next open removes.
 *  2. When put returns ERR_NONE, data and name are on stable media (unless ?sync=false).
 *  3. A failed flush is never repeated over the same file: the retry writes a new one.
 *  4. Folders made on the way are flushed into their parents before the name counts.
 *
 * Calls block; they run on background threads and share nothing but an atomic counter and spare
 * buffers.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "place.h"
#include "store.h"

#define STORE_FILE_MAGIC 0x5f110001u
#define TMP_DIR ".tmp"
#define PATH_SIZE (STORE_NAME_MAX + 1)
#define LIST_DEPTH_MAX 16
#define PUT_BUF_BYTES ((u32)(2 * MIB)) /* a huge page: cheap to pin */
/* A write of a paced put: the log's next flush waits for it. */
#define PACED_BYTES ((u32)MIB)
/* Kept between puts: as many as may run at once, and then some. */
#define PUT_BUFFERS_MAX 16u

struct store_file {
    struct store base;
    u32 magic;
    int root_fd;
    bool sync;
    u64 tmp_next;         /* atomic */
    pthread_mutex_t lock; /* of the buffers */
    u32 buffer_count;
    u8 *buffers[PUT_BUFFERS_MAX];
    char *root;
};

static struct store_file *store_file_of(struct store *s)
{
    struct store_file *f = container_of(s, struct store_file, base);
    MAGIC_CHECK(f, STORE_FILE_MAGIC);
    return f;
}

/* ---- open ---- */

static const char *open_remedy(int e)
{
    if (e == EACCES || e == EPERM)
        return "give the user that runs leat write permission there, or change store.url";
    if (e == ENOSPC || e == EDQUOT)
        return "free some space on that file system, or change store.url";
    if (e == EROFS)
        return "the file system is mounted read-only: remount it, or change store.url";
    if (e == ENOTDIR || e == EEXIST)
        return "something that is no folder is in the way: remove it, or change store.url";
    return "check the path and the disk, or change store.url";
}

static err open_failed(struct store_file *f, const char *what, int e, char *why, size_t why_size)
{
    snprintf(why, why_size, "object store %s: can't %s: %s; %s", f->root, what, strerror(e),
             open_remedy(e));
    if (f->root_fd >= 0)
        close(f->root_fd);
    mem_free(f->root);
    MAGIC_POISON(f);
    mem_free(f);
    return err_from_errno(e);
}

/* Removes what earlier puts left unfinished. Failures show at the next put. */
static void clean_tmp(struct store_file *f)
{
    int fd = openat(f->root_fd, TMP_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static err file_open(const char *url, const struct config *cfg, struct store **out, char *why,
                     size_t why_size)
{
    (void)cfg;
    struct store_file *f = MEM_NEW(struct store_file);
    MAGIC_INIT(f, STORE_FILE_MAGIC);
    f->base.driver = &store_file_driver;
    pthread_mutex_init(&f->lock, NULL);
    f->root_fd = -1;
    const char *sync = place_option(url, "sync");
    f->sync = sync == NULL || strncmp(sync, "false", 5) != 0;
    f->root = place_path(url);
    if (f->root[0] == '\0')
        return open_failed(f, "use an empty path", EINVAL, why, why_size);
    int rc = place_make_folders(f->root, 0755);
    if (rc != 0)
        return open_failed(f, "make the folder", rc, why, why_size);
    f->root_fd = open(f->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->root_fd < 0)
        return open_failed(f, "open the folder", errno, why, why_size);
    if (mkdirat(f->root_fd, TMP_DIR, 0755) != 0 && errno != EEXIST)
        return open_failed(f, "make the folder .tmp in it", errno, why, why_size);
    clean_tmp(f);
    int fd = openat(f->root_fd, TMP_DIR "/probe", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return open_failed(f, "write a file in it", errno, why, why_size);
    close(fd);
    (void)unlinkat(f->root_fd, TMP_DIR "/probe", 0);
    if (f->sync)
        (void)fsync(f->root_fd);
    *out = &f->base;
    return ERR_NONE;
}

static void file_close(struct store *s)
{
    struct store_file *f = store_file_of(s);
    close(f->root_fd);
    while (f->buffer_count > 0)
        mem_unmap(f->buffers[--f->buffer_count], PUT_BUF_BYTES);
    pthread_mutex_destroy(&f->lock);
    mem_free(f->root);
    MAGIC_POISON(f);
    mem_free(f);
}

/* ---- put ---- */

/* Written past the page cache: a copy in user space costs a fraction of the kernel's (measured: a
 * third of the node's CPU went into the page cache of objects that nobody reads soon), and no copy
 * less still. Whole sectors of a part that lies in memory as it will in the file are written from
 * there; everything else is gathered in a buffer. Where a file system refuses O_DIRECT the same
 * calls go through its cache.
 *
 *   parts   |--A--|------------B------------|-C-|     B is large, and B's address and its place in
 *   sectors |----|----|----|----|----|----|----|      the file are the same modulo a sector
 *   written | gathered |    from B     | gathered
 *
 * The WAL is often on the same device, and each of its flushes waits for everything the device took
 * before: so the writes are small, and spread in time when the object has a pace. */
#define DIRECT_ALIGN 4096u
#define SECTOR_BYTES 512u
/* Parts from here on are worth an I/O vector of their own. */
#define IN_PLACE_BYTES 8192u
#define WRITER_IOVS 1024 /* IOV_MAX; what a piece needs, twice */
/* The pace is looked at again at least this often. */
#define PACE_SLEEP_NS_MAX (50 * NS_PER_MS)
_Static_assert(PUT_BUF_BYTES / IN_PLACE_BYTES * 4 <= WRITER_IOVS, "a piece needs no more vectors");

struct put_writer {
    int fd;
    u64 offset; /* in the file, of what is pending */
    u32 len;    /* pending */
    u8 *buf;    /* PUT_BUF_BYTES: gathered bytes, those of the pending vectors */
    u32 buf_used;
    u32 iov_count;
    const u64 *pace;
    u64 due_ns; /* when the next write may begin */
    struct iovec iov[WRITER_IOVS];
};

/* Buffers stay mapped: mapping one for each object would stall the shards on the memory map's
 * lock. */
static u8 *buffer_take(struct store_file *f)
{
    pthread_mutex_lock(&f->lock);
    u8 *buf = f->buffer_count > 0 ? f->buffers[--f->buffer_count] : NULL;
    pthread_mutex_unlock(&f->lock);
    return buf ? buf : mem_map(PUT_BUF_BYTES, true);
}

static void buffer_give(struct store_file *f, u8 *buf)
{
    pthread_mutex_lock(&f->lock);
    bool keep = f->buffer_count < PUT_BUFFERS_MAX;
    if (keep)
        f->buffers[f->buffer_count++] = buf;
    pthread_mutex_unlock(&f->lock);
    if (!keep)
        mem_unmap(buf, PUT_BUF_BYTES);
}

static u64 writer_rate(const struct put_writer *w)
{
    return w->pace ? __atomic_load_n(w->pace, __ATOMIC_RELAXED) : 0;
}

static void writer_pace(struct put_writer *w, u32 len)
{
    for (;;) {
        u64 pace = writer_rate(w);
        u64 now = clock_mono_ns();
        if (pace == 0 || w->due_ns <= now) {
            /* Counted from now: what came late is not made up for in a burst. */
            w->due_ns = now + (pace == 0 ? 0 : len * NS_PER_S / pace);
            return;
        }
        u64 ns = MIN(w->due_ns - now, PACE_SLEEP_NS_MAX);
        struct timespec t = { .tv_sec = 0, .tv_nsec = (long)ns };
        (void)nanosleep(&t, NULL);
    }
}

static int writer_write(struct put_writer *w)
{
    struct iovec *iov = w->iov;
    writer_pace(w, w->len);
    while (w->len > 0) {
        ssize_t n = pwritev(w->fd, iov, (int)w->iov_count, (off_t)w->offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        w->offset += (u64)n;
        w->len -= (u32)n;
        for (; n > 0 && (size_t)n >= iov->iov_len; iov++, w->iov_count--)
            n -= (ssize_t)iov->iov_len;
        if (n > 0) {
            iov->iov_base = (u8 *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    w->iov_count = w->buf_used = 0;
    return 0;
}

static void writer_vector(struct put_writer *w, const u8 *data, u32 len)
{
    CHECK(w->iov_count < WRITER_IOVS);
    /* pwritev only reads it. */
    w->iov[w->iov_count++] = (struct iovec){ (u8 *)(uintptr_t)data, len };
    w->len += len;
}

static void writer_gather(struct put_writer *w, const u8 *data, u32 len)
{
    u8 *to = w->buf + w->buf_used;
    struct iovec *last = w->iov_count > 0 ? &w->iov[w->iov_count - 1] : NULL;
    memcpy(to, data, len);
    w->buf_used += len;
    if (!last || (u8 *)last->iov_base + last->iov_len != to) {
        writer_vector(w, to, len);
        return;
    }
    last->iov_len += len;
    w->len += len;
}

/* The next bytes of a part, at most `room`; returns how many. */
static u32 writer_take(struct put_writer *w, struct bytes part, u32 room)
{
    u64 pos = w->offset + w->len;
    u32 n = MIN(part.len, room);
    bool in_place = part.len >= IN_PLACE_BYTES && ((uintptr_t)part.data - pos) % SECTOR_BYTES == 0;
    u32 seam = (u32)(align_up(pos, SECTOR_BYTES) - pos);
    if (in_place && seam == 0 && n >= SECTOR_BYTES) {
        n -= n % SECTOR_BYTES;
        writer_vector(w, part.data, n);
        return n;
    }
    if (in_place && seam > 0)
        n = MIN(n, seam);
    writer_gather(w, part.data, n);
    return n;
}

static int writer_add(struct put_writer *w, struct bytes part)
{
    while (part.len > 0) {
        u32 n = writer_take(w, part, PACED_BYTES - w->len % PACED_BYTES);
        part.data += n;
        part.len -= n;
        bool whole = w->len == PUT_BUF_BYTES || (w->len % PACED_BYTES == 0 && writer_rate(w) > 0);
        int rc = whole ? writer_write(w) : 0;
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The last block is padded for the device and cut off again. */
static int writer_finish(struct put_writer *w)
{
    static const u8 zeros[DIRECT_ALIGN];
    u64 bytes = w->offset + w->len;
    u32 pad = (u32)(align_up(w->len, DIRECT_ALIGN) - w->len);
    if (pad > 0)
        writer_gather(w, zeros, pad);
    int rc = writer_write(w);
    if (rc == 0 && ftruncate(w->fd, (off_t)bytes) != 0)
        rc = errno;
    return rc;
}

/* Room for all of it at once: fewer and longer extents, and a full disk is told before anything is
 * written. Where that is unknown, writing will do. */
static int reserve(int fd, const struct store_object *o)
{
    u64 bytes = 0;
    for (u32 i = 0; i < o->part_count; i++)
        bytes += o->parts[i].len;
    if (bytes == 0 || fallocate(fd, 0, 0, (off_t)align_up(bytes, DIRECT_ALIGN)) == 0)
        return 0;
    return errno == ENOSPC || errno == EDQUOT || errno == EIO ? errno : 0;
}

static int write_parts(struct store_file *f, int fd, const struct store_object *o)
{
    struct put_writer w = { .fd = fd, .buf = buffer_take(f), .pace = o->pace };
    if (!w.buf)
        return ENOMEM;
    int rc = reserve(fd, o);
    for (u32 i = 0; rc == 0 && i < o->part_count; i++)
        rc = writer_add(&w, o->parts[i]);
    if (rc == 0)
        rc = writer_finish(&w);
    buffer_give(f, w.buf);
    return rc;
}

/* Flushes the folder at `path` (relative to the root; "" is the root). 0 or errno. */
static int sync_dir(struct store_file *f, const char *path)
{
    if (!f->sync)
        return 0;
    int fd = openat(f->root_fd, path[0] ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int rc = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

/* Makes the folders of `name`, each flushed into its parent. 0 or errno. */
static int make_parents(struct store_file *f, const char *name)
{
    char path[PATH_SIZE];
    char parent[PATH_SIZE] = "";
    for (size_t i = 0; name[i] != '\0'; i++) {
        if (name[i] != '/')
            continue;
        memcpy(path, name, i);
        path[i] = '\0';
        if (mkdirat(f->root_fd, path, 0755) == 0) {
            int rc = sync_dir(f, parent);
            if (rc != 0)
                return rc;
        } else if (errno != EEXIST) {
            return errno;
        }
        memcpy(parent, path, i + 1);
    }
    return 0;
}

static int put_rename(struct store_file *f, const char *tmp, const char *name, bool if_absent)
{
    if (!if_absent)
        return renameat(f->root_fd, tmp, f->root_fd, name) == 0 ? 0 : errno;
    if (renameat2(f->root_fd, tmp, f->root_fd, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
    /* A file system without the flag (NFS): a hard link refuses an existing name too. */
    if (linkat(f->root_fd, tmp, f->root_fd, name, 0) != 0)
        return errno;
    (void)unlinkat(f->root_fd, tmp, 0);
    return 0;
}

static int put_at(struct store_file *f, const char *tmp, const char *name, bool if_absent)
{
    int rc = put_rename(f, tmp, name, if_absent);
    if (rc == ENOENT) {
        rc = make_parents(f, name);
        if (rc == 0)
            rc = put_rename(f, tmp, name, if_absent);
    }
    if (rc != 0)
        return rc;
    const char *slash = strrchr(name, '/');
    char parent[PATH_SIZE];
    size_t len = slash != NULL ? (size_t)(slash - name) : 0;
    memcpy(parent, name, len);
    parent[len] = '\0';
    return sync_dir(f, parent);
}

static err file_put(struct store *s, const struct store_object *o)
{
    struct store_file *f = store_file_of(s);
    CHECK(store_name_valid(o->name));
    char tmp[64];
    u64 n = __atomic_fetch_add(&f->tmp_next, 1, __ATOMIC_RELAXED);
    snprintf(tmp, sizeof tmp, TMP_DIR "/%d-%" PRIu64, (int)getpid(), n);
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    int fd = openat(f->root_fd, tmp, flags | O_DIRECT, 0644);
    if (fd < 0 && errno == EINVAL) /* tmpfs and others have no direct writes */
        fd = openat(f->root_fd, tmp, flags, 0644);
    if (fd < 0)
        return err_from_errno(errno);
    int rc = write_parts(f, fd, o);
    if (rc == 0 && f->sync && fdatasync(fd) != 0)
        rc = errno;
    /* Network file systems tell of a full disk only here. */
    if (close(fd) != 0 && rc == 0)
        rc = errno;
    if (rc == 0)
        rc = put_at(f, tmp, o->name, o->if_absent);
    if (rc != 0)
        (void)unlinkat(f->root_fd, tmp, 0);
    return err_from_errno(rc);
}

/* ---- get ---- */

static err file_get_range(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    struct store_file *f = store_file_of(s);
    CHECK(store_name_valid(name));
    int fd = openat(f->root_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_from_errno(errno);
    err e = ERR_NONE;
    u32 done = 0;
    while (done < len && e == ERR_NONE) {
        ssize_t n = pread(fd, buf + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            e = err_from_errno(errno);
        else if (n == 0)
            e = ERR_TRUNCATED;
        else
            done += (u32)n;
    }
    close(fd);
    return e;
}

static err file_size(struct store *s, const char *name, u64 *out)
{
    struct store_file *f = store_file_of(s);
    CHECK(store_name_valid(name));
    struct stat st;
    if (fstatat(f->root_fd, name, &st, 0) != 0)
        return err_from_errno(errno);
    *out = (u64)st.st_size;
    return ERR_NONE;
}

static err file_remove(struct store *s, const char *name)
{
    struct store_file *f = store_file_of(s);
    CHECK(store_name_valid(name));
    if (unlinkat(f->root_fd, name, 0) != 0 && errno != ENOENT)
        return err_from_errno(errno);
    return ERR_NONE;
}

/* ---- list ---- */

struct file_list {
    struct store_file *f;
    const char *prefix;
    size_t prefix_len;
    err (*each)(void *arg, const char *name, u64 bytes);
    void *arg;
    char path[PATH_SIZE]; /* of the folder being read, with a '/' at its end; "" = root */
};

static err list_dir(struct file_list *l, size_t path_len, u32 depth);

/* `l->path` holds an entry's name of `len` bytes. */
static err list_entry_visit(struct file_list *l, size_t len, u32 depth)
{
    size_t common = MIN(len, l->prefix_len);
    if (memcmp(l->path, l->prefix, common) != 0)
        return ERR_NONE;
    struct stat st;
    if (fstatat(l->f->root_fd, l->path, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? ERR_NONE : err_from_errno(errno); /* removed meanwhile */
    if (S_ISDIR(st.st_mode)) {
        if (len + 1 >= sizeof l->path || depth + 1 >= LIST_DEPTH_MAX)
            return ERR_NONE;
        l->path[len] = '/';
        l->path[len + 1] = '\0';
        return list_dir(l, len + 1, depth + 1);
    }
    if (!S_ISREG(st.st_mode) || len < l->prefix_len || !store_name_valid(l->path))
        return ERR_NONE; /* not ours */
    return l->each(l->arg, l->path, (u64)st.st_size);
}

static err list_dir(struct file_list *l, size_t path_len, u32 depth)
{
    int fd = openat(l->f->root_fd, path_len ? l->path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? ERR_NONE : err_from_errno(errno);
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        int rc = errno;
        close(fd);
        return err_from_errno(rc);
    }
    err e = ERR_NONE;
    while (e == ERR_NONE) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (entry == NULL) {
            e = err_from_errno(errno);
            break;
        }
        size_t len = strlen(entry->d_name);
        if (entry->d_name[0] == '.' || path_len + len >= sizeof l->path)
            continue;
        memcpy(l->path + path_len, entry->d_name, len + 1);
        e = list_entry_visit(l, path_len + len, depth);
    }
    closedir(d);
    return e;
}

static err file_list(struct store *s, const char *prefix,
                     err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    struct file_list l = { .f = store_file_of(s),
                           .prefix = prefix,
                           .prefix_len = strlen(prefix),
                           .each = each,
                           .arg = arg };
    /* Start in the deepest folder that the prefix names: its siblings needn't be read. */
    const char *slash = strrchr(prefix, '/');
    size_t start = slash != NULL ? (size_t)(slash - prefix) + 1 : 0;
    if (start >= sizeof l.path)
        return ERR_NONE;
    memcpy(l.path, prefix, start);
    l.path[start] = '\0';
    if (start > 0) {
        l.path[start - 1] = '\0';
        CHECK(store_name_valid(l.path));
        l.path[start - 1] = '/';
    }
    return list_dir(&l, start, 0);
}

const struct store_driver store_file_driver = {
    .scheme = "file",
    .local = true,
    .open = file_open,
    .close = file_close,
    .put = file_put,
    .get_range = file_get_range,
    .size = file_size,
    .remove = file_remove,
    .list = file_list,
};
