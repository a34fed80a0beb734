/* SPDX-License-Identifier: MIT */
/**
 * @file product.h
 * @brief The one launch behind every quantised product: which kernel, which grid.
 */
#ifndef FERRUM_CUDA_PRODUCT_H
#define FERRUM_CUDA_PRODUCT_H

#include "backends/cuda/weights.h"

/** Rows of a tile for products of @p rows rows with one matrix: 1, 8 or 32. */
uint32_t ferrum_cuda_tile_rows(uint64_t rows);

/**
 * Launch @p args over @p tiles tiles of @p tile_rows rows for each of @p lists lists or dispatches
 * (1 in other modes); gate_up when args->up has data. Nothing to do is success.
 */
ferrum_status_t ferrum_cuda_product(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                    uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                    ferrum_error_t *err);

/** The same by the warpgroup kernels, for tiled 4-bit weights and tiles of 64 or 128 rows: on
 * devices with `wgmma` set. */
ferrum_status_t ferrum_cuda_product_wgmma(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                          uint32_t tile_rows, uint64_t tiles, ferrum_error_t *err);

/** The same for weights in the tiles of a block format, of which there are of 1, 8 and 32 rows.
 * With tiles for int8, x and the output of gate_up are rows of int8. */
ferrum_status_t ferrum_cuda_product_gguf(ferrum_context_t *ctx, const ferrum_product_args_t *args,
                                         uint32_t tile_rows, uint64_t tiles, uint32_t lists,
                                         ferrum_error_t *err);

/** Launch @p dispatches over consecutive rows, in one launch for each FERRUM_DISPATCHES of them. */
ferrum_status_t ferrum_cuda_product_dispatches(ferrum_context_t *ctx,
                                               const ferrum_product_args_t *args,
                                               const ferrum_moe_dispatch_t *dispatches,
                                               uint32_t count, ferrum_error_t *err);

/** The f32 sum of `count` = batch*hidden outputs; see ferrum_combine_args_t. */
ferrum_status_t ferrum_cuda_combine(ferrum_context_t *ctx, const ferrum_combine_args_t *args,
                                    ferrum_error_t *err);

/** The order of pairs by expert; UNSUPPORTED when there are too many experts to plan for. */
ferrum_status_t ferrum_cuda_plan(ferrum_context_t *ctx, const ferrum_plan_args_t *args,
                                 ferrum_error_t *err);

/** Rows of x as int8, by @p args without its plan, and with it, unless NULL, @p plan as above. */
ferrum_status_t ferrum_cuda_plan_quantise(ferrum_context_t *ctx, const ferrum_plan_args_t *plan,
                                          const ferrum_quantise_args_t *args, ferrum_error_t *err);

/** Where kernels note bad data, zeroed; context_sync reports what they noted. */
ferrum_status_t ferrum_cuda_fault_word(ferrum_context_t *ctx, CUdeviceptr *out_fault,
                                       ferrum_error_t *err);

/** Pairs are counted in an i32, as every index that is made of it. */
ferrum_status_t ferrum_cuda_check_pair_count(const char *function, uint64_t pairs,
                                             ferrum_error_t *err);

#endif /* FERRUM_CUDA_PRODUCT_H */
