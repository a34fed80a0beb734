/* SPDX-License-Identifier: MIT */
#include "backends/cpu/sequences.h"

ferrum_status_t ferrum_cpu_sequences_from(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_buffer_t *cu_seqlens,
                                          const ferrum_buffer_t *pos_offsets,
                                          const ferrum_buffer_t *block_tables, uint32_t count,
                                          uint32_t tokens, uint32_t max_blocks,
                                          ferrum_cpu_sequences_t *out_sequences,
                                          ferrum_error_t *err)
{
    const ferrum_cpu_operand_t operands[] = {
        {"cu_seqlens", cu_seqlens, FERRUM_DTYPE_I32, 0, (uint64_t)count + 1},
        {"pos_offsets", pos_offsets, FERRUM_DTYPE_I32, 0, count},
        {"block_tables", block_tables, FERRUM_DTYPE_I32, 0, ferrum_size_mul(count, max_blocks)}};
    FERRUM_TRY(ferrum_cpu_check_operands(function, ctx, operands, 3, err));
    ferrum_cpu_sequences_t sequences = {.cu_seqlens = ferrum_cpu_i32(cu_seqlens),
                                        .pos_offsets = ferrum_cpu_i32(pos_offsets),
                                        .tables = ferrum_cpu_i32(block_tables),
                                        .count = count};
    const int32_t *cu = sequences.cu_seqlens;

    FERRUM_TRY(ferrum_cpu_check_ids(function, "pos_offsets", sequences.pos_offsets, count, 0,
                                    (int64_t)INT32_MAX + 1, err));
    for (uint32_t s = 0; s < count; s++)
        if (cu[s + 1] < cu[s])
            return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                               "%s: cu_seqlens falls from %d to %d at sequence %u",
                               ferrum_op_name(function), cu[s], cu[s + 1], s);
    if (cu[0] != 0 || (int64_t)cu[count] != (int64_t)tokens)
        return ferrum_fail(err, FERRUM_INVALID_INPUT, FERRUM_REASON_RANGE,
                           "%s: cu_seqlens runs from %d to %d, expected 0 to %u",
                           ferrum_op_name(function), cu[0], cu[count], tokens);
    for (uint32_t s = 0; s < count; s++) {
        const uint64_t end = ferrum_cpu_sequence_end(&sequences, s);
        if (cu[s + 1] > cu[s] && end > sequences.longest)
            sequences.longest = end;
    }
    *out_sequences = sequences;
    return FERRUM_OK;
}
