/* The background pool: a few threads for blocking libraries (LMDB, files of the object store,
 * libcurl, big compressions). State stays on the shard; only the blocking call goes here.
 * A link seam: the simulator runs jobs at seeded moments in its one thread.
 *
 * A job is a field of its owner. run() executes on a background thread and may touch only what
 * the job carries; done() then runs on the submitting shard from its turn. Jobs of one `lane`
 * (0 … BG_LANES-1) run one after the other in order of submission; lanes run side by side. The
 * number of queued jobs is bounded by their owners.
 */
#ifndef LEAT_BG_H
#define LEAT_BG_H

#include "shard.h"

struct bg_job;
typedef void (*bg_fn)(struct bg_job *j);

enum bg_lane {
    BG_META,    /* metadata transactions: strictly in order */
    BG_PUT,     /* object uploads */
    BG_AWAITED, /* those that acknowledgements wait for */
    BG_READ,    /* object reads */
    BG_CATCHUP, /* object reads for those that catch up: behind all others */
    BG_MISC,    /* deletes, listings, everything slow */
    BG_BULK,    /* rewriting of objects in a store that is not on this machine */
    BG_LANES
};

/* So many jobs of an owner find threads in BG_AWAITED where one finds a thread in BG_PUT. */
#define BG_AWAITED_JOBS 4u

struct bg_job {
    struct msg msg; /* carries the job back; first */
    bg_fn run, done;
    u32 shard; /* set by bg_submit */
    enum bg_lane lane;
    struct bg_job *next;
    bool busy; /* between bg_submit and done */
};

struct bg *bg_create(struct shard_group *g, const struct config *cfg);
/* No job may be queued any more. */
void bg_destroy(struct bg *bg);
/* Waits until no worker is about to wake a shard any more, so that rings may be destroyed. Real
 * node only (shard_threads_join calls it, all jobs have returned by then). */
void bg_quiesce(struct bg *bg);
/* Queues the job; done runs on shard `s` later. Lanes BG_READ, BG_PUT and BG_BULK have several
 * threads (bg.threads), BG_AWAITED has BG_AWAITED_JOBS times as many (256 at most), BG_CATCHUP has
 * store.catchup_reads; they keep no order among jobs. The others have one each. */
void bg_submit(struct shard *s, struct bg_job *j, enum bg_lane lane, bg_fn run, bg_fn done);

#endif
