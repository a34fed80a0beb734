/* SPDX-License-Identifier: MIT */
/* Vector operations of every set against f64. u below is 2^-24, half an ulp at 1.
 *   dot       (n + 2) u sum |a b|
 *   exp_sum   each value within 2 u (1 ulp) of exp of the difference as f32
 *   silu_mul  within 5 u of the exact value
 *   rms_norm  within (n + 8) u of the exact value
 *   axpy      2 u (|s x| + |y|); add and scale are single roundings, hence exact bits
 * Values below the normal range may be off by two steps of 2^-149. */
#include "tests/kernels/fixture.h"

#include <math.h>
#include <string.h>

static const double U = 0x1p-24, SUBNORMAL_STEPS = 2 * 0x1p-149;
static const size_t lengths[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 128, 1000};

enum {
    LENGTHS = sizeof lengths / sizeof lengths[0],
    LONGEST = 1000
};

/** A copy of @p n random values at the end of accessible memory. */
static float *random_row(fixture_rng_t *rng, size_t n, float size)
{
    float *row = fixture_alloc(n * sizeof *row, 0);
    fixture_fill_f32(rng, row, n);
    for (size_t i = 0; i < n; i++)
        row[i] *= size;
    return row;
}

static void free_row(float *row, size_t n)
{
    fixture_free(row, n * sizeof *row, 0);
}

#define CHECK_NEAR(set, what, got, expected, bound)                                                \
    FIXTURE_REQUIRE(fabs((double)(got) - (expected)) <= (bound) + SUBNORMAL_STEPS,                 \
                    "%s %s: %a instead of %a", (set)->name, what, (double)(got), (expected))

START_TEST(dot_and_linear_operations)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x5555aaaa5555aaaau};
    if (!set)
        return;
    for (size_t l = 0; l < LENGTHS; l++) {
        const size_t n = lengths[l];
        float *a = random_row(&rng, n, 1), *b = random_row(&rng, n, 1), kept[LONGEST];
        double sum = 0, magnitude = 0;
        for (size_t i = 0; i < n; i++) {
            sum += (double)a[i] * (double)b[i];
            magnitude += fabs((double)a[i] * (double)b[i]);
        }
        CHECK_NEAR(set, "dot", set->vector.dot(a, b, n), sum, (double)(n + 2) * U * magnitude);

        memcpy(kept, b, n * sizeof *b);
        set->vector.axpy(0.37f, a, b, n);
        for (size_t i = 0; i < n; i++) {
            const double product = 0.37f * (double)a[i];
            CHECK_NEAR(set, "axpy", b[i], product + (double)kept[i],
                       2 * U * (fabs(product) + fabs((double)kept[i])));
        }
        memcpy(kept, b, n * sizeof *b);
        set->vector.add(b, a, n);
        for (size_t i = 0; i < n; i++)
            FIXTURE_REQUIRE(b[i] == kept[i] + a[i], "%s add", set->name);
        memcpy(kept, b, n * sizeof *b);
        set->vector.scale(-1.7f, b, n);
        for (size_t i = 0; i < n; i++)
            FIXTURE_REQUIRE(b[i] == kept[i] * -1.7f, "%s scale", set->name);
        free_row(b, n);
        free_row(a, n);
    }
}
END_TEST

static void check_silu(const ferrum_kernel_set_t *set, float gate, float up, float got)
{
    const double expected = (double)gate / (1 + exp(-(double)gate)) * (double)up;
    CHECK_NEAR(set, "silu_mul", got, expected, 5 * U * fabs(expected));
}

START_TEST(silu_mul)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x123456789u};
    if (!set)
        return;
    for (size_t l = 0; l < LENGTHS; l++) {
        const size_t n = lengths[l];
        float *gate = random_row(&rng, n, 30), *up = random_row(&rng, n, 2), kept[LONGEST];
        float *out = random_row(&rng, n, 1);
        set->vector.silu_mul(gate, up, out, n);
        for (size_t i = 0; i < n; i++)
            check_silu(set, gate[i], up[i], out[i]);
        memcpy(kept, gate, n * sizeof *gate);
        set->vector.silu_mul(gate, up, gate, n); /* in place */
        ck_assert_msg(memcmp(gate, out, n * sizeof *gate) == 0, "%s silu_mul in place", set->name);
        memcpy(gate, kept, n * sizeof *gate);
        set->vector.silu_mul(gate, up, up, n);
        ck_assert_msg(memcmp(up, out, n * sizeof *up) == 0, "%s silu_mul in place", set->name);
        free_row(out, n);
        free_row(up, n);
        free_row(gate, n);
    }
}
END_TEST

START_TEST(silu_of_extreme_gates)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    const float gates[] = {0.0f, -0.0f, 1e-30f, 88.0f, -80.0f, -88.9f, -103.0f, 1000.0f, 3e38f};
    const float up[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    const float lowest[] = {-1000.0f, -3e38f};
    float out[sizeof gates / sizeof gates[0]];
    if (!set)
        return;
    set->vector.silu_mul(gates, up, out, sizeof gates / sizeof gates[0]);
    for (size_t i = 0; i < sizeof gates / sizeof gates[0]; i++)
        if (gates[i] > -88.0f)
            check_silu(set, gates[i], 1, out[i]);
        else /* e^-gate may already be infinite: between the exact value and zero */
            ck_assert_msg(out[i] <= 0.0f && out[i] > -1e-36f, "%s silu(%g) is %g", set->name,
                          (double)gates[i], (double)out[i]);
    set->vector.silu_mul(lowest, up, out, 2);
    ck_assert_msg(out[0] == 0.0f && out[1] == 0.0f, "%s silu(-1000) is %g", set->name,
                  (double)out[0]);
    const float not_a_number = NAN;
    set->vector.silu_mul(&not_a_number, up, out, 1);
    ck_assert_msg(isnan(out[0]), "%s silu hides a NaN", set->name);
}
END_TEST

static void check_exp_sum(const ferrum_kernel_set_t *set, float *x, size_t n)
{
    float kept[LONGEST], max = -INFINITY;
    double sum = 0;
    memcpy(kept, x, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    const float got = set->vector.exp_sum(x, n);
    for (size_t i = 0; i < n; i++) {
        const float difference = kept[i] - max;
        const double expected = exp((double)difference);
        CHECK_NEAR(set, "exp_sum value", x[i], expected, 2 * U * expected);
        sum += (double)x[i];
    }
    CHECK_NEAR(set, "exp_sum", got, sum, (double)(n + 2) * U * sum);
}

START_TEST(exp_sum)
{
    static const float sizes[] = {1, 20, 60, 200};
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0xabcdef0123u};
    if (!set)
        return;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t l = 1; l < LENGTHS; l++) {
            const size_t n = lengths[l];
            float *x = random_row(&rng, n, sizes[s]);
            for (size_t i = 0; i + 1 < n; i += 5)
                x[i] = -INFINITY; /* masked positions */
            check_exp_sum(set, x, n);
            free_row(x, n);
        }
    for (size_t n = 1; n < 40; n++) {
        float x[40];
        for (size_t i = 0; i < n; i++)
            x[i] = -INFINITY;
        ck_assert_msg(set->vector.exp_sum(x, n) == 0.0f, "%s exp_sum of nothing", set->name);
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(x[i] == 0.0f, "%s exp_sum of nothing", set->name);
    }
}
END_TEST

START_TEST(rms_norm)
{
    const ferrum_kernel_set_t *set = fixture_set(_i);
    fixture_rng_t rng = {0x777u};
    if (!set)
        return;
    for (size_t l = 0; l < LENGTHS; l++) {
        const size_t n = lengths[l];
        float *x = random_row(&rng, n, 5), *w = random_row(&rng, n, 2),
              *out = random_row(&rng, n, 1);
        double squares = 0;
        for (size_t i = 0; i < n; i++)
            squares += (double)x[i] * (double)x[i];
        set->vector.rms_norm(x, w, 1e-6f, out, n);
        for (size_t i = 0; i < n; i++) {
            const double root = sqrt(squares / (double)n + (double)1e-6f);
            const double expected = (double)x[i] * (double)w[i] / root;
            CHECK_NEAR(set, "rms_norm", out[i], expected, (double)(n + 8) * U * fabs(expected));
        }
        set->vector.rms_norm(x, w, 1e-6f, x, n); /* in place */
        ck_assert_msg(memcmp(x, out, n * sizeof *x) == 0, "%s rms_norm in place", set->name);
        free_row(out, n);
        free_row(w, n);
        free_row(x, n);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {dot_and_linear_operations, silu_mul, silu_of_extreme_gates,
                                  exp_sum, rms_norm};
    return fixture_main("vector", tests, sizeof tests / sizeof tests[0]);
}
