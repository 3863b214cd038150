/* Everything a Produce request's records go through, on any bytes. Byte 0: the topic's settings.
 * The CRC is made right first, or nothing would get past it. What validation accepts must, after
 * the patching or rebuilding it asked for, be accepted again without asking for more. */
#include <stdlib.h>

#include "batch.h"
#include "check.h"
#include "crc32c.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define LIMIT (256 * KIB)

static struct compressor *comp;

static void walk(const struct batch *b)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    struct header_iter hi;
    struct header h;
    u64 sum = 0;
    bool commit;
    i32 epoch;
    i64 offset, timestamp;
    (void)!batch_parse_marker(b, &commit, &epoch);
    (void)!batch_find_timestamp(comp, b, b->base_timestamp, LIMIT, &offset, &timestamp);
    (void)!batch_find_max_timestamp(comp, b, LIMIT, &offset, &timestamp);
    if (batch_decode(comp, b, LIMIT, &plain))
        return;
    record_iter_init(&it, b, plain);
    while (record_next(&it, &r) == ERR_NONE) {
        for (u32 i = 0; i < r.raw.len; i++)
            sum += r.raw.data[i];
        sum += r.key.len ? r.key.data[r.key.len - 1] : 0;
        sum += r.value.len ? r.value.data[r.value.len - 1] : 0;
        header_iter_init(&hi, &r);
        while (header_next(&hi, &h))
            sum += h.key.len + (h.value.len ? h.value.data[h.value.len - 1] : 0u);
    }
    CHECK(sum < UINT64_MAX);
}

static struct batch_rules rules_from(u8 byte)
{
    return (struct batch_rules){
        .codec = (byte & 7) < CODEC_COUNT ? byte & 7 : BATCH_CODEC_PRODUCER,
        .level = COMPRESS_LEVEL_DEFAULT,
        .log_append_time = byte & 8,
        .compacted = byte & 16,
        .deep = byte & 32,
        .now_ms = 1700000000000,
        .before_max_ms = byte & 64 ? 1000 : INT64_MAX,
        .after_max_ms = byte & 64 ? 1000 : INT64_MAX,
        .max_message_bytes = MIB,
        .max_decoded_bytes = LIMIT,
    };
}

static void append(u8 *data, const struct batch *b, const struct batch_rules *rules)
{
    struct batch_verdict v;
    struct arena a;
    struct batch again;
    struct bytes out = bytes_of(data, b->bytes);
    err e = batch_validate(comp, b, rules, &v);
    CHECK((e == ERR_NONE) == (v.reason == NULL));
    if (e)
        return;
    arena_init(&a, 4096, 4 * MIB);
    if (v.rebuild) {
        e = batch_rebuild(comp, b, rules, &v, &a, &out);
        CHECK(e == ERR_NONE || e == ERR_MESSAGE_TOO_LARGE);
    } else if (v.retime) {
        batch_patch_timestamps(data, rules->log_append_time, v.max_timestamp);
    }
    if (e == ERR_NONE) {
        CHECK(batch_parse(out, &again) == ERR_NONE);
        e = batch_validate(comp, &again, rules, &v);
        CHECK(e == ERR_NONE || e == ERR_MESSAGE_TOO_LARGE);
        CHECK(e || (!v.rebuild && !v.retime));
        walk(&again);
    }
    arena_free(&a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct batch b;
    if (!comp)
        comp = compressor_new();
    if (size < 1 || size > MIB)
        return 0;
    struct batch_rules rules = rules_from(data[0]);
    u8 *copy = mem_dup(data + 1, size - 1);
    struct bytes in = bytes_of(copy, (u32)size - 1), rest = in;
    while (batch_next(&rest, &b) == ERR_NONE)
        walk(&b);
    if (batch_parse_produce(in, &b) == ERR_NONE) {
        put_be32(copy + BATCH_AT_CRC,
                 crc32c(0, copy + BATCH_AT_ATTRIBUTES, b.bytes - BATCH_AT_ATTRIBUTES));
        CHECK(batch_parse_produce(in, &b) == ERR_NONE);
        append(copy, &b, &rules);
    }
    mem_free(copy);
    return 0;
}
