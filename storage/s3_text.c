/* Text for S3: bounded buffers, escapes, dates, and the XML of its answers.
 *
 * XML. Answers are a few elements deep, and nothing in them has to be believed: the scanner gives
 * one tag after the other and what stands between an opening tag and its closing one. It knows no
 * DTD, no CDATA and no entities but XML's five and character numbers, keeps no state but a pointer,
 * and ends at the first thing that is no XML. So hostile text costs at most one pass over it.
 *
 *   <ListBucketResult>      OPEN
 *     <Key>a/b</Key>        LEAF  name "Key", text "a/b"
 *     <Prefix/>             LEAF  name "Prefix", text ""
 *   </ListBucketResult>     CLOSE
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "s3_int.h"

/* ---- bounded text ---- */

struct s3_text s3_text_in(char *buf, size_t size)
{
    CHECK(size > 0);
    buf[0] = '\0';
    return (struct s3_text){ .buf = buf, .size = size };
}

static void text_add_n(struct s3_text *t, const char *s, size_t n)
{
    CHECK(t->len < t->size);
    if (n >= t->size - t->len) {
        t->full = true;
        return;
    }
    memcpy(t->buf + t->len, s, n);
    t->len += n;
    t->buf[t->len] = '\0';
}

void s3_text_add(struct s3_text *t, const char *s)
{
    text_add_n(t, s, strlen(s));
}

void s3_text_addf(struct s3_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if ((size_t)n < t->size - t->len) {
        t->len += (size_t)n;
        return;
    }
    t->buf[t->len] = '\0';
    t->full = true;
}

void s3_text_escape(struct s3_text *t, const char *s, size_t len, bool path)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < len; i++) {
        u8 c = (u8)s[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_' || c == '~' || (path && c == '/');
        char out[3] = { plain ? (char)c : '%', hex[c >> 4], hex[c & 15] };
        text_add_n(t, out, plain ? 1 : 3);
    }
}

void s3_text_xml(struct s3_text *t, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            s3_text_add(t, "&amp;");
        else if (*s == '<')
            s3_text_add(t, "&lt;");
        else if (*s == '>')
            s3_text_add(t, "&gt;");
        else
            text_add_n(t, s, 1);
    }
}

/* ---- dates ---- */

i64 s3_time_iso(const char *s)
{
    int y, mo, d, h, mi, sec;
    if (sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mo, &d, &h, &mi, &sec) != 6)
        return -1;
    bool sane = y >= 1970 && mo >= 1 && mo <= 12 && d >= 1 && d <= 31 && h >= 0 && h < 24 &&
                mi >= 0 && mi < 60 && sec >= 0 && sec <= 60;
    if (!sane)
        return -1;
    struct tm tm = { .tm_year = y - 1900,
                     .tm_mon = mo - 1,
                     .tm_mday = d,
                     .tm_hour = h,
                     .tm_min = mi,
                     .tm_sec = sec };
    return (i64)timegm(&tm) * 1000;
}

void s3_time_amz(i64 ms, char out[17])
{
    struct tm tm;
    time_t t = (time_t)(ms / 1000);
    CHECK(gmtime_r(&t, &tm) != NULL);
    CHECK(strftime(out, 17, "%Y%m%dT%H%M%SZ", &tm) == 16);
}

/* ---- XML ---- */

struct s3_xml s3_xml_of(const char *doc, size_t len)
{
    return (struct s3_xml){ .at = doc, .end = doc + len, .kind = S3_XML_OPEN };
}

static enum s3_xml_kind xml_end(struct s3_xml *x)
{
    x->at = x->end;
    return x->kind = S3_XML_END;
}

/* The tag at x->at, which is '<'. Sets its name; returns what follows its '>' or NULL. */
static const char *xml_tag(const struct s3_xml *x, const char **name, size_t *name_len, bool *empty)
{
    const char *p = x->at + 1;
    const char *close = memchr(p, '>', (size_t)(x->end - p));
    if (close == NULL)
        return NULL;
    if (p < close && *p == '/')
        p++;
    *name = p;
    for (; p < close && !isspace((u8)*p) && *p != '/'; p++)
        if (*p == ':')
            *name = p + 1;
    *name_len = (size_t)(p - *name);
    *empty = close[-1] == '/';
    return close + 1;
}

/* After an opening tag: is what follows text and then the closing tag of that name? */
static bool xml_leaf(struct s3_xml *x)
{
    const char *lt = memchr(x->at, '<', (size_t)(x->end - x->at));
    if (lt == NULL || x->end - lt < 2 || lt[1] != '/')
        return false;
    struct s3_xml closing = { .at = lt, .end = x->end };
    const char *name;
    size_t name_len;
    bool empty;
    const char *after = xml_tag(&closing, &name, &name_len, &empty);
    if (after == NULL || name_len != x->name_len || memcmp(name, x->name, name_len) != 0)
        return false;
    x->text = x->at;
    x->text_len = (size_t)(lt - x->at);
    x->at = after;
    return true;
}

enum s3_xml_kind s3_xml_next(struct s3_xml *x)
{
    for (;;) {
        const char *lt = x->at < x->end ? memchr(x->at, '<', (size_t)(x->end - x->at)) : NULL;
        if (lt == NULL || x->end - lt < 3)
            return xml_end(x);
        x->at = lt;
        bool empty;
        const char *after = xml_tag(x, &x->name, &x->name_len, &empty);
        if (after == NULL)
            return xml_end(x);
        x->at = after;
        x->text = lt;
        x->text_len = 0;
        if (lt[1] == '?' || lt[1] == '!')
            continue; /* declarations and comments */
        if (lt[1] == '/')
            return x->kind = S3_XML_CLOSE;
        return x->kind = empty || xml_leaf(x) ? S3_XML_LEAF : S3_XML_OPEN;
    }
}

bool s3_xml_is(const struct s3_xml *x, const char *name)
{
    return x->name_len == strlen(name) && memcmp(x->name, name, x->name_len) == 0;
}

static bool utf8_add(struct s3_text *t, u32 c)
{
    char out[4];
    size_t n = 0;
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return false;
    if (c < 0x80) {
        out[n++] = (char)c;
    } else {
        if (c < 0x800) {
            out[n++] = (char)(0xc0 | c >> 6);
        } else {
            if (c < 0x10000) {
                out[n++] = (char)(0xe0 | c >> 12);
            } else {
                out[n++] = (char)(0xf0 | c >> 18);
                out[n++] = (char)(0x80 | (c >> 12 & 63));
            }
            out[n++] = (char)(0x80 | (c >> 6 & 63));
        }
        out[n++] = (char)(0x80 | (c & 63));
    }
    text_add_n(t, out, n);
    return true;
}

/* "#38" or "#x26" between & and ;. */
static bool xml_number(struct s3_text *t, const char *p, size_t len)
{
    u32 base = len > 1 && (p[1] == 'x' || p[1] == 'X') ? 16 : 10, v = 0;
    size_t i = base == 16 ? 2 : 1;
    if (i >= len || len > 10)
        return false;
    for (; i < len; i++) {
        char c = (char)tolower((u8)p[i]);
        u32 digit = c >= '0' && c <= '9' ? (u32)(c - '0') : c >= 'a' ? (u32)(c - 'a') + 10 : 99;
        if (digit >= base || v > 0x10ffff)
            return false;
        v = v * base + digit;
    }
    return utf8_add(t, v);
}

static bool xml_entity(struct s3_text *t, const char *p, size_t len)
{
    static const struct {
        const char *name, *text;
    } known[] = { { "amp", "&" }, { "lt", "<" }, { "gt", ">" }, { "quot", "\"" }, { "apos", "'" } };
    if (len > 1 && *p == '#')
        return xml_number(t, p, len);
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, p, len) == 0) {
            s3_text_add(t, known[i].text);
            return true;
        }
    return false;
}

bool s3_xml_text(const struct s3_xml *x, char *buf, size_t size)
{
    struct s3_text t = s3_text_in(buf, size);
    const char *p = x->text, *end = x->text + x->text_len;
    while (p < end && !t.full) {
        if (*p != '&') {
            text_add_n(&t, p++, 1);
            continue;
        }
        const char *semi = memchr(p, ';', (size_t)(end - p));
        if (semi == NULL || !xml_entity(&t, p + 1, (size_t)(semi - p - 1)))
            return false;
        p = semi + 1;
    }
    return !t.full && strlen(buf) == t.len;
}

bool s3_xml_find(const char *doc, size_t len, const char *name, char *buf, size_t size)
{
    struct s3_xml x = s3_xml_of(doc, len);
    while (s3_xml_next(&x) != S3_XML_END)
        if (x.kind == S3_XML_LEAF && s3_xml_is(&x, name) && s3_xml_text(&x, buf, size))
            return true;
    buf[0] = '\0';
    return false;
}

/* ---- ListObjectsV2 ---- */

static bool decimal(const struct s3_xml *x, u64 *out)
{
    *out = 0;
    for (size_t i = 0; i < x->text_len; i++) {
        u8 c = (u8)x->text[i];
        if (c < '0' || c > '9' || *out > (UINT64_MAX - 9) / 10)
            return false;
        *out = *out * 10 + (u64)(c - '0');
    }
    return x->text_len > 0;
}

static void list_head(struct s3_list *l, const struct s3_xml *x)
{
    if (s3_xml_is(x, "IsTruncated"))
        l->truncated = x->text_len == 4 && memcmp(x->text, "true", 4) == 0;
    else if (s3_xml_is(x, "NextContinuationToken") && !s3_xml_text(x, l->next, sizeof l->next))
        l->next[0] = '\0';
}

err s3_list_parse(const char *doc, size_t len, struct s3_list *l,
                  err (*each)(void *arg, const char *key, u64 bytes), void *arg)
{
    struct s3_xml x = s3_xml_of(doc, len);
    char key[S3_KEY_SIZE] = "";
    u64 bytes = 0;
    bool inside = false, has_key = false, has_size = false;
    *l = (struct s3_list){ 0 };
    while (s3_xml_next(&x) != S3_XML_END) {
        if (x.kind == S3_XML_OPEN && s3_xml_is(&x, "Contents")) {
            inside = true;
            has_key = has_size = false;
        } else if (x.kind == S3_XML_LEAF && inside && s3_xml_is(&x, "Key")) {
            has_key = s3_xml_text(&x, key, sizeof key);
        } else if (x.kind == S3_XML_LEAF && inside && s3_xml_is(&x, "Size")) {
            has_size = decimal(&x, &bytes);
        } else if (x.kind == S3_XML_CLOSE && inside && s3_xml_is(&x, "Contents")) {
            inside = false;
            l->keys++;
            err e = has_key && has_size ? each(arg, key, bytes) : ERR_NONE;
            if (e != ERR_NONE)
                return e;
        } else if (x.kind == S3_XML_LEAF && !inside) {
            list_head(l, &x);
        }
        if (x.kind != S3_XML_OPEN && s3_xml_is(&x, "ListBucketResult"))
            l->complete = true;
    }
    return ERR_NONE;
}

/* ---- ListMultipartUploads ---- */

static void uploads_head(struct s3_uploads *l, const struct s3_xml *x)
{
    if (s3_xml_is(x, "IsTruncated"))
        l->truncated = x->text_len == 4 && memcmp(x->text, "true", 4) == 0;
    else if (s3_xml_is(x, "NextKeyMarker") && !s3_xml_text(x, l->next_key, sizeof l->next_key))
        l->next_key[0] = '\0';
    else if (s3_xml_is(x, "NextUploadIdMarker") && !s3_xml_text(x, l->next_id, sizeof l->next_id))
        l->next_id[0] = '\0';
}

struct upload_row {
    char key[S3_KEY_SIZE], id[S3_UPLOAD_ID_SIZE], began[40];
    bool has_key, has_id, has_began;
};

static void upload_field(struct upload_row *u, const struct s3_xml *x)
{
    if (s3_xml_is(x, "Key"))
        u->has_key = s3_xml_text(x, u->key, sizeof u->key);
    else if (s3_xml_is(x, "UploadId"))
        u->has_id = s3_xml_text(x, u->id, sizeof u->id);
    else if (s3_xml_is(x, "Initiated"))
        u->has_began = s3_xml_text(x, u->began, sizeof u->began);
}

err s3_uploads_parse(const char *doc, size_t len, struct s3_uploads *l,
                     err (*each)(void *arg, const char *key, const char *id, i64 began_ms),
                     void *arg)
{
    struct s3_xml x = s3_xml_of(doc, len);
    struct upload_row u = { 0 };
    bool inside = false;
    *l = (struct s3_uploads){ 0 };
    while (s3_xml_next(&x) != S3_XML_END) {
        if (x.kind == S3_XML_OPEN && s3_xml_is(&x, "Upload")) {
            inside = true;
            u.has_key = u.has_id = u.has_began = false;
        } else if (x.kind == S3_XML_CLOSE && inside && s3_xml_is(&x, "Upload")) {
            inside = false;
            i64 began_ms = u.has_began ? s3_time_iso(u.began) : -1;
            bool whole = u.has_key && u.has_id && began_ms >= 0;
            err e = whole ? each(arg, u.key, u.id, began_ms) : ERR_NONE;
            if (e != ERR_NONE)
                return e;
        } else if (x.kind == S3_XML_LEAF && inside) {
            upload_field(&u, &x);
        } else if (x.kind == S3_XML_LEAF) {
            uploads_head(l, &x);
        }
        if (x.kind != S3_XML_OPEN && s3_xml_is(&x, "ListMultipartUploadsResult"))
            l->complete = true;
    }
    return ERR_NONE;
}
