/* An upload, between uploader.c, which takes it through its steps, gather.c, which says what goes
 * into it, and registration.c, which makes it part of the log: segments that are uploaded and
 * registered as one, and the objects they become. On the shard, but for what the upload's job does
 * while it runs. */
#ifndef LEAT_UPLOADER_INT_H
#define LEAT_UPLOADER_INT_H

#include "bg.h"
#include "discard.h"

#define GATHER_SEGMENTS_MAX 16u
#define UPLOAD_OBJECTS_MAX 64u
#define REGISTRATION_BYTES_MAX (1 * GIB) /* upload.arena */

struct upload_object { /* a bundle, or a run */
    u64 id;
    char name[BUNDLE_NAME_SIZE];
    struct bundle_builder builder;
    bool stored;
    u64 put_ns;     /* of the last put that was not counted yet */
    u8 *registered; /* per entry: is in the registration */
    struct discard_note note;
};

struct upload {
    u32 step; /* enum upload_step */
    struct storage *st;
    struct segment *segs[GATHER_SEGMENTS_MAX]; /* ascending; segs[i]->upload is this */
    struct segment_load loads[GATHER_SEGMENTS_MAX];
    u32 seg_count;                 /* 0: the slot is free */
    const u8 *bytes;               /* of the first segment, where the objects' parts are */
    struct upload_object *objects; /* the bundle first, if there is one */
    u32 object_count;
    u64 run_data_bytes; /* of batches that go into runs */
    struct bg_job job;
    struct arena arena; /* of the commit */
    struct meta_txn txn;
    struct upload *next; /* registered by the same transaction */
    err err;
    bool checked; /* what was read back from the log is right */
    bool awaited; /* acknowledgements wait for it */
    u64 started_ns, job_ns;
    u64 pace; /* atomic, the job reads it: bytes/s, 0 = as fast as it goes */
};

/* Are there batches in it that acknowledgements wait for? Such a segment is alone in its upload
 * (gather_count). */
static inline bool upload_has_awaited(const struct upload *u)
{
    return u->segs[0]->object_since_ns != 0;
}

/* How many segments from `first` on, which is DURABLE, become one upload: at most `share`; `held`
 * are in uploads already. */
u32 gather_count(struct storage *st, struct segment *first, u32 share, u32 held);
/* Makes u->objects out of the loaded segments; none: all of it was deleted. */
void gather_build(struct upload *u);
/* The only segment was loaded again. */
void gather_moved(struct upload *u);
void gather_free(struct upload *u);

/* v[0]->txn: the transaction for all of these, which follow one another, oldest first. Its
 * condition on the w/ key (wal_meta_fence) is left to the job that commits it. Until it is done
 * none of them may be released. */
void registration_build(struct storage *st, struct upload **v, u32 count);
/* It is durable: the objects are counted, and their blocks enter the index. */
void registration_apply(struct upload *u);

#endif
