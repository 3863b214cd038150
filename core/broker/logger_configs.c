/* Kafka's resource BROKER_LOGGER: the level of the log. There is one logger, "root", whose level is
 * the key log.level under Kafka's names; as in Kafka a change holds until the node stops. */
#include "check.h"
#include "configs_int.h"
#include "log.h"

#define SOURCE_LOGGER 6
#define CHANGES_MAX 16 /* there is one logger: more is nonsense, and they are compared in pairs */

/* Kafka's levels, and the nearest here. The first of several is what DescribeConfigs says. */
static const struct level {
    const char *kafka, *here;
} levels[] = {
    { "DEBUG", "debug" }, { "TRACE", "debug" }, { "INFO", "info" },
    { "WARN", "warn" },   { "ERROR", "error" }, { "FATAL", "error" },
};

bool logger_describe(struct call *c, const describe_resource *q, describe_result *r)
{
    r->error_code = ERR_INVALID_REQUEST;
    r->error_message = bytes_str("Broker id must not be empty");
    if (q->resource_name.len > 0)
        r->error_code = (i16)config_broker_named(c, q->resource_name, &r->error_message);
    if (r->error_code != ERR_NONE)
        return true;
    r->error_message = (struct bytes){ NULL, 0 };
    r->configs.v = CALL_ARRAY(c, describe_entry, 1);
    r->configs.n = 0;
    if (!r->configs.v || !config_key_wanted(q, "root"))
        return r->configs.v != NULL;
    const char *now = config_str(c->at->node->cfg, CFG_log_level);
    u32 i = 0;
    while (strcmp(levels[i].here, now) != 0)
        CHECK(++i < ARRAY_COUNT(levels));
    describe_entry *e = &r->configs.v[r->configs.n++];
    config_entry_init(e, bytes_str("root"));
    e->value = bytes_str(levels[i].kafka);
    e->config_source = SOURCE_LOGGER;
    e->config_type = 0;
    return true;
}

struct logger_op {
    struct bg_job job;
    struct topics_op *op;
    const char *level;
    err err;
    alter_result *r;
};

/* Changes of the configuration take a lock: not on a shard's thread. */
static void logger_run(struct bg_job *j)
{
    struct logger_op *o = container_of(j, struct logger_op, job);
    char why[256];
    o->err = config_set_live(o->op->call->at->node->cfg, "log.level", o->level, why, sizeof why);
    LOG(INFO, config_altered, "key=log.level value=%s of=logger result=\"%s\"", o->level,
        o->err == ERR_NONE ? "changed" : why);
}

static void logger_done(struct bg_job *j)
{
    struct logger_op *o = container_of(j, struct logger_op, job);
    o->r->error_code = (i16)err_to_kafka(o->err);
    topics_op_release(o->op);
}

/* *level: what it is set to. */
static err logger_check(struct call *c, const alter_resource *q, const char **level,
                        struct bytes *text)
{
    err e =
        q->resource_name.len ? config_broker_named(c, q->resource_name, text) : ERR_INVALID_REQUEST;
    if (e == ERR_NONE && q->configs.n > CHANGES_MAX) {
        *text = bytes_str("There are not so many loggers.");
        e = ERR_INVALID_REQUEST;
    }
    for (i32 i = 0; e == ERR_NONE && i < q->configs.n; i++) {
        const alter_entry *k = &q->configs.v[i];
        e = config_change_form(c, q, i, text);
        if (e != ERR_NONE)
            return e;
        if (k->config_operation == TOPIC_OP_APPEND || k->config_operation == TOPIC_OP_SUBTRACT) {
            *text = bytes_str("A logger has one level: APPEND and SUBTRACT are not allowed.");
            return ERR_INVALID_REQUEST;
        }
        if (!bytes_eq_str(k->name, "root")) {
            *text = text_of(c, "Logger %.*s does not exist: there is one, root.",
                            (int)MIN(k->name.len, 200u), (const char *)k->name.data);
            return ERR_INVALID_CONFIG;
        }
        if (k->config_operation == TOPIC_OP_DELETE) {
            *text = bytes_str("The level of the root logger can't be removed.");
            return ERR_INVALID_REQUEST;
        }
        for (u32 l = 0; l < ARRAY_COUNT(levels) && !*level; l++)
            if (bytes_eq_str(k->value, levels[l].kafka))
                *level = levels[l].here;
        *text = bytes_str("Levels are TRACE, DEBUG, INFO, WARN, ERROR and FATAL.");
        e = *level ? ERR_NONE : ERR_INVALID_CONFIG;
    }
    return e;
}

void logger_alter(struct topics_op *op, const alter_resource *q, alter_result *r)
{
    struct call *c = op->call;
    const char *level = NULL;
    struct bytes text = bytes_str("Broker id must not be empty");
    r->error_code = (i16)logger_check(c, q, &level, &text);
    if (r->error_code != ERR_NONE) {
        r->error_message = text;
        return;
    }
    if (!level || CALL_REQ(c, incremental_alter_configs_request)->validate_only)
        return;
    struct logger_op *o = arena_alloc(c->arena, sizeof *o);
    if (!o) {
        r->error_code = ERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    *o = (struct logger_op){ .op = op, .level = level, .r = r };
    op->outstanding++;
    bg_submit(&c->at->shard, &o->job, BG_META, logger_run, logger_done);
}
