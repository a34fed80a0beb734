/* SPDX-License-Identifier: MIT */
/* y = W x^T for every block format, AVX2. The same plan as matmul_blocks_avx512.c with 8 lanes:
 * eight rows at a time, a chunk of each decoded into the stack and multiplied with up to TOKENS
 * tokens, one vector of partial sums per (row, token) so that no sum's order depends on the call's
 * shape. */
#include "kernels/x86/avx2.h"

enum {
    ROWS = 8,
    CHUNK = 256,
    TOKENS = 48
};

typedef struct chunk {
    _Alignas(64) float w[ROWS][CHUNK];
} chunk_t;

/** acc[t][r] += w[r] * x[t], lane by lane, for rows [first, first + rows) and @p tokens tokens;
 *  both counts are constants and rows * tokens <= 12. */
static inline __attribute__((always_inline)) void multiply(const chunk_t *chunk, const size_t first,
                                                           const size_t rows, const float *x,
                                                           size_t ldx, size_t n,
                                                           const size_t tokens, __m256 (*acc)[ROWS])
{
    __m256 sum[3][ROWS];
    size_t i = 0;
#pragma GCC unroll 3
    for (size_t t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++)
            sum[t][r] = acc[t][first + r];

    for (; n - i >= 8; i += 8) {
        __m256 xt[3];
#pragma GCC unroll 3
        for (size_t t = 0; t < tokens; t++)
            xt[t] = _mm256_loadu_ps(x + t * ldx + i);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++) {
            const __m256 w = _mm256_load_ps(&chunk->w[first + r][i]);
#pragma GCC unroll 3
            for (size_t t = 0; t < tokens; t++)
                sum[t][r] = _mm256_fmadd_ps(w, xt[t], sum[t][r]);
        }
    }
    if (i < n) {
        const __m256i lanes = ferrum_lanes_avx2(n - i);
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 3
            for (size_t t = 0; t < tokens; t++)
                sum[t][r] = _mm256_fmadd_ps(_mm256_load_ps(&chunk->w[first + r][i]),
                                            _mm256_maskload_ps(x + t * ldx + i, lanes), sum[t][r]);
    }

#pragma GCC unroll 3
    for (size_t t = 0; t < tokens; t++)
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; r++)
            acc[t][first + r] = sum[t][r];
}

/** Sums of the lanes of eight vectors; the same tree for each of them. */
static inline __m256 sum_lanes(const __m256 v[ROWS])
{
    __m256 a[4], b[2];
    for (int i = 0; i < 4; i++)
        a[i] = _mm256_add_ps(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20),
                             _mm256_permute2f128_ps(v[i], v[i + 4], 0x31));
    for (int i = 0; i < 2; i++)
        b[i] = _mm256_add_ps(_mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]),
                             _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]));
    return _mm256_add_ps(_mm256_shuffle_ps(b[0], b[1], 0x44), _mm256_shuffle_ps(b[0], b[1], 0xee));
}

/** Decode values [i, i+n) of @p rows rows and fill up to whole vectors with zeros. */
static void decode(ferrum_dequant_fn *dequant, const uint8_t *block, size_t row_bytes, size_t rows,
                   size_t n, chunk_t *chunk)
{
    for (size_t r = 0; r < rows; r++) {
        dequant(block + r * row_bytes, chunk->w[r], n);
        for (size_t i = n; i % 8 != 0; i++)
            chunk->w[r][i] = 0.0f;
    }
}

/** One decoded chunk times all tokens. */
static void multiply_all(const chunk_t *chunk, const float *x, size_t ldx, size_t n, size_t tokens,
                         __m256 (*acc)[ROWS])
{
    size_t t = 0;
    for (; t + 3 <= tokens; t += 3) {
        multiply(chunk, 0, 4, x + t * ldx, ldx, n, 3, acc + t);
        multiply(chunk, 4, 4, x + t * ldx, ldx, n, 3, acc + t);
    }
    if (tokens - t == 2) {
        multiply(chunk, 0, 4, x + t * ldx, ldx, n, 2, acc + t);
        multiply(chunk, 4, 4, x + t * ldx, ldx, n, 2, acc + t);
    } else if (tokens - t == 1) {
        multiply(chunk, 0, 8, x + t * ldx, ldx, n, 1, acc + t);
    }
}

/** At most ROWS rows and TOKENS tokens. */
static void product(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                    const uint8_t *w, size_t row_bytes, size_t rows, size_t k, const float *x,
                    size_t ldx, size_t tokens, float *y, size_t ldy)
{
    __m256 acc[TOKENS][ROWS];
    chunk_t chunk;

    memset(acc, 0, tokens * sizeof acc[0]);
    if (rows < ROWS)
        memset(chunk.w[rows], 0, (ROWS - rows) * sizeof chunk.w[0]);

    for (size_t i = 0; i < k; i += CHUNK) {
        const size_t n = k - i < CHUNK ? k - i : CHUNK;
        decode(dequant, w + i / traits->block_values * traits->block_bytes, row_bytes, rows, n,
               &chunk);
        multiply_all(&chunk, x + i, ldx, n, tokens, acc);
    }
    for (size_t t = 0; t < tokens; t++) {
        if (rows == ROWS)
            _mm256_storeu_ps(y + t * ldy, sum_lanes(acc[t]));
        else
            _mm256_maskstore_ps(y + t * ldy, ferrum_lanes_avx2(rows), sum_lanes(acc[t]));
    }
}

void ferrum_matmul_blocks_avx2(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
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
