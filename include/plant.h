/* Planted bugs: the simulator's canaries, which prove that its checker can fail. They exist only
 * in builds with -DLEAT_PLANT; everywhere else PLANTED is the constant 0. */
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
};

#ifdef LEAT_PLANT
extern int plant; /* enum plant; set before a node starts */
#define PLANTED(x) (plant == (x))
#else
#define PLANTED(x) 0
#endif

#endif
