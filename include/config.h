/* Configuration: one table (config.def) is the source of the parser, the checks, --help, the
 * reference page, `leatctl -a` and Kafka's DescribeConfigs for brokers.
 *
 * Grammar (sysctl's): `dotted.key = value`, one a line; `#` and `;` start a comment line; white
 * space around key and value is dropped; a leading `-` before the key turns a refused line into a
 * warning. `${other.key}` inside a string value stands for that key's value. Sizes take k m g t
 * (KiB, MiB, GiB, TiB; all powers of 1024) or % (of mem_machine_bytes, within the key's range),
 * durations us ms s m h d. A bare number is in the unit of the key's type. Where Kafka has a name
 * of its own for a key, both names are accepted.
 *
 * Order of precedence: live change > stored for the broker > stored for the cluster > command line
 * (-w) > files, later ones first > default. A live change (leatctl) holds until the node stops, it
 * is reset, or the files say something new for the key (config_reload). A stored change (Kafka's
 * AlterConfigs on a broker, or on the defaults of all brokers) is kept in the metadata store: it
 * holds until it is deleted by the same API.
 *
 * Threads: a node fills its `struct config` before any other thread runs, then calls
 * config_validate. After that, keys that are not strings may be read on any thread (relaxed
 * atomics) and dynamic ones be changed on any thread but a shard's, for changes take a lock;
 * strings never change again. There is no global: each node of a process has its own.
 */
#ifndef LEAT_CONFIG_H
#define LEAT_CONFIG_H

#include <pthread.h>
#include <stdio.h>

#include "base.h"
#include "err.h"

enum config_key {
#define KEY(id, name, kafka, type, def, min, max, change, help) CFG_##id,
#define KEY_CHOICE(id, name, kafka, type, def, choices, change, help) CFG_##id,
#include "config.def"
#undef KEY
#undef KEY_CHOICE
    CFG_COUNT
};

enum config_type {
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_SIZE, /* bytes */
    CONFIG_US,   /* durations: the value is in microseconds, … */
    CONFIG_MS,
    CONFIG_SEC,
    CONFIG_MIN,
    CONFIG_HOURS,
    CONFIG_RATIO, /* 0.0 to 1.0, held in millionths */
    CONFIG_STRING,
    CONFIG_PASSWORD, /* a string that config_text never shows */
    CONFIG_ENUM,     /* value: index into choices */
    CONFIG_LIST,     /* value: bit i set when choice i is listed */
};

enum config_change { CONFIG_STATIC, CONFIG_DYNAMIC };
enum config_source {
    CONFIG_DEFAULT,
    CONFIG_FILE,
    CONFIG_COMMAND_LINE,
    CONFIG_CLUSTER, /* stored, for all brokers */
    CONFIG_STORED,  /* for this one */
    CONFIG_LIVE
};
#define CONFIG_STORED_LAYERS 2u /* CONFIG_CLUSTER and CONFIG_STORED */

/* What stands for a password wherever values are shown. */
#define CONFIG_HIDDEN "[hidden]"
/* A numeric key whose default is empty ("not set") reads as this. */
#define CONFIG_UNSET INT64_MIN
#define CONFIG_RATIO_ONE 1000000
/* Longest formatted value of a key that is not a string, with its NUL. */
#define CONFIG_VALUE_SIZE 128

struct config_def {
    const char *name;  /* "wal.size" */
    const char *kafka; /* Kafka's name where it differs, else NULL */
    enum config_type type;
    const char *def;     /* as text; "" is "not set" for numbers */
    i64 min, max;        /* of the stored value; numbers only */
    const char *choices; /* "a|b|c" for ENUM and LIST, else NULL */
    enum config_change change;
    const char *help; /* one or more sentences */
};
extern const struct config_def config_defs[CFG_COUNT];

struct config;
/* Runs after a live change, on the changer's thread; must only do what is safe there. */
typedef void (*config_changed_fn)(struct config *cfg, enum config_key key, void *arg);

#define CONFIG_MAGIC 0xc0f10001u
#define CONFIG_LISTENERS_MAX 8
struct config {
    u32 magic;
    bool frozen;                /* config_validate succeeded: strings are fixed from here on */
    i64 values[CFG_COUNT];      /* relaxed atomics; strings unused */
    u8 sources[CFG_COUNT];      /* enum config_source, relaxed atomics */
    i64 base_values[CFG_COUNT]; /* what command line, files and default say; relaxed atomics too */
    u8 base_sources[CFG_COUNT];
    i64 stored_values[CONFIG_STORED_LAYERS][CFG_COUNT]; /* CONFIG_UNSET: not stored; relaxed */
    pthread_mutex_t change_lock; /* held by whoever changes something after config_validate */
    char *strings[CFG_COUNT];    /* owned; NULL for keys that are neither string nor enum */
    struct {
        config_changed_fn fn;
        void *arg;
    } listeners[CONFIG_LISTENERS_MAX];
    u32 listener_count;
};

/* ---- life ---- */
void config_init(struct config *cfg); /* every key at its default, not validated */
void config_free(struct config *cfg);

/* ---- filling, before other threads run. All write a sentence into why[0..why_size) when they
 * fail; ERR_NOT_FOUND: no such key (the sentence names the nearest), ERR_INVALID_CONFIG: value
 * refused, ERR_IO etc.: file unreadable. ---- */
err config_set(struct config *cfg, const char *name, const char *value, enum config_source source,
               char *why, size_t why_size) MUST_USE;
/* "key=value", as given to -w. */
err config_set_pair(struct config *cfg, const char *pair, enum config_source source, char *why,
                    size_t why_size) MUST_USE;
/* Messages carry file:line. Stops at the first refused line. */
err config_load_file(struct config *cfg, const char *path, char *why, size_t why_size) MUST_USE;
/* Every *.conf of the directory in the order of their names; a missing directory is no error. */
err config_load_dir(struct config *cfg, const char *path, char *why, size_t why_size) MUST_USE;
/* The same grammar from memory (`text` need not end in NUL); `name` stands in messages. */
err config_load_text(struct config *cfg, const char *name, const char *text, size_t len, char *why,
                     size_t why_size) MUST_USE;
/* Expands ${…}, checks keys against each other and freezes the strings. Once. */
err config_validate(struct config *cfg, char *why, size_t why_size) MUST_USE;
/* wal.path=none. */
bool config_wal_in_memory(const struct config *cfg);
/* Where wal.size is at its default: no more than a tenth of the file system that wal.path is or
 * will be on, and at least what the segments need. After config_validate; a node does it before it
 * starts, and of what it reads again. May block. */
void config_fit_disk(struct config *cfg);
/* The same for a disk of so many bytes; 0: not known, nothing changes. */
void config_fit_log(struct config *cfg, u64 disk);

/* ---- reading ---- */
/* A number in the unit of the key's type; an enum's index; a list's bits; CONFIG_UNSET. */
static inline i64 config_i64(const struct config *cfg, enum config_key key)
{
    return __atomic_load_n(&cfg->values[key], __ATOMIC_RELAXED);
}
static inline u64 config_u64(const struct config *cfg, enum config_key key)
{
    return (u64)config_i64(cfg, key);
}
static inline bool config_bool(const struct config *cfg, enum config_key key)
{
    return config_i64(cfg, key) != 0;
}
/* The value of a STRING or PASSWORD key, or the name of an ENUM's choice; never NULL, valid as long
 * as cfg. A password goes nowhere but to where it is used. */
const char *config_str(const struct config *cfg, enum config_key key);
/* Is this ENUM key at `choice`, or does this LIST key hold it? `choice` must be one of its own:
 * config_is(cfg, CFG_net_advertise, "shard"). Not for the per-request path: keep config_i64. */
bool config_is(const struct config *cfg, enum config_key key, const char *choice);
static inline enum config_source config_source(const struct config *cfg, enum config_key key)
{
    return (enum config_source)__atomic_load_n(&cfg->sources[key], __ATOMIC_RELAXED);
}

/* ---- live changes, after config_validate, on any thread but a shard's ---- */
/* As config_set; ERR_POLICY_VIOLATION when the key needs a restart (the sentence says so).
 * Listeners run before it returns. */
err config_set_live(struct config *cfg, const char *name, const char *value, char *why,
                    size_t why_size) MUST_USE;
/* Goes back to the stored value, else to what command line, files or default say. */
err config_reset_live(struct config *cfg, const char *name, char *why, size_t why_size) MUST_USE;
/* A value that the metadata store keeps in `layer` (CONFIG_CLUSTER or CONFIG_STORED) takes effect;
 * value NULL: it is not kept any more. Both also end a live change of the key. */
err config_set_stored(struct config *cfg, enum config_source layer, const char *name,
                      const char *value, char *why, size_t why_size) MUST_USE;
/* What is stored in the layer; CONFIG_UNSET: nothing. Any thread. */
static inline i64 config_stored(const struct config *cfg, enum config_source layer,
                                enum config_key key)
{
    return __atomic_load_n(&cfg->stored_values[layer - CONFIG_CLUSTER][key], __ATOMIC_RELAXED);
}
/* Would config_set_live accept it? Changes nothing and takes no lock: any thread. */
err config_check(const struct config *cfg, const char *name, const char *value, char *why,
                 size_t why_size) MUST_USE;

/* `fresh` (validated) is what command line and files say now. All or nothing: ERR_INVALID_CONFIG
 * when the running values would not agree with each other. For each key whose running value
 * differs from `fresh`, or did, `told` runs once:
 *   CHANGED  the files say something else than at the last reading: that holds now, also over a
 *            live change
 *   KEPT     a live change, and the files say what they said; or a stored change, always
 *   RESTART  the files differ, but the key is read at start only */
enum config_reloaded { CONFIG_RELOAD_CHANGED, CONFIG_RELOAD_KEPT, CONFIG_RELOAD_RESTART };
typedef void (*config_reloaded_fn)(void *arg, enum config_key key, enum config_reloaded what);
err config_reload(struct config *cfg, const struct config *fresh, config_reloaded_fn told,
                  void *arg, char *why, size_t why_size) MUST_USE;
/* Before other threads run. */
void config_listen(struct config *cfg, config_changed_fn fn, void *arg);

/* ---- names and texts ---- */
/* By either name; CFG_COUNT when there is none. */
enum config_key config_find(const char *name);
/* The known key nearest to a misspelt one (edit distance); NULL when nothing is near. */
const char *config_nearest(const char *name);
/* The name Kafka clients see. */
const char *config_kafka_name(enum config_key key);
/* The value as text, plain (numbers in the key's unit, no suffix: Kafka's form) or with units
 * (human). Returns buf, or the string itself for string keys; "" when not set. A password that is
 * set reads as CONFIG_HIDDEN. */
const char *config_text(const struct config *cfg, enum config_key key, bool human, char *buf,
                        size_t size);
/* Who gives the key a value, strongest first: live or stored change of the broker, stored one of
 * the cluster, command line or files, default. Values that are "not set" are left out, so it may be
 * none. Returns how many. */
struct config_synonym {
    i8 source;         /* Kafka's code */
    const char *value; /* buf, or owned by cfg or the table */
    char buf[CONFIG_VALUE_SIZE];
};
#define CONFIG_SYNONYMS_MAX 4u
u32 config_synonyms(const struct config *cfg, enum config_key key,
                    struct config_synonym out[CONFIG_SYNONYMS_MAX]);
/* The default in the plain form; as config_text. */
const char *config_default_text(enum config_key key, char *buf, size_t size);
const char *config_source_name(enum config_source s); /* "default", "file", … */
const char *config_type_name(enum config_type t);     /* "bool", "size", "duration (ms)", … */
/* Codes of DescribeConfigs: ConfigType (1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double,
 * 7 list, 9 password) and ConfigSource (2 dynamic broker, 3 dynamic default, 4 static broker,
 * 5 default). */
i8 config_kafka_type(enum config_key key);
i8 config_kafka_source(enum config_source s);
/* Parses one value by a definition; what topic_config shares with this file. */
err config_parse(const struct config_def *def, const char *text, i64 *out, char *why,
                 size_t why_size) MUST_USE;
/* Formats a stored value by a definition. */
const char *config_format(const struct config_def *def, i64 value, bool human, char *buf,
                          size_t size);
/* Splits "host:port", "[v6]:port" or ":port" (host "" then); false when it is none of these. */
bool config_split_address(const char *text, char *host, size_t host_size, u16 *port);
/* The reference page (Markdown) and the key list of --help. */
void config_print_reference(FILE *out);
void config_print_help(FILE *out);

#endif
