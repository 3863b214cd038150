/* A compacted topic: a keeper who writes values and tombstones of a few keys, and a scanner who
 * reads everything from the start again and again, while compaction runs all the time.
 *
 * The keeper is the topic's only writer, idempotent, one batch of a partition in flight, sent
 * again until it is acknowledged: so it knows the offset of every record before it is written, and
 * puts it into the value. What the scanner holds against that:
 *
 *   - offsets ascend; a record at an offset is the one written there
 *   - of each key the newest record is there if it is a value, and no older one stands alone:
 *     who replays the partition ends with the keeper's map. The one exception: a scan that meets a
 *     value before it is compacted away, and the place of its tombstone only when that has gone,
 *     too (consumers have delete.retention.ms for a scan, here often nothing). The next scan does
 *     not.
 *   - the end never goes back
 */
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "load.h"
#include "requests.h"

#define NAME "compacted"
#define KEYS 12u
#define PARTITIONS 2u
#define BATCH_MAX 8u
/* Scans in a row that may show a value whose tombstone is newer. */
#define STALE_MAX 4u

struct kept { /* a record, by offset */
    u8 key;
    bool tombstone;
};
struct keep_part {
    struct kept *records;
    i64 made, cap;
    i64 acked; /* all below are acknowledged */
    i64 delete_asked;
    u8 *batch; /* in flight, or to be sent again; NULL: none */
    u32 batch_len;
    bool sending;
    /* scanner */
    i64 next, end_seen;
    i64 acked_before; /* the fetch was sent */
    i64 last[KEYS];   /* offset of what was read last; -1 nothing */
    u32 stale[KEYS];
    u32 scans;
};
static struct keep_part keeps[PARTITIONS];
static struct client keeper, scanner;
static enum { KEEP_CREATE, KEEP_IDENTIFY, KEEP_ID, KEEP_WRITE } step;
static struct uuid id;
static i64 producer_id;
static i16 producer_epoch;
static u32 batches_left;
static struct tide_mark tide;
static u32 scan_at;
static struct compressor *compressor;

static void keeper_go(void *arg, u64 x);
static void scanner_go(void *arg, u64 x);

static void keeper_later(void)
{
    load_after(rnd_log(100 * NS_PER_US, 2 * load_plan.think_ns + NS_PER_MS), keeper_go, NULL, 0);
}

static bool passing(err e)
{
    return e == ERR_KAFKA_STORAGE_ERROR || e == ERR_REQUEST_TIMED_OUT ||
           e == ERR_UNKNOWN_SERVER_ERROR || e == ERR_COORDINATOR_NOT_AVAILABLE ||
           e == ERR_NOT_CONTROLLER;
}

/* ---- set-up ---- */

static void created(struct rpc *r, const void *answer)
{
    const struct create_topics_response *resp = answer;
    (void)r;
    if (resp) {
        err e = (err)resp->topics.v[0].error_code;
        if (e == ERR_NONE || e == ERR_TOPIC_ALREADY_EXISTS)
            step = KEEP_IDENTIFY;
        else if (!passing(e))
            sim_fail("create topic: " NAME ": %s", err_name(e));
    }
    keeper_later();
}

static void create(void)
{
    static char retention[24], lag[24];
    struct create_topics_request q;
    struct create_topics_request_creatable_topic t;
    struct create_topics_request_creatable_topic_config c[4] = {
        { bytes_str("cleanup.policy"), bytes_str("compact") },
        { bytes_str("min.cleanable.dirty.ratio"), bytes_str("0.01") },
        { bytes_str("delete.retention.ms"), bytes_str(retention) },
        { bytes_str("min.compaction.lag.ms"), bytes_str(lag) },
    };
    if (!retention[0]) {
        snprintf(retention, sizeof retention, "%" PRIu64, one_in(2) ? rnd_log(1, 10000) : 0);
        snprintf(lag, sizeof lag, "%" PRIu64, one_in(3) ? rnd_log(1, 2000) : 0);
    }
    if (load_plan.deletes) /* else nobody may delete records */
        c[0].value = bytes_str("compact,delete");
    c[2].value = bytes_str(retention);
    c[3].value = bytes_str(lag);
    create_topics_request_init(&q);
    create_topics_request_creatable_topic_init(&t);
    q.topics.v = &t;
    q.topics.n = 1;
    t.name = bytes_str(NAME);
    t.num_partitions = PARTITIONS;
    t.replication_factor = 1;
    t.configs.v = c;
    t.configs.n = ARRAY_COUNT(c);
    client_call(&keeper, 19, 7, &q, created, NULL);
}

static void identified(struct rpc *r, const void *answer)
{
    const struct metadata_response *resp = answer;
    (void)r;
    if (resp) {
        const struct metadata_response_metadata_response_topic *t = &resp->topics.v[0];
        if (t->error_code == ERR_NONE) {
            id = t->topic_id;
            step = KEEP_ID;
        } else if (!passing((err)t->error_code)) {
            sim_fail("metadata: " NAME ": %s", err_name((err)t->error_code));
        }
    }
    keeper_later();
}

static void identify(void)
{
    struct metadata_one m;
    client_call(&keeper, 3, (i16)rnd_between(10, 13), metadata_one(&m, NAME), identified, NULL);
}

static void got_id(struct rpc *r, const void *answer)
{
    const struct init_producer_id_response *resp = answer;
    (void)r;
    if (resp && resp->error_code == ERR_NONE) {
        producer_id = resp->producer_id;
        producer_epoch = resp->producer_epoch;
        step = KEEP_WRITE;
    }
    keeper_later();
}

static void ask_id(void)
{
    struct init_producer_id_request q = init_producer_any();
    client_call(&keeper, 22, (i16)rnd_between(0, 5), &q, got_id, NULL);
}

/* ---- writing ---- */

static u64 value_id(const struct keep_part *p, i64 offset)
{
    return (u64)(p - keeps + 1) << 40 | (u64)(offset + 1);
}

static struct kept record_make(struct keep_part *p)
{
    if (p->made == p->cap) {
        p->cap = MAX(256, p->cap * 2);
        p->records = mem_realloc(p->records, (u64)p->cap * sizeof *p->records);
    }
    struct kept k = { .key = (u8)rnd(one_in(2) ? 3 : KEYS), .tombstone = one_in(4) };
    p->records[p->made++] = k;
    return k;
}

static void batch_make(struct keep_part *p)
{
    static u8 value[64 * 1024];
    struct batch_builder b;
    struct bytes out;
    batch_builder_init(&b, MIB);
    b.producer_id = producer_id;
    b.producer_epoch = producer_epoch;
    b.base_sequence = (i32)p->made;
    if (load_plan.compress && one_in(2))
        b.codec = (enum codec)rnd(CODEC_COUNT);
    i64 ms = sim.wall_base_ms + (i64)(sim.now_ns / NS_PER_MS);
    u32 count = (u32)rnd_between(1, BATCH_MAX);
    for (u32 i = 0; i < count; i++) {
        i64 offset = p->made;
        struct kept k = record_make(p);
        u8 key[2] = { 'k', k.key };
        u32 len = (u32)rnd_log(VALUE_BYTES_MIN, MIN(load_plan.value_bytes_max, 4000));
        value_fill(value, len, value_id(p, offset));
        struct bytes v = k.tombstone ? (struct bytes){ NULL, 0 } : bytes_of(value, len);
        err e = batch_builder_add(&b, ms - (i64)rnd(100), bytes_of(key, 2), v, NULL, 0);
        CHECK(e == ERR_NONE);
    }
    err e = batch_builder_finish(&b, compressor, &out);
    CHECK(e == ERR_NONE);
    p->batch = mem_dup(out.data, out.len);
    p->batch_len = out.len;
    batch_builder_free(&b);
}

static void produced(struct rpc *r, const void *answer)
{
    const struct produce_response *resp = answer;
    struct keep_part *p = r->user;
    p->sending = false;
    if (resp) {
        const struct produce_response_partition_produce_response *pr =
            &resp->responses.v[0].partition_responses.v[0];
        err e = (err)pr->error_code;
        TRACE("keeper: produce to %d: %s at %" PRId64, (int)(p - keeps), err_name(e),
              pr->base_offset);
        if (e == ERR_NONE) {
            if (pr->base_offset != p->acked)
                sim_fail("once: " NAME "-%d: a batch expected at %" PRId64 " is at %" PRId64,
                         (int)(p - keeps), p->acked, pr->base_offset);
            p->acked = p->made;
            mem_free(p->batch);
            p->batch = NULL;
            STAT(acked_batches);
        } else if (!passing(e)) {
            sim_fail("produce to " NAME "-%d: %s", (int)(p - keeps), err_name(e));
        }
    }
    keeper_later();
}

static void produce(struct keep_part *p)
{
    struct produce_one m;
    if (!p->batch) {
        if (batches_left == 0 || load_quiet)
            return;
        batches_left--;
        batch_make(p);
    }
    p->sending = true;
    client_call(&keeper, 0, 13,
                produce_one(&m, (struct topic_named){ NAME, id }, (i32)(p - keeps),
                            bytes_of(p->batch, p->batch_len)),
                produced, p);
}

static void deleted(struct rpc *r, const void *answer)
{
    const struct delete_records_response *resp = answer;
    (void)r;
    if (resp && resp->topics.n == 1) {
        err e = (err)resp->topics.v[0].partitions.v[0].error_code;
        if (e != ERR_NONE && !passing(e))
            sim_fail("delete records: " NAME ": %s", err_name(e));
    }
    keeper_later();
}

/* Below, inside or behind what is compacted: the log start goes anywhere. */
static void delete_records(struct keep_part *p)
{
    struct delete_records_one m;
    i64 offset = (i64)rnd((u64)p->acked + 1);
    p->delete_asked = MAX(p->delete_asked, offset);
    TRACE("keeper: delete %d below %" PRId64, (i32)(p - keeps), offset);
    client_call(&keeper, 21, 2, delete_records_one(&m, NAME, (i32)(p - keeps), offset), deleted,
                NULL);
}

static void keeper_write(void)
{
    struct keep_part *p = &keeps[rnd(PARTITIONS)];
    tide_refill(&tide, &batches_left);
    if (p->sending)
        keeper_later();
    else if (load_plan.deletes && !load_quiet && one_in(40))
        delete_records(p);
    else if (p->batch || (batches_left > 0 && !load_quiet))
        produce(p);
    else
        keeper_later();
}

static void keeper_go(void *arg, u64 x)
{
    (void)arg, (void)x;
    if (!keeper.up || keeper.pending > 0)
        return;
    switch (step) {
    case KEEP_CREATE:
        create();
        break;
    case KEEP_IDENTIFY:
        identify();
        break;
    case KEEP_ID:
        ask_id();
        break;
    case KEEP_WRITE:
        keeper_write();
        break;
    }
}

/* ---- scanning ---- */

static void scan_begin(struct keep_part *p)
{
    p->next = 0;
    for (u32 k = 0; k < KEYS; k++)
        p->last[k] = -1;
}

/* A whole scan is over: is it the keeper's map? */
static void scan_check(struct keep_part *p)
{
    i64 newest[KEYS];
    for (u32 k = 0; k < KEYS; k++)
        newest[k] = -1;
    for (i64 o = 0; o < p->made; o++)
        newest[p->records[o].key] = o;
    for (u32 k = 0; k < KEYS; k++) {
        i64 n = newest[k];
        if (n < 0 || n >= p->next || n < p->delete_asked || p->last[k] == n) {
            p->stale[k] = 0;
            continue;
        }
        if (!p->records[n].tombstone)
            sim_fail("compaction: " NAME "-%d: the value of key %u at %" PRId64
                     " is lost; a scan up to %" PRId64 " ends with %" PRId64,
                     (int)(p - keeps), k, n, p->next, p->last[k]);
        bool shows = p->last[k] >= 0;
        if (shows && ++p->stale[k] > STALE_MAX)
            sim_fail("compaction: " NAME "-%d: key %u was deleted at %" PRId64
                     "; its older value at %" PRId64 " is back",
                     (int)(p - keeps), k, n, p->last[k]);
        if (!shows)
            p->stale[k] = 0;
    }
    p->scans++;
}

static void record_seen(struct keep_part *p, const struct record *r, bool visible)
{
    static u8 want[64 * 1024];
    int part = (int)(p - keeps);
    if (r->offset >= p->made)
        sim_fail("data: " NAME "-%d: a record at %" PRId64 " nobody sent", part, r->offset);
    const struct kept *k = &p->records[r->offset];
    if (r->key.len != 2 || r->key.data[1] != k->key || (r->value.data == NULL) != k->tombstone)
        sim_fail("data: " NAME "-%d: the record at %" PRId64 " is not what was sent", part,
                 r->offset);
    if (r->value.data != NULL) {
        if (r->value.len < VALUE_BYTES_MIN || r->value.len > sizeof want)
            sim_fail("data: " NAME "-%d: a value of %u bytes", part, r->value.len);
        value_fill(want, r->value.len, value_id(p, r->offset));
        if (memcmp(want, r->value.data, r->value.len) != 0)
            sim_fail("data: " NAME "-%d: the value at %" PRId64 " is not what was sent", part,
                     r->offset);
    }
    if (visible)
        p->last[k->key] = r->offset;
}

static void batch_seen(struct keep_part *p, const struct batch *b)
{
    struct bytes plain;
    struct record_iter it;
    struct record r;
    i64 last = b->base_offset - 1;
    err e = b->record_count > 0 ? ERR_NONE : ERR_NOT_FOUND;
    if (batch_last_offset(b) < p->next || batch_check_crc(b) != ERR_NONE)
        sim_fail("data: " NAME "-%d: a batch from %" PRId64 " to %" PRId64 ", wanted %" PRId64,
                 (int)(p - keeps), b->base_offset, batch_last_offset(b), p->next);
    if (e == ERR_NONE) {
        if (batch_decode(compressor, b, 64 * MIB, &plain) != ERR_NONE)
            sim_fail("data: " NAME ": the batch at %" PRId64 " is damaged", b->base_offset);
        record_iter_init(&it, b, plain);
    }
    while (e == ERR_NONE && (e = record_next(&it, &r)) == ERR_NONE) {
        if (r.offset <= last || r.offset > batch_last_offset(b))
            sim_fail("offsets: " NAME ": %" PRId64 " behind %" PRId64, r.offset, last);
        last = r.offset;
        record_seen(p, &r, r.offset >= p->next);
    }
    if (e != ERR_NOT_FOUND)
        sim_fail("data: " NAME ": the records of the batch at %" PRId64 " are broken",
                 b->base_offset);
    p->next = batch_last_offset(b) + 1;
}

static void part_fetched(struct keep_part *p, const struct fetch_response_partition_data *r)
{
    err e = (err)r->error_code;
    struct bytes rest = r->records;
    struct batch b;
    if (e == ERR_OFFSET_OUT_OF_RANGE) {
        if (p->next >= p->delete_asked)
            sim_fail("durability: " NAME "-%d: offset %" PRId64 " is out of range, deleted below "
                     "%" PRId64,
                     (int)(p - keeps), p->next, p->delete_asked);
        p->next = p->delete_asked;
        return;
    }
    if (e != ERR_NONE) {
        bool flip = e == ERR_CORRUPT_MESSAGE && sim.faults.store_flip;
        if (!passing(e) && !flip && e != ERR_UNKNOWN_TOPIC_OR_PARTITION)
            sim_fail("fetch: " NAME ": %s", err_name(e));
        return;
    }
    if (r->high_watermark < p->end_seen || r->high_watermark < p->acked_before)
        sim_fail("watermarks: " NAME "-%d ends at %" PRId64 ", was seen at %" PRId64
                 ", acknowledged up to %" PRId64,
                 (int)(p - keeps), r->high_watermark, p->end_seen, p->acked_before);
    while (rest.len > 0) {
        if (batch_next(&rest, &b) != ERR_NONE)
            sim_fail("data: " NAME ": fetched bytes are no batch");
        batch_seen(p, &b);
    }
    p->end_seen = r->high_watermark;
    if (p->next > r->high_watermark && p->next > p->delete_asked)
        sim_fail("durability: " NAME "-%d: read up to %" PRId64 ", high watermark %" PRId64,
                 (int)(p - keeps), p->next, r->high_watermark);
    if (p->next >= r->high_watermark) {
        scan_check(p);
        scan_begin(p);
    }
}

static void scanner_later(void)
{
    load_after(rnd_log(NS_PER_MS, 50 * NS_PER_MS), scanner_go, NULL, 0);
}

static void fetched(struct rpc *r, const void *answer)
{
    const struct fetch_response *resp = answer;
    if (resp && resp->error_code == ERR_NONE && resp->responses.n > 0)
        part_fetched(r->user, &resp->responses.v[0].partitions.v[0]);
    scanner_later();
}

static void scanner_go(void *arg, u64 x)
{
    struct fetch_one m;
    (void)arg, (void)x;
    if (!scanner.up || scanner.pending > 0)
        return;
    if (step < KEEP_ID) {
        scanner_later();
        return;
    }
    struct keep_part *p = &keeps[scan_at++ % PARTITIONS];
    struct fetch_request *q =
        fetch_one(&m, (struct topic_named){ NAME, id }, (i32)(p - keeps), p->next);
    q->max_wait_ms = (i32)rnd(20);
    q->min_bytes = 1;
    q->max_bytes = one_in(3) ? (i32)rnd_log(1, 100000) : 1 << 20;
    p->acked_before = p->acked;
    m.p.partition_max_bytes = one_in(3) ? (i32)rnd_log(1, 100000) : 1 << 20;
    client_call(&scanner, 1, (i16)rnd_between(13, 18), q, fetched, p);
}

/* ---- life ---- */

static void keeper_ready(struct client *c)
{
    (void)c;
    keeper_go(NULL, 0);
}

static void scanner_ready(struct client *c)
{
    (void)c;
    scanner_go(NULL, 0);
}

static void lost(struct client *c)
{
    (void)c;
}

void compact_start(void)
{
    compressor = compressor_new();
    batches_left = load_plan.batches * 2;
    for (u32 i = 0; i < PARTITIONS; i++)
        scan_begin(&keeps[i]);
    client_init(&keeper, "keeper", NULL, keeper_ready, lost);
    client_init(&scanner, "scanner", NULL, scanner_ready, lost);
    client_connect(&keeper);
    client_connect(&scanner);
}

/* Everything written is acknowledged. */
bool compact_idle(void)
{
    for (u32 i = 0; i < PARTITIONS; i++)
        if (keeps[i].batch)
            return false;
    return true;
}

void compact_verify_begin(void)
{
    for (u32 i = 0; i < PARTITIONS; i++)
        keeps[i].scans = 0;
}

/* Whole scans found the map, without a stale value. */
bool compact_verified(void)
{
    if (!load_plan.compact || step < KEEP_WRITE)
        return true;
    for (u32 i = 0; i < PARTITIONS; i++) {
        if (keeps[i].scans < 2)
            return false;
        for (u32 k = 0; k < KEYS; k++)
            if (keeps[i].stale[k] > 0)
                return false;
    }
    return true;
}

void compact_describe(char *buf, size_t size)
{
    size_t at = strlen(buf);
    for (u32 i = 0; load_plan.compact && i < PARTITIONS && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at,
                               " " NAME "-%u: made %" PRId64 ", acked %" PRId64 ", scan at %" PRId64
                               ", %u scans",
                               i, keeps[i].made, keeps[i].acked, keeps[i].next, keeps[i].scans);
}
