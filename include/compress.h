/* Kafka's compression codecs behind one signature.
 *
 * A `struct compressor` holds the libraries' contexts (made on first use) and two buffers that
 * grow, one for decoding and one for encoding; it belongs to one thread, usually one per shard.
 * Results are views into these buffers and live until the next call of the same kind. Buffers
 * above COMPRESS_KEEP_BYTES are given back at the next call.
 *
 * Input is hostile: decoding never writes or allocates beyond max_bytes (plus the compressor's
 * fixed contexts), whatever sizes the input claims. A decode that must guess the size and
 * guessed low starts again with four times the room, so work is at most 4/3 of one decode.
 */
#ifndef LEAT_COMPRESS_H
#define LEAT_COMPRESS_H

#include "base.h"
#include "err.h"

/* The values are bits 0-2 of a batch's attributes. */
enum codec {
    CODEC_NONE = 0,
    CODEC_GZIP = 1,
    CODEC_SNAPPY = 2,
    CODEC_LZ4 = 3,
    CODEC_ZSTD = 4,
};
#define CODEC_COUNT 5
#define COMPRESS_KEEP_BYTES (4 * MIB)
/* "The codec's own default" for any codec, and the only level of none and snappy. */
#define COMPRESS_LEVEL_DEFAULT INT32_MIN

struct compressor;
struct compressor *compressor_new(void);
void compressor_free(struct compressor *c);

/* "none", "gzip", …; codec must be valid. */
const char *codec_name(enum codec codec);
/* The codec of a configuration word; false for any other word ("uncompressed" is not one here:
 * the topic config's "producer" and "uncompressed" are the caller's). */
bool codec_from_name(struct bytes name, enum codec *out);

/* Kafka's default: gzip -1, lz4 9, zstd 3. */
i32 compress_level_default(enum codec codec);
/* Is `level` allowed by Kafka's compression.<codec>.level? gzip 1..9 or -1, lz4 1..17,
 * zstd -131072..22. none and snappy: only COMPRESS_LEVEL_DEFAULT. */
bool compress_level_valid(enum codec codec, i32 level);

/* Decodes all of `in`. CODEC_NONE gives `in` itself. Snappy: raw or in the framing of
 * snappy-java, told apart by its magic. gzip, lz4, zstd: several members/frames in a row are
 * joined, skippable frames skipped; after a gzip or lz4 end, bytes that begin no further frame
 * are ignored, as the Java client does.
 * ERR_CORRUPT_MESSAGE: bad or truncated data. ERR_MESSAGE_TOO_LARGE: more than max_bytes.
 * ERR_UNSUPPORTED_COMPRESSION_TYPE: codec is none of the five. */
err compress_decode(struct compressor *c, enum codec codec, struct bytes in, u64 max_bytes,
                    struct bytes *out) MUST_USE;
/* Encodes as Kafka's Java client frames it (snappy in snappy-java's framing, lz4 in 64 KiB
 * independent blocks). `level` is a valid one or COMPRESS_LEVEL_DEFAULT. Lz4's 9 is Kafka's name
 * for the fast compressor; others are the high-compression levels.
 * ERR_MESSAGE_TOO_LARGE: the output could pass 2 GiB. */
err compress_encode(struct compressor *c, enum codec codec, i32 level, struct bytes in,
                    struct bytes *out) MUST_USE;

#endif
