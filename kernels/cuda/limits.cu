/* SPDX-License-Identifier: MIT */
/*
 * What a device reaches at best, for benchmarks to compare with.
 *
 *   limit_fill       data[i] = something without a pattern
 *   limit_read       reads all of data once, LOADS vectors of 16 bytes under way per thread
 *   limit_multiply   CHAINS independent sums per warp of mma m16n8k16, operands in registers
 *   limit_multiply8  the same with mma m16n8k32 of signed bytes
 *
 * Blocks of 256 threads, any number of them. The condition on what is computed, which nobody but the
 * caller can know to be false, keeps the compiler from leaving the work out.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/limits_args.h"

enum : uint32_t {
    THREADS = FERRUM_LIMIT_THREADS,
    CHAINS = FERRUM_LIMIT_CHAINS,
    LOADS = 8
};

FERRUM_DEVICE uint32_t scramble(uint32_t x)
{
    x = (x ^ x >> 16) * 0x45d9f3bu;
    x = (x ^ x >> 16) * 0x45d9f3bu;
    return x ^ x >> 16;
}

FERRUM_DEVICE uint64_t global_thread()
{
    return uint64_t(gpu::block_x()) * THREADS + gpu::thread_x();
}

FERRUM_KERNEL(THREADS, ferrum_limit_fill, ferrum_limit_args_t args)
{
    gpu::vec16_t *data = static_cast<gpu::vec16_t *>(args.data);
    const uint64_t stride = uint64_t(gpu::grid_x()) * THREADS;

    for (uint64_t i = global_thread(); i < args.vectors; i += stride) {
        gpu::vec16_t v;
        FERRUM_UNROLL
        for (uint32_t j = 0; j < 4; j++)
            v.word[j] = scramble(uint32_t(i) * 4 + j);
        data[i] = v;
    }
}

FERRUM_DEVICE uint32_t mix(const gpu::vec16_t &v)
{
    return v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
}

FERRUM_KERNEL(THREADS, ferrum_limit_read, ferrum_limit_args_t args)
{
    const gpu::vec16_t *data = static_cast<const gpu::vec16_t *>(args.data);
    const uint64_t stride = uint64_t(gpu::grid_x()) * THREADS;
    uint64_t i = global_thread();
    uint32_t all = 0;

    for (; i + (LOADS - 1) * stride < args.vectors; i += LOADS * stride) {
        gpu::vec16_t v[LOADS];
        FERRUM_UNROLL
        for (uint32_t j = 0; j < LOADS; j++)
            v[j] = gpu::load_streaming(data + i + j * stride);
        FERRUM_UNROLL
        for (uint32_t j = 0; j < LOADS; j++)
            all ^= mix(v[j]);
    }
    for (; i < args.vectors; i += stride)
        all ^= mix(gpu::load_streaming(data + i));
    if (all == args.impossible)
        *static_cast<uint32_t *>(args.out) = all;
}

/** Two activations of either sign between 1/2 and 1. */
FERRUM_DEVICE uint32_t operand(gpu::f16_t, uint32_t seed)
{
    return (scramble(seed) & 0x83ff83ffu) | 0x38003800u;
}
FERRUM_DEVICE uint32_t operand(gpu::bf16_t, uint32_t seed)
{
    return (scramble(seed) & 0x807f807fu) | 0x3f003f00u;
}

template <class T> FERRUM_DEVICE void multiply(const ferrum_limit_args_t &args)
{
    const uint32_t seed = uint32_t(global_thread()) * 16;
    uint32_t a[4], b[CHAINS][2];
    float sum[CHAINS][4] = {}, all = 0;

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 4; i++)
        a[i] = operand(T(), seed + i);
    FERRUM_UNROLL
    for (uint32_t c = 0; c < CHAINS; c++)
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 2; i++)
            b[c][i] = operand(T(), seed * 3 + 2 * c + i);
    FERRUM_NO_UNROLL
    for (uint32_t step = 0; step < args.steps; step++)
        FERRUM_UNROLL
        for (uint32_t c = 0; c < CHAINS; c++)
            gpu::mma_m16n8k16<T>(sum[c], a, b[c]);
    FERRUM_UNROLL
    for (uint32_t c = 0; c < CHAINS; c++)
        all += sum[c][0] + sum[c][1] + sum[c][2] + sum[c][3];
    if (gpu::bit_cast<uint32_t>(all) == args.impossible)
        *static_cast<uint32_t *>(args.out) = 1;
}
FERRUM_KERNEL_INSTANCE(FERRUM_LIMIT_THREADS, ferrum_limit_multiply_f16, (multiply<gpu::f16_t>),
                       (ferrum_limit_args_t args), (args))
FERRUM_KERNEL_INSTANCE(FERRUM_LIMIT_THREADS, ferrum_limit_multiply_bf16, (multiply<gpu::bf16_t>),
                       (ferrum_limit_args_t args), (args))

FERRUM_KERNEL(THREADS, ferrum_limit_multiply8, ferrum_limit_args_t args)
{
    const uint32_t seed = uint32_t(global_thread()) * 16;
    uint32_t a[4], b[CHAINS][2], all = 0;
    int32_t sum[CHAINS][4] = {};

    FERRUM_UNROLL
    for (uint32_t i = 0; i < 4; i++)
        a[i] = scramble(seed + i);
    FERRUM_UNROLL
    for (uint32_t c = 0; c < CHAINS; c++)
        FERRUM_UNROLL
        for (uint32_t i = 0; i < 2; i++)
            b[c][i] = scramble(seed * 3 + 2 * c + i);
    FERRUM_NO_UNROLL
    for (uint32_t step = 0; step < args.steps; step++)
        FERRUM_UNROLL
        for (uint32_t c = 0; c < CHAINS; c++)
            gpu::mma_m16n8k32_s8(sum[c], a, b[c]);
    FERRUM_UNROLL
    for (uint32_t c = 0; c < CHAINS; c++)
        all ^= uint32_t(sum[c][0] ^ sum[c][1] ^ sum[c][2] ^ sum[c][3]);
    if (all == args.impossible)
        *static_cast<uint32_t *>(args.out) = 1;
}
