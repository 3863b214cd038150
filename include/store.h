/* The object store: whole objects, immutable once put. Blocking calls, made inside bg jobs
 * (lanes BG_PUT, BG_READ, BG_MISC). Drivers: file:// (store_file.c), the simulator's
 * (tests/sim/sim_store.c), s3:// later. Object names are relative, '/'-separated, [a-z0-9./-].
 */
#ifndef LEAT_STORE_H
#define LEAT_STORE_H

#include "err.h"
#include "mem.h"

struct store;

struct store_driver {
    const char *scheme;
    err (*open)(const char *url, struct store **out, char *why, size_t why_size);
    void (*close)(struct store *s);
    /* The object is complete and durable when this returns ERR_NONE, and never half there
     * afterwards otherwise. Parts are concatenated. `if_absent`: ERR_EXISTS when it is there. */
    err (*put)(struct store *s, const char *name, const struct bytes *parts, u32 part_count, bool if_absent);
    /* Exactly len bytes at offset into buf; ERR_NOT_FOUND; ERR_TRUNCATED when the object is shorter. */
    err (*get_range)(struct store *s, const char *name, u64 offset, u8 *buf, u32 len);
    err (*size)(struct store *s, const char *name, u64 *out);
    /* Deleting what is not there is ERR_NONE. */
    err (*remove)(struct store *s, const char *name);
    err (*list)(struct store *s, const char *prefix, err (*each)(void *arg, const char *name, u64 bytes), void *arg);
};

struct store {
    const struct store_driver *driver;
};

err store_open(const char *url, struct store **out, char *why, size_t why_size) MUST_USE;
void store_register(const struct store_driver *d);
/* (use s->driver->fn directly) */

#endif
