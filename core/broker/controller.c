/* The controller: the one writer of the catalog, on shard 0.
 *
 * A change goes: task (one at a time) → metadata transaction on a background thread → published
 * to every shard by message → acknowledged by all → the old topic's memory is freed → done. A crash
 * in between loses nothing: what is in the metadata store is loaded at start.
 *
 * Metadata value of t/<name>, little-endian: u8 version 1, 16 bytes id, u32 partitions, u8
 * internal, i64 created (ms), then the config overrides as topic_config serialises them.
 */
#include "broker_int.h"
#include "check.h"
#include "clock.h"
#include "controller_int.h"
#include "log.h"

enum { TOPIC_VALUE_VERSION = 1, TOPIC_VALUE_HEAD_BYTES = 30 };

/* ---- topics as objects ---- */

static struct topic *topic_new(struct bytes name)
{
    struct topic *t = MEM_NEW(struct topic);
    t->name = (struct bytes){ (u8 *)mem_strndup(name), name.len };
    return t;
}

struct topic *topic_make(struct broker *b, struct bytes name, i32 partitions)
{
    struct topic *t = topic_new(name);
    t->id = rng_uuid(&b->shard.rng);
    t->partition_count = partitions;
    t->internal = bytes_eq_str(name, OFFSETS_TOPIC);
    t->created_ms = clock_wall_ms();
    topic_config_init(&t->config, b->node->cfg);
    return t;
}

struct topic *topic_copy(const struct topic *t)
{
    struct topic *n = topic_new(t->name);
    struct bytes name = n->name;
    *n = *t;
    n->name = name;
    topic_config_copy(&n->config, &t->config);
    return n;
}

void topic_free(struct topic *t)
{
    if (!t)
        return;
    topic_config_free(&t->config);
    mem_free((void *)(uintptr_t)t->name.data);
    mem_free(t);
}

static u32 topic_value_bytes(const struct topic *t)
{
    return TOPIC_VALUE_HEAD_BYTES + (u32)topic_config_size(&t->config);
}

/* Writes exactly topic_value_bytes. */
static void topic_encode(const struct topic *t, u8 *out)
{
    out[0] = TOPIC_VALUE_VERSION;
    memcpy(out + 1, t->id.b, 16);
    put_le32(out + 17, (u32)t->partition_count);
    out[21] = t->internal;
    put_le64(out + 22, (u64)t->created_ms);
    topic_config_write(&t->config, out + TOPIC_VALUE_HEAD_BYTES);
}

struct topic *topic_decode(const struct config *cfg, struct bytes name, struct bytes value)
{
    if (value.len < TOPIC_VALUE_HEAD_BYTES || value.data[0] != TOPIC_VALUE_VERSION ||
        !topic_name_valid(name))
        return NULL;
    struct topic *t = topic_new(name);
    memcpy(t->id.b, value.data + 1, 16);
    t->partition_count = (i32)get_le32(value.data + 17);
    t->internal = value.data[21] != 0;
    t->created_ms = (i64)get_le64(value.data + 22);
    struct bytes rest =
        bytes_of(value.data + TOPIC_VALUE_HEAD_BYTES, value.len - TOPIC_VALUE_HEAD_BYTES);
    if (topic_config_read(&t->config, cfg, rest) != ERR_NONE || t->partition_count < 1 ||
        t->partition_count > TOPIC_PARTITIONS_MAX) {
        topic_free(t);
        return NULL;
    }
    return t;
}

/* ---- tasks ---- */

void controller_enter(struct broker *b, struct controller_task *t,
                      void (*run)(struct controller_task *t))
{
    CHECK(b->controller != NULL);
    t->run = run;
    list_init(&t->link);
    if (b->controller->running) {
        list_push_back(&b->controller->tasks, &t->link);
        return;
    }
    b->controller->running = true;
    run(t);
}

void controller_next(struct broker *b)
{
    struct list *l = list_pop_front(&b->controller->tasks);
    b->controller->running = l != NULL;
    if (l) {
        struct controller_task *t = list_entry(l, struct controller_task, link);
        t->run(t);
    }
}

/* ---- a change ---- */

struct topic_publish { /* one per shard */
    struct msg msg;
    struct topic_change *tc;
};

static void change_finish(struct topic_change *tc)
{
    mem_free(tc->publish);
    mem_free(tc->value);
    if (tc->err == ERR_NONE) {
        /* Nobody holds the old object any more: every shard has replaced it. */
        topic_free((struct topic *)(uintptr_t)tc->old);
    } else {
        topic_free(tc->next);
    }
    tc->done(tc);
}

static void change_acked(struct shard *at, struct msg *m)
{
    (void)at;
    struct topic_change *tc = container_of(m, struct topic_publish, msg)->tc;
    CHECK(tc->acks_missing > 0);
    if (--tc->acks_missing == 0)
        change_finish(tc);
}

static void change_apply(struct shard *at, struct msg *m)
{
    struct topic_change *tc = container_of(m, struct topic_publish, msg)->tc;
    catalog_apply(broker_of(at), tc->old, tc->next);
    shard_send(at, CONTROLLER_SHARD, m, change_acked);
}

static void change_committed(struct bg_job *j)
{
    struct topic_change *tc = container_of(j, struct topic_change, job);
    if (tc->err != ERR_NONE) {
        LOG(WARN, topic_change_failed, "err=%s remedy=\"check the disk of the metadata store\"",
            err_name(tc->err));
        change_finish(tc);
        return;
    }
    struct shard *s = &tc->broker->shard;
    u32 count = s->group->count;
    tc->publish = mem_alloc(count * sizeof *tc->publish);
    tc->acks_missing = count;
    for (u32 i = 0; i < count; i++) {
        tc->publish[i].tc = tc;
        shard_send(s, i, &tc->publish[i].msg, change_apply);
    }
}

#define KEY_MAX 300

static struct bytes key_format(char *buf, const char *prefix, struct bytes name)
{
    size_t n = strlen(prefix);
    CHECK(n + name.len < KEY_MAX);
    memcpy(buf, prefix, n);
    memcpy(buf + n, name.data, name.len);
    return bytes_of(buf, (u32)n + name.len);
}

static struct bytes key_of_id(char *buf, const char *prefix, const struct uuid *id)
{
    static const char hex[] = "0123456789abcdef";
    char text[33];
    for (u32 i = 0; i < 16; i++) {
        text[2 * i] = hex[id->b[i] >> 4];
        text[2 * i + 1] = hex[id->b[i] & 15];
    }
    text[32] = '/';
    return key_format(buf, prefix, bytes_of(text, 33));
}

/* Background thread: touches only what the job carries. */
static void change_commit(struct bg_job *j)
{
    struct topic_change *tc = container_of(j, struct topic_change, job);
    const struct topic *t = tc->next ? tc->next : tc->old;
    char name_key[KEY_MAX], start_key[KEY_MAX], state_key[KEY_MAX], clone_key[KEY_MAX];
    struct meta_op ops[4] = {
        { META_PUT, key_format(name_key, "t/", t->name), bytes_of(tc->value, tc->value_len) },
    };
    struct meta_txn txn = { .ops = ops, .op_count = 1 };
    if (!tc->next) {
        ops[0].kind = META_DELETE;
        ops[1] =
            (struct meta_op){ META_DELETE_PREFIX, key_of_id(start_key, "p/", &t->id), { NULL, 0 } };
        ops[2] =
            (struct meta_op){ META_DELETE_PREFIX, key_of_id(state_key, "s/", &t->id), { NULL, 0 } };
        ops[3] =
            (struct meta_op){ META_DELETE_PREFIX, key_of_id(clone_key, "k/", &t->id), { NULL, 0 } };
        txn.op_count = 4;
    }
    tc->err = meta_commit(tc->broker->node->env.meta, &txn);
}

void topic_change_start(struct broker *b, struct topic_change *tc, const struct topic *old,
                        struct topic *next, void (*done)(struct topic_change *tc))
{
    CHECK(b->controller && b->controller->running);
    *tc = (struct topic_change){ .broker = b, .old = old, .next = next, .done = done };
    if (next) {
        tc->value_len = topic_value_bytes(next);
        tc->value = mem_alloc(tc->value_len);
        topic_encode(next, tc->value);
    }
    bg_submit(&b->shard, &tc->job, BG_META, change_commit, change_committed);
}

/* ---- auto-creation ---- */

static void ensure_home(struct shard *at, struct msg *m)
{
    (void)at;
    struct topic_ensure *te = container_of(m, struct topic_ensure, msg);
    te->done(te);
}

static void ensure_end(struct topic_ensure *te, err e)
{
    struct broker *b = te->controller;
    te->err = e;
    shard_send(&b->shard, te->from->shard.index, &te->msg, ensure_home);
    controller_next(b);
}

static void ensure_changed(struct topic_change *tc)
{
    struct topic_ensure *te = container_of(tc, struct topic_ensure, change);
    if (tc->err == ERR_NONE)
        LOG(INFO, topic_created, "topic=%s by=auto", te->name);
    ensure_end(te, err_to_kafka(tc->err));
}

static void ensure_run(struct controller_task *t)
{
    struct topic_ensure *te = container_of(t, struct topic_ensure, task);
    struct broker *b = te->controller;
    struct bytes name = bytes_of(te->name, te->name_len);
    if (catalog_by_name(b, name)) {
        ensure_end(te, ERR_NONE);
        return;
    }
    if (!topic_name_valid(name) || topic_name_collides(b, name)) {
        ensure_end(te, ERR_INVALID_TOPIC_EXCEPTION);
        return;
    }
    const struct config *cfg = b->node->cfg;
    bool offsets = bytes_eq_str(name, OFFSETS_TOPIC);
    i64 count = config_i64(cfg, offsets ? CFG_offsets_topic_num_partitions : CFG_num_partitions);
    if (!topic_partitions_fit(b, (u64)count)) {
        LOG(WARN, topic_not_created, "topic=%s by=auto remedy=\"raise topics.max_partitions\"",
            te->name);
        ensure_end(te, ERR_POLICY_VIOLATION);
        return;
    }
    struct topic *topic = topic_make(b, name, (i32)count);
    if (offsets)
        topic_offsets_configure(b, topic);
    topic_change_start(b, &te->change, NULL, topic, ensure_changed);
}

static void ensure_arrived(struct shard *at, struct msg *m)
{
    struct topic_ensure *te = container_of(m, struct topic_ensure, msg);
    te->controller = broker_of(at);
    controller_enter(te->controller, &te->task, ensure_run);
}

void topic_ensure(struct broker *from, struct topic_ensure *te, struct bytes name,
                  void (*done)(struct topic_ensure *te))
{
    CHECK(name.len < sizeof te->name);
    memset(te, 0, sizeof *te);
    te->from = from;
    te->done = done;
    te->name_len = name.len;
    memcpy(te->name, name.data, name.len);
    shard_send(&from->shard, CONTROLLER_SHARD, &te->msg, ensure_arrived);
}

/* Kafka's offsets topic: compacted, small segments, compressed by the writer only. */
void topic_offsets_configure(struct broker *b, struct topic *t)
{
    static const char *const rows[][2] = {
        { "cleanup.policy", "compact" },
        { "compression.type", "producer" },
        { "segment.bytes", "104857600" },
    };
    char why[256];
    for (u32 i = 0; i < ARRAY_COUNT(rows); i++) {
        err e = topic_config_set(&t->config, b->node->cfg, bytes_str(rows[i][0]),
                                 bytes_str(rows[i][1]), why, sizeof why);
        CHECK(e == ERR_NONE);
    }
    t->internal = true;
}

/* Kafka refuses names that differ only in '.' and '_', which collide in metric names. */
bool topic_name_collides(struct broker *b, struct bytes name)
{
    if (!memchr(name.data, '.', name.len) && !memchr(name.data, '_', name.len))
        return false;
    struct topic_entry *e, *next;
    HASH_ITER(hh_name, b->topics_by_name, e, next) {
        struct bytes other = e->topic->name;
        if (other.len != name.len || bytes_eq(other, name))
            continue;
        u32 i = 0;
        while (i < name.len && (name.data[i] == other.data[i] ||
                                (strchr("._", name.data[i]) && strchr("._", other.data[i]))))
            i++;
        if (i == name.len)
            return true;
    }
    return false;
}

/* ---- life ---- */

void controller_start(struct broker *b)
{
    b->controller = MEM_NEW(struct controller);
    list_init(&b->controller->tasks);
    list_init(&b->controller->producer_id_waiters);
}

bool controller_busy(const struct broker *b)
{
    return b->controller && b->controller->running;
}

void controller_free(struct broker *b)
{
    mem_free(b->controller);
    b->controller = NULL;
}
