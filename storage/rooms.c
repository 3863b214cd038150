/* See rooms.h. The list's node lies in the free memory itself. */
#include "rooms.h"

#include <string.h>

#include "check.h"
#include "mem.h"

/* 0: not kept. */
static u32 steps_of(u32 bytes)
{
    u32 steps = bytes / ROOM_STEP + (bytes % ROOM_STEP != 0);
    return bytes >= ROOM_STEP && steps <= ROOM_STEPS_MAX ? steps : 0;
}

void rooms_init(struct rooms *r)
{
    for (u32 i = 0; i <= ROOM_STEPS_MAX; i++)
        list_init(&r->free[i]);
    r->free_bytes = 0;
}

static u8 *room_new(u64 bytes)
{
    if (bytes < ROOM_PAGE)
        return mem_realloc(NULL, bytes);
    return mem_alloc_aligned(ROOM_PAGE, (bytes + ROOM_PAGE - 1) / ROOM_PAGE * ROOM_PAGE);
}

void rooms_pad(u8 *room, u32 bytes)
{
    if (bytes >= ROOM_PAGE && bytes % ROOM_PAGE != 0)
        memset(room + bytes, 0, ROOM_PAGE - bytes % ROOM_PAGE);
}

u8 *rooms_take(struct rooms *r, u32 bytes)
{
    u32 steps = steps_of(bytes);
    if (steps == 0)
        return room_new(bytes);
    struct list *l = list_pop_front(&r->free[steps]);
    if (l == NULL)
        return room_new((u64)steps * ROOM_STEP);
    r->free_bytes -= (u64)steps * ROOM_STEP;
    return (u8 *)l;
}

void rooms_give(struct rooms *r, u8 *room, u32 bytes)
{
    u32 steps = steps_of(bytes);
    if (steps == 0 || room == NULL) {
        mem_free(room);
        return;
    }
    struct list *l = (struct list *)(void *)room;
    list_push_front(&r->free[steps], l);
    r->free_bytes += (u64)steps * ROOM_STEP;
}

void rooms_trim(struct rooms *r, u64 bytes)
{
    for (u32 i = 1; i <= ROOM_STEPS_MAX && r->free_bytes > bytes; i++)
        while (!list_empty(&r->free[i]) && r->free_bytes > bytes) {
            mem_free(list_pop_front(&r->free[i]));
            r->free_bytes -= (u64)i * ROOM_STEP;
        }
}
