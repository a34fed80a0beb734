/* SPDX-License-Identifier: MIT */
/* Packed weights: the reference against f64 over decoded weights, and every set against the
 * reference bit by bit, whatever rows, tokens and token lists a call has. Panels end at an
 * inaccessible page. */
#include "tests/kernels/fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 48,
    MAX_K = 768,
    TOKENS = 19,
    PANELS = N / FERRUM_PANEL_ROWS,
    GUARD = 5
};

/** One matrix in packed form with its exact values. */
typedef struct problem {
    ferrum_packed_matrix_t m;
    uint32_t k;
    char name[48];
    uint8_t *panels;
    size_t panels_bytes;
    double *w; /* [N, k] */
    float x[TOKENS * MAX_K];
} problem_t;

/** Shape and memory; panels lie @p gap bytes further apart than they are long. */
static void finish_shape(problem_t *p, ferrum_packed_kind_t kind, uint32_t k, uint32_t group,
                         ferrum_dtype_t scales, size_t gap)
{
    p->k = k;
    FIXTURE_REQUIRE(ferrum_packed_shape(kind, N, k, group, scales, &p->m), "kind %d, k %u", kind,
                    k);
    p->m.panel_stride += gap;
    p->panels_bytes = p->m.panel_stride * (PANELS - 1) + p->m.panel_bytes;
    p->panels = fixture_alloc(p->panels_bytes, 0);
    p->m.panels = p->panels;
    p->w = calloc((size_t)N * k, sizeof *p->w);
    ck_assert_ptr_nonnull(p->w);
}

/** Packs @p blocks and decodes them for the oracle. */
static void init_from(problem_t *p, const ferrum_format_traits_t *traits, uint32_t k,
                      const uint8_t *blocks, size_t gap)
{
    const size_t row_bytes = fixture_row_bytes(traits, k);
    float decoded[MAX_K];
    finish_shape(p, ferrum_packed_kind_of(traits->format), k, 0, FERRUM_DTYPE_F32, gap);
    (void)snprintf(p->name, sizeof p->name, "%s k=%u", traits->name, k);
    ck_assert_uint_eq(p->m.panel_bytes, row_bytes * FERRUM_PANEL_ROWS);
    for (uint32_t r = 0; r < N; r++) {
        ferrum_kernel_dequant(traits->format)(blocks + r * row_bytes, decoded, k);
        for (uint32_t i = 0; i < k; i++)
            p->w[r * k + i] = (double)decoded[i];
    }
    for (uint32_t r = 0; r < PANELS; r++)
        ferrum_pack_blocks(&p->m, blocks + r * FERRUM_PANEL_ROWS * row_bytes, row_bytes,
                           p->panels + r * p->m.panel_stride);
}

static void init_blocks(problem_t *p, fixture_rng_t *rng, const ferrum_format_traits_t *traits,
                        uint32_t k, size_t gap)
{
    const size_t row_bytes = fixture_row_bytes(traits, k);
    uint8_t *blocks = malloc(row_bytes * N);
    fixture_fill_blocks(rng, traits, blocks, row_bytes / traits->block_bytes * N);
    init_from(p, traits, k, blocks, gap);
    free(blocks);
}

static void init_gptq(problem_t *p, fixture_rng_t *rng, uint32_t bits, uint32_t k, uint32_t group,
                      ferrum_dtype_t dtype)
{
    static const ferrum_weight_format_t formats[] = {FERRUM_FORMAT_F32, FERRUM_FORMAT_F16,
                                                     FERRUM_FORMAT_BF16};
    const uint32_t per_word = 32 / bits, mask = (1u << bits) - 1, cells = k / group * N;
    uint32_t *words = malloc((size_t)k / per_word * N * sizeof *words);
    uint8_t *scales = malloc((size_t)cells * 4), *zeros = malloc(cells);
    float *decoded = malloc(cells * sizeof *decoded);
    finish_shape(p, bits == 4 ? FERRUM_PACKED_GPTQ4 : FERRUM_PACKED_GPTQ8, k, group, dtype, 0);
    (void)snprintf(p->name, sizeof p->name, "gptq%u k=%u group=%u dtype=%u", bits, k, group, dtype);
    for (uint32_t i = 0; i < k / per_word * N; i++)
        words[i] = fixture_random(rng);
    for (uint32_t i = 0; i < cells; i++) {
        /* Upper halves of floats are bf16; 0x2000..0x27ff are f16 of 0.008 to 0.03. */
        const float value = 0.01F + 0.005F * fixture_random_f32(rng);
        const uint16_t half = (uint16_t)(0x2000 + fixture_random(rng) % 0x800);
        memcpy(scales + 4 * (size_t)i, &value, 4);
        if (dtype != FERRUM_DTYPE_F32)
            memcpy(scales + 2 * (size_t)i, &half, 2);
        zeros[i] = (uint8_t)((fixture_random(rng) & mask) + (bits == 4));
    }
    if (dtype == FERRUM_DTYPE_BF16)
        for (uint32_t i = 0; i < cells; i++)
            scales[2 * i + 1] = 0x3c;
    ferrum_kernel_dequant(formats[dtype])(scales, decoded, cells);
    for (uint32_t r = 0; r < N; r++)
        for (uint32_t i = 0; i < k; i++) {
            const uint32_t code = words[i / per_word * N + r] >> (i % per_word * bits) & mask;
            const uint32_t cell = i / group * N + r;
            p->w[r * k + i] = ((double)code - zeros[cell]) * (double)decoded[cell];
        }
    for (uint32_t r = 0; r < PANELS; r++)
        ferrum_pack_gptq(&p->m, words, scales, zeros, N, r * FERRUM_PANEL_ROWS,
                         p->panels + r * p->m.panel_stride);
    free(words);
    free(scales);
    free(zeros);
    free(decoded);
}

static void free_problem(problem_t *p)
{
    fixture_free(p->panels, p->panels_bytes, 0);
    free(p->w);
}

/** Activations; outlier channels in every second token, one token of zeros. */
static void fill_x(problem_t *p, fixture_rng_t *rng)
{
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < p->k; i++)
            p->x[t * p->k + i] = fixture_random_f32(rng) * (t % 2 && i % 97 == 0 ? 20.0F
                                                            : t == 4             ? 0.0F
                                                                                 : 1.0F);
}

static uint8_t *quantise_all(const problem_t *p, const ferrum_packed_ops_t *ops,
                             ferrum_packed_precision_t precision, size_t *out_stride)
{
    *out_stride = ferrum_packed_row_bytes(p->k, precision);
    uint8_t *rows = malloc(*out_stride * TOKENS);
    for (uint32_t t = 0; t < TOKENS; t++)
        ops->quantise(p->m.kind, precision, p->x + (size_t)t * p->k, NULL, p->k,
                      rows + t * *out_stride);
    return rows;
}

/** The error of a token's outputs is measured by what they would be if all terms had random signs:
 *  sums that happen to cancel say nothing about the arithmetic. */
static void check_error(const problem_t *p, const float *y, double bound, double outlier_bound)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        double diff = 0, norm = 0;
        for (uint32_t r = 0; r < N; r++) {
            double sum = 0;
            for (uint32_t i = 0; i < p->k; i++) {
                const double term = p->w[r * p->k + i] * (double)p->x[t * p->k + i];
                sum += term;
                norm += term * term;
            }
            diff += (sum - (double)y[t * N + r]) * (sum - (double)y[t * N + r]);
        }
        FIXTURE_REQUIRE(sqrt(diff) <= (t % 2 ? outlier_bound : bound) * sqrt(norm),
                        "%s token %u: error %g of %g", p->name, t, sqrt(diff), sqrt(norm));
    }
}

/** One call: rows [row, row+rows) and tokens of a list, or a run of them when it is NULL. */
typedef struct call {
    uint32_t row, rows, token, tokens;
    const uint32_t *list;
} call_t;

static void check_call(const problem_t *p, const ferrum_packed_ops_t *ops,
                       ferrum_packed_precision_t precision, const uint8_t *x, size_t stride,
                       const float *reference, const call_t *call)
{
    float y[TOKENS * (N + GUARD) + GUARD];
    for (size_t i = 0; i < sizeof y / sizeof *y; i++)
        y[i] = 12345.0F;
    ops->product(&p->m, precision, call->row, call->rows, x + call->token * stride, stride,
                 call->list, call->tokens, y + GUARD, N + GUARD);
    for (size_t i = 0; i < GUARD; i++)
        FIXTURE_REQUIRE(y[i] == 12345.0F, "%s: writes before the outputs", p->name);
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t r = 0; r < N + GUARD; r++) {
            const bool inside = t < call->tokens && r < call->rows;
            const uint32_t token = call->token + (call->list && inside ? call->list[t] : t);
            const float want = inside ? reference[token * N + call->row + r] : 12345.0F;
            FIXTURE_REQUIRE(memcmp(&y[GUARD + t * (N + GUARD) + r], &want, sizeof want) == 0,
                            "%s precision %d rows %u+%u tokens %u+%u: token %u row %u is %g, "
                            "expected %g",
                            p->name, precision, call->row, call->rows, call->token, call->tokens, t,
                            r, (double)y[GUARD + t * (N + GUARD) + r], (double)want);
        }
}

/** Any rows, tokens and lists give the reference's bits and touch nothing else. */
static void check_bits(const problem_t *p, const ferrum_packed_ops_t *ops,
                       ferrum_packed_precision_t precision, const uint8_t *x, size_t stride,
                       const float *reference)
{
    static const uint32_t list[] = {7, 0, 0, 15, 3, 18, 2, 11, 5, 5, 1};
    static const call_t calls[] = {
        {0, N, 0, TOKENS, NULL}, {0, 0, 0, 3, NULL},   {0, N, 0, 0, NULL},
        {5, 7, 2, 1, NULL},      {16, 16, 0, 8, NULL}, {15, 2, 3, 4, NULL},
        {1, 46, 7, 2, NULL},     {47, 1, 14, 1, NULL}, {17, 20, 1, 17, NULL},
        {0, N, 0, 11, list},     {9, 30, 0, 1, list},  {31, 2, 0, 10, list + 1},
        {0, 32, 2, 5, NULL},     {16, 32, 4, 6, NULL}, {0, 16, 0, 7, NULL},
        {0, 32, 0, 3, list + 3}};
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++)
        check_call(p, ops, precision, x, stride, reference, &calls[c]);
}

static void check_problem(problem_t *p, fixture_rng_t *rng, const ferrum_packed_ops_t *ops)
{
    static float reference[TOKENS * N];
    fill_x(p, rng);
    for (int precision = FERRUM_PACKED_FAST; precision <= FERRUM_PACKED_ACCURATE; precision++) {
        size_t stride;
        uint8_t *x = quantise_all(p, &ferrum_packed_ops_scalar, precision, &stride);
        ferrum_packed_ops_scalar.product(&p->m, precision, 0, N, x, stride, NULL, TOKENS, reference,
                                         N);
        if (precision == FERRUM_PACKED_FAST)
            check_error(p, reference, 1.3e-2, 3e-2);
        else
            check_error(p, reference, 1e-4, 5e-4);
        uint8_t *own = quantise_all(p, ops, precision, &stride);
        FIXTURE_REQUIRE(memcmp(x, own, stride * TOKENS) == 0, "%s: quantised rows differ", p->name);
        check_bits(p, ops, precision, own, stride, reference);
        free(x);
        free(own);
    }
    free_problem(p);
}

static problem_t problem;

START_TEST(test_blocks)
{
    static const uint32_t lengths[] = {512, 32, 256, 288, 480, 768};
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x9e3779b97f4a7c15u};
    if (!set || !set->packed)
        return;
    for (size_t f = 0; f < fixture_format_count(); f++) {
        const ferrum_format_traits_t *traits = fixture_format(f);
        if (ferrum_packed_kind_of(traits->format) == FERRUM_PACKED_NONE)
            continue;
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            if (lengths[i] % traits->block_values)
                continue;
            init_blocks(&problem, &rng, traits, lengths[i], i == 0 ? 64 : 0);
            check_problem(&problem, &rng, set->packed);
        }
    }
}
END_TEST

START_TEST(test_gptq)
{
    static const struct {
        uint32_t k, group;
    } shapes[] = {{512, 32}, {512, 128}, {768, 96}, {512, 512}, {320, 64}, {768, 256}};
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {11};
    if (!set || !set->packed)
        return;
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            init_gptq(&problem, &rng, bits, shapes[i].k, shapes[i].group, (ferrum_dtype_t)(i % 3));
            check_problem(&problem, &rng, set->packed);
        }
}
END_TEST

/** More tokens than any implementation takes at a time, from few rows: side by side, and listed. */
START_TEST(test_many_tokens)
{
    enum {
        MANY = 149
    };
    static float reference[TOKENS * N], y[MANY * N];
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {13};
    uint32_t list[MANY];
    if (!set || !set->packed)
        return;
    for (size_t f = 0; f < fixture_format_count(); f++) {
        const ferrum_format_traits_t *traits = fixture_format(f);
        if (ferrum_packed_kind_of(traits->format) == FERRUM_PACKED_NONE)
            continue;
        init_blocks(&problem, &rng, traits, 512, 0);
        fill_x(&problem, &rng);
        for (uint32_t t = 0; t < MANY; t++)
            list[t] = fixture_random(&rng) % TOKENS;
        for (int p = FERRUM_PACKED_FAST; p <= FERRUM_PACKED_ACCURATE; p++) {
            size_t stride;
            uint8_t *x = quantise_all(&problem, set->packed, p, &stride);
            uint8_t *copies = malloc(stride * MANY);
            ferrum_packed_ops_scalar.product(&problem.m, p, 0, N, x, stride, NULL, TOKENS,
                                             reference, N);
            for (uint32_t t = 0; t < MANY; t++)
                memcpy(copies + t * stride, x + list[t] * stride, stride);
            for (int listed = 0; listed < 2; listed++) {
                set->packed->product(&problem.m, p, 3, N - 4, listed ? x : copies, stride,
                                     listed ? list : NULL, MANY, y, N);
                for (uint32_t t = 0; t < MANY; t++)
                    FIXTURE_REQUIRE(
                        memcmp(y + t * N, reference + list[t] * N + 3, (N - 4) * sizeof *y) == 0,
                        "%s precision %d listed %d: token %u differs", problem.name, p, listed, t);
            }
            free(copies);
            free(x);
        }
        free_problem(&problem);
    }
}
END_TEST

/** Codes, scales and activations as large as they can be, all of one sign: no sum overflows. */
START_TEST(test_extremes)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    if (!set || !set->packed)
        return;
    for (size_t f = 0; f < fixture_format_count(); f++) {
        const ferrum_format_traits_t *traits = fixture_format(f);
        const ferrum_packed_kind_t kind = ferrum_packed_kind_of(traits->format);
        for (int pattern = 0; pattern < 4 && kind != FERRUM_PACKED_NONE; pattern++) {
            static uint8_t blocks[N * MAX_K * 2];
            static float reference[TOKENS * N];
            const size_t row_bytes = fixture_row_bytes(traits, 256);
            fixture_rng_t rng = {5};
            /* Bytes other than the halves: the scales of Q6_K are -128 in pattern 1 and 3. */
            fixture_fill_blocks(&rng, traits, blocks, row_bytes / traits->block_bytes * N);
            for (size_t i = 0; i < row_bytes * N; i++) {
                const size_t at = i % traits->block_bytes;
                const bool code = traits->format == FERRUM_FORMAT_Q6_K   ? at < 192
                                  : traits->format == FERRUM_FORMAT_Q2_K ? at < 80
                                  : traits->format == FERRUM_FORMAT_Q3_K ? at < 108
                                                                         : at >= 4;
                if (code)
                    blocks[i] = pattern % 2 ? 0x00 : 0xff;
                if (traits->format == FERRUM_FORMAT_Q6_K && at >= 192 && at < 208)
                    blocks[i] = pattern / 2 ? 0x80 : 0x7f;
                if ((traits->format == FERRUM_FORMAT_Q4_K ||
                     traits->format == FERRUM_FORMAT_Q5_K) &&
                    at >= 4 && at < 16)
                    blocks[i] = 0xff;
            }
            init_from(&problem, traits, 256, blocks, 0);
            for (uint32_t i = 0; i < TOKENS * 256; i++)
                problem.x[i] = pattern / 2 ? 3.0F : -3.0F;
            for (int p = FERRUM_PACKED_FAST; p <= FERRUM_PACKED_ACCURATE; p++) {
                size_t stride;
                uint8_t *x = quantise_all(&problem, set->packed, p, &stride);
                ferrum_packed_ops_scalar.product(&problem.m, p, 0, N, x, stride, NULL, TOKENS,
                                                 reference, N);
                check_error(&problem, reference, 1e-4, 1e-4);
                check_bits(&problem, set->packed, p, x, stride, reference);
                free(x);
            }
            free_problem(&problem);
        }
    }
}
END_TEST

/** Numbers that are none, huge or tiny: the same records as the reference's, and NaN or zero. */
START_TEST(test_wild_activations)
{
    static const float wild[] = {NAN,   -NAN,   INFINITY, -INFINITY, 2e33F, -3e38F,
                                 1e33F, 9e-31F, -1e-38F,  1e-45F,    -0.0F, 1e-30F};
    enum {
        K = 544
    };
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {3};
    float x[K];
    uint8_t a[K * 4], b[K * 4];
    if (!set || !set->packed)
        return;
    for (size_t i = 0; i < sizeof wild / sizeof wild[0]; i++)
        for (int precision = FERRUM_PACKED_FAST; precision <= FERRUM_PACKED_ACCURATE; precision++)
            for (uint32_t where = 0; where < 3; where++) {
                const size_t bytes = ferrum_packed_row_bytes(K, precision);
                for (uint32_t j = 0; j < K; j++)
                    x[j] = where == 2 ? 0 : fixture_random_f32(&rng);
                x[where == 0 ? 5 : K - 1] = wild[i];
                memset(a, 1, sizeof a);
                memset(b, 2, sizeof b);
                set->packed->quantise(FERRUM_PACKED_Q4_0, precision, x, NULL, K, a);
                ferrum_packed_ops_scalar.quantise(FERRUM_PACKED_Q4_0, precision, x, NULL, K, b);
                ck_assert_mem_eq(a, b, bytes);
                ck_assert_int_eq(a[bytes], 1);
                const float scale = where == 0 ? *(float *)(void *)a
                                    : precision == FERRUM_PACKED_FAST
                                        ? ((ferrum_packed_fast_t *)(void *)a)[2].scale[0]
                                        : ((ferrum_packed_accurate_t *)(void *)a)[2].scale;
                ck_assert_int_eq(isnan(scale) != 0, i < 6);
            }
}
END_TEST

START_TEST(test_permutation)
{
    enum {
        K = 512
    };
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {7};
    float x[K], moved[K];
    uint32_t perm[K];
    uint8_t a[K * 4], b[K * 4];
    if (!set || !set->packed)
        return;
    fixture_fill_f32(&rng, x, K);
    for (uint32_t i = 0; i < K; i++) {
        perm[i] = (i * 37 + 11) % K;
        moved[i] = x[perm[i]];
    }
    for (int kind = FERRUM_PACKED_NONE + 1; kind < FERRUM_PACKED_KINDS; kind++)
        for (int p = FERRUM_PACKED_FAST; p <= FERRUM_PACKED_ACCURATE; p++) {
            set->packed->quantise((ferrum_packed_kind_t)kind, p, x, perm, K, a);
            ferrum_packed_ops_scalar.quantise((ferrum_packed_kind_t)kind, p, moved, NULL, K, b);
            ck_assert_mem_eq(a, b, ferrum_packed_row_bytes(K, p));
        }
}
END_TEST

START_TEST(test_shapes_that_do_not_fit)
{
    static const struct {
        ferrum_packed_kind_t kind;
        uint32_t n, k, group;
        ferrum_dtype_t dtype;
        bool fits;
    } shapes[] = {{FERRUM_PACKED_NONE, 16, 256, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_KINDS, 16, 256, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_Q4_K, 17, 256, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_Q4_K, 16, 128, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_Q4_0, 16, 0, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_Q4_0, 16, 32, 0, FERRUM_DTYPE_I8, true},
                  {FERRUM_PACKED_GPTQ4, 16, 256, 16, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_GPTQ4, 16, 256, 0, FERRUM_DTYPE_F32, false},
                  {FERRUM_PACKED_GPTQ8, 16, 256, 64, FERRUM_DTYPE_I32, false},
                  {FERRUM_PACKED_GPTQ4, 16, 256, 64, FERRUM_DTYPE_BF16, true}};
    ferrum_packed_matrix_t m;
    (void)_i;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        ck_assert_msg(ferrum_packed_shape(shapes[i].kind, shapes[i].n, shapes[i].k, shapes[i].group,
                                          shapes[i].dtype, &m) == shapes[i].fits,
                      "shape %zu", i);
    ck_assert_ptr_null(ferrum_packed_traits(FERRUM_PACKED_NONE));
    ck_assert_int_eq(ferrum_packed_kind_of(FERRUM_FORMAT_F16), FERRUM_PACKED_NONE);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_blocks,           test_gptq,        test_many_tokens,           test_extremes,
        test_wild_activations, test_permutation, test_shapes_that_do_not_fit};
    return fixture_main("packed", tests, sizeof tests / sizeof tests[0]);
}
