/* Large objects: a multipart upload, so that a failure costs one part and not all that was sent.
 *
 *   create ─► part 1 ─► part 2 ─► … ─► complete        any failure: abort
 *
 *  1. Parts are views into what the caller gave, one after the other; each is retried by itself.
 *  2. The object shows up at `complete`, whole. Its answer may get lost: the upload is gone then
 *     when it is asked for again, and the mark in the object's metadata tells that it was ours.
 *  3. An upload that a crash left behind costs money until the bucket's lifecycle rule removes it
 *     (docs/s3.md says which).
 */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "s3_int.h"

#define PARTS_MAX 10000u /* S3's own limit */
#define UPLOAD_ID_SIZE 1024

struct part_done {
    char etag[80], crc32c[S3_CRC_SIZE];
};

struct upload {
    struct s3_handle *h;
    const struct store_object *o;
    char id[UPLOAD_ID_SIZE], mark[S3_MARK_SIZE];
    struct part_done *done;
    u32 part_count;
    /* where the next part begins */
    u32 at, at_pos;
    struct bytes *views; /* of one part; o->part_count + 1 */
};

static bool query_make(const struct upload *u, u32 number, char *out, size_t size)
{
    struct s3_text t = s3_text_in(out, size);
    if (number > 0)
        s3_text_addf(&t, "partNumber=%u&", number);
    s3_text_add(&t, "uploadId=");
    s3_text_escape(&t, u->id, strlen(u->id), false);
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
        !s3_xml_find(r.body ? r.body : "", r.body_len, "UploadId", u->id, sizeof u->id))
        e = ERR_MALFORMED;
    s3_reply_free(&r);
    return e;
}

/* Views of the next `bytes`; returns how many. */
static u32 part_views(struct upload *u, u64 bytes)
{
    u32 n = 0;
    while (bytes > 0) {
        CHECK(u->at < u->o->part_count);
        struct bytes b = u->o->parts[u->at];
        u32 some = (u32)MIN((u64)(b.len - u->at_pos), bytes);
        if (some > 0)
            u->views[n++] = bytes_of(b.data + u->at_pos, some);
        bytes -= some;
        u->at_pos += some;
        if (u->at_pos == b.len) {
            u->at++;
            u->at_pos = 0;
        }
    }
    return n;
}

static err upload_part(struct upload *u, u32 number, u64 bytes)
{
    char query[3 * UPLOAD_ID_SIZE + 64];
    struct part_done *d = &u->done[number - 1];
    struct s3_request q = { .op = S3_PARTS,
                            .method = "PUT",
                            .name = u->o->name,
                            .query = query,
                            .parts = u->views,
                            .part_count = part_views(u, bytes),
                            .body_bytes = bytes,
                            .has_body = true,
                            .pace = u->o->pace,
                            .check = s3_put_check };
    CHECK(query_make(u, number, query, sizeof query));
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

static err complete_check(const struct s3_request *q, const struct s3_reply *r)
{
    char etag[128];
    (void)q;
    return r->body && s3_xml_find(r->body, r->body_len, "ETag", etag, sizeof etag) ? ERR_NONE
                                                                                   : ERR_IO;
}

static err upload_complete(struct upload *u)
{
    char query[3 * UPLOAD_ID_SIZE + 64];
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
    CHECK(query_make(u, 0, query, sizeof query));
    s3_request_header(&q, "content-type", "application/xml");
    if (u->o->if_absent && u->h->s->conditional)
        s3_request_header(&q, "if-none-match", "*");
    struct s3_reply r;
    s3_reply_init(&r);
    struct s3_judged j;
    err e = s3_call(u->h, &q, &r, &j);
    s3_reply_free(&r);
    mem_free(doc);
    bool gone = e == ERR_EXISTS || strcmp(j.code, "NoSuchUpload") == 0 || e == ERR_NOT_FOUND;
    return gone ? s3_put_was_ours(u->h, u->o->name, u->mark) : e;
}

/* Nobody waits for it, and the bucket's lifecycle rule does the same in time. */
static void upload_abort(struct upload *u)
{
    char query[3 * UPLOAD_ID_SIZE + 64];
    struct s3_request q = {
        .op = S3_PARTS, .method = "DELETE", .name = u->o->name, .query = query
    };
    CHECK(query_make(u, 0, query, sizeof query));
    struct s3_reply r;
    s3_reply_init(&r);
    (void)!s3_call(u->h, &q, &r, NULL);
    s3_reply_free(&r);
}

err s3_put_parts(struct s3_handle *h, const struct store_object *o, u64 bytes)
{
    u64 part_bytes = MAX(config_u64(h->s->cfg, CFG_s3_part_bytes), bytes / PARTS_MAX + 1);
    struct upload *u = MEM_NEW(struct upload);
    u->h = h;
    u->o = o;
    u->part_count = (u32)((bytes + part_bytes - 1) / part_bytes);
    u->done = mem_alloc(u->part_count * sizeof *u->done);
    u->views = mem_alloc((o->part_count + 1) * sizeof *u->views);
    err e = upload_create(u);
    bool created = e == ERR_NONE;
    for (u32 n = 1; n <= u->part_count && e == ERR_NONE; n++)
        e = upload_part(u, n, MIN(part_bytes, bytes - (n - 1) * part_bytes));
    if (e == ERR_NONE)
        e = upload_complete(u);
    if (created && e != ERR_NONE)
        upload_abort(u);
    mem_free(u->views);
    mem_free(u->done);
    mem_free(u);
    return e;
}
