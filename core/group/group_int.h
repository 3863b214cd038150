/* Groups of one shard: what the files of core/group share.
 *
 *   coordinator.c  which groups are here; loading; writing records; FindCoordinator
 *   group.c        groups, members, the rebalance state machine and its timers
 *   join.c         JoinGroup, SyncGroup, Heartbeat, LeaveGroup
 *   records.c      the records of __consumer_offsets, both ways
 *   subscriptions.c  which topics the members read
 *   offsets.c      OffsetCommit, OffsetFetch, OffsetDelete, expiry
 *   group_admin.c  ListGroups, DescribeGroups, DeleteGroups
 *   memory.c       what all of it may take
 *
 * A group lives on the shard that owns its partition of __consumer_offsets. Everything that must
 * survive is a record of that partition and takes effect when the record is durable; what must not
 * (waiting joins, timers) is lost with the process, and members join again.
 */
#ifndef LEAT_GROUP_INT_H
#define LEAT_GROUP_INT_H

#include "broker.h"
#include "check.h"
#include "log.h"

/* ---- groups ---- */

/* Kafka's states; who moves them: group_set_state.
 *   EMPTY ──member joins──► PREPARING ──all joined or timeout──► COMPLETING ──leader's sync──►
 * STABLE
 *   STABLE, COMPLETING ──member joins, leaves, fails, changes──► PREPARING
 *   PREPARING ──nobody left──► EMPTY;  EMPTY ──deleted or expired──► DEAD */
enum group_state { GROUP_EMPTY, GROUP_PREPARING, GROUP_COMPLETING, GROUP_STABLE, GROUP_DEAD };

struct protocol {
    struct bytes name, metadata; /* owned by the member */
};

struct group;
#define MEMBER_MAGIC 0x6e6d0002u
struct member {
    u32 magic;
    UT_hash_handle hh; /* group->members, by id */
    struct group *group;
    struct bytes id;                                    /* owned */
    struct bytes instance_id;                           /* owned; data NULL = dynamic member */
    struct bytes client_id, client_host, protocol_type; /* owned */
    i32 session_ms, rebalance_ms;
    struct protocol *protocols; /* owned */
    u32 protocol_count;
    struct bytes assignment;  /* owned */
    struct timer session;     /* armed unless a join or sync waits */
    struct call *join, *sync; /* waiting requests; held at this shard */
    bool is_new;              /* has not completed a join yet */
    u64 counted;              /* bytes, memory.c */
};

/* A member id that was handed out and not used yet (KIP-394). */
struct pending_member {
    UT_hash_handle hh;
    struct group *group;
    struct bytes id;
    struct timer expiry;
    u64 counted;
};

struct offset {
    UT_hash_handle hh; /* group->offsets, by key */
    struct bytes key;  /* owned: 4 bytes partition (big-endian), then the topic's name */
    i64 value;
    i32 leader_epoch;
    i64 commit_ms, expire_ms; /* expire -1 = by the group's retention */
    struct bytes metadata;    /* owned */
    struct uuid topic_id;
    u64 counted;
};

#define GROUP_MAGIC 0x6e6d0001u
struct group {
    u32 magic;
    UT_hash_handle hh; /* coordinator->groups, by id */
    struct coordinator *coordinator;
    struct group_partition *partition;
    struct bytes id; /* owned */
    enum group_state state;
    i64 state_ms;
    i32 generation;
    struct bytes protocol_type, protocol; /* owned; data NULL = none */
    struct bytes leader;                  /* owned id */
    struct member *members;               /* in order of joining */
    struct pending_member *pending;
    struct timer rebalance; /* PREPARING: end of the join phase; COMPLETING: of the sync phase */
    u64 rebalance_end_ns;   /* of the longest the join phase may last */
    bool initial_delay;     /* the first rebalance of an empty group waits for more members */
    bool member_added;      /* while in the initial delay */
    bool writing;           /* a metadata record of the current generation is being written */
    struct offset *offsets;
    u64 counted; /* without members and offsets */
};

/* One owned partition of __consumer_offsets. */
enum load_state { LOAD_RUNNING, LOAD_DONE };
struct group_partition {
    UT_hash_handle hh; /* coordinator->partitions, by index */
    i32 index;
    struct partition *partition; /* NULL once removed */
    struct coordinator *coordinator;
    enum load_state load;
    i64 load_offset, load_end;
    struct read_op *read;
    struct timer load_timer;           /* armed: a read failed, it is tried again */
    struct partition_watch load_watch; /* linked: what comes next is not readable yet */
    bool closed;                       /* free it when the read is done */
};

struct coordinator {
    struct broker *broker;
    struct group_partition *partitions;
    struct group *groups;
    struct list retry; /* of struct group_write, no room in the log */
    struct timer retry_timer;
    struct timer expiry;
    struct batch_builder builder;
    u64 memory, reserved;    /* bytes: of what is there; promised to commits under way */
    struct group *expire_at; /* the next one to look at, while a round of expiry is under way */
};

/* ---- subscriptions.c ---- */

/* The topics that any protocol of any member names, each once, sorted. Views: good until a member
 * comes, goes or changes. Bounded by what group.memory lets members hold: a name of theirs costs 16
 * bytes here, for as long as one request or one step of expiry takes. */
struct subscriptions {
    struct bytes *names; /* owned */
    u32 count, room;
};
/* subscriptions_free follows. */
void subscriptions_read(struct subscriptions *s, const struct group *g);
bool subscriptions_name(const struct subscriptions *s, struct bytes topic);
void subscriptions_free(struct subscriptions *s);

/* ---- coordinator.c ---- */

/* The group's partition when this shard coordinates it and it is loaded; else NULL and *why:
 * NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE. */
struct group_partition *group_partition_of(struct broker *b, struct bytes group, err *why);
/* The group, when there is one. */
struct group *group_find(struct broker *b, struct bytes id);

/* Records for one partition, written as one batch; done when durable or failed. */
struct group_write;
typedef void (*group_write_done)(struct group_write *w);
struct group_write {
    struct partition_append append;
    struct list link;
    struct coordinator *coordinator;
    struct group_partition *partition; /* NULL once it is not ours any more */
    u8 *batch;                         /* owned */
    u32 batch_len;
    u64 counted;
    u64 deadline_ns;
    err err;
    group_write_done done;
};
/* Between write_begin and write_end the records are added to the coordinator's builder. */
void group_write_begin(struct coordinator *c);
err group_write_add(struct coordinator *c, struct bytes key,
                    struct bytes value); /* value NULL: tombstone */
/* `w` is embedded in its owner; done runs later, never inside. */
void group_write_end(struct group_partition *gp, struct group_write *w, group_write_done done);

/* ---- records.c ---- */

/* Each adds one record to the batch being built. */
err record_offset(struct coordinator *c, const struct group *g, const struct offset *o);
err record_offset_tombstone(struct coordinator *c, const struct group *g, const struct offset *o);
err record_group(struct coordinator *c, const struct group *g);
err record_group_tombstone(struct coordinator *c, const struct group *g);
/* Applies a record while loading. Unknown kinds are skipped, as Kafka does. */
void record_apply(struct group_partition *gp, const struct record *r);

/* ---- group.c ---- */

struct group *group_create(struct group_partition *gp, struct bytes id);
void group_free(struct group *g);
void group_set_state(struct group *g, enum group_state to);
const char *group_state_name(enum group_state s);
struct member *member_find(struct group *g, struct bytes id);
struct member *member_find_static(struct group *g, struct bytes instance_id);
struct member *member_add(struct group *g, struct bytes id, struct bytes instance_id);
/* Answers its waiting calls with `why`, forgets it. Does not start a rebalance. */
void member_remove(struct member *m, err why);
void member_rename(struct member *m, struct bytes new_id);
bool member_set_protocols(struct member *m, const struct join_group_request *q);
void member_session_restart(struct member *m);
void member_session_stop(struct member *m);
u32 group_size(const struct group *g);
/* A copy the struct owns, replacing what it had. */
void bytes_set(struct bytes *field, struct bytes value);
/* Membership or subscriptions changed: a new rebalance begins (or goes on). */
void group_rebalance(struct group *g, const char *reason);
/* After a change while PREPARING: maybe everybody has joined. */
void group_try_complete_join(struct group *g);
/* Ends a waiting join: fills the response for the member of the current generation. */
void member_answer_join(struct member *m);
void member_answer_sync(struct member *m, err e);
void group_members_gone(struct group *g); /* after removals: rebalance or become empty */
struct pending_member *pending_find(struct group *g, struct bytes id);
void pending_add(struct group *g, struct bytes id, i32 session_ms);
void pending_remove(struct pending_member *p);

/* ---- memory.c ---- */

/* The object that owns `counted` now takes `bytes`. */
void group_memory_count(struct coordinator *c, u64 *counted, u64 bytes);
/* Is there room for so much more? When not, that is counted and logged. */
bool group_memory_fits(struct coordinator *c, u64 more) MUST_USE;
/* For a commit that is not durable yet. */
void group_memory_reserve(struct coordinator *c, u64 bytes);
void group_memory_release(struct coordinator *c, u64 bytes);
/* After a change of what the object owns. */
void group_recount(struct group *g);
void member_recount(struct member *m);
void pending_recount(struct pending_member *p);
void offset_recount(struct group *g, struct offset *o);
/* What they would take. */
u64 group_memory_of_new(struct bytes id);
u64 member_memory_of(const struct join_group_request *q, struct bytes client_id);
u64 offset_memory_of(struct bytes topic, struct bytes metadata);

/* ---- offsets.c ---- */

struct offset *offset_find(struct group *g, struct bytes topic, i32 partition);
/* Found or new. */
struct offset *offset_put(struct group *g, struct bytes topic, i32 partition);
void offset_remove(struct group *g, struct offset *o);
struct bytes offset_topic(const struct offset *o);
i32 offset_partition(const struct offset *o);
/* `read`: what the members of a stable group of consumers read; else it may be empty. */
bool offset_expired(const struct group *g, const struct subscriptions *read,
                    const struct offset *o);
/* Those of topics that are still there, by topic and partition. `out` has room for all of the
 * group's; returns how many. */
u32 offsets_sorted(struct broker *b, const struct group *g, struct offset **out);
/* A slice of a round over all groups; false when the round is over. */
bool offsets_expire(struct coordinator *c);
/* A group without members, offsets or anything on its way to them: nobody would miss it. */
bool group_idle(const struct group *g);

#endif
