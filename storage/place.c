/* See place.h. */
#include "place.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "bytes.h"
#include "check.h"
#include "mem.h"

bool place_has_scheme(const char *url, const char *scheme)
{
    size_t len = strlen(scheme);
    return strncmp(url, scheme, len) == 0 && strncmp(url + len, "://", 3) == 0;
}

char *place_path(const char *url)
{
    const char *path = strstr(url, "://");
    CHECK(path != NULL);
    path += 3;
    size_t len = strcspn(path, "?");
    while (len > 1 && path[len - 1] == '/')
        len--;
    return mem_strndup(bytes_of(path, (u32)len));
}

const char *place_option(const char *url, const char *key)
{
    size_t len = strlen(key);
    const char *at = strchr(url, '?');
    for (; at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, key, len) == 0 && at[1 + len] == '=')
            return at + len + 2;
    return NULL;
}

int place_make_folders(const char *path, u32 mode)
{
    char *whole = mem_strndup(bytes_str(path));
    int rc = *whole ? 0 : ENOENT;
    for (char *p = whole; rc == 0 && *p; p++) {
        char next = p[1];
        if (next != '/' && next != '\0')
            continue;
        p[1] = '\0';
        rc = mkdir(whole, mode) == 0 || errno == EEXIST ? 0 : errno;
        p[1] = next;
    }
    mem_free(whole);
    return rc;
}
