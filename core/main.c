/* leat: runs one node in the foreground. Wiring only: configuration → node → threads → signals.
 *
 * SIGTERM and SIGINT stop cleanly (a second one ends at once); SIGHUP reads the files again: what
 * changed in them takes effect, live changes of other keys stay.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "log.h"
#include "mem.h"
#include "node.h"
#include "node_admin.h"
#include "version.h"

#define DEFAULT_CONF "/etc/leat/leat.conf"
#define DEFAULT_CONF_DIR "/etc/leat/conf.d"
#define PAIRS_MAX 256
#define PORT_WAIT_TRIES 100
#define PORT_WAIT_MS 20

struct options {
    const char *file;
    const char *recover_from; /* URL; NULL: no recovery */
    bool force;
    const char *pairs[PAIRS_MAX];
    u32 pair_count;
};

static void print_help(void)
{
    printf("leat %s - a streaming broker that speaks the Kafka protocol\n\n"
           "Usage: leat [-c FILE] [-w KEY=VALUE]...\n\n"
           "  -c, --config FILE             read this file (default " DEFAULT_CONF " and\n"
           "                                " DEFAULT_CONF_DIR "/*.conf, when they are there)\n"
           "  -w KEY=VALUE                  set a key; wins over the files\n"
           "      --recover-from URL        rebuild an empty node.data_dir from an object store\n"
           "                                (docs/recovery.md), say what came back, exit\n"
           "      --force                   with it: although a node seems to use the store, or\n"
           "                                objects are missing there\n"
           "      --check-config            read the configuration, say whether it is good, exit\n"
           "      --print-config-reference  the reference page of all keys (Markdown)\n"
           "  -V, --version                 the version\n"
           "  -h, --help                    this text\n\n"
           "With no configuration it listens on 127.0.0.1:9092 and keeps its data in ./leat-data.\n"
           "SIGTERM and Ctrl-C stop it cleanly, SIGHUP reads the files again. A running node is\n"
           "read and changed with leatctl.\n\n"
           "Exit status: 0 stopped, 1 can't start, 2 wrong usage or configuration, 70 the disk "
           "lied.\n\n"
           "Keys:\n",
           LEAT_VERSION);
    config_print_help(stdout);
}

/* ---- configuration ---- */

static err config_load(struct config *cfg, const struct options *o, char *why, size_t why_size)
{
    err e = ERR_NONE;
    const char *file = o->file ? o->file : access(DEFAULT_CONF, F_OK) == 0 ? DEFAULT_CONF : NULL;
    if (file)
        e = config_load_file(cfg, file, why, why_size);
    if (e == ERR_NONE && !o->file)
        e = config_load_dir(cfg, DEFAULT_CONF_DIR, why, why_size);
    for (u32 i = 0; e == ERR_NONE && i < o->pair_count; i++)
        e = config_set_pair(cfg, o->pairs[i], CONFIG_COMMAND_LINE, why, why_size);
    if (e == ERR_NONE && o->recover_from) {
        char pair[2048];
        snprintf(pair, sizeof pair, "store.url=%s", o->recover_from);
        e = config_set_pair(cfg, pair, CONFIG_COMMAND_LINE, why, why_size);
    }
    if (e == ERR_NONE)
        e = config_validate(cfg, why, why_size);
    if (e == ERR_NONE)
        config_fit_disk(cfg);
    return e;
}

struct reloaded {
    struct config *cfg;
    const struct config *fresh;
    u32 counts[CONFIG_RELOAD_RESTART + 1];
};

static void key_reloaded(void *arg, enum config_key k, enum config_reloaded what)
{
    static const char *const results[] = { "changed", "kept", "needs_restart" };
    struct reloaded *r = arg;
    char now[CONFIG_VALUE_SIZE], file[CONFIG_VALUE_SIZE], quoted[2][200];
    r->counts[what]++;
    LOG(INFO, config_reloaded, "key=%s result=%s value=%s from=\"%s\" files_say=%s",
        config_defs[k].name, results[what],
        log_quote(quoted[0], sizeof quoted[0],
                  bytes_str(config_text(r->cfg, k, true, now, sizeof now))),
        config_source_name(config_source(r->cfg, k)),
        log_quote(quoted[1], sizeof quoted[1],
                  bytes_str(config_text(r->fresh, k, true, file, sizeof file))));
}

/* What changed in the files since they were last read takes effect; see config_reload. */
static void reload(struct config *cfg, const struct options *o)
{
    struct config fresh;
    struct reloaded r = { .cfg = cfg, .fresh = &fresh };
    char why[512], quoted[600];
    config_init(&fresh);
    err e = config_load(&fresh, o, why, sizeof why);
    if (e == ERR_NONE)
        e = config_reload(cfg, &fresh, key_reloaded, &r, why, sizeof why);
    if (e != ERR_NONE)
        LOG(ERROR, config_reload_refused, "why=%s effect=\"nothing changed\"",
            log_quote(quoted, sizeof quoted, bytes_str(why)));
    else
        LOG(INFO, config_reload_done, "changed=%u kept=%u needs_restart=%u",
            r.counts[CONFIG_RELOAD_CHANGED], r.counts[CONFIG_RELOAD_KEPT],
            r.counts[CONFIG_RELOAD_RESTART]);
    config_free(&fresh);
}

/* ---- the process ---- */

static void notify_systemd(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (!path || strlen(path) >= sizeof a.sun_path)
        return;
    memcpy(a.sun_path, path, strlen(path));
    if (a.sun_path[0] == '@')
        a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a, len) < 0)
        LOG(WARN, notify_failed, "errno=%d", errno);
    close(fd);
}

/* As many files as the system lets us: each connection is one. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static void log_started(struct node *n, u64 started_ns)
{
    char text[1024];
    u64 took_ms = (clock_mono_ns() - started_ns) / NS_PER_MS;
    node_describe(n, text, sizeof text);
    LOG(INFO, node_described, "%s", text);
    LOG(INFO, io_features, "%s", io_features(n->brokers[0]->shard.io)->text);
    LOG(INFO, ready,
        "version=" LEAT_VERSION " listen=%s admin=%s took_ms=%" PRIu64
        " try=\"echo hello | kcat -b %s:%u -t test -P; kcat -b %s:%u -t test -C -o beginning -e\"",
        config_str(n->cfg, CFG_net_listen), config_str(n->cfg, CFG_admin_listen), took_ms, n->host,
        n->ports[0], n->host, n->ports[0]);
    log_flush();
    if (isatty(STDOUT_FILENO))
        node_welcome(n, took_ms, stdout);
}

static void wait_for_signals(struct config *cfg, const struct options *o, const sigset_t *set)
{
    for (;;) {
        int sig = 0;
        if (sigwait(set, &sig) != 0)
            continue;
        if (sig != SIGHUP)
            return;
        notify_systemd("RELOADING=1");
        reload(cfg, o);
        notify_systemd("READY=1");
    }
}

/* The kernel takes down the ring of a process that was killed after the process is gone, and its
 * sockets with it: whoever restarts at once (systemd, an operator) waits for that. */
static err port_free(const char *host, u16 port, char *why, size_t why_size)
{
    err e = io_listen_probe(host, port, why, why_size);
    for (u32 tries = 0; e == ERR_EXISTS && tries < PORT_WAIT_TRIES; tries++) {
        poll(NULL, 0, PORT_WAIT_MS);
        e = io_listen_probe(host, port, why, why_size);
    }
    return e;
}

/* Shards listen with SO_REUSEPORT, which would let two nodes share a port by mistake. */
static err ports_free(const struct config *cfg, char *why, size_t why_size)
{
    char host[256];
    u16 port;
    err e = net_listen_address(cfg, host, sizeof host, &port, why, why_size);
    u32 count = config_is(cfg, CFG_net_advertise, "shard") ? node_shard_count(cfg) : 1;
    for (u32 i = 0; e == ERR_NONE && port != 0 && i < count && port + i <= UINT16_MAX; i++)
        e = port_free(host, (u16)(port + i), why, why_size);
    return e;
}

/* ---- recovery ---- */

static void recovery_pause(u64 ns)
{
    poll(NULL, 0, (int)MIN(ns / NS_PER_MS + 1, (u64)INT32_MAX));
}

static void recovery_tell(const struct recovery *r, const struct config *cfg)
{
    char made[32] = "";
    time_t s = (time_t)(r->snapshot_ms / 1000);
    struct tm tm;
    if (r->metadata_kept)
        printf("The metadata was there; the write-ahead log begins anew.\n");
    else if (gmtime_r(&s, &tm) && strftime(made, sizeof made, "%Y-%m-%d %H:%M:%SZ", &tm) > 0)
        printf("Metadata: the snapshot of %s, epoch %u, and %" PRIu64 " change sets after it.\n",
               made, r->epoch, r->change_sets);
    if (r->snapshots_damaged > 0)
        printf("WARNING: %u newer snapshots are damaged and were passed over.\n",
               r->snapshots_damaged);
    if (r->changes_lost > 0)
        printf("WARNING: %" PRIu64 " change sets, from a damaged one on, were left out: topics, "
               "settings and deletions after %s may be missing.\n",
               r->changes_lost, made);
    printf("Objects: %" PRIu64 ", of which %" PRIu64 " (%" PRIu64 " blocks, %" PRIu64
           " MiB) were newer than the metadata.\n",
           r->objects, r->forward_objects, r->forward_blocks, r->forward_bytes / MIB);
    if (r->blocks_beyond > 0)
        printf("Left out: %" PRIu64 " blocks behind a gap; the records before them were never "
               "uploaded.\n",
               r->blocks_beyond);
    if (r->blocks_unknown > 0)
        printf("Left out: %" PRIu64
               " blocks of topics that the metadata does not have (deleted, or "
               "made in the last seconds).\n",
               r->blocks_unknown);
    if (r->objects_missing > 0)
        printf("WARNING: %" PRIu64 " objects are missing; their records are lost (--force).\n",
               r->objects_missing);
    printf("\nNow start it with the same configuration, and store.url = %s%s\n",
           config_str(cfg, CFG_store_url),
           config_bool(cfg, CFG_store_readonly) ? " and store.readonly = true" : "");
}

static int recover(struct config *cfg, const struct options *o)
{
    char why[1024];
    struct recovery r = { .force = o->force, .pause = recovery_pause };
    signal(SIGPIPE, SIG_IGN);
    log_set_level(config_str(cfg, CFG_log_level));
    log_start(STDERR_FILENO);
    err e = node_recover(cfg, &r, why, sizeof why);
    log_stop();
    if (e != ERR_NONE) {
        fprintf(stderr, "leat: %s\n", why);
        return 1;
    }
    recovery_tell(&r, cfg);
    return 0;
}

static int run(struct config *cfg, const struct options *o)
{
    char why[1024];
    u64 started_ns = clock_mono_ns();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* every thread inherits it; main waits for them */
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    log_set_level(config_str(cfg, CFG_log_level));
    mem_limit_arenas(node_shard_count(cfg) + 1);
    log_start(STDERR_FILENO);
    struct node *n;
    if (ports_free(cfg, why, sizeof why) != ERR_NONE ||
        node_open(cfg, node_shard_count(cfg), &n, why, sizeof why) != ERR_NONE) {
        log_stop();
        fprintf(stderr, "leat: %s\n", why);
        return 1;
    }
    struct node_admin *admin;
    if (node_admin_start(n, &admin, why, sizeof why) != ERR_NONE ||
        shard_threads_start(&n->group, broker_start, broker_drained, why, sizeof why) != ERR_NONE) {
        log_stop();
        fprintf(stderr, "leat: %s\n", node_start_error(n) ? node_start_error(n) : why);
        return 1;
    }
    node_admin_ready(admin);
    log_started(n, started_ns);
    notify_systemd("READY=1");
    wait_for_signals(cfg, o, &set);
    LOG(INFO, stopping, "remedy=\"a second signal ends at once\"");
    node_admin_stopping(admin);
    notify_systemd("STOPPING=1");
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    shard_threads_stop(&n->group);
    shard_threads_join(&n->group);
    node_admin_stop(admin);
    node_close(n);
    LOG(INFO, stopped, "ran_s=%" PRIu64, (clock_mono_ns() - started_ns) / NS_PER_S);
    log_stop();
    return 0;
}

int main(int argc, char **argv)
{
    enum { OPT_REFERENCE = 1000, OPT_CHECK, OPT_RECOVER, OPT_FORCE };
    static const struct option longs[] = {
        { "config", required_argument, NULL, 'c' },
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { "print-config-reference", no_argument, NULL, OPT_REFERENCE },
        { "recover-from", required_argument, NULL, OPT_RECOVER },
        { "force", no_argument, NULL, OPT_FORCE },
        { "check-config", no_argument, NULL, OPT_CHECK },
        { NULL, 0, NULL, 0 },
    };
    struct options o = { .file = NULL };
    bool check_only = false;
    int opt;
    while ((opt = getopt_long(argc, argv, "c:w:Vh", longs, NULL)) != -1) {
        if (opt == 'c') {
            o.file = optarg;
        } else if (opt == 'w' && o.pair_count < PAIRS_MAX) {
            o.pairs[o.pair_count++] = optarg;
        } else if (opt == 'V') {
            puts("leat " LEAT_VERSION);
            return 0;
        } else if (opt == 'h') {
            print_help();
            return 0;
        } else if (opt == OPT_REFERENCE) {
            config_print_reference(stdout);
            kept_configs_print_reference(stdout);
            return 0;
        } else if (opt == OPT_CHECK) {
            check_only = true;
        } else if (opt == OPT_RECOVER) {
            o.recover_from = optarg;
        } else if (opt == OPT_FORCE) {
            o.force = true;
        } else {
            fprintf(stderr, "Try: leat --help\n");
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "leat: unexpected argument '%s'; keys are set with -w KEY=VALUE\n",
                argv[optind]);
        return 2;
    }
    if (o.force && !o.recover_from) {
        fprintf(stderr, "leat: --force goes with --recover-from only\n");
        return 2;
    }
    static struct config cfg;
    char why[512];
    config_init(&cfg);
    if (config_load(&cfg, &o, why, sizeof why) != ERR_NONE) {
        fprintf(stderr, "leat: %s\n", why);
        return 2;
    }
    int status = check_only       ? (puts("configuration is good"), 0)
                 : o.recover_from ? recover(&cfg, &o)
                                  : run(&cfg, &o);
    config_free(&cfg);
    return status;
}
