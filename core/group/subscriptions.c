/* What the members of a group read, as one sorted array: asked for every topic of a request or
 * every offset of the group, it must not be gathered from all subscriptions each time. */
#include <stdlib.h>

#include "group_int.h"

static int name_order(const void *a, const void *b)
{
    return bytes_cmp(*(const struct bytes *)a, *(const struct bytes *)b);
}

/* Sorts, and leaves each name once. */
static void names_sort(struct subscriptions *s)
{
    u32 kept = 0;
    if (s->count > 0)
        qsort(s->names, s->count, sizeof *s->names, name_order);
    for (u32 i = 0; i < s->count; i++)
        if (kept == 0 || !bytes_eq(s->names[kept - 1], s->names[i]))
            s->names[kept++] = s->names[i];
    s->count = kept;
}

/* Members mostly read the same: room grows with the names that differ, not with the members. */
static void names_add(struct subscriptions *s, struct bytes name)
{
    if (s->count == s->room) {
        names_sort(s);
        if (s->count >= s->room / 2) {
            s->room = MAX(2 * s->room, 16u);
            s->names = mem_realloc(s->names, s->room * sizeof *s->names);
        }
    }
    s->names[s->count++] = name;
}

/* Of the consumers' protocol: i16 version, i32 count, count names; more follows. */
static void names_of_metadata(struct subscriptions *s, struct bytes metadata)
{
    u32 n = metadata.len >= 6 ? get_be32(metadata.data + 2) : 0, at = 6;
    for (u32 k = 0; k < n && at + 2 <= metadata.len; k++) {
        u32 len = get_be16(metadata.data + at);
        if (at + 2 + len <= metadata.len)
            names_add(s, bytes_of(metadata.data + at + 2, len));
        at += 2 + len;
    }
}

void subscriptions_read(struct subscriptions *s, const struct group *g)
{
    struct member *m, *next;
    *s = (struct subscriptions){ NULL, 0, 0 };
    HASH_ITER(hh, g->members, m, next)
        for (u32 i = 0; i < m->protocol_count; i++)
            names_of_metadata(s, m->protocols[i].metadata);
    names_sort(s);
}

bool subscriptions_name(const struct subscriptions *s, struct bytes topic)
{
    return s->count > 0 &&
           bsearch(&topic, s->names, s->count, sizeof *s->names, name_order) != NULL;
}

void subscriptions_free(struct subscriptions *s)
{
    mem_free(s->names);
    *s = (struct subscriptions){ NULL, 0, 0 };
}
