/* mem: counting, alignment, arenas and their limit. */
#include "mem.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bytes.h"
#include "rng.h"

static void allocations_are_zeroed_aligned_and_counted(void **state)
{
    (void)state;
    u64 before = mem_used();
    u8 *p[200];
    for (u32 i = 0; i < ARRAY_COUNT(p); i++) {
        p[i] = mem_alloc(1 + i * 37);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (u32 k = 0; k < 1 + i * 37; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], 0xff, 1 + i * 37);
    }
    assert_true(mem_used() >= before + 199 * 200 / 2 * 37);
    for (u32 i = 0; i < ARRAY_COUNT(p); i++)
        mem_free(p[i]);
    mem_free(NULL);
    assert_true(mem_used() == before);
}

static void realloc_keeps_the_bytes(void **state)
{
    (void)state;
    u64 before = mem_used();
    u8 *p = NULL;
    for (u32 size = 1; size < 100000; size *= 3) {
        p = mem_realloc(p, size);
        p[size - 1] = (u8)size;
        if (size > 1)
            assert_int_equal(p[size / 3 - 1], (u8)(size / 3));
    }
    mem_free(p);
    assert_true(mem_used() == before);
}

static void copies_are_terminated(void **state)
{
    (void)state;
    char *s = mem_strndup(bytes_of("hello world", 5));
    assert_string_equal(s, "hello");
    char *empty = mem_strndup((struct bytes){ NULL, 0 });
    assert_string_equal(empty, "");
    u8 *d = mem_dup(NULL, 0);
    assert_non_null(d);
    mem_free(s);
    mem_free(empty);
    mem_free(d);
}

static void maps_are_aligned_and_released_to_zero(void **state)
{
    (void)state;
    u8 *p = mem_map(3 * MIB, true);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % (2 * MIB), 0);
    memset(p, 1, 4 * MIB); /* rounded up to huge pages */
    mem_release_pages(p, 4 * MIB);
    assert_int_equal(p[0], 0);
    assert_int_equal(p[4 * MIB - 1], 0);
    mem_unmap(p, 4 * MIB);
    p = mem_map(1, false);
    assert_non_null(p);
    p[4095] = 1;
    mem_unmap(p, 1);
}

static void arena_gives_distinct_zeroed_memory(void **state)
{
    (void)state;
    struct arena a;
    struct rng r;
    u64 before = mem_used();
    arena_init(&a, 1024, 10 * MIB);
    rng_init(&r, 1);
    for (u32 round = 0; round < 20; round++) {
        u8 *p[100];
        u32 n[100];
        for (u32 i = 0; i < ARRAY_COUNT(p); i++) {
            n[i] = (u32)rng_below(&r, i % 10 ? 100 : 5000);
            p[i] = arena_alloc(&a, n[i]);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t)p[i] % 16, 0);
            for (u32 k = 0; k < n[i]; k++)
                assert_int_equal(p[i][k], 0);
            memset(p[i], (int)i + 1, n[i]);
        }
        for (u32 i = 0; i < ARRAY_COUNT(p); i++)
            for (u32 k = 0; k < n[i]; k++)
                assert_int_equal(p[i][k], i + 1);
        arena_reset(&a);
        assert_true(a.used_bytes <= 1024);
    }
    arena_free(&a);
    assert_true(mem_used() == before);
}

static void arena_limit_is_hard(void **state)
{
    (void)state;
    struct arena a;
    static u8 big[5000];
    arena_init(&a, 1000, 4000);
    u64 got = 0;
    while (arena_alloc(&a, 100))
        got += 100;
    assert_in_range(got, 3000, 5000);
    assert_null(arena_copy(&a, bytes_of(big, sizeof big)).data);
    assert_null(arena_alloc(&a, UINT64_MAX));
    assert_null(arena_alloc(&a, UINT64_MAX - 7));
    assert_null(arena_alloc(&a, 4001));
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 100)); /* usable again */
    assert_null(arena_copy(&a, (struct bytes){ NULL, 0 }).data);
    assert_non_null(arena_copy(&a, bytes_of("", 0)).data);
    assert_string_equal(arena_printf(&a, "%s-%d", "x", 5), "x-5");
    assert_null(arena_printf(&a, "%5000d", 1));
    arena_free(&a);
    arena_free(&a);
}

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* v2: the group above may be the tighter one. v1: a hierarchy of its own. */
static void the_tightest_control_group_counts(void **state)
{
    (void)state;
    char root[] = "/tmp/leat-cgroup-XXXXXX";
    assert_non_null(mkdtemp(root));
    assert_int_equal(chdir(root), 0);
    assert_int_equal(mkdir("a", 0700) | mkdir("a/b", 0700), 0);
    put_file("self", "0::/a/b\n");
    assert_true(mem_cgroup_limit("self", root) == UINT64_MAX);
    put_file("a/b/memory.max", "max\n");
    assert_true(mem_cgroup_limit("self", root) == UINT64_MAX);
    put_file("a/memory.max", "1073741824\n");
    assert_int_equal(mem_cgroup_limit("self", root), GIB);
    put_file("a/b/memory.max", "536870912\n");
    assert_int_equal(mem_cgroup_limit("self", root), 512 * MIB);
    put_file("memory.max", "268435456\n");
    assert_int_equal(mem_cgroup_limit("self", root), 256 * MIB);
    put_file("self", "0::/\n");
    assert_int_equal(mem_cgroup_limit("self", root), 256 * MIB);
    assert_int_equal(mkdir("memory", 0700) | mkdir("memory/c", 0700), 0);
    put_file("memory/c/memory.limit_in_bytes", "134217728\n");
    put_file("self", "7:cpu,cpuacct:/c\n4:memory:/c\nnonsense\n");
    assert_int_equal(mem_cgroup_limit("self", root), 128 * MIB);
    assert_true(mem_cgroup_limit("missing", root) == UINT64_MAX);
    static const char *const files[] = { "self", "a/b/memory.max", "a/memory.max", "memory.max",
                                         "memory/c/memory.limit_in_bytes" };
    static const char *const dirs[] = { "a/b", "a", "memory/c", "memory", "" };
    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        assert_int_equal(unlink(files[i]), 0);
    assert_int_equal(chdir("/"), 0);
    for (size_t i = 0; i < ARRAY_COUNT(dirs); i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", root, dirs[i]);
        assert_int_equal(rmdir(path), 0);
    }
    assert_in_range(mem_machine_bytes(), 128 * MIB, 1024 * TIB);
}

#ifdef MEM_POISONING
/* Whether a process of its own that touches the byte is ended by the sanitizer. */
static bool touching_ends(const u8 *p)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int quiet = open("/dev/null", O_WRONLY);
        dup2(quiet, STDERR_FILENO);
        _exit(*(const volatile u8 *)p & 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

static void a_sanitizer_sees_arena_memory_misused(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 1024, 4096);
    u8 *p = arena_alloc(&a, 13), *q = arena_alloc(&a, 16);
    assert_false(touching_ends(p + 12));
    assert_true(touching_ends(p + 13));
    assert_false(touching_ends(q + 15));
    assert_true(touching_ends(q + 16));
    arena_reset(&a);
    assert_true(touching_ends(p));
    assert_ptr_equal(arena_alloc(&a, 1), p);
    assert_false(touching_ends(p));
    arena_free(&a);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_zeroed_aligned_and_counted),
        cmocka_unit_test(realloc_keeps_the_bytes),
        cmocka_unit_test(copies_are_terminated),
        cmocka_unit_test(maps_are_aligned_and_released_to_zero),
        cmocka_unit_test(arena_gives_distinct_zeroed_memory),
        cmocka_unit_test(arena_limit_is_hard),
        cmocka_unit_test(the_tightest_control_group_counts),
#ifdef MEM_POISONING
        cmocka_unit_test(a_sanitizer_sees_arena_memory_misused),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
