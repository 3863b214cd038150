/* Record batches for tests. */
#ifndef LEAT_BATCHES_H
#define LEAT_BATCHES_H

#include <stdlib.h>

#include "batch.h"
#include "check.h"

/* One batch of `count` records, each with a value of `value_bytes`, timestamps from `ts` on. The
 * caller frees it (mem_free). */
static inline struct bytes batch_make(i64 base_offset, u32 count, u32 value_bytes, i64 ts)
{
    struct batch_builder b;
    batch_builder_init(&b, 64 << 20);
    u8 *value = mem_alloc(value_bytes + 1);
    for (u32 i = 0; i < value_bytes; i++)
        value[i] = (u8)(base_offset * 31 + i * 7);
    b.base_offset = base_offset;
    for (u32 i = 0; i < count; i++)
        CHECK(batch_builder_add(&b, ts + (i64)i, (struct bytes){ NULL, 0 },
                                bytes_of(value, value_bytes), NULL, 0) == ERR_NONE);
    struct bytes out;
    CHECK(batch_builder_finish(&b, NULL, &out) == ERR_NONE);
    out.data = mem_dup(out.data, out.len);
    batch_builder_free(&b);
    mem_free(value);
    return out;
}
static inline void batch_drop(struct bytes b)
{
    union {
        const u8 *in;
        void *out;
    } p = { .in = b.data };
    mem_free(p.out);
}

#endif
