/* From frame to handler and from response to bytes: decode → route → handle → encode.
 *
 * Decoding and encoding happen on the home shard, the handler where the API's row says. A
 * request that breaks the format, names an unknown API or a version we do not serve closes its
 * connection, as in Kafka; the one exception is ApiVersions of an unknown version, which is
 * answered in version 0 with UNSUPPORTED_VERSION and our range (KIP-511), so that clients can
 * fall back.
 */
#include "broker_int.h"
#include "check.h"
#include "clock.h"

#define API(key_, name, min_, max_, flexible, listener) \
    enum { API_KEY_##name = (key_), API_MIN_##name = (min_), API_MAX_##name = (max_) };
#include "apis.def"
#undef API

static const struct api api_table[API_KEYS_MAX] = {
#define SERVED(n, place, key_fn) \
    [API_KEY_##n] = { API_KEY_##n, API_MIN_##n, API_MAX_##n, #n, place, handle_##n, key_fn },
#include "apis_served.def"
#undef SERVED
};

const struct api *api_find(i16 key)
{
    if (key < 0 || key >= API_KEYS_MAX || !api_table[key].handle)
        return NULL;
    return &api_table[key];
}

struct bytes call_group_id(const struct call *c)
{
    /* Every group request starts with its group id, so the first member is the key. */
    return *(const struct bytes *)c->req;
}

/* ---- in ---- */

static void call_run(struct call *c)
{
    c->api->handle(c);
}

static void call_arrived(struct shard *at, struct msg *m)
{
    struct call *c = container_of(m, struct call, msg);
    MAGIC_CHECK(c, CALL_MAGIC);
    c->at = broker_of(at);
    call_run(c);
}

/* The client of a call that waits at its coordinator is gone. The call may be on its way home by
 * now, so it is only named, never looked into. */
struct call_gone {
    struct msg msg;
    const struct call *call;
    u64 serial;
    struct bytes group; /* own memory */
};

static void call_gone_arrived(struct shard *at, struct msg *m)
{
    struct call_gone *g = container_of(m, struct call_gone, msg);
    coordinator_call_gone(broker_of(at), g->group, g->call, g->serial);
    mem_free((void *)(uintptr_t)g->group.data);
    mem_free(g);
}

static void call_gone(struct request *rq)
{
    struct call *c = rq->call;
    struct bytes key = c->api->coordinator_key(c);
    struct call_gone *g = MEM_NEW(struct call_gone);
    *g = (struct call_gone){ .call = c,
                             .serial = c->serial,
                             .group = bytes_of(mem_dup(key.data, key.len), key.len) };
    shard_send(&c->home->shard, c->sent_to, &g->msg, call_gone_arrived);
}

static void call_route(struct call *c)
{
    u32 target = c->home->shard.index;
    if (c->api->where == CALL_CONTROLLER)
        target = CONTROLLER_SHARD;
    else if (c->api->where == CALL_COORDINATOR &&
             coordinator_shard(c->home, c->api->coordinator_key(c), &target) != ERR_NONE)
        target = c->home->shard.index; /* the handler answers that there is none */
    c->sent_to = target;
    if (c->api->where == CALL_COORDINATOR)
        c->request->gone = call_gone;
    if (target == c->home->shard.index)
        call_run(c);
    else
        shard_send(&c->home->shard, target, &c->msg, call_arrived);
}

/* The header; false = malformed. Version and key are in the same place in every version. */
static bool call_decode_header(struct call *c, struct wire_reader *r)
{
    struct bytes f = c->request->frame;
    if (f.len < 8)
        return false;
    i16 key = (i16)get_be16(f.data), version = (i16)get_be16(f.data + 2);
    c->request->api_key = key;
    c->request->api_version = version;
    c->api = api_find(key);
    if (!c->api)
        return false;
    i16 header_version = request_header_version(key, version);
    if (header_version < 0)
        header_version = request_header_version(key, c->api->min);
    return request_header_decode(r, header_version, c->arena, &c->header) == ERR_NONE;
}

static void api_versions_fallback(struct call *c)
{
    struct api_versions_response *resp = c->resp;
    c->header.request_api_version = 0;
    api_versions_fill(c, resp);
    resp->error_code = ERR_UNSUPPORTED_VERSION;
    call_done(c);
}

static bool call_version_served(const struct call *c)
{
    i16 v = c->header.request_api_version;
    const struct message_type *t = message_request_type(c->api->key);
    return v >= MAX(c->api->min, t->min) && v <= c->api->max;
}

static bool call_decode(struct call *c, const char **why)
{
    struct wire_reader r = wire_reader_of(c->request->frame);
    *why = "bad request header or unknown api key";
    if (!call_decode_header(c, &r))
        return false;
    const struct message_type *rt = message_response_type(c->api->key);
    c->resp = arena_alloc(c->arena, rt->struct_bytes);
    const struct message_type *qt = message_request_type(c->api->key);
    void *req = arena_alloc(c->arena, qt->struct_bytes);
    *why = "request memory limit";
    if (!c->resp || !req)
        return false;
    rt->init(c->resp);
    qt->init(req);
    c->req = req;
    if (!call_version_served(c)) {
        *why = "api version that is not served";
        return c->api->key == API_KEY_api_versions;
    }
    *why = "request body breaks the format";
    return qt->decode(&r, c->header.request_api_version, c->arena, req) == ERR_NONE;
}

static void dispatch_request(struct request *rq)
{
    struct broker *b = broker_of(rq->shard);
    struct call *c = arena_alloc(&rq->arena, sizeof *c);
    if (!c) {
        request_malformed(rq, "request memory limit");
        return;
    }
    MAGIC_INIT(c, CALL_MAGIC);
    c->request = rq;
    c->home = c->at = b;
    c->arena = &rq->arena;
    c->serial = ++b->call_count;
    rq->call = c;
    const char *why;
    if (!call_decode(c, &why)) {
        request_malformed(rq, why);
        return;
    }
    if (!call_version_served(c))
        api_versions_fallback(c);
    else
        call_route(c);
}

/* ---- out ---- */

static void call_released(struct request *rq)
{
    struct call *c = rq->call;
    if (c->release)
        c->release(c);
    scatter_free_all(c);
    MAGIC_POISON(c);
}

static bool call_encode(struct call *c)
{
    const struct message_type *t = message_response_type(c->api->key);
    i16 v = c->header.request_api_version;
    i16 header_version = response_header_version(c->api->key, v);
    struct response_header h;
    response_header_init(&h);
    h.correlation_id = c->header.correlation_id;
    bool scatter = c->ref_cap > 0;
    u32 bytes = 4 + response_header_size(header_version, &h, false) + t->size(v, c->resp, scatter);
    struct wire_writer w = { .buf = arena_alloc(c->arena, bytes), .cap = bytes, .len = 4 };
    if (!w.buf)
        return false;
    if (scatter) {
        w.refs = arena_alloc(c->arena, c->ref_cap * sizeof *w.refs);
        w.refs_cap = c->ref_cap;
        if (!w.refs)
            return false;
    }
    response_header_encode(&w, header_version, &h);
    t->encode(&w, v, c->resp);
    CHECK(!w.bad && w.len == bytes);
    c->request->out = w.buf;
    c->request->out_len = w.len;
    return !scatter || c->expand(c, w.refs, w.refs_count);
}

static void call_finish(struct call *c)
{
    struct request *rq = c->request;
    CHECK(c->at == c->home);
    rq->call = c;
    rq->release = call_released;
    rq->close_after = c->close_after;
    rq->no_response = c->no_response || request_dead(rq);
    if (!rq->no_response && !call_encode(c)) {
        request_malformed(rq, "response memory limit");
        return;
    }
    metric_request(rq->shard->metrics, c->api->key, (clock_mono_ns() - rq->arrived_ns) / NS_PER_US,
                   rq->frame.len, rq->out_len, false);
    request_respond(rq);
}

static void call_home(struct shard *at, struct msg *m)
{
    struct call *c = container_of(m, struct call, msg);
    MAGIC_CHECK(c, CALL_MAGIC);
    c->at = broker_of(at);
    if (c->failed) {
        c->release = NULL;
        c->request->call = c;
        c->request->release = call_released;
        request_malformed(c->request, c->failed);
    } else {
        call_finish(c);
    }
}

static void call_send_home(struct call *c)
{
    if (c->at == c->home)
        call_home(&c->at->shard, &c->msg);
    else
        shard_send(&c->at->shard, c->home->shard.index, &c->msg, call_home);
}

void call_done(struct call *c)
{
    MAGIC_CHECK(c, CALL_MAGIC);
    call_send_home(c);
}

void call_malformed(struct call *c, const char *why)
{
    MAGIC_CHECK(c, CALL_MAGIC);
    c->failed = why;
    call_send_home(c);
}

const struct net_handler broker_net_handler = { .request = dispatch_request };
