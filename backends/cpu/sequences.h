/* SPDX-License-Identifier: MIT */
/**
 * @file sequences.h
 * @brief The sequences of a mixed batch: which tokens each owns, where it starts, its block table.
 */
#ifndef FERRUM_CPU_SEQUENCES_H
#define FERRUM_CPU_SEQUENCES_H

#include "backends/cpu/check.h"

/** Checked arrays of a mixed batch. */
typedef struct ferrum_cpu_sequences {
    const int32_t *cu_seqlens;  /**< [count + 1], from 0, not falling */
    const int32_t *pos_offsets; /**< [count], not negative */
    const int32_t *tables;      /**< [count, max_blocks] */
    uint32_t count;
    uint64_t longest; /**< largest position + 1 */
} ferrum_cpu_sequences_t;

/** Check buffers and contents; what is wrong with the contents is INVALID_INPUT. */
ferrum_status_t ferrum_cpu_sequences_from(const char *function, const ferrum_context_t *ctx,
                                          const ferrum_buffer_t *cu_seqlens,
                                          const ferrum_buffer_t *pos_offsets,
                                          const ferrum_buffer_t *block_tables, uint32_t count,
                                          uint32_t tokens, uint32_t max_blocks,
                                          ferrum_cpu_sequences_t *out_sequences,
                                          ferrum_error_t *err);

/** Position after the last token of sequence @p s. */
static inline uint64_t ferrum_cpu_sequence_end(const ferrum_cpu_sequences_t *sequences, uint32_t s)
{
    return (uint64_t)sequences->pos_offsets[s] +
           (uint64_t)(sequences->cu_seqlens[s + 1] - sequences->cu_seqlens[s]);
}

#endif /* FERRUM_CPU_SEQUENCES_H */
