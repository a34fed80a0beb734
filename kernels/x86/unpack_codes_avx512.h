/* SPDX-License-Identifier: MIT */
/**
 * @file unpack_codes_avx512.h
 * @brief The codes of a group of any kind as eight vectors of unsigned bytes v + offset. Part of
 *        unpack_avx512vnni.c; kinds and groups are compile-time constants there.
 */
#ifndef FERRUM_KERNELS_UNPACK_CODES_AVX512_H
#define FERRUM_KERNELS_UNPACK_CODES_AVX512_H

#include "kernels/packed.h"

#include <immintrin.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    VECTOR = 64,
    STEPS = 8
};

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE __m512i vector(const uint8_t *p, uint32_t index)
{
    return _mm512_loadu_si512(p + (size_t)index * VECTOR);
}

INLINE __m512i low_nibbles(__m512i v)
{
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

INLINE __m512i high_nibbles(__m512i v)
{
    return low_nibbles(_mm512_srli_epi16(v, 4));
}

/** Words shifted by an even constant: to the right, or to the left if it is negative. */
INLINE __m512i shifted(__m512i v, int right)
{
    switch (right) {
    case -4:
        return _mm512_slli_epi16(v, 4);
    case -2:
        return _mm512_slli_epi16(v, 2);
    case 2:
        return _mm512_srli_epi16(v, 2);
    case 4:
        return _mm512_srli_epi16(v, 4);
    case 6:
        return _mm512_srli_epi16(v, 6);
    default:
        return v;
    }
}

/** Adds @p value to the bytes of @p codes whose byte in @p bits has a bit of @p mask. */
INLINE __m512i add_bit(__m512i codes, __m512i bits, int mask, int value)
{
    const __mmask64 set = _mm512_test_epi8_mask(bits, _mm512_set1_epi8((char)mask));
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8((char)value));
}

/** Nibbles of a group: values 0..15 low, 16..31 high. */
INLINE void nibble_codes(const uint8_t *u, __m512i code[STEPS])
{
    UNROLL for (uint32_t v = 0; v < 4; v++)
    {
        code[v] = low_nibbles(vector(u, v));
        code[v + 4] = high_nibbles(vector(u, v));
    }
}

/** Bit i of each lane's word becomes bit 4 of value i. */
INLINE void add_fifth_bits(const uint8_t *u, __m512i code[STEPS])
{
    const __m512i bits = vector(u, 0);
    const __m512i one = _mm512_set1_epi32(0x08040201);
    UNROLL for (int v = 0; v < STEPS; v++)
    {
        const __m512i pick = _mm512_set4_epi32((12 + v / 2) * 0x01010101, (8 + v / 2) * 0x01010101,
                                               (4 + v / 2) * 0x01010101, v / 2 * 0x01010101);
        const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, pick),
                                                    v % 2 ? _mm512_slli_epi32(one, 4) : one);
        code[v] = _mm512_mask_add_epi8(code[v], set, code[v], _mm512_set1_epi8(16));
    }
}

INLINE void look_up(__m128i levels, __m512i code[STEPS])
{
    const __m512i table = _mm512_broadcast_i32x4(levels);
    UNROLL for (int v = 0; v < STEPS; v++) code[v] = _mm512_shuffle_epi8(table, code[v]);
}

/** Bytes v + offset of group g of a unit. */
INLINE void unpack_codes(ferrum_packed_kind_t kind, const uint8_t *u, uint32_t g, __m512i zero,
                         __m512i code[STEPS])
{
    const __m128i iq4 =
        _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                      (char)181, (char)197, (char)217, (char)241);
    const __m128i mxfp4 = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    u += ferrum_packed_codes_at(kind);
    switch (kind) {
    case FERRUM_PACKED_Q5_0:
    case FERRUM_PACKED_Q5_1:
        nibble_codes(u, code);
        add_fifth_bits(u + 4 * VECTOR, code);
        break;
    case FERRUM_PACKED_IQ4_NL:
        nibble_codes(u, code);
        look_up(iq4, code);
        break;
    case FERRUM_PACKED_IQ4_XS:
        nibble_codes(u + (size_t)g * 4 * VECTOR, code);
        look_up(iq4, code);
        break;
    case FERRUM_PACKED_MXFP4:
        nibble_codes(u, code);
        look_up(mxfp4, code);
        break;
    case FERRUM_PACKED_Q8_0:
        UNROLL for (uint32_t v = 0; v < STEPS; v++) code[v] =
            _mm512_xor_si512(vector(u, v), _mm512_set1_epi8(-128));
        break;
    case FERRUM_PACKED_GPTQ8:
        UNROLL for (uint32_t v = 0; v < STEPS; v++) code[v] = vector(u, g * STEPS + v);
        break;
    case FERRUM_PACKED_GPTQ4: /* zero: 16 less the zero point */
        UNROLL for (uint32_t v = 0; v < 4; v++)
        {
            code[2 * v] = _mm512_add_epi8(low_nibbles(vector(u, g * 4 + v)), zero);
            code[2 * v + 1] = _mm512_add_epi8(high_nibbles(vector(u, g * 4 + v)), zero);
        }
        break;
    case FERRUM_PACKED_Q4_K:
    case FERRUM_PACKED_Q5_K:
        UNROLL for (uint32_t v = 0; v < STEPS; v++)
        {
            const __m512i both = vector(u, g / 2 * STEPS + v);
            code[v] = g % 2 ? high_nibbles(both) : low_nibbles(both);
            if (kind == FERRUM_PACKED_Q5_K)
                code[v] = add_bit(code[v], vector(u, 32 + v), 1 << g, 16);
        }
        break;
    case FERRUM_PACKED_Q6_K:
        UNROLL for (uint32_t v = 0; v < STEPS; v++)
        {
            const __m512i low =
                shifted(vector(u, g / 4 * 16 + g % 2 * STEPS + v), g % 4 < 2 ? 0 : 4);
            const __m512i high = shifted(vector(u, 32 + g / 4 * STEPS + v), (int)(g % 4) * 2 - 4);
            /* 0xca: the bits of low where the first operand has ones, else those of high. */
            const __m512i both = _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), low, high, 0xca);
            code[v] = _mm512_and_si512(both, _mm512_set1_epi8(63));
        }
        break;
    default: /* Q2_K, Q3_K */
        UNROLL for (uint32_t v = 0; v < STEPS; v++)
        {
            code[v] = _mm512_and_si512(shifted(vector(u, g / 4 * STEPS + v), (int)(g % 4) * 2),
                                       _mm512_set1_epi8(3));
            if (kind == FERRUM_PACKED_Q3_K)
                code[v] = add_bit(code[v], vector(u, 16 + v), 1 << g, 4);
        }
        break;
    case FERRUM_PACKED_Q4_0:
    case FERRUM_PACKED_Q4_1:
        nibble_codes(u, code);
    }
}

#endif /* FERRUM_KERNELS_UNPACK_CODES_AVX512_H */
