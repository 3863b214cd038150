/* canary NAME: makes one mistake that a sanitizer must report. Ends with 0 when it was not seen.
 * Built with the same flags as the node: proves that a clean run of a node means something. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

static volatile int sink;

static void overflow(void)
{
    u8 *p = mem_alloc(10);
    sink = p[10 + (sink & 1)];
}

static void arena(void)
{
    struct arena a;
    arena_init(&a, 1024, 4096);
    u8 *p = arena_alloc(&a, 10);
    arena_reset(&a);
    sink = p[sink & 1];
}

static void leak(void)
{
    u8 *volatile p = mem_alloc(10);
    sink = p[0];
    p = NULL;
}

static void undefined(void)
{
    volatile int n = INT_MAX;
    sink = n + 1;
}

static int shared;

static void *count(void *arg)
{
    for (int i = 0; i < 100000; i++)
        shared++;
    return arg;
}

static void race(void)
{
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&t[i], NULL, count, NULL) != 0)
            return;
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
        { "overflow", overflow },   { "arena", arena }, { "leak", leak },
        { "undefined", undefined }, { "race", race },
    };
    for (u32 i = 0; argc > 1 && i < ARRAY_COUNT(all); i++)
        if (strcmp(argv[1], all[i].name) == 0) {
            all[i].run();
            return 0;
        }
    fprintf(stderr, "no such canary\n");
    return 0;
}
