/* One value of a key: text to number and back.
 *
 * Everything but strings is held as an i64: a bool is 0 or 1, a size bytes, a duration its type's
 * unit, a ratio millionths, an enum the index of its choice, a list a bit for each choice. So a
 * dynamic key is one word that any thread reads without a lock.
 */
#include "config_int.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "check.h"
#include "mem.h"
#include "plant.h"

struct unit {
    const char *name;
    i64 factor;
};

/* Largest first: the formatter takes the first that divides. Aliases follow the main name. */
static const struct unit size_units[] = {
    { "t", (i64)TIB },   { "tib", (i64)TIB }, { "tb", (i64)TIB },  { "g", (i64)GIB },
    { "gib", (i64)GIB }, { "gb", (i64)GIB },  { "m", (i64)MIB },   { "mib", (i64)MIB },
    { "mb", (i64)MIB },  { "k", (i64)KIB },   { "kib", (i64)KIB }, { "kb", (i64)KIB },
    { "b", 1 },
};
/* In microseconds. */
static const struct unit time_units[] = {
    { "d", 86400000000 }, { "h", 3600000000 }, { "m", 60000000 }, { "min", 60000000 },
    { "s", 1000000 },     { "ms", 1000 },      { "us", 1 },
};

void config_why(char *why, size_t why_size, const char *fmt, ...)
{
    if (why_size == 0)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, why_size, fmt, ap);
    va_end(ap);
}

static i64 type_unit_us(enum config_type t)
{
    switch ((int)t) {
    case CONFIG_US:
        return 1;
    case CONFIG_MS:
        return 1000;
    case CONFIG_SEC:
        return 1000000;
    case CONFIG_MIN:
        return 60000000;
    case CONFIG_HOURS:
        return 3600000000;
    default:
        return 0;
    }
}

u32 config_choice_count(const char *choices)
{
    u32 n = 1;
    for (const char *p = choices; *p; p++)
        n += *p == '|';
    return n;
}

const char *config_choice(const char *choices, u32 i, size_t *len)
{
    for (; i > 0; i--) {
        choices = strchr(choices, '|');
        CHECK(choices != NULL);
        choices++;
    }
    *len = strcspn(choices, "|");
    return choices;
}

i64 config_choice_find(const char *choices, const char *s, size_t len)
{
    u32 n = config_choice_count(choices);
    for (u32 i = 0; i < n; i++) {
        size_t clen;
        const char *c = config_choice(choices, i, &clen);
        if (clen == len && memcmp(c, s, len) == 0)
            return i;
    }
    return -1;
}

/* A whole number at *p; false when there is none or it does not fit. Moves *p past it. */
static bool parse_digits(const char **p, i64 *out)
{
    const char *s = *p;
    bool negative = *s == '-';
    if (*s == '-' || *s == '+')
        s++;
    if (!isdigit((unsigned char)*s))
        return false;
    i64 v = 0;
    for (; isdigit((unsigned char)*s); s++) {
        int digit = *s - '0';
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, negative ? -digit : digit, &v))
            return false;
    }
    *p = s;
    *out = v;
    return true;
}

static const struct unit *unit_find(const struct unit *units, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(units[i].name, name) == 0)
            return &units[i];
    return NULL;
}

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

/* Digits and a unit of the type. */
static bool parse_number(enum config_type type, const char *text, i64 *out)
{
    const char *p = text;
    if (!parse_digits(&p, out))
        return false;
    p = skip_blanks(p);
    if (*p == '\0')
        return true;
    if (*out < 0)
        return false; /* negative numbers have meanings of their own; a unit makes no sense */
    if (type == CONFIG_SIZE) {
        const struct unit *u = unit_find(size_units, ARRAY_COUNT(size_units), p);
        return u && !__builtin_mul_overflow(*out, u->factor, out);
    }
    i64 base = type_unit_us(type);
    const struct unit *u = base ? unit_find(time_units, ARRAY_COUNT(time_units), p) : NULL;
    if (!u)
        return false;
    if (u->factor >= base)
        return !__builtin_mul_overflow(*out, u->factor / base, out);
    if (*out % (base / u->factor) != 0)
        return false; /* would lose digits */
    *out /= base / u->factor;
    return true;
}

/* "25%" of the memory there is, as much of it as the key may take. */
static bool parse_memory_part(const struct config_def *def, const char *text, i64 *out)
{
    const char *p = text;
    i64 percent;
    if (!parse_digits(&p, &percent) || strcmp(p, "%") != 0 || percent < 0 || percent > 100)
        return false;
    i64 part = (i64)(mem_machine_bytes() / MIB * (u64)percent / 100 * MIB);
    *out = MIN(MAX(part, def->min), def->max);
    return true;
}

/* "0.25" to millionths; at most six decimals count. */
static bool parse_ratio(const char *text, i64 *out)
{
    const char *p = text;
    i64 whole = 0;
    if (*p != '.' && !parse_digits(&p, &whole))
        return false;
    if (*text == '-' || whole > 1000)
        return false;
    i64 v = whole * CONFIG_RATIO_ONE;
    if (*p == '.') {
        i64 scale = CONFIG_RATIO_ONE / 10;
        for (p++; isdigit((unsigned char)*p); p++, scale /= 10)
            v += (*p - '0') * scale;
    }
    if (*p != '\0' || p == text)
        return false;
    *out = v;
    return true;
}

static bool parse_bool(const char *text, i64 *out)
{
    static const char *const yes[] = { "true", "yes", "on", "1" };
    static const char *const no[] = { "false", "no", "off", "0" };
    for (size_t i = 0; i < ARRAY_COUNT(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *out = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* Comma-separated choices to bits; a choice named twice is refused, as Kafka does. */
static bool parse_list(const char *choices, const char *text, i64 *out)
{
    i64 bits = 0;
    const char *p = skip_blanks(text);
    while (*p) {
        size_t len = strcspn(p, ",");
        size_t trimmed = len;
        while (trimmed > 0 && (p[trimmed - 1] == ' ' || p[trimmed - 1] == '\t'))
            trimmed--;
        i64 i = config_choice_find(choices, p, trimmed);
        if (i < 0 || (bits & ((i64)1 << i)))
            return false;
        bits |= (i64)1 << i;
        p += len;
        if (*p != ',')
            break;
        p = skip_blanks(p + 1);
        if (*p == '\0')
            return false; /* a comma at the end */
    }
    *out = bits;
    return true;
}

static err refuse(const struct config_def *def, const char *text, char *why, size_t why_size)
{
    const char *form = def->type == CONFIG_SIZE    ? "a size like 8m, 1g or 25% (of memory)"
                       : def->type == CONFIG_BOOL  ? "true or false"
                       : def->type == CONFIG_RATIO ? "a number from 0 to 1"
                       : def->choices              ? def->choices
                       : type_unit_us(def->type)   ? "a duration like 500ms or 10s"
                                                   : "a whole number";
    config_why(why, why_size, "%s: \"%.200s\" is not %s%s", def->name, text,
               def->type == CONFIG_LIST   ? "a list of "
               : def->type == CONFIG_ENUM ? "one of "
                                          : "",
               form);
    return ERR_INVALID_CONFIG;
}

static err check_range(const struct config_def *def, const char *text, i64 v, char *why,
                       size_t why_size)
{
    if (v >= def->min && v <= def->max)
        return ERR_NONE;
    char lo[CONFIG_VALUE_SIZE], hi[CONFIG_VALUE_SIZE];
    config_format(def, def->min, true, lo, sizeof lo);
    config_format(def, def->max, true, hi, sizeof hi);
    config_why(why, why_size, "%s: %.200s is out of range, it must be from %s to %s", def->name,
               text, lo, hi);
    return ERR_INVALID_CONFIG;
}

err config_parse(const struct config_def *def, const char *text, i64 *out, char *why,
                 size_t why_size)
{
    CHECK(config_is_number(def->type));
    text = skip_blanks(text);
    if (*text == '\0' && *def->def == '\0' && def->type != CONFIG_LIST) {
        *out = CONFIG_UNSET;
        return ERR_NONE;
    }
    bool ok = true, ranged = false;
    i64 v = 0;
    switch (def->type) {
    case CONFIG_BOOL:
        ok = parse_bool(text, &v);
        break;
    case CONFIG_ENUM:
        v = config_choice_find(def->choices, text, strlen(text));
        ok = v >= 0;
        break;
    case CONFIG_LIST:
        ok = parse_list(def->choices, text, &v);
        break;
    case CONFIG_RATIO:
        ok = parse_ratio(text, &v);
        ranged = true;
        break;
    case CONFIG_SIZE:
        ok = parse_memory_part(def, text, &v) || parse_number(def->type, text, &v);
        ranged = true;
        break;
    case CONFIG_INT:
    case CONFIG_US:
    case CONFIG_MS:
    case CONFIG_SEC:
    case CONFIG_MIN:
    case CONFIG_HOURS:
        ok = parse_number(def->type, text, &v);
        ranged = true;
        break;
    case CONFIG_STRING:
    case CONFIG_PASSWORD:
        CHECK(false);
    }
    if (!ok)
        return refuse(def, text, why, why_size);
    err e = ranged ? check_range(def, text, v, why, why_size) : ERR_NONE;
    if (!e)
        *out = v;
    return e;
}

static void format_units(const struct unit *units, size_t count, i64 scale, i64 v, char *buf,
                         size_t size)
{
    for (size_t i = 0; i < count && v > 0; i++) {
        i64 f = units[i].factor / scale;
        bool whole = v % MAX(f, 1) == 0 || (PLANTED(PLANT_CONFIG_ROUND) && v > (i64)MIB);
        if (f > 0 && whole && units[i].factor % scale == 0) {
            if (units[i].factor == 1 && scale == 1 && units == size_units)
                break; /* plain bytes carry no unit */
            snprintf(buf, size, "%" PRId64 "%s", v / f, units[i].name);
            return;
        }
    }
    snprintf(buf, size, "%" PRId64, v);
}

static void format_ratio(i64 v, char *buf, size_t size)
{
    int n =
        snprintf(buf, size, "%" PRId64 ".%06" PRId64, v / CONFIG_RATIO_ONE, v % CONFIG_RATIO_ONE);
    /* "0.500000" → "0.5", as Kafka prints doubles. */
    while (n > 0 && (size_t)n < size && buf[n - 1] == '0' && buf[n - 2] != '.')
        buf[--n] = '\0';
}

static void format_choices(const struct config_def *def, i64 v, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (u32 i = 0; i < config_choice_count(def->choices); i++) {
        bool on = def->type == CONFIG_LIST ? (v >> i) & 1 : v == (i64)i;
        size_t len;
        const char *c = config_choice(def->choices, i, &len);
        if (on && used < size)
            used +=
                (size_t)snprintf(buf + used, size - used, "%s%.*s", used ? "," : "", (int)len, c);
    }
}

const char *config_format(const struct config_def *def, i64 v, bool human, char *buf, size_t size)
{
    CHECK(size > 0 && config_is_number(def->type));
    if (v == CONFIG_UNSET)
        buf[0] = '\0';
    else if (def->type == CONFIG_BOOL)
        snprintf(buf, size, "%s", v ? "true" : "false");
    else if (def->type == CONFIG_ENUM || def->type == CONFIG_LIST)
        format_choices(def, v, buf, size);
    else if (def->type == CONFIG_RATIO)
        format_ratio(v, buf, size);
    else if (!human || def->type == CONFIG_INT || v == INT64_MAX || v == INT32_MAX)
        snprintf(buf, size, "%" PRId64, v);
    else if (def->type == CONFIG_SIZE)
        format_units(size_units, ARRAY_COUNT(size_units), 1, v, buf, size);
    else
        format_units(time_units, ARRAY_COUNT(time_units), type_unit_us(def->type), v, buf, size);
    return buf;
}

bool config_split_address(const char *text, char *host, size_t host_size, u16 *port)
{
    const char *colon = strrchr(text, ':');
    if (!colon)
        return false;
    const char *start = text;
    size_t len = (size_t)(colon - text);
    if (*text == '[') {
        if (len < 2 || text[len - 1] != ']')
            return false;
        start++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return false; /* an IPv6 address needs its brackets */
    }
    const char *p = colon + 1;
    i64 v;
    if (len >= host_size || *p == '+' || *p == '-' || !parse_digits(&p, &v) || *p || v > UINT16_MAX)
        return false;
    memcpy(host, start, len);
    host[len] = '\0';
    *port = (u16)v;
    return true;
}
