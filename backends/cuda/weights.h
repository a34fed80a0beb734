/* SPDX-License-Identifier: MIT */
/**
 * @file weights.h
 * @brief Quantised weights in device memory: one matrix, or a stack of equal ones.
 *
 * Block formats are kept as in the file, except that the expert FFN has most of them in tiles for
 * the matrix units (kernels/cuda/gguf.cuh). GPTQ codes are brought into the layouts W4 and W8 of
 * kernels/cuda/moe_args.h: along the inputs instead of across them, zeros as what is subtracted,
 * scales in f32. Act-order costs a table: the group of each input, looked up while decoding. The
 * expert FFN has 4-bit codes in tiles for the matrix units instead, where they fit (w4_order.h).
 */
#ifndef FERRUM_CUDA_WEIGHTS_H
#define FERRUM_CUDA_WEIGHTS_H

#include "backends/cuda/check.h"
#include "backends/cuda/tile_choice.h"
#include "backends/cuda/w4_order.h"
#include "kernels/cuda/moe_args.h"

typedef struct ferrum_cuda_weights {
    uint32_t experts;
    uint32_t n, k;
    uint32_t bits; /**< GPTQ, else 0 */
    ferrum_weight_format_t format;
    uint64_t bytes;        /**< of device memory */
    uint64_t source_bytes; /**< as given to the loader */
    ferrum_cuda_memory_t *memory;
    ferrum_cuda_memory_t *bias; /**< or NULL */
    ferrum_gpu_weights_t gpu;
} ferrum_cuda_weights_t;

/** This backend multiplies by a block format at K inputs; UNSUPPORTED with the reason if not. */
ferrum_status_t ferrum_cuda_check_block_problem(ferrum_weight_format_t format, uint32_t k,
                                                ferrum_error_t *err);

/** Load a slab of blocks. @p out_weights is overwritten; on failure nothing is held. @p tiles: in
 *  this layout FERRUM_LAYOUT_GGUF_TILES_* if there are tiles for the format; 0: as in the file. */
ferrum_status_t ferrum_cuda_weights_from_gguf(ferrum_device_t *device,
                                              const ferrum_gguf_weights_t *source, uint32_t tiles,
                                              ferrum_cuda_weights_t *out_weights,
                                              ferrum_error_t *err);
/** There are tiles for a block format; what their kernels need to know of it. */
bool ferrum_cuda_gguf_fits(ferrum_weight_format_t format);
ferrum_gguf_codes_t ferrum_cuda_gguf_codes(ferrum_weight_format_t format, uint32_t layout);
/** Bring a checked slab into them; @p weights has its shape. */
ferrum_status_t ferrum_cuda_gguf_load(ferrum_device_t *device, const ferrum_gguf_weights_t *source,
                                      uint32_t layout, ferrum_cuda_weights_t *weights,
                                      ferrum_error_t *err);
/** It is in them. */
static inline bool ferrum_cuda_gguf_tiled(const ferrum_gpu_weights_t *weights)
{
    return weights->layout == FERRUM_LAYOUT_GGUF_TILES_F16 ||
           weights->layout == FERRUM_LAYOUT_GGUF_TILES_BF16 ||
           weights->layout == FERRUM_LAYOUT_GGUF_TILES_INT8;
}
/** Load @p count GPTQ matrices of equal shape; a matrix's own bias is kept. @p tiles: in the tiled
 *  layout, which fits them, and in this order; NULL: in rows. */
ferrum_status_t ferrum_cuda_weights_from_gptq(ferrum_device_t *device,
                                              const ferrum_gptq_t *const *sources, uint32_t count,
                                              const ferrum_cuda_w4_order_t *tiles,
                                              ferrum_cuda_weights_t *out_weights,
                                              ferrum_error_t *err);
/** Checked matrices can have the tiled layout: 4 bits, scales f16 or bf16, groups of 32, of a
 *  multiple of 64 or of all inputs; in act-order, each group whole. */
bool ferrum_cuda_w4_fits(const ferrum_gptq_t *const *sources, uint32_t count);
/** Bring them into it; @p weights has its shape. */
ferrum_status_t ferrum_cuda_w4_load(ferrum_device_t *device, const ferrum_gptq_t *const *sources,
                                    const ferrum_cuda_w4_order_t *order,
                                    ferrum_cuda_weights_t *weights, ferrum_error_t *err);
/** As ferrum_cuda_weights_set_bias, for outputs in the order @p outputs [experts, n], or NULL. */
ferrum_status_t ferrum_cuda_w4_set_bias(ferrum_device_t *device, ferrum_cuda_weights_t *weights,
                                        const float *bias, const uint16_t *outputs,
                                        ferrum_error_t *err);
/** They have it. */
static inline bool ferrum_cuda_w4_tiled(const ferrum_gpu_weights_t *weights)
{
    return weights->layout == FERRUM_LAYOUT_W4_TILES_F16 ||
           weights->layout == FERRUM_LAYOUT_W4_TILES_BF16;
}
/** Their kernels are those of the matrix units. */
static inline bool ferrum_cuda_tiled(const ferrum_gpu_weights_t *weights)
{
    return ferrum_cuda_w4_tiled(weights) || ferrum_cuda_gguf_tiled(weights);
}
static inline ferrum_cuda_tile_family_t ferrum_cuda_tile_family(const ferrum_gpu_weights_t *weights)
{
    return ferrum_cuda_w4_tiled(weights)     ? FERRUM_CUDA_TILES_W4
           : ferrum_cuda_gguf_tiled(weights) ? FERRUM_CUDA_TILES_GGUF
                                             : FERRUM_CUDA_TILES_ROWS;
}
/** Copy @p bias f32 [experts, n] (NULL: none) and let products add it. */
ferrum_status_t ferrum_cuda_weights_set_bias(ferrum_device_t *device,
                                             ferrum_cuda_weights_t *weights, const float *bias,
                                             ferrum_error_t *err);
/** Free what they hold. */
void ferrum_cuda_weights_free(ferrum_cuda_weights_t *weights);
/** A capture in flight depends on them. */
ferrum_status_t ferrum_cuda_weights_note(ferrum_context_t *ctx,
                                         const ferrum_cuda_weights_t *weights, ferrum_error_t *err);
/** Stated error of products, before rounding to act: sums are f32, weights are decoded in f32. */
float ferrum_cuda_error_bound(const ferrum_device_t *device);

#endif /* FERRUM_CUDA_WEIGHTS_H */
