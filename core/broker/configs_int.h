/* What the files of the config APIs share: configs.c (requests, topics), broker_configs.c,
 * kept_configs.c (groups, client metrics), logger_configs.c. */
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
void config_entry_init(describe_entry *r, const char *name);
/* Room for n synonyms, none yet, when the request wants them; false: the arena's limit. */
bool config_synonyms_room(struct call *c, describe_entry *r, u32 n);
/* Adds one if there is room for synonyms. */
void config_synonym_put(describe_entry *r, const char *name, struct bytes value, i8 source);
/* What is wrong with the i-th change whatever it is about; ERR_NONE: nothing. */
err config_change_form(struct call *c, const alter_resource *q, i32 i, struct bytes *text);

/* ---- broker_configs.c ---- */
/* Is the broker of that id here? `text` says why not. */
err config_broker_named(struct call *c, struct bytes name, struct bytes *text);
/* false: the arena's limit. */
bool broker_describe(struct call *c, const describe_resource *q, describe_result *r);
void broker_alter(struct topics_op *op, const alter_resource *q, alter_result *r);

/* ---- kept_configs.c ---- */
bool kept_kind(i8 kind);
/* Of the keys that resources of the kind have in the metadata store; <config>/<name> follows. */
const char *kept_prefix(i8 kind);
/* The i-th config that resources of the kind have; NULL: there are no more. */
const char *kept_name(i8 kind, u32 i);
/* Reads what is stored of the resources that a DescribeConfigs names, then goes on; at once when it
 * names none. The result is c->user. */
void kept_load(struct call *c, void (*then)(struct call *c));
void kept_load_end(struct call *c);
/* Of the i-th resource; false: the arena's limit. */
bool kept_describe(struct call *c, i32 i, describe_result *r);
void kept_alter(struct topics_op *op, const alter_resource *q, alter_result *r);

/* ---- logger_configs.c ---- */
bool logger_describe(struct call *c, const describe_resource *q, describe_result *r);
void logger_alter(struct topics_op *op, const alter_resource *q, alter_result *r);

#endif
