/* SPDX-License-Identifier: MIT */
/**
 * @file device_ptx_sm90.cuh
 * @brief Wrappers of what only sm_90a has; a part of device_ptx.cuh, with twins in
 * device_emu_sm90.cuh. device.cuh says what they do.
 */
#ifndef FERRUM_KERNELS_CUDA_DEVICE_PTX_SM90_CUH
#define FERRUM_KERNELS_CUDA_DEVICE_PTX_SM90_CUH

/** Head of a kernel for one block of @p threads threads per multiprocessor. */
#define FERRUM_KERNEL_SM90A(threads, name, ...)                                                    \
    FERRUM_KERNEL_OCCUPANCY(threads, 1, name, __VA_ARGS__)

namespace gpu
{
/* Barriers in shared memory. */
FERRUM_DEVICE void mbarrier_init(uint64_t *barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}
FERRUM_DEVICE void mbarrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}
FERRUM_DEVICE void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
/** try_wait suspends the thread for a time that the hardware limits; hence a loop. */
FERRUM_DEVICE void mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    uint32_t done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                     "selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    } while (!done);
}
FERRUM_DEVICE void fence_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

FERRUM_DEVICE void bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(shared_address(shared)),
        "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

/* Registers move between the warps of a block. */
template <uint32_t COUNT> FERRUM_DEVICE void registers_increase()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <uint32_t COUNT> FERRUM_DEVICE void registers_decrease()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* Products of a warpgroup. */
FERRUM_DEVICE void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
FERRUM_DEVICE void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <uint32_t PENDING> FERRUM_DEVICE void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define FERRUM_WGMMA_NAMES_32                                                                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "                  \
    "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FERRUM_WGMMA_NAMES_64                                                                      \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, "                  \
    "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                  \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "                  \
    "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "                  \
    "%62, %63"
#define FERRUM_WGMMA_SUMS_8(d, i)                                                                  \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define FERRUM_WGMMA_SUMS_32(d)                                                                    \
    FERRUM_WGMMA_SUMS_8(d, 0), FERRUM_WGMMA_SUMS_8(d, 8), FERRUM_WGMMA_SUMS_8(d, 16),              \
        FERRUM_WGMMA_SUMS_8(d, 24)
#define FERRUM_WGMMA_SUMS_64(d)                                                                    \
    FERRUM_WGMMA_SUMS_32(d), FERRUM_WGMMA_SUMS_8(d, 32), FERRUM_WGMMA_SUMS_8(d, 40),               \
        FERRUM_WGMMA_SUMS_8(d, 48), FERRUM_WGMMA_SUMS_8(d, 56)
FERRUM_DEVICE void wgmma_m64n64k16_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                       bool accumulate)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" FERRUM_WGMMA_NAMES_32 "}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
                 : FERRUM_WGMMA_SUMS_32(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(uint32_t(accumulate))
                 : "memory");
}
FERRUM_DEVICE void wgmma_m64n64k16_bf16(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                        bool accumulate)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; "
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FERRUM_WGMMA_NAMES_32
                 "}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
                 : FERRUM_WGMMA_SUMS_32(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(uint32_t(accumulate))
                 : "memory");
}
FERRUM_DEVICE void wgmma_m64n128k16_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                        bool accumulate)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FERRUM_WGMMA_NAMES_64 "}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
                 : FERRUM_WGMMA_SUMS_64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(uint32_t(accumulate))
                 : "memory");
}
FERRUM_DEVICE void wgmma_m64n128k16_bf16(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                         bool accumulate)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; "
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FERRUM_WGMMA_NAMES_64
                 "}, "
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
                 : FERRUM_WGMMA_SUMS_64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(uint32_t(accumulate))
                 : "memory");
}
#undef FERRUM_WGMMA_SUMS_64
#undef FERRUM_WGMMA_SUMS_32
#undef FERRUM_WGMMA_SUMS_8
#undef FERRUM_WGMMA_NAMES_64
#undef FERRUM_WGMMA_NAMES_32
} // namespace gpu

#endif
