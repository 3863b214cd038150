/* Metrics: bounded error of the histograms, and a text that Prometheus can read. */
#include "metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"

static void quantiles_are_within_their_error(void **state)
{
    (void)state;
    struct metric_hist *h = MEM_NEW(struct metric_hist);
    for (u64 v = 1; v < ((u64)1 << 31); v += 1 + v / 7) {
        memset(h, 0, sizeof *h);
        metric_hist_observe(h, v);
        u64 q = metric_hist_quantile(h, 0.99);
        u64 diff = q > v ? q - v : v - q;
        assert_true(diff * 1000 <= v * 32 + 1000);
    }
    memset(h, 0, sizeof *h);
    assert_int_equal(metric_hist_quantile(h, 0.5), 0);
    for (u64 v = 1; v <= 10000; v++)
        metric_hist_observe(h, v);
    metric_hist_observe(h, UINT64_MAX); /* lands in the last bucket */
    assert_in_range(metric_hist_quantile(h, 0.5), 4840, 5160);
    assert_in_range(metric_hist_quantile(h, 0.99), 9580, 10220);
    assert_int_equal(h->count, 10001);
    mem_free(h);
}

static const char *api_name(i32 key)
{
    return key == 0 ? "Produce" : NULL;
}

static void hook(struct metric_text *t, void *arg)
{
    metric_text_add(t, "leat_hooked %d\n", *(int *)arg);
}

static void the_text_holds_all_shards(void **state)
{
    (void)state;
    struct metrics *a = metrics_create(), *b = metrics_create();
    static struct metric_registry r;
    int arg = 5;
    r.api_name = api_name;
    metric_registry_add(&r, a);
    metric_registry_add(&r, b);
    metric_registry_hook(&r, hook, &arg);
    metric_add(a, M_bytes_in, 3);
    metric_add(b, M_bytes_in, 4);
    metric_set(b, M_connections, 9);
    metric_observe(a, H_wal_write, 1000);
    metric_observe(b, H_wal_write, 100000);
    metric_request(a, 0, 50, 10, 20, false);
    metric_request(a, 99999, 50, 10, 20, true);
    assert_int_equal(metric_registry_sum(&r, M_bytes_in), 7);
    struct metric_text t = { 0 };
    metric_registry_render(&r, &t);
    static const char *const wanted[] = {
        "\nleat_network_bytes_total{dir=\"in\",shard=\"0\"} 3\n",
        "\nleat_network_bytes_total{dir=\"in\",shard=\"1\"} 4\n",
        "\nleat_connections{shard=\"1\"} 9\n",
        "\nleat_wal_write_seconds_bucket{le=\"0.001024\"} 1\n",
        "\nleat_wal_write_seconds_bucket{le=\"+Inf\"} 2\n",
        "\nleat_wal_write_seconds_sum 0.101000\n",
        "\nleat_wal_write_seconds_count 2\n",
        "\nleat_requests_total{api=\"Produce\",shard=\"0\"} 1\n",
        "\nleat_request_errors_total{api=\"127\",shard=\"0\"} 1\n",
        "\nleat_request_seconds_count{api=\"Produce\"} 1\n",
        "\nleat_hooked 5\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++)
        if (!strstr(t.data, wanted[i]))
            fail_msg("missing: %s", wanted[i]);
    assert_int_equal(strlen(t.data), t.len);
    /* Each family has exactly one head. */
    char *head = strstr(t.data, "# TYPE leat_network_bytes_total counter\n");
    assert_non_null(head);
    assert_null(strstr(head + 1, "# TYPE leat_network_bytes_total"));
    metric_text_free(&t);
    metrics_destroy(a);
    metrics_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_within_their_error),
        cmocka_unit_test(the_text_holds_all_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
