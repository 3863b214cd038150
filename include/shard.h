/* A shard: one pinned thread with its own ring, timers, memory, partitions and connections.
 * Shards share nothing and talk only by messages (below). The upper layers embed `struct shard`
 * as a member of their own per-shard state and get back by container_of.
 *
 * A turn (shard_turn): completions → messages → timers → hooks (work gathered in the turn, e.g.
 * the WAL's group commit) → submit and wait. Each source has a budget; what is left waits for
 * the next turn, which then does not sleep.
 *
 * Bulk is work for somebody who takes megabytes at once: looking through stored batches for those
 * that catch up, and sending long answers. Its sum over all of them is bounded in every turn
 * (TURN_BULK_BYTES), so that the others' wait does not depend on how many there are.
 *
 * Messages: a `struct msg` is a field of its owner; sending it gives the owner away to the
 * receiving shard until it is sent back. Single-producer single-consumer rings of pointers, one
 * per ordered pair of shards, FIFO. When the ring is full the message waits in the sender's own
 * list (bounded by the bounds of the objects that embed messages), so sending never fails.
 */
#ifndef LEAT_SHARD_H
#define LEAT_SHARD_H

#include "config.h"
#include "io.h"
#include "list.h"
#include "metrics.h"
#include "rng.h"
#include "timer.h"

struct shard;
struct shard_group;
struct msg;
struct bg;

typedef void (*msg_fn)(struct shard *at, struct msg *m);
struct msg {
    struct list link; /* sender's overflow list */
    msg_fn fn;        /* runs on the receiving shard */
};

struct shard_hook;
typedef void (*shard_hook_fn)(struct shard_hook *h);
struct shard_hook { /* runs once per turn, in order of registration */
    struct list link;
    shard_hook_fn fn;
};

#ifndef TURN_BULK_BYTES /* the simulator's batches are smaller */
/* Of each kind. The kernel copies a MiB that is sent in 0.2 to 0.5 ms (TCP over loopback, where the
 * receiving half is done by the sender); a write of the log takes as long on a good disk. */
#define TURN_BULK_BYTES (512 * (u32)KIB)
#endif
enum bulk { BULK_READ, BULK_SEND, BULK_KINDS };

#define SHARD_MAGIC 0x5a4d0001u
#define SHARDS_MAX 256

struct shard {
    u32 magic;
    u32 index; /* 0 … group->count-1 */
    struct shard_group *group;
    struct io *io;
    const struct config *cfg;
    struct metrics *metrics; /* of this shard only */
    struct rng rng;
    struct timers timers;
    struct list hooks;
    u64 now_ns;             /* of this turn: clock_mono_ns, read once a turn */
    i64 now_ms;             /* of this turn: clock_wall_ms */
    bool stopping;          /* shard_stop was called */
    bool turn_again;        /* set by anyone who left work for the next turn: don't sleep */
    u32 bulk[BULK_KINDS];   /* bytes done since the hooks of the turn before began */
    bool hooks_ahead;       /* in a turn, before its hooks: work left for a hook is seen to */
    struct mailboxes *mail; /* private to mailbox.c */
    char start_error[1024]; /* cause and remedy, when start() failed */
};

struct shard_group {
    u32 count;
    struct shard *shards[SHARDS_MAX];
    struct bg *bg;                 /* the background pool, shared */
    struct shard_threads *threads; /* private to threads.c */
};

/* Sets up everything but `io` (created on the shard's thread). */
void shard_init(struct shard *s, struct shard_group *g, u32 index, const struct config *cfg,
                struct metrics *metrics, u64 seed);
/* io must be destroyed already. */
void shard_free(struct shard *s);
/* One turn; waits at most max_wait_ns for something to happen. */
void shard_turn(struct shard *s, u64 max_wait_ns);
void shard_add_hook(struct shard *s, struct shard_hook *h, shard_hook_fn fn);
/* Who finds it spent keeps the work for a later turn, in a line of its own, and sets turn_again.
 * Else it may do one piece of any size, and tells how large it was. */
bool shard_bulk_spent(const struct shard *s, enum bulk kind);
void shard_bulk_done(struct shard *s, enum bulk kind, u32 bytes);
/* Sends `m` to shard `to` (may be the sender itself: then it runs in a later step of a turn, never
 * inside this call). Sender's thread. */
void shard_send(struct shard *from, u32 to, struct msg *m, msg_fn fn);
/* From outside any shard (main, admin thread, background thread): thread-safe, slower. */
void shard_post(struct shard_group *g, u32 to, struct msg *m, msg_fn fn);

/* ---- threads of the real node (not in the simulator) ---- */

/* Starts one pinned thread per shard: calls start(s) on the shard's thread after io_create, then
 * turns until s->stopping and drained(s). Returns when every start() has returned; ERR_* and `why`
 * when a ring can't be made (all threads have ended then). */
err shard_threads_start(struct shard_group *g, err (*start)(struct shard *s),
                        bool (*drained)(struct shard *s), char *why, size_t why_size) MUST_USE;
/* Sets stopping on every shard (by message). Any thread, also a signal-waiting main thread. */
void shard_threads_stop(struct shard_group *g);
/* Waits for all threads and destroys their rings. */
void shard_threads_join(struct shard_group *g);

#endif
