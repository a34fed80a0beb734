/* SPDX-License-Identifier: MIT */
/*
 * Packed products with baseline NEON: packed_template.h over smull and sadalp. Codes are signed
 * bytes: those that use all eight bits less their offset of 128. Products of at most 128 * 127 fit
 * 16 bits, and are added in pairs to 32 bits, two rows to a register.
 */
#include "kernels/arm/lanes_neon.h"
#include "kernels/arm/packed_neon.h"

INLINE ints_t tile_start(int32_t start, code_width_t width)
{
    return vdupq_n_s32(width == CODES_WIDE ? FERRUM_PACKED_MAGIC_BITS : start);
}

INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, ints_t sums[TILE][PARTS])
{
    EACH_PART(p)
    {
        int32x4_t low[TILE], high[TILE];
        UNROLL for (int t = 0; t < tokens; t++) low[t] = high[t] = vdupq_n_s32(0);
        UNROLL for (int s = first; s < first + count; s++)
        {
            codes_t v = codes_load(codes + s * VECTOR + p * PART_BYTES);
            if (width == CODES_WIDE)
                v = codes_flip(v);
            const int8x16_t code = vreinterpretq_s8_u8(v);
            UNROLL for (int t = 0; t < tokens; t++)
            {
                const int8x16_t word = word_at(x[t] + 4 * s);
                low[t] = vpadalq_s16(low[t], vmull_s8(vget_low_s8(code), vget_low_s8(word)));
                high[t] = vpadalq_s16(high[t], vmull_high_s8(code, word));
            }
        }
        UNROLL for (int t = 0; t < tokens; t++) sums[t][p] =
            vaddq_s32(sums[t][p], vpaddq_s32(low[t], high[t]));
    }
}

#define PACKED_PRODUCT ferrum_packed_product_neon
#include "kernels/packed_template.h"
