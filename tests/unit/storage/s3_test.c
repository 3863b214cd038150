/* The parts of the S3 driver that need no server: signatures as AWS publishes them, addresses,
 * answers (also hostile ones), what is repeated and when, and what a failed start says. */
#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "../../../storage/s3_int.h"

static char why[2048];

/* ---- signatures ---- */

/* The suite's key; and the one of the S3 manual's examples. */
#define SUITE_SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define MANUAL_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define EMPTY_HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void signature_is(const struct s3_signing *in, const char *names, const char *signature)
{
    char got[1024], want[1024];
    assert_true(s3_sign(in, got, sizeof got));
    snprintf(want, sizeof want,
             "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, SignedHeaders=%s, "
             "Signature=%s",
             in->access_key, in->time, in->service, names, signature);
    assert_string_equal(got, want);
}

static void suite_is(const char *method, const char *path, const char *query, const char *signature)
{
    struct s3_header headers[] = { { "x-amz-date", "20150830T123600Z" },
                                   { "host", "example.amazonaws.com" } };
    struct s3_signing in = { method,           path,        query,
                             headers,          2,           EMPTY_HASH,
                             headers[0].value, "us-east-1", "service",
                             "AKIDEXAMPLE",    SUITE_SECRET };
    signature_is(&in, "host;x-amz-date", signature);
}

static void signatures_are_those_of_the_published_suite(void **state)
{
    (void)state;
    suite_is("GET", "/", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    suite_is("POST", "/", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    suite_is("GET", "/", "Param1=value1&Param2=value2",
             "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    suite_is("GET", "/", "Param1=value1",
             "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb");
    suite_is("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "",
             "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
    char path[32];
    struct s3_text t = s3_text_in(path, sizeof path);
    s3_text_escape(&t, "/\xe1\x88\xb4", 4, true);
    suite_is("GET", path, "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
    struct s3_header headers[] = { { "host", "example.amazonaws.com" },
                                   { "my-header1", " value1" },
                                   { "my-header2", " \"a   b   c\"" },
                                   { "x-amz-date", "20150830T123600Z" } };
    struct s3_signing in = { "GET",
                             "/",
                             "",
                             headers,
                             4,
                             EMPTY_HASH,
                             headers[3].value,
                             "us-east-1",
                             "service",
                             "AKIDEXAMPLE",
                             SUITE_SECRET };
    signature_is(&in, "host;my-header1;my-header2;x-amz-date",
                 "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736");
}

static void manual_is(const char *method, const char *path, const char *query,
                      const struct s3_header *more, u32 more_count, const char *hash,
                      const char *names, const char *signature)
{
    struct s3_header headers[8] = { { "host", "examplebucket.s3.amazonaws.com" },
                                    { "x-amz-content-sha256", hash },
                                    { "x-amz-date", "20130524T000000Z" } };
    for (u32 i = 0; i < more_count; i++)
        headers[3 + i] = more[i];
    struct s3_signing in = { method,
                             path,
                             query,
                             headers,
                             3 + more_count,
                             hash,
                             "20130524T000000Z",
                             "us-east-1",
                             "s3",
                             "AKIAIOSFODNN7EXAMPLE",
                             MANUAL_SECRET };
    signature_is(&in, names, signature);
}

static void signatures_are_those_of_the_manual(void **state)
{
    (void)state;
    static const char plain[] = "host;x-amz-content-sha256;x-amz-date";
    struct s3_header range = { "range", "bytes=0-9" };
    manual_is("GET", "/test.txt", "", &range, 1, EMPTY_HASH,
              "host;range;x-amz-content-sha256;x-amz-date",
              "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    struct s3_header more[] = { { "x-amz-storage-class", "REDUCED_REDUNDANCY" },
                                { "date", "Fri, 24 May 2013 00:00:00 GMT" } };
    struct bytes body[] = { bytes_str("Welcome to "), bytes_str(""), bytes_str("Amazon S3.") };
    char hash[S3_HASH_SIZE];
    s3_hash(body, 3, hash);
    manual_is("PUT", "/test%24file.text", "", more, 2, hash,
              "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
              "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
    manual_is("GET", "/", "lifecycle=", NULL, 0, EMPTY_HASH, plain,
              "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    manual_is("GET", "/", "max-keys=2&prefix=J", NULL, 0, EMPTY_HASH, plain,
              "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void times_and_escapes(void **state)
{
    (void)state;
    char buf[64];
    s3_time_amz(s3_time_iso("2013-05-24T00:00:00Z"), buf);
    assert_string_equal(buf, "20130524T000000Z");
    assert_int_equal(s3_time_iso("1970-01-01T00:00:01.999Z"), 1000);
    assert_int_equal(s3_time_iso("2013-13-24T00:00:00Z"), -1);
    assert_int_equal(s3_time_iso("soon"), -1);
    struct s3_text t = s3_text_in(buf, sizeof buf);
    s3_text_escape(&t, "a b/c+~%", 8, false);
    assert_string_equal(buf, "a%20b%2Fc%2B~%25");
    t = s3_text_in(buf, 6);
    s3_text_escape(&t, "abc ef", 6, false);
    assert_true(t.full);
}

/* ---- addresses ---- */

static struct config cfg;

static int config_set_up(void **state)
{
    (void)state;
    static const char *const variables[] = { "AWS_REGION", "AWS_DEFAULT_REGION",
                                             "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
                                             "AWS_PROFILE" };
    for (size_t i = 0; i < ARRAY_COUNT(variables); i++)
        unsetenv(variables[i]);
    setenv("AWS_CONFIG_FILE", "/nowhere", 1);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere", 1);
    config_init(&cfg);
    return 0;
}

static int config_tear_down(void **state)
{
    (void)state;
    config_free(&cfg);
    return 0;
}

static struct s3_place place_of(const char *url)
{
    struct s3_place p;
    err e = s3_place_parse(url, &cfg, &p, why, sizeof why);
    assert_int_equal(e, ERR_NONE);
    return p;
}

static void urls_name_bucket_prefix_and_host(void **state)
{
    (void)state;
    struct s3_place p = place_of("s3://my-bucket");
    assert_string_equal(p.host, "my-bucket.s3.us-east-1.amazonaws.com");
    assert_string_equal(p.prefix, "");
    assert_true(p.tls && !p.path_style && !p.region_given);
    p = place_of("s3://my.bucket//a/b//?region=eu-west-1");
    assert_string_equal(p.host, "s3.eu-west-1.amazonaws.com");
    assert_string_equal(p.prefix, "a/b");
    assert_true(p.path_style && p.region_given);
    p = place_of("s3://bkt/x?region=cn-north-1&style=virtual");
    assert_string_equal(p.host, "bkt.s3.cn-north-1.amazonaws.com.cn");
    p = place_of("s3://bkt/x?endpoint=http%3A%2F%2F127.0.0.1:9000/");
    assert_string_equal(p.host, "127.0.0.1:9000");
    assert_true(!p.tls && p.path_style);
    p = place_of("s3://bkt/x?endpoint=https://s3.example.com:443&style=virtual");
    assert_string_equal(p.host, "bkt.s3.example.com");
    assert_true(p.tls && !p.path_style);
    p = place_of("s3://bkt?endpoint=[::1]:9000");
    assert_string_equal(p.host, "[::1]:9000");
    setenv("AWS_ENDPOINT_URL", "http://env:80", 1);
    setenv("AWS_DEFAULT_REGION", "from-env", 1);
    p = place_of("s3://bkt");
    assert_string_equal(p.host, "env");
    assert_string_equal(p.region, "from-env");
    unsetenv("AWS_ENDPOINT_URL");
    unsetenv("AWS_DEFAULT_REGION");
}

static void wrong_urls_are_refused_with_a_remedy(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "s3://",
        "s3://ab",
        "s3://bu cket/x",
        "s3:///x",
        "s3://bucket/x?endpont=http://x",
        "s3://bucket/x?endpoint",
        "s3://bucket/x?style=best",
        "s3://bucket/x?endpoint=http://host/path",
        "s3://bucket/x?endpoint=http://",
        "s3://bucket/x?region=a/b",
        "s3://bucket/\x01",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct s3_place p;
        assert_int_equal(s3_place_parse(wrong[i], &cfg, &p, why, sizeof why), ERR_INVALID_CONFIG);
        assert_non_null(strstr(why, "store."));
    }
}

/* ---- answers ---- */

struct seen {
    u32 count;
    char last[64];
    u64 bytes;
};

static err seen_add(void *arg, const char *key, u64 bytes)
{
    struct seen *s = arg;
    s->count++;
    s->bytes += bytes;
    snprintf(s->last, sizeof s->last, "%s", key);
    return ERR_NONE;
}

static struct seen list_of(const char *doc, struct s3_list *l)
{
    struct seen s = { 0 };
    assert_int_equal(s3_list_parse(doc, strlen(doc), l, seen_add, &s), ERR_NONE);
    return s;
}

static void lists_are_read(void **state)
{
    (void)state;
    struct s3_list l;
    struct seen s = list_of("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><Name>b</Name>"
                            "<Prefix/><IsTruncated>true</IsTruncated>"
                            "<Contents><Key>a&amp;b&#x21;&#33;</Key><Owner><ID>Key</ID></Owner>"
                            "<Size>12</Size></Contents><Contents><Key>c</Key><Size>30</Size>"
                            "<ETag>&quot;x&quot;</ETag></Contents>"
                            "<NextContinuationToken>t&lt;1</NextContinuationToken>"
                            "</ListBucketResult>",
                            &l);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.bytes, 42);
    assert_string_equal(s.last, "c");
    assert_true(l.truncated && l.complete);
    assert_string_equal(l.next, "t<1");
}

static void hostile_lists_end(void **state)
{
    (void)state;
    static const char *const docs[] = {
        "",
        "<",
        "<<<<<<",
        "<a",
        "<ListBucketResult><Contents><Key>",
        "<ListBucketResult><Contents><Key>x</Ke",
        "<Contents><Size>99999999999999999999999</Size><Key>x</Key></Contents>",
        "<Contents><Key>&bomb;</Key><Size>1</Size></Contents>",
        "<Contents><Key>&#0;</Key><Size>1</Size></Contents>",
        "<Contents><Key>&#x110000;</Key><Size>1</Size></Contents>",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><Contents><Size>1</Size></Contents>",
        "</Contents></Contents><//><?><!>",
    };
    for (size_t i = 0; i < ARRAY_COUNT(docs); i++) {
        struct s3_list l;
        assert_int_equal(list_of(docs[i], &l).count, 0);
        assert_true(!l.complete && !l.truncated);
    }
}

static err upload_add(void *arg, const char *key, const char *id, i64 began_ms)
{
    struct seen *s = arg;
    s->count++;
    s->bytes = (u64)began_ms;
    snprintf(s->last, sizeof s->last, "%s %s", key, id);
    return ERR_NONE;
}

static struct seen uploads_of(const char *doc, struct s3_uploads *l)
{
    struct seen s = { 0 };
    assert_int_equal(s3_uploads_parse(doc, strlen(doc), l, upload_add, &s), ERR_NONE);
    return s;
}

static void unfinished_uploads_are_read(void **state)
{
    (void)state;
    struct s3_uploads l;
    struct seen s = uploads_of(
        "<ListMultipartUploadsResult xmlns=\"x\"><Bucket>b</Bucket><KeyMarker/>"
        "<NextKeyMarker>p/b&amp;</NextKeyMarker><NextUploadIdMarker>i+2</NextUploadIdMarker>"
        "<MaxUploads>1000</MaxUploads><IsTruncated>true</IsTruncated>"
        "<Upload><Key>p/a</Key><UploadId>i1</UploadId><Initiator><ID>me</ID></Initiator>"
        "<Initiated>1970-01-02T00:00:00.000Z</Initiated></Upload>"
        "<Upload><Key>p/never</Key><UploadId>i3</UploadId></Upload>"
        "<Upload><Key>p/never</Key><UploadId>i3</UploadId><Initiated>soon</Initiated></Upload>"
        "<Upload><UploadId>i4</UploadId><Initiated>1970-01-02T00:00:00Z</Initiated></Upload>"
        "</ListMultipartUploadsResult>",
        &l);
    assert_int_equal(s.count, 1); /* the others lack something */
    assert_string_equal(s.last, "p/a i1");
    assert_int_equal(s.bytes, 86400000);
    assert_true(l.truncated && l.complete);
    assert_string_equal(l.next_key, "p/b&");
    assert_string_equal(l.next_id, "i+2");
    s = uploads_of("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>", &l);
    assert_true(s.count == 0 && !l.complete && !l.truncated);
    s = uploads_of("<ListMultipartUploadsResult/>", &l);
    assert_true(s.count == 0 && l.complete);
}

static struct s3_judged judged(long status, CURLcode code, const char *body)
{
    struct s3_reply r;
    s3_reply_init(&r);
    r.status = status;
    r.code = code;
    char copy[512];
    snprintf(copy, sizeof copy, "%s", body);
    r.body = copy;
    r.body_len = (u32)strlen(copy);
    return s3_judge(&r);
}

#define ERROR_OF(code) "<?xml version=\"1.0\"?><Error><Code>" code "</Code></Error>"

static void answers_are_judged(void **state)
{
    (void)state;
    static const struct {
        long status;
        CURLcode code;
        const char *body;
        enum s3_verdict verdict;
        err err;
    } rows[] = {
        { 200, CURLE_OK, "", S3_DONE, ERR_NONE },
        { 204, CURLE_OK, "", S3_DONE, ERR_NONE },
        { 200, CURLE_OK, ERROR_OF("InternalError"), S3_AGAIN, ERR_IO },
        { 200, CURLE_OK, "<Error", S3_DONE, ERR_NONE },
        { 200, CURLE_OK, ERROR_OF("PreconditionFailed"), S3_FINAL, ERR_EXISTS },
        { 0, CURLE_COULDNT_CONNECT, "", S3_AGAIN, ERR_IO },
        { 0, CURLE_OPERATION_TIMEDOUT, "", S3_AGAIN, ERR_TIMED_OUT },
        { 0, CURLE_PEER_FAILED_VERIFICATION, "", S3_FINAL, ERR_DENIED },
        { 500, CURLE_OK, "", S3_AGAIN, ERR_IO },
        { 502, CURLE_OK, "<html>", S3_AGAIN, ERR_IO },
        { 503, CURLE_OK, "", S3_THROTTLED, ERR_BUSY },
        { 503, CURLE_OK, ERROR_OF("SlowDown"), S3_THROTTLED, ERR_BUSY },
        { 400, CURLE_OK, ERROR_OF("RequestTimeout"), S3_AGAIN, ERR_TIMED_OUT },
        { 400, CURLE_OK, ERROR_OF("ExpiredToken"), S3_EXPIRED, ERR_DENIED },
        { 400, CURLE_OK, ERROR_OF("BadDigest"), S3_AGAIN, ERR_CORRUPT },
        { 429, CURLE_OK, "", S3_THROTTLED, ERR_BUSY },
        { 403, CURLE_OK, ERROR_OF("RequestTimeTooSkewed"), S3_CLOCK, ERR_DENIED },
        { 403, CURLE_OK, ERROR_OF("AccessDenied"), S3_FINAL, ERR_DENIED },
        { 404, CURLE_OK, ERROR_OF("NoSuchKey"), S3_FINAL, ERR_NOT_FOUND },
        /* A bucket that is gone must not look like an object that is. */
        { 404, CURLE_OK, ERROR_OF("NoSuchBucket"), S3_FINAL, ERR_IO },
        { 409, CURLE_OK, ERROR_OF("ConditionalRequestConflict"), S3_AGAIN, ERR_CONFLICT },
        { 412, CURLE_OK, "", S3_FINAL, ERR_EXISTS },
        { 416, CURLE_OK, ERROR_OF("InvalidRange"), S3_FINAL, ERR_TRUNCATED },
        { 301, CURLE_OK, ERROR_OF("PermanentRedirect"), S3_REGION, ERR_INVALID_CONFIG },
        { 507, CURLE_OK, "", S3_FINAL, ERR_DISK_FULL },
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct s3_judged j = judged(rows[i].status, rows[i].code, rows[i].body);
        assert_int_equal(j.verdict, rows[i].verdict);
        assert_int_equal(j.err, rows[i].err);
    }
}

static void reply_line(struct s3_reply *r, const char *line)
{
    s3_reply_header(r, line, strlen(line));
}

static void heads_are_read(void **state)
{
    (void)state;
    struct s3_reply r;
    s3_reply_init(&r);
    reply_line(&r, "HTTP/1.1 100 Continue\r\n");
    reply_line(&r, "HTTP/1.1 206 Partial Content\r\n");
    reply_line(&r, "CONTENT-RANGE: bytes 10-19/50\r\n");
    reply_line(&r, "Content-Length:10\r\n");
    reply_line(&r, "Date: Fri, 24 May 2013 00:00:00 GMT\r\n");
    reply_line(&r, "x-amz-bucket-region:  eu-west-1 \r\n");
    reply_line(&r, "Retry-After: 3\r\n");
    assert_int_equal(r.status, 206);
    assert_true(r.has_range && r.has_length);
    assert_int_equal(r.range_first, 10);
    assert_int_equal(r.object_bytes, 50);
    assert_int_equal(r.content_length, 10);
    assert_true(r.date_ms == s3_time_iso("2013-05-24T00:00:00Z"));
    assert_string_equal(r.region, "eu-west-1");
    assert_int_equal(r.retry_after_s, 3);
    s3_reply_init(&r);
    reply_line(&r, "HTTP/1.1 206 x");
    reply_line(&r, "content-range: bytes 20-10/50");
    reply_line(&r, "content-range: bytes 1-50/50");
    reply_line(&r, "content-range: bytes */50");
    assert_false(r.has_range);
}

/* ---- policy ---- */

static void waits_grow_and_stay_bounded(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    u64 largest = 0;
    for (u32 i = 0; i < 1000; i++) {
        assert_true(s3_backoff_ns(0, false, 0, &rng) <= 100 * NS_PER_MS);
        assert_true(s3_backoff_ns(40, true, 0, &rng) <= 5 * NS_PER_S);
        u64 told = s3_backoff_ns(0, true, 2, &rng);
        assert_true(told >= 2 * NS_PER_S && told <= 3 * NS_PER_S);
        largest = MAX(largest, s3_backoff_ns(3, false, 0, &rng));
    }
    assert_true(largest > 600 * NS_PER_MS && largest <= 800 * NS_PER_MS);
}

static void gate_fill(struct s3_gate *g, enum store_class c, u32 count)
{
    while (count-- > 0)
        s3_gate_enter(g, c);
}

static void gate_empty(struct s3_gate *g, enum store_class c, u32 count)
{
    while (count-- > 0)
        s3_gate_leave(g, c);
}

static void gate_lets_urgent_classes_pass(void **state)
{
    (void)state;
    struct s3_gate g;
    s3_gate_init(&g, 20);
    /* Alone, a class has its share; what is left is for those above. */
    static const u32 shares[STORE_CLASSES] = { 0, 20, 18, 15, 12, 10 };
    for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++) {
        u32 n = 0;
        for (; s3_gate_may_enter(&g, (enum store_class)c); n++)
            s3_gate_enter(&g, (enum store_class)c);
        assert_int_equal(n, shares[c]);
        gate_empty(&g, (enum store_class)c, n);
    }
    /* Compaction has filled its share: those above get in. */
    gate_fill(&g, STORE_COMPACT, 12);
    assert_false(s3_gate_may_enter(&g, STORE_GC));
    assert_false(s3_gate_may_enter(&g, STORE_COMPACT));
    assert_true(s3_gate_may_enter(&g, STORE_CATCHUP));
    /* What is urgent waits: who is less so stays outside, even with room. */
    gate_empty(&g, STORE_COMPACT, 11);
    assert_true(s3_gate_may_enter(&g, STORE_COMPACT));
    g.waiting[STORE_TAIL] = 1;
    assert_false(s3_gate_may_enter(&g, STORE_COMPACT));
    assert_true(s3_gate_may_enter(&g, STORE_UPLOAD));
    assert_true(s3_gate_may_enter(&g, STORE_TAIL));
    /* Unless it waits for its own limit. */
    g.limit[STORE_TAIL] = 2;
    gate_fill(&g, STORE_TAIL, 2);
    assert_false(s3_gate_may_enter(&g, STORE_TAIL));
    assert_true(s3_gate_may_enter(&g, STORE_COMPACT));
    g.limit[STORE_TAIL] = 0;
    assert_false(s3_gate_may_enter(&g, STORE_COMPACT));
    /* Not even the first goes beyond the width. */
    gate_fill(&g, STORE_UPLOAD, 17);
    assert_int_equal(g.inflight, 20);
    for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++)
        assert_false(s3_gate_may_enter(&g, (enum store_class)c));
}

/* One request at a time, and all classes always wait: each still gets its turn. */
static void gate_forgets_nobody(void **state)
{
    (void)state;
    struct s3_gate g;
    u32 turns[STORE_CLASSES] = { 0 };
    s3_gate_init(&g, 1);
    for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++)
        g.waiting[c] = 1;
    for (u32 i = 0; i < 1000; i++) {
        u32 may = 0, next = 0;
        for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++)
            if (s3_gate_may_enter(&g, (enum store_class)c)) {
                may++;
                next = c;
            }
        assert_int_equal(may, 1);
        s3_gate_enter(&g, (enum store_class)next);
        turns[next]++;
        s3_gate_leave(&g, (enum store_class)next);
    }
    for (u32 c = STORE_UPLOAD; c < STORE_GC; c++)
        assert_true(turns[c] >= turns[c + 1]);
    assert_true(turns[STORE_UPLOAD] > 700);
    assert_true(turns[STORE_GC] > 1000 / 40);
}

static void gate_narrows_when_throttled_and_opens_again(void **state)
{
    (void)state;
    struct s3_gate g;
    u64 now = 100 * NS_PER_S;
    s3_gate_init(&g, 64);
    gate_fill(&g, STORE_TAIL, 32);
    gate_fill(&g, STORE_GC, 1);
    assert_true(s3_gate_may_enter(&g, STORE_UPLOAD));
    assert_false(s3_gate_may_enter(&g, STORE_GC)); /* leaves half to the others */
    s3_gate_note(&g, true, now);
    s3_gate_note(&g, true, now + NS_PER_MS); /* the same event */
    assert_int_equal(g.width_milli, 16500);
    gate_empty(&g, STORE_TAIL, 17);
    assert_int_equal(g.inflight, 16);
    assert_false(s3_gate_may_enter(&g, STORE_UPLOAD));
    gate_empty(&g, STORE_TAIL, 2);
    assert_true(s3_gate_may_enter(&g, STORE_UPLOAD));
    assert_false(s3_gate_may_enter(&g, STORE_TAIL));
    for (u32 i = 0; i < 20; i++)
        s3_gate_note(&g, true, now += 2 * NS_PER_S);
    assert_int_equal(g.width_milli, 1000);
    gate_empty(&g, STORE_TAIL, 13);
    assert_false(s3_gate_may_enter(&g, STORE_UPLOAD));
    gate_empty(&g, STORE_GC, 1);
    assert_true(s3_gate_may_enter(&g, STORE_GC)); /* one always gets through */
    for (u32 i = 0; i < 5000; i++)
        s3_gate_note(&g, false, now);
    assert_int_equal(g.width_milli, 64000);
    assert_false(s3_gate_narrowed(&g));
}

static void hedges_come_late_and_are_few(void **state)
{
    (void)state;
    struct s3_hedge h = { 0 };
    for (u32 i = 0; i < 23; i++)
        s3_hedge_note(&h, MIB, 20 * NS_PER_MS, 5);
    assert_int_equal(s3_hedge_after(&h, MIB), 0); /* too few */
    for (u32 i = 0; i < 77; i++)
        s3_hedge_note(&h, MIB, (i % 20 == 0 ? 500 : 20) * NS_PER_MS, 5);
    u64 after = s3_hedge_after(&h, MIB);
    assert_true(after >= 20 * NS_PER_MS && after <= 500 * NS_PER_MS);
    /* Of other sizes nothing is known but this. */
    assert_int_equal(s3_hedge_after(&h, 1000), after);
    assert_int_equal(s3_hedge_after(&h, 3 * MIB), 2 * after);
    for (u32 i = 0; i < 24; i++)
        s3_hedge_note(&h, 1000, 5 * NS_PER_MS, 0);
    assert_int_equal(s3_hedge_after(&h, 1000), 10 * NS_PER_MS);
    assert_int_equal(s3_hedge_after(&h, 100 * KIB), 20 * NS_PER_MS);
    assert_int_equal(s3_hedge_after(&h, MIB), after);
    u32 taken = 0;
    for (; s3_hedge_take(&h); taken++)
        assert_true(taken < 5);
    assert_int_equal(taken, 5); /* 100 reads paid for five */
}

static void hedges_are_not_spent_on_what_is_nearly_as_quick(void **state)
{
    (void)state;
    struct s3_hedge h = { 0 };
    for (u32 i = 0; i < 128; i++)
        s3_hedge_note(&h, MIB, (100 + i % 20) * NS_PER_MS, 0);
    assert_true(s3_hedge_after(&h, MIB) >= 200 * NS_PER_MS); /* not 119 */
    assert_false(s3_hedge_take(&h));                         /* nothing was paid */
    for (u32 i = 0; i < 9; i++)
        s3_hedge_note(&h, MIB, NS_PER_MS, 10);
    assert_false(s3_hedge_take(&h));
    s3_hedge_note(&h, MIB, NS_PER_MS, 10);
    assert_true(s3_hedge_take(&h)); /* ten at ten in a hundred */
    assert_false(s3_hedge_take(&h));
    for (u32 i = 0; i < 1000; i++)
        s3_hedge_note(&h, MIB, NS_PER_MS, 100);
    for (u32 i = 0; i < 5; i++)
        assert_true(s3_hedge_take(&h));
    assert_false(s3_hedge_take(&h));                           /* no more than a few are saved up */
    assert_int_equal(s3_hedge_after(&h, MIB), 10 * NS_PER_MS); /* times are of the recent ones */
}

/* ---- credentials ---- */

static void profiles_are_found(void **state)
{
    (void)state;
    static const char text[] = "# comment\r\n[default]\naws_access_key_id = AKID\r\n"
                               "aws_secret_access_key=s3cr=t \n\n[profile other]\n"
                               "region = eu-west-1\ns3 =\n  region = nested\n[last]\nregion=x";
    char v[64];
    size_t n = sizeof text - 1;
    assert_true(s3_ini_find(text, n, "default", "aws_secret_access_key", v, sizeof v));
    assert_string_equal(v, "s3cr=t");
    assert_true(s3_ini_find(text, n, "other", "region", v, sizeof v));
    assert_string_equal(v, "eu-west-1");
    assert_true(s3_ini_find(text, n, "last", "region", v, sizeof v));
    assert_false(s3_ini_find(text, n, "default", "region", v, sizeof v));
    assert_false(s3_ini_find(text, n, "default", "aws_access_key_id", v, 4)); /* no room */
}

static void documents_are_read(void **state)
{
    (void)state;
    struct s3_creds *c = MEM_NEW(struct s3_creds);
    static const char json[] = "{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":"
                               "\"S\",\"Token\":\"T\",\"Expiration\":\"2030-01-01T00:00:00Z\"}";
    assert_true(s3_creds_json(json, sizeof json - 1, c));
    assert_string_equal(c->token, "T");
    assert_true(c->expires_ms == s3_time_iso("2030-01-01T00:00:00Z"));
    static const char *const wrong[] = {
        "",
        "[]",
        "{\"AccessKeyId\":\"A\"}",
        "{\"AccessKeyId\":1,\"SecretAccessKey\":\"S\"}",
        "{\"AccessKeyId\":\"A\\r\\nX: y\",\"SecretAccessKey\":\"S\"}",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_false(s3_creds_json(wrong[i], strlen(wrong[i]), c));
    static const char xml[] = "<AssumeRoleWithWebIdentityResponse><Credentials><AccessKeyId>A"
                              "</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T"
                              "</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>"
                              "</Credentials></AssumeRoleWithWebIdentityResponse>";
    assert_true(s3_creds_sts(xml, sizeof xml - 1, c));
    assert_string_equal(c->secret_key, "S");
    assert_false(s3_creds_sts(xml, 60, c));
    mem_free(c);
}

static void tokens_of_containers_stay_near(void **state)
{
    (void)state;
    static const char *const near[] = {
        "https://example.com/x",
        "https://10.0.0.1",
        "http://localhost",
        "http://localhost/",
        "http://localhost:8080/",
        "http://127.0.0.1/x",
        "http://127.0.0.1:51678/v2/x",
        "http://127.9.8.7",
        "http://[::1]:80/",
        "http://169.254.170.2/v2/role",
        "http://169.254.170.23/",
        "http://[fd00:ec2::23]/v1/x",
    };
    static const char *const far[] = {
        "",
        "http://",
        "http://example.com/",
        "http://localhost.example.com/",
        "http://localhosts/",
        "http://localhost@example.com/",
        "http://localhost:80@example.com/",
        "http://localhost:x/",
        "http://127.0.0.1.example.com/",
        "http://127.example.com/",
        "http://127.0.0.1@example.com/",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1?@example.com/",
        "http://169.254.170.2.example.com/",
        "http://169.254.170.22/",
        "http://169.254.170.230/",
        "http://169.254.169.254/",
        "http://[::1].example.com/",
        "http://[::1]@example.com/",
        "http://[fd00:ec2::23:1]/",
        "http://1127.0.0.1/",
        "ftp://localhost/",
        "localhost/",
    };
    for (size_t i = 0; i < ARRAY_COUNT(near); i++)
        if (!s3_container_url_safe(near[i]))
            fail_msg("refused: %s", near[i]);
    for (size_t i = 0; i < ARRAY_COUNT(far); i++)
        if (s3_container_url_safe(far[i]))
            fail_msg("a token would go to %s", far[i]);
}

/* ---- what a failed start says ---- */

static void explained(long status, CURLcode code, const char *body, const char *part)
{
    struct s3_reply r;
    struct s3_place p = place_of("s3://bkt/pre?endpoint=http://127.0.0.1:9000");
    char copy[512];
    s3_reply_init(&r);
    r.status = status;
    r.code = code;
    snprintf(copy, sizeof copy, "%s", body);
    r.body = copy;
    r.body_len = (u32)strlen(copy);
    struct s3_judged j = s3_judge(&r);
    const char *cause, *remedy;
    if (j.verdict != S3_REGION && s3_remedy(&r, &j, &cause, &remedy)) /* the log's words */
        assert_true(strstr(cause, part) || strstr(remedy, part));
    s3_explain(&p, "write an object", &r, &j, 3600 * 1000, why, sizeof why);
    assert_non_null(strstr(why, "s3://bkt/pre at 127.0.0.1:9000: can't write an object"));
    assert_non_null(strstr(why, part));
}

static void failures_name_cause_and_remedy(void **state)
{
    (void)state;
    explained(403, CURLE_OK, ERROR_OF("InvalidAccessKeyId"), "does not know this access key");
    explained(403, CURLE_OK, ERROR_OF("SignatureDoesNotMatch"), "check the secret key");
    explained(403, CURLE_OK, ERROR_OF("AccessDenied"), "grant s3:PutObject");
    explained(403, CURLE_OK, "", "grant s3:PutObject");
    explained(404, CURLE_OK, ERROR_OF("NoSuchBucket"), "make it, or correct store.url");
    explained(403, CURLE_OK, ERROR_OF("RequestTimeTooSkewed"), "let chrony");
    assert_non_null(strstr(why, "off by -3600 s"));
    explained(400, CURLE_OK,
              "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
              "set store.s3.region = eu-west-1");
    explained(301, CURLE_OK, "", "set store.s3.region or store.s3.endpoint");
    explained(0, CURLE_COULDNT_CONNECT, "", "check that the store runs");
    explained(0, CURLE_COULDNT_RESOLVE_HOST, "", "DNS");
    explained(0, CURLE_PEER_FAILED_VERIFICATION, "", "store.s3.ca_file");
    explained(418, CURLE_OK, "", "418");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, config_set_up, config_tear_down)
    const struct CMUnitTest tests[] = {
        T(signatures_are_those_of_the_published_suite),
        T(signatures_are_those_of_the_manual),
        T(times_and_escapes),
        T(urls_name_bucket_prefix_and_host),
        T(wrong_urls_are_refused_with_a_remedy),
        T(lists_are_read),
        T(hostile_lists_end),
        T(unfinished_uploads_are_read),
        T(answers_are_judged),
        T(heads_are_read),
        T(waits_grow_and_stay_bounded),
        T(gate_lets_urgent_classes_pass),
        T(gate_forgets_nobody),
        T(gate_narrows_when_throttled_and_opens_again),
        T(hedges_come_late_and_are_few),
        T(hedges_are_not_spent_on_what_is_nearly_as_quick),
        T(profiles_are_found),
        T(documents_are_read),
        T(tokens_of_containers_stay_near),
        T(failures_name_cause_and_remedy),
    };
    return cmocka_run_group_tests_name("s3", tests, NULL, NULL);
}
