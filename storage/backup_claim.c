/* Whose a place in the store is; see backup.h. Claims are never replaced: each is an object of its
 * own, put on condition that nobody put it before. */
#include <stdio.h>
#include <unistd.h>

#include "backup_int.h"
#include "check.h"
#include "clock.h"

#define OWNER_BYTES 24u
#define OWNER_VERSION 1
#define READ_TRIES 3u

/* ---- in the metadata ---- */

err backup_owner_read(struct meta *m, struct backup_owner *out)
{
    struct arena a;
    struct meta_kv kv = { 0 };
    arena_init(&a, 1024, MIB);
    err e = meta_get(m, bytes_str(BACKUP_KEY), &a, &kv);
    *out = (struct backup_owner){ 0 };
    if (e == ERR_NONE && (kv.value.len != OWNER_BYTES || kv.value.data[0] != OWNER_VERSION))
        e = ERR_CORRUPT;
    if (e == ERR_NONE) {
        out->epoch = get_le32(kv.value.data + 4);
        memcpy(out->lineage.b, kv.value.data + 8, 16);
    }
    arena_free(&a);
    return e;
}

err backup_owner_write(struct meta *m, const struct backup_owner *o)
{
    u8 v[OWNER_BYTES] = { OWNER_VERSION };
    put_le32(v + 4, o->epoch);
    memcpy(v + 8, o->lineage.b, 16);
    struct meta_op put = { META_PUT, bytes_str(BACKUP_KEY), bytes_of(v, sizeof v) };
    struct meta_txn t = { NULL, &put, 0, 1 };
    return meta_commit(m, &t);
}

/* ---- objects ---- */

static err read_once(struct store *s, const char *name, u8 **raw, struct backup_head *head,
                     struct bytes *ops)
{
    u64 bytes;
    err e = s->driver->size(s, name, &bytes);
    if (e != ERR_NONE)
        return e;
    if (bytes < BACKUP_HEAD_BYTES || bytes > BACKUP_OBJECT_MAX)
        return ERR_CORRUPT;
    *raw = mem_realloc(*raw, bytes);
    e = s->driver->get_range(s, name, 0, *raw, (u32)bytes);
    return e == ERR_NONE ? backup_decode(bytes_of(*raw, (u32)bytes), head, ops) : e;
}

err backup_read(struct store *s, struct backup_name n, u8 **raw, struct backup_head *head,
                struct bytes *ops)
{
    char name[BACKUP_NAME_SIZE];
    err e = ERR_NONE;
    backup_name(name, n);
    for (u32 i = 0; i < READ_TRIES; i++) {
        e = read_once(s, name, raw, head, ops);
        if (e == ERR_NONE && (head->kind != n.kind || head->epoch != n.epoch))
            e = ERR_CORRUPT;
        if (e == ERR_NONE && n.kind >= BACKUP_PART && head->seq != n.seq)
            e = ERR_CORRUPT;
        if (e != ERR_CORRUPT && e != ERR_TRUNCATED)
            break;
    }
    return e;
}

err backup_write(struct store *s, struct backup_name n, bool if_absent, struct bytes object)
{
    char name[BACKUP_NAME_SIZE];
    struct store_object o = {
        .name = backup_name(name, n), .parts = &object, .part_count = 1, .if_absent = if_absent
    };
    return s->driver->put(s, &o);
}

/* ---- claims ---- */

static err claims_see(void *arg, const char *name, u64 bytes)
{
    struct backup_claims *c = arg;
    struct backup_name n;
    (void)bytes;
    if (!backup_name_parse(name, &n))
        return ERR_NONE;
    if (n.kind == BACKUP_CLAIM)
        c->newest = MAX(c->newest, n.epoch);
    if (n.kind == BACKUP_ALIVE)
        c->newest_alive = MAX(c->newest_alive, n.epoch);
    if (n.kind == BACKUP_END)
        c->newest_whole = MAX(c->newest_whole, n.epoch);
    return ERR_NONE;
}

static err claim_read(struct store *s, struct backup_claims *c)
{
    u8 *raw = NULL;
    struct backup_head head;
    struct bytes ops;
    struct meta_op op;
    struct backup_name n = { .kind = BACKUP_CLAIM, .epoch = c->newest };
    err e = backup_read(s, n, &raw, &head, &ops);
    while (e == ERR_NONE && backup_op_next(&ops, &op)) {
        if (bytes_eq_str(op.key, "lineage") && op.value.len == sizeof c->lineage.b)
            memcpy(c->lineage.b, op.value.data, sizeof c->lineage.b);
        if (bytes_eq_str(op.key, "life") && op.value.len == sizeof c->life.b)
            memcpy(c->life.b, op.value.data, sizeof c->life.b);
        if (bytes_eq_str(op.key, "node"))
            snprintf(c->node, sizeof c->node, "%.*s", (int)MIN(op.value.len, 60u),
                     (const char *)op.value.data);
    }
    c->unreadable = e == ERR_CORRUPT;
    if (e == ERR_CORRUPT || e == ERR_UNSUPPORTED) {
        snprintf(c->node, sizeof c->node, "whose claim can't be read");
        e = ERR_NONE;
    } else if (e == ERR_NONE) {
        c->time_ms = head.time_ms;
    }
    mem_free(raw);
    return e;
}

err backup_claims_read(struct store *s, u32 known, struct backup_claims *out)
{
    char name[BACKUP_NAME_SIZE];
    u64 bytes;
    *out = (struct backup_claims){ 0 };
    err e = s->driver->list(s, "m/", claims_see, out);
    if (e == ERR_NONE && out->newest < known) {
        backup_name(name, (struct backup_name){ .kind = BACKUP_CLAIM, .epoch = known });
        e = s->driver->size(s, name, &bytes);
        if (e == ERR_NONE)
            out->newest = known;
        else if (e == ERR_NOT_FOUND)
            e = ERR_NONE; /* it is another store */
    }
    return e == ERR_NONE && out->newest > 0 ? claim_read(s, out) : e;
}

err backup_claim(struct store *s, const struct config *cfg, u32 epoch, const struct uuid *lineage,
                 const struct uuid *life)
{
    char host[40] = "", node[64];
    struct backup_buf b = { 0 };
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    snprintf(node, sizeof node, "node.id=%" PRIi64 " on %s", config_i64(cfg, CFG_node_id), host);
    struct meta_op ops[] = {
        { META_PUT, bytes_str("lineage"), bytes_of(lineage->b, sizeof lineage->b) },
        { META_PUT, bytes_str("life"), bytes_of(life->b, sizeof life->b) },
        { META_PUT, bytes_str("node"), bytes_str(node) },
    };
    for (u32 i = 0; i < ARRAY_COUNT(ops); i++)
        backup_buf_add(&b, &ops[i]);
    struct backup_head h = { .kind = BACKUP_CLAIM, .epoch = epoch, .time_ms = clock_wall_ms() };
    struct backup_name n = { .kind = BACKUP_CLAIM, .epoch = epoch };
    err e = backup_write(s, n, true, backup_buf_end(&b, h));
    backup_buf_free(&b);
    return e == ERR_EXISTS ? ERR_CONFLICT : e;
}
