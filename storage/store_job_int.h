/* Inside of the jobs over the store: what store_job.c does for store_du.c and store_verify.c.
 * Shard 0, unless said otherwise. */
#ifndef LEAT_STORE_JOB_INT_H
#define LEAT_STORE_JOB_INT_H

#include "bundle_int.h"
#include "store_job.h"

struct store_job_ops {
    const char *name;
    size_t work_bytes;
    void (*begin)(struct store_job *j);
    /* Members of the JSON object, each with a comma in front. */
    void (*show)(const struct store_job *j, struct metric_text *out);
    void (*release)(struct store_job *j); /* what `work` points to */
};
extern const struct store_job_ops store_du_ops, store_verify_ops;

enum store_job_state { STORE_JOB_IDLE, STORE_JOB_POSTED, STORE_JOB_RUNNING };

struct store_job {
    const struct store_job_ops *ops;
    enum store_job_kind kind;
    struct shard_group *group;
    struct storage *(*storage_of)(struct shard *s);
    struct msg msg;
    u32 state;     /* atomic, enum store_job_state */
    bool canceled; /* atomic */
    char *fresh;   /* atomic: text that was not fetched yet; who takes it owns it */
    char *shown;   /* of the thread that shows */
    u64 rate;
    /* While it runs. */
    struct storage *st;
    struct bg_job bg;
    struct timer timer;
    void (*then)(struct store_job *j);
    u64 began_ns, step_ns, published_ns;
    i64 began_ms;
    void *work;
};

/* Runs `run` in the background, then `then`, unless the job is canceled or the shard stops. */
void store_job_bg(struct store_job *j, enum bg_lane lane, bg_fn run,
                  void (*then)(struct store_job *j));
/* Goes on after a pause that keeps to the rate, for `bytes` read since step_ns; publishes now and
 * then. */
void store_job_rest(struct store_job *j, u64 bytes, void (*then)(struct store_job *j));
/* The end: `failed` NULL, or what went wrong. */
void store_job_end(struct store_job *j, const char *failed, err e);

/* ---- topics by id; any thread that may ask the metadata ---- */

struct topic_name {
    struct uuid id;
    char *name;
};
struct topic_names { /* ascending by id */
    struct topic_name *names;
    u32 count, cap;
};
err topic_names_load(struct topic_names *t, struct meta *m) MUST_USE;
const char *topic_names_find(const struct topic_names *t, struct uuid id); /* NULL: deleted */
void topic_names_free(struct topic_names *t);
void topic_id_text(struct uuid id, char *buf); /* 32 digits; buf of 33 */

#endif
