/* SPDX-License-Identifier: MIT */
/*
 * Packing of panels, and the reference of quantising and multiplying. One lane at a time, in the
 * order that packed.h prescribes, so that vector kernels can be compared with it bit by bit.
 */
#include "kernels/packed.h"
#include "kernels/scalar/convert.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    VECTOR = 64
};

/** Where the parts of a block lie. A part is moved lane by lane in pieces of `piece` bytes. */
typedef struct part {
    uint8_t offset;
    uint8_t bytes;
    uint8_t piece;
} part_t;

/** One block format and its unit. */
typedef struct layout {
    ferrum_packed_kind_t kind;
    ferrum_weight_format_t format;
    uint16_t unit;
    uint16_t block_bytes;
    uint16_t unit_bytes;
    part_t parts[4]; /**< in the unit's order; scales of k-quants are unpacked separately */
} layout_t;

static const layout_t layouts[] = {
    {FERRUM_PACKED_Q4_0, FERRUM_FORMAT_Q4_0, 32, 18, 288, {{2, 16, 4}, {0, 2, 2}}},
    {FERRUM_PACKED_Q8_0, FERRUM_FORMAT_Q8_0, 32, 34, 544, {{2, 32, 4}, {0, 2, 2}}},
    {FERRUM_PACKED_Q4_K, FERRUM_FORMAT_Q4_K, 256, 144, 2368, {{16, 128, 4}}},
    {FERRUM_PACKED_Q5_K, FERRUM_FORMAT_Q5_K, 256, 176, 2880, {{48, 128, 4}, {16, 32, 4}}},
    {FERRUM_PACKED_Q6_K,
     FERRUM_FORMAT_Q6_K,
     256,
     210,
     3360,
     {{0, 128, 4}, {128, 64, 4}, {192, 16, 1}, {208, 2, 2}}},
};

static const layout_t *find_layout(ferrum_packed_kind_t kind)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i].kind == kind)
            return &layouts[i];
    return NULL;
}

ferrum_packed_kind_t ferrum_packed_kind_of(ferrum_weight_format_t format)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i].format == format)
            return layouts[i].kind;
    return FERRUM_PACKED_NONE;
}

bool ferrum_packed_shape(ferrum_packed_kind_t kind, uint32_t n, uint32_t k, uint32_t group,
                         ferrum_packed_matrix_t *out_matrix)
{
    const layout_t *layout = find_layout(kind);
    ferrum_packed_matrix_t m = {.kind = kind, .n = n, .k = k};
    if (layout) {
        m.unit = layout->unit;
        m.unit_bytes = layout->unit_bytes;
    } else if (kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8) {
        m.unit = group;
        m.unit_bytes = (size_t)group * ROWS / (kind == FERRUM_PACKED_GPTQ4 ? 2 : 1) + ROWS * 5;
    }
    if (m.unit == 0 || m.unit % GROUP || k == 0 || k % m.unit || n == 0 || n % ROWS)
        return false;
    m.panel_bytes = k / m.unit * m.unit_bytes;
    *out_matrix = m;
    return true;
}

/** The 6-bit scales and minima of Q4_K and Q5_K become bytes: [8 groups][16 rows] each. */
static void pack_scale_mins(const uint8_t *block, size_t row_bytes, uint8_t *out)
{
    for (uint32_t r = 0; r < ROWS; r++) {
        const uint8_t *b = block + r * row_bytes, *s = b + 4;
        for (uint32_t j = 0; j < 4; j++) {
            out[j * ROWS + r] = s[j] & 63;
            out[(j + 8) * ROWS + r] = s[j + 4] & 63;
            out[(j + 4) * ROWS + r] = (uint8_t)((s[j + 8] & 15) | (s[j] >> 6) << 4);
            out[(j + 12) * ROWS + r] = (uint8_t)(s[j + 8] >> 4 | (s[j + 4] >> 6) << 4);
        }
        memcpy(out + 16 * ROWS + 2 * r, b, 2);
        memcpy(out + 18 * ROWS + 2 * r, b + 2, 2);
    }
}

void ferrum_pack_blocks(const ferrum_packed_matrix_t *matrix, const uint8_t *rows, size_t row_bytes,
                        uint8_t *out)
{
    const layout_t *layout = find_layout(matrix->kind);
    for (uint32_t u = 0; u < matrix->k / matrix->unit; u++, rows += layout->block_bytes) {
        for (const part_t *part = layout->parts; part < layout->parts + 4 && part->bytes; part++)
            for (uint32_t at = 0; at < part->bytes; at += part->piece)
                for (uint32_t r = 0; r < ROWS; r++, out += part->piece)
                    memcpy(out, rows + r * row_bytes + part->offset + at, part->piece);
        if (matrix->kind == FERRUM_PACKED_Q4_K || matrix->kind == FERRUM_PACKED_Q5_K) {
            pack_scale_mins(rows, row_bytes, out);
            out += 20 * ROWS;
        }
    }
}

void ferrum_pack_gptq(const ferrum_packed_matrix_t *matrix, const uint32_t *qweight,
                      const float *scales, const uint8_t *zeros, uint32_t n, uint32_t col,
                      uint8_t *out)
{
    const uint32_t words = matrix->unit / (matrix->kind == FERRUM_PACKED_GPTQ4 ? 8 : 4);
    for (uint32_t g = 0; g < matrix->k / matrix->unit; g++) {
        for (uint32_t w = 0; w < words; w++, out += VECTOR)
            memcpy(out, qweight + ((size_t)g * words + w) * n + col, VECTOR);
        memcpy(out, scales + (size_t)g * n + col, ROWS * sizeof *scales);
        memcpy(out + ROWS * sizeof *scales, zeros + (size_t)g * n + col, ROWS);
        out += ROWS * 5;
    }
}

/** Place in its group of 32 from which code i is taken. A GPTQ word holds the codes of eight
 *  values; its low nibbles are the even ones. */
static uint32_t source_of(ferrum_packed_kind_t kind, uint32_t i)
{
    if (kind != FERRUM_PACKED_GPTQ4)
        return i;
    return i / 8 * 8 + i % 4 * 2 + i % 8 / 4;
}

static void quantise(ferrum_packed_kind_t kind, ferrum_packed_precision_t precision, const float *x,
                     const uint32_t *perm, uint32_t k, uint8_t *out)
{
    const uint32_t groups = k / GROUP;
    float *scale = (float *)(void *)out, *sums = scale + groups;
    int8_t *hi = (int8_t *)(sums + 2 * (size_t)groups), *lo = hi + k;
    const float top = precision == FERRUM_PACKED_FAST ? 127.0F : 32512.0F;
    for (uint32_t g = 0; g < groups; g++) {
        float values[GROUP], largest = 0;
        int32_t half[2] = {0, 0};
        bool finite = true;
        for (uint32_t i = 0; i < GROUP; i++) {
            values[i] = x[perm ? perm[g * GROUP + i] : g * GROUP + i];
            largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
            finite = finite && isfinite(values[i]);
        }
        const bool tiny = largest < FERRUM_PACKED_TINY;
        scale[g] = !finite ? NAN : tiny ? 0 : largest / top;
        const float inverse = tiny ? 0 : top / largest;
        for (uint32_t i = 0; i < GROUP; i++) {
            const int32_t code = finite ? (int32_t)lrintf(values[source_of(kind, i)] * inverse) : 0;
            half[i / 16] += code;
            /* The low limb lies in [-128, 127], so the high one fits int8 for |code| <= 32512. */
            hi[g * GROUP + i] =
                (int8_t)(precision == FERRUM_PACKED_FAST ? code : (code + 128) >> 8);
            if (precision == FERRUM_PACKED_ACCURATE)
                lo[g * GROUP + i] = (int8_t)(code - ((code + 128) >> 8) * 256);
        }
        sums[2 * g] = scale[g] * (float)half[0];
        sums[2 * g + 1] = scale[g] * (float)half[1];
    }
}

/** Codes, scales and minima of one lane and group, from either half of it. */
typedef struct lane_group {
    uint8_t code[GROUP];
    float scale[2];
    float min[2];
} lane_group_t;

static float half_at(const uint8_t *p)
{
    return ferrum_f16_to_f32(ferrum_load_u16(p));
}

/** Byte i (in lane order) of vectors first, first+1, ...: four bytes to a vector. */
static uint32_t lane_byte(const uint8_t *vectors, uint32_t first, uint32_t lane, uint32_t i)
{
    return vectors[(size_t)(first + i / 4) * VECTOR + lane * 4 + i % 4];
}

static void unpack_k(const ferrum_packed_matrix_t *m, const uint8_t *unit, uint32_t g,
                     uint32_t lane, lane_group_t *out)
{
    const uint8_t *high = unit + 32 * VECTOR;
    for (uint32_t i = 0; i < GROUP; i++) {
        if (m->kind == FERRUM_PACKED_Q6_K) {
            const uint32_t half = g / 4, quarter = g % 4;
            const uint32_t low = lane_byte(unit, half * 16 + quarter % 2 * 8, lane, i);
            const uint32_t two = lane_byte(high, half * 8, lane, i) >> (2 * quarter) & 3u;
            out->code[i] = (uint8_t)((low >> (quarter / 2 * 4) & 15) + two * 16);
        } else {
            const uint32_t low = lane_byte(unit, g / 2 * 8, lane, i) >> (g % 2 * 4) & 15u;
            const uint32_t one =
                m->kind == FERRUM_PACKED_Q5_K ? lane_byte(high, 0, lane, i) >> g & 1u : 0;
            out->code[i] = (uint8_t)(low + one * 16);
        }
    }
    if (m->kind == FERRUM_PACKED_Q6_K) {
        const uint8_t *scales = high + 16 * VECTOR;
        const float d = half_at(scales + 16 * ROWS + 2 * lane);
        for (uint32_t h = 0; h < 2; h++) {
            out->scale[h] = d * (float)(int8_t)scales[(2 * g + h) * ROWS + lane];
            out->min[h] = out->scale[h] * 32.0F;
        }
        return;
    }
    const uint8_t *scales = high + (m->kind == FERRUM_PACKED_Q5_K ? 8 * VECTOR : 0);
    const uint8_t *ds = scales + 16 * ROWS;
    out->scale[0] = half_at(ds + 2 * lane) * (float)scales[g * ROWS + lane];
    out->min[0] = half_at(ds + 2 * ROWS + 2 * lane) * (float)scales[(g + 8) * ROWS + lane];
}

static void unpack_flat(const ferrum_packed_matrix_t *m, const uint8_t *unit, uint32_t g,
                        uint32_t lane, lane_group_t *out)
{
    const bool nibbles = m->kind == FERRUM_PACKED_Q4_0 || m->kind == FERRUM_PACKED_GPTQ4;
    const uint32_t vectors = m->unit / (nibbles ? 8 : 4);
    const uint8_t *scales = unit + (size_t)vectors * VECTOR;
    for (uint32_t i = 0; i < GROUP; i++)
        switch (m->kind) {
        case FERRUM_PACKED_Q4_0: /* low nibbles first, then high */
            out->code[i] = lane_byte(unit, 0, lane, i % 16) >> (i / 16 * 4) & 15;
            break;
        case FERRUM_PACKED_GPTQ4: /* each word: its low nibbles, then its high ones */
            out->code[i] = lane_byte(unit, g * 4 + i / 8, lane, i % 4) >> (i % 8 / 4 * 4) & 15;
            break;
        case FERRUM_PACKED_Q8_0: /* made unsigned */
            out->code[i] = (uint8_t)(lane_byte(unit, 0, lane, i) ^ 0x80);
            break;
        default:
            out->code[i] = (uint8_t)lane_byte(unit, g * 8, lane, i);
        }
    if (m->kind == FERRUM_PACKED_Q4_0 || m->kind == FERRUM_PACKED_Q8_0) {
        out->scale[0] = half_at(scales + 2 * lane);
        out->min[0] = out->scale[0] * (nibbles ? 8.0F : 128.0F);
    } else {
        memcpy(&out->scale[0], scales + 4 * lane, sizeof(float));
        out->min[0] = out->scale[0] * (float)scales[4 * ROWS + lane];
    }
}

static int32_t code_sum(const lane_group_t *w, uint32_t first, uint32_t count,
                        ferrum_packed_precision_t precision, const int8_t *hi, const int8_t *lo)
{
    int32_t high = 0, low = 0;
    for (uint32_t i = first; i < first + count; i++) {
        high += w->code[i] * hi[i];
        low += precision == FERRUM_PACKED_ACCURATE ? w->code[i] * lo[i] : 0;
    }
    return precision == FERRUM_PACKED_ACCURATE ? high * 256 + low : high;
}

static float dot_lane(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                      const uint8_t *panel, uint32_t lane, const uint8_t *x)
{
    const uint32_t groups = m->k / GROUP, per_unit = m->unit / GROUP;
    const float *scale = (const float *)(const void *)x, *sums = scale + groups;
    const int8_t *hi = (const int8_t *)(sums + 2 * (size_t)groups), *lo = hi + m->k;
    float acc = 0;
    for (uint32_t g = 0; g < groups; g++, hi += GROUP, lo += GROUP) {
        lane_group_t w = {.scale = {0}};
        const uint8_t *unit = panel + g / per_unit * m->unit_bytes;
        if (m->unit == 256 && m->kind != FERRUM_PACKED_GPTQ4 && m->kind != FERRUM_PACKED_GPTQ8)
            unpack_k(m, unit, g % per_unit, lane, &w);
        else
            unpack_flat(m, unit, g % per_unit, lane, &w);
        if (m->kind == FERRUM_PACKED_Q6_K) {
            float part = (float)code_sum(&w, 0, 16, precision, hi, lo) * w.scale[0];
            part = fmaf((float)code_sum(&w, 16, 16, precision, hi, lo), w.scale[1], part);
            acc = fmaf(part, scale[g], acc);
            acc = fmaf(-w.min[0], sums[2 * g], acc);
            acc = fmaf(-w.min[1], sums[2 * g + 1], acc);
        } else {
            acc =
                fmaf((float)code_sum(&w, 0, GROUP, precision, hi, lo) * scale[g], w.scale[0], acc);
            acc = fmaf(-w.min[0], sums[2 * g] + sums[2 * g + 1], acc);
        }
    }
    return acc;
}

static void product(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                    uint32_t row, uint32_t rows, const uint8_t *x, size_t x_stride, uint32_t tokens,
                    float *y, size_t ldy)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t t = 0; t < tokens; t++)
            y[t * ldy + r] = dot_lane(m, precision, m->panels + (row + r) / ROWS * m->panel_bytes,
                                      (row + r) % ROWS, x + t * x_stride);
}

const ferrum_packed_ops_t ferrum_packed_ops_scalar = {quantise, product};
