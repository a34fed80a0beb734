/* SPDX-License-Identifier: MIT */
/* Decoders of the 256-value "k" formats; layouts as in dequant_k_scalar.c.
 *
 * The scales of a block are widened to f32 together and read back as broadcasts. For codes of up to
 * five bits, scale and minimum make a table of all values a code can mean and one permute decodes
 * 16 values; index bits above the table's size are ignored by the permute and need no masking.
 * Six-bit codes are put together as bytes and widened. */
#include "kernels/x86/avx512.h"

enum {
    BLOCK = 256
};

/** The eight scales d sc and the eight minimums dmin mn of a Q4_K or Q5_K block. */
static inline void k_scales(const uint8_t *p, float out[16])
{
    const uint32_t a = ferrum_load_u32(p + 4), b = ferrum_load_u32(p + 8);
    const uint32_t c = ferrum_load_u32(p + 12);
    const uint32_t scale_low = a & 0x3f3f3f3f, min_low = b & 0x3f3f3f3f;
    const uint32_t scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    const __m128i bytes =
        _mm_set_epi32((int)min_high, (int)min_low, (int)scale_high, (int)scale_low);
    const __m512 d =
        _mm512_insertf32x8(ferrum_broadcast_f16_avx512(p),
                           _mm512_castps512_ps256(ferrum_broadcast_f16_avx512(p + 2)), 1);
    _mm512_storeu_ps(out, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))));
}

void ferrum_dequant_q4_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 iota = ferrum_iota_avx512();
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 144) {
        float scales[16];
        k_scales(p, scales);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            float *o = out + i + 64 * c;
            const __m512i q0 = ferrum_widen_u8_avx512(p + 16 + 32 * c);
            const __m512i q1 = ferrum_widen_u8_avx512(p + 32 + 32 * c);
            __m512 table = _mm512_fmsub_ps(_mm512_set1_ps(scales[2 * c]), iota,
                                           _mm512_set1_ps(scales[2 * c + 8]));
            _mm512_storeu_ps(o, _mm512_permutexvar_ps(q0, table));
            _mm512_storeu_ps(o + 16, _mm512_permutexvar_ps(q1, table));
            table = _mm512_fmsub_ps(_mm512_set1_ps(scales[2 * c + 1]), iota,
                                    _mm512_set1_ps(scales[2 * c + 9]));
            _mm512_storeu_ps(o + 32, _mm512_permutexvar_ps(_mm512_srli_epi32(q0, 4), table));
            _mm512_storeu_ps(o + 48, _mm512_permutexvar_ps(_mm512_srli_epi32(q1, 4), table));
        }
    }
}

/** 32 values of Q5_K: sub-block @p sub from nibbles q0, q1 and fifth bits h0, h1. */
static inline void q5_k_run(__m512i q0, __m512i q1, __m512i h0, __m512i h1, int sub,
                            const float *scales, float *out)
{
    const __m512i nibble = _mm512_set1_epi32(15), rotation = _mm512_set1_epi32((sub + 28) % 32);
    const __m512 iota = ferrum_iota_avx512();
    const __m512 d = _mm512_set1_ps(scales[sub]), m = _mm512_set1_ps(scales[sub + 8]);
    const __m512 low = _mm512_fmsub_ps(d, iota, m);
    const __m512 high = _mm512_fmsub_ps(d, _mm512_add_ps(iota, _mm512_set1_ps(16)), m);
    /* bit `sub` comes to rest at position 4; 0xca selects: nibble ? q : h */
    const __m512i i0 = _mm512_ternarylogic_epi32(nibble, q0, _mm512_rorv_epi32(h0, rotation), 0xca);
    const __m512i i1 = _mm512_ternarylogic_epi32(nibble, q1, _mm512_rorv_epi32(h1, rotation), 0xca);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(low, i0, high));
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(low, i1, high));
}

void ferrum_dequant_q5_k_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 176) {
        float scales[16];
        const __m512i h0 = ferrum_widen_u8_avx512(p + 16), h1 = ferrum_widen_u8_avx512(p + 32);
        k_scales(p, scales);
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) {
            float *o = out + i + 64 * (size_t)c;
            const __m512i q0 = ferrum_widen_u8_avx512(p + 48 + 32 * c);
            const __m512i q1 = ferrum_widen_u8_avx512(p + 64 + 32 * c);
            q5_k_run(q0, q1, h0, h1, 2 * c, scales, o);
            q5_k_run(_mm512_srli_epi32(q0, 4), _mm512_srli_epi32(q1, 4), h0, h1, 2 * c + 1, scales,
                     o + 32);
        }
    }
}

void ferrum_dequant_q2_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 84) {
        float d[16], m[16];
        const __m512i packed = ferrum_widen_u8_avx512(p);
        const __m512i low = _mm512_and_si512(packed, _mm512_set1_epi32(15));
        _mm512_storeu_ps(
            d, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p + 80), _mm512_cvtepi32_ps(low)));
        _mm512_storeu_ps(m, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p + 82),
                                          _mm512_cvtepi32_ps(_mm512_srli_epi32(packed, 4))));
        /* 16 bytes of codes serve values 16 g' .. 16 g' + 15 for g' = g, g + 2, g + 4, g + 6 */
        for (size_t column = 0; column < 4; column++) {
            const size_t g = column / 2 * 8 + column % 2;
            __m512i q = ferrum_widen_u8_avx512(p + 16 + 16 * column);
            for (size_t run = g; run < g + 8; run += 2) {
                const __m512 table =
                    _mm512_fmsub_ps(_mm512_set1_ps(d[run]), levels, _mm512_set1_ps(m[run]));
                _mm512_storeu_ps(out + i + 16 * run, _mm512_permutevar_ps(table, q));
                q = _mm512_srli_epi32(q, 2);
            }
        }
    }
}

/** The sixteen scales d (sc - 32) of a Q3_K block. */
static inline void q3_k_scales(const uint8_t *p, float out[16])
{
    const uint32_t a = ferrum_load_u32(p + 96), b = ferrum_load_u32(p + 100);
    const uint32_t c = ferrum_load_u32(p + 104);
    const uint32_t s0 = (a & 0x0f0f0f0f) | (c << 4 & 0x30303030);
    const uint32_t s1 = (b & 0x0f0f0f0f) | (c << 2 & 0x30303030);
    const uint32_t s2 = (a >> 4 & 0x0f0f0f0f) | (c & 0x30303030);
    const uint32_t s3 = (b >> 4 & 0x0f0f0f0f) | (c >> 2 & 0x30303030);
    const __m512i scale = _mm512_cvtepu8_epi32(_mm_set_epi32((int)s3, (int)s2, (int)s1, (int)s0));
    const __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(scale, _mm512_set1_epi32(32)));
    _mm512_storeu_ps(out, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p + 108), value));
}

void ferrum_dequant_q3_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = _mm512_setr_ps(-4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2, -1, 0, 1, 2, 3);
    const __m512i low_bits = _mm512_set1_epi32(3);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 110) {
        float scales[16];
        q3_k_scales(p, scales);
        for (size_t column = 0; column < 4; column++) {
            const size_t g = column / 2 * 8 + column % 2;
            __m512i q = ferrum_widen_u8_avx512(p + 32 + 16 * column);
            __m512i h = ferrum_widen_u8_avx512(p + 16 * (column % 2));
            /* bit run/2 of h belongs at position 2, next to the two low bits */
            h = _mm512_rorv_epi32(h, _mm512_set1_epi32((int)((g / 2 + 30) % 32)));
            for (size_t run = g; run < g + 8; run += 2) {
                const __m512 table = _mm512_mul_ps(_mm512_set1_ps(scales[run]), levels);
                const __m512i index = _mm512_ternarylogic_epi32(low_bits, q, h, 0xca);
                _mm512_storeu_ps(out + i + 16 * run, _mm512_permutexvar_ps(index, table));
                q = _mm512_srli_epi32(q, 2);
                h = _mm512_ror_epi32(h, 1);
            }
        }
    }
}

/** 128 six-bit codes less 32, as signed bytes in order, from 64 bytes low and 32 bytes high. */
static inline void q6_k_codes(const uint8_t *low, const uint8_t *high, int8_t out[128])
{
    const __m512i nibble = _mm512_set1_epi8(15), pair = _mm512_set1_epi8(0x30);
    const __m512i offset = _mm512_set1_epi8(32);
    const __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)high);
    const __m512i hh = _mm512_broadcast_i64x4(h);
    const __m512i l = _mm512_loadu_si512(low);
    /* runs 0 and 1 want bits 0-1 and 2-3 of h at 4-5, runs 2 and 3 want bits 4-5 and 6-7 there */
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    const __m512i right = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
    const __m512i h01 = _mm512_and_si512(_mm512_sllv_epi16(hh, left), pair);
    const __m512i h23 = _mm512_and_si512(_mm512_srlv_epi16(hh, right), pair);
    /* 0xf8: h | (l & nibble) */
    const __m512i q01 = _mm512_ternarylogic_epi32(h01, l, nibble, 0xf8);
    const __m512i q23 = _mm512_ternarylogic_epi32(h23, _mm512_srli_epi16(l, 4), nibble, 0xf8);
    _mm512_storeu_si512(out, _mm512_sub_epi8(q01, offset));
    _mm512_storeu_si512(out + 64, _mm512_sub_epi8(q23, offset));
}

void ferrum_dequant_q6_k_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 210) {
        int8_t codes[BLOCK];
        float scales[16];
        q6_k_codes(p, p + 128, codes);
        q6_k_codes(p + 64, p + 160, codes + 128);
        _mm512_storeu_ps(scales, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p + 208),
                                               ferrum_widen_i8_avx512(p + 192)));
#pragma GCC unroll 4
        for (size_t g = 0; g < 16; g++)
            _mm512_storeu_ps(
                out + i + 16 * g,
                _mm512_mul_ps(_mm512_set1_ps(scales[g]), ferrum_widen_i8_avx512(codes + 16 * g)));
    }
}
