/* SPDX-License-Identifier: MIT */
/**
 * @file lanes_neon.h
 * @brief The vector vocabulary of packed_template.h for NEON: four rows of a panel per register.
 *
 * Words are kept as [32 activation codes][16 rows], so that one activation is multiplied with rows
 * that lie side by side.
 */
#ifndef FERRUM_KERNELS_LANES_NEON_H
#define FERRUM_KERNELS_LANES_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum {
    LANES = 4
};

#include "kernels/packed_tile.h"

typedef uint8x16_t codes_t; /**< four code bytes of each row */
typedef int32x4_t ints_t;
typedef int16x4_t words_t; /**< one 16-bit number of each row */
typedef float32x4_t floats_t;

INLINE codes_t codes_load(const uint8_t *p)
{
    return vld1q_u8(p);
}

INLINE void codes_store(uint8_t *p, codes_t v)
{
    vst1q_u8(p, v);
}

INLINE codes_t codes_and(codes_t v, int mask)
{
    return vandq_u8(v, vdupq_n_u8((uint8_t)mask));
}

/** Keeps `mask` of every 32-bit word. */
INLINE codes_t codes_and_words(codes_t v, int mask)
{
    return vandq_u8(v, vreinterpretq_u8_s32(vdupq_n_s32(mask)));
}

/** Signed bytes plus 128. */
INLINE codes_t codes_flip(codes_t v)
{
    return veorq_u8(v, vdupq_n_u8(0x80));
}

INLINE codes_t codes_add(codes_t a, codes_t b)
{
    return vaddq_u8(a, b);
}

INLINE codes_t codes_or(codes_t a, codes_t b)
{
    return vorrq_u8(a, b);
}

/** Bits cross byte borders: mask the result. */
INLINE codes_t codes_shr(codes_t v, uint32_t bits)
{
    const uint32x4_t words = vreinterpretq_u32_u8(v);
    return vreinterpretq_u8_u32(vshlq_u32(words, vdupq_n_s32(-(int)bits)));
}

INLINE codes_t codes_shl(codes_t v, uint32_t bits)
{
    const uint32x4_t words = vreinterpretq_u32_u8(v);
    return vreinterpretq_u8_u32(vshlq_u32(words, vdupq_n_s32((int)bits)));
}

/** table[v] for bytes v < 16. */
INLINE codes_t codes_lookup(const uint8_t table[16], codes_t v)
{
    return vqtbl1q_u8(vld1q_u8(table), v);
}

/** Four bytes, widened. */
INLINE uint32x4_t widen_u8(const void *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word))));
}

INLINE int16x4_t widen_i8(const int8_t *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vget_low_s16(vmovl_s8(vcreate_s8(word)));
}

/** Byte r in all four bytes of lane r. */
INLINE codes_t codes_of_rows(const uint8_t *p)
{
    return vreinterpretq_u8_u32(vmulq_n_u32(widen_u8(p), 0x01010101));
}

INLINE floats_t floats_load(const float *p)
{
    return vld1q_f32(p);
}

INLINE void floats_store(float *p, floats_t v)
{
    vst1q_f32(p, v);
}

INLINE floats_t floats_all(float value)
{
    return vdupq_n_f32(value);
}

INLINE floats_t floats_mul(floats_t a, floats_t b)
{
    return vmulq_f32(a, b);
}

/** a * b + c, rounded once. */
INLINE floats_t floats_fma(floats_t a, floats_t b, floats_t c)
{
    return vfmaq_f32(c, a, b);
}

/** c - a * b, rounded once. */
INLINE floats_t floats_fnma(floats_t a, floats_t b, floats_t c)
{
    return vfmsq_f32(c, a, b);
}

INLINE floats_t floats_of(ints_t v)
{
    return vcvtq_f32_s32(v);
}

/** Four f16. */
INLINE floats_t floats_of_f16(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

INLINE floats_t floats_of_bf16(const uint8_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}

INLINE floats_t floats_of_u8(const uint8_t *p)
{
    return vcvtq_f32_u32(widen_u8(p));
}

INLINE floats_t floats_of_i8(const int8_t *p)
{
    return vcvtq_f32_s32(vmovl_s16(widen_i8(p)));
}

/** 2^(e - 128) for bytes e; a subnormal number for e < 2. */
INLINE floats_t floats_of_half_e8m0(const uint8_t *p)
{
    const uint32x4_t e = widen_u8(p);
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t small = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), small, normal));
}

INLINE floats_t floats_from_bits(ints_t v)
{
    return vreinterpretq_f32_s32(v);
}

INLINE ints_t ints_zero(void)
{
    return vdupq_n_s32(0);
}

INLINE words_t words_scale(const int8_t *s, int offset)
{
    (void)offset;
    return widen_i8(s);
}

INLINE void words_store(int16_t *words, uint32_t step, uint32_t part, codes_t codes, int offset,
                        const words_t *scale)
{
    const int16x8_t all =
        vreinterpretq_s16_u8(vandq_u8(codes, vreinterpretq_u8_u16(vdupq_n_u16(255))));
    const int16x8_t odd = vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_u8(codes), 8));
    const int16x8_t bytes[2] = {all, odd};
    int16_t *to = words + (size_t)step * 4 * ROWS + (size_t)part * LANES;
    UNROLL for (int i = 0; i < 2; i++)
    {
        const int16x8_t v = vsubq_s16(bytes[i], vdupq_n_s16((int16_t)offset));
        int16x4_t first = vget_low_s16(vuzp1q_s16(v, v));
        int16x4_t second = vget_low_s16(vuzp2q_s16(v, v));
        if (scale) {
            first = vmul_s16(first, *scale);
            second = vmul_s16(second, *scale);
        }
        vst1_s16(to + (2 * i) * ROWS, first);
        vst1_s16(to + (2 * i + 1) * ROWS, second);
    }
}

/** The 32-bit word at @p p in every lane. */
INLINE int8x16_t word_at(const int8_t *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return vreinterpretq_s8_s32(vdupq_n_s32(value));
}

INLINE void tile_words(const int16_t *words, const int16_t *const x[TILE], int tokens,
                       ints_t sums[TILE][PARTS])
{
    UNROLL for (int k = 0; k < GROUP; k++)
    {
        int16x4_t v[PARTS];
        EACH_PART(p) v[p] = vld1_s16(words + k * ROWS + p * LANES);
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const int16x4_t code = vdup_n_s16(x[t][k]);
            EACH_PART(p) sums[t][p] = vmlal_s16(sums[t][p], v[p], code);
        }
    }
}

#endif /* FERRUM_KERNELS_LANES_NEON_H */
