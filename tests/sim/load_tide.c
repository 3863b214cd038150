/* The tide of a long seed: bursts of load with quiet times between, up to minutes in which only the
 * node itself works. Clients that are due in a quiet time act in the next burst. Other seeds have
 * none: load is always on. */
#include "load.h"

#define BURST_MIN_NS (50 * NS_PER_MS)
#define BURST_MAX_NS (3 * NS_PER_S)
#define EBB_MIN_NS NS_PER_S
#define EBB_MAX_NS (90 * NS_PER_S)
#define BATCHES_MAX 50u /* of a producer in a burst */

static bool on;
static u32 bursts;
static u64 begins, ends; /* of the burst that is or comes next */

void tide_begin(void)
{
    on = true;
    bursts = 1;
    begins = sim.now_ns;
    ends = begins + BURST_MAX_NS;
}

static u64 wait(void)
{
    if (!on || load_quiet || !topics_ready)
        return 0;
    while (sim.now_ns >= ends) {
        begins = ends + rnd_log(EBB_MIN_NS, EBB_MAX_NS);
        ends = begins + rnd_log(BURST_MIN_NS, BURST_MAX_NS);
        bursts++;
    }
    return begins > sim.now_ns ? begins - sim.now_ns : 0;
}

bool tide_is_low(void)
{
    return wait() > 0;
}

void load_after(u64 delay_ns, sim_fn fn, void *arg, u64 x)
{
    sim_after(delay_ns + wait(), fn, arg, x);
}

void tide_refill(struct tide_mark *m, u32 *batches)
{
    if (!on || m->burst == bursts || wait() > 0)
        return;
    m->burst = bursts;
    *batches = (u32)rnd_log(1, BATCHES_MAX);
}
