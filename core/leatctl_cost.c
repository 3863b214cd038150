/* leatctl cost [model] [NAME=VALUE]...: what the object store costs, from what a running node has
 * counted since its start, at given prices. A node on s3:// counts requests as the store bills
 * them; of any other store it is what the same operations would cost.
 *
 * `model` asks no node (leatctl_model.c). What is left out of either is listed in docs/cost.md.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leatctl_cost.h"

/* ---- the numbers ---- */

struct number {
    const char *name;
    size_t at; /* in struct cost */
    f64 value;
    const char *meaning;
};

static const struct number numbers[] = {
#define NUMBER(name, value, meaning) { #name, offsetof(struct cost, name), value, meaning },
    COST_NUMBERS(NUMBER) MODEL_NUMBERS(NUMBER)
#undef NUMBER
};

static f64 *number_of(struct cost *k, const struct number *n)
{
    return (f64 *)(void *)((char *)k + n->at);
}

static bool number_set(struct cost *k, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : 0;
    char *end = NULL;
    f64 v = equals ? strtod(equals + 1, &end) : 0;
    for (size_t i = 0; len > 0 && i < ARRAY_COUNT(numbers); i++) {
        if (strncmp(numbers[i].name, word, len) != 0 || numbers[i].name[len] != '\0')
            continue;
        if (end == equals + 1 || *end != '\0' || !isfinite(v) || v < 0)
            break;
        *number_of(k, &numbers[i]) = v;
        return true;
    }
    return false;
}

/* A share of nothing would divide by it. */
static bool numbers_serve(const struct cost *k)
{
    return k->utilization > 0 && k->segment_mib > 0 && k->seal_s > 0 && k->group_ms > 0 &&
           k->run_mib > 0 && k->block_mib > 0 && k->volume_gib > 0 && k->fill > 0 &&
           k->amplification >= 1 && k->replicas >= 1;
}

static void explain(FILE *out)
{
    fputs("Usage: leatctl cost [model] [NAME=VALUE]...\n"
          "Without model: what the node's object store costs, by its counters. With it: a\n"
          "comparison with Apache Kafka. Prices are in USD; each NAME with its default:\n\n",
          out);
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        fprintf(out, "  %s=%g%*s%s\n", numbers[i].name, numbers[i].value,
                MAX(28 - snprintf(NULL, 0, "%s=%g", numbers[i].name, numbers[i].value), 2), "",
                numbers[i].meaning);
}

/* ---- what the node counted ---- */

/* The sum of a metric's lines; of those with `label` in them, unless it is NULL. */
static f64 metric_of(const char *text, const char *name, const char *label)
{
    size_t len = strlen(name);
    f64 sum = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *end = line + strcspn(line, "\n");
        const char *at = label ? strstr(line, label) : line;
        const char *space = memrchr(line, ' ', (size_t)(end - line));
        if (strncmp(line, name, len) == 0 && (line[len] == '{' || line[len] == ' ') && at &&
            at < end && space)
            sum += strtod(space + 1, NULL);
    }
    return sum;
}

/* Requests that S3 bills: refused ones too, and both of two same ones, but none that it failed to
 * serve. */
static f64 billed(const char *text, const char *op)
{
    static const char *const results[] = { "ok", "not_found", "refused", "abandoned" };
    char label[64];
    f64 sum = 0;
    for (size_t i = 0; i < ARRAY_COUNT(results); i++) {
        snprintf(label, sizeof label, "{op=\"%s\",result=\"%s\"}", op, results[i]);
        sum += metric_of(text, "leat_s3_requests_total", label);
    }
    return sum;
}

struct counted {
    const char *basis;
    f64 produced, consumed; /* GiB */
    f64 puts, gets, out, in;
};

static struct counted count(const char *text)
{
    const f64 gib = (f64)GIB;
    static const char operations[] = "leat_store_operations_total";
    struct counted n = {
        .produced = metric_of(text, "leat_produce_bytes_total", NULL) / gib,
        .consumed = metric_of(text, "leat_fetch_bytes_total", NULL) / gib,
    };
    if (strstr(text, "\nleat_s3_requests_total{")) {
        n.basis = "leat_s3_requests_total: as the store bills it";
        n.puts = billed(text, "put") + billed(text, "list") + billed(text, "multipart");
        n.gets = billed(text, "get") + billed(text, "head");
        n.out = metric_of(text, "leat_s3_bytes_total", "dir=\"out\"") / gib;
        n.in = metric_of(text, "leat_s3_bytes_total", "dir=\"in\"") / gib;
        return n;
    }
    n.basis = "leat_store_operations_total: as if this store were S3";
    n.puts = metric_of(text, operations, "op=\"put\"") + metric_of(text, operations, "op=\"list\"");
    n.gets = metric_of(text, operations, "op=\"get\"");
    n.out = metric_of(text, "leat_store_put_bytes_total", NULL) / gib;
    n.in = (metric_of(text, "leat_store_read_bytes_total", NULL) +
            metric_of(text, "leat_merge_bytes_total", "dir=\"read\"") +
            metric_of(text, "leat_compaction_bytes_total", "dir=\"read\"")) /
           gib;
    return n;
}

static void print_counted(const struct cost *k, const struct counted *n, f64 uptime_s)
{
    f64 per = n->produced > 0 ? 1 / n->produced : 0;
    f64 puts = n->puts / 1000 * k->put, gets = n->gets / 1000 * k->get;
    f64 transfer = (n->out + n->in) * k->transfer;
    f64 storage = k->storage * k->retention_days * 24 * 3600 / COST_MONTH_S;
    f64 sum = (puts + gets + transfer) * per + (n->produced > 0 ? storage : 0);
    printf("basis = %s\n", n->basis);
    printf("uptime_seconds = %.0f\n", uptime_s);
    printf("produced.gib = %.6f\n", n->produced);
    printf("consumed.gib = %.6f\n", n->consumed);
    printf("store.out.gib = %.6f\n", n->out);
    printf("store.in.gib = %.6f\n", n->in);
    printf("put.count = %.0f\n", n->puts);
    printf("get.count = %.0f\n", n->gets);
    if (n->produced <= 0) {
        printf("usd = %.6f\n", puts + gets + transfer);
        fputs("leatctl: nothing was produced since the node started, so there is no price of a "
              "GiB\n",
              stderr);
        return;
    }
    printf("put.per_gib = %.2f\n", n->puts * per);
    printf("get.per_gib = %.2f\n", n->gets * per);
    printf("amplification = %.3f\n", n->out * per);
    printf("put.usd_per_gib = %.6f\n", puts * per);
    printf("get.usd_per_gib = %.6f\n", gets * per);
    printf("transfer.usd_per_gib = %.6f\n", transfer * per);
    printf("storage.usd_per_gib = %.6f\n", storage);
    printf("usd_per_gib = %.6f\n", sum);
    if (uptime_s > 0)
        printf("usd_per_month = %.2f\n", sum * n->produced / uptime_s * COST_MONTH_S);
}

static void measure(struct ctl *c, const struct cost *k)
{
    struct ctl_reply reply;
    if (!ctl_ask(c, "GET", "/v1/status", NULL, &reply))
        return;
    json_t *status = ctl_reply_json(c, &reply);
    if (!status)
        return;
    f64 uptime_s = json_number_value(json_object_get(status, "uptime_seconds"));
    json_decref(status);
    if (!ctl_ask(c, "GET", "/metrics", NULL, &reply))
        return;
    if (reply.status == 200 && reply.body.data) {
        struct counted n = count(reply.body.data);
        print_counted(k, &n, uptime_s);
    } else {
        fprintf(stderr, "leatctl: /metrics answers %ld\n", reply.status);
        c->status = EXIT_REFUSED;
    }
    metric_text_free(&reply.body);
}

void cost_run(struct ctl *c, int count, char **words)
{
    struct cost k;
    if (count == 1 && strcmp(words[0], "help") == 0) {
        explain(stdout);
        return;
    }
    bool model = count > 0 && strcmp(words[0], "model") == 0;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++)
        *number_of(&k, &numbers[i]) = numbers[i].value;
    for (int i = model; i < count; i++)
        if (!number_set(&k, words[i])) {
            fprintf(stderr, "leatctl cost: \"%s\" is not NAME=VALUE of what follows\n", words[i]);
            explain(stderr);
            c->status = EXIT_USAGE;
            return;
        }
    if (!numbers_serve(&k)) {
        fputs("leatctl cost: sizes, times, utilization and fill are above 0, amplification and "
              "replicas at least 1\n",
              stderr);
        c->status = EXIT_USAGE;
    } else if (model) {
        cost_model_print(&k);
    } else {
        measure(c, &k);
    }
}
