/* A node that starts on what a disk, an object store and a metadata store may give back. The state
 * of a node that was used (world_base.c) is changed, and a node is started on it: it must refuse
 * with a reason, or serve: every partition is read, every group described, new data taken.
 *
 * Byte 0: the state (bits 0-1), one or two shards (bit 2; the states are of one, so two replays
 * the WAL), bit 3: a second start after it. Byte 1: the seed. Then changes (damage.h). */
#include "damage.h"
#include "visitor.h"
#include "world.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t len, size_t len_max, unsigned seed);

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

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (size < 3)
        return 0;
    world_begin(data[1] & 3, 1 + (data[0] >> 2 & 1));
    world_put(world_bases[(data[0] & 3) % BASE_COUNT]);
    damage_frames_find();
    damage_apply(data + 2, data + size);
    bool orderly = visitor_life();
    if (orderly && (data[0] & 8)) {
        orderly = visitor_life();
        if (!orderly)
            sim_fail("refused after an orderly stop: %s", world_why);
    }
    visitor_forget();
    world_end(orderly);
    return 0;
}
