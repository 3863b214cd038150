/* leat-show: prints the files of the storage engine. */
#include <stdio.h>
#include <string.h>

#include "show_int.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: leat-show wal FILE [-v]            a write-ahead log (wal.path/*.wal)\n"
                 "       leat-show bundle FILE [-v | -vv]   an object of the store, bundle or run\n"
                 "-v prints frames or blocks, -vv also batches. Files are only read.\n"
                 "Exit status: 0 sound, 1 damaged or unreadable, 2 wrong usage.\n");
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return usage(stdout, 0);
    int verbose = 0;
    if (argc == 4)
        verbose = strcmp(argv[3], "-vv") == 0 ? 2 : strcmp(argv[3], "-v") == 0 ? 1 : -1;
    if (argc < 3 || argc > 4 || verbose < 0)
        return usage(stderr, 2);
    if (strcmp(argv[1], "wal") == 0)
        return show_wal(argv[2], verbose);
    if (strcmp(argv[1], "bundle") == 0)
        return show_bundle(argv[2], verbose);
    return usage(stderr, 2);
}
