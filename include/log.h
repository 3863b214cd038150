/* Structured logs (logfmt): one event a line, stable event names, key=value with units in keys.
 *
 *   LOG(INFO, wal_sealed, "shard=%u lsn=%" PRIu64, shard, lsn);
 *   → ts=2026-01-02T03:04:05.678Z level=info event=wal_sealed shard=0 lsn=4096
 *
 * Never on the per-request path above DEBUG. Each call site is limited to 10 lines a second;
 * what was left out is told as suppressed=N on the next line of that site. Values from outside
 * are passed through log_quote. Any thread; never blocks a shard (a ring per thread is drained by
 * the log thread; when it is full the line is counted as lost and dropped).
 */
#ifndef LEAT_LOG_H
#define LEAT_LOG_H

#include "base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_site { /* one per call site, static */
    const char *event;
    enum log_level level;
    u64 window_start_ms;
    u32 in_window, suppressed;
};

extern int log_threshold; /* enum log_level; changed at run time by `log.level` */

#define LOG(level_, event_, ...)                                                    \
    do {                                                                            \
        static struct log_site site_ = { #event_, LOG_##level_, 0, 0, 0 };          \
        if ((int)LOG_##level_ >= __atomic_load_n(&log_threshold, __ATOMIC_RELAXED)) \
            log_write(&site_, __VA_ARGS__);                                         \
    } while (0)

void log_write(struct log_site *site, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Starts the drain thread writing to `fd`; before it, and in the simulator, lines go straight
 * to stderr. `max_level_name`: debug|info|warn|error. */
void log_start(int fd);
/* Drains and stops the thread. */
void log_stop(void);
/* Writes what the rings hold now; waits at most 100 ms for its turn. Any thread. */
void log_flush(void);
/* Sets the threshold by name; false when the name is none of debug, info, warn, error. */
bool log_set_level(const char *name);
/* Writes `b` quoted and escaped for logfmt into buf (NUL-terminated, cut with … when long).
 * Returns buf. */
const char *log_quote(char *buf, size_t size, struct bytes b);

#endif
