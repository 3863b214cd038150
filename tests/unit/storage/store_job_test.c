/* The jobs over the whole store: what each partition takes, and every checksum. */
#include "engine_rig.h"

#include "store_job.h"

static struct store_job *job;

static struct storage *storage_of(struct shard *s)
{
    (void)s;
    return eng->st;
}

static int setup(void **state)
{
    (void)state;
    engine_new();
    engine_start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (eng->st)
        engine_stop();
    if (job)
        store_job_free(job);
    job = NULL;
    engine_free();
    return 0;
}

static void job_begin(enum store_job_kind kind)
{
    if (job)
        store_job_free(job);
    job = store_job_create(kind, &eng->group, storage_of);
    assert_true(store_job_start(job, 0));
    assert_false(store_job_start(job, 0));
}

static bool job_is(const char *state)
{
    char want[64];
    struct metric_text t = { 0 };
    assert_true(store_job_show(job, &t));
    snprintf(want, sizeof want, "\"state\":\"%s\"", state);
    bool is = strstr(t.data, want) != NULL;
    metric_text_free(&t);
    return is;
}

/* The text must hold `want`. */
static void shows(const char *want)
{
    struct metric_text t = { 0 };
    assert_true(store_job_show(job, &t));
    if (strstr(t.data, want) == NULL)
        fail_msg("\"%s\" is not in %s", want, t.data);
    metric_text_free(&t);
}

static void shows_number(const char *name, u64 v)
{
    char want[96];
    snprintf(want, sizeof want, "\"%s\":%" PRIu64, name, v);
    shows(want);
}

static void job_run(enum store_job_kind kind)
{
    job_begin(kind);
    ENGINE_UNTIL(!job_is("running"));
    assert_true(job_is("done"));
}

static err sum_one(void *arg, const char *name, u64 bytes)
{
    (void)name;
    *(u64 *)arg += bytes;
    return ERR_NONE;
}

static u64 stored_bytes(void)
{
    u64 sum = 0;
    assert_int_equal(fault_store_below->driver->list(fault_store_below, "b/", sum_one, &sum),
                     ERR_NONE);
    return sum;
}

static void topic_put(void)
{
    u8 value[30] = { 1 };
    struct partition_key k = engine_key(0);
    memcpy(value + 1, k.topic_id.b, sizeof k.topic_id.b);
    struct meta_op op = { META_PUT, bytes_str("t/weather"), bytes_of(value, sizeof value) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(fault_meta_below, &t), ERR_NONE);
}

static void object_path(char *path, size_t size, u64 seq)
{
    char name[BUNDLE_NAME_SIZE];
    snprintf(path, size, "%s/store/%s", eng->dir.path, bundle_name(name, bundle_id(0, seq), 1));
}

static void byte_flip(u64 seq, i64 at)
{
    char path[512];
    u8 b;
    object_path(path, sizeof path, seq);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    off_t end = lseek(fd, 0, SEEK_END), pos = (off_t)(at >= 0 ? at : end + at);
    assert_int_equal(pread(fd, &b, 1, pos), 1);
    b ^= 1;
    assert_int_equal(pwrite(fd, &b, 1, pos), 1);
    close(fd);
}

static void du_accounts_for_every_byte(void **state)
{
    (void)state;
    topic_put();
    engine_fill(3 * MIB);
    engine_seal_all();
    job_run(STORE_JOB_DU);
    u64 all = stored_bytes(), blocks = 0;
    for (u32 i = 0; i < ENGINE_PARTS; i++) {
        const struct pindex *p = eng->parts[i].p;
        for (u32 k = p->block_head; k < p->block_end; k++)
            blocks += p->blocks[k].bytes;
    }
    shows("\"name\":\"weather\",\"deleted\":false");
    shows_number("objects", engine_objects());
    shows_number("bytes", all);
    shows_number("bytes", blocks); /* of the topic */
    shows_number("overhead_bytes", all - blocks);
    shows_number("dead_bytes", 0);
}

static void start_moved(struct pindex_op *op)
{
    assert_int_equal(op->err, ERR_NONE);
}

static void du_knows_what_nobody_can_read(void **state)
{
    (void)state;
    topic_put();
    engine_fill(2 * MIB);
    engine_seal_all();
    struct pindex *p = eng->parts[3].p;
    u64 dead = 0;
    i64 start = 0;
    for (u32 k = p->block_head; k + 1 < p->block_end; k++) {
        dead += p->blocks[k].bytes;
        start = p->blocks[k].last_offset + 1;
    }
    assert_true(dead > 0);
    struct pindex_op op = { 0 };
    pindex_set_start(p, start, &op, start_moved);
    ENGINE_UNTIL(pindex_start_offset(p) == start);
    job_run(STORE_JOB_DU);
    shows_number("dead_bytes", dead);
    char want[64];
    snprintf(want, sizeof want, "\"partition\":3,\"from\":%" PRId64 ",\"to\":%" PRId64, start,
             eng->parts[3].next);
    shows(want);
}

static void a_sound_store_is_verified(void **state)
{
    (void)state;
    engine_fill(3 * MIB);
    engine_seal_all();
    job_run(STORE_JOB_VERIFY);
    shows_number("objects_done", engine_objects());
    shows_number("bytes_done", stored_bytes());
    shows_number("faults_total", 0);
    shows_number("orphans_total", 0);
    u64 batches = 0;
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        batches += eng->parts[i].count;
    shows_number("batches_done", batches);
}

static void every_damage_is_named(void **state)
{
    (void)state;
    topic_put();
    engine_fill(6 * MIB);
    engine_seal_all();
    assert_true(engine_objects() >= 5);
    byte_flip(0, 32 + 80 + 200); /* in a batch */
    byte_flip(1, -10);           /* the footer */
    byte_flip(2, -64 - 72 + 20); /* the index */
    byte_flip(3, 3);             /* the header */
    char path[512];
    object_path(path, sizeof path, 4);
    assert_int_equal(unlink(path), 0);
    job_run(STORE_JOB_VERIFY);
    shows("0000000000000000-00000001\",\"what\":\"the block fails its checksums\"");
    shows("0000000000000001-00000001\",\"what\":\"the footer is damaged\"");
    shows("0000000000000002-00000001\",\"what\":\"the index is damaged\"");
    shows("0000000000000003-00000001\",\"what\":\"the header is damaged\"");
    shows("0000000000000004-00000001\",\"what\":\"the object is missing\",\"error\":\"NOT_FOUND\","
          "\"topic\":\"weather\"");
    shows_number("objects_done", engine_objects() + 1);
}

/* Of a partition whose blocks are all in the object that is missing: its offsets. */
static void a_fault_says_which_offsets(void **state)
{
    (void)state;
    engine_put(5, 10, 1000);
    engine_put(5, 7, 1000);
    engine_put(6, 1, 1000);
    engine_seal_all();
    char path[512];
    object_path(path, sizeof path, 0);
    assert_int_equal(truncate(path, 500), 0);
    job_run(STORE_JOB_VERIFY);
    shows("another length than registered\",\"error\":\"CORRUPT\",\"topic\":\"\",\"topic_id\":\""
          "09080700000000000000000000000000\",\"partition\":5,\"from\":0,\"to\":17");
    shows("\"partition\":6,\"from\":0,\"to\":1");
    shows_number("faults_total", 2);
}

static void what_is_deleted_meanwhile_is_no_fault(void **state)
{
    (void)state;
    engine_fill(3 * MIB);
    engine_seal_all();
    fault.hold_gets = 1;
    job_begin(STORE_JOB_VERIFY);
    ENGINE_UNTIL(FAULT_SEEN(gets) > 0);
    for (u32 i = 0; i < ENGINE_PARTS; i++)
        pindex_drop(eng->parts[i].p);
    eng->unknown = UINT32_MAX;
    ENGINE_UNTIL(engine_keys("b/") == 0);
    for (u64 i = 0; i < 3; i++) {
        char path[512];
        object_path(path, sizeof path, i);
        unlink(path);
    }
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(job_is("done"));
    shows_number("faults_total", 0);
}

static void a_job_ends_when_told_and_when_the_node_stops(void **state)
{
    (void)state;
    engine_fill(3 * MIB);
    engine_seal_all();
    fault.hold_gets = 1;
    job_begin(STORE_JOB_VERIFY);
    ENGINE_UNTIL(FAULT_SEEN(gets) > 0);
    store_job_cancel(job);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(job_is("canceled"));
    store_job_free(job);
    job = store_job_create(STORE_JOB_VERIFY, &eng->group, storage_of);
    assert_true(store_job_start(job, 1)); /* a byte a second */
    ENGINE_UNTIL(eng->st->store_jobs[STORE_JOB_VERIFY] != NULL);
    for (u32 i = 0; i < 20; i++)
        engine_turn();
    engine_stop();
    assert_true(job_is("canceled"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(du_accounts_for_every_byte),
        T(du_knows_what_nobody_can_read),
        T(a_sound_store_is_verified),
        T(every_damage_is_named),
        T(a_fault_says_which_offsets),
        T(what_is_deleted_meanwhile_is_no_fault),
        T(a_job_ends_when_told_and_when_the_node_stops),
    };
    return cmocka_run_group_tests_name("store_job", tests, NULL, NULL);
}
