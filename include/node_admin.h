/* A node's side of the administration endpoint (admin.h): what it tells about readiness and status,
 * which metrics it shows, and what a live change of a key does. Main thread only. */
#ifndef LEAT_NODE_ADMIN_H
#define LEAT_NODE_ADMIN_H

#include "node.h"

struct node_admin; /* opaque */

/* After node_open, before the shards run: metrics and health are there from the first moment, and
 * readiness says "recovering" until node_admin_ready. *out is never NULL on success, even
 * with an empty admin.listen: live keys work then too. */
err node_admin_start(struct node *n, struct node_admin **out, char *why, size_t why_size) MUST_USE;
/* Every shard serves. */
void node_admin_ready(struct node_admin *a);
/* Before the shards are stopped: live changes of keys do not reach them any more. */
void node_admin_stopping(struct node_admin *a);
/* Before node_close; NULL is allowed. */
void node_admin_stop(struct node_admin *a);

#endif
