/* The second level of the block cache (cache.c): blocks of objects in a file on a local disk, one a
 * shard. What is lost of it, or wrong in it, costs a read from the store and nothing else. Owning
 * shard.
 *
 * st->disk_cache is NULL when there is none; every call bears that. */
#ifndef LEAT_DISK_CACHE_H
#define LEAT_DISK_CACHE_H

#include "bundle_int.h"

/* At start, blocking. Never fails: what is in the way is told, and there is none then. */
void disk_cache_open(struct storage *st);
void disk_cache_close(struct storage *st);
/* No read or write is in flight. */
bool disk_cache_idle(const struct storage *st);

/* A look-up. True: r->done will run, with `room` (rooms_take of the block's bytes) filled and
 * r->hash that of the block that was written, or r->err: then it is to be had from the store only.
 * False: it is not there; done never runs. */
bool disk_cache_read(struct storage *st, const struct cache_key *key, u8 *room,
                     enum read_class class, struct disk_read *r,
                     void (*done)(struct disk_read *r)) MUST_USE;
/* What was read is not the block that was written: forgets it. */
void disk_cache_bad(struct storage *st, const struct cache_key *key);
/* A READY block came from the store. It is written when a writer is free, if it is in memory
 * then, and there is room for it. */
void disk_cache_offer(struct storage *st, struct cache_block *b);

#endif
