/* SPDX-License-Identifier: MIT */
/**
 * @file convert.h
 * @brief Unaligned loads and exact widening of small floats, in portable C.
 */
#ifndef FERRUM_KERNELS_CONVERT_H
#define FERRUM_KERNELS_CONVERT_H

#include <stdint.h>
#include <string.h>

/** The minimum of formats that have none: adding it changes nothing, not even a negative zero. */
#define FERRUM_NO_MIN (-0.0f)

/** Little-endian 16-bit word at @p p, any alignment. */
static inline uint16_t ferrum_load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/** Little-endian 32-bit word at @p p, any alignment. */
static inline uint32_t ferrum_load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline float ferrum_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float ferrum_bf16_to_f32(uint16_t h)
{
    return ferrum_f32_from_bits((uint32_t)h << 16);
}

/** IEEE half to single: every half is representable, NaN payloads move up and become quiet. */
static inline float ferrum_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = h >> 10 & 0x1fu;
    const uint32_t mantissa = h & 0x3ffu;

    if (exponent == 0) {
        const float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 0x1f)
        return ferrum_f32_from_bits(sign | 0x7f800000u | mantissa << 13 |
                                    (mantissa ? 0x00400000u : 0u));
    return ferrum_f32_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/** Half of the power of two that an E8M0 byte stands for: 2^(e-128), subnormal for e < 2. */
static inline float ferrum_e8m0_half_to_f32(uint8_t e)
{
    return ferrum_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

#endif /* FERRUM_KERNELS_CONVERT_H */
