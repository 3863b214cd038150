/* When a committed offset expires (Kafka's ClassicGroup.offsetExpirationCondition), when its topic
 * is another one, and that what groups hold is counted to the last byte. */
#include "../../../core/group/group_int.h"
#include "../../../core/broker/broker_int.h"
#include "../unit.h"

#include <time.h>

#define MINUTE ((i64)60000)
#define KEEP (10080 * MINUTE) /* offsets.retention.minutes */
#define NOW ((i64)1700000000000)

static struct config cfg;
static struct node node = { .cfg = &cfg };
static struct shard_group shards = { .count = 1 };
static struct broker broker;
static struct topic topic = { .id = { { 1 } },
                              .name = { (const u8 *)"t", 1 },
                              .partition_count = 1 };
static struct coordinator coordinator;
static struct group_partition gp = { .coordinator = &coordinator };
static struct group *group;

static int setup(void **state)
{
    (void)state;
    config_init(&cfg);
    memset(&broker, 0, sizeof broker);
    memset(&coordinator, 0, sizeof coordinator);
    broker.node = &node;
    broker.shard.group = &shards;
    broker.shard.now_ms = NOW;
    broker.shard.metrics = metrics_create();
    timers_init(&broker.shard.timers);
    coordinator.broker = &broker;
    broker.coordinator = &coordinator;
    catalog_add_entry(&broker, &topic);
    group = group_create(&gp, bytes_str("g"));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    group_free(group);
    assert_int_equal(coordinator.memory, 0);
    catalog_free(&broker);
    timers_free(&broker.shard.timers);
    metrics_destroy(broker.shard.metrics);
    config_free(&cfg);
    return 0;
}

static struct offset *committed(i64 age_ms)
{
    struct offset *o = offset_put(group, topic.name, 0);
    o->commit_ms = NOW - age_ms;
    o->topic_id = topic.id;
    offset_recount(group, o);
    return o;
}

static bool expired(const struct offset *o)
{
    struct subscriptions read;
    subscriptions_read(&read, group);
    bool yes = offset_expired(group, &read, o);
    subscriptions_free(&read);
    return yes;
}

/* A member of that id with that subscription. */
static void member_subscribes(const char *id, const u8 *subscription, u32 len)
{
    struct member *m = member_add(group, bytes_str(id), (struct bytes){ NULL, 0 });
    m->protocols = MEM_NEW(struct protocol);
    m->protocol_count = 1;
    bytes_set(&m->protocols[0].name, bytes_str("range"));
    bytes_set(&m->protocols[0].metadata, bytes_of(subscription, len));
    member_recount(m);
    bytes_set(&group->protocol_type, bytes_str("consumer"));
    group->state = GROUP_STABLE;
}

/* A member whose subscription names `name`. */
static void member_reads(const char *name)
{
    u8 subscription[64] = { 0 };
    u32 len = (u32)strlen(name);
    put_be32(subscription + 2, 1);
    put_be16(subscription + 6, (u16)len);
    memcpy(subscription + 8, name, len);
    member_subscribes("m", subscription, 8 + len);
}

static void offsets_of_standalone_consumers_count_from_the_commit(void **state)
{
    (void)state;
    group->state_ms = NOW; /* as after a restart: it says nothing */
    assert_false(expired(committed(KEEP - 1)));
    assert_true(expired(committed(KEEP)));
}

static void offsets_of_an_empty_group_count_from_when_it_became_empty(void **state)
{
    (void)state;
    bytes_set(&group->protocol_type, bytes_str("consumer"));
    group->state_ms = NOW - KEEP + 1;
    assert_false(expired(committed(2 * KEEP)));
    group->state_ms = NOW - KEEP;
    assert_true(expired(committed(2 * KEEP)));
    assert_false(expired(committed(1))); /* set by a tool meanwhile */
}

static void a_retention_of_the_commit_itself_goes_first(void **state)
{
    (void)state;
    struct offset *o = committed(1);
    o->expire_ms = NOW;
    assert_true(expired(o));
    o->expire_ms = NOW + 1;
    o->commit_ms = NOW - 2 * KEEP;
    assert_false(expired(o));
}

static void members_keep_what_they_read(void **state)
{
    (void)state;
    struct offset *o = committed(2 * KEEP);
    o->expire_ms = NOW - 1;
    member_reads("t");
    assert_false(expired(o));
    member_remove(group->members, ERR_NONE);
    member_reads("other");
    assert_true(expired(o));
    group->state = GROUP_PREPARING; /* subscriptions are not known for sure */
    assert_false(expired(o));
    group->state = GROUP_STABLE;
    bytes_set(&group->protocol_type, bytes_str("connect")); /* what it reads is not known at all */
    assert_false(expired(o));
    group_recount(group);
}

static void a_topic_made_anew_is_another_topic(void **state)
{
    (void)state;
    struct offset *o = committed(0);
    assert_false(expired(o));
    o->topic_id.b[0] = 2;
    assert_true(expired(o));
    o->topic_id = (struct uuid){ { 0 } }; /* written before ids were */
    assert_false(expired(o));
    assert_true(expired(offset_put(group, bytes_str("gone"), 0)));
}

static void memory_is_counted_and_bounded(void **state)
{
    (void)state;
    u64 before = coordinator.memory;
    assert_true(before > sizeof *group);
    struct offset *o = committed(0);
    bytes_set(&o->metadata, bytes_str("some metadata"));
    offset_recount(group, o);
    assert_true(coordinator.memory > before + sizeof *o);
    offset_remove(group, o);
    assert_int_equal(coordinator.memory, before);
    member_reads("t");
    pending_add(group, bytes_str("somebody"), 1000);
    assert_true(coordinator.memory > before + sizeof(struct member));
    pending_remove(group->pending);
    member_remove(group->members, ERR_NONE);
    group->state = GROUP_EMPTY;
    group_recount(group);
    bytes_set(&group->protocol_type, (struct bytes){ NULL, 0 });
    bytes_set(&group->leader, (struct bytes){ NULL, 0 });
    group_recount(group);
    assert_int_equal(coordinator.memory, before);

    u64 bound = config_u64(&cfg, CFG_group_memory);
    assert_true(group_memory_fits(&coordinator, bound - before));
    assert_false(group_memory_fits(&coordinator, bound - before + 1));
    group_memory_reserve(&coordinator, bound - before);
    assert_false(group_memory_fits(&coordinator, 1));
    assert_true(group_memory_fits(&coordinator, 0));
    group_memory_release(&coordinator, bound - before);
    assert_int_equal(metric_get(broker.shard.metrics, M_group_refused), 2);
}

/* As OffsetFetch of everything needs them; comparing every pair took minutes. */
static void the_offsets_of_many_topics_are_sorted_at_once(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    static struct topic topics[COUNT];
    static char names[COUNT][8];
    struct offset **sorted = mem_alloc((2 * COUNT + 1) * sizeof *sorted);
    for (u32 i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "%05u", (i * 7919u) % COUNT);
        topics[i] = (struct topic){ .id = { { (u8)i, (u8)(i >> 8), 1 } },
                                    .name = { (const u8 *)names[i], 5 },
                                    .partition_count = 2 };
        catalog_add_entry(&broker, &topics[i]);
        offset_put(group, topics[i].name, 1);
        offset_put(group, topics[i].name, 0);
    }
    offset_put(group, bytes_str("gone"), 0);
    clock_t before = clock();
    assert_int_equal(offsets_sorted(&broker, group, sorted), 2 * COUNT);
    assert_true(clock() - before < 3 * CLOCKS_PER_SEC);
    for (u32 i = 0; i < 2 * COUNT; i++) {
        char want[8];
        snprintf(want, sizeof want, "%05u", i / 2);
        assert_true(bytes_eq_str(offset_topic(sorted[i]), want));
        assert_int_equal(offset_partition(sorted[i]), i % 2);
    }
    mem_free(sorted);
}

/* As OffsetDelete of many topics and expiry of many offsets ask. */
static void what_many_members_read_is_gathered_once(void **state)
{
    (void)state;
    enum { TOPICS = 20000, MEMBERS = 50, NAME = 7 };
    u32 len = 6 + TOPICS * NAME;
    u8 *subscription = mem_alloc(len + 1);
    char id[16], name[NAME];
    for (u32 m = 0; m < MEMBERS; m++) {
        put_be32(subscription + 2, TOPICS + 1); /* the last one is cut off */
        for (u32 i = 0; i < TOPICS; i++) {
            snprintf(name, sizeof name, "%05u", (i * 7919u + m) % TOPICS);
            put_be16(subscription + 6 + i * NAME, 5);
            memcpy(subscription + 8 + i * NAME, name, 5);
        }
        snprintf(id, sizeof id, "m%u", m);
        member_subscribes(id, subscription, len + (m & 1));
    }
    mem_free(subscription);
    clock_t before = clock();
    struct subscriptions read;
    subscriptions_read(&read, group);
    assert_int_equal(read.count, TOPICS);
    assert_in_range(read.room, TOPICS, 4 * TOPICS); /* not with the members */
    for (u32 i = 0; i < 2 * TOPICS; i++) {
        snprintf(name, sizeof name, "%05u", i);
        assert_int_equal(subscriptions_name(&read, bytes_str(name)), i < TOPICS);
    }
    assert_true(clock() - before < 3 * CLOCKS_PER_SEC);
    subscriptions_free(&read);
    subscriptions_read(&read, group);
    subscriptions_free(&read);
    assert_false(subscriptions_name(&read, bytes_str("00000")));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(offsets_of_standalone_consumers_count_from_the_commit),
        TEST(offsets_of_an_empty_group_count_from_when_it_became_empty),
        TEST(a_retention_of_the_commit_itself_goes_first),
        TEST(members_keep_what_they_read),
        TEST(a_topic_made_anew_is_another_topic),
        TEST(memory_is_counted_and_bounded),
        TEST(the_offsets_of_many_topics_are_sorted_at_once),
        TEST(what_many_members_read_is_gathered_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
