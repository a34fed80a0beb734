/* SPDX-License-Identifier: MIT */
/*
 * Every way through a layer gives the f64 reference's result, and the same bits on every run, for
 * every number of threads, and for a row whatever batch it travels in.
 */
#include "tests/moe/fixture.h"

#include <ferrum/moe.h>
#include <ferrum/util.h>

#include <math.h>
#include <stdlib.h>

enum {
    MAX_TOKENS = 70
};

static const layer_shape_t shapes[] = {
    {4, 64, 32, 2, FERRUM_FORMAT_F32, FERRUM_FORMAT_F32, 0, 0, false, false},
    {8, 256, 96, 3, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q4_0, 0, 0, false, false},
    {5, 256, 256, 2, FERRUM_FORMAT_Q4_K, FERRUM_FORMAT_Q6_K, 0, 0, false, false},
    {4, 64, 32, 2, FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ, 4, 32, true, false},
    {6, 128, 64, 2, FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ, 4, 32, false, true},
    {3, 64, 64, 1, FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ, 8, 0, true, false},
};

/* A path with its options; `gptq` says which weights it is for: 0 GGUF, 1 GPTQ, 2 both. */
static const struct way {
    const char *name;
    ferrum_moe_path_t path;
    int gptq;
    bool vllm, pair_ids, host_topk, direct, unfused, per_item, decode;
    int device_route;
    uint32_t block_size;
} ways[] = {
    {"expert_ffn", FERRUM_MOE_PATH_EXPERT_FFN, 2, .device_route = -1},
    {"expert_ffn, host routing", FERRUM_MOE_PATH_EXPERT_FFN, 2, .device_route = 0},
    {"expert_ffn, device routing", FERRUM_MOE_PATH_EXPERT_FFN, 2, .device_route = 1},
    {"per-pair", FERRUM_MOE_PATH_PER_PAIR, 2, .device_route = -1},
    {"batched GEMM", FERRUM_MOE_PATH_BUCKETED, 1, .device_route = -1},
    {"aligned, host", FERRUM_MOE_PATH_BUCKETED, 1, .vllm = true, .device_route = 0},
    {"aligned, host, 8", FERRUM_MOE_PATH_BUCKETED, 1, .vllm = true, .block_size = 8},
    {"aligned, device", FERRUM_MOE_PATH_BUCKETED, 1, .vllm = true, .device_route = -1},
    {"forced device", FERRUM_MOE_PATH_BUCKETED, 1, .device_route = 1, .block_size = 8},
    {"pair ids", FERRUM_MOE_PATH_BUCKETED, 1, .vllm = true, .pair_ids = true, .device_route = -1},
    {"pair ids, 48", FERRUM_MOE_PATH_BUCKETED, 1, .pair_ids = true, .device_route = 1,
     .block_size = 48},
    {"stacked prefill", FERRUM_MOE_PATH_STACKED, 0, .device_route = -1},
    {"stacked, direct", FERRUM_MOE_PATH_STACKED, 0, .device_route = 1, .direct = true},
    {"stacked, host top-k", FERRUM_MOE_PATH_STACKED, 0, .device_route = -1, .host_topk = true},
    {"stacked, host routing", FERRUM_MOE_PATH_STACKED, 0, .device_route = 0},
    {"stacked decode", FERRUM_MOE_PATH_STACKED, 0, .device_route = -1, .decode = true},
    {"stacked decode, unfused", FERRUM_MOE_PATH_STACKED, 0, .device_route = -1, .decode = true,
     .unfused = true},
    {"stacked per item", FERRUM_MOE_PATH_STACKED, 0, .device_route = -1, .decode = true,
     .per_item = true},
};
enum {
    SHAPES = sizeof shapes / sizeof shapes[0],
    WAYS = sizeof ways / sizeof ways[0]
};

static ferrum_moe_env_t env_of(const struct way *way)
{
    ferrum_moe_env_t env;
    ferrum_moe_env_defaults(&env);
    env.path = way->path;
    env.vllm_moe = way->vllm;
    env.pair_ids = way->pair_ids;
    env.host_topk = way->host_topk;
    env.direct_dispatch = way->direct;
    env.fused_gate_up_silu = !way->unfused;
    env.batched_decode = !way->per_item;
    env.device_route = way->device_route;
    env.block_size = way->block_size;
    env.prefill_threshold = 1000;
    return env;
}

/* Rows [first, first+count) of a step, as a step of its own. */
static step_t rows_of(const step_t *step, const layer_t *layer, uint32_t first, uint32_t count)
{
    return (step_t){.tokens = count,
                    .x = step->x + (size_t)first * layer->shape.hidden,
                    .logits = step->logits + (size_t)first * layer->shape.experts,
                    .want = step->want + (size_t)first * layer->shape.hidden};
}

static void check_way(const layer_t *layer, const struct way *way, const step_t *step,
                      backend_t backends[2])
{
    ferrum_moe_env_t env = env_of(way);
    size_t values = (size_t)step->tokens * layer->shape.hidden;
    float *got = malloc(values * sizeof *got), *again = malloc(values * sizeof *again);
    ferrum_expert_stack_t stacks[2];
    for (int i = 0; i < 2; i++)
        layer_load(layer, &backends[i].ops, way->path, &stacks[i]);
    run_step(&backends[0], layer, &stacks[0], &env, step, way->decode, got);
    double error = step_error(step, layer, got);
    ck_assert_msg(error < 5e-4, "%s: %u tokens: relative error %g", way->name, step->tokens, error);
    run_step(&backends[0], layer, &stacks[0], &env, step, way->decode, again);
    ck_assert_msg(memcmp(got, again, values * sizeof *got) == 0, "%s: runs differ", way->name);
    run_step(&backends[1], layer, &stacks[1], &env, step, way->decode, again);
    ck_assert_msg(memcmp(got, again, values * sizeof *got) == 0, "%s: 1 and 3 threads differ",
                  way->name);
    for (uint32_t first = 0, count = 1; first < step->tokens; first += count, count = 1 + first) {
        if (count > step->tokens - first)
            count = step->tokens - first;
        step_t part = rows_of(step, layer, first, count);
        run_step(&backends[0], layer, &stacks[0], &env, &part, way->decode,
                 again + (size_t)first * layer->shape.hidden);
    }
    ck_assert_msg(memcmp(got, again, values * sizeof *got) == 0,
                  "%s: rows depend on the batch they travel in", way->name);
    for (int i = 0; i < 2; i++)
        ferrum_expert_stack_free(&stacks[i]);
    free(got);
    free(again);
}

START_TEST(every_way)
{
    const layer_shape_t *shape = &shapes[_i];
    bool gptq = shape->gate_up == FERRUM_FORMAT_GPTQ;
    static const uint32_t tokens[] = {1, 5, MAX_TOKENS};
    backend_t backends[2];
    layer_t layer;
    backend_open(&backends[0], 1);
    backend_open(&backends[1], 3);
    layer_init(&layer, shape, 0xA11CE + (uint64_t)_i);
    for (int t = 0; t < 3; t++) {
        step_t step;
        step_init(&step, &layer, tokens[t], t == 2, 5 + (uint64_t)t);
        for (int w = 0; w < WAYS; w++)
            if (ways[w].gptq == 2 || (ways[w].gptq == 1) == gptq)
                check_way(&layer, &ways[w], &step, backends);
        step_free(&step);
    }
    layer_free(&layer);
    backend_close(&backends[0]);
    backend_close(&backends[1]);
}
END_TEST

/* residual += MoE(x), and the next layer's norm, in every path. */
START_TEST(residual_and_norm)
{
    const struct way *way = &ways[_i];
    const layer_shape_t *shape = &shapes[way->gptq == 1 ? 3 : 1];
    const uint32_t h = shape->hidden, tokens = 3;
    backend_t backend;
    layer_t layer;
    step_t all;
    ferrum_moe_env_t env = env_of(way);
    ferrum_moe_plan_t plan;
    ferrum_moe_scratch_t *scratch;
    ferrum_expert_stack_t stack;
    float residual[3 * 256], norm_w[256], got[3 * 256], normed[3 * 256];
    uint64_t seed = 77;
    backend_open(&backend, 2);
    layer_init(&layer, shape, 3);
    step_init(&all, &layer, tokens, false, 4);
    layer_load(&layer, &backend.ops, way->path, &stack);
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, &layer.problem, 1, &plan, &err));
    EXPECT_OK(ferrum_moe_scratch_new(&backend.ops, &plan, 1, &scratch, &err));
    for (uint32_t i = 0; i < tokens * h; i++)
        residual[i] = lcg_float(&seed, -1.0f, 1.0f);
    for (uint32_t i = 0; i < h; i++)
        norm_w[i] = lcg_float(&seed, 0.5f, 1.5f);
    for (uint32_t m = 1; m <= tokens; m += 2) {
        for (int with_norm = 0; with_norm < 2; with_norm++) {
            ferrum_buffer_t *x = backend_floats(&backend, all.x, (uint64_t)m * h);
            ferrum_buffer_t *logits =
                backend_floats(&backend, all.logits, (uint64_t)m * shape->experts);
            ferrum_buffer_t *sum = backend_floats(&backend, residual, (uint64_t)m * h);
            ferrum_buffer_t *w = backend_floats(&backend, norm_w, h);
            ferrum_buffer_t *out = backend_dirty(&backend, (uint64_t)m * h);
            ferrum_buffer_t *next = backend_dirty(&backend, (uint64_t)m * h);
            ferrum_moe_run_args_t args = {.ctx = backend.ctx,
                                          .experts = &stack,
                                          .x = x,
                                          .router_logits = logits,
                                          .tokens = m,
                                          .decode = way->decode,
                                          .out = out,
                                          .residual = sum,
                                          .next_norm_w = with_norm ? w : NULL,
                                          .normed_out = next,
                                          .rms_eps = 1e-6f};
            EXPECT_OK(ferrum_moe_run(scratch, &args, &err));
            backend_read(&backend, sum, got, (uint64_t)m * h);
            backend_read(&backend, next, normed, (uint64_t)m * h);
            for (uint32_t t = 0; t < m; t++) {
                double squares = 0.0, norm = 0.0;
                for (uint32_t i = t * h; i < (t + 1) * h; i++)
                    norm += all.want[i] * all.want[i];
                for (uint32_t i = t * h; i < (t + 1) * h; i++) {
                    double want = (double)residual[i] + all.want[i];
                    ck_assert_msg(fabs((double)got[i] - want) <= 1e-5 + 5e-4 * sqrt(norm),
                                  "%s: residual %u: %g, not %g", way->name, i, (double)got[i],
                                  want);
                    squares += want * want;
                }
                double scale = 1.0 / sqrt(squares / h + 1e-6);
                for (uint32_t i = t * h; with_norm && i < (t + 1) * h; i++) {
                    double want =
                        ((double)residual[i] + all.want[i]) * scale * (double)norm_w[i - t * h];
                    ck_assert_msg(fabs((double)normed[i] - want) <= 1e-3 * (1.0 + fabs(want)),
                                  "%s: normed %u: %g, not %g", way->name, i, (double)normed[i],
                                  want);
                }
            }
            ferrum_buffer_t *buffers[] = {x, logits, sum, w, out, next};
            for (int i = 0; i < 6; i++)
                backend_release(&backend, buffers[i]);
        }
    }
    ferrum_moe_scratch_free(scratch);
    ferrum_expert_stack_free(&stack);
    step_free(&all);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

/* The key parity test: per pair against bucketed, with random zero points. */
START_TEST(bucketed_parity)
{
    const layer_shape_t shape = {4, 64, 32,   2,    FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                                 4, 32, true, false};
    backend_t backend;
    layer_t layer;
    step_t step;
    float per_pair[5 * 64], bucketed[5 * 64];
    uint64_t seed = 0xC0FFEE;
    backend_open(&backend, 2);
    layer_init(&layer, &shape, 0);
    /* Expert e's gate and up come from seed 0xA + e, its down from 0xB + e. */
    for (uint32_t e = 0; e < 4; e++) {
        layer_t donor;
        const layer_shape_t one = {1, 64, 32,   1,    FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                                   4, 32, true, false};
        layer_init(&donor, &one, 0xA + e);
        for (int role = 0; role < 3; role++) {
            ferrum_gptq_t *to = &layer.matrices[(uint32_t)role * 4 + e];
            const ferrum_gptq_t *from = &donor.matrices[role];
            memcpy((void *)(uintptr_t)to->qweight, from->qweight, from->qweight_count * 4);
            memcpy((void *)(uintptr_t)to->qzeros, from->qzeros, from->qzeros_count * 4);
            memcpy((void *)(uintptr_t)to->scales, from->scales, from->scales_count * 4);
        }
        layer_free(&donor);
    }
    step_init(&step, &layer, 5, false, 1);
    for (int i = 0; i < 5 * 64; i++)
        step.x[i] = lcg_float(&seed, -1.0f, 1.0f);
    for (int i = 0; i < 5 * 4; i++)
        step.logits[i] = lcg_float(&seed, -2.0f, 2.0f);
    for (int which = 0; which < 2; which++) {
        ferrum_moe_path_t path = which ? FERRUM_MOE_PATH_BUCKETED : FERRUM_MOE_PATH_PER_PAIR;
        ferrum_moe_env_t env;
        ferrum_expert_stack_t stack;
        ferrum_moe_env_defaults(&env);
        env.path = path;
        layer_load(&layer, &backend.ops, path, &stack);
        run_step(&backend, &layer, &stack, &env, &step, false, which ? bucketed : per_pair);
        ferrum_expert_stack_free(&stack);
    }
    float largest = 0.0f, difference = 0.0f;
    for (int i = 0; i < 5 * 64; i++) {
        largest = fmaxf(largest, fabsf(per_pair[i]));
        difference = fmaxf(difference, fabsf(per_pair[i] - bucketed[i]));
    }
    ck_assert_float_gt(largest, 0.0f);
    ck_assert_msg(difference / largest < 1e-4f, "largest relative difference %g",
                  (double)(difference / largest));
    step_free(&step);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

/* More than 64 rows of one expert, and more than one block of each size. */
START_TEST(one_expert_gets_everything)
{
    backend_t backends[2];
    layer_t layer;
    step_t step;
    const layer_shape_t shape = {4, 64, 32,   1,    FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                                 4, 32, true, false};
    backend_open(&backends[0], 1);
    backend_open(&backends[1], 3);
    layer_init(&layer, &shape, 21);
    step_init(&step, &layer, 150, false, 22);
    for (uint32_t t = 0; t < step.tokens; t++)
        for (uint32_t e = 0; e < 4; e++)
            step.logits[t * 4 + e] = e == 2 ? 9.0f : 0.0f;
    int32_t ids[150];
    float weights[150];
    for (int t = 0; t < 150; t++) {
        ids[t] = 2;
        weights[t] = 1.0f;
    }
    EXPECT_OK(ferrum_moe_reference(&layer.desc, step.x, ids, weights, step.want, 150, 1, &err));
    for (int w = 0; w < WAYS; w++)
        if (ways[w].gptq > 0)
            check_way(&layer, &ways[w], &step, backends);
    step_free(&step);
    layer_free(&layer);
    backend_close(&backends[0]);
    backend_close(&backends[1]);
}
END_TEST

/* A table of our own in place of the plugin's, to look at what it is asked. */
static ferrum_moe_dispatch_t asked[8];
static uint32_t asked_count;
static const ferrum_marlin_stack_ops_t *real_marlin;

static ferrum_status_t record_phase(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                    const ferrum_buffer_t *in,
                                    const ferrum_moe_dispatch_t *dispatches, uint32_t count,
                                    ferrum_buffer_t *out, uint32_t k, ferrum_error_t *err)
{
    asked_count = count;
    memcpy(asked, dispatches, count * sizeof *asked);
    return real_marlin->gemm_phase_batched(ctx, stack, in, dispatches, count, out, k, err);
}

static ferrum_status_t fail_workspace(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                      ferrum_error_t *err)
{
    return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER, "no workspace");
}

/* Largest expert first, then the lower number; and no failing step is ignored. */
START_TEST(dispatch_order)
{
    static const uint32_t routed_to[] = {3, 1, 3, 0, 1, 3, 5};
    static const uint32_t order[] = {3, 1, 0, 5}, rows[] = {3, 2, 1, 1}, first[] = {3, 1, 0, 6};
    const layer_shape_t shape = {6, 64, 32,   1,    FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                                 4, 32, true, false};
    backend_t backend;
    layer_t layer;
    step_t step;
    ferrum_moe_env_t env;
    ferrum_expert_stack_t stack;
    float out[7 * 64];
    backend_open(&backend, 1);
    layer_init(&layer, &shape, 3);
    step_init(&step, &layer, 7, false, 4);
    for (uint32_t t = 0; t < 7; t++)
        for (uint32_t e = 0; e < 6; e++)
            step.logits[t * 6 + e] = e == routed_to[t] ? 5.0f : 0.0f;
    ferrum_moe_env_defaults(&env);
    env.path = FERRUM_MOE_PATH_BUCKETED;
    layer_load(&layer, &backend.ops, env.path, &stack);
    real_marlin = backend.ops.marlin;
    ferrum_marlin_stack_ops_t recording = *real_marlin;
    recording.gemm_phase_batched = record_phase;
    backend.ops.marlin = &recording;
    run_step(&backend, &layer, &stack, &env, &step, false, out);
    ck_assert_uint_eq(asked_count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(asked[i].expert, order[i]);
        ck_assert_uint_eq(asked[i].rows, rows[i]);
        ck_assert_uint_eq(asked[i].in_row, first[i]);
        ck_assert_uint_eq(asked[i].out_row, first[i]);
    }
    recording.zero_workspace = fail_workspace;
    ferrum_moe_plan_t plan;
    ferrum_moe_scratch_t *scratch;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, &layer.problem, 1, &plan, &err));
    EXPECT_OK(ferrum_moe_scratch_new(&backend.ops, &plan, 7, &scratch, &err));
    ferrum_buffer_t *x = backend_floats(&backend, step.x, 7 * 64);
    ferrum_buffer_t *logits = backend_floats(&backend, step.logits, 7 * 6);
    ferrum_moe_run_args_t args = {.ctx = backend.ctx,
                                  .experts = &stack,
                                  .x = x,
                                  .router_logits = logits,
                                  .tokens = 7,
                                  .out = x};
    EXPECT_FAILS(ferrum_moe_run(scratch, &args, &err), FERRUM_DEVICE_ERROR, "no workspace");
    backend_release(&backend, x);
    backend_release(&backend, logits);
    ferrum_moe_scratch_free(scratch);
    ferrum_expert_stack_free(&stack);
    backend.ops.marlin = real_marlin;
    step_free(&step);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

START_TEST(profile_counts_layers)
{
    backend_t backend;
    layer_t layer;
    step_t step;
    ferrum_moe_plan_t plan;
    ferrum_moe_env_t env;
    ferrum_moe_scratch_t *scratch;
    ferrum_expert_stack_t stack;
    backend_open(&backend, 1);
    layer_init(&layer, &shapes[3], 3);
    step_init(&step, &layer, 4, false, 4);
    ferrum_moe_env_defaults(&env);
    env.path = FERRUM_MOE_PATH_BUCKETED;
    env.profile = true;
    layer_load(&layer, &backend.ops, env.path, &stack);
    EXPECT_OK(ferrum_moe_plan_resolve(&backend.ops, &env, &layer.problem, 1, &plan, &err));
    EXPECT_OK(ferrum_moe_scratch_new(&backend.ops, &plan, 4, &scratch, &err));
    ferrum_buffer_t *x = backend_floats(&backend, step.x, 4 * 64);
    ferrum_buffer_t *logits = backend_floats(&backend, step.logits, 4 * 4);
    ferrum_buffer_t *out = backend_dirty(&backend, 4 * 64);
    ferrum_moe_run_args_t args = {.ctx = backend.ctx,
                                  .experts = &stack,
                                  .x = x,
                                  .router_logits = logits,
                                  .tokens = 4,
                                  .out = out};
    for (int i = 0; i < 3; i++)
        EXPECT_OK(ferrum_moe_run(scratch, &args, &err));
    ferrum_moe_profile_snapshot_t taken =
        ferrum_moe_profile_drain(ferrum_moe_scratch_profile(scratch));
    ck_assert_uint_eq(taken.layers, 3);
    taken = ferrum_moe_profile_drain(ferrum_moe_scratch_profile(scratch));
    ck_assert_uint_eq(taken.layers, 0);
    backend_release(&backend, x);
    backend_release(&backend, logits);
    backend_release(&backend, out);
    ferrum_moe_scratch_free(scratch);
    ferrum_expert_stack_free(&stack);
    step_free(&step);
    layer_free(&layer);
    backend_close(&backend);
}
END_TEST

int main(void)
{
    (void)fixture_plugin();
    Suite *suite = suite_create("moe_paths");
    TCase *tcase = tcase_create("paths");
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, every_way, 0, SHAPES);
    tcase_add_loop_test(tcase, residual_and_norm, 0, WAYS);
    tcase_add_test(tcase, bucketed_parity);
    tcase_add_test(tcase, one_expert_gets_everything);
    tcase_add_test(tcase, dispatch_order);
    tcase_add_test(tcase, profile_counts_layers);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
