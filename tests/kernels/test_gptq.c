/* SPDX-License-Identifier: MIT */
/* GPTQ products of every set against sums in f64, and their bits under column and token splits.
 *
 * Bound: |y - y64| <= (longest group + groups + 4) 2^-24 sum |scale| |code - zero| |x|, the
 * rounding bound of one running sum per group and one over the groups. */
#include "tests/kernels/fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_GROUPS = 12
};

typedef struct problem {
    ferrum_gptq_matrix_t w;
    uint32_t group_end[MAX_GROUPS];
    uint32_t longest_group;
    uint32_t *qweight;
    float *scales, *x;
    uint8_t *zeros;
    uint32_t tokens;
    size_t ldx;
} problem_t;

/** How K is cut into groups. */
typedef enum grouping {
    GROUPS_EVEN,   /* 32 each */
    GROUPS_ONE,    /* one for the whole column */
    GROUPS_UNEVEN, /* as act-order leaves them: odd lengths, borders inside words, empty ones */
} grouping_t;

static void cut_groups(problem_t *p, fixture_rng_t *rng, grouping_t grouping)
{
    uint32_t k = 0;
    while (k < p->w.k && p->w.groups < MAX_GROUPS) {
        uint32_t length = p->w.k;
        if (grouping == GROUPS_EVEN)
            length = 32;
        else if (grouping == GROUPS_UNEVEN)
            length = fixture_random(rng) % 23;
        if (length > p->w.k - k || p->w.groups == MAX_GROUPS - 1)
            length = p->w.k - k;
        k += length;
        p->group_end[p->w.groups++] = k;
        p->longest_group = length > p->longest_group ? length : p->longest_group;
    }
}

static void problem_init(problem_t *p, fixture_rng_t *rng, uint32_t bits, grouping_t grouping,
                         uint32_t k, uint32_t n, uint32_t tokens)
{
    memset(p, 0, sizeof *p);
    p->tokens = tokens;
    p->ldx = k + 3u;
    p->w.bits = bits;
    p->w.k = k;
    p->w.n = n;
    cut_groups(p, rng, grouping);
    const size_t words = (size_t)k * bits / 32 * n, cells = (size_t)p->w.groups * n;
    p->qweight = fixture_alloc(words * 4, 0);
    p->scales = fixture_alloc(cells * 4, 0);
    p->zeros = fixture_alloc(cells, 0);
    p->x = fixture_alloc(tokens * p->ldx * 4, 0);
    for (size_t i = 0; i < words; i++)
        p->qweight[i] = fixture_random(rng);
    fixture_fill_f32(rng, p->scales, cells);
    for (size_t i = 0; i < cells; i++)
        p->zeros[i] = (uint8_t)(fixture_random(rng) % (bits == 4 ? 17u : 256u));
    fixture_fill_f32(rng, p->x, tokens * p->ldx);
    p->w.qweight = p->qweight;
    p->w.scales = p->scales;
    p->w.zeros = p->zeros;
    p->w.group_end = p->group_end;
}

static void problem_free(problem_t *p)
{
    const size_t cells = (size_t)p->w.groups * p->w.n;
    fixture_free(p->x, p->tokens * p->ldx * 4, 0);
    fixture_free(p->zeros, cells, 0);
    fixture_free(p->scales, cells * 4, 0);
    fixture_free(p->qweight, (size_t)p->w.k * p->w.bits / 32 * p->w.n * 4, 0);
}

/** Value of column @p c, token @p t in f64; @p out_magnitude gets the sum of absolute terms. */
static double reference(const problem_t *p, uint32_t c, uint32_t t, double *out_magnitude)
{
    const uint32_t per_word = 32 / p->w.bits, mask = (1u << p->w.bits) - 1;
    double sum = 0;
    uint32_t k = 0;
    *out_magnitude = 0;
    for (uint32_t g = 0; g < p->w.groups; g++)
        for (; k < p->group_end[g]; k++) {
            const uint32_t word = p->qweight[(size_t)(k / per_word) * p->w.n + c];
            const double code = word >> (k % per_word * p->w.bits) & mask;
            const size_t cell = (size_t)g * p->w.n + c;
            const double term =
                (double)p->scales[cell] * (code - p->zeros[cell]) * (double)p->x[t * p->ldx + k];
            sum += term;
            *out_magnitude += fabs(term);
        }
    return sum;
}

static void check_problem(const ferrum_kernel_set_t *set, const problem_t *p)
{
    const uint32_t n = p->w.n;
    const size_t ldy = n + 1u, bytes = ((p->tokens - 1) * ldy + n) * 4;
    float *y = fixture_alloc(bytes, 0);
    set->gptq_matmul(&p->w, 0, n, p->x, p->ldx, p->tokens, y, ldy);
    for (uint32_t t = 0; t < p->tokens; t++)
        for (uint32_t c = 0; c < n; c++) {
            double magnitude;
            const double expected = reference(p, c, t, &magnitude);
            const double got = (double)y[t * ldy + c];
            const double bound = (p->longest_group + p->w.groups + 4) * 0x1p-24 * magnitude;
            FIXTURE_REQUIRE(
                fabs(got - expected) <= bound,
                "%s %u bits k %u n %u groups %u tokens %u: y[%u][%u] is %g, expected %g", set->name,
                p->w.bits, p->w.k, n, p->w.groups, p->tokens, t, c, got, expected);
        }
    fixture_free(y, bytes, 0);
}

START_TEST(products_match_f64)
{
    static const uint32_t lengths[] = {8, 64, 104};
    static const uint32_t widths[] = {1, 7, 16, 33, 71, 128};
    static const uint32_t token_counts[] = {1, 2, 3, 4, 7, 8, 9, 33};
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x1234567812345678u};
    if (!set || !set->gptq_matmul)
        return;
    for (uint32_t bits = 4; bits <= 8; bits += 4)
        for (int grouping = GROUPS_EVEN; grouping <= GROUPS_UNEVEN; grouping++)
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
                for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
                    for (size_t t = 0; t < sizeof token_counts / sizeof token_counts[0]; t++) {
                        problem_t p;
                        problem_init(&p, &rng, bits, (grouping_t)grouping, lengths[l], widths[w],
                                     token_counts[t]);
                        check_problem(set, &p);
                        problem_free(&p);
                    }
    printf("%s gptq\n", set->name);
}
END_TEST

START_TEST(bits_do_not_depend_on_the_split)
{
    enum {
        N = 83,
        TOKENS = 21
    };
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x8765432187654321u};
    if (!set || !set->gptq_matmul)
        return;
    for (uint32_t bits = 4; bits <= 8; bits += 4) {
        static float whole[TOKENS][N], part[TOKENS][N];
        problem_t p;
        problem_init(&p, &rng, bits, GROUPS_UNEVEN, 96, N, TOKENS);
        set->gptq_matmul(&p.w, 0, N, p.x, p.ldx, TOKENS, whole[0], N);
        for (uint32_t i = 0; i < 300; i++) {
            const uint32_t c = fixture_random(&rng) % N, t = fixture_random(&rng) % TOKENS;
            const uint32_t cols = 1 + fixture_random(&rng) % (N - c);
            const uint32_t tokens = i % 3 ? 1 + fixture_random(&rng) % (TOKENS - t) : 1;
            set->gptq_matmul(&p.w, c, cols, p.x + t * p.ldx, p.ldx, tokens, part[0], N);
            for (uint32_t s = 0; s < tokens; s++)
                FIXTURE_REQUIRE(
                    memcmp(part[s], &whole[t + s][c], cols * sizeof(float)) == 0,
                    "%s %u bits: columns %u+%u tokens %u+%u: other bits than in one call",
                    set->name, bits, c, cols, t, tokens);
        }
        problem_free(&p);
    }
}
END_TEST

START_TEST(no_columns_or_tokens_is_nothing)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x1111222233334444u};
    if (!set || !set->gptq_matmul)
        return;
    float y = 42.0f;
    problem_t p;
    problem_init(&p, &rng, 4, GROUPS_EVEN, 64, 16, 1);
    set->gptq_matmul(&p.w, 16, 0, p.x, p.ldx, 1, &y, 1);
    set->gptq_matmul(&p.w, 0, 16, p.x, p.ldx, 0, &y, 1);
    ck_assert(y == 42.0f);
    problem_free(&p);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {products_match_f64, bits_do_not_depend_on_the_split,
                                  no_columns_or_tokens_is_nothing};
    return fixture_main("gptq", tests, sizeof tests / sizeof tests[0]);
}
