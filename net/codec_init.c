/* X_init of every struct: all members to their defaults. Expanded from messages/all.def. */
#include "codec_int.h"

const u8 codec_empty[1];

#define BEGIN(x, flexible_from) \
    void x##_init(struct x *m)  \
    {                           \
        (void)m;
#define FIELD(kind, type, name, from, to, null_from, dflt) CODEC_INIT_##kind(m, type, name, dflt)
#define TAGGED(tag, kind, type, name, from, to, null_from, dflt) \
    CODEC_INIT_##kind(m, type, name, dflt)
#define END(x) }
#include "all.def"
