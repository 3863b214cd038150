/* Every fuzz program: LEAT_PLANT=n in the environment plants defect n (include/plant.h). */
#include <stdlib.h>

#include "plant.h"

static __attribute__((constructor)) void canary_plant(void)
{
    const char *n = getenv("LEAT_PLANT");
    plant = n ? atoi(n) : PLANT_NONE;
}
