/* SPDX-License-Identifier: MIT */
/* Pass-through to the three GGUF stacks. */
#include "host/moe/expert_stack.h"

#include <ferrum/util.h>

static const char *const role_names[] = {
    [FERRUM_ROLE_GATE] = "gate", [FERRUM_ROLE_UP] = "up", [FERRUM_ROLE_DOWN] = "down"};

static ferrum_status_t find(const ferrum_expert_stack_t *stack, ferrum_expert_role_t role,
                            const ferrum_stacked_experts_t **out_stacked, ferrum_error_t *err)
{
    *out_stacked = role == FERRUM_ROLE_GATE ? stack->gate_stacked
                   : role == FERRUM_ROLE_UP ? stack->up_stacked
                                            : stack->down_stacked;
    if (!*out_stacked)
        return ferrum_fail(err, FERRUM_NO_STACK, FERRUM_REASON_LAYOUT,
                           "these experts were not loaded as GGUF stacks: no %s stack",
                           role_names[role]);
    return FERRUM_OK;
}

ferrum_status_t ferrum_expert_stack_gemv_offset(ferrum_context_t *ctx,
                                                const ferrum_expert_stack_t *stack,
                                                ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                                uint64_t x_offset, const ferrum_buffer_t *ids,
                                                uint64_t ids_offset, ferrum_buffer_t *out,
                                                uint32_t n, ferrum_error_t *err)
{
    const ferrum_stacked_experts_t *stacked;
    FERRUM_TRY(find(stack, role, &stacked, err));
    uint64_t stride = role == FERRUM_ROLE_DOWN ? stack->intermediate : 0;
    return stack->ops->stacked->gemv_moe_id(ctx, stacked, x, x_offset, ids, ids_offset, out, 0, n,
                                            stride, err);
}

ferrum_status_t ferrum_expert_stack_gemv(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                         ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                         const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                         uint32_t n, ferrum_error_t *err)
{
    return ferrum_expert_stack_gemv_offset(ctx, stack, role, x, 0, ids, 0, out, n, err);
}

ferrum_status_t
ferrum_expert_stack_gemv_gate_up_silu(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                      const ferrum_buffer_t *x, const ferrum_buffer_t *ids,
                                      ferrum_buffer_t *out, uint32_t n, ferrum_error_t *err)
{
    const ferrum_stacked_experts_t *gate, *up;
    FERRUM_TRY(find(stack, FERRUM_ROLE_GATE, &gate, err));
    FERRUM_TRY(find(stack, FERRUM_ROLE_UP, &up, err));
    return stack->ops->stacked->gemv_moe_id_gate_up_silu(ctx, gate, up, x, ids, out, n, err);
}

ferrum_status_t ferrum_expert_stack_gemv_batched(
    ferrum_context_t *ctx, const ferrum_expert_stack_t *stack, ferrum_expert_role_t role,
    const ferrum_buffer_t *x, const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m,
    uint32_t top_k, uint64_t outer, uint64_t inner, ferrum_error_t *err)
{
    const ferrum_stacked_experts_t *stacked;
    FERRUM_TRY(find(stack, role, &stacked, err));
    return stack->ops->stacked->gemv_moe_id_batched(ctx, stacked, x, ids, out, m, top_k, outer,
                                                    inner, err);
}

ferrum_status_t ferrum_expert_stack_gemv_gate_up_silu_batched(
    ferrum_context_t *ctx, const ferrum_expert_stack_t *stack, const ferrum_buffer_t *x,
    const ferrum_buffer_t *ids, ferrum_buffer_t *out, uint32_t m, uint32_t top_k, uint64_t outer,
    uint64_t inner, ferrum_error_t *err)
{
    const ferrum_stacked_experts_t *gate, *up;
    FERRUM_TRY(find(stack, FERRUM_ROLE_GATE, &gate, err));
    FERRUM_TRY(find(stack, FERRUM_ROLE_UP, &up, err));
    return stack->ops->stacked->gemv_moe_id_gate_up_silu_batched(ctx, gate, up, x, ids, out, m,
                                                                 top_k, outer, inner, err);
}

ferrum_status_t ferrum_expert_stack_gemm(ferrum_context_t *ctx, const ferrum_expert_stack_t *stack,
                                         ferrum_expert_role_t role, const ferrum_buffer_t *x,
                                         const ferrum_buffer_t *ids, const ferrum_buffer_t *tpe,
                                         ferrum_buffer_t *out, const ferrum_buffer_t *args,
                                         uint32_t top_k, uint32_t max_per_expert, uint32_t batch,
                                         ferrum_error_t *err)
{
    const ferrum_stacked_experts_t *stacked;
    FERRUM_TRY(find(stack, role, &stacked, err));
    const ferrum_stacked_experts_ops_t *ops = stack->ops->stacked;
    uint32_t ne11 = role == FERRUM_ROLE_DOWN ? top_k : 1;
    if (args)
        return ops->gemm_moe_id_indirect(ctx, stacked, x, ids, tpe, out, args, ne11, top_k,
                                         max_per_expert, batch, err);
    return ops->gemm_moe_id(ctx, stacked, x, ids, tpe, out, ne11, top_k, max_per_expert, batch,
                            err);
}
