/* leatctl cost: the numbers that may be given as NAME=VALUE words, and the model over them.
 * docs/cost.md has every formula in words.
 */
#ifndef LEATCTL_COST_H
#define LEATCTL_COST_H

#include "leatctl_int.h"

/* NUMBER(name, default, meaning). Prices are in USD, of the order of public lists for one region;
 * who decides by them puts in his own. */
#define COST_NUMBERS(NUMBER)                                                 \
    NUMBER(put, 0.005, "price of 1000 requests that put, list or post")      \
    NUMBER(get, 0.0004, "price of 1000 requests that read")                  \
    NUMBER(storage, 0.023, "price of a GiB in the object store for a month") \
    NUMBER(transfer, 0, "price of a GiB to or from the object store")        \
    NUMBER(retention_days, 7, "how long data is kept")

/* Only the model's. */
#define MODEL_NUMBERS(NUMBER)                                                       \
    NUMBER(rate, 0, "GiB/s produced; 0: a row for each of 0.01 to 100")             \
    NUMBER(fanout, 3, "how often what is produced is consumed")                     \
    NUMBER(catchup, 0.1, "share of it that is read behind the memory")              \
    NUMBER(utilization, 0.5, "how busy processors and network may be on average")   \
    NUMBER(zone, 0.01, "price of a GiB that leaves or enters a zone")               \
    NUMBER(produce_cross, 0.667, "share of what is produced that crosses zones")    \
    NUMBER(leat_cross, 0.667, "share of what Leat's consumers read that does")      \
    NUMBER(kafka_cross, 0, "the same of Kafka's, which may fetch from followers")   \
    NUMBER(vcpu, 0.05, "price of a virtual processor for an hour")                  \
    NUMBER(network, 0.31, "price of a machine for an hour for each GiB/s it sends") \
    NUMBER(block, 0.08, "price of a GiB of block storage for a month")              \
    NUMBER(block_rate, 0.04, "price of a MiB/s above what a volume includes")       \
    NUMBER(volume_gib, 16384, "largest volume")                                     \
    NUMBER(volume_rate, 125, "MiB/s a volume includes")                             \
    NUMBER(nodes_min, 3, "machines there are at least")                             \
    NUMBER(segment_mib, 16, "wal.segment_bytes")                                     \
    NUMBER(seal_s, 30, "wal.seal_age")                                              \
    NUMBER(group_ms, 50, "how often leat.durability=object puts")                   \
    NUMBER(run_mib, 32, "store.run_bytes")                                          \
    NUMBER(block_mib, 1, "store.block_bytes")                                       \
    NUMBER(amplification, 2.2, "bytes put for each byte produced, with compaction") \
    NUMBER(wal_s, 60, "seconds of data the log has room for")                       \
    NUMBER(leat_produce, 0.88, "CPU seconds of Leat for a GiB produced")            \
    NUMBER(leat_fetch, 0.42, "the same for a GiB consumed")                         \
    NUMBER(leat_store, 1.0, "the same for a GiB to or from the store")              \
    NUMBER(replicas, 3, "copies Kafka keeps")                                       \
    NUMBER(fill, 0.7, "how full Kafka's volumes may be on average")                 \
    NUMBER(kafka_produce, 3.99, "CPU seconds of Kafka for a GiB produced")          \
    NUMBER(kafka_fetch, 1.25, "the same for a GiB consumed, also by a follower")    \
    NUMBER(kafka_copy, 1.0, "the same for a GiB a follower appends")

struct cost {
#define NUMBER(name, value, meaning) f64 name;
    COST_NUMBERS(NUMBER)
    MODEL_NUMBERS(NUMBER)
#undef NUMBER
};

#define COST_MONTH_S (730.0 * 3600)

void cost_run(struct ctl *c, int count, char **words);
/* Prints the model's table. */
void cost_model_print(const struct cost *k);

#endif
