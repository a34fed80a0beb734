/* SPDX-License-Identifier: MIT */
#include "tests/moe/fixture.h"

#include "host/moe/router.h"

#include "tests/kernels/fixture.h"

#include <ferrum/moe.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- backend ---- */

const char *fixture_plugin(void)
{
    static char path[4096];
    const char *build = getenv("FERRUM_TEST_BUILDDIR");
    (void)snprintf(path, sizeof path, "%s/backends/cpu/.libs/cpu.so", build ? build : ".");
    if (access(path, R_OK) != 0) {
        printf("%s was not built\n", path);
        exit(77);
    }
    return path;
}

void backend_open(backend_t *backend, uint32_t threads)
{
    ferrum_options_t *options;
    *backend = (backend_t){0};
    EXPECT_OK(ferrum_options_new(&options, &err));
    EXPECT_OK(ferrum_loader_new(options, NULL, NULL, &backend->loader, &err));
    ferrum_options_free(options);
    EXPECT_OK(ferrum_loader_open(backend->loader, fixture_plugin(), &backend->module, &err));
    const ferrum_backend_ops_t *ops = ferrum_module_backend(backend->module);
    EXPECT_OK(ops->device_open(ferrum_module_host(backend->module), NULL, &backend->device, &err));
    EXPECT_OK(ferrum_team_new(threads, &backend->team, &err));
    EXPECT_OK(ops->context_new(backend->device, ferrum_team_executor(backend->team), &backend->ctx,
                               &err));
    EXPECT_OK(ferrum_ops_init(backend->module, backend->device, &backend->ops, &err));
}

void backend_close(backend_t *backend)
{
    ferrum_unload_report_t report = {0};
    backend->ops.backend->context_free(backend->ctx);
    ferrum_team_free(backend->team);
    backend->ops.backend->device_release(backend->device);
    ferrum_module_release(backend->module, &report);
    ferrum_loader_free(backend->loader);
    ck_assert_msg(report.leaked_blocks == 0, "leaked: %s", report.detail);
}

ferrum_buffer_t *backend_zeros(const backend_t *backend, uint64_t count)
{
    ferrum_buffer_t *buffer;
    EXPECT_OK(backend->ops.backend->buffer_alloc(
        backend->device, backend->ops.info.activation_dtype, count, &buffer, &err));
    return buffer;
}

ferrum_buffer_t *backend_floats(const backend_t *backend, const float *values, uint64_t count)
{
    ferrum_buffer_t *buffer = backend_zeros(backend, count);
    EXPECT_OK(backend->ops.backend->buffer_write_f32(backend->ctx, buffer, 0, values, count, &err));
    return buffer;
}

ferrum_buffer_t *backend_dirty(const backend_t *backend, uint64_t count)
{
    float *values = malloc((count + 1) * sizeof *values);
    for (uint64_t i = 0; i < count; i++)
        values[i] = -1.5e30f;
    ferrum_buffer_t *buffer = backend_floats(backend, values, count);
    free(values);
    return buffer;
}

void backend_read(const backend_t *backend, const ferrum_buffer_t *buffer, float *out_values,
                  uint64_t count)
{
    EXPECT_OK(
        backend->ops.backend->buffer_read_f32(backend->ctx, buffer, 0, out_values, count, &err));
}

void backend_release(const backend_t *backend, ferrum_buffer_t *buffer)
{
    backend->ops.backend->buffer_release(buffer);
}

/* ---- layers ---- */

static void make_slab(layer_t *layer, int role, ferrum_weight_format_t format, uint32_t rows,
                      uint32_t cols, fixture_rng_t *rng)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(format);
    uint64_t blocks = (uint64_t)layer->shape.experts * rows * (cols / traits->block_values);
    layer->blocks[role] = malloc(blocks * traits->block_bytes);
    fixture_fill_blocks(rng, traits, layer->blocks[role], blocks);
    layer->slabs[role] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                                 .format = format,
                                                 .experts = layer->shape.experts,
                                                 .rows = rows,
                                                 .cols = cols,
                                                 .data = layer->blocks[role],
                                                 .bytes = blocks * traits->block_bytes};
}

/* A random order of rows in which every group is full. */
static int32_t *random_g_idx(uint32_t k, uint32_t group_size, uint64_t *seed)
{
    int32_t *g_idx = malloc(k * sizeof *g_idx);
    for (uint32_t r = 0; r < k; r++)
        g_idx[r] = (int32_t)(r / group_size);
    for (uint32_t r = k - 1; r > 0; r--) {
        uint32_t other = lcg_below(seed, r + 1);
        int32_t kept = g_idx[r];
        g_idx[r] = g_idx[other];
        g_idx[other] = kept;
    }
    return g_idx;
}

static void make_matrix(ferrum_gptq_t *m, const layer_shape_t *shape, uint32_t k, uint32_t n,
                        const int32_t *g_idx, uint64_t *seed)
{
    uint32_t per_word = 32 / shape->bits, group_size = shape->group_size ? shape->group_size : k;
    uint64_t words = (uint64_t)k / per_word * n, groups = k / group_size;
    /* A stored 8-bit zero of 255 means 256, which no loader takes. */
    const int32_t zero_mask = shape->bits == 8 ? 0x7f7f7f7f : -1;
    int32_t *qweight = malloc(words * sizeof *qweight);
    int32_t *qzeros = malloc(groups * (n / per_word) * sizeof *qzeros);
    float *scales = malloc(groups * n * sizeof *scales);
    for (uint64_t i = 0; i < words; i++)
        qweight[i] = (int32_t)(lcg_bits(seed) ^ lcg_bits(seed) << 1);
    for (uint64_t i = 0; i < groups * (n / per_word); i++)
        qzeros[i] = (int32_t)(lcg_bits(seed) ^ lcg_bits(seed) << 1) & zero_mask;
    for (uint64_t i = 0; i < groups * n; i++)
        scales[i] = lcg_float(seed, 0.01f, 0.1f);
    if (!shape->asymmetric) {
        free(qzeros);
        qzeros = NULL;
    }
    *m = (ferrum_gptq_t){.head = FERRUM_HEAD(ferrum_gptq_t),
                         .bits = shape->bits,
                         .group_size = shape->group_size,
                         .zero_convention = FERRUM_ZERO_STORED_MINUS_ONE,
                         .k = k,
                         .n = n,
                         .qweight = qweight,
                         .qweight_count = words,
                         .qzeros = qzeros,
                         .qzeros_count = qzeros ? groups * (n / per_word) : 0,
                         .scales = scales,
                         .scales_count = groups * n,
                         .scales_dtype = FERRUM_DTYPE_F32,
                         .g_idx = g_idx,
                         .g_idx_count = g_idx ? k : 0};
}

/* gate and up of an expert share their order of rows, as one calibration makes them. */
static void make_gptq(layer_t *layer, uint64_t seed)
{
    const layer_shape_t *shape = &layer->shape;
    uint32_t experts = shape->experts, h = shape->hidden, im = shape->intermediate;
    layer->matrices = calloc(3 * experts, sizeof *layer->matrices);
    layer->pointers = calloc(3 * experts, sizeof *layer->pointers);
    for (uint32_t e = 0; e < experts; e++) {
        const int32_t *gate_up = NULL, *down = NULL;
        if (shape->act_order) {
            gate_up = random_g_idx(h, shape->group_size, &seed);
            down = random_g_idx(im, shape->group_size, &seed);
        }
        make_matrix(&layer->matrices[e], shape, h, im, gate_up, &seed);
        make_matrix(&layer->matrices[experts + e], shape, h, im, gate_up, &seed);
        make_matrix(&layer->matrices[2 * experts + e], shape, im, h, down, &seed);
    }
    for (uint32_t i = 0; i < 3 * experts; i++)
        layer->pointers[i] = &layer->matrices[i];
}

void layer_init(layer_t *layer, const layer_shape_t *shape, uint64_t seed)
{
    *layer = (layer_t){.shape = *shape};
    fixture_rng_t rng = {seed + 1};
    bool gptq = shape->gate_up == FERRUM_FORMAT_GPTQ;
    if (gptq) {
        make_gptq(layer, seed);
    } else {
        make_slab(layer, 0, shape->gate_up, shape->intermediate, shape->hidden, &rng);
        make_slab(layer, 1, shape->gate_up, shape->intermediate, shape->hidden, &rng);
        make_slab(layer, 2, shape->down, shape->hidden, shape->intermediate, &rng);
    }
    for (int i = 0; i < 3; i++)
        layer->roles[i] = (ferrum_expert_weights_t){
            .head = FERRUM_HEAD(ferrum_expert_weights_t),
            .gguf = gptq ? NULL : &layer->slabs[i],
            .gptq = gptq ? layer->pointers + (size_t)i * shape->experts : NULL};
    layer->desc = (ferrum_expert_ffn_desc_t){.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                             .hidden = shape->hidden,
                                             .intermediate = shape->intermediate,
                                             .num_experts = shape->experts,
                                             .gate = &layer->roles[0],
                                             .up = &layer->roles[1],
                                             .down = &layer->roles[2]};
    layer->problem = (ferrum_moe_problem_t){.hidden = shape->hidden,
                                            .intermediate = shape->intermediate,
                                            .num_experts = shape->experts,
                                            .top_k = shape->top_k,
                                            .norm_topk = true,
                                            .gate = shape->gate_up,
                                            .up = shape->gate_up,
                                            .down = shape->down,
                                            .bits = shape->bits,
                                            .group_size = shape->group_size,
                                            .act_order = shape->act_order,
                                            .asymmetric = shape->asymmetric};
}

void layer_free(layer_t *layer)
{
    for (int i = 0; i < 3; i++)
        free(layer->blocks[i]);
    for (uint32_t i = 0; layer->matrices && i < 3 * layer->shape.experts; i++) {
        const ferrum_gptq_t *m = &layer->matrices[i];
        free((void *)(uintptr_t)m->qweight);
        free((void *)(uintptr_t)m->qzeros);
        free((void *)(uintptr_t)m->scales);
        if (i < layer->shape.experts || i >= 2 * layer->shape.experts)
            free((void *)(uintptr_t)m->g_idx);
    }
    free(layer->matrices);
    free(layer->pointers);
}

void layer_load(const layer_t *layer, const ferrum_ops_t *ops, ferrum_moe_path_t path,
                ferrum_expert_stack_t *out_stack)
{
    uint32_t experts = layer->shape.experts;
    if (layer->pointers)
        EXPECT_OK(ferrum_expert_stack_from_gptq(
            ops, path, layer->pointers, layer->pointers + experts,
            layer->pointers + 2 * (size_t)experts, experts, out_stack, &err));
    else
        EXPECT_OK(ferrum_expert_stack_from_blocks(ops, path, &layer->slabs[0], &layer->slabs[1],
                                                  &layer->slabs[2], out_stack, &err));
    ck_assert_uint_eq(ferrum_expert_stack_num_experts(out_stack), experts);
}

/* ---- steps ---- */

void step_init(step_t *step, const layer_t *layer, uint32_t tokens, bool skewed, uint64_t seed)
{
    uint32_t h = layer->shape.hidden, experts = layer->shape.experts, k = layer->shape.top_k;
    step->tokens = tokens;
    step->x = malloc(((size_t)tokens * h + 1) * sizeof(float));
    step->logits = malloc(((size_t)tokens * experts + 1) * sizeof(float));
    step->want = malloc(((size_t)tokens * h + 1) * sizeof(double));
    for (size_t i = 0; i < (size_t)tokens * h; i++)
        step->x[i] = lcg_float(&seed, -0.02f, 0.02f);
    for (size_t i = 0; i < (size_t)tokens * experts; i++)
        step->logits[i] =
            lcg_float(&seed, -2.0f, 2.0f) - (skewed ? 3.0f * (float)(i % experts) : 0.0f);
    ferrum_router_output_t routed = {0};
    EXPECT_OK(ferrum_route(step->logits, (uint64_t)tokens * experts, tokens, experts, k, true,
                           &routed, &err));
    EXPECT_OK(ferrum_moe_reference(&layer->desc, step->x, (const int32_t *)routed.expert_ids,
                                   routed.expert_weights, step->want, tokens, k, &err));
    ferrum_router_output_free(&routed);
}

void step_free(step_t *step)
{
    free(step->x);
    free(step->logits);
    free(step->want);
}

double step_error(const step_t *step, const layer_t *layer, const float *got)
{
    double worst = 0.0;
    uint32_t h = layer->shape.hidden;
    for (uint32_t t = 0; t < step->tokens; t++) {
        double difference = 0.0, norm = 0.0;
        for (uint32_t i = 0; i < h; i++) {
            double want = step->want[(size_t)t * h + i];
            double off = (double)got[(size_t)t * h + i] - want;
            difference += off * off;
            norm += want * want;
        }
        double error = norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
        if (!(error <= worst)) /* so that NaN stays */
            worst = error;
    }
    return worst;
}

void run_step(const backend_t *backend, const layer_t *layer, const ferrum_expert_stack_t *stack,
              const ferrum_moe_env_t *env, const step_t *step, bool decode, float *out_got)
{
    uint64_t values = (uint64_t)step->tokens * layer->shape.hidden;
    ferrum_moe_plan_t plan;
    ferrum_moe_scratch_t *scratch;
    EXPECT_OK(ferrum_moe_plan_resolve(&backend->ops, env, &layer->problem, 1, &plan, &err));
    EXPECT_OK(ferrum_moe_scratch_new(&backend->ops, &plan, step->tokens, &scratch, &err));
    ferrum_buffer_t *x = backend_floats(backend, step->x, values);
    ferrum_buffer_t *logits =
        backend_floats(backend, step->logits, (uint64_t)step->tokens * layer->shape.experts);
    ferrum_buffer_t *out = backend_dirty(backend, values);
    ferrum_moe_run_args_t args = {.ctx = backend->ctx,
                                  .experts = stack,
                                  .x = x,
                                  .router_logits = logits,
                                  .tokens = step->tokens,
                                  .decode = decode,
                                  .out = out};
    EXPECT_OK(ferrum_moe_run(scratch, &args, &err));
    backend_read(backend, out, out_got, values);
    backend_release(backend, x);
    backend_release(backend, logits);
    backend_release(backend, out);
    ferrum_moe_scratch_free(scratch);
}
