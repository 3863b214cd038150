/* Random messages for tests and fuzzing: every field the version carries gets a value, null where
 * the version allows it; tagged fields often keep their default. Expanded from messages/all.def. */
#include "codec_int.h"

struct dice {
    struct rng *rng;
    struct arena *arena;
    bool failed; /* the arena is exhausted */
};

#define RANDOM_BYTES_MAX 12
#define RANDOM_COUNT_MAX 3

static bool dice_one_in(struct dice *d, u64 n)
{
    return rng_below(d->rng, n) == 0;
}

#ifdef LEAT_FUZZ
struct codec_random_words codec_random_words;

/* One of the words, or nothing. */
static struct bytes dice_word(struct dice *d, const struct bytes *words, u32 count)
{
    return count && !dice_one_in(d, 4) ? words[rng_below(d->rng, count)] : CODEC_BYTES_NIL;
}
#define DICE_TEXT(d) dice_word(d, codec_random_words.texts, codec_random_words.text_count)
#define DICE_RECORDS(d) dice_word(d, codec_random_words.records, codec_random_words.record_count)
#else
#define DICE_TEXT(d) CODEC_BYTES_NIL
#define DICE_RECORDS(d) CODEC_BYTES_NIL
#endif

/* Small, large, negative: the low bits of a number with a random count of bits. */
static u64 dice_u64(struct dice *d)
{
    u64 v = rng_next(d->rng) >> rng_below(d->rng, 64);
    return dice_one_in(d, 4) ? ~v : v;
}

#define dice_boolean(d) ((rng_next((d)->rng) & 1) != 0)
#define dice_i8(d) ((i8)dice_u64(d))
#define dice_i16(d) ((i16)dice_u64(d))
#define dice_u16(d) ((u16)dice_u64(d))
#define dice_i32(d) ((i32)dice_u64(d))
#define dice_u32(d) ((u32)dice_u64(d))
#define dice_i64(d) ((i64)dice_u64(d))
#define dice_f64(d) ((f64)(i64)dice_u64(d) / 1024.0)

static struct uuid dice_uuid(struct dice *d)
{
#ifdef LEAT_FUZZ
    const struct codec_random_words *w = &codec_random_words;
    if (w->id_count && !dice_one_in(d, 4))
        return w->ids[rng_below(d->rng, w->id_count)];
#endif
    return rng_uuid(d->rng);
}

/* Printable ASCII when `text`, else any bytes; sometimes long enough for a two-byte length. */
static struct bytes dice_bytes(struct dice *d, bool nullable, bool text)
{
    if (nullable && dice_one_in(d, 4))
        return CODEC_BYTES_NIL;
    struct bytes word = text ? DICE_TEXT(d) : CODEC_BYTES_NIL;
    if (word.data)
        return word;
    u32 len = (u32)rng_below(d->rng, dice_one_in(d, 32) ? 300 : RANDOM_BYTES_MAX + 1);
    u8 *p = arena_alloc(d->arena, len);
    if (!p) {
        d->failed = true;
        return CODEC_BYTES_EMPTY;
    }
    for (u32 i = 0; i < len; i++)
        p[i] = (u8)(text ? ' ' + rng_below(d->rng, 95) : rng_next(d->rng));
    return bytes_of(p, len);
}

static struct bytes dice_records(struct dice *d, bool nullable)
{
    struct bytes word = DICE_RECORDS(d);
    return word.data ? word : dice_bytes(d, nullable, false);
}

static void *dice_array(struct dice *d, bool nullable, size_t element_bytes, i32 *n)
{
    *n = -1;
    if (nullable && dice_one_in(d, 4))
        return NULL;
    *n = (i32)rng_below(d->rng, RANDOM_COUNT_MAX + 1);
    void *v = arena_alloc(d->arena, (u64)*n * element_bytes);
    if (!v) {
        d->failed = true;
        *n = 0;
    }
    return v;
}

#define RANDOM_value(type, name, null) m->name = dice_##type(d);
#define RANDOM_string(type, name, null) m->name = dice_bytes(d, null, true);
#define RANDOM_string16(type, name, null) m->name = dice_bytes(d, null, true);
#define RANDOM_bytes(type, name, null) m->name = dice_bytes(d, null, false);
#define RANDOM_records(type, name, null) m->name = dice_records(d, null);
#define RANDOM_struct(type, name, null) type##_roll(d, v, &m->name);
#define RANDOM_nullable(type, name, null)                                                      \
    {                                                                                          \
        m->name = (null) && dice_one_in(d, 3) ? NULL : arena_alloc(d->arena, sizeof *m->name); \
        if (m->name)                                                                           \
            type##_roll(d, v, m->name);                                                        \
    }
#define RANDOM_optional(type, name, null) RANDOM_nullable(type, name, null)
#define RANDOM_ARRAY(name, null, ROLL_ELEMENT)                          \
    {                                                                   \
        m->name.v = dice_array(d, null, sizeof *m->name.v, &m->name.n); \
        for (i32 i = 0; i < m->name.n; i++)                             \
            ROLL_ELEMENT;                                               \
    }
#define RANDOM_values(type, name, null) RANDOM_ARRAY(name, null, m->name.v[i] = dice_##type(d))
#define RANDOM_strings(type, name, null) \
    RANDOM_ARRAY(name, null, m->name.v[i] = dice_bytes(d, false, true))
#define RANDOM_structs(type, name, null) RANDOM_ARRAY(name, null, type##_roll(d, v, &m->name.v[i]))

#define BEGIN(x, flexible_from)                                    \
    static void x##_roll(struct dice *d, const int v, struct x *m) \
    {                                                              \
        (void)d;                                                   \
        (void)v;                                                   \
        x##_init(m);
#define FIELD(kind, type, name, from, to, null_from, dflt)      \
    if (CODEC_IN(v, from, to)) {                                \
        RANDOM_##kind(type, name, CODEC_NULLABLE(v, null_from)) \
    }
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    if (!dice_one_in(d, 3))                                      \
    FIELD(kind, type, name, from, to, null_from, dflt)
#define END(x) }
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability)           \
    bool x##_random(struct rng *rng, i16 version, struct arena *a, struct x *out) \
    {                                                                             \
        struct dice d = { .rng = rng, .arena = a };                               \
        x##_roll(&d, version, out);                                               \
        return !d.failed;                                                         \
    }
#include "all.def"
