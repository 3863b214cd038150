/* Objects of the metadata's backup, as a damaged or foreign store may hold them. The first byte:
 *   0  an object as it is; 1 with its checksum made right
 *   2  a name
 *   3  changes, which are written as an object and read back */
#include "../../storage/backup_format.h"
#include "check.h"
#include "choice.h"
#include "mem.h"
#include "repair.h"
#include "store.h"

int LLVMFuzzerTestOneInput(const u8 *in, size_t size);

static void fuzz_object(u8 *p, u32 len, bool fix)
{
    struct backup_head h;
    struct bytes ops;
    struct meta_op op;
    if (fix)
        repair_backup(p, len);
    if (backup_decode(bytes_of(p, len), &h, &ops) != ERR_NONE)
        return;
    u64 bytes = 0;
    struct backup_buf again = { 0 };
    for (u32 i = 0; i < h.op_count; i++) {
        bool there = backup_op_next(&ops, &op);
        CHECK(there);
        bytes += backup_op_size(&op);
        backup_buf_add(&again, &op);
    }
    CHECK(ops.len == 0 && bytes + BACKUP_HEAD_BYTES == len);
    struct bytes o = backup_buf_end(&again, h);
    CHECK(bytes_eq(o, bytes_of(p, len)));
    backup_buf_free(&again);
}

static void fuzz_name(const u8 *p, u32 len)
{
    char text[80], again[BACKUP_NAME_SIZE];
    u32 n = MIN(len, 79u);
    struct backup_name name;
    memcpy(text, p, n);
    text[n] = '\0';
    if (!backup_name_parse(text, &name))
        return;
    CHECK(strcmp(backup_name(again, name), text) == 0);
    CHECK(store_name_valid(text));
}

/* Each: u8 kind, u8 length of the key, u8 length of the value, the bytes. */
static void fuzz_changes(const u8 *p, u32 len)
{
    struct backup_buf b = { 0 };
    struct backup_head h = { .kind = BACKUP_CHANGES, .epoch = 1 }, out;
    struct bytes ops;
    struct meta_op op;
    while (len >= 3) {
        u32 key = p[1], value = p[2], kind = p[0] % 3;
        p += 3;
        len -= 3;
        if (key == 0 || key + value > len)
            break;
        op =
            (struct meta_op){ (enum meta_op_kind)kind, bytes_of(p, key), bytes_of(p + key, value) };
        backup_buf_add(&b, &op);
        p += key + value;
        len -= key + value;
    }
    u32 count = b.op_count;
    struct bytes o = backup_buf_end(&b, h);
    err e = backup_decode(o, &out, &ops);
    CHECK(e == ERR_NONE && out.op_count == count);
    backup_buf_free(&b);
}

static void fuzz_part(u32 choice, u8 *p, u32 len)
{
    switch (choice) {
    case 0:
    case 1:
        fuzz_object(p, len, choice == 1);
        break;
    case 2:
        fuzz_name(p, len);
        break;
    default:
        fuzz_changes(p, len);
    }
}

int LLVMFuzzerTestOneInput(const u8 *in, size_t size)
{
    return fuzz_choice(in, size, 4, fuzz_part);
}
