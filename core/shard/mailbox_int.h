/* Mailboxes of a shard; used by shard.c. See mailbox.c. */
#ifndef LEAT_MAILBOX_INT_H
#define LEAT_MAILBOX_INT_H

#include "shard.h"

struct mailboxes *mailboxes_create(u32 shard_count);
void mailboxes_destroy(struct mailboxes *mb);
/* Runs up to `budget` messages that came for `s`. Returns how many ran. */
u32 mailboxes_receive(struct shard *s, u32 budget);
/* Passes on what waits for room and wakes the receivers of this turn, once each. False when
 * something still waits for room. */
bool mailboxes_flush(struct shard *s);
/* Something waits for `s`, as far as `s` can see. */
bool mailboxes_pending(const struct shard *s);

#endif
