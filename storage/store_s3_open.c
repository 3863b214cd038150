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

/* ---- what went wrong ---- */

static const char *no_answer_remedy(const struct s3_reply *r)
{
    switch ((int)r->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "check the host in store.s3.endpoint (or store.s3.region) and this machine's DNS";
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
        return "check that the store runs, store.s3.endpoint, routes, firewalls and proxies";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        return "its certificate is not one this machine trusts: name its CA in store.s3.ca_file, "
               "or "
               "correct the host in store.s3.endpoint";
    case CURLE_SSL_CACERT_BADFILE:
        return "store.s3.ca_file can't be read or is no PEM file";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return "is it http:// where it should be https:// in store.s3.endpoint, or the other way "
               "round?";
    default:
        return "check store.s3.endpoint and the network";
    }
}

struct remedy {
    const char *code, *cause, *remedy;
};

static const struct remedy remedies[] = {
    { "InvalidAccessKeyId", "the store does not know this access key",
      "check the access key id, and that it belongs to this endpoint" },
    { "SignatureDoesNotMatch", "the secret key does not belong to the access key",
      "check the secret key for missing or extra characters" },
    { "ExpiredToken", "the credentials have expired",
      "renew them, or let leat do so: a role instead of keys (docs/s3.md)" },
    { "InvalidToken", "the session token is not valid",
      "renew the credentials; a session token belongs to its own access key" },
    { "AccessDenied", "these credentials lack the right",
      "grant s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload on the objects "
      "and "
      "s3:ListBucket on the bucket (docs/s3.md has the policy)" },
    { "NoSuchBucket", "there is no such bucket", "make it, or correct store.url" },
    { "InvalidBucketName", "that is no name of a bucket", "correct store.url" },
    { "RequestTimeTooSkewed", "this machine's clock is wrong",
      "let chrony or systemd-timesyncd set it" },
    { "NotImplemented", "the store lacks something leat needs", "use another store" },
    { "InvalidStorageClass", "the store does not know store.s3.storage_class",
      "correct store.s3.storage_class" },
    { "KMS.NotFoundException", "the store does not know store.s3.sse_key_id",
      "correct store.s3.sse_key_id" },
    { "SlowDown", "the store asks for fewer requests", "start again in a while" },
};

static const struct remedy *remedy_find(const struct s3_reply *r, const struct s3_judged *j)
{
    const char *code = j->code;
    if (!*code) /* answers without a body, to HEAD or from proxies */
        code = r->status == 403 ? "AccessDenied" : r->status == 404 ? "NoSuchBucket" : "";
    for (size_t i = 0; i < ARRAY_COUNT(remedies); i++)
        if (strcmp(remedies[i].code, code) == 0)
            return &remedies[i];
    return NULL;
}

/* Where the store says the bucket is; false when it does not. */
static bool region_told(const struct s3_reply *r, char *out, size_t size)
{
    snprintf(out, size, "%s", r->region);
    if (!*out && r->body)
        (void)s3_xml_find(r->body, r->body_len, "Region", out, size);
    return *out != '\0';
}

static void explain_status(const struct s3_place *p, const struct s3_reply *r,
                           const struct s3_judged *j, i64 offset_ms, struct s3_text *t)
{
    char said[256] = "", region[64];
    if (r->body)
        (void)s3_xml_find(r->body, r->body_len, "Message", said, sizeof said);
    const struct remedy *m = remedy_find(r, j);
    if (j->verdict == S3_REGION && region_told(r, region, sizeof region))
        s3_text_addf(t, "the bucket is in region %s, not %s; set store.s3.region = %s", region,
                     p->region, region);
    else if (j->verdict == S3_REGION)
        s3_text_add(t, "the bucket is elsewhere; set store.s3.region or store.s3.endpoint");
    else if (m)
        s3_text_addf(t, "%s; %s", m->cause, m->remedy);
    else
        s3_text_add(t, "check store.url and the keys store.s3.*");
    if (m && strcmp(m->code, "RequestTimeTooSkewed") == 0 && offset_ms != 0)
        s3_text_addf(t, " (it is off by %" PRId64 " s)", -offset_ms / 1000);
    s3_text_addf(t, ". The store answered %ld%s%s%s%.200s", r->status, *j->code ? " " : "", j->code,
                 *said ? ": " : "", said);
    if (*r->request_id)
        s3_text_addf(t, " (request %s)", r->request_id);
}

void s3_explain(const struct s3_place *p, const char *doing, const struct s3_reply *r,
                const struct s3_judged *j, i64 offset_ms, char *why, size_t why_size)
{
    struct s3_text t = s3_text_in(why, why_size);
    s3_text_addf(&t, "object store s3://%s%s%s at %s: can't %s: ", p->bucket, *p->prefix ? "/" : "",
                 p->prefix, p->host, doing);
    if (r->status == 0)
        s3_text_addf(&t, "%s; %s", r->error, no_answer_remedy(r));
    else
        explain_status(p, r, j, offset_ms, &t);
}

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
    return s3_call(p->s, &q, &p->r, &p->j);
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
    err e = s3_call(p->s, &q, &p->r, &p->j);
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
    err e = s3_call(p->s, &q, &p->r, &p->j);
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
    return s3_call(p->s, &q, &p->r, &p->j);
}

static err probe_delete(struct probe *p)
{
    /* Errors of single objects stand in the answer: then the plain delete below says which. */
    p->s->multi_delete = probe_batch(p) == ERR_NONE && !(p->r.body && strstr(p->r.body, "<Error>"));
    struct s3_request q = { .op = S3_DELETE, .method = "DELETE", .name = p->name };
    err e = s3_call(p->s, &q, &p->r, &p->j);
    return e == ERR_NONE || e == ERR_NOT_FOUND ? ERR_NONE : probe_failed(p, "delete an object", e);
}

static err probe_run(struct s3 *s, char *why, size_t why_size)
{
    struct probe p = { .s = s, .why = why, .why_size = why_size };
    s3_reply_init(&p.r);
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
    s->base.driver = &store_s3_driver;
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
    CHECK(s->gate.inflight == 0);
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
    *out = &s->base;
    return ERR_NONE;
}
