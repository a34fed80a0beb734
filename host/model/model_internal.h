/* SPDX-License-Identifier: MIT */
/**
 * @file model_internal.h
 * @brief A Qwen3-MoE: its parts, and the flow of one step through them.
 *
 * One step ("pass") runs some rows through all layers: a piece of one prompt, or one new token of
 * each of several requests. Per layer: qkv, split/norm/RoPE/cache append, attention, output
 * projection, `residual += attention` and norm, router, experts, `residual += experts` and the next
 * layer's norm. Every buffer lives in one scratch that grows to the largest pass; after that a step
 * allocates nothing and reads no option.
 */
#ifndef FERRUM_HOST_MODEL_INTERNAL_H
#define FERRUM_HOST_MODEL_INTERNAL_H

#include <ferrum/model.h>

#include "host/model/kv_cache.h"
#include "host/model/weights.h"
#include "host/moe/moe_run.h"
#include "host/runtime/arrays.h"
#include "host/runtime/runtime_internal.h"
#include "host/text/tokenizer.h"

/** Which ops attention is made of; decided once per model. */
typedef enum ferrum_attention_path {
    FERRUM_ATTENTION_VARLEN,     /**< paged, any number of requests in one launch */
    FERRUM_ATTENTION_PAGED,      /**< paged, one write per request */
    FERRUM_ATTENTION_INTO_CACHE, /**< contiguous: split_qkv_norm_rope_into_cache */
    FERRUM_ATTENTION_SPLIT,      /**< contiguous: split_qkv_norm_rope, append */
    FERRUM_ATTENTION_CHAIN       /**< contiguous: split_qkv, three qk_norm_rope, append */
} ferrum_attention_path_t;

/** Weights of one layer. */
typedef struct ferrum_model_layer {
    ferrum_buffer_t *input_norm; /**< f32 [h]; the norms of the model are all f32 */
    ferrum_buffer_t *post_norm;
    ferrum_buffer_t *q_norm, *k_norm; /**< [head_dim], or NULL without qk-norm */
    ferrum_linear_t *qkv;             /**< q, k and v in one, or … */
    ferrum_linear_t *parts[3];        /**< … each by itself */
    ferrum_linear_t *output;
    ferrum_linear_t *router;
    ferrum_expert_stack_t experts;
} ferrum_model_layer_t;

/** Buffers of a pass of t rows. Act unless noted. */
typedef struct ferrum_model_scratch {
    uint32_t rows;                    /**< t that everything is made for */
    ferrum_device_array_t residual;   /**< [t, h] */
    ferrum_device_array_t norm;       /**< [t, h] */
    ferrum_device_array_t qkv;        /**< [t, q + 2 kv] */
    ferrum_device_array_t q, k, v;    /**< one of them each, where qkv is taken apart */
    ferrum_device_array_t heads;      /**< head-major attention output or joined parts */
    ferrum_device_array_t row;        /**< [q + 2 kv]: one request of a contiguous batch */
    ferrum_device_array_t attention;  /**< [t, q] */
    ferrum_device_array_t projected;  /**< [t, h] */
    ferrum_device_array_t router;     /**< [t, E] */
    ferrum_device_array_t moe;        /**< [t, h] */
    ferrum_device_array_t logits;     /**< [requests, vocab] */
    ferrum_device_array_t cu_seqlens; /**< i32 [requests + 1] */
    ferrum_device_array_t positions;  /**< i32 [requests]: first position of the pass */
    ferrum_device_array_t lengths;    /**< i32 [requests]: keys after the pass */
    ferrum_device_array_t tables;     /**< i32 [requests, table length] */
    ferrum_device_array_t *tables_of; /**< PAGED: [requests] i32 [table length] each */
    ferrum_host_array_t embedded;     /**< f32 [t, h] */
    ferrum_host_array_t indices;      /**< i32: what is uploaded into the four above */
} ferrum_model_scratch_t;

/** Captured graphs of batched decode. */
typedef struct ferrum_graph_state {
    bool wanted;       /**< FERRUM_MOE_GRAPH=1 and nothing in a step goes through the host */
    bool failed;       /**< a capture failed: never tried again */
    uint32_t warmups;  /**< eager steps before the first capture */
    uint64_t captures; /**< graphs that were recorded */
    uint64_t replays;
    bool *seen; /**< [max_sequences + 1]: a graph of that many rows exists */
} ferrum_graph_state_t;

/** Eager steps before a capture. */
#define FERRUM_GRAPH_WARMUPS 3u

struct ferrum_model {
    ferrum_runtime_t *runtime; /**< borrowed */
    ferrum_ops_t ops;          /**< a copy, so that tests can put other tables in */
    ferrum_session_t *session;
    ferrum_context_t *ctx;
    uint64_t number; /**< distinguishes the graphs of models */
    ferrum_moe_env_t env;
    uint32_t max_rows; /**< of one prefill pass */

    ferrum_weights_t weights;
    const ferrum_model_config_t *config; /**< inside weights */
    ferrum_tokenizer_t *tokenizer;       /**< NULL: none, for the following reason */
    ferrum_error_t tokenizer_error;
    ferrum_matrix_t embedding;
    ferrum_model_layer_t *layers;
    ferrum_buffer_t *final_norm;
    ferrum_linear_t *lm_head;
    ferrum_buffer_t *cos, *sin; /**< f32 [capacity, head_dim / 2] */

    ferrum_attention_path_t attention_path;
    ferrum_kv_layout_t kv_layout; /**< of a paged cache */
    ferrum_attn_config_t attention;
    ferrum_kv_cache_t *kv;
    ferrum_sequence_t **batch; /**< [max_sequences]: requests of the pass at hand */
    uint64_t stamp;

    ferrum_moe_scratch_t *moe;
    ferrum_model_scratch_t scratch;
    ferrum_graph_state_t graph;
};

/** Rows that go through the layers together. */
typedef struct ferrum_pass {
    uint32_t rows;
    uint32_t num_sequences;
    ferrum_sequence_t *const *sequences;
    bool decode;    /**< one row of each request; else all rows belong to sequences[0] */
    uint32_t ahead; /**< rows of sequences[0] that earlier passes of the same call have written */
} ferrum_pass_t;

/** First position of request @p i of a pass. */
static inline uint32_t ferrum_pass_position(const ferrum_pass_t *pass, uint32_t i)
{
    return pass->sequences[i]->length + pass->ahead;
}

/** Columns of q, of k (or v), and of the three together. */
static inline uint32_t ferrum_model_q_dim(const ferrum_model_t *model)
{
    return model->config->heads * model->config->head_dim;
}
static inline uint32_t ferrum_model_kv_dim(const ferrum_model_t *model)
{
    return model->config->kv_heads * model->config->head_dim;
}
static inline uint32_t ferrum_model_qkv_dim(const ferrum_model_t *model)
{
    return ferrum_model_q_dim(model) + 2 * ferrum_model_kv_dim(model);
}

/* ---- model_load.c ---- */

/** Weights of all layers, embedding, head and tables of rotation. The model owns what was loaded,
 *  also when loading stopped half way. */
ferrum_status_t ferrum_model_load_weights(ferrum_model_t *model, ferrum_error_t *err);
void ferrum_model_free_weights(ferrum_model_t *model);

/* ---- model_scratch.c ---- */

/** Room for passes of @p rows rows and @p requests requests; drops graphs when anything grew. */
ferrum_status_t ferrum_model_reserve_scratch(ferrum_model_t *model, uint32_t rows,
                                             uint32_t requests, ferrum_error_t *err);
void ferrum_model_free_scratch(ferrum_model_t *model);
/** Device bytes held, those of the experts' scratch included. */
uint64_t ferrum_model_scratch_bytes(const ferrum_model_t *model);

/* ---- attention.c ---- */

/**
 * The path and cache layout that the backend supports, logged. FERRUM_USE_VLLM_PAGED_ATTN: 1 takes
 * the vLLM layout or refuses, 0 the FlashAttention layout; unset takes vLLM's where the device has
 * it, except where the device's memory is the host's: there whole rows of keys read faster.
 * Errors: UNSUPPORTED with the reason.
 */
ferrum_status_t ferrum_model_choose_attention(ferrum_model_t *model, ferrum_error_t *err);
/** Put positions, lengths and block tables of a pass where the device sees them. */
ferrum_status_t ferrum_model_upload_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                         ferrum_error_t *err);
/** scratch.norm to scratch.attention: qkv, cache and attention of one layer. */
ferrum_status_t ferrum_model_attention(ferrum_model_t *model, uint32_t layer,
                                       const ferrum_pass_t *pass, ferrum_error_t *err);

/* ---- forward.c ---- */

/** Embed the tokens of a pass into scratch.residual and upload its indices. */
ferrum_status_t ferrum_model_prepare_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                          const uint32_t *tokens, ferrum_error_t *err);
/** All layers and the final norm; the result is scratch.norm. No transfers to or from the host
 *  when the experts route on the device. */
ferrum_status_t ferrum_model_run_layers(ferrum_model_t *model, const ferrum_pass_t *pass,
                                        ferrum_error_t *err);
/** Logits of @p count rows of scratch.norm from @p row on, into scratch.logits from @p out_row. */
ferrum_status_t ferrum_model_run_head(ferrum_model_t *model, uint32_t row, uint32_t count,
                                      uint32_t out_row, ferrum_error_t *err);

/* ---- graph.c ---- */

/** Layers and head of a prepared shared decode pass: replayed, captured or eager. */
ferrum_status_t ferrum_model_run_shared(ferrum_model_t *model, const ferrum_pass_t *pass,
                                        const uint32_t *tokens, ferrum_error_t *err);
/** Drop all graphs of this model's context. */
void ferrum_model_reset_graphs(ferrum_model_t *model);

#endif /* FERRUM_HOST_MODEL_INTERNAL_H */
