/* SPDX-License-Identifier: MIT */
/**
 * @file device_emu_sm90.cuh
 * @brief The emulated side of device_ptx_sm90.cuh; a part of device_emu.cuh.
 *
 * The state of barriers is the emulator's. Their 8 bytes are written and read all the same, so that
 * the race detector sees an initialisation that was not waited for.
 */
#ifndef FERRUM_KERNELS_CUDA_DEVICE_EMU_SM90_CUH
#define FERRUM_KERNELS_CUDA_DEVICE_EMU_SM90_CUH

/* There is no such kernel on devices of another generation. */
#define FERRUM_KERNEL_SM90A(threads, name, ...) FERRUM_KERNEL_FOR(90, threads, name, __VA_ARGS__)

namespace gpu
{
namespace emu
{
inline void touch(uint64_t *barrier)
{
    (void)*static_cast<volatile uint64_t *>(barrier);
}
} // namespace emu
FERRUM_DEVICE void mbarrier_init(uint64_t *barrier, uint32_t arrivals, FERRUM_EMU_SITE)
{
    ferrum_emu_mbarrier_init(barrier, arrivals, file, line);
    *static_cast<volatile uint64_t *>(barrier) = arrivals;
}
FERRUM_DEVICE void mbarrier_arrive_expect(uint64_t *barrier, uint32_t bytes, FERRUM_EMU_SITE)
{
    emu::touch(barrier);
    ferrum_emu_mbarrier_arrive(barrier, bytes, file, line);
}
FERRUM_DEVICE void mbarrier_arrive(uint64_t *barrier, FERRUM_EMU_SITE)
{
    mbarrier_arrive_expect(barrier, 0, file, line);
}
FERRUM_DEVICE void mbarrier_wait(uint64_t *barrier, uint32_t parity, FERRUM_EMU_SITE)
{
    emu::touch(barrier);
    ferrum_emu_mbarrier_wait(barrier, parity, file, line);
}
FERRUM_DEVICE void fence_async()
{
    ferrum_emu_fence_async();
}

FERRUM_DEVICE void bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *barrier,
                             FERRUM_EMU_SITE)
{
    const ferrum_emu_bulk_t copy = {static_cast<unsigned char *>(shared),
                                    static_cast<const unsigned char *>(global), bytes, barrier};
    emu::touch(barrier);
    if (ferrum_emu_bulk_issue(&copy, file, line)) {
        for (uint32_t i = 0; i < bytes; i += 16)
            memcpy(copy.shared + i, copy.global + i, 16);
        ferrum_emu_bulk_landed(&copy);
    }
}

template <uint32_t COUNT> FERRUM_DEVICE void registers_increase()
{
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "registers come in eights");
}
template <uint32_t COUNT> FERRUM_DEVICE void registers_decrease()
{
    static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "registers come in eights");
}

namespace emu
{
/** Every thread of the warpgroup reads its part of B; the last one to come computes for all. */
inline void wgmma_run(const ferrum_emu_wgmma_t &op)
{
    uint32_t words[FERRUM_EMU_WGMMA_WORDS];

    for (uint32_t i = 0; i < op.n / 64; i++)
        memcpy(words + 4 * i, ferrum_emu_wgmma_chunk(&op, i), 16);
    ferrum_emu_wgmma_run(&op, words);
}
inline void wgmma(const ferrum_emu_wgmma_t &op)
{
    ferrum_emu_wgmma_t next;

    if (ferrum_emu_wgmma_issue(&op))
        while (ferrum_emu_wgmma_next(FERRUM_EMU_WGMMA_ALL, &next))
            wgmma_run(next);
}
} // namespace emu
FERRUM_DEVICE void wgmma_fence()
{
    ferrum_emu_wgmma_fence();
}
FERRUM_DEVICE void wgmma_commit()
{
    ferrum_emu_wgmma_commit();
}
template <uint32_t PENDING> FERRUM_DEVICE void wgmma_wait()
{
    ferrum_emu_wgmma_t next;

    while (ferrum_emu_wgmma_next(PENDING, &next))
        emu::wgmma_run(next);
    ferrum_emu_wgmma_waited(PENDING);
}
FERRUM_DEVICE void wgmma_m64n64k16_f16(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                       bool accumulate, FERRUM_EMU_SITE)
{
    emu::wgmma({a, b, d, 64, FERRUM_EMU_MMA_F16, accumulate, 0, file, line});
}
FERRUM_DEVICE void wgmma_m64n64k16_bf16(float (&d)[32], const uint32_t (&a)[4], uint64_t b,
                                        bool accumulate, FERRUM_EMU_SITE)
{
    emu::wgmma({a, b, d, 64, FERRUM_EMU_MMA_BF16, accumulate, 0, file, line});
}
FERRUM_DEVICE void wgmma_m64n128k16_f16(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                        bool accumulate, FERRUM_EMU_SITE)
{
    emu::wgmma({a, b, d, 128, FERRUM_EMU_MMA_F16, accumulate, 0, file, line});
}
FERRUM_DEVICE void wgmma_m64n128k16_bf16(float (&d)[64], const uint32_t (&a)[4], uint64_t b,
                                         bool accumulate, FERRUM_EMU_SITE)
{
    emu::wgmma({a, b, d, 128, FERRUM_EMU_MMA_BF16, accumulate, 0, file, line});
}
} // namespace gpu

#endif
