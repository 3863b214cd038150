/* Objects of the metadata's backup: what is written comes back; nothing else is taken. */
#include "../unit.h"

#include <string.h>

#include "../../../storage/backup_format.h"
#include "hash.h"

static const struct backup_head sample = { .kind = BACKUP_CHANGES,
                                           .epoch = 0x01020304,
                                           .part = 5,
                                           .seq = 0x1112131415161718,
                                           .through = 7,
                                           .time_ms = -8 };

static struct bytes sample_make(struct backup_buf *b)
{
    struct meta_op ops[] = {
        { META_PUT, bytes_str("t/topic"), bytes_str("value") },
        { META_PUT, bytes_str("empty"), { NULL, 0 } },
        { META_DELETE, bytes_str("gone"), { NULL, 0 } },
        { META_DELETE_PREFIX, bytes_str("p/"), { NULL, 0 } },
    };
    for (u32 i = 0; i < ARRAY_COUNT(ops); i++)
        backup_buf_add(b, &ops[i]);
    return backup_buf_end(b, sample);
}

static void what_is_written_comes_back(void **state)
{
    (void)state;
    struct backup_buf b = { 0 };
    struct backup_head h;
    struct bytes ops, object = sample_make(&b);
    struct meta_op op;
    assert_int_equal(backup_decode(object, &h, &ops), ERR_NONE);
    assert_int_equal(h.kind, BACKUP_CHANGES);
    assert_int_equal(h.epoch, sample.epoch);
    assert_int_equal(h.part, 5);
    assert_true(h.seq == sample.seq && h.through == 7 && h.time_ms == -8);
    assert_int_equal(h.op_count, 4);
    assert_true(backup_op_next(&ops, &op));
    assert_int_equal(op.kind, META_PUT);
    assert_true(bytes_eq_str(op.key, "t/topic") && bytes_eq_str(op.value, "value"));
    assert_true(backup_op_next(&ops, &op));
    assert_true(bytes_eq_str(op.key, "empty") && op.value.len == 0);
    assert_true(backup_op_next(&ops, &op));
    assert_int_equal(op.kind, META_DELETE);
    assert_true(backup_op_next(&ops, &op));
    assert_int_equal(op.kind, META_DELETE_PREFIX);
    assert_false(backup_op_next(&ops, &op));
    backup_buf_free(&b);
}

/* The document's bytes, so that a change of the format is noticed. */
static void the_bytes_are_those_of_the_document(void **state)
{
    (void)state;
    struct backup_buf b = { 0 };
    struct meta_op op = { META_PUT, bytes_str("k"), bytes_str("vw") };
    backup_buf_add(&b, &op);
    struct bytes o = backup_buf_end(&b, sample);
    static const u8 expected[] = { 'L',  'E',  'A',  'T',  'M',  'E',  'T',  'A',  1,    0,
                                   0,    0,    5,    0,    0,    0,    4,    3,    2,    1,
                                   5,    0,    0,    0,    0x18, 0x17, 0x16, 0x15, 0x14, 0x13,
                                   0x12, 0x11, 7,    0,    0,    0,    0,    0,    0,    0,
                                   0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,    0,
                                   0,    0,    0,    0,    0,    0 };
    static const u8 body[] = { 0, 0, 1, 0, 2, 0, 0, 0, 'k', 'v', 'w' };
    assert_int_equal(o.len, BACKUP_HEAD_BYTES + sizeof body);
    assert_memory_equal(o.data, expected, sizeof expected);
    assert_memory_equal(o.data + BACKUP_HEAD_BYTES, body, sizeof body);
    u8 *plain = mem_dup(o.data, o.len);
    memset(plain + 56, 0, 8);
    assert_true(get_le64(o.data + 56) == hash_bytes(plain, o.len));
    mem_free(plain);
    backup_buf_free(&b);
}

static void every_changed_bit_and_every_cut_is_noticed(void **state)
{
    (void)state;
    struct backup_buf b = { 0 };
    struct backup_head h;
    struct bytes ops, object = sample_make(&b);
    u8 *copy = mem_dup(object.data, object.len);
    for (u32 i = 0; i < object.len * 8; i++) {
        copy[i / 8] ^= (u8)(1u << i % 8);
        assert_int_not_equal(backup_decode(bytes_of(copy, object.len), &h, &ops), ERR_NONE);
        copy[i / 8] ^= (u8)(1u << i % 8);
    }
    for (u32 len = 0; len < object.len; len++)
        assert_int_not_equal(backup_decode(bytes_of(copy, len), &h, &ops), ERR_NONE);
    assert_int_equal(backup_decode(bytes_of(copy, object.len), &h, &ops), ERR_NONE);
    mem_free(copy);
    backup_buf_free(&b);
}

/* With a checksum that is right. */
static err decode_changed(u32 at, u8 value)
{
    struct backup_buf b = { 0 };
    struct backup_head h;
    struct bytes ops, object = sample_make(&b);
    u8 *copy = mem_dup(object.data, object.len);
    copy[at] = value;
    memset(copy + 56, 0, 8);
    put_le64(copy + 56, hash_bytes(copy, object.len));
    err e = backup_decode(bytes_of(copy, object.len), &h, &ops);
    mem_free(copy);
    backup_buf_free(&b);
    return e;
}

static void lies_under_a_right_checksum_are_refused(void **state)
{
    (void)state;
    assert_int_equal(decode_changed(8, 2), ERR_UNSUPPORTED); /* version */
    assert_int_equal(decode_changed(12, 0), ERR_CORRUPT);    /* kind */
    assert_int_equal(decode_changed(12, 6), ERR_CORRUPT);
    assert_int_equal(decode_changed(48, 5), ERR_CORRUPT); /* more changes than there are */
    assert_int_equal(decode_changed(48, 3), ERR_CORRUPT); /* fewer */
    assert_int_equal(decode_changed(52, 1), ERR_CORRUPT);
    assert_int_equal(decode_changed(64, 3), ERR_CORRUPT);   /* kind of a change */
    assert_int_equal(decode_changed(66, 0), ERR_CORRUPT);   /* length of a key */
    assert_int_equal(decode_changed(67, 2), ERR_CORRUPT);   /* a key above the bound */
    assert_int_equal(decode_changed(68, 255), ERR_CORRUPT); /* length of a value */
    assert_int_equal(decode_changed(71, 255), ERR_CORRUPT);
}

static void names_come_back(void **state)
{
    (void)state;
    static const struct backup_name all[] = {
        { BACKUP_CLAIM, 1, 0, 0 },
        { BACKUP_ALIVE, 0xffffffff, 0, 0 },
        { BACKUP_PART, 2, 3, 0x1234567890abcdef },
        { BACKUP_END, 4, 0, UINT64_MAX },
        { BACKUP_CHANGES, 5, 0, 6 },
    };
    static const char *const texts[] = { "m/00000001/claim", "m/ffffffff/alive",
                                         "m/00000002/s-1234567890abcdef-00000003",
                                         "m/00000004/s-ffffffffffffffff-end",
                                         "m/00000005/d-0000000000000006" };
    for (u32 i = 0; i < ARRAY_COUNT(all); i++) {
        char buf[BACKUP_NAME_SIZE];
        struct backup_name n;
        assert_string_equal(backup_name(buf, all[i]), texts[i]);
        assert_true(backup_name_parse(buf, &n));
        assert_true(n.kind == all[i].kind && n.epoch == all[i].epoch && n.part == all[i].part &&
                    n.seq == all[i].seq);
    }
}

static void other_names_are_not_ours(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "m/",
        "m/00000001/",
        "m/0000001/claim",
        "m/00000001/claims",
        "m/0000000G/claim",
        "b/0000/0000000000000000-00000001",
        "m/00000005/d-000000000000000",
        "m/00000005/d-00000000000000066",
        "m/00000002/s-1234567890abcdef",
        "m/00000002/s-1234567890abcdef-",
        "m/00000002/s-1234567890abcdef-0000000",
        "m/00000002/s-1234567890abcdef-ending",
        "m/00000002/x-1234567890abcdef",
    };
    for (u32 i = 0; i < ARRAY_COUNT(texts); i++) {
        struct backup_name n;
        assert_false(backup_name_parse(texts[i], &n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_comes_back),
        cmocka_unit_test(the_bytes_are_those_of_the_document),
        cmocka_unit_test(every_changed_bit_and_every_cut_is_noticed),
        cmocka_unit_test(lies_under_a_right_checksum_are_refused),
        cmocka_unit_test(names_come_back),
        cmocka_unit_test(other_names_are_not_ours),
    };
    return cmocka_run_group_tests_name("backup_format", tests, NULL, NULL);
}
