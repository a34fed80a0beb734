/* SPDX-License-Identifier: MIT */
/**
 * @file bucket_plan.h
 * @brief MoeBucketPlan: a stable counting sort of the pairs of a batch by expert.
 *
 * With P = batch * top_k: `expert_offsets[e]` is the first packed row of expert e;
 * `pairs_by_token[p]` the packed row of pair p (a permutation of 0…P-1);
 * `packed_token_idx[pairs_by_token[p]] == p / top_k`; within an expert packed rows keep the order
 * of pairs; `pair_weights` are the router's, in pair order.
 */
#ifndef FERRUM_HOST_BUCKET_PLAN_H
#define FERRUM_HOST_BUCKET_PLAN_H

#include "host/moe/router.h"

/** Zeroed is empty; reusable, growing on demand. */
typedef struct ferrum_bucket_plan {
    uint32_t num_experts;
    uint32_t pairs;             /**< P */
    uint32_t *expert_offsets;   /**< [num_experts + 1] */
    uint32_t *packed_token_idx; /**< [pairs] */
    uint32_t *packed_pairs;     /**< [pairs]: inverse of pairs_by_token */
    int32_t *pairs_by_token;    /**< [pairs] */
    float *pair_weights;        /**< [pairs] */
    uint32_t *cursors;          /**< [num_experts], scratch */
    ferrum_host_array_t by_expert_store;
    ferrum_host_array_t by_pair_store;
} ferrum_bucket_plan_t;

/**
 * Rebuild @p plan from the experts of @p output; allocates only when the sizes exceed all earlier
 * ones. batch 0 gives all-zero offsets. On failure the plan is empty.
 * Errors: INVALID_INPUT (an expert id out of range, named with its pair), INVALID_ARGUMENT (more
 * than 2^31-1 pairs), OUT_OF_MEMORY. [any-thread]
 */
ferrum_status_t ferrum_bucket_plan_rebuild(const ferrum_router_output_t *output,
                                           uint32_t num_experts, ferrum_bucket_plan_t *plan,
                                           ferrum_error_t *err);
void ferrum_bucket_plan_free(ferrum_bucket_plan_t *plan);

/** Rows of expert @p e. */
static inline uint32_t ferrum_bucket_plan_rows(const ferrum_bucket_plan_t *plan, uint32_t e)
{
    return plan->expert_offsets[e + 1] - plan->expert_offsets[e];
}

#endif /* FERRUM_HOST_BUCKET_PLAN_H */
