/* SPDX-License-Identifier: MIT */
/**
 * @file moe_run.h
 * @brief What a model calls: the whole MoE block of a layer after the router, whatever the path.
 *
 *     ferrum_moe_plan_resolve(...);                          once per model
 *     ferrum_expert_stack_load_from_gguf(..., plan.path)     once per layer
 *     ferrum_moe_scratch_new(...)                            once per model
 *     ferrum_moe_run(...)                                    per layer and step
 */
#ifndef FERRUM_HOST_MOE_RUN_H
#define FERRUM_HOST_MOE_RUN_H

#include "host/moe/expert_stack.h"
#include "host/moe/moe_plan.h"
#include "host/moe/moe_profile.h"

/** All buffers that the plan's path needs; shared by the layers of a model. */
typedef struct ferrum_moe_scratch ferrum_moe_scratch_t;

/** Scratch for @p plan (copied) and up to @p max_tokens rows. [any-thread] */
ferrum_status_t ferrum_moe_scratch_new(const ferrum_ops_t *ops, const ferrum_moe_plan_t *plan,
                                       uint32_t max_tokens, ferrum_moe_scratch_t **out_scratch,
                                       ferrum_error_t *err);
/** Grow to @p tokens rows. *out_grew (may be NULL) becomes true when buffers were replaced: graphs
 *  that captured them are void. ferrum_moe_run also grows by itself. */
ferrum_status_t ferrum_moe_scratch_reserve(ferrum_moe_scratch_t *scratch, uint32_t tokens,
                                           bool *out_grew, ferrum_error_t *err);
/** Device bytes held. */
uint64_t ferrum_moe_scratch_bytes(const ferrum_moe_scratch_t *scratch);
/** Counters of the bucketed path; they move only with FERRUM_MOE_PROFILE. */
ferrum_moe_profile_t *ferrum_moe_scratch_profile(ferrum_moe_scratch_t *scratch);
/** The plan it was made for. */
const ferrum_moe_plan_t *ferrum_moe_scratch_plan(const ferrum_moe_scratch_t *scratch);
void ferrum_moe_scratch_free(ferrum_moe_scratch_t *scratch);

/** One layer's work. Buffers are act unless noted. */
typedef struct ferrum_moe_run_args {
    ferrum_context_t *ctx;
    const ferrum_expert_stack_t *experts;
    const ferrum_buffer_t *x;             /**< [tokens, h]: the normed hidden states */
    const ferrum_buffer_t *router_logits; /**< act or f32 [tokens, E] */
    uint32_t tokens;
    uint32_t decode;           /**< non-zero: the rows are one token each of several requests
                                    (STACKED then prefers gemv below the prefill threshold) */
    ferrum_buffer_t *out;      /**< [tokens, h]: gets MoE(x); with residual set, only scratch */
    ferrum_buffer_t *residual; /**< [tokens, h] or NULL; set: residual += MoE(x) */
    const ferrum_buffer_t *next_norm_w; /**< act or f32 [h] or NULL; set (with residual and
                                             normed_out): then normed_out = rms_norm(residual) */
    ferrum_buffer_t *normed_out;        /**< [tokens, h] */
    float rms_eps;
} ferrum_moe_run_args_t;

/**
 * Route and run the experts of one layer by the scratch's plan. Allocates nothing once the scratch
 * has met the largest number of tokens. [one-per-context]
 * Errors: INVALID_ARGUMENT (NULL, shapes), NO_STACK (the experts were loaded for another path),
 * INVALID_INPUT (non-finite logits), OUT_OF_MEMORY, and those of the backend.
 */
ferrum_status_t ferrum_moe_run(ferrum_moe_scratch_t *scratch, const ferrum_moe_run_args_t *args,
                               ferrum_error_t *err);

#endif /* FERRUM_HOST_MOE_RUN_H */
