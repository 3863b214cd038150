/* Planted bugs: the canaries of the simulator and of the fuzz targets, which prove that their
 * checks can fail. They exist only in builds with -DLEAT_PLANT; everywhere else PLANTED is the
 * constant 0. */
#ifndef LEAT_PLANT_H
#define LEAT_PLANT_H

enum plant {
    PLANT_NONE,
    PLANT_ACK_BEFORE_FLUSH,     /* appends are called durable when written, not when flushed */
    PLANT_SKIP_FRAME,           /* recovery drops one good frame */
    PLANT_TRIM_BEFORE_REGISTER, /* a WAL slot is reused before its bundle is registered */
    PLANT_CLEAN_DROPS_LAST,     /* compaction drops the newest record at the end of its range */
    PLANT_RUN_BEFORE_OBJECT,    /* a run takes its sources' place before its object is stored */
    PLANT_RUN_FORGETS_COVER,    /* a run only stands for what is left in it */
    PLANT_MERGE_LOSES_BLOCK,    /* a merge leaves out its second block */
    PLANT_REMOVE_BEFORE_COMMIT, /* a merge deletes the runs it replaces before it is registered */
    PLANT_ORPHAN_RUNS_STAY,     /* the search for orphans passes over runs */
    PLANT_ACK_BEFORE_REGISTER,  /* leat.durability=object is taken for local */
    PLANT_RECOVER_SKIPS,        /* recovery from the store forgets one change set */
    PLANT_DISCARD_LIVE,         /* an object is discarded while a block of it is still wanted */
    PLANT_UPLOAD_LEAVES_RUNS,   /* of an upload's objects only the first is registered */
    PLANT_CLONE_UNCOUNTED,      /* a clone's blocks are not counted until the next start */
    PLANT_DISK_UNCHECKED,       /* what is read from the disk cache is served as it is */
    PLANT_OLD_LISTED_AGAIN,     /* old snapshots are listed until a listing shows none */
    PLANT_FIRST_OBJECT_IS_ALL,  /* an upload is registered when its first object is there */
    /* Of the fuzz targets, in the order of FUZZ_CANARIES (tests/fuzz/fuzz.mk). */
    PLANT_ARRAY_SHORT,         /* codec: the last of several elements is forgotten */
    PLANT_RECORD_BOUND,        /* batch: a record may be longer than its batch */
    PLANT_DECODED_LIMIT,       /* compress: no limit without a codec */
    PLANT_CONFIG_ROUND,        /* config: large numbers are printed rounded */
    PLANT_CURSOR_LIMIT,        /* wal: the walk goes on a little behind its limit */
    PLANT_REGISTRATION_LENGTH, /* bundle: a registration may have fewer bytes than it says */
    PLANT_PRODUCER_BATCHES,    /* stored: a producer may have more batches than there is room for */
    PLANT_TOPIC_IDS,           /* start: two topics may have the same id */
    PLANT_LONG_POLL_STAYS,     /* node: the long poll of a client that left goes on */
    PLANT_BACKUP_LENGTH,       /* backup: the last change may have fewer bytes than it says */
    PLANT_RECOVERY_MARK,       /* recover: the mark of an unfinished recovery stays */
};

#ifdef LEAT_PLANT
extern int plant; /* enum plant; set before a node starts */
#define PLANTED(x) (plant == (x))
#else
#define PLANTED(x) 0
#endif

#endif
