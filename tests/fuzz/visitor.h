/* A life of the node of world.h, in which a client reads every partition, describes every group,
 * asks for configurations and producers, joins, writes, and then has the node stopped. */
#ifndef LEAT_FUZZ_VISITOR_H
#define LEAT_FUZZ_VISITOR_H

#include "base.h"

/* Was it served and stopped in order? Else world_why says why the node did not start. */
bool visitor_life(void);
/* Before world_end. */
void visitor_forget(void);

#endif
