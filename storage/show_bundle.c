/* leat-show for bundles and runs: reads the whole object, verifies all of it, prints it. */
#include "show_int.h"

#include <stdio.h>

#include "bundle_int.h"

u8 *show_file_load(const char *path, u32 *len)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return NULL;
    }
    u8 *bytes = NULL;
    u64 used = 0, cap = 0;
    for (;;) {
        if (used == cap) {
            cap = cap ? cap * 2 : MIB;
            if (cap > 4 * GIB) {
                fprintf(stderr, "%s: too large for a bundle\n", path);
                break;
            }
            bytes = mem_realloc(bytes, cap);
        }
        size_t n = fread(bytes + used, 1, cap - used, f);
        used += n;
        if (n == 0) {
            bool failed = ferror(f);
            fclose(f);
            *len = (u32)used;
            if (!failed && used < UINT32_MAX)
                return bytes;
            fprintf(stderr, "%s: can't be read\n", path);
            mem_free(bytes);
            return NULL;
        }
    }
    fclose(f);
    mem_free(bytes);
    return NULL;
}

static int damaged(const char *path, u64 offset, const char *what, err e)
{
    fprintf(stderr, "%s: offset %" PRIu64 ": %s: %s\n", path, offset, what, err_text(e));
    return 1;
}

static void print_uuid(struct uuid id)
{
    for (u32 i = 0; i < 16; i++)
        printf("%02x", id.b[i]);
}

static int show_batches(const char *path, struct bytes data, u64 at)
{
    struct batch b;
    while (data.len > 0) {
        err e = batch_next(&data, &b);
        if (e != ERR_NONE)
            return damaged(path, at, "batch", e);
        err crc = batch_check_crc(&b);
        printf("    batch pos=%" PRIu64 " bytes=%u offsets=%" PRId64 "..%" PRId64
               " leader_epoch=%d records=%d codec=%u max_timestamp=%" PRId64 " producer=%" PRId64
               "/%d/%d crc=%s\n",
               at, b.bytes, b.base_offset, batch_last_offset(&b), b.leader_epoch, b.record_count,
               batch_codec_bits(&b), b.max_timestamp, b.producer_id, b.producer_epoch,
               b.base_sequence, crc == ERR_NONE ? "ok" : "BAD");
        if (crc != ERR_NONE)
            return damaged(path, at, "CRC of a batch", crc);
        at += b.bytes;
    }
    return 0;
}

static int show_block(const char *path, const u8 *bytes, const struct bundle_entry *e, int verbose)
{
    struct bundle_entry header;
    struct bytes data;
    err rc = bundle_block_decode(bytes_of(bytes + e->pos, bundle_block_bytes(e)), &header, &data);
    if (verbose > 0) {
        printf("  block pos=%u data_bytes=%u topic_id=", e->pos, e->data_bytes);
        print_uuid(e->key.topic_id);
        printf(" partition=%u offsets=%" PRId64 "..%" PRId64 " batches=%u max_timestamp=%" PRId64
               " hash=%016" PRIx64 "\n",
               e->key.partition, e->base_offset, e->last_offset, e->batch_count, e->max_timestamp,
               e->hash);
    }
    if (rc != ERR_NONE)
        return damaged(path, e->pos, "block", rc);
    if (header.hash != e->hash)
        return damaged(path, e->pos, "block and index differ", ERR_CORRUPT);
    int status = verbose > 1 ? show_batches(path, data, e->pos + BUNDLE_BLOCK_HEADER_BYTES) : 0;
    rc = bundle_data_check(data, e);
    return rc != ERR_NONE ? damaged(path, e->pos, "batches of the block", rc) : status;
}

static int show_blocks(const char *path, const u8 *bytes, const struct bundle_footer *f,
                       int verbose)
{
    struct bytes index = bytes_of(bytes + f->index_pos, f->entry_count * BUNDLE_ENTRY_BYTES);
    err e = bundle_index_check(index, f);
    if (e != ERR_NONE)
        return damaged(path, f->index_pos, "index", e);
    int status = 0;
    u64 data_bytes = 0, batches = 0;
    for (u32 i = 0; i < f->entry_count; i++) {
        struct bundle_entry entry;
        bundle_index_entry(index, i, &entry);
        data_bytes += entry.data_bytes;
        batches += entry.batch_count;
        status |= show_block(path, bytes, &entry, verbose);
    }
    printf("total data_bytes=%" PRIu64 " batches=%" PRIu64 " %s\n", data_bytes, batches,
           status == 0 ? "sound" : "DAMAGED");
    return status;
}

int show_bundle(const char *path, int verbose)
{
    u32 len;
    u8 *bytes = show_file_load(path, &len);
    if (bytes == NULL)
        return 1;
    int status = 1;
    u32 wal;
    u64 seq;
    struct bundle_footer f;
    err e = bundle_header_decode(bytes_of(bytes, MIN(len, BUNDLE_HEADER_BYTES)), &wal, &seq);
    if (e != ERR_NONE || len < BUNDLE_HEADER_BYTES + BUNDLE_FOOTER_BYTES) {
        status = damaged(path, 0, "header", e != ERR_NONE ? e : ERR_TRUNCATED);
        goto out;
    }
    u64 footer_at = len - BUNDLE_FOOTER_BYTES;
    e = bundle_footer_decode(bytes_of(bytes + footer_at, BUNDLE_FOOTER_BYTES), len, &f);
    if (e != ERR_NONE) {
        status = damaged(path, footer_at, "footer", e);
        goto out;
    }
    bool run = f.wal & RUN_WAL;
    printf("%s file=%s bytes=%u version=%u wal=%u %s=%" PRIu64 " epoch=%u blocks=%u "
           "index_pos=%" PRIu64 "\n",
           run ? "run" : "bundle", path, len, BUNDLE_FORMAT_VERSION, f.wal & ~RUN_WAL,
           run ? "number" : "segment", run ? f.seq & (RUN_FRESH | RUN_NUMBER_MAX) : f.seq, f.epoch,
           f.entry_count, f.index_pos);
    status = show_blocks(path, bytes, &f, verbose);
    if (f.wal != wal || f.seq != seq)
        status = damaged(path, 0, "header and footer differ", ERR_CORRUPT);
out:
    mem_free(bytes);
    return status;
}
