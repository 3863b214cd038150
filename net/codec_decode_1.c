/* Decoders of part 1 of the schema; the work is in codec_decode_int.h. */
#include "codec.h"
#define CODEC_PART 1
#include "codec_decode_int.h"
