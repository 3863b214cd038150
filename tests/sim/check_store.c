/* The store against the metadata, seen from outside:
 *   - an object is never removed while a registration names it
 *   - the registered objects are there, of the length that is registered
 *   - at the end, when faults are over and the grace time has passed, there are no others, and no
 *     notes of what is to be deleted
 *   - and `leatctl store verify` finds nothing wrong with them. It also runs in lives with faults,
 *     which may end it at any point. */
#include <stdio.h>
#include <string.h>

#include "../../storage/bundle_int.h"
#include "broker.h"
#include "load.h"
#include "store_job.h"

/* The metadata's own backup (m/) is not registered anywhere; backup.c keeps it small. */
static bool is_backup(const char *name)
{
    return strncmp(name, "m/", 2) == 0;
}

static bool is_registered(const char *name)
{
    u64 id;
    u32 epoch;
    char key[META_KEY_SIZE];
    struct bytes value;
    struct bundle_reg reg;
    if (!bundle_name_parse(name, &id, &epoch))
        sim_fail("store: \"%s\" is no name of an object", name);
    return meta_pair_find(meta_key_bundle(key, id), &value) &&
           bundle_reg_decode(value, &reg) == ERR_NONE && reg.epoch == epoch;
}

void check_object_removed(const char *name)
{
    if (!is_backup(name) && is_registered(name))
        sim_fail("store: object %s is removed while the metadata names it", name);
}

/* The object of a registration; false: the key is another kind's. */
static bool registered_object(struct bytes key, struct bytes value, char *name, u64 *bytes)
{
    u64 id;
    struct bundle_reg reg;
    if (key.len < 2 || key.data[1] != '/' || (key.data[0] != 'b' && key.data[0] != 'r'))
        return false;
    if (!meta_key_bundle_parse(key, &id) || bundle_reg_decode(value, &reg) != ERR_NONE)
        sim_fail("metadata: %.*s is no registration", (int)key.len, (const char *)key.data);
    bundle_name(name, id, reg.epoch);
    *bytes = reg.object_bytes;
    return true;
}

static const char *object_check(const char *name, u64 want)
{
    const char *is;
    struct bytes data;
    for (u32 i = 0; store_object_at(i, &is, &data); i++)
        if (strcmp(is, name) == 0)
            return data.len == want ? NULL : "has another length";
    return "is not there";
}

static u32 data_objects(void)
{
    const char *name;
    struct bytes data;
    u32 count = 0;
    for (u32 i = 0; store_object_at(i, &name, &data); i++)
        count += !is_backup(name);
    return count;
}

bool store_is_clean(char *why, size_t why_size)
{
    struct bytes key, value;
    char name[BUNDLE_NAME_SIZE];
    u64 bytes;
    u32 named = 0, notes = 0;
    for (u32 i = 0; meta_pair_at(i, &key, &value); i++) {
        notes += key.len > 2 && memcmp(key.data, "d/", 2) == 0;
        if (!registered_object(key, value, name, &bytes))
            continue;
        const char *wrong = object_check(name, bytes);
        if (wrong)
            sim_fail("store: the registered object %s %s", name, wrong);
        named++;
    }
    u32 there = data_objects();
    snprintf(why, why_size, "%u objects, %u of them registered; %u are to be deleted", there, named,
             notes);
    CHECK(named <= there);
    return named == there && notes == 0;
}

/* ---- the node's own jobs ---- */

static struct storage *storage_of(struct shard *s)
{
    return broker_of(s)->storage;
}

static struct store_job *job_start(enum store_job_kind kind, u64 rate_min)
{
    /* The memory of a job goes with its life. */
    struct store_job *j = store_job_create(kind, &sim.node->group, storage_of);
    if (!store_job_start(j, one_in(2) ? 0 : rnd_log(rate_min, 10000000)))
        sim_fail("store: a new job is running already");
    STAT(store_jobs);
    return j;
}

static bool job_is_done(struct store_job *j)
{
    struct metric_text t = { 0 };
    bool done = store_job_show(j, &t) && strstr(t.data, "\"state\":\"done\"") != NULL;
    if (done && strstr(t.data, "\"faults_total\":0,") == NULL)
        sim_fail("store: verify finds a fault: %s", t.data);
    metric_text_free(&t);
    return done;
}

void store_jobs_sometimes(void)
{
    static u32 life;
    if (sim.life == life || !one_in(1000))
        return;
    life = sim.life;
    /* A long life's store holds more. */
    (void)job_start(one_in(2) ? STORE_JOB_DU : STORE_JOB_VERIFY, sim.long_lived ? 200000 : 10000);
}

bool store_is_verified(void)
{
    static struct store_job *j;
    static u32 life;
    if (life != sim.life) {
        life = sim.life;
        j = job_start(STORE_JOB_VERIFY, 1000000); /* it is waited for */
    }
    return job_is_done(j);
}
