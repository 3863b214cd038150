/* CRC-32C (Castagnoli), the checksum of record batches. Running values chain:
 * crc32c(crc32c(0, a), b) == crc32c(0, a‖b). Pure functions, any thread, never fail.
 * x86-64 with SSE4.2 and PCLMULQDQ runs the fast kernels, with AVX-512 and VPCLMULQDQ the wide
 * ones for what is long, chosen when the program starts; anything else runs the portable twins,
 * which are public so that tests can hold one against the other. */
#ifndef LEAT_CRC32C_H
#define LEAT_CRC32C_H

#include "base.h"

u32 crc32c(u32 crc, const void *p, size_t n);
/* memcpy and checksum of the source in one pass. The ranges must not overlap. A copy of 16 KiB and
 * more leaves nothing of the target in the caches. */
u32 crc32c_copy(u32 crc, void *dst, const void *src, size_t n);
/* The CRC of a‖b from crc_a = crc32c(0, a), crc_b = crc32c(0, b) and the length of b. */
u32 crc32c_combine(u32 crc_a, u32 crc_b, u64 len_b);

/* The portable twins. */
u32 crc32c_soft(u32 crc, const void *p, size_t n);
u32 crc32c_copy_soft(u32 crc, void *dst, const void *src, size_t n);
u32 crc32c_combine_soft(u32 crc_a, u32 crc_b, u64 len_b);

enum crc32c_kernel { CRC32C_SOFT, CRC32C_FAST, CRC32C_WIDE };
/* From now on the best kernels that this machine has and that are not better than `at_most`;
 * returns which. For the tests: while no other thread sums. */
enum crc32c_kernel crc32c_use(enum crc32c_kernel at_most);

#endif
