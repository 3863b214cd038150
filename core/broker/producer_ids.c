/* InitProducerId: unique ids from blocks that the controller reserves in the metadata store
 * (key n/producer-id: u8 version 1, i64 first id not reserved). A crash skips the rest of a block.
 */
#include "broker_int.h"
#include "check.h"
#include "controller_int.h"
#include "log.h"

#define PRODUCER_ID_BLOCK 1000
#define PRODUCER_ID_KEY "n/producer-id"

struct producer_id_wait {
    struct list link;
    struct call *call;
};

static void producer_id_answer(struct call *c)
{
    struct controller *k = c->at->controller;
    struct init_producer_id_response *resp = CALL_RESP(c, init_producer_id_response);
    resp->producer_id = k->producer_id_next++;
    resp->producer_epoch = 0;
    call_done(c);
}

/* Background thread. */
static void producer_id_reserve(struct bg_job *j)
{
    struct controller *k = container_of(j, struct controller, producer_id_job);
    struct meta *m = k->broker->node->env.meta;
    struct arena a;
    arena_init(&a, 4096, 65536);
    struct meta_kv kv = { .revision = 0 };
    err e = meta_get(m, bytes_str(PRODUCER_ID_KEY), &a, &kv);
    i64 first = 0;
    if (e == ERR_NONE)
        first = kv.value.len == 9 && kv.value.data[0] == 1 ? (i64)get_le64(kv.value.data + 1) : -1;
    if (e == ERR_NOT_FOUND)
        e = ERR_NONE;
    if (first < 0 || first > INT64_MAX - PRODUCER_ID_BLOCK)
        e = ERR_CORRUPT;
    if (e == ERR_NONE) {
        u8 value[9] = { 1 };
        put_le64(value + 1, (u64)(first + PRODUCER_ID_BLOCK));
        struct meta_op op = { META_PUT, bytes_str(PRODUCER_ID_KEY), bytes_of(value, sizeof value) };
        struct meta_compare cmp = { bytes_str(PRODUCER_ID_KEY), kv.revision };
        struct meta_txn t = { .compares = &cmp, .compare_count = 1, .ops = &op, .op_count = 1 };
        e = meta_commit(m, &t);
    }
    k->producer_id_err = e;
    if (e == ERR_NONE) {
        k->producer_id_next = first;
        k->producer_id_end = first + PRODUCER_ID_BLOCK;
    }
    arena_free(&a);
}

static void producer_id_wake(struct broker *b);

static void producer_id_reserved(struct bg_job *j)
{
    struct controller *k = container_of(j, struct controller, producer_id_job);
    struct list *l;
    if (k->producer_id_err != ERR_NONE) {
        LOG(ERROR, producer_ids_failed, "err=%s remedy=\"check the metadata store's disk\"",
            err_name(k->producer_id_err));
        while ((l = list_pop_front(&k->producer_id_waiters))) {
            struct call *c = list_entry(l, struct producer_id_wait, link)->call;
            CALL_RESP(c, init_producer_id_response)->error_code = ERR_COORDINATOR_NOT_AVAILABLE;
            call_done(c);
        }
        return;
    }
    producer_id_wake(k->broker);
}

static void producer_id_wake(struct broker *b)
{
    struct controller *k = b->controller;
    if (k->producer_id_job.busy)
        return;
    while (k->producer_id_next < k->producer_id_end && !list_empty(&k->producer_id_waiters)) {
        struct list *l = list_pop_front(&k->producer_id_waiters);
        producer_id_answer(list_entry(l, struct producer_id_wait, link)->call);
    }
    if (!list_empty(&k->producer_id_waiters)) {
        k->broker = b;
        bg_submit(&b->shard, &k->producer_id_job, BG_META, producer_id_reserve,
                  producer_id_reserved);
    }
}

void handle_init_producer_id(struct call *c)
{
    const struct init_producer_id_request *q = CALL_REQ(c, init_producer_id_request);
    struct init_producer_id_response *resp = CALL_RESP(c, init_producer_id_response);
    resp->producer_id = -1;
    resp->producer_epoch = -1;
    bool pair_ok = (q->producer_id == -1) == (q->producer_epoch == -1);
    struct producer_id_wait *w = arena_alloc(c->arena, sizeof *w);
    if (q->transactional_id.data || !pair_ok || !w) {
        /* Transactions are not served: FindCoordinator already told the client. */
        resp->error_code = ERR_INVALID_REQUEST;
        call_done(c);
        return;
    }
    w->call = c;
    list_push_back(&c->at->controller->producer_id_waiters, &w->link);
    producer_id_wake(c->at);
}
