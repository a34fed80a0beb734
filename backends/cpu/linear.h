/* SPDX-License-Identifier: MIT */
/**
 * @file linear.h
 * @brief Linear: one or several matrices whose outputs lie side by side, or a view of a stack.
 */
#ifndef FERRUM_CPU_LINEAR_H
#define FERRUM_CPU_LINEAR_H

#include "backends/cpu/matrix.h"

struct ferrum_linear {
    atomic_uint refs;
    ferrum_device_t *device;
    uint32_t parts; /**< matrices, in order of their out_column */
    uint32_t n;
    uint32_t k;
    ferrum_weight_format_t format; /**< of the first part */
    uint32_t bits;
    float error_bound;                /**< the largest of its parts */
    ferrum_cpu_matrix_t *matrices;    /**< [parts] */
    ferrum_cpu_weights_t *weights;    /**< [parts], owned; NULL for a view */
    ferrum_marlin_stack_t *stack;     /**< what a view keeps alive, else NULL */
    ferrum_cpu_memory_t parts_memory; /**< both arrays */
    ferrum_cpu_memory_t bias;         /**< of a view */
};

/** A Linear with room for @p parts matrices; the caller fills them and n, k, format, bits. */
ferrum_status_t ferrum_cpu_linear_new(ferrum_device_t *device, uint32_t parts,
                                      ferrum_linear_t **out_linear, ferrum_error_t *err);

#endif /* FERRUM_CPU_LINEAR_H */
