/* Who uses the simulated node: producers, consumers, administrators, and the verifier that reads
 * everything at the end. */
#ifndef LEAT_SIM_LOAD_H
#define LEAT_SIM_LOAD_H

#include "client.h"
#include "model.h"

struct load_plan { /* of a seed */
    u32 producers, consumers;
    u32 batches; /* each producer makes, over all */
    u32 value_bytes_max;
    u64 think_ns; /* mean pause between sends */
    bool compress, deletes, commits, plain, churn, group, compact, clone;
};
extern struct load_plan load_plan;

/* load_tide.c: of long seeds; others are always in the first burst. */
void tide_begin(void);
/* sim_after, for what clients do by themselves: in the next burst when it is quiet now. */
void load_after(u64 delay_ns, sim_fn fn, void *arg, u64 x);
bool tide_is_low(void);
struct tide_mark {
    u32 burst;
};
/* Once in a burst: *batches may be made in it. */
void tide_refill(struct tide_mark *m, u32 *batches);
extern bool load_quiet;   /* nobody begins anything new */
extern bool topics_ready; /* all are there, with their ids */

void load_start(void);
void producers_start(void);
bool producers_idle(void); /* nothing is left to be sent or answered */
void consumers_start(void);
void churner_start(void);
void cloner_start(void);
bool cloner_idle(void);
void cloner_verify_begin(void);
bool cloner_verified(void);
void group_start(void);
bool group_stable(void);
void compact_start(void);
bool compact_idle(void);
void compact_verify_begin(void);
bool compact_verified(void);

/* check_store.c. A registered object that is missing or of another length fails the seed. */
bool store_is_clean(char *why, size_t why_size);
void compact_describe(char *buf, size_t size);
void group_describe(char *buf, size_t size);
void admin_start(void);
bool admin_idle(void);
void verify_begin(void);
bool verify_done(void);
/* What everybody waits for, for the report of a liveness violation. */
void load_describe(char *buf, size_t size);
void producers_describe(char *buf, size_t size);

#endif
