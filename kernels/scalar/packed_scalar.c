/* SPDX-License-Identifier: MIT */
/*
 * The reference of quantising and multiplying, one lane at a time, in the order that packed.h
 * prescribes, so that vector kernels can be compared with it bit by bit.
 */
#include "kernels/scalar/packed_scalar.h"

#include "kernels/scalar/convert.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    FAST_TOP = 127
};

/** Scale and its inverse for values whose largest magnitude is @p largest (NaN: not finite). */
static void scale_for(float largest, float top, float *out_scale, float *out_inverse)
{
    const bool finite = largest <= FERRUM_PACKED_HUGE, tiny = largest < FERRUM_PACKED_TINY;
    *out_scale = !finite ? NAN : tiny ? 0 : largest / top;
    *out_inverse = !finite || tiny ? 0 : top / largest;
}

/** Largest magnitude, or NaN when there is a NaN. */
static float largest_of(const float *values, uint32_t n)
{
    float largest = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!(fabsf(values[i]) <= largest))
            largest = isnan(largest) ? largest : fabsf(values[i]);
    return largest;
}

static int32_t code_of(float value, float scale, float inverse)
{
    return isnan(scale) ? 0 : (int32_t)lrintf(value * inverse);
}

/** The 22 leading bits of a mantissa. */
static float short_mantissa(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return ferrum_f32_from_bits(bits & ~3u);
}

static void quantise_fast(ferrum_packed_kind_t kind, const float *x, uint32_t groups,
                          ferrum_packed_fast_t *out)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    const uint32_t halves = traits->halves ? 2 : 1, length = GROUP / halves;
    memset(out, 0, sizeof *out);
    for (uint32_t g = 0; g < groups; g++, x += GROUP) {
        float scale, inverse;
        scale_for(largest_of(x, GROUP), FAST_TOP, &scale, &inverse);
        out->scale[g] = isnan(scale) ? NAN : short_mantissa(scale);
        out->bias[g] = -FERRUM_PACKED_MAGIC * out->scale[g];
        for (uint32_t i = 0; i < GROUP; i++)
            out->code[g * GROUP + i] = (int8_t)code_of(
                x[ferrum_packed_source(kind, FERRUM_PACKED_FAST, i)], scale, inverse);
        for (uint32_t h = 0; h < halves; h++) {
            int32_t sum = 0;
            for (uint32_t i = 0; i < length; i++)
                sum += out->code[g * GROUP + h * length + i];
            out->start[g * halves + h] = FERRUM_PACKED_MAGIC_BITS - traits->offset * sum;
            out->sum[g * halves + h] = out->scale[g] * (float)sum;
        }
    }
}

static void quantise_accurate(ferrum_packed_kind_t kind, const float *x, uint32_t groups,
                              ferrum_packed_accurate_t *out)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    const uint32_t halves = traits->halves ? 2 : 1, length = GROUP / halves;
    float inverse;
    memset(out, 0, sizeof *out);
    scale_for(largest_of(x, groups * GROUP), (float)traits->top, &out->scale, &inverse);
    for (uint32_t g = 0; g < groups; g++, x += GROUP) {
        for (uint32_t i = 0; i < GROUP; i++)
            out->code[g * GROUP + i] = (int16_t)code_of(
                x[ferrum_packed_source(kind, FERRUM_PACKED_ACCURATE, i)], out->scale, inverse);
        for (uint32_t h = 0; h < halves; h++) {
            int32_t sum = 0;
            for (uint32_t i = 0; i < length; i++)
                sum += out->code[g * GROUP + h * length + i];
            out->sum[g * halves + h] = out->scale * (float)sum;
        }
    }
}

static uint32_t groups_in(uint32_t k, uint32_t block)
{
    return k - block * BLOCK < BLOCK ? (k - block * BLOCK) / GROUP : GROUPS;
}

static void quantise(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision, const float *x,
                     const uint32_t *perm, uint32_t k, uint8_t *out)
{
    for (uint32_t b = 0; b * BLOCK < k; b++) {
        float values[BLOCK];
        const uint32_t groups = groups_in(k, b);
        for (uint32_t i = 0; i < groups * GROUP; i++)
            values[i] = x[perm ? perm[b * BLOCK + i] : b * BLOCK + i];
        if (precision == FERRUM_PACKED_FAST)
            quantise_fast(kind, values, groups, (ferrum_packed_fast_t *)(void *)out + b);
        else
            quantise_accurate(kind, values, groups, (ferrum_packed_accurate_t *)(void *)out + b);
    }
}

/** Sum of products of half @p h (of @p halves) of a group; codes are in the order of the words. */
static int32_t sum_fast(ferrum_packed_kind_t kind, const ferrum_packed_lane_t *w,
                        const int8_t *codes, uint32_t h, uint32_t halves)
{
    int32_t sum = 0;
    for (uint32_t i = h * GROUP / halves; i < (h + 1) * GROUP / halves; i++)
        sum += w->v[ferrum_packed_source(kind, FERRUM_PACKED_FAST, i)] * codes[i];
    return sum;
}

static int32_t sum_accurate(ferrum_packed_kind_t kind, const ferrum_packed_lane_t *w,
                            const int16_t *codes)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < GROUP; i++)
        sum +=
            w->s[i / 16] * w->v[ferrum_packed_source(kind, FERRUM_PACKED_ACCURATE, i)] * codes[i];
    return sum;
}

static float dot_fast(const ferrum_packed_matrix_t *m, const ferrum_packed_lane_t *w,
                      const ferrum_packed_fast_t *x, uint32_t groups, float acc)
{
    const uint32_t halves = ferrum_packed_traits(m->kind)->halves ? 2 : 1;
    for (uint32_t g = 0; g < groups; g++)
        for (uint32_t h = 0; h < halves; h++) {
            const int32_t sum = sum_fast(m->kind, &w[g], x->code + (size_t)g * GROUP, h, halves);
            acc = fmaf((float)sum * x->scale[g], w[g].d * (float)w[g].s[h], acc);
        }
    return acc;
}

static float dot_accurate(const ferrum_packed_matrix_t *m, const ferrum_packed_lane_t *w,
                          const ferrum_packed_accurate_t *x, uint32_t groups, float acc)
{
    const uint32_t fold = ferrum_packed_fold(m);
    float t = 0;
    for (uint32_t g = 0; g < groups; g += fold) {
        int32_t sum = 0;
        for (uint32_t j = g; j < g + fold; j++)
            sum += sum_accurate(m->kind, &w[j], x->code + (size_t)j * GROUP);
        t = fmaf((float)sum, w[g].d, t);
    }
    return fmaf(t, x->scale, acc);
}

static float dot_lane(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                      const uint8_t *panel, uint32_t lane, const uint8_t *x)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(m->kind);
    const uint32_t halves = traits->halves ? 2 : 1;
    float acc = 0;
    for (uint32_t b = 0; b * BLOCK < m->k; b++) {
        const ferrum_packed_fast_t *fast = (const ferrum_packed_fast_t *)(const void *)x + b;
        const ferrum_packed_accurate_t *accurate =
            (const ferrum_packed_accurate_t *)(const void *)x + b;
        const uint32_t groups = groups_in(m->k, b);
        ferrum_packed_lane_t w[GROUPS];
        for (uint32_t g = 0; g < groups; g++)
            ferrum_packed_unpack_scalar(m, panel, b * GROUPS + g, lane, &w[g]);
        acc = precision == FERRUM_PACKED_FAST ? dot_fast(m, w, fast, groups, acc)
                                              : dot_accurate(m, w, accurate, groups, acc);
        const float *sum = precision == FERRUM_PACKED_FAST ? fast->sum : accurate->sum;
        for (uint32_t i = 0; traits->minima && i < groups * halves; i++)
            acc = fmaf(-w[i / halves].min[i % halves], sum[i], acc);
    }
    return acc;
}

static void product(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                    uint32_t row, uint32_t rows, const uint8_t *x, size_t x_stride,
                    const uint32_t *x_rows, uint32_t tokens, float *y, size_t ldy)
{
    for (uint32_t r = row; r < row + rows; r++)
        for (uint32_t t = 0; t < tokens; t++)
            y[t * ldy + r - row] = dot_lane(m, precision, m->panels + r / ROWS * m->panel_stride,
                                            r % ROWS, x + (x_rows ? x_rows[t] : t) * x_stride);
}

const ferrum_packed_ops_t ferrum_packed_ops_scalar = {quantise, product};
