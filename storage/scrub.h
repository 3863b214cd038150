/* The pass over the store that looks for orphans: objects that no metadata names (discard.h). They
 * come from lives that were cut off between storing an object and registering it. Those found are
 * written down as discarded, so they go a grace time later, like any other object.
 *
 * One a node, on shard 0: some seconds after the start, and every store.scrub_interval. */
#ifndef LEAT_SCRUB_H
#define LEAT_SCRUB_H

#include "storage_int.h"

err scrub_create(struct storage *st) MUST_USE;
bool scrub_idle(const struct storage *st);
void scrub_free(struct storage *st);

struct scrub_lives { /* the newest epoch of the log that was asked for last; names come sorted */
    u32 wal, epoch;
    bool known;
};
enum scrub_found { OBJECT_REGISTERED, OBJECT_DISCARDED, OBJECT_RECENT, OBJECT_ORPHAN };
/* What an object of the store is to the metadata. RECENT: nothing names it, and its life may be
 * about to. `lives` begins as zeros. Any thread that may ask the metadata. */
err scrub_classify(struct storage *st, u64 id, u32 epoch, struct scrub_lives *lives,
                   enum scrub_found *out) MUST_USE;

#endif
