/* What is printed: a line each second, and the result as text or JSON. */
#include <stdio.h>

#include "bench.h"
#include "err.h"

static const f64 report_percents[] = { 50, 90, 99, 99.9, 99.99, 100 };
static const char *const report_percent_names[] = { "p50", "p90", "p99", "p99.9", "p99.99", "max" };

static void counters_add(struct counters *to, const struct counters *from)
{
    u64 *a = (u64 *)to;
    const u64 *b = (const u64 *)from;
    for (u32 i = 0; i < sizeof *to / sizeof(u64); i++)
        a[i] += __atomic_load_n(&b[i], __ATOMIC_RELAXED);
}
void snapshot_take(struct snapshot *s, struct worker *const *workers, u32 n,
                   const struct options *o)
{
    memset(s, 0, sizeof *s);
    s->bench_cpu_s = proc_cpu_s(0);
    s->broker_cpu_s = o->pid ? proc_cpu_s(o->pid) : -1;
    s->ns = now_ns();
    for (u32 i = 0; i < n; i++) {
        const struct stats *from = &workers[i]->stats;
        counters_add(&s->stats.c, &from->c);
        hist_add(&s->stats.produce, &from->produce);
        hist_add(&s->stats.fetch, &from->fetch);
        hist_add(&s->stats.e2e, &from->e2e);
        for (u32 k = 0; k < ERROR_CODES; k++)
            s->stats.errors[k] += __atomic_load_n(&from->errors[k], __ATOMIC_RELAXED);
    }
    if (o->pid && !proc_read(o->pid, &s->broker))
        s->broker_cpu_s = -1;
}
/* to = to - from */
static void snapshot_subtract(struct snapshot *to, const struct snapshot *from)
{
    u64 *a = (u64 *)&to->stats.c;
    const u64 *b = (const u64 *)&from->stats.c;
    for (u32 i = 0; i < sizeof to->stats.c / sizeof(u64); i++)
        a[i] -= b[i];
    for (u32 k = 0; k < ERROR_CODES; k++)
        to->stats.errors[k] -= from->stats.errors[k];
    hist_subtract(&to->stats.produce, &from->stats.produce);
    hist_subtract(&to->stats.fetch, &from->stats.fetch);
    hist_subtract(&to->stats.e2e, &from->stats.e2e);
    to->ns -= from->ns;
    to->bench_cpu_s -= from->bench_cpu_s;
    bool alive = to->broker_cpu_s >= 0 && from->broker_cpu_s >= 0;
    to->broker_cpu_s = alive ? to->broker_cpu_s - from->broker_cpu_s : -1;
    to->broker.user_s -= from->broker.user_s;
    to->broker.system_s -= from->broker.system_s;
}
static f64 ms(u64 ns)
{
    return (f64)ns / 1e6;
}
static f64 mib(u64 bytes)
{
    return (f64)bytes / (f64)MIB;
}
static f64 per(f64 a, f64 b)
{
    return b > 0 ? a / b : 0;
}
void report_progress(const struct snapshot *before, const struct snapshot *at, f64 at_s,
                     const struct options *o)
{
    static struct snapshot d; /* too big for a stack; the control thread only */
    d = *at;
    snapshot_subtract(&d, before);
    const struct counters *c = &d.stats.c;
    f64 s = (f64)d.ns / 1e9;
    fprintf(stderr, "%6.1fs", at_s);
    if (options_produces(o))
        fprintf(stderr, "  out %.1f MiB/s %.0f rec/s %.0f req/s p50 %.2f p99 %.2f ms",
                mib(c->acked_bytes) / s, (f64)c->acked_records / s, (f64)c->acked_requests / s,
                ms(hist_percentile(&d.stats.produce, 50)),
                ms(hist_percentile(&d.stats.produce, 99)));
    if (options_consumes(o))
        fprintf(stderr, "  in %.1f MiB/s %.0f rec/s", mib(c->read_bytes) / s,
                (f64)c->read_records / s);
    if (d.stats.e2e.count)
        fprintf(stderr, " e2e p50 %.2f p99 %.2f ms", ms(hist_percentile(&d.stats.e2e, 50)),
                ms(hist_percentile(&d.stats.e2e, 99)));
    if (d.broker_cpu_s >= 0)
        fprintf(stderr, "  broker %.2f cores %.0f MiB", d.broker_cpu_s / s,
                mib(d.broker.rss_bytes));
    fprintf(stderr, "  bench %.2f cores", d.bench_cpu_s / s);
    if (c->retries || c->failures || c->disconnects)
        fprintf(stderr, "  retries %" PRIu64 " failures %" PRIu64 " disconnects %" PRIu64,
                c->retries, c->failures, c->disconnects);
    fprintf(stderr, "\n");
}

/* ---- JSON ---- */
static void json_latency(const char *name, const struct hist *h)
{
    if (h->count == 0)
        return;
    printf(",\"%s_ms\":{\"count\":%" PRIu64 ",\"mean\":%.4f", name, h->count, hist_mean(h) / 1e6);
    for (u32 i = 0; i < ARRAY_COUNT(report_percents); i++)
        printf(",\"%s\":%.4f", report_percent_names[i], ms(hist_percentile(h, report_percents[i])));
    printf("}");
}
static void json_errors(const struct stats *s)
{
    bool first = true;
    printf(",\"errors\":{");
    for (u32 i = 1; i < ERROR_CODES; i++) {
        if (s->errors[i] == 0)
            continue;
        printf("%s\"%s\":%" PRIu64, first ? "" : ",", err_name((err)(i16)i), s->errors[i]);
        first = false;
    }
    printf("}");
}
static void json_cpu(const struct snapshot *d, f64 gib, f64 requests)
{
    f64 s = (f64)d->ns / 1e9;
    printf(",\"bench_cpu_s\":%.4f,\"bench_cores\":%.4f", d->bench_cpu_s, d->bench_cpu_s / s);
    if (d->broker_cpu_s < 0)
        return;
    printf(",\"broker_cpu_s\":%.4f,\"broker_cores\":%.4f,\"broker_user_s\":%.2f"
           ",\"broker_system_s\":%.2f,\"broker_cpu_s_per_gib\":%.4f"
           ",\"broker_cpu_s_per_million_requests\":%.4f,\"broker_to_bench_cpu\":%.3f"
           ",\"broker_rss_bytes\":%" PRIu64 ",\"broker_rss_max_bytes\":%" PRIu64
           ",\"broker_threads\":%" PRIu64,
           d->broker_cpu_s, d->broker_cpu_s / s, d->broker.user_s, d->broker.system_s,
           per(d->broker_cpu_s, gib), per(d->broker_cpu_s * 1e6, requests),
           per(d->broker_cpu_s, d->bench_cpu_s), d->broker.rss_bytes, d->broker.rss_max_bytes,
           d->broker.threads);
}
static void report_json(const struct snapshot *d, const struct templates *t,
                        const struct idle_report *idle)
{
    const struct counters *c = &d->stats.c;
    f64 s = (f64)d->ns / 1e9, gib = (f64)(c->acked_bytes + c->read_bytes) / (f64)GIB;
    printf("{\"seconds\":%.4f", s);
    printf(",\"produced_requests\":%" PRIu64 ",\"produced_batches\":%" PRIu64
           ",\"produced_records\":%" PRIu64 ",\"produced_bytes\":%" PRIu64,
           c->acked_requests, c->acked_batches, c->acked_records, c->acked_bytes);
    printf(",\"produced_requests_per_s\":%.1f,\"produced_records_per_s\":%.1f"
           ",\"produced_bytes_per_s\":%.1f",
           (f64)c->acked_requests / s, (f64)c->acked_records / s, (f64)c->acked_bytes / s);
    if (t->count)
        printf(",\"batch_bytes\":%u,\"batch_records\":%u", t->list[0].len, t->list[0].records);
    printf(",\"consumed_responses\":%" PRIu64 ",\"consumed_batches\":%" PRIu64
           ",\"consumed_records\":%" PRIu64 ",\"consumed_bytes\":%" PRIu64
           ",\"consumed_records_per_s\":%.1f,\"consumed_bytes_per_s\":%.1f",
           c->read_responses, c->read_batches, c->read_records, c->read_bytes,
           (f64)c->read_records / s, (f64)c->read_bytes / s);
    printf(",\"retries\":%" PRIu64 ",\"failures\":%" PRIu64 ",\"disconnects\":%" PRIu64
           ",\"metadata_refreshes\":%" PRIu64 ",\"offset_gaps\":%" PRIu64 ",\"bad_crc\":%" PRIu64,
           c->retries, c->failures, c->disconnects, c->refreshes, c->offset_gaps, c->bad_crc);
    json_errors(&d->stats);
    json_latency("produce", &d->stats.produce);
    json_latency("fetch", &d->stats.fetch);
    json_latency("e2e", &d->stats.e2e);
    json_cpu(d, gib, (f64)(c->acked_requests + c->read_responses));
    if (idle->wanted)
        printf(",\"idle_wanted\":%u,\"idle_opened\":%u,\"idle_alive\":%u"
               ",\"idle_rss_before_bytes\":%" PRIu64 ",\"idle_rss_after_bytes\":%" PRIu64,
               idle->wanted, idle->opened, idle->alive, idle->rss_before_bytes,
               idle->rss_after_bytes);
    printf("}\n");
}

/* ---- text ---- */
static void text_latency(const char *name, const struct hist *h)
{
    if (h->count == 0)
        return;
    printf("%-18s", name);
    for (u32 i = 0; i < ARRAY_COUNT(report_percents); i++)
        printf(" %s %.3f", report_percent_names[i], ms(hist_percentile(h, report_percents[i])));
    printf(" ms (%" PRIu64 ")\n", h->count);
}
static void text_cpu(const struct snapshot *d)
{
    const struct counters *c = &d->stats.c;
    f64 s = (f64)d->ns / 1e9, gib = (f64)(c->acked_bytes + c->read_bytes) / (f64)GIB;
    if (d->broker_cpu_s >= 0) {
        printf("broker             %.2f s CPU (%.2f cores; user %.1f system %.1f), %.2f s/GiB, "
               "%.1f s per million requests\n",
               d->broker_cpu_s, d->broker_cpu_s / s, d->broker.user_s, d->broker.system_s,
               per(d->broker_cpu_s, gib),
               per(d->broker_cpu_s * 1e6, (f64)(c->acked_requests + c->read_responses)));
        printf("broker memory      %.1f MiB resident, %.1f at most, %" PRIu64 " threads\n",
               mib(d->broker.rss_bytes), mib(d->broker.rss_max_bytes), d->broker.threads);
    }
    printf("leat-bench         %.2f s CPU (%.2f cores)", d->bench_cpu_s, d->bench_cpu_s / s);
    if (d->broker_cpu_s >= 0)
        printf(": the broker used %.1f times as much", per(d->broker_cpu_s, d->bench_cpu_s));
    printf("\n");
}
static void report_text(const struct snapshot *d, const struct templates *t,
                        const struct idle_report *idle, const struct options *o)
{
    const struct counters *c = &d->stats.c;
    f64 s = (f64)d->ns / 1e9;
    if (options_produces(o)) {
        printf("produced           %.1f MiB/s, %.0f records/s, %.0f requests/s in %.1f s "
               "(%u records, %u bytes a batch)\n",
               mib(c->acked_bytes) / s, (f64)c->acked_records / s, (f64)c->acked_requests / s, s,
               t->list[0].records, t->list[0].len);
        text_latency("produce latency", &d->stats.produce);
    }
    if (options_consumes(o)) {
        printf("consumed           %.1f MiB/s, %.0f records/s, %.0f responses/s\n",
               mib(c->read_bytes) / s, (f64)c->read_records / s, (f64)c->read_responses / s);
        text_latency("fetch latency", &d->stats.fetch);
        text_latency("end to end", &d->stats.e2e);
    }
    if (idle->wanted)
        printf("idle connections   %u of %u alive; broker memory %.1f → %.1f MiB\n", idle->alive,
               idle->wanted, mib(idle->rss_before_bytes), mib(idle->rss_after_bytes));
    text_cpu(d);
    printf("trouble            retries %" PRIu64 ", failures %" PRIu64 ", disconnects %" PRIu64
           ", offset gaps %" PRIu64 ", wrong CRC %" PRIu64 "\n",
           c->retries, c->failures, c->disconnects, c->offset_gaps, c->bad_crc);
    for (u32 i = 1; i < ERROR_CODES; i++)
        if (d->stats.errors[i])
            printf("  error %s: %" PRIu64 "\n", err_name((err)(i16)i), d->stats.errors[i]);
}
void report_print(const struct snapshot *begin, const struct snapshot *end,
                  const struct templates *t, const struct idle_report *idle,
                  const struct options *o)
{
    static struct snapshot d;
    d = *end;
    snapshot_subtract(&d, begin);
    if (o->json)
        report_json(&d, t, idle);
    else
        report_text(&d, t, idle, o);
}
