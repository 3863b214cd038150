/* The controller's state (shard 0) and what its files share. */
#ifndef LEAT_CONTROLLER_INT_H
#define LEAT_CONTROLLER_INT_H

#include "broker.h"

struct controller {
    bool running;
    struct list tasks;                     /* waiting struct controller_task */
    i64 producer_id_next, producer_id_end; /* of the block this process holds */
    struct list producer_id_waiters;
    struct bg_job producer_id_job;
    struct broker *broker;
    err producer_id_err;
};

/* ---- one request of several changes (topics.c) ---- */
struct topics_op {
    struct controller_task task;
    struct call *call;
    u32 outstanding;     /* changes under way, and one while the request is walked */
    u64 partitions_more; /* that they add */
};
struct topics_item {
    struct topic_change change;
    struct topics_op *op;
    i16 *code;      /* of the result in the response */
    char name[256]; /* for the log: the topic may be gone when the change is done */
};
/* Runs `run` as a controller task; it ends by topics_op_release. */
void topics_enter(struct call *c, void (*run)(struct controller_task *t));
/* `next` is given away; *code gets the result. */
void topics_change(struct topics_op *op, const struct topic *old, struct topic *next, i16 *code);
/* The last one answers the call and lets the next task run. */
void topics_op_release(struct topics_op *op);
/* printf into the call's arena; null at its limit. */
struct bytes text_of(struct call *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* topics.max_partitions: may there be so many more? */
bool topic_partitions_fit(const struct broker *b, u64 more);
bool topic_name_collides(struct broker *b, struct bytes name);
void topic_offsets_configure(struct broker *b, struct topic *t);

#endif
