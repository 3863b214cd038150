/* The default of wal.size on a small disk. The log takes its whole size at the first start, so a
 * fixed default would take most of a small disk at once; what was asked for is never changed. */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "bytes.h"
#include "config_int.h"
#include "mem.h"

#define WAL_DISK_PERCENT 10u

/* Of the file system that `path` is on, or will be once it is made; 0: it can't be said. */
static u64 disk_bytes(const char *path)
{
    struct statvfs v;
    char *at = mem_strndup(bytes_str(path));
    int rc;
    while ((rc = statvfs(at, &v)) != 0 && errno == ENOENT && strcmp(at, ".") != 0) {
        char *slash = strrchr(at, '/');
        if (slash == at && at[1] == '\0')
            break;
        if (!slash)
            memcpy(at, ".", 2);
        else
            slash[slash == at] = '\0';
    }
    mem_free(at);
    return rc == 0 ? (u64)v.f_blocks * v.f_frsize : 0;
}

void config_fit_log(struct config *cfg, u64 disk)
{
    i64 now = config_i64(cfg, CFG_wal_size);
    if (config_source(cfg, CFG_wal_size) != CONFIG_DEFAULT || disk == 0)
        return;
    i64 part = (i64)(disk / 100 * WAL_DISK_PERCENT / MIB * MIB);
    part = MAX(part, MAX(config_defs[CFG_wal_size].min, config_log_least(cfg)));
    config_store_default(cfg, CFG_wal_size, MIN(part, now));
}

void config_fit_disk(struct config *cfg)
{
    if (!config_wal_in_memory(cfg))
        config_fit_log(cfg, disk_bytes(config_str(cfg, CFG_wal_path)));
}
