/* What the files of the config APIs share: configs.c (requests, topics), broker_configs.c,
 * unknown_configs.c, kept_configs.c (groups, client metrics), logger_configs.c. */
#ifndef LEAT_CONFIGS_INT_H
#define LEAT_CONFIGS_INT_H

#include "broker_int.h"
#include "controller_int.h"

enum config_resource {
    RESOURCE_TOPIC = 2,
    RESOURCE_BROKER = 4,
    RESOURCE_LOGGER = 8,
    RESOURCE_METRICS = 16,
    RESOURCE_GROUP = 32
};

typedef struct describe_configs_request_describe_configs_resource describe_resource;
typedef struct describe_configs_response_describe_configs_result describe_result;
typedef struct describe_configs_response_describe_configs_resource_result describe_entry;
typedef struct describe_configs_response_describe_configs_synonym describe_synonym;
typedef struct incremental_alter_configs_request_alter_configs_resource alter_resource;
typedef struct incremental_alter_configs_request_alterable_config alter_entry;
typedef struct incremental_alter_configs_response_alter_configs_resource_response alter_result;

/* ---- configs.c ---- */
/* Is the key asked for? No keys: all are. */
bool config_key_wanted(const describe_resource *q, const char *name);
/* An entry without value and synonyms. */
void config_entry_init(describe_entry *r, struct bytes name);
/* Room for n synonyms, none yet, when the request wants them; false: the arena's limit. */
bool config_synonyms_room(struct call *c, describe_entry *r, u32 n);
/* Adds one if there is room for synonyms. */
void config_synonym_put(describe_entry *r, struct bytes name, struct bytes value, i8 source);
/* What is wrong with the i-th change whatever it is about; ERR_NONE: nothing. */
err config_change_form(struct call *c, const alter_resource *q, i32 i, struct bytes *text);

/* ---- broker_configs.c ---- */
/* Is the broker of that id here? `text` says why not. */
err config_broker_named(struct call *c, struct bytes name, struct bytes *text);
/* false: the arena's limit. */
bool broker_describe(struct call *c, const describe_resource *q, describe_result *r);
void broker_alter(struct topics_op *op, const alter_resource *q, alter_result *r);
/* The dynamic or static key of either of its names; CFG_COUNT: nobody's. */
enum config_key broker_config_find(struct bytes name);
/* Of the keys that the layer has in the metadata store. */
const char *broker_config_prefix(enum config_source layer);

/* ---- unknown_configs.c ---- */
#define UNKNOWN_CONFIGS_MAX 1000u /* a layer */
struct unknown_names {            /* ascending */
    struct bytes *v;
    u32 count, cap;
};
struct unknown_change {
    struct bytes name, value; /* value.data NULL: it is kept no longer */
};
/* The names that are kept of a layer, in the arena. Background thread. */
err unknown_configs_read(struct meta *m, enum config_source layer, struct arena *a,
                         struct unknown_names *out);
/* Adds those that are asked for to r->configs, which has room for all; false: the arena's limit. */
bool unknown_configs_describe(struct call *c, const describe_resource *q,
                              const struct unknown_names *own, const struct unknown_names *all,
                              describe_result *r);
/* May it be changed so? `why` is null before. */
err unknown_config_check(struct call *c, const alter_entry *k, struct bytes *why);
/* What the changes write, in the arena; `replaces`: what they do not name goes. POLICY_VIOLATION:
 * there would be too many. Background thread. */
err unknown_configs_ops(struct meta *m, enum config_source layer, const struct unknown_change *v,
                        u32 count, bool replaces, struct arena *a, struct meta_op **out, u32 *n);

/* ---- kept_configs.c ---- */
bool kept_kind(i8 kind);
/* Of the keys that resources of the kind have in the metadata store; <config>/<name> follows. */
const char *kept_prefix(i8 kind);
/* The i-th config that resources of the kind have; NULL: there are no more. */
const char *kept_name(i8 kind, u32 i);
/* Reads what only the metadata store has of the resources that a DescribeConfigs names (groups,
 * client metrics, unknown configs of brokers), then goes on; at once when there can't be any. The
 * result is c->user. */
void kept_load(struct call *c, void (*then)(struct call *c));
void kept_load_end(struct call *c);
/* Of a layer of brokers, when the request names a broker. *e: whether they could be read. */
const struct unknown_names *kept_unknown(const struct call *c, enum config_source layer, err *e);
/* Of the i-th resource; false: the arena's limit. */
bool kept_describe(struct call *c, i32 i, describe_result *r);
void kept_alter(struct topics_op *op, const alter_resource *q, alter_result *r);

/* ---- logger_configs.c ---- */
bool logger_describe(struct call *c, const describe_resource *q, describe_result *r);
void logger_alter(struct topics_op *op, const alter_resource *q, alter_result *r);

#endif
