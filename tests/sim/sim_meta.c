/* The simulated metadata store: ordered keys, transactions that happen wholly or not at all. One
 * that returned ERR_NONE is durable; one that a kill cut short happened or did not. */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "meta.h"
#include "sim.h"

struct pair {
    struct bytes key, value; /* own memory */
    u64 revision;
};
static struct pair *pairs; /* ascending */
static u32 pair_count, pair_cap;
static u64 revision;

/* First pair whose key is not below. */
static u32 pair_at(struct bytes key)
{
    u32 lo = 0, hi = pair_count;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (bytes_cmp(pairs[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct pair *pair_find(struct bytes key)
{
    u32 i = pair_at(key);
    return i < pair_count && bytes_eq(pairs[i].key, key) ? &pairs[i] : NULL;
}

static bool starts_with(struct bytes b, struct bytes prefix)
{
    return b.len >= prefix.len && (prefix.len == 0 || memcmp(b.data, prefix.data, prefix.len) == 0);
}

static struct bytes own(struct bytes b)
{
    return bytes_of(mem_dup(b.data, b.len), b.len);
}

static void disown(struct bytes b)
{
    mem_free((void *)(uintptr_t)b.data);
}

static void pair_put(struct bytes key, struct bytes value)
{
    struct pair *p = pair_find(key);
    if (p) {
        disown(p->value);
    } else {
        if (pair_count == pair_cap) {
            pair_cap = MAX(64, pair_cap * 2);
            pairs = mem_realloc(pairs, pair_cap * sizeof *pairs);
        }
        u32 i = pair_at(key);
        memmove(pairs + i + 1, pairs + i, (pair_count - i) * sizeof *pairs);
        pair_count++;
        p = &pairs[i];
        p->key = own(key);
    }
    p->value = own(value);
    p->revision = revision;
}

static void pairs_delete(u32 from, u32 to)
{
    for (u32 i = from; i < to; i++) {
        disown(pairs[i].key);
        disown(pairs[i].value);
    }
    if (to > from)
        memmove(pairs + from, pairs + to, (pair_count - to) * sizeof *pairs);
    pair_count -= to - from;
}

static void op_apply(const struct meta_op *op)
{
    if (op->key.len == 0 || op->key.len > META_KEY_MAX)
        sim_fail("meta: a key of %u bytes", op->key.len);
    u32 from = pair_at(op->key), to = from;
    switch (op->kind) {
    case META_PUT:
        pair_put(op->key, op->value);
        return;
    case META_DELETE:
        to += from < pair_count && bytes_eq(pairs[from].key, op->key);
        break;
    case META_DELETE_PREFIX:
        while (to < pair_count && starts_with(pairs[to].key, op->key))
            to++;
        break;
    }
    pairs_delete(from, to);
}

static err sim_get(struct meta *m, struct bytes key, struct arena *a, struct meta_kv *out)
{
    (void)m;
    const struct pair *p = pair_find(key);
    if (!p)
        return ERR_NOT_FOUND;
    out->key = key;
    out->value = arena_copy(a, p->value);
    out->revision = p->revision;
    return out->value.data || p->value.len == 0 ? ERR_NONE : ERR_NO_MEMORY;
}

static err sim_range(struct meta *m, struct bytes prefix, struct bytes after,
                     err (*each)(void *arg, const struct meta_kv *kv), void *arg)
{
    (void)m;
    u32 first = pair_at(bytes_cmp(after, prefix) > 0 ? after : prefix);
    if (after.len > 0 && first < pair_count && bytes_eq(pairs[first].key, after))
        first++;
    for (u32 i = first; i < pair_count && starts_with(pairs[i].key, prefix); i++) {
        struct meta_kv kv = { pairs[i].key, pairs[i].value, pairs[i].revision };
        err e = each(arg, &kv);
        if (e != ERR_NONE)
            return e;
    }
    return ERR_NONE;
}

static err sim_commit(struct meta *m, const struct meta_txn *t)
{
    (void)m;
    enum sim_step step = step_of_commit(t);
    sim_effect("before commit");
    sim_step(step, STEP_BEFORE);
    if (fault(sim.faults.meta_fail)) {
        sim.faults_hit++;
        STAT(meta_errors);
        return one_in(2) ? ERR_IO : ERR_DISK_FULL;
    }
    for (u32 i = 0; i < t->compare_count; i++) {
        const struct pair *p = pair_find(t->compares[i].key);
        if ((p ? p->revision : 0) != t->compares[i].revision)
            return ERR_CONFLICT;
    }
    revision++;
    for (u32 i = 0; i < t->op_count; i++) {
        TRACE("commit %s %.*s", t->ops[i].kind == META_PUT ? "puts" : "deletes",
              (int)t->ops[i].key.len, (const char *)t->ops[i].key.data);
        op_apply(&t->ops[i]);
    }
    sim_effect("after commit");
    sim_step(step, STEP_AFTER);
    return ERR_NONE;
}

static void sim_close(struct meta *m)
{
    mem_free(m);
}

bool meta_pair_at(u32 i, struct bytes *key, struct bytes *value)
{
    if (i >= pair_count)
        return false;
    *key = pairs[i].key;
    *value = pairs[i].value;
    return true;
}

bool meta_pair_find(struct bytes key, struct bytes *value)
{
    const struct pair *p = pair_find(key);
    if (p)
        *value = p->value;
    return p != NULL;
}

void meta_pair_put(struct bytes key, struct bytes value)
{
    revision++;
    pair_put(key, value);
}

void meta_forget(void)
{
    pairs_delete(0, pair_count);
    mem_free(pairs);
    pairs = NULL;
    pair_count = pair_cap = 0;
    revision = 0;
}

static err sim_open(const char *url, struct meta **out, char *why, size_t why_size);

static const struct meta_driver sim_driver = {
    .scheme = "sim",
    .open = sim_open,
    .close = sim_close,
    .get = sim_get,
    .range = sim_range,
    .commit = sim_commit,
};

static err sim_open(const char *url, struct meta **out, char *why, size_t why_size)
{
    (void)url, (void)why, (void)why_size;
    *out = MEM_NEW(struct meta);
    (*out)->driver = &sim_driver;
    return ERR_NONE;
}

void meta_install(void)
{
    meta_register(&sim_driver);
}
