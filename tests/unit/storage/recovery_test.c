/* The metadata's backup and the recovery from the store, on real files: whose a place is, what a
 * snapshot holds that was taken while things changed, what damage costs. Whole nodes with records
 * are recovered by the simulator and tests/crash/recover. */
#include "../unit.h"

#include <string.h>

#include "../../../storage/backup_int.h"
#include "../../../storage/bundle_int.h"
#include "../../../storage/clone_int.h"
#include "batches.h"
#include "hash.h"
#include "recovery.h"
#include "tmpdir.h"

static struct tmpdir dir;
static struct config cfg;
static struct store *file_store;
static struct store store; /* in front of it */
static struct rng rng;
static char why[1024];
static struct meta *meddled; /* a put of a part changes this metadata */
static u32 meddle_count;
static err put_error; /* of all puts */
static bool claim_answer_lost;
static u32 listed_max; /* newer claims don't show in listings; 0: all do */

/* ---- a store that looks on ---- */

static void set(struct meta *m, const char *key, const char *value)
{
    struct meta_op op = { value ? META_PUT : META_DELETE, bytes_str(key),
                          bytes_str(value ? value : "") };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(m, &t), ERR_NONE);
}

static err look_put(struct store *s, const struct store_object *o)
{
    struct backup_name n;
    (void)s;
    if (put_error != ERR_NONE)
        return put_error;
    bool ours = backup_name_parse(o->name, &n);
    if (ours && n.kind == BACKUP_PART && meddled) {
        char key[32];
        snprintf(key, sizeof key, "x/%u", meddle_count++);
        set(meddled, key, "while");
        set(meddled, "a/00001", NULL);
        set(meddled, "z/99999", "changed");
    }
    err e = file_store->driver->put(file_store, o);
    return ours && n.kind == BACKUP_CLAIM && claim_answer_lost ? ERR_IO : e;
}
static err look_get(struct store *s, const char *name, u64 offset, u8 *buf, u32 len)
{
    (void)s;
    return file_store->driver->get_range(file_store, name, offset, buf, len);
}
static err look_size(struct store *s, const char *name, u64 *out)
{
    (void)s;
    return file_store->driver->size(file_store, name, out);
}
static err look_remove(struct store *s, const char *name)
{
    (void)s;
    return file_store->driver->remove(file_store, name);
}
struct stale {
    err (*each)(void *, const char *, u64);
    void *arg;
};
static err stale_each(void *arg, const char *name, u64 bytes)
{
    struct stale *l = arg;
    struct backup_name n;
    if (listed_max > 0 && backup_name_parse(name, &n) && n.epoch > listed_max)
        return ERR_NONE;
    return l->each(l->arg, name, bytes);
}
static err look_list(struct store *s, const char *prefix, err (*each)(void *, const char *, u64),
                     void *arg)
{
    (void)s;
    struct stale l = { each, arg };
    return file_store->driver->list(file_store, prefix, stale_each, &l);
}
static const struct store_driver look_driver = { .scheme = "look",
                                                 .put = look_put,
                                                 .get_range = look_get,
                                                 .size = look_size,
                                                 .remove = look_remove,
                                                 .list = look_list };

/* ---- helpers ---- */

static struct meta *meta_at(const char *name)
{
    char url[512];
    struct meta *m;
    snprintf(url, sizeof url, "lmdb://%s/%s", dir.path, name);
    assert_int_equal(meta_open(url, &m, why, sizeof why), ERR_NONE);
    return m;
}

/* A node's backup over the metadata `name`. */
static struct backup *backup_at(const char *name)
{
    struct backup *b;
    err e = backup_open(meta_at(name), &store, &cfg, &rng, &b, why, sizeof why);
    if (e != ERR_NONE)
        fprintf(stderr, "%s\n", why);
    assert_int_equal(e, ERR_NONE);
    return b;
}

static err backup_refused(const char *name)
{
    struct backup *b;
    struct meta *m = meta_at(name);
    err e = backup_open(m, &store, &cfg, &rng, &b, why, sizeof why);
    assert_int_not_equal(e, ERR_NONE);
    meta_close(m);
    return e;
}

static void no_batch(struct storage *st, struct pindex *p, struct bytes b)
{
    (void)st, (void)p, (void)b;
}
static struct bytes no_snapshot(struct storage *st, struct pindex *p, struct arena *a)
{
    (void)st, (void)p, (void)a;
    return (struct bytes){ NULL, 0 };
}
static const struct storage_ops ops = { .recovered = no_batch,
                                        .restored = no_batch,
                                        .snapshot = no_snapshot };
static u64 paused_ns;
static struct backup *alive_beside; /* gives signs of life while the recovery waits */
static void pause_count(u64 ns)
{
    paused_ns += ns;
    if (alive_beside) {
        struct backup_buf b = { 0 };
        struct backup_head h = { BACKUP_ALIVE, 1, BACKUP_RUNNING, 99, 10000, 0, 0 };
        assert_int_equal(backup_write(&store, (struct backup_name){ BACKUP_ALIVE, 1, 0, 0 }, false,
                                      backup_buf_end(&b, h)),
                         ERR_NONE);
        backup_buf_free(&b);
    }
}

static struct recovery recovery;
static err recover_into(const char *name, bool force)
{
    recovery = (struct recovery){ .cfg = &cfg,
                                  .url = "test://store",
                                  .meta = meta_at(name),
                                  .store = &store,
                                  .rng = &rng,
                                  .force = force,
                                  .ops = &ops,
                                  .pause = pause_count };
    err e = recovery_run(&recovery, why, sizeof why);
    if (recovery.meta != NULL)
        meta_close(recovery.meta);
    return e;
}

static void assert_value(struct meta *m, const char *key, const char *value)
{
    struct arena a;
    struct meta_kv kv;
    arena_init(&a, 1024, 64 * MIB);
    err e = meta_get(m, bytes_str(key), &a, &kv);
    assert_int_equal(e, value ? ERR_NONE : ERR_NOT_FOUND);
    if (value)
        assert_true(bytes_eq_str(kv.value, value));
    arena_free(&a);
}

static void damage(struct backup_name n)
{
    char name[BACKUP_NAME_SIZE], path[600];
    snprintf(path, sizeof path, "%s/store/%s", dir.path, backup_name(name, n));
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fputc('X', f);
    fclose(f);
}

static bool in_store(struct backup_name n)
{
    char name[BACKUP_NAME_SIZE];
    u64 bytes;
    return store.driver->size(&store, backup_name(name, n), &bytes) == ERR_NONE;
}

/* ---- tests ---- */

static void what_was_sent_is_recovered(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    struct meta *m = backup_meta(b);
    set(m, "x/old", "1");
    u64 mark = backup_mark(b);
    assert_false(backup_holds(b, mark));
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    assert_true(backup_holds(b, mark));
    set(m, "x/new", "2");
    set(m, "x/old", NULL);
    assert_false(backup_holds(b, backup_mark(b)));
    backup_close(b);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.epoch, 1);
    m = meta_at("two");
    assert_value(m, "x/new", "2");
    assert_value(m, "x/old", NULL);
    assert_value(m, RECOVERY_KEY, NULL);
    meta_close(m);
    backup_close(backup_at("two")); /* it is a node's now */
}

/* Parts are read while keys change: those before what was read, those behind it, new ones. */
static void a_snapshot_taken_while_things_change_is_right(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    struct meta *m = backup_meta(b);
    char key[32], *large = mem_alloc(300001);
    memset(large, 'v', 300000);
    for (u32 i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "a/%05u", i);
        set(m, key, large);
    }
    set(m, "z/99999", "as it was");
    meddled = m;
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    meddled = NULL;
    assert_true(meddle_count >= 3); /* several parts */
    assert_true(backup_holds(b, backup_mark(b)));
    backup_close(b);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    m = meta_at("two");
    assert_value(m, "a/00000", large);
    assert_value(m, "a/00001", NULL);
    assert_value(m, "a/00039", large);
    assert_value(m, "z/99999", "changed");
    for (u32 i = 0; i < meddle_count; i++) {
        snprintf(key, sizeof key, "x/%u", i);
        assert_value(m, key, "while");
    }
    meta_close(m);
    mem_free(large);
}

static void a_damaged_snapshot_is_passed_over(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    set(backup_meta(b), "k", "1");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    b = backup_at("one"); /* the next life has an epoch of its own */
    set(backup_meta(b), "k", "2");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    damage((struct backup_name){ BACKUP_PART, 2, 0, 0 });
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.snapshots_damaged, 1);
    struct meta *m = meta_at("two");
    assert_value(m, "k", "1");
    meta_close(m);
}

static void when_all_are_damaged_it_says_so(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    damage((struct backup_name){ BACKUP_END, 1, 0, 0 });
    assert_int_equal(recover_into("two", false), ERR_CORRUPT);
    assert_non_null(strstr(why, "is sound"));
}

static void damaged_changes_cost_what_is_behind_them(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    struct meta *m = backup_meta(b);
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    for (u32 i = 0; i < 3; i++) {
        set(m, i == 0 ? "x/0" : i == 1 ? "x/1" : "x/2", "v");
        assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    }
    backup_close(b);
    damage((struct backup_name){ BACKUP_CHANGES, 1, 0, 1 });
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.change_sets, 1);
    assert_int_equal(recovery.changes_lost, 2);
    m = meta_at("two");
    assert_value(m, "x/0", "v");
    assert_value(m, "x/1", NULL);
    assert_value(m, "x/2", NULL);
    meta_close(m);
}

static void the_store_may_be_away_for_long(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    struct meta *m = backup_meta(b);
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    u64 mark = backup_mark(b);
    char *large = mem_alloc(5 * MIB + 1);
    memset(large, 'v', 5 * MIB);
    put_error = ERR_IO;
    for (u32 i = 0; i < 10; i++) { /* more than is kept */
        large[0] = (char)('0' + i);
        set(m, "k", large);
        assert_int_not_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    }
    put_error = ERR_NONE;
    assert_true(backup_holds(b, mark));
    assert_false(backup_holds(b, backup_mark(b)));
    for (u32 i = 0; i < 3 && !backup_holds(b, backup_mark(b)); i++)
        (void)!backup_send_all(b, why, sizeof why);
    assert_true(backup_holds(b, backup_mark(b)));
    backup_close(b);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    m = meta_at("two");
    assert_value(m, "k", large);
    meta_close(m);
    mem_free(large);
}

static void a_place_has_one_owner(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    assert_int_equal(backup_refused("two"), ERR_CONFLICT); /* a new node on old data */
    assert_non_null(strstr(why, "--recover-from"));
    backup_close(b);
    assert_int_equal(recover_into("three", false), ERR_NONE);
    assert_int_equal(backup_refused("one"), ERR_CONFLICT); /* the old node, back again */
    assert_non_null(strstr(why, "taken over"));
    backup_close(backup_at("three"));
}

static void the_wrong_store_is_noticed(void **state)
{
    (void)state;
    backup_close(backup_at("one"));
    assert_int_equal(store.driver->remove(&store, "m/00000001/claim"), ERR_NONE);
    assert_int_equal(backup_refused("one"), ERR_CONFLICT);
    assert_non_null(strstr(why, "not the store"));
}

static bool claimed(u32 epoch)
{
    return in_store((struct backup_name){ BACKUP_CLAIM, epoch, 0, 0 });
}

/* A gap would be the end for who sees an old listing: he would claim what is free in it, and find a
 * newer claim that isn't his. */
static void claims_have_no_gaps(void **state)
{
    (void)state;
    backup_close(backup_at("one"));
    struct backup *b = backup_at("one");
    put_error = ERR_IO;
    for (u32 i = 0; i < 3; i++)
        assert_int_not_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    put_error = ERR_NONE;
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    assert_true(claimed(1) && claimed(2) && !claimed(3));
    backup_close(b);
}

static void a_claim_whose_answer_was_lost_is_ours(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    char *large = mem_alloc(5 * MIB + 1);
    memset(large, 'v', 5 * MIB);
    large[5 * MIB] = '\0';
    put_error = ERR_IO;
    for (u32 i = 0; i < 10; i++) { /* more than is kept: another epoch */
        set(backup_meta(b), "k", large);
        assert_int_not_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    }
    put_error = ERR_NONE;
    claim_answer_lost = true;
    listed_max = 1;
    assert_int_not_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    assert_true(claimed(2));
    claim_answer_lost = false;
    for (u32 i = 0; i < 3 && !backup_holds(b, backup_mark(b)); i++)
        (void)!backup_send_all(b, why, sizeof why);
    assert_true(backup_holds(b, backup_mark(b)));
    assert_true(claimed(3) && !claimed(4));
    backup_close(b);
    mem_free(large);
}

/* It was thought dead. */
static void a_node_that_was_replaced_writes_no_more(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    set(backup_meta(b), "k", "1");
    assert_int_equal(recover_into("two", true), ERR_NONE);
    backup_close(b); /* looks round when it says good-bye */
    assert_int_equal(backup_refused("one"), ERR_CONFLICT);
    assert_false(in_store((struct backup_name){ BACKUP_ALIVE, 1, 0, 0 }));
    backup_close(backup_at("two"));
}

static void a_living_node_is_left_alone(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    struct backup_buf buf = { 0 };
    struct backup_head h = {
        .kind = BACKUP_ALIVE, .epoch = 1, .part = BACKUP_RUNNING, .seq = 1, .through = 10000
    };
    struct backup_name n = { BACKUP_ALIVE, 1, 0, 0 };
    assert_int_equal(backup_write(&store, n, false, backup_buf_end(&buf, h)), ERR_NONE);
    backup_buf_free(&buf);
    alive_beside = b;
    assert_int_equal(recover_into("two", false), ERR_BUSY);
    assert_non_null(strstr(why, "--force"));
    alive_beside = NULL;
    paused_ns = 0; /* silent from now on */
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_true(paused_ns >= 20 * NS_PER_S);
    backup_close(b);
}

static void what_is_not_empty_is_left_alone(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    struct meta *m = meta_at("two");
    set(m, "t/other", "a topic");
    meta_close(m);
    assert_int_equal(recover_into("two", true), ERR_CONFLICT);
    m = meta_at("two");
    assert_value(m, "t/other", "a topic");
    meta_close(m);
    recovery = (struct recovery){ .cfg = &cfg,
                                  .url = "x",
                                  .meta = meta_at("three"),
                                  .store = &store,
                                  .rng = &rng,
                                  .log_there = true,
                                  .ops = &ops };
    assert_int_equal(recovery_run(&recovery, why, sizeof why), ERR_EXISTS);
    assert_non_null(strstr(why, "empty data directory"));
    meta_close(recovery.meta);
}

static void an_unfinished_recovery_is_begun_anew(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    set(backup_meta(b), "k", "1");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    struct meta *m = meta_at("two");
    set(m, RECOVERY_KEY, "1");
    set(m, "x/half", "of it");
    meta_close(m);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    m = meta_at("two");
    assert_value(m, "k", "1");
    assert_value(m, "x/half", NULL);
    meta_close(m);
}

static void an_empty_place_is_told_from_a_damaged_one(void **state)
{
    (void)state;
    assert_int_equal(recover_into("two", false), ERR_NOT_FOUND);
    assert_non_null(strstr(why, "no snapshot"));
}

/* ---- objects beyond the metadata ---- */

static const struct partition_key part0 = { { { 7 } }, 0 };

/* `records` batches, each a block. */
static void put_object(u64 id, u32 epoch, i64 base, u32 records)
{
    struct bundle_builder b;
    char name[BUNDLE_NAME_SIZE];
    struct bytes batches[10];
    assert_true(records <= ARRAY_COUNT(batches));
    bundle_builder_init(&b, (u32)(id >> 48), bundle_seq(id), epoch, MIB);
    for (u32 i = 0; i < records; i++) {
        batches[i] = batch_make(base + i, 1, 100, 1000);
        bundle_builder_break(&b);
        bundle_builder_add(&b, &part0, base + i, base + i, 1000, batches[i]);
    }
    bundle_builder_seal(&b);
    struct store_object o = { .name = bundle_name(name, id, epoch),
                              .parts = b.parts,
                              .part_count = b.part_count };
    assert_int_equal(store.driver->put(&store, &o), ERR_NONE);
    bundle_builder_free(&b);
    for (u32 i = 0; i < records; i++)
        batch_drop(batches[i]);
}

static void put_bundle(u64 seq, u32 epoch, i64 base, u32 records)
{
    struct bundle_builder b;
    char name[BUNDLE_NAME_SIZE];
    struct bytes batch = batch_make(base, records, 100, 1000);
    bundle_builder_init(&b, 0, seq, epoch, MIB);
    bundle_builder_add(&b, &part0, base, base + (i64)records - 1, 1000 + records, batch);
    bundle_builder_seal(&b);
    struct store_object o = { .name = bundle_name(name, bundle_id(0, seq), epoch),
                              .parts = b.parts,
                              .part_count = b.part_count };
    assert_int_equal(store.driver->put(&store, &o), ERR_NONE);
    bundle_builder_free(&b);
    batch_drop(batch);
}

/* A node whose log 0 has not registered segments from 10 on, in epoch 4. */
static void node_with_a_log(void)
{
    struct backup *b = backup_at("one");
    struct arena a;
    char key[META_KEY_SIZE];
    arena_init(&a, 4096, MIB);
    struct meta_op op = { META_PUT, meta_key_wal(key, 0), wal_meta_fresh_value(10, 4, MIB, &a) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(backup_meta(b), &t), ERR_NONE);
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    arena_free(&a);
}

static bool registered(struct meta *m, u64 seq, u32 epoch)
{
    struct arena a;
    struct meta_kv kv;
    struct bundle_reg reg;
    char key[META_KEY_SIZE];
    arena_init(&a, 4096, MIB);
    bool there = meta_get(m, meta_key_bundle(key, bundle_id(0, seq)), &a, &kv) == ERR_NONE &&
                 bundle_reg_decode(kv.value, &reg) == ERR_NONE && reg.epoch == epoch;
    arena_free(&a);
    return there;
}

static void newer_objects_are_taken_up_to_a_gap(void **state)
{
    (void)state;
    node_with_a_log();
    put_bundle(9, 4, 1000, 5); /* of a segment that is registered: a leftover */
    put_bundle(10, 4, 0, 10);
    put_bundle(11, 4, 10, 10); /* uploaded by two lives */
    put_bundle(11, 5, 10, 10);
    put_bundle(13, 5, 25, 10); /* 20 to 24 never came */
    put_bundle(14, 5, 35, 10);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.forward_objects, 2);
    assert_int_equal(recovery.blocks_beyond, 2);
    struct meta *m = meta_at("two");
    assert_true(registered(m, 10, 4) && registered(m, 11, 5));
    assert_false(registered(m, 9, 4) || registered(m, 13, 5) || registered(m, 14, 5));
    struct arena a;
    struct meta_kv kv;
    struct wal_meta_state w;
    char key[META_KEY_SIZE];
    arena_init(&a, 4096, MIB);
    assert_int_equal(meta_get(m, meta_key_wal(key, 0), &a, &kv), ERR_NONE);
    assert_true(wal_meta_state(kv.value, &w) && wal_meta_is_clean(kv.value));
    assert_int_equal(w.first_unregistered, 15); /* no name is given twice */
    assert_true(w.oldest_epoch > 5);
    arena_free(&a);
    meta_close(m);
}

static u64 fresh_run(u32 epoch, u32 number)
{
    return run_id(0, epoch, RUN_FRESH | number);
}

static bool covers(struct meta *m, u64 run, i64 from, i64 to)
{
    struct arena a;
    struct meta_kv kv;
    struct bundle_reg reg;
    char key[META_KEY_SIZE];
    arena_init(&a, 4096, MIB);
    bool right = meta_get(m, meta_key_bundle(key, run), &a, &kv) == ERR_NONE &&
                 bundle_reg_decode(kv.value, &reg) == ERR_NONE && reg.run &&
                 reg.cover_from == from && reg.cover_to == to;
    arena_free(&a);
    return right;
}

static void newer_runs_are_taken_when_they_came_from_the_log(void **state)
{
    (void)state;
    node_with_a_log();
    put_bundle(10, 4, 0, 10);
    put_object(fresh_run(4, 0), 4, 10, 10);
    put_object(run_id(0, 4, 1), 4, 20, 10); /* compacted, or merged: its sources are not there */
    put_object(fresh_run(4, 2), 4, 40, 10); /* 20 to 39 never came */
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.forward_objects, 2);
    assert_int_equal(recovery.blocks_beyond, 10);
    struct meta *m = meta_at("two");
    assert_true(registered(m, 10, 4) && covers(m, fresh_run(4, 0), 10, 20));
    assert_false(covers(m, run_id(0, 4, 1), 20, 30) || covers(m, fresh_run(4, 2), 40, 50));
    meta_close(m);
}

/* A life that ended before it registered gathered more segments than the next one, which did
 * register: its objects go before, and nothing of both is mixed. */
static void the_later_life_counts_where_two_uploaded(void **state)
{
    (void)state;
    node_with_a_log();
    put_object(fresh_run(4, 0), 4, 0, 10);
    put_bundle(10, 5, 0, 4);
    put_bundle(11, 5, 4, 3);
    put_object(fresh_run(5, 0), 5, 7, 5);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.forward_objects, 3);
    struct meta *m = meta_at("two");
    assert_true(registered(m, 10, 5) && registered(m, 11, 5) && covers(m, fresh_run(5, 0), 7, 12));
    meta_close(m);
}

/* What a run stands for has no hole that another object fills. */
static void a_run_is_taken_in_one_piece(void **state)
{
    (void)state;
    node_with_a_log();
    put_object(fresh_run(4, 0), 4, 0, 10);
    put_bundle(11, 5, 4, 2);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    struct meta *m = meta_at("two");
    assert_true(covers(m, fresh_run(4, 0), 0, 4) && registered(m, 11, 5));
    meta_close(m);
}

static void objects_of_a_node_that_was_replaced_are_not_taken(void **state)
{
    (void)state;
    node_with_a_log();
    assert_int_equal(recover_into("two", false), ERR_NONE);
    put_bundle(10, 4, 0, 10); /* it did not know yet */
    assert_int_equal(recover_into("three", false), ERR_NONE);
    assert_int_equal(recovery.forward_objects, 0);
}

static void a_damaged_newer_object_ends_its_partition(void **state)
{
    (void)state;
    node_with_a_log();
    put_bundle(10, 4, 0, 10);
    put_bundle(11, 4, 10, 10);
    char path[600];
    snprintf(path, sizeof path, "%s/store/b/0000/000000000000000a-00000004", dir.path);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseek(f, 200, SEEK_SET);
    fputs("damage", f);
    fclose(f);
    assert_int_equal(recover_into("two", false), ERR_NONE);
    assert_int_equal(recovery.forward_objects, 0);
    assert_int_equal(recovery.blocks_beyond, 2);
}

/* A registration whose object is not there. */
static void missing_objects_are_told(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    struct arena a;
    u8 *raw;
    char key[META_KEY_SIZE];
    arena_init(&a, 4096, MIB);
    struct bundle_reg reg = { .epoch = 3, .object_bytes = 1000, .block_count = 1 };
    struct partition_key k = { { { 1 } }, 0 };
    struct block block = { .last_offset = 5, .pos = 32, .bytes = 180, .data_bytes = 100 };
    struct bytes value = bundle_reg_begin(&a, &reg, &raw);
    bundle_reg_set(raw, 0, &k, &block);
    bundle_reg_end(raw, value.len);
    struct meta_op op = { META_PUT, meta_key_bundle(key, bundle_id(0, 7)), value };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(backup_meta(b), &t), ERR_NONE);
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    assert_int_equal(recover_into("two", false), ERR_NOT_FOUND);
    assert_non_null(strstr(why, "b/0000/0000000000000007-00000003"));
    assert_int_equal(recover_into("two", true), ERR_NONE);
    assert_int_equal(recovery.objects_missing, 1);
    struct meta *m = meta_at("two");
    assert_value(m, "b/0000/0000000000000007", NULL);
    meta_close(m);
    arena_free(&a);
}

/* Its partition shares the blocks of two objects, ten records each. */
static void clone_put(struct meta *m, u64 first_object, u64 second_object)
{
    u8 v[16 + 2 * (8 + BUNDLE_REG_BLOCK_BYTES)] = { 1 };
    char key[META_KEY_SIZE];
    struct block b = { .last_offset = 9, .pos = 32, .bytes = 180, .data_bytes = 100 };
    put_le32(v + 4, 2);
    put_le64(v + 16, first_object);
    bundle_reg_block_put(v + 24, &part0, &b);
    b.base_offset = 10;
    b.last_offset = 19;
    put_le64(v + 24 + BUNDLE_REG_BLOCK_BYTES, second_object);
    bundle_reg_block_put(v + 32 + BUNDLE_REG_BLOCK_BYTES, &part0, &b);
    put_le64(v + 8, hash_bytes(v, sizeof v));
    struct meta_op op = { META_PUT, meta_key_partition(key, 'k', &part0), bytes_of(v, sizeof v) };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(m, &t), ERR_NONE);
}

/* What a clone wrote itself goes on behind what it shares; it loses what its source loses. */
static void clones_are_recovered(void **state)
{
    (void)state;
    node_with_a_log();
    struct backup *b = backup_at("one");
    struct arena a;
    u8 *raw;
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    arena_init(&a, 4096, MIB);
    struct bundle_reg reg = { .epoch = 3, .object_bytes = 1000, .block_count = 1 };
    struct partition_key source = { { { 7, 0, 0, 0, 0, 0, 0, 0, 1 } }, 0 };
    struct block block = { .last_offset = 9, .pos = 32, .bytes = 180, .data_bytes = 100 };
    struct bytes value = bundle_reg_begin(&a, &reg, &raw);
    bundle_reg_set(raw, 0, &source, &block);
    bundle_reg_end(raw, value.len);
    struct meta_op op = { META_PUT, meta_key_bundle(key, bundle_id(0, 7)), value };
    struct meta_txn t = { NULL, &op, 0, 1 };
    assert_int_equal(meta_commit(backup_meta(b), &t), ERR_NONE);
    clone_put(backup_meta(b), bundle_id(0, 7), bundle_id(0, 8));
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    put_bundle(10, 4, 20, 10);
    assert_int_equal(recover_into("two", true), ERR_NONE);
    assert_int_equal(recovery.objects_missing, 1);
    assert_int_equal(recovery.forward_objects, 1);
    struct meta *m = meta_at("two");
    u32 count;
    assert_int_equal(meta_get(m, meta_key_partition(key, 'k', &part0), &a, &kv), ERR_NONE);
    assert_int_equal(clone_decode(kv.value, &count), ERR_NONE);
    assert_int_equal(count, 1);
    clone_decode_block(kv.value, 0, &source, &block);
    assert_true(block.bundle == bundle_id(0, 8) && block.base_offset == 10);
    meta_close(m);
    arena_free(&a);
}

static void a_look_changes_nothing(void **state)
{
    (void)state;
    struct backup *b = backup_at("one");
    set(backup_meta(b), "k", "1");
    assert_int_equal(backup_send_all(b, why, sizeof why), ERR_NONE);
    backup_close(b);
    cfg.values[CFG_store_readonly] = true;
    put_error = ERR_DENIED;
    assert_int_equal(recover_into("two", false), ERR_NONE);
    struct meta *m = meta_at("two");
    assert_value(m, "k", "1");
    meta_close(m);
    assert_false(in_store((struct backup_name){ BACKUP_CLAIM, 2, 0, 0 }));
    struct store *s = store_readonly(&store);
    struct store_object o = { .name = "x" };
    assert_int_equal(s->driver->put(s, &o), ERR_DENIED);
    assert_int_equal(s->driver->remove(s, "m/00000001/claim"), ERR_DENIED);
    u64 bytes;
    assert_int_equal(s->driver->size(s, "m/00000001/claim", &bytes), ERR_NONE);
    mem_free(s);
}

static int setup(void **state)
{
    (void)state;
    char url[512];
    tmpdir_make(&dir);
    config_init(&cfg);
    rng_init(&rng, 7);
    put_error = ERR_NONE;
    claim_answer_lost = false;
    listed_max = 0;
    meddle_count = 0;
    snprintf(url, sizeof url, "file://%s/store?sync=false", dir.path);
    assert_int_equal(store_open(url, &cfg, &file_store, why, sizeof why), ERR_NONE);
    store = (struct store){ .driver = &look_driver };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    file_store->driver->close(file_store);
    config_free(&cfg);
    tmpdir_remove(&dir);
    return 0;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_was_sent_is_recovered),
        T(a_snapshot_taken_while_things_change_is_right),
        T(a_damaged_snapshot_is_passed_over),
        T(when_all_are_damaged_it_says_so),
        T(damaged_changes_cost_what_is_behind_them),
        T(the_store_may_be_away_for_long),
        T(a_place_has_one_owner),
        T(the_wrong_store_is_noticed),
        T(claims_have_no_gaps),
        T(a_claim_whose_answer_was_lost_is_ours),
        T(a_node_that_was_replaced_writes_no_more),
        T(a_living_node_is_left_alone),
        T(what_is_not_empty_is_left_alone),
        T(an_unfinished_recovery_is_begun_anew),
        T(an_empty_place_is_told_from_a_damaged_one),
        T(newer_objects_are_taken_up_to_a_gap),
        T(newer_runs_are_taken_when_they_came_from_the_log),
        T(the_later_life_counts_where_two_uploaded),
        T(a_run_is_taken_in_one_piece),
        T(objects_of_a_node_that_was_replaced_are_not_taken),
        T(a_damaged_newer_object_ends_its_partition),
        T(missing_objects_are_told),
        T(clones_are_recovered),
        T(a_look_changes_nothing),
    };
    return cmocka_run_group_tests_name("recovery", tests, NULL, NULL);
}
