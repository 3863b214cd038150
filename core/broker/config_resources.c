/* ListConfigResources: what there are configs of. Topics and brokers are in this shard's tables; of
 * groups and client metrics those are listed of which something is kept, found in the metadata
 * store on the background thread. */
#include <stdlib.h>

#include "check.h"
#include "configs_int.h"

typedef struct list_config_resources_response_config_resource listed;

static const i8 kinds[] = { RESOURCE_GROUP, RESOURCE_METRICS, RESOURCE_LOGGER, RESOURCE_BROKER,
                            RESOURCE_TOPIC };
#define KINDS ((u32)ARRAY_COUNT(kinds))

struct list_op {
    struct bg_job job;
    struct call *call;
    u32 wanted; /* bits of RESOURCE_* */
    i8 kind;    /* that is read now */
    struct listed_name {
        struct bytes name;
        i8 kind;
    } * names;
    u32 count, cap;
    struct arena arena; /* of the names */
    err err;
};

/* ---- what is kept: background thread ---- */

static err name_add(void *arg, const struct meta_kv *kv)
{
    struct list_op *op = arg;
    u32 skip = (u32)strlen(kept_prefix(op->kind));
    const u8 *slash = memchr(kv->key.data + skip, '/', kv->key.len - skip);
    if (!slash)
        return ERR_NONE;
    u32 at = (u32)(slash - kv->key.data) + 1;
    struct bytes name = arena_copy(&op->arena, bytes_of(kv->key.data + at, kv->key.len - at));
    if (!name.data)
        return ERR_NO_MEMORY;
    if (op->count == op->cap) {
        op->cap = MAX(2 * op->cap, 64u);
        op->names = mem_realloc(op->names, op->cap * sizeof *op->names);
    }
    op->names[op->count++] = (struct listed_name){ name, op->kind };
    return ERR_NONE;
}

static int name_order(const void *a, const void *b)
{
    const struct listed_name *x = a, *y = b;
    int order = (x->kind > y->kind) - (x->kind < y->kind);
    return order ? order : bytes_cmp(x->name, y->name);
}

/* Of each the first; a resource has a key for each of its configs. */
static void names_unique(struct list_op *op)
{
    u32 kept = 0;
    if (op->count > 0)
        qsort(op->names, op->count, sizeof *op->names, name_order);
    for (u32 i = 0; i < op->count; i++)
        if (kept == 0 || name_order(&op->names[kept - 1], &op->names[i]) != 0)
            op->names[kept++] = op->names[i];
    op->count = kept;
}

static void list_read(struct bg_job *j)
{
    struct list_op *op = container_of(j, struct list_op, job);
    for (u32 i = 0; i < KINDS && op->err == ERR_NONE; i++) {
        op->kind = kinds[i];
        if (kept_kind(op->kind) && (op->wanted & (u32)op->kind))
            op->err = meta_range(op->call->at->node->env.meta, bytes_str(kept_prefix(op->kind)),
                                 name_add, op);
    }
    names_unique(op);
}

/* ---- the answer ---- */

static u32 brokers_here(const struct call *c)
{
    return c->at->node->advertise_shards ? c->at->shard.group->count : 1;
}

static bool list_brokers(struct call *c, i8 kind, listed *r)
{
    for (u32 i = 0; i < brokers_here(c); i++) {
        list_config_resources_response_config_resource_init(&r[i]);
        r[i].resource_name = text_of(c, "%d", broker_id_of_shard(c->at, i));
        r[i].resource_type = kind;
        if (!r[i].resource_name.data)
            return false;
    }
    return true;
}

static bool list_fill(struct call *c, const struct list_op *op)
{
    struct list_config_resources_response *resp = CALL_RESP(c, list_config_resources_response);
    u32 topics = HASH_CNT(hh_name, c->at->topics_by_name);
    listed *r = CALL_ARRAY(c, listed, op->count + 2 * brokers_here(c) + topics);
    u32 n = 0;
    bool fits = r != NULL;
    for (; fits && n < op->count; n++) {
        list_config_resources_response_config_resource_init(&r[n]);
        r[n].resource_name = arena_copy(c->arena, op->names[n].name);
        r[n].resource_type = op->names[n].kind;
        fits = r[n].resource_name.data != NULL;
    }
    for (i8 kind = RESOURCE_BROKER; fits && kind <= RESOURCE_LOGGER; kind *= 2)
        if (op->wanted & (u32)kind) {
            fits = list_brokers(c, kind, &r[n]);
            n += brokers_here(c);
        }
    struct topic_entry *e, *next;
    if (op->wanted & RESOURCE_TOPIC)
        HASH_ITER(hh_name, c->at->topics_by_name, e, next) {
            if (!fits)
                break;
            list_config_resources_response_config_resource_init(&r[n]);
            r[n].resource_name = arena_copy(c->arena, e->topic->name);
            r[n].resource_type = RESOURCE_TOPIC;
            fits = r[n++].resource_name.data != NULL;
        }
    resp->config_resources.v = r;
    resp->config_resources.n = (i32)n;
    return fits;
}

static void list_done(struct bg_job *j)
{
    struct list_op *op = container_of(j, struct list_op, job);
    struct call *c = op->call;
    bool fits = op->err != ERR_NONE || list_fill(c, op);
    CALL_RESP(c, list_config_resources_response)->error_code = (i16)err_to_kafka(op->err);
    mem_free(op->names);
    arena_free(&op->arena);
    if (fits)
        call_done(c);
    else
        call_malformed(c, "response memory limit");
}

/* false: a type that nobody knows. */
static bool list_wanted(const struct call *c, u32 *wanted)
{
    const struct list_config_resources_request *q = CALL_REQ(c, list_config_resources_request);
    u32 all = 0;
    for (u32 i = 0; i < KINDS; i++)
        all |= (u32)kinds[i];
    *wanted = c->header.request_api_version == 0 ? RESOURCE_METRICS : 0;
    for (i32 i = 0; i < q->resource_types.n; i++) {
        i8 kind = q->resource_types.v[i];
        if (kind <= 0 || !(all & (u32)kind) || (kind & (kind - 1)))
            return false;
        *wanted |= (u32)kind;
    }
    if (*wanted == 0)
        *wanted = all;
    return true;
}

void handle_list_config_resources(struct call *c)
{
    u32 wanted;
    struct list_op *op = arena_alloc(c->arena, sizeof *op);
    if (!op) {
        call_malformed(c, "request memory limit");
        return;
    }
    if (!list_wanted(c, &wanted)) {
        CALL_RESP(c, list_config_resources_response)->error_code = ERR_UNSUPPORTED_VERSION;
        call_done(c);
        return;
    }
    *op = (struct list_op){ .call = c, .wanted = wanted };
    arena_init(&op->arena, 4096, c->arena->limit_bytes);
    bg_submit(&c->at->shard, &op->job, BG_META, list_read, list_done);
}
