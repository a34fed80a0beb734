/* SPDX-License-Identifier: MIT */
/* Decoders of unquantised rows, 16 values at a time; the tail through a mask. */
#include "kernels/x86/avx512.h"

void ferrum_dequant_f32_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 16; i += 16)
        _mm512_storeu_ps(out + i, _mm512_loadu_ps(p + 4 * i));
    if (i < n) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        _mm512_mask_storeu_ps(out + i, m, _mm512_maskz_loadu_ps(m, p + 4 * i));
    }
}

void ferrum_dequant_f16_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i));
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(h));
    }
    if (i < n) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        const __m256i h = _mm256_maskz_loadu_epi16(m, p + 2 * i);
        _mm512_mask_storeu_ps(out + i, m, _mm512_cvtph_ps(h));
    }
}

static inline __m512 widen_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

void ferrum_dequant_bf16_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)(p + 2 * i));
        _mm512_storeu_ps(out + i, widen_bf16(h));
    }
    if (i < n) {
        const __mmask16 m = ferrum_lanes_avx512(n - i);
        const __m256i h = _mm256_maskz_loadu_epi16(m, p + 2 * i);
        _mm512_mask_storeu_ps(out + i, m, widen_bf16(h));
    }
}
