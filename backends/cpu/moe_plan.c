/* SPDX-License-Identifier: MIT */
/* Grouping pairs by expert: the plan, the padded alignments, the pair lists. Every sort is a stable
 * counting sort; ids outside [0, E) take no part. */
#include "backends/cpu/check.h"
#include "backends/cpu/entries.h"

#include <string.h>

static bool is_expert(int32_t id, uint32_t experts)
{
    return id >= 0 && (uint32_t)id < experts;
}

/** The pair count is an i32, as every index that is made of it. */
static ferrum_status_t check_pair_count(const char *function, uint64_t pairs, ferrum_error_t *err)
{
    if (pairs <= INT32_MAX)
        return FERRUM_OK;
    return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_OVERFLOW,
                       "%s: %llu pairs do not fit in an i32", ferrum_op_name(function),
                       (unsigned long long)pairs);
}

ferrum_status_t ferrum_cpu_upload_moe_routing(ferrum_context_t *ctx, const int32_t *sorted,
                                              uint32_t sorted_count, const int32_t *expert_ids,
                                              uint32_t block_count, int32_t past_padded,
                                              const ferrum_moe_routing_t *routing,
                                              ferrum_error_t *err)
{
    FERRUM_CHECK_STRUCT(routing, FERRUM_MOE_ROUTING_MIN_SIZE, err);
    FERRUM_CPU_CHECK(
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
    if (sorted_count > 0)
        memcpy(routing->sorted_token_ids->data, sorted, sorted_count * sizeof *sorted);
    if (block_count > 0)
        memcpy(routing->expert_ids->data, expert_ids, block_count * sizeof *expert_ids);
    ferrum_cpu_i32(routing->num_tokens_past_padded)[0] = past_padded;
    ctx->stats.copies++;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_moe_build_pairs_by_token(
    ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *pairs_by_token,
    ferrum_buffer_t *packed_token_idx, ferrum_buffer_t *expert_offsets, uint32_t pairs,
    uint32_t num_experts, uint32_t top_k, ferrum_error_t *err)
{
    FERRUM_CPU_CHECK(
        ctx, err, {"expert_ids", expert_ids, FERRUM_DTYPE_I32, 0, pairs},
        {"pairs_by_token", pairs_by_token, FERRUM_DTYPE_I32, 0, pairs},
        {"packed_token_idx", packed_token_idx, FERRUM_DTYPE_I32, 0, pairs},
        {"expert_offsets", expert_offsets, FERRUM_DTYPE_I32, 0, (uint64_t)num_experts + 1});
    FERRUM_TRY(check_pair_count(__func__, pairs, err));
    if (pairs > 0 && top_k == 0)
        return FERRUM_REFUSE(err, FERRUM_REASON_TOP_K, "top_k is %u", top_k);

    const int32_t *ids = ferrum_cpu_i32(expert_ids);
    int32_t *rows = ferrum_cpu_i32(pairs_by_token), *tokens = ferrum_cpu_i32(packed_token_idx);
    int32_t *offsets = ferrum_cpu_i32(expert_offsets);

    memset(offsets, 0, ((size_t)num_experts + 1) * sizeof *offsets);
    for (uint32_t p = 0; p < pairs; p++)
        if (is_expert(ids[p], num_experts))
            offsets[ids[p] + 1]++;
    for (uint32_t e = 0; e < num_experts; e++)
        offsets[e + 1] += offsets[e];
    for (uint32_t p = (uint32_t)offsets[num_experts]; p < pairs; p++)
        tokens[p] = 0;
    /* offsets[e] walks to the end of e, which is the start of e + 1; then all move up by one. */
    for (uint32_t p = 0; p < pairs; p++) {
        rows[p] = is_expert(ids[p], num_experts) ? offsets[ids[p]]++ : -1;
        if (rows[p] >= 0)
            tokens[rows[p]] = (int32_t)(p / top_k);
    }
    memmove(offsets + 1, offsets, num_experts * sizeof *offsets);
    offsets[0] = 0;
    return FERRUM_OK;
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

static ferrum_status_t check_align(const ferrum_context_t *ctx, const align_t *align,
                                   ferrum_error_t *err)
{
    const char *op = ferrum_op_name(align->function);

    if (align->block_size == 0)
        return ferrum_fail(err, FERRUM_INVALID_ARGUMENT, FERRUM_REASON_BLOCK_SIZE,
                           "%s: block_size is 0", op);
    const ferrum_cpu_operand_t operands[] = {
        {"expert_ids", align->expert_ids, FERRUM_DTYPE_I32, 0, align->pairs},
        {"sorted", align->sorted, FERRUM_DTYPE_I32, 0, align->sorted_max},
        {"block_ids", align->block_ids, FERRUM_DTYPE_I32, 0, align->sorted_max / align->block_size},
        {"total", align->total, FERRUM_DTYPE_I32, 0, 1}};
    FERRUM_TRY(ferrum_cpu_check_operands(align->function, ctx, operands, 4, err));
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
    const int32_t *ids = ferrum_cpu_i32(align->expert_ids);
    int32_t *sorted = ferrum_cpu_i32(align->sorted), *block_ids = ferrum_cpu_i32(align->block_ids);
    const uint32_t blocks = align->sorted_max / align->block_size;
    uint32_t padded = 0, packed = 0;
    /* Per expert: next padded slot, and how far its packed rows are behind its slots. */
    uint32_t *cursor = ferrum_cpu_scratch(ctx, FERRUM_CPU_SCRATCH_COUNTS,
                                          2 * (uint64_t)align->experts, sizeof *cursor, err);
    if (!cursor)
        return FERRUM_OUT_OF_MEMORY;
    uint32_t *lag = cursor + align->experts;

    memset(cursor, 0, align->experts * sizeof *cursor);
    for (uint32_t p = 0; p < align->pairs; p++)
        if (is_expert(ids[p], align->experts))
            cursor[ids[p]]++;
    for (uint32_t i = 0; i < blocks; i++)
        block_ids[i] = -1;
    for (uint32_t e = 0; e < align->experts; e++) {
        const uint32_t count = cursor[e];
        const uint32_t end =
            padded + (count + align->block_size - 1) / align->block_size * align->block_size;
        cursor[e] = padded;
        lag[e] = padded - packed;
        for (; padded < end; padded += align->block_size)
            block_ids[padded / align->block_size] = (int32_t)e;
        packed += count;
    }
    for (uint32_t s = 0; s < align->sorted_max; s++)
        sorted[s] = (int32_t)align->pairs;
    for (uint32_t p = 0; p < align->pairs; p++) {
        if (!is_expert(ids[p], align->experts))
            continue;
        const uint32_t slot = cursor[ids[p]]++;
        sorted[slot] = (int32_t)(align->pair_ids ? p : slot - lag[ids[p]]);
    }
    ferrum_cpu_i32(align->total)[0] = (int32_t)padded;
    return FERRUM_OK;
}

ferrum_status_t ferrum_cpu_moe_align_block_size(ferrum_context_t *ctx,
                                                const ferrum_buffer_t *expert_ids,
                                                ferrum_buffer_t *sorted, ferrum_buffer_t *block_ids,
                                                ferrum_buffer_t *total, uint32_t pairs,
                                                uint32_t num_experts, uint32_t block_size,
                                                uint32_t sorted_max, ferrum_error_t *err)
{
    const align_t align = {__func__, expert_ids,  sorted,     block_ids,  total,
                           pairs,    num_experts, block_size, sorted_max, false};
    return run_align(ctx, &align, err);
}

ferrum_status_t ferrum_cpu_moe_align_block_size_pair_ids(
    ferrum_context_t *ctx, const ferrum_buffer_t *expert_ids, ferrum_buffer_t *sorted,
    ferrum_buffer_t *block_ids, ferrum_buffer_t *total, uint32_t pairs, uint32_t num_experts,
    uint32_t block_size, uint32_t sorted_max, ferrum_error_t *err)
{
    const align_t align = {__func__, expert_ids,  sorted,     block_ids,  total,
                           pairs,    num_experts, block_size, sorted_max, true};
    return run_align(ctx, &align, err);
}

/** Launch triple for products with @p rows outputs: tiles of 32 pairs and 64 rows. */
static void fill_launch(uint32_t *out_args, uint32_t longest, uint32_t rows, uint32_t experts)
{
    out_args[0] = (longest > 1 ? longest - 1 : 0) / 32 + 1;
    out_args[1] = rows / 64 + (rows % 64 != 0);
    out_args[2] = experts;
}

ferrum_status_t ferrum_cpu_compute_ids_tpe(ferrum_context_t *ctx, const ferrum_buffer_t *selected,
                                           ferrum_buffer_t *tpe, ferrum_buffer_t *ids,
                                           ferrum_buffer_t *gate_up_args,
                                           ferrum_buffer_t *down_args, uint32_t batch,
                                           uint32_t num_experts, uint32_t top_k, uint32_t m_gate_up,
                                           uint32_t m_down, ferrum_error_t *err)
{
    const uint64_t pairs = ferrum_size_mul(batch, top_k);
    int32_t longest = 0;

    FERRUM_CPU_CHECK(ctx, err, {"selected", selected, FERRUM_DTYPE_I32, 0, pairs},
                     {"tpe", tpe, FERRUM_DTYPE_I32, 0, num_experts},
                     {"ids", ids, FERRUM_DTYPE_I32, 0, ferrum_size_mul(num_experts, pairs)},
                     {"gate_up_args", gate_up_args, FERRUM_DTYPE_U32, 0, 3},
                     {"down_args", down_args, FERRUM_DTYPE_U32, 0, 3});
    FERRUM_TRY(check_pair_count(__func__, pairs, err));

    const int32_t *chosen = ferrum_cpu_i32(selected);
    int32_t *lengths = ferrum_cpu_i32(tpe), *lists = ferrum_cpu_i32(ids);
    memset(lengths, 0, num_experts * sizeof *lengths);
    memset(lists, 0, (size_t)(num_experts * pairs) * sizeof *lists);
    for (uint32_t p = 0; p < pairs; p++) {
        if (!is_expert(chosen[p], num_experts))
            continue;
        int32_t *length = &lengths[chosen[p]];
        lists[(size_t)chosen[p] * pairs + (size_t)(*length)++] = (int32_t)p;
        longest = *length > longest ? *length : longest;
    }
    fill_launch(ferrum_cpu_u32(gate_up_args), (uint32_t)longest, m_gate_up, num_experts);
    fill_launch(ferrum_cpu_u32(down_args), (uint32_t)longest, m_down, num_experts);
    return FERRUM_OK;
}
