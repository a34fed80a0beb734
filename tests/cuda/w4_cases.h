/* SPDX-License-Identifier: MIT */
/**
 * @file w4_cases.h
 * @brief Products over tiled 4-bit weights, packed here by the description of w4.cuh: launches of
 * any of the kernels over them, and sums in double over the same codes.
 */
#ifndef FERRUM_TESTS_CUDA_W4_CASES_H
#define FERRUM_TESTS_CUDA_W4_CASES_H

#include <stdbool.h>

#include "backends/cuda/driver_api.h"

enum {
    W4_EXPERTS = 3, /**< the middle one gets no pair */
    W4_TOP_K = 2,
    W4_MAX_TOKENS = 150,
    W4_MAX_PAIRS = W4_MAX_TOKENS * W4_TOP_K,
    W4_MAX_K = 448,
    W4_MAX_N = 144,
    W4_MAX_BYTES = W4_MAX_PAIRS * W4_MAX_N * 4 /**< of the outputs of a case */
};

typedef struct w4_shape {
    uint32_t n, k, group; /**< group 0: one for all inputs */
    bool bfloat, bfloat_scales;
    bool act_order; /**< each expert has its inputs in another order */
} w4_shape_t;

/** One matrix per expert, as numbers and as they lie on the device. */
typedef struct w4_weights {
    double value[W4_EXPERTS][W4_MAX_N][W4_MAX_K];
    CUdeviceptr codes, scales;
    uint32_t groups;
} w4_weights_t;

typedef struct w4_case {
    const w4_shape_t *shape;
    uint32_t tokens, pairs;
    bool gate_up;
    w4_weights_t w, up;
    uint16_t inputs[W4_EXPERTS][W4_MAX_K]; /**< at each place of a matrix */
    double x_value[W4_MAX_TOKENS][W4_MAX_K];
    CUdeviceptr order;
    CUdeviceptr x, odd; /**< the same twice, at a multiple of 16 bytes and 2 further */
    CUdeviceptr out;    /**< [pairs][n]: f32, or act for gate and up */
    size_t out_bytes;
} w4_case_t;

/** A kernel and its launch. */
typedef struct w4_kernel {
    const char *family; /**< ferrum_<family>_<rows>_<act>, with _gate_up before the rows */
    uint32_t rows;      /**< of a tile */
    uint32_t outputs;   /**< of a block, and for gate and up */
    uint32_t gate_up_outputs;
    uint32_t threads;
    uint32_t shared_bytes, gate_up_shared_bytes;
} w4_kernel_t;

/** Random weights and inputs; on the device until w4_case_free. */
void w4_case_make(w4_case_t *c, const w4_shape_t *shape, uint32_t tokens, bool gate_up);
void w4_case_free(const w4_case_t *c);

/** One launch over all pairs. Some pairs have no expert: @p out keeps NaN there. */
void w4_case_run(const w4_case_t *c, const w4_kernel_t *kernel, bool odd, unsigned char *out);

/** Fails unless ||out - expected|| / ||expected|| is small in every row. */
void w4_case_check(const w4_case_t *c, const unsigned char *out);

#endif /* FERRUM_TESTS_CUDA_W4_CASES_H */
