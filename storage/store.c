/* Object store: the list of drivers and the choice by URL scheme. Drivers are registered before
 * the shards start (store_register), so the table is read-only afterwards. */
#include "store.h"

#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "place.h"

#define STORE_DRIVERS_MAX 8

static const struct store_driver *registered[STORE_DRIVERS_MAX];
static u32 registered_count;

static const struct store_driver *driver_find(const char *url)
{
    for (u32 i = 0; i < registered_count; i++)
        if (place_has_scheme(url, registered[i]->scheme))
            return registered[i];
    if (place_has_scheme(url, "s3"))
        return &store_s3_driver;
    return place_has_scheme(url, "file") ? &store_file_driver : NULL;
}

void store_register(const struct store_driver *d)
{
    CHECK(d->scheme != NULL);
    CHECK(d->open != NULL);
    for (u32 i = 0; i < registered_count; i++)
        if (strcmp(registered[i]->scheme, d->scheme) == 0) {
            registered[i] = d;
            return;
        }
    CHECK(registered_count < STORE_DRIVERS_MAX);
    registered[registered_count++] = d;
}

err store_open(const char *url, const struct config *cfg, struct store **out, char *why,
               size_t why_size)
{
    CHECK(why_size > 0);
    why[0] = '\0';
    const struct store_driver *d = driver_find(url);
    if (d == NULL) {
        snprintf(why, why_size,
                 "store.url = %s names no known kind of object store: use file:///path or "
                 "s3://bucket/prefix",
                 url);
        return ERR_INVALID_CONFIG;
    }
    return d->open(url, cfg, out, why, why_size);
}

err store_remove_many(struct store *s, const char *const *names, u32 count)
{
    if (s->driver->remove_many)
        return s->driver->remove_many(s, names, count);
    err first = ERR_NONE;
    for (u32 i = 0; i < count; i++) {
        err e = s->driver->remove(s, names[i]);
        first = first != ERR_NONE ? first : e;
    }
    return first;
}

err store_sweep(struct store *s, const char *prefix, u64 age_ms, u32 *swept)
{
    *swept = 0;
    return s->driver->sweep ? s->driver->sweep(s, prefix, age_ms, swept) : ERR_NONE;
}

struct store *store_for(struct store *s, enum store_class c)
{
    CHECK((u32)c < STORE_CLASSES);
    return s->driver->of_class ? s->driver->of_class(s, c) : s;
}

/* ---- pages ---- */

struct page_name {
    char *name;
    u64 bytes;
};
struct page { /* the first names behind `after`, ascending */
    const char *after;
    struct page_name *names;
    u32 count, max;
};

static err page_see(void *arg, const char *name, u64 bytes)
{
    struct page *p = arg;
    if (strcmp(name, p->after) <= 0)
        return ERR_NONE;
    u32 lo = 0, hi = p->count;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (strcmp(p->names[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == p->max)
        return ERR_NONE;
    if (p->count == p->max)
        mem_free(p->names[--p->count].name);
    memmove(p->names + lo + 1, p->names + lo, (p->count - lo) * sizeof *p->names);
    p->names[lo] = (struct page_name){ mem_strndup(bytes_str(name)), bytes };
    p->count++;
    return ERR_NONE;
}

err store_list_page(struct store *s, const char *prefix, const char *after, u32 max,
                    err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    if (s->driver->list_page)
        return s->driver->list_page(s, prefix, after, max, each, arg);
    struct page p = { .after = after, .names = mem_alloc(max * sizeof *p.names), .max = max };
    err e = s->driver->list(s, prefix, page_see, &p);
    for (u32 i = 0; i < p.count; i++) {
        if (e == ERR_NONE)
            e = each(arg, p.names[i].name, p.names[i].bytes);
        mem_free(p.names[i].name);
    }
    mem_free(p.names);
    return e;
}

bool store_name_valid(const char *name)
{
    size_t len = strnlen(name, STORE_NAME_MAX + 1);
    if (len == 0 || len > STORE_NAME_MAX || name[len - 1] == '/')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool starts = i == 0 || name[i - 1] == '/';
        /* A component never starts with '.': no "..", and the drivers' own files begin so. */
        if (starts && (c == '.' || c == '/'))
            return false;
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!plain && c != '.' && c != '/' && c != '-')
            return false;
    }
    return true;
}
