/* SPDX-License-Identifier: MIT */
/* Top-k routing on the host against worked cases and an f64 softmax. */
#include <ferrum/moe.h>

#include "host/moe/router.h"
#include "tests/moe/random.h"
#include "tests/support/expect.h"

#include <math.h>
#include <stdlib.h>

static ferrum_router_output_t routed(const float *logits, uint32_t batch, uint32_t experts,
                                     uint32_t top_k, bool norm)
{
    ferrum_router_output_t output = {0};
    EXPECT_OK(ferrum_route(logits, (uint64_t)batch * experts, batch, experts, top_k, norm, &output,
                           &err));
    ck_assert_uint_eq(output.batch, batch);
    ck_assert_uint_eq(output.top_k, top_k);
    return output;
}

static void fill_random(uint64_t seed, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = lcg_float(&seed, -3.0f, 3.0f);
}

START_TEST(one_of_four)
{
    const float logits[] = {0.0f, 0.5f, 5.0f, 0.1f};
    ferrum_router_output_t out = routed(logits, 1, 4, 1, true);
    ck_assert_uint_eq(out.expert_ids[0], 2);
    ck_assert_float_eq_tol(out.expert_weights[0], 1.0f, 1e-6f);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(two_of_four)
{
    const float logits[] = {0.0f, 5.0f, 1.0f, 0.0f};
    double sum = 2.0 + exp(5.0) + exp(1.0);
    ferrum_router_output_t plain = routed(logits, 1, 4, 2, false);
    ck_assert_uint_eq(plain.expert_ids[0], 1);
    ck_assert_uint_eq(plain.expert_ids[1], 2);
    ck_assert_double_eq_tol(plain.expert_weights[0], exp(5.0) / sum, 1e-5);
    ck_assert_double_eq_tol(plain.expert_weights[1], exp(1.0) / sum, 1e-5);
    ferrum_router_output_t normed = routed(logits, 1, 4, 2, true);
    ck_assert_float_eq_tol(normed.expert_weights[0] + normed.expert_weights[1], 1.0f, 1e-5f);
    ferrum_router_output_free(&plain);
    ferrum_router_output_free(&normed);
}
END_TEST

START_TEST(equal_logits)
{
    const float logits[8] = {0};
    ferrum_router_output_t out = routed(logits, 1, 4, 2, false);
    ck_assert_float_eq_tol(out.expert_weights[0] + out.expert_weights[1], 0.5f, 1e-5f);
    ferrum_router_output_free(&out);
    out = routed(logits, 1, 8, 2, false);
    ck_assert_uint_eq(out.expert_ids[0], 0); /* the lower index wins a tie */
    ck_assert_uint_eq(out.expert_ids[1], 1);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(rows_are_independent)
{
    const float logits[] = {0.0f, 4.0f, 1.0f, 0.0f, 0.0f, 1.0f, 2.0f, 9.0f};
    ferrum_router_output_t out = routed(logits, 2, 4, 1, true);
    ck_assert_uint_eq(out.expert_ids[0], 1);
    ck_assert_uint_eq(out.expert_ids[1], 3);
    ck_assert_float_eq_tol(out.expert_weights[0], 1.0f, 1e-6f);
    ck_assert_float_eq_tol(out.expert_weights[1], 1.0f, 1e-6f);
    ferrum_router_output_free(&out);
    out = routed(logits, 2, 4, 2, true);
    ck_assert_uint_eq(out.expert_ids[0], 1); /* row stride is top_k */
    ck_assert_uint_eq(out.expert_ids[2], 3);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(all_experts)
{
    const float logits[] = {1.0f, 2.0f, 3.0f, 4.0f};
    ferrum_router_output_t out = routed(logits, 1, 4, 4, true);
    float sum = 0.0f;
    for (int i = 0; i < 4; i++)
        sum += out.expert_weights[i];
    ck_assert_float_eq_tol(sum, 1.0f, 1e-5f);
    ck_assert_uint_eq(out.expert_ids[0], 3);
    for (int i = 1; i < 4; i++)
        ck_assert_float_lt(out.expert_weights[i], out.expert_weights[i - 1]);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(refusals)
{
    const float logits[8] = {0};
    ferrum_router_output_t out = {0};
    float probs[4], weights[8];
    int32_t ids[8];
    EXPECT_FAILS(ferrum_route(logits, 4, 1, 4, 0, true, &out, &err), FERRUM_INVALID_ARGUMENT,
                 "top_k must be > 0");
    EXPECT_FAILS(ferrum_route(logits, 4, 1, 4, 5, true, &out, &err), FERRUM_INVALID_ARGUMENT,
                 "exceeds num_experts");
    EXPECT_FAILS(ferrum_route(logits, 7, 1, 4, 2, true, &out, &err), FERRUM_INVALID_ARGUMENT,
                 "shape mismatch");
    EXPECT_FAILS(ferrum_moe_route(logits, 4, 1, 4, 0, 1, probs, ids, weights, &err),
                 FERRUM_INVALID_ARGUMENT, "top_k must be > 0");
    EXPECT_FAILS(ferrum_moe_route(logits, 4, 1, 4, 5, 1, probs, ids, weights, &err),
                 FERRUM_INVALID_ARGUMENT, "exceeds num_experts");
    EXPECT_FAILS(ferrum_moe_route(logits, 7, 2, 4, 1, 1, probs, ids, weights, &err),
                 FERRUM_INVALID_ARGUMENT, "shape mismatch");
    EXPECT_FAILS(ferrum_moe_route(NULL, 4, 1, 4, 1, 1, probs, ids, weights, &err),
                 FERRUM_INVALID_ARGUMENT, "needs logits");
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(non_finite)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float logits[12] = {0};
    ferrum_router_output_t out = {0};
    logits[2 * 4 + 1] = bad[_i];
    EXPECT_FAILS(ferrum_route(logits, 12, 3, 4, 2, true, &out, &err), FERRUM_INVALID_INPUT,
                 "row 2");
    ferrum_error_t err = FERRUM_ERROR_INIT;
    float probs[4], weights[6];
    int32_t ids[6];
    ck_assert_int_eq(ferrum_moe_route(logits, 12, 3, 4, 2, 1, probs, ids, weights, &err),
                     FERRUM_INVALID_INPUT);
    ck_assert_uint_eq(err.reason, FERRUM_REASON_NON_FINITE);
    ferrum_router_output_free(&out);
}
END_TEST

START_TEST(extreme_logits)
{
    /* exp underflows for all but one; the weights still sum to 1 and nothing is NaN. */
    const float logits[] = {-3e38f, 3e38f, -3e38f, -3e38f};
    ferrum_router_output_t out = routed(logits, 1, 4, 2, true);
    ck_assert_uint_eq(out.expert_ids[0], 1);
    ck_assert_uint_eq(out.expert_ids[1], 0);
    ck_assert_float_eq(out.expert_weights[0], 1.0f);
    ck_assert_float_eq(out.expert_weights[1], 0.0f);
    ferrum_router_output_free(&out);
}
END_TEST

static const struct shape {
    uint32_t batch, experts, top_k;
    bool norm;
} shapes[] = {{32, 128, 8, true}, {1, 128, 8, true}, {64, 128, 8, true},
              {8, 64, 4, false},  {4, 16, 1, true},  {4, 16, 1, false},
              {0, 16, 2, true},   {3, 1, 1, true},   {5, 512, 32, true}};

/* Same bits from fresh, reused and public forms, and the weights of an f64 softmax. */
START_TEST(forms_agree)
{
    const struct shape *s = &shapes[_i];
    size_t count = (size_t)s->batch * s->experts, pairs = (size_t)s->batch * s->top_k;
    float *logits = malloc((count + 1) * sizeof *logits);
    float *probs = malloc(s->experts * sizeof *probs);
    int32_t *ids = malloc((pairs + 1) * sizeof *ids);
    float *weights = malloc((pairs + 1) * sizeof *weights);
    fill_random(17 + (uint64_t)_i, logits, count);
    ferrum_router_output_t fresh = routed(logits, s->batch, s->experts, s->top_k, s->norm);
    ferrum_router_output_t reused = {0};
    EXPECT_OK(ferrum_router_output_reset(&reused, 100, 40, &err));
    for (int i = 0; i < 4000; i++)
        reused.expert_ids[i] = 77;
    EXPECT_OK(ferrum_route_into(logits, count, s->batch, s->experts, s->top_k, s->norm, probs,
                                &reused, &err));
    EXPECT_OK(ferrum_moe_route(logits, count, s->batch, s->experts, s->top_k, s->norm, probs, ids,
                               weights, &err));
    ck_assert_mem_eq(fresh.expert_ids, reused.expert_ids, pairs * sizeof *ids);
    ck_assert_mem_eq(fresh.expert_weights, reused.expert_weights, pairs * sizeof *weights);
    ck_assert_mem_eq(fresh.expert_ids, ids, pairs * sizeof *ids);
    ck_assert_mem_eq(fresh.expert_weights, weights, pairs * sizeof *weights);
    for (uint32_t b = 0; b < s->batch; b++) {
        const float *row = logits + (size_t)b * s->experts;
        double all = 0.0, picked = 0.0;
        for (uint32_t e = 0; e < s->experts; e++)
            all += exp((double)row[e]);
        for (uint32_t j = 0; j < s->top_k; j++)
            picked += exp((double)row[ids[b * s->top_k + j]]);
        for (uint32_t j = 0; j < s->top_k; j++) {
            double want = exp((double)row[ids[b * s->top_k + j]]) / (s->norm ? picked : all);
            ck_assert_double_eq_tol(weights[b * s->top_k + j], want, 1e-6);
        }
    }
    ferrum_router_output_free(&fresh);
    ferrum_router_output_free(&reused);
    free(logits);
    free(probs);
    free(ids);
    free(weights);
}
END_TEST

START_TEST(no_growth_once_warm)
{
    static float logits[32 * 128], probs[128];
    ferrum_router_output_t out = {0};
    fill_random(5, logits, 32 * 128);
    EXPECT_OK(ferrum_route_into(logits, 32 * 128, 32, 128, 8, true, probs, &out, &err));
    const void *ids = out.expert_ids, *weights = out.expert_weights;
    uint64_t ids_bytes = out.ids_store.bytes, weights_bytes = out.weights_store.bytes;
    for (int i = 0; i < 16; i++) {
        fill_random((uint64_t)i, logits, 32 * 128);
        EXPECT_OK(ferrum_route_into(logits, 32 * 128, 32, 128, 8, true, probs, &out, &err));
        ck_assert_ptr_eq(out.expert_ids, ids);
        ck_assert_ptr_eq(out.expert_weights, weights);
        ck_assert_uint_eq(out.ids_store.bytes, ids_bytes);
        ck_assert_uint_eq(out.weights_store.bytes, weights_bytes);
    }
    ferrum_router_output_free(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("router");
    TCase *tcase = tcase_create("route");
    tcase_add_test(tcase, one_of_four);
    tcase_add_test(tcase, two_of_four);
    tcase_add_test(tcase, equal_logits);
    tcase_add_test(tcase, rows_are_independent);
    tcase_add_test(tcase, all_experts);
    tcase_add_test(tcase, refusals);
    tcase_add_loop_test(tcase, non_finite, 0, 3);
    tcase_add_test(tcase, extreme_logits);
    tcase_add_loop_test(tcase, forms_agree, 0, sizeof shapes / sizeof shapes[0]);
    tcase_add_test(tcase, no_growth_once_warm);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
