/* SPDX-License-Identifier: MIT */
/**
 * @file limits.h
 * @brief The interface that measures the device.
 */
#ifndef FERRUM_CUDA_LIMITS_H
#define FERRUM_CUDA_LIMITS_H

#include <ferrum/limits.h>

/** ferrum_limits_ops_t.measure */
ferrum_status_t ferrum_cuda_limits_measure(ferrum_context_t *ctx, ferrum_limits_t *out_limits,
                                           ferrum_error_t *err);

#endif /* FERRUM_CUDA_LIMITS_H */
