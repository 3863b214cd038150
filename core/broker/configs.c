/* DescribeConfigs, IncrementalAlterConfigs and AlterConfigs: the requests, and topics. A change of
 * a topic is a new version of it, published as any other (controller.c). */
#include <stdio.h>

#include "check.h"
#include "configs_int.h"

/* ---- DescribeConfigs ---- */

bool config_key_wanted(const describe_resource *q, const char *name)
{
    if (q->configuration_keys.n <= 0)
        return true;
    for (i32 i = 0; i < q->configuration_keys.n; i++)
        if (bytes_eq_str(q->configuration_keys.v[i], name))
            return true;
    return false;
}

void config_entry_init(describe_entry *r, struct bytes name)
{
    describe_configs_response_describe_configs_resource_result_init(r);
    r->name = name;
    r->documentation = (struct bytes){ NULL, 0 };
}

bool config_synonyms_room(struct call *c, describe_entry *r, u32 n)
{
    r->synonyms.n = 0;
    if (!CALL_REQ(c, describe_configs_request)->include_synonyms)
        return true;
    r->synonyms.v = CALL_ARRAY(c, describe_synonym, n);
    return r->synonyms.v != NULL;
}

void config_synonym_put(describe_entry *r, struct bytes name, struct bytes value, i8 source)
{
    if (!r->synonyms.v)
        return;
    describe_synonym *s = &r->synonyms.v[r->synonyms.n++];
    describe_configs_response_describe_configs_synonym_init(s);
    s->name = name;
    s->value = value;
    s->source = source;
}

static bool describe_topic_key(struct call *c, const struct topic *t, enum topic_config_id id,
                               describe_entry *r)
{
    const struct describe_configs_request *q = CALL_REQ(c, describe_configs_request);
    struct topic_config_synonym syn[TOPIC_SYNONYMS_MAX];
    char buf[CONFIG_VALUE_SIZE];
    u32 n = topic_config_synonyms(&t->config, c->at->node->cfg, id, syn);
    config_entry_init(r, bytes_str(topic_config_name(id)));
    r->value = arena_copy(c->arena, bytes_str(topic_config_text(&t->config, id, buf, sizeof buf)));
    r->config_source = topic_config_source(&t->config, c->at->node->cfg, id);
    r->config_type = topic_config_kafka_type(id);
    if (q->include_documentation)
        r->documentation = bytes_str(topic_config_help(id));
    if (!r->value.data || !config_synonyms_room(c, r, n))
        return false;
    for (u32 i = 0; r->synonyms.v && i < n; i++)
        config_synonym_put(r, bytes_str(syn[i].name),
                           arena_copy(c->arena, bytes_str(syn[i].of.value)), syn[i].of.source);
    return true;
}

static bool describe_topic(struct call *c, const describe_resource *q, describe_result *r)
{
    struct topic_entry *e = catalog_by_name(c->at, q->resource_name);
    if (!e) {
        r->error_code = topic_name_valid(q->resource_name) ? ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                           : ERR_INVALID_TOPIC_EXCEPTION;
        r->error_message = bytes_str(err_text(r->error_code));
        return true;
    }
    r->configs.v = CALL_ARRAY(c, describe_entry, TC_COUNT);
    r->configs.n = 0;
    for (u32 i = 0; r->configs.v && i < TC_COUNT; i++) {
        enum topic_config_id id = (enum topic_config_id)i;
        if (topic_config_visible(id) && config_key_wanted(q, topic_config_name(id)) &&
            !describe_topic_key(c, e->topic, id, &r->configs.v[r->configs.n++]))
            return false;
    }
    return r->configs.v != NULL;
}

static bool describe_one(struct call *c, i32 i, describe_result *r)
{
    const describe_resource *q = &CALL_REQ(c, describe_configs_request)->resources.v[i];
    describe_configs_response_describe_configs_result_init(r);
    r->error_message = (struct bytes){ NULL, 0 };
    r->resource_type = q->resource_type;
    r->resource_name = q->resource_name;
    switch (q->resource_type) {
    case RESOURCE_TOPIC:
        return describe_topic(c, q, r);
    case RESOURCE_BROKER:
        return broker_describe(c, q, r);
    case RESOURCE_LOGGER:
        return logger_describe(c, q, r);
    case RESOURCE_METRICS:
    case RESOURCE_GROUP:
        return kept_describe(c, i, r);
    default:
        r->error_code = ERR_INVALID_REQUEST;
        r->error_message = text_of(c, "Unknown resource type %d", q->resource_type);
        return true;
    }
}

static void describe_run(struct call *c)
{
    const struct describe_configs_request *q = CALL_REQ(c, describe_configs_request);
    struct describe_configs_response *resp = CALL_RESP(c, describe_configs_response);
    i32 n = MAX(q->resources.n, 0);
    resp->results.v = CALL_ARRAY(c, describe_result, n);
    resp->results.n = n;
    bool fits = resp->results.v != NULL;
    for (i32 i = 0; fits && i < n; i++)
        fits = describe_one(c, i, &resp->results.v[i]);
    kept_load_end(c);
    if (fits)
        call_done(c);
    else
        call_malformed(c, "response memory limit");
}

void handle_describe_configs(struct call *c)
{
    kept_load(c, describe_run);
}

/* ---- IncrementalAlterConfigs ---- */

static bool altered_twice(const alter_resource *q, i32 at)
{
    for (i32 i = 0; i < q->configs.n; i++)
        if (i != at && bytes_eq(q->configs.v[i].name, q->configs.v[at].name))
            return true;
    return false;
}

err config_change_form(struct call *c, const alter_resource *q, i32 i, struct bytes *text)
{
    const alter_entry *k = &q->configs.v[i];
    *text = (struct bytes){ NULL, 0 };
    if (altered_twice(q, i))
        *text = bytes_str("Error due to duplicate config keys.");
    else if (k->config_operation < TOPIC_OP_SET || k->config_operation > TOPIC_OP_SUBTRACT)
        *text = text_of(c, "Unknown operation %d.", k->config_operation);
    else if (k->config_operation != TOPIC_OP_DELETE && !k->value.data)
        *text = text_of(c, "Null value not supported for : %.*s", (int)MIN(k->name.len, 200u),
                        (const char *)k->name.data);
    return text->data ? ERR_INVALID_REQUEST : ERR_NONE;
}

static err alter_topic_values(struct call *c, const alter_resource *q, struct topic *next,
                              struct bytes *text)
{
    const struct config *cfg = c->at->node->cfg;
    char why[512];
    if (q->configs.n > 2 * TC_COUNT) { /* AlterConfigs adds a deletion of each */
        *text = bytes_str("There are not so many configs.");
        return ERR_INVALID_REQUEST;
    }
    for (i32 i = 0; i < q->configs.n; i++) {
        const alter_entry *k = &q->configs.v[i];
        err e = config_change_form(c, q, i, text);
        if (e != ERR_NONE)
            return e;
        if (k->config_operation != TOPIC_OP_DELETE || topic_config_find(k->name) != TC_COUNT)
            e = topic_config_alter(&next->config, cfg, (enum topic_config_op)k->config_operation,
                                   k->name, k->value, why, sizeof why);
        /* As Kafka: what nobody knows is not set, and so may be deleted. */
        if (e != ERR_NONE) {
            *text = text_of(c, "%s", why);
            return e;
        }
    }
    err e = topic_config_check(&next->config, cfg, why, sizeof why);
    if (e != ERR_NONE)
        *text = text_of(c, "%s", why);
    return e;
}

static void alter_topic(struct topics_op *op, const alter_resource *q, alter_result *r)
{
    struct call *c = op->call;
    struct topic_entry *e = catalog_by_name(c->at, q->resource_name);
    if (!e) {
        r->error_code = topic_name_valid(q->resource_name) ? ERR_UNKNOWN_TOPIC_OR_PARTITION
                                                           : ERR_INVALID_TOPIC_EXCEPTION;
        r->error_message = bytes_str(err_text(r->error_code));
        return;
    }
    struct topic *next = topic_copy(e->topic);
    r->error_code = (i16)alter_topic_values(c, q, next, &r->error_message);
    if (r->error_code != ERR_NONE || CALL_REQ(c, incremental_alter_configs_request)->validate_only)
        topic_free(next);
    else
        topics_change(op, e->topic, next, &r->error_code);
}

static const u8 *alter_marks(struct call *c, const struct incremental_alter_configs_request *q,
                             i32 n)
{
    struct named *names = CALL_ARRAY(c, struct named, n);
    for (i32 i = 0; names && i < n; i++)
        names[i] =
            (struct named){ q->resources.v[i].resource_name, q->resources.v[i].resource_type, i };
    return names ? named_marks(c, names, n) : NULL;
}

static void alter_one(struct topics_op *op, const alter_resource *q, alter_result *r)
{
    bool replaces =
        op->call->api->handle == handle_alter_configs; /* AlterConfigs knows no loggers */
    switch (q->resource_type) {
    case RESOURCE_TOPIC:
        alter_topic(op, q, r);
        return;
    case RESOURCE_BROKER:
        broker_alter(op, q, r);
        return;
    case RESOURCE_METRICS:
    case RESOURCE_GROUP:
        kept_alter(op, q, r);
        return;
    case RESOURCE_LOGGER:
        if (!replaces) {
            logger_alter(op, q, r);
            return;
        }
        break;
    default:
        break;
    }
    r->error_code = ERR_INVALID_REQUEST;
    r->error_message = text_of(op->call, "Unknown resource type %d", q->resource_type);
}

static void alter_run(struct controller_task *task)
{
    struct topics_op *op = container_of(task, struct topics_op, task);
    struct call *c = op->call;
    const struct incremental_alter_configs_request *q =
        CALL_REQ(c, incremental_alter_configs_request);
    struct incremental_alter_configs_response *resp =
        CALL_RESP(c, incremental_alter_configs_response);
    i32 n = MAX(q->resources.n, 0);
    resp->responses.v = CALL_ARRAY(c, alter_result, n);
    const u8 *marks = alter_marks(c, q, n);
    resp->responses.n = resp->responses.v && marks ? n : 0;
    for (i32 i = 0; i < resp->responses.n; i++) {
        const alter_resource *res = &q->resources.v[i];
        alter_result *r = &resp->responses.v[i];
        incremental_alter_configs_response_alter_configs_resource_response_init(r);
        r->error_message = (struct bytes){ NULL, 0 };
        r->resource_type = res->resource_type;
        r->resource_name = res->resource_name;
        if (marks[i] & NAMED_TWICE) {
            r->error_code = ERR_INVALID_REQUEST;
            r->error_message = bytes_str("Each resource must appear at most once.");
        } else {
            alter_one(op, res, r);
        }
    }
    topics_op_release(op);
}

void handle_incremental_alter_configs(struct call *c)
{
    topics_enter(c, alter_run);
}

/* ---- AlterConfigs: the older form, which replaces all overrides ---- */

/* The answers have the same members, so alter_run fills both. */
_Static_assert(sizeof(struct alter_configs_response) ==
                       sizeof(struct incremental_alter_configs_response) &&
                   offsetof(struct alter_configs_response, responses) ==
                       offsetof(struct incremental_alter_configs_response, responses) &&
                   sizeof(struct alter_configs_response_alter_configs_resource_response) ==
                       sizeof(alter_result) &&
                   offsetof(struct alter_configs_response_alter_configs_resource_response,
                            resource_name) == offsetof(alter_result, resource_name) &&
                   offsetof(struct alter_configs_response_alter_configs_resource_response,
                            error_message) == offsetof(alter_result, error_message),
               "AlterConfigs and IncrementalAlterConfigs answer in one shape");

static bool replace_names(const struct alter_configs_request_alter_configs_resource *q,
                          const char *name)
{
    for (i32 i = 0; i < q->configs.n; i++)
        if (bytes_eq_str(q->configs.v[i].name, name))
            return true;
    return false;
}

/* The i-th config that the resource could have, if it may be set there; else NULL. */
static const char *replace_set(struct call *c,
                               const struct alter_configs_request_alter_configs_resource *q, u32 i)
{
    if (q->resource_type == RESOURCE_TOPIC) {
        const struct topic_entry *e = catalog_by_name(c->at, q->resource_name);
        return e && i < TC_COUNT && e->topic->config.overrides[i]
                   ? topic_config_name((enum topic_config_id)i)
                   : NULL;
    }
    if (kept_kind(q->resource_type))
        return kept_name(q->resource_type, i);
    enum config_source layer = q->resource_name.len ? CONFIG_STORED : CONFIG_CLUSTER;
    bool set = q->resource_type == RESOURCE_BROKER && i < CFG_COUNT &&
               config_stored(c->at->node->cfg, layer, (enum config_key)i) != CONFIG_UNSET;
    return set ? config_kafka_name((enum config_key)i) : NULL;
}

#define REPLACE_KEYS_MAX MAX((u32)TC_COUNT, (u32)CFG_COUNT)

/* What is named is set, what is set beyond it is deleted. */
static bool replace_resource(struct call *c,
                             const struct alter_configs_request_alter_configs_resource *q,
                             alter_resource *r)
{
    i32 n = MAX(q->configs.n, 0);
    incremental_alter_configs_request_alter_configs_resource_init(r);
    r->resource_type = q->resource_type;
    r->resource_name = q->resource_name;
    r->configs.v = CALL_ARRAY(c, alter_entry, (u32)n + REPLACE_KEYS_MAX);
    if (!r->configs.v)
        return false;
    for (i32 i = 0; i < n; i++) /* a null value is refused there */
        r->configs.v[i] = (alter_entry){ .name = q->configs.v[i].name,
                                         .value = q->configs.v[i].value,
                                         .config_operation = TOPIC_OP_SET };
    for (u32 i = 0; i < REPLACE_KEYS_MAX; i++) {
        const char *name = replace_set(c, q, i);
        bool aliased = q->resource_type == RESOURCE_BROKER && i < CFG_COUNT &&
                       replace_names(q, config_defs[i].name);
        if (name && !aliased && !replace_names(q, name))
            r->configs.v[n++] =
                (alter_entry){ .name = bytes_str(name), .config_operation = TOPIC_OP_DELETE };
    }
    r->configs.n = n;
    return true;
}

void handle_alter_configs(struct call *c)
{
    const struct alter_configs_request *q = CALL_REQ(c, alter_configs_request);
    struct incremental_alter_configs_request *as = arena_alloc(c->arena, sizeof *as);
    i32 n = MAX(q->resources.n, 0);
    alter_resource *rows = CALL_ARRAY(c, alter_resource, n);
    bool fits = as && rows;
    for (i32 i = 0; fits && i < n; i++)
        fits = replace_resource(c, &q->resources.v[i], &rows[i]);
    if (!fits) {
        call_malformed(c, "request memory limit");
        return;
    }
    incremental_alter_configs_request_init(as);
    as->resources.v = rows;
    as->resources.n = n;
    as->validate_only = q->validate_only;
    c->req = as;
    topics_enter(c, alter_run);
}
