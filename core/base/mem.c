/* The only file that calls malloc. See mem.h for the contract.
 *
 * Arena blocks form a stack; a request that needs more than an ordinary block gets one of its
 * own size. arena_reset keeps one ordinary block, so a connection's steady state allocates
 * nothing.
 */
#include "mem.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

static u64 mem_used_bytes; /* relaxed atomic: a statistic */

static void mem_count(void *p, bool add)
{
    u64 n = malloc_usable_size(p);
    __atomic_fetch_add(&mem_used_bytes, add ? n : -n, __ATOMIC_RELAXED);
}

void *mem_alloc(size_t size)
{
    CHECK(size > 0);
    void *p = calloc(1, size);
    if (unlikely(!p))
        FATAL("what=\"out of memory\" bytes=%zu used=%" PRIu64
              " remedy=\"lower the memory.* keys or give the process more memory\"",
              size, mem_used());
    mem_count(p, true);
    return p;
}

void *mem_realloc(void *p, size_t size)
{
    CHECK(size > 0);
    if (p)
        mem_count(p, false);
    void *q = realloc(p, size);
    if (unlikely(!q))
        FATAL("what=\"out of memory\" bytes=%zu used=%" PRIu64, size, mem_used());
    mem_count(q, true);
    return q;
}

void *mem_alloc_aligned(size_t align, size_t size)
{
    CHECK(size > 0);
    CHECK(size % align == 0);
    void *p = aligned_alloc(align, size);
    if (unlikely(!p))
        FATAL("what=\"out of memory\" bytes=%zu used=%" PRIu64, size, mem_used());
    mem_count(p, true);
    return p;
}

void mem_free(void *p)
{
    if (!p)
        return;
    mem_count(p, false);
    free(p);
}

char *mem_strndup(struct bytes b)
{
    char *s = mem_alloc((size_t)b.len + 1);
    if (b.len)
        memcpy(s, b.data, b.len);
    return s;
}

u8 *mem_dup(const void *p, size_t len)
{
    u8 *q = mem_alloc(len + 1);
    if (len)
        memcpy(q, p, len);
    return q;
}

u64 mem_used(void)
{
    return __atomic_load_n(&mem_used_bytes, __ATOMIC_RELAXED);
}

void mem_limit_arenas(u32 n)
{
    (void)mallopt(M_ARENA_MAX, (int)n);
}

#define HUGE_BYTES (2 * MIB)

void *mem_map(u64 bytes, bool huge)
{
    u64 want = align_up(bytes, huge ? HUGE_BYTES : 4096);
    u64 slack = huge ? HUGE_BYTES : 0;
    u8 *p = mmap(NULL, want + slack, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (!huge)
        return p;
    /* Align to a huge page and give back both ends. */
    u8 *q = (u8 *)align_up((uintptr_t)p, HUGE_BYTES);
    if (q > p)
        munmap(p, (size_t)(q - p));
    if (q + want < p + want + slack)
        munmap(q + want, (size_t)(p + slack - q));
    madvise(q, want, MADV_HUGEPAGE); /* advice: a kernel without it still works */
    return q;
}

void mem_touch(void *p, u64 bytes)
{
    volatile u8 *b = p;
    for (u64 at = 0; at < bytes; at += 4096)
        b[at] = 0;
}

void mem_unmap(void *p, u64 bytes)
{
    MEM_UNPOISON(p, bytes);
    CHECK(munmap(p, align_up(bytes, 4096)) == 0);
}

void mem_release_pages(void *p, u64 bytes)
{
    CHECK(madvise(p, bytes, MADV_DONTNEED) == 0);
}

/* ---- arena ---- */

/* Behind each allocation, where a sanitizer watches: bytes that nobody may touch. */
#ifdef MEM_POISONING
#define RED_ZONE 16u
#else
#define RED_ZONE 0u
#endif

struct arena_block {
    struct arena_block *older;
    u64 bytes; /* of the payload */
    _Alignas(16) u8 payload[];
};

void arena_init(struct arena *a, u32 block_bytes, u64 limit_bytes)
{
    *a = (struct arena){ .block_bytes = block_bytes, .limit_bytes = limit_bytes };
}

static bool arena_grow(struct arena *a, u64 size)
{
    u64 bytes = MAX(size, (u64)a->block_bytes);
    if (size > a->limit_bytes || a->used_bytes + bytes > a->limit_bytes + a->block_bytes)
        return false;
    struct arena_block *b = mem_alloc(sizeof *b + bytes);
    b->older = a->blocks;
    b->bytes = bytes;
    a->blocks = b;
    a->used_bytes += bytes;
    a->next = b->payload;
    a->end = b->payload + bytes;
    MEM_POISON(b->payload, bytes);
    return true;
}

void *arena_alloc(struct arena *a, u64 size)
{
    if (unlikely(size > a->limit_bytes))
        return NULL;
    u64 room = align_up(size, 16) + RED_ZONE;
    if (unlikely(!a->next || room > (u64)(a->end - a->next)) && !arena_grow(a, room))
        return NULL;
    u8 *p = a->next;
    a->next += room;
    MEM_UNPOISON(p, size);
    memset(p, 0, size);
    return p;
}

struct bytes arena_copy(struct arena *a, struct bytes b)
{
    u8 *p = arena_alloc(a, b.len);
    if (!p || !b.data)
        return (struct bytes){ NULL, 0 };
    memcpy(p, b.data, b.len);
    return (struct bytes){ p, b.len };
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap, ap2;
    va_start(ap, fmt);
    va_copy(ap2, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : arena_alloc(a, (u64)n + 1);
    if (s)
        vsnprintf(s, (size_t)n + 1, fmt, ap2);
    va_end(ap2);
    return s;
}

void arena_reset(struct arena *a)
{
    struct arena_block *keep = NULL;
    while (a->blocks) {
        struct arena_block *b = a->blocks;
        a->blocks = b->older;
        if (!keep && b->bytes == a->block_bytes)
            keep = b;
        else
            mem_free(b);
    }
    a->next = a->end = NULL;
    a->used_bytes = 0;
    if (keep) {
        keep->older = NULL;
        a->blocks = keep;
        a->used_bytes = keep->bytes;
        a->next = keep->payload;
        a->end = keep->payload + keep->bytes;
        MEM_POISON(keep->payload, keep->bytes);
    }
}

void arena_free(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *b = a->blocks;
        a->blocks = b->older;
        mem_free(b);
    }
    a->next = a->end = NULL;
    a->used_bytes = 0;
}
