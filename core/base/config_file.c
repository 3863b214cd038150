/* Configuration files: sysctl's grammar, line by line, from a file, a directory or memory. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "config_int.h"
#include "log.h"
#include "mem.h"

/* Far above any real file; keeps a wrong path (a device, a log) from being swallowed whole. */
#define FILE_BYTES_MAX ((size_t)MIB)
#define DIR_FILES_MAX 1000

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct bytes trim(const char *s, size_t len)
{
    while (len > 0 && is_blank(*s)) {
        s++;
        len--;
    }
    while (len > 0 && is_blank(s[len - 1]))
        len--;
    return bytes_of(s, (u32)len);
}

/* Splits "key = value" and sets it. */
static err set_line(struct config *cfg, struct bytes line, enum config_source source, char *why,
                    size_t why_size)
{
    const char *s = (const char *)line.data;
    const char *equals = memchr(s, '=', line.len);
    if (!equals || memchr(s, '\0', line.len)) {
        config_why(why, why_size, "expected key = value");
        return ERR_INVALID_CONFIG;
    }
    char *key = mem_strndup(trim(s, (size_t)(equals - s)));
    char *value = mem_strndup(trim(equals + 1, line.len - (size_t)(equals + 1 - s)));
    err e = config_set(cfg, key, value, source, why, why_size);
    mem_free(key);
    mem_free(value);
    return e;
}

err config_set_pair(struct config *cfg, const char *pair, enum config_source source, char *why,
                    size_t why_size)
{
    size_t len = strlen(pair);
    if (len > FILE_BYTES_MAX) {
        config_why(why, why_size, "too long");
        return ERR_INVALID_CONFIG;
    }
    return set_line(cfg, trim(pair, len), source, why, why_size);
}

err config_load_text(struct config *cfg, const char *name, const char *text, size_t len, char *why,
                     size_t why_size)
{
    u32 line_number = 0;
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        size_t line_len = end ? (size_t)(end - text) : len;
        struct bytes line = trim(text, line_len);
        line_number++;
        text += line_len + (end != NULL);
        len -= line_len + (end != NULL);
        if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
            continue;
        bool lenient = line.data[0] == '-';
        if (lenient)
            line = trim((const char *)line.data + 1, line.len - 1);
        char reason[512];
        err e = set_line(cfg, line, CONFIG_FILE, reason, sizeof reason);
        if (e && lenient) {
            LOG(WARN, config_line_ignored, "file=%s line=%u why=\"%s\"", name, line_number, reason);
        } else if (e) {
            config_why(why, why_size, "%s:%u: %s", name, line_number, reason);
            return e;
        }
    }
    return ERR_NONE;
}

err config_load_file(struct config *cfg, const char *path, char *why, size_t why_size)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        err e = err_from_errno(errno);
        config_why(why, why_size, "%s: %s", path, strerror(errno));
        return e;
    }
    char *text = mem_alloc(FILE_BYTES_MAX + 1);
    size_t len = fread(text, 1, FILE_BYTES_MAX + 1, f);
    err e = ERR_NONE;
    if (ferror(f)) {
        config_why(why, why_size, "%s: it cannot be read", path);
        e = ERR_IO;
    } else if (len > FILE_BYTES_MAX) {
        config_why(why, why_size, "%s: larger than 1 MiB, this is no configuration", path);
        e = ERR_INVALID_CONFIG;
    } else {
        e = config_load_text(cfg, path, text, len, why, why_size);
    }
    mem_free(text);
    fclose(f);
    return e;
}

static bool is_conf_file(const char *name)
{
    size_t len = strlen(name);
    return name[0] != '.' && len > 5 && strcmp(name + len - 5, ".conf") == 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of the directory's *.conf files, sorted; returns how many. The caller frees them. */
static u32 list_conf_files(DIR *dir, char *names[DIR_FILES_MAX])
{
    u32 count = 0;
    for (struct dirent *d; count < DIR_FILES_MAX && (d = readdir(dir));)
        if (is_conf_file(d->d_name))
            names[count++] = mem_strndup(bytes_str(d->d_name));
    qsort(names, count, sizeof names[0], compare_names);
    return count;
}

err config_load_dir(struct config *cfg, const char *path, char *why, size_t why_size)
{
    DIR *dir = opendir(path);
    if (!dir) {
        if (errno == ENOENT)
            return ERR_NONE;
        err denied = err_from_errno(errno);
        config_why(why, why_size, "%s: %s", path, strerror(errno));
        return denied;
    }
    char *names[DIR_FILES_MAX];
    u32 count = list_conf_files(dir, names);
    closedir(dir);
    err e = ERR_NONE;
    for (u32 i = 0; i < count; i++) {
        char file[PATH_MAX];
        int n = snprintf(file, sizeof file, "%s/%s", path, names[i]);
        if (!e && n > 0 && (size_t)n < sizeof file)
            e = config_load_file(cfg, file, why, why_size);
        mem_free(names[i]);
    }
    return e;
}
