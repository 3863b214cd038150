/* The administration endpoint, asked over a real socket. */
#include "admin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

static struct config cfg;
static struct metric_registry registry;
static struct metrics *metrics;
static struct admin *admin;
static bool is_ready;

static bool ready(struct admin_ops *ops, char *why, size_t why_size)
{
    (void)ops;
    snprintf(why, why_size, "recovering");
    return is_ready;
}

static void status(struct admin_ops *ops, struct metric_text *out)
{
    (void)ops;
    metric_text_add(out, ",\"shards\":2");
}

static struct admin_ops ops = { .ready = ready, .status = status };

static int setup(void **state)
{
    (void)state;
    char why[256];
    log_set_level("error");
    config_init(&cfg);
    assert_int_equal(config_set(&cfg, "admin.listen", "127.0.0.1:0", CONFIG_FILE, why, sizeof why),
                     0);
    assert_int_equal(config_validate(&cfg, why, sizeof why), 0);
    metrics = metrics_create();
    registry = (struct metric_registry){ 0 };
    metric_registry_add(&registry, metrics);
    assert_int_equal(admin_start(&cfg, &registry, &ops, &admin, why, sizeof why), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    admin_stop(admin);
    metrics_destroy(metrics);
    config_free(&cfg);
    return 0;
}

/* Sends raw bytes, returns the whole answer (a static buffer). */
static const char *ask_raw(const char *request, size_t len)
{
    static char buf[1 << 20];
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(admin_port(admin)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(send(fd, request, len, MSG_NOSIGNAL), (ssize_t)len);
    shutdown(fd, SHUT_WR);
    size_t used = 0;
    for (ssize_t n; (n = recv(fd, buf + used, sizeof buf - 1 - used, 0)) > 0;)
        used += (size_t)n;
    close(fd);
    buf[used] = '\0';
    return buf;
}

static const char *ask(const char *method, const char *path, const char *body)
{
    char request[8192];
    int n =
        snprintf(request, sizeof request,
                 "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                 method, path, strlen(body), body);
    return ask_raw(request, (size_t)n);
}

static bool has_status(const char *answer, int wanted)
{
    int got = 0;
    return sscanf(answer, "HTTP/1.1 %d", &got) == 1 && got == wanted;
}

static void pages(void **state)
{
    (void)state;
    metric_add(metrics, M_bytes_in, 42);
    const char *a = ask("GET", "/metrics", "");
    assert_true(has_status(a, 200));
    assert_non_null(strstr(a, "leat_network_bytes_total{dir=\"in\",shard=\"0\"} 42\n"));
    assert_non_null(strstr(a, "text/plain; version=0.0.4"));
    assert_true(has_status(ask("GET", "/healthz", ""), 200));
    is_ready = false;
    a = ask("GET", "/readyz", "");
    assert_true(has_status(a, 503) && strstr(a, "recovering"));
    is_ready = true;
    assert_true(has_status(ask("GET", "/readyz", ""), 200));
    a = ask("GET", "/v1/status", "");
    assert_true(has_status(a, 200) && strstr(a, "\"ready\":true") && strstr(a, "\"shards\":2}"));
    assert_true(has_status(ask("GET", "/nothing", ""), 404));
    assert_true(has_status(ask("POST", "/metrics", "x"), 405));
    assert_true(has_status(ask("HEAD", "/", ""), 200));
}

static void configuration(void **state)
{
    (void)state;
    const char *a = ask("GET", "/v1/config", "");
    assert_true(has_status(a, 200) && strstr(a, "\"wal.size\"") && strstr(a, "\"log.level\""));
    a = ask("PUT", "/v1/config/wal.seal_age", "7s\n");
    assert_true(has_status(a, 200) && strstr(a, "\"value\": \"7s\"") && strstr(a, "\"live\""));
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), 7000);
    assert_true(has_status(ask("DELETE", "/v1/config/wal.seal_age", ""), 200));
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), 30000);
    a = ask("PUT", "/v1/config/wal.size", "2g");
    assert_true(has_status(a, 409) && strstr(a, "restart"));
    a = ask("PUT", "/v1/config/wal.seal_age", "soon");
    assert_true(has_status(a, 400) && strstr(a, "duration"));
    a = ask("PUT", "/v1/config/wal.seal_ag", "1s");
    assert_true(has_status(a, 404) && strstr(a, "wal.seal_age"));
    a = ask("GET", "/v1/config/wal.sise", "");
    assert_true(has_status(a, 404) && strstr(a, "wal.size"));
    assert_true(has_status(ask("PUT", "/v1/config", "x"), 405));
    assert_true(has_status(ask("GET", "/v1/configuration", ""), 404));
}

static void bad_input(void **state)
{
    (void)state;
    char big[6000];
    memset(big, '7', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_true(has_status(ask("PUT", "/v1/config/wal.seal_age", big), 413));
    static const char nul[] =
        "PUT /v1/config/wal.seal_age HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Length: 4\r\n\r\n1\0s2";
    assert_true(has_status(ask_raw(nul, sizeof nul - 1), 400));
    ask_raw("\0\1\2garbage\r\n\r\n", 14);
    ask_raw("GET /%00%ff%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 56);
    ask_raw("GET", 3);
    assert_true(has_status(ask("GET", "/healthz", ""), 200));
    assert_int_equal(config_i64(&cfg, CFG_wal_seal_age_ms), 30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages, setup, teardown),
        cmocka_unit_test_setup_teardown(configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_input, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
