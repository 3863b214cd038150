/* Where the objects are: s3://BUCKET/PREFIX?endpoint=URL&region=NAME&style=path|virtual, completed
 * by the keys store.s3.* and then by AWS's variables of the environment. What the URL says wins. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "s3_int.h"

static err refuse(char *why, size_t why_size, const char *url, const char *what)
{
    snprintf(why, why_size,
             "store.url = %s: %s; it is s3://BUCKET/PREFIX, as in s3://my-bucket/leat", url, what);
    return ERR_INVALID_CONFIG;
}

static bool copy_to(char *out, size_t size, const char *s, size_t len)
{
    if (len >= size)
        return false;
    memcpy(out, s, len);
    out[len] = '\0';
    return true;
}

static bool plain(const char *s, const char *more)
{
    for (; *s; s++) {
        bool letter =
            (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9');
        if (!letter && !strchr(more, *s))
            return false;
    }
    return true;
}

/* ---- what is asked for ---- */

struct asked {
    char endpoint[256], region[64], style[16];
};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* %XX stands for a byte; false when it does not fit. */
static bool unescape(char *out, size_t size, const char *s, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '%' && i + 2 < len && hex_digit(s[i + 1]) >= 0 && hex_digit(s[i + 2]) >= 0) {
            c = (char)(hex_digit(s[i + 1]) * 16 + hex_digit(s[i + 2]));
            i += 2;
        }
        if (n + 1 >= size || c == '\0')
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return true;
}

static err query_parse(const char *url, const char *q, struct asked *a, char *why, size_t why_size)
{
    while (*q) {
        size_t len = strcspn(q, "&"), name = strcspn(q, "=&");
        bool ok = name < len;
        const char *v = q + name + 1;
        size_t v_len = ok ? len - name - 1 : 0;
        if (ok && name == 8 && memcmp(q, "endpoint", 8) == 0)
            ok = unescape(a->endpoint, sizeof a->endpoint, v, v_len);
        else if (ok && name == 6 && memcmp(q, "region", 6) == 0)
            ok = unescape(a->region, sizeof a->region, v, v_len);
        else if (ok && name == 5 && memcmp(q, "style", 5) == 0)
            ok = unescape(a->style, sizeof a->style, v, v_len);
        else
            ok = false;
        if (!ok)
            return refuse(why, why_size, url,
                          "after the question mark it knows endpoint=, region= and style=");
        q += len + (q[len] == '&');
    }
    return ERR_NONE;
}

static void first_of(char *out, size_t size, const char *const *from, u32 count)
{
    for (u32 i = 0; i < count && !*out; i++)
        if (from[i])
            snprintf(out, size, "%s", from[i]);
}

static void complete(struct asked *a, const struct config *cfg)
{
    const char *regions[] = { config_str(cfg, CFG_s3_region), getenv("AWS_REGION"),
                              getenv("AWS_DEFAULT_REGION") };
    const char *endpoints[] = { config_str(cfg, CFG_s3_endpoint), getenv("AWS_ENDPOINT_URL_S3"),
                                getenv("AWS_ENDPOINT_URL") };
    first_of(a->region, sizeof a->region, regions, ARRAY_COUNT(regions));
    if (!*a->region && !s3_profile_find(cfg, "region", a->region, sizeof a->region))
        a->region[0] = '\0';
    first_of(a->endpoint, sizeof a->endpoint, endpoints, ARRAY_COUNT(endpoints));
    if (!*a->style)
        snprintf(a->style, sizeof a->style, "%s", config_str(cfg, CFG_s3_style));
}

/* ---- the place ---- */

static err path_parse(const char *url, struct s3_place *p, char *why, size_t why_size)
{
    const char *path = strstr(url, "://");
    CHECK(path != NULL);
    path += 3;
    size_t len = strcspn(path, "?"), bucket = strcspn(path, "/?");
    if (bucket < 3 || !copy_to(p->bucket, MIN(sizeof p->bucket, 64u), path, bucket) ||
        !plain(p->bucket, ".-_"))
        return refuse(why, why_size, url,
                      "a bucket's name has 3 to 63 characters, letters, digits, '.' and '-'");
    const char *prefix = path + bucket;
    size_t prefix_len = len - bucket;
    while (prefix_len > 0 && *prefix == '/') {
        prefix++;
        prefix_len--;
    }
    while (prefix_len > 0 && prefix[prefix_len - 1] == '/')
        prefix_len--;
    if (!copy_to(p->prefix, sizeof p->prefix, prefix, prefix_len))
        return refuse(why, why_size, url, "the prefix is longer than 500 characters");
    for (size_t i = 0; i < prefix_len; i++)
        if ((u8)p->prefix[i] < ' ' || p->prefix[i] == 127)
            return refuse(why, why_size, url, "the prefix has control characters");
    return ERR_NONE;
}

/* "http://host:port" into p->host and p->tls. */
static err endpoint_parse(const char *endpoint, struct s3_place *p, char *why, size_t why_size)
{
    const char *host = endpoint;
    p->tls = true;
    if (strncmp(endpoint, "http://", 7) == 0) {
        p->tls = false;
        host += 7;
    } else if (strncmp(endpoint, "https://", 8) == 0) {
        host += 8;
    }
    size_t len = strlen(host);
    while (len > 0 && host[len - 1] == '/')
        len--;
    static const char http[] = ":80", https[] = ":443";
    const char *port = p->tls ? https : http;
    size_t port_len = strlen(port);
    if (len > port_len && memcmp(host + len - port_len, port, port_len) == 0)
        len -= port_len; /* clients leave it out of the Host header, and so of the signature */
    bool ok = len > 0 && copy_to(p->host, sizeof p->host - sizeof p->bucket, host, len) &&
              plain(p->host, ".-_:[]");
    if (ok)
        return ERR_NONE;
    snprintf(why, why_size, "store.s3.endpoint = %s is not https://HOST:PORT (or http://HOST:PORT)",
             endpoint);
    return ERR_INVALID_CONFIG;
}

void s3_place_rehost(struct s3_place *p)
{
    CHECK(!p->own_endpoint);
    const char *domain = strncmp(p->region, "cn-", 3) == 0 ? "amazonaws.com.cn" : "amazonaws.com";
    int n = snprintf(p->host, sizeof p->host, "%s%ss3.%s.%s", p->path_style ? "" : p->bucket,
                     p->path_style ? "" : ".", p->region, domain);
    CHECK((size_t)n < sizeof p->host);
}

static err style_apply(const char *style, struct s3_place *p, char *why, size_t why_size)
{
    if (strcmp(style, "path") == 0) {
        p->path_style = true;
    } else if (strcmp(style, "virtual") == 0) {
        p->path_style = false;
    } else if (strcmp(style, "auto") == 0) {
        /* A wildcard certificate covers no dots. */
        p->path_style = p->own_endpoint || strchr(p->bucket, '.') != NULL;
    } else {
        snprintf(why, why_size, "store.url: style=%s is neither auto nor path nor virtual", style);
        return ERR_INVALID_CONFIG;
    }
    return ERR_NONE;
}

err s3_place_parse(const char *url, const struct config *cfg, struct s3_place *p, char *why,
                   size_t why_size)
{
    struct asked a = { "", "", "" };
    memset(p, 0, sizeof *p);
    const char *q = strchr(url, '?');
    err e = path_parse(url, p, why, why_size);
    if (e == ERR_NONE && q)
        e = query_parse(url, q + 1, &a, why, why_size);
    if (e != ERR_NONE)
        return e;
    complete(&a, cfg);
    p->region_given = *a.region != '\0';
    snprintf(p->region, sizeof p->region, "%s", *a.region ? a.region : "us-east-1");
    if (!plain(p->region, "-_")) {
        snprintf(why, why_size, "store.s3.region = %s is no name of a region", p->region);
        return ERR_INVALID_CONFIG;
    }
    p->own_endpoint = *a.endpoint != '\0';
    if (p->own_endpoint)
        e = endpoint_parse(a.endpoint, p, why, why_size);
    if (e == ERR_NONE)
        e = style_apply(a.style, p, why, why_size);
    if (e != ERR_NONE)
        return e;
    p->tls |= !p->own_endpoint;
    if (!p->own_endpoint) {
        s3_place_rehost(p);
    } else if (!p->path_style) {
        char host[S3_HOST_SIZE];
        memcpy(host, p->host, sizeof host);
        int n = snprintf(p->host, sizeof p->host, "%s.%s", p->bucket, host);
        CHECK((size_t)n < sizeof p->host);
    }
    return ERR_NONE;
}
