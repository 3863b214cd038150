/* Hash tables: Debian's uthash (intrusive, chained, well known), on our allocator.
 * A struct takes part by a `UT_hash_handle hh` member; see uthash's guide. Hash functions
 * need no defence against chosen keys beyond bounded sizes: uthash expands on long chains. */
#ifndef LEAT_HMAP_H
#define LEAT_HMAP_H

#include "mem.h"

#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(ptr, size) mem_free(ptr)
#pragma GCC diagnostic push
#include <uthash.h>
#pragma GCC diagnostic pop

#endif
