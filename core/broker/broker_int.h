/* What the files of core/broker share among themselves. */
#ifndef LEAT_BROKER_INT_H
#define LEAT_BROKER_INT_H

#include "broker.h"
#include "named.h"

/* ---- dispatch.c ---- */
#define API_KEYS_MAX 128
/* The row of a served API, NULL for any other key. */
const struct api *api_find(i16 key);
extern const struct net_handler broker_net_handler;

/* ---- metadata.c ---- */
struct bytes node_rack(const struct node *n); /* null when not set */
void api_versions_fill(struct call *c, struct api_versions_response *resp);

/* ---- catalog.c ---- */
/* Puts, replaces or removes (next = NULL) a topic in this shard's tables and opens or drops the
 * partitions it owns. */
void catalog_apply(struct broker *b, const struct topic *old, const struct topic *next);
/* At start, before storage_start: the tables without partitions. */
void catalog_add_entry(struct broker *b, const struct topic *t);
/* At start, after storage_start: opens every partition this shard owns. */
void catalog_open_partitions(struct broker *b);
void catalog_free(struct broker *b);

/* ---- partition.c ---- */
struct partition *partition_open(struct broker *b, const struct topic *t, i32 index);
/* Watchers fire; memory goes when nothing is in flight. `deleted`: the topic is gone. */
void partition_close(struct partition *p, bool deleted);
extern const struct storage_ops partition_storage_ops, partition_replay_ops;
/* For storage_start: does the catalog still have it? */
bool partition_known(struct storage *st, const struct partition_key *k);

/* ---- producers.c ---- */
#define PRODUCER_BATCHES 5 /* Kafka: a producer has at most five requests in flight */
struct producer_batch {
    i32 first_sequence, last_sequence;
    i64 last_offset;
    i64 timestamp;
};
struct producer {
    UT_hash_handle hh;
    struct list lru;             /* broker->producers, longest unused first */
    struct partition *partition; /* that remembers it */
    i64 id;
    i64 last_ms; /* of the last append, for expiry */
    i16 epoch;
    u8 batch_count;
    bool awaited; /* without batches: the first must not begin behind first_sequence */
    i32 first_sequence;
    i32 coordinator_epoch;
    struct producer_batch batches[PRODUCER_BATCHES]; /* oldest first */
};
/* ERR_NONE: append it; ERR_DUPLICATE_SEQUENCE_NUMBER: seen, *dup says where; else refused. */
err producers_check(const struct partition *p, const struct batch *b,
                    const struct producer_batch **dup);
/* The batch was appended (or recovered) with this last offset. */
void producers_append(struct partition *p, const struct batch *b, i64 last_offset, i64 now_ms);
/* The batch found no room in time. Those behind it, which are on their way, must not overtake it
 * when the producer is not known yet. */
void producers_refused(struct partition *p, const struct batch *b, i64 now_ms);
void producers_expire(struct partition *p, i64 before_ms);
struct bytes producers_snapshot(struct partition *p, struct arena *a);
err producers_restore(struct partition *p, struct bytes snapshot);
void producers_free(struct partition *p);

/* ---- produce.c ---- */
/* Room in the WAL again, or time is up for some. */
void produce_resume(struct broker *b);

/* ---- broker_configs.c ---- */
/* At start: dynamic broker configs that were stored. */
err broker_configs_load(struct node *n);

/* ---- topic_defaults.c ---- */
void topic_defaults_open(struct node *n);
void topic_defaults_free(struct node *n);
/* A key that topics follow changed: topics that do not override it follow, soon. Any thread but a
 * shard's. */
void topic_defaults_changed(struct node *n);
/* Before the shards are stopped: changes are not passed on any more. Main thread. */
void topic_defaults_close(struct node *n);

/* ---- retention.c ---- */
void retention_run(struct broker *b);

/* ---- cleaner.c ---- */
void cleaner_start(struct broker *b);
void cleaner_free(struct broker *b); /* the storage has stopped */

/* ---- controller.c ---- */
void controller_start(struct broker *b);
void controller_free(struct broker *b);
/* Is a task under way? */
bool controller_busy(const struct broker *b);
struct topic *topic_decode(const struct config *cfg, struct bytes name,
                           struct bytes value); /* NULL = corrupt */

/* ---- fetch_session.c ---- */
void fetch_sessions_create(struct broker *b);
void fetch_sessions_free(struct broker *b);

#endif
