/* SPDX-License-Identifier: MIT */
/* The state machine of captured decode steps: with a backend that has no graphs, and with a fake
 * one that records, forgets, or fails at each of its steps. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_fixture.h"

enum {
    COUNT = 5
};

static ferrum_test_path_t folder, path;
static ferrum_model_fixture_t fixture;
static ferrum_model_t *model;
static const uint64_t ids[COUNT] = {100, 101, 102, 103, 104};

/* ---- a backend with graphs: while it records nothing runs, a replay runs the recorded calls ----
 */

typedef struct fake {
    const ferrum_quant_llm_ops_t *real_quant;
    const ferrum_linear_ops_t *real_linear;
    ferrum_quant_llm_ops_t quant;
    ferrum_linear_ops_t linear;
    bool recording;
    int begins, ends, replays, resets;
    int fail_begin, fail_end, fail_replay, fail_linear; /* fail that call, counted from 1 */
    int forget;                                         /* replays find nothing */
    ferrum_graph_key_t key;
    float residual[COUNT * SYNTH_HIDDEN]; /* as it was before recording, which executes nothing */
} fake_t;
static fake_t fake;

/* As much of the residual as there is room for rows. */
static uint64_t residual_count(void)
{
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    ck_assert_int_eq(model->ops->backend->buffer_info(model->scratch.residual.buffer, &info, NULL),
                     FERRUM_OK);
    return info.count < COUNT * SYNTH_HIDDEN ? info.count : COUNT * SYNTH_HIDDEN;
}

static ferrum_status_t fake_begin(ferrum_context_t *ctx, ferrum_error_t *err)
{
    if (++fake.begins == fake.fail_begin)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "begin fails");
    fake.recording = true;
    return model->ops->backend->buffer_read_f32(ctx, model->scratch.residual.buffer, 0,
                                                fake.residual, residual_count(), err);
}

static ferrum_status_t fake_end(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                ferrum_error_t *err)
{
    fake.recording = false;
    fake.key = *key;
    if (++fake.ends == fake.fail_end) /* and leaves the buffers as it likes */
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "end fails");
    return model->ops->backend->buffer_write_f32(ctx, model->scratch.residual.buffer, 0,
                                                 fake.residual, residual_count(), err);
}

/* The recorded step is always the whole pass over the first requests in model->batch. */
static ferrum_status_t fake_replay(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                   uint32_t *out_launched, ferrum_error_t *err)
{
    (void)ctx;
    ck_assert_uint_eq(key->model, model->number);
    ck_assert(key->shape == COUNT || key->shape == 1);
    if (++fake.replays == fake.fail_replay)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "replay fails");
    *out_launched = !fake.forget;
    if (fake.forget)
        return FERRUM_OK;
    const uint32_t rows = (uint32_t)key->shape;
    ferrum_pass_t pass = {.rows = rows,
                          .used = rows,
                          .num_sequences = rows,
                          .sequences = model->batch,
                          .decode = true};
    ck_assert_int_eq(ferrum_model_run_layers(model, &pass, err), FERRUM_OK);
    return ferrum_model_run_head(model, 0, rows, 0, err);
}

static ferrum_status_t fake_reset(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                  ferrum_error_t *err)
{
    (void)ctx;
    (void)key;
    (void)err;
    fake.resets++;
    return FERRUM_OK;
}

static ferrum_status_t fake_reset_all(ferrum_context_t *ctx, ferrum_error_t *err)
{
    return fake_reset(ctx, NULL, err);
}

/* Without the linear layers nothing of a step happens: stale logits would show. */
static ferrum_status_t fake_forward(ferrum_context_t *ctx, const ferrum_linear_t *linear,
                                    const ferrum_buffer_t *x, uint64_t x_offset, ferrum_buffer_t *y,
                                    uint64_t y_offset, uint32_t m, ferrum_error_t *err)
{
    if (fake.recording && fake.fail_linear && --fake.fail_linear == 0)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "recording fails");
    if (fake.recording)
        return FERRUM_OK;
    return fake.real_linear->forward(ctx, linear, x, x_offset, y, y_offset, m, err);
}

static void install_fake(void)
{
    memset(&fake, 0, sizeof fake);
    fake.real_quant = model->ops->quant;
    fake.real_linear = model->ops->linear;
    fake.quant = *model->ops->quant;
    fake.linear = *model->ops->linear;
    fake.quant.graph_begin = fake_begin;
    fake.quant.graph_end = fake_end;
    fake.quant.graph_replay = fake_replay;
    fake.quant.graph_reset = fake_reset;
    fake.quant.graph_reset_all = fake_reset_all;
    fake.linear.forward = fake_forward;
    model->ops->quant = &fake.quant;
    model->ops->linear = &fake.linear;
}

static void remove_fake(void)
{
    model->ops->quant = fake.real_quant;
    model->ops->linear = fake.real_linear;
}

/* ---- */

static void open_with(const char *value)
{
    const char *options[] = {"FERRUM_MOE_GRAPH", value, "FERRUM_VLLM_MOE", "1", NULL};
    ferrum_test_make_directory(folder);
    ferrum_test_join(folder, "model.gguf", path);
    ferrum_synth_write(path, NULL);
    ferrum_fixture_open(&fixture, 1, options);
    model = ferrum_fixture_model(&fixture, path, 0, 0);
}

static void tear_down(void)
{
    ferrum_model_free(model);
    ferrum_fixture_close(&fixture);
    ferrum_test_remove_directory(folder);
}

static void start_requests(void)
{
    static const uint32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 8};
    float logits[SYNTH_VOCAB];
    for (uint32_t i = 0; i < COUNT; i++)
        ck_assert_int_eq(ferrum_model_prefill(model, ids[i], prompt + i, 3, logits, NULL),
                         FERRUM_OK);
}

static ferrum_status_t decode_step(int step, float *logits)
{
    uint32_t tokens[COUNT];
    for (uint32_t i = 0; i < COUNT; i++)
        tokens[i] = (uint32_t)(step * 3 + (int)i * 7) % SYNTH_VOCAB;
    return ferrum_model_decode_batch(model, ids, tokens, COUNT, logits, NULL);
}

/* Logits of @p steps steps without graphs. */
static float *baseline(int steps)
{
    size_t each = (size_t)COUNT * SYNTH_VOCAB;
    float *logits = calloc((size_t)steps * each, sizeof *logits);
    open_with("0");
    start_requests();
    for (int i = 0; i < steps; i++)
        ck_assert_int_eq(decode_step(i, logits + (size_t)i * each), FERRUM_OK);
    ck_assert_uint_eq(model->graph.warmups, 0);
    tear_down();
    return logits;
}

static void run_and_compare(const float *expected, int first, int steps)
{
    size_t each = (size_t)COUNT * SYNTH_VOCAB;
    float logits[COUNT * SYNTH_VOCAB];
    for (int i = first; i < first + steps; i++) {
        ck_assert_int_eq(decode_step(i, logits), FERRUM_OK);
        ck_assert_msg(memcmp(logits, expected + (size_t)i * each, sizeof logits) == 0,
                      "step %d differs", i);
    }
}

START_TEST(no_graphs_on_cpu)
{
    float *expected = baseline(6);
    open_with("1");
    ck_assert(model->graph.wanted);
    start_requests();
    run_and_compare(expected, 0, 1);
    ck_assert_uint_eq(model->graph.warmups, 1);
    ck_assert(!model->graph.failed);
    run_and_compare(expected, 1, 2);
    ck_assert_uint_eq(model->graph.warmups, FERRUM_GRAPH_WARMUPS);
    run_and_compare(expected, 3, 3);
    ck_assert(model->graph.failed);
    ck_assert_uint_eq(model->graph.warmups, FERRUM_GRAPH_WARMUPS);
    ck_assert_uint_eq(model->graph.captures, 0);

    ferrum_model_reset(model);
    ck_assert(!model->graph.failed);
    ck_assert_uint_eq(model->graph.warmups, 0);
    free(expected);
    tear_down();
}
END_TEST

/* Batches that are decoded request by request do not use graphs. */
START_TEST(small_batches_stay_eager)
{
    float logits[COUNT * SYNTH_VOCAB];
    uint32_t tokens[COUNT] = {1, 2, 3, 4, 5};
    open_with("1");
    start_requests();
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(ferrum_model_decode_batch(model, ids, tokens, 3, logits, NULL), FERRUM_OK);
    ck_assert_uint_eq(model->graph.warmups, 0);
    tear_down();
}
END_TEST

START_TEST(single_requests_are_captured)
{
    enum {
        STEPS = 6
    };
    float expected[STEPS][SYNTH_VOCAB], logits[SYNTH_VOCAB];
    for (int graphs = 0; graphs < 2; graphs++) {
        open_with(graphs ? "1" : "0");
        install_fake();
        start_requests();
        for (uint32_t i = 0; i < STEPS; i++) {
            ck_assert_int_eq(
                ferrum_model_decode(model, ids[0], 3 + i, graphs ? logits : expected[i], NULL),
                FERRUM_OK);
            if (graphs)
                ck_assert_mem_eq(logits, expected[i], sizeof logits);
        }
        ck_assert_int_eq(fake.begins, graphs);
        ck_assert_int_eq(fake.replays, graphs ? STEPS - FERRUM_GRAPH_WARMUPS : 0);
        remove_fake();
        tear_down();
    }
}
END_TEST

START_TEST(captures_and_replays)
{
    float *expected = baseline(8);
    open_with("1");
    install_fake();
    start_requests();
    run_and_compare(expected, 0, 3);
    ck_assert_int_eq(fake.begins, 0);
    run_and_compare(expected, 3, 1);
    ck_assert_int_eq(fake.begins, 1);
    ck_assert_int_eq(fake.ends, 1);
    ck_assert_int_eq(fake.replays, 1);
    ck_assert_uint_eq(fake.key.model, model->number);
    ck_assert_uint_eq(fake.key.shape, COUNT);
    ck_assert_uint_eq(model->graph.captures, 1);
    run_and_compare(expected, 4, 2);
    ck_assert_int_eq(fake.begins, 1);
    ck_assert_int_eq(fake.replays, 3);
    ck_assert_uint_eq(model->graph.replays, 2);

    /* The backend lost it: captured anew in the same step. */
    fake.forget = 1;
    fake.recording = false;
    run_and_compare(expected, 6, 1);
    ck_assert(model->graph.failed); /* even the new one could not be launched */
    run_and_compare(expected, 7, 1);
    remove_fake();
    free(expected);
    tear_down();
}
END_TEST

START_TEST(growing_scratch_drops_graphs)
{
    float *expected = baseline(6), logits[SYNTH_VOCAB];
    uint32_t prompt[40] = {0};
    open_with("1");
    install_fake();
    start_requests();
    run_and_compare(expected, 0, 5);
    ck_assert(model->graph.decode[COUNT].captured);
    ck_assert_int_eq(ferrum_model_prefill(model, 900, prompt, 40, logits, NULL), FERRUM_OK);
    ck_assert(!model->graph.decode[COUNT].captured);
    ck_assert_int_gt(fake.resets, 0);
    run_and_compare(expected, 5, 1);
    ck_assert_int_eq(fake.begins, 2);
    remove_fake();
    free(expected);
    tear_down();
}
END_TEST

/* Whatever fails, that step and all later ones are right, and capturing is never tried again. */
START_TEST(failures_fall_back_to_eager)
{
    float *expected = baseline(8);
    open_with("1");
    install_fake();
    fake.fail_begin = _i == 0;
    fake.fail_end = _i == 1;
    fake.fail_replay = _i == 2;
    fake.fail_linear = _i == 3 ? 4 : 0;
    start_requests();
    run_and_compare(expected, 0, 8);
    ck_assert(model->graph.failed);
    ck_assert_int_eq(fake.begins, 1);
    ck_assert_int_eq(fake.ends, _i == 0 ? 0 : 1);
    ck_assert(!fake.recording);
    for (uint32_t i = 0; i < COUNT; i++)
        ck_assert_uint_eq(ferrum_model_length(model, ids[i]), 3 + 8);
    remove_fake();
    free(expected);
    tear_down();
}
END_TEST

/* Sizes that passes are padded to: all up to 8, four to every doubling, no more than there may be;
 * none where nothing is captured. */
START_TEST(sizes_of_passes)
{
    static const struct {
        uint32_t rows, most, padded;
    } sizes[] = {
        {1, 64, 1},
        {7, 64, 7},
        {8, 64, 8},
        {9, 64, 10},
        {10, 64, 10},
        {15, 64, 16},
        {17, 64, 20},
        {32, 64, 32},
        {33, 64, 40},
        {57, 64, 64},
        {65, 512, 80},
        {500, 512, 512},
        {57, 60, 60},
        {9, 9, 9},
        {12, 9, 12},
        {511, 511, 511},
        {UINT32_MAX, 5, UINT32_MAX},
    };
    open_with("1");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert_uint_eq(ferrum_model_pad_rows(model, sizes[i].rows, sizes[i].most),
                          sizes[i].rows); /* the cpu backend has no graphs */
        model->graph.pads = true;
        ck_assert_uint_eq(ferrum_model_pad_rows(model, sizes[i].rows, sizes[i].most),
                          sizes[i].padded);
        model->graph.pads = false;
    }
    model->graph.pads = model->graph.failed = true;
    ck_assert_uint_eq(ferrum_model_pad_rows(model, 9, 64), 9);
    model->graph.pads = false;
    tear_down();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model_graph");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, sizes_of_passes);
    tcase_add_test(tests, no_graphs_on_cpu);
    tcase_add_test(tests, small_batches_stay_eager);
    tcase_add_test(tests, single_requests_are_captured);
    tcase_add_test(tests, captures_and_replays);
    tcase_add_test(tests, growing_scratch_drops_graphs);
    tcase_add_loop_test(tests, failures_fall_back_to_eager, 0, 4);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
