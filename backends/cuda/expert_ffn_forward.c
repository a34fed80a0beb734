/* SPDX-License-Identifier: MIT */
/*
 * The routed experts end to end. Few pairs: gate_up and down per pair, combine: 3 launches. Many: a
 * stable order by expert first, padded to tiles, unless the routing has made it: 4 launches. With
 * int8 activations a launch before the products quantises x, and makes the plan if there is one to
 * make: 4 launches always. Rows are indexed by pair id throughout, so combining needs no map.
 * Nothing here allocates, copies or waits once scratch has grown.
 */
#include "backends/cuda/entries.h"
#include "backends/cuda/expert_ffn.h"
#include "backends/cuda/plan_ahead.h"
#include "backends/cuda/product.h"

/** Scratch and shape of one call. */
typedef struct forward {
    const ferrum_expert_ffn_t *ffn;
    const ferrum_expert_ffn_args_t *args;
    uint32_t pairs;
    uint32_t tile_rows; /**< 1: no plan */
    bool wgmma;         /**< the tiles are for the warpgroup kernels */
    uint32_t blocks;
    bool planned; /**< with the routing */
    ferrum_cuda_plan_problem_t problem;
    ferrum_plan_args_t plan;
    CUdeviceptr x;              /**< act [tokens, h], or int8 */
    CUdeviceptr hidden;         /**< act [pairs, I], or int8 */
    uint64_t x_row, hidden_row; /**< from row to row, in elements or in bytes of int8 */
    CUdeviceptr slots;          /**< f32 [pairs, h] */
} forward_t;

static ferrum_status_t check_args(ferrum_context_t *ctx, const ferrum_expert_ffn_t *ffn,
                                  const ferrum_expert_ffn_args_t *args, ferrum_error_t *err)
{
    static const char function[] = "expert_ffn_forward";

    FERRUM_TRY(ferrum_check_struct(function, "args", args, FERRUM_EXPERT_FFN_ARGS_MIN_SIZE, err));
    const uint64_t pairs = (uint64_t)args->tokens * args->top_k;
    const uint64_t elements = (uint64_t)args->tokens * ffn->hidden;
    const ferrum_cuda_operand_t operands[] = {
        {"x", args->x, FERRUM_CUDA_ACT, 0, elements},
        {"ids", args->ids, FERRUM_DTYPE_I32, 0, pairs},
        {"weights", args->weights, FERRUM_DTYPE_F32, 0, pairs},
        {"out", args->out, FERRUM_CUDA_ACT, 0, elements}};
    FERRUM_TRY(ferrum_cuda_check_operands(function, ctx, operands, 4, err));
    if (args->flags & ~(uint32_t)FERRUM_FFN_ACCUMULATE)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_FLAGS,
                           "expert_ffn_forward: unknown flags 0x%x", args->flags);
    return ferrum_cuda_check_pair_count(function, pairs, err);
}

static ferrum_cuda_plan_problem_t problem_of(const ferrum_device_t *device,
                                             const ferrum_expert_ffn_t *ffn, uint64_t pairs)
{
    return (ferrum_cuda_plan_problem_t){.tiles = {.family = ferrum_cuda_tile_family(&ffn->gate.gpu),
                                                  .capability = (uint32_t)device->capability,
                                                  .wgmma = device->wgmma,
                                                  .outputs = ffn->intermediate,
                                                  .experts = ffn->local_experts,
                                                  .pairs = pairs},
                                        .num_experts = ffn->num_experts,
                                        .first_expert = ffn->first_expert};
}

/** Sizes depend on the shape alone, not on where the ids send the pairs. */
static ferrum_status_t prepare(ferrum_context_t *ctx, forward_t *forward, ferrum_error_t *err)
{
    const ferrum_expert_ffn_t *ffn = forward->ffn;
    const uint64_t pairs = forward->pairs, experts = ffn->local_experts;
    const uint64_t element = ffn->int8 ? 1 : ferrum_dtype_bytes(ctx->device->act);

    forward->x = ferrum_cuda_at(forward->args->x, 0);
    forward->x_row = ffn->int8 ? FERRUM_INT8_ROW_BYTES(ffn->hidden) : ffn->hidden;
    forward->hidden_row = ffn->int8 ? FERRUM_INT8_ROW_BYTES(ffn->intermediate) : ffn->intermediate;
    if (ffn->int8)
        FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_INT8,
                                       ferrum_size_mul(forward->args->tokens, forward->x_row),
                                       &forward->x, err));
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_HIDDEN,
                                   ferrum_size_mul3(pairs, forward->hidden_row, element),
                                   &forward->hidden, err));
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_DOWN,
                                   ferrum_size_mul3(pairs, ffn->hidden, sizeof(float)),
                                   &forward->slots, err));
    const ferrum_cuda_tile_t *tile = ferrum_cuda_choose_tile(&forward->problem.tiles);
    forward->tile_rows = tile->rows;
    forward->wgmma = tile->wgmma;
    if (forward->tile_rows == 1)
        return FERRUM_OK;
    forward->blocks = (uint32_t)((experts < pairs ? experts : pairs) + pairs / forward->tile_rows);
    return ferrum_cuda_place_plan(ctx, &forward->problem, forward->tile_rows, &forward->plan, err);
}

/** The plan, where there is one to make, and x as int8, where it is wanted: one launch at most. */
static ferrum_status_t run_plan(ferrum_context_t *ctx, forward_t *forward, ferrum_error_t *err)
{
    const bool plans = forward->tile_rows > 1 && !forward->planned;
    const ferrum_quantise_args_t quantise = {.x = ferrum_cuda_at(forward->args->x, 0),
                                             .out = forward->x,
                                             .rows = forward->args->tokens,
                                             .k = forward->ffn->hidden};

    forward->plan.ids = ferrum_cuda_at(forward->args->ids, 0);
    if (forward->ffn->int8)
        return ferrum_cuda_plan_quantise(ctx, plans ? &forward->plan : NULL, &quantise, err);
    return plans ? ferrum_cuda_plan(ctx, &forward->plan, err) : FERRUM_OK;
}

/** Blocks of 16, 64 and 128 rows are made for tiled weights; the other kernels cut them. */
static uint32_t tiles_per_block(const ferrum_gpu_weights_t *weights, uint32_t block_rows)
{
    const uint32_t rows = block_rows == 16 ? 8 : block_rows > 32 ? 32 : block_rows;

    return ferrum_cuda_w4_tiled(weights) ? 1 : block_rows / rows;
}

/** One product over all pairs; the caller sets weights, x, out, top_k and outer. */
static ferrum_status_t run_product(ferrum_context_t *ctx, const forward_t *forward,
                                   ferrum_product_args_t *product, ferrum_error_t *err)
{
    const bool planned = forward->tile_rows > 1;
    const uint32_t parts = tiles_per_block(&product->w, forward->tile_rows);

    product->mode = planned ? FERRUM_ROWS_ALIGNED : FERRUM_ROWS_PAIRS;
    product->ids = planned ? forward->plan.sorted : ferrum_cuda_at(forward->args->ids, 0);
    product->experts = forward->plan.block_experts;
    product->total = forward->plan.total;
    product->rows = forward->pairs;
    product->num_experts = forward->ffn->local_experts;
    product->first_expert = forward->ffn->first_expert;
    product->block_size = forward->tile_rows;
    product->ids_count = forward->plan.sorted_max;
    if (forward->wgmma && ferrum_cuda_w4_tiled(&product->w))
        return ferrum_cuda_product_wgmma(ctx, product, forward->tile_rows, forward->blocks, err);
    return ferrum_cuda_product(ctx, product, forward->tile_rows / parts,
                               planned ? (uint64_t)forward->blocks * parts : forward->pairs, 1,
                               err);
}

static ferrum_status_t run_products(ferrum_context_t *ctx, const forward_t *forward,
                                    ferrum_error_t *err)
{
    const ferrum_expert_ffn_t *ffn = forward->ffn;
    ferrum_product_args_t gate_up = {.w = ffn->gate.gpu,
                                     .up = ffn->up.gpu,
                                     .x = forward->x,
                                     .out = forward->hidden,
                                     .outer = forward->x_row,
                                     .out_stride = forward->hidden_row,
                                     .top_k = forward->args->top_k,
                                     .activation = ffn->activation.kind,
                                     .alpha = ffn->activation.alpha,
                                     .limit = ffn->activation.limit};
    ferrum_product_args_t down = {.w = ffn->down.gpu,
                                  .x = forward->hidden,
                                  .out = forward->slots,
                                  .outer = forward->hidden_row,
                                  .out_stride = ffn->hidden,
                                  .top_k = 1,
                                  .out_is_f32 = 1};

    FERRUM_TRY(ferrum_cuda_weights_note(ctx, &ffn->gate, err));
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, &ffn->up, err));
    FERRUM_TRY(ferrum_cuda_weights_note(ctx, &ffn->down, err));
    FERRUM_TRY(run_product(ctx, forward, &gate_up, err));
    return run_product(ctx, forward, &down, err);
}

ferrum_status_t ferrum_cuda_expert_ffn_forward(ferrum_context_t *ctx, ferrum_expert_ffn_t *ffn,
                                               const ferrum_expert_ffn_args_t *args,
                                               ferrum_error_t *err)
{
    CUdeviceptr fault;

    FERRUM_CHECK_POINTER(ffn, err);
    forward_t forward = {.ffn = ffn, .args = args};
    const bool made = ferrum_cuda_plan_made(ctx);
    FERRUM_TRY(check_args(ctx, ffn, args, err));
    forward.pairs = args->tokens * args->top_k;
    if (forward.pairs > 0) {
        forward.problem = problem_of(ctx->device, ffn, forward.pairs);
        FERRUM_TRY(ferrum_cuda_want_plan(ctx, &forward.problem, made, args->ids->memory,
                                         &forward.planned, err));
        FERRUM_TRY(prepare(ctx, &forward, err));
        FERRUM_TRY(run_plan(ctx, &forward, err));
        FERRUM_TRY(run_products(ctx, &forward, err));
    }
    FERRUM_TRY(ferrum_cuda_fault_word(ctx, &fault, err));
    const ferrum_combine_args_t combine = {.slots = forward.slots,
                                           .ids = ferrum_cuda_at(args->ids, 0),
                                           .weights = ferrum_cuda_at(args->weights, 0),
                                           .out = ferrum_cuda_at(args->out, 0),
                                           .fault = fault,
                                           .count = (uint64_t)args->tokens * ffn->hidden,
                                           .slot_rows = forward.pairs,
                                           .top_k = args->top_k,
                                           .hidden = ffn->hidden,
                                           .slots_f32 = 1,
                                           .accumulate = args->flags & FERRUM_FFN_ACCUMULATE,
                                           .first_expert = ffn->first_expert,
                                           .local_experts = ffn->local_experts,
                                           .num_experts = ffn->num_experts};
    return ferrum_cuda_combine(ctx, &combine, err);
}
