/* SPDX-License-Identifier: MIT */
/**
 * @file model.h
 * @brief Model tier of libferrum: a whole Qwen3-MoE from a GGUF file or a GPTQ checkpoint.
 *
 * A model holds weights and a paged KV cache on one runtime. Requests are numbered by the caller;
 * each has its own sequence in the cache. One thread at a time drives a model; a server with
 * several gives each its own handle of the same weights (ferrum_model_share). A call on a handle
 * that another thread is using returns FERRUM_BUSY.
 *
 * ferrum_runtime_swap (ferrum/swap.h) changes the backend under all of them, requests included.
 */
#ifndef FERRUM_MODEL_H
#define FERRUM_MODEL_H

#include <ferrum/moe.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ferrum_model ferrum_model_t;

/** Progress while loading: @p done of @p total bytes; return non-zero to cancel. Called on the
 *  thread that loads and on others that it starts for that, never on two at a time. */
typedef int ferrum_progress_fn(void *arg, uint64_t done, uint64_t total);

/** How a model is loaded. Zero is the default everywhere. */
typedef struct ferrum_model_options {
    ferrum_head_t head;
    uint32_t kv_capacity;   /**< positions per request; 0: FERRUM_KV_CAPACITY, else
                                 min(model, 512) */
    uint32_t max_sequences; /**< requests alive at once; 0: FERRUM_PAGED_MAX_SEQS */
    ferrum_progress_fn *progress;
    void *progress_arg;
    uint32_t threads; /**< of this handle; 0: the runtime's. Since 1.0 */
    uint32_t reserved;
} ferrum_model_options_t;

/** Frozen least size of ferrum_model_options_t. */
#define FERRUM_MODEL_OPTIONS_MIN_SIZE 32u

/** Shape and memory of a loaded model. */
typedef struct ferrum_model_info {
    ferrum_head_t head;
    uint32_t layers, hidden, heads, kv_heads, head_dim;
    uint32_t experts, top_k, intermediate, vocab, context_length;
    uint32_t kv_capacity, max_sequences;
    uint64_t weight_bytes; /**< held or mapped */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
    char architecture[32];
    char moe_path[64]; /**< "expert_ffn", "bucketed", "stacked", "per-pair" */
} ferrum_model_info_t;

/** Frozen least size of ferrum_model_info_t. */
#define FERRUM_MODEL_INFO_MIN_SIZE 176u

/**
 * Load a model. @p path is a .gguf file or a directory with config.json and safetensors.
 * Errors: NOT_FOUND, IO, CORRUPT, UNSUPPORTED (architecture, format), OUT_OF_MEMORY, CANCELLED.
 * [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_model_open(ferrum_runtime_t *runtime, const char *path,
                                             const ferrum_model_options_t *options,
                                             ferrum_model_t **out_model, ferrum_error_t *err);
/**
 * Another handle of the weights of @p model, with requests, KV cache, threads and scratch of its
 * own: one for each thread of a server. Handles are equal; the weights go with the last of them.
 * @param model   not being freed meanwhile; may be in use on another thread
 * @param options NULL: those of the environment; progress is not called
 * Errors: OUT_OF_MEMORY, RESOURCE_EXHAUSTED (threads). [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_model_share(const ferrum_model_t *model,
                                              const ferrum_model_options_t *options,
                                              ferrum_model_t **out_model, ferrum_error_t *err);
/** Free a handle, and the weights with the last one; NULL is ignored. */
FERRUM_API void ferrum_model_free(ferrum_model_t *model);
/** Describe; head of @p out_info is set by the caller. */
FERRUM_API ferrum_status_t ferrum_model_get_info(const ferrum_model_t *model,
                                                 ferrum_model_info_t *out_info,
                                                 ferrum_error_t *err);
/** Counters of the context that runs the model, since the model was opened or its backend swapped;
 *  head of @p out_stats is set by the caller. UNSUPPORTED when the backend counts nothing. */
FERRUM_API ferrum_status_t ferrum_model_get_stats(const ferrum_model_t *model,
                                                  ferrum_context_stats_t *out_stats,
                                                  ferrum_error_t *err);
/** Whether @p token ends a generation (eos and the like). */
FERRUM_API int ferrum_model_is_end(const ferrum_model_t *model, uint32_t token);

/**
 * Append @p count tokens to request @p id (made on first use) and return the logits of the last
 * one. On failure the request is as before the call.
 * @param out_logits f32 [vocab]
 * Errors: RESOURCE_EXHAUSTED (no free KV block or sequence), INVALID_ARGUMENT (token out of
 * range, capacity exceeded). [one-per-model] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_model_prefill(ferrum_model_t *model, uint64_t id,
                                                const uint32_t *tokens, uint32_t count,
                                                float *out_logits, ferrum_error_t *err);
/** One more token of an existing request. [one-per-model] Since 1.0. */
FERRUM_API ferrum_status_t ferrum_model_decode(ferrum_model_t *model, uint64_t id, uint32_t token,
                                               float *out_logits, ferrum_error_t *err);
/**
 * One more token of each of @p count existing, distinct requests in one pass.
 * @param out_logits f32 [count, vocab]
 * Errors: as prefill; on failure no request has advanced. [one-per-model] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_model_decode_batch(ferrum_model_t *model, const uint64_t *ids,
                                                     const uint32_t *tokens, uint32_t count,
                                                     float *out_logits, ferrum_error_t *err);
/** Positions that request @p id holds; 0 when there is no such request. */
FERRUM_API uint32_t ferrum_model_length(const ferrum_model_t *model, uint64_t id);
/** Forget a request and free its blocks; an unknown id is ignored. */
FERRUM_API void ferrum_model_release(ferrum_model_t *model, uint64_t id);
/** Forget all requests. */
FERRUM_API void ferrum_model_reset(ferrum_model_t *model);

/* ---- where the time of a pass goes ---- */

/** Parts of a pass, in order. */
typedef uint32_t ferrum_model_part_t;
enum {
    FERRUM_MODEL_PART_EMBEDDING, /**< decoding rows of the embedding, uploads */
    FERRUM_MODEL_PART_NORMS,     /**< but for those that end the experts' part */
    FERRUM_MODEL_PART_QKV,       /**< the projection */
    FERRUM_MODEL_PART_ATTENTION, /**< norms of q and k, rotation, cache, attention */
    FERRUM_MODEL_PART_OUTPUT,    /**< the output projection */
    FERRUM_MODEL_PART_ROUTER,    /**< router logits */
    FERRUM_MODEL_PART_EXPERTS,   /**< routing, experts, residual, next norm */
    FERRUM_MODEL_PART_HEAD,
    FERRUM_MODEL_PART_LOGITS, /**< reading them back */
    FERRUM_MODEL_PARTS
};

/** Time per part since profile_start. */
typedef struct ferrum_model_profile {
    ferrum_head_t head;
    uint64_t passes;
    uint64_t ns[16]; /**< by ferrum_model_part_t; the rest is zero */
} ferrum_model_profile_t;

/** Frozen least size of ferrum_model_profile_t. */
#define FERRUM_MODEL_PROFILE_MIN_SIZE 144u

/** Clear the times and measure (or, with @p on 0, stop). Measuring waits for the device after every
 *  part and does without graphs. Errors: INVALID_ARGUMENT; those of a swap under way.
 *  [one-per-model] Since 1.0. */
FERRUM_API ferrum_status_t ferrum_model_profile_start(ferrum_model_t *model, int on,
                                                      ferrum_error_t *err);
/** Times so far; head of @p out_profile is set by the caller. [one-per-model] Since 1.0. */
FERRUM_API ferrum_status_t ferrum_model_profile_read(const ferrum_model_t *model,
                                                     ferrum_model_profile_t *out_profile,
                                                     ferrum_error_t *err);
/** Lower-case name of a part, NULL beyond the last. [any-thread] Since 1.0. */
FERRUM_API const char *ferrum_model_part_name(ferrum_model_part_t part);

/* ---- text, with the tokenizer of the model's own files ---- */

/**
 * Text to tokens. @p text is UTF-8, @p text_bytes long.
 * @param parse_special non-zero: special tokens written in the text become their ids
 * @param out_tokens at least @p capacity entries
 * @param out_count  the number of tokens; also written with FERRUM_RESOURCE_EXHAUSTED, which says
 *                   that capacity is too small
 * Errors: INVALID_INPUT (not UTF-8), NOT_FOUND (the files have no tokenizer), or what made theirs
 * unusable (CORRUPT, UNSUPPORTED: such a model opens, with a warning, and takes tokens only).
 * [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_model_encode(const ferrum_model_t *model, const char *text,
                                               size_t text_bytes, int parse_special,
                                               uint32_t *out_tokens, size_t capacity,
                                               size_t *out_count, ferrum_error_t *err);
/** Bytes of one token (not necessarily whole characters, not terminated); NULL for an unknown id
 *  or without a tokenizer. [any-thread] Since 1.0. */
FERRUM_API const char *ferrum_model_token_bytes(const ferrum_model_t *model, uint32_t token,
                                                size_t *out_bytes);

/* ---- generation ---- */

/** Sampling and length. Zero of a field is what its comment says. */
typedef struct ferrum_generate_options {
    ferrum_head_t head;
    uint32_t max_tokens;        /**< tokens to generate; 0: none */
    float temperature;          /**< 0: greedy, the lowest id wins a tie */
    uint32_t top_k;             /**< 0: off */
    float top_p;                /**< 0 or 1: off */
    float min_p;                /**< 0: off */
    float repetition_penalty;   /**< 0 or 1: off */
    uint32_t repetition_window; /**< last tokens that count; 0: 64 */
    uint32_t reserved;
    uint64_t seed;
    uint32_t ignore_end; /**< non-zero: go on after an end token */
    uint32_t reserved2;
} ferrum_generate_options_t;

/** Frozen least size of ferrum_generate_options_t. */
#define FERRUM_GENERATE_OPTIONS_MIN_SIZE 56u

/** Called for each token as it is made, an end token included; return non-zero to stop. @p text are
 *  the bytes that became whole characters with this token (may be empty), not terminated; control
 *  tokens have none. With the last token comes what was held back, broken bytes as U+FFFD. */
typedef int ferrum_token_fn(void *arg, uint32_t token, const char *text, size_t text_bytes);

/** Why a generation stopped, and its times. */
typedef struct ferrum_generate_result {
    ferrum_head_t head;
    uint32_t prompt_tokens;
    uint32_t generated_tokens;
    uint32_t stopped_by_end; /**< an end token came */
    uint32_t stopped_by_callback;
    double prefill_ms;
    double decode_ms;
} ferrum_generate_result_t;

/** Frozen least size of ferrum_generate_result_t. */
#define FERRUM_GENERATE_RESULT_MIN_SIZE 40u

/**
 * Prefill a prompt as request @p id (which must not exist), sample up to max_tokens, release the
 * request. [one-per-model] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_generate(ferrum_model_t *model, uint64_t id,
                                           const uint32_t *prompt, uint32_t prompt_count,
                                           const ferrum_generate_options_t *options,
                                           ferrum_token_fn *on_token, void *arg,
                                           ferrum_generate_result_t *out_result,
                                           ferrum_error_t *err);

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_MODEL_H */
