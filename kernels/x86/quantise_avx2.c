/* SPDX-License-Identifier: MIT */
/* Activations to records of 8- or 15-bit codes with AVX2; the same bits as the reference. */
#include "kernels/x86/packed_avx2.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum {
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    PARTS = GROUP / 8,
    FAST_TOP = 127
};

#define EACH_PART(i) _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; i++)

/** The order of ferrum_packed_source() within eight values. */
static __m256i order_of(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision)
{
    int32_t order[8];
    for (uint32_t i = 0; i < 8; i++)
        order[i] = (int32_t)ferrum_packed_source(kind, precision, i);
    return _mm256_loadu_si256((const void *)order);
}

static __m256 magnitude(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), v);
}

static float max_lanes(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

static int32_t sum_lanes(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_srli_epi64(s, 32)));
}

/** Sixteen 16-bit values from two registers, in order. */
static void store_words(int16_t *to, __m256i a, __m256i b)
{
    const __m256i words = _mm256_packs_epi32(a, b);
    _mm256_storeu_si256((void *)to, _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0)));
}

/** 32 bytes from four registers, in order. */
static void store_bytes(int8_t *to, const __m256i v[PARTS])
{
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256(
        (void *)to, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

static void load_group(const float *x, const uint32_t *perm, uint32_t at, __m256 v[PARTS])
{
    EACH_PART(i)
    {
        const uint32_t from = at + 8 * (uint32_t)i;
        v[i] = perm ? _mm256_i32gather_ps(x, _mm256_loadu_si256((const void *)(perm + from)), 4)
                    : _mm256_loadu_ps(x + from);
    }
}

/** Lanes of the largest magnitudes; where a value is not finite or huge, NaN. */
static __m256 largest_of(const __m256 v[PARTS], __m256 largest)
{
    EACH_PART(i)
    {
        const __m256 size = magnitude(v[i]);
        const __m256 bad = _mm256_cmp_ps(size, _mm256_set1_ps(FERRUM_PACKED_HUGE), _CMP_NLE_UQ);
        largest = _mm256_or_ps(_mm256_max_ps(size, largest), bad);
        /* All bits set is a NaN; max returns its second operand then, so that it stays. */
    }
    return largest;
}

/** Scale, and its inverse in every lane (zero where all codes have to be zero). */
static float scale_for(__m256 lanes, float top, __m256 *out_inverse)
{
    const bool good = !_mm256_movemask_ps(_mm256_cmp_ps(lanes, lanes, _CMP_UNORD_Q));
    const float largest = good ? max_lanes(lanes) : NAN;
    const bool tiny = largest < FERRUM_PACKED_TINY;
    *out_inverse = _mm256_set1_ps(!good || tiny ? 0 : top / largest);
    return !good ? NAN : tiny ? 0 : largest / top;
}

/** The group's codes in the order @p order; sums of its halves. */
static void codes_of(const __m256 v[PARTS], float scale, __m256 inverse, __m256i order,
                     __m256i code[PARTS], int32_t sum[2])
{
    EACH_PART(i)
    {
        const __m256 x = isnan(scale) ? _mm256_setzero_ps() : v[i];
        code[i] = _mm256_permutevar8x32_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)), order);
    }
    for (int h = 0; h < 2; h++)
        sum[h] = sum_lanes(_mm256_add_epi32(code[2 * h], code[2 * h + 1]));
}

/** The 22 leading bits of a mantissa. */
static float short_mantissa(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits &= ~3u;
    memcpy(&f, &bits, sizeof bits);
    return f;
}

static void quantise_fast(const ferrum_packed_traits_t *traits, __m256i order, const float *x,
                          const uint32_t *perm, uint32_t at, uint32_t groups,
                          ferrum_packed_fast_t *out)
{
    for (uint32_t g = 0; g < groups; g++) {
        __m256 v[PARTS], inverse;
        __m256i code[PARTS];
        int32_t sum[2];
        load_group(x, perm, at + g * GROUP, v);
        const float scale = scale_for(largest_of(v, _mm256_setzero_ps()), FAST_TOP, &inverse);
        codes_of(v, scale, inverse, order, code, sum);
        store_bytes(out->code + (size_t)g * GROUP, code);
        out->scale[g] = isnan(scale) ? NAN : short_mantissa(scale);
        out->bias[g] = -FERRUM_PACKED_MAGIC * out->scale[g];
        if (!traits->halves)
            sum[0] += sum[1];
        for (uint32_t h = 0; h < (traits->halves ? 2 : 1); h++) {
            const uint32_t i = traits->halves ? 2 * g + h : g;
            out->start[i] = FERRUM_PACKED_MAGIC_BITS - traits->offset * sum[h];
            out->sum[i] = out->scale[g] * (float)sum[h];
        }
    }
}

static void quantise_accurate(const ferrum_packed_traits_t *traits, __m256i order, const float *x,
                              const uint32_t *perm, uint32_t at, uint32_t groups,
                              ferrum_packed_accurate_t *out)
{
    __m256 v[PARTS], inverse, largest = _mm256_setzero_ps();
    for (uint32_t g = 0; g < groups; g++) {
        load_group(x, perm, at + g * GROUP, v);
        largest = largest_of(v, largest);
    }
    out->scale = scale_for(largest, (float)traits->top, &inverse);
    for (uint32_t g = 0; g < groups; g++) {
        __m256i code[PARTS];
        int32_t sum[2];
        load_group(x, perm, at + g * GROUP, v);
        codes_of(v, out->scale, inverse, order, code, sum);
        store_words(out->code + (size_t)g * GROUP, code[0], code[1]);
        store_words(out->code + (size_t)g * GROUP + GROUP / 2, code[2], code[3]);
        if (!traits->halves)
            sum[0] += sum[1];
        for (uint32_t h = 0; h < (traits->halves ? 2 : 1); h++)
            out->sum[traits->halves ? 2 * g + h : g] = out->scale * (float)sum[h];
    }
}

void ferrum_packed_quantise_avx2(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision,
                                 const float *x, const uint32_t *perm, uint32_t k, uint8_t *out)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    const __m256i order = order_of(kind, precision);
    memset(out, 0, ferrum_packed_row_bytes(k, precision));
    for (uint32_t at = 0; at < k; at += BLOCK) {
        const uint32_t groups = k - at < BLOCK ? (k - at) / GROUP : GROUPS;
        if (precision == FERRUM_PACKED_FAST)
            quantise_fast(traits, order, x, perm, at, groups,
                          (ferrum_packed_fast_t *)(void *)out + at / BLOCK);
        else
            quantise_accurate(traits, order, x, perm, at, groups,
                              (ferrum_packed_accurate_t *)(void *)out + at / BLOCK);
    }
}
