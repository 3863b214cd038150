/* The history as the clients saw it, and what it is held against: see model.h. Each check fails the
 * seed at once, with the promise as the first word of the report. */
#include "model.h"

#include <string.h>

struct mtopic topics[TOPICS_MAX];
u32 topic_count;
struct mpart parts[PARTS_MAX];
u32 part_count;
static struct lane lanes[LANES_MAX];
static u32 lane_count;
static u64 checked;
static struct compressor *compressor;

#define NAME(p) (p)->topic->name, (p)->index
#define LANE(id) ((u32)((id) >> 32) - 1)
#define NUMBER(id) ((u32)(id))

u64 model_records_checked(void)
{
    return checked;
}

struct mpart *model_part(struct bytes topic, struct uuid id, i32 index)
{
    for (u32 i = 0; i < part_count; i++) {
        struct mtopic *t = parts[i].topic;
        bool same = topic.len ? bytes_eq_str(topic, t->name) : uuid_eq(id, t->id);
        if (same && parts[i].index == index)
            return &parts[i];
    }
    sim_fail("protocol: an answer names an unknown partition %d of \"%.*s\"", index, (int)topic.len,
             (const char *)topic.data);
}

struct lane *model_lane(struct mpart *p, bool idempotent)
{
    if (lane_count == LANES_MAX)
        return NULL;
    struct lane *l = &lanes[lane_count];
    *l = (struct lane){ .index = lane_count++, .part = p, .idempotent = idempotent };
    return l;
}

u64 model_new_id(struct lane *l)
{
    u32 n = ++l->made;
    if (n >= l->cap) {
        u32 cap = MAX(256, l->cap * 2);
        l->offsets = mem_realloc(l->offsets, cap * sizeof(i64));
        for (u32 i = l->cap; i < cap; i++)
            l->offsets[i] = -1;
        l->cap = cap;
    }
    return (u64)(l->index + 1) << 32 | n;
}

/* ---- values ---- */

void value_fill(u8 *buf, u32 len, u64 id)
{
    CHECK(len >= VALUE_BYTES_MIN);
    put_le64(buf, id);
    put_le32(buf + 8, len);
    u64 v = id * 0x9e3779b97f4a7c15u + len;
    for (u32 i = VALUE_BYTES_MIN; i < len; i++) {
        if (i % 32 == 0)
            v = (v ^ v >> 29) * 0xbf58476d1ce4e5b9u;
        buf[i] = (u8)(v >> (i % 8 * 8));
    }
}

static u64 value_check(struct mpart *p, i64 offset, struct bytes v)
{
    static u8 *want;
    static u32 want_cap;
    if (v.len < VALUE_BYTES_MIN)
        sim_fail("data: %s-%d offset %" PRId64 ": a value of %u bytes nobody sent", NAME(p), offset,
                 v.len);
    if (v.len > want_cap) {
        want_cap = v.len * 2;
        want = mem_realloc(want, want_cap);
    }
    u64 id = get_le64(v.data);
    value_fill(want, v.len, id);
    if (memcmp(want, v.data, v.len) != 0)
        sim_fail("data: %s-%d offset %" PRId64 ": the value is not what was sent", NAME(p), offset);
    if (LANE(id) >= lane_count || NUMBER(id) == 0 || NUMBER(id) > lanes[LANE(id)].made)
        sim_fail("data: %s-%d offset %" PRId64 ": a record nobody sent", NAME(p), offset);
    if (lanes[LANE(id)].part != p)
        sim_fail("data: %s-%d offset %" PRId64 ": a record of another partition (%s-%d)", NAME(p),
                 offset, NAME(lanes[LANE(id)].part));
    return id;
}

/* ---- a record is at an offset ---- */

static void lane_order(const struct mpart *p, const struct lane *l, u32 n, i64 offset)
{
    i64 before = n > 1 ? l->offsets[n - 1] : -1;
    i64 behind = n < l->made ? l->offsets[n + 1] : -1;
    if ((before >= 0 && before >= offset) || (behind >= 0 && behind <= offset))
        sim_fail("order: %s-%d: record %u of lane %u is at %" PRId64 ", its neighbours at %" PRId64
                 " and %" PRId64,
                 NAME(p), n, l->index, offset, before, behind);
}

static void model_set(struct mpart *p, i64 offset, u64 id, const char *how)
{
    if (offset < 0 || offset > (i64)1 << 30)
        sim_fail("offsets: %s-%d: offset %" PRId64 " is %s", NAME(p), offset, how);
    if (offset >= p->cap) {
        i64 cap = MAX(1024, offset * 2);
        p->ids = mem_realloc(p->ids, (u64)cap * sizeof *p->ids);
        memset(p->ids + p->cap, 0, (u64)(cap - p->cap) * sizeof *p->ids);
        p->times = mem_realloc(p->times, (u64)cap * sizeof *p->times);
        memset(p->times + p->cap, 0, (u64)(cap - p->cap) * sizeof *p->times);
        p->cap = cap;
    }
    u64 was = p->ids[offset];
    if (was != 0 && was != id)
        sim_fail("durability: %s-%d offset %" PRId64
                 " held record %u of lane %u and is now %s with "
                 "record %u of lane %u",
                 NAME(p), offset, NUMBER(was), LANE(was), how, NUMBER(id), LANE(id));
    p->ids[offset] = id;
    struct lane *l = &lanes[LANE(id)];
    i64 other = l->offsets[NUMBER(id)];
    if (l->idempotent && other >= 0 && other != offset)
        sim_fail("once: %s-%d: record %u of lane %u is %s at %" PRId64 " and is at %" PRId64 " too",
                 NAME(p), NUMBER(id), LANE(id), how, offset, other);
    if (l->idempotent)
        lane_order(p, l, NUMBER(id), offset);
    l->offsets[NUMBER(id)] = offset;
    checked++;
}

void model_acked(struct lane *l, u64 first_id, u32 count, i64 base_offset)
{
    struct mpart *p = l->part;
    for (u32 i = 0; i < count; i++)
        model_set(p, base_offset + i, first_id + i, "acknowledged");
    p->acked_end = MAX(p->acked_end, base_offset + count);
}

/* ---- what consumers see ---- */

void model_watermarks(struct mpart *p, i64 log_start, i64 high_watermark)
{
    if (log_start > high_watermark)
        sim_fail("watermarks: %s-%d: log start %" PRId64 " above the high watermark %" PRId64,
                 NAME(p), log_start, high_watermark);
    if (log_start > p->delete_asked)
        sim_fail("durability: %s-%d: log start %" PRId64
                 ", but nobody asked to delete beyond %" PRId64,
                 NAME(p), log_start, p->delete_asked);
    p->start_seen = MAX(p->start_seen, log_start);
    p->seen_end = MAX(p->seen_end, high_watermark);
}

static void batch_seen(struct mpart *p, const struct batch *b, i64 *next, i64 high_watermark)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    if (!compressor)
        compressor = compressor_new();
    if (batch_check_crc(b) != ERR_NONE || batch_decode(compressor, b, 64 * MIB, &plain) != ERR_NONE)
        sim_fail("data: %s-%d: the batch at %" PRId64 " is damaged", NAME(p), b->base_offset);
    if (batch_last_offset(b) >= high_watermark)
        sim_fail("durability: %s-%d: a consumer sees a batch up to %" PRId64
                 ", the high watermark is %" PRId64,
                 NAME(p), batch_last_offset(b), high_watermark);
    STAT(read_batches);
    record_iter_init(&it, b, plain);
    err e;
    i64 offset = b->base_offset;
    while ((e = record_next(&it, &r)) == ERR_NONE) {
        if (r.offset != offset++)
            sim_fail("offsets: %s-%d: a record at %" PRId64 " instead of %" PRId64, NAME(p),
                     r.offset, offset - 1);
        model_set(p, r.offset, value_check(p, r.offset, r.value), "read");
        p->times[r.offset] = r.timestamp;
    }
    if (e != ERR_NOT_FOUND || offset != batch_last_offset(b) + 1)
        sim_fail("data: %s-%d: the records of the batch at %" PRId64 " are broken", NAME(p),
                 b->base_offset);
    *next = offset;
}

void model_fetched(struct mpart *p, struct bytes records, i64 *next, i64 high_watermark)
{
    struct bytes rest = records;
    struct batch b;
    bool first = true;
    while (rest.len > 0) {
        err e = batch_next(&rest, &b);
        if (e != ERR_NONE)
            sim_fail("data: %s-%d: fetched bytes are no batch (%s)", NAME(p), err_name(e));
        bool fits = first ? b.base_offset <= *next && batch_last_offset(&b) >= *next
                          : b.base_offset == *next;
        if (!fits)
            sim_fail("offsets: %s-%d: wanted %" PRId64 ", got a batch from %" PRId64 " to %" PRId64,
                     NAME(p), *next, b.base_offset, batch_last_offset(&b));
        batch_seen(p, &b, next, high_watermark);
        first = false;
    }
    p->seen_end = MAX(p->seen_end, *next);
}

/* ---- the end ---- */

void model_start(struct mpart *p, i64 start)
{
    if (start < p->start_seen || start < p->delete_acked || start > p->delete_asked)
        sim_fail("log start: %s-%d starts at %" PRId64 ", was told %" PRId64
                 ", deleted up to %" PRId64 ", asked to delete up to %" PRId64,
                 NAME(p), start, p->start_seen, p->delete_acked, p->delete_asked);
    p->start_seen = start;
}

void model_verify(struct mpart *p, i64 start, i64 end, i64 must)
{
    if (end < must)
        sim_fail("durability: %s-%d ends at %" PRId64 ", acknowledged up to %" PRId64
                 ", seen up to %" PRId64,
                 NAME(p), end, p->acked_end, p->seen_end);
    u32 last[LANES_MAX] = { 0 };
    for (i64 o = start; o < end; o++) {
        u64 id = o < p->cap ? p->ids[o] : 0;
        if (id == 0)
            sim_fail("simulator: %s-%d offset %" PRId64 " was not read", NAME(p), o);
        u32 n = NUMBER(id), lane = LANE(id);
        if (!lanes[lane].idempotent)
            continue;
        if (last[lane] != 0 && n != last[lane] + 1)
            sim_fail("order: %s-%d: behind record %u of lane %u comes %u", NAME(p), last[lane],
                     lane, n);
        if (last[lane] == 0 && n != 1 && start == 0)
            sim_fail("order: %s-%d: the first record of lane %u is %u", NAME(p), lane, n);
        last[lane] = n;
    }
}

i64 model_offset_of_time(const struct mpart *p, i64 start, i64 end, i64 t)
{
    for (i64 o = start; o < end; o++)
        if (p->times[o] >= t)
            return o;
    return -1;
}
