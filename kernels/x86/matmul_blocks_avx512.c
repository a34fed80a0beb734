/* SPDX-License-Identifier: MIT */
/* y = W x^T for every block format, AVX-512.
 *
 * Eight rows at a time: decode CHUNK values of each into the stack (L1), multiply them with up to
 * TOKENS tokens, three at a time, and go on to the next chunk. One vector of 16 partial sums per
 * (row, token): value i goes to lane i % 16 in order of i, and the lanes are added in one fixed
 * tree. So the order of a sum never depends on the shape of the call. Rows beyond the last one are
 * zeros that are computed and not stored. */
#include "kernels/x86/avx512.h"

enum {
    ROWS = 8,
    CHUNK = 256,
    TOKENS = 48
};

typedef struct chunk {
    _Alignas(64) float w[ROWS][CHUNK];
} chunk_t;

/** acc[t][r] += w[r] * x[t], lane by lane, for @p tokens (a constant, at most 3) tokens. */
static inline __attribute__((always_inline)) void multiply(const chunk_t *chunk, const float *x,
                                                           size_t ldx, size_t n,
                                                           const size_t tokens, __m512 (*acc)[ROWS])
{
    __m512 sum[3][ROWS];
    size_t i = 0;
#pragma GCC unroll 3
    for (size_t t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (size_t r = 0; r < ROWS; r++)
            sum[t][r] = acc[t][r];

    for (; n - i >= 16; i += 16) {
        __m512 xt[3];
#pragma GCC unroll 3
        for (size_t t = 0; t < tokens; t++)
            xt[t] = _mm512_loadu_ps(x + t * ldx + i);
#pragma GCC unroll 8
        for (size_t r = 0; r < ROWS; r++) {
            __m512 w = _mm512_load_ps(&chunk->w[r][i]);
            /* one load for all tokens: folded into each FMA, loads would be the bottleneck */
            __asm__("" : "+v"(w));
#pragma GCC unroll 3
            for (size_t t = 0; t < tokens; t++)
                sum[t][r] = _mm512_fmadd_ps(w, xt[t], sum[t][r]);
        }
    }
    if (i < n) {
        const __mmask16 lanes = ferrum_lanes_avx512(n - i);
#pragma GCC unroll 8
        for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 3
            for (size_t t = 0; t < tokens; t++)
                sum[t][r] =
                    _mm512_fmadd_ps(_mm512_load_ps(&chunk->w[r][i]),
                                    _mm512_maskz_loadu_ps(lanes, x + t * ldx + i), sum[t][r]);
    }

#pragma GCC unroll 3
    for (size_t t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (size_t r = 0; r < ROWS; r++)
            acc[t][r] = sum[t][r];
}

/** Sums of the lanes of eight vectors; the same tree for each of them. */
static inline __m256 sum_lanes(const __m512 v[ROWS])
{
    __m512 a[4], b[2];
    for (int i = 0; i < 4; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    for (int i = 0; i < 2; i++)
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xdd));
    const __m512 c = _mm512_add_ps(_mm512_unpacklo_ps(b[0], b[1]), _mm512_unpackhi_ps(b[0], b[1]));
    const __m512 d = _mm512_add_ps(c, _mm512_permute_ps(c, 0x4e));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, d));
}

/** Decode values [i, i+n) of @p rows rows and fill up to whole vectors with zeros. */
static void decode(ferrum_dequant_fn *dequant, const uint8_t *block, size_t row_bytes, size_t rows,
                   size_t n, chunk_t *chunk)
{
    for (size_t r = 0; r < rows; r++) {
        dequant(block + r * row_bytes, chunk->w[r], n);
        for (size_t i = n; i % 16 != 0; i++)
            chunk->w[r][i] = 0.0f;
    }
}

/** At most ROWS rows and TOKENS tokens. */
static void product(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                    const uint8_t *w, size_t row_bytes, size_t rows, size_t k, const float *x,
                    size_t ldx, size_t tokens, float *y, size_t ldy)
{
    const __mmask8 stored = (__mmask8)((1u << rows) - 1);
    __m512 acc[TOKENS][ROWS];
    chunk_t chunk;

    memset(acc, 0, tokens * sizeof acc[0]);
    if (rows < ROWS)
        memset(chunk.w[rows], 0, (ROWS - rows) * sizeof chunk.w[0]);

    for (size_t i = 0; i < k; i += CHUNK) {
        const size_t n = k - i < CHUNK ? k - i : CHUNK;
        size_t t = 0;
        decode(dequant, w + i / traits->block_values * traits->block_bytes, row_bytes, rows, n,
               &chunk);
        for (; t + 3 <= tokens; t += 3)
            multiply(&chunk, x + t * ldx + i, ldx, n, 3, acc + t);
        if (tokens - t == 2)
            multiply(&chunk, x + t * ldx + i, ldx, n, 2, acc + t);
        else if (tokens - t == 1)
            multiply(&chunk, x + t * ldx + i, ldx, n, 1, acc + t);
    }
    for (size_t t = 0; t < tokens; t++)
        _mm256_mask_storeu_ps(y + t * ldy, stored, sum_lanes(acc[t]));
}

void ferrum_matmul_blocks_avx512(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                                 const void *w, size_t row_bytes, uint32_t rows, uint32_t k,
                                 const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    for (size_t t = 0; t < tokens; t += TOKENS) {
        const size_t m = tokens - t < TOKENS ? tokens - t : TOKENS;
        for (size_t r = 0; r < rows; r += ROWS) {
            const size_t height = rows - r < ROWS ? rows - r : ROWS;
            product(dequant, traits, (const uint8_t *)w + r * row_bytes, row_bytes, height, k,
                    x + t * ldx, ldx, m, y + t * ldy + r, ldy);
        }
    }
}
