/* SPDX-License-Identifier: MIT */
/**
 * @file route.cuh
 * @brief The top-k experts of a row and their weights, by one warp; ferrum_routing_t says what that
 * means.
 *
 * Scores and selection lie in shared memory, top_k times the largest is taken out; of equals the
 * lowest index wins. f32 sums in a fixed order.
 */
#ifndef FERRUM_KERNELS_CUDA_ROUTE_CUH
#define FERRUM_KERNELS_CUDA_ROUTE_CUH

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/moe_args.h"

namespace gpu
{
constexpr float lowest_score = -__builtin_huge_valf();
constexpr float highest_score = 3.402823466e38f;

/** A sum of finite values that stays finite: lowest_score marks what must not be picked. */
FERRUM_DEVICE float finite_sum(float a, float b)
{
    const float sum = a + b;
    return sum > highest_score ? highest_score : sum < -highest_score ? -highest_score : sum;
}

/** The larger value of the warp, the lower index of equals; no lane has one: index n. */
FERRUM_DEVICE uint32_t warp_largest(float value, uint32_t index)
{
    FERRUM_UNROLL
    for (uint32_t step = 16; step > 0; step >>= 1) {
        const float other = shuffle_xor(full_mask, value, step);
        const uint32_t other_index = shuffle_xor(full_mask, index, step);
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
    float best = lowest_score;
    uint32_t index = n;

    for (uint32_t i = lane(); i < n; i += 32)
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

    warp_barrier(full_mask);
    for (uint32_t i = lane(); i < n; i += 32) {
        x[i] = exp(x[i] - max);
        sum += x[i];
    }
    const float inverse = divide(1.0f, warp_sum(sum));
    for (uint32_t i = lane(); i < n; i += 32)
        x[i] *= inverse;
    warp_barrier(full_mask);
}

/** Scores and what experts are selected by; false when a number is not finite. */
template <class T>
FERRUM_DEVICE bool load_scores(const ferrum_route_args_t &args, uint32_t row, float *scores,
                               float *selection)
{
    const size_t start = size_t(row) * args.experts;
    const float *bias = static_cast<const float *>(args.bias);
    bool finite = true;

    for (uint32_t e = lane(); e < args.experts; e += 32) {
        scores[e] = load_either<T>(args.logits, args.logits_f32 != 0, start + e);
        finite = finite && is_finite(scores[e]) && (!bias || is_finite(bias[e]));
    }
    if (ballot(full_mask, !finite) != 0)
        return false;
    warp_barrier(full_mask);
    if (args.score_function == 0)
        softmax(scores, args.experts);
    for (uint32_t e = lane(); e < args.experts; e += 32) {
        if (args.score_function == 2)
            scores[e] = divide(1.0f, 1.0f + exp(-scores[e]));
        selection[e] = bias ? finite_sum(scores[e], bias[e]) : scores[e];
    }
    warp_barrier(full_mask);
    return true;
}

/** Rule out all but the best groups; a group's score is the sum of its two best experts. */
FERRUM_DEVICE void mask_groups(const ferrum_route_args_t &args, float *selection, float *groups)
{
    const uint32_t size = args.experts / args.groups;

    for (uint32_t g = lane(); g < args.groups; g += 32) {
        float first = lowest_score, second = lowest_score;
        for (uint32_t e = g * size; e < (g + 1) * size; e++) {
            const float value = selection[e];
            second = value > first ? first : value > second ? value : second;
            first = value > first ? value : first;
        }
        groups[g] = size > 1 ? finite_sum(first, second) : first;
    }
    warp_barrier(full_mask);
    for (uint32_t i = 0; i < args.topk_groups; i++) {
        const uint32_t best = largest(groups, args.groups);
        warp_barrier(full_mask);
        if (lane() == 0)
            groups[best] = lowest_score;
        warp_barrier(full_mask);
    }
    for (uint32_t e = lane(); e < args.experts; e += 32)
        if (groups[e / size] != lowest_score)
            selection[e] = lowest_score;
    warp_barrier(full_mask);
}

FERRUM_DEVICE void refuse_row(const ferrum_route_args_t &args, uint32_t row, int32_t *ids,
                              float *weights)
{
    for (uint32_t j = lane(); j < args.top_k; j += 32) {
        ids[j] = -1;
        weights[j] = __builtin_nanf("");
    }
    if (args.fault && lane() == 0)
        atomic_max(&static_cast<ferrum_fault_t *>(args.fault)->row, ~uint64_t(0) - row);
}

/** What becomes of the chosen scores, in slot order; lane 0. */
FERRUM_DEVICE void finish_weights(const ferrum_route_args_t &args, float *weights)
{
    float sum = 0.0f;

    if (args.score_function == 1) {
        for (uint32_t j = args.top_k; j > 0; j--)
            weights[j - 1] = exp(weights[j - 1] - weights[0]);
        for (uint32_t j = 0; j < args.top_k; j++)
            sum += weights[j];
        for (uint32_t j = 0; j < args.top_k; j++)
            weights[j] = divide(weights[j], sum);
    }
    if (args.renormalise) {
        sum = 0.0f;
        for (uint32_t j = 0; j < args.top_k; j++)
            sum += weights[j];
        const float least_normal = 1.17549435e-38f; /* below, the reciprocal would be infinite */
        const float inverse = divide(1.0f, sum > 0.0f ? sum : float(args.top_k));
        for (uint32_t j = 0; j < args.top_k; j++)
            weights[j] = sum >= least_normal ? weights[j] * inverse
                         : sum > 0.0f        ? divide(weights[j], sum)
                                             : inverse;
    }
    for (uint32_t j = 0; args.scale != 1.0f && j < args.top_k; j++)
        weights[j] *= args.scale;
}

/** Floats of shared memory for a row. */
FERRUM_DEVICE uint32_t route_floats(const ferrum_route_args_t &args)
{
    return 2 * args.experts + args.groups;
}

/** One row by one warp; @p scores: shared memory. */
template <class T>
FERRUM_DEVICE void route_row(const ferrum_route_args_t &args, uint32_t row, float *scores)
{
    const size_t start = size_t(row) * args.top_k;
    int32_t *ids = static_cast<int32_t *>(args.ids) + start;
    float *weights = static_cast<float *>(args.weights) + start;
    float *selection = scores + args.experts;

    if (!load_scores<T>(args, row, scores, selection)) {
        refuse_row(args, row, ids, weights);
        return;
    }
    if (args.groups > 1)
        mask_groups(args, selection, selection + args.experts);
    for (uint32_t j = 0; j < args.top_k; j++) {
        const uint32_t best = largest(selection, args.experts);
        warp_barrier(full_mask);
        if (lane() == 0) {
            ids[j] = int32_t(best);
            weights[j] = scores[best];
            selection[best] = lowest_score;
        }
        warp_barrier(full_mask);
    }
    if (lane() == 0)
        finish_weights(args, weights);
}
} // namespace gpu

#endif
