/* How many shards a machine gets by itself, and what the operator says instead. */
#include "node.h"

#include "../unit.h"

static void a_machine_keeps_a_part_of_its_cpus(void **state)
{
    (void)state;
    static const struct {
        u32 cpus, shards;
    } table[] = {
        { 0, 1 }, { 1, 1 }, { 2, 1 },   { 3, 2 },   { 4, 3 },     { 7, 6 },
        { 8, 6 }, { 9, 7 }, { 16, 12 }, { 64, 48 }, { 512, 256 },
    };
    for (size_t i = 0; i < ARRAY_COUNT(table); i++)
        assert_int_equal(node_shards_for(table[i].cpus), table[i].shards);
}

static void what_is_set_counts(void **state)
{
    (void)state;
    struct config cfg;
    char why[256];
    config_init(&cfg);
    assert_int_equal(config_set(&cfg, "core.shards", "7", CONFIG_FILE, why, sizeof why), ERR_NONE);
    assert_int_equal(node_shard_count(&cfg), 7);
    config_free(&cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_keeps_a_part_of_its_cpus),
        cmocka_unit_test(what_is_set_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
