#ifndef LEAT_SIM_RUN_H
#define LEAT_SIM_RUN_H
#include "clock.h"

/* A seed with sim.long_lived lives for at least as long, in simulated time. */
#define SIM_LONG_NS (600 * NS_PER_S)

/* One seed, from beginning to end; ends the process when a promise is broken. Once a process. */
void seed_run(u64 seed);

#endif
