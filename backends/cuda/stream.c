/* SPDX-License-Identifier: MIT */
/* The driver calls that queue work on a context's stream. */
#include "backends/cuda/check.h"

#include <string.h>

ferrum_status_t ferrum_cuda_launch(ferrum_context_t *ctx, ferrum_cuda_kernel_t kernel,
                                   ferrum_cuda_grid_t grid, const void *args, ferrum_error_t *err)
{
    enum {
        MAX_X = INT32_MAX,
        MAX_YZ = 65535
    };
    ferrum_device_t *device = ctx->device;
    void *params[] = {(void *)(uintptr_t)args};

    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return FERRUM_OK;
    if (grid.x > MAX_X || grid.y > MAX_YZ || grid.z > MAX_YZ)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "a launch of %llu x %llu x %llu blocks exceeds what CUDA allows: split "
                           "the batch",
                           (unsigned long long)grid.x, (unsigned long long)grid.y,
                           (unsigned long long)grid.z);
    ferrum_cuda_enter(device);
    const CUresult result = device->driver.cuLaunchKernel(
        device->functions[kernel], (unsigned)grid.x, (unsigned)grid.y, (unsigned)grid.z,
        grid.threads, 1, 1, grid.shared_bytes, ctx->stream, params, NULL);
    ferrum_cuda_leave(device);
    if (!ctx->capturing)
        ctx->stats.launches++;
    return ferrum_cuda_context_check(ctx, result, "cuLaunchKernel", err);
}

ferrum_status_t ferrum_cuda_wait(ferrum_context_t *ctx, ferrum_error_t *err)
{
    ferrum_cuda_enter(ctx->device);
    const CUresult result = ctx->device->driver.cuStreamSynchronize(ctx->stream);
    ferrum_cuda_leave(ctx->device);
    ctx->stats.syncs++;
    return ferrum_cuda_context_check(ctx, result, "cuStreamSynchronize", err);
}

/** Pinned memory for transfers, once per context; the device is current. */
static CUresult make_stages(ferrum_context_t *ctx)
{
    const ferrum_cuda_driver_t *driver = &ctx->device->driver;
    CUresult result = CUDA_SUCCESS;

    for (int i = 0; i < FERRUM_CUDA_STAGES && result == CUDA_SUCCESS; i++)
        if (!ctx->stage_done[i])
            result = driver->cuEventCreate(&ctx->stage_done[i], CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS && !ctx->stages) {
        result = driver->cuMemHostAlloc(&ctx->stages,
                                        (size_t)FERRUM_CUDA_STAGES * FERRUM_CUDA_STAGE_BYTES, 0);
        ctx->stats.allocations++;
    }
    return result;
}

/** A stage that no copy uses any more. */
static CUresult take_stage(ferrum_context_t *ctx, uint32_t *out_stage, char **out_memory)
{
    const ferrum_cuda_driver_t *driver = &ctx->device->driver;
    const uint32_t stage = ctx->next_stage;
    CUresult result = make_stages(ctx);

    if (result != CUDA_SUCCESS)
        return result;
    result = driver->cuEventQuery(ctx->stage_done[stage]);
    if (result == CUDA_ERROR_NOT_READY) {
        ctx->stats.syncs++;
        result = driver->cuEventSynchronize(ctx->stage_done[stage]);
    }
    ctx->next_stage = (stage + 1) % FERRUM_CUDA_STAGES;
    *out_stage = stage;
    *out_memory = (char *)ctx->stages + (size_t)stage * FERRUM_CUDA_STAGE_BYTES;
    return result;
}

ferrum_status_t ferrum_cuda_upload(ferrum_context_t *ctx, CUdeviceptr to, const void *source,
                                   uint64_t count, uint32_t element_bytes,
                                   ferrum_cuda_fill_fn *fill, ferrum_error_t *err)
{
    const ferrum_cuda_driver_t *driver = &ctx->device->driver;
    const uint64_t chunk = FERRUM_CUDA_STAGE_BYTES / element_bytes;
    CUresult result = CUDA_SUCCESS;

    ferrum_cuda_enter(ctx->device);
    for (uint64_t first = 0; first < count && result == CUDA_SUCCESS; first += chunk) {
        const uint64_t part = count - first < chunk ? count - first : chunk;
        uint32_t stage;
        char *memory;
        result = take_stage(ctx, &stage, &memory);
        if (result != CUDA_SUCCESS)
            break;
        if (fill)
            fill(source, first, part, memory);
        else
            memcpy(memory, (const char *)source + first * element_bytes, part * element_bytes);
        result = driver->cuMemcpyHtoDAsync(to + first * element_bytes, memory,
                                           (size_t)(part * element_bytes), ctx->stream);
        if (result == CUDA_SUCCESS)
            result = driver->cuEventRecord(ctx->stage_done[stage], ctx->stream);
    }
    ferrum_cuda_leave(ctx->device);
    ctx->stats.copies++;
    return ferrum_cuda_context_check(ctx, result, "copying to the device", err);
}

ferrum_status_t ferrum_cuda_download(ferrum_context_t *ctx, CUdeviceptr from, void *result_memory,
                                     uint64_t count, uint32_t element_bytes,
                                     ferrum_cuda_take_fn *take, ferrum_error_t *err)
{
    const ferrum_cuda_driver_t *driver = &ctx->device->driver;
    const uint64_t chunk = FERRUM_CUDA_STAGE_BYTES / element_bytes;
    CUresult result = CUDA_SUCCESS;

    ferrum_cuda_enter(ctx->device);
    for (uint64_t first = 0; first < count && result == CUDA_SUCCESS; first += chunk) {
        const uint64_t part = count - first < chunk ? count - first : chunk;
        uint32_t stage;
        char *memory;
        result = take_stage(ctx, &stage, &memory);
        if (result == CUDA_SUCCESS)
            result = driver->cuMemcpyDtoHAsync(memory, from + first * element_bytes,
                                               (size_t)(part * element_bytes), ctx->stream);
        if (result == CUDA_SUCCESS)
            result = driver->cuStreamSynchronize(ctx->stream);
        ctx->stats.syncs++;
        if (result != CUDA_SUCCESS)
            break;
        if (take)
            take(result_memory, first, part, memory);
        else
            memcpy((char *)result_memory + first * element_bytes, memory, part * element_bytes);
    }
    ferrum_cuda_leave(ctx->device);
    ctx->stats.copies++;
    return ferrum_cuda_context_check(ctx, result, "copying from the device", err);
}

ferrum_status_t ferrum_cuda_zero(ferrum_context_t *ctx, CUdeviceptr to, uint64_t bytes,
                                 ferrum_error_t *err)
{
    if (bytes == 0)
        return FERRUM_OK;
    ferrum_cuda_enter(ctx->device);
    const CUresult result = ctx->device->driver.cuMemsetD8Async(to, 0, (size_t)bytes, ctx->stream);
    ferrum_cuda_leave(ctx->device);
    ctx->stats.memsets += !ctx->capturing;
    return ferrum_cuda_context_check(ctx, result, "cuMemsetD8Async", err);
}

ferrum_status_t ferrum_cuda_copy(ferrum_context_t *ctx, CUdeviceptr to, CUdeviceptr from,
                                 uint64_t bytes, ferrum_error_t *err)
{
    if (bytes == 0)
        return FERRUM_OK;
    ferrum_cuda_enter(ctx->device);
    const CUresult result =
        ctx->device->driver.cuMemcpyDtoDAsync(to, from, (size_t)bytes, ctx->stream);
    ferrum_cuda_leave(ctx->device);
    ctx->stats.device_copies += !ctx->capturing;
    return ferrum_cuda_context_check(ctx, result, "cuMemcpyDtoDAsync", err);
}
