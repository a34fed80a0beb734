/* SPDX-License-Identifier: MIT */
/* Products of every set and format against sums in f64 over the decoded weights.
 *
 * Bound: |y - y64| <= (k/8 + 8) 2^-24 sum |w| |x|. It is the rounding bound of k products that are
 * added into at least eight interleaved partial sums, which are then added in a tree. */
#include "tests/kernels/fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/** One product with all its operands; strides are larger than the rows they step over. */
typedef struct problem {
    const ferrum_format_traits_t *traits;
    uint32_t rows, tokens, k;
    size_t row_bytes, ldx, ldy;
    size_t w_bytes, x_bytes, y_bytes, slack;
    uint8_t *w;
    float *x, *y;
} problem_t;

static const float POISON = 1234.5f;

static void problem_init(problem_t *p, fixture_rng_t *rng, const ferrum_format_traits_t *traits,
                         uint32_t rows, uint32_t k, uint32_t tokens)
{
    const size_t exact = fixture_row_bytes(traits, k);
    *p = (problem_t){.traits = traits, .rows = rows, .tokens = tokens, .k = k};
    p->slack = fixture_random(rng) % 2; /* odd addresses, and rows that end at the trap */
    p->row_bytes = exact + 3;
    p->ldx = k + 5u;
    p->ldy = rows + 2u;
    p->w_bytes = rows ? (rows - 1u) * p->row_bytes + exact : 0;
    p->x_bytes = (tokens ? (tokens - 1u) * p->ldx + k : 0) * sizeof(float);
    p->y_bytes = (tokens && rows ? (tokens - 1u) * p->ldy + rows : 0) * sizeof(float);
    p->w = fixture_alloc(p->w_bytes, p->slack);
    p->x = fixture_alloc(p->x_bytes, 0);
    p->y = fixture_alloc(p->y_bytes, 0);
    for (uint32_t r = 0; r < rows; r++)
        fixture_fill_blocks(rng, traits, p->w + r * p->row_bytes, k / traits->block_values);
    fixture_fill_f32(rng, p->x, p->x_bytes / sizeof(float));
    for (size_t i = 0; i < p->y_bytes / sizeof(float); i++)
        p->y[i] = POISON;
}

static void problem_free(problem_t *p)
{
    fixture_free(p->y, p->y_bytes, 0);
    fixture_free(p->x, p->x_bytes, 0);
    fixture_free(p->w, p->w_bytes, p->slack);
}

static void check_against_f64(const problem_t *p, const char *set_name)
{
    float *weights = malloc((p->k + 1u) * sizeof *weights);
    ck_assert_ptr_nonnull(weights);
    for (uint32_t r = 0; r < p->rows; r++) {
        ferrum_kernel_dequant(p->traits->format)(p->w + r * p->row_bytes, weights, p->k);
        for (uint32_t t = 0; t < p->tokens; t++) {
            double sum = 0, magnitude = 0;
            for (uint32_t i = 0; i < p->k; i++) {
                const double product = (double)weights[i] * (double)p->x[t * p->ldx + i];
                sum += product;
                magnitude += fabs(product);
            }
            const double got = (double)p->y[t * p->ldy + r];
            FIXTURE_REQUIRE(fabs(got - sum) <= (p->k / 8 + 8) * 0x1p-24 * magnitude,
                            "%s %s rows %u k %u tokens %u: y[%u][%u] is %g, expected %g", set_name,
                            p->traits->name, p->rows, p->k, p->tokens, t, r, got, sum);
        }
    }
    free(weights);
}

/** Bytes between the rows of y that the product must not touch. */
static void check_gaps(const problem_t *p, const char *set_name)
{
    for (uint32_t t = 0; t + 1 < p->tokens; t++)
        for (size_t r = p->rows; p->rows && r < p->ldy; r++)
            FIXTURE_REQUIRE(p->y[t * p->ldy + r] == POISON, "%s %s wrote behind row %u of y",
                            set_name, p->traits->name, t);
}

START_TEST(products_match_f64)
{
    static const uint32_t row_counts[] = {0, 1, 3, 17};
    static const uint32_t token_counts[] = {0, 1, 2, 7, 8, 9, 33, 49};
    static const uint32_t block_counts[] = {0, 1, 2, 5};
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x0123456789abcdefu};
    if (!set)
        return;
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_format_traits_t *traits = ferrum_format_traits(set->matmul[f].format);
        /* formats without blocks get odd row lengths on both sides of 256 */
        const uint32_t unit = traits->block_values > 1 ? traits->block_values : 61;
        printf("%s %s\n", set->name, traits->name);
        for (size_t b = 0; b < sizeof block_counts / sizeof block_counts[0]; b++)
            for (size_t r = 0; r < sizeof row_counts / sizeof row_counts[0]; r++)
                for (size_t t = 0; t < sizeof token_counts / sizeof token_counts[0]; t++) {
                    problem_t p;
                    problem_init(&p, &rng, traits, row_counts[r], block_counts[b] * unit,
                                 token_counts[t]);
                    set->matmul[f].matmul(p.w, p.row_bytes, p.rows, p.k, p.x, p.ldx, p.tokens, p.y,
                                          p.ldy);
                    check_against_f64(&p, set->name);
                    check_gaps(&p, set->name);
                    problem_free(&p);
                }
    }
}
END_TEST

/** Repeat part [r0, r0+rows) x [t0, t0+tokens) of @p p with other strides and expect its bits. */
static void check_part(const problem_t *p, const ferrum_matmul_entry_t *entry, uint32_t r0,
                       uint32_t rows, uint32_t t0, uint32_t tokens)
{
    const size_t row_bytes = fixture_row_bytes(p->traits, p->k);
    uint8_t *w = fixture_alloc(rows * row_bytes, 0);
    float *x = fixture_alloc((size_t)tokens * p->k * sizeof *x, 0);
    float *y = fixture_alloc((size_t)tokens * rows * sizeof *y, 0);
    for (uint32_t r = 0; r < rows; r++)
        memcpy(w + r * row_bytes, p->w + (r0 + r) * p->row_bytes, row_bytes);
    for (uint32_t t = 0; t < tokens; t++)
        memcpy(x + (size_t)t * p->k, p->x + (t0 + t) * p->ldx, p->k * sizeof *x);
    entry->matmul(w, row_bytes, rows, p->k, x, p->k, tokens, y, rows);
    for (uint32_t t = 0; t < tokens; t++)
        FIXTURE_REQUIRE(
            memcmp(y + (size_t)t * rows, p->y + (t0 + t) * p->ldy + r0, rows * sizeof *y) == 0,
            "%s: rows %u+%u tokens %u+%u: other bits than in one call of %u x %u", p->traits->name,
            r0, rows, t0, tokens, p->rows, p->tokens);
    fixture_free(y, (size_t)tokens * rows * sizeof *y, 0);
    fixture_free(x, (size_t)tokens * p->k * sizeof *x, 0);
    fixture_free(w, rows * row_bytes, 0);
}

START_TEST(bits_do_not_depend_on_the_split)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0xfedcba9876543210u};
    if (!set)
        return;
    for (size_t f = 0; f < set->matmul_count; f++) {
        const ferrum_matmul_entry_t *entry = &set->matmul[f];
        const ferrum_format_traits_t *traits = ferrum_format_traits(entry->format);
        const uint32_t k = traits->block_values > 1 ? 3 * traits->block_values : 531;
        problem_t p;
        problem_init(&p, &rng, traits, 21, k, 52);
        entry->matmul(p.w, p.row_bytes, p.rows, p.k, p.x, p.ldx, p.tokens, p.y, p.ldy);
        for (uint32_t r = 0; r < p.rows; r += 5)
            for (uint32_t t = 0; t < p.tokens; t += 17)
                check_part(&p, entry, r, 1, t, 1);
        for (uint32_t i = 0; i < 24; i++) {
            const uint32_t r = fixture_random(&rng) % p.rows, t = fixture_random(&rng) % p.tokens;
            const uint32_t rows = 1 + fixture_random(&rng) % (p.rows - r);
            check_part(&p, entry, r, rows, t, 1 + fixture_random(&rng) % (p.tokens - t));
        }
        problem_free(&p);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {products_match_f64, bits_do_not_depend_on_the_split};
    return fixture_main("matmul", tests, sizeof tests / sizeof tests[0]);
}
