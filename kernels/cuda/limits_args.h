/* SPDX-License-Identifier: MIT */
/**
 * @file limits_args.h
 * @brief The parameter of the kernels that measure a device.
 */
#ifndef FERRUM_KERNELS_CUDA_LIMITS_ARGS_H
#define FERRUM_KERNELS_CUDA_LIMITS_ARGS_H

#include "kernels/cuda/args.h"

enum {
    FERRUM_LIMIT_THREADS = 256,
    FERRUM_LIMIT_CHAINS = 8 /**< matrix products under way in a warp, to hide their latency */
};

/** limit_*: one thread writes its result to out if it is @c impossible, which it never is. */
typedef struct ferrum_limit_args {
    ferrum_gpu_ptr_t data; /**< 16-byte vectors */
    ferrum_gpu_ptr_t out;  /**< u32 */
    uint64_t vectors;
    uint32_t steps; /**< products per chain */
    uint32_t impossible;
} ferrum_limit_args_t;

#endif
