/* SPDX-License-Identifier: MIT */
/* Faults in an expert FFN that the loader composes of granular ops: memory that runs out, and ops
 * that fail one at a time. The plugin is cpu without its own expert_ffn. */
#include "config.h"

#include "plugin/compose.h"
#include "tests/loader/support.h"
#include "tests/support/faults.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    HIDDEN = 32,
    WIDTH = 64,
    EXPERTS = 4,
    TOP_K = 2,
    TOKENS = 3
};

static ferrum_loader_t *loader;
static ferrum_module_t *module;
static ferrum_device_t *device;
static ferrum_tables_t tables; /* of cpu, without its expert_ffn */

static float zeros[EXPERTS * HIDDEN * WIDTH];
static ferrum_gguf_weights_t gguf[FERRUM_ROLES];
static ferrum_gptq_t matrix[FERRUM_ROLES];
static const ferrum_gptq_t *matrices[FERRUM_ROLES][EXPERTS];
static ferrum_expert_weights_t weights[2][FERRUM_ROLES]; /* [gptq] */

static void make_weights(void)
{
    for (int role = 0; role < FERRUM_ROLES; role++) {
        uint32_t n = role == FERRUM_DOWN ? HIDDEN : WIDTH, k = role == FERRUM_DOWN ? WIDTH : HIDDEN;
        gguf[role] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                             .format = FERRUM_FORMAT_F32,
                                             .experts = EXPERTS,
                                             .rows = n,
                                             .cols = k,
                                             .data = zeros,
                                             .bytes = sizeof zeros};
        matrix[role] = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                                       .bits = 4,
                                       .group_size = 32,
                                       .k = k,
                                       .n = n,
                                       .qweight = (const int32_t *)zeros,
                                       .qweight_count = (uint64_t)k / 8 * n,
                                       .scales = zeros,
                                       .scales_count = (uint64_t)k / 32 * n,
                                       .scales_dtype = FERRUM_DTYPE_F32};
        for (int e = 0; e < EXPERTS; e++)
            matrices[role][e] = &matrix[role];
        for (int form = 0; form < 2; form++)
            weights[form][role] =
                (ferrum_expert_weights_t){.head = FERRUM_HEAD(ferrum_expert_weights_t),
                                          .gguf = form ? NULL : &gguf[role],
                                          .gptq = form ? matrices[role] : NULL};
    }
}

/* ---- ops that fail at their n-th call ---- */

static long op_calls, op_fails; /* calls so far; the number of the one that fails */

static ferrum_status_t op_status(ferrum_error_t *err)
{
    return op_calls++ == op_fails
               ? ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "an op failed")
               : FERRUM_OK;
}

/* An op in front of the module's own. */
#define FAILING(table, name, parameters, arguments)                                                \
    static ferrum_status_t failing_##name parameters                                               \
    {                                                                                              \
        FERRUM_TRY(op_status(err));                                                                \
        return module->tables.table.name arguments;                                                \
    }
FAILING(backend, buffer_info,
        (const ferrum_buffer_t *b, ferrum_buffer_info_t *out, ferrum_error_t *err), (b, out, err))
FAILING(backend, buffer_alloc,
        (ferrum_device_t * d, ferrum_dtype_t dtype, uint64_t n, ferrum_buffer_t **out,
         ferrum_error_t *err),
        (d, dtype, n, out, err))
FAILING(backend, buffer_read,
        (ferrum_context_t * c, const ferrum_buffer_t *b, uint64_t at, ferrum_dtype_t dtype,
         void *out, uint64_t n, ferrum_error_t *err),
        (c, b, at, dtype, out, n, err))
FAILING(backend, buffer_write,
        (ferrum_context_t * c, ferrum_buffer_t *b, uint64_t at, ferrum_dtype_t dtype,
         const void *data, uint64_t n, ferrum_error_t *err),
        (c, b, at, dtype, data, n, err))
FAILING(backend, embedding_lookup,
        (ferrum_context_t * c, const ferrum_buffer_t *t, const uint32_t *ids, uint32_t n,
         ferrum_buffer_t *out, uint32_t dim, ferrum_error_t *err),
        (c, t, ids, n, out, dim, err))
FAILING(stacked_experts, gemv_moe_id_batched,
        (ferrum_context_t * c, const ferrum_stacked_experts_t *w, const ferrum_buffer_t *in,
         const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t tokens, uint32_t k,
         uint64_t outer, uint64_t inner, ferrum_error_t *err),
        (c, w, in, ids, out, tokens, k, outer, inner, err))
FAILING(marlin_stack, zero_workspace,
        (ferrum_context_t * c, ferrum_marlin_stack_t *w, ferrum_error_t *err), (c, w, err))
FAILING(marlin_stack, gemm_phase_batched,
        (ferrum_context_t * c, ferrum_marlin_stack_t *w, const ferrum_buffer_t *in,
         const ferrum_moe_dispatch_t *d, uint32_t n, ferrum_buffer_t *out, uint32_t k,
         ferrum_error_t *err),
        (c, w, in, d, n, out, k, err))

static void let_ops_fail(ferrum_tables_t *t)
{
    t->backend.buffer_info = failing_buffer_info;
    t->backend.buffer_alloc = failing_buffer_alloc;
    t->backend.buffer_read = failing_buffer_read;
    t->backend.buffer_write = failing_buffer_write;
    t->backend.embedding_lookup = failing_embedding_lookup;
    t->stacked_experts.gemv_moe_id_batched = failing_gemv_moe_id_batched;
    t->marlin_stack.zero_workspace = failing_zero_workspace;
    t->marlin_stack.gemm_phase_batched = failing_gemm_phase_batched;
}

/* ---- one layer ---- */

static uint32_t gemm_tokens = 32, flags;

/* Make the layer and a context, and run it twice, the second time with twice the tokens, so that
 * scratch grows; everything is released again. @p drop is taken away between making and running. */
static ferrum_status_t run_layer(int form, const char *const *drop, ferrum_error_t *err)
{
    static const int32_t ids[TOKENS * TOP_K] = {0, 1, -1, 2, 3, 0};
    static const float pair_weights[TOKENS * TOP_K] = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f};
    static float x[TOKENS * HIDDEN];
    const ferrum_backend_ops_t *b = &module->tables.backend;
    const ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                           .hidden = HIDDEN,
                                           .intermediate = WIDTH,
                                           .num_experts = EXPERTS,
                                           .gate = &weights[form][FERRUM_GATE],
                                           .up = &weights[form][FERRUM_UP],
                                           .down = &weights[form][FERRUM_DOWN]};
    const struct {
        ferrum_dtype_t dtype;
        void *data;
        uint64_t count;
    } wrapped[4] = {{FERRUM_DTYPE_F32, x, TOKENS * HIDDEN},
                    {FERRUM_DTYPE_I32, (void *)(uintptr_t)ids, TOKENS * TOP_K},
                    {FERRUM_DTYPE_F32, (void *)(uintptr_t)pair_weights, TOKENS * TOP_K},
                    {FERRUM_DTYPE_F32, x, TOKENS * HIDDEN}};
    const ferrum_tables_t whole = tables;
    ferrum_compose_t *compose = NULL;
    ferrum_expert_ffn_t *ffn = NULL;
    ferrum_context_t *ctx = NULL;
    ferrum_buffer_t *buffers[4] = {NULL};
    ferrum_status_t status = ferrum_compose_expert_ffn(&tables, NULL, gemm_tokens, &compose, err);
    if (status == FERRUM_OK)
        status = b->context_new(device, NULL, &ctx, err);
    for (int i = 0; i < 4 && status == FERRUM_OK; i++)
        status = b->buffer_wrap_host(device, wrapped[i].data, wrapped[i].dtype, wrapped[i].count,
                                     &buffers[i], err);
    if (status == FERRUM_OK)
        status = tables.moe_fused.expert_ffn_create(device, &desc, &ffn, err);
    if (drop)
        ferrum_tables_drop(&tables, drop[0], drop[1]);
    ferrum_expert_ffn_args_t args = {.head = FERRUM_HEAD(ferrum_expert_ffn_args_t),
                                     .x = buffers[0],
                                     .ids = buffers[1],
                                     .weights = buffers[2],
                                     .out = buffers[3],
                                     .tokens = 1,
                                     .top_k = TOP_K,
                                     .flags = flags};
    if (status == FERRUM_OK)
        status = tables.moe_fused.expert_ffn_forward(ctx, ffn, &args, err);
    args.tokens = TOKENS;
    if (status == FERRUM_OK)
        status = tables.moe_fused.expert_ffn_forward(ctx, ffn, &args, err);
    if (ffn)
        tables.moe_fused.expert_ffn_release(ffn);
    for (int i = 0; i < 4; i++)
        b->buffer_release(buffers[i]);
    b->context_free(ctx);
    ferrum_compose_free(compose);
    tables = whole;
    return status;
}

static ferrum_status_t run_gguf(ferrum_error_t *err)
{
    return run_layer(0, NULL, err);
}

static ferrum_status_t run_gptq(ferrum_error_t *err)
{
    return run_layer(1, NULL, err);
}

static const faults_operation_t operations[] = {
    {"composed of GGUF experts", run_gguf, NULL, 0, NULL},
    {"composed of GPTQ experts", run_gptq, NULL, 0, NULL},
};

static void setup(void)
{
    static const char *const own[] = {"expert_ffn_create", "expert_ffn_retain",
                                      "expert_ffn_release", "expert_ffn_info",
                                      "expert_ffn_forward"};
    ferrum_test_path_t path;
    plugin_path("cpu", path);
    loader = fixture_loader(NULL, NULL);
    EXPECT_OK(ferrum_loader_open(loader, path, &module, &err));
    EXPECT_OK(module->tables.backend.device_open(ferrum_module_host(module), NULL, &device, &err));
    tables = module->tables;
    tables.quant_llm.linear = &tables.linear;
    tables.quant_llm.stacked_experts = &tables.stacked_experts;
    tables.quant_llm.marlin_stack = &tables.marlin_stack;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        ferrum_tables_drop(&tables, "moe_fused", own[i]);
    make_weights();
}

static void teardown(void)
{
    module->tables.backend.device_release(device);
    ferrum_module_release(module, NULL);
    ferrum_loader_free(loader);
}

START_TEST(every_call_fails_once)
{
    long failures = faults_exhaust(&operations[_i]);
    printf("%s: %ld calls failed once\n", operations[_i].name, failures);
    ck_assert_int_gt(failures, 10);
}
END_TEST

/* An op that fails, or does not exist after all, ends the call with its error. */
START_TEST(every_op_fails_once)
{
    static const char *const ops[][2] = {{"backend", "buffer_info"},
                                         {"backend", "buffer_alloc"},
                                         {"backend", "buffer_read"},
                                         {"backend", "buffer_write"},
                                         {"backend", "buffer_zero"},
                                         {"backend", "embedding_lookup"},
                                         {"moe_fused", "silu_mul_batched"},
                                         {"moe_fused", "moe_combine"},
                                         {"moe_fused", "weighted_sum_batched"},
                                         {"stacked_experts", "gemv_moe_id"},
                                         {"stacked_experts", "gemv_moe_id_batched"},
                                         {"stacked_experts", "gemm_moe_id"},
                                         {"marlin_stack", "gemm_phase_batched"},
                                         {"marlin_stack", "zero_workspace"}};
    int refused = 0;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        ferrum_error_t err = FERRUM_ERROR_INIT;
        ferrum_status_t status = run_layer(_i, ops[i], &err);
        if (status == FERRUM_OK)
            continue; /* this form does without it */
        ck_assert_msg(status == FERRUM_UNSUPPORTED && err.message[0], "%s: %d %s", ops[i][1],
                      status, err.message);
        refused++;
    }
    ck_assert_int_ge(refused, 6);
    EXPECT_OK(run_layer(_i, NULL, &err));
}
END_TEST

/* Every op fails at every one of its calls: few tokens, many, GPTQ; adding to the output or not. */
START_TEST(every_call_of_an_op_fails_once)
{
    ferrum_error_t err = FERRUM_ERROR_INIT;
    ferrum_tables_t whole = tables;
    gemm_tokens = _i == 1 ? 1 : 32;
    flags = _i == 2 ? 0 : FERRUM_FFN_ACCUMULATE;
    for (op_fails = 0;; op_fails++) {
        op_calls = 0;
        let_ops_fail(&tables);
        ferrum_status_t status = run_layer(_i == 2, NULL, &err);
        tables = whole;
        if (op_calls <= op_fails) {
            ck_assert_msg(status == FERRUM_OK, "%s", err.message);
            break;
        }
        ck_assert_int_eq(status, FERRUM_DEVICE_ERROR);
        ck_assert_str_eq(err.message, "an op failed");
    }
    printf("%ld calls of ops failed once\n", op_fails);
    ck_assert_int_gt(op_fails, 30);
}
END_TEST

int main(void)
{
    ferrum_test_path_t path;
    plugin_path("cpu", path);
    if (!file_exists(path)) {
        printf("skipped: %s was not built\n", path);
        return 77;
    }
    Suite *suite = suite_create("faults/compose");
    TCase *tests = tcase_create("compose");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, every_call_fails_once, 0, 2);
    tcase_add_loop_test(tests, every_op_fails_once, 0, 2);
    tcase_add_loop_test(tests, every_call_of_an_op_fails_once, 0, 3);
    suite_add_tcase(suite, tests);
    return expect_run(suite);
}
