/* Merging: what is chosen, how often a byte is written by it over a long time, and, over a whole
 * engine, that nothing is lost, whatever fails or goes away meanwhile. */
#include "engine_rig.h"

#include "../../../storage/merge_int.h"

/* ---- the choice ---- */

#define RUN(n) (run_id(0, 1, n))
#define BLOCKS_TEST_MAX 20000u
static struct block blocks[BLOCKS_TEST_MAX];
static u32 block_count;

static void add(u64 object, u32 bytes)
{
    i64 at = block_count > 0 ? blocks[block_count - 1].last_offset + 1 : 0;
    blocks[block_count++] = (struct block){
        .bundle = object, .base_offset = at, .last_offset = at, .data_bytes = bytes
    };
}

static u32 tail(void)
{
    u32 i = 0, from;
    do {
        from = i;
        i = merge_tail(blocks, from, block_count);
    } while (i - from == MERGE_BLOCKS_MAX);
    return i;
}

/* The range that is chosen as "first+count", "-": none. All bundles may be taken. */
static const char *choice(u64 run_bytes, u64 again_bytes, bool old)
{
    static char text[64];
    struct merge_rule rule = { run_bytes, again_bytes, old };
    struct merge_range r;
    if (!merge_choose(blocks, tail(), block_count, &rule, &r))
        return "-";
    u64 bytes = 0, again = 0;
    for (u32 i = r.first; i < r.first + r.count; i++) {
        bytes += blocks[i].data_bytes;
        again += object_is_run(blocks[i].bundle) ? blocks[i].data_bytes : 0;
    }
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.again_bytes, again);
    snprintf(text, sizeof text, "%u+%u", r.first, r.count);
    return text;
}

static int choice_setup(void **state)
{
    (void)state;
    block_count = 0;
    return 0;
}

static void bundles_make_a_run_when_they_fill_it_or_are_old(void **state)
{
    (void)state;
    assert_string_equal(choice(100, 1000, true), "-");
    add(RUN(1), 100);
    assert_string_equal(choice(100, 1000, true), "-");
    for (u32 i = 0; i < 3; i++)
        add(i, 30);
    assert_string_equal(choice(100, 1000, false), "-");
    assert_string_equal(choice(100, 0, true), "1+3");
    add(3, 30);
    assert_string_equal(choice(100, 1000, false), "1+3");
    assert_string_equal(choice(90, 1000, false), "1+3");
    assert_string_equal(choice(20, 1000, false), "1+1"); /* one that is larger is a run alone */
}

/* A run was uploaded behind them: what is between is as large as it ever gets. */
static void bundles_between_runs_wait_for_nothing(void **state)
{
    (void)state;
    add(RUN(1), 100);
    add(1, 10), add(2, 10);
    add(RUN(2), 90);
    add(3, 10);
    assert_string_equal(choice(100, 1000, false), "1+2");
    assert_string_equal(choice(15, 1000, false), "1+1");
    memmove(&blocks[1], &blocks[3], 2 * sizeof *blocks);
    block_count = 3; /* they lie in the first run now */
    assert_string_equal(choice(100, 1000, false), "-");
    assert_string_equal(choice(100, 1000, true), "2+1");
    block_count = 0;
    add(RUN(1), 5);
    add(1, 20);
    add(RUN(2), 90);
    assert_string_equal(choice(100, 1000, false), "0+2");
    assert_string_equal(choice(100, 4, false), "1+1");
}

static void small_runs_join_when_all_grow(void **state)
{
    (void)state;
    add(RUN(1), 40);
    add(RUN(2), 10);
    add(RUN(3), 5), add(RUN(3), 5); /* one run of two blocks */
    add(RUN(4), 10);
    add(0, 10);
    assert_string_equal(choice(100, 1000, true), "1+5");
    assert_string_equal(choice(100, 30, true), "1+5");
    assert_string_equal(choice(100, 29, true), "5+1");  /* it may not be written again */
    assert_string_equal(choice(39, 1000, true), "5+1"); /* it would be too large */
    block_count--;
    add(0, 9);
    assert_string_equal(choice(100, 1000, true), "5+1"); /* 39 is not four times 10 */
    block_count = 0;
    for (u32 i = 0; i < 3; i++)
        add(RUN(i), 16);
    for (u32 i = 3; i < 6; i++)
        add(RUN(i), 4);
    for (u32 i = 6; i < 9; i++)
        add(RUN(i), 1);
    add(0, 1);
    assert_string_equal(choice(100, 1000, true), "0+10"); /* all tiers in one go */
    assert_string_equal(choice(60, 1000, true), "3+7");
}

static void a_choice_has_an_end(void **state)
{
    (void)state;
    for (u32 i = 0; i < 5000; i++)
        add(RUN(1), 1);
    for (u32 i = 0; i < 10000; i++)
        add(i, 1);
    assert_int_equal(merge_tail(blocks, 0, block_count), MERGE_BLOCKS_MAX);
    assert_int_equal(merge_tail(blocks, 4500, block_count), 5000);
    assert_string_equal(choice(1000000, 1000000, false), "5000+4096");
    block_count = 5001;
    assert_string_equal(choice(1000000, 1000000, true), "5000+1");
}

/* A partition that gets `bytes` at a time: it becomes a run when it fills one, and after every
 * `age` arrivals. Returns what is written to runs, in percent of what came. */
static u32 written_percent(u32 bytes, u32 age, u64 run_bytes, bool bounded, u32 *runs)
{
    u64 came = 0, written = 0, allowance = 0;
    u32 number = 1;
    block_count = 0;
    for (u32 step = 1; step <= 3000; step++) {
        u32 some = bytes / 2 + (u32)(step * 2654435761u % (bytes + 1));
        struct merge_rule rule = { .run_bytes = run_bytes, .old = step % age == 0 };
        struct merge_range r;
        add(step, some);
        came += some;
        allowance += some / 10;
        rule.again_bytes = bounded ? allowance : UINT64_MAX;
        if (!merge_choose(blocks, tail(), block_count, &rule, &r))
            continue;
        allowance -= bounded ? r.again_bytes : 0;
        written += r.bytes;
        struct block run = blocks[r.first];
        run.bundle = RUN(number++);
        run.data_bytes = (u32)r.bytes;
        run.last_offset = blocks[r.first + r.count - 1].last_offset;
        u32 behind = block_count - r.first - r.count;
        memmove(&blocks[r.first + 1], &blocks[r.first + r.count], behind * sizeof *blocks);
        blocks[r.first] = run;
        block_count = r.first + 1 + behind;
    }
    *runs = tail();
    return (u32)(written * 100 / came);
}

static void a_byte_is_rewritten_about_once(void **state)
{
    (void)state;
    u32 runs;
    /* One that fills runs: once, and they are full. */
    assert_true(written_percent(1000, 1000, 32000, true, &runs) <= 101);
    assert_true(runs <= 3000 / 24);
    /* A slow one, a 64th of a run between ages: once, and 10 % more, in small runs … */
    assert_true(written_percent(1000, 1, 64000, true, &runs) <= 110);
    /* … and where writing again is not bounded, log4 64 times more, in fewer. */
    u32 many = runs;
    assert_true(written_percent(1000, 1, 64000, false, &runs) <= 400);
    assert_true(runs <= 3000 / 16 + 8);
    assert_true(many > runs);
}

/* ---- over an engine ---- */

static int setup(void **state)
{
    engine_setup(state);
    engine_set("store.block_bytes", "16k");
    engine_set("store.merge_delay", "0");
    engine_set("store.merge_age", "0");
    return 0;
}

static u32 store_count(const char *prefix)
{
    u32 n = 0;
    assert_int_equal(
        fault_store_below->driver->list(fault_store_below, prefix, engine_count_one, &n), ERR_NONE);
    return n;
}

static void restart(void)
{
    engine_stop();
    engine_start();
}

static u64 metric(enum metric_id id)
{
    return metric_get(eng->shard.metrics, id);
}

static bool clean_store(void)
{
    return engine_objects() == engine_keys("b/") && store_count("r/") == engine_keys("r/");
}

static void bundles_become_runs_and_go(void **state)
{
    (void)state;
    engine_start();
    for (u32 round = 0; round < 3; round++) {
        engine_fill(2 * MIB);
        engine_seal_all();
        ENGINE_UNTIL(engine_keys("b/") == 0 && clean_store());
        engine_check_all();
        engine_evict_all();
        engine_check_all();
    }
    assert_int_equal(metric(M_merges_failed), 0);
    assert_true(metric(M_put_run_bytes) >= metric(M_merge_written_bytes));
    /* Each byte twice, and a tenth of them once more; headers are large with blocks so small. */
    assert_in_range(metric(M_store_amplification), 200, 220);
    assert_int_equal(metric(M_registered_objects), engine_keys("r/"));
    restart();
    engine_check_all();
    engine_fill(MIB);
    engine_seal_all();
    ENGINE_UNTIL(engine_keys("b/") == 0 && clean_store());
    restart();
    engine_check_all();
}

static void images_go_on_to_serve(void **state)
{
    (void)state;
    engine_start();
    engine_fill(MIB);
    engine_seal_all();
    ENGINE_UNTIL(engine_keys("b/") == 0);
    u32 gets = FAULT_SEEN(gets);
    engine_check_all();
    assert_int_equal(FAULT_SEEN(gets), gets);
}

static void what_is_young_stays(void **state)
{
    (void)state;
    engine_set("store.merge_delay", "1h");
    engine_start();
    engine_fill(MIB);
    engine_seal_all();
    u64 until = clock_mono_ns() + NS_PER_S;
    while (clock_mono_ns() < until)
        engine_turn();
    assert_int_equal(engine_keys("r/"), 0);
    eng->cfg.values[CFG_store_merge_delay_ms] = 0;
    eng->cfg.values[CFG_store_merge_rate] = 0;
    restart();
    until = clock_mono_ns() + NS_PER_S;
    while (clock_mono_ns() < until)
        engine_turn();
    assert_int_equal(engine_keys("r/"), 0);
    eng->cfg.values[CFG_store_merge_rate] = GIB;
    ENGINE_UNTIL(engine_keys("b/") == 0);
    engine_check_all();
}

static void failures_lose_nothing(void **state)
{
    (void)state;
    engine_start();
    eng->cfg.values[CFG_store_retry_ms] = 1;
    for (u32 k = 0; k < 9; k++) {
        u64 failed = metric(M_merges_failed);
        u32 *fails = k % 3 == 0 ? &fault.fail_gets : &fault.fail_puts;
        eng->cfg.values[CFG_store_merge_rate] = 0; /* the upload is not meant */
        engine_fill(300000);
        engine_seal_all();
        if (k % 3 == 2)
            fails = &fault.fail_commits;
        __atomic_store_n(fails, k % 3 == 2 ? 6 : 1 + k / 3, __ATOMIC_RELEASE);
        eng->cfg.values[CFG_store_merge_rate] = GIB;
        ENGINE_UNTIL(engine_keys("b/") == 0);
        assert_true(metric(M_merges_failed) > failed);
        engine_check_all();
        if (k % 4 == 3)
            restart();
    }
    restart(); /* what was refused its registration is an orphan */
    ENGINE_UNTIL(clean_store());
    engine_check_all();
}

static struct pindex_op move; /* outlives a failed check */

static void moved(struct pindex_op *o)
{
    assert_int_equal(o->err, ERR_NONE);
}
static void move_start(u32 part, i64 to)
{
    pindex_set_start(eng->parts[part].p, to, &move, moved);
    ENGINE_UNTIL(pindex_start_offset(eng->parts[part].p) == to);
}

/* Partition 0 has something to merge, and its merge stands before its first read, or before its
 * transaction. */
static void merge_until_held(u32 *hold)
{
    const u32 *seen = hold == &fault.hold_gets ? &fault.gets : &fault.puts;
    eng->cfg.values[CFG_store_merge_rate] = 0;
    for (u32 i = 0; i < 30; i++)
        engine_put(0, 2, 3000);
    engine_seal_all();
    ENGINE_UNTIL(clean_store()); /* no other transaction is on its way */
    __atomic_store_n(hold, 1, __ATOMIC_RELEASE);
    u32 before = __atomic_load_n(seen, __ATOMIC_ACQUIRE);
    eng->cfg.values[CFG_store_merge_rate] = GIB;
    ENGINE_UNTIL(__atomic_load_n(seen, __ATOMIC_ACQUIRE) > before);
    assert_true(eng->parts[0].p->rewriting);
}

static void the_log_start_passes_what_is_merged(void **state)
{
    (void)state;
    engine_start();
    for (u32 k = 0; k < 4; k++) {
        u32 *hold = k < 2 ? &fault.hold_gets : &fault.hold_commits;
        merge_until_held(hold);
        i64 to = k % 2 ? eng->parts[0].next : eng->parts[0].next - 17;
        pindex_set_start(eng->parts[0].p, to, &move, moved);
        engine_turn();
        __atomic_store_n(hold, 0, __ATOMIC_RELEASE);
        ENGINE_UNTIL(pindex_start_offset(eng->parts[0].p) == to);
        ENGINE_UNTIL(engine_keys("b/") == 0 && clean_store());
        engine_check_all();
        restart();
        engine_check_all();
    }
    move_start(0, eng->parts[0].next);
    ENGINE_UNTIL(engine_keys("r/") == 0 && clean_store());
}

static void a_drop_ends_a_merge(void **state)
{
    (void)state;
    engine_start();
    for (u32 i = 0; i < 2; i++) {
        u32 *hold = i == 0 ? &fault.hold_gets : &fault.hold_commits;
        merge_until_held(hold);
        pindex_drop(eng->parts[0].p);
        eng->unknown |= 1;
        __atomic_store_n(hold, 0, __ATOMIC_RELEASE);
        ENGINE_UNTIL(engine_keys("b/") == 0 && engine_keys("r/") == 0 && clean_store());
        engine_stop();
        eng->unknown = 0;
        eng->parts[0].next = 0;
        engine_start();
    }
}

/* The object is there, and then nobody wants it: it goes without a restart. */
static void an_object_that_is_given_up_goes(void **state)
{
    (void)state;
    engine_start();
    fault.delay_put_us = 300000;
    merge_until_held(&fault.hold_gets);
    u32 puts = FAULT_SEEN(puts);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(FAULT_SEEN(puts) > puts);
    pindex_drop(eng->parts[0].p);
    eng->unknown |= 1;
    u32 removes = FAULT_SEEN(removes);
    ENGINE_UNTIL(!clean_store());
    ENGINE_UNTIL(FAULT_SEEN(removes) > removes && clean_store());
    assert_int_equal(engine_keys("r/"), 0);
}

static void a_stop_ends_a_merge(void **state)
{
    (void)state;
    engine_start();
    merge_until_held(&fault.hold_gets);
    storage_stop(eng->st);
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(storage_stopped(eng->st));
    engine_down();
    engine_start();
    ENGINE_UNTIL(engine_keys("b/") == 0 && clean_store());
    engine_check_all();
}

static void cleaned(struct clean_op *o)
{
    (void)o;
}

static void a_key_round_keeps_off(void **state)
{
    (void)state;
    engine_start();
    merge_until_held(&fault.hold_gets);
    struct clean_op op = { .p = eng->parts[0].p, .end = eng->parts[0].next };
    assert_false(pindex_clean(&op, cleaned));
    __atomic_store_n(&fault.hold_gets, 0, __ATOMIC_RELEASE);
    ENGINE_UNTIL(engine_keys("b/") == 0);
    assert_false(eng->parts[0].p->rewriting);
}

/* Puts of the last and the next seconds, of the size of nothing else here. */
static void flow_is(u64 awaited, u64 other)
{
    struct flow *f = &eng->store.flow;
    u64 now_ns = clock_mono_ns();
    *f = (struct flow){ .best = 0 };
    flow_put(f, 20 * awaited, true, now_ns - 10 * NS_PER_S, now_ns + 10 * NS_PER_S);
    flow_put(f, 20 * other, false, now_ns - 10 * NS_PER_S, now_ns + 10 * NS_PER_S);
}

static void turns(u64 ms)
{
    u64 until = clock_mono_ns() + ms * NS_PER_MS;
    while (clock_mono_ns() < until)
        engine_turn();
}

static void awaited_uploads_go_first(void **state)
{
    (void)state;
    eng->remote = true;
    engine_set("store.merge_wait", "1h");
    engine_set("store.block_bytes", "1m"); /* no partition has half of one */
    engine_start();
    for (u32 k = 0; k < 4; k++) {
        flow_is(60 * MIB, 40 * MIB);
        engine_fill(400000);
        engine_seal_all();
        u64 runs = metric(M_merge_runs);
        turns(600);
        assert_true(engine_keys("b/") > 0);
        assert_int_equal(metric(M_merge_runs), runs);
        assert_true(metric(M_merges_deferred) > 0);
        if (k == 0)
            flow_is(40 * MIB, 60 * MIB); /* there is room for both */
        else if (k == 1)
            flow_is(0, 100 * MIB);
        else if (k == 2)
            eng->cfg.values[CFG_store_merge_wait_ms] = 1; /* it has waited enough */
        else
            eng->cfg.values[CFG_index_memory] = (i64)eng->st->index_bytes * 3 / 2;
        ENGINE_UNTIL(engine_keys("b/") == 0);
        engine_check_all();
        eng->cfg.values[CFG_store_merge_wait_ms] = 3600000;
    }
    ENGINE_UNTIL(metric(M_registered_bundles) == 0);
}

/* Sealed segments, while awaited uploads take all of the way. */
static void fill_beside_awaited(void)
{
    eng->remote = true;
    engine_set("store.merge_wait", "1h");
    engine_set("store.block_bytes", "1m"); /* no partition has half of one */
    engine_start();
    flow_is(100 * MIB, 0);
    engine_fill(400000);
    engine_seal_all();
}

static void how_long_it_waits_is_told(void **state)
{
    (void)state;
    fill_beside_awaited();
    ENGINE_UNTIL(metric(M_merge_waiting) > 0);
    assert_true(metric(M_registered_bundles) > 0 && metric(M_registered_bundle_bytes) > 400000);
    assert_in_range(metric(M_put_rate_awaited), 99 * MIB, 101 * MIB);
    flow_is(0, 0);
    ENGINE_UNTIL(metric(M_registered_bundle_bytes) == 0 && metric(M_merge_waiting) == 0);
}

static void what_waits_too_long_presses_uploads(void **state)
{
    (void)state;
    fill_beside_awaited();
    fault.delay_put_us = 200000;
    turns(300);
    assert_false(merge_presses(eng->st));
    eng->cfg.values[CFG_store_merge_wait_ms] = 1;
    ENGINE_UNTIL(metric(M_merge_runs) > 0 || merge_presses(eng->st));
    assert_true(merge_presses(eng->st)); /* while a run is on its way */
    ENGINE_UNTIL(engine_keys("b/") == 0);
    assert_false(merge_presses(eng->st));
}

/* A disk is shared in another way (uploader_behind). */
static void on_a_local_store_nothing_waits(void **state)
{
    (void)state;
    engine_set("store.merge_wait", "1h");
    engine_start();
    flow_is(100 * MIB, 0);
    engine_fill(400000);
    engine_seal_all();
    ENGINE_UNTIL(engine_keys("b/") == 0);
}

int main(void)
{
#define C(f) cmocka_unit_test_setup(f, choice_setup)
#define T(f) cmocka_unit_test_setup_teardown(f, setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        C(bundles_make_a_run_when_they_fill_it_or_are_old),
        C(bundles_between_runs_wait_for_nothing),
        C(small_runs_join_when_all_grow),
        C(a_choice_has_an_end),
        C(a_byte_is_rewritten_about_once),
        T(bundles_become_runs_and_go),
        T(images_go_on_to_serve),
        T(what_is_young_stays),
        T(failures_lose_nothing),
        T(the_log_start_passes_what_is_merged),
        T(a_drop_ends_a_merge),
        T(an_object_that_is_given_up_goes),
        T(a_stop_ends_a_merge),
        T(a_key_round_keeps_off),
        T(awaited_uploads_go_first),
        T(how_long_it_waits_is_told),
        T(what_waits_too_long_presses_uploads),
        T(on_a_local_store_nothing_waits),
    };
    return cmocka_run_group_tests_name("merge", tests, NULL, NULL);
}
