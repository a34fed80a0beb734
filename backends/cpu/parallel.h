/* SPDX-License-Identifier: MIT */
/**
 * @file parallel.h
 * @brief Work on the threads of a context's executor.
 *
 * Items are handed out one by one to whichever thread is free. Which thread runs an item never
 * shows in the results: items write disjoint outputs, and nothing is reduced across items.
 */
#ifndef FERRUM_CPU_PARALLEL_H
#define FERRUM_CPU_PARALLEL_H

#include "backends/cpu/objects.h"

/** One item of work; @p thread < width picks per-thread scratch. */
typedef void ferrum_cpu_item_fn(void *arg, uint64_t item, uint32_t thread);

/** Items of one phase of a region; shared by its threads. */
typedef struct ferrum_cpu_queue {
    atomic_ullong next;
    uint64_t count;
} ferrum_cpu_queue_t;

/** Run @p fn for every item < @p items and return when all are done. */
void ferrum_cpu_for_each(ferrum_context_t *ctx, uint64_t items, ferrum_cpu_item_fn *fn, void *arg);

/** The same without a context, on threads that the host spares; by the calling one alone when the
 *  work is less than a few megabytes of weights, @p bytes. */
void ferrum_cpu_spread(const ferrum_device_t *device, uint64_t bytes, uint64_t items,
                       ferrum_cpu_item_fn *fn, void *arg);

/** Run @p fn on every thread of the context, each time with its number. */
void ferrum_cpu_run(ferrum_context_t *ctx, ferrum_task_fn *fn, void *arg);

/** Inside ferrum_cpu_run: wait until every thread is here. */
void ferrum_cpu_barrier(const ferrum_context_t *ctx, uint32_t thread);

/** Inside ferrum_cpu_run: run items of @p queue until none is left. */
void ferrum_cpu_drain(ferrum_cpu_queue_t *queue, ferrum_cpu_item_fn *fn, void *arg,
                      uint32_t thread);

/** The next item of a queue; its count or more when none is left. */
static inline uint64_t ferrum_cpu_take(ferrum_cpu_queue_t *queue)
{
    return atomic_fetch_add_explicit(&queue->next, 1, memory_order_relaxed);
}

/** Items of @p size that cover @p total. */
static inline uint64_t ferrum_cpu_blocks(uint64_t total, uint64_t size)
{
    return total / size + (total % size != 0);
}

/** Length of block @p index when @p total is cut into blocks of @p size. */
static inline uint64_t ferrum_cpu_block_length(uint64_t total, uint64_t size, uint64_t index)
{
    const uint64_t rest = total - index * size;
    return rest < size ? rest : size;
}

#endif /* FERRUM_CPU_PARALLEL_H */
