/* SPDX-License-Identifier: MIT */
/**
 * @file moe_forward.h
 * @brief The per-pair forward, correct on every backend that has Linears, and the reference forward
 *        into host memory.
 */
#ifndef FERRUM_HOST_MOE_FORWARD_H
#define FERRUM_HOST_MOE_FORWARD_H

#include "host/moe/expert_stack.h"
#include "host/moe/route_scratch.h"

/** Arguments of ferrum_moe_forward. Buffers are act unless noted. */
typedef struct ferrum_moe_forward_params {
    ferrum_context_t *ctx;
    const ferrum_buffer_t *x;             /**< [batch, hidden] */
    const ferrum_buffer_t *router_logits; /**< act or f32 [batch, num_experts] */
    ferrum_buffer_t *out;                 /**< [batch, hidden]; overwritten */
    uint32_t batch;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t top_k;
    bool norm_topk;
    const ferrum_expert_stack_t *experts; /**< with per-expert Linears */
    ferrum_buffer_t *x_single;            /**< [hidden] */
    ferrum_buffer_t *acc_buf;             /**< [hidden] */
    ferrum_buffer_t *gate_up_buf;         /**< [2 * intermediate] */
    ferrum_buffer_t *silu_buf;            /**< [intermediate] */
    ferrum_buffer_t *down_buf;            /**< [hidden] */
    const ferrum_buffer_t *zero_hidden;   /**< [hidden], all zero */
    bool backend_host_route;              /**< see ferrum_moe_route_on_host */
    ferrum_moe_route_scratch_t *route_scratch;
} ferrum_moe_forward_params_t;

/**
 * Route on the host, then one token and one pair at a time: gate_up, silu*up, down, and
 * `acc += weight * down` in slot order. [one-per-context]
 * Errors: INVALID_ARGUMENT (the number of experts disagrees), NO_STACK (no per-expert Linears),
 * INVALID_INPUT (expert id, non-finite logits), and those of the backend.
 */
ferrum_status_t ferrum_moe_forward(const ferrum_moe_forward_params_t *params, ferrum_error_t *err);

/**
 * The reference: experts @p routing chose, host arrays in and out, sums in f32 and slot order.
 * @param x       f32 [batch, hidden]; @p x_count must be batch * hidden
 * @param routing its batch gives the number of rows
 * @param out     f32 [batch, hidden], overwritten
 * Buffers are made for the call: not for the hot path.
 * Errors: INVALID_ARGUMENT (x_count), INVALID_INPUT naming an expert id out of range, NO_STACK.
 * [one-per-context]
 */
ferrum_status_t ferrum_moe_forward_cpu(ferrum_context_t *ctx, const ferrum_expert_stack_t *experts,
                                       const float *x, uint64_t x_count,
                                       const ferrum_router_output_t *routing, float *out,
                                       ferrum_error_t *err);

#endif /* FERRUM_HOST_MOE_FORWARD_H */
