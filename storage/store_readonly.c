/* A store that is only looked at: what would change it is refused, whoever asks. */
#include "check.h"
#include "store.h"

struct store_readonly {
    struct store base;
    struct store *inner;
};

static struct store *inner_of(struct store *s)
{
    return container_of(s, struct store_readonly, base)->inner;
}

static void readonly_close(struct store *s)
{
    struct store *inner = inner_of(s);
    inner->driver->close(inner);
    mem_free(container_of(s, struct store_readonly, base));
}

static err readonly_put(struct store *s, const struct store_object *o)
{
    (void)s, (void)o;
    return ERR_DENIED;
}

static err readonly_get_range(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    struct store *inner = inner_of(s);
    return inner->driver->get_range(inner, name, offset, buf, len);
}

static err readonly_size(struct store *s, const char *name, u64 *out)
{
    struct store *inner = inner_of(s);
    return inner->driver->size(inner, name, out);
}

static err readonly_remove(struct store *s, const char *name)
{
    (void)s, (void)name;
    return ERR_DENIED;
}

static err readonly_list(struct store *s, const char *prefix,
                         err (*each)(void *arg, const char *name, u64 bytes), void *arg)
{
    struct store *inner = inner_of(s);
    return inner->driver->list(inner, prefix, each, arg);
}

static void readonly_metrics(struct store *s, struct metric_text *t)
{
    struct store *inner = inner_of(s);
    if (inner->driver->metrics)
        inner->driver->metrics(inner, t);
}

static const struct store_driver readonly_driver = {
    .scheme = "readonly",
    .close = readonly_close,
    .put = readonly_put,
    .get_range = readonly_get_range,
    .size = readonly_size,
    .remove = readonly_remove,
    .list = readonly_list,
    .metrics = readonly_metrics,
};

struct store *store_readonly(struct store *inner)
{
    struct store_readonly *r = MEM_NEW(struct store_readonly);
    r->base.driver = &readonly_driver;
    r->inner = inner;
    return &r->base;
}
