/* One request of the driver: built, signed, sent, judged, and sent again when that may help.
 *
 *   credentials ─► sign ─► place in the gate ─► exchange ─► judge ─► done, or an error that stays
 *        ▲                                                    │
 *        ├─ wait ◄── passing error, up to store.s3.retries ◄──┤
 *        └────────── clock, credentials, region: once each ◄──┘  (expiring credentials: as passing)
 *
 *  1. Every try is signed anew: with the time as the store last told it, and the credentials of the
 *     moment.
 *  2. Nobody waits while holding a place in the gate, except for a rate.
 *  3. An error is logged here, with what the store said; what follows from it is the caller's to
 *     say. "Not there", "there already" and "too short" are answers, not errors. A store that is
 *     away fails all requests alike and is told as one outage; what it refuses, one for each
 *     operation (outage.h).
 *  4. Bodies are hashed only where nothing else protects them: over TLS the payload goes unsigned.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "s3_int.h"

/* Clocks that differ by less sign well enough. */
#define CLOCK_OFF_MS_MIN 1000
#define URL_SIZE (S3_HOST_SIZE + S3_PATH_SIZE + 3 * S3_TOKEN_SIZE)
#define CONNS_KEPT 64u
/* What a read pays of a second one. */
#define HEDGE_READS_PERCENT 5u
/* The time of a larger put is the link's, which a second one would only take from the first. */
#define HEDGE_PUT_BYTES_MAX (8 * MIB)
#define RESULT_ABANDONED 7u

/* ---- connections ---- */

struct s3_conn *s3_conn_take(struct s3 *s)
{
    pthread_mutex_lock(&s->lock);
    /* The one used last: the others' connections grow old and are not needed. */
    struct s3_conn *c = s->conn_count > 0 ? s->conns[--s->conn_count] : NULL;
    u64 seed = rng_next(&s->rng);
    pthread_mutex_unlock(&s->lock);
    return c ? c : s3_conn_create(s->share, seed);
}

void s3_conn_give(struct s3 *s, struct s3_conn *c)
{
    pthread_mutex_lock(&s->lock);
    bool keep = s->conn_count < CONNS_KEPT;
    if (keep)
        s->conns[s->conn_count++] = c;
    pthread_mutex_unlock(&s->lock);
    if (!keep)
        s3_conn_free(c);
}

/* ---- the gate and the counters ---- */

/* Whose caller names no class. */
static const enum store_class op_class[S3_OPS] = {
    [S3_PUT] = STORE_UPLOAD, [S3_GET] = STORE_TAIL, [S3_HEAD] = STORE_TAIL,
    [S3_DELETE] = STORE_GC,  [S3_LIST] = STORE_GC,  [S3_PARTS] = STORE_UPLOAD,
};

static const u32 class_connections[STORE_CLASSES] = {
    [STORE_UPLOAD] = CFG_s3_class_upload_connections,
    [STORE_TAIL] = CFG_s3_class_tail_connections,
    [STORE_CATCHUP] = CFG_s3_class_catchup_connections,
    [STORE_COMPACT] = CFG_s3_class_compact_connections,
    [STORE_GC] = CFG_s3_class_gc_connections,
};
static const u32 class_rate[STORE_CLASSES] = {
    [STORE_UPLOAD] = CFG_s3_class_upload_rate,   [STORE_TAIL] = CFG_s3_class_tail_rate,
    [STORE_CATCHUP] = CFG_s3_class_catchup_rate, [STORE_COMPACT] = CFG_s3_class_compact_rate,
    [STORE_GC] = CFG_s3_class_gc_rate,
};

/* Columns of s3_stats.results; store_s3_metrics.c names them. */
static u32 result_of(const struct s3_reply *r, const struct s3_judged *j)
{
    if (j->verdict == S3_DONE)
        return 0;
    if (j->verdict == S3_THROTTLED)
        return 4;
    if (r->status == 0)
        return r->code == CURLE_OPERATION_TIMEDOUT ? 6 : 5;
    if (j->err == ERR_NOT_FOUND)
        return 1;
    return r->status < 500 ? 2 : 3;
}

/* The keys are live. */
static void class_limits(struct s3 *s)
{
    for (u32 c = STORE_UPLOAD; c < STORE_CLASSES; c++)
        s->gate.limit[c] = (u32)config_u64(s->cfg, class_connections[c]);
}

static void gate_enter(struct s3 *s, enum store_class c)
{
    struct s3_gate *g = &s->gate;
    pthread_mutex_lock(&s->lock);
    class_limits(s);
    s->stats.classes[c].waits += !s3_gate_may_enter(g, c);
    g->waiting[c]++;
    while (!s3_gate_may_enter(g, c))
        pthread_cond_wait(&s->room, &s->lock);
    g->waiting[c]--;
    s3_gate_enter(g, c);
    pthread_cond_broadcast(&s->room); /* those that waited for it to enter may follow */
    pthread_mutex_unlock(&s->lock);
}

static void done_note(struct s3 *s, const struct s3_request *q, const struct s3_reply *r)
{
    metric_hist_observe(&s->stats.times[q->op], r->ns / NS_PER_US);
    if (q->op == S3_GET)
        s3_hedge_note(&s->reads, q->into_bytes, r->ns, HEDGE_READS_PERCENT);
    else if (q->may_be_twice)
        s3_hedge_note(&s->puts, q->body_bytes, r->ns, (u32)config_u64(s->cfg, CFG_s3_hedge_puts));
}

static void gate_leave(struct s3 *s, const struct s3_request *q, enum store_class c,
                       const struct s3_reply *r, const struct s3_judged *j)
{
    struct s3_stats *st = &s->stats;
    bool throttled = j->verdict == S3_THROTTLED;
    pthread_mutex_lock(&s->lock);
    if (r->status != 0)
        s3_gate_note(&s->gate, throttled, clock_mono_ns());
    s3_gate_leave(&s->gate, c);
    st->classes[c].requests += 1 + r->hedged;
    st->classes[c].bytes += r->sent + r->came + r->twin_bytes;
    st->results[q->op][result_of(r, j)]++;
    st->results[q->op][RESULT_ABANDONED] += r->hedged;
    st->bytes_out += r->sent + (q->has_body ? r->twin_bytes : 0);
    st->bytes_in += r->came + (q->has_body ? 0 : r->twin_bytes);
    st->throttles += throttled;
    st->hedges[q->op] += r->hedged;
    st->hedge_wins[q->op] += r->hedge_won;
    if (j->verdict == S3_DONE)
        done_note(s, q, r);
    pthread_cond_broadcast(&s->room);
    pthread_mutex_unlock(&s->lock);
}

/* ---- one try ---- */

void s3_request_header(struct s3_request *q, const char *name, const char *value)
{
    CHECK(q->header_count < ARRAY_COUNT(q->headers));
    q->headers[q->header_count++] = (struct s3_header){ name, value };
}

/* What one try is made of; large, so not on the stack. */
struct
try {
    struct s3_creds creds;
    u64 generation;
    char path[S3_PATH_SIZE], url[URL_SIZE], authorization[1024];
    char time[17], hash[S3_HASH_SIZE], range[64];
    struct s3_header headers[S3_HEADERS_MAX + 1];
    u32 header_count;
};

static void path_of(const struct s3 *s, const struct s3_request *q, struct s3_text *t)
{
    const struct s3_place *p = &s->place;
    if (p->path_style)
        s3_text_addf(t, "/%s", p->bucket);
    /* The bucket itself is "/BUCKET" in path style, "/" in the other. */
    if (q->name == NULL) {
        if (!p->path_style)
            s3_text_add(t, "/");
        return;
    }
    s3_text_add(t, "/");
    if (*p->prefix) {
        s3_text_escape(t, p->prefix, strlen(p->prefix), true);
        s3_text_add(t, "/");
    }
    s3_text_escape(t, q->name, strlen(q->name), true);
}

static void header_add(struct try *t, const char *name, const char *value)
{
    CHECK(t->header_count < ARRAY_COUNT(t->headers));
    t->headers[t->header_count++] = (struct s3_header){ name, value };
}

static void headers_make(struct s3 *s, const struct s3_request *q, struct try *t)
{
    t->header_count = 0;
    header_add(t, "host", s->place.host);
    header_add(t, "x-amz-date", t->time);
    header_add(t, "x-amz-content-sha256", t->hash);
    if (t->creds.token[0])
        header_add(t, "x-amz-security-token", t->creds.token);
    if (q->into_bytes > 0) {
        snprintf(t->range, sizeof t->range, "bytes=%" PRIu64 "-%" PRIu64, q->offset,
                 q->offset + q->into_bytes - 1);
        header_add(t, "range", t->range);
    }
    for (u32 i = 0; i < q->header_count; i++)
        header_add(t, q->headers[i].name, q->headers[i].value);
}

/* False when something does not fit. */
static bool try_sign(struct s3 *s, const struct s3_request *q, struct try *t)
{
    struct s3_text path = s3_text_in(t->path, sizeof t->path);
    path_of(s, q, &path);
    struct s3_text url = s3_text_in(t->url, sizeof t->url);
    s3_text_addf(&url, "%s://%s%s%s%s", s->place.tls ? "https" : "http", s->place.host, t->path,
                 q->query ? "?" : "", q->query ? q->query : "");
    s3_time_amz(s3_now_ms(s), t->time);
    if (s->place.tls && q->has_body)
        snprintf(t->hash, sizeof t->hash, S3_UNSIGNED_PAYLOAD);
    else if (t->hash[0] == '\0')
        s3_hash(q->parts, q->part_count, t->hash);
    headers_make(s, q, t);
    if (path.full || url.full)
        return false;
    if (t->creds.access_key[0] == '\0')
        return true;
    struct s3_signing in = { .method = q->method,
                             .path = t->path,
                             .query = q->query ? q->query : "",
                             .headers = t->headers,
                             .header_count = t->header_count,
                             .payload_hash = t->hash,
                             .time = t->time,
                             .region = s->place.region,
                             .service = "s3",
                             .access_key = t->creds.access_key,
                             .secret_key = t->creds.secret_key };
    if (!s3_sign(&in, t->authorization, sizeof t->authorization))
        return false;
    header_add(t, "authorization", t->authorization);
    return true;
}

/* Who reads in advance or rewrites is not helped by one quick answer, nor is a put that nobody
 * waits for. NULL: this request is sent once. */
static struct s3_hedge *hedge_of(struct s3 *s, const struct s3_request *q, enum store_class c)
{
    if (q->op == S3_GET && c == STORE_TAIL && config_bool(s->cfg, CFG_s3_hedge))
        return &s->reads;
    bool put = q->may_be_twice && q->body_bytes <= HEDGE_PUT_BYTES_MAX;
    return put && config_u64(s->cfg, CFG_s3_hedge_puts) > 0 ? &s->puts : NULL;
}

struct hedging {
    struct s3_hedger base;
    struct s3 *s;
    struct s3_hedge *hedge;
};

static bool may_hedge(struct s3_hedger *h)
{
    struct hedging *g = container_of(h, struct hedging, base);
    pthread_mutex_lock(&g->s->lock);
    /* A second request is the last thing a throttling store needs. */
    bool may = !s3_gate_narrowed(&g->s->gate) && s3_hedge_take(g->hedge);
    pthread_mutex_unlock(&g->s->lock);
    return may;
}

static struct hedging hedging_of(struct s3 *s, const struct s3_request *q, enum store_class c)
{
    struct hedging g = { { 0, may_hedge }, s, hedge_of(s, q, c) };
    pthread_mutex_lock(&s->lock);
    if (g.hedge)
        g.base.after_ns = s3_hedge_after(g.hedge, q->has_body ? q->body_bytes : q->into_bytes);
    pthread_mutex_unlock(&s->lock);
    return g;
}

static void try_run(struct s3 *s, struct s3_conn *c, const struct s3_request *q,
                    enum store_class class, const struct try *t, struct s3_reply *r)
{
    const struct config *cfg = s->cfg;
    struct hedging g = hedging_of(s, q, class);
    struct s3_http h = {
        .method = q->method,
        .url = t->url,
        .headers = t->headers,
        .header_count = t->header_count,
        .parts = q->parts,
        .part_count = q->part_count,
        .body_bytes = q->body_bytes,
        .has_body = q->has_body,
        .pace = q->pace,
        .pace_among = q->pace_among,
        .meters = { { q->has_body ? &s->up : &s->down,
                      config_u64(cfg, q->has_body ? CFG_s3_upload_rate : CFG_s3_download_rate) },
                    { &s->classes[class], config_u64(cfg, class_rate[class]) } },
        .into = q->into,
        .into_bytes = q->into_bytes,
        .skip = q->offset,
        .connect_ms = config_u64(cfg, CFG_s3_connect_timeout_ms),
        .stall_ns = config_u64(cfg, CFG_s3_stall_timeout_ms) * NS_PER_MS,
        .total_ns = config_u64(cfg, CFG_s3_timeout_ms) * NS_PER_MS,
        .hedger = g.base.after_ns > 0 ? &g.base : NULL,
        .ca_file = config_str(cfg, CFG_s3_ca_file),
    };
    s3_http_run(c, &h, r);
}

/* ---- judging ---- */

/* Did a read bring what was asked for? */
static void judge_range(const struct s3_request *q, const struct s3_reply *r, struct s3_judged *j)
{
    u64 end = q->offset + q->into_bytes;
    if (r->status == 206 && r->has_range) {
        if (r->range_first == q->offset && r->object_bytes < end)
            *j = (struct s3_judged){ S3_FINAL, ERR_TRUNCATED, "" };
        else if (r->range_first != q->offset || r->range_last + 1 != end ||
                 r->came != q->into_bytes)
            *j = (struct s3_judged){ S3_AGAIN, ERR_CORRUPT, "WrongRange" };
        return;
    }
    /* The whole object (or an answer that does not say which part it is). */
    if (r->has_length && r->status == 200 && r->content_length < end)
        *j = (struct s3_judged){ S3_FINAL, ERR_TRUNCATED, "" };
    else if (r->came != q->into_bytes || r->status != 200)
        *j = (struct s3_judged){ S3_AGAIN, ERR_CORRUPT, "WrongLength" };
}

static struct s3_judged judge(const struct s3_request *q, const struct s3_reply *r)
{
    struct s3_judged j = s3_judge(r);
    if (j.verdict == S3_DONE && q->into_bytes > 0)
        judge_range(q, r, &j);
    if (j.verdict == S3_DONE && q->check) {
        j.err = q->check(q, r);
        if (j.err != ERR_NONE)
            j = (struct s3_judged){ S3_AGAIN, j.err, "WrongAnswer" };
    }
    return j;
}

/* ---- again ---- */

struct attempts {
    u32 count; /* that failed for passing reasons */
    bool wait; /* before the next one */
    bool clock, creds, region;
};

static bool passing(struct s3 *s, struct attempts *a)
{
    a->wait = true;
    return a->count++ < config_u64(s->cfg, CFG_s3_retries);
}

static bool clock_learn(struct s3 *s, const struct s3_reply *r)
{
    if (r->date_ms == 0)
        return false;
    i64 offset = r->date_ms - clock_wall_ms();
    i64 was = __atomic_exchange_n(&s->clock_offset_ms, offset, __ATOMIC_RELAXED);
    bool news = offset - was > CLOCK_OFF_MS_MIN || was - offset > CLOCK_OFF_MS_MIN;
    if (news)
        LOG(WARN, s3_clock_off,
            "ms=%" PRId64 " effect=\"requests are signed with the store's time\" "
            "remedy=\"let chrony or systemd-timesyncd set this machine's clock\"",
            offset);
    return news;
}

/* What the store told of the bucket's region; only while it is being opened, by one thread. */
static bool region_learn(struct s3 *s, const struct s3_reply *r)
{
    char region[64];
    if (!s->opening || s->place.region_given)
        return false;
    snprintf(region, sizeof region, "%s", r->region);
    if (!*region && r->body)
        (void)s3_xml_find(r->body, r->body_len, "Region", region, sizeof region);
    if (!*region || strcmp(region, s->place.region) == 0)
        return false;
    LOG(INFO, s3_region_learnt, "bucket=%s region=%s", s->place.bucket, region);
    memcpy(s->place.region, region, sizeof region);
    if (!s->place.own_endpoint)
        s3_place_rehost(&s->place);
    return true;
}

static bool try_again(struct s3 *s, struct attempts *a, const struct try *t,
                      const struct s3_reply *r, const struct s3_judged *j)
{
    bool first = false;
    a->wait = false;
    switch (j->verdict) {
    case S3_AGAIN:
    case S3_THROTTLED:
        return passing(s, a);
    case S3_CLOCK:
        first = !a->clock && clock_learn(s, r);
        a->clock = true;
        return first;
    case S3_EXPIRED:
        first = !a->creds;
        a->creds = true;
        /* Even new ones may be revoked before they arrive: many threads fetch and revoke at the
         * same moments. Those that never expire will not become better. */
        return first || (t->creds.expires_ms > 0 && passing(s, a));
    case S3_REGION:
        first = !a->region && region_learn(s, r);
        a->region = true;
        return first;
    case S3_DONE:
    case S3_FINAL:
        break;
    }
    return false;
}

static void pause_for(struct s3 *s, struct s3_conn *c, const struct attempts *a,
                      const struct s3_reply *r, const struct s3_judged *j)
{
    pthread_mutex_lock(&s->lock);
    s->stats.retries++;
    pthread_mutex_unlock(&s->lock);
    if (!a->wait)
        return;
    u64 ns =
        s3_backoff_ns(a->count - 1, j->verdict == S3_THROTTLED, r->retry_after_s, s3_conn_rng(c));
    struct timespec t = { .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
    (void)nanosleep(&t, NULL);
}

static void failure_log(const struct s3_request *q, const struct s3_reply *r,
                        const struct s3_judged *j, u32 retries, const struct outage *o)
{
    char said[256] = "", quoted[300];
    if (r->body && r->body_len > 0)
        (void)s3_xml_find(r->body, r->body_len, "Message", said, sizeof said);
    const char *text = r->status == 0 ? r->error : said, *cause, *remedy;
    (void)s3_remedy(r, j, &cause, &remedy);
    LOG(WARN, s3_request_failed,
        "op=%s name=%s status=%ld code=%s text=%s request_id=%s retries=%u error=%s "
        "failures=%" PRIu64 " seconds=%" PRIu64 " cause=\"%s\" remedy=\"%s\"",
        q->method, q->name ? q->name : "-", r->status, *j->code ? j->code : "-",
        log_quote(quoted, sizeof quoted, bytes_str(text)), *r->request_id ? r->request_id : "-",
        retries, err_name(j->err), o->failures, outage_seconds(o, clock_mono_ns()), cause, remedy);
}

static void recovery_log(const char *op, const struct outage *was)
{
    LOG(INFO, s3_requests_work_again, "op=%s failures=%" PRIu64 " seconds=%" PRIu64, op,
        was->failures, outage_seconds(was, clock_mono_ns()));
}

static void success_tell(struct s3 *s, const struct s3_request *q)
{
    struct outage away, refused;
    pthread_mutex_lock(&s->lock);
    bool back = outage_over(&s->away, &away);
    bool allowed = outage_over(&s->refused[q->op], &refused);
    pthread_mutex_unlock(&s->lock);
    if (back)
        recovery_log("all", &away);
    if (allowed)
        recovery_log(q->method, &refused);
}

static void outcome_tell(struct s3 *s, const struct s3_request *q, const struct s3_reply *r,
                         const struct s3_judged *j, u32 retries)
{
    if (j->verdict == S3_DONE || j->err == ERR_NOT_FOUND || j->err == ERR_EXISTS ||
        j->err == ERR_TRUNCATED) {
        success_tell(s, q);
        return;
    }
    bool passing = j->verdict == S3_AGAIN || j->verdict == S3_THROTTLED;
    struct outage *o = passing ? &s->away : &s->refused[q->op];
    pthread_mutex_lock(&s->lock);
    bool tell = outage_failed(o, clock_mono_ns(), j->err);
    struct outage now = *o;
    pthread_mutex_unlock(&s->lock);
    if (tell)
        failure_log(q, r, j, retries, &now);
}

static struct s3_judged call_once(struct s3_handle *h, struct s3_conn *c,
                                  const struct s3_request *q, struct try *t, u64 bad,
                                  struct s3_reply *r)
{
    struct s3 *s = h->s;
    enum store_class class = h->class == STORE_ANY ? op_class[q->op] : h->class;
    struct s3_judged j = { S3_FINAL, ERR_NONE, "" };
    j.err = s3_creds_get(s, bad, &t->creds, &t->generation, NULL, 0);
    if (j.err != ERR_NONE) {
        snprintf(r->error, sizeof r->error, "no credentials");
        return j;
    }
    if (!try_sign(s, q, t)) {
        snprintf(r->error, sizeof r->error, "the request is too long");
        j.err = ERR_INVALID_REQUEST;
        return j;
    }
    gate_enter(s, class);
    try_run(s, c, q, class, t, r);
    j = judge(q, r);
    gate_leave(s, q, class, r, &j);
    return j;
}

err s3_call(struct s3_handle *h, const struct s3_request *q, struct s3_reply *r,
            struct s3_judged *judged)
{
    struct s3 *s = h->s;
    MAGIC_CHECK(s, S3_MAGIC);
    struct try *t = MEM_NEW(struct try);
    struct s3_conn *c = s3_conn_take(s);
    struct attempts a = { 0 };
    struct s3_judged j;
    u64 bad = 0;
    for (;;) {
        j = call_once(h, c, q, t, bad, r);
        if (j.verdict == S3_DONE || !try_again(s, &a, t, r, &j))
            break;
        bad = j.verdict == S3_EXPIRED ? t->generation : bad;
        pause_for(s, c, &a, r, &j);
    }
    s3_conn_give(s, c);
    explicit_bzero(&t->creds, sizeof t->creds);
    mem_free(t);
    if (!s->opening)
        outcome_tell(s, q, r, &j, a.count);
    if (judged)
        *judged = j;
    return j.verdict == S3_DONE ? ERR_NONE : j.err;
}
