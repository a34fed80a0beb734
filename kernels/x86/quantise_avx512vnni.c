/* SPDX-License-Identifier: MIT */
/* Activations to 16- or 8-bit codes, a group of 32 at a time; the same bits as the reference. */
#include "kernels/x86/packed_avx512vnni.h"

#include <float.h>
#include <immintrin.h>
#include <math.h>

enum {
    GROUP = FERRUM_PACKED_GROUP
};

/** Low nibbles of a GPTQ word are its even values: 0 2 4 6 1 3 5 7 in every eight. */
static __m512i order_of(ferrum_packed_kind_t kind)
{
    return kind == FERRUM_PACKED_GPTQ4
               ? _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
               : _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/** Lanes that hold a number. */
static __mmask16 finite_lanes(__m512 v)
{
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(FLT_MAX), _CMP_LE_OQ);
}

static __m512 load(const float *x, const uint32_t *perm, uint32_t at)
{
    if (!perm)
        return _mm512_loadu_ps(x + at);
    return _mm512_i32gather_ps(_mm512_loadu_si512(perm + at), x, 4);
}

void ferrum_packed_quantise_avx512vnni(ferrum_packed_kind_t kind,
                                       ferrum_packed_precision_t precision, const float *x,
                                       const uint32_t *perm, uint32_t k, uint8_t *out)
{
    const uint32_t groups = k / GROUP;
    float *scale = (float *)(void *)out, *sums = scale + groups;
    int8_t *hi = (int8_t *)(sums + 2 * (size_t)groups), *lo = hi + k;
    const float top = precision == FERRUM_PACKED_FAST ? 127.0F : 32512.0F;
    const __m512i order = order_of(kind);
    for (uint32_t g = 0; g < groups; g++) {
        __m512 v[2] = {load(x, perm, g * GROUP), load(x, perm, g * GROUP + 16)};
        const bool finite = (finite_lanes(v[0]) & finite_lanes(v[1])) == 0xffff;
        if (!finite)
            v[0] = v[1] = _mm512_setzero_ps();
        const float largest =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v[0]), _mm512_abs_ps(v[1])));
        const bool tiny = largest < FERRUM_PACKED_TINY;
        const __m512 inverse = _mm512_set1_ps(tiny ? 0 : top / largest);
        scale[g] = !finite ? NAN : tiny ? 0 : largest / top;
        for (uint32_t h = 0; h < 2; h++) {
            const __m512i code =
                _mm512_permutexvar_epi32(order, _mm512_cvtps_epi32(_mm512_mul_ps(v[h], inverse)));
            int8_t *to = hi + g * GROUP + 16 * h;
            sums[2 * g + h] = scale[g] * (float)_mm512_reduce_add_epi32(code);
            if (precision == FERRUM_PACKED_FAST) {
                _mm_storeu_si128((void *)to, _mm512_cvtepi32_epi8(code));
                continue;
            }
            const __m512i high =
                _mm512_srai_epi32(_mm512_add_epi32(code, _mm512_set1_epi32(128)), 8);
            const __m512i low = _mm512_sub_epi32(code, _mm512_slli_epi32(high, 8));
            _mm_storeu_si128((void *)to, _mm512_cvtepi32_epi8(high));
            _mm_storeu_si128((void *)(lo + g * GROUP + 16 * h), _mm512_cvtepi32_epi8(low));
        }
    }
}
