/* Topic configs: Kafka 4.4's names, types, defaults and rules, from one table (topic_config.def).
 *
 * A `struct topic_config` holds the effective values (read as plain fields: tc->retention_ms) and
 * the texts the topic overrides. What is not overridden follows the broker's key of the row
 * (log.retention.ms, then log.retention.minutes, then log.retention.hours, …).
 *
 * To change a topic all or nothing: topic_config_copy, topic_config_alter for each change,
 * topic_config_check, then swap. Values take no units: Kafka's exact syntax.
 *
 * Threads: one owner, as any plain struct; `cfg` is only read.
 */
#ifndef LEAT_TOPIC_CONFIG_H
#define LEAT_TOPIC_CONFIG_H

#include "bytes.h"
#include "config.h"

enum topic_config_id {
#define TOPIC(id, name, type, def, min, max, choices, server, visible, help) TC_##id,
#include "topic_config.def"
#undef TOPIC
    TC_COUNT
};

/* Bits of tc->cleanup_policy. */
enum { CLEANUP_COMPACT = 1, CLEANUP_DELETE = 2 };
/* Values of tc->compression_type; below TOPIC_COMPRESSION_PRODUCER they are the codes that record
 * batches carry (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd). */
enum { TOPIC_COMPRESSION_PRODUCER = 5 };
/* Values of tc->timestamp_type, as in a batch's attributes. */
enum { TIMESTAMP_CREATE_TIME = 0, TIMESTAMP_LOG_APPEND_TIME = 1 };
/* Values of tc->durability. */
enum { DURABILITY_LOCAL = 0, DURABILITY_REPLICATED = 1, DURABILITY_OBJECT = 2 };

struct topic_config {
    union {
        struct { /* effective values; STRING rows are unused, see topic_config_text */
#define TOPIC(id, name, type, def, min, max, choices, server, visible, help) i64 id;
#include "topic_config.def"
#undef TOPIC
        };
        i64 values[TC_COUNT];
    };
    char *overrides[TC_COUNT]; /* owned, in normal form; NULL: not overridden */
};

/* The codes of IncrementalAlterConfigs. */
enum topic_config_op { TOPIC_OP_SET, TOPIC_OP_DELETE, TOPIC_OP_APPEND, TOPIC_OP_SUBTRACT };

/* A Kafka STRING is at most this long; so is a value. */
#define TOPIC_VALUE_MAX 32767u

/* ---- life ---- */
/* No overrides, the broker's defaults. */
void topic_config_init(struct topic_config *tc, const struct config *cfg);
void topic_config_free(struct topic_config *tc);
/* `to` must not hold anything (uninitialised or freed). */
void topic_config_copy(struct topic_config *to, const struct topic_config *from);
/* After a change of a broker key: recomputes what is not overridden. */
void topic_config_refresh(struct topic_config *tc, const struct config *cfg);
/* Would topic_config_refresh change nothing? */
bool topic_config_follows(const struct topic_config *tc, const struct config *cfg);
/* Is it a broker key that topics follow? */
bool topic_config_uses(enum config_key key);

/* ---- changing ----
 * Errors with a sentence in why: ERR_INVALID_CONFIG (unknown name, value refused, APPEND to what is
 * no list), ERR_INVALID_REQUEST (null value where one is needed). A refused call changes nothing.
 * */
/* value.data == NULL: drop the override. */
err topic_config_set(struct topic_config *tc, const struct config *cfg, struct bytes name,
                     struct bytes value, char *why, size_t why_size) MUST_USE;
err topic_config_alter(struct topic_config *tc, const struct config *cfg, enum topic_config_op op,
                       struct bytes name, struct bytes value, char *why, size_t why_size) MUST_USE;
/* Drops every override (AlterConfigs replaces the whole set). */
void topic_config_clear(struct topic_config *tc, const struct config *cfg);
/* The rules between values; call it once after all changes. */
err topic_config_check(const struct topic_config *tc, const struct config *cfg, char *why,
                       size_t why_size) MUST_USE;

/* ---- describing ---- */
enum topic_config_id topic_config_find(struct bytes name); /* TC_COUNT: unknown */
const char *topic_config_name(enum topic_config_id id);
const char *topic_config_help(enum topic_config_id id);
bool topic_config_visible(enum topic_config_id id);
i8 topic_config_kafka_type(enum topic_config_id id); /* as config_kafka_type */
/* The effective value in Kafka's form; buf has CONFIG_VALUE_SIZE bytes at least. The result is buf
 * or belongs to tc. */
const char *topic_config_text(const struct topic_config *tc, enum topic_config_id id, char *buf,
                              size_t size);

struct topic_config_synonym {
    const char *name;
    /* source: 1 dynamic topic, else as config_kafka_source; value: its own buf, or owned by tc or
     * cfg */
    struct config_synonym of;
};
/* The topic's, and those of a key and two that stand in for it. */
#define TOPIC_SYNONYMS_MAX (1 + 3 * CONFIG_SYNONYMS_MAX)
/* Fills `out` strongest first: the override, then what the broker's keys say. Returns how many;
 * none when there is no broker's key. */
u32 topic_config_synonyms(const struct topic_config *tc, const struct config *cfg,
                          enum topic_config_id id,
                          struct topic_config_synonym out[TOPIC_SYNONYMS_MAX]);

/* Source of the effective value. */
i8 topic_config_source(const struct topic_config *tc, const struct config *cfg,
                       enum topic_config_id id);

/* The topics' part of the reference page (Markdown). */
void topic_config_print_reference(FILE *out);

/* ---- storing: the overrides as a flat byte string ---- */
size_t topic_config_size(const struct topic_config *tc);
/* Writes exactly topic_config_size bytes. */
void topic_config_write(const struct topic_config *tc, u8 *out);
/* Initialises tc from the bytes. Names this version does not know are skipped; ERR_CORRUPT when
 * the structure is broken (tc then has no overrides). Values that no longer pass are skipped. */
err topic_config_read(struct topic_config *tc, const struct config *cfg,
                      struct bytes from) MUST_USE;

#endif
