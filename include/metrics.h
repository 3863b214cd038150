/* Metrics: one table (metrics.def), one `struct metrics` per shard, one registry per node.
 *
 * A shard's struct is written by that shard only, with plain relaxed stores (no locked
 * instruction); the admin thread reads it at any time. Histograms are log-linear: 16 steps for each
 * power of two, so a quantile is wrong by at most 3.2 %; they hold microseconds up to 71 minutes.
 * The per-API tables take memory when an API is first used.
 *
 *   metric_add(s->metrics, M_bytes_in, n);        counters
 *   metric_set(s->metrics, M_connections, n);     gauges
 *   metric_observe(s->metrics, H_wal_write, us);  histograms
 */
#ifndef LEAT_METRICS_H
#define LEAT_METRICS_H

#include "base.h"

enum metric_id {
#define COUNTER(id, name, labels, help) M_##id,
#define GAUGE(id, name, labels, help) M_##id,
#define HISTOGRAM(id, name, labels, help)
#include "metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    METRIC_COUNT
};

enum metric_hist_id {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, labels, help) H_##id,
#include "metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
    HIST_COUNT
};

#define HIST_STEPS 16u                               /* per power of two */
#define HIST_BUCKETS (HIST_STEPS + 28u * HIST_STEPS) /* exact below 16 us, then 16 … 2^32 us */

struct metric_hist {
    u64 count, sum_us;
    u64 buckets[HIST_BUCKETS];
};

#define METRIC_APIS 128u /* Kafka API keys below this have a row each; larger ones share the last */

struct metric_api {
    u64 requests, errors, bytes_in, bytes_out;
    struct metric_hist *latency; /* NULL until the API is first used; released to readers */
};

struct metrics {
    u8 pad_before[CACHE_LINE]; /* keeps the neighbours' writes off our lines */
    u64 values[METRIC_COUNT];
    struct metric_api apis[METRIC_APIS];
    struct metric_hist hists[HIST_COUNT];
    u8 pad_after[CACHE_LINE];
};

/* ---- writing: the owner's thread only ---- */
static inline void metric_store(u64 *p, u64 v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}
static inline u64 metric_load(const u64 *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
static inline void metric_add(struct metrics *m, enum metric_id id, u64 n)
{
    metric_store(&m->values[id], m->values[id] + n);
}
static inline void metric_sub(struct metrics *m, enum metric_id id, u64 n)
{
    metric_store(&m->values[id], m->values[id] - n);
}
static inline void metric_set(struct metrics *m, enum metric_id id, u64 v)
{
    metric_store(&m->values[id], v);
}
static inline u64 metric_get(const struct metrics *m, enum metric_id id)
{
    return metric_load(&m->values[id]);
}
void metric_hist_observe(struct metric_hist *h, u64 us);
static inline void metric_observe(struct metrics *m, enum metric_hist_id id, u64 us)
{
    metric_hist_observe(&m->hists[id], us);
}
/* One request of an API was answered: `error` when its answer as a whole was an error. */
void metric_request(struct metrics *m, i32 api_key, u64 us, u64 bytes_in, u64 bytes_out,
                    bool error);

/* ---- reading ---- */
/* The value in microseconds that `q` (0…1) of the observations do not exceed; 0 when empty. */
u64 metric_hist_quantile(const struct metric_hist *h, double q);
/* Adds `from` to `to`; `to` is the caller's own. */
void metric_hist_merge(struct metric_hist *to, const struct metric_hist *from);

/* ---- life ---- */
struct metrics *metrics_create(void);
/* Nobody may write or read it any more. */
void metrics_destroy(struct metrics *m);

/* ---- text ---- */
/* Growing text for the admin endpoint; stops growing (and says so in `full`) at 64 MiB. */
struct metric_text {
    char *data; /* NUL-terminated; owned; NULL when nothing was added */
    size_t len, cap;
    bool full;
};
void metric_text_add(struct metric_text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The # HELP and # TYPE lines; `type` is counter, gauge or histogram. */
void metric_text_head(struct metric_text *t, const char *name, const char *type, const char *help);
/* The lines of one histogram, without its head; `labels` as in metrics.def. */
void metric_text_hist(struct metric_text *t, const char *name, const char *labels,
                      const struct metric_hist *h);
void metric_text_free(struct metric_text *t);

/* ---- registry: one per node ---- */
#define METRIC_SHARDS_MAX 256u
#define METRIC_HOOKS_MAX 16u
/* Adds lines of its own; runs on the admin thread, so it reads what other threads write only
 * through atomics. */
typedef void (*metric_hook_fn)(struct metric_text *t, void *arg);
/* "Produce" for 0; NULL for an unknown key. */
typedef const char *(*metric_api_name_fn)(i32 api_key);

struct metric_registry {
    u32 shard_count;
    const struct metrics *shards[METRIC_SHARDS_MAX];
    u32 hook_count;
    struct {
        metric_hook_fn fn;
        void *arg;
    } hooks[METRIC_HOOKS_MAX];
    metric_api_name_fn api_name; /* may be NULL: keys are shown as numbers */
};

/* Both before the admin thread starts. Shards are labelled in the order of their adding. */
void metric_registry_add(struct metric_registry *r, const struct metrics *m);
void metric_registry_hook(struct metric_registry *r, metric_hook_fn fn, void *arg);
/* Everything in Prometheus' text form: counters and gauges with a shard label, histograms
 * summed over shards, in seconds. */
void metric_registry_render(const struct metric_registry *r, struct metric_text *t);
/* A metric summed over the shards. */
u64 metric_registry_sum(const struct metric_registry *r, enum metric_id id);

#endif
