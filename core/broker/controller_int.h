/* The controller's state (shard 0) and what its files share. */
#ifndef LEAT_CONTROLLER_INT_H
#define LEAT_CONTROLLER_INT_H

#include "broker.h"

struct controller {
    bool running;
    struct list tasks;                /* waiting struct controller_task */
    i64 producer_id_next, producer_id_end; /* of the block this process holds */
    struct list producer_id_waiters;
    struct bg_job producer_id_job;
    struct broker *broker;
    err producer_id_err;
};

bool topic_name_collides(struct broker *b, struct bytes name);
void topic_offsets_configure(struct broker *b, struct topic *t);

#endif
