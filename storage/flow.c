/* A cell is a second and the bytes in it, in one word, so that any thread adds without a lock:
 *
 *   [ second: 30 bits | bytes: 34 bits ]      a cell of another second counts as empty
 */
#include "flow.h"

#define BYTES_BITS 34u
#define BYTES_MAX ((1ull << BYTES_BITS) - 1)
#define SECOND_MASK ((1ull << (64 - BYTES_BITS)) - 1)
/* Over how many seconds awaited puts are told. Not the current one and the one before: puts of
 * these are still on their way. */
#define RECENT_SECONDS 4u
#define RECENT_AGE 2u

static u64 cell_of(u64 second, u64 bytes)
{
    return (second & SECOND_MASK) << BYTES_BITS | MIN(bytes, BYTES_MAX);
}

static u64 cell_second(u64 cell)
{
    return cell >> BYTES_BITS;
}

static void cell_add(u64 *cells, u64 second, u64 bytes)
{
    u64 *cell = &cells[second % FLOW_SECONDS];
    u64 old = __atomic_load_n(cell, __ATOMIC_RELAXED), sum;
    do {
        sum = cell_second(old) == (second & SECOND_MASK) ? old & BYTES_MAX : 0;
    } while (!__atomic_compare_exchange_n(cell, &old, cell_of(second, sum + bytes), true,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

static u64 cell_get(const u64 *cells, u64 second)
{
    u64 cell = __atomic_load_n(&cells[second % FLOW_SECONDS], __ATOMIC_RELAXED);
    return cell_second(cell) == (second & SECOND_MASK) ? cell & BYTES_MAX : 0;
}

void flow_put(struct flow *f, u64 bytes, bool awaited, u64 began_ns, u64 ended_ns)
{
    u64 ns = MAX(ended_ns - began_ns, 1u), last = ended_ns / NS_PER_S;
    u64 first = MAX(began_ns / NS_PER_S, last - MIN(last, FLOW_SECONDS - 1));
    for (u64 s = first; s <= last; s++) {
        u64 from = MAX(began_ns, s * NS_PER_S);
        u64 to = MIN(began_ns + ns, (s + 1) * NS_PER_S);
        u64 part = (u64)((double)bytes * (double)(to - from) / (double)ns);
        cell_add(f->all, s, part);
        if (awaited)
            cell_add(f->awaited, s, part);
    }
}

u64 flow_awaited(const struct flow *f, u64 now_ns)
{
    u64 now = now_ns / NS_PER_S, sum = 0;
    for (u64 age = RECENT_AGE; age < RECENT_AGE + RECENT_SECONDS && age <= now; age++)
        sum += cell_get(f->awaited, now - age);
    return sum / RECENT_SECONDS;
}

u64 flow_best(struct flow *f, u64 now_ns)
{
    u64 now = now_ns / NS_PER_S;
    u64 best = __atomic_load_n(&f->best, __ATOMIC_RELAXED);
    u64 age = MIN((now - cell_second(best)) & SECOND_MASK, FLOW_FADES_S);
    u64 rate = (best & BYTES_MAX) * (FLOW_FADES_S - age) / FLOW_FADES_S;
    for (u64 s = now - MIN(now, FLOW_SECONDS - 1); s < now; s++) {
        u64 bytes = cell_get(f->all, s);
        if (bytes <= rate)
            continue;
        rate = bytes;
        __atomic_store_n(&f->best, cell_of(s, bytes), __ATOMIC_RELAXED);
    }
    return rate;
}

bool flow_is_busy(struct flow *f, u64 now_ns)
{
    return flow_awaited(f, now_ns) > flow_best(f, now_ns) / 4;
}
