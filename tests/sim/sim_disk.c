/* The simulated disk. What it may do:
 *
 *  1. A write completes after a while; writes in flight complete in any order.
 *  2. When a durable write completes, its bytes are on stable media: no crash takes them back.
 *     So is everything after disk_sync.
 *  3. A write that completed but was not durable is in a volatile cache. Reads see it. It reaches
 *     the media at any time, or never.
 *  4. The process dies (kill -9): what is in the cache stays there. Of a write in flight, any
 *     subset of its 512-byte sectors arrives, on the media or only in the cache; every unit of
 *     4096 as often as not goes together.
 *  5. The machine loses power: of a write that is cached or in flight, any subset of sectors
 *     survives. A sector that was being written may hold garbage. Nothing else changes: never a
 *     sector that no write in flight covered.
 *  6. A write may fail (no space, input/output error); then any subset of it is there.
 *  7. A bit may rot at rest. The simulator does that only to bytes that the log itself can prove
 *     durable (a frame behind them, which survived, says so), because nobody can tell damage at
 *     the very end of a log from the end of the log.
 *  8. A file that was opened as a cache may lie at any time: a write that worked arrives in part or
 *     not at all, a bit rots just before it is read; it fails more often, too. What was in it
 *     before is still there when it is opened again, at the same places.
 *
 * What the caller may not do, checked here: write where a write is in flight, read where one is in
 * flight, change a buffer while it is written, pass unaligned addresses to a direct file.
 */
#include <stdio.h>
#include <string.h>

#include "../../storage/storage_int.h"
#include "sim.h"

#define SECTOR 512u
#define FILES_MAX 16

struct sim_write {
    struct list link;
    struct sim_file *file;
    u64 offset;
    u32 len;
    bool durable, cached;
    const u8 *source; /* the caller's buffer, while in flight */
    u8 *data;         /* a copy */
    u8 *mask;         /* one byte a sector: 0 = it did not arrive; NULL = all did */
};

struct sim_file {
    char path[128];
    bool cache;
    u64 bytes;
    u8 *media;
    struct list writes; /* cached and in flight, in order of their beginning */
};
static struct sim_file files[FILES_MAX];
static u32 file_count;
static u8 *rotten; /* the byte that rotted, until it is written over */
static u8 rotten_bit;

struct sim_file *disk_open(const char *path, bool create, bool cache, u64 bytes, err *e)
{
    *e = ERR_NONE;
    struct sim_file *f = NULL;
    for (u32 i = 0; i < file_count; i++)
        if (strcmp(files[i].path, path) == 0)
            f = &files[i];
    if (!f && !create) {
        *e = ERR_NOT_FOUND;
        return NULL;
    }
    if (create && fault(sim.faults.disk_full)) {
        *e = ERR_DISK_FULL;
        sim.faults_hit++;
        return NULL;
    }
    if (!f) {
        CHECK(file_count < FILES_MAX && strlen(path) < sizeof f->path);
        f = &files[file_count++];
        snprintf(f->path, sizeof f->path, "%s", path);
        list_init(&f->writes);
    }
    f->cache = cache;
    if (create && f->bytes != bytes) {
        u8 *media = mem_alloc(bytes);
        if (f->media)
            memcpy(media, f->media, MIN(bytes, f->bytes));
        f->media = media;
        f->bytes = bytes;
        sim_effect("file made");
    }
    return f;
}

u64 disk_bytes(const struct sim_file *f)
{
    return f->bytes;
}

static bool overlaps(const struct sim_write *w, u64 offset, u64 len)
{
    return w->offset < offset + len && offset < w->offset + w->len;
}

/* What arrived of w goes to `to`, which holds the file's bytes from `base` on. */
static void write_apply(const struct sim_write *w, u8 *to, u64 base, u64 len)
{
    for (u32 at = 0; at < w->len; at += SECTOR) {
        u64 pos = w->offset + at;
        if ((w->mask && !w->mask[at / SECTOR]) || pos < base || pos + SECTOR > base + len)
            continue;
        u8 *sector = to + (pos - base);
        memcpy(sector, w->data + at, SECTOR);
        if (rotten >= sector && rotten < sector + SECTOR)
            rotten = NULL;
    }
}

static void write_free(struct sim_write *w)
{
    list_remove(&w->link);
    mem_free(w->data);
    mem_free(w->mask);
    mem_free(w);
}

static void write_settle(struct sim_write *w)
{
    write_apply(w, w->file->media, 0, w->file->bytes);
    write_free(w);
}

struct sim_write *disk_write_begin(struct sim_file *f, const u8 *buf, u32 len, u64 offset,
                                   bool durable)
{
    if (len == 0 || len % 4096 || offset % 4096 || (uintptr_t)buf % 4096 || offset + len > f->bytes)
        sim_fail("disk: unaligned or out of bounds write of %u bytes at %" PRIu64, len, offset);
    list_for(it, &f->writes) {
        struct sim_write *w = list_entry(it, struct sim_write, link);
        if (!w->cached && overlaps(w, offset, len))
            sim_fail("disk: a write at %" PRIu64 " over a write in flight", offset);
    }
    STAT(writes);
    struct sim_write *w = MEM_NEW(struct sim_write);
    *w = (struct sim_write){ .file = f,
                             .offset = offset,
                             .len = len,
                             .durable = durable,
                             .source = buf,
                             .data = mem_dup(buf, len) };
    list_push_back(&f->writes, &w->link);
    return w;
}

static void mask_any(struct sim_write *w)
{
    u32 n = w->len / SECTOR;
    w->mask = mem_alloc(n);
    u64 shape = rnd(4); /* nothing, all, whole blocks, sectors */
    u8 unit = 0;
    for (u32 i = 0; i < n; i++) {
        if (shape == 3 || i % 8 == 0)
            unit = (u8)rnd(2);
        w->mask[i] = shape == 0 ? 0 : shape == 1 ? 1 : unit;
    }
}

/* Older cached writes below a durable one arrive first, so that they can't come up again. */
static void settle_below(struct sim_write *w)
{
    list_for_safe(it, &w->file->writes) {
        struct sim_write *o = list_entry(it, struct sim_write, link);
        if (o == w)
            return;
        if (o->cached && overlaps(o, w->offset, w->len))
            write_settle(o);
    }
}

bool disk_fails(const struct sim_file *f)
{
    return fault(sim.faults.disk_eio) || (f->cache && fault(sim.faults.disk_lies / 32));
}

err disk_write_end(struct sim_write *w)
{
    if (memcmp(w->source, w->data, w->len) != 0)
        sim_fail("disk: the buffer of a write in flight was changed");
    bool eio = disk_fails(w->file), full = fault(sim.faults.disk_full);
    if (eio || full) {
        mask_any(w);
        settle_below(w);
        write_settle(w);
        sim.faults_hit++;
        STAT(io_errors);
        return eio ? ERR_IO : ERR_DISK_FULL;
    }
    bool lies = w->file->cache && fault(sim.faults.disk_lies);
    if (lies) {
        mask_any(w);
        STAT(disk_lies);
    }
    if (w->durable || lies) {
        settle_below(w);
        write_settle(w);
    } else {
        w->cached = true;
        w->source = NULL;
    }
    return ERR_NONE;
}

enum sim_step disk_step(const struct sim_file *f, const u8 *buf, u64 offset)
{
    return step_of_write(f->media, buf, offset);
}

void disk_read(struct sim_file *f, u8 *buf, u32 len, u64 offset)
{
    u32 have = offset >= f->bytes ? 0 : (u32)MIN((u64)len, f->bytes - offset);
    memcpy(buf, f->media + offset, have);
    bool rots = f->cache && have > 0 && fault(sim.faults.disk_lies);
    list_for(it, &f->writes) {
        struct sim_write *w = list_entry(it, struct sim_write, link);
        if (!overlaps(w, offset, len))
            continue;
        if (!w->cached)
            sim_fail("disk: a read at %" PRIu64 " where a write is in flight", offset);
        write_apply(w, buf, offset, have);
    }
    if (rots) {
        buf[rnd(have)] ^= (u8)(1u << rnd(8));
        STAT(disk_lies);
    }
}

void disk_sync(struct sim_file *f)
{
    list_for_safe(it, &f->writes) {
        struct sim_write *w = list_entry(it, struct sim_write, link);
        if (w->cached)
            write_settle(w);
    }
}

static void garbage(struct sim_write *w)
{
    for (u32 i = 0; i < w->len / SECTOR; i++) {
        if (w->mask[i] || rnd(20) != 0)
            continue;
        w->mask[i] = 1;
        for (u32 b = 0; b < SECTOR; b += 8)
            put_le64(w->data + i * SECTOR + b, rng_next(&sim.rng));
    }
}

void disk_crash(bool power)
{
    for (u32 i = 0; i < file_count; i++) {
        list_for_safe(it, &files[i].writes) {
            struct sim_write *w = list_entry(it, struct sim_write, link);
            bool in_flight = !w->cached;
            w->source = NULL;
            if (!power && !in_flight)
                continue;
            STAT(writes_torn);
            if (!w->mask)
                mask_any(w);
            if (power && in_flight && one_in(2))
                garbage(w);
            w->cached = true;
            if (power || one_in(2))
                write_settle(w);
        }
    }
}

/* ---- images ---- */

void disk_settle(void)
{
    for (u32 i = 0; i < file_count; i++)
        disk_sync(&files[i]);
}

bool disk_file_at(u32 i, const char **path, u8 **media, u64 *bytes)
{
    if (i >= file_count)
        return false;
    *path = files[i].path;
    *media = files[i].media;
    *bytes = files[i].bytes;
    return true;
}

void disk_file_put(const char *path, const u8 *media, u64 bytes)
{
    err e;
    struct sim_file *f = disk_open(path, true, false, bytes, &e);
    CHECK(f != NULL && f->bytes == bytes);
    memcpy(f->media, media, bytes);
}

void disk_forget(void)
{
    for (u32 i = 0; i < file_count; i++) {
        list_for_safe(it, &files[i].writes)
            write_free(list_entry(it, struct sim_write, link));
        mem_free(files[i].media);
    }
    memset(files, 0, sizeof files);
    file_count = 0;
    rotten = NULL;
}

/* ---- rot ---- */

/* The end of what frames of the newest epoch in this file prove durable, and where that epoch's
 * first frame lies; both as lsn. Where the log went round, what is left of an old segment behind a
 * new one does not count: an lsn there would mean bytes of the new one. */
static bool rot_range(const struct sim_file *f, const struct wal_super *s, u64 *from, u64 *to)
{
    u32 epoch = 0;
    u32 tag = get_le32(s->uuid.b);
    u64 newest = 0;
    *from = UINT64_MAX;
    *to = 0;
    for (u64 pos = WAL_SUPER_BYTES; pos + FRAME_BYTES <= f->bytes; pos += WAL_BLOCK_BYTES) {
        u64 slot_end =
            WAL_SUPER_BYTES + ((pos - WAL_SUPER_BYTES) / s->segment_bytes + 1) * s->segment_bytes;
        struct frame fr;
        if (frame_decode(f->media + pos, slot_end - pos, &fr) != ERR_NONE || fr.wal_tag != tag)
            continue;
        if (fr.epoch > epoch) {
            epoch = fr.epoch;
            *from = UINT64_MAX;
            *to = newest = 0;
        }
        if (fr.epoch != epoch)
            continue;
        *from = MIN(*from, fr.lsn);
        *to = MAX(*to, fr.durable_lsn);
        newest = MAX(newest, fr.lsn / s->segment_bytes);
    }
    if (newest >= s->slot_count)
        *from = MAX(*from, (newest + 1 - s->slot_count) * s->segment_bytes);
    return *from < *to;
}

bool disk_rot(void)
{
    struct sim_file *f = file_count ? &files[rnd(file_count)] : NULL;
    struct wal_super s;
    u64 from, to;
    rotten = NULL;
    if (!f || !f->media || wal_super_decode(f->media, &s) != ERR_NONE ||
        !rot_range(f, &s, &from, &to))
        return false;
    u64 lsn = rnd_between(from, to - 1);
    u64 pos = WAL_SUPER_BYTES + lsn / s.segment_bytes % s.slot_count * s.segment_bytes +
              lsn % s.segment_bytes;
    rotten = f->media + pos;
    rotten_bit = (u8)(1u << rnd(8));
    *rotten ^= rotten_bit;
    STAT(rots);
    TRACE("bit rot in %s at %" PRIu64 ", lsn %" PRIu64 " of %" PRIu64 "..%" PRIu64, f->path, pos,
          lsn, from, to);
    return true;
}

void disk_rot_undo(void)
{
    if (rotten)
        *rotten ^= rotten_bit;
    rotten = NULL;
}
