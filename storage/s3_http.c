/* One HTTP exchange, on connections that belong to one thread for as long as it takes.
 *
 * Each s3_conn holds a curl multi handle and two easy handles. Everything runs in the calling
 * thread: the multi handle is what makes a second (hedging) request beside the first possible, and
 * lets this file, not libcurl, decide when something takes too long. Open connections stay with the
 * multi handle, so the next exchange on the same s3_conn goes over a warm one; libcurl's cache of
 * connections shared between threads is not safe (its own list of known bugs says so).
 *
 *   start ─► perform ─► done? ─► take the answer
 *              ▲  │
 *              │  ├─ nothing moved for stall_ns, or total_ns is over: give up
 *              │  ├─ the hedger's time is over, and it agrees: start the second one
 *              └──┴─ wait for the socket, or for a pace to allow the next bytes
 *
 *  1. The first complete answer wins; the other request is broken off, its connection closed. An
 *     answer the other one may better (an error of the server, a conflict of the two) is kept until
 *     that has ended. What is broken off may still take effect in the store: only what may happen
 *     twice is sent twice.
 *  2. The second request writes into memory of its own: the buffer of the caller belongs to the
 *     first one until that has ended.
 *  3. Pace and rate hold back bytes by pausing a direction; what is paused on purpose counts
 *     neither as a stall nor towards total_ns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "check.h"
#include "clock.h"
#include "s3_int.h"

#define BUFFER_BYTES (256l * 1024)
/* What a paced upload sends at once. */
#define PACED_BYTES (64u * 1024)
#define WAIT_NS_MAX (50 * NS_PER_MS)
/* Stores take connections down after some time and spread load by DNS: none stays longer. */
#define CONN_LIFE_S 600l

struct transfer {
    CURL *easy;
    const struct s3_http *http;
    struct curl_slist *headers;
    bool running, done;
    /* the body's next byte */
    u32 part, part_pos;
    u64 sent;
    u64 due_ns; /* no byte may move before */
    int paused; /* CURLPAUSE_* bits */
    u64 paused_since_ns, paused_ns;
    u8 *into;
    u64 came, skipped; /* of a body that goes there */
    bool excess;
    u64 started_ns, moved_ns;
    struct s3_reply reply;
};

struct s3_conn {
    CURLM *multi;
    u64 ask_ns; /* when to look whether a second request is due */
    struct transfer first, second;
    u8 *spare; /* where the second one writes */
    u64 spare_bytes;
    CURLSH *share;
    struct rng rng;
};

/* ---- replies ---- */

void s3_reply_init(struct s3_reply *r)
{
    memset(r, 0, sizeof *r);
}

void s3_reply_free(struct s3_reply *r)
{
    mem_free(r->body);
    memset(r, 0, sizeof *r);
}

static void reply_clear(struct s3_reply *r)
{
    char *body = r->body;
    u32 cap = r->body_cap;
    memset(r, 0, sizeof *r);
    r->body = body;
    r->body_cap = cap;
    if (body)
        body[0] = '\0';
}

static void reply_body(struct s3_reply *r, const char *data, size_t n)
{
    if (n > S3_BODY_MAX - r->body_len) {
        r->overflow = true;
        return;
    }
    if (r->body_len + n + 1 > r->body_cap) {
        r->body_cap = (u32)MAX((u64)r->body_cap * 2, r->body_len + n + 1);
        r->body = mem_realloc(r->body, r->body_cap);
    }
    memcpy(r->body + r->body_len, data, n);
    r->body_len += (u32)n;
    r->body[r->body_len] = '\0';
}

/* "bytes 0-99/1234" */
static void reply_range(struct s3_reply *r, const char *v)
{
    u64 first, last, total;
    if (sscanf(v, "bytes %20" SCNu64 "-%20" SCNu64 "/%20" SCNu64, &first, &last, &total) != 3)
        return;
    if (first > last || last >= total)
        return;
    r->range_first = first;
    r->range_last = last;
    r->object_bytes = total;
    r->has_range = true;
}

static void reply_copy(char *to, size_t size, const char *v)
{
    snprintf(to, size, "%s", v);
}

static void reply_named(struct s3_reply *r, const char *name, const char *v)
{
    if (strcasecmp(name, "content-length") == 0) {
        r->has_length = sscanf(v, "%20" SCNu64, &r->content_length) == 1;
    } else if (strcasecmp(name, "content-range") == 0) {
        reply_range(r, v);
    } else if (strcasecmp(name, "date") == 0) {
        time_t t = curl_getdate(v, NULL);
        r->date_ms = t > 0 ? (i64)t * 1000 : 0;
    } else if (strcasecmp(name, "retry-after") == 0) {
        u32 s = 0;
        r->retry_after_s = sscanf(v, "%6u", &s) == 1 ? s : 0;
    } else if (strcasecmp(name, "x-amz-bucket-region") == 0) {
        reply_copy(r->region, sizeof r->region, v);
    } else if (strcasecmp(name, "x-amz-request-id") == 0) {
        reply_copy(r->request_id, sizeof r->request_id, v);
    } else if (strcasecmp(name, "x-amz-checksum-crc32c") == 0) {
        reply_copy(r->crc32c, sizeof r->crc32c, v);
    } else if (strcasecmp(name, "x-amz-meta-leat-put") == 0) {
        reply_copy(r->put_id, sizeof r->put_id, v);
    } else if (strcasecmp(name, "etag") == 0) {
        reply_copy(r->etag, sizeof r->etag, v);
    } else if (strcasecmp(name, "location") == 0) {
        reply_copy(r->location, sizeof r->location, v);
    }
}

void s3_reply_header(struct s3_reply *r, const char *line, size_t len)
{
    char text[1024];
    while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
        len--;
    if (len >= sizeof text)
        return; /* none that we look at is so long */
    memcpy(text, line, len);
    text[len] = '\0';
    u32 status = 0;
    if (strncmp(text, "HTTP/", 5) == 0) {
        const char *blank = strchr(text, ' ');
        /* Of several heads (100 Continue) the last one counts. */
        r->has_length = r->has_range = false;
        r->status = blank && sscanf(blank, "%3u", &status) == 1 ? (long)status : 0;
        return;
    }
    char *colon = strchr(text, ':');
    if (colon == NULL)
        return;
    *colon++ = '\0';
    reply_named(r, text, colon + strspn(colon, " \t"));
}

/* ---- pace ---- */

/* When may the next `n` bytes go, after these? */
static void transfer_charge(struct transfer *t, u64 n, u64 now)
{
    u64 pace = t->http->pace ? __atomic_load_n(t->http->pace, __ATOMIC_RELAXED) : 0;
    /* Counted from now: what came late is not made up for in a burst. */
    t->due_ns = pace > 0 ? now + n * MAX(t->http->pace_among, 1u) * NS_PER_S / pace : 0;
    for (u32 i = 0; i < ARRAY_COUNT(t->http->meters); i++) {
        struct s3_meter *m = t->http->meters[i].meter;
        if (t->http->meters[i].rate == 0)
            continue;
        u64 cost = n * NS_PER_S / t->http->meters[i].rate;
        u64 free_ns = __atomic_load_n(&m->free_ns, __ATOMIC_RELAXED), next;
        do {
            next = MAX(free_ns, now) + cost;
        } while (!__atomic_compare_exchange_n(&m->free_ns, &free_ns, next, true, __ATOMIC_RELAXED,
                                              __ATOMIC_RELAXED));
        t->due_ns = MAX(t->due_ns, next);
    }
}

static bool metered(const struct s3_http *q)
{
    return q->meters[0].rate > 0 || q->meters[1].rate > 0;
}

static void transfer_pause(struct transfer *t, int direction, u64 now)
{
    if (t->paused == 0)
        t->paused_since_ns = now;
    t->paused |= direction;
}

static void transfer_resume(struct transfer *t, u64 now)
{
    /* A pace that rose meanwhile counts at once. */
    u64 pace = t->http->pace ? __atomic_load_n(t->http->pace, __ATOMIC_RELAXED) : 1;
    if (t->paused == 0 || (t->due_ns > now && (pace != 0 || metered(t->http))))
        return;
    t->paused_ns += now - t->paused_since_ns;
    t->moved_ns = now;
    t->paused = 0;
    t->due_ns = 0;
    (void)curl_easy_pause(t->easy, CURLPAUSE_CONT);
}

/* ---- callbacks ---- */

static size_t on_send(char *to, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    const struct s3_http *q = t->http;
    u64 now = clock_mono_ns();
    bool held = q->pace || metered(q);
    if (held && t->due_ns > now) {
        transfer_pause(t, CURLPAUSE_SEND, now);
        return CURL_READFUNC_PAUSE;
    }
    size_t room = held ? MIN(size * count, PACED_BYTES) : size * count, n = 0;
    while (n < room && t->part < q->part_count) {
        const struct bytes *b = &q->parts[t->part];
        size_t some = MIN(room - n, b->len - t->part_pos);
        if (some > 0)
            memcpy(to + n, b->data + t->part_pos, some);
        n += some;
        t->part_pos += (u32)some;
        if (t->part_pos == b->len) {
            t->part++;
            t->part_pos = 0;
        }
    }
    t->sent += n;
    t->moved_ns = now;
    if (held)
        transfer_charge(t, n, now);
    return n;
}

/* libcurl sends again from the start when a kept connection turns out to be dead. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct transfer *t = arg;
    if (origin != SEEK_SET || offset != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    t->part = t->part_pos = 0;
    t->sent = 0;
    return CURL_SEEKFUNC_OK;
}

static void body_into(struct transfer *t, const char *data, size_t n)
{
    const struct s3_http *q = t->http;
    u64 skip = t->reply.status == 200 ? q->skip : 0;
    u64 drop = MIN(skip - MIN(skip, t->skipped), n);
    t->skipped += drop;
    data += drop;
    n -= drop;
    u64 room = q->into_bytes - t->came;
    if (n > room) {
        /* All of an object that was asked for a range of is no error: enough has come. */
        t->excess = t->reply.status == 200;
        t->reply.overflow |= !t->excess;
        n = room;
    }
    memcpy(t->into + t->came, data, n);
    t->came += n;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    u64 now = clock_mono_ns();
    size_t n = size * count;
    if (metered(t->http) && t->http->into && t->due_ns > now) {
        transfer_pause(t, CURLPAUSE_RECV, now);
        return CURL_WRITEFUNC_PAUSE;
    }
    t->moved_ns = now;
    if (t->into && t->reply.status / 100 == 2) {
        body_into(t, data, n);
        if (metered(t->http))
            transfer_charge(t, n, now);
    } else {
        reply_body(&t->reply, data, n);
        t->came += n;
    }
    /* A body without an end would keep the thread for as long as it comes. */
    return t->reply.overflow || t->excess ? 0 : n;
}

static size_t on_header(char *line, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    t->moved_ns = clock_mono_ns();
    s3_reply_header(&t->reply, line, size * count);
    return size * count;
}

/* ---- life ---- */

struct s3_conn *s3_conn_create(CURLSH *share, u64 seed)
{
    struct s3_conn *c = MEM_NEW(struct s3_conn);
    c->multi = curl_multi_init();
    c->first.easy = curl_easy_init();
    c->second.easy = curl_easy_init();
    CHECK(c->multi && c->first.easy && c->second.easy);
    /* One for each of the two requests, and one for the metadata or token service. */
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 3l);
    c->share = share;
    rng_init(&c->rng, seed);
    return c;
}

void s3_conn_free(struct s3_conn *c)
{
    CHECK(!c->first.running && !c->second.running);
    curl_easy_cleanup(c->first.easy);
    curl_easy_cleanup(c->second.easy);
    curl_multi_cleanup(c->multi);
    s3_reply_free(&c->first.reply);
    s3_reply_free(&c->second.reply);
    mem_free(c->spare);
    mem_free(c);
}

struct rng *s3_conn_rng(struct s3_conn *c)
{
    return &c->rng;
}

/* ---- one transfer ---- */

static struct curl_slist *headers_of(const struct s3_http *q)
{
    char line[12 * 1024]; /* a session token may be long */
    struct curl_slist *list = NULL;
    for (u32 i = 0; i < q->header_count; i++) {
        int n = snprintf(line, sizeof line, "%s: %s", q->headers[i].name, q->headers[i].value);
        CHECK((size_t)n < sizeof line);
        list = curl_slist_append(list, line);
        CHECK(list != NULL);
    }
    /* Waiting for "100 Continue" would cost each upload a round trip. */
    list = curl_slist_append(list, "Expect:");
    CHECK(list != NULL);
    return list;
}

static void easy_body(CURL *e, struct transfer *t, const struct s3_http *q)
{
    if (q->has_body) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1l);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)q->body_bytes);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, t);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, t);
    }
    if (strcmp(q->method, "HEAD") == 0)
        curl_easy_setopt(e, CURLOPT_NOBODY, 1l);
    else
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method);
}

static void easy_set_up(CURL *e, CURLSH *share, struct transfer *t, const struct s3_http *q)
{
    curl_easy_reset(e);
    curl_easy_setopt(e, CURLOPT_URL, q->url);
    curl_easy_setopt(e, CURLOPT_PRIVATE, t);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->reply.error);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1l);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1l);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1l);
    curl_easy_setopt(e, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1l);
    curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, CONN_LIFE_S);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)q->connect_ms);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "leat");
    if (share)
        curl_easy_setopt(e, CURLOPT_SHARE, share);
    if (q->ca_file && *q->ca_file)
        curl_easy_setopt(e, CURLOPT_CAINFO, q->ca_file);
    if (q->direct)
        curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    easy_body(e, t, q);
}

static void transfer_start(struct s3_conn *c, struct transfer *t, const struct s3_http *q, u8 *into)
{
    CHECK(!t->running);
    CURL *easy = t->easy;
    struct s3_reply kept = t->reply;
    memset(t, 0, sizeof *t);
    t->easy = easy;
    t->reply = kept;
    reply_clear(&t->reply);
    t->http = q;
    t->into = into;
    t->headers = headers_of(q);
    t->started_ns = t->moved_ns = clock_mono_ns();
    t->running = true;
    easy_set_up(easy, c->share, t, q);
    CHECK(curl_multi_add_handle(c->multi, easy) == CURLM_OK);
}

/* Ends it, whatever it is doing. */
static void transfer_end(struct s3_conn *c, struct transfer *t)
{
    if (!t->running)
        return;
    (void)curl_multi_remove_handle(c->multi, t->easy);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(t->headers);
    t->headers = NULL;
    t->running = false;
}

static void transfer_done(struct transfer *t, CURLcode code, u64 now)
{
    struct s3_reply *r = &t->reply;
    t->done = true;
    r->code = code;
    r->sent = t->sent;
    r->came = t->came;
    r->ns = now - t->started_ns;
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && t->excess)) {
        r->code = CURLE_OK;
        return;
    }
    if (r->error[0] == '\0')
        snprintf(r->error, sizeof r->error, "%s", curl_easy_strerror(code));
    if (r->overflow)
        snprintf(r->error, sizeof r->error, "more came than was asked for");
    r->status = code == CURLE_WRITE_ERROR ? r->status : 0; /* no complete answer */
}

static void transfer_watch(struct transfer *t, u64 now)
{
    if (!t->running || t->done)
        return;
    u64 paused = t->paused_ns + (t->paused ? now - t->paused_since_ns : 0);
    const char *what = NULL;
    if (!t->paused && now - t->moved_ns > t->http->stall_ns)
        what = "nothing moved for store.s3.stall_timeout";
    else if (now - t->started_ns - paused > t->http->total_ns)
        what = "not done within store.s3.timeout";
    if (what == NULL)
        return;
    snprintf(t->reply.error, sizeof t->reply.error, "%s", what);
    transfer_done(t, CURLE_OPERATION_TIMEDOUT, now);
}

/* ---- the exchange ---- */

static void messages_read(struct s3_conn *c, u64 now)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct transfer *t = m->easy_handle == c->first.easy ? &c->first : &c->second;
        if (!t->done)
            transfer_done(t, m->data.result, now);
    }
}

/* An answer that the other request will not better. Of two puts of a name at the same moment a
 * store may tell one to come again (409). */
static bool transfer_answered(const struct transfer *t)
{
    long s = t->reply.status;
    return t->running && t->done && t->reply.code == CURLE_OK &&
           (s / 100 == 2 || s == 404 || s == 412 || s == 416);
}

static struct transfer *exchange_over(struct s3_conn *c)
{
    if (transfer_answered(&c->first))
        return &c->first;
    if (transfer_answered(&c->second))
        return &c->second;
    bool waiting = (c->first.running && !c->first.done) || (c->second.running && !c->second.done);
    return waiting ? NULL : &c->first;
}

static void hedge_start(struct s3_conn *c, const struct s3_http *q, u64 now)
{
    const struct transfer *t = &c->first;
    if (q->hedger == NULL || c->second.running || t->done || t->paused || now < c->ask_ns)
        return;
    if (!q->hedger->may(q->hedger)) {
        c->ask_ns = now + WAIT_NS_MAX;
        return;
    }
    if (c->spare_bytes < q->into_bytes) {
        c->spare = mem_realloc(c->spare, q->into_bytes);
        c->spare_bytes = q->into_bytes;
    }
    transfer_start(c, &c->second, q, c->spare);
}

static int wait_ms(const struct s3_conn *c, const struct s3_http *q, u64 now)
{
    u64 ns = WAIT_NS_MAX;
    const struct transfer *t = &c->first;
    if (t->paused)
        ns = t->due_ns > now ? MIN(ns, t->due_ns - now) : 0;
    else if (q->hedger && !c->second.running)
        ns = c->ask_ns > now ? MIN(ns, c->ask_ns - now) : 0;
    return (int)((ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* The answer goes to the caller, the caller's old memory for bodies stays here. */
static void reply_swap(struct s3_reply *a, struct s3_reply *b)
{
    struct s3_reply was = *a;
    *a = *b;
    *b = was;
}

void s3_http_run(struct s3_conn *c, const struct s3_http *q, struct s3_reply *r)
{
    struct transfer *won;
    c->second.done = false;
    transfer_start(c, &c->first, q, q->into);
    c->ask_ns = c->first.started_ns + (q->hedger ? q->hedger->after_ns : 0);
    for (;;) {
        int running;
        CHECK(curl_multi_perform(c->multi, &running) == CURLM_OK);
        u64 now = clock_mono_ns();
        messages_read(c, now);
        transfer_watch(&c->first, now);
        transfer_watch(&c->second, now);
        won = exchange_over(c);
        if (won != NULL)
            break;
        hedge_start(c, q, now);
        transfer_resume(&c->first, now);
        if (c->second.running)
            transfer_resume(&c->second, now);
        (void)curl_multi_poll(c->multi, NULL, 0, wait_ms(c, q, now), NULL);
    }
    bool hedged = c->second.running;
    const struct transfer *twin = won == &c->first ? &c->second : &c->first;
    transfer_end(c, &c->first);
    transfer_end(c, &c->second);
    if (won == &c->second && won->into && won->came > 0)
        memcpy(q->into, won->into, won->came);
    reply_swap(r, &won->reply);
    r->hedged = hedged;
    r->hedge_won = won == &c->second;
    r->twin_bytes = hedged ? twin->sent + twin->came : 0;
}
