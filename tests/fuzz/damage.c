/* Changes of what lies on the disk and in the stores; see damage.h. */
#include "damage.h"

#include <stdio.h>
#include <string.h>

#include "../../storage/wal_format.h"
#include "batch.h"
#include "repair.h"
#include "world.h"

size_t LLVMFuzzerMutate(u8 *data, size_t len, size_t len_max);

struct change {
    u8 kind, index;
    bool repair;
    u16 pos;
    struct bytes bytes;
};

#define FRAMES_MAX 64
static u8 *frames[FRAMES_MAX];
static u64 frame_room[FRAMES_MAX];
static u32 frame_count;

void damage_frames_find(void)
{
    const char *path;
    u8 *media;
    u64 size;
    frame_count = 0;
    for (u32 i = 0; disk_file_at(i, &path, &media, &size); i++)
        for (u64 at = WAL_SUPER_BYTES; at + FRAME_BYTES <= size; at += WAL_ALIGN)
            if (frame_count < FRAMES_MAX && get_le32(media + at + FRAME_AT_MAGIC) == FRAME_MAGIC) {
                frame_room[frame_count] = size - at;
                frames[frame_count++] = media + at;
            }
}

static void overwrite(u8 *p, u64 size, u64 pos, struct bytes b)
{
    if (pos < size && b.len > 0)
        memcpy(p + pos, b.data, MIN(size - pos, b.len));
}

static void change_wal(const struct change *c)
{
    const char *path;
    u8 *media;
    u64 size;
    if (!disk_file_at(0, &path, &media, &size))
        return;
    if (c->kind == 2) {
        overwrite(media, WAL_SUPER_BYTES, c->pos % 96, c->bytes);
        if (c->repair)
            repair_super(media, WAL_SUPER_BYTES);
        return;
    }
    if (c->kind == 3) {
        overwrite(media, size, (u64)c->pos * 64, c->bytes);
        return;
    }
    if (frame_count == 0)
        return;
    u32 i = c->index % frame_count;
    u8 *f = frames[i];
    u64 room = frame_room[i];
    if (c->kind == 15) {
        u32 from = c->pos % frame_count;
        u64 n = FRAME_BYTES + (u64)get_le32(frames[from] + FRAME_AT_PAYLOAD_BYTES);
        memmove(f, frames[from], MIN(n, MIN(room, frame_room[from])));
        memcpy(f + FRAME_AT_LSN, frames[i] + FRAME_AT_LSN, 8);
    } else {
        u32 head = FRAME_BYTES + BATCH_HEADER_BYTES;
        u32 pos = c->kind == 14 ? head + c->pos % 512 : c->pos % (head + 8);
        overwrite(f, room, pos, c->bytes);
    }
    if (c->repair)
        repair_frame(f, room);
}

static void meta_value_put(struct bytes key, const u8 *value, u32 len, bool repair)
{
    u8 *copy = mem_dup(value, len), *name = mem_dup(key.data, key.len);
    if (repair && key.len > 1 && key.data[0] == 'b')
        repair_registration(copy, len);
    meta_pair_put(bytes_of(name, key.len), bytes_of(copy, len));
    mem_free(copy);
    mem_free(name);
}

/* "d/" alone stands for the note about an object there is. */
static struct bytes note_key(struct bytes key, u32 index, char buf[80])
{
    const char *name;
    struct bytes data;
    u32 n = 0;
    while (store_object_at(n, &name, &data))
        n++;
    if (n == 0 || !bytes_eq_str(key, "d/") || !store_object_at(index % n, &name, &data))
        return key;
    snprintf(buf, 80, "d/%s", name);
    return bytes_str(buf);
}

static void change_meta(const struct change *c)
{
    static u8 buf[8192];
    char note[80];
    struct bytes key, value, other_key, other;
    u32 n = 0;
    while (meta_pair_at(n, &key, &value))
        n++;
    if (n == 0 || !meta_pair_at(c->index % n, &key, &value) || value.len > sizeof buf / 2)
        return;
    u32 len = value.len;
    memcpy(buf, value.data, len);
    if (c->kind == 6) {
        memset(buf + len, 0, sizeof buf - len);
        len = c->pos % 4096;
    } else if (c->kind == 8 && meta_pair_at(c->pos % n, &other_key, &other)) {
        len = MIN(other.len, (u32)sizeof buf);
        memcpy(buf, other.data, len);
    } else if (c->kind == 9) {
        const u8 *zero = c->bytes.len ? memchr(c->bytes.data, 0, c->bytes.len) : NULL;
        if (!zero || zero == c->bytes.data)
            return;
        key = bytes_of(c->bytes.data, (u32)(zero - c->bytes.data));
        len = c->bytes.len - key.len - 1;
        memcpy(buf, zero + 1, len);
        key = note_key(key, c->index, note);
    } else {
        u32 pos = c->pos % (len + 1);
        len = MAX(len, pos + c->bytes.len);
        overwrite(buf, sizeof buf, pos, c->bytes);
    }
    meta_value_put(key, buf, len, c->repair);
}

static void change_object(const struct change *c)
{
    const char *text;
    struct bytes data;
    char name[64];
    u32 n = 0;
    while (store_object_at(n, &text, &data))
        n++;
    if (n == 0 || !store_object_at(c->index % n, &text, &data))
        return;
    snprintf(name, sizeof name, "%s", text);
    u32 len = c->kind == 12 ? MIN(data.len, c->pos) : data.len;
    u8 *copy = mem_dup(data.data, data.len);
    /* The end, where footer and index lie, and the beginning are as near as each other. */
    u32 pos = c->pos & 0x8000 ? len - MIN(len, c->pos & 0x7fffu) : c->pos;
    if (c->kind != 12)
        overwrite(copy, len, pos, c->bytes);
    if (c->repair && name[0] == 'm')
        repair_backup(copy, len);
    else if (c->repair)
        repair_bundle(copy, len);
    store_object_put(name, bytes_of(copy, len));
    mem_free(copy);
}

/* Deletions go through the stores' own calls. */
static void delete_one(const struct change *c)
{
    struct bytes key, value;
    const char *name;
    u32 n = 0;
    char why[100];
    if (c->kind == 7) {
        struct meta *m;
        while (meta_pair_at(n, &key, &value))
            n++;
        if (n == 0 || meta_open("sim://x", &m, why, sizeof why) != ERR_NONE)
            return;
        (void)meta_pair_at(c->index % n, &key, &value);
        struct meta_op op = { META_DELETE, key, { NULL, 0 } };
        struct meta_txn t = { .ops = &op, .op_count = 1 };
        (void)!meta_commit(m, &t);
        meta_close(m);
        return;
    }
    struct store *s;
    while (store_object_at(n, &name, &value))
        n++;
    if (n == 0 || store_open("sim://x", NULL, &s, why, sizeof why) != ERR_NONE)
        return;
    char copy[64];
    (void)store_object_at(c->index % n, &name, &value);
    snprintf(copy, sizeof copy, "%s", name);
    (void)!s->driver->remove(s, copy);
    s->driver->close(s);
}

void damage_apply(const u8 *p, const u8 *end)
{
    while (end - p >= 5) {
        struct change c = { p[0] & 15, p[1], p[0] & 0x80, get_be16(p + 2), { NULL, 0 } };
        u32 len = MIN((u32)p[4], (u32)(end - p - 5));
        c.bytes = bytes_of(p + 5, len);
        p += 5 + len;
        if (c.kind <= 3 || c.kind >= 14)
            change_wal(&c);
        else if (c.kind == 7 || c.kind == 13)
            delete_one(&c);
        else if (c.kind <= 9)
            change_meta(&c);
        else
            change_object(&c);
    }
}

/* ---- inputs ---- */

static size_t change_after(const u8 *data, size_t len, size_t pos)
{
    return MIN(len, pos + 5 + (len - pos >= 5 ? data[pos + 4] : 0));
}

/* A number at the edge of something, or any. */
static void value_random(struct rng *rng, u8 *out, u32 len)
{
    static const u64 edges[] = { 0,         1,          0x7f,       0x80,       0xff,
                                 0x7fff,    0x8000,     0x7fffffff, 0x80000000, UINT64_MAX,
                                 INT64_MAX, 1ull << 63, 4096,       32768 };
    u8 le[8];
    put_le64(le, rng_below(rng, 3) ? edges[rng_below(rng, ARRAY_COUNT(edges))] : rng_next(rng));
    bool big_endian = rng_below(rng, 2);
    for (u32 i = 0; i < len; i++)
        out[i] = i >= 8 ? (u8)rng_next(rng) : le[big_endian ? MIN(len, 8u) - 1 - i : i];
}

size_t damage_mutate(u8 *data, size_t len, size_t len_max, unsigned seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    if (len < 2 || rng_below(&rng, 3) == 0)
        return LLVMFuzzerMutate(data, len, len_max);
    if (rng_below(&rng, 8) == 0)
        data[0] = (u8)rng_next(&rng);
    size_t pos = 2;
    for (u64 skip = rng_below(&rng, 6); skip > 0 && pos < len; skip--)
        pos = change_after(data, len, pos);
    /* Few changes: the first that is refused hides those behind it. */
    if (rng_below(&rng, len > 60 ? 2 : 5) == 0 && pos < len) {
        size_t next = change_after(data, len, pos);
        memmove(data + pos, data + next, len - next);
        return len - (next - pos);
    }
    u8 fresh[5 + 16];
    static const u8 sizes[] = { 1, 1, 2, 4, 4, 8, 8, 16 };
    u8 n = sizes[rng_below(&rng, sizeof sizes)];
    if (len + 5 + n > len_max)
        return LLVMFuzzerMutate(data, len, len_max);
    fresh[0] = (u8)(rng_below(&rng, 16) | (rng_below(&rng, 4) ? 0x80 : 0));
    fresh[1] = (u8)rng_below(&rng, 64);
    put_be16(fresh + 2, (u16)(rng_below(&rng, 2) ? rng_below(&rng, 128) : rng_below(&rng, 65536)));
    fresh[4] = n;
    value_random(&rng, fresh + 5, n);
    memmove(data + pos + 5 + n, data + pos, len - pos);
    memcpy(data + pos, fresh, 5 + n);
    return len + 5 + n;
}
