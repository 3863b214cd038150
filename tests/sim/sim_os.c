/* The few calls of start-up that go round io.h, taken by the linker (--wrap): the data directory
 * and its lock, entropy, and memory for images, which comes from small plain mappings here. */
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include "sim.h"

#define LOCK_FD 1000000

u64 __wrap_rng_seed_os(void);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_open(const char *path, int flags, ...);
int __wrap_flock(int fd, int operation);
int __wrap_close(int fd);
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
void *__wrap_mem_map(u64 bytes, bool huge);
void *__real_mem_map(u64 bytes, bool huge);

u64 __wrap_rng_seed_os(void)
{
    return rng_next(&sim.rng);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    (void)path, (void)mode;
    return 0;
}

int __wrap_open(const char *path, int flags, ...)
{
    if (strncmp(path, "sim/", 4) == 0)
        return LOCK_FD;
    va_list ap;
    va_start(ap, flags);
    int mode = va_arg(ap, int);
    va_end(ap);
    return __real_open(path, flags, mode);
}

int __wrap_flock(int fd, int operation)
{
    (void)fd, (void)operation;
    return 0;
}

int __wrap_close(int fd)
{
    return fd == LOCK_FD ? 0 : __real_close(fd);
}

void *__wrap_mem_map(u64 bytes, bool huge)
{
    (void)huge;
    return __real_mem_map(bytes, false);
}
