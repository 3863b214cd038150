/* hash: values are stable for ever, because they are on disk. */
#include "hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"

static void values_never_change(void **state)
{
    (void)state;
    assert_true(hash_bytes("", 0) == 0x2d06800538d394c2u); /* XXH3's published empty value */
    assert_true(hash_str("") == hash_bytes(NULL, 0));
    assert_true(hash_str("leat") == hash_view(bytes_str("leat")));
    assert_true(hash_bytes_seeded("leat", 4, 0) == hash_bytes("leat", 4));
    assert_true(hash_bytes_seeded("leat", 4, 1) != hash_bytes("leat", 4));
    assert_true(hash_view((struct bytes){ NULL, 0 }) == hash_str(""));
    struct uuid id = { { 1, 2, 3 } };
    assert_true(hash_uuid(id) == hash_bytes(id.b, 16));
    assert_true(hash_u64(1) != hash_u64(2));
}

static void pieces_equal_the_whole(void **state)
{
    (void)state;
    static u8 b[5000];
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (u8)(i * 31);
    for (size_t piece = 1; piece < 1100; piece = piece * 2 + 1) {
        struct hash_stream h;
        hash_stream_init(&h, 42);
        for (size_t at = 0; at < sizeof b; at += piece) {
            hash_stream_update(&h, b + at, MIN(piece, sizeof b - at));
            (void)hash_stream_value(&h);
        }
        assert_true(hash_stream_value(&h) == hash_bytes_seeded(b, sizeof b, 42));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_never_change),
        cmocka_unit_test(pieces_equal_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
