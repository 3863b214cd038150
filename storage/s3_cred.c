/* Credentials: where they come from and when they are fetched anew.
 *
 *   source        what makes it the one                              expires
 *   static        store.s3.access_key                                never
 *   env           AWS_ACCESS_KEY_ID                                  never
 *   web-identity  AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or   as the token service says
 *                 web_identity_token_file and role_arn of the profile
 *   profile       the profile in ~/.aws/credentials or config        never
 *   container     AWS_CONTAINER_CREDENTIALS_{FULL,RELATIVE}_URI      as it says
 *   instance      the metadata service answers (IMDSv2 only)         as it says
 *
 *  1. With `auto` the first source that is configured is the one; when it then fails, that is the
 *     error, and no weaker source steps in silently.
 *  2. One thread fetches, under cred_lock. While the old credentials are still good the others go
 *     on with them: the fetch begins well before they expire, and a failing one is repeated.
 *  3. Credentials the store refuses as expired are fetched anew even if they say otherwise.
 *  4. Secrets are never part of a message.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "s3_int.h"

#define FILE_BYTES_MAX (1024u * 1024)
#define REFRESH_BEFORE_MS (5 * 60 * 1000)
#define REFRESH_AGAIN_MS (10 * 1000)
/* The services are on this host or one hop away. */
#define NEAR_CONNECT_MS 1000
#define NEAR_NS (5 * NS_PER_S)
#define TOKEN_NS (20 * NS_PER_S)
#define NEAR_TRIES 3u

struct fetch {
    struct s3 *s;
    struct s3_creds *out;
    struct s3_text why;
};
/* ERR_NOT_FOUND: not configured, the next one's turn. */
typedef err (*source_fn)(struct fetch *f);

i64 s3_now_ms(struct s3 *s)
{
    return clock_wall_ms() + __atomic_load_n(&s->clock_offset_ms, __ATOMIC_RELAXED);
}

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* A whole small file, NUL-terminated; NULL: can't be read, and errno says why. */
static char *file_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return NULL;
    char *text = mem_alloc(FILE_BYTES_MAX + 1);
    *len = fread(text, 1, FILE_BYTES_MAX, f);
    bool failed = ferror(f) != 0;
    fclose(f);
    if (failed) {
        mem_free(text);
        errno = EIO;
        return NULL;
    }
    text[*len] = '\0';
    return text;
}

static bool key_set(char *out, size_t size, const char *v)
{
    size_t len = strlen(v);
    if (len >= size)
        return false;
    memcpy(out, v, len + 1);
    return true;
}

static err keys_set(struct fetch *f, const char *access, const char *secret, const char *token)
{
    struct s3_creds *c = f->out;
    if (!key_set(c->access_key, sizeof c->access_key, access) ||
        !key_set(c->secret_key, sizeof c->secret_key, secret) ||
        !key_set(c->token, sizeof c->token, token ? token : "")) {
        s3_text_add(&f->why, "a key is too long");
        return ERR_INVALID_CONFIG;
    }
    return ERR_NONE;
}

/* ---- static, env ---- */

static err from_static(struct fetch *f)
{
    const struct config *cfg = f->s->cfg;
    const char *access = config_str(cfg, CFG_s3_access_key);
    const char *secret = config_str(cfg, CFG_s3_secret_key);
    if (!*access) {
        s3_text_add(&f->why, "static: store.s3.access_key is not set; ");
        return ERR_NOT_FOUND;
    }
    if (!*secret) {
        s3_text_add(&f->why, "store.s3.access_key is set, store.s3.secret_key is not");
        return ERR_INVALID_CONFIG;
    }
    return keys_set(f, access, secret, config_str(cfg, CFG_s3_session_token));
}

static err from_env(struct fetch *f)
{
    const char *access = env("AWS_ACCESS_KEY_ID"), *secret = env("AWS_SECRET_ACCESS_KEY");
    if (!access) {
        s3_text_add(&f->why, "env: AWS_ACCESS_KEY_ID is not set; ");
        return ERR_NOT_FOUND;
    }
    if (!secret) {
        s3_text_add(&f->why, "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not");
        return ERR_INVALID_CONFIG;
    }
    return keys_set(f, access, secret, env("AWS_SESSION_TOKEN"));
}

/* ---- profile files ---- */

static bool profile_find_in(const char *path, const char *profile, const char *key, char *out,
                            size_t size)
{
    size_t len;
    char *text = file_read(path, &len);
    if (text == NULL)
        return false;
    bool found = s3_ini_find(text, len, profile, key, out, size);
    mem_free(text);
    return found;
}

static void profile_path(const char *variable, const char *file, char *out, size_t size)
{
    const char *home = env("HOME");
    if (env(variable))
        snprintf(out, size, "%s", env(variable));
    else
        snprintf(out, size, "%s/.aws/%s", home ? home : "", file);
}

static const char *profile_name(const struct config *cfg)
{
    const char *name = config_str(cfg, CFG_s3_profile);
    return *name ? name : env("AWS_PROFILE") ? env("AWS_PROFILE") : "default";
}

bool s3_profile_find(const struct config *cfg, const char *key, char *out, size_t size)
{
    char path[4096];
    const char *name = profile_name(cfg);
    profile_path("AWS_SHARED_CREDENTIALS_FILE", "credentials", path, sizeof path);
    if (profile_find_in(path, name, key, out, size))
        return true;
    profile_path("AWS_CONFIG_FILE", "config", path, sizeof path);
    return profile_find_in(path, name, key, out, size);
}

static err from_profile(struct fetch *f)
{
    const struct config *cfg = f->s->cfg;
    struct s3_creds *c = f->out;
    if (!s3_profile_find(cfg, "aws_access_key_id", c->access_key, sizeof c->access_key)) {
        s3_text_addf(&f->why, "profile: no aws_access_key_id of [%s] in ~/.aws/credentials; ",
                     profile_name(cfg));
        return ERR_NOT_FOUND;
    }
    if (!s3_profile_find(cfg, "aws_secret_access_key", c->secret_key, sizeof c->secret_key)) {
        s3_text_addf(&f->why, "profile [%s] has aws_access_key_id but no aws_secret_access_key",
                     profile_name(cfg));
        return ERR_INVALID_CONFIG;
    }
    if (!s3_profile_find(cfg, "aws_session_token", c->token, sizeof c->token))
        c->token[0] = '\0';
    return ERR_NONE;
}

/* ---- over HTTP ---- */

struct ask {
    const char *what, *method, *url;
    struct s3_header headers[3];
    u32 header_count;
    struct bytes body;
    bool far; /* a service on the net, through a proxy if there is one */
};

/* Tries a few times. ERR_TIMED_OUT: nothing answered. */
static err ask(struct fetch *f, const struct ask *a, struct s3_reply *r)
{
    struct s3_http q = { .method = a->method,
                         .url = a->url,
                         .headers = a->headers,
                         .header_count = a->header_count,
                         .parts = &a->body,
                         .part_count = 1,
                         .body_bytes = a->body.len,
                         .has_body = a->body.data != NULL || strcmp(a->method, "PUT") == 0,
                         .connect_ms = a->far ? config_u64(f->s->cfg, CFG_s3_connect_timeout_ms)
                                              : NEAR_CONNECT_MS,
                         .stall_ns = a->far ? TOKEN_NS : NEAR_NS,
                         .total_ns = a->far ? TOKEN_NS : NEAR_NS,
                         .ca_file = config_str(f->s->cfg, CFG_s3_ca_file),
                         .direct = !a->far };
    struct s3_conn *c = s3_conn_take(f->s);
    for (u32 i = 0; i < NEAR_TRIES; i++) {
        s3_http_run(c, &q, r);
        bool again = r->status >= 500 || r->status == 429;
        if (!again || i + 1 == NEAR_TRIES)
            break;
        usleep((useconds_t)(s3_backoff_ns(i, false, 0, s3_conn_rng(c)) / NS_PER_US));
    }
    s3_conn_give(f->s, c);
    if (r->status == 200 && r->body_len > 0)
        return ERR_NONE;
    if (r->status == 0)
        s3_text_addf(&f->why, "%s at %.200s does not answer (%s); ", a->what, a->url, r->error);
    else
        s3_text_addf(&f->why, "%s at %.200s answers %ld%s; ", a->what, a->url, r->status,
                     r->status == 200 ? " with nothing" : "");
    return r->status == 0 ? ERR_TIMED_OUT : ERR_DENIED;
}

static err json_take(struct fetch *f, const char *what, const struct s3_reply *r)
{
    if (s3_creds_json(r->body, r->body_len, f->out))
        return ERR_NONE;
    s3_text_addf(&f->why, "what %s answers holds no credentials", what);
    return ERR_MALFORMED;
}

/* ---- web identity ---- */

struct identity {
    char role[2048], file[4096];
};

static bool identity_find(const struct config *cfg, struct identity *id)
{
    const char *role = env("AWS_ROLE_ARN"), *file = env("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (role && file) {
        snprintf(id->role, sizeof id->role, "%s", role);
        snprintf(id->file, sizeof id->file, "%s", file);
        return true;
    }
    return s3_profile_find(cfg, "web_identity_token_file", id->file, sizeof id->file) &&
           s3_profile_find(cfg, "role_arn", id->role, sizeof id->role);
}

static void identity_url(const struct s3 *s, char *url, size_t size)
{
    const char *endpoint = env("AWS_ENDPOINT_URL_STS");
    if (endpoint)
        snprintf(url, size, "%s", endpoint);
    else
        snprintf(url, size, "https://sts.%s.amazonaws.com%s/", s->place.region,
                 strncmp(s->place.region, "cn-", 3) == 0 ? ".cn" : "");
}

static err identity_ask(struct fetch *f, const struct identity *id, const char *token, size_t len)
{
    const char *session = env("AWS_ROLE_SESSION_NAME");
    size_t size = 3 * (len + sizeof id->role) + 1024;
    char *form = mem_alloc(size), url[512];
    struct s3_text t = s3_text_in(form, size);
    s3_text_add(&t, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=");
    s3_text_escape(&t, session ? session : "leat", strlen(session ? session : "leat"), false);
    s3_text_add(&t, "&RoleArn=");
    s3_text_escape(&t, id->role, strlen(id->role), false);
    s3_text_add(&t, "&WebIdentityToken=");
    s3_text_escape(&t, token, len, false);
    identity_url(f->s, url, sizeof url);
    struct ask a = { .what = "the token service",
                     .method = "POST",
                     .url = url,
                     .headers = { { "content-type", "application/x-www-form-urlencoded" } },
                     .header_count = 1,
                     .body = bytes_of(form, (u32)t.len),
                     .far = true };
    struct s3_reply r;
    s3_reply_init(&r);
    err e = ask(f, &a, &r);
    char said[256] = "";
    if (e != ERR_NONE && r.body && s3_xml_find(r.body, r.body_len, "Message", said, sizeof said))
        s3_text_addf(&f->why, "it says: %s", said);
    if (e == ERR_NONE && !s3_creds_sts(r.body, r.body_len, f->out)) {
        s3_text_add(&f->why, "what the token service answers holds no credentials");
        e = ERR_MALFORMED;
    }
    s3_reply_free(&r);
    mem_free(form);
    return e;
}

static err from_web_identity(struct fetch *f)
{
    struct identity id;
    size_t len;
    if (!identity_find(f->s->cfg, &id)) {
        s3_text_add(&f->why, "web-identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set; ");
        return ERR_NOT_FOUND;
    }
    char *token = file_read(id.file, &len);
    if (token == NULL) {
        s3_text_addf(&f->why, "the web identity token %.200s can't be read: %s", id.file,
                     strerror(errno));
        return ERR_INVALID_CONFIG;
    }
    while (len > 0 && (token[len - 1] == '\n' || token[len - 1] == '\r'))
        len--;
    err e = identity_ask(f, &id, token, len);
    mem_free(token);
    return e;
}

/* ---- container ---- */

bool s3_container_url_safe(const char *url)
{
    static const char *const near[] = { "http://localhost",      "http://[::1]",
                                        "http://169.254.170.2",  "http://169.254.170.23",
                                        "http://[fd00:ec2::23]", "http://127." };
    if (strncmp(url, "https://", 8) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_COUNT(near); i++) {
        size_t len = strlen(near[i]);
        if (strncmp(url, near[i], len) != 0)
            continue;
        /* The host ends here: not localhost.example, nor 127.example, nor localhost@example. */
        if (near[i][len - 1] == '.')
            len += strspn(url + len, "0123456789.");
        const char *port = url + len;
        if (*port == ':')
            port += 1 + strspn(port + 1, "0123456789");
        if (*port == '/' || *port == '\0')
            return true;
    }
    return false;
}

static bool container_token(struct fetch *f, char *out, size_t size)
{
    const char *file = env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    size_t len;
    out[0] = '\0';
    if (!file)
        return !token || key_set(out, size, token);
    char *text = file_read(file, &len);
    if (text == NULL) {
        s3_text_addf(&f->why, "the container's token file %.200s can't be read: %s", file,
                     strerror(errno));
        return false;
    }
    text[strcspn(text, "\r\n")] = '\0';
    bool ok = key_set(out, size, text);
    mem_free(text);
    return ok;
}

static err from_container(struct fetch *f)
{
    const char *full = env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *relative = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    char url[1024], token[4096];
    if (!full && !relative) {
        s3_text_add(&f->why, "container: AWS_CONTAINER_CREDENTIALS_FULL_URI is not set; ");
        return ERR_NOT_FOUND;
    }
    snprintf(url, sizeof url, "%s%s", relative ? "http://169.254.170.2" : "",
             relative ? relative : full);
    if (!s3_container_url_safe(url)) {
        s3_text_addf(&f->why,
                     "AWS_CONTAINER_CREDENTIALS_FULL_URI = %.200s is neither https nor on "
                     "this host",
                     url);
        return ERR_INVALID_CONFIG;
    }
    if (!container_token(f, token, sizeof token))
        return ERR_INVALID_CONFIG;
    struct ask a = { .what = "the container's credentials endpoint",
                     .method = "GET",
                     .url = url,
                     .headers = { { "authorization", token } },
                     .header_count = *token ? 1 : 0 };
    struct s3_reply r;
    s3_reply_init(&r);
    err e = ask(f, &a, &r);
    if (e == ERR_NONE)
        e = json_take(f, a.what, &r);
    s3_reply_free(&r);
    return e;
}

/* ---- instance metadata, version 2 ---- */

static err instance_get(struct fetch *f, const char *base, const char *path, const char *token,
                        struct s3_reply *r)
{
    char url[1024];
    snprintf(url, sizeof url, "%s%s", base, path);
    struct ask a = { .what = "the instance's metadata service",
                     .method = "GET",
                     .url = url,
                     .headers = { { "x-aws-ec2-metadata-token", token } },
                     .header_count = 1 };
    return ask(f, &a, r);
}

static err instance_token(struct fetch *f, const char *base, char *out, size_t size)
{
    char url[512];
    struct s3_reply r;
    snprintf(url, sizeof url, "%s/latest/api/token", base);
    struct ask a = { .what = "instance: the metadata service",
                     .method = "PUT",
                     .url = url,
                     .headers = { { "x-aws-ec2-metadata-token-ttl-seconds", "21600" } },
                     .header_count = 1 };
    s3_reply_init(&r);
    err e = ask(f, &a, &r);
    if (e == ERR_NONE && !key_set(out, size, r.body))
        e = ERR_MALFORMED;
    s3_reply_free(&r);
    return e == ERR_TIMED_OUT ? ERR_NOT_FOUND : e; /* no such service: not on such a machine */
}

#define ROLES_PATH "/latest/meta-data/iam/security-credentials/"

static err from_instance(struct fetch *f)
{
    const char *base = env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *disabled = env("AWS_EC2_METADATA_DISABLED");
    char trimmed[256], token[1024], path[512];
    if (disabled && strcmp(disabled, "true") == 0) {
        s3_text_add(&f->why, "instance: AWS_EC2_METADATA_DISABLED; ");
        return ERR_NOT_FOUND;
    }
    snprintf(trimmed, sizeof trimmed, "%s", base ? base : "http://169.254.169.254");
    size_t len = strlen(trimmed);
    if (len > 0 && trimmed[len - 1] == '/')
        trimmed[len - 1] = '\0';
    err e = instance_token(f, trimmed, token, sizeof token);
    struct s3_reply r;
    s3_reply_init(&r);
    if (e == ERR_NONE)
        e = instance_get(f, trimmed, ROLES_PATH, token, &r);
    if (e == ERR_NONE) {
        r.body[strcspn(r.body, "\r\n")] = '\0';
        snprintf(path, sizeof path, ROLES_PATH "%s", r.body);
        e = instance_get(f, trimmed, path, token, &r);
    }
    if (e == ERR_NONE)
        e = json_take(f, "the instance's metadata service", &r);
    s3_reply_free(&r);
    return e;
}

/* ---- the chain ---- */

static err from_nowhere(struct fetch *f)
{
    f->out->access_key[0] = '\0'; /* requests go unsigned */
    return ERR_NONE;
}

static const struct {
    const char *name; /* a choice of store.s3.credentials */
    source_fn fn;
} sources[] = {
    { "static", from_static },
    { "env", from_env },
    { "web-identity", from_web_identity },
    { "profile", from_profile },
    { "container", from_container },
    { "instance", from_instance },
    { "none", from_nowhere },
};

static err creds_fetch(struct fetch *f, const char **name)
{
    const char *wanted = config_str(f->s->cfg, CFG_s3_credentials);
    bool any = strcmp(wanted, "auto") == 0;
    for (size_t i = 0; i < ARRAY_COUNT(sources); i++) {
        if (any ? sources[i].fn == from_nowhere : strcmp(wanted, sources[i].name) != 0)
            continue;
        memset(f->out, 0, sizeof *f->out);
        err e = sources[i].fn(f);
        if (e == ERR_NONE) {
            *name = sources[i].name;
            return e;
        }
        if (e != ERR_NOT_FOUND)
            return e;
    }
    return ERR_NOT_FOUND;
}

/* Under cred_data_lock. */
static void creds_set(struct s3 *s, const struct s3_creds *c, const char *name, i64 now)
{
    s->creds = *c;
    s->cred_generation++;
    s->cred_source = name;
    s->cred_refresh_ms = 0;
    if (c->expires_ms > 0) /* short-lived ones live for two thirds of their time */
        s->cred_refresh_ms = c->expires_ms - MIN(REFRESH_BEFORE_MS, (c->expires_ms - now) / 3);
}

enum cred_state { CREDS_GOOD, CREDS_AGING, CREDS_BAD };

static enum cred_state creds_look(struct s3 *s, u64 bad, struct s3_creds *out, u64 *generation)
{
    i64 now = s3_now_ms(s);
    pthread_mutex_lock(&s->cred_data_lock);
    bool usable =
        s->cred_generation > bad && (s->creds.expires_ms == 0 || now < s->creds.expires_ms);
    bool aging = s->cred_refresh_ms > 0 && now >= s->cred_refresh_ms;
    if (usable) {
        *out = s->creds;
        *generation = s->cred_generation;
    }
    pthread_mutex_unlock(&s->cred_data_lock);
    return !usable ? CREDS_BAD : aging ? CREDS_AGING : CREDS_GOOD;
}

/* Under cred_lock. */
static err creds_renew(struct s3 *s, struct s3_text *why)
{
    struct s3_creds *fresh = MEM_NEW(struct s3_creds);
    struct fetch f = { .s = s, .out = fresh, .why = *why };
    const char *name = NULL;
    err e = creds_fetch(&f, &name);
    *why = f.why;
    i64 now = s3_now_ms(s);
    pthread_mutex_lock(&s->cred_data_lock);
    if (e == ERR_NONE)
        creds_set(s, fresh, name, now);
    else
        s->cred_refresh_ms = now + REFRESH_AGAIN_MS;
    pthread_mutex_unlock(&s->cred_data_lock);
    if (e == ERR_NONE && fresh->expires_ms > 0)
        LOG(INFO, s3_credentials, "source=%s access_key=%s expires_in_s=%" PRId64, name,
            fresh->access_key, (fresh->expires_ms - now) / 1000);
    explicit_bzero(fresh, sizeof *fresh);
    mem_free(fresh);
    return e;
}

err s3_creds_get(struct s3 *s, u64 bad, struct s3_creds *out, u64 *generation, char *why,
                 size_t why_size)
{
    char own[1024];
    struct s3_text t = why ? s3_text_in(why, why_size) : s3_text_in(own, sizeof own);
    enum cred_state state = creds_look(s, bad, out, generation);
    if (state == CREDS_GOOD)
        return ERR_NONE;
    if (state == CREDS_BAD)
        pthread_mutex_lock(&s->cred_lock);
    else if (pthread_mutex_trylock(&s->cred_lock) != 0)
        return ERR_NONE; /* another thread is at it, these still do */
    err e = ERR_NONE;
    /* Another thread may have been here meanwhile. */
    state = creds_look(s, bad, out, generation);
    if (state != CREDS_GOOD)
        e = creds_renew(s, &t);
    pthread_mutex_unlock(&s->cred_lock);
    while (t.len > 0 && strchr("; ", t.buf[t.len - 1]))
        t.buf[--t.len] = '\0';
    if (e != ERR_NONE && !why)
        LOG(WARN, s3_credentials_failed, "error=%s why=\"%s\" effect=\"%s\"", err_name(e), t.buf,
            state == CREDS_AGING ? "the old ones go on until they expire" : "requests fail");
    if (e == ERR_NONE && creds_look(s, bad, out, generation) == CREDS_BAD)
        e = ERR_DENIED; /* expired on arrival */
    return state == CREDS_AGING ? ERR_NONE : e;
}
