/* Credentials as text: profile files, the JSON of the metadata services, the XML of the token
 * service. All of it comes from outside, so nothing here believes a length or an end. */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "s3_int.h"

/* ---- profile files ---- */

static struct bytes trim(struct bytes b)
{
    while (b.len > 0 && isspace(b.data[0])) {
        b.data++;
        b.len--;
    }
    while (b.len > 0 && isspace(b.data[b.len - 1]))
        b.len--;
    return b;
}

/* The next line, without its end. */
static bool line_next(const char **at, const char *end, struct bytes *line)
{
    if (*at >= end)
        return false;
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    const char *stop = newline ? newline : end;
    *line = bytes_of(*at, (u32)(stop - *at));
    *at = newline ? newline + 1 : end;
    return true;
}

/* "[name]" or "[profile name]" */
static bool section_is(struct bytes line, const char *section)
{
    if (line.len < 2 || line.data[line.len - 1] != ']')
        return false;
    struct bytes name = trim(bytes_of(line.data + 1, line.len - 2));
    static const char word[] = "profile ";
    if (name.len > sizeof word - 1 && memcmp(name.data, word, sizeof word - 1) == 0)
        name = trim(bytes_of(name.data + sizeof word - 1, name.len - (u32)(sizeof word - 1)));
    return bytes_eq_str(name, section);
}

bool s3_ini_find(const char *text, size_t len, const char *section, const char *key, char *out,
                 size_t size)
{
    const char *at = text, *end = text + MIN(len, (size_t)INT32_MAX);
    struct bytes line;
    bool inside = false;
    while (line_next(&at, end, &line)) {
        /* Indented lines belong to a nested table of the line before. */
        bool nested = line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t');
        struct bytes b = trim(line);
        if (b.len == 0 || b.data[0] == '#' || b.data[0] == ';' || (nested && b.data[0] != '['))
            continue;
        if (b.data[0] == '[') {
            inside = section_is(b, section);
            continue;
        }
        const u8 *equals = memchr(b.data, '=', b.len);
        if (!inside || equals == NULL)
            continue;
        u32 at_equals = (u32)(equals - b.data);
        if (!bytes_eq_str(trim(bytes_of(b.data, at_equals)), key))
            continue;
        struct bytes v = trim(bytes_of(equals + 1, b.len - at_equals - 1));
        if (v.len == 0 || v.len >= size || memchr(v.data, '\0', v.len))
            return false;
        memcpy(out, v.data, v.len);
        out[v.len] = '\0';
        return true;
    }
    return false;
}

/* ---- documents ---- */

/* Values go into headers: none may hold a line break. */
static bool value_take(const char *v, char *out, size_t size)
{
    if (v == NULL || *v == '\0' || strlen(v) >= size)
        return false;
    for (const char *p = v; *p; p++)
        if ((u8)*p <= ' ' || (u8)*p >= 127)
            return false;
    memcpy(out, v, strlen(v) + 1);
    return true;
}

static i64 expiry_of(const char *v)
{
    i64 ms = v ? s3_time_iso(v) : 0;
    return ms < 0 ? 0 : ms;
}

bool s3_creds_json(const char *text, size_t len, struct s3_creds *out)
{
    json_error_t error;
    json_t *doc = json_loadb(text, len, 0, &error);
    memset(out, 0, sizeof *out);
    const char *token = json_string_value(json_object_get(doc, "Token"));
    bool ok = value_take(json_string_value(json_object_get(doc, "AccessKeyId")), out->access_key,
                         sizeof out->access_key) &&
              value_take(json_string_value(json_object_get(doc, "SecretAccessKey")),
                         out->secret_key, sizeof out->secret_key) &&
              (token == NULL || *token == '\0' || value_take(token, out->token, sizeof out->token));
    out->expires_ms = expiry_of(json_string_value(json_object_get(doc, "Expiration")));
    json_decref(doc);
    return ok;
}

static bool xml_take(const char *text, size_t len, const char *name, char *out, size_t size)
{
    char value[sizeof((struct s3_creds *)0)->token];
    return s3_xml_find(text, len, name, value, sizeof value) && value_take(value, out, size);
}

bool s3_creds_sts(const char *text, size_t len, struct s3_creds *out)
{
    char expires[64];
    memset(out, 0, sizeof *out);
    bool ok = xml_take(text, len, "AccessKeyId", out->access_key, sizeof out->access_key) &&
              xml_take(text, len, "SecretAccessKey", out->secret_key, sizeof out->secret_key) &&
              xml_take(text, len, "SessionToken", out->token, sizeof out->token);
    if (s3_xml_find(text, len, "Expiration", expires, sizeof expires))
        out->expires_ms = expiry_of(expires);
    return ok;
}
