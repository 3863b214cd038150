/* The deterministic simulator: a whole node in one thread, from one seed.
 *
 *   sim_main.c    seeds, processes, reports
 *   sim_core.c    time, events, randomness, kill points, the scheduler of a life
 *   sim_run.c     the course of a seed: lives, faults, load, the last quiet life
 *   sim_disk.c    disks and what they may do          (io.h, files)
 *   sim_net.c     sockets and what networks may do    (io.h, sockets)
 *   sim_io.c      the ring: operations and turns      (io.h)
 *   sim_bg.c      the background pool                 (bg.h)
 *   sim_store.c   the object store                    (store.h)
 *   sim_meta.c    the metadata store                  (meta.h)
 *   sim_steps.c   the steps of the node's work at which long seeds kill it
 *   sim_weather.c what the object store of a long seed is like, over time
 *   sim_os.c      the few calls of start-up that go round io.h (data directory, entropy)
 *   client.c      the Kafka protocol, seen from outside
 *   check_store.c the store against the metadata
 *   load_*.c      producers, consumers, administrators
 *   model.c       what was promised, and the checks
 *
 * Statics are allowed here: one process runs one seed.
 */
#ifndef LEAT_SIM_H
#define LEAT_SIM_H

#include <setjmp.h>

#include "check.h"
#include "io.h"
#include "mem.h"
#include "meta.h"
#include "node.h"
#include "rng.h"

#define SIM_SHARDS_MAX 4

/* Everything that may go wrong in a seed; each is zero or a chance in 10,000 for one occasion.
 * A seed switches a random choice of them on (swarm testing): faults that are always on hide
 * each other's effects. */
struct sim_faults {
    u32 disk_slow;    /* a write or read takes up to 2 s */
    u32 disk_eio;     /* a write or read fails */
    u32 disk_full;    /* a file can't be made, a write finds no space */
    u32 disk_lies;    /* of a cache's file, until the very end: sim_disk.c, 8 */
    u32 net_reset;    /* a transfer ends in a reset */
    u32 net_slow;     /* a transfer takes up to 3 s */
    u32 store_fail;   /* a call fails; a put may have worked all the same */
    u32 store_slow;   /* a call takes up to 5 s */
    u32 store_flip;   /* a read comes back with a wrong bit */
    u32 store_outage; /* all calls fail for up to 20 s */
    u32 store_full;   /* a put finds no space */
    u32 store_lost;   /* a put or remove works, and its answer is lost */
    u32 store_busy;   /* a call is refused: too many */
    u32 store_stale;  /* a listing is up to 20 s old */
    u32 meta_fail;    /* a commit fails and changes nothing */
    u32 meta_slow;
    u32 shard_pause; /* a shard gets no CPU for up to 1 s */
    u32 clock_jump;  /* the wall clock jumps, at a turn */
    u32 power;       /* per 10,000 kills: the machine lost power, not only the process */
    u32 rot;         /* per 10,000 kills: a bit of acknowledged data rots */
};

/* What the node does, seen from outside: sim_steps.c. */
/* clang-format off */
#define SIM_STEPS(X)                                                                \
    X(upload, "an object of a segment is put")                                      \
    X(register, "it is registered")                                                 \
    X(trim, "its place in the log is written again")                                \
    X(rewrite_read, "merging or compaction reads a source")                         \
    X(run, "an object that they made is put")                                       \
    X(merge, "a merged run takes the place of its sources")                         \
    X(key_map, "compaction reads keys")                                             \
    X(compact, "a compacted run takes the place of its sources")                    \
    X(log_start, "the start of a partition moves")                                  \
    X(discard, "deletion, first step: a registration gives way to a note")          \
    X(remove, "deletion, second step: the object goes")                             \
    X(forget, "the note goes")                                                      \
    X(snapshot, "a part or the end of a snapshot of the metadata is put")           \
    X(change_set, "changes of the metadata are put")                                \
    X(old_snapshot, "an old one is removed")                                        \
    X(heartbeat, "a sign of life is put")                                           \
    X(orphan_list, "the store is listed")                                           \
    X(orphan, "a note is made of what nobody refers to")                            \
    X(topic, "a topic is made or deleted")                                          \
    X(log_opens, "a log is opened or closed")                                       \
    X(recover, "recovery from the store writes metadata")
/* clang-format on */
enum sim_step {
    STEP_none,
#define X(name, what) STEP_##name,
    SIM_STEPS(X)
#undef X
        STEPS
};
enum sim_side { STEP_BEFORE, STEP_AFTER, STEP_SIDES };
extern const char *const sim_step_names[STEPS];

struct sim {
    u64 seed;
    struct rng rng;
    bool trace;
    u64 now_ns;
    i64 wall_base_ms;
    u64 steps, effects, turns;
    u32 life;     /* number of the node's life; changes at every kill and start */
    bool running; /* a node exists */
    bool kill_allowed;
    u64 kill_at; /* effects: the kill comes when the count reaches it; 0 = not planned */
    /* The kill comes when this step is reached the kill_count-th time; STEP_none: not planned. */
    enum sim_step kill_step;
    enum sim_side kill_side;
    u64 kill_count;
    bool long_lived; /* a seed of sim-long */
    bool recovering; /* from the store */
    u32 lane;        /* of the background job that runs */
    jmp_buf kill;
    u32 shards;
    u32 faults_hit; /* injected failures that may make a start fail */
    struct sim_faults faults;
    struct config *cfg;
    struct node *node;
    u64 paused_until[SIM_SHARDS_MAX];
};
extern struct sim sim;

/* What happened, over all seeds; in memory that the processes share. */
/* clang-format off */
#define SIM_STATS(X)                                                                           \
    X(kills) X(power_cuts) X(clean_stops) X(refused_starts) X(rots) X(rots_refused)            \
    X(writes) X(writes_torn) X(io_errors) X(resets) X(puts) X(fresh_runs) X(store_errors) X(flips) \
    X(meta_errors) X(acked_batches) X(retried_batches) X(read_batches) X(deletes) X(commits)   \
    X(topics_deleted) X(wal_full) X(uploads) X(cache_loads) X(shard_changes)                   \
    X(index_full) X(compactions) X(runs) X(records_removed) X(coalesced) X(ahead_used)            \
    X(ahead_wasted) X(deferred) X(sends_deferred) X(merges) X(merges_failed)                     \
    X(merges_deferred) X(wals_lost)                                                           \
    X(object_batches) X(recoveries) X(forward_objects) X(removes) X(orphans) X(store_jobs)        \
    X(weathers) X(aways) X(refused_calls) X(lost_answers) X(stale_lists) X(stale_names)           \
    X(clones) X(disk_hits) X(disk_refused) X(disk_evictions) X(disk_lies) X(disk_bad) \
    X(disk_offs) X(lives) X(events) X(turns)
/* clang-format on */
struct sim_stats {
#define X(name) u64 name;
    SIM_STATS(X)
#undef X
    u64 reached[STEPS][STEP_SIDES], killed[STEPS][STEP_SIDES];
};
extern struct sim_stats *sim_stats;
#define STAT(name) STAT_ADD(name, 1)
#define STAT_ADD(name, n) ((void)__atomic_fetch_add(&sim_stats->name, (n), __ATOMIC_RELAXED))

/* ---- reports ---- */
/* The promise is broken: prints and ends the process. */
_Noreturn void sim_fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
extern void (*sim_failed)(void); /* may take the process another way; sim_fail ends it else */
void sim_trace(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define TRACE(...) (sim.trace ? sim_trace(__VA_ARGS__) : (void)0)

/* ---- randomness ---- */
static inline u64 rnd(u64 bound)
{
    return rng_next(&sim.rng) % bound; /* the bias does not matter here */
}
static inline u64 rnd_between(u64 lo, u64 hi) /* inclusive */
{
    return lo + rnd(hi - lo + 1);
}
/* Log-uniform: every order of magnitude is as likely as the others. */
u64 rnd_log(u64 lo, u64 hi);
static inline bool one_in(u64 n)
{
    return rnd(n) == 0;
}
/* A fault's chance, in 10,000. No randomness is used up while it is off. */
static inline bool fault(u32 chance)
{
    return chance > 0 && rnd(10000) < chance;
}

/* ---- configuration ---- */
/* A node on the simulated devices becomes sim.cfg, with `more` (key=value); values[] may then be
 * set, also to less than an operator may choose. */
void sim_configure(struct config *cfg, const char *more);

/* ---- events ---- */
typedef void (*sim_fn)(void *arg, u64 x);
void sim_after(u64 delay_ns, sim_fn fn, void *arg, u64 x);
/* Dropped when the node's life ends before. */
void sim_after_in_life(u64 delay_ns, sim_fn fn, void *arg, u64 x);
u64 sim_next_event(void); /* UINT64_MAX: none */
/* Runs what is due. */
void sim_run_events(void);
/* Something of the node becomes visible outside (a write, a commit, a put): a kill may strike. */
void sim_effect(const char *what);
/* Now, whatever is allowed; within a life only. */
_Noreturn void sim_kill(const char *what);

/* The node is just before or behind a step: a planned kill may strike. */
void sim_step(enum sim_step step, enum sim_side side);
enum sim_step step_of_put(const char *name);
enum sim_step step_of_remove(const char *name);
enum sim_step step_of_read(void);
enum sim_step step_of_list(const char *prefix);
enum sim_step step_of_commit(const struct meta_txn *t);
enum sim_step step_of_write(const u8 *media, const u8 *buf, u64 offset);

/* ---- lives (sim_core.c) ---- */
enum life_end { LIFE_KILLED, LIFE_STOPPED, LIFE_REFUSED };
/* Runs a node until it is killed, or, when asked to stop, is drained and closed. Each turn asks
 * `wants_stop`. `why` explains a refused start. */
enum life_end life_run(bool (*wants_stop)(void), char *why, size_t why_size);

/* leat --recover-from; LIFE_STOPPED: it came through. `pause` lets time pass. */
enum life_end recover_run(void (*pause)(u64 ns), bool force, char *why, size_t why_size);

/* ---- disk (sim_disk.c) ---- */
struct sim_file;
/* `cache`: nobody relies on what is in it (IO_FILE_EMPTY). */
struct sim_file *disk_open(const char *path, bool create, bool cache, u64 bytes, err *e);
u64 disk_bytes(const struct sim_file *f);
struct sim_write *disk_write_begin(struct sim_file *f, const u8 *buf, u32 len, u64 offset,
                                   bool durable);
/* ERR_NONE, or the injected failure. */
err disk_write_end(struct sim_write *w);
enum sim_step disk_step(const struct sim_file *f, const u8 *buf, u64 offset);
/* A read or write fails now. */
bool disk_fails(const struct sim_file *f);
void disk_read(struct sim_file *f, u8 *buf, u32 len, u64 offset);
void disk_sync(struct sim_file *f);
/* The process is gone; with `power`, the machine too. */
void disk_crash(bool power);
/* A bit of what is provably durable flips. false: there is no such bit. undo puts it back. */
bool disk_rot(void);
void disk_rot_undo(void);

/* ---- network (sim_net.c) ---- */
struct sim_conn; /* a connection, seen by the client */
struct sim_conn_user {
    void (*opened)(struct sim_conn *c, void *user);
    void (*received)(struct sim_conn *c, void *user, const u8 *data, u32 len);
    void (*closed)(struct sim_conn *c, void *user); /* refused, reset or closed; the last call */
};
struct sim_conn *net_connect(const struct sim_conn_user *fns, void *user);
void net_send(struct sim_conn *c, const u8 *data, u32 len);
void net_hangup(struct sim_conn *c, bool reset); /* no call back after it */
void net_crash(void); /* the node is gone: peers learn it sooner or later */

/* ---- ring (sim_io.c) ---- */
struct io {
    u32 index, inflight;
    struct list ready; /* io_op.link: completed, not run */
    struct io_op *accept;
    io_fd listener;
    struct list accepted; /* sockets to be handed to accept */
    u8 *bufs;
    u16 *free_bufs;
    u32 buf_count, buf_free, buf_bytes;
    struct io_features features;
};
bool io_has_work(const struct io *io);
void io_crash(void); /* open files are forgotten */
/* What mem_map gave and nobody gave back. */
void os_unmap_all(void);
void op_ready(struct io_op *op, err e, i64 result);
void net_io_destroy(struct io *io);
void net_cancel(struct io_op *op);
bool net_run_accepted(struct io *io);
enum op_kind { OP_ACCEPT, OP_RECV_POOLED, OP_RECV, OP_RECV_ALL, OP_SEND, OP_WRITE, OP_READ };
enum op_flag { OP_READY = 1, OP_CANCELED = 2 };
void op_begin(struct io *io, struct io_op *op, enum op_kind kind, io_fd fd, io_done done);

/* ---- stores ---- */
void store_install(void);
void meta_install(void);
void store_outage_end(void);
void store_goes_away(u64 ns); /* every call fails */
/* sim_weather.c: changes the faults of the store from now on, until the end; not while held. */
void weather_begin(void);
void weather_hold(bool hold);
void weather_end(void);
u32 store_object_count(void);
/* check_store.c */
void check_object_removed(const char *name);
void store_jobs_sometimes(void);
bool store_is_verified(void);

/* ---- images (tests/fuzz/world.c): what lies on the disk and in the stores, from outside ---- */
/* The i-th, or false; views, valid until the next change. */
bool disk_file_at(u32 i, const char **path, u8 **media, u64 *bytes);
bool meta_pair_at(u32 i, struct bytes *key, struct bytes *value);
bool meta_pair_find(struct bytes key, struct bytes *value);
bool store_object_at(u32 i, const char **name, struct bytes *data);
/* A file as a reader sees it now: what is only cached is settled. */
void disk_settle(void);
void disk_file_put(const char *path, const u8 *media, u64 bytes);
void meta_pair_put(struct bytes key, struct bytes value);
void store_object_put(const char *name, struct bytes data);
/* All of it is gone, and its memory. Only between lives. */
void disk_forget(void);
void meta_forget(void);
void store_forget(void);
void net_forget(void);
void events_forget(void);

#endif
