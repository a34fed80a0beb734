/* SPDX-License-Identifier: MIT */
/**
 * @file device.h
 * @brief The embedded kernels.
 */
#ifndef FERRUM_CUDA_DEVICE_H
#define FERRUM_CUDA_DEVICE_H

#include "backends/cuda/check.h"

/** One fatbin per module, by ferrum_cuda_module_t. */
extern const void *const ferrum_cuda_images[FERRUM_CUDA_MODULE_COUNT];

#endif /* FERRUM_CUDA_DEVICE_H */
