/* A 4-ary heap of pointers, ordered by deadline. timer->slot is 1 + its place, so that stop and
 * move need no search. Four children a node: half the depth of a binary heap, and the children
 * of one node share a cache line. */
#include "timer.h"

#include "check.h"
#include "mem.h"

#define ARITY 4u
#define TIMERS_FIRST_CAP 64u

void timers_init(struct timers *ts)
{
    *ts = (struct timers){ 0 };
}

void timers_free(struct timers *ts)
{
    for (u32 i = 0; i < ts->count; i++)
        ts->heap[i]->slot = 0;
    mem_free(ts->heap);
    *ts = (struct timers){ 0 };
}

static void heap_put(struct timers *ts, u32 i, struct timer *t)
{
    ts->heap[i] = t;
    t->slot = i + 1;
}

static void heap_up(struct timers *ts, u32 i, struct timer *t)
{
    while (i > 0) {
        u32 parent = (i - 1) / ARITY;
        if (ts->heap[parent]->deadline_ns <= t->deadline_ns)
            break;
        heap_put(ts, i, ts->heap[parent]);
        i = parent;
    }
    heap_put(ts, i, t);
}

static void heap_down(struct timers *ts, u32 i, struct timer *t)
{
    for (;;) {
        u64 first = (u64)i * ARITY + 1;
        if (first >= ts->count)
            break;
        u32 best = (u32)first;
        u32 end = (u32)MIN(first + ARITY, (u64)ts->count);
        for (u32 c = best + 1; c < end; c++)
            if (ts->heap[c]->deadline_ns < ts->heap[best]->deadline_ns)
                best = c;
        if (t->deadline_ns <= ts->heap[best]->deadline_ns)
            break;
        heap_put(ts, i, ts->heap[best]);
        i = best;
    }
    heap_put(ts, i, t);
}

/* Finds the place of `t`, that may stand too high or too low at i. */
static void heap_settle(struct timers *ts, u32 i, struct timer *t)
{
    if (i > 0 && ts->heap[(i - 1) / ARITY]->deadline_ns > t->deadline_ns)
        heap_up(ts, i, t);
    else
        heap_down(ts, i, t);
}

void timer_start(struct timers *ts, struct timer *t, u64 deadline_ns, timer_fn fn)
{
    CHECK(fn != NULL);
    t->deadline_ns = deadline_ns;
    t->fn = fn;
    if (timer_armed(t)) {
        CHECK(t->slot <= ts->count && ts->heap[t->slot - 1] == t);
        heap_settle(ts, t->slot - 1, t);
        return;
    }
    if (ts->count == ts->cap) {
        ts->cap = ts->cap ? ts->cap * 2 : TIMERS_FIRST_CAP;
        ts->heap = mem_realloc(ts->heap, ts->cap * sizeof *ts->heap);
    }
    heap_up(ts, ts->count++, t);
}

void timer_stop(struct timers *ts, struct timer *t)
{
    if (!timer_armed(t))
        return;
    u32 i = t->slot - 1;
    CHECK(i < ts->count && ts->heap[i] == t);
    t->slot = 0;
    struct timer *last = ts->heap[--ts->count];
    if (last != t)
        heap_settle(ts, i, last);
}

u32 timers_fire(struct timers *ts, u64 now_ns, u32 budget)
{
    u32 fired = 0;
    while (fired < budget && ts->count > 0 && ts->heap[0]->deadline_ns <= now_ns) {
        struct timer *t = ts->heap[0];
        timer_stop(ts, t);
        t->fn(t);
        fired++;
    }
    return fired;
}

u64 timers_next(const struct timers *ts)
{
    return ts->count > 0 ? ts->heap[0]->deadline_ns : UINT64_MAX;
}
