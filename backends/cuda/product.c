/* SPDX-License-Identifier: MIT */
#include "backends/cuda/product.h"

enum {
    THREADS = 128, /* of all kernels of experts.cu and moe.cu but route */
    OUTPUTS = 32,  /* per block */
    PITCH = 68     /* floats between rows in shared memory */
};

uint32_t ferrum_cuda_tile_rows(uint64_t rows)
{
    return rows <= 2 ? 1 : rows <= 16 ? 8 : 32;
}

ferrum_status_t ferrum_cuda_product(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                    uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                    ferrum_error_t *err)
{
    static const struct {
        uint32_t rows;
        ferrum_cuda_kernel_t product, gate_up;
    } kernels[] = {
        {1, FERRUM_CUDA_KERNEL_product_1, FERRUM_CUDA_KERNEL_gate_up_1},
        {8, FERRUM_CUDA_KERNEL_product_8, FERRUM_CUDA_KERNEL_gate_up_8},
        {32, FERRUM_CUDA_KERNEL_product_32, FERRUM_CUDA_KERNEL_gate_up_32},
    };
    const uint32_t matrices = args->up.data ? 2 : 1;
    size_t i = 0;

    while (kernels[i].rows != tile_rows)
        i++;
    const ferrum_cuda_grid_t grid = {
        .x = tiles,
        .y = lists,
        .z = ferrum_cuda_ceil(args->w.n, OUTPUTS),
        .threads = THREADS,
        .shared_bytes = (uint32_t)((matrices * OUTPUTS + tile_rows) * PITCH * sizeof(float) +
                                   2 * tile_rows * sizeof(uint64_t)),
    };
    return ferrum_cuda_launch(ctx, matrices == 2 ? kernels[i].gate_up : kernels[i].product, grid,
                              args, err);
}

ferrum_status_t ferrum_cuda_combine(ferrum_context_t *ctx, const ferrum_combine_args_t *args,
                                    ferrum_error_t *err)
{
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(args->count, THREADS), 1, 1, THREADS, 0};

    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_combine, grid, args, err);
}

ferrum_status_t ferrum_cuda_plan(ferrum_context_t *ctx, ferrum_plan_args_t *args,
                                 CUdeviceptr counts, ferrum_error_t *err)
{
    ferrum_cuda_grid_t grid = {args->experts, 1, 1, THREADS, THREADS * sizeof(uint32_t)};

    args->counts = counts;
    FERRUM_TRY(ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_plan_count, grid, args, err));
    grid.x++;
    return ferrum_cuda_launch(ctx, FERRUM_CUDA_KERNEL_plan_place, grid, args, err);
}

ferrum_status_t ferrum_cuda_check_pair_count(const char *function, uint64_t pairs,
                                             ferrum_error_t *err)
{
    if (pairs <= INT32_MAX)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                       "%s: %llu pairs do not fit in an i32", ferrum_cuda_op_name(function),
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
