/* SPDX-License-Identifier: MIT */
/* Activations to records of 8- or 15-bit codes with NEON; the same bits as the reference. */
#include "kernels/arm/packed_neon.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

enum {
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    PARTS = GROUP / 8,
    FAST_TOP = 127
};

/** Eight values. */
typedef struct eight {
    float32x4_t v[2];
} eight_t;

static void load_group(const float *x, const uint32_t *perm, uint32_t at, eight_t out[PARTS])
{
    float gathered[GROUP];
    const float *from = x + at;
    if (perm) {
        for (uint32_t i = 0; i < GROUP; i++)
            gathered[i] = x[perm[at + i]];
        from = gathered;
    }
    for (int i = 0; i < PARTS; i++)
        for (int h = 0; h < 2; h++)
            out[i].v[h] = vld1q_f32(from + 8 * i + 4 * h);
}

/** Lanes of the largest magnitudes; NaN stays NaN. */
static float32x4_t largest_of(const eight_t v[PARTS], float32x4_t largest)
{
    for (int i = 0; i < PARTS; i++)
        for (int h = 0; h < 2; h++)
            largest = vmaxq_f32(largest, vabsq_f32(v[i].v[h]));
    return largest;
}

/** Scale, and its inverse (zero where all codes have to be zero). */
static float scale_for(float32x4_t lanes, float top, float *out_inverse)
{
    const float largest = vmaxvq_f32(lanes);
    const bool good = largest <= FERRUM_PACKED_HUGE, tiny = largest < FERRUM_PACKED_TINY;
    *out_inverse = !good || tiny ? 0 : top / largest;
    return !good ? NAN : tiny ? 0 : largest / top;
}

/** The group's codes in the order of x; sums of its halves. */
static void codes_of(const eight_t v[PARTS], float scale, float inverse, int16x8_t code[PARTS],
                     int32_t sum[2])
{
    for (int i = 0; i < PARTS; i++) {
        const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(v[i].v[0], inverse));
        const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(v[i].v[1], inverse));
        code[i] = isnan(scale) ? vdupq_n_s16(0) : vcombine_s16(vmovn_s32(low), vmovn_s32(high));
    }
    for (int h = 0; h < 2; h++)
        sum[h] = vaddlvq_s16(code[2 * h]) + vaddlvq_s16(code[2 * h + 1]);
}

/** Bytes of a register in the order of ferrum_packed_source(): 16 codes of 8 bits, or 8 of 16. */
static uint8x16_t order_of(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision)
{
    uint8_t order[16];
    const uint32_t size = precision == FERRUM_PACKED_FAST ? 1 : 2;
    for (uint32_t i = 0; i < 16; i++)
        order[i] = (uint8_t)(ferrum_packed_source(kind, precision, i / size) * size + i % size);
    return vld1q_u8(order);
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

static void quantise_fast(const ferrum_packed_traits_t *traits, uint8x16_t order, const float *x,
                          const uint32_t *perm, uint32_t at, uint32_t groups,
                          ferrum_packed_fast_t *out)
{
    for (uint32_t g = 0; g < groups; g++) {
        eight_t v[PARTS];
        int16x8_t code[PARTS];
        int32_t sum[2];
        float inverse;
        load_group(x, perm, at + g * GROUP, v);
        const float scale = scale_for(largest_of(v, vdupq_n_f32(0)), FAST_TOP, &inverse);
        codes_of(v, scale, inverse, code, sum);
        for (int h = 0; h < 2; h++) {
            const int8x16_t bytes = vcombine_s8(vmovn_s16(code[2 * h]), vmovn_s16(code[2 * h + 1]));
            vst1q_s8(out->code + g * GROUP + 16 * h, vqtbl1q_s8(bytes, order));
        }
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

static void quantise_accurate(const ferrum_packed_traits_t *traits, uint8x16_t order,
                              const float *x, const uint32_t *perm, uint32_t at, uint32_t groups,
                              ferrum_packed_accurate_t *out)
{
    eight_t v[PARTS];
    float32x4_t largest = vdupq_n_f32(0);
    float inverse;
    for (uint32_t g = 0; g < groups; g++) {
        load_group(x, perm, at + g * GROUP, v);
        largest = largest_of(v, largest);
    }
    out->scale = scale_for(largest, (float)traits->top, &inverse);
    for (uint32_t g = 0; g < groups; g++) {
        int16x8_t code[PARTS];
        int32_t sum[2];
        load_group(x, perm, at + g * GROUP, v);
        codes_of(v, out->scale, inverse, code, sum);
        for (int i = 0; i < PARTS; i++)
            vst1q_s8((int8_t *)(out->code + g * GROUP + 8 * i),
                     vqtbl1q_s8(vreinterpretq_s8_s16(code[i]), order));
        if (!traits->halves)
            sum[0] += sum[1];
        for (uint32_t h = 0; h < (traits->halves ? 2 : 1); h++)
            out->sum[traits->halves ? 2 * g + h : g] = out->scale * (float)sum[h];
    }
}

void ferrum_packed_quantise_neon(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision,
                                 const float *x, const uint32_t *perm, uint32_t k, uint8_t *out)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    const uint8x16_t order = order_of(kind, precision);
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
