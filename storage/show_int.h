/* leat-show: prints the files of the storage layer. One function per kind of file; each prints to
 * stdout, says on stderr what is wrong, and returns the exit status: 0 sound, 1 damaged or
 * unreadable. Input is hostile. `verbose`: 0 = summary, 1 = frames or blocks, 2 = also batches. */
#ifndef LEAT_SHOW_INT_H
#define LEAT_SHOW_INT_H

#include <stdio.h>

#include "base.h"

struct wal_super;

/* A WAL file: superblock, then a line for each slot. */
int show_wal(const char *path, int verbose);
/* One slot's bytes, as show_wal prints it; for the fuzzer, too. false: damage. */
bool show_wal_slot(FILE *out, const struct wal_super *s, u32 slot, const u8 *bytes, bool frames);
int show_bundle(const char *path, int verbose);
/* An object below m/: a claim, a snapshot's part, a change set. */
int show_backup(const char *path, int verbose);
/* All of a file, which the caller frees; NULL when it can't be read, which is told. */
u8 *show_file_load(const char *path, u32 *len);

#endif
