/* SPDX-License-Identifier: MIT */
/* Activations to 16- or 8-bit codes, a block of 256 at a time; the same bits as the reference. */
#include "kernels/x86/packed_avx512vnni.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum {
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    HALF = GROUP / 2
};

/** Where code i of sixteen values comes from; see ferrum_packed_source(). */
static __m512i order_of(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision)
{
    int32_t order[HALF];
    for (uint32_t i = 0; i < HALF; i++)
        order[i] = (int32_t)ferrum_packed_source(kind, precision, i);
    return _mm512_loadu_si512(order);
}

static __m512 load(const float *x, const uint32_t *perm, uint32_t at)
{
    if (!perm)
        return _mm512_loadu_ps(x + at);
    return _mm512_i32gather_ps(_mm512_loadu_si512(perm + at), x, 4);
}

/** What is known of a run of values: the largest magnitudes lane by lane, and which were too large
 *  or no number. */
typedef struct range {
    __m512 largest;
    __mmask16 wild;
} range_t;

static range_t grow(range_t range, __m512 v)
{
    const __m512 size = _mm512_abs_ps(v);
    range.wild |= _mm512_cmp_ps_mask(size, _mm512_set1_ps(FERRUM_PACKED_HUGE), _CMP_NLE_UQ);
    range.largest = _mm512_max_ps(range.largest, size);
    return range;
}

/** Scale for codes up to @p top; returns its inverse, or 0 where all codes are to be zero. */
static float scale_for(range_t range, float top, float *out_scale)
{
    const float largest = range.wild ? NAN : _mm512_reduce_max_ps(range.largest);
    const bool tiny = largest < FERRUM_PACKED_TINY;
    *out_scale = tiny ? 0 : largest / top;
    return tiny || range.wild ? 0 : top / largest;
}

/** Codes of sixteen values; all zero when there is no inverse, whatever the values. */
static __m512i codes_of(__m512 v, float inverse, __m512i order)
{
    const __mmask16 keep = inverse != 0 ? 0xffff : 0;
    const __m512i code = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(v, _mm512_set1_ps(inverse)));
    return _mm512_permutexvar_epi32(order, code);
}

static void quantise_fast(const ferrum_packed_traits_t *traits, const __m512 *v, uint32_t groups,
                          __m512i order, ferrum_packed_fast_t *out)
{
    for (uint32_t g = 0; g < groups; g++, v += 2) {
        const range_t range = grow(grow((range_t){_mm512_setzero_ps(), 0}, v[0]), v[1]);
        float scale;
        const float inverse = scale_for(range, 127.0F, &scale);
        if (inverse != 0) { /* keep 22 bits of the mantissa */
            uint32_t bits;
            memcpy(&bits, &scale, sizeof bits);
            bits &= ~3u;
            memcpy(&scale, &bits, sizeof bits);
        }
        int32_t sum[2];
        for (uint32_t h = 0; h < 2; h++) {
            const __m512i code = codes_of(v[h], inverse, order);
            sum[h] = _mm512_reduce_add_epi32(code);
            _mm_storeu_si128((void *)(out->code + g * GROUP + h * HALF),
                             _mm512_cvtepi32_epi8(code));
        }
        out->scale[g] = scale;
        out->bias[g] = -FERRUM_PACKED_MAGIC * scale;
        if (!traits->halves)
            sum[0] += sum[1];
        for (uint32_t h = 0; h < (traits->halves ? 2 : 1); h++) {
            const uint32_t i = traits->halves ? 2 * g + h : g;
            out->start[i] = FERRUM_PACKED_MAGIC_BITS - traits->offset * sum[h];
            out->sum[i] = scale * (float)sum[h];
        }
    }
}

static void quantise_accurate(const ferrum_packed_traits_t *traits, const __m512 *v,
                              uint32_t groups, __m512i order, ferrum_packed_accurate_t *out)
{
    range_t range = {_mm512_setzero_ps(), 0};
    for (uint32_t i = 0; i < 2 * groups; i++)
        range = grow(range, v[i]);
    const float inverse = scale_for(range, traits->top, &out->scale);
    for (uint32_t g = 0; g < groups; g++, v += 2) {
        const __m512i low = codes_of(v[0], inverse, order), high = codes_of(v[1], inverse, order);
        int16_t *codes = out->code + g * GROUP;
        _mm256_storeu_si256((void *)codes, _mm512_cvtepi32_epi16(low));
        _mm256_storeu_si256((void *)(codes + HALF), _mm512_cvtepi32_epi16(high));
        if (traits->halves) {
            out->sum[2 * g] = out->scale * (float)_mm512_reduce_add_epi32(low);
            out->sum[2 * g + 1] = out->scale * (float)_mm512_reduce_add_epi32(high);
        } else {
            const __m512i both = _mm512_add_epi32(low, high);
            out->sum[g] = out->scale * (float)_mm512_reduce_add_epi32(both);
        }
    }
}

void ferrum_packed_quantise_avx512vnni(ferrum_packed_kind_t kind,
                                       ferrum_packed_precision_t precision, const float *x,
                                       const uint32_t *perm, uint32_t k, uint8_t *out)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    const __m512i order = order_of(kind, precision);
    const size_t size = ferrum_packed_row_bytes(BLOCK, precision);
    for (uint32_t at = 0; at < k; at += BLOCK, out += size) {
        const uint32_t groups = k - at < BLOCK ? (k - at) / GROUP : GROUPS;
        __m512 v[2 * GROUPS];
        for (uint32_t i = 0; i < 2 * groups; i++)
            v[i] = load(x, perm, at + i * HALF);
        memset(out, 0, size);
        if (precision == FERRUM_PACKED_FAST)
            quantise_fast(traits, v, groups, order, (ferrum_packed_fast_t *)(void *)out);
        else
            quantise_accurate(traits, v, groups, order, (ferrum_packed_accurate_t *)(void *)out);
    }
}
