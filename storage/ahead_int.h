/* Read-ahead: which reads of blocks follow one another, and how far the cache should be before
 * them. On the owning shard. */
#ifndef LEAT_AHEAD_INT_H
#define LEAT_AHEAD_INT_H

#include "bundle_int.h"

err ahead_create(struct storage *st) MUST_USE;
void ahead_free(struct storage *st);
/* A read of blocks went from op->offset to `next`; `waited`: for the store. Loads what comes
 * behind it. */
void ahead_read(struct storage *st, const struct read_op *op, i64 next, bool waited);
/* A block loaded for this stream went before anybody asked for it. */
void ahead_wasted(struct storage *st, struct ahead_mark mark);
/* Does the stream go on? */
bool ahead_alive(const struct storage *st, struct ahead_mark mark);
/* Who waits at op->offset will be back there: the stream whose next read that is. */
struct ahead_mark ahead_comes_back(struct storage *st, const struct read_op *op);
/* Will another scan soon come by what `op`, which went up to `next`, has read? */
bool ahead_expected(const struct storage *st, const struct read_op *op, i64 next);
/* Whoever reads this block now: does it tail or catch up? */
enum read_class ahead_class(const struct storage *st, const struct pindex *p,
                            const struct block *b);

#endif
