/* SPDX-License-Identifier: MIT */
/*
 * gemm_small, gemm_large: out[m,n] = a[m,k] * b[n,k]^T, f16 or bf16 with f32 sums (mma m16n8k16).
 *
 * Block (x, y): rows y*BM .. of a and x*BN .. of b; WM x WN warps, each with a tile of BM/WM x BN/WN.
 * Tiles of BK columns are double-buffered in shared memory by copy_async; what lies outside of a, b or
 * k is filled with zeros. An output is summed over k in steps of 16 from 0 on, whatever the tile, so a
 * row has the same bits in every batch.
 *
 * Preconditions: m, n > 0; grid (ceil(n/BN), ceil(m/BM)), WM*WN*32 threads, 2*(BM+BN)*(BK+8)*2 bytes of
 * shared memory. With k a multiple of 8 rows are copied 16 bytes at a time, else element by element.
 */
#include "kernels/cuda/args.h"
#include "kernels/cuda/device.cuh"

template <class T, uint32_t BM, uint32_t BN, uint32_t BK, uint32_t WM, uint32_t WN> struct gemm {
    static constexpr uint32_t threads = 32 * WM * WN;
    static constexpr uint32_t pitch = BK + 8; /* spreads rows over the banks */
    static constexpr uint32_t stage = (BM + BN) * pitch;
    static constexpr uint32_t mi = BM / WM / 16, ni = BN / WN / 8;
    static_assert(BK % 16 == 0 && BM % (16 * WM) == 0 && BN % (8 * WN) == 0, "whole fragments");

    /** Rows first.. of a [rows, k] matrix, columns column.. : ROWS x BK elements to shared. */
    template <uint32_t ROWS>
    static FERRUM_DEVICE_MEMBER void load(T *shared, const T *matrix, uint32_t rows, uint32_t k,
                                          uint32_t first, uint32_t column)
    {
        if (k % 8 == 0) {
            constexpr uint32_t chunks = BK / 8;
            for (uint32_t i = gpu::thread_x(); i < ROWS * chunks; i += threads) {
                const uint32_t row = i / chunks, at = i % chunks * 8;
                const bool inside = first + row < rows && column + at < k;
                const T *from = inside ? matrix + size_t(first + row) * k + column + at : matrix;
                gpu::copy_async_zfill<16>(shared + row * pitch + at, from, inside ? 16 : 0);
            }
        } else {
            for (uint32_t i = gpu::thread_x(); i < ROWS * BK; i += threads) {
                const uint32_t row = i / BK, at = i % BK;
                const bool inside = first + row < rows && column + at < k;
                shared[row * pitch + at] =
                    inside ? matrix[size_t(first + row) * k + column + at] : gpu::from_f32<T>(0.0f);
            }
        }
    }

    static FERRUM_DEVICE_MEMBER void load_tile(const ferrum_gemm_args_t &args, uint32_t tile)
    {
        T *shared = gpu::shared_memory<T>() + (tile & 1u) * stage;
        load<BM>(shared, static_cast<const T *>(args.a), args.m, args.k, gpu::block_y() * BM,
                 tile * BK);
        load<BN>(shared + BM * pitch, static_cast<const T *>(args.b), args.n, args.k,
                 gpu::block_x() * BN, tile * BK);
        gpu::copy_async_commit();
    }

    static FERRUM_DEVICE_MEMBER void multiply_tile(uint32_t tile, float (&sum)[mi][ni][4])
    {
        const uint32_t lane = gpu::lane(), warp = gpu::warp();
        const T *a = gpu::shared_memory<T>() + (tile & 1u) * stage + warp / WN * (BM / WM) * pitch;
        const T *b = gpu::shared_memory<T>() + (tile & 1u) * stage + BM * pitch +
                     warp % WN * (BN / WN) * pitch;

        FERRUM_UNROLL
        for (uint32_t step = 0; step < BK; step += 16) {
            uint32_t fa[mi][4], fb[ni][2];
            FERRUM_UNROLL
            for (uint32_t i = 0; i < mi; i++)
                gpu::ldmatrix_x4(fa[i],
                                 a + (i * 16 + (lane & 15u)) * pitch + step + (lane >> 4) * 8);
            FERRUM_UNROLL
            for (uint32_t j = 0; j < ni; j++)
                gpu::ldmatrix_x2(fb[j],
                                 b + (j * 8 + (lane & 7u)) * pitch + step + (lane >> 3 & 1u) * 8);
            FERRUM_UNROLL
            for (uint32_t i = 0; i < mi; i++)
                FERRUM_UNROLL
                for (uint32_t j = 0; j < ni; j++)
                    gpu::mma_m16n8k16<T>(sum[i][j], fa[i], fb[j]);
        }
    }

    static FERRUM_DEVICE_MEMBER void store(const ferrum_gemm_args_t &args,
                                           const float (&sum)[mi][ni][4])
    {
        const uint32_t lane = gpu::lane(), warp = gpu::warp();
        const uint32_t row0 = gpu::block_y() * BM + warp / WN * (BM / WM) + lane / 4;
        const uint32_t column0 = gpu::block_x() * BN + warp % WN * (BN / WN) + lane % 4 * 2;
        T *out = static_cast<T *>(args.out);

        FERRUM_UNROLL
        for (uint32_t i = 0; i < mi; i++)
            FERRUM_UNROLL
            for (uint32_t j = 0; j < ni; j++)
                FERRUM_UNROLL
                for (uint32_t c = 0; c < 4; c++) {
                    const uint32_t row = row0 + i * 16 + c / 2 * 8, column = column0 + j * 8 + c % 2;
                    if (row < args.m && column < args.n)
                        out[size_t(row) * args.n + column] = gpu::from_f32<T>(sum[i][j][c]);
                }
    }

    static FERRUM_DEVICE_MEMBER void run(const ferrum_gemm_args_t &args)
    {
        const uint32_t tiles = (args.k + BK - 1) / BK;
        float sum[mi][ni][4] = {};

        if (tiles > 0)
            load_tile(args, 0);
        for (uint32_t tile = 0; tile < tiles; tile++) {
            if (tile + 1 < tiles)
                load_tile(args, tile + 1);
            else
                gpu::copy_async_commit();
            gpu::copy_async_wait<1>();
            gpu::barrier();
            multiply_tile(tile, sum);
            gpu::barrier();
        }
        store(args, sum);
    }
};

FERRUM_KERNEL_INSTANCE(128, ferrum_gemm_small_f16, (gemm<gpu::f16_t, 16, 64, 64, 1, 4>::run),
                       (ferrum_gemm_args_t args), (args))
FERRUM_KERNEL_INSTANCE(128, ferrum_gemm_small_bf16, (gemm<gpu::bf16_t, 16, 64, 64, 1, 4>::run),
                       (ferrum_gemm_args_t args), (args))
FERRUM_KERNEL_INSTANCE(256, ferrum_gemm_large_f16, (gemm<gpu::f16_t, 128, 128, 32, 2, 4>::run),
                       (ferrum_gemm_args_t args), (args))
FERRUM_KERNEL_INSTANCE(256, ferrum_gemm_large_bf16, (gemm<gpu::bf16_t, 128, 128, 32, 2, 4>::run),
                       (ferrum_gemm_args_t args), (args))
