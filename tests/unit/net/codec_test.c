/* The codecs: Kafka's own bytes, every message and version there and back, and bad input.
 * The random messages come from a fixed seed, so a failure replays. */
#include "codec.h"

#include <stdlib.h>
#include <string.h>

#include "../unit.h"
#include "golden_messages.h"

#define TEXT_BYTES (1 * MIB)
#define WIRE_BYTES (256 * KIB)

struct fixture {
    struct arena arena;
    struct rng rng;
    u8 *wire;      /* WIRE_BYTES */
    char *text[2]; /* TEXT_BYTES each */
};

static int set_up(void **state)
{
    struct fixture *f = MEM_NEW(struct fixture);
    arena_init(&f->arena, 64 * KIB, 64 * MIB);
    rng_init(&f->rng, 44);
    f->wire = mem_alloc(WIRE_BYTES);
    f->text[0] = mem_alloc(TEXT_BYTES);
    f->text[1] = mem_alloc(TEXT_BYTES);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    mem_free(f->wire);
    mem_free(f->text[0]);
    mem_free(f->text[1]);
    mem_free(f);
    return 0;
}

static void *new_message(struct fixture *f, const struct message_type *t)
{
    void *m = arena_alloc(&f->arena, t->struct_bytes);
    assert_non_null(m);
    return m;
}

/* Encodes into f->wire; the size must have been exact. */
static u32 encode(struct fixture *f, const struct message_type *t, i16 version, const void *m)
{
    u32 size = t->size(version, m, false);
    assert_true(size <= WIRE_BYTES);
    struct wire_writer w = wire_writer_of(f->wire, size);
    t->encode(&w, version, m);
    assert_false(w.bad);
    assert_int_equal(w.len, size);
    return size;
}

static err decode(struct fixture *f, const struct message_type *t, i16 version, u32 len,
                  struct wire_reader *r, void **out)
{
    *r = wire_reader_of(bytes_of(f->wire, len));
    *out = new_message(f, t);
    return t->decode(r, version, &f->arena, *out);
}

/* Calls `check` for every message in every version. */
static void for_all(struct fixture *f,
                    void (*check)(struct fixture *, const struct message_type *, i16))
{
    for (u32 id = 0; id < MSG_COUNT; id++) {
        const struct message_type *t = message_type((enum message_id)id);
        for (i32 v = t->min; v <= t->max; v++) {
            check(f, t, (i16)v);
            arena_reset(&f->arena);
        }
    }
}

/* ---- Kafka's bytes ---- */

static u32 from_hex(const char *hex, u8 *out)
{
    u32 n = 0;
    for (; hex[2 * n]; n++) {
        char two[3] = { hex[2 * n], hex[2 * n + 1], 0 };
        out[n] = (u8)strtoul(two, NULL, 16);
    }
    return n;
}

static const struct message_type *type_by_name(const char *name)
{
    for (u32 id = 0; id < MSG_COUNT; id++)
        if (strcmp(message_type((enum message_id)id)->name, name) == 0)
            return message_type((enum message_id)id);
    fail_msg("no message %s", name);
    return NULL;
}

static void kafkas_bytes_are_read_and_written(void **state)
{
    struct fixture *f = *state;
    u8 expected[4096];
    for (size_t i = 0; i < ARRAY_COUNT(goldens); i++) {
        const struct golden *g = &goldens[i];
        const struct message_type *t = type_by_name(g->name);
        i16 version = (i16)g->version;
        u32 len = from_hex(g->hex, expected);
        memcpy(f->wire, expected, len);
        struct wire_reader r;
        void *m;
        assert_int_equal(decode(f, t, version, len, &r, &m), ERR_NONE);
        assert_ptr_equal(r.pos, r.end);
        t->print(version, m, f->text[0], TEXT_BYTES);
        assert_string_equal(f->text[0], g->text);
        u8 *again = arena_alloc(&f->arena, len); /* the views of m lie in f->wire */
        struct wire_writer w = wire_writer_of(again, len);
        t->encode(&w, version, m);
        assert_false(w.bad);
        assert_int_equal(w.len, len);
        assert_memory_equal(again, expected, len);
        arena_reset(&f->arena);
    }
}

/* ---- there and back ---- */

static void check_round_trip(struct fixture *f, const struct message_type *t, i16 version)
{
    for (u32 round = 0; round < 8; round++) {
        void *m = new_message(f, t), *back;
        assert_true(t->random(&f->rng, version, &f->arena, m));
        u32 len = encode(f, t, version, m);
        struct wire_reader r;
        assert_int_equal(decode(f, t, version, len, &r, &back), ERR_NONE);
        assert_ptr_equal(r.pos, r.end);
        u32 n = t->print(version, m, f->text[0], TEXT_BYTES);
        assert_true(n < TEXT_BYTES);
        t->print(version, back, f->text[1], TEXT_BYTES);
        assert_string_equal(f->text[0], f->text[1]);
        assert_int_equal(t->size(version, back, false), len);
    }
}

static void every_message_survives_the_round_trip(void **state)
{
    for_all(*state, check_round_trip);
}

static void check_defaults(struct fixture *f, const struct message_type *t, i16 version)
{
    void *m = new_message(f, t), *back;
    memset(m, 0x5a, t->struct_bytes);
    t->init(m);
    u32 len = encode(f, t, version, m);
    struct wire_reader r;
    assert_int_equal(decode(f, t, version, len, &r, &back), ERR_NONE);
    t->print(t->max, m, f->text[0], TEXT_BYTES);
    t->print(t->max, back, f->text[1], TEXT_BYTES);
    /* A default that is null only in later versions comes back as empty from older ones. */
    if (version == t->max)
        assert_string_equal(f->text[0], f->text[1]);
}

static void defaults_are_set_and_absent_fields_get_them(void **state)
{
    for_all(*state, check_defaults);
    struct fetch_request m = { 0 };
    struct wire_writer w = wire_writer_of(((struct fixture *)*state)->wire, WIRE_BYTES);
    fetch_request_init(&m);
    fetch_request_encode(&w, 4, &m);
    memset(&m, 0x5a, sizeof m);
    struct wire_reader r = wire_reader_of(bytes_of(w.buf, w.len));
    assert_int_equal(fetch_request_decode(&r, 4, &((struct fixture *)*state)->arena, &m), ERR_NONE);
    assert_int_equal(m.session_epoch, -1);
    assert_int_equal(m.replica_state.replica_epoch, -1);
    assert_null(m.cluster_id.data);
    assert_non_null(m.rack_id.data);
    assert_int_equal(m.rack_id.len, 0);
}

/* ---- scattered records ---- */

static void records_of_a_response_can_be_left_out_of_the_buffer(void **state)
{
    struct fixture *f = *state;
    struct fetch_response_partition_data partitions[3];
    struct fetch_response_fetchable_topic_response topic;
    struct fetch_response m;
    const u8 *opaque = (const u8 *)8; /* never read through */
    for (u32 i = 0; i < 3; i++) {
        fetch_response_partition_data_init(&partitions[i]);
        partitions[i].partition_index = (i32)i;
        partitions[i].records = bytes_of(i == 1 ? f->wire : opaque, i == 1 ? 0 : 1000 + i);
    }
    fetch_response_fetchable_topic_response_init(&topic);
    topic.partitions.v = partitions;
    topic.partitions.n = 3;
    fetch_response_init(&m);
    m.responses.v = &topic;
    m.responses.n = 1;
    for (i16 v = 4; v <= 18; v++) {
        struct wire_ref refs[2];
        u32 size = fetch_response_size(v, &m, true);
        assert_int_equal(fetch_response_size(v, &m, false), size + 2002);
        struct wire_writer w = wire_writer_of(f->wire, size);
        w.refs = refs;
        w.refs_cap = 2;
        fetch_response_encode(&w, v, &m);
        assert_false(w.bad);
        assert_int_equal(w.len, size);
        assert_int_equal(w.refs_count, 2);
        assert_int_equal(refs[0].bytes.len, 1000);
        assert_int_equal(refs[1].bytes.len, 1002);
        assert_ptr_equal(refs[1].bytes.data, opaque);
        /* Filling the holes gives a whole message. */
        u8 *whole = arena_alloc(&f->arena, size + 2002), *p = whole;
        memcpy(p, f->wire, refs[0].at);
        p += refs[0].at + 1000;
        memcpy(p, f->wire + refs[0].at, refs[1].at - refs[0].at);
        p += refs[1].at - refs[0].at + 1002;
        memcpy(p, f->wire + refs[1].at, size - refs[1].at);
        struct wire_reader r = wire_reader_of(bytes_of(whole, size + 2002));
        struct fetch_response back;
        assert_int_equal(fetch_response_decode(&r, v, &f->arena, &back), ERR_NONE);
        assert_ptr_equal(r.pos, r.end);
        assert_int_equal(back.responses.v[0].partitions.v[2].records.len, 1002);
        w = wire_writer_of(f->wire, size);
        w.refs = refs;
        w.refs_cap = 1;
        fetch_response_encode(&w, v, &m);
        assert_true(w.bad);
    }
}

/* ---- bad input ---- */

static void check_truncation(struct fixture *f, const struct message_type *t, i16 version)
{
    void *m = new_message(f, t), *back;
    assert_true(t->random(&f->rng, version, &f->arena, m));
    u32 whole = encode(f, t, version, m);
    for (u32 len = 0; len < whole; len++) {
        /* A copy of its own, so that a read past the end is one past the allocation. */
        u8 *cut = mem_dup(f->wire, len);
        struct wire_reader r = wire_reader_of(bytes_of(cut, len));
        back = new_message(f, t);
        assert_int_equal(t->decode(&r, version, &f->arena, back), ERR_MALFORMED);
        mem_free(cut);
    }
    for (u32 len = 0; len < whole; len++) {
        struct wire_writer w = wire_writer_of(f->wire, len);
        t->encode(&w, version, m);
        assert_true(w.bad && w.len <= len);
    }
}

static void every_truncation_is_refused(void **state)
{
    for_all(*state, check_truncation);
}

static void check_mutation(struct fixture *f, const struct message_type *t, i16 version)
{
    for (u32 round = 0; round < 16; round++) {
        void *m = new_message(f, t), *back;
        assert_true(t->random(&f->rng, version, &f->arena, m));
        u32 len = encode(f, t, version, m);
        for (u32 i = 0; len > 0 && i <= round; i++)
            f->wire[rng_below(&f->rng, len)] = (u8)rng_next(&f->rng);
        struct wire_reader r;
        err e = decode(f, t, version, len, &r, &back);
        assert_true(e == ERR_NONE || e == ERR_MALFORMED || e == ERR_NO_MEMORY);
        assert_true(r.pos <= r.end);
        if (e == ERR_NONE)
            t->print(version, back, f->text[0], 64); /* every view can be read */
    }
}

static void damaged_messages_are_safe(void **state)
{
    for_all(*state, check_mutation);
}

static void check_unknown_tag(struct fixture *f, const struct message_type *t, i16 version)
{
    if (version < t->flexible_from || t->struct_bytes == 0)
        return;
    void *m = new_message(f, t), *back;
    t->init(m);
    u32 len = encode(f, t, version, m);
    if (f->wire[len - 1] != 0) /* a tagged null ends the message, not the count of tags */
        return;
    static const u8 tags[] = { 2, 99, 3, 'a', 'b', 'c', 0xe8, 0x07, 0 };
    memcpy(f->wire + len - 1, tags, sizeof tags);
    struct wire_reader r;
    err e = decode(f, t, version, len - 1 + (u32)sizeof tags, &r, &back);
    if (strcmp(t->name, "ConsumerGroupMemberMetadataValue") == 0)
        return; /* its last byte is the null of an optional struct */
    assert_int_equal(e, ERR_NONE);
    assert_ptr_equal(r.pos, r.end);
    t->print(version, m, f->text[0], TEXT_BYTES);
    t->print(version, back, f->text[1], TEXT_BYTES);
    assert_string_equal(f->text[0], f->text[1]);
}

static void unknown_tagged_fields_are_skipped(void **state)
{
    for_all(*state, check_unknown_tag);
}

static err decode_hex(struct fixture *f, const char *name, i16 version, const char *hex)
{
    struct wire_reader r;
    void *m;
    u32 len = from_hex(hex, f->wire);
    return decode(f, type_by_name(name), version, len, &r, &m);
}

static void malformed_messages_are_refused(void **state)
{
    struct fixture *f = *state;
    /* Groups: null where it must not be. */
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 0, "ffffffff"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 0, "00000001ffff"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 0, "00000001fffe"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 0, "fffffffe"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "000000"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "010000"), ERR_NONE);
    /* Counts that the bytes left cannot hold. */
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 0, "7fffffff0000"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "ffffffff0f00"), ERR_MALFORMED);
    /* A varint that never ends, one of more than 32 bits. */
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "808080808080"), ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "818080801000"), ERR_MALFORMED);
    /* A tagged field that is longer than the rest. */
    assert_int_equal(decode_hex(f, "DescribeGroupsRequest", 5, "0100010502aa"), ERR_MALFORMED);
    /* A known tagged field with a wrong length: ApiVersionsResponse.FinalizedFeaturesEpoch. */
    assert_int_equal(decode_hex(f, "ApiVersionsResponse", 3,
                                "00000100000000010104000000"
                                "05"),
                     ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "ApiVersionsResponse", 3,
                                "0000010000000001010900000000"
                                "0000000500"),
                     ERR_MALFORMED);
    assert_int_equal(decode_hex(f, "ApiVersionsResponse", 3,
                                "000001000000000101080000000000"
                                "000005"),
                     ERR_NONE);
    /* Versions that do not exist. */
    assert_int_equal(decode_hex(f, "ProduceRequest", 2, "00"), ERR_UNSUPPORTED_VERSION);
    assert_int_equal(decode_hex(f, "ProduceRequest", 14, "00"), ERR_UNSUPPORTED_VERSION);
    assert_int_equal(decode_hex(f, "ProduceRequest", -1, "00"), ERR_UNSUPPORTED_VERSION);
}

static void hostile_counts_end_at_the_arenas_limit(void **state)
{
    struct fixture *f = *state;
    struct arena small;
    arena_init(&small, 4 * KIB, 64 * KIB);
    /* 100,000 topics of at least a byte each: the count is possible, the memory is not granted. */
    memset(f->wire, 0, 200 * KIB);
    put_be32(f->wire, 100000);
    struct wire_reader r = wire_reader_of(bytes_of(f->wire, 200 * KIB));
    struct metadata_request m;
    assert_int_equal(metadata_request_decode(&r, 1, &small, &m), ERR_NO_MEMORY);
    arena_free(&small);
}

/* ---- null and length rules of the encoder ---- */

static void null_is_written_as_empty_where_null_is_unknown(void **state)
{
    struct fixture *f = *state;
    struct metadata_request m;
    metadata_request_init(&m);
    m.topics.n = -1;
    u32 len = encode(f, message_type(MSG_metadata_request), 0, &m);
    assert_int_equal(len, 4);
    assert_int_equal(get_be32(f->wire), 0);
    encode(f, message_type(MSG_metadata_request), 1, &m);
    assert_int_equal(get_be32(f->wire), UINT32_MAX);
}

static void too_long_strings_are_not_encoded(void **state)
{
    struct fixture *f = *state;
    struct sasl_handshake_request m;
    sasl_handshake_request_init(&m);
    m.mechanism = bytes_of(f->text[0], 32768);
    struct wire_writer w = wire_writer_of(f->wire, WIRE_BYTES);
    sasl_handshake_request_encode(&w, 1, &m);
    assert_true(w.bad);
}

static void printing_is_cut_at_the_buffer(void **state)
{
    (void)state;
    struct sasl_handshake_request m = { .mechanism = bytes_str("PL\"AIN") };
    char text[8];
    assert_int_equal(sasl_handshake_request_print(1, &m, text, sizeof text), 23);
    assert_string_equal(text, "{\"mecha");
    char whole[64];
    sasl_handshake_request_print(1, &m, whole, sizeof whole);
    assert_string_equal(whole, "{\"mechanism\":\"PL\\\"AIN\"}");
}

/* ---- the table ---- */

static void the_table_knows_every_api(void **state)
{
    (void)state;
    u32 apis = 0, brokers = 0;
#define NEVER CODEC_VERSION_NEVER
#define API(key, name, low, high, flexible, broker)                    \
    {                                                                  \
        const struct message_type *q = message_request_type(key);      \
        const struct message_type *p = message_response_type(key);     \
        assert_ptr_equal(q, message_type(MSG_##name##_request));       \
        assert_ptr_equal(p, message_type(MSG_##name##_response));      \
        assert_int_equal(q->min, p->min);                              \
        assert_int_equal(q->max, p->max);                              \
        assert_int_equal(q->max - (q->latest_unstable ? 1 : 0), high); \
        assert_int_equal(q->flexible_from, flexible);                  \
        assert_true(q->min == (low) || (key) == 0);                    \
        apis++;                                                        \
        brokers += (broker) ? 1 : 0;                                   \
    }
#include "apis.def"
#undef API
#undef NEVER
    assert_int_equal(apis, 91);
    assert_int_equal(brokers, 79);
    for (i32 key = 4; key <= 7; key++)
        assert_null(message_request_type((i16)key));
    assert_null(message_request_type(-1));
    assert_null(message_request_type(95));
    assert_null(message_response_type(INT16_MAX));
    assert_true(message_request_type(22)->latest_unstable);
}

static void header_versions_follow_the_message(void **state)
{
    (void)state;
    assert_int_equal(request_header_version(0, 8), 1);
    assert_int_equal(request_header_version(0, 9), 2);
    assert_int_equal(response_header_version(0, 8), 0);
    assert_int_equal(response_header_version(0, 9), 1);
    assert_int_equal(request_header_version(18, 3), 2);
    assert_int_equal(request_header_version(18, 99), 2);
    assert_int_equal(response_header_version(18, 3), 0);
    assert_int_equal(request_header_version(17, 1), 1);
    assert_int_equal(request_header_version(47, 0), 1);
    assert_int_equal(request_header_version(999, 7), 1);
    assert_int_equal(response_header_version(-5, 7), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(kafkas_bytes_are_read_and_written),
        T(every_message_survives_the_round_trip),
        T(defaults_are_set_and_absent_fields_get_them),
        T(records_of_a_response_can_be_left_out_of_the_buffer),
        T(every_truncation_is_refused),
        T(damaged_messages_are_safe),
        T(unknown_tagged_fields_are_skipped),
        T(malformed_messages_are_refused),
        T(hostile_counts_end_at_the_arenas_limit),
        T(null_is_written_as_empty_where_null_is_unknown),
        T(too_long_strings_are_not_encoded),
        T(printing_is_cut_at_the_buffer),
        T(the_table_knows_every_api),
        T(header_versions_follow_the_message),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
