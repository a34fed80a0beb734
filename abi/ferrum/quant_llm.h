/* SPDX-License-Identifier: MIT */
/**
 * @file quant_llm.h
 * @brief Interface "ferrum.quant_llm/1": graphs, paged KV, weight loaders, and the tables of the
 *        objects that loaders make: Linear, StackedExperts, MarlinExpertStack.
 *
 * Weights given to a loader are borrowed during the call only, unless FERRUM_WEIGHTS_MAPPED says
 * that they stay readable; a backend may then keep pointing at them (zero copy). Loaded weights
 * stay quantised. Whether a problem is taken is asked with `supports`; a loader refuses the same
 * problems with the same reason. Objects are reference counted: a view keeps its stack alive, a
 * stack its device.
 */
#ifndef FERRUM_QUANT_LLM_H
#define FERRUM_QUANT_LLM_H

#include <ferrum/backend.h>
#include <ferrum/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ferrum_linear ferrum_linear_t;                   /**< `y = x * W^T (+ bias)` */
typedef struct ferrum_stacked_experts ferrum_stacked_experts_t; /**< E equal GGUF matrices */
typedef struct ferrum_marlin_stack ferrum_marlin_stack_t;       /**< E equal GPTQ matrices */

/* ---- weight descriptors ---- */

/** Flags of weight descriptors. Unknown bits are refused (FERRUM_REASON_FLAGS). */
enum {
    /** The bytes stay mapped and unchanged until the object that was made of them is freed. */
    FERRUM_WEIGHTS_MAPPED = 1u << 0
};

/**
 * Consecutive rows of blocks as they lie in a GGUF file: [experts, rows, cols], expert outermost.
 * F32, F16 and BF16 count as block formats of one value.
 */
typedef struct ferrum_gguf_weights {
    ferrum_head_t head;
    ferrum_weight_format_t format;
    uint32_t flags;   /**< FERRUM_WEIGHTS_* */
    uint32_t experts; /**< 1 for a plain matrix */
    uint32_t rows;    /**< N, outputs (per expert) */
    uint32_t cols;    /**< K, inputs; a multiple of the format's block */
    uint32_t reserved;
    const void *data; /**< any alignment */
    uint64_t bytes;   /**< exactly experts * rows * cols / block_values * block_bytes */
} ferrum_gguf_weights_t;

/** Frozen least size of ferrum_gguf_weights_t. */
#define FERRUM_GGUF_WEIGHTS_MIN_SIZE 48u

/** What the stored zero code means. */
typedef uint32_t ferrum_zero_convention_t;
enum {
    FERRUM_ZERO_STORED_MINUS_ONE = 0, /**< zero = code + 1 (checkpoint_format "gptq") */
    FERRUM_ZERO_STORED = 1            /**< zero = code (checkpoint_format "gptq_v2") */
};

/**
 * One GPTQ matrix, K inputs by N outputs:
 * `w[n,k] = (code[k,n] - zero[g,n]) * scale[g,n]`, `g = g_idx ? g_idx[k] : k / group_size`.
 * Codes are packed along K, zeros along N, `32/bits` to an int32, lowest bits first.
 */
typedef struct ferrum_gptq {
    ferrum_head_t head;
    uint32_t flags;      /**< FERRUM_WEIGHTS_* */
    uint32_t bits;       /**< 4 or 8 */
    uint32_t group_size; /**< rows of K per group, divides K; 0: one group (per channel) */
    ferrum_zero_convention_t zero_convention;
    uint32_t k;
    uint32_t n;
    const int32_t *qweight; /**< [k*bits/32, n] */
    uint64_t qweight_count; /**< elements, checked */
    const int32_t *qzeros;  /**< [groups, n*bits/32]; NULL: symmetric, zero = 2^(bits-1) */
    uint64_t qzeros_count;
    const void *scales; /**< [groups, n] */
    uint64_t scales_count;
    ferrum_dtype_t scales_dtype; /**< f32, f16 or bf16 */
    uint32_t reserved;
    const int32_t *g_idx; /**< [k], each in [0, groups); NULL: k / group_size */
    uint64_t g_idx_count;
    const float *bias; /**< f32 [n] or NULL */
} ferrum_gptq_t;

/** Frozen least size of ferrum_gptq_t. */
#define FERRUM_GPTQ_MIN_SIZE 112u

/* ---- asking before calling ---- */

/** What a problem is about. */
typedef uint32_t ferrum_problem_kind_t;
enum {
    FERRUM_PROBLEM_LINEAR = 0,          /**< load_quant, load_gptq */
    FERRUM_PROBLEM_STACKED_EXPERTS = 1, /**< load_quant_experts */
    FERRUM_PROBLEM_MARLIN_STACK = 2,    /**< load_gptq_stacked */
    FERRUM_PROBLEM_EXPERT_FFN = 3,      /**< expert_ffn_create */
    FERRUM_PROBLEM_ROUTE = 4,           /**< route_topk_softmax */
    FERRUM_PROBLEM_ALIGN = 5,           /**< moe_align_block_size, pair building */
    FERRUM_PROBLEM_PAGED_ATTENTION = 6, /**< paged attention and writes */
    FERRUM_PROBLEM_GRAPH = 7            /**< graph capture */
};

/** A question for `supports`. Zero means "not relevant" in every field. */
typedef struct ferrum_problem {
    ferrum_head_t head;
    ferrum_problem_kind_t kind;
    ferrum_weight_format_t format;      /**< gate and up for EXPERT_FFN */
    ferrum_weight_format_t format_down; /**< down for EXPERT_FFN */
    uint32_t bits;                      /**< GPTQ */
    uint32_t group_size;                /**< GPTQ; 0: per channel */
    uint32_t act_order;                 /**< non-zero: g_idx is not k / group_size */
    uint32_t asymmetric;                /**< non-zero: zero points differ from the middle code */
    uint32_t k;                         /**< inputs; h for EXPERT_FFN */
    uint32_t n;                         /**< outputs; I for EXPERT_FFN */
    uint32_t experts;
    uint32_t top_k;
    ferrum_dtype_t activation_dtype;
    uint32_t score_function; /**< ferrum_score_function_t, moe_fused.h */
    uint32_t activation;     /**< ferrum_activation_kind_t, moe_fused.h */
    uint32_t has_bias;
    uint32_t head_dim;
    uint32_t block_size; /**< of alignment or of the KV pool */
    ferrum_kv_layout_t kv_layout;
    uint32_t num_groups; /**< routing groups */
    uint32_t precision;  /**< ferrum_precision_t, moe_fused.h */
} ferrum_problem_t;

/** Frozen least size of ferrum_problem_t. */
#define FERRUM_PROBLEM_MIN_SIZE 88u

/* ---- object tables ---- */

/** Facts about a Linear. */
typedef struct ferrum_linear_info {
    ferrum_head_t head;
    uint32_t in_features;  /**< K */
    uint32_t out_features; /**< N */
    ferrum_weight_format_t format;
    uint32_t bits;     /**< GPTQ code width, else 0 */
    uint64_t bytes;    /**< memory held for the weights; 0 for a view or mapped weights */
    float error_bound; /**< stated bound of ||o-r||/||r|| per output row against f64 over the
                            dequantised weights, before rounding to act */
    uint32_t reserved; /**< zero */
} ferrum_linear_info_t;

/** Frozen least size of ferrum_linear_info_t. */
#define FERRUM_LINEAR_INFO_MIN_SIZE 40u

/** Table of Linear. */
typedef struct ferrum_linear_ops {
    ferrum_head_t head;
    /** Add a reference. [any-thread] Since 1.0. */
    void (*retain)(ferrum_linear_t *linear);
    /** Drop a reference; NULL is ignored. [any-thread] Since 1.0. */
    void (*release)(ferrum_linear_t *linear);
    /** Describe; head of @p out_info is set by the caller. [any-thread] Since 1.0. */
    ferrum_status_t (*info)(const ferrum_linear_t *linear, ferrum_linear_info_t *out_info,
                            ferrum_error_t *err);
    /**
     * `y[m,N] = x[m,K] * W^T (+ bias)`, overwriting y. x and y are act and start at the given
     * element offsets. Errors: INVALID_ARGUMENT (bounds, dtype). [one-per-context] Since 1.0.
     */
    ferrum_status_t (*forward)(ferrum_context_t *ctx, const ferrum_linear_t *linear,
                               const ferrum_buffer_t *x, uint64_t x_offset, ferrum_buffer_t *y,
                               uint64_t y_offset, uint32_t m, ferrum_error_t *err);
} ferrum_linear_ops_t;

/** Frozen least size of ferrum_linear_ops_t. */
#define FERRUM_LINEAR_OPS_MIN_SIZE 40u

/** Facts about a stack of experts of one role (gate, up or down) of one layer. */
typedef struct ferrum_expert_stack_info {
    ferrum_head_t head;
    uint32_t num_experts;
    uint32_t n; /**< outputs per expert */
    uint32_t k; /**< inputs */
    ferrum_weight_format_t format;
    uint32_t bits;          /**< GPTQ code width, else 0 */
    uint32_t requires_vllm; /**< non-zero: only gemm_phase_vllm works (Marlin stacks) */
    uint64_t bytes;         /**< memory held for the weights; 0 when mapped */
    float error_bound;      /**< stated bound of ||o-r||/||r|| per output row against f64 over the
                                 dequantised weights, before rounding to act */
    uint32_t reserved;      /**< zero */
} ferrum_expert_stack_info_t;

/** Frozen least size of ferrum_expert_stack_info_t. */
#define FERRUM_EXPERT_STACK_INFO_MIN_SIZE 48u

/**
 * Table of StackedExperts. `ids` holds expert numbers for the gemv forms and pair ids for the gemm
 * forms; all index buffers are i32, all activations act. W[e] is [N,K]. A gemv id of -1 is skipped
 * and its output row is left alone; any other id out of range is INVALID_INPUT where the backend
 * can see it without waiting, else such a row is skipped.
 */
typedef struct ferrum_stacked_experts_ops {
    ferrum_head_t head;
    /** Add a reference. [any-thread] Since 1.0. */
    void (*retain)(ferrum_stacked_experts_t *stack);
    /** Drop a reference; NULL is ignored. [any-thread] Since 1.0. */
    void (*release)(ferrum_stacked_experts_t *stack);
    /** Describe; head of @p out_info is set by the caller. [any-thread] Since 1.0. */
    ferrum_status_t (*info)(const ferrum_stacked_experts_t *stack,
                            ferrum_expert_stack_info_t *out_info, ferrum_error_t *err);
    /**
     * For i < n_sel: `out[out_offset + i*N ..] = W[ids[ids_offset+i]] * a[a_offset + i*stride ..]`.
     * stride 0 broadcasts one row of K. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemv_moe_id)(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                   const ferrum_buffer_t *a, uint64_t a_offset,
                                   const ferrum_buffer_t *ids, uint64_t ids_offset,
                                   ferrum_buffer_t *out, uint64_t out_offset, uint32_t n_sel,
                                   uint64_t stride, ferrum_error_t *err);
    /**
     * gate and up in one: `out[i,:] = silu(Wg[ids[i]] * a) * (Wu[ids[i]] * a)`, a[K] broadcast,
     * out [n_sel, N]. Both stacks belong to one device and have equal shapes; formats may differ.
     * [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemv_moe_id_gate_up_silu)(ferrum_context_t *ctx,
                                                const ferrum_stacked_experts_t *gate,
                                                const ferrum_stacked_experts_t *up,
                                                const ferrum_buffer_t *a,
                                                const ferrum_buffer_t *ids, ferrum_buffer_t *out,
                                                uint32_t n_sel, ferrum_error_t *err);
    /**
     * For pair p < m*top_k: input row at `(p/top_k)*outer + (p%top_k)*inner` elements, expert
     * ids[p], output row p of out [m*top_k, N]. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemv_moe_id_batched)(ferrum_context_t *ctx,
                                           const ferrum_stacked_experts_t *stack,
                                           const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                           ferrum_buffer_t *out, uint32_t m, uint32_t top_k,
                                           uint64_t outer, uint64_t inner, ferrum_error_t *err);
    /** The fused gate/up form of gemv_moe_id_batched. [one-per-context] Since 1.0. */
    ferrum_status_t (*gemv_moe_id_gate_up_silu_batched)(
        ferrum_context_t *ctx, const ferrum_stacked_experts_t *gate,
        const ferrum_stacked_experts_t *up, const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
        ferrum_buffer_t *out, uint32_t m, uint32_t top_k, uint64_t outer, uint64_t inner,
        ferrum_error_t *err);
    /**
     * For each expert e and slot s < tpe[e], pair `p = ids[e*max_per_expert + s]`:
     * `out[p,:] = W[e] * a[row,:]`, row = p/top_k when ne11 is 1 (one input row per token), p when
     * ne11 is top_k (one per pair). ids i32 [E, max_per_expert], tpe i32 [E], out
     * [batch*top_k, N]. Rows of pairs in no list are left alone. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemm_moe_id)(ferrum_context_t *ctx, const ferrum_stacked_experts_t *stack,
                                   const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                   const ferrum_buffer_t *tpe, ferrum_buffer_t *out, uint32_t ne11,
                                   uint32_t top_k, uint32_t max_per_expert, uint32_t batch,
                                   ferrum_error_t *err);
    /** Same, with the launch size from a u32 [3] triple in device memory, as compute_ids_tpe
     *  writes it: (token tiles, row tiles, E). [one-per-context] Since 1.0. */
    ferrum_status_t (*gemm_moe_id_indirect)(ferrum_context_t *ctx,
                                            const ferrum_stacked_experts_t *stack,
                                            const ferrum_buffer_t *a, const ferrum_buffer_t *ids,
                                            const ferrum_buffer_t *tpe, ferrum_buffer_t *out,
                                            const ferrum_buffer_t *args, uint32_t ne11,
                                            uint32_t top_k, uint32_t max_per_expert, uint32_t batch,
                                            ferrum_error_t *err);
} ferrum_stacked_experts_ops_t;

/** Frozen least size of ferrum_stacked_experts_ops_t. */
#define FERRUM_STACKED_EXPERTS_OPS_MIN_SIZE 80u

/** One entry of gemm_phase_batched: rows of one expert. */
typedef struct ferrum_moe_dispatch {
    uint32_t expert;
    uint32_t in_row;  /**< first input row */
    uint32_t out_row; /**< first output row */
    uint32_t rows;
} ferrum_moe_dispatch_t;

/** Device triple that tells gemm_phase_vllm which rows belong to which expert. */
typedef struct ferrum_moe_routing {
    ferrum_head_t head;
    ferrum_buffer_t *sorted_token_ids;       /**< i32 [>= total]; ids >= P are padding */
    ferrum_buffer_t *expert_ids;             /**< i32 [>= total/block_size] */
    ferrum_buffer_t *num_tokens_past_padded; /**< i32 [1] = total */
} ferrum_moe_routing_t;

/** Frozen least size of ferrum_moe_routing_t. */
#define FERRUM_MOE_ROUTING_MIN_SIZE 32u

/** Table of MarlinExpertStack. */
typedef struct ferrum_marlin_stack_ops {
    ferrum_head_t head;
    /** Add a reference. [any-thread] Since 1.0. */
    void (*retain)(ferrum_marlin_stack_t *stack);
    /** Drop a reference; NULL is ignored. [any-thread] Since 1.0. */
    void (*release)(ferrum_marlin_stack_t *stack);
    /** Describe; head of @p out_info is set by the caller. [any-thread] Since 1.0. */
    ferrum_status_t (*info)(const ferrum_marlin_stack_t *stack,
                            ferrum_expert_stack_info_t *out_info, ferrum_error_t *err);
    /** Clear lock words once per phase; cheap or empty. [one-per-context] Since 1.0. */
    ferrum_status_t (*zero_workspace)(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                      ferrum_error_t *err);
    /**
     * For each dispatch: `out[out_row .. +rows, N] = in[in_row .. +rows, K] * W[expert]^T`.
     * @p dispatches is host memory, which is not looked at after the call: a graph that records
     * the call keeps the list. Output ranges must not overlap. @p k must equal the stack's. An
     * empty list succeeds. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemm_phase_batched)(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                          const ferrum_buffer_t *in,
                                          const ferrum_moe_dispatch_t *dispatches, uint32_t count,
                                          ferrum_buffer_t *out, uint32_t k, ferrum_error_t *err);
    /**
     * For padded slot s < total with id r = sorted[s] < prob_m*top_k:
     * `out[r,:] = in[r/top_k,:] * W[expert_ids[s/block_size]]^T`. Other ids are padding.
     * [one-per-context] Since 1.0.
     */
    ferrum_status_t (*gemm_phase_vllm)(ferrum_context_t *ctx, ferrum_marlin_stack_t *stack,
                                       const ferrum_buffer_t *in,
                                       const ferrum_moe_routing_t *routing, ferrum_buffer_t *out,
                                       uint32_t prob_m, uint32_t block_size, uint32_t top_k,
                                       ferrum_error_t *err);
    /**
     * A Linear over columns `[offset, offset+n)` of the experts laid side by side (expert e starts
     * at e*N), without a copy; the view must lie within one expert. Keeps the stack alive.
     * @param bias host f32 [n], copied, or NULL
     * Errors: INVALID_ARGUMENT (range), UNSUPPORTED (alignment). [any-thread] Since 1.0.
     */
    ferrum_status_t (*make_expert_linear)(ferrum_marlin_stack_t *stack, uint64_t offset, uint32_t n,
                                          const float *bias, ferrum_linear_t **out_linear,
                                          ferrum_error_t *err);
} ferrum_marlin_stack_ops_t;

/** Frozen least size of ferrum_marlin_stack_ops_t. */
#define FERRUM_MARLIN_STACK_OPS_MIN_SIZE 64u

/* ---- the interface ---- */

/** Names a captured graph. Graphs belong to the context that captured them. */
typedef struct ferrum_graph_key {
    uint64_t model; /**< host's number of the model and generation */
    uint64_t shape; /**< host's number of the shape, e.g. the batch size */
} ferrum_graph_key_t;

/** The QuantLlmBackend table. */
typedef struct ferrum_quant_llm_ops {
    ferrum_head_t head;

    /** Tables of the objects below; a sub-table may be NULL when no loader makes such objects. */
    const ferrum_linear_ops_t *linear;
    const ferrum_stacked_experts_ops_t *stacked_experts;
    const ferrum_marlin_stack_ops_t *marlin_stack;

    /**
     * Whether a loader or op takes a problem.
     * @return FERRUM_OK, or FERRUM_UNSUPPORTED with reason and text in @p err
     * [any-thread] Since 1.0.
     */
    ferrum_status_t (*supports)(ferrum_device_t *device, const ferrum_problem_t *problem,
                                ferrum_error_t *err);

    /* ---- weight loaders ---- */

    /** A Linear from one GGUF matrix (experts == 1). @p bias host f32 [rows], copied, or NULL.
     *  Errors: INVALID_ARGUMENT (bytes or shape, unknown flags), UNSUPPORTED with a reason.
     *  [any-thread] Since 1.0. */
    ferrum_status_t (*load_quant)(ferrum_device_t *device, const ferrum_gguf_weights_t *weights,
                                  const float *bias, ferrum_linear_t **out_linear,
                                  ferrum_error_t *err);
    /** A Linear whose rows are those of @p parts one after another; equal cols, formats may
     *  differ. [any-thread] Since 1.0. */
    ferrum_status_t (*load_quant_fused)(ferrum_device_t *device,
                                        const ferrum_gguf_weights_t *const *parts, uint32_t count,
                                        ferrum_linear_t **out_linear, ferrum_error_t *err);
    /** StackedExperts from one expert-major slab. [any-thread] Since 1.0. */
    ferrum_status_t (*load_quant_experts)(ferrum_device_t *device,
                                          const ferrum_gguf_weights_t *weights,
                                          ferrum_stacked_experts_t **out_stack,
                                          ferrum_error_t *err);
    /** A Linear from one GPTQ matrix. Errors: INVALID_ARGUMENT (a count or shape that contradicts
     *  the others), INVALID_INPUT (a g_idx entry out of range), UNSUPPORTED with a reason.
     *  [any-thread] Since 1.0. */
    ferrum_status_t (*load_gptq)(ferrum_device_t *device, const ferrum_gptq_t *weights,
                                 ferrum_linear_t **out_linear, ferrum_error_t *err);
    /**
     * A MarlinExpertStack from @p num_experts GPTQ matrices with equal shape, bits, group size
     * and convention; g_idx may differ between experts. One call is one role of one layer.
     * [any-thread] Since 1.0.
     */
    ferrum_status_t (*load_gptq_stacked)(ferrum_device_t *device,
                                         const ferrum_gptq_t *const *experts, uint32_t num_experts,
                                         ferrum_marlin_stack_t **out_stack, ferrum_error_t *err);
    /** Grow the scratch that act-order gathers use to @p elements, so that a captured step does
     *  not allocate. [one-per-context] Since 1.0. */
    ferrum_status_t (*pregrow_gather_scratch)(ferrum_context_t *ctx, uint64_t elements,
                                              ferrum_error_t *err);

    /* ---- graph capture ---- */

    /** Write token and step into the device words that captured kernels read.
     *  [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_set_decode_state)(ferrum_context_t *ctx, uint32_t token, uint32_t step,
                                              ferrum_error_t *err);
    /** Switch kernels to the device-resident step. [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_set_device_state_mode)(ferrum_context_t *ctx, uint32_t on,
                                                   ferrum_error_t *err);
    /** Start recording. BUSY when a capture is in flight. Until graph_end nothing executes, and
     *  allocation, transfers and waits on this context fail. [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_begin)(ferrum_context_t *ctx, ferrum_error_t *err);
    /** Finish recording and keep the graph under @p key, replacing an older one. On failure the
     *  recorded work has *not* run: run the step again eagerly. [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_end)(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                 ferrum_error_t *err);
    /** Launch the graph of @p key; *out_launched is 0 when there is none (it is dropped when a
     *  buffer it captured is freed). [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_replay)(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                    uint32_t *out_launched, ferrum_error_t *err);
    /** Drop one graph; no such graph is success. [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_reset)(ferrum_context_t *ctx, const ferrum_graph_key_t *key,
                                   ferrum_error_t *err);
    /** Drop all graphs of the context. [one-per-context] Since 1.0. */
    ferrum_status_t (*graph_reset_all)(ferrum_context_t *ctx, ferrum_error_t *err);
    /** *out_in_flight is non-zero between graph_begin and graph_end. [one-per-context]
     *  Since 1.0. */
    ferrum_status_t (*graph_in_flight)(ferrum_context_t *ctx, uint32_t *out_in_flight,
                                       ferrum_error_t *err);

    /* ---- paged KV; positions, tables and lengths are device buffers ---- */

    /**
     * Split qkv act [tokens, (q_heads + 2*kv_heads)*head_dim] (from @p qkv_offset) of ONE
     * sequence, norm and rotate from position @p pos, write q head-major to q_out
     * [q_heads, tokens, head_dim] (from @p q_offset) and k, v into the pool at positions
     * cache_len .. cache_len+tokens. block_table i32 [max_blocks_per_seq].
     * [one-per-context] Since 1.0.
     */
    ferrum_status_t (*paged_kv_write)(ferrum_context_t *ctx, const ferrum_buffer_t *qkv,
                                      uint64_t qkv_offset, const ferrum_rope_t *rope,
                                      ferrum_buffer_t *q_out, uint64_t q_offset,
                                      const ferrum_paged_kv_t *kv,
                                      const ferrum_buffer_t *block_table, uint32_t tokens,
                                      uint32_t q_heads, uint32_t pos, uint32_t cache_len,
                                      ferrum_error_t *err);
    /**
     * The same for a mixed batch: sequence s owns tokens cu_seqlens[s] .. cu_seqlens[s+1] of
     * m_total and starts at pos_offsets[s]. cu_seqlens i32 [num_seqs+1], pos_offsets i32
     * [num_seqs], block_tables i32 [num_seqs, max_blocks_per_seq]; q_out token-major
     * [m_total, q_heads, head_dim]. Tokens from cu_seqlens[num_seqs] on are padding, so that one
     * graph serves every batch up to its size: nothing is written for them. A backend without
     * FERRUM_CAP_GRAPH may refuse them. [one-per-context] Since 1.0.
     */
    ferrum_status_t (*paged_kv_write_varlen)(
        ferrum_context_t *ctx, const ferrum_buffer_t *qkv, const ferrum_rope_t *rope,
        ferrum_buffer_t *q_out, const ferrum_paged_kv_t *kv, const ferrum_buffer_t *cu_seqlens,
        const ferrum_buffer_t *pos_offsets, const ferrum_buffer_t *block_tables, uint32_t num_seqs,
        uint32_t m_total, uint32_t q_heads, ferrum_error_t *err);
    /**
     * Attention of the newest q_len tokens. q_len 1: q, out [num_seqs, num_heads, head_dim], each
     * sequence sees context_lens[s] keys. q_len > 1: num_seqs must be 1, q and out head-major
     * [num_heads, q_len, head_dim], token i sees context_len - q_len + 1 + i keys.
     * block_tables i32 [num_seqs, max_blocks_per_seq], context_lens i32 [num_seqs].
     * [one-per-context] Since 1.0.
     */
    ferrum_status_t (*paged_decode_attention)(ferrum_context_t *ctx, const ferrum_buffer_t *q,
                                              const ferrum_paged_kv_t *kv, ferrum_buffer_t *out,
                                              const ferrum_buffer_t *block_tables,
                                              const ferrum_buffer_t *context_lens,
                                              uint32_t num_seqs, uint32_t q_len,
                                              const ferrum_attn_config_t *config,
                                              ferrum_error_t *err);
    /**
     * Attention of a mixed batch: q, out token-major [total_q, num_heads, head_dim]; local token i
     * of sequence s sees keys 0 .. pos_offsets[s]+i, at most the last sliding_window. Rows of
     * padding (see paged_kv_write_varlen) become zeros.
     * @param max_kv_len upper bound of any sequence's keys (sizes scratch)
     * [one-per-context] Since 1.0.
     */
    ferrum_status_t (*paged_varlen_attention)(
        ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
        ferrum_buffer_t *out, const ferrum_buffer_t *cu_seqlens, const ferrum_buffer_t *pos_offsets,
        const ferrum_buffer_t *block_tables, uint32_t num_seqs, uint32_t total_q,
        uint32_t max_kv_len, const ferrum_attn_config_t *config, ferrum_error_t *err);
    /** One query per sequence with kv_lens i32 [num_seqs] keys each: q, out
     *  [num_seqs, num_heads, head_dim]. [one-per-context] Since 1.0. */
    ferrum_status_t (*paged_batched_decode_attention)(
        ferrum_context_t *ctx, const ferrum_buffer_t *q, const ferrum_paged_kv_t *kv,
        ferrum_buffer_t *out, const ferrum_buffer_t *block_tables, const ferrum_buffer_t *kv_lens,
        uint32_t num_seqs, uint32_t max_kv_len, const ferrum_attn_config_t *config,
        ferrum_error_t *err);
} ferrum_quant_llm_ops_t;

/** Frozen least size of ferrum_quant_llm_ops_t. */
#define FERRUM_QUANT_LLM_OPS_MIN_SIZE 192u

#ifdef __cplusplus
}
#endif

#endif /* FERRUM_QUANT_LLM_H */
