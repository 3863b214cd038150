/* What an S3 server, a metadata service or a file of credentials may hold, on any bytes. The first
 * byte picks the door. Nothing may be read or written out of bounds, and texts that were accepted
 * must be whole. */
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "log.h"
#include "../../storage/s3_int.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static char why[512];

static err key_seen(void *arg, const char *key, u64 bytes)
{
    u32 *n = arg;
    (void)bytes;
    CHECK(strlen(key) < S3_KEY_SIZE);
    return ++*n > 2000 ? ERR_BUSY : ERR_NONE;
}

static err upload_seen(void *arg, const char *key, const char *id, i64 began_ms)
{
    u32 *n = arg;
    CHECK(strlen(key) < S3_KEY_SIZE && strlen(id) < S3_UPLOAD_ID_SIZE && began_ms >= 0);
    return ++*n > 2000 ? ERR_BUSY : ERR_NONE;
}

static void fuzz_uploads(const char *text, size_t len)
{
    struct s3_uploads *l = MEM_NEW(struct s3_uploads);
    u32 n = 0;
    (void)!s3_uploads_parse(text, len, l, upload_seen, &n);
    CHECK(strlen(l->next_key) < sizeof l->next_key && strlen(l->next_id) < sizeof l->next_id);
    mem_free(l);
}

static void fuzz_list(const char *text, size_t len)
{
    fuzz_uploads(text, len);
    struct s3_list *l = MEM_NEW(struct s3_list);
    u32 n = 0;
    (void)!s3_list_parse(text, len, l, key_seen, &n);
    CHECK(strlen(l->next) < sizeof l->next);
    mem_free(l);
}

/* Lines of the head up to an empty one, then the body. */
static void fuzz_reply(const char *text, size_t len)
{
    struct s3_reply *r = MEM_NEW(struct s3_reply);
    const char *end = text + len;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        size_t n = newline ? (size_t)(newline - text) + 1 : (size_t)(end - text);
        s3_reply_header(r, text, n);
        text += n;
        if (n <= 2)
            break;
    }
    r->body_len = (u32)(end - text);
    r->body = mem_strndup(bytes_of(text, r->body_len));
    if (r->has_range)
        CHECK(r->range_first <= r->range_last && r->range_last < r->object_bytes);
    struct s3_judged j = s3_judge(r);
    CHECK((j.verdict == S3_DONE) == (j.err == ERR_NONE));
    struct s3_place p = { .bucket = "bkt", .host = "host", .region = "here" };
    s3_explain(&p, "do this", r, &j, 0, why, sizeof why);
    CHECK(strlen(why) < sizeof why);
    s3_reply_free(r);
    mem_free(r);
}

static void fuzz_credentials(const char *text, size_t len)
{
    struct s3_creds *c = MEM_NEW(struct s3_creds);
    char value[64];
    if (s3_creds_json(text, len, c))
        CHECK(c->access_key[0] && c->secret_key[0]);
    if (s3_creds_sts(text, len, c))
        CHECK(c->access_key[0] && c->token[0]);
    if (s3_ini_find(text, len, "default", "aws_access_key_id", value, sizeof value))
        CHECK(value[0] && strlen(value) < sizeof value);
    mem_free(c);
}

static void fuzz_url(const struct config *cfg, const char *text, size_t len)
{
    char url[2048];
    snprintf(url, sizeof url, "s3://%.*s", (int)MIN(len, sizeof url - 8), text);
    struct s3_place *p = MEM_NEW(struct s3_place);
    if (s3_place_parse(url, cfg, p, why, sizeof why) == ERR_NONE) {
        CHECK(p->host[0] && p->bucket[0] && p->region[0]);
        CHECK(p->prefix[0] != '/');
    }
    mem_free(p);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct config cfg;
    if (size == 0 || size > 65536)
        return 0;
    if (cfg.magic != CONFIG_MAGIC) {
        log_threshold = LOG_ERROR + 1;
        config_init(&cfg);
    }
    const char *text = (const char *)data + 1;
    switch (data[0] % 4) {
    case 0:
        fuzz_list(text, size - 1);
        break;
    case 1:
        fuzz_reply(text, size - 1);
        break;
    case 2:
        fuzz_credentials(text, size - 1);
        break;
    default:
        fuzz_url(&cfg, text, size - 1);
        break;
    }
    return 0;
}
