/* SPDX-License-Identifier: MIT */
/* Top-k routing. Sums run in index order and ties go to the lower index, so the bits do not depend
 * on kernels or threads. Non-finite logits are refused before anything is written. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"
#include "backends/cpu/parallel.h"

#include <float.h>
#include <math.h>
#include <string.h>

/** A checked routing problem; also the argument of the parallel loop. */
typedef struct route {
    const float *logits; /**< [batch, experts] */
    const float *bias;   /**< [experts] or NULL: added to scores for selection only */
    uint32_t *ids;       /**< [batch, top_k]; i32 buffers hold the same bits */
    float *weights;      /**< [batch, top_k] */
    float *scratch;      /**< per thread: scores, selection scores, group scores */
    size_t scratch_stride;
    uint32_t experts;
    uint32_t top_k;
    ferrum_score_function_t score_function;
    bool renormalise;
    float scale;
    uint32_t groups; /**< 1: none */
    uint32_t topk_groups;
} route_t;

/** A sum of finite values that stays finite: -infinity marks what must not be picked. */
static float finite_sum(float a, float b)
{
    return fmaxf(-FLT_MAX, fminf(FLT_MAX, a + b));
}

/** Index of the largest value, the lowest one of equals. */
static uint32_t largest(const float *values, uint32_t n)
{
    float best = -INFINITY;
    uint32_t index = 0;
    for (uint32_t i = 0; i < n; i++)
        if (values[i] > best) {
            best = values[i];
            index = i;
        }
    return index;
}

/** In place: exp(x - max) times 1/sum. */
static void softmax(float *x, uint32_t n)
{
    const float max = x[largest(x, n)];
    float sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - max);
        sum += x[i];
    }
    const float inverse = 1.0f / sum;
    for (uint32_t i = 0; i < n; i++)
        x[i] *= inverse;
}

static void score(const route_t *route, const float *logits, float *out_scores)
{
    memcpy(out_scores, logits, route->experts * sizeof *out_scores);
    if (route->score_function == FERRUM_SCORE_SOFTMAX)
        softmax(out_scores, route->experts);
    else if (route->score_function == FERRUM_SCORE_SIGMOID)
        for (uint32_t e = 0; e < route->experts; e++)
            out_scores[e] = 1.0f / (1.0f + expf(-out_scores[e]));
}

/** Sum of the two largest of @p n values (of one, when there is only one). */
static float top_two_sum(const float *values, uint32_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (values[i] > first) {
            second = first;
            first = values[i];
        } else if (values[i] > second) {
            second = values[i];
        }
    }
    return n > 1 ? finite_sum(first, second) : first;
}

/** Rule out all but the best groups: a group's score is the sum of its two best experts. */
static void mask_groups(const route_t *route, float *selection, float *group_scores)
{
    const uint32_t size = route->experts / route->groups;

    for (uint32_t g = 0; g < route->groups; g++)
        group_scores[g] = top_two_sum(selection + (size_t)g * size, size);
    for (uint32_t i = 0; i < route->topk_groups; i++)
        group_scores[largest(group_scores, route->groups)] = -INFINITY;
    for (uint32_t g = 0; g < route->groups; g++)
        for (uint32_t e = g * size; group_scores[g] != -INFINITY && e < (g + 1) * size; e++)
            selection[e] = -INFINITY;
}

/** To a sum of 1. The reciprocal of a sum that is subnormal would be infinite. */
static void normalise(float *weights, uint32_t n)
{
    float sum = 0.0f;
    for (uint32_t j = 0; j < n; j++)
        sum += weights[j];
    for (uint32_t j = 0; j < n; j++) {
        const float share = sum >= FLT_MIN ? weights[j] * (1.0f / sum) : weights[j] / sum;
        weights[j] = sum > 0.0f ? share : 1.0f / (float)n;
    }
}

static void route_row(void *arg, uint64_t item, uint32_t thread)
{
    const route_t *route = arg;
    float *scores = route->scratch + thread * route->scratch_stride;
    float *selection = scores + route->experts;
    uint32_t *ids = route->ids + item * route->top_k;
    float *weights = route->weights + item * route->top_k;

    score(route, route->logits + item * route->experts, scores);
    for (uint32_t e = 0; e < route->experts; e++)
        selection[e] = route->bias ? finite_sum(scores[e], route->bias[e]) : scores[e];
    if (route->groups > 1)
        mask_groups(route, selection, selection + route->experts);
    for (uint32_t j = 0; j < route->top_k; j++) {
        ids[j] = largest(selection, route->experts);
        weights[j] = scores[ids[j]];
        selection[ids[j]] = -INFINITY;
    }
    if (route->score_function == FERRUM_SCORE_SOFTMAX_AFTER_TOPK)
        softmax(weights, route->top_k);
    if (route->renormalise)
        normalise(weights, route->top_k);
    for (uint32_t j = 0; route->scale != 1.0f && j < route->top_k; j++)
        weights[j] *= route->scale;
}

static ferrum_status_t check_groups(const ferrum_routing_t *routing, uint32_t experts,
                                    uint32_t top_k, route_t *route, ferrum_error_t *err)
{
    const uint32_t groups = routing->num_groups, kept = routing->topk_groups;

    if (groups <= 1)
        return FERRUM_OK;
    if (experts % groups != 0 || kept == 0 || kept > groups ||
        (uint64_t)(experts / groups) * kept < top_k)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_ROUTING,
                           "route_topk_softmax: cannot keep %u of %u groups of %u experts for "
                           "top_k %u",
                           kept, groups, experts, top_k);
    route->groups = groups;
    route->topk_groups = kept;
    return FERRUM_OK;
}

/** The parameters beyond plain softmax. */
static ferrum_status_t check_routing(const ferrum_context_t *ctx, const ferrum_routing_t *routing,
                                     uint32_t experts, uint32_t top_k, route_t *route,
                                     ferrum_error_t *err)
{
    if (!routing)
        return FERRUM_OK;
    FERRUM_CHECK_STRUCT(routing, FERRUM_ROUTING_MIN_SIZE, err);
    if (routing->score_function > FERRUM_SCORE_SIGMOID)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "the cpu backend does not know score function %u",
                           routing->score_function);
    if (!isfinite(routing->scale))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NON_FINITE,
                           "route_topk_softmax: the scale is not finite");
    FERRUM_TRY(check_groups(routing, experts, top_k, route, err));
    route->score_function = routing->score_function;
    route->renormalise = routing->renormalise != 0;
    route->scale = routing->scale == 0.0f ? 1.0f : routing->scale;
    if (!routing->selection_bias)
        return FERRUM_OK;
    FERRUM_CPU_CHECK(ctx, err,
                     {"selection_bias", routing->selection_bias, FERRUM_DTYPE_F32, 0, experts});
    route->bias = ferrum_cpu_f32(routing->selection_bias);
    for (uint32_t e = 0; e < experts; e++)
        if (!isfinite(route->bias[e]))
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                               "route_topk_softmax: selection_bias[%u] is not finite", e);
    return FERRUM_OK;
}

static ferrum_status_t check_logits(const float *logits, uint32_t batch, uint32_t experts,
                                    ferrum_error_t *err)
{
    for (uint32_t b = 0; b < batch; b++)
        for (uint32_t e = 0; e < experts; e++)
            if (!isfinite(logits[(size_t)b * experts + e]))
                return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                                   "route_topk_softmax: row %u has a non-finite logit (expert %u)",
                                   b, e);
    return FERRUM_OK;
}

/** Everything but the outputs: checks, parameters, scratch. */
static ferrum_status_t prepare(ferrum_context_t *ctx, const ferrum_buffer_t *logits, uint32_t batch,
                               uint32_t experts, uint32_t top_k, uint32_t norm_topk,
                               const ferrum_routing_t *routing, route_t *out_route,
                               ferrum_error_t *err)
{
    route_t route = {.experts = experts,
                     .top_k = top_k,
                     .score_function = FERRUM_SCORE_SOFTMAX,
                     .renormalise = norm_topk != 0,
                     .scale = 1.0f,
                     .groups = 1};

    FERRUM_CPU_CHECK(ctx, err,
                     {"logits", logits, FERRUM_DTYPE_F32, 0, ferrum_size_mul(batch, experts)});
    if (top_k == 0 || top_k > experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K,
                           "route_topk_softmax: top_k is %u, expected 1 to %u experts", top_k,
                           experts);
    route.logits = ferrum_cpu_f32(logits);
    FERRUM_TRY(check_routing(ctx, routing, experts, top_k, &route, err));
    FERRUM_TRY(check_logits(route.logits, batch, experts, err));
    route.scratch_stride = 2 * (size_t)experts + route.groups;
    route.scratch = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_THREADS,
                                       ferrum_size_mul(route.scratch_stride, ctx->width),
                                       sizeof *route.scratch, err);
    if (!route.scratch)
        return FERRUM_OUT_OF_MEMORY;
    *out_route = route;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_route_topk_softmax(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                              ferrum_buffer_t *out_ids,
                                              ferrum_buffer_t *out_weights, uint32_t batch,
                                              uint32_t num_experts, uint32_t top_k,
                                              uint32_t norm_topk, const ferrum_routing_t *routing,
                                              ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    route_t route;

    FERRUM_CPU_CHECK(ctx, err, {"out_ids", out_ids, FERRUM_DTYPE_I32, 0, pairs},
                     {"out_weights", out_weights, FERRUM_DTYPE_F32, 0, pairs});
    FERRUM_TRY(prepare(ctx, logits, batch, num_experts, top_k, norm_topk, routing, &route, err));
    route.ids = ferrum_cpu_u32(out_ids);
    route.weights = ferrum_cpu_f32(out_weights);
    ferrum_cpu_for_each(ctx, batch, route_row, &route);
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_route_topk_into_host(ferrum_context_t *ctx,
                                                const ferrum_buffer_t *logits, uint32_t *out_ids,
                                                float *out_weights, uint32_t batch,
                                                uint32_t num_experts, uint32_t top_k,
                                                uint32_t norm_topk, const ferrum_routing_t *routing,
                                                ferrum_error_t *err)
{
    route_t route;

    FERRUM_CHECK_POINTER(out_ids, err);
    FERRUM_CHECK_POINTER(out_weights, err);
    FERRUM_TRY(prepare(ctx, logits, batch, num_experts, top_k, norm_topk, routing, &route, err));
    route.ids = out_ids;
    route.weights = out_weights;
    ferrum_cpu_for_each(ctx, batch, route_row, &route);
    return FERRUM_OK;
}
