/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX2, exact although vpmaddubsw saturates at 16 bits: it adds two products,
 * each at most code * 127, and
 *   NARROW  8 * 2 * 15 * 127 = 30480: a whole group fits 16 bits;
 *   MEDIUM  2 * 2 * 63 * 127 = 32004: two steps fit;
 *   WIDE    is cut into two nibbles, each NARROW, of which the high one is weighted with 16.
 * vpmaddwd with ones (or sixteens) then widens to 32 bits. Words have vpmaddwd itself.
 */
#include "kernels/x86/lanes_avx2.h"
#include "kernels/x86/packed_avx2.h"

/** Adds `weight` times the products of nibbles; of WIDE codes the low (weight 1) or high ones. */
INLINE void add_narrow(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, int weight, ints_t sums[TILE][PARTS])
{
    const __m256i weights = _mm256_set1_epi16((short)weight);
    __m256i words[TILE][PARTS];
    UNROLL for (int s = first; s < first + count; s++) UNROLL for (int p = 0; p < PARTS; p++)
    {
        codes_t v = codes_load(codes + s * VECTOR + p * PART_BYTES);
        if (width == CODES_WIDE)
            v = codes_and(weight == 16 ? codes_shr(v, 4) : v, 15);
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const __m256i two = _mm256_maddubs_epi16(v, word_at(x[t] + 4 * s));
            words[t][p] = s == first ? two : _mm256_add_epi16(words[t][p], two);
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < PARTS; p++) sums[t][p] =
        _mm256_add_epi32(sums[t][p], _mm256_madd_epi16(words[t][p], weights));
}

INLINE void add_medium(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, ints_t sums[TILE][PARTS])
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL for (int s = first; s < first + count; s += 2) UNROLL for (int p = 0; p < PARTS; p++)
    {
        const uint8_t *from = codes + s * VECTOR + p * PART_BYTES;
        const codes_t a = codes_load(from), b = codes_load(from + VECTOR);
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const int8_t *code = x[t] + 4 * s;
            const __m256i words = _mm256_add_epi16(_mm256_maddubs_epi16(a, word_at(code)),
                                                   _mm256_maddubs_epi16(b, word_at(code + 4)));
            sums[t][p] = _mm256_add_epi32(sums[t][p], _mm256_madd_epi16(words, ones));
        }
    }
}

INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, ints_t sums[TILE][PARTS])
{
    if (width == CODES_MEDIUM) {
        add_medium(codes, x, first, count, tokens, sums);
        return;
    }
    add_narrow(codes, x, first, count, tokens, width, 1, sums);
    if (width == CODES_WIDE)
        add_narrow(codes, x, first, count, tokens, width, 16, sums);
}

INLINE void tile_words(const int16_t *words, const int16_t *const x[TILE], int tokens,
                       ints_t sums[TILE][PARTS])
{
    UNROLL for (int pair = 0; pair < GROUP / 2; pair++) UNROLL for (int t = 0; t < tokens; t++)
    {
        const __m256i word = word_at(x[t] + 2 * pair);
        UNROLL for (int p = 0; p < PARTS; p++)
        {
            const __m256i v =
                _mm256_loadu_si256((const void *)(words + (pair * PARTS + p) * 2 * LANES));
            sums[t][p] = _mm256_add_epi32(sums[t][p], _mm256_madd_epi16(v, word));
        }
    }
}

#define PACKED_PRODUCT ferrum_packed_product_avx2
#include "kernels/packed_template.h"
