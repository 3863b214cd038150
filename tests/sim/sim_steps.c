/* The steps at which a long seed kills the node on purpose. They are recognised from outside, by
 * what the node asks of the object store, the metadata and the disk: nothing in the product knows
 * of them. Each has two sides, just before it takes effect and just behind; so "behind upload" is
 * the moment when an object is there and nobody has registered it.
 *
 * How often each was reached and how often a life ended there is counted over all seeds. */
#include <string.h>

#include "../../storage/backup_format.h"
#include "../../storage/bundle_int.h"
#include "../../storage/wal_format.h"
#include "bg.h"
#include "sim.h"

const char *const sim_step_names[STEPS] = { "none",
#define X(name, what) #name,
                                            SIM_STEPS(X)
#undef X
};

static const char *const texts[STEPS] = { "",
#define X(name, what) what,
                                          SIM_STEPS(X)
#undef X
};

void sim_step(enum sim_step step, enum sim_side side)
{
    if (!sim.running || !sim.kill_allowed || step == STEP_none)
        return;
    STAT(reached[step][side]);
    if (step != sim.kill_step || side != sim.kill_side || --sim.kill_count > 0)
        return;
    STAT(killed[step][side]);
    TRACE("%s the step %s", side == STEP_BEFORE ? "before" : "behind", sim_step_names[step]);
    sim_kill(texts[step]);
}

static bool starts(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* ---- the object store ---- */

enum sim_step step_of_put(const char *name)
{
    struct backup_name n;
    if (starts(name, "b/"))
        return STEP_upload;
    if (starts(name, "r/"))
        return STEP_run;
    if (!backup_name_parse(name, &n))
        return STEP_none;
    return n.kind == BACKUP_CHANGES                        ? STEP_change_set
           : n.kind == BACKUP_PART || n.kind == BACKUP_END ? STEP_snapshot
                                                           : STEP_heartbeat;
}

enum sim_step step_of_remove(const char *name)
{
    return starts(name, "m/") ? STEP_old_snapshot : STEP_remove;
}

enum sim_step step_of_read(void)
{
    return sim.lane == BG_BULK ? STEP_rewrite_read : sim.lane == BG_MISC ? STEP_key_map : STEP_none;
}

enum sim_step step_of_list(const char *prefix)
{
    return starts(prefix, "m/") ? STEP_none : STEP_orphan_list;
}

/* ---- the metadata ---- */

/* A run that compaction by key made says up to where the keys are unique. */
static enum sim_step run_kind(struct bytes registration)
{
    struct bundle_reg reg;
    bool by_key = bundle_reg_decode(registration, &reg) == ERR_NONE && reg.clean_to > 0;
    return by_key ? STEP_compact : STEP_merge;
}

enum sim_step step_of_commit(const struct meta_txn *t)
{
    const struct meta_op *run = NULL;
    u32 puts[128] = { 0 }, deletes[128] = { 0 };
    for (u32 i = 0; i < t->op_count; i++) {
        const struct meta_op *op = &t->ops[i];
        if (op->key.len < 2 || op->key.data[1] != '/')
            continue;
        u32 *count = op->kind == META_PUT ? puts : deletes;
        count[op->key.data[0] & 127]++;
        if (op->kind == META_PUT && op->key.data[0] == 'r')
            run = op;
    }
    if (sim.recovering)
        return STEP_recover;
    if (run && puts['d'] == deletes['r'])
        return run_kind(run->value);
    if (puts['b'] && puts['w'])
        return STEP_register;
    if (deletes['b'] || deletes['r'] || puts['b'] || run)
        return STEP_discard;
    return puts['d']                   ? STEP_orphan
           : deletes['d']              ? STEP_forget
           : puts['p']                 ? STEP_log_start
           : puts['t'] || deletes['t'] ? STEP_topic
           : puts['w']                 ? STEP_log_opens
                                       : STEP_none;
}

/* ---- the disk ---- */

/* A segment begins where an older one lies that was trimmed. */
enum sim_step step_of_write(const u8 *media, const u8 *buf, u64 offset)
{
    struct wal_super s;
    if (offset < WAL_SUPER_BYTES || wal_super_decode(media, &s) != ERR_NONE ||
        (offset - WAL_SUPER_BYTES) % s.segment_bytes != 0)
        return STEP_none;
    const u8 *was = media + offset;
    bool frames = get_le32(was + FRAME_AT_MAGIC) == FRAME_MAGIC &&
                  get_le32(buf + FRAME_AT_MAGIC) == FRAME_MAGIC;
    return frames && get_le64(was + FRAME_AT_LSN) < get_le64(buf + FRAME_AT_LSN) ? STEP_trim
                                                                                 : STEP_none;
}
