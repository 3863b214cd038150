/* The table of message types, look-up by API key, and header versions. Expanded from
 * messages/all.def and messages/apis.def. */
#include "check.h"
#include "codec_int.h"

/* The functions of one message behind void pointers. */
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability)                       \
    static err x##_decode_any(struct wire_reader *r, i16 version, struct arena *a, void *out) \
    {                                                                                         \
        return x##_decode(r, version, a, out);                                                \
    }                                                                                         \
    static void x##_encode_any(struct wire_writer *w, i16 version, const void *m)             \
    {                                                                                         \
        x##_encode(w, version, m);                                                            \
    }                                                                                         \
    static u32 x##_size_any(i16 version, const void *m, bool scatter)                         \
    {                                                                                         \
        return x##_size(version, m, scatter);                                                 \
    }                                                                                         \
    static u32 x##_print_any(i16 version, const void *m, char *buf, u32 cap)                  \
    {                                                                                         \
        return x##_print(version, m, buf, cap);                                               \
    }                                                                                         \
    static bool x##_random_any(struct rng *rng, i16 version, struct arena *a, void *out)      \
    {                                                                                         \
        return x##_random(rng, version, a, out);                                              \
    }                                                                                         \
    static void x##_init_any(void *m)                                                         \
    {                                                                                         \
        x##_init(m);                                                                          \
    }
#include "all.def"

#define TABLE_STABLE false
#define TABLE_UNSTABLE true
#define MESSAGE(x, kafka_name, key, min_version, max_version, flexible, stability) \
    [MSG_##x] = {                                                                  \
        .name = #kafka_name,                                                       \
        .api_key = (key),                                                          \
        .min = (min_version),                                                      \
        .max = (max_version),                                                      \
        .flexible_from = (flexible),                                               \
        .latest_unstable = TABLE_##stability,                                      \
        .struct_bytes = sizeof(struct x),                                          \
        .decode = x##_decode_any,                                                  \
        .encode = x##_encode_any,                                                  \
        .size = x##_size_any,                                                      \
        .print = x##_print_any,                                                    \
        .random = x##_random_any,                                                  \
        .init = x##_init_any,                                                      \
    },
static const struct message_type types[MSG_COUNT] = {
#include "all.def"
};

#define API_KEYS_MAX 128
#define NEVER CODEC_VERSION_NEVER
/* Per key: the request's id + 1, so that 0 is "no such key". */
static const u16 requests[API_KEYS_MAX] = {
#define API(key, name, min, max, flexible_from, broker) [key] = MSG_##name##_request + 1,
#include "apis.def"
#undef API
};
static const u16 responses[API_KEYS_MAX] = {
#define API(key, name, min, max, flexible_from, broker) [key] = MSG_##name##_response + 1,
#include "apis.def"
#undef API
};
#undef NEVER

#define API_KEY_API_VERSIONS 18

const struct message_type *message_type(enum message_id id)
{
    CHECK(id < MSG_COUNT);
    return &types[id];
}

static const struct message_type *table_find(const u16 *ids, i16 api_key)
{
    if (api_key < 0 || api_key >= API_KEYS_MAX || ids[api_key] == 0)
        return NULL;
    const struct message_type *t = &types[ids[api_key] - 1];
    CHECK(t->api_key == api_key);
    return t;
}

const struct message_type *message_request_type(i16 api_key)
{
    return table_find(requests, api_key);
}

const struct message_type *message_response_type(i16 api_key)
{
    return table_find(responses, api_key);
}

i16 request_header_version(i16 api_key, i16 version)
{
    const struct message_type *t = message_request_type(api_key);
    return t && CODEC_FLEXIBLE(version, t->flexible_from) ? 2 : 1;
}

i16 response_header_version(i16 api_key, i16 version)
{
    const struct message_type *t = message_response_type(api_key);
    if (api_key == API_KEY_API_VERSIONS)
        return 0;
    return t && CODEC_FLEXIBLE(version, t->flexible_from) ? 1 : 0;
}
