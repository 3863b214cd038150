/* Messages between real threads: none lost, none twice, in order, also when rings are full and
 * receivers sleep; posts from outside; jobs of the background pool. Run under TSan too. */
#include <pthread.h>
#include <string.h>

#include "clock.h"
#include "shard_fixture.h"

#define MESSAGES 20000u
#define WINDOW 1500u /* more than a ring holds: the overflow list works */

struct ball {
    struct msg msg;
    u32 number, home, from;
};

struct player {
    struct shard *shard;
    struct shard_hook hook;
    struct ball balls[WINDOW];
    struct list idle;
    u32 sent, returned;
    u32 next_expected[4]; /* per sender */
};

static struct player players[4];
static struct fixture fix;

static void ball_home(struct shard *at, struct msg *m)
{
    struct ball *b = container_of(m, struct ball, msg);
    CHECK(b->home == at->index);
    struct player *p = &players[at->index];
    p->returned++;
    list_push_back(&p->idle, &b->msg.link);
    at->turn_again |= p->sent < MESSAGES;
}

static void ball_arrived(struct shard *at, struct msg *m)
{
    struct ball *b = container_of(m, struct ball, msg);
    CHECK(b->number == players[at->index].next_expected[b->home]++);
    shard_send(at, b->home, &b->msg, ball_home);
}

static void player_hook(struct shard_hook *h)
{
    struct player *p = container_of(h, struct player, hook);
    struct shard *s = p->shard;
    u32 others = s->group->count - 1;
    while (p->sent < MESSAGES && !list_empty(&p->idle)) {
        struct ball *b = list_entry(list_pop_front(&p->idle), struct ball, msg.link);
        u32 to = (s->index + 1 + p->sent % others) % s->group->count;
        b->home = s->index;
        b->number = p->sent / others;
        p->sent++;
        shard_send(s, to, &b->msg, ball_arrived);
    }
}

static err player_start(struct shard *s)
{
    struct player *p = &players[s->index];
    *p = (struct player){ .shard = s };
    list_init(&p->idle);
    for (u32 i = 0; i < WINDOW; i++)
        list_push_back(&p->idle, &p->balls[i].msg.link);
    shard_add_hook(s, &p->hook, player_hook);
    s->turn_again = true;
    return ERR_NONE;
}

static bool player_drained(struct shard *s)
{
    return players[s->index].returned == MESSAGES;
}

static void messages_arrive_once_and_in_order(void **state)
{
    (void)state;
    char why[512] = "";
    fixture_init(&fix, 3, NULL);
    assert_int_equal(shard_threads_start(&fix.group, player_start, player_drained, why, sizeof why),
                     ERR_NONE);
    shard_threads_stop(&fix.group);
    shard_threads_join(&fix.group);
    for (u32 i = 0; i < 3; i++) {
        assert_int_equal(players[i].sent, MESSAGES);
        assert_int_equal(players[i].returned, MESSAGES);
    }
    fixture_free(&fix);
}

/* A sleeping shard must notice a single message promptly: many round trips one at a time. */
#define TRIPS 2000u
static struct ball pingpong;
static u32 trips;

static void ping_back(struct shard *at, struct msg *m);
static void ping_there(struct shard *at, struct msg *m)
{
    shard_send(at, 0, m, ping_back);
}
static void ping_back(struct shard *at, struct msg *m)
{
    if (++trips < TRIPS)
        shard_send(at, 1, m, ping_there);
}
static err ping_start(struct shard *s)
{
    if (s->index == 0)
        shard_send(s, 1, &pingpong.msg, ping_there);
    return ERR_NONE;
}
static bool ping_drained(struct shard *s)
{
    return s->index != 0 || trips == TRIPS;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    char why[512] = "";
    fixture_init(&fix, 2, NULL);
    u64 start = clock_mono_ns();
    assert_int_equal(shard_threads_start(&fix.group, ping_start, ping_drained, why, sizeof why),
                     ERR_NONE);
    shard_threads_stop(&fix.group);
    shard_threads_join(&fix.group);
    assert_int_equal(trips, TRIPS);
    print_message("round trip between sleeping shards: %" PRIu64 " ns\n",
                  (clock_mono_ns() - start) / TRIPS);
    fixture_free(&fix);
}

/* ---- background pool ---- */

#define JOBS 300u

struct test_job {
    struct bg_job job;
    u32 number;
};

static struct test_job jobs[BG_LANES][JOBS];
static u32 ran_in_lane[BG_LANES]; /* META and MISC have one thread each */
static u32 done_count;

static void job_run(struct bg_job *j)
{
    struct test_job *t = container_of(j, struct test_job, job);
    if (j->lane == BG_META || j->lane == BG_MISC)
        CHECK(ran_in_lane[j->lane]++ == t->number);
}

static void job_done(struct bg_job *j)
{
    CHECK(!j->busy);
    done_count++;
}

static err bg_start(struct shard *s)
{
    if (s->index != 1)
        return ERR_NONE;
    for (u32 i = 0; i < JOBS; i++)
        for (u32 lane = 0; lane < BG_LANES; lane++) {
            jobs[lane][i] = (struct test_job){ .number = i };
            bg_submit(s, &jobs[lane][i].job, (enum bg_lane)lane, job_run, job_done);
        }
    return ERR_NONE;
}

static bool bg_drained(struct shard *s)
{
    return s->index != 1 || done_count == JOBS * BG_LANES;
}

static void lanes_keep_their_order(void **state)
{
    (void)state;
    char why[512] = "";
    fixture_init(&fix, 2, NULL);
    fix.group.bg = bg_create(&fix.group, &fix.cfg);
    assert_int_equal(shard_threads_start(&fix.group, bg_start, bg_drained, why, sizeof why),
                     ERR_NONE);
    shard_threads_stop(&fix.group);
    shard_threads_join(&fix.group);
    bg_destroy(fix.group.bg);
    assert_int_equal(done_count, JOBS * BG_LANES);
    assert_int_equal(ran_in_lane[BG_META], JOBS);
    fixture_free(&fix);
}

/* ---- a start that fails ---- */

static err failing_start(struct shard *s)
{
    return s->index == 1 ? ERR_DISK_FULL : ERR_NONE;
}
static bool always_drained(struct shard *s)
{
    (void)s;
    return true;
}

static void failed_start_ends_all_threads(void **state)
{
    (void)state;
    char why[512] = "";
    fixture_init(&fix, 3, NULL);
    assert_int_equal(
        shard_threads_start(&fix.group, failing_start, always_drained, why, sizeof why),
        ERR_DISK_FULL);
    assert_non_null(strstr(why, "shard 1"));
    assert_null(fix.group.threads);
    fixture_free(&fix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_once_and_in_order),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(lanes_keep_their_order),
        cmocka_unit_test(failed_start_ends_all_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
