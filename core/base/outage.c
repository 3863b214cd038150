#include "outage.h"

#define TELL_AGAIN_NS (60 * NS_PER_S)

static bool told(const struct outage *o, err e)
{
    for (u32 i = 0; i < o->told_count; i++)
        if (o->told[i] == e)
            return true;
    return o->told_count == OUTAGE_KINDS_MAX;
}

bool outage_failed(struct outage *o, u64 now_ns, err e)
{
    if (o->failures++ == 0)
        o->since_ns = now_ns;
    if (now_ns - o->told_ns >= TELL_AGAIN_NS)
        o->told_count = 0;
    if (told(o, e))
        return false;
    o->told[o->told_count++] = e;
    o->told_ns = now_ns;
    o->open = true;
    return true;
}

bool outage_over(struct outage *o, struct outage *was)
{
    *was = *o;
    o->failures = 0;
    o->open = false;
    return was->open;
}

u64 outage_seconds(const struct outage *o, u64 now_ns)
{
    return o->failures > 0 ? (now_ns - o->since_ns) / NS_PER_S : 0;
}
