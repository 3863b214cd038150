/* Private to config*.c. */
#ifndef LEAT_CONFIG_INT_H
#define LEAT_CONFIG_INT_H

#include "config.h"

/* Writes a sentence for the caller of a config function; cut when long. */
void config_why(char *why, size_t why_size, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Is this type held as a number? */
static inline bool config_is_number(enum config_type t)
{
    return t != CONFIG_STRING;
}
/* Number of choices in "a|b|c". */
u32 config_choice_count(const char *choices);
/* The i-th choice: its start, its length in *len. */
const char *config_choice(const char *choices, u32 i, size_t *len);
/* Index of the choice that equals s[0..len), or -1. */
i64 config_choice_find(const char *choices, const char *s, size_t len);

#endif
