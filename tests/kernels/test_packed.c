/* SPDX-License-Identifier: MIT */
/* Packed weights: the reference against f64 over decoded weights, and every set against the
 * reference bit by bit, whatever rows and tokens a call has. Panels end at an inaccessible page. */
#include "tests/kernels/fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 48,
    K = 512,
    TOKENS = 15,
    GUARD = 5
};

/** One matrix in packed form with its exact values. */
typedef struct problem {
    ferrum_packed_matrix_t m;
    uint8_t *panels;
    size_t panels_bytes;
    double *w; /* [N, K] */
    float x[TOKENS * K];
} problem_t;

static void finish_shape(problem_t *p, ferrum_packed_kind_t kind, uint32_t group)
{
    ck_assert(ferrum_packed_shape(kind, N, K, group, FERRUM_DTYPE_F32, &p->m));
    p->panels_bytes = p->m.panel_bytes * (N / FERRUM_PANEL_ROWS);
    p->panels = fixture_alloc(p->panels_bytes, 0);
    p->m.panels = p->panels;
    p->w = calloc((size_t)N * K, sizeof *p->w);
    ck_assert_ptr_nonnull(p->w);
}

static void init_blocks(problem_t *p, fixture_rng_t *rng, const ferrum_format_traits_t *traits)
{
    const size_t row_bytes = fixture_row_bytes(traits, K);
    uint8_t *blocks = malloc(row_bytes * N);
    float decoded[K];
    finish_shape(p, ferrum_packed_kind_of(traits->format), 0);
    fixture_fill_blocks(rng, traits, blocks, row_bytes / traits->block_bytes * N);
    for (uint32_t r = 0; r < N; r++) {
        ferrum_kernel_dequant(traits->format)(blocks + r * row_bytes, decoded, K);
        for (uint32_t i = 0; i < K; i++)
            p->w[r * K + i] = (double)decoded[i];
    }
    for (uint32_t r = 0; r < N / FERRUM_PANEL_ROWS; r++)
        ferrum_pack_blocks(&p->m, blocks + r * FERRUM_PANEL_ROWS * row_bytes, row_bytes,
                           p->panels + r * p->m.panel_bytes);
    free(blocks);
}

static void init_gptq(problem_t *p, fixture_rng_t *rng, uint32_t bits, uint32_t group)
{
    const uint32_t per_word = 32 / bits, mask = (1u << bits) - 1, groups = K / group;
    uint32_t *words = malloc((size_t)K / per_word * N * sizeof *words);
    float *scales = malloc((size_t)groups * N * sizeof *scales);
    uint8_t *zeros = malloc((size_t)groups * N);
    finish_shape(p, bits == 4 ? FERRUM_PACKED_GPTQ4 : FERRUM_PACKED_GPTQ8, group);
    for (uint32_t i = 0; i < K / per_word * N; i++)
        words[i] = fixture_random(rng);
    for (uint32_t i = 0; i < groups * N; i++) {
        scales[i] = 0.01F + 0.01F * fixture_random_f32(rng);
        zeros[i] = (uint8_t)(fixture_random(rng) & mask);
    }
    for (uint32_t r = 0; r < N; r++)
        for (uint32_t k = 0; k < K; k++) {
            const uint32_t code = words[k / per_word * N + r] >> (k % per_word * bits) & mask;
            const uint32_t cell = k / group * N + r;
            p->w[r * K + k] = ((double)code - zeros[cell]) * (double)scales[cell];
        }
    for (uint32_t r = 0; r < N / FERRUM_PANEL_ROWS; r++)
        ferrum_pack_gptq(&p->m, words, scales, zeros, N, r * FERRUM_PANEL_ROWS,
                         p->panels + r * p->m.panel_bytes);
    free(words);
    free(scales);
    free(zeros);
}

static void free_problem(problem_t *p)
{
    fixture_free(p->panels, p->panels_bytes, 0);
    free(p->w);
}

/** Quantised rows of all tokens; outlier channels in every second token. */
static uint8_t *quantise_all(problem_t *p, fixture_rng_t *rng, const ferrum_packed_ops_t *ops,
                             ferrum_packed_precision_t precision, size_t *out_stride)
{
    *out_stride = ferrum_packed_row_bytes(K, precision);
    uint8_t *rows = malloc(*out_stride * TOKENS);
    for (uint32_t t = 0; t < TOKENS; t++)
        for (uint32_t i = 0; i < K; i++)
            p->x[t * K + i] = fixture_random_f32(rng) * (t % 2 && i % 97 == 0 ? 20.0F
                                                         : t == 4             ? 0.0F
                                                                              : 1.0F);
    for (uint32_t t = 0; t < TOKENS; t++)
        ops->quantise(p->m.kind, precision, p->x + t * K, NULL, K, rows + t * *out_stride);
    return rows;
}

static void check_error(const problem_t *p, const float *y, double bound, const char *name)
{
    for (uint32_t t = 0; t < TOKENS; t++) {
        double diff = 0, norm = 0;
        for (uint32_t r = 0; r < N; r++) {
            double sum = 0;
            for (uint32_t i = 0; i < K; i++)
                sum += p->w[r * K + i] * (double)p->x[t * K + i];
            diff += (sum - (double)y[t * N + r]) * (sum - (double)y[t * N + r]);
            norm += sum * sum;
        }
        FIXTURE_REQUIRE(sqrt(diff) <= bound * sqrt(norm), "%s token %u: error %g of %g", name, t,
                        sqrt(diff), sqrt(norm));
    }
}

/** Any rows and tokens of a call give the reference's bits and touch nothing else. */
static void check_bits(const problem_t *p, const ferrum_packed_ops_t *ops,
                       ferrum_packed_precision_t precision, const uint8_t *rows, size_t stride,
                       const float *reference, const char *name)
{
    static const struct {
        uint32_t row, rows, token, tokens;
    } calls[] = {{0, N, 0, TOKENS}, {0, 0, 0, 3},   {5, 7, 2, 1}, {16, 16, 0, 8}, {15, 2, 3, 4},
                 {1, 46, 7, 2},     {47, 1, 14, 1}, {0, N, 0, 0}, {17, 20, 1, 11}};
    for (size_t c = 0; c < sizeof calls / sizeof calls[0]; c++) {
        float y[TOKENS * (N + GUARD) + GUARD];
        for (size_t i = 0; i < sizeof y / sizeof *y; i++)
            y[i] = 12345.0F;
        ops->product(&p->m, precision, calls[c].row, calls[c].rows, rows + calls[c].token * stride,
                     stride, NULL, calls[c].tokens, y + GUARD, N + GUARD);
        for (uint32_t t = 0; t < TOKENS; t++)
            for (uint32_t r = 0; r < N + GUARD; r++) {
                const bool inside = t < calls[c].tokens && r < calls[c].rows;
                const float want =
                    inside ? reference[(calls[c].token + t) * N + calls[c].row + r] : 12345.0F;
                FIXTURE_REQUIRE(memcmp(&y[GUARD + t * (N + GUARD) + r], &want, sizeof want) == 0,
                                "%s call %zu token %u row %u: %g, expected %g", name, c, t, r,
                                (double)y[GUARD + t * (N + GUARD) + r], (double)want);
            }
    }
}

static void check_problem(problem_t *p, fixture_rng_t *rng, const ferrum_packed_ops_t *ops,
                          const char *name)
{
    for (int precision = FERRUM_PACKED_FAST; precision <= FERRUM_PACKED_ACCURATE; precision++) {
        size_t stride;
        float reference[TOKENS * N];
        fixture_rng_t again = *rng;
        uint8_t *rows = quantise_all(p, rng, &ferrum_packed_ops_scalar, precision, &stride);
        ferrum_packed_ops_scalar.product(&p->m, precision, 0, N, rows, stride, NULL, TOKENS,
                                         reference, N);
        check_error(p, reference, precision == FERRUM_PACKED_FAST ? 1e-1 : 5e-4, name);
        uint8_t *own = quantise_all(p, &again, ops, precision, &stride);
        FIXTURE_REQUIRE(memcmp(rows, own, stride * TOKENS) == 0, "%s: quantised rows differ", name);
        check_bits(p, ops, precision, own, stride, reference, name);
        free(rows);
        free(own);
    }
}

START_TEST(test_packed_products)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x9e3779b97f4a7c15u};
    static problem_t p;
    if (!set || !set->packed)
        return;
    for (size_t f = 0; f < fixture_format_count(); f++) {
        const ferrum_format_traits_t *traits = fixture_format(f);
        if (ferrum_packed_kind_of(traits->format) == FERRUM_PACKED_NONE)
            continue;
        init_blocks(&p, &rng, traits);
        check_problem(&p, &rng, set->packed, traits->name);
        free_problem(&p);
    }
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (uint32_t group = 32; group <= K; group *= 4) {
            init_gptq(&p, &rng, bits, group);
            check_problem(&p, &rng, set->packed, bits == 4 ? "gptq4" : "gptq8");
            free_problem(&p);
        }
}
END_TEST

START_TEST(test_permutation)
{
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
    for (int kind = FERRUM_PACKED_NONE + 1; kind < FERRUM_PACKED_KINDS; kind++) {
        set->packed->quantise((ferrum_packed_kind_t)kind, FERRUM_PACKED_ACCURATE, x, perm, K, a);
        ferrum_packed_ops_scalar.quantise((ferrum_packed_kind_t)kind, FERRUM_PACKED_ACCURATE, moved,
                                          NULL, K, b);
        ck_assert_mem_eq(a, b, ferrum_packed_row_bytes(K, FERRUM_PACKED_ACCURATE));
    }
}
END_TEST

START_TEST(test_shapes_that_do_not_fit)
{
    ferrum_packed_matrix_t m;
    (void)_i;
    ck_assert(!ferrum_packed_shape(FERRUM_PACKED_NONE, 16, 256, 0, FERRUM_DTYPE_F32, &m));
    ck_assert(!ferrum_packed_shape(FERRUM_PACKED_Q4_K, 17, 256, 0, FERRUM_DTYPE_F32, &m));
    ck_assert(!ferrum_packed_shape(FERRUM_PACKED_Q4_K, 16, 128, 0, FERRUM_DTYPE_F32, &m));
    ck_assert(!ferrum_packed_shape(FERRUM_PACKED_GPTQ4, 16, 256, 16, FERRUM_DTYPE_F32, &m));
    ck_assert(!ferrum_packed_shape(FERRUM_PACKED_GPTQ4, 16, 256, 0, FERRUM_DTYPE_F32, &m));
    ck_assert(ferrum_packed_shape(FERRUM_PACKED_GPTQ4, 16, 256, 64, FERRUM_DTYPE_F32, &m));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_packed_products, test_permutation,
                                  test_shapes_that_do_not_fit};
    return fixture_main("packed", tests, sizeof tests / sizeof tests[0]);
}
