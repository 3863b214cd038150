/* Checksums made right over changed bytes, or no fuzzer would get past them. Nothing here trusts
 * the bytes: what has no place for its checksum is left alone. */
#ifndef LEAT_FUZZ_REPAIR_H
#define LEAT_FUZZ_REPAIR_H

#include "base.h"

/* The CRC of each batch that lies in p[0..len), one behind the other. */
void repair_batches(u8 *p, u32 len);
/* A block of a bundle: its batches, then its hash. */
void repair_block(u8 *p, u32 len);
/* An object: footer, index, and every block the index names (left alone: when it names none). */
void repair_bundle(u8 *p, u32 len);
/* The value of a key b/... */
void repair_registration(u8 *p, u32 len);
/* An object of the metadata's backup. */
void repair_backup(u8 *p, u32 len);
/* The block at the beginning of a WAL file. */
void repair_super(u8 *p, u32 len);
/* A frame with the bytes it has, and the batch in it. `room`: bytes from p on. */
void repair_frame(u8 *p, u64 room);

#endif
