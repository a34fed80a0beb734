/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX-VNNI: packed_template.h over vpdpbusd and vpdpwssd on 256-bit registers.
 * Chains of dependent instructions end with a group, so that those of the next one can begin; few
 * tokens are few chains, and have two per token and part.
 */
#include "kernels/x86/lanes_avx2.h"
#include "kernels/x86/packed_avx2.h"

INLINE ints_t tile_start(int32_t start, code_width_t width)
{
    (void)width;
    return _mm256_set1_epi32(start);
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
            const __m256i word = word_at(x[t] + 4 * s);
            EACH_PART(p) sums[t][p] = _mm256_dpbusd_avx_epi32(sums[t][p], v[p], word);
        }
    }
}

INLINE void tile_words(const int16_t *words, const int16_t *const x[TILE], int tokens,
                       ints_t sums[TILE][PARTS])
{
    ints_t group[TILE][PARTS], second[TILE][PARTS];
    UNROLL for (int t = 0; t < tokens; t++) EACH_PART(p) group[t][p] = second[t][p] = ints_zero();
    UNROLL for (int pair = 0; pair < GROUP / 2; pair++)
    {
        ints_t(*const to)[PARTS] = tokens < TILE && pair % 2 ? second : group;
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const __m256i word = word_at(x[t] + 2 * pair);
            EACH_PART(p)
            {
                const __m256i v =
                    _mm256_loadu_si256((const void *)(words + (pair * PARTS + p) * 2 * LANES));
                to[t][p] = _mm256_dpwssd_avx_epi32(to[t][p], v, word);
            }
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) EACH_PART(p)
    {
        if (tokens < TILE)
            group[t][p] = _mm256_add_epi32(group[t][p], second[t][p]);
        sums[t][p] = _mm256_add_epi32(sums[t][p], group[t][p]);
    }
}

#define PACKED_PRODUCT ferrum_packed_product_avxvnni
#include "kernels/packed_template.h"
