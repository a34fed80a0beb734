/* SPDX-License-Identifier: MIT */
#include "backends/cuda/entries.h"
#include "backends/cuda/linear.h"
#include "backends/cuda/product.h"

struct ferrum_marlin_stack {
    atomic_uint refs;
    ferrum_device_t *device;
    ferrum_cuda_weights_t weights;
};

ferrum_status_t ferrum_cuda_load_gptq_stacked(ferrum_device_t *device,
                                              const ferrum_gptq_t *const *experts,
                                              uint32_t num_experts,
                                              ferrum_marlin_stack_t **out_stack,
                                              ferrum_error_t *err)
{
    ferrum_cuda_weights_t loaded;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_stack, err);
    FERRUM_TRY(ferrum_cuda_weights_from_gptq(device, experts, num_experts, NULL, &loaded, err));
    ferrum_marlin_stack_t *stack =
        ferrum_cuda_object_new(device, sizeof *stack, "an expert stack", err);
    if (!stack) {
        ferrum_cuda_weights_free(&loaded);
        return FERRUM_OUT_OF_MEMORY;
    }
    atomic_init(&stack->refs, 1);
    stack->device = device;
    stack->weights = loaded;
    *out_stack = stack;
    return FERRUM_OK;
}

void ferrum_cuda_marlin_stack_retain(ferrum_marlin_stack_t *stack)
{
    ferrum_cuda_ref(&stack->refs);
}

void ferrum_cuda_marlin_stack_release(ferrum_marlin_stack_t *stack)
{
    if (!stack || !ferrum_cuda_unref(&stack->refs))
        return;
    ferrum_cuda_weights_free(&stack->weights);
    ferrum_cuda_object_free(stack->device, stack, sizeof *stack);
}

ferrum_status_t ferrum_cuda_marlin_stack_info(const ferrum_marlin_stack_t *stack,
                                              ferrum_expert_stack_info_t *out_info,
                                              ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_expert_stack_info_t info = {
        .head = FERRUM_HEAD(ferrum_expert_stack_info_t),
        .error_bound = ferrum_cuda_error_bound(stack->device),
        .num_experts = stack->weights.experts,
        .n = stack->weights.n,
        .k = stack->weights.k,
        .format = FERRUM_FORMAT_GPTQ,
        .bits = stack->weights.bits,
        .bytes = stack->weights.bytes,
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_STACK_INFO_MIN_SIZE, &info, err);
}

ferrum_status_t ferrum_cuda_zero_workspace(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                           ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_POINTER(stack, err);
    return ferrum_cuda_check_alive(ctx, err); /* the kernels have no locks to clear */
}

/** Every dispatch lies in the buffers, and no output row is written twice. */
static ferrum_status_t check_dispatches(const ferrum_cuda_weights_t *weights,
                                        const ferrum_moe_dispatch_t *dispatches, uint32_t count,
                                        uint64_t in_rows, uint64_t out_rows, ferrum_error_t *err)
{
    for (uint32_t i = 0; i < count; i++) {
        const ferrum_moe_dispatch_t *d = &dispatches[i];
        if (d->expert >= weights->experts)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                               "gemm_phase_batched: dispatch %u is for expert %u of %u", i,
                               d->expert, weights->experts);
        if ((uint64_t)d->in_row + d->rows > in_rows || (uint64_t)d->out_row + d->rows > out_rows)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                               "gemm_phase_batched: dispatch %u needs rows %u and %u on for %u "
                               "rows, in has %llu and out %llu",
                               i, d->in_row, d->out_row, d->rows, (unsigned long long)in_rows,
                               (unsigned long long)out_rows);
        for (uint32_t j = 0; j < i && d->rows > 0; j++) {
            const ferrum_moe_dispatch_t *o = &dispatches[j];
            if ((uint64_t)d->out_row < (uint64_t)o->out_row + o->rows &&
                (uint64_t)o->out_row < (uint64_t)d->out_row + d->rows)
                return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                                   "gemm_phase_batched: dispatches %u and %u write the same row", j,
                                   i);
        }
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_gemm_phase_batched(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                               const ferrum_buffer_t *in,
                                               const ferrum_moe_dispatch_t *dispatches,
                                               uint32_t count, ferrum_buffer_t *out, uint32_t k,
                                               ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_cuda_weights_t *weights = &stack->weights;
    FERRUM_CUDA_CHECK(ctx, err, {"in", in, FERRUM_CUDA_ACT, 0, 0},
                      {"out", out, FERRUM_CUDA_ACT, 0, 0});
    if (k != weights->k)
        return FERRUM_REFUSE(err, FERRUM_REASON_K, "k is %u, the stack has %u", k, weights->k);
    if (count == 0)
        return FERRUM_OK;
    FERRUM_CHECK_POINTER(dispatches, err);
    FERRUM_TRY(
        check_dispatches(weights, dispatches, count, in->count / k, out->count / weights->n, err));
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, weights, err));
    const ferrum_product_args_t args = {.w = weights->gpu,
                                        .x = ferrum_cuda_at(in, 0),
                                        .out = ferrum_cuda_at(out, 0),
                                        .out_stride = weights->n,
                                        .mode = FERRUM_ROWS_DISPATCHES,
                                        .num_experts = weights->experts,
                                        .rows = UINT32_MAX,
                                        .top_k = 1};
    return ferrum_cuda_product_dispatches(ctx, &args, dispatches, count, err);
}

ferrum_status_t ferrum_cuda_gemm_phase_vllm(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                            const ferrum_buffer_t *in,
                                            const ferrum_moe_routing_t *routing,
                                            ferrum_buffer_t *out, uint32_t prob_m,
                                            uint32_t block_size, uint32_t top_k,
                                            ferrum_error_t *err)
{
    const uint64_t pairs = (uint64_t)prob_m * top_k;

    FERRUM_CHECK_POINTER(stack, err);
    FERRUM_CHECK_STRUCT(routing, FERRUM_MOE_ROUTING_MIN_SIZE, err);
    const ferrum_cuda_weights_t *weights = &stack->weights;
    FERRUM_CUDA_CHECK(
        ctx, err, {"in", in, FERRUM_CUDA_ACT, 0, ferrum_size_mul(prob_m, weights->k)},
        {"out", out, FERRUM_CUDA_ACT, 0, ferrum_size_mul(pairs, weights->n)},
        {"sorted_token_ids", routing->sorted_token_ids, FERRUM_DTYPE_I32, 0, 0},
        {"expert_ids", routing->expert_ids, FERRUM_DTYPE_I32, 0, 0},
        {"num_tokens_past_padded", routing->num_tokens_past_padded, FERRUM_DTYPE_I32, 0, 1});
    FERRUM_TRY(ferrum_cuda_check_pair_count(__func__, pairs, err));
    if (block_size == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_BLOCK_SIZE, "block_size is %u", block_size);
    if (routing->sorted_token_ids->count > INT32_MAX)
        return FERRUM_REFUSE(err, FERRUM_REASON_LENGTH, "the alignment has %llu entries",
                             (unsigned long long)routing->sorted_token_ids->count);
    if (pairs == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, weights, err));
    const uint32_t entries = (uint32_t)routing->sorted_token_ids->count;
    const ferrum_product_args_t args = {.w = weights->gpu,
                                        .x = ferrum_cuda_at(in, 0),
                                        .out = ferrum_cuda_at(out, 0),
                                        .ids = ferrum_cuda_at(routing->sorted_token_ids, 0),
                                        .experts = ferrum_cuda_at(routing->expert_ids, 0),
                                        .total = ferrum_cuda_at(routing->num_tokens_past_padded, 0),
                                        .out_stride = weights->n,
                                        .mode = FERRUM_ROWS_ALIGNED,
                                        .rows = (uint32_t)pairs,
                                        .num_experts = weights->experts,
                                        .top_k = top_k,
                                        .block_size = block_size,
                                        .ids_count = entries};
    const uint32_t tile_rows = ferrum_cuda_tile_rows(block_size);
    uint64_t blocks = ferrum_cuda_ceil(entries, block_size);
    blocks = blocks < routing->expert_ids->count ? blocks : routing->expert_ids->count;
    return ferrum_cuda_product(ctx, &args, tile_rows,
                               blocks * ferrum_cuda_ceil(block_size, tile_rows), 1, err);
}

/** The weights of columns [@p column, + @p n) of one expert, without a copy. */
static ferrum_gpu_weights_t view_of(const ferrum_cuda_weights_t *weights, uint64_t expert,
                                    uint64_t column, uint32_t n)
{
    ferrum_gpu_weights_t view = weights->gpu;
    const uint64_t row = expert * weights->n + column;

    view.data += expert * view.expert_bytes + column * view.row_bytes;
    view.scales += row * view.groups * sizeof(float);
    view.zeros += row * view.groups * sizeof(uint16_t);
    if (view.group_of)
        view.group_of += expert * view.k * sizeof(uint32_t);
    if (view.bias)
        view.bias += row * sizeof(float);
    view.n = n;
    return view;
}

static ferrum_status_t copy_bias(ferrum_device_t *device, const float *bias, uint32_t n,
                                 ferrum_linear_t *linear, ferrum_error_t *err)
{
    const uint64_t bytes = (uint64_t)n * sizeof *bias;

    FERRUM_TRY(ferrum_cuda_memory_new(device, bytes, "biases", &linear->bias, err));
    linear->weights[0].bias = linear->bias;
    linear->weights[0].gpu.bias = linear->bias->address;
    return ferrum_cuda_memory_write(linear->bias, 0, bias, bytes, err);
}

ferrum_status_t ferrum_cuda_make_expert_linear(ferrum_marlin_stack_t *stack, uint64_t offset,
                                               uint32_t n, const float *bias,
                                               ferrum_linear_t **out_linear, ferrum_error_t *err)
{
    ferrum_linear_t *linear;

    FERRUM_CHECK_POINTER(stack, err);
    FERRUM_CHECK_POINTER(out_linear, err);
    const ferrum_cuda_weights_t *weights = &stack->weights;
    const uint64_t expert = offset / weights->n, column = offset % weights->n;
    if (n == 0 || expert >= weights->experts || column + n > weights->n)
        return FERRUM_REFUSE(
            err, FERRUM_REASON_RANGE,
            "columns %llu on for %u do not lie within one of %u experts of %u columns",
            (unsigned long long)offset, n, weights->experts, weights->n);
    FERRUM_TRY(ferrum_cuda_linear_new(stack->device, 1, &linear, err));
    linear->n = n;
    linear->k = weights->k;
    linear->format = FERRUM_FORMAT_GPTQ;
    linear->bits = weights->bits;
    linear->stack = stack;
    ferrum_cuda_marlin_stack_retain(stack);
    linear->weights[0] = *weights;
    linear->weights[0].n = n;
    linear->weights[0].gpu = view_of(weights, expert, column, n);
    const ferrum_status_t status =
        bias ? copy_bias(stack->device, bias, n, linear, err) : FERRUM_OK;
    if (status != FERRUM_OK) {
        ferrum_cuda_linear_release(linear);
        return status;
    }
    *out_linear = linear;
    return FERRUM_OK;
}
