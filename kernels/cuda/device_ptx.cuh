/* SPDX-License-Identifier: MIT */
/**
 * @file device_ptx.cuh
 * @brief The GPU side of device.cuh: the only file with PTX and CUDA built-ins.
 *
 * Each function has a twin of the same name in device_emu.cuh. `volatile` and the "memory" clobber
 * stand where an instruction touches memory that the compiler does not see.
 */
#ifndef FERRUM_KERNELS_CUDA_DEVICE_PTX_CUH
#define FERRUM_KERNELS_CUDA_DEVICE_PTX_CUH

#define FERRUM_DEVICE static __device__ __forceinline__
#define FERRUM_DEVICE_MEMBER __device__ __forceinline__
#define FERRUM_UNROLL _Pragma("unroll")
#define FERRUM_NO_UNROLL _Pragma("unroll 1")

/** Head of a kernel for blocks of at most @p threads threads; a body in braces follows. */
#define FERRUM_KERNEL(threads, name, ...)                                                          \
    extern "C" __global__ void __launch_bounds__(threads) name(__VA_ARGS__)
/** The same, and registers are limited so that @p blocks blocks fit on a multiprocessor. */
#define FERRUM_KERNEL_OCCUPANCY(threads, blocks, name, ...)                                        \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)

extern __shared__ __align__(1024) unsigned char ferrum_dynamic_shared[];

namespace gpu
{
/* Indices. */
FERRUM_DEVICE uint32_t thread_x()
{
    return threadIdx.x;
}
FERRUM_DEVICE uint32_t thread_y()
{
    return threadIdx.y;
}
FERRUM_DEVICE uint32_t block_x()
{
    return blockIdx.x;
}
FERRUM_DEVICE uint32_t block_y()
{
    return blockIdx.y;
}
FERRUM_DEVICE uint32_t block_z()
{
    return blockIdx.z;
}
FERRUM_DEVICE uint32_t block_threads()
{
    return blockDim.x;
}
FERRUM_DEVICE uint32_t grid_x()
{
    return gridDim.x;
}
FERRUM_DEVICE uint32_t grid_y()
{
    return gridDim.y;
}
FERRUM_DEVICE uint32_t grid_z()
{
    return gridDim.z;
}

/** Dynamic shared memory of this block, @p offset_bytes from its start (1024-byte aligned). */
template <class T> FERRUM_DEVICE T *shared_memory(size_t offset_bytes = 0)
{
    return reinterpret_cast<T *>(ferrum_dynamic_shared + offset_bytes);
}
FERRUM_DEVICE uint32_t shared_address(const void *pointer)
{
    return uint32_t(__cvta_generic_to_shared(pointer));
}

/* Barriers and fences. */

/** All threads of the block. */
FERRUM_DEVICE void barrier()
{
    __syncthreads();
}
/** Barrier @p id (1..15) of @p threads threads (a multiple of 32), some of which only arrive. */
FERRUM_DEVICE void named_barrier_sync(uint32_t id, uint32_t threads)
{
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FERRUM_DEVICE void named_barrier_arrive(uint32_t id, uint32_t threads)
{
    asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FERRUM_DEVICE void warp_barrier(uint32_t mask)
{
    __syncwarp(mask);
}
/** Order this thread's writes for its block, or for the whole device. */
FERRUM_DEVICE void fence_block()
{
    __threadfence_block();
}
FERRUM_DEVICE void fence_device()
{
    __threadfence();
}

/* Warp functions. T is a 4- or 8-byte type. */
FERRUM_DEVICE uint32_t ballot(uint32_t mask, bool predicate)
{
    return __ballot_sync(mask, predicate);
}
FERRUM_DEVICE uint32_t match_any(uint32_t mask, uint32_t value)
{
    return __match_any_sync(mask, value);
}
template <class T> FERRUM_DEVICE T shuffle(uint32_t mask, T value, uint32_t source_lane)
{
    return __shfl_sync(mask, value, int(source_lane));
}
template <class T> FERRUM_DEVICE T shuffle_xor(uint32_t mask, T value, uint32_t lane_mask)
{
    return __shfl_xor_sync(mask, value, int(lane_mask));
}
template <class T>
FERRUM_DEVICE T shuffle_up(uint32_t mask, T value, uint32_t delta, uint32_t width = 32)
{
    return __shfl_up_sync(mask, value, delta, int(width));
}
template <class T>
FERRUM_DEVICE T shuffle_down(uint32_t mask, T value, uint32_t delta, uint32_t width = 32)
{
    return __shfl_down_sync(mask, value, delta, int(width));
}

/* Matrices: all 32 lanes take part. Layouts are in device.cuh. */
FERRUM_DEVICE void ldmatrix_x1(uint32_t (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}
FERRUM_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
FERRUM_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
FERRUM_DEVICE void ldmatrix_trans_x1(uint32_t (&r)[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}
FERRUM_DEVICE void ldmatrix_trans_x2(uint32_t (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
FERRUM_DEVICE void ldmatrix_trans_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/** d += a * b, f16 or bf16 operands, f32 sums. */
FERRUM_DEVICE void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
FERRUM_DEVICE void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/** d += a * b, signed bytes, s32 sums (wrapping). */
FERRUM_DEVICE void mma_m16n8k32_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/** d = a * b + @p start: an operand of its own, not what was moved to d before. */
FERRUM_DEVICE void mma_m16n8k32_s8_from(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                        int32_t start)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(start));
}

/* Asynchronous copies from global to shared memory, both aligned to BYTES (4, 8 or 16). */

/** Copy @p source_bytes (0..BYTES) bytes and fill the rest with zeros. With 0, @p global is not read. */
template <int BYTES>
FERRUM_DEVICE void copy_async_zfill(void *shared, const void *global, uint32_t source_bytes)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "copies are of 4, 8 or 16 bytes");
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                     "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)),
                     "l"(__cvta_generic_to_global(global)), "n"(BYTES), "r"(source_bytes)
                     : "memory");
    }
}
template <int BYTES> FERRUM_DEVICE void copy_async(void *shared, const void *global)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "copies are of 4, 8 or 16 bytes");
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
                     "l"(__cvta_generic_to_global(global))
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)),
                     "l"(__cvta_generic_to_global(global)), "n"(BYTES)
                     : "memory");
    }
}
/** Close this thread's group of copies (it may be empty). */
FERRUM_DEVICE void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/** Wait until at most @p PENDING of this thread's latest groups are unfinished. */
template <int PENDING> FERRUM_DEVICE void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/** Read-only data that is used once (weights): do not keep it in L1. 16-byte aligned. */
FERRUM_DEVICE vec16_t load_streaming(const void *global)
{
    vec16_t v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
                 : "l"(__cvta_generic_to_global(global)));
    return v;
}

/* Conversions, round to nearest even. */
FERRUM_DEVICE float to_f32(f16_t value)
{
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
FERRUM_DEVICE float to_f32(bf16_t value)
{
    return __uint_as_float(uint32_t(value.bits) << 16);
}
FERRUM_DEVICE f16_t to_f16(float value)
{
    f16_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
FERRUM_DEVICE bf16_t to_bf16(float value)
{
    bf16_t result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}

/* Packed pairs: each half rounded once. */
FERRUM_DEVICE uint32_t f16x2_sub(uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
FERRUM_DEVICE uint32_t f16x2_mul(uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
FERRUM_DEVICE uint32_t f16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
FERRUM_DEVICE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

/* Integers. */

/** c + sum of four products of signed bytes. */
FERRUM_DEVICE int32_t dp4a(uint32_t a, uint32_t b, int32_t c)
{
    return __dp4a(int32_t(a), int32_t(b), c);
}
/** Bitwise function of three words; LUT = the same function of 0xf0, 0xcc and 0xaa. */
template <uint32_t LUT> FERRUM_DEVICE uint32_t lop3(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(r) : "r"(a), "r"(b), "r"(c), "n"(LUT));
    return r;
}
/** Four bytes picked out of the eight of (b:a); selector nibble i is the byte for place i. */
FERRUM_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector)
{
    return __byte_perm(a, b, selector);
}
FERRUM_DEVICE uint32_t count_bits(uint32_t value)
{
    return uint32_t(__popc(value));
}
/** Place of the lowest bit that is set; 32 for 0. */
FERRUM_DEVICE uint32_t lowest_bit(uint32_t value)
{
    return value == 0 ? 32u : uint32_t(__ffs(int(value))) - 1u;
}

/* Integer atomics (relaxed, whole device); they return the old value. */
FERRUM_DEVICE uint32_t atomic_add(uint32_t *address, uint32_t value)
{
    return atomicAdd(address, value);
}
FERRUM_DEVICE int32_t atomic_add(int32_t *address, int32_t value)
{
    return atomicAdd(address, value);
}
FERRUM_DEVICE uint32_t atomic_max(uint32_t *address, uint32_t value)
{
    return atomicMax(address, value);
}
FERRUM_DEVICE uint32_t atomic_or(uint32_t *address, uint32_t value)
{
    return atomicOr(address, value);
}
FERRUM_DEVICE uint32_t atomic_exchange(uint32_t *address, uint32_t value)
{
    return atomicExch(address, value);
}
FERRUM_DEVICE uint64_t atomic_max(uint64_t *address, uint64_t value)
{
    return atomicMax(reinterpret_cast<unsigned long long *>(address), (unsigned long long)value);
}

/* f32 arithmetic that must be the same expression on both sides. */
FERRUM_DEVICE float fma(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}
FERRUM_DEVICE float exp(float x)
{
    return ::expf(x);
}
FERRUM_DEVICE float log(float x)
{
    return ::logf(x);
}
FERRUM_DEVICE float tanh(float x)
{
    return ::tanhf(x);
}
FERRUM_DEVICE float erf(float x)
{
    return ::erff(x);
}
FERRUM_DEVICE float pow(float x, float y)
{
    return ::powf(x, y);
}
FERRUM_DEVICE float sin(float x)
{
    return ::sinf(x);
}
FERRUM_DEVICE float cos(float x)
{
    return ::cosf(x);
}
FERRUM_DEVICE float sqrt(float x)
{
    return __fsqrt_rn(x);
}
FERRUM_DEVICE float divide(float a, float b)
{
    return __fdiv_rn(a, b);
}
/** Round to the nearest integer, ties to even. */
FERRUM_DEVICE int32_t round_to_int(float x)
{
    return __float2int_rn(x);
}
FERRUM_DEVICE bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}
} // namespace gpu

/* Defined where the instructions of sm_90a exist: in its own pass of the compiler. */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define FERRUM_DEVICE_SM90A 1
#include "kernels/cuda/device_ptx_sm90.cuh"
#endif

#endif
