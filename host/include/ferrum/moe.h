/* SPDX-License-Identifier: MIT */
/**
 * @file moe.h
 * @brief Layer tier of libferrum: bring your own engine, hand over one layer's expert weights as
 *        they lie in your file, call forward.
 *
 * A *runtime* is one opened backend; a *session* is one stream of work on it with its own threads
 * and scratch (use one per thread of yours); a *layer* is the packed experts of one MoE layer,
 * shared by all sessions. `docs/examples/moe_layer.c` is the whole thing in about 30 lines.
 */
#ifndef FERRUM_MOE_H
#define FERRUM_MOE_H

#include <ferrum/loader.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ferrum_runtime ferrum_runtime_t;     /**< one opened backend and device */
typedef struct ferrum_session ferrum_session_t;     /**< a context with its threads and scratch */
typedef struct ferrum_moe_layer ferrum_moe_layer_t; /**< routed experts of one layer */

/** How a runtime is opened. Zero is the default everywhere. */
typedef struct ferrum_runtime_options {
    ferrum_head_t head;
    const char *backend;             /**< NULL: FERRUM_BACKEND of @c options, else "auto" */
    const ferrum_options_t *options; /**< copied; NULL: read from the environment once */
    uint32_t threads;                /**< per session; 0: FERRUM_THREADS, else one per core */
    uint32_t reserved;
    const ferrum_allocator_t *allocator; /**< NULL: malloc, large blocks in huge pages */
    const ferrum_logger_t *logger;       /**< NULL: silent */
} ferrum_runtime_options_t;

/** Frozen least size of ferrum_runtime_options_t. */
#define FERRUM_RUNTIME_OPTIONS_MIN_SIZE 48u

/** Open a backend. NULL options: everything from the environment.
 *  Errors: those of ferrum_loader_select and device_open. [any-thread] Since 1.0. */
FERRUM_API ferrum_status_t ferrum_runtime_open(const ferrum_runtime_options_t *options,
                                               ferrum_runtime_t **out_runtime, ferrum_error_t *err);
/** Close; sessions, layers and models of it must have been freed. A swap that is running is
 *  cancelled and waited for. NULL is ignored. */
FERRUM_API void ferrum_runtime_close(ferrum_runtime_t *runtime);
/** The module behind it, for its tables and resolved operations. What this and the next two return
 *  is valid until the next ferrum_runtime_swap (ferrum/swap.h). */
FERRUM_API ferrum_module_t *ferrum_runtime_module(const ferrum_runtime_t *runtime);
/** The opened device. */
FERRUM_API ferrum_device_t *ferrum_runtime_device(const ferrum_runtime_t *runtime);
/** Facts about the opened device. */
FERRUM_API const ferrum_device_info_t *ferrum_runtime_device_info(const ferrum_runtime_t *runtime);
/** The options it was opened with. */
FERRUM_API const ferrum_options_t *ferrum_runtime_get_options(const ferrum_runtime_t *runtime);
/** Threads per session. */
FERRUM_API uint32_t ferrum_runtime_threads(const ferrum_runtime_t *runtime);

/** A session with a team of @p threads (0: the runtime's number). [any-thread] Since 1.0. */
FERRUM_API ferrum_status_t ferrum_session_new(ferrum_runtime_t *runtime, uint32_t threads,
                                              ferrum_session_t **out_session, ferrum_error_t *err);
/** Finish its work and free it; NULL is ignored. */
FERRUM_API void ferrum_session_free(ferrum_session_t *session);
/** The backend context behind it. */
FERRUM_API ferrum_context_t *ferrum_session_context(const ferrum_session_t *session);
FERRUM_API ferrum_runtime_t *ferrum_session_runtime(const ferrum_session_t *session);

/**
 * Pack one layer's experts; see ferrum_expert_ffn_desc_t for the weights, which are borrowed for
 * the call unless flagged FERRUM_WEIGHTS_MAPPED. [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_moe_layer_create(ferrum_runtime_t *runtime,
                                                   const ferrum_expert_ffn_desc_t *desc,
                                                   ferrum_moe_layer_t **out_layer,
                                                   ferrum_error_t *err);
FERRUM_API void ferrum_moe_layer_free(ferrum_moe_layer_t *layer);
/**
 * Supplies a layer's weights again, for a backend that replaces the one they were given to: must
 * call ferrum_moe_layer_supply once, on the same thread, and return its status. It runs on the
 * thread that swaps, while the layer goes on serving.
 */
typedef ferrum_status_t ferrum_moe_layer_source_fn(void *arg, ferrum_moe_layer_t *layer,
                                                   ferrum_error_t *err);
/**
 * Where a swap gets the layer's weights from. Needed for layers whose weights were borrowed only
 * during create; those with all slabs and matrices flagged FERRUM_WEIGHTS_MAPPED are packed again
 * from the memory that they were created from, which stays valid as long as the layer. A layer with
 * neither makes a swap fail at its rebuild step. NULL @p source removes it.
 * [any-thread, not during a swap] Since 1.0.
 */
FERRUM_API void ferrum_moe_layer_set_source(ferrum_moe_layer_t *layer,
                                            ferrum_moe_layer_source_fn *source, void *arg);
/** The weights, inside a ferrum_moe_layer_source_fn; shape as at create, borrowed for this call.
 *  Errors: INVALID_ARGUMENT (called elsewhere or twice, another shape), those of create. */
FERRUM_API ferrum_status_t ferrum_moe_layer_supply(ferrum_moe_layer_t *layer,
                                                   const ferrum_expert_ffn_desc_t *desc,
                                                   ferrum_error_t *err);
/** What was packed and which kernels run. head of @p out_info is set by the caller. */
FERRUM_API ferrum_status_t ferrum_moe_layer_info(const ferrum_moe_layer_t *layer,
                                                 ferrum_expert_ffn_info_t *out_info,
                                                 ferrum_error_t *err);
/**
 * Routed experts of @p tokens rows, host arrays in and out.
 * @param x       f32 [tokens, hidden]
 * @param ids     i32 [tokens, top_k]; -1 skips a pair
 * @param weights f32 [tokens, top_k]
 * @param out     f32 [tokens, hidden]; overwritten, or added to with FERRUM_FFN_ACCUMULATE
 * Allocates only when @p tokens exceeds every earlier call of the session (or of its generation,
 * after a swap).
 * Errors: BUSY (another thread is using the session), those of the backend.
 * [one-per-session] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_moe_layer_forward(ferrum_session_t *session,
                                                    ferrum_moe_layer_t *layer, const float *x,
                                                    const int32_t *ids, const float *weights,
                                                    float *out, uint32_t tokens, uint32_t top_k,
                                                    uint32_t flags, ferrum_error_t *err);

/**
 * Top-k routing on the host: softmax in f32, K strict-greater picks (the lowest index wins a tie),
 * weights in descending order, divided by their sum when @p norm_topk is non-zero.
 * @param logits f32 [batch, num_experts]
 * @param out_ids i32 [batch, top_k]; out_weights f32 [batch, top_k]
 * @param probs  scratch, f32 [num_experts]
 * Errors: INVALID_ARGUMENT ("top_k must be > 0", "exceeds num_experts", "shape mismatch"),
 * INVALID_INPUT naming the row of a non-finite logit. [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_moe_route(const float *logits, uint64_t logits_count,
                                            uint32_t batch, uint32_t num_experts, uint32_t top_k,
                                            int norm_topk, float *probs, int32_t *out_ids,
                                            float *out_weights, ferrum_error_t *err);

/**
 * The reference result of a routed-expert FFN: f64 arithmetic over the dequantised weights, pairs
 * summed in slot order. For tests and benchmarks; needs no backend and is slow.
 * @param desc    the layer, as for ferrum_moe_layer_create
 * @param out     f64 [tokens, hidden], overwritten; pairs that are not local contribute nothing
 * Errors: INVALID_ARGUMENT (shapes), UNSUPPORTED (a format without a decoder), OUT_OF_MEMORY.
 * [any-thread] Since 1.0.
 */
FERRUM_API ferrum_status_t ferrum_moe_reference(const ferrum_expert_ffn_desc_t *desc,
                                                const float *x, const int32_t *ids,
                                                const float *weights, double *out, uint32_t tokens,
                                                uint32_t top_k, ferrum_error_t *err);

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_MOE_H */
