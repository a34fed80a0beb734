/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX-512 VNNI: y[t, rows] += panels . x_t.
 *
 * A lane is an output row. Blocks of 256 values of two panels are unpacked once into a buffer that
 * stays in the first-level cache, and meet all tokens, up to eight at a time: a word of a token's
 * codes is broadcast from memory and multiplied with the codes of 2 x 16 rows. Sums stay in
 * registers for a group (FAST) or a fold (ACCURATE); y itself holds the f32 sums between blocks.
 */
#include "kernels/x86/packed_avx512vnni.h"

#include <immintrin.h>
#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    VECTOR = 64,
    TOKENS = 8,
    PANELS = 2,
    CHAINS = 4
};

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/** What a tile works on: panels of one block, and the tokens' records of it. */
typedef struct tile {
    const ferrum_unpacked_t *panel; /**< [PANELS] */
    const void *x[TOKENS];
    uint32_t groups;
    uint32_t fold;
    uint32_t minima; /**< their number */
    bool first;      /**< y is not yet set */
    float *y;
    ptrdiff_t ldy;
    __mmask16 lanes[PANELS];
    const uint8_t
        *ahead[PANELS]; /**< what each group asks ahead_step bytes of, ahead_bytes in all */
    size_t ahead_step, ahead_bytes;
    bool more;           /**< panels follow in this call */
    const float *next_y; /**< their outputs, asked for with the last block; or NULL */
} tile_t;

INLINE __m512i word(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
}

INLINE void load_cells(const tile_t *tile, int panels, int tokens, __m512 acc[PANELS][TOKENS])
{
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++)
    {
        const float *y = tile->y + t * tile->ldy + p * ROWS;
        acc[p][t] = tile->first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(tile->lanes[p], y);
    }
}

INLINE void store_cells(const tile_t *tile, int panels, int tokens, __m512 acc[PANELS][TOKENS])
{
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++)
        _mm512_mask_storeu_ps(tile->y + t * tile->ldy + p * ROWS, tile->lanes[p], acc[p][t]);
}

/** Ask for the g-th part of what is multiplied next. To the second-level cache, since it is a while
 *  until it is read; a few lines per group, since misses share the units of loads. */
INLINE void prefetch(const tile_t *tile, int panels, int tokens, uint32_t g)
{
    if (tile->next_y && g < (uint32_t)tokens)
        for (int p = 0; p < PANELS; p++)
            _mm_prefetch((const char *)(tile->next_y + (ptrdiff_t)g * tile->ldy + p * ROWS),
                         _MM_HINT_T0);
    const size_t end = (g + 1) * tile->ahead_step;
    for (size_t at = g * tile->ahead_step; at < end && at < tile->ahead_bytes; at += VECTOR)
        UNROLL for (int p = 0; p < panels; p++)
            _mm_prefetch((const char *)tile->ahead[p] + at, _MM_HINT_T1);
}

INLINE void load_codes(const tile_t *tile, int panels, size_t at, __m512i w[PANELS])
{
    UNROLL for (int p = 0; p < panels; p++) w[p] =
        _mm512_load_si512(tile->panel[p].code + at * VECTOR);
}

/** Minimum @p i of every row times the sum of token t's activations that it belongs to. */
INLINE void subtract_minima(const tile_t *tile, int panels, uint32_t i, float sum, int t,
                            __m512 acc[PANELS][TOKENS])
{
    UNROLL for (int p = 0; p < panels; p++) acc[p][t] =
        _mm512_fnmadd_ps(_mm512_load_ps(tile->panel[p].min[i]), _mm512_set1_ps(sum), acc[p][t]);
}

INLINE void tile_fast(const tile_t *tile, int panels, int tokens, int halves)
{
    const ferrum_packed_fast_t *const *x =
        (const ferrum_packed_fast_t *const *)(const void *)tile->x;
    __m512 acc[PANELS][TOKENS];
    load_cells(tile, panels, tokens, acc);
    for (uint32_t i = 0; i < tile->groups * (uint32_t)halves; i++) {
        const uint32_t g = i / (uint32_t)halves;
        const int steps = 8 / halves;
        __m512i sum[PANELS][TOKENS];
        if (halves == 1 || i % 2 == 0)
            prefetch(tile, panels, tokens, g);
        UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++) sum[p][t] =
            _mm512_set1_epi32(x[t]->start[i]);
        UNROLL for (int s = 0; s < steps; s++)
        {
            const size_t at = i * (size_t)steps + (size_t)s;
            __m512i w[PANELS];
            load_codes(tile, panels, at, w);
            UNROLL for (int t = 0; t < tokens; t++)
            {
                const __m512i c = word(x[t]->code + 4 * at);
                UNROLL for (int p = 0; p < panels; p++) sum[p][t] =
                    _mm512_dpbusd_epi32(sum[p][t], w[p], c);
            }
        }
        UNROLL for (int t = 0; t < tokens; t++)
        {
            const __m512 scale = _mm512_set1_ps(x[t]->scale[g]);
            const __m512 bias = _mm512_set1_ps(x[t]->bias[g]);
            UNROLL for (int p = 0; p < panels; p++)
            {
                const __m512 part = _mm512_fmadd_ps(_mm512_castsi512_ps(sum[p][t]), scale, bias);
                acc[p][t] =
                    _mm512_fmadd_ps(part, _mm512_load_ps(tile->panel[p].scale[i]), acc[p][t]);
            }
        }
    }
    for (uint32_t i = 0; i < tile->minima; i++)
        UNROLL for (int t = 0; t < tokens; t++)
            subtract_minima(tile, panels, i, x[t]->sum[i], t, acc);
    store_cells(tile, panels, tokens, acc);
}

/** Exact sums of the groups of a fold. Small tiles have several sums per cell, to hide the latency
 *  of a product behind others. */
INLINE void sum_fold(const tile_t *tile, int panels, int tokens, uint32_t first,
                     __m512i sum[PANELS][TOKENS])
{
    const ferrum_packed_accurate_t *const *x =
        (const ferrum_packed_accurate_t *const *)(const void *)tile->x;
    const int chains = panels * tokens <= 2 ? CHAINS : panels * tokens <= 8 ? 2 : 1;
    __m512i part[PANELS][TOKENS][CHAINS];
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++)
        UNROLL for (int c = 0; c < chains; c++) part[p][t][c] = _mm512_setzero_si512();
    for (uint32_t g = first; g < first + tile->fold; g++) {
        prefetch(tile, panels, tokens, g);
        UNROLL for (int s = 0; s < 16; s++)
        {
            const size_t at = g * (size_t)16 + (size_t)s;
            const int chain = s % chains;
            __m512i w[PANELS];
            load_codes(tile, panels, at, w);
            UNROLL for (int t = 0; t < tokens; t++)
            {
                const __m512i c = word(x[t]->code + 2 * at);
                UNROLL for (int p = 0; p < panels; p++) part[p][t][chain] =
                    _mm512_dpwssd_epi32(part[p][t][chain], w[p], c);
            }
        }
    }
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++)
    {
        sum[p][t] = part[p][t][0];
        UNROLL for (int c = 1; c < chains; c++) sum[p][t] =
            _mm512_add_epi32(sum[p][t], part[p][t][c]);
    }
}

INLINE void tile_accurate(const tile_t *tile, int panels, int tokens)
{
    const ferrum_packed_accurate_t *const *x =
        (const ferrum_packed_accurate_t *const *)(const void *)tile->x;
    __m512 total[PANELS][TOKENS], acc[PANELS][TOKENS];
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++) total[p][t] =
        _mm512_setzero_ps();
    for (uint32_t g = 0, f = 0; g < tile->groups; g += tile->fold, f++) {
        __m512i sum[PANELS][TOKENS];
        sum_fold(tile, panels, tokens, g, sum);
        UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++)
            total[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[p][t]),
                                          _mm512_load_ps(tile->panel[p].scale[f]), total[p][t]);
    }
    load_cells(tile, panels, tokens, acc);
    UNROLL for (int t = 0; t < tokens; t++) UNROLL for (int p = 0; p < panels; p++) acc[p][t] =
        _mm512_fmadd_ps(total[p][t], _mm512_set1_ps(x[t]->scale), acc[p][t]);
    for (uint32_t i = 0; i < tile->minima; i++)
        UNROLL for (int t = 0; t < tokens; t++)
            subtract_minima(tile, panels, i, x[t]->sum[i], t, acc);
    store_cells(tile, panels, tokens, acc);
}

typedef void tile_fn(const tile_t *tile);

#define DEFINE_TILE(panels, tokens)                                                                \
    static void fast_##panels##x##tokens(const tile_t *tile)                                       \
    {                                                                                              \
        tile_fast(tile, panels, tokens, 1);                                                        \
    }                                                                                              \
    static void halves_##panels##x##tokens(const tile_t *tile)                                     \
    {                                                                                              \
        tile_fast(tile, panels, tokens, 2);                                                        \
    }                                                                                              \
    static void accurate_##panels##x##tokens(const tile_t *tile)                                   \
    {                                                                                              \
        tile_accurate(tile, panels, tokens);                                                       \
    }
#define TILE_SIZES(X, panels)                                                                      \
    X(panels, 1)                                                                                   \
    X(panels, 2) X(panels, 3) X(panels, 4) X(panels, 5) X(panels, 6) X(panels, 7) X(panels, 8)

TILE_SIZES(DEFINE_TILE, 1)
TILE_SIZES(DEFINE_TILE, 2)

enum {
    ALGORITHM_FAST,
    ALGORITHM_HALVES,
    ALGORITHM_ACCURATE
};

#define FAST_ROW(panels, tokens) fast_##panels##x##tokens,
#define HALVES_ROW(panels, tokens) halves_##panels##x##tokens,
#define ACCURATE_ROW(panels, tokens) accurate_##panels##x##tokens,

static tile_fn *const tiles[3][PANELS][TOKENS] = {
    [ALGORITHM_FAST] = {{TILE_SIZES(FAST_ROW, 1)}, {TILE_SIZES(FAST_ROW, 2)}},
    [ALGORITHM_HALVES] = {{TILE_SIZES(HALVES_ROW, 1)}, {TILE_SIZES(HALVES_ROW, 2)}},
    [ALGORITHM_ACCURATE] = {{TILE_SIZES(ACCURATE_ROW, 1)}, {TILE_SIZES(ACCURATE_ROW, 2)}},
};

/** The operands that all panels of a call share. */
typedef struct call {
    const ferrum_packed_matrix_t *matrix;
    const ferrum_packed_traits_t *traits;
    ferrum_packed_precision_t precision;
    const uint8_t *x;
    size_t x_stride;
    const uint32_t *x_rows;
    uint32_t tokens;
} call_t;

/** All tokens with one unpacked block, in tiles of nearly equal size. Each asks for its share of
 *  the same block, @p ahead_bytes per panel, of the panels after these (NULL: of none). */
static void multiply_block(const call_t *call, uint32_t block, uint32_t panels,
                           const uint8_t *ahead, size_t ahead_bytes, tile_t *tile)
{
    const bool fast = call->precision == FERRUM_PACKED_FAST;
    const int algorithm = !fast                  ? ALGORITHM_ACCURATE
                          : call->traits->halves ? ALGORITHM_HALVES
                                                 : ALGORITHM_FAST;
    const uint8_t *x =
        call->x + block * (fast ? sizeof(ferrum_packed_fast_t) : sizeof(ferrum_packed_accurate_t));
    const bool last = (block + 1) * BLOCK >= call->matrix->k;
    float *const y = tile->y;
    uint32_t left = (call->tokens + TOKENS - 1) / TOKENS;
    const size_t share = ahead ? (ahead_bytes / left + VECTOR - 1) / VECTOR * VECTOR : 0;
    tile->ahead_bytes = share;
    tile->ahead_step = (share / VECTOR + GROUPS - 1) / GROUPS * VECTOR;
    for (uint32_t p = 0; p < panels; p++)
        tile->ahead[p] = ahead ? ahead + p * call->matrix->panel_stride : NULL;
    for (uint32_t t = 0, count; t < call->tokens; t += count, left--) {
        count = (call->tokens - t + left - 1) / left;
        for (uint32_t i = 0; i < count; i++)
            tile->x[i] = x + (call->x_rows ? call->x_rows[t + i] : t + i) * call->x_stride;
        tile->y = y + (ptrdiff_t)t * tile->ldy;
        tile->next_y = last && tile->more ? tile->y + PANELS * ROWS : NULL;
        tiles[algorithm][panels - 1][count - 1](tile);
        for (uint32_t p = 0; p < panels && ahead; p++)
            tile->ahead[p] += share;
    }
    tile->y = y;
}

/** Rows of one or two panels, from the first panel's lane 0 on; @p ahead: the panels after them. */
static void multiply_panels(const call_t *call, uint32_t first, uint32_t panels,
                            const uint8_t *ahead, tile_t *tile)
{
    const ferrum_packed_matrix_t *m = call->matrix;
    const uint8_t *panel = m->panels + first * m->panel_stride;
    ferrum_unpack_fn *unpack =
        ferrum_unpack_avx512vnni[m->kind][call->precision == FERRUM_PACKED_ACCURATE];
    const size_t block_bytes = m->panel_bytes / ((m->k + BLOCK - 1) / BLOCK);
    ferrum_unpacked_t unpacked[PANELS];
    tile->panel = unpacked;
    for (uint32_t block = 0; block * BLOCK < m->k; block++) {
        const uint32_t rest = m->k - block * BLOCK;
        tile->groups = rest < BLOCK ? rest / GROUP : GROUPS;
        tile->minima = call->traits->minima ? tile->groups * (call->traits->halves ? 2 : 1) : 0;
        tile->first = block == 0;
        for (uint32_t p = 0; p < panels; p++)
            unpack(m, panel + p * m->panel_stride, NULL, block * GROUPS, tile->groups,
                   &unpacked[p]);
        /* By bytes, not units: groups of GPTQ may be longer than a block. */
        const size_t from = block * block_bytes;
        multiply_block(call, block, panels, ahead ? ahead + from : NULL, block_bytes, tile);
    }
}

void ferrum_packed_product_avx512vnni(const ferrum_packed_matrix_t *m,
                                      ferrum_packed_precision_t precision, uint32_t row,
                                      uint32_t rows, const uint8_t *x, size_t x_stride,
                                      const uint32_t *x_rows, uint32_t tokens, float *y, size_t ldy)
{
    const call_t call = {m, ferrum_packed_traits(m->kind), precision, x, x_stride, x_rows, tokens};
    const uint32_t end = row + rows, last = (end + ROWS - 1) / ROWS;
    if (rows == 0 || tokens == 0)
        return;
    if (tokens <= ferrum_packed_direct_most(m->kind)) {
        ferrum_packed_direct_avx512vnni(m, precision, row, rows, x, x_stride, x_rows, tokens, y,
                                        ldy);
        return;
    }
    for (uint32_t panel = row / ROWS; panel < last;) {
        const uint32_t panels = last - panel < PANELS ? last - panel : PANELS;
        tile_t tile = {.fold = ferrum_packed_fold(m), .ldy = (ptrdiff_t)ldy};
        for (uint32_t p = 0; p < panels; p++)
            tile.lanes[p] = ferrum_panel_lanes(panel + p, row, end);
        /* Lanes before `row` are masked, and so is y before its begin. */
        tile.y = y + ((ptrdiff_t)panel * ROWS - (ptrdiff_t)row);
        tile.more = panel + panels < last;
        const uint8_t *ahead = tile.more ? m->panels + (panel + panels) * m->panel_stride : m->next;
        multiply_panels(&call, panel, panels, ahead, &tile);
        panel += panels;
    }
}
