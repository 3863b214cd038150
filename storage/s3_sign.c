/* AWS Signature Version 4. SHA-256 and HMAC are libcrypto's, which libcurl brings anyway: it hashes
 * the bodies of unencrypted uploads, at the speed of the processor's own instructions.
 *
 *   canonical request = method, path, query, "name:value" of each header, their names, payload hash
 *   text to sign      = algorithm, time, scope, hash of the canonical request
 *   key               = HMAC chain over secret, day, region, service, "aws4_request"
 *   signature         = HMAC(key, text to sign)
 *
 * libcurl's own signer (CURLOPT_AWS_SIGV4) does not serve: it takes the time from the machine's
 * clock, which may be off by more than the store allows; see docs/decisions/0008-s3.md. */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "s3_int.h"

#define HASH_BYTES 32u
/* Path and query are the largest parts of a request to sign. */
#define CANONICAL_SIZE (16 * 1024)

static void hex(const u8 *hash, char out[S3_HASH_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (u32 i = 0; i < HASH_BYTES; i++) {
        out[2 * i] = digits[hash[i] >> 4];
        out[2 * i + 1] = digits[hash[i] & 15];
    }
    out[2 * HASH_BYTES] = '\0';
}

void s3_hash(const struct bytes *parts, u32 part_count, char out[S3_HASH_SIZE])
{
    u8 hash[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CHECK(ctx != NULL);
    CHECK(EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    for (u32 i = 0; i < part_count; i++)
        CHECK(EVP_DigestUpdate(ctx, parts[i].data, parts[i].len) == 1);
    CHECK(EVP_DigestFinal_ex(ctx, hash, &len) == 1);
    CHECK(len == HASH_BYTES);
    EVP_MD_CTX_free(ctx);
    hex(hash, out);
}

static void hmac(const u8 *key, size_t key_len, const char *text, u8 out[HASH_BYTES])
{
    unsigned int len = 0;
    CHECK(HMAC(EVP_sha256(), key, (int)key_len, (const u8 *)text, strlen(text), out, &len));
    CHECK(len == HASH_BYTES);
}

/* Indexes of the headers, ascending by name. */
static void headers_sort(const struct s3_signing *in, u8 order[S3_HEADERS_MAX])
{
    for (u32 i = 0; i < in->header_count; i++) {
        u32 k = i;
        for (; k > 0 && strcmp(in->headers[order[k - 1]].name, in->headers[i].name) > 0; k--)
            order[k] = order[k - 1];
        order[k] = (u8)i;
    }
}

/* Blanks at the ends go, rows of them inside become one. */
static void add_trimmed(struct s3_text *t, const char *v)
{
    char one[2] = "";
    bool blank = false, begun = false;
    for (; *v; v++) {
        if (*v == ' ' || *v == '\t') {
            blank = begun;
            continue;
        }
        if (blank)
            s3_text_add(t, " ");
        blank = false;
        begun = true;
        one[0] = *v;
        s3_text_add(t, one);
    }
}

static void add_names(struct s3_text *t, const struct s3_signing *in, const u8 *order)
{
    for (u32 i = 0; i < in->header_count; i++)
        s3_text_addf(t, "%s%s", i ? ";" : "", in->headers[order[i]].name);
}

/* The hash of the canonical request; false when it is too long. */
static bool canonical_hash(const struct s3_signing *in, const u8 *order, char out[S3_HASH_SIZE])
{
    char *buf = mem_alloc(CANONICAL_SIZE);
    struct s3_text t = s3_text_in(buf, CANONICAL_SIZE);
    s3_text_addf(&t, "%s\n%s\n%s\n", in->method, in->path, in->query);
    for (u32 i = 0; i < in->header_count; i++) {
        s3_text_addf(&t, "%s:", in->headers[order[i]].name);
        add_trimmed(&t, in->headers[order[i]].value);
        s3_text_add(&t, "\n");
    }
    s3_text_add(&t, "\n");
    add_names(&t, in, order);
    s3_text_addf(&t, "\n%s", in->payload_hash);
    struct bytes part = bytes_of(buf, (u32)t.len);
    s3_hash(&part, 1, out);
    mem_free(buf);
    return !t.full;
}

static bool signature(const struct s3_signing *in, const char *scope, const char *request_hash,
                      char out[S3_HASH_SIZE])
{
    char text[512], first[sizeof "AWS4" + sizeof((struct s3_creds *)0)->secret_key];
    char day[9] = "";
    u8 key[HASH_BYTES];
    memcpy(day, in->time, 8);
    int n =
        snprintf(text, sizeof text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", in->time, scope, request_hash);
    int m = snprintf(first, sizeof first, "AWS4%s", in->secret_key);
    if ((size_t)n >= sizeof text || (size_t)m >= sizeof first)
        return false;
    hmac((const u8 *)first, (size_t)m, day, key);
    hmac(key, sizeof key, in->region, key);
    hmac(key, sizeof key, in->service, key);
    hmac(key, sizeof key, "aws4_request", key);
    hmac(key, sizeof key, text, key);
    hex(key, out);
    return true;
}

bool s3_sign(const struct s3_signing *in, char *out, size_t size)
{
    CHECK(in->header_count <= S3_HEADERS_MAX);
    CHECK(strlen(in->time) == 16);
    u8 order[S3_HEADERS_MAX];
    char request_hash[S3_HASH_SIZE], sig[S3_HASH_SIZE], scope[256];
    headers_sort(in, order);
    int n =
        snprintf(scope, sizeof scope, "%.8s/%s/%s/aws4_request", in->time, in->region, in->service);
    if ((size_t)n >= sizeof scope || !canonical_hash(in, order, request_hash) ||
        !signature(in, scope, request_hash, sig))
        return false;
    struct s3_text t = s3_text_in(out, size);
    s3_text_addf(&t, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", in->access_key, scope);
    add_names(&t, in, order);
    s3_text_addf(&t, ", Signature=%s", sig);
    return !t.full;
}
