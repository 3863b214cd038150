/* A partition's log that another one shares: copy on write. The clone's index leads into the same
 * objects as its source's; the key k/<topic id>/<partition> says which blocks those are. From then
 * on the two have nothing to do with each other: an object counts the blocks that lead into it,
 * whoever's they are, and goes when there is none (retention.c).
 *
 * A clone's topic id begins as its source's, so both live on the same shard, whatever the number of
 * shards (storage_shard_of).
 *
 * Owning shard, unless said otherwise. */
#ifndef LEAT_CLONE_H
#define LEAT_CLONE_H

#include "storage.h"
#include "timer.h"

struct clone_block;

struct clone_part {
    struct partition_key source, target;
    i64 end_offset; /* in: blocks that hold this offset or a later one are not shared */
    /* Out: what clone_gather found; `end` is that of what is shared. */
    i64 start, end;
    i32 leader_epoch;
    u64 bytes;
    u32 count;
    struct clone_block *blocks;
};

/* A topic id for a clone: as random as can be, on the source's shard. */
struct uuid clone_topic_id(struct uuid source, struct rng *rng);
/* Seals what is open, so that it gets uploaded. */
void clone_seal(struct storage *st);
/* Offsets below are in the store and can be shared. -1: there is no such partition. */
i64 clone_shared_end(struct storage *st, const struct partition_key *source);
/* The source's blocks; each counts as one more that leads into its object, until clone_release or
 * the clone's index lets go of it. `more`: bytes of the index that other parts will take.
 * ERR_BUSY: the blocks are just being rewritten, try again. ERR_UNKNOWN_TOPIC_OR_PARTITION.
 * ERR_NO_MEMORY: index.memory has no room for them. */
err clone_gather(struct storage *st, struct clone_part *part, u64 more) MUST_USE;
u64 clone_index_bytes(const struct clone_part *part);
/* Gives the blocks back: they do not become a clone. */
void clone_release(struct storage *st, struct clone_part *part);
/* Makes the target's index of them. Its topic is not known yet; `object`: it has
 * leat.durability=object. */
void clone_install(struct storage *st, struct clone_part *part, bool object);
/* Frees the memory. Any thread. */
void clone_free(struct clone_part *part);

/* What is not shared, up to an offset: copied into the installed target. clone_copy.c */
struct clone_copy {
    struct pindex *source, *target; /* in */
    i64 end_offset;                 /* in */
    u64 deadline_ns;                /* in: then waiting for room in the log is over */
    /* Out: ERR_NONE: all of it is acknowledged. ERR_TIMED_OUT, ERR_CANCELED: the shard stops;
     * ERR_OFFSET_OUT_OF_RANGE: the source's log start passed it meanwhile; those of reading and
     * appending. */
    err err;
    /* Private. */
    struct read_op read;
    struct timer timer;
    struct batch_builder builder;
    u8 *raw;
    u32 inflight;
    bool over;
    void (*done)(struct clone_copy *c);
};
/* Neither partition may be dropped meanwhile. done runs later, never inside. */
void clone_copy_start(struct clone_copy *c, void (*done)(struct clone_copy *c));

/* The keys k/ and p/ of all parts in one transaction. Blocking. ERR_NO_MEMORY: too many blocks. */
err clone_write(struct meta *m, const struct clone_part *parts, u32 count) MUST_USE;

#endif
