/* The simulated object store. Objects are atomic and durable: a put that returned ERR_NONE is there
 * for good; one that failed, or was cut short by a kill, is there whole or not at all. Calls may
 * fail for a while, one by one or all; a read may come back with a wrong bit. */
#include <stdio.h>
#include <string.h>

#include "sim.h"
#include "store.h"

struct object {
    char *name;
    u8 *data;
    u64 bytes;
};
static struct object *objects; /* ascending by name */
static u32 object_count, object_cap;
static u64 outage_until;

u32 store_object_count(void)
{
    return object_count;
}

void store_outage_end(void)
{
    outage_until = 0;
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
    outage_until = 0;
}

static err sim_put(struct store *s, const struct store_object *o)
{
    (void)s;
    sim_effect("before put");
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
    sim_effect("after put");
    return lost_answer ? ERR_IO : ERR_NONE;
}

static err sim_get_range(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    (void)s;
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

static err sim_size(struct store *s, const char *name, u64 *out)
{
    (void)s;
    if (call_fails())
        return ERR_IO;
    const struct object *o = object_find(name);
    if (!o)
        return ERR_NOT_FOUND;
    *out = o->bytes;
    return ERR_NONE;
}

static err sim_remove(struct store *s, const char *name)
{
    (void)s;
    sim_effect("before remove");
    if (call_fails() && !one_in(3))
        return ERR_IO;
    struct object *o = object_find(name);
    if (o) {
        TRACE("object %s is removed", name);
        STAT(removes);
        if (sim.running) /* who damages a store on purpose does it between lives */
            check_object_removed(name);
        mem_free(o->name);
        mem_free(o->data);
        u32 i = (u32)(o - objects);
        memmove(o, o + 1, (object_count - i - 1) * sizeof *o);
        object_count--;
    }
    sim_effect("after remove");
    return fault(sim.faults.store_fail) ? ERR_IO : ERR_NONE;
}

static err sim_list_page(struct store *s, const char *prefix, const char *after, u32 max,
                         err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    (void)s;
    if (call_fails())
        return ERR_IO;
    size_t len = strlen(prefix);
    for (u32 i = object_at(strcmp(after, prefix) > 0 ? after : prefix);
         max > 0 && i < object_count && strncmp(objects[i].name, prefix, len) == 0; i++) {
        if (strcmp(objects[i].name, after) == 0)
            continue;
        max--;
        err e = each(arg, objects[i].name, objects[i].bytes);
        if (e != ERR_NONE)
            return e;
    }
    return ERR_NONE;
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
