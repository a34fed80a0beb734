/* SPDX-License-Identifier: MIT */
/**
 * @file weights.h
 * @brief Random weights in every format, with the values that they stand for.
 */
#ifndef FERRUM_TEST_CPU_WEIGHTS_H
#define FERRUM_TEST_CPU_WEIGHTS_H

#include <ferrum/quant_llm.h>

#include <stdbool.h>

/** Block weights [experts, n, k]. */
typedef struct test_blocks {
    ferrum_gguf_weights_t desc;
    void *data;
    double *values; /**< decoded */
} test_blocks_t;

/** Random bytes with scales in a sane range. */
test_blocks_t test_blocks_new(ferrum_weight_format_t format, uint32_t experts, uint32_t n,
                              uint32_t k, uint64_t seed);
void test_blocks_free(test_blocks_t *blocks);

/** What a GPTQ matrix is like. */
typedef struct test_gptq_shape {
    uint32_t bits;
    uint32_t group_size;
    uint32_t k;
    uint32_t n;
    bool asymmetric;
    ferrum_zero_convention_t zero_convention;
    bool act_order;
    bool ragged; /**< act-order with groups of unequal size */
    ferrum_dtype_t scales_dtype;
    bool bias;
} test_gptq_shape_t;

/** A GPTQ matrix [n, k]. */
typedef struct test_gptq {
    ferrum_gptq_t desc;
    void *arrays[5]; /**< qweight, qzeros, scales, g_idx, bias */
    double *values;  /**< [n, k] */
} test_gptq_t;

test_gptq_t test_gptq_new(const test_gptq_shape_t *shape, uint64_t seed);
void test_gptq_free(test_gptq_t *gptq);

/** y[n] = W[n,k] x[k] (+ bias) in f64; bias may be NULL. */
void test_product(const double *w, uint32_t n, uint32_t k, const float *x, const float *bias,
                  double *out_y);

#endif /* FERRUM_TEST_CPU_WEIGHTS_H */
