/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX-512 VNNI straight from the panel: bytes go through registers into the
 * products with up to eight tokens. An unpacked copy (packed_avx512vnni.c) saves instructions when
 * there are more tokens, but its loads and stores share ports with the products.
 *
 * ACCURATE codes are cut in two signed bytes, c = 256 * high + low, so that bytes of weights can
 * stay bytes. The sums are the same integers, and so the results the same bits.
 */
#include "kernels/x86/packed_avx512vnni.h"
#include "kernels/x86/unpack_scales_avx512.h"

enum {
    BLOCK = FERRUM_PACKED_BLOCK,
    GROUPS = FERRUM_PACKED_GROUPS,
    HALVES = FERRUM_PACKED_HALVES,
    PASS = 8, /* tokens at a time: their sums and a group's codes fill the registers */
    MOST_TOKENS = 16,
    CUTS = 64 /* blocks of activations that are cut at a time */
};

/** A block of activations, ready: FAST is a record as it is, ACCURATE one cut in bytes. */
typedef struct cut {
    int8_t high[BLOCK];
    int8_t low[BLOCK];
    int32_t less[HALVES]; /**< -offset * (sum of codes), of halves or groups */
    float scale;
    const float *sum;
} cut_t;

/** What a call works on. */
typedef struct direct {
    const ferrum_packed_matrix_t *matrix;
    const uint8_t *panel, *ahead; /**< ahead: what is multiplied next */
    const void *const *x;         /**< per token: records of this chunk's blocks, or cuts */
    uint32_t first_block, blocks;
    uint32_t fold;
    __m512 acc[PASS];
} direct_t;

#define EACH_TOKEN(t) UNROLL for (int t = 0; t < tokens; t++)

static void cut_block(const ferrum_packed_accurate_t *x, const ferrum_packed_traits_t *traits,
                      cut_t *out)
{
    /* Codes 0 2 1 3 of every four, as in ferrum_packed_source(), to 0 1 2 3. */
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0f0d0e0c0b090a08, 0x0705060403010200));
    const __m512i one = _mm512_set1_epi16(1);
    for (uint32_t g = 0; g < GROUPS; g++) {
        const __m512i code = _mm512_loadu_si512(x->code + g * GROUP);
        const __m512i low = _mm512_srai_epi16(_mm512_slli_epi16(code, 8), 8);
        const __m512i high = _mm512_srai_epi16(_mm512_sub_epi16(code, low), 8);
        const __m512i sums = _mm512_madd_epi16(code, one);
        const int32_t sum[2] = {_mm512_mask_reduce_add_epi32(0x00ff, sums),
                                _mm512_mask_reduce_add_epi32(0xff00, sums)};
        _mm256_storeu_si256((void *)(out->low + g * GROUP),
                            _mm256_shuffle_epi8(_mm512_cvtepi16_epi8(low), order));
        _mm256_storeu_si256((void *)(out->high + g * GROUP),
                            _mm256_shuffle_epi8(_mm512_cvtepi16_epi8(high), order));
        if (traits->halves) {
            out->less[2 * g] = -traits->offset * sum[0];
            out->less[2 * g + 1] = -traits->offset * sum[1];
        } else {
            out->less[g] = -traits->offset * (sum[0] + sum[1]);
        }
    }
    out->scale = x->scale;
    out->sum = x->sum;
}

INLINE __m512i four_codes(const int8_t *codes)
{
    int32_t word;
    memcpy(&word, codes, sizeof word);
    return _mm512_set1_epi32(word);
}

/** acc += a group's (part of one's: `count` vectors from `from` on) share. */
INLINE void add_fast(const void *const *x, int tokens, const __m512i code[STEPS], uint32_t g,
                     uint32_t i, int from, int count, __m512 scale, __m512 *acc)
{
    const ferrum_packed_fast_t *const *records = (const ferrum_packed_fast_t *const *)x;
    __m512i sum[PASS];
    EACH_TOKEN(t) sum[t] = _mm512_set1_epi32(records[t]->start[i]);
    UNROLL for (int v = from; v < from + count; v++) EACH_TOKEN(t) sum[t] =
        _mm512_dpbusd_epi32(sum[t], code[v], four_codes(records[t]->code + g * GROUP + 4 * v));
    EACH_TOKEN(t)
    {
        const __m512 part =
            _mm512_fmadd_ps(_mm512_castsi512_ps(sum[t]), _mm512_set1_ps(records[t]->scale[g]),
                            _mm512_set1_ps(records[t]->bias[g]));
        acc[t] = _mm512_fmadd_ps(part, scale, acc[t]);
    }
}

/** Exact sum of a group (part of one), less the offset's share. */
INLINE __m512i sum_accurate(const cut_t *x, const __m512i code[STEPS], uint32_t g, uint32_t i,
                            int from, int count)
{
    __m512i high = _mm512_setzero_si512(), low = _mm512_set1_epi32(x->less[i]);
    UNROLL for (int v = from; v < from + count; v++)
    {
        high = _mm512_dpbusd_epi32(high, code[v], four_codes(x->high + g * GROUP + 4 * v));
        low = _mm512_dpbusd_epi32(low, code[v], four_codes(x->low + g * GROUP + 4 * v));
    }
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}

/** The end of an ACCURATE block: acc plus its total, scaled. Only then acc is wanted in registers.
 */
INLINE void add_total(const void *const *x, int tokens, const __m512 *acc, __m512 *total)
{
    EACH_TOKEN(t)
    total[t] = _mm512_fmadd_ps(total[t], _mm512_set1_ps(((const cut_t *)x[t])->scale), acc[t]);
}

/** The minimum of a group (half) for every token. */
INLINE void subtract_minimum(const void *const *x, bool fast, int tokens, uint32_t i, __m512 min,
                             __m512 *acc)
{
    EACH_TOKEN(t)
    {
        const float *sum =
            fast ? ((const ferrum_packed_fast_t *)x[t])->sum : ((const cut_t *)x[t])->sum;
        acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(sum[i]), acc[t]);
    }
}

/** A block of a k-quant: one unit. */
INLINE void multiply_k(const direct_t *d, ferrum_packed_kind_t kind,
                       ferrum_packed_precision_t precision, int tokens, uint32_t fold,
                       const uint8_t *u, const uint8_t *ahead, const void *const *x, __m512 *acc)
{
    const bool halves = kind != FERRUM_PACKED_Q4_K && kind != FERRUM_PACKED_Q5_K;
    const bool minima = kind != FERRUM_PACKED_Q3_K && kind != FERRUM_PACKED_Q6_K;
    const int parts = halves ? 2 : 1, count = STEPS / parts;
    const bool fast = precision == FERRUM_PACKED_FAST;
    const __m512 offset = _mm512_set1_ps((float)offset_of(kind));
    scales_t scales;
    const __m512 dmin = unpack_k_scales(kind, u, &scales);
    __m512 total[PASS];
    __m512i folded[PASS];
    EACH_TOKEN(t) total[t] = _mm512_setzero_ps();
    UNROLL for (uint32_t g = 0; g < GROUPS; g++)
    {
        __m512i code[STEPS];
        prefetch_eighth(ahead, d->matrix->unit_bytes, g);
        unpack_codes(kind, u, g, _mm512_setzero_si512(), code);
        UNROLL for (int h = 0; h < parts; h++)
        {
            const uint32_t i = g * (uint32_t)parts + (uint32_t)h;
            const __m512i s = _mm512_cvtepi8_epi32(_mm_load_si128((const void *)scales.s[i]));
            if (fast) {
                add_fast(x, tokens, code, g, i, h * count, count,
                         _mm512_mul_ps(scales.d, _mm512_cvtepi32_ps(s)), acc);
                continue;
            }
            EACH_TOKEN(t)
            {
                const __m512i sum =
                    _mm512_mullo_epi32(sum_accurate(x[t], code, g, i, h * count, count), s);
                folded[t] = g % fold == 0 && h == 0 ? sum : _mm512_add_epi32(folded[t], sum);
            }
        }
        if (!fast && g % fold == fold - 1)
            EACH_TOKEN(t)
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(folded[t]), scales.d, total[t]);
    }
    if (!fast)
        add_total(x, tokens, acc, total);
    for (uint32_t i = 0; minima && i < GROUPS * (uint32_t)parts; i++) {
        const __m512 scale = _mm512_mul_ps(scales.d, bytes_f32(scales.s[i]));
        const __m512 min =
            _mm512_fnmadd_ps(scale, offset, _mm512_mul_ps(dmin, bytes_f32(scales.m[i])));
        subtract_minimum(x, fast, tokens, i, min, fast ? acc : total);
    }
    EACH_TOKEN(t)
    if (!fast)
        acc[t] = total[t];
}

/** A block of any other kind: groups with one scale each. */
INLINE void multiply_flat(const direct_t *d, ferrum_packed_kind_t kind,
                          ferrum_packed_precision_t precision, int tokens, const uint8_t *panel,
                          const uint8_t *ahead, uint32_t first, uint32_t groups,
                          const void *const *x, __m512 *acc)
{
    const bool fast = precision == FERRUM_PACKED_FAST;
    const bool gptq = kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8;
    const bool minima =
        kind == FERRUM_PACKED_Q4_1 || kind == FERRUM_PACKED_Q5_1 || kind == FERRUM_PACKED_GPTQ8;
    const ferrum_packed_matrix_t *m = d->matrix;
    const uint32_t per_unit = groups_per_unit(m, kind), fold = gptq ? d->fold : 1;
    __m512 total[PASS], min[GROUPS];
    __m512i folded[PASS];
    EACH_TOKEN(t)
    {
        total[t] = _mm512_setzero_ps();
        folded[t] = _mm512_setzero_si512();
    }
    for (uint32_t g = 0; g < groups; g++) {
        const uint8_t *u = panel + (first + g) / per_unit * m->unit_bytes;
        const uint32_t j = (first + g) % per_unit;
        __m512i zero = _mm512_setzero_si512(), code[STEPS];
        prefetch_eighth(ahead, groups * m->unit_bytes / per_unit, g);
        min[g] = _mm512_setzero_ps();
        const __m512 scale = unpack_scale(m, kind, u, j, &min[g], &zero);
        unpack_codes(kind, u, j, zero, code);
        if (fast) {
            add_fast(x, tokens, code, g, g, 0, STEPS, scale, acc);
            continue;
        }
        EACH_TOKEN(t)
        {
            folded[t] = _mm512_add_epi32(folded[t], sum_accurate(x[t], code, g, g, 0, STEPS));
            if (g % fold != fold - 1)
                continue;
            total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(folded[t]), scale, total[t]);
            folded[t] = _mm512_setzero_si512();
        }
    }
    if (!fast)
        add_total(x, tokens, acc, total);
    for (uint32_t g = 0; minima && g < groups; g++)
        subtract_minimum(x, fast, tokens, g, min[g], fast ? acc : total);
    EACH_TOKEN(t)
    if (!fast)
        acc[t] = total[t];
}

/** One panel, the blocks of a chunk. */
INLINE void multiply_panel(direct_t *d, ferrum_packed_kind_t kind, uint32_t fold,
                           ferrum_packed_precision_t precision, int tokens)
{
    const ferrum_packed_matrix_t *m = d->matrix;
    const bool fast = precision == FERRUM_PACKED_FAST;
    const size_t record = fast ? sizeof(ferrum_packed_fast_t) : sizeof(cut_t);
    __m512 local[PASS], *acc = fast ? local : d->acc;
    EACH_TOKEN(t) local[t] = d->acc[t];
    for (uint32_t b = 0; b < d->blocks; b++) {
        const uint32_t first = (d->first_block + b) * GROUPS, rest = m->k / GROUP - first;
        const size_t at = first / groups_per_unit(m, kind) * m->unit_bytes;
        const void *x[PASS];
        EACH_TOKEN(t) x[t] = (const char *)d->x[t] + b * record;
        if (is_k_quant(kind))
            multiply_k(d, kind, precision, tokens, fold, d->panel + at, d->ahead + at, x, acc);
        else
            multiply_flat(d, kind, precision, tokens, d->panel, d->ahead + at, first,
                          rest < GROUPS ? rest : GROUPS, x, acc);
    }
    EACH_TOKEN(t)
    if (fast)
        d->acc[t] = local[t];
}

typedef void panel_fn(direct_t *d);

#define DEFINE_ONE(tokens, kind, fold)                                                             \
    static void fast_##kind##_##tokens(direct_t *d)                                                \
    {                                                                                              \
        multiply_panel(d, FERRUM_PACKED_##kind, fold, FERRUM_PACKED_FAST, tokens);                 \
    }                                                                                              \
    static void accurate_##kind##_##tokens(direct_t *d)                                            \
    {                                                                                              \
        multiply_panel(d, FERRUM_PACKED_##kind, fold, FERRUM_PACKED_ACCURATE, tokens);             \
    }
#define FAST_ONE(tokens, kind, fold) fast_##kind##_##tokens,
#define ACCURATE_ONE(tokens, kind, fold) accurate_##kind##_##tokens,

/* Y(tokens, kind, fold) for the numbers of tokens that meet a register of codes together. */
#define TOKENS_3(Y, kind, fold) Y(1, kind, fold) Y(2, kind, fold) Y(3, kind, fold)
#define TOKENS_8(Y, kind, fold)                                                                    \
    TOKENS_3(Y, kind, fold)                                                                        \
    Y(4, kind, fold) Y(5, kind, fold) Y(6, kind, fold) Y(7, kind, fold) Y(8, kind, fold)
#define DEFINE(kind, fold, pass, most) TOKENS_##pass(DEFINE_ONE, kind, fold)
#define ROW(kind, fold, pass, most)                                                                \
    [FERRUM_PACKED_##kind] = {{TOKENS_##pass(FAST_ONE, kind, fold)},                               \
                              {TOKENS_##pass(ACCURATE_ONE, kind, fold)}},
#define MOST(kind, fold, pass, most) [FERRUM_PACKED_##kind] = most,

FERRUM_PACKED_EACH_KIND(DEFINE)

static panel_fn *const panel_fns[FERRUM_PACKED_KINDS][2][PASS] = {FERRUM_PACKED_EACH_KIND(ROW)};

uint32_t ferrum_packed_direct_most(ferrum_packed_kind_t kind)
{
    static const uint8_t most[FERRUM_PACKED_KINDS] = {FERRUM_PACKED_EACH_KIND(MOST)};
    return most[kind];
}

/** Every token's records (ACCURATE: cut) of the blocks of a chunk. */
static void prepare_x(const direct_t *d, bool fast, const uint8_t *x, size_t x_stride,
                      const uint32_t *x_rows, uint32_t tokens, cut_t cuts[CUTS],
                      const void *out_x[MOST_TOKENS])
{
    const size_t record = fast ? sizeof(ferrum_packed_fast_t) : sizeof(ferrum_packed_accurate_t);
    for (uint32_t t = 0; t < tokens; t++) {
        const void *records = x + (x_rows ? x_rows[t] : t) * x_stride + d->first_block * record;
        out_x[t] = fast ? records : cuts;
        for (uint32_t i = 0; !fast && i < d->blocks; i++)
            cut_block((const ferrum_packed_accurate_t *)records + i,
                      ferrum_packed_traits(d->matrix->kind), cuts++);
    }
}

/** One panel with all tokens, in passes of nearly equal size; @p y: of its lane 0. */
static void multiply_tokens(direct_t *d, bool fast, const void *const *x, uint32_t tokens,
                            __mmask16 lanes, float *y, ptrdiff_t ldy)
{
    uint32_t left = (tokens + PASS - 1) / PASS;
    for (uint32_t t = 0, count; t < tokens; t += count, left--) {
        count = (tokens - t + left - 1) / left;
        d->x = x + t;
        for (uint32_t i = 0; i < count; i++)
            d->acc[i] = d->first_block == 0
                            ? _mm512_setzero_ps()
                            : _mm512_maskz_loadu_ps(lanes, y + (ptrdiff_t)(t + i) * ldy);
        panel_fns[d->matrix->kind][fast ? 0 : 1][count - 1](d);
        for (uint32_t i = 0; i < count; i++)
            _mm512_mask_storeu_ps(y + (ptrdiff_t)(t + i) * ldy, lanes, d->acc[i]);
        d->ahead = d->panel; /* what follows is asked for once */
    }
}

void ferrum_packed_direct_avx512vnni(const ferrum_packed_matrix_t *m,
                                     ferrum_packed_precision_t precision, uint32_t row,
                                     uint32_t rows, const uint8_t *x, size_t x_stride,
                                     const uint32_t *x_rows, uint32_t tokens, float *y, size_t ldy)
{
    const bool fast = precision == FERRUM_PACKED_FAST;
    const uint32_t blocks = (m->k + BLOCK - 1) / BLOCK, end = row + rows;
    const uint32_t chunk = fast ? blocks : CUTS / tokens;
    const void *records[MOST_TOKENS];
    cut_t cuts[CUTS];
    direct_t d = {.matrix = m, .fold = ferrum_packed_fold(m)};
    for (uint32_t b = 0; b < blocks; b += d.blocks) {
        d.first_block = b;
        d.blocks = blocks - b < chunk ? blocks - b : chunk;
        prepare_x(&d, fast, x, x_stride, x_rows, tokens, cuts, records);
        for (uint32_t panel = row / ROWS; panel * ROWS < end; panel++) {
            d.panel = m->panels + panel * m->panel_stride;
            d.ahead = (panel + 1) * ROWS < end ? d.panel + m->panel_stride
                      : m->next                ? m->next
                                               : d.panel;
            /* Lanes before `row` are masked, and so is y before its begin. */
            multiply_tokens(&d, fast, records, tokens, ferrum_panel_lanes(panel, row, end),
                            y + ((ptrdiff_t)(panel * ROWS) - (ptrdiff_t)row), (ptrdiff_t)ldy);
        }
    }
}
