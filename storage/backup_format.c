/* See backup_format.h. */
#include "backup_format.h"

#include <stdio.h>

#include "check.h"
#include "hash.h"
#include "mem.h"
#include "plant.h"

enum { /* the head */
       AT_MAGIC = 0,
       AT_VERSION = 8,
       AT_KIND = 12,
       AT_EPOCH = 16,
       AT_PART = 20,
       AT_SEQ = 24,
       AT_THROUGH = 32,
       AT_TIME = 40,
       AT_OP_COUNT = 48,
       AT_ZERO = 52,
       AT_HASH = 56
};

/* ---- writing ---- */

static u8 *buf_room(struct backup_buf *b, u64 bytes)
{
    b->used = MAX(b->used, (u64)BACKUP_HEAD_BYTES);
    if (b->used + bytes > b->cap) {
        b->cap = MAX(b->cap + b->cap / 2, b->used + bytes);
        b->data = mem_realloc(b->data, b->cap);
    }
    u8 *at = b->data + b->used;
    b->used += bytes;
    return at;
}

void backup_buf_add(struct backup_buf *b, const struct meta_op *op)
{
    CHECK(op->key.len > 0 && op->key.len <= META_KEY_MAX);
    u32 value_len = op->kind == META_PUT ? op->value.len : 0;
    u8 *at = buf_room(b, (u64)BACKUP_OP_BYTES + op->key.len + value_len);
    at[0] = (u8)op->kind;
    at[1] = 0;
    put_le16(at + 2, (u16)op->key.len);
    put_le32(at + 4, value_len);
    memcpy(at + BACKUP_OP_BYTES, op->key.data, op->key.len);
    if (value_len > 0)
        memcpy(at + BACKUP_OP_BYTES + op->key.len, op->value.data, value_len);
    b->op_count++;
}

/* Of an object whose hash field counts as 0. */
static u64 object_hash(struct bytes o)
{
    static const u8 zero[BACKUP_HEAD_BYTES - AT_HASH];
    struct hash_stream h;
    hash_stream_init(&h, 0);
    hash_stream_update(&h, o.data, AT_HASH);
    hash_stream_update(&h, zero, sizeof zero);
    hash_stream_update(&h, o.data + BACKUP_HEAD_BYTES, o.len - BACKUP_HEAD_BYTES);
    return hash_stream_value(&h);
}

struct bytes backup_buf_end(struct backup_buf *b, struct backup_head h)
{
    (void)buf_room(b, 0);
    CHECK(b->used <= BACKUP_OBJECT_MAX);
    u8 *p = b->data;
    memset(p, 0, BACKUP_HEAD_BYTES);
    put_le64(p + AT_MAGIC, BACKUP_MAGIC);
    put_le32(p + AT_VERSION, BACKUP_FORMAT_VERSION);
    put_le32(p + AT_KIND, (u32)h.kind);
    put_le32(p + AT_EPOCH, h.epoch);
    put_le32(p + AT_PART, h.part);
    put_le64(p + AT_SEQ, h.seq);
    put_le64(p + AT_THROUGH, h.through);
    put_le64(p + AT_TIME, (u64)h.time_ms);
    put_le32(p + AT_OP_COUNT, b->op_count);
    struct bytes object = bytes_of(p, (u32)b->used);
    put_le64(p + AT_HASH, object_hash(object));
    return object;
}

void backup_buf_free(struct backup_buf *b)
{
    mem_free(b->data);
    *b = (struct backup_buf){ 0 };
}

/* ---- reading ---- */

static bool op_read(struct bytes *ops, struct meta_op *out)
{
    if (ops->len < BACKUP_OP_BYTES)
        return false;
    const u8 *p = ops->data;
    u32 key_len = get_le16(p + 2), value_len = get_le32(p + 4);
    u64 total = (u64)BACKUP_OP_BYTES + key_len + value_len;
    bool sane = p[0] <= META_DELETE_PREFIX && p[1] == 0 && key_len > 0 && key_len <= META_KEY_MAX &&
                (p[0] == META_PUT || value_len == 0);
    if (!sane || (total > ops->len && !PLANTED(PLANT_BACKUP_LENGTH)))
        return false;
    total = MIN(total, (u64)ops->len);
    out->kind = (enum meta_op_kind)p[0];
    out->key = bytes_of(p + BACKUP_OP_BYTES, key_len);
    out->value = bytes_of(p + BACKUP_OP_BYTES + key_len, value_len);
    *ops = bytes_of(p + total, ops->len - (u32)total);
    return true;
}

bool backup_op_next(struct bytes *ops, struct meta_op *out)
{
    if (ops->len == 0)
        return false;
    bool there = op_read(ops, out);
    CHECK(there); /* backup_decode saw to it */
    return true;
}

err backup_decode(struct bytes o, struct backup_head *out, struct bytes *ops)
{
    if (o.len < BACKUP_HEAD_BYTES || get_le64(o.data + AT_MAGIC) != BACKUP_MAGIC)
        return ERR_CORRUPT;
    if (get_le64(o.data + AT_HASH) != object_hash(o))
        return ERR_CORRUPT;
    if (get_le32(o.data + AT_VERSION) != BACKUP_FORMAT_VERSION)
        return ERR_UNSUPPORTED;
    u32 kind = get_le32(o.data + AT_KIND);
    if (kind < BACKUP_CLAIM || kind > BACKUP_CHANGES || get_le32(o.data + AT_ZERO) != 0)
        return ERR_CORRUPT;
    *out = (struct backup_head){ .kind = (enum backup_kind)kind,
                                 .epoch = get_le32(o.data + AT_EPOCH),
                                 .part = get_le32(o.data + AT_PART),
                                 .seq = get_le64(o.data + AT_SEQ),
                                 .through = get_le64(o.data + AT_THROUGH),
                                 .time_ms = (i64)get_le64(o.data + AT_TIME),
                                 .op_count = get_le32(o.data + AT_OP_COUNT) };
    *ops = bytes_of(o.data + BACKUP_HEAD_BYTES, o.len - BACKUP_HEAD_BYTES);
    struct bytes left = *ops;
    struct meta_op op;
    for (u32 i = 0; i < out->op_count; i++)
        if (!op_read(&left, &op))
            return ERR_CORRUPT;
    return left.len == 0 ? ERR_NONE : ERR_CORRUPT;
}

/* ---- names ---- */

char *backup_name(char *buf, struct backup_name n)
{
    int len = snprintf(buf, BACKUP_NAME_SIZE, "m/%08x/", n.epoch);
    char *at = buf + len;
    size_t room = BACKUP_NAME_SIZE - (size_t)len;
    switch (n.kind) {
    case BACKUP_CLAIM:
        snprintf(at, room, "claim");
        break;
    case BACKUP_ALIVE:
        snprintf(at, room, "alive");
        break;
    case BACKUP_PART:
        snprintf(at, room, "s-%016" PRIx64 "-%08x", n.seq, n.part);
        break;
    case BACKUP_END:
        snprintf(at, room, "s-%016" PRIx64 "-end", n.seq);
        break;
    case BACKUP_CHANGES:
        snprintf(at, room, "d-%016" PRIx64, n.seq);
        break;
    }
    return buf;
}

/* `digits` of lower-case hexadecimal; moves on. */
static bool name_hex(const char **p, u32 digits, u64 *out)
{
    u64 v = 0;
    for (u32 i = 0; i < digits; i++) {
        char c = (*p)[i];
        if (c >= '0' && c <= '9')
            v = v << 4 | (u64)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (u64)(c - 'a' + 10);
        else
            return false;
    }
    *p += digits;
    *out = v;
    return true;
}

bool backup_name_parse(const char *text, struct backup_name *out)
{
    u64 epoch, part = 0;
    *out = (struct backup_name){ 0 };
    if (strncmp(text, "m/", 2) != 0)
        return false;
    text += 2;
    if (!name_hex(&text, 8, &epoch) || *text++ != '/')
        return false;
    out->epoch = (u32)epoch;
    if (strcmp(text, "claim") == 0 || strcmp(text, "alive") == 0) {
        out->kind = *text == 'c' ? BACKUP_CLAIM : BACKUP_ALIVE;
        return true;
    }
    char first = *text;
    if ((first != 's' && first != 'd') || text[1] != '-')
        return false;
    text += 2;
    if (!name_hex(&text, 16, &out->seq))
        return false;
    if (first == 'd') {
        out->kind = BACKUP_CHANGES;
        return *text == '\0';
    }
    out->kind = BACKUP_END;
    if (strcmp(text, "-end") == 0)
        return true;
    out->kind = BACKUP_PART;
    if (*text++ != '-' || !name_hex(&text, 8, &part) || *text != '\0')
        return false;
    out->part = (u32)part;
    return true;
}
