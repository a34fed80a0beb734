/* SPDX-License-Identifier: MIT */
/**
 * @file avx2.h
 * @brief What the AVX2 files share (AVX2 with FMA and F16C).
 */
#ifndef FERRUM_KERNELS_AVX2_H
#define FERRUM_KERNELS_AVX2_H

#include "kernels/scalar/convert.h"
#include "kernels/set.h"

#include <immintrin.h>

FERRUM_BLOCK_FORMATS(FERRUM_DECLARE_DEQUANT, avx2)
extern ferrum_matmul_blocks_fn ferrum_matmul_blocks_avx2;
extern ferrum_gptq_matmul_fn ferrum_matmul_gptq_avx2;
FERRUM_DECLARE_VECTOR(avx2)

/** Mask of the first @p n of 8 lanes, n <= 8. */
static inline __m256i ferrum_lanes_avx2(size_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}

/** @p value in every lane, by way of memory: decoding is short of shuffles (one port), and a
 * broadcast that is a load needs none. Compilers turn it into a shuffle unless the value is pinned.
 */
static inline __m256 ferrum_broadcast_avx2(float value)
{
    __asm__("" : "+m"(value));
    return _mm256_set1_ps(value);
}

/** The half at @p p; reads 8 bytes. */
static inline float ferrum_load_f16_avx2(const uint8_t *p)
{
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/** The half at @p p; reads 2 bytes, for halves at the end of a block. */
static inline float ferrum_load_last_f16_avx2(const uint8_t *p)
{
    return _cvtsh_ss(ferrum_load_u16(p));
}

/** 8 signed bytes at @p p as f32. */
static inline __m256 ferrum_widen_i8_avx2(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/** out[i] = d * codes[i] for @p n (a multiple of 8) values. */
static inline void ferrum_expand_avx2(const int8_t *codes, float d, float *out, size_t n)
{
    const __m256 scale = ferrum_broadcast_avx2(d);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_mul_ps(scale, ferrum_widen_i8_avx2(codes + i)));
}

/** out[i] = d * codes[i] + m for @p n (a multiple of 8) values. */
static inline void ferrum_expand_min_avx2(const int8_t *codes, float d, float m, float *out,
                                          size_t n)
{
    const __m256 scale = ferrum_broadcast_avx2(d), min = ferrum_broadcast_avx2(m);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(scale, ferrum_widen_i8_avx2(codes + i), min));
}

#endif /* FERRUM_KERNELS_AVX2_H */
