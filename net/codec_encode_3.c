/* Sizes and encoders of part 3 of the schema; the work is in codec_encode_int.h. */
#include "codec.h"
#define CODEC_PART 3
#include "codec_encode_int.h"
