/* SPDX-License-Identifier: MIT */
/* Packed products with the mixed dot products of I8MM: packed_template.h over usdot, which takes
 * unsigned codes as they are. */
#include "kernels/arm/lanes_neon.h"
#include "kernels/arm/packed_neon.h"

INLINE ints_t tile_start(int32_t start, code_width_t width)
{
    (void)width;
    return vdupq_n_s32(start);
}

INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, ints_t sums[TILE][PARTS])
{
    (void)width;
    UNROLL for (int s = first; s < first + count; s++)
    {
        codes_t v[PARTS];
        EACH_PART(p) v[p] = codes_load(codes + s * VECTOR + p * PART_BYTES);
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const int8x16_t word = word_at(x[t] + 4 * s);
            EACH_PART(p) sums[t][p] = vusdotq_s32(sums[t][p], v[p], word);
        }
    }
}

#define PACKED_PRODUCT ferrum_packed_product_i8mm
#include "kernels/packed_template.h"
