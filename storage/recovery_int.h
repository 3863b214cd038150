/* Between recovery.c and recovery_forward.c. */
#ifndef LEAT_RECOVERY_INT_H
#define LEAT_RECOVERY_INT_H

#include "backup_int.h"
#include "recovery.h"

err recovery_fail(char *why, size_t why_size, err e, const char *fmt, ...) PRINTF_LIKE(4, 5);
/* What the objects in the store add to the metadata: registrations, producers, the state of logs.
 * One transaction. */
err recovery_forward(struct recovery *r, char *why, size_t why_size) MUST_USE;

#endif
