/* The object format "bundle": many partitions' batches, grouped by partition into blocks.
 *
 *   header  0 magic u64 · 8 version u32 · 12 wal u32 · 16 seq u64 · 24 zero u64
 *   block   0 magic u32 · 4 batch count u32 · 8 topic id 16 · 24 partition u32 ·
 *           28 data bytes u32 ·
 *           32 base offset i64 · 40 last offset i64 · 48 max timestamp i64 · 56 zero u64 ·
 *           64 zero u64 · 72 XXH3 of header (this field 0) and batch headers · 80 data
 *   entry   0 topic id 16 · 16 partition u32 · 20 batch count u32 · 24 base offset i64 ·
 *           32 last offset i64 · 40 max timestamp i64 · 48 pos u32 · 52 zero u32 ·
 *           56 data bytes u32 · 60 zero u32 · 64 the block's XXH3
 *   footer  0 magic u64 · 8 version u32 · 12 entry count u32 · 16 index pos u64 · 24 wal u32 ·
 *           28 epoch u32 · 32 XXH3 of the index · 40 seq u64 · 48 zero u64 · 56 XXH3 of 0..55
 *
 * Invariants: blocks lie one behind the other from BUNDLE_HEADER_BYTES on, in the order of the
 * index, with zeros between them where one begins at a multiple of 512; the index follows the last
 * block, the footer the index, and then the object ends. Within a partition offsets ascend.
 * A block describes itself, so that a read that got the wrong bytes is noticed without the index.
 */
#include "bundle_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "crc32c.h"
#include "hash.h"
#include "plant.h"

enum { BLOCK_AT_HASH = 72, FOOTER_AT_HASH = 56, REG_AT_HASH = 32 };

/* ---- writing ---- */

void bundle_builder_init(struct bundle_builder *b, u32 wal, u64 seq, u32 epoch, u32 block_bytes)
{
    CHECK(block_bytes > 0);
    *b = (struct bundle_builder){
        .wal = wal, .seq = seq, .epoch = epoch, .block_bytes = block_bytes
    };
    b->bytes = BUNDLE_HEADER_BYTES;
    b->part_cap = 64;
    b->parts = mem_alloc(b->part_cap * sizeof *b->parts);
    b->part_count = 1; /* the header's place */
}

static void builder_push_part(struct bundle_builder *b, struct bytes part)
{
    if (b->part_count == b->part_cap) {
        b->part_cap *= 2;
        b->parts = mem_realloc(b->parts, b->part_cap * sizeof *b->parts);
    }
    b->parts[b->part_count++] = part;
}

/* Zeros up to the next sector. */
static void builder_align(struct bundle_builder *b)
{
    static const u8 zeros[BUNDLE_SECTOR_BYTES];
    u32 gap = (u32)(align_up(b->bytes, BUNDLE_SECTOR_BYTES) - b->bytes);
    if (gap == 0)
        return;
    builder_push_part(b, bytes_of(zeros, gap));
    b->bytes += gap;
}

static struct bundle_entry *builder_open_block(struct bundle_builder *b,
                                               const struct partition_key *key, i64 base_offset)
{
    if (b->fill.aligned)
        builder_align(b);
    if (b->entry_count == b->entry_cap) {
        b->entry_cap = b->entry_cap ? b->entry_cap * 2 : 16;
        b->entries = mem_realloc(b->entries, b->entry_cap * sizeof *b->entries);
        b->first_part = mem_realloc(b->first_part, b->entry_cap * sizeof *b->first_part);
    }
    b->first_part[b->entry_count] = b->part_count;
    builder_push_part(b, (struct bytes){ NULL, 0 });
    CHECK(b->entries != NULL);
    struct bundle_entry *e = &b->entries[b->entry_count++];
    *e = (struct bundle_entry){ .key = *key,
                                .base_offset = base_offset,
                                .last_offset = base_offset - 1,
                                .max_timestamp = INT64_MIN,
                                .pos = (u32)b->bytes };
    b->bytes += BUNDLE_BLOCK_HEADER_BYTES;
    return e;
}

void bundle_builder_add(struct bundle_builder *b, const struct partition_key *key, i64 base_offset,
                        i64 last_offset, i64 max_timestamp, struct bytes batch)
{
    CHECK(b->own == NULL);
    CHECK(last_offset >= base_offset);
    CHECK(batch.len >= BATCH_HEADER_BYTES);
    struct bundle_entry *e = b->entry_count > 0 ? &b->entries[b->entry_count - 1] : NULL;
    bool same = e != NULL && partition_key_eq(&e->key, key);
    if (same)
        CHECK(base_offset > e->last_offset);
    else
        b->fill = (struct bundle_fill){ 0 };
    u32 at;
    if (bundle_fill_add(&b->fill, batch.len, b->block_bytes, &at))
        e = builder_open_block(b, key, base_offset);
    CHECK(b->bytes - e->pos == at);
    e->last_offset = last_offset;
    e->max_timestamp = MAX(e->max_timestamp, max_timestamp);
    e->batch_count++;
    e->data_bytes += batch.len;
    b->bytes += batch.len;
    CHECK(b->bytes < UINT32_MAX / 2);
    builder_push_part(b, batch);
}

void bundle_builder_break(struct bundle_builder *b)
{
    b->fill = (struct bundle_fill){ 0 };
}

static void put_key(u8 *p, const struct partition_key *k)
{
    memcpy(p, k->topic_id.b, 16);
    put_le32(p + 16, k->partition);
}

static void get_key(const u8 *p, struct partition_key *k)
{
    memcpy(k->topic_id.b, p, 16);
    k->partition = get_le32(p + 16);
}

/* `p` is zeroed. */
static void encode_block_header(u8 *p, const struct bundle_entry *e)
{
    put_le32(p, BUNDLE_BLOCK_MAGIC);
    put_le32(p + 4, e->batch_count);
    put_key(p + 8, &e->key);
    put_le32(p + 28, e->data_bytes);
    put_le64(p + 32, (u64)e->base_offset);
    put_le64(p + 40, (u64)e->last_offset);
    put_le64(p + 48, (u64)e->max_timestamp);
}

static void encode_entry(u8 *p, const struct bundle_entry *e)
{
    put_key(p, &e->key);
    put_le32(p + 20, e->batch_count);
    put_le64(p + 24, (u64)e->base_offset);
    put_le64(p + 32, (u64)e->last_offset);
    put_le64(p + 40, (u64)e->max_timestamp);
    put_le32(p + 48, e->pos);
    put_le32(p + 56, e->data_bytes);
    put_le64(p + 64, e->hash);
}

static void encode_footer(u8 *p, const struct bundle_builder *b, u64 index_pos, u64 index_hash)
{
    put_le64(p, BUNDLE_MAGIC);
    put_le32(p + 8, BUNDLE_FORMAT_VERSION);
    put_le32(p + 12, b->entry_count);
    put_le64(p + 16, index_pos);
    put_le32(p + 24, b->wal);
    put_le32(p + 28, b->epoch);
    put_le64(p + 32, index_hash);
    put_le64(p + 40, b->seq);
    put_le64(p + FOOTER_AT_HASH, hash_bytes(p, FOOTER_AT_HASH));
}

/* Only headers are hashed: the rest of a batch is covered by the CRC-32C in its header, which was
 * right when it was written to the log or read back from it. A second sum over the same bytes would
 * cost 7 % of all the CPU of producing. */
static void seal_block(struct bundle_builder *b, u32 i, u8 *header)
{
    struct bundle_entry *e = &b->entries[i];
    encode_block_header(header, e);
    struct hash_stream h;
    hash_stream_init(&h, 0);
    hash_stream_update(&h, header, BUNDLE_BLOCK_HEADER_BYTES);
    const struct bytes *batches = &b->parts[b->first_part[i] + 1];
    for (u32 k = 0; k < e->batch_count; k++) {
        CHECK(batches[k].len >= BATCH_HEADER_BYTES);
        hash_stream_update(&h, batches[k].data, BATCH_HEADER_BYTES);
    }
    e->hash = hash_stream_value(&h);
    put_le64(header + BLOCK_AT_HASH, e->hash);
    b->parts[b->first_part[i]] = bytes_of(header, BUNDLE_BLOCK_HEADER_BYTES);
}

void bundle_builder_seal(struct bundle_builder *b)
{
    CHECK(b->own == NULL);
    u32 index_bytes = b->entry_count * BUNDLE_ENTRY_BYTES;
    b->own = mem_alloc(BUNDLE_HEADER_BYTES + (size_t)b->entry_count * BUNDLE_BLOCK_HEADER_BYTES +
                       index_bytes + BUNDLE_FOOTER_BYTES);
    u8 *p = b->own;
    put_le64(p, BUNDLE_MAGIC);
    put_le32(p + 8, BUNDLE_FORMAT_VERSION);
    put_le32(p + 12, b->wal);
    put_le64(p + 16, b->seq);
    b->parts[0] = bytes_of(p, BUNDLE_HEADER_BYTES);
    p += BUNDLE_HEADER_BYTES;
    for (u32 i = 0; i < b->entry_count; i++, p += BUNDLE_BLOCK_HEADER_BYTES)
        seal_block(b, i, p);
    u8 *index = p;
    for (u32 i = 0; i < b->entry_count; i++, p += BUNDLE_ENTRY_BYTES)
        encode_entry(p, &b->entries[i]);
    encode_footer(p, b, b->bytes, hash_bytes(index, index_bytes));
    builder_push_part(b, bytes_of(index, index_bytes + BUNDLE_FOOTER_BYTES));
    b->bytes += index_bytes + BUNDLE_FOOTER_BYTES;
}

void bundle_builder_free(struct bundle_builder *b)
{
    mem_free(b->parts);
    mem_free(b->entries);
    mem_free(b->first_part);
    mem_free(b->own);
    *b = (struct bundle_builder){ 0 };
}

/* ---- reading ---- */

err bundle_header_decode(struct bytes head, u32 *wal, u64 *seq)
{
    if (head.len < BUNDLE_HEADER_BYTES || get_le64(head.data) != BUNDLE_MAGIC ||
        get_le64(head.data + 24) != 0)
        return ERR_CORRUPT;
    if (get_le32(head.data + 8) != BUNDLE_FORMAT_VERSION)
        return ERR_UNSUPPORTED;
    *wal = get_le32(head.data + 12);
    *seq = get_le64(head.data + 16);
    return ERR_NONE;
}

err bundle_footer_decode(struct bytes tail, u64 object_bytes, struct bundle_footer *out)
{
    const u8 *p = tail.data;
    if (tail.len != BUNDLE_FOOTER_BYTES || get_le64(p) != BUNDLE_MAGIC)
        return ERR_CORRUPT;
    if (get_le64(p + FOOTER_AT_HASH) != hash_bytes(p, FOOTER_AT_HASH))
        return ERR_CORRUPT;
    if (get_le32(p + 8) != BUNDLE_FORMAT_VERSION)
        return ERR_UNSUPPORTED;
    *out = (struct bundle_footer){ .wal = get_le32(p + 24),
                                   .seq = get_le64(p + 40),
                                   .epoch = get_le32(p + 28),
                                   .entry_count = get_le32(p + 12),
                                   .index_pos = get_le64(p + 16),
                                   .index_hash = get_le64(p + 32) };
    u64 index_bytes = (u64)out->entry_count * BUNDLE_ENTRY_BYTES;
    if (out->index_pos < BUNDLE_HEADER_BYTES || out->index_pos > UINT32_MAX)
        return ERR_CORRUPT;
    if (out->index_pos + index_bytes + BUNDLE_FOOTER_BYTES != object_bytes)
        return ERR_CORRUPT;
    return ERR_NONE;
}

static bool entry_sane(const struct bundle_entry *e)
{
    return e->base_offset >= 0 && e->last_offset >= e->base_offset &&
           e->last_offset <= OFFSET_MAX && e->batch_count > 0 &&
           e->data_bytes >= BATCH_HEADER_BYTES &&
           (u64)e->data_bytes + BUNDLE_BLOCK_HEADER_BYTES <= UINT32_MAX &&
           e->data_bytes / BATCH_HEADER_BYTES >= e->batch_count;
}

void bundle_index_entry(struct bytes index, u32 i, struct bundle_entry *out)
{
    CHECK((u64)(i + 1) * BUNDLE_ENTRY_BYTES <= index.len);
    const u8 *p = index.data + (size_t)i * BUNDLE_ENTRY_BYTES;
    get_key(p, &out->key);
    out->batch_count = get_le32(p + 20);
    out->base_offset = (i64)get_le64(p + 24);
    out->last_offset = (i64)get_le64(p + 32);
    out->max_timestamp = (i64)get_le64(p + 40);
    out->pos = get_le32(p + 48);
    out->data_bytes = get_le32(p + 56);
    out->hash = get_le64(p + 64);
}

err bundle_index_check(struct bytes index, const struct bundle_footer *f)
{
    if (index.len != (u64)f->entry_count * BUNDLE_ENTRY_BYTES)
        return ERR_CORRUPT;
    if (hash_view(index) != f->index_hash)
        return ERR_CORRUPT;
    u64 pos = BUNDLE_HEADER_BYTES;
    struct bundle_entry last = { .last_offset = -1 };
    for (u32 i = 0; i < f->entry_count; i++) {
        struct bundle_entry e;
        bundle_index_entry(index, i, &e);
        if (e.pos != pos)
            pos = align_up(pos, BUNDLE_SECTOR_BYTES);
        if (!entry_sane(&e) || e.pos != pos)
            return ERR_CORRUPT;
        if (i > 0 && partition_key_eq(&e.key, &last.key) && e.base_offset <= last.last_offset)
            return ERR_CORRUPT;
        pos += bundle_block_bytes(&e);
        last = e;
    }
    return pos == f->index_pos ? ERR_NONE : ERR_CORRUPT;
}

/* Bytes of the batch whose header is at p; 0 when it does not fit into `left`. */
static u32 batch_extent(const u8 *p, u32 left)
{
    if (left < BATCH_HEADER_BYTES)
        return 0;
    u64 bytes = (u64)get_be32(p + BATCH_AT_LENGTH) + BATCH_PREFIX_BYTES;
    return bytes >= BATCH_HEADER_BYTES && bytes <= left ? (u32)bytes : 0;
}

bool bundle_block_hash(struct bytes block, u64 *hash)
{
    static const u8 zero[8];
    const u8 *p = block.data;
    struct hash_stream h;
    hash_stream_init(&h, 0);
    hash_stream_update(&h, p, BLOCK_AT_HASH);
    hash_stream_update(&h, zero, sizeof zero);
    for (u32 at = BUNDLE_BLOCK_HEADER_BYTES, bytes; at < block.len; at += bytes) {
        bytes = batch_extent(p + at, block.len - at);
        if (bytes == 0)
            return false;
        hash_stream_update(&h, p + at, BATCH_HEADER_BYTES);
    }
    *hash = hash_stream_value(&h);
    return true;
}

/* The batches fit: bundle_block_hash. */
static bool block_crcs_right(struct bytes data)
{
    for (u32 at = 0; at < data.len;) {
        const u8 *p = data.data + at;
        u32 bytes = batch_raw_bytes(p);
        u32 crc = crc32c(0, p + BATCH_AT_ATTRIBUTES, bytes - BATCH_AT_ATTRIBUTES);
        if (crc != get_be32(p + BATCH_AT_CRC))
            return false;
        at += bytes;
    }
    return true;
}

err bundle_block_decode(struct bytes block, struct bundle_entry *out, struct bytes *data)
{
    const u8 *p = block.data;
    if (block.len < BUNDLE_BLOCK_HEADER_BYTES || get_le32(p) != BUNDLE_BLOCK_MAGIC)
        return ERR_CORRUPT;
    *out = (struct bundle_entry){ .batch_count = get_le32(p + 4),
                                  .data_bytes = get_le32(p + 28),
                                  .base_offset = (i64)get_le64(p + 32),
                                  .last_offset = (i64)get_le64(p + 40),
                                  .max_timestamp = (i64)get_le64(p + 48),
                                  .hash = get_le64(p + BLOCK_AT_HASH) };
    get_key(p + 8, &out->key);
    if (!entry_sane(out) || bundle_block_bytes(out) != block.len)
        return ERR_CORRUPT;
    u64 hash;
    if (!bundle_block_hash(block, &hash) || hash != out->hash)
        return ERR_CORRUPT;
    *data = bytes_of(p + BUNDLE_BLOCK_HEADER_BYTES, out->data_bytes);
    return block_crcs_right(*data) ? ERR_NONE : ERR_CORRUPT;
}

err bundle_data_check(struct bytes data, const struct bundle_entry *e)
{
    struct batch b;
    u32 count = 0;
    i64 last = e->base_offset - 1, max_timestamp = INT64_MIN;
    while (data.len > 0) {
        if (batch_next(&data, &b) != ERR_NONE)
            return ERR_CORRUPT;
        if (b.base_offset <= last || b.base_offset > INT64_MAX - INT32_MAX)
            return ERR_CORRUPT;
        if (count++ == 0 && b.base_offset != e->base_offset)
            return ERR_CORRUPT;
        last = batch_last_offset(&b);
        max_timestamp = MAX(max_timestamp, b.max_timestamp);
    }
    bool agrees =
        count == e->batch_count && last == e->last_offset && max_timestamp == e->max_timestamp;
    return agrees ? ERR_NONE : ERR_CORRUPT;
}

err bundle_data_find(struct bytes data, i64 offset, u32 *pos)
{
    u32 at = 0;
    while (at < data.len) {
        const u8 *p = data.data + at;
        u32 bytes = batch_extent(p, data.len - at);
        if (bytes == 0)
            return ERR_CORRUPT;
        i32 delta = (i32)get_be32(p + BATCH_AT_LAST_OFFSET_DELTA);
        i64 base = batch_raw_base_offset(p);
        if (delta < 0 || base < 0 || base > INT64_MAX - delta)
            return ERR_CORRUPT;
        if (base + delta >= offset)
            break;
        at += bytes;
    }
    *pos = at;
    return ERR_NONE;
}

/* ---- names ---- */

char *bundle_name(char *buf, u64 bundle, u32 epoch)
{
    snprintf(buf, BUNDLE_NAME_SIZE, "%c/%04x/%016" PRIx64 "-%08x",
             object_is_run(bundle) ? 'r' : 'b', bundle_wal(bundle), bundle_seq(bundle), epoch);
    return buf;
}

static bool hex_parse(const char *s, u32 digits, u64 *out)
{
    *out = 0;
    for (u32 i = 0; i < digits; i++) {
        char c = s[i];
        u32 v;
        if (c >= '0' && c <= '9')
            v = (u32)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = (u32)(c - 'a') + 10;
        else
            return false;
        *out = *out << 4 | v;
    }
    return true;
}

bool bundle_name_parse(const char *name, u64 *bundle, u32 *epoch)
{
    u64 wal, seq, e;
    bool run = name[0] == 'r';
    if (strlen(name) != 32 || (!run && name[0] != 'b') || name[1] != '/' || name[6] != '/' ||
        name[23] != '-')
        return false;
    if (!hex_parse(name + 2, 4, &wal) || !hex_parse(name + 7, 16, &seq) || seq >> 48 != 0 ||
        wal >= RUN_WAL || !hex_parse(name + 24, 8, &e))
        return false;
    *bundle = bundle_id((u32)wal | (run ? RUN_WAL : 0), seq);
    *epoch = (u32)e;
    return true;
}

/* ---- registrations ----
 *   0 version u8 · 1 zero 3 · 4 block count u32 · 8 object bytes u64 · 16 epoch u32 ·
 *   20 retired u32 · 24 created ms i64 · 32 XXH3 of the value (this field 0) ·
 *   of a run (version 2): 40 cover from i64 · 48 cover to i64 · 56 clean to i64 ·
 *   blocks, each:
 *   0 topic id 16 · 16 partition u32 · 20 pos u32 · 24 bytes u32 · 28 data bytes u32 ·
 *   32 base offset i64 · 40 last offset i64 · 48 max timestamp i64 */

static u32 reg_head_bytes(bool run)
{
    return run ? BUNDLE_REG_RUN_HEAD_BYTES : BUNDLE_REG_HEAD_BYTES;
}

struct bytes bundle_reg_begin(struct arena *a, const struct bundle_reg *reg, u8 **raw)
{
    u64 len = reg_head_bytes(reg->run) + (u64)reg->block_count * BUNDLE_REG_BLOCK_BYTES;
    CHECK(len <= UINT32_MAX);
    u8 *p = arena_alloc(a, len);
    *raw = p;
    if (p == NULL)
        return (struct bytes){ NULL, 0 };
    p[0] = reg->run ? BUNDLE_REG_RUN_VERSION : BUNDLE_REG_VERSION;
    put_le32(p + 4, reg->block_count);
    put_le64(p + 8, reg->object_bytes);
    put_le32(p + 16, reg->epoch);
    put_le32(p + 20, reg->retired);
    put_le64(p + 24, (u64)reg->created_ms);
    if (reg->run) {
        put_le64(p + 40, (u64)reg->cover_from);
        put_le64(p + 48, (u64)reg->cover_to);
        put_le64(p + 56, (u64)reg->clean_to);
    }
    return bytes_of(p, (u32)len);
}

void bundle_reg_set(u8 *raw, u32 i, const struct partition_key *key, const struct block *b)
{
    CHECK(i < get_le32(raw + 4));
    u32 head = reg_head_bytes(raw[0] == BUNDLE_REG_RUN_VERSION);
    bundle_reg_block_put(raw + head + (size_t)i * BUNDLE_REG_BLOCK_BYTES, key, b);
}

void bundle_reg_block_put(u8 *p, const struct partition_key *key, const struct block *b)
{
    put_key(p, key);
    put_le32(p + 20, b->pos);
    put_le32(p + 24, b->bytes);
    put_le32(p + 28, b->data_bytes);
    put_le64(p + 32, (u64)b->base_offset);
    put_le64(p + 40, (u64)b->last_offset);
    put_le64(p + 48, (u64)b->max_timestamp);
}

void bundle_reg_end(u8 *raw, u32 len)
{
    CHECK(get_le64(raw + REG_AT_HASH) == 0);
    put_le64(raw + REG_AT_HASH, hash_bytes(raw, len));
}

void bundle_reg_retire(u8 *raw, u32 len)
{
    CHECK(raw[0] == BUNDLE_REG_RUN_VERSION);
    put_le32(raw + 20, 1);
    put_le64(raw + REG_AT_HASH, 0);
    bundle_reg_end(raw, len);
}

static bool reg_block_sane(const struct bundle_reg *reg, const struct block *b)
{
    return b->base_offset >= 0 && b->last_offset >= b->base_offset &&
           b->last_offset <= OFFSET_MAX && b->data_bytes >= BATCH_HEADER_BYTES &&
           b->pos >= BUNDLE_HEADER_BYTES &&
           (u64)b->data_bytes + BUNDLE_BLOCK_HEADER_BYTES == b->bytes &&
           (u64)b->pos + b->bytes <= reg->object_bytes;
}

/* A run: one partition, ascending, inside what it covers, up to its end. */
static bool reg_run_sane(const struct bundle_reg *reg)
{
    struct partition_key first, key;
    struct block b;
    i64 next = reg->cover_from;
    if (reg->cover_from < 0 || reg->cover_to <= reg->cover_from || reg->block_count == 0)
        return false;
    bundle_reg_get(reg, 0, 0, &first, &b);
    for (u32 i = 0; i < reg->block_count; i++) {
        bundle_reg_get(reg, i, 0, &key, &b);
        if (!partition_key_eq(&first, &key) || b.base_offset < next)
            return false;
        next = b.last_offset + 1;
    }
    return next == reg->cover_to && reg->clean_to >= 0 && reg->clean_to <= reg->cover_to;
}

static bool reg_hash_right(struct bytes value)
{
    static const u8 zero[8];
    const u8 *p = value.data;
    struct hash_stream h;
    hash_stream_init(&h, 0);
    hash_stream_update(&h, p, REG_AT_HASH);
    hash_stream_update(&h, zero, sizeof zero);
    hash_stream_update(&h, p + REG_AT_HASH + 8, value.len - REG_AT_HASH - 8);
    return hash_stream_value(&h) == get_le64(p + REG_AT_HASH);
}

err bundle_reg_decode(struct bytes value, struct bundle_reg *out)
{
    const u8 *p = value.data;
    if (value.len < BUNDLE_REG_HEAD_BYTES)
        return ERR_CORRUPT;
    bool run = p[0] == BUNDLE_REG_RUN_VERSION;
    if (!run && p[0] != BUNDLE_REG_VERSION)
        return ERR_UNSUPPORTED;
    u32 head = reg_head_bytes(run);
    *out = (struct bundle_reg){ .epoch = get_le32(p + 16),
                                .object_bytes = get_le64(p + 8),
                                .created_ms = (i64)get_le64(p + 24),
                                .block_count = get_le32(p + 4),
                                .run = run,
                                .retired = get_le32(p + 20) == 1,
                                .blocks = p + head };
    if (get_le32(p + 20) > run)
        return ERR_CORRUPT;
    u64 want = head + (u64)out->block_count * BUNDLE_REG_BLOCK_BYTES;
    if (value.len != want && !PLANTED(PLANT_REGISTRATION_LENGTH))
        return ERR_CORRUPT;
    if (!reg_hash_right(value))
        return ERR_CORRUPT;
    for (u32 i = 0; i < out->block_count; i++) {
        struct partition_key key;
        struct block b;
        bundle_reg_get(out, i, 0, &key, &b);
        if (!reg_block_sane(out, &b))
            return ERR_CORRUPT;
    }
    if (!run)
        return ERR_NONE;
    out->cover_from = (i64)get_le64(p + 40);
    out->cover_to = (i64)get_le64(p + 48);
    out->clean_to = (i64)get_le64(p + 56);
    return reg_run_sane(out) ? ERR_NONE : ERR_CORRUPT;
}

void bundle_reg_get(const struct bundle_reg *reg, u32 i, u64 bundle, struct partition_key *key,
                    struct block *b)
{
    CHECK(i < reg->block_count);
    bundle_reg_block_get(reg->blocks + (size_t)i * BUNDLE_REG_BLOCK_BYTES, bundle, key, b);
}

void bundle_reg_block_get(const u8 *p, u64 bundle, struct partition_key *key, struct block *b)
{
    get_key(p, key);
    *b = (struct block){ .bundle = bundle,
                         .pos = get_le32(p + 20),
                         .bytes = get_le32(p + 24),
                         .data_bytes = get_le32(p + 28),
                         .base_offset = (i64)get_le64(p + 32),
                         .last_offset = (i64)get_le64(p + 40),
                         .max_timestamp = (i64)get_le64(p + 48) };
}
