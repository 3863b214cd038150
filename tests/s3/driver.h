/* What the files of the driver's test program share. */
#ifndef LEAT_S3_DRIVER_H
#define LEAT_S3_DRIVER_H

#include <stdio.h>

#include "store.h"

extern struct store *store;
extern const char *current; /* case */

#define NEED(cond, ...)                                      \
    do {                                                     \
        if (!(cond)) {                                       \
            printf("FAIL %s: line %d: ", current, __LINE__); \
            printf(__VA_ARGS__);                             \
            printf("\n");                                    \
            return false;                                    \
        }                                                    \
    } while (0)
#define NEED_ERR(call, wanted)                                       \
    do {                                                             \
        err got_ = (call);                                           \
        NEED(got_ == (wanted), "%s gave %s", #call, err_name(got_)); \
    } while (0)

/* Bytes that follow from the seed; the caller frees them. */
u8 *data_make(u64 seed, u32 bytes);
err put_seed(const char *name, u64 seed, u32 len, bool if_absent);
/* ERR_CORRUPT_MESSAGE: other bytes than were put. */
err get_seed(const char *name, u64 seed, u64 from, u32 len);

struct listed {
    u64 count, bytes, stop_at;
    char last[STORE_NAME_MAX + 1];
    bool ordered;
};
/* Of all below `prefix`; the list is stopped at the `stop_at`th, 0: never. */
struct listed listed_of(const char *prefix, u64 stop_at, err *e);

/* driver_puts.c */
bool case_hedge_put(void);
bool case_parts(void);
bool case_abandon(void);
bool case_sweep(void);

#endif
