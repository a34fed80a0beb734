/* SPDX-License-Identifier: MIT */
/* Operations on f32 rows, AVX2; tails through masks. Sums keep four vectors of partial sums. */
#include "kernels/x86/avx2.h"

static inline __m256 load(const float *p, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, ferrum_lanes_avx2(n));
}

static inline void store(float *p, size_t n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, ferrum_lanes_avx2(n), v);
}

static inline float sum_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float max_lanes(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

float ferrum_vector_dot_avx2(const float *a, const float *b, size_t n)
{
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    size_t i = 0;

    for (; n - i >= 32; i += 32)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            sum[j] = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8 * j), _mm256_loadu_ps(b + i + 8 * j),
                                     sum[j]);
    for (; i < n; i += 8)
        sum[0] = _mm256_fmadd_ps(load(a + i, n - i), load(b + i, n - i), sum[0]);
    return sum_lanes(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

void ferrum_vector_axpy_avx2(float s, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store(y + i, n - i,
              _mm256_fmadd_ps(_mm256_set1_ps(s), load(x + i, n - i), load(y + i, n - i)));
}

/** v * 2^j for integral |j| <= 160, in two steps so that each power of two is a normal number. */
static inline __m256 scale_by_power(__m256 v, __m256 j)
{
    const __m256i whole = _mm256_cvtps_epi32(j);
    const __m256i half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

/** e^x: x = j ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial with relative error 3e-9. Inputs
 *  are clamped to where the result is 0 or infinite anyway; NaN stays NaN. */
static inline __m256 exp_vector(__m256 x)
{
    x = _mm256_min_ps(_mm256_set1_ps(100.0f), _mm256_max_ps(_mm256_set1_ps(-110.0f), x));
    const __m256 j = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(j, _mm256_set1_ps(0x1.62e430p-1f), x);
    r = _mm256_fnmadd_ps(j, _mm256_set1_ps(-0x1.05c610p-29f), r);
    __m256 q = _mm256_set1_ps(0x1.6a2352p-10f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.123a6cp-7f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5558f4p-5f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.555490p-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.fffffcp-2f));
    q = _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r);
    return scale_by_power(_mm256_add_ps(q, _mm256_set1_ps(1.0f)), j);
}

void ferrum_vector_silu_mul_avx2(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        const __m256 g = load(gate + i, n - i);
        const __m256 e = exp_vector(_mm256_sub_ps(_mm256_setzero_ps(), g));
        const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
        store(out + i, n - i, _mm256_mul_ps(silu, load(up + i, n - i)));
    }
}

void ferrum_vector_rms_norm_avx2(const float *x, const float *w, float eps, float *out, size_t n)
{
    const float mean = ferrum_vector_dot_avx2(x, x, n) / (float)(n ? n : 1);
    const __m128 root = _mm_sqrt_ss(_mm_set_ss(mean + eps));
    const __m256 inverse = _mm256_set1_ps(1.0f / _mm_cvtss_f32(root));

    for (size_t i = 0; i < n; i += 8)
        store(out + i, n - i,
              _mm256_mul_ps(_mm256_mul_ps(load(x + i, n - i), inverse), load(w + i, n - i)));
}

float ferrum_vector_exp_sum_avx2(float *x, size_t n)
{
    const __m256 lowest = _mm256_set1_ps(-__builtin_inff());
    __m256 max = lowest, sum = _mm256_setzero_ps();
    size_t i = 0;

    for (; n - i >= 8; i += 8)
        max = _mm256_max_ps(max, _mm256_loadu_ps(x + i));
    float top = max_lanes(max);
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    /* With nothing but -inf there is no finite maximum to subtract: all terms are zero. */
    const __m256 shift = _mm256_set1_ps(top == -__builtin_inff() ? 0.0f : top);

    for (i = 0; i < n; i += 8) {
        __m256 e = exp_vector(_mm256_sub_ps(load(x + i, n - i), shift));
        store(x + i, n - i, e);
        if (n - i < 8)
            e = _mm256_and_ps(e, _mm256_castsi256_ps(ferrum_lanes_avx2(n - i)));
        sum = _mm256_add_ps(sum, e);
    }
    return sum_lanes(sum);
}

void ferrum_vector_add_avx2(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store(y + i, n - i, _mm256_add_ps(load(y + i, n - i), load(x + i, n - i)));
}

void ferrum_vector_scale_avx2(float s, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        store(y + i, n - i, _mm256_mul_ps(_mm256_set1_ps(s), load(y + i, n - i)));
}
