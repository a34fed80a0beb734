/* SPDX-License-Identifier: MIT */
/* What the device reaches at best: kernels that do nothing but read, or nothing but multiply, timed
 * by the device's own clock. The best of several runs counts. */
#include "backends/cuda/limits.h"

#include "backends/cuda/check.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/limits_args.h"

enum {
    TIMES_CACHE = 32, /* bytes read are so many times the L2 cache */
    LEAST_BYTES = 1 << 20,
    VECTOR_BYTES = 16,
    READ_BLOCKS = 8, /* per multiprocessor: all threads that fit */
    MULTIPLY_BLOCKS = 2,
    FIRST_STEPS = 8,
    MOST_STEPS = 1 << 20,
    LEAST_RUNS = 3,
    MOST_RUNS = 500
};
static const double least_run_ms = 1.0, least_total_ms = 100.0;

/** One kernel with its launch, to be timed. */
typedef struct work {
    ferrum_context_t *ctx;
    ferrum_timer_t *timer;
    ferrum_cuda_kernel_t kernel;
    ferrum_cuda_grid_t grid;
    ferrum_limit_args_t args;
} work_t;

static ferrum_status_t time_once(const work_t *work, double *out_ms, ferrum_error_t *err)
{
    FERRUM_TRY(ferrum_cuda_timer_record_start(work->ctx, work->timer, err));
    FERRUM_TRY(ferrum_cuda_launch(work->ctx, work->kernel, work->grid, &work->args, err));
    FERRUM_TRY(ferrum_cuda_timer_record_end(work->ctx, work->timer, err));
    return ferrum_cuda_timer_elapsed_ms(work->timer, out_ms, err);
}

static ferrum_status_t time_best(const work_t *work, double *out_ms, ferrum_error_t *err)
{
    double best = 0, total = 0;

    for (int run = 0; run < LEAST_RUNS || (total < least_total_ms && run < MOST_RUNS); run++) {
        double ms;
        FERRUM_TRY(time_once(work, &ms, err));
        total += ms;
        if (run == 0 || ms < best)
            best = ms;
    }
    if (!(best > 0))
        return ferrum_fail(err, FERRUM_DEVICE_ERROR, FERRUM_REASON_OTHER,
                           "the device's clock does not advance");
    *out_ms = best;
    return FERRUM_OK;
}

static ferrum_cuda_grid_t grid(const ferrum_context_t *ctx, int blocks_each)
{
    return (ferrum_cuda_grid_t){(uint64_t)(ctx->device->processors * blocks_each), 1, 1,
                                FERRUM_LIMIT_THREADS, 0};
}

/** Bytes to read: many times the cache, and half of what is free at most. */
static uint64_t choose_bytes(ferrum_device_t *device)
{
    const ferrum_cuda_driver_t *driver = &device->driver;
    size_t free_bytes = 0, total_bytes = 0;
    int cache = 0;

    ferrum_cuda_enter(device);
    (void)driver->cuDeviceGetAttribute(&cache, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, device->id);
    (void)driver->cuMemGetInfo(&free_bytes, &total_bytes);
    ferrum_cuda_leave(device);
    uint64_t bytes = cache > 0 ? (uint64_t)cache * TIMES_CACHE : 0;
    if (bytes < LEAST_BYTES)
        bytes = LEAST_BYTES;
    if (bytes > free_bytes / 2)
        bytes = free_bytes / 2;
    return bytes / VECTOR_BYTES * VECTOR_BYTES;
}

static ferrum_status_t measure_reading(work_t *work, uint64_t bytes, ferrum_limits_t *limits,
                                       ferrum_error_t *err)
{
    double ms;

    work->grid = grid(work->ctx, READ_BLOCKS);
    work->args.vectors = bytes / VECTOR_BYTES;
    work->kernel = FERRUM_CUDA_KERNEL_limit_fill;
    FERRUM_TRY(time_once(work, &ms, err));
    work->kernel = FERRUM_CUDA_KERNEL_limit_read;
    FERRUM_TRY(time_best(work, &ms, err));
    limits->read_bytes = bytes;
    limits->read_gbps = (double)bytes / ms / 1e6;
    return FERRUM_OK;
}

/** @p ops: multiplies and adds of one product of a warp. */
static ferrum_status_t measure_multiplying(work_t *work, ferrum_cuda_kernel_t kernel, double ops,
                                           double *out_gops, ferrum_error_t *err)
{
    double ms;

    work->kernel = kernel;
    work->grid = grid(work->ctx, MULTIPLY_BLOCKS);
    work->args.steps = FIRST_STEPS;
    FERRUM_TRY(time_once(work, &ms, err)); /* the first launch may load the kernel */
    for (;;) {
        FERRUM_TRY(time_once(work, &ms, err));
        if (ms >= least_run_ms || work->args.steps >= MOST_STEPS)
            break;
        work->args.steps *= 4;
    }
    FERRUM_TRY(time_best(work, &ms, err));
    const double warps = (double)(work->grid.x * (FERRUM_LIMIT_THREADS / 32));
    *out_gops = warps * FERRUM_LIMIT_CHAINS * work->args.steps * ops / ms / 1e6;
    return FERRUM_OK;
}

static ferrum_status_t measure_all(work_t *work, uint64_t bytes, ferrum_limits_t *limits,
                                   ferrum_error_t *err)
{
    /* Multiplying first: it brings the clocks up. */
    FERRUM_TRY(measure_multiplying(work, FERRUM_CUDA_KERNEL_limit_multiply, 2.0 * 16 * 8 * 16,
                                   &limits->act_gops, err));
    FERRUM_TRY(measure_multiplying(work, FERRUM_CUDA_KERNEL_limit_multiply8, 2.0 * 16 * 8 * 32,
                                   &limits->int8_gops, err));
    FERRUM_TRY(measure_reading(work, bytes, limits, err));
    return ferrum_cuda_wait(work->ctx, err);
}

ferrum_status_t ferrum_cuda_limits_measure(ferrum_context_t *ctx, ferrum_limits_t *out_limits,
                                           ferrum_error_t *err)
{
    ferrum_limits_t limits = {.head = FERRUM_HEAD(ferrum_limits_t)};
    work_t work = {.ctx = ctx};
    ferrum_cuda_memory_t *memory;

    FERRUM_CHECK_POINTER(ctx, err);
    FERRUM_CHECK_STRUCT(out_limits, FERRUM_LIMITS_MIN_SIZE, err);
    FERRUM_TRY(ferrum_cuda_check_alive(ctx, err));
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    const uint64_t bytes = choose_bytes(ctx->device);
    FERRUM_TRY(
        ferrum_cuda_memory_new(ctx->device, bytes + VECTOR_BYTES, "measuring", &memory, err));
    work.args.data = memory->address;
    work.args.out = memory->address + bytes;
    /* 1 of 4 billion for a thread; all that happens then is a write. */
    work.args.impossible = 0x7fc0dead;
    ferrum_status_t status = ferrum_cuda_timer_new(ctx->device, &work.timer, err);
    if (status == FERRUM_OK)
        status = measure_all(&work, bytes, &limits, err);
    ferrum_cuda_timer_free(work.timer);
    ferrum_cuda_memory_free(memory);
    FERRUM_TRY(status);
    return ferrum_fill_struct(__func__, out_limits, FERRUM_LIMITS_MIN_SIZE, &limits, err);
}
