/* Cloning a topic: a new one that shares the objects of its source (storage/clone.h). One at a
 * time.
 *
 * Made, started, shown and freed by one thread (that of the administration endpoint); the work is a
 * task of the controller, on shard 0, with a part on every shard. */
#ifndef LEAT_TOPIC_CLONE_H
#define LEAT_TOPIC_CLONE_H

#include "broker.h"

struct topic_clone;

struct topic_clone_request {
    char source[250], target[250];
    /* The clone ends before this offset, in each partition; or before the first record of this time
     * or later. INT64_MAX: no such bound. One of them at most. */
    i64 end_offset, end_ms;
};

struct topic_clone *topic_clone_create(struct node *n);
/* When the shards have ended, or were never started. */
void topic_clone_free(struct topic_clone *c);
/* While all shards serve. False: one is under way. */
bool topic_clone_start(struct topic_clone *c, const struct topic_clone_request *r) MUST_USE;
/* A JSON object: whether one is under way, or how the last one ended. */
void topic_clone_show(struct topic_clone *c, struct metric_text *out);

#endif
