/* Log lines without waiting: see log.h.
 *
 *     thread ─ log_write ─► ring of this thread ─► drain thread ─► write(fd)
 *
 * Invariants
 *  1. A ring has one producer (its thread) and one consumer (whoever holds drain_lock); whole
 *     lines are published by a release store of `head`, so the consumer never sees half a line.
 *  2. A producer never waits: no room means the line is counted in `lost` and dropped.
 *  3. A ring is freed only after its thread ended and what it held was written.
 *  4. Before log_start and after log_stop, and when all ring slots are taken, a line goes straight
 *     to stderr.
 */
#include "log.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "mem.h"

#define RING_BYTES 65536u /* a power of two: about 400 lines */
#define RINGS_MAX 512u
#define LINE_BYTES_MAX 2048u
#define LINES_PER_SECOND 10u

struct log_ring {
    u8 bytes[RING_BYTES];
    u64 head; /* written by the producer */
    u64 lost; /* lines dropped, by the producer */
    u8 pad[CACHE_LINE];
    u64 tail; /* written by the consumer */
    u64 lost_told;
    bool dead; /* the thread ended */
};

int log_threshold = LOG_INFO;

static struct log_ring *rings[RINGS_MAX]; /* slots are claimed and emptied by compare-and-swap */
static _Thread_local struct log_ring *my_ring;
static pthread_key_t ring_key; /* its destructor marks a thread's ring dead */
static pthread_once_t ring_key_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t drain_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t drain_thread;
static bool log_running; /* atomic */
static u32 drain_signal; /* futex: 1 when there may be lines */
static int log_fd = STDERR_FILENO;

static const char *const level_names[] = { "debug", "info", "warn", "error" };

/* ---- writing ---- */

static void write_all(int fd, const u8 *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody to tell */
        p += n;
        len -= (size_t)n;
    }
}

/* Writes and consumes what one ring holds. Holds drain_lock. True when there was anything. */
static bool drain_ring(struct log_ring *r)
{
    u64 head = __atomic_load_n(&r->head, __ATOMIC_ACQUIRE);
    u64 tail = r->tail;
    if (head != tail) {
        u32 from = (u32)(tail & (RING_BYTES - 1));
        u64 first = MIN(head - tail, RING_BYTES - from);
        write_all(log_fd, r->bytes + from, first);
        write_all(log_fd, r->bytes, head - tail - first);
        __atomic_store_n(&r->tail, head, __ATOMIC_RELEASE);
    }
    u64 lost = __atomic_load_n(&r->lost, __ATOMIC_RELAXED);
    if (lost != r->lost_told) {
        char line[128];
        int n = snprintf(line, sizeof line, "level=warn event=log_lines_lost count=%" PRIu64 "\n",
                         lost - r->lost_told);
        write_all(log_fd, (const u8 *)line, (size_t)n);
        r->lost_told = lost;
    }
    return head != tail;
}

static bool drain_all(void)
{
    bool any = false;
    for (u32 i = 0; i < RINGS_MAX; i++) {
        struct log_ring *r = __atomic_load_n(&rings[i], __ATOMIC_ACQUIRE);
        if (!r)
            continue;
        bool dead = __atomic_load_n(&r->dead, __ATOMIC_ACQUIRE);
        any = drain_ring(r) || any;
        if (dead) {
            __atomic_store_n(&rings[i], NULL, __ATOMIC_RELEASE);
            mem_free(r);
        }
    }
    return any;
}

static void *drain_main(void *arg)
{
    (void)arg;
    while (__atomic_load_n(&log_running, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&drain_signal, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_lock(&drain_lock);
        bool any = drain_all();
        pthread_mutex_unlock(&drain_lock);
        if (!any)
            syscall(SYS_futex, &drain_signal, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    }
    return NULL;
}

static void drain_wake(void)
{
    if (__atomic_exchange_n(&drain_signal, 1, __ATOMIC_SEQ_CST) == 0)
        syscall(SYS_futex, &drain_signal, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- this thread's ring ---- */

static void ring_thread_ended(void *ring)
{
    __atomic_store_n(&((struct log_ring *)ring)->dead, true, __ATOMIC_RELEASE);
    my_ring = NULL;
}

static void ring_key_create(void)
{
    CHECK(pthread_key_create(&ring_key, ring_thread_ended) == 0);
}

/* NULL when all slots are taken. */
static struct log_ring *ring_get(void)
{
    if (my_ring)
        return my_ring;
    pthread_once(&ring_key_once, ring_key_create);
    struct log_ring *r = MEM_NEW(struct log_ring);
    for (u32 i = 0; i < RINGS_MAX; i++) {
        struct log_ring *expected = NULL;
        if (__atomic_compare_exchange_n(&rings[i], &expected, r, false, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
            my_ring = r;
            pthread_setspecific(ring_key, r);
            return r;
        }
    }
    mem_free(r);
    return NULL;
}

static void ring_push(struct log_ring *r, const char *line, u32 len)
{
    u64 tail = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
    if (RING_BYTES - (r->head - tail) < len) {
        __atomic_store_n(&r->lost, r->lost + 1, __ATOMIC_RELAXED);
        return;
    }
    u32 at = (u32)(r->head & (RING_BYTES - 1));
    u32 first = MIN(len, RING_BYTES - at);
    memcpy(r->bytes + at, line, first);
    memcpy(r->bytes, line + first, len - first);
    __atomic_store_n(&r->head, r->head + len, __ATOMIC_RELEASE);
}

/* ---- lines ---- */

/* Is this line within its site's limit? *suppressed: lines left out since the last one written.
 * Sites are shared by threads; a race costs at most a line too many or too few. */
static bool site_allows(struct log_site *site, u32 *suppressed)
{
    u64 now_ms = clock_mono_ns() / NS_PER_MS;
    u64 start = __atomic_load_n(&site->window_start_ms, __ATOMIC_RELAXED);
    if (now_ms - start >= 1000 || start == 0) {
        __atomic_store_n(&site->window_start_ms, MAX(now_ms, 1), __ATOMIC_RELAXED);
        __atomic_store_n(&site->in_window, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_fetch_add(&site->in_window, 1, __ATOMIC_RELAXED) >= LINES_PER_SECOND) {
        __atomic_fetch_add(&site->suppressed, 1, __ATOMIC_RELAXED);
        return false;
    }
    *suppressed = __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED);
    return true;
}

static u32 line_head(char *buf, size_t size, const struct log_site *site)
{
    i64 ms = clock_wall_ms();
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    int n = snprintf(buf, size, "ts=%04d-%02d-%02dT%02d:%02d:%02d.%03dZ level=%s event=%s ",
                     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                     (int)(ms % 1000), level_names[site->level], site->event);
    CHECK(n > 0 && (size_t)n < size);
    return (u32)n;
}

/* Cuts a line that filled its buffer, marks it, and keeps it one line. Returns its length. */
static u32 line_finish(char *buf, u32 len, u32 suppressed)
{
    static const char cut[] = "…";
    u32 room = LINE_BYTES_MAX - 64; /* for the mark, suppressed= and the line's end */
    bool was_cut = len > room;
    if (was_cut) {
        len = room;
        memcpy(buf + len, cut, sizeof cut - 1);
        len += (u32)sizeof cut - 1;
    }
    while (len > 0 && buf[len - 1] == ' ')
        len--;
    for (u32 i = 0; i < len; i++)
        if ((u8)buf[i] < ' ')
            buf[i] = ' ';
    if (suppressed)
        len += (u32)snprintf(buf + len, 40, " suppressed=%u", suppressed);
    buf[len++] = '\n';
    return len;
}

void log_write(struct log_site *site, const char *fmt, ...)
{
    u32 suppressed;
    if (!site_allows(site, &suppressed))
        return;
    char line[LINE_BYTES_MAX];
    u32 len = line_head(line, sizeof line, site);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line + len, sizeof line - len, fmt, ap);
    va_end(ap);
    if (n > 0)
        len += MIN((u32)n, LINE_BYTES_MAX - 1 - len);
    len = line_finish(line, len, suppressed);
    bool running = __atomic_load_n(&log_running, __ATOMIC_ACQUIRE);
    struct log_ring *r = running ? ring_get() : NULL;
    if (!r) {
        write_all(STDERR_FILENO, (const u8 *)line, len);
        return;
    }
    ring_push(r, line, len);
    drain_wake();
}

/* ---- life ---- */

void log_start(int fd)
{
    CHECK(!log_running);
    log_fd = fd;
    __atomic_store_n(&log_running, true, __ATOMIC_RELEASE);
    CHECK(pthread_create(&drain_thread, NULL, drain_main, NULL) == 0);
}

void log_stop(void)
{
    if (!__atomic_exchange_n(&log_running, false, __ATOMIC_ACQ_REL))
        return;
    drain_wake();
    pthread_join(drain_thread, NULL);
    log_flush();
    log_fd = STDERR_FILENO;
}

void log_flush(void)
{
    /* The last words of a crashing process may come while another thread, or this one, drains. */
    for (u32 i = 0; i < 100; i++) {
        if (pthread_mutex_trylock(&drain_lock) == 0) {
            drain_all();
            pthread_mutex_unlock(&drain_lock);
            return;
        }
        usleep(1000);
    }
}

bool log_set_level(const char *name)
{
    for (u32 i = 0; i < ARRAY_COUNT(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            __atomic_store_n(&log_threshold, (int)i, __ATOMIC_RELAXED);
            return true;
        }
    }
    return false;
}

/* ---- quoting ---- */

/* Length of the UTF-8 sequence at p (at most `len` bytes); 0 when it is none. */
static u32 utf8_len(const u8 *p, u32 len)
{
    u32 n = p[0] < 0x80   ? 1
            : p[0] < 0xc2 ? 0
            : p[0] < 0xe0 ? 2
            : p[0] < 0xf0 ? 3
            : p[0] < 0xf5 ? 4
                          : 0;
    if (n == 0 || n > len)
        return 0;
    for (u32 i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* One character of b in its escaped form; how many bytes of b it takes. `out` has 8 bytes. */
static u32 quote_char(char *out, const u8 *p, u32 len)
{
    u32 n = utf8_len(p, len);
    if (p[0] == '"' || p[0] == '\\')
        snprintf(out, 8, "\\%c", p[0]);
    else if (p[0] == '\n')
        snprintf(out, 8, "\\n");
    else if (n == 0 || p[0] < ' ' || p[0] == 127)
        snprintf(out, 8, "\\x%02x", p[0]);
    else
        snprintf(out, 8, "%.*s", (int)n, (const char *)p);
    return MAX(n, 1);
}

const char *log_quote(char *buf, size_t size, struct bytes b)
{
    static const char end_cut[] = "…\"";
    CHECK(size > sizeof end_cut + 8);
    size_t used = 0;
    buf[used++] = '"';
    for (u32 i = 0; i < b.len;) {
        char c[8];
        i += quote_char(c, b.data + i, b.len - i);
        size_t n = strlen(c);
        if (used + n + sizeof end_cut > size) {
            memcpy(buf + used, end_cut, sizeof end_cut);
            return buf;
        }
        memcpy(buf + used, c, n);
        used += n;
    }
    buf[used++] = '"';
    buf[used] = '\0';
    return buf;
}
