/* SPDX-License-Identifier: MIT */
/* GPTQ product, AVX-512: lanes are 16 adjacent columns, so a word of each is one load and nothing
 * is added across lanes. Per group: sum of x (code - zero) in order of k, then one FMA with the
 * scale. Column tails are masked lanes of the same code. */
#include "kernels/x86/avx512.h"

enum {
    MAX_TOKENS = 8,
    MAX_VECTORS = 4
};

/** Codes 0..15 of the low nibbles: the permute ignores the higher bits. */
static inline __m512 low_code(__m512i words, uint32_t bits)
{
    if (bits == 4)
        return _mm512_permutexvar_ps(words, ferrum_iota_avx512());
    return _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32(255)));
}

/** Columns of up to @p vectors * 16 and @p tokens tokens; both constants, as is @p bits. */
static inline __attribute__((always_inline)) void tile(const ferrum_gptq_matrix_t *w, uint32_t col,
                                                       uint32_t cols, const float *x, size_t ldx,
                                                       float *y, size_t ldy, const size_t vectors,
                                                       const size_t tokens, const uint32_t bits)
{
    const uint32_t per_word = 32 / bits;
    __m512 total[MAX_TOKENS][MAX_VECTORS], sum[MAX_TOKENS][MAX_VECTORS], zero[MAX_VECTORS];
    __m512i words[MAX_VECTORS];
    __mmask16 lanes[MAX_VECTORS];
    uint32_t k = 0;

    for (size_t v = 0; v < vectors; v++) {
        lanes[v] = cols > 16 * v ? ferrum_lanes_avx512(cols - 16 * v) : 0;
        for (size_t t = 0; t < tokens; t++)
            total[t][v] = _mm512_setzero_ps();
    }
    for (uint32_t g = 0; g < w->groups; g++) {
        const size_t group = (size_t)g * w->n + col;
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            const __m128i z = _mm_maskz_loadu_epi8(lanes[v], w->zeros + group + 16 * v);
            zero[v] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(z));
#pragma GCC unroll 8
            for (size_t t = 0; t < tokens; t++)
                sum[t][v] = _mm512_setzero_ps();
        }
        while (k < w->group_end[g]) {
            const uint32_t first = k % per_word;
            const uint32_t left = w->group_end[g] - k;
            const uint32_t end = k + (left < per_word - first ? left : per_word - first);
            const uint32_t *row = w->qweight + (size_t)(k / per_word) * w->n + col;
            const __m128i skip = _mm_cvtsi32_si128((int)(first * bits));
#pragma GCC unroll 4
            for (size_t v = 0; v < vectors; v++)
                words[v] = _mm512_srl_epi32(_mm512_maskz_loadu_epi32(lanes[v], row + 16 * v), skip);
            for (; k < end; k++) {
                __m512 value[MAX_VECTORS];
#pragma GCC unroll 4
                for (size_t v = 0; v < vectors; v++) {
                    value[v] = _mm512_sub_ps(low_code(words[v], bits), zero[v]);
                    words[v] = _mm512_srli_epi32(words[v], bits);
                }
#pragma GCC unroll 8
                for (size_t t = 0; t < tokens; t++) {
                    const __m512 xt = _mm512_set1_ps(x[t * ldx + k]);
#pragma GCC unroll 4
                    for (size_t v = 0; v < vectors; v++)
                        sum[t][v] = _mm512_fmadd_ps(xt, value[v], sum[t][v]);
                }
            }
        }
#pragma GCC unroll 4
        for (size_t v = 0; v < vectors; v++) {
            const __m512 scale = _mm512_maskz_loadu_ps(lanes[v], w->scales + group + 16 * v);
#pragma GCC unroll 8
            for (size_t t = 0; t < tokens; t++)
                total[t][v] = _mm512_fmadd_ps(scale, sum[t][v], total[t][v]);
        }
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t v = 0; v < vectors; v++)
            _mm512_mask_storeu_ps(y + t * ldy + 16 * v, lanes[v], total[t][v]);
}

static inline __attribute__((always_inline)) void
columns(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols, const float *x, size_t ldx,
        uint32_t tokens, float *y, size_t ldy, const uint32_t bits)
{
    for (uint32_t c = 0; c < cols; c += 64) {
        size_t t = 0;
        for (; tokens - t >= 8; t += 8)
            for (uint32_t h = c; h < cols && h < c + 64; h += 32)
                tile(w, col + h, cols - h, x + t * ldx, ldx, y + t * ldy + h, ldy, 2, 8, bits);
        if (tokens - t >= 4) {
            tile(w, col + c, cols - c, x + t * ldx, ldx, y + t * ldy + c, ldy, 4, 4, bits);
            t += 4;
        }
        if (tokens - t >= 2) {
            tile(w, col + c, cols - c, x + t * ldx, ldx, y + t * ldy + c, ldy, 4, 2, bits);
            t += 2;
        }
        if (tokens - t >= 1)
            tile(w, col + c, cols - c, x + t * ldx, ldx, y + t * ldy + c, ldy, 4, 1, bits);
    }
}

void ferrum_matmul_gptq_avx512(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols,
                               const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    if (w->bits == 4)
        columns(w, col, cols, x, ldx, tokens, y, ldy, 4);
    else
        columns(w, col, cols, x, ldx, tokens, y, ldy, 8);
}
