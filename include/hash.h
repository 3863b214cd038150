/* XXH3, 64 bits: checksum of our own disk formats and hash of in-memory tables. Stable: the
 * value of given bytes and seed never changes between versions. Pure, any thread. */
#ifndef LEAT_HASH_H
#define LEAT_HASH_H

#include "base.h"

u64 hash_bytes(const void *p, size_t n);
u64 hash_bytes_seeded(const void *p, size_t n, u64 seed);
/* Of a view; NULL hashes as empty. */
u64 hash_view(struct bytes b);
u64 hash_str(const char *s);
u64 hash_uuid(struct uuid id);
/* 128 bits (XXH3-128), for where a collision would lose data: with a seed nobody knows. */
struct hash128 {
    u64 lo, hi;
};
struct hash128 hash_bytes_128(const void *p, size_t n, u64 seed);
/* A bijective mixer for integer keys. */
u64 hash_u64(u64 v);

/* In pieces: init, any number of updates, value. The value equals hash_bytes_seeded of the
 * pieces joined; hash_stream_value may be asked at any time and changes nothing. */
struct hash_stream {
    _Alignas(64) u8 opaque[576];
};
void hash_stream_init(struct hash_stream *h, u64 seed);
void hash_stream_update(struct hash_stream *h, const void *p, size_t n);
u64 hash_stream_value(const struct hash_stream *h);

#endif
