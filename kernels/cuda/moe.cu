/* SPDX-License-Identifier: MIT */
/*
 * Routing, the stable order of pairs by expert, and the weighted sum. Index arithmetic and f32 sums
 * in a fixed order only: same inputs, same bits.
 *
 *   route          one warp per row (grid x); 4*(2*experts + groups) bytes of shared memory
 *   plan_count     one block of 128 per expert; 512 bytes of shared memory
 *   plan_place     one block of 128 per expert and one more; 512 bytes of shared memory
 *   combine, moe_silu_mul    one thread per element, blocks of 128
 */
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/moe_args.h"

enum : uint32_t {
    THREADS = 128
};

constexpr float LOWEST = -__builtin_huge_valf();

/* ---- routing ---- */

/** The larger value of the warp, the lower index of equals; no lane has one: index n. */
FERRUM_DEVICE uint32_t warp_largest(float value, uint32_t index)
{
    FERRUM_UNROLL
    for (uint32_t step = 16; step > 0; step >>= 1) {
        const float other = gpu::shuffle_xor(gpu::full_mask, value, step);
        const uint32_t other_index = gpu::shuffle_xor(gpu::full_mask, index, step);
        if (other > value || (other == value && other_index < index)) {
            value = other;
            index = other_index;
        }
    }
    return index;
}

/** Index of the largest of @p n values, the lowest of equals. */
FERRUM_DEVICE uint32_t largest(const float *values, uint32_t n)
{
    float best = LOWEST;
    uint32_t index = n;

    for (uint32_t i = gpu::lane(); i < n; i += 32)
        if (values[i] > best || index == n) {
            best = values[i];
            index = i;
        }
    return warp_largest(best, index);
}

/** In place: exp(x - max) / sum. */
FERRUM_DEVICE void softmax(float *x, uint32_t n)
{
    const float max = x[largest(x, n)];
    float sum = 0.0f;

    gpu::warp_barrier(gpu::full_mask);
    for (uint32_t i = gpu::lane(); i < n; i += 32) {
        x[i] = gpu::exp(x[i] - max);
        sum += x[i];
    }
    const float inverse = gpu::divide(1.0f, gpu::warp_sum(sum));
    for (uint32_t i = gpu::lane(); i < n; i += 32)
        x[i] *= inverse;
    gpu::warp_barrier(gpu::full_mask);
}

/** Scores and what experts are selected by; false when a number is not finite. */
template <class T>
FERRUM_DEVICE bool load_scores(const ferrum_route_args_t &args, float *scores, float *selection)
{
    const size_t row = size_t(gpu::block_x()) * args.experts;
    const float *bias = static_cast<const float *>(args.bias);
    bool finite = true;

    for (uint32_t e = gpu::lane(); e < args.experts; e += 32) {
        scores[e] = gpu::load_either<T>(args.logits, args.logits_f32 != 0, row + e);
        finite = finite && gpu::is_finite(scores[e]) && (!bias || gpu::is_finite(bias[e]));
    }
    if (gpu::ballot(gpu::full_mask, !finite) != 0)
        return false;
    gpu::warp_barrier(gpu::full_mask);
    if (args.score_function == 0)
        softmax(scores, args.experts);
    for (uint32_t e = gpu::lane(); e < args.experts; e += 32) {
        if (args.score_function == 2)
            scores[e] = gpu::divide(1.0f, 1.0f + gpu::exp(-scores[e]));
        selection[e] = bias ? scores[e] + bias[e] : scores[e];
    }
    gpu::warp_barrier(gpu::full_mask);
    return true;
}

/** Rule out all but the best groups; a group's score is the sum of its two best experts. */
FERRUM_DEVICE void mask_groups(const ferrum_route_args_t &args, float *selection, float *groups)
{
    const uint32_t size = args.experts / args.groups;

    for (uint32_t g = gpu::lane(); g < args.groups; g += 32) {
        float first = LOWEST, second = LOWEST;
        for (uint32_t e = g * size; e < (g + 1) * size; e++) {
            const float value = selection[e];
            second = value > first ? first : value > second ? value : second;
            first = value > first ? value : first;
        }
        groups[g] = size > 1 ? first + second : first;
    }
    gpu::warp_barrier(gpu::full_mask);
    for (uint32_t i = 0; i < args.topk_groups; i++) {
        const uint32_t best = largest(groups, args.groups);
        gpu::warp_barrier(gpu::full_mask);
        if (gpu::lane() == 0)
            groups[best] = LOWEST;
        gpu::warp_barrier(gpu::full_mask);
    }
    for (uint32_t e = gpu::lane(); e < args.experts; e += 32)
        if (groups[e / size] != LOWEST)
            selection[e] = LOWEST;
    gpu::warp_barrier(gpu::full_mask);
}

FERRUM_DEVICE void refuse_row(const ferrum_route_args_t &args, int32_t *ids, float *weights)
{
    for (uint32_t j = gpu::lane(); j < args.top_k; j += 32) {
        ids[j] = -1;
        weights[j] = __builtin_nanf("");
    }
    if (args.fault && gpu::lane() == 0)
        gpu::atomic_max(&static_cast<ferrum_fault_t *>(args.fault)->row,
                        ~uint64_t(0) - gpu::block_x());
}

/** What becomes of the chosen scores, in slot order; lane 0. */
FERRUM_DEVICE void finish_weights(const ferrum_route_args_t &args, float *weights)
{
    float sum = 0.0f;

    if (args.score_function == 1) {
        for (uint32_t j = args.top_k; j > 0; j--)
            weights[j - 1] = gpu::exp(weights[j - 1] - weights[0]);
        for (uint32_t j = 0; j < args.top_k; j++)
            sum += weights[j];
        for (uint32_t j = 0; j < args.top_k; j++)
            weights[j] = gpu::divide(weights[j], sum);
    }
    if (args.renormalise) {
        sum = 0.0f;
        for (uint32_t j = 0; j < args.top_k; j++)
            sum += weights[j];
        const float inverse = gpu::divide(1.0f, sum > 0.0f ? sum : float(args.top_k));
        for (uint32_t j = 0; j < args.top_k; j++)
            weights[j] = sum > 0.0f ? weights[j] * inverse : inverse;
    }
    for (uint32_t j = 0; args.scale != 1.0f && j < args.top_k; j++)
        weights[j] *= args.scale;
}

template <class T> FERRUM_DEVICE void route(const ferrum_route_args_t &args)
{
    const size_t start = size_t(gpu::block_x()) * args.top_k;
    int32_t *ids = static_cast<int32_t *>(args.ids) + start;
    float *weights = static_cast<float *>(args.weights) + start;
    float *scores = gpu::shared_memory<float>();
    float *selection = scores + args.experts;

    if (!load_scores<T>(args, scores, selection)) {
        refuse_row(args, ids, weights);
        return;
    }
    if (args.groups > 1)
        mask_groups(args, selection, selection + args.experts);
    for (uint32_t j = 0; j < args.top_k; j++) {
        const uint32_t best = largest(selection, args.experts);
        gpu::warp_barrier(gpu::full_mask);
        if (gpu::lane() == 0) {
            ids[j] = int32_t(best);
            weights[j] = scores[best];
            selection[best] = LOWEST;
        }
        gpu::warp_barrier(gpu::full_mask);
    }
    if (gpu::lane() == 0)
        finish_weights(args, weights);
}

/* ---- plans ---- */

/** Whether pair p belongs to local expert e. */
FERRUM_DEVICE bool belongs(const ferrum_plan_args_t &args, uint32_t p, uint32_t e)
{
    return static_cast<const int32_t *>(args.ids)[p] == int32_t(args.first_expert + e);
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
    uint32_t *values = gpu::shared_memory<uint32_t>();
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

FERRUM_KERNEL(THREADS, ferrum_plan_count, ferrum_plan_args_t args)
{
    const uint32_t e = gpu::block_x();
    uint32_t count = 0, total;

    for (uint32_t p = gpu::thread_x(); p < args.pairs; p += THREADS)
        count += belongs(args, p, e);
    (void)sum_before(count, &total);
    if (gpu::thread_x() == 0)
        static_cast<uint32_t *>(args.counts)[e] = total;
}

/** What the experts before e take up, in rows and in padded slots, and the longest of them. */
struct before_t {
    uint32_t rows, slots, longest;
};
FERRUM_DEVICE before_t look_before(const ferrum_plan_args_t &args, uint32_t e)
{
    const uint32_t *counts = static_cast<const uint32_t *>(args.counts);
    const uint32_t block = args.block_size;
    before_t mine = {0, 0, 0}, all;
    uint32_t *values = gpu::shared_memory<uint32_t>();

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
        count += belongs(args, p, e);
    uint32_t rank = sum_before(count, &total);
    for (uint32_t p = range.begin; p < range.end; p++) {
        if (!belongs(args, p, e))
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
    const int32_t *ids = static_cast<const int32_t *>(args.ids);
    int32_t *row_of_pair = static_cast<int32_t *>(args.row_of_pair);
    int32_t *token_of_row = static_cast<int32_t *>(args.token_of_row);
    int32_t *sorted = static_cast<int32_t *>(args.sorted);
    int32_t *experts = static_cast<int32_t *>(args.block_experts);
    const uint32_t thread = gpu::thread_x();

    for (uint32_t p = thread; row_of_pair && p < args.pairs; p += THREADS)
        if (uint32_t(ids[p]) - args.first_expert >= args.experts)
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

FERRUM_KERNEL(THREADS, ferrum_plan_place, ferrum_plan_args_t args)
{
    const uint32_t e = gpu::block_x();
    const before_t before = look_before(args, e);

    if (e < args.experts)
        place_expert(args, e, before);
    else
        place_rest(args, before);
}

/* ---- after the products ---- */

/** Whether a pair takes part; notes an id that no one has. */
FERRUM_DEVICE bool takes_part(const ferrum_combine_args_t &args, uint64_t pair, bool first_column)
{
    if (!args.ids)
        return true;
    const int32_t id = static_cast<const int32_t *>(args.ids)[pair];
    if (first_column && args.fault && (id < -1 || (id >= 0 && uint32_t(id) >= args.num_experts)))
        gpu::atomic_max(&static_cast<ferrum_fault_t *>(args.fault)->id,
                        uint64_t(0xffffffffu - uint32_t(pair)) << 32 | uint32_t(id));
    return id >= 0 && uint32_t(id) - args.first_expert < args.local_experts;
}

template <class T> FERRUM_DEVICE void combine(const ferrum_combine_args_t &args)
{
    const uint64_t i = uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();
    const int32_t *rows = static_cast<const int32_t *>(args.rows);
    T *out = static_cast<T *>(args.out);
    float sum = 0.0f;

    if (i >= args.count)
        return;
    const uint64_t token = i / args.hidden, column = i % args.hidden;
    for (uint32_t j = 0; j < args.top_k; j++) {
        const uint64_t pair = token * args.top_k + j;
        const int64_t row = rows ? int64_t(rows[pair]) : int64_t(pair);
        if (!takes_part(args, pair, column == 0) || row < 0 || uint64_t(row) >= args.slot_rows)
            continue;
        sum += static_cast<const float *>(args.weights)[pair] *
               gpu::load_either<T>(args.slots, args.slots_f32 != 0,
                                   size_t(row) * args.hidden + column);
    }
    out[i] = gpu::from_f32<T>(args.accumulate ? gpu::to_f32(out[i]) + sum : sum);
}

template <class T> FERRUM_DEVICE void moe_silu_mul(const ferrum_moe_silu_mul_args_t &args)
{
    const uint64_t i = uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();

    if (i < args.count)
        static_cast<T *>(args.out)[i] =
            gpu::from_f32<T>(gpu::silu(gpu::to_f32(static_cast<const T *>(args.gate)[i])) *
                             gpu::to_f32(static_cast<const T *>(args.up)[i]));
}

#define BOTH(threads, name)                                                                        \
    FERRUM_KERNEL_INSTANCE(threads, ferrum_##name##_f16, (name<gpu::f16_t>),                       \
                           (ferrum_##name##_args_t args), (args))                                  \
    FERRUM_KERNEL_INSTANCE(threads, ferrum_##name##_bf16, (name<gpu::bf16_t>),                     \
                           (ferrum_##name##_args_t args), (args))
BOTH(32, route)
BOTH(THREADS, combine)
BOTH(THREADS, moe_silu_mul)
