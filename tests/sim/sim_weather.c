/* The weather of a long seed: what the object store is like changes all the time, from before the
 * first life to the last one with faults. Half of the time it is fine, else one thing is wrong with
 * it, now and then two; or the store is away altogether, for seconds or for longer than the logs
 * have room. */
#include "sim.h"

#define TURN_MIN_NS NS_PER_S
#define TURN_MAX_NS (60 * NS_PER_S)
#define AWAY_MIN_NS (5 * NS_PER_S)
#define AWAY_MAX_NS (240 * NS_PER_S)

static bool on, held;

static void fine(void)
{
    struct sim_faults *f = &sim.faults;
    f->store_fail = f->store_slow = f->store_flip = f->store_outage = f->store_full = 0;
    f->store_lost = f->store_busy = f->store_stale = 0;
}

static void worse(void)
{
    struct sim_faults *f = &sim.faults;
    switch (rnd(7)) {
    case 0:
        f->store_fail = (u32)rnd_log(100, 6000);
        break;
    case 1:
        f->store_slow = (u32)rnd_log(500, 10000);
        break;
    case 2:
        f->store_flip = (u32)rnd_log(100, 3000);
        break;
    case 3:
        f->store_full = (u32)rnd_log(500, 10000);
        break;
    case 4:
        f->store_lost = (u32)rnd_log(500, 5000);
        break;
    case 5:
        f->store_busy = (u32)rnd_log(1000, 9500);
        break;
    default:
        f->store_stale = (u32)rnd_log(2000, 10000);
    }
}

static void turn(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!on)
        return;
    u64 lasts = rnd_log(TURN_MIN_NS, TURN_MAX_NS);
    if (!held) {
        STAT(weathers);
        fine();
        if (one_in(8)) {
            lasts = rnd_log(AWAY_MIN_NS, AWAY_MAX_NS);
            store_goes_away(lasts);
        } else if (!one_in(2)) {
            worse();
            if (one_in(4))
                worse();
        }
        TRACE("the weather changes, for %" PRIu64 " s", lasts / NS_PER_S);
    }
    sim_after(lasts, turn, NULL, 0);
}

void weather_begin(void)
{
    on = true;
    turn(NULL, 0);
}

void weather_hold(bool hold)
{
    held = hold;
}

void weather_end(void)
{
    on = false;
}
