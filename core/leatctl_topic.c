/* leatctl topic clone SRC DST: a new topic that shares the objects of another one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "leatctl_int.h"

#define POLL_NS_MIN 2000000L
#define POLL_NS_MAX 200000000L

/* "2026-11-28T03:15:00.250" (UTC, "Z" may follow; fraction and time may be missing), as ms since
 * 1970. */
static bool time_parse(const char *text, i64 *ms)
{
    static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d" };
    for (u32 i = 0; i < ARRAY_COUNT(forms); i++) {
        struct tm tm = { 0 };
        const char *end = strptime(text, forms[i], &tm);
        if (end == NULL)
            continue;
        *ms = (i64)timegm(&tm) * 1000;
        if (*end == '.')
            for (i64 unit = 100; *++end >= '0' && *end <= '9'; unit /= 10)
                *ms += (*end - '0') * unit;
        end += *end == 'Z';
        if (*end == '\0')
            return true;
    }
    return false;
}

/* OFFSET or TIME, as a line of the request. False: neither. */
static bool at_line(const char *at, char *out, size_t size)
{
    i64 v;
    if (at[strspn(at, "0123456789")] == '\0' && *at) {
        snprintf(out, size, "end_offset=%s\n", at);
        return true;
    }
    bool is_time = time_parse(at, &v);
    if (is_time)
        snprintf(out, size, "end_ms=%" PRId64 "\n", v);
    return is_time;
}

static void print_done(const json_t *o)
{
    printf("%s: %" PRId64 " partitions, %" PRId64 " blocks, %.1f MiB shared with %s, %" PRId64
           " records copied, %.1f ms\n",
           json_string_value(json_object_get(o, "target")),
           (i64)json_integer_value(json_object_get(o, "partitions")),
           (i64)json_integer_value(json_object_get(o, "blocks")),
           (double)json_integer_value(json_object_get(o, "bytes")) / (double)MIB,
           json_string_value(json_object_get(o, "source")),
           (i64)json_integer_value(json_object_get(o, "copied_records")),
           (double)json_integer_value(json_object_get(o, "us")) / 1000);
}

static void clone(struct ctl *c, const char *source, const char *target, const char *at)
{
    char body[1024];
    snprintf(body, sizeof body, "source=%s\ntarget=%s\n%s", source, target, at);
    json_t *o = ctl_ask_json(c, "POST", "/v1/topics/clone", body);
    struct timespec pause = { 0, POLL_NS_MIN };
    while (o && strcmp(json_string_value(json_object_get(o, "state")), "running") == 0) {
        json_decref(o);
        nanosleep(&pause, NULL);
        pause.tv_nsec = MIN(pause.tv_nsec * 2, POLL_NS_MAX);
        o = ctl_ask_json(c, "GET", "/v1/topics/clone", NULL);
    }
    if (o == NULL)
        return;
    const char *why = json_string_value(json_object_get(o, "error"));
    bool done = strcmp(json_string_value(json_object_get(o, "state")), "done") == 0;
    if (!done) {
        fprintf(
            stderr, "leatctl: %s\n",
            why ? why
                : "the node was started anew meanwhile: do it again, unless the topic is there");
        c->status = EXIT_REFUSED;
    } else {
        print_done(o);
    }
    json_decref(o);
}

void leatctl_topic(struct ctl *c, int count, char **words)
{
    const char *names[2] = { NULL, NULL };
    char at[64] = "";
    bool bad = count < 3 || strcmp(words[0], "clone") != 0;
    int n = 0;
    for (int i = 1; i < count && !bad; i++) {
        if (strcmp(words[i], "--at") == 0 && i + 1 < count)
            bad = !at_line(words[++i], at, sizeof at);
        else if (words[i][0] == '-' || n == 2)
            bad = true;
        else
            names[n++] = words[i];
    }
    if (bad || n != 2) {
        fputs("Usage: leatctl topic clone SRC DST [--at OFFSET|TIME]\n"
              "TIME is 2026-11-28T03:15:00, in UTC\n",
              stderr);
        c->status = EXIT_USAGE;
        return;
    }
    clone(c, names[0], names[1], at);
}
