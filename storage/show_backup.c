/* leat-show for objects of the metadata's backup (below m/ in the store): verifies and prints. */
#include <stdio.h>

#include "backup_format.h"
#include "show_int.h"

static const char *const kinds[] = {
    "?", "claim", "sign of life", "part of a snapshot", "end of a snapshot", "change set"
};
static const char *const op_names[] = { "put", "delete", "delete all below" };

static void print_op(const struct meta_op *op)
{
    printf("  %-16s ", op_names[op->kind]);
    for (u32 i = 0; i < op->key.len; i++)
        putchar(op->key.data[i] >= ' ' && op->key.data[i] <= '~' ? op->key.data[i] : '?');
    if (op->kind == META_PUT)
        printf("  %u bytes", op->value.len);
    putchar('\n');
}

int show_backup(const char *path, int verbose)
{
    u32 len;
    struct backup_head h;
    struct bytes ops;
    struct meta_op op;
    u8 *raw = show_file_load(path, &len);
    if (raw == NULL)
        return 1;
    err e = backup_decode(bytes_of(raw, len), &h, &ops);
    if (e != ERR_NONE) {
        fprintf(stderr, "%s: %s\n", path, err_text(e));
        mem_free(raw);
        return 1;
    }
    printf("%s: epoch %u, seq %" PRIu64 ", part %u, through %" PRIu64 ", written at %" PRId64
           " ms, %u changes, %u bytes\n",
           kinds[h.kind], h.epoch, h.seq, h.part, h.through, h.time_ms, h.op_count, len);
    while (verbose > 0 && backup_op_next(&ops, &op))
        print_op(&op);
    mem_free(raw);
    return 0;
}
