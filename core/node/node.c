/* Start-up and shutdown of a node; see node.h. */
#include "node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../broker/broker_int.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "plant.h"

#define CLUSTER_KEY "cluster"
#define CLUSTER_VERSION 1

/* One CPU in this many is left to uploads, merging, reads for catch-up and interrupts, and at least
 * one where there are two: docs/decisions/0013-shards.md. */
#define CPUS_PER_SPARE 4u

u32 node_shards_for(u32 cpus)
{
    u32 spare = cpus > 1 ? MAX(cpus / CPUS_PER_SPARE, 1) : 0;
    return MIN(MAX(cpus, 1) - spare, SHARDS_MAX);
}

u32 node_shard_count(const struct config *cfg)
{
    u32 wanted = (u32)config_u64(cfg, CFG_core_shards);
    cpu_set_t set;
    if (wanted == 0 && sched_getaffinity(0, sizeof set, &set) == 0)
        wanted = node_shards_for((u32)CPU_COUNT(&set));
    return MIN(MAX(wanted, 1), SHARDS_MAX);
}

/* ---- the address clients are told ---- */

/* "host:port", "[v6]:port" or "*:port". */
static bool listen_parse(const char *text, char *host, size_t host_size, u16 *port)
{
    const char *colon = strrchr(text, ':');
    if (!colon)
        return false;
    const char *from = text;
    size_t len = (size_t)(colon - text);
    if (len >= 2 && from[0] == '[' && from[len - 1] == ']') {
        from++;
        len -= 2;
    }
    int n = 0, p = 0;
    if (len >= host_size || sscanf(colon + 1, "%d%n", &p, &n) != 1 || colon[1 + n] || p < 0 ||
        p > 65535)
        return false;
    memcpy(host, from, len);
    host[len] = 0;
    *port = (u16)p;
    return true;
}

static err node_address(struct node *n, char *why, size_t why_size)
{
    char host[256];
    u16 port;
    const char *listen_on = config_str(n->cfg, CFG_net_listen);
    if (!listen_parse(listen_on, host, sizeof host, &port)) {
        snprintf(why, why_size, "net.listen = %s is not host:port", listen_on);
        return ERR_INVALID_CONFIG;
    }
    const char *told = config_str(n->cfg, CFG_net_advertised_host);
    bool any =
        strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || !*host;
    if (*told)
        snprintf(n->host, sizeof n->host, "%s", told);
    else if (!any)
        snprintf(n->host, sizeof n->host, "%s", host);
    else if (gethostname(n->host, sizeof n->host - 1) != 0)
        snprintf(n->host, sizeof n->host, "localhost");
    for (u32 i = 0; i < n->group.count; i++)
        n->ports[i] = n->advertise_shards ? (u16)(port + i) : port;
    return ERR_NONE;
}

/* ---- metadata ---- */

/* Kafka's form of an id: 22 characters of URL-safe base64. */
static void uuid_base64(const struct uuid *id, char out[23])
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    u32 bits = 0, have = 0, n = 0;
    for (u32 i = 0; i < 16; i++) {
        bits = bits << 8 | id->b[i];
        for (have += 8; have >= 6; have -= 6)
            out[n++] = set[bits >> (have - 6) & 63];
    }
    out[n++] = set[bits << (6 - have) & 63];
    out[n] = 0;
}

/* Value: u8 version, 16 bytes cluster id. Made at the first start. */
static err cluster_load(struct node *n, struct rng *rng)
{
    struct arena a;
    arena_init(&a, 4096, 65536);
    struct meta_kv kv;
    u8 value[17] = { CLUSTER_VERSION };
    err e = meta_get(n->env.meta, bytes_str(CLUSTER_KEY), &a, &kv);
    if (e == ERR_NONE && (kv.value.len != sizeof value || kv.value.data[0] != CLUSTER_VERSION))
        e = ERR_CORRUPT;
    if (e == ERR_NONE)
        memcpy(value, kv.value.data, sizeof value);
    if (e == ERR_NOT_FOUND) {
        struct uuid id = rng_uuid(rng);
        memcpy(value + 1, id.b, 16);
        struct meta_op op = { META_PUT, bytes_str(CLUSTER_KEY), bytes_of(value, sizeof value) };
        struct meta_txn t = { .ops = &op, .op_count = 1 };
        e = meta_commit(n->env.meta, &t);
    }
    arena_free(&a);
    struct uuid id;
    memcpy(id.b, value + 1, 16);
    uuid_base64(&id, n->cluster_id);
    return e;
}

static err topic_loaded(void *arg, const struct meta_kv *kv)
{
    struct node *n = arg;
    struct bytes name = bytes_of(kv->key.data + 2, kv->key.len - 2);
    struct topic *t = topic_decode(n->cfg, name, kv->value);
    if (!t)
        return ERR_CORRUPT;
    if (n->topic_count == n->topic_cap) {
        n->topic_cap = MAX(64, 2 * n->topic_cap);
        n->topics = mem_realloc(n->topics, n->topic_cap * sizeof *n->topics);
    }
    n->topics[n->topic_count++] = t;
    return ERR_NONE;
}

/* ---- open ---- */

static err data_dir_failed(const char *dir, const char *what, int e, char *why, size_t why_size)
{
    const char *remedy = "check the path and the disk";
    if (e == EACCES || e == EPERM)
        remedy = "let the user that runs leat write there";
    else if (e == ENOENT)
        remedy = "make the directories above it";
    else if (e == ENOSPC || e == EDQUOT)
        remedy = "free some space there";
    snprintf(why, why_size,
             "node.data_dir: can't %s %s: %s; %s, or choose another (-w node.data_dir=DIR)", what,
             dir, strerror(e), remedy);
    return err_from_errno(e);
}

/* One process per data directory. */
static err data_dir_lock(struct node *n, char *why, size_t why_size)
{
    const char *dir = config_str(n->cfg, CFG_node_data_dir);
    char path[4096];
    if (mkdir(dir, 0750) != 0 && errno != EEXIST)
        return data_dir_failed(dir, "make", errno, why, why_size);
    snprintf(path, sizeof path, "%s/LOCK", dir);
    n->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (n->lock_fd < 0)
        return data_dir_failed(dir, "write in", errno, why, why_size);
    if (flock(n->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return ERR_NONE;
    if (errno != EWOULDBLOCK)
        return data_dir_failed(dir, "lock", errno, why, why_size);
    snprintf(why, why_size,
             "node.data_dir = %s is in use by another leat: stop that one, or give this node a "
             "directory of its own (-w node.data_dir=DIR)",
             dir);
    return ERR_BUSY;
}

static err node_open_stores(struct node *n, char *why, size_t why_size)
{
    err e = meta_open(config_str(n->cfg, CFG_meta_url), &n->env.meta, why, why_size);
    if (e == ERR_NONE)
        e = store_open(config_str(n->cfg, CFG_store_url), n->cfg, &n->env.store, why, why_size);
    if (e == ERR_NONE && config_bool(n->cfg, CFG_store_readonly))
        n->env.store = store_readonly(n->env.store);
    return e;
}

/* Half of somebody's metadata is worse than none. */
static err no_recovery_unfinished(struct node *n, char *why, size_t why_size)
{
    struct arena a;
    struct meta_kv kv;
    arena_init(&a, 1024, 65536);
    err e = meta_get(n->env.meta, bytes_str(RECOVERY_KEY), &a, &kv);
    arena_free(&a);
    if (e == ERR_NOT_FOUND)
        return ERR_NONE;
    snprintf(why, why_size,
             "a recovery into %s was begun and not finished: repeat it (leat --recover-from %s)",
             config_str(n->cfg, CFG_node_data_dir), config_str(n->cfg, CFG_store_url));
    return e == ERR_NONE ? ERR_CONFLICT : e;
}

static err node_open_backup(struct node *n, char *why, size_t why_size)
{
    struct rng rng;
    err e = no_recovery_unfinished(n, why, why_size);
    if (e != ERR_NONE || config_bool(n->cfg, CFG_store_readonly))
        return e;
    rng_init(&rng, n->seed + SHARDS_MAX + 1);
    e = backup_open(n->env.meta, n->env.store, n->cfg, &rng, &n->env.backup, why, why_size);
    if (e == ERR_NONE)
        n->env.meta = backup_meta(n->env.backup);
    return e;
}

static int topic_by_id(const void *a, const void *b)
{
    const struct topic *const *x = a, *const *y = b;
    return memcmp((*x)->id.b, (*y)->id.b, sizeof(*x)->id.b);
}

struct topics_sorted {
    struct topic **v; /* ascending by id */
    u32 count;
};

static bool partition_exists(void *arg, const struct partition_key *key)
{
    const struct topics_sorted *s = arg;
    struct topic wanted = { .id = key->topic_id };
    const struct topic *w = &wanted;
    struct topic **t = bsearch(&w, s->v, s->count, sizeof *s->v, topic_by_id);
    return t && key->partition < (u32)(*t)->partition_count;
}

/* Two topics with one id would share their partitions. */
static bool ids_differ(const struct topics_sorted *s)
{
    for (u32 i = 1; i < s->count; i++)
        if (uuid_eq(s->v[i - 1]->id, s->v[i]->id))
            return false;
    return true;
}

static err node_prepare_storage(struct node *n)
{
    struct topics_sorted s = { mem_alloc((n->topic_count + 1) * sizeof *s.v), n->topic_count };
    if (s.count > 0) {
        memcpy(s.v, n->topics, s.count * sizeof *s.v);
        qsort(s.v, s.count, sizeof *s.v, topic_by_id);
    }
    if (!ids_differ(&s) && !PLANTED(PLANT_TOPIC_IDS)) {
        mem_free(s.v);
        snprintf(n->env.error, sizeof n->env.error,
                 "the metadata at %s gives two topics the same id: restore it from a backup",
                 config_str(n->cfg, CFG_meta_url));
        return ERR_CORRUPT;
    }
    n->env.exists = partition_exists;
    n->env.exists_arg = &s;
    err e = storage_prepare(&n->env);
    n->env.exists = NULL;
    n->env.exists_arg = NULL;
    mem_free(s.v);
    return e;
}

static err node_load(struct node *n, char *why, size_t why_size)
{
    struct rng rng;
    rng_init(&rng, n->seed);
    err e = cluster_load(n, &rng);
    if (e == ERR_NONE)
        e = broker_configs_load(n);
    if (e == ERR_NONE)
        e = meta_range(n->env.meta, bytes_str("t/"), topic_loaded, n);
    if (e != ERR_NONE) {
        snprintf(why, why_size, "the metadata at %s can't be %s: %s; %s",
                 config_str(n->cfg, CFG_meta_url), e == ERR_DISK_FULL ? "written" : "read",
                 err_text(e),
                 e == ERR_DISK_FULL ? "free some space on that file system"
                 : e == ERR_CORRUPT ? "restore it from a backup"
                                    : "check the disk (kernel log)");
        return e;
    }
    n->env.cfg = n->cfg;
    n->env.ops = &partition_storage_ops;
    n->env.replay_ops = &partition_replay_ops;
    n->env.shard_count = n->group.count;
    n->env.all_object = true;
    for (u32 i = 0; i < n->topic_count; i++)
        n->env.all_object &= n->topics[i]->config.durability == DURABILITY_OBJECT;
    e = node_prepare_storage(n);
    if (e != ERR_NONE)
        snprintf(why, why_size, "%s", n->env.error);
    return e;
}

static void node_make_brokers(struct node *n)
{
    for (u32 i = 0; i < n->group.count; i++) {
        struct broker *b = MEM_NEW(struct broker);
        MAGIC_INIT(b, BROKER_MAGIC);
        b->node = n;
        n->brokers[i] = b;
        n->group.shards[i] = &b->shard;
        shard_init(&b->shard, &n->group, i, n->cfg, metrics_create(), n->seed + i + 1);
        list_init(&b->stalled);
        list_init(&b->awaited);
        list_init(&b->producers);
        list_init(&b->room.link);
        if (i == CONTROLLER_SHARD)
            controller_start(b);
    }
}

err node_open(struct config *cfg, u32 shards, struct node **out, char *why, size_t why_size)
{
    *out = NULL;
    struct node *n = MEM_NEW(struct node);
    n->cfg = cfg;
    n->id = (i32)config_i64(cfg, CFG_node_id);
    n->seed = rng_seed_os();
    n->group.count = shards;
    n->advertise_shards = config_i64(cfg, CFG_net_advertise) == 1;
    n->lock_fd = -1;
    err e = node_address(n, why, why_size);
    if (e == ERR_NONE)
        e = data_dir_lock(n, why, why_size);
    if (e == ERR_NONE)
        e = node_open_stores(n, why, why_size);
    if (e == ERR_NONE)
        e = node_open_backup(n, why, why_size);
    if (e == ERR_NONE)
        e = node_load(n, why, why_size);
    if (e != ERR_NONE) {
        node_close(n);
        return e;
    }
    node_make_brokers(n);
    topic_defaults_open(n);
    n->group.bg = bg_create(&n->group, cfg);
    *out = n;
    return ERR_NONE;
}

void node_close(struct node *n)
{
    /* First: it sends the last changes, and closes the metadata behind it. */
    if (n->env.backup) {
        backup_close(n->env.backup);
        n->env.meta = NULL;
    }
    if (n->group.bg)
        bg_destroy(n->group.bg);
    topic_defaults_free(n);
    for (u32 i = 0; i < n->group.count && n->brokers[i]; i++) {
        struct broker *b = n->brokers[i];
        if (b->controller)
            controller_free(b);
        struct metrics *m = b->shard.metrics;
        shard_free(&b->shard);
        metrics_destroy(m);
        mem_free(b);
    }
    for (u32 i = 0; i < n->topic_count; i++)
        topic_free(n->topics[i]);
    mem_free(n->topics);
    if (n->env.store)
        n->env.store->driver->close(n->env.store);
    if (n->env.meta)
        meta_close(n->env.meta);
    if (n->lock_fd >= 0)
        close(n->lock_fd);
    mem_free(n);
}

/* ---- recovery from the store ---- */

static bool log_is_there(const struct config *cfg)
{
    bool found = false;
    DIR *d = opendir(config_str(cfg, CFG_wal_path));
    for (struct dirent *e = d ? readdir(d) : NULL; e && !found; e = readdir(d)) {
        const char *dot = strrchr(e->d_name, '.');
        found = dot && strcmp(dot, ".wal") == 0;
    }
    if (d)
        closedir(d);
    return found;
}

struct recovered_topics {
    struct node *n;
    struct topics_sorted sorted;
    bool loaded;
};

/* Topics are read when the first question comes: they are back in the metadata then. */
static bool recovered_exists(void *arg, const struct partition_key *k)
{
    struct recovered_topics *t = arg;
    struct node *n = t->n;
    if (!t->loaded) {
        t->loaded = true;
        if (meta_range(n->env.meta, bytes_str("t/"), topic_loaded, n) != ERR_NONE)
            return false;
        t->sorted = (struct topics_sorted){ n->topics, n->topic_count };
        if (n->topic_count > 0)
            qsort(n->topics, n->topic_count, sizeof *n->topics, topic_by_id);
    }
    return t->sorted.count > 0 && partition_exists(&t->sorted, k);
}

static err node_recover_open(struct node *n, struct recovery *r, char *why, size_t why_size)
{
    struct rng rng;
    struct recovered_topics t = { .n = n };
    rng_init(&rng, rng_seed_os());
    r->cfg = n->cfg;
    r->url = config_str(n->cfg, CFG_store_url);
    r->meta = n->env.meta;
    r->store = n->env.store;
    r->rng = &rng;
    r->log_there = log_is_there(n->cfg);
    r->ops = &partition_replay_ops;
    r->exists = recovered_exists;
    r->exists_arg = &t;
    err e = recovery_run(r, why, why_size);
    r->rng = NULL;
    r->exists_arg = NULL;
    n->env.meta = r->meta;
    return e;
}

err node_recover(struct config *cfg, struct recovery *r, char *why, size_t why_size)
{
    struct node *n = MEM_NEW(struct node);
    n->cfg = cfg;
    n->lock_fd = -1;
    err e = data_dir_lock(n, why, why_size);
    if (e == ERR_NONE)
        e = node_open_stores(n, why, why_size);
    if (e == ERR_NONE)
        e = node_recover_open(n, r, why, why_size);
    node_close(n);
    return e;
}

const char *node_start_error(const struct node *n)
{
    for (u32 i = 0; i < n->group.count; i++)
        if (n->brokers[i]->env.error[0])
            return n->brokers[i]->env.error;
    return NULL;
}

void node_describe(const struct node *n, char *buf, size_t size)
{
    snprintf(
        buf, size,
        "node.id=%d cluster.id=%s shards=%u io=%s advertise=%s host=%s port=%u store=%s meta=%s",
        n->id, n->cluster_id, n->group.count, config_str(n->cfg, CFG_core_io),
        n->advertise_shards ? "shard" : "node", n->host, n->ports[0],
        config_str(n->cfg, CFG_store_url), config_str(n->cfg, CFG_meta_url));
}

/* ---- one shard's broker ---- */

static void housekeeping(struct timer *t)
{
    struct broker *b = container_of(t, struct broker, housekeeping);
    if (!config_bool(b->node->cfg, CFG_store_readonly))
        retention_run(b);
    u64 ms = config_u64(b->node->cfg, CFG_log_retention_check_interval_ms);
    timer_start(&b->shard.timers, t, b->shard.now_ns + ms * NS_PER_MS, housekeeping);
}

/* Does this shard send the metadata to the store? */
static bool keeps_backup(const struct broker *b)
{
    return b->controller && b->node->env.backup;
}

err broker_start(struct shard *s)
{
    struct broker *b = broker_of(s);
    struct node *n = b->node;
    s->now_ns = clock_mono_ns();
    s->now_ms = clock_wall_ms();
    b->compressor = compressor_new();
    fetch_sessions_create(b);
    for (u32 i = 0; i < n->topic_count; i++)
        catalog_add_entry(b, n->topics[i]);
    /* Each shard has its own copy of the environment: the error text is written by it. */
    b->env = n->env;
    err e = storage_start(s, &b->env, partition_known, &b->storage);
    if (e != ERR_NONE) {
        snprintf(s->start_error, sizeof s->start_error, "%s", b->env.error);
        return e;
    }
    char status[512];
    storage_status(b->storage, status, sizeof status);
    LOG(INFO, storage_ready, "shard=%u %s", s->index, status);
    coordinator_start(b);
    catalog_open_partitions(b);
    e = net_start(s, &broker_net_handler, &b->net, s->start_error, sizeof s->start_error);
    if (e != ERR_NONE)
        return e;
    timer_start(&s->timers, &b->housekeeping, s->now_ns + NS_PER_S, housekeeping);
    if (!config_bool(n->cfg, CFG_store_readonly))
        cleaner_start(b);
    if (keeps_backup(b))
        backup_start(n->env.backup, s);
    __atomic_store_n(&b->serving, true, __ATOMIC_RELEASE);
    return ERR_NONE;
}

/* The topics as they are now, for node_close: the shards only point at them. */
static void node_take_topics(struct broker *b)
{
    struct node *n = b->node;
    struct topic_entry *e, *next;
    n->topic_count = 0;
    n->topic_cap = HASH_CNT(hh_name, b->topics_by_name) + 1;
    n->topics = mem_realloc(n->topics, n->topic_cap * sizeof *n->topics);
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        n->topics[n->topic_count++] = (struct topic *)(uintptr_t)e->topic;
}

static void broker_free(struct broker *b)
{
    if (b->controller)
        node_take_topics(b);
    timer_stop(&b->shard.timers, &b->housekeeping);
    timer_stop(&b->shard.timers, &b->stalled_timer);
    net_free(b->net);
    coordinator_free(b);
    cleaner_free(b);
    catalog_free(b);
    storage_free(b->storage);
    fetch_sessions_free(b);
    compressor_free(b->compressor);
    b->storage = NULL;
    b->net = NULL;
}

#define STOP_ANSWERS_NS (15 * NS_PER_S) /* net closes connections unanswered a little before */

/* Is a shard still answering? Its requests may need the partitions of all others. */
static bool node_serving(const struct node *n)
{
    for (u32 i = 0; i < n->group.count; i++)
        if (__atomic_load_n(&n->brokers[i]->serving, __ATOMIC_ACQUIRE))
            return true;
    return false;
}

/* Sockets first, on all shards (what is in flight is answered), then the log. The controller's last
 * task may still be talking to all shards. A request may wait for the object store or for room in
 * the log, and have no deadline of its own: after a while the log stops all the same, which ends
 * such waits. */
bool broker_drained(struct shard *s)
{
    struct broker *b = broker_of(s);
    if (b->stop_step == STOP_NET) {
        net_stop(b->net);
        b->stop_late_ns = s->now_ns + STOP_ANSWERS_NS;
        b->stop_step = STOP_NET_WAIT;
    }
    if (b->serving && net_stopped(b->net) && !controller_busy(b))
        __atomic_store_n(&b->serving, false, __ATOMIC_RELEASE);
    if (b->stop_step == STOP_NET_WAIT && (!node_serving(b->node) || s->now_ns >= b->stop_late_ns)) {
        storage_stop(b->storage);
        if (keeps_backup(b))
            backup_stop(b->node->env.backup);
        b->stop_step = STOP_STORAGE_WAIT;
    }
    if (b->stop_step == STOP_STORAGE_WAIT && !node_serving(b->node) &&
        storage_stopped(b->storage) && (!keeps_backup(b) || backup_stopped(b->node->env.backup))) {
        broker_free(b);
        b->stop_step = STOP_DONE;
    }
    return b->stop_step == STOP_DONE;
}
