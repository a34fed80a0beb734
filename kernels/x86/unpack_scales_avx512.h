/* SPDX-License-Identifier: MIT */
/**
 * @file unpack_scales_avx512.h
 * @brief Scales and minima of a panel's units, and reading ahead; kinds and groups are compile-time
 *        constants where this is used.
 */
#ifndef FERRUM_KERNELS_UNPACK_SCALES_AVX512_H
#define FERRUM_KERNELS_UNPACK_SCALES_AVX512_H

#include "kernels/x86/unpack_codes_avx512.h"

#include <string.h>

enum {
    GROUP = FERRUM_PACKED_GROUP
};

/** Kinds with one d per unit and integer scales. */
INLINE bool is_k_quant(ferrum_packed_kind_t kind)
{
    return kind >= FERRUM_PACKED_Q2_K && kind <= FERRUM_PACKED_Q6_K;
}

INLINE uint32_t groups_per_unit(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind)
{
    if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8)
        return m->unit / GROUP;
    return is_k_quant(kind) || kind == FERRUM_PACKED_IQ4_XS ? FERRUM_PACKED_GROUPS : 1;
}

/** Scales of the groups of a unit, sixteen rows each. Group g (half h) has `d * s` with integer s:
 *  d[0] and s[g] (s[2g+h]) of a k-quant; other kinds have d[g], and no s. */
typedef struct scales {
    __m512 d;
    _Alignas(64) int8_t s[FERRUM_PACKED_HALVES][ROWS];
    _Alignas(64) uint8_t m[FERRUM_PACKED_HALVES][ROWS];
} scales_t;

INLINE __m512 halves_at(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE __m512 bytes_f32(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

/** The twelve scale bytes of Q4_K and Q5_K: 6-bit scales and minima. */
INLINE void unpack_scale_min(const uint8_t *p, scales_t *out)
{
    const __m512i a = vector(p, 0), b = vector(p, 1), c = vector(p, 2);
    const __m512i six = _mm512_set1_epi8(63), top = _mm512_set1_epi8(0x30);
    _mm512_store_si512(out->s[0], _mm512_and_si512(a, six));
    _mm512_store_si512(out->m[0], _mm512_and_si512(b, six));
    _mm512_store_si512(
        out->s[4], _mm512_or_si512(low_nibbles(c), _mm512_and_si512(_mm512_srli_epi16(a, 2), top)));
    _mm512_store_si512(out->m[4], _mm512_or_si512(high_nibbles(c),
                                                  _mm512_and_si512(_mm512_srli_epi16(b, 2), top)));
}

/** The twelve scale bytes of Q3_K. */
INLINE void unpack_q3_scales(const uint8_t *p, scales_t *out)
{
    const __m512i top = vector(p, 2), two = _mm512_set1_epi8(0x30);
    UNROLL for (uint32_t j = 0; j < 4; j++)
    {
        const __m512i both = vector(p, j % 2);
        const __m512i low = j < 2 ? low_nibbles(both) : high_nibbles(both);
        const __m512i high = shifted(top, 2 * (int)j - 4);
        _mm512_store_si512(out->s[4 * j],
                           _mm512_sub_epi8(_mm512_or_si512(low, _mm512_and_si512(high, two)),
                                           _mm512_set1_epi8(32)));
    }
}

/** d and integer scales (and minima) of a unit of a k-quant. Returns dmin, if the kind has one. */
INLINE __m512 unpack_k_scales(ferrum_packed_kind_t kind, const uint8_t *u, scales_t *out)
{
    if (kind == FERRUM_PACKED_Q3_K) {
        unpack_q3_scales(u, out);
    } else if (kind == FERRUM_PACKED_Q6_K) {
        memcpy(out->s, u, sizeof out->s);
    } else if (kind == FERRUM_PACKED_Q2_K) {
        UNROLL for (uint32_t j = 0; j < 4; j++)
        {
            _mm512_store_si512(out->s[4 * j], low_nibbles(vector(u, j)));
            _mm512_store_si512(out->m[4 * j], high_nibbles(vector(u, j)));
        }
    } else {
        unpack_scale_min(u, out);
    }
    const uint8_t *d =
        u + (kind == FERRUM_PACKED_Q2_K || kind == FERRUM_PACKED_Q6_K ? 16 : 12) * ROWS;
    out->d = halves_at(d);
    return kind == FERRUM_PACKED_Q3_K || kind == FERRUM_PACKED_Q6_K ? _mm512_setzero_ps()
                                                                    : halves_at(d + 2 * ROWS);
}

INLINE __m512 e8m0_half(const uint8_t *p)
{
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    const __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(small, normal, subnormal));
}

/** Scale of a group of a kind without integer scales; the minimum where there is one. */
INLINE __m512 unpack_scale(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind,
                           const uint8_t *u, uint32_t g, __m512 *out_min, __m512i *out_zero)
{
    const bool five = kind == FERRUM_PACKED_Q5_0 || kind == FERRUM_PACKED_Q5_1;
    if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8) {
        const uint8_t *p = u + (size_t)m->unit / (kind == FERRUM_PACKED_GPTQ4 ? 8 : 4) * VECTOR;
        const bool wide = m->scale_dtype == FERRUM_DTYPE_F32;
        const __m512i zero = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const void *)(p + (size_t)(wide ? 4 : 2) * ROWS)));
        const __m512 scale =
            wide ? _mm512_loadu_ps((const void *)p)
            : m->scale_dtype == FERRUM_DTYPE_F16
                ? halves_at(p)
                : _mm512_castsi512_ps(_mm512_slli_epi32(
                      _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
        const __m512i spread = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
        *out_zero = _mm512_sub_epi8(_mm512_set1_epi8(16), _mm512_shuffle_epi8(zero, spread));
        *out_min = _mm512_mul_ps(
            scale, _mm512_cvtepi32_ps(_mm512_sub_epi32(zero, _mm512_set1_epi32(128))));
        return scale;
    }
    if (kind == FERRUM_PACKED_IQ4_XS) {
        const uint8_t *p = u + 32 * VECTOR;
        const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p + 32)));
        const __m512i low =
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p + 64 + g / 2 * ROWS)));
        const __m512i top = _mm512_and_si512(
            _mm512_srl_epi32(high, _mm_cvtsi32_si128((int)(2 * g))), _mm512_set1_epi32(3));
        const __m512i bottom =
            low_nibbles(_mm512_srl_epi32(low, _mm_cvtsi32_si128((int)(g % 2 * 4))));
        const __m512i s = _mm512_or_si512(_mm512_and_si512(bottom, _mm512_set1_epi32(15)),
                                          _mm512_slli_epi32(top, 4));
        return _mm512_mul_ps(halves_at(p),
                             _mm512_cvtepi32_ps(_mm512_sub_epi32(s, _mm512_set1_epi32(32))));
    }
    u += (kind == FERRUM_PACKED_Q8_0 ? 8 : five ? 5 : 4) * VECTOR;
    if (kind == FERRUM_PACKED_MXFP4)
        return e8m0_half(u);
    if (kind == FERRUM_PACKED_Q4_1 || kind == FERRUM_PACKED_Q5_1)
        *out_min = _mm512_sub_ps(_mm512_set1_ps(-0.0F), halves_at(u + 2 * ROWS));
    return halves_at(u);
}

INLINE int offset_of(ferrum_packed_kind_t kind)
{
    switch (kind) {
    case FERRUM_PACKED_Q4_1:
    case FERRUM_PACKED_Q5_1:
    case FERRUM_PACKED_Q2_K:
        return 0;
    case FERRUM_PACKED_Q3_K:
        return 4;
    case FERRUM_PACKED_Q4_0:
    case FERRUM_PACKED_Q4_K:
        return 8;
    case FERRUM_PACKED_MXFP4:
        return 12;
    case FERRUM_PACKED_Q5_0:
    case FERRUM_PACKED_Q5_K:
    case FERRUM_PACKED_GPTQ4:
        return 16;
    case FERRUM_PACKED_Q6_K:
        return 32;
    default:
        return 128;
    }
}

/** Ask for eighth @p g of @p bytes: a few lines at a time leave the load units to the rest. To the
 *  second-level cache, since it is a while until they are read. */
INLINE void prefetch_eighth(const uint8_t *from, size_t bytes, uint32_t g)
{
    const size_t step = (bytes + 8 * VECTOR - 1) / (8 * VECTOR) * VECTOR;
    for (size_t at = g * step; at < (g + 1) * step && at < bytes; at += VECTOR)
        _mm_prefetch((const char *)from + at, _MM_HINT_T1);
}

#endif /* FERRUM_KERNELS_UNPACK_SCALES_AVX512_H */
