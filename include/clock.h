/* Time. A link seam: the real one reads the kernel's clocks, the simulator's its own.
 * Durations and deadlines use clock_mono_ns; only what users see uses clock_wall_ms. */
#ifndef LEAT_CLOCK_H
#define LEAT_CLOCK_H

#include "base.h"

/* Nanoseconds since an arbitrary start; never goes back. */
u64 clock_mono_ns(void);
/* Milliseconds since 1970, as Kafka's timestamps; may jump. */
i64 clock_wall_ms(void);

#endif
