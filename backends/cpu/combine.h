/* SPDX-License-Identifier: MIT */
/**
 * @file combine.h
 * @brief `out[t,:] = sum_j w[t,j] * slots[row(t,j),:]`, the one weighted sum of this backend.
 *
 * The sum starts at zero and runs in slot order, one axpy of the kernel set per slot, which is also
 * what scaled_add_inplace does; so every way to combine gives the same bits.
 */
#ifndef FERRUM_CPU_COMBINE_H
#define FERRUM_CPU_COMBINE_H

#include "backends/cpu/parallel.h"

enum {
    FERRUM_CPU_COMBINE_COLUMNS = 512
};

/** Operands of a combination. */
typedef struct ferrum_cpu_combine {
    const ferrum_vector_ops_t *vector;
    const float *slots; /**< [rows, hidden] */
    const int32_t
        *rows; /**< [batch, top_k], negative: skipped; NULL: row of (t, j) is t*top_k + j */
    const float *weights; /**< [batch, top_k] */
    float *out;           /**< [batch, hidden] */
    uint32_t batch;
    uint32_t top_k;
    uint32_t hidden;
    bool accumulate; /**< add the sum to out */
} ferrum_cpu_combine_t;

/** Items of a combination: (token, block of FERRUM_CPU_COMBINE_COLUMNS columns). */
static inline uint64_t ferrum_cpu_combine_items(const ferrum_cpu_combine_t *combine)
{
    return combine->batch * ferrum_cpu_blocks(combine->hidden, FERRUM_CPU_COMBINE_COLUMNS);
}

/** One item; a ferrum_cpu_item_fn whose argument is the ferrum_cpu_combine_t. */
void ferrum_cpu_combine_item(void *arg, uint64_t item, uint32_t thread);

#endif /* FERRUM_CPU_COMBINE_H */
