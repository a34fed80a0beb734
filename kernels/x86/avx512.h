/* SPDX-License-Identifier: MIT */
/**
 * @file avx512.h
 * @brief What the AVX-512 files share (F, BW, DQ, VL; with FMA and F16C).
 */
#ifndef FERRUM_KERNELS_AVX512_H
#define FERRUM_KERNELS_AVX512_H

#include "kernels/scalar/convert.h"
#include "kernels/set.h"

#include <immintrin.h>

FERRUM_BLOCK_FORMATS(FERRUM_DECLARE_DEQUANT, avx512)
extern ferrum_matmul_blocks_fn ferrum_matmul_blocks_avx512;
extern ferrum_gptq_matmul_fn ferrum_matmul_gptq_avx512;
FERRUM_DECLARE_VECTOR(avx512)

/** The first @p n of 16 lanes; all of them for n >= 16. */
static inline __mmask16 ferrum_lanes_avx512(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
}

/** @p value in every lane, by way of memory: decoding is short of shuffles (one port), and a
 * broadcast that is a load needs none. Compilers turn it into a shuffle unless the value is pinned.
 */
static inline __m512 ferrum_broadcast_avx512(float value)
{
    __asm__("" : "+m"(value));
    return _mm512_set1_ps(value);
}

/** The half at @p p in every lane; reads 8 bytes. */
static inline __m512 ferrum_broadcast_f16_avx512(const uint8_t *p)
{
    const __m128i halves = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return ferrum_broadcast_avx512(_mm_cvtss_f32(_mm_cvtph_ps(halves)));
}

/** The half at @p p in every lane; reads 2 bytes, for halves at the end of a block. */
static inline __m512 ferrum_broadcast_last_f16_avx512(const uint8_t *p)
{
    return ferrum_broadcast_avx512(_cvtsh_ss(ferrum_load_u16(p)));
}

/** 16 bytes at @p p as 16 unsigned dwords. */
static inline __m512i ferrum_widen_u8_avx512(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/** 16 signed bytes at @p p as f32. */
static inline __m512 ferrum_widen_i8_avx512(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/** f32 0, 1, ... 15 */
static inline __m512 ferrum_iota_avx512(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#endif /* FERRUM_KERNELS_AVX512_H */
