/* Long pieces of work over the whole object store and its metadata, for operators: how much each
 * topic takes (du), and whether every byte is what it should be (verify). A job runs beside
 * everything else, on shard 0 and the background threads, and shows its progress and result as the
 * text of a JSON object.
 *
 * One thread (that of the administration endpoint) makes, starts, shows and frees jobs. */
#ifndef LEAT_STORE_JOB_H
#define LEAT_STORE_JOB_H

#include "metrics.h"
#include "storage.h"

enum store_job_kind { STORE_JOB_DU, STORE_JOB_VERIFY, STORE_JOB_KINDS };
struct store_job;

/* `storage_of` runs on shard 0. */
struct store_job *store_job_create(enum store_job_kind kind, struct shard_group *g,
                                   struct storage *(*storage_of)(struct shard *s));
/* When the shards have ended, or were never started. */
void store_job_free(struct store_job *j);
/* While the shards run. `rate`: bytes a second read from the store, 0: no limit. False: it is
 * running. */
bool store_job_start(struct store_job *j, u64 rate) MUST_USE;
/* It ends soon, and says so in what it shows. */
void store_job_cancel(struct store_job *j);
/* Adds how far it has come, or the result of the last time. False: it never ran. */
bool store_job_show(struct store_job *j, struct metric_text *out);

#endif
