/* What a request names more than once: found by sorting, never by comparing every pair. All memory
 * is the call's arena; any shard, on calls that it holds. */
#ifndef LEAT_NAMED_H
#define LEAT_NAMED_H

#include <stddef.h>

#include "bytes.h"

struct broker;
struct call;
struct uuid;

struct named {
    struct bytes name;
    i32 kind;
    i32 at; /* in the request, 0 to n - 1 */
};
enum { NAMED_BEFORE = 1, NAMED_TWICE = 2 }; /* by an earlier entry; by any other */
/* Marks by place in the request. Sorts v by name, kind and place. NULL at the arena's limit. */
u8 *named_marks(struct call *c, struct named *v, i32 n);

/* How a request lists partitions: topics, each with an array of partitions. A topic has a name and,
 * when id_at is not NAMED_NO_ID, an id that stands for it where the name is empty. */
struct named_shape {
    size_t topic_bytes, name_at, id_at, list_at;
    size_t partition_bytes, index_at;
};
#define NAMED_NO_ID SIZE_MAX
#define NAMED_SHAPE(topic, name, id, list, partition, index)                                    \
    {                                                                                           \
        sizeof(struct topic), offsetof(struct topic, name), (id), offsetof(struct topic, list), \
            sizeof(struct partition), offsetof(struct partition, index)                         \
    }
/* `topics` is such an array ({ T *v; i32 n; }) of the decoded request, which is the call's own:
 * after this it holds each topic and each of its partitions once, where it was named first and with
 * the values it was named with last. Returns a byte per partition that is left, in order: was it
 * named more than once? NULL at the arena's limit. */
u8 *named_merge(struct call *c, const struct named_shape *shape, const void *topics);

/* What stands for a topic that is named by name (id zero) or by id: its name where it is known. A
 * view of the catalog or of what was given. */
struct bytes named_topic(struct broker *b, struct bytes name, const struct uuid *id);

#endif
