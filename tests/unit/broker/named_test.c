/* Names given more than once in a request. */
#include "../../../core/broker/broker_int.h"
#include "../unit.h"

static struct arena arena;
static struct call call = { .arena = &arena };

static void each_place_knows_how_it_is_named(void **state)
{
    (void)state;
    arena_init(&arena, 4096, MIB);
    struct named n[] = {
        { bytes_str("b"), 0, 0 }, { bytes_str("a"), 0, 1 }, { bytes_str("b"), 0, 2 },
        { bytes_str("b"), 1, 3 }, { bytes_str(""), 0, 4 },  { bytes_str("b"), 0, 5 },
        { { NULL, 0 }, 0, 6 },
    };
    const u8 *marks = named_marks(&call, n, (i32)ARRAY_COUNT(n));
    u8 again = NAMED_TWICE | NAMED_BEFORE;
    u8 want[] = { NAMED_TWICE, 0, again, 0, NAMED_TWICE, again, again };
    assert_memory_equal(marks, want, sizeof want);
    arena_free(&arena);
}

static void a_hundred_thousand_names_take_no_time(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    arena_init(&arena, 4096, 64 * MIB);
    struct named *n = arena_alloc(&arena, COUNT * sizeof *n);
    char *text = arena_alloc(&arena, COUNT * 8);
    for (i32 i = 0; i < COUNT; i++) {
        snprintf(text + 8 * i, 8, "%d", (int)((u32)i * 7919u % (COUNT / 2)));
        n[i] = (struct named){ bytes_str(text + 8 * i), 0, i };
    }
    const u8 *marks = named_marks(&call, n, COUNT);
    u32 again = 0;
    for (u32 i = 0; i < COUNT; i++)
        again += (marks[i] & NAMED_BEFORE) != 0;
    assert_int_equal(again, COUNT / 2);
    arena_free(&arena);
}

/* ---- partitions of topics ---- */

typedef struct delete_records_request_delete_records_topic asked_topic;
typedef struct delete_records_request_delete_records_partition asked;
static const struct named_shape shape =
    NAMED_SHAPE(delete_records_request_delete_records_topic, name, NAMED_NO_ID, partitions,
                delete_records_request_delete_records_partition, partition_index);

static asked_topic of(const char *name, asked *v, i32 n)
{
    asked_topic t = { .name = bytes_str(name) };
    t.partitions.v = v;
    t.partitions.n = n;
    return t;
}

static void the_first_place_and_the_last_values_are_kept(void **state)
{
    (void)state;
    arena_init(&arena, 4096, MIB);
    asked one[] = { { .partition_index = 7, .offset = 1 },
                    { .partition_index = 3, .offset = 2 },
                    { .partition_index = 7, .offset = 3 } };
    asked two[] = { { .partition_index = 7, .offset = 4 } };
    asked three[] = { { .partition_index = 3, .offset = 5 },
                      { .partition_index = 0, .offset = 6 } };
    asked_topic topics[] = { of("a", one, 3), of("b", two, 1), of("a", three, 2),
                             of("c", NULL, -1) };
    struct delete_records_request q = { .topics = { topics, 4 } };
    const u8 *twice = named_merge(&call, &shape, &q.topics);
    assert_int_equal(q.topics.n, 3);
    assert_true(bytes_eq_str(q.topics.v[0].name, "a") && bytes_eq_str(q.topics.v[1].name, "b"));
    assert_true(bytes_eq_str(q.topics.v[2].name, "c") && q.topics.v[2].partitions.n == 0);
    const i64 want[][2] = { { 7, 3 }, { 3, 5 }, { 0, 6 } };
    assert_int_equal(q.topics.v[0].partitions.n, 3);
    for (i32 i = 0; i < 3; i++) {
        assert_int_equal(q.topics.v[0].partitions.v[i].partition_index, want[i][0]);
        assert_int_equal(q.topics.v[0].partitions.v[i].offset, want[i][1]);
    }
    assert_int_equal(q.topics.v[1].partitions.v[0].offset, 4);
    const u8 marks[] = { 1, 1, 0, 0 };
    assert_memory_equal(twice, marks, sizeof marks);
    arena_free(&arena);
}

static void an_id_stands_for_a_name(void **state)
{
    (void)state;
    static const struct named_shape by_id =
        NAMED_SHAPE(produce_request_topic_produce_data, name,
                    offsetof(struct produce_request_topic_produce_data, topic_id), partition_data,
                    produce_request_partition_produce_data, index);
    arena_init(&arena, 4096, MIB);
    struct produce_request_partition_produce_data one[] = { { .index = 1 } },
                                                  two[] = { { .index = 2 } },
                                                  three[] = { { .index = 1 } };
    struct produce_request_topic_produce_data topics[3] = { { .topic_id = { { 1 } } },
                                                            { .topic_id = { { 2 } } },
                                                            { .topic_id = { { 1 } } } };
    topics[0].partition_data.v = one;
    topics[1].partition_data.v = two;
    topics[2].partition_data.v = three;
    for (u32 i = 0; i < ARRAY_COUNT(topics); i++)
        topics[i].partition_data.n = 1;
    struct produce_request q = { .topic_data = { topics, 3 } };
    const u8 *twice = named_merge(&call, &by_id, &q.topic_data);
    const u8 marks[] = { 1, 0 };
    assert_int_equal(q.topic_data.n, 2);
    assert_memory_equal(twice, marks, sizeof marks);
    assert_int_equal(q.topic_data.v[1].topic_id.b[0], 2);
    arena_free(&arena);
}

static void nothing_named_is_nothing(void **state)
{
    (void)state;
    arena_init(&arena, 4096, MIB);
    struct delete_records_request q = { .topics = { NULL, -1 } };
    assert_non_null(named_merge(&call, &shape, &q.topics));
    assert_int_equal(q.topics.n, 0);
    arena_free(&arena);
}

static void memory_that_is_not_there_is_said(void **state)
{
    (void)state;
    asked one[] = { { .partition_index = 1 }, { .partition_index = 1 } };
    u32 fitted = 0;
    for (u64 limit = 1; limit < 2048 && !fitted; limit += 16) {
        asked_topic topics[] = { of("a", one, 2), of("a", one, 2) };
        struct delete_records_request q = { .topics = { topics, 2 } };
        arena_init(&arena, 16, limit);
        fitted += named_merge(&call, &shape, &q.topics) != NULL;
        arena_free(&arena);
    }
    assert_int_equal(fitted, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_place_knows_how_it_is_named),
        cmocka_unit_test(a_hundred_thousand_names_take_no_time),
        cmocka_unit_test(the_first_place_and_the_last_values_are_kept),
        cmocka_unit_test(an_id_stands_for_a_name),
        cmocka_unit_test(nothing_named_is_nothing),
        cmocka_unit_test(memory_that_is_not_there_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
