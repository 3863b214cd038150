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
