/* SPDX-License-Identifier: MIT */
/* Decoders of the 32-value formats and of the 4-bit formats with levels; layouts as in
 * dequant_legacy_scalar.c and dequant_iq4_scalar.c.
 *
 * A block's scale makes a table of the 16 values that a code can mean, so decoding is one permute
 * per 16 values. The permute looks only at the low 4 index bits (5 for a table in two registers),
 * which saves masking the codes. */
#include "kernels/x86/avx512.h"

static inline __m512 level_constants_iq4(void)
{
    return _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

static inline __m512 level_constants_mxfp4(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}

/** 32 values from 16 bytes of nibbles and the values that nibbles stand for. */
static inline void decode_nibbles(const uint8_t *q, __m512 table, float *out)
{
    const __m512i codes = ferrum_widen_u8_avx512(q);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(codes, table));
    _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(_mm512_srli_epi32(codes, 4), table));
}

/** As decode_nibbles, with bit i of @p high as the fifth bit of value i. */
static inline void decode_five_bits(const uint8_t *q, uint32_t high, __m512 table_low,
                                    __m512 table_high, float *out)
{
    const __m512i rotation =
        _mm512_setr_epi32(28, 29, 30, 31, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    const __m512i nibble = _mm512_set1_epi32(15);
    const __m512i codes = ferrum_widen_u8_avx512(q);
    const __m512i bits = _mm512_set1_epi32((int)high);
    /* bit i, or i + 16, comes to rest at position 4 */
    const __m512i bits_low = _mm512_rorv_epi32(bits, rotation);
    const __m512i bits_high = _mm512_rorv_epi32(bits_low, _mm512_set1_epi32(16));

    /* 0xca selects: nibble ? codes : bits */
    __m512i index = _mm512_ternarylogic_epi32(nibble, codes, bits_low, 0xca);
    _mm512_storeu_ps(out, _mm512_permutex2var_ps(table_low, index, table_high));
    index = _mm512_ternarylogic_epi32(nibble, _mm512_srli_epi32(codes, 4), bits_high, 0xca);
    _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(table_low, index, table_high));
}

void ferrum_dequant_q4_0_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = _mm512_sub_ps(ferrum_iota_avx512(), _mm512_set1_ps(8));
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        decode_nibbles(p + 2, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p), levels), out + i);
}

void ferrum_dequant_q4_1_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 20) {
        const __m512 d = ferrum_broadcast_f16_avx512(p), m = ferrum_broadcast_f16_avx512(p + 2);
        decode_nibbles(p + 4, _mm512_fmadd_ps(d, ferrum_iota_avx512(), m), out + i);
    }
}

void ferrum_dequant_q5_0_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 high_levels = ferrum_iota_avx512();
    const __m512 low_levels = _mm512_sub_ps(high_levels, _mm512_set1_ps(16));
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 22) {
        const __m512 d = ferrum_broadcast_f16_avx512(p);
        decode_five_bits(p + 6, ferrum_load_u32(p + 2), _mm512_mul_ps(d, low_levels),
                         _mm512_mul_ps(d, high_levels), out + i);
    }
}

void ferrum_dequant_q5_1_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 low_levels = ferrum_iota_avx512();
    const __m512 high_levels = _mm512_add_ps(low_levels, _mm512_set1_ps(16));
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 24) {
        const __m512 d = ferrum_broadcast_f16_avx512(p), m = ferrum_broadcast_f16_avx512(p + 2);
        decode_five_bits(p + 8, ferrum_load_u32(p + 4), _mm512_fmadd_ps(d, low_levels, m),
                         _mm512_fmadd_ps(d, high_levels, m), out + i);
    }
}

void ferrum_dequant_q8_0_avx512(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 34) {
        const __m512 d = ferrum_broadcast_f16_avx512(p);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(d, ferrum_widen_i8_avx512(p + 2)));
        _mm512_storeu_ps(out + i + 16, _mm512_mul_ps(d, ferrum_widen_i8_avx512(p + 18)));
    }
}

void ferrum_dequant_iq4_nl_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = level_constants_iq4();
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        decode_nibbles(p + 2, _mm512_mul_ps(ferrum_broadcast_f16_avx512(p), levels), out + i);
}

void ferrum_dequant_mxfp4_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = level_constants_mxfp4();
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 17) {
        const __m512 d = ferrum_broadcast_avx512(ferrum_e8m0_half_to_f32(p[0]));
        decode_nibbles(p + 1, _mm512_mul_ps(d, levels), out + i);
    }
}

/** The eight scales d (sc - 32) of an IQ4_XS block. */
static inline void iq4_xs_scales(const uint8_t *p, float out_scales[8])
{
    const __m256i low_shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i high_shift = _mm256_srli_epi32(low_shift, 1);
    const __m256i low =
        _mm256_srlv_epi32(_mm256_set1_epi32((int)ferrum_load_u32(p + 4)), low_shift);
    const __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(ferrum_load_u16(p + 2)), high_shift);
    const __m256i scale =
        _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(15)),
                        _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4));
    const __m256 d = _mm512_castps512_ps256(ferrum_broadcast_f16_avx512(p));
    const __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(scale, _mm256_set1_epi32(32)));
    _mm256_store_ps(out_scales, _mm256_mul_ps(d, value));
}

void ferrum_dequant_iq4_xs_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 levels = level_constants_iq4();
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 256, p += 136) {
        _Alignas(32) float scales[8];
        iq4_xs_scales(p, scales);
        for (size_t sub = 0; sub < 8; sub++)
            decode_nibbles(p + 8 + 16 * sub,
                           _mm512_mul_ps(ferrum_broadcast_avx512(scales[sub]), levels),
                           out + i + 32 * sub);
    }
}
