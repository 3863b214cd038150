/* Opening an S3 store: where it is, whose credentials, and a probe that makes every later failure a
 * surprise. What the probe does, under the prefix:
 *
 *   put .leat-probe-<random>      rights, region, clock, TLS; a store that refuses checksums goes
 *                                 without
 *   get it                        the bytes are the same
 *   put it, if absent             must be refused: else conditional puts are emulated
 *   list the prefix               rights
 *   delete it, as a batch of one  rights; stores without batches go without
 *
 * Names beginning with '.' are no names of objects (store_name_valid), so whatever a probe leaves
 * behind is never seen. A failure is told once, as cause and remedy (s3_explain). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "log.h"
#include "s3_int.h"

#define PROBE_TEXT "leat was here"

/* ---- the probe ---- */

struct probe {
    struct s3 *s;
    char name[64];
    struct s3_reply r;
    struct s3_judged j;
    char *why;
    size_t why_size;
};

static err probe_failed(struct probe *p, const char *doing, err e)
{
    s3_explain(&p->s->place, doing, &p->r, &p->j, p->s->clock_offset_ms, p->why, p->why_size);
    return e == ERR_NONE ? ERR_IO : e;
}

static err probe_write(struct probe *p, bool if_absent)
{
    struct bytes body = bytes_str(PROBE_TEXT);
    char crc[S3_CRC_SIZE];
    struct s3_request q = { .op = S3_PUT,
                            .method = "PUT",
                            .name = p->name,
                            .parts = &body,
                            .part_count = 1,
                            .body_bytes = body.len,
                            .has_body = true };
    s3_put_headers(p->s, &q);
    s3_checksum(&body, 1, crc);
    if (p->s->checksums)
        s3_request_header(&q, "x-amz-checksum-crc32c", crc);
    if (if_absent)
        s3_request_header(&q, "if-none-match", "*");
    return s3_call(&p->s->handles[STORE_ANY], &q, &p->r, &p->j);
}

static err probe_put(struct probe *p)
{
    p->s->checksums = true;
    err e = probe_write(p, false);
    if (e != ERR_NONE && (p->r.status == 400 || p->r.status == 501) && p->j.verdict == S3_FINAL) {
        p->s->checksums = false; /* an older store may refuse the header */
        e = probe_write(p, false);
    }
    return e == ERR_NONE ? e : probe_failed(p, "write an object", e);
}

static err probe_get(struct probe *p)
{
    u8 got[sizeof PROBE_TEXT - 1];
    struct s3_request q = {
        .op = S3_GET, .method = "GET", .name = p->name, .into = got, .into_bytes = sizeof got
    };
    err e = s3_call(&p->s->handles[STORE_ANY], &q, &p->r, &p->j);
    if (e != ERR_NONE)
        return probe_failed(p, "read an object", e);
    if (memcmp(got, PROBE_TEXT, sizeof got) == 0)
        return ERR_NONE;
    snprintf(
        p->why, p->why_size,
        "object store at %s: it does not give back what was written; something between leat and "
        "the store changes the bytes",
        p->s->place.host);
    return ERR_CORRUPT;
}

static err probe_conditional(struct probe *p)
{
    err e = probe_write(p, true);
    p->s->conditional = e == ERR_EXISTS;
    if (e == ERR_NONE || e == ERR_EXISTS || e == ERR_UNSUPPORTED || p->r.status == 400)
        return ERR_NONE;
    return probe_failed(p, "write an object on condition", e);
}

static err probe_list(struct probe *p)
{
    char query[3 * 600];
    struct s3_text t = s3_text_in(query, sizeof query);
    s3_text_add(&t, "list-type=2&max-keys=1&prefix=");
    s3_text_escape(&t, p->s->place.prefix, strlen(p->s->place.prefix), false);
    CHECK(!t.full);
    struct s3_request q = { .op = S3_LIST, .method = "GET", .query = query };
    err e = s3_call(&p->s->handles[STORE_ANY], &q, &p->r, &p->j);
    return e == ERR_NONE ? e : probe_failed(p, "list objects", e);
}

static err probe_batch(struct probe *p)
{
    char doc[4096], crc[S3_CRC_SIZE];
    struct s3_text t = s3_text_in(doc, sizeof doc);
    s3_text_add(&t, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>"
                    "<Object><Key>");
    s3_text_xml(&t, p->s->place.prefix);
    s3_text_addf(&t, "%s%s</Key></Object></Delete>", *p->s->place.prefix ? "/" : "", p->name);
    CHECK(!t.full);
    struct bytes body = bytes_of(doc, (u32)t.len);
    struct s3_request q = { .op = S3_DELETE,
                            .method = "POST",
                            .query = "delete=",
                            .parts = &body,
                            .part_count = 1,
                            .body_bytes = body.len,
                            .has_body = true };
    s3_checksum(&body, 1, crc);
    s3_request_header(&q, "content-type", "application/xml");
    s3_request_header(&q, "x-amz-checksum-crc32c", crc);
    return s3_call(&p->s->handles[STORE_ANY], &q, &p->r, &p->j);
}

static err probe_delete(struct probe *p)
{
    /* Errors of single objects stand in the answer: then the plain delete below says which. */
    p->s->multi_delete = probe_batch(p) == ERR_NONE && !(p->r.body && strstr(p->r.body, "<Error>"));
    struct s3_request q = { .op = S3_DELETE, .method = "DELETE", .name = p->name };
    err e = s3_call(&p->s->handles[STORE_ANY], &q, &p->r, &p->j);
    return e == ERR_NONE || e == ERR_NOT_FOUND ? ERR_NONE : probe_failed(p, "delete an object", e);
}

static err probe_run(struct s3 *s, char *why, size_t why_size)
{
    struct probe p = { .s = s, .why = why, .why_size = why_size };
    s3_reply_init(&p.r);
    if (config_bool(s->cfg, CFG_store_readonly)) { /* keys that may only read are enough */
        s->checksums = true;
        err listed = probe_list(&p);
        s3_reply_free(&p.r);
        return listed;
    }
    snprintf(p.name, sizeof p.name, ".leat-probe-%016" PRIx64, rng_next(&s->rng));
    err e = probe_put(&p);
    if (e == ERR_NONE)
        e = probe_get(&p);
    if (e == ERR_NONE)
        e = probe_conditional(&p);
    if (e == ERR_NONE)
        e = probe_list(&p);
    if (e == ERR_NONE)
        e = probe_delete(&p);
    s3_reply_free(&p.r);
    return e;
}

/* ---- open and close ---- */

static void share_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *arg)
{
    struct s3 *s = arg;
    (void)easy, (void)access;
    pthread_mutex_lock(&s->share_locks[data]);
}

static void share_unlock(CURL *easy, curl_lock_data data, void *arg)
{
    struct s3 *s = arg;
    (void)easy;
    pthread_mutex_unlock(&s->share_locks[data]);
}

static struct s3 *s3_create(const struct config *cfg)
{
    struct s3 *s = MEM_NEW(struct s3);
    MAGIC_INIT(s, S3_MAGIC);
    for (u32 c = 0; c < STORE_CLASSES; c++)
        s->handles[c] =
            (struct s3_handle){ { .driver = &store_s3_driver }, s, (enum store_class)c };
    s->cfg = cfg;
    s->opening = true;
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    for (u32 i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_init(&s->share_locks[i], NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->room, NULL);
    pthread_mutex_init(&s->cred_lock, NULL);
    pthread_mutex_init(&s->cred_data_lock, NULL);
    rng_init(&s->rng, rng_seed_os());
    list_init(&s->uploads);
    s3_gate_init(&s->gate, (u32)config_u64(cfg, CFG_s3_connections));
    s->share = curl_share_init();
    CHECK(s->share != NULL);
    curl_share_setopt(s->share, CURLSHOPT_USERDATA, s);
    curl_share_setopt(s->share, CURLSHOPT_LOCKFUNC, share_lock);
    curl_share_setopt(s->share, CURLSHOPT_UNLOCKFUNC, share_unlock);
    /* Names and TLS sessions; connections can't be shared safely. */
    curl_share_setopt(s->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    curl_share_setopt(s->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    return s;
}

void s3_destroy(struct s3 *s)
{
    MAGIC_CHECK(s, S3_MAGIC);
    CHECK(s->gate.inflight == 0 && list_empty(&s->uploads));
    while (s->conn_count > 0)
        s3_conn_free(s->conns[--s->conn_count]);
    curl_share_cleanup(s->share);
    for (u32 i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_destroy(&s->share_locks[i]);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->room);
    pthread_mutex_destroy(&s->cred_lock);
    pthread_mutex_destroy(&s->cred_data_lock);
    explicit_bzero(&s->creds, sizeof s->creds);
    MAGIC_POISON(s);
    mem_free(s);
    curl_global_cleanup();
}

static err s3_start(struct s3 *s, const char *url, char *why, size_t why_size)
{
    err e = s3_place_parse(url, s->cfg, &s->place, why, why_size);
    if (e != ERR_NONE)
        return e;
    const char *ca = config_str(s->cfg, CFG_s3_ca_file);
    if (*ca && access(ca, R_OK) != 0) {
        snprintf(why, why_size, "store.s3.ca_file = %s can't be read: %s", ca, strerror(errno));
        return ERR_INVALID_CONFIG;
    }
    struct s3_creds *c = MEM_NEW(struct s3_creds);
    char tried[900];
    u64 generation;
    e = s3_creds_get(s, 0, c, &generation, tried, sizeof tried);
    mem_free(c);
    if (e != ERR_NONE)
        snprintf(why, why_size,
                 "object store s3://%s: no credentials: %s. Set store.s3.access_key and "
                 "store.s3.secret_key, or give this machine a role (docs/s3.md)",
                 s->place.bucket, tried);
    return e == ERR_NONE ? probe_run(s, why, why_size) : e;
}

static void s3_tell(const struct s3 *s)
{
    const struct s3_place *p = &s->place;
    LOG(INFO, s3_ready,
        "bucket=%s prefix=%s host=%s tls=%s style=%s region=%s credentials=%s checksums=%s "
        "conditional_put=%s batch_delete=%s connections=%u",
        p->bucket, *p->prefix ? p->prefix : "-", p->host, p->tls ? "yes" : "no",
        p->path_style ? "path" : "virtual", p->region, s->cred_source, s->checksums ? "yes" : "no",
        s->conditional ? "yes" : "no", s->multi_delete ? "yes" : "no", s->gate.max);
    if (!s->conditional)
        LOG(WARN, s3_no_conditional_put,
            "effect=\"the store ignores If-None-Match: two nodes that write the same object at the "
            "same moment would not notice\" remedy=\"use a newer version of the store\"");
    if (!p->tls && strncmp(p->host, "127.", 4) != 0 && strncmp(p->host, "localhost", 9) != 0)
        LOG(WARN, s3_no_tls,
            "host=%s effect=\"records cross the network unencrypted\" remedy=\"use https:// in "
            "store.s3.endpoint\"",
            p->host);
}

err s3_open(const char *url, const struct config *cfg, struct store **out, char *why,
            size_t why_size)
{
    CHECK(cfg != NULL);
    struct s3 *s = s3_create(cfg);
    err e = s3_start(s, url, why, why_size);
    if (e != ERR_NONE) {
        s3_destroy(s);
        return e;
    }
    s->opening = false;
    s3_tell(s);
    *out = &s->handles[STORE_ANY].base;
    return ERR_NONE;
}
