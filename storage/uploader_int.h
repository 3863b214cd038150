/* An upload, between uploader.c, which takes it through its steps, gather.c, which says what goes
 * into it, and registration.c, which makes it part of the log: segments that are uploaded and
 * registered as one, and the objects they become. On the shard, but for what jobs do while they
 * run. */
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
    struct upload *upload; /* whose it is */
    struct bg_job job;     /* its put; what it says: */
    err err;
    bool stored;
    u64 put_ns;
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
    u32 puts;           /* jobs of objects on their way */
    struct bg_job job;  /* the commit */
    struct arena arena; /* of it */
    struct meta_txn txn;
    struct upload *next; /* registered by the same transaction */
    err err;
    bool checked; /* what was read back from the log is right; else its job is the only one */
    bool awaited; /* acknowledgements wait for it */
    u64 started_ns, job_ns;
    u64 pace; /* atomic, the jobs read it: bytes/s, 0 = as fast as it goes */
};

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
