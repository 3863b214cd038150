/* The engine of a shard as a whole: start, the hook at the end of each turn, waiting for room,
 * stop. Order of start: index (p/), bundles (b/), snapshots (s/), then the WAL's frames. */
#include "storage_int.h"

#include <stdarg.h>
#include <stdio.h>

#include "batch.h"
#include "clock.h"
#include "hash.h"

/* How long a stop waits for uploads before it leaves the rest to the next start. */
#define STOP_UPLOAD_NS (20 * NS_PER_S)

enum stop_step { STOP_NONE, STOP_UPLOADS, STOP_CLEAN, STOP_DONE };

u32 storage_shard_of(const struct partition_key *key, u32 shard_count)
{
    /* Topics begin on a random shard, their partitions go round: the load of one topic is even. */
    return (u32)((hash_bytes(key->topic_id.b, STORAGE_FAMILY_BYTES) + key->partition) %
                 shard_count);
}

struct shard *storage_shard(const struct storage *st)
{
    MAGIC_CHECK(st, STORAGE_MAGIC);
    return st->shard;
}

void storage_explain(struct storage *st, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(st->env->error, sizeof st->env->error, fmt, ap);
    va_end(ap);
}

bool storage_owns(struct storage *st, const struct partition_key *k)
{
    if (!st->replaying && storage_shard_of(k, st->env->shard_count) != st->shard->index)
        return false;
    return st->known(st, k);
}

/* ---- waiting for room ---- */

static bool room_likely(const struct storage *st)
{
    const struct wal *w = &st->wal;
    if (w->failed != ERR_NONE || st->stopping)
        return true; /* they are told why not */
    if (st->index_full && !index_fits(st, 0))
        return false;
    return (w->open || w->next_seq - w->trimmed_seq < w->slot_count) &&
           w->appended - w->durable < UNDURABLE_SEGMENTS * (u64)w->segment_bytes;
}

void storage_wait_room(struct storage *st, struct room_wait *w, void (*fn)(struct room_wait *w))
{
    MAGIC_CHECK(st, STORAGE_MAGIC);
    w->fn = fn;
    list_push_back(&st->room_waiters, &w->link);
}

void storage_unwait_room(struct room_wait *w)
{
    list_remove(&w->link);
}

void storage_room_made(struct storage *st)
{
    if (st->room_told || list_empty(&st->room_waiters))
        return;
    st->room_told = true;
    if (!st->shard->hooks_ahead)
        st->shard->turn_again = true;
}

/* Those who fail again queue up behind; none is told twice for one event. */
static void room_tell(struct storage *st)
{
    struct list told;
    list_init(&told);
    list_splice_back(&told, &st->room_waiters);
    while (!list_empty(&told) && room_likely(st)) {
        struct room_wait *w = list_entry(list_pop_front(&told), struct room_wait, link);
        w->fn(w);
    }
    list_splice_back(&told, &st->room_waiters);
    list_splice_back(&st->room_waiters, &told);
}

/* ---- the turn ---- */

static void gauges_set(struct storage *st)
{
    struct metrics *m = st->shard->metrics;
    const struct wal *w = &st->wal;
    if (!m)
        return;
    metric_set(m, M_wal_appended_lsn, w->appended);
    metric_set(m, M_wal_durable_lsn, w->durable);
    metric_set(m, M_wal_uploaded_lsn, w->registered_seq * w->segment_bytes);
    metric_set(m, M_wal_trimmed_lsn, w->trimmed_seq * w->segment_bytes);
    metric_set(m, M_wal_used_bytes, (w->next_seq - w->trimmed_seq) * w->segment_bytes);
    metric_set(m, M_wal_size_bytes, (u64)w->slot_count * w->segment_bytes);
    metric_set(m, M_wal_inflight, w->write_count);
    metric_set(m, M_wal_failed, (u64)-w->failed); /* own errors are negative */
    metric_set(m, M_wal_no_room, st->no_room);
    metric_set(m, M_index_memory_bytes, st->index_bytes);
    metric_set(m, M_index_full, st->index_full);
    metric_set(m, M_upload_failures, st->upload_failures);
    metric_set(m, M_upload_error, st->upload_failures > 0 ? (u64)-st->upload_error : 0);
    metric_set(m, M_object_waiting, w->registering_count);
    metric_set(m, M_object_puts_inflight, uploader_puts(st));
    metric_set(m, M_segments_open, w->open ? 1 : 0);
    metric_set(m, M_segments_sealed, st->sealed_unregistered);
    metric_set(m, M_segment_memory_bytes, (u64)st->image_count * w->segment_bytes);
}

static void stop_step(struct storage *st);

static void storage_hook(struct shard_hook *h)
{
    struct storage *st = container_of(h, struct storage, hook);
    if (st->room_told) {
        st->room_told = false;
        room_tell(st);
    }
    wal_written(st);
    batch_check(st);
    wal_flush(st);
    if (st->stopping)
        stop_step(st);
    wal_check(&st->wal);
    gauges_set(st);
}

/* ---- start ---- */

static err snapshot_load_one(void *arg, const struct meta_kv *kv)
{
    struct storage *st = arg;
    struct partition_key key;
    if (!meta_key_partition_parse(kv->key, &key) || kv->value.len < SNAPSHOT_HEAD_BYTES ||
        kv->value.data[0] != SNAPSHOT_VERSION) {
        storage_explain(st, "metadata key %.*s has an unknown form (written by a newer version?)",
                        (int)MIN(kv->key.len, 100u), (const char *)kv->key.data);
        return ERR_CORRUPT;
    }
    if (!storage_owns(st, &key))
        return ERR_NONE;
    struct bytes body =
        bytes_of(kv->value.data + SNAPSHOT_HEAD_BYTES, kv->value.len - SNAPSHOT_HEAD_BYTES);
    if (body.len > 0)
        st->env->ops->restored(st, pindex_open(st, &key), body);
    return ERR_NONE;
}

static err snapshots_load(struct storage *st)
{
    return meta_range(st->env->meta, bytes_str("s/"), snapshot_load_one, st);
}

static struct storage *storage_new(struct shard *s, struct storage_env *env,
                                   bool (*known)(struct storage *, const struct partition_key *))
{
    struct storage *st = MEM_NEW(struct storage);
    MAGIC_INIT(st, STORAGE_MAGIC);
    st->shard = s;
    st->env = env;
    st->known = known;
    list_init(&st->room_waiters);
    list_init(&st->free_images);
    list_init(&st->sealed_images);
    list_init(&st->spares);
    list_init(&st->hook.link);
    struct wal *w = &st->wal;
    w->fd = -1;
    w->index = s->index;
    list_init(&w->pending);
    list_init(&w->registering);
    w->write_max = (u32)MIN(config_u64(s->cfg, CFG_wal_inflight_writes), (u64)WAL_WRITES_MAX);
    w->memory = config_wal_in_memory(s->cfg);
    snprintf(w->path, sizeof w->path, "%s/%04x.wal", config_str(s->cfg, CFG_wal_path), s->index);
    wal_start_timers(st);
    return st;
}

static void storage_dispose(struct storage *st)
{
    list_remove(&st->hook.link);
    timer_stop(&st->shard->timers, &st->linger_timer);
    uploader_free(st);
    reader_free(st);
    merge_free(st);
    retention_free(st);
    wal_close(st);
    index_free(st);
    segments_free(st);
    MAGIC_POISON(st);
    mem_free(st);
}

static err start_load(struct storage *st)
{
    err e = index_load(st);
    if (e == ERR_NONE)
        e = uploader_load(st);
    if (e == ERR_NONE)
        e = snapshots_load(st);
    if (e == ERR_NONE)
        e = wal_recover(st);
    if (e != ERR_NONE && !st->env->error[0])
        storage_explain(st, "starting the storage of shard %u: %s", st->shard->index, err_text(e));
    return e;
}

static err storage_start_as(struct shard *s, struct storage_env *env, bool replaying,
                            bool (*known)(struct storage *st, const struct partition_key *k),
                            struct storage **out)
{
    MAGIC_CHECK(s, SHARD_MAGIC);
    struct storage *st = storage_new(s, env, known);
    st->replaying = replaying;
    err e = retention_create(st);
    if (e == ERR_NONE)
        e = uploader_create(st);
    if (e == ERR_NONE)
        e = reader_create(st);
    if (e == ERR_NONE)
        e = merge_create(st);
    if (e == ERR_NONE)
        e = start_load(st);
    if (e != ERR_NONE) {
        storage_dispose(st);
        return e;
    }
    shard_add_hook(s, &st->hook, storage_hook);
    wal_check(&st->wal);
    if (st->sealed_unregistered > 0)
        uploader_kick(st);
    if (st->wal.fresh_file)
        wal_zero_start(st);
    *out = st;
    return ERR_NONE;
}

err storage_start(struct shard *s, struct storage_env *env,
                  bool (*known)(struct storage *st, const struct partition_key *k),
                  struct storage **out)
{
    return storage_start_as(s, env, false, known, out);
}

err storage_start_replay(struct shard *s, struct storage_env *env,
                         bool (*known)(struct storage *st, const struct partition_key *k),
                         struct storage **out)
{
    return storage_start_as(s, env, true, known, out);
}

/* ---- stop ---- */

void storage_stop(struct storage *st)
{
    MAGIC_CHECK(st, STORAGE_MAGIC);
    if (st->stopping)
        return;
    st->stopping = true;
    st->stop_step = STOP_UPLOADS;
    st->stop_deadline_ns = st->shard->now_ns + STOP_UPLOAD_NS;
    wal_stop(st);
    cleaner_stop(st);
    merge_stop(st);
    storage_room_made(st);
    uploader_kick(st);
    st->shard->turn_again = true;
}

static void clean_run(struct bg_job *j)
{
    struct storage *st = container_of(j, struct storage, clean_job);
    err e = wal_meta_commit(st, st->wal.epoch, st->clean_value);
    if (e != ERR_NONE)
        LOG(WARN, wal_clean_mark_failed, "shard=%u error=%s", st->shard->index, err_name(e));
}

static void clean_done(struct bg_job *j)
{
    struct storage *st = container_of(j, struct storage, clean_job);
    arena_free(&st->clean_arena);
    st->job_count--;
    st->stop_step = STOP_DONE;
}

static void stop_give_up(struct storage *st, const char *why)
{
    LOG(WARN, storage_stop_unclean, "shard=%u why=\"%s\" segments=%u effect=\"%s\"",
        st->shard->index, why, st->sealed_unregistered,
        st->wal.memory ? "what is in them was not acknowledged, and is gone"
                       : "the next start reads them from the WAL");
    ack_end(st);
    st->stop_step = STOP_DONE;
}

/* Once a turn while stopping. */
static void stop_step(struct storage *st)
{
    struct wal *w = &st->wal;
    if (st->stop_step != STOP_UPLOADS || w->write_count > 0)
        return;
    if (w->failed != ERR_NONE) {
        stop_give_up(st, "the WAL failed");
        return;
    }
    if (w->registered_seq < w->next_seq - (w->open ? 1 : 0)) {
        if (st->shard->now_ns >= st->stop_deadline_ns)
            stop_give_up(st, "uploads did not finish in time");
        else if (st->uploads_gave_up)
            stop_give_up(st, "uploads fail");
        return;
    }
    if (w->flushed < w->appended || st->job_count > 0 || !uploader_idle(st))
        return;
    st->stop_step = STOP_CLEAN;
    arena_init(&st->clean_arena, 4096, 64 * MIB);
    st->clean_value = wal_meta_value(w, w->registered_seq, true, &st->clean_arena);
    st->job_count++;
    bg_submit(st->shard, &st->clean_job, BG_META, clean_run, clean_done);
}

bool storage_stopped(const struct storage *st)
{
    MAGIC_CHECK(st, STORAGE_MAGIC);
    return st->stop_step == STOP_DONE && st->wal.write_count == 0 && st->job_count == 0 &&
           wal_zero_idle(&st->wal) && uploader_idle(st) && reader_idle(st) && retention_idle(st) &&
           cleaner_idle(st) && merge_idle(st);
}

void storage_free(struct storage *st)
{
    CHECK(storage_stopped(st));
    storage_dispose(st);
}

void storage_status(const struct storage *st, char *buf, size_t size)
{
    const struct wal *w = &st->wal;
    snprintf(buf, size,
             "wal_used_mib=%" PRIu64 " wal_size_mib=%" PRIu64 " durable_lsn=%" PRIu64
             " undurable_bytes=%" PRIu64 " segments_unregistered=%u images=%u/%u partitions=%u "
             "epoch=%u awaited=%u upload_failures=%u upload_error=%s state=%s",
             (w->next_seq - w->trimmed_seq) * w->segment_bytes / MIB,
             (u64)w->slot_count * w->segment_bytes / MIB, w->durable, w->appended - w->durable,
             st->sealed_unregistered, st->image_count, st->image_max, HASH_COUNT(st->parts),
             w->epoch, w->registering_count, st->upload_failures, err_name(st->upload_error),
             w->failed != ERR_NONE ? err_name(w->failed)
             : st->stopping        ? "stopping"
                                   : "ok");
}
