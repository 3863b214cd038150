/* Every fuzz program: LEAT_CANARY=n in the environment plants the n-th defect of the fuzz targets
 * (include/plant.h). */
#include <stdlib.h>

#include "plant.h"

static __attribute__((constructor)) void canary_plant(void)
{
    const char *n = getenv("LEAT_CANARY");
    plant = n ? PLANT_ARRAY_SHORT - 1 + atoi(n) : PLANT_NONE;
}
