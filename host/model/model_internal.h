/* SPDX-License-Identifier: MIT */
/**
 * @file model_internal.h
 * @brief A Qwen3-MoE: its parts, and the flow of one step through them.
 *
 * A model is a set of files and what was made of them on the generation that serves (its image),
 * shared by any number of handles; each handle has its own requests, cache, threads and scratch and
 * belongs to one thread at a time. All calls that touch a handle's own state enter its session's
 * gate, so that a swap finds it between two passes.
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
#include "host/runtime/session_internal.h"
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

/** What is known of passes of one size. */
typedef struct ferrum_graph_size {
    bool ran;      /**< eagerly: everything that grows has grown */
    bool captured; /**< a graph exists, unless the backend has dropped it */
} ferrum_graph_size_t;

/**
 * Captured graphs. Passes are padded to one of a few sizes, so that one graph serves many batches:
 * a row of padding is zeros, belongs to no request and is written nowhere. Routing sends it, like
 * all other padding, to the first experts, which cost it nothing when others go there too.
 */
typedef struct ferrum_graph_state {
    bool wanted;       /**< FERRUM_MOE_GRAPH=1 and nothing in a step goes through the host */
    bool pads;         /**< and the backend takes padding, and graphs of prompts */
    bool failed;       /**< a capture failed: never tried again */
    uint32_t warmups;  /**< eager decode steps before the first capture */
    uint64_t captures; /**< graphs that were recorded */
    uint64_t replays;
    ferrum_graph_size_t *decode;  /**< [max_sequences + 1]: by rows */
    ferrum_graph_size_t *prefill; /**< [max_rows + 1] */
} ferrum_graph_state_t;

/** Eager steps before a capture. */
#define FERRUM_GRAPH_WARMUPS 3u

/** A model's weights on one generation: immutable once loaded, read by all handles. */
typedef struct ferrum_model_image {
    ferrum_ops_t ops; /**< a copy, so that tests can put other tables in */
    ferrum_moe_plan_t plan;
    uint32_t layer_count;
    ferrum_model_layer_t *layers; /**< [layer_count] */
    ferrum_buffer_t *final_norm;
    ferrum_linear_t *lm_head;
    uint64_t held_bytes; /**< occupied by all that: held, or mapped from the files */
} ferrum_model_image_t;

/** What all handles of a model have in common: its files, which a swap loads again, and what was
 *  made of them. */
typedef struct ferrum_model_shared {
    atomic_uint handles;
    ferrum_runtime_t *runtime; /**< borrowed */
    ferrum_moe_env_t env;
    ferrum_weights_t weights;
    ferrum_tokenizer_t *tokenizer; /**< NULL: none, for the following reason */
    ferrum_error_t tokenizer_error;
    ferrum_matrix_t embedding;
    ferrum_formats_used_t formats; /**< of the experts */
    ferrum_object_t object;
    ferrum_model_image_t *image; /**< serves */
    ferrum_model_image_t *other; /**< of a swap */
    float *golden;               /**< logits of the self-test's tokens on the first generation that
                                      a swap replaced; NULL before */
    ferrum_dtype_t golden_dtype; /**< that it computed in */
} ferrum_model_shared_t;

/** How large a handle's cache is to be, 0 where the options decide. */
typedef struct ferrum_model_sizes {
    uint32_t capacity;
    uint32_t max_sequences;
} ferrum_model_sizes_t;

/** Times of the parts of passes, when somebody measures. */
typedef struct ferrum_pass_profile {
    bool on;
    uint64_t passes;
    uint64_t last_ns; /**< end of the last part */
    uint64_t ns[FERRUM_MODEL_PARTS];
} ferrum_pass_profile_t;

/** One handle: requests with their cache, threads and scratch. */
struct ferrum_model {
    ferrum_runtime_t *runtime; /**< borrowed */
    ferrum_model_shared_t *shared;
    const ferrum_model_config_t *config; /**< inside shared */
    ferrum_session_t *session;           /**< its gate guards everything below */
    uint64_t number;                     /**< distinguishes the graphs of handles */
    ferrum_moe_env_t env;
    ferrum_model_sizes_t sizes; /**< as asked for */
    ferrum_pass_profile_t profile;
    ferrum_object_t object;
    ferrum_model_t *other; /**< of a swap: holds what follows for the other generation */

    /* From here on everything belongs to one generation; a swap exchanges it as a whole. */
    ferrum_ops_t *ops;            /**< inside the image, as are the next three */
    ferrum_model_layer_t *layers; /**< [config->layers] */
    ferrum_buffer_t *final_norm;
    ferrum_linear_t *lm_head;
    ferrum_context_t *ctx;      /**< of the session */
    ferrum_buffer_t *cos, *sin; /**< f32 [capacity, head_dim / 2] */

    ferrum_attention_path_t attention_path;
    ferrum_kv_layout_t kv_layout; /**< of a paged cache */
    ferrum_attn_config_t attention;
    uint32_t max_rows; /**< of one prefill pass */
    ferrum_kv_cache_t *kv;
    ferrum_sequence_t **batch; /**< [max_sequences]: requests of the pass at hand */
    uint64_t stamp;

    ferrum_moe_scratch_t *moe;
    ferrum_model_scratch_t scratch;
    ferrum_graph_state_t graph;
};

/** Rows that go through the layers together. */
typedef struct ferrum_pass {
    uint32_t rows;          /**< with padding */
    uint32_t used;          /**< without; the first ones */
    uint32_t num_sequences; /**< as many as rows in decode, else 1 */
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

/* ---- profile.c ---- */

/** A pass begins; only when measuring. */
void ferrum_model_begin_profile(ferrum_model_t *model);
/** Time since the last part belongs to @p part; only when measuring. */
void ferrum_model_note_part(ferrum_model_t *model, ferrum_model_part_t part);
/** The end of a part: nothing but a look at a flag when nobody measures. */
static inline void ferrum_model_end_part(ferrum_model_t *model, ferrum_model_part_t part)
{
    if (model->profile.on)
        ferrum_model_note_part(model, part);
}

/* ---- model_load.c ---- */

/**
 * Load a model's weights on @p ops. [any-thread]
 * @param progress told of the bytes loaded; NULL for a swap, which nobody watches
 * Errors: those of planning the experts and of loading.
 */
ferrum_status_t ferrum_model_image_new(ferrum_model_shared_t *shared, const ferrum_ops_t *ops,
                                       ferrum_progress_fn *progress, void *progress_arg,
                                       ferrum_model_image_t **out_image, ferrum_error_t *err);
/** NULL is ignored. */
void ferrum_model_image_free(ferrum_model_image_t *image);

/* ---- model_handle.c ---- */

/** Fill what belongs to one generation: cache, scratch, rotation tables. Identity (the fields
 *  before) is set. On failure close it. */
ferrum_status_t ferrum_model_open_side(ferrum_model_t *model, ferrum_model_image_t *image,
                                       ferrum_context_t *ctx, const ferrum_model_sizes_t *sizes,
                                       ferrum_error_t *err);
/** Release it; what was not made is ignored. */
void ferrum_model_close_side(ferrum_model_t *model);
/** A handle on @p image that no swap knows and no other thread uses. Free it with
 *  ferrum_model_free_trial. */
ferrum_status_t ferrum_model_new_trial(ferrum_model_shared_t *shared, ferrum_model_image_t *image,
                                       uint32_t capacity, ferrum_model_t **out_model,
                                       ferrum_error_t *err);
void ferrum_model_free_trial(ferrum_model_t *model);

/* ---- model_swap.c ---- */

extern const ferrum_object_ops_t ferrum_model_shared_object;
extern const ferrum_object_ops_t ferrum_model_handle_object;

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

/** Rows of a pass of @p rows once it is padded: all up to 8, then four sizes from each power of two
 *  to the next, at most @p most. As they are where nothing is to be captured. */
uint32_t ferrum_model_pad_rows(const ferrum_model_t *model, uint32_t rows, uint32_t most);
/** The layers of a prepared pass, and the head of a decode pass: replayed, captured or eager. */
ferrum_status_t ferrum_model_run_pass(ferrum_model_t *model, const ferrum_pass_t *pass,
                                      const uint32_t *tokens, ferrum_error_t *err);
/** Drop all graphs of this model's context. */
void ferrum_model_reset_graphs(ferrum_model_t *model);

#endif /* FERRUM_HOST_MODEL_INTERNAL_H */
