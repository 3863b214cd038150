/* See node_pages.h. */
#include "node_pages.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../broker/broker_int.h"
#include "mem.h"
#include "store_job.h"
#include "topic_clone.h"

#define VERIFY_RATE (64 * MIB)

enum { HTTP_OK = 200, HTTP_ACCEPTED = 202, HTTP_BAD = 400, HTTP_NOT_FOUND = 404 };
enum { HTTP_METHOD = 405, HTTP_CONFLICT = 409, HTTP_UNAVAILABLE = 503 };

struct node_pages {
    struct node *node;
    pthread_mutex_t lock; /* of the main thread and the admin thread */
    bool open;
    struct store_job *jobs[STORE_JOB_KINDS];
    struct topic_clone *clone;
};

static struct storage *storage_of(struct shard *s)
{
    return broker_of(s)->storage;
}

/* ---- life ---- */

struct node_pages *node_pages_create(struct node *n)
{
    struct node_pages *p = MEM_NEW(struct node_pages);
    p->node = n;
    pthread_mutex_init(&p->lock, NULL);
    for (u32 i = 0; i < STORE_JOB_KINDS; i++)
        p->jobs[i] = store_job_create((enum store_job_kind)i, &n->group, storage_of);
    p->clone = topic_clone_create(n);
    return p;
}

static void open_set(struct node_pages *p, bool open)
{
    pthread_mutex_lock(&p->lock);
    p->open = open;
    pthread_mutex_unlock(&p->lock);
}

void node_pages_ready(struct node_pages *p)
{
    open_set(p, true);
}

void node_pages_close(struct node_pages *p)
{
    open_set(p, false);
}

void node_pages_free(struct node_pages *p)
{
    for (u32 i = 0; i < STORE_JOB_KINDS; i++)
        store_job_free(p->jobs[i]);
    topic_clone_free(p->clone);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

/* ---- the state of the store ---- */

static unsigned refuse(struct metric_text *out, unsigned status, const char *why)
{
    metric_text_add(out, "{\"error\":\"%s\"}\n", why);
    return status;
}

static unsigned start_answer(struct metric_text *out, bool open, bool started, const char *busy)
{
    if (!open)
        return refuse(out, HTTP_UNAVAILABLE, "the node is not ready");
    if (!started)
        return refuse(out, HTTP_CONFLICT, busy);
    metric_text_add(out, "{\"state\":\"running\"}\n");
    return HTTP_ACCEPTED;
}

static u64 sum(const struct node *n, enum metric_id id)
{
    u64 v = 0;
    for (u32 i = 0; i < n->group.count; i++)
        v += metric_get(n->brokers[i]->shard.metrics, id);
    return v;
}

static u64 largest(const struct node *n, enum metric_id id)
{
    u64 v = 0;
    for (u32 i = 0; i < n->group.count; i++)
        v = MAX(v, metric_get(n->brokers[i]->shard.metrics, id));
    return v;
}

static void url_show(struct metric_text *out, const char *url)
{
    metric_text_add(out, "{\"url\":\"");
    for (const char *c = url; *c; c++)
        if ((u8)*c >= ' ')
            metric_text_add(out, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
    metric_text_add(out, "\"");
}

static unsigned state_show(const struct node *n, struct metric_text *out)
{
    u64 failures = largest(n, M_upload_failures);
    err e = (err) - (i64)largest(n, M_upload_error);
    url_show(out, config_str(n->cfg, CFG_store_url));
    metric_text_add(out,
                    ",\"uploads\":\"%s\",\"backlog_segments\":%" PRIu64
                    ",\"backlog_bytes\":%" PRIu64 ",\"last_upload_seconds\":%" PRIu64
                    ",\"failures\":%" PRIu64 ",\"error\":\"%s\",\"next_try_seconds\":%" PRIu64,
                    failures > 0 ? "fail" : "ok", sum(n, M_segments_sealed),
                    sum(n, M_wal_appended_lsn) -
                        MIN(sum(n, M_wal_appended_lsn), sum(n, M_wal_uploaded_lsn)),
                    largest(n, M_upload_time), failures, failures > 0 ? err_text(e) : "",
                    failures > 0 ? largest(n, M_upload_retry_time) : 0);
    metric_text_add(out,
                    ",\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"discarded_objects\":%" PRIu64
                    ",\"discarded_bytes\":%" PRIu64 ",\"deleted_objects\":%" PRIu64
                    ",\"orphans_found\":%" PRIu64,
                    sum(n, M_registered_objects), sum(n, M_registered_bytes),
                    sum(n, M_discarded_objects), sum(n, M_discarded_bytes),
                    sum(n, M_retention_objects), sum(n, M_orphans));
    metric_text_add(out,
                    ",\"listed_seconds\":%" PRIu64 ",\"listed_objects\":%" PRIu64
                    ",\"listed_bytes\":%" PRIu64 ",\"errors\":%" PRIu64 "}\n",
                    sum(n, M_scrub_time), sum(n, M_scrub_objects), sum(n, M_scrub_bytes),
                    sum(n, M_store_errors));
    return HTTP_OK;
}

/* ---- jobs ---- */

/* "" is the default. */
static bool rate_parse(const char *body, u64 *rate)
{
    static const struct config_def def = { .name = "rate", .type = CONFIG_SIZE, .max = INT64_MAX };
    i64 v;
    char text[64];
    *rate = VERIFY_RATE;
    if (*body == '\0')
        return true;
    if (strncmp(body, "rate=", 5) != 0)
        return false;
    snprintf(text, sizeof text, "%s", body + 5);
    text[strcspn(text, "\r\n")] = '\0';
    if (config_parse(&def, text, &v, NULL, 0) != ERR_NONE)
        return false;
    *rate = (u64)v;
    return true;
}

static unsigned job_start(struct node_pages *p, struct store_job *j, const char *body,
                          struct metric_text *out)
{
    u64 rate;
    if (!rate_parse(body, &rate))
        return refuse(out, HTTP_BAD, "the body is not rate=BYTES");
    pthread_mutex_lock(&p->lock);
    bool open = p->open, started = open && store_job_start(j, rate);
    pthread_mutex_unlock(&p->lock);
    return start_answer(out, open, started, "it is running already");
}

static unsigned job_page(struct node_pages *p, struct store_job *j, const char *method,
                         const char *body, struct metric_text *out)
{
    if (strcmp(method, "POST") == 0)
        return job_start(p, j, body, out);
    if (strcmp(method, "DELETE") == 0)
        store_job_cancel(j);
    else if (strcmp(method, "GET") != 0)
        return refuse(out, HTTP_METHOD, "method not allowed");
    return store_job_show(j, out) ? HTTP_OK : refuse(out, HTTP_NOT_FOUND, "it never ran");
}

/* ---- cloning ---- */

/* Of the body's lines, the value of `name`; false when it is not there, or has no place in JSON. */
static bool line_value(const char *body, const char *name, char *out, size_t size)
{
    size_t n = strlen(name);
    for (const char *at = body; *at; at += strcspn(at, "\n"), at += *at == '\n') {
        size_t len = strcspn(at, "\n");
        if (len <= n || strncmp(at, name, n) != 0 || at[n] != '=' || len - n > size)
            continue;
        snprintf(out, size, "%.*s", (int)(len - n - 1), at + n + 1);
        for (const u8 *c = (const u8 *)out; *c; c++)
            if (*c <= ' ' || *c >= 127 || *c == '"' || *c == '\\')
                return false;
        return true;
    }
    return false;
}

static bool number_value(const char *body, const char *name, i64 *out)
{
    char text[32], *end;
    *out = INT64_MAX;
    if (!line_value(body, name, text, sizeof text))
        return true;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && *out >= 0;
}

static unsigned clone_start(struct node_pages *p, const char *body, struct metric_text *out)
{
    struct topic_clone_request r = { 0 };
    if (!line_value(body, "source", r.source, sizeof r.source) ||
        !line_value(body, "target", r.target, sizeof r.target))
        return refuse(out, HTTP_BAD, "source= and target= are not names of topics");
    if (!number_value(body, "end_offset", &r.end_offset) ||
        !number_value(body, "end_ms", &r.end_ms))
        return refuse(out, HTTP_BAD, "end_offset= and end_ms= are numbers from 0 on");
    pthread_mutex_lock(&p->lock);
    bool open = p->open, started = open && topic_clone_start(p->clone, &r);
    pthread_mutex_unlock(&p->lock);
    return start_answer(out, open, started, "another topic is being cloned: try again");
}

static unsigned clone_page(struct node_pages *p, const char *method, const char *body,
                           struct metric_text *out)
{
    if (strcmp(method, "POST") == 0)
        return clone_start(p, body, out);
    if (strcmp(method, "GET") != 0)
        return refuse(out, HTTP_METHOD, "method not allowed");
    topic_clone_show(p->clone, out);
    return HTTP_OK;
}

unsigned node_page_serve(struct node_pages *p, const char *method, const char *path,
                         const char *body, struct metric_text *out)
{
    if (strcmp(path, "store") == 0)
        return strcmp(method, "GET") == 0 ? state_show(p->node, out)
                                          : refuse(out, HTTP_METHOD, "method not allowed");
    if (strcmp(path, "store/du") == 0)
        return job_page(p, p->jobs[STORE_JOB_DU], method, body, out);
    if (strcmp(path, "store/verify") == 0)
        return job_page(p, p->jobs[STORE_JOB_VERIFY], method, body, out);
    if (strcmp(path, "topics/clone") == 0)
        return clone_page(p, method, body, out);
    return 0;
}
