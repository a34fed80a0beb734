/* SPDX-License-Identifier: MIT */
/**
 * @file route_scratch.h
 * @brief What routing needs between calls: host arrays (MoeRouteScratch) and typed device buffers
 *        (DeviceRouteScratch). One of each serves all layers of a model.
 */
#ifndef FERRUM_HOST_ROUTE_SCRATCH_H
#define FERRUM_HOST_ROUTE_SCRATCH_H

#include "host/moe/align.h"

/**
 * Routing buffers on the device, for t = max_tokens rows, E experts and k = top_k. Everything is
 * made up front, so that a captured step never allocates. Block size 8 is what `block_ids` is made
 * for, block size 64 what `sorted_tokens` is.
 */
typedef struct ferrum_device_route_scratch {
    ferrum_device_array_t selected_ids;     /**< i32 [t*k] */
    ferrum_device_array_t pair_weights;     /**< f32 [t*k] */
    ferrum_device_array_t pairs_by_token;   /**< i32 [t*k] */
    ferrum_device_array_t packed_token_idx; /**< i32 [t*k] */
    ferrum_device_array_t expert_offsets;   /**< i32 [E+1] */
    ferrum_device_array_t sorted_tokens;    /**< i32 [t*k + 64*E] */
    ferrum_device_array_t block_ids;        /**< i32 [ceil(t*k/8) + E + 1] */
    ferrum_device_array_t total_post_pad;   /**< i32 [1] */
} ferrum_device_route_scratch_t;

/** Room for @p max_tokens; allocates only beyond what is there. Errors: INVALID_ARGUMENT
 *  (overflow), those of buffer_alloc; sizes already met stay. */
ferrum_status_t ferrum_device_route_scratch_reserve(const ferrum_ops_t *ops, uint32_t max_tokens,
                                                    uint32_t num_experts, uint32_t top_k,
                                                    ferrum_device_route_scratch_t *scratch,
                                                    ferrum_error_t *err);
void ferrum_device_route_scratch_free(const ferrum_ops_t *ops,
                                      ferrum_device_route_scratch_t *scratch);

/** Host side of routing. Zeroed is empty; everything grows on demand. */
typedef struct ferrum_moe_route_scratch {
    ferrum_router_output_t output;
    ferrum_bucket_plan_t plan;
    ferrum_moe_alignment_t alignment;
    ferrum_ids_tpe_t lists;
    ferrum_host_array_t probs;            /**< f32 [E] */
    ferrum_host_array_t logits;           /**< f32 [b, E] */
    ferrum_host_array_t dispatches;       /**< ferrum_moe_dispatch_t [E] */
    ferrum_device_route_scratch_t upload; /**< where host-made plans go when there is no other */
} ferrum_moe_route_scratch_t;

void ferrum_moe_route_scratch_free(const ferrum_ops_t *ops, ferrum_moe_route_scratch_t *scratch);

/** The two halves of routing on the host: read the logits (waits), then route them into
 *  scratch->output. [one-per-context] */
ferrum_status_t ferrum_moe_read_logits(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                       const ferrum_buffer_t *logits, uint32_t batch,
                                       uint32_t num_experts, ferrum_moe_route_scratch_t *scratch,
                                       ferrum_error_t *err);
ferrum_status_t ferrum_moe_route_logits(uint32_t batch, uint32_t num_experts, uint32_t top_k,
                                        bool norm_topk, ferrum_moe_route_scratch_t *scratch,
                                        ferrum_error_t *err);

/**
 * Route on the host into scratch->output: by the backend's route_topk_into_host when
 * @p by_backend, else by the two functions above. [one-per-context]
 * @param logits act or f32 [batch, num_experts]
 */
ferrum_status_t ferrum_moe_route_on_host(const ferrum_ops_t *ops, ferrum_context_t *ctx,
                                         const ferrum_buffer_t *logits, uint32_t batch,
                                         uint32_t num_experts, uint32_t top_k, bool norm_topk,
                                         bool by_backend, ferrum_moe_route_scratch_t *scratch,
                                         ferrum_error_t *err);

#endif /* FERRUM_HOST_ROUTE_SCRATCH_H */
