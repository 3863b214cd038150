/* Configs of groups and of client metrics subscriptions (Kafka's GROUP and CLIENT_METRICS).
 *
 * Nothing of them is held in memory: what is set lies in the metadata store, a key each
 * (c/group/<config>/<group>, c/client-metrics/<config>/<subscription>), is read when it is asked
 * for, on the background thread, and written by a controller task. The table is kept_configs.def.
 * Whoever is to go by them (groups of the newer kinds, telemetry) reads them as it loads a group.
 *
 * configs.max_kept bounds how many there are: any client may name any group.
 */
#include <stdio.h>
#include <strings.h>

#include "check.h"
#include "configs_int.h"
#include "log.h"

enum kept_type { KEPT_BOOL, KEPT_INT, KEPT_ENUM, KEPT_STRING, KEPT_LIST, KEPT_RESET, KEPT_MATCH };

struct kept_row {
    i8 kind;
    const char *name;
    enum kept_type type;
    const char *def;
    i64 min, max;
    const char *choices;
    const char *broker_key;
    const char *help;
};

static const struct kept_row rows[] = {
#define KEPT(kind, name, type, def, min, max, choices, broker_key, help) \
    { RESOURCE_##kind, name, KEPT_##type, def, min, max, choices, broker_key, help },
#include "kept_configs.def"
#undef KEPT
};
#define ROWS ((u32)ARRAY_COUNT(rows))

#define NAME_MAX_BYTES 400u /* with prefix and config it is a key of the store */
_Static_assert(NAME_MAX_BYTES + 64 < META_KEY_MAX, "names fit into keys");

enum { SOURCE_DEFAULT = 5, SOURCE_METRICS = 7, SOURCE_GROUP = 8 };

bool kept_kind(i8 kind)
{
    return kind == RESOURCE_GROUP || kind == RESOURCE_METRICS;
}

const char *kept_name(i8 kind, u32 i)
{
    for (u32 r = 0; r < ROWS; r++)
        if (rows[r].kind == kind && i-- == 0)
            return rows[r].name;
    return NULL;
}

static const struct kept_row *row_find(i8 kind, struct bytes name)
{
    for (u32 i = 0; i < ROWS; i++)
        if (rows[i].kind == kind && bytes_eq_str(name, rows[i].name))
            return &rows[i];
    return NULL;
}

const char *kept_prefix(i8 kind)
{
    return kind == RESOURCE_GROUP ? "c/group/" : "c/client-metrics/";
}

static struct bytes kept_key(char buf[META_KEY_MAX], const struct kept_row *row, struct bytes name)
{
    int n = snprintf(buf, META_KEY_MAX, "%s%s/", kept_prefix(row->kind), row->name);
    CHECK(n > 0 && (u32)n + name.len <= META_KEY_MAX);
    memcpy(buf + n, name.data, name.len);
    return bytes_of(buf, (u32)n + name.len);
}

static err name_check(i8 kind, struct bytes name, struct bytes *text)
{
    bool group = kind == RESOURCE_GROUP;
    if (name.len > 0 && name.len <= NAME_MAX_BYTES)
        return ERR_NONE;
    *text = bytes_str(name.len > 0 ? "The name is too long: at most 400 bytes."
                      : group      ? "Group name must not be empty"
                                   : "Client metrics subscription name must not be empty");
    return ERR_INVALID_REQUEST;
}

/* ---- describing ---- */

struct kept_load { /* c->user of a DescribeConfigs */
    struct bg_job job;
    struct call *call;
    void (*then)(struct call *c);
    struct arena arena;    /* of the values: the call's own serves its shard */
    struct bytes **values; /* per resource: of each row, NULL data: not set; NULL: another kind */
    bool brokers;          /* there are some */
    struct unknown_names unknown[CONFIG_STORED_LAYERS];
    err err;
};

static err load_one(struct kept_load *l, const describe_resource *q, struct bytes **out)
{
    struct bytes none;
    if (!kept_kind(q->resource_type) || name_check(q->resource_type, q->resource_name, &none))
        return ERR_NONE;
    struct bytes *v = arena_alloc(&l->arena, ROWS * sizeof *v);
    err e = v ? ERR_NONE : ERR_NO_MEMORY;
    for (u32 i = 0; e == ERR_NONE && i < ROWS; i++) {
        char buf[META_KEY_MAX];
        struct meta_kv kv;
        if (rows[i].kind != q->resource_type || !config_key_wanted(q, rows[i].name))
            continue;
        e = meta_get(l->call->at->node->env.meta, kept_key(buf, &rows[i], q->resource_name),
                     &l->arena, &kv);
        if (e == ERR_NONE)
            v[i] = kv.value.data ? kv.value : bytes_str("");
        if (e == ERR_NOT_FOUND)
            e = ERR_NONE;
    }
    *out = v;
    return e;
}

static void load_run(struct bg_job *j)
{
    struct kept_load *l = container_of(j, struct kept_load, job);
    const struct describe_configs_request *q = CALL_REQ(l->call, describe_configs_request);
    for (i32 i = 0; l->err == ERR_NONE && i < q->resources.n; i++)
        l->err = load_one(l, &q->resources.v[i], &l->values[i]);
    for (u32 i = 0; l->brokers && l->err == ERR_NONE && i < CONFIG_STORED_LAYERS; i++)
        l->err = unknown_configs_read(l->call->at->node->env.meta,
                                      (enum config_source)(CONFIG_CLUSTER + i), &l->arena,
                                      &l->unknown[i]);
}

static void load_done(struct bg_job *j)
{
    struct kept_load *l = container_of(j, struct kept_load, job);
    l->then(l->call);
}

void kept_load(struct call *c, void (*then)(struct call *c))
{
    const struct describe_configs_request *q = CALL_REQ(c, describe_configs_request);
    bool any = false, brokers = false;
    for (i32 i = 0; i < q->resources.n; i++) {
        any = any || kept_kind(q->resources.v[i].resource_type);
        brokers = brokers || q->resources.v[i].resource_type == RESOURCE_BROKER;
    }
    c->user = NULL;
    if (!any && !brokers) {
        then(c);
        return;
    }
    struct kept_load *l = arena_alloc(c->arena, sizeof *l);
    struct bytes **values = CALL_ARRAY(c, struct bytes *, q->resources.n);
    if (!l || !values) {
        call_malformed(c, "request memory limit");
        return;
    }
    *l = (struct kept_load){ .call = c, .then = then, .values = values, .brokers = brokers };
    arena_init(&l->arena, 4096, c->arena->limit_bytes);
    c->user = l;
    bg_submit(&c->at->shard, &l->job, BG_META, load_run, load_done);
}

void kept_load_end(struct call *c)
{
    struct kept_load *l = c->user;
    if (l)
        arena_free(&l->arena);
}

const struct unknown_names *kept_unknown(const struct call *c, enum config_source layer, err *e)
{
    const struct kept_load *l = c->user;
    *e = l->err;
    return &l->unknown[layer - CONFIG_CLUSTER];
}

static i8 kafka_type(const struct kept_row *row)
{
    switch (row->type) {
    case KEPT_BOOL:
        return 1;
    case KEPT_INT:
        return 3;
    case KEPT_LIST:
    case KEPT_MATCH:
        return 7;
    case KEPT_ENUM:
    case KEPT_STRING:
    case KEPT_RESET:
        break;
    }
    return 2;
}

static bool describe_row(struct call *c, const struct kept_row *row, struct bytes stored,
                         describe_entry *r)
{
    const struct describe_configs_request *q = CALL_REQ(c, describe_configs_request);
    bool group = row->kind == RESOURCE_GROUP, set = stored.data != NULL;
    i8 own = group ? SOURCE_GROUP : SOURCE_METRICS;
    config_entry_init(r, bytes_str(row->name));
    r->value = set ? arena_copy(c->arena, stored) : bytes_str(row->def);
    r->config_source = set ? own : SOURCE_DEFAULT;
    r->config_type = kafka_type(row);
    if (q->include_documentation)
        r->documentation = bytes_str(row->help);
    if (!r->value.data || !config_synonyms_room(c, r, 2))
        return false;
    if (set)
        config_synonym_put(r, bytes_str(row->name), r->value, own);
    if (group)
        config_synonym_put(r, bytes_str(row->broker_key ? row->broker_key : row->name),
                           bytes_str(row->def), SOURCE_DEFAULT);
    return true;
}

bool kept_describe(struct call *c, i32 at, describe_result *r)
{
    const struct kept_load *l = c->user;
    const describe_resource *q = &CALL_REQ(c, describe_configs_request)->resources.v[at];
    r->error_code = (i16)name_check(q->resource_type, q->resource_name, &r->error_message);
    if (r->error_code == ERR_NONE)
        r->error_code = (i16)err_to_kafka(l->err);
    if (r->error_code != ERR_NONE)
        return true;
    CHECK(l->values[at] != NULL);
    r->configs.v = CALL_ARRAY(c, describe_entry, ROWS);
    r->configs.n = 0;
    for (u32 i = 0; r->configs.v && i < ROWS; i++)
        if (rows[i].kind == q->resource_type && config_key_wanted(q, rows[i].name) &&
            !describe_row(c, &rows[i], l->values[at][i], &r->configs.v[r->configs.n++]))
            return false;
    return r->configs.v != NULL;
}

/* ---- what values may be ---- */

/* "PnDTnHnMnS", at least one part, seconds with a fraction: Java's Duration, without signs. */
static bool duration_ok(struct bytes b)
{
    static const char order[] = "DHMS";
    bool time = false, any = false;
    u32 at = 1, unit = 0;
    if (b.len < 3 || (b.data[0] | 32) != 'p')
        return false;
    while (at < b.len) {
        if ((b.data[at] | 32) == 't' && !time && at + 1 < b.len) {
            time = true;
            unit = MAX(unit, 1u);
            at++;
        }
        u32 digits = at;
        while (at < b.len && ((b.data[at] >= '0' && b.data[at] <= '9') || b.data[at] == '.'))
            at++;
        if (at == digits || at == b.len)
            return false;
        while (order[unit] && (order[unit] | 32) != (b.data[at] | 32))
            unit++;
        if (!order[unit] || (unit > 0) != time)
            return false;
        unit++;
        at++;
        any = true;
    }
    return any;
}

static bool reset_ok(struct bytes b)
{
    static const char by[] = "by_duration:";
    u32 n = sizeof by - 1;
    if (bytes_eq_str(b, "earliest") || bytes_eq_str(b, "latest"))
        return true;
    return b.len > n && memcmp(b.data, by, n) == 0 && duration_ok(bytes_of(b.data + n, b.len - n));
}

static bool selector_known(struct bytes b)
{
    static const char *const known[] = { "client_instance_id",    "client_id",
                                         "client_software_name",  "client_software_version",
                                         "client_source_address", "client_source_port" };
    for (u32 i = 0; i < ARRAY_COUNT(known); i++)
        if (bytes_eq_str(b, known[i]))
            return true;
    return false;
}

/* selector=pattern, … Kafka compiles each pattern as a regular expression of Java. Here they are
 * taken as they are, for nothing goes by them yet, and PCRE2 would be a third dialect: of 39
 * patterns that Kafka 4.4 and PCRE2 10.42 were given they differ on 12. It refuses \1, \u0041,
 * [a-[b]], \p{IsLatin} and \p{javaLowerCase}, which Kafka takes, and takes a{, \N, (?R), (?P<n>a),
 * \K, (?|a) and (*FAIL), which Kafka refuses. What Kafka takes must not be refused. */
static bool match_ok(struct bytes b)
{
    while (b.len > 0) {
        const u8 *comma = memchr(b.data, ',', b.len);
        u32 len = comma ? (u32)(comma - b.data) : b.len;
        const u8 *equals = memchr(b.data, '=', len);
        u32 name = equals ? (u32)(equals - b.data) : 0;
        if (!equals || name + 1 == len || memchr(equals + 1, '=', len - name - 1) ||
            !selector_known(bytes_of(b.data, name)))
            return false;
        b = comma ? bytes_of(comma + 1, b.len - len - 1) : bytes_of(b.data, 0);
    }
    return true;
}

static err int_check(struct call *c, const struct kept_row *row, const char *text,
                     struct bytes *why)
{
    struct config_def d = {
        .name = row->name, .type = CONFIG_INT, .def = row->def, .min = INT32_MIN, .max = INT32_MAX
    };
    i64 v;
    if (!*text || config_parse(&d, text, &v, NULL, 0) != ERR_NONE) {
        *why = text_of(c, "Invalid value %.100s for configuration %s: Not a number of type INT",
                       text, row->name);
        return ERR_INVALID_CONFIG;
    }
    if (v >= row->min && v <= row->max)
        return ERR_NONE;
    *why = text_of(c, "%s must be in the range %" PRId64 " to %" PRId64 " inclusive.", row->name,
                   row->min, row->max);
    return row->kind == RESOURCE_METRICS ? ERR_INVALID_REQUEST : ERR_INVALID_CONFIG; /* as Kafka */
}

static bool text_ok(const struct kept_row *row, const char *text)
{
    struct config_def d = {
        .name = row->name, .type = CONFIG_ENUM, .def = row->def, .choices = row->choices
    };
    i64 v;
    switch (row->type) {
    case KEPT_BOOL:
        return strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0;
    case KEPT_ENUM:
        return config_parse(&d, text, &v, NULL, 0) == ERR_NONE;
    case KEPT_RESET:
        return reset_ok(bytes_str(text));
    case KEPT_MATCH:
        return match_ok(bytes_str(text));
    case KEPT_INT:
    case KEPT_STRING:
    case KEPT_LIST:
        break;
    }
    return true;
}

/* *text: the value without blanks around it, with its NUL, in the arena. */
static err value_check(struct call *c, const struct kept_row *row, struct bytes value,
                       const char **text, struct bytes *why)
{
    while (value.len > 0 && (value.data[0] == ' ' || value.data[0] == '\t'))
        value = bytes_of(value.data + 1, value.len - 1);
    while (value.len > 0 && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t'))
        value.len--;
    *why = text_of(c, "Invalid value for configuration %s: too long or not text", row->name);
    if (value.len > TOPIC_VALUE_MAX || (value.len > 0 && memchr(value.data, 0, value.len)))
        return ERR_INVALID_CONFIG;
    *text =
        arena_printf(c->arena, "%.*s", (int)value.len, value.len ? (const char *)value.data : "");
    if (!*text)
        return ERR_UNKNOWN_SERVER_ERROR;
    if (row->type == KEPT_INT)
        return int_check(c, row, *text, why);
    *why = text_of(c, "Invalid value %.100s for configuration %s: %s", *text, row->name, row->help);
    return text_ok(row, *text) ? ERR_NONE : ERR_INVALID_CONFIG;
}

/* ---- changing ---- */

struct kept_op {
    struct bg_job job;
    struct topics_op *op;
    struct meta_op *ops;
    u32 count;
    u32 puts;
    u64 kept; /* that there are beside those that are put */
    i8 kind;
    struct bytes name;
    err err;
    alter_result *r;
};

static err count_one(void *arg, const struct meta_kv *kv)
{
    struct kept_op *o = arg;
    for (u32 i = 0; i < o->count; i++)
        if (o->ops[i].kind == META_PUT && bytes_eq(o->ops[i].key, kv->key))
            return ERR_NONE;
    o->kept++;
    return ERR_NONE;
}

static void kept_commit(struct bg_job *j)
{
    struct kept_op *o = container_of(j, struct kept_op, job);
    const struct node *n = o->op->call->at->node;
    static const i8 kinds[] = { RESOURCE_GROUP, RESOURCE_METRICS };
    for (u32 i = 0; o->puts > 0 && o->err == ERR_NONE && i < ARRAY_COUNT(kinds); i++)
        o->err = meta_range(n->env.meta, bytes_str(kept_prefix(kinds[i])), count_one, o);
    if (o->err == ERR_NONE && o->puts > 0 &&
        o->kept + o->puts > config_u64(n->cfg, CFG_configs_max_kept))
        o->err = ERR_POLICY_VIOLATION;
    struct meta_txn t = { .ops = o->ops, .op_count = o->count };
    if (o->err == ERR_NONE)
        o->err = meta_commit(n->env.meta, &t);
}

static void kept_committed(struct bg_job *j)
{
    struct kept_op *o = container_of(j, struct kept_op, job);
    o->r->error_code = (i16)err_to_kafka(o->err);
    if (o->err == ERR_POLICY_VIOLATION)
        o->r->error_message = text_of(o->op->call,
                                      "There are %" PRIu64 " configs of groups and client metrics: "
                                      "configs.max_kept allows no more.",
                                      o->kept);
    else
        LOG(INFO, config_altered, "kind=%s name=%.*s configs=%u result=%s",
            o->kind == RESOURCE_GROUP ? "group" : "client-metrics", (int)o->name.len,
            (const char *)o->name.data, o->count, err_name(o->err));
    topics_op_release(o->op);
}

static err change_check(struct call *c, const alter_resource *q, i32 i, struct meta_op *out,
                        struct bytes *why)
{
    const alter_entry *k = &q->configs.v[i];
    const struct kept_row *row = row_find(q->resource_type, k->name);
    const char *text = NULL;
    err e = config_change_form(c, q, i, why);
    if (e != ERR_NONE)
        return e;
    bool deletes = k->config_operation == TOPIC_OP_DELETE;
    *out = (struct meta_op){ .kind = META_DELETE };
    if (!row && deletes)
        return ERR_NONE; /* as Kafka: what nobody knows is not set */
    if (!row) {
        *why = text_of(c, "Unknown config name: %.*s", (int)MIN(k->name.len, 200u),
                       (const char *)k->name.data);
        return q->resource_type == RESOURCE_METRICS ? ERR_INVALID_REQUEST : ERR_INVALID_CONFIG;
    }
    if (k->config_operation == TOPIC_OP_APPEND || k->config_operation == TOPIC_OP_SUBTRACT) {
        *why = text_of(c, "Can't %s to key %s because its type is not LIST.",
                       k->config_operation == TOPIC_OP_APPEND ? "APPEND" : "SUBTRACT", row->name);
        return ERR_INVALID_CONFIG; /* Kafka knows no lists here */
    }
    if (!deletes)
        e = value_check(c, row, k->value, &text, why);
    if (e != ERR_NONE)
        return e;
    char buf[META_KEY_MAX];
    out->kind = deletes ? META_DELETE : META_PUT;
    out->key = arena_copy(c->arena, kept_key(buf, row, q->resource_name));
    out->value = deletes ? (struct bytes){ NULL, 0 } : bytes_str(text);
    return out->key.data ? ERR_NONE : ERR_UNKNOWN_SERVER_ERROR;
}

void kept_alter(struct topics_op *op, const alter_resource *q, alter_result *r)
{
    struct call *c = op->call;
    struct bytes why = { NULL, 0 };
    i32 n = MAX(q->configs.n, 0);
    err e = name_check(q->resource_type, q->resource_name, &why);
    if (e == ERR_NONE && (u32)n > 2 * ROWS) {
        why = bytes_str("There are not so many configs.");
        e = ERR_INVALID_REQUEST;
    }
    struct kept_op *o = arena_alloc(c->arena, sizeof *o);
    struct meta_op *ops = CALL_ARRAY(c, struct meta_op, n);
    if (!o || !ops)
        e = ERR_UNKNOWN_SERVER_ERROR;
    u32 count = 0, puts = 0;
    for (i32 i = 0; e == ERR_NONE && i < n; i++) {
        e = change_check(c, q, i, &ops[count], &why);
        puts += e == ERR_NONE && ops[count].kind == META_PUT;
        count += e == ERR_NONE && ops[count].key.data;
    }
    r->error_code = (i16)e;
    if (e != ERR_NONE) {
        r->error_message = why;
        return;
    }
    if (count == 0 || CALL_REQ(c, incremental_alter_configs_request)->validate_only)
        return;
    *o = (struct kept_op){ .op = op,
                           .ops = ops,
                           .count = count,
                           .puts = puts,
                           .kind = q->resource_type,
                           .name = q->resource_name,
                           .r = r };
    op->outstanding++;
    bg_submit(&c->at->shard, &o->job, BG_META, kept_commit, kept_committed);
}

/* ---- the reference page ---- */

void kept_configs_print_reference(FILE *out)
{
    fputs(
        "\n## Configs of groups and client metrics\n\nKafka's resources GROUP and CLIENT_METRICS, "
        "set by its own tools (`kafka-configs --entity-type groups`).\nThey are kept and described "
        "as Kafka does it; nothing goes by them yet, as groups of the newer kinds\nand telemetry "
        "are not served. `BROKER_LOGGER` has one logger, `root`: `log.level` until the node "
        "stops. On\nbrokers, what nobody knows is kept, too, and described without its value, as "
        "by Kafka; "
        "configs of\nKafka's brokers that Leat does not have are refused.\n\n| Resource | Config | "
        "Default | Range | Meaning |\n|---|---|---|---|---|\n",
        out);
    for (u32 i = 0; i < ROWS; i++) {
        const struct kept_row *row = &rows[i];
        fprintf(out, "| %s | `%s` | %s%s%s | ", row->kind == RESOURCE_GROUP ? "group" : "metrics",
                row->name, *row->def ? "`" : "", *row->def ? row->def : "(empty)",
                *row->def ? "`" : "");
        if (row->type == KEPT_INT)
            fprintf(out, "%" PRId64 " to %" PRId64, row->min, row->max);
        for (const char *p = row->choices; p && *p; p++)
            fputs(*p == '|' ? ", " : (char[]){ *p, 0 }, out);
        fprintf(out, " | %s |\n", row->help);
    }
}
