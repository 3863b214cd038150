/* A whole node: the objects of start-up and shutdown, in order. main.c runs it on threads; the
 * simulator calls the same pieces from its one thread.
 *
 *   node_open          data directory, metadata, object store, topics, brokers     (main thread)
 *   broker_start       per shard, on its thread: WAL recovery, partitions, sockets
 *   broker_drained     per shard, every turn while stopping: sockets closed, WAL flushed, uploaded
 *   node_close         everything is freed                                         (main thread)
 */
#ifndef LEAT_NODE_H
#define LEAT_NODE_H

#include <stdio.h>

#include "broker.h"
#include "recovery.h"

/* cfg is validated and outlives the node. On failure *out is NULL and `why` names cause and
 * remedy. `shards`: how many (node_shard_count of cfg). The metadata and store drivers that the
 * URLs name must be registered. */
err node_open(struct config *cfg, u32 shards, struct node **out, char *why,
              size_t why_size) MUST_USE;
/* core.shards, or what suits the CPUs this process may use. */
u32 node_shard_count(const struct config *cfg);
/* How many for so many CPUs: three for four of them, and of several one stays free. At least 1. */
u32 node_shards_for(u32 cpus);
/* Instead of node_open: rebuilds what an empty data directory needs from the store, and ends. Of
 * `r` the caller sets `force` and `pause`; see recovery.h. */
err node_recover(struct config *cfg, struct recovery *r, char *why, size_t why_size) MUST_USE;
/* Recovers and starts serving; io of the shard exists. ERR_* with a message in
 * s->start_error. */
err broker_start(struct shard *s) MUST_USE;
/* After a broker_start that failed: the sentence of the first shard whose storage did not start,
 * with cause and remedy; NULL when it was something else. */
const char *node_start_error(const struct node *n);
/* Takes the next step of stopping; true when nothing is left to do. */
bool broker_drained(struct shard *s);
/* For a person at a terminal: that the node is ready, what it found, how to try it. Once ready. */
void node_welcome(const struct node *n, u64 took_ms, FILE *out);
/* After every shard is drained and its io destroyed. */
void node_close(struct node *n);
/* key=value lines about the node, for `leatctl status` and the admin endpoint: only what never
 * changes after start, so any thread may ask. */
void node_describe(const struct node *n, char *buf, size_t size);

#endif
