/* The values of one node's configuration. See config.h for grammar, precedence and threads.
 *
 * Invariants
 *  1. values[k] of a key that is not a string is always within its definition's range; strings[k]
 *     of a string key is never NULL and never changes once `frozen`; of an enum it holds the
 *     names of its choices from the start.
 *  2. A source never overrides a stronger one: `-w` given before a file is read still wins.
 *  3. After config_validate the values agree with each other (config_agrees); a live change that
 *     would break that is refused and changes nothing (config_live.c).
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "config_int.h"
#include "mem.h"

const struct config_def config_defs[CFG_COUNT] = {
#define KEY(id, name, kafka, type, def, min, max, change, help) \
    [CFG_##id] = { name, kafka, CONFIG_##type, def, min, max, NULL, CONFIG_##change, help },
#define KEY_CHOICE(id, name, kafka, type, def, choices, change, help) \
    [CFG_##id] = { name, kafka, CONFIG_##type, def, 0, 0, choices, CONFIG_##change, help },
#include "config.def"
#undef KEY
#undef KEY_CHOICE
};

/* ---- names ---- */

enum config_key config_find(const char *name)
{
    for (u32 k = 0; k < CFG_COUNT; k++) {
        const struct config_def *d = &config_defs[k];
        if (strcmp(d->name, name) == 0 || (d->kafka && strcmp(d->kafka, name) == 0))
            return (enum config_key)k;
    }
    return CFG_COUNT;
}

#define NAME_MAX_LEN 64

/* Edit distance; names longer than NAME_MAX_LEN are infinitely far. */
static u32 edit_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la > NAME_MAX_LEN || lb > NAME_MAX_LEN)
        return UINT32_MAX;
    u32 row[NAME_MAX_LEN + 1];
    for (u32 j = 0; j <= lb; j++)
        row[j] = j;
    for (u32 i = 1; i <= la; i++) {
        u32 diagonal = row[0];
        row[0] = i;
        for (u32 j = 1; j <= lb; j++) {
            u32 best = MIN(row[j], row[j - 1]) + 1;
            best = MIN(best, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[lb];
}

const char *config_nearest(const char *name)
{
    const char *best = NULL;
    /* Further than this, a hint misleads more than it helps. */
    u32 best_distance = (u32)MIN(strlen(name) / 3 + 1, 8) + 1;
    for (u32 k = 0; k < CFG_COUNT; k++) {
        const char *names[2] = { config_defs[k].name, config_defs[k].kafka };
        for (u32 i = 0; i < 2 && names[i]; i++) {
            u32 d = edit_distance(name, names[i]);
            if (d < best_distance) {
                best_distance = d;
                best = names[i];
            }
        }
    }
    return best;
}

err config_find_or_why(const char *name, enum config_key *key, char *why, size_t why_size)
{
    *key = config_find(name);
    if (*key != CFG_COUNT)
        return ERR_NONE;
    const char *near = config_nearest(name);
    if (near)
        config_why(why, why_size, "unknown key \"%.100s\"; the nearest is %s", name, near);
    else
        config_why(why, why_size, "unknown key \"%.100s\"; leatctl -a lists all", name);
    return ERR_NOT_FOUND;
}

/* ---- life ---- */

void config_store(struct config *cfg, enum config_key k, i64 v, enum config_source source)
{
    __atomic_store_n(&cfg->values[k], v, __ATOMIC_RELAXED);
    __atomic_store_n(&cfg->sources[k], (u8)source, __ATOMIC_RELAXED);
}

static void store_base(struct config *cfg, enum config_key k, i64 v, enum config_source source)
{
    config_store(cfg, k, v, source);
    cfg->base_values[k] = v;
    cfg->base_sources[k] = (u8)source;
}

void config_store_default(struct config *cfg, enum config_key k, i64 v)
{
    store_base(cfg, k, v, CONFIG_DEFAULT);
}

static void store_string(struct config *cfg, enum config_key k, const char *v)
{
    char *copy = mem_strndup(bytes_str(v));
    mem_free(cfg->strings[k]);
    cfg->strings[k] = copy;
}

/* A copy of "a|b|c" cut at each |, so that config_str can give out any of its names. */
static void store_choices(struct config *cfg, enum config_key k, const char *choices)
{
    store_string(cfg, k, choices);
    for (char *p = cfg->strings[k]; (p = strchr(p, '|')); p++)
        *p = '\0';
}

void config_init(struct config *cfg)
{
    memset(cfg, 0, sizeof *cfg);
    MAGIC_INIT(cfg, CONFIG_MAGIC);
    pthread_mutex_init(&cfg->change_lock, NULL);
    for (u32 k = 0; k < CFG_COUNT; k++) {
        const struct config_def *d = &config_defs[k];
        i64 v = 0;
        if (!config_is_number(d->type))
            store_string(cfg, (enum config_key)k, d->def);
        else if (d->type == CONFIG_ENUM)
            store_choices(cfg, (enum config_key)k, d->choices);
        if (config_is_number(d->type))
            CHECK(config_parse(d, d->def, &v, NULL, 0) == ERR_NONE);
        store_base(cfg, (enum config_key)k, v, CONFIG_DEFAULT);
        for (u32 layer = 0; layer < CONFIG_STORED_LAYERS; layer++)
            cfg->stored_values[layer][k] = CONFIG_UNSET;
    }
}

void config_free(struct config *cfg)
{
    MAGIC_CHECK(cfg, CONFIG_MAGIC);
    for (u32 k = 0; k < CFG_COUNT; k++)
        mem_free(cfg->strings[k]);
    pthread_mutex_destroy(&cfg->change_lock);
    MAGIC_POISON(cfg);
}

/* ---- filling ---- */

static err check_string(const struct config_def *d, const char *value, char *why, size_t why_size)
{
    for (const char *p = value; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 127) {
            config_why(why, why_size, "%s: control characters are not allowed", d->name);
            return ERR_INVALID_CONFIG;
        }
    }
    return ERR_NONE;
}

err config_set(struct config *cfg, const char *name, const char *value, enum config_source source,
               char *why, size_t why_size)
{
    MAGIC_CHECK(cfg, CONFIG_MAGIC);
    CHECK(!cfg->frozen);
    enum config_key k;
    err e = config_find_or_why(name, &k, why, why_size);
    if (e)
        return e;
    const struct config_def *d = &config_defs[k];
    i64 v = 0;
    if (!config_is_number(d->type))
        e = check_string(d, value, why, why_size);
    else
        e = config_parse(d, value, &v, why, why_size);
    if (e || source < config_source(cfg, k))
        return e; /* refused, or a stronger source has spoken */
    if (!config_is_number(d->type))
        store_string(cfg, k, value);
    store_base(cfg, k, v, source);
    return ERR_NONE;
}

/* ---- agreement between keys ---- */

struct order_rule { /* the first must not be above the second */
    enum config_key low, high;
};

static const struct order_rule order_rules[] = {
    { CFG_group_min_session_timeout_ms, CFG_group_max_session_timeout_ms },
    { CFG_log_cleaner_min_compaction_lag_ms, CFG_log_cleaner_max_compaction_lag_ms },
    { CFG_net_max_request_bytes, CFG_net_request_memory },
    { CFG_message_max_bytes, CFG_net_max_request_bytes },
    { CFG_message_max_bytes, CFG_wal_segment_bytes },
    { CFG_wal_max_write_bytes, CFG_wal_segment_bytes },
    { CFG_wal_segment_bytes, CFG_memory_budget },
};

/* One segment open, one sealed and on its way out, one trimmed late, and the recovery's slack. */
#define LOG_SEGMENTS_MIN 4

i64 config_log_least(const struct config *cfg)
{
    return LOG_SEGMENTS_MIN * config_i64(cfg, CFG_wal_segment_bytes);
}

err config_agrees(const struct config *cfg, char *why, size_t why_size)
{
    for (size_t i = 0; i < ARRAY_COUNT(order_rules); i++) {
        enum config_key low = order_rules[i].low, high = order_rules[i].high;
        if (config_i64(cfg, low) <= config_i64(cfg, high))
            continue;
        char a[CONFIG_VALUE_SIZE], b[CONFIG_VALUE_SIZE];
        config_why(why, why_size, "%s (%s) must not be above %s (%s)", config_defs[low].name,
                   config_text(cfg, low, true, a, sizeof a), config_defs[high].name,
                   config_text(cfg, high, true, b, sizeof b));
        return ERR_INVALID_CONFIG;
    }
    if (config_i64(cfg, CFG_wal_size) < config_log_least(cfg)) {
        config_why(why, why_size, "wal.size must hold at least %d segments of wal.segment_bytes",
                   LOG_SEGMENTS_MIN);
        return ERR_INVALID_CONFIG;
    }
    if (config_wal_in_memory(cfg) && !config_is(cfg, CFG_leat_durability, "object")) {
        config_why(why, why_size,
                   "wal.path = none needs leat.durability = object: a log in memory "
                   "makes nothing durable by itself");
        return ERR_INVALID_CONFIG;
    }
    i64 buffers = config_i64(cfg, CFG_net_recv_buffers);
    if (buffers & (buffers - 1)) {
        config_why(why, why_size, "net.recv_buffers (%" PRId64 ") must be a power of two", buffers);
        return ERR_INVALID_CONFIG;
    }
    return ERR_NONE;
}

bool config_wal_in_memory(const struct config *cfg)
{
    return strcmp(cfg->strings[CFG_wal_path], "none") == 0;
}

static err check_address(const struct config *cfg, enum config_key k, char *why, size_t why_size)
{
    char host[256];
    u16 port;
    const char *text = cfg->strings[k];
    bool optional = k != CFG_net_listen;
    if ((optional && *text == '\0') || config_split_address(text, host, sizeof host, &port))
        return ERR_NONE;
    config_why(why, why_size, "%s: \"%.100s\" is not HOST:PORT", config_defs[k].name, text);
    return ERR_INVALID_CONFIG;
}

#define STRING_MAX_LEN 4096

/* Replaces the first ${key} of a string. ERR_NOT_FOUND (without a why): there is none. */
static err expand_once(struct config *cfg, enum config_key k, char *why, size_t why_size)
{
    const char *s = cfg->strings[k];
    const char *open = strstr(s, "${");
    if (!open)
        return ERR_NOT_FOUND;
    const char *close = strchr(open, '}');
    char name[NAME_MAX_LEN + 1] = "";
    if (close && (size_t)(close - open - 2) < sizeof name)
        memcpy(name, open + 2, (size_t)(close - open - 2));
    enum config_key other = *name ? config_find(name) : CFG_COUNT;
    if (other == CFG_COUNT) {
        config_why(why, why_size, "%s: \"%.100s\" refers to no known key", config_defs[k].name, s);
        return ERR_INVALID_CONFIG;
    }
    char buf[CONFIG_VALUE_SIZE], out[STRING_MAX_LEN];
    int n = snprintf(out, sizeof out, "%.*s%s%s", (int)(open - s), s,
                     config_text(cfg, other, false, buf, sizeof buf), close + 1);
    if (n < 0 || (size_t)n >= sizeof out) {
        config_why(why, why_size, "%s: too long", config_defs[k].name);
        return ERR_INVALID_CONFIG;
    }
    store_string(cfg, k, out);
    return ERR_NONE;
}

static err expand(struct config *cfg, enum config_key k, char *why, size_t why_size)
{
    /* Kafka's listener syntax; the only protocol served is plain text. */
    static const char plain[] = "PLAINTEXT://";
    if (config_defs[k].kafka && strncmp(cfg->strings[k], plain, sizeof plain - 1) == 0)
        store_string(cfg, k, cfg->strings[k] + sizeof plain - 1);
    for (u32 depth = 0; depth < 16; depth++) {
        err e = expand_once(cfg, k, why, why_size);
        if (e)
            return e == ERR_NOT_FOUND ? ERR_NONE : e;
    }
    config_why(why, why_size, "%s: ${…} refers to itself", config_defs[k].name);
    return ERR_INVALID_CONFIG;
}

err config_validate(struct config *cfg, char *why, size_t why_size)
{
    MAGIC_CHECK(cfg, CONFIG_MAGIC);
    CHECK(!cfg->frozen);
    err e = ERR_NONE;
    for (u32 k = 0; k < CFG_COUNT && !e; k++)
        if (config_defs[k].type == CONFIG_STRING)
            e = expand(cfg, (enum config_key)k, why, why_size);
    if (!e)
        e = check_address(cfg, CFG_net_listen, why, why_size);
    if (!e)
        e = check_address(cfg, CFG_admin_listen, why, why_size);
    if (!e)
        e = config_agrees(cfg, why, why_size);
    if (!e && *cfg->strings[CFG_node_data_dir] == '\0') {
        config_why(why, why_size, "node.data_dir must not be empty");
        e = ERR_INVALID_CONFIG;
    }
    cfg->frozen = !e;
    return e;
}

/* ---- reading ---- */

const char *config_str(const struct config *cfg, enum config_key k)
{
    const struct config_def *d = &config_defs[k];
    if (!config_is_number(d->type))
        return cfg->strings[k];
    CHECK(d->type == CONFIG_ENUM);
    size_t len;
    const char *choice = config_choice(d->choices, (u32)config_i64(cfg, k), &len);
    return cfg->strings[k] + (choice - d->choices);
}

bool config_is(const struct config *cfg, enum config_key k, const char *choice)
{
    const struct config_def *d = &config_defs[k];
    CHECK(d->choices != NULL);
    i64 i = config_choice_find(d->choices, choice, strlen(choice));
    CHECK(i >= 0);
    i64 v = config_i64(cfg, k);
    return d->type == CONFIG_LIST ? (v >> i) & 1 : v == i;
}

const char *config_text(const struct config *cfg, enum config_key k, bool human, char *buf,
                        size_t size)
{
    if (config_defs[k].type == CONFIG_PASSWORD)
        return *cfg->strings[k] ? CONFIG_HIDDEN : "";
    if (config_defs[k].type == CONFIG_STRING)
        return cfg->strings[k];
    return config_format(&config_defs[k], config_i64(cfg, k), human, buf, size);
}
