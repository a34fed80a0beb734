/* SPDX-License-Identifier: MIT */
/**
 * @file linear.h
 * @brief Linear: one or several matrices whose outputs lie side by side, or a view of a stack.
 */
#ifndef FERRUM_CUDA_LINEAR_H
#define FERRUM_CUDA_LINEAR_H

#include "backends/cuda/weights.h"

struct ferrum_linear {
    atomic_uint refs;
    ferrum_device_t *device;
    uint32_t parts;
    uint32_t n, k;
    ferrum_weight_format_t format; /**< of the first part */
    uint32_t bits;
    ferrum_cuda_weights_t *weights; /**< [parts]; a view's does not own its memory */
    ferrum_marlin_stack_t *stack;   /**< what a view keeps alive, else NULL */
    ferrum_cuda_memory_t *bias;     /**< of a view */
};

/** A Linear with room for @p parts matrices; the caller fills them and n, k, format, bits. */
ferrum_status_t ferrum_cuda_linear_new(ferrum_device_t *device, uint32_t parts,
                                       ferrum_linear_t **out_linear, ferrum_error_t *err);

#endif /* FERRUM_CUDA_LINEAR_H */
