/* A partition, on the shard that owns it: the only writer of its state.
 *
 * Invariants:
 *  1. high watermark = durable offset ≤ log end (acknowledged is on this disk, or in the object
 *     store: leat.durability). No consumer sees a record that a crash can take back (P2).
 *  2. Offsets are assigned in the order of partition_append, without gaps.
 *  3. Producer state (producers.c) covers exactly what was appended, durable or not; a duplicate
 *     of a batch that is not durable yet waits for it.
 *  4. The object lives until its last append is done, also when the topic was deleted meanwhile.
 */
#include <stdio.h>

#include "broker_int.h"
#include "check.h"
#include "log.h"

static void partition_free(struct partition *p)
{
    CHECK(p->inflight == 0 && list_empty(&p->watches) && list_empty(&p->duplicates));
    producers_free(p);
    MAGIC_POISON(p);
    mem_free(p);
}

static struct partition *partition_make(struct broker *b, const struct topic *t, i32 index)
{
    struct partition *p = MEM_NEW(struct partition);
    MAGIC_INIT(p, PARTITION_MAGIC);
    p->index = index;
    p->broker = b;
    p->topic = t;
    list_init(&p->watches);
    list_init(&p->duplicates);
    metric_add(b->shard.metrics, M_partitions, 1);
    return p;
}

struct partition *partition_open(struct broker *b, const struct topic *t, i32 index)
{
    struct partition_key key = { t->id, (u32)index };
    struct pindex *px = pindex_open(b->storage, &key);
    struct partition *p = pindex_user(px);
    if (!p) {
        p = partition_make(b, t, index);
        p->pindex = px;
        pindex_set_user(px, p);
    }
    return p;
}

static void partition_fire(struct partition *p)
{
    struct list ready;
    list_init(&ready);
    list_splice_back(&ready, &p->watches);
    struct list *l;
    while ((l = list_pop_front(&ready))) {
        struct partition_watch *w = list_entry(l, struct partition_watch, link);
        w->fn(w);
    }
}

void partition_close(struct partition *p, bool deleted)
{
    MAGIC_CHECK(p, PARTITION_MAGIC);
    p->dropped = true;
    metric_sub(p->broker->shard.metrics, M_partitions, 1);
    partition_fire(p);
    struct list *l;
    while ((l = list_pop_front(&p->duplicates))) {
        struct partition_append *pa = list_entry(l, struct partition_append, link);
        pa->err = ERR_UNKNOWN_TOPIC_OR_PARTITION;
        pa->done(pa);
    }
    pindex_set_user(p->pindex, NULL);
    if (deleted)
        pindex_drop(p->pindex);
    p->pindex = NULL;
    if (p->inflight == 0)
        partition_free(p);
}

struct partition *partition_find(struct broker *b, const struct topic_entry *t, i32 index, err *why)
{
    *why = ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (!t || index < 0 || index >= t->topic->partition_count)
        return NULL;
    if (t->partitions[index])
        *why = ERR_NONE;
    else if (partition_shard(b, t->topic, index) != b->shard.index)
        *why = ERR_NOT_LEADER_OR_FOLLOWER;
    return t->partitions[index];
}

i64 partition_high_watermark(const struct partition *p)
{
    return pindex_durable_offset(p->pindex);
}

bool partition_in_store(const struct partition *p)
{
    return p->pindex && pindex_is_object(p->pindex);
}

i64 partition_start(const struct partition *p)
{
    return pindex_start_offset(p->pindex);
}

void partition_watch(struct partition *p, struct partition_watch *w, watch_fn fn)
{
    w->fn = fn;
    list_init(&w->link);
    list_push_back(&p->watches, &w->link);
}

void partition_unwatch(struct partition_watch *w)
{
    list_remove(&w->link);
}

err partition_check_epoch(const struct partition *p, i32 current_leader_epoch)
{
    if (current_leader_epoch < 0 || current_leader_epoch == p->leader_epoch)
        return ERR_NONE;
    return current_leader_epoch < p->leader_epoch ? ERR_FENCED_LEADER_EPOCH
                                                  : ERR_UNKNOWN_LEADER_EPOCH;
}

/* ---- append ---- */

/* Duplicates whose original has become durable, or never will. */
static void duplicates_release(struct partition *p)
{
    list_for_safe(l, &p->duplicates) {
        struct partition_append *pa = list_entry(l, struct partition_append, link);
        bool durable = pa->last_offset < partition_high_watermark(p);
        if (durable || p->failed != ERR_NONE) {
            pa->err = durable ? ERR_NONE : p->failed;
            list_remove(&pa->link);
            pa->done(pa);
        }
    }
}

/* The high watermark moved, or never will. */
static void partition_moved(struct partition *p)
{
    if (!list_empty(&p->duplicates))
        duplicates_release(p);
    if (!list_empty(&p->watches))
        partition_fire(p);
}

/* False: it is gone now. */
static bool partition_inflight_less(struct partition *p)
{
    CHECK(p->inflight > 0);
    p->inflight--;
    if (p->dropped && p->inflight == 0)
        partition_free(p);
    else
        return !p->dropped;
    return false;
}

static void partition_appended(struct append *a)
{
    struct partition_append *pa = container_of(a, struct partition_append, append);
    struct partition *p = pa->partition;
    MAGIC_CHECK(p, PARTITION_MAGIC);
    pa->err = p->dropped ? ERR_UNKNOWN_TOPIC_OR_PARTITION : err_to_kafka(a->err);
    if (pa->err != ERR_NONE)
        p->failed = pa->err;
    pa->done(pa);
    if (partition_inflight_less(p))
        partition_moved(p);
}

bool partition_append_abandon(struct partition_append *pa)
{
    struct partition *p = pa->partition;
    if (list_linked(&pa->link)) { /* a duplicate that waits for its original */
        list_remove(&pa->link);
        return true;
    }
    if (!pa->append.p || !storage_append_abandon(&pa->append))
        return false;
    (void)partition_inflight_less(p);
    return true;
}

static void duplicate_now(struct shard *at, struct msg *m)
{
    (void)at;
    struct partition_append *pa = container_of(m, struct partition_append, msg);
    pa->done(pa);
}

/* The batch is there already: same offsets, done when the original is durable (never inside). */
static err partition_duplicate(struct partition *p, const struct batch *b,
                               const struct producer_batch *dup, struct partition_append *pa)
{
    bool durable = dup->last_offset < partition_high_watermark(p);
    if (!durable && p->failed != ERR_NONE)
        return p->failed;
    pa->base_offset = dup->last_offset - b->last_offset_delta;
    pa->last_offset = dup->last_offset;
    pa->log_append_ms = -1;
    pa->err = ERR_NONE;
    metric_add(p->broker->shard.metrics, M_produce_duplicates, 1);
    if (durable)
        shard_send(&p->broker->shard, p->broker->shard.index, &pa->msg, duplicate_now);
    else
        list_push_back(&p->duplicates, &pa->link);
    return ERR_NONE;
}

static void rules_of_topic(const struct partition *p, struct batch_rules *r)
{
    const struct topic_config *tc = &p->topic->config;
    static const enum topic_config_id levels[CODEC_COUNT] = {
        [CODEC_GZIP] = TC_compression_gzip_level,
        [CODEC_LZ4] = TC_compression_lz4_level,
        [CODEC_ZSTD] = TC_compression_zstd_level,
    };
    i64 type = tc->compression_type;
    bool levelled = type == CODEC_GZIP || type == CODEC_LZ4 || type == CODEC_ZSTD;
    *r = (struct batch_rules){
        .codec = type == TOPIC_COMPRESSION_PRODUCER ? BATCH_CODEC_PRODUCER : (i32)type,
        .level = levelled ? (i32)tc->values[levels[type]] : COMPRESS_LEVEL_DEFAULT,
        .log_append_time = tc->timestamp_type == TIMESTAMP_LOG_APPEND_TIME,
        .compacted = tc->cleanup_policy & CLEANUP_COMPACT,
        .deep = true,
        .crc_checked = true,
        .now_ms = p->broker->shard.now_ms,
        .before_max_ms = tc->timestamp_before_max_ms,
        .after_max_ms = tc->timestamp_after_max_ms,
        .max_message_bytes = (u32)tc->max_message_bytes,
    };
}

/* A changed copy of the batch in the scratch arena: other codec, or other timestamps. */
static err partition_rewrite(struct compressor *c, struct batch *b, const struct batch_rules *rules,
                             const struct batch_verdict *v, struct arena *scratch)
{
    struct bytes changed;
    err e = batch_check_crc(b);
    if (e != ERR_NONE)
        return e;
    if (v->rebuild) {
        e = batch_rebuild(c, b, rules, v, scratch, &changed);
        if (e != ERR_NONE)
            return e;
    } else {
        u8 *copy = arena_alloc(scratch, b->bytes);
        if (!copy)
            return ERR_MESSAGE_TOO_LARGE;
        memcpy(copy, b->data, b->bytes);
        batch_patch_timestamps(copy, rules->log_append_time, v->max_timestamp);
        changed = bytes_of(copy, b->bytes);
    }
    return batch_parse(changed, b);
}

/* What a client sent: checked as Kafka's leader does. The CRC is left to the copy into the log
 * (one pass) unless something else is wrong first: then it decides who is to blame. */
static err partition_validate(struct partition *p, struct batch *b, struct arena *scratch,
                              struct partition_append *pa, bool *check_crc)
{
    struct batch_rules rules;
    struct batch_verdict v;
    rules_of_topic(p, &rules);
    err e = batch_validate(p->broker->compressor, b, &rules, &v);
    pa->reason = v.reason;
    if (e != ERR_NONE && e != ERR_MESSAGE_TOO_LARGE && batch_check_crc(b) != ERR_NONE)
        e = ERR_CORRUPT_MESSAGE;
    pa->log_append_ms = rules.log_append_time ? rules.now_ms : -1;
    *check_crc = !v.rebuild && !v.retime;
    if (e == ERR_NONE && !*check_crc)
        e = partition_rewrite(p->broker->compressor, b, &rules, &v, scratch);
    return e;
}

static err partition_admit(struct partition *p, const struct batch *b, struct partition_append *pa,
                           bool *duplicate)
{
    const struct producer_batch *dup = NULL;
    err e = batch_has_producer(b) ? producers_check(p, b, &dup) : ERR_NONE;
    *duplicate = e == ERR_DUPLICATE_SEQUENCE_NUMBER;
    return *duplicate ? partition_duplicate(p, b, dup, pa) : e;
}

err partition_append(struct partition *p, struct bytes batch_bytes, bool from_client,
                     struct arena *scratch, struct partition_append *pa, partition_append_done done)
{
    MAGIC_CHECK(p, PARTITION_MAGIC);
    CHECK(!p->dropped);
    struct batch b;
    bool check_crc = false;
    pa->partition = p;
    pa->done = done;
    pa->reason = NULL;
    pa->append.p = NULL; /* until it is appended */
    list_init(&pa->link);
    pa->log_append_ms = -1;
    err e = from_client ? batch_parse_produce(batch_bytes, &b) : batch_parse(batch_bytes, &b);
    if (e == ERR_NONE && from_client)
        e = partition_validate(p, &b, scratch, pa, &check_crc);
    if (e != ERR_NONE)
        return e;
    bool duplicate;
    e = partition_admit(p, &b, pa, &duplicate);
    if (e != ERR_NONE || duplicate)
        return e;
    e = storage_append(p->pindex, &b, p->leader_epoch, check_crc, -1, &pa->append,
                       partition_appended);
    if (e != ERR_NONE)
        return e;
    p->inflight++;
    pa->base_offset = pa->append.base_offset;
    pa->last_offset = pa->append.last_offset;
    if (batch_has_producer(&b))
        producers_append(p, &b, pa->last_offset, p->broker->shard.now_ms);
    struct metrics *m = p->broker->shard.metrics;
    metric_add(m, M_produce_batches, 1);
    metric_add(m, M_produce_records, (u64)b.record_count);
    metric_add(m, M_produce_bytes, b.bytes);
    return ERR_NONE;
}

/* ---- what the storage engine asks ---- */

/* During recovery the partition's object is made when its first batch or snapshot comes. */
static struct partition *recovering(struct storage *st, struct pindex *px)
{
    struct partition *p = pindex_user(px);
    if (p)
        return p;
    struct broker *b = broker_of(storage_shard(st));
    const struct partition_key *k = pindex_key(px);
    struct topic_entry *e = catalog_by_id(b, k->topic_id);
    CHECK(e != NULL); /* partition_known said so */
    p = partition_make(b, e->topic, (i32)k->partition);
    p->pindex = px;
    pindex_set_user(px, p);
    return p;
}

static void partition_recovered(struct storage *st, struct pindex *px, struct bytes bytes)
{
    struct batch b;
    err e = batch_parse(bytes, &b);
    CHECK(e == ERR_NONE); /* the frame's checksum held */
    if (batch_has_producer(&b))
        producers_append(recovering(st, px), &b, batch_last_offset(&b), b.max_timestamp);
}

static void partition_restored(struct storage *st, struct pindex *px, struct bytes snapshot)
{
    struct partition *p = recovering(st, px);
    if (producers_restore(p, snapshot) != ERR_NONE)
        FATAL("event=producer_snapshot_corrupt topic=%.*s partition=%d remedy=\"the metadata store "
              "is "
              "damaged: restore it from a backup\"",
              (int)p->topic->name.len, (const char *)p->topic->name.data, p->index);
    p->producers_changed = false;
}

static struct bytes partition_snapshot(struct storage *st, struct pindex *px, struct arena *a)
{
    (void)st;
    struct partition *p = pindex_user(px);
    return p ? producers_snapshot(p, a) : (struct bytes){ NULL, 0 };
}

/* Key compaction looks after the others. */
static bool partition_mergeable(struct storage *st, struct pindex *px)
{
    (void)st;
    const struct partition *p = pindex_user(px);
    return p && !(p->topic->config.cleanup_policy & CLEANUP_COMPACT);
}

static bool partition_key_in_store(struct storage *st, const struct partition_key *k)
{
    struct topic_entry *e = catalog_by_id(broker_of(storage_shard(st)), k->topic_id);
    return e && e->topic->config.durability == DURABILITY_OBJECT;
}

static void partition_durable(struct storage *st, struct pindex *px)
{
    (void)st;
    struct partition *p = pindex_user(px);
    if (p)
        partition_moved(p);
}

const struct storage_ops partition_storage_ops = {
    .recovered = partition_recovered,
    .restored = partition_restored,
    .snapshot = partition_snapshot,
    .mergeable = partition_mergeable,
    .object = partition_key_in_store,
    .durable = partition_durable,
};

/* Another number of shards: before there are brokers, only the producers' state is kept, in
 * partitions that have nothing else. */
static struct partition *replaying(struct pindex *px)
{
    struct partition *p = pindex_user(px);
    if (!p) {
        p = MEM_NEW(struct partition);
        MAGIC_INIT(p, PARTITION_MAGIC);
        pindex_set_user(px, p);
    }
    return p;
}

static void replay_recovered(struct storage *st, struct pindex *px, struct bytes bytes)
{
    (void)st;
    struct batch b;
    err e = batch_parse(bytes, &b);
    CHECK(e == ERR_NONE);
    if (batch_has_producer(&b))
        producers_append(replaying(px), &b, batch_last_offset(&b), b.max_timestamp);
}

static void replay_restored(struct storage *st, struct pindex *px, struct bytes snapshot)
{
    (void)st;
    struct partition *p = replaying(px);
    if (producers_restore(p, snapshot) != ERR_NONE)
        FATAL("event=producer_snapshot_corrupt remedy=\"the metadata store is damaged: restore it "
              "from a backup\"");
    p->producers_changed = false;
}

static void replay_forget(struct storage *st, struct pindex *px)
{
    (void)st;
    struct partition *p = pindex_user(px);
    pindex_set_user(px, NULL);
    producers_free(p);
    MAGIC_POISON(p);
    mem_free(p);
}

const struct storage_ops partition_replay_ops = {
    .recovered = replay_recovered,
    .restored = replay_restored,
    .snapshot = partition_snapshot,
    .forget = replay_forget,
};

bool partition_known(struct storage *st, const struct partition_key *k)
{
    struct topic_entry *e = catalog_by_id(broker_of(storage_shard(st)), k->topic_id);
    return e && k->partition < (u32)e->topic->partition_count;
}
