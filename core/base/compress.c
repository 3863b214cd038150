/* Kafka's codecs on libdeflate, snappy, lz4 and zstd. See compress.h for the contract.
 *
 * Decoding into a buffer of unknown size: `struct sink` is the growing output. A codec decodes
 * into what room there is; when that is too little, sink_grow makes it four times as large (at
 * most limit + 1 bytes) and the codec starts its member or frame again. Room comes first from
 * what the last call left behind, then from what the input claims, and a claim counts only up
 * to COMPRESS_CLAIM_RATIO times the input, so that a lying header costs an attacker bytes.
 *
 * Invariants: sink.used <= sink.room <= limit + 1; more than `limit` bytes of output are always
 * ERR_MESSAGE_TOO_LARGE, never a short result.
 *
 * Crafted frames can't make zstd take a window of their own size, because one-shot decoding
 * uses the output as its window; legacy zstd formats are refused by their magic. An lz4 frame
 * makes its context hold up to two 4 MiB blocks, the largest its header can ask for.
 */
#include "compress.h"

#include <libdeflate.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "bytes.h"
#include "check.h"
#include "mem.h"
#include "plant.h"

#define COMPRESSOR_MAGIC 0x434f4d50u
/* Above this, sizes claimed by the input are not believed until decoding gets there. */
#define COMPRESS_CLAIM_RATIO 64
#define COMPRESS_ROOM_MIN (64 * KIB)
/* The default chunk of snappy-java's framing. */
#define SNAPPY_CHUNK_BYTES (32 * KIB)
#define SNAPPY_HEADER_BYTES 16
/* Three input bytes give at most 64 output bytes. */
#define SNAPPY_RATIO_MAX 22
#define ZSTD_FRAME_MAGIC 0xfd2fb528u
#define LZ4_FRAME_MAGIC 0x184d2204u
#define SKIPPABLE_MAGIC 0x184d2a50u
#define SKIPPABLE_MASK 0xfffffff0u

struct sink {
    u8 *data;
    u64 room;
    u64 used;
    u64 limit;
};

struct compressor {
    u32 magic;
    i32 deflate_level;
    struct sink decoded;
    u8 *encoded;
    u64 encoded_room;
    struct libdeflate_decompressor *inflate;
    struct libdeflate_compressor *deflate;
    LZ4F_dctx *lz4_decoder;
    LZ4F_cctx *lz4_encoder;
    ZSTD_DCtx *zstd_decoder;
    ZSTD_CCtx *zstd_encoder;
};

static const char *const codec_names[CODEC_COUNT] = { "none", "gzip", "snappy", "lz4", "zstd" };
static const u8 snappy_java_magic[8] = { 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0 };

/* ---- life ---- */

struct compressor *compressor_new(void)
{
    struct compressor *c = MEM_NEW(struct compressor);
    MAGIC_INIT(c, COMPRESSOR_MAGIC);
    return c;
}

void compressor_free(struct compressor *c)
{
    if (!c)
        return;
    MAGIC_CHECK(c, COMPRESSOR_MAGIC);
    mem_free(c->decoded.data);
    mem_free(c->encoded);
    libdeflate_free_decompressor(c->inflate);
    libdeflate_free_compressor(c->deflate);
    LZ4F_freeDecompressionContext(c->lz4_decoder);
    LZ4F_freeCompressionContext(c->lz4_encoder);
    ZSTD_freeDCtx(c->zstd_decoder);
    ZSTD_freeCCtx(c->zstd_encoder);
    MAGIC_POISON(c);
    mem_free(c);
}

static void context_made(const void *context)
{
    if (unlikely(!context))
        FATAL("what=\"out of memory\" where=\"compression context\"");
}

/* ---- names and levels ---- */

const char *codec_name(enum codec codec)
{
    CHECK((u32)codec < CODEC_COUNT);
    return codec_names[codec];
}

bool codec_from_name(struct bytes name, enum codec *out)
{
    for (u32 i = 0; i < CODEC_COUNT; i++) {
        if (bytes_eq_str(name, codec_names[i])) {
            *out = (enum codec)i;
            return true;
        }
    }
    return false;
}

i32 compress_level_default(enum codec codec)
{
    switch (codec) {
    case CODEC_GZIP:
        return -1;
    case CODEC_LZ4:
        return 9;
    case CODEC_ZSTD:
        return 3;
    case CODEC_NONE:
    case CODEC_SNAPPY:
        break;
    }
    return COMPRESS_LEVEL_DEFAULT;
}

bool compress_level_valid(enum codec codec, i32 level)
{
    switch (codec) {
    case CODEC_GZIP:
        return level == -1 || (level >= 1 && level <= 9);
    case CODEC_LZ4:
        return level >= 1 && level <= 17;
    case CODEC_ZSTD:
        return level >= -131072 && level <= 22;
    case CODEC_NONE:
    case CODEC_SNAPPY:
        break;
    }
    return level == COMPRESS_LEVEL_DEFAULT;
}

/* ---- the growing output ---- */

/* Starts anew with room for what is likely to come. */
static void sink_begin(struct sink *s, u64 limit, u64 in_bytes, u64 claimed)
{
    s->used = 0;
    s->limit = MIN(limit, (u64)INT32_MAX - 1);
    u64 want = MIN(claimed, MAX(in_bytes * COMPRESS_CLAIM_RATIO, COMPRESS_ROOM_MIN));
    want = MIN(MAX(want, COMPRESS_ROOM_MIN), s->limit + 1);
    if (s->room > COMPRESS_KEEP_BYTES || s->room < want) {
        mem_free(s->data);
        s->data = mem_alloc(want);
        s->room = want;
    }
}

/* Four times the room; false at the limit. */
static bool sink_grow(struct sink *s)
{
    u64 most = s->limit + 1;
    if (s->room >= most)
        return false;
    u64 want = MIN(s->room * 4, most);
    s->data = mem_realloc(s->data, want);
    s->room = want;
    return true;
}

static bool sink_need(struct sink *s, u64 more)
{
    if (more > s->limit || s->used + more > s->limit)
        return false;
    while (s->room - s->used < more)
        if (!sink_grow(s))
            return false;
    return true;
}

static err sink_end(const struct sink *s, struct bytes *out)
{
    CHECK(s->used <= s->room);
    if (s->used > s->limit)
        return ERR_MESSAGE_TOO_LARGE;
    *out = bytes_of(s->data, (u32)s->used);
    return ERR_NONE;
}

/* ---- decoding ---- */

/* A gzip stream is a row of members; each ends with its size modulo 2^32. */
static err gzip_decode(struct compressor *c, struct bytes in)
{
    struct sink *s = &c->decoded;
    if (in.len < 18)
        return ERR_CORRUPT_MESSAGE;
    if (!c->inflate)
        context_made(c->inflate = libdeflate_alloc_decompressor());
    for (u32 at = 0; at < in.len;) {
        if (at > 0 && (in.len - at < 2 || get_be16(in.data + at) != 0x1f8b))
            break;
        size_t eaten = 0, made = 0;
        enum libdeflate_result r =
            libdeflate_gzip_decompress_ex(c->inflate, in.data + at, in.len - at, s->data + s->used,
                                          s->room - s->used, &eaten, &made);
        if (r == LIBDEFLATE_INSUFFICIENT_SPACE) {
            if (!sink_grow(s))
                return ERR_MESSAGE_TOO_LARGE;
            continue;
        }
        if (r != LIBDEFLATE_SUCCESS || eaten == 0)
            return ERR_CORRUPT_MESSAGE;
        CHECK(eaten <= in.len - at);
        at += (u32)eaten;
        s->used += made;
    }
    return ERR_NONE;
}

static err snappy_decode_block(struct sink *s, const u8 *p, u32 len)
{
    size_t bytes = 0;
    if (snappy_uncompressed_length((const char *)p, len, &bytes) != SNAPPY_OK)
        return ERR_CORRUPT_MESSAGE;
    if (bytes > (u64)len * SNAPPY_RATIO_MAX)
        return ERR_CORRUPT_MESSAGE;
    if (!sink_need(s, bytes))
        return ERR_MESSAGE_TOO_LARGE;
    if (snappy_uncompress((const char *)p, len, (char *)s->data + s->used, &bytes) != SNAPPY_OK)
        return ERR_CORRUPT_MESSAGE;
    s->used += bytes;
    return ERR_NONE;
}

/* snappy-java: magic, two versions, then chunks of big-endian length and raw snappy. Streams may
 * follow each other: then the magic stands where a chunk's length would. */
static err snappy_decode(struct compressor *c, struct bytes in)
{
    struct sink *s = &c->decoded;
    u32 at = 0;
    bool framed = in.len >= SNAPPY_HEADER_BYTES && memcmp(in.data, snappy_java_magic, 8) == 0;
    if (!framed)
        return snappy_decode_block(s, in.data, in.len);
    while (at < in.len) {
        u32 left = in.len - at;
        if (left >= SNAPPY_HEADER_BYTES && memcmp(in.data + at, snappy_java_magic, 8) == 0) {
            if ((i32)get_be32(in.data + at + 8) < 1)
                return ERR_CORRUPT_MESSAGE;
            at += SNAPPY_HEADER_BYTES;
            continue;
        }
        if (left < 4)
            return ERR_CORRUPT_MESSAGE;
        u32 bytes = get_be32(in.data + at);
        at += 4;
        if (bytes > in.len - at)
            return ERR_CORRUPT_MESSAGE;
        err e = snappy_decode_block(s, in.data + at, bytes);
        if (e)
            return e;
        at += bytes;
    }
    return ERR_NONE;
}

static bool is_skippable(const u8 *p)
{
    return (get_le32(p) & SKIPPABLE_MASK) == SKIPPABLE_MAGIC;
}

static err lz4_decode_frames(LZ4F_dctx *d, struct sink *s, struct bytes in)
{
    u32 at = 0;
    bool inside = true; /* of a frame: the input must not end here */
    while (inside || at < in.len) {
        if (!inside) {
            const u8 *p = in.data + at;
            if (in.len - at < 4 || (get_le32(p) != LZ4_FRAME_MAGIC && !is_skippable(p)))
                break;
        }
        if (s->used == s->room && !sink_grow(s))
            return ERR_MESSAGE_TOO_LARGE;
        size_t eaten = in.len - at, made = s->room - s->used;
        size_t r = LZ4F_decompress(d, s->data + s->used, &made, in.data + at, &eaten, NULL);
        if (LZ4F_isError(r))
            return ERR_CORRUPT_MESSAGE;
        at += (u32)eaten;
        s->used += made;
        inside = r != 0;
        if (inside && eaten == 0 && made == 0)
            return ERR_CORRUPT_MESSAGE; /* wants more than there is */
    }
    return ERR_NONE;
}

static err lz4_decode(struct compressor *c, struct bytes in)
{
    if (in.len < 7)
        return ERR_CORRUPT_MESSAGE;
    if (!c->lz4_decoder) {
        LZ4F_createDecompressionContext(&c->lz4_decoder, LZ4F_VERSION);
        context_made(c->lz4_decoder);
    }
    err e = lz4_decode_frames(c->lz4_decoder, &c->decoded, in);
    if (e) {
        /* A reset is not enough: liblz4 1.9 keeps the content bytes still due of the frame that
         * broke off, and refuses every later frame that does not state its size. */
        LZ4F_freeDecompressionContext(c->lz4_decoder);
        c->lz4_decoder = NULL;
    }
    return e;
}

/* Frames one after the other, current format or skippable only; adds up the sizes they claim. */
static bool zstd_scan(struct bytes in, u64 *claimed)
{
    *claimed = 0;
    for (u32 at = 0; at < in.len;) {
        const u8 *p = in.data + at;
        u32 left = in.len - at;
        if (left < 4 || (get_le32(p) != ZSTD_FRAME_MAGIC && !is_skippable(p)))
            return false;
        size_t frame = ZSTD_findFrameCompressedSize(p, left);
        if (ZSTD_isError(frame) || frame == 0 || frame > left)
            return false;
        u64 content = ZSTD_getFrameContentSize(p, left);
        if (content == ZSTD_CONTENTSIZE_UNKNOWN)
            content = frame * 4;
        if (content == ZSTD_CONTENTSIZE_ERROR)
            return false;
        *claimed = MIN(*claimed + MIN(content, GIB), GIB);
        at += (u32)frame;
    }
    return in.len > 0;
}

static err zstd_decode(struct compressor *c, struct bytes in)
{
    struct sink *s = &c->decoded;
    if (!c->zstd_decoder)
        context_made(c->zstd_decoder = ZSTD_createDCtx());
    for (;;) {
        size_t r = ZSTD_decompressDCtx(c->zstd_decoder, s->data, s->room, in.data, in.len);
        if (!ZSTD_isError(r)) {
            s->used = r;
            return ERR_NONE;
        }
        if (ZSTD_getErrorCode(r) != ZSTD_error_dstSize_tooSmall)
            return ERR_CORRUPT_MESSAGE;
        if (!sink_grow(s))
            return ERR_MESSAGE_TOO_LARGE;
    }
}

err compress_decode(struct compressor *c, enum codec codec, struct bytes in, u64 max_bytes,
                    struct bytes *out)
{
    MAGIC_CHECK(c, COMPRESSOR_MAGIC);
    *out = (struct bytes){ NULL, 0 };
    u64 claimed = (u64)in.len * 4;
    if (codec == CODEC_NONE) {
        if (in.len > max_bytes && !PLANTED(PLANT_DECODED_LIMIT))
            return ERR_MESSAGE_TOO_LARGE;
        *out = in;
        return ERR_NONE;
    }
    if (codec == CODEC_GZIP && in.len >= 18)
        claimed = get_le32(in.data + in.len - 4);
    if (codec == CODEC_ZSTD && !zstd_scan(in, &claimed))
        return ERR_CORRUPT_MESSAGE;
    err e = ERR_UNSUPPORTED_COMPRESSION_TYPE;
    if ((u32)codec >= CODEC_COUNT)
        return e;
    sink_begin(&c->decoded, max_bytes, in.len, claimed);
    switch (codec) {
    case CODEC_NONE:
        break;
    case CODEC_GZIP:
        e = gzip_decode(c, in);
        break;
    case CODEC_SNAPPY:
        e = snappy_decode(c, in);
        break;
    case CODEC_LZ4:
        e = lz4_decode(c, in);
        break;
    case CODEC_ZSTD:
        e = zstd_decode(c, in);
        break;
    }
    return e ? e : sink_end(&c->decoded, out);
}

/* ---- encoding ---- */

static u8 *encode_room(struct compressor *c, u64 bytes)
{
    if (c->encoded_room < bytes || c->encoded_room > COMPRESS_KEEP_BYTES) {
        mem_free(c->encoded);
        c->encoded = mem_alloc(MAX(bytes, COMPRESS_ROOM_MIN));
        c->encoded_room = MAX(bytes, COMPRESS_ROOM_MIN);
    }
    return c->encoded;
}

static u64 gzip_encode(struct compressor *c, i32 level, struct bytes in)
{
    level = level == -1 ? 6 : level;
    if (c->deflate && c->deflate_level != level) {
        libdeflate_free_compressor(c->deflate);
        c->deflate = NULL;
    }
    if (!c->deflate)
        context_made(c->deflate = libdeflate_alloc_compressor(level));
    c->deflate_level = level;
    u64 bound = libdeflate_gzip_compress_bound(c->deflate, in.len);
    u8 *out = encode_room(c, bound);
    u64 made = libdeflate_gzip_compress(c->deflate, in.data, in.len, out, bound);
    CHECK(made > 0);
    return made;
}

static u64 snappy_encode(struct compressor *c, struct bytes in)
{
    u64 chunks = (in.len + SNAPPY_CHUNK_BYTES - 1) / SNAPPY_CHUNK_BYTES;
    u64 chunk_bound = 4 + snappy_max_compressed_length(SNAPPY_CHUNK_BYTES);
    u8 *out = encode_room(c, SNAPPY_HEADER_BYTES + chunks * chunk_bound);
    memcpy(out, snappy_java_magic, 8);
    put_be32(out + 8, 1);  /* version */
    put_be32(out + 12, 1); /* oldest reader that understands it */
    u64 used = SNAPPY_HEADER_BYTES;
    for (u32 at = 0; at < in.len; at += SNAPPY_CHUNK_BYTES) {
        size_t made = chunk_bound - 4;
        CHECK(snappy_compress((const char *)in.data + at, MIN(in.len - at, SNAPPY_CHUNK_BYTES),
                              (char *)out + used + 4, &made) == SNAPPY_OK);
        put_be32(out + used, (u32)made);
        used += 4 + made;
    }
    return used;
}

static u64 lz4_encode(struct compressor *c, i32 level, struct bytes in)
{
    LZ4F_preferences_t prefs = { .autoFlush = 1 };
    prefs.frameInfo.blockSizeID = LZ4F_max64KB;
    prefs.frameInfo.blockMode = LZ4F_blockIndependent; /* the Java client knows no other */
    prefs.compressionLevel = level == 9 ? 0 : MAX(3, MIN(level, 12));
    if (!c->lz4_encoder) {
        LZ4F_createCompressionContext(&c->lz4_encoder, LZ4F_VERSION);
        context_made(c->lz4_encoder);
    }
    u64 bound = LZ4F_compressFrameBound(in.len, &prefs) + LZ4F_HEADER_SIZE_MAX;
    u8 *out = encode_room(c, bound);
    size_t head = LZ4F_compressBegin(c->lz4_encoder, out, bound, &prefs);
    CHECK(!LZ4F_isError(head));
    size_t body =
        LZ4F_compressUpdate(c->lz4_encoder, out + head, bound - head, in.data, in.len, NULL);
    CHECK(!LZ4F_isError(body));
    size_t tail = LZ4F_compressEnd(c->lz4_encoder, out + head + body, bound - head - body, NULL);
    CHECK(!LZ4F_isError(tail));
    return head + body + tail;
}

static u64 zstd_encode(struct compressor *c, i32 level, struct bytes in)
{
    if (!c->zstd_encoder)
        context_made(c->zstd_encoder = ZSTD_createCCtx());
    ZSTD_CCtx_reset(c->zstd_encoder, ZSTD_reset_session_and_parameters);
    CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd_encoder, ZSTD_c_compressionLevel, level)));
    u64 bound = ZSTD_compressBound(in.len);
    u8 *out = encode_room(c, bound);
    size_t made = ZSTD_compress2(c->zstd_encoder, out, bound, in.data, in.len);
    CHECK(!ZSTD_isError(made));
    return made;
}

err compress_encode(struct compressor *c, enum codec codec, i32 level, struct bytes in,
                    struct bytes *out)
{
    MAGIC_CHECK(c, COMPRESSOR_MAGIC);
    CHECK((u32)codec < CODEC_COUNT);
    *out = (struct bytes){ NULL, 0 };
    if (in.len > GIB) /* every codec's bound of 1 GiB is below 2 GiB */
        return ERR_MESSAGE_TOO_LARGE;
    if (level == COMPRESS_LEVEL_DEFAULT)
        level = compress_level_default(codec);
    CHECK(compress_level_valid(codec, level));
    static const u8 nothing;
    if (!in.data)
        in.data = &nothing;
    u64 made = 0;
    switch (codec) {
    case CODEC_NONE:
        *out = in;
        return ERR_NONE;
    case CODEC_GZIP:
        made = gzip_encode(c, level, in);
        break;
    case CODEC_SNAPPY:
        made = snappy_encode(c, in);
        break;
    case CODEC_LZ4:
        made = lz4_encode(c, level, in);
        break;
    case CODEC_ZSTD:
        made = zstd_encode(c, level, in);
        break;
    }
    CHECK(made <= c->encoded_room);
    *out = bytes_of(c->encoded, (u32)made);
    return ERR_NONE;
}
