/* Timers fire in order of their deadlines, once, and survive any mix of start, move and stop. */
#include "timer.h"

#include "../unit.h"
#include "rng.h"

#define N 500u

struct probe {
    struct timer timer;
    u32 fired;
};

static u64 last_deadline;
static struct timers *shared;

static void probe_fired(struct timer *t)
{
    struct probe *p = container_of(t, struct probe, timer);
    assert_false(timer_armed(t));
    assert_true(t->deadline_ns >= last_deadline);
    last_deadline = t->deadline_ns;
    p->fired++;
}

static void fires_in_order_after_random_moves(void **state)
{
    (void)state;
    static struct probe probes[N];
    struct timers ts;
    struct rng r;
    rng_init(&r, 42);
    timers_init(&ts);
    for (u32 i = 0; i < 20000; i++) {
        struct probe *p = &probes[rng_below(&r, N)];
        if (rng_below(&r, 4) == 0)
            timer_stop(&ts, &p->timer);
        else
            timer_start(&ts, &p->timer, 1 + rng_below(&r, 1000), probe_fired);
    }
    u32 armed = 0;
    u64 earliest = UINT64_MAX;
    for (u32 i = 0; i < N; i++)
        if (timer_armed(&probes[i].timer)) {
            armed++;
            earliest = MIN(earliest, probes[i].timer.deadline_ns);
        }
    assert_int_equal(timers_next(&ts), earliest);
    last_deadline = 0;
    assert_int_equal(timers_fire(&ts, 0, 100), 0);
    assert_int_equal(timers_fire(&ts, 5000, 7), 7); /* the budget holds */
    assert_int_equal(timers_fire(&ts, 5000, UINT32_MAX), armed - 7);
    for (u32 i = 0; i < N; i++)
        assert_true(probes[i].fired <= 1);
    assert_int_equal(timers_next(&ts), UINT64_MAX);
    timers_free(&ts);
}

static u32 restarts;

static void restart_itself(struct timer *t)
{
    if (++restarts < 5)
        timer_start(shared, t, t->deadline_ns + 10, restart_itself);
}

static void may_be_restarted_from_its_callback(void **state)
{
    (void)state;
    struct timers ts;
    timers_init(&ts);
    shared = &ts;
    struct timer t = { 0 };
    timer_start(&ts, &t, 10, restart_itself);
    for (u64 now = 0; now < 100; now++)
        (void)timers_fire(&ts, now, 10);
    assert_int_equal(restarts, 5);
    assert_false(timer_armed(&t));
    timers_free(&ts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_in_order_after_random_moves),
        cmocka_unit_test(may_be_restarted_from_its_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
