/* What the files of the backup and the recovery share: objects of docs/formats/backup.md in a
 * store. Blocking calls, any thread. */
#ifndef LEAT_BACKUP_INT_H
#define LEAT_BACKUP_INT_H

#include "backup.h"
#include "backup_format.h"
#include "config.h"

/* Value of BACKUP_KEY. `epoch`: the newest that this metadata claimed; 0: none yet. */
struct backup_owner {
    u32 epoch;
    struct uuid lineage; /* of the metadata: it stays over restarts, a recovery gives a new one */
};
err backup_owner_read(struct meta *m, struct backup_owner *out) MUST_USE; /* ERR_NOT_FOUND */
err backup_owner_write(struct meta *m, const struct backup_owner *o) MUST_USE;

/* Reads an object and proves it sound; a wrong answer is asked for again. `raw` is the caller's to
 * free, whatever comes out, and may be NULL or memory of an earlier call before. */
err backup_read(struct store *s, struct backup_name n, u8 **raw, struct backup_head *head,
                struct bytes *ops) MUST_USE;
err backup_write(struct store *s, struct backup_name n, bool if_absent,
                 struct bytes object) MUST_USE;

/* ---- claims ---- */

struct backup_claims {
    u32 newest;          /* epoch; 0: nobody ever claimed the place */
    u32 newest_alive;    /* that gave a sign of life */
    u32 newest_whole;    /* with a whole snapshot */
    bool unreadable;     /* the newest, now: nobody knows whose it is */
    struct uuid lineage; /* of the newest */
    struct uuid life;    /* the process that put it; zero in claims of before this was kept */
    i64 time_ms;
    char node[64]; /* who, for people */
};
/* `known`: a claim that was there once; 0: none. When the listing is older than that one, it counts
 * as the newest. */
err backup_claims_read(struct store *s, u32 known, struct backup_claims *out) MUST_USE;
/* The next epoch behind the newest, and no other: claims have no gaps, so whoever finds a free name
 * behind those he knows has found the end. ERR_CONFLICT: it was claimed before. */
err backup_claim(struct store *s, const struct config *cfg, u32 epoch, const struct uuid *lineage,
                 const struct uuid *life) MUST_USE;

#endif
