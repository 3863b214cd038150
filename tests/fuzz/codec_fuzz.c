/* Any bytes as any message: the first two bytes choose the message, the third the version, the
 * rest is the message. What decodes must survive the way back: same size as promised, and decoding
 * the encoding gives the same text. */
#include <string.h>

#include "check.h"
#include "codec.h"

#define TEXT_BYTES (4 * MIB)

int LLVMFuzzerTestOneInput(const u8 *data, size_t len);
size_t LLVMFuzzerMutate(u8 *data, size_t len, size_t len_max);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed);

/* A random valid message in the form of an input; 0 if it does not fit. */
static size_t random_input(u8 *data, size_t len_max, u64 seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    u32 id = (u32)rng_below(&rng, MSG_COUNT);
    const struct message_type *t = message_type((enum message_id)id);
    u32 version = (u32)rng_below(&rng, (u64)(t->max - t->min + 1));
    struct arena a;
    arena_init(&a, 16 * KIB, 64 * MIB);
    void *m = arena_alloc(&a, t->struct_bytes);
    CHECK(m != NULL && t->random(&rng, (i16)(t->min + version), &a, m));
    u32 size = t->size((i16)(t->min + version), m, false);
    if (size + 3 <= len_max) {
        put_be16(data, (u16)id);
        data[2] = (u8)version;
        struct wire_writer w = wire_writer_of(data + 3, size);
        t->encode(&w, (i16)(t->min + version), m);
        CHECK(!w.bad && w.len == size);
    }
    arena_free(&a);
    return size + 3 <= len_max ? size + 3 : 0;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed)
{
    if (seed % 8 == 0 && len_max > 3) {
        size_t n = random_input(data, len_max, seed);
        if (n > 0)
            return seed % 16 == 0 ? n : LLVMFuzzerMutate(data, n, len_max);
    }
    return LLVMFuzzerMutate(data, len, len_max);
}

static void check_way_back(const struct message_type *t, i16 version, const void *m,
                           struct arena *a)
{
    static char text[2][TEXT_BYTES];
    u32 size = t->size(version, m, false);
    CHECK(size != UINT32_MAX);
    u8 *buf = mem_alloc(size + 1);
    struct wire_writer w = wire_writer_of(buf, size);
    t->encode(&w, version, m);
    CHECK(!w.bad && w.len == size);
    struct wire_reader r = wire_reader_of(bytes_of(buf, size));
    void *back = arena_alloc(a, t->struct_bytes);
    CHECK(back != NULL);
    err e = t->decode(&r, version, a, back);
    if (e != ERR_NO_MEMORY) {
        CHECK(e == ERR_NONE && r.pos == r.end);
        t->print(version, m, text[0], TEXT_BYTES);
        t->print(version, back, text[1], TEXT_BYTES);
        CHECK(strcmp(text[0], text[1]) == 0);
    }
    mem_free(buf);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t len)
{
    if (len < 3)
        return 0;
    const struct message_type *t = message_type((enum message_id)(get_be16(data) % MSG_COUNT));
    i16 version = (i16)(t->min + data[2] % (t->max - t->min + 1));
    struct arena a;
    arena_init(&a, 16 * KIB, 1 * MIB);
    struct wire_reader r = wire_reader_of(bytes_of(data + 3, (u32)len - 3));
    void *m = arena_alloc(&a, t->struct_bytes);
    CHECK(m != NULL);
    err e = t->decode(&r, version, &a, m);
    CHECK(e == ERR_NONE || e == ERR_MALFORMED || e == ERR_NO_MEMORY);
    CHECK(r.pos <= r.end);
    if (e == ERR_NONE)
        check_way_back(t, version, m, &a);
    arena_free(&a);
    return 0;
}
