/* What the metadata store and __consumer_offsets give back, decoder by decoder (start_fuzz starts
 * a whole node on it, a thousand times slower). The first byte picks the door:
 *   0  the snapshot of a partition's producers: what is taken is written again and read again
 *   1  a topic: its name up to the first 0, then the value
 *   2  records of __consumer_offsets, each u16 length of key and value (0xffff: null) and bytes;
 *      then loading is over, sessions begin, and every group is written again as records
 *   3  a key of a partition or a bundle
 *   4  the note of a discarded object: its key up to the first 0, then the value */
#include <sanitizer/lsan_interface.h>
#include <string.h>

#include "../../core/broker/broker_int.h"
#include "../../core/group/group_int.h"
#include "../../storage/discard.h"
#include "../../storage/storage_int.h"
#include "clock.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct config cfg;
static struct broker broker;
static struct node node;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_threshold = LOG_ERROR + 1;
    config_init(&cfg);
    node.cfg = &cfg;
    node.group.count = 1;
    node.group.shards[0] = &broker.shard;
    node.brokers[0] = &broker;
    broker.node = &node;
    MAGIC_INIT(&broker, BROKER_MAGIC);
    __lsan_disable(); /* it does not look into mem_map's memory, where mailboxes keep pointers */
    shard_init(&broker.shard, &node.group, 0, &cfg, metrics_create(), 1);
    __lsan_enable();
    return 0;
}

/* ---- producers ---- */

static void fuzz_producers(struct bytes in)
{
    struct partition p = { .magic = PARTITION_MAGIC }, q = { .magic = PARTITION_MAGIC };
    struct arena a;
    arena_init(&a, 4096, 64 * MIB);
    if (producers_restore(&p, in) == ERR_NONE) {
        p.producers_changed = q.producers_changed = true;
        struct bytes first = producers_snapshot(&p, &a);
        CHECK(first.data && producers_restore(&q, first) == ERR_NONE);
        struct bytes second = producers_snapshot(&q, &a);
        CHECK(bytes_eq(first, second) && q.producer_count == p.producer_count);
    }
    producers_free(&p);
    producers_free(&q);
    arena_free(&a);
}

/* ---- topics ---- */

static void fuzz_topic(struct bytes in)
{
    const u8 *zero = in.len ? memchr(in.data, 0, in.len) : NULL;
    if (!zero)
        return;
    u32 n = (u32)(zero - in.data);
    struct topic *t = topic_decode(&cfg, bytes_of(in.data, n), bytes_of(zero + 1, in.len - n - 1));
    if (!t)
        return;
    CHECK(t->partition_count > 0 && topic_name_valid(t->name));
    topic_free(t);
}

/* ---- groups ---- */

static bool take(struct bytes *in, struct bytes *out)
{
    if (in->len < 2)
        return false;
    u32 n = get_be16(in->data);
    *in = bytes_of(in->data + 2, in->len - 2);
    *out = (struct bytes){ NULL, 0 };
    if (n == UINT16_MAX)
        return true;
    *out = bytes_of(in->data, MIN(n, in->len));
    *in = bytes_of(in->data + out->len, in->len - out->len);
    return true;
}

/* As the end of loading does, and what a rebalance or a commit would write. */
static void groups_use(struct coordinator *c)
{
    struct group *g, *next;
    HASH_ITER(hh, c->groups, g, next) {
        struct member *m, *m_next;
        MAGIC_CHECK(g, GROUP_MAGIC);
        HASH_ITER(hh, g->members, m, m_next)
            member_session_restart(m);
        group_write_begin(c);
        struct offset *o, *o_next;
        (void)!record_group(c, g);
        HASH_ITER(hh, g->offsets, o, o_next)
            (void)!record_offset(c, g, o);
        CHECK((g->state == GROUP_STABLE) == (g->members != NULL));
    }
}

static void fuzz_groups(struct bytes in)
{
    struct record r = { 0 };
    coordinator_start(&broker);
    struct coordinator *c = broker.coordinator;
    struct group_partition gp = { .coordinator = c };
    while (take(&in, &r.key) && take(&in, &r.value))
        record_apply(&gp, &r);
    groups_use(c);
    coordinator_free(&broker);
}

/* ---- keys ---- */

static void fuzz_key(struct bytes in)
{
    struct partition_key key;
    u64 bundle;
    char text[META_KEY_SIZE];
    if (meta_key_partition_parse(in, &key) && in.len > 0)
        CHECK(bytes_eq(meta_key_partition(text, (char)in.data[0], &key), in));
    if (meta_key_bundle_parse(in, &bundle))
        CHECK(bytes_eq(meta_key_bundle(text, bundle), in));
}

/* ---- notes of discarded objects ---- */

static void fuzz_note(struct bytes in)
{
    const u8 *zero = in.len ? memchr(in.data, 0, in.len) : NULL;
    struct discarded d, again;
    struct discard_note note;
    if (!zero)
        return;
    u32 n = (u32)(zero - in.data);
    struct meta_kv kv = { bytes_of(in.data, n), bytes_of(zero + 1, in.len - n - 1), 1 };
    if (discard_decode(&kv, &d) != ERR_NONE)
        return;
    struct meta_op op = discard_op(&note, &d);
    struct meta_kv written = { op.key, op.value, 1 };
    CHECK(bytes_eq(op.key, kv.key));
    CHECK(discard_decode(&written, &again) == ERR_NONE);
    CHECK(again.id == d.id && again.epoch == d.epoch && again.bytes == d.bytes &&
          again.since_ms == d.since_ms);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    u8 *copy = mem_dup(data + 1, size - 1); /* one byte too far is seen */
    struct bytes in = bytes_of(copy, (u32)size - 1);
    switch (data[0] % 5) {
    case 0:
        fuzz_producers(in);
        break;
    case 1:
        fuzz_topic(in);
        break;
    case 2:
        fuzz_groups(in);
        break;
    case 3:
        fuzz_key(in);
        break;
    default:
        fuzz_note(in);
    }
    mem_free(copy);
    return 0;
}
