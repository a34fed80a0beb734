/* SPDX-License-Identifier: MIT */
/* GPTQ product: per group, sum x (code - zero) over the group's K-rows in order, then add that sum
 * times the scale. code - zero is exact; columns are independent of each other. */
#include "kernels/scalar/scalar.h"

static float column_product(const ferrum_gptq_matrix_t *w, uint32_t column, const float *x)
{
    const uint32_t per_word = 32 / w->bits, mask = (1u << w->bits) - 1;
    float sum = 0.0f;
    uint32_t i = 0;

    for (uint32_t g = 0; g < w->groups; g++) {
        const int zero = w->zeros[(size_t)g * w->n + column];
        float group_sum = 0.0f;
        for (; i < w->group_end[g]; i++) {
            const uint32_t word = w->qweight[(size_t)(i / per_word) * w->n + column];
            const int code = (int)(word >> (i % per_word * w->bits) & mask);
            group_sum += x[i] * (float)(code - zero);
        }
        sum += w->scales[(size_t)g * w->n + column] * group_sum;
    }
    return sum;
}

void ferrum_matmul_gptq_scalar(const ferrum_gptq_matrix_t *w, uint32_t col, uint32_t cols,
                               const float *x, size_t ldx, uint32_t tokens, float *y, size_t ldy)
{
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t c = 0; c < cols; c++)
            y[t * ldy + c] = column_product(w, col + c, x + t * ldx);
}
