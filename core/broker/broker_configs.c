/* Configs of brokers, in DescribeConfigs, IncrementalAlterConfigs and AlterConfigs: the dynamic
 * keys of the table (config.def). A change is written to the metadata store and applied to the
 * running node, and applied again at the next start. c/broker/<key> is the broker's own,
 * c/brokers/<key> the default of all brokers, which are the resource named "". Keys that nobody
 * knows: unknown_configs.c. */
#include <stdio.h>

#include "check.h"
#include "configs_int.h"
#include "log.h"

enum config_key broker_config_find(struct bytes name)
{
    char text[128];
    if (name.len == 0 || name.len >= sizeof text || memchr(name.data, 0, name.len))
        return CFG_COUNT;
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    return config_find(text);
}

const char *broker_config_prefix(enum config_source layer)
{
    CHECK(layer == CONFIG_CLUSTER || layer == CONFIG_STORED);
    return layer == CONFIG_CLUSTER ? "c/brokers/" : "c/broker/";
}

/* ---- describing ---- */

/* What `layer` is asked about: all there is for a broker, the cluster's own for the cluster. */
static u32 broker_synonyms(const struct config *cfg, enum config_source layer, enum config_key k,
                           struct config_synonym syn[CONFIG_SYNONYMS_MAX])
{
    u32 n = config_synonyms(cfg, k, syn);
    if (layer == CONFIG_STORED)
        return n;
    for (u32 i = 0; i < n; i++)
        if (syn[i].source == config_kafka_source(CONFIG_CLUSTER)) {
            bool own = syn[i].value == syn[i].buf;
            syn[0] = syn[i];
            syn[0].value = own ? syn[0].buf : syn[i].value;
            return 1;
        }
    return 0;
}

static bool describe_broker_key(struct call *c, enum config_source layer, enum config_key k,
                                describe_entry *r)
{
    const struct describe_configs_request *q = CALL_REQ(c, describe_configs_request);
    const struct config *cfg = c->at->node->cfg;
    struct config_synonym syn[CONFIG_SYNONYMS_MAX];
    config_entry_init(r, bytes_str(config_kafka_name(k)));
    u32 n = broker_synonyms(cfg, layer, k, syn);
    /* Not set is null. */
    r->value = n ? arena_copy(c->arena, bytes_str(syn[0].value)) : (struct bytes){ NULL, 0 };
    r->read_only = config_defs[k].change == CONFIG_STATIC;
    r->config_source =
        config_kafka_source(layer == CONFIG_STORED ? config_source(cfg, k) : CONFIG_CLUSTER);
    r->config_type = config_kafka_type(k);
    r->is_sensitive = config_defs[k].type == CONFIG_PASSWORD;
    if (q->include_documentation)
        r->documentation = bytes_str(config_defs[k].help);
    if (r->is_sensitive) { /* as Kafka: neither value nor synonyms */
        r->value = (struct bytes){ NULL, 0 };
        return true;
    }
    if ((n > 0 && !r->value.data) || !config_synonyms_room(c, r, n))
        return false;
    for (u32 i = 0; r->synonyms.v && i < n; i++)
        config_synonym_put(r, bytes_str(config_kafka_name(k)),
                           arena_copy(c->arena, bytes_str(syn[i].value)), syn[i].source);
    return true;
}

err config_broker_named(struct call *c, struct bytes name, struct bytes *text)
{
    char buf[16] = { 0 };
    if (name.len < sizeof buf)
        memcpy(buf, name.data, name.len);
    int id = -1, n = 0;
    u32 count = c->at->node->advertise_shards ? c->at->shard.group->count : 1;
    if (sscanf(buf, "%d%n", &id, &n) == 1 && !buf[n])
        for (u32 i = 0; i < count; i++)
            if (broker_id_of_shard(c->at, i) == id)
                return ERR_NONE;
    *text = text_of(c, "Unexpected broker id: expected %d or an empty name, but got '%.*s'.",
                    broker_id_of_shard(c->at, 0), (int)name.len, (const char *)name.data);
    return ERR_INVALID_REQUEST;
}

/* "" means the defaults of all brokers: *layer says which are meant. */
static err broker_resource(struct call *c, struct bytes name, enum config_source *layer,
                           struct bytes *text)
{
    *layer = name.len ? CONFIG_STORED : CONFIG_CLUSTER;
    return name.len ? config_broker_named(c, name, text) : ERR_NONE;
}

bool broker_describe(struct call *c, const describe_resource *q, describe_result *r)
{
    const struct config *cfg = c->at->node->cfg;
    enum config_source layer;
    r->error_code = (i16)broker_resource(c, q->resource_name, &layer, &r->error_message);
    if (r->error_code != ERR_NONE)
        return true;
    err e;
    struct unknown_names none = { NULL, 0, 0 };
    const struct unknown_names *all = kept_unknown(c, CONFIG_CLUSTER, &e);
    const struct unknown_names *own =
        layer == CONFIG_STORED ? kept_unknown(c, CONFIG_STORED, &e) : &none;
    r->error_code = (i16)err_to_kafka(e);
    if (e != ERR_NONE)
        return true;
    r->configs.v = CALL_ARRAY(c, describe_entry, CFG_COUNT + own->count + all->count);
    r->configs.n = 0;
    for (u32 i = 0; r->configs.v && i < CFG_COUNT; i++) {
        enum config_key k = (enum config_key)i;
        if (layer == CONFIG_CLUSTER && config_stored(cfg, layer, k) == CONFIG_UNSET)
            continue;
        if (config_key_wanted(q, config_kafka_name(k)) &&
            !describe_broker_key(c, layer, k, &r->configs.v[r->configs.n++]))
            return false;
    }
    return r->configs.v != NULL && unknown_configs_describe(c, q, own, all, r);
}

/* ---- changing ---- */

/* A broker's change: durable first, then applied. Of keys that nobody knows: only kept. */
struct broker_change {
    enum config_key key;
    const char *value; /* NULL: not stored any more */
};

struct alter_broker_op {
    struct bg_job job;
    struct topics_op *op;
    enum config_source layer;
    const struct broker_change *changes;
    const struct unknown_change *unknown;
    u32 count, unknown_count;
    bool replaces; /* AlterConfigs: what is not named goes */
    alter_result *r;
    err err;
};

#define BROKER_CONFIG_KEYS_MAX 64

/* After the commit, on the background thread too: changes of the configuration take a lock. */
static void alter_broker_apply(struct alter_broker_op *o)
{
    struct config *cfg = o->op->call->at->node->cfg;
    char why[512];
    for (u32 i = 0; i < o->count; i++) {
        const struct broker_change *ch = &o->changes[i];
        const char *name = config_defs[ch->key].name;
        err e = config_set_stored(cfg, o->layer, name, ch->value, why, sizeof why);
        LOG(INFO, config_altered, "key=%s value=%s of=%s result=\"%s\"", name,
            ch->value ? ch->value : "", o->layer == CONFIG_CLUSTER ? "cluster" : "broker",
            e != ERR_NONE ? why
            : ch->value   ? "changed"
                          : "no longer stored");
    }
}

/* One key is stored under one name, whichever of its two was given. */
static u32 alter_broker_ops(const struct broker_change *ch, const char *prefix, struct arena *a,
                            struct meta_op ops[2])
{
    const struct config_def *d = &config_defs[ch->key];
    const char *key = arena_printf(a, "%s%s", prefix, d->name);
    const char *other = arena_printf(a, "%s%s", prefix, d->kafka ? d->kafka : "");
    CHECK(key && other); /* the arena has room for all of a request */
    ops[0] = (struct meta_op){ ch->value ? META_PUT : META_DELETE, bytes_str(key),
                               bytes_str(ch->value ? ch->value : "") };
    ops[1] = (struct meta_op){ META_DELETE, bytes_str(other), { NULL, 0 } };
    return d->kafka ? 2 : 1;
}

static err alter_broker_write(struct alter_broker_op *o, struct arena *a)
{
    struct meta *m = o->op->call->at->node->env.meta;
    struct meta_op *unknown;
    u32 n;
    err e = unknown_configs_ops(m, o->layer, o->unknown, o->unknown_count, o->replaces, a, &unknown,
                                &n);
    if (e != ERR_NONE)
        return e;
    struct meta_op *ops = arena_alloc(a, (2 * (u64)o->count + n) * sizeof *ops);
    if (!ops)
        return ERR_NO_MEMORY;
    if (n > 0)
        memcpy(ops, unknown, n * sizeof *ops);
    for (u32 i = 0; i < o->count; i++)
        n += alter_broker_ops(&o->changes[i], broker_config_prefix(o->layer), a, &ops[n]);
    struct meta_txn t = { .ops = ops, .op_count = n };
    return n > 0 ? meta_commit(m, &t) : ERR_NONE;
}

static void alter_broker_commit(struct bg_job *j)
{
    struct alter_broker_op *o = container_of(j, struct alter_broker_op, job);
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    o->err = alter_broker_write(o, &a);
    arena_free(&a);
    if (o->err == ERR_NONE)
        alter_broker_apply(o);
}

static void alter_broker_committed(struct bg_job *j)
{
    struct alter_broker_op *o = container_of(j, struct alter_broker_op, job);
    o->r->error_code = (i16)err_to_kafka(o->err);
    if (o->err == ERR_POLICY_VIOLATION)
        o->r->error_message = text_of(o->op->call,
                                      "At most %u configs that nobody knows are kept for a broker, "
                                      "and as many for all of them.",
                                      UNKNOWN_CONFIGS_MAX);
    topics_op_release(o->op);
}

/* APPEND and SUBTRACT work on what the layer stores, else on the default, as Kafka's do. NULL:
 * memory. */
static err list_change(struct call *c, enum config_source layer, enum config_key k, bool append,
                       const char *items, const char **value, char *why, size_t why_size)
{
    const struct config *cfg = c->at->node->cfg;
    const struct config_def *d = &config_defs[k];
    char buf[CONFIG_VALUE_SIZE];
    i64 now, change;
    err e = config_parse(d, d->def, &now, why, why_size);
    if (e == ERR_NONE)
        e = config_parse(d, items, &change, why, why_size);
    if (e != ERR_NONE)
        return ERR_INVALID_REQUEST;
    if (config_stored(cfg, layer, k) != CONFIG_UNSET)
        now = config_stored(cfg, layer, k);
    now = append ? now | change : now & ~change;
    *value = arena_printf(c->arena, "%s", config_format(d, now, false, buf, sizeof buf));
    return *value ? ERR_NONE : ERR_UNKNOWN_SERVER_ERROR;
}

static err broker_change_value(struct call *c, enum config_source layer, const alter_entry *k,
                               struct broker_change *ch, char *why, size_t why_size)
{
    const struct config_def *d = &config_defs[ch->key];
    if (k->config_operation == TOPIC_OP_DELETE)
        return ERR_NONE;
    const char *given = arena_printf(c->arena, "%.*s", (int)MIN(k->value.len, (u32)TOPIC_VALUE_MAX),
                                     (const char *)k->value.data);
    ch->value = given;
    if (!given)
        return ERR_UNKNOWN_SERVER_ERROR;
    if (k->config_operation != TOPIC_OP_SET) {
        bool append = k->config_operation == TOPIC_OP_APPEND;
        snprintf(why, why_size, "Can't %s to key %s because its type is not LIST.",
                 append ? "APPEND" : "SUBTRACT", d->name);
        err e = d->type == CONFIG_LIST
                    ? list_change(c, layer, ch->key, append, given, &ch->value, why, why_size)
                    : ERR_INVALID_CONFIG;
        if (e != ERR_NONE)
            return e;
    }
    bool good = config_check(c->at->node->cfg, d->name, ch->value, why, why_size) == ERR_NONE;
    return good ? ERR_NONE : ERR_INVALID_REQUEST; /* Kafka's answer, where a topic's is 40 */
}

static err broker_change_check(struct alter_broker_op *o, const alter_entry *k,
                               struct broker_change *ch, struct bytes *text)
{
    struct call *c = o->op->call;
    char why[512] = "";
    err e = ERR_INVALID_REQUEST;
    if (config_defs[ch->key].change == CONFIG_STATIC)
        snprintf(why, sizeof why, "Cannot update %s: it needs a restart.",
                 config_defs[ch->key].name);
    else
        e = broker_change_value(c, o->layer, k, ch, why, sizeof why);
    if (e != ERR_NONE)
        *text = text_of(c, "%s", why);
    return e;
}

/* Sorts the changes into those of known keys and of others. */
static err alter_broker_checked(struct alter_broker_op *o, const alter_resource *q,
                                struct bytes *text)
{
    struct call *c = o->op->call;
    i32 n = MAX(q->configs.n, 0);
    struct broker_change *known = CALL_ARRAY(c, struct broker_change, n);
    struct unknown_change *unknown = CALL_ARRAY(c, struct unknown_change, n);
    err e = known && unknown ? ERR_NONE : ERR_UNKNOWN_SERVER_ERROR;
    o->changes = known;
    o->unknown = unknown;
    for (i32 i = 0; e == ERR_NONE && i < n; i++) {
        const alter_entry *k = &q->configs.v[i];
        enum config_key key = broker_config_find(k->name);
        e = config_change_form(c, q, i, text);
        if (e != ERR_NONE)
            return e;
        bool put = k->config_operation != TOPIC_OP_DELETE;
        if (key != CFG_COUNT && !put && config_defs[key].change == CONFIG_STATIC)
            continue; /* never stored */
        if (key != CFG_COUNT) {
            known[o->count] = (struct broker_change){ .key = key };
            e = broker_change_check(o, k, &known[o->count++], text);
        } else {
            unknown[o->unknown_count++] =
                (struct unknown_change){ k->name, put ? k->value : (struct bytes){ NULL, 0 } };
            e = unknown_config_check(c, k, text);
        }
    }
    return e;
}

void broker_alter(struct topics_op *op, const alter_resource *q, alter_result *r)
{
    struct call *c = op->call;
    enum config_source layer;
    r->error_code = (i16)broker_resource(c, q->resource_name, &layer, &r->error_message);
    if (r->error_code == ERR_NONE && q->configs.n > BROKER_CONFIG_KEYS_MAX) {
        r->error_message =
            text_of(c, "At most %d keys may be changed at once.", BROKER_CONFIG_KEYS_MAX);
        r->error_code = ERR_INVALID_REQUEST;
    }
    if (r->error_code != ERR_NONE)
        return;
    struct alter_broker_op *o = arena_alloc(c->arena, sizeof *o);
    if (!o) {
        r->error_code = ERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    *o = (struct alter_broker_op){
        .op = op, .layer = layer, .replaces = c->api->handle == handle_alter_configs, .r = r
    };
    r->error_code = (i16)alter_broker_checked(o, q, &r->error_message);
    bool nothing = o->count + o->unknown_count == 0 && !o->replaces;
    if (r->error_code != ERR_NONE || nothing ||
        CALL_REQ(c, incremental_alter_configs_request)->validate_only)
        return;
    op->outstanding++;
    bg_submit(&c->at->shard, &o->job, BG_META, alter_broker_commit, alter_broker_committed);
}

/* ---- at start ---- */

struct broker_load {
    struct config *cfg;
    enum config_source layer;
    u32 unknown;
};

static err broker_config_load(void *arg, const struct meta_kv *kv)
{
    struct broker_load *load = arg;
    u32 skip = (u32)strlen(broker_config_prefix(load->layer));
    struct bytes key = bytes_of(kv->key.data + skip, kv->key.len - skip);
    enum config_key k = broker_config_find(key);
    load->unknown += k == CFG_COUNT;
    if (k == CFG_COUNT)
        return ERR_NONE;
    char *value = mem_strndup(kv->value);
    char why[512];
    const char *name = config_defs[k].name;
    if (config_set_stored(load->cfg, load->layer, name, value, why, sizeof why) != ERR_NONE)
        LOG(WARN, stored_config_refused, "key=%s why=\"%s\"", name, why);
    mem_free(value);
    return ERR_NONE;
}

err broker_configs_load(struct node *n)
{
    err e = ERR_NONE;
    struct broker_load load = { .cfg = n->cfg };
    for (u32 i = 0; i < CONFIG_STORED_LAYERS && e == ERR_NONE; i++) {
        load.layer = (enum config_source)(CONFIG_CLUSTER + i);
        e = meta_range(n->env.meta, bytes_str(broker_config_prefix(load.layer)), broker_config_load,
                       &load);
    }
    if (load.unknown > 0)
        LOG(INFO, unknown_configs_kept, "count=%u effect=\"none: nobody knows them\"",
            load.unknown);
    return e;
}
