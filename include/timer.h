/* Timers of a shard. A timer is a field of its owner; it fires once, from the shard's turn,
 * never inside timer_start. Start, stop and fire are O(log n) at worst. */
#ifndef LEAT_TIMER_H
#define LEAT_TIMER_H

#include "base.h"

struct timer;
typedef void (*timer_fn)(struct timer *t);

struct timer {
    timer_fn fn;
    u64 deadline_ns; /* clock_mono_ns */
    u32 slot;        /* 1 + index in the heap; 0 = idle */
};

struct timers { /* one per shard; a 4-ary heap of pointers */
    struct timer **heap;
    u32 count, cap;
};

void timers_init(struct timers *ts);
void timers_free(struct timers *ts);
/* Arms (or moves, when armed). */
void timer_start(struct timers *ts, struct timer *t, u64 deadline_ns, timer_fn fn);
/* Idle ones are left alone. */
void timer_stop(struct timers *ts, struct timer *t);
static inline bool timer_armed(const struct timer *t)
{
    return t->slot != 0;
}
/* Fires up to `budget` timers that are due at now_ns. Returns how many. */
u32 timers_fire(struct timers *ts, u64 now_ns, u32 budget);
/* The earliest deadline, UINT64_MAX when none. */
u64 timers_next(const struct timers *ts);

#endif
