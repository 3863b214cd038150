/* The second level of the block cache: what was read once comes from the disk, and nothing that is
 * wrong there, or with it, reaches a reader. */
#include "engine_rig.h"

#include "../../../storage/disk_cache.h"

#define BLOCKS 20u /* of partition 0, three batches each, of about 60 KB */

static u64 count_of(enum metric_id id)
{
    return metric_get(eng->shard.metrics, id);
}

static void fill(u32 part)
{
    for (u32 i = 0; i < BLOCKS * 3; i++)
        engine_put(part, 1, 20000);
    engine_seal_all();
    engine_evict_all();
}

static int setup(void **state)
{
    int failed = engine_setup(state);
    char path[512];
    snprintf(path, sizeof path, "%s/cache", eng->dir.path);
    engine_set("store.disk_cache.path", path);
    return failed;
}

static void start(const char *disk_bytes)
{
    engine_set("store.cache_bytes", "64k"); /* one block */
    engine_set("store.readahead_bytes", "0");
    engine_set("store.disk_cache.bytes", disk_bytes);
    engine_start();
    fill(0);
}

static void read_block(u32 part, u32 block)
{
    struct engine_read r;
    engine_read_begin(&r, part, block * 3, BLOCKS * 3, 1, true);
    ENGINE_UNTIL(r.done);
    assert_int_equal(r.op.err, ERR_NONE);
    assert_int_equal(engine_compare(&r.op, &eng->parts[part], block * 3), 1);
    engine_read_end(&r);
    ENGINE_UNTIL(cache_idle(eng->st)); /* it is written, too */
}

static void read_blocks(u32 part)
{
    for (u32 i = 0; i < BLOCKS; i++)
        read_block(part, i);
}

/* Block 0 is the first that was read, so its pages are the first of the file. */
static void file_put(const void *bytes, size_t n, off_t at)
{
    char path[512];
    snprintf(path, sizeof path, "%s/cache/0000.cache", eng->dir.path);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), (ssize_t)n);
    assert_int_equal(close(fd), 0);
}

static void what_was_read_once_comes_from_the_disk(void **state)
{
    (void)state;
    start("16m");
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS);
    assert_int_equal(count_of(M_disk_cache_hits), 0);
    u64 read = count_of(M_store_read_bytes);
    assert_int_equal(count_of(M_disk_cache_written_bytes), read);
    assert_int_equal(count_of(M_disk_cache_bytes), read);
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS);
    assert_int_equal(count_of(M_store_gets), BLOCKS);
    assert_int_equal(count_of(M_store_read_bytes), read);
    assert_int_equal(count_of(M_disk_cache_hits), BLOCKS);
    assert_int_equal(count_of(M_disk_cache_read_bytes), read);
    /* Another life believes nothing of it. */
    engine_stop();
    engine_start();
    engine_evict_all();
    read_block(0, 0);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS + 1);
}

static void many_at_a_time(void **state)
{
    (void)state;
    start("16m");
    read_blocks(0);
    struct engine_read r[BLOCKS];
    for (u32 i = 0; i < BLOCKS; i++)
        engine_read_begin(&r[i], 0, i * 3, BLOCKS * 3, 1, true);
    for (u32 i = 0; i < BLOCKS; i++) {
        ENGINE_UNTIL(r[i].done);
        assert_int_equal(engine_compare(&r[i].op, &eng->parts[0], i * 3), 1);
        engine_read_end(&r[i]);
    }
    assert_int_equal(FAULT_SEEN(gets), BLOCKS);
}

static void a_bad_block_costs_a_read_of_the_store(void **state)
{
    (void)state;
    start("16m");
    read_blocks(0);
    file_put("?", 1, 5000);
    read_block(0, 0);
    assert_int_equal(count_of(M_disk_cache_bad), 1);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS + 1);
    assert_int_equal(count_of(M_store_errors), 0);
    read_blocks(0); /* and it is there again, at another place */
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS + 1);
    assert_int_equal(count_of(M_disk_cache_bad), 1);
}

/* What a write that never arrived leaves: a sound block of the same offsets, of another object. */
static void a_good_block_of_another_time_is_bad(void **state)
{
    (void)state;
    start("16m");
    read_blocks(0);
    struct bundle_builder b;
    bundle_builder_init(&b, 0, 1, 1, 1 << 20);
    struct bytes batches[3];
    struct partition_key key = engine_key(0);
    for (u32 i = 0; i < 3; i++) {
        batches[i] = batch_make(i, 1, 20000, 777);
        bundle_builder_add(&b, &key, i, i, 777, batches[i]);
    }
    bundle_builder_seal(&b);
    u8 *object = mem_alloc(b.bytes);
    u64 at = 0;
    for (u32 i = 0; i < b.part_count; i++) {
        memcpy(object + at, b.parts[i].data, b.parts[i].len);
        at += b.parts[i].len;
    }
    const struct block *own = &eng->parts[0].p->blocks[eng->parts[0].p->block_head];
    assert_int_equal(bundle_block_bytes(&b.entries[0]), own->bytes);
    assert_int_equal(b.entries[0].last_offset, own->last_offset);
    struct bundle_entry e;
    struct bytes data, block = bytes_of(object + b.entries[0].pos, own->bytes);
    assert_int_equal(bundle_block_decode(block, &e, &data), ERR_NONE);
    file_put(block.data, block.len, 0);
    bundle_builder_free(&b);
    mem_free(object);
    for (u32 i = 0; i < 3; i++)
        batch_drop(batches[i]);
    read_block(0, 0);
    assert_int_equal(count_of(M_disk_cache_bad), 1);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS + 1);
}

static void full_it_keeps_what_is_asked_for_twice(void **state)
{
    (void)state;
    start("400k");
    read_blocks(0);
    u64 refused = count_of(M_disk_cache_refused);
    assert_in_range(refused, BLOCKS - 7, BLOCKS - 5);
    assert_true(count_of(M_disk_cache_bytes) <= 400 * KIB);
    assert_int_equal(count_of(M_disk_cache_evictions), 0);
    /* A scan left it alone; what comes back to a block gets it in. */
    read_block(0, 17);
    assert_in_range(count_of(M_disk_cache_evictions), 1, 2);
    read_block(0, 18);
    u32 gets = FAULT_SEEN(gets);
    read_block(0, 17);
    assert_int_equal(FAULT_SEEN(gets), gets);
    assert_true(count_of(M_disk_cache_bytes) <= 400 * KIB);
    /* Round and round the ring. */
    for (u32 i = 0; i < 4 * 3 * BLOCKS; i++)
        read_block(0, (i / 4 + i % 2 * 7) % BLOCKS);
    assert_true(count_of(M_disk_cache_evictions) > 3 * 7);
    assert_true(count_of(M_disk_cache_bytes) <= 400 * KIB);
    assert_int_equal(count_of(M_disk_cache_bad), 0);
}

static void what_is_deleted_makes_room(void **state)
{
    (void)state;
    start("400k");
    fill(1);
    read_blocks(0);
    u64 refused = count_of(M_disk_cache_refused);
    pindex_drop(eng->parts[0].p);
    eng->unknown = 1;
    ENGINE_UNTIL(retention_idle(eng->st) && engine_keys("b/") < 4);
    for (u32 i = 0; i < 3; i++) /* once only */
        read_block(1, 5 + i);
    assert_int_equal(count_of(M_disk_cache_refused), refused);
    assert_true(count_of(M_disk_cache_evictions) > 0);
}

static void an_error_of_the_disk_turns_it_off(void **state)
{
    (void)state;
    start("16m");
    read_blocks(0);
    char path[512];
    snprintf(path, sizeof path, "%s/cache/0000.cache", eng->dir.path);
    assert_int_equal(truncate(path, 0), 0);
    read_blocks(0);
    assert_int_equal(count_of(M_disk_cache_errors), 1);
    assert_int_equal(count_of(M_disk_cache_bytes), 0);
    assert_int_equal(FAULT_SEEN(gets), 2 * BLOCKS);
    assert_int_equal(count_of(M_store_errors), 0);
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), 3 * BLOCKS);
}

static void without_its_file_everything_goes_on(void **state)
{
    (void)state;
    engine_set("store.disk_cache.path", "/dev/null/cache");
    start("16m");
    assert_null(eng->st->disk_cache);
    assert_int_equal(count_of(M_disk_cache_errors), 1);
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), BLOCKS);
}

static void smaller_than_a_block_nothing_is_kept(void **state)
{
    (void)state;
    start("64k");
    read_blocks(0);
    read_blocks(0);
    assert_int_equal(FAULT_SEEN(gets), 2 * BLOCKS);
    assert_int_equal(count_of(M_disk_cache_written_bytes), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, engine_teardown)
    const struct CMUnitTest tests[] = {
        T(what_was_read_once_comes_from_the_disk), T(many_at_a_time),
        T(a_bad_block_costs_a_read_of_the_store),  T(a_good_block_of_another_time_is_bad),
        T(full_it_keeps_what_is_asked_for_twice),  T(what_is_deleted_makes_room),
        T(an_error_of_the_disk_turns_it_off),      T(without_its_file_everything_goes_on),
        T(smaller_than_a_block_nothing_is_kept),
    };
    return cmocka_run_group_tests_name("disk_cache", tests, NULL, NULL);
}
