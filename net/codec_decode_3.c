/* Decoders of part 3 of the schema; the work is in codec_decode_int.h. */
#include "codec.h"
#define CODEC_PART 3
#include "codec_decode_int.h"
