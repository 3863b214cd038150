/* Memory of cached blocks, used again. A shard that gave each block's memory back to the system
 * would wait for the memory map of the process, which threads that stand back may hold (turns of 5
 * to 20 ms were seen); and each block would be paid for with a page fault every 4 KiB.
 *
 * Kept by size in steps of ROOM_STEP; smaller and much larger ones are not kept. Those of ROOM_PAGE
 * bytes and more begin at a page and end at one, as reads and writes past the page cache need it.
 * Owning shard. */
#ifndef LEAT_ROOMS_H
#define LEAT_ROOMS_H

#include "base.h"
#include "list.h"

#define ROOM_PAGE 4096u
#define ROOM_STEP (64 * (u32)KIB)
#define ROOM_STEPS_MAX 64u

struct rooms {
    struct list free[ROOM_STEPS_MAX + 1]; /* by steps */
    u64 free_bytes;
};

void rooms_init(struct rooms *r);
/* At least `bytes`, not zeroed. */
u8 *rooms_take(struct rooms *r, u32 bytes);
/* Zeroes what lies behind `bytes` up to the end of the page. Any thread. */
void rooms_pad(u8 *room, u32 bytes);
/* The same `bytes`. NULL is fine. */
void rooms_give(struct rooms *r, u8 *room, u32 bytes);
/* Gives back to the system what is free beyond `bytes`. */
void rooms_trim(struct rooms *r, u64 bytes);

#endif
