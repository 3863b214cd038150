/* Metadata: the list of drivers and the choice by URL scheme. Drivers are registered before the
 * shards start (meta_register), so the table is read-only afterwards. */
#include "meta.h"

#include <stdio.h>
#include <string.h>

#include "check.h"

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
    const char *sep = strstr(url, "://");
    if (sep == NULL)
        return NULL;
    size_t len = (size_t)(sep - url);
    for (u32 i = 0; i < registered_count; i++)
        if (strlen(registered[i]->scheme) == len && memcmp(registered[i]->scheme, url, len) == 0)
            return registered[i];
    if (len == 4 && memcmp(url, "lmdb", 4) == 0)
        return &meta_lmdb_driver;
    return NULL;
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
