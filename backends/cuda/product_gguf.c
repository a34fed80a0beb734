/* SPDX-License-Identifier: MIT */
/* Products over the tiles of kernels/cuda/gguf.cuh, with activations as they are or as int8. */
#include "backends/cuda/product.h"

/** The kernels of one number of rows per tile. */
typedef struct gguf_kernels {
    uint32_t rows;
    uint32_t outputs, threads; /**< of a block */
    ferrum_cuda_kernel_t product, gate_up;
} gguf_kernels_t;

#define TILE(family, rows, outputs, threads)                                                       \
    {                                                                                              \
        rows, outputs, threads, FERRUM_CUDA_KERNEL_##family##_##rows,                              \
            FERRUM_CUDA_KERNEL_##family##_gate_up_##rows                                           \
    }
static const gguf_kernels_t act_kernels[] = {TILE(gguf, 1, 16, 128), TILE(gguf, 8, 64, 128),
                                             TILE(gguf, 32, 64, 128)};
static const gguf_kernels_t int8_kernels[] = {TILE(int8, 1, 32, 256), TILE(int8, 8, 64, 128),
                                              TILE(int8, 32, 64, 128)};
#undef TILE

ferrum_status_t ferrum_cuda_product_gguf(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                         uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                         ferrum_error_t *err)
{
    const bool up = args->up.data != 0, int8 = args->w.layout == FERRUM_LAYOUT_GGUF_TILES_INT8;
    const gguf_kernels_t *kernels = int8 ? int8_kernels : act_kernels;
    ferrum_gguf_args_t gguf = {.product = *args,
                               .codes = {ferrum_cuda_gguf_codes(args->w.format, args->w.layout)}};

    if (up)
        gguf.codes[1] = ferrum_cuda_gguf_codes(args->up.format, args->up.layout);
    const uint32_t records = gguf.codes[0].record_bytes + gguf.codes[1].record_bytes;
    gguf.stage_bytes = int8 ? FERRUM_INT8_STAGE_BYTES(tile_rows, records)
                            : FERRUM_GGUF_STAGE_BYTES(tile_rows, records);
    while (kernels->rows != tile_rows)
        kernels++;
    /* Outputs in int8 are padded: down reads 64 at a time. */
    const uint64_t outputs = int8 && up ? 64 * ferrum_cuda_ceil(args->w.n, 64) : args->w.n;
    const ferrum_cuda_grid_t grid = {
        .x = tiles,
        .y = lists,
        .z = ferrum_cuda_ceil(outputs, kernels->outputs),
        .threads = kernels->threads,
        .shared_bytes = int8 ? (uint32_t)FERRUM_INT8_SHARED_BYTES(tile_rows, up, records)
                             : (uint32_t)FERRUM_GGUF_SHARED_BYTES(tile_rows, up, records),
    };
    return ferrum_cuda_launch(ctx, up ? kernels->gate_up : kernels->product, grid, &gguf, err);
}
