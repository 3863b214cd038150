/* The control thread's side: blocking calls to one broker for set-up and metadata. */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "bench.h"

#define CONTROL_TIMEOUT_MS 15000
#define CONTROL_ANSWER_MAX (64 * MIB)

int control_connect(const char *host, u16 port, u32 timeout_ms)
{
    char service[8];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return -1;
    int fd = -1;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            continue;
        struct timeval t = { timeout_ms / 1000, (timeout_ms % 1000) * 1000 };
        int one = 1;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd;
}
static bool control_all(struct control *c, u8 *in, const u8 *out, u64 len)
{
    for (u64 done = 0; done < len;) {
        ssize_t n = in ? recv(c->fd, in + done, len - done, 0)
                       : send(c->fd, out + done, len - done, MSG_NOSIGNAL);
        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            close(c->fd);
            c->fd = -1;
            return false;
        }
        done += (u64)n;
    }
    return true;
}
bool control_call(struct control *c, const struct wbuf *request, bool flexible, struct rbuf *answer)
{
    u8 size[4];
    if (c->fd < 0 || !control_all(c, NULL, request->data, request->len) ||
        !control_all(c, size, NULL, 4))
        return false;
    u32 len = get_be32(size);
    if (len < 4 || len > CONTROL_ANSWER_MAX) {
        close(c->fd);
        c->fd = -1;
        return false;
    }
    if (len > c->rx_cap) {
        c->rx = mem_realloc(c->rx, len);
        c->rx_cap = len;
    }
    if (!control_all(c, c->rx, NULL, len))
        return false;
    *answer = (struct rbuf){ c->rx, c->rx + len, false };
    read_i32(answer);
    read_tags(answer, flexible);
    return true;
}
static bool control_try(struct control *c, const char *host, u16 port)
{
    struct wbuf w = { 0 };
    struct rbuf r;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = control_connect(host, port, CONTROL_TIMEOUT_MS);
    if (c->fd < 0)
        return false;
    memset(&c->versions, 0, sizeof c->versions);
    wire_begin(&w, &c->versions, API_VERSIONS, ++c->correlation);
    wire_end(&w);
    bool ok = control_call(c, &w, false, &r) && wire_choose_versions(&r, &c->versions);
    wire_free(&w);
    return ok;
}
bool control_open(struct control *c, const struct options *o)
{
    c->o = o;
    for (u32 i = 0; c->latest && i < c->latest->node_count; i++)
        if (control_try(c, c->latest->nodes[i].host, c->latest->nodes[i].port))
            return true;
    for (const char *at = o->brokers; *at;) {
        char host[256];
        size_t len = strcspn(at, ","), host_len = len;
        while (host_len > 0 && at[host_len] != ':')
            host_len--;
        u16 port = host_len ? (u16)atoi(at + host_len + 1) : 9092;
        snprintf(host, sizeof host, "%.*s", (int)(host_len ? host_len : len), at);
        if (control_try(c, host, port))
            return true;
        at += len + (at[len] == ',');
    }
    return false;
}
struct cluster *control_metadata(struct control *c)
{
    struct wbuf w = { 0 };
    struct rbuf r;
    if (c->fd < 0 && !control_open(c, c->o))
        return NULL;
    bool flexible = wire_flexible(API_METADATA, c->versions.v[API_METADATA]);
    wire_metadata_request(&w, &c->versions, ++c->correlation, c->o->topic);
    struct cluster *found = NULL;
    if (control_call(c, &w, flexible, &r))
        found = wire_metadata_parse(&r, &c->versions);
    wire_free(&w);
    return found;
}
i16 control_create_topic(struct control *c)
{
    struct wbuf w = { 0 };
    struct rbuf r;
    if (c->versions.v[API_CREATE_TOPICS] < 0)
        return 35;
    wire_create_request(&w, &c->versions, ++c->correlation, c->o);
    i16 error = control_call(c, &w, false, &r) ? wire_topics_parse(&r, true) : (i16)-2;
    wire_free(&w);
    return error;
}
i16 control_delete_topic(struct control *c)
{
    struct wbuf w = { 0 };
    struct rbuf r;
    if (c->versions.v[API_DELETE_TOPICS] < 0)
        return 35;
    wire_delete_request(&w, &c->versions, ++c->correlation, c->o->topic);
    i16 error = control_call(c, &w, false, &r) ? wire_topics_parse(&r, false) : (i16)-2;
    wire_free(&w);
    return error;
}
bool control_producer_id(struct control *c, struct producer_id *out)
{
    struct wbuf w = { 0 };
    struct rbuf r;
    if (c->versions.v[API_INIT_PRODUCER_ID] < 0)
        return false;
    wire_producer_id_request(&w, &c->versions, ++c->correlation);
    bool ok = control_call(c, &w, false, &r) && wire_producer_id_parse(&r, out) == 0;
    wire_free(&w);
    return ok;
}
void control_close(struct control *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    mem_free(c->rx);
    c->rx = NULL;
}
