/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX-512 VNNI for few tokens: bytes go from the panel through registers into
 * the products. With one or two tokens an unpacked block would not be read often enough to pay for
 * its stores (packed_avx512vnni.c).
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
    BLOCKS = 8 /* whose activations are cut at a time: they stay in the first-level cache */
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
typedef struct few {
    const ferrum_packed_matrix_t *matrix;
    const uint8_t *panel, *ahead;     /**< ahead: the next panel, or NULL */
    const void *x[FERRUM_PACKED_FEW]; /**< per token: records of this chunk's blocks, or cuts */
    uint32_t first_block, blocks;
    uint32_t fold;
    __m512 acc[FERRUM_PACKED_FEW];
} few_t;

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

/** Exact sum of a group (part of one: `count` vectors from `from` on), less the offset's share. */
INLINE __m512i sum_accurate(const cut_t *x, const __m512i code[STEPS], uint32_t g, int from,
                            int count, int32_t less)
{
    __m512i high = _mm512_setzero_si512(), low = _mm512_set1_epi32(less);
    UNROLL for (int v = from; v < from + count; v++)
    {
        high = _mm512_dpbusd_epi32(high, code[v], four_codes(x->high + g * GROUP + 4 * v));
        low = _mm512_dpbusd_epi32(low, code[v], four_codes(x->low + g * GROUP + 4 * v));
    }
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}

/** acc += a group's (part of one's) share. */
INLINE __m512 add_fast(const ferrum_packed_fast_t *x, const __m512i code[STEPS], uint32_t g,
                       uint32_t i, int from, int count, __m512 scale, __m512 acc)
{
    __m512i sum = _mm512_set1_epi32(x->start[i]);
    UNROLL for (int v = from; v < from + count; v++) sum =
        _mm512_dpbusd_epi32(sum, code[v], four_codes(x->code + g * GROUP + 4 * v));
    const __m512 part = _mm512_fmadd_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(x->scale[g]),
                                        _mm512_set1_ps(x->bias[g]));
    return _mm512_fmadd_ps(part, scale, acc);
}

/** A block of a k-quant: one unit. */
INLINE void multiply_k(const few_t *few, ferrum_packed_kind_t kind,
                       ferrum_packed_precision_t precision, int tokens, uint32_t fold,
                       const uint8_t *u, const uint8_t *ahead, const void *const *x, __m512 *acc)
{
    const bool halves = kind != FERRUM_PACKED_Q4_K && kind != FERRUM_PACKED_Q5_K;
    const bool minima = kind != FERRUM_PACKED_Q3_K && kind != FERRUM_PACKED_Q6_K;
    const int parts = halves ? 2 : 1, count = STEPS / parts;
    const bool fast = precision == FERRUM_PACKED_FAST;
    scales_t scales;
    const __m512 dmin = unpack_k_scales(kind, u, &scales);
    __m512 total[FERRUM_PACKED_FEW];
    __m512i folded[FERRUM_PACKED_FEW];
    EACH_TOKEN(t) total[t] = _mm512_setzero_ps();
    UNROLL for (uint32_t g = 0; g < GROUPS; g++)
    {
        __m512i code[STEPS];
        prefetch_eighth(ahead, few->matrix->unit_bytes, g);
        unpack_codes(kind, u, g, _mm512_setzero_si512(), code);
        UNROLL for (int h = 0; h < parts; h++)
        {
            const uint32_t i = g * (uint32_t)parts + (uint32_t)h;
            const __m512i s = _mm512_cvtepi8_epi32(_mm_load_si128((const void *)scales.s[i]));
            const __m512 scale = _mm512_mul_ps(scales.d, _mm512_cvtepi32_ps(s));
            EACH_TOKEN(t)
            {
                if (fast) {
                    acc[t] = add_fast(x[t], code, g, i, h * count, count, scale, acc[t]);
                    continue;
                }
                const cut_t *c = x[t];
                const __m512i sum =
                    _mm512_mullo_epi32(sum_accurate(c, code, g, h * count, count, c->less[i]), s);
                folded[t] = g % fold == 0 && h == 0 ? sum : _mm512_add_epi32(folded[t], sum);
            }
        }
        if (!fast && g % fold == fold - 1)
            EACH_TOKEN(t)
        total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(folded[t]), scales.d, total[t]);
    }
    EACH_TOKEN(t)
    if (!fast)
        acc[t] = _mm512_fmadd_ps(total[t], _mm512_set1_ps(((const cut_t *)x[t])->scale), acc[t]);
    for (uint32_t i = 0; minima && i < GROUPS * (uint32_t)parts; i++) {
        const __m512 scale = _mm512_mul_ps(scales.d, bytes_f32(scales.s[i]));
        const __m512 min =
            _mm512_sub_ps(_mm512_mul_ps(dmin, bytes_f32(scales.m[i])),
                          _mm512_mul_ps(scale, _mm512_set1_ps((float)offset_of(kind))));
        EACH_TOKEN(t)
        {
            const float *sum =
                fast ? ((const ferrum_packed_fast_t *)x[t])->sum : ((const cut_t *)x[t])->sum;
            acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(sum[i]), acc[t]);
        }
    }
}

/** A block of any other kind: groups with one scale each. */
INLINE void multiply_flat(const few_t *few, ferrum_packed_kind_t kind,
                          ferrum_packed_precision_t precision, int tokens, const uint8_t *panel,
                          const uint8_t *ahead, uint32_t first, uint32_t groups,
                          const void *const *x, __m512 *acc)
{
    const bool fast = precision == FERRUM_PACKED_FAST;
    const bool gptq = kind == FERRUM_PACKED_GPTQ4 || kind == FERRUM_PACKED_GPTQ8;
    const bool minima =
        kind == FERRUM_PACKED_Q4_1 || kind == FERRUM_PACKED_Q5_1 || kind == FERRUM_PACKED_GPTQ8;
    const ferrum_packed_matrix_t *m = few->matrix;
    const uint32_t per_unit = groups_per_unit(m, kind), fold = gptq ? few->fold : 1;
    __m512 total[FERRUM_PACKED_FEW], min[GROUPS];
    __m512i folded[FERRUM_PACKED_FEW];
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
        EACH_TOKEN(t)
        {
            if (fast) {
                acc[t] = add_fast(x[t], code, g, g, 0, STEPS, scale, acc[t]);
                continue;
            }
            const cut_t *c = x[t];
            folded[t] = _mm512_add_epi32(folded[t], sum_accurate(c, code, g, 0, STEPS, c->less[g]));
            if (g % fold != fold - 1)
                continue;
            total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(folded[t]), scale, total[t]);
            folded[t] = _mm512_setzero_si512();
        }
    }
    EACH_TOKEN(t)
    if (!fast)
        acc[t] = _mm512_fmadd_ps(total[t], _mm512_set1_ps(((const cut_t *)x[t])->scale), acc[t]);
    for (uint32_t g = 0; minima && g < groups; g++)
        EACH_TOKEN(t)
        {
            const float *sum =
                fast ? ((const ferrum_packed_fast_t *)x[t])->sum : ((const cut_t *)x[t])->sum;
            acc[t] = _mm512_fnmadd_ps(min[g], _mm512_set1_ps(sum[g]), acc[t]);
        }
}

/** One panel, the blocks of a chunk. */
INLINE void multiply_panel(few_t *few, ferrum_packed_kind_t kind, uint32_t fold,
                           ferrum_packed_precision_t precision, int tokens)
{
    const ferrum_packed_matrix_t *m = few->matrix;
    const size_t record =
        precision == FERRUM_PACKED_FAST ? sizeof(ferrum_packed_fast_t) : sizeof(cut_t);
    __m512 acc[FERRUM_PACKED_FEW];
    EACH_TOKEN(t) acc[t] = few->acc[t];
    for (uint32_t b = 0; b < few->blocks; b++) {
        const uint32_t first = (few->first_block + b) * GROUPS, rest = m->k / GROUP - first;
        const uint8_t *ahead = few->ahead ? few->ahead : few->panel;
        const size_t at = first / groups_per_unit(m, kind) * m->unit_bytes;
        const void *x[FERRUM_PACKED_FEW];
        EACH_TOKEN(t) x[t] = (const char *)few->x[t] + b * record;
        if (is_k_quant(kind))
            multiply_k(few, kind, precision, tokens, fold, few->panel + at, ahead + at, x, acc);
        else
            multiply_flat(few, kind, precision, tokens, few->panel, ahead + at, first,
                          rest < GROUPS ? rest : GROUPS, x, acc);
    }
    EACH_TOKEN(t) few->acc[t] = acc[t];
}

typedef void panel_fn(few_t *few);

#define DEFINE_TOKENS(kind, fold, tokens)                                                          \
    static void fast_##kind##_##tokens(few_t *few)                                                 \
    {                                                                                              \
        multiply_panel(few, FERRUM_PACKED_##kind, fold, FERRUM_PACKED_FAST, tokens);               \
    }                                                                                              \
    static void accurate_##kind##_##tokens(few_t *few)                                             \
    {                                                                                              \
        multiply_panel(few, FERRUM_PACKED_##kind, fold, FERRUM_PACKED_ACCURATE, tokens);           \
    }
#define DEFINE(kind, fold)                                                                         \
    DEFINE_TOKENS(kind, fold, 1) DEFINE_TOKENS(kind, fold, 2) DEFINE_TOKENS(kind, fold, 3)
#define ROW(kind, fold)                                                                            \
    [FERRUM_PACKED_##kind] = {{fast_##kind##_1, fast_##kind##_2, fast_##kind##_3},                 \
                              {accurate_##kind##_1, accurate_##kind##_2, accurate_##kind##_3}},

FERRUM_PACKED_KINDS_AND_FOLDS(DEFINE)

static panel_fn *const panel_fns[FERRUM_PACKED_KINDS][2][FERRUM_PACKED_FEW] = {
    FERRUM_PACKED_KINDS_AND_FOLDS(ROW)};

/** Lanes of a panel of rows [row, end). */
static __mmask16 lanes_of(uint32_t panel, uint32_t row, uint32_t end)
{
    const uint32_t from = panel * ROWS < row ? row - panel * ROWS : 0;
    const uint32_t to = end - panel * ROWS < ROWS ? end - panel * ROWS : ROWS;
    return (__mmask16)((1u << to) - (1u << from));
}

void ferrum_packed_few_avx512vnni(const ferrum_packed_matrix_t *m,
                                  ferrum_packed_precision_t precision, uint32_t row, uint32_t rows,
                                  const uint8_t *x, size_t x_stride, const uint32_t *x_rows,
                                  uint32_t tokens, float *y, size_t ldy)
{
    const bool fast = precision == FERRUM_PACKED_FAST;
    const uint32_t blocks = (m->k + BLOCK - 1) / BLOCK, end = row + rows;
    panel_fn *const multiply = panel_fns[m->kind][fast ? 0 : 1][tokens - 1];
    cut_t cuts[FERRUM_PACKED_FEW][BLOCKS];
    few_t few = {.matrix = m, .fold = ferrum_packed_fold(m)};
    for (uint32_t b = 0; b < blocks; b += few.blocks) {
        few.first_block = b;
        few.blocks = blocks - b < BLOCKS ? blocks - b : BLOCKS;
        for (uint32_t t = 0; t < tokens; t++) {
            const uint8_t *line = x + (x_rows ? x_rows[t] : t) * x_stride;
            const void *records =
                line + b * (fast ? sizeof(ferrum_packed_fast_t) : sizeof(ferrum_packed_accurate_t));
            few.x[t] = fast ? records : cuts[t];
            for (uint32_t i = 0; !fast && i < few.blocks; i++)
                cut_block((const ferrum_packed_accurate_t *)records + i,
                          ferrum_packed_traits(m->kind), &cuts[t][i]);
        }
        for (uint32_t panel = row / ROWS; panel * ROWS < end; panel++) {
            const __mmask16 lanes = lanes_of(panel, row, end);
            /* Lanes before `row` are masked, and so is y before its begin. */
            float *to = y + ((ptrdiff_t)(panel * ROWS) - (ptrdiff_t)row);
            few.panel = m->panels + panel * m->panel_stride;
            few.ahead = (panel + 1) * ROWS < end ? few.panel + m->panel_stride : m->next;
            for (uint32_t t = 0; t < tokens; t++)
                few.acc[t] = b == 0 ? _mm512_setzero_ps()
                                    : _mm512_maskz_loadu_ps(lanes, to + (ptrdiff_t)(t * ldy));
            multiply(&few);
            for (uint32_t t = 0; t < tokens; t++)
                _mm512_mask_storeu_ps(to + (ptrdiff_t)(t * ldy), lanes, few.acc[t]);
        }
    }
}
