/* One shard's tables of topics, by name and by id. Changed only by catalog_apply, which the
 * controller's messages call on every shard (topics.c), so no lock is ever needed. */
#include "broker_int.h"
#include "check.h"

struct topic_entry *catalog_by_name(struct broker *b, struct bytes name)
{
    struct topic_entry *e = NULL;
    if (name.len)
        HASH_FIND(hh_name, b->topics_by_name, name.data, name.len, e);
    return e;
}

struct topic_entry *catalog_by_id(struct broker *b, struct uuid id)
{
    struct topic_entry *e = NULL;
    HASH_FIND(hh_id, b->topics_by_id, id.b, sizeof id.b, e);
    return e;
}

struct topic_entry *catalog_find(struct broker *b, struct bytes name, struct uuid id)
{
    return uuid_is_zero(id) ? catalog_by_name(b, name) : catalog_by_id(b, id);
}

bool topic_name_valid(struct bytes name)
{
    if (name.len == 0 || name.len > 249 || bytes_eq_str(name, ".") || bytes_eq_str(name, ".."))
        return false;
    for (u32 i = 0; i < name.len; i++) {
        u8 c = name.data[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
        if (!ok)
            return false;
    }
    return true;
}

u32 partition_shard(const struct broker *b, const struct topic *t, i32 partition)
{
    struct partition_key k = { t->id, (u32)partition };
    return storage_shard_of(&k, b->shard.group->count);
}

i32 broker_id_of_shard(const struct broker *b, u32 shard)
{
    const struct node *n = b->node;
    return n->advertise_shards ? n->id * NODE_SHARD_IDS + (i32)shard : n->id;
}

/* ---- changes ---- */

static void entry_index(struct broker *b, struct topic_entry *e)
{
    const struct topic *t = e->topic;
    HASH_ADD_KEYPTR(hh_name, b->topics_by_name, t->name.data, t->name.len, e);
    HASH_ADD_KEYPTR(hh_id, b->topics_by_id, t->id.b, sizeof t->id.b, e);
}

static void entry_unindex(struct broker *b, struct topic_entry *e)
{
    HASH_DELETE(hh_name, b->topics_by_name, e);
    HASH_DELETE(hh_id, b->topics_by_id, e);
}

void catalog_add_entry(struct broker *b, const struct topic *t)
{
    struct topic_entry *e = MEM_NEW(struct topic_entry);
    e->topic = t;
    e->partitions = mem_alloc((size_t)t->partition_count * sizeof *e->partitions);
    b->partition_total += (u64)t->partition_count;
    entry_index(b, e);
}

/* Opens what this shard owns and has not open. */
static void entry_open_partitions(struct broker *b, struct topic_entry *e)
{
    for (i32 i = 0; i < e->topic->partition_count; i++)
        if (!e->partitions[i] && partition_shard(b, e->topic, i) == b->shard.index) {
            e->partitions[i] = partition_open(b, e->topic, i);
            coordinator_partition_added(b, e->partitions[i]);
        }
}

void catalog_open_partitions(struct broker *b)
{
    struct topic_entry *e, *next;
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        entry_open_partitions(b, e);
}

/* Uthash keeps pointers to the keys, which lie in the topic: index again with the new one's. */
static void entry_replace(struct broker *b, struct topic_entry *e, const struct topic *next)
{
    i32 old_count = e->topic->partition_count, count = next->partition_count;
    CHECK(count >= old_count);
    b->partition_total += (u64)(count - old_count);
    entry_unindex(b, e);
    e->topic = next;
    entry_index(b, e);
    if (count > old_count) {
        e->partitions = mem_realloc(e->partitions, (size_t)count * sizeof *e->partitions);
        memset(e->partitions + old_count, 0, (size_t)(count - old_count) * sizeof *e->partitions);
    }
    for (i32 i = 0; i < old_count; i++)
        if (e->partitions[i]) {
            e->partitions[i]->topic = next;
            pindex_set_object(e->partitions[i]->pindex,
                              next->config.durability == DURABILITY_OBJECT);
        }
}

static void entry_remove(struct broker *b, struct topic_entry *e, bool deleted)
{
    b->partition_total -= (u64)e->topic->partition_count;
    for (i32 i = 0; i < e->topic->partition_count; i++)
        if (e->partitions[i]) {
            if (deleted)
                coordinator_partition_removed(b, e->partitions[i]);
            partition_close(e->partitions[i], deleted);
        }
    entry_unindex(b, e);
    mem_free(e->partitions);
    mem_free(e);
}

void catalog_apply(struct broker *b, const struct topic *old, const struct topic *next)
{
    struct topic_entry *e = old ? catalog_by_id(b, old->id) : NULL;
    if (old)
        CHECK(e != NULL);
    if (!next) {
        entry_remove(b, e, true);
        return;
    }
    if (!old)
        catalog_add_entry(b, next);
    else
        entry_replace(b, e, next);
    entry_open_partitions(b, catalog_by_id(b, next->id));
}

void catalog_free(struct broker *b)
{
    struct topic_entry *e, *next;
    HASH_ITER(hh_name, b->topics_by_name, e, next)
        entry_remove(b, e, false);
}
