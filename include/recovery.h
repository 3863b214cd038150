/* Rebuilding a node from its object store alone; docs/recovery.md says what is done and what comes
 * back. Two cases: nothing is left (metadata from the backup in the store, backup.h), or only the
 * log is lost (the metadata stays). In both, objects that were uploaded and not registered yet are
 * registered now, as far as the offsets of each partition go on without a gap.
 *
 * Blocking, main thread, before there are shards. A crash at any moment: do it again. */
#ifndef LEAT_RECOVERY_H
#define LEAT_RECOVERY_H

#include "storage.h"

struct recovery {
    /* in */
    const struct config *cfg;
    const char *url; /* of the store, for messages */
    struct meta *meta;
    struct store *store;
    struct rng *rng;
    bool force;     /* although a node seems to live, or objects are missing */
    bool log_there; /* there are files of a write-ahead log */
    /* Of producers; no broker is there yet. */
    const struct storage_ops *ops;
    /* Asked when the topics are back in `meta`. */
    bool (*exists)(void *arg, const struct partition_key *k);
    void *exists_arg;
    void (*pause)(u64 ns); /* waits; a link of its own for the simulator */
    /* out, for people */
    bool metadata_kept; /* only the log was lost */
    u32 epoch;          /* of the snapshot */
    i64 snapshot_ms;    /* when it was written */
    u32 snapshots_damaged;
    u64 change_sets, changes_lost; /* applied; behind a damaged one */
    u64 objects;                   /* registered, all of them */
    u64 forward_objects, forward_blocks, forward_bytes;
    u64 blocks_unknown; /* of topics that the metadata does not have */
    u64 blocks_beyond;  /* behind a gap: what was before them was never uploaded */
    u64 objects_missing;
};

/* Takes r->meta over when it succeeds: closed then. ERR_CONFLICT, ERR_BUSY, …: `why` names cause
 * and remedy, and `meta` is still the caller's. */
err recovery_run(struct recovery *r, char *why, size_t why_size) MUST_USE;

/* In metadata that a recovery has not finished; a node does not start with it. */
#define RECOVERY_KEY "n/recovering"

#endif
