/* SPDX-License-Identifier: MIT */
/*
 * expert_ffn composed of granular ops, against f64. The plugin is cpu; its own expert_ffn is taken
 * out of a copy of its tables, and other entries with it, to see each way of composing.
 */
#include "config.h"

#include "tests/loader/compose_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct way {
    bool gptq;
    uint32_t gemm_tokens, tokens;
    const char *lacks; /* an entry of stacked_experts that is taken away */
} ways[] = {
    {false, 32, 1, NULL},  {false, 32, 31, NULL},         {false, 32, 32, NULL},
    {false, 32, 40, NULL}, {false, 1, 40, "gemm_moe_id"}, {false, 32, 3, "gemv_moe_id_batched"},
    {true, 32, 1, NULL},   {true, 32, 40, NULL},          {true, 32, 5, NULL},
};

START_TEST(equals_the_oracle)
{
    layer_t layer;
    problem_t *p = malloc(sizeof *p);
    ferrum_expert_ffn_t *ffn;
    if (ways[_i].lacks)
        ferrum_tables_drop(&tables, "stacked_experts", ways[_i].lacks);
    start_compose(ways[_i].gemm_tokens);
    make_layer(&layer, ways[_i].gptq);
    EXPECT_OK(tables.moe_fused.expert_ffn_create(device, &layer.desc, &ffn, &err));
    free_layer(&layer); /* weights are borrowed for the call only; dense is not used any more */
    make_problem(p, ways[_i].tokens); /* fill the scratch with what must not come out later */
    for (uint32_t i = 0; i < ways[_i].tokens * HIDDEN; i++)
        p->x[i] = NAN;
    EXPECT_OK(tables.backend.buffer_write(ctx, p->bx, 0, FERRUM_DTYPE_F32, p->x,
                                          (uint64_t)ways[_i].tokens * HIDDEN, &err));
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
    free_problem(p);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        make_problem(p, ways[_i].tokens);
        p->args.flags = accumulate ? FERRUM_FFN_ACCUMULATE : 0;
        EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
        expect_right(ffn, p, accumulate);
        free_problem(p);
    }
    make_problem(p, ways[_i].tokens); /* out may be x */
    p->args.out = p->bx;
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
    expect_right(ffn, p, false);
    free_problem(p);
    tables.moe_fused.expert_ffn_release(ffn);
    free(p);
}
END_TEST

START_TEST(edges_of_a_call)
{
    layer_t layer;
    problem_t *p = malloc(sizeof *p);
    ferrum_expert_ffn_t *ffn;
    ferrum_context_t *other;
    start_compose(32);
    make_layer(&layer, _i);
    EXPECT_OK(tables.moe_fused.expert_ffn_create(device, &layer.desc, &ffn, &err));
    make_problem(p, 4);
    p->args.tokens = 0;
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
    p->args.tokens = 4;
    for (uint32_t i = 0; i < 4 * TOP_K; i++)
        p->ids[i] = i % 2 ? -1 : 0; /* expert 0 is not held here */
    EXPECT_OK(
        tables.backend.buffer_write(ctx, p->bids, 0, FERRUM_DTYPE_I32, p->ids, 4 * TOP_K, &err));
    p->args.flags = FERRUM_FFN_ACCUMULATE;
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
    expect_right(ffn, p, true);
    p->args.flags = 0;
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(ctx, ffn, &p->args, &err));
    expect_right(ffn, p, false);
    free_problem(p);

    make_problem(p, 4); /* a second context with its own scratch, freed before the object */
    EXPECT_OK(tables.backend.context_new(device, NULL, &other, &err));
    EXPECT_OK(tables.moe_fused.expert_ffn_forward(other, ffn, &p->args, &err));
    tables.backend.context_free(other);
    expect_right(ffn, p, false);
    free_problem(p);
    tables.moe_fused.expert_ffn_retain(ffn);
    tables.moe_fused.expert_ffn_release(ffn);
    tables.moe_fused.expert_ffn_release(ffn);
    tables.moe_fused.expert_ffn_release(NULL);
    free_layer(&layer);
    free(p);
}
END_TEST

START_TEST(wrong_calls_are_refused)
{
    layer_t layer;
    problem_t *p = malloc(sizeof *p);
    ferrum_expert_ffn_t *ffn;
    const ferrum_moe_fused_ops_t *m = &tables.moe_fused;
    start_compose(32);
    make_layer(&layer, _i);
    EXPECT_OK(m->expert_ffn_create(device, &layer.desc, &ffn, &err));
    make_problem(p, 4);
    p->args.flags = 8;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT, "0x8");
    p->args.flags = 0;
    p->args.x = NULL;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT, "x is");
    p->args.x = p->bx;
    p->args.out = NULL;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "out is");
    p->args.out = p->bout;
    p->args.ids = NULL;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "ids is");
    p->args.ids = p->bids;
    p->args.weights = NULL;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "weights is");
    p->args.weights = p->bweights;
    p->args.x = p->bids;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "x is i32, not f32");
    p->args.x = p->bx;
    p->args.tokens = 5;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "256 elements, 320 are needed");
    p->args.tokens = UINT32_MAX;
    p->args.top_k = UINT32_MAX;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_ARGUMENT,
                 "too many");
    p->args.tokens = 4;
    p->args.top_k = TOP_K;
    p->ids[4] = EXPERTS;
    EXPECT_OK(
        tables.backend.buffer_write(ctx, p->bids, 0, FERRUM_DTYPE_I32, p->ids, 4 * TOP_K, &err));
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &p->args, &err), FERRUM_INVALID_INPUT,
                 "expert id 7 of token 1");
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, NULL, &err), FERRUM_INVALID_ARGUMENT, "NULL");
    free_problem(p);
    m->expert_ffn_release(ffn);
    free_layer(&layer);
    free(p);
}
END_TEST

static void expect_not_made(const ferrum_expert_ffn_desc_t *desc, ferrum_status_t status,
                            const char *text)
{
    ferrum_expert_ffn_t *ffn = NULL;
    EXPECT_FAILS(tables.moe_fused.expert_ffn_create(device, desc, &ffn, &err), status, text);
    ck_assert_ptr_null(ffn);
}

START_TEST(what_cannot_be_composed_is_refused)
{
    layer_t layer, other;
    float bias[LOCAL * WIDTH] = {0};
    ferrum_activation_t clamped = {.head = FERRUM_HEAD(ferrum_activation_t),
                                   .kind = FERRUM_ACTIVATION_SWIGLU_CLAMPED};
    start_compose(32);
    make_layer(&layer, _i);
    make_layer(&other, !_i);
    layer.desc.activation = &clamped;
    expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "activations other than");
    layer.desc.activation = NULL;
    layer.weights[FERRUM_UP].bias = bias;
    expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "expert biases");
    layer.weights[FERRUM_UP].bias = NULL;
    layer.desc.down = &other.weights[FERRUM_DOWN];
    expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "GGUF and GPTQ weights in one layer");
    layer.desc.down = NULL;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "down must have");
    layer.desc.down = &layer.weights[FERRUM_DOWN];
    layer.desc.hidden = WIDTH;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "the weights of gate are not 5 experts");
    layer.desc.hidden = HIDDEN;
    layer.desc.first_expert = 3;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "experts 3..+5 of 7");
    layer.desc.first_expert = FIRST;
    layer.desc.precision = 9;
    expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "precision");
    free_layer(&layer);
    free_layer(&other);
}
END_TEST

/* A layer whose description is spoilt in one place each. */
START_TEST(odd_descriptions_are_refused)
{
    layer_t layer;
    ferrum_expert_ffn_t *ffn;
    const ferrum_moe_fused_ops_t *m = &tables.moe_fused;
    start_compose(32);
    make_layer(&layer, _i);
    const ferrum_expert_ffn_desc_t good = layer.desc;
    uint32_t *const numbers[] = {&layer.desc.hidden, &layer.desc.intermediate,
                                 &layer.desc.num_experts};
    for (int i = 0; i < 3; i++) {
        uint32_t kept = *numbers[i];
        *numbers[i] = 0;
        expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "are no layer");
        *numbers[i] = kept + 1; /* the weights are for another layer */
        if (i < 2)
            expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "are not 5 experts");
        *numbers[i] = kept;
    }
    layer.desc.num_experts = UINT32_MAX;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "are no layer");
    layer.desc = good;
    layer.desc.local_experts = EXPERTS + 1;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "are no layer");
    layer.desc.local_experts = 0; /* all of them, of which there are too few */
    layer.desc.first_expert = 0;
    layer.gguf[FERRUM_GATE].experts = LOCAL;
    if (!_i)
        expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "are not 7 experts");
    layer.desc = good;
    layer.desc.gate = NULL;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "gate weights are NULL");
    layer.desc = good;
    layer.desc.head.size = FERRUM_EXPERT_FFN_DESC_MIN_SIZE - 1;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "description of the layer");
    expect_not_made(NULL, FERRUM_INVALID_ARGUMENT, "description of the layer");
    layer.desc = good;
    layer.weights[FERRUM_UP].head.size = FERRUM_EXPERT_WEIGHTS_MIN_SIZE - 1;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "up must have");
    layer.weights[FERRUM_UP].head.size = sizeof layer.weights[0];
    const ferrum_expert_weights_t weights = layer.weights[FERRUM_UP];
    layer.weights[FERRUM_UP].gguf = NULL;
    layer.weights[FERRUM_UP].gptq = NULL;
    expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "up must have");
    layer.weights[FERRUM_UP] = weights;
    if (_i) {
        float bias[WIDTH] = {0};
        layer.matrices[FERRUM_UP][3].bias = bias;
        expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "expert biases");
        layer.matrices[FERRUM_UP][3].bias = NULL;
        layer.matrices[FERRUM_UP][3].k--;
        expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "the weights of up");
        layer.pointers[FERRUM_UP][3] = NULL;
        expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "the weights of up");
        layer.pointers[FERRUM_UP][3] = &layer.matrices[FERRUM_UP][3];
        layer.matrices[FERRUM_UP][3].k++;
    } else {
        layer.gguf[FERRUM_UP].cols--;
        expect_not_made(&layer.desc, FERRUM_INVALID_ARGUMENT, "the weights of up");
        layer.gguf[FERRUM_UP].cols++;
    }
    EXPECT_FAILS(m->expert_ffn_create(NULL, &layer.desc, &ffn, &err), FERRUM_INVALID_ARGUMENT,
                 "device or out_ffn");
    EXPECT_FAILS(m->expert_ffn_create(device, &layer.desc, NULL, &err), FERRUM_INVALID_ARGUMENT,
                 "device or out_ffn");
    ferrum_activation_t silu = {.head = FERRUM_HEAD(ferrum_activation_t),
                                .kind = FERRUM_ACTIVATION_SILU_MUL};
    layer.desc.activation = &silu;
    EXPECT_OK(m->expert_ffn_create(device, &layer.desc, &ffn, &err));
    free_layer(&layer);
    /* What may be asked of it. */
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    EXPECT_FAILS(m->expert_ffn_info(NULL, &info, &err), FERRUM_INVALID_ARGUMENT, "ffn or out_info");
    EXPECT_FAILS(m->expert_ffn_info(ffn, NULL, &err), FERRUM_INVALID_ARGUMENT, "ffn or out_info");
    info.head.size = FERRUM_EXPERT_FFN_INFO_MIN_SIZE - 1;
    EXPECT_FAILS(m->expert_ffn_info(ffn, &info, &err), FERRUM_INVALID_ARGUMENT, "too small");
    info.head.size = FERRUM_EXPERT_FFN_INFO_MIN_SIZE;
    EXPECT_OK(m->expert_ffn_info(ffn, &info, &err));
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t)};
    EXPECT_FAILS(m->expert_ffn_forward(NULL, ffn, &args, &err), FERRUM_INVALID_ARGUMENT, "is NULL");
    EXPECT_FAILS(m->expert_ffn_forward(ctx, NULL, &args, &err), FERRUM_INVALID_ARGUMENT, "is NULL");
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, NULL, &err), FERRUM_INVALID_ARGUMENT, "is NULL");
    args.head.size = FERRUM_EXPERT_FFN_ARGS_MIN_SIZE - 1;
    EXPECT_FAILS(m->expert_ffn_forward(ctx, ffn, &args, &err), FERRUM_INVALID_ARGUMENT,
                 "too small");
    m->expert_ffn_release(ffn);
}
END_TEST

/* ---- parts of the plugin that answer otherwise than cpu does ---- */

static ferrum_dtype_t activation_dtype; /* what the device says; 99: that it is gone */

static ferrum_status_t other_device_info(const ferrum_device_t *d, ferrum_device_info_t *out_info,
                                         ferrum_error_t *err)
{
    if (activation_dtype == 99)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "the device is gone");
    FERRUM_TRY(module->tables.backend.device_info(d, out_info, err));
    out_info->activation_dtype = activation_dtype;
    return FERRUM_OK;
}

static ferrum_status_t no_stacked_info(const ferrum_stacked_experts_t *stack,
                                       ferrum_expert_stack_info_t *out_info, ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "the stack is gone");
}

static bool wants_vllm;

static ferrum_status_t other_marlin_info(const ferrum_marlin_stack_t *stack,
                                         ferrum_expert_stack_info_t *out_info, ferrum_error_t *err)
{
    if (!wants_vllm)
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "the stack is gone");
    FERRUM_TRY(module->tables.marlin_stack.info(stack, out_info, err));
    out_info->requires_vllm = 1;
    return FERRUM_OK;
}

START_TEST(parts_that_answer_otherwise)
{
    static const ferrum_dtype_t dtypes[] = {FERRUM_DTYPE_F16, FERRUM_DTYPE_BF16};
    layer_t gguf, gptq;
    make_layer(&gguf, false);
    make_layer(&gptq, true);
    tables.backend.device_info = other_device_info;
    start_compose(32);
    for (int i = 0; i < 2; i++) { /* what rounding to the device's activations adds */
        ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
        ferrum_expert_ffn_t *ffn, *second;
        activation_dtype = dtypes[i];
        EXPECT_OK(tables.moe_fused.expert_ffn_create(device, &gguf.desc, &ffn, &err));
        EXPECT_OK(tables.moe_fused.expert_ffn_create(device, &gguf.desc, &second, &err));
        EXPECT_OK(tables.moe_fused.expert_ffn_info(ffn, &info, &err));
        ck_assert(info.error_bound >= (i ? 8e-3f : 1e-3f));
        tables.moe_fused.expert_ffn_release(ffn);
        tables.moe_fused.expert_ffn_release(second);
    }
    activation_dtype = 99;
    expect_not_made(&gguf.desc, FERRUM_DEVICE_ERROR, "the device is gone");
    activation_dtype = FERRUM_DTYPE_F32;
    tables.stacked_experts.info = no_stacked_info;
    expect_not_made(&gguf.desc, FERRUM_DEVICE_ERROR, "the stack is gone");
    tables.marlin_stack.info = other_marlin_info;
    expect_not_made(&gptq.desc, FERRUM_DEVICE_ERROR, "the stack is gone");
    wants_vllm = true;
    expect_not_made(&gptq.desc, FERRUM_UNSUPPORTED, "gemm_phase_vllm");
    wants_vllm = false;
    free_layer(&gptq);
}
END_TEST

START_TEST(supports_answers_for_the_composed_one)
{
    ferrum_problem_t q = {.head = FERRUM_HEAD(ferrum_problem_t),
                          .kind = FERRUM_PROBLEM_EXPERT_FFN,
                          .format = FERRUM_FORMAT_Q4_K,
                          .format_down = FERRUM_FORMAT_Q6_K,
                          .k = 512,
                          .n = 256,
                          .experts = 8,
                          .top_k = 2};
    start_compose(32);
    EXPECT_OK(tables.moe_fused.supports(device, &q, &err));
    q.has_bias = 1;
    EXPECT_FAILS(tables.moe_fused.supports(device, &q, &err), FERRUM_UNSUPPORTED, "biases");
    q.has_bias = 0;
    q.activation = FERRUM_ACTIVATION_GELU_MUL;
    EXPECT_FAILS(tables.moe_fused.supports(device, &q, &err), FERRUM_UNSUPPORTED, "activations");
    q.activation = FERRUM_ACTIVATION_SILU_MUL;
    q.format_down = FERRUM_FORMAT_GPTQ;
    EXPECT_FAILS(tables.moe_fused.supports(device, &q, &err), FERRUM_UNSUPPORTED, "one layer");
    q.format_down = 999;
    ck_assert_int_eq(tables.moe_fused.supports(device, &q, NULL), FERRUM_UNSUPPORTED);
    q.format = 999;
    ck_assert_int_eq(tables.moe_fused.supports(device, &q, NULL), FERRUM_UNSUPPORTED);
    q.format = q.format_down = FERRUM_FORMAT_GPTQ;
    q.bits = 4;
    q.group_size = 128;
    EXPECT_OK(tables.moe_fused.supports(device, &q, &err));
    q.kind = FERRUM_PROBLEM_ROUTE; /* other questions go to the plugin */
    ck_assert_int_eq(tables.moe_fused.supports(device, &q, NULL),
                     module->tables.moe_fused.supports(device, &q, NULL));
    ck_assert_int_eq(tables.moe_fused.supports(device, NULL, NULL), FERRUM_INVALID_ARGUMENT);
    q.head.size = FERRUM_PROBLEM_MIN_SIZE - 1;
    ck_assert_int_eq(tables.moe_fused.supports(device, &q, NULL), FERRUM_INVALID_ARGUMENT);
    ferrum_compose_free(compose);

    take_tables(); /* one that answers no questions, and has GPTQ ops only */
    ferrum_tables_drop(&tables, "quant_llm", "supports");
    ferrum_tables_drop(&tables, "quant_llm", "load_quant_experts");
    log_capture_t log;
    capture_init(&log, FERRUM_LOG_INFO);
    EXPECT_OK(ferrum_compose_expert_ffn(&tables, &log.logger, 32, &compose, &err));
    ck_assert_ptr_nonnull(strstr(log.text, "composed of granular ops for GPTQ weights"));
    q.head.size = sizeof q;
    q.kind = FERRUM_PROBLEM_EXPERT_FFN;
    EXPECT_OK(tables.moe_fused.supports(device, &q, &err));
    q.format = q.format_down = FERRUM_FORMAT_Q4_K;
    EXPECT_FAILS(tables.moe_fused.supports(device, &q, &err), FERRUM_UNSUPPORTED,
                 "GGUF weights cannot be composed");
}
END_TEST

START_TEST(resolution_says_how)
{
    ferrum_expert_ffn_info_t info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    ferrum_expert_ffn_t *ffn;
    layer_t layer;
    ck_assert_int_eq(ferrum_module_op_resolution(module, "moe_fused", "expert_ffn_create"),
                     FERRUM_RESOLVED_NATIVE);
    start_compose(32);
    ck_assert_int_eq(ferrum_tables_how(&tables, "moe_fused", "expert_ffn_forward"),
                     FERRUM_RESOLVED_COMPOSED);
    make_layer(&layer, false);
    EXPECT_OK(tables.moe_fused.expert_ffn_create(device, &layer.desc, &ffn, &err));
    EXPECT_OK(tables.moe_fused.expert_ffn_info(ffn, &info, &err));
    ck_assert_str_eq(info.kernel, "composed of StackedExperts");
    ck_assert_uint_eq(info.local_experts, LOCAL);
    ck_assert(info.error_bound > 0 && info.error_bound <= 0.02f);
    ck_assert_uint_eq(info.source_bytes, sizeof dense);
    tables.moe_fused.expert_ffn_release(ffn);
}
END_TEST

/* What the plugin has decides: one kind, none, or a native expert_ffn that stays. */
START_TEST(parts_decide)
{
    layer_t layer;
    log_capture_t log;
    capture_init(&log, FERRUM_LOG_INFO);
    ferrum_tables_drop(&tables, "marlin_stack", "gemm_phase_batched");
    EXPECT_OK(ferrum_compose_expert_ffn(&tables, &log.logger, 32, &compose, &err));
    ck_assert_ptr_nonnull(strstr(log.text, "composed of granular ops for GGUF weights"));
    make_layer(&layer, true);
    expect_not_made(&layer.desc, FERRUM_UNSUPPORTED, "lacks gemm_phase_batched");
    free_layer(&layer);
    ferrum_compose_free(compose);

    take_tables();
    ferrum_tables_drop(&tables, "moe_fused", "silu_mul_batched");
    EXPECT_OK(ferrum_compose_expert_ffn(&tables, &log.logger, 32, &compose, &err));
    ck_assert_ptr_null(compose);
    ck_assert_ptr_nonnull(strstr(log.text, "not composed, the plugin lacks silu_mul_batched"));

    ferrum_tables_t native = module->tables;
    EXPECT_OK(ferrum_compose_expert_ffn(&native, &log.logger, 32, &compose, &err));
    ck_assert_ptr_null(compose);
    ck_assert_mem_eq(&native, &module->tables, sizeof native);
}
END_TEST

START_TEST(slots_run_out_and_come_back)
{
    ferrum_tables_t copies[9];
    ferrum_compose_t *composed[9];
    log_capture_t log;
    capture_init(&log, FERRUM_LOG_WARN);
    for (size_t i = 0; i < 9; i++) {
        copies[i] = tables;
        EXPECT_OK(ferrum_compose_expert_ffn(&copies[i], &log.logger, 32, &composed[i], &err));
        ck_assert_int_eq(composed[i] != NULL, i < 8);
    }
    ck_assert_ptr_nonnull(strstr(log.text, "8 plugins already use the composed one"));
    for (size_t i = 0; i < 9; i++)
        ferrum_compose_free(composed[i]);
    start_compose(32);
    ck_assert_ptr_nonnull(compose);
}
END_TEST

int main(void)
{
    ferrum_test_path_t path;
    plugin_path("cpu", path);
    if (!file_exists(path)) {
        printf("%s was not built\n", path);
        return 77;
    }
    Suite *suite = suite_create("loader/compose");
    TCase *tests = tcase_create("compose");
    tcase_add_checked_fixture(tests, compose_setup, compose_teardown);
    tcase_add_loop_test(tests, equals_the_oracle, 0, sizeof ways / sizeof ways[0]);
    tcase_add_loop_test(tests, edges_of_a_call, 0, 2);
    tcase_add_loop_test(tests, wrong_calls_are_refused, 0, 2);
    tcase_add_loop_test(tests, what_cannot_be_composed_is_refused, 0, 2);
    tcase_add_loop_test(tests, odd_descriptions_are_refused, 0, 2);
    tcase_add_test(tests, parts_that_answer_otherwise);
    tcase_add_test(tests, supports_answers_for_the_composed_one);
    tcase_add_test(tests, resolution_says_how);
    tcase_add_test(tests, parts_decide);
    tcase_add_test(tests, slots_run_out_and_come_back);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
