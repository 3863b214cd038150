#include "requests.h"

#include "base.h"

const struct produce_request *produce_one(struct produce_one *m, struct topic_named topic,
                                          i32 partition, struct bytes records)
{
    produce_request_init(&m->q);
    produce_request_topic_produce_data_init(&m->t);
    produce_request_partition_produce_data_init(&m->p);
    m->q.acks = -1;
    m->q.timeout_ms = 5000;
    m->q.topic_data.v = &m->t;
    m->q.topic_data.n = 1;
    m->t.name = bytes_str(topic.name);
    m->t.topic_id = topic.id;
    m->t.partition_data.v = &m->p;
    m->t.partition_data.n = 1;
    m->p.index = partition;
    m->p.records = records;
    return &m->q;
}

struct fetch_request *fetch_one(struct fetch_one *m, struct topic_named topic, i32 partition,
                                i64 offset)
{
    fetch_request_init(&m->q);
    fetch_request_fetch_topic_init(&m->t);
    fetch_request_fetch_partition_init(&m->p);
    m->q.replica_id = -1;
    m->q.max_bytes = 1 << 20;
    m->q.topics.v = &m->t;
    m->q.topics.n = 1;
    m->t.topic = bytes_str(topic.name);
    m->t.topic_id = topic.id;
    m->t.partitions.v = &m->p;
    m->t.partitions.n = 1;
    m->p.partition = partition;
    m->p.fetch_offset = offset;
    m->p.partition_max_bytes = 1 << 20;
    return &m->q;
}

const struct delete_records_request *delete_records_one(struct delete_records_one *m,
                                                        const char *topic, i32 partition,
                                                        i64 offset)
{
    delete_records_request_init(&m->q);
    delete_records_request_delete_records_topic_init(&m->t);
    delete_records_request_delete_records_partition_init(&m->p);
    m->q.timeout_ms = 5000;
    m->q.topics.v = &m->t;
    m->q.topics.n = 1;
    m->t.name = bytes_str(topic);
    m->t.partitions.v = &m->p;
    m->t.partitions.n = 1;
    m->p.partition_index = partition;
    m->p.offset = offset;
    return &m->q;
}

const struct metadata_request *metadata_one(struct metadata_one *m, const char *topic)
{
    metadata_request_init(&m->q);
    metadata_request_metadata_request_topic_init(&m->t);
    m->q.topics.v = &m->t;
    m->q.topics.n = 1;
    m->q.allow_auto_topic_creation = false;
    m->t.name = bytes_str(topic);
    return &m->q;
}

const struct delete_topics_request *delete_topic_one(struct delete_topic_one *m, struct uuid id)
{
    delete_topics_request_init(&m->q);
    delete_topics_request_delete_topic_state_init(&m->t);
    m->q.timeout_ms = 5000;
    m->q.topics.v = &m->t;
    m->q.topics.n = 1;
    m->t.topic_id = id;
    m->t.name = (struct bytes){ NULL, 0 };
    return &m->q;
}

struct offset_commit_request *offset_commit_one(struct offset_commit_one *m, const char *group,
                                                struct topic_named topic, i64 offset)
{
    offset_commit_request_init(&m->q);
    offset_commit_request_offset_commit_request_topic_init(&m->t);
    offset_commit_request_offset_commit_request_partition_init(&m->p);
    m->q.group_id = bytes_str(group);
    m->q.topics.v = &m->t;
    m->q.topics.n = 1;
    m->t.name = bytes_str(topic.name);
    m->t.topic_id = topic.id;
    m->t.partitions.v = &m->p;
    m->t.partitions.n = 1;
    m->p.committed_offset = offset;
    return &m->q;
}

struct init_producer_id_request init_producer_any(void)
{
    struct init_producer_id_request q;
    init_producer_id_request_init(&q);
    q.transactional_id = (struct bytes){ NULL, 0 };
    return q;
}
