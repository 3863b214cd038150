/* A Kafka client of the simulation: one connection at a time, requests by the codec, and what real
 * clients do about it all: time out, hang up, connect again. */
#ifndef LEAT_SIM_CLIENT_H
#define LEAT_SIM_CLIENT_H

#include "codec.h"
#include "sim.h"

struct client;
struct rpc;
/* `resp`: the decoded response, valid during the call; NULL: the connection was lost, or the
 * answer did not come in time, and nobody knows what became of the request. */
typedef void (*rpc_done)(struct rpc *r, const void *resp);

struct rpc {
    struct rpc *next;
    struct client *client;
    i16 api, version;
    i32 correlation;
    rpc_done done;
    void *user;
    u64 number;
};

struct client {
    char name[32];
    struct sim_conn *conn;
    bool up;
    struct rpc *first, *last; /* sent, oldest first */
    u32 pending;
    u8 *in;
    u32 in_len, in_cap;
    i32 next_correlation;
    u64 timeout_ns, backoff_ns;
    void (*ready)(struct client *c); /* connected */
    void (*lost)(struct client *c);  /* after the requests were told */
    void *user;
    u64 answered; /* requests that got an answer */
};

void client_init(struct client *c, const char *name, void *user, void (*ready)(struct client *),
                 void (*lost)(struct client *));
/* Starts to connect; again and again by itself when it is refused or lost. */
void client_connect(struct client *c);
/* Encodes and sends; the client is up. done NULL: no answer will come (acks=0). */
void client_call(struct client *c, i16 api, i16 version, const void *request, rpc_done done,
                 void *user);
/* Ends the connection; a new one follows. */
void client_drop(struct client *c, bool reset);

#endif
