/* bg.h of the simulator: jobs run whole, at seeded moments, in the one thread. Lanes keep the
 * order that the contract says: BG_META and BG_MISC one job at a time, in order; the others
 * several, in any order. A kill may strike before a job, after it, and before its owner hears. */
#include "bg.h"
#include "check.h"
#include "mem.h"
#include "sim.h"

struct lane {
    struct bg_job *first, *last;
    u32 running, running_max;
};

struct bg {
    struct shard_group *group;
    struct lane lanes[BG_LANES];
};

static void lane_kick(struct bg *bg, struct lane *l);

static void job_returns(struct shard *at, struct msg *m)
{
    struct bg_job *j = container_of(m, struct bg_job, msg);
    CHECK(j->busy && j->shard == at->index);
    bg_fn done = j->done;
    j->busy = false;
    done(j);
}

static u64 job_delay(const struct bg_job *j)
{
    u32 slow = j->lane == BG_META ? sim.faults.meta_slow : sim.faults.store_slow;
    if (!fault(slow))
        return rnd_log(20 * NS_PER_US, 20 * NS_PER_MS);
    sim.faults_hit++; /* a start may wait for it in vain */
    return rnd_log(10 * NS_PER_MS, 5 * NS_PER_S);
}

static void job_ended(void *arg, u64 x)
{
    struct bg_job *j = arg;
    struct bg *bg = (struct bg *)(uintptr_t)x;
    struct lane *l = &bg->lanes[j->lane];
    CHECK(l->running > 0);
    l->running--;
    shard_post(bg->group, j->shard, &j->msg, job_returns);
    lane_kick(bg, l);
}

static void job_runs(void *arg, u64 x)
{
    struct bg_job *j = arg;
    sim_effect("before a background job");
    sim.lane = j->lane;
    j->run(j);
    sim.lane = BG_LANES;
    sim_effect("after a background job");
    sim_after_in_life(job_delay(j), job_ended, j, x);
}

static void lane_kick(struct bg *bg, struct lane *l)
{
    while (l->first && l->running < l->running_max) {
        struct bg_job *j = l->first;
        l->first = j->next;
        if (!l->first)
            l->last = NULL;
        j->next = NULL;
        l->running++;
        sim_after_in_life(job_delay(j), job_runs, j, (u64)(uintptr_t)bg);
    }
}

static u32 lane_threads(u32 lane, const struct config *cfg)
{
    u32 several = (u32)config_u64(cfg, CFG_bg_threads);
    if (lane == BG_PUT || lane == BG_READ || lane == BG_BULK)
        return several;
    if (lane == BG_AWAITED)
        return several * BG_AWAITED_JOBS;
    return lane == BG_CATCHUP ? (u32)config_u64(cfg, CFG_store_catchup_reads) : 1;
}

struct bg *bg_create(struct shard_group *g, const struct config *cfg)
{
    struct bg *bg = MEM_NEW(struct bg);
    bg->group = g;
    for (u32 i = 0; i < BG_LANES; i++)
        bg->lanes[i].running_max = lane_threads(i, cfg);
    return bg;
}

void bg_destroy(struct bg *bg)
{
    for (u32 i = 0; i < BG_LANES; i++)
        if (bg->lanes[i].first || bg->lanes[i].running)
            sim_fail("bg: the pool ends with jobs in lane %u", i);
    mem_free(bg);
}

void bg_quiesce(struct bg *bg)
{
    (void)bg;
}

void bg_submit(struct shard *s, struct bg_job *j, enum bg_lane lane, bg_fn run, bg_fn done)
{
    CHECK((u32)lane < BG_LANES && !j->busy && run && done);
    j->busy = true;
    j->run = run;
    j->done = done;
    j->shard = s->index;
    j->lane = lane;
    j->next = NULL;
    struct bg *bg = s->group->bg;
    struct lane *l = &bg->lanes[lane];
    if (l->last)
        l->last->next = j;
    else
        l->first = j;
    l->last = j;
    lane_kick(bg, l);
}
