/* Key compaction of any batch. Byte 0: the clock, and whether the batch ends the range. What the
 * filter leaves must parse, cover the same offsets, and pass the filter a second time as it is. */
#include "../../storage/compact_int.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static bool filter(struct compaction *c, struct bytes in, bool keep, struct bytes *out)
{
    struct batch b, left;
    err e = batch_parse(in, &b);
    CHECK(e == ERR_NONE);
    if (c->filter.batch(&c->filter, &b, keep, out) != ERR_NONE)
        return false;
    if (out->len == 0) {
        CHECK(!keep);
        return false;
    }
    e = batch_parse(*out, &left);
    CHECK(e == ERR_NONE);
    CHECK(left.bytes == out->len);
    CHECK(left.base_offset == b.base_offset && left.last_offset_delta == b.last_offset_delta);
    CHECK(left.record_count <= b.record_count);
    CHECK(out->data == b.data || batch_check_crc(&left) == ERR_NONE);
    return true;
}

int LLVMFuzzerTestOneInput(const u8 *in, size_t size)
{
    if (size < 1 + BATCH_HEADER_BYTES || size > 1 << 20)
        return 0;
    struct compaction c;
    struct batch b;
    struct bytes left, again;
    compaction_init(&c, 0, in[0] & 1 ? INT64_MAX / 2 : 1700000000000, 1000);
    err e = key_map_init(&c.map, 64 * KIB, in[0] & 2 ? 4 : 1000, 1);
    CHECK(e == ERR_NONE);
    u8 *copy = mem_dup(in + 1, size - 1); /* of the exact size */
    struct bytes data = bytes_of(copy, (u32)size - 1);
    if (batch_parse(data, &b) == ERR_NONE) {
        data.len = b.bytes;
        e = compaction_map(&c, data);
        if ((e == ERR_NONE || e == ERR_BUSY) && filter(&c, data, in[0] & 4, &left)) {
            u8 *kept = mem_dup(left.data, left.len);
            if (filter(&c, bytes_of(kept, left.len), true, &again))
                CHECK(again.len == left.len && memcmp(again.data, kept, again.len) == 0);
            mem_free(kept);
        }
    }
    mem_free(copy);
    compaction_free(&c);
    return 0;
}
