/* SPDX-License-Identifier: MIT */
/* Products over the tiles of kernels/cuda/gguf.cuh. */
#include "backends/cuda/product.h"

enum {
    THREADS = 128
};

/** The kernels of one number of rows per tile. */
typedef struct gguf_kernels {
    uint32_t rows;
    uint32_t outputs; /**< per block */
    ferrum_cuda_kernel_t product, gate_up;
} gguf_kernels_t;

ferrum_status_t ferrum_cuda_product_gguf(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                         uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                         ferrum_error_t *err)
{
#define TILE(rows, outputs)                                                                        \
    {                                                                                              \
        rows, outputs, FERRUM_CUDA_KERNEL_gguf_##rows, FERRUM_CUDA_KERNEL_gguf_gate_up_##rows      \
    }
    static const gguf_kernels_t kernels[] = {TILE(1, 16), TILE(8, 64), TILE(32, 64)};
#undef TILE
    const bool up = args->up.data != 0, bfloat = ctx->device->act == FERRUM_DTYPE_BF16;
    ferrum_gguf_args_t gguf = {.product = *args,
                               .codes = {ferrum_cuda_gguf_codes(args->w.format, bfloat)}};
    size_t i = 0;

    if (up)
        gguf.codes[1] = ferrum_cuda_gguf_codes(args->up.format, bfloat);
    const uint32_t records = gguf.codes[0].record_bytes + gguf.codes[1].record_bytes;
    gguf.stage_bytes = FERRUM_GGUF_STAGE_BYTES(tile_rows, records);
    while (kernels[i].rows != tile_rows)
        i++;
    const ferrum_cuda_grid_t grid = {
        .x = tiles,
        .y = lists,
        .z = ferrum_cuda_ceil(args->w.n, kernels[i].outputs),
        .threads = THREADS,
        .shared_bytes = FERRUM_GGUF_SHARED_BYTES(tile_rows, up, records),
    };
    return ferrum_cuda_launch(ctx, up ? kernels[i].gate_up : kernels[i].product, grid, &gguf, err);
}
