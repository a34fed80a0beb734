/* SPDX-License-Identifier: MIT */
/* The sampler against exact distributions, its filters one by one, refusals. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "host/text/random.h"
#include "host/text/sampler.h"
#include "tests/support/expect.h"

enum {
    VOCAB = 8,
    DRAWS = 10000
};

static const float logits[VOCAB] = {1.0f, 3.0f, 2.0f, -1.0f, 3.0f, 0.0f, -INFINITY, 2.5f};

static ferrum_sampler_t *make(ferrum_sampler_params_t params)
{
    ferrum_sampler_t *sampler;
    EXPECT_OK(ferrum_sampler_new(&params, VOCAB, &sampler, &err));
    return sampler;
}

static ferrum_sampler_params_t params_of(float temperature)
{
    ferrum_sampler_params_t params = FERRUM_SAMPLER_PARAMS_DEFAULT;
    params.temperature = temperature;
    params.seed = 42;
    return params;
}

static int32_t sample(ferrum_sampler_t *sampler, const float *values)
{
    int32_t token = -1;
    EXPECT_OK(ferrum_sampler_sample(sampler, values, &token, &err));
    return token;
}

/* The order in which filters look at tokens: larger logit, then lower id. */
static void sort_ids(const float *values, int ids[VOCAB])
{
    for (int i = 0; i < VOCAB; i++)
        ids[i] = i;
    for (int i = 1; i < VOCAB; i++)
        for (int j = i; j > 0 && values[ids[j]] > values[ids[j - 1]]; j--) {
            int id = ids[j];
            ids[j] = ids[j - 1];
            ids[j - 1] = id;
        }
}

/* Exact probabilities, straight from the description in sampler.h, on a full sort. */
static void exact(const ferrum_sampler_params_t *params, const float *values, double *out)
{
    int ids[VOCAB];
    double weights[VOCAB];
    sort_ids(values, ids);
    double total = 0.0;
    for (int i = 0; i < VOCAB; i++) {
        out[i] = 0.0;
        weights[i] =
            exp(((double)values[ids[i]] - (double)values[ids[0]]) / (double)params->temperature);
    }
    int kept = params->top_k && params->top_k < VOCAB ? (int)params->top_k : VOCAB;
    for (int i = 0; i < kept; i++)
        total += weights[i];
    double running = 0.0;
    for (int i = 0; i < kept; i++) {
        running += weights[i];
        if (params->top_p < 1.0f && running >= total * (double)params->top_p)
            kept = i + 1;
    }
    total = 0.0;
    for (int i = 0; i < kept; i++)
        if (weights[i] >= (double)params->min_p)
            total += out[ids[i]] = weights[i];
    for (int i = 0; i < VOCAB; i++)
        out[i] /= total;
}

/*
 * Frequencies of many draws: each within five standard deviations, and nothing that has
 * probability zero is ever drawn.
 */
static void check_distribution(ferrum_sampler_params_t params)
{
    double wanted[VOCAB];
    int counts[VOCAB] = {0};
    ferrum_sampler_t *sampler = make(params);
    exact(&params, logits, wanted);
    for (int i = 0; i < DRAWS; i++) {
        int32_t token;
        /* A check of the framework costs more than a draw. */
        if (ferrum_sampler_sample(sampler, logits, &token, NULL) != FERRUM_OK)
            ck_abort_msg("draw %d failed", i);
        counts[token]++;
    }
    for (int i = 0; i < VOCAB; i++) {
        double sigma = sqrt(wanted[i] * (1.0 - wanted[i]) / DRAWS);
        double difference = fabs(counts[i] / (double)DRAWS - wanted[i]);
        ck_assert_msg(difference <= 5.0 * sigma + 1e-12, "token %d: %d of %d draws, wanted %g", i,
                      counts[i], DRAWS, wanted[i] * DRAWS);
    }
    ferrum_sampler_free(sampler);
}

START_TEST(draws_the_exact_distribution)
{
    static const float temperatures[] = {0.5f, 1.0f, 3.0f};
    static const uint32_t top_ks[] = {0, 1, 2, 3, 5, 8, 100};
    static const float top_ps[] = {1.0f, 0.05f, 0.5f, 0.9f, 0.999f};
    static const float min_ps[] = {0.0f, 0.1f, 0.6f, 1.0f};
    for (size_t t = 0; t < 3; t++)
        for (size_t k = 0; k < 7; k++)
            for (size_t p = 0; p < 5; p++)
                for (size_t m = 0; m < 4; m++) {
                    /* Every combination on one temperature, single filters on the others. */
                    if (t != 1 && (k != 0) + (p != 0) + (m != 0) > 1)
                        continue;
                    ferrum_sampler_params_t params = params_of(temperatures[t]);
                    params.top_k = top_ks[k];
                    params.top_p = top_ps[p];
                    params.min_p = min_ps[m];
                    check_distribution(params);
                }
}
END_TEST

START_TEST(greedy_takes_the_lowest_of_equals)
{
    ferrum_sampler_t *sampler = make(params_of(0.0f));
    static const float equal[VOCAB] = {0};
    static const float masked[VOCAB] = {-INFINITY, -INFINITY, -INFINITY, -5.0f,
                                        -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    ck_assert_int_eq(sample(sampler, logits), 1);
    ck_assert_int_eq(sample(sampler, equal), 0);
    ck_assert_int_eq(sample(sampler, masked), 3);
    ferrum_sampler_free(sampler);
}
END_TEST

START_TEST(the_same_seed_gives_the_same_tokens)
{
    ferrum_sampler_params_t params = params_of(1.0f);
    params.top_p = 0.9f;
    ferrum_sampler_t *a = make(params);
    ferrum_sampler_t *b = make(params);
    params.seed++;
    ferrum_sampler_t *c = make(params);
    int32_t first[200];
    int different = 0;
    for (int i = 0; i < 200; i++) {
        first[i] = sample(a, logits);
        ck_assert_int_eq(first[i], sample(b, logits));
        different += first[i] != sample(c, logits);
    }
    ck_assert_int_gt(different, 20);
    ferrum_sampler_reset(a, 42);
    for (int i = 0; i < 200; i++)
        ck_assert_int_eq(first[i], sample(a, logits));
    ferrum_sampler_free(a);
    ferrum_sampler_free(b);
    ferrum_sampler_free(c);
}
END_TEST

/* First outputs for state 1, 2, 3, 4, worked out by hand from the published algorithm. */
START_TEST(the_generator_is_the_documented_one)
{
    ferrum_random_t random = {{1, 2, 3, 4}};
    ck_assert(ferrum_random_next(&random) == 11520);
    ck_assert(ferrum_random_next(&random) == 0);
    ck_assert(ferrum_random_next(&random) == 1509978240);
    uint64_t state = 0;
    ck_assert(ferrum_random_splitmix(&state) == 0xe220a8397b1dcdafu);
    for (int i = 0; i < 1000; i++) {
        double unit = ferrum_random_unit(&random);
        ck_assert(unit >= 0.0 && unit < 1.0);
    }
}
END_TEST

START_TEST(the_penalty_counts_the_window)
{
    static const float values[VOCAB] = {4.0f, 3.0f, 2.0f, 1.0f, -1.0f, -1.5f, -9.0f, -9.0f};
    ferrum_sampler_params_t params = params_of(0.0f);
    params.repetition_penalty = 3.0f;
    params.repetition_window = 2;
    ferrum_sampler_t *sampler = make(params);
    ck_assert_int_eq(sample(sampler, values), 0);
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err)); /* 4 / 3 */
    ck_assert_int_eq(sample(sampler, values), 1);
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err)); /* twice counts once */
    ck_assert_int_eq(sample(sampler, values), 1);
    EXPECT_OK(ferrum_sampler_accept(sampler, 1, &err)); /* window 0, 1 */
    ck_assert_int_eq(sample(sampler, values), 2);
    EXPECT_OK(ferrum_sampler_accept(sampler, 2, &err)); /* window 1, 2: 0 is free again */
    ck_assert_int_eq(sample(sampler, values), 0);
    ferrum_sampler_reset(sampler, 0);
    ck_assert_int_eq(sample(sampler, values), 0);

    /* A token that has left the window wins again over one that never was in it. */
    static const float close[VOCAB] = {4.0f, 3.0f, 2.0f, 1.9f, -9.0f, -9.0f, -9.0f, -9.0f};
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err));
    EXPECT_OK(ferrum_sampler_accept(sampler, 5, &err));
    ck_assert_int_eq(sample(sampler, close), 1);
    EXPECT_OK(ferrum_sampler_accept(sampler, 5, &err));
    ck_assert_int_eq(sample(sampler, close), 0);
    ferrum_sampler_reset(sampler, 0);

    /* Negative logits are multiplied. */
    static const float negative[VOCAB] = {-1.0f, -2.0f, -9.0f, -9.0f, -9.0f, -9.0f, -9.0f, -9.0f};
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err));
    ck_assert_int_eq(sample(sampler, negative), 1);
    EXPECT_FAILS(ferrum_sampler_accept(sampler, VOCAB, &err), FERRUM_INVALID_ARGUMENT, "8");
    EXPECT_FAILS(ferrum_sampler_accept(sampler, -1, &err), FERRUM_INVALID_ARGUMENT, "-1");
    ferrum_sampler_free(sampler);
}
END_TEST

/* A penalty can push a logit over the largest float; it stays finite and wins or loses as it must.
 */
START_TEST(extreme_penalties_stay_finite)
{
    static const float values[VOCAB] = {1e30f, -1e30f, 0, 0, 0, 0, 0, 0};
    ferrum_sampler_params_t params = params_of(1.0f);
    params.repetition_penalty = 1e-30f;
    ferrum_sampler_t *sampler = make(params);
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err));
    EXPECT_OK(ferrum_sampler_accept(sampler, 1, &err));
    ck_assert_int_eq(sample(sampler, values), 0);
    ferrum_sampler_free(sampler);

    /* Nor does it mask the only token that is left. */
    static const float only[VOCAB] = {-1e30f,    -INFINITY, -INFINITY, -INFINITY,
                                      -INFINITY, -INFINITY, -INFINITY, -INFINITY};
    params.repetition_penalty = 1e30f;
    sampler = make(params);
    EXPECT_OK(ferrum_sampler_accept(sampler, 0, &err));
    ck_assert_int_eq(sample(sampler, only), 0);
    ferrum_sampler_free(sampler);
}
END_TEST

START_TEST(refuses_logits_that_are_no_numbers)
{
    static const float temperatures[] = {0.0f, 1.0f};
    for (size_t t = 0; t < 2; t++) {
        ferrum_sampler_t *sampler = make(params_of(temperatures[t]));
        float values[VOCAB] = {0};
        int32_t token = -7;
        values[5] = NAN;
        EXPECT_FAILS(ferrum_sampler_sample(sampler, values, &token, &err), FERRUM_INVALID_INPUT,
                     "token 5");
        values[5] = INFINITY;
        EXPECT_FAILS(ferrum_sampler_sample(sampler, values, &token, &err), FERRUM_INVALID_INPUT,
                     "token 5");
        for (int i = 0; i < VOCAB; i++)
            values[i] = -INFINITY;
        EXPECT_FAILS(ferrum_sampler_sample(sampler, values, &token, &err), FERRUM_INVALID_INPUT,
                     "minus infinity");
        ck_assert_int_eq(token, -7);
        ferrum_sampler_free(sampler);
    }
}
END_TEST

START_TEST(refuses_settings_out_of_range)
{
    static const struct {
        ferrum_sampler_params_t params;
        const char *text;
    } cases[] = {
        {{-1.0f, 0, 1.0f, 0.0f, 1.0f, 0, 0}, "temperature"},
        {{NAN, 0, 1.0f, 0.0f, 1.0f, 0, 0}, "temperature"},
        {{INFINITY, 0, 1.0f, 0.0f, 1.0f, 0, 0}, "temperature"},
        {{1.0f, 0, 0.0f, 0.0f, 1.0f, 0, 0}, "top-p"},
        {{1.0f, 0, 1.1f, 0.0f, 1.0f, 0, 0}, "top-p"},
        {{1.0f, 0, 1.0f, -0.1f, 1.0f, 0, 0}, "min-p"},
        {{1.0f, 0, 1.0f, NAN, 1.0f, 0, 0}, "min-p"},
        {{1.0f, 0, 1.0f, 0.0f, 0.0f, 0, 0}, "repetition penalty"},
        {{1.0f, 0, 1.0f, 0.0f, 1.0f, 1u << 21, 0}, "repetition window"},
    };
    ferrum_sampler_t *sampler = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        EXPECT_FAILS(ferrum_sampler_new(&cases[i].params, VOCAB, &sampler, &err),
                     FERRUM_INVALID_ARGUMENT, cases[i].text);
    ferrum_sampler_params_t fine = FERRUM_SAMPLER_PARAMS_DEFAULT;
    EXPECT_FAILS(ferrum_sampler_new(&fine, 0, &sampler, &err), FERRUM_INVALID_ARGUMENT,
                 "vocabulary");
    EXPECT_FAILS(ferrum_sampler_new(&fine, 1u << 25, &sampler, &err), FERRUM_INVALID_ARGUMENT,
                 "vocabulary");
    ck_assert_ptr_null(sampler);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tests = tcase_create("sampler");
    tcase_add_test(tests, draws_the_exact_distribution);
    tcase_add_test(tests, greedy_takes_the_lowest_of_equals);
    tcase_add_test(tests, the_same_seed_gives_the_same_tokens);
    tcase_add_test(tests, the_generator_is_the_documented_one);
    tcase_add_test(tests, the_penalty_counts_the_window);
    tcase_add_test(tests, extreme_penalties_stay_finite);
    tcase_add_test(tests, refuses_logits_that_are_no_numbers);
    tcase_add_test(tests, refuses_settings_out_of_range);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
