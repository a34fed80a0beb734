/* SPDX-License-Identifier: MIT */
/**
 * @file packed_scales.h
 * @brief Scales and minima of a panel's groups as f32 and integers; any vocabulary.
 */
#ifndef FERRUM_KERNELS_PACKED_SCALES_H
#define FERRUM_KERNELS_PACKED_SCALES_H

#include "kernels/packed_unpack.h"

/** Integer scales and minima of a unit, by half of a group or by group. */
typedef struct unit_ints {
    _Alignas(32) int8_t s[HALVES][ROWS];
    _Alignas(32) uint8_t min[HALVES][ROWS];
} unit_ints_t;

/** Q4_K and Q5_K: six bits each, of the twelve bytes of every row. */
static void ints_q45_k(const uint8_t *restrict p, unit_ints_t *restrict out)
{
    enum {
        FOUR = 4 * ROWS /* groups at a time */
    };
    int8_t *restrict s = out->s[0];
    uint8_t *restrict min = out->min[0];
    for (uint32_t i = 0; i < FOUR; i++) {
        const uint8_t low = p[i], middle = p[FOUR + i], high = p[2 * FOUR + i];
        s[i] = (int8_t)(low & 63);
        min[i] = middle & 63;
        s[FOUR + i] = (int8_t)((high & 15) | (low >> 2 & 48));
        min[FOUR + i] = (uint8_t)(high >> 4 | (middle >> 2 & 48));
    }
}

/** Q3_K: bytes of low nibbles (halves 0..7 low, 8..15 high), then of four pairs of high bits. */
static void ints_q3_k(const uint8_t *restrict p, unit_ints_t *restrict out)
{
    for (uint32_t i = 0; i < HALVES; i++) {
        const uint8_t *low = p + i % 8 * ROWS, *high = p + (8 + i % 4) * ROWS;
        const uint32_t low_shift = i / 8 * 4, high_shift = i / 4 * 2;
        int8_t *restrict s = out->s[i];
        for (uint32_t r = 0; r < ROWS; r++)
            s[r] = (int8_t)(((low[r] >> low_shift & 15) | (high[r] >> high_shift & 3) << 4) - 32);
    }
}

static void ints_q2_k(const uint8_t *restrict p, unit_ints_t *restrict out)
{
    int8_t *restrict s = out->s[0];
    uint8_t *restrict min = out->min[0];
    for (uint32_t i = 0; i < HALVES * ROWS; i++) {
        s[i] = (int8_t)(p[i] & 15);
        min[i] = p[i] >> 4;
    }
}

/** IQ4_XS: one 16-bit word of high bits per row, then bytes of two low nibbles. */
static void ints_iq4_xs(const uint8_t *restrict p, unit_ints_t *restrict out)
{
    for (uint32_t j = 0; j < GROUPS; j++) {
        const uint8_t *low = p + 2 * ROWS + j / 2 * ROWS;
        int8_t *restrict s = out->s[j];
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint8_t top = (uint8_t)(p[2 * r + j / 4] >> (2 * (j % 4)) & 3);
            s[r] = (int8_t)(((low[r] >> (j % 2 * 4) & 15) | top << 4) - 32);
        }
    }
}

/** The integers of a unit: at its begin, but behind the codes and d of IQ4_XS. */
INLINE const uint8_t *ints_at(ferrum_packed_kind_t kind, const uint8_t *u)
{
    return kind == FERRUM_PACKED_IQ4_XS ? u + 32 * VECTOR + 2 * ROWS : u;
}

/** Integers of a unit of a kind that has them (and of IQ4_XS). */
INLINE void unpack_ints(ferrum_packed_kind_t kind, const uint8_t *u, unit_ints_t *out)
{
    const uint8_t *p = ints_at(kind, u);
    if (kind == FERRUM_PACKED_Q2_K)
        ints_q2_k(p, out);
    else if (kind == FERRUM_PACKED_Q3_K)
        ints_q3_k(p, out);
    else if (kind == FERRUM_PACKED_Q6_K)
        memcpy(out->s, p, sizeof out->s);
    else if (kind == FERRUM_PACKED_IQ4_XS)
        ints_iq4_xs(p, out);
    else
        ints_q45_k(p, out);
}

/** d and dmin (of kinds that have it) of a k-quant's unit. */
typedef struct unit_floats {
    floats_t d[PARTS], dmin[PARTS];
} unit_floats_t;

INLINE unit_floats_t floats_k(ferrum_packed_kind_t kind, const uint8_t *u)
{
    const bool twelve =
        kind == FERRUM_PACKED_Q3_K || kind == FERRUM_PACKED_Q4_K || kind == FERRUM_PACKED_Q5_K;
    const uint8_t *d = ints_at(kind, u) + (twelve ? 12 : 16) * ROWS;
    unit_floats_t floats;
    EACH_PART(p)
    {
        floats.d[p] = floats_of_f16(d + 2 * p * LANES);
        floats.dmin[p] = kind == FERRUM_PACKED_Q3_K || kind == FERRUM_PACKED_Q6_K
                             ? floats.d[p]
                             : floats_of_f16(d + 2 * (ROWS + p * LANES));
    }
    return floats;
}

/** Group @p g of a k-quant's unit, which is a block. FAST needs no d, ACCURATE no scales. */
INLINE void scales_k(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision,
                     const unit_floats_t *floats, const unit_ints_t *ints, uint32_t g, block_t *w)
{
    const uint32_t runs = has_halves(kind) ? 2 : 1;
    const bool minima = kind != FERRUM_PACKED_Q3_K && kind != FERRUM_PACKED_Q6_K;
    const float offset = (float)offset_of(kind);
    EACH_PART(p)
    {
        const uint32_t lane = (uint32_t)p * LANES;
        if (precision == FERRUM_PACKED_ACCURATE)
            floats_store(w->d[g] + lane, floats->d[p]);
        UNROLL for (uint32_t h = 0; h < runs; h++)
        {
            const uint32_t i = g * runs + h;
            if (precision == FERRUM_PACKED_ACCURATE && !minima)
                continue;
            const floats_t scale = floats_mul(floats->d[p], floats_of_i8(ints->s[i] + lane));
            if (precision == FERRUM_PACKED_FAST)
                floats_store(w->scale[i] + lane, scale);
            if (!minima)
                continue;
            floats_t min = floats_mul(floats->dmin[p], floats_of_u8(ints->min[i] + lane));
            if (offset > 0)
                min = floats_fnma(scale, floats_all(offset), min);
            floats_store(w->min[i] + lane, min);
        }
    }
}

INLINE floats_t gptq_scale(ferrum_dtype_t dtype, const uint8_t *p, uint32_t lane)
{
    if (dtype == FERRUM_DTYPE_F32)
        return floats_load((const float *)(const void *)p + lane);
    return dtype == FERRUM_DTYPE_F16 ? floats_of_f16(p + 2 * lane) : floats_of_bf16(p + 2 * lane);
}

/** Group @p g of the block, of kinds whose scale is one float. */
INLINE void scales_flat(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind,
                        const uint8_t *u, const unit_ints_t *ints, uint32_t g, uint32_t j,
                        block_t *w)
{
    const bool five = kind == FERRUM_PACKED_Q5_0 || kind == FERRUM_PACKED_Q5_1;
    const uint8_t *p = u + (kind == FERRUM_PACKED_Q8_0 ? 8 : five ? 5 : 4) * VECTOR;
    if (kind == FERRUM_PACKED_IQ4_XS)
        p = u + 32 * VECTOR;
    if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8)
        p = u + (size_t)m->unit / (kind == FERRUM_PACKED_GPTQ4 ? 8 : 4) * VECTOR;
    for (uint32_t lane = 0; lane < ROWS; lane += LANES) {
        floats_t d;
        switch (kind) {
        case FERRUM_PACKED_MXFP4:
            d = floats_of_half_e8m0(p + lane);
            break;
        case FERRUM_PACKED_IQ4_XS:
            d = floats_mul(floats_of_f16(p + 2 * lane), floats_of_i8(ints->s[j] + lane));
            break;
        case FERRUM_PACKED_GPTQ4:
        case FERRUM_PACKED_GPTQ8:
            d = gptq_scale(m->scale_dtype, p, lane);
            break;
        default:
            d = floats_of_f16(p + 2 * lane);
        }
        floats_store(w->d[g] + lane, d);
        floats_store(w->scale[g] + lane, d);
        if (kind == FERRUM_PACKED_Q4_1 || kind == FERRUM_PACKED_Q5_1)
            floats_store(w->min[g] + lane,
                         floats_mul(floats_of_f16(p + 2 * ROWS + 2 * lane), floats_all(-1)));
        if (kind == FERRUM_PACKED_GPTQ8) {
            const uint8_t *zeros = p + (m->scale_dtype == FERRUM_DTYPE_F32 ? 4 : 2) * ROWS;
            const floats_t zero =
                floats_fma(floats_of_u8(zeros + lane), floats_all(1), floats_all(-128.0F));
            floats_store(w->min[g] + lane, floats_mul(d, zero));
        }
    }
}

#endif /* FERRUM_KERNELS_PACKED_SCALES_H */
