/* SPDX-License-Identifier: MIT */
/**
 * @file device.cuh
 * @brief The one header that a CUDA kernel of Ferrum includes: its border with the machine.
 *
 * A `.cu` file is compiled twice: by nvcc for GPUs, and by g++ (C++17, -DFERRUM_CUDA_EMU) for the
 * emulated driver of tests/cuda_emu, where every CUDA thread is a fiber on the host. It works both
 * ways because kernels reach the machine only through this header (device_ptx.cuh has the PTX,
 * device_emu.cuh its emulated twins; tests/cuda_emu checks each pair's layout against a table).
 *
 * Rules for kernels; most are checked by the emulator, with the source line in the message:
 *   1. No `asm`, no CUDA built-in (threadIdx, __syncthreads, __shfl_*, atomicAdd, __half ...), no CUB,
 *      no cooperative groups: use the functions below. Something is missing? Add it to both twins.
 *   2. A kernel is an extern "C" function made by FERRUM_KERNEL (or FERRUM_KERNEL_INSTANCE), launched
 *      by name through the driver API. Parameters are passed by value: pointers, integers, floats and
 *      plain structs (same layout in C).
 *   3. Shared memory is dynamic only, through gpu::shared_memory<T>(offset_bytes); its content is
 *      undefined at the start. No `__shared__`, no static or global device variables.
 *   4. No implicit warp synchrony. Warp functions take an explicit mask; every lane in it must call
 *      the same function. Blocks have a multiple of 32 threads, gpu::thread_x() counts them, and a
 *      barrier() is reached by all of them: so a thread without work must not return before it.
 *   5. No spinning and no waiting for another block. Blocks run in any order, one after the other.
 *      The last of several blocks finds out by fence_device() + atomic_add() + fence_device().
 *   6. Atomics on integers only: float sums in a fixed order, the same on every run.
 *   7. Type-pun with gpu::bit_cast or memcpy; 16-byte accesses only on 16-byte aligned addresses. On a GPU
 *      memcpy goes by the alignment of the pointers' types: load vec16_t to load 16 bytes at once.
 *   8. copy_async lands at an unknown time until copy_async_wait *and* a barrier; both are needed.
 *   9. Tile sizes are template parameters: tests instantiate tiny tiles beside the shipped ones.
 *  10. Every output is written for every valid element; tests fill outputs with NaN before a launch.
 *
 * Example, y = a*x + y in f16, block of 256 threads, and its launch:
 *
 *     #include "kernels/cuda/device.cuh"
 *
 *     template <uint32_t THREADS>
 *     FERRUM_DEVICE void axpy(const gpu::f16_t *x, gpu::f16_t *y, float a, uint32_t count)
 *     {
 *         const uint32_t i = gpu::block_x() * THREADS + gpu::thread_x();
 *         if (i < count)
 *             y[i] = gpu::to_f16(gpu::fma(a, gpu::to_f32(x[i]), gpu::to_f32(y[i])));
 *     }
 *     FERRUM_KERNEL_INSTANCE(256, ferrum_axpy_f16_256, (axpy<256>),
 *                            (const gpu::f16_t *x, gpu::f16_t *y, float a, uint32_t count),
 *                            (x, y, a, count))
 *
 *     cuModuleGetFunction(&function, module, "ferrum_axpy_f16_256");
 *     CUdeviceptr x, y; float a; uint32_t count;
 *     void *params[] = {&x, &y, &a, &count};
 *     cuLaunchKernel(function, (count + 255) / 256, 1, 1, 256, 1, 1, 0, stream, params, NULL);
 *
 * Fragments of one warp, lane = 4*g + t (g = 0..7, t = 0..3); a register holds elements from its low
 * bits up (2 of f16/bf16, 4 of s8):
 *     m16n8k16  A a0: row g,   k 2t..2t+1   a1: row g+8, same k   a2: row g, k 2t+8..   a3: row g+8, k 2t+8..
 *               B b0: k 2t..2t+1, col g     b1: k 2t+8.., col g
 *     m16n8k32  A a0: row g,   k 4t..4t+3   a1: row g+8, same k   a2: row g, k 4t+16..  a3: row g+8, k 4t+16..
 *               B b0: k 4t..4t+3, col g     b1: k 4t+16.., col g
 *     C and D   c0, c1: row g, cols 2t, 2t+1                      c2, c3: row g+8, same columns
 *     wgmma m64nNk16 of 128 threads: warp w has rows 16w..16w+15 of A and D; A as above, D as N/8 C side by side
 *     ldmatrix  lane 8*i + r gives the address of row r of matrix i (8 rows of 16 bytes); register i of
 *               lane 4*g + t is row g, elements 2t, 2t+1 of matrix i (transposed: column g, rows 2t, 2t+1)
 */
#ifndef FERRUM_KERNELS_CUDA_DEVICE_CUH
#define FERRUM_KERNELS_CUDA_DEVICE_CUH

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace gpu
{
/** IEEE half and bfloat16 as they lie in memory; convert to float to compute. */
struct f16_t {
    uint16_t bits;
};
struct bf16_t {
    uint16_t bits;
};
/** 8 and 16 bytes moved at once. */
struct alignas(8) vec8_t {
    uint32_t word[2];
};
struct alignas(16) vec16_t {
    uint32_t word[4];
};
/** All 32 lanes of a warp. */
constexpr uint32_t full_mask = 0xffffffffu;
} // namespace gpu

#define FERRUM_STRIP_PARENTHESES(...) __VA_ARGS__

/**
 * Export one instantiation of a device function template as a kernel:
 * FERRUM_KERNEL_INSTANCE(threads, name, (function<...>), (parameters), (arguments)).
 */
#define FERRUM_KERNEL_INSTANCE(threads, name, function, parameters, arguments)                     \
    FERRUM_KERNEL(threads, name, FERRUM_STRIP_PARENTHESES parameters)                              \
    {                                                                                              \
        FERRUM_STRIP_PARENTHESES function arguments;                                               \
    }

#ifdef FERRUM_CUDA_EMU
#include "kernels/cuda/device_emu.cuh"
#else
#include "kernels/cuda/device_ptx.cuh"
#endif

namespace gpu
{
/** The bits of @p value as another type of the same size. */
template <class To, class From> FERRUM_DEVICE To bit_cast(const From &value)
{
    static_assert(sizeof(To) == sizeof(From), "bit_cast changes the size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

/** This thread's lane and the warp's number in a one-dimensional block. */
FERRUM_DEVICE uint32_t lane()
{
    return thread_x() & 31u;
}
FERRUM_DEVICE uint32_t warp()
{
    return thread_x() >> 5;
}

/** Lane whose value shuffle_* reads; lanes outside the segment of @p width lanes read their own. */
FERRUM_DEVICE uint32_t shuffle_up_source(uint32_t delta, uint32_t width)
{
    const uint32_t own = lane();
    return (own & (width - 1)) >= delta ? own - delta : own;
}
FERRUM_DEVICE uint32_t shuffle_down_source(uint32_t delta, uint32_t width)
{
    const uint32_t own = lane();
    return (own & (width - 1)) + delta < width ? own + delta : own;
}

/** Two values converted and packed: @p low in bits 0..15. */
FERRUM_DEVICE uint32_t pack_f16x2(float low, float high)
{
    return uint32_t(to_f16(low).bits) | uint32_t(to_f16(high).bits) << 16;
}
FERRUM_DEVICE uint32_t pack_bf16x2(float low, float high)
{
    return uint32_t(to_bf16(low).bits) | uint32_t(to_bf16(high).bits) << 16;
}

/** to_f32(value), from_f32<T>(value), mma_m16n8k16<T>: for templates over the activation type. */
FERRUM_DEVICE float to_f32(float value)
{
    return value;
}
template <class T> struct converter;
template <> struct converter<float> {
    static FERRUM_DEVICE_MEMBER float from(float value)
    {
        return value;
    }
};
template <> struct converter<f16_t> {
    static FERRUM_DEVICE_MEMBER f16_t from(float value)
    {
        return to_f16(value);
    }
    static FERRUM_DEVICE_MEMBER void mma(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2])
    {
        mma_m16n8k16_f16(d, a, b);
    }
};
template <> struct converter<bf16_t> {
    static FERRUM_DEVICE_MEMBER bf16_t from(float value)
    {
        return to_bf16(value);
    }
    static FERRUM_DEVICE_MEMBER void mma(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2])
    {
        mma_m16n8k16_bf16(d, a, b);
    }
};
template <class T> FERRUM_DEVICE T from_f32(float value)
{
    return converter<T>::from(value);
}

#ifdef FERRUM_DEVICE_SM90A
/*
 * Only in code for sm_90a, inside #ifdef FERRUM_DEVICE_SM90A. Threads that produce and threads that
 * consume meet at barriers in shared memory (`mbarrier_*`): a phase ends when all arrivals and all
 * expected bytes have come, and mbarrier_wait(barrier, parity) returns once the phase of that parity
 * (0, 1, 0, ...) has ended. It is a wait of the hardware's, for threads of this block only.
 *
 *   - One thread initialises, calls fence_async(), and all meet at barrier().
 *   - bulk_copy(shared, global, bytes, barrier): multiples of 16 bytes, for a barrier that expects
 *     them by mbarrier_arrive_expect(barrier, bytes).
 *   - What threads wrote (copy_async included) wgmma sees after their fence_async().
 *   - wgmma_fence(), any number of wgmma_m64nNk16_*(d, a, b, accumulate), wgmma_commit(), then
 *     wgmma_wait<n>(): at most n groups unfinished. Until then d and a belong to the hardware. All
 *     128 threads of a warpgroup do the same; b is a matrix in shared memory, see wgmma_operand.
 *   - registers_decrease / _increase<n>(): all warps of a warpgroup; what one gives another takes.
 */

/**
 * B for wgmma: rows (columns of B) of 64 elements, 128 bytes, from @p shared on; 8 rows are an atom of
 * 1024 bytes, at a multiple of that; 16-byte part p of row r lies at place p ^ r % 8. The k of an
 * instruction begin at 0, 32, 64 or 96 bytes into the first row: the hardware adds before it swaps.
 */
FERRUM_DEVICE uint64_t wgmma_operand(const void *shared)
{
    const uint64_t units = 16, stride = 1024 / units, swizzle_128_bytes = 1;
    return (shared_address(shared) & 0x3ffffu) / units | uint64_t(1) << 16 | stride << 32 |
           swizzle_128_bytes << 62;
}
#endif

/** d += a * b for the activation type T (f16_t or bf16_t). */
template <class T>
FERRUM_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    converter<T>::mma(d, a, b);
}

/** Sum and maximum over the lanes of a full warp, in a fixed (butterfly) order; every lane gets it. */
template <class T> FERRUM_DEVICE T warp_sum(T value)
{
    FERRUM_UNROLL
    for (uint32_t step = 16; step > 0; step >>= 1)
        value += shuffle_xor(full_mask, value, step);
    return value;
}
template <class T> FERRUM_DEVICE T warp_max(T value)
{
    FERRUM_UNROLL
    for (uint32_t step = 16; step > 0; step >>= 1) {
        const T other = shuffle_xor(full_mask, value, step);
        value = other > value ? other : value;
    }
    return value;
}
} // namespace gpu

#endif
