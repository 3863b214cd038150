/* The administration endpoint: metrics, health and configuration over HTTP, on a thread of its own.
 *
 *   GET /metrics            Prometheus text of the registry
 *   GET /healthz            200 while the process serves at all
 *   GET /readyz             200 when ops->ready says so, else 503 with the reason
 *   GET /v1/status          JSON: node, version, uptime, and what ops->status adds
 *   …  /v1/store, …         what ops->page serves: the node's own pages (node_pages.h)
 *   GET /v1/config          JSON array of all keys
 *   GET /v1/config/KEY      JSON object of one key
 *   PUT /v1/config/KEY      body: the new value; 200, 400 refused, 404 unknown, 409 needs a restart
 *   DELETE /v1/config/KEY   back to the stored value, or what command line, files or default say
 *
 * There is no authentication: the default address is loopback. Connections, their memory and
 * their time are bounded. See config.h for how long a live
 * change lasts.
 */
#ifndef LEAT_ADMIN_H
#define LEAT_ADMIN_H

#include "config.h"
#include "metrics.h"

struct admin; /* opaque */

/* Given by the node, embedded in it (container_of). Both run on the admin thread while shards run:
 * they may only read what is atomic or never changes. Either may be NULL. */
struct admin_ops {
    /* Does the node serve clients? When not, says why. */
    bool (*ready)(struct admin_ops *ops, char *why, size_t why_size);
    /* A page of the node's own below /v1/: `path` is what follows, without a query. Returns the
     * HTTP status and adds JSON to `out`; 0: there is no such page. May be NULL. */
    unsigned (*page)(struct admin_ops *ops, const char *method, const char *path, const char *body,
                     struct metric_text *out);
    /* Appends the members of a JSON object, each with a comma in front: `,"shards":2`. */
    void (*status)(struct admin_ops *ops, struct metric_text *out);
};

/* Starts the thread. With an empty admin.listen it succeeds and *out is NULL. Errors leave a
 * sentence in why. cfg, metrics and ops must outlive it. */
err admin_start(struct config *cfg, const struct metric_registry *metrics, struct admin_ops *ops,
                struct admin **out, char *why, size_t why_size) MUST_USE;
/* The port it listens on (admin.listen may name port 0). */
u16 admin_port(const struct admin *a);
/* Ends the thread; NULL is allowed. */
void admin_stop(struct admin *a);

#endif
