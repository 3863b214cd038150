/* All memory of the process. malloc/free are used in mem.c only; everything else calls these.
 *
 * mem_alloc: small long-lived objects. Counted, zeroed, never NULL: exhaustion of the address
 * space is FATAL, because every caller's amount is bounded elsewhere by a configured limit.
 * struct arena: the memory of one request: bump allocation, freed at once, with a hard limit,
 * so that hostile input ends as an error and never as growth.
 * mem_map: big page-aligned regions (segment images, cache), lazily touched.
 *
 * Threads: mem_alloc/mem_free/mem_map may be called on any thread. An arena has one owner.
 */
#ifndef LEAT_MEM_H
#define LEAT_MEM_H

#include "base.h"

/* Zeroed memory of `size` bytes (> 0), aligned to 16. Never NULL. */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull, alloc_size(1)));
/* Grows or shrinks; new bytes are NOT zeroed. p may be NULL. Never NULL. */
void *mem_realloc(void *p, size_t size) __attribute__((returns_nonnull));
/* Not zeroed; `size` is a multiple of `align`, a power of two. mem_free frees it. Never NULL. */
void *mem_alloc_aligned(size_t align, size_t size) __attribute__((returns_nonnull));
void mem_free(void *p); /* NULL is allowed */
/* A NUL-terminated copy of a view; the caller frees it. */
char *mem_strndup(struct bytes b) __attribute__((returns_nonnull));
/* A copy of the bytes (1 byte at least is allocated); the caller frees it. */
u8 *mem_dup(const void *p, size_t len) __attribute__((returns_nonnull));
/* Bytes held through mem_alloc at this moment, for the metrics. */
u64 mem_used(void);
/* The allocator spreads its threads over at most `n` arenas from now on. An arena keeps what was
 * once taken in it: with one for each background thread, blocks that these allocate and shards free
 * held three times what was in use. Called before threads are started. */
void mem_limit_arenas(u32 n);

#define MEM_NEW(type) ((type *)mem_alloc(sizeof(type)))

/* Anonymous zero pages, not touched; `bytes` is rounded up to 2 MiB when `huge` (advice only).
 * NULL when the kernel refuses. */
void *mem_map(u64 bytes, bool huge);
/* Touches every page, which takes long (measured: 1.7 s a GiB in a virtual machine): for a
 * background thread. Page by page, so that who changes the memory map need not wait for all. */
void mem_touch(void *p, u64 bytes);
void mem_unmap(void *p, u64 bytes);
/* Gives the pages back to the kernel, keeps the addresses; they read as zero afterwards. */
void mem_release_pages(void *p, u64 bytes);

/* What this process may count on: the machine's memory or the smallest limit of its control
 * groups; looked at once. Any thread. */
u64 mem_machine_bytes(void);
/* The smallest memory limit in the groups that `self` (a /proc/PID/cgroup) names and those above
 * them, in the hierarchies mounted at `root`; UINT64_MAX when there is none. */
u64 mem_cgroup_limit(const char *self, const char *root);

/* Memory that waits to be used again must not be touched: AddressSanitizer is told so. Nothing in
 * other builds. What the kernel writes through io_uring is not looked at. */
#if defined(__SANITIZE_ADDRESS__)
#define MEM_POISONING 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_POISONING 1
#endif
#endif
#ifdef MEM_POISONING
#include <sanitizer/asan_interface.h>
#define MEM_POISON(p, bytes) ASAN_POISON_MEMORY_REGION((p), (bytes))
#define MEM_UNPOISON(p, bytes) ASAN_UNPOISON_MEMORY_REGION((p), (bytes))
#else
#define MEM_POISON(p, bytes) ((void)(p), (void)(bytes))
#define MEM_UNPOISON(p, bytes) ((void)(p), (void)(bytes))
#endif

/* ---- arena ---- */
struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first */
    u8 *next, *end;             /* free part of the newest block */
    u64 used_bytes;             /* of all blocks, against limit_bytes */
    u64 limit_bytes;
    u32 block_bytes; /* size of an ordinary block */
};

/* No memory is taken until the first allocation. */
void arena_init(struct arena *a, u32 block_bytes, u64 limit_bytes);
/* Zeroed, aligned to 16; NULL when the limit would be passed. size 0 gives a valid pointer. */
void *arena_alloc(struct arena *a, u64 size);
/* A copy inside the arena; {NULL,0} when the limit would be passed and b.len > 0. */
struct bytes arena_copy(struct arena *a, struct bytes b);
/* printf into the arena, NUL-terminated; NULL at the limit. */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Frees all but one ordinary block, which is kept for reuse. */
void arena_reset(struct arena *a);
void arena_free(struct arena *a);

#endif
