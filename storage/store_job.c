/* See store_job.h. A job's way between threads:
 *
 *   start (admin thread) ──message──► shard 0: begin ─► background / rest … ─► end
 *   show  (admin thread) ◄── `fresh`: the newest text, handed over by exchanging a pointer
 *
 * A stop ends a job between two steps: nothing it does changes anything. */
#include "store_job_int.h"

#include <stdlib.h>

#include "clock.h"

#define PUBLISH_NS (250 * NS_PER_MS)
#define REST_NS_MAX (10 * NS_PER_S)
#define TOPIC_KEY_HEAD 2u /* "t/" */

static const struct store_job_ops *const all_ops[STORE_JOB_KINDS] = {
    [STORE_JOB_DU] = &store_du_ops,
    [STORE_JOB_VERIFY] = &store_verify_ops,
};

/* ---- on the shard ---- */

static void publish(struct store_job *j, const char *state, const char *failed, err e)
{
    struct metric_text t = { 0 };
    j->published_ns = clock_mono_ns();
    metric_text_add(
        &t, "{\"job\":\"%s\",\"state\":\"%s\",\"started_ms\":%" PRId64 ",\"elapsed_ms\":%" PRIu64,
        j->ops->name, state, j->began_ms, (j->published_ns - j->began_ns) / NS_PER_MS);
    if (failed != NULL)
        metric_text_add(&t, ",\"error\":\"%s: %s\"", failed, err_text(e));
    if (j->work != NULL)
        j->ops->show(j, &t);
    metric_text_add(&t, "}\n");
    mem_free(__atomic_exchange_n(&j->fresh, t.data, __ATOMIC_ACQ_REL));
}

static void finish(struct store_job *j, const char *state, const char *failed, err e)
{
    publish(j, state, failed, e);
    if (j->work != NULL)
        j->ops->release(j);
    mem_free(j->work);
    j->work = NULL;
    if (j->st != NULL)
        j->st->store_jobs[j->kind] = NULL;
    j->st = NULL;
    __atomic_store_n(&j->state, STORE_JOB_IDLE, __ATOMIC_RELEASE);
}

void store_job_end(struct store_job *j, const char *failed, err e)
{
    CHECK(!j->bg.busy && !timer_armed(&j->timer));
    finish(j, failed != NULL ? "failed" : "done", failed, e);
}

static void go_on(struct store_job *j)
{
    if (__atomic_load_n(&j->canceled, __ATOMIC_ACQUIRE) || j->st->stopping)
        finish(j, "canceled", NULL, ERR_NONE);
    else
        j->then(j);
}

static void bg_done(struct bg_job *b)
{
    struct store_job *j = container_of(b, struct store_job, bg);
    j->st->job_count--;
    go_on(j);
}

void store_job_bg(struct store_job *j, enum bg_lane lane, bg_fn run,
                  void (*then)(struct store_job *j))
{
    j->then = then;
    j->st->job_count++;
    bg_submit(j->st->shard, &j->bg, lane, run, bg_done);
}

static void rested(struct timer *t)
{
    go_on(container_of(t, struct store_job, timer));
}

void store_job_rest(struct store_job *j, u64 bytes, void (*then)(struct store_job *j))
{
    u64 now = clock_mono_ns(), took = now - j->step_ns;
    u64 due = j->rate > 0 ? bytes * NS_PER_S / j->rate : 0;
    u64 rest = due > took ? MIN(due - took, REST_NS_MAX) : 0;
    if (now - j->published_ns >= PUBLISH_NS)
        publish(j, "running", NULL, ERR_NONE);
    j->then = then;
    timer_start(&j->st->shard->timers, &j->timer, j->st->shard->now_ns + rest, rested);
}

void store_jobs_stop(struct storage *st)
{
    for (u32 i = 0; i < STORE_JOB_KINDS; i++) {
        struct store_job *j = st->store_jobs[i];
        if (j == NULL)
            continue;
        CHECK(!j->bg.busy);
        timer_stop(&st->shard->timers, &j->timer);
        finish(j, "canceled", NULL, ERR_NONE);
    }
}

static void arrived(struct shard *at, struct msg *m)
{
    struct store_job *j = container_of(m, struct store_job, msg);
    struct storage *st = at->stopping ? NULL : j->storage_of(at);
    j->began_ns = clock_mono_ns();
    j->began_ms = clock_wall_ms();
    if (st == NULL || st->stopping) {
        finish(j, "canceled", NULL, ERR_NONE);
        return;
    }
    j->st = st;
    CHECK(st->store_jobs[j->kind] == NULL);
    st->store_jobs[j->kind] = j;
    j->work = mem_alloc(j->ops->work_bytes);
    __atomic_store_n(&j->state, STORE_JOB_RUNNING, __ATOMIC_RELEASE);
    publish(j, "running", NULL, ERR_NONE);
    j->ops->begin(j);
}

/* ---- from outside ---- */

struct store_job *store_job_create(enum store_job_kind kind, struct shard_group *g,
                                   struct storage *(*storage_of)(struct shard *s))
{
    struct store_job *j = MEM_NEW(struct store_job);
    j->ops = all_ops[kind];
    j->kind = kind;
    j->group = g;
    j->storage_of = storage_of;
    return j;
}

void store_job_free(struct store_job *j)
{
    mem_free(j->fresh);
    mem_free(j->shown);
    mem_free(j);
}

bool store_job_start(struct store_job *j, u64 rate)
{
    if (__atomic_load_n(&j->state, __ATOMIC_ACQUIRE) != STORE_JOB_IDLE)
        return false;
    j->rate = rate;
    __atomic_store_n(&j->canceled, false, __ATOMIC_RELEASE);
    __atomic_store_n(&j->state, STORE_JOB_POSTED, __ATOMIC_RELEASE);
    /* The last result is no answer to this question. */
    mem_free(__atomic_exchange_n(&j->fresh, NULL, __ATOMIC_ACQ_REL));
    mem_free(j->shown);
    j->shown = NULL;
    shard_post(j->group, 0, &j->msg, arrived);
    return true;
}

void store_job_cancel(struct store_job *j)
{
    __atomic_store_n(&j->canceled, true, __ATOMIC_RELEASE);
}

bool store_job_show(struct store_job *j, struct metric_text *out)
{
    char *fresh = __atomic_exchange_n(&j->fresh, NULL, __ATOMIC_ACQ_REL);
    if (fresh != NULL) {
        mem_free(j->shown);
        j->shown = fresh;
    }
    if (j->shown != NULL)
        metric_text_add(out, "%s", j->shown);
    else if (__atomic_load_n(&j->state, __ATOMIC_ACQUIRE) != STORE_JOB_IDLE)
        metric_text_add(out, "{\"job\":\"%s\",\"state\":\"running\"}\n", j->ops->name);
    else
        return false;
    return true;
}

/* ---- topics by id ---- */

/* controller.c writes: u8 version 1, 16 bytes id, … */
static err topic_name_one(void *arg, const struct meta_kv *kv)
{
    struct topic_names *t = arg;
    if (kv->value.len < 17 || kv->value.data[0] != 1 || kv->key.len <= TOPIC_KEY_HEAD)
        return ERR_NONE;
    if (t->count == t->cap) {
        t->cap = MAX(64, t->cap * 2);
        t->names = mem_realloc(t->names, t->cap * sizeof *t->names);
    }
    struct topic_name *n = &t->names[t->count++];
    memcpy(n->id.b, kv->value.data + 1, sizeof n->id.b);
    n->name = mem_strndup(bytes_of(kv->key.data + TOPIC_KEY_HEAD, kv->key.len - TOPIC_KEY_HEAD));
    return ERR_NONE;
}

static int topic_name_compare(const void *a, const void *b)
{
    const struct topic_name *x = a, *y = b;
    return memcmp(x->id.b, y->id.b, sizeof x->id.b);
}

err topic_names_load(struct topic_names *t, struct meta *m)
{
    err e = meta_range(m, bytes_str("t/"), topic_name_one, t);
    if (t->count > 0)
        qsort(t->names, t->count, sizeof *t->names, topic_name_compare);
    return e;
}

const char *topic_names_find(const struct topic_names *t, struct uuid id)
{
    struct topic_name key = { .id = id };
    const struct topic_name *n =
        t->count > 0 ? bsearch(&key, t->names, t->count, sizeof key, topic_name_compare) : NULL;
    return n != NULL ? n->name : NULL;
}

void topic_names_free(struct topic_names *t)
{
    for (u32 i = 0; i < t->count; i++)
        mem_free(t->names[i].name);
    mem_free(t->names);
    *t = (struct topic_names){ 0 };
}

void topic_id_text(struct uuid id, char *buf)
{
    static const char digits[] = "0123456789abcdef";
    for (u32 i = 0; i < sizeof id.b; i++) {
        buf[2 * i] = digits[id.b[i] >> 4];
        buf[2 * i + 1] = digits[id.b[i] & 15];
    }
    buf[2 * sizeof id.b] = '\0';
}
