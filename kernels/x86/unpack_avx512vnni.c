/* SPDX-License-Identifier: MIT */
/*
 * Panels of every kind to codes that can be multiplied (see ferrum_unpacked_t). Codes of a kind
 * come from unpack_codes_avx512.h, scales and minima from here; what the two precisions do with
 * them is common.
 */
#include "kernels/x86/packed_avx512vnni.h"
#include "kernels/x86/unpack_codes_avx512.h"

#include <string.h>

enum {
    GROUP = FERRUM_PACKED_GROUP
};

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
    const uint8_t *p = u + (kind == FERRUM_PACKED_Q2_K   ? 16
                            : kind == FERRUM_PACKED_Q3_K ? 24
                            : kind == FERRUM_PACKED_Q4_K ? 32
                            : kind == FERRUM_PACKED_Q5_K ? 40
                                                         : 48) *
                               VECTOR;
    if (kind == FERRUM_PACKED_Q3_K) {
        unpack_q3_scales(p, out);
    } else if (kind == FERRUM_PACKED_Q6_K) {
        memcpy(out->s, p, sizeof out->s);
    } else if (kind == FERRUM_PACKED_Q2_K) {
        UNROLL for (uint32_t j = 0; j < 4; j++)
        {
            _mm512_store_si512(out->s[4 * j], low_nibbles(vector(p, j)));
            _mm512_store_si512(out->m[4 * j], high_nibbles(vector(p, j)));
        }
    } else {
        unpack_scale_min(p, out);
    }
    p += (kind == FERRUM_PACKED_Q2_K || kind == FERRUM_PACKED_Q6_K ? 16 : 12) * ROWS;
    out->d = halves_at(p);
    return kind == FERRUM_PACKED_Q3_K || kind == FERRUM_PACKED_Q6_K ? _mm512_setzero_ps()
                                                                    : halves_at(p + 2 * ROWS);
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

/** What turns bytes v + offset into words s * v: pairs of bytes are multiplied with (s, 0) for the
 *  even ones and (0, s) for the odd ones, then s * offset is subtracted. */
typedef struct factors {
    __m512i even, odd, less;
} factors_t;

/** Factors for integer scales of sixteen rows. */
INLINE factors_t factors_of(const int8_t *scales, int offset)
{
    const __m512i s = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)scales));
    const __m512i word =
        _mm512_shuffle_epi8(s, _mm512_set4_epi32(0x0d0c0d0c, 0x09080908, 0x05040504, 0x01000100));
    const __m512i even = _mm512_and_si512(word, _mm512_set1_epi16(255));
    return (factors_t){even, _mm512_slli_epi16(even, 8),
                       _mm512_mullo_epi16(word, _mm512_set1_epi16((short)offset))};
}

/** Factors for s = 1. */
INLINE factors_t factors_of_one(int offset)
{
    return (factors_t){_mm512_set1_epi16(1), _mm512_set1_epi16(256),
                       _mm512_set1_epi16((short)offset)};
}

/** Stores a group for either precision; @p factors: of its halves. */
INLINE void store_group(ferrum_packed_precision_t precision, const factors_t factors[2],
                        const __m512i code[STEPS], uint32_t g, ferrum_unpacked_t *out)
{
    if (precision == FERRUM_PACKED_FAST) {
        UNROLL for (uint32_t v = 0; v < STEPS; v++)
            _mm512_store_si512(out->code + (size_t)(g * STEPS + v) * VECTOR, code[v]);
        return;
    }
    UNROLL for (uint32_t v = 0; v < STEPS; v++)
    {
        const factors_t *f = &factors[v / 4];
        uint8_t *to = out->code + (size_t)(g * STEPS + v) * 2 * VECTOR;
        const __m512i even = _mm512_maddubs_epi16(code[v], f->even);
        const __m512i odd = _mm512_maddubs_epi16(code[v], f->odd);
        _mm512_store_si512(to, _mm512_sub_epi16(even, f->less));
        _mm512_store_si512(to + VECTOR, _mm512_sub_epi16(odd, f->less));
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

INLINE void unpack_k_block(const uint8_t *u, const uint8_t *ahead, size_t bytes,
                           ferrum_packed_kind_t kind, uint32_t fold,
                           ferrum_packed_precision_t precision, ferrum_unpacked_t *out)
{
    const bool halves = kind != FERRUM_PACKED_Q4_K && kind != FERRUM_PACKED_Q5_K;
    const bool minima = kind != FERRUM_PACKED_Q3_K && kind != FERRUM_PACKED_Q6_K;
    const int offset = offset_of(kind);
    scales_t scales;
    const __m512 dmin = unpack_k_scales(kind, u, &scales);
    for (uint32_t i = 0; i < (halves ? 16 : 8); i++) {
        const __m512 scale = _mm512_mul_ps(scales.d, bytes_f32(scales.s[i]));
        if (precision == FERRUM_PACKED_FAST)
            _mm512_store_ps(out->scale[i], scale);
        else if (i < FERRUM_PACKED_GROUPS / fold)
            _mm512_store_ps(out->scale[i], scales.d);
        if (minima)
            _mm512_store_ps(out->min[i],
                            _mm512_sub_ps(_mm512_mul_ps(dmin, bytes_f32(scales.m[i])),
                                          _mm512_mul_ps(scale, _mm512_set1_ps((float)offset))));
    }
    UNROLL for (uint32_t g = 0; g < FERRUM_PACKED_GROUPS; g++)
    {
        __m512i code[STEPS];
        prefetch_eighth(ahead, bytes, g);
        unpack_codes(kind, u, g, _mm512_setzero_si512(), code);
        const factors_t factors[2] = {factors_of(scales.s[halves ? 2 * g : g], offset),
                                      factors_of(scales.s[halves ? 2 * g + 1 : g], offset)};
        store_group(precision, factors, code, g, out);
    }
}

INLINE void unpack_block(const ferrum_packed_matrix_t *m, const uint8_t *panel,
                         const uint8_t *ahead, uint32_t first, uint32_t groups,
                         ferrum_packed_kind_t kind, uint32_t fold,
                         ferrum_packed_precision_t precision, ferrum_unpacked_t *out)
{
    const bool k_quant = kind >= FERRUM_PACKED_Q2_K && kind <= FERRUM_PACKED_Q6_K;
    const uint32_t per_unit = k_quant || kind == FERRUM_PACKED_IQ4_XS ? 8
                              : fold == 0                             ? m->unit / GROUP
                                                                      : 1;
    const size_t begin = first / per_unit * m->unit_bytes;
    const size_t bytes = groups * m->unit_bytes / per_unit;
    /* Without a panel ahead, what is read anyway. */
    ahead = (ahead ? ahead : panel) + begin;
    if (k_quant) {
        unpack_k_block(panel + begin, ahead, bytes, kind, fold, precision, out);
        return;
    }
    if (fold == 0)
        fold = ferrum_packed_fold(m);
    const factors_t one = factors_of_one(offset_of(kind)), factors[2] = {one, one};
    for (uint32_t g = 0; g < groups; g++) {
        const uint8_t *u = panel + (first + g) / per_unit * m->unit_bytes;
        const uint32_t j = (first + g) % per_unit;
        __m512 min = _mm512_setzero_ps();
        __m512i zero = _mm512_setzero_si512(), code[STEPS];
        prefetch_eighth(ahead, bytes, g);
        const __m512 scale = unpack_scale(m, kind, u, j, &min, &zero);
        unpack_codes(kind, u, j, zero, code);
        _mm512_store_ps(out->scale[precision == FERRUM_PACKED_FAST ? g : g / fold], scale);
        _mm512_store_ps(out->min[g], min);
        store_group(precision, factors, code, g, out);
    }
}

#define DEFINE(kind, fold)                                                                         \
    static void fast_##kind(const ferrum_packed_matrix_t *m, const uint8_t *panel,                 \
                            const uint8_t *ahead, uint32_t first, uint32_t groups,                 \
                            ferrum_unpacked_t *out)                                                \
    {                                                                                              \
        unpack_block(m, panel, ahead, first, groups, FERRUM_PACKED_##kind, fold,                   \
                     FERRUM_PACKED_FAST, out);                                                     \
    }                                                                                              \
    static void accurate_##kind(const ferrum_packed_matrix_t *m, const uint8_t *panel,             \
                                const uint8_t *ahead, uint32_t first, uint32_t groups,             \
                                ferrum_unpacked_t *out)                                            \
    {                                                                                              \
        unpack_block(m, panel, ahead, first, groups, FERRUM_PACKED_##kind, fold,                   \
                     FERRUM_PACKED_ACCURATE, out);                                                 \
    }
#define ROW(kind, fold) [FERRUM_PACKED_##kind] = {fast_##kind, accurate_##kind},
/** Kinds with their folds, as in ferrum_packed_traits(). */
#define KINDS(X)                                                                                   \
    X(Q4_0, 1)                                                                                     \
    X(Q4_1, 1)                                                                                     \
    X(Q5_0, 1)                                                                                     \
    X(Q5_1, 1)                                                                                     \
    X(Q8_0, 1)                                                                                     \
    X(IQ4_NL, 1)                                                                                   \
    X(MXFP4, 1)                                                                                    \
    X(Q2_K, 8)                                                                                     \
    X(Q3_K, 8)                                                                                     \
    X(Q4_K, 4)                                                                                     \
    X(Q5_K, 2)                                                                                     \
    X(Q6_K, 1)                                                                                     \
    X(IQ4_XS, 1)                                                                                   \
    X(GPTQ4, 0)                                                                                    \
    X(GPTQ8, 0)

KINDS(DEFINE)

ferrum_unpack_fn *const ferrum_unpack_avx512vnni[FERRUM_PACKED_KINDS][2] = {KINDS(ROW)};
