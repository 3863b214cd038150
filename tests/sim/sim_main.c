/* sim: runs seeds, each in a process of its own, and reports those that broke a promise.
 *
 *   sim -n COUNT [-s FIRST] [-j JOBS] [-l LISTFILE]   many seeds; exit 1 when one failed
 *   sim -S SEED                                       one seed with a trace on stderr
 *   sim -p PLANT -n COUNT                             looks for the first seed that finds a plant
 *   -L                                                seeds of sim-long, which live for minutes
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "model.h"
#include "plant.h"
#include "sim.h"
#include "sim_run.h"

#define JOBS_MAX 16
#define REPORT_BYTES 8192
#define SECONDS_MAX 60 /* of real time for one seed */

static struct options {
    u64 count, first, jobs;
    const char *list;
    bool one, verbose, long_lived;
    u64 seed;
    int plant;
} options = { .count = 100, .first = 1, .jobs = 1 };

struct job {
    pid_t pid;
    u64 seed;
    u64 number; /* of all */
    int fd;     /* its stderr */
    char text[REPORT_BYTES];
    u32 len;
};
static struct job jobs[JOBS_MAX];
static u64 passed, failed, first_failed;
#define LIST_MAX 4096
static u64 list[LIST_MAX]; /* static: the heap of every seed's process begins empty */
static u64 list_count;
static u64 *lived_ns; /* simulated, by number of the seed; shared with their processes */

static void seed_process(u64 seed, u64 number)
{
#ifdef LEAT_PLANT
    plant = options.plant;
#endif
    if (!sim.trace)
        log_threshold = LOG_ERROR + 1;
    else
        (void)log_set_level("debug");
    alarm(SECONDS_MAX);
    sim.long_lived = options.long_lived;
    seed_run(seed);
    STAT_ADD(turns, sim.turns);
    STAT_ADD(events, sim.steps);
    if (lived_ns)
        lived_ns[number] = sim.now_ns;
    if (options.one)
        printf("sim: seed %" PRIu64 " passed: %u lives, %" PRIu64 " turns, %" PRIu64
               " events, %" PRIu64 " record checks, %" PRIu64 ".%03" PRIu64 " simulated seconds\n",
               seed, sim.life / 2, sim.turns, sim.steps, model_records_checked(),
               sim.now_ns / NS_PER_S, sim.now_ns % NS_PER_S / NS_PER_MS);
    fflush(stdout);
    _exit(0);
}

static void job_start(struct job *j, u64 seed, u64 number)
{
    int p[2];
    CHECK(pipe(p) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        dup2(p[1], STDERR_FILENO);
        close(p[0]);
        close(p[1]);
        seed_process(seed, number);
    }
    close(p[1]);
    *j = (struct job){ .pid = pid, .seed = seed, .number = number, .fd = p[0] };
}

static void job_report(const struct job *j, int status)
{
    failed++;
    if (!first_failed)
        first_failed = j->seed;
    printf("sim: seed %" PRIu64 " FAILED", j->seed);
    if (WIFSIGNALED(status))
        printf(" (%s)", WTERMSIG(status) == SIGALRM ? "no end: liveness, or an endless loop"
                                                    : strsignal(WTERMSIG(status)));
    printf("\n%.*s", (int)j->len, j->text);
    printf("  replay: make sim%s SEED=%" PRIu64 "\n", options.long_lived ? "-long" : "", j->seed);
    fflush(stdout);
}

static void job_wait(struct job *j)
{
    for (;;) {
        u32 at = MIN(j->len, REPORT_BYTES / 2); /* keep the beginning, let go of what is too much */
        ssize_t n = read(j->fd, j->text + at, REPORT_BYTES / 2);
        if (n <= 0)
            break;
        j->len = at + (u32)n;
    }
    close(j->fd);
    int status = 0;
    CHECK(waitpid(j->pid, &status, 0) == j->pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        passed++;
    else
        job_report(j, status);
    j->pid = 0;
}

static u64 seed_number(u64 i)
{
    return i < list_count ? list[i] : options.first + i - list_count;
}

/* Lines that begin with a number. */
static void list_load(void)
{
    static char text[256 * 1024];
    int fd = options.list ? open(options.list, O_RDONLY) : -1;
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    for (char *p = text; n > 0 && p && *p && list_count < LIST_MAX;
         p = strchr(p, '\n'), p += p != NULL) {
        char *end;
        u64 seed = strtoull(p, &end, 10);
        if (end != p)
            list[list_count++] = seed;
    }
    if (fd >= 0)
        close(fd);
}

/* Some tables of the node are placed by address: the same addresses in every run, then. */
static void addresses_fix(char **argv)
{
    int now = personality(0xffffffff);
    if (now == -1 || (now & ADDR_NO_RANDOMIZE) ||
        personality((unsigned long)now | ADDR_NO_RANDOMIZE) == -1)
        return;
    execv("/proc/self/exe", argv);
}

static void *shared_map(u64 bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* ---- what seeds of sim-long reached ---- */

static int u64_order(const void *a, const void *b)
{
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

static double seconds(u64 ns)
{
    return (double)ns / NS_PER_S;
}

/* All of those that passed. */
static bool times_report(u64 total)
{
    u64 n = 0, sum = 0;
    struct rusage r;
    for (u64 i = 0; i < total; i++)
        if (lived_ns[i] > 0) {
            lived_ns[n++] = lived_ns[i];
            sum += lived_ns[i];
        }
    if (n == 0)
        return false;
    qsort(lived_ns, n, sizeof *lived_ns, u64_order);
    (void)getrusage(RUSAGE_CHILDREN, &r);
    double cpu = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
                 (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
    printf("sim: simulated seconds of a seed: least %.1f, median %.1f, most %.1f; all %.0f; CPU "
           "seconds of a seed: %.2f\n",
           seconds(lived_ns[0]), seconds(lived_ns[n / 2]), seconds(lived_ns[n - 1]), seconds(sum),
           cpu / (double)(passed + failed));
    return lived_ns[0] >= SIM_LONG_NS;
}

#define STEPS_FROM_SEEDS 100u /* so many must have reached every step, and died there */

static bool steps_report(u64 seeds)
{
    bool all = true;
    printf("sim: steps, each \"before\" and \"behind\" it: killed there of the times it was "
           "reached\n");
    for (u32 i = 1; i < STEPS; i++) {
        const u64 *k = sim_stats->killed[i], *r = sim_stats->reached[i];
        bool hit = k[STEP_BEFORE] > 0 && k[STEP_AFTER] > 0;
        printf("sim:   %-14s %6" PRIu64 " of %8" PRIu64 " %8" PRIu64 " of %8" PRIu64 "%s\n",
               sim_step_names[i], k[STEP_BEFORE], r[STEP_BEFORE], k[STEP_AFTER], r[STEP_AFTER],
               hit ? "" : "  NEVER");
        all &= hit;
    }
    return all || seeds < STEPS_FROM_SEEDS;
}

static void run_many(void)
{
    u64 total = options.count + list_count, next = 0;
    u32 running = 0;
    for (u32 i = 0; next < total || running > 0; i = (i + 1) % (u32)options.jobs) {
        struct job *j = &jobs[i];
        if (j->pid) {
            job_wait(j);
            running--;
        }
        if (next < total && !(options.plant && failed)) {
            job_start(j, seed_number(next), next);
            next++;
            running++;
        } else if (options.plant && failed) {
            next = total;
        }
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: sim [-n COUNT] [-s FIRST] [-j JOBS] [-l LISTFILE] [-S SEED [-v]] [-p "
                    "PLANT] [-L]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    static char out[BUFSIZ];
    int opt;
    addresses_fix(argv);
    setvbuf(stdout, out, _IOFBF, sizeof out);
    while ((opt = getopt(argc, argv, "n:s:j:l:S:p:vL")) != -1) {
        switch (opt) {
        case 'n':
            options.count = strtoull(optarg, NULL, 10);
            break;
        case 's':
            options.first = strtoull(optarg, NULL, 10);
            break;
        case 'j':
            options.jobs = MAX(1, MIN(strtoull(optarg, NULL, 10), JOBS_MAX));
            break;
        case 'l':
            options.list = optarg;
            break;
        case 'S':
            options.seed = strtoull(optarg, NULL, 10);
            options.one = true;
            break;
        case 'p':
            options.plant = atoi(optarg);
            break;
        case 'L':
            options.long_lived = true;
            break;
        case 'v':
            options.verbose = true;
            break;
        default:
            usage();
        }
    }
    if (options.one) {
        sim.trace = options.verbose;
        seed_process(options.seed, 0);
    }
    list_load();
    sim_stats = shared_map(sizeof *sim_stats);
    lived_ns = shared_map((options.count + list_count + 1) * sizeof *lived_ns);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    run_many();
    clock_gettime(CLOCK_MONOTONIC, &b);
    double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    if (options.plant)
        return failed ? 0 : 1;
    printf("sim:"
#define X(name) " " #name " %" PRIu64
           SIM_STATS(X) "\n"
#undef X
#define X(name) , sim_stats->name
           SIM_STATS(X));
#undef X
    printf("sim: %" PRIu64 " passed, %" PRIu64 " failed (%.1f s, %.0f seeds a second)\n", passed,
           failed, s, (double)(passed + failed) / s);
    bool reached = true;
    if (options.long_lived) {
        reached = times_report(options.count + list_count);
        reached &= steps_report(options.count + list_count);
    }
    return failed || !reached ? 1 : 0;
}
