/* SPDX-License-Identifier: MIT */
/**
 * @file expert_stack_internal.h
 * @brief Steps shared by the makers of an ExpertStack.
 */
#ifndef FERRUM_HOST_EXPERT_STACK_INTERNAL_H
#define FERRUM_HOST_EXPERT_STACK_INTERNAL_H

#include "host/moe/expert_stack.h"

/** Make the per-expert lists, all NULL. */
ferrum_status_t ferrum_expert_stack_new_lists(ferrum_expert_stack_t *stack, uint32_t num_experts,
                                              ferrum_error_t *err);
/** Make the fused form of the three roles. */
ferrum_status_t ferrum_expert_stack_make_ffn(ferrum_expert_stack_t *stack, uint32_t num_experts,
                                             const ferrum_expert_weights_t *gate,
                                             const ferrum_expert_weights_t *up,
                                             const ferrum_expert_weights_t *down,
                                             ferrum_error_t *err);
/** Sum the bytes of all objects and take over what the Marlin stacks require. */
ferrum_status_t ferrum_expert_stack_count_bytes(ferrum_expert_stack_t *stack, ferrum_error_t *err);
/** Hand @p stack over when @p status is OK, else free what it has; returns the final status. */
ferrum_status_t ferrum_expert_stack_finish(ferrum_expert_stack_t *stack, ferrum_status_t status,
                                           ferrum_expert_stack_t *out_stack, ferrum_error_t *err);

#endif /* FERRUM_HOST_EXPERT_STACK_INTERNAL_H */
