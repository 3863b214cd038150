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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_place_knows_how_it_is_named),
        cmocka_unit_test(a_hundred_thousand_names_take_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
