/* The administration endpoint on libmicrohttpd; see admin.h.
 *
 * One internal polling thread of the library serves all connections; a request is answered in one
 * go, so nothing here waits. Only PUT has a body; it is gathered up to BODY_BYTES_MAX.
 */
#include "admin.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "mem.h"
#include "version.h"

#define ADMIN_MAGIC 0xad310001u
#define BODY_BYTES_MAX 4096u
#define CONNECTION_BYTES ((size_t)32 * 1024)
#define CONNECTION_TIMEOUT_S 15u

static const char type_json[] = "application/json";
static const char type_text[] = "text/plain; charset=utf-8";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";

struct admin {
    u32 magic;
    struct config *cfg;
    const struct metric_registry *metrics;
    struct admin_ops *ops;
    struct MHD_Daemon *daemon;
    u64 started_ns;
    u16 port;
};

struct request { /* from a request's first line to its completion */
    struct MHD_Connection *connection;
    struct admin *admin;
    const char *key; /* what follows /v1/config/, in `url`; "" for the whole table */
    char url[256];
    u32 body_len;
    bool body_too_large;
    char body[BODY_BYTES_MAX + 1];
};

/* ---- answers ---- */

/* Takes over `data` (from mem_alloc, or NULL). */
static enum MHD_Result answer(struct request *r, unsigned status, const char *type, char *data,
                              size_t len)
{
    static char nothing[1];
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback(
        len, data ? data : nothing, data ? mem_free : NULL);
    if (!response) {
        mem_free(data);
        return MHD_NO;
    }
    enum MHD_Result ok = MHD_add_response_header(response, "Content-Type", type);
    if (ok == MHD_YES)
        ok = MHD_add_response_header(response, "Cache-Control", "no-store");
    if (ok == MHD_YES && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        ok = MHD_add_response_header(response, "Allow", *r->key ? "GET, PUT, DELETE" : "GET");
    if (ok == MHD_YES)
        ok = MHD_queue_response(r->connection, status, response);
    MHD_destroy_response(response);
    return ok;
}

static enum MHD_Result answer_text(struct request *r, unsigned status, const char *text)
{
    struct metric_text t = { 0 };
    metric_text_add(&t, "%s\n", text);
    return answer(r, status, type_text, t.data, t.len);
}

/* Takes over the reference. */
static enum MHD_Result answer_json(struct request *r, unsigned status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_INDENT(2)) : NULL;
    json_decref(value);
    if (!text)
        return MHD_NO;
    struct metric_text t = { 0 };
    metric_text_add(&t, "%s\n", text);
    void *(*alloc)(size_t);
    void (*release)(void *);
    json_get_alloc_funcs(&alloc, &release);
    release(text);
    return answer(r, status, type_json, t.data, t.len);
}

static enum MHD_Result answer_error(struct request *r, unsigned status, const char *why)
{
    return answer_json(r, status, json_pack("{s:s}", "error", why));
}

/* ---- configuration ---- */

static json_t *config_to_json(const struct config *cfg, enum config_key k)
{
    const struct config_def *d = &config_defs[k];
    char value[CONFIG_VALUE_SIZE], plain[CONFIG_VALUE_SIZE], def[CONFIG_VALUE_SIZE];
    i64 v;
    if (d->type == CONFIG_STRING || d->type == CONFIG_PASSWORD ||
        config_parse(d, d->def, &v, NULL, 0) != ERR_NONE)
        snprintf(def, sizeof def, "%s", d->def);
    else
        config_format(d, v, true, def, sizeof def);
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s}", "name", d->name, "value",
                  config_text(cfg, k, true, value, sizeof value), "plain",
                  config_text(cfg, k, false, plain, sizeof plain), "default", def, "source",
                  config_source_name(config_source(cfg, k)), "type", config_type_name(d->type),
                  "live", d->change == CONFIG_DYNAMIC, "help", d->help);
    if (o && d->choices)
        json_object_set_new(o, "choices", json_string(d->choices));
    if (o && d->kafka)
        json_object_set_new(o, "kafka", json_string(d->kafka));
    return o;
}

static enum MHD_Result get_config(struct request *r)
{
    if (!*r->key) {
        json_t *all = json_array();
        for (u32 k = 0; k < CFG_COUNT; k++)
            json_array_append_new(all, config_to_json(r->admin->cfg, (enum config_key)k));
        return answer_json(r, MHD_HTTP_OK, all);
    }
    enum config_key k = config_find(r->key);
    if (k != CFG_COUNT)
        return answer_json(r, MHD_HTTP_OK, config_to_json(r->admin->cfg, k));
    const char *near = config_nearest(r->key);
    char why[256];
    snprintf(why, sizeof why, "unknown key \"%.100s\"%s%s", r->key, near ? "; the nearest is " : "",
             near ? near : "");
    return answer_error(r, MHD_HTTP_NOT_FOUND, why);
}

/* PUT and DELETE. */
static enum MHD_Result change_config(struct request *r, bool reset)
{
    struct config *cfg = r->admin->cfg;
    char why[512] = "";
    if (r->body_too_large)
        return answer_error(r, MHD_HTTP_CONTENT_TOO_LARGE, "the value is too long");
    while (r->body_len > 0 && (u8)r->body[r->body_len - 1] <= ' ')
        r->body_len--;
    r->body[r->body_len] = '\0';
    err e = memchr(r->body, '\0', r->body_len) ? ERR_INVALID_CONFIG
            : reset                            ? config_reset_live(cfg, r->key, why, sizeof why)
                    : config_set_live(cfg, r->key, r->body, why, sizeof why);
    if (e == ERR_NOT_FOUND)
        return answer_error(r, MHD_HTTP_NOT_FOUND, why);
    if (e == ERR_POLICY_VIOLATION)
        return answer_error(r, MHD_HTTP_CONFLICT, why);
    if (e)
        return answer_error(r, MHD_HTTP_BAD_REQUEST, *why ? why : "the value is no text");
    enum config_key k = config_find(r->key);
    char text[CONFIG_VALUE_SIZE], quoted[200];
    LOG(INFO, config_changed, "key=%s value=%s", config_defs[k].name,
        log_quote(quoted, sizeof quoted, bytes_str(config_text(cfg, k, true, text, sizeof text))));
    return answer_json(r, MHD_HTTP_OK, config_to_json(cfg, k));
}

static enum MHD_Result serve_config(struct request *r, const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return get_config(r);
    if (*r->key && strcmp(method, "PUT") == 0)
        return change_config(r, false);
    if (*r->key && strcmp(method, "DELETE") == 0)
        return change_config(r, true);
    return answer_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed");
}

/* ---- the other pages ---- */

static enum MHD_Result serve_metrics(struct request *r)
{
    struct metric_text t = { 0 };
    metric_registry_render(r->admin->metrics, &t);
    return answer(r, MHD_HTTP_OK, type_metrics, t.data, t.len);
}

static enum MHD_Result serve_ready(struct request *r)
{
    char why[512] = "not ready";
    struct admin_ops *ops = r->admin->ops;
    if (!ops->ready || ops->ready(ops, why, sizeof why))
        return answer_text(r, MHD_HTTP_OK, "ready");
    return answer_text(r, MHD_HTTP_SERVICE_UNAVAILABLE, why);
}

static enum MHD_Result serve_status(struct request *r)
{
    const struct admin *a = r->admin;
    char why[512] = "";
    bool ready = !a->ops->ready || a->ops->ready(a->ops, why, sizeof why);
    struct metric_text t = { 0 };
    metric_text_add(&t,
                    "{\"version\":\"%s\",\"node_id\":%" PRId64 ",\"pid\":%d,\"ready\":%s,"
                    "\"uptime_seconds\":%" PRIu64,
                    LEAT_VERSION, config_i64(a->cfg, CFG_node_id), (int)getpid(),
                    ready ? "true" : "false", (clock_mono_ns() - a->started_ns) / NS_PER_S);
    if (a->ops->status)
        a->ops->status(a->ops, &t);
    metric_text_add(&t, "}\n");
    return answer(r, MHD_HTTP_OK, type_json, t.data, t.len);
}

/* False: the node has no such page, and *result is not set. */
static bool serve_node_page(struct request *r, const char *method, enum MHD_Result *result)
{
    static const char prefix[] = "/v1/";
    struct admin_ops *ops = r->admin->ops;
    if (!ops->page || strncmp(r->url, prefix, sizeof prefix - 1) != 0)
        return false;
    struct metric_text t = { 0 };
    r->body[r->body_len] = '\0';
    unsigned status = r->body_too_large
                          ? MHD_HTTP_CONTENT_TOO_LARGE
                          : ops->page(ops, method, r->url + sizeof prefix - 1, r->body, &t);
    if (status == 0) {
        metric_text_free(&t);
        return false;
    }
    *result = answer(r, status, type_json, t.data, t.len);
    return true;
}

static enum MHD_Result serve(struct request *r, const char *method)
{
    static const char prefix[] = "/v1/config";
    size_t n = sizeof prefix - 1;
    r->key = "";
    if (strncmp(r->url, prefix, n) == 0 && (r->url[n] == '\0' || r->url[n] == '/')) {
        r->key = r->url[n] ? r->url + n + 1 : "";
        return serve_config(r, method);
    }
    enum MHD_Result done;
    if (serve_node_page(r, method, &done))
        return done;
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (get && strcmp(r->url, "/metrics") == 0)
        return serve_metrics(r);
    if (get && strcmp(r->url, "/healthz") == 0)
        return answer_text(r, MHD_HTTP_OK, "ok");
    if (get && strcmp(r->url, "/readyz") == 0)
        return serve_ready(r);
    if (get && strcmp(r->url, "/v1/status") == 0)
        return serve_status(r);
    if (get && strcmp(r->url, "/") == 0)
        return answer_text(r, MHD_HTTP_OK,
                           "leat " LEAT_VERSION
                           "\n/metrics\n/healthz\n/readyz\n/v1/status\n/v1/store\n/v1/config");
    return answer_error(r, get ? MHD_HTTP_NOT_FOUND : MHD_HTTP_METHOD_NOT_ALLOWED,
                        get ? "no such page" : "method not allowed");
}

/* ---- the library's callbacks ---- */

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **state)
{
    struct admin *a = arg;
    MAGIC_CHECK(a, ADMIN_MAGIC);
    (void)version;
    struct request *r = *state;
    if (!r) { /* first call: the headers are there, the body is not */
        r = MEM_NEW(struct request);
        r->connection = connection;
        r->admin = a;
        snprintf(r->url, sizeof r->url, "%s", url);
        *state = r;
        return MHD_YES;
    }
    if (*data_len == 0)
        return serve(r, method);
    if (*data_len > BODY_BYTES_MAX - r->body_len) {
        r->body_too_large = true;
    } else {
        memcpy(r->body + r->body_len, data, *data_len);
        r->body_len += (u32)*data_len;
    }
    *data_len = 0;
    return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)arg, (void)connection, (void)code;
    mem_free(*state);
    *state = NULL;
}

static void on_library_error(void *arg, const char *fmt, va_list ap)
{
    (void)arg;
    char line[256], quoted[300];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vsnprintf(line, sizeof line, fmt, ap);
#pragma GCC diagnostic pop
    line[strcspn(line, "\n")] = '\0';
    LOG(WARN, admin_http, "what=%s", log_quote(quoted, sizeof quoted, bytes_str(line)));
}

/* ---- life ---- */

static err resolve(const char *listen, struct sockaddr_storage *out, char *why, size_t why_size)
{
    char host[256], service[8];
    u16 port;
    CHECK(config_split_address(listen, host, sizeof host, &port)); /* config_validate saw to it */
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found = NULL;
    int rc = getaddrinfo(*host ? host : NULL, service, &hints, &found);
    if (rc != 0) {
        snprintf(why, why_size, "admin.listen %s: %s", listen, gai_strerror(rc));
        return ERR_INVALID_CONFIG;
    }
    memcpy(out, found->ai_addr, MIN(found->ai_addrlen, sizeof *out));
    freeaddrinfo(found);
    return ERR_NONE;
}

static struct MHD_Daemon *start_daemon(struct admin *a, const struct sockaddr_storage *address)
{
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ERROR_LOG;
    if (address->ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, a, MHD_OPTION_EXTERNAL_LOGGER, on_library_error, NULL,
        MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)address, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)config_i64(a->cfg, CFG_admin_connections), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_TIMEOUT_S,
        MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
}

err admin_start(struct config *cfg, const struct metric_registry *metrics, struct admin_ops *ops,
                struct admin **out, char *why, size_t why_size)
{
    *out = NULL;
    const char *listen = config_str(cfg, CFG_admin_listen);
    if (*listen == '\0')
        return ERR_NONE;
    struct sockaddr_storage address = { 0 };
    err e = resolve(listen, &address, why, why_size);
    if (e)
        return e;
    struct admin *a = MEM_NEW(struct admin);
    MAGIC_INIT(a, ADMIN_MAGIC);
    a->cfg = cfg;
    a->metrics = metrics;
    a->ops = ops;
    a->started_ns = clock_mono_ns();
    a->daemon = start_daemon(a, &address);
    if (!a->daemon) {
        snprintf(why, why_size,
                 "can't listen on %s for administration: most likely another program uses the "
                 "port; stop it, or "
                 "choose another port (-w admin.listen=HOST:PORT)",
                 listen);
        mem_free(a);
        return ERR_IO;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(a->daemon, MHD_DAEMON_INFO_BIND_PORT);
    a->port = info ? info->port : 0;
    *out = a;
    return ERR_NONE;
}

u16 admin_port(const struct admin *a)
{
    return a ? a->port : 0;
}

void admin_stop(struct admin *a)
{
    if (!a)
        return;
    MAGIC_CHECK(a, ADMIN_MAGIC);
    MHD_stop_daemon(a->daemon);
    MAGIC_POISON(a);
    mem_free(a);
}
