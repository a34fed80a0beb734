/* SPDX-License-Identifier: MIT */
/* Operations on f32 rows, one element after the other in index order. */
#include "kernels/scalar/scalar.h"

#include <math.h>

float ferrum_vector_dot_scalar(const float *a, const float *b, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

void ferrum_vector_axpy_scalar(float s, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += s * x[i];
}

void ferrum_vector_silu_mul_scalar(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void ferrum_vector_rms_norm_scalar(const float *x, const float *w, float eps, float *out, size_t n)
{
    if (n == 0)
        return;
    const float inverse = 1.0f / sqrtf(ferrum_vector_dot_scalar(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * inverse * w[i];
}

float ferrum_vector_exp_sum_scalar(float *x, size_t n)
{
    float max = -INFINITY, sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    /* With nothing but -inf there is no finite maximum to subtract: all terms are zero. */
    if (max == -INFINITY)
        max = 0.0f;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += x[i];
    }
    return sum;
}

void ferrum_vector_add_scalar(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

void ferrum_vector_scale_scalar(float s, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= s;
}
