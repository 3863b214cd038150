/* Incremental fetch sessions (KIP-227): the broker remembers what a consumer wants, so that a
 * request names only changes and an answer only partitions with news.
 *
 * Bounds, each split over shards: max.incremental.fetch.session.cache.slots sessions, and
 * fetch.session.memory bytes of what they remember. Who makes room is Kafka's rule
 * (FetchSessionCache.tryEvict) for sessions of consumers, there being no others:
 *   1. the least recently used session, when it was idle for EVICT_NS;
 *   2. else the smallest that is older than EVICT_NS and smaller than the one that asks.
 * Without room a consumer gets no session (id 0), which every client handles: it names all its
 * partitions in each request. A session that grows beyond the room is closed; the client is told
 * FETCH_SESSION_ID_NOT_FOUND and begins anew with a full request.
 */
#include "check.h"
#include "fetch_int.h"

#define EVICT_NS (120 * NS_PER_S) /* min.incremental.fetch.session.eviction.ms is fixed in Kafka */
/* Of one partition, with its share of the table's buckets. */
#define PARTITION_BYTES (sizeof(struct fetch_partition) + 40)
#define SESSION_BYTES (sizeof(struct fetch_session) + 1024)
#define SESSION_EPOCH_INITIAL 0
#define SESSION_EPOCH_FINAL (-1)

struct fetch_sessions {
    struct fetch_session *by_id;
    struct list lru; /* oldest first */
    u32 count;
    u64 partitions; /* of all sessions */
};

void fetch_sessions_create(struct broker *b)
{
    b->sessions = MEM_NEW(struct fetch_sessions);
    list_init(&b->sessions->lru);
}

static u64 sessions_bytes(u64 sessions, u64 partitions)
{
    return sessions * SESSION_BYTES + partitions * PARTITION_BYTES;
}

static void gauges_set(struct broker *b)
{
    const struct fetch_sessions *fs = b->sessions;
    metric_set(b->shard.metrics, M_fetch_sessions, fs->count);
    metric_set(b->shard.metrics, M_fetch_session_partitions, fs->partitions);
    metric_set(b->shard.metrics, M_fetch_session_bytes, sessions_bytes(fs->count, fs->partitions));
}

static void fetch_partition_free(struct broker *b, struct fetch_session *s,
                                 struct fetch_partition *fp)
{
    CHECK(s->size > 0 && b->sessions->partitions > 0);
    s->size--;
    b->sessions->partitions--;
    HASH_DELETE(hh, s->table, fp);
    list_remove(&fp->link);
    mem_free(fp);
}

static void session_free(struct broker *b, struct fetch_session *s)
{
    struct fetch_partition *fp, *next;
    HASH_ITER(hh, s->table, fp, next)
        fetch_partition_free(b, s, fp);
    list_remove(&s->lru);
    b->sessions->count--;
    gauges_set(b);
    mem_free(s);
}

/* No request finds it any more; memory goes when no fetch works on it. */
static void session_close(struct broker *b, struct fetch_session *s)
{
    HASH_DELETE(hh, b->sessions->by_id, s);
    s->closed = true;
    if (!s->busy)
        session_free(b, s);
}

void fetch_sessions_free(struct broker *b)
{
    struct fetch_session *s, *next;
    HASH_ITER(hh, b->sessions->by_id, s, next) {
        s->busy = false;
        session_close(b, s);
    }
    mem_free(b->sessions);
    b->sessions = NULL;
}

static struct fetch_session *session_find(struct broker *b, i32 id)
{
    struct fetch_session *s = NULL;
    HASH_FIND_INT(b->sessions->by_id, &id, s);
    return s;
}

/* ---- room ---- */

static bool evictable(const struct fetch_session *s, const struct fetch_session *asks)
{
    return s != asks && !s->busy && !s->closed;
}

/* The one that goes so that a session of `size` partitions has room; NULL: none may. */
static struct fetch_session *session_victim(struct broker *b, const struct fetch_session *asks,
                                            u32 size)
{
    struct fetch_session *smallest = NULL;
    u64 now = b->shard.now_ns;
    list_for(l, &b->sessions->lru) { /* oldest use first */
        struct fetch_session *s = list_entry(l, struct fetch_session, lru);
        if (!evictable(s, asks))
            continue;
        if (now - s->used_ns > EVICT_NS)
            return s;
        if (now - s->created_ns > EVICT_NS && s->size < size &&
            (!smallest || s->size < smallest->size))
            smallest = s;
    }
    return smallest;
}

static u64 bytes_max(const struct broker *b)
{
    return config_u64(b->node->cfg, CFG_fetch_session_memory) / b->shard.group->count;
}

static bool sessions_fit(const struct broker *b, u32 more_sessions, u32 more_partitions)
{
    const struct fetch_sessions *fs = b->sessions;
    u64 slots = config_u64(b->node->cfg, CFG_fetch_sessions), shards = b->shard.group->count;
    slots = slots == 0 ? 0 : MAX(slots / shards, 1);
    return fs->count + more_sessions <= slots &&
           sessions_bytes(fs->count + more_sessions, fs->partitions + more_partitions) <=
               bytes_max(b);
}

/* For a new session (asks NULL) with so many partitions, or one that grows by as many. */
static bool session_make_room(struct broker *b, const struct fetch_session *asks, u32 more)
{
    if (asks && more == 0)
        return true; /* also when the bound was lowered */
    while (!sessions_fit(b, asks ? 0 : 1, more)) {
        u32 size = more + (asks ? asks->size : 0);
        struct fetch_session *victim =
            sessions_bytes(1, size) <= bytes_max(b) ? session_victim(b, asks, size) : NULL;
        if (!victim) {
            metric_add(b->shard.metrics, M_fetch_sessions_refused, 1);
            return false;
        }
        session_close(b, victim);
        metric_add(b->shard.metrics, M_fetch_sessions_evicted, 1);
    }
    return true;
}

static struct fetch_session *session_create(struct broker *b, bool by_id, u32 partitions)
{
    if (!session_make_room(b, NULL, partitions))
        return NULL;
    struct fetch_session *s = MEM_NEW(struct fetch_session);
    do
        s->id = (i32)(rng_below(&b->shard.rng, INT32_MAX - 1) + 1);
    while (session_find(b, s->id));
    s->epoch = 1;
    s->by_id = by_id;
    s->created_ns = b->shard.now_ns;
    list_init(&s->partitions);
    HASH_ADD_INT(b->sessions->by_id, id, s);
    list_init(&s->lru);
    list_push_back(&b->sessions->lru, &s->lru);
    b->sessions->count++;
    return s;
}

/* ---- partitions of a request ---- */

static u32 request_partitions(const struct fetch_request *q)
{
    u64 n = 0;
    for (i32 i = 0; i < q->topics.n; i++)
        n += (u64)MAX(q->topics.v[i].partitions.n, 0);
    return (u32)MIN(n, UINT32_MAX / 2);
}

static bool key_make(struct fetch_key *k, struct bytes name, struct uuid id, i32 partition)
{
    if (name.len >= sizeof k->name)
        return false; /* no topic has such a name */
    memset(k, 0, sizeof *k);
    k->topic_id = id;
    k->partition = partition;
    if (name.len)
        memcpy(k->name, name.data, name.len);
    return true;
}

static void fetch_partition_update(struct fetch_partition *fp,
                                   const struct fetch_request_fetch_partition *q)
{
    fp->fetch_offset = q->fetch_offset;
    fp->max_bytes = MAX(q->partition_max_bytes, 0);
    fp->current_leader_epoch = q->current_leader_epoch;
}

static void fetch_partition_copy(struct fetch_partition *fp, const struct fetch_partition *from)
{
    fp->fetch_offset = from->fetch_offset;
    fp->max_bytes = from->max_bytes;
    fp->current_leader_epoch = from->current_leader_epoch;
}

static void fetch_partition_init(struct fetch_partition *fp, const struct fetch_key *k,
                                 u32 name_len)
{
    fp->key = *k;
    fp->name_len = name_len;
    fp->told_high_watermark = fp->told_log_start = -1;
    list_init(&fp->link);
}

static void session_put(struct broker *b, struct fetch_session *s, const struct fetch_key *k,
                        u32 name_len, const struct fetch_request_fetch_partition *q)
{
    struct fetch_partition *fp = NULL;
    HASH_FIND(hh, s->table, k, sizeof *k, fp);
    if (!fp) {
        fp = MEM_NEW(struct fetch_partition);
        fetch_partition_init(fp, k, name_len);
        HASH_ADD(hh, s->table, key, sizeof fp->key, fp);
        list_push_back(&s->partitions, &fp->link);
        s->size++;
        b->sessions->partitions++;
    }
    fetch_partition_update(fp, q);
}

/* All partitions of the request into the session. */
static err session_add(struct call *c, struct fetch_session *s)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    for (i32 i = 0; i < q->topics.n; i++) {
        const struct fetch_request_fetch_topic *t = &q->topics.v[i];
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct fetch_key k;
            if (!key_make(&k, t->topic, t->topic_id, t->partitions.v[j].partition))
                return ERR_INVALID_TOPIC_EXCEPTION;
            session_put(c->at, s, &k, t->topic.len, &t->partitions.v[j]);
        }
    }
    return ERR_NONE;
}

/* Each partition of the request once, where it is named first and with what it is named with last,
 * as in a session. */
static err own_add(struct call *c, struct list *own)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    i32 total = (i32)request_partitions(q), n = 0;
    struct fetch_partition *fps = CALL_ARRAY(c, struct fetch_partition, total);
    struct named *v = CALL_ARRAY(c, struct named, total);
    for (i32 i = 0; fps && v && i < q->topics.n; i++) {
        const struct fetch_request_fetch_topic *t = &q->topics.v[i];
        for (i32 j = 0; j < t->partitions.n; j++, n++) {
            struct fetch_key k;
            if (!key_make(&k, t->topic, t->topic_id, t->partitions.v[j].partition))
                return ERR_INVALID_TOPIC_EXCEPTION;
            fetch_partition_init(&fps[n], &k, t->topic.len);
            fetch_partition_update(&fps[n], &t->partitions.v[j]);
            struct bytes name =
                t->topic.len ? t->topic : bytes_of(t->topic_id.b, sizeof t->topic_id);
            v[n] = (struct named){ name, k.partition, n };
        }
    }
    const u8 *marks = fps && v ? named_marks(c, v, n) : NULL;
    if (!marks)
        return ERR_UNKNOWN_SERVER_ERROR;
    for (i32 i = 0, head = 0; i < n; i++) { /* in the order of names, then of places */
        if (marks[v[i].at] & NAMED_BEFORE)
            fetch_partition_copy(&fps[head], &fps[v[i].at]);
        else
            head = v[i].at;
    }
    for (i32 i = 0; i < n; i++)
        if (!(marks[i] & NAMED_BEFORE))
            list_push_back(own, &fps[i].link);
    return ERR_NONE;
}

static void session_forget(struct call *c, struct fetch_session *s)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    for (i32 i = 0; i < q->forgotten_topics_data.n; i++) {
        const struct fetch_request_forgotten_topic *t = &q->forgotten_topics_data.v[i];
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct fetch_key k;
            struct fetch_partition *fp = NULL;
            if (key_make(&k, t->topic, t->topic_id, t->partitions.v[j]))
                HASH_FIND(hh, s->table, &k, sizeof k, fp);
            if (fp)
                fetch_partition_free(c->at, s, fp);
        }
    }
}

/* ---- the request as a whole ---- */

static bool request_by_id(const struct call *c)
{
    return c->header.request_api_version >= 13;
}

/* Those of the request that the session has not got. */
static u32 request_new_partitions(const struct fetch_request *q, const struct fetch_session *s)
{
    u32 n = 0;
    for (i32 i = 0; i < q->topics.n; i++) {
        const struct fetch_request_fetch_topic *t = &q->topics.v[i];
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct fetch_key k;
            struct fetch_partition *fp = NULL;
            if (key_make(&k, t->topic, t->topic_id, t->partitions.v[j].partition))
                HASH_FIND(hh, s->table, &k, sizeof k, fp);
            n += fp == NULL;
        }
    }
    return n;
}

static err context_incremental(struct call *c, struct fetch_context *x)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    struct fetch_session *s = session_find(c->at, q->session_id);
    if (!s || s->busy)
        return ERR_FETCH_SESSION_ID_NOT_FOUND;
    if (s->epoch != q->session_epoch)
        return ERR_INVALID_FETCH_SESSION_EPOCH;
    if (s->by_id != request_by_id(c))
        return ERR_FETCH_SESSION_TOPIC_ID_ERROR;
    if (!session_make_room(c->at, s, request_new_partitions(q, s))) {
        session_close(c->at, s);
        return ERR_FETCH_SESSION_ID_NOT_FOUND;
    }
    s->epoch = s->epoch == INT32_MAX ? 1 : s->epoch + 1;
    x->session = s;
    x->incremental = true;
    err e = session_add(c, s);
    if (e == ERR_NONE)
        session_forget(c, s);
    return e;
}

static err context_full(struct call *c, struct fetch_context *x)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    struct fetch_session *old = q->session_id ? session_find(c->at, q->session_id) : NULL;
    if (old)
        session_close(c->at, old);
    if (q->session_epoch == SESSION_EPOCH_INITIAL && q->topics.n > 0)
        x->session = session_create(c->at, request_by_id(c), request_partitions(q));
    return x->session ? session_add(c, x->session) : own_add(c, &x->own);
}

err fetch_context_open(struct call *c, struct fetch_context *x)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    *x = (struct fetch_context){ .session = NULL };
    list_init(&x->own);
    bool full = q->session_epoch == SESSION_EPOCH_INITIAL ||
                q->session_epoch == SESSION_EPOCH_FINAL || c->header.request_api_version < 7;
    err e = full ? context_full(c, x) : context_incremental(c, x);
    if (e != ERR_NONE)
        return e;
    struct fetch_session *s = x->session;
    x->partitions = s ? &s->partitions : &x->own;
    if (s) {
        s->busy = true;
        s->used_ns = c->at->shard.now_ns;
        list_remove(&s->lru);
        list_push_back(&c->at->sessions->lru, &s->lru);
        x->session_id = s->id;
    }
    list_for(l, x->partitions)
        x->count++;
    gauges_set(c->at);
    return ERR_NONE;
}

void fetch_context_close(struct broker *b, struct fetch_context *x)
{
    struct fetch_session *s = x->session;
    if (!s)
        return;
    s->busy = false;
    if (s->closed)
        session_free(b, s);
}
