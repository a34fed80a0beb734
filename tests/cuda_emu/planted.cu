/* SPDX-License-Identifier: MIT */
/* Kernels with bugs that the emulator must name; see planted.sh. */
#include "kernels/cuda/device.cuh"

FERRUM_KERNEL(64, planted_write_beyond, uint32_t *out, uint32_t count)
{
    out[gpu::thread_x()] = 63 - gpu::thread_x();
    if (gpu::thread_x() == 63)
        out[count] = 7;
}

FERRUM_KERNEL(64, planted_early_return, uint32_t *out)
{
    if (gpu::thread_x() == 63)
        return;
    gpu::barrier();
    out[gpu::thread_x()] = 1;
}

FERRUM_KERNEL(64, planted_divergent_barrier, uint32_t *out)
{
    if (gpu::thread_x() < 32)
        gpu::barrier();
    else
        gpu::barrier();
    out[gpu::thread_x()] = 1;
}

FERRUM_KERNEL(64, planted_absent_lane, uint32_t *out)
{
    if (gpu::lane() < 16)
        out[gpu::thread_x()] = gpu::ballot(gpu::full_mask, true);
}

FERRUM_KERNEL(64, planted_mixed_meeting, uint32_t *out)
{
    if (gpu::lane() < 16)
        out[gpu::thread_x()] = gpu::ballot(gpu::full_mask, true);
    else
        out[gpu::thread_x()] = gpu::shuffle(gpu::full_mask, 1u, 0);
}

/* The reader of a neighbour's value needs a barrier. */
FERRUM_KERNEL(64, planted_no_barrier, uint32_t *out)
{
    uint32_t *shared = gpu::shared_memory<uint32_t>();

    shared[gpu::thread_x()] = gpu::thread_x();
    out[gpu::thread_x()] = shared[63 - gpu::thread_x()];
}

/* Lanes do not wait for each other either. */
FERRUM_KERNEL(32, planted_no_warp_barrier, uint32_t *out)
{
    uint32_t *shared = gpu::shared_memory<uint32_t>();

    shared[gpu::lane()] = gpu::lane();
    out[gpu::lane()] = shared[31 - gpu::lane()];
}

/* A ticket without fences: the last block may not see what others wrote. */
FERRUM_KERNEL(32, planted_no_fence, uint32_t *partial, uint32_t *ticket, uint32_t *out)
{
    if (gpu::lane() == 0) {
        partial[gpu::block_x()] = gpu::block_x();
        if (gpu::atomic_add(ticket, 1u) + 1 == gpu::grid_x())
            *out = partial[0] + partial[1];
    }
}

FERRUM_KERNEL(32, planted_shared_overrun, uint32_t *out)
{
    uint32_t *shared = gpu::shared_memory<uint32_t>();

    shared[gpu::lane() + 1] = 1;
    gpu::barrier();
    out[gpu::lane()] = shared[gpu::lane()];
}
