/* Configs of brokers that nobody knows. Kafka takes and keeps them (a plugin might read them) and
 * describes them without a value, for it might be a secret; nothing else ever comes of them. So do
 * we: their values lie in the metadata store beside those of the keys that are known, nothing of
 * them is in memory, and all are read for each DescribeConfigs of a broker, on the background
 * thread.
 *
 *  1. What Kafka knows and Leat does not is refused, not kept (kafka_configs.def): whoever sets it
 *     would rely on what does not happen. What tunes a machinery that Leat does not have is a key
 *     as any other, without effect (config.def, "Kept for Kafka's tools").
 *  2. There are at most UNKNOWN_CONFIGS_MAX for the broker and as many for all brokers, each with a
 *     name of UNKNOWN_NAME_MAX bytes and a value of TOPIC_VALUE_MAX.
 *  3. A later Leat may know a key that this one keeps: from then on it is a stored value as any
 *     other, or refused at the start with a message.
 */
#include <stdio.h>

#include "check.h"
#include "configs_int.h"
#include "topic_config.h"

#define UNKNOWN_NAME_MAX 400u
_Static_assert(UNKNOWN_NAME_MAX + 64 < META_KEY_MAX, "names fit into keys");

static const char *const kafka_names[] = {
#define KAFKA_CONFIG(name, change) name,
#include "kafka_configs.def"
#undef KAFKA_CONFIG
};

/* ---- reading: background thread ---- */

struct unknown_read {
    const char *prefix;
    struct arena *arena;
    struct unknown_names *out;
};

static err unknown_add(void *arg, const struct meta_kv *kv)
{
    const struct unknown_read *r = arg;
    struct unknown_names *names = r->out;
    u32 skip = (u32)strlen(r->prefix);
    struct bytes name = bytes_of(kv->key.data + skip, kv->key.len - skip);
    if (broker_config_find(name) != CFG_COUNT)
        return ERR_NONE;
    if (names->count == names->cap) {
        u32 cap = MAX(2 * names->cap, 16u);
        struct bytes *more = arena_alloc(r->arena, cap * sizeof *more);
        if (!more)
            return ERR_NO_MEMORY;
        if (names->count > 0)
            memcpy(more, names->v, names->count * sizeof *more);
        names->v = more;
        names->cap = cap;
    }
    struct bytes copy = arena_copy(r->arena, name);
    if (name.len > 0 && !copy.data)
        return ERR_NO_MEMORY;
    names->v[names->count++] = copy;
    return ERR_NONE;
}

err unknown_configs_read(struct meta *m, enum config_source layer, struct arena *a,
                         struct unknown_names *out)
{
    struct unknown_read r = { broker_config_prefix(layer), a, out };
    *out = (struct unknown_names){ NULL, 0, 0 };
    return meta_range(m, bytes_str(r.prefix), unknown_add, &r);
}

/* ---- describing ---- */

static bool name_wanted(const describe_resource *q, struct bytes name)
{
    for (i32 i = 0; i < q->configuration_keys.n; i++)
        if (bytes_eq(q->configuration_keys.v[i], name))
            return true;
    return q->configuration_keys.n <= 0;
}

/* Without value, as Kafka describes what it does not know the type of. */
static bool describe_unknown(struct call *c, struct bytes name, bool broker, bool cluster,
                             describe_entry *r)
{
    struct bytes none = { NULL, 0 };
    i8 of_broker = config_kafka_source(CONFIG_STORED);
    i8 of_cluster = config_kafka_source(CONFIG_CLUSTER);
    config_entry_init(r, arena_copy(c->arena, name));
    r->value = none;
    r->read_only = true;
    r->is_sensitive = true;
    r->config_source = broker ? of_broker : of_cluster;
    r->config_type = 0;
    if ((name.len > 0 && !r->name.data) || !config_synonyms_room(c, r, 2))
        return false;
    if (broker)
        config_synonym_put(r, r->name, none, of_broker);
    if (cluster)
        config_synonym_put(r, r->name, none, of_cluster);
    return true;
}

bool unknown_configs_describe(struct call *c, const describe_resource *q,
                              const struct unknown_names *own, const struct unknown_names *all,
                              describe_result *r)
{
    for (u32 i = 0, k = 0; i < own->count || k < all->count;) {
        int order = i == own->count ? 1 : k == all->count ? -1 : bytes_cmp(own->v[i], all->v[k]);
        struct bytes name = order <= 0 ? own->v[i] : all->v[k];
        i += order <= 0;
        k += order >= 0;
        if (name_wanted(q, name) &&
            !describe_unknown(c, name, order <= 0, order >= 0, &r->configs.v[r->configs.n++]))
            return false;
    }
    return true;
}

/* ---- changing ---- */

static bool kafka_knows(struct bytes name)
{
    static const char listener[] = "listener.name.";
    u32 n = sizeof listener - 1;
    if (name.len >= n && memcmp(name.data, listener, n) == 0)
        return true;
    for (u32 i = 0; i < ARRAY_COUNT(kafka_names); i++)
        if (bytes_eq_str(name, kafka_names[i]))
            return true;
    return false;
}

/* Why a config that Kafka knows is not taken. Those of security would be trusted. */
static const char *refusal(struct bytes name)
{
    static const struct {
        const char *prefix, *why;
    } reasons[] = {
        { "ssl.", "Leat's listener has no TLS yet, so it would protect nothing" },
        { "sasl.", "Leat's listener has no SASL yet, so it would protect nothing" },
        { "principal.", "Leat's listener has no principals yet, so it would protect nothing" },
        { "listener",
          "Leat has one listener without TLS and SASL, set by net.listen at its start" },
    };
    for (u32 i = 0; i < ARRAY_COUNT(reasons); i++) {
        u32 n = (u32)strlen(reasons[i].prefix);
        if (name.len >= n && memcmp(name.data, reasons[i].prefix, n) == 0)
            return reasons[i].why;
    }
    return "Leat does not have this config of Apache Kafka";
}

err unknown_config_check(struct call *c, const alter_entry *k, struct bytes *why)
{
    int shown = (int)MIN(k->name.len, 200u);
    const char *name = k->name.len > 0 ? (const char *)k->name.data : "";
    if (k->config_operation == TOPIC_OP_DELETE)
        return ERR_NONE;
    if (kafka_knows(k->name))
        *why = text_of(c, "Cannot update %.*s: %s.", shown, name, refusal(k->name));
    else if (k->config_operation != TOPIC_OP_SET) {
        *why = text_of(c, "Unknown config name: %.*s", shown, name);
        return ERR_INVALID_CONFIG;
    } else if (k->name.len > UNKNOWN_NAME_MAX)
        *why = text_of(c, "The name of an unknown config is too long: at most %u bytes.",
                       UNKNOWN_NAME_MAX);
    CHECK(k->value.len <= TOPIC_VALUE_MAX); /* of any string: the codec's bound */
    return why->data ? ERR_INVALID_REQUEST : ERR_NONE;
}

static struct meta_op unknown_op(enum config_source layer, enum meta_op_kind kind,
                                 struct bytes name, struct bytes value, struct arena *a)
{
    char buf[META_KEY_MAX];
    int n = snprintf(buf, sizeof buf, "%s", broker_config_prefix(layer));
    CHECK((u32)n + name.len <= sizeof buf);
    if (name.len > 0)
        memcpy(buf + n, name.data, name.len);
    return (struct meta_op){ kind, arena_copy(a, bytes_of(buf, (u32)n + name.len)), value };
}

static const struct unknown_change *change_of(const struct unknown_change *v, u32 count,
                                              struct bytes name)
{
    for (u32 i = 0; i < count; i++)
        if (bytes_eq(v[i].name, name))
            return &v[i];
    return NULL;
}

err unknown_configs_ops(struct meta *m, enum config_source layer, const struct unknown_change *v,
                        u32 count, bool replaces, struct arena *a, struct meta_op **out, u32 *n)
{
    struct unknown_names stored;
    err e = unknown_configs_read(m, layer, a, &stored);
    struct meta_op *ops = arena_alloc(a, (u64)(count + stored.count) * sizeof *ops);
    u32 puts = 0, kept = 0;
    if (e == ERR_NONE && !ops)
        e = ERR_NO_MEMORY;
    *n = 0;
    *out = ops;
    for (u32 i = 0; e == ERR_NONE && i < count; i++) {
        bool put = v[i].value.data != NULL;
        puts += put;
        if (v[i].name.len <= UNKNOWN_NAME_MAX) /* a longer one is not there */
            ops[(*n)++] = unknown_op(layer, put ? META_PUT : META_DELETE, v[i].name, v[i].value, a);
    }
    for (u32 i = 0; e == ERR_NONE && i < stored.count; i++) {
        if (change_of(v, count, stored.v[i]))
            continue;
        kept += !replaces;
        if (replaces)
            ops[(*n)++] = unknown_op(layer, META_DELETE, stored.v[i], (struct bytes){ NULL, 0 }, a);
    }
    for (u32 i = 0; e == ERR_NONE && i < *n; i++)
        if (!ops[i].key.data)
            e = ERR_NO_MEMORY;
    return e == ERR_NONE && puts > 0 && kept + puts > UNKNOWN_CONFIGS_MAX ? ERR_POLICY_VIOLATION
                                                                          : e;
}
