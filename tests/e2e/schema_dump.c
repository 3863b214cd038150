/* leat-schema: what the tests outside C need to know of the message schema.
 *
 *     leat-schema                   structs, fields, messages, APIs: one JSON object a line
 *     leat-schema --samples SEED N  random messages as "KafkaName version hex", N per version
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "codec.h"

struct field_row {
    const char *parent, *kind, *type, *name, *dflt;
    i32 tag, from, to, null_from; /* tag -1: not tagged */
};

static const struct field_row fields[] = {
#define BEGIN(x, flexible_from) { #x, NULL, NULL, NULL, NULL, -1, flexible_from, 0, 0 },
#define FIELD(kind, type, name, from, to, null_from, dflt) \
    { NULL, #kind, #type, #name, #dflt, -1, from, to, null_from },
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    { NULL, #kind, #type, #name, #dflt, tag, from, to, null_from },
#include "all.def"
};

static const char *const structs[MSG_COUNT] = {
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability) #x,
#include "all.def"
};

static void dump_schema(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        const struct field_row *f = &fields[i];
        if (f->parent) {
            printf("{\"struct\":\"%s\",\"flexible\":%d}\n", f->parent, f->from);
            continue;
        }
        printf("{\"field\":\"%s\",\"kind\":\"%s\",\"type\":\"%s\",\"from\":%d,\"to\":%d,"
               "\"null\":%d,\"tag\":%d,\"default\":\"%s\"}\n",
               f->name, f->kind, f->type, f->from, f->to, f->null_from, f->tag, f->dflt);
    }
    for (u32 id = 0; id < MSG_COUNT; id++) {
        const struct message_type *t = message_type((enum message_id)id);
        printf("{\"message\":\"%s\",\"root\":\"%s\",\"key\":%d,\"min\":%d,\"max\":%d,"
               "\"flexible\":%d,\"unstable\":%s}\n",
               t->name, structs[id], t->api_key, t->min, t->max, t->flexible_from,
               t->latest_unstable ? "true" : "false");
    }
#define NEVER CODEC_VERSION_NEVER
#define API(key, name, min, max, flexible_from, broker)                                          \
    printf("{\"api\":%d,\"name\":\"%s\",\"min\":%d,\"max\":%d,\"flexible\":%d,\"broker\":%s}\n", \
           key, #name, min, max, flexible_from, (broker) ? "true" : "false");
#include "apis.def"
#undef API
#undef NEVER
}

static void dump_sample(const struct message_type *t, i16 version, struct rng *rng)
{
    struct arena a;
    arena_init(&a, 64 * KIB, 64 * MIB);
    void *m = arena_alloc(&a, t->struct_bytes);
    CHECK(m && t->random(rng, version, &a, m));
    u32 size = t->size(version, m, false);
    u8 *buf = arena_alloc(&a, size);
    CHECK(buf != NULL);
    struct wire_writer w = wire_writer_of(buf, size);
    t->encode(&w, version, m);
    CHECK(!w.bad && w.len == size);
    printf("%s %d ", t->name, version);
    for (u32 i = 0; i < size; i++)
        printf("%02x", buf[i]);
    printf("\n");
    arena_free(&a);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        dump_schema();
        return 0;
    }
    struct rng rng;
    rng_init(&rng, strtoull(argv[2], NULL, 0));
    long n = strtol(argv[3], NULL, 0);
    for (u32 id = 0; id < MSG_COUNT; id++) {
        const struct message_type *t = message_type((enum message_id)id);
        for (i32 v = t->min; v <= t->max; v++)
            for (long i = 0; i < n; i++)
                dump_sample(t, (i16)v, &rng);
    }
    return 0;
}
