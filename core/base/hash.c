/* XXH3 from libxxhash, inlined so that short keys cost no call into the library. */
#include "hash.h"

#include <string.h>

#include "check.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wundef"
#define XXH_INLINE_ALL
#include <xxhash.h>
#pragma GCC diagnostic pop

_Static_assert(sizeof(XXH3_state_t) <= sizeof(struct hash_stream), "hash.h: opaque too small");
_Static_assert(_Alignof(XXH3_state_t) <= _Alignof(struct hash_stream), "hash.h: alignment");

u64 hash_bytes(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

u64 hash_bytes_seeded(const void *p, size_t n, u64 seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

u64 hash_view(struct bytes b)
{
    return XXH3_64bits(b.data, b.len);
}

u64 hash_str(const char *s)
{
    return XXH3_64bits(s, strlen(s));
}

u64 hash_uuid(struct uuid id)
{
    return XXH3_64bits(id.b, sizeof id.b);
}

struct hash128 hash_bytes_128(const void *p, size_t n, u64 seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);
    return (struct hash128){ h.low64, h.high64 };
}

u64 hash_u64(u64 v)
{
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

void hash_stream_init(struct hash_stream *h, u64 seed)
{
    XXH3_state_t *s = (XXH3_state_t *)(void *)h->opaque;
    XXH3_INITSTATE(s);
    CHECK(XXH3_64bits_reset_withSeed(s, seed) == XXH_OK);
}

void hash_stream_update(struct hash_stream *h, const void *p, size_t n)
{
    CHECK(XXH3_64bits_update((XXH3_state_t *)(void *)h->opaque, p, n) == XXH_OK);
}

u64 hash_stream_value(const struct hash_stream *h)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)h->opaque);
}
