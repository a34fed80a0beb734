/* SPDX-License-Identifier: MIT */
/* The dense product of activations with a matrix in a buffer: our kernels, or cuBLASLt if asked
 * for. */
#include "backends/cuda/check.h"
#include "backends/cuda/cublaslt.h"
#include "backends/cuda/entries.h"
#include "kernels/cuda/args.h"

/** A kernel of gemm.cu: its tile, and when it is taken. */
typedef struct tile {
    ferrum_cuda_kernel_t kernel;
    uint32_t most_rows; /**< m for which it is taken */
    uint32_t bm, bn, bk;
    uint32_t threads;
} tile_t;

static const tile_t tiles[] = {
    {FERRUM_CUDA_KERNEL_gemm_small, 32, 16, 64, 64, 128},
    {FERRUM_CUDA_KERNEL_gemm_large, UINT32_MAX, 128, 128, 32, 256},
};

ferrum_status_t ferrum_cuda_gemm(ferrum_context_t *ctx, const ferrum_buffer_t *a,
                                 const ferrum_buffer_t *b, ferrum_buffer_t *out, uint32_t m,
                                 uint32_t n, uint32_t k, ferrum_error_t *err)
{
    enum {
        ACT_BYTES = 2,
        PAD = 8,
        STAGES = 2
    };
    const tile_t *tile = tiles;
    bool done;

    FERRUM_CUDA_CHECK(ctx, err, {"a", a, FERRUM_CUDA_ACT, 0, ferrum_size_mul(m, k)},
                      {"b", b, FERRUM_CUDA_ACT, 0, ferrum_size_mul(n, k)},
                      {"out", out, FERRUM_CUDA_ACT, 0, ferrum_size_mul(m, n)});
    const ferrum_gemm_args_t args = {.a = ferrum_cuda_at(a, 0),
                                     .b = ferrum_cuda_at(b, 0),
                                     .out = ferrum_cuda_at(out, 0),
                                     .m = m,
                                     .n = n,
                                     .k = k};
    FERRUM_TRY(ferrum_cuda_cublaslt_gemm(ctx, &args, &done, err));
    if (done)
        return FERRUM_OK;
    while (m > tile->most_rows)
        tile++;
    const ferrum_cuda_grid_t grid = {ferrum_cuda_ceil(n, tile->bn), ferrum_cuda_ceil(m, tile->bm),
                                     1, tile->threads,
                                     STAGES * (tile->bm + tile->bn) * (tile->bk + PAD) * ACT_BYTES};
    return ferrum_cuda_launch(ctx, tile->kernel, grid, &args, err);
}
