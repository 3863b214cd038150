/* A new WAL file is only reserved, not written: the first durable write to each block would have
 * to commit the file system's journal, too (measured: half the throughput and twice the latency).
 * So after the file is made, zeros are written ahead of the log in the background, once, one write
 * at a time, not durably. A slot counts as taken while its zeros are in flight: when the log
 * catches up it waits for that one write; the zeros then rest, because the disk has enough to do,
 * and go on further ahead.
 *
 * Nothing relies on the zeros: a reserved block reads as zero, too, and a frame is known by its
 * hash. A crash ends the work for good; the rest of the first lap is then slower. */
#include "storage_int.h"

#define ZERO_BYTES ((u32)MIB)
#define ZERO_SKIP 4u /* segments left to the log when it has caught up */
#define ZERO_REST_NS NS_PER_S
/* Between two writes while the log is in use: flushes of the log wait for the zeros, too. */
#define ZERO_PAUSE_NS (25 * NS_PER_MS)

static void zero_step(struct storage *st);

static void zero_end(struct storage *st)
{
    struct wal *w = &st->wal;
    w->zero_seq = w->zero_end_seq = 0;
    if (w->zero_bytes)
        mem_unmap(w->zero_bytes, ZERO_BYTES);
    w->zero_bytes = NULL;
}

static void zero_rested(struct timer *t)
{
    struct wal *w = container_of(t, struct wal, zero_timer);
    struct storage *st = container_of(w, struct storage, wal);
    w->zero_at = 0;
    w->zero_seq = w->next_seq + ZERO_SKIP;
    zero_step(st);
}

static void zero_paused(struct timer *t)
{
    struct wal *w = container_of(t, struct wal, zero_timer);
    zero_step(container_of(w, struct storage, wal));
}

static void zero_done(struct io_op *op)
{
    struct wal *w = container_of(op, struct wal, zero_op);
    struct storage *st = container_of(w, struct storage, wal);
    if (op->err != ERR_NONE) {
        LOG(WARN, wal_zeroing_failed, "shard=%u error=%s", st->shard->index, err_name(op->err));
        w->zero_end_seq = w->zero_seq;
    }
    w->zero_at += MIN(ZERO_BYTES, w->segment_bytes - w->zero_at);
    if (w->zero_at == w->segment_bytes) {
        w->zero_at = 0;
        w->zero_seq++;
    }
    if (w->zero_yield) {
        w->zero_yield = false;
        timer_start(&st->shard->timers, &w->zero_timer, st->shard->now_ns + ZERO_REST_NS,
                    zero_rested);
        storage_room_made(st);
        return;
    }
    bool used = w->zero_append_count != w->append_count;
    w->zero_append_count = w->append_count;
    if (used)
        timer_start(&st->shard->timers, &w->zero_timer, st->shard->now_ns + ZERO_PAUSE_NS,
                    zero_paused);
    else
        zero_step(st);
}

static void zero_step(struct storage *st)
{
    struct wal *w = &st->wal;
    if (w->zero_seq < w->next_seq) {
        w->zero_seq = w->next_seq;
        w->zero_at = 0;
    }
    if (w->zero_seq >= w->zero_end_seq || st->stopping || w->failed != ERR_NONE) {
        zero_end(st);
        return;
    }
    u64 lsn = w->zero_seq * w->segment_bytes + w->zero_at;
    io_write(st->shard->io, &w->zero_op, w->fd, w->zero_bytes,
             MIN(ZERO_BYTES, w->segment_bytes - w->zero_at), wal_file_offset(w, lsn), false,
             zero_done);
}

void wal_zero_start(struct storage *st)
{
    struct wal *w = &st->wal;
    w->zero_bytes = mem_map(ZERO_BYTES, false);
    if (!w->zero_bytes)
        return;
    /* The first segment is wanted at once. */
    w->zero_seq = w->next_seq + 1;
    w->zero_end_seq = w->next_seq + w->slot_count;
    w->zero_at = 0;
    zero_step(st);
}

bool wal_zero_holds(struct storage *st, u64 seq)
{
    struct wal *w = &st->wal;
    if (io_op_idle(&w->zero_op) || seq != w->zero_seq)
        return false;
    w->zero_yield = true;
    return true;
}

bool wal_zero_idle(const struct wal *w)
{
    return io_op_idle(&w->zero_op);
}
