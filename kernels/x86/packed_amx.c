/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AMX-INT8: sixteen tokens times sixteen rows.
 *
 *      A: 16 tokens x 32 signed codes        B: 8 x (16 rows x 4 unsigned codes)
 *      C = A B: 16 tokens x 16 rows of exact 32-bit sums of one group (or half of one)
 *
 * A vector of an unpacked group is a row of B as it is, and A is loaded from the quantised rows.
 * The scales of a group end a tile product after 32 values, half of what a tile could add up; four
 * groups are kept in flight. FAST products of whole panels and sixteen tokens go this way. The rest
 * is the AVX-512 VNNI set's, whose 16-bit products of ACCURATE activations would take four
 * tile products and a wider fold here.
 */
#include "kernels/x86/packed_amx.h"

#include "kernels/x86/amx_tiles.h"
#include "kernels/x86/packed_avx512vnni.h"

#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    GROUPS = FERRUM_PACKED_GROUPS,
    BLOCK = FERRUM_PACKED_BLOCK,
    TOKENS = 16,  /**< of a tile */
    MANY = 64,    /**< tokens that share an unpacked block */
    IN_FLIGHT = 4 /**< sums; tiles 0 to 3 */
};

/* Tiles of A and B; the instructions take names, not constants. */
#define TILE_CODES 4
#define TILE_WEIGHTS 5

/** A block of one panel. */
typedef struct step {
    ferrum_unpacked_t w;
    uint32_t runs;   /**< groups, or halves of groups, in the block */
    uint32_t length; /**< values in a run */
    uint32_t minima; /**< their number */
} step_t;

/** What is called `x` below: the records of sixteen tokens, and codes one stride apart. */
typedef struct tokens {
    const ferrum_packed_fast_t *record[TOKENS];
    const int8_t *codes;
    size_t stride;
} tokens_t;

#define EACH_TOKEN(t) for (uint32_t t = 0; t < TOKENS; t++)

static void configure(uint32_t length)
{
    tile_config_t config = {.palette = 1};
    for (int tile = 0; tile < IN_FLIGHT; tile++) {
        config.rows[tile] = TOKENS;
        config.row_bytes[tile] = ROWS * sizeof(int32_t);
    }
    config.rows[TILE_CODES] = TOKENS;
    config.row_bytes[TILE_CODES] = (uint16_t)length;
    config.rows[TILE_WEIGHTS] = (uint8_t)(length / 4);
    config.row_bytes[TILE_WEIGHTS] = ROWS * 4;
    TILES_CONFIGURE(&config);
}

/** sums[i] = run first + i of the weights times the tokens' codes, i < count <= IN_FLIGHT. */
static void multiply(const step_t *s, const tokens_t *x, uint32_t first, uint32_t count,
                     int32_t sums[IN_FLIGHT][TOKENS][ROWS])
{
#define RUN(i)                                                                                     \
    if (i < count) {                                                                               \
        const size_t at = (size_t)(first + i) * s->length;                                         \
        TILE_ZERO(i);                                                                              \
        TILE_LOAD(TILE_CODES, x->codes + at, x->stride);                                           \
        TILE_LOAD(TILE_WEIGHTS, s->w.code + at * ROWS, (size_t)ROWS * 4);                          \
        TILE_MULTIPLY(i, TILE_CODES, TILE_WEIGHTS);                                                \
    }
#define KEEP(i)                                                                                    \
    if (i < count)                                                                                 \
        TILE_STORE(i, sums[i], ROWS * sizeof(int32_t));
    RUN(0)
    RUN(1)
    RUN(2)
    RUN(3)
    KEEP(0)
    KEEP(1)
    KEEP(2)
    KEEP(3)
#undef RUN
#undef KEEP
}

/** acc[t] += block times token t. */
static void block_product(const step_t *s, const tokens_t *x, float acc[TOKENS][ROWS])
{
    _Alignas(64) int32_t sums[IN_FLIGHT][TOKENS][ROWS];
    for (uint32_t first = 0; first < s->runs; first += IN_FLIGHT) {
        const uint32_t count = s->runs - first < IN_FLIGHT ? s->runs - first : IN_FLIGHT;
        multiply(s, x, first, count, sums);
        EACH_TOKEN(t)
        {
            __m512 sum = _mm512_loadu_ps(acc[t]);
            for (uint32_t i = 0; i < count; i++) {
                const ferrum_packed_fast_t *record = x->record[t];
                const uint32_t g = (first + i) * s->length / GROUP;
                const __m512i start = _mm512_set1_epi32(record->start[first + i]);
                const __m512i bits = _mm512_add_epi32(_mm512_load_si512(sums[i][t]), start);
                const __m512 product =
                    _mm512_fmadd_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(record->scale[g]),
                                    _mm512_set1_ps(record->bias[g]));
                sum = _mm512_fmadd_ps(product, _mm512_load_ps(s->w.scale[first + i]), sum);
            }
            _mm512_storeu_ps(acc[t], sum);
        }
    }
    if (s->minima == 0)
        return;
    EACH_TOKEN(t)
    {
        __m512 sum = _mm512_loadu_ps(acc[t]);
        for (uint32_t i = 0; i < s->minima; i++)
            sum = _mm512_fnmadd_ps(_mm512_load_ps(s->w.min[i]),
                                   _mm512_set1_ps(x->record[t]->sum[i]), sum);
        _mm512_storeu_ps(acc[t], sum);
    }
}

/** Tokens [first, first + TOKENS) at block @p b; those of a list have their codes copied. */
static void tokens_at(const uint8_t *x, size_t x_stride, const uint32_t *x_rows, uint32_t first,
                      uint32_t b, int8_t copies[TOKENS][BLOCK], tokens_t *out)
{
    EACH_TOKEN(t)
    {
        const size_t row = x_rows ? x_rows[first + t] : first + t;
        out->record[t] = (const ferrum_packed_fast_t *)(const void *)(x + row * x_stride) + b;
        if (x_rows)
            memcpy(copies[t], out->record[t]->code, BLOCK);
    }
    out->codes = x_rows ? copies[0] : out->record[0]->code;
    out->stride = x_rows ? BLOCK : x_stride;
}

/** acc[t] = panel times token t, t < tokens, a multiple of TOKENS up to MANY. */
static void panel_product(const ferrum_packed_matrix_t *m, const uint8_t *panel, const uint8_t *x,
                          size_t x_stride, const uint32_t *x_rows, uint32_t tokens,
                          float acc[MANY][ROWS])
{
    const ferrum_packed_traits_t *traits = ferrum_packed_traits(m->kind);
    const uint32_t per_group = traits->halves ? 2 : 1;
    step_t step = {.length = GROUP / per_group};
    memset(acc, 0, tokens * sizeof *acc);
    for (uint32_t b = 0; b * BLOCK < m->k; b++) {
        const uint32_t groups = m->k - b * BLOCK < BLOCK ? (m->k - b * BLOCK) / GROUP : GROUPS;
        step.runs = groups * per_group;
        step.minima = traits->minima ? step.runs : 0;
        ferrum_unpack_avx512vnni[m->kind][0](m, panel, NULL, b * GROUPS, groups, &step.w);
        for (uint32_t t = 0; t < tokens; t += TOKENS) {
            int8_t copies[TOKENS][BLOCK];
            tokens_t some;
            tokens_at(x, x_stride, x_rows, t, b, copies, &some);
            block_product(&step, &some, acc + t);
        }
    }
}

/** Whole panels and whole tiles of tokens. */
static void many_product(const ferrum_packed_matrix_t *m, uint32_t row, uint32_t rows,
                         const uint8_t *x, size_t x_stride, const uint32_t *x_rows, uint32_t tokens,
                         float *y, size_t ldy)
{
    float acc[MANY][ROWS];
    configure(ferrum_packed_traits(m->kind)->halves ? GROUP / 2 : GROUP);
    for (uint32_t first = 0, count; first < tokens; first += count) {
        count = tokens - first < MANY ? tokens - first : MANY;
        for (uint32_t r = 0; r < rows; r += ROWS) {
            panel_product(m, m->panels + (row + r) / ROWS * m->panel_stride,
                          x_rows ? x : x + first * x_stride, x_stride,
                          x_rows ? x_rows + first : NULL, count, acc);
            for (uint32_t t = 0; t < count; t++)
                memcpy(y + (first + t) * ldy + r, acc[t], sizeof acc[t]);
        }
    }
    TILES_RELEASE();
}

void ferrum_packed_product_amx(const ferrum_packed_matrix_t *m, ferrum_packed_precision_t precision,
                               uint32_t row, uint32_t rows, const uint8_t *x, size_t x_stride,
                               const uint32_t *x_rows, uint32_t tokens, float *y, size_t ldy)
{
    const uint32_t head = (ROWS - row % ROWS) % ROWS < rows ? (ROWS - row % ROWS) % ROWS : rows;
    const uint32_t whole = (rows - head) / ROWS * ROWS, tail = rows - head - whole;
    const uint32_t many = precision == FERRUM_PACKED_FAST && whole ? tokens / TOKENS * TOKENS : 0;
    if (many > 0) {
        many_product(m, row + head, whole, x, x_stride, x_rows, many, y + head, ldy);
        if (head > 0)
            ferrum_packed_product_avx512vnni(m, precision, row, head, x, x_stride, x_rows, many, y,
                                             ldy);
        if (tail > 0)
            ferrum_packed_product_avx512vnni(m, precision, row + head + whole, tail, x, x_stride,
                                             x_rows, many, y + head + whole, ldy);
    }
    if (tokens > many)
        ferrum_packed_product_avx512vnni(m, precision, row, rows, x_rows ? x : x + many * x_stride,
                                         x_stride, x_rows ? x_rows + many : NULL, tokens - many,
                                         y + many * ldy, ldy);
}
