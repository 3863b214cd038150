/* Idempotence as Kafka's ProducerStateManager has it: duplicates, order, epochs, wrap, expiry. */
#include "../../../core/broker/broker_int.h"
#include "../unit.h"

static struct partition part;

static int setup(void **state)
{
    (void)state;
    memset(&part, 0, sizeof part);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    producers_free(&part);
    return 0;
}

static struct batch batch_of(i64 id, i16 epoch, i32 sequence, i32 count)
{
    return (struct batch){ .producer_id = id,
                           .producer_epoch = epoch,
                           .base_sequence = sequence,
                           .last_offset_delta = count - 1,
                           .record_count = count };
}

static err check(i64 id, i16 epoch, i32 sequence, i32 count)
{
    const struct producer_batch *dup = NULL;
    struct batch b = batch_of(id, epoch, sequence, count);
    return producers_check(&part, &b, &dup);
}

static void append(i64 id, i16 epoch, i32 sequence, i32 count, i64 last_offset)
{
    struct batch b = batch_of(id, epoch, sequence, count);
    producers_append(&part, &b, last_offset, 1000);
}

static void an_unknown_producer_may_start_anywhere(void **state)
{
    (void)state;
    assert_int_equal(check(7, 0, 0, 1), ERR_NONE);
    assert_int_equal(check(7, 3, 1234, 5), ERR_NONE);
}

static void sequences_must_follow(void **state)
{
    (void)state;
    append(7, 0, 0, 10, 9);
    assert_int_equal(check(7, 0, 10, 1), ERR_NONE);
    assert_int_equal(check(7, 0, 11, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(check(7, 0, 5, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
}

static void the_last_five_batches_are_known_as_duplicates(void **state)
{
    (void)state;
    for (i32 i = 0; i < 6; i++)
        append(7, 0, i * 2, 2, i * 2 + 1);
    assert_int_equal(check(7, 0, 0, 2),
                     ERR_OUT_OF_ORDER_SEQUENCE_NUMBER); /* the sixth from the end */
    for (i32 i = 1; i < 6; i++) {
        const struct producer_batch *dup = NULL;
        struct batch b = batch_of(7, 0, i * 2, 2);
        assert_int_equal(producers_check(&part, &b, &dup), ERR_DUPLICATE_SEQUENCE_NUMBER);
        assert_int_equal(dup->last_offset, i * 2 + 1);
    }
    assert_int_equal(check(7, 0, 2, 1),
                     ERR_OUT_OF_ORDER_SEQUENCE_NUMBER); /* same first, other last */
}

static void sequences_wrap_to_zero(void **state)
{
    (void)state;
    append(7, 0, INT32_MAX - 1, 2, 1);
    assert_int_equal(check(7, 0, 0, 1), ERR_NONE);
    append(7, 0, 0, 1, 2);
    append(8, 0, INT32_MAX, 3, 5); /* wraps inside: sequences 2^31-1, 0, 1 */
    assert_int_equal(check(8, 0, 2, 1), ERR_NONE);
    assert_int_equal(check(8, 0, INT32_MAX, 3), ERR_DUPLICATE_SEQUENCE_NUMBER);
}

static void epochs_fence_and_restart_at_zero(void **state)
{
    (void)state;
    append(7, 2, 0, 5, 4);
    assert_int_equal(check(7, 1, 5, 1), ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(check(7, 3, 5, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(check(7, 3, 0, 1), ERR_NONE);
    append(7, 3, 0, 1, 5);
    assert_int_equal(check(7, 2, 5, 1), ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(check(7, 3, 1, 1), ERR_NONE);
}

static void the_snapshot_restores_everything(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096, MIB);
    for (i64 id = 0; id < 20; id++)
        for (i32 i = 0; i < 7; i++)
            append(id, (i16)(id % 3), i, 1, id * 100 + i);
    struct bytes s = producers_snapshot(&part, &a);
    assert_non_null(s.data);
    assert_null(producers_snapshot(&part, &a).data); /* unchanged since */
    producers_free(&part);
    memset(&part, 0, sizeof part);
    assert_int_equal(producers_restore(&part, s), ERR_NONE);
    assert_int_equal(part.producer_count, 20);
    for (i64 id = 0; id < 20; id++) {
        assert_int_equal(check(id, (i16)(id % 3), 7, 1), ERR_NONE);
        assert_int_equal(check(id, (i16)(id % 3), 2, 1), ERR_DUPLICATE_SEQUENCE_NUMBER);
        assert_int_equal(check(id, (i16)(id % 3), 1, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    arena_free(&a);
}

/* Its first batch found no room: the later ones wait for it, also behind a restart. */
static void who_was_refused_does_not_begin_later(void **state)
{
    (void)state;
    struct arena a;
    struct batch b = { .producer_id = 7, .producer_epoch = 0, .base_sequence = 0 };
    arena_init(&a, 4096, MIB);
    producers_refused(&part, &b, 1000);
    assert_int_equal(check(7, 0, 5, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    part.producers_changed = true; /* another one wrote */
    struct bytes s = producers_snapshot(&part, &a);
    producers_free(&part);
    memset(&part, 0, sizeof part);
    assert_int_equal(producers_restore(&part, s), ERR_NONE);
    producers_refused(&part, &b, 2000);
    assert_int_equal(check(7, 0, 5, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_int_equal(check(7, 0, 0, 5), ERR_NONE);
    arena_free(&a);
}

static void a_broken_snapshot_is_refused(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 4096, MIB);
    append(7, 0, 0, 10, 9);
    struct bytes s = producers_snapshot(&part, &a);
    for (u32 n = 0; n < s.len; n++) {
        struct partition other;
        memset(&other, 0, sizeof other);
        assert_int_equal(producers_restore(&other, bytes_of(s.data, n)), ERR_CORRUPT);
        producers_free(&other);
    }
    arena_free(&a);
}

static void idle_producers_expire(void **state)
{
    (void)state;
    append(7, 0, 0, 10, 9);
    producers_expire(&part, 1000);
    assert_int_equal(part.producer_count, 1);
    producers_expire(&part, 1001);
    assert_int_equal(part.producer_count, 0);
    assert_int_equal(check(7, 0, 99, 1), ERR_NONE);
}

/* A shard's partitions share the bound: who wrote nothing for the longest time is forgotten. */
static void the_longest_silent_producer_makes_room(void **state)
{
    (void)state;
    char why[256];
    struct config cfg;
    config_init(&cfg);
    assert_int_equal(config_set(&cfg, "producer.ids.max", "1000", CONFIG_FILE, why, sizeof why), 0);
    struct node node = { .cfg = &cfg };
    struct shard_group group = { .count = 250 }; /* 4 for this shard */
    struct topic topic = { .name = bytes_str("t") };
    struct broker b = { .node = &node, .shard = { .group = &group } };
    struct partition other = { .broker = &b, .topic = &topic };
    list_init(&b.producers);
    part.broker = &b;
    part.topic = &topic;
    for (i64 id = 1; id <= 4; id++)
        append(id, 0, 0, 1, id);
    append(1, 0, 1, 1, 5); /* used again: 2 is the longest silent now */
    struct batch batch = batch_of(9, 0, 0, 1);
    producers_append(&other, &batch, 0, 1000);
    assert_int_equal(b.producer_count, 4);
    assert_int_equal(part.producer_count, 3);
    assert_int_equal(check(2, 0, 7, 1), ERR_NONE); /* not known */
    assert_int_equal(check(1, 0, 7, 1), ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    producers_free(&part);
    producers_free(&other);
    assert_int_equal(b.producer_count, 0);
    assert_true(list_empty(&b.producers));
    config_free(&cfg);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_unknown_producer_may_start_anywhere),
        TEST(sequences_must_follow),
        TEST(the_last_five_batches_are_known_as_duplicates),
        TEST(sequences_wrap_to_zero),
        TEST(epochs_fence_and_restart_at_zero),
        TEST(the_snapshot_restores_everything),
        TEST(who_was_refused_does_not_begin_later),
        TEST(a_broken_snapshot_is_refused),
        TEST(idle_producers_expire),
        TEST(the_longest_silent_producer_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
