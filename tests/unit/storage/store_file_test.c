/* Objects in a folder: whole or not there, found again, refused with a remedy. */
#include "../unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bytes.h"
#include "store.h"
#include "tmpdir.h"

static struct tmpdir dir;
static char why[512];

static struct store *store_at(const char *sub)
{
    char url[512];
    struct store *s;
    snprintf(url, sizeof url, "file://%s%s", dir.path, sub);
    assert_int_equal(store_open(url, NULL, &s, why, sizeof why), ERR_NONE);
    return s;
}

static err put_parts(struct store *s, const char *name, const struct bytes *parts, u32 n,
                     bool if_absent)
{
    struct store_object o = {
        .name = name, .parts = parts, .part_count = n, .if_absent = if_absent
    };
    return s->driver->put(s, &o);
}

static err put_text(struct store *s, const char *name, const char *text, bool if_absent)
{
    struct bytes part = bytes_str(text);
    return put_parts(s, name, &part, 1, if_absent);
}

static u32 files_in(const char *sub)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir.path, sub);
    DIR *d = opendir(path);
    assert_non_null(d);
    u32 n = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void put_joins_parts_and_get_range_reads_them(void **state)
{
    (void)state;
    struct store *s = store_at("/a/b");
    assert_ptr_equal(store_for(s, STORE_GC), s); /* a disk knows no classes */
    u8 big[3000];
    for (u32 i = 0; i < sizeof big; i++)
        big[i] = (u8)(i * 7);
    struct bytes parts[3000]; /* more than one writev takes, some empty */
    for (u32 i = 0; i < 3000; i++)
        parts[i] = bytes_of(big + i, i % 3 == 0 ? 0 : 1);
    assert_int_equal(put_parts(s, "b/0000/x-1", parts, 3000, false), ERR_NONE);
    u64 size;
    assert_int_equal(s->driver->size(s, "b/0000/x-1", &size), ERR_NONE);
    assert_int_equal(size, 2000);
    u8 got[2000];
    assert_int_equal(s->driver->get_range(s, "b/0000/x-1", 2, got, 4), ERR_NONE);
    assert_memory_equal(got, ((u8[]){ big[4], big[5], big[7], big[8] }), 4);
    assert_int_equal(s->driver->get_range(s, "b/0000/x-1", 1990, got, 10), ERR_NONE);
    assert_int_equal(s->driver->get_range(s, "b/0000/x-1", 1991, got, 10), ERR_TRUNCATED);
    assert_int_equal(s->driver->get_range(s, "b/0000/x-2", 0, got, 10), ERR_NOT_FOUND);
    assert_int_equal(s->driver->size(s, "c/none", &size), ERR_NOT_FOUND);
    s->driver->close(s);
}

/* Large parts lie in memory as in the file, now and then, with and without a pace. */
static void put_writes_parts_in_place(void **state)
{
    (void)state;
    enum { IMAGE = 12 * MIB, PARTS = 400 };
    struct store *s = store_at("/p");
    u8 *image = mem_map(IMAGE, false), *want = mem_alloc(IMAGE), *got = mem_alloc(IMAGE);
    u32 rnd = 12345;
    for (u32 i = 0; i < IMAGE; i++)
        image[i] = (u8)(i ^ i >> 8 ^ i >> 16);
    for (u32 round = 0; round < 6; round++) {
        struct bytes parts[PARTS];
        u64 pos = 0;
        u32 at = 0, n = 0;
        for (; n < PARTS; n++) {
            rnd = rnd * 1664525u + 1013904223u;
            u32 len = (rnd >> 8) % (rnd >> 28 == 0 ? 3u << 20 : rnd % 4 ? 70000u : 300u);
            if ((rnd >> 5) % 5)
                at += (u32)(pos - at) % 512;
            if (at + len > IMAGE || pos + len > IMAGE)
                break;
            parts[n] = bytes_of(image + at, len);
            memcpy(want + pos, image + at, len);
            at += len;
            pos += len;
        }
        u64 pace = GIB;
        char name[32];
        snprintf(name, sizeof name, "b/%u", round);
        struct store_object o = {
            .name = name, .parts = parts, .part_count = n, .pace = round % 2 ? &pace : NULL
        };
        assert_int_equal(s->driver->put(s, &o), ERR_NONE);
        u64 size;
        assert_int_equal(s->driver->size(s, name, &size), ERR_NONE);
        assert_int_equal(size, pos);
        assert_int_equal(s->driver->get_range(s, name, 0, got, (u32)pos), ERR_NONE);
        assert_memory_equal(got, want, pos);
    }
    mem_unmap(image, IMAGE);
    mem_free(want);
    mem_free(got);
    s->driver->close(s);
}

static void put_replaces_unless_if_absent(void **state)
{
    (void)state;
    struct store *s = store_at("");
    u8 got[3];
    assert_int_equal(put_text(s, "k/one", "old", true), ERR_NONE);
    assert_int_equal(put_text(s, "k/one", "new", true), ERR_EXISTS);
    assert_int_equal(s->driver->get_range(s, "k/one", 0, got, 3), ERR_NONE);
    assert_memory_equal(got, "old", 3);
    assert_int_equal(put_text(s, "k/one", "new", false), ERR_NONE);
    assert_int_equal(s->driver->get_range(s, "k/one", 0, got, 3), ERR_NONE);
    assert_memory_equal(got, "new", 3);
    assert_int_equal(files_in(".tmp"), 0);
    s->driver->close(s);
}

static void remove_is_idempotent(void **state)
{
    (void)state;
    struct store *s = store_at("");
    assert_int_equal(put_text(s, "k/one", "x", false), ERR_NONE);
    assert_int_equal(s->driver->remove(s, "k/one"), ERR_NONE);
    assert_int_equal(s->driver->remove(s, "k/one"), ERR_NONE);
    assert_int_equal(s->driver->remove(s, "never/there"), ERR_NONE);
    s->driver->close(s);
}

struct listed {
    u32 count;
    u64 bytes;
    err stop;
};
static err listed_add(void *arg, const char *name, u64 bytes)
{
    struct listed *l = arg;
    assert_true(store_name_valid(name));
    l->count++;
    l->bytes += bytes;
    return l->stop;
}

static struct listed list(struct store *s, const char *prefix, err stop)
{
    struct listed l = { .stop = stop };
    assert_int_equal(s->driver->list(s, prefix, listed_add, &l), stop);
    return l;
}

static void list_walks_folders_by_prefix(void **state)
{
    (void)state;
    struct store *s = store_at("");
    assert_int_equal(put_text(s, "b/0000/a1", "1", false), ERR_NONE);
    assert_int_equal(put_text(s, "b/0000/a2", "22", false), ERR_NONE);
    assert_int_equal(put_text(s, "b/0001/a1", "333", false), ERR_NONE);
    assert_int_equal(put_text(s, "top", "4444", false), ERR_NONE);
    assert_int_equal(list(s, "", ERR_NONE).count, 4);
    assert_int_equal(list(s, "b/", ERR_NONE).count, 3);
    assert_int_equal(list(s, "b/0000/", ERR_NONE).bytes, 3);
    assert_int_equal(list(s, "b/0000/a2", ERR_NONE).bytes, 2);
    assert_int_equal(list(s, "b/000", ERR_NONE).count, 3);
    assert_int_equal(list(s, "t", ERR_NONE).bytes, 4);
    assert_int_equal(list(s, "b/0007/", ERR_NONE).count, 0);
    assert_int_equal(list(s, "", ERR_BUSY).count, 1); /* stops at the first error */
    s->driver->close(s);
}

struct paged {
    char last[STORE_NAME_MAX + 1];
    u32 count;
};

static err paged_add(void *arg, const char *name, u64 bytes)
{
    struct paged *p = arg;
    (void)bytes;
    assert_true(strcmp(p->last, name) < 0);
    snprintf(p->last, sizeof p->last, "%s", name);
    p->count++;
    return ERR_NONE;
}

static void pages_ascend_and_leave_nothing_out(void **state)
{
    (void)state;
    struct store *s = store_at("");
    char name[64];
    for (u32 i = 0; i < 100; i++) { /* folders of a few, and not in order */
        snprintf(name, sizeof name, "b/%04x/%02u", i * 7 % 13, i * 37 % 100);
        assert_int_equal(put_text(s, name, "x", false), ERR_NONE);
    }
    for (u32 max = 1; max < 120; max += 17) {
        struct paged p = { 0 };
        u32 before;
        do {
            char after[sizeof p.last];
            memcpy(after, p.last, sizeof after);
            before = p.count;
            assert_int_equal(store_list_page(s, "b/", after, max, paged_add, &p), ERR_NONE);
            assert_true(p.count - before <= max);
        } while (p.count > before);
        assert_int_equal(p.count, 100);
    }
    s->driver->close(s);
}

static void unfinished_files_are_cleaned_and_never_listed(void **state)
{
    (void)state;
    struct store *s = store_at("");
    char path[512];
    snprintf(path, sizeof path, "%s/.tmp/99-1", dir.path);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "half", 4), 4);
    close(fd);
    assert_int_equal(list(s, "", ERR_NONE).count, 0);
    s->driver->close(s);
    s = store_at("");
    assert_int_equal(files_in(".tmp"), 0);
    s->driver->close(s);
}

/* RLIMIT_FSIZE stands in for a full disk: the write fails in the middle. */
static void failed_put_leaves_nothing(void **state)
{
    (void)state;
    struct store *s = store_at("");
    assert_int_equal(put_text(s, "b/keep", "old", false), ERR_NONE);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit was, small;
    getrlimit(RLIMIT_FSIZE, &was);
    small = (struct rlimit){ .rlim_cur = 8192, .rlim_max = was.rlim_max };
    setrlimit(RLIMIT_FSIZE, &small);
    static u8 big[65536];
    struct bytes part = bytes_of(big, sizeof big);
    err e = put_parts(s, "b/keep", &part, 1, false);
    err e2 = put_parts(s, "b/other", &part, 1, true);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_int_not_equal(e, ERR_NONE);
    assert_int_not_equal(e2, ERR_NONE);
    u64 size;
    assert_int_equal(s->driver->size(s, "b/keep", &size), ERR_NONE);
    assert_int_equal(size, 3);
    assert_int_equal(s->driver->size(s, "b/other", &size), ERR_NOT_FOUND);
    assert_int_equal(files_in(".tmp"), 0);
    s->driver->close(s);
}

/* A real small file system, where the test may mount one. */
static void full_disk_is_told_as_such(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0)
        skip();
    char path[512];
    struct store *s = store_at("");
    /* The next temporary name is known: let it lead to a device that is always full. */
    snprintf(path, sizeof path, "%s/.tmp/%d-0", dir.path, (int)getpid());
    assert_int_equal(symlink("/dev/full", path), 0);
    assert_int_equal(put_text(s, "b/one", "x", false), ERR_DISK_FULL);
    assert_int_equal(files_in(".tmp"), 0);
    assert_int_equal(put_text(s, "b/one", "x", false), ERR_NONE);
    s->driver->close(s);
}

static void open_errors_name_cause_and_remedy(void **state)
{
    (void)state;
    struct store *s;
    char url[512];
    assert_int_equal(store_open("ftp://x/y", NULL, &s, why, sizeof why), ERR_INVALID_CONFIG);
    assert_non_null(strstr(why, "file:///path"));
    snprintf(url, sizeof url, "file://%s/file/below", dir.path);
    char path[512];
    snprintf(path, sizeof path, "%s/file", dir.path);
    close(open(path, O_WRONLY | O_CREAT, 0644));
    assert_int_not_equal(store_open(url, NULL, &s, why, sizeof why), ERR_NONE);
    assert_non_null(strstr(why, "store.url"));
    assert_int_not_equal(store_open("file://", NULL, &s, why, sizeof why), ERR_NONE);
}

static void names_are_checked(void **state)
{
    (void)state;
    const char *good[] = { "a", "b/0000/0123456789abcdef-00000001", "x.y-z" };
    const char *bad[] = { "", "/a", "a/", "a//b", "../a", "a/../b", ".tmp/x", "A", "a b", "a/.x" };
    for (u32 i = 0; i < ARRAY_COUNT(good); i++)
        assert_true(store_name_valid(good[i]));
    for (u32 i = 0; i < ARRAY_COUNT(bad); i++)
        assert_false(store_name_valid(bad[i]));
    char longest[STORE_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[STORE_NAME_MAX + 1] = '\0';
    assert_false(store_name_valid(longest));
    longest[STORE_NAME_MAX] = '\0';
    assert_true(store_name_valid(longest));
}

static int setup(void **state)
{
    (void)state;
    tmpdir_make(&dir);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(put_joins_parts_and_get_range_reads_them),
        T(put_writes_parts_in_place),
        T(put_replaces_unless_if_absent),
        T(remove_is_idempotent),
        T(list_walks_folders_by_prefix),
        T(pages_ascend_and_leave_nothing_out),
        T(unfinished_files_are_cleaned_and_never_listed),
        T(failed_put_leaves_nothing),
        T(full_disk_is_told_as_such),
        T(open_errors_name_cause_and_remedy),
        T(names_are_checked),
    };
    return cmocka_run_group_tests_name("store_file", tests, NULL, NULL);
}
