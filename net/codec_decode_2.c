/* Decoders of part 2 of the schema; the work is in codec_decode_int.h. */
#include "codec.h"
#define CODEC_PART 2
#include "codec_decode_int.h"
