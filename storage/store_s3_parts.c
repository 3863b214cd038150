/* Large objects: a multipart upload, so that a failure costs one part and not all that was sent.
 *
 *             ┌─► part 1 ─► part 4 ─► … ─┐
 *   create ───┼─► part 2 ─► part 6 ─► … ─┼─► complete        any failure: abort
 *             └─► part 3 ─► part 5 ─► … ─┘
 *
 *  1. Parts are views into what the caller gave. store.s3.part_connections lanes, the caller and
 *     threads beside it for as long as it takes, each send one part after the other; every part is
 *     a request of the upload's class like any other, and is retried by itself. After one that
 *     failed for good no further one begins.
 *  2. The object shows up at `complete`, whole. Its answer may get lost, or be an error of a store
 *     that did complete it: the mark in the object's metadata tells that it was ours.
 *  3. The upload is aborted when no part of it runs any more: a part that arrives behind the abort
 *     would stay.
 *  4. An upload that a crash left behind, or whose abort failed, costs money until the sweep
 *     (store_s3_sweep.c) aborts it. Uploads that go on in this process are known by their ids, so
 *     however long they take they are not among those.
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "s3_int.h"

#define PARTS_MAX 10000u /* S3's own limit */
#define LANES_MAX 64u    /* of store.s3.part_connections: config.def */

struct part_done {
    char etag[80], crc32c[S3_CRC_SIZE];
};

struct upload {
    struct s3_upload base;
    struct s3_handle *h;
    const struct store_object *o;
    char mark[S3_MARK_SIZE];
    struct part_done *done;
    u64 bytes, part_bytes;
    u32 part_count, lanes;
    pthread_mutex_t lock; /* of what follows */
    u32 next;             /* part */
    err err;              /* the first */
};

bool s3_upload_query(const char *id, u32 number, char out[S3_UPLOAD_QUERY_SIZE])
{
    struct s3_text t = s3_text_in(out, S3_UPLOAD_QUERY_SIZE);
    if (number > 0)
        s3_text_addf(&t, "partNumber=%u&", number);
    s3_text_add(&t, "uploadId=");
    s3_text_escape(&t, id, strlen(id), false);
    return !t.full;
}

static err upload_create(struct upload *u)
{
    struct s3_request q = {
        .op = S3_PARTS, .method = "POST", .name = u->o->name, .query = "uploads=", .has_body = true
    };
    s3_put_headers(u->h->s, &q);
    s3_mark(u->h->s, u->mark);
    s3_request_header(&q, "x-amz-meta-leat-put", u->mark);
    if (u->h->s->checksums)
        s3_request_header(&q, "x-amz-checksum-algorithm", "CRC32C");
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(u->h, &q, &r, NULL);
    if (e == ERR_NONE &&
        !s3_xml_find(r.body ? r.body : "", r.body_len, "UploadId", u->base.id, sizeof u->base.id))
        e = ERR_MALFORMED;
    s3_reply_free(&r);
    return e;
}

/* Views of part `number`; returns how many. There is room for one more than the object has. */
static u32 part_views(const struct upload *u, u32 number, struct bytes *views, u64 *bytes)
{
    u64 from = (number - 1) * u->part_bytes, end = MIN(from + u->part_bytes, u->bytes), at = 0;
    u32 n = 0;
    for (u32 i = 0; i < u->o->part_count && at < end; i++) {
        struct bytes b = u->o->parts[i];
        u64 first = MAX(at, from), last = MIN(at + b.len, end);
        if (first < last)
            views[n++] = bytes_of(b.data + (first - at), (u32)(last - first));
        at += b.len;
    }
    *bytes = end - from;
    return n;
}

static err upload_part(struct upload *u, u32 number, struct bytes *views)
{
    char query[S3_UPLOAD_QUERY_SIZE];
    struct part_done *d = &u->done[number - 1];
    struct s3_request q = { .op = S3_PARTS,
                            .method = "PUT",
                            .name = u->o->name,
                            .query = query,
                            .parts = views,
                            .has_body = true,
                            .pace = u->o->pace,
                            .pace_among = u->lanes,
                            .check = s3_put_check };
    q.part_count = part_views(u, number, views, &q.body_bytes);
    CHECK(s3_upload_query(u->base.id, number, query));
    if (u->h->s->checksums) {
        s3_checksum(q.parts, q.part_count, d->crc32c);
        q.crc32c = d->crc32c;
        s3_request_header(&q, "x-amz-checksum-crc32c", d->crc32c);
    }
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(u->h, &q, &r, NULL);
    memcpy(d->etag, r.etag, sizeof d->etag);
    if (e == ERR_NONE && !*d->etag)
        e = ERR_MALFORMED;
    s3_reply_free(&r);
    return e;
}

/* The number of the next part, after telling how the one before went; 0: there is none to send. */
static u32 lane_next(struct upload *u, err before)
{
    pthread_mutex_lock(&u->lock);
    if (u->err == ERR_NONE)
        u->err = before;
    u32 number = u->err == ERR_NONE && u->next <= u->part_count ? u->next++ : 0;
    pthread_mutex_unlock(&u->lock);
    return number;
}

static void *lane_run(void *arg)
{
    struct upload *u = arg;
    struct bytes *views = mem_alloc((u->o->part_count + 1) * sizeof *views);
    err e = ERR_NONE;
    for (u32 number; (number = lane_next(u, e)) != 0;)
        e = upload_part(u, number, views);
    mem_free(views);
    return NULL;
}

/* A thread lives as long as several parts of megabytes take: its start is nothing beside that. */
static err upload_parts(struct upload *u)
{
    pthread_t threads[LANES_MAX];
    u32 n = 0;
    u->lanes = MIN((u32)config_u64(u->h->s->cfg, CFG_s3_part_connections), u->part_count);
    CHECK(u->lanes >= 1 && u->lanes <= LANES_MAX);
    while (n < u->lanes - 1 && pthread_create(&threads[n], NULL, lane_run, u) == 0)
        n++; /* with fewer it goes on, only slower */
    (void)lane_run(u);
    while (n > 0) {
        int rc = pthread_join(threads[--n], NULL);
        CHECK(rc == 0);
    }
    return u->err;
}

static err complete_check(const struct s3_request *q, const struct s3_reply *r)
{
    char etag[128];
    (void)q;
    return r->body && s3_xml_find(r->body, r->body_len, "ETag", etag, sizeof etag) ? ERR_NONE
                                                                                   : ERR_IO;
}

static err upload_complete(struct upload *u)
{
    char query[S3_UPLOAD_QUERY_SIZE];
    size_t size = 128 + u->part_count * (size_t)512;
    char *doc = mem_alloc(size);
    struct s3_text t = s3_text_in(doc, size);
    s3_text_add(&t, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (u32 i = 0; i < u->part_count; i++) {
        s3_text_addf(&t, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
        s3_text_xml(&t, u->done[i].etag);
        s3_text_add(&t, "</ETag>");
        if (u->h->s->checksums)
            s3_text_addf(&t, "<ChecksumCRC32C>%s</ChecksumCRC32C>", u->done[i].crc32c);
        s3_text_add(&t, "</Part>");
    }
    s3_text_add(&t, "</CompleteMultipartUpload>");
    CHECK(!t.full);
    struct bytes body = bytes_of(doc, (u32)t.len);
    struct s3_request q = { .op = S3_PARTS,
                            .method = "POST",
                            .name = u->o->name,
                            .query = query,
                            .parts = &body,
                            .part_count = 1,
                            .body_bytes = body.len,
                            .has_body = true,
                            .check = complete_check };
    CHECK(s3_upload_query(u->base.id, 0, query));
    s3_request_header(&q, "content-type", "application/xml");
    if (u->o->if_absent && u->h->s->conditional)
        s3_request_header(&q, "if-none-match", "*");
    struct s3_reply r;
    s3_reply_init(&r);
    err e = s3_call(u->h, &q, &r, NULL);
    s3_reply_free(&r);
    mem_free(doc);
    if (e == ERR_NONE)
        return e;
    /* What a store that fails said last need not be what it did. */
    err there = s3_put_was_ours(u->h, u->o->name, u->mark);
    if (there == ERR_NONE || (there == ERR_EXISTS && u->o->if_absent))
        return there;
    return e == ERR_EXISTS || e == ERR_NOT_FOUND ? ERR_IO : e;
}

err s3_upload_abort(struct s3_handle *h, const char *name, const char *id)
{
    char query[S3_UPLOAD_QUERY_SIZE];
    struct s3_request q = { .op = S3_PARTS, .method = "DELETE", .name = name, .query = query };
    if (!s3_upload_query(id, 0, query))
        return ERR_INVALID_REQUEST;
    struct s3_reply r;
    struct s3_judged j;
    s3_reply_init(&r);
    err e = s3_call(h, &q, &r, &j);
    s3_reply_free(&r);
    bool gone = e == ERR_NOT_FOUND || strcmp(j.code, "NoSuchUpload") == 0;
    return gone ? ERR_NONE : e;
}

/* ---- which go on ---- */

static void upload_begun(struct upload *u)
{
    struct s3 *s = u->h->s;
    pthread_mutex_lock(&s->lock);
    list_push_back(&s->uploads, &u->base.link);
    pthread_mutex_unlock(&s->lock);
}

static void upload_over(struct upload *u, bool aborted)
{
    struct s3 *s = u->h->s;
    pthread_mutex_lock(&s->lock);
    list_remove(&u->base.link);
    s->stats.uploads_aborted += aborted;
    pthread_mutex_unlock(&s->lock);
}

bool s3_upload_goes_on(struct s3 *s, const char *id)
{
    bool found = false;
    pthread_mutex_lock(&s->lock);
    list_for(it, &s->uploads)
        found = found || strcmp(container_of(it, struct s3_upload, link)->id, id) == 0;
    pthread_mutex_unlock(&s->lock);
    return found;
}

err s3_put_parts(struct s3_handle *h, const struct store_object *o, u64 bytes)
{
    struct upload *u = MEM_NEW(struct upload);
    u->h = h;
    u->o = o;
    u->bytes = bytes;
    u->part_bytes = MAX(config_u64(h->s->cfg, CFG_s3_part_bytes), bytes / PARTS_MAX + 1);
    u->part_count = (u32)((bytes + u->part_bytes - 1) / u->part_bytes);
    u->next = 1;
    u->done = mem_alloc(u->part_count * sizeof *u->done);
    pthread_mutex_init(&u->lock, NULL);
    err e = upload_create(u);
    if (e == ERR_NONE) {
        upload_begun(u);
        e = upload_parts(u);
        if (e == ERR_NONE)
            e = upload_complete(u);
        /* Nobody waits for the abort: the sweep does what it fails to do. */
        if (e != ERR_NONE)
            (void)!s3_upload_abort(h, o->name, u->base.id);
        upload_over(u, e != ERR_NONE);
    }
    pthread_mutex_destroy(&u->lock);
    mem_free(u->done);
    mem_free(u);
    return e;
}
