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
void __wrap_mem_unmap(void *p, u64 bytes);
void __real_mem_unmap(void *p, u64 bytes);

/* The newest mappings, for those who run lives without end in one process (tests/fuzz/world.c). A
 * seed may have more: those of lives that were killed stay behind. */
#define MAPPINGS_MAX 4096
struct mapping {
    void *p;
    u64 bytes;
};
static struct mapping mappings[MAPPINGS_MAX];
static u32 mapping_count;

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
    void *p = __real_mem_map(bytes, false);
    if (p && mapping_count < MAPPINGS_MAX)
        mappings[mapping_count++] = (struct mapping){ p, bytes };
    return p;
}

void __wrap_mem_unmap(void *p, u64 bytes)
{
    for (u32 i = 0; i < mapping_count; i++)
        if (mappings[i].p == p) {
            CHECK(mappings[i].bytes == bytes);
            mappings[i] = mappings[--mapping_count];
            break;
        }
    __real_mem_unmap(p, bytes);
}

void os_unmap_all(void)
{
    while (mapping_count > 0)
        __wrap_mem_unmap(mappings[mapping_count - 1].p, mappings[mapping_count - 1].bytes);
}
