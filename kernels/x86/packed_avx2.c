/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX2, exact although vpmaddubsw saturates at 16 bits: it adds two products
 * of an unsigned code and a signed one of at most 127, and
 *   NARROW  8 * 2 * 15 * 127 = 30480: a whole group fits 16 bits;
 *   MEDIUM  2 * 2 * 63 * 127 = 32004: two steps fit;
 *   WIDE    2 * 128 * 127 = 32512: one step fits with |v| as the code and the sign of v moved to
 *           the activation, v = code - 128.
 * vpmaddwd with ones then widens to 32 bits. Words have vpmaddwd itself.
 */
#include "kernels/x86/lanes_avx2.h"
#include "kernels/x86/packed_avx2.h"

/** a + b, as written: the compiler would sum products in pairs first, and spill them. */
INLINE __m256i add_next(__m256i a, __m256i b)
{
    a = _mm256_add_epi32(a, b);
    __asm__("" : "+x"(a));
    return a;
}

INLINE ints_t tile_start(int32_t start, code_width_t width)
{
    return _mm256_set1_epi32(width == CODES_WIDE ? FERRUM_PACKED_MAGIC_BITS : start);
}

INLINE void tile_bytes(const uint8_t *codes, const int8_t *const x[TILE], int first, int count,
                       int tokens, code_width_t width, ints_t sums[TILE][PARTS])
{
    const int steps = width == CODES_NARROW ? count : width == CODES_MEDIUM ? 2 : 1;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i words[TILE][PARTS];
    UNROLL for (int s = first; s < first + count; s++)
    {
        const bool begin = (s - first) % steps == 0, end = (s - first) % steps == steps - 1;
        __m256i v[PARTS], size[PARTS];
        EACH_PART(p)
        {
            v[p] = codes_load(codes + s * VECTOR + p * PART_BYTES);
            v[p] = width == CODES_WIDE ? codes_flip(v[p]) : v[p];
            size[p] = width == CODES_WIDE ? _mm256_abs_epi8(v[p]) : v[p];
        }
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const __m256i word = word_at(x[t] + 4 * s);
            EACH_PART(p)
            {
                const __m256i factor = width == CODES_WIDE ? _mm256_sign_epi8(word, v[p]) : word;
                const __m256i two = _mm256_maddubs_epi16(size[p], factor);
                words[t][p] = begin ? two : _mm256_add_epi16(words[t][p], two);
                __asm__("" : "+x"(words[t][p]));
                if (end)
                    sums[t][p] = add_next(sums[t][p], _mm256_madd_epi16(words[t][p], ones));
            }
        }
    }
}

INLINE void tile_words(const int16_t *words, const int16_t *const x[TILE], int tokens,
                       ints_t sums[TILE][PARTS])
{
    UNROLL for (int pair = 0; pair < GROUP / 2; pair++)
    {
        __m256i v[PARTS];
        EACH_PART(p)
        v[p] = _mm256_loadu_si256((const void *)(words + (pair * PARTS + p) * 2 * LANES));
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const __m256i word = word_at(x[t] + 2 * pair);
            EACH_PART(p)
            sums[t][p] = add_next(sums[t][p], _mm256_madd_epi16(v[p], word));
        }
    }
}

#define PACKED_PRODUCT ferrum_packed_product_avx2
#include "kernels/packed_template.h"
