/* The command line of leat-bench: one table gives parsing, help and defaults. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "version.h"

enum option_kind { OPT_STRING, OPT_U32, OPT_BYTES, OPT_SECONDS, OPT_MILLIS, OPT_FLAG, OPT_SPECIAL };
struct option_row {
    const char *name;
    enum option_kind kind;
    size_t at;
    const char *help;
};
#define AT(field) offsetof(struct options, field)
static const struct option_row option_rows[] = {
    { "brokers", OPT_STRING, AT(brokers), "host:port[,host:port]  (127.0.0.1:9092)" },
    { "mode", OPT_SPECIAL, 0, "produce | consume | both | e2e | idle  (produce)" },
    { "topic", OPT_STRING, AT(topic), "(leat-bench)" },
    { "create", OPT_FLAG, AT(create), "delete the topic if it exists, then create it" },
    { "delete-after", OPT_FLAG, AT(delete_after), "delete the topic at the end" },
    { "partitions", OPT_U32, AT(partitions), "for --create  (16)" },
    { "replication", OPT_SPECIAL, 0, "for --create  (1)" },
    { "topic-config", OPT_STRING, AT(topic_config), "for --create: k=v[,k=v]" },
    { "record-bytes", OPT_SPECIAL, 0, "value of one record  (1KiB)" },
    { "batch-bytes", OPT_BYTES, AT(batch_bytes), "one batch, before compression  (64KiB)" },
    { "batch-records", OPT_U32, AT(batch_records), "records a batch instead of its bytes" },
    { "request-batches", OPT_U32, AT(request_batches),
      "batches a request, each for another partition  (1)" },
    { "compression", OPT_SPECIAL, 0, "none | gzip | snappy | lz4 | zstd  (none)" },
    { "fill", OPT_SPECIAL, 0, "text | random | zero: what values are made of  (text)" },
    { "payload", OPT_STRING, AT(payload),
      "a file whose lines are the records (with --record-bytes: pieces of that size)" },
    { "acks", OPT_SPECIAL, 0, "0 | 1 | all  (all)" },
    { "idempotent", OPT_FLAG, AT(idempotent), "with producer ids and sequence numbers" },
    { "connections", OPT_U32, AT(connections), "producers' connections, all together  (4)" },
    { "inflight", OPT_U32, AT(inflight), "requests in flight a connection  (5)" },
    { "threads", OPT_U32, AT(threads), "(1)" },
    { "rate", OPT_SPECIAL, 0,
      "open loop: 50000 (records/s), 100MiB (bytes/s) or 2000req (requests/s), all together;\n"
      "                        latency counts from the intended send time. Without it: closed "
      "loop" },
    { "consumers", OPT_U32, AT(consumers), "consumers' connections, all together  (2)" },
    { "fetch-min-bytes", OPT_BYTES, AT(fetch_min_bytes), "(1)" },
    { "fetch-max-bytes", OPT_BYTES, AT(fetch_max_bytes), "(50MiB)" },
    { "fetch-partition-bytes", OPT_BYTES, AT(fetch_partition_bytes), "(1MiB)" },
    { "fetch-max-wait", OPT_MILLIS, AT(fetch_max_wait_ms), "milliseconds  (500)" },
    { "from", OPT_SPECIAL, 0, "earliest | latest  (consume: earliest, else latest)" },
    { "loop", OPT_FLAG, AT(loop), "consume: begin again at the end" },
    { "verify", OPT_FLAG, AT(verify), "check the CRC of each batch read (costs CPU)" },
    { "idle-connections", OPT_U32, AT(idle_connections), "opened before all else and held" },
    { "duration", OPT_SECONDS, AT(duration_s), "seconds measured  (10)" },
    { "warmup", OPT_SECONDS, AT(warmup_s), "seconds before that  (2)" },
    { "pid", OPT_SPECIAL, 0, "the broker's process: its CPU and memory are reported" },
    { "timeout", OPT_MILLIS, AT(timeout_ms), "milliseconds until a request is given up  (30000)" },
    { "json", OPT_FLAG, AT(json), "the result as one JSON object on stdout" },
    { "quiet", OPT_FLAG, AT(quiet), "no line each second on stderr" },
    { "help", OPT_SPECIAL, 0, "this text" },
    { "version", OPT_SPECIAL, 0, "the version" },
};

_Noreturn static void options_help(void)
{
    printf("leat-bench: a load generator for Kafka-compatible brokers\n\n");
    for (u32 i = 0; i < ARRAY_COUNT(option_rows); i++)
        printf("  --%-20s  %s\n", option_rows[i].name, option_rows[i].help);
    printf(
        "\nSizes take KiB, MiB, GiB (or k, m, g), kB, MB, GB. Exit status: 0, 2 wrong use or no\n"
        "broker, 3 when a batch failed for good, offsets had gaps, or a CRC was wrong.\n");
    exit(0);
}
_Noreturn static void options_wrong(const char *name, const char *value)
{
    fprintf(stderr, "leat-bench: --%s: cannot understand \"%s\"; see --help\n", name, value);
    exit(2);
}
/* A number with a unit; *rest points at what follows number and size unit. */
static f64 parse_size(const char *text, const char **rest)
{
    static const struct {
        const char *unit;
        f64 factor;
    } units[] = {
        { "KiB", 1024 },     { "MiB", 1048576 }, { "GiB", 1073741824 }, { "kB", 1e3 },
        { "KB", 1e3 },       { "MB", 1e6 },      { "GB", 1e9 },         { "k", 1024 },
        { "K", 1024 },       { "m", 1048576 },   { "M", 1048576 },      { "g", 1073741824 },
        { "G", 1073741824 },
    };
    char *end;
    f64 v = strtod(text, &end);
    *rest = end == text ? NULL : end;
    for (u32 i = 0; *rest && i < ARRAY_COUNT(units); i++) {
        size_t n = strlen(units[i].unit);
        if (strncmp(end, units[i].unit, n) == 0) {
            *rest = end + n;
            return v * units[i].factor;
        }
    }
    return v;
}
static f64 parse_number(const char *name, const char *text, f64 max)
{
    const char *rest;
    f64 v = parse_size(text, &rest);
    if (!rest || *rest || v < 0 || v > max)
        options_wrong(name, text);
    return v;
}
static u32 parse_choice(const char *name, const char *text, const char *const *list, u32 n)
{
    for (u32 i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return i;
    options_wrong(name, text);
}
static void parse_rate(struct options *o, const char *text)
{
    const char *rest;
    char *end;
    o->rate = strtod(text, &end);
    o->rate_unit = RATE_RECORDS;
    if (strcmp(end, "req") == 0) {
        o->rate_unit = RATE_REQUESTS;
    } else if (*end) {
        o->rate = parse_size(text, &rest);
        o->rate_unit = RATE_BYTES;
        if (!rest || (*rest && strcmp(rest, "/s") != 0))
            options_wrong("rate", text);
    }
    if (o->rate <= 0)
        options_wrong("rate", text);
}
static void parse_special(struct options *o, const char *name, const char *value)
{
    static const char *const modes[] = { "produce", "consume", "both", "e2e", "idle" };
    static const char *const codecs[] = { "none", "gzip", "snappy", "lz4", "zstd" };
    static const char *const fills[] = { "text", "random", "zero" };
    static const char *const froms[] = { "latest", "earliest" };
    static const char *const acks[] = { "0", "1", "all", "-1" };
    static const i16 acks_value[] = { 0, 1, -1, -1 };
    if (strcmp(name, "help") == 0)
        options_help();
    else if (strcmp(name, "version") == 0)
        exit(puts("leat-bench " LEAT_VERSION) < 0);
    else if (strcmp(name, "mode") == 0)
        o->mode = (enum mode)parse_choice(name, value, modes, 5);
    else if (strcmp(name, "compression") == 0)
        o->compression = (enum compression)parse_choice(name, value, codecs, 5);
    else if (strcmp(name, "fill") == 0)
        o->fill = (enum fill)parse_choice(name, value, fills, 3);
    else if (strcmp(name, "from") == 0)
        o->from_earliest = parse_choice(name, value, froms, 2) == 1;
    else if (strcmp(name, "acks") == 0)
        o->acks = acks_value[parse_choice(name, value, acks, 4)];
    else if (strcmp(name, "replication") == 0)
        o->replication = (i16)parse_number(name, value, 100);
    else if (strcmp(name, "pid") == 0)
        o->pid = (i32)parse_number(name, value, INT32_MAX);
    else if (strcmp(name, "record-bytes") == 0) {
        o->record_bytes = (u32)parse_number(name, value, 64.0 * MIB);
        o->record_bytes_given = true;
    } else if (strcmp(name, "rate") == 0)
        parse_rate(o, value);
}
static void option_set(struct options *o, const struct option_row *row, const char *value)
{
    char *at = (char *)o + row->at;
    u32 number = 0;
    switch (row->kind) {
    case OPT_STRING:
        memcpy(at, &value, sizeof value);
        break;
    case OPT_U32:
    case OPT_BYTES:
    case OPT_MILLIS:
        number = (u32)parse_number(row->name, value, 1.0 * INT32_MAX);
        memcpy(at, &number, sizeof number);
        break;
    case OPT_SECONDS: {
        f64 seconds = parse_number(row->name, value, 1e9);
        memcpy(at, &seconds, sizeof seconds);
        break;
    }
    case OPT_FLAG:
        *(bool *)(void *)at = true;
        break;
    case OPT_SPECIAL:
        parse_special(o, row->name, value);
        break;
    }
}
static void options_check(struct options *o)
{
    if (o->connections == 0 || o->inflight == 0 || o->threads == 0 || o->consumers == 0 ||
        o->partitions == 0 || o->request_batches == 0 || o->duration_s <= 0) {
        fprintf(stderr, "leat-bench: counts and the duration must be above 0\n");
        exit(2);
    }
    if (o->request_batches > 64 || o->threads > 256) {
        fprintf(stderr, "leat-bench: at most 64 batches a request and 256 threads\n");
        exit(2);
    }
    if (o->idempotent) {
        o->acks = -1;
        o->inflight = MIN(o->inflight, 5u); /* what brokers remember per producer */
    }
    if (o->batch_bytes > 256 * MIB) {
        fprintf(stderr, "leat-bench: --batch-bytes is at most 256MiB\n");
        exit(2);
    }
}
void options_parse(struct options *o, int argc, char **argv)
{
    struct option longs[ARRAY_COUNT(option_rows) + 1] = { 0 };
    *o = (struct options){
        .brokers = "127.0.0.1:9092",
        .topic = "leat-bench",
        .partitions = 16,
        .replication = 1,
        .record_bytes = 1024,
        .batch_bytes = 64 * 1024,
        .request_batches = 1,
        .acks = -1,
        .connections = 4,
        .inflight = 5,
        .threads = 1,
        .consumers = 2,
        .fetch_min_bytes = 1,
        .fetch_max_bytes = 50 * 1024 * 1024,
        .fetch_partition_bytes = 1024 * 1024,
        .fetch_max_wait_ms = 500,
        .duration_s = 10,
        .warmup_s = 2,
        .timeout_ms = 30000,
    };
    bool from_given = false;
    for (u32 i = 0; i < ARRAY_COUNT(option_rows); i++) {
        const struct option_row *row = &option_rows[i];
        bool bare = row->kind == OPT_FLAG || strcmp(row->name, "help") == 0 ||
                    strcmp(row->name, "version") == 0;
        longs[i] = (struct option){ row->name, bare ? no_argument : required_argument, NULL, 0 };
    }
    int index, c;
    while ((c = getopt_long(argc, argv, "h", longs, &index)) != -1) {
        if (c == 'h')
            options_help();
        if (c != 0)
            exit(2);
        from_given |= strcmp(option_rows[index].name, "from") == 0;
        option_set(o, &option_rows[index], optarg);
    }
    if (optind < argc) {
        fprintf(stderr, "leat-bench: what is \"%s\"? See --help\n", argv[optind]);
        exit(2);
    }
    if (!from_given)
        o->from_earliest = o->mode == MODE_CONSUME;
    options_check(o);
}
