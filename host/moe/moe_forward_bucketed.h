/* SPDX-License-Identifier: MIT */
/**
 * @file moe_forward_bucketed.h
 * @brief The forward over Marlin stacks: pairs are grouped by expert and each phase is one call.
 *
 * Route, plan, gather, gate_up GEMM, silu*up, down GEMM, combine. Variants:
 *  - *aligned* (vllm): FERRUM_VLLM_MOE=1, or a stack that is packed for it, or a forced device
 *    route. Phases go through gemm_phase_vllm with rows padded to blocks; else gemm_phase_batched
 *    with one dispatch per active expert, largest first.
 *  - *device route*: with device_route scratch and the aligned variant, routing, plan and alignment
 *    stay on the device and nothing is read back; FERRUM_MOE_DEVICE_ROUTE=0 or
 *    FERRUM_MOE_HOST_ROUTE=1 forbid it, FERRUM_MOE_DEVICE_ROUTE=1 forces it (and the aligned
 *    variant with it).
 *  - *pair ids*: device route and FERRUM_VLLM_MOE_PAIR_IDS=1: no gather; the first GEMM reads x
 *    through pair ids and rows stay in pair order.
 */
#ifndef FERRUM_HOST_MOE_FORWARD_BUCKETED_H
#define FERRUM_HOST_MOE_FORWARD_BUCKETED_H

#include "host/moe/expert_stack.h"
#include "host/moe/moe_profile.h"
#include "host/moe/route_scratch.h"

/** Arguments of ferrum_moe_forward_bucketed. Buffers are act unless noted; P = batch * top_k. */
typedef struct ferrum_moe_forward_bucketed_params {
    ferrum_context_t *ctx;
    const ferrum_buffer_t *x;             /**< [batch, hidden] */
    const ferrum_buffer_t *router_logits; /**< act or f32 [batch, num_experts] */
    ferrum_buffer_t *out;                 /**< [batch, hidden]; overwritten, may be dirty */
    uint32_t batch;
    uint32_t hidden;
    uint32_t intermediate;
    uint32_t num_experts;
    uint32_t top_k;
    bool norm_topk;
    const ferrum_expert_stack_t *experts; /**< with both Marlin stacks */
    ferrum_buffer_t *x_packed;            /**< [P, hidden] */
    ferrum_buffer_t *gate_up_packed;      /**< [P, 2 * intermediate] */
    ferrum_buffer_t *silu_packed;         /**< [P, intermediate] */
    ferrum_buffer_t *down_packed;         /**< [P, hidden] */
    ferrum_moe_route_scratch_t *route_scratch;
    ferrum_device_route_scratch_t *device_route; /**< NULL: route on the host */
    const ferrum_moe_env_t *env;
    bool backend_host_route;       /**< see ferrum_moe_route_on_host */
    ferrum_moe_profile_t *profile; /**< NULL: do not measure */
} ferrum_moe_forward_bucketed_params_t;

/** [one-per-context] Errors: INVALID_ARGUMENT (experts or scratch sizes), NO_STACK ("requires
 *  stacked gate_up store" / "down store"), INVALID_INPUT (logits), and those of the backend. */
ferrum_status_t ferrum_moe_forward_bucketed(const ferrum_moe_forward_bucketed_params_t *params,
                                            ferrum_error_t *err);

#endif /* FERRUM_HOST_MOE_FORWARD_BUCKETED_H */
