/* The records of __consumer_offsets in Kafka's formats: a key with a version that says the kind
 * (0, 1 offset; 2 group), a value with a version of its own; a null value is a tombstone. */
#include "group_int.h"

enum { KEY_OFFSET_OLD = 0, KEY_OFFSET = 1, KEY_GROUP = 2 };
enum { VALUE_OFFSET_VERSION = 4, VALUE_OFFSET_EXPIRE_VERSION = 1, VALUE_GROUP_VERSION = 3 };

/* A 2-byte version, then the message: mem_alloc'ed. */
static struct bytes record_encode(i16 prefix, enum message_id id, i16 version, const void *m)
{
    const struct message_type *t = message_type(id);
    u32 size = t->size(version, m, false);
    u8 *p = mem_alloc(2 + size);
    put_be16(p, (u16)prefix);
    struct wire_writer w = { .buf = p + 2, .cap = size };
    t->encode(&w, version, m);
    CHECK(!w.bad && w.len == size);
    return bytes_of(p, 2 + size);
}

static void record_drop(struct bytes b)
{
    mem_free((void *)(uintptr_t)b.data);
}

static struct bytes offset_key_encode(const struct group *g, const struct offset *o)
{
    struct offset_commit_key k;
    offset_commit_key_init(&k);
    k.group = g->id;
    k.topic = offset_topic(o);
    k.partition = offset_partition(o);
    return record_encode(KEY_OFFSET, MSG_offset_commit_key, 0, &k);
}

err record_offset(struct coordinator *c, const struct group *g, const struct offset *o)
{
    struct offset_commit_value v;
    offset_commit_value_init(&v);
    v.offset = o->value;
    v.leader_epoch = o->leader_epoch;
    v.metadata = o->metadata.data ? o->metadata : bytes_str("");
    v.commit_timestamp = o->commit_ms;
    v.expire_timestamp = o->expire_ms;
    v.topic_id = o->topic_id;
    i16 version = o->expire_ms >= 0 ? VALUE_OFFSET_EXPIRE_VERSION : VALUE_OFFSET_VERSION;
    struct bytes key = offset_key_encode(g, o);
    struct bytes value = record_encode(version, MSG_offset_commit_value, version, &v);
    err e = group_write_add(c, key, value);
    record_drop(key);
    record_drop(value);
    return e;
}

err record_offset_tombstone(struct coordinator *c, const struct group *g, const struct offset *o)
{
    struct bytes key = offset_key_encode(g, o);
    err e = group_write_add(c, key, (struct bytes){ NULL, 0 });
    record_drop(key);
    return e;
}

static struct bytes group_key_encode(const struct group *g)
{
    struct group_metadata_key k;
    group_metadata_key_init(&k);
    k.group = g->id;
    return record_encode(KEY_GROUP, MSG_group_metadata_key, 0, &k);
}

static struct bytes member_subscription(const struct group *g, const struct member *m)
{
    for (u32 i = 0; i < m->protocol_count; i++)
        if (bytes_eq(m->protocols[i].name, g->protocol))
            return m->protocols[i].metadata;
    return bytes_str("");
}

err record_group(struct coordinator *c, const struct group *g)
{
    struct group_metadata_value v;
    group_metadata_value_init(&v);
    u32 n = group_size(g);
    v.protocol_type = g->protocol_type.data ? g->protocol_type : bytes_str("");
    v.generation = g->generation;
    v.protocol = g->protocol;
    v.leader = g->leader;
    v.current_state_timestamp = g->state_ms;
    v.members.v = mem_alloc((n + 1) * sizeof *v.members.v);
    v.members.n = 0;
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next) {
        struct group_metadata_value_member_metadata *o = &v.members.v[v.members.n++];
        group_metadata_value_member_metadata_init(o);
        o->member_id = m->id;
        o->group_instance_id = m->instance_id;
        o->client_id = m->client_id;
        o->client_host = m->client_host;
        o->rebalance_timeout = m->rebalance_ms;
        o->session_timeout = m->session_ms;
        o->subscription = member_subscription(g, m);
        o->assignment = m->assignment.data ? m->assignment : bytes_str("");
    }
    struct bytes key = group_key_encode(g);
    struct bytes value =
        record_encode(VALUE_GROUP_VERSION, MSG_group_metadata_value, VALUE_GROUP_VERSION, &v);
    err e = group_write_add(c, key, value);
    record_drop(key);
    record_drop(value);
    mem_free(v.members.v);
    return e;
}

err record_group_tombstone(struct coordinator *c, const struct group *g)
{
    struct bytes key = group_key_encode(g);
    err e = group_write_add(c, key, (struct bytes){ NULL, 0 });
    record_drop(key);
    return e;
}

/* ---- reading ---- */

/* Version prefix and message from a record's key or value; ERR_* when it does not decode. */
static err record_decode(struct bytes b, enum message_id id, struct arena *a, void *out)
{
    const struct message_type *t = message_type(id);
    if (b.len < 2)
        return ERR_MALFORMED;
    i16 version = (i16)get_be16(b.data);
    if (version > t->max)
        return ERR_UNSUPPORTED;
    struct wire_reader r = wire_reader_of(bytes_of(b.data + 2, b.len - 2));
    t->init(out);
    return t->decode(&r, version, a, out);
}

static void apply_offset(struct group_partition *gp, const struct offset_commit_key *k,
                         const struct record *r, struct arena *a)
{
    struct group *g = group_find(gp->coordinator->broker, k->group);
    if (!r->value.data) {
        struct offset *o = g ? offset_find(g, k->topic, k->partition) : NULL;
        if (o)
            offset_remove(g, o);
        return;
    }
    struct offset_commit_value v;
    if (record_decode(r->value, MSG_offset_commit_value, a, &v) != ERR_NONE)
        return;
    if (!g)
        g = group_create(gp, k->group);
    struct offset *o = offset_put(g, k->topic, k->partition);
    o->value = v.offset;
    o->leader_epoch = v.leader_epoch;
    o->commit_ms = v.commit_timestamp;
    o->expire_ms = v.expire_timestamp;
    o->topic_id = v.topic_id;
    bytes_set(&o->metadata, v.metadata);
    offset_recount(g, o);
}

static void apply_member(struct group *g, const struct group_metadata_value *v,
                         const struct group_metadata_value_member_metadata *s)
{
    struct member *m = member_add(g, s->member_id, s->group_instance_id);
    bytes_set(&m->client_id, s->client_id);
    bytes_set(&m->client_host, s->client_host);
    bytes_set(&m->protocol_type, v->protocol_type);
    bytes_set(&m->assignment, s->assignment);
    m->session_ms = s->session_timeout;
    m->rebalance_ms = s->rebalance_timeout >= 0 ? s->rebalance_timeout : s->session_timeout;
    m->is_new = false;
    m->protocols = MEM_NEW(struct protocol);
    m->protocol_count = 1;
    bytes_set(&m->protocols[0].name, v->protocol);
    bytes_set(&m->protocols[0].metadata, s->subscription);
    member_recount(m);
}

static void apply_group(struct group_partition *gp, struct bytes id, const struct record *r,
                        struct arena *a)
{
    struct group *g = group_find(gp->coordinator->broker, id);
    struct group_metadata_value v;
    if (r->value.data && record_decode(r->value, MSG_group_metadata_value, a, &v) != ERR_NONE)
        return;
    if (!r->value.data) {
        if (g && !g->offsets)
            group_free(g);
        return;
    }
    if (!g)
        g = group_create(gp, id);
    struct member *m, *next;
    HASH_ITER(hh, g->members, m, next)
        member_remove(m, ERR_NOT_COORDINATOR);
    g->generation = v.generation;
    bytes_set(&g->protocol_type, v.protocol_type.len ? v.protocol_type : (struct bytes){ NULL, 0 });
    bytes_set(&g->protocol, v.protocol);
    bytes_set(&g->leader, v.leader);
    for (i32 i = 0; i < v.members.n; i++)
        if (!member_find(g, v.members.v[i].member_id))
            apply_member(g, &v, &v.members.v[i]);
    g->state = g->members ? GROUP_STABLE : GROUP_EMPTY;
    g->state_ms = v.current_state_timestamp;
    group_recount(g);
}

void record_apply(struct group_partition *gp, const struct record *r)
{
    struct arena a;
    if (r->key.len < 2)
        return;
    arena_init(&a, 4096, 64 * MIB);
    i16 kind = (i16)get_be16(r->key.data);
    if (kind == KEY_OFFSET || kind == KEY_OFFSET_OLD) {
        struct offset_commit_key k;
        offset_commit_key_init(&k);
        struct wire_reader in = wire_reader_of(bytes_of(r->key.data + 2, r->key.len - 2));
        if (offset_commit_key_decode(&in, 0, &a, &k) == ERR_NONE)
            apply_offset(gp, &k, r, &a);
    } else if (kind == KEY_GROUP) {
        struct group_metadata_key k;
        group_metadata_key_init(&k);
        struct wire_reader in = wire_reader_of(bytes_of(r->key.data + 2, r->key.len - 2));
        if (group_metadata_key_decode(&in, 0, &a, &k) == ERR_NONE)
            apply_group(gp, k.group, r, &a);
    }
    arena_free(&a);
}
