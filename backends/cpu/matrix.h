/* SPDX-License-Identifier: MIT */
/**
 * @file matrix.h
 * @brief Weights as the backend holds them: matrices [n,k] of blocks or of GPTQ codes.
 *
 * A ferrum_cpu_weights_t owns E equal matrices: one for a Linear, all experts of one role for a
 * stack. They stay quantised. Where the device has packed kernels and the shape fits, weights are
 * packed into panels (kernels/packed.h) and their activations quantised. Otherwise block weights
 * are kept byte for byte (or pointed at, when mapped). GPTQ codes are sorted by group when g_idx
 * asks for it, zeros become what is subtracted, scales become f32.
 */
#ifndef FERRUM_CPU_MATRIX_H
#define FERRUM_CPU_MATRIX_H

#include "backends/cpu/objects.h"

#include <ferrum/quant_llm.h>

/** One matrix. Copies are shallow: the memory belongs to the ferrum_cpu_weights_t it came from. */
typedef struct ferrum_cpu_matrix {
    uint32_t n;
    uint32_t k;
    uint32_t out_column;      /**< where its outputs begin in a row of y */
    ferrum_matmul_fn *matmul; /**< blocks; NULL for GPTQ */
    const uint8_t *rows;
    size_t row_bytes;
    ferrum_gptq_matmul_fn *gptq_matmul;
    ferrum_gptq_matrix_t gptq;
    ferrum_packed_matrix_t packed;       /**< kind NONE: not packed, one of the forms above */
    ferrum_packed_precision_t precision; /**< of the activations of a packed matrix */
    uint32_t first_row;   /**< row of gptq or packed that is this matrix's row 0 (views) */
    const uint32_t *perm; /**< act-order: input i of the product is x[perm[i]]; NULL: x[i] */
    const float *bias;    /**< [n] or NULL */
} ferrum_cpu_matrix_t;

/** E equal matrices and the memory behind them. */
typedef struct ferrum_cpu_weights {
    uint32_t experts;
    uint32_t n;
    uint32_t k;
    uint32_t bits; /**< GPTQ, else 0 */
    ferrum_weight_format_t format;
    uint64_t source_bytes; /**< as given to the loader */
    bool permuted;         /**< some matrix has a perm */
    bool common_perm;      /**< all matrices have the same perm, or none has one */
    ferrum_packed_precision_t
        precision; /**< of the activations of packed matrices; 0: not packed */
    ferrum_cpu_matrix_t *matrices;
    ferrum_cpu_memory_t matrices_memory;
    ferrum_cpu_memory_t data;  /**< quantised weights; none when mapped or in others' room */
    ferrum_cpu_memory_t perms; /**< perm of packed matrices */
    ferrum_cpu_memory_t bias;
} ferrum_cpu_weights_t;

/** How weights are loaded. */
typedef struct ferrum_cpu_loading {
    ferrum_packed_precision_t precision; /**< 0: do not pack */
    bool leaves_room;                    /**< every other panel's place is left to other weights */
    const ferrum_cpu_weights_t *room;    /**< whose free places are used if they fit, or NULL */
} ferrum_cpu_loading_t;

/** This backend multiplies by a block format at K inputs; UNSUPPORTED with the reason if not. */
ferrum_status_t ferrum_cpu_check_block_problem(const ferrum_device_t *device,
                                               ferrum_weight_format_t format, uint32_t k,
                                               ferrum_error_t *err);

/** Whether blocks of a format and shape are packed by this device. */
bool ferrum_cpu_packs_blocks(const ferrum_device_t *device, ferrum_weight_format_t format,
                             uint32_t n, uint32_t k);
/** Load a slab of blocks. @p out_weights is overwritten; on failure nothing is held. */
ferrum_status_t ferrum_cpu_weights_from_gguf(const ferrum_device_t *device,
                                             const ferrum_gguf_weights_t *source,
                                             const ferrum_cpu_loading_t *loading,
                                             ferrum_cpu_weights_t *out_weights,
                                             ferrum_error_t *err);
/** Load @p count GPTQ matrices of equal shape; a matrix's own bias is kept. */
ferrum_status_t ferrum_cpu_weights_from_gptq(const ferrum_device_t *device,
                                             const ferrum_gptq_t *const *sources, uint32_t count,
                                             const ferrum_cpu_loading_t *loading,
                                             ferrum_cpu_weights_t *out_weights,
                                             ferrum_error_t *err);
/** Where the panels of all experts go: the place of the first one; completes @p shape. */
ferrum_status_t ferrum_cpu_weights_place(const ferrum_device_t *device,
                                         const ferrum_cpu_loading_t *loading,
                                         ferrum_cpu_weights_t *weights,
                                         ferrum_packed_matrix_t *shape, uint8_t **out_first,
                                         ferrum_error_t *err);
/** Error bound that products with these weights state. */
float ferrum_cpu_weights_error_bound(const ferrum_cpu_weights_t *weights);
/** Copy @p bias f32 [experts, n] (NULL: none) and let the matrices add it. */
ferrum_status_t ferrum_cpu_weights_set_bias(const ferrum_device_t *device,
                                            ferrum_cpu_weights_t *weights, const float *bias,
                                            ferrum_error_t *err);
/** Allocate the matrices array of @p weights, zeroed but for n and k. */
ferrum_status_t ferrum_cpu_weights_new_matrices(const ferrum_device_t *device,
                                                ferrum_cpu_weights_t *weights, ferrum_error_t *err);
/** Free what is held; all-zero weights are fine. */
void ferrum_cpu_weights_free(const ferrum_device_t *device, ferrum_cpu_weights_t *weights);
/** Bytes held for the weights. */
uint64_t ferrum_cpu_weights_bytes(const ferrum_cpu_weights_t *weights);

/**
 * `y[t*ldy + r] = sum_k W[row+r, k] * x_t[k] (+ bias[row+r])`, r < rows, t < tokens. Row x_t lies
 * at `x + t*x_stride` bytes: f32 in the matrix's own input order (already gathered by perm), or
 * quantised for a packed matrix.
 */
void ferrum_cpu_matrix_product(const ferrum_device_t *device, const ferrum_cpu_matrix_t *matrix,
                               uint32_t row, uint32_t rows, const void *x, size_t x_stride,
                               uint32_t tokens, float *y, size_t ldy);

#endif /* FERRUM_CPU_MATRIX_H */
