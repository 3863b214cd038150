/* Where objects and metadata lie: scheme://path?key=value&... At start only. */
#ifndef LEAT_PLACE_H
#define LEAT_PLACE_H

#include "base.h"

bool place_has_scheme(const char *url, const char *scheme);
/* What lies between scheme and query, without slashes at its end; the caller frees it. */
char *place_path(const char *url) __attribute__((returns_nonnull));
/* The value of a key of the query up to the end of the URL, or NULL when the key is not there. */
const char *place_option(const char *url, const char *key);
/* The folder and all its parents. 0 or errno. */
int place_make_folders(const char *path, u32 mode);

#endif
