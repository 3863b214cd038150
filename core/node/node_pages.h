/* The node's own pages of the administration endpoint, about its object store and topics. All but
 * node_page_serve, which is the admin thread's, on the main thread.
 *
 *   GET    /v1/store          JSON: uploads, what the metadata names, what the last listing found
 *   POST   /v1/store/du       starts to count what each topic takes; 202, 409 it is running
 *   GET    /v1/store/du       progress or result; 404 it never ran
 *   POST   /v1/store/verify   starts to check every object; body: rate=BYTES a second, or nothing
 *   GET    /v1/store/verify   progress or report
 *   DELETE /v1/store/verify   ends it
 *   POST   /v1/topics/clone   body: lines source=, target=, and end_offset= or end_ms=;
 *                             202, 409 one is under way
 *   GET    /v1/topics/clone   how far it is, or how the last one ended
 */
#ifndef LEAT_NODE_PAGES_H
#define LEAT_NODE_PAGES_H

#include "metrics.h"
#include "node.h"

struct node_pages;

struct node_pages *node_pages_create(struct node *n);
/* All shards serve: messages may be sent to them. */
void node_pages_ready(struct node_pages *p);
/* Before the shards are stopped: no message reaches them any more. */
void node_pages_close(struct node_pages *p);
void node_pages_free(struct node_pages *p);
/* See admin_ops.page. */
unsigned node_page_serve(struct node_pages *p, const char *method, const char *path,
                         const char *body, struct metric_text *out);

#endif
