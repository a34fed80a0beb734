/* SPDX-License-Identifier: MIT */
/* Grouping pairs by expert: the plan, the padded alignments, the pair lists. Every order is stable;
 * ids outside [0, E) take no part. */
#include "backends/cuda/entries.h"
#include "backends/cuda/product.h"

ferrum_status_t ferrum_cuda_upload_moe_routing(ferrum_context_t *ctx, const int32_t *sorted,
                                               uint32_t sorted_count, const int32_t *expert_ids,
                                               uint32_t block_count, int32_t past_padded,
                                               const ferrum_moe_routing_t *routing,
                                               ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(routing, FERRUM_MOE_ROUTING_MIN_SIZE, err);
    FERRUM_CUDA_CHECK(
        ctx, err,
        {"sorted_token_ids", routing->sorted_token_ids, FERRUM_DTYPE_I32, 0, sorted_count},
        {"expert_ids", routing->expert_ids, FERRUM_DTYPE_I32, 0, block_count},
        {"num_tokens_past_padded", routing->num_tokens_past_padded, FERRUM_DTYPE_I32, 0, 1});
    if (sorted_count > 0)
        FERRUM_CHECK_POINTER(sorted, err);
    if (block_count > 0)
        FERRUM_CHECK_POINTER(expert_ids, err);
    if (past_padded < 0 || (uint32_t)past_padded > sorted_count)
        return FERRUM_REFUSE(err, FERRUM_REASON_RANGE, "past_padded is %d, expected 0 to %u",
                             past_padded, sorted_count);
    FERRUM_TRY(ferrum_cuda_check_not_capturing(ctx, __func__, err));
    FERRUM_TRY(ferrum_cuda_upload(ctx, ferrum_cuda_at(routing->sorted_token_ids, 0), sorted,
                                  sorted_count, sizeof *sorted, NULL, err));
    FERRUM_TRY(ferrum_cuda_upload(ctx, ferrum_cuda_at(routing->expert_ids, 0), expert_ids,
                                  block_count, sizeof *expert_ids, NULL, err));
    return ferrum_cuda_upload(ctx, ferrum_cuda_at(routing->num_tokens_past_padded, 0), &past_padded,
                              1, sizeof past_padded, NULL, err);
}

ferrum_status_t ferrum_cuda_moe_build_pairs_by_token(
    ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *pairs_by_token,
    ferrum_buffer_t *packed_token_idx, ferrum_buffer_t *expert_offsets, uint32_t pairs,
    uint32_t num_experts, uint32_t top_k, ferrum_error_t *err)
{
    FERRUM_CUDA_CHECK(
        ctx, err, {"expert_ids", expert_ids, FERRUM_DTYPE_I32, 0, pairs},
        {"pairs_by_token", pairs_by_token, FERRUM_DTYPE_I32, 0, pairs},
        {"packed_token_idx", packed_token_idx, FERRUM_DTYPE_I32, 0, pairs},
        {"expert_offsets", expert_offsets, FERRUM_DTYPE_I32, 0, (uint64_t)num_experts + 1});
    FERRUM_TRY(ferrum_cuda_check_pair_count(__func__, pairs, err));
    if (pairs > 0 && top_k == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_TOP_K, "top_k is %u", top_k);

    const ferrum_plan_args_t args = {.ids = ferrum_cuda_at(expert_ids, 0),
                                     .row_of_pair = ferrum_cuda_at(pairs_by_token, 0),
                                     .token_of_row = ferrum_cuda_at(packed_token_idx, 0),
                                     .offsets = ferrum_cuda_at(expert_offsets, 0),
                                     .pairs = pairs,
                                     .experts = num_experts,
                                     .top_k = top_k};
    return ferrum_cuda_plan(ctx, &args, err);
}

/** A padded alignment; see moe_align_block_size. */
typedef struct align {
    const char *function;
    const ferrum_buffer_t *expert_ids;
    ferrum_buffer_t *sorted;
    ferrum_buffer_t *block_ids;
    ferrum_buffer_t *total;
    uint32_t pairs;
    uint32_t experts;
    uint32_t block_size;
    uint32_t sorted_max;
    bool pair_ids; /**< sorted gets pair ids, not packed rows */
} align_t;

static ferrum_status_t check_align(ferrum_context_t *ctx, const align_t *align, ferrum_error_t *err)
{
    const char *op = ferrum_op_name(align->function);

    if (align->block_size == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "%s: block_size is 0", op);
    const ferrum_cuda_operand_t operands[] = {
        {"expert_ids", align->expert_ids, FERRUM_DTYPE_I32, 0, align->pairs},
        {"sorted", align->sorted, FERRUM_DTYPE_I32, 0, align->sorted_max},
        {"block_ids", align->block_ids, FERRUM_DTYPE_I32, 0, align->sorted_max / align->block_size},
        {"total", align->total, FERRUM_DTYPE_I32, 0, 1}};
    FERRUM_TRY(ferrum_cuda_check_operands(align->function, ctx, operands, 4, err));
    const uint64_t needed = align->pairs + (uint64_t)align->experts * align->block_size;
    if (align->sorted_max < needed || align->sorted_max > INT32_MAX)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_LENGTH,
                           "%s: sorted_max is %u, expected at least %llu and an i32", op,
                           align->sorted_max, (unsigned long long)needed);
    return FERRUM_OK;
}

static ferrum_status_t run_align(ferrum_context_t *ctx, const align_t *align, ferrum_error_t *err)
{
    FERRUM_TRY(check_align(ctx, align, err));
    const ferrum_plan_args_t args = {.ids = ferrum_cuda_at(align->expert_ids, 0),
                                     .sorted = ferrum_cuda_at(align->sorted, 0),
                                     .block_experts = ferrum_cuda_at(align->block_ids, 0),
                                     .total = ferrum_cuda_at(align->total, 0),
                                     .pairs = align->pairs,
                                     .experts = align->experts,
                                     .top_k = 1,
                                     .block_size = align->block_size,
                                     .sorted_max = align->sorted_max,
                                     .sorted_pairs = align->pair_ids};
    return ferrum_cuda_plan(ctx, &args, err);
}

ferrum_status_t
ferrum_cuda_moe_align_block_size(ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids,
                                 ferrum_buffer_t *sorted, ferrum_buffer_t *block_ids,
                                 ferrum_buffer_t *total, uint32_t pairs, uint32_t num_experts,
                                 uint32_t block_size, uint32_t sorted_max, ferrum_error_t *err)
{
    const align_t align = {__func__, expert_ids,  sorted,     block_ids,  total,
                           pairs,    num_experts, block_size, sorted_max, false};
    return run_align(ctx, &align, err);
}

ferrum_status_t ferrum_cuda_moe_align_block_size_pair_ids(
    ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *sorted,
    ferrum_buffer_t *block_ids, ferrum_buffer_t *total, uint32_t pairs, uint32_t num_experts,
    uint32_t block_size, uint32_t sorted_max, ferrum_error_t *err)
{
    const align_t align = {__func__, expert_ids,  sorted,     block_ids,  total,
                           pairs,    num_experts, block_size, sorted_max, true};
    return run_align(ctx, &align, err);
}

ferrum_status_t ferrum_cuda_compute_ids_tpe(
    ferrum_context_t *ctx, const ferrum_buffer_t *selected, ferrum_buffer_t *tpe,
    ferrum_buffer_t *ids, ferrum_buffer_t *gate_up_args, ferrum_buffer_t *down_args, uint32_t batch,
    uint32_t num_experts, uint32_t top_k, uint32_t m_gate_up, uint32_t m_down, ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);

    FERRUM_CUDA_CHECK(ctx, err, {"selected", selected, FERRUM_DTYPE_I32, 0, pairs},
                      {"tpe", tpe, FERRUM_DTYPE_I32, 0, num_experts},
                      {"ids", ids, FERRUM_DTYPE_I32, 0, ferrum_size_mul(num_experts, pairs)},
                      {"gate_up_args", gate_up_args, FERRUM_DTYPE_U32, 0, 3},
                      {"down_args", down_args, FERRUM_DTYPE_U32, 0, 3});
    FERRUM_TRY(ferrum_cuda_check_pair_count(__func__, pairs, err));

    const ferrum_plan_args_t args = {
        .ids = ferrum_cuda_at(selected, 0),
        .lists = ferrum_cuda_at(ids, 0),
        .lengths = ferrum_cuda_at(tpe, 0),
        .launch = {ferrum_cuda_at(gate_up_args, 0), ferrum_cuda_at(down_args, 0)},
        .pairs = (uint32_t)pairs,
        .experts = num_experts,
        .top_k = 1,
        .launch_rows = {m_gate_up, m_down}};
    return ferrum_cuda_plan(ctx, &args, err);
}
