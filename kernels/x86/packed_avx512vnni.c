/* SPDX-License-Identifier: MIT */
/*
 * Packed products with AVX-512 VNNI: y[t, 16 rows] += panel . x_t.
 *
 * A lane is an output row. Per group of 32 values the codes of sixteen rows are unpacked once into
 * eight registers and meet up to eight tokens: four consecutive activation codes of a token are
 * broadcast as one 32-bit word from memory, vpdpbusd multiplies them with four codes of every row.
 * The f32 accumulators of the token block stay in registers over the whole row.
 */
#include "kernels/packed.h"
#include "kernels/x86/packed_avx512vnni.h"

#include <immintrin.h>
#include <string.h>

enum {
    ROWS = FERRUM_PANEL_ROWS,
    GROUP = FERRUM_PACKED_GROUP,
    VECTOR = 64,
    STEPS = GROUP / 4,
    TOKENS = 8,
    PREFETCH_BYTES = 4096 /* about the latency of memory at the rate of one thread */
};

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/** A token block: where each part of its rows lies. */
typedef struct block {
    const float *scale[TOKENS];
    const float *sums[TOKENS];
    const int8_t *codes[TOKENS];
    uint32_t k;
} block_t;

/** Unpacked codes of a group and what they mean, sixteen rows at once. */
typedef struct group {
    __m512i code[STEPS];
    __m512 scale, min;
} group_t;

INLINE __m512i word(const int8_t *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm512_set1_epi32(value);
}

/** Exact sum of products of steps [first, first + count); two chains per limb hide latency. */
INLINE __m512i code_sum(const group_t *g, int first, int count, const int8_t *codes, uint32_t k,
                        ferrum_packed_precision_t precision)
{
    __m512i hi[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}, lo[2] = {hi[0], hi[0]};
    UNROLL for (int s = first; s < first + count; s++)
    {
        hi[s & 1] = _mm512_dpbusd_epi32(hi[s & 1], g->code[s], word(codes + 4 * s));
        if (precision == FERRUM_PACKED_ACCURATE)
            lo[s & 1] = _mm512_dpbusd_epi32(lo[s & 1], g->code[s], word(codes + k + 4 * s));
    }
    const __m512i high = _mm512_add_epi32(hi[0], hi[1]);
    if (precision == FERRUM_PACKED_FAST)
        return high;
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), _mm512_add_epi32(lo[0], lo[1]));
}

/** acc[t] += group g of the row times group `index` of token t. */
INLINE void fold(const group_t *g, const block_t *b, uint32_t index, int tokens,
                 ferrum_packed_precision_t precision, __m512 *acc)
{
    UNROLL for (int t = 0; t < tokens; t++)
    {
        const __m512i sum =
            code_sum(g, 0, STEPS, b->codes[t] + (size_t)index * GROUP, b->k, precision);
        const float *sums = b->sums[t] + 2 * (size_t)index;
        const __m512 product =
            _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(b->scale[t][index]));
        acc[t] = _mm512_fmadd_ps(product, g->scale, acc[t]);
        acc[t] = _mm512_fnmadd_ps(g->min, _mm512_set1_ps(sums[0] + sums[1]), acc[t]);
    }
}

/** The same for Q6_K, whose scales change every 16 values. */
INLINE void fold_halves(const group_t *g, const __m512 scale[2], const block_t *b, uint32_t index,
                        int tokens, ferrum_packed_precision_t precision, __m512 *acc)
{
    const __m512 offset = _mm512_set1_ps(32.0F);
    const __m512 min[2] = {_mm512_mul_ps(scale[0], offset), _mm512_mul_ps(scale[1], offset)};
    UNROLL for (int t = 0; t < tokens; t++)
    {
        const int8_t *codes = b->codes[t] + (size_t)index * GROUP;
        const float *sums = b->sums[t] + 2 * (size_t)index;
        __m512 part =
            _mm512_mul_ps(_mm512_cvtepi32_ps(code_sum(g, 0, 4, codes, b->k, precision)), scale[0]);
        part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(code_sum(g, 4, 4, codes, b->k, precision)),
                               scale[1], part);
        acc[t] = _mm512_fmadd_ps(part, _mm512_set1_ps(b->scale[t][index]), acc[t]);
        acc[t] = _mm512_fnmadd_ps(min[0], _mm512_set1_ps(sums[0]), acc[t]);
        acc[t] = _mm512_fnmadd_ps(min[1], _mm512_set1_ps(sums[1]), acc[t]);
    }
}

INLINE __m512i low_nibbles(__m512i v)
{
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

INLINE __m512i high_nibbles(__m512i v)
{
    return low_nibbles(_mm512_srli_epi16(v, 4));
}

INLINE __m512 halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

INLINE __m512 bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
}

INLINE __m512i vector(const uint8_t *p, int index)
{
    return _mm512_loadu_si512(p + (size_t)index * VECTOR);
}

/* Each of these folds one unit whose first group has number `first`. */

INLINE void unit_q4_0(const uint8_t *u, uint32_t first, const block_t *b, int tokens,
                      ferrum_packed_precision_t precision, __m512 *acc)
{
    group_t g;
    UNROLL for (int v = 0; v < 4; v++)
    {
        g.code[v] = low_nibbles(vector(u, v));
        g.code[v + 4] = high_nibbles(vector(u, v));
    }
    g.scale = halves(u + 4 * VECTOR);
    g.min = _mm512_mul_ps(g.scale, _mm512_set1_ps(8.0F));
    fold(&g, b, first, tokens, precision, acc);
}

INLINE void unit_q8_0(const uint8_t *u, uint32_t first, const block_t *b, int tokens,
                      ferrum_packed_precision_t precision, __m512 *acc)
{
    group_t g;
    UNROLL for (int v = 0; v < 8; v++) g.code[v] =
        _mm512_xor_si512(vector(u, v), _mm512_set1_epi8(-128));
    g.scale = halves(u + 8 * VECTOR);
    g.min = _mm512_mul_ps(g.scale, _mm512_set1_ps(128.0F));
    fold(&g, b, first, tokens, precision, acc);
}

/** Q4_K, and Q5_K when @p five. */
INLINE void unit_q45_k(const uint8_t *u, uint32_t first, const block_t *b, int tokens,
                       ferrum_packed_precision_t precision, bool five, __m512 *acc)
{
    const uint8_t *high = u + 32 * VECTOR, *scales = high + (five ? 8 * VECTOR : 0);
    const __m512 d = halves(scales + 16 * ROWS), dmin = halves(scales + 18 * ROWS);
    for (uint32_t j = 0; j < 8; j++) {
        group_t g;
        const uint8_t *low = u + (size_t)(j / 2 * 8) * VECTOR;
        UNROLL for (int s = 0; s < STEPS; s++)
        {
            const __m512i v = vector(low, s);
            g.code[s] = j % 2 ? high_nibbles(v) : low_nibbles(v);
            if (five) {
                const __m512i bit = _mm512_srl_epi16(vector(high, s), _mm_cvtsi32_si128((int)j));
                g.code[s] = _mm512_or_si512(
                    g.code[s], _mm512_slli_epi16(_mm512_and_si512(bit, _mm512_set1_epi8(1)), 4));
            }
        }
        g.scale = _mm512_mul_ps(d, bytes(scales + j * ROWS));
        g.min = _mm512_mul_ps(dmin, bytes(scales + (j + 8) * ROWS));
        fold(&g, b, first + j, tokens, precision, acc);
    }
}

INLINE void unit_q6_k(const uint8_t *u, uint32_t first, const block_t *b, int tokens,
                      ferrum_packed_precision_t precision, __m512 *acc)
{
    const uint8_t *high = u + 32 * VECTOR, *scales = high + 16 * VECTOR;
    const __m512 d = halves(scales + 16 * ROWS);
    const __m512i two = _mm512_set1_epi8(0x30);
    for (uint32_t j = 0; j < 8; j++) {
        group_t g;
        __m512 scale[2];
        const uint8_t *low = u + (size_t)(j / 4 * 16 + j % 2 * 8) * VECTOR;
        const uint8_t *top = high + (size_t)(j / 4 * 8) * VECTOR;
        /* Bits 2q, 2q+1 of a byte go to bits 4, 5. */
        const __m128i left = _mm_cvtsi32_si128(j % 4 < 2 ? 4 - (int)(j % 4) * 2 : 0);
        const __m128i right = _mm_cvtsi32_si128(j % 4 == 3 ? 2 : 0);
        UNROLL for (int s = 0; s < STEPS; s++)
        {
            const __m512i v = vector(low, s);
            const __m512i t = _mm512_srl_epi16(_mm512_sll_epi16(vector(top, s), left), right);
            g.code[s] = _mm512_or_si512(j % 4 < 2 ? low_nibbles(v) : high_nibbles(v),
                                        _mm512_and_si512(t, two));
        }
        UNROLL for (int h = 0; h < 2; h++)
        {
            const __m128i packed =
                _mm_loadu_si128((const void *)(scales + (2 * j + (uint32_t)h) * ROWS));
            scale[h] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(packed)));
        }
        fold_halves(&g, scale, b, first + j, tokens, precision, acc);
    }
}

INLINE void unit_gptq(const uint8_t *u, uint32_t unit, uint32_t first, const block_t *b, int tokens,
                      ferrum_packed_precision_t precision, bool four, __m512 *acc)
{
    group_t g;
    const uint32_t per_group = four ? 4 : 8, groups = unit / GROUP;
    const uint8_t *scales = u + (size_t)groups * per_group * VECTOR;
    g.scale = _mm512_loadu_ps((const void *)scales);
    g.min = _mm512_mul_ps(g.scale, bytes(scales + 4 * ROWS));
    for (uint32_t j = 0; j < groups; j++, u += per_group * VECTOR) {
        UNROLL for (int v = 0; v < 4; v++)
        {
            g.code[2 * v] = four ? low_nibbles(vector(u, v)) : vector(u, 2 * v);
            g.code[2 * v + 1] = four ? high_nibbles(vector(u, v)) : vector(u, 2 * v + 1);
        }
        fold(&g, b, first + j, tokens, precision, acc);
    }
}

/** One panel with `tokens` (a compile-time number) tokens of a compile-time kind. */
INLINE void panel_block(const ferrum_packed_matrix_t *m, const uint8_t *panel, const block_t *b,
                        int tokens, ferrum_packed_kind_t kind, ferrum_packed_precision_t precision,
                        __mmask16 lanes, float *y, size_t ldy)
{
    __m512 acc[TOKENS];
    const uint32_t per_unit = m->unit / GROUP;
    UNROLL for (int t = 0; t < tokens; t++) acc[t] = _mm512_setzero_ps();
    for (uint32_t u = 0, first = 0; u < m->k / m->unit; u++, first += per_unit) {
        for (size_t at = 0; at < m->unit_bytes; at += VECTOR)
            _mm_prefetch((const char *)panel + PREFETCH_BYTES + at, _MM_HINT_T0);
        switch (kind) {
        case FERRUM_PACKED_Q4_0:
            unit_q4_0(panel, first, b, tokens, precision, acc);
            break;
        case FERRUM_PACKED_Q8_0:
            unit_q8_0(panel, first, b, tokens, precision, acc);
            break;
        case FERRUM_PACKED_Q4_K:
            unit_q45_k(panel, first, b, tokens, precision, false, acc);
            break;
        case FERRUM_PACKED_Q5_K:
            unit_q45_k(panel, first, b, tokens, precision, true, acc);
            break;
        case FERRUM_PACKED_Q6_K:
            unit_q6_k(panel, first, b, tokens, precision, acc);
            break;
        case FERRUM_PACKED_GPTQ4:
            unit_gptq(panel, m->unit, first, b, tokens, precision, true, acc);
            break;
        default:
            unit_gptq(panel, m->unit, first, b, tokens, precision, false, acc);
        }
        panel += m->unit_bytes;
    }
    UNROLL for (int t = 0; t < tokens; t++)
        _mm512_mask_storeu_ps(y + (size_t)t * ldy, lanes, acc[t]);
}

/** Instances for the token counts that occur: whole blocks of eight, and tails in powers of two. */
typedef void panel_fn(const ferrum_packed_matrix_t *m, const uint8_t *panel, const block_t *b,
                      ferrum_packed_precision_t precision, __mmask16 lanes, float *y, size_t ldy);

#define DEFINE_PANEL(kind, count)                                                                  \
    static void panel_##kind##_##count(const ferrum_packed_matrix_t *m, const uint8_t *panel,      \
                                       const block_t *b, ferrum_packed_precision_t precision,      \
                                       __mmask16 lanes, float *y, size_t ldy)                      \
    {                                                                                              \
        if (precision == FERRUM_PACKED_FAST)                                                       \
            panel_block(m, panel, b, count, FERRUM_PACKED_##kind, FERRUM_PACKED_FAST, lanes, y,    \
                        ldy);                                                                      \
        else                                                                                       \
            panel_block(m, panel, b, count, FERRUM_PACKED_##kind, FERRUM_PACKED_ACCURATE, lanes,   \
                        y, ldy);                                                                   \
    }
#define DEFINE_KIND(kind)                                                                          \
    DEFINE_PANEL(kind, 1)                                                                          \
    DEFINE_PANEL(kind, 2)                                                                          \
    DEFINE_PANEL(kind, 4)                                                                          \
    DEFINE_PANEL(kind, 8)
#define KIND_ROW(kind)                                                                             \
    [FERRUM_PACKED_##                                                                              \
        kind] = {panel_##kind##_1, panel_##kind##_2, panel_##kind##_4, panel_##kind##_8}

DEFINE_KIND(Q4_0)
DEFINE_KIND(Q8_0)
DEFINE_KIND(Q4_K)
DEFINE_KIND(Q5_K)
DEFINE_KIND(Q6_K)
DEFINE_KIND(GPTQ4)
DEFINE_KIND(GPTQ8)

static panel_fn *const panel_table[][4] = {KIND_ROW(Q4_0), KIND_ROW(Q8_0), KIND_ROW(Q4_K),
                                           KIND_ROW(Q5_K), KIND_ROW(Q6_K), KIND_ROW(GPTQ4),
                                           KIND_ROW(GPTQ8)};

/** Largest instance that fits @p tokens, as index and count. */
static int instance_for(uint32_t tokens, uint32_t *out_count)
{
    int index = tokens >= 8 ? 3 : tokens >= 4 ? 2 : tokens >= 2 ? 1 : 0;
    *out_count = 1u << index;
    return index;
}

static block_t block_at(const uint8_t *x, size_t x_stride, uint32_t count, uint32_t k)
{
    block_t b = {.k = k};
    for (uint32_t t = 0; t < count; t++) {
        b.scale[t] = (const float *)(const void *)(x + t * x_stride);
        b.sums[t] = b.scale[t] + k / GROUP;
        b.codes[t] = (const int8_t *)(b.sums[t] + 2 * (size_t)(k / GROUP));
    }
    return b;
}

void ferrum_packed_product_avx512vnni(const ferrum_packed_matrix_t *m,
                                      ferrum_packed_precision_t precision, uint32_t row,
                                      uint32_t rows, const uint8_t *x, size_t x_stride,
                                      uint32_t tokens, float *y, size_t ldy)
{
    for (uint32_t done = 0; done < rows;) {
        const uint32_t lane = (row + done) % ROWS;
        const uint32_t count = rows - done < ROWS - lane ? rows - done : ROWS - lane;
        const __mmask16 lanes = (__mmask16)(((1u << count) - 1) << lane);
        const uint8_t *panel = m->panels + (size_t)((row + done) / ROWS) * m->panel_bytes;
        for (uint32_t t = 0, step; t < tokens; t += step) {
            const int index = instance_for(tokens - t, &step);
            const block_t b = block_at(x + t * x_stride, x_stride, step, m->k);
            panel_table[m->kind][index](m, panel, &b, precision, lanes,
                                        y + (size_t)t * ldy + done - lane, ldy);
        }
        done += count;
    }
}
