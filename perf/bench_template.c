/* Record batches built once at start, and the few bytes that change per send.
 *
 * A batch is [head | tail]. The tail (nearly all records, or the compressed block) is the same
 * bytes every time. The head, 61 bytes and, uncompressed, the first record up to its stamp, is
 * copied per send: timestamps, producer id, epoch, sequence and stamp are patched, and the CRC,
 * which covers all from the attributes on, is combined from the head's CRC and the tail's, which
 * is kept. So a send costs some 100 ns of CRC however large the batch is.
 */
#include <fcntl.h>
#include <libdeflate.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "bench.h"
#include "crc32c.h"

#define TEMPLATE_COUNT 4 /* enough that a broker's or disk's cache sees no single pattern */
#define CRC_AT 17
#define CRC_FROM 21 /* attributes: first byte under the CRC */

/* ---- contents ---- */
struct source {
    const u8 *file; /* NULL: generated */
    u64 file_len, file_at;
    u64 seed;
};
static u64 source_random(struct source *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed;
}
static void source_open(struct source *s, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0) {
        fprintf(stderr, "leat-bench: cannot read %s, or it is empty\n", path);
        exit(2);
    }
    s->file_len = (u64)st.st_size;
    void *p = mmap(NULL, s->file_len, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(p != MAP_FAILED);
    s->file = p;
    close(fd);
}
static void source_text(struct source *s, u8 *out, u32 len)
{
    static const char *const words[] = {
        "GET ",  "POST ", "/api/v1/orders ", "/index.html ", "200 ",     "404 ",    "user=",
        "info ", "warn ", "request done ",   "latency_ms=",  "tenant=7", "region=", "ok ",
    };
    for (u32 at = 0; at < len;) {
        char piece[32];
        u64 r = source_random(s);
        int n = r & 1 ? snprintf(piece, sizeof piece, "%s", words[(r >> 1) % ARRAY_COUNT(words)])
                      : snprintf(piece, sizeof piece, "%x ", (u32)(r >> 40));
        u32 take = MIN((u32)n, len - at);
        memcpy(out + at, piece, take);
        at += take;
    }
}
/* The next record's value into `out` (cap bytes); its length. */
static u32 source_next(struct source *s, const struct options *o, u8 *out, u32 cap)
{
    if (s->file) {
        u32 len = 0;
        while (len < cap) {
            u8 c = s->file[s->file_at];
            s->file_at = (s->file_at + 1) % s->file_len;
            if (!o->record_bytes_given && c == '\n')
                break;
            out[len++] = c;
        }
        return len;
    }
    if (o->fill == FILL_TEXT)
        source_text(s, out, cap);
    for (u32 i = 0; o->fill != FILL_TEXT && i < cap; i++)
        out[i] = o->fill == FILL_ZERO ? 0 : (u8)(source_random(s) >> 32);
    return cap;
}

/* ---- records ---- */
static void record_write(struct wbuf *w, u32 index, const u8 *value, u32 len)
{
    struct wbuf body = { 0 };
    wire_i8(&body, 0);
    wire_varint(&body, 0); /* timestamp delta */
    wire_varint(&body, index);
    wire_varint(&body, -1); /* no key */
    wire_varint(&body, len);
    wire_raw(&body, value, len);
    wire_varint(&body, 0); /* headers */
    wire_varint(w, body.len);
    wire_raw(w, body.data, body.len);
    wire_free(&body);
}
/* Records up to the wanted batch size; returns where the first value starts. */
static u32 records_write(struct wbuf *w, struct template *t, struct source *s,
                         const struct options *o)
{
    u32 cap = s->file && !o->record_bytes_given ? MIN(o->batch_bytes, 65536u) : o->record_bytes;
    u8 *value = mem_alloc(MAX(cap, 1u));
    u32 value_at = 0;
    for (;;) {
        u32 len = source_next(s, o, value, cap), before = w->len;
        record_write(w, t->records, value, len);
        bool over = o->batch_records ? t->records >= o->batch_records
                                     : BATCH_HEAD_BYTES + w->len > o->batch_bytes;
        if (over && t->records > 0) {
            w->len = before;
            break;
        }
        if (t->records++ == 0 && len >= STAMP_CHARS)
            value_at = w->len - len - 1; /* the header count follows the value */
        t->value_bytes += len;
    }
    mem_free(value);
    return value_at;
}
static void records_compress(struct wbuf *w, enum compression kind)
{
    u64 cap = (u64)w->len * 2 + 65536;
    u8 *out = mem_alloc(cap);
    size_t n = cap;
    if (kind == COMPRESS_GZIP) {
        struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
        n = libdeflate_gzip_compress(c, w->data, w->len, out, cap);
        libdeflate_free_compressor(c);
    } else if (kind == COMPRESS_SNAPPY) {
        CHECK(snappy_compress((const char *)w->data, w->len, (char *)out, &n) == SNAPPY_OK);
    } else if (kind == COMPRESS_LZ4) {
        LZ4F_preferences_t p = { 0 };
        p.frameInfo.blockMode = LZ4F_blockIndependent; /* Kafka reads no other */
        n = LZ4F_compressFrame(out, cap, w->data, w->len, &p);
        CHECK(!LZ4F_isError(n));
    } else {
        n = ZSTD_compress(out, cap, w->data, w->len, 3);
        CHECK(!ZSTD_isError(n));
    }
    CHECK(n > 0 && n < cap);
    mem_free(w->data);
    w->data = out;
    w->cap = (u32)cap;
    w->len = (u32)n;
}

static void template_build(struct template *t, struct source *s, const struct options *o)
{
    struct wbuf records = { 0 }, w = { 0 };
    u32 value_at = records_write(&records, t, s, o);
    if (o->compression != COMPRESS_NONE) {
        records_compress(&records, o->compression);
        value_at = 0;
    }
    wire_i64(&w, 0); /* base offset */
    wire_i32(&w, (i32)(BATCH_HEAD_BYTES - 12 + records.len));
    wire_i32(&w, -1); /* leader epoch */
    wire_i8(&w, 2);   /* magic */
    wire_i32(&w, 0);  /* crc */
    wire_i16(&w, (i16)o->compression);
    wire_i32(&w, (i32)t->records - 1);
    wire_i64(&w, 0); /* base timestamp */
    wire_i64(&w, 0); /* max timestamp */
    wire_i64(&w, -1);
    wire_i16(&w, -1);
    wire_i32(&w, -1);
    wire_i32(&w, (i32)t->records);
    CHECK(w.len == BATCH_HEAD_BYTES);
    wire_raw(&w, records.data, records.len);
    wire_free(&records);
    t->data = w.data;
    t->len = w.len;
    t->stamp_at = value_at ? BATCH_HEAD_BYTES + value_at : 0;
    t->head_len = value_at ? t->stamp_at + STAMP_CHARS : BATCH_HEAD_BYTES;
    t->tail_crc = crc32c(0, t->data + t->head_len, t->len - t->head_len);
    u8 head[256];
    CHECK(t->head_len <= sizeof head);
    template_head(t, head, now_wall_ns(), (struct producer_id){ 7, 1 }, 42);
    u8 *whole = mem_dup(t->data, t->len);
    memcpy(whole, head, t->head_len);
    CHECK(get_be32(head + CRC_AT) == crc32c(0, whole + CRC_FROM, t->len - CRC_FROM));
    mem_free(whole);
}
void templates_build(struct templates *t, const struct options *o)
{
    struct source s = { .seed = 0x9e3779b97f4a7c15u };
    if (o->payload)
        source_open(&s, o->payload);
    t->count = TEMPLATE_COUNT;
    t->list = mem_alloc(sizeof *t->list * TEMPLATE_COUNT);
    for (u32 i = 0; i < TEMPLATE_COUNT; i++) {
        template_build(&t->list[i], &s, o);
        t->len_max = MAX(t->len_max, t->list[i].len);
    }
}
void templates_free(struct templates *t)
{
    for (u32 i = 0; i < t->count; i++)
        mem_free(t->list[i].data);
    mem_free(t->list);
    *t = (struct templates){ 0 };
}
void template_head(const struct template *t, u8 *out, u64 wall_ns, struct producer_id pid,
                   i32 sequence)
{
    memcpy(out, t->data, t->head_len);
    u64 ms = wall_ns / NS_PER_MS;
    put_be64(out + 27, ms);
    put_be64(out + 35, ms);
    put_be64(out + 43, (u64)pid.id);
    put_be16(out + 51, (u16)pid.epoch);
    put_be32(out + 53, (u32)sequence);
    for (u32 i = 0; t->stamp_at && i < STAMP_CHARS; i++)
        out[t->stamp_at + i] = (u8) "0123456789abcdef"[wall_ns >> (60 - 4 * i) & 15];
    u32 head_crc = crc32c(0, out + CRC_FROM, t->head_len - CRC_FROM);
    put_be32(out + CRC_AT, crc32c_combine(head_crc, t->tail_crc, t->len - t->head_len));
}
static bool stamp_parse(const u8 *p, u64 *out)
{
    u64 v = 0;
    for (u32 i = 0; i < STAMP_CHARS; i++) {
        u32 c = p[i], digit = c - '0' < 10 ? c - '0' : c - 'a' + 10;
        if (digit > 15)
            return false;
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}
u64 template_stamp(const u8 *batch, u32 len)
{
    u64 base = get_be64(batch + 27) * NS_PER_MS, stamp = 0;
    struct rbuf r = { batch + BATCH_HEAD_BYTES, batch + len, false };
    if ((batch[22] & 7) != 0)
        return base;
    read_varint(&r); /* length */
    read_i8(&r);
    read_varint(&r);
    read_varint(&r);
    read_varint(&r); /* key: none in our records */
    i64 value_len = read_varint(&r);
    if (r.bad || value_len < STAMP_CHARS || read_left(&r) < STAMP_CHARS)
        return base;
    bool ours = stamp_parse(r.p, &stamp) && stamp - base < NS_PER_MS;
    return ours ? stamp : base;
}
