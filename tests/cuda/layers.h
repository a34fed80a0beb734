/* SPDX-License-Identifier: MIT */
/**
 * @file layers.h
 * @brief One layer of routed experts with weights whose values are known, its inputs, and its
 * result in f64.
 */
#ifndef FERRUM_TEST_CUDA_LAYERS_H
#define FERRUM_TEST_CUDA_LAYERS_H

#include "tests/cuda/fixture.h"

/** What a layer is like: GPTQ 4-bit groups of 32 with zero points, or Q8_0. */
typedef struct layer_shape {
    bool gptq;
    uint32_t experts, hidden, intermediate, top_k; /**< sizes are multiples of 32 */
} layer_shape_t;

/** What else GPTQ matrices can be like; all false in layer_make. */
typedef struct layer_gptq {
    bool f16_scales;
    bool act_order;    /**< groups lie anywhere, in each expert elsewhere, in gate as in up */
    bool orders_apart; /**< and in up elsewhere than in gate */
    bool biases;       /**< of all three roles */
} layer_gptq_t;

typedef struct layer {
    layer_shape_t shape;
    layer_gptq_t how;
    int32_t *groups[3]; /**< g_idx [experts, inputs], or NULL */
    uint16_t *scales[3];
    float *biases[3]; /**< [experts, outputs], or NULL */
    void *data[3];    /**< gate, up, down */
    double *values[3];
    ferrum_gguf_weights_t gguf[3];
    ferrum_gptq_t *gptq[3]; /**< [experts] */
    const ferrum_gptq_t **list[3];
    ferrum_expert_weights_t role[3];
    ferrum_expert_ffn_desc_t desc;
} layer_t;

/** The inputs of one call, on the device. */
typedef struct layer_call {
    uint32_t tokens;
    float *host_x;
    int32_t *host_ids;
    float *host_weights;
    ferrum_buffer_t *x, *ids, *weights, *out;
} layer_call_t;

void layer_make(layer_t *layer, const layer_shape_t *shape);
void layer_make_gptq(layer_t *layer, const layer_shape_t *shape, const layer_gptq_t *how);
/** The same of other block formats (shape->gptq is false); sizes are multiples of their blocks. */
void layer_make_of(layer_t *layer, const layer_shape_t *shape,
                   const ferrum_weight_format_t formats[3]);
void layer_free(layer_t *layer);

/** Inputs for up to @p tokens tokens; fill them with call_fill. */
void call_make(layer_call_t *call, const layer_t *layer, uint32_t tokens);
/** New x, ids and weights for @p seed. All ids are @p only unless it is negative. */
void call_fill(layer_call_t *call, const layer_t *layer, uint32_t seed, int32_t only);
void call_free(layer_call_t *call);

/** The bits of out; free() them. */
uint16_t *call_read(const layer_call_t *call, const layer_t *layer);
/** Largest of ||out - f64|| / ||f64|| over the rows. */
double call_error(const layer_call_t *call, const layer_t *layer);

#endif /* FERRUM_TEST_CUDA_LAYERS_H */
