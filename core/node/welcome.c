/* What a person at a terminal is told when the node is ready; see node.h. Logs tell the same to
 * machines. */
#include <stdio.h>
#include <string.h>

#include "../broker/broker_int.h"
#include "node.h"
#include "version.h"

/* Names of "name=yes" (or of "name=no") among the words of io_features. */
static void print_features(FILE *out, const char *text, const char *value)
{
    size_t value_len = strlen(value);
    for (const char *at = text; *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        if (len > value_len && strncmp(at + len - value_len, value, value_len) == 0)
            fprintf(out, " %.*s", (int)(len - value_len), at);
        at += len;
    }
}

static void print_kernel(FILE *out, const char *features)
{
    const char *kernel = strstr(features, "kernel=");
    size_t len = kernel ? strcspn(kernel += strlen("kernel="), " ") : 0;
    fprintf(out, "  kernel   %.*s, io_uring with", (int)len, kernel ? kernel : "");
    print_features(out, features, "=yes");
    if (strstr(features, "=no ")) {
        fputs("\n           without", out);
        print_features(out, features, "=no");
    }
    fputc('\n', out);
}

static void print_try(const struct node *n, FILE *out)
{
    const char *v6 = strchr(n->host, ':') ? "[" : "";
    char at[300];
    snprintf(at, sizeof at, "%s%s%s:%u", v6, n->host, *v6 ? "]" : "", n->ports[0]);
    fprintf(out,
            "Try it in another terminal:\n\n"
            "  echo hello | kcat -b %s -t test -P\n"
            "  kcat -b %s -t test -C -o beginning -e\n\n"
            "Ctrl-C stops it; what was acknowledged is there at the next start.\n\n",
            at, at);
}

void node_welcome(const struct node *n, u64 took_ms, FILE *out)
{
    char size[CONFIG_VALUE_SIZE], memory[CONFIG_VALUE_SIZE];
    const struct config *cfg = n->cfg;
    const char *admin = config_str(cfg, CFG_admin_listen);
    fprintf(out, "\nLeat " LEAT_VERSION " is ready at %s after %" PRIu64 " ms.\n\n",
            config_str(cfg, CFG_net_listen), took_ms);
    print_kernel(out, io_features(n->brokers[0]->shard.io)->text);
    fprintf(out, "  shards   %u, up to %s of memory for segments\n", n->group.count,
            config_text(cfg, CFG_memory_budget, true, memory, sizeof memory));
    if (config_wal_in_memory(cfg))
        fprintf(out, "  log      in memory: records are acknowledged by the store\n");
    else
        fprintf(out, "  log      %s, %s%s\n", config_str(cfg, CFG_wal_path),
                config_text(cfg, CFG_wal_size, true, size, sizeof size),
                config_source(cfg, CFG_wal_size) == CONFIG_DEFAULT
                    ? " (wal.size is not set: at most a tenth of the disk)"
                    : "");
    fprintf(out, "  store    %s\n", config_str(cfg, CFG_store_url));
    if (*admin)
        fprintf(out, "  admin    http://%s (leatctl status)\n", admin);
    fputc('\n', out);
    print_try(n, out);
    fflush(out);
}
