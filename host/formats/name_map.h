/* SPDX-License-Identifier: MIT */
/**
 * @file name_map.h
 * @brief Tensor names: Hugging Face <-> GGUF, from one table.
 *
 * Known are the embedding, final norm and output projection, and per layer L: the two norms,
 * attention projections and their q/k norms, the router, the dense FFN and the experts. Both sides
 * end in `.weight` or `.bias`. The experts of a layer are one stacked GGUF tensor
 * (`blk.L.ffn_gate_exps.weight`) but one HF tensor each
 * (`model.layers.L.mlp.experts.X.gate_proj.weight`).
 */
#ifndef FERRUM_HOST_NAME_MAP_H
#define FERRUM_HOST_NAME_MAP_H

#include <ferrum/types.h>

/** Room for any name that these functions write, terminator included. */
#define FERRUM_TENSOR_NAME_BYTES 128
/** Most real tensors behind a virtual fused name. */
#define FERRUM_FUSED_MAX_PARTS 3
/** `expert` of a tensor that is not one expert of a stack. */
#define FERRUM_NO_EXPERT (-1)

typedef char ferrum_tensor_name_t[FERRUM_TENSOR_NAME_BYTES];

/**
 * GGUF name of the HF tensor @p hf_name. *out_expert is the expert's number inside the stacked GGUF
 * tensor, or FERRUM_NO_EXPERT. The router is known as `mlp.gate` and as `mlp.router`. [any-thread]
 * Errors: NOT_FOUND for a name that is not in the table (fused ones included).
 */
ferrum_status_t ferrum_name_to_gguf(const char *hf_name, ferrum_tensor_name_t out_name,
                                    int64_t *out_expert, ferrum_error_t *err);

/**
 * HF name of the GGUF tensor @p gguf_name; @p expert picks one of a stacked tensor (>= 0; required
 * there, FERRUM_NO_EXPERT elsewhere, INVALID_ARGUMENT otherwise). [any-thread]
 */
ferrum_status_t ferrum_name_to_hf(const char *gguf_name, int64_t expert,
                                  ferrum_tensor_name_t out_name, ferrum_error_t *err);

/**
 * HF names of the tensors that a virtual fused one stands for, in row order:
 * `…self_attn.qkv_proj.weight` = q, k, v; `…gate_up_proj.weight` (of a dense FFN or of one expert)
 * = gate, up. *out_count is 0 for a name that is not fused. [any-thread]
 */
void ferrum_name_fused_parts(const char *hf_name,
                             ferrum_tensor_name_t out_parts[FERRUM_FUSED_MAX_PARTS],
                             uint32_t *out_count);

#endif /* FERRUM_HOST_NAME_MAP_H */
