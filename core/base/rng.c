/* xoshiro256**, seeded through splitmix64 so that neighbouring seeds give unrelated streams. */
#include "rng.h"

#include <errno.h>
#include <sys/random.h>

#include "bytes.h"
#include "check.h"

static u64 rng_splitmix(u64 *state)
{
    u64 v = *state += 0x9e3779b97f4a7c15u;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

void rng_init(struct rng *r, u64 seed)
{
    for (u32 i = 0; i < ARRAY_COUNT(r->s); i++)
        r->s[i] = rng_splitmix(&seed);
    CHECK(r->s[0] | r->s[1] | r->s[2] | r->s[3]); /* all zero would stay zero for ever */
}

u64 rng_seed_os(void)
{
    u64 seed = 0;
    ssize_t n;
    do
        n = getrandom(&seed, sizeof seed, 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof seed)
        FATAL("what=\"getrandom failed\" errno=%d", errno);
    return seed;
}

static u64 rng_rotate(u64 v, u32 bits)
{
    return v << bits | v >> (64 - bits);
}

u64 rng_next(struct rng *r)
{
    u64 *s = r->s;
    u64 result = rng_rotate(s[1] * 5, 7) * 9;
    u64 t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotate(s[3], 45);
    return result;
}

u64 rng_below(struct rng *r, u64 bound)
{
    CHECK(bound > 0);
    /* The 2^64 mod bound smallest values are thrown away: what is left divides evenly. */
    u64 skip = -bound % bound;
    u64 v;
    do
        v = rng_next(r);
    while (v < skip);
    return v % bound;
}

struct uuid rng_uuid(struct rng *r)
{
    struct uuid id;
    do {
        put_be64(id.b, rng_next(r));
        put_be64(id.b + 8, rng_next(r));
        id.b[6] = (u8)((id.b[6] & 0x0f) | 0x40);
        id.b[8] = (u8)((id.b[8] & 0x3f) | 0x80);
        /* URL-safe base64 writes the top six bits 62 as '-', which looks like an option. */
    } while (id.b[0] >> 2 == 62);
    return id;
}
