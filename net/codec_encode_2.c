/* Sizes and encoders of part 2 of the schema; the work is in codec_encode_int.h. */
#include "codec.h"
#define CODEC_PART 2
#include "codec_encode_int.h"
