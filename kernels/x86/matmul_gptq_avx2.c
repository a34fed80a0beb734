/* SPDX-License-Identifier: MIT */
/* GPTQ product, AVX2. The same plan as matmul_gptq_avx512.c: lanes are 8 adjacent columns; per
 * group the sum of x (code - zero) in order of k, then one FMA with the scale. */
#include "kernels/x86/avx2.h"

enum {
    MAX_TOKENS = 4,
    MAX_VECTORS = 4
};

/** 8 dwords at @p p of which only the first @p cols may be touched; the others read as zero. */
static inline __m256i load_words(const void *p, uint32_t cols)
{
    if (cols >= 8)
        return _mm256_loadu_si256((const __m256i *)p);
    return _mm256_maskload_epi32((const int *)p, ferrum_lanes_avx2(cols));
}

static inline __m256 load_zeros(const uint8_t *p, uint32_t cols)
{
    uint8_t bytes[8] = {0};
    memcpy(bytes, p, cols < 8 ? cols : 8);
    const __m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)bytes);
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
}

static inline uint32_t columns_left(uint32_t cols, size_t vector)
{
    return cols > 8 * vector ? cols - (uint32_t)(8 * vector) : 0;
}

/** Columns of up to @p vectors * 8 and @p tokens tokens; both constants, as is @p bits. */
static inline __attribute__((always_inline)) void tile(const ferrum_gptq_matrix_t *w, uint32_t col,
                                                       uint32_t cols, const float *x, size_t ldx,
                                                       float *y, size_t ldy, const size_t vectors,
                                                       const size_t tokens, const uint32_t bits)
{
    const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
    const uint32_t per_word = 32 / bits;
    __m256 total[MAX_TOKENS][MAX_VECTORS], sum[MAX_TOKENS][MAX_VECTORS], zero[MAX_VECTORS];
    __m256i words[MAX_VECTORS];
    uint32_t k = 0;

    for (size_t v = 0; v < vectors; v++)
        for (size_t t = 0; t < tokens; t++)
            total[t][v] = _mm256_setzero_ps();
    for (uint32_t g = 0; g < w->groups; g++) {
        const size_t group = (size_t)g * w->n + col;
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            zero[v] = load_zeros(w->zeros + group + 8 * v, columns_left(cols, v));
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; t++)
                sum[t][v] = _mm256_setzero_ps();
        }
        while (k < w->group_end[g]) {
            const uint32_t first = k % per_word;
            const uint32_t left = w->group_end[g] - k;
            const uint32_t end = k + (left < per_word - first ? left : per_word - first);
            const uint32_t *row = w->qweight + (size_t)(k / per_word) * w->n + col;
            const __m128i skip = _mm_cvtsi32_si128((int)(first * bits));
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++)
                words[v] = _mm256_srl_epi32(load_words(row + 8 * v, columns_left(cols, v)), skip);
            for (; k < end; k++) {
                __m256 value[MAX_VECTORS];
#pragma GCC unroll 4
                for (size_t v = 0; v < vectors; v++) {
                    const __m256i code = _mm256_and_si256(words[v], mask);
                    value[v] = _mm256_sub_ps(_mm256_cvtepi32_ps(code), zero[v]);
                    words[v] = _mm256_srli_epi32(words[v], (int)bits);
                }
#pragma GCC unroll 4
                for (size_t t = 0; t < tokens; t++) {
                    const __m256 xt = _mm256_set1_ps(x[t * ldx + k]);
#pragma GCC unroll 4
                    for (size_t v = 0; v < vectors; v++)
                        sum[t][v] = _mm256_fmadd_ps(xt, value[v], sum[t][v]);
                }
            }
        }
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            const __m256 scale =
                _mm256_castsi256_ps(load_words(w->scales + group + 8 * v, columns_left(cols, v)));
#pragma GCC unroll 4
            for (size_t t = 0; t < tokens; t++)
                total[t][v] = _mm256_fmadd_ps(scale, sum[t][v], total[t][v]);
        }
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t v = 0; v < vectors; v++) {
            const uint32_t left = columns_left(cols, v);
            _mm256_maskstore_ps(y + t * ldy + 8 * v, ferrum_lanes_avx2(left < 8 ? left : 8),
                                total[t][v]);
        }
}

static inline __attribute__((always_inline)) void
columns(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols, const float *x, size_t ldx,
        uint32_t tokens, float *y, size_t ldy, const uint32_t bits)
{
    for (uint32_t c = 0; c < cols; c += 32) {
        size_t t = 0;
        for (; tokens - t >= 4; t += 4)
            for (uint32_t h = c; h < cols && h < c + 32; h += 16)
                tile(w, col + h, cols - h, x + t * ldx, ldx, y + t * ldy + h, ldy, 2, 4, bits);
        for (; t < tokens; t++)
            tile(w, col + c, cols - c, x + t * ldx, ldx, y + t * ldy + c, ldy, 4, 1, bits);
    }
}

void ferrum_matmul_gptq_avx2(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols,
                             const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    if (w->bits == 4)
        columns(w, col, cols, x, ldx, tokens, y, ldy, 4);
    else
        columns(w, col, cols, x, ldx, tokens, y, ldy, 8);
}
