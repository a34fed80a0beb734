/* SPDX-License-Identifier: MIT */
/* The table of packed kinds, sizes, and packing: each part of sixteen blocks is moved lane by lane.
 */
#include "kernels/packed.h"

#include <ferrum/util.h>

#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    VECTOR = 64,
    PARTS = 5,
    FULL = 32639, /* 127 * 256 + 127: a code can be cut in two signed bytes */
    SHORT = 16383
};

/** Where a part of a block lies. It is moved lane by lane in pieces of `piece` bytes. */
typedef struct part {
    uint8_t offset;
    uint8_t bytes;
    uint8_t piece;
} part_t;

/** One kind: its traits, and the parts of its block in the unit's order. */
typedef struct layout {
    ferrum_packed_traits_t traits;
    part_t parts[PARTS];
} layout_t;

#define TRAITS(format, unit, block_bytes, top, offset, fold, halves, minima)                       \
    {                                                                                              \
        FERRUM_FORMAT_##format, unit, (block_bytes)*ROWS, top, offset, fold, halves, minima        \
    }

/* Folds are as long as |S| < 2^31 allows; the largest S by kind:
 *   Q2_K  15*3 * 256 values * FULL           Q3_K  32*4 * 256 * FULL
 *   Q4_K  63*8 * 128 * FULL (2113864704)     Q5_K  63*16 * 64 * FULL (the same)
 *   Q6_K  128*32 * 32 * SHORT (2147352576)   GPTQ  128 * 256 * FULL */
static const layout_t layouts[FERRUM_PACKED_KINDS] = {
    [FERRUM_PACKED_Q4_0] = {TRAITS(Q4_0, 32, 18, FULL, 8, 1, false, false),
                            {{2, 16, 4}, {0, 2, 2}}},
    [FERRUM_PACKED_Q4_1] = {TRAITS(Q4_1, 32, 20, FULL, 0, 1, false, true),
                            {{4, 16, 4}, {0, 2, 2}, {2, 2, 2}}},
    [FERRUM_PACKED_Q5_0] = {TRAITS(Q5_0, 32, 22, FULL, 16, 1, false, false),
                            {{6, 16, 4}, {2, 4, 4}, {0, 2, 2}}},
    [FERRUM_PACKED_Q5_1] = {TRAITS(Q5_1, 32, 24, FULL, 0, 1, false, true),
                            {{8, 16, 4}, {4, 4, 4}, {0, 2, 2}, {2, 2, 2}}},
    [FERRUM_PACKED_Q8_0] = {TRAITS(Q8_0, 32, 34, FULL, 128, 1, false, false),
                            {{2, 32, 4}, {0, 2, 2}}},
    [FERRUM_PACKED_IQ4_NL] = {TRAITS(IQ4_NL, 32, 18, FULL, 128, 1, false, false),
                              {{2, 16, 4}, {0, 2, 2}}},
    [FERRUM_PACKED_MXFP4] = {TRAITS(MXFP4, 32, 17, FULL, 12, 1, false, false),
                             {{1, 16, 4}, {0, 1, 1}}},
    [FERRUM_PACKED_Q2_K] = {TRAITS(Q2_K, 256, 84, FULL, 0, 8, true, true),
                            {{0, 16, 1}, {80, 2, 2}, {82, 2, 2}, {16, 64, 4}}},
    [FERRUM_PACKED_Q3_K] = {TRAITS(Q3_K, 256, 110, FULL, 4, 8, true, false),
                            {{96, 12, 1}, {108, 2, 2}, {32, 64, 4}, {0, 32, 4}}},
    [FERRUM_PACKED_Q4_K] = {TRAITS(Q4_K, 256, 144, FULL, 8, 4, false, true),
                            {{4, 12, 1}, {0, 2, 2}, {2, 2, 2}, {16, 128, 4}}},
    [FERRUM_PACKED_Q5_K] = {TRAITS(Q5_K, 256, 176, FULL, 16, 2, false, true),
                            {{4, 12, 1}, {0, 2, 2}, {2, 2, 2}, {48, 128, 4}, {16, 32, 4}}},
    [FERRUM_PACKED_Q6_K] = {TRAITS(Q6_K, 256, 210, SHORT, 32, 1, true, false),
                            {{192, 16, 1}, {208, 2, 2}, {0, 128, 4}, {128, 64, 4}}},
    [FERRUM_PACKED_IQ4_XS] = {TRAITS(IQ4_XS, 256, 136, FULL, 128, 1, false, false),
                              {{8, 128, 4}, {0, 2, 2}, {2, 2, 2}, {4, 4, 1}}},
    [FERRUM_PACKED_GPTQ4] = {TRAITS(GPTQ, 0, 0, FULL, 16, 0, false, false), {{0}}},
    [FERRUM_PACKED_GPTQ8] = {TRAITS(GPTQ, 0, 0, FULL, 128, 0, false, true), {{0}}},
};

const ferrum_packed_traits_t *ferrum_packed_traits(ferrum_packed_kind_t kind)
{
    return kind > FERRUM_PACKED_NONE && kind < FERRUM_PACKED_KINDS ? &layouts[kind].traits : NULL;
}

ferrum_packed_kind_t ferrum_packed_kind_of(ferrum_weight_format_t format)
{
    for (int kind = FERRUM_PACKED_NONE + 1; kind < FERRUM_PACKED_GPTQ4; kind++)
        if (layouts[kind].traits.format == format)
            return (ferrum_packed_kind_t)kind;
    return FERRUM_PACKED_NONE;
}

uint32_t ferrum_packed_fold(const ferrum_packed_matrix_t *matrix)
{
    uint32_t fold = layouts[matrix->kind].traits.fold;
    if (fold == 0)
        for (fold = FERRUM_PACKED_GROUPS; matrix->unit % (fold * GROUP);)
            fold /= 2;
    return fold;
}

static size_t scale_bytes(ferrum_dtype_t dtype)
{
    return dtype == FERRUM_DTYPE_F32 ? 4 : 2;
}

bool ferrum_packed_shape(ferrum_packed_kind_t kind, uint32_t n, uint32_t k, uint32_t group,
                         ferrum_dtype_t scale_dtype, ferrum_packed_matrix_t *out_matrix)
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(kind);
    if (!traits)
        return false;
    ferrum_packed_matrix_t m = {.kind = kind, .n = n, .k = k, .unit = traits->unit};
    m.unit_bytes = traits->unit_bytes;
    if (m.unit == 0) {
        if (scale_dtype > FERRUM_DTYPE_BF16)
            return false;
        m.unit = group;
        m.scale_dtype = scale_dtype;
        m.unit_bytes = (size_t)group * ROWS / (kind == FERRUM_PACKED_GPTQ4 ? 2 : 1) +
                       ROWS * (scale_bytes(scale_dtype) + 1);
    }
    if (m.unit == 0 || m.unit % GROUP || k == 0 || k % m.unit || n == 0 || n % ROWS)
        return false;
    m.panel_bytes = k / m.unit * m.unit_bytes;
    m.panel_stride = m.panel_bytes;
    *out_matrix = m;
    return true;
}

void ferrum_pack_blocks(const ferrum_packed_matrix_t *matrix, const uint8_t *rows, size_t row_bytes,
                        uint8_t *out)
{
    const layout_t *layout = &layouts[matrix->kind];
    for (uint32_t u = 0; u < matrix->k / matrix->unit; u++) {
        for (const part_t *part = layout->parts; part < layout->parts + PARTS && part->bytes;
             part++)
            for (uint32_t at = 0; at < part->bytes; at += part->piece)
                for (uint32_t r = 0; r < ROWS; r++, out += part->piece)
                    memcpy(out, rows + r * row_bytes + part->offset + at, part->piece);
        rows += layout->traits.unit_bytes / ROWS;
    }
}

void ferrum_pack_gptq(const ferrum_packed_matrix_t *matrix, const uint32_t *qweight,
                      const void *scales, const uint8_t *zeros, uint32_t n, uint32_t col,
                      uint8_t *out)
{
    const uint32_t words = matrix->unit / (matrix->kind == FERRUM_PACKED_GPTQ4 ? 8 : 4);
    const size_t size = scale_bytes(matrix->scale_dtype);
    for (uint32_t g = 0; g < matrix->k / matrix->unit; g++) {
        for (uint32_t w = 0; w < words; w++, out += VECTOR)
            memcpy(out, qweight + ((size_t)g * words + w) * n + col, VECTOR);
        memcpy(out, (const uint8_t *)scales + ((size_t)g * n + col) * size, ROWS * size);
        memcpy(out + ROWS * size, zeros + (size_t)g * n + col, ROWS);
        out += ROWS * (size + 1);
    }
}
