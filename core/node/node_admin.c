/* What the administration endpoint tells about this node; see node_admin.h. */
#include "node_admin.h"

#include <stdio.h>
#include <string.h>

#include "../broker/broker_int.h"
#include "admin.h"
#include "check.h"
#include "log.h"
#include "mem.h"
#include "node_pages.h"

struct node_admin {
    struct admin_ops ops;
    struct metric_registry registry;
    struct node *node;
    struct admin *http;    /* NULL when admin.listen is empty */
    const char *not_ready; /* atomic; NULL when ready */
    struct node_pages *pages;
    char io_text[512]; /* what the kernel offers; written before the node is ready */
};

/* ---- health of the shards ---- */

/* Worse ones later. */
enum shard_health { SHARD_OK, SHARD_UPLOADS_FAIL, SHARD_FULL, SHARD_READ_ONLY };

static const char *const health_names[] = { "ok", "uploads fail", "full", "read-only" };

/* From the gauges that its storage engine keeps; they may be a turn old. `why` says what and the
 * remedy, "" when all is well. */
static enum shard_health shard_health(const struct metrics *m, char *why, size_t why_size)
{
    err wal = (err) - (i64)metric_get(m, M_wal_failed);
    err upload = (err) - (i64)metric_get(m, M_upload_error);
    u64 failures = metric_get(m, M_upload_failures);
    *why = '\0';
    if (wal == ERR_FENCED) {
        snprintf(why, why_size,
                 "read-only: another process has begun with this node's metadata; stop one of the "
                 "two");
        return SHARD_READ_ONLY;
    }
    if (wal != ERR_NONE) {
        snprintf(why, why_size,
                 "read-only: the write-ahead log failed (%s): producers get errors, consumers go "
                 "on; check the disk of wal.path, then restart the node",
                 err_text(wal));
        return SHARD_READ_ONLY;
    }
    if (metric_get(m, M_index_full) != 0) {
        snprintf(why, why_size,
                 "takes no records: the index of batches and blocks has reached index.memory: "
                 "producers wait, consumers go on; raise index.memory, or keep less (retention)");
        return SHARD_FULL;
    }
    if (failures == 0)
        return SHARD_OK;
    bool full = metric_get(m, M_wal_no_room) != 0;
    snprintf(why, why_size,
             "%s: uploads to the object store fail (%s, %" PRIu64 " times now)%s; %s",
             full ? "takes no records" : "fills up", err_text(upload), failures,
             full ? ": producers wait, consumers go on" : "",
             upload == ERR_DISK_FULL ? "free space where store.url and meta.url point: it goes on "
                                       "by itself then"
                                     : "see the log for the cause; it goes on by itself then");
    return full ? SHARD_FULL : SHARD_UPLOADS_FAIL;
}

static bool node_ready(struct admin_ops *ops, char *why, size_t why_size)
{
    struct node_admin *a = container_of(ops, struct node_admin, ops);
    const char *reason = __atomic_load_n(&a->not_ready, __ATOMIC_ACQUIRE);
    if (reason) {
        snprintf(why, why_size, "%s", reason);
        return false;
    }
    for (u32 i = 0; i < a->node->group.count; i++) {
        char text[400];
        if (shard_health(a->node->brokers[i]->shard.metrics, text, sizeof text) < SHARD_FULL)
            continue;
        snprintf(why, why_size, "shard %u %s", i, text);
        return false;
    }
    return true;
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
    char why[400];
    enum shard_health health = shard_health(m, why, sizeof why);
    metric_text_add(out, "%s{\"health\":\"%s\"", index ? "," : "", health_names[health]);
    if (*why)
        add_string(out, "health_text", why);
    metric_text_add(out,
                    ",\"port\":%u,\"partitions\":%" PRIu64 ",\"connections\":%" PRIu64
                    ",\"wal_used_bytes\":%" PRIu64 ",\"wal_durable_lsn\":%" PRIu64
                    ",\"segment_memory_bytes\":%" PRIu64 ",\"cache_bytes\":%" PRIu64 "}",
                    port, metric_get(m, M_partitions), metric_get(m, M_connections),
                    metric_get(m, M_wal_used_bytes), metric_get(m, M_wal_durable_lsn),
                    metric_get(m, M_segment_memory_bytes), metric_get(m, M_cache_bytes));
}

static void node_status(struct admin_ops *ops, struct metric_text *out)
{
    const struct node_admin *a = container_of(ops, struct node_admin, ops);
    const struct node *n = a->node;
    char why[512];
    if (!node_ready(ops, why, sizeof why))
        add_string(out, "not_ready_because", why);
    add_string(out, "cluster_id", n->cluster_id);
    add_string(out, "advertise", n->advertise_shards ? "shard" : "node");
    add_string(out, "host", n->host);
    add_string(out, "store", config_str(n->cfg, CFG_store_url));
    add_string(out, "meta", config_str(n->cfg, CFG_meta_url));
    if (!__atomic_load_n(&a->not_ready, __ATOMIC_ACQUIRE))
        add_string(out, "io", a->io_text);
    metric_text_add(out, ",\"shards\":[");
    for (u32 i = 0; i < n->group.count; i++)
        add_shard(out, n->brokers[i]->shard.metrics, i, n->ports[n->advertise_shards ? i : 0]);
    metric_text_add(out, "]");
}

static unsigned node_page(struct admin_ops *ops, const char *method, const char *path,
                          const char *body, struct metric_text *out)
{
    const struct node_admin *a = container_of(ops, struct node_admin, ops);
    return node_page_serve(a->pages, method, path, body, out);
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

static void store_metrics(struct metric_text *t, void *arg)
{
    struct store *s = arg;
    s->driver->metrics(s, t);
}

err node_admin_start(struct node *n, struct node_admin **out, char *why, size_t why_size)
{
    struct node_admin *a = MEM_NEW(struct node_admin);
    a->node = n;
    a->ops.ready = node_ready;
    a->ops.status = node_status;
    a->ops.page = node_page;
    a->pages = node_pages_create(n);
    a->not_ready = "recovering";
    a->registry.api_name = api_name;
    for (u32 i = 0; i < n->group.count; i++)
        metric_registry_add(&a->registry, n->brokers[i]->shard.metrics);
    if (n->env.store->driver->metrics)
        metric_registry_hook(&a->registry, store_metrics, n->env.store);
    err e = admin_start(n->cfg, &a->registry, &a->ops, &a->http, why, why_size);
    if (e) {
        node_pages_free(a->pages);
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
    node_pages_close(a->pages);
    __atomic_store_n(&a->not_ready, "stopping", __ATOMIC_RELEASE);
}

void node_admin_ready(struct node_admin *a)
{
    /* Shards create their io on their own threads; it is there once the node is ready. */
    snprintf(a->io_text, sizeof a->io_text, "%s", io_features(a->node->brokers[0]->shard.io)->text);
    node_pages_ready(a->pages);
    __atomic_store_n(&a->not_ready, NULL, __ATOMIC_RELEASE);
}

void node_admin_stop(struct node_admin *a)
{
    if (!a)
        return;
    admin_stop(a->http);
    node_pages_free(a->pages);
    mem_free(a);
}
