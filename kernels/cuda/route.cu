/* SPDX-License-Identifier: MIT */
/*
 * route: the top-k experts of each row and their weights, one warp per row (grid x, blocks of 32).
 * route_plan: the same for few rows, four of them per block of 128, and the plan that products over
 * blocks of pairs need, in one launch: the block that draws the last ticket sorts the pairs of all
 * rows. No block waits for another.
 *
 * The plan is that of plan.cu, entry by entry, up to the end of what is used: entries of `sorted`
 * and `block_experts` beyond total[0] are left alone. Each of four warps takes a consecutive
 * quarter of the pairs, 32 at a time; lanes with the same expert find each other, so that a pair's
 * rank is the number of pairs before it, whatever the schedule.
 *
 * Preconditions: route: 4*(2*experts + groups) bytes of shared memory; route_plan: four times that.
 */
#include "kernels/cuda/route.cuh"

enum : uint32_t {
    THREADS = 128,
    WARPS = 4
};

template <class T> FERRUM_DEVICE void route(const ferrum_route_args_t &args)
{
    gpu::route_row<T>(args, gpu::block_x(), gpu::shared_memory<float>());
}

/** Whether all other blocks have written their rows. */
FERRUM_DEVICE bool is_last(const ferrum_route_plan_args_t &args)
{
    uint32_t *ticket = static_cast<uint32_t *>(args.ticket);
    uint32_t *drawn = gpu::shared_memory<uint32_t>();

    gpu::fence_device();
    gpu::barrier();
    if (gpu::thread_x() == 0) {
        *drawn = gpu::atomic_add(ticket, 1u);
        if (*drawn + 1 == gpu::grid_x())
            (void)gpu::atomic_exchange(ticket, 0u);
        gpu::fence_device();
    }
    gpu::barrier();
    const bool last = *drawn + 1 == gpu::grid_x();
    gpu::barrier();
    return last;
}

/** Pairs of each expert, and then the slots they come to: [WARPS][experts], one row per warp. */
FERRUM_DEVICE uint32_t *counts_of(const ferrum_plan_args_t &plan, uint32_t warp)
{
    return gpu::shared_memory<uint32_t>(WARPS * 4) + warp * plan.experts;
}

/**
 * The quarter of this warp in order, 32 pairs at a time: visit(pair, slot) for each whose expert is
 * here, slot being its expert's count and one more for each such pair before it.
 */
template <class Visit> FERRUM_DEVICE void for_pairs(const ferrum_plan_args_t &plan, Visit visit)
{
    const int32_t *ids = static_cast<const int32_t *>(plan.ids);
    const uint32_t each = (plan.pairs + WARPS * 32 - 1) / (WARPS * 32) * 32;
    uint32_t *counts = counts_of(plan, gpu::warp());

    for (uint32_t base = gpu::warp() * each; base < (gpu::warp() + 1) * each; base += 32) {
        const uint32_t pair = base + gpu::lane();
        const int32_t id = pair < plan.pairs ? ids[pair] : -1;
        const uint32_t expert = id < 0 ? plan.experts : uint32_t(id) - plan.first_expert;
        const bool here = expert < plan.experts;
        const uint32_t same = gpu::match_any(gpu::full_mask, here ? expert : plan.experts);
        const uint32_t rank = gpu::count_bits(same & ((1u << gpu::lane()) - 1));
        if (here)
            visit(pair, counts[expert] + rank);
        gpu::warp_barrier(gpu::full_mask);
        if (here && rank == 0)
            counts[expert] += gpu::count_bits(same);
        gpu::warp_barrier(gpu::full_mask);
    }
}

/** Sum of @p value over the threads before this one; @p out_all: over all. */
FERRUM_DEVICE uint32_t sum_before(uint32_t value, uint32_t *out_all)
{
    uint32_t *sums = gpu::shared_memory<uint32_t>();
    uint32_t inclusive = value, before = 0, all = 0;

    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t other = gpu::shuffle_up(gpu::full_mask, inclusive, step);
        inclusive += gpu::lane() >= step ? other : 0;
    }
    if (gpu::lane() == 31)
        sums[gpu::warp()] = inclusive;
    gpu::barrier();
    for (uint32_t w = 0; w < WARPS; w++) {
        before += w < gpu::warp() ? sums[w] : 0;
        all += sums[w];
    }
    *out_all = all;
    return before + inclusive - value;
}

/** Where an expert's padded slots begin, for each warp's pairs; its blocks and its padding. */
FERRUM_DEVICE void place_expert(const ferrum_plan_args_t &plan, uint32_t expert, uint32_t first)
{
    int32_t *sorted = static_cast<int32_t *>(plan.sorted);
    int32_t *experts = static_cast<int32_t *>(plan.block_experts);
    const uint32_t size = plan.block_size;
    uint32_t slot = first;

    for (uint32_t w = 0; w < WARPS; w++) {
        uint32_t *count = counts_of(plan, w) + expert;
        const uint32_t pairs = *count;
        *count = slot;
        slot += pairs;
    }
    const uint32_t end = first + (slot - first + size - 1) / size * size;
    for (uint32_t block = first / size; block < end / size; block++)
        experts[block] = int32_t(expert);
    for (; slot < end; slot++)
        sorted[slot] = int32_t(plan.pairs);
}

/** Padded slots of an expert once its pairs are counted. */
FERRUM_DEVICE uint32_t slots_of(const ferrum_plan_args_t &plan, uint32_t expert)
{
    uint32_t pairs = 0;

    for (uint32_t w = 0; w < WARPS; w++)
        pairs += counts_of(plan, w)[expert];
    return (pairs + plan.block_size - 1) / plan.block_size * plan.block_size;
}

/** The plan, by one block. */
FERRUM_DEVICE void sort_pairs(const ferrum_plan_args_t &plan)
{
    const uint32_t each = (plan.experts + THREADS - 1) / THREADS;
    const uint32_t begin = gpu::thread_x() * each;
    uint32_t slots = 0, all;

    for (uint32_t i = gpu::thread_x(); i < WARPS * plan.experts; i += THREADS)
        counts_of(plan, 0)[i] = 0;
    gpu::barrier();
    for_pairs(plan, [](uint32_t, uint32_t) {});
    gpu::barrier();
    for (uint32_t e = begin; e < begin + each && e < plan.experts; e++)
        slots += slots_of(plan, e);
    uint32_t first = sum_before(slots, &all);
    for (uint32_t e = begin; e < begin + each && e < plan.experts; e++) {
        const uint32_t mine = slots_of(plan, e);
        place_expert(plan, e, first);
        first += mine;
    }
    gpu::barrier();
    for_pairs(plan, [&](uint32_t pair, uint32_t slot) {
        static_cast<int32_t *>(plan.sorted)[slot] = int32_t(pair);
    });
    if (gpu::thread_x() == 0)
        *static_cast<int32_t *>(plan.total) = int32_t(all);
}

template <class T> FERRUM_DEVICE void route_plan(const ferrum_route_plan_args_t &args)
{
    const uint32_t row = gpu::block_x() * WARPS + gpu::warp();

    if (row < args.rows)
        gpu::route_row<T>(args.route, row,
                          gpu::shared_memory<float>() +
                              gpu::warp() * gpu::route_floats(args.route));
    if (is_last(args))
        sort_pairs(args.plan);
}

#define ROUTE(act)                                                                                 \
    FERRUM_KERNEL_INSTANCE(32, ferrum_route_##act, (route<gpu::act##_t>),                          \
                           (ferrum_route_args_t args), (args))                                     \
    FERRUM_KERNEL_INSTANCE(128, ferrum_route_plan_##act, (route_plan<gpu::act##_t>),               \
                           (ferrum_route_plan_args_t args), (args))
ROUTE(f16)
ROUTE(bf16)
