/* SPDX-License-Identifier: MIT */
/**
 * @file lanes_avx2.h
 * @brief The vector vocabulary of packed_template.h for 256-bit registers: eight rows of a panel.
 */
#ifndef FERRUM_KERNELS_LANES_AVX2_H
#define FERRUM_KERNELS_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum {
    LANES = 8
};

#include "kernels/packed_tile.h"

typedef __m256i codes_t; /**< four code bytes of each row */
typedef __m256i ints_t;
typedef __m256 floats_t;

INLINE codes_t codes_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

INLINE void codes_store(uint8_t *p, codes_t v)
{
    _mm256_storeu_si256((void *)p, v);
}

INLINE codes_t codes_and(codes_t v, int mask)
{
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

/** Keeps `mask` of every 32-bit word. */
INLINE codes_t codes_and_words(codes_t v, int mask)
{
    return _mm256_and_si256(v, _mm256_set1_epi32(mask));
}

/** Signed bytes plus 128. */
INLINE codes_t codes_flip(codes_t v)
{
    return _mm256_xor_si256(v, _mm256_set1_epi8(-128));
}

INLINE codes_t codes_add(codes_t a, codes_t b)
{
    return _mm256_add_epi8(a, b);
}

/** Byte r in all four bytes of lane r. */
INLINE codes_t codes_of_rows(const uint8_t *p)
{
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
    return _mm256_mullo_epi32(lanes, _mm256_set1_epi32(0x01010101));
}

INLINE codes_t codes_or(codes_t a, codes_t b)
{
    return _mm256_or_si256(a, b);
}

/** Bits cross byte borders: mask the result. */
INLINE codes_t codes_shr(codes_t v, uint32_t bits)
{
    return _mm256_srli_epi32(v, (int)bits);
}

INLINE codes_t codes_shl(codes_t v, uint32_t bits)
{
    return _mm256_slli_epi32(v, (int)bits);
}

/** table[v] for bytes v < 16. */
INLINE codes_t codes_lookup(const uint8_t table[16], codes_t v)
{
    const __m128i half = _mm_loadu_si128((const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), v);
}

INLINE floats_t floats_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE void floats_store(float *p, floats_t v)
{
    _mm256_storeu_ps(p, v);
}

INLINE floats_t floats_all(float value)
{
    return _mm256_set1_ps(value);
}

INLINE floats_t floats_mul(floats_t a, floats_t b)
{
    return _mm256_mul_ps(a, b);
}

/** a * b + c, rounded once. */
INLINE floats_t floats_fma(floats_t a, floats_t b, floats_t c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/** c - a * b, rounded once. */
INLINE floats_t floats_fnma(floats_t a, floats_t b, floats_t c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

INLINE floats_t floats_of(ints_t v)
{
    return _mm256_cvtepi32_ps(v);
}

/** Eight f16. */
INLINE floats_t floats_of_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

INLINE floats_t floats_of_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

INLINE floats_t floats_of_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

INLINE floats_t floats_of_bf16(const uint8_t *p)
{
    const __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

/** 2^(e - 128) for bytes e; a subnormal number for e < 2. */
INLINE floats_t floats_of_half_e8m0(const uint8_t *p)
{
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    const __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

INLINE floats_t floats_from_bits(ints_t v)
{
    return _mm256_castsi256_ps(v);
}

INLINE ints_t ints_zero(void)
{
    return _mm256_setzero_si256();
}

/** The 32-bit word at @p p in every lane. */
INLINE __m256i word_at(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm256_set1_epi32(value);
}

/* What AVX2 and AVX-VNNI share of packed_tile.h: a word is a pair of codes per lane. */

/** Integer scales as second operands of vpmaddubsw, which multiplies one of two bytes with them and
 *  the other one with zero: |code * s| <= 63 * 128. */
typedef struct words {
    __m256i even, odd;
    __m256i offset; /**< offset * s in both words of a row */
} words_t;

INLINE words_t words_scale(const int8_t *s, int offset)
{
    const __m256i row = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)s));
    const __m256i words = _mm256_blend_epi16(row, _mm256_slli_epi32(row, 16), 0xaa);
    return (words_t){_mm256_and_si256(words, _mm256_set1_epi16(255)), _mm256_slli_epi16(words, 8),
                     _mm256_mullo_epi16(words, _mm256_set1_epi16((short)offset))};
}

INLINE void words_store(int16_t *words, uint32_t step, uint32_t part, codes_t codes, int offset,
                        const words_t *scale)
{
    int16_t *to = words + (2 * step * PARTS + part) * 2 * LANES;
    __m256i even, odd, less;
    if (scale) {
        even = _mm256_maddubs_epi16(codes, scale->even);
        odd = _mm256_maddubs_epi16(codes, scale->odd);
        less = scale->offset;
    } else {
        even = _mm256_and_si256(codes, _mm256_set1_epi16(255));
        odd = _mm256_srli_epi16(codes, 8);
        less = _mm256_set1_epi16((short)offset);
    }
    _mm256_storeu_si256((void *)to, _mm256_sub_epi16(even, less));
    _mm256_storeu_si256((void *)(to + PARTS * 2 * LANES), _mm256_sub_epi16(odd, less));
}

#endif /* FERRUM_KERNELS_LANES_AVX2_H */
