/* Two-step deletion. An object that nothing refers to any more is written down as discarded
 * (metadata key d/<object>), in the transaction that takes its last reference away. A grace time
 * later, longer than any reader holds on to what it has looked up, a collector deletes it, and then
 * the note. So every object of the store is named by the metadata at every moment: by its
 * registration (b/, r/) or by a note (d/); what is not is an orphan, which scrub.c finds.
 *
 * Shard threads, unless said otherwise. */
#ifndef LEAT_DISCARD_H
#define LEAT_DISCARD_H

#include "bundle_int.h"

#define DISCARD_VERSION 1u
#define DISCARD_VALUE_BYTES 24u

struct discarded {
    u64 id;
    u32 epoch;
    u64 bytes;    /* of the object; 0: not known */
    i64 since_ms; /* discard_now_ms when nothing referred to it any more */
};

/* Memory of the key and value of a note until its transaction is over. */
struct discard_note {
    char key[META_KEY_SIZE];
    u8 value[DISCARD_VALUE_BYTES];
};
/* The operation that writes the note: goes into the transaction that unreferences the object. Any
 * thread. */
struct meta_op discard_op(struct discard_note *n, const struct discarded *d);
struct bytes discard_key(char *buf, u64 id, u32 epoch); /* buf of META_KEY_SIZE */
/* ERR_MALFORMED: no note; ERR_UNSUPPORTED: of a newer version. Any thread. */
err discard_decode(const struct meta_kv *kv, struct discarded *out) MUST_USE;
/* Is the object registered? Any thread that may ask the metadata. */
err discard_is_registered(struct meta *m, u64 id, u32 epoch, bool *yes) MUST_USE;

/* Time for notes: the wall clock when this life began, and how long it runs. No jump of the clock
 * makes a grace time shorter. */
i64 discard_now_ms(const struct storage *st);
/* An object that this life stored, or tried to, and that never was nor will be registered. If the
 * note can't be written, the object is an orphan of the next life. */
void discard_unregistered(struct storage *st, u64 id, u32 epoch, u64 bytes);

/* The collector of the node, on shard 0; on others only discard_unregistered is there. */
err discard_create(struct storage *st) MUST_USE;
bool discard_idle(const struct storage *st);
void discard_free(struct storage *st);

#endif
