/* SPDX-License-Identifier: MIT */
/*
 * plan: a stable counting sort of pairs by expert, and what is made of it, in one launch.
 * plan_quantise: rows of x as int8, and in the same launch, if it is wanted, a plan.
 *
 * One block of 128 per expert (grid x), and one for what belongs to none. Each counts the pairs of
 * all experts for itself, so none waits for another; then it places its own in order, a consecutive
 * share of the pairs per thread.
 *
 * Preconditions: 4*(128 + experts) bytes of shared memory for the plan.
 */
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/moe_args.h"

enum : uint32_t {
    THREADS = 128
};

/** Which of the experts here pair p belongs to; experts or more: none. */
FERRUM_DEVICE uint32_t local_expert(const ferrum_plan_args_t &args, uint32_t p)
{
    const int32_t id = static_cast<const int32_t *>(args.ids)[p];
    return id < 0 ? args.experts : uint32_t(id) - args.first_expert;
}

/** Shared memory: a number per thread, then the pairs of each expert. */
FERRUM_DEVICE uint32_t *thread_values()
{
    return gpu::shared_memory<uint32_t>();
}
FERRUM_DEVICE uint32_t *expert_counts()
{
    return thread_values() + THREADS;
}

/** This thread's consecutive share of @p count things. */
struct range_t {
    uint32_t begin, end;
};
FERRUM_DEVICE range_t share(uint32_t count)
{
    const uint32_t each = (count + THREADS - 1) / THREADS, begin = gpu::thread_x() * each;
    const uint32_t from = begin < count ? begin : count;
    return {from, count - from < each ? count : from + each};
}

/** Sum over the threads before this one, and over all; every thread calls it. */
FERRUM_DEVICE uint32_t sum_before(uint32_t value, uint32_t *out_total)
{
    uint32_t *values = thread_values();
    uint32_t before = 0, total = 0;

    gpu::barrier();
    values[gpu::thread_x()] = value;
    gpu::barrier();
    for (uint32_t i = 0; i < THREADS; i++) {
        before += i < gpu::thread_x() ? values[i] : 0;
        total += values[i];
    }
    *out_total = total;
    return before;
}

/** Pairs of every expert, in shared memory; the order of additions does not show in integers. */
FERRUM_DEVICE void count_pairs(const ferrum_plan_args_t &args)
{
    uint32_t *counts = expert_counts();

    for (uint32_t e = gpu::thread_x(); e < args.experts; e += THREADS)
        counts[e] = 0;
    gpu::barrier();
    for (uint32_t p = gpu::thread_x(); p < args.pairs; p += THREADS) {
        const uint32_t e = local_expert(args, p);
        if (e < args.experts)
            (void)gpu::atomic_add(&counts[e], 1u);
    }
    gpu::barrier();
}

/** What the experts before e take up, in rows and in padded slots, and the longest of them. */
struct before_t {
    uint32_t rows, slots, longest;
};
FERRUM_DEVICE before_t look_before(const ferrum_plan_args_t &args, uint32_t e)
{
    const uint32_t *counts = expert_counts();
    const uint32_t block = args.block_size;
    before_t mine = {0, 0, 0}, all;
    uint32_t *values = thread_values();

    for (uint32_t i = gpu::thread_x(); i < e; i += THREADS) {
        mine.rows += counts[i];
        mine.slots += block ? (counts[i] + block - 1) / block * block : 0;
        mine.longest = counts[i] > mine.longest ? counts[i] : mine.longest;
    }
    (void)sum_before(mine.rows, &all.rows);
    (void)sum_before(mine.slots, &all.slots);
    gpu::barrier();
    values[gpu::thread_x()] = mine.longest;
    gpu::barrier();
    all.longest = 0;
    for (uint32_t i = 0; i < THREADS; i++)
        all.longest = values[i] > all.longest ? values[i] : all.longest;
    return all;
}

/** The pairs of one expert, in order. */
FERRUM_DEVICE void place_expert(const ferrum_plan_args_t &args, uint32_t e, const before_t &before)
{
    int32_t *row_of_pair = static_cast<int32_t *>(args.row_of_pair);
    int32_t *token_of_row = static_cast<int32_t *>(args.token_of_row);
    int32_t *sorted = static_cast<int32_t *>(args.sorted);
    int32_t *list =
        args.lists ? static_cast<int32_t *>(args.lists) + size_t(e) * args.pairs : nullptr;
    const range_t range = share(args.pairs);
    uint32_t count = 0, total;

    for (uint32_t p = range.begin; p < range.end; p++)
        count += local_expert(args, p) == e;
    uint32_t rank = sum_before(count, &total);
    for (uint32_t p = range.begin; p < range.end; p++) {
        if (local_expert(args, p) != e)
            continue;
        const uint32_t row = before.rows + rank;
        if (row_of_pair)
            row_of_pair[p] = int32_t(row);
        if (token_of_row)
            token_of_row[row] = int32_t(p / args.top_k);
        if (sorted)
            sorted[before.slots + rank] = int32_t(args.sorted_pairs ? p : row);
        if (list)
            list[rank] = int32_t(p);
        rank++;
    }
    for (uint32_t i = total + gpu::thread_x(); list && i < args.pairs; i += THREADS)
        list[i] = 0;
    if (sorted) {
        const uint32_t block = args.block_size, blocks = (total + block - 1) / block;
        int32_t *experts = static_cast<int32_t *>(args.block_experts) + before.slots / block;
        for (uint32_t i = total + gpu::thread_x(); i < blocks * block; i += THREADS)
            sorted[before.slots + i] = int32_t(args.pairs);
        for (uint32_t i = gpu::thread_x(); i < blocks; i += THREADS)
            experts[i] = int32_t(e);
    }
    if (gpu::thread_x() == 0) {
        if (args.offsets)
            static_cast<int32_t *>(args.offsets)[e] = int32_t(before.rows);
        if (args.lengths)
            static_cast<int32_t *>(args.lengths)[e] = int32_t(total);
    }
}

/** What belongs to no expert: totals, unused entries, pairs without a row. */
FERRUM_DEVICE void place_rest(const ferrum_plan_args_t &args, const before_t &all)
{
    int32_t *row_of_pair = static_cast<int32_t *>(args.row_of_pair);
    int32_t *token_of_row = static_cast<int32_t *>(args.token_of_row);
    int32_t *sorted = static_cast<int32_t *>(args.sorted);
    int32_t *experts = static_cast<int32_t *>(args.block_experts);
    const uint32_t thread = gpu::thread_x();

    for (uint32_t p = thread; row_of_pair && p < args.pairs; p += THREADS)
        if (local_expert(args, p) >= args.experts)
            row_of_pair[p] = -1;
    for (uint32_t r = all.rows + thread; token_of_row && r < args.pairs; r += THREADS)
        token_of_row[r] = 0;
    for (uint32_t s = all.slots + thread; sorted && s < args.sorted_max; s += THREADS)
        sorted[s] = int32_t(args.pairs);
    if (sorted)
        for (uint32_t b = all.slots / args.block_size + thread;
             b < args.sorted_max / args.block_size; b += THREADS)
            experts[b] = -1;
    if (thread != 0)
        return;
    if (args.offsets)
        static_cast<int32_t *>(args.offsets)[args.experts] = int32_t(all.rows);
    if (args.total)
        *static_cast<int32_t *>(args.total) = int32_t(all.slots);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t *launch = static_cast<uint32_t *>(args.launch[i]);
        if (!launch)
            continue;
        launch[0] = (all.longest > 1 ? all.longest - 1 : 0) / 32 + 1;
        launch[1] = args.launch_rows[i] / 64 + (args.launch_rows[i] % 64 != 0);
        launch[2] = args.experts;
    }
}

FERRUM_DEVICE void run_plan(const ferrum_plan_args_t &args)
{
    const uint32_t e = gpu::block_x();

    count_pairs(args);
    const before_t before = look_before(args, e);

    if (e < args.experts)
        place_expert(args, e, before);
    else
        place_rest(args, before);
}

/** Some steps of a row, a group of 32 inputs per warp at a time. */
template <class T> FERRUM_DEVICE void quantise(const ferrum_quantise_args_t &args, uint32_t block)
{
    const uint32_t steps = (args.k + 63) / 64;
    const uint32_t parts = (steps + FERRUM_QUANTISE_STEPS - 1) / FERRUM_QUANTISE_STEPS;
    const size_t row = block / parts;
    const T *x = static_cast<const T *>(args.x) + row * args.k;
    unsigned char *out =
        static_cast<unsigned char *>(args.out) + row * FERRUM_INT8_ROW_BYTES(args.k);
    const uint32_t first = block % parts * FERRUM_QUANTISE_STEPS * 2;

    FERRUM_UNROLL
    for (uint32_t i = 0; i < FERRUM_QUANTISE_STEPS * 2; i += THREADS / 32) {
        const uint32_t group = first + i + gpu::warp(), k = group * 32 + gpu::lane();
        if (group < steps * 2)
            gpu::int8_quantise(k < args.k ? gpu::to_f32(x[k]) : 0.0f, group, steps, out);
    }
}

template <class T> FERRUM_DEVICE void plan_quantise(const ferrum_quantise_args_t &args)
{
    if (gpu::block_x() < args.plan_blocks)
        run_plan(args.plan);
    else
        quantise<T>(args, gpu::block_x() - args.plan_blocks);
}

FERRUM_KERNEL(THREADS, ferrum_plan, ferrum_plan_args_t args)
{
    run_plan(args);
}
FERRUM_KERNEL_INSTANCE(THREADS, ferrum_plan_quantise_f16, (plan_quantise<gpu::f16_t>),
                       (ferrum_quantise_args_t args), (args))
FERRUM_KERNEL_INSTANCE(THREADS, ferrum_plan_quantise_bf16, (plan_quantise<gpu::bf16_t>),
                       (ferrum_quantise_args_t args), (args))
