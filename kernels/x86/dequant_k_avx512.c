/* SPDX-License-Identifier: MIT */
/* Decoders of the 256-value "k" formats; layouts as in dequant_k_scalar.c.
 *
 * The scales of a block are widened to f32 together and read back as broadcasts. In Q4_K, scale and
 * minimum make a table of the 16 values that a code can mean, and one permute decodes 16 values; it
 * ignores the upper index bits, so codes need no masking. In the other formats the parts of a code
 * are put together as bytes, 64 at a time, and the bytes become d code - m. */
#include "kernels/x86/avx512.h"

enum {
    BLOCK = 256
};

/** 16 floats that are stored as one vector and loaded as broadcasts. */
typedef struct scales {
    _Alignas(64) float v[16];
} scales_t;

/** Store @p v where the compiler cannot turn reading it back into shuffles; see
 *  ferrum_broadcast_avx512(). */
static inline void store_scales(scales_t *out, __m512 v)
{
    _mm512_store_ps(out->v, v);
    __asm__("" : "+m"(*out));
}

/** The same 32 bytes in both halves. */
static inline __m512i twice(const uint8_t *p)
{
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/** @p low in the lower, @p high in the upper half, as counts of 32-bit or 16-bit shifts. */
static inline __m512i counts32(int low, int high)
{
    return _mm512_inserti64x4(_mm512_set1_epi32(low), _mm256_set1_epi32(high), 1);
}

static inline __m512i counts16(short low, short high)
{
    return _mm512_inserti64x4(_mm512_set1_epi16(low), _mm256_set1_epi16(high), 1);
}

/** (a & mask_a) | (b & mask_b) */
static inline __m512i merge(__m512i a, char mask_a, __m512i b, char mask_b)
{
    const __m512i kept = _mm512_and_si512(a, _mm512_set1_epi8(mask_a));
    return _mm512_ternarylogic_epi32(kept, b, _mm512_set1_epi8(mask_b), 0xf8);
}

/** out = d code for 256 bytes of codes, one scale per 16. */
static inline void expand(const int8_t codes[BLOCK], const scales_t *d, float *out)
{
#pragma GCC unroll 16
    for (size_t g = 0; g < 16; g++) {
        const __m512 value = ferrum_widen_i8_avx512(codes + 16 * g);
        _mm512_storeu_ps(out + 16 * g, _mm512_mul_ps(_mm512_set1_ps(d->v[g]), value));
    }
}

/** The eight scales d sc and then the eight minimums dmin mn of a Q4_K or Q5_K block. */
static inline void k_scales(const uint8_t *p, scales_t *out)
{
    /* bytes 4-15 are the words a, b, c; the lanes become a, a, b, b and c, c, c, c */
    const __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)p);
    const __m128i ab = _mm_shuffle_epi32(packed, 0xa5);
    const __m128i c = _mm_set1_epi32((int)ferrum_load_u32(p + 12));
    const __m128i top =
        _mm_and_si128(_mm_srlv_epi32(ab, _mm_setr_epi32(0, 2, 0, 2)),
                      _mm_setr_epi32(0x3f3f3f3f, 0x30303030, 0x3f3f3f3f, 0x30303030));
    const __m128i low = _mm_and_si128(_mm_srlv_epi32(c, _mm_setr_epi32(0, 0, 0, 4)),
                                      _mm_setr_epi32(0, 0x0f0f0f0f, 0, 0x0f0f0f0f));
    const __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_or_si128(top, low)));
    const __m512 d = ferrum_broadcast_f16_avx512(p), m = ferrum_broadcast_f16_avx512(p + 2);
    store_scales(out, _mm512_mul_ps(_mm512_mask_blend_ps(0xff00, d, m), value));
}

void ferrum_dequant_q4_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512 iota = ferrum_iota_avx512();
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 144) {
        scales_t s;
        k_scales(p, &s);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            float *o = out + i + 64 * c;
            const __m512i q0 = ferrum_widen_u8_avx512(p + 16 + 32 * c);
            const __m512i q1 = ferrum_widen_u8_avx512(p + 32 + 32 * c);
            __m512 table =
                _mm512_fmsub_ps(_mm512_set1_ps(s.v[2 * c]), iota, _mm512_set1_ps(s.v[2 * c + 8]));
            _mm512_storeu_ps(o, _mm512_permutexvar_ps(q0, table));
            _mm512_storeu_ps(o + 16, _mm512_permutexvar_ps(q1, table));
            table = _mm512_fmsub_ps(_mm512_set1_ps(s.v[2 * c + 1]), iota,
                                    _mm512_set1_ps(s.v[2 * c + 9]));
            _mm512_storeu_ps(o + 32, _mm512_permutexvar_ps(_mm512_srli_epi32(q0, 4), table));
            _mm512_storeu_ps(o + 48, _mm512_permutexvar_ps(_mm512_srli_epi32(q1, 4), table));
        }
    }
}

void ferrum_dequant_q5_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512i nibble_shift = counts16(0, 4);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 176) {
        _Alignas(64) int8_t codes[BLOCK];
        const __m512i h = twice(p + 16);
        /* rotates bit 0, in the upper half bit 1, to position 4; two more for each 64 values */
        __m512i rotation = counts32(28, 29);
        scales_t s;
        k_scales(p, &s);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            const __m512i q = _mm512_srlv_epi16(twice(p + 48 + 32 * c), nibble_shift);
            _mm512_store_si512(codes + 64 * c, merge(_mm512_rorv_epi32(h, rotation), 16, q, 15));
            rotation = _mm512_add_epi32(rotation, _mm512_set1_epi32(2));
        }
#pragma GCC unroll 8
        for (size_t sub = 0; sub < 8; sub++) {
            const __m512 d = _mm512_set1_ps(s.v[sub]), m = _mm512_set1_ps(s.v[sub + 8]);
            const __m512 low = ferrum_widen_i8_avx512(codes + 32 * sub);
            const __m512 high = ferrum_widen_i8_avx512(codes + 32 * sub + 16);
            _mm512_storeu_ps(out + i + 32 * sub, _mm512_fmsub_ps(d, low, m));
            _mm512_storeu_ps(out + i + 32 * sub + 16, _mm512_fmsub_ps(d, high, m));
        }
    }
}

void ferrum_dequant_q6_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512i offset = _mm512_set1_epi8(32);
    const __m512i left = counts16(4, 2), right = counts16(0, 2);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 210) {
        _Alignas(64) int8_t codes[BLOCK];
        scales_t s;
        store_scales(&s, _mm512_mul_ps(ferrum_broadcast_last_f16_avx512(p + 208),
                                       ferrum_widen_i8_avx512(p + 192)));
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const __m512i low = _mm512_loadu_si512(p + 64 * half),
                          high = twice(p + 128 + 32 * half);
            /* bits 0-1, 2-3 of the high bytes belong to the first 64 values, 4-5, 6-7 to the rest
             */
            const __m512i q0 = merge(_mm512_sllv_epi16(high, left), 0x30, low, 15);
            const __m512i q1 =
                merge(_mm512_srlv_epi16(high, right), 0x30, _mm512_srli_epi16(low, 4), 15);
            _mm512_store_si512(codes + 128 * half, _mm512_sub_epi8(q0, offset));
            _mm512_store_si512(codes + 128 * half + 64, _mm512_sub_epi8(q1, offset));
        }
        expand(codes, &s, out + i);
    }
}

void ferrum_dequant_q2_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512i code_mask = _mm512_set1_epi8(3);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 84) {
        _Alignas(64) int8_t codes[BLOCK];
        scales_t d, m;
        const __m512i packed = ferrum_widen_u8_avx512(p);
        const __m512i scale = _mm512_and_si512(packed, _mm512_set1_epi32(15));
        const __m512i min = _mm512_srli_epi32(packed, 4);
        store_scales(
            &d, _mm512_mul_ps(ferrum_broadcast_last_f16_avx512(p + 80), _mm512_cvtepi32_ps(scale)));
        store_scales(
            &m, _mm512_mul_ps(ferrum_broadcast_last_f16_avx512(p + 82), _mm512_cvtepi32_ps(min)));
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            const __m512i shift = c % 2 ? counts16(4, 6) : counts16(0, 2);
            const __m512i q = _mm512_srlv_epi16(twice(p + 16 + 32 * (c / 2)), shift);
            _mm512_store_si512(codes + 64 * c, _mm512_and_si512(q, code_mask));
        }
#pragma GCC unroll 16
        for (size_t g = 0; g < 16; g++)
            _mm512_storeu_ps(out + i + 16 * g,
                             _mm512_fmsub_ps(_mm512_set1_ps(d.v[g]),
                                             ferrum_widen_i8_avx512(codes + 16 * g),
                                             _mm512_set1_ps(m.v[g])));
    }
}

/** The sixteen scales d (sc - 32) of a Q3_K block. */
static inline void q3_k_scales(const uint8_t *p, scales_t *out)
{
    /* bytes 96-107 are the words a, b, c; the lanes become a, b, a, b and c, c, c, c */
    const __m128i ab = _mm_set1_epi64x(
        (long long)(ferrum_load_u32(p + 96) | (uint64_t)ferrum_load_u32(p + 100) << 32));
    const __m128i c = _mm_set1_epi32((int)ferrum_load_u32(p + 104));
    const __m128i low =
        _mm_and_si128(_mm_srlv_epi32(ab, _mm_setr_epi32(0, 0, 4, 4)), _mm_set1_epi8(15));
    const __m128i pairs = _mm_srlv_epi32(c, _mm_setr_epi32(0, 2, 4, 6));
    const __m128i high = _mm_slli_epi32(_mm_and_si128(pairs, _mm_set1_epi8(3)), 4);
    const __m128i scale = _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32));
    const __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scale));
    store_scales(out, _mm512_mul_ps(ferrum_broadcast_last_f16_avx512(p + 108), value));
}

void ferrum_dequant_q3_k_avx512(const void *blocks, float *out, size_t n)
{
    const __m512i offset = _mm512_set1_epi8(4);
    const uint8_t *p = blocks;

    for (size_t i = 0; i < n; i += BLOCK, p += 110) {
        _Alignas(64) int8_t codes[BLOCK];
        const __m512i h = twice(p);
        /* rotates bit 0, in the upper half bit 1, to position 2; two more for each 64 values */
        __m512i rotation = counts32(30, 31);
        scales_t s;
        q3_k_scales(p, &s);
#pragma GCC unroll 4
        for (size_t c = 0; c < 4; c++) {
            const __m512i shift = c % 2 ? counts16(4, 6) : counts16(0, 2);
            const __m512i q = _mm512_srlv_epi16(twice(p + 32 + 32 * (c / 2)), shift);
            const __m512i code = merge(_mm512_rorv_epi32(h, rotation), 4, q, 3);
            _mm512_store_si512(codes + 64 * c, _mm512_sub_epi8(code, offset));
            rotation = _mm512_add_epi32(rotation, _mm512_set1_epi32(2));
        }
        expand(codes, &s, out + i);
    }
}
