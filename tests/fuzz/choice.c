/* The main of targets of several parts. */
#include "choice.h"

#include <stdlib.h>
#include <string.h>

int fuzz_choice(const u8 *in, size_t size, u32 count, void (*run)(u32 choice, u8 *p, u32 len))
{
    if (size < 1 || size > MIB)
        return 0;
    u32 len = (u32)size - 1;
    u8 *p = malloc(len ? len : 1);
    memcpy(p, in + 1, len);
    run(in[0] % count, p, len);
    free(p);
    return 0;
}
