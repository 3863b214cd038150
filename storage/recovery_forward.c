/* Recovery, the second half: what the store has beyond the metadata; see recovery.h.
 *
 * Objects are uploaded, then registered, then the registration is sent to the store: the last of
 * them may be missing in a backup. Their own indexes say what they hold. The w/ key of a log names
 * its first segment that was not registered, so bundles of that segment and later ones are looked
 * at, those of earlier ones are leftovers; and runs that were uploaded from the log
 * (object_is_fresh). Runs that were made from other objects are not: those are there, too.
 *
 *  1. Of a partition blocks are taken only while the offsets go on without a gap. Uploads finish
 *     out of order: what was in the gap was in the lost log only.
 *  2. A segment may have been uploaded by two lives, in other company. The later one counts: all of
 *     that life's registrations follow one another without a gap, beginning where those of the life
 *     before it ended. An object of an epoch before those that the w/ key names is not taken: a
 *     node that was replaced, and does not know it yet, may still put objects.
 *  3. Producers are brought up to the last block that was taken, so that a batch that is sent again
 *     is still recognised.
 *  4. Every log begins anew behind all segments and epochs that the store has seen, so no name is
 *     given twice.
 *  5. All of it is one transaction.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backup_int.h"
#include "bundle_int.h"
#include "clock.h"
#include "clone_int.h"
#include "compact_int.h"
#include "recovery_int.h"

#define OBJECTS_MAX (16u * 1024 * 1024)
#define ENTRIES_MAX (16u * 1024 * 1024)
#define SEQ_AHEAD_MAX ((u64)1 << 32) /* of a segment's number: farther ahead it is none */
#define SEGMENT_BYTES_ANY ((u32)(16 * MIB))

struct object { /* in the store */
    u64 id;
    u64 bytes;
    u32 epoch;
    bool registered;
    i64 end; /* of a run: behind the blocks that were taken; 0: none */
};

struct part {
    struct partition_key key;
    i64 start, end; /* log start; end of what is registered */
    struct pindex *px;
    bool known, asked, touched, stopped;
    UT_hash_handle hh;
};

struct taken { /* a block that may be registered */
    struct partition_key key;
    struct block block;
    u32 object; /* its index */
    u32 epoch;  /* of the object */
    bool taken;
};

struct log_state {
    bool known;
    struct wal_meta_state meta;
    u64 next;  /* no object of this segment or a later one is there */
    u32 epoch; /* no object of a later one is there */
};

struct forward {
    struct recovery *r;
    struct object *objects;
    u32 object_count, object_cap;
    struct taken *blocks;
    u32 block_count, block_cap;
    struct part *parts;
    struct log_state logs[SHARDS_MAX];
    struct backup_buf ops; /* the transaction */
    struct arena arena;
    char missing[BUNDLE_NAME_SIZE]; /* the first */
    u64 *missing_ids;               /* ascending */
    u32 missing_count;
    u8 *raw;
};

/* ---- what the store has ---- */

static err object_see(void *arg, const char *name, u64 bytes)
{
    struct forward *f = arg;
    struct object o = { .bytes = bytes };
    if (!bundle_name_parse(name, &o.id, &o.epoch) || bundle_wal(o.id) >= SHARDS_MAX)
        return ERR_NONE;
    if (f->object_count == OBJECTS_MAX)
        return ERR_NO_MEMORY;
    if (f->object_count == f->object_cap) {
        f->object_cap = MAX(256u, f->object_cap + f->object_cap / 2);
        f->objects = mem_realloc(f->objects, f->object_cap * sizeof o);
    }
    f->objects[f->object_count++] = o;
    return ERR_NONE;
}

static int object_compare(const void *x, const void *y)
{
    const struct object *a = x, *b = y;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return (a->epoch > b->epoch) - (a->epoch < b->epoch);
}

static err objects_list(struct forward *f)
{
    struct store *s = f->r->store;
    err e = s->driver->list(s, "b/", object_see, f);
    if (e == ERR_NONE)
        e = s->driver->list(s, "r/", object_see, f);
    if (f->object_count > 0)
        qsort(f->objects, f->object_count, sizeof *f->objects, object_compare);
    return e;
}

static struct object *object_find(const struct forward *f, u64 id, u32 epoch)
{
    struct object wanted = { .id = id, .epoch = epoch };
    return f->object_count == 0
               ? NULL
               : bsearch(&wanted, f->objects, f->object_count, sizeof wanted, object_compare);
}

/* ---- what the metadata has ---- */

static struct part *part_of(struct forward *f, const struct partition_key *key)
{
    struct part *p;
    HASH_FIND(hh, f->parts, key, sizeof *key, p);
    if (p != NULL)
        return p;
    p = MEM_NEW(struct part);
    p->key = *key;
    HASH_ADD(hh, f->parts, key, sizeof p->key, p);
    return p;
}

static bool part_known(struct forward *f, struct part *p)
{
    if (!p->asked)
        p->known = f->r->exists == NULL || f->r->exists(f->r->exists_arg, &p->key);
    p->asked = true;
    return p->known;
}

static err start_one(void *arg, const struct meta_kv *kv)
{
    struct forward *f = arg;
    struct partition_key key;
    if (!meta_key_partition_parse(kv->key, &key) || kv->value.len != 16)
        return ERR_CORRUPT;
    part_of(f, &key)->start = (i64)get_le64(kv->value.data + 8);
    return ERR_NONE;
}

static err log_one(void *arg, const struct meta_kv *kv)
{
    struct forward *f = arg;
    char text[8] = { 0 };
    unsigned index = SHARDS_MAX;
    if (kv->key.len != 6)
        return ERR_NONE;
    memcpy(text, kv->key.data + 2, 4);
    if (sscanf(text, "%4x", &index) != 1 || index >= SHARDS_MAX)
        return ERR_NONE;
    struct log_state *l = &f->logs[index];
    l->known = wal_meta_state(kv->value, &l->meta);
    l->epoch = l->meta.epoch;
    return l->known ? ERR_NONE : ERR_CORRUPT;
}

static void put_op(struct forward *f, struct bytes key, struct bytes value)
{
    struct meta_op op = { META_PUT, key, value };
    backup_buf_add(&f->ops, &op);
}

static void missing(struct forward *f, struct bytes key, u64 id, u32 epoch)
{
    struct meta_op op = { META_DELETE, key, { NULL, 0 } };
    if (f->r->objects_missing++ == 0)
        bundle_name(f->missing, id, epoch);
    f->missing_ids = mem_realloc(f->missing_ids, (f->missing_count + 1) * sizeof id);
    f->missing_ids[f->missing_count++] = id;
    backup_buf_add(&f->ops, &op); /* with --force */
}

static err reg_one(void *arg, const struct meta_kv *kv)
{
    struct forward *f = arg;
    u64 id;
    struct bundle_reg reg;
    if (!meta_key_bundle_parse(kv->key, &id) || bundle_reg_decode(kv->value, &reg) != ERR_NONE ||
        reg.run != object_is_run(id))
        return ERR_CORRUPT;
    f->r->objects++;
    struct object *o = object_find(f, id, reg.epoch);
    if (o == NULL || o->bytes != reg.object_bytes)
        missing(f, kv->key, id, reg.epoch);
    else
        o->registered = true;
    for (u32 i = 0; i < reg.block_count; i++) {
        struct partition_key key;
        struct block b;
        bundle_reg_get(&reg, i, id, &key, &b);
        struct part *p = part_of(f, &key);
        p->end = MAX(p->end, reg.run ? reg.cover_to : b.last_offset + 1);
    }
    return ERR_NONE;
}

static int id_compare(const void *x, const void *y)
{
    const u64 *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static bool is_missing(void *arg, u64 object)
{
    const struct forward *f = arg;
    return f->missing_count > 0 &&
           bsearch(&object, f->missing_ids, f->missing_count, sizeof object, id_compare) != NULL;
}

/* A clone's partition ends behind what it shares; after --force, without what is not there. */
static err clone_one(void *arg, const struct meta_kv *kv)
{
    struct forward *f = arg;
    struct partition_key key, origin;
    struct block b;
    u32 count;
    bool any_missing = false;
    err e = clone_decode_kv(kv, &key, &count);
    if (e != ERR_NONE)
        return e;
    struct part *p = part_of(f, &key);
    for (u32 i = 0; i < count; i++) {
        clone_decode_block(kv->value, i, &origin, &b);
        p->end = MAX(p->end, b.last_offset + 1);
        any_missing |= is_missing(f, b.bundle);
    }
    if (!any_missing)
        return ERR_NONE;
    struct bytes value = clone_value_without(kv->value, is_missing, f, &f->arena);
    if (value.data == NULL)
        return ERR_NO_MEMORY;
    put_op(f, kv->key, value);
    return ERR_NONE;
}

static err metadata_read(struct forward *f)
{
    struct meta *m = f->r->meta;
    err e = meta_range(m, bytes_str("p/"), start_one, f);
    if (e == ERR_NONE)
        e = meta_range(m, bytes_str("w/"), log_one, f);
    if (e == ERR_NONE)
        e = meta_range(m, bytes_str("b/"), reg_one, f);
    if (e == ERR_NONE)
        e = meta_range(m, bytes_str("r/"), reg_one, f);
    if (f->missing_count > 1)
        qsort(f->missing_ids, f->missing_count, sizeof *f->missing_ids, id_compare);
    if (e == ERR_NONE)
        e = meta_range(m, bytes_str("k/"), clone_one, f);
    return e;
}

/* ---- indexes of what is not registered ---- */

static err read_at(struct forward *f, const char *name, u64 at, u32 len)
{
    struct store *s = f->r->store;
    f->raw = mem_realloc(f->raw, MAX(len, 1u));
    return s->driver->get_range(s, name, at, f->raw, len);
}

static err index_read(struct forward *f, const struct object *o, struct bundle_footer *foot)
{
    char name[BUNDLE_NAME_SIZE];
    bundle_name(name, o->id, o->epoch);
    if (o->bytes < BUNDLE_HEADER_BYTES + BUNDLE_FOOTER_BYTES)
        return ERR_CORRUPT;
    err e = read_at(f, name, o->bytes - BUNDLE_FOOTER_BYTES, BUNDLE_FOOTER_BYTES);
    if (e == ERR_NONE)
        e = bundle_footer_decode(bytes_of(f->raw, BUNDLE_FOOTER_BYTES), o->bytes, foot);
    if (e == ERR_NONE && (bundle_id(foot->wal, foot->seq) != o->id || foot->epoch != o->epoch))
        e = ERR_CORRUPT;
    if (e != ERR_NONE)
        return e;
    u32 len = foot->entry_count * BUNDLE_ENTRY_BYTES;
    e = read_at(f, name, foot->index_pos, len);
    return e == ERR_NONE ? bundle_index_check(bytes_of(f->raw, len), foot) : e;
}

static err blocks_add(struct forward *f, u32 object, u32 count)
{
    struct bytes index = bytes_of(f->raw, count * BUNDLE_ENTRY_BYTES);
    for (u32 i = 0; i < count; i++) {
        struct bundle_entry e;
        bundle_index_entry(index, i, &e);
        if (f->block_count == ENTRIES_MAX)
            return ERR_NO_MEMORY;
        if (f->block_count == f->block_cap) {
            f->block_cap = MAX(256u, f->block_cap * 2);
            f->blocks = mem_realloc(f->blocks, f->block_cap * sizeof *f->blocks);
        }
        f->blocks[f->block_count++] =
            (struct taken){ .key = e.key,
                            .object = object,
                            .epoch = f->objects[object].epoch,
                            .block = bundle_entry_block(f->objects[object].id, &e) };
    }
    return ERR_NONE;
}

static void object_unreadable(const struct object *o, err e)
{
    char name[BUNDLE_NAME_SIZE];
    LOG(WARN, recovery_object_damaged,
        "object=%s error=%s effect=\"what follows it in its partitions is left out\"",
        bundle_name(name, o->id, o->epoch), err_name(e));
}

static bool damaged(err e)
{
    return e == ERR_CORRUPT || e == ERR_TRUNCATED || e == ERR_NOT_FOUND || e == ERR_UNSUPPORTED;
}

/* Of bundles beyond the registered segments, of each the newest. */
static err candidates_read(struct forward *f)
{
    for (u32 i = 0; i < f->object_count; i++) {
        const struct object *o = &f->objects[i];
        struct log_state *l = &f->logs[bundle_wal(o->id)];
        u64 seq = bundle_seq(o->id);
        l->epoch = MAX(l->epoch, MIN(o->epoch, UINT32_MAX - 8));
        u64 first = l->meta.first_unregistered;
        bool run = object_is_run(o->id);
        if (run ? !object_is_fresh(o->id) : seq >= first + SEQ_AHEAD_MAX)
            continue;
        if (!run)
            l->next = MAX(l->next, seq + 1);
        bool newest = i + 1 == f->object_count || f->objects[i + 1].id != o->id;
        if (o->registered || (!run && seq < first) || o->epoch < l->meta.oldest_epoch || !newest)
            continue;
        struct bundle_footer foot;
        err e = ERR_CORRUPT;
        for (u32 tries = 0; tries < 3 && e == ERR_CORRUPT; tries++)
            e = index_read(f, o, &foot);
        if (e == ERR_NONE)
            e = blocks_add(f, i, foot.entry_count);
        else if (damaged(e))
            object_unreadable(o, e);
        if (e != ERR_NONE && !damaged(e))
            return e;
    }
    return ERR_NONE;
}

/* ---- taking ---- */

static int by_offset(const void *x, const void *y)
{
    const struct taken *a = x, *b = y;
    int c = memcmp(&a->key, &b->key, sizeof a->key);
    if (c != 0)
        return c;
    if (a->block.base_offset != b->block.base_offset)
        return a->block.base_offset < b->block.base_offset ? -1 : 1;
    if (a->epoch != b->epoch)
        return a->epoch > b->epoch ? -1 : 1;
    return (a->object < b->object) - (a->object > b->object);
}

static int by_object(const void *x, const void *y)
{
    const struct taken *a = x, *b = y;
    if (a->object != b->object)
        return a->object < b->object ? -1 : 1;
    return (a->block.pos > b->block.pos) - (a->block.pos < b->block.pos);
}

/* A run stands for all offsets between its ends: blocks of other objects may not lie there. */
static bool would_split(const struct object *o, const struct block *b)
{
    return object_is_run(o->id) && o->end > 0 && o->end != b->base_offset;
}

/* The producers as of the registered end. */
static err producers_begin(struct forward *f, struct part *p)
{
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    p->px = MEM_NEW(struct pindex);
    MAGIC_INIT(p->px, PINDEX_MAGIC);
    p->px->key = p->key;
    err e = meta_get(f->r->meta, meta_key_partition(key, 's', &p->key), &f->arena, &kv);
    if (e != ERR_NONE)
        return e == ERR_NOT_FOUND ? ERR_NONE : e;
    if (kv.value.len < SNAPSHOT_HEAD_BYTES || kv.value.data[0] != SNAPSHOT_VERSION)
        return ERR_CORRUPT;
    struct bytes body =
        bytes_of(kv.value.data + SNAPSHOT_HEAD_BYTES, kv.value.len - SNAPSHOT_HEAD_BYTES);
    if (body.len > 0)
        f->r->ops->restored(NULL, p->px, body);
    return ERR_NONE;
}

static err block_take(struct forward *f, struct part *p, struct taken *t)
{
    char name[BUNDLE_NAME_SIZE];
    struct bytes data;
    struct batch b;
    err e = p->px == NULL ? producers_begin(f, p) : ERR_NONE;
    if (e != ERR_NONE)
        return e;
    bundle_name(name, t->block.bundle, f->objects[t->object].epoch);
    e = ERR_CORRUPT;
    for (u32 tries = 0; tries < 3 && e == ERR_CORRUPT; tries++)
        e = rewrite_read_block(f->r->store, name, &p->key, &t->block, &f->raw, &data);
    if (e != ERR_NONE)
        return e;
    while (data.len > 0) {
        struct bytes whole = data;
        if (batch_next(&data, &b) != ERR_NONE)
            return ERR_CORRUPT;
        f->r->ops->recovered(NULL, p->px, bytes_of(whole.data, b.bytes));
    }
    t->taken = p->touched = true;
    p->end = f->objects[t->object].end = t->block.last_offset + 1;
    f->r->forward_blocks++;
    f->r->forward_bytes += t->block.data_bytes;
    return ERR_NONE;
}

static err blocks_take(struct forward *f)
{
    if (f->block_count > 0)
        qsort(f->blocks, f->block_count, sizeof *f->blocks, by_offset);
    for (u32 i = 0; i < f->block_count; i++) {
        struct taken *t = &f->blocks[i];
        struct part *p = part_of(f, &t->key);
        i64 next = MAX(p->start, p->end);
        if (!part_known(f, p)) {
            f->r->blocks_unknown++;
            continue;
        }
        if (t->block.base_offset < p->end || t->block.last_offset < next ||
            would_split(&f->objects[t->object], &t->block))
            continue; /* is there, or was deleted */
        p->stopped |= t->block.base_offset > next;
        if (p->stopped) {
            f->r->blocks_beyond++;
            continue;
        }
        err e = block_take(f, p, t);
        if (e == ERR_NONE)
            continue;
        if (!damaged(e))
            return e;
        object_unreadable(&f->objects[t->object], e);
        p->stopped = true;
        f->r->blocks_beyond++;
    }
    return ERR_NONE;
}

/* ---- the transaction ---- */

/* Blocks [from, to) are of one object. */
static err register_object(struct forward *f, u32 from, u32 to)
{
    const struct object *o = &f->objects[f->blocks[from].object];
    char key[META_KEY_SIZE];
    struct bundle_reg reg = { .epoch = o->epoch,
                              .object_bytes = o->bytes,
                              .created_ms = clock_wall_ms(),
                              .run = object_is_run(o->id) };
    for (u32 i = from; i < to; i++) {
        if (f->blocks[i].taken && reg.block_count++ == 0 && reg.run)
            reg.cover_from = f->blocks[i].block.base_offset;
    }
    reg.cover_to = reg.run ? o->end : 0;
    if (reg.block_count == 0)
        return ERR_NONE;
    u8 *raw;
    struct bytes value = bundle_reg_begin(&f->arena, &reg, &raw);
    if (raw == NULL)
        return ERR_NO_MEMORY;
    u32 n = 0;
    for (u32 i = from; i < to; i++)
        if (f->blocks[i].taken)
            bundle_reg_set(raw, n++, &f->blocks[i].key, &f->blocks[i].block);
    bundle_reg_end(raw, value.len);
    put_op(f, meta_key_bundle(key, o->id), value);
    /* An older life's whose data was about to be stored anew may have been taken for an orphan. */
    struct meta_op wanted = { META_DELETE, discard_key(key, o->id, o->epoch), { NULL, 0 } };
    backup_buf_add(&f->ops, &wanted);
    f->r->forward_objects++;
    f->r->objects++;
    return ERR_NONE;
}

static err register_all(struct forward *f)
{
    err e = ERR_NONE;
    if (f->block_count > 0)
        qsort(f->blocks, f->block_count, sizeof *f->blocks, by_object);
    for (u32 from = 0, to; from < f->block_count && e == ERR_NONE; from = to) {
        for (to = from + 1; to < f->block_count; to++)
            if (f->blocks[to].object != f->blocks[from].object)
                break;
        e = register_object(f, from, to);
    }
    return e;
}

static err producers_end(struct forward *f)
{
    struct part *p, *next;
    HASH_ITER(hh, f->parts, p, next) {
        if (!p->touched)
            continue;
        char key[META_KEY_SIZE];
        struct bytes body = f->r->ops->snapshot(NULL, p->px, &f->arena);
        u8 *v = arena_alloc(&f->arena, (u64)SNAPSHOT_HEAD_BYTES + body.len);
        if (v == NULL)
            return ERR_NO_MEMORY;
        if (body.len == 0)
            continue; /* as it was */
        v[0] = SNAPSHOT_VERSION;
        memcpy(v + SNAPSHOT_HEAD_BYTES, body.data, body.len);
        put_op(f, meta_key_partition(key, 's', &p->key),
               bytes_of(v, SNAPSHOT_HEAD_BYTES + body.len));
    }
    return ERR_NONE;
}

static void logs_begin_anew(struct forward *f)
{
    for (u32 i = 0; i < SHARDS_MAX; i++) {
        struct log_state *l = &f->logs[i];
        char key[META_KEY_SIZE];
        if (!l->known && l->next == 0)
            continue;
        u32 segment_bytes = l->known ? l->meta.segment_bytes : SEGMENT_BYTES_ANY;
        u64 first = MAX(l->meta.first_unregistered, l->next);
        put_op(f, meta_key_wal(key, i),
               wal_meta_fresh_value(first, l->epoch + 1, segment_bytes, &f->arena));
    }
}

static err transaction(struct forward *f)
{
    err e = register_all(f);
    if (e == ERR_NONE)
        e = producers_end(f);
    if (e != ERR_NONE)
        return e;
    logs_begin_anew(f);
    if (f->ops.op_count == 0)
        return ERR_NONE;
    struct bytes left =
        bytes_of(f->ops.data + BACKUP_HEAD_BYTES, (u32)(f->ops.used - BACKUP_HEAD_BYTES));
    struct meta_op *v = mem_alloc(f->ops.op_count * sizeof *v);
    struct meta_txn t = { NULL, v, 0, 0 };
    while (t.op_count < f->ops.op_count && backup_op_next(&left, &v[t.op_count]))
        t.op_count++;
    e = meta_commit(f->r->meta, &t);
    mem_free(v);
    return e;
}

static void forward_free(struct forward *f)
{
    struct part *p, *next;
    HASH_ITER(hh, f->parts, p, next) {
        HASH_DEL(f->parts, p);
        if (p->px != NULL) {
            if (pindex_user(p->px) != NULL && f->r->ops->forget != NULL)
                f->r->ops->forget(NULL, p->px);
            MAGIC_POISON(p->px);
            mem_free(p->px);
        }
        mem_free(p);
    }
    mem_free(f->objects);
    mem_free(f->blocks);
    mem_free(f->raw);
    mem_free(f->missing_ids);
    backup_buf_free(&f->ops);
    arena_free(&f->arena);
    mem_free(f);
}

static err forward(struct forward *f, char *why, size_t why_size)
{
    struct recovery *r = f->r;
    err e = objects_list(f);
    if (e == ERR_NONE)
        e = metadata_read(f);
    if (e == ERR_NONE && r->objects_missing > 0 && !r->force)
        return recovery_fail(
            why, why_size, ERR_NOT_FOUND,
            "%" PRIu64 " of %" PRIu64 " objects that the metadata names are not at "
            "%s, or have another length (%s, for one): put them back, or add --force "
            "to go on without what they held",
            r->objects_missing, r->objects, r->url, f->missing);
    if (e == ERR_NONE)
        e = candidates_read(f);
    if (e == ERR_NONE)
        e = blocks_take(f);
    if (e == ERR_NONE)
        e = transaction(f);
    if (e == ERR_CORRUPT)
        return recovery_fail(
            why, why_size, e,
            "the metadata is damaged, though its checksums are right (written by a "
            "newer version?): use the newest leat");
    if (e != ERR_NONE)
        return recovery_fail(why, why_size, e,
                             "reading what %s has beyond the metadata: %s; check the store and the "
                             "disk, then do it again",
                             r->url, err_text(e));
    return ERR_NONE;
}

err recovery_forward(struct recovery *r, char *why, size_t why_size)
{
    struct forward *f = MEM_NEW(struct forward);
    f->r = r;
    arena_init(&f->arena, 64 * KIB, 4 * (u64)GIB);
    err e = forward(f, why, why_size);
    forward_free(f);
    return e;
}
