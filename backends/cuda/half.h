/* SPDX-License-Identifier: MIT */
/**
 * @file half.h
 * @brief f16 and bf16 on the host: rounding to nearest, ties to even, and exact widening.
 * Infinities and NaN stay what they are; a value too large for f16 becomes infinity.
 */
#ifndef FERRUM_CUDA_HALF_H
#define FERRUM_CUDA_HALF_H

#include <stdint.h>
#include <string.h>

/** @p value >> @p shift (1..31), rounded to nearest, ties to even. */
static inline uint32_t ferrum_cuda_round_shift(uint32_t value, uint32_t shift)
{
    const uint32_t kept = value >> shift, half = 1u << (shift - 1);
    const uint32_t rest = value & ((1u << shift) - 1);
    return kept + (rest > half || (rest == half && (kept & 1u)));
}

static inline uint16_t ferrum_cuda_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) /* NaN: keep it one */
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) /* 2^16 and up, infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude >= 0x38800000u) /* normal: rebias; a carry moves into the exponent as it should */
        return (uint16_t)(sign | ferrum_cuda_round_shift(magnitude - 0x38000000u, 13));
    if (magnitude < 0x33000000u) /* below half of the least subnormal */
        return sign;
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    return (uint16_t)(sign | ferrum_cuda_round_shift(mantissa, 126 - (magnitude >> 23)));
}

static inline uint16_t ferrum_cuda_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)ferrum_cuda_round_shift(bits, 16);
}

static inline float ferrum_cuda_bf16_to_f32(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float ferrum_cuda_f16_to_f32(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    uint32_t bits = sign | (magnitude << 13);
    float f;

    if (magnitude >= 0x7c00u) /* infinity, NaN */
        bits |= 0x7f800000u;
    else if (magnitude >= 0x0400u)
        bits += 0x38000000u;
    else { /* subnormal: an integer times 2^-24 */
        f = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif /* FERRUM_CUDA_HALF_H */
