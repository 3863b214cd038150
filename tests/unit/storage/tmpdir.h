/* A folder of its own for a test, removed afterwards. */
#ifndef LEAT_TMPDIR_H
#define LEAT_TMPDIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base.h"
#include "check.h"

struct tmpdir {
    char path[256];
};

static inline void tmpdir_make(struct tmpdir *t)
{
    const char *base = getenv("TMPDIR");
    snprintf(t->path, sizeof t->path, "%s/leat-test-XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(t->path) != NULL);
}

static inline int tmpdir_remove_one(const char *path, const struct stat *st, int type,
                                    struct FTW *f)
{
    (void)st;
    (void)type;
    (void)f;
    return remove(path);
}

static inline void tmpdir_remove(struct tmpdir *t)
{
    (void)nftw(t->path, tmpdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
