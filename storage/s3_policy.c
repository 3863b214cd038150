/* What to do about an answer, and how much to ask for. Pure functions and plain structs: time comes
 * as a parameter, so the tests bring a clock of their own.
 *
 *   answer                                      verdict     the caller
 *   2xx                                         DONE
 *   no answer, 5xx, 408, InternalError, …       AGAIN       waits a random part of 100 ms · 2ⁿ
 *   429, 503, SlowDown, …                       THROTTLED   waits 0 … 1 s · 2ⁿ; gate halved
 *   RequestTimeTooSkewed                        CLOCK       takes the store's time, asks at once
 *   ExpiredToken, InvalidToken, …               EXPIRED     fetches credentials, asks at once; from
 *                                                           the second on, if they expire, as AGAIN
 *   301, AuthorizationHeaderMalformed, 400 with a region    REGION
 *   404, 412, 416, 403, other 4xx               FINAL
 */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "s3_int.h"

/* ---- verdicts ---- */

struct code_rule {
    const char *code;
    enum s3_verdict verdict;
    err err;
};

/* What the store says is more exact than the status it says it with. */
static const struct code_rule code_rules[] = {
    { "SlowDown", S3_THROTTLED, ERR_BUSY },
    { "SlowDownRead", S3_THROTTLED, ERR_BUSY },
    { "SlowDownWrite", S3_THROTTLED, ERR_BUSY },
    { "Throttling", S3_THROTTLED, ERR_BUSY },
    { "ThrottlingException", S3_THROTTLED, ERR_BUSY },
    { "RequestLimitExceeded", S3_THROTTLED, ERR_BUSY },
    { "TooManyRequests", S3_THROTTLED, ERR_BUSY },
    { "ServiceUnavailable", S3_THROTTLED, ERR_BUSY },
    { "RequestTimeTooSkewed", S3_CLOCK, ERR_DENIED },
    { "RequestExpired", S3_CLOCK, ERR_DENIED },
    { "ExpiredToken", S3_EXPIRED, ERR_DENIED },
    { "ExpiredTokenException", S3_EXPIRED, ERR_DENIED },
    { "InvalidToken", S3_EXPIRED, ERR_DENIED },
    { "TokenRefreshRequired", S3_EXPIRED, ERR_DENIED },
    { "InvalidAccessKeyId", S3_EXPIRED, ERR_DENIED },
    { "AuthorizationHeaderMalformed", S3_REGION, ERR_INVALID_CONFIG },
    { "PermanentRedirect", S3_REGION, ERR_INVALID_CONFIG },
    { "RequestTimeout", S3_AGAIN, ERR_TIMED_OUT },
    { "InternalError", S3_AGAIN, ERR_IO },
    { "OperationAborted", S3_AGAIN, ERR_IO },
    { "ConditionalRequestConflict", S3_AGAIN, ERR_CONFLICT },
    { "BadDigest", S3_AGAIN, ERR_CORRUPT },
    { "InvalidDigest", S3_AGAIN, ERR_CORRUPT },
    { "XAmzContentSHA256Mismatch", S3_AGAIN, ERR_CORRUPT },
    { "XAmzContentChecksumMismatch", S3_AGAIN, ERR_CORRUPT },
    { "IncompleteBody", S3_AGAIN, ERR_IO },
    { "NoSuchBucket", S3_FINAL, ERR_IO },
    { "NoSuchKey", S3_FINAL, ERR_NOT_FOUND },
    { "NoSuchUpload", S3_FINAL, ERR_CONFLICT },
    { "InvalidRange", S3_FINAL, ERR_TRUNCATED },
    { "PreconditionFailed", S3_FINAL, ERR_EXISTS },
    { "NotImplemented", S3_FINAL, ERR_UNSUPPORTED },
    { "QuotaExceeded", S3_FINAL, ERR_DISK_FULL },
    { "XMinioStorageFull", S3_FINAL, ERR_DISK_FULL },
};

static struct s3_judged judge_no_answer(const struct s3_reply *r)
{
    struct s3_judged j = { S3_AGAIN, ERR_IO, "" };
    if (r->overflow)
        return (struct s3_judged){ S3_AGAIN, ERR_CORRUPT, "" };
    switch ((int)r->code) {
    case CURLE_OPERATION_TIMEDOUT:
        j.err = ERR_TIMED_OUT;
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return (struct s3_judged){ S3_FINAL, ERR_DENIED, "" };
    default:
        break;
    }
    return j;
}

static struct s3_judged judge_status(long status)
{
    switch (status) {
    case 301:
    case 307:
        return (struct s3_judged){ S3_REGION, ERR_INVALID_CONFIG, "" };
    case 401:
    case 403:
        return (struct s3_judged){ S3_FINAL, ERR_DENIED, "" };
    case 404:
        return (struct s3_judged){ S3_FINAL, ERR_NOT_FOUND, "" };
    case 408:
        return (struct s3_judged){ S3_AGAIN, ERR_TIMED_OUT, "" };
    case 409:
        return (struct s3_judged){ S3_AGAIN, ERR_CONFLICT, "" };
    case 412:
        return (struct s3_judged){ S3_FINAL, ERR_EXISTS, "" };
    case 416:
        return (struct s3_judged){ S3_FINAL, ERR_TRUNCATED, "" };
    case 429:
    case 503:
        return (struct s3_judged){ S3_THROTTLED, ERR_BUSY, "" };
    case 501:
        return (struct s3_judged){ S3_FINAL, ERR_UNSUPPORTED, "" };
    case 507:
        return (struct s3_judged){ S3_FINAL, ERR_DISK_FULL, "" };
    default:
        break;
    }
    if (status >= 500)
        return (struct s3_judged){ S3_AGAIN, ERR_IO, "" };
    return (struct s3_judged){ S3_FINAL, ERR_IO, "" };
}

struct s3_judged s3_judge(const struct s3_reply *r)
{
    if (r->status == 0 || r->code != CURLE_OK)
        return judge_no_answer(r);
    struct s3_judged j = judge_status(r->status);
    /* Completing a multipart upload answers 200 before it knows, and then <Error>. */
    if (r->status / 100 == 2)
        j = (struct s3_judged){ S3_DONE, ERR_NONE, "" };
    char root[8] = "";
    if (r->body_len > 0) {
        struct s3_xml x = s3_xml_of(r->body, r->body_len);
        if (s3_xml_next(&x) != S3_XML_END && s3_xml_is(&x, "Error"))
            memcpy(root, "Error", 6);
    }
    if (!root[0] || !s3_xml_find(r->body, r->body_len, "Code", j.code, sizeof j.code))
        return j;
    if (j.verdict == S3_DONE)
        j = (struct s3_judged){ S3_AGAIN, ERR_IO, "" };
    (void)s3_xml_find(r->body, r->body_len, "Code", j.code, sizeof j.code);
    for (size_t i = 0; i < ARRAY_COUNT(code_rules); i++)
        if (strcmp(code_rules[i].code, j.code) == 0) {
            j.verdict = code_rules[i].verdict;
            j.err = code_rules[i].err;
        }
    return j;
}

/* ---- waiting ---- */

#define BACKOFF_NS (100 * NS_PER_MS)
#define BACKOFF_THROTTLED_NS NS_PER_S
#define BACKOFF_NS_MAX (5 * NS_PER_S)

u64 s3_backoff_ns(u32 attempt, bool throttled, u32 retry_after_s, struct rng *rng)
{
    u64 base = throttled ? BACKOFF_THROTTLED_NS : BACKOFF_NS;
    u64 most = MIN(base << MIN(attempt, 10u), BACKOFF_NS_MAX);
    u64 least = MIN(retry_after_s * NS_PER_S, BACKOFF_NS_MAX);
    return least + rng_below(rng, most + 1);
}

/* ---- how many at a time ---- */

/* In hundredths of the width: what a class leaves free for those above it. */
static const u32 class_share[STORE_CLASSES] = { [STORE_UPLOAD] = 100,
                                                [STORE_TAIL] = 90,
                                                [STORE_CATCHUP] = 75,
                                                [STORE_COMPACT] = 60,
                                                [STORE_GC] = 50 };
/* All requests that run when the store throttles get that answer; one cut is meant. */
#define CUT_NS NS_PER_S

void s3_gate_init(struct s3_gate *g, u32 max)
{
    CHECK(max > 0);
    *g = (struct s3_gate){ .max = max, .width_milli = max * 1000 };
}

static bool class_full(const struct s3_gate *g, enum store_class c)
{
    return g->limit[c] > 0 && g->running[c] >= g->limit[c];
}

static bool class_overdue(const struct s3_gate *g, u32 c)
{
    return g->passed[c] >= S3_PASSED_MAX;
}

/* Does a class wait that goes before `c`? */
static bool class_waits_before(const struct s3_gate *g, enum store_class c)
{
    for (u32 o = STORE_UPLOAD; o < STORE_CLASSES; o++) {
        bool before = class_overdue(g, o) != class_overdue(g, c) ? class_overdue(g, o) : o < c;
        if (before && g->waiting[o] > 0 && !class_full(g, (enum store_class)o))
            return true;
    }
    return false;
}

bool s3_gate_may_enter(const struct s3_gate *g, enum store_class c)
{
    u32 width = g->width_milli / 1000;
    if (g->inflight >= width || class_full(g, c) || class_waits_before(g, c))
        return false;
    u32 share = (u32)((u64)g->width_milli * class_share[c] / 100 / 1000);
    return class_overdue(g, c) || g->inflight < MAX(share, 1u);
}

void s3_gate_enter(struct s3_gate *g, enum store_class c)
{
    CHECK(c > STORE_ANY && c < STORE_CLASSES);
    g->inflight++;
    g->running[c]++;
    g->passed[c] = 0;
    for (u32 o = c + 1; o < STORE_CLASSES; o++)
        g->passed[o] += g->waiting[o] > 0;
}

void s3_gate_leave(struct s3_gate *g, enum store_class c)
{
    CHECK(g->inflight > 0 && g->running[c] > 0);
    g->inflight--;
    g->running[c]--;
}

void s3_gate_note(struct s3_gate *g, bool throttled, u64 now_ns)
{
    if (!throttled) {
        g->width_milli += MAX(1000 * 1000 / g->width_milli, 1u);
        g->width_milli = MIN(g->width_milli, g->max * 1000);
        return;
    }
    if (g->cut_ns != 0 && now_ns - g->cut_ns < CUT_NS)
        return;
    /* What runs is what was too much; the width may be far above it. */
    u32 ran = MAX(g->inflight, 1u) * 1000;
    g->width_milli = MAX(MIN(g->width_milli, ran) / 2, 1000u);
    g->cut_ns = now_ns;
}

bool s3_gate_narrowed(const struct s3_gate *g)
{
    return g->width_milli < g->max * 1000;
}

/* ---- hedging ---- */

/* Fewer samples say nothing about 1 in 20. */
#define HEDGE_SAMPLES_MIN 24u
#define HEDGE_NS_MIN (10 * NS_PER_MS)
/* A few may be saved up. */
#define HEDGE_SAVED_MILLI 5000u

static u32 span_of(u64 bytes)
{
    return bytes <= 64 * KIB ? 0 : bytes <= 512 * KIB ? 1 : bytes <= 2 * MIB ? 2 : 3;
}

static int u64_order(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

void s3_hedge_note(struct s3_hedge *h, u64 bytes, u64 ns, u32 percent)
{
    u32 s = span_of(bytes);
    h->spans[s].ns[h->spans[s].count++ % S3_SPAN_SAMPLES] = ns;
    h->budget_milli = MIN(h->budget_milli + percent * 10, HEDGE_SAVED_MILLI);
    if (h->spans[s].count % 8 != 0 || h->spans[s].count < HEDGE_SAMPLES_MIN)
        return;
    u64 sorted[S3_SPAN_SAMPLES];
    u32 n = MIN(h->spans[s].count, S3_SPAN_SAMPLES);
    memcpy(sorted, h->spans[s].ns, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, u64_order);
    /* Where times lie close together, 1 in 20 is beyond p95 by nothing that a second request could
     * win back, and those would take the budget from what is slow. */
    u64 slow = MAX(sorted[n * 95 / 100], 2 * sorted[n / 2]);
    h->spans[s].slow_ns = MAX(slow, HEDGE_NS_MIN);
}

u64 s3_hedge_after(const struct s3_hedge *h, u64 bytes)
{
    u32 s = span_of(bytes);
    /* After a stall objects are larger than they were, of a size without samples: twice the time
     * for each step up is generous where latency counts for more than bytes do. */
    for (u32 step = 0; step <= s; step++)
        if (h->spans[s - step].slow_ns > 0)
            return h->spans[s - step].slow_ns << step;
    for (u32 larger = s + 1; larger < S3_SPAN_COUNT; larger++)
        if (h->spans[larger].slow_ns > 0)
            return h->spans[larger].slow_ns;
    return 0;
}

bool s3_hedge_take(struct s3_hedge *h)
{
    if (h->budget_milli < 1000)
        return false;
    h->budget_milli -= 1000;
    return true;
}
