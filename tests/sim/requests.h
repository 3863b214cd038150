/* Requests about one partition, as the loads of the simulator and the worlds of the fuzz targets
 * send them: a message together with what it points to, so it must not be moved. What is not named
 * here has its default and may be set before it is sent. A topic has a name, for older versions,
 * and an id. */
#ifndef LEAT_SIM_REQUESTS_H
#define LEAT_SIM_REQUESTS_H

#include "codec.h"

struct topic_named {
    const char *name;
    struct uuid id;
};

struct produce_one {
    struct produce_request q;
    struct produce_request_topic_produce_data t;
    struct produce_request_partition_produce_data p;
};
/* acks=all, within five seconds; `records` stays the caller's. */
const struct produce_request *produce_one(struct produce_one *m, struct topic_named topic,
                                          i32 partition, struct bytes records);

struct fetch_one {
    struct fetch_request q;
    struct fetch_request_fetch_topic t;
    struct fetch_request_fetch_partition p;
};
/* Without a session, at most a megabyte. */
struct fetch_request *fetch_one(struct fetch_one *m, struct topic_named topic, i32 partition,
                                i64 offset);

struct delete_records_one {
    struct delete_records_request q;
    struct delete_records_request_delete_records_topic t;
    struct delete_records_request_delete_records_partition p;
};
const struct delete_records_request *delete_records_one(struct delete_records_one *m,
                                                        const char *topic, i32 partition,
                                                        i64 offset);

struct offset_commit_one {
    struct offset_commit_request q;
    struct offset_commit_request_offset_commit_request_topic t;
    struct offset_commit_request_offset_commit_request_partition p;
};
/* Of partition 0, by nobody's member. */
struct offset_commit_request *offset_commit_one(struct offset_commit_one *m, const char *group,
                                                struct topic_named topic, i64 offset);

struct metadata_one {
    struct metadata_request q;
    struct metadata_request_metadata_request_topic t;
};
/* Of one topic by name, which is not to be made. */
const struct metadata_request *metadata_one(struct metadata_one *m, const char *topic);

struct delete_topic_one {
    struct delete_topics_request q;
    struct delete_topics_request_delete_topic_state t;
};
/* By id. */
const struct delete_topics_request *delete_topic_one(struct delete_topic_one *m, struct uuid id);

/* Of an idempotent producer, without transactions. */
struct init_producer_id_request init_producer_any(void);

#endif
