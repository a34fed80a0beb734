/* SPDX-License-Identifier: MIT */
/**
 * @file layer.h
 * @brief One layer of routed experts, its routing, and its result in f64.
 */
#ifndef FERRUM_TEST_CPU_LAYER_H
#define FERRUM_TEST_CPU_LAYER_H

#include "tests/cpu/fixture.h"
#include "tests/cpu/weights.h"

enum {
    E = 6,
    H = 256,
    I = 512,
    T = 37,
    K = 3,
    P = T * K
};

/** Expert of a pair: with duplicates in a row, skipped pairs, an expert that nobody asks for and
 * one that is crowded. */
int32_t layer_id(int pair);
ferrum_buffer_t *layer_ids(cpu_fixture_t *f);
/** Not negative, as routing weights are: an expert that is listed twice does not cancel itself. */
ferrum_buffer_t *layer_weights(cpu_fixture_t *f);
/** Small enough for gate and up to lie where activations are neither flat nor clamped throughout.
 */
ferrum_buffer_t *layer_input(cpu_fixture_t *f);

/** A layer with GGUF or GPTQ roles, ready for the granular ops and for expert_ffn. */
typedef struct layer {
    bool gptq;
    test_blocks_t blocks[3];
    test_gptq_t matrices[3][E];
    const ferrum_gptq_t *descs[3][E];
    float *bias[3];
    ferrum_expert_weights_t roles[3];
    ferrum_expert_ffn_desc_t desc;
} layer_t;

/** Outputs of a role: 0 gate, 1 up, 2 down. */
uint32_t layer_rows(int role);

/** Roles in different formats; with act-order, both widths and zero points when @p gptq. */
void layer_init(layer_t *layer, bool gptq, bool biased);
/** Gate and up in one format; no act-order. */
void layer_init_alike(layer_t *layer, bool gptq, bool biased);
void layer_free(layer_t *layer);

/** The FFN of T tokens in f64, pairs of experts outside [first, end) left out; free() it. */
double *layer_reference(const layer_t *layer, const float *x, const float *w, int first, int end);

#endif /* FERRUM_TEST_CPU_LAYER_H */
