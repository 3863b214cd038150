/* A whole node in one process, again and again: the simulator's disk, network, stores, background
 * pool and clock under a fuzz target.
 *
 *     world_begin(seed, shards)     nothing is there; the configuration is a small node's
 *     world_put(image)              what lies on the disk and in the stores
 *     world_run(wants_stop, …)      a life: start, serve until asked to stop, stop
 *     world_end()                   everything is freed, also what a refused start left behind
 *
 * The same input gives the same course: all randomness comes from the seed. Memory that a node
 * has not freed after an orderly stop is reported as a leak, with where it came from. */
#ifndef LEAT_FUZZ_WORLD_H
#define LEAT_FUZZ_WORLD_H

#include "../sim/client.h"
#include "../sim/sim.h"

/* Once a process. The lives of world_base also warm up what the C library keeps. */
void world_init(void);
void world_begin(u64 seed, u32 shards);
/* LIFE_REFUSED and LIFE_KILLED (by FATAL) have a reason in world_why. */
enum life_end world_run(bool (*wants_stop)(void));
extern char world_why[1200];
/* `leaks` false: what is left behind is not looked at. */
void world_end(bool leaks);

/* ---- images ---- */
struct world_image;
/* As they would be found after a kill at this moment. Never freed. */
struct world_image *world_save(void);
void world_put(const struct world_image *image);

/* Images of a node that was used: topics "a" (3 partitions) and "b" (1, compacted), producers, a
 * group "g" of one member, offsets of "h", dynamic configurations. */
enum world_base {
    BASE_LOG,     /* killed; nothing is uploaded */
    BASE_BUNDLES, /* killed; most is uploaded, the log goes on */
    BASE_STOPPED, /* stopped in order */
    BASE_COUNT
};
extern const struct world_image *world_bases[BASE_COUNT];
extern struct uuid world_topic_ids[2]; /* of a and b */
/* A batch for a producer, as the base's producer would go on. The view stays. */
struct bytes world_batch(void);
void world_bases_make(void);

#endif
