/* The backup of the metadata in the object store, so that the store alone is enough to start again
 * when this node's disk is lost (docs/recovery.md, docs/formats/backup.md).
 *
 * It stands before the metadata store: every transaction that succeeds is written down, and what
 * was written down is sent as a change set, at most store.snapshot.interval later. A snapshot of
 * all keys is sent at each start and when the change sets have grown larger than it.
 *
 * It also sees to it that one node writes to a place in the store: by an epoch that is claimed with
 * a conditional put. Who finds a claim of another, newer than its own, writes no metadata any more
 * (ERR_CONFLICT), so it registers, deletes and promises nothing that the other does not know of.
 *
 * Threads: commit, get, range and the marks on any; the rest on the main thread or shard 0.
 */
#ifndef LEAT_BACKUP_H
#define LEAT_BACKUP_H

#include "bg.h"
#include "meta.h"
#include "rng.h"
#include "store.h"

struct backup;

/* Takes over `inner`, which it closes, unless it fails. Refuses (ERR_CONFLICT) when the place in
 * the store is another's: new metadata and an old bucket, or the reverse. `why` names the remedy.
 * Without an answer of the store a node that knows its place starts all the same. */
err backup_open(struct meta *inner, struct store *store, const struct config *cfg, struct rng *rng,
                struct backup **out, char *why, size_t why_size) MUST_USE;
/* The metadata, as everybody else is to use it. */
struct meta *backup_meta(struct backup *b);
/* Begins to send, from this shard's turn. */
void backup_start(struct backup *b, struct shard *s);
void backup_stop(struct backup *b);
bool backup_stopped(const struct backup *b);
/* Sends the rest if the store took the last one, says good-bye, closes `inner`. */
void backup_close(struct backup *b);

/* All of it at once, on the main thread before shards start, until it is in the store: recovery. */
err backup_send_all(struct backup *b, char *why, size_t why_size) MUST_USE;

/* Instead of backup_close: nothing is sent, and `inner` is given back. */
struct meta *backup_release(struct backup *b);

/* How many transactions there were, and: has the store what the first `mark` of them changed? An
 * object that one of them let go of may be deleted only then, or a recovery would look for it in
 * vain. NULL: there is no backup, so yes. */
u64 backup_mark(struct backup *b);
bool backup_holds(struct backup *b, u64 mark);

/* The key that says whose the metadata is; recovery gives it a new value. */
#define BACKUP_KEY "n/bucket"

#endif
