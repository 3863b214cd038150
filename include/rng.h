/* Randomness, one seeded generator per shard (xoshiro256**): never for secrets. The simulator
 * seeds from its seed, the real node from the kernel (rng_seed_os). */
#ifndef LEAT_RNG_H
#define LEAT_RNG_H

#include "base.h"

struct rng {
    u64 s[4];
};

void rng_init(struct rng *r, u64 seed);
/* A seed from the kernel's generator. Start-up only. */
u64 rng_seed_os(void);
u64 rng_next(struct rng *r);
/* Uniform in [0, bound), bound > 0. */
u64 rng_below(struct rng *r, u64 bound);
/* A random (version 4) UUID whose Kafka base64 form does not start with '-', as Kafka's own. */
struct uuid rng_uuid(struct rng *r);

#endif
