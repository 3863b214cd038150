/* The real clock of clock.h. */
#include "clock.h"

#include <time.h>

#include "check.h"

static u64 clock_read_ns(clockid_t id)
{
    struct timespec ts;
    CHECK(clock_gettime(id, &ts) == 0);
    return (u64)ts.tv_sec * NS_PER_S + (u64)ts.tv_nsec;
}

u64 clock_mono_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

i64 clock_wall_ms(void)
{
    return (i64)(clock_read_ns(CLOCK_REALTIME) / NS_PER_MS);
}
