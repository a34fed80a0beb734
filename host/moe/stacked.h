/* SPDX-License-Identifier: MIT */
/**
 * @file stacked.h
 * @brief The forwards over three GGUF stacks: one token, batched decode, and prefill.
 */
#ifndef FERRUM_HOST_STACKED_H
#define FERRUM_HOST_STACKED_H

#include "host/moe/expert_stack.h"
#include "host/moe/moe_plan.h"
#include "host/moe/route_scratch.h"

/** Buffers that the three share, for t = the most tokens; act unless noted. */
typedef struct ferrum_stacked_buffers {
    ferrum_device_route_scratch_t *route; /**< selected_ids, pair_weights */
    ferrum_buffer_t *gate;                /**< [t*k, I] */
    ferrum_buffer_t *up;                  /**< [t*k, I] */
    ferrum_buffer_t *silu;                /**< [t*k, I] */
    ferrum_buffer_t *down;                /**< [t*k, h] */
    ferrum_buffer_t *ids_2d;              /**< i32 [E, t*k] */
    ferrum_buffer_t *tpe;                 /**< i32 [E] */
    ferrum_buffer_t *gate_up_args;        /**< u32 [3] */
    ferrum_buffer_t *down_args;           /**< u32 [3] */
} ferrum_stacked_buffers_t;

/** What the three share. */
typedef struct ferrum_stacked_params {
    ferrum_context_t *ctx;
    const ferrum_moe_plan_t *plan;
    const ferrum_expert_stack_t *experts;
    const ferrum_buffer_t *x;             /**< act [batch, h] */
    const ferrum_buffer_t *router_logits; /**< act or f32 [batch, E] */
    uint32_t batch;
    ferrum_stacked_buffers_t buffers;
    ferrum_moe_route_scratch_t *route_scratch; /**< for routing on the host */
} ferrum_stacked_params_t;

/**
 * One token (batch 1): `residual += MoE(x)`; with @p next_norm_w also
 * `normed_out = rms_norm(residual) * next_norm_w`, so that the next layer skips its own first norm.
 * [one-per-context]
 * @param next_norm_w act or f32 [h], or NULL (then normed_out is not touched)
 */
ferrum_status_t ferrum_moe_stacked_decode(const ferrum_stacked_params_t *params,
                                          ferrum_buffer_t *residual,
                                          const ferrum_buffer_t *next_norm_w,
                                          ferrum_buffer_t *normed_out, float rms_eps,
                                          ferrum_error_t *err);
/** Few tokens, one after the other, for backends without batched gemv: `out = MoE(x)`,
 *  overwriting. [one-per-context] */
ferrum_status_t ferrum_moe_stacked_decode_per_item(const ferrum_stacked_params_t *params,
                                                   ferrum_buffer_t *out, ferrum_error_t *err);
/** Few tokens, pair by pair in batched gemv ops: `out = MoE(x)`, overwriting. [one-per-context] */
ferrum_status_t ferrum_moe_stacked_decode_batched(const ferrum_stacked_params_t *params,
                                                  ferrum_buffer_t *out, ferrum_error_t *err);
/**
 * Many tokens, grouped by expert: `out = MoE(x)`, overwriting. Pair lists are made on the device
 * with indirect launches; FERRUM_MOE_DIRECT_DISPATCH=1 launches for the worst case instead;
 * FERRUM_MOE_HOST_TOPK=1 (or host routing by the plan) makes the lists on the host.
 * [one-per-context]
 */
ferrum_status_t ferrum_moe_stacked_prefill(const ferrum_stacked_params_t *params,
                                           ferrum_buffer_t *out, ferrum_error_t *err);

#endif /* FERRUM_HOST_STACKED_H */
