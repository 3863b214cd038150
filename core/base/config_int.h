/* Private to config*.c. */
#ifndef LEAT_CONFIG_INT_H
#define LEAT_CONFIG_INT_H

#include "config.h"

/* Writes a sentence for the caller of a config function; cut when long. */
void config_why(char *why, size_t why_size, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* config_find; ERR_NOT_FOUND with the nearest name in why. */
err config_find_or_why(const char *name, enum config_key *key, char *why, size_t why_size);
/* Do the values fit together? */
err config_agrees(const struct config *cfg, char *why, size_t why_size) MUST_USE;
/* The effective value of a key that is no string. */
void config_store(struct config *cfg, enum config_key k, i64 v, enum config_source source);
/* What the default of a key is here, and its effective value; for a key that is at its default. */
void config_store_default(struct config *cfg, enum config_key k, i64 v);
/* Bytes that wal.size must have with these segments. */
i64 config_log_least(const struct config *cfg);
/* Is this type held as a number? */
static inline bool config_is_number(enum config_type t)
{
    return t != CONFIG_STRING && t != CONFIG_PASSWORD;
}
/* Number of choices in "a|b|c". */
u32 config_choice_count(const char *choices);
/* The i-th choice: its start, its length in *len. */
const char *config_choice(const char *choices, u32 i, size_t *len);
/* Index of the choice that equals s[0..len), or -1. */
i64 config_choice_find(const char *choices, const char *s, size_t len);

#endif
