/* leatctl cost model: what a month costs at a rate of production, with Leat on an object store and
 * with Apache Kafka on replicated block storage. Pure arithmetic; docs/cost.md has the formulas. */
#include <math.h>
#include <stdio.h>

#include "leatctl_cost.h"

#define MIB_PER_GIB 1024.0
#define MONTH_HOURS (COST_MONTH_S / 3600)
/* Machines have two processors at least. */
#define NODE_VCPUS_MIN 2

/* USD a month. */
struct bill {
    f64 compute, disks, storage, requests, zones;
    f64 puts_s, gets_s;
};

static f64 bill_sum(const struct bill *b)
{
    return b->compute + b->disks + b->storage + b->requests + b->zones;
}

/* Machines are bought for their processors or for their network, whichever is more. */
static f64 compute(const struct cost *k, f64 cpus, f64 in, f64 out)
{
    f64 vcpus = fmax(cpus / k->utilization, k->nodes_min * NODE_VCPUS_MIN);
    return fmax(vcpus * k->vcpu, fmax(in, out) / k->utilization * k->network) * MONTH_HOURS;
}

static f64 disks(const struct cost *k, f64 gib, f64 mib_s)
{
    f64 volumes = fmax(ceil(gib / k->volume_gib), k->nodes_min);
    return gib * k->block + fmax(mib_s - volumes * k->volume_rate, 0) * k->block_rate;
}

static struct bill leat(const struct cost *k, f64 rate, bool object)
{
    f64 month_gib = rate * COST_MONTH_S, again = k->amplification - 1;
    f64 late = k->catchup * k->fanout;
    f64 cpus = rate * (k->leat_produce + k->fanout * k->leat_fetch +
                       k->leat_store * (k->amplification + again + late));
    f64 shards = ceil(fmax(cpus / k->utilization, k->nodes_min * NODE_VCPUS_MIN));
    f64 often = object ? shards * 1000 / k->group_ms : shards / k->seal_s;
    struct bill b = { 0 };
    b.puts_s =
        fmax(rate * MIB_PER_GIB / k->segment_mib, often) + rate * again * MIB_PER_GIB / k->run_mib;
    b.gets_s = rate * (again + late) * MIB_PER_GIB / k->block_mib;
    b.requests = (b.puts_s * k->put + b.gets_s * k->get) / 1000 * COST_MONTH_S;
    b.storage = rate * k->retention_days * 24 * 3600 * k->storage;
    b.disks = object ? 0 : disks(k, rate * k->wal_s, rate * MIB_PER_GIB);
    b.compute = compute(k, cpus, rate * (1 + again + late), rate * (k->fanout + k->amplification));
    b.zones = month_gib * (2 * k->zone * (k->produce_cross + k->fanout * k->leat_cross) +
                           k->transfer * (k->amplification + again + late));
    return b;
}

static struct bill kafka(const struct cost *k, f64 rate)
{
    f64 copies = k->replicas - 1, late = k->catchup * k->fanout;
    f64 cpus = rate * (k->kafka_produce + copies * (k->kafka_fetch + k->kafka_copy) +
                       k->fanout * k->kafka_fetch);
    struct bill b = { 0 };
    b.disks = disks(k, rate * k->retention_days * 24 * 3600 * k->replicas / k->fill,
                    rate * MIB_PER_GIB * (k->replicas + late));
    b.compute = compute(k, cpus, rate * k->replicas, rate * (k->fanout + copies));
    b.zones = rate * COST_MONTH_S * 2 * k->zone *
              (k->produce_cross + copies + k->fanout * k->kafka_cross);
    return b;
}

static void print_row(const char *who, f64 rate, const struct bill *b, const struct bill *with)
{
    f64 sum = bill_sum(b);
    printf("| %g | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f | %.4f | %.2f | %.0f | %.0f |\n",
           rate, who, b->compute, b->disks, b->storage, b->requests, b->zones, sum,
           sum / (rate * COST_MONTH_S), bill_sum(with) > 0 ? sum / bill_sum(with) : 0, b->puts_s,
           b->gets_s);
}

static void print_rate(const struct cost *k, f64 rate)
{
    struct bill of_kafka = kafka(k, rate), local = leat(k, rate, false),
                object = leat(k, rate, true);
    print_row("Kafka", rate, &of_kafka, &of_kafka);
    print_row("Leat, local", rate, &local, &of_kafka);
    print_row("Leat, object", rate, &object, &of_kafka);
}

void cost_model_print(const struct cost *k)
{
    static const f64 rates[] = { 0.01, 0.1, 1, 10, 100 };
    puts("| GiB/s | | compute | disks | storage | requests | zones | USD a month | USD/GiB | of "
         "Kafka's | PUT/s | GET/s |\n"
         "|---|---|---|---|---|---|---|---|---|---|---|---|");
    if (k->rate > 0)
        print_rate(k, k->rate);
    for (size_t i = 0; i < ARRAY_COUNT(rates) && k->rate == 0; i++)
        print_rate(k, rates[i]);
}
