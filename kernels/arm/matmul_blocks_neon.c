/* SPDX-License-Identifier: MIT */
/* y = W x^T for every block format, NEON; the same plan as matmul_blocks_avx512.c with 4 lanes:
 * four rows at a time, a chunk of each decoded into the stack and multiplied with up to TOKENS
 * tokens, one vector of partial sums per (row, token) so that no sum's order depends on the call's
 * shape. */
#include "kernels/arm/neon.h"

enum {
    ROWS = 4,
    CHUNK = 256,
    TOKENS = 48,
    TILE = 4
};

typedef struct chunk {
    _Alignas(64) float w[ROWS][CHUNK];
} chunk_t;

/** acc[t][r] += w[r] * x[t], lane by lane; @p tokens <= TILE is a constant. */
static inline __attribute__((always_inline)) void multiply(const chunk_t *chunk, const float *x,
                                                           size_t ldx, size_t n,
                                                           const size_t tokens,
                                                           float32x4_t (*acc)[ROWS])
{
    float32x4_t sum[TILE][ROWS];
    for (size_t t = 0; t < tokens; t++)
        for (size_t r = 0; r < ROWS; r++)
            sum[t][r] = acc[t][r];
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t w[ROWS];
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; r++)
            w[r] = vld1q_f32(&chunk->w[r][i]);
#pragma GCC unroll 4
        for (size_t t = 0; t < tokens; t++) {
            const float32x4_t v = ferrum_load_neon(x + t * ldx + i, n - i);
#pragma GCC unroll 4
            for (size_t r = 0; r < ROWS; r++)
                sum[t][r] = vfmaq_f32(sum[t][r], w[r], v);
        }
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t r = 0; r < ROWS; r++)
            acc[t][r] = sum[t][r];
}

/** Decode values [i, i+n) of @p rows rows and fill up to whole vectors with zeros. */
static void decode(ferrum_dequant_fn *dequant, const uint8_t *block, size_t row_bytes, size_t rows,
                   size_t n, chunk_t *chunk)
{
    for (size_t r = 0; r < rows; r++) {
        dequant(block + r * row_bytes, chunk->w[r], n);
        for (size_t i = n; i % 4 != 0; i++)
            chunk->w[r][i] = 0.0F;
    }
}

/** At most ROWS rows and TOKENS tokens. */
static void product(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                    const uint8_t *w, size_t row_bytes, size_t rows, size_t k, const float *x,
                    size_t ldx, size_t tokens, float *y, size_t ldy)
{
    float32x4_t acc[TOKENS][ROWS];
    chunk_t chunk;

    memset(acc, 0, tokens * sizeof acc[0]);
    if (rows < ROWS)
        memset(chunk.w[rows], 0, (ROWS - rows) * sizeof chunk.w[0]);
    for (size_t i = 0; i < k; i += CHUNK) {
        const size_t n = k - i < CHUNK ? k - i : CHUNK;
        size_t t = 0;
        decode(dequant, w + i / traits->block_values * traits->block_bytes, row_bytes, rows, n,
               &chunk);
        for (; t + TILE <= tokens; t += TILE)
            multiply(&chunk, x + t * ldx + i, ldx, n, TILE, acc + t);
        for (; t < tokens; t++)
            multiply(&chunk, x + t * ldx + i, ldx, n, 1, acc + t);
    }
    for (size_t t = 0; t < tokens; t++)
        for (size_t r = 0; r < rows; r++)
            y[t * ldy + r] = vaddvq_f32(acc[t][r]);
}

void ferrum_matmul_blocks_neon(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
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
