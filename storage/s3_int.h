/* Private to the S3 driver (store_s3*.c, s3_*.c). From the bottom up:
 *
 *   s3_text.c   text in bounded buffers, escapes, dates; the answers' XML
 *   s3_sign.c   Signature Version 4
 *   s3_http.c   one HTTP exchange (two when hedged) on a connection of a thread
 *   s3_parse.c  credential files and documents
 *   s3_cred.c   where credentials come from, and when they are fetched anew
 *   s3_policy.c what to do about an answer: retry, wait, give up; how many at a time; when to hedge
 *   s3_explain.c  cause and remedy of a failure
 *   s3_call.c   a signed request with its retries, and the counters
 *   s3_url.c    store.url and store.s3.*: which host, which path
 *   store_s3.c  the driver; store_s3_open.c its start and probe, store_s3_parts.c large objects
 *
 * All of it blocks and runs on background threads; what threads share is in struct s3.
 */
#ifndef LEAT_S3_INT_H
#define LEAT_S3_INT_H

#include <curl/curl.h>
#include <pthread.h>

#include "list.h"
#include "outage.h"
#include "rng.h"
#include "store.h"

/* ---- s3_text.c ---- */

/* Text in a buffer of the caller's, always NUL-terminated; `full` once something did not fit. */
struct s3_text {
    char *buf;
    size_t size, len;
    bool full;
};
struct s3_text s3_text_in(char *buf, size_t size);
void s3_text_add(struct s3_text *t, const char *s);
void s3_text_addf(struct s3_text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* RFC 3986: all but A-Z a-z 0-9 - . _ ~ becomes %XX; '/' stays when `path`. */
void s3_text_escape(struct s3_text *t, const char *s, size_t len, bool path);
/* "&quot;" and the like for text inside XML. */
void s3_text_xml(struct s3_text *t, const char *s);

/* "2013-05-24T00:00:00Z" → ms since 1970; -1 when it is none. */
i64 s3_time_iso(const char *s);
/* ms since 1970 → "20130524T000000Z". */
void s3_time_amz(i64 ms, char out[17]);

/* One piece of an XML document after the other. Nothing outside the document is ever looked at:
 * no DTD, no entities but the five of XML and numbers. */
enum s3_xml_kind { S3_XML_END, S3_XML_OPEN, S3_XML_LEAF, S3_XML_CLOSE };
struct s3_xml {
    const char *at, *end;
    enum s3_xml_kind kind;
    const char *name; /* without a prefix */
    size_t name_len;
    const char *text; /* of a leaf: raw */
    size_t text_len;
};
struct s3_xml s3_xml_of(const char *doc, size_t len);
/* Malformed text ends the document. */
enum s3_xml_kind s3_xml_next(struct s3_xml *x);
bool s3_xml_is(const struct s3_xml *x, const char *name);
/* The leaf's text with its entities replaced; false when it does not fit. */
bool s3_xml_text(const struct s3_xml *x, char *buf, size_t size);
/* The text of the first leaf of that name anywhere; false and "" when there is none. */
bool s3_xml_find(const char *doc, size_t len, const char *name, char *buf, size_t size);

/* ListObjectsV2's answer. Keys that do not fit are skipped. */
#define S3_KEY_SIZE 1100 /* S3 allows 1024 bytes */
#define S3_TOKEN_SIZE 2048
#define S3_UPLOAD_ID_SIZE 1024
struct s3_list {
    bool truncated;
    bool complete; /* the closing tag was there */
    char next[S3_TOKEN_SIZE];
    u32 keys;
};
err s3_list_parse(const char *doc, size_t len, struct s3_list *l,
                  err (*each)(void *arg, const char *key, u64 bytes), void *arg) MUST_USE;

/* One page of the uploads that were begun and neither completed nor aborted. */
struct s3_uploads {
    bool truncated, complete;
    char next_key[S3_KEY_SIZE], next_id[S3_UPLOAD_ID_SIZE];
};
/* `began_ms` by the store's clock. Rows that do not fit or say no time are skipped. */
err s3_uploads_parse(const char *doc, size_t len, struct s3_uploads *l,
                     err (*each)(void *arg, const char *key, const char *id, i64 began_ms),
                     void *arg) MUST_USE;

/* ---- s3_sign.c ---- */

struct s3_header {
    const char *name; /* lower case */
    const char *value;
};
struct s3_signing {
    const char *method;
    const char *path;  /* escaped */
    const char *query; /* escaped, ascending by name, "" when there is none */
    const struct s3_header *headers;
    u32 header_count; /* at most S3_HEADERS_MAX; all of them are signed */
    const char *payload_hash;
    const char *time; /* as in x-amz-date */
    const char *region, *service;
    const char *access_key, *secret_key;
};
#define S3_HEADERS_MAX 16u
#define S3_HASH_SIZE 65
#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
/* The value of the Authorization header; false when it does not fit. */
bool s3_sign(const struct s3_signing *in, char *out, size_t size) MUST_USE;
/* SHA-256 of the parts one after the other, in lower-case hex. */
void s3_hash(const struct bytes *parts, u32 part_count, char out[S3_HASH_SIZE]);

/* ---- s3_http.c ---- */

struct s3_meter { /* bytes a second, shared by all transfers of a direction or a class */
    u64 free_ns;  /* atomic: when the next byte may go */
};

/* When a request is sent a second time, beside the first. Part of what knows whether it may. */
struct s3_hedger {
    u64 after_ns;
    bool (*may)(struct s3_hedger *h); /* after that long; asked again a little later when not */
};

struct s3_http {
    const char *method, *url;
    const struct s3_header *headers;
    u32 header_count;
    const struct bytes *parts; /* the body */
    u32 part_count;
    u64 body_bytes;
    bool has_body;
    const u64 *pace; /* as store_object's */
    u32 pace_among;  /* so many requests have it together; 0: one */
    struct {
        struct s3_meter *meter;
        u64 rate; /* bytes a second; 0: none */
    } meters[2];  /* the direction's, the class's */
    /* Where a 2xx answer's body goes; NULL: into reply->body, as all others. A 200 to a question
     * for a range brings the whole object: the bytes before `skip` are dropped then. */
    u8 *into;
    u64 into_bytes, skip;
    u64 connect_ms, stall_ns, total_ns;
    struct s3_hedger *hedger; /* NULL: the request is sent once */
    const char *ca_file;
    bool direct; /* past any proxy */
};

#define S3_BODY_MAX ((u32)(16 * MIB)) /* a page of 1000 keys with escapes is below 2 MiB */
struct s3_reply {
    long status; /* 0: no answer */
    CURLcode code;
    char error[CURL_ERROR_SIZE];
    u64 ns;         /* how long it took */
    u64 sent, came; /* bytes of bodies */
    bool hedged, hedge_won;
    u64 twin_bytes; /* hedged: bytes of bodies of the other request, in both directions */
    bool overflow;  /* more came than there was room for */
    /* From its headers. */
    u64 content_length, range_first, range_last, object_bytes;
    bool has_length, has_range;
    i64 date_ms; /* the server's clock; 0: not told */
    u32 retry_after_s;
    char region[64], request_id[128], crc32c[16], put_id[40], etag[80], location[256];
    /* The body of anything that did not go elsewhere; NUL-terminated, NULL when empty. */
    char *body;
    u32 body_len, body_cap;
};
void s3_reply_init(struct s3_reply *r);
void s3_reply_free(struct s3_reply *r);
/* One line of the answer's head. */
void s3_reply_header(struct s3_reply *r, const char *line, size_t len);

struct s3_conn; /* connections of one thread */
struct s3_conn *s3_conn_create(CURLSH *share, u64 seed);
void s3_conn_free(struct s3_conn *c);
struct rng *s3_conn_rng(struct s3_conn *c);
/* Always fills the reply, anew. */
void s3_http_run(struct s3_conn *c, const struct s3_http *q, struct s3_reply *r);

/* ---- s3_parse.c ---- */

struct s3_creds {
    char access_key[256], secret_key[256], token[8192];
    i64 expires_ms; /* 0: never */
};
/* The value of `key` in section [name] or [profile name] of a credentials or config file. */
bool s3_ini_find(const char *text, size_t len, const char *section, const char *key, char *out,
                 size_t size);
/* {"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …} */
bool s3_creds_json(const char *text, size_t len, struct s3_creds *out);
/* AssumeRoleWithWebIdentity's answer. */
bool s3_creds_sts(const char *text, size_t len, struct s3_creds *out);

/* ---- s3_policy.c ---- */

enum s3_op { S3_PUT, S3_GET, S3_HEAD, S3_DELETE, S3_LIST, S3_PARTS, S3_OPS };
enum s3_verdict {
    S3_DONE,      /* as asked */
    S3_FINAL,     /* an error that stays */
    S3_AGAIN,     /* a passing one */
    S3_THROTTLED, /* passing; the store asks for less */
    S3_CLOCK,     /* our clock is wrong: learn it from the answer */
    S3_EXPIRED,   /* credentials: fetch them anew */
    S3_REGION,    /* the bucket is elsewhere, and the answer says where */
};
struct s3_judged {
    enum s3_verdict verdict;
    err err;
    char code[64]; /* S3's word for it: "SlowDown"; "" when it said none */
};
struct s3_judged s3_judge(const struct s3_reply *r);
/* Full jitter: anything up to the base doubled with every try. */
u64 s3_backoff_ns(u32 attempt, bool throttled, u32 retry_after_s, struct rng *rng);

/* How many requests run at a time. AIMD: halved when the store throttles, one more for each round
 * without. A class enters while fewer run than its share and none more urgent waits; after
 * S3_PASSED_MAX that passed it, it goes first. */
#define S3_PASSED_MAX 16u
struct s3_gate {
    u32 inflight, max;
    u32 width_milli; /* thousandths of a request */
    u64 cut_ns;      /* when it was halved last */
    u32 running[STORE_CLASSES], waiting[STORE_CLASSES];
    u32 limit[STORE_CLASSES];  /* of a class by itself; 0: none */
    u32 passed[STORE_CLASSES]; /* more urgent ones that entered while it waited */
};
void s3_gate_init(struct s3_gate *g, u32 max);
bool s3_gate_may_enter(const struct s3_gate *g, enum store_class c);
void s3_gate_enter(struct s3_gate *g, enum store_class c);
void s3_gate_leave(struct s3_gate *g, enum store_class c);
void s3_gate_note(struct s3_gate *g, bool throttled, u64 now_ns);
bool s3_gate_narrowed(const struct s3_gate *g);

/* When one of two same requests is likely to be answered first: recent times of reads, or of puts,
 * by size; and how many second requests they have paid for. */
#define S3_SPAN_COUNT 4u
#define S3_SPAN_SAMPLES 128u
struct s3_hedge {
    struct {
        u64 ns[S3_SPAN_SAMPLES], slow_ns;
        u32 count;
    } spans[S3_SPAN_COUNT];
    u32 budget_milli;
};
/* One that went well; it pays for `percent` hundredths of a second request. */
void s3_hedge_note(struct s3_hedge *h, u64 bytes, u64 ns, u32 percent);
/* What takes longer is slow; 0: not known yet. */
u64 s3_hedge_after(const struct s3_hedge *h, u64 bytes);
/* Takes a second request from what is paid for; false when there is none. */
bool s3_hedge_take(struct s3_hedge *h);

/* ---- s3_url.c ---- */

#define S3_HOST_SIZE 320
struct s3_place {
    char bucket[256], prefix[512]; /* the prefix without '/' at its ends; may be empty */
    char region[64];
    bool region_given; /* by somebody, not by default */
    bool own_endpoint;
    bool tls, path_style;
    char host[S3_HOST_SIZE]; /* as in the Host header: with the bucket (virtual), and the port */
};
err s3_place_parse(const char *url, const struct config *cfg, struct s3_place *p, char *why,
                   size_t why_size) MUST_USE;
/* The host after the region has changed; only without an endpoint of one's own. */
void s3_place_rehost(struct s3_place *p);

/* ---- shared by the driver's files ---- */

#define S3_CONNS_MAX 1024u
#define S3_RESULTS 8u

struct s3_stats { /* under `lock` */
    u64 results[S3_OPS][S3_RESULTS];
    u64 bytes_out, bytes_in, retries, throttles;
    u64 hedges[S3_OPS], hedge_wins[S3_OPS];
    u64 uploads_aborted, uploads_swept;
    struct { /* STORE_ANY counts as what it became */
        u64 requests, bytes, waits;
    } classes[STORE_CLASSES];
    struct metric_hist times[S3_OPS];
};

/* What callers ask through: one for each class, s3->handles[STORE_ANY] is the store itself. */
struct s3_handle {
    struct store base;
    struct s3 *s;
    enum store_class class;
};

#define S3_MAGIC 0x53330001u
struct s3 {
    u32 magic;
    struct s3_handle handles[STORE_CLASSES];
    const struct config *cfg;
    struct s3_place place;
    /* What the probe found. */
    bool checksums;   /* the store takes x-amz-checksum-crc32c */
    bool conditional; /* it honours If-None-Match: * */
    bool multi_delete;
    bool opening; /* region may be learnt */

    CURLSH *share;
    pthread_mutex_t share_locks[CURL_LOCK_DATA_LAST];

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t room;  /* in the gate */
    struct s3_conn *conns[S3_CONNS_MAX];
    u32 conn_count;
    struct rng rng;
    struct s3_gate gate;
    struct s3_hedge reads, puts;
    struct s3_stats stats;
    struct list uploads; /* multipart ones of this process that go on */
    struct outage away, refused[S3_OPS];

    struct s3_meter up, down, classes[STORE_CLASSES];
    i64 clock_offset_ms; /* atomic: the store's clock minus ours */

    pthread_mutex_t cred_lock; /* held while credentials are fetched */
    pthread_mutex_t cred_data_lock;
    struct s3_creds creds;
    u64 cred_generation;     /* 0: none yet */
    i64 cred_refresh_ms;     /* fetched anew from then on; 0: never */
    const char *cred_source; /* whose they are: "env" */
};

static inline struct s3_handle *s3_of(struct store *s)
{
    return container_of(s, struct s3_handle, base);
}

struct s3_conn *s3_conn_take(struct s3 *s);
void s3_conn_give(struct s3 *s, struct s3_conn *c);

/* ---- s3_cred.c ---- */

/* A key of the profile in use, from either file. */
bool s3_profile_find(const struct config *cfg, const char *key, char *out, size_t size);
/* The store's time, as far as we know it. */
i64 s3_now_ms(struct s3 *s);

/* The credentials as they are now, fetched when they are none or about to expire, or anew when
 * those of generation `bad` were refused (0: none was). `why` may be NULL. */
err s3_creds_get(struct s3 *s, u64 bad, struct s3_creds *out, u64 *generation, char *why,
                 size_t why_size) MUST_USE;
/* May a container's token go there: over TLS, to this host, to the addresses such agents have? */
bool s3_container_url_safe(const char *url);

/* ---- s3_call.c ---- */

struct s3_request {
    enum s3_op op;
    const char *method;
    const char *name;  /* of the object, below the prefix; NULL: the bucket itself */
    const char *query; /* canonical; NULL: none */
    struct s3_header headers[8];
    u32 header_count;
    const struct bytes *parts;
    u32 part_count;
    u64 body_bytes;
    bool has_body;
    const u64 *pace;
    u32 pace_among;
    bool may_be_twice; /* a put that acknowledgements wait for */
    u8 *into;
    u64 offset;
    u32 into_bytes; /* > 0: a range is asked for */
    /* Looks at an answer that came whole: ERR_IO has it asked for again. May be NULL. */
    err (*check)(const struct s3_request *q, const struct s3_reply *r);
    const char *crc32c; /* for `check` */
};
/* With retries. The reply is the last one; free it in any case. A failure is logged, except while
 * the store is being opened. `judged` may be NULL. */
err s3_call(struct s3_handle *h, const struct s3_request *q, struct s3_reply *r,
            struct s3_judged *judged) MUST_USE;
void s3_request_header(struct s3_request *q, const char *name, const char *value);
/* The largest escaped path: bucket, prefix and name. */
#define S3_PATH_SIZE (3 * 1100)

/* ---- store_s3.c ---- */

#define S3_CRC_SIZE 9 /* base64 of four bytes */
void s3_checksum(const struct bytes *parts, u32 part_count, char out[S3_CRC_SIZE]);
err s3_put_one(struct s3_handle *h, const struct store_object *o, u64 bytes) MUST_USE;
err s3_put_check(const struct s3_request *q, const struct s3_reply *r);

/* ---- store_s3_parts.c ---- */

err s3_put_parts(struct s3_handle *h, const struct store_object *o, u64 bytes) MUST_USE;
/* Was the object put by us under this mark? For a put whose answer may have got lost. */
err s3_put_was_ours(struct s3_handle *h, const char *name, const char *mark) MUST_USE;
#define S3_MARK_SIZE 33
#define S3_UPLOAD_QUERY_SIZE (3 * S3_UPLOAD_ID_SIZE + 64)
struct s3_upload {
    struct list link; /* s3.uploads */
    char id[S3_UPLOAD_ID_SIZE];
};
bool s3_upload_goes_on(struct s3 *s, const char *id);
/* False when it does not fit. */
bool s3_upload_query(const char *id, u32 number, char out[S3_UPLOAD_QUERY_SIZE]) MUST_USE;
/* Aborting what is gone is ERR_NONE. */
err s3_upload_abort(struct s3_handle *h, const char *name, const char *id) MUST_USE;
void s3_mark(struct s3 *s, char out[S3_MARK_SIZE]);
void s3_put_headers(struct s3 *s, struct s3_request *q);

/* ---- store_s3_sweep.c ---- */

err s3_sweep(struct store *st, const char *prefix, u64 age_ms, u32 *swept) MUST_USE;

/* ---- store_s3_open.c ---- */

err s3_open(const char *url, const struct config *cfg, struct store **out, char *why,
            size_t why_size) MUST_USE;
void s3_destroy(struct s3 *s);

/* ---- s3_explain.c ---- */

/* Cause and remedy of a failed probe, in a sentence. */
void s3_explain(const struct s3_place *p, const char *doing, const struct s3_reply *r,
                const struct s3_judged *j, i64 offset_ms, char *why, size_t why_size);
/* The same as two constant texts; false when nothing is known. */
bool s3_remedy(const struct s3_reply *r, const struct s3_judged *j, const char **cause,
               const char **what);

#endif
