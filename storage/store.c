/* Object store: the list of drivers and the choice by URL scheme. Drivers are registered before
 * the shards start (store_register), so the table is read-only afterwards. */
#include "store.h"

#include <stdio.h>
#include <string.h>

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

struct store *store_for(struct store *s, enum store_class c)
{
    CHECK((u32)c < STORE_CLASSES);
    return s->driver->of_class ? s->driver->of_class(s, c) : s;
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
