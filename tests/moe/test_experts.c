/* SPDX-License-Identifier: MIT */
/* The forms of an ExpertStack, where they come from, and what the forwards refuse. */
#include "host/formats/gptq_checkpoint.h"
#include "host/moe/moe_forward.h"
#include "host/moe/moe_forward_bucketed.h"
#include "host/moe/stacked.h"
#include "tests/moe/fixture.h"
#include "tests/support/files.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static backend_t backend;

static void open_backend(void)
{
    backend_open(&backend, 2);
}

static void close_backend(void)
{
    backend_close(&backend);
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static void ramp(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i % 13) - 6) / 16.0f;
}

/* Experts whose three matrices are the identity of size n, times factors[e]. */
static void identity_experts(uint32_t n, uint32_t experts, const float *factors,
                             ferrum_expert_stack_t *out_stack)
{
    size_t count = (size_t)experts * n * n;
    float *slab = calloc(count, sizeof *slab);
    for (uint32_t e = 0; e < experts; e++)
        for (uint32_t i = 0; i < n; i++)
            slab[((size_t)e * n + i) * n + i] = factors[e];
    EXPECT_OK(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, count, slab, count, slab,
                                                    count, experts, n, n, out_stack, &err));
    free(slab);
}

static ferrum_router_output_t routing(uint32_t batch, uint32_t top_k, const uint32_t *ids,
                                      const float *weights)
{
    ferrum_router_output_t output = {0};
    EXPECT_OK(ferrum_router_output_reset(&output, batch, top_k, &err));
    memcpy(output.expert_ids, ids, (size_t)batch * top_k * sizeof *ids);
    memcpy(output.expert_weights, weights, (size_t)batch * top_k * sizeof *weights);
    return output;
}

START_TEST(dense_stacks)
{
    float slab[3 * 8 * 4];
    ferrum_expert_stack_t stack;
    ramp(slab, 96);
    EXPECT_OK(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, 96, slab, 96, slab, 96, 3,
                                                    4, 8, &stack, &err));
    ck_assert_uint_eq(stack.expert_count, 3);
    ck_assert_uint_eq(ferrum_expert_stack_num_experts(&stack), 3);
    for (int e = 0; e < 3; e++) {
        ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
        EXPECT_OK(backend.ops.linear->info(stack.gate_up[e], &info, &err));
        ck_assert_uint_eq(info.in_features, 4);
        ck_assert_uint_eq(info.out_features, 16);
        EXPECT_OK(backend.ops.linear->info(stack.down[e], &info, &err));
        ck_assert_uint_eq(info.in_features, 8);
        ck_assert_uint_eq(info.out_features, 4);
    }
    ck_assert_uint_gt(stack.bytes, 0);
    ferrum_expert_stack_free(&stack);
    ferrum_expert_stack_free(&stack); /* twice is fine */
    EXPECT_FAILS(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, 95, slab, 96, slab, 96,
                                                       3, 4, 8, &stack, &err),
                 FERRUM_INVALID_ARGUMENT, "gate_stack");
    EXPECT_FAILS(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, 96, slab, 97, slab, 96,
                                                       3, 4, 8, &stack, &err),
                 FERRUM_INVALID_ARGUMENT, "up_stack");
    EXPECT_FAILS(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, 96, slab, 96, slab, 0, 3,
                                                       4, 8, &stack, &err),
                 FERRUM_INVALID_ARGUMENT, "down_stack");
    EXPECT_FAILS(ferrum_expert_stack_from_dense_stacks(&backend.ops, slab, 96, slab, 96, slab, 96,
                                                       UINT32_MAX, UINT32_MAX, UINT32_MAX, &stack,
                                                       &err),
                 FERRUM_INVALID_ARGUMENT, "cannot be loaded");
}
END_TEST

START_TEST(one_identity_expert)
{
    ferrum_expert_stack_t stack;
    const float x[] = {1.0f, 0.0f};
    float out[] = {9.0f, 9.0f};
    identity_experts(2, 1, (const float[]){1.0f}, &stack);
    ferrum_router_output_t route = routing(1, 1, (const uint32_t[]){0}, (const float[]){1.0f});
    EXPECT_OK(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 2, &route, out, &err));
    ck_assert_float_eq_tol(out[0], silu(1.0f), 1e-5f);
    ck_assert_float_eq_tol(out[1], 0.0f, 1e-5f);
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
}
END_TEST

START_TEST(two_experts)
{
    ferrum_expert_stack_t stack;
    const float x[] = {1.0f, 0.0f};
    float out[2];
    identity_experts(2, 2, (const float[]){1.0f, 2.0f}, &stack);
    ferrum_router_output_t route =
        routing(1, 2, (const uint32_t[]){0, 1}, (const float[]){0.3f, 0.7f});
    EXPECT_OK(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 2, &route, out, &err));
    ck_assert_float_eq_tol(out[0], 0.3f * silu(1.0f) + 0.7f * 4.0f * silu(2.0f), 1e-4f);
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
}
END_TEST

START_TEST(rows_use_their_own_experts)
{
    ferrum_expert_stack_t stack;
    const float x[] = {1.0f, 0.5f, 1.0f, 0.5f};
    float out[4];
    identity_experts(2, 2, (const float[]){1.0f, 2.0f}, &stack);
    ferrum_router_output_t route =
        routing(2, 1, (const uint32_t[]){0, 1}, (const float[]){1.0f, 1.0f});
    EXPECT_OK(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 4, &route, out, &err));
    for (int i = 0; i < 2; i++) {
        ck_assert_float_eq_tol(out[i], silu(x[i]) * x[i], 1e-4f);
        ck_assert_float_eq_tol(out[2 + i], 4.0f * silu(2.0f * x[i]) * x[i], 1e-4f);
    }
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
}
END_TEST

START_TEST(bad_calls_of_the_reference)
{
    ferrum_expert_stack_t stack;
    const float x[5] = {0};
    float out[6];
    identity_experts(2, 2, (const float[]){1.0f, 2.0f}, &stack);
    ferrum_router_output_t route = routing(1, 1, (const uint32_t[]){99}, (const float[]){1.0f});
    EXPECT_FAILS(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 2, &route, out, &err),
                 FERRUM_INVALID_INPUT, "99");
    route.expert_ids[0] = 1;
    EXPECT_FAILS(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 5, &route, out, &err),
                 FERRUM_INVALID_ARGUMENT, "5 values");
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
}
END_TEST

START_TEST(route_then_forward)
{
    ferrum_expert_stack_t stack;
    const float x[] = {1.5f, -0.5f}, logits[] = {0.25f};
    float out[2];
    ferrum_router_output_t route = {0};
    identity_experts(2, 1, (const float[]){1.0f}, &stack);
    EXPECT_OK(ferrum_route(logits, 1, 1, 1, 1, true, &route, &err));
    EXPECT_OK(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 2, &route, out, &err));
    for (int i = 0; i < 2; i++)
        ck_assert_float_eq_tol(out[i], x[i] * silu(x[i]), 1e-4f);
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
}
END_TEST

START_TEST(missing_forms)
{
    ferrum_expert_stack_t stack;
    identity_experts(4, 3, (const float[]){1.0f, 2.0f, 3.0f}, &stack);
    ferrum_buffer_t *b = backend_zeros(&backend, 64);
    static const ferrum_expert_role_t roles[] = {FERRUM_ROLE_GATE, FERRUM_ROLE_UP,
                                                 FERRUM_ROLE_DOWN};
    static const char *const names[] = {"no gate stack", "no up stack", "no down stack"};
    for (int i = 0; i < 3; i++) {
        EXPECT_FAILS(ferrum_expert_stack_gemv(backend.ctx, &stack, roles[i], b, b, b, 1, &err),
                     FERRUM_NO_STACK, names[i]);
        EXPECT_FAILS(
            ferrum_expert_stack_gemv_offset(backend.ctx, &stack, roles[i], b, 4, b, 1, b, 1, &err),
            FERRUM_NO_STACK, names[i]);
        EXPECT_FAILS(ferrum_expert_stack_gemv_batched(backend.ctx, &stack, roles[i], b, b, b, 1, 1,
                                                      4, 0, &err),
                     FERRUM_NO_STACK, names[i]);
        EXPECT_FAILS(ferrum_expert_stack_gemm(backend.ctx, &stack, roles[i], b, b, b, b, NULL, 1, 1,
                                              1, &err),
                     FERRUM_NO_STACK, names[i]);
    }
    EXPECT_FAILS(ferrum_expert_stack_gemv_gate_up_silu(backend.ctx, &stack, b, b, b, 1, &err),
                 FERRUM_NO_STACK, "no gate stack");
    EXPECT_FAILS(ferrum_expert_stack_gemv_gate_up_silu_batched(backend.ctx, &stack, b, b, b, 1, 1,
                                                               4, 0, &err),
                 FERRUM_NO_STACK, "no gate stack");
    ck_assert_ptr_null(ferrum_expert_stack_gate_up_store(&stack));
    ck_assert_ptr_null(ferrum_expert_stack_down_store(&stack));
    ferrum_moe_env_t env;
    ferrum_moe_route_scratch_t scratch = {0};
    ferrum_moe_env_defaults(&env);
    ferrum_moe_forward_bucketed_params_t params = {.ctx = backend.ctx,
                                                   .x = b,
                                                   .router_logits = b,
                                                   .out = b,
                                                   .batch = 1,
                                                   .hidden = 4,
                                                   .intermediate = 4,
                                                   .num_experts = 3,
                                                   .top_k = 1,
                                                   .experts = &stack,
                                                   .x_packed = b,
                                                   .gate_up_packed = b,
                                                   .silu_packed = b,
                                                   .down_packed = b,
                                                   .route_scratch = &scratch,
                                                   .env = &env};
    EXPECT_FAILS(ferrum_moe_forward_bucketed(&params, &err), FERRUM_NO_STACK,
                 "requires stacked gate_up store");
    params.num_experts = 5;
    EXPECT_FAILS(ferrum_moe_forward_bucketed(&params, &err), FERRUM_INVALID_ARGUMENT,
                 "3 experts, the router 5");
    backend_release(&backend, b);
    ferrum_expert_stack_free(&stack);
}
END_TEST

/* Stacks answer for the count where there are no per-expert lists, and per-pair refuses them. */
START_TEST(count_of_stacks)
{
    const layer_shape_t shape = {7, 64, 32,    2,    FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0,
                                 0, 0,  false, false};
    layer_t layer;
    ferrum_expert_stack_t stack;
    layer_init(&layer, &shape, 1);
    layer_load(&layer, &backend.ops, FERRUM_MOE_PATH_STACKED, &stack);
    ck_assert_uint_eq(stack.expert_count, 0);
    ck_assert_uint_eq(ferrum_expert_stack_num_experts(&stack), 7);
    ferrum_router_output_t route = routing(1, 1, (const uint32_t[]){0}, (const float[]){1.0f});
    float x[64] = {0}, out[64];
    EXPECT_FAILS(ferrum_moe_forward_cpu(backend.ctx, &stack, x, 64, &route, out, &err),
                 FERRUM_NO_STACK, "one by one");
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
    layer_free(&layer);
}
END_TEST

/* A Marlin form has views that give the stack's results. */
START_TEST(marlin_views)
{
    const layer_shape_t shape = {3, 64, 32,   2,   FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                                 4, 32, true, true};
    layer_t layer;
    step_t step;
    ferrum_expert_stack_t stack;
    float out[4 * 64];
    layer_init(&layer, &shape, 8);
    step_init(&step, &layer, 4, false, 9);
    layer_load(&layer, &backend.ops, FERRUM_MOE_PATH_BUCKETED, &stack);
    ck_assert_ptr_nonnull(ferrum_expert_stack_gate_up_store(&stack));
    ck_assert_ptr_nonnull(ferrum_expert_stack_down_store(&stack));
    ck_assert_uint_eq(stack.expert_count, 3);
    ferrum_router_output_t route = {0};
    EXPECT_OK(ferrum_route(step.logits, 12, 4, 3, 2, true, &route, &err));
    EXPECT_OK(ferrum_moe_forward_cpu(backend.ctx, &stack, step.x, 4 * 64, &route, out, &err));
    ck_assert_double_lt(step_error(&step, &layer, out), 5e-4);
    ferrum_router_output_free(&route);
    ferrum_expert_stack_free(&stack);
    step_free(&step);
    layer_free(&layer);
}
END_TEST

START_TEST(refused_forms)
{
    layer_t blocks, gptq;
    ferrum_expert_stack_t stack;
    const layer_shape_t q8 = {2, 64, 32,    1,    FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q8_0,
                              0, 0,  false, false};
    const layer_shape_t g4 = {2, 64, 32,   1,    FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                              4, 32, true, false};
    layer_init(&blocks, &q8, 1);
    layer_init(&gptq, &g4, 2);
    ferrum_gguf_weights_t *slabs = blocks.slabs;
    EXPECT_FAILS(ferrum_expert_stack_from_blocks(&backend.ops, FERRUM_MOE_PATH_BUCKETED, &slabs[0],
                                                 &slabs[1], &slabs[2], &stack, &err),
                 FERRUM_UNSUPPORTED, "does not take GGUF");
    EXPECT_FAILS(ferrum_expert_stack_from_gptq(&backend.ops, FERRUM_MOE_PATH_STACKED, gptq.pointers,
                                               gptq.pointers + 2, gptq.pointers + 4, 2, &stack,
                                               &err),
                 FERRUM_UNSUPPORTED, "does not take GPTQ");
    slabs[1].format = 9999; /* never expanded, never guessed */
    EXPECT_FAILS(ferrum_expert_stack_from_blocks(&backend.ops, FERRUM_MOE_PATH_PER_PAIR, &slabs[0],
                                                 &slabs[1], &slabs[2], &stack, &err),
                 FERRUM_UNSUPPORTED, "up experts have format 9999");
    slabs[1].format = FERRUM_FORMAT_Q8_0;
    slabs[2].bytes -= 1;
    EXPECT_FAILS(ferrum_expert_stack_from_blocks(&backend.ops, FERRUM_MOE_PATH_STACKED, &slabs[0],
                                                 &slabs[1], &slabs[2], &stack, &err),
                 FERRUM_INVALID_ARGUMENT, "down experts");
    gptq.matrices[3].zero_convention = FERRUM_ZERO_STORED; /* up of expert 1 */
    EXPECT_FAILS(ferrum_expert_stack_from_gptq(&backend.ops, FERRUM_MOE_PATH_BUCKETED,
                                               gptq.pointers, gptq.pointers + 2, gptq.pointers + 4,
                                               2, &stack, &err),
                 FERRUM_INVALID_INPUT, "expert 1 differ in zero points");
    gptq.matrices[3].zero_convention = FERRUM_ZERO_STORED_MINUS_ONE;
    int32_t one_group[64] = {0};
    gptq.matrices[0].g_idx = one_group; /* not the order of its up */
    gptq.matrices[0].g_idx_count = 64;
    EXPECT_FAILS(ferrum_expert_stack_from_gptq(&backend.ops, FERRUM_MOE_PATH_PER_PAIR,
                                               gptq.pointers, gptq.pointers + 2, gptq.pointers + 4,
                                               2, &stack, &err),
                 FERRUM_INVALID_INPUT, "expert 0 differ in g_idx");
    gptq.matrices[0].g_idx = NULL;
    gptq.matrices[0].g_idx_count = 0;
    const float bias[32] = {0};
    gptq.matrices[2].bias = bias;
    EXPECT_FAILS(ferrum_expert_stack_from_gptq(&backend.ops, FERRUM_MOE_PATH_PER_PAIR,
                                               gptq.pointers, gptq.pointers + 2, gptq.pointers + 4,
                                               2, &stack, &err),
                 FERRUM_UNSUPPORTED, "biases");
    gptq.matrices[2].bias = NULL;
    gptq.matrices[2].qweight_count--;
    EXPECT_FAILS(ferrum_expert_stack_from_gptq(&backend.ops, FERRUM_MOE_PATH_PER_PAIR,
                                               gptq.pointers, gptq.pointers + 2, gptq.pointers + 4,
                                               2, &stack, &err),
                 FERRUM_INVALID_ARGUMENT, "up of expert 0");
    layer_free(&blocks);
    layer_free(&gptq);
}
END_TEST

/* Room for every block size; nothing is made twice. */
START_TEST(device_scratch)
{
    ferrum_device_route_scratch_t scratch = {0};
    EXPECT_OK(ferrum_device_route_scratch_reserve(&backend.ops, 10, 3, 2, &scratch, &err));
    ck_assert_uint_eq(scratch.selected_ids.count, 20);
    ck_assert_uint_eq(scratch.pair_weights.count, 20);
    ck_assert_uint_eq(scratch.pairs_by_token.count, 20);
    ck_assert_uint_eq(scratch.packed_token_idx.count, 20);
    ck_assert_uint_eq(scratch.expert_offsets.count, 4);
    ck_assert_uint_eq(scratch.sorted_tokens.count, 20 + 64 * 3);
    ck_assert_uint_eq(scratch.block_ids.count, 3 + 3 + 1); /* ceil(20 / 8) + E + 1 */
    ck_assert_uint_eq(scratch.total_post_pad.count, 1);
    ferrum_buffer_info_t info = {.head = FERRUM_HEAD(ferrum_buffer_info_t)};
    EXPECT_OK(backend.ops.backend->buffer_info(scratch.pair_weights.buffer, &info, &err));
    ck_assert_uint_eq(info.dtype, FERRUM_DTYPE_F32);
    EXPECT_OK(backend.ops.backend->buffer_info(scratch.block_ids.buffer, &info, &err));
    ck_assert_uint_eq(info.dtype, FERRUM_DTYPE_I32);
    const ferrum_buffer_t *before = scratch.sorted_tokens.buffer;
    EXPECT_OK(ferrum_device_route_scratch_reserve(&backend.ops, 9, 3, 2, &scratch, &err));
    ck_assert_ptr_eq(scratch.sorted_tokens.buffer, before);
    EXPECT_FAILS(
        ferrum_device_route_scratch_reserve(&backend.ops, UINT32_MAX, 3, 2, &scratch, &err),
        FERRUM_INVALID_ARGUMENT, "exceed 2^31");
    ferrum_device_route_scratch_free(&backend.ops, &scratch);
}
END_TEST

/* ---- files ---- */

static void save_gguf(const char *path, const layer_t *layer, uint32_t number, int without)
{
    static const char *const roles[] = {"gate", "up", "down"};
    ferrum_gguf_writer_t *writer = ferrum_gguf_writer_new();
    for (int i = 0; i < 3; i++) {
        char name[64];
        const ferrum_gguf_weights_t *slab = &layer->slabs[i];
        (void)snprintf(name, sizeof name, "blk.%u.ffn_%s_exps.weight", number, roles[i]);
        if (i != without)
            ferrum_gguf_writer_tensor(writer, name, slab->format, 3,
                                      (uint64_t[]){slab->cols, slab->rows, slab->experts},
                                      slab->data, slab->bytes);
    }
    ferrum_gguf_writer_save(writer, path);
    ferrum_gguf_writer_free(writer);
}

static void check_against_reference(const layer_t *layer, const ferrum_expert_stack_t *stack,
                                    ferrum_moe_path_t path)
{
    float out[5 * 128];
    step_t step;
    ferrum_moe_env_t env;
    ferrum_moe_env_defaults(&env);
    env.path = path;
    step_init(&step, layer, 5, false, 44);
    run_step(&backend, layer, stack, &env, &step, false, out);
    ck_assert_double_lt(step_error(&step, layer, out), 5e-4);
    step_free(&step);
}

static const layer_shape_t file_shapes[] = {
    {3, 4, 6, 1, FERRUM_FORMAT_F32, FERRUM_FORMAT_F32, 0, 0, false, false},
    {4, 4, 8, 2, FERRUM_FORMAT_F32, FERRUM_FORMAT_F32, 0, 0, false, false},
    {4, 64, 32, 2, FERRUM_FORMAT_Q8_0, FERRUM_FORMAT_Q4_1, 0, 0, false, false},
};

START_TEST(from_gguf_files)
{
    const layer_shape_t *shape = &file_shapes[_i];
    static const ferrum_moe_path_t paths[] = {FERRUM_MOE_PATH_EXPERT_FFN, FERRUM_MOE_PATH_STACKED,
                                              FERRUM_MOE_PATH_PER_PAIR};
    ferrum_test_path_t directory, path;
    layer_t layer;
    ferrum_gguf_t *gguf;
    ferrum_expert_stack_t stack;
    ferrum_test_make_directory(directory);
    ferrum_test_join(directory, "layer.gguf", path);
    layer_init(&layer, shape, 31);
    save_gguf(path, &layer, 2, -1);
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(ferrum_expert_stack_open_and_load(&backend.ops, path, 2, shape->experts,
                                                    shape->hidden, shape->intermediate, paths[i],
                                                    &stack, &gguf, &err));
        ck_assert_uint_eq(ferrum_expert_stack_num_experts(&stack), shape->experts);
        check_against_reference(&layer, &stack, paths[i]);
        ferrum_expert_stack_free(&stack);
        ferrum_gguf_close(gguf);
    }
    EXPECT_FAILS(ferrum_expert_stack_open_and_load(&backend.ops, path, 3, shape->experts,
                                                   shape->hidden, shape->intermediate, paths[0],
                                                   &stack, &gguf, &err),
                 FERRUM_NOT_FOUND, "blk.3.ffn_gate_exps.weight");
    EXPECT_FAILS(ferrum_expert_stack_open_and_load(&backend.ops, path, 2, shape->experts + 1,
                                                   shape->hidden, shape->intermediate, paths[0],
                                                   &stack, &gguf, &err),
                 FERRUM_INVALID_INPUT, "blk.2.ffn_gate_exps.weight");
    save_gguf(path, &layer, 2, 2);
    EXPECT_FAILS(ferrum_expert_stack_open_and_load(&backend.ops, path, 2, shape->experts,
                                                   shape->hidden, shape->intermediate, paths[0],
                                                   &stack, &gguf, &err),
                 FERRUM_NOT_FOUND, "blk.2.ffn_down_exps.weight");
    EXPECT_FAILS(ferrum_expert_stack_open_and_load(&backend.ops, "/nonexistent", 2, 1, 1, 1,
                                                   paths[0], &stack, &gguf, &err),
                 FERRUM_NOT_FOUND, "/nonexistent");
    ferrum_test_remove_directory(directory);
    layer_free(&layer);
}
END_TEST

static void add_matrix(ferrum_safetensors_writer_t *writer, const char *prefix,
                       const ferrum_gptq_t *m)
{
    char name[160];
    uint64_t per_word = 32 / m->bits, groups = m->scales_count / m->n;
    (void)snprintf(name, sizeof name, "%s.qweight", prefix);
    ferrum_safetensors_writer_add(writer, name, "I32", 2, (uint64_t[]){m->k / per_word, m->n},
                                  m->qweight, m->qweight_count * 4);
    (void)snprintf(name, sizeof name, "%s.qzeros", prefix);
    ferrum_safetensors_writer_add(writer, name, "I32", 2, (uint64_t[]){groups, m->n / per_word},
                                  m->qzeros, m->qzeros_count * 4);
    (void)snprintf(name, sizeof name, "%s.scales", prefix);
    ferrum_safetensors_writer_add(writer, name, "F32", 2, (uint64_t[]){groups, m->n}, m->scales,
                                  m->scales_count * 4);
    if (m->g_idx) {
        (void)snprintf(name, sizeof name, "%s.g_idx", prefix);
        ferrum_safetensors_writer_add(writer, name, "I32", 1, (uint64_t[]){m->k}, m->g_idx,
                                      m->k * 4u);
    }
}

static void save_gptq(const char *path, const layer_t *layer, uint32_t number)
{
    static const char *const roles[] = {"gate", "up", "down"};
    ferrum_safetensors_writer_t *writer = ferrum_safetensors_writer_new();
    for (uint32_t i = 0; i < 3 * layer->shape.experts; i++) {
        char prefix[128];
        (void)snprintf(prefix, sizeof prefix, "model.layers.%u.mlp.experts.%u.%s_proj", number,
                       i % layer->shape.experts, roles[i / layer->shape.experts]);
        add_matrix(writer, prefix, &layer->matrices[i]);
    }
    ferrum_safetensors_writer_save(writer, path);
    ferrum_safetensors_writer_free(writer);
}

START_TEST(from_gptq_files)
{
    layer_shape_t shape = {3, 64, 32,   2,      FERRUM_FORMAT_GPTQ, FERRUM_FORMAT_GPTQ,
                           4, 32, true, _i == 1};
    static const ferrum_moe_path_t paths[] = {FERRUM_MOE_PATH_EXPERT_FFN, FERRUM_MOE_PATH_BUCKETED,
                                              FERRUM_MOE_PATH_PER_PAIR};
    ferrum_gptq_config_t config = {
        .present = true, .bits = 4, .group_size = 32, .desc_act = _i == 1};
    ferrum_test_path_t directory, path;
    ferrum_safetensors_t *checkpoint;
    layer_t layer;
    ferrum_expert_stack_t stack;
    ferrum_test_make_directory(directory);
    ferrum_test_join(directory, "model.safetensors", path);
    layer_init(&layer, &shape, 12);
    save_gptq(path, &layer, 1);
    EXPECT_OK(ferrum_safetensors_open(path, &checkpoint, &err));
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(ferrum_expert_stack_load_from_gptq(&backend.ops, checkpoint, &config, 1, 3, 64,
                                                     32, paths[i], &stack, &err));
        check_against_reference(&layer, &stack, paths[i]);
        ferrum_expert_stack_free(&stack);
    }
    ferrum_model_config_t model = {.hidden = 64,
                                   .experts = 3,
                                   .experts_used = 2,
                                   .expert_intermediate = 32,
                                   .norm_topk_prob = true,
                                   .gptq = config};
    ferrum_moe_problem_t problem;
    EXPECT_OK(ferrum_moe_problem_from_gptq(checkpoint, 1, &model, &problem, &err));
    ck_assert_uint_eq(problem.gate, FERRUM_FORMAT_GPTQ);
    ck_assert_uint_eq(problem.bits, 4);
    ck_assert_int_eq(problem.act_order, _i == 1);
    ck_assert(problem.asymmetric);
    EXPECT_FAILS(ferrum_expert_stack_load_from_gptq(&backend.ops, checkpoint, &config, 1, 4, 64, 32,
                                                    paths[0], &stack, &err),
                 FERRUM_NOT_FOUND, "model.layers.1.mlp.experts.3.gate_proj");
    ferrum_safetensors_close(checkpoint);
    ferrum_test_remove_directory(directory);
    layer_free(&layer);
}
END_TEST

int main(void)
{
    (void)fixture_plugin();
    Suite *suite = suite_create("experts");
    TCase *tcase = tcase_create("experts");
    tcase_add_checked_fixture(tcase, open_backend, close_backend);
    tcase_add_test(tcase, dense_stacks);
    tcase_add_test(tcase, one_identity_expert);
    tcase_add_test(tcase, two_experts);
    tcase_add_test(tcase, rows_use_their_own_experts);
    tcase_add_test(tcase, bad_calls_of_the_reference);
    tcase_add_test(tcase, route_then_forward);
    tcase_add_test(tcase, missing_forms);
    tcase_add_test(tcase, count_of_stacks);
    tcase_add_test(tcase, marlin_views);
    tcase_add_test(tcase, refused_forms);
    tcase_add_test(tcase, device_scratch);
    tcase_add_loop_test(tcase, from_gguf_files, 0, sizeof file_shapes / sizeof file_shapes[0]);
    tcase_add_loop_test(tcase, from_gptq_files, 0, 2);
    suite_add_tcase(suite, tcase);
    return expect_run(suite);
}
