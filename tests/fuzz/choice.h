/* Targets of several parts: the first byte of an input chooses one, the rest is for it. */
#ifndef LEAT_FUZZ_CHOICE_H
#define LEAT_FUZZ_CHOICE_H

#include "base.h"

/* Runs part `choice` (below count) on a copy that ends where its block of memory does, so that the
 * sanitizer sees every byte read beyond, and that may be changed. Empty inputs and those over a
 * megabyte are passed over. Returns 0, as LLVMFuzzerTestOneInput must. */
int fuzz_choice(const u8 *in, size_t size, u32 count, void (*run)(u32 choice, u8 *p, u32 len));

#endif
