/* SPDX-License-Identifier: MIT */
#include "host/moe/expert_stack_internal.h"

#include <ferrum/util.h>

#include <stdlib.h>

void ferrum_expert_stack_free(ferrum_expert_stack_t *stack)
{
    if (!stack || !stack->ops)
        return;
    const ferrum_ops_t *ops = stack->ops;
    for (uint32_t e = 0; stack->gate_up && e < stack->expert_count; e++)
        ops->linear->release(stack->gate_up[e]);
    for (uint32_t e = 0; stack->down && e < stack->expert_count; e++)
        ops->linear->release(stack->down[e]);
    free(stack->gate_up);
    free(stack->down);
    ops->stacked->release(stack->gate_stacked);
    ops->stacked->release(stack->up_stacked);
    ops->stacked->release(stack->down_stacked);
    ops->marlin->release(stack->gate_up_marlin);
    ops->marlin->release(stack->down_marlin);
    ops->moe->expert_ffn_release(stack->ffn);
    *stack = (ferrum_expert_stack_t){0};
}

uint32_t ferrum_expert_stack_num_experts(const ferrum_expert_stack_t *stack)
{
    return stack->expert_count ? stack->expert_count : stack->stacked_experts;
}

ferrum_marlin_stack_t *ferrum_expert_stack_gate_up_store(const ferrum_expert_stack_t *stack)
{
    return stack->gate_up_marlin;
}

ferrum_marlin_stack_t *ferrum_expert_stack_down_store(const ferrum_expert_stack_t *stack)
{
    return stack->down_marlin;
}

ferrum_status_t ferrum_expert_stack_new_lists(ferrum_expert_stack_t *stack, uint32_t num_experts,
                                              ferrum_error_t *err)
{
    stack->gate_up = calloc(num_experts, sizeof(ferrum_linear_t *));
    stack->down = calloc(num_experts, sizeof(ferrum_linear_t *));
    if (!stack->gate_up || !stack->down)
        return ferrum_fail(err, FERRUM_OUT_OF_MEMORY, FERRUM_REASON_NONE,
                           "no memory for the lists of %u experts", num_experts);
    stack->expert_count = num_experts;
    return FERRUM_OK;
}

ferrum_status_t ferrum_expert_stack_count_bytes(ferrum_expert_stack_t *stack, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 2 * stack->expert_count; i++) {
        ferrum_linear_info_t info = {.head = FERRUM_HEAD(ferrum_linear_info_t)};
        FERRUM_TRY(
            ops->linear->info(i % 2 ? stack->down[i / 2] : stack->gate_up[i / 2], &info, err));
        bytes += info.bytes;
    }
    const ferrum_stacked_experts_t *stacks[] = {stack->gate_stacked, stack->up_stacked,
                                                stack->down_stacked};
    for (int i = 0; i < 3; i++) {
        ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
        if (stacks[i])
            FERRUM_TRY(ops->stacked->info(stacks[i], &info, err));
        bytes += info.bytes;
    }
    const ferrum_marlin_stack_t *marlins[] = {stack->gate_up_marlin, stack->down_marlin};
    for (int i = 0; i < 2; i++) {
        ferrum_expert_stack_info_t info = {.head = FERRUM_HEAD(ferrum_expert_stack_info_t)};
        if (marlins[i])
            FERRUM_TRY(ops->marlin->info(marlins[i], &info, err));
        bytes += info.bytes;
        stack->requires_vllm |= info.requires_vllm != 0;
    }
    ferrum_expert_ffn_info_t ffn_info = {.head = FERRUM_HEAD(ferrum_expert_ffn_info_t)};
    if (stack->ffn)
        FERRUM_TRY(ops->moe->expert_ffn_info(stack->ffn, &ffn_info, err));
    stack->bytes = bytes + ffn_info.bytes;
    return FERRUM_OK;
}

ferrum_status_t ferrum_expert_stack_finish(ferrum_expert_stack_t *stack, ferrum_status_t status,
                                           ferrum_expert_stack_t *out_stack, ferrum_error_t *err)
{
    if (status == FERRUM_OK)
        status = ferrum_expert_stack_count_bytes(stack, err);
    if (status == FERRUM_OK)
        *out_stack = *stack;
    else
        ferrum_expert_stack_free(stack);
    return status;
}

/* ---- GGUF blocks ---- */

/* One expert of a slab. The slab's byte count has been checked. */
static ferrum_gguf_weights_t slice(const ferrum_gguf_weights_t *slab, uint32_t expert)
{
    ferrum_gguf_weights_t one = *slab;
    one.head = (ferrum_head_t)FERRUM_HEAD(ferrum_gguf_weights_t);
    one.experts = 1;
    one.bytes = slab->bytes / slab->experts;
    one.data = (const char *)slab->data + one.bytes * expert;
    return one;
}

static ferrum_status_t check_slab(const ferrum_gguf_weights_t *slab, const char *role,
                                  uint32_t experts, uint32_t rows, uint32_t cols,
                                  ferrum_error_t *err)
{
    const ferrum_format_traits_t *traits = ferrum_format_traits(slab->format);
    if (!traits)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                           "%s experts have format %u, which is unknown", role, slab->format);
    if (experts == 0 || slab->experts != experts || slab->rows != rows || slab->cols != cols)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s experts are [%u, %u, %u], the layer needs [%u, %u, %u]", role,
                           slab->experts, slab->rows, slab->cols, experts, rows, cols);
    uint64_t blocks, bytes;
    if (cols % traits->block_values != 0)
        return ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_K,
                           "%s experts have rows of %u values, not whole %s blocks of %u", role,
                           cols, traits->name, traits->block_values);
    if (!ferrum_mul_u64((uint64_t)rows * (cols / traits->block_values), experts, &blocks) ||
        !ferrum_mul_u64(blocks, traits->block_bytes, &bytes) || bytes != slab->bytes)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s experts have %llu bytes, which does not fit their shape", role,
                           (unsigned long long)slab->bytes);
    return FERRUM_OK;
}

static ferrum_status_t load_per_expert(ferrum_expert_stack_t *stack,
                                       const ferrum_gguf_weights_t *gate,
                                       const ferrum_gguf_weights_t *up,
                                       const ferrum_gguf_weights_t *down, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    FERRUM_TRY(ferrum_expert_stack_new_lists(stack, gate->experts, err));
    for (uint32_t e = 0; e < gate->experts; e++) {
        ferrum_gguf_weights_t gate_e = slice(gate, e), up_e = slice(up, e), down_e = slice(down, e);
        const ferrum_gguf_weights_t *parts[] = {&gate_e, &up_e};
        FERRUM_TRY(ops->quant->load_quant_fused(ops->device, parts, 2, &stack->gate_up[e], err));
        FERRUM_TRY(ops->quant->load_quant(ops->device, &down_e, NULL, &stack->down[e], err));
    }
    return FERRUM_OK;
}

static ferrum_status_t load_stacked(ferrum_expert_stack_t *stack, const ferrum_gguf_weights_t *gate,
                                    const ferrum_gguf_weights_t *up,
                                    const ferrum_gguf_weights_t *down, ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    stack->stacked_experts = gate->experts;
    FERRUM_TRY(ops->quant->load_quant_experts(ops->device, gate, &stack->gate_stacked, err));
    FERRUM_TRY(ops->quant->load_quant_experts(ops->device, up, &stack->up_stacked, err));
    return ops->quant->load_quant_experts(ops->device, down, &stack->down_stacked, err);
}

ferrum_status_t ferrum_expert_stack_make_ffn(ferrum_expert_stack_t *stack, uint32_t num_experts,
                                             const ferrum_expert_weights_t *gate,
                                             const ferrum_expert_weights_t *up,
                                             const ferrum_expert_weights_t *down,
                                             ferrum_error_t *err)
{
    const ferrum_ops_t *ops = stack->ops;
    ferrum_expert_ffn_desc_t desc = {.head = FERRUM_HEAD(ferrum_expert_ffn_desc_t),
                                     .hidden = stack->hidden,
                                     .intermediate = stack->intermediate,
                                     .num_experts = num_experts,
                                     .precision = ops->precision,
                                     .gate = gate,
                                     .up = up,
                                     .down = down};
    stack->stacked_experts = num_experts;
    return ops->moe->expert_ffn_create(ops->device, &desc, &stack->ffn, err);
}

static ferrum_status_t load_ffn(ferrum_expert_stack_t *stack, const ferrum_gguf_weights_t *gate,
                                const ferrum_gguf_weights_t *up, const ferrum_gguf_weights_t *down,
                                ferrum_error_t *err)
{
    ferrum_expert_weights_t roles[3] = {
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gguf = gate},
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gguf = up},
        {.head = FERRUM_HEAD(ferrum_expert_weights_t), .gguf = down}};
    return ferrum_expert_stack_make_ffn(stack, gate->experts, &roles[0], &roles[1], &roles[2], err);
}

ferrum_status_t ferrum_expert_stack_from_blocks(const ferrum_ops_t *ops, ferrum_moe_path_t path,
                                                const ferrum_gguf_weights_t *gate,
                                                const ferrum_gguf_weights_t *up,
                                                const ferrum_gguf_weights_t *down,
                                                ferrum_expert_stack_t *out_stack,
                                                ferrum_error_t *err)
{
    ferrum_expert_stack_t stack = {.ops = ops, .hidden = gate->cols, .intermediate = gate->rows};
    FERRUM_TRY(check_slab(gate, "gate", gate->experts, gate->rows, gate->cols, err));
    FERRUM_TRY(check_slab(up, "up", gate->experts, gate->rows, gate->cols, err));
    FERRUM_TRY(check_slab(down, "down", gate->experts, gate->cols, gate->rows, err));
    ferrum_status_t status;
    switch (path) {
    case FERRUM_MOE_PATH_EXPERT_FFN:
        status = load_ffn(&stack, gate, up, down, err);
        break;
    case FERRUM_MOE_PATH_STACKED:
        status = load_stacked(&stack, gate, up, down, err);
        break;
    case FERRUM_MOE_PATH_PER_PAIR:
        status = load_per_expert(&stack, gate, up, down, err);
        break;
    default:
        status = ferrum_fail(err, FERRUM_UNSUPPORTED, FERRUM_REASON_FORMAT,
                             "the %s path does not take GGUF experts; use expert_ffn, stacked or "
                             "per-pair",
                             ferrum_moe_path_name(path));
    }
    return ferrum_expert_stack_finish(&stack, status, out_stack, err);
}

ferrum_status_t ferrum_expert_stack_from_dense_stacks(
    const ferrum_ops_t *ops, const float *gate, uint64_t gate_count, const float *up,
    uint64_t up_count, const float *down, uint64_t down_count, uint32_t num_experts,
    uint32_t hidden, uint32_t intermediate, ferrum_expert_stack_t *out_stack, ferrum_error_t *err)
{
    uint64_t count;
    if (!ferrum_mul_u64((uint64_t)hidden * intermediate, num_experts, &count) || count == 0 ||
        count > UINT64_MAX / sizeof(float))
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                           "%u experts of %u x %u cannot be loaded", num_experts, hidden,
                           intermediate);
    const struct {
        const char *name;
        const float *data;
        uint64_t count;
        uint32_t rows, cols;
    } roles[3] = {{"gate_stack", gate, gate_count, intermediate, hidden},
                  {"up_stack", up, up_count, intermediate, hidden},
                  {"down_stack", down, down_count, hidden, intermediate}};
    ferrum_gguf_weights_t slabs[3];
    for (int i = 0; i < 3; i++) {
        if (roles[i].count != count || !roles[i].data)
            return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                               "%s has %llu values; %u experts of %u x %u need %llu", roles[i].name,
                               (unsigned long long)roles[i].count, num_experts, roles[i].rows,
                               roles[i].cols, (unsigned long long)count);
        slabs[i] = (ferrum_gguf_weights_t){.head = FERRUM_HEAD(ferrum_gguf_weights_t),
                                           .format = FERRUM_FORMAT_F32,
                                           .experts = num_experts,
                                           .rows = roles[i].rows,
                                           .cols = roles[i].cols,
                                           .data = roles[i].data,
                                           .bytes = count * sizeof(float)};
    }
    return ferrum_expert_stack_from_blocks(ops, FERRUM_MOE_PATH_PER_PAIR, &slabs[0], &slabs[1],
                                           &slabs[2], out_stack, err);
}
