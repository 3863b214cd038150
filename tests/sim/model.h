/* What the clients were promised, and the checks of it.
 *
 * A record is known by its id: lane (a producer's stream into one partition) and number in it, from
 * 1 on. The id is the first part of its value; the rest follows from it.
 *
 * Promises held against the history:
 *   - acknowledged means there: every acknowledged record is found at its offset until deleted
 *   - what a consumer saw does not change or vanish (also what was never acknowledged)
 *   - offsets have no gaps; a record with sequence numbers is there once, in order, nothing missing
 *     between two of its lane
 *   - consumers see nothing at or beyond the high watermark; it never goes back
 *   - the log start never goes back, and never beyond what was asked to be deleted
 *   - an acknowledged commit of a group's offset is found
 */
#ifndef LEAT_SIM_MODEL_H
#define LEAT_SIM_MODEL_H

#include "batch.h"
#include "sim.h"

#define TOPICS_MAX 3
#define PARTS_MAX 8
#define LANES_MAX 64

struct lane { /* what one producer wrote to one partition */
    u32 index;
    struct mpart *part;
    bool idempotent;
    u32 made;     /* numbers given out */
    i64 *offsets; /* by number; -1 unknown */
    u32 cap;
};

struct mtopic {
    char name[32];
    struct uuid id;
    bool created; /* some answer said so */
    bool log_append_time;
    bool in_store;       /* leat.durability=object by its own config */
    i64 retention_bytes; /* 0: nothing is deleted by itself */
    i32 partitions;
};

struct mpart {
    struct mtopic *topic;
    i32 index;
    u64 *ids;   /* by offset; 0 unknown */
    i64 *times; /* by offset; of those read */
    i64 cap;
    i64 acked_end;    /* one behind the last acknowledged offset */
    i64 seen_end;     /* one behind the last offset any consumer saw, or the highest watermark */
    i64 start_seen;   /* largest log start anybody was told */
    i64 delete_acked; /* low watermark of answered DeleteRecords */
    i64 delete_asked; /* highest offset any DeleteRecords asked for */
};

extern struct mtopic topics[TOPICS_MAX];
extern u32 topic_count;
extern struct mpart parts[PARTS_MAX];
extern u32 part_count;

struct mpart *model_part(struct bytes topic, struct uuid id,
                         i32 index); /* by name, else id; fails if unknown */
struct lane *model_lane(struct mpart *p, bool idempotent);
u64 model_new_id(struct lane *l);

/* Values: id and then bytes that follow from it. */
#define VALUE_BYTES_MIN 12u
void value_fill(u8 *buf, u32 len, u64 id);

/* A batch of `count` records from `first_id` on was acknowledged at base_offset. */
void model_acked(struct lane *l, u64 first_id, u32 count, i64 base_offset);
/* Records of a fetch answer. *next: the offset wanted, then the one behind the last record. `whole`
 * batches must follow each other without a gap. */
void model_fetched(struct mpart *p, struct bytes records, i64 *next, i64 high_watermark);
void model_watermarks(struct mpart *p, i64 log_start, i64 high_watermark);
/* The log start, while nobody else deletes or asks. */
void model_start(struct mpart *p, i64 start);
/* All of [start, end) was read; `must`: how far the log was promised to go. */
void model_verify(struct mpart *p, i64 start, i64 end, i64 must);
u64 model_records_checked(void);
/* After model_verify: the first offset in [start, end) with timestamp >= t; -1 none. */
i64 model_offset_of_time(const struct mpart *p, i64 start, i64 end, i64 t);

#endif
