/* SPDX-License-Identifier: MIT */
/*
 * route: the top-k experts of each row and their weights; ferrum_routing_t says what that means.
 *
 * One warp per row (grid x, blocks of 32). Scores and selection lie in shared memory, top_k times
 * the largest is taken out; of equals the lowest index wins. f32 sums in a fixed order.
 *
 * Preconditions: 4*(2*experts + groups) bytes of shared memory.
 */
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/moe_args.h"

constexpr float LOWEST = -__builtin_huge_valf();
constexpr float HIGHEST = 3.402823466e38f;

/** A sum of finite values that stays finite: LOWEST marks what must not be picked. */
FERRUM_DEVICE float finite_sum(float a, float b)
{
    const float sum = a + b;
    return sum > HIGHEST ? HIGHEST : sum < -HIGHEST ? -HIGHEST : sum;
}

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
        selection[e] = bias ? finite_sum(scores[e], bias[e]) : scores[e];
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
        groups[g] = size > 1 ? finite_sum(first, second) : first;
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

FERRUM_KERNEL_INSTANCE(32, ferrum_route_f16, (route<gpu::f16_t>), (ferrum_route_args_t args),
                       (args))
FERRUM_KERNEL_INSTANCE(32, ferrum_route_bf16, (route<gpu::bf16_t>), (ferrum_route_args_t args),
                       (args))
