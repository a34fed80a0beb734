/* SPDX-License-Identifier: MIT */
/**
 * @file packed_scales.h
 * @brief Scales and minima of a panel's groups as f32 and integers; any vocabulary.
 */
#ifndef FERRUM_KERNELS_PACKED_SCALES_H
#define FERRUM_KERNELS_PACKED_SCALES_H

#include "kernels/packed_tile.h"

/** Integer scales of sixteen rows, and integer minima where the format has them. */
typedef struct row_ints {
    int16_t s[ROWS];
    int16_t min[ROWS];
} row_ints_t;

/** Group @p j of Q4_K and Q5_K: six bits each of the twelve bytes of every row. */
static void ints_q45_k(const uint8_t *restrict p, uint32_t j, row_ints_t *restrict out)
{
    const uint8_t *low = p + (j % 4) * ROWS, *mid = low + 4 * ROWS, *high = low + 8 * ROWS;
    for (uint32_t r = 0; r < ROWS; r++) {
        if (j < 4) {
            out->s[r] = low[r] & 63;
            out->min[r] = mid[r] & 63;
        } else {
            out->s[r] = (int16_t)((high[r] & 15) | (low[r] >> 6) << 4);
            out->min[r] = (int16_t)(high[r] >> 4 | (mid[r] >> 6) << 4);
        }
    }
}

/** Half @p i of Q3_K. */
static void ints_q3_k(const uint8_t *restrict p, uint32_t i, row_ints_t *restrict out)
{
    const uint8_t *low = p + i % 8 * ROWS, *high = p + (8 + i % 4) * ROWS;
    for (uint32_t r = 0; r < ROWS; r++)
        out->s[r] =
            (int16_t)(((low[r] >> (i / 8 * 4) & 15) | (high[r] >> (i / 4 * 2) & 3) << 4) - 32);
}

static void ints_q2_k(const uint8_t *restrict p, uint32_t i, row_ints_t *restrict out)
{
    for (uint32_t r = 0; r < ROWS; r++) {
        out->s[r] = p[i * ROWS + r] & 15;
        out->min[r] = p[i * ROWS + r] >> 4;
    }
}

static void ints_q6_k(const uint8_t *restrict p, uint32_t i, row_ints_t *restrict out)
{
    for (uint32_t r = 0; r < ROWS; r++)
        out->s[r] = (int8_t)p[i * ROWS + r];
}

/** Group @p j of IQ4_XS; @p p: behind d. */
static void ints_iq4_xs(const uint8_t *restrict p, uint32_t j, row_ints_t *restrict out)
{
    const uint8_t *low = p + 2 * ROWS + j / 2 * ROWS;
    for (uint32_t r = 0; r < ROWS; r++) {
        const uint32_t top = (uint32_t)(p[2 * r] | p[2 * r + 1] << 8) >> (2 * j) & 3;
        out->s[r] = (int16_t)((low[r] >> (j % 2 * 4) & 15) + (int)(top << 4) - 32);
    }
}

/** to[] = f16 at @p p times integers, for rows lane, lane + 1, ... */
INLINE floats_t scaled(const uint8_t *p, const int16_t *ints, uint32_t lane)
{
    return floats_mul(floats_of_f16(p + 2 * lane), floats_of_i16(ints + lane));
}

/** Half @p h of group @p g of the block; @p i: its place in arrays of HALVES, @p j: its group in
 *  the unit @p u. */
INLINE void scales_k(ferrum_packed_kind_t kind, const uint8_t *u, uint32_t g, uint32_t i,
                     uint32_t j, uint32_t h, block_t *w)
{
    const uint8_t *p, *d; /* integers, f16 */
    row_ints_t ints;
    float offset = 0;
    switch (kind) {
    case FERRUM_PACKED_Q2_K:
        p = u + 16 * VECTOR;
        d = p + 16 * ROWS;
        ints_q2_k(p, 2 * j + h, &ints);
        break;
    case FERRUM_PACKED_Q3_K:
        p = u + 24 * VECTOR;
        d = p + 12 * ROWS;
        ints_q3_k(p, 2 * j + h, &ints);
        break;
    case FERRUM_PACKED_Q6_K:
        p = u + 48 * VECTOR;
        d = p + 16 * ROWS;
        ints_q6_k(p, 2 * j + h, &ints);
        break;
    default: /* Q4_K, Q5_K */
        p = u + (kind == FERRUM_PACKED_Q5_K ? 40 : 32) * VECTOR;
        d = p + 12 * ROWS;
        offset = kind == FERRUM_PACKED_Q5_K ? 16 : 8;
        ints_q45_k(p, j, &ints);
    }
    memcpy(w->s[i], ints.s, sizeof ints.s);
    for (uint32_t lane = 0; lane < ROWS; lane += LANES) {
        const floats_t scale = scaled(d, ints.s, lane);
        floats_store(w->d[g] + lane, floats_of_f16(d + 2 * lane));
        floats_store(w->scale[i] + lane, scale);
        if (kind == FERRUM_PACKED_Q2_K)
            floats_store(w->min[i] + lane, scaled(d + 2 * ROWS, ints.min, lane));
        if (offset > 0)
            floats_store(w->min[i] + lane, floats_fnma(scale, floats_all(offset),
                                                       scaled(d + 2 * ROWS, ints.min, lane)));
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
                        const uint8_t *u, uint32_t g, uint32_t j, block_t *w)
{
    const bool five = kind == FERRUM_PACKED_Q5_0 || kind == FERRUM_PACKED_Q5_1;
    const uint8_t *p = u + (kind == FERRUM_PACKED_Q8_0 ? 8 : five ? 5 : 4) * VECTOR;
    row_ints_t ints;
    if (kind == FERRUM_PACKED_IQ4_XS) {
        p = u + 32 * VECTOR;
        ints_iq4_xs(p + 2 * ROWS, j, &ints);
    }
    if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8)
        p = u + (size_t)m->unit / (kind == FERRUM_PACKED_GPTQ4 ? 8 : 4) * VECTOR;
    for (uint32_t lane = 0; lane < ROWS; lane += LANES) {
        floats_t d;
        switch (kind) {
        case FERRUM_PACKED_MXFP4:
            d = floats_of_half_e8m0(p + lane);
            break;
        case FERRUM_PACKED_IQ4_XS:
            d = scaled(p, ints.s, lane);
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
