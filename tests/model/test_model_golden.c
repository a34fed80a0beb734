/* SPDX-License-Identifier: MIT */
/* Logits of random models against transformers in float64, through every path of the experts and
 * of attention; and that neither path, threads, nor the way a prompt is cut changes a bit. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

/* Relative error of a row of logits. With plain f32 arithmetic only rounding is left; otherwise
 * each op may be off by what FERRUM_PRECISION_ACCURATE allows on a CPU, 5e-4, and logits are at the
 * end of a dozen of them. */
#define BOUND 2e-3
#define PLAIN_BOUND 1e-5

static ferrum_model_fixture_t fixture;
static ferrum_golden_t golden;
static ferrum_model_t *model;

static void open_golden(const char *name, uint32_t threads, const char *const *options)
{
    bool sharded = strcmp(name, "rand_gptq_sharded") == 0;
    ferrum_golden_load(sharded ? "rand_gptq" : name, &golden);
    if (sharded)
        ferrum_test_source_path("tests/golden/rand_gptq_sharded", golden.model);
    ferrum_fixture_open(&fixture, threads, options);
    model = ferrum_fixture_model(&fixture, golden.model, 64, 16);
}

static void close_golden(void)
{
    ferrum_model_free(model);
    ferrum_fixture_close(&fixture);
    ferrum_golden_free(&golden);
}

/* Logits at every position: prompt of @p first tokens, the rest one by one. */
static float *all_logits(uint32_t first)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    float *logits = malloc((size_t)golden.rows * golden.vocab * sizeof *logits);
    for (uint32_t i = 0; i < golden.rows; i++) {
        float *row = logits + (size_t)i * golden.vocab;
        ferrum_status_t status;
        if (i < first) { /* a prompt of its own for each row */
            status = ferrum_model_prefill(model, 2, golden.ids, i + 1, row, &err);
            if (i + 1 < first)
                ferrum_model_release(model, 2);
        } else if (i == 0) {
            status = ferrum_model_prefill(model, 2, golden.ids, 1, row, &err);
        } else {
            status = ferrum_model_decode(model, 2, golden.ids[i], row, &err);
        }
        ck_assert_msg(status == FERRUM_OK, "%s", err.message);
    }
    ferrum_model_release(model, 2);
    return logits;
}

static void check_rows(const char *what, const float *logits, double bound)
{
    for (uint32_t i = 0; i < golden.rows; i++) {
        size_t at = (size_t)i * golden.vocab;
        double error = ferrum_relative_error(logits + at, golden.logits + at, golden.vocab);
        ck_assert_msg(error < bound, "%s row %u: relative error %g", what, i, error);
    }
}

static const char *const names[] = {"rand_q",           "rand_q_nonorm", "rand_gptq",
                                    "rand_gptq_shared", "rand_gptq_v2",  "rand_gptq_sharded"};
enum {
    NAMES = sizeof names / sizeof names[0]
};

/* With the kernels of this machine, and with the plain ones, which hide no error of the flow. */
START_TEST(logits_match_transformers)
{
    const char *const scalar[] = {"FERRUM_CPU_MASK", "scalar", NULL};
    for (int plain = 0; plain < 2; plain++) {
        double bound = plain ? PLAIN_BOUND : BOUND;
        open_golden(names[_i], 2, plain ? scalar : NULL);
        float *decoded = all_logits(0), *prefilled = all_logits(golden.rows);
        check_rows("decode", decoded, bound);
        check_rows("prefill", prefilled, bound);
        free(decoded);
        free(prefilled);
        close_golden();
    }
}
END_TEST

static float *logits_with(const char *name, uint32_t threads, const char *option, const char *value)
{
    const char *const options[] = {option, value, NULL};
    open_golden(name, threads, option ? options : NULL);
    float *logits = all_logits(golden.rows / 2);
    return logits;
}

static void expect_same(const char *name, uint32_t threads, const char *option, const char *value)
{
    float *plain = logits_with(name, 2, NULL, NULL);
    close_golden();
    float *other = logits_with(name, threads, option, value);
    size_t bytes = (size_t)golden.rows * golden.vocab * sizeof *plain;
    double error = ferrum_relative_error(other, plain, bytes / sizeof *plain);
    ck_assert_msg(memcmp(plain, other, bytes) == 0, "%s with %s=%s on %u threads: differs by %g",
                  name, option ? option : "", option ? value : "", threads, error);
    free(plain);
    free(other);
    close_golden();
}

START_TEST(threads_do_not_matter)
{
    static const uint32_t widths[] = {1, 2, 3, 5, 8};
    expect_same("rand_q", widths[_i], NULL, NULL);
    expect_same("rand_gptq", widths[_i], NULL, NULL);
}
END_TEST

START_TEST(prompt_pieces_do_not_matter)
{
    static const char *const sizes[] = {"1", "2", "5", "7", "16", "23"};
    expect_same("rand_q", 2, "FERRUM_MAX_BATCHED_TOKENS", sizes[_i]);
    expect_same("rand_gptq_v2", 2, "FERRUM_MAX_BATCHED_TOKENS", sizes[_i]);
}
END_TEST

static const struct {
    const char *model, *path;
} expert_paths[] = {
    {"rand_q", "expert_ffn"},     {"rand_q", "stacked"},        {"rand_q", "per-pair"},
    {"rand_gptq", "expert_ffn"},  {"rand_gptq", "bucketed"},    {"rand_gptq", "per-pair"},
    {"rand_gptq_v2", "bucketed"}, {"rand_gptq_v2", "per-pair"},
};

START_TEST(expert_paths_agree)
{
    const char *const options[] = {"FERRUM_MOE_PATH", expert_paths[_i].path, NULL};
    open_golden(expert_paths[_i].model, 2, options);
    ferrum_model_info_t info = {.head = FERRUM_HEAD(ferrum_model_info_t)};
    ck_assert_int_eq(ferrum_model_get_info(model, &info, NULL), FERRUM_OK);
    ck_assert_str_eq(info.moe_path, expert_paths[_i].path);
    close_golden();
    expect_same(expert_paths[_i].model, 2, "FERRUM_MOE_PATH", expert_paths[_i].path);
}
END_TEST

START_TEST(impossible_paths_are_refused)
{
    static const struct {
        const char *model, *path;
    } cases[] = {{"rand_q", "bucketed"}, {"rand_gptq", "stacked"}};
    for (int i = 0; i < 2; i++) {
        const char *const options[] = {"FERRUM_MOE_PATH", cases[i].path, NULL};
        ferrum_error_t err;
        ferrum_golden_load(cases[i].model, &golden);
        ferrum_fixture_open(&fixture, 1, options);
        ck_assert_int_eq(ferrum_fixture_try(&fixture, golden.model, &err), FERRUM_UNSUPPORTED);
        ck_assert_msg(strstr(err.message, cases[i].path) != NULL, "%s", err.message);
        ferrum_fixture_close(&fixture);
        ferrum_golden_free(&golden);
    }
}
END_TEST

/* Attention through each set of ops; the cache is made anew for the other kind. */
static void force_attention(ferrum_attention_path_t path)
{
    ferrum_kv_shape_t shape = *ferrum_kv_cache_shape(model->kv);
    ferrum_model_free_scratch(model);
    memset(&model->scratch, 0, sizeof model->scratch);
    ferrum_kv_cache_free(model->kv);
    model->kv = NULL;
    shape.paged = path <= FERRUM_ATTENTION_PAGED;
    ck_assert_int_eq(ferrum_kv_cache_new(model->ops, &shape, &model->kv, NULL), FERRUM_OK);
    model->attention_path = path;
    model->attention.kv_seq_stride = shape.paged ? 0 : shape.capacity;
}

/* Requests of different lengths, one more token each. */
static void decode_requests(bool together, float *out_logits)
{
    enum {
        COUNT = 6
    };
    uint64_t ids[COUNT];
    uint32_t tokens[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        ids[i] = 10 + i;
        tokens[i] = golden.ids[3 + 2 * i];
        ck_assert_int_eq(
            ferrum_model_prefill(model, ids[i], golden.ids, 3 + 2 * i, out_logits, NULL),
            FERRUM_OK);
    }
    if (together)
        ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, COUNT, out_logits, NULL),
                         FERRUM_OK);
    for (uint32_t i = 0; i < COUNT; i++) {
        float *row = out_logits + (size_t)i * golden.vocab;
        if (!together)
            ck_assert_int_eq(ferrum_model_decode(model, ids[i], tokens[i], row, NULL), FERRUM_OK);
        ferrum_model_release(model, ids[i]);
        const float *want = golden.logits + (size_t)(3 + 2 * i) * golden.vocab;
        ck_assert(ferrum_relative_error(row, want, golden.vocab) < BOUND);
    }
}

static void check_batches(void)
{
    size_t bytes = (size_t)6 * golden.vocab * sizeof(float);
    float *batch = malloc(bytes), *single = malloc(bytes);
    decode_requests(true, batch);
    decode_requests(false, single);
    ck_assert_mem_eq(batch, single, bytes);
    free(batch);
    free(single);
}

START_TEST(attention_paths_agree)
{
    open_golden("rand_q", 2, NULL);
    ck_assert_int_eq(model->attention_path, FERRUM_ATTENTION_VARLEN);
    float *plain = all_logits(golden.rows / 2);
    check_batches();
    force_attention((ferrum_attention_path_t)_i);
    float *other = all_logits(golden.rows / 2);
    check_rows("other attention", other, BOUND);
    size_t count = (size_t)golden.rows * golden.vocab;
    ck_assert(ferrum_relative_error(other, plain, count) < 1e-6);
    check_batches();
    free(plain);
    free(other);
    close_golden();
}
END_TEST

START_TEST(cache_layouts_agree)
{
    const char *const options[] = {"FERRUM_USE_VLLM_PAGED_ATTN", "1", NULL};
    open_golden("rand_q", 2, options);
    ck_assert_int_eq(model->kv_layout, FERRUM_KV_LAYOUT_VLLM);
    check_batches();
    close_golden();
    open_golden("rand_q", 2, NULL);
    ck_assert_int_eq(model->kv_layout, FERRUM_KV_LAYOUT_FA);
    close_golden();
    expect_same("rand_q", 2, "FERRUM_USE_VLLM_PAGED_ATTN", "1");
    expect_same("rand_q", 2, "FERRUM_USE_VLLM_PAGED_ATTN", "0");
}
END_TEST

/* q, k and v that cannot be one Linear. */
START_TEST(separate_projections_agree)
{
    open_golden("rand_gptq_v2", 2, NULL);
    float *plain = all_logits(golden.rows / 2);
    for (uint32_t i = 0; i < model->config->layers; i++) {
        static const char *const parts[] = {"q_proj", "k_proj", "v_proj"};
        ferrum_model_layer_t *layer = &model->layers[i];
        uint32_t outputs[3] = {ferrum_model_q_dim(model), ferrum_model_kv_dim(model),
                               ferrum_model_kv_dim(model)};
        ck_assert_ptr_nonnull(layer->qkv);
        model->ops->linear->release(layer->qkv);
        layer->qkv = NULL;
        for (int p = 0; p < 3; p++) {
            char name[64];
            (void)snprintf(name, sizeof name, "model.layers.%u.self_attn.%s", i, parts[p]);
            ck_assert_int_eq(ferrum_weights_linear(&model->shared->weights, model->ops, name,
                                                   outputs[p], model->config->hidden,
                                                   &layer->parts[p], NULL),
                             FERRUM_OK);
        }
    }
    float *other = all_logits(golden.rows / 2);
    ck_assert_mem_eq(plain, other, (size_t)golden.rows * golden.vocab * sizeof *plain);
    check_batches();
    free(plain);
    free(other);
    close_golden();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_golden");
    TCase *tests = tcase_create("all");
    tcase_add_loop_test(tests, logits_match_transformers, 0, NAMES);
    tcase_add_loop_test(tests, threads_do_not_matter, 0, 5);
    tcase_add_loop_test(tests, prompt_pieces_do_not_matter, 0, 6);
    tcase_add_loop_test(tests, expert_paths_agree, 0,
                        (int)(sizeof expert_paths / sizeof expert_paths[0]));
    tcase_add_test(tests, impossible_paths_are_refused);
    tcase_add_loop_test(tests, attention_paths_agree, FERRUM_ATTENTION_PAGED,
                        FERRUM_ATTENTION_CHAIN + 1);
    tcase_add_test(tests, cache_layouts_agree);
    tcase_add_test(tests, separate_projections_agree);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
