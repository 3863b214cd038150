/* Topic configs. See topic_config.h.
 *
 * Stored form (little-endian): u8 version = 1, u16 count, then for each override u16 name length,
 * name, u16 value length, value. Names, not numbers, so that rows may come and go.
 *
 * Invariants: overrides[i] is in normal form (numbers without blanks, list items joined by one
 * comma) and parses; values[i] is its value, or the default that the broker's keys give.
 */
#include "topic_config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "check.h"
#include "config_int.h"
#include "log.h"
#include "mem.h"

#define STORED_VERSION 1u

struct topic_row {
    struct config_def def;
    enum config_key server; /* CFG_COUNT: none */
    bool visible;
};

#define CFG_NONE CFG_COUNT
static const struct topic_row rows[TC_COUNT] = {
#define TOPIC(id, name, type, def, min, max, choices, server, visible, help)                   \
    [TC_##id] = { { name, NULL, CONFIG_##type, def, min, max, choices, CONFIG_DYNAMIC, help }, \
                  CFG_##server,                                                                \
                  visible },
#include "topic_config.def"
#undef TOPIC
};
#undef CFG_NONE

/* Keys that stand in for another one that is not set, and how to convert them. */
struct fallback {
    enum config_key key, next;
};
static const struct fallback fallbacks[] = {
    { CFG_log_retention_ms, CFG_log_retention_minutes },
    { CFG_log_retention_minutes, CFG_log_retention_hours },
    { CFG_log_roll_ms, CFG_log_roll_hours },
    { CFG_log_roll_jitter_ms, CFG_log_roll_jitter_hours },
    { CFG_log_flush_interval_ms, CFG_log_flush_scheduler_interval_ms },
};

static enum config_key fallback_of(enum config_key key)
{
    for (size_t i = 0; i < ARRAY_COUNT(fallbacks); i++)
        if (fallbacks[i].key == key)
            return fallbacks[i].next;
    return CFG_COUNT;
}

static i64 to_ms(enum config_type type, i64 v)
{
    i64 factor = type == CONFIG_MIN ? 60000 : type == CONFIG_HOURS ? 3600000 : 1;
    if (v < 0)
        return -1;
    return __builtin_mul_overflow(v, factor, &v) ? INT64_MAX : v;
}

/* The value the broker gives a row that the topic does not override. */
static i64 default_value(const struct config *cfg, const struct topic_row *row)
{
    i64 v = CONFIG_UNSET;
    enum config_key k = row->server;
    for (; k != CFG_COUNT && v == CONFIG_UNSET; k = fallback_of(k)) {
        v = config_i64(cfg, k);
        enum config_type t = config_defs[k].type;
        if (v != CONFIG_UNSET && (t == CONFIG_MIN || t == CONFIG_HOURS))
            v = to_ms(t, v);
    }
    if (v == CONFIG_UNSET && row->def.type != CONFIG_STRING)
        CHECK(config_parse(&row->def, row->def.def, &v, NULL, 0) == ERR_NONE);
    return row->def.type == CONFIG_STRING ? 0 : v;
}

/* ---- life ---- */

void topic_config_refresh(struct topic_config *tc, const struct config *cfg)
{
    for (u32 i = 0; i < TC_COUNT; i++)
        if (!tc->overrides[i])
            tc->values[i] = default_value(cfg, &rows[i]);
}

bool topic_config_follows(const struct topic_config *tc, const struct config *cfg)
{
    for (u32 i = 0; i < TC_COUNT; i++)
        if (!tc->overrides[i] && tc->values[i] != default_value(cfg, &rows[i]))
            return false;
    return true;
}

bool topic_config_uses(enum config_key key)
{
    for (u32 i = 0; i < TC_COUNT; i++)
        for (enum config_key k = rows[i].server; k != CFG_COUNT; k = fallback_of(k))
            if (k == key)
                return true;
    return false;
}

void topic_config_init(struct topic_config *tc, const struct config *cfg)
{
    memset(tc, 0, sizeof *tc);
    topic_config_refresh(tc, cfg);
}

void topic_config_free(struct topic_config *tc)
{
    for (u32 i = 0; i < TC_COUNT; i++) {
        mem_free(tc->overrides[i]);
        tc->overrides[i] = NULL;
    }
}

void topic_config_copy(struct topic_config *to, const struct topic_config *from)
{
    memcpy(to, from, sizeof *to);
    for (u32 i = 0; i < TC_COUNT; i++)
        if (from->overrides[i])
            to->overrides[i] = mem_strndup(bytes_str(from->overrides[i]));
}

void topic_config_clear(struct topic_config *tc, const struct config *cfg)
{
    topic_config_free(tc);
    topic_config_refresh(tc, cfg);
}

/* ---- one value ---- */

static bool blank(u8 c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct bytes trim(struct bytes b)
{
    while (b.len > 0 && blank(b.data[0])) {
        b.data++;
        b.len--;
    }
    while (b.len > 0 && blank(b.data[b.len - 1]))
        b.len--;
    return b;
}

/* Takes the next comma-separated item off *rest, trimmed; false at the end. */
static bool next_item(struct bytes *rest, struct bytes *item)
{
    if (!rest->data)
        return false;
    const u8 *comma = rest->len ? memchr(rest->data, ',', rest->len) : NULL;
    if (comma) {
        u32 n = (u32)(comma - rest->data);
        *item = trim(bytes_of(rest->data, n));
        *rest = bytes_of(comma + 1, rest->len - n - 1);
    } else {
        *item = trim(*rest);
        rest->data = NULL;
    }
    return true;
}

static err refuse(const struct topic_row *row, const char *text, char *why, size_t why_size,
                  const char *rule)
{
    config_why(why, why_size, "Invalid value %.200s for configuration %s: %s", text, row->def.name,
               rule);
    return ERR_INVALID_CONFIG;
}

/* "*", or "partition:broker" items. */
static bool throttled_ok(const char *text)
{
    if (*text == '\0' || strcmp(text, "*") == 0)
        return true;
    struct bytes rest = bytes_str(text), item;
    while (next_item(&rest, &item)) {
        u32 digits = 0, colons = 0;
        for (u32 i = 0; i < item.len; i++) {
            if (item.data[i] == ':' && digits > 0 && colons == 0) {
                colons = 1;
                digits = 0;
            } else if (item.data[i] >= '0' && item.data[i] <= '9') {
                digits++;
            } else {
                return false;
            }
        }
        if (colons != 1 || digits == 0)
            return false;
    }
    return true;
}

static err refuse_range(const struct topic_row *row, const char *text, i64 v, char *why,
                        size_t why_size)
{
    const struct config_def *d = &row->def;
    char rule[128];
    if (d == &rows[TC_compression_gzip_level].def)
        snprintf(rule, sizeof rule, "Value must be between 1 and 9 or equal to -1");
    else if (d->type == CONFIG_RATIO || (d->max != INT32_MAX && d->max != INT64_MAX))
        snprintf(rule, sizeof rule, "Value must be between %" PRId64 " and %" PRId64,
                 d->type == CONFIG_RATIO ? 0 : d->min, d->type == CONFIG_RATIO ? 1 : d->max);
    else if (v < d->min)
        snprintf(rule, sizeof rule, "Value must be at least %" PRId64, d->min);
    else
        snprintf(rule, sizeof rule, "Not a number of type INT");
    return refuse(row, text, why, why_size, rule);
}

/* Why config_parse refused a text, in the words Kafka's clients know. */
static err explain(const struct topic_row *row, const char *text, char *why, size_t why_size)
{
    struct config_def wide = row->def;
    i64 v;
    char rule[256];
    if (wide.type == CONFIG_BOOL)
        return refuse(row, text, why, why_size, "Expected value to be either true or false");
    if (wide.choices) {
        u32 used = (u32)snprintf(rule, sizeof rule, "String must be one of: ");
        for (const char *p = wide.choices; *p && used + 3 < sizeof rule; p++) {
            if (*p == '|')
                rule[used++] = ',';
            rule[used++] = *p == '|' ? ' ' : *p;
        }
        rule[used] = '\0';
        return refuse(row, text, why, why_size, rule);
    }
    wide.min = INT64_MIN;
    wide.max = INT64_MAX;
    if (*text && config_parse(&wide, text, &v, NULL, 0) == ERR_NONE)
        return refuse_range(row, text, v, why, why_size);
    snprintf(rule, sizeof rule, "Not a number of type %s",
             wide.type == CONFIG_RATIO   ? "DOUBLE"
             : row->def.max <= INT32_MAX ? "INT"
                                         : "LONG");
    return refuse(row, text, why, why_size, rule);
}

static bool bool_ok(const char *text)
{
    return strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0;
}

/* Parses the trimmed text of a row; rewrites it to its normal form where that is not the text. */
static err parse_value(const struct topic_row *row, char **text, i64 *v, char *why, size_t why_size)
{
    const struct config_def *d = &row->def;
    *v = 0;
    if (d->type == CONFIG_STRING)
        return throttled_ok(*text)
                   ? ERR_NONE
                   : refuse(row, *text, why, why_size, "it must be * or PARTITION:BROKER,…");
    if (d->type == CONFIG_BOOL && !bool_ok(*text))
        return explain(row, *text, why, why_size);
    if ((**text == '\0' && d->type != CONFIG_LIST) ||
        config_parse(d, *text, v, NULL, 0) != ERR_NONE)
        return explain(row, *text, why, why_size);
    if (d == &rows[TC_compression_gzip_level].def && *v == 0)
        return refuse_range(row, *text, *v, why, why_size);
    if (d->type == CONFIG_LIST || d->type == CONFIG_ENUM)
        return ERR_NONE;
    char buf[CONFIG_VALUE_SIZE];
    config_format(d, *v, false, buf, sizeof buf);
    mem_free(*text);
    *text = mem_strndup(bytes_str(buf));
    return ERR_NONE;
}

static bool list_has(struct bytes list, struct bytes wanted)
{
    struct bytes item;
    while (next_item(&list, &item))
        if (bytes_eq(item, wanted))
            return true;
    return false;
}

/* "a , b,a" → "a,b"; other types only lose the blanks around. The caller frees it. */
static char *normal_text(const struct topic_row *row, struct bytes value)
{
    value = trim(value);
    if (row->def.type != CONFIG_LIST || value.len == 0)
        return mem_strndup(value);
    char *out = mem_alloc((size_t)value.len + 1);
    size_t used = 0;
    struct bytes rest = value, item;
    for (u32 items = 0; next_item(&rest, &item); items++) {
        bool again = items > 0 && list_has(bytes_of((const u8 *)out, (u32)used), item);
        if (again)
            continue;
        if (items > 0)
            out[used++] = ',';
        memcpy(out + used, item.data, item.len);
        used += item.len;
    }
    out[used] = '\0';
    return out;
}

static err set_override(struct topic_config *tc, enum topic_config_id id, struct bytes value,
                        char *why, size_t why_size)
{
    const struct topic_row *row = &rows[id];
    if (value.len > TOPIC_VALUE_MAX || (value.len && memchr(value.data, '\0', value.len)))
        return refuse(row, "", why, why_size, "too long or not text");
    char *text = normal_text(row, value);
    i64 v;
    err e = parse_value(row, &text, &v, why, why_size);
    if (e) {
        mem_free(text);
        return e;
    }
    mem_free(tc->overrides[id]);
    tc->overrides[id] = text;
    tc->values[id] = v;
    return ERR_NONE;
}

static void drop_override(struct topic_config *tc, const struct config *cfg,
                          enum topic_config_id id)
{
    mem_free(tc->overrides[id]);
    tc->overrides[id] = NULL;
    tc->values[id] = default_value(cfg, &rows[id]);
}

static err find_or_why(struct bytes name, enum topic_config_id *id, char *why, size_t why_size)
{
    *id = topic_config_find(name);
    if (*id != TC_COUNT)
        return ERR_NONE;
    config_why(why, why_size, "Unknown topic config name: %.*s", (int)MIN(name.len, 200),
               name.data ? (const char *)name.data : "");
    return ERR_INVALID_CONFIG;
}

err topic_config_set(struct topic_config *tc, const struct config *cfg, struct bytes name,
                     struct bytes value, char *why, size_t why_size)
{
    enum topic_config_id id;
    err e = find_or_why(name, &id, why, why_size);
    if (e)
        return e;
    if (value.data)
        return set_override(tc, id, value, why, why_size);
    drop_override(tc, cfg, id);
    return ERR_NONE;
}

/* Adds to out the items of `list` that are not in `without`. */
static void list_add(char *out, size_t *used, struct bytes list, struct bytes without)
{
    struct bytes item;
    while (next_item(&list, &item)) {
        if (item.len == 0 || list_has(without, item))
            continue;
        if (*used > 0)
            out[(*used)++] = ',';
        memcpy(out + *used, item.data, item.len);
        *used += item.len;
    }
}

static bool is_list(enum topic_config_id id)
{
    return rows[id].def.type == CONFIG_LIST || rows[id].def.type == CONFIG_STRING;
}

/* APPEND and SUBTRACT work on the override, or on Kafka's default when there is none. */
static err alter_list(struct topic_config *tc, enum topic_config_id id, bool append,
                      struct bytes value, char *why, size_t why_size)
{
    const char *now = tc->overrides[id] ? tc->overrides[id] : rows[id].def.def;
    struct bytes old = bytes_str(now);
    char *out = mem_alloc((size_t)old.len + value.len + 2);
    size_t used = 0;
    list_add(out, &used, old, append ? (struct bytes){ NULL, 0 } : value);
    if (append)
        list_add(out, &used, value, old);
    err e = set_override(tc, id, bytes_of(out, (u32)used), why, why_size);
    mem_free(out);
    return e;
}

err topic_config_alter(struct topic_config *tc, const struct config *cfg, enum topic_config_op op,
                       struct bytes name, struct bytes value, char *why, size_t why_size)
{
    enum topic_config_id id;
    err e = find_or_why(name, &id, why, why_size);
    if (e)
        return e;
    if (op != TOPIC_OP_DELETE && !value.data) {
        config_why(why, why_size, "Null value not supported for : %s", rows[id].def.name);
        return ERR_INVALID_REQUEST;
    }
    switch (op) {
    case TOPIC_OP_SET:
        return set_override(tc, id, value, why, why_size);
    case TOPIC_OP_DELETE:
        drop_override(tc, cfg, id);
        return ERR_NONE;
    case TOPIC_OP_APPEND:
    case TOPIC_OP_SUBTRACT:
        break;
    default: /* a code from the wire */
        config_why(why, why_size, "Unknown operation %d for %s", (int)op, rows[id].def.name);
        return ERR_INVALID_REQUEST;
    }
    if (!is_list(id)) {
        config_why(why, why_size, "Can't %s to key %s because its type is not LIST.",
                   op == TOPIC_OP_APPEND ? "APPEND" : "SUBTRACT", rows[id].def.name);
        return ERR_INVALID_CONFIG;
    }
    if (value.len > TOPIC_VALUE_MAX)
        return refuse(&rows[id], "", why, why_size, "too long");
    return alter_list(tc, id, op == TOPIC_OP_APPEND, value, why, why_size);
}

/* Kafka's rules for topics with tiered storage: what is kept locally is a part of what is kept.
 * -1 has no limit, a local -2 is as much as the whole. */
static bool tier_agrees(const struct topic_config *tc, enum topic_config_id whole,
                        enum topic_config_id local, char *why, size_t why_size)
{
    i64 w = tc->values[whole], l = tc->values[local];
    if (tc->remote_log_copy_disable && l != -2 && l != w)
        config_why(
            why, why_size,
            "When remote.log.copy.disable is set to true, %s and %s must have the same value",
            rows[local].def.name, rows[whole].def.name);
    else if (w >= 0 && l == -1)
        config_why(why, why_size,
                   "Invalid value -1 for configuration %s: Value must not be -1 as %s value is set "
                   "as %" PRId64,
                   rows[local].def.name, rows[whole].def.name, w);
    else if (w >= 0 && l > w)
        config_why(why, why_size,
                   "Invalid value %" PRId64
                   " for configuration %s: Value must not be more than %s property value: %" PRId64,
                   l, rows[local].def.name, rows[whole].def.name, w);
    else
        return true;
    return false;
}

static bool tiers_agree(const struct topic_config *tc, char *why, size_t why_size)
{
    return tier_agrees(tc, TC_retention_ms, TC_local_retention_ms, why, why_size) &&
           tier_agrees(tc, TC_retention_bytes, TC_local_retention_bytes, why, why_size);
}

err topic_config_check(const struct topic_config *tc, const struct config *cfg, char *why,
                       size_t why_size)
{
    if (tc->min_compaction_lag_ms > tc->max_compaction_lag_ms) {
        config_why(why, why_size,
                   "conflict topic config setting min.compaction.lag.ms (%" PRId64
                   ") > max.compaction.lag.ms (%" PRId64 ")",
                   tc->min_compaction_lag_ms, tc->max_compaction_lag_ms);
        return ERR_INVALID_CONFIG;
    }
    if (tc->remote_storage_enable && !tiers_agree(tc, why, why_size))
        return ERR_INVALID_CONFIG;
    if (tc->durability == DURABILITY_REPLICATED) {
        config_why(why, why_size,
                   "leat.durability: only local and object are available on this node");
        return ERR_INVALID_CONFIG;
    }
    if (tc->durability == DURABILITY_LOCAL && config_wal_in_memory(cfg)) {
        config_why(why, why_size,
                   "leat.durability: only object is available on this node, whose log is in memory "
                   "(wal.path = none)");
        return ERR_INVALID_CONFIG;
    }
    return ERR_NONE;
}

/* ---- describing ---- */

enum topic_config_id topic_config_find(struct bytes name)
{
    for (u32 i = 0; i < TC_COUNT; i++)
        if (bytes_eq_str(name, rows[i].def.name))
            return (enum topic_config_id)i;
    return TC_COUNT;
}

const char *topic_config_name(enum topic_config_id id)
{
    return rows[id].def.name;
}

const char *topic_config_help(enum topic_config_id id)
{
    return rows[id].def.help;
}

bool topic_config_visible(enum topic_config_id id)
{
    return rows[id].visible;
}

i8 topic_config_kafka_type(enum topic_config_id id)
{
    switch ((int)rows[id].def.type) {
    case CONFIG_BOOL:
        return 1;
    case CONFIG_ENUM:
        return 2;
    case CONFIG_RATIO:
        return 6;
    case CONFIG_LIST:
    case CONFIG_STRING: /* the throttled replicas */
        return 7;
    default:
        return rows[id].def.max <= INT32_MAX ? 3 : 5;
    }
}

const char *topic_config_text(const struct topic_config *tc, enum topic_config_id id, char *buf,
                              size_t size)
{
    if (tc->overrides[id])
        return tc->overrides[id];
    if (rows[id].def.type == CONFIG_STRING)
        return rows[id].def.def;
    return config_format(&rows[id].def, tc->values[id], false, buf, size);
}

u32 topic_config_synonyms(const struct topic_config *tc, const struct config *cfg,
                          enum topic_config_id id,
                          struct topic_config_synonym out[TOPIC_SYNONYMS_MAX])
{
    u32 n = 0;
    const struct topic_row *row = &rows[id];
    if (tc->overrides[id])
        out[n++] = (struct topic_config_synonym){ row->def.name,
                                                  { .source = 1, .value = tc->overrides[id] } };
    for (enum config_key k = row->server; k != CFG_COUNT; k = fallback_of(k)) {
        struct config_synonym of_key[CONFIG_SYNONYMS_MAX];
        u32 count = config_synonyms(cfg, k, of_key);
        for (u32 i = 0; i < count; i++) {
            CHECK(n < TOPIC_SYNONYMS_MAX);
            out[n].name = config_kafka_name(k);
            out[n].of = of_key[i];
            if (of_key[i].value == of_key[i].buf)
                out[n].of.value = out[n].of.buf;
            n++;
        }
    }
    return n;
}

i8 topic_config_source(const struct topic_config *tc, const struct config *cfg,
                       enum topic_config_id id)
{
    struct topic_config_synonym synonyms[TOPIC_SYNONYMS_MAX];
    return topic_config_synonyms(tc, cfg, id, synonyms) ? synonyms[0].of.source : 5;
}

static const char *kafka_type_name(i8 type)
{
    static const char *const names[] = { "",      "boolean", "string", "int",
                                         "short", "long",    "double", "list" };
    CHECK(type > 0 && (size_t)type < ARRAY_COUNT(names));
    return names[type];
}

void topic_config_print_reference(FILE *out)
{
    fputs("\n## Topic configs\n\nSet on topics by Kafka's own tools, in Kafka's exact syntax (no "
          "units). A "
          "topic that does not\nset one follows the broker's key.\n\n"
          "| Config | Type | Default | Broker's key | Meaning |\n|---|---|---|---|---|\n",
          out);
    for (u32 i = 0; i < TC_COUNT; i++) {
        const struct topic_row *row = &rows[i];
        if (!row->visible)
            continue;
        bool linked = row->server != CFG_COUNT;
        fprintf(out, "| `%s` | %s | `%s` | %s%s%s | %s |\n", row->def.name,
                kafka_type_name(topic_config_kafka_type((enum topic_config_id)i)),
                *row->def.def ? row->def.def : "(empty)", linked ? "`" : "",
                linked ? config_kafka_name(row->server) : "", linked ? "`" : "", row->def.help);
    }
}

/* ---- storing ---- */

size_t topic_config_size(const struct topic_config *tc)
{
    size_t size = 3;
    for (u32 i = 0; i < TC_COUNT; i++)
        if (tc->overrides[i])
            size += 4 + strlen(rows[i].def.name) + strlen(tc->overrides[i]);
    return size;
}

static u8 *write_text(u8 *p, const char *s)
{
    size_t len = strlen(s);
    put_le16(p, (u16)len);
    memcpy(p + 2, s, len);
    return p + 2 + len;
}

void topic_config_write(const struct topic_config *tc, u8 *out)
{
    u8 *p = out + 3;
    u16 count = 0;
    for (u32 i = 0; i < TC_COUNT; i++) {
        if (!tc->overrides[i])
            continue;
        p = write_text(p, rows[i].def.name);
        p = write_text(p, tc->overrides[i]);
        count++;
    }
    out[0] = STORED_VERSION;
    put_le16(out + 1, count);
    CHECK((size_t)(p - out) == topic_config_size(tc));
}

static bool read_text(struct bytes *from, struct bytes *out)
{
    if (from->len < 2)
        return false;
    u32 len = get_le16(from->data);
    if (len > from->len - 2)
        return false;
    *out = bytes_of(from->data + 2, len);
    *from = bytes_of(from->data + 2 + len, from->len - 2 - len);
    return true;
}

err topic_config_read(struct topic_config *tc, const struct config *cfg, struct bytes from)
{
    topic_config_init(tc, cfg);
    if (from.len < 3 || from.data[0] != STORED_VERSION)
        return ERR_CORRUPT;
    u32 count = get_le16(from.data + 1);
    from = bytes_of(from.data + 3, from.len - 3);
    for (u32 i = 0; i < count; i++) {
        struct bytes name, value;
        if (!read_text(&from, &name) || !read_text(&from, &value)) {
            topic_config_clear(tc, cfg);
            return ERR_CORRUPT;
        }
        char why[256], quoted[300];
        if (topic_config_set(tc, cfg, name, value, why, sizeof why))
            LOG(WARN, topic_config_skipped, "why=%s",
                log_quote(quoted, sizeof quoted, bytes_str(why)));
    }
    if (from.len == 0)
        return ERR_NONE;
    topic_config_clear(tc, cfg);
    return ERR_CORRUPT;
}
