/* The turn of a shard: wait → completions → messages → timers → hooks. What was started in a
 * turn is submitted by the next one's io_turn, together with the wait: one system call a turn. */
#include "shard.h"

#include <string.h>

#include "check.h"
#include "clock.h"
#include "mailbox_int.h"

/* Budgets keep one source from starving the others: a full turn of each is well below 1 ms. */
#define TURN_COMPLETIONS 256u
#define TURN_MESSAGES 256u
#define TURN_TIMERS 256u

void shard_init(struct shard *s, struct shard_group *g, u32 index, const struct config *cfg,
                struct metrics *metrics, u64 seed)
{
    CHECK(g->count > 0 && g->count <= SHARDS_MAX && index < g->count);
    *s = (struct shard){ .index = index, .group = g, .cfg = cfg, .metrics = metrics };
    MAGIC_INIT(s, SHARD_MAGIC);
    rng_init(&s->rng, seed);
    timers_init(&s->timers);
    list_init(&s->hooks);
    s->mail = mailboxes_create(g->count);
    s->now_ns = clock_mono_ns();
    s->now_ms = clock_wall_ms();
    g->shards[index] = s;
}

void shard_free(struct shard *s)
{
    MAGIC_CHECK(s, SHARD_MAGIC);
    CHECK(s->io == NULL);
    s->group->shards[s->index] = NULL;
    mailboxes_destroy(s->mail);
    timers_free(&s->timers);
    MAGIC_POISON(s);
}

/* How long this turn may sleep. */
static u64 turn_wait_ns(const struct shard *s, u64 max_wait_ns)
{
    if (s->turn_again || max_wait_ns == 0 || mailboxes_pending(s))
        return 0;
    u64 next = timers_next(&s->timers);
    if (next == UINT64_MAX)
        return max_wait_ns;
    u64 now = clock_mono_ns();
    return next <= now ? 0 : MIN(next - now, max_wait_ns);
}

/* Tests may run a shard without metrics. */
static void count(struct shard *s, enum metric_id id, u64 n)
{
    if (s->metrics)
        metric_add(s->metrics, id, n);
}

static void turn_told(struct shard *s, u64 ns)
{
    if (!s->metrics)
        return;
    metric_add(s->metrics, M_turns, 1);
    metric_add(s->metrics, M_busy_us, ns / NS_PER_US);
    metric_observe(s->metrics, H_turn, ns / NS_PER_US);
}

/* What waited for bulk waits for a hook, so those lines come before what the next turn brings. */
static void turn_hooks(struct shard *s)
{
    s->hooks_ahead = false;
    memset(s->bulk, 0, sizeof s->bulk);
    list_for_safe(it, &s->hooks) {
        struct shard_hook *h = list_entry(it, struct shard_hook, link);
        h->fn(h);
    }
}

void shard_turn(struct shard *s, u64 max_wait_ns)
{
    MAGIC_CHECK(s, SHARD_MAGIC);
    u64 wait_ns = turn_wait_ns(s, max_wait_ns);
    s->turn_again = false;
    turn_told(s, clock_mono_ns() - s->now_ns);
    /* Sleep first and run completions after reading the clock, so that they see the time at
     * which they came. The second io_turn makes no system call when the first one found any. */
    if (wait_ns > 0)
        (void)io_turn(s->io, wait_ns, 0);
    s->now_ns = clock_mono_ns();
    s->now_ms = clock_wall_ms();
    s->hooks_ahead = true;
    u32 completions = io_turn(s->io, 0, TURN_COMPLETIONS);
    u32 messages = mailboxes_receive(s, TURN_MESSAGES);
    u32 fired = timers_fire(&s->timers, s->now_ns, TURN_TIMERS);
    if (completions >= TURN_COMPLETIONS || messages >= TURN_MESSAGES || fired >= TURN_TIMERS)
        s->turn_again = true;
    count(s, M_completions, completions);
    count(s, M_messages_in, messages);
    count(s, M_timers_fired, fired);
    turn_hooks(s);
    /* Sends run when they are submitted: in the next turn's time, not in its sleep. */
    if (!mailboxes_flush(s) || s->bulk[BULK_SEND] > 0)
        s->turn_again = true;
}

void shard_add_hook(struct shard *s, struct shard_hook *h, shard_hook_fn fn)
{
    h->fn = fn;
    list_push_back(&s->hooks, &h->link);
}

bool shard_bulk_spent(const struct shard *s, enum bulk kind)
{
    return s->bulk[kind] >= TURN_BULK_BYTES;
}

void shard_bulk_done(struct shard *s, enum bulk kind, u32 bytes)
{
    CHECK(!shard_bulk_spent(s, kind));
    s->bulk[kind] += bytes;
}
