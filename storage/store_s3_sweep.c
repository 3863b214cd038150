/* Uploads in parts that nobody will complete: a process died in the middle, or their abort failed.
 * Nothing shows them but their own list, and the store bills their parts. */
#include <string.h>

#include "check.h"
#include "clock.h"
#include "log.h"
#include "s3_int.h"

#define QUERY_SIZE (3 * (2 * S3_KEY_SIZE + S3_UPLOAD_ID_SIZE) + 128)

struct sweep {
    struct s3_handle *h;
    i64 until_ms; /* those begun before */
    u32 swept;
    err err; /* the first abort that failed */
};

static err sweep_one(void *arg, const char *key, const char *id, i64 began_ms)
{
    struct sweep *w = arg;
    struct s3 *s = w->h->s;
    size_t skip = strlen(s->place.prefix);
    skip += skip > 0; /* '/' */
    /* The list was asked for by the prefix; another's upload is not believed into ours. */
    bool ours = strncmp(key, s->place.prefix, skip > 0 ? skip - 1 : 0) == 0 &&
                (skip == 0 || (strlen(key) >= skip && key[skip - 1] == '/')) &&
                store_name_valid(key + skip);
    if (!ours || began_ms >= w->until_ms || s3_upload_goes_on(s, id))
        return ERR_NONE;
    err e = s3_upload_abort(w->h, key + skip, id);
    w->swept += e == ERR_NONE;
    w->err = w->err == ERR_NONE ? e : w->err;
    return ERR_NONE;
}

static err uploads_check(const struct s3_request *q, const struct s3_reply *r)
{
    (void)q;
    return r->body && strstr(r->body, "ListMultipartUploadsResult") ? ERR_NONE : ERR_CORRUPT;
}

/* The query's names must ascend: key-marker, prefix, upload-id-marker, uploads. */
static bool query_make(const struct s3 *s, const char *prefix, const struct s3_uploads *after,
                       char *out)
{
    struct s3_text t = s3_text_in(out, QUERY_SIZE);
    if (*after->next_key) {
        s3_text_add(&t, "key-marker=");
        s3_text_escape(&t, after->next_key, strlen(after->next_key), false);
        s3_text_add(&t, "&");
    }
    s3_text_add(&t, "prefix=");
    s3_text_escape(&t, s->place.prefix, strlen(s->place.prefix), false);
    s3_text_add(&t, *s->place.prefix ? "%2F" : "");
    s3_text_escape(&t, prefix, strlen(prefix), false);
    if (*after->next_id) {
        s3_text_add(&t, "&upload-id-marker=");
        s3_text_escape(&t, after->next_id, strlen(after->next_id), false);
    }
    s3_text_add(&t, "&uploads=");
    return !t.full;
}

/* One page after `l`, which becomes that page. */
static err sweep_page(struct sweep *w, const char *prefix, struct s3_uploads *l, char *query)
{
    struct s3_reply r;
    CHECK(query_make(w->h->s, prefix, l, query));
    struct s3_request q = {
        .op = S3_LIST, .method = "GET", .query = query, .check = uploads_check
    };
    s3_reply_init(&r);
    err e = s3_call(w->h, &q, &r, NULL);
    if (e == ERR_NONE)
        e = s3_uploads_parse(r.body, r.body_len, l, sweep_one, w);
    s3_reply_free(&r);
    return e == ERR_NONE && !l->complete ? ERR_CORRUPT : e;
}

err s3_sweep(struct store *st, const char *prefix, u64 age_ms, u32 *swept)
{
    struct s3_handle *h = s3_of(st);
    struct s3 *s = h->s;
    /* One that was begun just now is known by its id only when the store's answer has come. */
    u64 grace_ms = MAX(age_ms, 2 * config_u64(s->cfg, CFG_s3_timeout_ms));
    struct sweep w = { .h = h };
    w.until_ms = s3_now_ms(s) - (i64)MIN(grace_ms, (u64)INT64_MAX / 2);
    struct s3_uploads *l = MEM_NEW(struct s3_uploads), *before = MEM_NEW(struct s3_uploads);
    char *query = mem_alloc(QUERY_SIZE);
    err e;
    do {
        *before = *l;
        e = sweep_page(&w, prefix, l, query);
        /* A store that names the same page again would be asked for ever. */
        if (e == ERR_NONE && l->truncated && strcmp(l->next_key, before->next_key) == 0 &&
            strcmp(l->next_id, before->next_id) == 0)
            e = ERR_MALFORMED;
    } while (e == ERR_NONE && l->truncated);
    mem_free(query);
    mem_free(before);
    mem_free(l);
    pthread_mutex_lock(&s->lock);
    s->stats.uploads_swept += w.swept;
    pthread_mutex_unlock(&s->lock);
    if (w.swept > 0)
        LOG(INFO, s3_uploads_swept,
            "prefix=%s uploads=%u what=\"parts of uploads that a life before did not end\"", prefix,
            w.swept);
    *swept = w.swept;
    return e == ERR_NONE ? w.err : e;
}
