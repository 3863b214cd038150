/* The embedded metadata: revisions, conditions, all or nothing, growth, one owner. */
#include "../unit.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "bytes.h"
#include "meta.h"
#include "tmpdir.h"

static struct tmpdir dir;
static struct meta *m;
static struct arena arena;
static char why[512];

static struct meta *open_with(const char *query)
{
    char url[512];
    struct meta *out;
    snprintf(url, sizeof url, "lmdb://%s/meta%s", dir.path, query);
    err e = meta_open(url, &out, why, sizeof why);
    if (e != ERR_NONE)
        fprintf(stderr, "%s\n", why);
    assert_int_equal(e, ERR_NONE);
    return out;
}

static err put_if(const char *key, const char *value, const u64 *revision)
{
    struct meta_op op = { META_PUT, bytes_str(key), bytes_str(value) };
    struct meta_compare c = { bytes_str(key), revision ? *revision : 0 };
    struct meta_txn t = { &c, &op, revision != NULL, 1 };
    return meta_commit(m, &t);
}

static struct meta_kv got(const char *key)
{
    struct meta_kv kv;
    assert_int_equal(meta_get(m, bytes_str(key), &arena, &kv), ERR_NONE);
    return kv;
}

static void value_and_revision_come_back(void **state)
{
    (void)state;
    struct meta_kv kv;
    assert_int_equal(meta_get(m, bytes_str("a"), &arena, &kv), ERR_NOT_FOUND);
    assert_int_equal(kv.revision, 0);
    assert_int_equal(put_if("a", "one", NULL), ERR_NONE);
    kv = got("a");
    assert_true(bytes_eq_str(kv.value, "one"));
    assert_true(kv.revision > 0);
    u64 first = kv.revision;
    assert_int_equal(put_if("b", "", NULL), ERR_NONE);
    assert_int_equal(got("a").revision, first);
    assert_int_equal(got("b").value.len, 0);
    assert_int_equal(put_if("a", "two", NULL), ERR_NONE);
    assert_true(got("a").revision > first);
}

static void compares_guard_all_ops(void **state)
{
    (void)state;
    u64 absent = 0;
    assert_int_equal(put_if("a", "1", &absent), ERR_NONE);
    assert_int_equal(put_if("a", "2", &absent), ERR_CONFLICT);
    u64 revision = got("a").revision;
    assert_int_equal(put_if("a", "2", &revision), ERR_NONE);
    assert_int_equal(put_if("a", "3", &revision), ERR_CONFLICT);
    assert_true(bytes_eq_str(got("a").value, "2"));
    struct meta_op ops[] = { { META_PUT, bytes_str("x"), bytes_str("x") },
                             { META_DELETE, bytes_str("a"), { NULL, 0 } } };
    struct meta_compare c = { bytes_str("a"), revision };
    struct meta_txn t = { &c, ops, 1, 2 };
    assert_int_equal(meta_commit(m, &t), ERR_CONFLICT);
    struct meta_kv kv;
    assert_int_equal(meta_get(m, bytes_str("x"), &arena, &kv), ERR_NOT_FOUND);
}

static void deleted_and_made_again_differs(void **state)
{
    (void)state;
    assert_int_equal(put_if("a", "1", NULL), ERR_NONE);
    u64 revision = got("a").revision;
    struct meta_op op = { META_DELETE, bytes_str("a"), { NULL, 0 } };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(m, &t), ERR_NONE);
    assert_int_equal(meta_commit(m, &t), ERR_NONE); /* absent: nothing to do */
    assert_int_equal(put_if("a", "1", &revision), ERR_CONFLICT);
    assert_int_equal(put_if("a", "1", NULL), ERR_NONE);
    assert_int_equal(put_if("a", "2", &revision), ERR_CONFLICT);
}

struct seen {
    char keys[256];
    u32 count;
    err stop;
};
static err see(void *arg, const struct meta_kv *kv)
{
    struct seen *s = arg;
    strncat(s->keys, (const char *)kv->key.data, kv->key.len);
    strcat(s->keys, " ");
    assert_true(kv->revision > 0);
    s->count++;
    return s->stop;
}

static void range_is_by_prefix_and_ascending(void **state)
{
    (void)state;
    const char *keys[] = { "b/2", "a/9", "b/1", "b0", "b/10", "c" };
    for (u32 i = 0; i < ARRAY_COUNT(keys); i++)
        assert_int_equal(put_if(keys[i], "v", NULL), ERR_NONE);
    struct seen s = { 0 };
    assert_int_equal(meta_range(m, bytes_str("b/"), see, &s), ERR_NONE);
    assert_string_equal(s.keys, "b/1 b/10 b/2 ");
    s = (struct seen){ 0 };
    assert_int_equal(meta_range(m, (struct bytes){ NULL, 0 }, see, &s), ERR_NONE);
    assert_int_equal(s.count, 6);
    s = (struct seen){ .stop = ERR_BUSY };
    assert_int_equal(meta_range(m, bytes_str("b"), see, &s), ERR_BUSY);
    assert_int_equal(s.count, 1);
}

static const char *keys_behind(const char *prefix, const char *after)
{
    static struct seen s;
    s = (struct seen){ 0 };
    assert_int_equal(m->driver->range(m, bytes_str(prefix), bytes_str(after), see, &s), ERR_NONE);
    return s.keys;
}

static void a_range_goes_on_behind_a_key(void **state)
{
    (void)state;
    const char *keys[] = { "a/9", "b/1", "b/2", "b/3", "c" };
    for (u32 i = 0; i < ARRAY_COUNT(keys); i++)
        assert_int_equal(put_if(keys[i], "v", NULL), ERR_NONE);
    assert_string_equal(keys_behind("", "b/1"), "b/2 b/3 c ");
    assert_string_equal(keys_behind("", "b/15"), "b/2 b/3 c "); /* deleted meanwhile */
    assert_string_equal(keys_behind("b/", "b/2"), "b/3 ");
    assert_string_equal(keys_behind("b/", "a/9"), "b/1 b/2 b/3 ");
    assert_string_equal(keys_behind("b/", "c"), "");
    assert_string_equal(keys_behind("", "c"), "");
}

static void delete_prefix_takes_only_the_prefix(void **state)
{
    (void)state;
    for (u32 i = 0; i < 500; i++) {
        char key[32];
        snprintf(key, sizeof key, "p/%c/%04u", i % 2 ? 'a' : 'b', i);
        assert_int_equal(put_if(key, "v", NULL), ERR_NONE);
    }
    struct meta_op op = { META_DELETE_PREFIX, bytes_str("p/a/"), { NULL, 0 } };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(m, &t), ERR_NONE);
    struct seen s = { 0 };
    static struct seen big;
    big = s;
    assert_int_equal(meta_range(m, bytes_str("p/a/"), see, &big), ERR_NONE);
    assert_int_equal(big.count, 0);
    big.keys[0] = '\0';
    struct meta_kv kv;
    assert_int_equal(meta_get(m, bytes_str("p/b/0000"), &arena, &kv), ERR_NONE);
    assert_int_equal(meta_get(m, bytes_str("p/b/0498"), &arena, &kv), ERR_NONE);
}

static void state_survives_reopen(void **state)
{
    (void)state;
    assert_int_equal(put_if("a", "1", NULL), ERR_NONE);
    u64 revision = got("a").revision;
    meta_close(m);
    m = open_with("");
    assert_int_equal(got("a").revision, revision);
    assert_int_equal(put_if("a", "2", &revision), ERR_NONE);
}

static err put_big(u32 i, u8 *value, u32 len)
{
    char key[32];
    snprintf(key, sizeof key, "big/%06u", i);
    struct meta_op op = { META_PUT, bytes_str(key), bytes_of(value, len) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    return meta_commit(m, &t);
}

static void map_grows_to_its_bound_and_then_refuses(void **state)
{
    (void)state;
    meta_close(m);
    m = open_with("?map=134217728"); /* starts with 64 MiB */
    u32 len = 4 << 20;
    u8 *value = mem_alloc(len);
    memset(value, 7, len);
    u32 n = 0;
    err e = ERR_NONE;
    for (; n < 64 && e == ERR_NONE; n++)
        e = put_big(n, value, len);
    assert_int_equal(e, ERR_DISK_FULL);
    assert_true(n > 20 && n < 34);
    struct meta_kv kv;
    char key[32];
    snprintf(key, sizeof key, "big/%06u", n - 1);
    assert_int_equal(meta_get(m, bytes_str(key), &arena, &kv), ERR_NOT_FOUND);
    struct meta_op op = { META_DELETE_PREFIX, bytes_str("big/"), { NULL, 0 } };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(m, &t), ERR_NONE); /* room for small changes is left */
    assert_int_equal(put_big(0, value, 1 << 20), ERR_NONE);
    mem_free(value);
}

static void second_owner_is_refused_with_a_remedy(void **state)
{
    (void)state;
    char url[512];
    struct meta *other;
    snprintf(url, sizeof url, "lmdb://%s/meta", dir.path);
    assert_int_equal(meta_open(url, &other, why, sizeof why), ERR_BUSY);
    assert_non_null(strstr(why, "another process"));
    assert_non_null(strstr(why, "node.data_dir"));
    assert_int_equal(put_if("still", "works", NULL), ERR_NONE);
}

static void garbage_is_no_database(void **state)
{
    (void)state;
    meta_close(m);
    char path[512];
    snprintf(path, sizeof path, "%s/meta/data.mdb", dir.path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (u32 i = 0; i < 10000; i++)
        fputs("garbage!", f);
    fclose(f);
    char url[512];
    snprintf(url, sizeof url, "lmdb://%s/meta", dir.path);
    assert_int_equal(meta_open(url, &m, why, sizeof why), ERR_CORRUPT);
    assert_non_null(strstr(why, "restore"));
    remove(path);
    m = open_with("");
}

static void absurd_keys_are_refused(void **state)
{
    (void)state;
    char key[META_KEY_MAX + 2];
    memset(key, 'k', sizeof key);
    key[META_KEY_MAX + 1] = '\0';
    assert_int_equal(put_if(key, "v", NULL), ERR_MALFORMED);
    key[META_KEY_MAX] = '\0';
    assert_int_equal(put_if(key, "v", NULL), ERR_NONE);
    assert_int_equal(put_if("", "v", NULL), ERR_MALFORMED);
}

/* Killed in the middle of commits: what was committed is there, in pairs. */
static void kill_leaves_whole_transactions(void **state)
{
    (void)state;
    meta_close(m);
    int begun[2];
    u8 byte = 0;
    assert_int_equal(pipe(begun), 0);
    pid_t pid = fork();
    if (pid == 0) {
        m = open_with("");
        for (u32 i = 1;; i++) {
            char v[16];
            snprintf(v, sizeof v, "%u", i);
            struct meta_op ops[] = { { META_PUT, bytes_str("l"), bytes_str(v) },
                                     { META_PUT, bytes_str("r"), bytes_str(v) } };
            struct meta_txn t = { NULL, ops, 0, 2 };
            if (meta_commit(m, &t) != ERR_NONE || (i == 1 && write(begun[1], &byte, 1) != 1))
                _exit(1);
        }
    }
    assert_int_equal(read(begun[0], &byte, 1), 1); /* however slow the disk is */
    close(begun[0]);
    close(begun[1]);
    usleep(150000);
    kill(pid, SIGKILL);
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    m = open_with("");
    struct meta_kv l = got("l"), r = got("r");
    assert_true(bytes_eq(l.value, r.value));
    assert_int_equal(l.revision, r.revision);
}

static int setup(void **state)
{
    (void)state;
    tmpdir_make(&dir);
    arena_init(&arena, 4096, 64 * MIB);
    m = open_with("");
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    meta_close(m);
    arena_free(&arena);
    tmpdir_remove(&dir);
    return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(value_and_revision_come_back),
        T(compares_guard_all_ops),
        T(deleted_and_made_again_differs),
        T(range_is_by_prefix_and_ascending),
        T(a_range_goes_on_behind_a_key),
        T(delete_prefix_takes_only_the_prefix),
        T(state_survives_reopen),
        T(map_grows_to_its_bound_and_then_refuses),
        T(second_owner_is_refused_with_a_remedy),
        T(garbage_is_no_database),
        T(absurd_keys_are_refused),
        T(kill_leaves_whole_transactions),
    };
    return cmocka_run_group_tests_name("meta_lmdb", tests, NULL, NULL);
}
