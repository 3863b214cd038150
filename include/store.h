/* The object store: whole objects, immutable once put. Blocking calls, made inside bg jobs
 * (lanes BG_PUT, BG_READ, BG_MISC). Drivers: file:// (store_file.c), the simulator's
 * (tests/sim/sim_store.c), s3:// (store_s3.c). Object names are relative, '/'-separated,
 * [a-z0-9./-].
 */
#ifndef LEAT_STORE_H
#define LEAT_STORE_H

#include "config.h"
#include "err.h"
#include "flow.h"
#include "mem.h"
#include "metrics.h"

struct store;

/* What a request is for. The first is the most urgent: a driver that many requests share lets an
 * urgent one pass those that wait, and bounds each class by itself. */
enum store_class {
    STORE_ANY,     /* as the driver thinks of the operation: put, read, or clean */
    STORE_UPLOAD,  /* sealed segments: the log waits for them */
    STORE_TAIL,    /* reads that a consumer waits for */
    STORE_CATCHUP, /* reads of what is old, in advance */
    STORE_COMPACT, /* reading and writing what is rewritten */
    STORE_GC,      /* listing and deleting */
    STORE_CLASSES
};

/* What put writes: the parts one after the other. */
struct store_object {
    const char *name;
    const struct bytes *parts;
    u32 part_count;
    bool if_absent; /* ERR_EXISTS when it is there */
    /* Acknowledgements wait for it: a driver may send it twice when the store is slow. The second
     * time may take effect after put has returned, with the same bytes; so also after the object
     * was removed. */
    bool awaited;
    /* Bytes a second to write at, read again while writing (atomically: its owner may change it);
     * NULL or 0: as fast as it goes. Disks and links are shared with what clients wait for. */
    const u64 *pace;
};

struct store_driver {
    const char *scheme;
    /* Puts may compete with the log for a disk: they are paced. Others are as fast as they go, so
     * that little is lost with this node's disk. */
    bool local;
    /* `cfg` outlives the store. Says in `why` what is wrong and what to do about it. */
    err (*open)(const char *url, const struct config *cfg, struct store **out, char *why,
                size_t why_size);
    void (*close)(struct store *s);
    /* The object is complete and durable when this returns ERR_NONE, and never half there
     * afterwards otherwise. */
    err (*put)(struct store *s, const struct store_object *o);
    /* Exactly len bytes at offset into buf; ERR_NOT_FOUND; ERR_TRUNCATED when the
     * object is shorter. */
    err (*get_range)(struct store *s, const char *name, u64 offset, u8 *buf, u32 len);
    err (*size)(struct store *s, const char *name, u64 *out);
    /* Deleting what is not there is ERR_NONE. */
    err (*remove)(struct store *s, const char *name);
    err (*list)(struct store *s, const char *prefix,
                err (*each)(void *arg, const char *name, u64 bytes), void *arg);
    /* A page of list: see store_list_page. NULL: all is listed for each page. */
    err (*list_page)(struct store *s, const char *prefix, const char *after, u32 max,
                     err (*each)(void *arg, const char *name, u64 bytes), void *arg);
    /* Deletes `count` objects; the first error, after all were tried. NULL: one by one. */
    err (*remove_many)(struct store *s, const char *const *names, u32 count);
    /* Removes what puts below `prefix` left behind that will never end, and that no call lists;
     * only what is older than `age_ms`. NULL: they leave nothing. */
    err (*sweep)(struct store *s, const char *prefix, u64 age_ms, u32 *swept);
    /* The same store, for requests of a class; never fails. NULL: classes are all the same. */
    struct store *(*of_class)(struct store *s, enum store_class c);
    /* Adds the driver's own metrics; any thread. NULL: none. */
    void (*metrics)(struct store *s, struct metric_text *t);
};

struct store {
    const struct store_driver *driver;
    struct flow flow; /* of the puts of uploads and rewrites; only of the one that was opened */
};

err store_open(const char *url, const struct config *cfg, struct store **out, char *why,
               size_t why_size) MUST_USE;
/* Before store_open, on one thread; a second driver of the same scheme replaces the first. */
void store_register(const struct store_driver *d);

/* file://: one file per object below a folder (store_file.c). The URL may end in "?sync=false":
 * objects then count as stored before they are on stable media (tests, throw-away nodes). */
extern const struct store_driver store_file_driver;

/* s3://BUCKET/PREFIX?endpoint=URL&region=NAME&style=path|virtual, with the keys store.s3.*
 * (store_s3.c). */
extern const struct store_driver store_s3_driver;

/* The same without put and remove, which are ERR_DENIED. Takes `inner` over. */
struct store *store_readonly(struct store *inner);

#define STORE_NAME_MAX 255
/* Non-empty, [a-z0-9./-], no component that is empty or starts with '.'. */
bool store_name_valid(const char *name);
/* As the driver's, whether it has one or not. */
err store_remove_many(struct store *s, const char *const *names, u32 count);
/* As the driver's, whether it has one or not. */
err store_sweep(struct store *s, const char *prefix, u64 age_ms, u32 *swept) MUST_USE;
/* The handle to ask through for that class: store_for(s, STORE_GC)->driver->remove(…). It lives as
 * long as the store and is not closed. Any thread. */
struct store *store_for(struct store *s, enum store_class c);
/* Names behind `after` ("": from the first on), ascending, `max` at most; none: there are no more.
 * Stops on an error from `each` and returns it. */
err store_list_page(struct store *s, const char *prefix, const char *after, u32 max,
                    err (*each)(void *arg, const char *name, u64 bytes), void *arg);
/* (use s->driver->fn directly for the others) */

#endif
