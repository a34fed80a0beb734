/* SPDX-License-Identifier: MIT */
/**
 * @file gptq_weights.h
 * @brief One GPTQ matrix in the form that kernels read; gptq_stack.c puts several side by side.
 */
#ifndef FERRUM_CPU_GPTQ_WEIGHTS_H
#define FERRUM_CPU_GPTQ_WEIGHTS_H

#include "backends/common/gptq.h"
#include "backends/cpu/matrix.h"

/** Bytes of each part of a matrix, in the order they lie in memory but for zeros, which are last.
 */
typedef struct ferrum_cpu_gptq_layout {
    uint32_t groups;
    uint64_t scales_bytes;
    uint64_t codes_bytes; /**< 0: the codes are used where they are mapped */
    uint64_t group_end_bytes;
    uint64_t perm_bytes; /**< 0: no act-order */
    uint64_t zeros_bytes;
} ferrum_cpu_gptq_layout_t;

/** Zero points fit in their bits, which is not so for each value of the other convention. */
ferrum_status_t ferrum_cpu_check_gptq_zeros(const ferrum_gptq_t *source, ferrum_error_t *err);

/** Whether K-rows must be reordered: g_idx falls somewhere. */
bool ferrum_cpu_gptq_is_permuted(const ferrum_gptq_t *source);

/** Sizes of a checked matrix. */
ferrum_cpu_gptq_layout_t ferrum_cpu_gptq_layout(const ferrum_gptq_t *source);

/** Bytes of all parts, rounded up to a cache line. */
static inline uint64_t ferrum_cpu_gptq_layout_bytes(const ferrum_cpu_gptq_layout_t *layout)
{
    const uint64_t bytes = layout->scales_bytes + layout->codes_bytes + layout->group_end_bytes +
                           layout->perm_bytes + layout->zeros_bytes;
    return (bytes + 63) / 64 * 64;
}

/** Fill @p memory (that many bytes, 64-byte aligned) and describe it. */
void ferrum_cpu_gptq_fill(const ferrum_gptq_t *source, const ferrum_cpu_gptq_layout_t *layout,
                          void *memory, ferrum_gptq_matrix_t *out_matrix,
                          const uint32_t **out_perm);

#endif /* FERRUM_CPU_GPTQ_WEIGHTS_H */
