/* How much memory this process may count on: the machine's, or less where a control group limits
 * it (cgroup v2 or v1, the limits of all groups above count). */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

#define PATH_SIZE 4352

static u64 machine_bytes;
static pthread_once_t machine_once = PTHREAD_ONCE_INIT;

/* UINT64_MAX: no such file, or "max". */
static u64 limit_in(const char *path)
{
    char text[32] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    bool read = fgets(text, sizeof text, f) != NULL;
    fclose(f);
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    return read && end != text ? v : UINT64_MAX;
}

/* The smallest limit from `group` (changed) up to the root of the hierarchy at `mount`. */
static u64 limit_above(const char *mount, char *group, const char *file)
{
    u64 least = UINT64_MAX;
    for (;;) {
        char path[PATH_SIZE + 64];
        snprintf(path, sizeof path, "%s%s/%s", mount, strcmp(group, "/") == 0 ? "" : group, file);
        u64 limit = limit_in(path);
        least = MIN(least, limit);
        char *slash = strrchr(group, '/');
        if (!slash || group[0] == '\0')
            return least;
        *slash = '\0';
    }
}

u64 mem_cgroup_limit(const char *self, const char *root)
{
    u64 least = UINT64_MAX;
    char line[PATH_SIZE], mount[PATH_SIZE];
    FILE *f = fopen(self, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':');
        char *group = names ? strchr(names + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        u64 limit = UINT64_MAX;
        if (names[1] == '\0') { /* v2 */
            limit = limit_above(root, group, "memory.max");
        } else if (strcmp(names + 1, "memory") == 0) {
            snprintf(mount, sizeof mount, "%.4000s/memory", root);
            limit = limit_above(mount, group, "memory.limit_in_bytes");
        }
        least = MIN(least, limit);
    }
    if (f)
        fclose(f);
    return least;
}

static void machine_look(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    machine_bytes = pages > 0 && page > 0 ? (u64)pages * (u64)page : GIB;
    u64 limit = mem_cgroup_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    machine_bytes = MIN(machine_bytes, limit);
}

u64 mem_machine_bytes(void)
{
    pthread_once(&machine_once, machine_look);
    return machine_bytes;
}
