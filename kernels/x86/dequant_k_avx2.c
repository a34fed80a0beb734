/* SPDX-License-Identifier: MIT */
/* Decoders of the 256-value "k" formats; layouts as in dequant_k_scalar.c. A block's codes become
 * 256 signed bytes in order, its scales and minimums f32 arrays, and those d code + m. */
#include "kernels/x86/avx2.h"

enum {
    BLOCK = 256
};

static inline __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static inline void store32(int8_t *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, v);
}

/** Bits @p from and up of every byte moved to bit @p to; only bits in @p mask are kept. */
static inline __m256i move_bits(__m256i v, int from, int to, int mask)
{
    v = from < to ? _mm256_slli_epi16(v, to - from) : _mm256_srli_epi16(v, from - to);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

/** out = d times 16 signed bytes. */
static inline void scales16(const void *bytes, float d, float out[16])
{
    const __m256 factor = _mm256_set1_ps(d);
    _mm256_storeu_ps(out, _mm256_mul_ps(factor, ferrum_widen_i8_avx2(bytes)));
    _mm256_storeu_ps(out + 8,
                     _mm256_mul_ps(factor, ferrum_widen_i8_avx2((const uint8_t *)bytes + 8)));
}

/** Scales d sc and negated minimums -dmin mn of a Q4_K or Q5_K block. */
static inline void k_scales(const uint8_t *p, float out_d[8], float out_m[8])
{
    const uint32_t a = ferrum_load_u32(p + 4), b = ferrum_load_u32(p + 8);
    const uint32_t c = ferrum_load_u32(p + 12);
    const uint32_t scale_low = a & 0x3f3f3f3f, min_low = b & 0x3f3f3f3f;
    const uint32_t scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    const __m128i scale = _mm_set_epi32(0, 0, (int)scale_high, (int)scale_low);
    const __m128i min = _mm_set_epi32(0, 0, (int)min_high, (int)min_low);
    const __m256 d = _mm256_set1_ps(ferrum_load_f16_avx2(p));
    const __m256 m = _mm256_set1_ps(-ferrum_load_f16_avx2(p + 2));
    _mm256_storeu_ps(out_d, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(scale))));
    _mm256_storeu_ps(out_m, _mm256_mul_ps(m, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(min))));
}

void ferrum_dequant_q4_k_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 144) {
        int8_t codes[BLOCK];
        float d[8], m[8];
        k_scales(p, d, m);
        for (size_t c = 0; c < 4; c++) {
            const __m256i q = load32(p + 16 + 32 * c);
            store32(codes + 64 * c, move_bits(q, 0, 0, 15));
            store32(codes + 64 * c + 32, move_bits(q, 4, 0, 15));
        }
        for (size_t sub = 0; sub < 8; sub++)
            ferrum_expand_min_avx2(codes + 32 * sub, d[sub], m[sub], out + i + 32 * sub, 32);
    }
}

void ferrum_dequant_q5_k_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 176) {
        const __m256i h = load32(p + 16);
        int8_t codes[BLOCK];
        float d[8], m[8];
        k_scales(p, d, m);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            const __m256i q = load32(p + 48 + 32 * c);
            store32(codes + 64 * c,
                    _mm256_or_si256(move_bits(q, 0, 0, 15), move_bits(h, 2 * c, 4, 16)));
            store32(codes + 64 * c + 32,
                    _mm256_or_si256(move_bits(q, 4, 0, 15), move_bits(h, 2 * c + 1, 4, 16)));
        }
        for (size_t sub = 0; sub < 8; sub++)
            ferrum_expand_min_avx2(codes + 32 * sub, d[sub], m[sub], out + i + 32 * sub, 32);
    }
}

void ferrum_dequant_q6_k_avx2(const void *blocks, float *out, size_t n)
{
    const __m256i offset = _mm256_set1_epi8(32);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 210) {
        int8_t codes[BLOCK];
        float scales[16];
        scales16(p + 192, ferrum_load_last_f16_avx2(p + 208), scales);
#pragma GCC unroll 8
        for (int run = 0; run < 8; run++) {
            const int half = run / 4, r = run % 4;
            const __m256i low = load32(p + 64 * half + 32 * (r % 2));
            const __m256i high = load32(p + 128 + 32 * half);
            const __m256i q = _mm256_or_si256(move_bits(low, 4 * (r / 2), 0, 15),
                                              move_bits(high, 2 * r, 4, 0x30));
            store32(codes + 32 * run, _mm256_sub_epi8(q, offset));
        }
        for (size_t g = 0; g < 16; g++)
            ferrum_expand_avx2(codes + 16 * g, scales[g], out + i + 16 * g, 16);
    }
}

void ferrum_dequant_q2_k_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 84) {
        const __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)p);
        int8_t codes[BLOCK], low[16], high[16];
        float d[16], m[16];
        _mm_storeu_si128((__m128i *)(void *)low, _mm_and_si128(packed, _mm_set1_epi8(15)));
        _mm_storeu_si128((__m128i *)(void *)high,
                         _mm_and_si128(_mm_srli_epi16(packed, 4), _mm_set1_epi8(15)));
        scales16(low, ferrum_load_last_f16_avx2(p + 80), d);
        scales16(high, -ferrum_load_last_f16_avx2(p + 82), m);
#pragma GCC unroll 8
        for (int run = 0; run < 8; run++)
            store32(codes + 32 * run,
                    move_bits(load32(p + 16 + 32 * (run / 4)), 2 * (run % 4), 0, 3));
        for (size_t g = 0; g < 16; g++)
            ferrum_expand_min_avx2(codes + 16 * g, d[g], m[g], out + i + 16 * g, 16);
    }
}

/** The sixteen scales sc - 32 of a Q3_K block. */
static inline void q3_k_scales(const uint8_t *p, int8_t out[16])
{
    const uint32_t a = ferrum_load_u32(p + 96), b = ferrum_load_u32(p + 100);
    const uint32_t c = ferrum_load_u32(p + 104);
    const uint32_t s0 = (a & 0x0f0f0f0f) | (c << 4 & 0x30303030);
    const uint32_t s1 = (b & 0x0f0f0f0f) | (c << 2 & 0x30303030);
    const uint32_t s2 = (a >> 4 & 0x0f0f0f0f) | (c & 0x30303030);
    const uint32_t s3 = (b >> 4 & 0x0f0f0f0f) | (c >> 2 & 0x30303030);
    const __m128i scales = _mm_set_epi32((int)s3, (int)s2, (int)s1, (int)s0);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_sub_epi8(scales, _mm_set1_epi8(32)));
}

void ferrum_dequant_q3_k_avx2(const void *blocks, float *out, size_t n)
{
    const __m256i offset = _mm256_set1_epi8(4);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 110) {
        const __m256i h = load32(p);
        int8_t codes[BLOCK], bytes[16];
        float d[16];
        q3_k_scales(p, bytes);
        scales16(bytes, ferrum_load_last_f16_avx2(p + 108), d);
#pragma GCC unroll 8
        for (int run = 0; run < 8; run++) {
            const __m256i q = load32(p + 32 + 32 * (run / 4));
            const __m256i code =
                _mm256_or_si256(move_bits(q, 2 * (run % 4), 0, 3), move_bits(h, run, 2, 4));
            store32(codes + 32 * run, _mm256_sub_epi8(code, offset));
        }
        for (size_t g = 0; g < 16; g++)
            ferrum_expand_avx2(codes + 16 * g, d[g], out + i + 16 * g, 16);
    }
}
