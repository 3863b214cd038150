/* Repeated failures: how many lines, and what they say. */
#include "outage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW (1000 * NS_PER_S)

static u32 lines_of(struct outage *o, u64 from_ns, u64 seconds, u64 every_ns, err e)
{
    u32 n = 0;
    for (u64 ns = from_ns; ns < from_ns + seconds * NS_PER_S; ns += every_ns)
        n += outage_failed(o, ns, e);
    return n;
}

static void begins_goes_on_and_ends(void **state)
{
    struct outage o = { 0 }, was;
    (void)state;
    assert_false(outage_over(&o, &was)); /* nothing was wrong */
    assert_true(outage_failed(&o, NOW, ERR_IO));
    assert_int_equal(outage_seconds(&o, NOW), 0);
    assert_int_equal(lines_of(&o, NOW + NS_PER_S, 59, NS_PER_S / 10, ERR_IO), 0);
    assert_true(outage_failed(&o, NOW + 60 * NS_PER_S, ERR_IO));
    assert_int_equal(outage_seconds(&o, NOW + 60 * NS_PER_S), 60);
    assert_int_equal(o.failures, 592);
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.failures, 592);
    assert_int_equal(outage_seconds(&was, NOW + 61 * NS_PER_S), 61);
    assert_false(outage_over(&o, &was)); /* told once */
}

static void ten_minutes_are_ten_lines(void **state)
{
    struct outage o = { 0 };
    (void)state;
    assert_int_equal(lines_of(&o, NOW, 600, NS_PER_S / 100, ERR_IO), 10);
}

static void another_error_is_told_at_once(void **state)
{
    struct outage o = { 0 };
    (void)state;
    assert_true(outage_failed(&o, NOW, ERR_IO));
    assert_true(outage_failed(&o, NOW + 1, ERR_DENIED));
    assert_false(outage_failed(&o, NOW + 2, ERR_IO));
    assert_false(outage_failed(&o, NOW + 3, ERR_DENIED));
    assert_int_equal(outage_seconds(&o, NOW + NS_PER_S), 1);
}

static void many_errors_are_few_lines(void **state)
{
    struct outage o = { 0 };
    u32 n = 0;
    (void)state;
    for (u32 i = 0; i < 1000; i++)
        n += outage_failed(&o, NOW + i, (err)(ERR_NONE + 1 + (err)(i % 50)));
    assert_int_equal(n, OUTAGE_KINDS_MAX);
}

/* A store that fails every second request. */
static void what_comes_and_goes_is_two_lines_a_minute(void **state)
{
    struct outage o = { 0 }, was;
    u32 begun = 0, ended = 0;
    (void)state;
    for (u64 ns = NOW; ns < NOW + 120 * NS_PER_S; ns += NS_PER_S / 10) {
        begun += outage_failed(&o, ns, ERR_IO);
        ended += outage_over(&o, &was);
    }
    assert_int_equal(begun, 2);
    assert_int_equal(ended, 2);
}

/* The end of what was told is told, also when it ended and began again meanwhile. */
static void one_that_begins_again_is_told_later(void **state)
{
    struct outage o = { 0 }, was;
    (void)state;
    assert_true(outage_failed(&o, NOW, ERR_IO));
    assert_true(outage_over(&o, &was));
    assert_int_equal(lines_of(&o, NOW + NS_PER_S, 59, NS_PER_S, ERR_IO), 0);
    assert_true(outage_failed(&o, NOW + 60 * NS_PER_S, ERR_IO));
    assert_int_equal(outage_seconds(&o, NOW + 60 * NS_PER_S), 59);
    assert_true(outage_over(&o, &was));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_goes_on_and_ends),
        cmocka_unit_test(ten_minutes_are_ten_lines),
        cmocka_unit_test(another_error_is_told_at_once),
        cmocka_unit_test(many_errors_are_few_lines),
        cmocka_unit_test(what_comes_and_goes_is_two_lines_a_minute),
        cmocka_unit_test(one_that_begins_again_is_told_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
