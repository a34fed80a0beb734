/* SPDX-License-Identifier: MIT */
/* Decoders of the 32-value formats and of the 4-bit formats with levels; layouts as in
 * dequant_legacy_scalar.c and dequant_iq4_scalar.c. A block's codes become 32 signed bytes in order
 * (a byte shuffle looks levels up), and those become d code + m. */
#include "kernels/x86/avx2.h"

/** 16 bytes of nibbles as 32 codes: low nibbles, then high nibbles. */
static inline __m256i split_nibbles(const uint8_t *q)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)q);
    const __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/** 16 where bit i of @p high is set, for value i; else 0. */
static inline __m256i fifth_bits(uint32_t high)
{
    const __m256i source = _mm256_setr_epi64x(0x0000000000000000, 0x0101010101010101,
                                              0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201ull);
    const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)high), source);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

static inline void expand_block(__m256i codes, float d, float *out)
{
    _Alignas(32) int8_t bytes[32];
    _mm256_store_si256((__m256i *)(void *)bytes, codes);
    ferrum_expand_avx2(bytes, d, out, 32);
}

static inline void expand_block_min(__m256i codes, float d, float m, float *out)
{
    _Alignas(32) int8_t bytes[32];
    _mm256_store_si256((__m256i *)(void *)bytes, codes);
    ferrum_expand_min_avx2(bytes, d, m, out, 32);
}

void ferrum_dequant_q4_0_avx2(const void *blocks, float *out, size_t n)
{
    const __m256i zero = _mm256_set1_epi8(8);
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        expand_block(_mm256_sub_epi8(split_nibbles(p + 2), zero), ferrum_load_f16_avx2(p), out + i);
}

void ferrum_dequant_q4_1_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 20)
        expand_block_min(split_nibbles(p + 4), ferrum_load_f16_avx2(p), ferrum_load_f16_avx2(p + 2),
                         out + i);
}

void ferrum_dequant_q5_0_avx2(const void *blocks, float *out, size_t n)
{
    const __m256i zero = _mm256_set1_epi8(16);
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 22) {
        const __m256i codes =
            _mm256_or_si256(split_nibbles(p + 6), fifth_bits(ferrum_load_u32(p + 2)));
        expand_block(_mm256_sub_epi8(codes, zero), ferrum_load_f16_avx2(p), out + i);
    }
}

void ferrum_dequant_q5_1_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 24) {
        const __m256i codes =
            _mm256_or_si256(split_nibbles(p + 8), fifth_bits(ferrum_load_u32(p + 4)));
        expand_block_min(codes, ferrum_load_f16_avx2(p), ferrum_load_f16_avx2(p + 2), out + i);
    }
}

void ferrum_dequant_q8_0_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 34)
        ferrum_expand_avx2((const int8_t *)(p + 2), ferrum_load_f16_avx2(p), out + i, 32);
}

static inline __m256i levels_iq4(void)
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

static inline __m256i levels_mxfp4(void)
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
}

void ferrum_dequant_iq4_nl_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 18)
        expand_block(_mm256_shuffle_epi8(levels_iq4(), split_nibbles(p + 2)),
                     ferrum_load_f16_avx2(p), out + i);
}

void ferrum_dequant_mxfp4_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 32, p += 17)
        expand_block(_mm256_shuffle_epi8(levels_mxfp4(), split_nibbles(p + 1)),
                     ferrum_e8m0_half_to_f32(p[0]), out + i);
}

void ferrum_dequant_iq4_xs_avx2(const void *blocks, float *out, size_t n)
{
    const uint8_t *p = blocks;
    for (size_t i = 0; i < n; i += 256, p += 136) {
        const float d = ferrum_load_f16_avx2(p);
        const uint32_t low = ferrum_load_u32(p + 4), high = ferrum_load_u16(p + 2);
        for (uint32_t sub = 0; sub < 8; sub++) {
            const int scale = (int)((low >> (4 * sub) & 15) | (high >> (2 * sub) & 3) << 4) - 32;
            expand_block(_mm256_shuffle_epi8(levels_iq4(), split_nibbles(p + 8 + 16 * sub)),
                         d * (float)scale, out + i + 32 * sub);
        }
    }
}
