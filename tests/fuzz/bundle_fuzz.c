/* Everything that reads bytes of bundles and registrations. The first byte of the input chooses:
 *   0  the bytes as they are: footer, index, blocks, batches
 *   1  as 0, but with all checksums made right, so that the structure behind them is reached
 *   2  a registration value; 3 the same with its checksum made right
 *   4  the data of a block: find every offset, check
 *   5  an object's name */
#include "../../storage/bundle_int.h"
#include "batch.h"
#include "check.h"
#include "choice.h"
#include "repair.h"

int LLVMFuzzerTestOneInput(const u8 *in, size_t size);

static void fuzz_object(u8 *p, u32 len, bool fix)
{
    struct bundle_footer f;
    u32 wal;
    u64 seq;
    (void)!bundle_header_decode(bytes_of(p, MIN(len, BUNDLE_HEADER_BYTES)), &wal, &seq);
    if (len < BUNDLE_FOOTER_BYTES)
        return;
    u8 *footer = p + len - BUNDLE_FOOTER_BYTES;
    if (fix)
        repair_bundle(p, len);
    if (bundle_footer_decode(bytes_of(footer, BUNDLE_FOOTER_BYTES), len, &f) != ERR_NONE)
        return;
    struct bytes index = bytes_of(p + f.index_pos, f.entry_count * BUNDLE_ENTRY_BYTES);
    if (bundle_index_check(index, &f) != ERR_NONE)
        return;
    for (u32 i = 0; i < f.entry_count; i++) {
        struct bundle_entry e, header;
        struct bytes data;
        bundle_index_entry(index, i, &e);
        err rc = bundle_block_decode(bytes_of(p + e.pos, bundle_block_bytes(&e)), &header, &data);
        if (rc == ERR_NONE)
            (void)!bundle_data_check(data, &header);
    }
}

static void fuzz_registration(u8 *p, u32 len, bool fix)
{
    struct bundle_reg reg;
    if (fix)
        repair_registration(p, len);
    if (bundle_reg_decode(bytes_of(p, len), &reg) != ERR_NONE)
        return;
    if (reg.run) {
        CHECK(reg.block_count > 0);
        CHECK(reg.cover_from < reg.cover_to && reg.clean_to <= reg.cover_to);
    }
    for (u32 i = 0; i < reg.block_count; i++) {
        struct partition_key key;
        struct block b;
        bundle_reg_get(&reg, i, 7, &key, &b);
        CHECK(b.bytes == b.data_bytes + BUNDLE_BLOCK_HEADER_BYTES);
        CHECK((u64)b.pos + b.bytes <= reg.object_bytes);
    }
}

static void fuzz_data(const u8 *p, u32 len)
{
    struct bytes data = bytes_of(p, len);
    static const i64 offsets[] = { 0, 1, 100, INT64_MAX, -1 };
    for (u32 i = 0; i < ARRAY_COUNT(offsets); i++) {
        u32 pos;
        if (bundle_data_find(data, offsets[i], &pos) == ERR_NONE)
            CHECK(pos <= len);
    }
    struct bundle_entry e = { .base_offset = 0, .last_offset = 10, .data_bytes = len };
    (void)!bundle_data_check(data, &e);
}

static void fuzz_name(const u8 *p, u32 len)
{
    char name[80], again[BUNDLE_NAME_SIZE];
    u32 n = MIN(len, 79u), epoch;
    u64 id;
    memcpy(name, p, n);
    name[n] = '\0';
    if (bundle_name_parse(name, &id, &epoch))
        CHECK(strcmp(bundle_name(again, id, epoch), name) == 0);
    (void)store_name_valid(name);
}

static void fuzz_part(u32 choice, u8 *p, u32 len)
{
    switch (choice) {
    case 0:
    case 1:
        fuzz_object(p, len, choice == 1);
        break;
    case 2:
    case 3:
        fuzz_registration(p, len, choice == 3);
        break;
    case 4:
        fuzz_data(p, len);
        break;
    default:
        fuzz_name(p, len);
    }
}

int LLVMFuzzerTestOneInput(const u8 *in, size_t size)
{
    return fuzz_choice(in, size, 6, fuzz_part);
}
