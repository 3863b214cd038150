/* A node that is recovered from what an object store may hold (leat --recover-from). The store of
 * a node that was used (world_base.c) is changed, the disk is lost: the recovery must refuse with a
 * reason, or bring back something that a node then refuses with a reason, or serves: every
 * partition is read, every group described, new data taken. A store that was not changed must come
 * back.
 *
 * Byte 0: the state (bits 0-1, 3 as 0), one or two shards (bit 2), --force (bit 3), what is lost
 * and changed (bits 4-5; 6: read-only):
 *     0  all but the store; changes are of its objects, those below m/ too
 *     1  the same, but changes of the metadata are, too, and a snapshot of what they lead to is in
 *        the store in place of all that was there below m/: damage whose checksums are right
 *     2  the log only
 *     3  the log; the metadata is that of a recovery which was not finished
 * Byte 1: the seed. Then changes (damage.h). */
#include <string.h>

#include "../../storage/backup_format.h"
#include "damage.h"
#include "recovery.h"
#include "store.h"
#include "visitor.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed);

enum { LOST_ALL, LOST_ALL_SOUND, LOST_LOG, LOST_LOG_HALFWAY };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    world_init();
    return 0;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed)
{
    return damage_mutate(data, len, len_max, seed);
}

/* ---- a snapshot of what the metadata is now ---- */

static u32 newest_epoch(void)
{
    const char *name;
    struct bytes data;
    struct backup_name n;
    u32 epoch = 1;
    for (u32 i = 0; store_object_at(i, &name, &data); i++)
        if (backup_name_parse(name, &n))
            epoch = MAX(epoch, n.epoch);
    return epoch;
}

static bool is_of_snapshots(const char *name)
{
    struct backup_name n;
    return backup_name_parse(name, &n) && n.kind != BACKUP_CLAIM && n.kind != BACKUP_ALIVE;
}

static void old_ones_go(void)
{
    const char *name;
    struct bytes data;
    struct store *s;
    char why[100], copy[64];
    if (store_open("sim://x", NULL, &s, why, sizeof why) != ERR_NONE)
        return;
    for (u32 i = 0; store_object_at(i, &name, &data);) {
        if (!is_of_snapshots(name)) {
            i++;
            continue;
        }
        snprintf(copy, sizeof copy, "%s", name);
        err e = s->driver->remove(s, copy);
        CHECK(e == ERR_NONE);
    }
    s->driver->close(s);
}

static void object_put(struct backup_buf *b, struct backup_head h)
{
    char name[BACKUP_NAME_SIZE];
    backup_name(name,
                (struct backup_name){ h.kind, h.epoch, h.kind == BACKUP_PART ? h.part : 0, h.seq });
    store_object_put(name, backup_buf_end(b, h));
    backup_buf_free(b);
}

static void snapshot_put(void)
{
    struct bytes key, value;
    struct backup_buf b = { 0 };
    struct backup_head h = { .kind = BACKUP_PART, .epoch = newest_epoch() };
    for (u32 i = 0; meta_pair_at(i, &key, &value); i++) {
        struct meta_op op = { META_PUT, key, value };
        if (key.len > 0 && key.len <= META_KEY_MAX)
            backup_buf_add(&b, &op);
    }
    object_put(&b, h);
    h.kind = BACKUP_END;
    h.part = 1;
    object_put(&b, h);
}

/* ---- lives ---- */

static void time_passes(u64 ns)
{
    sim.now_ns += ns;
}

static void lose(u32 what)
{
    disk_forget();
    if (what == LOST_ALL_SOUND) {
        old_ones_go();
        snapshot_put();
    }
    if (what == LOST_ALL || what == LOST_ALL_SOUND)
        meta_forget();
    if (what == LOST_LOG_HALFWAY)
        meta_pair_put(bytes_str(RECOVERY_KEY), bytes_str("1"));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    char why[1200];
    if (size < 2)
        return 0;
    world_begin(data[1] & 3, 1 + (data[0] >> 2 & 1));
    world_put(world_bases[(data[0] & 3) % BASE_COUNT]);
    if (data[0] & 64)
        sim.cfg->values[CFG_store_readonly] = true;
    damage_frames_find();
    damage_apply(data + 2, data + size);
    lose(data[0] >> 4 & 3);
    bool orderly = true;
    enum life_end end = recover_run(time_passes, data[0] & 8, why, sizeof why);
    CHECK((end == LIFE_REFUSED) == (why[0] != 0));
    if (end != LIFE_STOPPED && size == 2)
        sim_fail("refused though nothing is damaged: %s", why);
    if (end == LIFE_STOPPED) {
        orderly = visitor_life();
        if (!orderly && size == 2)
            sim_fail("refused after a recovery of what is sound: %s", world_why);
    }
    visitor_forget();
    world_end(orderly && end != LIFE_KILLED);
    return 0;
}
