/* SPDX-License-Identifier: MIT */
/**
 * @file model_config.h
 * @brief The hyper-parameters of a model, from GGUF metadata or from Hugging Face JSON files.
 *
 * A config that a function here returned is validated: every field is within the limits below, so
 * that products of any three of them fit 64 bits with room to spare, head counts divide, the
 * numbers are finite and positive. What Ferrum does not compute (other architectures, RoPE scaling,
 * layers without experts, …) is refused with UNSUPPORTED, never ignored.
 */
#ifndef FERRUM_HOST_MODEL_CONFIG_H
#define FERRUM_HOST_MODEL_CONFIG_H

#include <ferrum/quant_llm.h>
#include <stdbool.h>

#include "host/formats/gguf.h"

#define FERRUM_MODEL_MAX_LAYERS 4096u
#define FERRUM_MODEL_MAX_HIDDEN (1u << 20) /**< also every FFN width and head_count * head_dim */
#define FERRUM_MODEL_MAX_HEAD_DIM 4096u
#define FERRUM_MODEL_MAX_VOCAB (1u << 24)
#define FERRUM_MODEL_MAX_CONTEXT (1u << 28)
#define FERRUM_MODEL_MAX_EXPERTS (1u << 16)
#define FERRUM_MODEL_MAX_EOS_TOKENS 16
#define FERRUM_MODEL_ARCHITECTURE_BYTES 32

/** How the linear layers of a GPTQ checkpoint were quantised. */
typedef struct ferrum_gptq_config {
    bool present;        /**< false: not a GPTQ checkpoint; the rest is then zero */
    uint32_t bits;       /**< 4 or 8 */
    uint32_t group_size; /**< input features per scale; 0 = one group per column (file: -1) */
    bool desc_act;       /**< act-order: g_idx is required */
    bool sym;
    ferrum_zero_convention_t zero_convention;
} ferrum_gptq_config_t;

/** A model. `experts` = 0 means a dense one; then all MoE fields are zero. */
typedef struct ferrum_model_config {
    char architecture[FERRUM_MODEL_ARCHITECTURE_BYTES]; /**< as GGUF spells it: "qwen3moe" */
    uint32_t layers;
    uint32_t hidden;       /**< h */
    uint32_t heads;        /**< query heads */
    uint32_t kv_heads;     /**< divides `heads` */
    uint32_t head_dim;     /**< even; heads * head_dim need not equal h */
    uint32_t intermediate; /**< width of a dense FFN; 0 when the file does not say */
    uint32_t vocab;
    uint32_t context_length;
    uint32_t sliding_window; /**< 0: none */
    double rms_eps;
    double rope_theta;
    bool qk_norm;             /**< per-head RMS norm of q and k before RoPE */
    bool tie_word_embeddings; /**< the output projection is the embedding */
    int64_t bos_token;        /**< -1: none */
    uint32_t eos_count;
    int64_t eos_tokens[FERRUM_MODEL_MAX_EOS_TOKENS]; /**< any of them ends the text */

    uint32_t experts;             /**< E */
    uint32_t experts_used;        /**< k, 1…E */
    uint32_t expert_intermediate; /**< I */
    bool norm_topk_prob;          /**< renormalise the k weights to sum 1 */

    ferrum_gptq_config_t gptq;
} ferrum_model_config_t;

/** Whether fewer experts run than there are: 0 < k < E. [any-thread] */
bool ferrum_model_config_is_sparse(const ferrum_model_config_t *config);

/** Whether @p token is one of the eos tokens. [any-thread] */
bool ferrum_model_config_is_eos(const ferrum_model_config_t *config, int64_t token);

/**
 * Check every field against the limits; INVALID_INPUT naming the field and both numbers.
 * The readers below have done it. [any-thread]
 */
ferrum_status_t ferrum_model_config_validate(const ferrum_model_config_t *config,
                                             ferrum_error_t *err);

/**
 * MoE model from GGUF metadata. `general.architecture` must be "qwen3moe"; required under it:
 * block_count, embedding_length, attention.head_count, expert_count, expert_used_count,
 * expert_feed_forward_length. Defaults: head_count_kv = head_count, context_length 32768,
 * rope.freq_base 1e6, layer_norm_rms_epsilon 1e-6, vocab_size = rows of `token_embd.weight`,
 * attention.key_length = hidden / heads, expert_norm_topk_prob (or
 * expert_weights_norm) true. [any-thread]
 *
 * Errors: NOT_FOUND (a required key, named), UNSUPPORTED (architecture), INVALID_INPUT (values),
 * CORRUPT (types).
 */
ferrum_status_t ferrum_model_config_from_gguf(const ferrum_gguf_t *gguf,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err);

/**
 * Dense model from GGUF metadata: any architecture with the usual keys (rope.freq_base then
 * defaults to 1e4, to 1e6 for qwen3). Refuses MoE architectures (UNSUPPORTED) and says that
 * ferrum_model_config_from_gguf is the function for them. [any-thread]
 */
ferrum_status_t ferrum_model_config_dense_from_gguf(const ferrum_gguf_t *gguf,
                                                    ferrum_model_config_t *out_config,
                                                    ferrum_error_t *err);

/** Add MoE fields to a dense config and validate: @p out_config may be @p base. [any-thread] */
ferrum_status_t ferrum_model_config_from_base(const ferrum_model_config_t *base, uint32_t experts,
                                              uint32_t experts_used, uint32_t expert_intermediate,
                                              bool norm_topk_prob,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err);

/**
 * MoE model from a Hugging Face directory: `config.json`, and where present `quantize_config.json`
 * (it wins over `quantization_config` in config.json) and `generation_config.json` (more eos
 * tokens). [any-thread]
 */
ferrum_status_t ferrum_model_config_from_directory(const char *directory,
                                                   ferrum_model_config_t *out_config,
                                                   ferrum_error_t *err);

/**
 * The same from JSON text; @p quantize_json may be NULL. `model_type` must be "qwen3_moe";
 * required: num_experts (or num_local_experts), moe_intermediate_size, hidden_size,
 * num_hidden_layers, num_attention_heads, vocab_size. Defaults: num_experts_per_tok 8,
 * norm_topk_prob true, rms_norm_eps 1e-6, rope_theta 1e6 (also read from rope_parameters),
 * max_position_embeddings 32768, tie_word_embeddings false. For GPTQ: bits required, group_size
 * 128 (negative: per channel), desc_act false, sym true, checkpoint_format "gptq". [any-thread]
 */
ferrum_status_t ferrum_model_config_from_json(const char *config_json, const char *quantize_json,
                                              ferrum_model_config_t *out_config,
                                              ferrum_error_t *err);

#endif /* FERRUM_HOST_MODEL_CONFIG_H */
