/* The simulated object store. Objects are atomic and durable: a put that returned ERR_NONE is there
 * for good; one that failed, or was cut short by a kill, is there whole or not at all. Calls may
 * fail for a while, one by one or all; a read may come back with a wrong bit. A listing may show
 * what was there a while ago: without the newest objects, and with those removed since. Not to a
 * recovery, which relies on what stores promise.
 *
 * Time stands still while a background job runs: one that calls without end would never return, so
 * calls at one moment are counted. */
#include <stdio.h>
#include <string.h>

#include "../../storage/bundle_int.h"
#include "sim.h"
#include "store.h"

struct object {
    char *name;
    u8 *data;
    u64 bytes;
    u64 born_ns;
};
static struct object *objects; /* ascending by name */
static u32 object_count, object_cap;
static u64 outage_until, away_until;

/* Removed, and perhaps still listed: a ring. */
#define GHOSTS_MAX 256u
#define STALE_MAX_NS (20 * NS_PER_S)
static struct ghost {
    char *name;
    u64 bytes, born_ns, removed_ns;
} ghosts[GHOSTS_MAX];
static u32 ghost_next;

u32 store_object_count(void)
{
    return object_count;
}

void store_outage_end(void)
{
    outage_until = away_until = 0;
}

void store_goes_away(u64 ns)
{
    STAT(aways);
    away_until = sim.now_ns + ns;
}

/* First object whose name is not below. */
static u32 object_at(const char *name)
{
    u32 lo = 0, hi = object_count;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (strcmp(objects[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct object *object_find(const char *name)
{
    if (!store_name_valid(name))
        sim_fail("store: \"%s\" is no name of an object", name);
    u32 i = object_at(name);
    return i < object_count && strcmp(objects[i].name, name) == 0 ? &objects[i] : NULL;
}

static bool call_fails(void)
{
    if (fault(sim.faults.store_outage))
        outage_until = sim.now_ns + rnd_log(10 * NS_PER_MS, 20 * NS_PER_S);
    bool fails = sim.now_ns < outage_until || fault(sim.faults.store_fail);
    sim.faults_hit += fails;
    STAT_ADD(store_errors, fails);
    return fails;
}

/* A job that walks over all there is makes some thousand calls. */
#define CALLS_AT_ONCE_MAX 100000u

static u64 calls, calls_ns; /* how many, at which moment */

static void call_count(void)
{
    calls = calls_ns == sim.now_ns ? calls + 1 : 1;
    calls_ns = sim.now_ns;
    if (calls > CALLS_AT_ONCE_MAX)
        sim_fail("liveness: a job called the store %u times and goes on: an endless loop",
                 CALLS_AT_ONCE_MAX);
}

/* Refused before anything happens. */
static err call_refused(void)
{
    call_count();
    bool away = sim.now_ns < away_until, busy = !away && fault(sim.faults.store_busy);
    sim.faults_hit += away || busy;
    STAT_ADD(refused_calls, away || busy);
    return away ? ERR_IO : busy ? ERR_BUSY : ERR_NONE;
}

static bool answer_lost(void)
{
    bool lost = fault(sim.faults.store_lost);
    sim.faults_hit += lost;
    STAT_ADD(lost_answers, lost);
    return lost;
}

static err sim_open(const char *url, const struct config *cfg, struct store **out, char *why,
                    size_t why_size);

static void sim_close(struct store *s)
{
    mem_free(s);
}

static void object_store(const char *name, const struct bytes *parts, u32 part_count)
{
    u64 total = 0;
    for (u32 i = 0; i < part_count; i++)
        total += parts[i].len;
    u8 *data = mem_alloc(total + 1);
    u64 at = 0;
    for (u32 i = 0; i < part_count; i++) {
        if (parts[i].len)
            memcpy(data + at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    struct object *o = object_find(name);
    if (o) {
        mem_free(o->data);
    } else {
        if (object_count == object_cap) {
            object_cap = MAX(64, object_cap * 2);
            objects = mem_realloc(objects, object_cap * sizeof *objects);
        }
        u32 i = object_at(name);
        memmove(objects + i + 1, objects + i, (object_count - i) * sizeof *objects);
        object_count++;
        o = &objects[i];
        o->name = mem_strndup(bytes_str(name));
        o->born_ns = sim.now_ns;
    }
    o->data = data;
    o->bytes = total;
}

bool store_object_at(u32 i, const char **name, struct bytes *data)
{
    if (i >= object_count)
        return false;
    *name = objects[i].name;
    *data = bytes_of(objects[i].data, (u32)objects[i].bytes);
    return true;
}

void store_object_put(const char *name, struct bytes data)
{
    object_store(name, &data, 1);
}

void store_forget(void)
{
    for (u32 i = 0; i < object_count; i++) {
        mem_free(objects[i].name);
        mem_free(objects[i].data);
    }
    mem_free(objects);
    objects = NULL;
    object_count = object_cap = 0;
    for (u32 i = 0; i < GHOSTS_MAX; i++)
        mem_free(ghosts[i].name);
    memset(ghosts, 0, sizeof ghosts);
    calls = 0;
    store_outage_end();
}

/* In some seeds the way to the store is narrow: what somebody waits for takes nearly all of it for
 * some seconds, and merging gives way. */
static void way_is_full(struct store *s, const struct store_object *o)
{
    if (o->awaited && sim.seed % 3 == 0)
        flow_put(&s->flow, 1000 * GIB, true, sim.now_ns - MIN(sim.now_ns, 5 * NS_PER_S),
                 sim.now_ns + 5 * NS_PER_S);
}

static err sim_put(struct store *s, const struct store_object *o)
{
    way_is_full(s, o);
    enum sim_step step = step_of_put(o->name);
    sim_effect("before put");
    sim_step(step, STEP_BEFORE);
    err refused = call_refused();
    if (refused != ERR_NONE)
        return refused;
    if (call_fails() && !one_in(3))
        return ERR_IO;
    bool lost_answer = fault(sim.faults.store_fail);
    sim.faults_hit += lost_answer;
    if (fault(sim.faults.store_full)) {
        sim.faults_hit++;
        return ERR_DISK_FULL;
    }
    if (o->if_absent && object_find(o->name))
        return ERR_EXISTS;
    object_store(o->name, o->parts, o->part_count);
    TRACE("object %s is stored", o->name);
    STAT(puts);
    u64 id;
    u32 epoch;
    STAT_ADD(fresh_runs,
             bundle_name_parse(o->name, &id, &epoch) && object_is_run(id) && object_is_fresh(id));
    sim_effect("after put");
    sim_step(step, STEP_AFTER);
    return lost_answer || answer_lost() ? ERR_IO : ERR_NONE;
}

static err get_range(const char *name, u64 offset, u8 *buf, u32 len)
{
    err refused = call_refused();
    if (refused != ERR_NONE)
        return refused;
    if (call_fails())
        return ERR_IO;
    const struct object *o = object_find(name);
    if (!o)
        return ERR_NOT_FOUND;
    if (offset > o->bytes || len > o->bytes - offset)
        return ERR_TRUNCATED;
    memcpy(buf, o->data + offset, len);
    if (len > 0 && fault(sim.faults.store_flip)) {
        buf[rnd(len)] ^= (u8)(1u << rnd(8));
        sim.faults_hit++;
        STAT(flips);
        TRACE("a bit flips while reading %s", name);
    }
    return ERR_NONE;
}

static err sim_get_range(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    (void)s;
    sim_step(step_of_read(), STEP_BEFORE);
    err e = get_range(name, offset, buf, len);
    sim_step(step_of_read(), STEP_AFTER);
    return e;
}

static err sim_size(struct store *s, const char *name, u64 *out)
{
    (void)s;
    err refused = call_refused();
    if (refused != ERR_NONE)
        return refused;
    if (call_fails())
        return ERR_IO;
    const struct object *o = object_find(name);
    if (!o)
        return ERR_NOT_FOUND;
    *out = o->bytes;
    return ERR_NONE;
}

static void ghost_add(const struct object *o)
{
    struct ghost *g = &ghosts[ghost_next++ % GHOSTS_MAX];
    mem_free(g->name);
    *g = (struct ghost){ mem_strndup(bytes_str(o->name)), o->bytes, o->born_ns, sim.now_ns };
}

static err sim_remove(struct store *s, const char *name)
{
    (void)s;
    enum sim_step step = step_of_remove(name);
    sim_effect("before remove");
    sim_step(step, STEP_BEFORE);
    err refused = call_refused();
    if (refused != ERR_NONE)
        return refused;
    if (call_fails() && !one_in(3))
        return ERR_IO;
    struct object *o = object_find(name);
    if (o) {
        TRACE("object %s is removed", name);
        STAT(removes);
        if (sim.running) /* who damages a store on purpose does it between lives */
            check_object_removed(name);
        if (sim.long_lived)
            ghost_add(o);
        mem_free(o->name);
        mem_free(o->data);
        u32 i = (u32)(o - objects);
        memmove(o, o + 1, (object_count - i - 1) * sizeof *o);
        object_count--;
    }
    sim_effect("after remove");
    sim_step(step, STEP_AFTER);
    return fault(sim.faults.store_fail) || answer_lost() ? ERR_IO : ERR_NONE;
}

/* The next name behind `after` that was there at the time `as_of_ns`; of the objects and ghosts. */
static const char *listed_behind(const char *after, const char *prefix, u64 as_of_ns, u64 *bytes)
{
    size_t len = strlen(prefix);
    const char *best = NULL;
    for (u32 i = object_at(strcmp(after, prefix) > 0 ? after : prefix);
         !best && i < object_count && strncmp(objects[i].name, prefix, len) == 0; i++) {
        bool unseen = objects[i].born_ns > as_of_ns;
        STAT_ADD(stale_names, unseen);
        if (unseen || strcmp(objects[i].name, after) <= 0)
            continue;
        best = objects[i].name;
        *bytes = objects[i].bytes;
    }
    for (u32 i = 0; i < GHOSTS_MAX && as_of_ns < sim.now_ns; i++) {
        const struct ghost *g = &ghosts[i];
        if (!g->name || g->removed_ns <= as_of_ns || g->born_ns > as_of_ns ||
            strncmp(g->name, prefix, len) != 0 || strcmp(g->name, after) <= 0 ||
            (best && strcmp(g->name, best) >= 0))
            continue;
        STAT(stale_names);
        best = g->name;
        *bytes = g->bytes;
    }
    return best;
}

static err list_page(const char *prefix, const char *after, u32 max,
                     err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    err refused = call_refused();
    if (refused != ERR_NONE)
        return refused;
    if (call_fails())
        return ERR_IO;
    u64 as_of_ns = sim.now_ns, bytes = 0;
    if (fault(sim.faults.store_stale) && !sim.recovering) {
        STAT(stale_lists);
        sim.faults_hit++;
        as_of_ns -= MIN(as_of_ns, rnd_log(NS_PER_MS, STALE_MAX_NS));
    }
    for (; max > 0 && (after = listed_behind(after, prefix, as_of_ns, &bytes)) != NULL; max--) {
        err e = each(arg, after, bytes);
        if (e != ERR_NONE)
            return e;
    }
    return ERR_NONE;
}

static err sim_list_page(struct store *s, const char *prefix, const char *after, u32 max,
                         err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    (void)s;
    enum sim_step step = step_of_list(prefix);
    sim_step(step, STEP_BEFORE);
    err e = list_page(prefix, after, max, each, arg);
    sim_step(step, STEP_AFTER);
    return e;
}

static err sim_list(struct store *s, const char *prefix,
                    err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    return sim_list_page(s, prefix, "", UINT32_MAX, each, arg);
}

static const struct store_driver sim_driver = {
    .scheme = "sim",
    .open = sim_open,
    .close = sim_close,
    .put = sim_put,
    .get_range = sim_get_range,
    .size = sim_size,
    .remove = sim_remove,
    .list = sim_list,
    .list_page = sim_list_page,
};

static err sim_open(const char *url, const struct config *cfg, struct store **out, char *why,
                    size_t why_size)
{
    (void)url, (void)cfg, (void)why, (void)why_size;
    *out = MEM_NEW(struct store);
    (*out)->driver = &sim_driver;
    return ERR_NONE;
}

void store_install(void)
{
    store_register(&sim_driver);
}
