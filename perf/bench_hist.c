/* Log-linear histogram: values below 2*HIST_STEPS ns exactly, above that 128 steps a power of
 * two. One writer, any readers. */
#include "bench.h"

static u32 hist_index(u64 ns)
{
    if (ns < HIST_STEPS)
        return (u32)ns;
    u32 power = 63 - (u32)__builtin_clzll(ns) - 7; /* so that ns >> power is in [128, 256) */
    u32 index = power * HIST_STEPS + (u32)(ns >> power);
    return MIN(index, HIST_BUCKETS - 1u);
}
/* The largest value of a bucket. */
static u64 hist_upper(u32 index)
{
    if (index < 2 * HIST_STEPS)
        return index;
    u32 power = index / HIST_STEPS - 1;
    u64 step = index - power * HIST_STEPS;
    return ((step + 1) << power) - 1;
}
void hist_record(struct hist *h, u64 ns)
{
    count(&h->buckets[hist_index(ns)], 1);
    count(&h->count, 1);
}
void hist_add(struct hist *to, const struct hist *from)
{
    to->count = 0;
    for (u32 i = 0; i < HIST_BUCKETS; i++) {
        to->buckets[i] += __atomic_load_n(&from->buckets[i], __ATOMIC_RELAXED);
        to->count += to->buckets[i];
    }
}
void hist_subtract(struct hist *to, const struct hist *from)
{
    to->count = 0;
    for (u32 i = 0; i < HIST_BUCKETS; i++) {
        to->buckets[i] -= from->buckets[i];
        to->count += to->buckets[i];
    }
}
u64 hist_percentile(const struct hist *h, f64 percent)
{
    u64 rank = (u64)((f64)h->count * percent / 100.0 + 0.999999), seen = 0;
    rank = MIN(MAX(rank, 1u), h->count);
    for (u32 i = 0; i < HIST_BUCKETS && h->count > 0; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            return hist_upper(i);
    }
    return 0;
}
f64 hist_mean(const struct hist *h)
{
    f64 sum = 0;
    for (u32 i = 0; i < HIST_BUCKETS; i++)
        if (h->buckets[i])
            sum += (f64)h->buckets[i] * (f64)hist_upper(i);
    return h->count ? sum / (f64)h->count : 0;
}
