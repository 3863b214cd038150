/* The few Kafka messages leat-bench speaks, encoded by hand.
 *
 * The generator must not share the broker's codec: a mistake in it would then be invisible, and
 * the messages here must cost nothing. Versions are the highest that need no topic ids, down to
 * the first without magic 0 and 1, so that any broker of the last years can be driven.
 */
#include <stdio.h>

#include "bench.h"
#include "err.h"

u8 *wire_space(struct wbuf *w, u32 n)
{
    if (w->cap - w->len < n) {
        w->cap = MAX(w->cap * 2, w->len + n + 256);
        w->data = mem_realloc(w->data, w->cap);
    }
    u8 *at = w->data + w->len;
    w->len += n;
    return at;
}
void wire_i8(struct wbuf *w, i8 v)
{
    *wire_space(w, 1) = (u8)v;
}
void wire_i16(struct wbuf *w, i16 v)
{
    put_be16(wire_space(w, 2), (u16)v);
}
void wire_i32(struct wbuf *w, i32 v)
{
    put_be32(wire_space(w, 4), (u32)v);
}
void wire_i64(struct wbuf *w, i64 v)
{
    put_be64(wire_space(w, 8), (u64)v);
}
static void wire_uvarint64(struct wbuf *w, u64 v)
{
    for (; v >= 0x80; v >>= 7)
        *wire_space(w, 1) = (u8)(v | 0x80);
    *wire_space(w, 1) = (u8)v;
}
void wire_uvarint(struct wbuf *w, u32 v)
{
    wire_uvarint64(w, v);
}
void wire_varint(struct wbuf *w, i64 v)
{
    wire_uvarint64(w, ((u64)v << 1) ^ (u64)(v >> 63));
}
void wire_raw(struct wbuf *w, const void *p, u32 len)
{
    if (len > 0)
        memcpy(wire_space(w, len), p, len);
}
void wire_string(struct wbuf *w, bool flexible, const char *s)
{
    u32 len = s ? (u32)strlen(s) : 0;
    if (flexible)
        wire_uvarint(w, s ? len + 1 : 0);
    else
        wire_i16(w, s ? (i16)len : -1);
    wire_raw(w, s, len);
}
void wire_array(struct wbuf *w, bool flexible, u32 n)
{
    if (flexible)
        wire_uvarint(w, n + 1);
    else
        wire_i32(w, (i32)n);
}
void wire_tags(struct wbuf *w, bool flexible)
{
    if (flexible)
        wire_i8(w, 0);
}
void wire_free(struct wbuf *w)
{
    mem_free(w->data);
    *w = (struct wbuf){ 0 };
}

static const u8 *read_take(struct rbuf *r, u64 n)
{
    static const u8 zeros[8];
    if (r->bad || (u64)(r->end - r->p) < n) {
        r->bad = true;
        return zeros;
    }
    const u8 *at = r->p;
    r->p += n;
    return at;
}
i8 read_i8(struct rbuf *r)
{
    return (i8)*read_take(r, 1);
}
i16 read_i16(struct rbuf *r)
{
    return (i16)get_be16(read_take(r, 2));
}
i32 read_i32(struct rbuf *r)
{
    return (i32)get_be32(read_take(r, 4));
}
i64 read_i64(struct rbuf *r)
{
    return (i64)get_be64(read_take(r, 8));
}
u64 read_uvarint(struct rbuf *r)
{
    u64 v = 0;
    for (u32 shift = 0; shift < 64; shift += 7) {
        u8 b = *read_take(r, 1);
        v |= (u64)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}
i64 read_varint(struct rbuf *r)
{
    u64 v = read_uvarint(r);
    return (i64)(v >> 1) ^ -(i64)(v & 1);
}
void read_skip(struct rbuf *r, u64 n)
{
    read_take(r, n);
}
struct bytes read_string(struct rbuf *r, bool flexible)
{
    i64 len = flexible ? (i64)read_uvarint(r) - 1 : read_i16(r);
    if (len <= 0 || len > read_left(r)) {
        r->bad |= len > 0;
        return (struct bytes){ 0 };
    }
    return bytes_of(read_take(r, (u64)len), (u32)len);
}
u32 read_array(struct rbuf *r, bool flexible)
{
    i64 n = flexible ? (i64)read_uvarint(r) - 1 : read_i32(r);
    if (n > read_left(r)) {
        r->bad = true;
        return 0;
    }
    return n < 0 ? 0 : (u32)n;
}
u32 read_length(struct rbuf *r, bool flexible)
{
    i64 n = flexible ? (i64)read_uvarint(r) - 1 : read_i32(r);
    if (n > INT32_MAX)
        r->bad = true;
    return n < 0 || r->bad ? 0 : (u32)n;
}
void read_tags(struct rbuf *r, bool flexible)
{
    if (!flexible)
        return;
    for (u64 n = read_uvarint(r); n > 0 && !r->bad; n--) {
        read_uvarint(r);
        read_skip(r, read_uvarint(r));
    }
}

/* ---- versions ---- */
struct wire_api {
    enum api api;
    const char *name;
    i16 min, max, flexible; /* what this file can write; first flexible version */
    bool optional;          /* only some modes need it */
};
static const struct wire_api wire_apis[] = {
    { API_PRODUCE, "Produce", 3, 12, 9, false },
    { API_FETCH, "Fetch", 4, 12, 12, true },
    { API_LIST_OFFSETS, "ListOffsets", 1, 6, 6, true },
    { API_METADATA, "Metadata", 4, 9, 9, false },
    { API_VERSIONS, "ApiVersions", 0, 0, 3, false },
    { API_CREATE_TOPICS, "CreateTopics", 2, 4, 5, true },
    { API_DELETE_TOPICS, "DeleteTopics", 1, 3, 4, true },
    { API_INIT_PRODUCER_ID, "InitProducerId", 0, 1, 2, true },
};
static const struct wire_api *wire_api_find(enum api api)
{
    for (u32 i = 0; i < ARRAY_COUNT(wire_apis); i++)
        if (wire_apis[i].api == api)
            return &wire_apis[i];
    return NULL;
}
bool wire_flexible(enum api api, i16 version)
{
    return version >= wire_api_find(api)->flexible;
}
bool wire_choose_versions(struct rbuf *r, struct versions *out)
{
    memset(out->v, -1, sizeof out->v);
    i16 error = read_i16(r);
    for (u32 n = read_array(r, false); n > 0 && !r->bad; n--) {
        i16 key = read_i16(r), min = read_i16(r), max = read_i16(r);
        const struct wire_api *a =
            key >= 0 && key < API_COUNT ? wire_api_find((enum api)key) : NULL;
        if (a && max >= a->min && min <= a->max)
            out->v[key] = MIN(max, a->max);
    }
    out->v[API_VERSIONS] = 0;
    if (error || r->bad) {
        fprintf(stderr, "leat-bench: ApiVersions: error %d\n", error);
        return false;
    }
    for (u32 i = 0; i < ARRAY_COUNT(wire_apis); i++)
        if (!wire_apis[i].optional && out->v[wire_apis[i].api] < 0) {
            fprintf(stderr, "leat-bench: the broker offers no version of %s between %d and %d\n",
                    wire_apis[i].name, wire_apis[i].min, wire_apis[i].max);
            return false;
        }
    return true;
}
void wire_begin(struct wbuf *w, const struct versions *vs, enum api api, u32 correlation)
{
    i16 version = vs->v[api];
    w->len = 0;
    wire_i32(w, 0);
    wire_i16(w, (i16)api);
    wire_i16(w, version);
    wire_i32(w, (i32)correlation);
    wire_string(w, false, "leat-bench");
    wire_tags(w, wire_flexible(api, version));
}
void wire_end(struct wbuf *w)
{
    put_be32(w->data, w->len - 4);
}

/* ---- metadata ---- */
void wire_metadata_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                           const char *topic)
{
    i16 v = vs->v[API_METADATA];
    bool flexible = wire_flexible(API_METADATA, v);
    wire_begin(w, vs, API_METADATA, correlation);
    wire_array(w, flexible, 1);
    wire_string(w, flexible, topic);
    wire_tags(w, flexible);
    wire_i8(w, 0); /* do not create it */
    if (v >= 8) {
        wire_i8(w, 0);
        wire_i8(w, 0);
    }
    wire_tags(w, flexible);
    wire_end(w);
}
static void metadata_nodes(struct rbuf *r, bool flexible, struct cluster *c)
{
    c->node_count = read_array(r, flexible);
    c->nodes = mem_alloc(sizeof *c->nodes * (c->node_count + 1));
    for (u32 i = 0; i < c->node_count && !r->bad; i++) {
        struct node *n = &c->nodes[i];
        n->id = read_i32(r);
        struct bytes host = read_string(r, flexible);
        memcpy(n->host, host.data ? (const void *)host.data : "", MIN(host.len, 255u));
        n->port = (u16)read_i32(r);
        read_string(r, flexible); /* rack */
        read_tags(r, flexible);
    }
}
static void metadata_partitions(struct rbuf *r, i16 v, struct cluster *c)
{
    bool flexible = wire_flexible(API_METADATA, v);
    c->partition_count = read_array(r, flexible);
    c->leaders = mem_alloc(sizeof *c->leaders * (c->partition_count + 1));
    memset(c->leaders, -1, sizeof *c->leaders * c->partition_count);
    for (u32 i = 0; i < c->partition_count && !r->bad; i++) {
        i16 error = read_i16(r);
        i32 index = read_i32(r), leader = read_i32(r);
        if (v >= 7)
            read_i32(r);            /* leader epoch */
        u32 lists = v >= 5 ? 3 : 2; /* replicas, in sync, offline */
        for (u32 k = 0; k < lists; k++)
            read_skip(r, (u64)read_array(r, flexible) * 4);
        read_tags(r, flexible);
        if (index >= 0 && (u32)index < c->partition_count && (error == 0 || error == 9))
            c->leaders[index] = leader;
    }
}
struct cluster *wire_metadata_parse(struct rbuf *r, const struct versions *vs)
{
    i16 v = vs->v[API_METADATA];
    bool flexible = wire_flexible(API_METADATA, v);
    struct cluster *c = MEM_NEW(struct cluster);
    read_i32(r); /* throttle */
    metadata_nodes(r, flexible, c);
    read_string(r, flexible); /* cluster id */
    read_i32(r);              /* controller */
    u32 topics = read_array(r, flexible);
    if (topics >= 1 && !r->bad) {
        c->topic_error = read_i16(r);
        read_string(r, flexible);
        read_i8(r); /* internal */
        metadata_partitions(r, v, c);
    }
    if (!r->bad)
        return c;
    wire_cluster_free(c);
    return NULL;
}
void wire_cluster_free(struct cluster *c)
{
    if (!c)
        return;
    mem_free(c->nodes);
    mem_free(c->leaders);
    mem_free(c);
}
bool wire_cluster_same(const struct cluster *a, const struct cluster *b)
{
    return a->node_count == b->node_count && a->partition_count == b->partition_count &&
           memcmp(a->nodes, b->nodes, sizeof *a->nodes * a->node_count) == 0 &&
           memcmp(a->leaders, b->leaders, sizeof *a->leaders * a->partition_count) == 0;
}

/* ---- topics ---- */
static void create_configs(struct wbuf *w, const char *list)
{
    u32 at = w->len, n = 0;
    wire_i32(w, 0);
    while (list && *list) {
        size_t len = strcspn(list, ","), key = strcspn(list, "=,");
        wire_i16(w, (i16)key);
        wire_raw(w, list, (u32)key);
        const char *value = list + key + (key < len);
        u32 value_len = (u32)(list + len - value);
        wire_i16(w, (i16)value_len);
        wire_raw(w, value, value_len);
        n++;
        list += len + (list[len] == ',');
    }
    put_be32(w->data + at, n);
}
void wire_create_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                         const struct options *o)
{
    wire_begin(w, vs, API_CREATE_TOPICS, correlation);
    wire_i32(w, 1);
    wire_string(w, false, o->topic);
    wire_i32(w, (i32)o->partitions);
    wire_i16(w, o->replication);
    wire_i32(w, 0); /* assignments */
    create_configs(w, o->topic_config);
    wire_i32(w, 10000);
    wire_i8(w, 0); /* validate only */
    wire_end(w);
}
void wire_delete_request(struct wbuf *w, const struct versions *vs, u32 correlation,
                         const char *topic)
{
    wire_begin(w, vs, API_DELETE_TOPICS, correlation);
    wire_i32(w, 1);
    wire_string(w, false, topic);
    wire_i32(w, 10000);
    wire_end(w);
}
i16 wire_topics_parse(struct rbuf *r, bool has_message)
{
    read_i32(r); /* throttle */
    if (read_array(r, false) < 1)
        return ERR_UNKNOWN_SERVER_ERROR;
    read_string(r, false);
    i16 error = read_i16(r);
    struct bytes text = has_message ? read_string(r, false) : (struct bytes){ 0 };
    if (error && error != ERR_TOPIC_ALREADY_EXISTS && text.len)
        fprintf(stderr, "leat-bench: broker says: %.*s\n", (int)text.len, text.data);
    return r->bad ? ERR_UNKNOWN_SERVER_ERROR : error;
}

/* ---- producer ids ---- */
void wire_producer_id_request(struct wbuf *w, const struct versions *vs, u32 correlation)
{
    wire_begin(w, vs, API_INIT_PRODUCER_ID, correlation);
    wire_string(w, false, NULL);
    wire_i32(w, 60000);
    wire_end(w);
}
i16 wire_producer_id_parse(struct rbuf *r, struct producer_id *out)
{
    read_i32(r);
    i16 error = read_i16(r);
    out->id = read_i64(r);
    out->epoch = read_i16(r);
    return r->bad ? ERR_UNKNOWN_SERVER_ERROR : error;
}
