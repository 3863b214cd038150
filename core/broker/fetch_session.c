/* Incremental fetch sessions (KIP-227): the broker remembers what a consumer wants, so that a
 * request names only changes and an answer only partitions with news.
 *
 * Bounds: max.incremental.fetch.session.cache.slots, split over shards; the least recently used
 * session makes room when it has been idle for min.incremental.fetch.session.eviction.ms (2 min),
 * else the new consumer gets no session (id 0), which every client handles.
 */
#include "check.h"
#include "fetch_int.h"

#define SESSION_EVICT_NS (120 * NS_PER_S)
#define SESSION_EPOCH_INITIAL 0
#define SESSION_EPOCH_FINAL (-1)

struct fetch_sessions {
    struct fetch_session *by_id;
    struct list lru; /* oldest first */
    u32 count;
};

void fetch_sessions_create(struct broker *b)
{
    b->sessions = MEM_NEW(struct fetch_sessions);
    list_init(&b->sessions->lru);
}

static void fetch_partition_free(struct fetch_session *s, struct fetch_partition *fp)
{
    HASH_DELETE(hh, s->table, fp);
    list_remove(&fp->link);
    mem_free(fp);
}

static void session_free(struct broker *b, struct fetch_session *s)
{
    struct fetch_partition *fp, *next;
    HASH_ITER(hh, s->table, fp, next)
        fetch_partition_free(s, fp);
    list_remove(&s->lru);
    b->sessions->count--;
    metric_set(b->shard.metrics, M_fetch_sessions, b->sessions->count);
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

static bool session_make_room(struct broker *b)
{
    i64 slots = config_i64(b->node->cfg, CFG_fetch_sessions);
    u32 bound = (u32)MAX(slots / b->shard.group->count, 1);
    if (b->sessions->count < bound)
        return true;
    list_for(l, &b->sessions->lru) {
        struct fetch_session *s = list_entry(l, struct fetch_session, lru);
        if (s->used_ns + SESSION_EVICT_NS > b->shard.now_ns)
            return false;
        if (!s->busy && !s->closed) {
            session_close(b, s);
            metric_add(b->shard.metrics, M_fetch_sessions_evicted, 1);
            return true;
        }
    }
    return false;
}

static struct fetch_session *session_create(struct broker *b, bool by_id)
{
    if (!session_make_room(b))
        return NULL;
    struct fetch_session *s = MEM_NEW(struct fetch_session);
    do
        s->id = (i32)(rng_below(&b->shard.rng, INT32_MAX - 1) + 1);
    while (session_find(b, s->id));
    s->epoch = 1;
    s->by_id = by_id;
    list_init(&s->partitions);
    HASH_ADD_INT(b->sessions->by_id, id, s);
    list_init(&s->lru);
    list_push_back(&b->sessions->lru, &s->lru);
    b->sessions->count++;
    metric_set(b->shard.metrics, M_fetch_sessions, b->sessions->count);
    return s;
}

/* ---- partitions of a request ---- */

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

static void fetch_partition_init(struct fetch_partition *fp, const struct fetch_key *k,
                                 u32 name_len)
{
    fp->key = *k;
    fp->name_len = name_len;
    fp->told_high_watermark = fp->told_log_start = -1;
    list_init(&fp->link);
}

static void session_put(struct fetch_session *s, const struct fetch_key *k, u32 name_len,
                        const struct fetch_request_fetch_partition *q)
{
    struct fetch_partition *fp = NULL;
    HASH_FIND(hh, s->table, k, sizeof *k, fp);
    if (!fp) {
        fp = MEM_NEW(struct fetch_partition);
        fetch_partition_init(fp, k, name_len);
        HASH_ADD(hh, s->table, key, sizeof fp->key, fp);
        list_push_back(&s->partitions, &fp->link);
    }
    fetch_partition_update(fp, q);
}

/* All partitions of the request into the session, or (session NULL) into x->own. */
static err context_add(struct call *c, struct fetch_context *x)
{
    const struct fetch_request *q = CALL_REQ(c, fetch_request);
    for (i32 i = 0; i < q->topics.n; i++) {
        const struct fetch_request_fetch_topic *t = &q->topics.v[i];
        for (i32 j = 0; j < t->partitions.n; j++) {
            struct fetch_key k;
            if (!key_make(&k, t->topic, t->topic_id, t->partitions.v[j].partition))
                return ERR_INVALID_TOPIC_EXCEPTION;
            if (x->session) {
                session_put(x->session, &k, t->topic.len, &t->partitions.v[j]);
                continue;
            }
            struct fetch_partition *fp = arena_alloc(c->arena, sizeof *fp);
            if (!fp)
                return ERR_UNKNOWN_SERVER_ERROR;
            fetch_partition_init(fp, &k, t->topic.len);
            fetch_partition_update(fp, &t->partitions.v[j]);
            list_push_back(&x->own, &fp->link);
        }
    }
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
                fetch_partition_free(s, fp);
        }
    }
}

/* ---- the request as a whole ---- */

static bool request_by_id(const struct call *c)
{
    return c->header.request_api_version >= 13;
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
    s->epoch = s->epoch == INT32_MAX ? 1 : s->epoch + 1;
    x->session = s;
    x->incremental = true;
    err e = context_add(c, x);
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
        x->session = session_create(c->at, request_by_id(c));
    return context_add(c, x);
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
