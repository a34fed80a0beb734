/* SPDX-License-Identifier: MIT */
/* The MoE block of one layer from a synthesised GGUF file: E 4, h 4, I 6, k 2. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/qwen3_moe_layer.h"
#include "tests/model/model_fixture.h"
#include "tests/support/gguf_writer.h"

enum {
    E = 4,
    H = 4,
    I = 6
};

static ferrum_test_path_t folder, path;
static ferrum_model_fixture_t fixture;
static ferrum_session_t *session;
static ferrum_gguf_t *gguf;
static ferrum_qwen3_moe_layer_t layer;
static ferrum_error_t err;
static ferrum_model_config_t config;

static float router[E * H], gate[E * I * H], up[E * I * H], down[E * H * I];

static void set_up(void)
{
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "layer.gguf", path);
    ferrum_fixture_open(&fixture, 1, NULL);
    ck_assert_int_eq(ferrum_session_new(fixture.runtime, 1, &session, NULL), FERRUM_OK);
    err = (ferrum_error_t)FERRUM_ERROR_INIT;
    memset(&layer, 0, sizeof layer);
    gguf = NULL;
    config = (ferrum_model_config_t){.hidden = H,
                                     .experts = E,
                                     .experts_used = 2,
                                     .expert_intermediate = I,
                                     .norm_topk_prob = true};
    uint64_t state = 11;
    float *const all[] = {router, gate, up, down};
    const size_t counts[] = {E * H, E * I * H, E * I * H, E * H * I};
    for (int t = 0; t < 4; t++) {
        for (size_t i = 0; i < counts[t]; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            all[t][i] = (float)(state >> 40) / (float)(1 << 23) - 1.0f;
        }
    }
}

static void tear_down(void)
{
    ferrum_qwen3_moe_layer_free(&layer);
    ferrum_gguf_close(gguf);
    ferrum_session_free(session);
    ferrum_fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

static ferrum_status_t load(bool with_router)
{
    ferrum_gguf_writer_t *w = ferrum_gguf_writer_new();
    ferrum_gguf_writer_string(w, "general.architecture", "qwen3moe");
    if (with_router)
        ferrum_gguf_writer_tensor(w, "blk.0.ffn_gate_inp.weight", FERRUM_FORMAT_F32, 2,
                                  (uint64_t[]){H, E}, router, sizeof router);
    ferrum_gguf_writer_tensor(w, "blk.0.ffn_gate_exps.weight", FERRUM_FORMAT_F32, 3,
                              (uint64_t[]){H, I, E}, gate, sizeof gate);
    ferrum_gguf_writer_tensor(w, "blk.0.ffn_up_exps.weight", FERRUM_FORMAT_F32, 3,
                              (uint64_t[]){H, I, E}, up, sizeof up);
    ferrum_gguf_writer_tensor(w, "blk.0.ffn_down_exps.weight", FERRUM_FORMAT_F32, 3,
                              (uint64_t[]){I, H, E}, down, sizeof down);
    ferrum_gguf_writer_save(w, path);
    ferrum_gguf_writer_free(w);
    ck_assert_int_eq(ferrum_gguf_open(path, &gguf, &err), FERRUM_OK);
    return ferrum_qwen3_moe_layer_load(ferrum_runtime_ops(fixture.runtime), gguf, 0, &config,
                                       &layer, &err);
}

static ferrum_status_t forward(const float *x, uint64_t count, uint32_t batch, float *out)
{
    return ferrum_qwen3_moe_layer_forward(ferrum_session_context(session), &layer, x, count, batch,
                                          out, &err);
}

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

/* The block in f64. */
static void oracle(const float *x, double *out)
{
    double score[E], sum = 0, weight[2];
    int chosen[2];
    for (int e = 0; e < E; e++) {
        score[e] = 0;
        for (int i = 0; i < H; i++)
            score[e] += (double)router[e * H + i] * (double)x[i];
        score[e] = exp(score[e]);
    }
    for (int slot = 0; slot < 2; slot++) {
        chosen[slot] = 0;
        for (int e = 1; e < E; e++)
            if (score[e] > score[chosen[slot]])
                chosen[slot] = e;
        weight[slot] = score[chosen[slot]];
        sum += weight[slot];
        score[chosen[slot]] = -1;
    }
    memset(out, 0, H * sizeof *out);
    for (int slot = 0; slot < 2; slot++) {
        int e = chosen[slot];
        for (int j = 0; j < I; j++) {
            double g = 0, u = 0;
            for (int i = 0; i < H; i++) {
                g += (double)gate[(e * I + j) * H + i] * (double)x[i];
                u += (double)up[(e * I + j) * H + i] * (double)x[i];
            }
            for (int i = 0; i < H; i++)
                out[i] += weight[slot] / sum * silu(g) * u * (double)down[(e * H + i) * I + j];
        }
    }
}

START_TEST(matches_f64)
{
    static const float x[3 * H] = {1, -0.5f, 0.25f, 2, 0, 0, 0, 0, -1, 1.5f, 0.3f, -0.7f};
    float out[3 * H + 1];
    ck_assert_msg(load(true) == FERRUM_OK, "%s", err.message);
    out[3 * H] = 77;
    ck_assert_msg(forward(x, 3 * H, 3, out) == FERRUM_OK, "%s", err.message);
    for (int row = 0; row < 3; row++) {
        double want[H];
        oracle(x + row * H, want);
        for (int i = 0; i < H; i++)
            ck_assert(fabs((double)out[row * H + i] - want[i]) < 1e-5);
    }
    ck_assert(out[3 * H] == 77);
    ck_assert_int_eq(forward(x, 0, 0, out), FERRUM_OK);
}
END_TEST

START_TEST(refusals)
{
    float x[H] = {0}, out[H];
    ck_assert_int_eq(load(true), FERRUM_OK);
    ck_assert_int_eq(forward(x, H - 1, 1, out), FERRUM_INVALID_ARGUMENT);
    x[1] = NAN;
    ck_assert_int_eq(forward(x, H, 1, out), FERRUM_INVALID_INPUT);
}
END_TEST

START_TEST(missing_router)
{
    ck_assert_int_eq(load(false), FERRUM_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.message, "blk.0.ffn_gate_inp.weight"));
}
END_TEST

START_TEST(wrong_hidden)
{
    config.hidden = 8;
    ck_assert_int_eq(load(true), FERRUM_INVALID_INPUT);
    ck_assert_ptr_nonnull(strstr(err.message, "ffn_gate_inp"));
}
END_TEST

/* One expert, chosen by a strong router, whose matrices pass one value through: silu(7) * 7. */
START_TEST(single_expert_passes_through)
{
    static const float x[H] = {7, 0, 0, 0};
    float out[H];
    config.experts_used = 1;
    memset(router, 0, sizeof router);
    memset(gate, 0, sizeof gate);
    memset(up, 0, sizeof up);
    memset(down, 0, sizeof down);
    router[2 * H] = 10;
    gate[2 * I * H] = 1;
    up[2 * I * H] = 1;
    down[2 * H * I] = 1;
    ck_assert_int_eq(load(true), FERRUM_OK);
    ck_assert_int_eq(forward(x, H, 1, out), FERRUM_OK);
    ck_assert(fabs((double)out[0] - silu(7) * 7) < 1e-3);
    for (int i = 1; i < H; i++)
        ck_assert(fabsf(out[i]) < 1e-6f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_layer");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, matches_f64);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, missing_router);
    tcase_add_test(tests, wrong_hidden);
    tcase_add_test(tests, single_expert_passes_through);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
