/* leatctl: reads and changes a running node through its admin.listen, in the manner of sysctl.
 *
 * Exit status: 0 done, 1 the node refused or does not know the key, 2 wrong usage, 3 no node
 * answers. Values go to stdout, everything else to stderr.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leatctl_cost.h"
#include "leatctl_int.h"
#include "mem.h"
#include "version.h"

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct ctl_reply *reply = arg;
    metric_text_add(&reply->body, "%.*s", (int)(size * count), data);
    return size * count;
}

bool ctl_ask(struct ctl *c, const char *method, const char *path, const char *value,
             struct ctl_reply *reply)
{
    char url[1024], why[CURL_ERROR_SIZE] = "";
    *reply = (struct ctl_reply){ 0 };
    snprintf(url, sizeof url, "http://%s%s", c->addr, path);
    curl_easy_reset(c->curl);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, reply);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, 5L);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, 30L);
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "*");
    if (value)
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, value);
    CURLcode rc = curl_easy_perform(c->curl);
    if (rc != CURLE_OK) {
        fprintf(
            stderr,
            "leatctl: no node answers at %s: %s\n"
            "Is leat running, and is this its admin.listen? Name another with --addr HOST:PORT.\n",
            c->addr, *why ? why : curl_easy_strerror(rc));
        c->status = EXIT_UNREACHABLE;
        return false;
    }
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    return true;
}

json_t *ctl_reply_json(struct ctl *c, struct ctl_reply *reply)
{
    json_error_t why;
    json_t *v = json_loads(reply->body.data ? reply->body.data : "", 0, &why);
    if (!v) {
        fprintf(stderr, "leatctl: %s does not answer like a leat node (HTTP %ld)\n", c->addr,
                reply->status);
        c->status = EXIT_UNREACHABLE;
    }
    metric_text_free(&reply->body);
    return v;
}

static const char *member(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void print_key(const struct ctl *c, const json_t *key)
{
    if (c->values_only)
        printf("%s\n", member(key, "value"));
    else
        printf("%s = %s\n", member(key, "name"), member(key, "value"));
    if (!c->describe)
        return;
    printf("    %s\n    type: %s%s%s\n    default: %s\n    set by: %s\n    change: %s\n",
           member(key, "help"), member(key, "type"), *member(key, "choices") ? " " : "",
           member(key, "choices"), member(key, "default"), member(key, "source"),
           json_is_true(json_object_get(key, "live")) ? "live" : "needs a restart");
}

/* Prints one answer about a key, or the node's refusal. */
static void print_answer(struct ctl *c, struct ctl_reply *reply)
{
    long status = reply->status;
    json_t *o = ctl_reply_json(c, reply);
    if (!o)
        return;
    if (status == 200) {
        print_key(c, o);
    } else if (!(status == 404 && c->ignore_unknown)) {
        fprintf(stderr, "leatctl: %s\n", *member(o, "error") ? member(o, "error") : "refused");
        c->status = EXIT_REFUSED;
    }
    json_decref(o);
}

/* "/v1/config/" and the key, escaped. */
static void config_path(struct ctl *c, char *path, size_t size, const char *key, size_t key_len)
{
    char *escaped = curl_easy_escape(c->curl, key, (int)key_len);
    snprintf(path, size, "/v1/config/%s", escaped ? escaped : "");
    curl_free(escaped);
}

/* All keys, or those that begin with `prefix`; false when there are none. */
static bool list_keys(struct ctl *c, const char *prefix)
{
    struct ctl_reply reply;
    if (!ctl_ask(c, "GET", "/v1/config", NULL, &reply))
        return true;
    json_t *all = ctl_reply_json(c, &reply), *key;
    size_t i;
    bool any = !all;
    json_array_foreach(all, i, key) {
        if (strncmp(member(key, "name"), prefix, strlen(prefix)) == 0) {
            print_key(c, key);
            any = true;
        }
    }
    json_decref(all);
    return any;
}

static void read_key(struct ctl *c, const char *key)
{
    struct ctl_reply reply;
    char path[600];
    size_t len = strlen(key);
    if (len > 0 && key[len - 1] == '.' && list_keys(c, key))
        return;
    config_path(c, path, sizeof path, key, len);
    if (ctl_ask(c, "GET", path, NULL, &reply))
        print_answer(c, &reply);
}

static void write_key(struct ctl *c, const char *pair)
{
    const char *equals = strchr(pair, '=');
    if (!equals || equals == pair) {
        fprintf(stderr, "leatctl: \"%s\" is not KEY=VALUE\n", pair);
        c->status = EXIT_USAGE;
        return;
    }
    size_t len = (size_t)(equals - pair);
    while (len > 0 && pair[len - 1] == ' ')
        len--;
    const char *value = equals + 1 + strspn(equals + 1, " ");
    char path[600];
    struct ctl_reply reply;
    config_path(c, path, sizeof path, pair, len);
    if (ctl_ask(c, "PUT", path, value, &reply))
        print_answer(c, &reply);
}

static void reset_key(struct ctl *c, const char *key)
{
    char path[600];
    struct ctl_reply reply;
    config_path(c, path, sizeof path, key, strlen(key));
    if (ctl_ask(c, "DELETE", path, NULL, &reply))
        print_answer(c, &reply);
}

/* A page as it is; a status of 400 and above is a refusal. */
static void print_page(struct ctl *c, const char *path)
{
    struct ctl_reply reply;
    if (!ctl_ask(c, "GET", path, NULL, &reply))
        return;
    fputs(reply.body.data ? reply.body.data : "", stdout);
    if (reply.status >= 400)
        c->status = EXIT_REFUSED;
    metric_text_free(&reply.body);
}

/* Nested members are shown as dotted.key = value, like everything else here. */
static void print_flat(const char *prefix, const json_t *v)
{
    char name[256];
    if (json_is_object(v)) {
        const char *key;
        json_t *each;
        json_object_foreach((json_t *)(uintptr_t)v, key, each) {
            snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", key);
            print_flat(name, each);
        }
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            snprintf(name, sizeof name, "%s.%zu", prefix, i);
            print_flat(name, json_array_get(v, i));
        }
    } else if (json_is_string(v)) {
        printf("%s = %s\n", prefix, json_string_value(v));
    } else if (json_is_integer(v)) {
        printf("%s = %" JSON_INTEGER_FORMAT "\n", prefix, json_integer_value(v));
    } else if (json_is_real(v)) {
        printf("%s = %g\n", prefix, json_real_value(v));
    } else {
        printf("%s = %s\n", prefix, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "");
    }
}

static void print_status(struct ctl *c, int count, char **words)
{
    (void)count, (void)words;
    struct ctl_reply reply;
    if (!ctl_ask(c, "GET", "/v1/status", NULL, &reply))
        return;
    json_t *v = ctl_reply_json(c, &reply);
    if (!v)
        return;
    print_flat("", v);
    if (!json_is_true(json_object_get(v, "ready")))
        c->status = EXIT_REFUSED;
    json_decref(v);
}

static void print_metrics(struct ctl *c, int count, char **words)
{
    (void)count, (void)words;
    print_page(c, "/metrics");
}

static void print_health(struct ctl *c, int count, char **words)
{
    (void)count, (void)words;
    print_page(c, "/readyz");
}

/* No name of a key has no dot, so none of these hides one. */
static const struct ctl_command commands[] = {
    { "status", "", "what runs; fails when the node is not ready", false, print_status },
    { "metrics", "", "the node's metrics", false, print_metrics },
    { "health", "", "whether it is ready, and what it waits for", false, print_health },
    { "cost", "[model] [NAME=PRICE]...", "what the object store costs", true, cost_run },
    { "topic", "clone SRC DST", "a new topic that shares the objects of another", true,
      leatctl_topic },
    { "store", "[du | verify]", "the object store: state, use by topic, all checksums", true,
      leatctl_store },
};

static const struct ctl_command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static bool takes_words(const struct ctl *c, const char *word)
{
    const struct ctl_command *command = command_find(word);
    return !c->write && !c->reset && command && command->takes_words;
}

static void usage(FILE *out)
{
    fputs(
        "Usage: leatctl [OPTION]... KEY...            read keys (a name that ends in . reads all "
        "below it)\n"
        "       leatctl [OPTION]... -w KEY=VALUE...   change a running node, until it stops\n"
        "       leatctl [OPTION]... -r KEY...         back to what files, command line or default "
        "say\n"
        "       leatctl [OPTION]... -a                all keys\n"
        "       leatctl [OPTION]... COMMAND [WORD]...\n"
        "\n",
        out);
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        const struct ctl_command *o = &commands[i];
        int width = fprintf(out, "  %s%s%s", o->name, *o->words ? " " : "", o->words);
        fprintf(out, "%*s%s\n", MAX(24 - width, 2), "", o->help);
    }
    fputs("\n"
          "  -A, --addr HOST:PORT  the node's admin.listen (default $LEAT_ADMIN, else "
          "127.0.0.1:9644)\n"
          "  -n, --values          print values without names\n"
          "  -d, --describe        print meaning, type, default and origin too\n"
          "  -e, --ignore          unknown keys are no error\n"
          "  -h, --help            this text\n"
          "  -V, --version         the version\n"
          "\n"
          "Exit status: 0 done, 1 refused or not ready, 2 wrong usage, 3 no node answers.\n",
          out);
}

static void run(struct ctl *c)
{
    if (c->all)
        list_keys(c, "");
    for (int i = 0; i < c->count; i++) {
        char *word = c->words[i];
        const struct ctl_command *command = command_find(word);
        if (c->write)
            write_key(c, word);
        else if (c->reset)
            reset_key(c, word);
        else if (command)
            command->run(c, c->count - i - 1, c->words + i + 1);
        else if (strchr(word, '='))
            write_key(c, word); /* sysctl accepts it without -w as well */
        else
            read_key(c, word);
        if (takes_words(c, word))
            break;
    }
}

/* True when the program goes on; else *status is its exit status. Words and options come in any
 * order, until a command that takes words. */
static bool parse_options(struct ctl *c, int argc, char **argv, int *status)
{
    static const struct option options[] = {
        { "addr", required_argument, NULL, 'A' }, { "all", no_argument, NULL, 'a' },
        { "write", no_argument, NULL, 'w' },      { "reset", no_argument, NULL, 'r' },
        { "values", no_argument, NULL, 'n' },     { "describe", no_argument, NULL, 'd' },
        { "ignore", no_argument, NULL, 'e' },     { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },    { NULL, 0, NULL, 0 },
    };
    *status = 0;
    c->words = argv + 1; /* no word moves to the right */
    for (int o; (o = getopt_long(argc, argv, "-A:awrndehV", options, NULL)) != -1;) {
        switch (o) {
        case 1: /* a word */
            c->words[c->count++] = optarg;
            if (takes_words(c, optarg))
                goto rest;
            break;
        case 'A':
            c->addr = optarg;
            break;
        case 'a':
            c->all = true;
            break;
        case 'w':
            c->write = true;
            break;
        case 'r':
            c->reset = true;
            break;
        case 'n':
            c->values_only = true;
            break;
        case 'd':
            c->describe = true;
            break;
        case 'e':
            c->ignore_unknown = true;
            break;
        case 'h':
            usage(stdout);
            return false;
        case 'V':
            puts("leatctl " LEAT_VERSION);
            return false;
        default:
            usage(stderr);
            *status = EXIT_USAGE;
            return false;
        }
    }
rest:
    while (optind < argc)
        c->words[c->count++] = argv[optind++];
    bool words = c->count > 0;
    if ((c->write && c->reset) || (c->all && words) || (!c->all && !words)) {
        usage(stderr);
        *status = EXIT_USAGE;
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    const char *env = getenv("LEAT_ADMIN");
    struct ctl c = { .addr = env && *env ? env : "127.0.0.1:9644" };
    int status;
    if (!parse_options(&c, argc, argv, &status))
        return status;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    c.curl = curl_easy_init();
    if (!c.curl) {
        fputs("leatctl: libcurl does not start\n", stderr);
        return EXIT_UNREACHABLE;
    }
    run(&c);
    curl_easy_cleanup(c.curl);
    curl_global_cleanup();
    return c.status;
}
