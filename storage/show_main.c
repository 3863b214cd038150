/* leat-show: prints the files of the storage engine. */
#include <stdio.h>
#include <string.h>

#include "show_int.h"
#include "version.h"

static int usage(FILE *out, int status)
{
    fputs("Usage: leat-show wal FILE [-v]            a write-ahead log (wal.path/*.wal)\n"
          "       leat-show bundle FILE [-v | -vv]   an object of the store: bundle or run\n"
          "       leat-show backup FILE [-v]         an object below m/ in the store: metadata\n"
          "\n"
          "  -v             print frames, blocks or changes, too\n"
          "  -vv            print batches, too\n"
          "  -h, --help     this text\n"
          "  -V, --version  the version\n"
          "\n"
          "Files are only read; those of a running node, too.\n"
          "Exit status: 0 sound, 1 damaged or unreadable, 2 wrong usage.\n",
          out);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return usage(stdout, 0);
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
        return puts("leat-show " LEAT_VERSION), 0;
    int verbose = 0;
    if (argc == 4)
        verbose = strcmp(argv[3], "-vv") == 0 ? 2 : strcmp(argv[3], "-v") == 0 ? 1 : -1;
    if (argc < 3 || argc > 4 || verbose < 0)
        return usage(stderr, 2);
    if (strcmp(argv[1], "wal") == 0)
        return show_wal(argv[2], verbose);
    if (strcmp(argv[1], "bundle") == 0)
        return show_bundle(argv[2], verbose);
    if (strcmp(argv[1], "backup") == 0)
        return show_backup(argv[2], verbose);
    return usage(stderr, 2);
}
