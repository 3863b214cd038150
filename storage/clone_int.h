/* Clones, inside the storage engine. */
#ifndef LEAT_CLONE_INT_H
#define LEAT_CLONE_INT_H

#include "storage_int.h"

/* The number of a topic, for block.origin; never 0. */
u32 origin_of(struct storage *st, struct uuid topic_id);
/* Whose block the object says it is. */
struct partition_key block_key(const struct pindex *p, const struct block *b);
/* A k/ value: checks it. ERR_CORRUPT, ERR_UNSUPPORTED. */
err clone_decode(struct bytes value, u32 *count) MUST_USE;
/* The same with its key, for who goes through all of them: whatever is wrong is ERR_CORRUPT. */
err clone_decode_kv(const struct meta_kv *kv, struct partition_key *key, u32 *count) MUST_USE;
void clone_decode_block(struct bytes value, u32 i, struct partition_key *origin, struct block *b);
/* A checked value without the blocks of objects that are gone. In the arena; NULL at its limit. */
struct bytes clone_value_without(struct bytes value, bool (*gone)(void *arg, u64 object), void *arg,
                                 struct arena *a);

#endif
