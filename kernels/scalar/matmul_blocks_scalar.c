/* SPDX-License-Identifier: MIT */
/* y = W x^T for every block format: decode a run of a row once, use it for up to TOKENS tokens.
 * Each output owns LANES partial sums; value i of the row goes to lane i % LANES in order of i, and
 * the lanes are added in one fixed tree, so the sum's order never depends on the call's shape. */
#include "kernels/scalar/scalar.h"

enum {
    CHUNK = 256,
    TOKENS = 8,
    LANES = 8
};

static void dot_lanes(const float *w, const float *x, size_t n, float lanes[LANES])
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lanes[l] += w[i + l] * x[i + l];
    for (size_t l = 0; i + l < n; l++)
        lanes[l] += w[i + l] * x[i + l];
}

static float sum_lanes(const float lanes[LANES])
{
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

static void row_product(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                        const uint8_t *row, uint32_t k, const float *x, size_t ldx, uint32_t tokens,
                        float *y, size_t ldy)
{
    float chunk[CHUNK];
    float lanes[TOKENS][LANES] = {{0}};

    for (uint32_t i = 0; i < k; i += CHUNK) {
        const size_t n = k - i < CHUNK ? k - i : CHUNK;
        dequant(row + (size_t)(i / traits->block_values) * traits->block_bytes, chunk, n);
        for (uint32_t t = 0; t < tokens; t++)
            dot_lanes(chunk, x + t * ldx + i, n, lanes[t]);
    }
    for (uint32_t t = 0; t < tokens; t++)
        y[t * ldy] = sum_lanes(lanes[t]);
}

void ferrum_matmul_blocks_scalar(ferrum_dequant_fn *dequant, const ferrum_format_traits_t *traits,
                                 const void *w, size_t row_bytes, uint32_t rows, uint32_t k,
                                 const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    for (uint32_t t = 0; t < tokens; t += TOKENS) {
        const uint32_t m = tokens - t < TOKENS ? tokens - t : TOKENS;
        for (uint32_t r = 0; r < rows; r++)
            row_product(dequant, traits, (const uint8_t *)w + r * row_bytes, k, x + t * ldx, ldx, m,
                        y + t * ldy + r, ldy);
    }
}
