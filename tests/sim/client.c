/* One connection of a simulated client: see client.h. Answers come in the order of requests. */
#include "client.h"

#include <stdio.h>
#include <string.h>

static void opened(struct sim_conn *conn, void *user)
{
    struct client *c = user;
    CHECK(c->conn == conn);
    c->up = true;
    c->in_len = 0;
    c->ready(c);
}

static void reconnect(void *arg, u64 x)
{
    (void)x;
    struct client *c = arg;
    if (!c->conn)
        client_connect(c);
}

static void over(struct client *c)
{
    bool was_up = c->up;
    c->conn = NULL;
    c->up = false;
    struct rpc *r = c->first;
    c->first = c->last = NULL;
    c->pending = 0;
    while (r) {
        struct rpc *next = r->next;
        r->done(r, NULL);
        mem_free(r);
        r = next;
    }
    c->lost(c);
    c->backoff_ns = was_up ? NS_PER_MS : MIN(2 * c->backoff_ns + NS_PER_MS, NS_PER_S);
    sim_after(rnd_between(c->backoff_ns / 2, c->backoff_ns * 4), reconnect, c, 0);
}

static void closed(struct sim_conn *conn, void *user)
{
    struct client *c = user;
    CHECK(c->conn == conn);
    over(c);
}

static void answer(struct client *c, struct bytes frame)
{
    struct wire_reader in = wire_reader_of(frame);
    struct rpc *r = c->first;
    struct arena a;
    struct response_header h;
    if (!r)
        sim_fail("protocol: %s got an answer without a request", c->name);
    arena_init(&a, 16384, 64 * MIB);
    err e = response_header_decode(&in, response_header_version(r->api, r->version), &a, &h);
    if (e != ERR_NONE || h.correlation_id != r->correlation)
        sim_fail("protocol: %s expects correlation %d and gets %d (api %d)", c->name,
                 r->correlation, h.correlation_id, r->api);
    const struct message_type *t = message_response_type(r->api);
    void *resp = arena_alloc(&a, t->struct_bytes);
    e = t->decode(&in, r->version, &a, resp);
    if (e != ERR_NONE || wire_left(&in) != 0)
        sim_fail("protocol: the answer to %s v%d does not decode (%s, %u bytes left)", t->name,
                 r->version, err_name(e), wire_left(&in));
    c->first = r->next;
    if (!c->first)
        c->last = NULL;
    c->pending--;
    c->answered++;
    r->done(r, resp);
    mem_free(r);
    arena_free(&a);
}

static void received(struct sim_conn *conn, void *user, const u8 *data, u32 len)
{
    struct client *c = user;
    if (c->in_len + len > c->in_cap) {
        c->in_cap = (c->in_len + len) * 2;
        c->in = mem_realloc(c->in, c->in_cap);
    }
    memcpy(c->in + c->in_len, data, len);
    c->in_len += len;
    u32 at = 0;
    while (c->conn == conn && c->in_len - at >= 4) {
        u32 n = get_be32(c->in + at);
        if (n > 64 * MIB)
            sim_fail("protocol: %s gets a frame of %u bytes", c->name, n);
        if (c->in_len - at - 4 < n)
            break;
        answer(c, bytes_of(c->in + at + 4, n));
        at += 4 + n;
    }
    if (c->conn != conn)
        return; /* hung up inside an answer: in_len is the next connection's */
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
}

static const struct sim_conn_user conn_fns = { opened, received, closed };

void client_init(struct client *c, const char *name, void *user, void (*ready)(struct client *),
                 void (*lost)(struct client *))
{
    *c = (struct client){ .user = user, .ready = ready, .lost = lost, .timeout_ns = 10 * NS_PER_S };
    snprintf(c->name, sizeof c->name, "%s", name);
}

void client_connect(struct client *c)
{
    CHECK(!c->conn);
    c->conn = net_connect(&conn_fns, c);
}

void client_drop(struct client *c, bool reset)
{
    if (!c->conn)
        return;
    struct sim_conn *conn = c->conn;
    net_hangup(conn, reset);
    over(c);
}

/* An answer that does not come in time: real clients hang up. */
static void timed_out(void *arg, u64 x)
{
    struct client *c = arg;
    for (struct rpc *r = c->first; r; r = r->next)
        if (r->number == x) {
            TRACE("%s: no answer in time (api %d)", c->name, r->api);
            client_drop(c, one_in(2));
            return;
        }
}

void client_call(struct client *c, i16 api, i16 version, const void *request, rpc_done done,
                 void *user)
{
    static u64 numbers;
    CHECK(c->up);
    const struct message_type *t = message_request_type(api);
    struct request_header h;
    request_header_init(&h);
    h.request_api_key = api;
    h.request_api_version = version;
    h.correlation_id = c->next_correlation++;
    h.client_id = bytes_str(c->name);
    u32 cap = t->size(version, request, false) + 256;
    u8 *buf = mem_alloc(cap);
    struct wire_writer w = wire_writer_of(buf, cap);
    wire_put_u32(&w, 0);
    request_header_encode(&w, request_header_version(api, version), &h);
    t->encode(&w, version, request);
    CHECK(!w.bad);
    put_be32(buf, w.len - 4);
    if (done) {
        struct rpc *r = MEM_NEW(struct rpc);
        *r = (struct rpc){ .client = c,
                           .api = api,
                           .version = version,
                           .correlation = h.correlation_id,
                           .done = done,
                           .user = user,
                           .number = ++numbers };
        if (c->last)
            c->last->next = r;
        else
            c->first = r;
        c->last = r;
        c->pending++;
        sim_after(c->timeout_ns, timed_out, c, r->number);
    }
    net_send(c->conn, buf, w.len);
    mem_free(buf);
}
