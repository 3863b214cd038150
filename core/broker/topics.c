/* CreateTopics, DeleteTopics, CreatePartitions: controller tasks over one request.
 *
 * Each topic of the request is checked, its change started at once, and the call answered when
 * all changes are done. Results that need no change are filled in directly.
 */
#include <stdarg.h>
#include <stdio.h>

#include "broker_int.h"
#include "check.h"
#include "controller_int.h"
#include "log.h"

bool topic_partitions_fit(const struct broker *b, u64 more)
{
    return b->partition_total + more <= config_u64(b->node->cfg, CFG_topics_max_partitions);
}

static err partitions_check(struct topics_op *op, i32 more, struct bytes *text)
{
    const struct broker *b = op->call->at;
    if (more <= TOPIC_PARTITIONS_MAX && topic_partitions_fit(b, op->partitions_more + (u64)more))
        return ERR_NONE;
    *text = text_of(op->call,
                    "There are %" PRIu64 " partitions, and topics.max_partitions allows %" PRId64
                    ": %d more are refused.",
                    b->partition_total + op->partitions_more,
                    config_i64(b->node->cfg, CFG_topics_max_partitions), more);
    return ERR_POLICY_VIOLATION;
}

struct bytes text_of(struct call *c, const char *fmt, ...)
{
    char buf[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    return arena_copy(c->arena, bytes_str(buf));
}

void topics_op_release(struct topics_op *op)
{
    if (--op->outstanding > 0)
        return;
    struct broker *b = op->call->at;
    call_done(op->call);
    controller_next(b);
}

static void topics_changed(struct topic_change *tc)
{
    struct topics_item *it = container_of(tc, struct topics_item, change);
    *it->code = (i16)err_to_kafka(tc->err);
    LOG(INFO, topic_changed, "topic=%s api=%s result=%s", it->name, it->op->call->api->name,
        err_name(tc->err));
    topics_op_release(it->op);
}

/* `next` is given away. */
void topics_change(struct topics_op *op, const struct topic *old, struct topic *next, i16 *code)
{
    struct topics_item *it = arena_alloc(op->call->arena, sizeof *it);
    if (!it) {
        topic_free(next);
        *code = ERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    it->op = op;
    it->code = code;
    const struct topic *t = next ? next : old;
    snprintf(it->name, sizeof it->name, "%.*s", (int)t->name.len, (const char *)t->name.data);
    op->outstanding++;
    topic_change_start(op->call->at, &it->change, old, next, topics_changed);
}

void topics_enter(struct call *c, void (*run)(struct controller_task *t))
{
    struct topics_op *op = arena_alloc(c->arena, sizeof *op);
    if (!op) {
        call_malformed(c, "request memory limit");
        return;
    }
    op->call = c;
    op->outstanding = 1;
    controller_enter(c->at, &op->task, run);
}

/* ---- CreateTopics ---- */

typedef struct create_topics_request_creatable_topic create_req;
typedef struct create_topics_response_creatable_topic_result create_result;

/* A partition has one replica, on a broker that is there. */
static err replicas_check(struct call *c, const i32 *ids, i32 n, struct bytes *text)
{
    u32 brokers = c->at->node->advertise_shards ? c->at->shard.group->count : 1;
    bool known = false;
    for (u32 i = 0; n == 1 && i < brokers; i++)
        known = known || ids[0] == broker_id_of_shard(c->at, i);
    if (known)
        return ERR_NONE;
    if (n == 1)
        *text = text_of(c,
                        "The manual partition assignment includes broker %d, but no such broker "
                        "is registered.",
                        ids[0]);
    else if (n <= 0)
        *text = text_of(c, "The manual partition assignment includes an empty replica list.");
    else
        *text = text_of(c, "A partition has one replica: what is durable is in the object store.");
    return ERR_INVALID_REPLICA_ASSIGNMENT;
}

static err create_check_assignments(struct call *c, const create_req *t, i32 *partitions,
                                    struct bytes *text)
{
    if (t->num_partitions != -1 || t->replication_factor != -1) {
        *text = text_of(c, "Both a replica assignment and a partition count or replication factor "
                           "were given; give one of them.");
        return ERR_INVALID_REQUEST;
    }
    bool *seen = CALL_ARRAY(c, bool, t->assignments.n);
    if (!seen)
        return ERR_UNKNOWN_SERVER_ERROR;
    for (i32 i = 0; i < t->assignments.n; i++) {
        const struct create_topics_request_creatable_replica_assignment *a = &t->assignments.v[i];
        i32 p = a->partition_index;
        if (p < 0 || p >= t->assignments.n || seen[p]) {
            *text = text_of(c, "partitions should be a consecutive 0-based integer sequence");
            return ERR_INVALID_REPLICA_ASSIGNMENT;
        }
        seen[p] = true;
        err e = replicas_check(c, a->broker_ids.v, a->broker_ids.n, text);
        if (e != ERR_NONE)
            return e;
    }
    *partitions = t->assignments.n;
    return ERR_NONE;
}

static err create_check_counts(struct call *c, const create_req *t, i32 *partitions,
                               struct bytes *text)
{
    const struct config *cfg = c->at->node->cfg;
    if (t->assignments.n > 0)
        return create_check_assignments(c, t, partitions, text);
    *partitions =
        t->num_partitions == -1 ? (i32)config_i64(cfg, CFG_num_partitions) : t->num_partitions;
    if (*partitions < 1) {
        *text = text_of(c, "Number of partitions was set to an invalid value: it must be at least "
                           "1, or -1 for num.partitions.");
        return ERR_INVALID_PARTITIONS;
    }
    i32 brokers = c->at->node->advertise_shards ? (i32)c->at->shard.group->count : 1;
    if (t->replication_factor == 0 || t->replication_factor < -1 ||
        t->replication_factor > brokers) {
        *text = text_of(c, "Replication factor %d is invalid: %d broker(s) are registered.",
                        t->replication_factor, brokers);
        return ERR_INVALID_REPLICATION_FACTOR;
    }
    return ERR_NONE;
}

static err create_check(struct topics_op *op, const struct create_topics_request *q, i32 at,
                        struct topic **out, struct bytes *text)
{
    const create_req *t = &q->topics.v[at];
    struct call *c = op->call;
    struct broker *b = c->at;
    if (!topic_name_valid(t->name)) {
        *text = text_of(c, "Topic name is invalid: it must have 1 to 249 characters of a-z A-Z 0-9 "
                           ". _ - and not be \".\" or \"..\".");
        return ERR_INVALID_TOPIC_EXCEPTION;
    }
    if (catalog_by_name(b, t->name)) {
        *text = text_of(c, "Topic '%.*s' already exists.", (int)t->name.len,
                        (const char *)t->name.data);
        return ERR_TOPIC_ALREADY_EXISTS;
    }
    if (topic_name_collides(b, t->name)) {
        *text = text_of(c, "Topic name differs from an existing one in '.' and '_' only.");
        return ERR_INVALID_TOPIC_EXCEPTION;
    }
    i32 partitions = 0;
    err e = create_check_counts(c, t, &partitions, text);
    if (e == ERR_NONE)
        e = partitions_check(op, partitions, text);
    if (e != ERR_NONE)
        return e;
    struct topic *n = topic_make(b, t->name, partitions);
    if (bytes_eq_str(t->name, OFFSETS_TOPIC))
        topic_offsets_configure(b, n);
    char why[256];
    for (i32 i = 0; i < t->configs.n; i++) {
        if (!t->configs.v[i].value.data) {
            *text = text_of(c, "Null value not supported for topic configs: %.*s",
                            (int)MIN(t->configs.v[i].name.len, 200u),
                            (const char *)t->configs.v[i].name.data);
            topic_free(n);
            return ERR_INVALID_CONFIG;
        }
        e = topic_config_set(&n->config, b->node->cfg, t->configs.v[i].name, t->configs.v[i].value,
                             why, sizeof why);
        if (e != ERR_NONE) {
            *text = text_of(c, "%s", why);
            topic_free(n);
            return ERR_INVALID_CONFIG;
        }
    }
    if (topic_config_check(&n->config, b->node->cfg, why, sizeof why) != ERR_NONE) {
        *text = text_of(c, "%s", why);
        topic_free(n);
        return ERR_INVALID_CONFIG;
    }
    *out = n;
    return ERR_NONE;
}

/* What version 5 and later tell of a topic's configs. Formatting them is most of the work of a
 * request for thousands of topics, and what is not overridden is the same for all of them. */
typedef struct create_topics_response_creatable_topic_configs create_config;

static void create_config_fill(struct call *c, const struct topic_config *tc,
                               enum topic_config_id id, create_config *k)
{
    char buf[CONFIG_VALUE_SIZE];
    create_topics_response_creatable_topic_configs_init(k);
    k->name = bytes_str(topic_config_name(id));
    k->value = arena_copy(c->arena, bytes_str(topic_config_text(tc, id, buf, sizeof buf)));
    k->config_source = topic_config_source(tc, c->at->node->cfg, id);
}

/* NULL at the request's memory limit. */
static create_config *create_configs_plain(struct call *c)
{
    create_config *v = CALL_ARRAY(c, create_config, TC_COUNT);
    struct topic_config plain;
    topic_config_init(&plain, c->at->node->cfg);
    for (u32 i = 0, n = 0; v && i < TC_COUNT; i++)
        if (topic_config_visible((enum topic_config_id)i))
            create_config_fill(c, &plain, (enum topic_config_id)i, &v[n++]);
    topic_config_free(&plain);
    return v;
}

static void create_configs_fill(struct call *c, create_config *plain, const struct topic_config *tc,
                                create_result *r)
{
    create_config *own = NULL;
    r->configs.n = 0;
    for (u32 i = 0; i < TC_COUNT; i++) {
        if (!topic_config_visible((enum topic_config_id)i))
            continue;
        if (tc->overrides[i] && !own) {
            own = CALL_ARRAY(c, create_config, TC_COUNT);
            if (!own) {
                r->configs.n = 0; /* the call fails as a whole */
                return;
            }
            memcpy(own, plain, TC_COUNT * sizeof *own);
        }
        if (tc->overrides[i])
            create_config_fill(c, tc, (enum topic_config_id)i, &own[r->configs.n]);
        r->configs.n++;
    }
    r->configs.v = own ? own : plain; /* topics that override nothing share it */
}

static void create_one(struct topics_op *op, create_config *plain, i32 at, bool named_twice,
                       create_result *r)
{
    struct call *c = op->call;
    const struct create_topics_request *q = CALL_REQ(c, create_topics_request);
    create_topics_response_creatable_topic_result_init(r);
    r->name = q->topics.v[at].name;
    r->error_message = (struct bytes){ NULL, 0 };
    struct topic *t = NULL;
    if (named_twice) {
        r->error_code = ERR_INVALID_REQUEST;
        r->error_message = bytes_str("Duplicate topic name.");
        return;
    }
    r->error_code = (i16)create_check(op, q, at, &t, &r->error_message);
    if (r->error_code != ERR_NONE)
        return;
    r->num_partitions = t->partition_count;
    r->replication_factor = 1;
    r->topic_id = t->id;
    create_configs_fill(c, plain, &t->config, r);
    if (q->validate_only) {
        topic_free(t);
        return;
    }
    op->partitions_more += (u64)t->partition_count;
    topics_change(op, NULL, t, &r->error_code);
}

static void create_run(struct controller_task *task)
{
    struct topics_op *op = container_of(task, struct topics_op, task);
    struct call *c = op->call;
    const struct create_topics_request *q = CALL_REQ(c, create_topics_request);
    struct create_topics_response *resp = CALL_RESP(c, create_topics_response);
    i32 n = MAX(q->topics.n, 0);
    resp->topics.v = CALL_ARRAY(c, create_result, n);
    resp->topics.n = 0;
    struct named *names = CALL_ARRAY(c, struct named, n);
    for (i32 i = 0; names && i < n; i++)
        names[i] = (struct named){ q->topics.v[i].name, 0, i };
    const u8 *marks = names && resp->topics.v ? named_marks(c, names, n) : NULL;
    create_config *plain = marks ? create_configs_plain(c) : NULL;
    for (i32 i = 0; plain && i < n; i++)
        if (!(marks[i] & NAMED_BEFORE)) /* one answer a name */
            create_one(op, plain, i, marks[i] & NAMED_TWICE, &resp->topics.v[resp->topics.n++]);
    topics_op_release(op);
}

void handle_create_topics(struct call *c)
{
    topics_enter(c, create_run);
}

/* ---- DeleteTopics ---- */

typedef struct delete_topics_response_deletable_topic_result delete_result;

static void delete_one(struct topics_op *op, struct bytes name, struct uuid id, delete_result *r)
{
    struct call *c = op->call;
    if (name.data ? !uuid_is_zero(id) : uuid_is_zero(id)) {
        r->error_code = ERR_INVALID_REQUEST;
        r->error_message =
            text_of(c, name.data ? "You may not specify both topic name and topic id."
                                 : "Neither topic name nor id were specified.");
        return;
    }
    struct topic_entry *e = catalog_find(c->at, name, id);
    if (!e) {
        r->error_code = name.data ? ERR_UNKNOWN_TOPIC_OR_PARTITION : ERR_UNKNOWN_TOPIC_ID;
        return;
    }
    r->name = arena_copy(c->arena, e->topic->name);
    r->topic_id = e->topic->id;
    topics_change(op, e->topic, NULL, &r->error_code);
}

/* The i-th topic that a request names, in the form of its version. */
static struct bytes delete_asked(const struct call *c, i32 i, const struct uuid **id)
{
    static const struct uuid zero;
    const struct delete_topics_request *q = CALL_REQ(c, delete_topics_request);
    bool old = c->header.request_api_version < 6;
    *id = old ? &zero : &q->topics.v[i].topic_id;
    return old ? q->topic_names.v[i] : q->topics.v[i].name;
}

/* By name, by id, or once by each: the topic counts. */
static u8 *delete_marks(struct call *c, i32 n)
{
    struct named *names = CALL_ARRAY(c, struct named, n);
    for (i32 i = 0; names && i < n; i++) {
        const struct uuid *id;
        struct bytes name = delete_asked(c, i, &id);
        names[i] = (struct named){ named_topic(c->at, name, id), 0, i };
    }
    return names ? named_marks(c, names, n) : NULL;
}

static void delete_run(struct controller_task *task)
{
    struct topics_op *op = container_of(task, struct topics_op, task);
    struct call *c = op->call;
    const struct delete_topics_request *q = CALL_REQ(c, delete_topics_request);
    struct delete_topics_response *resp = CALL_RESP(c, delete_topics_response);
    i16 version = c->header.request_api_version;
    i32 n = MAX(version >= 6 ? q->topics.n : q->topic_names.n, 0);
    bool enabled = config_bool(c->at->node->cfg, CFG_delete_topic_enable);
    resp->responses.v = CALL_ARRAY(c, delete_result, n);
    resp->responses.n = 0;
    const u8 *marks = resp->responses.v ? delete_marks(c, n) : NULL;
    for (i32 i = 0; marks && i < n; i++) {
        const struct uuid *id;
        struct bytes name = delete_asked(c, i, &id);
        if (marks[i] & NAMED_BEFORE)
            continue; /* one answer a topic */
        delete_result *r = &resp->responses.v[resp->responses.n++];
        delete_topics_response_deletable_topic_result_init(r);
        r->name = name;
        r->topic_id = *id;
        r->error_message = (struct bytes){ NULL, 0 };
        if (!enabled) {
            r->error_code = version < 3 ? ERR_INVALID_REQUEST : ERR_TOPIC_DELETION_DISABLED;
        } else if (marks[i] & NAMED_TWICE) {
            r->error_code = ERR_INVALID_REQUEST; /* and nothing is deleted */
            r->error_message = bytes_str("Duplicate topic name.");
        } else {
            delete_one(op, name, *id, r);
        }
    }
    topics_op_release(op);
}

void handle_delete_topics(struct call *c)
{
    topics_enter(c, delete_run);
}

/* ---- CreatePartitions ---- */

typedef struct create_partitions_request_create_partitions_topic grow_req;
typedef struct create_partitions_response_create_partitions_topic_result grow_result;

static err grow_check(struct topics_op *op, const struct create_partitions_request *q, i32 at,
                      struct topic_entry *e, struct bytes *text)
{
    struct call *c = op->call;
    const grow_req *t = &q->topics.v[at];
    if (!e)
        return ERR_UNKNOWN_TOPIC_OR_PARTITION;
    i32 now = e->topic->partition_count;
    if (t->count <= now) {
        *text = text_of(c, "The topic currently has %d partition(s); %d would not be an increase.",
                        now, t->count);
        return ERR_INVALID_PARTITIONS;
    }
    if (t->assignments.n > 0 && t->assignments.n != t->count - now) {
        *text = text_of(c, "%d assignment(s) were given for %d new partition(s).", t->assignments.n,
                        t->count - now);
        return ERR_INVALID_REPLICA_ASSIGNMENT;
    }
    for (i32 i = 0; i < t->assignments.n; i++) {
        err why = replicas_check(c, t->assignments.v[i].broker_ids.v,
                                 t->assignments.v[i].broker_ids.n, text);
        if (why != ERR_NONE)
            return why;
    }
    bool beyond = t->count > TOPIC_PARTITIONS_MAX;
    return partitions_check(op, beyond ? INT32_MAX : t->count - now, text);
}

static void grow_one(struct topics_op *op, i32 at, bool named_twice, grow_result *r)
{
    struct call *c = op->call;
    const struct create_partitions_request *q = CALL_REQ(c, create_partitions_request);
    create_partitions_response_create_partitions_topic_result_init(r);
    r->name = q->topics.v[at].name;
    r->error_message = (struct bytes){ NULL, 0 };
    if (named_twice) {
        r->error_code = ERR_INVALID_REQUEST;
        r->error_message = bytes_str("Duplicate topic name.");
        return;
    }
    struct topic_entry *e = catalog_by_name(c->at, r->name);
    r->error_code = (i16)grow_check(op, q, at, e, &r->error_message);
    if (r->error_code != ERR_NONE || q->validate_only)
        return;
    struct topic *next = topic_copy(e->topic);
    next->partition_count = q->topics.v[at].count;
    op->partitions_more += (u64)(next->partition_count - e->topic->partition_count);
    topics_change(op, e->topic, next, &r->error_code);
}

static void grow_run(struct controller_task *task)
{
    struct topics_op *op = container_of(task, struct topics_op, task);
    struct call *c = op->call;
    const struct create_partitions_request *q = CALL_REQ(c, create_partitions_request);
    struct create_partitions_response *resp = CALL_RESP(c, create_partitions_response);
    i32 n = MAX(q->topics.n, 0);
    resp->results.v = CALL_ARRAY(c, grow_result, n);
    resp->results.n = 0;
    struct named *names = CALL_ARRAY(c, struct named, n);
    for (i32 i = 0; names && i < n; i++)
        names[i] = (struct named){ q->topics.v[i].name, 0, i };
    const u8 *marks = names && resp->results.v ? named_marks(c, names, n) : NULL;
    for (i32 i = 0; marks && i < n; i++)
        if (!(marks[i] & NAMED_BEFORE))
            grow_one(op, i, marks[i] & NAMED_TWICE, &resp->results.v[resp->results.n++]);
    topics_op_release(op);
}

void handle_create_partitions(struct call *c)
{
    topics_enter(c, grow_run);
}
