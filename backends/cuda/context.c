/* SPDX-License-Identifier: MIT */
/* Contexts: a stream, its scratch, and what became of it. */
#include "backends/cuda/check.h"
#include "backends/cuda/cublaslt.h"
#include "backends/cuda/entries.h"
#include "backends/cuda/plan_ahead.h"

ferrum_status_t ferrum_cuda_check_alive(ferrum_context_t *ctx, ferrum_error_t *err)
{
    if (ctx->ahead)
        ctx->ahead->made = false;
    if (ctx->lost == CUDA_SUCCESS)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_DEVICE_LOST, FERRUM_REASON_OTHER,
                       "CUDA device %u is lost to this process since an earlier call: %s; restart "
                       "the process",
                       ctx->device->ordinal, ferrum_cuda_result_name(ctx->lost));
}

ferrum_status_t ferrum_cuda_check_not_capturing(const ferrum_context_t *ctx, const char *function,
                                                ferrum_error_t *err)
{
    if (!ctx->capturing)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_BUSY, FERRUM_REASON_OTHER,
                       "%s: a graph capture is in flight; call graph_end first",
                       ferrum_op_name(function));
}

ferrum_status_t ferrum_cuda_context_check(ferrum_context_t *ctx, CUresult result, const char *what,
                                          ferrum_error_t *err)
{
    const ferrum_status_t status = ferrum_cuda_result_status(result);

    if (status != FERRUM_DEVICE_LOST)
        return ferrum_cuda_result_check(result, what, err);
    ctx->lost = result;
    return ferrum_fail(err, FERRUM_DEVICE_LOST, FERRUM_REASON_OTHER,
                       "%s: CUDA device %u is lost to this process: %s; restart the process", what,
                       ctx->device->ordinal, ferrum_cuda_result_name(result));
}

ferrum_status_t ferrum_cuda_context_new(ferrum_device_t *device, const ferrum_executor_t *executor,
                                        ferrum_context_t **out_context, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_context, err);
    if (executor)
        FERRUM_CHECK_STRUCT(executor, FERRUM_EXECUTOR_MIN_SIZE, err);

    ferrum_context_t *ctx = ferrum_cuda_object_new(device, sizeof *ctx, "a context", err);
    if (!ctx)
        return FERRUM_OUT_OF_MEMORY;
    ferrum_cuda_enter(device);
    const CUresult result = device->driver.cuStreamCreate(&ctx->stream, CU_STREAM_NON_BLOCKING);
    ferrum_cuda_leave(device);
    ferrum_status_t status = ferrum_cuda_result_check(result, "cuStreamCreate", err);
    if (status != FERRUM_OK) {
        ferrum_cuda_object_free(device, ctx, sizeof *ctx);
        return status;
    }
    ctx->device = device;
    ctx->stats.head = (ferrum_head_t)FERRUM_HEAD(ferrum_context_stats_t);
    status = ferrum_cuda_cublaslt_context_new(ctx, err);
    if (status == FERRUM_OK)
        *out_context = ctx;
    else
        ferrum_cuda_context_free(ctx);
    return status;
}

void ferrum_cuda_context_free(ferrum_context_t *ctx)
{
    if (!ctx)
        return;
    ferrum_device_t *device = ctx->device;
    const ferrum_cuda_driver_t *driver = &device->driver;

    ferrum_cuda_enter(device);
    ferrum_cuda_graphs_free(ctx);
    (void)driver->cuStreamSynchronize(ctx->stream);
    ferrum_cuda_cublaslt_context_free(ctx);
    for (int i = 0; i < FERRUM_CUDA_STAGES; i++)
        if (ctx->stage_done[i])
            (void)driver->cuEventDestroy(ctx->stage_done[i]);
    if (ctx->stages)
        (void)driver->cuMemFreeHost(ctx->stages);
    (void)driver->cuStreamDestroy(ctx->stream);
    ferrum_cuda_leave(device);
    for (int i = 0; i < FERRUM_CUDA_SCRATCH_KINDS; i++)
        ferrum_cuda_memory_free(ctx->scratch[i]);
    ferrum_cuda_drop_plan(ctx);
    ferrum_cuda_object_free(device, ctx, sizeof *ctx);
}

ferrum_status_t ferrum_cuda_context_sync(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    FERRUM_TRY(ferrum_cuda_wait(ctx, err));
    return ferrum_cuda_report_fault(ctx, err);
}

ferrum_status_t ferrum_cuda_context_sync_before_readback(ferrum_context_t *ctx, ferrum_error_t *err)
{
    return ferrum_cuda_context_sync(ctx, err);
}

ferrum_status_t ferrum_cuda_context_stats(const ferrum_context_t *ctx,
                                          ferrum_context_stats_t *out_stats, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return ferrum_fill_struct(__func__, out_stats, FERRUM_CONTEXT_STATS_MIN_SIZE, &ctx->stats, err);
}

ferrum_status_t ferrum_cuda_scratch(ferrum_context_t *ctx, ferrum_cuda_scratch_t kind,
                                    uint64_t bytes, CUdeviceptr *out_address, ferrum_error_t *err)
{
    ferrum_cuda_memory_t *block = ctx->scratch[kind];

    if (!block || bytes > block->bytes) {
        if (ctx->capturing)
            return ferrum_fail(err, FERRUM_BUSY, FERRUM_REASON_OTHER,
                               "scratch must grow to %llu bytes during a graph capture: run the "
                               "step once before capturing it",
                               (unsigned long long)bytes);
        /* Half as much again, so that what grows by one per step rarely allocates. */
        const uint64_t grown = block ? block->bytes + block->bytes / 2 : 4096;
        ferrum_cuda_memory_t *larger;
        FERRUM_TRY(ferrum_cuda_memory_new(ctx->device, bytes > grown ? bytes : grown, "scratch",
                                          &larger, err));
        ctx->stats.allocations++;
        ferrum_cuda_memory_free(block);
        ctx->scratch[kind] = block = larger;
    }
    FERRUM_TRY(ferrum_cuda_note(ctx, block, err));
    *out_address = block->address;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cuda_pregrow_gather_scratch(ferrum_context_t *ctx, uint64_t elements,
                                                   ferrum_error_t *err)
{
    CUdeviceptr address;

    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    return ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_GATHER,
                               ferrum_size_mul(elements, ferrum_dtype_bytes(ctx->device->act)),
                               &address, err);
}
