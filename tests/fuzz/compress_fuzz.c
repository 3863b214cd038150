/* compress_decode on any bytes: never outside its bounds, never above its limit; and what decodes
 * must survive encoding and decoding again. Byte 0: codec (low 3 bits) and limit (bits 3-5). */
#include <stdlib.h>

#include "bytes.h"
#include "check.h"
#include "compress.h"
#include "mem.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct compressor *comp;
    struct bytes plain, packed, again;
    if (!comp)
        comp = compressor_new();
    if (size < 1 || size > MIB)
        return 0;
    enum codec codec = (enum codec)(data[0] & 7);
    u64 limit = (u64)16 << 2 * (data[0] >> 3 & 7); /* 16 bytes … 256 KiB */
    struct bytes in = bytes_of(data + 1, (u32)size - 1);
    err e = compress_decode(comp, codec, in, limit, &plain);
    if (e) {
        CHECK(e == ERR_CORRUPT_MESSAGE || e == ERR_MESSAGE_TOO_LARGE ||
              e == ERR_UNSUPPORTED_COMPRESSION_TYPE);
        return 0;
    }
    CHECK(plain.len <= limit);
    u8 *kept = mem_dup(plain.data, plain.len);
    plain.data = kept;
    CHECK(compress_encode(comp, codec, COMPRESS_LEVEL_DEFAULT, plain, &packed) == ERR_NONE);
    CHECK(compress_decode(comp, codec, packed, limit, &again) == ERR_NONE);
    CHECK(bytes_eq(plain, again));
    mem_free(kept);
    return 0;
}
