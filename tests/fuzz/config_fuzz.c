/* Configuration files, -w pairs, topic configs from clients and from the store, on any bytes. The
 * first byte picks the door. Whatever is accepted must print back to itself. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "log.h"
#include "mem.h"
#include "topic_config.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static char why[256];

static void values_print_back(const struct config *cfg)
{
    for (u32 k = 0; k < CFG_COUNT; k++) {
        char buf[CONFIG_VALUE_SIZE];
        i64 v = config_i64(cfg, (enum config_key)k), again;
        if (config_defs[k].type == CONFIG_STRING)
            continue;
        for (int human = 0; human < 2; human++) {
            config_format(&config_defs[k], v, human, buf, sizeof buf);
            CHECK(config_parse(&config_defs[k], buf, &again, why, sizeof why) == ERR_NONE);
            CHECK(again == v);
        }
    }
}

static void fuzz_file(struct config *cfg, const char *text, size_t len)
{
    (void)!config_load_text(cfg, "fuzz", text, len, why, sizeof why);
    (void)!config_validate(cfg, why, sizeof why);
    values_print_back(cfg);
}

static void fuzz_live(struct config *cfg, const char *text, size_t len)
{
    char *pair = mem_strndup(bytes_of(text, (u32)len));
    (void)!config_set_pair(cfg, pair, CONFIG_COMMAND_LINE, why, sizeof why);
    char *equals = strchr(pair, '=');
    if (equals && config_validate(cfg, why, sizeof why) == ERR_NONE) {
        *equals = '\0';
        (void)!config_set_live(cfg, pair, equals + 1, why, sizeof why);
        values_print_back(cfg);
        (void)!config_reset_live(cfg, pair, why, sizeof why);
    }
    char host[64];
    u16 port;
    (void)config_split_address(pair, host, sizeof host, &port);
    mem_free(pair);
}

/* Writes, reads back, and compares. */
static void stored_form_comes_back(const struct topic_config *tc, const struct config *cfg)
{
    u32 size = (u32)topic_config_size(tc);
    u8 *stored = mem_alloc(size);
    topic_config_write(tc, stored);
    struct topic_config back;
    CHECK(topic_config_read(&back, cfg, bytes_of(stored, size)) == ERR_NONE);
    CHECK(memcmp(back.values, tc->values, sizeof back.values) == 0);
    CHECK(topic_config_size(&back) == size);
    topic_config_free(&back);
    mem_free(stored);
}

/* op, name up to the first '=', value up to the next newline. */
static void fuzz_alter(const struct config *cfg, const u8 *p, size_t len)
{
    struct topic_config tc;
    topic_config_init(&tc, cfg);
    while (len > 1) {
        enum topic_config_op op = (enum topic_config_op)(*p++ % 6);
        len--;
        const u8 *newline = memchr(p, '\n', len);
        size_t n = newline ? (size_t)(newline - p) : len;
        const u8 *equals = memchr(p, '=', n);
        struct bytes name = bytes_of(p, (u32)(equals ? (size_t)(equals - p) : n));
        struct bytes value = { NULL, 0 };
        if (equals)
            value = bytes_of(equals + 1, (u32)(p + n - equals - 1));
        (void)!topic_config_alter(&tc, cfg, op, name, value, why, sizeof why);
        n += newline != NULL;
        p += n;
        len -= n;
    }
    (void)!topic_config_check(&tc, why, sizeof why);
    stored_form_comes_back(&tc, cfg);
    topic_config_free(&tc);
}

static void fuzz_stored(const struct config *cfg, const u8 *p, size_t len)
{
    struct topic_config tc;
    (void)!topic_config_read(&tc, cfg, bytes_of(p, (u32)len));
    stored_form_comes_back(&tc, cfg);
    topic_config_free(&tc);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size == 0 || size > 65536)
        return 0;
    struct config cfg;
    log_threshold = LOG_ERROR + 1;
    config_init(&cfg);
    switch (data[0] % 4) {
    case 0:
        fuzz_file(&cfg, (const char *)data + 1, size - 1);
        break;
    case 1:
        fuzz_live(&cfg, (const char *)data + 1, size - 1);
        break;
    case 2:
        fuzz_alter(&cfg, data + 1, size - 1);
        break;
    default:
        fuzz_stored(&cfg, data + 1, size - 1);
        break;
    }
    config_free(&cfg);
    return 0;
}
