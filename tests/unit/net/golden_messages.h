/* Messages as Kafka 4.4's own Java classes encode them, and what they say. */
#ifndef LEAT_GOLDEN_MESSAGES_H
#define LEAT_GOLDEN_MESSAGES_H

struct golden {
    const char *name;
    int version;
    const char *hex;
    const char *text;
};

static const struct golden goldens[] = {
    { "RequestHeader", 1, "0012000300000007000772646b61666b61",
      "{\"request_api_key\":18,\"request_api_version\":3,\"correlation_id\":7,\"client_id\""
      ":\"rdkafka\"}" },
    { "RequestHeader", 2, "0012000300000007000772646b61666b6100",
      "{\"request_api_key\":18,\"request_api_version\":3,\"correlation_id\":7,\"client_id\""
      ":\"rdkafka\"}" },
    { "RequestHeader", 2, "00030009fffffffeffff00",
      "{\"request_api_key\":3,\"request_api_version\":9,\"correlation_id\":-2,\"client_id\""
      ":null}" },
    { "ResponseHeader", 0, "00000007", "{\"correlation_id\":7}" },
    { "ResponseHeader", 1, "0000000700", "{\"correlation_id\":7}" },
    { "ProduceRequest", 3,
      "ffffffff000075300000000100066f72646572730000000200000005000000050102030405000000"
      "06ffffffff",
      "{\"transactional_id\":null,\"acks\":-1,\"timeout_ms\":30000,\"topic_data\":[{\"name\""
      ":\"orders\",\"partition_data\":[{\"index\":5,\"records\":\"0102030405\"},{\"index\":"
      "6,\"records\":null}]}]}" },
    { "ProduceRequest", 9,
      "0474786effff0000753002076f72646572730300000005060102030405000000000600000000",
      "{\"transactional_id\":\"txn\",\"acks\":-1,\"timeout_ms\":30000,\"topic_data\":[{\"na"
      "me\":\"orders\",\"partition_data\":[{\"index\":5,\"records\":\"0102030405\"},{\"inde"
      "x\":6,\"records\":null}]}]}" },
    { "ProduceRequest", 13,
      "00ffff00007530020102030405060708111213141516171803000000050601020304050000000006"
      "00000000",
      "{\"transactional_id\":null,\"acks\":-1,\"timeout_ms\":30000,\"topic_data\":[{\"topic"
      "_id\":\"01020304050607081112131415161718\",\"partition_data\":[{\"index\":5,\"record"
      "s\":\"0102030405\"},{\"index\":6,\"records\":null}]}]}" },
    { "ProduceResponse", 7,
      "0000000100017400000001000000010000000000000000002affffffffffffffff00000000000000"
      "0300000009",
      "{\"responses\":[{\"name\":\"t\",\"partition_responses\":[{\"index\":1,\"error_code\""
      ":0,\"base_offset\":42,\"log_append_time_ms\":-1,\"log_start_offset\":3}]}],\"throttl"
      "e_time_ms\":9}" },
    { "ProduceResponse", 10,
      "02027402000000010006000000000000002affffffffffffffff000000000000000301066d6f7665"
      "64010009000000020000000800000000000901000d02000000020262000023840000",
      "{\"responses\":[{\"name\":\"t\",\"partition_responses\":[{\"index\":1,\"error_code\""
      ":6,\"base_offset\":42,\"log_append_time_ms\":-1,\"log_start_offset\":3,\"record_erro"
      "rs\":[],\"error_message\":\"moved\",\"current_leader\":{\"leader_id\":2,\"leader_epo"
      "ch\":8}}]}],\"throttle_time_ms\":9,\"node_endpoints\":[{\"node_id\":2,\"host\":\"b\""
      ",\"port\":9092,\"rack\":null}]}" },
    { "FetchRequest", 4,
      "ffffffff000001f40000000103200000000000000100066f72646572730000000100000002000000"
      "000000006400100000",
      "{\"replica_id\":-1,\"max_wait_ms\":500,\"min_bytes\":1,\"max_bytes\":52428800,\"isol"
      "ation_level\":0,\"topics\":[{\"topic\":\"orders\",\"partitions\":[{\"partition\":2,\""
      "fetch_offset\":100,\"partition_max_bytes\":1048576}]}]}" },
    { "FetchRequest", 11,
      "ffffffff000001f40000000103200000000000000b000000010000000100066f7264657273000000"
      "0100000002ffffffff0000000000000064ffffffffffffffff00100000000000000000",
      "{\"replica_id\":-1,\"max_wait_ms\":500,\"min_bytes\":1,\"max_bytes\":52428800,\"isol"
      "ation_level\":0,\"session_id\":11,\"session_epoch\":1,\"topics\":[{\"topic\":\"order"
      "s\",\"partitions\":[{\"partition\":2,\"current_leader_epoch\":-1,\"fetch_offset\":10"
      "0,\"log_start_offset\":-1,\"partition_max_bytes\":1048576}]}],\"forgotten_topics_dat"
      "a\":[],\"rack_id\":\"\"}" },
    { "FetchRequest", 17,
      "000001f40000000103200000000000000b0000000102010203040506070811121314151617180200"
      "000002ffffffff0000000000000064ffffffffffffffffffffffff00100000000001010200030363"
      "31010d00000003000000000000000400",
      "{\"max_wait_ms\":500,\"min_bytes\":1,\"max_bytes\":52428800,\"isolation_level\":0,\""
      "session_id\":11,\"session_epoch\":1,\"topics\":[{\"topic_id\":\"01020304050607081112"
      "131415161718\",\"partitions\":[{\"partition\":2,\"current_leader_epoch\":-1,\"fetch_"
      "offset\":100,\"last_fetched_epoch\":-1,\"log_start_offset\":-1,\"partition_max_bytes"
      "\":1048576,\"replica_directory_id\":\"00000000000000000000000000000000\"}]}],\"forgo"
      "tten_topics_data\":[],\"rack_id\":\"\",\"cluster_id\":\"c1\",\"replica_state\":{\"re"
      "plica_id\":3,\"replica_epoch\":4}}" },
    { "FetchResponse", 4,
      "000000000000000100066f7264657273000000010000000200000000000000000069000000000000"
      "0068ffffffff000000050102030405",
      "{\"throttle_time_ms\":0,\"responses\":[{\"topic\":\"orders\",\"partitions\":[{\"part"
      "ition_index\":2,\"error_code\":0,\"high_watermark\":105,\"last_stable_offset\":104,\""
      "aborted_transactions\":null,\"records\":\"0102030405\"}]}]}" },
    { "FetchResponse", 12,
      "0000000000000000000b02076f726465727302000000020000000000000000006900000000000000"
      "68ffffffffffffffff02000000000000004d000000000000006500ffffffff06010203040502000d"
      "00000001000000000000000200020d000000000000000400000003000000",
      "{\"throttle_time_ms\":0,\"error_code\":0,\"session_id\":11,\"responses\":[{\"topic\""
      ":\"orders\",\"partitions\":[{\"partition_index\":2,\"error_code\":0,\"high_watermark"
      "\":105,\"last_stable_offset\":104,\"log_start_offset\":-1,\"aborted_transactions\":["
      "{\"producer_id\":77,\"first_offset\":101}],\"preferred_read_replica\":-1,\"records\""
      ":\"0102030405\",\"diverging_epoch\":{\"epoch\":1,\"end_offset\":2},\"current_leader\""
      ":{\"leader_id\":-1,\"leader_epoch\":-1},\"snapshot_id\":{\"end_offset\":4,\"epoch\":"
      "3}}]}]}" },
    { "FetchResponse", 16,
      "0000000000000000000b020102030405060708111213141516171802000000020000000000000000"
      "00690000000000000068ffffffffffffffff02000000000000004d000000000000006500ffffffff"
      "060102030405000001000e0200000001026800000001027200",
      "{\"throttle_time_ms\":0,\"error_code\":0,\"session_id\":11,\"responses\":[{\"topic_i"
      "d\":\"01020304050607081112131415161718\",\"partitions\":[{\"partition_index\":2,\"er"
      "ror_code\":0,\"high_watermark\":105,\"last_stable_offset\":104,\"log_start_offset\":"
      "-1,\"aborted_transactions\":[{\"producer_id\":77,\"first_offset\":101}],\"preferred_"
      "read_replica\":-1,\"records\":\"0102030405\",\"diverging_epoch\":{\"epoch\":-1,\"end"
      "_offset\":-1},\"current_leader\":{\"leader_id\":-1,\"leader_epoch\":-1},\"snapshot_i"
      "d\":{\"end_offset\":-1,\"epoch\":-1}}]}],\"node_endpoints\":[{\"node_id\":1,\"host\""
      ":\"h\",\"port\":1,\"rack\":\"r\"}]}" },
    { "MetadataRequest", 1, "ffffffff", "{\"topics\":null}" },
    { "MetadataRequest", 9, "0202780000000000",
      "{\"topics\":[{\"name\":\"x\"}],\"allow_auto_topic_creation\":false,\"include_cluster"
      "_authorized_operations\":false,\"include_topic_authorized_operations\":false}" },
    { "MetadataResponse", 12,
      "0000000002000000010a6c6f63616c686f7374000023840000056c65617400000001020000027801"
      "02030405060708111213141516171800020000000000000000000100000004030000000100000002"
      "02000000010100800000000000",
      "{\"throttle_time_ms\":0,\"brokers\":[{\"node_id\":1,\"host\":\"localhost\",\"port\":"
      "9092,\"rack\":null}],\"cluster_id\":\"leat\",\"controller_id\":1,\"topics\":[{\"erro"
      "r_code\":0,\"name\":\"x\",\"topic_id\":\"01020304050607081112131415161718\",\"is_int"
      "ernal\":false,\"partitions\":[{\"error_code\":0,\"partition_index\":0,\"leader_id\":"
      "1,\"leader_epoch\":4,\"replica_nodes\":[1,2],\"isr_nodes\":[1],\"offline_replicas\":"
      "[]}],\"topic_authorized_operations\":-2147483648}]}" },
    { "ApiVersionsResponse", 0, "000000000001001200000005",
      "{\"error_code\":0,\"api_keys\":[{\"api_key\":18,\"min_version\":0,\"max_version\":5}"
      "]}" },
    { "ApiVersionsResponse", 3,
      "0000020012000000050000000000020108000000000000000c0214020e67726f75702e7665727369"
      "6f6e0001000100",
      "{\"error_code\":0,\"api_keys\":[{\"api_key\":18,\"min_version\":0,\"max_version\":5}"
      "],\"throttle_time_ms\":0,\"supported_features\":[],\"finalized_features_epoch\":12,\""
      "finalized_features\":[{\"name\":\"group.version\",\"max_version_level\":1,\"min_vers"
      "ion_level\":1}],\"zk_migration_ready\":false}" },
    { "JoinGroupRequest", 5,
      "0001670000afc8000493e00000ffff0008636f6e73756d657200000001000572616e676500000002"
      "0001",
      "{\"group_id\":\"g\",\"session_timeout_ms\":45000,\"rebalance_timeout_ms\":300000,\"m"
      "ember_id\":\"\",\"group_instance_id\":null,\"protocol_type\":\"consumer\",\"protocol"
      "s\":[{\"name\":\"range\",\"metadata\":\"0001\"}]}" },
    { "ConsumerGroupHeartbeatResponse", 0, "00000000000000026d0000000300001388ff00",
      "{\"throttle_time_ms\":0,\"error_code\":0,\"error_message\":null,\"member_id\":\"m\","
      "\"member_epoch\":3,\"heartbeat_interval_ms\":5000,\"assignment\":null}" },
    { "ConsumerGroupHeartbeatResponse", 0,
      "00000000000000000000000300000000010201020304050607081112131415161718030000000000"
      "000001000000",
      "{\"throttle_time_ms\":0,\"error_code\":0,\"error_message\":null,\"member_id\":null,\""
      "member_epoch\":3,\"heartbeat_interval_ms\":0,\"assignment\":{\"topic_partitions\":[{"
      "\"topic_id\":\"01020304050607081112131415161718\",\"partitions\":[0,1]}]}}" },
    { "ConsumerProtocolSubscription", 3, "00000002000161000162ffffffff000000000000000600027231",
      "{\"topics\":[\"a\",\"b\"],\"user_data\":null,\"owned_partitions\":[],\"generation_id"
      "\":6,\"rack_id\":\"r1\"}" },
    { "EndTxnMarker", 0, "00000005", "{\"coordinator_epoch\":5}" },
    { "OffsetCommitValue", 3, "00000000000000630000000200016d0000018bcfe56800",
      "{\"offset\":99,\"leader_epoch\":2,\"metadata\":\"m\",\"commit_timestamp\":1700000000"
      "000}" },
    { "OffsetCommitValue", 4,
      "000000000000006300000002026d0000018bcfe56800010010010203040506070811121314151617"
      "18",
      "{\"offset\":99,\"leader_epoch\":2,\"metadata\":\"m\",\"commit_timestamp\":1700000000"
      "000,\"topic_id\":\"01020304050607081112131415161718\"}" },
    { "GroupMetadataValue", 3,
      "0008636f6e73756d657200000001000572616e676500026d3100000000000000050000000100026d"
      "31ffff00016300022f6800000001000000020000000109000000020807",
      "{\"protocol_type\":\"consumer\",\"generation\":1,\"protocol\":\"range\",\"leader\":\""
      "m1\",\"current_state_timestamp\":5,\"members\":[{\"member_id\":\"m1\",\"group_instan"
      "ce_id\":null,\"client_id\":\"c\",\"client_host\":\"/h\",\"rebalance_timeout\":1,\"se"
      "ssion_timeout\":2,\"subscription\":\"09\",\"assignment\":\"0807\"}]}" },
    { "OffsetDeleteRequest", 0, "00016700000000", "{\"group_id\":\"g\",\"topics\":[]}" },
    { "PushTelemetryRequest", 0, "01020304050607081112131415161718000000040104020100",
      "{\"client_instance_id\":\"01020304050607081112131415161718\",\"subscription_id\":4,\""
      "terminating\":true,\"compression_type\":4,\"metrics\":\"01\"}" },
    { "DescribeClientQuotasResponse", 0,
      "00000000000000000000000100000001000475736572ffff00000001001270726f64756365725f62"
      "7974655f726174653ff8000000000000",
      "{\"throttle_time_ms\":0,\"error_code\":0,\"error_message\":\"\",\"entries\":[{\"enti"
      "ty\":[{\"entity_type\":\"user\",\"entity_name\":null}],\"values\":[{\"key\":\"produc"
      "er_byte_rate\",\"value\":1.5}]}]}" },
};

#endif
