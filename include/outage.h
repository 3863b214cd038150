/* Something that fails again and again, because what it needs is away: it is told when it begins,
 * at most once a minute while it lasts, and when it is over. Who meets the failures owns one and
 * asks it before each line:
 *
 *   if (outage_failed(&o, now_ns, e))
 *       LOG(WARN, upload_failed, "failures=%" PRIu64 " seconds=%" PRIu64 …, o.failures,
 *           outage_seconds(&o, now_ns), …);
 *   …
 *   struct outage was;
 *   if (outage_over(&o, &was))
 *       LOG(INFO, upload_recovered, …, was.failures, outage_seconds(&was, now_ns));
 *
 * One error is told once a minute; another one at once, for its cause is another, up to
 * OUTAGE_KINDS_MAX of them. What comes and goes has no more lines than what stays: a beginning that
 * falls into the minute is told when that is over, and an end only after what was told. Times are
 * of the monotonic clock. Several threads need a lock around it. Zero is a good beginning.
 */
#ifndef LEAT_OUTAGE_H
#define LEAT_OUTAGE_H

#include "base.h"
#include "err.h"

#define OUTAGE_KINDS_MAX 4u

struct outage {
    u64 failures; /* in a row */
    u64 since_ns; /* of the first of them */
    u64 told_ns;  /* when the last line was; with told_count > 0 */
    err told[OUTAGE_KINDS_MAX];
    u32 told_count; /* of the errors told within a minute */
    bool open;      /* told, and its end is not */
};

/* It failed once more. True: tell it. */
bool outage_failed(struct outage *o, u64 now_ns, err e);
/* It worked. True: tell that it is over; `was` has how long and how often it failed. */
bool outage_over(struct outage *o, struct outage *was);
/* Since it began; 0 when there is none. */
u64 outage_seconds(const struct outage *o, u64 now_ns);

#endif
