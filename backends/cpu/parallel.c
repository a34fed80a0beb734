/* SPDX-License-Identifier: MIT */
#include "backends/cpu/parallel.h"

enum {
    SPREAD_BYTES = 4 << 20 /* takes milliseconds, threads start in less than a tenth of one */
};

/** Argument of the region behind ferrum_cpu_for_each. */
typedef struct for_each_region {
    ferrum_cpu_queue_t queue;
    ferrum_cpu_item_fn *fn;
    void *arg;
} for_each_region_t;

void ferrum_cpu_drain(ferrum_cpu_queue_t *queue, ferrum_cpu_item_fn *fn, void *arg, uint32_t thread)
{
    for (;;) {
        const uint64_t item = ferrum_cpu_take(queue);
        if (item >= queue->count)
            return;
        fn(arg, item, thread);
    }
}

static void run_items(void *arg, uint32_t thread, uint32_t width)
{
    for_each_region_t *region = arg;
    ferrum_cpu_drain(&region->queue, region->fn, region->arg, thread);
}

void ferrum_cpu_run(ferrum_context_t *ctx, ferrum_task_fn *fn, void *arg)
{
    ctx->stats.launches++;
    if (ctx->width > 1)
        ctx->executor->run(ctx->executor->self, fn, arg);
    else
        fn(arg, 0, 1);
}

void ferrum_cpu_barrier(const ferrum_context_t *ctx, uint32_t thread)
{
    if (ctx->width > 1)
        ctx->executor->barrier(ctx->executor->self, thread);
}

void ferrum_cpu_for_each(ferrum_context_t *ctx, uint64_t items, ferrum_cpu_item_fn *fn, void *arg)
{
    if (items > 1 && ctx->width > 1) {
        for_each_region_t region = {.queue = {.count = items}, .fn = fn, .arg = arg};
        ferrum_cpu_run(ctx, run_items, &region);
        return;
    }
    ctx->stats.launches += items > 0;
    for (uint64_t i = 0; i < items; i++)
        fn(arg, i, 0);
}

void ferrum_cpu_spread(const ferrum_device_t *device, uint64_t bytes, uint64_t items,
                       ferrum_cpu_item_fn *fn, void *arg)
{
    const ferrum_host_t *host = device->host;
    for_each_region_t region = {.queue = {.count = items}, .fn = fn, .arg = arg};
    if (bytes >= SPREAD_BYTES && items > 1 && FERRUM_HAS(ferrum_host_t, host, spread) &&
        host->spread)
        host->spread(host->self, run_items, &region);
    else
        run_items(&region, 0, 1);
}
