/* What a request names more than once. Sorted instead of compared one with another: a request may
 * hold a hundred thousand names, and a shard does nothing else meanwhile. */
#include <stdlib.h>

#include "broker_int.h"
#include "check.h"

static int named_order(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int order = bytes_cmp(x->name, y->name);
    if (order == 0)
        order = (x->kind > y->kind) - (x->kind < y->kind);
    return order ? order : (x->at > y->at) - (x->at < y->at);
}

u8 *named_marks(struct call *c, struct named *v, i32 n)
{
    u8 *marks = CALL_ARRAY(c, u8, n);
    if (!marks || n == 0)
        return marks;
    qsort(v, (size_t)n, sizeof *v, named_order);
    for (i32 i = 1; i < n; i++) {
        CHECK(v[i].at >= 0 && v[i].at < n);
        if (v[i].kind == v[i - 1].kind && bytes_eq(v[i].name, v[i - 1].name)) {
            marks[v[i].at] = NAMED_BEFORE | NAMED_TWICE;
            marks[v[i - 1].at] |= NAMED_TWICE;
        }
    }
    return marks;
}

struct bytes named_topic(struct broker *b, struct bytes name, const struct uuid *id)
{
    const struct topic_entry *e = catalog_find(b, name, *id);
    if (e)
        return e->topic->name;
    return name.data && uuid_is_zero(*id) ? name : bytes_of(id->b, sizeof id->b);
}

/* ---- partitions of topics ---- */

struct list_of { /* any array of a decoded message */
    u8 *v;
    i32 n;
};

static u8 *topic_at(const struct named_shape *sh, const struct list_of *topics, i32 i)
{
    return topics->v + (size_t)i * sh->topic_bytes;
}

static struct list_of *partitions_at(const struct named_shape *sh, const struct list_of *topics,
                                     i32 i)
{
    return (struct list_of *)(void *)(topic_at(sh, topics, i) + sh->list_at);
}

/* A view of the request. */
static struct bytes topic_name(const struct named_shape *sh, const struct list_of *topics, i32 i)
{
    const u8 *t = topic_at(sh, topics, i);
    const struct bytes name = *(const struct bytes *)(const void *)(t + sh->name_at);
    return name.len > 0 || sh->id_at == NAMED_NO_ID ? name
                                                    : bytes_of(t + sh->id_at, sizeof(struct uuid));
}

/* first[i]: the place where topic i is named first. */
static bool firsts_find(struct call *c, const struct named_shape *sh, const struct list_of *topics,
                        i32 *first)
{
    struct named *names = CALL_ARRAY(c, struct named, topics->n);
    for (i32 i = 0; names && i < topics->n; i++)
        names[i] = (struct named){ topic_name(sh, topics, i), 0, i };
    const u8 *marks = names ? named_marks(c, names, topics->n) : NULL;
    for (i32 i = 0; marks && i < topics->n; i++) {
        bool again = marks[names[i].at] & NAMED_BEFORE;
        first[names[i].at] = again ? first[names[i - 1].at] : names[i].at;
    }
    return marks != NULL;
}

/* One entry a topic, with the partitions of all its entries. */
static bool topics_merge(struct call *c, const struct named_shape *sh, struct list_of *topics)
{
    i32 *first = CALL_ARRAY(c, i32, topics->n);
    i32 *sums = CALL_ARRAY(c, i32, topics->n);
    if (!first || !sums || !firsts_find(c, sh, topics, first))
        return false;
    i32 kept = 0;
    for (i32 i = 0; i < topics->n; i++)
        sums[first[i]] += MAX(partitions_at(sh, topics, i)->n, 0);
    for (i32 i = 0; i < topics->n; i++) {
        struct list_of *from = partitions_at(sh, topics, i);
        struct list_of *to = partitions_at(sh, topics, first[i]);
        if (first[i] == i && from->n < sums[i]) {
            u8 *v = arena_alloc(c->arena, (u64)sums[i] * sh->partition_bytes);
            if (!v)
                return false;
            if (from->n > 0)
                memcpy(v, from->v, (size_t)from->n * sh->partition_bytes);
            *from = (struct list_of){ v, MAX(from->n, 0) };
        } else if (first[i] != i && from->n > 0) {
            memcpy(to->v + (size_t)to->n * sh->partition_bytes, from->v,
                   (size_t)from->n * sh->partition_bytes);
            to->n += from->n;
        }
    }
    for (i32 i = 0; i < topics->n; i++)
        if (first[i] == i)
            memmove(topic_at(sh, topics, kept++), topic_at(sh, topics, i), sh->topic_bytes);
    topics->n = kept;
    return true;
}

/* One entry a partition; *twice moves behind the bytes written. */
static bool partitions_merge(struct call *c, const struct named_shape *sh, struct list_of *list,
                             u8 **twice)
{
    struct named *v = CALL_ARRAY(c, struct named, list->n);
    for (i32 i = 0; v && i < list->n; i++) {
        const void *index = list->v + (size_t)i * sh->partition_bytes + sh->index_at;
        v[i] = (struct named){ { NULL, 0 }, *(const i32 *)index, i };
    }
    const u8 *marks = v ? named_marks(c, v, list->n) : NULL;
    if (!marks)
        return false;
    for (i32 i = 0, head = 0; i < list->n; i++) { /* in order of partitions, then of places */
        if (!(marks[v[i].at] & NAMED_BEFORE))
            head = v[i].at;
        else
            memcpy(list->v + (size_t)head * sh->partition_bytes,
                   list->v + (size_t)v[i].at * sh->partition_bytes, sh->partition_bytes);
    }
    i32 kept = 0;
    for (i32 i = 0; i < list->n; i++) {
        if (marks[i] & NAMED_BEFORE)
            continue;
        *(*twice)++ = (marks[i] & NAMED_TWICE) != 0;
        memmove(list->v + (size_t)kept++ * sh->partition_bytes,
                list->v + (size_t)i * sh->partition_bytes, sh->partition_bytes);
    }
    list->n = kept;
    return true;
}

u8 *named_merge(struct call *c, const struct named_shape *sh, const void *array)
{
    struct list_of *topics = (struct list_of *)(uintptr_t)array;
    u64 total = 0;
    topics->n = MAX(topics->n, 0);
    for (i32 i = 0; i < topics->n; i++)
        total += (u64)MAX(partitions_at(sh, topics, i)->n, 0);
    u8 *twice = CALL_ARRAY(c, u8, total), *at = twice;
    if (twice && topics->n == 1 && total == 1)
        return twice; /* most Produce requests */
    if (!twice || !topics_merge(c, sh, topics))
        return NULL;
    for (i32 i = 0; i < topics->n; i++) {
        struct list_of *list = partitions_at(sh, topics, i);
        list->n = MAX(list->n, 0);
        if (!partitions_merge(c, sh, list, &at))
            return NULL;
    }
    CHECK(at <= twice + total);
    return twice;
}
