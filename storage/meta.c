/* Metadata: the list of drivers and the choice by URL scheme. Drivers are registered before the
 * shards start (meta_register), so the table is read-only afterwards. */
#include "meta.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "place.h"

#define META_DRIVERS_MAX 8

static const struct meta_driver *registered[META_DRIVERS_MAX];
static u32 registered_count;

void meta_register(const struct meta_driver *d)
{
    CHECK(d->scheme != NULL);
    CHECK(d->open != NULL);
    for (u32 i = 0; i < registered_count; i++)
        if (strcmp(registered[i]->scheme, d->scheme) == 0) {
            registered[i] = d;
            return;
        }
    CHECK(registered_count < META_DRIVERS_MAX);
    registered[registered_count++] = d;
}

static const struct meta_driver *driver_find(const char *url)
{
    for (u32 i = 0; i < registered_count; i++)
        if (place_has_scheme(url, registered[i]->scheme))
            return registered[i];
    return place_has_scheme(url, "lmdb") ? &meta_lmdb_driver : NULL;
}

err meta_open(const char *url, struct meta **out, char *why, size_t why_size)
{
    CHECK(why_size > 0);
    why[0] = '\0';
    const struct meta_driver *d = driver_find(url);
    if (d == NULL) {
        snprintf(why, why_size,
                 "meta.url = %s names no known kind of metadata store: use lmdb:///path", url);
        return ERR_INVALID_CONFIG;
    }
    return d->open(url, out, why, why_size);
}
