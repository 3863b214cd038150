/* Configuration files, -w pairs, topic configs from clients and from the store, and the HTTP
 * endpoint, on any bytes. The first byte picks the door. Whatever is accepted must print back to
 * itself; HTTP is answered by HTTP, or by closing. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin.h"
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
        if (config_defs[k].type == CONFIG_STRING || config_defs[k].type == CONFIG_PASSWORD)
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
    (void)!topic_config_check(&tc, cfg, why, sizeof why);
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

/* ---- the HTTP endpoint ---- */

/* A daemon for all inputs, on a port of its own. */
static u16 http_port(void)
{
    static struct config cfg;
    static struct metric_registry registry;
    static struct admin_ops ops;
    static struct admin *admin;
    if (!admin) {
        config_init(&cfg);
        err e =
            config_set_pair(&cfg, "admin.listen=127.0.0.1:0", CONFIG_COMMAND_LINE, why, sizeof why);
        CHECK(e == ERR_NONE && config_validate(&cfg, why, sizeof why) == ERR_NONE);
        metric_registry_add(&registry, metrics_create());
        e = admin_start(&cfg, &registry, &ops, &admin, why, sizeof why);
        CHECK(e == ERR_NONE);
    }
    return admin_port(admin);
}

/* Sends, and gives the first piece of the answer, if it comes in time. */
static size_t http_exchange(const void *p, size_t len, u32 patience_ms, char *answer, size_t room)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(http_port()) };
    struct timeval patience = { patience_ms / 1000, (suseconds_t)(patience_ms % 1000) * 1000 };
    struct linger hard = { 1, 0 }; /* closing with a reset leaves no TIME_WAIT: there are many */
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
    if (n >= 0)
        n = recv(fd, answer, room, 0);
    close(fd);
    return n < 0 ? 0 : (size_t)n;
}

static void fuzz_http(const u8 *p, size_t len)
{
    static const char good[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    static u32 count;
    char answer[256];
    size_t got = http_exchange(p, len, 5, answer, sizeof answer);
    CHECK(got < 8 || memcmp(answer, "HTTP/1.", 7) == 0);
    if (++count % 64 != 0)
        return;
    got = http_exchange(good, sizeof good - 1, 5000, answer, sizeof answer);
    CHECK(got > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size == 0 || size > 65536)
        return 0;
    struct config cfg;
    log_threshold = LOG_ERROR + 1;
    config_init(&cfg);
    switch (data[0] % 5) {
    case 0:
        fuzz_file(&cfg, (const char *)data + 1, size - 1);
        break;
    case 1:
        fuzz_live(&cfg, (const char *)data + 1, size - 1);
        break;
    case 2:
        fuzz_alter(&cfg, data + 1, size - 1);
        break;
    case 3:
        fuzz_stored(&cfg, data + 1, size - 1);
        break;
    default:
        fuzz_http(data + 1, size - 1);
        break;
    }
    config_free(&cfg);
    return 0;
}
