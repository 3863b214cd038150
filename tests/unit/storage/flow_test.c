/* What puts carry to a store, by second. */
#include "../unit.h"

#include "flow.h"

static struct flow flow;

static int setup(void **state)
{
    (void)state;
    flow = (struct flow){ .best = 0 };
    return 0;
}

#define S(n) ((u64)((n)*1000) * NS_PER_MS)

static void a_put_counts_evenly_over_its_time(void **state)
{
    (void)state;
    flow_put(&flow, 4000, true, S(99.5), S(103.5));
    /* 500 in second 99, 1000 in 100, 101, 102, 500 in 103: the four from two seconds ago on. */
    assert_int_equal(flow_awaited(&flow, S(104.2)), (500 + 3 * 1000) / 4);
    assert_int_equal(flow_awaited(&flow, S(105)), (3 * 1000 + 500) / 4);
    assert_int_equal(flow_awaited(&flow, S(109)), 0);
    assert_int_equal(flow_best(&flow, S(104.2)), 1000);
}

static void puts_add_up_and_others_are_not_awaited(void **state)
{
    (void)state;
    for (u32 i = 0; i < 8; i++) {
        flow_put(&flow, 300, true, S(100 + i), S(100.9 + i));
        flow_put(&flow, 500, false, S(100.1 + i), S(100.8 + i));
        flow_put(&flow, 200, false, S(100.5 + i), S(100.5 + i)); /* in no time */
    }
    assert_int_equal(flow_awaited(&flow, S(108)), 300);
    assert_int_equal(flow_best(&flow, S(108)), 1000);
}

/* The second that goes on is not counted: it may yet get more, and another is told by then. */
static void the_best_second_is_kept_and_fades(void **state)
{
    (void)state;
    flow_put(&flow, 9000, false, S(100), S(100.5));
    assert_int_equal(flow_best(&flow, S(100.9)), 0);
    assert_int_equal(flow_best(&flow, S(101)), 9000);
    assert_int_equal(flow_best(&flow, S(100 + FLOW_FADES_S / 2)), 4500);
    flow_put(&flow, 6000, false, S(100 + FLOW_FADES_S / 2), S(100.5 + FLOW_FADES_S / 2));
    assert_int_equal(flow_best(&flow, S(110 + FLOW_FADES_S / 2)), 6000);
    assert_int_equal(flow_best(&flow, S(100 + FLOW_FADES_S)), 3000);
    assert_int_equal(flow_best(&flow, S(1e7)), 0);
}

static void it_is_busy_when_awaited_puts_take_more_than_a_quarter_of_the_best(void **state)
{
    (void)state;
    assert_false(flow_is_busy(&flow, S(100)));
    flow_put(&flow, 9000, false, S(90), S(90.5));
    flow_put(&flow, 10 * 2000, true, S(91), S(101));
    flow_put(&flow, 10 * 2000, false, S(91), S(101));
    assert_false(flow_is_busy(&flow, S(101)));
    flow_put(&flow, 10 * 500, true, S(91), S(101));
    assert_true(flow_is_busy(&flow, S(101)));
    assert_false(flow_is_busy(&flow, S(110)));
}

static void a_cell_of_an_old_second_is_empty(void **state)
{
    (void)state;
    flow_put(&flow, 1000, true, S(100), S(100.5));
    assert_int_equal(flow_awaited(&flow, S(103 + FLOW_SECONDS)), 0);
    flow_put(&flow, 400, true, S(100 + FLOW_SECONDS), S(100.5 + FLOW_SECONDS));
    assert_int_equal(flow_awaited(&flow, S(103 + FLOW_SECONDS)), 100);
}

static void what_is_too_large_or_too_long_has_a_bound(void **state)
{
    (void)state;
    flow_put(&flow, 1ull << 40, false, S(5), S(5.9));
    flow_put(&flow, 1ull << 40, false, S(5), S(5.9));
    assert_int_equal(flow_best(&flow, S(6)), (1ull << 34) - 1);
    setup(NULL);
    flow_put(&flow, 100000, false, S(0), S(1000)); /* 100 a second */
    assert_int_equal(flow_best(&flow, S(1001)), 100);
    setup(NULL);
    flow_put(&flow, 1000, true, S(0.2), S(0.7)); /* a clock that has just begun */
    assert_int_equal(flow_awaited(&flow, S(0.9)), 0);
    assert_int_equal(flow_awaited(&flow, S(3)), 250);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(a_put_counts_evenly_over_its_time),
        T(puts_add_up_and_others_are_not_awaited),
        T(the_best_second_is_kept_and_fades),
        T(a_cell_of_an_old_second_is_empty),
        T(what_is_too_large_or_too_long_has_a_bound),
        T(it_is_busy_when_awaited_puts_take_more_than_a_quarter_of_the_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
