/* SPDX-License-Identifier: MIT */
#include "host/moe/bucket_plan.h"

#include <ferrum/util.h>

#include <string.h>

static ferrum_status_t reserve(uint32_t pairs, uint32_t num_experts, ferrum_bucket_plan_t *plan,
                               ferrum_error_t *err)
{
    uint64_t expert_words = 2 * (uint64_t)num_experts + 1;
    FERRUM_TRY(
        ferrum_host_array_reserve(&plan->by_expert_store, expert_words, sizeof(uint32_t), err));
    FERRUM_TRY(ferrum_host_array_reserve(&plan->by_pair_store, pairs, 4 * sizeof(uint32_t), err));
    plan->expert_offsets = plan->by_expert_store.data;
    plan->cursors = plan->expert_offsets + num_experts + 1;
    plan->packed_token_idx = plan->by_pair_store.data;
    plan->packed_pairs = plan->packed_token_idx + pairs;
    plan->pairs_by_token = (int32_t *)(plan->packed_pairs + pairs);
    plan->pair_weights = (float *)(plan->pairs_by_token + pairs);
    return FERRUM_OK;
}

static ferrum_status_t sort_pairs(const ferrum_router_output_t *output, ferrum_bucket_plan_t *plan,
                                  ferrum_error_t *err)
{
    uint32_t num_experts = plan->num_experts, pairs = plan->pairs;
    uint32_t *offsets = plan->expert_offsets;
    memset(offsets, 0, (num_experts + 1) * sizeof *offsets);
    for (uint32_t p = 0; p < pairs; p++) {
        uint32_t id = output->expert_ids[p];
        if (id >= num_experts)
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "expert id %u of token %u, slot %u is not below %u", id,
                               p / output->top_k, p % output->top_k, num_experts);
        offsets[id + 1]++;
    }
    for (uint32_t e = 0; e < num_experts; e++) {
        offsets[e + 1] += offsets[e];
        plan->cursors[e] = offsets[e];
    }
    for (uint32_t p = 0; p < pairs; p++) {
        uint32_t row = plan->cursors[output->expert_ids[p]]++;
        plan->packed_token_idx[row] = p / output->top_k;
        plan->packed_pairs[row] = p;
        plan->pairs_by_token[p] = (int32_t)row;
    }
    memcpy(plan->pair_weights, output->expert_weights, pairs * sizeof *plan->pair_weights);
    return FERRUM_OK;
}

ferrum_status_t ferrum_bucket_plan_rebuild(const ferrum_router_output_t *output,
                                           uint32_t num_experts, ferrum_bucket_plan_t *plan,
                                           ferrum_error_t *err)
{
    uint64_t pairs = (uint64_t)output->batch * output->top_k;
    plan->num_experts = 0;
    plan->pairs = 0;
    if (pairs > INT32_MAX || num_experts > INT32_MAX / 2)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_RANGE,
                           "%u tokens of %u experts each: at most 2^31-1 pairs", output->batch,
                           output->top_k);
    FERRUM_TRY(reserve((uint32_t)pairs, num_experts, plan, err));
    plan->num_experts = num_experts;
    plan->pairs = (uint32_t)pairs;
    ferrum_status_t status = sort_pairs(output, plan, err);
    if (status != FERRUM_OK) {
        plan->num_experts = 0;
        plan->pairs = 0;
    }
    return status;
}

void ferrum_bucket_plan_free(ferrum_bucket_plan_t *plan)
{
    ferrum_host_array_free(&plan->by_expert_store);
    ferrum_host_array_free(&plan->by_pair_store);
    *plan = (ferrum_bucket_plan_t){0};
}
