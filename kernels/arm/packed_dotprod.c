/* SPDX-License-Identifier: MIT */
/* Packed products with the dot products of ARMv8.2: packed_template.h over sdot. Codes are signed
 * bytes: those that use all eight bits less their offset of 128. */
#include "kernels/arm/lanes_neon.h"
#include "kernels/arm/packed_neon.h"

INLINE ints_t tile_start(int32_t start, code_width_t width)
{
    return vdupq_n_s32(width == CODES_WIDE ? FERRUM_PACKED_MAGIC_BITS : start);
}

INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, ints_t sums[TILE][PARTS])
{
    UNROLL for (int s = first; s < first + count; s++)
    {
        int8x16_t v[PARTS];
        EACH_PART(p)
        {
            const codes_t code = codes_load(codes + s * VECTOR + p * PART_BYTES);
            v[p] = vreinterpretq_s8_u8(width == CODES_WIDE ? codes_flip(code) : code);
        }
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const int8x16_t word = word_at(x[t] + 4 * s);
            EACH_PART(p) sums[t][p] = vdotq_s32(sums[t][p], v[p], word);
        }
    }
}

#define PACKED_PRODUCT ferrum_packed_product_dotprod
#include "kernels/packed_template.h"
