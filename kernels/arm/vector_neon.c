/* SPDX-License-Identifier: MIT */
/* Operations on f32 rows, NEON. Sums keep four vectors of partial sums. */
#include "kernels/arm/neon.h"

float ferrum_vector_dot_neon(const float *a, const float *b, size_t n)
{
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    size_t i = 0;

    for (; n - i >= 16; i += 16)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            sum[j] = vfmaq_f32(sum[j], vld1q_f32(a + i + 4 * j), vld1q_f32(b + i + 4 * j));
    for (; i < n; i += 4)
        sum[0] = vfmaq_f32(sum[0], ferrum_load_neon(a + i, n - i), ferrum_load_neon(b + i, n - i));
    return vaddvq_f32(vaddq_f32(vaddq_f32(sum[0], sum[1]), vaddq_f32(sum[2], sum[3])));
}

void ferrum_vector_axpy_neon(float s, const float *x, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        ferrum_store_neon(
            y + i, n - i,
            vfmaq_n_f32(ferrum_load_neon(y + i, n - i), ferrum_load_neon(x + i, n - i), s));
}

/** v * 2^j for integral |j| <= 160, in two steps so that each power of two is a normal number. */
static inline float32x4_t scale_by_power(float32x4_t v, float32x4_t j)
{
    const int32x4_t whole = vcvtnq_s32_f32(j), half = vshrq_n_s32(whole, 1);
    const int32x4_t bias = vdupq_n_s32(127);
    const int32x4_t a = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(v, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}

/** e^x: x = j ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial with relative error 3e-9. Inputs
 *  are clamped to where the result is 0 or infinite anyway; NaN stays NaN. */
static inline float32x4_t exp_vector(float32x4_t x)
{
    x = vminq_f32(vdupq_n_f32(100.0F), vmaxq_f32(vdupq_n_f32(-110.0F), x));
    const float32x4_t j = vrndnq_f32(vmulq_n_f32(x, 0x1.715476p+0F));
    float32x4_t r = vfmsq_f32(x, j, vdupq_n_f32(0x1.62e430p-1F));
    r = vfmsq_f32(r, j, vdupq_n_f32(-0x1.05c610p-29F));
    float32x4_t q = vdupq_n_f32(0x1.6a2352p-10F);
    q = vfmaq_f32(vdupq_n_f32(0x1.123a6cp-7F), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.5558f4p-5F), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.555490p-3F), q, r);
    q = vfmaq_f32(vdupq_n_f32(0x1.fffffcp-2F), q, r);
    q = vfmaq_f32(r, vmulq_f32(r, r), q);
    return scale_by_power(vaddq_f32(q, vdupq_n_f32(1.0F)), j);
}

void ferrum_vector_silu_mul_neon(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        const float32x4_t g = ferrum_load_neon(gate + i, n - i);
        const float32x4_t e = exp_vector(vnegq_f32(g));
        const float32x4_t silu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0F), e));
        ferrum_store_neon(out + i, n - i, vmulq_f32(silu, ferrum_load_neon(up + i, n - i)));
    }
}

void ferrum_vector_rms_norm_neon(const float *x, const float *w, float eps, float *out, size_t n)
{
    const float mean = ferrum_vector_dot_neon(x, x, n) / (float)(n ? n : 1);
    const float inverse = 1.0F / vget_lane_f32(vsqrt_f32(vdup_n_f32(mean + eps)), 0);

    for (size_t i = 0; i < n; i += 4)
        ferrum_store_neon(out + i, n - i,
                          vmulq_f32(vmulq_n_f32(ferrum_load_neon(x + i, n - i), inverse),
                                    ferrum_load_neon(w + i, n - i)));
}

float ferrum_vector_exp_sum_neon(float *x, size_t n)
{
    const float lowest = -__builtin_inff();
    float32x4_t max = vdupq_n_f32(lowest), sum = vdupq_n_f32(0);
    size_t i = 0;

    for (; n - i >= 4; i += 4)
        max = vmaxq_f32(max, vld1q_f32(x + i));
    float top = vmaxvq_f32(max);
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    /* With nothing but -inf there is no finite maximum to subtract: all terms are zero. */
    const float32x4_t shift = vdupq_n_f32(top == lowest ? 0.0F : top);

    for (i = 0; i < n; i += 4) {
        const float32x4_t e = exp_vector(vsubq_f32(ferrum_load_neon(x + i, n - i), shift));
        ferrum_store_neon(x + i, n - i, e);
        sum = vaddq_f32(sum, ferrum_load_neon(x + i, n - i));
    }
    return vaddvq_f32(sum);
}

void ferrum_vector_add_neon(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        ferrum_store_neon(
            y + i, n - i,
            vaddq_f32(ferrum_load_neon(y + i, n - i), ferrum_load_neon(x + i, n - i)));
}

void ferrum_vector_scale_neon(float s, float *y, size_t n)
{
    for (size_t i = 0; i < n; i += 4)
        ferrum_store_neon(y + i, n - i, vmulq_n_f32(ferrum_load_neon(y + i, n - i), s));
}
