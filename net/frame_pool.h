/* Buffers for request frames that do not stay in the pooled receive buffer: size classes with
 * bounded free lists, so that in steady state no frame meets malloc, mmap or zeroed pages.
 * One per shard; its thread only. */
#ifndef LEAT_FRAME_POOL_H
#define LEAT_FRAME_POOL_H

#include "base.h"

/* 1 KiB, 4 KiB, then powers of two from 16 KiB to 4 MiB, each with 4 KiB to spare: a batch of a
 * round size plus its request's header fits the class of that size. */
#define FRAME_CLASSES 11u

struct frame_free; /* a free buffer: the link lies in its first bytes */

struct frame_pool {
    struct frame_free *free[FRAME_CLASSES];
    u32 free_count[FRAME_CLASSES];
    u32 free_least[FRAME_CLASSES]; /* since the last trim: what nobody needed */
    u64 free_bytes, free_bytes_max;
};

void frame_pool_init(struct frame_pool *fp, u64 free_bytes_max);
void frame_pool_destroy(struct frame_pool *fp);
/* What frame_pool_take(len) will occupy. */
u32 frame_pool_cap(u32 len);
/* At least `len` bytes, not zeroed; *cap is to be given back with it. Never NULL. */
u8 *frame_pool_take(struct frame_pool *fp, u32 len, u32 *cap);
void frame_pool_give(struct frame_pool *fp, u8 *buf, u32 cap);
/* Frees what was not needed since the last call. Call about once a second. */
void frame_pool_trim(struct frame_pool *fp);

#endif
