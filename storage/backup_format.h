/* The bytes of the metadata's backup in the store; docs/formats/backup.md is the same for people.
 * All integers little-endian. Pure functions over memory; every reader survives any input.
 *
 * Every object is a head and a list of changes of keys, all of it under one XXH3-64:
 *   m/<epoch:8>/claim               who writes in this epoch
 *   m/<epoch:8>/alive               its sign of life, written again and again
 *   m/<epoch:8>/s-<seq:16>-<part:8> a part of a snapshot, to which the changes from `seq` on belong
 *   m/<epoch:8>/s-<seq:16>-end      the snapshot is whole
 *   m/<epoch:8>/d-<seq:16>          a change set
 */
#ifndef LEAT_BACKUP_FORMAT_H
#define LEAT_BACKUP_FORMAT_H

#include "bytes.h"
#include "meta.h"

#define BACKUP_MAGIC 0x4154454d5441454cull /* "LEATMETA" */
#define BACKUP_FORMAT_VERSION 1u
#define BACKUP_HEAD_BYTES 64u
#define BACKUP_OP_BYTES 8u
#define BACKUP_OBJECT_MAX GIB /* a larger one is damage */
#define BACKUP_NAME_SIZE 48

enum backup_kind {
    BACKUP_CLAIM = 1,
    BACKUP_ALIVE = 2,
    BACKUP_PART = 3,
    BACKUP_END = 4,
    BACKUP_CHANGES = 5
};
enum { BACKUP_RUNNING = 1, BACKUP_STOPPED = 2 }; /* backup_head.part of BACKUP_ALIVE */

struct backup_head {
    enum backup_kind kind;
    u32 epoch;
    u32 part; /* of a part: its number; of an end: how many there are; of a sign of life: state */
    u64 seq;  /* of a sign of life: it counts */
    u64 through; /* of an end: needs the changes before; of a sign of life: ms between two */
    i64 time_ms; /* when it was written; for people */
    u32 op_count;
};

/* ---- writing ---- */

/* An object that grows; its head is filled in by backup_buf_end. */
struct backup_buf {
    u8 *data;
    u64 used, cap;
    u32 op_count;
};
void backup_buf_add(struct backup_buf *b, const struct meta_op *op);
/* The whole object; a view into the buffer. */
struct bytes backup_buf_end(struct backup_buf *b, struct backup_head h);
void backup_buf_free(struct backup_buf *b); /* and empty again */
static inline u64 backup_op_size(const struct meta_op *op)
{
    return (u64)BACKUP_OP_BYTES + op->key.len + op->value.len;
}

/* ---- reading ---- */

/* All of an object is sound, and `ops` is what backup_op_next walks over. ERR_CORRUPT,
 * ERR_UNSUPPORTED: a newer version wrote it. */
err backup_decode(struct bytes object, struct backup_head *out, struct bytes *ops) MUST_USE;
/* The next of decoded ones; false: there is none. Views. */
bool backup_op_next(struct bytes *ops, struct meta_op *out) MUST_USE;

/* ---- names ---- */

struct backup_name {
    enum backup_kind kind;
    u32 epoch;
    u32 part; /* of BACKUP_PART */
    u64 seq;  /* of BACKUP_PART, BACKUP_END, BACKUP_CHANGES */
};
/* buf of BACKUP_NAME_SIZE; returns it. */
char *backup_name(char *buf, struct backup_name n);
bool backup_name_parse(const char *text, struct backup_name *out) MUST_USE;

#endif
