/* SPDX-License-Identifier: MIT */
/*
 * Panels of every kind to codes that can be multiplied (see ferrum_unpacked_t). Codes of a kind
 * come from unpack_codes_avx512.h, scales and minima from here; what the two precisions do with
 * them is common.
 */
#include "kernels/x86/packed_avx512vnni.h"
#include "kernels/x86/unpack_codes_avx512.h"
#include "kernels/x86/unpack_scales_avx512.h"

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
    const bool k_quant = is_k_quant(kind);
    const uint32_t per_unit = groups_per_unit(m, kind);
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

#define DEFINE(kind, fold, pass, fast)                                                             \
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
#define ROW(kind, fold, pass, fast) [FERRUM_PACKED_##kind] = {fast_##kind, accurate_##kind},
FERRUM_PACKED_EACH_KIND(DEFINE)

ferrum_unpack_fn *const ferrum_unpack_avx512vnni[FERRUM_PACKED_KINDS][2] = {
    FERRUM_PACKED_EACH_KIND(ROW)};
