/* Counters, histograms and their Prometheus text. See metrics.h.
 *
 * A reader may see a histogram between two stores of its writer: count, sum and buckets then
 * differ by the one observation. The exposition therefore derives _count from the buckets it
 * printed, so that a scrape is always consistent in itself.
 */
#include "metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "mem.h"

#define TEXT_BYTES_MAX (64 * MIB)

/* ---- histograms ---- */

/* 0…15 exactly; then the exponent and the four bits after the leading one. */
static u32 hist_bucket(u64 us)
{
    if (us < HIST_STEPS)
        return (u32)us;
    u32 exponent = 63u - (u32)__builtin_clzll(us);
    u32 i = (exponent - 3) * HIST_STEPS + (u32)((us >> (exponent - 4)) & (HIST_STEPS - 1));
    return MIN(i, HIST_BUCKETS - 1);
}

/* The smallest value of a bucket. */
static u64 hist_lower(u32 bucket)
{
    if (bucket < HIST_STEPS)
        return bucket;
    u32 exponent = bucket / HIST_STEPS + 3;
    return (u64)(HIST_STEPS + bucket % HIST_STEPS) << (exponent - 4);
}

void metric_hist_observe(struct metric_hist *h, u64 us)
{
    u64 *b = &h->buckets[hist_bucket(us)];
    metric_store(b, *b + 1);
    metric_store(&h->count, h->count + 1);
    metric_store(&h->sum_us, h->sum_us + us);
}

u64 metric_hist_quantile(const struct metric_hist *h, double q)
{
    u64 total = 0;
    for (u32 i = 0; i < HIST_BUCKETS; i++)
        total += metric_load(&h->buckets[i]);
    if (total == 0)
        return 0;
    u64 wanted = (u64)(q * (double)total + 0.5);
    wanted = MAX(wanted, 1);
    u64 seen = 0;
    for (u32 i = 0; i < HIST_BUCKETS; i++) {
        seen += metric_load(&h->buckets[i]);
        if (seen >= wanted)
            return (hist_lower(i) + hist_lower(i + 1)) / 2; /* middle: half the error */
    }
    return hist_lower(HIST_BUCKETS - 1);
}

void metric_hist_merge(struct metric_hist *to, const struct metric_hist *from)
{
    to->count += metric_load(&from->count);
    to->sum_us += metric_load(&from->sum_us);
    for (u32 i = 0; i < HIST_BUCKETS; i++)
        to->buckets[i] += metric_load(&from->buckets[i]);
}

/* ---- one shard ---- */

struct metrics *metrics_create(void)
{
    return MEM_NEW(struct metrics);
}

void metrics_destroy(struct metrics *m)
{
    if (!m)
        return;
    for (u32 i = 0; i < METRIC_APIS; i++)
        mem_free(m->apis[i].latency);
    mem_free(m);
}

void metric_request(struct metrics *m, i32 api_key, u64 us, u64 bytes_in, u64 bytes_out, bool error)
{
    u32 i = api_key < 0 || (u32)api_key >= METRIC_APIS ? METRIC_APIS - 1 : (u32)api_key;
    struct metric_api *a = &m->apis[i];
    if (unlikely(!a->latency)) {
        struct metric_hist *h = MEM_NEW(struct metric_hist);
        __atomic_store_n(&a->latency, h, __ATOMIC_RELEASE);
    }
    metric_hist_observe(a->latency, us);
    metric_store(&a->requests, a->requests + 1);
    metric_store(&a->errors, a->errors + error);
    metric_store(&a->bytes_in, a->bytes_in + bytes_in);
    metric_store(&a->bytes_out, a->bytes_out + bytes_out);
}

/* ---- text ---- */

static bool text_room(struct metric_text *t, size_t n)
{
    if (t->full || t->len + n + 1 > TEXT_BYTES_MAX) {
        t->full = true;
        return false;
    }
    if (t->len + n + 1 > t->cap) {
        t->cap = MAX(t->cap * 2, t->len + n + 4096);
        t->data = mem_realloc(t->data, t->cap);
    }
    return true;
}

void metric_text_add(struct metric_text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t room = t->cap - t->len;
    int n = vsnprintf(t->data ? t->data + t->len : NULL, t->data ? room : 0, fmt, ap);
    CHECK(n >= 0);
    if ((size_t)n >= room || !t->data) {
        if (text_room(t, (size_t)n))
            vsnprintf(t->data + t->len, t->cap - t->len, fmt, again);
        else
            n = 0;
    }
    t->len += (size_t)n;
    if (t->data)
        t->data[t->len] = '\0';
    va_end(again);
    va_end(ap);
}

void metric_text_head(struct metric_text *t, const char *name, const char *type, const char *help)
{
    metric_text_add(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metric_text_free(struct metric_text *t)
{
    mem_free(t->data);
    *t = (struct metric_text){ 0 };
}

/* ---- registry ---- */

struct metric_row {
    const char *type, *name, *labels, *help;
};

static const struct metric_row value_rows[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help) [M_##id] = { "counter", name, labels, help },
#define GAUGE(id, name, labels, help) [M_##id] = { "gauge", name, labels, help },
#define HISTOGRAM(id, name, labels, help)
#include "metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static const struct metric_row hist_rows[HIST_COUNT] = {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, labels, help) [H_##id] = { "histogram", name, labels, help },
#include "metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

void metric_registry_add(struct metric_registry *r, const struct metrics *m)
{
    CHECK(r->shard_count < METRIC_SHARDS_MAX);
    r->shards[r->shard_count++] = m;
}

void metric_registry_hook(struct metric_registry *r, metric_hook_fn fn, void *arg)
{
    CHECK(r->hook_count < METRIC_HOOKS_MAX);
    r->hooks[r->hook_count].fn = fn;
    r->hooks[r->hook_count].arg = arg;
    r->hook_count++;
}

u64 metric_registry_sum(const struct metric_registry *r, enum metric_id id)
{
    u64 sum = 0;
    for (u32 s = 0; s < r->shard_count; s++)
        sum += metric_get(r->shards[s], id);
    return sum;
}

static void render_values(const struct metric_registry *r, struct metric_text *t)
{
    for (u32 i = 0; i < METRIC_COUNT; i++) {
        const struct metric_row *row = &value_rows[i];
        if (i == 0 || strcmp(row->name, value_rows[i - 1].name) != 0)
            metric_text_head(t, row->name, row->type, row->help);
        for (u32 s = 0; s < r->shard_count; s++)
            metric_text_add(t, "%s{%s%sshard=\"%u\"} %" PRIu64 "\n", row->name, row->labels,
                            *row->labels ? "," : "", s,
                            metric_get(r->shards[s], (enum metric_id)i));
    }
}

/* Bucket bounds are the powers of two from 16 us to 2^26 us (67 s): 23 lines a histogram. */
void metric_text_hist(struct metric_text *t, const char *name, const char *labels,
                      const struct metric_hist *h)
{
    const char *comma = *labels ? "," : "";
    u64 seen = 0;
    u32 bucket = 0;
    for (u32 exponent = 4; exponent <= 26; exponent++) {
        u64 bound = (u64)1 << exponent;
        for (; bucket < HIST_BUCKETS && hist_lower(bucket) < bound; bucket++)
            seen += h->buckets[bucket];
        metric_text_add(t, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, labels, comma,
                        (double)bound / 1e6, seen);
    }
    for (; bucket < HIST_BUCKETS; bucket++)
        seen += h->buckets[bucket];
    metric_text_add(t, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, comma, seen);
    const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    metric_text_add(t, "%s_sum%s%s%s %.6f\n", name, open, labels, close, (double)h->sum_us / 1e6);
    metric_text_add(t, "%s_count%s%s%s %" PRIu64 "\n", name, open, labels, close, seen);
}

static void render_hists(const struct metric_registry *r, struct metric_text *t,
                         struct metric_hist *scratch)
{
    for (u32 i = 0; i < HIST_COUNT; i++) {
        const struct metric_row *row = &hist_rows[i];
        if (i == 0 || strcmp(row->name, hist_rows[i - 1].name) != 0)
            metric_text_head(t, row->name, row->type, row->help);
        memset(scratch, 0, sizeof *scratch);
        for (u32 s = 0; s < r->shard_count; s++)
            metric_hist_merge(scratch, &r->shards[s]->hists[i]);
        metric_text_hist(t, row->name, row->labels, scratch);
    }
}

static const char *api_label(const struct metric_registry *r, u32 key, char *buf, size_t size)
{
    const char *name = r->api_name ? r->api_name((i32)key) : NULL;
    if (name)
        snprintf(buf, size, "api=\"%s\"", name);
    else
        snprintf(buf, size, "api=\"%u\"", key);
    return buf;
}

/* One counter of all APIs that were used; `offset` picks the field. */
static void render_api_counter(const struct metric_registry *r, struct metric_text *t,
                               const char *name, const char *help, size_t offset)
{
    metric_text_head(t, name, "counter", help);
    for (u32 i = 0; i < METRIC_APIS; i++) {
        for (u32 s = 0; s < r->shard_count; s++) {
            const struct metric_api *a = &r->shards[s]->apis[i];
            if (!__atomic_load_n(&a->latency, __ATOMIC_ACQUIRE))
                continue;
            char label[64];
            u64 v = metric_load((const u64 *)(const void *)((const char *)a + offset));
            metric_text_add(t, "%s{%s,shard=\"%u\"} %" PRIu64 "\n", name,
                            api_label(r, i, label, sizeof label), s, v);
        }
    }
}

static void render_api_latency(const struct metric_registry *r, struct metric_text *t,
                               struct metric_hist *scratch)
{
    metric_text_head(t, "leat_request_seconds", "histogram",
                     "From the last byte of a request to its answer being ready to send.");
    for (u32 i = 0; i < METRIC_APIS; i++) {
        bool used = false;
        memset(scratch, 0, sizeof *scratch);
        for (u32 s = 0; s < r->shard_count; s++) {
            const struct metric_hist *h =
                __atomic_load_n(&r->shards[s]->apis[i].latency, __ATOMIC_ACQUIRE);
            used = used || h;
            if (h)
                metric_hist_merge(scratch, h);
        }
        char label[64];
        if (used)
            metric_text_hist(t, "leat_request_seconds", api_label(r, i, label, sizeof label),
                             scratch);
    }
}

void metric_registry_render(const struct metric_registry *r, struct metric_text *t)
{
    struct metric_hist *scratch = MEM_NEW(struct metric_hist);
    metric_text_head(t, "leat_memory_used_bytes", "gauge", "Small allocations of the process.");
    metric_text_add(t, "leat_memory_used_bytes %" PRIu64 "\n", mem_used());
    render_values(r, t);
    render_hists(r, t, scratch);
    render_api_counter(r, t, "leat_requests_total", "Requests answered.",
                       offsetof(struct metric_api, requests));
    render_api_counter(r, t, "leat_request_errors_total", "Requests answered with an error.",
                       offsetof(struct metric_api, errors));
    render_api_counter(r, t, "leat_request_bytes_total", "Bytes of requests.",
                       offsetof(struct metric_api, bytes_in));
    render_api_counter(r, t, "leat_response_bytes_total", "Bytes of responses.",
                       offsetof(struct metric_api, bytes_out));
    render_api_latency(r, t, scratch);
    mem_free(scratch);
    for (u32 i = 0; i < r->hook_count; i++)
        r->hooks[i].fn(t, r->hooks[i].arg);
}
