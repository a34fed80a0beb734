/* SPDX-License-Identifier: MIT */
/* Decoders of unquantised rows, 8 values at a time and the tail one by one. */
#include "kernels/x86/avx2.h"

void ferrum_dequant_f32_avx2(const void *blocks, float *out, size_t n)
{
    if (n > 0)
        memcpy(out, blocks, n * sizeof *out);
}

void ferrum_dequant_f16_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(h));
    }
    for (; i < n; i++)
        out[i] = ferrum_load_last_f16_avx2(p + 2 * i);
}

void ferrum_dequant_bf16_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i));
        const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(bits));
    }
    for (; i < n; i++)
        out[i] = ferrum_bf16_to_f32(ferrum_load_u16(p + 2 * i));
}
