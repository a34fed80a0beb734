/* SPDX-License-Identifier: MIT */
/**
 * @file router.h
 * @brief Top-k routing on the host.
 *
 * Per row of logits: softmax in f32 (maximum subtracted, sum in index order, multiplied by 1/sum),
 * then k passes that each take the largest remaining probability by strict comparison, so that the
 * lower index wins a tie and weights come out in descending order. With `norm_topk` the k weights
 * are multiplied by the inverse of their sum (pick order), or set to 1/k should that sum be 0.
 */
#ifndef FERRUM_HOST_ROUTER_H
#define FERRUM_HOST_ROUTER_H

#include <ferrum/types.h>
#include <stdbool.h>

#include "host/runtime/arrays.h"

/** Experts and weights of a batch. Zeroed is empty; reusable, growing on demand. */
typedef struct ferrum_router_output {
    uint32_t *expert_ids;  /**< [batch, top_k] */
    float *expert_weights; /**< [batch, top_k] */
    uint32_t batch;
    uint32_t top_k;
    ferrum_host_array_t ids_store;
    ferrum_host_array_t weights_store;
} ferrum_router_output_t;

/** Make room for @p batch rows of @p top_k and zero them. Errors: OUT_OF_MEMORY. */
ferrum_status_t ferrum_router_output_reset(ferrum_router_output_t *output, uint32_t batch,
                                           uint32_t top_k, ferrum_error_t *err);
void ferrum_router_output_free(ferrum_router_output_t *output);

/**
 * Route @p logits f32 [batch, num_experts] into @p output, which is reset first.
 * @param logits_count elements behind @p logits; must be batch * num_experts
 * @param probs        scratch of num_experts floats
 * Errors: INVALID_ARGUMENT ("shape mismatch", "top_k must be > 0", "exceeds num_experts"),
 * INVALID_INPUT naming the row and expert of a non-finite logit, OUT_OF_MEMORY. [any-thread]
 */
ferrum_status_t ferrum_route_into(const float *logits, uint64_t logits_count, uint32_t batch,
                                  uint32_t num_experts, uint32_t top_k, bool norm_topk,
                                  float *probs, ferrum_router_output_t *output,
                                  ferrum_error_t *err);

/** The same with a scratch of its own; the results are the same bits. @p output is a zeroed or
 *  used one. [any-thread] */
ferrum_status_t ferrum_route(const float *logits, uint64_t logits_count, uint32_t batch,
                             uint32_t num_experts, uint32_t top_k, bool norm_topk,
                             ferrum_router_output_t *output, ferrum_error_t *err);

#endif /* FERRUM_HOST_ROUTER_H */
