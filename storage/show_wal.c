/* Prints a WAL file. It knows no metadata, so it takes each slot as its first frame says: whether
 * frames behind a stop matter (docs/formats/wal.md, "Where the log ends") is left to the reader,
 * who sees durable_lsn. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "batch.h"
#include "show_int.h"
#include "wal_format.h"

static void put_uuid(FILE *out, const struct uuid *u)
{
    for (u32 i = 0; i < 16; i++)
        fprintf(out, "%02x", u->b[i]);
}

struct slot_sum {
    u64 frames, batches, records, batch_bytes, durable_lsn;
    bool bad_batch;
};

static void show_frame(FILE *out, const struct frame *f, const struct batch *b)
{
    fprintf(out, "  lsn=%" PRIu64 " kind=%s epoch=%u payload_bytes=%u durable_lsn=%" PRIu64, f->lsn,
            frame_kind_name(f->kind), f->epoch, f->payload_bytes, f->durable_lsn);
    if (f->kind == FRAME_BATCH) {
        fprintf(out, " topic_id=");
        put_uuid(out, &f->key.topic_id);
        fprintf(out, " partition=%u", f->key.partition);
    }
    if (b)
        fprintf(out,
                " base_offset=%" PRId64 " last_offset=%" PRId64 " records=%d leader_epoch=%d "
                "max_timestamp=%" PRId64 " producer_id=%" PRId64 " codec=%u crc=%s",
                b->base_offset, batch_last_offset(b), b->record_count, b->leader_epoch,
                b->max_timestamp, b->producer_id, batch_codec_bits(b),
                batch_check_crc(b) == ERR_NONE ? "ok" : "WRONG");
    fputc('\n', out);
}

static void slot_frame(FILE *out, const struct frame *f, const u8 *payload, bool frames,
                       struct slot_sum *sum)
{
    struct batch b;
    bool whole = false;
    sum->frames++;
    sum->durable_lsn = MAX(sum->durable_lsn, f->durable_lsn);
    if (f->kind == FRAME_BATCH) {
        whole = batch_parse(bytes_of(payload, f->payload_bytes), &b) == ERR_NONE &&
                b.bytes == f->payload_bytes;
        sum->batches++;
        sum->batch_bytes += f->payload_bytes;
        sum->records += whole ? (u32)MAX(b.record_count, 0) : 0;
        sum->bad_batch = sum->bad_batch || !whole;
    }
    if (frames)
        show_frame(out, f, whole ? &b : NULL);
}

bool show_wal_slot(FILE *out, const struct wal_super *s, u32 slot, const u8 *bytes, bool frames)
{
    struct frame first;
    err e = frame_decode(bytes, s->segment_bytes, &first);
    u64 seq = first.lsn / s->segment_bytes;
    if (e == ERR_NOT_FOUND) {
        fprintf(out, "slot=%u unused\n", slot);
        return true;
    }
    if (e != ERR_NONE || first.lsn % s->segment_bytes != 0 || seq % s->slot_count != slot ||
        first.wal_tag != get_le32(s->uuid.b)) {
        fprintf(out, "slot=%u first frame is damaged or of another file\n", slot);
        return e == ERR_NONE;
    }
    struct wal_cursor c;
    struct frame f;
    struct slot_sum sum = { 0 };
    wal_cursor_init(&c, bytes, s->segment_bytes, first.lsn, s->segment_bytes, first.wal_tag,
                    first.epoch);
    if (frames)
        fprintf(out, "slot=%u segment=%" PRIu64 "\n", slot, seq);
    while (wal_cursor_next(&c, &f))
        slot_frame(out, &f, bytes + (f.lsn - c.base) + frame_payload_at(&f), frames, &sum);
    fprintf(out,
            "slot=%u segment=%" PRIu64 " epoch=%u lsn=%" PRIu64 " frames=%" PRIu64
            " batches=%" PRIu64 " records=%" PRIu64 " batch_bytes=%" PRIu64 " durable_lsn=%" PRIu64,
            slot, seq, first.epoch, first.lsn, sum.frames, sum.batches, sum.records,
            sum.batch_bytes, sum.durable_lsn);
    if (c.bad)
        fprintf(out, " ends_at_lsn=%" PRIu64 " ends_at_offset=%" PRIu64, c.base + c.at,
                WAL_SUPER_BYTES + (u64)slot * s->segment_bytes + c.at);
    /* A frame behind it proves the stop to be damage; recovery looks in later segments, too. */
    bool damage = (c.bad && sum.durable_lsn > c.base + c.at) || sum.bad_batch;
    fprintf(out, "%s\n", damage ? " DAMAGED" : c.bad ? " open_end" : " complete");
    return !damage;
}

static bool read_all(int fd, u8 *buf, u64 len, u64 offset)
{
    while (len > 0) {
        ssize_t n = pread(fd, buf, len, (off_t)offset);
        if (n <= 0)
            return false;
        buf += n;
        len -= (u64)n;
        offset += (u64)n;
    }
    return true;
}

int show_wal(const char *path, int verbose)
{
    FILE *out = stdout;
    static u8 block[WAL_SUPER_BYTES];
    struct wal_super s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || !read_all(fd, block, sizeof block, 0)) {
        fprintf(stderr, "leat-show: %s: %s\n", path, errno ? strerror(errno) : "too short");
        if (fd >= 0)
            close(fd);
        return 1;
    }
    err e = wal_super_decode(block, &s);
    if (e != ERR_NONE) {
        fprintf(stderr, "leat-show: %s: the superblock is not usable: %s\n", path,
                e == ERR_MALFORMED ? "not a WAL file of leat" : err_text(e));
        close(fd);
        return 1;
    }
    fprintf(out, "wal version=%u shard=%u slots=%u segment_bytes=%u uuid=", s.version, s.shard,
            s.slot_count, s.segment_bytes);
    put_uuid(out, &s.uuid);
    fputc('\n', out);
    int status = 0;
    u8 *buf = mem_map(s.segment_bytes, false);
    for (u32 slot = 0; slot < s.slot_count && buf; slot++) {
        u64 offset = WAL_SUPER_BYTES + (u64)slot * s.segment_bytes;
        if (!read_all(fd, buf, s.segment_bytes, offset)) {
            fprintf(stderr, "leat-show: %s: can't read at offset %" PRIu64 "\n", path, offset);
            status = 1;
            break;
        }
        if (!show_wal_slot(out, &s, slot, buf, verbose > 0))
            status = 1;
    }
    if (buf)
        mem_unmap(buf, s.segment_bytes);
    close(fd);
    return status;
}
