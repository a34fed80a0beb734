/* SPDX-License-Identifier: MIT */
/**
 * @file qwen3_moe_layer.h
 * @brief The MoE block of one Qwen3-MoE layer by itself: router and per-expert Linears, host arrays
 *        in and out. The plain reference that the model's fast paths are compared with; it makes
 *        its buffers per call.
 */
#ifndef FERRUM_HOST_QWEN3_MOE_LAYER_H
#define FERRUM_HOST_QWEN3_MOE_LAYER_H

#include "host/moe/expert_stack.h"

/** Zeroed is empty. */
typedef struct ferrum_qwen3_moe_layer {
    const ferrum_ops_t *ops; /**< borrowed */
    ferrum_linear_t *router; /**< h to E */
    ferrum_expert_stack_t experts;
    uint32_t hidden;
    uint32_t num_experts;
    uint32_t top_k;
    bool norm_topk;
} ferrum_qwen3_moe_layer_t;

/**
 * Layer @p layer of a GGUF file, which must stay open: `blk.N.ffn_gate_inp.weight` and the three
 * expert tensors. [any-thread]
 * Errors: NOT_FOUND naming the tensor, INVALID_INPUT (its shape is not the config's), UNSUPPORTED.
 */
ferrum_status_t ferrum_qwen3_moe_layer_load(const ferrum_ops_t *ops, const ferrum_gguf_t *gguf,
                                            uint32_t layer, const ferrum_model_config_t *config,
                                            ferrum_qwen3_moe_layer_t *out_layer,
                                            ferrum_error_t *err);
/** Release everything; zeroed is fine. Leaves the struct zeroed. */
void ferrum_qwen3_moe_layer_free(ferrum_qwen3_moe_layer_t *layer);

/**
 * Route @p batch rows and run their experts. [one-per-context]
 * @param x   f32 [batch, h]; @p x_count must be batch * h
 * @param out f32 [batch, h]
 * Errors: INVALID_ARGUMENT (x_count), INVALID_INPUT (non-finite logits), OUT_OF_MEMORY.
 */
ferrum_status_t ferrum_qwen3_moe_layer_forward(ferrum_context_t *ctx,
                                               const ferrum_qwen3_moe_layer_t *layer,
                                               const float *x, uint64_t x_count, uint32_t batch,
                                               float *out, ferrum_error_t *err);

#endif /* FERRUM_HOST_QWEN3_MOE_LAYER_H */
