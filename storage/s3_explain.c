/* What a failure means: its cause and its remedy, in a sentence for who starts the node and in the
 * log of a running one. What the store says of itself is kept beside it. */
#include <stdio.h>
#include <string.h>

#include "s3_int.h"

static const char *no_answer_remedy(const struct s3_reply *r)
{
    switch ((int)r->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return "check the host in store.s3.endpoint (or store.s3.region) and this machine's DNS";
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
        return "check that the store runs, store.s3.endpoint, routes, firewalls and proxies";
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        return "its certificate is not one this machine trusts: name its CA in store.s3.ca_file, "
               "or correct the host in store.s3.endpoint";
    case CURLE_SSL_CACERT_BADFILE:
        return "store.s3.ca_file can't be read or is no PEM file";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return "is it http:// where it should be https:// in store.s3.endpoint, or the other way "
               "round?";
    default:
        return "check store.s3.endpoint and the network";
    }
}

struct remedy {
    const char *code, *cause, *remedy;
};

static const struct remedy remedies[] = {
    { "InvalidAccessKeyId", "the store does not know this access key",
      "check the access key id, and that it belongs to this endpoint" },
    { "SignatureDoesNotMatch", "the secret key does not belong to the access key",
      "check the secret key for missing or extra characters" },
    { "ExpiredToken", "the credentials have expired",
      "renew them, or let leat do so: a role instead of keys (docs/s3.md)" },
    { "InvalidToken", "the session token is not valid",
      "renew the credentials; a session token belongs to its own access key" },
    { "AccessDenied", "these credentials lack the right",
      "grant s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload on the objects "
      "and s3:ListBucket on the bucket (docs/s3.md has the policy)" },
    { "NoSuchBucket", "there is no such bucket", "make it, or correct store.url" },
    { "InvalidBucketName", "that is no name of a bucket", "correct store.url" },
    { "RequestTimeTooSkewed", "this machine's clock is wrong",
      "let chrony or systemd-timesyncd set it" },
    { "AuthorizationHeaderMalformed", "the bucket is in another region",
      "set store.s3.region or store.s3.endpoint" },
    { "PermanentRedirect", "the bucket is in another region",
      "set store.s3.region or store.s3.endpoint" },
    { "NotImplemented", "the store lacks something leat needs", "use another store" },
    { "InvalidStorageClass", "the store does not know store.s3.storage_class",
      "correct store.s3.storage_class" },
    { "KMS.NotFoundException", "the store does not know store.s3.sse_key_id",
      "correct store.s3.sse_key_id" },
    { "SlowDown", "the store asks for fewer requests", "start again in a while" },
};

static const struct remedy *remedy_find(const struct s3_reply *r, const struct s3_judged *j)
{
    const char *code = j->code;
    if (!*code) /* answers without a body, to HEAD or from proxies */
        code = r->status == 403 ? "AccessDenied" : r->status == 404 ? "NoSuchBucket" : "";
    for (size_t i = 0; i < ARRAY_COUNT(remedies); i++)
        if (strcmp(remedies[i].code, code) == 0)
            return &remedies[i];
    return NULL;
}

/* Where the store says the bucket is; false when it does not. */
static bool region_told(const struct s3_reply *r, char *out, size_t size)
{
    snprintf(out, size, "%s", r->region);
    if (!*out && r->body)
        (void)s3_xml_find(r->body, r->body_len, "Region", out, size);
    return *out != '\0';
}

static void explain_status(const struct s3_place *p, const struct s3_reply *r,
                           const struct s3_judged *j, i64 offset_ms, struct s3_text *t)
{
    char said[256] = "", region[64];
    if (r->body)
        (void)s3_xml_find(r->body, r->body_len, "Message", said, sizeof said);
    const struct remedy *m = remedy_find(r, j);
    if (j->verdict == S3_REGION && region_told(r, region, sizeof region))
        s3_text_addf(t, "the bucket is in region %s, not %s; set store.s3.region = %s", region,
                     p->region, region);
    else if (j->verdict == S3_REGION)
        s3_text_add(t, "the bucket is elsewhere; set store.s3.region or store.s3.endpoint");
    else if (m)
        s3_text_addf(t, "%s; %s", m->cause, m->remedy);
    else
        s3_text_add(t, "check store.url and the keys store.s3.*");
    if (m && strcmp(m->code, "RequestTimeTooSkewed") == 0 && offset_ms != 0)
        s3_text_addf(t, " (it is off by %" PRId64 " s)", -offset_ms / 1000);
    s3_text_addf(t, ". The store answered %ld%s%s%s%.200s", r->status, *j->code ? " " : "", j->code,
                 *said ? ": " : "", said);
    if (*r->request_id)
        s3_text_addf(t, " (request %s)", r->request_id);
}

bool s3_remedy(const struct s3_reply *r, const struct s3_judged *j, const char **cause,
               const char **what)
{
    const struct remedy *m = r->status == 0 ? NULL : remedy_find(r, j);
    /* Without any code of curl's it was never sent, and what kept it back was told where it did. */
    bool silent = r->status == 0 && r->code != CURLE_OK;
    *cause = m ? m->cause : silent ? "no answer" : "";
    *what = m ? m->remedy : silent ? no_answer_remedy(r) : "";
    return **what != '\0';
}

void s3_explain(const struct s3_place *p, const char *doing, const struct s3_reply *r,
                const struct s3_judged *j, i64 offset_ms, char *why, size_t why_size)
{
    struct s3_text t = s3_text_in(why, why_size);
    s3_text_addf(&t, "object store s3://%s%s%s at %s: can't %s: ", p->bucket, *p->prefix ? "/" : "",
                 p->prefix, p->host, doing);
    if (r->status == 0)
        s3_text_addf(&t, "%s; %s", r->error, no_answer_remedy(r));
    else
        explain_status(p, r, j, offset_ms, &t);
}
