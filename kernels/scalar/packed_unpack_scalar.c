/* SPDX-License-Identifier: MIT */
/* What the bytes of a unit mean, one lane at a time: packed.h's table of kinds as code. */
#include "kernels/scalar/convert.h"
#include "kernels/scalar/packed_scalar.h"
#include "kernels/scalar/scalar.h"

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    VECTOR = 64
};

/** Byte i (in lane order) of vectors first, first+1, ...: four bytes to a vector. */
static uint32_t lane_byte(const uint8_t *vectors, uint32_t first, uint32_t lane, uint32_t i)
{
    return vectors[(size_t)(first + i / 4) * VECTOR + lane * 4 + i % 4];
}

static float half_at(const uint8_t *halves, uint32_t lane)
{
    return ferrum_f16_to_f32(ferrum_load_u16(halves + 2 * (size_t)lane));
}

/** Nibble i of a group whose low nibbles are values 0..15 and high ones 16..31. */
static int nibble(const uint8_t *vectors, uint32_t first, uint32_t lane, uint32_t i)
{
    return (int)(lane_byte(vectors, first, lane, i % 16) >> (i / 16 * 4) & 15);
}

/** Formats with 32-value blocks; the unit is one group. */
static void unpack_legacy(ferrum_packed_kind_t kind, const uint8_t *unit, uint32_t lane,
                          ferrum_packed_lane_t *out)
{
    const bool five = kind == FERRUM_PACKED_Q5_0 || kind == FERRUM_PACKED_Q5_1;
    const bool minimum = kind == FERRUM_PACKED_Q4_1 || kind == FERRUM_PACKED_Q5_1;
    const uint8_t *scales = unit + (kind == FERRUM_PACKED_Q8_0 ? 8 : five ? 5 : 4) * VECTOR;
    const uint32_t fifth = five ? ferrum_load_u32(unit + 4 * VECTOR + 4 * (size_t)lane) : 0;
    const int offset = kind == FERRUM_PACKED_Q4_0 ? 8 : kind == FERRUM_PACKED_Q5_0 ? 16 : 0;
    for (uint32_t i = 0; i < GROUP; i++)
        if (kind == FERRUM_PACKED_Q8_0)
            out->v[i] = (int8_t)lane_byte(unit, 0, lane, i);
        else if (kind == FERRUM_PACKED_IQ4_NL)
            out->v[i] = ferrum_iq4_levels[nibble(unit, 0, lane, i)];
        else if (kind == FERRUM_PACKED_MXFP4)
            out->v[i] = ferrum_mxfp4_levels[nibble(unit, 0, lane, i)];
        else
            out->v[i] = (int16_t)(nibble(unit, 0, lane, i) + (int)(fifth >> i & 1) * 16 - offset);
    out->d =
        kind == FERRUM_PACKED_MXFP4 ? ferrum_e8m0_half_to_f32(scales[lane]) : half_at(scales, lane);
    if (minimum)
        out->min[0] = -half_at(scales + 2 * ROWS, lane);
}

/** Scales and minima of Q4_K and Q5_K: the twelve bytes of every lane, then d and dmin. */
static void unpack_scale_min(const uint8_t *scales, uint32_t g, uint32_t lane, float offset,
                             ferrum_packed_lane_t *out)
{
    uint8_t packed[12];
    int scale, min;
    for (uint32_t b = 0; b < sizeof packed; b++)
        packed[b] = scales[b * ROWS + lane];
    ferrum_k_scale_min(packed, (int)g, &scale, &min);
    out->d = half_at(scales + 12 * ROWS, lane);
    out->s[0] = out->s[1] = scale;
    out->min[0] = half_at(scales + 14 * ROWS, lane) * (float)min - out->d * (float)scale * offset;
}

static void unpack_q45_k(const uint8_t *unit, bool five, uint32_t g, uint32_t lane,
                         ferrum_packed_lane_t *out)
{
    const uint8_t *codes = unit + ferrum_packed_codes_at(FERRUM_PACKED_Q4_K);
    const uint8_t *high = codes + 32 * VECTOR;
    const int offset = five ? 16 : 8;
    for (uint32_t i = 0; i < GROUP; i++) {
        const uint32_t low = lane_byte(codes, g / 2 * 8, lane, i) >> (g % 2 * 4) & 15u;
        const uint32_t one = five ? lane_byte(high, 0, lane, i) >> g & 1u : 0;
        out->v[i] = (int16_t)((int)(low + one * 16) - offset);
    }
    unpack_scale_min(unit, g, lane, (float)offset, out);
}

static void unpack_q6_k(const uint8_t *unit, uint32_t g, uint32_t lane, ferrum_packed_lane_t *out)
{
    const uint8_t *codes = unit + ferrum_packed_codes_at(FERRUM_PACKED_Q6_K);
    const uint8_t *high = codes + 32 * VECTOR;
    const uint32_t half = g / 4, quarter = g % 4;
    for (uint32_t i = 0; i < GROUP; i++) {
        const uint32_t low = lane_byte(codes, half * 16 + quarter % 2 * 8, lane, i);
        const uint32_t two = lane_byte(high, half * 8, lane, i) >> (2 * quarter) & 3u;
        out->v[i] = (int16_t)((int)((low >> (quarter / 2 * 4) & 15) + two * 16) - 32);
    }
    for (uint32_t h = 0; h < 2; h++)
        out->s[h] = (int8_t)unit[(2 * g + h) * ROWS + lane];
    out->d = half_at(unit + 16 * ROWS, lane);
}

static void unpack_q2_k(const uint8_t *unit, uint32_t g, uint32_t lane, ferrum_packed_lane_t *out)
{
    const uint8_t *codes = unit + ferrum_packed_codes_at(FERRUM_PACKED_Q2_K);
    const float dmin = half_at(unit + 18 * ROWS, lane);
    for (uint32_t i = 0; i < GROUP; i++)
        out->v[i] = (int16_t)(lane_byte(codes, g / 4 * 8, lane, i) >> (g % 4 * 2) & 3);
    for (uint32_t h = 0; h < 2; h++) {
        out->s[h] = unit[(2 * g + h) * ROWS + lane] & 15;
        out->min[h] = dmin * (float)(unit[(2 * g + h) * ROWS + lane] >> 4);
    }
    out->d = half_at(unit + 16 * ROWS, lane);
}

static void unpack_q3_k(const uint8_t *unit, uint32_t g, uint32_t lane, ferrum_packed_lane_t *out)
{
    const uint8_t *codes = unit + ferrum_packed_codes_at(FERRUM_PACKED_Q3_K);
    const uint8_t *high = codes + 16 * VECTOR;
    for (uint32_t i = 0; i < GROUP; i++) {
        const uint32_t two = lane_byte(codes, g / 4 * 8, lane, i) >> (g % 4 * 2) & 3;
        const uint32_t one = lane_byte(high, 0, lane, i) >> g & 1;
        out->v[i] = (int16_t)((int)(two + one * 4) - 4);
    }
    for (uint32_t h = 0; h < 2; h++) {
        const uint32_t j = 2 * g + h;
        const int low = unit[j % 8 * ROWS + lane] >> (j / 8 * 4) & 15;
        const int top = unit[(8 + j % 4) * ROWS + lane] >> (j / 4 * 2) & 3;
        out->s[h] = (low | top << 4) - 32;
    }
    out->d = half_at(unit + 12 * ROWS, lane);
}

static void unpack_iq4_xs(const uint8_t *unit, uint32_t g, uint32_t lane, ferrum_packed_lane_t *out)
{
    const uint8_t *scales = unit + 32 * VECTOR;
    const uint32_t high = ferrum_load_u16(scales + 2 * ROWS + 2 * (size_t)lane);
    const uint32_t low = scales[4 * ROWS + g / 2 * ROWS + lane] >> (g % 2 * 4) & 15;
    for (uint32_t i = 0; i < GROUP; i++)
        out->v[i] = ferrum_iq4_levels[nibble(unit, g * 4, lane, i)];
    out->d = half_at(scales, lane) * (float)((int)(low | (high >> (2 * g) & 3) << 4) - 32);
}

static float gptq_scale(ferrum_dtype_t dtype, const uint8_t *scales, uint32_t lane)
{
    if (dtype == FERRUM_DTYPE_F32)
        return ferrum_f32_from_bits(ferrum_load_u32(scales + 4 * (size_t)lane));
    const uint16_t bits = ferrum_load_u16(scales + 2 * (size_t)lane);
    return dtype == FERRUM_DTYPE_F16 ? ferrum_f16_to_f32(bits) : ferrum_bf16_to_f32(bits);
}

static void unpack_gptq(const ferrum_packed_matrix_t *m, const uint8_t *unit, uint32_t g,
                        uint32_t lane, ferrum_packed_lane_t *out)
{
    const bool four = m->kind == FERRUM_PACKED_GPTQ4;
    const uint8_t *scales = unit + (size_t)m->unit / (four ? 8 : 4) * VECTOR;
    const size_t scale_bytes = m->scale_dtype == FERRUM_DTYPE_F32 ? 4 : 2;
    const int zero = scales[ROWS * scale_bytes + lane];
    out->d = gptq_scale(m->scale_dtype, scales, lane);
    for (uint32_t i = 0; i < GROUP; i++)
        if (four) /* a word holds eight values, low nibbles first */
            out->v[i] =
                (int16_t)((int)(lane_byte(unit, g * 4 + i / 8, lane, i % 8 / 2) >> (i % 2 * 4) &
                                15) -
                          zero);
        else
            out->v[i] = (int16_t)((int)lane_byte(unit, g * 8, lane, i) - 128);
    if (!four)
        out->min[0] = out->d * (float)(zero - 128);
}

void ferrum_packed_unpack_scalar(const ferrum_packed_matrix_t *matrix, const uint8_t *panel,
                                 uint32_t group, uint32_t lane, ferrum_packed_lane_t *out)
{
    const uint32_t per_unit = matrix->unit / GROUP, g = group % per_unit;
    const uint8_t *unit = panel + group / per_unit * matrix->unit_bytes;

    *out = (ferrum_packed_lane_t){.s = {1, 1}};
    switch (matrix->kind) {
    case FERRUM_PACKED_Q2_K:
        unpack_q2_k(unit, g, lane, out);
        break;
    case FERRUM_PACKED_Q3_K:
        unpack_q3_k(unit, g, lane, out);
        break;
    case FERRUM_PACKED_Q4_K:
    case FERRUM_PACKED_Q5_K:
        unpack_q45_k(unit, matrix->kind == FERRUM_PACKED_Q5_K, g, lane, out);
        break;
    case FERRUM_PACKED_Q6_K:
        unpack_q6_k(unit, g, lane, out);
        break;
    case FERRUM_PACKED_IQ4_XS:
        unpack_iq4_xs(unit, g, lane, out);
        break;
    case FERRUM_PACKED_GPTQ4:
    case FERRUM_PACKED_GPTQ8:
        unpack_gptq(matrix, unit, g, lane, out);
        break;
    default:
        unpack_legacy(matrix->kind, unit, lane, out);
    }
}
