/* Shared by batch*.c only. */
#ifndef LEAT_BATCH_INT_H
#define LEAT_BATCH_INT_H

#include "batch.h"

/* Writes all header fields of `fields` (its data, bytes and crc aside) to data[0..61) and the
 * CRC of data[21..bytes). The payload must be in place. */
void batch_seal(u8 *data, u32 bytes, const struct batch *fields);
/* batch_builder_add_at with headers that are encoded already (without their count). */
err batch_builder_put(struct batch_builder *b, i32 offset_delta, i64 timestamp, struct bytes key,
                      struct bytes value, struct bytes raw_headers, i32 header_count) MUST_USE;

#endif
