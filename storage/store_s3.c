/* Object store behind the S3 protocol: s3://BUCKET/PREFIX. One object is one S3 object; its key is
 * the prefix, '/', and the name. For operators: docs/s3.md; why so: docs/decisions/0008-s3.md.
 *
 *  1. put is one PUT, or for large objects a multipart upload (store_s3_parts.c). S3 shows an
 *     object only once it is complete, so a name that exists is a complete object here too.
 *  2. if_absent is If-None-Match: *. Where the probe at the start found that the store does not
 *     honour it, a HEAD comes first: that is not atomic, and the log says so. Before an upload in
 *     parts a HEAD comes always: some stores honour it for a PUT and not for what ends parts.
 *  3. The answer to a put may get lost after it took effect, and the repeated one then finds the
 *     object: a mark in its metadata tells ours from another's. So it is with the second of two
 *     requests for a put that is awaited: both carry the same bytes, condition and mark, so there
 *     is one object with these bytes whichever comes first, and also when the one that was broken
 *     off takes effect later.
 *  4. A read asks for exactly the bytes it wants and checks that it got them: the range the answer
 *     names, its length, and the checksum when it covers them. What the bytes mean is checked above
 *     (blocks carry their own).
 *  5. The checksum of a put goes along (CRC32C), so the store refuses what was damaged on the way.
 *
 * Calls block, on background threads. Requests are made in s3_call.c; the files of the driver and
 * how they build upon each other are listed in s3_int.h.
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "crc32c.h"
#include "s3_int.h"

#define QUERY_SIZE (3 * (S3_TOKEN_SIZE + S3_KEY_SIZE) + 128)

static void base64(const u8 *in, u32 len, char *out)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (u32 i = 0; i < len; i += 3) {
        u32 v = (u32)in[i] << 16 | (i + 1 < len ? (u32)in[i + 1] << 8 : 0) |
                (i + 2 < len ? in[i + 2] : 0);
        *out++ = set[v >> 18];
        *out++ = set[v >> 12 & 63];
        *out++ = i + 1 < len ? set[v >> 6 & 63] : '=';
        *out++ = i + 2 < len ? set[v & 63] : '=';
    }
    *out = '\0';
}

void s3_checksum(const struct bytes *parts, u32 part_count, char out[S3_CRC_SIZE])
{
    u8 raw[4];
    u32 crc = 0;
    for (u32 i = 0; i < part_count; i++)
        crc = crc32c(crc, parts[i].data, parts[i].len);
    put_be32(raw, crc);
    base64(raw, sizeof raw, out);
}

/* ---- put ---- */

void s3_put_headers(struct s3 *s, struct s3_request *q)
{
    const char *class = config_str(s->cfg, CFG_s3_storage_class);
    const char *sse = config_str(s->cfg, CFG_s3_sse), *key = config_str(s->cfg, CFG_s3_sse_key_id);
    if (*class)
        s3_request_header(q, "x-amz-storage-class", class);
    if (*sse)
        s3_request_header(q, "x-amz-server-side-encryption", sse);
    if (*key)
        s3_request_header(q, "x-amz-server-side-encryption-aws-kms-key-id", key);
}

err s3_put_check(const struct s3_request *q, const struct s3_reply *r)
{
    bool differs = *r->crc32c && q->crc32c && strcmp(r->crc32c, q->crc32c) != 0;
    return differs ? ERR_CORRUPT : ERR_NONE;
}

void s3_mark(struct s3 *s, char out[S3_MARK_SIZE])
{
    pthread_mutex_lock(&s->lock);
    u64 a = rng_next(&s->rng), b = rng_next(&s->rng);
    pthread_mutex_unlock(&s->lock);
    snprintf(out, S3_MARK_SIZE, "%016" PRIx64 "%016" PRIx64, a, b);
}

err s3_put_was_ours(struct s3_handle *h, const char *name, const char *mark)
{
    struct s3_request q = { .op = S3_HEAD, .method = "HEAD", .name = name };
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, NULL);
    bool ours = e == ERR_NONE && strcmp(r.put_id, mark) == 0;
    s3_reply_free(&r);
    if (e == ERR_NOT_FOUND)
        return ERR_IO; /* what stood in its way is gone: it may be tried again */
    return ours ? ERR_NONE : e == ERR_NONE ? ERR_EXISTS : e;
}

err s3_put_one(struct s3_handle *h, const struct store_object *o, u64 bytes)
{
    struct s3 *s = h->s;
    char crc[S3_CRC_SIZE], mark[S3_MARK_SIZE];
    struct s3_request q = { .op = S3_PUT,
                            .method = "PUT",
                            .name = o->name,
                            .parts = o->parts,
                            .part_count = o->part_count,
                            .body_bytes = bytes,
                            .has_body = true,
                            .pace = o->pace,
                            .may_be_twice = o->awaited,
                            .check = s3_put_check };
    s3_put_headers(s, &q);
    if (s->checksums) {
        s3_checksum(o->parts, o->part_count, crc);
        q.crc32c = crc;
        s3_request_header(&q, "x-amz-checksum-crc32c", crc);
    }
    bool conditional = o->if_absent && s->conditional;
    if (conditional) {
        s3_mark(s, mark);
        s3_request_header(&q, "x-amz-meta-leat-put", mark);
        s3_request_header(&q, "if-none-match", "*");
    }
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, NULL);
    s3_reply_free(&r);
    return conditional && e == ERR_EXISTS ? s3_put_was_ours(h, o->name, mark) : e;
}

static err s3_size(struct store *st, const char *name, u64 *out);

static err s3_put(struct store *st, const struct store_object *o)
{
    struct s3_handle *h = s3_of(st);
    struct s3 *s = h->s;
    CHECK(store_name_valid(o->name));
    u64 bytes = 0, there;
    for (u32 i = 0; i < o->part_count; i++)
        bytes += o->parts[i].len;
    bool large = bytes > 2 * config_u64(s->cfg, CFG_s3_part_bytes);
    if (o->if_absent && (large || !s->conditional)) {
        err e = s3_size(st, o->name, &there);
        if (e != ERR_NOT_FOUND)
            return e == ERR_NONE ? ERR_EXISTS : e;
    }
    if (large)
        return s3_put_parts(h, o, bytes);
    return s3_put_one(h, o, bytes);
}

/* ---- get ---- */

/* The store sends an object's checksum with the whole of it only; some send it with a part too. */
static err get_check(const struct s3_request *q, const struct s3_reply *r)
{
    char crc[S3_CRC_SIZE];
    bool whole = r->status == 206 ? r->range_first == 0 && r->range_last + 1 == r->object_bytes
                                  : r->content_length == q->into_bytes && q->offset == 0;
    /* "…-3" is made of the checksums of parts. */
    if (!whole || strlen(r->crc32c) != S3_CRC_SIZE - 1)
        return ERR_NONE;
    struct bytes b = bytes_of(q->into, q->into_bytes);
    s3_checksum(&b, 1, crc);
    return strcmp(crc, r->crc32c) == 0 ? ERR_NONE : ERR_CORRUPT;
}

static err s3_get_range(struct store *st, const char *name, u64 offset, u8 *buf, u32 len)
{
    struct s3_handle *h = s3_of(st);
    CHECK(store_name_valid(name));
    u64 size;
    if (len == 0) { /* HTTP has no empty range */
        err e = s3_size(st, name, &size);
        return e == ERR_NONE && offset > size ? ERR_TRUNCATED : e;
    }
    struct s3_request q = { .op = S3_GET,
                            .method = "GET",
                            .name = name,
                            .into = buf,
                            .into_bytes = len,
                            .offset = offset,
                            .check = get_check };
    if (h->s->checksums)
        s3_request_header(&q, "x-amz-checksum-mode", "ENABLED");
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, NULL);
    s3_reply_free(&r);
    return e;
}

static err size_check(const struct s3_request *q, const struct s3_reply *r)
{
    (void)q;
    return r->has_length ? ERR_NONE : ERR_IO;
}

static err s3_size(struct store *st, const char *name, u64 *out)
{
    struct s3_handle *h = s3_of(st);
    CHECK(store_name_valid(name));
    struct s3_request q = { .op = S3_HEAD, .method = "HEAD", .name = name, .check = size_check };
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, NULL);
    *out = r.content_length;
    s3_reply_free(&r);
    return e;
}

/* ---- remove ---- */

static err s3_remove(struct store *st, const char *name)
{
    struct s3_handle *h = s3_of(st);
    CHECK(store_name_valid(name));
    struct s3_request q = { .op = S3_DELETE, .method = "DELETE", .name = name };
    struct s3_reply r;
    struct s3_judged j;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, &j);
    s3_reply_free(&r);
    return e == ERR_NOT_FOUND && strcmp(j.code, "NoSuchBucket") != 0 ? ERR_NONE : e;
}

#define DELETE_MAX 1000u /* S3's own limit */
#define DELETE_ROW (6 * (sizeof((struct s3_place *)0)->prefix + STORE_NAME_MAX) + 64)

/* The answer names each object that could not be deleted. */
static err delete_check(const struct s3_request *q, const struct s3_reply *r)
{
    char code[64];
    (void)q;
    struct s3_xml x = s3_xml_of(r->body, r->body_len);
    while (s3_xml_next(&x) != S3_XML_END) {
        if (x.kind != S3_XML_LEAF || !s3_xml_is(&x, "Code"))
            continue;
        if (s3_xml_text(&x, code, sizeof code) && strcmp(code, "NoSuchKey") != 0)
            return strcmp(code, "AccessDenied") == 0 ? ERR_DENIED : ERR_IO;
    }
    return ERR_NONE;
}

static err remove_batch(struct s3_handle *h, const char *const *names, u32 count)
{
    const struct s3_place *place = &h->s->place;
    u64 size = 128 + count * (u64)DELETE_ROW;
    char *doc = mem_alloc(size), crc[S3_CRC_SIZE];
    struct s3_text t = s3_text_in(doc, size);
    s3_text_add(&t,
                "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    for (u32 i = 0; i < count; i++) {
        CHECK(store_name_valid(names[i]));
        s3_text_add(&t, "<Object><Key>");
        s3_text_xml(&t, place->prefix);
        s3_text_addf(&t, "%s%s</Key></Object>", *place->prefix ? "/" : "", names[i]);
    }
    s3_text_add(&t, "</Delete>");
    CHECK(!t.full);
    struct bytes body = bytes_of(doc, (u32)t.len);
    s3_checksum(&body, 1, crc);
    struct s3_request q = { .op = S3_DELETE,
                            .method = "POST",
                            .query = "delete=",
                            .parts = &body,
                            .part_count = 1,
                            .body_bytes = body.len,
                            .has_body = true,
                            .check = delete_check };
    s3_request_header(&q, "content-type", "application/xml");
    s3_request_header(&q, "x-amz-checksum-crc32c", crc);
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, NULL);
    s3_reply_free(&r);
    mem_free(doc);
    return e;
}

static err s3_remove_many(struct store *st, const char *const *names, u32 count)
{
    struct s3_handle *h = s3_of(st);
    err first = ERR_NONE;
    for (u32 i = 0; i < count;) {
        u32 n = h->s->multi_delete ? MIN(count - i, DELETE_MAX) : 1;
        err e = n > 1 ? remove_batch(h, names + i, n) : s3_remove(st, names[i]);
        first = first != ERR_NONE ? first : e;
        i += n;
    }
    return first;
}

/* ---- list ---- */

struct listing {
    const struct s3_place *place;
    const char *after;
    u32 max, seen;
    err (*each)(void *arg, const char *name, u64 bytes);
    void *arg;
};

static err list_key(void *arg, const char *key, u64 bytes)
{
    struct listing *l = arg;
    size_t skip = strlen(l->place->prefix);
    if (skip > 0) {
        if (strncmp(key, l->place->prefix, skip) != 0 || key[skip] != '/')
            return ERR_NONE;
        skip++;
    }
    if (!store_name_valid(key + skip))
        return ERR_NONE;
    /* Held here, whatever the store makes of max-keys and start-after: callers have room for so
     * many, and go on behind the last. */
    if (l->max > 0 && (l->seen == l->max || strcmp(key + skip, l->after) <= 0))
        return ERR_NONE;
    l->seen++;
    return l->each(l->arg, key + skip, bytes);
}

static err list_check(const struct s3_request *q, const struct s3_reply *r)
{
    (void)q;
    static const char end[] = "</ListBucketResult>";
    /* A page that was cut would hide objects: its end must be there. */
    bool whole = r->body_len >= sizeof end - 1 && strstr(r->body, end) != NULL;
    return whole || (r->body && strstr(r->body, "<ListBucketResult/>")) ? ERR_NONE : ERR_CORRUPT;
}

static void list_key_add(const struct s3 *s, const char *name, struct s3_text *t)
{
    if (*s->place.prefix) {
        s3_text_escape(t, s->place.prefix, strlen(s->place.prefix), false);
        s3_text_escape(t, "/", 1, false);
    }
    s3_text_escape(t, name, strlen(name), false);
}

/* The query's names must ascend: continuation-token, list-type, max-keys, prefix, start-after. */
static bool list_query(const struct s3 *s, const char *prefix, const char *after, u32 max,
                       const char *token, char *out)
{
    struct s3_text t = s3_text_in(out, QUERY_SIZE);
    if (*token) {
        s3_text_add(&t, "continuation-token=");
        s3_text_escape(&t, token, strlen(token), false);
        s3_text_add(&t, "&");
    }
    s3_text_add(&t, "list-type=2&");
    if (max > 0)
        s3_text_addf(&t, "max-keys=%u&", max);
    s3_text_add(&t, "prefix=");
    list_key_add(s, prefix, &t);
    if (*after) {
        s3_text_add(&t, "&start-after=");
        list_key_add(s, after, &t);
    }
    return !t.full;
}

/* What is empty and says that nothing follows is asked for so often before it is believed:
 * versitygw answers so when an object is deleted while it walks over the directories. */
#define EMPTY_TRIES 4u

/* `max` 0: all; else one page with a name in it. */
static err s3_list_page(struct store *st, const char *prefix, const char *after, u32 max,
                        err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    struct s3_handle *h = s3_of(st);
    struct listing listing = { &h->s->place, after, max, 0, each, arg };
    struct s3_list *page = MEM_NEW(struct s3_list);
    char *query = mem_alloc(QUERY_SIZE), token[S3_TOKEN_SIZE] = "";
    struct s3_reply r;
    s3_reply_init(&r);
    u32 empty = 0;
    err e;
    for (;;) {
        CHECK(list_query(h->s, prefix, after, max, token, query));
        struct s3_request q = {
            .op = S3_LIST, .method = "GET", .query = query, .check = list_check
        };
        e = s3_call(h, &q, &r, NULL);
        e = e == ERR_NOT_FOUND ? ERR_IO : e; /* the bucket is not there */
        if (e == ERR_NONE)
            e = s3_list_parse(r.body, r.body_len, page, list_key, &listing);
        if (e == ERR_NONE && page->keys == 0 && !page->truncated && ++empty < EMPTY_TRIES)
            continue;
        if (e != ERR_NONE || !page->truncated || (max > 0 && listing.seen > 0))
            break;
        /* A store that names no next page, or the same one, would be asked for ever. */
        if (!*page->next || strcmp(page->next, token) == 0) {
            e = ERR_MALFORMED;
            break;
        }
        memcpy(token, page->next, sizeof token);
        empty = 0;
    }
    s3_reply_free(&r);
    mem_free(query);
    mem_free(page);
    return e;
}

static err s3_list(struct store *st, const char *prefix,
                   err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    return s3_list_page(st, prefix, "", 0, each, arg);
}

/* ---- metrics ---- */

static const char *const op_names[S3_OPS] = { "put", "get", "head", "delete", "list", "multipart" };
/* The order of result_of in s3_call.c; "abandoned" is the one of two same requests that was not
 * answered first. */
static const char *const result_names[S3_RESULTS] = { "ok",           "not_found", "refused",
                                                      "server_error", "throttled", "no_answer",
                                                      "timed_out",    "abandoned" };

static void add_value(struct metric_text *t, const char *name, const char *type, const char *help,
                      u64 v)
{
    metric_text_head(t, name, type, help);
    metric_text_add(t, "%s %" PRIu64 "\n", name, v);
}

static void add_hedges(struct metric_text *t, const char *name, const char *help,
                       const u64 counts[S3_OPS])
{
    static const enum s3_op ops[] = { S3_PUT, S3_GET };
    metric_text_head(t, name, "counter", help);
    for (size_t i = 0; i < ARRAY_COUNT(ops); i++)
        metric_text_add(t, "%s{op=\"%s\"} %" PRIu64 "\n", name, op_names[ops[i]], counts[ops[i]]);
}

static void add_counts(struct metric_text *t, const struct s3_stats *st)
{
    metric_text_head(t, "leat_s3_requests_total", "counter",
                     "Requests to the object store by their answer, each try counted.");
    for (u32 op = 0; op < S3_OPS; op++)
        for (u32 k = 0; k < S3_RESULTS; k++)
            metric_text_add(t, "leat_s3_requests_total{op=\"%s\",result=\"%s\"} %" PRIu64 "\n",
                            op_names[op], result_names[k], st->results[op][k]);
    metric_text_head(t, "leat_s3_bytes_total", "counter", "Bytes of bodies, each try counted.");
    metric_text_add(t, "leat_s3_bytes_total{dir=\"out\"} %" PRIu64 "\n", st->bytes_out);
    metric_text_add(t, "leat_s3_bytes_total{dir=\"in\"} %" PRIu64 "\n", st->bytes_in);
    add_value(t, "leat_s3_retries_total", "counter", "Requests sent again.", st->retries);
    add_value(t, "leat_s3_throttles_total", "counter", "Answers that asked for fewer requests.",
              st->throttles);
    add_hedges(t, "leat_s3_hedges_total", "Second requests for slow reads and puts.", st->hedges);
    add_hedges(t, "leat_s3_hedge_wins_total", "Second requests that were answered first.",
               st->hedge_wins);
}

static void add_uploads(struct metric_text *t, const struct s3_stats *st)
{
    static const char name[] = "leat_s3_uploads_aborted_total";
    metric_text_head(t, name, "counter",
                     "Uploads in parts that were given up, or found unfinished.");
    metric_text_add(t, "%s{what=\"failed\"} %" PRIu64 "\n", name, st->uploads_aborted);
    metric_text_add(t, "%s{what=\"found\"} %" PRIu64 "\n", name, st->uploads_swept);
}

static const char *const class_names[STORE_CLASSES] = {
    [STORE_UPLOAD] = "upload",   [STORE_TAIL] = "tail", [STORE_CATCHUP] = "catchup",
    [STORE_COMPACT] = "compact", [STORE_GC] = "gc",
};

static void add_classes(struct metric_text *t, const struct s3_stats *st, const struct s3_gate *g)
{
#define EACH_CLASS(name, type, help, value)            \
    metric_text_head(t, name, type, help);             \
    for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++) \
    metric_text_add(t, name "{class=\"%s\"} %" PRIu64 "\n", class_names[c], (u64)(value))
    EACH_CLASS("leat_s3_class_requests_total", "counter", "Requests by what they are for.",
               st->classes[c].requests);
    EACH_CLASS("leat_s3_class_bytes_total", "counter", "Bytes of bodies by what they are for.",
               st->classes[c].bytes);
    EACH_CLASS("leat_s3_waits_total", "counter",
               "Requests that waited for others because of store.s3.connections, the class's own "
               "limit, more urgent ones or throttling.",
               st->classes[c].waits);
    EACH_CLASS("leat_s3_class_inflight", "gauge", "Requests at this moment.", g->running[c]);
#undef EACH_CLASS
}

static void s3_metrics(struct store *st, struct metric_text *t)
{
    struct s3 *s = s3_of(st)->s;
    struct s3_stats *copy = MEM_NEW(struct s3_stats);
    pthread_mutex_lock(&s->lock);
    *copy = s->stats;
    struct s3_gate gate = s->gate;
    pthread_mutex_unlock(&s->lock);
    add_counts(t, copy);
    add_uploads(t, copy);
    add_classes(t, copy, &gate);
    add_value(t, "leat_s3_requests_limit", "gauge",
              "Requests allowed at a time; below store.s3.connections while the store throttles.",
              gate.width_milli / 1000);
    add_value(t, "leat_s3_requests_inflight", "gauge", "Requests at this moment.", gate.inflight);
    metric_text_head(t, "leat_s3_request_seconds", "histogram", "Time of requests that went well.");
    for (u32 op = 0; op < S3_OPS; op++) {
        char labels[32];
        snprintf(labels, sizeof labels, "op=\"%s\"", op_names[op]);
        metric_text_hist(t, "leat_s3_request_seconds", labels, &copy->times[op]);
    }
    mem_free(copy);
}

static void s3_close(struct store *st)
{
    s3_destroy(s3_of(st)->s);
}

static struct store *s3_of_class(struct store *st, enum store_class c)
{
    return &s3_of(st)->s->handles[c].base;
}

const struct store_driver store_s3_driver = {
    .scheme = "s3",
    .open = s3_open,
    .close = s3_close,
    .put = s3_put,
    .get_range = s3_get_range,
    .size = s3_size,
    .remove = s3_remove,
    .list = s3_list,
    .list_page = s3_list_page,
    .remove_many = s3_remove_many,
    .sweep = s3_sweep,
    .of_class = s3_of_class,
    .metrics = s3_metrics,
};
