/* place: URLs of stores and metadata. */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../storage/place.h"
#include "mem.h"

static void a_scheme_is_whole(void **state)
{
    (void)state;
    assert_true(place_has_scheme("file:///a", "file"));
    assert_false(place_has_scheme("file:///a", "fil"));
    assert_false(place_has_scheme("file:///a", "files"));
    assert_false(place_has_scheme("file:/a", "file"));
    assert_false(place_has_scheme("", "file"));
}

static void path_expect(const char *url, const char *path)
{
    char *got = place_path(url);
    assert_string_equal(got, path);
    mem_free(got);
}

static void a_path_ends_at_the_query_without_slashes(void **state)
{
    (void)state;
    path_expect("file:///a/b", "/a/b");
    path_expect("file:///a/b//?sync=false", "/a/b");
    path_expect("file:///", "/");
    path_expect("lmdb://a?map=1", "a");
    path_expect("lmdb://", "");
}

static void an_option_is_found_by_its_whole_key(void **state)
{
    (void)state;
    assert_string_equal(place_option("lmdb://a?map=12", "map"), "12");
    assert_string_equal(place_option("lmdb://a?x=1&map=12", "map"), "12");
    assert_null(place_option("lmdb://a?bitmap=12", "map"));
    assert_null(place_option("lmdb://map=12", "map"));
    assert_null(place_option("lmdb://a", "map"));
}

static void folders_are_made_with_their_parents(void **state)
{
    (void)state;
    char top[] = "/tmp/place_test_XXXXXX", path[64], file[64];
    struct stat st;
    assert_non_null(mkdtemp(top));
    snprintf(path, sizeof path, "%s/a//b/", top);
    assert_int_equal(place_make_folders(path, 0755), 0);
    assert_int_equal(place_make_folders(path, 0755), 0); /* already there */
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    snprintf(file, sizeof file, "%s/file", top);
    fclose(fopen(file, "w"));
    snprintf(path, sizeof path, "%s/file/b", top);
    assert_int_equal(place_make_folders(path, 0755), ENOTDIR);
    assert_int_equal(place_make_folders("", 0755), ENOENT);
    unlink(file);
    snprintf(path, sizeof path, "%s/a/b", top);
    rmdir(path);
    snprintf(path, sizeof path, "%s/a", top);
    rmdir(path);
    assert_int_equal(rmdir(top), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scheme_is_whole),
        cmocka_unit_test(a_path_ends_at_the_query_without_slashes),
        cmocka_unit_test(an_option_is_found_by_its_whole_key),
        cmocka_unit_test(folders_are_made_with_their_parents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
