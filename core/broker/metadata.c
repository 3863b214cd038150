/* ApiVersions, Metadata, DescribeCluster: what a client needs to find its way. Answered from this
 * shard's tables; only auto-creation asks the controller, and the answer waits for it, so that a
 * client's first Metadata already shows the new topic. */

#include "broker_int.h"
#include "check.h"

/* ---- ApiVersions ---- */

void api_versions_fill(struct call *c, struct api_versions_response *resp)
{
    resp->api_keys.v = CALL_ARRAY(c, struct api_versions_response_api_version, API_KEYS_MAX);
    resp->api_keys.n = 0;
    for (i16 key = 0; resp->api_keys.v && key < API_KEYS_MAX; key++) {
        const struct api *a = api_find(key);
        if (!a)
            continue;
        struct api_versions_response_api_version *v = &resp->api_keys.v[resp->api_keys.n++];
        api_versions_response_api_version_init(v);
        v->api_key = key;
        v->min_version = a->min;
        v->max_version = a->max;
    }
    resp->finalized_features_epoch = 0;
}

/* Kafka's pattern for both: one letter or digit at each end, letters, digits, '-' and '.'
 * between. */
static bool software_name_valid(struct bytes s)
{
    for (u32 i = 0; i < s.len; i++) {
        u8 ch = s.data[i];
        bool alnum =
            (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        bool inner = i > 0 && i + 1 < s.len && (ch == '-' || ch == '.');
        if (!alnum && !inner)
            return false;
    }
    return s.len > 0;
}

void handle_api_versions(struct call *c)
{
    const struct api_versions_request *q = CALL_REQ(c, api_versions_request);
    struct api_versions_response *resp = CALL_RESP(c, api_versions_response);
    const struct node *n = c->at->node;
    i16 version = c->header.request_api_version;
    if (version >= 3 && (!software_name_valid(q->client_software_name) ||
                         !software_name_valid(q->client_software_version))) {
        resp->error_code = ERR_INVALID_REQUEST;
        call_done(c);
        return;
    }
    api_versions_fill(c, resp);
    bool other_cluster = q->cluster_id.data && !bytes_eq_str(q->cluster_id, n->cluster_id);
    bool other_node =
        q->node_id != -1 && q->node_id != broker_id_of_shard(c->at, c->at->shard.index);
    if (version >= 5 && (other_cluster || other_node))
        resp->error_code =
            ERR_REBOOTSTRAP_REQUIRED; /* KIP-1242: the address was given to someone else */
    call_done(c);
}

/* ---- brokers ---- */

static u32 broker_count(const struct node *n)
{
    return n->advertise_shards ? n->group.count : 1;
}

static bool metadata_brokers(struct call *c, struct metadata_response *resp)
{
    const struct node *n = c->at->node;
    u32 count = broker_count(n);
    resp->brokers.v = CALL_ARRAY(c, struct metadata_response_metadata_response_broker, count);
    if (!resp->brokers.v)
        return false;
    resp->brokers.n = (i32)count;
    for (u32 i = 0; i < count; i++) {
        struct metadata_response_metadata_response_broker *b = &resp->brokers.v[i];
        metadata_response_metadata_response_broker_init(b);
        b->node_id = broker_id_of_shard(c->at, i);
        b->host = bytes_str(n->host);
        b->port = n->ports[i];
        b->rack = node_rack(n);
    }
    resp->cluster_id = bytes_str(n->cluster_id);
    resp->controller_id = broker_id_of_shard(c->at, CONTROLLER_SHARD);
    return true;
}

struct bytes node_rack(const struct node *n)
{
    const char *rack = config_str(n->cfg, CFG_node_rack);
    return *rack ? bytes_str(rack) : (struct bytes){ NULL, 0 };
}

/* ---- topics ---- */

typedef struct metadata_response_metadata_response_topic meta_topic;
typedef struct metadata_response_metadata_response_partition meta_partition;

static bool metadata_partitions(struct call *c, const struct topic *t, meta_topic *r)
{
    i32 n = t->partition_count;
    r->partitions.v = CALL_ARRAY(c, meta_partition, n);
    i32 *leaders = CALL_ARRAY(c, i32, n);
    if (!r->partitions.v || !leaders)
        return false;
    r->partitions.n = n;
    for (i32 i = 0; i < n; i++) {
        meta_partition *p = &r->partitions.v[i];
        metadata_response_metadata_response_partition_init(p);
        leaders[i] = broker_id_of_shard(c->at, partition_shard(c->at, t, i));
        p->partition_index = i;
        p->leader_id = leaders[i];
        p->leader_epoch = 0;
        p->replica_nodes.v = p->isr_nodes.v = &leaders[i];
        p->replica_nodes.n = p->isr_nodes.n = 1;
    }
    return true;
}

static bool metadata_topic(struct call *c, const struct topic *t, meta_topic *r)
{
    metadata_response_metadata_response_topic_init(r);
    r->name = arena_copy(c->arena, t->name);
    r->topic_id = t->id;
    r->is_internal = t->internal;
    return r->name.data && metadata_partitions(c, t, r);
}

static bool metadata_all(struct call *c, struct metadata_response *resp)
{
    struct broker *b = c->at;
    resp->topics.v = CALL_ARRAY(c, meta_topic, HASH_CNT(hh_name, b->topics_by_name));
    if (!resp->topics.v)
        return false;
    struct topic_entry *e, *next;
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        if (!metadata_topic(c, e->topic, &resp->topics.v[resp->topics.n++]))
            return false;
    return true;
}

/* One of the topics that were asked for. */
static bool metadata_one(struct call *c, struct bytes name, struct uuid id, err missing,
                         meta_topic *r)
{
    struct topic_entry *e = catalog_find(c->at, name, id);
    if (e)
        return metadata_topic(c, e->topic, r);
    metadata_response_metadata_response_topic_init(r);
    r->name = uuid_is_zero(id) ? name : (struct bytes){ NULL, 0 };
    if (!r->name.data && c->header.request_api_version < 12)
        r->name = bytes_str("");
    r->topic_id = id;
    if (!uuid_is_zero(id))
        r->error_code = ERR_UNKNOWN_TOPIC_ID;
    else
        r->error_code = (i16)(topic_name_valid(name) ? missing : ERR_INVALID_TOPIC_EXCEPTION);
    return true;
}

struct metadata_op { /* creates the missing topics first */
    struct call *call;
    u32 outstanding;
    struct topic_ensure *ensures;
    err *results; /* per topic of the request */
};

static bool metadata_is_all(const struct call *c)
{
    const struct metadata_request *q = CALL_REQ(c, metadata_request);
    return q->topics.n < 0 || (q->topics.n == 0 && c->header.request_api_version == 0);
}

/* One answer a topic, whether it is named by name, by id or by both; in place, the request is the
 * call's own. */
static bool metadata_merge(struct call *c)
{
    struct metadata_request *q = (struct metadata_request *)(uintptr_t)c->req;
    struct named *names = CALL_ARRAY(c, struct named, q->topics.n);
    for (i32 i = 0; names && i < q->topics.n; i++)
        names[i] =
            (struct named){ named_topic(c->at, q->topics.v[i].name, &q->topics.v[i].topic_id), 0,
                            i };
    const u8 *marks = names ? named_marks(c, names, q->topics.n) : NULL;
    i32 kept = 0;
    for (i32 i = 0; marks && i < q->topics.n; i++)
        if (!(marks[i] & NAMED_BEFORE))
            q->topics.v[kept++] = q->topics.v[i];
    q->topics.n = kept;
    return marks != NULL;
}

static void metadata_answer(struct call *c, const err *results)
{
    const struct metadata_request *q = CALL_REQ(c, metadata_request);
    struct metadata_response *resp = CALL_RESP(c, metadata_response);
    bool fits = metadata_brokers(c, resp);
    if (metadata_is_all(c)) {
        fits = fits && metadata_all(c, resp);
    } else {
        resp->topics.v = CALL_ARRAY(c, meta_topic, q->topics.n);
        fits = fits && resp->topics.v;
        for (i32 i = 0; fits && i < q->topics.n; i++) {
            err missing =
                results && results[i] != ERR_NONE ? results[i] : ERR_UNKNOWN_TOPIC_OR_PARTITION;
            resp->topics.n++;
            fits = metadata_one(c, q->topics.v[i].name, q->topics.v[i].topic_id, missing,
                                &resp->topics.v[i]);
        }
    }
    if (fits)
        call_done(c);
    else
        call_malformed(c, "response memory limit");
}

static void metadata_ensured_all(struct metadata_op *op)
{
    if (--op->outstanding == 0)
        metadata_answer(op->call, op->results);
}

static void metadata_ensured(struct topic_ensure *te)
{
    struct metadata_op *op = te->user;
    op->results[te - op->ensures] = te->err;
    metadata_ensured_all(op);
}

static bool metadata_creates(const struct call *c, i32 i)
{
    const struct metadata_request *q = CALL_REQ(c, metadata_request);
    struct bytes name = q->topics.v[i].name;
    bool allowed = c->header.request_api_version < 4 || q->allow_auto_topic_creation;
    return allowed && config_bool(c->at->node->cfg, CFG_auto_create_topics_enable) &&
           uuid_is_zero(q->topics.v[i].topic_id) && topic_name_valid(name) &&
           !catalog_by_name(c->at, name);
}

/* At most this many are created by one request; the rest is reported as unknown, and asked for
 * again by the client. */
#define METADATA_CREATES_MAX 256

void handle_metadata(struct call *c)
{
    const struct metadata_request *q = CALL_REQ(c, metadata_request);
    u32 missing = 0;
    if (!metadata_is_all(c) && !metadata_merge(c)) {
        call_malformed(c, "request memory limit");
        return;
    }
    for (i32 i = 0; i < q->topics.n; i++)
        missing += metadata_creates(c, i);
    if (missing == 0 || missing > METADATA_CREATES_MAX) {
        metadata_answer(c, NULL);
        return;
    }
    struct metadata_op *op = arena_alloc(c->arena, sizeof *op);
    if (op) {
        *op = (struct metadata_op){ .call = c, .outstanding = 1 };
        op->ensures = CALL_ARRAY(c, struct topic_ensure, q->topics.n);
        op->results = CALL_ARRAY(c, err, q->topics.n);
    }
    if (!op || !op->ensures || !op->results) {
        call_malformed(c, "request memory limit");
        return;
    }
    for (i32 i = 0; i < q->topics.n; i++)
        if (metadata_creates(c, i)) {
            op->outstanding++;
            topic_ensure(c->at, &op->ensures[i], q->topics.v[i].name, metadata_ensured);
            op->ensures[i].user = op;
        }
    metadata_ensured_all(op);
}

/* ---- DescribeCluster ---- */

void handle_describe_cluster(struct call *c)
{
    const struct describe_cluster_request *q = CALL_REQ(c, describe_cluster_request);
    struct describe_cluster_response *resp = CALL_RESP(c, describe_cluster_response);
    const struct node *n = c->at->node;
    resp->error_message = (struct bytes){ NULL, 0 };
    if (q->endpoint_type != 1) {
        resp->error_code =
            q->endpoint_type == 2 ? ERR_MISMATCHED_ENDPOINT_TYPE : ERR_UNSUPPORTED_ENDPOINT_TYPE;
        resp->error_message = bytes_str("This endpoint is a broker's: endpoint type 1.");
        call_done(c);
        return;
    }
    u32 count = broker_count(n);
    resp->brokers.v =
        CALL_ARRAY(c, struct describe_cluster_response_describe_cluster_broker, count);
    if (!resp->brokers.v) {
        call_malformed(c, "response memory limit");
        return;
    }
    resp->brokers.n = (i32)count;
    for (u32 i = 0; i < count; i++) {
        struct describe_cluster_response_describe_cluster_broker *b = &resp->brokers.v[i];
        describe_cluster_response_describe_cluster_broker_init(b);
        b->broker_id = broker_id_of_shard(c->at, i);
        b->host = bytes_str(n->host);
        b->port = n->ports[i];
        b->rack = node_rack(n);
    }
    resp->cluster_id = bytes_str(n->cluster_id);
    resp->controller_id = broker_id_of_shard(c->at, CONTROLLER_SHARD);
    if (q->include_cluster_authorized_operations)
        resp->cluster_authorized_operations = OPERATIONS_OF_CLUSTER;
    call_done(c);
}
