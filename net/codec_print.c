/* Printing of messages as one line of JSON-like text, for logs, dumps and tests: the fields that
 * the version carries, in the order of the schema. Expanded from messages/all.def. */
#include <inttypes.h>
#include <stdio.h>

#include "check.h"
#include "codec_int.h"

/* Printing is never hot: small code matters more. */
#define NOINLINE __attribute__((noinline))

/* Output cut at cap; `len` goes on counting. */
struct text {
    char *buf;
    u32 cap;
    u64 len;
    bool first; /* no comma before the next member */
};

static NOINLINE void text_put(struct text *t, const char *s, size_t n)
{
    if (t->len < t->cap) {
        size_t room = t->cap - (size_t)t->len;
        memcpy(t->buf + t->len, s, MIN(n, room));
    }
    t->len += n;
}

static NOINLINE void text_puts(struct text *t, const char *s)
{
    text_put(t, s, strlen(s));
}

static NOINLINE void text_name(struct text *t, const char *name)
{
    text_puts(t, t->first ? "\"" : ",\"");
    text_puts(t, name);
    text_puts(t, "\":");
    t->first = false;
}

static NOINLINE void text_string(struct text *t, struct bytes b)
{
    if (!b.data) {
        text_puts(t, "null");
        return;
    }
    text_puts(t, "\"");
    for (u32 i = 0; i < b.len; i++) {
        u8 c = b.data[i];
        char esc[8];
        int n;
        if (c == '"' || c == '\\')
            n = snprintf(esc, sizeof esc, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            n = snprintf(esc, sizeof esc, "\\u%04x", c);
        else
            n = snprintf(esc, sizeof esc, "%c", c);
        text_put(t, esc, (size_t)n);
    }
    text_puts(t, "\"");
}

static NOINLINE void text_hex(struct text *t, struct bytes b)
{
    static const char digits[] = "0123456789abcdef";
    if (!b.data) {
        text_puts(t, "null");
        return;
    }
    text_puts(t, "\"");
    for (u32 i = 0; i < b.len; i++) {
        char two[2] = { digits[b.data[i] >> 4], digits[b.data[i] & 15] };
        text_put(t, two, 2);
    }
    text_puts(t, "\"");
}

static void text_boolean(struct text *t, bool v)
{
    text_puts(t, v ? "true" : "false");
}

static void text_i64(struct text *t, i64 v)
{
    char s[24];
    text_put(t, s, (size_t)snprintf(s, sizeof s, "%" PRId64, v));
}

static void text_f64(struct text *t, f64 v)
{
    char s[40];
    text_put(t, s, (size_t)snprintf(s, sizeof s, "%.17g", v));
}

static void text_uuid(struct text *t, struct uuid v)
{
    text_hex(t, bytes_of(v.b, sizeof v.b));
}

#define text_i8 text_i64
#define text_i16 text_i64
#define text_u16 text_i64
#define text_i32 text_i64
#define text_u32 text_i64

#define PRINT_value(type, name) text_##type(t, m->name);
#define PRINT_string(type, name) text_string(t, m->name);
#define PRINT_string16(type, name) text_string(t, m->name);
#define PRINT_bytes(type, name) text_hex(t, m->name);
#define PRINT_records(type, name) text_hex(t, m->name);
#define PRINT_struct(type, name) type##_text(t, v, &m->name);
#define PRINT_nullable(type, name)      \
    {                                   \
        if (m->name)                    \
            type##_text(t, v, m->name); \
        else                            \
            text_puts(t, "null");       \
    }
#define PRINT_optional(type, name) PRINT_nullable(type, name)
#define PRINT_ARRAY(name, PRINT_ELEMENT)            \
    {                                               \
        text_puts(t, m->name.n < 0 ? "null" : "["); \
        for (i32 i = 0; i < m->name.n; i++) {       \
            if (i > 0)                              \
                text_puts(t, ",");                  \
            PRINT_ELEMENT;                          \
        }                                           \
        text_puts(t, m->name.n < 0 ? "" : "]");     \
    }
#define PRINT_values(type, name) PRINT_ARRAY(name, text_##type(t, m->name.v[i]))
#define PRINT_strings(type, name) PRINT_ARRAY(name, text_string(t, m->name.v[i]))
#define PRINT_structs(type, name) PRINT_ARRAY(name, type##_text(t, v, &m->name.v[i]))

#define BEGIN(x, flexible_from)                                          \
    static void x##_text(struct text *t, const int v, const struct x *m) \
    {                                                                    \
        (void)v;                                                         \
        (void)m;                                                         \
        text_puts(t, "{");                                               \
        t->first = true;
#define FIELD(kind, type, name, from, to, null_from, dflt) \
    if (CODEC_IN(v, from, to)) {                           \
        text_name(t, #name);                               \
        PRINT_##kind(type, name) t->first = false;         \
    }
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    FIELD(kind, type, name, from, to, null_from, dflt)
#define END(x)         \
    text_puts(t, "}"); \
    t->first = false;  \
    }
#define MESSAGE(x, kafka_name, key, min, max, flexible_from, stability) \
    u32 x##_print(i16 version, const struct x *m, char *buf, u32 cap)   \
    {                                                                   \
        CHECK(cap > 0);                                                 \
        struct text t = { .buf = buf, .cap = cap, .first = true };      \
        x##_text(&t, version, m);                                       \
        buf[MIN(t.len, (u64)cap - 1)] = 0;                              \
        return t.len > UINT32_MAX ? UINT32_MAX : (u32)t.len;            \
    }
#include "all.def"
