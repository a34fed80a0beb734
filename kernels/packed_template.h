/* SPDX-License-Identifier: MIT */
/**
 * @file packed_template.h
 * @brief The packed product over any vector vocabulary. Include it once per implementation, with
 *        PACKED_PRODUCT naming the ferrum_packed_product_fn to define (see packed_tile.h).
 *
 *     panel of 16 rows:   | block of 256 | block | ...     unpacked once, about 11 KiB, stays in L1
 *     up to 64 tokens:    | tile | tile | ...              four tokens meet a register of weights
 *
 * Sums of a token block stay on the stack. Blocks are folded in in order, so that tiles and token
 * blocks leave no trace in the bits.
 */
#ifndef FERRUM_KERNELS_PACKED_TEMPLATE_H
#define FERRUM_KERNELS_PACKED_TEMPLATE_H

#include "kernels/packed_scales.h"
#include "kernels/packed_unpack.h"

enum {
    TOKENS = 64,      /**< that share an unpacked block */
    NEAR_BYTES = 4096 /**< ahead, from the second-level cache or the next panel's memory */
};

#define EACH_TOKEN(t) UNROLL for (int t = 0; t < tokens; t++)

/** A block of weights and what the tiles need to know of it. */
typedef struct step {
    block_t w;
    uint32_t fold;
    uint32_t minima; /**< how many of the block's minima there are */
} step_t;

/** acc[t] -= min[i] * sum[i] for each minimum. */
INLINE void subtract_minima(const step_t *s, const float *const sums[TILE], int tokens,
                            floats_t acc[TILE][PARTS])
{
    for (uint32_t i = 0; i < s->minima; i++)
        EACH_TOKEN(t)
        {
            const floats_t sum = floats_all(sums[t][i]);
            EACH_PART(p)
            acc[t][p] = floats_fnma(floats_load(s->w.min[i] + p * LANES), sum, acc[t][p]);
        }
}

/** out += block times the records x. */
INLINE void tile_fast(const step_t *s, const uint8_t *const x[TILE], int tokens, code_width_t width,
                      bool halves, float (*out)[ROWS])
{
    const int runs = halves ? 2 : 1, count = STEPS / runs;
    const ferrum_packed_fast_t *records[TILE];
    const float *minimum_sums[TILE];
    floats_t acc[TILE][PARTS];
    EACH_TOKEN(t)
    {
        records[t] = (const ferrum_packed_fast_t *)(const void *)x[t];
        minimum_sums[t] = records[t]->sum;
        EACH_PART(p) acc[t][p] = floats_load(out[t] + p * LANES);
    }
    for (uint32_t g = 0; g < s->w.groups; g++)
        UNROLL for (int h = 0; h < runs; h++)
        {
            const uint32_t i = g * (uint32_t)runs + (uint32_t)h;
            const int8_t *codes[TILE];
            ints_t sums[TILE][PARTS];
            EACH_TOKEN(t)
            {
                codes[t] = records[t]->code + (size_t)g * GROUP;
                EACH_PART(p) sums[t][p] = tile_start(records[t]->start[i], width);
            }
            tile_bytes(s->w.codes.bytes[g], codes, h * count, count, tokens, width, sums);
            EACH_TOKEN(t)
            {
                const floats_t scale = floats_all(records[t]->scale[g]);
                const floats_t bias = floats_all(records[t]->bias[g]);
                EACH_PART(p)
                acc[t][p] = floats_fma(floats_fma(floats_from_bits(sums[t][p]), scale, bias),
                                       floats_load(s->w.scale[i] + p * LANES), acc[t][p]);
            }
        }
    subtract_minima(s, minimum_sums, tokens, acc);
    EACH_TOKEN(t) EACH_PART(p) floats_store(out[t] + p * LANES, acc[t][p]);
}

INLINE void tile_accurate(const step_t *s, const uint8_t *const x[TILE], int tokens,
                          float (*out)[ROWS])
{
    const ferrum_packed_accurate_t *records[TILE];
    const float *minimum_sums[TILE];
    floats_t acc[TILE][PARTS];
    EACH_TOKEN(t)
    {
        records[t] = (const ferrum_packed_accurate_t *)(const void *)x[t];
        minimum_sums[t] = records[t]->sum;
        EACH_PART(p) acc[t][p] = floats_all(0);
    }
    for (uint32_t g = 0; g < s->w.groups; g += s->fold) {
        ints_t sums[TILE][PARTS];
        EACH_TOKEN(t) EACH_PART(p) sums[t][p] = ints_zero();
        for (uint32_t j = g; j < g + s->fold; j++) {
            const int16_t *codes[TILE];
            EACH_TOKEN(t) codes[t] = records[t]->code + (size_t)j * GROUP;
            tile_words(s->w.codes.words[j], codes, tokens, sums);
        }
        EACH_PART(p)
        {
            const floats_t d = floats_load(s->w.d[g] + p * LANES);
            EACH_TOKEN(t)
            acc[t][p] = floats_fma(floats_of(sums[t][p]), d, acc[t][p]);
        }
    }
    EACH_TOKEN(t)
    EACH_PART(p)
    acc[t][p] =
        floats_fma(acc[t][p], floats_all(records[t]->scale), floats_load(out[t] + p * LANES));
    subtract_minima(s, minimum_sums, tokens, acc);
    EACH_TOKEN(t) EACH_PART(p) floats_store(out[t] + p * LANES, acc[t][p]);
}

/** A tile for each combination that occurs. */
typedef void tile_fn(const step_t *s, const uint8_t *const x[TILE], float (*out)[ROWS]);

#define DEFINE_FAST(width, halves, tokens)                                                         \
    static void fast_##width##_##halves##_##tokens(const step_t *s, const uint8_t *const x[TILE],  \
                                                   float(*out)[ROWS])                              \
    {                                                                                              \
        tile_fast(s, x, tokens, CODES_##width, halves, out);                                       \
    }
#define DEFINE_FAST_SIZES(width, halves)                                                           \
    DEFINE_FAST(width, halves, 1) DEFINE_FAST(width, halves, 2) DEFINE_FAST(width, halves, 4)
#define FAST_SIZES(width, halves)                                                                  \
    {                                                                                              \
        fast_##width##_##halves##_1, fast_##width##_##halves##_2, fast_##width##_##halves##_4      \
    }
#define DEFINE_ACCURATE(tokens)                                                                    \
    static void accurate_##tokens(const step_t *s, const uint8_t *const x[TILE],                   \
                                  float(*out)[ROWS])                                               \
    {                                                                                              \
        tile_accurate(s, x, tokens, out);                                                          \
    }

DEFINE_FAST_SIZES(NARROW, 0)
DEFINE_FAST_SIZES(NARROW, 1)
DEFINE_FAST_SIZES(MEDIUM, 0)
DEFINE_FAST_SIZES(MEDIUM, 1)
DEFINE_FAST_SIZES(WIDE, 0)
DEFINE_ACCURATE(1)
DEFINE_ACCURATE(2)
DEFINE_ACCURATE(4)

/** [width][halves][log2 of tokens]; no wide kind has halves. */
static tile_fn *const fast_tiles[][2][3] = {{FAST_SIZES(NARROW, 0), FAST_SIZES(NARROW, 1)},
                                            {FAST_SIZES(MEDIUM, 0), FAST_SIZES(MEDIUM, 1)},
                                            {FAST_SIZES(WIDE, 0), {NULL}}};
static tile_fn *const accurate_tiles[3] = {accurate_1, accurate_2, accurate_4};

/** Codes of group @p g of the block: group @p j of unit @p u. Registers of one vector follow each
 *  other, so that their stores meet in a cache line. */
INLINE void unpack_codes(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind,
                         ferrum_packed_precision_t precision, const uint8_t *u,
                         const unit_ints_t *ints, uint32_t g, uint32_t j, block_t *w)
{
    const uint32_t runs = has_halves(kind) ? 2 : 1, run_steps = STEPS / runs;
    const bool scaled = has_integers(kind) && precision == FERRUM_PACKED_ACCURATE;
    codes_t zeros[PARTS];
    EACH_PART(p)
    zeros[p] = kind == FERRUM_PACKED_GPTQ4 ? gptq_zeros(m, u, (uint32_t)p * LANES) : codes_load(u);
    UNROLL for (uint32_t h = 0; h < runs; h++)
    {
        words_t scale[PARTS];
        if (scaled)
            EACH_PART(p)
        scale[p] = words_scale(ints->s[j * runs + h] + (uint32_t)p * LANES, offset_of(kind));
        UNROLL for (uint32_t s = h * run_steps; s < (h + 1) * run_steps; s++) EACH_PART(p)
        {
            const uint32_t part = (uint32_t)p;
            const codes_t codes = codes_of(kind, u + part * PART_BYTES, j, s, zeros[p]);
            if (precision == FERRUM_PACKED_FAST)
                codes_store(w->codes.bytes[g] + s * VECTOR + part * PART_BYTES, codes);
            else
                words_store(w->codes.words[g], s, part, codes, offset_of(kind),
                            scaled ? &scale[p] : NULL);
        }
    }
}

/** Ask for a group's bytes: a little ahead, and those of the same group of the panel @p ahead. */
INLINE void prefetch_group(const uint8_t *group, const uint8_t *ahead, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += VECTOR) {
        __builtin_prefetch(group + NEAR_BYTES + at);
        if (ahead)
            __builtin_prefetch(ahead + at, 0, 2);
    }
}

/** A block that is one unit: everything about its groups is known when this is compiled. */
INLINE void unpack_unit(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind,
                        ferrum_packed_precision_t precision, const uint8_t *u, const uint8_t *ahead,
                        block_t *w)
{
    const size_t group_bytes = m->unit_bytes / GROUPS;
    const bool integers = has_integers(kind);
    unit_floats_t floats;
    unit_ints_t ints;
    unpack_ints(kind, u, &ints);
    if (integers)
        floats = floats_k(kind, u);
    w->groups = GROUPS;
    UNROLL for (uint32_t g = 0; g < GROUPS; g++)
    {
        prefetch_group(u + g * group_bytes, ahead ? ahead + g * group_bytes : NULL, group_bytes);
        if (integers)
            scales_k(kind, precision, &floats, &ints, g, w);
        else
            scales_flat(m, kind, u, &ints, g, g, w);
        unpack_codes(m, kind, precision, u, &ints, g, g, w);
    }
}

/** Block @p b of a panel. The same block of the panel @p ahead (if any) is asked for. */
INLINE void unpack_block(const ferrum_packed_matrix_t *m, ferrum_packed_kind_t kind,
                         ferrum_packed_precision_t precision, const uint8_t *panel,
                         const uint8_t *ahead, uint32_t b, block_t *w)
{
    const uint32_t groups = m->k / GROUP, per_unit = unit_of(m, kind) / GROUP, first = b * GROUPS;
    const size_t group_bytes = m->unit_bytes / per_unit;
    if (has_integers(kind) || kind == FERRUM_PACKED_IQ4_XS) {
        const size_t unit = b * m->unit_bytes;
        unpack_unit(m, kind, precision, panel + unit, ahead ? ahead + unit : NULL, w);
        return;
    }
    w->groups = groups - first < GROUPS ? groups - first : GROUPS;
    for (uint32_t g = 0; g < w->groups; g++) {
        const uint32_t j = (first + g) % per_unit;
        const size_t unit = (size_t)((first + g) / per_unit) * m->unit_bytes;
        prefetch_group(panel + unit + j * group_bytes,
                       ahead ? ahead + unit + j * group_bytes : NULL, group_bytes);
        scales_flat(m, kind, panel + unit, NULL, g, j, w);
        unpack_codes(m, kind, precision, panel + unit, NULL, g, j, w);
    }
}

typedef void unpack_fn(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                       const uint8_t *panel, const uint8_t *ahead, uint32_t b, block_t *w);

#define PACKED_KINDS(X)                                                                            \
    X(Q4_0)                                                                                        \
    X(Q4_1)                                                                                        \
    X(Q5_0)                                                                                        \
    X(Q5_1)                                                                                        \
    X(Q8_0) X(IQ4_NL) X(MXFP4) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_XS) X(GPTQ4) X(GPTQ8)
#define DEFINE_UNPACK(kind)                                                                        \
    static void unpack_##kind(const ferrum_packed_matrix_t *m,                                     \
                              ferrum_packed_precision_t precision, const uint8_t *panel,           \
                              const uint8_t *ahead, uint32_t b, block_t *w)                        \
    {                                                                                              \
        if (precision == FERRUM_PACKED_FAST)                                                       \
            unpack_block(m, FERRUM_PACKED_##kind, FERRUM_PACKED_FAST, panel, ahead, b, w);         \
        else                                                                                       \
            unpack_block(m, FERRUM_PACKED_##kind, FERRUM_PACKED_ACCURATE, panel, ahead, b, w);     \
    }
#define UNPACK_ENTRY(kind) [FERRUM_PACKED_##kind] = unpack_##kind,

PACKED_KINDS(DEFINE_UNPACK)
static unpack_fn *const unpack_table[] = {PACKED_KINDS(UNPACK_ENTRY)};

/** out[t] = panel times token t; tokens <= TOKENS. */
static void panel_product(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                          const uint8_t *panel, const uint8_t *ahead,
                          const uint8_t *const x[TOKENS], uint32_t tokens, float (*out)[ROWS])
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(m->kind);
    const bool fast = precision == FERRUM_PACKED_FAST;
    const size_t record = fast ? sizeof(ferrum_packed_fast_t) : sizeof(ferrum_packed_accurate_t);
    tile_fn *const *tiles = fast ? fast_tiles[width_of(m->kind)][traits->halves] : accurate_tiles;
    step_t step = {.fold = ferrum_packed_fold(m)};
    memset(out, 0, tokens * sizeof *out);
    for (uint32_t b = 0; b * FERRUM_PACKED_BLOCK < m->k; b++) {
        unpack_table[m->kind](m, precision, panel, ahead, b, &step.w);
        step.minima = traits->minima ? step.w.groups << traits->halves : 0;
        for (uint32_t t = 0; t < tokens;) {
            const uint32_t size = tokens - t >= 4 ? 2 : tokens - t >= 2 ? 1 : 0;
            const uint8_t *records[TILE];
            for (uint32_t i = 0; i < 1u << size; i++)
                records[i] = x[t + i] + b * record;
            tiles[size](&step, records, out + t);
            t += 1u << size;
        }
    }
}

void PACKED_PRODUCT(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                    uint32_t row, uint32_t rows, const uint8_t *x, size_t x_stride,
                    const uint32_t *x_rows, uint32_t tokens, float *y, size_t ldy)
{
    _Alignas(VECTOR) float out[TOKENS][ROWS];
    const uint8_t *records[TOKENS];
    for (uint32_t first = 0, block; first < tokens; first += block) {
        block = tokens - first < TOKENS ? tokens - first : TOKENS;
        for (uint32_t t = 0; t < block; t++)
            records[t] = x + (x_rows ? x_rows[first + t] : first + t) * x_stride;
        for (uint32_t done = 0, count; done < rows; done += count) {
            const uint32_t lane = (row + done) % ROWS;
            count = rows - done < ROWS - lane ? rows - done : ROWS - lane;
            const uint8_t *panel = m->panels + (row + done) / ROWS * m->panel_stride;
            const uint8_t *ahead = done + count < rows ? panel + m->panel_stride : m->next;
            panel_product(m, precision, panel, ahead, records, block, out);
            for (uint32_t t = 0; t < block; t++)
                memcpy(y + (first + t) * ldy + done, out[t] + lane, count * sizeof *y);
        }
    }
}

#endif /* FERRUM_KERNELS_PACKED_TEMPLATE_H */
