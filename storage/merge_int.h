/* Which blocks of a partition become a run next: a pure choice over its index (merge.c). */
#ifndef LEAT_MERGE_INT_H
#define LEAT_MERGE_INT_H

#include "bundle_int.h"

/* Blocks that one rewrite takes at most: a read of the store for each. */
#define MERGE_BLOCKS_MAX 4096u
/* A run is rewritten only into one that is so many times larger. */
#define MERGE_GROWTH 4u

struct merge_rule {
    u64 run_bytes;   /* the run's size, about */
    u64 again_bytes; /* so many bytes of older runs may be taken along */
    bool old;        /* what lies in bundles goes, also when it is little */
};
struct merge_range { /* of blocks */
    u32 first, count;
    u64 bytes;       /* of their batches */
    u64 again_bytes; /* those of runs among them */
};

/* The first block of a bundle at or beyond `from`; looks at MERGE_BLOCKS_MAX, then says how far it
 * came. `count`: there is none. */
u32 merge_tail(const struct block *b, u32 from, u32 count);
/* Block `tail` is a bundle's; it and those behind it before `end` may be taken, up to the next run;
 * of those before, the last ones may be taken along, whole runs. False: nothing is worth it now.
 * Looks at MERGE_BLOCKS_MAX blocks on either side at most. */
bool merge_choose(const struct block *b, u32 tail, u32 end, const struct merge_rule *rule,
                  struct merge_range *out) MUST_USE;

#endif
