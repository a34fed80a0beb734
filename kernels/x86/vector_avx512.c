/* SPDX-License-Identifier: MIT */
/* Operations on f32 rows, AVX-512; tails through masks. Sums keep four vectors of partial sums. */
#include "kernels/x86/avx512.h"

static inline __m512 load(const float *p, __mmask16 lanes)
{
    return _mm512_maskz_loadu_ps(lanes, p);
}

float ferrum_vector_dot_avx512(const float *a, const float *b, size_t n)
{
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                     _mm512_setzero_ps()};
    size_t i = 0;

    for (; n - i >= 64; i += 64)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            sum[j] = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16 * j),
                                     _mm512_loadu_ps(b + i + 16 * j), sum[j]);
    for (; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        sum[0] = _mm512_fmadd_ps(load(a + i, m), load(b + i, m), sum[0]);
    }
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

void ferrum_vector_axpy_avx512(float s, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        _mm512_mask_storeu_ps(y + i, m,
                              _mm512_fmadd_ps(_mm512_set1_ps(s), load(x + i, m), load(y + i, m)));
    }
}

/** e^x: x = j ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial with relative error 3e-9. Inputs
 *  are clamped to where the result is 0 or infinite anyway; NaN stays NaN. */
static inline __m512 exp_vector(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(100.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), x));
    const __m512 exponent = _mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f));
    const __m512 j = _mm512_cvtepi32_ps(_mm512_cvtps_epi32(exponent));
    __m512 r = _mm512_fnmadd_ps(j, _mm512_set1_ps(0x1.62e430p-1f), x);
    r = _mm512_fnmadd_ps(j, _mm512_set1_ps(-0x1.05c610p-29f), r);
    __m512 q = _mm512_set1_ps(0x1.6a2352p-10f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a6cp-7f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f4p-5f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555490p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
    q = _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r);
    return _mm512_scalef_ps(_mm512_add_ps(q, _mm512_set1_ps(1.0f)), j);
}

void ferrum_vector_silu_mul_avx512(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        const __m512 g = load(gate + i, m);
        const __m512 e = exp_vector(_mm512_sub_ps(_mm512_setzero_ps(), g));
        const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(silu, load(up + i, m)));
    }
}

void ferrum_vector_rms_norm_avx512(const float *x, const float *w, float eps, float *out, size_t n)
{
    const float mean = ferrum_vector_dot_avx512(x, x, n) / (float)(n ? n : 1);
    const __m128 root = _mm_sqrt_ss(_mm_set_ss(mean + eps));
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm_cvtss_f32(root));

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        const __m512 normed = _mm512_mul_ps(load(x + i, m), inverse);
        _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(normed, load(w + i, m)));
    }
}

float ferrum_vector_exp_sum_avx512(float *x, size_t n)
{
    const __m512 lowest = _mm512_set1_ps(-__builtin_inff());
    __m512 max = lowest, sum = _mm512_setzero_ps();

    for (size_t i = 0; i < n; i += 16)
        max = _mm512_max_ps(max, _mm512_mask_loadu_ps(lowest, ferrum_lanes_avx512(n - i), x + i));
    const float top = _mm512_reduce_max_ps(max);
    /* With nothing but -inf there is no finite maximum to subtract: all terms are zero. */
    const __m512 shift = _mm512_set1_ps(top == -__builtin_inff() ? 0.0f : top);

    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        const __m512 e = exp_vector(_mm512_sub_ps(load(x + i, m), shift));
        _mm512_mask_storeu_ps(x + i, m, e);
        sum = _mm512_mask_add_ps(sum, m, sum, e);
    }
    return _mm512_reduce_add_ps(sum);
}

void ferrum_vector_add_avx512(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_add_ps(load(y + i, m), load(x + i, m)));
    }
}

void ferrum_vector_scale_avx512(float s, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(load(y + i, m), _mm512_set1_ps(s)));
    }
}
