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

#endif
