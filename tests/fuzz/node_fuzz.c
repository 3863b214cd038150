/* A node that serves, and what may come over its connections: requests of every API in every
 * version, pipelined, in pieces, changed, cut off, hung up in the middle.
 *
 * Byte 0: the state it starts with (bits 0-1), one or two shards (bit 2). Byte 1: the seed of
 * everything else. Then commands; the first byte of each has the kind (bits 0-2), the connection
 * (bits 3-4) and a number n (bits 5-7):
 *     0, 1  a request: u16 length, then the frame without its length prefix. 1: the CRCs of its
 *           batches are made right
 *     2     the same, 8 n + 1 times
 *     3     as 0, without looking at the answers from then on
 *     4     u16 length, then raw bytes; the answers are not looked at from then on
 *     5     time passes: 4^n milliseconds
 *     6     hang up; n odd: with a reset
 *     7     nothing
 *
 * Checked: every answer belongs to its request and decodes to the last byte; what breaks the
 * format ends the connection; nothing that does not wait by its nature stays unanswered; a
 * witness on a connection of its own is served after it all; when all have hung up, no request
 * holds memory; the stop is orderly and frees everything. */
#include <stdlib.h>
#include <string.h>

#include "../../core/broker/broker_int.h"
#include "batch.h"
#include "repair.h"
#include "world.h"
#include "../sim/requests.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(u8 *data, size_t len, size_t len_max);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed);

#define CONNS 4
#define EXPECTED_MAX 512
#define FULL 32 /* half of net.inflight_per_connection */
#define SETTLE_NS (15 * NS_PER_S)
#define GONE_NS (310 * NS_PER_S) /* the longest long poll, and a bit */

struct expected {
    i16 api, version;
    i32 correlation;
};

static struct peer {
    struct sim_conn *conn;
    bool unchecked; /* its answers are not looked at */
    bool doomed;    /* it sent what must end the connection */
    struct expected q[EXPECTED_MAX];
    u32 first, count;
    u8 *in;
    u32 in_len, in_cap;
} peers[CONNS];

static const u8 *at, *end;
static u64 wait_until_ns, gone_ns;
static enum { FEED, SETTLE, WITNESS, GONE, DONE } phase;
static struct client witness;
static u32 witness_step;
static bool witness_busy;

/* ---- answers ---- */

static void answer(struct peer *p, struct bytes frame)
{
    if (p->unchecked)
        return;
    if (p->count == 0)
        sim_fail("an answer without a request");
    struct expected *x = &p->q[p->first++ % EXPECTED_MAX];
    p->count--;
    struct wire_reader in = wire_reader_of(frame);
    struct response_header h;
    struct arena a;
    arena_init(&a, 16384, 64 * MIB);
    err e = response_header_decode(&in, response_header_version(x->api, x->version), &a, &h);
    if (e != ERR_NONE || h.correlation_id != x->correlation)
        sim_fail("api %d v%d: correlation %d expected, not %d", x->api, x->version, x->correlation,
                 h.correlation_id);
    const struct message_type *t = message_response_type(x->api);
    e = t->decode(&in, x->version, &a, arena_alloc(&a, t->struct_bytes));
    if (e != ERR_NONE || wire_left(&in) != 0)
        sim_fail("the answer to %s v%d does not decode: %s, %u bytes left", t->name, x->version,
                 err_name(e), wire_left(&in));
    arena_free(&a);
}

static void received(struct sim_conn *conn, void *user, const u8 *data, u32 len)
{
    struct peer *p = user;
    (void)conn;
    if (p->in_len + len > p->in_cap) {
        p->in_cap = (p->in_len + len) * 2;
        p->in = mem_realloc(p->in, p->in_cap);
    }
    memcpy(p->in + p->in_len, data, len);
    p->in_len += len;
    u32 pos = 0;
    while (p->in_len - pos >= 4) {
        u32 n = get_be32(p->in + pos);
        if (n > 16 * MIB)
            sim_fail("an answer of %u bytes", n);
        if (p->in_len - pos - 4 < n)
            break;
        answer(p, bytes_of(p->in + pos + 4, n));
        pos += 4 + n;
    }
    memmove(p->in, p->in + pos, p->in_len - pos);
    p->in_len -= pos;
}

static void opened(struct sim_conn *conn, void *user)
{
    (void)conn, (void)user;
}

static void peer_reset(struct peer *p)
{
    mem_free(p->in);
    memset(p, 0, sizeof *p);
}

static void closed(struct sim_conn *conn, void *user)
{
    (void)conn;
    peer_reset(user);
}

static const struct sim_conn_user peer_fns = { opened, received, closed };

/* ---- requests ---- */

/* APIs whose answers may take as long as the request says. */
static bool may_wait(i16 api)
{
    return api == 0 || api == 1 || api == 11 || api == 14 || api == 21;
}

static void expect(struct peer *p, i16 api, i16 version, i32 correlation)
{
    if (p->count == EXPECTED_MAX)
        p->unchecked = true;
    else
        p->q[(p->first + p->count++) % EXPECTED_MAX] =
            (struct expected){ api, version, correlation };
}

/* Decodes as the node should; true: the batches in it got their CRCs. */
static void foresee(struct peer *p, u8 *frame, u32 len, bool fix)
{
    const struct api *api = len < 8 ? NULL : api_find((i16)get_be16(frame));
    if (p->doomed || !api) {
        p->doomed = true;
        return;
    }
    i16 version = (i16)get_be16(frame + 2);
    const struct message_type *t = message_request_type(api->key);
    bool served = version >= MAX(api->min, t->min) && version <= api->max;
    i16 header_version = request_header_version(api->key, version);
    if (header_version < 0)
        header_version = request_header_version(api->key, api->min);
    struct wire_reader r = wire_reader_of(bytes_of(frame, len));
    struct request_header h;
    struct arena a;
    arena_init(&a, 16384, 256 * MIB);
    void *m = arena_alloc(&a, t->struct_bytes);
    err e = request_header_decode(&r, header_version, &a, &h);
    if (e != ERR_NONE || (!served && api->key != 18))
        p->doomed = true;
    else if (!served)
        expect(p, api->key, 0, h.correlation_id);
    else if (t->decode(&r, version, &a, m) != ERR_NONE)
        p->doomed = true;
    else if (api->key != 0 || ((struct produce_request *)m)->acks != 0)
        expect(p, api->key, version, h.correlation_id);
    if (fix && !p->doomed && served && api->key == 0) {
        const struct produce_request *q = m;
        for (i32 i = 0; i < q->topic_data.n; i++)
            for (i32 j = 0; j < q->topic_data.v[i].partition_data.n; j++) {
                struct bytes b = q->topic_data.v[i].partition_data.v[j].records;
                repair_batches((u8 *)(uintptr_t)b.data, b.len);
            }
    }
    arena_free(&a);
}

static struct peer *peer_of(u32 i)
{
    struct peer *p = &peers[i % CONNS];
    if (!p->conn)
        p->conn = net_connect(&peer_fns, p);
    return p;
}

static void send_frame(struct peer *p, u8 kind, u32 n, const u8 *payload, u32 len)
{
    u8 *frame = mem_alloc(4 + len);
    put_be32(frame, len);
    memcpy(frame + 4, payload, len);
    u32 times = kind == 2 ? 8 * n + 1 : 1;
    if (kind == 3)
        p->unchecked = true;
    for (u32 i = 0; i < times && p->conn; i++) {
        foresee(p, frame + 4, len, kind == 1);
        net_send(p->conn, frame, 4 + len);
    }
    mem_free(frame);
}

static void command(void)
{
    u8 kind = *at & 7, n = *at >> 5;
    u32 who = *at >> 3 & 3;
    at++;
    if (kind == 5) {
        wait_until_ns = sim.now_ns + (NS_PER_MS << 2 * n);
    } else if (kind == 6) {
        struct peer *p = &peers[who];
        if (p->conn)
            net_hangup(p->conn, n & 1);
        peer_reset(p);
    } else if (kind < 5) {
        u32 want = end - at >= 2 ? get_be16(at) : 0;
        at = MIN(at + 2, end);
        u32 len = MIN(want, (u32)(end - at));
        struct peer *p = peer_of(who);
        if (kind == 4) {
            p->unchecked = true;
            net_send(p->conn, at, len);
        } else {
            send_frame(p, kind, n, at, len);
        }
        at += len;
    }
}

/* ---- the witness ---- */

static void witnessed(struct rpc *r, const void *resp)
{
    if (!resp && phase == WITNESS)
        sim_fail("the witness gets no answer to api %d", r->api);
    witness_busy = false;
}

static void witness_produce(void)
{
    struct produce_one m;
    client_call(&witness, 0, 12,
                produce_one(&m, (struct topic_named){ .name = "a" }, 0, world_batch()), witnessed,
                NULL);
}

static void witness_fetch(void)
{
    struct fetch_one m;
    struct fetch_request *q = fetch_one(&m, (struct topic_named){ .name = "a" }, 0, 0);
    q->max_wait_ms = 100;
    q->min_bytes = 1;
    m.p.partition_max_bytes = 10000;
    client_call(&witness, 1, 12, q, witnessed, NULL);
}

static bool witness_over(void)
{
    struct list_groups_request lg;
    struct metadata_request md;
    if (witness_busy || !witness.up)
        return false;
    witness_busy = true;
    switch (witness_step++) {
    case 0:
        metadata_request_init(&md);
        client_call(&witness, 3, 9, &md, witnessed, NULL);
        break;
    case 1:
        witness_produce();
        break;
    case 2:
        witness_fetch();
        break;
    case 3:
        list_groups_request_init(&lg);
        client_call(&witness, 16, 4, &lg, witnessed, NULL);
        break;
    default:
        return true;
    }
    return false;
}

/* A request may have told the node to close connections sooner, or to allow fewer. */
static bool witness_may_be_closed(void)
{
    struct config plain;
    config_init(&plain);
    bool changed = false;
    static const enum config_key keys[] = { CFG_net_max_connections, CFG_net_idle_timeout_ms,
                                            CFG_net_max_connections_per_ip };
    for (u32 i = 0; i < ARRAY_COUNT(keys); i++)
        changed |= config_i64(&plain, keys[i]) != config_i64(sim.cfg, keys[i]);
    config_free(&plain);
    return changed;
}

/* ---- the course ---- */

static void check_settled(void)
{
    for (u32 i = 0; i < CONNS; i++) {
        struct peer *p = &peers[i];
        if (!p->conn || p->unchecked)
            continue;
        if (p->count == 0 && p->doomed)
            sim_fail("a connection that broke the format is not closed");
        const struct expected *x = &p->q[p->first % EXPECTED_MAX];
        /* What was sent behind many others is not read yet, so that nothing hurries those. */
        bool hurried = p->doomed && p->count < FULL && x->api != 0 && x->api != 21;
        if (p->count > 0 && (hurried || !may_wait(x->api)))
            sim_fail("api %d v%d is not answered", x->api, x->version);
    }
}

static bool requests_left(void)
{
    u64 n = 0;
    for (u32 i = 0; i < sim.shards; i++)
        n += metric_get(sim.node->brokers[i]->shard.metrics, M_requests_inflight);
    return n > 0;
}

static void check_memory(void)
{
    for (u32 i = 0; i < sim.shards; i++) {
        const struct metrics *m = sim.node->brokers[i]->shard.metrics;
        if (metric_get(m, M_requests_inflight) > 0)
            sim_fail("shard %u: %" PRIu64 " requests of connections that are gone", i,
                     metric_get(m, M_requests_inflight));
        if (metric_get(m, M_response_memory_bytes) > 0)
            sim_fail("shard %u: answers to connections that are gone hold memory", i);
    }
}

static void all_hang_up(void)
{
    for (u32 i = 0; i < CONNS; i++) {
        if (peers[i].conn)
            net_hangup(peers[i].conn, i & 1);
        peer_reset(&peers[i]);
    }
    if (witness.conn)
        net_hangup(witness.conn, false);
    witness.conn = NULL;
}

static bool wants_stop(void)
{
    if (sim.now_ns < wait_until_ns || !(witness.up || phase > FEED))
        return false;
    switch (phase) {
    case FEED:
        if (at < end) {
            command();
            return false;
        }
        phase = SETTLE;
        wait_until_ns = sim.now_ns + SETTLE_NS;
        return false;
    case SETTLE:
        check_settled();
        phase = witness_may_be_closed() ? GONE : WITNESS;
        return false;
    case WITNESS:
        if (!witness_over())
            return false;
        phase = GONE;
        return false;
    case GONE:
        all_hang_up();
        gone_ns = sim.now_ns;
        wait_until_ns = sim.now_ns + NS_PER_S;
        phase = DONE;
        return false;
    case DONE:
        /* A connection that was full is read again when its oldest long poll is over. */
        wait_until_ns = sim.now_ns + NS_PER_S;
        if (sim.now_ns < gone_ns + GONE_NS && requests_left())
            return false;
        check_memory();
        return true;
    }
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

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static const enum world_base bases[] = { BASE_LOG, BASE_BUNDLES, BASE_STOPPED, BASE_STOPPED };
    if (size < 3)
        return 0;
    at = data + 2;
    end = data + size;
    phase = FEED;
    wait_until_ns = 0;
    witness_step = 0;
    witness_busy = false;
    world_begin(data[1], 1 + (data[0] >> 2 & 1));
    world_put(world_bases[bases[data[0] & 3]]);
    client_init(&witness, "witness", NULL, ready, lost);
    client_connect(&witness);
    if (world_run(wants_stop) != LIFE_STOPPED)
        sim_fail("a sound node ends: %s", world_why);
    for (u32 i = 0; i < CONNS; i++)
        peer_reset(&peers[i]);
    mem_free(witness.in);
    world_end(true);
    return 0;
}

/* ---- inputs ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    static struct bytes texts[12], records[1];
    static const char *const names[] = { "a",        "b",          "g",
                                         "h",        "range",      "consumer",
                                         "member-0", "0",          "cleanup.policy",
                                         "compact",  "roundrobin", "__consumer_offsets" };
    world_init();
    for (u32 i = 0; i < ARRAY_COUNT(names); i++)
        texts[i] = bytes_str(names[i]);
    records[0] = world_batch();
    codec_random_words = (struct codec_random_words){ .texts = texts,
                                                      .text_count = ARRAY_COUNT(texts),
                                                      .records = records,
                                                      .record_count = 1,
                                                      .ids = world_topic_ids,
                                                      .id_count = 2 };
    return 0;
}

/* A valid request of a served API as a command; 0: it does not fit. */
static size_t random_command(u8 *out, size_t room, struct rng *rng)
{
    const struct api *api = NULL;
    while (!api)
        api = api_find((i16)rng_below(rng, API_KEYS_MAX));
    const struct message_type *t = message_request_type(api->key);
    i16 low = MAX(api->min, t->min);
    i16 version = (i16)(low + (i16)rng_below(rng, (u64)(api->max - low + 1)));
    struct request_header h;
    struct arena a;
    arena_init(&a, 16384, 16 * MIB);
    void *m = arena_alloc(&a, t->struct_bytes);
    size_t len = 0;
    request_header_init(&h);
    h.request_api_key = api->key;
    h.request_api_version = version;
    h.correlation_id = (i32)rng_below(rng, 1000);
    h.client_id = bytes_str("c");
    i16 hv = request_header_version(api->key, version);
    if (t->random(rng, version, &a, m)) {
        u32 bytes = request_header_size(hv, &h, false) + t->size(version, m, false);
        if (bytes + 3 <= room && bytes <= UINT16_MAX) {
            out[0] = (u8)(rng_below(rng, 2) | rng_below(rng, CONNS) << 3);
            put_be16(out + 1, (u16)bytes);
            struct wire_writer w = wire_writer_of(out + 3, bytes);
            request_header_encode(&w, hv, &h);
            t->encode(&w, version, m);
            CHECK(!w.bad && w.len == bytes);
            len = bytes + 3;
        }
    }
    arena_free(&a);
    return len;
}

/* Where a command begins. */
static size_t command_after(const u8 *data, size_t len, size_t pos)
{
    u8 kind = data[pos] & 7;
    size_t next = pos + 1;
    if (kind < 5)
        next += 2 + (len - pos >= 3 ? get_be16(data + pos + 1) : 0);
    return MIN(next, len);
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    if (len < 2 || rng_below(&rng, 3) == 0)
        return LLVMFuzzerMutate(data, len, len_max);
    size_t pos = 2;
    for (u64 skip = rng_below(&rng, 8); skip > 0 && pos < len; skip--)
        pos = command_after(data, len, pos);
    if (rng_below(&rng, 2) == 0 && pos < len) { /* one command alone, its length kept right */
        size_t next = command_after(data, len, pos);
        if ((data[pos] & 7) < 5 && next - pos > 3) {
            (void)LLVMFuzzerMutate(data + pos + 3, next - pos - 3, next - pos - 3);
            return len;
        }
    }
    static u8 fresh[65536];
    size_t n = random_command(fresh, MIN(sizeof fresh, len_max - len), &rng);
    memmove(data + pos + n, data + pos, len - pos);
    memcpy(data + pos, fresh, n);
    return len + n;
}
