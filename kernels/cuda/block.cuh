/* SPDX-License-Identifier: MIT */
/**
 * @file block.cuh
 * @brief Reductions over a block, in a fixed order, and loads of what may be act or f32.
 */
#ifndef FERRUM_KERNELS_CUDA_BLOCK_CUH
#define FERRUM_KERNELS_CUDA_BLOCK_CUH

#include "kernels/cuda/device.cuh"

namespace gpu
{
/**
 * Sum over the block; every thread gets it. @p scratch: block_threads()/32 floats of shared memory
 * that nothing else uses until the next barrier.
 */
FERRUM_DEVICE float block_sum(float value, float *scratch)
{
    const uint32_t warps = block_threads() / 32;
    float sum = 0.0f;

    value = warp_sum(value);
    if (lane() == 0)
        scratch[warp()] = value;
    barrier();
    for (uint32_t i = 0; i < warps; i++)
        sum += scratch[i];
    return sum;
}

/** Element @p index of an array of f32 or of T. */
template <class T> FERRUM_DEVICE float load_either(const void *array, bool is_f32, size_t index)
{
    return is_f32 ? static_cast<const float *>(array)[index]
                  : to_f32(static_cast<const T *>(array)[index]);
}

/** x / (1 + e^-x) */
FERRUM_DEVICE float silu(float x)
{
    return divide(x, 1.0f + exp(-x));
}
} // namespace gpu

#endif
