/* Failure reports of check.h. The report goes straight to stderr, past the log ring: the
 * process may be too broken to drain it. What the ring still holds goes first, if it can. */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"
#include "plant.h"

#ifdef LEAT_PLANT
int plant = PLANT_NONE;
#endif

void check_failed(const char *file, int line, const char *func, const char *what)
{
    log_flush();
    fprintf(stderr,
            "level=fatal event=bug file=%s line=%d func=%s check=\"%s\" "
            "remedy=\"this is a defect of leat: please report it with this line\"\n",
            file, line, func, what);
    abort();
}

void fatal(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    log_flush();
    va_start(ap, fmt);
    fprintf(stderr, "level=fatal event=fatal file=%s line=%d ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    fflush(stderr);
    _exit(70);
}
