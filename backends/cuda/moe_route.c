/* SPDX-License-Identifier: MIT */
/* Top-k routing. A row with a non-finite logit gets ids -1 and weights NaN, and is reported when
 * the host next waits. */
#include "backends/cuda/entries.h"
#include "backends/cuda/plan_ahead.h"
#include "backends/cuda/problems.h"
#include "backends/cuda/product.h"

#include <math.h>

static ferrum_status_t check_groups(const ferrum_routing_t *routing, uint32_t experts,
                                    uint32_t top_k, ferrum_route_args_t *args, ferrum_error_t *err)
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
    args->groups = groups;
    args->topk_groups = kept;
    return FERRUM_OK;
}

/** The parameters beyond plain softmax. */
static ferrum_status_t check_routing(ferrum_context_t *ctx, const ferrum_routing_t *routing,
                                     uint32_t experts, uint32_t top_k, ferrum_route_args_t *args,
                                     ferrum_error_t *err)
{
    if (!routing)
        return FERRUM_OK;
    FERRUM_CHECK_STRUCT(routing, FERRUM_ROUTING_MIN_SIZE, err);
    if (routing->score_function > FERRUM_SCORE_SIGMOID)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_ROUTING,
                           "the cuda backend does not know score function %u",
                           routing->score_function);
    if (!isfinite(routing->scale))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NON_FINITE,
                           "route_topk_softmax: the scale is not finite");
    FERRUM_TRY(check_groups(routing, experts, top_k, args, err));
    args->score_function = routing->score_function;
    args->renormalise = routing->renormalise != 0;
    args->scale = routing->scale == 0.0f ? 1.0f : routing->scale;
    if (!routing->selection_bias)
        return FERRUM_OK;
    FERRUM_CUDA_CHECK(ctx, err,
                      {"selection_bias", routing->selection_bias, FERRUM_DTYPE_F32, 0, experts});
    args->bias = ferrum_cuda_at(routing->selection_bias, 0);
    return FERRUM_OK;
}

/** Everything but the outputs; the shared memory of a row is its limit on experts. */
static ferrum_status_t prepare(ferrum_context_t *ctx, const ferrum_buffer_t *logits, uint32_t batch,
                               uint32_t experts, uint32_t top_k, uint32_t norm_topk,
                               const ferrum_routing_t *routing, ferrum_route_args_t *args,
                               ferrum_error_t *err)
{
    *args = (ferrum_route_args_t){.experts = experts,
                                  .top_k = top_k,
                                  .score_function = FERRUM_SCORE_SOFTMAX,
                                  .renormalise = norm_topk != 0,
                                  .scale = 1.0f,
                                  .groups = 1};
    FERRUM_CUDA_CHECK(
        ctx, err, {"logits", logits, FERRUM_CUDA_ACT_OR_F32, 0, ferrum_size_mul(batch, experts)});
    if (top_k == 0 || top_k > experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K,
                           "route_topk_softmax: top_k is %u, expected 1 to %u experts", top_k,
                           experts);
    FERRUM_TRY(ferrum_cuda_check_route_experts(experts, err));
    args->logits = ferrum_cuda_at(logits, 0);
    args->logits_f32 = logits->dtype == FERRUM_DTYPE_F32;
    return check_routing(ctx, routing, experts, top_k, args, err);
}

ferrum_status_t ferrum_cuda_route_topk_softmax(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                               ferrum_buffer_t *out_ids,
                                               ferrum_buffer_t *out_weights, uint32_t batch,
                                               uint32_t num_experts, uint32_t top_k,
                                               uint32_t norm_topk, const ferrum_routing_t *routing,
                                               ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    ferrum_route_args_t args;
    CUdeviceptr fault;

    FERRUM_CUDA_CHECK(ctx, err, {"out_ids", out_ids, FERRUM_DTYPE_I32, 0, pairs},
                      {"out_weights", out_weights, FERRUM_DTYPE_F32, 0, pairs});
    FERRUM_TRY(prepare(ctx, logits, batch, num_experts, top_k, norm_topk, routing, &args, err));
    FERRUM_TRY(ferrum_cuda_fault_word(ctx, &fault, err));
    args.ids = ferrum_cuda_at(out_ids, 0);
    args.weights = ferrum_cuda_at(out_weights, 0);
    args.fault = fault;
    return ferrum_cuda_route(ctx, &args, batch, out_ids->memory, err);
}

ferrum_status_t
ferrum_cuda_route_topk_into_host(ferrum_context_t *ctx, const ferrum_buffer_t *logits,
                                 uint32_t *out_ids, float *out_weights, uint32_t batch,
                                 uint32_t num_experts, uint32_t top_k, uint32_t norm_topk,
                                 const ferrum_routing_t *routing, ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    ferrum_route_args_t args;
    CUdeviceptr results;

    FERRUM_CHECK_POINTER(out_ids, err);
    FERRUM_CHECK_POINTER(out_weights, err);
    FERRUM_TRY(prepare(ctx, logits, batch, num_experts, top_k, norm_topk, routing, &args, err));
    if (batch == 0)
        return FERRUM_OK;
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    FERRUM_TRY(ferrum_cuda_scratch(ctx, FERRUM_CUDA_SCRATCH_RESULT, ferrum_size_mul(pairs, 8),
                                   &results, err));
    args.ids = results;
    args.weights = results + pairs * sizeof *out_ids;
    FERRUM_TRY(ferrum_cuda_route(ctx, &args, batch, NULL, err));
    FERRUM_TRY(ferrum_cuda_download(ctx, args.ids, out_ids, pairs, sizeof *out_ids, NULL, err));
    FERRUM_TRY(ferrum_cuda_download(ctx, args.weights, out_weights, pairs, sizeof *out_weights,
                                    NULL, err));
    for (uint64_t row = 0; row < batch; row++)
        if (out_ids[row * top_k] == UINT32_MAX)
            return FERRUM_REFUSE_INPUT(err, FERRUM_REASON_NON_FINITE,
                                       "row %llu has a non-finite logit (or selection bias)",
                                       (unsigned long long)row);
    return FERRUM_OK;
}
