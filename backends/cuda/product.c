/* SPDX-License-Identifier: MIT */
#include "backends/cuda/product.h"
#include "backends/cuda/problems.h"

enum {
    THREADS = 128, /* of all kernels launched here */
    OUTPUTS = 32,  /* per block */
    PITCH = 68     /* floats between rows in shared memory */
};

uint32_t ferrum_cuda_tile_rows(uint64_t rows)
{
    return rows <= 2 ? 1 : rows <= 16 ? 8 : 32;
}

/** The kernels of one number of rows per tile. */
typedef struct tile_kernels {
    uint32_t rows;
    ferrum_cuda_kernel_t product, gate_up, dispatch;
} tile_kernels_t;

static const tile_kernels_t *kernels_of(uint32_t tile_rows)
{
#define TILE(rows)                                                                                 \
    {                                                                                              \
        rows, FERRUM_CUDA_KERNEL_product_##rows, FERRUM_CUDA_KERNEL_gate_up_##rows,                \
            FERRUM_CUDA_KERNEL_dispatch_##rows                                                     \
    }
    static const tile_kernels_t kernels[] = {TILE(1), TILE(8), TILE(32)};
#undef TILE
    size_t i = 0;

    while (kernels[i].rows != tile_rows)
        i++;
    return &kernels[i];
}

static ferrum_cuda_grid_t grid_of(const ferrum_product_args_t *args, uint32_t tile_rows,
                                  uint64_t tiles, uint32_t lists)
{
    const uint32_t matrices = args->up.data ? 2 : 1;

    return (ferrum_cuda_grid_t){
        .x = tiles,
        .y = lists,
        .z = ferrum_cuda_ceil(args->w.n, OUTPUTS),
        .threads = THREADS,
        .shared_bytes = (uint32_t)((matrices * OUTPUTS + tile_rows) * PITCH * sizeof(float) +
                                   2 * tile_rows * sizeof(uint64_t)),
    };
}

/** Products over tiled 4-bit weights: the kernels of one number of rows per tile. */
typedef struct w4_kernels {
    uint32_t rows;
    uint32_t outputs; /**< per block */
    ferrum_cuda_kernel_t product, gate_up;
} w4_kernels_t;

static ferrum_status_t product_w4(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                  uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                  ferrum_error_t *err)
{
#define TILE(rows, outputs)                                                                        \
    {                                                                                              \
        rows, outputs, FERRUM_CUDA_KERNEL_w4_##rows, FERRUM_CUDA_KERNEL_w4_gate_up_##rows          \
    }
    static const w4_kernels_t kernels[] = {TILE(1, 16), TILE(8, 64), TILE(16, 64), TILE(32, 64),
                                           TILE(64, 64)};
#undef TILE
    const bool up = args->up.data != 0;
    size_t i = 0;

    while (kernels[i].rows != tile_rows)
        i++;
    const ferrum_cuda_grid_t grid = {
        .x = tiles,
        .y = lists,
        .z = ferrum_cuda_ceil(args->w.n, kernels[i].outputs),
        .threads = THREADS,
        .shared_bytes = FERRUM_W4_SHARED_BYTES(tile_rows, up),
    };
    return ferrum_cuda_launch(ctx, up ? kernels[i].gate_up : kernels[i].product, grid, args, err);
}

ferrum_status_t ferrum_cuda_product_wgmma(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                          uint32_t tile_rows, uint64_t tiles, ferrum_error_t *err)
{
    enum {
        WGMMA_THREADS = 384,
        WGMMA_OUTPUTS = 128 /* per block, of one matrix or two */
    };
    static const ferrum_cuda_kernel_t kernels[2][2] = {
        {FERRUM_CUDA_KERNEL_w4_wgmma_64, FERRUM_CUDA_KERNEL_w4_wgmma_gate_up_64},
        {FERRUM_CUDA_KERNEL_w4_wgmma_128, FERRUM_CUDA_KERNEL_w4_wgmma_gate_up_128}};
    const bool up = args->up.data != 0;
    const ferrum_cuda_grid_t grid = {
        .x = tiles,
        .y = 1,
        .z = ferrum_cuda_ceil(args->w.n, up ? WGMMA_OUTPUTS / 2 : WGMMA_OUTPUTS),
        .threads = WGMMA_THREADS,
        .shared_bytes = FERRUM_W4_WGMMA_SHARED_BYTES(tile_rows),
    };

    return ferrum_cuda_launch(ctx, kernels[tile_rows == 128][up], grid, args, err);
}

ferrum_status_t ferrum_cuda_product(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                    uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                    ferrum_error_t *err)
{
    if (ferrum_cuda_w4_tiled(&args->w))
        return product_w4(ctx, args, tile_rows, tiles, lists, err);
    if (ferrum_cuda_gguf_tiled(&args->w))
        return ferrum_cuda_product_gguf(ctx, args, tile_rows, tiles, lists, err);
    const tile_kernels_t *kernels = kernels_of(tile_rows);

    return ferrum_cuda_launch(ctx, args->up.data ? kernels->gate_up : kernels->product,
                              grid_of(args, tile_rows, tiles, lists), args, err);
}

ferrum_status_t ferrum_cuda_product_dispatches(ferrum_context_t *ctx,
                                               const ferrum_product_args_t *args,
                                               const ferrum_moe_dispatch_t *dispatches,
                                               uint32_t count, ferrum_error_t *err)
{
    for (uint32_t first = 0; first < count; first += FERRUM_DISPATCHES) {
        const uint32_t part = count - first < FERRUM_DISPATCHES ? count - first : FERRUM_DISPATCHES;
        ferrum_dispatch_args_t launch = {.product = *args};
        uint32_t longest = 0;
        for (uint32_t i = 0; i < part; i++) {
            const ferrum_moe_dispatch_t *d = &dispatches[first + i];
            launch.list[i] = (ferrum_row_dispatch_t){d->expert, d->in_row, d->out_row, d->rows};
            longest = d->rows > longest ? d->rows : longest;
        }
        const uint32_t tile_rows = ferrum_cuda_tile_rows(longest);
        FERRUM_TRY(ferrum_cuda_launch(
            ctx, kernels_of(tile_rows)->dispatch,
            grid_of(args, tile_rows, ferrum_cuda_ceil(longest, tile_rows), part), &launch, err));
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_combine(ferrum_context_t *ctx, const ferrum_combine_args_t *args,
                                    ferrum_error_t *err)
{
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(args->count, THREADS), 1, 1, THREADS, 0};

    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_combine, grid, args, err);
}

static uint32_t plan_shared_bytes(const ferrum_plan_args_t *args)
{
    return (uint32_t)((THREADS + (uint64_t)args->experts) * sizeof(uint32_t));
}

ferrum_status_t ferrum_cuda_plan_quantise(ferrum_context_t *ctx, const ferrum_plan_args_t *plan,
                                          const ferrum_quantise_args_t *args, ferrum_error_t *err)
{
    ferrum_quantise_args_t both = *args;
    const uint64_t parts = ferrum_cuda_ceil(args->k, 64 * FERRUM_QUANTISE_STEPS);

    if (plan) {
        FERRUM_TRY(ferrum_cuda_check_plan_experts(plan->experts, err));
        both.plan = *plan;
        both.plan_blocks = plan->experts + 1;
    }
    const ferrum_cuda_grid_t grid = {both.plan_blocks + args->rows * parts, 1, 1, THREADS,
                                     plan ? plan_shared_bytes(plan) : 0};
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_plan_quantise, grid, &both, err);
}

ferrum_status_t ferrum_cuda_plan(ferrum_context_t *ctx, const ferrum_plan_args_t *args,
                                 ferrum_error_t *err)
{
    const ferrum_cuda_grid_t grid = {(uint64_t)args->experts + 1, 1, 1, THREADS,
                                     plan_shared_bytes(args)};

    FERRUM_TRY(ferrum_cuda_check_plan_experts(args->experts, err));
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_plan, grid, args, err);
}

ferrum_status_t ferrum_cuda_check_pair_count(const char *function, uint64_t pairs,
                                             ferrum_error_t *err)
{
    if (pairs <= INT32_MAX)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                       "%s: %llu pairs do not fit in an i32", ferrum_op_name(function),
                       (unsigned long long)pairs);
}

ferrum_status_t ferrum_cuda_fault_word(ferrum_context_t *ctx, CUdeviceptr *out_fault,
                                       ferrum_error_t *err)
{
    return ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_FAULT, sizeof(ferrum_fault_t), out_fault,
                               err);
}

ferrum_status_t ferrum_cuda_report_fault(ferrum_context_t *ctx, ferrum_error_t *err)
{
    const ferrum_cuda_memory_t *memory = ctx->scratch[FERRUM_CUDA_SCRATCH_FAULT];
    ferrum_fault_t fault;

    if (!memory)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_download(ctx, memory->address, &fault, sizeof fault, 1, NULL, err));
    if (fault.row == 0 && fault.id == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_zero(ctx, memory->address, sizeof fault, err));
    if (fault.row != 0)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                           "route_topk_softmax: row %llu has a non-finite logit; its ids are -1 "
                           "and its weights NaN",
                           (unsigned long long)(UINT64_MAX - fault.row));
    return ferrum_fail(
        err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
        "expert_ffn_forward: ids[%u] is %d, which is no expert; the pair was skipped",
        UINT32_MAX - (uint32_t)(fault.id >> 32), (int32_t)(uint32_t)fault.id);
}
