/* Time, and what /proc and the CPU clocks tell about a process. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static u64 clock_ns(clockid_t id)
{
    struct timespec t;
    CHECK(clock_gettime(id, &t) == 0);
    return (u64)t.tv_sec * NS_PER_S + (u64)t.tv_nsec;
}
u64 now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}
u64 now_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
/* The process CPU clock is exact; the ticks of /proc/PID/stat are not. */
f64 proc_cpu_s(i32 pid)
{
    clockid_t id;
    struct timespec t;
    if (pid == 0)
        return (f64)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
    if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &t) != 0)
        return -1;
    return (f64)t.tv_sec + (f64)t.tv_nsec / 1e9;
}
static bool proc_open_text(i32 pid, const char *file, char *buf, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(buf, 1, size - 1, f);
    buf[n] = 0;
    fclose(f);
    return n > 0;
}
static u64 proc_status_kib(const char *text, const char *key)
{
    unsigned long long v = 0;
    const char *at = strstr(text, key);
    return at && sscanf(at + strlen(key), "%llu", &v) == 1 ? v : 0;
}
bool proc_read(i32 pid, struct proc_stat *out)
{
    char text[4096];
    unsigned long long user = 0, system = 0;
    if (!proc_open_text(pid, "stat", text, sizeof text))
        return false;
    const char *after = strrchr(text, ')'); /* the command may hold anything */
    if (!after || sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
                         &system) != 2)
        return false;
    f64 hz = (f64)sysconf(_SC_CLK_TCK);
    out->user_s = (f64)user / hz;
    out->system_s = (f64)system / hz;
    if (!proc_open_text(pid, "status", text, sizeof text))
        return false;
    out->rss_bytes = proc_status_kib(text, "VmRSS:") * KIB;
    out->rss_max_bytes = proc_status_kib(text, "VmHWM:") * KIB;
    out->threads = proc_status_kib(text, "Threads:");
    return true;
}
