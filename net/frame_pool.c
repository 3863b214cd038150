/* See frame_pool.h. Small classes come from mem_alloc, larger ones are mappings of their own;
 * frames above the largest class are mapped and unmapped each time. */
#include "frame_pool.h"

#include "check.h"
#include "mem.h"

#define MALLOC_CLASSES 2u
#define SPARE_BYTES 4096u

struct frame_free {
    struct frame_free *next;
};

static u32 class_bytes(u32 class)
{
    return class < MALLOC_CLASSES ? 1024u << (2 * class)
                                  : (16384u << (class - MALLOC_CLASSES)) + SPARE_BYTES;
}

/* FRAME_CLASSES when it is larger than all. */
static u32 class_of(u32 len)
{
    u32 class = 0;
    while (class < FRAME_CLASSES && len > class_bytes(class))
        class ++;
    return class;
}

void frame_pool_init(struct frame_pool *fp, u64 free_bytes_max)
{
    *fp = (struct frame_pool){ .free_bytes_max = free_bytes_max };
}

static void buffer_free(u8 *buf, u32 class, u32 cap)
{
    if (class < MALLOC_CLASSES)
        mem_free(buf);
    else
        mem_unmap(buf, cap);
}

static u8 *free_pop(struct frame_pool *fp, u32 class)
{
    struct frame_free *f = fp->free[class];
    if (!f)
        return NULL;
    fp->free[class] = f->next;
    fp->free_count[class]--;
    fp->free_least[class] = MIN(fp->free_least[class], fp->free_count[class]);
    fp->free_bytes -= class_bytes(class);
    MEM_UNPOISON(f, class_bytes(class));
    return (u8 *)f;
}

void frame_pool_destroy(struct frame_pool *fp)
{
    for (u32 class = 0; class < FRAME_CLASSES; class ++) {
        u8 *buf;
        while ((buf = free_pop(fp, class)) != NULL)
            buffer_free(buf, class, class_bytes(class));
    }
}

u32 frame_pool_cap(u32 len)
{
    u32 class = class_of(len);
    return class < FRAME_CLASSES ? class_bytes(class) : (u32)align_up(len, 4096);
}

u8 *frame_pool_take(struct frame_pool *fp, u32 len, u32 *cap)
{
    u32 class = class_of(len);
    *cap = frame_pool_cap(len);
    u8 *buf = class < FRAME_CLASSES ? free_pop(fp, class) : NULL;
    if (buf)
        return buf;
    if (class < MALLOC_CLASSES)
        return mem_alloc(*cap);
    buf = mem_map(*cap, false);
    if (!buf)
        FATAL("what=\"out of memory\" bytes=%u remedy=\"lower net.request_memory or the number of "
              "mappings (sysctl vm.max_map_count) is used up\"",
              *cap);
    return buf;
}

void frame_pool_give(struct frame_pool *fp, u8 *buf, u32 cap)
{
    u32 class = class_of(cap);
    if (class == FRAME_CLASSES || fp->free_bytes + cap > fp->free_bytes_max) {
        buffer_free(buf, class, cap);
        return;
    }
    CHECK(cap == class_bytes(class));
    struct frame_free *f = (struct frame_free *)(void *)buf;
    f->next = fp->free[class];
    fp->free[class] = f;
    fp->free_count[class]++;
    fp->free_bytes += cap;
    MEM_POISON(buf + sizeof *f, cap - sizeof *f);
}

void frame_pool_trim(struct frame_pool *fp)
{
    for (u32 class = 0; class < FRAME_CLASSES; class ++) {
        /* Half a time: a pulse every few seconds should still find its buffers. */
        u32 surplus = (fp->free_least[class] + 1) / 2;
        for (u32 i = 0; i < surplus; i++)
            buffer_free(free_pop(fp, class), class, class_bytes(class));
        fp->free_least[class] = fp->free_count[class];
    }
}
