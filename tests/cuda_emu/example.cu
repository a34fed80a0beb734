/* SPDX-License-Identifier: MIT */
/*
 * Example kernels, shaped like real ones: a double-buffered tile product (copy_async, ldmatrix, mma)
 * that the tests also run with planted bugs, chosen by the parameter `bug`.
 */
#include "kernels/cuda/device.cuh"

/* Planted bugs. */
enum {
    NO_BUG,
    NO_BARRIER_AFTER_WAIT, /* other threads' copies may not have landed */
    NO_BARRIER_AT_END,     /* a buffer is refilled while it is read */
    NO_WAIT,               /* copies are never waited for */
    OVERRUN                /* thread 127 copies one row too far */
};

/*
 * C[16*m .., N] = A[M, K] * B[N, K]^T for one block of 16 rows and 8 * WARPS columns, T = f16 or bf16,
 * K a multiple of TILE_K (a multiple of 16). Warp w has columns 8*w .. 8*w+7 of the tile.
 */
template <class T, uint32_t WARPS, uint32_t TILE_K>
FERRUM_DEVICE void tile_product(const T *a, const T *b, float *c, uint32_t n, uint32_t k,
                                uint32_t bug)
{
    constexpr uint32_t threads = 32 * WARPS;
    constexpr uint32_t rows_a = 16, rows_b = 8 * WARPS;
    constexpr uint32_t pitch = TILE_K + 8; /* spreads rows over the banks */
    constexpr uint32_t chunks = TILE_K / 8;
    constexpr uint32_t stage = (rows_a + rows_b) * pitch;
    static_assert(TILE_K % 16 == 0, "a tile has whole k steps");
    T *shared = gpu::shared_memory<T>();
    const uint32_t thread = gpu::thread_x(), lane = gpu::lane(), warp = gpu::warp();
    const T *a_tile = a + size_t(gpu::block_y()) * rows_a * k;
    const T *b_tile = b + size_t(gpu::block_x()) * rows_b * k;
    float sum[4] = {0, 0, 0, 0};

    const auto load = [&](uint32_t tile) {
        T *to = shared + (tile & 1u) * stage;
        for (uint32_t i = thread; i < (rows_a + rows_b) * chunks; i += threads) {
            const uint32_t row = i / chunks, column = i % chunks * 8;
            const uint32_t shift = bug == OVERRUN && tile == 0 && thread == 127 ? 4 * k : 0;
            const T *from = row < rows_a ? a_tile + size_t(row) * k
                                         : b_tile + size_t(row - rows_a + shift) * k;
            gpu::copy_async<16>(to + row * pitch + column, from + tile * TILE_K + column);
        }
        gpu::copy_async_commit();
    };

    const uint32_t tiles = k / TILE_K;
    load(0);
    for (uint32_t tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            load(tile + 1);
        else
            gpu::copy_async_commit();
        if (bug != NO_WAIT)
            gpu::copy_async_wait<1>();
        if (bug != NO_BARRIER_AFTER_WAIT)
            gpu::barrier();
        const T *tile_a = shared + (tile & 1u) * stage;
        const T *tile_b = tile_a + rows_a * pitch;
        for (uint32_t step = 0; step < TILE_K; step += 16) {
            uint32_t fragment_a[4], fragment_b[2];
            gpu::ldmatrix_x4(fragment_a, tile_a + (lane & 15u) * pitch + step + (lane >> 4) * 8);
            gpu::ldmatrix_x2(fragment_b, tile_b + (warp * 8 + (lane & 7u)) * pitch + step +
                                             (lane >> 3 & 1u) * 8);
            gpu::mma_m16n8k16<T>(sum, fragment_a, fragment_b);
        }
        if (bug != NO_BARRIER_AT_END)
            gpu::barrier();
    }
    const uint32_t row = gpu::block_y() * 16 + lane / 4;
    const uint32_t column = gpu::block_x() * rows_b + warp * 8 + lane % 4 * 2;
    for (uint32_t i = 0; i < 4; i++)
        c[size_t(row + i / 2 * 8) * n + column + i % 2] = sum[i];
}

FERRUM_KERNEL_INSTANCE(128, example_product_f16, (tile_product<gpu::f16_t, 4, 32>),
                       (const gpu::f16_t *a, const gpu::f16_t *b, float *c, uint32_t n, uint32_t k,
                        uint32_t bug),
                       (a, b, c, n, k, bug))
FERRUM_KERNEL_INSTANCE(64, example_product_bf16, (tile_product<gpu::bf16_t, 2, 64>),
                       (const gpu::bf16_t *a, const gpu::bf16_t *b, float *c, uint32_t n,
                        uint32_t k, uint32_t bug),
                       (a, b, c, n, k, bug))
