/* SPDX-License-Identifier: MIT */
#include "backends/cuda/entries.h"
#include "backends/cuda/product.h"

struct ferrum_stacked_experts {
    atomic_uint refs;
    ferrum_device_t *device;
    ferrum_cuda_weights_t weights;
};

ferrum_status_t ferrum_cuda_load_quant_experts(ferrum_device_t *device,
                                               const ferrum_gguf_weights_t *weights,
                                               ferrum_stacked_experts_t **out_stack,
                                               ferrum_error_t *err)
{
    ferrum_cuda_weights_t loaded;

    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_stack, err);
    FERRUM_TRY(ferrum_cuda_weights_from_gguf(device, weights, 0, &loaded, err));
    ferrum_stacked_experts_t *stack =
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

void ferrum_cuda_stacked_experts_retain(ferrum_stacked_experts_t *stack)
{
    ferrum_cuda_ref(&stack->refs);
}

void ferrum_cuda_stacked_experts_release(ferrum_stacked_experts_t *stack)
{
    if (!stack || !ferrum_cuda_unref(&stack->refs))
        return;
    ferrum_cuda_weights_free(&stack->weights);
    ferrum_cuda_object_free(stack->device, stack, sizeof *stack);
}

ferrum_status_t ferrum_cuda_stacked_experts_info(const ferrum_stacked_experts_t *stack,
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
        .format = stack->weights.format,
        .bytes = stack->weights.bytes,
    };
    return ferrum_fill_struct(__func__, out_info, FERRUM_EXPERT_STACK_INFO_MIN_SIZE, &info, err);
}

/** The gemv forms: pair p reads the row at `(p/top_k)*outer + (p%top_k)*inner` of a. */
typedef struct gemv {
    const char *function;
    const ferrum_stacked_experts_t *stack;
    const ferrum_stacked_experts_t *up; /**< NULL: one product, no activation */
    const ferrum_buffer_t *a;
    uint64_t a_offset;
    const ferrum_buffer_t *ids;
    uint64_t ids_offset;
    ferrum_buffer_t *out;
    uint64_t out_offset;
    uint32_t tokens;
    uint32_t top_k;
    uint64_t outer;
    uint64_t inner;
} gemv_t;

static ferrum_status_t check_gemv(ferrum_context_t *ctx, const gemv_t *gemv, ferrum_error_t *err)
{
    const ferrum_cuda_weights_t *weights = &gemv->stack->weights;
    const uint64_t pairs = ferrum_size_mul(gemv->tokens, gemv->top_k);
    uint64_t span = 0;

    if (pairs > 0)
        span = ferrum_size_add(ferrum_size_add(ferrum_size_mul(gemv->tokens - 1, gemv->outer),
                                               ferrum_size_mul(gemv->top_k - 1, gemv->inner)),
                               weights->k);
    const ferrum_cuda_operand_t operands[] = {
        {"a", gemv->a, FERRUM_CUDA_ACT, gemv->a_offset, span},
        {"ids", gemv->ids, FERRUM_DTYPE_I32, gemv->ids_offset, pairs},
        {"out", gemv->out, FERRUM_CUDA_ACT, gemv->out_offset, ferrum_size_mul(pairs, weights->n)}};
    FERRUM_TRY(ferrum_cuda_check_operands(gemv->function, ctx, operands, 3, err));
    FERRUM_TRY(ferrum_cuda_check_pair_count(gemv->function, pairs, err));
    if (gemv->up && (gemv->up->weights.n != weights->n || gemv->up->weights.k != weights->k ||
                     gemv->up->weights.experts != weights->experts))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: gate [%u, %u, %u] and up [%u, %u, %u] differ in shape",
                           ferrum_op_name(gemv->function), weights->experts, weights->n, weights->k,
                           gemv->up->weights.experts, gemv->up->weights.n, gemv->up->weights.k);
    return FERRUM_OK;
}

static ferrum_status_t run_gemv(ferrum_context_t *ctx, const gemv_t *gemv, ferrum_error_t *err)
{
    const ferrum_cuda_weights_t *weights = &gemv->stack->weights;

    FERRUM_TRY(check_gemv(ctx, gemv, err));
    ferrum_product_args_t args = {.w = weights->gpu,
                                  .x = ferrum_cuda_at(gemv->a, gemv->a_offset),
                                  .out = ferrum_cuda_at(gemv->out, gemv->out_offset),
                                  .ids = ferrum_cuda_at(gemv->ids, gemv->ids_offset),
                                  .outer = gemv->outer,
                                  .inner = gemv->inner,
                                  .out_stride = weights->n,
                                  .mode = FERRUM_ROWS_PAIRS,
                                  .rows = gemv->tokens * gemv->top_k,
                                  .num_experts = weights->experts,
                                  .top_k = gemv->top_k};
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, weights, err));
    if (gemv->up) {
        FERRUM_TRY(ferrum_cuda_weights_note(ctx, &gemv->up->weights, err));
        args.up = gemv->up->weights.gpu;
    }
    return ferrum_cuda_product(ctx, &args, 1, args.rows, 1, err);
}

ferrum_status_t ferrum_cuda_gemv_moe_id(ferrum_context_t *ctx,
                                        const ferrum_stacked_experts_t *stack,
                                        const ferrum_buffer_t *a, uint64_t a_offset,
                                        const ferrum_buffer_t *ids, uint64_t ids_offset,
                                        ferrum_buffer_t *out, uint64_t out_offset, uint32_t n_sel,
                                        uint64_t stride, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = stack,
                         .a = a,
                         .a_offset = a_offset,
                         .ids = ids,
                         .ids_offset = ids_offset,
                         .out = out,
                         .out_offset = out_offset,
                         .tokens = n_sel,
                         .top_k = 1,
                         .outer = stride};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t
ferrum_cuda_gemv_moe_id_gate_up_silu(ferrum_context_t *ctx, const ferrum_stacked_experts_t *gate,
                                     const ferrum_stacked_experts_t *up, const ferrum_buffer_t *a,
                                     const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                     uint32_t n_sel, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(gate, err);
    FERRUM_CHECK_POINTER(up, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = gate,
                         .up = up,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = n_sel,
                         .top_k = 1};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t ferrum_cuda_gemv_moe_id_batched(ferrum_context_t *ctx,
                                                const ferrum_stacked_experts_t *stack,
                                                const ferrum_buffer_t *a,
                                                const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                                uint32_t m, uint32_t top_k, uint64_t outer,
                                                uint64_t inner, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = stack,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = m,
                         .top_k = top_k,
                         .outer = outer,
                         .inner = inner};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t ferrum_cuda_gemv_moe_id_gate_up_silu_batched(
    ferrum_context_t *ctx, const ferrum_stacked_experts_t *gate, const ferrum_stacked_experts_t *up,
    const ferrum_buffer_t *a, const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m,
    uint32_t top_k, uint64_t outer, uint64_t inner, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(gate, err);
    FERRUM_CHECK_POINTER(up, err);
    const gemv_t gemv = {.function = __func__,
                         .stack = gate,
                         .up = up,
                         .a = a,
                         .ids = ids,
                         .out = out,
                         .tokens = m,
                         .top_k = top_k,
                         .outer = outer,
                         .inner = inner};
    return run_gemv(ctx, &gemv, err);
}

ferrum_status_t ferrum_cuda_gemm_moe_id(ferrum_context_t *ctx,
                                        const ferrum_stacked_experts_t *stack,
                                        const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                        const ferrum_buffer_t *tpe, ferrum_buffer_t *out,
                                        uint32_t ne11, uint32_t top_k, uint32_t max_per_expert,
                                        uint32_t batch, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(stack, err);
    const ferrum_cuda_weights_t *weights = &stack->weights;
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    if (ne11 != 1 && ne11 != top_k)
        return FERRUM_REFUSE(err, FERRUM_REASON_RANGE, "ne11 is %u, expected 1 or top_k %u", ne11,
                             top_k);
    FERRUM_CUDA_CHECK(
        ctx, err, {"a", a, FERRUM_CUDA_ACT, 0, ferrum_size_mul3(batch, ne11, weights->k)},
        {"ids", ids, FERRUM_DTYPE_I32, 0, ferrum_size_mul(weights->experts, max_per_expert)},
        {"tpe", tpe, FERRUM_DTYPE_I32, 0, weights->experts},
        {"out", out, FERRUM_CUDA_ACT, 0, ferrum_size_mul(pairs, weights->n)});
    FERRUM_TRY(ferrum_cuda_check_pair_count(__func__, pairs, err));
    if (pairs == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, weights, err));
    const ferrum_product_args_t args = {.w = weights->gpu,
                                        .x = ferrum_cuda_at(a, 0),
                                        .out = ferrum_cuda_at(out, 0),
                                        .ids = ferrum_cuda_at(ids, 0),
                                        .experts = ferrum_cuda_at(tpe, 0),
                                        .out_stride = weights->n,
                                        .mode = FERRUM_ROWS_LISTS,
                                        .rows = (uint32_t)pairs,
                                        .num_experts = weights->experts,
                                        .top_k = ne11 == 1 ? top_k : 1,
                                        .ids_count = max_per_expert};
    /* No list is longer than the pairs; those that end early cost their blocks one look. */
    const uint64_t longest = max_per_expert < pairs ? max_per_expert : pairs;
    const uint32_t tile_rows = ferrum_cuda_tile_rows(ferrum_cuda_ceil(pairs, weights->experts));
    return ferrum_cuda_product(ctx, &args, tile_rows, ferrum_cuda_ceil(longest, tile_rows),
                               weights->experts, err);
}

ferrum_status_t
ferrum_cuda_gemm_moe_id_indirect(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                 const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                 const ferrum_buffer_t *tpe, ferrum_buffer_t *out,
                                 const ferrum_buffer_t *args, uint32_t ne11, uint32_t top_k,
                                 uint32_t max_per_expert, uint32_t batch, ferrum_error_t *err)
{
    /* CUDA has no indirect launch: the grid covers the longest lists there can be. */
    FERRUM_CUDA_CHECK(ctx, err, {"args", args, FERRUM_DTYPE_U32, 0, 3});
    return ferrum_cuda_gemm_moe_id(ctx, stack, a, ids, tpe, out, ne11, top_k, max_per_expert, batch,
                                   err);
}
