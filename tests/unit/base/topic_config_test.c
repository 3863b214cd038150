/* Topic configs: Kafka's rules, defaults from the broker, list operations, the stored form. */
#include "topic_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "mem.h"

static struct config cfg;
static struct topic_config tc;
static char why[512];

static int setup(void **state)
{
    (void)state;
    config_init(&cfg);
    topic_config_init(&tc, &cfg);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    topic_config_free(&tc);
    config_free(&cfg);
    return 0;
}

static err set(const char *name, const char *value)
{
    why[0] = '\0';
    return topic_config_set(&tc, &cfg, bytes_str(name),
                            value ? bytes_str(value) : (struct bytes){ NULL, 0 }, why, sizeof why);
}

static err alter(enum topic_config_op op, const char *name, const char *value)
{
    return topic_config_alter(&tc, &cfg, op, bytes_str(name),
                              value ? bytes_str(value) : (struct bytes){ NULL, 0 }, why,
                              sizeof why);
}

static const char *text(enum topic_config_id id)
{
    static char buf[CONFIG_VALUE_SIZE];
    return topic_config_text(&tc, id, buf, sizeof buf);
}

static void defaults_are_kafkas(void **state)
{
    (void)state;
    /* With a default broker, every row has the default of its definition. */
    for (u32 i = 0; i < TC_COUNT; i++) {
        struct topic_config_synonym syn[TOPIC_SYNONYMS_MAX];
        u32 n = topic_config_synonyms(&tc, &cfg, (enum topic_config_id)i, syn);
        assert_true(n == 0 || syn[0].of.source == 5);
        assert_int_equal(topic_config_source(&tc, &cfg, (enum topic_config_id)i), 5);
    }
    assert_int_equal(tc.retention_ms, 604800000);
    assert_int_equal(tc.segment_ms, 604800000);
    assert_int_equal(tc.segment_jitter_ms, 0);
    assert_int_equal(tc.flush_ms, INT64_MAX);
    assert_int_equal(tc.max_message_bytes, 1048588);
    assert_int_equal(tc.cleanup_policy, CLEANUP_DELETE);
    assert_int_equal(tc.compression_type, TOPIC_COMPRESSION_PRODUCER);
    assert_int_equal(tc.timestamp_type, TIMESTAMP_CREATE_TIME);
    assert_int_equal(tc.timestamp_after_max_ms, 3600000);
    assert_int_equal(tc.local_retention_ms, -2);
    assert_int_equal(tc.min_cleanable_dirty_ratio, CONFIG_RATIO_ONE / 2);
    assert_string_equal(text(TC_min_cleanable_dirty_ratio), "0.5");
    assert_string_equal(text(TC_cleanup_policy), "delete");
    assert_string_equal(text(TC_leader_throttled), "");
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(topic_config_kafka_type(TC_segment_bytes), 3);
    assert_int_equal(topic_config_kafka_type(TC_retention_ms), 5);
    assert_int_equal(topic_config_kafka_type(TC_cleanup_policy), 7);
}

static void the_brokers_keys_are_the_defaults(void **state)
{
    (void)state;
    assert_int_equal(config_set(&cfg, "log.retention.hours", "2", CONFIG_FILE, why, sizeof why), 0);
    assert_false(topic_config_follows(&tc, &cfg));
    topic_config_refresh(&tc, &cfg);
    assert_true(topic_config_follows(&tc, &cfg));
    assert_int_equal(tc.retention_ms, 7200000);
    assert_true(topic_config_uses(CFG_log_retention_hours));
    assert_false(topic_config_uses(CFG_wal_seal_age_ms));
    assert_int_equal(config_set(&cfg, "log.retention.minutes", "5", CONFIG_FILE, why, sizeof why),
                     0);
    assert_int_equal(config_set(&cfg, "compression.type", "zstd", CONFIG_FILE, why, sizeof why), 0);
    topic_config_refresh(&tc, &cfg);
    assert_int_equal(tc.retention_ms, 300000);
    assert_int_equal(tc.compression_type, 4);
    struct topic_config_synonym syn[TOPIC_SYNONYMS_MAX];
    assert_int_equal(topic_config_synonyms(&tc, &cfg, TC_retention_ms, syn), 3);
    assert_string_equal(syn[0].name, "log.retention.minutes");
    assert_string_equal(syn[0].of.value, "5");
    assert_int_equal(syn[0].of.source, 4);
    assert_string_equal(syn[1].name, "log.retention.hours");
    assert_int_equal(syn[1].of.source, 4);
    assert_string_equal(syn[2].of.value, "168"); /* the same key's default */
    assert_int_equal(syn[2].of.source, 5);
    assert_int_equal(config_set(&cfg, "log.retention.hours", "-1", CONFIG_FILE, why, sizeof why),
                     0);
    assert_int_equal(config_set(&cfg, "log.retention.minutes", "", CONFIG_FILE, why, sizeof why),
                     0);
    topic_config_refresh(&tc, &cfg);
    assert_int_equal(tc.retention_ms, -1);
    assert_int_equal(set("retention.ms", "60000"), ERR_NONE);
    topic_config_refresh(&tc, &cfg);
    assert_int_equal(tc.retention_ms, 60000);
    assert_int_equal(topic_config_synonyms(&tc, &cfg, TC_retention_ms, syn), 3);
    assert_int_equal(syn[0].of.source, 1);
    assert_string_equal(syn[0].of.value, "60000");
    assert_int_equal(set("retention.ms", NULL), ERR_NONE);
    assert_int_equal(tc.retention_ms, -1);
}

static void values_follow_kafkas_rules(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value, *message; /* message NULL: accepted */
    } cases[] = {
        { "retention.ms", " 1000 ", NULL },
        { "retention.ms", "-1", NULL },
        { "retention.ms", "-2", "at least -1" },
        { "retention.ms", "1h", "Not a number of type LONG" },
        { "retention.ms", "", "Not a number" },
        { "retention.bytes", "-5", NULL },
        { "segment.bytes", "1048575", "at least 1048576" },
        { "segment.bytes", "2147483648", "Not a number of type INT" },
        { "segment.bytes", "1g", "Not a number of type INT" },
        { "preallocate", "TRUE", NULL },
        { "preallocate", "yes", "either true or false" },
        { "compression.type", "snappy", NULL },
        { "compression.type", "Snappy", "one of: uncompressed, gzip" },
        { "compression.gzip.level", "0", "between 1 and 9 or equal to -1" },
        { "compression.gzip.level", "10", "between 1 and 9" },
        { "compression.gzip.level", "-1", NULL },
        { "compression.lz4.level", "18", "between 1 and 17" },
        { "compression.zstd.level", "-131072", NULL },
        { "cleanup.policy", "", NULL },
        { "cleanup.policy", "compact, delete", NULL },
        { "cleanup.policy", "none", "one of: compact, delete" },
        { "min.cleanable.dirty.ratio", "1.5", "between 0 and 1" },
        { "min.cleanable.dirty.ratio", "half", "DOUBLE" },
        { "message.timestamp.type", "LogAppendTime", NULL },
        { "leader.replication.throttled.replicas", "0:1,1:2", NULL },
        { "leader.replication.throttled.replicas", "*", NULL },
        { "leader.replication.throttled.replicas", "0:1,x", "PARTITION" },
        { "no.such", "1", "Unknown topic config name: no.such" },
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        err e = set(cases[i].name, cases[i].value);
        if (cases[i].message && !strstr(why, cases[i].message))
            fail_msg("%s=%s: %s", cases[i].name, cases[i].value, why);
        assert_int_equal(e, cases[i].message ? ERR_INVALID_CONFIG : ERR_NONE);
    }
    assert_int_equal(tc.retention_ms, -1);
    assert_int_equal(set("cleanup.policy", "compact, delete,compact"), ERR_NONE);
    assert_string_equal(text(TC_cleanup_policy), "compact,delete");
    assert_int_equal(tc.cleanup_policy, CLEANUP_COMPACT | CLEANUP_DELETE);
    assert_string_equal(text(TC_preallocate), "true");
}

static void values_must_agree(void **state)
{
    (void)state;
    assert_int_equal(set("min.compaction.lag.ms", "10"), ERR_NONE);
    assert_int_equal(set("max.compaction.lag.ms", "9"), ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_int_equal(set("max.compaction.lag.ms", "10"), ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(set("leat.durability", "object"), ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(set("leat.durability", "replicated"), ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_INVALID_CONFIG);
    /* A log in memory makes nothing durable by itself. */
    assert_int_equal(set("leat.durability", "local"), ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_NONE);
    assert_int_equal(config_set(&cfg, "wal.path", "none", CONFIG_COMMAND_LINE, why, sizeof why),
                     ERR_NONE);
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why), ERR_INVALID_CONFIG);
    assert_non_null(strstr(why, "wal.path"));
}

static void agrees(const char *name, const char *value, const char *refusal)
{
    assert_int_equal(set(name, value), ERR_NONE);
    why[0] = '\0';
    assert_int_equal(topic_config_check(&tc, &cfg, why, sizeof why),
                     refusal ? ERR_INVALID_CONFIG : ERR_NONE);
    if (refusal)
        assert_non_null(strstr(why, refusal));
}

static void tiers_must_agree(void **state)
{
    (void)state;
    /* Without tiered storage nobody minds. */
    agrees("retention.ms", "1000", NULL);
    agrees("local.retention.ms", "1001", NULL);
    agrees("remote.storage.enable", "true",
           "local.retention.ms: Value must not be more than retention.ms property value: 1000");
    agrees("local.retention.ms", "-1", "Value must not be -1 as retention.ms value is set as 1000");
    agrees("local.retention.ms", "1000", NULL);
    agrees("local.retention.ms", "-2", NULL);
    agrees("retention.bytes", "5", NULL);
    agrees("local.retention.bytes", "6", "more than retention.bytes property value: 5");
    agrees("local.retention.bytes", "5", NULL);
    agrees("remote.log.copy.disable", "true", NULL);
    agrees("local.retention.bytes", "4", "must have the same value");
    agrees("local.retention.bytes", "-2", NULL);
    agrees("retention.bytes", "-1", NULL);
    agrees("local.retention.bytes", "4", "must have the same value");
    agrees("remote.log.copy.disable", "false", NULL);
    agrees("cleanup.policy", "compact", NULL);
    agrees("remote.log.delete.on.disable", "true", NULL);
    agrees("remote.storage.enable", "false", NULL);
}

static void lists_are_appended_and_subtracted(void **state)
{
    (void)state;
    assert_int_equal(alter(TOPIC_OP_APPEND, "cleanup.policy", "compact"), ERR_NONE);
    assert_string_equal(text(TC_cleanup_policy), "delete,compact");
    assert_int_equal(alter(TOPIC_OP_APPEND, "cleanup.policy", "compact"), ERR_NONE);
    assert_string_equal(text(TC_cleanup_policy), "delete,compact");
    assert_int_equal(alter(TOPIC_OP_SUBTRACT, "cleanup.policy", "delete"), ERR_NONE);
    assert_string_equal(text(TC_cleanup_policy), "compact");
    assert_int_equal(tc.cleanup_policy, CLEANUP_COMPACT);
    assert_int_equal(alter(TOPIC_OP_APPEND, "cleanup.policy", "rot"), ERR_INVALID_CONFIG);
    assert_string_equal(text(TC_cleanup_policy), "compact");
    assert_int_equal(alter(TOPIC_OP_SUBTRACT, "cleanup.policy", "compact"), ERR_NONE);
    assert_string_equal(text(TC_cleanup_policy), "");
    assert_int_equal(alter(TOPIC_OP_DELETE, "cleanup.policy", NULL), ERR_NONE);
    assert_int_equal(tc.cleanup_policy, CLEANUP_DELETE);
    assert_int_equal(alter(TOPIC_OP_APPEND, "retention.ms", "1"), ERR_INVALID_CONFIG);
    assert_non_null(strstr(why, "not LIST"));
    assert_int_equal(alter(TOPIC_OP_SET, "retention.ms", NULL), ERR_INVALID_REQUEST);
    assert_int_equal(alter((enum topic_config_op)9, "retention.ms", "1"), ERR_INVALID_REQUEST);
}

static void the_stored_form_comes_back(void **state)
{
    (void)state;
    assert_int_equal(set("retention.ms", "5"), ERR_NONE);
    assert_int_equal(set("cleanup.policy", "delete,compact"), ERR_NONE);
    assert_int_equal(set("leader.replication.throttled.replicas", "*"), ERR_NONE);
    u32 size = (u32)topic_config_size(&tc);
    u8 *stored = mem_alloc(size);
    topic_config_write(&tc, stored);
    struct topic_config back, copy;
    assert_int_equal(topic_config_read(&back, &cfg, bytes_of(stored, size)), ERR_NONE);
    topic_config_copy(&copy, &back);
    topic_config_free(&back);
    assert_memory_equal(copy.values, tc.values, sizeof tc.values);
    for (u32 i = 0; i < TC_COUNT; i++) {
        assert_int_equal(!copy.overrides[i], !tc.overrides[i]);
        if (tc.overrides[i])
            assert_string_equal(copy.overrides[i], tc.overrides[i]);
    }
    topic_config_free(&copy);
    log_set_level("error");
    for (u32 cut = 0; cut < size; cut++) {
        assert_int_equal(topic_config_read(&back, &cfg, bytes_of(stored, cut)), ERR_CORRUPT);
        topic_config_free(&back);
        u8 *flipped = mem_dup(stored, size);
        flipped[cut] ^= 0x55;
        (void)!topic_config_read(&back, &cfg, bytes_of(flipped, size));
        topic_config_free(&back);
        mem_free(flipped);
    }
    mem_free(stored);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_are_kafkas, setup, teardown),
        cmocka_unit_test_setup_teardown(the_brokers_keys_are_the_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(values_follow_kafkas_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(values_must_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(tiers_must_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_are_appended_and_subtracted, setup, teardown),
        cmocka_unit_test_setup_teardown(the_stored_form_comes_back, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
