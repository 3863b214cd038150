/* What the administration endpoint tells about this node; see node_admin.h. */
#include "node_admin.h"

#include <stdio.h>
#include <string.h>

#include "../broker/broker_int.h"
#include "admin.h"
#include "check.h"
#include "log.h"
#include "mem.h"

struct node_admin {
    struct admin_ops ops;
    struct metric_registry registry;
    struct node *node;
    struct admin *http;    /* NULL when admin.listen is empty */
    const char *not_ready; /* atomic; NULL when ready */
    char io_text[512];     /* what the kernel offers; written before the node is ready */
};

static bool node_ready(struct admin_ops *ops, char *why, size_t why_size)
{
    struct node_admin *a = container_of(ops, struct node_admin, ops);
    const char *reason = __atomic_load_n(&a->not_ready, __ATOMIC_ACQUIRE);
    if (reason)
        snprintf(why, why_size, "%s", reason);
    return !reason;
}

/* A JSON string; control characters, which no valid address or URL has, become '?'. */
static void add_string(struct metric_text *out, const char *name, const char *value)
{
    metric_text_add(out, ",\"%s\":\"", name);
    for (const char *p = value; *p; p++) {
        if (*p == '"' || *p == '\\')
            metric_text_add(out, "\\%c", *p);
        else
            metric_text_add(out, "%c", (u8)*p < ' ' ? '?' : *p);
    }
    metric_text_add(out, "\"");
}

static void add_shard(struct metric_text *out, const struct metrics *m, u32 index, u16 port)
{
    metric_text_add(out,
                    "%s{\"port\":%u,\"partitions\":%" PRIu64 ",\"connections\":%" PRIu64
                    ",\"wal_used_bytes\":%" PRIu64 ",\"wal_durable_lsn\":%" PRIu64
                    ",\"segment_memory_bytes\":%" PRIu64 ",\"cache_bytes\":%" PRIu64 "}",
                    index ? "," : "", port, metric_get(m, M_partitions),
                    metric_get(m, M_connections), metric_get(m, M_wal_used_bytes),
                    metric_get(m, M_wal_durable_lsn), metric_get(m, M_segment_memory_bytes),
                    metric_get(m, M_cache_bytes));
}

static void node_status(struct admin_ops *ops, struct metric_text *out)
{
    const struct node_admin *a = container_of(ops, struct node_admin, ops);
    const struct node *n = a->node;
    char why[128];
    add_string(out, "cluster_id", n->cluster_id);
    add_string(out, "advertise", n->advertise_shards ? "shard" : "node");
    add_string(out, "host", n->host);
    add_string(out, "store", config_str(n->cfg, CFG_store_url));
    add_string(out, "meta", config_str(n->cfg, CFG_meta_url));
    if (node_ready(ops, why, sizeof why))
        add_string(out, "io", a->io_text);
    metric_text_add(out, ",\"shards\":[");
    for (u32 i = 0; i < n->group.count; i++)
        add_shard(out, n->brokers[i]->shard.metrics, i, n->ports[n->advertise_shards ? i : 0]);
    metric_text_add(out, "]");
}

static const char *api_name(i32 key)
{
    const struct api *api = key >= 0 && key <= INT16_MAX ? api_find((i16)key) : NULL;
    return api ? api->name : NULL;
}

static void on_config_change(struct config *cfg, enum config_key key, void *arg)
{
    const struct node_admin *a = arg;
    if (key == CFG_log_level)
        CHECK(log_set_level(config_str(cfg, CFG_log_level)));
    if (topic_config_uses(key))
        topic_defaults_changed(a->node);
}

err node_admin_start(struct node *n, struct node_admin **out, char *why, size_t why_size)
{
    struct node_admin *a = MEM_NEW(struct node_admin);
    a->node = n;
    a->ops.ready = node_ready;
    a->ops.status = node_status;
    a->not_ready = "recovering";
    a->registry.api_name = api_name;
    for (u32 i = 0; i < n->group.count; i++)
        metric_registry_add(&a->registry, n->brokers[i]->shard.metrics);
    err e = admin_start(n->cfg, &a->registry, &a->ops, &a->http, why, why_size);
    if (e) {
        mem_free(a);
        *out = NULL;
        return e;
    }
    config_listen(n->cfg, on_config_change, a);
    *out = a;
    return ERR_NONE;
}

void node_admin_stopping(struct node_admin *a)
{
    topic_defaults_close(a->node);
    __atomic_store_n(&a->not_ready, "stopping", __ATOMIC_RELEASE);
}

void node_admin_ready(struct node_admin *a)
{
    /* Shards create their io on their own threads; it is there once the node is ready. */
    snprintf(a->io_text, sizeof a->io_text, "%s", io_features(a->node->brokers[0]->shard.io)->text);
    __atomic_store_n(&a->not_ready, NULL, __ATOMIC_RELEASE);
}

void node_admin_stop(struct node_admin *a)
{
    if (!a)
        return;
    admin_stop(a->http);
    mem_free(a);
}
