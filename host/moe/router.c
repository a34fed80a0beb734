/* SPDX-License-Identifier: MIT */
#include "host/moe/router.h"

#include <ferrum/moe.h>
#include <ferrum/util.h>

#include <math.h>
#include <string.h>

ferrum_status_t ferrum_router_output_reset(ferrum_router_output_t *output, uint32_t batch,
                                           uint32_t top_k, ferrum_error_t *err)
{
    uint64_t pairs = (uint64_t)batch * top_k;
    FERRUM_TRY(ferrum_host_array_reserve(&output->ids_store, pairs, sizeof(uint32_t), err));
    FERRUM_TRY(ferrum_host_array_reserve(&output->weights_store, pairs, sizeof(float), err));
    output->expert_ids = output->ids_store.data;
    output->expert_weights = output->weights_store.data;
    memset(output->expert_ids, 0, (size_t)pairs * sizeof(uint32_t));
    memset(output->expert_weights, 0, (size_t)pairs * sizeof(float));
    output->batch = batch;
    output->top_k = top_k;
    return FERRUM_OK;
}

void ferrum_router_output_free(ferrum_router_output_t *output)
{
    ferrum_host_array_free(&output->ids_store);
    ferrum_host_array_free(&output->weights_store);
    *output = (ferrum_router_output_t){0};
}

static ferrum_status_t check_shape(uint64_t logits_count, uint32_t batch, uint32_t num_experts,
                                   uint32_t top_k, ferrum_error_t *err)
{
    if (top_k == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K, "top_k must be > 0");
    if (top_k > num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_TOP_K,
                           "top_k %u exceeds num_experts %u", top_k, num_experts);
    if (num_experts > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_EXPERTS,
                           "%u experts: ids are i32", num_experts);
    if (logits_count != (uint64_t)batch * num_experts)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "router logits shape mismatch: %llu values for %u rows of %u experts",
                           (unsigned long long)logits_count, batch, num_experts);
    return FERRUM_OK;
}

/* probs = softmax(logits); the index of a non-finite logit, or num_experts. */
static uint32_t softmax(const float *logits, uint32_t num_experts, float *probs)
{
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < num_experts; i++) {
        if (!isfinite(logits[i]))
            return i;
        if (logits[i] > max)
            max = logits[i];
    }
    for (uint32_t i = 0; i < num_experts; i++) {
        probs[i] = expf(logits[i] - max);
        sum += probs[i];
    }
    float inverse = 1.0f / sum;
    for (uint32_t i = 0; i < num_experts; i++)
        probs[i] *= inverse;
    return num_experts;
}

static void pick(float *probs, uint32_t num_experts, uint32_t top_k, bool norm_topk,
                 uint32_t *out_ids, float *out_weights)
{
    float sum = 0.0f;
    for (uint32_t j = 0; j < top_k; j++) {
        uint32_t best = 0;
        float best_prob = -INFINITY;
        for (uint32_t i = 0; i < num_experts; i++) {
            if (probs[i] > best_prob) {
                best = i;
                best_prob = probs[i];
            }
        }
        out_ids[j] = best;
        out_weights[j] = best_prob;
        probs[best] = -INFINITY;
        sum += best_prob;
    }
    if (!norm_topk)
        return;
    for (uint32_t j = 0; j < top_k; j++)
        out_weights[j] = sum > 0.0f ? out_weights[j] * (1.0f / sum) : 1.0f / (float)top_k;
}

static ferrum_status_t route_rows(const float *logits, uint32_t batch, uint32_t num_experts,
                                  uint32_t top_k, bool norm_topk, float *probs, uint32_t *out_ids,
                                  float *out_weights, ferrum_error_t *err)
{
    for (uint32_t row = 0; row < batch; row++) {
        const float *values = logits + (size_t)row * num_experts;
        uint32_t bad = softmax(values, num_experts, probs);
        if (bad < num_experts)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_NON_FINITE,
                               "router logits of row %u are not finite: expert %u has %g", row, bad,
                               (double)values[bad]);
        pick(probs, num_experts, top_k, norm_topk, out_ids + (size_t)row * top_k,
             out_weights + (size_t)row * top_k);
    }
    return FERRUM_OK;
}

ferrum_status_t ferrum_route_into(const float *logits, uint64_t logits_count, uint32_t batch,
                                  uint32_t num_experts, uint32_t top_k, bool norm_topk,
                                  float *probs, ferrum_router_output_t *output, ferrum_error_t *err)
{
    FERRUM_TRY(check_shape(logits_count, batch, num_experts, top_k, err));
    FERRUM_TRY(ferrum_router_output_reset(output, batch, top_k, err));
    return route_rows(logits, batch, num_experts, top_k, norm_topk, probs, output->expert_ids,
                      output->expert_weights, err);
}

ferrum_status_t ferrum_route(const float *logits, uint64_t logits_count, uint32_t batch,
                             uint32_t num_experts, uint32_t top_k, bool norm_topk,
                             ferrum_router_output_t *output, ferrum_error_t *err)
{
    ferrum_host_array_t probs = {0};
    FERRUM_TRY(ferrum_host_array_reserve(&probs, num_experts, sizeof(float), err));
    ferrum_status_t status = ferrum_route_into(logits, logits_count, batch, num_experts, top_k,
                                               norm_topk, probs.data, output, err);
    ferrum_host_array_free(&probs);
    return status;
}

ferrum_status_t ferrum_moe_route(const float *logits, uint64_t logits_count, uint32_t batch,
                                 uint32_t num_experts, uint32_t top_k, int norm_topk, float *probs,
                                 int32_t *out_ids, float *out_weights, ferrum_error_t *err)
{
    if (!probs || (batch > 0 && (!logits || !out_ids || !out_weights)))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_NULL,
                           "moe_route needs logits, probs, out_ids and out_weights");
    FERRUM_TRY(check_shape(logits_count, batch, num_experts, top_k, err));
    /* Ids are below 2^31, so both signednesses share a representation. */
    return route_rows(logits, batch, num_experts, top_k, norm_topk != 0, probs, (uint32_t *)out_ids,
                      out_weights, err);
}
