/* SPDX-License-Identifier: MIT */
/**
 * @file device.h
 * @brief The embedded kernels.
 */
#ifndef FERRUM_CUDA_DEVICE_H
#define FERRUM_CUDA_DEVICE_H

#include "backends/cuda/check.h"

/** The fatbin with every kernel. */
extern const unsigned char ferrum_cuda_image[] __attribute__((visibility("hidden")));

#endif /* FERRUM_CUDA_DEVICE_H */
