#ifndef LEAT_SIM_RUN_H
#define LEAT_SIM_RUN_H
#include "base.h"

/* One seed, from beginning to end; ends the process when a promise is broken. Once a process. */
void seed_run(u64 seed);

#endif
