/* leatctl store: the object store as the node sees it. Long work is a job of the node: it is
 * started, asked about until it ends, and its result printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "leatctl_int.h"

#define POLL_NS_MIN 20000000L
#define POLL_NS_MAX 500000000L

struct options {
    bool json, partitions, stop, bad;
    const char *rate;
    const char *word; /* the first that is no option */
};

static u64 number(const json_t *o, const char *name)
{
    return (u64)json_integer_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

/* "1.5 GiB"; buf of 32. */
static const char *size_text(u64 bytes, char *buf)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double v = (double)bytes;
    u32 i = 0;
    for (; v >= 1024 && i + 1 < ARRAY_COUNT(units); i++)
        v /= 1024;
    snprintf(buf, 32, i == 0 ? "%.0f %s" : "%.1f %s", v, units[i]);
    return buf;
}

/* "12 s ago"; buf of 32. */
static const char *age_text(u64 seconds, char *buf)
{
    i64 now = clock_wall_ms() / 1000;
    if (seconds == 0)
        snprintf(buf, 32, "not since the start");
    else
        snprintf(buf, 32, "%" PRId64 " s ago", now - (i64)seconds);
    return buf;
}

/* ---- asking ---- */

json_t *ctl_ask_json(struct ctl *c, const char *method, const char *path, const char *body)
{
    struct ctl_reply reply;
    if (!ctl_ask(c, method, path, body, &reply))
        return NULL;
    long status = reply.status;
    json_t *o = ctl_reply_json(c, &reply);
    if (o == NULL || status < 400)
        return o;
    fprintf(stderr, "leatctl: %s\n", *text(o, "error") ? text(o, "error") : "refused");
    c->status = EXIT_REFUSED;
    json_decref(o);
    return NULL;
}

static void progress(const json_t *o)
{
    u64 all = number(o, "bytes"), done = number(o, "bytes_done");
    char a[32], b[32];
    if (!isatty(STDERR_FILENO) || all == 0)
        return;
    fprintf(stderr,
            "\r%3" PRIu64 " %%  %s of %s, %" PRIu64 " of %" PRIu64 " objects, %" PRIu64
            " faults   ",
            done * 100 / all, size_text(done, a), size_text(all, b), number(o, "objects_done"),
            number(o, "objects"), number(o, "faults_total"));
}

/* Starts the job and waits for its end. A job that is running already is waited for. NULL with a
 * message when it failed. */
static json_t *job(struct ctl *c, const char *path, const char *body)
{
    struct ctl_reply reply;
    if (!ctl_ask(c, "POST", path, body, &reply))
        return NULL;
    long status = reply.status;
    json_t *o = ctl_reply_json(c, &reply);
    if (o == NULL)
        return NULL;
    if (status != 202) {
        fprintf(stderr, "leatctl: %s%s\n", text(o, "error"),
                status == 409 ? ": this is its progress" : "");
        if (status != 409) {
            c->status = EXIT_REFUSED;
            json_decref(o);
            return NULL;
        }
    }
    struct timespec pause = { 0, POLL_NS_MIN };
    do {
        json_decref(o);
        nanosleep(&pause, NULL);
        pause.tv_nsec = MIN(pause.tv_nsec * 2, POLL_NS_MAX);
        o = ctl_ask_json(c, "GET", path, NULL);
        progress(o);
    } while (o != NULL && strcmp(text(o, "state"), "running") == 0);
    if (o != NULL && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    return o;
}

/* Prints what did not end well; the result is partial then. */
static void job_state(struct ctl *c, const json_t *o)
{
    if (strcmp(text(o, "state"), "done") == 0)
        return;
    fprintf(stderr, "leatctl: %s%s%s\n", text(o, "state"), *text(o, "error") ? ": " : "",
            text(o, "error"));
    c->status = EXIT_REFUSED;
}

/* ---- store ---- */

static void state(struct ctl *c, const struct options *opt)
{
    char a[32], b[32];
    json_t *o = ctl_ask_json(c, "GET", "/v1/store", NULL);
    if (o == NULL)
        return;
    if (opt->json) {
        json_dumpf(o, stdout, JSON_INDENT(2));
        puts("");
    } else {
        bool fails = number(o, "failures") > 0;
        printf("store            %s\n", text(o, "url"));
        printf("uploads          %s\n", text(o, "uploads"));
        printf("backlog          %" PRIu64 " segments sealed, %s not in the store\n",
               number(o, "backlog_segments"), size_text(number(o, "backlog_bytes"), a));
        printf("last upload      %s\n", age_text(number(o, "last_upload_seconds"), a));
        if (fails) {
            i64 next = (i64)number(o, "next_try_seconds") - clock_wall_ms() / 1000;
            printf("last error       %s (%" PRIu64 " times in a row)\n", text(o, "error"),
                   number(o, "failures"));
            printf("next try         in %" PRId64 " s\n", MAX(next, 0));
        }
        printf("objects          %" PRIu64 ", %s\n", number(o, "objects"),
               size_text(number(o, "bytes"), a));
        printf("to be deleted    %" PRIu64 ", %s\n", number(o, "discarded_objects"),
               size_text(number(o, "discarded_bytes"), a));
        printf("deleted          %" PRIu64 " since the start\n", number(o, "deleted_objects"));
        printf("last listing     %s: %" PRIu64 " objects, %s\n",
               age_text(number(o, "listed_seconds"), b), number(o, "listed_objects"),
               size_text(number(o, "listed_bytes"), a));
        printf("orphans found    %" PRIu64 " since the start\n", number(o, "orphans_found"));
        c->status = fails ? EXIT_REFUSED : c->status;
    }
    json_decref(o);
}

/* ---- store du ---- */

static void use_print(const json_t *o, const char *name)
{
    char a[32], b[32];
    printf("%12s %12s %9" PRIu64 " %9" PRIu64 "  %s\n", size_text(number(o, "bytes"), a),
           size_text(number(o, "dead_bytes"), b), number(o, "objects"), number(o, "blocks"), name);
}

static void topic_print(const json_t *t, bool partitions)
{
    char name[512];
    bool deleted = json_is_true(json_object_get(t, "deleted"));
    const char *topic = deleted ? text(t, "id") : text(t, "name");
    char shared[64] = "", a[32];
    if (number(t, "shared_bytes") > 0)
        snprintf(shared, sizeof shared, " (and %s shared)",
                 size_text(number(t, "shared_bytes"), a));
    snprintf(name, sizeof name, "%s%s%s", topic, deleted ? " (deleted)" : "", shared);
    use_print(t, name);
    size_t i;
    json_t *p;
    if (!partitions)
        return;
    json_array_foreach(json_object_get(t, "partitions"), i, p) {
        snprintf(name, sizeof name, "  %s-%" PRIu64 "  %" PRId64 "..%" PRId64, topic,
                 number(p, "partition"), (i64)number(p, "from"), (i64)number(p, "to"));
        use_print(p, name);
    }
}

static void du_print(struct ctl *c, const json_t *o, const struct options *opt)
{
    char a[32];
    size_t i;
    json_t *t;
    bool any = false;
    printf("%12s %12s %9s %9s  %s\n", "BYTES", "DEAD", "OBJECTS", "BLOCKS", "TOPIC");
    json_array_foreach(json_object_get(o, "topics"), i, t) {
        if (opt->word && strcmp(opt->word, text(t, "name")) != 0)
            continue;
        topic_print(t, opt->partitions || opt->word);
        any = true;
    }
    if (opt->word) {
        if (!any) {
            fprintf(stderr, "leatctl: nothing of a topic %s is in the store\n", opt->word);
            c->status = EXIT_REFUSED;
        }
        return;
    }
    printf("%12s %12s %9s %9s  %s\n", size_text(number(o, "overhead_bytes"), a), "", "", "",
           "(indexes and gaps)");
    printf("%12s %12s %9" PRIu64 " %9s  %s\n", size_text(number(o, "bytes"), a), "",
           number(o, "objects"), "", "all");
    printf("%12s %12s %9" PRIu64 " %9s  %s\n", size_text(number(o, "discarded_bytes"), a), "",
           number(o, "discarded_objects"), "", "(to be deleted, beside)");
}

static void du(struct ctl *c, const struct options *opt)
{
    json_t *o = job(c, "/v1/store/du", "");
    if (o == NULL)
        return;
    job_state(c, o);
    if (opt->json) {
        json_dumpf(o, stdout, JSON_INDENT(2));
        puts("");
    } else if (c->status == 0) {
        du_print(c, o, opt);
    }
    json_decref(o);
}

/* ---- store verify ---- */

static void verify_print(const json_t *o)
{
    char a[32];
    size_t i;
    json_t *f;
    json_array_foreach(json_object_get(o, "faults"), i, f) {
        printf("%s: %s (%s)", text(f, "object"), text(f, "what"), text(f, "error"));
        if (json_object_get(f, "partition"))
            printf(": topic %s partition %" PRIu64 " offsets %" PRId64 "..%" PRId64,
                   *text(f, "topic") ? text(f, "topic") : text(f, "topic_id"),
                   number(f, "partition"), (i64)number(f, "from"), (i64)number(f, "to") - 1);
        puts("");
    }
    json_array_foreach(json_object_get(o, "orphans"), i, f)
        printf("%s: nothing names it\n", json_string_value(f));
    printf("%" PRIu64 " of %" PRIu64 " objects, %" PRIu64 " blocks, %" PRIu64
           " batches checked (%s) in %.1f s; %" PRIu64 " deleted meanwhile\n",
           number(o, "objects_done"), number(o, "objects"), number(o, "blocks_done"),
           number(o, "batches_done"), size_text(number(o, "bytes_done"), a),
           (double)number(o, "elapsed_ms") / 1000, number(o, "gone"));
    printf("%" PRIu64 " faults; %" PRIu64 " orphans; %" PRIu64 " to be deleted; %" PRIu64
           " just stored; %" PRIu64 " of other names\n",
           number(o, "faults_total"), number(o, "orphans_total"), number(o, "discarded_objects"),
           number(o, "recent"), number(o, "foreign"));
}

static void verify(struct ctl *c, const struct options *opt)
{
    char body[128] = "";
    if (opt->rate)
        snprintf(body, sizeof body, "rate=%s", opt->rate);
    json_t *o = opt->stop ? ctl_ask_json(c, "DELETE", "/v1/store/verify", NULL)
                          : job(c, "/v1/store/verify", body);
    if (o == NULL || opt->stop) {
        json_decref(o);
        return;
    }
    job_state(c, o);
    if (opt->json) {
        json_dumpf(o, stdout, JSON_INDENT(2));
        puts("");
    } else {
        verify_print(o);
    }
    if (number(o, "faults_total") > 0)
        c->status = EXIT_REFUSED;
    json_decref(o);
}

/* ---- the words ---- */

static struct options parse(int count, char **words)
{
    struct options o = { 0 };
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--json") == 0)
            o.json = true;
        else if (strcmp(words[i], "-p") == 0 || strcmp(words[i], "--partitions") == 0)
            o.partitions = true;
        else if (strcmp(words[i], "--stop") == 0)
            o.stop = true;
        else if (strcmp(words[i], "--rate") == 0 && i + 1 < count)
            o.rate = words[++i];
        else if (words[i][0] == '-' || o.word)
            o.bad = true;
        else
            o.word = words[i];
    }
    return o;
}

void leatctl_store(struct ctl *c, int count, char **words)
{
    const char *what = count > 0 && words[0][0] != '-' ? words[0] : "";
    struct options opt = parse(*what ? count - 1 : count, *what ? words + 1 : words);
    bool is_du = strcmp(what, "du") == 0, is_verify = strcmp(what, "verify") == 0;
    bool known = !*what || is_du || is_verify;
    bool fits = (!opt.word || is_du) && (!opt.partitions || is_du) &&
                ((!opt.rate && !opt.stop) || is_verify);
    if (opt.bad || !known || !fits) {
        fputs("Usage: leatctl store [--json]\n"
              "       leatctl store du [-p] [TOPIC] [--json]\n"
              "       leatctl store verify [--rate BYTES] [--json] | --stop\n",
              stderr);
        c->status = EXIT_USAGE;
        return;
    }
    if (is_du)
        du(c, &opt);
    else if (is_verify)
        verify(c, &opt);
    else
        state(c, &opt);
}
