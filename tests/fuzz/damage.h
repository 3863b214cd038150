/* Changes of what lies on the simulated disk and in the stores, as a fuzz input tells them, each
 *     u8 kind (bits 0-3) and whether checksums are made right behind it (bit 7)
 *     u8 which one (modulo how many there are), u16 position, u8 length, bytes
 * Kinds: 0, 1 a frame of the WAL; 2 the superblock; 3 the WAL at 64 times the position;
 * 4, 5 a value of the metadata; 6 its length becomes the position; 7 the key is gone; 8 its value
 * becomes that of the key at the position; 9 a new key (the bytes up to the first 0; "d/": the note
 * about an object) and its value;
 * 10, 11 an object; 12 its length becomes the position; 13 it is gone; 14 the record of a batch
 * in a frame, from behind its header on; 15 a frame is copied over the one at the position. */
#ifndef LEAT_FUZZ_DAMAGE_H
#define LEAT_FUZZ_DAMAGE_H

#include "base.h"

/* Looks for the frames that later changes are of. */
void damage_frames_find(void);
void damage_apply(const u8 *p, const u8 *end);
/* For LLVMFuzzerCustomMutator, of inputs whose changes begin at byte 2: a change more, a change
 * less, or a mutation of any kind. */
size_t damage_mutate(u8 *data, size_t len, size_t len_max, unsigned seed);

#endif
