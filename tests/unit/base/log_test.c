/* Log lines: form, quoting, limits, and that nothing is lost or torn between threads. */
#include "log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <pthread.h>
#include <unistd.h>

#include <cmocka.h>

#include "bytes.h"
#include "mem.h"

static FILE *out;

static void start(void)
{
    out = tmpfile();
    assert_non_null(out);
    log_start(fileno(out));
}

/* Stops the log and returns all it wrote; the caller frees it. */
static char *stop(void)
{
    log_stop();
    long size = lseek(fileno(out), 0, SEEK_END);
    char *text = mem_alloc((size_t)size + 1);
    assert_int_equal(pread(fileno(out), text, (size_t)size, 0), size);
    fclose(out);
    return text;
}

static u32 count(const char *text, const char *what)
{
    u32 n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

static void a_line_has_time_level_event(void **state)
{
    (void)state;
    start();
    LOG(WARN, disk_slow, "shard=%u ms=%d", 3u, 12);
    LOG(DEBUG, unseen, "x=%d", 1);
    char *text = stop();
    int year, n = 0;
    assert_int_equal(sscanf(text,
                            "ts=%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ level=warn event=disk_slow "
                            "shard=3 ms=12%n",
                            &year, &n),
                     1);
    assert_true(year >= 2024 && n > 0);
    assert_string_equal(text + n, "\n");
    mem_free(text);
}

static void a_site_is_limited_and_tells(void **state)
{
    (void)state;
    start();
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 25; i++)
            LOG(INFO, often, "i=%d", i);
        if (round == 0)
            usleep(1100000);
    }
    char *text = stop();
    assert_int_equal(count(text, "event=often"), 20);
    assert_int_equal(count(text, "suppressed=15"), 1);
    mem_free(text);
}

static void long_and_broken_lines_stay_one_line(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    start();
    LOG(INFO, big, "v=%s", big);
    LOG(INFO, broken, "v=%s", "a\nlevel=error event=forged\r");
    char *text = stop();
    assert_int_equal(count(text, "\n"), 2);
    assert_int_equal(count(text, "…\n"), 1);
    assert_true(strlen(text) < 2300);
    mem_free(text);
}

#define THREADS 8
static void *writer(void *arg)
{
    u32 me = *(u32 *)arg;
    for (u32 i = 0; i < 300; i++) {
        struct log_site site = { "many", LOG_INFO, 0, 0, 0 }; /* fresh: no limit */
        log_write(&site, "thread=%u i=%u end", me, i);
        if (i % 100 == 99)
            usleep(20000); /* lets the drain keep up */
    }
    return NULL;
}

static void lines_of_threads_are_whole(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    u32 ids[THREADS];
    start();
    for (u32 i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, writer, &ids[i]), 0);
    }
    for (u32 i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *text = stop();
    if (count(text, "log_lines_lost") == 0)
        assert_int_equal(count(text, "event=many thread="), THREADS * 300);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (!strstr(line, "log_lines_lost"))
            assert_true(strncmp(line, "ts=", 3) == 0 &&
                        strcmp(line + strlen(line) - 4, " end") == 0);
    mem_free(text);
}

static void quoting(void **state)
{
    (void)state;
    char buf[64];
    static const u8 odd[] = { 'a', '"', '\\', '\n', 0, 0xff, 0xc3, 0xa9, 0x7f };
    assert_string_equal(log_quote(buf, sizeof buf, bytes_of(odd, sizeof odd)),
                        "\"a\\\"\\\\\\n\\x00\\xff\xc3\xa9\\x7f\"");
    assert_string_equal(log_quote(buf, sizeof buf, (struct bytes){ NULL, 0 }), "\"\"");
    char big[300];
    memset(big, 'y', sizeof big);
    log_quote(buf, sizeof buf, bytes_of(big, sizeof big));
    assert_true(strlen(buf) < sizeof buf);
    assert_string_equal(buf + strlen(buf) - 4, "…\"");
}

static void levels(void **state)
{
    (void)state;
    assert_true(log_set_level("debug"));
    assert_int_equal(log_threshold, LOG_DEBUG);
    assert_false(log_set_level("loud"));
    assert_true(log_set_level("info"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_event),
        cmocka_unit_test(a_site_is_limited_and_tells),
        cmocka_unit_test(long_and_broken_lines_stay_one_line),
        cmocka_unit_test(lines_of_threads_are_whole),
        cmocka_unit_test(quoting),
        cmocka_unit_test(levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
