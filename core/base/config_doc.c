/* The table of keys as text: names and codes for Kafka, --help, and the reference page. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "config_int.h"
#include "topic_config.h"

#define HELP_WIDTH 80
#define HELP_INDENT "      "

const char *config_kafka_name(enum config_key k)
{
    return config_defs[k].kafka ? config_defs[k].kafka : config_defs[k].name;
}

const char *config_source_name(enum config_source s)
{
    static const char *const names[] = { "default", "file",   "command line",
                                         "cluster", "stored", "live" };
    CHECK((size_t)s < ARRAY_COUNT(names));
    return names[s];
}

const char *config_type_name(enum config_type t)
{
    static const char *const names[] = {
        [CONFIG_BOOL] = "bool",          [CONFIG_INT] = "int",
        [CONFIG_SIZE] = "size",          [CONFIG_US] = "duration (us)",
        [CONFIG_MS] = "duration (ms)",   [CONFIG_SEC] = "duration (s)",
        [CONFIG_MIN] = "duration (min)", [CONFIG_HOURS] = "duration (h)",
        [CONFIG_RATIO] = "ratio",        [CONFIG_STRING] = "string",
        [CONFIG_PASSWORD] = "password",  [CONFIG_ENUM] = "one of",
        [CONFIG_LIST] = "list of",
    };
    CHECK((size_t)t < ARRAY_COUNT(names));
    return names[t];
}

i8 config_kafka_type(enum config_key k)
{
    const struct config_def *d = &config_defs[k];
    switch (d->type) {
    case CONFIG_BOOL:
        return 1;
    case CONFIG_STRING:
    case CONFIG_ENUM:
        return 2;
    case CONFIG_RATIO:
        return 6;
    case CONFIG_LIST:
        return 7;
    case CONFIG_PASSWORD:
        return 9;
    case CONFIG_INT:
    case CONFIG_SIZE:
    case CONFIG_US:
    case CONFIG_MS:
    case CONFIG_SEC:
    case CONFIG_MIN:
    case CONFIG_HOURS:
        break;
    }
    if (d->max == INT16_MAX)
        return 4;
    return d->max <= INT32_MAX ? 3 : 5;
}

i8 config_kafka_source(enum config_source s)
{
    static const i8 codes[] = { 5, 4, 4, 3, 2, 2 };
    return codes[s];
}

static void synonym_add(struct config_synonym *out, u32 *n, enum config_key k, i64 v, u8 source)
{
    struct config_synonym *s = &out[*n];
    if (v == CONFIG_UNSET)
        return;
    s->source = config_kafka_source((enum config_source)source);
    s->value = config_format(&config_defs[k], v, false, s->buf, sizeof s->buf);
    (*n)++;
}

static u32 string_synonyms(const struct config *cfg, enum config_key k, struct config_synonym *out)
{
    u32 n = 0;
    const char *text = config_text(cfg, k, false, NULL, 0); /* a password stays hidden */
    if (config_source(cfg, k) != CONFIG_DEFAULT && *text)
        out[n++] = (struct config_synonym){ .source = 4, .value = text };
    if (*config_defs[k].def)
        out[n++] = (struct config_synonym){ .source = 5, .value = config_defs[k].def };
    return n;
}

u32 config_synonyms(const struct config *cfg, enum config_key k,
                    struct config_synonym out[CONFIG_SYNONYMS_MAX])
{
    u32 n = 0;
    i64 def;
    if (!config_is_number(config_defs[k].type))
        return string_synonyms(cfg, k, out);
    enum config_source now = config_source(cfg, k);
    u8 base = __atomic_load_n(&cfg->base_sources[k], __ATOMIC_RELAXED);
    if (now >= CONFIG_STORED)
        synonym_add(out, &n, k, config_i64(cfg, k), now);
    synonym_add(out, &n, k, config_stored(cfg, CONFIG_CLUSTER, k), CONFIG_CLUSTER);
    i64 base_value = __atomic_load_n(&cfg->base_values[k], __ATOMIC_RELAXED);
    if (base != CONFIG_DEFAULT)
        synonym_add(out, &n, k, base_value, base);
    CHECK(config_parse(&config_defs[k], config_defs[k].def, &def, NULL, 0) == ERR_NONE);
    if (base == CONFIG_DEFAULT)
        def = base_value; /* it may depend on the disk */
    synonym_add(out, &n, k, def, CONFIG_DEFAULT);
    return n;
}

const char *config_default_text(enum config_key k, char *buf, size_t size)
{
    const struct config_def *d = &config_defs[k];
    if (!config_is_number(d->type))
        return d->def;
    i64 v;
    CHECK(config_parse(d, d->def, &v, NULL, 0) == ERR_NONE);
    return config_format(d, v, false, buf, size);
}

/* The table with its section titles, in its own order. */
struct doc_row {
    const char *section; /* a title, or NULL for a key */
    enum config_key key;
};

static const struct doc_row doc_rows[] = {
#define SECTION(title) { title, CFG_COUNT },
#define KEY(id, name, kafka, type, def, min, max, change, help) { NULL, CFG_##id },
#define KEY_CHOICE(id, name, kafka, type, def, choices, change, help) { NULL, CFG_##id },
#include "config.def"
#undef KEY
#undef KEY_CHOICE
};

static const char *human_default(const struct config_def *d, char *buf, size_t size)
{
    i64 v;
    if (!config_is_number(d->type))
        return *d->def ? d->def : "(empty)";
    if (strchr(d->def, '%'))
        return d->def; /* not what it is on this machine */
    CHECK(config_parse(d, d->def, &v, NULL, 0) == ERR_NONE);
    if (v == CONFIG_UNSET || (d->type == CONFIG_LIST && v == 0))
        return "(not set)";
    return config_format(d, v, true, buf, size);
}

static void print_range(FILE *out, const struct config_def *d)
{
    char lo[CONFIG_VALUE_SIZE], hi[CONFIG_VALUE_SIZE];
    if (d->choices) {
        fprintf(out, "%s ", config_type_name(d->type));
        for (u32 i = 0; i < config_choice_count(d->choices); i++) {
            size_t len;
            const char *c = config_choice(d->choices, i, &len);
            fprintf(out, "%s`%.*s`", i ? ", " : "", (int)len, c);
        }
    } else if (!config_is_number(d->type) || d->type == CONFIG_BOOL) {
        fputs(config_type_name(d->type), out);
    } else {
        config_format(d, d->min, true, lo, sizeof lo);
        config_format(d, d->max, true, hi, sizeof hi);
        fprintf(out, "%s, %s to %s", config_type_name(d->type), lo,
                d->max == INT64_MAX ? "no limit" : hi);
    }
}

static void print_reference_key(FILE *out, const struct config_def *d)
{
    char buf[CONFIG_VALUE_SIZE];
    fprintf(out, "### `%s`\n\n%s\n\n- Type: ", d->name, d->help);
    print_range(out, d);
    fprintf(out, "\n- Default: `%s`\n- Change: %s\n", human_default(d, buf, sizeof buf),
            d->change == CONFIG_DYNAMIC ? "live (`leatctl -w`)" : "restart");
    if (d->kafka)
        fprintf(out, "- Kafka's name: `%s`\n", d->kafka);
    fputc('\n', out);
}

void config_print_reference(FILE *out)
{
    fputs(
        "# Configuration reference\n\n"
        "Generated by `make docs` from `include/config.def`; edit that table, not this page.\n\n"
        "Files hold `dotted.key = value`, one a line; `#` and `;` start a comment line. Sizes "
        "take\n"
        "`k m g t` (powers of 1024) or `%` (of the memory of the machine or of the process's\n"
        "control group), durations `us ms s m h d`; a bare number is in the unit that\n"
        "the type names. A `-` before a key turns a refused line into a warning, and `${key}`\n"
        "stands for another key's value. Where Kafka has its own name for a key, both are "
        "accepted.\n"
        "\n"
        "Order of precedence: live change (`leatctl -w`), stored change (Kafka's AlterConfigs on\n"
        "the broker, then on the defaults of all brokers), command line (`-w`), files "
        "(`leat.conf`, then `conf.d/*.conf` by name),\n"
        "default. A live change holds until the node stops, `leatctl -r` ends it, or the files "
        "say\n"
        "something new for that key; a stored one is kept over restarts until the same API "
        "deletes\n"
        "it. SIGHUP reads the files again and takes what changed in them since the last reading:\n"
        "all or nothing, and a log line for each key says whether it changed, was kept or needs a\n"
        "restart. Topics that do not override a default follow it at once.\n",
        out);
    for (size_t i = 0; i < ARRAY_COUNT(doc_rows); i++) {
        if (doc_rows[i].section)
            fprintf(out, "\n## %s\n\n", doc_rows[i].section);
        else
            print_reference_key(out, &config_defs[doc_rows[i].key]);
    }
    topic_config_print_reference(out);
}

/* Words of `text` in lines of at most HELP_WIDTH characters. */
static void print_wrapped(FILE *out, const char *text)
{
    size_t column = 0;
    for (; *text; text += strspn(text, " ")) {
        size_t len = strcspn(text, " ");
        bool fits = column > 0 && column + 1 + len <= HELP_WIDTH;
        if (column > 0 && !fits)
            fputc('\n', out);
        fprintf(out, "%s%.*s", fits ? " " : HELP_INDENT, (int)len, text);
        column = fits ? column + 1 + len : strlen(HELP_INDENT) + len;
        text += len;
    }
    fputc('\n', out);
}

void config_print_help(FILE *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(doc_rows); i++) {
        if (doc_rows[i].section) {
            fprintf(out, "\n%s\n", doc_rows[i].section);
            continue;
        }
        char buf[CONFIG_VALUE_SIZE];
        const struct config_def *d = &config_defs[doc_rows[i].key];
        fprintf(out, "  %s = %s%s\n", d->name, human_default(d, buf, sizeof buf),
                d->change == CONFIG_DYNAMIC ? "  [live]" : "");
        print_wrapped(out, d->help);
    }
}
