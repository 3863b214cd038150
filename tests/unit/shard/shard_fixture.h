/* A group of shards for tests: configuration by "key=value" pairs, real rings. */
#ifndef LEAT_SHARD_FIXTURE_H
#define LEAT_SHARD_FIXTURE_H

#include <stdio.h>

#include "../unit.h"
#include "bg.h"
#include "check.h"
#include "mem.h"
#include "shard.h"

struct fixture {
    struct config cfg;
    struct shard_group group;
    struct shard shards[4];
};

static inline void fixture_init(struct fixture *f, u32 shards, const char *const *pairs)
{
    char why[256];
    *f = (struct fixture){ 0 };
    config_init(&f->cfg);
    for (; pairs && *pairs; pairs++)
        CHECK(config_set_pair(&f->cfg, *pairs, CONFIG_COMMAND_LINE, why, sizeof why) == ERR_NONE);
    if (config_validate(&f->cfg, why, sizeof why) != ERR_NONE)
        FATAL("%s", why);
    f->group.count = shards;
    for (u32 i = 0; i < shards; i++)
        shard_init(&f->shards[i], &f->group, i, &f->cfg, metrics_create(), 7 + i);
}

static inline void fixture_free(struct fixture *f)
{
    for (u32 i = 0; i < f->group.count; i++) {
        struct metrics *m = f->shards[i].metrics;
        shard_free(&f->shards[i]);
        metrics_destroy(m);
    }
    config_free(&f->cfg);
}

/* One shard run by the test's own thread. */
static inline struct shard *fixture_single(struct fixture *f, const char *const *pairs)
{
    char why[512];
    fixture_init(f, 1, pairs);
    if (io_create(&f->cfg, 0, &f->shards[0].io, why, sizeof why) != ERR_NONE) {
        fprintf(stderr, "%s\n", why);
        CHECK(!"a ring can be made");
    }
    return &f->shards[0];
}

static inline void fixture_single_free(struct fixture *f)
{
    io_destroy(f->shards[0].io);
    f->shards[0].io = NULL;
    fixture_free(f);
}

#define TURN_UNTIL(s, cond)                       \
    do {                                          \
        for (u32 turns_ = 0; !(cond); turns_++) { \
            assert_true(turns_ < 200000);         \
            shard_turn((s), 10 * NS_PER_MS);      \
        }                                         \
    } while (0)

#endif
