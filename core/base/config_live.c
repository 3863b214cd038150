/* Changes of a running node's configuration: leatctl, Kafka's AlterConfigs, and the files read
 * again. Layers, the first that has a value wins:
 *
 *   live    set by leatctl; not kept
 *   stored  set by Kafka's AlterConfigs; the metadata store keeps it: for the broker (STORED),
 *           then for all brokers (CLUSTER)
 *   base    command line, files, default: what a start would find
 *
 * The rule for reading the files again: they are asked what changed in them, not what differs from
 * the running node. So an operator's live change survives a reload that is about another key, and
 * an edit of the file for that very key is taken as the newer word. A stored change stays in any
 * case, as in Kafka: it would come back at the next start.
 */
#include "config.h"

#include <string.h>

#include "bytes.h"
#include "check.h"
#include "config_int.h"
#include "mem.h"

/* For config_agrees: the numbers, and the strings, which belong to cfg. The caller frees it. */
static struct config *values_copy(const struct config *cfg)
{
    struct config *copy = MEM_NEW(struct config);
    for (u32 k = 0; k < CFG_COUNT; k++)
        copy->values[k] = config_i64(cfg, (enum config_key)k);
    memcpy(copy->strings, cfg->strings, sizeof copy->strings);
    return copy;
}

static err find_dynamic(const struct config *cfg, const char *name, enum config_key *k, char *why,
                        size_t why_size)
{
    MAGIC_CHECK(cfg, CONFIG_MAGIC);
    CHECK(cfg->frozen);
    err e = config_find_or_why(name, k, why, why_size);
    if (e || config_defs[*k].change == CONFIG_DYNAMIC)
        return e;
    config_why(why, why_size, "%s needs a restart: set it in leat.conf and restart the node",
               config_defs[*k].name);
    return ERR_POLICY_VIOLATION;
}

static err agrees_with(const struct config *cfg, enum config_key k, i64 v, char *why,
                       size_t why_size)
{
    struct config *scratch = values_copy(cfg);
    scratch->values[k] = v;
    err e = config_agrees(scratch, why, why_size);
    mem_free(scratch);
    return e;
}

static void store_and_tell(struct config *cfg, enum config_key k, i64 v, enum config_source source)
{
    config_store(cfg, k, v, source);
    for (u32 i = 0; i < cfg->listener_count; i++)
        cfg->listeners[i].fn(cfg, k, cfg->listeners[i].arg);
}

err config_set_live(struct config *cfg, const char *name, const char *value, char *why,
                    size_t why_size)
{
    enum config_key k;
    i64 v = 0;
    pthread_mutex_lock(&cfg->change_lock);
    err e = find_dynamic(cfg, name, &k, why, why_size);
    if (!e)
        e = config_parse(&config_defs[k], value, &v, why, why_size);
    if (!e)
        e = agrees_with(cfg, k, v, why, why_size);
    if (!e)
        store_and_tell(cfg, k, v, CONFIG_LIVE);
    pthread_mutex_unlock(&cfg->change_lock);
    return e;
}

/* The strongest layer that stores the key; CONFIG_DEFAULT: none. */
static enum config_source stored_layer(const struct config *cfg, enum config_key k)
{
    for (int layer = CONFIG_STORED; layer >= CONFIG_CLUSTER; layer--)
        if (config_stored(cfg, (enum config_source)layer, k) != CONFIG_UNSET)
            return (enum config_source)layer;
    return CONFIG_DEFAULT;
}

/* Goes back to the layers below the live one. */
static err drop_live(struct config *cfg, enum config_key k, char *why, size_t why_size)
{
    enum config_source source = stored_layer(cfg, k);
    bool stored = source != CONFIG_DEFAULT;
    i64 v = stored ? config_stored(cfg, source, k) : cfg->base_values[k];
    if (!stored)
        source = (enum config_source)cfg->base_sources[k];
    err e = agrees_with(cfg, k, v, why, why_size);
    if (!e)
        store_and_tell(cfg, k, v, source);
    return e;
}

err config_reset_live(struct config *cfg, const char *name, char *why, size_t why_size)
{
    enum config_key k;
    pthread_mutex_lock(&cfg->change_lock);
    err e = find_dynamic(cfg, name, &k, why, why_size);
    if (!e)
        e = drop_live(cfg, k, why, why_size);
    pthread_mutex_unlock(&cfg->change_lock);
    return e;
}

err config_set_stored(struct config *cfg, enum config_source layer, const char *name,
                      const char *value, char *why, size_t why_size)
{
    enum config_key k;
    i64 v = CONFIG_UNSET;
    CHECK(layer == CONFIG_CLUSTER || layer == CONFIG_STORED);
    pthread_mutex_lock(&cfg->change_lock);
    err e = find_dynamic(cfg, name, &k, why, why_size);
    if (!e && value)
        e = config_parse(&config_defs[k], value, &v, why, why_size);
    if (!e && value)
        e = agrees_with(cfg, k, v, why, why_size);
    if (!e) {
        __atomic_store_n(&cfg->stored_values[layer - CONFIG_CLUSTER][k], v, __ATOMIC_RELAXED);
        e = drop_live(cfg, k, why, why_size);
    }
    pthread_mutex_unlock(&cfg->change_lock);
    return e;
}

err config_check(const struct config *cfg, const char *name, const char *value, char *why,
                 size_t why_size)
{
    enum config_key k;
    i64 v;
    err e = find_dynamic(cfg, name, &k, why, why_size);
    if (!e)
        e = config_parse(&config_defs[k], value, &v, why, why_size);
    return e ? e : agrees_with(cfg, k, v, why, why_size);
}

/* ---- the files again ---- */

static bool takes_over(const struct config *cfg, const struct config *fresh, u32 k)
{
    return config_defs[k].change == CONFIG_DYNAMIC &&
           stored_layer(cfg, (enum config_key)k) == CONFIG_DEFAULT &&
           cfg->base_values[k] != fresh->base_values[k];
}

/* What a key that is read at start only would be at the next one. */
static bool restart_differs(const struct config *cfg, const struct config *fresh, u32 k)
{
    if (!config_is_number(config_defs[k].type))
        return strcmp(cfg->strings[k], fresh->strings[k]) != 0;
    return config_defs[k].change == CONFIG_STATIC && cfg->base_values[k] != fresh->base_values[k];
}

static void reload_key(struct config *cfg, const struct config *fresh, enum config_key k,
                       config_reloaded_fn told, void *arg)
{
    if (restart_differs(cfg, fresh, k)) {
        told(arg, k, CONFIG_RELOAD_RESTART); /* the base stays: told again until the restart */
        return;
    }
    bool changed = takes_over(cfg, fresh, k);
    bool base_rules = config_source(cfg, k) < CONFIG_CLUSTER;
    __atomic_store_n(&cfg->base_values[k], fresh->base_values[k], __ATOMIC_RELAXED);
    __atomic_store_n(&cfg->base_sources[k], fresh->base_sources[k], __ATOMIC_RELAXED);
    if (changed) {
        store_and_tell(cfg, k, fresh->base_values[k], (enum config_source)fresh->base_sources[k]);
        told(arg, k, CONFIG_RELOAD_CHANGED);
    } else if (base_rules) {
        config_store(cfg, k, config_i64(cfg, k), (enum config_source)fresh->base_sources[k]);
    } else if (config_i64(cfg, k) != fresh->base_values[k]) {
        told(arg, k, CONFIG_RELOAD_KEPT);
    }
}

err config_reload(struct config *cfg, const struct config *fresh, config_reloaded_fn told,
                  void *arg, char *why, size_t why_size)
{
    MAGIC_CHECK(cfg, CONFIG_MAGIC);
    CHECK(cfg->frozen && fresh->frozen);
    pthread_mutex_lock(&cfg->change_lock);
    struct config *after = values_copy(cfg);
    for (u32 k = 0; k < CFG_COUNT; k++)
        if (takes_over(cfg, fresh, k))
            after->values[k] = fresh->base_values[k];
    err e = config_agrees(after, why, why_size);
    mem_free(after);
    for (u32 k = 0; k < CFG_COUNT && !e; k++)
        reload_key(cfg, fresh, (enum config_key)k, told, arg);
    pthread_mutex_unlock(&cfg->change_lock);
    return e;
}

void config_listen(struct config *cfg, config_changed_fn fn, void *arg)
{
    CHECK(cfg->listener_count < CONFIG_LISTENERS_MAX);
    cfg->listeners[cfg->listener_count].fn = fn;
    cfg->listeners[cfg->listener_count].arg = arg;
    cfg->listener_count++;
}
