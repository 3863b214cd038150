/* Walks every object the metadata names and checks every checksum: size, header, footer, index,
 * each block's hash, each batch's CRC-32C, and that the registered blocks are those of the index.
 * Then it lists the store for objects that nothing names.
 *
 *   NAMES (all registrations' ids) ─► for each object:
 *       REGISTRATION ─► OPEN (header, footer, index) ─► BLOCKS (a piece, rest) … ─► CONFIRM
 *   ─► LIST (a page) ─► CLASSIFY … ─► end
 *
 * Objects may be unregistered and deleted meanwhile. So after an object with a fault its
 * registration is looked up once more; if it is gone, so are the faults.
 *
 * Memory: 24 bytes an object; one registration, one index, one block; FAULTS_MAX faults are kept,
 * more are counted. Reads as store.h's class of cleaning up, at the rate asked for, in the
 * background lane for slow work. */
#include <stdio.h>

#include "clock.h"
#include "discard.h"
#include "scrub.h"
#include "store_job_int.h"

#define PIECE_BYTES (4 * MIB)
#define FAULTS_MAX 1000u
#define ORPHANS_MAX 1000u
#define PAGE 1000u
#define REG_BYTES_MAX GIB

struct named {
    u64 id;
    u32 epoch;
    u64 bytes;
};

struct fault {
    struct named object;
    const char *what;
    struct partition_key key;
    i64 from, to; /* offsets, to exclusive; from < 0: of no partition */
    err err;
};

struct verify {
    struct topic_names names;
    struct named *objects;
    u64 count, cap, at, objects_done, gone;
    u64 bytes_total, bytes_done, read_bytes, blocks_done, batches_done;
    struct fault *faults;
    u32 fault_count; /* kept */
    u64 fault_total;
    /* Of the object. */
    char name[BUNDLE_NAME_SIZE];
    struct arena arena; /* of the registration */
    struct bundle_reg reg;
    bool registered;
    u64 faults_before;
    u8 *index;
    u32 entry_count, entry_at, reg_at;
    u8 *raw;
    /* Of the list. */
    struct scrub_lives lives;
    u32 kind, listed, page_count;
    char after[STORE_NAME_MAX + 1];
    struct named *page;
    struct named *orphans; /* ORPHANS_MAX of them */
    u32 orphan_count;
    u64 orphan_total, orphan_bytes, discarded, discarded_bytes, recent, foreign;
    err err;
};

static const char *const kinds[] = { "b/", "r/" };

static void object_next(struct store_job *j);
static void page_next(struct store_job *j);

static struct verify *work_of(struct bg_job *b)
{
    return container_of(b, struct store_job, bg)->work;
}

static struct store *store_of(const struct store_job *j)
{
    return store_for(j->st->env->store, STORE_GC);
}

/* ---- faults ---- */

static void fault_add(struct verify *v, const char *what, err e, const struct partition_key *key,
                      i64 from, i64 to)
{
    u64 kept = v->fault_count;
    v->fault_total++;
    if (kept == FAULTS_MAX)
        return;
    if (v->faults == NULL)
        v->faults = mem_alloc(FAULTS_MAX * sizeof *v->faults);
    struct fault *f = &v->faults[v->fault_count++];
    *f = (struct fault){ v->objects[v->at], what, { { { 0 } }, 0 }, -1, -1, e };
    if (key == NULL)
        return;
    f->key = *key;
    f->from = from;
    f->to = to;
}

/* The object as a whole: every partition that has blocks in it. Its blocks are in order of
 * partitions. */
static void fault_all(struct verify *v, const char *what, err e)
{
    struct partition_key key = { { { 0 } }, 0 }, next;
    struct block b;
    i64 from = -1, to = -1;
    for (u32 i = 0; i < v->reg.block_count; i++) {
        bundle_reg_get(&v->reg, i, 0, &next, &b);
        bool same = from >= 0 && partition_key_eq(&key, &next);
        if (from >= 0 && !same)
            fault_add(v, what, e, &key, from, to);
        from = same ? from : b.base_offset;
        to = b.last_offset + 1;
        key = next;
    }
    fault_add(v, what, e, from >= 0 ? &key : NULL, from, to);
}

/* ---- which objects ---- */

static err name_one(void *arg, const struct meta_kv *kv)
{
    struct verify *v = arg;
    struct bundle_reg reg;
    struct named n = { 0 };
    if (!meta_key_bundle_parse(kv->key, &n.id) || bundle_reg_decode(kv->value, &reg) != ERR_NONE)
        return ERR_CORRUPT;
    n.epoch = reg.epoch;
    n.bytes = reg.object_bytes;
    if (v->count == v->cap) {
        v->cap = MAX(256, v->cap * 2);
        v->objects = mem_realloc(v->objects, v->cap * sizeof *v->objects);
    }
    v->objects[v->count++] = n;
    v->bytes_total += n.bytes;
    return ERR_NONE;
}

static void names_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    struct meta *m = container_of(b, struct store_job, bg)->st->env->meta;
    v->err = topic_names_load(&v->names, m);
    if (v->err == ERR_NONE)
        v->err = meta_range(m, bytes_str("b/"), name_one, v);
    if (v->err == ERR_NONE)
        v->err = meta_range(m, bytes_str("r/"), name_one, v);
}

static void names_done(struct store_job *j)
{
    const struct verify *v = j->work;
    if (v->err != ERR_NONE)
        store_job_end(j, "read the registrations", v->err);
    else
        object_next(j);
}

static void verify_begin(struct store_job *j)
{
    struct verify *v = j->work;
    arena_init(&v->arena, 64 * KIB, REG_BYTES_MAX);
    store_job_bg(j, BG_META, names_run, names_done);
}

/* ---- one object ---- */

/* Its registration, as it is now. */
static void registration_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    const struct named *n = &v->objects[v->at];
    char key[META_KEY_SIZE];
    struct meta_kv kv;
    struct meta *m = container_of(b, struct store_job, bg)->st->env->meta;
    arena_reset(&v->arena);
    v->err = meta_get(m, meta_key_bundle(key, n->id), &v->arena, &kv);
    if (v->err == ERR_NONE)
        v->err = bundle_reg_decode(kv.value, &v->reg);
    v->registered = v->err == ERR_NONE && v->reg.epoch == n->epoch;
    v->err = v->err == ERR_NOT_FOUND ? ERR_NONE : v->err;
}

static void object_done(struct store_job *j)
{
    struct verify *v = j->work;
    mem_free(v->index);
    v->index = NULL;
    v->bytes_done += v->objects[v->at].bytes;
    v->at++;
    store_job_rest(j, 0, object_next);
}

static void object_confirmed(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->err != ERR_NONE) {
        store_job_end(j, "read a registration", v->err);
        return;
    }
    if (v->registered) {
        v->objects_done++;
    } else { /* deleted while it was read */
        v->gone++;
        v->fault_total = v->faults_before;
        v->fault_count = (u32)MIN(v->fault_count, v->faults_before);
    }
    object_done(j);
}

static void object_end(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->fault_total > v->faults_before) {
        store_job_bg(j, BG_META, registration_run, object_confirmed);
        return;
    }
    v->objects_done++;
    object_done(j);
}

/* Every registered block must be one of the index; both are in the same order. */
static void registered_check(struct verify *v, const struct bundle_entry *e)
{
    struct partition_key key;
    struct block b;
    if (v->reg_at == v->reg.block_count)
        return;
    bundle_reg_get(&v->reg, v->reg_at, 0, &key, &b);
    if (b.pos > e->pos)
        return;
    bool same = b.pos == e->pos && b.data_bytes == e->data_bytes &&
                b.bytes == bundle_block_bytes(e) && b.base_offset == e->base_offset &&
                b.last_offset == e->last_offset && partition_key_eq(&key, &e->key);
    if (!same)
        fault_add(v, "the registration names another block", ERR_CORRUPT, &key, b.base_offset,
                  b.last_offset + 1);
    v->reg_at++;
}

static void block_check(struct verify *v, struct store *store, const struct bundle_entry *e)
{
    struct bundle_entry found;
    struct bytes data;
    const char *what = "the block can't be read";
    u32 bytes = bundle_block_bytes(e);
    v->raw = mem_realloc(v->raw, MAX(bytes, PIECE_BYTES));
    err failed = store->driver->get_range(store, v->name, e->pos, v->raw, bytes);
    if (failed == ERR_NONE) {
        what = "the block fails its checksums";
        failed = bundle_block_decode(bytes_of(v->raw, bytes), &found, &data);
    }
    if (failed == ERR_NONE && (found.hash != e->hash || found.base_offset != e->base_offset ||
                               !partition_key_eq(&found.key, &e->key))) {
        what = "the block is not the one of the index";
        failed = ERR_CORRUPT;
    }
    if (failed == ERR_NONE) {
        what = "the batches are out of order";
        failed = bundle_data_check(data, e);
    }
    if (failed != ERR_NONE)
        fault_add(v, what, failed, &e->key, e->base_offset, e->last_offset + 1);
    v->read_bytes += bytes;
    v->batches_done += e->batch_count;
    v->blocks_done++;
}

static void piece_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    struct store *store = store_of(container_of(b, struct store_job, bg));
    struct bytes index = bytes_of(v->index, v->entry_count * BUNDLE_ENTRY_BYTES);
    u64 end = v->read_bytes + PIECE_BYTES;
    while (v->entry_at < v->entry_count && v->read_bytes < end) {
        struct bundle_entry e;
        bundle_index_entry(index, v->entry_at++, &e);
        registered_check(v, &e);
        block_check(v, store, &e);
    }
}

static void piece_next(struct store_job *j);

static void piece_done(struct store_job *j)
{
    struct verify *v = j->work;
    u64 bytes = v->read_bytes;
    storage_count(j->st, M_verify_bytes, bytes);
    v->read_bytes = 0;
    store_job_rest(j, bytes, piece_next);
}

static void piece_next(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->entry_at == v->entry_count) {
        if (v->reg_at < v->reg.block_count)
            fault_all(v, "the registration names blocks that are not there", ERR_CORRUPT);
        object_end(j);
        return;
    }
    j->step_ns = clock_mono_ns();
    store_job_bg(j, BG_MISC, piece_run, piece_done);
}

/* What went wrong, or NULL. */
static const char *object_open(struct verify *v, struct store *store)
{
    const struct named *n = &v->objects[v->at];
    u8 head[BUNDLE_HEADER_BYTES], tail[BUNDLE_FOOTER_BYTES];
    struct bundle_footer f;
    u64 bytes, seq;
    u32 wal;
    v->err = store->driver->size(store, v->name, &bytes);
    if (v->err != ERR_NONE)
        return v->err == ERR_NOT_FOUND ? "the object is missing" : "the object can't be read";
    v->err = ERR_CORRUPT;
    if (bytes != v->reg.object_bytes || bytes < sizeof head + sizeof tail)
        return "the object has another length than registered";
    v->err = store->driver->get_range(store, v->name, 0, head, sizeof head);
    if (v->err == ERR_NONE)
        v->err = store->driver->get_range(store, v->name, bytes - sizeof tail, tail, sizeof tail);
    if (v->err != ERR_NONE)
        return "the object can't be read";
    v->err = bundle_header_decode(bytes_of(head, sizeof head), &wal, &seq);
    if (v->err != ERR_NONE)
        return "the header is damaged";
    v->err = bundle_footer_decode(bytes_of(tail, sizeof tail), bytes, &f);
    if (v->err != ERR_NONE)
        return "the footer is damaged";
    v->err = ERR_CORRUPT;
    if (bundle_id(wal, seq) != n->id || bundle_id(f.wal, f.seq) != n->id || f.epoch != n->epoch)
        return "it is another object";
    u32 index_bytes = f.entry_count * BUNDLE_ENTRY_BYTES;
    v->index = mem_alloc(index_bytes + 1);
    v->err = store->driver->get_range(store, v->name, f.index_pos, v->index, index_bytes);
    if (v->err != ERR_NONE)
        return "the index can't be read";
    v->err = bundle_index_check(bytes_of(v->index, index_bytes), &f);
    v->entry_count = v->err == ERR_NONE ? f.entry_count : 0;
    return v->err != ERR_NONE ? "the index is damaged" : NULL;
}

static void open_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    v->entry_count = v->entry_at = v->reg_at = 0;
    const char *what = object_open(v, store_of(container_of(b, struct store_job, bg)));
    if (what != NULL) {
        fault_all(v, what, v->err);
        v->reg_at = v->reg.block_count;
    }
}

static void registration_done(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->err != ERR_NONE) {
        store_job_end(j, "read a registration", v->err);
        return;
    }
    if (!v->registered) {
        v->gone++;
        object_done(j);
        return;
    }
    const struct named *n = &v->objects[v->at];
    bundle_name(v->name, n->id, n->epoch);
    v->faults_before = v->fault_total;
    store_job_bg(j, BG_MISC, open_run, piece_next);
}

static void object_next(struct store_job *j)
{
    const struct verify *v = j->work;
    if (v->at < v->count)
        store_job_bg(j, BG_META, registration_run, registration_done);
    else
        page_next(j);
}

/* ---- what else is in the store ---- */

static err list_one(void *arg, const char *name, u64 bytes)
{
    struct verify *v = arg;
    struct named *n = &v->page[v->page_count];
    v->listed++;
    snprintf(v->after, sizeof v->after, "%s", name);
    bool ours = bundle_name_parse(name, &n->id, &n->epoch);
    n->bytes = bytes;
    v->page_count += ours;
    v->foreign += !ours;
    return ERR_NONE;
}

static void list_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    char after[sizeof v->after];
    memcpy(after, v->after, sizeof after);
    v->err = store_list_page(store_of(container_of(b, struct store_job, bg)), kinds[v->kind], after,
                             PAGE, list_one, v);
}

static void classify_run(struct bg_job *b)
{
    struct verify *v = work_of(b);
    struct storage *st = container_of(b, struct store_job, bg)->st;
    for (u32 i = 0; i < v->page_count && v->err == ERR_NONE; i++) {
        const struct named *n = &v->page[i];
        enum scrub_found what = OBJECT_RECENT;
        v->err = scrub_classify(st, n->id, n->epoch, &v->lives, &what);
        if (v->err != ERR_NONE || what == OBJECT_REGISTERED)
            continue;
        v->recent += what == OBJECT_RECENT;
        v->discarded += what == OBJECT_DISCARDED;
        v->discarded_bytes += what == OBJECT_DISCARDED ? n->bytes : 0;
        if (what != OBJECT_ORPHAN)
            continue;
        v->orphan_total++;
        v->orphan_bytes += n->bytes;
        if (v->orphan_count < ORPHANS_MAX)
            v->orphans[v->orphan_count++] = *n;
    }
}

static void classify_done(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->err != ERR_NONE) {
        store_job_end(j, "read the metadata", v->err);
        return;
    }
    if (v->listed == 0) {
        v->kind++;
        v->after[0] = '\0';
    }
    if (v->kind == ARRAY_COUNT(kinds))
        store_job_end(j, NULL, ERR_NONE);
    else
        store_job_rest(j, 0, page_next);
}

static void list_done(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->err != ERR_NONE)
        store_job_end(j, "list the store", v->err);
    else
        store_job_bg(j, BG_META, classify_run, classify_done);
}

static void page_next(struct store_job *j)
{
    struct verify *v = j->work;
    if (v->page == NULL) {
        v->page = mem_alloc((PAGE + 1) * sizeof *v->page);
        v->orphans = mem_alloc(ORPHANS_MAX * sizeof *v->orphans);
    }
    v->page_count = v->listed = 0;
    store_job_bg(j, BG_MISC, list_run, list_done);
}

/* ---- the report ---- */

static void fault_show(const struct verify *v, const struct fault *f, struct metric_text *out)
{
    char name[BUNDLE_NAME_SIZE], id[33];
    metric_text_add(out, "{\"object\":\"%s\",\"what\":\"%s\",\"error\":\"%s\"",
                    bundle_name(name, f->object.id, f->object.epoch), f->what, err_name(f->err));
    if (f->from >= 0) {
        const char *topic = topic_names_find(&v->names, f->key.topic_id);
        topic_id_text(f->key.topic_id, id);
        metric_text_add(out,
                        ",\"topic\":\"%s\",\"topic_id\":\"%s\",\"partition\":%u,\"from\":%" PRId64
                        ",\"to\":%" PRId64,
                        topic != NULL ? topic : "", id, f->key.partition, f->from, f->to);
    }
    metric_text_add(out, "}");
}

static void verify_show(const struct store_job *j, struct metric_text *out)
{
    const struct verify *v = j->work;
    metric_text_add(out,
                    ",\"objects\":%" PRIu64 ",\"objects_done\":%" PRIu64 ",\"bytes\":%" PRIu64
                    ",\"bytes_done\":%" PRIu64 ",\"blocks_done\":%" PRIu64
                    ",\"batches_done\":%" PRIu64 ",\"gone\":%" PRIu64 ",\"faults_total\":%" PRIu64,
                    v->count, v->objects_done, v->bytes_total, v->bytes_done, v->blocks_done,
                    v->batches_done, v->gone, v->fault_total);
    metric_text_add(out,
                    ",\"orphans_total\":%" PRIu64 ",\"orphan_bytes\":%" PRIu64
                    ",\"discarded_objects\":%" PRIu64 ",\"discarded_bytes\":%" PRIu64
                    ",\"recent\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"faults\":[",
                    v->orphan_total, v->orphan_bytes, v->discarded, v->discarded_bytes, v->recent,
                    v->foreign);
    for (u32 i = 0; i < v->fault_count; i++) {
        metric_text_add(out, "%s", i > 0 ? "," : "");
        fault_show(v, &v->faults[i], out);
    }
    metric_text_add(out, "],\"orphans\":[");
    for (u32 i = 0; i < v->orphan_count; i++) {
        char name[BUNDLE_NAME_SIZE];
        metric_text_add(out, "%s\"%s\"", i > 0 ? "," : "",
                        bundle_name(name, v->orphans[i].id, v->orphans[i].epoch));
    }
    metric_text_add(out, "]");
}

static void verify_release(struct store_job *j)
{
    struct verify *v = j->work;
    topic_names_free(&v->names);
    arena_free(&v->arena);
    mem_free(v->objects);
    mem_free(v->faults);
    mem_free(v->index);
    mem_free(v->raw);
    mem_free(v->page);
    mem_free(v->orphans);
}

const struct store_job_ops store_verify_ops = {
    .name = "verify",
    .work_bytes = sizeof(struct verify),
    .begin = verify_begin,
    .show = verify_show,
    .release = verify_release,
};
