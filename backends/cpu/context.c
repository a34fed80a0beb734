/* SPDX-License-Identifier: MIT */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

static ferrum_status_t check_executor(const ferrum_executor_t *executor, ferrum_error_t *err)
{
    if (!executor)
        return FERRUM_OK;
    FERRUM_CHECK_STRUCT(executor, FERRUM_EXECUTOR_MIN_SIZE, err);
    if (executor->width == 0 || !executor->run || !executor->barrier)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "context_new: the executor needs width >= 1, run and barrier");
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_context_new(ferrum_device_t *device, const ferrum_executor_t *executor,
                                       ferrum_context_t **out_context, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(device, err);
    FERRUM_CHECK_POINTER(out_context, err);
    FERRUM_TRY(check_executor(executor, err));

    ferrum_context_t *ctx = ferrum_cpu_object_new(device, sizeof *ctx, "a context", err);
    if (!ctx)
        return FERRUM_OUT_OF_MEMORY;
    ctx->device = device;
    ctx->executor = executor;
    ctx->width = executor ? executor->width : 1;
    ctx->stats.head = (ferrum_head_t)FERRUM_HEAD(ferrum_context_stats_t);
    *out_context = ctx;
    return FERRUM_OK;
}

void ferrum_cpu_context_free(ferrum_context_t *ctx)
{
    if (!ctx)
        return;
    for (int i = 0; i < FERRUM_CPU_SCRATCH_KINDS; i++)
        ferrum_cpu_free(ctx->device, &ctx->scratch[i]);
    ferrum_cpu_object_free(ctx->device, ctx, sizeof *ctx);
}

ferrum_status_t ferrum_cpu_context_sync(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    ctx->stats.syncs++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_context_sync_before_readback(ferrum_context_t *ctx, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_context_stats(const ferrum_context_t *ctx,
                                         ferrum_context_stats_t *out_stats, ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return ferrum_fill_struct(__func__, out_stats, FERRUM_CONTEXT_STATS_MIN_SIZE, &ctx->stats, err);
}

void *ferrum_cpu_scratch(ferrum_context_t *ctx, ferrum_cpu_scratch_t kind, uint64_t count,
                         size_t element_bytes, ferrum_error_t *err)
{
    ferrum_cpu_memory_t *block = &ctx->scratch[kind];
    const uint64_t bytes = ferrum_size_mul(count, element_bytes);

    if (block->ptr && bytes <= block->bytes)
        return block->ptr;
    /* Half as much again, so that a sequence that grows by one key per step rarely allocates. */
    const uint64_t grown = (uint64_t)block->bytes + block->bytes / 2;
    ferrum_cpu_memory_t larger;
    if (ferrum_cpu_alloc(ctx->device, bytes > grown ? bytes : grown, "scratch", &larger, err) !=
        FERRUM_OK)
        return NULL;
    ctx->stats.allocations++;
    ferrum_cpu_free(ctx->device, block);
    *block = larger;
    return block->ptr;
}

ferrum_status_t ferrum_cpu_pregrow_gather_scratch(ferrum_context_t *ctx, uint64_t elements,
                                                  ferrum_error_t *err)
{
    FERRUM_CHECK_POINTER(ctx, err);
    return ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_GATHER, elements, sizeof(float), err)
               ? FERRUM_OK
               : FERRUM_OUT_OF_MEMORY;
}
