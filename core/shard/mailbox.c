/* Messages between shards.
 *
 *   sender a ──ring[a] of b──► receiver b        (single producer, single consumer; FIFO)
 *      └─ overflow[b]: list of messages that found the ring full, in order
 *   any thread ──posted of b (lock-free stack)──► receiver b
 *
 * Invariants
 * 1. ring.tail is written by the sender only, ring.head by the receiver only; an entry is
 *    written before the tail that covers it is released, and read before the head that frees it.
 * 2. While overflow[b] is not empty, nothing goes directly into b's ring: FIFO.
 * 3. A receiver is woken at most once per sender's turn (mailboxes_flush), and io_wake skips the
 *    system call when the receiver is awake. No wake-up is lost: io_turn declares itself asleep,
 *    and un-declares itself before mailboxes_receive looks; the sender publishes the tail
 *    before it calls io_wake.
 */
#include "mailbox_int.h"

#include "check.h"
#include "mem.h"

#define RING_ENTRIES 512u /* 4 KiB of pointers: one page for each pair */
#define RECEIVE_BATCH 64u /* from one ring before the next one has its turn */

struct ring {
    _Alignas(CACHE_LINE) u32 tail; /* sender's; released */
    u32 head_seen;                 /* sender's copy of head: spares the shared line */
    _Alignas(CACHE_LINE) u32 head; /* receiver's; released */
    u32 tail_seen;                 /* receiver's copy of tail */
    _Alignas(CACHE_LINE) struct msg *slots[RING_ENTRIES];
};

struct outbox {
    struct list overflow;
    bool dirty; /* sent to in this turn, not woken yet */
};

struct mailboxes {
    u32 count;
    struct ring **rings; /* [sender]: what comes in */
    struct outbox *out;  /* [receiver]: what does not fit */
    u32 dirty_count;
    _Alignas(CACHE_LINE) struct msg *posted; /* newest first, linked by link.next */
};

struct mailboxes *mailboxes_create(u32 shard_count)
{
    /* mem_alloc aligns to 16 only; the alignment in the structs keeps writers' lines apart. */
    struct mailboxes *mb = mem_map(sizeof *mb, false);
    CHECK(mb != NULL);
    mb->count = shard_count;
    mb->rings = mem_alloc(shard_count * sizeof *mb->rings);
    mb->out = mem_alloc(shard_count * sizeof *mb->out);
    for (u32 i = 0; i < shard_count; i++) {
        mb->rings[i] = mem_map(sizeof(struct ring), false);
        CHECK(mb->rings[i] != NULL);
        list_init(&mb->out[i].overflow);
    }
    return mb;
}

void mailboxes_destroy(struct mailboxes *mb)
{
    for (u32 i = 0; i < mb->count; i++)
        mem_unmap(mb->rings[i], sizeof(struct ring));
    mem_free(mb->rings);
    mem_free(mb->out);
    mem_unmap(mb, sizeof *mb);
}

static bool ring_push(struct ring *r, struct msg *m)
{
    u32 tail = __atomic_load_n(&r->tail, __ATOMIC_RELAXED);
    if (tail - r->head_seen == RING_ENTRIES) {
        r->head_seen = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);
        if (tail - r->head_seen == RING_ENTRIES)
            return false;
    }
    r->slots[tail % RING_ENTRIES] = m;
    __atomic_store_n(&r->tail, tail + 1, __ATOMIC_RELEASE);
    return true;
}

static struct msg *ring_pop(struct ring *r)
{
    u32 head = __atomic_load_n(&r->head, __ATOMIC_RELAXED);
    if (head == r->tail_seen) {
        r->tail_seen = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
        if (head == r->tail_seen)
            return NULL;
    }
    struct msg *m = r->slots[head % RING_ENTRIES];
    __atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
    return m;
}

void shard_send(struct shard *from, u32 to, struct msg *m, msg_fn fn)
{
    MAGIC_CHECK(from, SHARD_MAGIC);
    CHECK(to < from->group->count && fn != NULL);
    struct mailboxes *mine = from->mail;
    struct outbox *out = &mine->out[to];
    m->fn = fn;
    if (!list_empty(&out->overflow) ||
        !ring_push(from->group->shards[to]->mail->rings[from->index], m))
        list_push_back(&out->overflow, &m->link);
    if (!out->dirty) {
        out->dirty = true;
        mine->dirty_count++;
    }
}

void shard_post(struct shard_group *g, u32 to, struct msg *m, msg_fn fn)
{
    CHECK(to < g->count && fn != NULL);
    struct shard *s = g->shards[to];
    struct mailboxes *mb = s->mail;
    m->fn = fn;
    struct msg *top = __atomic_load_n(&mb->posted, __ATOMIC_RELAXED);
    do {
        m->link.next = top ? &top->link : NULL;
    } while (!__atomic_compare_exchange_n(&mb->posted, &top, m, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    struct io *io = __atomic_load_n(&s->io, __ATOMIC_ACQUIRE);
    if (io)
        io_wake(NULL, io);
}

/* All of them, oldest first: their number is bounded by their owners. */
static u32 posted_receive(struct shard *s)
{
    struct mailboxes *mb = s->mail;
    if (!__atomic_load_n(&mb->posted, __ATOMIC_RELAXED))
        return 0;
    struct msg *m = __atomic_exchange_n(&mb->posted, NULL, __ATOMIC_ACQUIRE);
    struct msg *oldest = NULL;
    while (m) {
        struct list *older = m->link.next;
        m->link.next = oldest ? &oldest->link : NULL;
        oldest = m;
        m = older ? list_entry(older, struct msg, link) : NULL;
    }
    u32 ran = 0;
    while (oldest) {
        struct list *next = oldest->link.next;
        m = oldest;
        oldest = next ? list_entry(next, struct msg, link) : NULL;
        list_init(&m->link);
        m->fn(s, m);
        ran++;
    }
    return ran;
}

u32 mailboxes_receive(struct shard *s, u32 budget)
{
    struct mailboxes *mb = s->mail;
    u32 ran = posted_receive(s);
    bool more = true;
    while (more && ran < budget) {
        more = false;
        for (u32 i = 0; i < mb->count; i++) {
            struct msg *m;
            u32 n = 0;
            while (n < RECEIVE_BATCH && ran < budget && (m = ring_pop(mb->rings[i])) != NULL) {
                list_init(&m->link);
                m->fn(s, m);
                n++, ran++;
            }
            more |= n == RECEIVE_BATCH;
        }
    }
    return ran;
}

bool mailboxes_pending(const struct shard *s)
{
    const struct mailboxes *mb = s->mail;
    if (__atomic_load_n(&mb->posted, __ATOMIC_ACQUIRE))
        return true;
    for (u32 i = 0; i < mb->count; i++) {
        const struct ring *r = mb->rings[i];
        if (__atomic_load_n(&r->tail, __ATOMIC_ACQUIRE) !=
            __atomic_load_n(&r->head, __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

bool mailboxes_flush(struct shard *s)
{
    struct mailboxes *mb = s->mail;
    bool all = true;
    if (mb->dirty_count == 0)
        return true;
    mb->dirty_count = 0;
    for (u32 to = 0; to < mb->count; to++) {
        struct outbox *out = &mb->out[to];
        if (!out->dirty)
            continue;
        struct shard *target = s->group->shards[to];
        struct ring *r = target->mail->rings[s->index];
        while (!list_empty(&out->overflow)) {
            /* Unlinked first: once pushed, the message is the receiver's. */
            struct list *oldest = list_pop_front(&out->overflow);
            if (!ring_push(r, list_entry(oldest, struct msg, link))) {
                list_push_front(&out->overflow, oldest);
                break;
            }
        }
        out->dirty = !list_empty(&out->overflow);
        mb->dirty_count += out->dirty;
        all &= !out->dirty;
        struct io *io = __atomic_load_n(&target->io, __ATOMIC_ACQUIRE);
        if (target != s && io)
            io_wake(s->io, io);
    }
    return all;
}
