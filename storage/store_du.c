/* How much of the store each topic and partition takes, from the registrations alone.
 *
 * A bundle is shared: a partition is charged with its blocks in it. What is left of an object
 * (header, index, footer, gaps, and blocks that were left out of the registration) is nobody's:
 * overhead. So the bytes of all partitions and the overhead are those of all registered objects. Of
 * a partition's bytes, those are dead that nobody can read any more: below the log start,
 * superseded by a run, or of a topic that was deleted; and no clone reads them. They go with their
 * object. What a clone shares is charged to whose it was.
 *
 * One pass over the keys r/ (for what runs stand for), p/ (log starts), b/ and r/, in one
 * background job in the lane of transactions: some 10 µs an object. */
#include "store_job_int.h"

#include <stdlib.h>

#include "clone_int.h"
#include "discard.h"

struct span { /* of a run: the offsets it stands for */
    i64 from, to;
};

struct use {
    u64 objects, blocks, bytes, dead_bytes;
    u64 last_object; /* + 1; an object is counted once */
};

struct part_use {
    struct partition_key key;
    struct use use;
    i64 start, from, to; /* log start; of the blocks */
    struct span *spans;
    u32 span_count, span_cap;
    struct part_use *next; /* of the topic */
    UT_hash_handle hh;
};

struct topic_use {
    struct uuid id;
    struct use use;
    const char *name;       /* NULL: deleted */
    u64 shared_bytes;       /* of a clone: charged to whose they were */
    struct part_use *parts; /* ascending, once all is read */
    UT_hash_handle hh;
};

struct lent { /* a block that a clone reads */
    u64 object;
    u32 pos;
};

struct du {
    struct lent *lent; /* sorted before objects are read */
    u32 lent_count, lent_cap;
    struct part_use *parts;
    struct topic_use *topics;
    struct topic_names names;
    u64 serial, objects, bytes, runs, overhead, discarded, discarded_bytes;
    struct metric_text text; /* the result */
    err err;
};

static struct part_use *part_of(struct du *d, const struct partition_key *key)
{
    struct part_use *p;
    HASH_FIND(hh, d->parts, key, sizeof *key, p);
    if (p != NULL)
        return p;
    p = MEM_NEW(struct part_use);
    p->key = *key;
    p->from = -1;
    HASH_ADD(hh, d->parts, key, sizeof p->key, p);
    return p;
}

static struct topic_use *topic_of(struct du *d, struct uuid id)
{
    struct topic_use *t;
    HASH_FIND(hh, d->topics, &id, sizeof id, t);
    if (t != NULL)
        return t;
    t = MEM_NEW(struct topic_use);
    t->id = id;
    t->name = topic_names_find(&d->names, id);
    HASH_ADD(hh, d->topics, id, sizeof t->id, t);
    return t;
}

/* ---- reading the keys ---- */

static err start_one(void *arg, const struct meta_kv *kv)
{
    struct du *d = arg;
    struct partition_key key;
    if (meta_key_partition_parse(kv->key, &key) && kv->value.len == 16)
        part_of(d, &key)->start = (i64)get_le64(kv->value.data + 8);
    return ERR_NONE;
}

static err span_one(void *arg, const struct meta_kv *kv)
{
    struct du *d = arg;
    struct bundle_reg reg;
    struct partition_key key;
    struct block b;
    bool covers = bundle_reg_decode(kv->value, &reg) == ERR_NONE && reg.run && !reg.retired;
    if (!covers || reg.block_count == 0)
        return ERR_NONE;
    bundle_reg_get(&reg, 0, 0, &key, &b);
    struct part_use *p = part_of(d, &key);
    if (p->span_count == p->span_cap) {
        p->span_cap = MAX(4, p->span_cap * 2);
        p->spans = mem_realloc(p->spans, p->span_cap * sizeof *p->spans);
    }
    p->spans[p->span_count++] = (struct span){ reg.cover_from, reg.cover_to };
    return ERR_NONE;
}

static int span_compare(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

static bool superseded(const struct part_use *p, const struct block *b)
{
    u32 lo = 0, hi = p->span_count; /* the first that ends behind the block's begin */
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (p->spans[mid].to <= b->base_offset)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < p->span_count && p->spans[lo].from <= b->base_offset;
}

static int lent_compare(const void *a, const void *b)
{
    const struct lent *x = a, *y = b;
    if (x->object != y->object)
        return x->object < y->object ? -1 : 1;
    return (x->pos > y->pos) - (x->pos < y->pos);
}

static bool is_lent(const struct du *d, u64 object, u32 pos)
{
    struct lent key = { object, pos };
    return d->lent_count > 0 &&
           bsearch(&key, d->lent, d->lent_count, sizeof key, lent_compare) != NULL;
}

static err clone_one(void *arg, const struct meta_kv *kv)
{
    struct du *d = arg;
    struct partition_key key, origin;
    struct block b;
    u32 count;
    err e = clone_decode_kv(kv, &key, &count);
    if (e != ERR_NONE)
        return e;
    if (topic_names_find(&d->names, key.topic_id) == NULL)
        return ERR_NONE; /* was not made in the end */
    const struct part_use *p = part_of(d, &key);
    for (u32 i = 0; i < count; i++) {
        clone_decode_block(kv->value, i, &origin, &b);
        if (b.last_offset < p->start || superseded(p, &b))
            continue;
        if (d->lent_count == d->lent_cap) {
            d->lent_cap = MAX(256, d->lent_cap * 2);
            d->lent = mem_realloc(d->lent, d->lent_cap * sizeof *d->lent);
        }
        d->lent[d->lent_count++] = (struct lent){ b.bundle, b.pos };
        topic_of(d, key.topic_id)->shared_bytes += b.bytes;
    }
    return ERR_NONE;
}

static void use_add(struct use *u, u64 serial, u64 bytes, bool dead)
{
    u->objects += u->last_object != serial;
    u->last_object = serial;
    u->blocks++;
    u->bytes += bytes;
    u->dead_bytes += dead ? bytes : 0;
}

static err object_one(void *arg, const struct meta_kv *kv)
{
    struct du *d = arg;
    struct bundle_reg reg;
    u64 id;
    if (bundle_reg_decode(kv->value, &reg) != ERR_NONE || !meta_key_bundle_parse(kv->key, &id))
        return ERR_CORRUPT;
    d->serial++;
    d->objects++;
    d->runs += reg.run;
    d->bytes += reg.object_bytes;
    u64 blocks = 0;
    for (u32 i = 0; i < reg.block_count; i++) {
        struct partition_key key;
        struct block b;
        bundle_reg_get(&reg, i, id, &key, &b);
        struct part_use *p = part_of(d, &key);
        struct topic_use *t = topic_of(d, key.topic_id);
        bool left = t->name == NULL || b.last_offset < p->start || reg.retired ||
                    (!reg.run && superseded(p, &b));
        bool dead = left && !is_lent(d, id, b.pos);
        use_add(&p->use, d->serial, b.bytes, dead);
        use_add(&t->use, d->serial, b.bytes, dead);
        if (!left) {
            p->from = p->from < 0 ? b.base_offset : MIN(p->from, b.base_offset);
            p->to = MAX(p->to, b.last_offset + 1);
        }
        blocks += b.bytes;
    }
    d->overhead += reg.object_bytes - MIN(blocks, reg.object_bytes);
    return ERR_NONE;
}

static err discarded_one(void *arg, const struct meta_kv *kv)
{
    struct du *d = arg;
    struct discarded object;
    if (discard_decode(kv, &object) != ERR_NONE)
        return ERR_NONE;
    d->discarded++;
    d->discarded_bytes += object.bytes;
    return ERR_NONE;
}

/* ---- the result ---- */

static int part_order(const struct part_use *a, const struct part_use *b)
{
    return (a->key.partition < b->key.partition) - (a->key.partition > b->key.partition);
}

static int topic_order(const struct topic_use *a, const struct topic_use *b)
{
    return (a->use.bytes < b->use.bytes) - (a->use.bytes > b->use.bytes); /* the largest first */
}

static void use_show(const struct use *u, struct metric_text *out)
{
    metric_text_add(out,
                    "\"objects\":%" PRIu64 ",\"blocks\":%" PRIu64 ",\"bytes\":%" PRIu64
                    ",\"dead_bytes\":%" PRIu64,
                    u->objects, u->blocks, u->bytes, u->dead_bytes);
}

static void topic_show(const struct topic_use *t, struct metric_text *out)
{
    char id[33];
    topic_id_text(t->id, id);
    metric_text_add(out, "{\"id\":\"%s\",\"name\":\"%s\",\"deleted\":%s,", id,
                    t->name != NULL ? t->name : "", t->name != NULL ? "false" : "true");
    use_show(&t->use, out);
    metric_text_add(out, ",\"shared_bytes\":%" PRIu64 ",\"partitions\":[", t->shared_bytes);
    for (const struct part_use *p = t->parts; p != NULL; p = p->next) {
        metric_text_add(out, "%s{\"partition\":%u,\"from\":%" PRId64 ",\"to\":%" PRId64 ",",
                        p == t->parts ? "" : ",", p->key.partition, p->from, p->to);
        use_show(&p->use, out);
        metric_text_add(out, "}");
    }
    metric_text_add(out, "]}");
}

static void result(struct du *d)
{
    metric_text_add(&d->text,
                    ",\"objects\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"runs\":%" PRIu64
                    ",\"overhead_bytes\":%" PRIu64 ",\"discarded_objects\":%" PRIu64
                    ",\"discarded_bytes\":%" PRIu64 ",\"topics\":[",
                    d->objects, d->bytes, d->runs, d->overhead, d->discarded, d->discarded_bytes);
    HASH_SORT(d->parts, part_order);
    HASH_SORT(d->topics, topic_order);
    struct part_use *p, *next_part;
    HASH_ITER(hh, d->parts, p, next_part) { /* descending: each goes to the front */
        if (p->use.blocks == 0)
            continue;
        struct topic_use *t = topic_of(d, p->key.topic_id);
        p->next = t->parts;
        t->parts = p;
    }
    struct topic_use *t, *next;
    HASH_ITER(hh, d->topics, t, next) {
        metric_text_add(&d->text, "%s", t == d->topics ? "" : ",");
        topic_show(t, &d->text);
    }
    metric_text_add(&d->text, "]");
}

static void du_run(struct bg_job *b)
{
    const struct store_job *j = container_of(b, struct store_job, bg);
    struct meta *m = j->st->env->meta;
    struct du *d = j->work;
    struct part_use *p, *next;
    d->err = topic_names_load(&d->names, m);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("p/"), start_one, d);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("r/"), span_one, d);
    HASH_ITER(hh, d->parts, p, next)
        if (p->span_count > 0)
            qsort(p->spans, p->span_count, sizeof *p->spans, span_compare);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("k/"), clone_one, d);
    if (d->lent_count > 0)
        qsort(d->lent, d->lent_count, sizeof *d->lent, lent_compare);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("r/"), object_one, d);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("b/"), object_one, d);
    if (d->err == ERR_NONE)
        d->err = meta_range(m, bytes_str("d/"), discarded_one, d);
    if (d->err == ERR_NONE)
        result(d);
}

static void du_done(struct store_job *j)
{
    const struct du *d = j->work;
    bool full = d->err == ERR_NONE && d->text.full;
    store_job_end(j,
                  d->err != ERR_NONE ? "read the registrations"
                  : full             ? "show so much"
                                     : NULL,
                  full ? ERR_NO_MEMORY : d->err);
}

static void du_begin(struct store_job *j)
{
    store_job_bg(j, BG_META, du_run, du_done);
}

static void du_show(const struct store_job *j, struct metric_text *out)
{
    const struct du *d = j->work;
    if (d->text.data != NULL && !d->text.full)
        metric_text_add(out, "%s", d->text.data);
}

static void du_release(struct store_job *j)
{
    struct du *d = j->work;
    struct part_use *p, *next_part;
    HASH_ITER(hh, d->parts, p, next_part) {
        HASH_DEL(d->parts, p);
        mem_free(p->spans);
        mem_free(p);
    }
    struct topic_use *t, *next_topic;
    HASH_ITER(hh, d->topics, t, next_topic) {
        HASH_DEL(d->topics, t);
        mem_free(t);
    }
    topic_names_free(&d->names);
    mem_free(d->lent);
    metric_text_free(&d->text);
}

const struct store_job_ops store_du_ops = {
    .name = "du",
    .work_bytes = sizeof(struct du),
    .begin = du_begin,
    .show = du_show,
    .release = du_release,
};
