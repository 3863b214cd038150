/* How many bytes a second puts carry to an object store, over the whole node: all of them, those
 * that acknowledgements wait for, and what it took at best. A put that is done counts as if it had
 * gone evenly from its begin to its end, so large objects and small ones compare.
 *
 * Any thread; zeroed is empty. A lost race costs a little exactness, nothing else. */
#ifndef LEAT_FLOW_H
#define LEAT_FLOW_H

#include "base.h"

/* Seconds that are remembered one by one. What a longer put sent before is forgotten. */
#define FLOW_SECONDS 32u
/* What the store took at best fades within so many seconds: links become narrower, too. */
#define FLOW_FADES_S 3600u

struct flow {
    u64 all[FLOW_SECONDS], awaited[FLOW_SECONDS]; /* by second: which, and bytes (flow.c) */
    u64 best;                                     /* the same, of the best one */
};

void flow_put(struct flow *f, u64 bytes, bool awaited, u64 began_ns, u64 ended_ns);
/* Bytes a second: of puts that acknowledgements wait for, in the last few seconds; of all, at most
 * in any second. */
u64 flow_awaited(const struct flow *f, u64 now_ns);
u64 flow_best(struct flow *f, u64 now_ns);
/* Puts that are awaited take more than a quarter of what it took at best: what is written a second
 * time is taken from them. A quarter, because they get half at most while merging presses
 * (merge.c), and must still be seen to need more. */
bool flow_is_busy(struct flow *f, u64 now_ns);

#endif
