/* A node that starts on what a disk, an object store and a metadata store may give back. The state
 * of a node that was used (world_base.c) is changed, and a node is started on it: it must refuse
 * with a reason, or serve: every partition is read, every group described, new data taken.
 *
 * Byte 0: the state (bits 0-1), one or two shards (bit 2; the states are of one, so two replays
 * the WAL), bit 3: a second start after it. Byte 1: the seed. Then changes, each
 *     u8 kind (bits 0-3) and whether checksums are made right behind it (bit 7)
 *     u8 which one (modulo how many there are), u16 position, u8 length, bytes
 * Kinds: 0, 1 a frame of the WAL; 2 the superblock; 3 the WAL at 64 times the position;
 * 4, 5 a value of the metadata; 6 its length becomes the position; 7 the key is gone; 8 its value
 * becomes that of the key at the position; 9 a new key (the bytes up to the first 0) and its value;
 * 10, 11 an object; 12 its length becomes the position; 13 it is gone; 14 the record of a batch
 * in a frame, from behind its header on; 15 a frame is copied over the one at the position. */
#include <stdlib.h>
#include <string.h>

#include "../../core/broker/broker_int.h"
#include "../../storage/wal_format.h"
#include "batch.h"
#include "repair.h"
#include "world.h"
#include "../sim/requests.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(u8 *data, size_t len, size_t len_max);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    world_init();
    return 0;
}

/* ---- changes ---- */

struct change {
    u8 kind, index;
    bool repair;
    u16 pos;
    struct bytes bytes;
};

#define FRAMES_MAX 64
static u8 *frames[FRAMES_MAX];
static u64 frame_room[FRAMES_MAX];
static u32 frame_count;

static void frames_find(void)
{
    const char *path;
    u8 *media;
    u64 size;
    frame_count = 0;
    for (u32 i = 0; disk_file_at(i, &path, &media, &size); i++)
        for (u64 at = WAL_SUPER_BYTES; at + FRAME_BYTES <= size; at += WAL_ALIGN)
            if (frame_count < FRAMES_MAX && get_le32(media + at + FRAME_AT_MAGIC) == FRAME_MAGIC) {
                frame_room[frame_count] = size - at;
                frames[frame_count++] = media + at;
            }
}

static void overwrite(u8 *p, u64 size, u64 pos, struct bytes b)
{
    if (pos < size && b.len > 0)
        memcpy(p + pos, b.data, MIN(size - pos, b.len));
}

static void change_wal(const struct change *c)
{
    const char *path;
    u8 *media;
    u64 size;
    if (!disk_file_at(0, &path, &media, &size))
        return;
    if (c->kind == 2) {
        overwrite(media, WAL_SUPER_BYTES, c->pos % 96, c->bytes);
        if (c->repair)
            repair_super(media, WAL_SUPER_BYTES);
        return;
    }
    if (c->kind == 3) {
        overwrite(media, size, (u64)c->pos * 64, c->bytes);
        return;
    }
    if (frame_count == 0)
        return;
    u32 i = c->index % frame_count;
    u8 *f = frames[i];
    u64 room = frame_room[i];
    if (c->kind == 15) {
        u32 from = c->pos % frame_count;
        u64 n = FRAME_BYTES + (u64)get_le32(frames[from] + FRAME_AT_PAYLOAD_BYTES);
        memmove(f, frames[from], MIN(n, MIN(room, frame_room[from])));
        memcpy(f + FRAME_AT_LSN, frames[i] + FRAME_AT_LSN, 8);
    } else {
        u32 head = FRAME_BYTES + BATCH_HEADER_BYTES;
        u32 pos = c->kind == 14 ? head + c->pos % 512 : c->pos % (head + 8);
        overwrite(f, room, pos, c->bytes);
    }
    if (c->repair)
        repair_frame(f, room);
}

static void meta_value_put(struct bytes key, const u8 *value, u32 len, bool repair)
{
    u8 *copy = mem_dup(value, len), *name = mem_dup(key.data, key.len);
    if (repair && key.len > 1 && key.data[0] == 'b')
        repair_registration(copy, len);
    meta_pair_put(bytes_of(name, key.len), bytes_of(copy, len));
    mem_free(copy);
    mem_free(name);
}

static void change_meta(const struct change *c)
{
    static u8 buf[8192];
    struct bytes key, value, other_key, other;
    u32 n = 0;
    while (meta_pair_at(n, &key, &value))
        n++;
    if (n == 0 || !meta_pair_at(c->index % n, &key, &value) || value.len > sizeof buf / 2)
        return;
    u32 len = value.len;
    memcpy(buf, value.data, len);
    if (c->kind == 6) {
        memset(buf + len, 0, sizeof buf - len);
        len = c->pos % 4096;
    } else if (c->kind == 8 && meta_pair_at(c->pos % n, &other_key, &other)) {
        len = MIN(other.len, (u32)sizeof buf);
        memcpy(buf, other.data, len);
    } else if (c->kind == 9) {
        const u8 *zero = c->bytes.len ? memchr(c->bytes.data, 0, c->bytes.len) : NULL;
        if (!zero || zero == c->bytes.data)
            return;
        key = bytes_of(c->bytes.data, (u32)(zero - c->bytes.data));
        len = c->bytes.len - key.len - 1;
        memcpy(buf, zero + 1, len);
    } else {
        u32 pos = c->pos % (len + 1);
        len = MAX(len, pos + c->bytes.len);
        overwrite(buf, sizeof buf, pos, c->bytes);
    }
    meta_value_put(key, buf, len, c->repair);
}

static void change_object(const struct change *c)
{
    const char *text;
    struct bytes data;
    char name[64];
    u32 n = 0;
    while (store_object_at(n, &text, &data))
        n++;
    if (n == 0 || !store_object_at(c->index % n, &text, &data))
        return;
    snprintf(name, sizeof name, "%s", text);
    u32 len = c->kind == 12 ? MIN(data.len, c->pos) : data.len;
    u8 *copy = mem_dup(data.data, data.len);
    /* The end, where footer and index lie, and the beginning are as near as each other. */
    u32 pos = c->pos & 0x8000 ? len - MIN(len, c->pos & 0x7fffu) : c->pos;
    if (c->kind != 12)
        overwrite(copy, len, pos, c->bytes);
    if (c->repair)
        repair_bundle(copy, len);
    store_object_put(name, bytes_of(copy, len));
    mem_free(copy);
}

/* Deletions go through the stores' own calls. */
static void delete_one(const struct change *c)
{
    struct bytes key, value;
    const char *name;
    u32 n = 0;
    char why[100];
    if (c->kind == 7) {
        struct meta *m;
        while (meta_pair_at(n, &key, &value))
            n++;
        if (n == 0 || meta_open("sim://x", &m, why, sizeof why) != ERR_NONE)
            return;
        (void)meta_pair_at(c->index % n, &key, &value);
        struct meta_op op = { META_DELETE, key, { NULL, 0 } };
        struct meta_txn t = { .ops = &op, .op_count = 1 };
        (void)!meta_commit(m, &t);
        meta_close(m);
        return;
    }
    struct store *s;
    while (store_object_at(n, &name, &value))
        n++;
    if (n == 0 || store_open("sim://x", NULL, &s, why, sizeof why) != ERR_NONE)
        return;
    char copy[64];
    (void)store_object_at(c->index % n, &name, &value);
    snprintf(copy, sizeof copy, "%s", name);
    (void)!s->driver->remove(s, copy);
    s->driver->close(s);
}

static void apply(const u8 *p, const u8 *end)
{
    while (end - p >= 5) {
        struct change c = { p[0] & 15, p[1], p[0] & 0x80, get_be16(p + 2), { NULL, 0 } };
        u32 len = MIN((u32)p[4], (u32)(end - p - 5));
        c.bytes = bytes_of(p + 5, len);
        p += 5 + len;
        if (c.kind <= 3 || c.kind >= 14)
            change_wal(&c);
        else if (c.kind == 7 || c.kind == 13)
            delete_one(&c);
        else if (c.kind <= 9)
            change_meta(&c);
        else
            change_object(&c);
    }
}

/* ---- a visitor who looks at everything ---- */

#define TOPICS_SEEN 8
#define PARTITIONS_SEEN 4
#define FETCHES_MAX 40

static struct visitor {
    struct client c;
    bool busy, over;
    u32 step;
    char topics[TOPICS_SEEN][256];
    u32 partitions[TOPICS_SEEN], topic_count;
    u32 topic, partition, fetches; /* the one being read */
    i64 offset;
    char groups[8][256];
    u32 group_count;
} v;

static void visited(struct rpc *r, const void *resp)
{
    if (!resp) {
        if (!v.over)
            sim_fail("api %d is not answered", r->api);
        return;
    }
    v.busy = false;
}

static void call(i16 api, i16 version, const void *q, rpc_done done)
{
    v.busy = true;
    client_call(&v.c, api, version, q, done, NULL);
}

static void metadata_seen(struct rpc *r, const void *resp)
{
    const struct metadata_response *m = resp;
    for (i32 i = 0; m && i < m->topics.n && v.topic_count < TOPICS_SEEN; i++) {
        struct bytes name = m->topics.v[i].name;
        snprintf(v.topics[v.topic_count], sizeof v.topics[0], "%.*s", (int)name.len,
                 (const char *)name.data);
        v.partitions[v.topic_count++] = MIN((u32)m->topics.v[i].partitions.n, PARTITIONS_SEEN);
    }
    visited(r, resp);
}

static void fetched(struct rpc *r, const void *resp)
{
    const struct fetch_response *f = resp;
    visited(r, resp);
    bool next = true;
    if (f && f->responses.n == 1 && f->responses.v[0].partitions.n == 1) {
        const struct fetch_response_partition_data *p = &f->responses.v[0].partitions.v[0];
        struct bytes rest = p->records;
        struct batch b;
        i64 was = v.offset;
        while (p->error_code == 0 && batch_next(&rest, &b) == ERR_NONE)
            v.offset = MAX(v.offset, batch_last_offset(&b) + 1);
        if (p->error_code == ERR_OFFSET_OUT_OF_RANGE && p->log_start_offset > v.offset)
            v.offset = p->log_start_offset;
        next = v.offset == was || v.offset >= p->high_watermark;
    }
    if (!next && ++v.fetches < FETCHES_MAX)
        return;
    v.offset = v.fetches = 0;
    if (++v.partition >= v.partitions[v.topic]) {
        v.partition = 0;
        v.topic++;
    }
}

static void fetch(void)
{
    struct fetch_one m;
    struct fetch_request *q = fetch_one(&m, (struct topic_named){ .name = v.topics[v.topic] },
                                        (i32)v.partition, v.offset);
    q->max_wait_ms = 10;
    q->min_bytes = 1;
    m.p.partition_max_bytes = 20000;
    call(1, 12, q, fetched);
}

static void groups_seen(struct rpc *r, const void *resp)
{
    const struct list_groups_response *g = resp;
    for (i32 i = 0; g && i < g->groups.n && v.group_count < ARRAY_COUNT(v.groups); i++) {
        struct bytes id = g->groups.v[i].group_id;
        snprintf(v.groups[v.group_count++], sizeof v.groups[0], "%.*s", (int)id.len,
                 (const char *)id.data);
    }
    visited(r, resp);
}

static void describe_groups(void)
{
    struct describe_groups_request q;
    struct bytes ids[ARRAY_COUNT(v.groups)];
    describe_groups_request_init(&q);
    for (u32 i = 0; i < v.group_count; i++)
        ids[i] = bytes_str(v.groups[i]);
    q.groups.v = ids;
    q.groups.n = (i32)v.group_count;
    call(15, 5, &q, visited);
}

static void fetch_offsets(void)
{
    struct offset_fetch_request q;
    struct offset_fetch_request_offset_fetch_request_group g[ARRAY_COUNT(v.groups)];
    offset_fetch_request_init(&q);
    for (u32 i = 0; i < v.group_count; i++) {
        offset_fetch_request_offset_fetch_request_group_init(&g[i]);
        g[i].group_id = bytes_str(v.groups[i]);
        g[i].topics.n = -1;
    }
    q.groups.v = g;
    q.groups.n = (i32)v.group_count;
    call(9, 8, &q, visited);
}

static void join(void)
{
    struct join_group_request q;
    struct join_group_request_join_group_request_protocol p = { .name = bytes_str("range"),
                                                                .metadata = bytes_str("meta") };
    join_group_request_init(&q);
    q.group_id = bytes_str(v.group_count ? v.groups[0] : "new");
    q.session_timeout_ms = 6000;
    q.rebalance_timeout_ms = 1000;
    q.protocol_type = bytes_str("consumer");
    q.protocols.v = &p;
    q.protocols.n = 1;
    call(11, 9, &q, visited);
}

static void produce(void)
{
    struct produce_one m;
    const char *topic = v.topic_count ? v.topics[0] : "a";
    call(0, 12, produce_one(&m, (struct topic_named){ .name = topic }, 0, world_batch()), visited);
}

static void describe_producers(void)
{
    struct describe_producers_request q;
    struct describe_producers_request_topic_request t;
    i32 all[] = { 0, 1, 2 };
    describe_producers_request_init(&q);
    describe_producers_request_topic_request_init(&t);
    q.topics.v = &t;
    q.topics.n = 1;
    t.name = bytes_str("a");
    t.partition_indexes.v = all;
    t.partition_indexes.n = 3;
    call(61, 0, &q, visited);
}

static void describe_configs(void)
{
    struct describe_configs_request q;
    struct describe_configs_request_describe_configs_resource r[2];
    describe_configs_request_init(&q);
    for (u32 i = 0; i < 2; i++) {
        describe_configs_request_describe_configs_resource_init(&r[i]);
        r[i].resource_type = i ? 2 : 4;
        r[i].resource_name = bytes_str(i ? "b" : "0");
        r[i].configuration_keys.n = -1;
    }
    q.resources.v = r;
    q.resources.n = 2;
    call(32, 4, &q, visited);
}

static void look(void)
{
    struct metadata_request md;
    struct list_groups_request lg;
    struct init_producer_id_request ip;
    if (v.step == 1 && v.topic < v.topic_count && v.partitions[v.topic] > 0) {
        fetch();
        return;
    }
    switch (v.step++) {
    case 0:
        metadata_request_init(&md);
        md.topics.n = -1;
        call(3, 9, &md, metadata_seen);
        return;
    case 1:
        list_groups_request_init(&lg);
        call(16, 4, &lg, groups_seen);
        return;
    case 2:
        describe_groups();
        return;
    case 3:
        fetch_offsets();
        return;
    case 4:
        join();
        return;
    case 5:
        describe_producers();
        return;
    case 6:
        describe_configs();
        return;
    case 7:
        ip = init_producer_any();
        call(22, 5, &ip, visited);
        return;
    case 8:
        produce();
        return;
    default:
        v.over = true;
    }
}

static bool wants_stop(void)
{
    if (v.c.up && !v.busy && !v.over)
        look();
    if (!v.over)
        return false;
    if (v.c.conn)
        client_drop(&v.c, false);
    return true;
}

static void ready(struct client *c)
{
    (void)c;
}

static void lost(struct client *c)
{
    (void)c;
}

static bool life(void)
{
    events_forget(); /* of the last life: its client is not there any more */
    net_forget();
    mem_free(v.c.in);
    memset(&v, 0, sizeof v);
    client_init(&v.c, "visitor", NULL, ready, lost);
    v.c.timeout_ns = 30 * NS_PER_S;
    client_connect(&v.c);
    return world_run(wants_stop) == LIFE_STOPPED;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size < 3)
        return 0;
    world_begin(data[1] & 3, 1 + (data[0] >> 2 & 1));
    world_put(world_bases[(data[0] & 3) % BASE_COUNT]);
    frames_find();
    apply(data + 2, data + size);
    bool orderly = life();
    if (orderly && (data[0] & 8)) {
        orderly = life();
        if (!orderly)
            sim_fail("refused after an orderly stop: %s", world_why);
    }
    mem_free(v.c.in);
    v.c.in = NULL;
    world_end(orderly);
    return 0;
}

/* ---- inputs ---- */

static size_t change_after(const u8 *data, size_t len, size_t pos)
{
    return MIN(len, pos + 5 + (len - pos >= 5 ? data[pos + 4] : 0));
}

/* A number at the edge of something, or any. */
static void value_random(struct rng *rng, u8 *out, u32 len)
{
    static const u64 edges[] = { 0,         1,          0x7f,       0x80,       0xff,
                                 0x7fff,    0x8000,     0x7fffffff, 0x80000000, UINT64_MAX,
                                 INT64_MAX, 1ull << 63, 4096,       32768 };
    u8 le[8];
    put_le64(le, rng_below(rng, 3) ? edges[rng_below(rng, ARRAY_COUNT(edges))] : rng_next(rng));
    bool big_endian = rng_below(rng, 2);
    for (u32 i = 0; i < len; i++)
        out[i] = i >= 8 ? (u8)rng_next(rng) : le[big_endian ? MIN(len, 8u) - 1 - i : i];
}

/* A change more, a change less, or a mutation of any kind. */
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    if (len < 2 || rng_below(&rng, 3) == 0)
        return LLVMFuzzerMutate(data, len, len_max);
    if (rng_below(&rng, 8) == 0)
        data[0] = (u8)rng_below(&rng, 16);
    size_t pos = 2;
    for (u64 skip = rng_below(&rng, 6); skip > 0 && pos < len; skip--)
        pos = change_after(data, len, pos);
    /* Few changes: the first that is refused hides those behind it. */
    if (rng_below(&rng, len > 60 ? 2 : 5) == 0 && pos < len) {
        size_t next = change_after(data, len, pos);
        memmove(data + pos, data + next, len - next);
        return len - (next - pos);
    }
    u8 fresh[5 + 16];
    static const u8 sizes[] = { 1, 1, 2, 4, 4, 8, 8, 16 };
    u8 n = sizes[rng_below(&rng, sizeof sizes)];
    if (len + 5 + n > len_max)
        return LLVMFuzzerMutate(data, len, len_max);
    fresh[0] = (u8)(rng_below(&rng, 16) | (rng_below(&rng, 4) ? 0x80 : 0));
    fresh[1] = (u8)rng_below(&rng, 64);
    put_be16(fresh + 2, (u16)(rng_below(&rng, 2) ? rng_below(&rng, 128) : rng_below(&rng, 65536)));
    fresh[4] = n;
    value_random(&rng, fresh + 5, n);
    memmove(data + pos + 5 + n, data + pos, len - pos);
    memcpy(data + pos, fresh, 5 + n);
    return len + 5 + n;
}
